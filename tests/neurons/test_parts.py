"""The four parts: planted ones are found, and every claim is judged on its own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from layer_profiles import GEMMA, MISTRAL, QWEN, by_parts, interpolated, noisy, shapes

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import LayerParts, divide_layers
from lensneurons.values.files import save_arrays

# specific, related, agnostic of a layer of each part
LEVELS = [(400, 500, 40), (90, 130, 160), (330, 290, 12), (250, 600, 300)]


def planted(lengths, seed=0, noise=0.06):
    """A profile with parts of the given lengths."""
    random = np.random.default_rng(seed)
    rows = np.repeat(np.array(LEVELS, float), lengths, axis=0)
    rows *= np.exp(random.uniform(-noise, noise, rows.shape))
    return rows.round().astype(np.int64)


def spans(lengths):
    edges = np.cumsum([0, *lengths])
    return [(int(a), int(b) - 1) for a, b in pairwise(edges)]


def failures(parts):
    return [criterion.claim for criterion in parts.failed]


def verdicts(parts):
    return {criterion.claim: criterion.verdict for criterion in parts.criteria}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "lengths",
    [
        [5, 15, 11, 1], [3, 4, 4, 1], [4, 9, 7, 2], [2, 8, 3, 1], [6, 3, 6, 1], [3, 5, 9, 3],
        [10, 30, 30, 4],
    ],
)  # fmt: skip
def test_planted_parts_are_found_to_the_layer(lengths, seed):
    parts = divide_layers(planted(lengths, seed), draws=50)
    assert parts.boundaries == spans(lengths), repr(parts)
    assert parts.found
    assert parts.missing == parts.undecided == parts.failed == ()
    assert [part.number for part in parts.parts] == [1, 2, 3, 4]
    assert parts.division == parts.parts


def test_boundaries_are_those_of_brute_force():
    """Least squares of z-scored log1p before part 4, among divisions with the paper's signs."""
    profile = planted([3, 5, 4, 1], seed=7, noise=0.5)
    logs = np.log1p(profile)
    head = (logs[:12] - logs[:12].mean(axis=0)) / logs[:12].std(axis=0)

    def cost(i, j):
        return sum(((s - s.mean(axis=0)) ** 2).sum() for s in (head[:i], head[i:j], head[j:]))

    def signed(i, j):  # 13 layers: a peak is one layer
        one, two, three = logs[:i], logs[i:j], logs[j:12]
        return (
            (one.mean(axis=0) > two.mean(axis=0))[:2].all()
            and two[:, 2].max() > max(one[:, 2].max(), three[:, 2].max())
            and (three.max(axis=0) > two.max(axis=0))[:2].all()
        )

    pairs = [(i, j) for i in range(1, 11) for j in range(i + 1, 12) if signed(i, j)]
    assert 1 < len(pairs) < 55
    best = min(pairs, key=lambda pair: cost(*pair))
    parts = divide_layers(profile, draws=20)
    assert (parts.division[1].first, parts.division[2].first) == best


def test_contrasts_are_ratios_of_counts():
    """Every contrast of the published profile, from its counts."""
    logs = np.log1p(MISTRAL)
    two = (logs[1:] + logs[:-1]) / 2  # a peak of 32 layers is two wide; two[i] is of i and i + 1

    def peak(first, last, column):
        return two[first:last, column].max()

    rise = logs[31] - two[29]
    known = [
        *(logs[:5] - logs[5:20].mean(axis=0)).mean(axis=0)[:2],
        peak(5, 19, 2) - peak(0, 4, 2),
        peak(5, 19, 2) - peak(20, 30, 2),
        peak(20, 30, 0) - peak(5, 19, 0),
        peak(20, 30, 1) - peak(5, 19, 1),
        rise[1],
        rise[2],
        (rise[1] + rise[2]) / 2 - rise[0],
        two[0:19, 2].min() - two[20:30, 2].min(),
        logs[31, 2] - peak(0, 30, 2),
    ]
    parts = divide_layers(MISTRAL, draws=400)
    assert [c.contrast for c in parts.criteria] == pytest.approx(known)
    inside = [0, 1, 2, *range(5, 18), *range(20, 29)]  # first layers of three in one part
    bends = np.array([np.abs(logs[i] - 2 * logs[i + 1] + logs[i + 2]) for i in inside]) / np.sqrt(6)
    wobble = np.median(bends, axis=0) / 0.67449
    assert np.log1p(parts.wobble) == pytest.approx(wobble, rel=1e-3)
    # the interval of a rise is known: one layer against the mean of two
    rises = parts.criteria[6]
    half = 1.645 * wobble[1] * np.sqrt(1.5)
    assert (rises.high - rises.low) / 2 == pytest.approx(half, rel=0.12)
    assert rises.measured.startswith(f"ratio {np.exp(rise[1]):.2f}, {np.exp(rises.low):.2f} to ")


