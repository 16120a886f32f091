"""How far each language's routing is from that of another language, layer by layer.

Of a mixture of experts, let P_l be the shares of the choices of layer l that went to each expert
while a language was read (the k experts of a token are k choices), and Q_l the same for the pivot,
usually English. Their distance is the Jensen-Shannon divergence in bits,

    JS = H((P + Q) / 2) - (H(P) + H(Q)) / 2           0: same shares;  1: no expert in common

Published for Qwen3-30B-A3B and others is a U over depth: far at the first and the last layers, near
in the middle (arXiv 2510.04694).

>>> statistics = ln.collect(model, corpus, site="experts")              # doctest: +SKIP
>>> routing_divergence(statistics).to_pandas()                          # doctest: +SKIP

Counts of few texts differ by chance, and a divergence is never below 0, so that of the counts is
too large where texts are few: with 64 experts and 40 texts of 60 tokens .07 bits for .05. So where
items were counted in G groups,

* the divergence is the jackknife's, ``G JS - (G - 1) mean of the JS without each group``, and its
  interval Student's t around it, both cut at 0 and 1. Simulated with ten groups the interval holds
  the true divergence in 92 to 96 % of corpora (percentiles of a bootstrap over the groups, which
  add the bias once more, in 0 to 88 %);
* the null swaps the two languages or not in each group, in all 2^(G-1) ways (1,000 random ones
  above 512). ``null`` is the mean of the divergences of these counts, without correction. ``p`` is
  the share of ways whose largest excess over all layers, in standard deviations of the null, is at
  least that of the layer: adjusted over the layers, not over the languages. Where the two languages
  have the same shares, p < .05 in 4 to 8 % of corpora (tests/simulations/routing_divergence.py).

Counts without groups, such as published ones, give the divergence alone.

What this does not show: why. Tokens, topics and scripts differ between languages as well, and a
router of the first layer can tell tokens apart and nothing else. The swap takes texts of the same
item for exchangeable; where one language needs twice the tokens, it is so only in their shares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float64
from scipy.special import entr

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.options import plain_options
from lensneurons.uncertainty.groups import jackknife_interval, require_level
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

MOST_SWAPS = 512  # all ways for ten groups
RANDOM_SWAPS = 1000
ByLayer = Float64[np.ndarray, "layer language"]


@dataclass(frozen=True, eq=False, repr=False)
class RoutingDivergence(Value):
    """Divergence of the routing of each language from a pivot. Made by `routing_divergence`.

    Attributes:
        pivot: the language that the others are compared with.
        languages: the others, in the order of the last axis.
        divergence: float64 [layer, language], in bits, in [0, 1], corrected for few texts where
            there are groups; NaN in layers without a router.
        low: lower end of the interval; NaN without groups of items.
        high: upper end.
        null: mean divergence when the two languages are swapped at random; NaN without groups.
        p: how often a swap gives as much, adjusted over the layers; NaN without groups.
        level: coverage that the interval aims at.
        provenance: where the counts come from.
    """

    FILE_KIND: ClassVar = "routing divergence"
    AXES: ClassVar = dict.fromkeys(
        ("divergence", "low", "high", "null", "p"), ("layer", "language")
    )
    COORDINATES: ClassVar = {"language": "languages"}

    pivot: str
    languages: tuple[str, ...]
    divergence: ByLayer
    low: ByLayer
    high: ByLayer
    null: ByLayer
    p: ByLayer
    level: float
    provenance: Provenance = field(default_factory=Provenance)

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer and language: layer, language, divergence, low, high, null, p."""
        import pandas as pd

        layers, n = self.divergence.shape
        table = {
            "layer": np.repeat(np.arange(layers), n),
            "language": list(self.languages) * layers,
        }
        return pd.DataFrame(table | {name: getattr(self, name).ravel() for name in self.AXES})

    def _brief(self) -> str:
        mean = np.nanmean(self.divergence, axis=0)
        told = ", ".join(f"{k} {one:.3f}" for k, one in zip(self.languages, mean, strict=True))
        return f"bits from {self.pivot}, mean over {len(self.divergence)} layers: {told}"

    def _overview(self) -> Overview:
        rows = [
            (layer, *(f"{one:.3f} [{low:.3f}, {high:.3f}]" for one, low, high in cells))
            for layer, cells in enumerate(
                np.stack([self.divergence, self.low, self.high], -1).tolist()
            )
        ]
        title = f"RoutingDivergence: bits from {self.pivot}"
        return Overview(title, ("layer", *self.languages), rows)


