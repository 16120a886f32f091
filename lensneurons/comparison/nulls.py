"""What a change of class counts would be if no neuron had changed its languages.

Four yardsticks stand beside every change, all blind to languages:

* **uniform**: an equal rise of all firing. On the scale of logits every probability of the model
  before gets the median change of its layer, at the shared bar:

      logit p + c_l          c_l = median, over (neuron, language) pairs near the bar, of the change

  A model that is only busier shows this change: at a fixed bar, more firing alone makes neurons of
  one language neurons of several. Median, not mean: neurons that a language joins raise the mean,
  which would take alignment for activity.
* **drift**: the same with noise without a direction, for neuron j and language k

      logit p + c_l + s_l * (sqrt(r) * z_j + sqrt(1 - r) * z_jk)      z_j, z_jk ~ N(0, 1)

  More neurons stand below a bar than above, so noise carries more of them up than down: drift, too,
  looks like alignment.
* **alike**: what the neuron does in its other languages, with the noise that this leaves

      logit p + m_jk + t_l * z_jk          m_jk = weighted median of the changes d_ji, i != k

  A neuron that fires more in all languages alike is no neuron that a language joined, but becomes
  related to more of them. The weight of language i is p^2 (1 - p), of p before: p (1 - p) is the
  precision of its logit, and where many languages join one neuron at once, those that had it before
  shall decide. c_l votes too, as a language of p = 0.01: less tells nothing.
* **own bar**: the model after at the bar that as many of its probabilities exceed as exceed the
  shared bar before. No interval: a change at this bar is one of shape, not of size.

c, s and r are measured on the (neuron, language) pairs whose p before lies near the bar, within
`WINDOW` on the scale of logits. One half of the groups of items chooses the pairs and the other
measures their changes d, and the reverse, so that no pair is chosen for the noise of its texts:

    c_l = median of d in the layer (one half: without groups of items, all items choose and measure)
    s_l^2 = mean of (d - c_l)^2 over d < c_l, less the variance that the texts explain (jackknife)
    r = correlation, over languages, of the signs of d - c_l, divided by its share that is no noise
    t_l^2 = s_l^2 less the mean of (m - c_l)^2 over m < c_l, at least 0

Only changes *below* the median give the size: noise is symmetric, but a language that joins a
neuron raises p, and joins are what is to be told from noise. A language that leaves one counts.

>>> drift = measure_drift(pair, layer, tau)                                  # doctest: +SKIP
>>> drift.above(pair.rates()[0], layer, tau, random)                         # doctest: +SKIP

What this does not show: that what exceeds the nulls was caused by the training; a training on
shuffled pairs or a random adapter of equal norm shows that. Noise of another shape, such as a few
neurons that change greatly in either direction, is underestimated by *drift*. A rise that untouched
languages share with the trained ones, neuron by neuron, is the same to *alike* as one without any
sharing. Where a rise multiplies probabilities, logits rise more where p is high, so *alike* gives
too many neurons of all languages: "N = K rises" is then found less often than it is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from lensneurons.comparison.class_counts import (
    ClassTables,
    PairedCounts,
    count_classes,
    count_draw,
    stacked,
)
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.shapes import FlatNeurons, PairedRates, RowMask
from lensneurons.uncertainty.groups import group_weights

WINDOW = 1.5  # logits on each side of the bar
VOTE = 0.01**2 * 0.99  # weight of the layer's median among the moves of a neuron's languages
FEWEST = 100  # pairs of a layer near the bar; with fewer, the numbers of the whole model are taken
TINY = 1e-4  # probabilities stay this far from 0 and 1 on the scale of logits
DRAWS = 100  # of the groups of items: the errors are known to 7 %
NULL_DRAWS = 40  # of noise, whose mean adds 1 % to the variance of what exceeds a null
# What the nulls are, in saved files. Files without it have a mean factor of p as `uniform` (the
# first ones), or the median shift, and no `alike`.
NULLS_VERSION = 3
REMEDY = (
    "count more items, collect with other groups, or compare both models as "
    "statistics.resample(np.ones(n_groups, int)), without intervals"
)

Rates = Float64[np.ndarray, "language neurons"]


@dataclass(frozen=True, eq=False)
class Drift:
    """Change of the layers' probabilities without regard to languages, on the scale of logits.

    Attributes:
        centre: float64 [layer], median change of pairs near the bar.
        noise: float64 [layer], standard deviation of the changes that the texts do not explain.
        common: share of its variance that all languages of a neuron have in common.
        near: bool [language, neuron], the pairs near the bar before, on all items.
        median: float64 [layer], median change of these pairs on all items.
        rest: float64 [layer], standard deviation of the noise that what neurons do in their other
            languages leaves.
    """

    centre: Float64[np.ndarray, " layer"]
    noise: Float64[np.ndarray, " layer"]
    common: float
    near: Bool[np.ndarray, "language neurons"]
    median: Float64[np.ndarray, " layer"]
    rest: Float64[np.ndarray, " layer"]

    def above(
        self,
        before: Rates,
        layer: FlatNeurons,
        tau: float,
        random: np.random.Generator,
        centre: Float64[np.ndarray, " layer"] | None = None,
    ) -> Bool[np.ndarray, "language neurons"]:
        """Bool [language, neuron]: where the drifted probabilities exceed tau.

        Args:
            before: float64 [language, neuron], probabilities.
            layer: int64 [neuron].
            tau: the bar.
            random: draws the noise.
            centre: medians in place of its own.
        """
        z = (1 - self.common) ** 0.5 * random.standard_normal(before.shape)
        z += self.common**0.5 * random.standard_normal(before.shape[1])
        moved = logit(before) + (self.centre if centre is None else centre)[layer]
        return moved + self.noise[layer] * z > logit(np.array(tau))

    def above_alike(
        self,
        moved: Rates,
        layer: FlatNeurons,
        tau: float,
        random: np.random.Generator,
    ) -> Bool[np.ndarray, "language neurons"]:
        """Bool [language, neuron]: where logits that were `moved_alike` exceed tau's."""
        z = random.standard_normal(moved.shape)
        return moved + self.rest[layer] * z > logit(np.array(tau))

    def centre_of(self, rates: PairedRates, layer: FlatNeurons) -> Float64[np.ndarray, " layer"]:
        """float64 [layer]: the median change in a draw of the items."""
        change = _differences(rates[:, self.near])
        now = _medians(change, _layers_of(self.near, layer), len(self.noise))
        return self.centre + now - self.median


