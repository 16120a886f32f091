"""Claims about one model: known answers by other means, planted models, bad input, the page."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations
from typing import Any

import model_worlds as planted
import numpy as np
import pytest
import tiny
from layer_profiles import MISTRAL, shapes
from scipy import stats

import lensneurons as ln
from lensneurons.comparison.paper_claims import Claims
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.plots.labels import plain
from lensneurons.studies import model_claims
from lensneurons.studies.model_claims import _deal

FLOOR = "more neurons have N = 10 than N = 9"
HARM = "specific + related neurons harm their own language more than random sets do"
MOST = "specific + related neurons harm their own language most, more so than random sets"
ALONE = "specific neurons alone do less than half the harm of specific + related ones"
ADDED = "adding agnostic neurons harms every language"
FEW = "English has fewer selected specific neurons than any other language"
WIDE = "selected related neurons of English are shared with the most languages"
LESS = "removing its neurons harms English less than theirs harm the other languages"
SHARED = "languages of one script share more selected related neurons than others"
HARMED = "removing a language's neurons harms others of its script more than the rest"


@cache
def world(*features: str, seed: int = 0):
    """Statistics, neurons, parts and matrix of a small planted model."""
    random = np.random.default_rng(seed)
    statistics, neurons, matrix = planted.planted(random, features, n_layers=16, d_mlp=300)
    return statistics, neurons, ln.divide_layers(neurons, statistics, draws=5), matrix


@cache
def judged(*features: str, seed: int = 0) -> Claims:
    statistics, neurons, parts, matrix = world(*features, seed=seed)
    return model_claims(neurons, statistics=statistics, parts=parts, effects=matrix)


def profiled(profile: np.ndarray) -> LanguageNeurons:
    """Neurons of four languages with a layer profile."""
    d_mlp = int(profile.sum(axis=1).max()) + 1
    number = np.zeros((len(profile), d_mlp), np.int64)
    for layer, counts in enumerate(profile):
        numbers = np.repeat([1, 2, 4], counts)
        number[layer, : len(numbers)] = numbers
    probability = 0.8 * (np.arange(4) < number[..., None])
    return replace(
        tiny.drawn_neurons(languages=("en", "zh", "ja", "de")),
        probability=probability,
        score=np.zeros(number.shape),
        selected=(number > 0) & (number < 4),
    )


# Known answers


def test_places_are_welch_tests_of_log_counts_over_the_layers() -> None:
    found = model_claims(profiled(MISTRAL))
    logs = np.log1p(MISTRAL)
    first, middle, last = logs[:8], logs[8:24], logs[24:]
    for claim, more, fewer, column in (
        ("specific neurons: more in the first quarter", first, middle, 0),
        ("related neurons: more in the last quarter", last, middle, 1),
        ("agnostic neurons: more in the middle half of the layers than in the l", middle, last, 2),
    ):
        (row,) = [row for row in found if row.claim.startswith(claim)]
        welch = stats.ttest_ind(more[:, column], fewer[:, column], equal_var=False)
        assert row.p == pytest.approx(welch.pvalue)
        assert (row.low, row.high) == pytest.approx(tuple(welch.confidence_interval()))


def test_parts_are_the_contrasts_of_divide_layers_at_the_level_of_the_claims() -> None:
    neurons = profiled(MISTRAL)
    parts = ln.divide_layers(neurons)
    found = model_claims(neurons, parts=parts, level=0.9)
    assert parts.found
    for criterion in parts.criteria:
        row = found[criterion.claim]
        assert row.measured == criterion.contrast
        assert (row.low, row.high) == pytest.approx((criterion.low, criterion.high), abs=1e-4)
        error = (criterion.high - criterion.low) / 2 / 1.6449
        assert row.p == pytest.approx(2 * stats.norm.sf(criterion.contrast / error), rel=0.02)
        assert row.verdict == "holds"


def test_adjusted_p_values_are_holms_over_all_that_were_tested() -> None:
    found = judged(*planted.FEATURES)
    p = np.array([row.p for row in found if not np.isnan(row.p)])
    adjusted = [row.p_adjusted for row in found if not np.isnan(row.p)]
    order, worst, expected = np.argsort(p), 0.0, np.empty(len(p))
    for place, which in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[which]))
        expected[which] = worst
    assert adjusted == pytest.approx(list(expected))


def test_the_floor_is_a_log_ratio_with_errors_of_neurons_and_of_texts() -> None:
    statistics, neurons, *_ = world(*planted.FEATURES)
    row = judged(*planted.FEATURES)[FLOOR]
    nine, ten = neurons.histogram("all")[-2:] + 0.5
    assert row.measured == pytest.approx(np.log(ten / nine))
    random, ratios = np.random.default_rng(9), []
    for _ in range(200):  # groups drawn apart from the code under test
        groups = random.integers(0, 10, 10)
        p = statistics.grouped_counts[groups].sum(0) / statistics.grouped_tokens[groups].sum(0)
        number = (p > planted.TAU).sum(-1)
        ratios.append(np.log(((number == 10).sum() + 0.5) / ((number == 9).sum() + 0.5)))
    error = np.sqrt(1 / nine + 1 / ten + np.var(ratios, ddof=1) * 10 / 9)
    assert (row.high - row.low) / 2 == pytest.approx(2.0 * error, rel=0.1)


def test_removal_is_a_sum_over_items_beyond_their_own_random_sets() -> None:
    *_, matrix = world(*planted.FEATURES)
    shape = (3, 10, matrix.n_items, 10)
    weight = matrix.weight.reshape(shape[2:])
    effect, control = matrix.effect.reshape(shape), matrix.control[0].reshape(shape)

    def cells(values, keep):
        return np.array([
            [(row[keep, k].sum() / weight[keep, k].sum()) for k in range(10)] for row in values
        ])  # fmt: skip

    def measures(setting, keep):
        own = cells(effect[setting] - control[setting], keep)
        return own.diagonal().mean(), np.mean(own.diagonal() - (own.sum(1) - own.diagonal()) / 9)

    every = np.ones(matrix.n_items, bool)
    found = judged(*planted.FEATURES)
    assert (found[HARM].measured, found[MOST].measured) == pytest.approx(measures(1, every))
    alone = measures(1, every)[0] / 2 - measures(0, every)[0]
    assert found[ALONE].measured == pytest.approx(alone)
    added = cells(effect[2] - effect[1], every).mean(axis=0)
    assert found[ADDED].measured == pytest.approx(added.min())
    diagonal = cells(effect[1] - control[1], every).diagonal()
    assert found[LESS].measured == pytest.approx(diagonal[1:].mean() - diagonal[0])
    # The error, from leaving out one item at a time: that of items, and of one more random set.
    one_out = [np.arange(matrix.n_items) != item for item in range(matrix.n_items)]
    left = [[measures(1, keep)[0], cells(control[1], keep).diagonal().mean()] for keep in one_out]
    variance = np.var(left, axis=0) * (matrix.n_items - 1)
    error = np.sqrt(variance[0] + matrix.n_items * variance[1])
    reach = stats.t.ppf(0.975, matrix.n_items - 1) * error
    assert (found[HARM].high - found[HARM].low) / 2 == pytest.approx(reach, rel=0.05)


def test_english_is_the_least_lead_over_the_other_languages() -> None:
    _, neurons, *_ = world(*planted.FEATURES)
    found = judged(*planted.FEATURES)
    specific = [len(neurons.specific[k]) for k in planted.LANGUAGES]
    assert found[FEW].measured == min(specific[1:]) - specific[0]
    number = {k: neurons.n_above.flat[neurons.related[k].flat].mean() for k in planted.LANGUAGES}
    others = max(value for k, value in number.items() if k != "en")
    assert found[WIDE].measured == pytest.approx(number["en"] - others)


def test_dealing_languages_agrees_with_all_deals_and_its_interval_with_its_p() -> None:
    random = np.random.default_rng(3)
    table = random.normal(size=(7, 7))
    table = table + table.T
    group = np.array([0, 0, 0, 1, 1, 2, 3])
    same = group[:, None] == group

    def difference(values, dealt):
        one, other = np.triu_indices(7, 1)
        inside = dealt[one, other]
        return values[one, other][inside].mean() - values[one, other][~inside].mean()

    table += 1.5 * same
    deals = [same[np.ix_(order, order)] for order in permutations(range(7))]
    reached = np.array([difference(table, dealt) for dealt in deals])
    measured, low, high, p = _deal(table, same, 0.95)
    assert measured == pytest.approx(difference(table, same))
    up = (reached >= measured - 1e-9).mean()
    assert p == pytest.approx(2 * min(up, (reached <= measured + 1e-9).mean()), abs=0.01)
    for end, where in ((low, "up"), (high, "down")):  # at its ends the test is just about refused
        moved = table - end * same
        reached = np.array([difference(moved, dealt) for dealt in deals])
        own = difference(moved, same)
        share = (reached >= own - 1e-9) if where == "up" else (reached <= own + 1e-9)
        assert share.mean() == pytest.approx(0.025, abs=0.006)


def test_too_few_deals_have_a_p_but_no_interval() -> None:
    same = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool)
    measured, low, high, p = _deal(np.array([[0, 5, 1], [5, 0, 2], [1, 2, 0.0]]), same, 0.95)
    assert measured == pytest.approx(3.5)
    assert np.isnan([low, high]).all()
    assert p == pytest.approx(2 / 3, abs=0.02)


# Planted models


def test_what_is_planted_holds() -> None:
    found = judged(*planted.FEATURES)
    planted_claims = (FLOOR, HARM, MOST, ALONE, ADDED, LESS, SHARED, HARMED)
    assert {claim: found[claim].verdict for claim in planted_claims} == dict.fromkeys(
        planted_claims, "holds"
    )
    assert not [row.claim for row in found if row.verdict == "does not hold"]


def test_nothing_that_is_not_planted_holds() -> None:
    wrong = [planted.false_holds(judged(seed=seed), ()) for seed in range(8)]
    assert sum(map(bool, wrong)) <= 1
    half = ("floor", "removal")
    assert planted.false_holds(judged(*half, seed=1), half) == []


def test_no_contrast_of_a_part_that_is_not_there_holds() -> None:
    random, favoured = np.random.default_rng(0), 0
    for _ in range(20):
        profile = shapes()["monotone"](18, random).round().astype(np.int64)
        neurons = profiled(profile)
        parts = ln.divide_layers(neurons, draws=2)
        there = {part.number for part in parts.parts}
        found = model_claims(neurons, parts=parts)
        for criterion in parts.criteria:
            row = found[criterion.claim]
            if criterion.part and criterion.part not in there:
                assert row.verdict == "undecided"
                assert row.reason.startswith(f"part {criterion.part} was not found")
                favoured += criterion.verdict == "holds"
    assert favoured > 10  # without the rule they would


# Missing and bad input


def test_without_inputs_claims_are_undecided_and_say_which() -> None:
    neurons = world()[1]
    found = model_claims(neurons)
    assert "divide_layers" in found["the four parts"].reason
    for claim in (HARM, ADDED, LESS, HARMED):
        assert found[claim].verdict == "undecided"
        assert "effects were not given" in found[claim].reason
    for claim in (FLOOR, FEW, WIDE):
        assert "no interval without groups of items" in found[claim].reason
        assert np.isfinite(found[claim].measured)
    assert np.isfinite(found[SHARED].p)


def two_settings(matrix) -> dict[str, Any]:
    """The fields of a matrix without its last setting."""
    first = {"effect": matrix.effect[:2], "neurons_by_layer": matrix.neurons_by_layer[:2]}
    both = {"control": matrix.control[:, :2], "rates": matrix.rates[:, :2]}
    return {"classes": ("specific", "related"), **first, **both}


def test_a_matrix_that_lacks_something_leaves_claims_undecided() -> None:
    _, neurons, _, matrix = world(*planted.FEATURES)
    for lacking, claim, told in (
        ({"matches": ("activity",)}, HARM, "match='own'"),
        (two_settings(matrix), ADDED, "lack the setting 'agnostic'"),
        ({"item_ids": tuple("abcd" * 50)}, HARM, "4 items: too few"),
    ):
        row = model_claims(neurons, effects=replace(matrix, **lacking))[claim]
        assert row.verdict == "undecided"
        assert told in row.reason


def test_languages_without_english_or_a_common_script() -> None:
    statistics = world()[0].select(("ru", "zh", "th", "bn"))
    neurons = ln.identify(statistics, tau=planted.TAU, top_rate=0.04)
    found = model_claims(neurons, statistics=statistics)
    assert found[FEW].reason == "English was not counted"
    assert found[SHARED].reason == "there are no pairs of one script, or no others"


def test_few_layers_and_made_up_languages_are_no_crash() -> None:
    neurons = replace(profiled(MISTRAL[:6]), languages=("a1", "b2", "c3", "d4"))
    found = model_claims(neurons)
    places = [row for row in found if " of the layers " in row.claim]
    assert len(places) == 6
    assert all("6 layers are too few" in row.reason for row in places)


def test_inputs_of_other_neurons_are_refused() -> None:
    statistics, neurons, _, matrix = world()
    other = world(seed=1)
    with pytest.raises(LensNeuronsError, match="other activation probabilities"):
        model_claims(neurons, statistics=other[0])
    with pytest.raises(LensNeuronsError, match="another layer profile"):
        model_claims(neurons, parts=other[2])
    with pytest.raises(LensNeuronsError, match="effects are of neurons of"):
        model_claims(neurons, effects=replace(matrix, identified=tuple("abcdefghij")))
    with pytest.raises(LensNeuronsError, match="claims are about NLL"):
        model_claims(neurons, effects=replace(matrix, metric="accuracy"))
    with pytest.raises(LensNeuronsError, match="level=1"):
        model_claims(neurons, statistics=statistics, level=1.0)


# Shown and saved


def test_file_figure_and_page_are_about_one_model(tmp_path) -> None:
    _, neurons, parts, _ = world(*planted.FEATURES)
    found = judged(*planted.FEATURES)
    again = Claims.load(found.save(tmp_path / "claims.json"))
    assert [str(row) for row in again] == [str(row) for row in found]
    assert not again.about_changes
    notes = ln.plots.claims(again).layout.meta["notes"]
    assert plain("one model") in notes[0].lower()
    assert not [note for note in notes if "hange" in note]
    page = ln.report(tmp_path / "page.html", neurons, parts=parts, claims=again).read_text("utf-8")
    assert 'id="claims"' in page
    assert 'id="change"' not in page
    assert "claims about one model" in page
    assert "claims about alignment" not in page
    assert "equal rise" not in page
    assert "uniform" not in again._repr_html_()