def test_the_published_profile():
    parts = divide_layers(MISTRAL)
    assert parts.boundaries == [(0, 4), (5, 19), (20, 30), (31, 31)]
    assert set(verdicts(parts).values()) == {"holds"}
    assert max(parts.fewer_p, parts.trend_p) <= 0.01
    assert repr(parts) == "LayerParts(found: 0-4 / 5-19 / 20-30 / 31)"


def test_a_small_model_without_an_early_peak():
    """Gemma 3 270M: parts 2 and 3; the early peak and the last rise are within the wobble."""
    parts = divide_layers(GEMMA)
    assert (parts.found, parts.boundaries) == (False, None)
    assert [(p.number, p.first, p.last) for p in parts.parts] == [(2, 0, 12), (3, 13, 17)]
    assert (parts.missing, parts.undecided) == ((), (1, 4))
    assert failures(parts) == [
        "part 1 has more specific neurons than part 2",
        "part 1 has more related neurons than part 2",
        "related neurons rise from the end of part 3 to part 4",
    ]
    told = verdicts(parts)
    assert told["agnostic neurons rise from the end of part 3 to part 4"] == "holds"
    assert told["agnostic neurons are maximal in part 4"] == "cannot be judged"
    assert min(parts.fewer_p, parts.trend_p) > 0.2  # its layers are no better than a smooth curve


def test_a_model_without_the_last_rise():
    """Qwen2.5-Coder 0.5B: the early peak, the middle and the late peak, and no more."""
    parts = divide_layers(QWEN)
    assert [(p.number, p.first, p.last) for p in parts.parts] == [
        (1, 0, 1),
        (2, 2, 19),
        (3, 20, 22),
    ]
    assert (parts.found, parts.missing, parts.undecided) == (False, (), (4,))
    assert {c.part for c in parts.failed} == {4, 0}
    assert sum(c.part == 4 for c in parts.failed) == 3
    assert repr(parts).startswith(
        "LayerParts(not found; parts found: 1 in layers 0-1, 2 in layers 2-19, 3 in layers 20-22; "
        "undecided: 4; related neurons rise from the end of part 3 to part 4: undecided (ratio 1.0"
    )
    assert "part 4: cannot be judged" not in repr(parts)


RISING = np.arange(1, 13)[:, None] * np.array([10, 20, 5])


@pytest.mark.parametrize("profile", [np.full((12, 3), 100), RISING, RISING[::-1]])
def test_flat_rising_and_falling_profiles_have_no_parts(profile):
    parts = divide_layers(profile, draws=50)
    assert (parts.found, parts.parts, parts.boundaries) == (False, (), None)
    assert repr(parts).startswith("LayerParts(not found; no part found; best division ")
    whole = [c for c in parts.criteria if c.part == 0]
    assert [(c.verdict, c.measured) for c in whole] == [
        ("cannot be judged", "no part 3"),
        ("cannot be judged", "no part 4"),
    ]
    assert len({c.claim for c in parts.criteria}) == 11  # each once


def test_a_flat_profile_explains_nothing():
    parts = divide_layers(np.full((12, 3), 100), draws=20)
    assert parts.explained == (0.0, 0.0, 0.0, 0.0, 0.0)
    assert (parts.fewer_p, parts.trend_p) == (1.0, 1.0)
    assert set(verdicts(parts).values()) == {"undecided", "cannot be judged"}


@pytest.mark.parametrize("layers", [12, 16, 20, 24, 28, 40, 60, 80])
def test_the_published_profile_on_other_depths(layers):
    """Boundaries stand where they do on 32 layers, within a layer of these."""
    parts = divide_layers(interpolated(layers).round().astype(np.int64))
    assert parts.found, repr(parts)
    step = (layers - 1) / 31
    known = np.array([4.5, 19.5, 30.5]) * step + 0.5
    assert [part.first for part in parts.parts[1:]] == pytest.approx(known, abs=1 + step)


def share(draw, number=40):
    random = np.random.default_rng(0)
    found = [divide_layers(draw(random), draws=30, seed=i).found for i in range(number)]
    return np.mean(found)


