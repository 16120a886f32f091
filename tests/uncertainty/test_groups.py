"""Intervals hold a known truth as often as they say, and pairs are pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, ProvenanceError
from lensneurons.uncertainty.groups import (
    Interval,
    bootstrap,
    bootstrap_difference,
    group_weights,
    jackknife,
    resamples,
)
from lensneurons.values.provenance import Provenance

GROUPS = 10
TRUTH = 0.3
CORPORA = 4
NEURONS = 1000


def drawn_corpus(
    random: np.random.Generator, groups: int = GROUPS, neurons: int = 2
) -> ActivationStatistics:
    """Groups of unequal length whose neurons fire with a probability that moves between groups.

    The truth is a ratio: expected active tokens over expected tokens, 0.3 for every neuron.
    """
    tokens = random.integers(200, 600, (groups, 2))
    moved = random.normal(0, 0.25, (groups, 1, neurons, 2))
    chance = TRUTH * np.exp(moved - 0.25**2 / 2)
    counts = random.binomial(tokens[:, None, None, :], np.minimum(chance, 1.0))
    return ActivationStatistics(("zh", "en"), counts.astype(np.int64), tokens.astype(np.int64))


def one_probability(statistics: ActivationStatistics) -> float:
    return float(statistics.probability[0, 0, 0])


def coverage(interval: Callable[[ActivationStatistics], Interval]) -> tuple[float, float]:
    """Share of 4000 neurons whose interval holds the truth, and the mean width."""
    random = np.random.default_rng(0)
    drawn = [interval(drawn_corpus(random, neurons=NEURONS)) for _ in range(CORPORA)]
    held = np.mean([(i.low <= TRUTH) & (i.high >= TRUTH) for i in drawn])
    return float(held), float(np.mean([i.high - i.low for i in drawn]))


def test_coverage_of_a_ratio() -> None:
    """The jackknife holds the truth in 94 % of corpora, the bootstrap in 87 %, as they say."""
    held, width = coverage(lambda s: jackknife(s, lambda d: d.probability[0, :, 0]))
    error = 3 * (0.95 * 0.05 / (CORPORA * NEURONS)) ** 0.5
    assert held == pytest.approx(0.95, abs=error + 0.01)  # 1 %: the groups are a little skewed
    held, narrow = coverage(lambda s: bootstrap(s, lambda d: d.probability[0, :, 0]))
    assert held == pytest.approx(0.87, abs=0.02)
    assert narrow / width == pytest.approx(0.8, abs=0.03)


def test_the_jackknife_of_a_mean_is_students() -> None:
    """Groups of equal length: a ratio is a mean, and the interval is the textbook's."""
    active = np.array([3, 8, 4, 9, 5, 7])
    counts = active[:, None, None, None].repeat(2, axis=-1)
    statistics = ActivationStatistics(("zh", "en"), counts, np.full((6, 2), 20))
    found = jackknife(statistics, one_probability, level=0.9)
    reach = 2.015048 * np.std(active / 20, ddof=1) / 6**0.5
    assert found.estimate == pytest.approx(active.mean() / 20)
    assert found.high - found.estimate == pytest.approx(reach, rel=1e-6)
    assert found.estimate - found.low == pytest.approx(reach, rel=1e-6)
    assert (found.level, found.method) == (0.9, "jackknife")


@pytest.mark.parametrize("method", [bootstrap, jackknife])
def test_arrays_are_bounded_entry_by_entry_and_a_level_narrows(method: Callable) -> None:
    statistics = drawn_corpus(np.random.default_rng(1))
    found = method(statistics, lambda s: s.probability)
    assert found.low.shape == found.estimate.shape == (1, 2, 2)
    assert (found.low < found.estimate).all()
    assert (found.estimate < found.high).all()
    assert found.estimate.tolist() == statistics.probability.tolist()
    wide, alone, narrow = (method(statistics, one_probability, level=x) for x in (0.99, 0.95, 0.5))
    assert found.low[0, 0, 0] == alone.low
    assert wide.low < narrow.low < narrow.high < wide.high


def test_languages_are_drawn_together() -> None:
    """Two languages with the same counts never differ: one group is the same items in both."""
    counts = np.random.default_rng(2).integers(0, 50, (10, 1, 3, 1)).repeat(2, axis=-1)
    statistics = ActivationStatistics(("zh", "en"), counts, np.full((10, 2), 60))
    for drawn in resamples(statistics, draws=20):
        assert (drawn.probability[..., 0] == drawn.probability[..., 1]).all()
    gap = bootstrap(statistics, lambda s: s.probability[..., 0] - s.probability[..., 1])
    assert not np.any([gap.low, gap.high])


