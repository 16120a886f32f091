"""How alike a whole layer answers texts and their translations: CKA, retrieval, cosine.

Let A be the mean activations [item, neuron] of a layer in language a, B those of the same items in
language b. Three numbers say how far the two agree, each of another thing:

* **CKA** (linear; Kornblith et al. 2019, arXiv 1905.00414): do the same pairs of items lie close in
  both? ``HSIC(A A^T, B B^T) / sqrt(HSIC(A A^T, A A^T) HSIC(B B^T, B B^T))`` with the unbiased HSIC
  (Song et al. 2012, equation 5): the usual one is near 1 for anything where neurons are many and
  items few. 1: the same up to rotation and scale; 0: nothing in common.
* **Retrieval**: the share of items whose translation is nearest, by cosine of activations from
  which the mean of each language was taken away, in both directions. Chance is 1 / items.
* **Cosine**: the mean cosine, after the same centring, of an item and its translation less that of
  an item and another.

Intervals: of CKA (its artanh) and cosine a jackknife over up to `GROUPS` groups of items; of
retrieval Wilson's, with one trial an item, as both directions of an item go together. **Null** of
the CKA: the items of b are shuffled.

Simulated with neurons that follow few, heavy-tailed topics (tests/simulations/coupling.py): with 60
items intervals of 95 % hold the CKA in 94 to 100 % of corpora, the retrieval in 97 to 99 % and the
cosine in 89 to 97 %; with 20 items in 95 to 99, 96 to 100 and 90 to 98 %. p < .05 in 3 to 5 % where
nothing is shared.

>>> layer_coupling(item_activations(model, corpus)).to_pandas()          # doctest: +SKIP

Memory grows with the items: ``8 * languages * items * (items + neurons a layer)`` bytes for the
kernels and the layer that is compared; a few hundred items are enough, and more cost their square.

What this does not show: which neurons agree (`lensneurons.comparison.coupled_neurons`), or that the
model uses the agreement. Long texts, digits and names can be found again in any language.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float64

from lensneurons.activations.items import ItemActivations
from lensneurons.comparison.coupled_neurons import FEWEST, GROUPS, correlation_interval
from lensneurons.errors import LensNeuronsError
from lensneurons.options import plain_options
from lensneurons.uncertainty.groups import jackknife_interval, require_level
from lensneurons.uncertainty.paired import wilson_interval
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

ByPair = Float64[np.ndarray, "layer pair"]
NUMBERS = ("cka", "retrieval", "cosine")


@dataclass(frozen=True, eq=False, repr=False)
class LayerCoupling(Value):
    """Agreement of whole layers between languages. Made by `layer_coupling`.

    Attributes:
        pairs: two codes each, in the order of the last axis.
        n_items: parallel items; chance retrieves one in so many.
        cka: float64 [layer, pair], unbiased linear CKA, without the bias of the ratio.
        cka_low: lower end of its interval.
        cka_high: upper end.
        cka_null: its mean over shuffled items.
        cka_p: one-sided, of the shuffles.
        retrieval: share of items whose translation is nearest, 0 to 1.
        retrieval_low: lower end of its interval.
        retrieval_high: upper end.
        cosine: mean cosine with the translation less that with another item.
        cosine_low: lower end of its interval.
        cosine_high: upper end.
        draws: shuffles.
        level: coverage of the intervals.
        provenance: where the activations come from.
    """

    FILE_KIND: ClassVar = "coupling of layers"
    AXES: ClassVar = dict.fromkeys(NUMBERS, ("layer", "pair"))

    pairs: tuple[tuple[str, str], ...]
    n_items: int
    cka: ByPair
    cka_low: ByPair
    cka_high: ByPair
    cka_null: ByPair
    cka_p: ByPair
    retrieval: ByPair
    retrieval_low: ByPair
    retrieval_high: ByPair
    cosine: ByPair
    cosine_low: ByPair
    cosine_high: ByPair
    draws: int
    level: float
    provenance: Provenance = field(default_factory=Provenance)

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer and pair: layer, language, other, and all numbers."""
        import pandas as pd

        layers, n = self.cka.shape
        one, two = zip(*self.pairs, strict=True)
        table = {"layer": np.repeat(np.arange(layers), n)}
        table |= {"language": list(one) * layers, "other": list(two) * layers}
        ends = ("", "_low", "_high", "_null", "_p")
        names = [
            f"{name}{end}" for name in NUMBERS for end in ends if hasattr(self, f"{name}{end}")
        ]
        return pd.DataFrame(table | {name: getattr(self, name).ravel() for name in names})

    def _brief(self) -> str:
        told = ", ".join(f"{name} {getattr(self, name).mean():.3f}" for name in NUMBERS)
        return f"{self.n_items} items, {len(self.pairs)} pairs of languages, mean: {told}"

    def _overview(self) -> Overview:
        rows = [
            (layer, *(f"{getattr(self, name)[layer].mean():.3f}" for name in NUMBERS))
            for layer in range(len(self.cka))
        ]
        return Overview(f"{self!r}. Means over the pairs", ("layer", *NUMBERS), rows)


