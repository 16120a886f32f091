"""The card of a demo model: how it was made, how it trained, what it can do, and what it shows.

    python -m lensneurons.demo.workshop.model_card FOLDER

Everything on the card is read from the folder or measured anew on the test problems.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import load_corpus
from lensneurons.demo.run import SCORE, TOP_RATE
from lensneurons.demo.workshop.recipe import Recipe
from lensneurons.demo.workshop.training import LOG, RECIPE
from lensneurons.demo.world import LANGUAGES
from lensneurons.errors import ProvenanceError
from lensneurons.evaluation.answers import Accuracy, accuracy
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.models.identity import hash_weights
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import divide_layers
from lensneurons.plots import language_colour, save_figure
from lensneurons.values.files import load_json, replacing

if TYPE_CHECKING:
    import plotly.graph_objects as go

CONTROLS = 20
# Tokens that an answer may have; worked answers have about 40.
LONGEST = 100
SHOWN_LINES = 12


def write_card(
    folder: str | Path,
    *,
    again: str | Path | None = None,
    problems: int = 200,
    matrix_items: int = 20,
    answers: Accuracy | None = None,
) -> Path:
    """Measure a demo model and write its card and training curve into its folder.

    Args:
        folder: what `train` made.
        again: what `train` made of the same recipe with another seed: its figures stand beside.
        problems: test problems a language, for the accuracy.
        matrix_items: test problems a language, for the deactivation matrix.
        answers: its accuracy on the test problems where it was measured before.

    Returns:
        The path of the card, ``README.md``.

    Raises:
        StorageError: a folder holds no finished training.
        ProvenanceError: `again` is of another recipe, or `answers` of other weights.
    """
    path = Path(folder)
    recipe = Recipe(**load_json(path / RECIPE))
    second = None if again is None else Recipe(**load_json(Path(again) / RECIPE))
    if second is not None and (second == recipe or replace(second, seed=recipe.seed) != recipe):
        raise ProvenanceError(f"{again} was not made by the recipe of {folder} with another seed")
    facts = _measure(path, recipe, problems, matrix_items, answers)
    facts["languages"] = LANGUAGES
    facts["again"] = None
    if again is not None and second is not None:
        facts["again"] = _measure(Path(again), second, problems, matrix_items, None)
    save_figure(training_curve(facts["log"]), path / "training_curve.svg")
    card = path / "README.md"
    with replacing(card) as temporary:
        temporary.write_text(_template().render(facts), encoding="utf-8")
    return card


def _measure(
    folder: Path, recipe: Recipe, problems: int, matrix_items: int, answers: Accuracy | None
) -> dict[str, Any]:
    """What the card says of one training."""
    log = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    model = load_model(folder, device="cpu")
    corpus = load_corpus("demo", split="test", limit=problems)
    answers = answers or accuracy(model, corpus, max_new_tokens=LONGEST)
    _check_answers(answers, model)
    return {
        "recipe": recipe,
        "parameters": sum(weight.numel() for weight in model.original_model.parameters()),
        "log": log,
        "shown": log[:: max(1, len(log) // SHOWN_LINES)][:-1] + log[-1:],
        "hours": f"{log[-1]['seconds'] / 3600:.1f}",
        "problems": len(answers) // len(LANGUAGES),
        "accuracy": list(_accuracy_rows(answers, recipe)),
        **_neurons(model, matrix_items),
    }


def _check_answers(answers: Accuracy, model: Any) -> None:
    """Raise where the answers are of other weights.

    Raises:
        ProvenanceError: they are.
    """
    if answers.provenance.weights != hash_weights(model):
        raise ProvenanceError("the answers are of a model with other weights: measure them anew")


def _accuracy_rows(answers: Accuracy, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Rows of the accuracy table."""
    for language, row in answers.per_language().iterrows():
        told = {
            part: f"{row[part]:.1%} ({row[f'{part}_low']:.1%} to {row[f'{part}_high']:.1%})"
            for part in ("right_answer", "right_language", "both")
        }
        yield {"language": language, "share": recipe.shares[str(language)], **told}


def _neurons(model: Any, items: int) -> dict[str, Any]:
    """What identification finds on validation problems, and ablation on test problems."""
    statistics = collect(model, load_corpus("demo", split="validation", limit=100))
    neurons = identify(statistics, score=SCORE, top_rate=TOP_RATE)
    corpus = load_corpus("demo", split="test", limit=items)
    matrix = ablation_matrix(model, corpus, neurons, controls=CONTROLS)
    return {
        "neurons": neurons.description,
        "histogram": neurons.histogram("all").tolist(),
        "profile": neurons.layer_profile("all").tolist(),
        "parts": repr(divide_layers(neurons, statistics)),
        "matrix_items": items,
        "controls": CONTROLS,
        "summary": matrix.summary().to_dict("records"),
    }


def training_curve(log: Sequence[dict[str, Any]]) -> go.Figure:
    """Draw the validation NLL of every language over the steps.

    Args:
        log: the lines of ``training.jsonl``.

    Returns:
        The figure, with logarithmic NLL in nats a token.
    """
    import plotly.graph_objects as go

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


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    options: Any = {"undefined": StrictUndefined, "keep_trailing_newline": True}
    environment = Environment(
        loader=PackageLoader("lensneurons.demo.workshop"),
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    return environment.get_template("model_card.md.jinja")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card of a folder and say where it is.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.model_card",
        description="Write the card of a demo model.",
    )
    parser.add_argument("folder", type=Path, help="what lensneurons.demo.workshop.train made")
    parser.add_argument("--again", type=Path, help="the same with another seed, to stand beside")
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
