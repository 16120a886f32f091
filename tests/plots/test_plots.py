"""Figures: the numbers in their traces, the truth of their titles, their size, and hostile text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from figure_values import (
    MANY,
    TEN,
    hostile,
    make_statistics,
    nothing,
    small,
    subtitle,
    ticks,
    title,
    with_parts,
)
from real_data import real_data
from tiny import drawn_neurons

from lensneurons import plots
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import divide_layers
from lensneurons.neurons.published import read_published_counts
from lensneurons.plots import files, labels, numbers, panels
from lensneurons.plots.style import CLASS_COLOURS, LANGUAGE_COLOURS
from lensneurons.samples import published_profile
from lensneurons.uncertainty.groups import jackknife


def test_profile_holds_all_neurons_whatever_the_population() -> None:
    for population in ("selected", "all"):
        figure = plots.layer_profile(small(population))
        drawn = np.stack([trace.customdata for trace in figure.data], axis=1)
        assert np.array_equal(drawn, small("all").layer_profile("all"))
        assert "All 640 neurons" in subtitle(figure)
    assert [trace.line.color for trace in figure.data] == [
        CLASS_COLOURS[name] for name in ("specific", "related", "agnostic")
    ]


def test_profile_names_the_peaks_and_the_empty_classes() -> None:
    profile = small().layer_profile("all")
    assert not profile[:, 2].any()
    told = title(plots.layer_profile(small()))
    assert f"related in layer {profile[:, 1].argmax()}" in told
    assert told.endswith("there are no agnostic neurons")
    assert title(plots.layer_profile(nothing())).startswith("No neuron of this model is specific")


@pytest.mark.parametrize(
    ("counts", "kind", "ticks"),
    [
        ([3, 0, 60], "linear", None),
        ([0, 0, 0], "linear", None),
        ([0, 2, 100], "log", ["0", "1", "2", "5", "10", "20", "50", "100"]),
        (
            [2000, 397_496],
            "log",
            ["2,000", "5,000", "10,000", "20,000", "50,000", "100,000", "200,000"],
        ),
    ],
)
def test_an_axis_is_logarithmic_where_needed_and_shows_zero(
    counts: list[int], kind: str, ticks: list[str] | None
) -> None:
    numbers = np.array(counts, np.int64)
    axis = panels.count_axis(numbers, "neurons")
    assert axis["type"] == kind
    assert axis.get("ticktext") == ticks
    places = panels.on_axis(numbers, axis)
    low, high = axis["range"] if kind == "linear" else 10 ** np.array(axis["range"])
    assert np.all((places >= low) & (places <= high))


def test_profiles_of_several_models_stand_over_relative_depth() -> None:
    paper, own = published_profile("mistral-7b"), small("selected")
    figure = plots.layer_profiles({"paper": paper, "own": own})
    for row, (profile, width) in enumerate(
        [(paper.profile, 14336), (own.layer_profile("all"), 128)]
    ):
        for column, trace in enumerate(figure.data[3 * row : 3 * row + 3]):
            assert np.array_equal(trace.customdata[:, 1], profile[:, column])
            share = 100 * profile[:, column] / width
            there = share > 0
            assert trace.y[there] == pytest.approx(share[there])
            assert (trace.x[0], trace.x[-1], len(trace.x)) == (0, 100, len(profile))
            assert trace.xaxis == ("x" if row == 0 else "x2")
            assert trace.text[0] == f"{share[0]:.2f}%"
    assert [trace.showlegend for trace in figure.data] == [True] * 3 + [False] * 3
    heads = [note.text for note in figure.layout.annotations]
    assert heads == [
        "<b>paper: 32 layers x 14336 neurons</b>", "<b>own: 5 layers x 128 neurons</b>"
    ]  # fmt: skip
    depth = 100 * own.layer_profile("all")[:, 0].argmax() / 4
    assert title(figure).endswith(f"a depth of 97% in paper and {depth:.0f}% in own")
    told = subtitle(figure)
    assert "arXiv 2505.21505" in told
    assert "All 640 neurons" in told


def test_profiles_share_one_axis_on_which_every_share_stands() -> None:
    figure = plots.layer_profiles({"paper": published_profile("mistral-7b"), "none": nothing()})
    for axis in (figure.layout.yaxis, figure.layout.yaxis2):
        low, high = 10 ** np.array(axis.range)
        assert axis.ticktext[0] == "0"
        drawn = np.concatenate([trace.y for trace in figure.data])
        assert np.all((drawn >= 0.999 * low) & (drawn <= high))
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range


def test_profiles_of_nothing_or_of_something_else_are_refused() -> None:
    with pytest.raises(LensNeuronsError, match="no model to draw"):
        plots.layer_profiles({})
    wrong: Any = {"a": small(), "b": np.ones((4, 3))}
    with pytest.raises(LensNeuronsError, match=r"models\['b'\] is a ndarray: give what identify"):
        inspect.unwrap(plots.layer_profiles)(wrong)  # the tests check types before


def test_boundaries_have_their_bootstrap_intervals() -> None:
    neurons, parts = with_parts()
    draws = np.array([[0, 2, 8, 13], [0, 3, 8, 13], [0, 4, 9, -1]] * 20, np.int64)
    figure = plots.layer_profile(neurons, replace(parts, draws=draws))
    bars = figure.data[-1]
    assert np.array_equal(bars.x + 0.5, [3, 8, 13])
    assert np.array_equal(bars.error_x.array, [1, 1, 0])
    assert np.array_equal(bars.error_x.arrayminus, [1, 0, 0])
    second = figure.layout.meta["findings"][1]
    assert second.endswith("layers 3–7 (first layer, 95% of bootstrap draws: 2–4)")


def test_the_title_of_a_profile_is_about_its_parts() -> None:
    found = plots.layer_profile(*with_parts())
    assert title(found) == "The four parts of the model are layers 0–2, 3–7, 8–12 and 13"
    assert "bootstrap" not in " ".join(found.layout.meta["findings"])
    parts = divide_layers(small())
    assert not parts.found
    figure = plots.layer_profile(small(), parts)
    assert title(figure) == "Of the four parts, 1, 2, 3 and 4 are undecided"
    assert "Of 11 criteria of the four parts: " in subtitle(figure)
    assert "2 cannot be judged (90% intervals); three segments fit as well" in subtitle(figure)
    assert not figure.layout.annotations


@pytest.mark.parametrize("population", ["selected", "all"])
def test_histogram_shows_every_n(population: str) -> None:
    neurons = small(population)
    bars = plots.language_histogram(neurons).data[0]
    histogram = neurons.histogram()
    assert [int(row[0].replace(",", "")) for row in bars.customdata] == histogram.tolist()
    assert np.array_equal(bars.x, np.arange(11))
    assert [row[1] for row in bars.customdata][:3] == ["unclassified", "specific", "related"]
    assert bars.customdata[-1][1] == "agnostic"


def test_histogram_title_counts_the_classes() -> None:
    histogram = small("all").histogram()
    assert title(plots.language_histogram(small("all"))) == (
        f"{histogram[1]} specific, {histogram[2:-1].sum()} related, no agnostic and "
        f"{histogram[0]} unclassified neurons"
    )
    assert title(plots.language_histogram(nothing())) == (
        "All 640 neurons are unclassified: none exceeds tau"
    )
    two = identify(make_statistics(("en", "zh"), 3, 40), top_rate=0.2)
    assert "related" not in title(plots.language_histogram(two))


def test_before_and_after_are_of_one_population_and_say_which_tau() -> None:
    after = identify(make_statistics(TEN, 5, 128, seed=9), tau=small().tau, population="all")
    figure = plots.language_histogram(after, before=small("selected"))
    old, new = figure.data[:2]
    assert [int(row[0].replace(",", "")) for row in old.customdata] == small(
        "all"
    ).histogram().tolist()
    assert (old.name, new.name) == ("before", "after")
    shared = (small("all").histogram()[2:].sum(), after.histogram()[2:].sum())
    assert title(figure).endswith("two languages or more: {:,} before, {:,} after".format(*shared))
    assert "One shared tau" in subtitle(figure)
    other = plots.language_histogram(replace(after, tau=0.3), before=small())
    assert "each model has its own tau" in subtitle(other).lower()
    two = identify(make_statistics(("en", "zh"), 5, 128))
    with pytest.raises(LensNeuronsError, match="compares the same languages"):
        plots.language_histogram(small(), before=two)


@pytest.mark.parametrize("population", ["selected", "all"])
def test_map_counts_neurons_by_layer_and_language(population: str) -> None:
    neurons = small(population)
    cells = plots.neuron_map(neurons).data[0]
    for row, language in zip(cells.customdata, neurons.languages, strict=True):
        assert [cell[1] for cell in row] == neurons[language].per_layer().tolist()
        assert [cell[2] for cell in row] == neurons.specific[language].per_layer().tolist()
        assert [cell[3] for cell in row] == neurons.related[language].per_layer().tolist()
    totals = [[cell[1] for cell in row] for row in cells.customdata]
    assert np.allclose(np.expm1(cells.z), totals, atol=1e-4)


def test_map_title_names_the_fewest_layers_with_half_of_the_neurons() -> None:
    neurons, _ = with_parts()
    everything = neurons.with_population("all")
    told = title(plots.neuron_map(everything))
    per_layer = everything.layer_profile()[:, :2].sum(axis=1)
    number = int(re.search(r"in (\d+) of 14 layers", told)[1])
    share = np.sort(per_layer)[::-1][:number].sum() / per_layer.sum()
    assert told.startswith(f"{share:.0%} of the specific and related neurons")
    assert share >= 0.5 > np.sort(per_layer)[::-1][: number - 1].sum() / per_layer.sum()
    assert title(plots.neuron_map(neurons)).startswith("No neuron of this population")


def test_zoom_shows_every_classified_neuron_of_the_layer_in_order() -> None:
    neurons = small("all")
    strip, cells = plots.neuron_map(neurons, 2).data[:2]
    table = neurons.to_pandas().query("layer == 2").set_index("name")
    assert sorted(cells.y) == sorted(table.index)
    probabilities = table.loc[list(cells.y), [f"p_{k}" for k in TEN]].to_numpy()
    assert np.array_equal(cells.z, probabilities.astype(np.float32))
    assert [row[0][0] for row in strip.customdata] == table.loc[list(cells.y), "class"].tolist()
    assert np.all(np.diff(strip.z[:, 0]) >= 0)
    owners = probabilities[strip.z[:, 0] == 1].argmax(axis=1)
    assert np.all(np.diff(owners) >= 0)


def test_zoom_caps_the_rows_evenly_and_says_so() -> None:
    neurons = identify(make_statistics(TEN, 2, 9000), population="all")
    figure = plots.neuron_map(neurons, 1)
    total = int((neurons.n_above[1] > 0).sum())
    assert total > 600
    assert len(figure.data[1].y) == len(set(figure.data[1].y)) == 600
    assert f"600 of {total:,} classified neurons, evenly spaced" in subtitle(figure)
    shown = np.mean([row[0][0] == "specific" for row in figure.data[0].customdata])
    assert shown == pytest.approx(neurons.layer_profile()[1, 0] / total, abs=0.005)


def test_zoom_into_an_empty_or_missing_layer() -> None:
    figure = plots.neuron_map(nothing(), 0)
    assert title(figure) == "Layer 0 has no classified neuron in this population"
    assert not figure.data
    for layer in (5, -1):
        with pytest.raises(LensNeuronsError, match=f"layer {layer} is outside .* 0 to 4"):
            plots.neuron_map(small(), layer)


@pytest.mark.parametrize("kind", ["specific", "related", "unclassified"])
def test_one_neuron_has_its_class_and_its_probabilities(kind: str) -> None:
    neurons = small("all")
    layer, neuron = np.argwhere(
        neurons.class_codes == ("unclassified", "specific", "related").index(kind)
    )[0]
    name = f"L{layer}N{neuron}"
    figure = plots.neuron_probabilities(neurons, name)
    assert title(figure).startswith(f"{name} is {kind}")
    owners = neurons.languages_of(name)
    assert all(labels.full_name(k) in title(figure) or k in title(figure) for k in owners)
    bars = figure.data[0]
    assert np.array_equal(bars.y, neurons.probability[layer, neuron])
    assert np.array_equal(np.array(bars.marker.opacity) == 1, bars.y > neurons.tau)
    assert list(bars.marker.color) == [LANGUAGE_COLOURS[k] for k in TEN]
    assert figure.layout.shapes[0].y0 == neurons.tau
    assert ("not among the selected" in subtitle(figure)) != neurons.selected[layer, neuron]


def test_one_neuron_with_groups_has_clipped_jackknife_intervals() -> None:
    statistics = make_statistics(TEN, 5, 128, groups=6, seed=3)
    turned = statistics.select(TEN[::-1])
    interval = jackknife(statistics, lambda drawn: drawn.probability[1, 7])
    bars = plots.neuron_probabilities(small(), "L1N7", statistics=turned).data[0]
    low, high = bars.y - bars.error_y.arrayminus, bars.y + bars.error_y.array
    assert np.allclose(low, np.clip(interval.low, 0, 1))
    assert np.allclose(high, np.clip(interval.high, 0, 1))
    assert [row[2] for row in bars.customdata] == pytest.approx(low)
    sums, squares = np.random.default_rng(0).random((2, 5, 128, 10))
    whole = replace(statistics, sums=sums, squares=squares)
    assert np.array_equal(whole.of_neuron(1, 7).mean[0, 0], whole.mean[1, 7])
    assert whole.of_neuron(1, 7).squares.tolist() == [[squares[1, 7].tolist()]]


def test_one_neuron_without_groups_says_so_and_foreign_names_and_statistics_are_refused() -> None:
    one_group = make_statistics(TEN, 5, 128)
    neurons = identify(one_group)
    figure = plots.neuron_probabilities(neurons, "L0N0", statistics=one_group)
    assert "no intervals: the counts were kept in one group" in subtitle(figure)
    with pytest.raises(LensNeuronsError, match="other probabilities than the neurons hold"):
        plots.neuron_probabilities(small(), "L0N0", statistics=one_group)
    with pytest.raises(LensNeuronsError, match="give those that they were identified from"):
        plots.neuron_probabilities(small(), "L0N0", statistics=make_statistics(TEN, 4, 128))
    for name, told in (("12", "write 'L12N345"), ("L5N0", "outside a model")):
        with pytest.raises(LensNeuronsError, match=told):
            plots.neuron_probabilities(small(), name)


@pytest.mark.parametrize("measure", ["jaccard", "dice", "containment"])
@pytest.mark.parametrize("order", ["given", "clustered"])
def test_overlap_cells_equal_the_table(measure: str, order: str) -> None:
    neurons = small("all")
    figure = plots.overlap(neurons, measure, order=order)
    names = ticks(figure, "xaxis")
    table = neurons.overlap(measure).loc[names, names].to_numpy(copy=True)
    np.fill_diagonal(table, np.nan)
    pairs, sizes, _ = figure.data
    assert np.array_equal(pairs.z, table, equal_nan=True)
    assert [sizes.text[i][i] for i in range(10)] == [f"n {len(neurons[k])}" for k in names]
    assert sorted(names) == sorted(TEN)
    if order == "given":
        assert names == list(TEN)
    assert f"{np.nanmax(table):.2f}" in title(figure) or f"{np.nanmax(table):.0%}" in title(figure)


def test_clustering_puts_twins_side_by_side_in_any_order_of_the_languages() -> None:
    p = np.random.default_rng(0).random((5, 128, 6))
    p[..., 4] = p[..., 0]
    neurons = replace(small("all"), languages=TEN[:6], probability=p, tau=0.8)
    names = ticks(plots.overlap(neurons), "xaxis")
    assert abs(names.index(TEN[0]) - names.index(TEN[4])) == 1
    assert title(plots.overlap(neurons)).endswith("share most: Jaccard overlap 1.00")


def test_the_overlap_of_many_languages_stays_small() -> None:
    """No numbers in cells that are too narrow for them, and nothing said of empty ones."""
    languages = tuple(f"x{number:03d}" for number in range(100))
    figure = plots.overlap(drawn_neurons(0, languages))
    pairs, sizes, undefined = figure.data
    assert {pairs.text, pairs.texttemplate, sizes.text, undefined.text} == {None}
    assert pairs.z.shape == (100, 100)
    assert sum(bool(cell) for row in sizes.customdata for cell in row) == 100
    assert len(figure.to_json()) < 1_500_000
    for one in (figure, plots.neuron_map(drawn_neurons(0, languages))):
        margin = one.layout.margin
        pixels = (one.layout.height - margin.t - margin.b) / 100
        assert pixels > one.layout.yaxis.tickfont.size  # no name stands on another


def test_two_empty_sets_have_no_overlap_instead_of_zero() -> None:
    figure = plots.overlap(nothing())
    pairs, sizes, undefined = figure.data
    assert np.isnan(pairs.z).all()
    assert undefined.text[0][1] == "–"
    assert sizes.text[0][0] == "n 0"
    assert title(figure) == "No language has neurons in this population, so no overlap is defined"
    assert "not defined" in subtitle(figure)


def test_languages_that_share_nothing_are_told_so() -> None:
    two = identify(make_statistics(("en", "zh"), 3, 60), top_rate=0.2, population="all")
    figure = plots.overlap(two)
    assert title(figure) == "No two languages share a neuron"
    assert figure.data[0].text[0][1] == "0"


@pytest.mark.parametrize(("measure", "order"), [("cosine", "given"), ("dice", "sorted")])
def test_an_unknown_measure_or_order_lists_the_choices(measure: str, order: str) -> None:
    unchecked = inspect.unwrap(plots.overlap)  # the tests' type checker would refuse it first
    with pytest.raises(LensNeuronsError, match="choose one of"):
        unchecked(small(), measure, order=order)


def test_hostile_names_stay_readable_and_are_cut_before_they_are_escaped() -> None:
    names = plots.overlap(hostile(), order="given").layout.xaxis.ticktext
    names = [unescape(name) for name in names]
    assert names[0].endswith("■</span> <s>struck</s>")
    assert names[3].endswith("nul␀\\ud800␊")
    assert names[4].endswith("\u2068עברית \\u202ee…\u2069")
    assert plots.escape_label("<<<<<<", 4) == "&lt;&lt;&lt;…"


def test_a_language_keeps_its_colour_in_any_company() -> None:
    alone = identify(make_statistics(("zh", "qaa"), 5, 60))
    colours = plots.neuron_probabilities(alone, "L0N0").data[0].marker.color
    assert colours == (LANGUAGE_COLOURS["zh"], plots.language_colour("qaa"))
    assert plots.language_colour("qaa") == "#822e9e"
    assert len({plots.language_colour(code) for code in (*TEN, *MANY)}) == len(TEN) + len(MANY)
    assert re.fullmatch("#[0-9a-f]{6}", plots.language_colour("\ud800"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<s> & $x$", "&lt;s&gt; &amp; &#36;x&#36;"),
        ("a\0b\x7f\x85", "a␀b\\u007f\\u0085"),
        ("\ud800\ufeff\uffff", "\\ud800\\ufeff\\uffff"),
        ("👩\u200d👧 বাংলা", "👩\u200d👧 বাংলা"),
        ("\u0301a", "◌\u0301a"),
        ("עברית", "\u2068עברית\u2069"),
        (7, "7"),
        ("", ""),
    ],
)
def test_labels_show_what_is_there(text: object, shown: str) -> None:
    assert plots.escape_label(text) == shown


@pytest.mark.parametrize(
    ("write", "values", "texts"),
    [
        (numbers.small_share, [0.0, 0.004, 0.005, 0.28, 1.0], "0 &lt;.01 .01 .28 1.00"),
        (
            numbers.short_number,
            [0, 742, 999, 1000, 7797, 9960, 397_496, 999_600, 12_000_000],
            "0 742 999 1.0k 7.8k 10k 397k 1.0M 12M",
        ),
        (
            numbers.small_change,
            [1.24, 0.26, -0.034, 0.004, -0.004, 0.0, 0.997, 9.97, -12.3, np.nan],
            "1.2 .26 −.03 .00 .00 .00 1.0 10 −12 –",
        ),
        (
            numbers.signed,
            [1.236, -0.0314, 0.0, -0.0001, np.nan],
            "+1.24 −0.031 0.00 0.000 not defined",
        ),
    ],
)
def test_numbers_are_written_in_little_room(
    write: Callable[[float], str], values: list[float], texts: str
) -> None:
    assert " ".join(map(write, values)) == texts


def test_html_needs_no_network_and_no_cloud(tmp_path: Path) -> None:
    path = plots.save_figure(plots.overlap(hostile()), tmp_path / "deep" / "figure.html")
    page = path.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    assert '"showSendToCloud": false' in page
    assert '"displaylogo": false' in page
    assert "<script>alert" not in page
    assert [entry.name for entry in path.parent.iterdir()] == ["figure.html"]


def test_an_image_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "figure.png"
    sizes = []

    def draw(figure: go.Figure, **options: object) -> bytes:
        sizes.append((options["format"], options["width"], options["height"]))
        return b"png"

    monkeypatch.setattr(files, "find_spec", lambda name: name)
    monkeypatch.setattr(go.Figure, "to_image", draw)
    figure = plots.layer_profile(small())
    assert plots.save_figure(figure, path).read_bytes() == b"png"
    assert sizes == [("png", 900, figure.layout.height)]

    def fail(figure: go.Figure, **options: object) -> bytes:
        raise RuntimeError("no Chrome\n here")

    monkeypatch.setattr(go.Figure, "to_image", fail)
    with pytest.raises(LensNeuronsError, match=r"needs Chrome or Chromium\): no Chrome here"):
        plots.save_figure(figure, path)
    assert path.read_bytes() == b"png"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_kaleido_and_a_foreign_ending_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = plots.neuron_map(small())
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(LensNeuronsError, match=r"pip install 'lensneurons\[png\]'"):
        plots.save_figure(figure, tmp_path / "figure.svg")
    with pytest.raises(LensNeuronsError, match="choose one of"):
        plots.save_figure(figure, tmp_path / "figure.gif")
    assert not list(tmp_path.iterdir())


def test_figures_of_the_published_counts() -> None:
    folder = real_data("mistral_mgsm")
    neurons = identify(read_published_counts(folder, languages=TEN), population="all")
    figure = plots.layer_profile(neurons, divide_layers(neurons))
    assert title(figure) == "The four parts of the model are layers 0–4, 5–19, 20–30 and 31"
    assert list(figure.data[0].customdata[:3]) == [1922, 1370, 1885]
    told = title(plots.language_histogram(neurons))
    assert (
        told == "23,235 specific, 30,224 related, 7,797 agnostic and 397,496 unclassified neurons"
    )
    selected = neurons.with_population("selected")
    assert title(plots.overlap(selected, order="given")).startswith("Chinese (zh) and Thai (th)")
    assert "layers: layers" not in title(plots.neuron_map(selected))
