"""What an equal rise of all firing is: a shift on logits that joins and outliers do not move."""

from __future__ import annotations

import numpy as np
import pytest

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.before_after import compare
from lensneurons.comparison.class_counts import ClassTables, pair_counts
from lensneurons.comparison.nulls import (
    FEWEST,
    layer_shifts,
    logit,
    measure_drift,
    moved_alike,
    raise_uniformly,
)

TAU, LAYERS, NEURONS, TOKENS = 0.3, 2, 300, 10**7
SHIFTS = np.array([0.4, -0.2])
LAYER = np.repeat(np.arange(LAYERS), NEURONS)


def worlds() -> tuple[np.ndarray, np.ndarray]:
    """Logits [neuron, language] before, and after a shift of each layer with a tenth of joins."""
    random = np.random.default_rng(0)
    before = random.normal(-1.5, 1.0, (LAYERS * NEURONS, 4))
    after = before + SHIFTS[LAYER, None]
    joins = (before < logit(np.array(TAU))) & (random.random(before.shape) < 0.1)
    return before, np.where(joins, 2.0, after)


def counted(logits: np.ndarray, groups: int = 2) -> ActivationStatistics:
    """What a model with these logits does with texts that are all alike."""
    counts = np.round(TOKENS / (1 + np.exp(-logits))).astype(np.int64)
    shape = (groups, LAYERS, NEURONS, 4)
    every = np.broadcast_to(counts.reshape(shape[1:]), shape).copy()
    return ActivationStatistics(tuple("abcd"), every, np.full((groups, 4), TOKENS))


def rates(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.T))


def test_joins_do_not_move_the_shift() -> None:
    before, after = worlds()
    pair = np.stack([rates(before), rates(after)])
    assert layer_shifts(pair, LAYER, TAU, LAYERS) == pytest.approx(SHIFTS)
    means = (pair[1].mean(axis=0) / pair[0].mean(axis=0))[LAYER == 1]
    assert means.mean() > 1  # where all but the joined fall, the mean rises


def test_the_shift_of_a_layer_with_few_pairs_is_that_of_all() -> None:
    before, after = worlds()
    few = (LAYER == 0) | (np.arange(len(LAYER)) < NEURONS + FEWEST // 8)
    pair = np.stack([rates(before), rates(after)])[:, :, few]
    assert layer_shifts(pair, LAYER[few], TAU, LAYERS) == pytest.approx(SHIFTS[[0, 0]])
    silent = np.full((2, 4, 5), 1e-3)
    assert layer_shifts(silent, np.zeros(5, np.int64), TAU, 1).tolist() == [0.0]


def test_raised_probabilities_exceed_the_bar_where_their_odds_do() -> None:
    before = rates(worlds()[0])
    odds = before / (1 - before) * np.exp(SHIFTS)[LAYER]
    expected = odds / (1 + odds) > TAU
    assert (raise_uniformly(before, LAYER, TAU, SHIFTS) == expected).all()
    # Without a shift nothing crosses, not even a probability that is the bar.
    bar = float(before[0, 0])
    same = raise_uniformly(before, LAYER, bar, np.zeros(LAYERS))
    assert (same == (before > bar)).all()


@pytest.mark.parametrize("groups", [1, 2])
def test_the_rise_beyond_an_equal_one_is_what_was_joined(groups: int) -> None:
    """Of counts with and without groups of items, `beyond` is the number of joined pairs."""
    before, after = worlds()
    found = compare(counted(before, groups), counted(after, groups), tau=TAU, pivot=None)

    def pairs(tables: ClassTables) -> np.ndarray:
        return tables.member_change().sum(axis=(1, 2))

    change, bar = found.change(pairs), logit(np.array(TAU))
    shifted = before + SHIFTS[LAYER, None] > bar
    assert change.uniform == shifted.sum() - (before > bar).sum()
    assert change.beyond == (after > bar).sum() - shifted.sum() > 100


def test_the_drift_has_the_same_centre() -> None:
    before, after = worlds()
    pair = pair_counts(counted(before), counted(after), 0.05)
    drift = measure_drift(pair, pair.flat // NEURONS, TAU, LAYERS)
    assert drift.centre == pytest.approx(SHIFTS, abs=1e-4)
    assert drift.noise == pytest.approx([0, 0], abs=1e-2)


def weighted_median(values: list[float], weights: list[float]) -> float:
    """The value at which half of the weight is reached, by going through them in order."""
    passed = 0.0
    for value, weight in sorted(zip(values, weights, strict=True)):
        passed += weight
        if passed >= sum(weights) / 2:
            return value
    raise AssertionError


@pytest.mark.parametrize("languages", [2, 3, 6])
def test_a_neuron_moves_as_in_its_other_languages(languages: int) -> None:
    """Against a weighted median over lists; the layer's median votes as a language of p = .01."""
    random = np.random.default_rng(languages)
    pair = random.uniform(0.001, 0.999, (2, languages, 40))
    centre = random.normal(size=40)
    found = moved_alike(pair, centre)
    p, change = pair[0], logit(pair[1]) - logit(pair[0])
    for neuron in range(40):
        for language in range(languages):
            others = [i for i in range(languages) if i != language]
            values = [*change[others, neuron], centre[neuron]]
            weights = [*(p[others, neuron] ** 2 * (1 - p[others, neuron])), 0.01**2 * 0.99]
            expected = logit(p)[language, neuron] + weighted_median(values, weights)
            assert found[language, neuron] == pytest.approx(expected)


def test_a_gift_is_told_from_a_join() -> None:
    """One neuron rises in all languages; in another all that lacked it join its one owner."""
    before = np.array([[0.5, 0.1, 0.1, 0.1], [0.5, 0.1, 0.1, 0.1]])
    logits = logit(before)
    after = rates(np.stack([logits[0] + 1.0, [0.0, 0.0, 0.0, 0.0]]))
    moves = moved_alike(np.stack([before.T, after]), np.zeros(2)) - logits.T
    assert moves[:, 0] == pytest.approx(1.0)
    assert moves[1:, 1] == pytest.approx(0.0)  # the owner decides, and did not move
    silent = np.full((2, 3, 1), 1e-3)
    assert moved_alike(silent, np.array([0.3])) == pytest.approx(logit(silent[0]) + 0.3)
