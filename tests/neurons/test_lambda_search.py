"""The exact lambda against brute force over every crossing, in fractions."""

from __future__ import annotations

from fractions import Fraction

import method_oracle as oracle
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lensneurons.errors import IdentificationError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.lambda_search import floor_lambda, largest_lambda, lower_envelope
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.scores import score_terms, select_lowest
from lensneurons.values.files import load_arrays, save_arrays


def search(lines, agnostic, number):
    h, m = np.array(lines, float).T
    return largest_lambda(h[None], m[None], np.array([agnostic]), number)


def agnostic_selected(lines, agnostic, number, at):
    h, m = np.array(lines, float).T
    return bool(select_lowest((h - at * m)[None], number)[0, np.array(agnostic)].any())


def exactly(lines):
    return [(Fraction(h), Fraction(m)) for h, m in lines]


def expected(stretches):
    """What the search should return: the supremum, and where it comes from."""
    if stretches and stretches[-1][1] is None:
        end = Fraction(1, 5)
        below = [(low, high) for low, high in stretches if low < end]
        return (min(below[-1][1] or end, end), "unbounded") if below else None
    return (stretches[-1][1], "exact") if stretches else None


def check(lines, agnostic, number):
    wanted = expected(oracle.feasible_stretches(exactly(lines), agnostic, number))
    if wanted is None:
        with pytest.raises(IdentificationError):
            search(lines, agnostic, number)
        return
    found, origin = search(lines, agnostic, number)
    assert origin == wanted[1]
    assert found == pytest.approx(float(wanted[0]), rel=1e-9)
    assert not agnostic_selected(lines, agnostic, number, found)


def distinct(lines, agnostic):
    """No language-agnostic line equals another: equal probabilities have equal classes."""
    ours = {line for line, a in zip(lines, agnostic, strict=True) if a}
    return not ours & {line for line, a in zip(lines, agnostic, strict=True) if not a}


@st.composite
def coarse_lines(draw):
    """Lines on a coarse grid: many are parallel, many cross in one point."""
    n = draw(st.integers(2, 8))
    number = st.integers(0, 8).map(lambda i: i / 8)
    lines = draw(st.lists(st.tuples(number, number), min_size=n, max_size=n))
    agnostic = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    assume(any(agnostic) and distinct(lines, agnostic))
    return lines, agnostic, draw(st.integers(1, n))


@settings(max_examples=400, deadline=None)
@given(coarse_lines())
def test_brute_force_on_coarse_grids(case):
    check(*case)


