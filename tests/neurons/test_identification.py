"""Identification against the oracle: tau, N, classes, owners, selection, sets, lambda."""

from __future__ import annotations

import inspect

import method_oracle as oracle
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import lensneurons.neurons.identification as identification
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import IdentificationError, LensNeuronsError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.values.provenance import Provenance

LANGUAGES = ("zh", "ar", "en", "sw", "bn", "th")
TOKENS = (97, 13, 40, 211, 8, 64)


@st.composite
def small_counts(draw):
    """Unequal token counts; dead, equal, single-language and always-on neurons among the rest."""
    layers, width, k = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 6)))
    tokens = TOKENS[:k]
    kinds = st.sampled_from(["any", "any", "any", "dead", "full", "one"])
    counts = []
    for _ in range(layers * width):
        kind = draw(kinds)
        row = [draw(st.integers(0, n)) for n in tokens]
        if kind in ("dead", "full"):
            row = [0 if kind == "dead" else n for n in tokens]
        if kind == "one":
            row = [n if i == 0 else 0 for i, n in enumerate(row)]
        counts.append(row)
    return np.array(counts, np.int64).reshape(layers, width, k)


def build(counts):
    """Outside the strategy: the shape checker draws random numbers, which hypothesis refuses."""
    k = counts.shape[-1]
    return oracle.statistics_of(counts, TOKENS[:k], LANGUAGES[:k])


def compare(result, statistics, percentile):
    """Everything that follows from tau and the selection."""
    p, k = statistics.probability.tolist(), len(statistics.languages)
    bar = oracle.tau(p, percentile)
    assert result.tau == bar
    n = [oracle.n_above(shares, bar) for shares in oracle.neurons_of(p)]
    assert result.n_above.ravel().tolist() == n
    assert result.histogram("all").tolist() == [n.count(i) for i in range(k + 1)]
    flat = range(len(n))
    names = [f"L{i // result.d_mlp}N{i % result.d_mlp}" for i in flat]
    assert [result.class_of(name) for name in names] == [oracle.class_name(i, k) for i in n]
    for name, shares in zip(names, oracle.neurons_of(p), strict=True):
        owners = tuple(t for t, v in zip(statistics.languages, shares, strict=True) if v > bar)
        assert result.languages_of(name) == owners
    chosen = set(np.flatnonzero(result.selected).tolist())
    for population, members in (("selected", chosen), ("all", set(flat))):
        view = result.with_population(population)
        sets = oracle.sets_of(p, bar, members, statistics.languages)
        for language, (specific, related) in sets.items():
            assert set(view.specific[language].flat.tolist()) == specific
            assert set(view.related[language].flat.tolist()) == related
            assert set(view[language].flat.tolist()) == specific | related
        assert view.histogram().tolist() == [[n[i] for i in members].count(j) for j in range(k + 1)]
        assert set(view.agnostic.flat.tolist()) == {i for i in flat if n[i] == k}


@settings(max_examples=80, deadline=None)
@given(small_counts(), st.floats(0, 2), st.floats(0.01, 0.6), st.floats(0.05, 0.99))
def test_a_given_lambda(counts, weight, rate, percentile):
    statistics = build(counts)
    assume(np.ptp(statistics.probability) > 0)
    result = identify(statistics, lambda_=weight, top_rate=rate, percentile=percentile)
    p = statistics.probability.tolist()
    scores = [oracle.score(shares, weight) for shares in oracle.neurons_of(p)]
    assert result.score.ravel() == pytest.approx(scores, abs=1e-9)
    number = oracle.number_selected(p, rate)
    ours = set(np.flatnonzero(result.selected).tolist())
    assert ours == oracle.lowest(result.score.ravel().tolist(), number)
    if oracle.is_clear_cut(scores, number):
        assert ours == oracle.lowest(scores, number)
    assert (result.lambda_, result.lambda_origin) == (weight, "given")
    compare(result, statistics, percentile)


@settings(max_examples=80, deadline=None)
@given(small_counts(), st.floats(0.01, 0.6), st.floats(0.05, 0.99))
def test_lape(counts, rate, percentile):
    statistics = build(counts)
    assume(np.ptp(statistics.probability) > 0)
    result = identify(statistics, score="lape", top_rate=rate, percentile=percentile)
    p = statistics.probability.tolist()
    bar = oracle.tau(p, percentile)
    alive = [s for s in oracle.neurons_of(p) if oracle.n_above(s, bar)]
    number = oracle.number_selected(p, rate)
    assert result.selected.sum() == min(number, len(alive))
    assert not (result.selected & (result.n_above == 0)).any()
    if oracle.is_clear_cut([oracle.entropy(s) for s in alive], number):
        ours = set(np.flatnonzero(result.selected).tolist())
        assert ours == oracle.select_lape(p, bar, rate)
    assert (result.lambda_, result.lambda_origin) == (None, "none")
    compare(result, statistics, percentile)


