"""Figures of methods, coupling and measures: the numbers drawn, and titles that are true."""

from __future__ import annotations

import numpy as np
import pytest
from method_values import METHODS, make_agreement, make_coupling, make_methods

from lensneurons import plots
from lensneurons.comparison.coupled_neurons import Coupling


def title(figure) -> str:
    return figure.layout.meta["title"]


def test_effects_stand_beside_those_of_random_neurons() -> None:
    compared = make_methods()
    figure = plots.method_effects(compared)
    assert list(figure.layout.yaxis.ticktext) == list(METHODS)
    own, random, others = figure.data
    for place, name in enumerate(METHODS):
        found = compared.matrix.figures(name)
        for trace, key in (
            (own, "mean diagonal"),
            (random, "control (own): mean diagonal"),
            (others, "mean off-diagonal"),
        ):
            assert trace.x[place] == pytest.approx(float(found[key].estimate))
            low = trace.x[place] - trace.error_x.arrayminus[place]
            assert low == pytest.approx(float(found[key].low))
            assert trace.customdata[place][1] == pytest.approx(float(found[key].low))
    # PLND does most, and random neurons as active nearly as much: beyond them LAPE does most.
    assert title(figure).startswith("Neurons of lape change their own language by")
    assert "the most harm of 3 methods" in title(figure)


def test_a_title_claims_nothing_that_intervals_do_not_show() -> None:
    same = make_methods(levels=((0.1, 0.1, 0.1), (0.2, 0.2, 0.2), (0.3, 0.1, 0.4)))
    told = "No method's neurons harm their language measurably more than random ones do"
    assert title(plots.method_effects(same)) == told
    notes = plots.method_effects(make_methods()).layout.meta["notes"]
    assert any(note.startswith("Random neurons") and "active in that" in note for note in notes)
    few = make_methods(items=3)
    assert title(plots.method_effects(few)).startswith("Too few items for intervals")
    assert "too few for an interval" in " ".join(plots.method_effects(few).layout.meta["notes"])


def test_overlap_and_layers_are_those_of_the_sets() -> None:
    compared = make_methods()
    values = np.array(plots.method_overlap(compared).data[0].z, float)
    table = compared.overlap().to_numpy()
    off = ~np.eye(3, dtype=bool)
    assert values[off] == pytest.approx(table[off])
    assert np.isnan(values[~off]).all()
    figure = plots.method_layers(compared)
    for trace, name in zip(figure.data, METHODS, strict=True):
        assert list(trace.y) == compared.layer_profile()[name].tolist()
    assert len({(one.line.color, one.line.dash, one.marker.symbol) for one in figure.data}) == 3
    two = make_methods(METHODS[:2], ((1, 0, 0), (1, 0, 0)))
    assert "share neurons: Jaccard" in title(plots.method_overlap(two))


def test_coupling_by_layer_and_pair() -> None:
    found = make_coupling()
    figure = plots.coupling(found)
    lines = [one for one in figure.data if one.mode == "lines+markers"]
    assert [one.name for one in lines] == ["all neurons", "unclassified", "specific", "related"]
    assert list(lines[0].y) == pytest.approx(found.estimate[0, :-1])
    told = "An item and its translation are answered most alike in layer 3: 0.60 (0.56 to 0.64)"
    assert title(figure) == f"{told}, least in layer 0: 0.30"
    assert "Left out, the same for all items: 2 neurons" in figure.layout.meta["notes"]
    pairs = plots.language_coupling(found)
    values = np.array(pairs.data[0].z, float)
    assert values[0, 1] == values[1, 0] == 0.9
    assert np.isnan(values.diagonal()).all()
    assert title(pairs).startswith("English (en) and Russian (ru) are coupled most: 0.90 (0.87")
    gaps = found.estimate.copy()
    gaps[1, [0, 2, 5]] = np.nan  # unclassified ones in layers 1, 3 and 4 alone
    drawn = plots.coupling(Coupling(**{**vars(found), "estimate": gaps})).data
    own = [one for one in drawn if one.name == "unclassified" and one.mode == "lines+markers"]
    assert [list(one.x) for one in own] == [[1], [3, 4]]
    assert [one.showlegend for one in own] == [True, False]
    bands = [one for one in drawn if one.name == "unclassified" and one.mode == "lines"]
    assert [sorted(set(one.x)) for one in bands] == [[3, 4]]
    nothing = Coupling(**{
        **vars(found), "estimate": found.estimate * 0, "low": found.estimate * 0 - 0.1
    })  # fmt: skip
    assert title(plots.coupling(nothing)).startswith("In no layer are an item and its translation")


def test_measures_stand_with_intervals_and_chance() -> None:
    agreement = make_agreement()
    figure = plots.importance_agreement(agreement)
    table = agreement.to_pandas()
    rows = table[table["language"] == "all"]
    for trace, name in zip(figure.data, ("spearman", "signed", "recall"), strict=True):
        assert list(trace.x) == pytest.approx(rows[name].tolist(), nan_ok=True)
    assert [shape.x0 for shape in figure.layout.shapes] == [pytest.approx(0.1)]
    told = title(figure)
    assert told.startswith("activation_gradient ranks neurons most as their removal does: 1.00")
    assert told.endswith("intervals of 0 of 3 others overlap with it")
    assert any(note.startswith("Cost, in plain passes") for note in figure.layout.meta["notes"])
    timeless = plots.importance_agreement(agreement.without_times())
    assert not any("Cost" in note for note in timeless.layout.meta["notes"])
    alike = make_agreement(("plnd", "direct"))
    alike = type(alike)(**{**vars(alike), "value": alike.value[[0, 0]]})
    told = title(plots.importance_agreement(alike))
    assert told.endswith("intervals of 1 of 1 others overlap with it")
