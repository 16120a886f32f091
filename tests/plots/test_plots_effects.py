"""Figures of ablation, patching and steering: their numbers, true titles, size and hostile text."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from figure_values import (
    BIG,
    MANY,
    TEN,
    lines,
    make_carry,
    make_curve,
    make_matrix,
    subtitle,
    ticks,
    title,
    turning,
    with_alike,
)

from lensneurons import plots
from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.carrying import OUTCOMES
from lensneurons.experiments.setting_means import setting_means
from lensneurons.plots import ablation, numbers
from lensneurons.plots.style import TEMPLATES

CLASSES = ("specific", "related", "agnostic")


@pytest.mark.parametrize("order", ["given", "clustered"])
@pytest.mark.parametrize("rows", [TEN, ("th", "en", "sw"), ("zh",)])
def test_every_cell_has_its_effect_its_control_and_their_intervals(
    order: str, rows: tuple[str, ...]
) -> None:
    matrix = make_matrix(*BIG, rows=rows)
    figure = plots.ablation_effects(matrix, order=order)
    table = matrix.to_pandas().set_index(["removed", "row", "column"])
    names = ["neurons", "effect", "effect_low", "effect_high"]
    names += ["control_own", "control_own_low", "control_own_high"]
    y, x = ticks(figure, "yaxis"), ticks(figure, "xaxis")
    assert sorted(y) == sorted(rows)
    assert sorted(x) == sorted(TEN)
    assert x[: len(y)] == y
    for number, trace in enumerate(figure.data):
        setting = matrix.name_of(CLASSES[number // 2])
        for i, row in enumerate(y):
            expected = table.loc[[(setting, row, column) for column in x], names].to_numpy()
            assert np.allclose(trace.customdata[i], expected, rtol=1e-5)
            shown = expected[:, 4 if number % 2 else 1]
            assert np.allclose(trace.z[i], np.sign(shown) * np.sqrt(np.abs(shown)), rtol=1e-4)
            marks = table.loc[[(setting, row, column) for column in x], "marked"].tolist()
            told = zip(map(numbers.small_change, shown), marks, strict=True)
            bold = [f"<b>{text}</b>" if mark and number % 2 == 0 else text for text, mark in told]
            assert [*trace.text[i]] == bold
    assert trace.hovertext[0][1].count("→") == 1
    if order == "given":
        assert tuple(y) == rows


def test_own_cells_are_outlined_wherever_they_are() -> None:
    matrix = make_matrix((1.0, 0.1, 0.0), languages=("en", "zh", "th"), rows=("th", "sw", "en"))
    figure = plots.ablation_effects(matrix, order="given")
    assert ticks(figure, "xaxis") == ["th", "en", "zh"]
    for shape in figure.layout.shapes:
        assert shape.path == "M-0.5,-0.5H0.5V0.5H-0.5ZM0.5,1.5H1.5V2.5H0.5Z"
    assert len(figure.layout.shapes) == 2
    strangers = make_matrix((1.0, 0.2, 0.0), languages=("en", "zh"), rows=("th",))
    figure = plots.ablation_effects(strangers)
    assert not figure.layout.shapes
    assert title(figure).startswith(
        "Removing specific neurons hurts other languages more than removing random neurons as "
        "active in that language: +0.20 nats a token in other languages and "
    )
    better = make_matrix((1.0, -0.2, -0.4), languages=("en", "zh"), rows=("th",))
    told = "Removing specific neurons does not measurably hurt other languages: −0.20 nats a token"
    assert title(plots.ablation_effects(better)).startswith(told)
    assert "own language not defined" in subtitle(figure)


ACTIVE = "random neurons as active in that language"


@pytest.mark.parametrize(
    ("levels", "told", "beyond"),
    [
        (((1.2, 0.1, 0.03),), f"is more selective than removing {ACTIVE}: +1.10 against",
         "more; and more"),
        (((0.5, 0.5, 0.03),), "hurts their own language not measurably more than others: +0.5",
         "more; but not measurably more"),
        (((0.5, 1.5, 0.03),), "hurts other languages more than their own: +0.50", "more; but less"),
        (((0.1, 0.1, 0.1),), "hurts their own language not measurably more than others",
         "not measurably more; and not measurably more"),
        (((0.3, 0.0, 0.9),), f"is more selective than removing {ACTIVE}: +0.30", "less; but more"),
        (((0.3, 0.0, 0.3),), f"is more selective than removing {ACTIVE}: +0.30",
         "not measurably more; but more"),
        (((-0.5, 0.0, 0.0),), "does not measurably hurt their own language: −0.50",
         "less; and less"),
        (BIG, "Removing specific + related neurons is more selective than removing random",
         "more; and more"),
    ],
)  # fmt: skip
def test_title_and_notes_say_what_was_planted(levels: tuple, told: str, beyond: str) -> None:
    """The two cases that look alike in effects: needed by a language, or merely active in it."""
    matrix = make_matrix(*levels, noise=0.05)
    figure = plots.ablation_effects(matrix)
    assert told in title(figure)
    more, selective = beyond.split("; ")
    verdict = f"neurons matter {more} to their language than random neurons as active in it ("
    assert verdict in subtitle(figure)
    assert f"{selective} selectively (" in subtitle(figure)
    summary = matrix.summary().set_index(["removed", "figure"])
    for setting in map(matrix.name_of, matrix.classes):
        names = ["mean diagonal", "mean off-diagonal", "selectivity"]
        names += [f"control ({match}): selectivity" for match in matrix.matches]
        for name in names:
            number = summary.loc[(setting, name)]
            ends = numbers.with_ends(number.estimate, number.low, number.high)
            assert ends in subtitle(figure)


def told_of(figure: go.Figure) -> str:
    heads = [one.text for one in figure.layout.annotations if "random, " in (one.text or "")]
    return " | ".join([title(figure), subtitle(figure), *heads])


@pytest.mark.parametrize("change", ["less", "more"])
def test_random_neurons_are_called_as_active_only_where_they_are(change: str) -> None:
    """One layer of one row that misses its match takes the word away, in its setting alone."""
    matrix = make_matrix((0.2, 0.0, 0.0), (1.2, 0.1, 0.03))
    assert told_of(plots.ablation_effects(matrix)).count("as active in that language") == 2
    own = [matrix.identified.index(row) for row in matrix.rows]
    rates = matrix.rates.copy()
    rates[:, 1] = 0.9
    rates[1, 1, np.arange(10), :, own] = 0.85 if change == "less" else 0.95
    near = replace(matrix, rates=rates)  # off by as little as a match may be
    assert told_of(plots.ablation_effects(near)).count("as active in that language") == 2
    rates[1, 1, 3, :, own[3]] = 0.6 if change == "less" else 1.2
    mean = f"(p {0.825 if change == 'less' else 0.975:.2f} against 0.90)"
    far = replace(matrix, rates=rates)
    related = setting_means(far)[1]
    told = ablation.headline(far, related)
    assert f"than removing random neurons {change} active in that language {mean}: +1.1" in told
    told = ablation.told_beyond(far, related)
    assert f"to their language than random neurons {change} active in it {mean} (" in told
    told = told_of(plots.ablation_effects(far))
    shown = f"as active in that language, for specific, or {change} active in that language {mean}"
    assert f"panels show those {shown}, for specific + related; each" in told
    assert f"+ related: random, {change} active" in told
    assert "specific: random, as active" in told
    assert told.count("as active in that language") == 2  # in the title, of the other setting
    assert ablation.as_active(matrix, "related", "layer") == "of the same layers"
    assert ablation.as_active(replace(matrix, rates=rates), "specific", "own").startswith("as ")


def test_a_miss_that_the_means_hide_is_told() -> None:
    matrix = make_matrix((1.2, 0.1, 0.03))
    rates = np.full_like(matrix.rates, 0.5)
    rates[2, 0, 0, :, :], rates[2, 0, 1, :, :] = 0.1, 0.9
    told = ablation.as_active(replace(matrix, rates=rates), "specific", "activity")
    assert told == "about as active on average over the languages"
    rates[2, 0, 1, :, :] = 0.5
    told = ablation.as_active(replace(matrix, rates=rates), "specific", "activity")
    assert told == "less active on average over the languages (p 0.46 against 0.50)"


def test_title_is_about_the_setting_farthest_beyond_its_control() -> None:
    """The second is more selective, but so are its random sets."""
    matrix = make_matrix((1.0, 0.5, 0.0), (3.0, 0.1, 0.0))
    control = matrix.control.copy()
    own = np.repeat(np.eye(10, dtype=bool), 12, axis=1)
    control[0, 1][own] = (2.9 * np.tile(matrix.weight, (10, 1)))[own]
    assert title(plots.ablation_effects(replace(matrix, control=control))).startswith(
        "Removing specific neurons is more selective"
    )


def test_title_prefers_a_setting_whose_random_neurons_are_as_active() -> None:
    """The second goes farther, but how much of that is activity, its control cannot tell."""
    matrix = make_matrix((1.0, 0.0, 0.0), (3.0, 0.1, 0.0))
    assert title(plots.ablation_effects(matrix)).startswith("Removing specific + related neurons")
    rates = matrix.rates.copy()
    rates[1, 1] /= 2
    told = title(plots.ablation_effects(replace(matrix, rates=rates)))
    assert told.startswith(f"Removing specific neurons is more selective than removing {ACTIVE}")
    rates[1, 0] /= 2
    told = title(plots.ablation_effects(replace(matrix, rates=rates)))
    assert told.startswith("Removing specific + related neurons is more selective")


def test_title_of_accuracy_takes_a_loss_for_harm() -> None:
    figure = plots.ablation_effects(make_matrix((-0.26, -0.03, -0.02), metric="accuracy", items=40))
    told = f"Removing specific neurons is more selective than removing {ACTIVE}: −0.23 against"
    assert title(figure).startswith(told)
    assert "matter more to their language" in subtitle(figure)
    assert "change of accuracy, negative is worse" in subtitle(figure).lower()
    assert figure.layout.coloraxis.reversescale
    gain = plots.ablation_effects(make_matrix((0.26, 0.0, 0.0), metric="accuracy"))
    assert "does not measurably hurt their own language" in title(gain)


def test_one_language_alone_and_a_set_without_neurons() -> None:
    matrix = make_matrix((1.0, 0.0, 0.02), languages=("sw",))
    told = title(plots.ablation_effects(matrix))
    assert told.startswith("Removing specific neurons hurts their own language more than removing")
    assert "others not defined" in subtitle(plots.ablation_effects(matrix))
    assert "selectively" not in subtitle(plots.ablation_effects(matrix))
    matrix = make_matrix((1.0, 0.0, 0.02), languages=("en", "sw"))
    effect, control = matrix.effect.copy(), matrix.control.copy()
    effect[:, 1] = control[:, :, 1] = 0
    counts = np.array([[[4], [0]]])
    empty = replace(matrix, neurons_by_layer=counts, effect=effect, control=control)
    figure = plots.ablation_effects(empty)
    assert "none to remove for Swahili (sw)" in subtitle(figure)
    assert "Bold (1 cell)" in subtitle(figure)  # English on itself alone
    nothing = replace(empty, neurons_by_layer=0 * counts, effect=0 * effect, control=0 * control)
    figure = plots.ablation_effects(nothing)
    assert title(figure) == "Nothing was removed: these languages have no specific neurons"
    assert "matter" not in subtitle(figure)


def test_other_controls_are_named_for_what_they_are() -> None:
    matrix = make_matrix((1.0, 0.1, 0.03))
    layer = replace(matrix, matches=("layer",), control=matrix.control[2:], rates=matrix.rates[:2])
    figure = plots.ablation_effects(layer)
    assert "than removing random neurons of the same layers: +0.90 against" in title(figure)
    assert "own (" not in subtitle(figure)
    assert figure.layout.annotations[1].text == "<b>specific: random, same layers</b>"


def test_all_panels_share_one_scale_around_zero() -> None:
    matrix = make_matrix(*BIG, languages=TEN[:4])
    figure = plots.ablation_effects(matrix)
    axis = figure.layout.coloraxis
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    most = max(np.abs(matrix.cells(setting)).max() for setting in CLASSES)
    assert axis.cmax == -axis.cmin == pytest.approx(np.sqrt(most), rel=1e-6)
    assert axis.autocolorscale  # the colours are those of the theme
    assert axis.colorscale is None
    middles = [TEMPLATES[theme].layout.colorscale.diverging[3] for theme in ("light", "dark")]
    assert middles == [(0.5, "#f6f7f9"), (0.5, "#20252d")]
    assert axis.colorbar.ticktext[3] == "0"
    assert axis.colorbar.tickvals[-1] == pytest.approx(axis.cmax)
    assert any("square root" in note.text for note in figure.layout.annotations)
    even = plots.ablation_effects(make_matrix((0.5, 0.1, 0.0), (1.2, 0.2, 0.0)))
    assert even.layout.coloraxis.cmax > 1.2
    assert not any("square root" in note.text for note in even.layout.annotations)


def test_effects_like_those_of_the_control_stay_pale() -> None:
    matrix = make_matrix((0.05, 0.05, 0.05), noise=0.001)
    end = plots.ablation_effects(matrix).layout.coloraxis.cmax
    assert end == pytest.approx(3 * matrix.control_cells().max(), rel=1e-5)
    assert ablation.scale_end([np.zeros((2, 2))], [np.full((2, 2), np.nan)]) == 1


@pytest.mark.parametrize(
    ("settings", "k", "controls", "down", "fits"),
    [
        (1, 10, True, 1, True), (2, 10, True, 2, True), (3, 10, True, 2, True),
        (3, 10, False, 1, True), (3, 12, True, 3, True), (3, 26, True, 3, False),
        (3, 26, False, 3, True), (1, 2, False, 1, True),
    ],
)  # fmt: skip
def test_panels_keep_numbers_readable_or_leave_them_out(
    settings: int, k: int, controls: bool, down: int, fits: bool
) -> None:
    grid = ablation.panel_grid(settings, k, k, controls)
    assert grid.down == down
    assert grid.down * grid.across == settings * (1 + controls)
    assert bool(grid.font_size(4)) == fits
    assert grid.font_size(4) * 4 * 0.58 <= grid.cell
    places = {grid.place(s, c) for s in range(settings) for c in range(1 + controls)}
    assert places == {(r + 1, c + 1) for r in range(grid.down) for c in range(grid.across)}


def test_controls_can_be_left_out_but_are_told() -> None:
    matrix = make_matrix(*BIG, languages=TEN[:3])
    figure = plots.ablation_effects(matrix, controls=False)
    assert len(figure.data) == 3
    assert title(figure) == title(plots.ablation_effects(matrix))
    assert "20 sets in all" in subtitle(figure)


def test_clustering_is_that_of_the_matrix_for_the_setting_of_the_title() -> None:
    matrix = make_matrix(*BIG, noise=0.3, languages=TEN[:6])
    figure = plots.ablation_effects(matrix)
    rows = tuple(ticks(figure, "yaxis"))
    assert rows == matrix.language_order("related") != matrix.language_order()
    assert "rows sorted by likeness" in subtitle(figure)
    assert "likeness" not in subtitle(plots.ablation_effects(matrix, order="given"))


@pytest.mark.parametrize("items", [1, 3, 4])
def test_too_few_items_have_numbers_and_no_verdict(items: int) -> None:
    figure = plots.ablation_effects(make_matrix(*BIG, items=items))
    told = f"({items} item{'s' * (items > 1)}: too few for an interval)"
    assert title(figure).startswith("Removing specific + related neurons: +1.2")
    assert title(figure).endswith(told)
    for word in (" to +", "Bold", "matter", "in brackets"):
        assert word not in subtitle(figure)
    assert not any("<b>" in text for trace in figure.data for row in trace.text for text in row)


def test_unknown_orders_are_refused() -> None:
    with pytest.raises(LensNeuronsError, match="order='size' is not known"):
        inspect.unwrap(plots.ablation_effects)(make_matrix(*BIG), order="size")


def test_lines_are_pooled_shares_with_their_bands_and_levels() -> None:
    result = make_carry(turning())
    figure = plots.carry_over(result)
    p = np.exp(result.log_probability)
    shares = (p / p.sum(-1, keepdims=True)).mean(1)
    before = np.exp(result.unpatched)
    before = (before / before.sum(-1, keepdims=True)).mean(0)
    drawn = lines(figure)
    for place, outcome in enumerate(OUTCOMES):
        line = drawn[outcome, "y"]
        assert np.allclose(line.y, shares[:, place])
        ends = result.interval(outcome, pooled=True)
        assert np.allclose(line.customdata, np.hstack([ends.low, ends.high]))
        band = next(t for t in figure.data if t.fill == "toself" and t.name == outcome)
        assert np.allclose(band.y, np.concatenate([ends.high, ends.low[::-1]])[:, 0])
        level = next(t for t in figure.data if t.name == f"{outcome} without a patch")
        assert level.y == pytest.approx([before[place]] * 2)
    together = drawn["probability of all together", "y"]
    assert np.allclose(together.y, p.sum(-1).mean(1))
    looks = [(t.line.color, t.marker.symbol) for t in drawn.values()][:4]
    assert all(len(set(kind)) == 4 for kind in zip(*looks, strict=True))


def test_pairs_written_alike_have_a_panel_of_their_own() -> None:
    result = with_alike(make_carry(turning(), ("de", "en")), 1)
    figure = plots.carry_over(result)
    drawn = lines(figure)
    assert {name for name, axis in drawn if axis == "y2"} == {
        "concept", "neither", "probability of all together",
    }  # fmt: skip
    alone = make_carry(turning(), ("de", "en"))
    first = alone.shares[:, :6].mean(1)
    assert np.allclose(drawn["concept", "y"].y, first[:, 1])
    heads = [note.text for note in figure.layout.annotations]
    assert heads == [
        "<b>6 pairs into German (de)</b>",
        "<b>6 pairs into English (en), answers written alike</b>",
    ]
    assert "12 pairs" in subtitle(figure)


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        (
            turning(),
            "Patching layers 4–11 carries the source's answer over, patching layers 8–11 its "
            "language: in layers 4–7 the answer comes alone",
        ),
        (
            turning()[8:],
            "Patching layers 0–3 carries the source's answer over, patching layers 0–3 its "
            "language",
        ),
        (
            turning()[:3],
            "Patching no layer carries the source's answer over, patching no layer its language",
        ),
        (
            turning()[[0, 4, 0, 0]],
            "Patching layer 1 carries the source's answer over, patching no layer its language: "
            "in layer 1 the answer comes alone",
        ),
    ],
)
def test_title_names_the_layers_that_carry(shares: np.ndarray, told: str) -> None:
    assert title(plots.carry_over(make_carry(shares))) == told


def test_subtitle_has_the_peak_of_the_concept_and_what_was_left_out() -> None:
    result = replace(make_carry(turning()), dropped={"de": 3, "zh": 0})
    found = result.interval("concept", pooled=True)
    top = int(found.estimate.argmax())
    told = f"layer {top}: {found.estimate[top, 0]:.2f} ({found.low[top, 0]:.2f} to "
    figure = plots.carry_over(result)
    assert told in subtitle(figure)
    assert "bootstrap over 3 pairs of items" in subtitle(figure)
    assert "begin alike: German (de) 3" in subtitle(figure)
    assert "zh" not in subtitle(figure).split("alike")[1]
    alike = with_alike(make_carry(turning(), ("zh",)), 0)
    assert title(plots.carry_over(alike)).endswith("it is written alike in both languages")
    noted = subtitle(plots.carry_over(alike))
    assert "Carried over: concept (answer) above one half" in noted
    assert "both +" not in noted  # that outcome is not in the figure
    assert "both + concept (answer) or both + language (language) above" in subtitle(figure)
    known = np.tile([np.nan, np.log(0.99), np.nan, np.log(0.001)], (6, 1))
    never = title(plots.carry_over(replace(alike, unpatched=known)))
    assert never.startswith("Patching no layer carries")


def test_few_pairs_of_other_outcomes_are_counted_and_one_pair_is_refused() -> None:
    result = make_carry(turning())
    before = result.unpatched.copy()
    before[0, 0] = np.nan
    values = result.log_probability.copy()
    values[:, 0, 0] = np.nan
    figure = plots.carry_over(replace(result, unpatched=before, log_probability=values))
    assert "1 other pair with other outcomes not shown" in subtitle(figure)
    assert not [t for t in figure.data if t.yaxis == "y2"]
    with pytest.raises(LensNeuronsError, match="at least two pairs of items"):
        plots.carry_over(make_carry(turning(), ("de",), pairs=2))


def test_curve_holds_shares_and_changes_in_the_order_of_alpha() -> None:
    curve = make_curve((1.0, 0.0, 2.0, 0.5), (0.9, 0.0, 0.8, 0.2))
    drawn = [*lines(plots.steering_curve(curve)).values()]
    order = [1, 3, 0, 2]
    expected = [curve.share_in("zh"), curve.share_in("en"), curve.share_right()]
    expected += [curve.nll_difference(kind) for kind in ("own", "switched", "target")]
    for line, found in zip(drawn, expected, strict=True):
        assert line.x.tolist() == [0, 0.5, 1, 2]
        assert np.array_equal(line.y, found.estimate[order])
        assert np.array_equal(line.customdata, np.stack([found.low, found.high], 1)[order])
    assert [line.yaxis for line in drawn] == ["y"] * 3 + ["y2"] * 3
    assert drawn[0].line.color == drawn[4].line.color == plots.language_colour("zh")
    assert drawn[1].line.color == drawn[3].line.color == plots.language_colour("en")
    assert len({(line.line.dash, line.yaxis) for line in drawn}) == 6


def test_title_of_a_curve_is_true() -> None:
    assert title(plots.steering_curve(make_curve())) == (
        "Steering turns 90% of the texts to Chinese (zh) at alpha 1 (0% at 0); right answers go "
        "from 80% to 28%"
    )
    few = make_curve(turned=(0, 0.05, 0.1, 0.1))
    assert title(plots.steering_curve(few)) == (
        "Steering does not measurably turn texts to Chinese (zh): at most 10% are in it, 0% at "
        "alpha 0"
    )
    some = title(plots.steering_curve(make_curve(turned=(0, 0.2, 0.3, 0.3))))
    assert "right answers go, not measurably, from 80% to 62%" in some


def test_without_alpha_0_the_nll_is_itself_and_one_strength_has_error_bars() -> None:
    curve = make_curve((1.0, 2.0), (0.5, 0.6))
    figure = plots.steering_curve(curve)
    drawn = [*lines(figure).values()]
    assert np.array_equal(drawn[3].y, curve.mean_nll("own").estimate)
    assert figure.layout.yaxis2.title.text.startswith("NLL")
    assert "Alpha 0 was not run" in subtitle(figure)
    assert title(figure).endswith("at most 60% are in it, 50% at alpha 1")
    single = plots.steering_curve(make_curve((1.0,), (0.5,)))
    assert not [t for t in single.data if t.fill]
    found = make_curve((1.0,), (0.5,)).share_in("zh")
    assert single.data[0].error_y.array == pytest.approx(found.high - found.estimate)


def test_subtitle_of_a_curve_has_the_price() -> None:
    curve = replace(make_curve(), ablated="en (7 neurons)")
    told = subtitle(plots.steering_curve(curve))
    assert "zh (12 neurons), add, without en (7 neurons)" in told
    for kind in ("own", "target"):
        found = curve.nll_difference(kind)
        assert numbers.with_ends(found.estimate[2], found.low[2], found.high[2]) in told
    with pytest.raises(LensNeuronsError, match="at least two items"):
        plots.steering_curve(make_curve(items=1))


def test_numbers_are_left_out_where_they_do_not_fit() -> None:
    for k in (2, 26):
        few = plots.ablation_effects(make_matrix(*BIG[:1], languages=MANY[:k], items=4))
        assert (few.data[0].text is None) == (k == 26)
