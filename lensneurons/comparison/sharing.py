"""Do the neurons that an untouched language joins belong to the languages that were trained?

After training on some languages, others change too (arXiv 2505.21505, section 5.3). If they do so
through the trained languages' neurons, an untouched language u should join those neurons more often
than others that it could as well have joined.

A *pair* (u, j) is an untouched language and a neuron whose p in u was at most tau before and which
exceeds tau, after, in M of the other languages, 1 <= M <= K - 2: if u joins, the neuron is newly
related to it. The pair is *new* if p in u exceeds tau after. Neuron j is *shared* if p exceeds tau
after in a trained language. Pairs are matched in strata s = (u, layer of j, M, p of j in u before),
the latter in twenty bins with as many new pairs each; m_s pairs, w_s of them new:

    newness   a_uj = 1[new] - w_s / m_s
    excess         = sum over pairs with a shared neuron of a_uj  /  number of new pairs
                   = share of new pairs that are shared, less the mean of that share when "new" is
                     permuted within every stratum

The matching is what makes the number mean something. Neurons of many languages are shared by
definition (M); a language joins what it is close to (p before), and it is closer to the neurons of
its kin. Independent noise in every p of the published Mistral-7B counts has an excess of -0.010,
four standard errors, where pairs are matched by N alone, and -0.003 to 0.000 +- 0.002 here.

Two nulls, for two questions:

* *More often than other neurons within reach?* What is permuted: which pairs of a stratum are new.
  Its mean is the baseline above. Pairs of one neuron go together, so for the p-value the *sign of
  each neuron's whole contribution* is turned at random, which gives their sum the variance of
  that permutation and keeps what the pairs of one neuron have in common.
* *More with the trained languages than with any others?* What is permuted: which languages are
  called trained, among all but the pivot. Exact where the languages that were trained are like any
  others; with C choices no p-value is below ``1 / C`` (36 for two of nine languages).

Simulated (tests/test_sharing.py), both nulls are calibrated, also for kin and languages of unequal
size. With 300 new pairs among 1,500 neurons of 8 languages, an excess of 0.013 (0.026, 0.037) is
found in 25 (64, 97) % of worlds by the first null and in 17 (42, 74) % by the second. On the
Mistral counts, a rise of p by 1 % in the neurons of two languages gives 0.013, five standard
errors. Neurons that rise in *all* languages at once give 0.003, two standard errors: ask both.

What this does not show: sharing is no cause. Ablate the trained languages' neurons for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from lensneurons.shapes import (
    DrawnSharing,
    FlatNeurons,
    FlippedSharing,
    PairedRates,
    PairNewness,
    RowMask,
    SetSharing,
)

BINS = 20
MOST_CHOICES = 1000
FLIPS_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class Sharing:
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

    pairs: int
    share: float
    excess: float
    contrast: float
    flipped: FlippedSharing
    others: SetSharing
    left_out: DrawnSharing

    @property
    def baseline(self) -> float:
        """Share of matched pairs whose neuron is one of a trained language."""
        return self.share - self.excess

    @property
    def flipped_p(self) -> tuple[float, float]:
        """Shares of flips, the real signs counted, whose excess is as large, and as small."""
        return _p_values(self.flipped, self.excess)

    @property
    def others_p(self) -> tuple[float, float]:
        """Shares of choices, the real one counted, whose excess is as large, and as small."""
        return _p_values(self.others, self.excess)


def _p_values(null: np.ndarray, value: float) -> tuple[float, float]:
    """One-sided p-values of a value in a null, toward large and small; NaN where not known."""
    known = null[~np.isnan(null)]
    if np.isnan(value) or len(known) == 0:
        return float("nan"), float("nan")
    large, small = np.sum(known >= value - 1e-12), np.sum(known <= value + 1e-12)
    return (1 + int(large)) / (1 + len(known)), (1 + int(small)) / (1 + len(known))


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
        rates: float64 [run, language, neuron], activation probabilities before and after.
        layer: int64 [neuron].
        left_out: the same as `rates` without each group of items.
        tau: the bar.
        candidates: numbers of the languages that could have been trained: all but the pivot.
        trained: numbers of those that were; at least one of the candidates was not.
        flips: how often to turn signs.
        seed: the same seed gives the same flips.
    """
    random = np.random.default_rng(seed)
    choices = [tuple(sorted(trained)), *_other_choices(candidates, trained, random)]
    pairs = _Pairs(rates, layer, tau, candidates)
    excess = pairs.excess(choices)
    drawn = [_Pairs(one, layer, tau, candidates).excess(choices) for one in left_out]
    rows = np.array(drawn).reshape(len(drawn), len(choices))
    return Sharing(
        pairs=pairs.count(trained),
        share=pairs.share(trained),
        excess=float(excess[0]),
        contrast=float(_contrast(excess[None])[0]),
        flipped=pairs.flipped(trained, flips, random),
        others=excess[1:],
        left_out=np.stack([rows[:, 0], _contrast(rows)], axis=1),
    )


