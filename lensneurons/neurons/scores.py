"""How language-dependent a neuron is: one number a neuron, low where few languages use it.

With ``p' = p / sum_k p`` over K languages and ``H`` the entropy in nats, the score of
arXiv 2505.21505 (section 3.2), with its two terms in natural units, is

    score = H(p') / ln K  -  lambda * max_k p_k / (H_K / K)          H_K = 1 + 1/2 + ... + 1/K

``H_K / K`` is the expected largest part of a random division into K parts. The printed equation has
no normalisers: ``lambda_paper = lambda * ln K / (H_K / K)``. LAPE (arXiv 2402.16438, equation 5) is
the first term alone.

All sums run over the languages in alphabetical order, so the order in which a corpus names them
cannot change a bit of the result. Nothing here copies the probabilities: neurons are scored a block
at a time, and the bar is found between two numbers of a sample. The probabilities of 100 languages
in 80 layers of 28,672 neurons are 1.8 GB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lensneurons.shapes import NeuronMask, NeuronNumbers, NeuronScores, Probabilities

# float64, or float32 where `lambda_search.floor_lambda` asks what float32 code would select
LanguageRows = Float[np.ndarray, "language layer neuron"]
LanguageScores = Float[np.ndarray, "layer neuron"]
SMALLEST_SHARE = 1e-12
# Neurons that are scored together: 64 kB a language, which caches hold. A number of probabilities
# instead would make the steps of a block grow with the square of the languages.
NEURONS = 2**13
BLOCK = 2**17  # probabilities that are counted together: 1 MB
FEW = 2**20  # probabilities that are sorted as they are: 8 MB
_SAMPLE = 2**16


class Terms(NamedTuple):
    """The two terms of the score, of every neuron.

    Attributes:
        entropy: [layer, neuron], the score at lambda 0.
        maximum: [layer, neuron], what lambda multiplies.
    """

    entropy: LanguageScores
    maximum: LanguageScores


@cache
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


def score_terms(
    probability: Probabilities, languages: Sequence[str], *formats: Any
) -> tuple[Terms, ...]:
    """Both terms of the score of every neuron, a block of neurons at a time.

    Args:
        probability: float64 [layer, neuron, language].
        languages: their codes.
        formats: number formats to compute in, such as ``np.float64``; each gives its own terms.
    """
    shape = probability.shape[:2]
    terms = tuple(Terms(np.empty(shape, number), np.empty(shape, number)) for number in formats)
    for at, block in _blocks(probability):
        rows = language_rows(block, languages)
        for number, found in zip(formats, terms, strict=True):
            own = rows.astype(number, copy=False)
            found.entropy[at], found.maximum[at] = normalised_entropy(own), normalised_maximum(own)
    return terms


def count_above(probability: Probabilities, bar: float) -> NeuronNumbers:
    """N: in how many languages each neuron's probability exceeds the bar, int64 [layer, neuron]."""
    found = np.empty(probability.shape[:2], np.int64)
    for at, block in _blocks(probability):
        found[at] = np.count_nonzero(block > bar, axis=-1)
    return found


def _blocks(probability: Probabilities) -> Iterator[tuple[Any, Probabilities]]:
    """Some neurons of one layer after others: where they are, and [1, neuron, language] of them."""
    layers, width, _ = probability.shape
    for layer in range(layers):
        for first in range(0, width, NEURONS):
            at = np.s_[layer : layer + 1, first : first + NEURONS]
            yield at, probability[at]


def normalised_entropy(rows: LanguageRows) -> LanguageScores:
    """``H(p') / ln K`` of every neuron: 0 for one language, 1 where all are equal.

    A neuron that is never active has no distribution over languages; it gets the uniform one, so
    it is never taken for language-specific. Shares below 1e-12 count as 1e-12.
    """
    total = rows[0].copy()
    for row in rows[
        1:
    ]:  # one after another, whatever the shape: numpy adds single neurons in pairs
        total += row
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
    """tau: the ``round(percentile * n)``-th smallest of all n probabilities (1-indexed).

    Exactly that number, without a sorted copy: a sample tells between which two numbers it must
    lie, one look at all counts those below and keeps those between, and these are sorted. Where
    the sample was wrong, which the counts tell, the two are taken further apart.
    """
    values = probability.reshape(-1)
    place = min(max(round(percentile * values.size), 1), values.size) - 1
    if values.size <= FEW:
        return float(np.partition(values, place)[place])
    sample = np.sort(values[np.random.default_rng(0).integers(0, values.size, _SAMPLE)])
    share, spreads = place / values.size, 4
    while True:
        apart = spreads * (math.sqrt(_SAMPLE * share * (1 - share)) + 1)
        first, last = math.floor(share * _SAMPLE - apart), math.ceil(share * _SAMPLE + apart)
        low = sample[first] if first >= 0 else -np.inf
        high = sample[last] if last < _SAMPLE else np.inf
        found = _within(values, place, low, high)
        if found is not None:
            return found
        spreads *= 4


def _within(
    values: Float[np.ndarray, " value"], place: int, low: float, high: float
) -> float | None:
    """The number at a place in the order of all, if it lies from `low` to `high`."""
    below, ends, between = 0, np.zeros(2, np.int64), []
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK]
        below += np.count_nonzero(block < low)
        ends += np.count_nonzero(block == low), np.count_nonzero(block == high)
        between.append(block[(block > low) & (block < high)])
    inside = np.concatenate(between)
    left = place - below
    if left < 0:
        return None
    if left < ends[0]:
        return float(low)
    left -= ends[0]
    if left < len(inside):
        return float(np.partition(inside, left)[left])
    return float(high) if left - len(inside) < ends[1] else None


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