@pytest.mark.parametrize("seed", range(60))
def test_brute_force_on_random_instances(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(3, 22))
    lines = [tuple(line) for line in random.random((n, 2)).tolist()]
    agnostic = (random.random(n) < random.choice([0.1, 0.3, 0.7])).tolist()
    agnostic[int(random.integers(n))] = True
    check(lines, agnostic, int(random.integers(1, max(2, n // 2))))


def test_every_larger_value_selects_an_agnostic_neuron():
    """The returned value is the last one: nothing above it, near or far, is feasible."""
    tried = []
    for seed in range(60):
        random = np.random.default_rng(1000 + seed)
        lines = [tuple(line) for line in random.random((60, 2)).tolist()]
        agnostic = (random.random(60) < 0.3).tolist()
        number = int(random.integers(1, 12))
        try:
            found, origin = search(lines, agnostic, number)
        except IdentificationError as error:
            found, origin = 0.0, "unbounded" if "up to 0.2" in str(error) else "nothing"
        if origin == "unbounded":
            continue
        tried.append(origin)
        above = [found * (1 + 1e-9), *np.linspace(found, found + 2, 100)[1:]]
        above += np.geomspace(found + 1e-6, 1e6, 60).tolist()
        assert all(agnostic_selected(lines, agnostic, number, at) for at in above)
        assert origin == "nothing" or not agnostic_selected(lines, agnostic, number, found)
    assert tried.count("exact") > 10


# The first and the last line are language-agnostic, one neuron is selected. The second line is the
# lowest up to 0.1, the first up to 0.15, the third up to 0.25, the last for ever.
GAP = [(0.30, 2.0), (0.10, 0.0), (0.90, 6.0), (2.15, 11.0)]
GAP_AGNOSTIC = [True, False, False, True]


def test_the_last_of_several_stretches_is_taken_though_a_gap_lies_below():
    stretches = oracle.feasible_stretches(exactly(GAP), GAP_AGNOSTIC, 1)
    ends = [float(end) for stretch in stretches for end in stretch if end is not None]
    assert ends == pytest.approx([0.0, 0.1, 0.15, 0.25])
    assert search(GAP, GAP_AGNOSTIC, 1) == (pytest.approx(0.25, rel=1e-12), "exact")
    holds = [not agnostic_selected(GAP, GAP_AGNOSTIC, 1, at) for at in (0.05, 0.12, 0.2, 0.26)]
    assert holds == [True, False, True, False]


def test_nothing_bounds_lambda():
    assert search([(0.1, 0.2), (0.3, 0.4)], [False, False], 1) == (0.2, "unbounded")
    assert search([(0.1, 0.9), (0.5, 0.5)], [False, True], 1) == (0.2, "unbounded")


def test_an_unbounded_lambda_stays_feasible_below_the_upper_end():
    """Feasible below 0.1 and above 0.3: the largest value up to 0.2 is 0.1, not 0.2."""
    lines, agnostic = [(0.30, 2.0), (0.10, 0.0), (0.90, 4.0)], [True, False, False]
    found, origin = search(lines, agnostic, 1)
    assert (found, origin) == (pytest.approx(0.1, rel=1e-12), "unbounded")
    assert not agnostic_selected(lines, agnostic, 1, found)
    assert agnostic_selected(lines, agnostic, 1, 0.2)
    assert not agnostic_selected(lines, agnostic, 1, 0.31)


def test_where_only_lambdas_beyond_the_upper_end_hold_the_error_says_so():
    lines, agnostic = [(0.1, 0.5), (0.9, 0.9)], [True, False]
    assert not agnostic_selected(lines, agnostic, 1, 2.1)
    with pytest.raises(IdentificationError, match=r"^every lambda up to 0\.2 selects a language-"):
        search(lines, agnostic, 1)


def test_no_lambda_at_all_is_an_error_that_says_what_to_do():
    message = (
        "^every lambda selects a language-agnostic neuron among the 2 lowest scores: "
        "lower top_rate, raise tau, or give lambda_ a value$"
    )
    with pytest.raises(IdentificationError, match=message):
        search([(0.1, 0.9), (0.5, 0.5), (0.6, 0.4)], [True, False, False], 2)


def test_parallel_lines_far_apart_in_lambda_do_not_defeat_the_search():
    """Slopes that differ by 1e-9 cross at 8e8, where a score has few digits left."""
    lines, agnostic = [(0.9, 0.500000001), (0.8, 0.9), (0.1, 0.5)], [True, False, False]
    found, origin = search(lines, agnostic, 2)
    assert origin == "exact"
    assert found == pytest.approx(8e8, rel=1e-6)
    assert not agnostic_selected(lines, agnostic, 2, found)
    assert search(lines, agnostic, 1) == (0.2, "unbounded")


@pytest.mark.parametrize("seed", range(20))
def test_the_envelope_is_the_lowest_line_everywhere(seed):
    random = np.random.default_rng(seed)
    h, m = random.integers(0, 9, (2, 30)) / 8 if seed % 2 else random.random((2, 30))
    members = np.flatnonzero(random.random(30) < 0.5)
    segments = lower_envelope(h, m, members)
    assert segments[0].start == 0
    assert np.isinf(segments[-1].stop)
    for segment, following in zip(segments, segments[1:], strict=False):
        assert segment.stop == following.start
    for at in [*np.linspace(0, 3, 200), 1e6]:
        here = [s for s in segments if s.start <= at <= s.stop]
        assert here
        lowest = (h[members] - at * m[members]).min()
        for segment in here:
            assert h[segment.neuron] - at * m[segment.neuron] == pytest.approx(lowest, abs=1e-9)


# Lambda rounded down, for code that computes in float32


LANGUAGES = ("bn", "de", "en", "sw", "th", "zh")


def planted_counts(seed):
    """Counts of 1,200 neurons in six languages, 60 of them active in all; and the tokens."""
    random = np.random.default_rng(seed)
    tokens = random.integers(20_000, 90_000, 6)
    rate = random.beta(0.4, 4, (3, 400, 6)) * 0.7
    rate[:, :20] = random.beta(40, 4, (3, 20, 1)) * random.uniform(0.5, 1, (3, 20, 6))
    return random.binomial(tokens, rate), tokens


def identified(seed, **options):
    counts, tokens = planted_counts(seed)
    return identify(oracle.statistics_of(counts, tokens, LANGUAGES), top_rate=0.05, **options)


def float32_scores(counts, tokens, weight):
    """The score in float32 throughout, as the published code computes it."""
    number = np.float32
    p = counts.astype(number) / tokens.astype(number)
    shares = np.maximum(p / p.sum(-1, keepdims=True, dtype=number), number(1e-12))
    entropy = -(shares * np.log(shares)).sum(-1, dtype=number) / np.log(number(p.shape[-1]))
    expected = number(sum(1 / i for i in range(1, p.shape[-1] + 1)) / p.shape[-1])
    return entropy - number(weight) * (p.max(-1) / expected)


def float32_selects(counts, tokens, tau, weight, number):
    """How many language-agnostic neurons are among the lowest float32 scores."""
    agnostic = (counts / tokens > tau).all(-1).ravel()
    scores = float32_scores(counts, tokens, weight).ravel()
    return int(agnostic[np.argsort(scores, kind="stable")[:number]].sum())


def test_at_the_floor_float32_selects_no_agnostic_neuron_either():
    """At the supremum itself it does in more than half of these worlds (23 of 40)."""
    lower, exactly = 0, 0
    for seed in range(40):
        result, planted = identified(seed), planted_counts(seed)
        number, floor = int(result.selected.sum()), result.lambda_floor
        assert (result.lambda_origin, floor) == ("exact", round(floor, 6))
        assert floor <= result.lambda_
        lower += result.lambda_ - floor >= 1e-6
        assert float32_selects(*planted, result.tau, floor, number) == 0
        exactly += float32_selects(*planted, result.tau, result.lambda_, number) > 0
        again = identified(seed, lambda_=floor)
        assert again.histogram("selected")[-1] == 0
        assert again.lambda_floor is None
    assert exactly >= 15
    assert lower == 3  # three worlds in which rounding down alone is not enough for float32


def test_the_floor_is_checked_not_only_rounded():
    """The first neuron is agnostic, one is selected: the second up to lambda = 1.75, at best."""
    rows = np.array([[[0.9, 0.3]], [[0.9, 0.1]]])
    agnostic = np.array([[True, False]])
    crossing = (oracle.entropy([0.9, 0.9]) - oracle.entropy([0.3, 0.1])) / (
        oracle.maximum([0.9, 0.9]) - oracle.maximum([0.3, 0.1])
    )
    terms = score_terms(np.moveaxis(rows, 0, -1), ["de", "en"], np.float64, np.float32)
    assert floor_lambda(crossing, terms, agnostic, 1) == int(crossing * 1e6) / 1e6
    assert floor_lambda(crossing + 5e-6, terms, agnostic, 1) == int(crossing * 1e6) / 1e6
    assert floor_lambda(crossing + 0.001, terms, agnostic, 1) is None  # a hundred steps too many
    assert floor_lambda(0.2, terms, np.array([[False, False]]), 1) == 0.2
    assert floor_lambda(0.0, terms, np.array([[False, True]]), 1) is None


def test_both_are_printed_and_stored(tmp_path):
    result = identified(1)
    told = f"lambda {result.lambda_floor:.6f}, exactly {result.lambda_:.10g}"
    assert told in result.description
    path = result.save(tmp_path / "neurons.safetensors")
    read = LanguageNeurons.load(path)
    assert (read.lambda_, read.lambda_floor) == (result.lambda_, result.lambda_floor)
    lape = identified(1, score="lape")
    assert (lape.lambda_floor, "LAPE" in lape.description) == (None, True)
    # a file of an earlier lensneurons
    arrays, details = load_arrays(path, LanguageNeurons.FILE_KIND)
    assert details.pop("lambda_floor") == result.lambda_floor
    old = save_arrays(tmp_path / "old.safetensors", LanguageNeurons.FILE_KIND, arrays, details)
    read = LanguageNeurons.load(old)
    assert read.lambda_floor is None
    assert f"lambda {result.lambda_:.6g})" in read.description
