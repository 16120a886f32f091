"""Intervals of shares and of their differences: by hand, at the edges, and their coverage."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from oracle import wilson_by_hand
from scipy import stats

from lensneurons.errors import LensNeuronsError
from lensneurons.uncertainty import paired
from lensneurons.uncertainty.paired import mean_change, paired_interval, wilson_interval


@pytest.mark.parametrize(("right", "n"), [(0, 50), (50, 50), (1, 7), (123, 250)])
def test_wilsons_interval(right, n):
    assert wilson_interval(right, n) == pytest.approx(wilson_by_hand(right, n), abs=1e-12)


def test_wilsons_interval_covers_what_it_says():
    """Shares of 5 to 95 % of 50 items: exact coverage over the binomial, not simulated."""
    from scipy.stats import binom

    intervals = np.array([wilson_interval(right, 50) for right in range(51)])
    covered = [
        binom.pmf(np.arange(51), 50, p)[(intervals[:, 0] <= p) & (p <= intervals[:, 1])].sum()
        for p in np.linspace(0.05, 0.95, 91)
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.9


def test_an_interval_is_not_empty_where_nothing_changed():
    low, high = paired_interval(np.ones(30, bool), np.ones(30, bool))
    assert -0.2 < low < -0.05
    assert 0.05 < high < 0.2


def test_intervals_turn_with_their_sides():
    random = np.random.default_rng(0)
    one, other = random.random(50) < 0.4, random.random(50) < 0.7
    low, high = paired_interval(one, other)
    back = paired_interval(other, one)
    assert np.allclose(back, (-high, -low))
    assert low < other.mean() - one.mean() < high


@pytest.mark.parametrize(
    ("n", "gain", "loss", "right"), [(20, 0.2, 0.05, 0.3), (60, 0.1, 0.1, 0.7)]
)
def test_intervals_cover_the_truth(n, gain, loss, right, monkeypatch):
    """Items that are right before with one chance, and change with two others."""
    monkeypatch.setattr(paired, "wilson_interval", lru_cache(wilson_interval))
    random = np.random.default_rng(1)
    truth, held, trials = (1 - right) * gain - right * loss, 0, 600
    for _ in range(trials):
        before = random.random(n) < right
        moved = random.random(n) < np.where(before, loss, gain)
        low, high = paired_interval(before, before ^ moved)
        held += low <= truth <= high
    assert 0.93 <= held / trials <= 0.995


def test_newcombes_published_example():
    """Newcombe 1998, table II, example (a): 36 both, 12 lost, 2 gained, 0 neither; d = .2, method
    10: .0569 to .3404 (before less after, so our ends are turned)."""
    before = np.repeat([True, True, False], [36, 12, 2])
    after = np.repeat([True, False, True], [36, 12, 2])
    low, high = paired_interval(after, before)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_a_mean_change_is_students_of_items_and_two_more():
    random = np.random.default_rng(2)
    change = random.choice([-1.0, 0, 0, 0, 1], size=(30, 3))
    found = mean_change(change)
    items = np.concatenate([change.mean(1), [3**-0.5, -(3**-0.5)]])
    told = stats.ttest_1samp(items, 0).confidence_interval(0.95)
    assert found.estimate == pytest.approx(change.mean())
    assert (found.low, found.high) == pytest.approx((told.low, told.high))
    still = mean_change(np.zeros((30, 3)))
    assert still.low < still.estimate == 0 < still.high


def test_every_language_weighs_the_same_however_many_items_it_has():
    change = np.array([[1, 0], [1, np.nan], [0, np.nan], [np.nan, 1], [0, 0], [0, 0]])
    found = mean_change(change)
    assert found.estimate == pytest.approx((2 / 5 + 1 / 4) / 2)
    # What an item adds to the error of the mean: its distance from the mean of its language.
    residuals = [(0.6 / 5 - 0.25 / 4), 0.6 / 5, -0.4 / 5, 0.75 / 4]
    residuals += [-0.4 / 5 - 0.25 / 4] * 2
    items = np.concatenate([found.estimate + 6 * np.array(residuals) / 2, [0.5**0.5, -(0.5**0.5)]])
    told = stats.ttest_1samp(items, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((told.low, told.high))


@pytest.mark.parametrize(("languages", "gain"), [(1, 0.02), (2, 0.02), (7, 0.1)])
def test_mean_changes_cover_the_truth_where_few_items_change(languages, gain):
    """Items share half of what decides whether they gain; a bootstrap covers 69 % of the first."""
    random, trials, held = np.random.default_rng(3), 500, 0
    bar = stats.norm.ppf(1 - gain)
    for _ in range(trials):
        drawn = random.normal(size=(50, languages)) + random.normal(size=(50, 1))
        found = mean_change((drawn / 2**0.5 > bar).astype(float))
        held += bool(found.low <= gain <= found.high)
    assert 0.93 <= held / trials


def test_a_level_is_between_0_and_1():
    for ask in (
        lambda: wilson_interval(1, 2, level=95.0),
        lambda: paired_interval(*[np.ones(3, bool)] * 2, level=1.0),
        lambda: mean_change(np.ones((3, 2)), level=0.0),
    ):
        with pytest.raises(LensNeuronsError, match="give a coverage between 0 and 1"):
            ask()