@plain_options
def routing_divergence(
    statistics: ActivationStatistics, *, pivot: str = "en", level: float = 0.95, seed: int = 0
) -> RoutingDivergence:
    """Jensen-Shannon divergence in bits of each language's routing from a pivot's, by layer.

    Args:
        statistics: of experts, ``collect(model, corpus, site="experts")``; intervals and the null
            need its groups.
        pivot: the language that the others are compared with.
        level: coverage of the intervals.
        seed: of the swaps where there are more than 512 ways.

    Raises:
        LensNeuronsError: statistics of neurons, one language alone, or one that is not there.
    """
    if statistics.provenance.unit != "expert":
        raise LensNeuronsError(
            "these statistics count neurons, whose rates are no shares of one choice: give those "
            "of collect(model, corpus, site='experts')"
        )
    require_level(level)
    choose(pivot, statistics.languages, "pivot")
    others = tuple(k for k in statistics.languages if k != pivot)
    if not others:
        raise LensNeuronsError(f"there is no language but {pivot}: nothing to compare it with")
    of = statistics.languages.index
    counts = statistics.grouped_counts
    found = [_one(counts[..., of(k)], counts[..., of(pivot)], level, seed) for k in others]
    arrays = (np.stack(one, axis=-1) for one in zip(*found, strict=True))
    names = ("divergence", "low", "high", "null", "p")
    return RoutingDivergence(
        pivot,
        others,
        **dict(zip(names, arrays, strict=True)),
        level=level,
        provenance=statistics.provenance,
    )


def js_bits(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits along the last axis, of counts or shares.

    Bounded by 0 and 1, symmetric; NaN where one of the two is all zeros.
    """
    with np.errstate(invalid="ignore"):
        p, q = (one / one.sum(axis=-1, keepdims=True) for one in (ours, theirs))
    between = entr((p + q) / 2).sum(-1) - (entr(p).sum(-1) + entr(q).sum(-1)) / 2
    return np.asarray(np.clip(between / np.log(2), 0, 1))


def _one(
    ours: np.ndarray, theirs: np.ndarray, level: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Divergence, ends, null and p, each [layer], from counts [group, layer, expert]."""
    used = (ours.sum((1, 2)) > 0) & (theirs.sum((1, 2)) > 0)
    ours, theirs, n = ours[used], theirs[used], int(used.sum())
    found = js_bits(ours.sum(0), theirs.sum(0))
    if n < 2:
        nothing = np.full(found.shape, np.nan)
        return found, nothing, nothing, nothing, nothing
    without = js_bits(ours.sum(0) - ours, theirs.sum(0) - theirs)
    corrected = n * found - (n - 1) * without.mean(axis=0)
    ends = jackknife_interval(corrected, without, level=level)
    null = _swapped(ours, theirs, seed)
    mean, spread = null.mean(0), np.maximum(null.std(0), 1e-12)
    largest = np.nan_to_num((null - mean) / spread, nan=-np.inf).max(axis=1)
    excess = (found - mean) / spread
    p = np.where(np.isnan(excess), np.nan, (largest[:, None] >= excess - 1e-9).mean(0))
    divergence, low, high = (np.clip(one, 0, 1) for one in (corrected, ends.low, ends.high))
    return divergence, low, high, mean, p


def _swapped(ours: np.ndarray, theirs: np.ndarray, seed: int) -> np.ndarray:
    """Divergences [way, layer] with the two languages swapped in some groups; the first in none."""
    n = len(ours)
    if 2 ** (n - 1) <= MOST_SWAPS:  # swapping the other groups is the same
        ways = np.array([(0, *rest) for rest in product((0, 1), repeat=n - 1)])
    else:
        ways = np.random.default_rng(seed).integers(0, 2, (RANDOM_SWAPS, n))
        ways[0] = 0
    total, moved = ours.sum(0), theirs - ours
    ours_first = np.tensordot(ways, moved, 1) + total
    return js_bits(ours_first, total + theirs.sum(0) - ours_first)
