"""Student, Fieller, placebo and Holm: against scipy, by hand, and where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lensneurons.errors import LensNeuronsError
from lensneurons.uncertainty.contrasts import (
    fieller_interval,
    holm,
    placebo_p,
    skewed_interval,
    standard_error,
    student_interval,
    student_p,
    wider,
)
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws


def means(values):
    """Estimate and residuals of means over items [item, ...]."""
    return values.mean(0), (values - values.mean(0)) / len(values)


def test_a_plain_mean_has_the_interval_and_p_of_a_t_test():
    values = np.random.default_rng(0).gamma(2, 1, (12, 3)) - 1.5
    found, told = student_interval(*means(values), level=0.9), stats.ttest_1samp(values, 0)
    ends = told.confidence_interval(0.9)
    assert np.stack([found.low, found.high]) == pytest.approx(np.stack(ends))
    assert student_p(*means(values)) == pytest.approx(told.pvalue)
    assert (found.level, found.method) == (0.9, "Student's t over items")


def test_residuals_are_those_of_a_ratio_of_sums():
    """Ragged items; residuals sum to 0 and agree with what leaving an item out does."""
    random = np.random.default_rng(1)
    ids, language = tuple(f"i{i % 40}" for i in range(119)), np.arange(119) // 40
    values, weights = random.gamma(2, 9, (2, 119)), random.integers(5, 90, 119).astype(float)
    corpora = ItemDraws(ids, language)
    found = corpora.residuals(values, weights)
    assert found.shape == (40, 2, 3)
    assert found.sum(0) == pytest.approx(np.zeros((2, 3)), abs=1e-12)
    assert (found[39, :, 2] == 0).all()  # the item that language 2 lacks
    for item in range(5):
        kept = np.array([one != f"i{item}" for one in ids])
        for k in range(3):
            here, rest = language == k, kept & (language == k)
            whole = values[:, here].sum(1) / weights[here].sum()
            left = values[:, rest].sum(1) / weights[rest].sum()
            scale = weights[here].sum() / weights[rest].sum()
            assert whole - left == pytest.approx(found[item, :, k] * scale)
    drawn = corpora.means(values, weights).std(0)
    assert standard_error(found) == pytest.approx(drawn, rel=0.1)


def test_the_skewed_interval_turns_halls_polynomial_back():
    """At the ends t + g t^2 / (3 sqrt n) + g^2 t^3 / (27 n) + g / (6 sqrt n) is Student's."""
    values, n = np.random.default_rng(2).gamma(1, 1, 14), 14
    middle, residuals = means(values)
    found = skewed_interval(middle, residuals, level=0.9)
    g = stats.skew(values, bias=False)
    for end, expected in ((found.low, 1), (found.high, -1)):
        t = (middle - end) / standard_error(residuals)
        turned = t + g * t**2 / (3 * n**0.5) + g**2 * t**3 / (27 * n) + g / (6 * n**0.5)
        assert turned == pytest.approx(expected * stats.t.ppf(0.95, n - 1))
    plain = student_interval(middle, residuals, level=0.9)
    assert found.high > plain.high  # the long tail is above
    even = means(np.array([-2.0, -1, 0, 1, 2]))
    ends = [
        [*map(float, (x.low, x.high))] for x in (skewed_interval(*even), student_interval(*even))
    ]
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)
    still = skewed_interval(np.asarray(0.3), np.zeros(8))
    assert (still.low, still.high) == (0.3, 0.3)


def test_two_more_items_are_counted_for_shares():
    """Bonett and Price: (gained - lost) / (n + 2), from n + 2 items, two of which changed."""
    changes = np.repeat([1.0, -1.0, 0.0], [6, 1, 23])
    padded = np.concatenate([changes, [1, -1]])
    told = stats.ttest_1samp(padded, 0)
    found = student_interval(*means(changes), added=1.0)
    assert [found.low, found.high] == pytest.approx([*told.confidence_interval(0.95)])
    assert found.estimate == pytest.approx(5 / 30)
    assert student_p(*means(changes), added=1.0) == pytest.approx(told.pvalue)
    still = student_interval(*means(np.zeros((20, 2))), added=1.0)
    assert (still.low < -0.1).all()
    assert still.high == pytest.approx(-still.low)


@pytest.mark.parametrize(
    ("n", "gained", "lost"), [(20, 5, 0), (50, 9, 2), (250, 16, 2), (250, 8, 8)]
)
def test_p_of_shares_is_near_mcnemars(n, gained, lost):
    changes = np.repeat([1.0, -1.0, 0.0], [gained, lost, n - gained - lost])
    exact = stats.binomtest(gained, gained + lost).pvalue
    assert student_p(*means(changes), added=1.0) == pytest.approx(exact, rel=0.35)


