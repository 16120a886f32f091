"""The tab about methods: there for what is given, its numbers, and what does not belong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pages
import pytest
from method_values import make_agreement, make_coupling, make_layers, make_methods
from pages import Page

from lensneurons.cli.shown_files import gather
from lensneurons.errors import LensNeuronsError
from lensneurons.reports import report, report_page
from lensneurons.reports.contents import ReportValues
from lensneurons.reports.sections import make_tabs

GIVEN = {
    "methods": make_methods(languages=pages.LANGUAGES),
    "coupling": make_coupling(pages.LANGUAGES),
    "layer_coupling": make_layers(pages.LANGUAGES),
    "agreement": make_agreement(),
}
SECTIONS = {"methods": 3, "coupling": 2, "layer_coupling": 1, "agreement": 1}


def tab(**values):
    made = make_tabs(ReportValues(pages.neurons(), **values))
    return next((one for one in made if one.name == "methods"), None)


@pytest.mark.parametrize("name", GIVEN)
def test_a_section_is_there_for_what_is_given_alone(name) -> None:
    assert tab() is None
    found = tab(**{name: GIVEN[name]})
    assert len(found.sections) == SECTIONS[name]
    for section in found.sections:
        for table in (*section.tables, *section.open_tables):
            assert table.rows
            assert all(len(row) == len(table.head) for row in table.rows)


def test_the_page_says_what_the_values_say(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report_page, "get_plotlyjs", lambda: "")
    path = report(tmp_path / "page.html", pages.neurons(), **GIVEN)
    page = Page(path.read_text(encoding="utf-8"))
    tabs = [one["id"] for one in page.named("button") if one.get("role") == "tab"]
    assert "tab-methods" in tabs
    labels = [one["aria-label"] for one in page.named("div") if one.get("class") == "plot"]
    assert sum("Neurons of lape change their own language by" in one for one in labels) == 1
    assert "answered most alike in layer 3: 0.60 (0.56 to 0.64)" in page.text
    assert "activation_gradient ranks neurons most as their removal does" in page.text
    effects = GIVEN["methods"].to_pandas().set_index(["method", "figure"])
    own = effects.loc[("plnd", "own effect")]
    assert f"+{own['estimate']:.2f} (+{own['low']:.2f} to +{own['high']:.2f})" in page.text
    assert "nearest in 0.025" in page.text
    assert "NaN" not in page.text


def test_values_of_other_weights_are_told_and_of_another_model_refused(tmp_path) -> None:
    for name, value in GIVEN.items():

        def of(changes, name=name, value=value):
            if name == "methods":
                origin = replace(value.matrix.provenance, **changes)
                return replace(value, matrix=replace(value.matrix, provenance=origin))
            return replace(value, provenance=replace(value.provenance, **changes))

        told = tab(**{name: of({"weights": "w2", "model": "made/up-later"})})
        assert "Measured on other weights than those of the neurons" in told.sections[0].text
        neurons = replace(
            pages.neurons(), provenance=replace(pages.neurons().provenance, config="c1")
        )
        with pytest.raises(LensNeuronsError, match=f"{name}= was measured on"):
            report(tmp_path / "p.html", neurons, **{name: of({"config": "c2", "weights": "w2"})})
    with pytest.raises(LensNeuronsError, match=r"coupling=.*give what coupling\(\) gives"):
        report(tmp_path / "p.html", pages.neurons(), coupling=np.zeros(3))


def test_the_command_takes_saved_ones(tmp_path) -> None:
    paths = [value.save(tmp_path / name) for name, value in GIVEN.items()]
    found = gather(paths)
    assert set(found) == set(GIVEN)
    assert found["methods"].sets == GIVEN["methods"].sets
