"""METHOD.md section 2 once more, slowly: loops over neurons, exact fractions, no numpy tricks.

It shares no line with the package. Probabilities are a nested list ``p[layer][neuron][language]``;
everything is returned in plain Python. (`oracle.py` is the same for the counts of a model.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.values.provenance import Provenance

Shares = Sequence[float]
Line = tuple[Fraction, Fraction]


def neurons_of(p: Any) -> list[list[float]]:
    """The probabilities of every neuron, in order of the flat index."""
    return [list(neuron) for layer in p for neuron in layer]


def tau(p: Any, percentile: float) -> float:
    """The ``round(percentile * n)``-th smallest of all probabilities, counted from one."""
    values = sorted(value for neuron in neurons_of(p) for value in neuron)
    return values[max(1, round(percentile * len(values))) - 1]


def n_above(shares: Shares, bar: float) -> int:
    """N: in how many languages a neuron is above the bar."""
    return sum(1 for value in shares if value > bar)


def class_name(n: int, k: int) -> str:
    """The class of a neuron with N = n of k languages."""
    if n == 0:
        return "unclassified"
    if n == 1:
        return "specific"
    return "agnostic" if n == k else "related"


def entropy(shares: Shares) -> float:
    """``H(p') / ln K``; one for a neuron that never fires."""
    k, total = len(shares), math.fsum(shares)
    parts = [1 / k] * k if total == 0 else [max(float(value) / total, 1e-12) for value in shares]
    return -math.fsum(part * math.log(part) for part in parts) / math.log(k)


def maximum(shares: Shares) -> float:
    """``max_k p_k / (H_K / K)``."""
    k = len(shares)
    harmonic = sum(Fraction(1, i) for i in range(1, k + 1))
    return float(max(shares)) / float(harmonic / k)


def score(shares: Shares, weight: float) -> float:
    """The score of one neuron."""
    return entropy(shares) - weight * maximum(shares)


def lowest(values: Sequence[Any], number: int) -> set[int]:
    """Flat indices of the `number` smallest values; ties go by index."""
    return {i for _, i in sorted((value, i) for i, value in enumerate(values))[:number]}


def number_selected(p: Any, top_rate: float) -> int:
    """How many neurons are selected."""
    return max(1, round(len(neurons_of(p)) * top_rate))


def select_lape(p: Any, bar: float, top_rate: float) -> set[int]:
    """LAPE: neurons above the bar somewhere, then the lowest entropies."""
    shares = neurons_of(p)
    alive = [i for i, neuron in enumerate(shares) if n_above(neuron, bar)]
    values = [entropy(shares[i]) for i in alive]
    return {alive[i] for i in lowest(values, number_selected(p, top_rate))}


def is_clear_cut(values: Iterable[float], number: int) -> bool:
    """Whether rounding cannot decide which `number` values are the lowest."""
    ordered = sorted(values)
    return number >= len(ordered) or ordered[number] - ordered[number - 1] > 1e-9


def agnostic_is_selected(
    lines: Sequence[Line], agnostic: Sequence[bool], number: int, at: Fraction
) -> bool:
    """Whether the `number` lowest lines ``h - at * m`` hold a language-agnostic one."""
    chosen = lowest([h - at * m for h, m in lines], number)
    return any(agnostic[i] for i in chosen)


def feasible_stretches(
    lines: Sequence[Line], agnostic: Sequence[bool], number: int
) -> list[tuple[Fraction, Fraction | None]]:
    """The longest stretches of lambdas, of positive length, without a language-agnostic neuron.

    The order of the lines changes only where two of them cross, so one lambda between each pair of
    neighbouring crossings decides for all between them. The last stretch may have no end (None).
    """
    crossings = {(h1 - h2) / (m1 - m2) for (h1, m1), (h2, m2) in combinations(lines, 2) if m1 != m2}
    edges = [Fraction(0), *sorted(c for c in crossings if c > 0)]
    stretches: list[tuple[Fraction, Fraction | None]] = []
    for low, high in pairwise([*edges, None]):
        between = low + 1 if high is None else (low + high) / 2
        if agnostic_is_selected(lines, agnostic, number, between):
            continue
        if stretches and stretches[-1][1] == low:
            low = stretches.pop()[0]
        stretches.append((low, high))
    return stretches


def sets_of(
    p: Any, bar: float, chosen: Iterable[int], languages: Sequence[str]
) -> dict[str, tuple[set[int], set[int]]]:
    """``{language: (specific, related)}`` as sets of flat indices."""
    shares = neurons_of(p)
    found: dict[str, tuple[set[int], set[int]]] = {k: (set(), set()) for k in languages}
    for i in chosen:
        n = n_above(shares[i], bar)
        for language, value in zip(languages, shares[i], strict=True):
            if value > bar and n < len(languages):
                found[language][0 if n == 1 else 1].add(i)
    return found


def statistics_of(
    counts: Any, tokens: Sequence[int], languages: Sequence[str]
) -> ActivationStatistics:
    """Statistics of one group from counts [layer, neuron, language]."""
    return ActivationStatistics(
        languages=tuple(languages),
        grouped_counts=np.array(counts, np.int64)[None],
        grouped_tokens=np.array([tokens], np.int64),
        provenance=Provenance(model="oracle"),
    )