@pytest.mark.parametrize("layers", [16, 24, 32, 60])
def test_power_at_ten_percent_noise(layers):
    """The whole table is made by tests/simulations/four_parts.py."""
    assert share(lambda random: noisy(interpolated(layers), 0.1, random)) >= 0.85


def test_power_on_twelve_layers_hangs_on_how_the_parts_lie_there():
    """Where each part keeps its share of the layers, twelve are enough; interpolated, they are not:
    layers 29 and 30 of the published profile, where related neurons peak, fall between two of them.
    """
    assert share(lambda random: noisy(by_parts(12), 0.1, random)) >= 0.85
    assert 0.2 <= share(lambda random: noisy(interpolated(12), 0.1, random)) <= 0.8


@pytest.mark.parametrize("kind", ["flat", "monotone", "sigmoid", "U-shaped", "smooth random"])
def test_shapes_without_parts(kind):
    shape = shapes()[kind]
    assert share(lambda random: noisy(shape(24, random), 0.1, random)) <= 0.05


def test_shuffled_and_reversed_layers_have_no_four_parts():
    assert share(lambda random: random.permutation(MISTRAL)) == 0
    assert share(lambda random: noisy(MISTRAL[::-1], 0.1, random)) <= 0.05


@pytest.mark.parametrize(
    ("column", "layers", "factor", "claim"),
    [
        (0, slice(0, 4), 0.1, "part 1 has more specific neurons than part 2"),
        (1, slice(0, 4), 0.1, "part 1 has more related neurons than part 2"),
        (2, slice(0, 4), 6, "agnostic neurons peak higher in part 2 than in part 1"),
        (2, slice(0, 4), 0.1, "agnostic neurons are lowest in part 3"),
        (2, slice(4, 12), 3.0, "agnostic neurons are maximal in part 4"),
        (1, slice(18, 19), 0.1, "related neurons rise from the end of part 3 to part 4"),
        (0, slice(18, 19), 100, "specific neurons fall there against related and agnostic ones"),
    ],
)
def test_each_criterion_can_fail_alone(column, layers, factor, claim):
    profile = planted([4, 8, 6, 1]).astype(float)
    profile[layers, column] *= factor
    parts = divide_layers(profile.round().astype(np.int64), draws=50)
    assert failures(parts) == [claim]
    assert verdicts(parts)[claim] == "does not hold"
    assert parts.boundaries is None
    (failed,) = parts.failed
    if failed.part == 0:  # the parts are there, but not as the paper says
        assert len(parts.parts) == 4
    else:
        assert failed.part in parts.missing


def test_no_late_peak_of_related_neurons_is_no_part_three():
    profile = planted([4, 8, 6, 1]).astype(float)
    profile[12:18, 1] *= 0.2
    parts = divide_layers(profile.round().astype(np.int64), draws=50)
    assert (parts.found, parts.parts) == (False, ())
    assert 3 in (*parts.missing, *parts.undecided)
    assert "related neurons peak higher in part 3 than in part 2" in failures(parts)


@pytest.mark.parametrize("present", [(2, 3, 4), (1, 2, 3), (2, 3)])
def test_a_part_may_be_missing(present):
    lengths = [5, 9, 6, 2]
    rows = [row for n in present for row in [LEVELS[n - 1]] * lengths[n - 1]]
    random = np.random.default_rng(1)
    profile = np.array(rows) * np.exp(random.uniform(-0.06, 0.06, (len(rows), 3)))
    parts = divide_layers(profile.round().astype(np.int64), draws=50)
    known = spans([lengths[n - 1] for n in present])
    assert [(p.number, p.first, p.last) for p in parts.parts] == [
        (n, *span) for n, span in zip(present, known, strict=True)
    ], repr(parts)
    assert {*parts.missing, *parts.undecided} == {1, 2, 3, 4} - {*present}
    assert {c.part for c in parts.failed if c.part} == {*parts.missing, *parts.undecided}


def test_evidence():
    profile = planted([5, 9, 6, 2])
    parts = divide_layers(profile, draws=99, seed=3)
    assert parts.profile.tolist() == profile.tolist()
    assert parts.explained[0] == 0
    assert list(parts.explained) == sorted(parts.explained)
    assert parts.explained[3] > 0.9
    assert (parts.fewer_p, parts.trend_p) == (0.01, 0.01)  # none of 99 draws gains as much
    again = divide_layers(profile, draws=99, seed=3)
    assert (again.criteria, again.fewer_p) == (parts.criteria, parts.fewer_p)
    assert divide_layers(profile, draws=99, seed=4).criteria != parts.criteria
    assert repr(parts) == "LayerParts(found: 0-4 / 5-13 / 14-19 / 20-21)"
    assert "Four parts found; parts 0-4 / 5-13" in parts._repr_html_()


