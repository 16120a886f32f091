"""What follows from effects by text: means, ratios, intervals, order, tables, files."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.experiments.ablation_effects import FEWEST, AblationMatrix, _row_distances
from lensneurons.uncertainty.items import expanded_tail
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance

# Two rows, three columns, two settings; seven texts of three items. Item "c" lacks zh, "b" th.
ROWS, LANGUAGES, CLASSES = ("zh", "en"), ("en", "zh", "th"), ("specific", "related")
ITEMS = ("a", "b", "c", "a", "b", "a", "c")
LANGUAGE = np.array([0, 0, 0, 1, 1, 2, 2])
WEIGHT = np.array([2.0, 1.0, 5.0, 4.0, 4.0, 1.0, 3.0])
BASE = np.array([4.0, 3.0, 9.0, 10.0, 6.0, 2.0, 6.0])
EFFECT = np.array([
    [[0, 0, 0, 1, 3, 0, 0], [1, 0, 3, 0, 0, 0, 1]],
    [[0, 4, 0, 8, 0, 0, 2], [8, 8, 8, 2, 2, 6, -2]],
], float)  # fmt: skip
OWN = np.array([
    [[0, 0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0]],
    [[0, 0, 2, 2, 2, 1, 1], [2, 1, 1, 1, 1, 0, 0]],
], float)  # fmt: skip
MATCHES = ("own", "layer")
CONTROL = np.stack([OWN, OWN / 2 - 0.25 * (LANGUAGE == 1)])
COUNTS = np.array([[[3, 0], [0, 1]], [[4, 3], [8, 1]]])  # of two layers
KNOWN = ("th", "en", "zh")  # identified in another order
RATES = np.random.default_rng(2).uniform(0.1, 0.9, (3, 2, 2, 2, 3))
RATES[:, COUNTS == 0] = np.nan


@pytest.fixture(autouse=True)
def three_items_will_do(monkeypatch):
    """Intervals over the three items that can be followed by hand."""
    monkeypatch.setattr("lensneurons.experiments.ablation_effects.FEWEST", 2)


@pytest.fixture
def matrix() -> AblationMatrix:
    return AblationMatrix(
        ROWS, LANGUAGES, CLASSES, MATCHES, "nll", BASE, EFFECT, CONTROL, WEIGHT, LANGUAGE, ITEMS,
        COUNTS, KNOWN, RATES, 20, provenance=Provenance(model="m<b>", scope="response"),
    )  # fmt: skip


def specific(names, effect, control, weight, language, item_ids) -> AblationMatrix:
    """A matrix of one setting and control, whose rows are its columns."""
    counts = np.ones((1, len(names), 1), np.int64)
    rates = np.full((2, 1, len(names), 1, len(names)), 0.5)
    return AblationMatrix(
        names, names, ("specific",), ("own",), "nll", weight, effect[None], control[None, None],
        weight, language, item_ids, counts, names, rates, 1,
    )  # fmt: skip


def figures(matrix, removed: str, column: str = "estimate") -> dict[str, float]:
    table = matrix.summary()
    return table[table["removed"] == removed].set_index("figure")[column].to_dict()


# --- estimates ---


def test_cells_are_sums_over_tokens(matrix):
    """8, 8 and 4 tokens a language."""
    assert matrix.cells("specific").tolist() == [[0, 4 / 8, 0], [4 / 8, 0, 1 / 4]]
    assert matrix.cells("related").tolist() == [[4 / 8, 1, 2 / 4], [24 / 8, 4 / 8, 4 / 4]]
    assert np.array_equal(matrix.cells(), matrix.cells("related"))
    assert matrix.control_cells("specific").tolist() == [[0, 1 / 8, 0], [1 / 8, 0, 0]]
    assert matrix.control_cells().tolist() == [[2 / 8, 4 / 8, 2 / 4], [4 / 8, 2 / 8, 0]]
    layer = matrix.control_cells("related", "layer").tolist()
    assert layer == [[1 / 8, 2 / 8 - 1 / 16, 1 / 4], [2 / 8, 1 / 8 - 1 / 16, 0]]


def test_selectivity_is_the_own_effect_less_the_mean_of_the_others(matrix):
    """Rows zh and en on columns en, zh, th."""
    assert matrix.selectivity().estimate.tolist() == [1 - (0.5 + 0.5) / 2, 3 - (0.5 + 1) / 2]
    assert matrix.selectivity("specific").estimate.tolist() == [0.5, 0.5 - 0.25 / 2]
    own = matrix.selectivity(None, "own").estimate
    assert own.tolist() == [4 / 8 - (2 / 8 + 2 / 4) / 2, 4 / 8 - (2 / 8) / 2]
    layer = matrix.selectivity("related", "layer").estimate
    assert layer.tolist() == [3 / 16 - (1 / 8 + 1 / 4) / 2, 2 / 8 - (1 / 16) / 2]
    beyond = matrix.selectivity_beyond_control().estimate
    assert beyond.tolist() == (matrix.selectivity().estimate - own).tolist()
    beyond = matrix.selectivity_beyond_control("related", "layer").estimate
    assert beyond.tolist() == (matrix.selectivity().estimate - layer).tolist()
    worse = replace(matrix, metric="accuracy", effect=-EFFECT)  # signed, as the cells are
    assert worse.selectivity().estimate.tolist() == (-matrix.selectivity().estimate).tolist()


def test_effects_beyond_the_control(matrix):
    for match in MATCHES:
        found = matrix.beyond_control("specific", match)
        expected = matrix.cells("specific") - matrix.control_cells("specific", match)
        assert found.estimate.tolist() == expected.tolist()
        drawn = [drawn_by_hand(row) for row in EFFECT[0] - CONTROL[MATCHES.index(match), 0]]
        tail = expanded_tail(3, 0.95)
        ends = np.nanquantile(np.stack(drawn, axis=1), [tail, 1 - tail], axis=0)
        assert (found.low <= ends[0] + 1e-9).all()
        assert (found.high >= ends[1] - 1e-9).all()
    assert np.array_equal(matrix.beyond_control().estimate, matrix.cells() - matrix.control_cells())


def test_the_interval_of_a_selectivity_is_of_drawn_items(matrix):
    """Effects and controls of an item are drawn together, and languages that lack it are not."""
    cells, control = (
        np.stack([drawn_by_hand(row) for row in values[1]], 1) for values in (EFFECT, OWN)
    )

    def selective(drawn):  # of zh, the second column, and en, the first
        zh = drawn[:, 0, 1] - drawn[:, 0, [0, 2]].mean(-1)
        return np.stack([zh, drawn[:, 1, 0] - drawn[:, 1, 1:].mean(-1)], -1)

    tail = expanded_tail(3, 0.8)
    for found, drawn in (
        (matrix.selectivity(level=0.8), selective(cells)),
        (matrix.selectivity(None, "own", level=0.8), selective(control)),
        (matrix.selectivity_beyond_control(level=0.8), selective(cells) - selective(control)),
    ):
        ends = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
        assert (found.low <= ends[0] + 1e-9).all()
        assert (found.high >= ends[1] - 1e-9).all()


def test_a_ratio_needs_a_denominator_that_is_surely_not_0():
    """Two rows: the first harms the other language by 1 in every item, the second by 1 or -1."""
    item, language = np.tile(np.arange(6), 2), np.repeat([0, 1], 6)
    other = np.where(item % 2, 1.0, -1.0) * (language == 0) + 4.0 * (language == 1)
    effect = np.stack([np.where(language == 0, 3.0, 1.0), other])
    ids = tuple("abcdef"[i] for i in item)
    matrix = specific(("a", "b"), effect, effect / 2, np.ones(12), language, ids)
    ratio = matrix.selectivity_ratio()
    np.testing.assert_equal(ratio.estimate, [3, np.nan])
    np.testing.assert_equal([ratio.low[0], ratio.high[0]], [3, 3])
    assert np.isnan([ratio.low[1], ratio.high[1]]).all()
    control = matrix.selectivity_ratio("specific", "own")
    np.testing.assert_equal(control.estimate, [3, np.nan])
    assert matrix.selectivity().estimate.tolist() == [2, 4]  # a difference needs none


def test_a_row_that_is_no_column_has_no_selectivity_and_no_diagonal(matrix):
    other = replace(matrix, rows=("zh", "sw"), identified=("zh", "sw", "th"))
    np.testing.assert_equal(other.selectivity().estimate, [0.5, np.nan])
    found = figures(other, "specific + related")
    assert found["mean diagonal"] == 1
    assert found["selectivity"] == 0.5
    assert found["mean off-diagonal"] == (0.5 + 0.5 + 3 + 0.5 + 1) / 5
    assert "English on itself" not in found
    foreign = replace(matrix, rows=("sw", "fr"), identified=("fr", "sw", "th"))
    assert math.isnan(figures(foreign, "specific")["mean diagonal"])
    assert figures(foreign, "specific")["mean off-diagonal"] == pytest.approx(1.25 / 6)


def test_the_summary(matrix):
    table = matrix.summary()
    assert list(table.columns) == ["removed", "figure", "estimate", "low", "high"]
    assert table["removed"].unique().tolist() == ["specific", "specific + related"]
    expected = {
        "mean diagonal": (0.5, (1 + 3) / 2),
        "mean off-diagonal": (1 / 16, (0.5 + 0.5 + 0.5 + 1) / 4),
        "selectivity": (0.5 - 1 / 16, 2 - 2.5 / 4),
        "control (own): mean diagonal": (1 / 8, 1 / 2),
        "control (own): mean off-diagonal": (0, 1 / 4),
        "control (own): selectivity": (1 / 8, 1 / 4),
        "beyond control (own): mean diagonal": (3 / 8, 3 / 2),
        "beyond control (own): mean off-diagonal": (1 / 16, 2.5 / 4 - 1 / 4),
        "beyond control (own): selectivity": (7 / 16 - 1 / 8, 11 / 8 - 1 / 4),
        "English on itself": (0.5, 3),
    }
    for place, removed in enumerate(("specific", "specific + related")):
        values = {name: pair[place] for name, pair in expected.items()}
        found = figures(matrix, removed)
        assert {name: found[name] for name in values} == pytest.approx(values)
        own = matrix.matched(CLASSES[place]).query("match == 'own'")
        assert found["p in the own language"] == pytest.approx(own["p_own"].mean())
        of_control = found["control (own): p in the own language"]
        assert of_control == pytest.approx(own["control_p_own"].mean())
        ends = figures(matrix, removed, "low")
        assert math.isnan(ends["p in the own language"])
        assert not math.isnan(ends["beyond control (layer): selectivity"])


def test_how_well_the_controls_match(matrix):
    """Row en of "related": 8 neurons in layer 0, 1 in layer 1."""
    table = matrix.matched()
    row = table[(table["row"] == "en") & (table["match"] == "layer")].iloc[0]
    of_set, of_control = (RATES[side, 1, 1] for side in (0, 2))
    weigh = np.array([8, 1]) / 9
    own, th, zh = (KNOWN.index(k) for k in ("en", "th", "zh"))
    assert row["neurons"] == 9
    assert row["p_own"] == pytest.approx(weigh @ of_set[:, own])
    assert row["control_p_own"] == pytest.approx(weigh @ of_control[:, own])
    assert row["p_others"] == pytest.approx(weigh @ (of_set[:, th] + of_set[:, zh]) / 2)
    assert row["control_p_others"] == pytest.approx(weigh @ (of_control[:, [th, zh]]).mean(1))
    gaps = (of_control - of_set)[:, own]
    assert row["layer"] == np.abs(gaps).argmax()
    assert row["gap"] == pytest.approx(gaps[row["layer"]])
    assert list(table["row"]) == ["zh", "zh", "en", "en"]
    assert matrix.matched("specific")["layer"].tolist() == [0, 0, 1, 1]
    by_mean = replace(matrix, matches=("own", "activity")).matched().iloc[3]
    gaps = (of_control - of_set).mean(1)
    assert by_mean["gap"] == pytest.approx(gaps[np.abs(gaps).argmax()])


def test_the_change_of_perplexity_in_logarithms(matrix):
    """Mean NLLs of 2, 2 and 2 nats before."""
    before = math.exp(2)
    expected = [[math.log1p(math.exp(2 + c) - before) for c in row] for row in matrix.cells()]
    assert matrix.log_perplexity_difference() == pytest.approx(np.array(expected))
    assert matrix.log_perplexity_difference("specific")[0, 0] == 0
    better = replace(matrix, effect=EFFECT * [[[1]], [[-0.01]]]).log_perplexity_difference()
    assert better[0, 0] == pytest.approx(math.log1p(math.exp(2 - 0.005) - before))
    assert better[0, 0] < 0
    falls = replace(matrix, effect=np.where(EFFECT == -2, -8.0, EFFECT))  # th: -2/4 of a nat
    assert math.isnan(falls.log_perplexity_difference()[1, 2])
    assert not np.isnan(falls.log_perplexity_difference()[:, :2]).any()
    with pytest.raises(LensNeuronsError, match="perplexity needs metric='nll', these cells hold a"):
        replace(matrix, metric="accuracy").log_perplexity_difference()


def test_an_unknown_setting_is_refused(matrix):
    assert matrix.name_of("related") == matrix.name_of() == "specific + related"
    message = r"setting='agnostic' is not known; choose one of \['specific', 'related'\]"
    for ask in (
        matrix.cells, matrix.control_cells, matrix.interval, matrix.control_interval,
        matrix.selectivity, matrix.selectivity_ratio, matrix.beyond_control, matrix.matched,
        matrix.selectivity_beyond_control, matrix.log_perplexity_difference, matrix.figures,
        matrix.language_order, matrix.name_of,
    ):  # fmt: skip
        with pytest.raises(LensNeuronsError, match=message):
            ask("agnostic")
    message = r"match='activity' is not known; choose one of \['own', 'layer'\]"
    for ask in (
        matrix.control_cells, matrix.control_interval, matrix.beyond_control, matrix.selectivity,
        matrix.selectivity_ratio, matrix.selectivity_beyond_control,
    ):  # fmt: skip
        with pytest.raises(LensNeuronsError, match=message):
            ask("related", "activity")


# --- intervals ---


def drawn_by_hand(values, draws=1000):
    """Means of the drawn corpora, [draw, language], item by item."""
    times = np.random.default_rng(0).multinomial(3, [1 / 3] * 3, size=draws)
    found = np.full((draws, 3), np.nan)
    for d, row in enumerate(times):
        for k in range(3):
            texts = [i for i in range(len(ITEMS)) if LANGUAGE[i] == k]
            weight = sum(row["abc".index(ITEMS[i])] * WEIGHT[i] for i in texts)
            total = sum(row["abc".index(ITEMS[i])] * values[i] for i in texts)
            found[d, k] = total / weight if weight else np.nan
    return found


def test_intervals_are_of_drawn_items(matrix):
    tail = expanded_tail(3, 0.9)
    for ours, values in (
        (matrix.interval("related", level=0.9), EFFECT[1]),
        (matrix.control_interval("related", level=0.9), OWN[1]),
        (matrix.control_interval("related", "layer", level=0.9), CONTROL[1, 1]),
    ):
        drawn = np.stack([drawn_by_hand(row) for row in values], axis=1)
        ends = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
        assert (ours.low <= ends[0] + 1e-9).all()
        assert (ours.high >= ends[1] - 1e-9).all()
        assert ours.level == 0.9


def test_a_higher_level_is_wider(matrix):
    wide, narrow = matrix.interval(level=0.95), matrix.interval(level=0.3)
    assert (wide.low <= narrow.low).all()
    assert (narrow.high <= wide.high).all()
    table = matrix.to_pandas(level=0.3)
    for name, found in (
        ("effect", narrow),
        ("control_own", matrix.control_interval(level=0.3)),
        ("control_layer", matrix.control_interval(None, "layer", level=0.3)),
    ):
        assert table[f"{name}_low"][6:].to_numpy() == pytest.approx(found.low.ravel())
        assert table[f"{name}_high"][6:].to_numpy() == pytest.approx(found.high.ravel())


def test_the_mean_diagonal_covers_its_truth():
    """150 corpora of 25 items in 3 languages, texts of 5 to 40 tokens whose effect a token is 0.3,
    0.5 or 0.1 on the own language, 0.02 elsewhere, with noise of items and of texts: intervals of
    90 % hold the mean diagonal 0.3 in 90 %, give or take 3 standard errors."""
    random, n, k, corpora = np.random.default_rng(8), 25, 3, 150
    truth = np.where(np.eye(k, dtype=bool), [0.3, 0.5, 0.1], 0.02)
    ids, language = tuple(f"i{i}" for i in range(n)) * k, np.repeat(np.arange(k), n)
    held = 0
    for _ in range(corpora):
        weight = random.integers(5, 41, n * k).astype(float)
        item = np.tile(random.normal(1, 0.4, n), k)
        effect = truth[:, language] * item * random.gamma(4, 1 / 4, (k, n * k)) * weight
        matrix = specific(("a", "b", "c"), effect, 0.01 * effect, weight, language, ids)
        row = matrix.summary(level=0.9).iloc[0]
        assert row["figure"] == "mean diagonal"
        held += row["low"] <= 0.3 <= row["high"]
    assert abs(held / corpora - 0.9) < 3 * (0.9 * 0.1 / corpora) ** 0.5


# --- at the edges ---


def test_one_row_and_one_column_have_no_elsewhere(matrix):
    own = LANGUAGE == 1
    effect, language = EFFECT[1, :1, own].T, np.zeros(2, np.int64)
    one = specific(("zh",), effect, 0 * effect, WEIGHT[own], language, ("a", "b"))
    assert one.cells().tolist() == [[1.0]]
    assert math.isnan(one.selectivity().estimate[0])
    assert np.isnan(one.selectivity_ratio().estimate).all()
    assert figures(one, "specific")["mean diagonal"] == 1
    assert math.isnan(figures(one, "specific", "low")["mean off-diagonal"])
    assert "off-diagonal nan" in repr(one)
    assert one.language_order() == ("zh",)


def test_fewer_than_five_items_have_no_interval(matrix, monkeypatch):
    monkeypatch.setattr("lensneurons.experiments.ablation_effects.FEWEST", FEWEST)
    assert FEWEST == 5
    for ids, told in ((ITEMS, "3 items"), (("a",) * 7, "1 item")):
        few = replace(matrix, item_ids=ids)
        assert few.too_few == f"{told}: too few for an interval"
        assert repr(few).endswith(f"; {told}: too few for an interval)")
        assert np.array_equal(few.interval().estimate, matrix.cells())
        assert np.array_equal(few.selectivity().estimate, matrix.selectivity().estimate)
        for found in (few.interval(), few.beyond_control(), few.selectivity_beyond_control()):
            assert np.isnan([found.low, found.high]).all()
        table = few.summary().set_index("figure")
        assert table[["low", "high"]].isna().all(axis=None)
        assert table["estimate"]["diagonal / off-diagonal"].isna().all()
        with pytest.raises(LensNeuronsError, match="level=1"):
            few.interval(level=1.0)
    assert replace(matrix, item_ids=tuple("abcdefg")).too_few == ""


def test_a_language_with_few_items_has_no_interval_of_its_own(matrix, monkeypatch):
    """Three texts are in en, two in zh and th."""
    monkeypatch.setattr("lensneurons.experiments.ablation_effects.FEWEST", 3)
    assert np.isnan(matrix.interval().low).tolist() == [[False, True, True]] * 2
    assert np.isnan(matrix.selectivity().low).all()


# --- merely active, or the neurons of a language ---


def planted(own, others, control_own, control_others, *, items=60, seed=0):
    """Two languages; effects of a set and of its own-matched control, with noise of items."""
    random = np.random.default_rng(seed)
    language, item = np.repeat([0, 1], items), np.tile(np.arange(items), 2)
    is_own, hard = np.eye(2, dtype=bool)[:, language], random.gamma(9, 1 / 9, items)[item]
    noise = random.normal(0, 0.1, (2, 2, 2 * items))
    effect = np.where(is_own, own, others) * hard + noise[0]
    control = np.where(is_own, control_own, control_others) * hard + noise[1]
    ids = tuple(f"i{i}" for i in item)
    return specific(("a", "b"), effect, control, np.ones(2 * items), language, ids)


def test_the_headline_tells_merely_active_neurons_from_those_of_a_language():
    """The toy of the audit, the German neurons of a real model, and random neurons."""
    merely = planted(0.45, 0.06, 0.54, 0.36)
    german = planted(2.4, 0.02, 0.08, 0.02)
    random = planted(0.54, 0.36, 0.54, 0.36, seed=3)
    for matrix, selective, own in ((merely, True, False), (german, True, True)):
        assert (matrix.selectivity_beyond_control().low > 0).all() == selective
        beyond = matrix.beyond_control()
        assert (beyond.low.diagonal() > 0).all() == own
    assert (merely.beyond_control().high.diagonal() < 0).all()
    found = random.selectivity_beyond_control()
    assert ((found.low < 0) & (found.high > 0)).all()


# --- order of the languages ---


def test_similar_languages_stand_side_by_side():
    """Rows 0, 3 and 1, 4 harm the same languages, whatever they do to themselves; row 2 nobody."""
    names = ("zh", "de", "sw", "ja", "nl")
    cells = np.array([
        [9, 1, 0, 5, 0], [0, 9, 1, 1, 6], [2, 2, 9, 2, 2], [4, 2, 0, 8, 1], [0, 5, 2, 1, 8],
    ], float)  # fmt: skip
    effect, language, ids = np.tile(cells, 2), np.tile(np.arange(5), 2), tuple("aaaaabbbbb")
    matrix = specific(names, effect, 0 * effect, np.ones(10), language, ids)
    order = matrix.language_order()
    assert set(order) == set(names)
    assert abs(order.index("zh") - order.index("ja")) == 1
    assert abs(order.index("de") - order.index("nl")) == 1
    fewer = {name: getattr(matrix, name)[:, :2] for name in ("effect", "neurons_by_layer")}
    fewer |= {name: getattr(matrix, name)[:, :, :2] for name in ("control", "rates")}
    assert replace(matrix, rows=names[:2], **fewer).language_order() == ("zh", "de")


def test_effects_on_the_two_own_languages_do_not_make_rows_alike():
    """Columns 2 to 4 say opposite things; the own columns 0 and 1 would outweigh them."""
    cells = np.array([[90.0, 80, 0, 1, 2], [80, 90, 3, 2, 1]])
    distance = _row_distances(cells, np.eye(2, 5, dtype=bool))
    assert distance == pytest.approx(np.array([[0, 2], [2, 0]]))
    flat = np.array([[1.0, 0, 5, 5, 5], [0, 1, 3, 2, 1]])
    assert _row_distances(flat, np.eye(2, 5, dtype=bool))[0, 1] == 1


# --- as a value ---


def test_its_table_has_one_row_a_cell(matrix):
    table = matrix.to_pandas()
    assert list(table.columns) == [
        "removed", "row", "column", "neurons", "effect", "effect_low", "effect_high",
        "control_own", "control_own_low", "control_own_high",
        "control_layer", "control_layer_low", "control_layer_high", "placebo_p", "marked",
    ]  # fmt: skip
    assert len(table) == 12
    chosen = table[(table["removed"] == "specific + related") & (table["row"] == "en")]
    assert chosen[["column", "neurons", "effect", "control_own"]].to_numpy().tolist() == [
        ["en", 9, 3, 0.5], ["zh", 9, 0.5, 0.25], ["th", 9, 1, 0],
    ]  # fmt: skip
    assert table["neurons"][:6].tolist() == [3, 3, 3, 1, 1, 1]
    assert (table["effect_low"] <= table["effect_high"]).all()


def test_it_shows_itself(matrix):
    shown = repr(matrix)
    assert shown.startswith("AblationMatrix(2 x 3, method zero, change of NLL, nats a token: spec")
    assert "specific: diagonal 0.500, off-diagonal 0.062, selectivity 0.438 (controls: own" in shown
    assert "off-diagonal 0.625, selectivity 1.375 (controls: own 0.250, layer 0.109" in shown
    html = replace(matrix, rows=("<script>", "en"))._repr_html_()
    assert "<script>" not in html
    assert "<td>&lt;script&gt;</td><td>7</td><td>0.500</td><td>1.000</td><td>0.500</td>" in html
    assert "AblationMatrix, specific + related removed: change of NLL, nats a token" in html
    assert "change of accuracy" in repr(replace(matrix, metric="accuracy"))


def test_it_is_saved_and_one_of_shared_draws_is_refused(matrix, tmp_path):
    file = replace(matrix, method="mean", pool="unselected").save(tmp_path / "effects.safetensors")
    again = AblationMatrix.load(file)
    assert np.array_equal(again.control, CONTROL)
    np.testing.assert_equal(again.rates, RATES)
    assert (again.matches, again.method, again.pool) == (MATCHES, "mean", "unselected")
    assert again.to_xarray()["control"].sel(match="layer", setting="specific").shape == (2, 7)
    arrays, details = load_arrays(file, AblationMatrix.FILE_KIND)
    old = {name: arrays[name] for name in ("base", "effect", "weight", "language")}
    old |= {"control": CONTROL[0], "sizes": COUNTS.sum(-1)}
    for name in ("matches", "identified", "method", "pool"):
        del details[name]
    save_arrays(file, AblationMatrix.FILE_KIND, old, details)
    with pytest.raises(StorageError, match="made when items shared random sets .*: write it anew"):
        AblationMatrix.load(file)
