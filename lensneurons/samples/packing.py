"""Counts in a tenth of their bytes, and back to the bit.

What a group of items counted is nearly its share of what all groups counted, and texts that say the
same in several languages depart from that share alike. So a file holds, as whole numbers,

    total[l, j, k]           counts of all groups together
    departure[g, l, j, k]    count - round(share of the group in what is left of the total)
    remainder[g, l, j, k]    departure - round(weight_k * sum of departures in languages before k)

and of the remainders all groups but the last, which follows from the total. Remainders lie side by
side with others of the same spread (the variance that the total gives a count), and each byte of a
number is written apart, so that the entropy coder of xz finds alike what is alike. Everything is
integer arithmetic but one division for the order, so any machine gets the same numbers.

>>> packed = PackedStatistics.pack(statistics)                            # doctest: +SKIP
>>> np.array_equal(packed.unpack().grouped_counts, statistics.grouped_counts)  # doctest: +SKIP
True

What is left out: sums and squares of the activations, whose digits do not pack. `mean` and
`standard_deviation` of the statistics need them.
"""

from __future__ import annotations

import lzma
import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, UInt8

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.shapes import Counts
from lensneurons.values.base import Value, read_only
from lensneurons.values.files import REMEDY, arrays_checksum
from lensneurons.values.provenance import Provenance

SCALE = 10  # bits after the point of a weight
# Noise repeats nothing: a small window is enough, and the model of a byte has no use for the place
# of the byte (lp, pb) or for the one before (lc).
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2**16, "lc": 0, "lp": 0, "pb": 0}]


@dataclass(frozen=True, eq=False, repr=False)
class PackedStatistics(Value):
    """The counts of `ActivationStatistics`, packed; `pack` and `unpack` are the ways in and out.

    Attributes:
        languages: codes.
        tokens: int64 [group, language], counted tokens.
        shape: layers and neurons a layer.
        weights: int64 [language], what a departure takes from those of the languages before, in
            units of ``2**-SCALE``.
        totals: the totals, compressed.
        remainders: the remainders, compressed.
        checksum: of the statistics without sums and squares, as their own file would have it.
        provenance: where the counts come from.
    """

    FILE_KIND: ClassVar = "packed activation statistics"

    languages: tuple[str, ...]
    tokens: Int64[np.ndarray, "group language"]
    shape: tuple[int, int]
    weights: Int64[np.ndarray, " language"]
    totals: UInt8[np.ndarray, " byte"]
    remainders: UInt8[np.ndarray, " more"]
    checksum: str
    provenance: Provenance = field(default_factory=Provenance)

    @classmethod
    def pack(cls, statistics: ActivationStatistics) -> PackedStatistics:
        """Pack the counts of some statistics; sums and squares are left out."""
        kept = replace(statistics, sums=None, squares=None)
        counts, tokens = kept.grouped_counts, kept.grouped_tokens
        totals, departures, left = kept.counts, np.zeros_like(counts), kept.counts
        for group in range(len(tokens)):
            departures[group] = counts[group] - _share(left, tokens[group:])
            left = left - counts[group]
        weights = np.zeros(len(kept.languages), np.int64)
        remainders, before = departures.copy(), np.zeros_like(departures[..., 0])
        for k in range(len(weights)):
            if np.any(before):
                slope = np.vdot(before, departures[..., k]) / np.vdot(before, before)
                weights[k] = round(slope * 2**SCALE)
            remainders[..., k] -= _rounded(weights[k] * before)
            before = before + departures[..., k]
        order = _by_spread(totals, kept.tokens)
        return cls(
            languages=kept.languages,
            tokens=tokens,
            shape=(kept.n_layers, kept.d_mlp),
            weights=weights,
            totals=_compressed(totals),
            remainders=_compressed(_unsigned(remainders[:-1]).reshape(-1, order.size)[:, order]),
            checksum=_checksum(kept),
            provenance=kept.provenance,
        )

    def unpack(self) -> ActivationStatistics:
        """Give the statistics back: the counts are those that were packed.

        Raises:
            StorageError: they are not.
        """
        groups, shape = len(self.tokens), (*self.shape, len(self.languages))
        totals = _numbers(self.totals, shape)
        order = _by_spread(totals, self.tokens.sum(axis=0))
        sorted_ = _numbers(self.remainders, (groups - 1, order.size))
        counts = np.zeros((groups, *shape), np.int64)
        counts[:-1].reshape(groups - 1, order.size)[:, order] = _signed(sorted_)
        for group in range(groups - 1):
            one, before = counts[group], np.zeros(self.shape, np.int64)
            for k, weight in enumerate(self.weights):
                one[..., k] += _rounded(weight * before)
                before += one[..., k]
        left = totals.copy()
        for group in range(groups - 1):
            counts[group] += _share(left, self.tokens[group:])
            left -= counts[group]
        counts[-1] = left
        wrong = StorageError(f"the counts do not unpack to those that were packed: {REMEDY}")
        try:
            found = ActivationStatistics(
                languages=self.languages,
                grouped_counts=read_only(counts),
                grouped_tokens=self.tokens,
                provenance=self.provenance,
            )
        except LensNeuronsError:
            raise wrong from None
        if _checksum(found) != self.checksum:
            raise wrong
        return found

    def _brief(self) -> str:
        size = self.totals.nbytes + self.remainders.nbytes
        layers, neurons = self.shape
        return (
            f"{layers} layers x {neurons} neurons, {len(self.languages)} languages, "
            f"{len(self.tokens)} groups in {size / 1e6:.1f} MB"
        )


