"""The four parts: planted ones are found to the layer, all else is "not found" with reasons."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import divide_layers

# specific, related, agnostic of a layer of each part
LEVELS = [(400, 500, 40), (90, 130, 160), (330, 290, 12), (250, 600, 300)]


def planted(lengths, seed=0, noise=0.06):
    """A profile with parts of the given lengths; part 3 rises to its peak in its last layer."""
    random = np.random.default_rng(seed)
    rows = np.repeat(np.array(LEVELS, float), lengths, axis=0)
    rows *= np.exp(random.uniform(-noise, noise, rows.shape))
    peak = sum(lengths[:3]) - 1
    rows[peak, 0] *= 1.3
    return rows.round().astype(np.int64)


def spans(lengths):
    edges = np.cumsum([0, *lengths])
    return [(int(a), int(b) - 1) for a, b in pairwise(edges)]


def failures(parts):
    return [criterion.claim for criterion in parts.failed]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "lengths",
    [
        [5, 15, 11, 1], [3, 4, 4, 1], [4, 9, 7, 2], [2, 8, 3, 1], [6, 3, 6, 1], [3, 5, 9, 3],
        [2, 3, 3, 1],
    ],
)  # fmt: skip
def test_planted_parts_are_found_to_the_layer(lengths, seed):
    parts = divide_layers(planted(lengths, seed), shuffles=300)
    assert parts.boundaries == spans(lengths), repr(parts)
    assert parts.found
    assert not parts.failed
    assert [part.number for part in parts.parts] == [1, 2, 3, 4]
    assert parts.shuffle_p <= 0.05


def test_boundaries_are_those_of_brute_force():
    """The least squares of z-scored log1p over the layers before part 4, division by division."""
    profile = planted([3, 5, 4, 1], seed=7, noise=0.5)
    head = np.log1p(profile[:12])
    head = (head - head.mean(axis=0)) / head.std(axis=0)
    cost = {
        (i, j): sum(((s - s.mean(axis=0)) ** 2).sum() for s in (head[:i], head[i:j], head[j:]))
        for i in range(1, 11)
        for j in range(i + 1, 12)
    }
    best = min(cost, key=lambda pair: cost[pair])
    parts = divide_layers(profile, shuffles=20)
    assert (parts.parts[1].first, parts.parts[2].first) == best


RISING = np.arange(1, 13)[:, None] * np.array([10, 20, 5])
RISING_FAILS = [
    "part 1 has more specific neurons than part 2",
    "part 1 has more related neurons than part 2",
    "part 2 has more agnostic neurons than part 3",
    "agnostic neurons are lowest in part 3",
    "after the late peak of specific neurons they fall while related and agnostic ones rise",
]


def test_a_flat_profile_has_no_parts():
    parts = divide_layers(np.full((12, 3), 100), shuffles=100)
    assert parts.boundaries is None
    assert parts.shuffle_p == 1.0
    assert parts.explained == (0.0, 0.0, 0.0, 0.0, 0.0)
    order = "three segments fit the layers better than shuffled layers"
    wanted = {order, *RISING_FAILS[:1], *RISING_FAILS[2:3], *RISING_FAILS[4:]}
    assert wanted <= set(failures(parts))


def test_a_profile_that_rises_or_falls_has_no_parts():
    """Where everything grows with depth the late peak is the last layer, and nothing follows it."""
    parts = divide_layers(RISING, shuffles=100)
    assert not parts.found
    assert len(parts.parts) == 3
    assert failures(parts) == RISING_FAILS
    assert parts.failed[-1].measured == "peak in layer 11 of 12"
    assert "not found; best division" in repr(parts)
    parts = divide_layers(RISING[::-1], shuffles=100)
    assert not parts.found
    assert "part 3 has more specific neurons than part 2" in failures(parts)
    assert "part 2 has more agnostic neurons than part 1" in failures(parts)
    assert "part 1 has more specific neurons than part 2" not in failures(parts)


def test_shuffled_layers_have_no_parts():
    """The layers of a planted profile in random order: not one of thirty shows four parts."""
    profile = planted([5, 9, 6, 1])
    random = np.random.default_rng(0)
    found = [divide_layers(random.permutation(profile), shuffles=40) for _ in range(30)]
    assert not any(parts.found for parts in found)
    assert np.mean(["better than shuffled" in repr(parts) for parts in found]) > 0.8


@pytest.mark.parametrize(
    ("column", "layers", "factor", "claim"),
    [
        (0, slice(0, 4), 0.1, "part 1 has more specific neurons than part 2"),
        (1, slice(0, 4), 0.1, "part 1 has more related neurons than part 2"),
        (2, slice(4, 12), 0.15, "part 2 has more agnostic neurons than part 1"),
        (1, slice(12, 18), 0.3, "part 3 has more related neurons than part 2"),
        (2, slice(0, 4), 0.1, "agnostic neurons are lowest in part 3"),
        (2, slice(4, 12), 3.0, "agnostic neurons are maximal in part 4"),
        (1, slice(18, 19), 0.4, RISING_FAILS[-1]),
    ],
)
def test_each_criterion_can_fail_alone(column, layers, factor, claim):
    profile = planted([4, 8, 6, 1]).astype(float)
    profile[layers, column] *= factor
    parts = divide_layers(profile.round().astype(np.int64), shuffles=200)
    assert claim in failures(parts)
    assert parts.boundaries is None
    if claim == RISING_FAILS[-1]:  # without a rise of related neurons there is no part 4
        assert [part.number for part in parts.parts] == [1, 2, 3]
        assert parts.parts[-1].last == 18
        assert "peak in layer 17 of 19" in parts.failed[-1].measured


def test_evidence():
    profile = planted([5, 9, 6, 2])
    parts = divide_layers(profile, shuffles=99, seed=3)
    assert parts.profile.tolist() == profile.tolist()
    assert parts.explained[0] == 0
    assert list(parts.explained) == sorted(parts.explained)
    assert parts.explained[3] > 0.9
    assert parts.shuffle_p == 0.01  # none of 99 orders fits as well
    assert divide_layers(profile, shuffles=99, seed=3).shuffle_p == parts.shuffle_p
    assert repr(parts) == "LayerParts(found: 0-4 / 5-13 / 14-19 / 20-21)"
    assert "Four parts found; best division 0-4 / 5-13" in parts._repr_html_()
    (lowest,) = [c for c in parts.criteria if "lowest" in c.claim]
    layer = int(profile[:, 2].argmin())
    assert lowest.measured == f"lowest in layer {layer}: {profile[layer, 2]}"


def test_few_layers():
    """Five layers divide; but so few have too few orders to tell theirs from a shuffled one."""
    profile = planted([1, 2, 1, 1])
    parts = divide_layers(profile, shuffles=200)
    assert [(p.first, p.last) for p in parts.parts] == spans([1, 2, 1, 1])
    assert failures(parts) == ["three segments fit the layers better than shuffled layers"]
    with pytest.raises(LensNeuronsError, match="a model of 4 layers cannot show four parts: 5 are"):
        divide_layers(profile[:4])


def statistics_with(lengths, groups=8, spread=0.0):
    """A model whose neurons of a layer are specific, related or agnostic as `LEVELS` / 10 says."""
    random = np.random.default_rng(0)
    profile = (planted(lengths) / 10).round().astype(int)
    tokens = random.integers(80, 120, (groups, 3))
    chance = np.full((sum(lengths), 130, 3), 0.05)
    for layer, (specific, related, agnostic) in enumerate(profile):
        for j in range(specific):
            chance[layer, j, j % 3] = 0.8
        chance[layer, specific : specific + related, :2] = 0.8
        chance[layer, specific + related : specific + related + agnostic] = 0.8
    moved = chance * np.exp(random.normal(0, spread, (groups, *chance.shape)))
    counts = random.binomial(tokens[:, None, None, :], np.minimum(moved, 1.0))
    return ActivationStatistics(("zh", "en", "sw"), counts.astype(np.int64), tokens)


def test_boundaries_have_bootstrap_intervals():
    lengths = [3, 6, 4, 1]
    statistics = statistics_with(lengths)
    neurons = identify(statistics, tau=0.5)
    parts = divide_layers(neurons, statistics, draws=30, shuffles=50)
    assert parts.boundaries == spans(lengths)
    assert parts.draws.shape == (30, 3)
    assert [parts.interval(part) for part in (2, 3, 4)] == [(3, 3), (9, 9), (13, 13)]
    again = divide_layers(neurons, statistics, draws=30, shuffles=50)
    assert again.draws.tolist() == parts.draws.tolist()
    assert divide_layers(neurons, shuffles=10).draws is None


def test_intervals_of_noisy_groups_hold_the_boundary_and_move():
    """Probabilities that straddle the bar from group to group: boundaries move, and are held."""
    lengths = [3, 6, 4, 1]
    statistics = statistics_with(lengths, spread=0.9)
    neurons = identify(statistics, tau=0.5)
    parts = divide_layers(neurons, statistics, draws=60, shuffles=10)
    for part, first in ((2, 3), (3, 9)):
        low, high = parts.interval(part)
        assert low <= first <= high
        narrow = parts.interval(part, level=0.5)
        assert low <= narrow[0] <= narrow[1] <= high
    other = divide_layers(neurons, statistics, draws=60, shuffles=10, seed=1)
    assert other.draws.tolist() != parts.draws.tolist()
    turned = statistics.select(["sw", "en", "zh"])
    again = divide_layers(neurons, turned, draws=60, shuffles=10)
    assert again.draws.tolist() == parts.draws.tolist()


def test_intervals_that_cannot_be():
    statistics = statistics_with([3, 6, 4, 1])
    neurons = identify(statistics, tau=0.5)
    with pytest.raises(LensNeuronsError, match="asked for part 2"):
        divide_layers(neurons, shuffles=10).interval(2)
    drawn = divide_layers(neurons, statistics, draws=3, shuffles=10)
    with pytest.raises(LensNeuronsError, match="asked for part 1"):
        drawn.interval(1)
    whole = statistics.resample(np.ones(8, np.int64))
    with pytest.raises(LensNeuronsError, match="at least two groups"):
        divide_layers(neurons, whole, shuffles=10)
    with pytest.raises(LensNeuronsError, match="language='sw' is not known"):
        divide_layers(neurons, statistics.select(["zh", "en"]), shuffles=10)
    with pytest.raises(LensNeuronsError, match="a profile has no bar to resample at"):
        divide_layers(planted([3, 6, 4, 1]), statistics)