def logit(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), finite."""
    p = np.clip(p, TINY, 1 - TINY)
    return np.asarray(np.log(p) - np.log1p(-p))


def raise_uniformly(
    before: Rates, layer: FlatNeurons, tau: float, shift: Float64[np.ndarray, " layer"]
) -> Bool[np.ndarray, "language neurons"]:
    """Bool [language, neuron]: where probabilities whose logits rise by the shift of their layer
    exceed tau.
    """
    return logit(before) + shift[layer] > logit(np.array(tau))


def require_same_nulls(found: object, what: str, remedy: str) -> None:
    """Refuse a saved result whose nulls were other ones.

    Args:
        found: the version of its nulls; None where it has none.
        what: the result, such as ``"this comparison"``.
        remedy: how to make it anew.

    Raises:
        StorageError: another version.
    """
    if found != NULLS_VERSION:
        raise StorageError(
            f"{what} was saved by another lensneurons, which measured changes against other nulls "
            f"(version {found or 'unknown'}, these are version {NULLS_VERSION}), so its numbers "
            f"would be taken for something else: {remedy}"
        )


def moved_alike(rates: PairedRates, centre: Float64[np.ndarray, " neurons"]) -> Rates:
    """Logits [language, neuron] before, moved by what the neuron does in its other languages.

    Args:
        rates: float64 [model, language, neuron], probabilities before and after.
        centre: float64 [neuron], the median change of the neuron's layer, which votes too.
    """
    p, change = rates[0], np.vstack([_differences(rates), centre])
    weight = np.vstack([p**2 * (1 - p), np.full(p.shape[1], VOTE)])
    order = change.argsort(axis=0)
    change, weight = (np.take_along_axis(one, order, axis=0) for one in (change, weight))
    moved = logit(p)
    for language in range(len(p)):
        below = np.where(order == language, 0.0, weight).cumsum(axis=0)
        median = (below < below[-1] / 2).sum(axis=0)
        moved[language] += np.take_along_axis(change, median[None], axis=0)[0]
    return moved


def layer_shifts(
    rates: PairedRates, layer: FlatNeurons, tau: float, n_layers: int
) -> Float64[np.ndarray, " layer"]:
    """float64 [layer]: median change of the pairs near the bar, on the scale of logits.

    Args:
        rates: float64 [model, language, neuron], probabilities before and after.
        layer: int64 [neuron], their layers.
        tau: the bar.
        n_layers: layers of the model.
    """
    near = _near(rates[0], tau)
    return _medians(_differences(rates[:, near]), _layers_of(near, layer), n_layers)


def measure_drift(pair: PairedCounts, layer: FlatNeurons, tau: float, n_layers: int) -> Drift:
    """Measure the drift of a pair of models whose items are in two groups or more.

    Args:
        pair: counts of the neurons that can come near the bar.
        layer: int64 [neuron], their layers.
        tau: the bar.
        n_layers: layers of the model.
    """
    n = len(pair.counts)
    texts = _text_variance(pair)
    chosen = []  # [pair] of both halves: layer, neuron, change, variance that the texts explain
    for first in (0, 1):
        half = (np.arange(n) % 2 == first).astype(np.int64)
        near = _near(pair.rates(half)[0], tau)
        change = _differences(pair.rates(1 - half))[near]
        neuron = np.broadcast_to(np.arange(near.shape[1]), near.shape)[near]
        # The neurons of the second half get numbers of their own.
        row = (layer[neuron], neuron + first * near.shape[1], change)
        chosen.append((*row, texts[near] * n / (n - half.sum())))
    where, neuron, change, variance = (np.concatenate(one) for one in zip(*chosen, strict=True))
    centre = _medians(change, where, n_layers)
    residual = change - centre[where]
    below = residual < 0
    square = np.square(residual[below])
    noise = np.maximum(_means(square - variance[below], where[below], n_layers), 0.0)
    real = max(0.0, float(1 - variance[below].sum() / (square.sum() or np.inf)))
    common = float(np.clip(_sign_correlation(neuron, below) / real, 0, 1)) if real else 0.0
    rates = pair.rates()
    near = _near(rates[0], tau)
    moved = moved_alike(rates, centre[layer]) - logit(rates[0]) - centre[layer]
    low = near & (moved < 0)
    rest = np.maximum(noise - _means(np.square(moved[low]), _layers_of(low, layer), n_layers), 0.0)
    median = layer_shifts(rates, layer, tau, n_layers)
    return Drift(centre, np.sqrt(noise), common, near, median, np.sqrt(rest))


def draw_tables(
    pair: PairedCounts,
    layer: FlatNeurons,
    tau: float,
    *,
    selected: RowMask,
    n_layers: int,
    d_mlp: int,
    seed: int,
) -> dict[str, ClassTables]:
    """Tables of the nulls on all items, and of both models and the nulls on drawn groups.

    Args:
        pair: as for `measure_drift`.
        layer: int64 [neuron], their layers.
        tau: the bar.
        selected: bool [neuron], which were selected before.
        n_layers: layers of the model.
        d_mlp: neurons a layer.
        seed: the same seed gives the same draws.

    Returns:
        ``uniform``, ``drift``, ``alike``, ``drawn`` and, on drawn groups, ``uniform_drawn``,
        ``drift_drawn`` and ``alike_drawn`` of `Comparison`.

    Raises:
        LensNeuronsError: nearly every draw leaves a language without tokens.
    """
    random = np.random.default_rng([seed, 1])
    drift, whole = measure_drift(pair, layer, tau, n_layers), pair.rates()
    first, moved = whole[0], moved_alike(whole, drift.centre[layer])
    shape = {"selected": selected, "n_layers": n_layers, "d_mlp": d_mlp}
    nulls = {
        "uniform": [raise_uniformly(first, layer, tau, drift.centre)],
        "drift": (drift.above(first, layer, tau, random) for _ in range(NULL_DRAWS)),
        "alike": (drift.above_alike(moved, layer, tau, random) for _ in range(NULL_DRAWS)),
    }
    tables = {
        name: count_classes((np.stack([first > tau, one]) for one in drawn), layer, **shape)
        for name, drawn in nulls.items()
    }
    draws: dict[str, list[tuple[np.ndarray, ...]]] = {
        name: [] for name in ("drawn", "uniform_drawn", "drift_drawn", "alike_drawn")
    }
    for weights in _weights(pair, seed):
        rates = pair.rates(weights)
        before, after = rates > tau
        centre = drift.centre_of(rates, layer)
        others = (
            after,
            raise_uniformly(rates[0], layer, tau, centre),
            drift.above(rates[0], layer, tau, random, centre),
            drift.above_alike(moved_alike(rates, centre[layer]), layer, tau, random),
        )
        for rows, other in zip(draws.values(), others, strict=True):
            rows.append(count_draw(np.stack([before, other]), layer, **shape))
    return tables | {name: stacked(rows) for name, rows in draws.items()}


def _weights(pair: PairedCounts, seed: int) -> Iterator[np.ndarray]:
    """Draws of the groups that leave tokens in every language."""
    done = 0
    for weights in group_weights(len(pair.counts), 10 * DRAWS, seed):
        if np.tensordot(weights, pair.tokens, axes=1).all():
            yield weights
            done += 1
        if done == DRAWS:
            return
    raise LensNeuronsError(
        f"only {done} of {10 * DRAWS} draws of the groups have tokens in every language: {REMEDY}"
    )


def _near(before: Rates, tau: float) -> Bool[np.ndarray, "language neurons"]:
    return np.abs(logit(before) - logit(np.array(tau))) <= WINDOW


def _differences(rates: np.ndarray) -> np.ndarray:
    """Changes [...] of probabilities [model, ...] on the scale of logits."""
    return logit(rates[1]) - logit(rates[0])


def _layers_of(near: Bool[np.ndarray, "language neurons"], layer: FlatNeurons) -> np.ndarray:
    return np.broadcast_to(layer, near.shape)[near]


def _text_variance(pair: PairedCounts) -> Rates:
    """Variance of the change of a logit over texts; the jackknife is right for smooth numbers."""
    n = len(pair.counts)
    left_out = np.stack([_differences(pair.rates(row)) for row in 1 - np.eye(n, dtype=np.int64)])
    return left_out.var(axis=0) * (n - 1)


def _medians(values: np.ndarray, layer: np.ndarray, n_layers: int) -> np.ndarray:
    """float64 [layer]: medians; where a layer has few values, that of all."""
    whole = float(np.median(values)) if len(values) else 0.0
    return np.array([
        float(np.median(own)) if len(own := values[layer == i]) >= FEWEST else whole
        for i in range(n_layers)
    ])  # fmt: skip


def _means(values: np.ndarray, layer: np.ndarray, n_layers: int) -> np.ndarray:
    """float64 [layer]: means; where a layer has few values, that of all; 0 without any."""
    number, total = (
        np.bincount(layer, weights=one, minlength=n_layers)
        for one in (np.ones(len(values)), values)
    )
    few = number < FEWEST / 2
    number, total = (np.where(few, one.sum(), one) for one in (number, total))
    return total / np.maximum(number, 1)


def _sign_correlation(neuron: np.ndarray, below: np.ndarray) -> float:
    """Correlation of two languages' changes of one neuron, from how often both lie below 0.

    For two normal numbers with correlation x that is in ``1 / 4 + asin(x) / (2 pi)`` of cases.
    """
    pairs, lower = (
        np.bincount(neuron, weights=one).astype(float) for one in (np.ones(len(below)), below)
    )
    both, all_ = (lower * (lower - 1)).sum(), (pairs * (pairs - 1)).sum()
    return float(np.sin(2 * np.pi * (both / all_ - 0.25))) if all_ else 0.0