def _other_choices(
    candidates: Sequence[int], trained: Sequence[int], random: np.random.Generator
) -> list[tuple[int, ...]]:
    """The other choices of as many languages: all of them, or as many as make sense, drawn."""
    size, real = len(trained), tuple(sorted(trained))
    if comb(len(candidates), size) <= MOST_CHOICES:
        return [choice for choice in combinations(sorted(candidates), size) if choice != real]
    drawn = {tuple(sorted(random.choice(candidates, size, False))) for _ in range(MOST_CHOICES)}
    return sorted(tuple(int(k) for k in choice) for choice in drawn if choice != real)


def _contrast(excess: np.ndarray) -> np.ndarray:
    """Excess [..., 0] of the real choice less the mean of the others; NaN without others."""
    others = excess[:, 1:]
    number = (~np.isnan(others)).sum(axis=1)
    mean = np.nansum(others, axis=1) / np.where(number > 0, number, np.nan)
    return excess[:, 0] - mean


class _Pairs:
    """The pairs of every candidate language, their strata and their newness."""

    def __init__(
        self, rates: PairedRates, layer: FlatNeurons, tau: float, candidates: Sequence[int]
    ) -> None:
        self.candidates = list(candidates)
        self.after = rates[1] > tau
        number = self.after.sum(axis=0, dtype=np.int64)
        self.strata = []
        self.newness: PairNewness = np.zeros((len(self.candidates), rates.shape[2]))
        self.new = np.zeros(self.newness.shape, bool)
        for i, language in enumerate(self.candidates):
            others = number - self.after[language]
            risk = (rates[0, language] <= tau) & (others >= 1) & (others <= len(self.after) - 2)
            self.new[i] = risk & self.after[language]
            stratum = _strata(rates[0, language], layer * len(self.after) + others, self.new[i])
            risk &= stratum >= 0
            self.strata.append((risk, stratum[risk]))
            self.newness[i, risk] = _residual(self.new[i, risk], stratum[risk])

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
        return _ratio(float(found), self.count(choice))

    def excess(self, choices: Sequence[Sequence[int]]) -> SetSharing:
        """float64 [choice]: the excess of each choice of trained languages."""
        shared = np.stack([self._shared(choice) for choice in choices])
        sums = shared.astype(float) @ self.newness.T
        found = []
        for row, choice in zip(sums, choices, strict=True):
            found.append(_ratio(float(row[self._untouched(choice)].sum()), self.count(choice)))
        return np.array(found, float)

    def flipped(
        self, choice: Sequence[int], flips: int, random: np.random.Generator
    ) -> FlippedSharing:
        """float64 [flip]: the excess with the signs of neurons' contributions turned at random."""
        shared = self._shared(choice).astype(float)
        whole = np.zeros(self.newness.shape[1])
        for i in self._untouched(choice):
            risk, stratum = self.strata[i]
            whole[risk] += (
                self.newness[i, risk] * _residual(shared[risk], stratum) * _spread(stratum)
            )
        whole = whole[whole != 0].astype(np.float32)
        sums = []
        for start in range(0, flips, FLIPS_AT_ONCE):
            shape = (min(FLIPS_AT_ONCE, flips - start), len(whole))
            signs = 2 * random.integers(0, 2, shape, np.int8) - 1
            sums += (signs.astype(np.float32) @ whole).tolist()
        return np.array([_ratio(one, self.count(choice)) for one in sums], float)


def _strata(before: np.ndarray, kind: FlatNeurons, new: RowMask) -> FlatNeurons:
    """int64 [neuron]: stratum by kind and probability before; -1 out of reach of any new pair."""
    if not new.any():
        return np.full(len(kind), -1)
    edges = np.quantile(before[new], np.linspace(0, 1, BINS + 1)[1:-1])
    place = kind * BINS + np.searchsorted(edges, before, side="right")
    return np.where(before >= before[new].min(), place, -1)


def _residual(values: np.ndarray, stratum: FlatNeurons) -> np.ndarray:
    """float64 [pair]: values less the mean of their stratum."""
    pairs = np.bincount(stratum)
    return values - (np.bincount(stratum, weights=values) / np.maximum(pairs, 1))[stratum]


def _spread(stratum: FlatNeurons) -> np.ndarray:
    """float64 [pair]: ``sqrt(m / (m - 1))`` for the m pairs of its stratum; 0 for one alone.

    With it the flipped sum has the variance of "new" permuted within strata.
    """
    pairs = np.bincount(stratum)[stratum]
    return np.sqrt(np.divide(pairs, pairs - 1, out=np.zeros(len(pairs)), where=pairs > 1))


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")
