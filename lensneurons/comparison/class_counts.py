"""Two runs over the same groups of items, cut down to the neurons that can exceed the bar.

An activation probability over any choice of groups is a weighted mean of the rates of the groups,
so it never exceeds the largest of them. A neuron whose largest rate, over groups, languages and
both runs, is at most tau has N = 0 in every run and every draw, and need not be looked at again.

>>> pair = pair_counts(before, after, tau)                   # doctest: +SKIP
>>> pair.whole(), pair.left_out(3), pair.alone(3)            # doctest: +SKIP

How many neurons have which N, before and after: the counts that a comparison is made of.

For every neuron let ``N`` be the number of languages in which its activation probability exceeds
the bar, before and after. Five tables hold all that the changes of classes need:

    layers       neurons of each layer with N = 0 ... K, before and after
    members      the same for the neurons that exceed the bar in language k
    transitions  neurons with N = a before and N = b after
    stayed       specific or related neurons of language k both before and after
    selected     as `members`, before, of the neurons that were selected before (the lowest scores)

Specific is N = 1, related 1 < N < K, agnostic N = K, over all neurons (arXiv 2505.21505, section
3). The first axis counts draws: one for all items, or one for each group of items (left out, or
alone).

What this does not show: a neuron whose N stays may have changed its languages; see `members`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.shapes import (
    DrawnChosen,
    DrawnLayers,
    DrawnMembers,
    DrawnSizes,
    DrawnTransitions,
    FlatNeurons,
    ModelMemberships,
    NeuronMask,
    PairedGroups,
    PairedRates,
    PairedTokens,
    RowMask,
)

KINDS = ("specific", "related", "agnostic", "specific + related")


@dataclass(frozen=True, eq=False)
class ClassTables:
    """Counts of classes in some draws of the items; immutable.

    Attributes:
        layers: int64 [draw, run, layer, N], neurons; run 0 is before, 1 after.
        members: int64 [draw, run, language, N], neurons above the bar in the language.
        transitions: int64 [draw, N before, N after], neurons.
        stayed: int64 [draw, language], specific or related neurons of both runs.
        selected: int64 [draw, language, N], selected neurons above the bar before.
    """

    layers: DrawnLayers
    members: DrawnMembers
    transitions: DrawnTransitions
    stayed: DrawnSizes
    selected: DrawnChosen

    def layer_change(self) -> np.ndarray:
        """int64 [draw, layer, N]: neurons after minus before."""
        return self.layers[:, 1] - self.layers[:, 0]

    def member_change(self) -> np.ndarray:
        """int64 [draw, language, N]: neurons of each language, after minus before."""
        return self.members[:, 1] - self.members[:, 0]

    def histogram_change(self) -> np.ndarray:
        """int64 [draw, N]: neurons of the whole model, after minus before."""
        return self.layer_change().sum(axis=1)


def count_tables(
    above: ModelMemberships,
    layer: FlatNeurons,
    *,
    selected: RowMask,
    n_layers: int,
    d_mlp: int,
) -> ClassTables:
    """The tables of one draw.

    Args:
        above: bool [run, language, neuron], where p > tau, of the neurons that exceed the bar in
            any language of either run; the others have N = 0 before and after.
        layer: int64 [neuron], their layers.
        selected: bool [neuron], which were selected before.
        n_layers: layers of the model.
        d_mlp: neurons a layer.
    """
    width = above.shape[1] + 1
    number = above.sum(axis=1, dtype=np.int64)
    elsewhere = d_mlp - np.bincount(layer, minlength=n_layers)
    layers = np.stack([_counts(layer * width + n, (n_layers, width)) for n in number])
    layers[:, :, 0] += elsewhere
    members = [
        [np.bincount(n[mask], minlength=width) for mask in run]
        for run, n in zip(above, number, strict=True)
    ]
    transitions = _counts(number[0] * width + number[1], (width, width))
    transitions[0, 0] += elsewhere.sum()
    of_language = above & ((number > 0) & (number < width - 1))[:, None]
    return ClassTables(
        layers[None],
        np.array([members], np.int64),
        transitions[None],
        np.count_nonzero(of_language[0] & of_language[1], axis=1)[None].astype(np.int64),
        np.stack([np.bincount(number[0, m & selected], minlength=width) for m in above[0]])[None],
    )


def _counts(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How often each place of a table occurs."""
    return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)


def stack_tables(tables: Sequence[ClassTables]) -> ClassTables:
    """The tables of several draws as one value."""
    names = [entry.name for entry in fields(ClassTables)]
    return ClassTables(*(np.concatenate([getattr(t, n) for t in tables]) for n in names))


def of_class(counts: np.ndarray, kind: str) -> np.ndarray:
    """Counts [..., N] summed up over the N of a class: [...].

    Raises:
        LensNeuronsError: no such class; those that are get listed.
    """
    choose(kind, KINDS, "class")
    last = counts.shape[-1] - 1
    spans = {
        "specific": slice(1, 2),
        "related": slice(2, last),
        "agnostic": slice(last, None),
        "specific + related": slice(1, last),
    }
    return counts[..., spans[kind]].sum(axis=-1)


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
