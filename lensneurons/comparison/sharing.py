"""Do the neurons that an untouched language joins belong to the languages that were trained?

After training on some languages, others change too (arXiv 2505.21505, section 5.3). If they change
through the trained languages' neurons, an untouched language u should join those neurons more often
than others that it could have joined as well.

A *pair* (u, j) is an untouched language and a neuron whose p in u was at most tau before and which
exceeds tau, after, in M of the other languages, 1 <= M <= K - 2: if u joins, the neuron is newly
related to it. The pair is *new* if p in u exceeds tau after. Neuron j is *shared* if p exceeds tau
after in a trained language. Pairs are matched in strata s = (u, layer of j, M, p of j in u before),
the last in twenty bins with as many new pairs each. With m_s pairs, w_s of them new:

    newness   a_uj = 1[new] - w_s / m_s
    excess         = sum over pairs with a shared neuron of a_uj  /  number of new pairs
                   = share of new pairs that are shared, less the mean of that share when "new" is
                     permuted within every stratum

Neurons of many languages are shared by definition, hence M. A language joins what it is close to,
such as the neurons of its kin, hence p before. Independent noise in every p of the published
Mistral-7B counts has an excess of -0.010, four standard errors, where pairs are matched by N alone,
and -0.003 to 0.000 +- 0.002 here.

Two nulls, for two questions:

* *More often than other neurons within reach?* What is permuted: which pairs of a stratum are new.
  Pairs of one neuron go together, so the p-value turns the *sign of each neuron's whole
  contribution* at random, which gives their sum the variance of the permutation.
* *More with the trained languages than with any others?* What is permuted: which languages are
  called trained, among all but the pivot. Exact where the languages that were trained are like any
  others; with C choices no p-value is below ``1 / C`` (36 for two of nine languages).

Simulated (tests/comparison/test_sharing.py), both nulls are calibrated, also for kin and languages
of unequal size. With 300 new pairs among 1,500 neurons of 8 languages, an excess of 0.013 (0.026,
0.037) is found in 25 (64, 97) % of worlds by the first null and in 17 (42, 74) % by the second. On
the Mistral counts, a rise of p by 1 % in the neurons of two languages gives 0.013, five standard
errors. Neurons that rise in *all* languages at once give 0.003, two standard errors: ask both.

What this does not show: sharing is no cause. Ablate the trained languages' neurons for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float64

from lensneurons.comparison.class_counts import ratio
from lensneurons.shapes import FlatNeurons, PairedRates, RowMask
from lensneurons.values.base import Value

BINS = 20
MOST_CHOICES = 1000
FLIPS_AT_ONCE = 50
NAN = float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class Sharing(Value):
    """How often newly related neurons of untouched languages are shared with trained ones.

    Attributes:
        pairs: new pairs of an untouched language and a neuron.
        share: share of them whose neuron is one of a trained language.
        excess: how far the share exceeds that of matched pairs.
        contrast: the excess less the mean excess of the other choices of trained languages.
        flipped: float64 [flip], excesses with the signs of some neurons' contributions turned.
        others: float64 [choice], the excess of every other choice of trained languages.
        left_out: float64 [group, 2], excess and contrast without each group of items.
    """

    FILE_KIND = "sharing"

    pairs: int
    share: float
    excess: float
    contrast: float
    flipped: Float64[np.ndarray, " flips"]
    others: Float64[np.ndarray, " choices"]
    left_out: Float64[np.ndarray, "group 2"]

    @property
    def baseline(self) -> float:
        """Share of matched pairs whose neuron is one of a trained language."""
        return self.share - self.excess

    @property
    def flipped_p(self) -> tuple[float, float]:
        """Shares of flips, the real signs counted, whose excess is as large, and as small."""
        return self._p_values(self.flipped)

    @property
    def others_p(self) -> tuple[float, float]:
        """Shares of choices, the real one counted, whose excess is as large, and as small."""
        return self._p_values(self.others)

    def _p_values(self, null: np.ndarray) -> tuple[float, float]:
        """One-sided p-values of the excess, toward large and small; NaN where there are none."""
        known = null[~np.isnan(null)]
        if np.isnan(self.excess) or len(known) == 0:
            return NAN, NAN
        large, small = known >= self.excess - 1e-12, known <= self.excess + 1e-12
        n = 1 + len(known)
        return (1 + int(large.sum())) / n, (1 + int(small.sum())) / n


def measure_sharing(
    rates: PairedRates,
    layer: FlatNeurons,
    left_out: Iterable[PairedRates],
    *,
    tau: float,
    candidates: Sequence[int],
    trained: Sequence[int],
    flips: int,
    seed: int,
) -> Sharing:
    """Sharing of newly related neurons, with both nulls.

    Args:
        rates: float64 [model, language, neuron], activation probabilities before and after.
        layer: int64 [neuron].
        left_out: `rates` without each group of items.
        tau: the bar.
        candidates: numbers of the languages that could have been trained: all but the pivot.
        trained: numbers of those that were; at least one of the candidates was not.
        flips: how often to turn signs.
        seed: the same seed gives the same flips.
    """
    random = np.random.default_rng(seed)
    size, real = len(trained), tuple(sorted(trained))
    if comb(len(candidates), size) <= MOST_CHOICES:
        choices = combinations(sorted(candidates), size)
    else:
        drawn = (random.choice(candidates, size, False).tolist() for _ in range(MOST_CHOICES))
        choices = sorted({tuple(sorted(choice)) for choice in drawn})
    choices = [real, *(choice for choice in choices if choice != real)]
    pairs = _Pairs(rates, layer, tau, candidates)
    excess = pairs.excess(choices)
    without = [_Pairs(one, layer, tau, candidates).excess(choices) for one in left_out]
    rows = np.array(without).reshape(len(without), len(choices))
    return Sharing(
        pairs=pairs.count(trained),
        share=pairs.share(trained),
        excess=float(excess[0]),
        contrast=float(_contrast(excess[None])[0]),
        flipped=pairs.flipped(trained, flips, random),
        others=excess[1:],
        left_out=np.stack([rows[:, 0], _contrast(rows)], axis=1),
    )


def _contrast(excess: np.ndarray) -> np.ndarray:
    """Excess [..., 0] of the real choice less the mean of the others; NaN without others."""
    others = excess[:, 1:]
    number = (~np.isnan(others)).sum(axis=1)
    return excess[:, 0] - ratio(np.nansum(others, axis=1), number)


class _Pairs:
    """The pairs of every candidate language, their strata and their newness.

    Attributes:
        after: bool [language, neuron], where p > tau after.
        new: bool [candidate, neuron], which pairs are new.
        newness: float64 [candidate, neuron], ``a_uj``; 0 where there is no pair.
        strata: for each candidate, bool [neuron], the neurons of its pairs, and their strata.
    """

    def __init__(
        self, rates: PairedRates, layer: FlatNeurons, tau: float, candidates: Sequence[int]
    ) -> None:
        self.candidates = list(candidates)
        self.after = rates[1] > tau
        self.newness = np.zeros((len(self.candidates), rates.shape[2]))
        self.new = np.zeros(self.newness.shape, bool)
        self.strata = []
        number, k = self.after.sum(axis=0, dtype=np.int64), len(self.after)
        for i, language in enumerate(self.candidates):
            before, others = rates[0, language], number - self.after[language]
            pair = (before <= tau) & (others >= 1) & (others <= k - 2)
            new = pair & self.after[language]
            if new.any():
                edges = np.quantile(before[new], np.linspace(0, 1, BINS + 1)[1:-1])
                pair &= before >= before[new].min()  # the others are out of reach of any new pair
            else:
                edges, pair = np.zeros(BINS - 1), np.zeros(len(pair), bool)
            bins = np.searchsorted(edges, before[pair], side="right")
            stratum = (layer[pair] * k + others[pair]) * BINS + bins
            self.new[i] = new
            self.newness[i, pair] = _residual(new[pair], stratum)
            self.strata.append((pair, stratum))

    def _untouched(self, choice: Sequence[int]) -> list[int]:
        """Places among the candidates of those that were not chosen."""
        return [i for i, language in enumerate(self.candidates) if language not in choice]

    def _shared(self, choice: Sequence[int]) -> RowMask:
        return self.after[list(choice)].any(axis=0)

    def count(self, choice: Sequence[int]) -> int:
        """Number of new pairs of languages outside a choice."""
        return int(self.new[self._untouched(choice)].sum())

    def share(self, choice: Sequence[int]) -> float:
        """Share of the new pairs whose neuron is one of the choice's; NaN without new pairs."""
        found = self.new[self._untouched(choice)][:, self._shared(choice)].sum()
        return float(found) / (self.count(choice) or NAN)

    def excess(self, choices: Sequence[Sequence[int]]) -> Float64[np.ndarray, " choices"]:
        """float64 [choice]: the excess of each choice of trained languages."""
        shared = np.stack([self._shared(choice) for choice in choices])
        sums = shared.astype(float) @ self.newness.T
        found = zip(sums, choices, strict=True)
        sums = [row[self._untouched(choice)].sum() for row, choice in found]
        return ratio(np.array(sums), np.array([self.count(choice) for choice in choices]))

    def flipped(
        self, choice: Sequence[int], flips: int, random: np.random.Generator
    ) -> Float64[np.ndarray, " flips"]:
        """float64 [flip]: the excess with the signs of neurons' contributions turned at random."""
        shared = self._shared(choice).astype(float)
        whole = np.zeros(self.newness.shape[1])
        for i in self._untouched(choice):
            pair, stratum = self.strata[i]
            m = np.bincount(stratum)[stratum]
            # sqrt(m / (m - 1)) gives the flipped sum the variance of "new" permuted within strata.
            spread = np.sqrt(np.divide(m, m - 1, out=np.zeros(len(m)), where=m > 1))
            whole[pair] += self.newness[i, pair] * _residual(shared[pair], stratum) * spread
        whole = whole[whole != 0].astype(np.float32)
        sums = []
        for start in range(0, flips, FLIPS_AT_ONCE):
            shape = (min(FLIPS_AT_ONCE, flips - start), len(whole))
            signs = 2 * random.integers(0, 2, shape, np.int8) - 1
            sums += (signs.astype(np.float32) @ whole).tolist()
        return np.array(sums, float) / (self.count(choice) or NAN)


def _residual(values: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """float64 [pair]: values less the mean of their stratum."""
    pairs = np.bincount(stratum)
    return values - (np.bincount(stratum, weights=values) / np.maximum(pairs, 1))[stratum]
