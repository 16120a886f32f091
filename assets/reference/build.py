"""Build the reference: a page a package, the gallery of figures, the notebooks and the error pages.

    python assets/reference/build.py build/docs

pdoc writes the pages of the packages. Each links to the notebooks that use it and to the pages of
the errors that it raises; both are read off the code. The gallery shows every figure beside the
lines that made it: the cells of ``figures.py``, run one after the other. No page needs a network.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mistune
import pdoc
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from transformers.utils import logging

import lensneurons

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE, NOTEBOOKS = ROOT / "lensneurons", sorted((ROOT / "notebooks").glob("*.ipynb"))
ERRORS = sorted((PACKAGE / "errors").glob("*.md"))
# pdoc adds the packages that `lensneurons` lists as its own.
MODULES = ("lensneurons", "lensneurons.errors")
CELL = re.compile(r"^# %% (\w+)(.*?): (.*)\n((?:(?!# %%).*\n)*)", re.MULTILINE)
PAGES = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True)


def build(folder: Path) -> None:
    """Write the whole reference."""
    learn = {name: {"notebooks": [], "errors": raised_in(name)} for name in packages()}
    for path in NOTEBOOKS:
        for name in used_by(path):
            learn[name]["notebooks"].append((path.stem, title_of(path)))
    pdoc.render.configure(docformat="google", template_directory=HERE)
    pdoc.render.env.globals["learn"] = learn
    pdoc.pdoc(*MODULES, output_directory=folder)
    for name, pages in (("notebooks", NOTEBOOKS), ("error-pages", ERRORS)):
        (folder / name).mkdir(exist_ok=True)
        for path in pages:
            body = notebook_html(path) if path.suffix == ".ipynb" else markdown(path.read_text())
            write(folder / name / f"{path.stem}.html", path.stem.replace("_", " "), "../", body)
    (folder / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    gallery = PAGES.get_template("gallery.html.jinja2").render(figures=list(figures()))
    write(folder / "gallery.html", "Gallery of all figures", "", Markup(gallery), plotly=True)


def write(path: Path, title: str, up: str, body: str, *, plotly: bool = False) -> None:
    """Write one page beside those of pdoc; `up` leads to the folder of the reference."""
    style = HtmlFormatter().get_style_defs(".highlight")
    values = {"title": title, "up": up, "body": body, "style": Markup(style), "plotly": plotly}
    path.write_text(PAGES.get_template("beside.html.jinja2").render(values), encoding="utf-8")


def packages() -> list[str]:
    """The packages with a page of their own."""
    names = [k for k in lensneurons.__all__ if isinstance(getattr(lensneurons, k), ModuleType)]
    return [*names, "errors"]


def raised_in(package: str) -> list[str]:
    """The errors and warnings that a package names, which have a page."""
    text = "".join(path.read_text("utf-8") for path in (PACKAGE / package).rglob("*.py"))
    return [path.stem for path in ERRORS if re.search(rf"\b{path.stem}\b", text)]


def used_by(notebook: Path) -> list[str]:
    """The packages whose names the code of a notebook uses."""
    code = "\n".join(source for kind, source in cells(notebook) if kind == "code")
    found = {getattr(lensneurons, name, None) for name in re.findall(r"\bln\.(\w+)", code)}
    homes = {getattr(one, "__module__", getattr(one, "__name__", "")) for one in found if one}
    return [name for name in packages() if any(f"{home}.".split(".")[1] == name for home in homes)]


def cells(notebook: Path) -> list[tuple[str, str]]:
    """Kind and text of the cells."""
    found = json.loads(notebook.read_text("utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in found]


def title_of(notebook: Path) -> str:
    """Its first heading."""
    return cells(notebook)[0][1].partition("\n")[0].removeprefix("# ")


def coloured(code: str) -> Markup:
    """Python as HTML."""
    return Markup(highlight(code, PythonLexer(), HtmlFormatter()))


def markdown(text: str) -> Markup:
    """Markdown as HTML; links between documents lead to their pages here."""
    html = str(mistune.create_markdown(escape=False, plugins=["table", "math"])(text))
    return Markup(re.sub(r'href="(?!\w+:)([^"#]+)\.(?:md|ipynb)(["#])', r'href="\1.html\2', html))


def notebook_html(path: Path) -> Markup:
    """A notebook as it is to be read; its figures come when it is run."""
    shown = [markdown(text) if kind == "markdown" else coloured(text) for kind, text in cells(path)]
    return Markup("\n").join(shown)


def figures() -> Any:
    """Every cell of ``figures.py``: what it draws, its code, and the figure as HTML."""
    names: dict[str, Any] = {}
    logging.disable_progress_bar()
    for function, more, about, code in CELL.findall((HERE / "figures.py").read_text("utf-8")):
        exec(compile(code, function, "exec"), names)
        yield {
            "function": function,
            "id": function if not more else f"{function}-more",
            "heading": function + more,
            "about": about,
            "code": coloured(code.strip()),
            "figure": Markup(lensneurons.plots.figure_fragment(names["figure"])),
        }


if __name__ == "__main__":
    build(Path(sys.argv[1]))
