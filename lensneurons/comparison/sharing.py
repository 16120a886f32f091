"""Do the neurons that an untouched language joins belong to the languages that were trained?

After training on some languages, others change too (arXiv 2505.21505, section 5.3). If they change
through the trained languages' neurons, an untouched language u should join those neurons more often
than others that it could have joined as well.

A *pair* (u, j) is an untouched language and a neuron whose p in u was at most tau before and which
exceeds tau, after, in M of the other languages, 1 <= M <= K - 2: if u joins, the neuron is newly
related to it. The pair is *new* if p in u exceeds tau after. Neuron j is *shared* if p exceeds tau
after in a trained language. Pairs are matched in strata s = (u, layer of j, M, p of j in u before),
the last in bins with as many new pairs each, at least ten. With m_s pairs, w_s of them new:

    newness   a_uj = 1[new] - w_s / m_s
    excess         = sum over pairs with a shared neuron of a_uj / number of informative new pairs
                   = share of informative new pairs that are shared, less the mean of that share
                     when "new" is permuted within every stratum

A pair is *informative* if its stratum holds new pairs and others, and shared neurons and others: in
any other stratum the share is what it is, whichever pairs are new. A pair alone in its stratum is
its own baseline. Where fewer than `FEWEST` new pairs are informative, nothing can be said.

Neurons of many languages are shared by definition, hence M. A language joins what it is close to,
such as the neurons of its kin, hence p before.

Two questions:

* *More often than other neurons within reach?* The excess.
* *More with the trained languages than with any others?* The contrast: the excess less its mean
  over all choices of as many languages from the candidates (all but the pivot and u).

What could have been otherwise is which pairs of a stratum are new. Pairs of one neuron go together,
so the error of either number is that of a sum over neurons whose signs are turned at random,
``sqrt(sum over neurons of the square of its contribution)``.

Simulated (tests/comparison/test_sharing.py), both are calibrated, also for kin and languages of
unequal size. Neurons that rise in *all* languages at once have an excess, but no contrast.

What this does not show: sharing is no cause. Ablate the trained languages' neurons for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from lensneurons.shapes import FlatNeurons, PairedRates, RowMask
from lensneurons.values.base import Value

MOST_BINS, PER_BIN = 20, 10  # bins of p before, and new pairs in each
FEWEST = 30  # informative new pairs
NAN = float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class Sharing(Value):
    """How often newly related neurons of untouched languages are shared with trained ones.

    Attributes:
        pairs: new pairs of an untouched language and a neuron.
        informative: those of them in whose stratum the share could have been another.
        share_of_all: share of all new pairs whose neuron is one of a trained language.
        share: the same of informative ones; NaN without any.
        excess: how far `share` exceeds that of matched pairs.
        error: standard error of the excess.
        neurons: how many contribute to it.
        contrast: the excess less its mean over all choices of as many languages.
        contrast_error: its standard error.
    """

    FILE_KIND = "sharing"

    pairs: int
    informative: int
    share_of_all: float
    share: float
    excess: float
    error: float
    neurons: int
    contrast: float
    contrast_error: float

    @property
    def baseline(self) -> float:
        """Share of matched pairs whose neuron is one of a trained language."""
        return self.share - self.excess

    @property
    def too_few(self) -> str:
        """Why nothing can be said of the excess; empty where enough pairs are informative."""
        if self.informative >= FEWEST:
            return ""
        told = f"too few: {self.informative} of {self.pairs} new pairs are informative, in strata "
        return f"{told}where they could differ; {FEWEST} are needed"


def measure_sharing(
    rates: PairedRates,
    layer: FlatNeurons,
    *,
    tau: float,
    candidates: Sequence[int],
    trained: Sequence[int],
) -> Sharing:
    """Sharing of newly related neurons, with its errors.

    Args:
        rates: float64 [model, language, neuron], activation probabilities before and after.
        layer: int64 [neuron].
        tau: the bar.
        candidates: numbers of the languages that could have been trained: all but the pivot.
        trained: numbers of those that were; at least one of the candidates was not.
    """
    after = rates[1] > tau
    shared = after[list(trained)].any(axis=0)
    owners = after[list(candidates)].sum(axis=0)
    n_neurons, pairs, both_of_all, informative, both = rates.shape[2], 0, 0, 0, 0
    sums, errors = np.zeros((2, n_neurons)), np.zeros((2, n_neurons))
    for language in candidates:
        if language in trained:
            continue
        pair, stratum = _strata(rates, layer, tau, language)
        new, of = after[language, pair], shared[pair]
        m, w, s = (
            np.bincount(stratum, weights=one)[stratum] for one in (np.ones(len(new)), new, of)
        )
        told = new & (w < m) & (s > 0) & (s < m)
        pairs, both_of_all = pairs + int(new.sum()), both_of_all + int((new & of).sum())
        informative, both = informative + int(told.sum()), both + int((told & of).sum())
        expected = _chance_of_sharing(
            owners[pair] - after[language, pair], len(candidates) - 1, len(trained)
        )
        newness = new - w / np.maximum(m, 1)
        # sqrt(m / (m - 1)) gives the sum the variance of "new" permuted within strata.
        spread = np.sqrt(np.divide(m, m - 1, out=np.zeros(len(m)), where=m > 1))
        for i, weight in enumerate((of.astype(float), of - expected)):
            own = newness * _residual(weight, stratum)
            sums[i, pair] += own
            errors[i, pair] += own * spread
    number = informative or NAN
    excess, contrast = (sums.sum(axis=1) / number).tolist()
    error, contrast_error = (np.square(errors).sum(axis=1) ** 0.5 / number).tolist()
    return Sharing(
        pairs=pairs,
        informative=informative,
        share_of_all=both_of_all / (pairs or NAN),
        share=both / number,
        excess=excess,
        error=error,
        neurons=int(np.count_nonzero(sums[0])),
        contrast=contrast,
        contrast_error=contrast_error,
    )


def _strata(
    rates: PairedRates, layer: FlatNeurons, tau: float, language: int
) -> tuple[RowMask, np.ndarray]:
    """The neurons that pair with a language, bool [neuron], and the strata of the pairs."""
    after = rates[1] > tau
    before, k = rates[0, language], len(after)
    others = after.sum(axis=0, dtype=np.int64) - after[language]
    pair = (before <= tau) & (others >= 1) & (others <= k - 2)
    new = pair & after[language]
    if not new.any():
        return np.zeros(len(pair), bool), np.zeros(0, np.int64)
    pair &= before >= before[new].min()  # the others are out of reach of any new pair
    bins = min(MOST_BINS, max(1, int(new.sum()) // PER_BIN))
    edges = np.quantile(before[new], np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, before[pair], side="right")
    return pair, (layer[pair] * k + others[pair]) * MOST_BINS + place


def _chance_of_sharing(owners: np.ndarray, among: int, chosen: int) -> np.ndarray:
    """Probability that a neuron of so many owners has one among languages chosen at random."""
    none = [comb(among - n, chosen) / comb(among, chosen) for n in range(among + 1)]
    return 1 - np.array(none)[owners]


def _residual(values: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """float64 [pair]: values less the mean of their stratum."""
    pairs = np.bincount(stratum)
    return values - (np.bincount(stratum, weights=values) / np.maximum(pairs, 1))[stratum]
