"""Train and measure a series of short recipes, to choose the world and the model of the demo.

    python -m lensneurons.demo.workshop.series FOLDER --runs FILE

The runs stand in a TOML file (by default ``series.toml`` beside this one): ``[changes.NAME]`` holds
settings of `Recipe`, ``changes.base`` those of every run, and ``[runs]`` which changes a run
combines. They are trained one after the other in one thread. A training that was stopped, even by
``kill -9``, goes on at its last checkpoint and ends with the same weights; what was measured is not
measured again.

The table, ``table.md`` in the folder, is written again after every run. It holds nothing but
validation problems in one language each, of one seed: a series chooses, and what it chose is
measured with other seeds on test problems. So few steps say which way a change goes, not where a
full training ends. Accuracies rest on few problems and have no intervals.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import load_corpus
from lensneurons.demo.run import SCORE, TOP_RATE
from lensneurons.demo.workshop.choice import is_worked
from lensneurons.demo.workshop.markdown import markdown_table
from lensneurons.demo.workshop.recipe import Recipe
from lensneurons.demo.workshop.train import LOG, train
from lensneurons.demo.world import LANGUAGES
from lensneurons.errors import ControlWarning, EmptySetWarning, LensNeuronsError, choose
from lensneurons.evaluation.answers import accuracy
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import divide_layers
from lensneurons.values.files import load_json, replacing, save_json

RUNS = Path(__file__).with_name("series.toml")
MEASURED = "measured.json"
TABLE = "table.md"
SETTINGS = ("specific", "related")
COUNTED = 60  # problems in each language whose activations are counted
ANSWERED = 10  # that the model answers
REMOVED = 6  # on which neurons are removed
CONTROLS = 3
LONGEST = 110
FIGURES = {
    "selectivity": "selectivity",
    "control (own): selectivity": "of controls",
    "diagonal / off-diagonal": "ratio",
    "control (own): diagonal / off-diagonal": "of controls",
    "mean diagonal": "own effect",
    "control (own): mean diagonal": "of controls",
}

logger = logging.getLogger(__name__)


def read_runs(path: str | Path) -> dict[str, Recipe]:
    """Read the runs of a series: name to recipe, in the order of the file.

    Raises:
        LensNeuronsError: a run names a change that is not there, or a change names no setting of a
            recipe, or sets one wrongly.
    """
    table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    changes: Mapping[str, Mapping[str, Any]] = table["changes"]
    recipes: dict[str, Recipe] = {}
    for run, names in table["runs"].items():
        settings: dict[str, Any] = {}
        for name in ("base", *names):
            settings |= changes[choose(name, changes, f"a change of the run {run}")]
        for setting in settings:
            choose(setting, Recipe.__dataclass_fields__, f"a setting of the run {run}")
        recipes[run] = Recipe(**settings)
    return recipes


def run_series(runs: Mapping[str, Recipe], folder: str | Path, *, compiled: bool = False) -> Path:
    """Train and measure every run that is not finished, and return the path of the table.

    `compiled` is an argument of `train`.

    Raises:
        StorageError: a folder holds the training of another recipe.
    """
    target = Path(folder)
    for name, recipe in runs.items():
        place = target / name
        train(recipe, place, progress=False, compiled=compiled)
        if not (place / MEASURED).is_file():
            save_json(place / MEASURED, measure(place), sealed=False)
        logger.info("%s is measured", name)
        write_table(runs, target)
    return target / TABLE


def measure(folder: Path) -> dict[str, Any]:
    """Measure on validation problems what the table says of one trained model."""
    last = json.loads((folder / LOG).read_text(encoding="utf-8").splitlines()[-1])
    model = load_model(folder, device="cpu")
    corpus = load_corpus("demo", split="validation", limit=COUNTED)
    with warnings.catch_warnings():
        # An early model has languages without neurons, and layers without matching ones.
        for kind in (ControlWarning, EmptySetWarning):
            warnings.simplefilter("ignore", kind)
        statistics = collect(model, corpus, progress=False)
        neurons = identify(statistics, score=SCORE, top_rate=TOP_RATE)
        parts = divide_layers(neurons, statistics)
        matrix = ablation_matrix(
            model, corpus.head(REMOVED), neurons,
            classes=SETTINGS, controls=CONTROLS, match="own", progress=False,
        )  # fmt: skip
    answers = accuracy(model, corpus.head(ANSWERED), max_new_tokens=LONGEST, progress=False)
    written: Any = answers.to_pandas()
    written["worked"] = written["text"].map(is_worked)
    shares = written.groupby("language")[["both", "worked"]].mean().to_dict()
    summary = matrix.summary()
    both = summary[summary["removed"] == matrix.name_of(SETTINGS[-1])]
    effects = dict(zip(both["figure"], both["estimate"], strict=True))
    return {
        "parameters": sum(weight.numel() for weight in model.original_model.parameters()),
        "tokens": last["tokens"],
        "seconds": last["seconds"],
        "nll": last["validation"],
        "firing": last["firing"],
        "tau": float(neurons.tau),
        "profile": neurons.layer_profile("all").tolist(),
        "histogram": neurons.histogram("all").tolist(),
        "parts": [part.number for part in parts.parts],
        "told": parts.summary,
        "right": {code: float(shares["both"][code]) for code in LANGUAGES},
        "worked": {code: float(shares["worked"][code]) for code in LANGUAGES},
        "effects": {name: float(effects[name]) for name in FIGURES},
    }


def write_table(runs: Mapping[str, Recipe], folder: Path) -> None:
    """Write what was measured of all finished runs side by side."""
    done = {name: folder / name / MEASURED for name in runs}
    found = {name: load_json(path) for name, path in done.items() if path.is_file()}
    lines = [
        "# A series of short runs",
        "",
        f"{len(found)} of {len(runs)} runs are finished. Validation problems only: {COUNTED} in"
        f" each language are counted, {ANSWERED} answered, and neurons removed on {REMOVED}.",
    ]
    varied = [
        key
        for key in Recipe.__dataclass_fields__
        if len({repr(getattr(recipe, key)) for recipe in runs.values()}) > 1
    ]
    lines += _rows(runs, "What was varied", varied, lambda recipe: [
        _setting(getattr(recipe, key)) for key in varied
    ])  # fmt: skip
    lines += _rows(
        found, "The runs", ["parameters", "tokens", "minutes", "tau", "parts found"],
        lambda m: [
            f"{m['parameters']:,}", f"{m['tokens']:,}", f"{m['seconds'] / 60:.0f}",
            f"{m['tau']:.3f}", " ".join(map(str, m["parts"])) or "none",
        ],
    )  # fmt: skip
    for key, title in (
        ("nll", "NLL of the response, nats a token"),
        ("right", "Right answer in the right language"),
        ("worked", "Share of worked answers"),
    ):
        lines += _rows(found, title, LANGUAGES, lambda m, key=key: _numbers(m[key], LANGUAGES))
    lines += _rows(found, "Firing by layer, %", ["layers"], lambda m: [
        " ".join(f"{100 * rate:.1f}" for rate in m["firing"])
    ])  # fmt: skip
    lines += _rows(
        found, "Neurons by layer", ["specific", "related", "agnostic"],
        lambda m: [" ".join(map(str, kind)) for kind in zip(*m["profile"], strict=True)],
    )  # fmt: skip
    lines += _rows(
        found, "Neurons by the number of languages they are active in",
        [f"N = {n}" for n in range(len(LANGUAGES) + 1)], lambda m: list(map(str, m["histogram"])),
    )  # fmt: skip
    lines += _rows(
        found, "Effect of removing specific and related neurons, nats a token",
        FIGURES.values(), lambda m: _numbers(m["effects"], FIGURES),
    )  # fmt: skip
    lines += ["", "## What is said of the four parts", ""]
    lines += [f"* {name}: {' '.join(m['told'].split())}" for name, m in found.items()]
    with replacing(folder / TABLE) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(
    found: Mapping[str, Any],
    title: str,
    columns: Iterable[str],
    cells: Callable[[Any], list[str]],
) -> list[str]:
    """Write one Markdown table, with a row for each run."""
    rows = ([name, *cells(measured)] for name, measured in found.items())
    return ["", f"## {title}", "", *markdown_table(["run", *columns], rows)]


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {share:.2g}" for name, share in value.items()) or "none"
    return str(value)


def _numbers(values: Mapping[str, float], names: Iterable[str]) -> list[str]:
    return [f"{values[name]:.2f}" for name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a series and say where its table is; return 2 if it cannot be run."""
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.series",
        description="Train and measure a series of short recipes, one after the other.",
    )
    parser.add_argument("folder", type=Path, help="of the runs and their table; resumed if begun")
    parser.add_argument("--runs", type=Path, default=RUNS, help="TOML file of the runs")
    parser.add_argument("--compile", action="store_true", help="translate the models first (C++)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    try:
        table = run_series(read_runs(options.runs), options.folder, compiled=options.compile)
    except LensNeuronsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