@settings(max_examples=80, deadline=None)
@given(small_counts(), st.floats(0.01, 0.6), st.floats(0.3, 0.95))
def test_automatic_lambda_selects_no_agnostic_neuron(counts, rate, percentile):
    statistics = build(counts)
    try:
        result = identify(statistics, top_rate=rate, percentile=percentile)
    except IdentificationError:  # its text is tested below
        return
    compare(result, statistics, percentile)
    assert result.histogram("selected")[-1] == 0
    assert set(result.agnostic.flat).isdisjoint(np.flatnonzero(result.selected))
    if result.lambda_origin == "exact":
        assert result.lambda_ is not None
        more = identify(
            statistics, lambda_=result.lambda_ * (1 + 1e-9) + 1e-12, top_rate=rate,
            percentile=percentile,
        )  # fmt: skip
        ties = len(np.unique(more.score)) < more.score.size
        assert more.histogram("selected")[-1] > 0 or ties
    else:
        assert "nothing bounds it" in result.description


@settings(max_examples=40, deadline=None)
@given(small_counts(), st.randoms(use_true_random=False), st.sampled_from(["paper", "lape"]))
def test_no_order_of_the_languages_changes_a_bit(counts, random, score):
    statistics = build(counts)
    order = list(statistics.languages)
    random.shuffle(order)
    options = {"score": score, "top_rate": 0.3, "percentile": 0.8}
    try:
        ours = identify(statistics, **options)
    except IdentificationError:
        assume(False)
    theirs = identify(statistics.select(order), **options)
    assert (ours.lambda_, ours.tau) == (theirs.lambda_, theirs.tau)
    assert ours.score.tobytes() == theirs.score.tobytes()
    assert ours.selected.tobytes() == theirs.selected.tobytes()
    assert ours.class_codes.tobytes() == theirs.class_codes.tobytes()
    assert theirs.languages == tuple(order)
    for language in order:
        assert ours.specific[language] == theirs.specific[language]
        assert ours.related[language] == theirs.related[language]


def plain():
    """Ten neurons, two languages: four of zh, two of en, one of both, three that sleep."""
    counts = [[9, 0], [8, 0], [7, 1], [8, 1], [0, 18], [1, 17], [10, 20], [0, 0], [0, 1], [1, 0]]
    return oracle.statistics_of([counts], [10, 20], ["zh", "en"])


def test_two_languages_by_hand():
    result = identify(plain(), top_rate=0.6, tau=0.5)
    assert result.n_above[0].tolist() == [1, 1, 1, 1, 1, 1, 2, 0, 0, 0]
    assert result.languages_of("L0N4") == ("en",)
    assert result.languages_of("L0N6") == ("zh", "en")
    assert result.class_of("L0N6") == "agnostic"
    assert list(result.with_population("all").specific["en"]) == ["L0N4", "L0N5"]
    assert not any(len(related) for related in result.related.values())
    assert result.tau_origin == "given"
    assert result.provenance == Provenance(model="oracle")
    lowest = identify(plain(), tau=0.0, lambda_=0.1)  # lets all in that fire at all
    assert lowest.n_above[0].tolist() == [1, 1, 2, 2, 1, 2, 2, 0, 1, 1]


def test_a_shared_tau_counts_memberships_that_a_runs_own_percentile_cannot():
    """Twice as many active neurons: at its own percentile nothing changes, at the first tau all."""
    random = np.random.default_rng(0)
    before = random.integers(0, 400, (2, 50, 3))
    first = oracle.statistics_of(before, [1000] * 3, ["zh", "en", "sw"])
    second = oracle.statistics_of(2 * before, [1000] * 3, ["zh", "en", "sw"])
    base = identify(first, lambda_=0.1, percentile=0.9)
    own = identify(second, lambda_=0.1, percentile=0.9)
    shared = identify(second, lambda_=0.1, tau=base.tau)
    assert own.above.sum() == base.above.sum()
    assert shared.tau == base.tau
    assert shared.above.sum() > 3 * base.above.sum()
    assert (shared.tau_origin, base.tau_origin) == ("given", "percentile 0.9")
    assert shared.above.tolist() == (second.probability > base.tau).tolist()


