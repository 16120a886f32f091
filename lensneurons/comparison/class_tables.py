"""How many neurons have which N, before and after: the counts that a comparison is made of.

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

import numpy as np

from lensneurons.errors import choose
from lensneurons.shapes import (
    DrawnChosen,
    DrawnLayers,
    DrawnMembers,
    DrawnSizes,
    DrawnTransitions,
    FlatNeurons,
    RowMask,
    RunMemberships,
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
    above: RunMemberships,
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
