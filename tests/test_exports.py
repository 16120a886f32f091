"""The exported notebooks: of the notebooks as they are, small, with images, and without a request.

And what a figure gives a notebook's page: the forms that JupyterLab, VS Code and Colab draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import export_notebooks as exports
import notebook_tools as tools
import plotly.graph_objects as go
import plotly.io
import pytest
from nbconvert import HTMLExporter
from notebook_tools import Page

from lensneurons import course

MOST = 7_000_000  # bytes


@pytest.mark.parametrize("path", tools.PATHS, ids=lambda path: path.stem[:2])
def test_an_export_is_of_the_notebook_as_it_is(path: Path) -> None:
    made_of = exports.cells_hash(tools.read(path))
    held = tools.read(exports.FOLDER / path.name)
    page = (exports.FOLDER / f"{path.stem}.html").read_text(encoding="utf-8")
    old = f"{path.name} has changed since its export was made: make notebooks"
    assert held.metadata[exports.KEY] == made_of, old
    assert f'name="{exports.KEY}" content="{made_of}"' in page, old
    assert [cell.source for cell in held.cells] == [cell.source for cell in tools.read(path).cells]
    assert [out for kind in ("stream", "error") for out in tools.outputs(held, kind)] == []
    images = [out for out in tools.outputs(held, "display_data") if "image/png" in out.data]
    figures = sum("ln.plots." in cell.source for cell in held.cells if cell.cell_type == "code")
    assert len(images) >= figures
    assert page.count("data:image/webp;base64,") == len(images)
    assert Page(page).requests == []


def test_a_changed_cell_changes_the_hash() -> None:
    notebook = tools.read(tools.PATHS[0])
    before = exports.cells_hash(notebook)
    notebook.cells[-1].source += " "
    assert exports.cells_hash(notebook) != before


def test_the_exports_are_small_and_of_these_notebooks_alone() -> None:
    files = {file.name: file.stat().st_size for file in exports.FOLDER.iterdir()}
    assert set(files) == {f"{p.stem}{end}" for p in tools.PATHS for end in (".html", ".ipynb")}
    assert sum(files.values()) < MOST


# --- what a figure gives a page ---


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls `course.begin` and gives what a figure shows; plotly is as before afterwards."""
    renderers = plotly.io.renderers
    before = renderers.default
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def bundle() -> dict[str, Any]:
        course.begin()
        figure = go.Figure(go.Bar(y=[1, 2]), {"title": {"text": "A title"}})
        shown: dict[str, Any] = {}
        for name in renderers.default.split("+"):
            shown |= renderers[name].to_mimebundle(figure.to_dict())
        return shown

    yield bundle
    renderers.default = before


def test_a_figure_comes_in_the_forms_that_pages_draw(begun: Any) -> None:
    shown = begun()
    # JupyterLab's extension of plotly, and VS Code's renderers for notebooks, list the first form.
    assert list(shown) == ["application/vnd.plotly.v1+json", "text/html"]
    figure = shown["application/vnd.plotly.v1+json"]
    assert figure["data"][0]["type"] == "bar"
    assert figure["layout"]["title"]["text"] == "A title"
    assert "toImage" not in figure["config"]["modeBarButtonsToRemove"]
    assert Page(shown["text/html"]).requests == []
    # nbconvert takes the first form of its list that there is, and has none for plotly's own.
    order = HTMLExporter().default_config["NbConvertBase"]["display_data_priority"]
    assert [kind for kind in order if kind in shown] == ["text/html"]


def test_in_colab_a_figure_brings_its_own_plotly(
    begun: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLAB_NOTEBOOK_ID", "a notebook")
    shown = begun()
    # Every output of Colab is a frame of its own, so what another cell loaded is not there.
    assert list(shown) == ["text/html"]
    asked = Page(shown["text/html"]).requests
    assert any("plotly" in address for address in asked)
