"""Specificity indices: by hand, honest about selection, paired, and held by their intervals."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from inspect import unwrap

import numpy as np
import pytest

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.specificity_index import Specificity, specificity
from lensneurons.errors import LensNeuronsError, ProvenanceError
from lensneurons.neurons.identification import identify

FIND = partial(identify, score="lape", top_rate=0.1, tau=0.35)
LANGUAGES = ("en", "zh", "th")


def counted(random, rate, tokens=40, groups=8):
    """Statistics of tokens that fire independently at rates [layer, neuron, language]."""
    counts = random.binomial(tokens, np.broadcast_to(rate, (groups, *rate.shape)))
    whole = np.full((groups, rate.shape[-1]), tokens)
    return ActivationStatistics(LANGUAGES, counts.astype(np.int64), whole.astype(np.int64))


def true_index(find, statistics, rate):
    """Mean of the true specificity of the neurons that each half chooses."""
    found = find(statistics)
    own = []
    for k, language in enumerate(LANGUAGES):
        p = rate.reshape(-1, 3)[found[language].flat]
        own.append((p[:, k] - np.delete(p, k, axis=1).max(axis=1)).mean())
    return np.array(own)


def test_one_division_by_hand():
    random = np.random.default_rng(0)
    before = counted(random, random.uniform(0, 0.6, (2, 60, 3)), groups=6)
    after = counted(random, random.uniform(0, 0.6, (2, 60, 3)), groups=6)
    found = specificity(before, after, find=FIND, splits=1, draws=2, seed=3)
    first = np.random.default_rng(3).permutation(6) < 3
    numbers = np.zeros((2, 4, 3, 2))
    for way, (choose, tell) in enumerate(((first, ~first), (~first, first))):
        for run, statistics in enumerate((before, after)):
            p, q = (
                statistics.grouped_counts[half].sum(0) / statistics.grouped_tokens[half].sum(0)
                for half in (choose, tell)
            )
            neurons = FIND(statistics.resample(choose.astype(np.int64)))
            if run == 0:
                kept = neurons
            for k, language in enumerate(LANGUAGES):
                for which, sets in ((0, neurons), (3, kept)):
                    index, rival = [], []
                    for name in sets[language].names:
                        layer, j = (int(part) for part in name[1:].split("N"))
                        others = [m for m in range(3) if m != k]
                        index.append(q[layer, j, k] - max(q[layer, j, m] for m in others))
                        chosen = max(others, key=lambda m: p[layer, j, m])
                        rival.append(q[layer, j, k] - q[layer, j, chosen])
                    numbers[run, which, k, way] = np.mean(index)
                    if which == 0:
                        numbers[run, 1, k, way] = np.mean(rival)
                        numbers[run, 2, k, way] = len(index)
    numbers = numbers.mean(-1)
    np.testing.assert_allclose(found.index, numbers[:, 0])
    np.testing.assert_allclose(found.rival, numbers[:, 1])
    np.testing.assert_allclose(found.neurons, numbers[:, 2])
    np.testing.assert_allclose(found.change[:, 0], numbers[1, 0] - numbers[0, 0])
    np.testing.assert_allclose(found.same[:, 0], numbers[1, 3] - numbers[0, 3])


def test_where_nothing_is_specific_the_naive_index_is_not_zero_and_the_honest_one_is():
    """All rates equal .3: whoever is chosen is chosen for noise."""
    random = np.random.default_rng(1)
    statistics = counted(random, np.full((2, 2000, 3), 0.3), tokens=15)
    found = specificity(statistics, find=FIND, of="specific", draws=20)
    assert (found.naive > 0.05).all()
    assert (found.index < 0.01).all()
    assert (np.abs(found.rival) < 0.015).all()
    assert (found.low < 0).all()


def test_the_truth_lies_between_the_index_and_that_with_chosen_rivals():
    random = np.random.default_rng(2)
    index, rival, true, naive = [], [], [], []
    for _ in range(15):
        rate = random.beta(1, 4, (2, 100, 3))
        statistics = counted(random, rate, tokens=30, groups=4)
        found = specificity(statistics, find=FIND, splits=1, draws=2)
        first = np.random.default_rng(0).permutation(4) < 2
        halves = [statistics.resample(half.astype(np.int64)) for half in (first, ~first)]
        true.append(np.mean([true_index(FIND, half, rate) for half in halves], axis=0))
        index.append(found.index[0])
        rival.append(found.rival[0])
        naive.append(found.naive[0])
    assert np.mean(index) < np.mean(true) < np.mean(rival)
    assert np.mean(rival) - np.mean(index) < 0.03
    assert np.mean(naive) > np.mean(rival)


def test_intervals_hold_the_mean_of_the_estimate():
    random = np.random.default_rng(3)
    rate = random.beta(1, 4, (1, 150, 3))
    ends, found = [], []
    for _ in range(16):
        one = specificity(counted(random, rate, groups=10), find=FIND, splits=1, draws=20)
        found.append(one.index[0])
        ends.append((one.low[0], one.high[0]))
    true = np.mean(found, axis=0)
    held = np.mean([(low <= true) & (true <= high) for low, high in ends])
    assert held > 0.9
    width = np.mean([high - low for low, high in ends])
    assert width < 8 * np.std(found, axis=0).mean()


def test_a_change_is_seen_and_the_same_neurons_are_followed():
    random = np.random.default_rng(4)
    rate = random.beta(1, 4, (1, 300, 3))
    after = rate.copy()
    after[..., 1] *= 0.8  # the neurons of zh fire less often
    one, two = counted(random, rate), counted(random, after)
    found = specificity(one, two, find=FIND, draws=20)
    assert found.same[1, 2] < -0.05
    assert found.same[1, 0] < found.change[1, 0]  # those above the bar afterwards are others
    assert found.same[0, 1] < 0.05
    none = specificity(one, one, find=FIND, draws=2)
    assert (none.change == 0).all()


def test_files_tables_and_empty_languages(tmp_path):
    random = np.random.default_rng(5)
    rate = random.uniform(0, 0.6, (1, 60, 3))
    rate[..., 2] = 0.01
    both = [counted(random, rate), counted(random, rate)]
    found = specificity(*both, find=FIND, draws=3)
    assert np.isnan(found.index[:, 2]).all()
    assert found.neurons[:, 2].tolist() == [0, 0]
    again = Specificity.load(found.save(tmp_path / "one"))
    np.testing.assert_array_equal(again.same, found.same)
    assert {"before_index", "after_naive", "change_low", "same"} <= set(found.to_pandas())
    assert "of the same neurons" in found.to_text()
    alone = specificity(both[0], find=FIND, draws=3)
    assert alone.runs == ("before",)
    assert {"index", "low", "naive"} <= set(alone.to_pandas())
    assert np.isnan(alone.change).all()
    assert "to" not in repr(alone).split()


def test_bad_input_says_what_to_do():
    random = np.random.default_rng(6)
    statistics = counted(random, random.uniform(0, 0.6, (1, 60, 3)))
    with pytest.raises(LensNeuronsError, match="four groups"):
        specificity(counted(random, np.full((1, 9, 3), 0.2), groups=3))
    with pytest.raises(LensNeuronsError, match="splits=0"):
        specificity(statistics, splits=0)
    with pytest.raises(LensNeuronsError, match="related"):
        unwrap(specificity)(statistics, of="related")
    with pytest.raises(ProvenanceError, match="groups"):
        specificity(statistics, counted(random, np.full((1, 60, 3), 0.2), groups=6), find=FIND)
    tokens = np.zeros_like(statistics.grouped_tokens)
    tokens[0] = statistics.tokens
    counts = np.zeros_like(statistics.grouped_counts)
    counts[0] = statistics.counts
    lonely = replace(statistics, grouped_tokens=tokens, grouped_counts=counts)
    with pytest.raises(LensNeuronsError, match="one group"):
        specificity(lonely)