def test_few_layers():
    profile = planted([1, 2, 1, 1])
    parts = divide_layers(profile, draws=20)
    assert [(p.first, p.last) for p in parts.division] == spans([1, 2, 1, 1])
    nine = divide_layers(planted([2, 3, 3, 1]), draws=20)  # right, but too few to tell
    assert [(p.first, p.last) for p in nine.division] == spans([2, 3, 3, 1])
    assert {c.verdict for c in nine.failed} == {"undecided"}
    assert repr(nine).endswith(
        "; 9 layers are few: parts that are there can be missed with fewer than 16)"
    )
    assert "layers are few" not in repr(divide_layers(planted([3, 6, 4, 1]), draws=20))  # found
    assert "layers are few" not in repr(divide_layers(GEMMA, draws=20))
    with pytest.raises(LensNeuronsError, match="a model of 4 layers cannot show four parts: 5 are"):
        divide_layers(profile[:4])
    with pytest.raises(LensNeuronsError, match="draws=1: intervals need at least two draws"):
        divide_layers(profile, draws=1)


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
    parts = divide_layers(neurons, statistics, draws=30)
    assert parts.boundaries == spans(lengths)
    assert parts.draws.shape == (30, 4)
    assert parts.shares == {4: 1.0, 3: 0.0, 2: 0.0, 0: 0.0}
    assert [parts.interval(part) for part in (2, 3, 4)] == [(3, 3), (9, 9), (13, 13)]
    again = divide_layers(neurons, statistics, draws=30)
    assert again.draws.tolist() == parts.draws.tolist()
    alone = divide_layers(neurons, draws=10)
    assert (alone.draws, alone.shares) == (None, None)


def test_intervals_of_noisy_groups_hold_the_boundary_and_move():
    """Probabilities that straddle the bar from group to group: other texts widen the intervals."""
    lengths = [3, 6, 4, 1]
    statistics = statistics_with(lengths, spread=0.9)
    neurons = identify(statistics, tau=0.5)
    parts = divide_layers(neurons, statistics, draws=60)
    assert sum(parts.shares.values()) == pytest.approx(1)
    for part, first in ((2, 3), (3, 9)):
        low, high = parts.interval(part)
        assert low <= first <= high
        narrow = parts.interval(part, level=0.5)
        assert low <= narrow[0] <= narrow[1] <= high
    alone = divide_layers(neurons, draws=60)
    wider = [
        a.high - a.low > b.high - b.low
        for a, b in zip(parts.criteria[:9], alone.criteria[:9], strict=True)
    ]
    assert np.mean(wider) > 0.6
    other = divide_layers(neurons, statistics, draws=60, seed=1)
    assert [c.low for c in other.criteria] != [c.low for c in parts.criteria]
    turned = statistics.select(["sw", "en", "zh"])
    again = divide_layers(neurons, turned, draws=60)
    assert again.draws.tolist() == parts.draws.tolist()


def test_intervals_that_cannot_be():
    statistics = statistics_with([3, 6, 4, 1])
    neurons = identify(statistics, tau=0.5)
    with pytest.raises(LensNeuronsError, match="asked for part 2"):
        divide_layers(neurons, draws=10).interval(2)
    drawn = divide_layers(neurons, statistics, draws=3)
    with pytest.raises(LensNeuronsError, match="asked for part 1"):
        drawn.interval(1)
    whole = statistics.resample(np.ones(8, np.int64))
    with pytest.raises(LensNeuronsError, match="at least two groups"):
        divide_layers(neurons, whole, draws=10)
    with pytest.raises(LensNeuronsError, match="language='sw' is not known"):
        divide_layers(neurons, statistics.select(["zh", "en"]), draws=10)
    with pytest.raises(LensNeuronsError, match="a profile has no bar to resample at"):
        divide_layers(planted([3, 6, 4, 1]), statistics)


def test_files(tmp_path):
    parts = divide_layers(QWEN, draws=20)
    again = LayerParts.load(parts.save(tmp_path / "parts.safetensors"))
    assert repr(again) == repr(parts)
    assert again.criteria == parts.criteria
    path = tmp_path / "old.safetensors"
    details = {"found": False, "parts": [], "criteria": [], "explained": [0.0], "shuffle_p": 0.5}
    save_arrays(path, "layer parts", {"profile": QWEN}, details)
    with pytest.raises(StorageError, match="an older lensneurons wrote it, .* call divide_layers"):
        LayerParts.load(path)
