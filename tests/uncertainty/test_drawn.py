"""Student's interval from draws, the least of several numbers, Holm; and why no jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import t as student_t

from lensneurons.errors import LensNeuronsError
from lensneurons.uncertainty.drawn import (
    degrees_of,
    drawn_error,
    holm,
    student,
    student_of_least,
)
from lensneurons.uncertainty.groups import group_weights, jackknife_interval


def test_number_interval_and_p_are_one_statistic() -> None:
    estimate, error = np.array([3.0, -2.0, 0.5, 0.0, 4.0]), np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    found = student(estimate, error, 18, level=0.9)
    reach = student_t.ppf(0.95, 18)
    assert found.low == pytest.approx(estimate - reach * error)
    assert found.high == pytest.approx(estimate + reach * error)
    assert found.p[:3] == pytest.approx(2 * student_t.sf(np.abs(estimate[:3]), 18))
    assert found.p[3:].tolist() == [1.0, 0.0]
    for level in (0.5, 0.9, 0.95, 0.99):
        one = student(estimate, error, 18, level=level)
        holds_zero = (one.low <= 0) & (one.high >= 0)
        assert (holds_zero == (one.p > 1 - level)).all()
    with pytest.raises(LensNeuronsError, match=r"level=95.0: give a coverage between 0 and 1"):
        student(estimate, error, 18, level=95.0)
    unknown = student(estimate, np.full(5, np.nan), 0)
    assert np.isnan([unknown.low, unknown.high, unknown.p]).all()


def test_the_least_is_as_sure_as_the_weakest() -> None:
    estimate, error = np.array([3.0, 9.0, 5.0]), np.array([1.0, 6.0, 1.0])
    each, least = student(estimate, error, 18), student_of_least(estimate, error, 18)
    assert (least.estimate, least.low) == (3.0, each.low.min())
    assert least.low == each.low[1]
    assert least.high == pytest.approx(3 + student_t.ppf(1 - 0.025 / 3, 18))  # Bonferroni
    assert least.p == pytest.approx(each.p[1])
    below = student_of_least(np.array([-4.0, 9.0, 5.0]), error, 18)
    assert below.p == pytest.approx(3 * 2 * student_t.sf(4, 18))
    assert student_of_least(np.zeros(2), np.zeros(2), 18).p == 1.0
    one = student_of_least(np.array([2.0]), np.array([1.0]), 18)
    assert one.p == pytest.approx(student(np.array(2.0), np.array(1.0), 18).p)


def test_the_least_is_seldom_called_positive_where_one_is_not() -> None:
    random = np.random.default_rng(0)
    worlds = random.normal([0.0, 20.0, 20.0], 1, (2000, 3))
    found = [student_of_least(one, np.ones(3), 1000) for one in worlds]
    assert np.mean([one.low > 0 for one in found]) == pytest.approx(0.025, abs=0.012)
    assert np.mean([one.p <= 0.05 for one in found]) <= 0.06


def test_holm_by_hand() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    adjusted = holm(p)
    assert adjusted[[0, 2, 3, 4]] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(adjusted[1])
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
    assert len(holm(np.zeros(0))) == 0


def test_holm_keeps_the_error_of_the_family() -> None:
    """Twenty tests that go together, of nothing: one or more is small in at most 5 %."""
    random = np.random.default_rng(1)
    common = random.normal(0, 1, (2000, 1))
    p = 2 * student_t.sf(np.abs(0.5**0.5 * (common + random.normal(0, 1, (2000, 20)))), 1e6)
    assert np.mean([(one <= 0.05).any() for one in p]) > 0.3
    assert np.mean([(holm(one) <= 0.05).any() for one in p]) <= 0.05


def counts_above(
    random: np.random.Generator, together: float, worlds: int, neurons: int = 600
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neurons above a bar in ten groups: how far their number is off, and its errors by draws and
    by jackknife.

    `together` is the standard deviation of what moves all neurons in a group. The truth is the mean
    number over corpora of this size.
    """
    found = []
    for seed in range(worlds):
        weights = np.array([*group_weights(10, 100, seed)]) / 10
        truth = random.uniform(-1, 1, neurons)
        groups = truth + random.normal(0, 0.5, (10, neurons)) + random.normal(0, together, (10, 1))
        drawn = (weights @ groups > 0).sum(axis=1)
        left_out = np.array([(np.delete(groups, i, 0).mean(0) > 0).sum() for i in range(10)])
        number = (groups.mean(axis=0) > 0).sum()
        wide = jackknife_interval(float(number), left_out, level=0.95)
        reach = float(wide.high - wide.low) / 2 / student_t.ppf(0.975, 9)
        mean = ndtr(truth / ((0.25 + together**2) / 10) ** 0.5).sum()
        found.append((number - mean, drawn_error(drawn, 10), reach))
    return tuple(np.array(found).T)


@pytest.mark.parametrize("together", [0.0, 0.1, 0.4])
def test_intervals_of_counts_hold_the_truth(together: float) -> None:
    """Neurons that move alone, or all together: 93 to 97 %, up to the error of 250 corpora."""
    random = np.random.default_rng(2)
    off, error, wide = counts_above(random, together, 250)
    held = np.mean(np.abs(off) <= student_t.ppf(0.975, degrees_of(10)) * error)
    assert 0.93 - 0.03 <= held <= 0.97 + 0.025
    if not together:
        assert np.mean(wide) / np.std(off) == pytest.approx(1.75, abs=0.25)  # the jackknife
        assert np.mean(error) / np.std(off) == pytest.approx(1.0, abs=0.13)
