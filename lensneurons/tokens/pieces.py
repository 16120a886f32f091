"""Batches that do not fit into memory, run in halves: nothing is lost, nothing is counted twice.

A batch is measured as a whole, or fails as a whole: what it measures is added up only once it has
been run. So a batch that fails for want of memory can be cut in two and its halves run anew, and
cut again until they fit. What fitted then bounds the batches that follow.

    >>> pieces = Pieces()
    >>> for part, score in pieces.run(lengths, measure): ...                 # doctest: +SKIP

What this does not do: help where one text alone is too large; the error says what does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from lensneurons.corpora.checks import warn_outside
from lensneurons.errors import LensNeuronsError, MemoryWarning
from lensneurons.shapes import TextNumbers
from lensneurons.tokens.batches import divide

T = TypeVar("T")

# What allocators and libraries say, beside torch.OutOfMemoryError: the CPU's, CUDA's and cuBLAS's.
_TOLD = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(told in str(error) for told in _TOLD)


class Pieces:
    """Runs batches whole where they fit, else in parts; one object for all batches of a call.

    Attributes:
        most: tokens, padding included, that the next batch may have; None while all have fitted.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        self._untold: str | None = None

    def run(self, lengths: TextNumbers, measure: Callable[[slice], T]) -> Iterator[tuple[slice, T]]:
        """Measure the rows of a batch, and yield each part with what was measured.

        Args:
            lengths: int [row], tokens of each row, the longest first.
            measure: measures the rows of a slice; it must leave nothing behind where it fails.

        Raises:
            LensNeuronsError: a single row does not fit; says how long it is, and what to do.
        """
        todo = [slice(0, len(lengths))]
        if self.most is not None:
            todo = list(divide(lengths, self.most))
        while todo:
            part = todo.pop(0)
            last = min(part.stop, len(lengths))
            part, failure, found = slice(part.start, last), "", list[T]()
            try:
                found.append(measure(part))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).split("\n")[0][:200] or "out of memory"
            # Out here the error is gone, and with it the tensors that its frames held.
            if found:
                self._tell()
                yield part, found.pop()
                continue
            _release()
            todo[:0] = self._halves(part, lengths, failure)

    def _halves(self, part: slice, lengths: TextNumbers, failure: str) -> list[slice]:
        rows, longest = part.stop - part.start, int(lengths[part.start])
        if rows == 1:
            raise LensNeuronsError(
                f"a single text of {longest} tokens does not fit into memory ({failure}): cut "
                f"longer texts with max_length={max(1, longest // 2)} and overlong='cut' where "
                "there is such an option, select others, free memory, or spread the model with "
                "load_model(device_map='auto')"
            )
        half = (rows + 1) // 2
        self.most = half * longest
        told = f"a batch of {rows} texts of up to {longest} tokens did not fit into memory"
        self._untold = told if self._untold is None else self._untold
        middle = part.start + half
        return [slice(part.start, middle), slice(middle, part.stop)]

    def _tell(self) -> None:
        """Warn once, when it is known what fits."""
        if self._untold:
            told, self._untold = self._untold, ""
            warn_outside(
                f"{told}; it was run again in parts of at most {self.most} tokens, padding "
                f"included, and so is all that follows: give batch_tokens={self.most} to begin "
                "with that",
                MemoryWarning,
            )


def _release() -> None:
    """Give back what a failed batch held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
