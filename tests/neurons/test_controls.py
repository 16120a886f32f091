"""Random controls: same layers, same size, matched, disjoint, reproducible, and random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.sets import NEIGHBOURS, NeuronSet, draw_controls

LAYERS, WIDTH = 4, 300


def skewed(seed=0):
    """Activation probabilities as they are: most near 0, few near 1."""
    return np.random.default_rng(seed).beta(0.3, 2.0, (LAYERS, WIDTH))


def chosen(probability, number=40, seed=1):
    """A set that prefers active neurons, in layers 0, 1 and 3."""
    random = np.random.default_rng(seed)
    weight = probability * (np.arange(LAYERS) != 2)[:, None] + 1e-9
    flat = random.choice(probability.size, number, replace=False, p=(weight / weight.sum()).ravel())
    return NeuronSet(flat, LAYERS, WIDTH, "zh")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 200))
def test_same_layers_same_size_and_disjoint(seed, number):
    probability = skewed(seed)
    neurons = chosen(probability, number, seed)
    others = NeuronSet(np.arange(0, LAYERS * WIDTH, 5), LAYERS, WIDTH)
    controls = neurons.random_control(probability, draws=3, seed=seed, exclude=others)
    assert len(controls) == 3
    again = neurons.random_control(probability, draws=3, seed=seed, exclude=others)
    assert controls == again
    for control in controls:
        assert control.per_layer().tolist() == neurons.per_layer().tolist()
        assert len(control & neurons) == len(control & others) == 0
        assert control.label == "control of zh"


def test_matched_by_probability_far_better_than_an_unmatched_draw():
    probability = skewed()
    neurons = chosen(probability, 60)
    own = probability.ravel()[neurons.flat].mean()
    controls = neurons.random_control(probability)
    assert len(set(controls)) == len(controls) == 20
    assert controls[0] != neurons.random_control(probability, seed=4)[0]
    matched = np.array([probability.ravel()[c.flat].mean() for c in controls])
    random = np.random.default_rng(0)
    free = np.setdiff1d(np.arange(LAYERS * WIDTH), neurons.flat)
    unmatched = np.array(
        [probability.ravel()[random.choice(free, 60, replace=False)].mean() for _ in range(20)]
    )
    assert own - unmatched.mean() > 0.2
    assert np.abs(matched - own).mean() < 0.15 * np.abs(unmatched - own).mean()


def test_near_candidates_are_drawn_alike():
    """One neuron in the middle: its ten neighbours below and above, each as often."""
    probability = np.arange(101)[None] / 101
    probability[0] = np.random.default_rng(0).permutation(probability[0])
    rank = np.argsort(probability[0])
    neurons = NeuronSet(rank[50:51], 1, 101)
    draws = 4000
    picked = [int(c.flat[0]) for c in neurons.random_control(probability, draws=draws)]
    near = np.concatenate([rank[40:50], rank[51:61]])
    assert set(picked) == set(near.tolist())
    counts = np.array([picked.count(i) for i in near])
    expected = draws / NEIGHBOURS
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 43.8  # the 0.1 % point of 19 degrees of freedom


def test_equal_probabilities_are_drawn_alike():
    """Silent neurons have no order: each may stand in for another, not only the first few."""
    probability = np.zeros((1, 120))
    probability[0, 100:] = 0.5
    neurons = NeuronSet(np.array([30]), 1, 120)
    picked = [int(c.flat[0]) for c in neurons.random_control(probability, draws=3000)]
    silent = set(range(100)) - {30}
    assert silent <= set(picked)
    assert max(picked.count(i) for i in silent) < 100
    assert np.mean([i in silent for i in picked]) > 0.95


def test_at_the_edge_the_window_has_one_side_and_widens_as_it_empties():
    probability = np.arange(60)[None] / 60
    top = NeuronSet(np.arange(40, 60), 1, 60)
    (control,) = top.random_control(probability, draws=1)
    assert len(control) == 20
    # Ten free ones in the 10 below, then ten in the 20 below: the first 11 picks are among these.
    assert np.count_nonzero(control.flat >= 20) >= 11
    whole = NeuronSet(np.arange(30, 60), 1, 60)
    (control,) = whole.random_control(probability, draws=1)
    assert control.flat.tolist() == list(range(30))


def one_at_a_time(neurons, probability, random):
    """A control drawn member by member: what the draws that are made together must be like."""
    chosen = []
    for layer, members in neurons.by_layer().items():
        p = probability[layer]
        free = sorted(set(range(neurons.d_mlp)) - set(members.tolist()), key=lambda i: p[i])
        ranks, left = p[free], np.ones(len(free), bool)
        low, high = (np.searchsorted(ranks, p[members], side) for side in ("left", "right"))
        for place in random.permutation(
            [random.integers(*e, endpoint=True) for e in zip(low, high, strict=True)]
        ):
            reach, near = 0, np.zeros(0, np.int64)
            while len(near) < min(10, left.sum()):
                reach = 2 * reach or 10
                start = max(0, place - reach)
                near = start + np.flatnonzero(left[start : place + reach])
            pick = random.choice(near)
            left[pick] = False
            chosen.append(layer * neurons.d_mlp + free[pick])
    return chosen


def test_draws_made_together_are_like_draws_one_at_a_time():
    """How often each neuron, and each two of them together, are drawn: within 4.5 SE of a loop."""
    random, draws = np.random.default_rng(7), 600
    probability = np.round(random.beta(0.5, 2, (2, 36)), 1)  # with ties
    neurons = NeuronSet(np.array([3, 8, 9, 30, 40, 41, 42, 43, 44, 45, 46, 47, 48]), 2, 36)
    assert neurons.per_layer().tolist() == [4, 9]
    ours, theirs = np.zeros((2, draws, 72))
    for place, flat in enumerate(draw_controls(neurons, probability, draws=draws, seed=0)):
        ours[place, flat] = 1
        theirs[place, one_at_a_time(neurons, probability, random)] = 1
    pairs = ours.T @ ours / draws, theirs.T @ theirs / draws
    error = np.sqrt((pairs[1] * (1 - pairs[1]) + pairs[0] * (1 - pairs[0])) / draws)
    assert (np.abs(pairs[0] - pairs[1]) <= 4.5 * error + 0.005).all()
    assert np.ptp(ours.mean(axis=0)) > 0.3


def test_too_few_candidates():
    probability = np.arange(20).reshape(2, 10) / 20
    crowded = NeuronSet(np.arange(4, 10), 2, 10, "zh")
    with pytest.raises(
        LensNeuronsError, match="layer 0 has 4 neurons outside zh, too few to match"
    ):
        crowded.random_control(probability)
    some = NeuronSet(np.array([12, 13]), 2, 10, "zh")
    rest = NeuronSet(np.arange(14, 20), 2, 10, "agnostic")
    assert len(some.random_control(probability, exclude=rest)) == 20
    more = rest | NeuronSet(np.array([10]), 2, 10)
    with pytest.raises(LensNeuronsError, match=r"layer 1 has 1 neurons outside .*zh.*, too few"):
        some.random_control(probability, exclude=more)
    with pytest.raises(LensNeuronsError, match=r"choose one language, or take the mean over them"):
        chosen(skewed()).random_control(skewed()[:2])
