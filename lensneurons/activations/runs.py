"""The folder of a run: what was asked, what is done, and the result; safe against kill -9.

    runs/base/
      run.json                    provenance and plan, written first
      languages/zh.safetensors    totals of one language so far, replaced as a whole
      statistics.safetensors      the result, written last; ``languages/`` is removed then

A language file says how many batches it holds. A run that was killed goes on after those, adds the
same floats in the same order, and so ends with the same bytes. A folder whose run.json says
something else is refused with the difference.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.activations.reduction import Reduced
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import StorageError
from lensneurons.provenance import Provenance
from lensneurons.run_folders import open_folder
from lensneurons.shapes import GroupedLayers, GroupWeights, LayerSums
from lensneurons.storage import load_arrays, save_arrays

KIND = "totals of one language"


@dataclass
class LanguageTotals:
    """Running totals of one language.

    Attributes:
        language: its code.
        counts: int64 [group, layer, neuron].
        tokens: int64 [group].
        sums: float64 [layer, neuron], of the activation.
        squares: float64 [layer, neuron].
        batches_done: how many batches of the plan are in.
    """

    language: str
    counts: GroupedLayers
    tokens: GroupWeights
    sums: LayerSums
    squares: LayerSums
    batches_done: int = 0

    @classmethod
    def zeros(cls, language: str, groups: int, n_layers: int, d_mlp: int) -> LanguageTotals:
        """Totals before the first batch."""
        shape = (n_layers, d_mlp)
        counts = np.zeros((groups, *shape), np.int64)
        return cls(language, counts, np.zeros(groups, np.int64), np.zeros(shape), np.zeros(shape))

    def add(self, layers: Sequence[Reduced], groups: np.ndarray, counted: np.ndarray) -> None:
        """Add one batch.

        Args:
            layers: the reduced layers, in order.
            groups: int [row], the group of each row.
            counted: int [row], counted tokens of each row.
        """
        np.add.at(self.tokens, groups, counted)
        for layer, reduced in enumerate(layers):
            for row, group in enumerate(groups):
                self.counts[group, layer] += reduced.counts[row]
            self.sums[layer] += reduced.sums
            self.squares[layer] += reduced.squares
        self.batches_done += 1


class Run:
    """A run that is under way; without a folder it only keeps everything in memory."""

    def __init__(self, folder: Path | None, checkpoint_seconds: float) -> None:
        self.folder = folder
        self.checkpoint_seconds = checkpoint_seconds
        self.last_checkpoint = time.monotonic()
        self.finished: ActivationStatistics | None = None
        if folder is not None and (folder / "statistics.safetensors").is_file():
            self.finished = ActivationStatistics.load(folder)

    def load(self, language: str) -> LanguageTotals | None:
        """What was saved of a language, or None."""
        if self.folder is None or not self._file(language).is_file():
            return None
        try:
            arrays, details = load_arrays(self._file(language), KIND)
        except StorageError as error:
            raise StorageError(f"{error}; delete it to count {language} again") from None
        return LanguageTotals(language, **arrays, batches_done=details["batches_done"])

    def checkpoint(self, totals: LanguageTotals) -> None:
        """Save the totals of a language where enough time has passed."""
        if time.monotonic() - self.last_checkpoint >= self.checkpoint_seconds:
            self.save(totals)

    def save(self, totals: LanguageTotals) -> None:
        """Save the totals of a language now."""
        if self.folder is None:
            return
        arrays = {name: getattr(totals, name) for name in ("counts", "tokens", "sums", "squares")}
        details = {"language": totals.language, "batches_done": totals.batches_done}
        save_arrays(self._file(totals.language), KIND, arrays, details)
        self.last_checkpoint = time.monotonic()

    def finish(
        self, languages: Iterable[LanguageTotals], provenance: Provenance
    ) -> ActivationStatistics:
        """Stack the totals of all languages into the result; write it where there is a folder."""
        totals = list(languages)
        statistics = ActivationStatistics(
            languages=tuple(total.language for total in totals),
            grouped_counts=np.stack([total.counts for total in totals], axis=-1),
            grouped_tokens=np.stack([total.tokens for total in totals], axis=-1),
            sums=np.stack([total.sums for total in totals], axis=-1),
            squares=np.stack([total.squares for total in totals], axis=-1),
            provenance=provenance,
        )
        if self.folder is not None:
            statistics.save(self.folder / "statistics.safetensors")
            shutil.rmtree(self.folder / "languages", ignore_errors=True)
        return statistics

    def _file(self, language: str) -> Path:
        return Path(self.folder or ".") / "languages" / f"{language}.safetensors"


@contextmanager
def open_run(
    folder: str | Path | None,
    provenance: Provenance,
    plan: Mapping[str, Any],
    checkpoint_seconds: float = 30.0,
) -> Iterator[Run]:
    """Begin a run, or go on with one; nobody else can work in the folder meanwhile.

    Raises:
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, corpus or plan.
    """
    with open_folder(folder, provenance, plan) as path:
        yield Run(path, checkpoint_seconds)