def test_nothing_bounds_lambda_and_the_result_says_so():
    statistics = oracle.statistics_of([[[5, 0], [0, 7], [1, 1]]], [10, 20], ["zh", "en"])
    result = identify(statistics, tau=0.3)
    assert (result.lambda_, result.lambda_origin) == (0.2, "unbounded")
    assert all("nothing bounds it" in text for text in (repr(result), result._repr_html_()))
    agnostic = oracle.statistics_of([[[9, 19], [9, 18]]], [10, 20], ["zh", "en"])
    with pytest.raises(IdentificationError, match="every lambda selects a language-agnostic"):
        identify(agnostic, tau=0.3)


def test_a_large_given_lambda_may_select_agnostic_neurons_and_sets_leave_them_out():
    result = identify(plain(), tau=0.5, lambda_=50.0, top_rate=0.1)
    assert result.histogram("selected").tolist() == [0, 0, 1]
    assert len(result["zh"]) == len(result["en"]) == 0
    assert result.layer_profile("selected").tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("score", ["paper", "lape"])
@pytest.mark.parametrize("tau", [None, 0.0, 0.5])
@pytest.mark.parametrize(
    ("active", "told"), [(0, "no neuron was ever active"), (3, "every probability is 0.3")]
)
def test_a_dead_model_has_nothing_to_identify(active, told, tau, score):
    counts, tokens = np.full((1, 2, 8, 2), active), np.full((1, 2), 10)
    with pytest.raises(IdentificationError, match=f"{told}, in any of the 2 languages: there is n"):
        identify(ActivationStatistics(("en", "zh"), counts, tokens), tau=tau, score=score)
    counts[0, 1, 3, 0] += 1  # one token of one neuron makes the difference
    found = identify(ActivationStatistics(("en", "zh"), counts, tokens), tau=0.0, lambda_=0.0)
    table = found.to_pandas()
    assert ((table["layer"] == 1) & (table["neuron"] == 3)).any()
    assert found.languages_of("L1N3") == (("en",) if active == 0 else ("en", "zh"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top_rate": 0.0}, r"top_rate=0\.0 is not a share between 0 and 1"),
        ({"top_rate": 1.0}, r"top_rate=1\.0 is not a share between 0 and 1"),
        ({"top_rate": float("nan")}, "top_rate=nan is not a share"),
        ({"percentile": 95.0}, r"percentile=95\.0 is not a share between 0 and 1"),
        ({"percentile": -0.1}, r"percentile=-0\.1 is not a share"),
        ({"tau": 1.0}, r"tau=1\.0 is not an activation probability in \[0, 1\)"),
        ({"tau": -0.1}, r"tau=-0\.1 is not an activation probability"),
        ({"tau": float("nan")}, "tau=nan is not an activation probability"),
        ({"lambda_": -0.1}, r"lambda_=-0\.1 must be zero or a positive number"),
        ({"lambda_": float("inf")}, "lambda_=inf must be zero or a positive number"),
        ({"lambda_": float("nan")}, "lambda_=nan must be zero or a positive number"),
        ({"lambda_": "best"}, r"lambda_='best': give a number or 'auto'"),
        ({"score": "lape", "lambda_": 0.1}, "LAPE has no lambda: leave lambda_ away"),
        ({"score": "lap"}, r"score='lap' is not known; choose one of \['paper', 'lape'\].*'lape'"),
        ({"population": "selcted"}, r"population='selcted' is not known.*Did you mean 'selected'"),
        ({"statistics": ["zh"]}, r"only \['zh'\] was counted: .* at least two"),
    ],
)
def test_bad_options_are_refused_with_the_value(options, text, monkeypatch):
    """As a user sees it: at test time the shape checker would refuse the type before."""
    for owner, name in (
        (identification, "identify"),
        (identification, "_check"),
        (LanguageNeurons, "__init__"),
    ):
        monkeypatch.setattr(owner, name, inspect.unwrap(getattr(owner, name)))
    misspelt = "is not known" in text
    given = options | {"statistics": plain().select(options.get("statistics", ["zh", "en"]))}
    with pytest.raises(LensNeuronsError if misspelt else IdentificationError, match=text):
        identification.identify(**given)
