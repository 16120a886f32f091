"""The notebooks as pages: executed, with still figures, so that they can be read without Jupyter.

    python tests/support/export_notebooks.py [NUMBER ...]      # `make notebooks` writes all

Every notebook is run in a kernel without a network, and written to ``assets/notebooks`` twice: as a
page, and as a notebook that holds its outputs, which a hosting site shows. A figure is an image, in
WebP on the page and in PNG in the notebook (kaleido draws them, and needs a Chrome or Chromium):
plotly.js would add 4.8 MB to every page.
Both name the hash of the cells that they were made of, so a test finds out that they are old.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import kaleido
import nbformat
import notebook_tools as tools
import plotly.io
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
WIDTH = 800  # pixels of a figure
LARGE = 100_000  # characters of an output's HTML; scripts of that size are left out
PLACE = "<p><i>Here the notebook shows a page to click through.</i></p>"
KEY = "made_of"
# Of the kernel, which began with the imports done.
SECONDS = "import time\n\nround(time.process_time())"


def cells_hash(notebook: NotebookNode) -> str:
    """SHA-256 of the cells: their kinds and sources."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def image(figure: dict[str, Any], kind: str, scale: float) -> str:
    """A figure as an image, in base64."""
    size = {"width": WIDTH, "height": figure["layout"].get("height")}
    with warnings.catch_warnings(action="ignore"):  # of kaleido, about an option that is not used
        made = plotly.io.to_image(figure, format=kind, scale=scale, validate=False, **size)
    return base64.b64encode(made).decode()


def still(notebook: NotebookNode) -> NotebookNode:
    """The executed notebook with every figure as an image, and without plotly.js."""
    for cell in notebook.cells:
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if figure := data.pop(PLOTLY, None):
                figure.pop("config", None)
                source = f"data:image/webp;base64,{image(figure, 'webp', 1.5)}"
                data["text/html"] = f'<img width="{WIDTH}" src="{source}">'
                data["image/png"] = image(figure, "png", 1)
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
    trial.cells.append(nbformat.v4.new_code_cell(SECONDS))
    run = still(tools.execute(trial, path.parent))
    run.cells.pop(0)
    print(f"{path.stem}: {run.cells.pop().outputs[0].data['text/plain']} CPU-seconds after imports")
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
    for output in tools.outputs(run, "display_data"):
        if "image/png" in output.data:
            output.data.pop("text/html")
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
