"""Cut a sequence of layers into segments, and test how many segments there are.

`best_segments` minimises the squared distance of every layer from the mean of its segment. A
further segment always fits better, so the number of segments needs a test. `segment_tests` draws
profiles in which there is nothing to find, and counts how often four segments gain as much on them:

    fewer   the best three segments, plus normal noise with the spread of what they leave
    trend   the best cubic of each column over depth, plus such noise

    gain = squared distance that the null leaves / squared distance that four segments leave

A rising, a falling and a U-shaped curve reject "fewer" nearly always, because steps fit no slope;
"trend" is the null that they do not reject. Evidence for four segments is a small p of both.

>>> best_segments(np.array([[0.0], [0.1], [5.0], [5.1], [9.0]]), 3)[0]
[0, 2, 4]

What this does not show: that the layers are constant within a segment. A curve with more than two
turns rejects both nulls as well as steps do, and so does a steep step between two levels
(tests/simulations/four_parts.py has the shares).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

LayerFeatures = Float64[np.ndarray, "layer feature"]
DrawnFeatures = Float64[np.ndarray, "draw layer feature"]
TREND = 3  # degree of the curves that are no parts


def segment_costs(features: LayerFeatures) -> Float64[np.ndarray, "first stop"]:
    """float64 [first, last + 1]: squared distance of the points first..last from their mean."""
    return _costs(features[None])[0]


def _costs(features: DrawnFeatures) -> Float64[np.ndarray, "draw first stop"]:
    draws, n, columns = features.shape
    total, square = np.zeros((draws, n + 1, columns)), np.zeros((draws, n + 1))
    np.cumsum(features, axis=1, out=total[:, 1:])
    np.cumsum(np.square(features).sum(axis=2), axis=1, out=square[:, 1:])
    first, stop = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    of_mean = np.zeros((draws, n + 1, n + 1))
    for column in range(columns):  # one at a time, to keep memory small
        of_mean += np.square(total[:, stop, column] - total[:, first, column])
    cost = square[:, stop] - square[:, first] - of_mean / np.maximum(stop - first, 1)
    return np.where(stop > first, np.maximum(cost, 0.0), np.inf)


def best_segments(features: LayerFeatures, number: int) -> tuple[list[int], float]:
    """The best division into `number` segments, by exact dynamic programming (Bellman 1961).

    It minimises the squared distance of every layer from the mean of its segment, in O(k n^2).

    Args:
        features: float64 [layer, feature].
        number: segments, at most the number of layers.

    Returns:
        The first point of each segment, and the squared distance that is left.
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


def segment_tests(features: LayerFeatures, *, draws: int, seed: int) -> tuple[float, float]:
    """How well three segments, and how well smooth trends, explain what four segments explain.

    Args:
        features: float64 [layer, feature], at least five layers.
        draws: profiles that are drawn from each null.
        seed: the same seed gives the same shares.

    Returns:
        p of "three segments are enough" and p of "a cubic trend is enough": the share of drawn
        profiles, counting the real one, on which four segments gain as much.
    """
    n = len(features)
    starts = [*best_segments(features, 3)[0], n]
    lengths = np.diff(starts)
    steps = np.repeat([part.mean(axis=0) for part in np.split(features, starts[1:-1])], lengths, 0)
    basis = np.linalg.qr(np.vander(np.linspace(-1, 1, n), TREND + 1))[0]
    random = np.random.default_rng(seed)

    def beyond_steps(drawn: DrawnFeatures) -> Float64[np.ndarray, " draw"]:
        three, four = _left(drawn)
        return three / np.maximum(four, 1e-12)

    def beyond_trend(drawn: DrawnFeatures) -> Float64[np.ndarray, " draw"]:
        rest = drawn - basis @ (basis.T @ drawn)
        return np.square(rest).sum(axis=(1, 2)) / np.maximum(_left(drawn)[1], 1e-12)

    shares = []
    for fitted, gain, used in ((steps, beyond_steps, 3), (basis @ (basis.T @ features),
                               beyond_trend, TREND + 1)):  # fmt: skip
        spread = np.sqrt(np.square(features - fitted).sum(axis=0) / (n - used))
        null = gain(fitted + spread * random.normal(size=(draws, *features.shape)))
        real = gain(features[None])[0]
        shares.append(float((1 + np.sum(null >= real - 1e-9)) / (1 + draws)))
    return shares[0], shares[1]


def _left(drawn: DrawnFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances that the best three and the best four segments leave, float64 [draw]."""
    cost = _costs(drawn)
    best, left = cost[:, 0], []
    for _ in range(3):
        best = (best[:, :, None] + cost).min(axis=1)
        left.append(best[:, -1])
    return left[1], left[2]
