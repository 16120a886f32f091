"""Whether alignments do the same to demo models of other seeds: one table of several trainings.

    python -m lensneurons.demo.workshop.seeds 3=FOLDER 4=FOLDER 5=FOLDER

Each folder is one that `lensneurons.demo.workshop.outcomes` has filled, with the same runs. Printed
are, of right and of worked answers, the change of every run in the trained and in the untouched
languages, and each alignment less its controls: a 95 % interval over problems for every seed, and
the mean over the seeds with Student's interval over them. The former says what this model does on
other problems, the latter what another training would do, if trainings scatter normally.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lensneurons.demo.workshop.align import groups_of
from lensneurons.demo.workshop.markdown import markdown_table, points
from lensneurons.demo.workshop.outcomes import (
    CONTROLS,
    TITLES,
    Figure,
    compare_means,
    verdicts,
)
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.answers import Accuracy
from lensneurons.uncertainty.drawn import student

Outcomes = Mapping[str, Accuracy]


def read_outcomes(folder: Path) -> Outcomes:
    """Read the answers of the base and of every run in a folder of outcomes, by name.

    Raises:
        StorageError: there is no base, or a file is damaged.
    """
    names = sorted(path.parent.name for path in folder.glob(f"*/{Accuracy.RUN_FILE}"))
    return {name: Accuracy.load(folder / name) for name in dict.fromkeys(["base", *names])}


def over_seeds(changes: Sequence[float]) -> tuple[float, float, float]:
    """The mean of independent trainings, with Student's 95 % interval; NaN ends for one alone."""
    values, n = np.asarray(changes, float), len(changes)
    if n < 2:
        return float(values[0]), float("nan"), float("nan")
    found = student(values.mean(keepdims=True), values.std(ddof=1, keepdims=True) / n**0.5, n - 1)
    return float(found.estimate[0]), float(found.low[0]), float(found.high[0])


def write_seeds(found: Mapping[str, Outcomes]) -> str:
    """Write the table of each figure in Markdown, in points of percent.

    Args:
        found: seed to what `read_outcomes` gives.

    Raises:
        LensNeuronsError: the seeds have other runs.
    """
    runs = {seed: [name for name in one if name != "base"] for seed, one in found.items()}
    names, *others = runs.values()
    if any(set(other) != set(names) for other in others):
        raise LensNeuronsError(f"every seed needs the same runs; there are {runs}")
    lines: list[str] = []
    for figure, title in TITLES.items():
        head = [title, "languages", *(f"seed {seed}" for seed in found), "mean over seeds"]
        pairs = [(name, "base") for name in names] + [
            (name, f"{name}-{control}")
            for name in names
            for control in CONTROLS
            if f"{name}-{control}" in names
        ]
        rows = [
            [_told(name, other), word, *_changes(found, figure, name, other, languages)]
            for name, other in pairs
            for word, languages in groups_of(name).items()
            if languages
        ]
        lines += [*markdown_table(head, rows), ""]
    return "\n".join(lines)


def _told(name: str, other: str) -> str:
    return name if other == "base" else f"{name} less {other}"


def _changes(
    found: Mapping[str, Outcomes], figure: Figure, name: str, other: str, languages: Sequence[str]
) -> list[str]:
    """The cells of a row: of every seed the change from `other` to `name`, then of all seeds."""
    seeds = [
        compare_means(verdicts(one[other], figure), verdicts(one[name], figure), languages)
        for one in found.values()
    ]
    return [points(*one) for one in [*seeds, over_seeds([one[0] for one in seeds])]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return 2 if a folder cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.seeds",
        description="Compare what alignments did to demo models of several seeds.",
    )
    parser.add_argument("folders", nargs="+", metavar="SEED=FOLDER", help="of outcomes")
    options = parser.parse_args(arguments)
    try:
        pairs = dict(one.split("=", 1) for one in options.folders if "=" in one)
        if len(pairs) < len(options.folders):
            raise LensNeuronsError(f"{options.folders}: give SEED=FOLDER, each seed once")
        found = {seed: read_outcomes(Path(folder)) for seed, folder in pairs.items()}
        sys.stdout.write(write_seeds(found))
    except LensNeuronsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
