"""Made-up values about methods: comparisons, couplings and agreements, with known numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from figure_values import TEN, make_matrix

from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.comparison.coupled_layers import LayerCoupling
from lensneurons.comparison.coupled_neurons import Coupling
from lensneurons.experiments.method_comparison import MethodComparison
from lensneurons.neurons.sets import NeuronSet
from lensneurons.values.provenance import Provenance

ORIGIN = Provenance(model="made/up-model", weights="w1")
METHODS = ("lape", "average_precision", "plnd")
LEVELS = ((1.5, 0.1, 0.2), (0.6, 0.02, 0.1), (4.0, 3.0, 3.9))  # own, others, control


def make_methods(
    names: Sequence[str] = METHODS,
    levels: Sequence[tuple[float, float, float]] = LEVELS,
    *,
    languages: Sequence[str] = TEN,
    layers: int = 6,
    items: int = 12,
    provenance: Provenance = ORIGIN,
) -> MethodComparison:
    """Every method has three neurons of a language, the first of which all methods share."""
    matrix = make_matrix(*levels, languages=languages, items=items)
    matrix = replace(
        matrix, classes=tuple(names), matches=("own",), control=matrix.control[:1],
        rates=matrix.rates[:2], provenance=provenance,
    )  # fmt: skip
    sets = {
        name: {
            k: NeuronSet(
                np.array([7 * place, 100 * (number + 1) % (100 * layers) + 7 * place, 3 + place]),
                layers, 100, f"{name} {k}",
            )
            for place, k in enumerate(languages)
        }
        for number, name in enumerate(names)
    }  # fmt: skip
    return MethodComparison(sets, matrix)


def make_coupling(
    languages: Sequence[str] = TEN, *, layers: int = 6, provenance: Provenance = ORIGIN
) -> Coupling:
    """Coupling that rises to .6 in layer 3; the first two languages are coupled most, by .9."""
    k, shape = len(languages), (layers, 30)
    hump = 0.6 - 0.1 * np.abs(np.arange(layers) - min(3, layers - 1))
    estimate = np.stack([np.append(hump - 0.05 * place, 0.4) for place in range(5)])
    estimate[4] = np.nan  # no neuron of the last class
    pairs = np.full((k, k), 0.5) + 0.01 * np.add.outer(np.arange(k), np.arange(k)) / k
    pairs[0, 1] = pairs[1, 0] = 0.9
    np.fill_diagonal(pairs, 1)
    return Coupling(
        tuple(languages), 40, "pearson",
        ("all", "unclassified", "specific", "related", "agnostic"),
        np.tile(hump[:, None], (1, 30)), np.full(shape, 0.01),
        estimate, estimate - 0.04, estimate + 0.04, np.zeros_like(estimate),
        np.full_like(estimate, 0.01),
        pairs, pairs - 0.03, pairs + 0.03, np.zeros_like(pairs), np.full_like(pairs, 0.01),
        np.array([2, *[0] * (layers - 1)]), 99, 0.95, provenance,
    )  # fmt: skip


def make_layers(
    languages: Sequence[str] = TEN, *, layers: int = 6, provenance: Provenance = ORIGIN
) -> LayerCoupling:
    """Whole layers: CKA .5, and a translation that is nearest in 8 of 10 items."""
    k = len(languages)
    pairs = tuple((languages[a], languages[b]) for a in range(k) for b in range(a + 1, k))
    numbers = [np.full((layers, len(pairs)), one) for one in (
        0.5, 0.4, 0.6, 0.0, 0.01, 0.8, 0.7, 0.9, 0.3, 0.2, 0.4,
    )]  # fmt: skip
    return LayerCoupling(pairs, 40, *numbers, 99, 0.95, provenance)


def make_agreement(
    names: Sequence[str] = ("activation", "plnd", "direct", "activation_gradient"),
    *,
    languages: Sequence[str] = ("en", "zh"),
    provenance: Provenance = ORIGIN,
) -> MethodAgreement:
    """The last measure knows the effects, the others less and less; times are known."""
    random = np.random.default_rng(3)
    effect = random.standard_t(3, (60, len(languages)))
    noise = random.normal(size=(len(names), *effect.shape))
    share = np.linspace(3, 0, len(names))[:, None, None]
    return MethodAgreement(
        tuple(languages), tuple(f"L0N{n}" for n in range(60)), ("related",) * 60, tuple(names),
        effect, -(effect + share * noise), np.arange(1.0, len(names) + 1), 0.5, 30.0,
        provenance=provenance,
    )  # fmt: skip
