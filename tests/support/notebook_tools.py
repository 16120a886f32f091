"""Reading, executing and converting notebooks, for their tests."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from forked_kernel import ForkedKernel
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
HOLE = re.compile(r"^.*# your answer.*$", re.MULTILINE)
SOLUTION = re.compile(r"<details>.*?```python\n(.*?)\n```.*?</details>", re.DOTALL)
NO_NETWORK = "from pytest_socket import disable_socket\n\ndisable_socket(allow_unix_socket=True)"
# What a page asks for by itself: the attributes of these tags, and addresses in style and script.
LOADING = {"script", "link", "img", "iframe", "embed", "object", "source", "video", "audio"}
ADDRESS = re.compile(r"(?:@import|url\(|\bimport\b|\bfetch\()\W{0,6}(https?://[^\s'\")]+)")
LIBRARY = 200_000  # longer scripts are plotly.js and nbconvert's own; they load what a figure asks


class Exercise(NamedTuple):
    """An exercise: its number, its cell, and the solution folded below it."""

    number: str
    cell: NotebookNode
    solution: str

    def answered(self, answer: str) -> str:
        """The code of the cell with another answer in the place of the hole."""
        return HOLE.sub(lambda _: answer, self.cell.source, count=1)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def exercises(notebook: NotebookNode) -> Iterator[Exercise]:
    """All exercises of a notebook; each is followed by the text that holds its solution."""
    for cell, below in zip(notebook.cells, notebook.cells[1:], strict=False):
        if "exercise" in cell.metadata.get("tags", []):
            (solution,) = SOLUTION.findall(below.source)
            yield Exercise(cell.id.removeprefix("exercise-"), cell, solution)


def execute(notebook: NotebookNode, folder: Path, *, anew: bool = False) -> NotebookNode:
    """Run a notebook in a kernel of its own, over Unix sockets alone; an exception is an error.

    The kernel has the libraries imported already; with `anew` it starts as a reader's does.
    """
    client = NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=300,
        kernel_name="python3",
        kernel_manager_class=AsyncKernelManager if anew else ForkedKernel,
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory() as sockets:  # their paths have to be short
        client.create_kernel_manager()
        client.km.transport, client.km.ip = "ipc", f"{sockets}/kernel"
        return client.execute()


def to_html(notebook: NotebookNode) -> str:
    """A notebook as a page, by nbconvert told to load nothing, and to hide what is to be hidden."""
    offline = {"mathjax_url": "", "require_js_url": "", "mermaid_js_url": ""}
    hide = {"enabled": True, "remove_input_tags": {"hide-input"}}
    exporter = HTMLExporter(config=Config(TagRemovePreprocessor=hide), **offline)
    return exporter.from_notebook_node(notebook)[0]


class Page(HTMLParser):
    """What a page shows, and what it would ask the network for when it is opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.tables: list[str] = []
        self.figures = 0
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.figures += "plotly-graph-div" in given.get("class", "")
        self._inside.append(tag)
        if tag in LOADING:
            asked = [given.get(name, "") for name in ("src", "href", "data", "srcset")]
            self.requests += [a for a in asked if a.startswith(("http:", "https:", "//"))]
        self.requests += ADDRESS.findall(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        tag = self._inside[-1] if self._inside else ""
        if tag in ("script", "style") and len(data) < LIBRARY:
            self.requests += ADDRESS.findall(data)
        if tag == "caption":
            self.tables.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass


def outputs(notebook: NotebookNode, kind: str) -> list[Any]:
    """All outputs of one kind, ``"stream"``, say."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [out for cell in cells for out in cell.outputs if out.output_type == kind]
