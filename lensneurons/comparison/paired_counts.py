"""Two runs over the same groups of items, cut down to the neurons that can exceed the bar.

An activation probability over any choice of groups is a weighted mean of the rates of the groups,
so it never exceeds the largest of them. A neuron whose largest rate, over groups, languages and
both runs, is at most tau has N = 0 in every run and every draw, and need not be looked at again.

>>> pair = pair_counts(before, after, tau)                   # doctest: +SKIP
>>> pair.whole(), pair.left_out(3), pair.alone(3)            # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError
from lensneurons.shapes import (
    FlatNeurons,
    NeuronMask,
    PairedGroups,
    PairedRates,
    PairedTokens,
)

SLACK = 1 - 1e-12  # a sum of rates may round a bit above the largest of them


@dataclass(frozen=True, eq=False)
class PairedCounts:
    """Counts of the neurons that can exceed a bar, before and after.

    Attributes:
        counts: int64 [group, run, language, neuron], active tokens.
        tokens: int64 [group, run, language], counted tokens.
        flat: int64 [neuron], ``layer * d_mlp + neuron``.
    """

    counts: PairedGroups
    tokens: PairedTokens
    flat: FlatNeurons

    @property
    def n_groups(self) -> int:
        """Number of groups of items."""
        return len(self.counts)

    def whole(self) -> PairedRates:
        """float64 [run, language, neuron]: activation probability over all items."""
        return _rates(*self._totals)

    def left_out(self, group: int) -> PairedRates:
        """float64 [run, language, neuron]: the same over all items but those of a group."""
        counts, tokens = self._totals
        return _rates(counts - self.counts[group], tokens - self.tokens[group])

    def alone(self, group: int) -> PairedRates:
        """float64 [run, language, neuron]: the same over the items of a group alone."""
        return _rates(self.counts[group], self.tokens[group])

    @cached_property
    def _totals(self) -> tuple[np.ndarray, np.ndarray]:
        return self.counts.sum(axis=0), self.tokens.sum(axis=0)

    def require_spread(self, languages: tuple[str, ...]) -> None:
        """Raise where leaving a group out leaves a language without tokens.

        Raises:
            LensNeuronsError: the languages, and what to do.
        """
        alone = (self.tokens == self.tokens.sum(axis=0)).any(axis=(0, 1))
        if lonely := [k for k, one in zip(languages, alone, strict=True) if one]:
            raise LensNeuronsError(
                f"all items of {lonely} fell into one group, so leaving it out leaves nothing: "
                "count more items, collect with other groups, or compare both runs as "
                "statistics.resample(np.ones(n_groups, int)), without intervals"
            )


def _rates(counts: np.ndarray, tokens: np.ndarray) -> PairedRates:
    """The division that `identify` makes, so that a neuron at the bar falls on the same side.

    A language without tokens in a group has no active ones either.
    """
    return counts / np.maximum(tokens, 1)[..., None]


def pair_counts(
    before: ActivationStatistics, after: ActivationStatistics, tau: float
) -> PairedCounts:
    """The counts of two runs over the same texts for the neurons that can exceed a bar.

    Args:
        before: counts of the first run.
        after: counts of the second run, of the same shape.
        tau: the bar.
    """
    kept = _can_exceed(before, tau) | _can_exceed(after, tau)
    flat = np.flatnonzero(kept)
    shape = (before.n_groups, 2, len(before.languages), len(flat))
    counts = np.empty(shape, np.int64)
    for run, statistics in enumerate((before, after)):
        for group, own in enumerate(statistics.grouped_counts):
            counts[group, run] = own.reshape(-1, own.shape[-1])[flat].T
    tokens = np.stack([before.grouped_tokens, after.grouped_tokens], axis=1)
    return PairedCounts(counts, tokens, flat)


def _can_exceed(statistics: ActivationStatistics, tau: float) -> NeuronMask:
    """Bool [layer, neuron]: whether the rate of some group exceeds the bar in some language."""
    found = np.zeros(statistics.grouped_counts.shape[1:], bool)
    limits = tau * statistics.grouped_tokens * SLACK
    for counts, limit in zip(statistics.grouped_counts, limits, strict=True):
        found |= counts > limit
    return np.asarray(found.any(axis=-1))