def test_pairs_are_paired() -> None:
    """The same statistics twice: no difference, no width. Independent draws would have one."""
    statistics = drawn_corpus(np.random.default_rng(3))
    same = bootstrap_difference(statistics, statistics, one_probability)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    shifted = replace(statistics, grouped_counts=statistics.grouped_counts // 2)
    found = bootstrap_difference(statistics, shifted, one_probability)
    assert found.low < found.estimate < found.high < 0
    alone = bootstrap(statistics, one_probability)
    assert found.high - found.low < 0.6 * (alone.high - alone.low)


def test_pairs_of_different_corpora_are_refused() -> None:
    drawn = drawn_corpus(np.random.default_rng(4))
    ours, theirs = (replace(drawn, provenance=Provenance(corpora=(x,))) for x in "ab")
    with pytest.raises(ProvenanceError, match=r"corpora: \('a',\) and \('b',\)"):
        bootstrap_difference(ours, theirs, one_probability)


def test_the_seed_decides() -> None:
    statistics = drawn_corpus(np.random.default_rng(5))
    first, again, other = (bootstrap(statistics, one_probability, seed=seed) for seed in (1, 1, 2))
    assert (first.low, first.high) == (again.low, again.high)
    assert first.low != other.low
    assert [w.tolist() for w in group_weights(4, 3)] == [w.tolist() for w in group_weights(4, 3)]
    assert all(w.sum() == 4 for w in group_weights(4, 30))


def test_draws_without_tokens_in_a_language_are_drawn_again() -> None:
    """Two groups of five have all tokens of en: one draw in thirteen has none.

    Forty languages, each in two of forty groups: hardly any draw holds all.
    """
    tokens = np.array([[9, 9], [9, 9], [9, 0], [9, 0], [9, 0]])
    counts = np.minimum(tokens, 1)[:, None, None]
    statistics = ActivationStatistics(("zh", "en"), counts, tokens)
    drawn = list(resamples(statistics, draws=50))
    assert len(drawn) == 50
    assert all(d.tokens.all() for d in drawn)
    counts, languages = np.zeros((40, 1, 1, 40), np.int64), tuple(f"l{i}" for i in range(40))
    one = np.eye(40, dtype=np.int64)
    statistics = ActivationStatistics(languages, counts, one + np.roll(one, 1, axis=0))
    with pytest.raises(LensNeuronsError, match=r"only 0 of 100 draws of the groups have tokens in"):
        bootstrap(statistics, one_probability, draws=10)


def test_one_group_that_holds_all_items_has_no_interval() -> None:
    """All draws would be the same, and the interval would have no width."""
    counts, tokens = np.ones((5, 1, 1, 2), np.int64), np.zeros((5, 2), np.int64)
    tokens[2] = 9
    counts[[0, 1, 3, 4]] = 0
    statistics = ActivationStatistics(("zh", "en"), counts, tokens)
    for method in (bootstrap, jackknife):
        with pytest.raises(LensNeuronsError, match="fell into one group, so .*: count more items"):
            method(statistics, one_probability)


def test_one_group_has_no_interval() -> None:
    statistics = drawn_corpus(np.random.default_rng(7), groups=1)
    for method in (bootstrap, jackknife):
        with pytest.raises(LensNeuronsError, match=r"at least two groups of items: collect\(\.\."):
            method(statistics, one_probability)


@pytest.mark.parametrize("options", [{"level": 0.0}, {"level": 95.0}, {"draws": 0}])
def test_senseless_options_are_refused(options: dict) -> None:
    statistics = drawn_corpus(np.random.default_rng(8))
    with pytest.raises(LensNeuronsError, match="an interval needs at least one draw and a level"):
        bootstrap(statistics, one_probability, **options)
    if "level" in options:
        with pytest.raises(LensNeuronsError, match="give a coverage between 0 and 1"):
            jackknife(statistics, one_probability, **options)


def test_a_language_in_one_group_has_no_interval():
    counts = np.ones((2, 1, 3, 2), np.int64)
    counts[1, ..., 1] = 0
    tokens = np.array([[5, 5], [5, 0]], np.int64)
    lonely = ActivationStatistics(("en", "sw"), counts, tokens)
    for method in (bootstrap, jackknife):
        with pytest.raises(LensNeuronsError, match=r"all items of \['sw'\] fell into one group"):
            method(lonely, lambda drawn: drawn.probability)
