"""Least-squares segments against brute force over every division."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lensneurons.neurons.segments import best_segments, explained, segment_costs


def cost_of(features, starts):
    """Squared distance of every point from the mean of its segment."""
    edges = [0, *starts, len(features)]
    return sum(
        float(np.square(features[a:b] - features[a:b].mean(axis=0)).sum())
        for a, b in pairwise(edges)
    )


def brute_force(features, number):
    """The smallest cost, and every division that reaches it."""
    divisions = list(combinations(range(1, len(features)), number - 1))
    costs = [cost_of(features, division) for division in divisions]
    least = min(costs)
    return least, [[0, *d] for d, c in zip(divisions, costs, strict=True) if c <= least + 1e-9]


@st.composite
def features_of_layers(draw):
    """On a coarse grid, where divisions tie, or of random numbers, where one is the best."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 3)))
    if draw(st.booleans()):
        return np.random.default_rng(draw(st.integers(0, 10**6))).normal(size=shape)
    return draw(hnp.arrays(np.float64, shape, elements=st.integers(-4, 4).map(float)))


@settings(max_examples=150, deadline=None)
@given(features_of_layers(), st.integers(1, 5))
def test_the_best_division_is_the_best_of_all(features, number):
    number = min(number, len(features))
    least, divisions = brute_force(features, number)
    starts, cost = best_segments(features, number)
    assert cost == pytest.approx(least, abs=1e-9)
    assert starts in divisions


def test_costs_of_every_segment():
    features = np.random.default_rng(0).normal(size=(6, 2))
    costs = segment_costs(features)
    for first in range(6):
        for stop in range(7):
            if stop <= first:
                assert costs[first, stop] == np.inf
            else:
                assert costs[first, stop] == pytest.approx(cost_of(features[first:stop], ()))


def test_the_explained_share():
    assert explained(np.array([[0.0], [2.0], [10.0], [12.0]]), 2) == pytest.approx(1 - 4 / 104)
    assert [explained(np.ones((4, 2)), k) for k in (1, 2, 3)] == [0, 0, 0]
    features = np.random.default_rng(2).normal(size=(9, 3))
    shares = [explained(features, k) for k in range(1, 10)]
    assert shares == sorted(shares)
    assert (shares[0], shares[8]) == (0, pytest.approx(1))
