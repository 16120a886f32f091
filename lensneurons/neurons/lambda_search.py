"""The largest lambda that selects no language-agnostic neuron, found exactly.

The score of a neuron, ``h - lambda * m``, is a straight line in lambda, and the selection takes the
n lowest lines. No language-agnostic neuron is selected exactly where at least n other lines lie
below the lowest language-agnostic one. That lowest one is the lower envelope of the
language-agnostic lines: a chain of a few segments. Along one segment every other line crosses it
at most once, so sorting the crossings counts the lines below it everywhere at once. The published
search instead tries eleven values of lambda, looping over all neurons for each.

The values for which the condition holds need not form one interval; the largest of all is taken.
Where arbitrarily large lambdas satisfy it, nothing bounds lambda, and the upper end of the authors'
search, 0.2, is taken (or the largest value below it for which the condition holds).

The supremum is a knife edge: there the lowest language-agnostic score ties with a selected one, and
only rounding tells them apart. The published code computes in float32, and selects one
language-agnostic neuron at the float64 supremum of two of three published sets. In planted
worlds float32 does so in 23 of 40. So `floor_lambda` gives it once more, rounded down at six
digits after the point, and checks that no such neuron is selected there in float64 or float32
(rounding alone leaves 3 of the 40; there it goes a step lower). Quote that value to others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lensneurons.errors import IdentificationError
from lensneurons.neurons.scores import Terms, select_lowest
from lensneurons.shapes import NeuronMask, NeuronScores

AUTHORS_UPPER_END = 0.2
DIGITS = 6
_STEPS = 100  # how many steps of the last digit down are tried: 0.0001 in all
Origin = Literal["exact", "unbounded", "given", "none"]


@dataclass(frozen=True)
class Segment:
    """One piece of the lower envelope of the language-agnostic lines.

    Attributes:
        neuron: flat index of the language-agnostic neuron that is lowest there.
        start: lambda at which it becomes the lowest.
        stop: lambda at which another one does, or infinity.
    """

    neuron: int
    start: float
    stop: float


def largest_lambda(
    entropy: NeuronScores, maximum: NeuronScores, agnostic: NeuronMask, number: int
) -> tuple[float, Origin]:
    """The largest lambda for which none of the `number` lowest scores is language-agnostic.

    Args:
        entropy: float64 [layer, neuron], ``h``: the score at lambda 0.
        maximum: float64 [layer, neuron], ``m``: what lambda multiplies.
        agnostic: bool [layer, neuron].
        number: how many neurons are selected.

    Returns:
        Lambda, and ``"exact"`` where a language-agnostic neuron bounds it, ``"unbounded"`` where
        none does and 0.2 stands in.

    Raises:
        IdentificationError: every lambda, or every one up to 0.2 where nothing bounds it, selects a
            language-agnostic neuron.
    """
    if not agnostic.any():
        return AUTHORS_UPPER_END, "unbounded"
    h, m, masked = entropy.ravel(), maximum.ravel(), agnostic.ravel()
    envelope = lower_envelope(h, m, np.flatnonzero(masked))
    others_h, others_m = h[~masked], m[~masked]
    last = envelope[-1].neuron
    below = (others_m > m[last]) | ((others_m == m[last]) & (others_h < h[last]))
    unbounded = np.count_nonzero(below) >= number
    upper = AUTHORS_UPPER_END if unbounded else np.inf
    for segment in reversed(envelope):
        if segment.start < upper:
            height, slope = others_h - h[segment.neuron], others_m - m[segment.neuron]
            stop = min(segment.stop, upper)
            found = _last_feasible(height, slope, segment.start, stop, number)
            if found is not None:
                exact = _largest_float(entropy, maximum, agnostic, number, found)
                return exact, "unbounded" if unbounded else "exact"
    tried = f"every lambda up to {AUTHORS_UPPER_END}" if unbounded else "every lambda"
    raise IdentificationError(
        f"{tried} selects a language-agnostic neuron among the {number} lowest scores: "
        "lower top_rate, raise tau, or give lambda_ a value"
    )


def floor_lambda(
    exact: float, terms: Sequence[Terms], agnostic: NeuronMask, number: int
) -> float | None:
    """The largest number of six digits, up to lambda, that float32 code can use as well.

    Args:
        exact: what `largest_lambda` gave.
        terms: both terms of the score in float64, and the same in float32.
        agnostic: bool [layer, neuron].
        number: how many neurons are selected.

    Returns:
        Lambda rounded down at six digits after the point; lower by as many steps of 0.000001 as it
        takes until no language-agnostic neuron is among the lowest scores, or ties with one, in
        float64 and in float32. None where a hundred steps do not suffice, as for lines so parallel
        that float32 cannot tell them apart.
    """
    for step in range(_STEPS):
        tried = (math.floor(exact * 10**DIGITS) - step) / 10**DIGITS
        if tried < 0:
            return None
        scores = [entropy - entropy.dtype.type(tried) * maximum for entropy, maximum in terms]
        if all(_selects_none(score, agnostic, number) for score in scores):
            return tried
    return None


def _selects_none(score: np.ndarray, agnostic: NeuronMask, number: int) -> bool:
    """Whether every language-agnostic score lies above the `number` lowest of all."""
    lowest = score[agnostic].min(initial=np.inf)
    return bool(np.count_nonzero(score[~agnostic] < lowest) >= number)


def lower_envelope(h: np.ndarray, m: np.ndarray, members: np.ndarray) -> list[Segment]:
    """The lowest of the lines ``h - lambda * m`` for lambda from 0 on, as segments in order.

    Args:
        h: float64 [neurons], values at 0.
        m: float64 [neurons], minus the slopes.
        members: flat indices of the lines that take part.
    """
    current = int(members[np.lexsort((members, -m[members], h[members]))[0]])
    start, segments = 0.0, []
    while True:
        steeper = members[m[members] > m[current]]
        if len(steeper) == 0:
            return [*segments, Segment(current, start, np.inf)]
        crossing = (h[steeper] - h[current]) / (m[steeper] - m[current])
        following = int(steeper[np.lexsort((steeper, -m[steeper], crossing))[0]])
        stop = max(start, float(crossing.min()))
        segments.append(Segment(current, start, stop))
        current, start = following, stop


def _last_feasible(
    height: np.ndarray, slope: np.ndarray, start: float, stop: float, number: int
) -> float | None:
    """Where the last stretch between start and stop ends that has `number` lines below 0."""
    at_start = height - start * slope
    at_stop = height - stop * slope if np.isfinite(stop) else np.where(slope == 0, height, -slope)
    below = (at_start < 0) | ((at_start == 0) & (slope > 0))
    crossers = np.flatnonzero(below != (at_stop < 0))
    events = height[crossers] / slope[crossers]
    order = np.argsort(events, kind="stable")
    change = np.where(slope[crossers] > 0, 1, -1)[order]
    counts = np.count_nonzero(below) + np.concatenate([[0], np.cumsum(change)])
    edges = np.concatenate([[start], events[order].clip(start, stop), [stop]])
    feasible = np.flatnonzero((counts >= number) & (edges[1:] > edges[:-1]))
    return float(edges[feasible[-1] + 1]) if len(feasible) else None


def _largest_float(
    entropy: NeuronScores, maximum: NeuronScores, agnostic: NeuronMask, number: int, found: float
) -> float:
    """The supremum rounded down to a float at which the selection itself has no agnostic neuron.

    One spacing of floats is enough, except where the scores are nearly parallel lines.
    """
    step = 0.0
    while (select_lowest(entropy - (found - step) * maximum, number) & agnostic).any():
        step = max(2 * step, float(np.spacing(found)))
        if step > found:
            raise IdentificationError(
                f"scores around lambda {found} are too close for float64: give lambda_ a value"
            )
    return found - step
