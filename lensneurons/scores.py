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

from lensneurons.shapes import NeuronMask, NeuronScores, Probabilities

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


def normalised_entropy(probability: Probabilities, languages: Sequence[str]) -> NeuronScores:
    """``H(p') / ln K`` of every neuron: 0 for one language, 1 where all are equal.

    A neuron that is never active has no distribution over languages; it gets the uniform one, so
    it is never taken for language-specific. Shares below 1e-12 count as 1e-12.

    Args:
        probability: float64 [layer, neuron, language].
        languages: names of the last axis, for an order-independent sum.
    """
    ordered = probability[..., np.argsort(languages)]
    total = ordered.sum(axis=-1, keepdims=True)
    uniform = 1.0 / len(languages)
    share = np.divide(ordered, total, out=np.full_like(ordered, uniform), where=total > 0)
    np.maximum(share, SMALLEST_SHARE, out=share)
    return -np.einsum("lnk,lnk->ln", share, np.log(share)) / math.log(len(languages))


def normalised_maximum(probability: Probabilities) -> NeuronScores:
    """``max_k p_k / (H_K / K)`` of every neuron."""
    return probability.max(axis=-1) / expected_largest_part(probability.shape[-1])


def percentile_bar(probability: Probabilities, percentile: float) -> float:
    """tau: the ``round(percentile * n)``-th smallest of all n probabilities (1-indexed)."""
    values = probability.ravel()
    place = min(max(round(percentile * values.size), 1), values.size) - 1
    return float(np.partition(values, place)[place])


def select_lowest(score: NeuronScores, number: int) -> NeuronMask:
    """bool [layer, neuron]: the `number` lowest scores; equal scores go by flat index."""
    flat = score.ravel()
    if number >= flat.size:
        return np.ones(score.shape, bool)
    bar = np.partition(flat, number - 1)[number - 1]
    selected = flat < bar
    ties = np.flatnonzero(flat == bar)[: number - int(selected.sum())]
    selected[ties] = True
    return selected.reshape(score.shape)
