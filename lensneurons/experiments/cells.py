"""Cells of a deactivation matrix by workers: the same cells, in any order, from several processes.

A cell is a shard. Everything that decides it travels to a worker once: the encoded texts, the
neurons and their controls, the metric. The scores of the untouched texts, which all cells are
differences to, are made by workers as well, batch by batch, so that both sides of a difference come
from the same sort of processor. A cell that comes back is written to the run folder; the folder is
the one of a matrix that this process runs alone, and each goes on where the other stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lensneurons.engines.choice import RayEngine
from lensneurons.engines.pool import pool
from lensneurons.evaluation.likelihood import in_pieces
from lensneurons.experiments.ablation import Cell, CellJob, load_cell, run_cell, save_cell
from lensneurons.experiments.metrics import METRICS
from lensneurons.tokens.prepared import PreparedCorpus
from lensneurons.values.run_folders import Run

# Texts to score untouched (None as the cell), or a cell and the scores of all untouched texts.
Payload = tuple[Cell | None, np.ndarray]


@dataclass(frozen=True)
class Cells:
    """What a worker does: scores texts untouched, or runs a cell.

    `job` is what `ablation_matrix` runs, without what is bound to a model; `scoring` are the
    arguments from which its score is made there.
    """

    job: CellJob
    metric: str
    scoring: tuple[Any, ...]

    @classmethod
    def of(cls, job: CellJob, metric: str, *scoring: Any) -> Cells:
        """Take the model out of a job; `scoring` is what `Measure.scorer` takes."""
        return cls(_with_model(job, None, None), metric, scoring)

    def on(self, model: Any) -> Callable[[Payload], Any]:
        """The function that does a shard."""
        prepared = replace(self.job.prepared, model=model)
        score = METRICS[self.metric].scorer(prepared, *self.scoring)
        job = _with_model(self.job, model, score)

        def do(payload: Payload) -> Any:
            cell, given = payload
            if cell is not None:
                return run_cell(job, given, *cell)
            return in_pieces(job.pieces, job.score, prepared.encoded, given)

        return do


def _with_model(job: CellJob, model: Any, score: Any) -> CellJob:
    """The job with another model, in its texts and in those of its reference."""
    edit: Mapping[str, Any] = {
        name: replace(one, model=model) if isinstance(one, PreparedCorpus) else one
        for name, one in job.edit.items()
    }
    prepared = replace(job.prepared, model=model)
    return replace(job, prepared=prepared, score=score, edit=edit)


@contextmanager
def cells_of_workers(
    work: Cells, job: CellJob, folder: Run | None, engine: RayEngine
) -> Iterator[tuple[np.ndarray, np.ndarray, Iterator[tuple[Cell, np.ndarray]]]]:
    """Yield score and weight of all untouched texts, and the cells as they are done.

    Args:
        work: of the workers.
        job: the same with the model of this process.
        folder: keeps the cells; those in it are not run again.
        engine: the workers.

    Raises:
        LensNeuronsError: a worker raised it, or died too often.
        StorageError: the file of a cell is damaged.
    """
    base, weight = np.zeros(len(job.prepared.encoded)), np.zeros(len(job.prepared.encoded))
    batches = job.prepared.batches(job.batch_tokens)
    with pool(engine, job.prepared.model) as hands:
        names = [f"batch {n} of the untouched texts" for n in range(len(batches))]
        for place, found in hands.run(work, names, lambda place: (None, batches[place])):
            base[batches[place]], weight[batches[place]] = found

        def cells() -> Iterator[tuple[Cell, np.ndarray]]:
            missing = []
            for cell in job.cells:
                if (effects := load_cell(job, cell, folder)) is not None:
                    yield cell, effects
                else:
                    missing.append(cell)
            names = [f"the cell {'_'.join(cell)}" for cell in missing]
            for place, effects in hands.run(work, names, lambda place: (missing[place], base)):
                save_cell(missing[place], effects, folder)
                yield missing[place], effects

        yield base, weight, cells()
