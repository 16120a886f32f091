"""How language-dependent a neuron is: one number a neuron, low where few languages use it.

With ``p' = p / sum_k p`` over K languages and ``H`` the entropy in nats, the score of
arXiv 2505.21505 (section 3.2), with its two terms in natural units, is

    score = H(p') / ln K  -  lambda * max_k p_k / (H_K / K)          H_K = 1 + 1/2 + ... + 1/K

``H_K / K`` is the expected largest part of a random division into K parts. The printed equation has
no normalisers: ``lambda_paper = lambda * ln K / (H_K / K)``. LAPE (arXiv 2402.16438, equation 5) is
the first term alone.

All sums run over the languages in alphabetical order, so the order in which a corpus names them
cannot change a bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lensneurons.shapes import NeuronMask, NeuronNumbers, NeuronScores, Probabilities

# float64, or float32 where `lambda_search.floor_lambda` asks what float32 code would select
LanguageRows = Float[np.ndarray, "language layer neuron"]
LanguageScores = Float[np.ndarray, "layer neuron"]
SMALLEST_SHARE = 1e-12


def expected_largest_part(n_languages: int) -> float:
    """``H_K / K``, the expected largest part of a random division into K parts.

    >>> round(expected_largest_part(10), 4)
    0.2929
    """
    return math.fsum(1 / i for i in range(1, n_languages + 1)) / n_languages


def lambda_of_paper(lambda_: float, n_languages: int) -> float:
    """The weight that the printed equation, without normalisers, needs for the same selection.

    >>> round(lambda_of_paper(0.109375, 10), 4)
    0.8598
    """
    return lambda_ * math.log(n_languages) / expected_largest_part(n_languages)


def language_rows(probability: Probabilities, languages: Sequence[str]) -> LanguageRows:
    """The probabilities as float64 [language, layer, neuron], languages in alphabetical order.

    Sums over the first axis of a contiguous array run ten times faster than over the last, and
    always in the same order.
    """
    return np.ascontiguousarray(np.moveaxis(probability, -1, 0)[np.argsort(languages)])


def normalised_entropy(rows: LanguageRows) -> LanguageScores:
    """``H(p') / ln K`` of every neuron: 0 for one language, 1 where all are equal.

    A neuron that is never active has no distribution over languages; it gets the uniform one, so
    it is never taken for language-specific. Shares below 1e-12 count as 1e-12.
    """
    total = rows.sum(axis=0)
    silent = total == 0
    total[silent] = 1.0
    entropy = np.zeros_like(total)
    for row in rows:
        share = row / total
        share[silent] = 1.0 / len(rows)
        np.maximum(share, SMALLEST_SHARE, out=share)
        entropy -= share * np.log(share)
    return entropy / math.log(len(rows))


def normalised_maximum(rows: LanguageRows) -> LanguageScores:
    """``max_k p_k / (H_K / K)`` of every neuron."""
    return rows.max(axis=0) / expected_largest_part(len(rows))


def languages_above(rows: LanguageRows, bar: float) -> NeuronNumbers:
    """N: in how many languages each neuron's probability exceeds the bar."""
    return (rows > bar).sum(axis=0, dtype=np.int64)


def percentile_bar(probability: Probabilities, percentile: float) -> float:
    """tau: the ``round(percentile * n)``-th smallest of all n probabilities (1-indexed)."""
    values = probability.ravel()
    place = min(max(round(percentile * values.size), 1), values.size) - 1
    return float(np.partition(values, place)[place])


def select_lowest(score: NeuronScores, number: int) -> NeuronMask:
    """Bool [layer, neuron]: the `number` lowest scores; equal scores go by flat index."""
    flat = score.ravel()
    if not 0 < number < flat.size:
        return np.full(score.shape, number > 0)
    bar = np.partition(flat, number - 1)[number - 1]
    selected = flat < bar
    ties = np.flatnonzero(flat == bar)[: number - int(selected.sum())]
    selected[ties] = True
    return selected.reshape(score.shape)
