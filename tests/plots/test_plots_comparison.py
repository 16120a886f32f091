"""Figures of changes, claims and lens curves: their numbers, true titles, size and hostile text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from before_after import (
    D_MLP,
    LANGUAGES,
    N_LAYERS,
    PARTS,
    TAU,
    TRAINED,
    UNTOUCHED,
    noisy,
    plan,
    runs,
)
from figure_values import (
    TEN,
    a_claim,
    lines,
    make_lens,
    make_shares,
    planted,
    some_claims,
    subtitle,
    three_checkpoints,
    ticks,
    title,
    with_parts,
    wobbly,
)

from lensneurons import plots
from lensneurons.comparison.before_after import compare
from lensneurons.comparison.class_counts import CLASSES
from lensneurons.comparison.paper_claims import NAN, claims
from lensneurons.comparison.series import compare_series
from lensneurons.errors import LensNeuronsError
from lensneurons.plots.numbers import count_change, with_ends
from lensneurons.plots.style import CLASS_COLOURS, language_colour

K = len(LANGUAGES)
ENDS = ["change", "low", "high"]
NULLS = ("uniform", "drift", "own_bar")


def traces(figure: go.Figure, **wanted: object) -> list:
    return [t for t in figure.data if all(t[name] == value for name, value in wanted.items())]


def counted(run: int) -> np.ndarray:
    """Neurons by N of the plan, counted by hand."""
    found = Counter(len(row[run]) for row in plan())
    found[0] += N_LAYERS * D_MLP - len(plan())
    return np.array([found[n] for n in range(K + 1)])


def test_histogram_holds_both_runs_and_their_change() -> None:
    figure = plots.histogram_change(planted())
    before, after, change = [t for t in figure.data if t.type == "bar"]
    table = planted().to_pandas().iloc[1:]
    for points, name in zip(traces(figure, type="scatter", xaxis="x2")[:3], NULLS, strict=True):
        assert np.allclose(points.y, table[name])
    for bars, counts in ((before, counted(1)), (after, counted(2))):
        assert [int(row[0].replace(",", "")) for row in bars.customdata] == counts.tolist()
        shown = np.maximum(counts, 0.5) if figure.layout.yaxis.type == "log" else counts
        assert np.array_equal(bars.y, shown)
    assert np.array_equal(change.x, np.arange(1, K + 1))
    assert np.array_equal(change.y, (counted(2) - counted(1))[1:])
    assert list(change.marker.color)[0] == CLASS_COLOURS["specific"]
    assert list(change.marker.color)[-1] == CLASS_COLOURS["agnostic"]
    old, new = counted(1)[2:].sum(), counted(2)[2:].sum()
    told = f"Neurons above tau in two languages or more: {old} before, {new} after"
    assert title(figure) == f"{told} (rise by {new - old})"
    assert "Neurons above tau in no language: −29 (−29 to −29), p < 1e-06" in subtitle(figure)


def test_error_bars_are_the_intervals() -> None:
    found = wobbly()
    change = plots.histogram_change(found).data[2]
    table = found.to_pandas("histogram").iloc[1:]
    assert np.allclose(change.y + change.error_y.array, table.high)
    assert np.allclose(change.y - change.error_y.arrayminus, table.low)
    assert (table.high - table.low).nunique() > 5
    told = f"{with_ends(*map(float, table.iloc[3][ENDS]), count_change)}, p = "
    assert change.customdata[3][0].startswith(told)


def test_without_groups_there_are_no_intervals_and_no_claim_of_any() -> None:
    alone = planted(1, ())
    assert plots.histogram_change(alone).data[2].error_y.array is None
    for draw in (plots.histogram_change, plots.transitions, plots.class_changes,
                 plots.language_changes):  # fmt: skip
        told = subtitle(draw(alone))
        assert "no intervals" in told
        assert "95%" not in told
        assert "nan" not in draw(alone).to_json().lower().replace("nan,", "")


def test_transitions_are_counted_and_coloured_by_row() -> None:
    figure = plots.transitions(planted())
    (cells,) = figure.data
    moves = Counter((len(before), len(after)) for _, before, after in plan())
    moves[0, 0] += N_LAYERS * D_MLP - len(plan())
    for before in range(K + 1):
        whole = sum(moves[before, n] for n in range(K + 1))
        for after in range(K + 1):
            number = moves[before, after]
            text = cells.text[before][after]
            assert text == ("" if not number else "1.5k" if number > 1000 else str(number))
            if whole:
                assert cells.z[before][after] == pytest.approx(number / whole)
            else:
                assert np.isnan(cells.z[before][after])
            told = cells.customdata[before][after]
            assert told.startswith(f"{number:,} neurons")
            net = number - moves[after, before]
            sign = "+" if net > 0 else "−" if net < 0 else ""
            assert f"this way less back: {sign}{abs(net)}" in told
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    there = sum(moves.values()) - moves[0, 0]
    up = sum(n for (a, b), n in moves.items() if b > a)
    down = sum(n for (a, b), n in moves.items() if b < a)
    assert title(figure) == (
        f"Of {there} neurons above tau somewhere, {(there - up - down) / there:.0%} keep their N, "
        f"{up / there:.0%} are above it in more languages after, {down / there:.0%} in fewer"
    )
    assert f"Neurons that rise in N less those that fall: +{up - down} (" in subtitle(figure)


def test_no_neuron_above_tau_is_said() -> None:
    silent = compare(*runs([]), tau=0.9)
    assert title(plots.transitions(silent)).startswith("No neuron exceeds tau in any language")
    assert "do not change in number" in title(plots.histogram_change(silent))
    assert plots.class_changes(silent).layout.yaxis.range is not None
    plots.language_changes(silent)


def test_layers_hold_the_changes_of_every_class() -> None:
    found = wobbly()
    figure = plots.class_changes(found)
    table = found.to_pandas("layers")
    drawn = [*lines(figure).values()]
    assert [line.name for line in drawn] == list(CLASSES)
    for line in drawn:
        own = table[table["class"] == line.name]
        assert np.array_equal(line.y, own.change)
        assert np.allclose(line.customdata, own[["low", "high"]])
        assert line.line.color == CLASS_COLOURS[line.name]
    assert [line.yaxis for line in drawn] == ["y", "y2", "y3"]
    assert "lab/base before, lab/aligned after: all 300 neurons; tau 0." in subtitle(figure)
    assert not figure.layout.shapes[0].fillcolor


def test_parts_are_shaded_and_their_changes_written() -> None:
    found = planted()
    figure = plots.class_changes(found, PARTS)
    spans = {(s.x0 + 0.5, s.x1 - 0.5) for s in figure.layout.shapes if s.fillcolor}
    assert spans == set(PARTS)
    table = found.part_changes(PARTS)
    texts = [note.text for note in figure.layout.annotations]
    for number, (first, last) in enumerate(PARTS):
        own = table[table.part == number + 1]
        told = ", ".join(
            f"{row['class']} {with_ends(*map(float, row[ENDS]), count_change)}"
            for _, row in own.iterrows()
        )
        assert f"{number + 1}  layers {first}–{last}: {told}" in texts
    told = "Specific neurons fall by 24, related ones rise by 13 and agnostic ones rise by 40"
    assert title(figure) == told
    with pytest.raises(LensNeuronsError, match="are not first and last layers, in order"):
        plots.class_changes(found, [(0, 3), (2, 9)])


def test_changes_that_are_not_measurable_are_called_so() -> None:
    same = compare(*noisy(np.random.default_rng(3), 0.0), tau=0.5)
    table = same.to_pandas("histogram")
    figure = title(plots.class_changes(same))
    for kind, name in (("specific", "specific"), ("agnostic", "agnostic")):
        row = table[table["class"] == kind].iloc[0]
        assert row.low < 0 < row.high
        assert re.search(f"{name} (neurons|ones) do not measurably change", figure, re.IGNORECASE)


def test_languages_stand_by_role_with_their_changes() -> None:
    found = wobbly()
    figure = plots.language_changes(found)
    table = found.to_pandas("languages")
    order = [*found.trained, *found.untouched, found.pivot]
    names = ticks(figure, "yaxis")
    assert names == [*order, "mean of trained (1)", "mean of untouched (8)"]
    for axis, kind in (("x", "specific"), ("x2", "related")):
        own = table[table["class"] == kind].set_index("language")
        points = {}
        for trace in traces(figure, xaxis=axis):
            for i, (x, y) in enumerate(zip(trace.x, trace.y, strict=True)):
                ends = x - trace.error_x.arrayminus[i], x + trace.error_x.array[i]
                points[int(y)] = (x, *ends, trace)
        assert len(points) == len(names)
        for row, code in enumerate(order):
            expected = own.loc[code, ["change", "low", "high"]].astype(float)
            assert points[row][:3] == pytest.approx(expected.tolist())
            assert language_colour(code) in points[row][3].marker.color
        mean = own.loc[list(found.untouched)].change.mean()
        assert points[len(order) + 1][0] == pytest.approx(mean)
    assert title(figure).startswith("On average, related neurons of a trained language ")


def test_without_training_there_is_one_mean_and_no_role() -> None:
    figure = plots.language_changes(planted(6, ()))
    assert figure.layout.yaxis.ticktext[-1] == f"mean of all ({K})"
    assert not figure.layout.showlegend
    table = planted(6, ()).to_pandas("languages")
    means = table.groupby("class").change.mean()
    down, up = (count_change(abs(means[kind]))[1:] for kind in ("specific", "related"))
    assert title(figure) == (
        f"On average, specific neurons of a language fall by {down}, related ones rise by {up}"
    )
    trained = plots.language_changes(planted(6, (*TRAINED, *UNTOUCHED)))
    assert "untouched" not in title(trained)


def test_claims_are_turned_and_scaled_and_told() -> None:
    unknown = {"low": NAN, "high": NAN, "p": NAN, "p_adjusted": NAN, "verdict": "undecided"}
    tested = some_claims(
        a_claim("up"),
        a_claim("down", "falls", measured=-3.0, low=-6.0, high=-1.5),
        a_claim("against", measured=-2.0, low=-4.0, high=-1.0, verdict="does not hold"),
        a_claim("unknown", measured=NAN, reason="why", **unknown),
        a_claim("alone", "positive", measured=0.25, **unknown),
    )
    figure = plots.claims(tested)
    found = {}
    for trace in figure.data:
        for i, place in enumerate(trace.y):
            ends = trace.x[i] - trace.error_x.arrayminus[i], trace.x[i] + trace.error_x.array[i]
            found[int(place)] = (trace.name, trace.x[i], *ends)
    assert found[0] == ("holds", 0.5, 0.125, 1.0)
    assert found[1] == ("holds", 0.5, 0.25, 1.0)
    assert found[2] == ("does not hold", -0.5, -1.0, -0.25)
    assert found[3][0] == "undecided"
    assert np.isnan(found[3][1])
    assert found[4][:2] == ("undecided", 1.0)
    tiny = [
        note.text for note in plots.claims(some_claims(a_claim(measured=-3e-5))).layout.annotations
    ]
    assert "0.0000 (+1 to +8), adj. p = 0.02" in tiny
    texts = [note.text for note in figure.layout.annotations]
    assert "+4 (+1 to +8), adj. p = 0.02" in texts
    assert "−3 (−6 to −1.5), adj. p = 0.02" in texts
    assert "why" in texts
    assert "+0.25" in texts
    assert list(figure.layout.yaxis.ticktext) == [
        "up: rises", "down: falls", "against: rises", "unknown: rises", "alone",
    ]  # fmt: skip
    assert title(figure) == "Of 5 claims 2 hold, 1 does not, 2 are undecided"
    key = next(text for text in texts if "●" in text)
    assert [int(n) for n in re.findall(r"\((\d)\)", key)] == [2, 1, 2]
    assert "p adjusted for the number of claims (Holm)" in subtitle(figure)


def test_the_claims_of_a_comparison_are_all_there() -> None:
    tested = claims(planted(), parts=PARTS)
    figure = plots.claims(tested)
    assert sum(len(trace.y) for trace in figure.data) == len(tested)
    for trace in figure.data:
        assert len(trace.y) == sum(one.verdict == trace.name for one in tested)
    assert "All 1,600 neurons; tau 0.5000 (given); 6 groups" in subtitle(figure)
    assert all("\u00a0=\u00a0" in t for t in figure.layout.yaxis.ticktext if "with N" in t)


def test_no_claims_and_no_intervals_are_said() -> None:
    empty = plots.claims(some_claims())
    assert title(empty) == "Of no claims 0 hold, 0 do not, 0 are undecided"
    assert "no claims" in [note.text for note in empty.layout.annotations]
    alone = plots.claims(claims(planted(1, ())))
    assert "intervals;" not in subtitle(alone)
    assert "adjusted" not in subtitle(alone)


def test_a_series_holds_every_checkpoint_and_begins_at_zero() -> None:
    series = three_checkpoints()
    figure = plots.checkpoint_series(series)
    drawn = lines(figure)
    for place, kind in enumerate(CLASSES):
        line = drawn[kind, f"y{place + 1}" if place else "y"]
        table = series.to_pandas("histogram")
        own = table[table["class"] == kind].groupby("checkpoint", sort=False).change.sum()
        assert line.y.tolist() == [0, *own.loc[["half", "1000"]]]
        assert line.customdata[0].tolist() == [0, 0]
        assert (line.customdata[1:, 0] <= line.y[1:]).all()
        if kind != "related":  # one N: the interval of the table
            ends = table[(table["class"] == kind) & (table.checkpoint == "half")]
            assert line.customdata[1] == pytest.approx(ends[["low", "high"]].to_numpy()[0])
    languages = series.to_pandas("languages")
    languages = languages[languages["class"] == "related"]
    for role in ("trained", "untouched"):
        own = languages[languages.role == role].groupby("checkpoint", sort=False).change.mean()
        assert drawn[role, "y4"].y == pytest.approx([0, *own.loc[["half", "1000"]]])
    assert drawn["trained", "y4"].line.dash != drawn["untouched", "y4"].line.dash
    assert list(figure.layout.xaxis.ticktext) == ["0", "half", "1000"]
    assert title(figure).startswith("From checkpoint 0 to 1000, specific neurons ")
    assert "less those of the first checkpoint, 0" in subtitle(figure)


def test_a_series_without_training_or_groups_has_three_lines() -> None:
    assert len(lines(plots.checkpoint_series(three_checkpoints(())))) == 3
    first, second = runs(plan(), groups=1)
    figure = plots.checkpoint_series(compare_series({"a": first, "b": second}, tau=TAU))
    assert [t.y.tolist() for t in figure.data] == [[0, -24], [0, 13], [0, 40]]
    assert "95%" not in subtitle(figure)


def test_lines_of_the_lens_are_pooled_means_with_their_bands() -> None:
    curves = make_lens()
    figure = plots.lens_curves(curves)
    names = {"own language": "own", "English (en)": "pivot", "all other languages": "others",
             "shared": "shared", "rare": "rare", "the true next token": "true"}  # fmt: skip
    drawn = lines(figure)
    assert [name for name, _ in drawn] == list(names)
    for (name, _), line in drawn.items():
        found = curves.interval(names[name], pooled=True)
        assert np.allclose(line.y, found.estimate)
        assert np.allclose(line.customdata, np.stack([found.low, found.high], axis=1))
    assert drawn["English (en)", "y"].line.color == language_colour("en")
    assert len({(t.line.dash, t.marker.symbol) for t in drawn.values()}) == 6
    (cells,) = traces(figure, type="heatmap")
    found = curves.interval("pivot")
    assert np.allclose(cells.z, found.estimate[:, 1:].T)
    assert np.allclose(cells.customdata[..., 0], found.low[:, 1:].T)
    assert ticks(figure, "yaxis2") == list(TEN[1:])
    sizes = ", ".join(f"{k} {n}" for k, n in zip(TEN, curves.vocabulary, strict=False))
    assert f"Tokens of the vocabulary: {sizes}, shared " in subtitle(figure)
    lead = curves.pivot_lead(pooled=True)
    top = int(lead.estimate.argmax())
    assert f"most in layer {top}, +{lead.estimate[top]:.2f} (" in subtitle(figure)


@pytest.mark.parametrize("kind", ["true", "own", "shared"])
def test_another_kind_may_be_mapped_with_every_language(kind: str) -> None:
    curves = make_lens(("en", "de", "sw"))
    figure = plots.lens_curves(curves, by_language=kind)
    (cells,) = traces(figure, type="heatmap")
    assert np.allclose(cells.z, curves.interval(kind).estimate.T)


def test_one_language_alone() -> None:
    curves = make_lens()
    figure = plots.lens_curves(curves, "de")
    found = curves.interval("own")
    assert np.allclose(lines(figure)["own language", "y"].y, found.estimate[:, 4])
    assert not traces(figure, type="heatmap")
    english = plots.lens_curves(curves, "en")
    assert ("English (en)", "y") not in lines(english)
    assert title(english).startswith("Tokens of the text's own language: probability ")
    assert "less one other language" not in subtitle(english)


def test_titles_of_the_lens_are_true() -> None:
    curves = make_lens()
    gap = curves.difference("pivot", "own", pooled=True)
    lead = np.flatnonzero(gap.low > 0)
    assert 2 < len(lead) < 9
    told = title(plots.lens_curves(curves))
    assert told.startswith("English (en) tokens are more probable than those of the text's own ")
    assert f"in layers {lead[0]}–{lead[-1]}, less probable in layers " in told
    flat = title(plots.lens_curves(make_lens(hump=-0.005)))
    assert flat.startswith("In no layer are English (en) tokens measurably more probable than ")
    alone = make_lens(("zh", "de"), pivot=None, layers=4)
    own = alone.interval("own", pooled=True).estimate
    assert title(plots.lens_curves(alone)) == (
        f"Tokens of the text's own language: probability {own[0]:.2f} in the first layer, "
        f"{own[-1]:.2f} in the last, most in layer 3 ({own[3]:.2f})"
    )


def test_the_profile_stands_above_over_the_same_layers() -> None:
    neurons, parts = with_parts()
    curves = make_lens(("en", "zh", "ja", "bn"), layers=14)
    figure = plots.lens_curves(curves, neurons=neurons, parts=parts)
    drawn = lines(figure)
    profile = neurons.layer_profile("all")
    for column, kind in enumerate(CLASSES):
        assert np.array_equal(drawn[kind, "y"].customdata, profile[:, column])
    assert ("own language", "y2") in drawn
    assert {figure.layout[f"xaxis{n}"].matches for n in ("", 2)} == {"x3"}
    assert traces(figure, type="heatmap")[0].yaxis == "y3"


def test_the_lens_refuses_what_does_not_fit() -> None:
    curves = make_lens(("en", "de"), layers=3)
    with pytest.raises(LensNeuronsError, match="of a model of 14 layers, the curves of one of 3"):
        plots.lens_curves(curves, neurons=with_parts()[0])
    with pytest.raises(LensNeuronsError, match=r"language='fr' is not known; choose one of"):
        plots.lens_curves(curves, "fr")
    alone = make_lens(("zh", "de"), pivot=None, layers=3)
    with pytest.raises(LensNeuronsError, match="kind='pivot' is not known"):
        plots.lens_curves(alone, by_language="pivot")
    with pytest.raises(LensNeuronsError, match="at least two items"):
        plots.lens_curves(make_lens(items=1))


def test_attention_shares_show_the_heads_that_differ_and_what_there_is_to_look_at() -> None:
    shares = make_shares(("en", "de", "th"))
    figure = plots.attention_shares(shares, "digits", heads=2)
    cells = figure.data[0].z
    assert figure.layout.yaxis.ticktext[:2] == ("every source alike", "L2H1")
    assert np.allclose(cells[0], shares.available("digits"))
    assert np.allclose(cells[1], shares.shares("digits")[2, 1])
    assert len(cells) == 3
    low, high = shares.shares("digits")[2, 1, [0, 2]]
    assert title(figure) == (
        f"L2H1 gives {high:.2f} of its attention to digits in Thai (th), {low:.2f} in English (en)"
    )
    nothing = replace(shares, mass=np.repeat(shares.mass[..., ::3, :], 3, axis=2))
    told = title(plots.attention_shares(nothing, "digits"))
    assert told == "No head's attention to digits differs among languages beyond chance"
    with pytest.raises(LensNeuronsError, match="heads=0: give 1 or more"):
        plots.attention_shares(shares, heads=0)
