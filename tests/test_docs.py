"""The documents tell the truth: links, code, file names, the reference, measured architectures."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from os.path import dirname, join, normpath
from pathlib import Path
from types import ModuleType
from typing import Any

import architectures
import mistune
import pytest
import tiny
from bs4 import BeautifulSoup

import lensneurons
from lensneurons import errors, plots
from lensneurons.models.sites import neuron_site

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")])
TABLE = ROOT / "assets" / "architectures.md"


def test_the_readme_is_short_and_its_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rendered = BeautifulSoup(mistune.create_markdown(plugins=["table"])(text), "html.parser")
    assert 700 <= len(rendered.get_text(" ").split()) <= 900
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
    loss = ast.literal_eval(re.sub(r"np\.float64\((.*?)\)", r"\1", capsys.readouterr().out))
    assert max(loss, key=loss.get) == "sw"
    assert f"by {loss['sw']}" in code
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_contributing_names_packages_and_files_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    package = ROOT / "lensneurons"
    named = set(re.findall(r"`([\w./-]+\.(?:py|pyi|md|cff|toml|txt)|[\w/]+/)`", text))
    there = [ROOT, package]
    assert {name for name in named if not any((folder / name).exists() for folder in there)} == {
        "dist/"
    }
    rows = re.findall(r"^\| \d+ \| (.*?) \|", text, re.MULTILINE)
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} | {"registry", "shapes"}
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == rooms


def test_the_version_is_the_same_everywhere() -> None:
    for file in ("pyproject.toml", "CITATION.cff"):
        assert re.search(
            rf'^version[:=\s"]+{re.escape(lensneurons.__version__)}"?$',
            (ROOT / file).read_text(encoding="utf-8"),
            re.MULTILINE,
        ), file


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert missing == []


# The reference


class Page(HTMLParser):
    """The anchors of a page, and all that a browser would fetch for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values["id"] or ""} if "id" in values else set()
        self.links += [values.get("href") or ""] if tag == "a" else []
        self.fetched += [values[name] or "" for name in ("src", "srcset", "data") if name in values]
        self.fetched += [values.get("href") or ""] if tag == "link" else []


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` writes, in a process of its own: this one checks the annotations."""
    folder = tmp_path_factory.mktemp("reference")
    recipe = re.search(r"^docs: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    command = recipe[1].replace("$(RUN)python", sys.executable).replace("build/docs", str(folder))
    made = subprocess.run(
        command, shell=True, cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (made.returncode, made.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(reference: Path) -> dict[str, Page]:
    """The pages of the reference, by their path in it."""
    files = {path.relative_to(reference).as_posix(): path for path in reference.rglob("*.html")}
    return {name: Page(path.read_text(encoding="utf-8")) for name, path in files.items()}


def test_the_reference_shows_every_public_name(pages: dict[str, Page]) -> None:
    faces = {"lensneurons": lensneurons}
    for name in lensneurons.__all__:
        if isinstance(member := getattr(lensneurons, name), ModuleType):
            faces[f"lensneurons.{name}"] = member
    for name, module in faces.items():
        anchors = pages[f"{name.replace('.', '/')}.html"].anchors
        own = {
            member for member in getattr(module, "__all__", ()) if f"{name}.{member}" not in faces
        }
        assert own - anchors == set(), name
    kinds = {name for name in vars(errors) if name.endswith("Error")}
    assert kinds - pages["lensneurons/errors.html"].anchors == set()


def test_the_gallery_holds_every_figure_and_the_code_that_made_it(reference: Path) -> None:
    """Each cell of the gallery ran, or the reference would not have been built."""
    page = BeautifulSoup((reference / "gallery.html").read_text("utf-8"), "html.parser")
    draw = {
        name
        for name in plots.__all__
        if inspect.signature(getattr(plots, name)).return_annotation == "go.Figure"
    }
    assert len(draw) >= 16
    for name in draw:
        section = page.find("section", id=name)
        assert section is not None, name
        assert f"figure = ln.plots.{name}(" in section.find("pre").get_text()
        assert len(section.find_all(class_="plotly-graph-div")) == 1
    assert len(page.find_all(class_="plotly-graph-div")) == len(page.find_all("section"))


def test_every_package_leads_to_its_notebooks_and_to_the_pages_of_its_errors(
    pages: dict[str, Page],
) -> None:
    def linked(package: str, folder: str) -> set[str]:
        links = pages[f"lensneurons/{package}.html"].links
        return {Path(one).stem for one in links if one.startswith(f"../{folder}/")}

    assert linked("comparison", "notebooks") >= {"05_before_and_after_alignment"}
    assert linked("corpora", "error-pages") >= {"CorpusError", "CorpusWarning"}
    every = {name for name in pages if re.fullmatch(r"lensneurons/\w+\.html", name)}
    taught = {name for name in every if linked(Path(name).stem, "notebooks")}
    assert {"activations", "neurons", "experiments", "interventions", "models", "plots"} <= {
        Path(name).stem for name in taught
    }
    errors = {path.stem for path in (ROOT / "lensneurons" / "errors").glob("*.md")}
    assert {Path(name).stem for name in pages if name.startswith("error-pages/")} == errors
    assert {Path(name).stem for name in pages if name.startswith("notebooks/")} == {
        path.stem for path in (ROOT / "notebooks").glob("*.ipynb")
    }


def test_the_reference_shows_no_directives_of_doctest(reference: Path) -> None:
    text = (reference / "lensneurons.html").read_text(encoding="utf-8")
    code = re.sub(r'<div class="pdoc-code codehilite"><pre>.*?</pre>', "", text, flags=re.DOTALL)
    assert "load_model" in code
    assert "# doctest" not in code


FOREIGN = re.compile(r"\s*(https?:)?//")
FOREIGN_STYLE = re.compile(r"@import|url\(\s*[\"']?(https?:)?//|\bimport\(")


def test_the_reference_needs_no_network(reference: Path, pages: dict[str, Page]) -> None:
    assert [url for page in pages.values() for url in page.fetched if FOREIGN.match(url)] == []
    texts = [path.read_text(encoding="utf-8") for path in reference.rglob("*.html")]
    assert not any(FOREIGN_STYLE.search(text) for text in texts)


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/a.css">',
        '<img srcset="http://cdn.example/a.png 2x">',
    ],
)
def test_a_foreign_resource_would_be_noticed(tag: str) -> None:
    assert [url for url in Page(tag).fetched if FOREIGN.match(url)]


def test_links_within_the_reference_lead_somewhere(pages: dict[str, Page]) -> None:
    wrong = []
    for name, page in pages.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            there = pages.get(normpath(join(dirname(name), file)) if file else name)
            if "://" not in link and (there is None or anchor not in there.anchors | {""}):
                wrong.append(f"{name}: {link}")
    assert wrong == []


# The table of architectures


@pytest.mark.parametrize(
    "architecture",
    ["Llama", "Phi3", "OPT", "Apertus", "Bamba", "Cohere2", "Gemma4", "Glm4", "Granite"],
)
def test_the_table_of_architectures_is_that_of_the_script(
    architecture: str, tmp_path: Path
) -> None:
    row = architectures.measure(architecture, tiny.save_model(architecture, tmp_path))
    ours = architectures.line(row.values()).split("|")[:-2]  # the difference is of the machine
    table = TABLE.read_text(encoding="utf-8").splitlines()
    assert ours in [line.split("|")[:-2] for line in table]


def test_a_row_that_does_not_hold_says_so(bridge: Any, model_folder: Any) -> None:
    model, folder = bridge("Llama"), model_folder("Llama")
    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_pre", lambda tensor, hook: -tensor)]):
        same, of, all_ = architectures.compare_counts("Llama", model, folder).split()
    assert (of, all_) == ("of", "468")
    assert 156 <= int(same) < 468  # layer 0 is as it was
    plain = tiny.load_plain(folder)
    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", lambda tensor, hook: tensor * 1.01)]):
        difference, effect = architectures.compare_ablation(
            "Llama", model, plain, neuron_site(model)
        )
    assert architectures.ALLOWED < difference < effect


def test_the_table_has_every_architecture_and_every_row_holds() -> None:
    table = TABLE.read_text(encoding="utf-8").split("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][2:]
    assert [row[1].strip() for row in rows] == [*tiny.ARCHITECTURES, *tiny.FURTHER]
    assert len(rows) >= 45
    for row in rows:
        same, all_ = row[7].split(" of ")
        assert int(same) == int(all_)
        assert row[8].strip() == "equal"
