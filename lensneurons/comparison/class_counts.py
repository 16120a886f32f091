"""How many neurons have which N, before and after: the counts that a comparison is made of.

For every neuron, ``N`` is the number of languages in which its activation probability exceeds the
bar. Over all neurons (arXiv 2505.21505, section 3),

    unclassified  N = 0        specific  N = 1        related  1 < N < K        agnostic  N = K

Five tables hold all that changes of the classes need (`ClassTables`). Their first axis counts
draws: all items (one draw), or groups of items drawn with replacement.

Two models, each with all its groups, are many numbers, so `pair_counts` keeps only the neurons that
can exceed a bar. A probability over any groups is a weighted mean of their rates, so a neuron
whose largest rate, over groups, languages and models, is at most the bar exceeds it in no draw.

>>> pair = pair_counts(before, after, bar)                                   # doctest: +SKIP
>>> pair.rates(), pair.rates(np.array([2, 0, 1]))                            # doctest: +SKIP

What this does not show: a neuron whose N stays may have changed its languages; see `members`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import choose
from lensneurons.shapes import FlatNeurons, GroupWeights, ModelMemberships, PairedRates, RowMask
from lensneurons.values.base import Value

CLASSES = ("specific", "related", "agnostic")
SLACK = 1 - 1e-12  # a sum of rates may round a bit above the largest of them


@dataclass(frozen=True, eq=False)
class PairedCounts:
    """Counts of the neurons that can exceed a bar, before and after.

    Attributes:
        counts: int64 [group, model, language, neuron], active tokens; model 0 is before, 1 after.
        tokens: int64 [group, model, language], counted tokens.
        flat: int64 [neuron], ``layer * d_mlp + neuron``.
    """

    counts: Int64[np.ndarray, "group 2 language neurons"]
    tokens: Int64[np.ndarray, "group 2 language"]
    flat: FlatNeurons

    def rates(self, weights: GroupWeights | None = None) -> PairedRates:
        """float64 [model, language, neuron]: activation probability over all items, or over groups
        that count so many times each.
        """
        counts, tokens = (
            table.sum(axis=0) if weights is None else np.tensordot(weights, table, axes=1)
            for table in (self.counts, self.tokens)
        )
        # A language without tokens in a group has no active ones either: 0 / 1 = 0. The division is
        # that of `identify`, so that a neuron at the bar falls on the same side.
        return counts / np.maximum(tokens, 1)[..., None]


def pair_counts(
    before: ActivationStatistics, after: ActivationStatistics, bar: float
) -> PairedCounts:
    """The counts of two models of one shape, for the neurons that can exceed the bar."""
    models = (before, after)
    can_exceed = np.zeros(before.grouped_counts.shape[1:], bool)
    for one in models:
        limits = bar * one.grouped_tokens * SLACK
        for counts, limit in zip(one.grouped_counts, limits, strict=True):
            can_exceed |= counts > limit
    flat = np.flatnonzero(can_exceed.any(axis=-1))
    # Group by group, so that only the kept neurons of a large model are ever copied.
    kept = np.empty((before.n_groups, 2, len(before.languages), len(flat)), np.int64)
    for place, one in enumerate(models):
        for group, counts in enumerate(one.grouped_counts):
            kept[group, place] = counts.reshape(-1, counts.shape[-1])[flat].T
    tokens = np.stack([one.grouped_tokens for one in models], axis=1)
    return PairedCounts(kept, tokens, flat)


@dataclass(frozen=True, eq=False, repr=False)
class ClassTables(Value):
    """Counts of classes in some draws of the items.

    Attributes:
        layers: int64 [draw, model, layer, N], neurons; model 0 is before, 1 after.
        members: int64 [draw, model, language, N], neurons above the bar in the language.
        transitions: int64 [draw, N before, N after], neurons.
        stayed: int64 [draw, language], specific or related neurons of both models.
        selected: int64 [draw, language, N], neurons above the bar before that were selected before
            (those with the lowest scores).
    """

    FILE_KIND = "class tables"

    layers: Int64[np.ndarray, "draw 2 layer n_above"]
    members: Int64[np.ndarray, "draw 2 language n_above"]
    transitions: Int64[np.ndarray, "draw n_before n_after"]
    stayed: Int64[np.ndarray, "draw language"]
    selected: Int64[np.ndarray, "draw language n_above"]

    def layer_change(self) -> np.ndarray:
        """int64 [draw, layer, N]: neurons after minus before."""
        return self.layers[:, 1] - self.layers[:, 0]

    def member_change(self) -> np.ndarray:
        """int64 [draw, language, N]: neurons of each language, after minus before."""
        return self.members[:, 1] - self.members[:, 0]

    def histogram_change(self) -> np.ndarray:
        """int64 [draw, N]: neurons of the whole model, after minus before."""
        return self.layer_change().sum(axis=1)

    def class_change(self) -> np.ndarray:
        """int64 [draw, class]: change of all specific, related and agnostic neurons."""
        return by_class(self.histogram_change())

    def class_change_by_layer(self) -> np.ndarray:
        """int64 [draw, layer, class]: the same in every layer."""
        return by_class(self.layer_change())

    def class_change_by_language(self) -> np.ndarray:
        """int64 [draw, language, class]: change of specific and related neurons."""
        return by_class(self.member_change(), CLASSES[:2])

    def mean_change(self, places: Sequence[int], name: str) -> np.ndarray:
        """float64 [draw]: change of the neurons of a class, mean over the languages at `places`."""
        members = self.member_change()[:, list(places)].sum(axis=1)
        return of_class(members, name) / len(places)

    def change_above(self, n: int) -> np.ndarray:
        """int64 [draw]: change of the neurons that exceed the bar in n languages or more."""
        return self.histogram_change()[:, n:].sum(axis=1)

    def net_rise(self) -> np.ndarray:
        """int64 [draw]: neurons whose N rises less those whose N falls."""
        flows = self.transitions
        return (np.triu(flows, 1) - np.tril(flows, -1)).sum(axis=(1, 2))


def count_classes(
    draws: Iterable[ModelMemberships],
    layer: FlatNeurons,
    *,
    selected: RowMask,
    n_layers: int,
    d_mlp: int,
) -> ClassTables:
    """The tables of some draws; only one draw is in memory at a time.

    Args:
        draws: bool [model, language, neuron], where p > tau, of the neurons that exceed the bar in
            any language of either model; the others have N = 0 before and after.
        layer: int64 [neuron], their layers.
        selected: bool [neuron], which were selected before.
        n_layers: layers of the model.
        d_mlp: neurons a layer.
    """
    shape = {"n_layers": n_layers, "d_mlp": d_mlp}
    return stacked(count_draw(above, layer, selected=selected, **shape) for above in draws)


def stacked(tables: Iterable[Sequence[np.ndarray]]) -> ClassTables:
    """The tables of draws that `count_draw` counted."""
    return ClassTables(*map(np.stack, zip(*tables, strict=True)))


def count_draw(
    above: ModelMemberships, layer: FlatNeurons, *, selected: RowMask, n_layers: int, d_mlp: int
) -> tuple[np.ndarray, ...]:
    """The five tables of one draw, without their first axis; the arguments are as above."""
    elsewhere = d_mlp - np.bincount(layer, minlength=n_layers)
    k, width = above.shape[1], above.shape[1] + 1
    number = above.sum(axis=1, dtype=np.int64)
    layers = np.stack([_counts((n_layers, width), layer, n) for n in number])
    layers[:, :, 0] += elsewhere
    model, language, neuron = above.nonzero()
    n = number[model, neuron]
    members = _counts((2, k, width), model, language, n)
    transitions = _counts((width, width), *number)
    transitions[0, 0] += elsewhere.sum()
    own = above & ((number > 0) & (number < k))[:, None]
    stayed = (own[0] & own[1]).sum(axis=1, dtype=np.int64)
    first = (model == 0) & selected[neuron]
    lowest = _counts((k, width), language[first], n[first])
    return layers, members, transitions, stayed, lowest


def _counts(shape: tuple[int, ...], *places: np.ndarray) -> np.ndarray:
    """How often each place of a table occurs; one array of indices an axis."""
    flat = np.ravel_multi_index(places, shape)
    return np.bincount(flat, minlength=math.prod(shape)).reshape(shape)


def of_class(counts: np.ndarray, name: str) -> np.ndarray:
    """Counts [..., N] summed up over the N of a class, or of ``"specific + related"``: [...].

    Raises:
        LensNeuronsError: no such class; the message lists them.
    """
    last = counts.shape[-1] - 1
    spans = {"specific": (1, 2), "related": (2, last), "agnostic": (last, last + 1)}
    spans["specific + related"] = (1, last)
    first, stop = spans[choose(name, spans, "class")]
    return counts[..., first:stop].sum(axis=-1)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Shares of one shape; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def by_class(counts: np.ndarray, names: Sequence[str] = CLASSES) -> np.ndarray:
    """Counts [..., N] as [..., class], for some classes."""
    return np.stack([of_class(counts, name) for name in names], axis=-1)


def class_names(n_languages: int) -> list[str]:
    """The class of N = 0, 1, ..., K."""
    return ["unclassified", "specific", *["related"] * (n_languages - 2), "agnostic"]
