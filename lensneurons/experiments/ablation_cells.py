"""The cells of a deactivation matrix, run one by one, each kept as soon as it is done.

A text meets its ablation and its control draws in one batch, as rows with a set of neurons each.
The batches of a cell depend on nothing but the cell, so a matrix that was interrupted ends with the
same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.errors import StorageError
from lensneurons.evaluation.likelihood import Score
from lensneurons.identification.neuron_sets import NeuronSet
from lensneurons.interventions.neurons import ablate
from lensneurons.storage import load_arrays, save_arrays
from lensneurons.tokens.batches import plan_batches
from lensneurons.tokens.encoded import EncodedCorpus

CELL = "cell of an ablation matrix"
Cell = tuple[str, str, str]


@dataclass(frozen=True)
class CellJob:
    """All that is to be run: every cell is a setting, a row and a column.

    Attributes:
        model: a TransformerLens model.
        encoded: the texts.
        score: gives sum and weight of some texts, run as one batch.
        batch_tokens: most tokens in a batch.
        sets: setting to row language to the neurons that are removed.
        controls: setting to row language to the random sets beside them.
    """

    model: Any
    encoded: EncodedCorpus
    score: Score
    batch_tokens: int
    sets: dict[str, dict[str, NeuronSet]]
    controls: dict[str, dict[str, list[NeuronSet]]]

    @property
    def cells(self) -> list[Cell]:
        """Every cell, column by column."""
        columns = self.encoded.languages
        return [(s, row, k) for k in columns for s, rows in self.sets.items() for row in rows]

    def texts(self, column: str) -> np.ndarray:
        """The texts of a column, the longest first."""
        texts = np.flatnonzero(self.encoded.language == self.encoded.languages.index(column))
        return texts[np.argsort(-self.encoded.lengths[texts], kind="stable")]

    def items(self) -> dict[str, int]:
        """Number of each item: which control draws it meets."""
        return {name: i for i, name in enumerate(dict.fromkeys(self.encoded.item_ids))}


def score_untouched(job: CellJob) -> tuple[np.ndarray, np.ndarray]:
    """Score and weight of every text without any ablation."""
    base, weight = np.zeros(len(job.encoded)), np.zeros(len(job.encoded))
    for rows in plan_batches(job.encoded, batch_tokens=job.batch_tokens):
        base[rows], weight[rows] = job.score(rows)
    return base, weight


def run_cells(
    job: CellJob, base: np.ndarray, folder: Path | None
) -> Iterator[tuple[Cell, np.ndarray]]:
    """Yield every cell with its effects and controls [2, text], from the folder where they are."""
    for cell in job.cells:
        file = None if folder is None else folder / "cells" / f"{'_'.join(cell)}.safetensors"
        if file is not None and file.is_file():
            yield cell, _read(file)
            continue
        effects = _run_cell(job, base, *cell)
        if file is not None:
            save_arrays(file, CELL, {"effects": effects}, {})
        yield cell, effects


def _read(file: Path) -> np.ndarray:
    try:
        return load_arrays(file, CELL)[0]["effects"]
    except StorageError as error:
        raise StorageError(f"{error}; delete it to run the cell again") from None


def _run_cell(job: CellJob, base: np.ndarray, setting: str, row: str, column: str) -> np.ndarray:
    """Effect and mean control of every text of a column, float64 [2, text]."""
    chosen, draws = job.sets[setting][row], job.controls[setting][row]
    texts, items = job.texts(column), job.items()
    if len(chosen) == 0:
        return np.zeros((2, len(texts)))
    passes = -(-len(draws) // len(items))
    numbers = [items[job.encoded.item_ids[text]] for text in texts]
    conditions = [[chosen] * len(texts)] + [
        [draws[(number + p * len(items)) % len(draws)] for number in numbers] for p in range(passes)
    ]
    jobs = [(i, c) for i in range(len(texts)) for c in range(len(conditions))]
    changed = np.zeros((len(conditions), len(texts)))
    for part in _batches(job, texts, jobs):
        with ablate(job.model, [conditions[c][i] for i, c in part]):
            scores, _ = job.score([int(texts[i]) for i, _ in part])
        changed[[c for _, c in part], [i for i, _ in part]] = scores
    changed -= base[texts]
    return np.stack([changed[0], changed[1:].mean(0)])


def _batches(
    job: CellJob, texts: np.ndarray, jobs: list[tuple[int, int]]
) -> Iterator[list[tuple[int, int]]]:
    """Divide texts under conditions, the longest first, into batches of at most so many tokens."""
    first = 0
    while first < len(jobs):
        longest = int(job.encoded.lengths[texts[jobs[first][0]]])
        last = first + max(1, job.batch_tokens // longest)
        yield jobs[first:last]
        first = last
