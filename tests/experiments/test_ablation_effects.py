"""What follows from effects by text: means, ratios, intervals, order, tables, files."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.ablation import AblationMatrix, _row_distances
from lensneurons.uncertainty.items import expanded_tail
from lensneurons.values.provenance import Provenance

# Two rows, three columns, two settings; five texts of three items. Item "c" lacks zh, "b" th.
ROWS, LANGUAGES, CLASSES = ("zh", "en"), ("en", "zh", "th"), ("specific", "related")
ITEMS = ("a", "b", "c", "a", "b", "a", "c")
LANGUAGE = np.array([0, 0, 0, 1, 1, 2, 2])
WEIGHT = np.array([2.0, 1.0, 5.0, 4.0, 4.0, 1.0, 3.0])
BASE = np.array([4.0, 3.0, 9.0, 10.0, 6.0, 2.0, 6.0])
EFFECT = np.array([
    [[0, 0, 0, 1, 3, 0, 0], [1, 0, 3, 0, 0, 0, 1]],
    [[0, 4, 0, 8, 0, 0, 2], [8, 8, 8, 2, 2, 6, -2]],
], float)  # fmt: skip
CONTROL = np.array([
    [[0, 0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0]],
    [[0, 0, 2, 2, 2, 1, 1], [2, 1, 1, 1, 1, 0, 0]],
], float)  # fmt: skip
SIZES = np.array([[3, 1], [7, 9]])


@pytest.fixture
def matrix() -> AblationMatrix:
    return AblationMatrix(
        ROWS, LANGUAGES, CLASSES, "nll", BASE, EFFECT, CONTROL, WEIGHT, LANGUAGE, ITEMS, SIZES, 20,
        Provenance(model="m<b>", scope="response"),
    )  # fmt: skip


def specific(names, effect, control, weight, language, item_ids) -> AblationMatrix:
    """A matrix of one setting whose rows are its columns."""
    sizes = np.ones((1, len(names)), np.int64)
    return AblationMatrix(
        names, names, ("specific",), "nll", weight, effect[None], control[None], weight, language,
        item_ids, sizes, 1,
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


def test_the_causal_ratio_has_no_value_where_the_control_is_0(matrix):
    nan, ratio = np.nan, matrix.causal_ratio()
    specific = matrix.causal_ratio("specific").estimate
    np.testing.assert_equal(specific, [[nan, 4, nan], [4, nan, nan]])
    np.testing.assert_equal(ratio.estimate, [[2, 2, 1], [6, 2, nan]])
    assert np.isnan(ratio.low).tolist() == np.isnan(ratio.high).tolist()
    assert np.argwhere(np.isnan(ratio.low)).tolist() == [[1, 2]]
    assert (ratio.low[1, 0] <= 6) & (6 <= ratio.high[1, 0])


def test_selectivity_is_the_own_effect_over_the_largest_other(matrix):
    assert matrix.selectivity().estimate.tolist() == [1 / 0.5, 3 / 1]
    np.testing.assert_equal(matrix.selectivity("specific").estimate, [np.nan, 0.5 / 0.25])
    effect = EFFECT.copy()
    effect[1, 0, 1] = -40  # a language that gets better by 5 nats is not the largest effect
    helped = replace(matrix, effect=effect)
    assert helped.cells()[0].tolist() == [-5, 1, 0.5]
    assert helped.selectivity().estimate[0] == 2


def test_a_row_that_is_no_column_has_no_selectivity_and_no_diagonal(matrix):
    other = replace(matrix, rows=("zh", "sw"))
    np.testing.assert_equal(other.selectivity().estimate, [2, np.nan])
    found = figures(other, "specific + related")
    assert found["mean diagonal"] == 1
    assert found["mean off-diagonal"] == (0.5 + 0.5 + 3 + 0.5 + 1) / 5
    assert "English on itself" not in found
    foreign = figures(replace(matrix, rows=("sw", "fr")), "specific")
    assert math.isnan(foreign["mean diagonal"])
    assert foreign["mean off-diagonal"] == pytest.approx(1.25 / 6)


def test_the_summary(matrix):
    table = matrix.summary()
    assert list(table.columns) == ["removed", "figure", "estimate", "low", "high"]
    assert table["removed"].unique().tolist() == ["specific", "specific + related"]
    expected = {
        "mean diagonal": (0.5, (1 + 3) / 2),
        "mean off-diagonal": (1 / 16, (0.5 + 0.5 + 0.5 + 1) / 4),
        "mean diagonal of the control": (1 / 8, 1 / 2),
        "diagonal / off-diagonal": (8, 2 / 0.625),
        "diagonal / control": (4, 4),
        "English on itself": (0.5, 3),
    }
    for place, removed in enumerate(("specific", "specific + related")):
        values = {name: pair[place] for name, pair in expected.items()}
        assert figures(matrix, removed) == pytest.approx(values)


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
        matrix.causal_ratio, matrix.selectivity, matrix.log_perplexity_difference,
        matrix.language_order, matrix.name_of,
    ):  # fmt: skip
        with pytest.raises(LensNeuronsError, match=message):
            ask("agnostic")


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
        (matrix.control_interval("related", level=0.9), CONTROL[1]),
    ):
        drawn = np.stack([drawn_by_hand(row) for row in values], axis=1)
        ends = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
        assert np.stack([ours.low, ours.high]) == pytest.approx(ends)
        assert ours.level == 0.9


def test_ratios_are_drawn_together(matrix):
    """Twice the control is sure to be twice the control, however far both move."""
    twice = replace(matrix, effect=2 * CONTROL)
    ratio = twice.causal_ratio()
    known = ~np.isnan(ratio.estimate)
    assert known.sum() == 5
    assert ratio.low[known] == pytest.approx(2)
    assert ratio.high[known] == pytest.approx(2)
    assert (twice.interval().high > twice.interval().low).any()
    for end in ("low", "high"):
        ratios = figures(twice, "specific + related", end)
        assert ratios["diagonal / control"] == pytest.approx(2)


def test_a_higher_level_is_wider(matrix):
    wide, narrow = matrix.interval(level=0.95), matrix.interval(level=0.3)
    assert (wide.low <= narrow.low).all()
    assert (narrow.high <= wide.high).all()
    table = matrix.to_pandas(level=0.3)
    for name, found in (("effect", narrow), ("control", matrix.control_interval(level=0.3))):
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
    assert np.isnan(one.causal_ratio().low).all()
    assert figures(one, "specific")["mean diagonal"] == 1
    assert math.isnan(figures(one, "specific", "low")["mean off-diagonal"])
    assert "off-diagonal nan" in repr(one)
    assert one.language_order() == ("zh",)


def test_a_single_item_has_cells_and_no_interval(matrix):
    single = replace(matrix, item_ids=("a",) * 7)
    assert np.array_equal(single.cells(), matrix.cells())
    assert repr(single) == repr(matrix)
    assert single._repr_html_() == matrix._repr_html_()
    with pytest.raises(LensNeuronsError, match="needs at least two items"):
        single.interval()


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
    fewer = {name: getattr(matrix, name)[:, :2] for name in ("effect", "control", "sizes")}
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
        "control", "control_low", "control_high",
    ]  # fmt: skip
    assert len(table) == 12
    chosen = table[(table["removed"] == "specific + related") & (table["row"] == "en")]
    assert chosen[["column", "neurons", "effect", "control"]].to_numpy().tolist() == [
        ["en", 9, 3, 0.5], ["zh", 9, 0.5, 0.25], ["th", 9, 1, 0],
    ]  # fmt: skip
    assert table["neurons"][:6].tolist() == [3, 3, 3, 1, 1, 1]
    assert (table["effect_low"] <= table["effect_high"]).all()


def test_it_shows_itself(matrix):
    shown = repr(matrix)
    assert shown.startswith("AblationMatrix(2 x 3, change of NLL, nats a token: specific: diagonal")
    assert "specific: diagonal 0.500, off-diagonal 0.062, control 0.125;" in shown
    assert "specific + related: diagonal 2.000, off-diagonal 0.625, control 0.500)" in shown
    html = replace(matrix, rows=("<script>", "en"))._repr_html_()
    assert "<script>" not in html
    assert "<td>&lt;script&gt;</td><td>7</td><td>0.500</td><td>1.000</td><td>0.500</td>" in html
    assert "AblationMatrix, specific + related removed: change of NLL, nats a token" in html
    assert "change of accuracy" in repr(replace(matrix, metric="accuracy"))
