"""Least-squares division of a sequence into segments, by exact dynamic programming.

The best division of n points into k segments minimises the squared distance of every point from the
mean of its segment (Bellman 1961). n is the number of layers here, so the O(k n^2) programme takes
less than a millisecond and no approximation is needed.
"""

from __future__ import annotations

import numpy as np

from lensneurons.shapes import LayerFeatures, SegmentCosts


def segment_costs(features: LayerFeatures) -> SegmentCosts:
    """float64 [first, last + 1]: squared distance of the points first..last from their mean."""
    n = len(features)
    total = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, axis=0)])
    square = np.concatenate([[0.0], np.cumsum(np.square(features).sum(axis=1))])
    first, stop = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    length = np.maximum(stop - first, 1)
    cost = square[stop] - square[first] - np.square(total[stop] - total[first]).sum(-1) / length
    return np.where(stop > first, np.maximum(cost, 0.0), np.inf)


def best_segments(features: LayerFeatures, number: int) -> tuple[list[int], float]:
    """The best division into `number` segments.

    Args:
        features: float64 [layer, feature].
        number: segments, at most the number of layers.

    Returns:
        The first point of each segment, and the squared distance that is left.

    >>> best_segments(np.array([[0.0], [0.1], [5.0], [5.1], [9.0]]), 3)[0]
    [0, 2, 4]
    """
    cost = segment_costs(features)
    n = len(features)
    best, choice = cost[0].copy(), []
    for _ in range(number - 1):
        through = best[:, None] + cost
        choice.append(through.argmin(axis=0))
        best = through.min(axis=0)
    starts, stop = [], n
    for table in reversed(choice):
        stop = int(table[stop])
        starts.append(stop)
    return [0, *reversed(starts)], float(best[n])


def explained(features: LayerFeatures, number: int) -> float:
    """Share of the variance that the best division into `number` segments explains, in [0, 1]."""
    whole = best_segments(features, 1)[1]
    return 1.0 - best_segments(features, number)[1] / whole if whole > 0 else 0.0