def _checksum(statistics: ActivationStatistics) -> str:
    return arrays_checksum(statistics.FILE_KIND, *statistics._pack())


def _share(left: Counts, tokens: Int64[np.ndarray, "group language"]) -> Counts:
    """What the first of the groups would count if `left` were spread like their tokens."""
    all_ = np.maximum(tokens.sum(axis=0), 1)
    return (2 * left * tokens[0] + all_) // (2 * all_)


def _rounded(scaled: np.ndarray) -> np.ndarray:
    return (scaled + 2 ** (SCALE - 1)) >> SCALE


def _by_spread(totals: Counts, tokens: Int64[np.ndarray, " language"]) -> np.ndarray:
    """int64 [layer * neuron * language]: places in the order of the variance of their counts."""
    return np.argsort((totals * (tokens - totals) / tokens).ravel(), kind="stable")


def _unsigned(numbers: np.ndarray) -> np.ndarray:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return np.where(numbers < 0, -2 * numbers - 1, 2 * numbers)


def _signed(numbers: np.ndarray) -> np.ndarray:
    return np.where(numbers % 2 == 1, -(numbers + 1) // 2, numbers // 2)


def _compressed(numbers: np.ndarray) -> UInt8[np.ndarray, " byte"]:
    """Numbers from 0 on: first the lowest byte of each, then the next."""
    depth = max(1, (int(numbers.max(initial=0)).bit_length() + 7) // 8)
    planes = np.ascontiguousarray(numbers, "<i8").reshape(-1, 1).view(np.uint8)[:, :depth].T
    packed = lzma.compress(planes.tobytes(), lzma.FORMAT_XZ, lzma.CHECK_SHA256, filters=_FILTERS)
    return np.frombuffer(packed, np.uint8)


def _numbers(packed: UInt8[np.ndarray, " byte"], shape: tuple[int, ...]) -> np.ndarray:
    """int64 of a shape: what `_compressed` was given.

    Raises:
        StorageError: the bytes are damaged, or are of another shape.
    """
    try:
        planes = np.frombuffer(lzma.decompress(packed.tobytes()), np.uint8)
        planes = planes.reshape(planes.size // max(1, math.prod(shape)), *shape)
    except (lzma.LZMAError, ValueError) as error:
        raise StorageError(f"the packed counts are damaged ({error}): {REMEDY}") from None
    numbers = np.zeros(shape, np.int64)
    for place, plane in enumerate(planes):
        numbers += plane.astype(np.int64) << 8 * place
    return numbers
