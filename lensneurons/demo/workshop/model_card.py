"""The card of a demo model: how it was made, how it trained, what it can do, and what it shows.

    python -m lensneurons.demo.workshop.model_card FOLDER

Everything on the card is read from the folder or measured on the test problems.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import load_corpus
from lensneurons.demo.run import SCORE, TOP_RATE
from lensneurons.demo.workshop.choice import is_worked
from lensneurons.demo.workshop.recipe import Recipe
from lensneurons.demo.workshop.train import LOG, RECIPE
from lensneurons.demo.world import LANGUAGES
from lensneurons.errors import ProvenanceError
from lensneurons.evaluation.answers import accuracy
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.experiments.setting_means import setting_means
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import divide_layers
from lensneurons.plots import language_colour, save_figure
from lensneurons.plots.ablation import headline, told_beyond
from lensneurons.values.files import load_json, replacing

CONTROLS = 20
CHOSEN_ON = 0  # the seed that recipes are chosen on
TRIED = (
    "nine short runs and two long trainings of other recipes came before it "
    "(`lensneurons/demo/workshop/SERIES.md` in the repository)"
)
# Most tokens of an answer; a worked answer has about 40.
LONGEST = 100
SHOWN_LINES = 12
SHARES = ("right_answer", "right_language", "right_language_determined", "both")


def write_card(
    folder: str | Path,
    *,
    again: Sequence[str | Path] = (),
    problems: int = 200,
    matrix_items: int = 20,
) -> Path:
    """Measure a demo model and write its card and training curve into its folder.

    Args:
        folder: what `train` made.
        again: what `train` made of the same recipe with other seeds; the card compares them.
        problems: test problems in each language, for the accuracy.
        matrix_items: test problems in each language, for the deactivation matrix.

    Returns:
        The path of the card, ``README.md``.

    Raises:
        StorageError: a folder holds no finished training.
        ProvenanceError: one of `again` is of another recipe, or a seed stands there twice.
    """
    path = Path(folder)
    recipe = Recipe(**load_json(path / RECIPE))
    seeds = {recipe.seed}
    for other in again:
        second = Recipe(**load_json(Path(other) / RECIPE))
        if second.seed in seeds or replace(second, seed=recipe.seed) != recipe:
            told = f"{other} was not made by the recipe of {folder} with another seed"
            raise ProvenanceError(told)
        seeds.add(second.seed)
    facts = _measure(path, problems, matrix_items)
    facts["languages"] = LANGUAGES
    facts["again"] = [_measure(Path(other), problems, matrix_items) for other in again]
    facts |= {"chosen_on": CHOSEN_ON, "tried": TRIED}
    save_figure(training_curve(facts["log"]), path / "training_curve.svg")
    options: Any = {"undefined": StrictUndefined, "keep_trailing_newline": True}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    text = environment.get_template("model_card.md.jinja").render(facts)
    card = path / "README.md"
    with replacing(card) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return card


def _measure(folder: Path, problems: int, matrix_items: int) -> dict[str, Any]:
    """Measure what the card says about one training."""
    recipe = Recipe(**load_json(folder / RECIPE))
    log = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    model = load_model(folder, device="cpu")
    corpus = load_corpus("demo", split="test", limit=problems)
    answers = accuracy(model, corpus, max_new_tokens=LONGEST)
    drawn = accuracy(model, corpus, max_new_tokens=LONGEST, temperature=1.0)
    drawn_rows = drawn.per_language().to_dict("index")
    rows = []
    for language, row in answers.per_language().to_dict("index").items():
        told = {part: _with_ends(row, part) for part in SHARES}
        told["undetermined"] = f"{row['undetermined']:.1%}"
        told["drawn"] = _with_ends(drawn_rows[language], "both")
        for name, given in (("worked", answers), ("drawn_worked", drawn)):
            own = [is_worked(answer.text) for answer in given if answer.language == language]
            told[name] = f"{sum(own) / len(own):.1%}"
        rows.append({"language": language, "share": recipe.shares[str(language)], **told})
    # Identified on validation problems, removed on test problems.
    statistics = collect(model, load_corpus("demo", split="validation", limit=100))
    neurons = identify(statistics, score=SCORE, top_rate=TOP_RATE)
    corpus = load_corpus("demo", split="test", limit=matrix_items)
    matrix = ablation_matrix(model, corpus, neurons, controls=CONTROLS)
    return {
        "recipe": recipe,
        "parameters": sum(weight.numel() for weight in model.original_model.parameters()),
        "log": log,
        "shown": log[:: max(1, len(log) // SHOWN_LINES)][:-1] + log[-1:],
        "hours": f"{log[-1]['seconds'] / 3600:.1f}",
        "problems": len(answers) // len(LANGUAGES),
        "accuracy": rows,
        "neurons": neurons.description,
        "histogram": neurons.histogram("all").tolist(),
        "profile": neurons.layer_profile("all").tolist(),
        "parts": divide_layers(neurons, statistics).summary,
        "matrix_items": matrix_items,
        "draws": matrix.draws,
        "headlines": [
            told(matrix, one) for one in setting_means(matrix) for told in (headline, told_beyond)
        ],
        "summary": matrix.summary().to_dict("records"),
    }


def _with_ends(row: Mapping[Any, Any], share: str) -> str:
    """A share with its interval; empty where it is of no text."""
    low, middle, high = (row[f"{share}{end}"] for end in ("_low", "", "_high"))
    return f"{middle:.1%} ({low:.1%} to {high:.1%})" if middle == middle else ""


def training_curve(log: Sequence[dict[str, Any]]) -> go.Figure:
    """Draw the validation NLL of every language over the steps, from the lines of the log."""
    steps = [line["step"] for line in log]
    figure = go.Figure()
    for language in log[0]["validation"]:
        nll = [line["validation"][language] for line in log]
        colour = language_colour(language)
        figure.add_scatter(x=steps, y=nll, name=language, mode="lines", line={"color": colour})
    figure.update_layout(
        title="Validation NLL of the demo model's responses",
        xaxis_title="step",
        yaxis={"title": "NLL, nats a token", "type": "log", "dtick": 1, "tickformat": "~g"},
        template="plotly_white",
    )
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card of a folder and say where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.model_card",
        description="Write the card of a demo model.",
    )
    parser.add_argument("folder", type=Path, help="what lensneurons.demo.workshop.train made")
    parser.add_argument(
        "--again", type=Path, nargs="+", default=[], help="the same with other seeds"
    )
    parser.add_argument("--problems", type=int, default=200, help="for the accuracy")
    parser.add_argument("--items", type=int, default=20, help="for the deactivation matrix")
    options = parser.parse_args(arguments)
    card = write_card(
        options.folder, again=options.again, problems=options.problems, matrix_items=options.items
    )
    sys.stdout.write(f"{card}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
