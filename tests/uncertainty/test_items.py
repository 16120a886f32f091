"""Intervals over items hold a known truth about as often as they say, with few items too."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lensneurons.errors import LensNeuronsError
from lensneurons.uncertainty.items import ItemDraws, expanded_tail, item_bootstrap

CORPORA = 1000
SEEDS = 2


def draw_lengths(random, shape):
    """Tokens of texts: skewed, 5 to 300."""
    return np.ceil(random.lognormal(3.5, 0.6, shape))


def difficulty(tokens):
    """Expected NLL a token: long texts are easier, so the mean of texts is not that of tokens."""
    return (tokens / 40) ** -0.2


@cache
def the_truth():
    """Expected NLL over expected tokens, from a million texts: off by 0.0004 at most."""
    tokens = draw_lengths(np.random.default_rng(0), 1_000_000)
    return (tokens * difficulty(tokens)).mean() / tokens.mean()


def coverage(n_items, levels):
    """For each level, the share of corpora whose interval holds the truth, and the mean width.

    Each corpus is a language of its own: `ItemDraws` takes a thousand of them at once.
    """
    found = []
    for seed in range(SEEDS):
        random = np.random.default_rng(1000 * n_items + seed)
        tokens = draw_lengths(random, (n_items, CORPORA))
        nll = tokens * difficulty(tokens) * random.gamma(2.0, 0.5, tokens.shape)
        ids = tuple(str(item) for item in range(n_items) for _ in range(CORPORA))
        corpora = ItemDraws(ids, np.tile(np.arange(CORPORA), n_items), seed=seed)
        drawn, estimate = corpora.means(nll.ravel(), tokens.ravel()), nll.sum(0) / tokens.sum(0)
        found.append([corpora.interval(estimate, drawn, level) for level in levels])
    low, high = (np.array([[getattr(i, e) for i in row] for row in found]) for e in ("low", "high"))
    held = (low <= the_truth()) & (the_truth() <= high)
    return list(zip(held.mean((0, 2)), (high - low).mean((0, 2)), strict=True))


# Measured with 20,000 corpora; 2,000 give a standard error of 0.5 % at 95 %, 0.9 % at 80 %.
MEASURED = {10: (0.928, 0.774), 20: (0.935, 0.781), 50: (0.940, 0.785)}


@pytest.mark.parametrize("n_items", MEASURED)
def test_coverage_of_a_mean_nll(n_items, monkeypatch):
    (held, width), (narrow, _) = coverage(n_items, (0.95, 0.8))
    assert [held, narrow] == pytest.approx(MEASURED[n_items], abs=0.015)
    assert held > 0.91
    assert narrow > 0.76
    if n_items == 10:  # without the expansion they would be too short
        name = "lensneurons.uncertainty.items.expanded_tail"
        monkeypatch.setattr(name, lambda _, level: (1 - level) / 2)
        ((held, short),) = coverage(10, (0.95,))
        assert held < 0.89
        assert short < 0.85 * width


@pytest.mark.parametrize(
    ("n_items", "tail"), [(5, 0.00096), (10, 0.00855), (20, 0.01589), (10**7, 0.025)]
)
def test_the_share_cut_off_is_hesterbergs(n_items, tail):
    """Phi(-sqrt(n / (n - 1)) t), with t 2.7764, 2.2622, 2.0930 and 1.9600 from a printed table."""
    assert expanded_tail(n_items, 0.95) == pytest.approx(tail, abs=2e-5)


# Ragged: item "c" has no text in language 1, item "a" two in language 0.
IDS = ("b", "a", "a", "c", "b", "a", "d", "d")
LANGUAGE = np.array([0, 0, 0, 0, 1, 1, 1, 0])
VALUES = np.array([3.0, 10.0, 1.0, 7.0, 8.0, 2.0, 30.0, 4.0])
TOKENS = np.array([2, 5, 1, 3, 4, 9, 6, 8])
ORDER = ("b", "a", "c", "d")


def means_by_hand(times):
    """Mean by language of the corpus in which each item stands so many times, text by text."""
    sums, tokens = np.zeros(2), np.zeros(2)
    for item, language, value, weight in zip(IDS, LANGUAGE, VALUES, TOKENS, strict=True):
        for _ in range(times[item]):
            sums[language] += value
            tokens[language] += weight
    return np.array([s / t if t else np.nan for s, t in zip(sums, tokens, strict=True)])


def test_drawn_means_are_those_of_the_drawn_corpora():
    corpora = ItemDraws(IDS, LANGUAGE, draws=400, seed=2)
    assert (corpora.n_items, corpora.n_languages) == (4, 2)
    assert (corpora.weights.sum(1) == 4).all()
    by_hand = [
        means_by_hand({item: int(n) for item, n in zip(ORDER, row, strict=True)})
        for row in corpora.weights
    ]
    ours = corpora.means(VALUES, TOKENS)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-12)
    assert np.isnan(ours[:, 1]).any()  # corpora of item "c" alone
    both = corpora.means(np.stack([VALUES, -2 * VALUES])[:, None], TOKENS)
    assert both.shape == (400, 2, 1, 2)
    np.testing.assert_allclose(both[:, 0, 0], ours)
    np.testing.assert_allclose(both[:, 1, 0], -2 * ours)


def test_each_item_is_drawn_as_often_as_any_other():
    weights = ItemDraws(IDS, LANGUAGE, draws=20_000).weights
    np.testing.assert_allclose(weights.mean(0), 1.0, atol=4 * (0.75 / 20_000) ** 0.5)
    np.testing.assert_allclose(weights.var(0), 0.75, rtol=0.05)


def test_the_estimate_is_a_ratio_of_sums_and_lies_within():
    found = item_bootstrap(IDS, LANGUAGE, VALUES, TOKENS)
    assert found.estimate.tolist() == [25 / 19, 40 / 19]
    assert (found.low < found.estimate).all()
    assert (found.estimate < found.high).all()
    assert (found.level, found.method) == (0.95, "bootstrap over items")
    table = item_bootstrap(IDS, LANGUAGE, np.stack([VALUES, 3 * VALUES]), TOKENS)
    assert table.low.shape == (2, 2)
    np.testing.assert_allclose(table.high[1], 3 * found.high)
    np.testing.assert_allclose(table.low[0], found.low)


def test_ends_are_the_expanded_percentiles():
    """81 draws whose means are 0, 1 ... 80: the ends can be read off."""
    drawn = np.arange(81.0)[:, None]
    corpora = ItemDraws(IDS, LANGUAGE)
    tail = expanded_tail(4, 0.8)
    found = corpora.interval(np.array([40.0]), drawn, 0.8)
    assert found.low[0] == pytest.approx(80 * tail)
    assert found.high[0] == pytest.approx(80 * (1 - tail))
    gaps = np.insert(drawn, 5, np.nan, axis=0)
    assert corpora.interval(np.array([40.0]), gaps, 0.8).low == found.low


def test_languages_are_drawn_together():
    """Twice the same texts: no draw tells the two languages apart, so their difference is sure."""
    random = np.random.default_rng(4)
    ids = tuple(f"i{n}" for n in range(12)) * 2
    values, tokens = np.tile(random.gamma(2, 9, 12), 2), np.tile(random.integers(5, 90, 12), 2)
    corpora = ItemDraws(ids, np.repeat([0, 1], 12))
    means = corpora.means(values, tokens)
    assert (means[:, 0] == means[:, 1]).all()
    gap = corpora.interval(np.zeros(()), means[:, 0] - means[:, 1])
    assert (gap.low, gap.high) == (0, 0)
    assert means[:, 0].std() > 0


def test_the_order_of_the_texts_does_not_matter():
    """Items are numbered as they come first, so their order is kept and only texts move."""
    order = np.array([0, 4, 1, 5, 2, 3, 7, 6])
    moved = [IDS[place] for place in order], LANGUAGE[order], VALUES[order], TOKENS[order]
    ours, theirs = item_bootstrap(IDS, LANGUAGE, VALUES, TOKENS), item_bootstrap(*moved)
    np.testing.assert_allclose(ours.low, theirs.low)
    np.testing.assert_allclose(ours.high, theirs.high)


def test_the_seed_decides_and_a_higher_level_is_wider():
    drawn = [ItemDraws(IDS, LANGUAGE, seed=seed).weights.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    wide, narrow = (item_bootstrap(IDS, LANGUAGE, VALUES, TOKENS, level=x) for x in (0.9, 0.5))
    assert (wide.low < narrow.low).all()
    assert (narrow.high < wide.high).all()


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (["a", "a"], {}, "an interval over items needs at least two items"),
        (["a", "b"], {"draws": 0}, "draws=0: give 1 or more"),
        (["a", "b"], {"level": 95.0}, "level=95.0: give a coverage between 0 and 1"),
        (["a", "b"], {"level": 0.0}, "level=0.0: give a coverage between 0 and 1"),
    ],
)
def test_senseless_options_are_refused(given, options, message):
    with pytest.raises(LensNeuronsError, match=message):
        item_bootstrap(given, np.array([0, 0]), np.ones(2), np.ones(2), **options)
