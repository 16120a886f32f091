"""What the alignments of a demo model did to its answers: how many are right, and worked out.

    python -m lensneurons.demo.workshop.outcomes BASE FOLDER --run zh-de=ADAPTER --run ...

Every run answers the same problems as the base. A run is named by what it is: a name of
`ALIGNMENTS`, with ``-mlp``, ``-shuffled`` or ``-random`` behind it. Its trained languages follow
from the name; the untouched ones are the rest without English, into which all are aligned. Answers
are kept in the folder, one folder a run, so a call that was stopped goes on.

Answers are drawn (temperature 1), all models from the same noise. The ways to answer are a mixture,
and greedy decoding hides it: where the likelier first token is that of one way, all answers are.
``--temperature 0`` answers greedily, as published evaluations do.

Two tables come out: right answers in the right language, and worked answers. Each has the base, and
of each run its change with a 95 % interval over problems, by language and as a mean over the
trained and over the untouched languages. A control (``-shuffled``, ``-random``) is a run like the
others, and each alignment is also compared with its controls.

What they do not show: that another training of the base, or of the adapter, would do the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lensneurons.corpora.corpus import load_corpus
from lensneurons.demo.workshop.align import LONGEST, groups_of
from lensneurons.demo.workshop.choice import is_worked
from lensneurons.demo.workshop.markdown import markdown_table, points
from lensneurons.demo.world import LANGUAGES
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.answers import Accuracy, accuracy
from lensneurons.models.loading import load_model
from lensneurons.uncertainty.paired import mean_change
from lensneurons.values.files import replacing

CONTROLS = ("shuffled", "random")
Figure = Literal["right", "worked"]
TITLES: Mapping[Figure, str] = {
    "right": "Right answer in the right language",
    "worked": "Worked answers",
}


def answer_all(
    base: str | Path,
    adapters: Mapping[str, str | Path],
    folder: Path,
    *,
    split: str = "test",
    problems: int = 500,
    temperature: float = 1.0,
) -> dict[str, Accuracy]:
    """Let the base and every run answer the same problems; return them by name, the base first.

    `temperature` is an argument of `accuracy`.

    Raises:
        LensNeuronsError: the name of a run tells no trained languages.
    """
    for name in adapters:
        groups_of(name)
    corpus = load_corpus("demo", split=split, limit=problems)
    found: dict[str, Accuracy] = {}
    for name, adapter in {"base": None, **adapters}.items():
        model = load_model(base, adapter=adapter, device="cpu")
        options: Any = {"max_new_tokens": LONGEST, "temperature": temperature}
        found[name] = accuracy(model, corpus, run_dir=folder / name, **options)
    return found


def verdicts(answers: Accuracy, figure: Figure) -> np.ndarray:
    """Bool [language, item]: what each answer is, in the order of `LANGUAGES` and of the items."""
    given = {
        (one.language, one.id): one.both if figure == "right" else is_worked(one.text)
        for one in answers
    }
    items = dict.fromkeys(one.id for one in answers)
    return np.array([[given[code, item] for item in items] for code in LANGUAGES])


def compare_means(
    before: np.ndarray, after: np.ndarray, languages: Iterable[str]
) -> tuple[float, float, float]:
    """Mean change over languages with its 95 % interval over items; shares, -1 to 1.

    `before` and `after` are what `verdicts` gives.
    """
    rows = [LANGUAGES.index(code) for code in languages]
    found = mean_change((after[rows].astype(float) - before[rows]).T)
    return float(found.estimate), float(found.low), float(found.high)


def write_tables(found: Mapping[str, Accuracy]) -> str:
    """Write both tables in Markdown, in percent and points of percent."""
    lines: list[str] = []
    for figure, title in TITLES.items():
        values = {name: verdicts(answers, figure) for name, answers in found.items()}
        base = values.pop("base")
        head = ["", *LANGUAGES, "trained", "untouched"]
        rows = [["base", *(f"{100 * share:.1f}" for share in base.mean(1)), "", ""]]
        for name, after in values.items():
            groups = groups_of(name)
            cells = [_change(base, after, [code]) for code in LANGUAGES]
            marked = [
                f"**{cell}**" if code in groups["trained"] else cell
                for code, cell in zip(LANGUAGES, cells, strict=True)
            ]
            means = [_change(base, after, group) for group in groups.values()]
            rows.append([name, *marked, *means])
        lines += [f"### {title}", "", *markdown_table(head, rows), "", *_beyond(values), ""]
    return "\n".join(lines)


def _beyond(values: Mapping[str, np.ndarray]) -> list[str]:
    """Sentences that compare each alignment with its controls."""
    told = []
    for name, after in values.items():
        for control in CONTROLS:
            if (other := f"{name}-{control}") not in values:
                continue
            parts = [
                f"{_change(values[other], after, group)} in the {word} languages"
                for word, group in groups_of(name).items()
                if group
            ]
            told.append(f"* {name} beyond its control {control}: {', '.join(parts)}")
    return told


def _change(before: np.ndarray, after: np.ndarray, languages: Sequence[str]) -> str:
    """The mean change over languages in points of percent; empty where there are none."""
    return points(*compare_means(before, after, languages)) if languages else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer, compare, and say where the tables are; return 2 if a run cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.outcomes",
        description="Compare the answers of a demo model before and after its alignments.",
    )
    parser.add_argument("base", help="folder of the model, or demo")
    parser.add_argument("folder", type=Path, help="of answers and tables; resumed if begun")
    parser.add_argument("--run", action="append", default=[], metavar="NAME=ADAPTER")
    parser.add_argument("--split", default="test", help="validation to choose, test to report")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--temperature", type=float, default=1.0, help="0 for greedy answers")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        adapters = dict(run.split("=", 1) for run in options.run)
        asked: Any = {key: getattr(options, key) for key in ("split", "problems", "temperature")}
        found = answer_all(options.base, adapters, options.folder, **asked)
    except LensNeuronsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    table = options.folder / "outcomes.md"
    with replacing(table) as temporary:
        temporary.write_text(write_tables(found), encoding="utf-8")
    sys.stdout.write(f"{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