def test_no_p_where_nothing_was_removed():
    assert np.isnan(student_p(*means(np.zeros((9, 2))))).all()
    assert student_p(*means(np.zeros(9)), added=1.0) == pytest.approx(1)


def test_fieller_solves_its_equation():
    """At an end r, part - r whole is t standard errors from 0."""
    random = np.random.default_rng(3)
    values = random.gamma(4, 1, (15, 2)) * [3, 1] + random.gamma(2, 1, (15, 1))
    (part, whole), residuals = means(values)
    found = fieller_interval(part, whole, residuals[:, 0], residuals[:, 1], level=0.9)
    assert found.low < found.estimate == part / whole < found.high
    for end in (found.low, found.high):
        error = standard_error(residuals[:, 0] - end * residuals[:, 1])
        assert abs(part - end * whole) == pytest.approx(stats.t.ppf(0.95, 14) * error)


def test_a_ratio_without_a_clear_denominator_is_not_given():
    random = np.random.default_rng(4)
    values = random.normal(size=(20, 3)) + [5, 0.1, 5]
    middle, residuals = means(values)
    found = fieller_interval(middle[0], middle[1:], residuals[:, [0]], residuals[:, 1:])
    for one in (found.estimate, found.low, found.high):
        assert np.isnan(one).tolist() == [True, False]
    nothing = fieller_interval(middle[0], np.zeros(()), residuals[:, 0], np.zeros(20))
    assert np.isnan(nothing.estimate)


def test_holm_is_the_step_down_of_bonferroni():
    """By hand: .01 x 4, .02 x 3, then the largest so far; NaN does not count."""
    found = holm(np.array([[0.02, np.nan, 0.01], [0.5, 0.021, np.nan]]))
    np.testing.assert_allclose(found, [[0.06, np.nan, 0.04], [0.5, 0.06, np.nan]])
    assert np.isnan(holm(np.array([np.nan]))).all()
    assert holm(np.zeros((0, 3))).shape == (0, 3)


def test_holm_marks_nothing_in_95_of_100_families_without_effects():
    """2,000 families of 60 independent p-values, a third of which have an effect."""
    random = np.random.default_rng(5)
    z = random.normal(size=(2000, 60))
    z[:, 40:] += 5
    marked = np.array([holm(p) <= 0.05 for p in 2 * stats.norm.sf(np.abs(z))])
    assert marked[:, :40].any(1).mean() == pytest.approx(0.045, abs=0.015)
    assert marked[:, 40:].mean() > 0.9


def test_a_random_set_is_no_finding_by_placebo():
    """200 items, random sets whose effect varies by a third of its mean. One more such set differs
    surely from the mean of sets, and hardly ever from the sets. A set five times as strong does."""
    random = np.random.default_rng(6)
    items, worlds = 200, 500
    item = random.gamma(9, 1 / 9, (items, worlds))
    control = item * random.gamma(9, 1 / 9, (items, worlds))
    one = random.gamma(9, 1 / 9, worlds)
    for times, low, high in ((1.0, 0.0, 0.05), (5.0, 0.9, 1.0)):
        effect = item * one * times
        (cell, mine), (chance, theirs) = means(effect), means(control)
        gap = cell - chance, mine - theirs
        held = placebo_p(*gap, theirs) <= 0.05
        assert low <= held.mean() <= high
        if times == 1:
            assert (student_p(*gap) <= 0.05).mean() > 0.7


def test_the_spread_of_a_set_grows_with_the_sets_that_an_item_met():
    random = np.random.default_rng(7)
    (gap, mine), (_, theirs) = means(random.normal(1, 1, 30)), means(random.normal(0, 1, 30))
    once, often = (float(placebo_p(gap, mine, theirs, sets=m)) for m in (1, 9))
    assert once < often
    with pytest.raises(LensNeuronsError, match="sets=0: every item has to meet at least one"):
        placebo_p(gap, mine, theirs, sets=0)


def test_the_wider_of_two_intervals_has_the_outer_ends():
    ends = np.array([0.0, 1.0]), np.array([np.nan, -1.0])
    one = Interval.of(np.zeros(2), ends[0], ends[0] + 3, 0.9, "a")
    other = Interval.of(np.zeros(2), ends[1], ends[1] + 9, 0.9, "b")
    found = wider(one, other)
    assert found.low.tolist() == [0, -1]
    assert found.high.tolist() == [3, 8]
    assert (found.level, found.method) == (0.9, "a, b")


@pytest.mark.parametrize("ask", [student_interval, student_p])
def test_one_item_has_no_interval(ask):
    with pytest.raises(LensNeuronsError, match="needs at least two items"):
        ask(np.ones(2), np.zeros((1, 2)))
