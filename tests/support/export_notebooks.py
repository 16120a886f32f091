"""The notebooks as pages: executed, with still figures, so that they can be read without Jupyter.

    python tests/support/export_notebooks.py [NUMBER ...]      # `make notebooks` writes all

Every notebook is run in a kernel without a network, and written to ``assets/notebooks`` twice: as a
page, and as a notebook that holds its outputs, which a hosting site shows. A figure is a PNG image
(kaleido draws it, and needs a Chrome or Chromium), since plotly.js would be 4.8 MB on every page.
Both name the hash of the cells that they were made of, so a test finds out that they are old.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path

import kaleido
import nbformat
import notebook_tools as tools
import plotly.io
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
WIDTH, SCALE = 800, 1.25  # pixels of a figure as it is laid out, and image pixels for each
LARGE = 100_000  # characters of an output's HTML; scripts of that size are left out
PLACE = "<p><i>Here the notebook shows a page to click through.</i></p>"
KEY = "made_of"


def cells_hash(notebook: NotebookNode) -> str:
    """SHA-256 of the cells: their kinds and sources."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def still(notebook: NotebookNode) -> NotebookNode:
    """The executed notebook with every figure as an image, and without plotly.js."""
    for cell in notebook.cells:
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if figure := data.pop(PLOTLY, None):
                figure.pop("config", None)
                size = {"width": WIDTH, "height": figure["layout"].get("height")}
                png = plotly.io.to_image(figure, format="png", scale=SCALE, validate=False, **size)
                data.pop("text/html")
                data["image/png"] = base64.b64encode(png).decode()
            elif len(data.get("text/html", "")) > LARGE:
                if not data["text/html"].startswith("<iframe"):  # plotly.js itself
                    continue
                data["text/html"] = PLACE
            kept.append(output)
        if cell.cell_type == "code":
            cell.outputs = kept
    return notebook


def export(path: Path, folder: Path = FOLDER) -> list[Path]:
    """Run a notebook, and write its page and the notebook with its outputs."""
    source = tools.read(path)
    trial = nbformat.from_dict(source)
    trial.cells.insert(0, nbformat.v4.new_code_cell(tools.NO_NETWORK))
    run = still(tools.execute(trial, path.parent))
    run.cells.pop(0)
    run.metadata[KEY] = cells_hash(source)
    for cell in run.cells:
        cell.metadata.pop("execution", None)
        for counted in (cell, *cell.get("outputs", [])):
            if counted.get("execution_count") is not None:
                counted.execution_count -= 1  # the cell that blocked the network is gone
    page = tools.to_html(run).replace(
        "<head>", f'<head><meta name="{KEY}" content="{run.metadata[KEY]}">', 1
    )
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{path.stem}.html", folder / path.name]
    written[0].write_text(page, encoding="utf-8")
    nbformat.write(run, written[1])
    return written


def main() -> None:
    numbers = sys.argv[1:]
    kaleido.start_sync_server()  # one browser for all figures
    for path in tools.PATHS:
        if not numbers or path.stem[:2] in numbers:
            print(*export(path))
    kaleido.stop_sync_server()


if __name__ == "__main__":
    main()
