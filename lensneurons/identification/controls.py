"""Random sets of neurons that match a given one: the control beside every effect of an ablation.

An effect of removing a set means little before one knows what removing any set of that size, in
those layers, with neurons that are active as often, would do. Each draw replaces every neuron of
the set by a random neuron of the same layer, outside the set, whose activation probability has
about the same rank: one of the nearest candidates above and below.
"""

from __future__ import annotations

import numpy as np

from lensneurons.errors import LensNeuronsError
from lensneurons.identification.neuron_sets import NeuronSet
from lensneurons.shapes import FlatNeurons, NeuronScores

NEIGHBOURS = 20


def draw_controls(
    neurons: NeuronSet,
    probability: NeuronScores,
    *,
    draws: int = 20,
    seed: int = 0,
    exclude: NeuronSet | None = None,
) -> list[NeuronSet]:
    """Random sets with as many neurons in every layer, matched by activation probability.

    Args:
        neurons: the set to match.
        probability: float64 [layer, neuron], what to match: ``statistics.probability[..., k]`` for
            the language that is evaluated, or its mean over the languages.
        draws: how many sets.
        seed: the same seed gives the same sets.
        exclude: neurons that must not be drawn, beside those of the set itself.

    Returns:
        `draws` sets, none of which shares a neuron with the set or with `exclude`.

    Raises:
        LensNeuronsError: a layer has fewer candidates than the set has neurons there.
    """
    if probability.shape != (neurons.n_layers, neurons.d_mlp):
        raise LensNeuronsError(
            f"probability {probability.shape} is not [layer, neuron] of "
            f"{neurons.n_layers} x {neurons.d_mlp}: choose one language, or take the mean over them"
        )
    random = np.random.default_rng(seed)
    taken = neurons if exclude is None else neurons | exclude
    layers = [_Layer(neurons, taken, layer, probability[layer]) for layer in neurons.by_layer()]
    return [
        NeuronSet(
            np.concatenate([layer.draw(random) for layer in layers] or [np.zeros(0, np.int64)]),
            neurons.n_layers,
            neurons.d_mlp,
            f"control of {neurons.label}",
        )
        for _ in range(draws)
    ]


class _Layer:
    """The candidates of one layer by probability, and between which the members would stand."""

    def __init__(
        self, neurons: NeuronSet, taken: NeuronSet, layer: int, probability: np.ndarray
    ) -> None:
        members = neurons.neurons[neurons.layers == layer]
        free = np.setdiff1d(np.arange(neurons.d_mlp), taken.neurons[taken.layers == layer])
        if len(free) < len(members):
            raise LensNeuronsError(
                f"layer {layer} has {len(free)} neurons outside {neurons.label}, too few to match "
                f"its {len(members)}: a same-size control needs as many"
            )
        self.offset = layer * neurons.d_mlp
        self.candidates = free[np.argsort(probability[free], kind="stable")]
        values = probability[self.candidates]
        self.lowest = np.searchsorted(values, probability[members], side="left")
        self.highest = np.searchsorted(values, probability[members], side="right")

    def draw(self, random: np.random.Generator) -> FlatNeurons:
        """One candidate for each member, without replacement, near its rank.

        Candidates of equal probability (0 above all) have no order: a member stands anywhere
        among its equals.
        """
        free = np.ones(len(self.candidates), bool)
        chosen = []
        places = random.integers(self.lowest, self.highest, endpoint=True)
        for place in random.permutation(places).tolist():
            near = _nearest_free(free, place)
            pick = near[random.integers(len(near))]
            free[pick] = False
            chosen.append(self.candidates[pick])
        return np.array(chosen, np.int64) + self.offset


def _nearest_free(free: np.ndarray, place: int) -> np.ndarray:
    """Places of free candidates around `place`, in a window that widens until it has enough."""
    reach = NEIGHBOURS // 2
    while True:
        low = max(0, place - reach)
        near = low + np.flatnonzero(free[low : place + reach])
        if len(near) >= min(NEIGHBOURS // 2, int(free.sum()) or 1):
            return near
        reach *= 2