@plain_options
def layer_coupling(
    items: ItemActivations, *, draws: int = 200, level: float = 0.95, seed: int = 0
) -> LayerCoupling:
    """Compare each layer's activations on parallel items between every two languages.

    Args:
        items: what `item_activations` gives, of two languages and `FEWEST` items or more.
        draws: shuffles for the p of the CKA; the smallest is ``1 / (draws + 1)``.
        level: coverage of the intervals.
        seed: of the shuffles.

    Raises:
        LensNeuronsError: one language alone, too few items, no draw, or a layer that answers all
            items of a language alike.
    """
    require_level(level)
    n_languages, n_items = items.mean.shape[:2]
    if n_languages < 2 or n_items < FEWEST or draws < 1:
        raise LensNeuronsError(
            f"{n_items} items in {n_languages} languages, draws={draws}: give two languages,"
            f" {FEWEST} items and one draw, or more"
        )
    random = np.random.default_rng(seed)
    shuffles = random.permuted(np.tile(np.arange(n_items), (draws, 1)), axis=-1)
    groups = np.arange(n_items) % min(GROUPS, n_items)
    names = items.languages
    pairs = [(a, b) for a in range(n_languages) for b in range(a + 1, n_languages)]
    rows: list[list[tuple[float, ...]]] = []
    for layer in range(items.n_layers):
        values = items.mean[:, :, layer].astype(np.float64)
        values -= values.mean(axis=1, keepdims=True)
        grams = np.einsum("kij,kmj->kim", values, values, optimize=True)
        if silent := [k for k, gram in zip(names, grams, strict=True) if not gram.trace()]:
            raise LensNeuronsError(f"layer {layer} answers all items of {silent} alike")
        length = np.linalg.norm(values, axis=-1, keepdims=True)
        unit = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
        rows.append(
            [
                (
                    *_cka_told(grams[a], grams[b], groups, shuffles, level),
                    *_nearness_told(unit[a] @ unit[b].T, groups, level),
                )
                for a, b in pairs
            ]
        )
    arrays = np.array(rows, np.float64).transpose(2, 0, 1)
    told = [f"cka{end}" for end in ("", "_low", "_high", "_null", "_p")]
    told += [f"{name}{end}" for name in NUMBERS[1:] for end in ("", "_low", "_high")]
    return LayerCoupling(
        pairs=tuple((names[a], names[b]) for a, b in pairs),
        n_items=n_items,
        **dict(zip(told, arrays, strict=True)),
        draws=draws,
        level=level,
        provenance=items.provenance,
    )


def unbiased_hsic(one: np.ndarray, two: np.ndarray) -> float:
    """Unbiased HSIC of two kernels [item, item] (Song et al. 2012, equation 5), times n (n - 3)."""
    n = len(one)
    one, two = one - np.diag(one.diagonal()), two - np.diag(two.diagonal())
    rows = one.sum(axis=1), two.sum(axis=1)
    return float(
        np.vdot(one, two)
        + rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * rows[0] @ rows[1]
    )


def unbiased_cka(one: np.ndarray, two: np.ndarray) -> float:
    """Linear CKA of two kernels [item, item]; NaN where one of them has no spread of its own."""
    own = unbiased_hsic(one, one) * unbiased_hsic(two, two)
    return unbiased_hsic(one, two) / own**0.5 if own > 0 else float("nan")


def _cka_told(
    one: np.ndarray, two: np.ndarray, groups: np.ndarray, shuffles: np.ndarray, level: float
) -> tuple[float, ...]:
    """CKA, ends, null and p of two kernels [item, item]."""
    found = unbiased_cka(one, two)
    kept = [np.flatnonzero(groups != group) for group in range(int(groups.max()) + 1)]
    without = np.array([unbiased_cka(one[np.ix_(k, k)], two[np.ix_(k, k)]) for k in kept])
    own = (unbiased_hsic(one, one) * unbiased_hsic(two, two)) ** 0.5
    chance = np.array([unbiased_hsic(one, two[np.ix_(s, s)]) for s in shuffles]) / own
    p = (1 + (chance >= found - 1e-12).sum()) / (len(chance) + 1)
    told = correlation_interval(np.asarray(found), without, level)
    return (*map(float, told), float(chance.mean()), float(p))


def _nearness_told(cosines: np.ndarray, groups: np.ndarray, level: float) -> tuple[float, ...]:
    """Retrieval and cosine with their ends, from cosines [item, item of the other language]."""
    n = len(cosines)
    hits = sum(int((cosines.argmax(axis) == np.arange(n)).sum()) for axis in (0, 1))
    low, _ = wilson_interval(hits // 2, n, level=level)
    _, high = wilson_interval(-(-hits // 2), n, level=level)
    kept = [np.flatnonzero(groups != group) for group in range(int(groups.max()) + 1)]
    found = _nearer(cosines)
    ends = jackknife_interval(
        found, np.array([_nearer(cosines[np.ix_(k, k)]) for k in kept]), level=level
    )
    return hits / (2 * n), low, high, found, float(ends.low), float(ends.high)


def _nearer(cosines: np.ndarray) -> float:
    """Mean of a square on its diagonal less that off it."""
    n, own = len(cosines), float(cosines.trace())
    return own / n - (float(cosines.sum()) - own) / (n * (n - 1))
