"""Intervals and marks of ablation matrices: the outer ends of three, Newcombe's, and coverage.

A small version of tests/simulations/ablation_intervals.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ablation_worlds import LEVELS, answer_matrix, nll_matrix, the_scale
from scipy import stats

from lensneurons.errors import LensNeuronsError
from lensneurons.uncertainty.contrasts import holm, skewed_interval
from lensneurons.uncertainty.items import ItemDraws
from lensneurons.uncertainty.paired import paired_interval


def test_an_interval_has_the_outer_ends_of_three():
    """Texts of equal weight: plain means, whose t interval scipy knows."""
    random = np.random.default_rng(0)
    matrix = nll_matrix(random, 9, k=2)
    values = random.gamma(1, 1, (9, 2))
    even = replace(matrix, weight=np.ones(18), effect=np.stack([values.ravel()] * 2)[None])
    found = even.interval(level=0.9)
    t = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    skewed = skewed_interval(values.mean(0), (values - values.mean(0)) / 9, level=0.9)
    items = ItemDraws(even.item_ids, even.language)
    drawn = items.interval(values.mean(0), items.means(values.ravel(), np.ones(18)), 0.9)
    low = np.min([t.low, skewed.low, drawn.low], axis=0)
    high = np.max([t.high, skewed.high, drawn.high], axis=0)
    assert found.low == pytest.approx(np.stack([low, low]))
    assert found.high == pytest.approx(np.stack([high, high]))


@pytest.mark.parametrize(("design", "low", "high"), [("fresh", 0.92, 0.985), ("shared", 0, 0.85)])
def test_items_with_sets_of_their_own_are_why_controls_have_an_interval(design, low, high):
    """120 items, 40 matrices of 3 languages: sets that items share make intervals too short."""
    random, own = np.random.default_rng(1), np.eye(3, dtype=bool)
    truth = the_scale() * np.where(own, LEVELS["control own"], LEVELS["control others"])
    held = []
    for _ in range(40):
        found = nll_matrix(random, 120, k=3, design=design).control_interval()
        held.append((found.low <= truth) & (truth <= found.high))
    assert low <= np.mean(held) <= high


def test_the_headline_holds_the_truth():
    """20 items, 100 matrices of 3 languages."""
    random, held = np.random.default_rng(2), []
    own, others = (LEVELS[k] - LEVELS[f"control {k}"] for k in ("own", "others"))
    for _ in range(100):
        found = nll_matrix(random, 20, k=3).selectivity_beyond_control()
        truth = the_scale() * (own - others)
        held.append((found.low <= truth) & (truth <= found.high))
    assert 0.91 <= np.mean(held) <= 0.985


def test_cells_of_accuracy_are_paired():
    matrix = answer_matrix(np.random.default_rng(3), 24)
    found = matrix.interval(level=0.9)
    for row in range(4):
        for column in range(4):
            texts = matrix.language == column
            before = matrix.base[texts] == 1
            after = matrix.base[texts] + matrix.effect[0, row, texts] == 1
            ends = found.low[row, column], found.high[row, column]
            assert ends == pytest.approx(paired_interval(before, after, level=0.9))
    still = replace(matrix, effect=np.zeros_like(matrix.effect))
    assert (still.interval().high > 0.03).all()
    nothing = replace(still, neurons_by_layer=np.zeros_like(matrix.neurons_by_layer))
    assert (nothing.placebo_p()[0] != nothing.placebo_p()[0]).all()
    assert not nothing.marked().any()


def test_marks_are_holms_and_a_random_set_has_none():
    """60 items: one more random set is never marked; eight times as much harm is, in own cells."""
    random, equal = np.random.default_rng(4), {k: 0.1 if "others" in k else 0.3 for k in LEVELS}
    matrices = [nll_matrix(random, 60, k=6, levels=equal, placebo=True) for _ in range(15)]
    assert not any(one.marked().any() for one in matrices)
    apart = [one.beyond_control() for one in matrices]
    assert np.mean([(one.low > 0) | (one.high < 0) for one in apart]) > 0.3
    strong = [nll_matrix(random, 60, k=6, levels=equal | {"own": 2.4}) for _ in range(5)]
    own = np.eye(6, dtype=bool)
    assert np.mean([one.marked()[own].mean() for one in strong]) > 0.8
    assert not any(one.marked()[~own].any() for one in strong)
    p = strong[0].placebo_p()
    assert np.array_equal(strong[0].marked(), holm(p) <= 0.05)
    table = strong[0].to_pandas()
    assert table["placebo_p"].to_numpy() == pytest.approx(p.ravel())
    assert table["marked"].tolist() == strong[0].marked().ravel().tolist()
    with pytest.raises(LensNeuronsError, match="give a coverage between 0 and 1"):
        strong[0].marked(level=2.0)


def test_means_have_a_measure_of_random_sets_too():
    """The mean selectivity of a random set leaves out zero where the placebo seldom does."""
    random, equal = np.random.default_rng(5), {k: 0.1 if "others" in k else 0.3 for k in LEVELS}
    matrices = [nll_matrix(random, 60, levels=equal, placebo=True) for _ in range(60)]
    found = [one.figures()["beyond control (own): selectivity"] for one in matrices]
    p = np.array([one.mean_placebo_p()["selectivity"] for one in matrices])
    assert np.mean([one.low > 0 or one.high < 0 for one in found]) > 0.2
    assert (p <= 0.05).mean() <= 0.05
    needed = [nll_matrix(random, 60, levels=equal | {"own": 0.9}) for _ in range(20)]
    assert np.mean([one.mean_placebo_p()["selectivity"] <= 0.05 for one in needed]) > 0.9
    assert np.isnan(list(nll_matrix(random, 4).mean_placebo_p().values())).all()
