"""What holds for every figure: hostile names do nothing, texts are data, themes, size, no state."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html import unescape
from importlib.resources import files

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from before_after import PARTS
from figure_values import (
    BIG,
    HOSTILE,
    LARGEST,
    MANY,
    TEN,
    a_claim,
    hostile,
    make_carry,
    make_curve,
    make_edges,
    make_lens,
    make_matrix,
    make_reading,
    make_shares,
    make_statistics,
    planted,
    require_inert,
    small,
    subtitle,
    three_checkpoints,
    turning,
    with_alike,
    with_parts,
    wobbly,
)
from method_values import make_agreement, make_coupling, make_methods

from lensneurons import plots
from lensneurons.comparison.paper_claims import NAN, Claims, claims
from lensneurons.comparison.series import ComparisonSeries
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts, divide_layers
from lensneurons.values.provenance import Provenance

OF_NEURONS: dict[str, Callable[[LanguageNeurons], go.Figure]] = {
    "layer_profile": plots.layer_profile,
    "layer_profiles": lambda neurons: plots.layer_profiles({HOSTILE[1]: neurons, "it": neurons}),
    "language_histogram": plots.language_histogram,
    "before": lambda neurons: plots.language_histogram(neurons, before=neurons),
    "neuron_map": plots.neuron_map,
    "zoom": lambda neurons: plots.neuron_map(neurons, neurons.n_layers - 1),
    "neuron_probabilities": lambda neurons: plots.neuron_probabilities(neurons, "L0N1"),
    "overlap": plots.overlap,
}
ORDINARY: dict[str, Callable[[], go.Figure]] = {
    **{name: lambda draw=draw: draw(small("all")) for name, draw in OF_NEURONS.items()},
    "parts": lambda: plots.layer_profile(*with_parts()),
    "histogram": lambda: plots.histogram_change(wobbly()),
    "transitions": lambda: plots.transitions(wobbly()),
    "classes": lambda: plots.class_changes(wobbly(), [(0, 1), (2, 4)]),
    "languages": lambda: plots.language_changes(wobbly()),
    "claims": lambda: plots.claims(claims(wobbly())),
    "series": lambda: plots.checkpoint_series(three_checkpoints()),
    "lens": lambda: plots.lens_curves(make_lens()),
    "shares": lambda: plots.attention_shares(make_shares(), "digits"),
    "edges": lambda: plots.neuron_edges(make_edges()),
    "latent": lambda: plots.lens_languages(make_reading()),
    "effects": lambda: plots.ablation_effects(make_matrix(*BIG)),
    "carried": lambda: plots.carry_over(with_alike(make_carry(turning(), ("de", "en")), 1)),
    "curve": lambda: plots.steering_curve(make_curve()),
    "methods": lambda: plots.method_effects(make_methods()),
    "methods' overlap": lambda: plots.method_overlap(make_methods()),
    "methods' layers": lambda: plots.method_layers(make_methods()),
    "coupling": lambda: plots.coupling(make_coupling()),
    "pairs": lambda: plots.language_coupling(make_coupling()),
    "measures": lambda: plots.importance_agreement(make_agreement()),
}


def with_hostile_names() -> dict[str, Callable[[], go.Figure]]:
    """Every figure of values whose names are hostile."""
    model = Provenance(model="<img src=x onerror=alert(1)>", scope="response")
    found = replace(
        planted(), languages=(*HOSTILE, "fr", "ru"), trained=(HOSTILE[0],), pivot=HOSTILE[1],
        provenance=(model, replace(model, model=HOSTILE[1])), tau_origin=HOSTILE[2],
    )  # fmt: skip
    series = ComparisonSeries(HOSTILE[0], (HOSTILE[1], HOSTILE[5]), (found, found))
    rows = [a_claim(name, reason=name) for name in HOSTILE]
    rows += [a_claim(HOSTILE[5], measured=NAN, reason=HOSTILE[1])]
    for one in rows[::2]:  # as a file by another hand may have it
        object.__setattr__(one, "verdict", one.claim)
        object.__setattr__(one, "expected", one.claim)
    curves = replace(make_lens(HOSTILE, pivot=HOSTILE[2]), provenance=model)
    matrix = make_matrix(*BIG, languages=HOSTILE)
    neurons = matrix.neurons_by_layer.copy()
    neurons[0] = 0
    classes = (HOSTILE[0], HOSTILE[2], HOSTILE[5])
    matrix = replace(matrix, neurons_by_layer=neurons, classes=classes, provenance=model)
    carried = replace(make_carry(turning(), HOSTILE), provenance=model)
    looked = replace(make_shares(HOSTILE), provenance=model)
    strange = replace(carried, outcomes=(*HOSTILE[:3], HOSTILE[5]), dropped={HOSTILE[0]: 2})
    named = {"neurons": HOSTILE[5], "ablated": HOSTILE[2], "method": HOSTILE[4]}
    curve = make_curve(toward=HOSTILE[0], prompts_in=HOSTILE[1])
    curve = replace(curve, provenance=model, **named)
    three = (HOSTILE[0], HOSTILE[2], HOSTILE[5])
    compared = make_methods(three, languages=HOSTILE, provenance=model)
    coupled = make_coupling(HOSTILE, provenance=model)
    measured = make_agreement(three, languages=HOSTILE, provenance=model)
    return {
        **{name: partial(draw, hostile()) for name, draw in OF_NEURONS.items()},
        "histogram": partial(plots.histogram_change, found),
        "transitions": partial(plots.transitions, found),
        "classes": partial(plots.class_changes, found, PARTS),
        "languages": partial(plots.language_changes, found),
        "series": partial(plots.checkpoint_series, series),
        "claims": partial(plots.claims, Claims(tuple(rows), 0.9, HOSTILE[0])),
        "lens": partial(plots.lens_curves, curves),
        "one language": partial(plots.lens_curves, curves, HOSTILE[5]),
        "shares": partial(plots.attention_shares, looked, "digits"),
        "latent": partial(plots.lens_languages, replace(make_reading(HOSTILE), provenance=model)),
        "edges": partial(plots.neuron_edges, replace(make_edges(HOSTILE), provenance=model)),
        "effects": partial(plots.ablation_effects, matrix),
        "carried": partial(plots.carry_over, with_alike(carried, 2)),
        "strange": partial(plots.carry_over, strange),
        "curve": partial(plots.steering_curve, curve),
        "methods": partial(plots.method_effects, compared),
        "methods' overlap": partial(plots.method_overlap, compared),
        "methods' layers": partial(plots.method_layers, compared),
        "coupling": partial(plots.coupling, coupled),
        "pairs": partial(plots.language_coupling, coupled),
        "measures": partial(plots.importance_agreement, measured),
    }


def test_hostile_names_are_shown_and_do_nothing() -> None:
    figures = with_hostile_names()
    assert len(figures) == len(OF_NEURONS) + 21
    for draw in figures.values():
        require_inert(draw())


@pytest.mark.parametrize("name", ORDINARY)
def test_title_notes_and_findings_are_data_and_what_is_drawn(name: str) -> None:
    layout = ORDINARY[name]().layout
    told = layout.meta
    assert unescape(layout.title.text).replace("<br>", " ") == told["title"]
    drawn = [line for line in layout.title.subtitle.text.split("<br>") if line.strip()]
    assert unescape(" ".join(drawn)) == " ".join(told["notes"])
    below = [unescape(note.text) for note in layout.annotations if note.name == "finding"]
    assert below == told["findings"]
    assert bool(below) == (name in ("parts", "classes"))


@pytest.mark.parametrize("name", ORDINARY)
def test_themes_keep_the_data_and_nothing_shares_state(name: str) -> None:
    light = ORDINARY[name]()
    dark = plots.in_theme(light, "dark")
    grounds = [one.layout.template.layout.paper_bgcolor for one in (light, dark)]
    assert grounds == ["#ffffff", "#15181d"]
    before = json.loads(light.to_json())
    assert json.loads(dark.to_json())["data"] == before["data"]
    light.update_layout(title_text="changed", template_layout_font_size=40)
    again = ORDINARY[name]()
    assert json.loads(again.to_json()) == before
    assert plots.in_theme(again, "dark").to_json() == dark.to_json()


def test_the_templates_of_plotly_stay_as_plotly_ships_them() -> None:
    shipped = {path.stem for path in files("plotly").joinpath("package_data/templates").iterdir()}
    assert {*pio.templates} - {"none"} == shipped
    assert pio.templates.default == "plotly"


SHADED: dict[str, Callable[[LayerParts, int], go.Figure]] = {
    "neurons": lambda parts, layers: plots.layer_profile(with_parts()[0], parts),
    "comparison": lambda parts, layers: plots.class_changes(wobbly(TEN, layers), parts),
    "curves": lambda parts, layers: plots.lens_curves(make_lens(layers=layers), parts=parts),
    "result": lambda parts, layers: plots.carry_over(
        make_carry(turning()[np.arange(layers) % 12]), parts
    ),
}


@pytest.mark.parametrize("name", SHADED)
def test_parts_are_shaded_where_found_and_refused_where_they_do_not_fit(name: str) -> None:
    _, parts = with_parts()
    found = SHADED[name](parts, 14)
    spans = {(shape.x0 + 0.5, shape.x1 - 0.5) for shape in found.layout.shapes if shape.fillcolor}
    assert spans == set(parts.boundaries)
    second = found.layout.meta["findings"][1]
    assert re.match("2  shared semantic space reasoning[:,] layers 3–7", second)
    lost = SHADED[name](replace(parts, found=False), 14)
    assert not [shape for shape in lost.layout.shapes if shape.fillcolor]
    assert "criteria of the four parts" in subtitle(lost)
    other = f"of a model of 14 layers, the {name} of one of 3"
    if name == "neurons":
        parts, other = divide_layers(small()), "these parts are of another profile"
    with pytest.raises(LensNeuronsError, match=other):
        SHADED[name](parts, 3)


@pytest.mark.parametrize("name", OF_NEURONS)
@pytest.mark.parametrize("languages", [("en", "zh"), TEN, MANY])
def test_figures_of_neurons_work_for_any_number_of_languages(
    name: str, languages: tuple[str, ...]
) -> None:
    for layers in (5, 80):
        neurons = identify(make_statistics(languages, layers, 40), population="all")
        figure = OF_NEURONS[name](neurons)
        assert figure.layout.title.text
        assert f"tau {neurons.tau:.4f}" in subtitle(figure)


@pytest.mark.parametrize("name", OF_NEURONS)
def test_figures_of_neurons_tell_an_unbounded_lambda_and_hold_no_array_of_theirs(name: str) -> None:
    for population in ("selected", "all"):
        neurons = replace(small(population), lambda_=0.2, lambda_origin="unbounded")
        assert "nothing bounds" in subtitle(OF_NEURONS[name](neurons))
    ours = (neurons.probability, neurons.n_above, neurons.class_codes, neurons.counted)
    drawn = [trace[key] for trace in OF_NEURONS[name](neurons).data for key in trace]
    arrays = [value for value in drawn if isinstance(value, np.ndarray)]
    assert arrays
    assert not any(np.shares_memory(array, own) for array in arrays for own in ours)


def test_every_figure_of_a_large_model_is_small() -> None:
    p = np.random.default_rng(0).random((32, 14336, 10))
    shape = p.shape[:2]
    neurons = LanguageNeurons(
        TEN, p, np.zeros(shape), np.ones(shape, bool), 0.5, "given", 0.1, "exact", "paper", 0.01
    )
    figures = [draw(neurons) for draw in OF_NEURONS.values()]
    wide = identify(make_statistics(MANY, 80, 900), population="all")
    figures += [OF_NEURONS[name](wide) for name in ("neuron_map", "zoom", "overlap")]
    many, checkpoints = wobbly(MANY, 80), (three_checkpoints()["half"],) * 40
    shares = turning()[np.minimum(np.arange(80) // 6, 11)]
    figures += [
        plots.histogram_change(many),
        plots.transitions(many),
        plots.class_changes(many, [(0, 20), (21, 79)]),
        plots.language_changes(many),
        plots.claims(claims(many)),
        plots.checkpoint_series(ComparisonSeries("0", tuple(map(str, range(1, 41))), checkpoints)),
        plots.lens_curves(make_lens(MANY, layers=80, pivot="nl")),
        plots.attention_shares(make_shares(MANY, heads=20), "digits"),
        plots.neuron_edges(make_edges(MANY, layers=79, number=30)),
        plots.lens_languages(make_reading(MANY, layers=80)),
        plots.ablation_effects(make_matrix(*BIG, languages=MANY, items=4)),
        plots.carry_over(with_alike(make_carry(shares, MANY), 3)),
        plots.steering_curve(make_curve(np.arange(60) / 10, np.linspace(0, 1, 60))),
        plots.coupling(make_coupling(MANY, layers=80)),
        plots.language_coupling(make_coupling(MANY, layers=80)),
    ]
    for figure in figures:
        assert len(plots.figure_fragment(figure)) < LARGEST, figure.layout.meta["title"]
