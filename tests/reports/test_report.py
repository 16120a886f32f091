"""The report page: what is on it against the values, and that no text from outside acts in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import before_after
import numpy as np
import pages
import pytest

from lensneurons import plots
from lensneurons.cards.card import NeuronCard
from lensneurons.errors import LensNeuronsError
from lensneurons.plots.labels import plain
from lensneurons.plots.numbers import write_cell
from lensneurons.reports import neuron_table, report, report_page
from lensneurons.reports.contents import ReportValues, Table, table_of, visible
from lensneurons.reports.report_page import take_apart, themes
from lensneurons.reports.sections import make_tabs

VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, the text outside of scripts, and the blocks of JSON."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.blocks: dict[str, Any] = {}
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script" and (name := self.elements[-1][1].get("id")):
            self.blocks[name] = json.loads(data)
        elif inside not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@cache
def written(folder: Path) -> tuple[str, Page]:
    """The page of everything, and its parse."""
    arguments = dict(pages.everything())
    path = report(folder / "all.html", arguments.pop("neurons"), **arguments)
    source = path.read_text(encoding="utf-8")
    return source, Page(source)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return written(tmp_path_factory.mktemp("page"))


def test_the_page_needs_nothing_but_itself(whole: tuple[str, Page]) -> None:
    source, page = whole
    assert len(source.encode()) < 8_000_000
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'unsafe-inline';")
    assert "http" not in policy
    addresses = [a for _, at in page.elements for n, a in at.items() if n in ("src", "href")]
    assert sorted(set(addresses)) == ["#tabs", "data:,"]
    assert source.count("plotly.js v") == 1
    assert page.open == []


def test_tabs_are_there_for_what_was_given(whole: tuple[str, Page], tmp_path: Path) -> None:
    _, page = whole
    tabs = [b["id"] for b in page.named("button") if b.get("role") == "tab"]
    names = ["layers", "languages", "neurons", "effects", "change", "about"]
    assert tabs == [f"tab-{name}" for name in names]
    panels = [d["id"] for d in page.named("div") if d.get("role") == "tabpanel"]
    assert panels == names
    least = Page(report(tmp_path / "least.html", pages.neurons()).read_text(encoding="utf-8"))
    panels = [d["id"] for d in least.named("div") if d.get("role") == "tabpanel"]
    assert panels == ["layers", "languages", "neurons", "about"]
    assert "with texts" not in least.text


def test_the_summary_counts_what_is_there(whole: tuple[str, Page]) -> None:
    _, page = whole
    found = pages.neurons()
    n = (found.probability > 0.4).sum(axis=-1)
    specific, agnostic = int((n == 1).sum()), int((n == 10).sum())
    related = int(((n > 1) & (n < 10)).sum())
    assert (
        f"Of 320 neurons, {specific} are language-specific (active above the bar in one language), "
        f"{related} language-related (in several) and {agnostic} language-agnostic (in all 10); "
        f"{int((n == 0).sum())} exceed it in none."
    ) in page.text
    own = pages.matrix()
    places = np.eye(10, dtype=bool)
    cells = own.effect[1].reshape(10, 10, 4).mean(-1)
    told = f"changes by +{cells[places].mean():.2f} ("
    assert told in page.text
    assert f"that of the other languages by +{cells[~places].mean():.3f} (" in page.text
    assert "Of 6 answers, 67% are right, and 33% are right and in the language" in page.text
    assert "Of the 26 claims about alignment, 24 hold and 2 are undecided." in page.text


def test_every_section_has_its_words_and_every_figure_its_numbers(whole: tuple[str, Page]) -> None:
    _, page = whole
    arguments = dict(pages.everything())
    findings = ReportValues(**{k: v for k, v in arguments.items() if k not in ("title", "notes")})
    sections = [section for tab in make_tabs(findings) for section in tab.sections]
    assert len(sections) == 18
    for section in sections:
        assert section.heading in page.text
        assert section.text in page.text
        tables = (*section.tables, *section.open_tables)
        assert tables or section.heading.startswith("One of them")
        for table in tables:
            assert all(len(row) == len(table.head) for row in table.rows)
    drawn = [section.figure for section in sections if section.figure]
    plots = [d for d in page.named("div") if d.get("class") == "plot"]
    assert len(plots) == len(drawn) == 15
    assert all(d["role"] == "img" and d["tabindex"] == "0" and d["aria-label"] for d in plots)


def test_titles_and_notes_leave_the_picture_and_stay_whole() -> None:
    """What a figure draws around its plot is text on the report, and the plot keeps its size."""
    arguments = dict(pages.everything())
    values = ReportValues(**{k: v for k, v in arguments.items() if k not in ("title", "notes")})
    figures = [s.figure for tab in make_tabs(values) for s in tab.sections if s.figure]
    for figure in [*figures, plots.class_changes(arguments["comparison"], before_after.PARTS)]:
        before, found = figure.layout, take_apart(figure)
        layout, told = found.spec["layout"], found.notes
        drawn = [*before.title.text.split("<br>"), *before.title.subtitle.text.split("<br>")]
        drawn += [note.text for note in before.annotations if note.name == "finding"]
        drawn = [unescape(line) for line in drawn if line.strip()]
        assert " ".join([found.title, *told]) == " ".join(drawn)
        assert not {"title", "template", "paper_bgcolor", "width", "meta"} & set(layout)
        assert "finding" not in {note.get("name") for note in layout["annotations"]}
        # 38 pixels for a legend or 18 without, and 8 above: the rest was title and subtitle.
        # Some figures keep 20 pixels for heads of panels.
        head = (38 if before.showlegend else 18) + 8
        assert layout["margin"]["t"] in (head, head + 20)
        assert layout["height"] == found.height
        sizes = [
            (one["height"], one["margin"]["t"], one["margin"]["b"]) for one in (before, layout)
        ]
        assert len({height - top - bottom for height, top, bottom in sizes}) == 1
    assert told[-4].startswith("1  layers 0–")


def test_both_grounds_are_clear_and_their_labels_are_not() -> None:
    for theme in themes().values():
        layout = theme["layout"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert layout["hoverlabel"]["bgcolor"].startswith("#")
        assert layout["hoverlabel"]["font"]["color"] == layout["font"]["color"]
    assert themes()["light"]["layout"]["font"] != themes()["dark"]["layout"]["font"]


# --- the table of neurons ---


def test_the_table_is_that_of_the_neurons(whole: tuple[str, Page]) -> None:
    _, page = whole
    table, frame = page.blocks["table"], pages.neurons().to_pandas()
    assert [row[0] for row in table["rows"]] == frame["name"].tolist()
    assert [row[1] for row in table["rows"]] == frame["class"].tolist()
    named = [" ".join(pages.LANGUAGES[k] for k in row[2]) for row in table["rows"]]
    assert named == frame["languages"].tolist()
    assert [row[3] for row in table["rows"]] == pytest.approx(frame["score"], abs=1e-5)
    assert [row[4] for row in table["rows"]] == pytest.approx(frame["p_max"], abs=6e-4)
    assert [row[5] for row in table["rows"]] == frame["n_above"].tolist()
    p = frame[[f"p_{k}" for k in pages.LANGUAGES]].to_numpy()
    assert np.abs(np.array([row[7] for row in table["rows"]]) - p).max() <= 5e-4
    assert [k["code"] for k in table["languages"]] == list(pages.LANGUAGES)
    assert f"All {len(frame)} selected neurons that are active above tau" in page.text


def test_a_large_model_has_its_best_neurons_and_is_told_which_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuron_table, "MOST_NEURONS", 20)
    found = pages.neurons()
    frame = found.to_pandas()
    last = frame["name"].iloc[-1]
    card = pages.card(found, last, pages.TEXTS)
    page = Page(report(tmp_path / "p.html", found, cards=[card]).read_text(encoding="utf-8"))
    rows = [row[0] for row in page.blocks["table"]["rows"]]
    assert rows == [*frame["name"].head(20), last]
    bar = f"{frame['score'].iloc[19]:.4f}"
    assert (
        f"Of the {len(frame)} selected neurons that are active above tau in some language, the 20 "
        f"with the lowest scores (up to {bar}); the other {len(frame) - 20} are left out here"
    ) in page.text


def test_a_card_can_be_of_a_neuron_that_was_not_selected(tmp_path: Path) -> None:
    found = pages.neurons()
    layer, neuron = np.argwhere(~found.selected)[0].tolist()
    card = pages.card(found, f"L{layer}N{neuron}", pages.TEXTS)
    page = Page(report(tmp_path / "p.html", found, cards=[card]).read_text(encoding="utf-8"))
    name, *_, selected, _ = page.blocks["table"]["rows"][-1]
    assert (name, selected) == (f"L{layer}N{neuron}", 0)


def test_a_neuron_without_a_score_has_its_card(tmp_path: Path) -> None:
    """JSON of a browser has no infinity, and one would empty the whole page."""
    found, name = pages.with_scoreless(pages.neurons())
    card = pages.card(found, name, pages.TEXTS)
    text = report(tmp_path / "page.html", found, cards=[card]).read_text(encoding="utf-8")
    parts = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert len(parts) > 3
    for part in parts:
        json.loads(part, parse_constant=pytest.fail)
    [row] = [row for row in json.loads(parts[-1])["rows"] if row[0] == name]
    assert (row[1], row[3]) == ("unclassified", None)


def test_a_page_that_no_browser_reads_is_not_written(tmp_path: Path) -> None:
    broken = replace(pages.neurons(), tau=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        report(tmp_path / "page.html", broken)
    assert list(tmp_path.iterdir()) == []


def test_cards_hold_texts_tokens_and_numbers(whole: tuple[str, Page]) -> None:
    source, page = whole
    name = pages.best(pages.neurons(), 1)[0]
    start = source.index(f'<template id="card-{name}">')
    card = Page(source[start : source.index("</template>", start) + len("</template>")])
    for language, parts in pages.TEXTS.items():
        assert "".join(parts) in card.text
        assert {"class": "text", "lang": language} in card.named("span")
    own = pages.neurons().languages_of(name)
    assert 0 < len(own) < 10
    closed = card.text.index("In languages below tau")
    for language, (before, _, _) in pages.TEXTS.items():
        assert (card.text.index(before) < closed) == (language in own)
    assert "0.25 (3)" in card.text
    assert "+0.12 (+0.062 to +0.25)" in card.text
    assert "苹果" in page.blocks["table"]["words"][name]


# --- refusals ---


def test_cards_of_other_neurons_are_refused(tmp_path: Path) -> None:
    found = pages.neurons()
    name = pages.best(found, 1)[0]
    card = pages.card(found, name, pages.TEXTS)
    foreign = pages.card(replace(found, tau=0.41), name, pages.TEXTS)
    with pytest.raises(LensNeuronsError, match=f"card of {name} is of other neurons than the page"):
        report(tmp_path / "p.html", found, cards=[foreign])
    with pytest.raises(LensNeuronsError, match=f"two cards are of {name}: give one"):
        report(tmp_path / "p.html", found, cards=[card, card])
    far: NeuronCard = replace(card, facts=replace(card.facts, name="L99N0"))
    with pytest.raises(LensNeuronsError, match="L99N0 is outside a model of 8 layers"):
        report(tmp_path / "p.html", found, cards=[far])
    assert list(tmp_path.iterdir()) == []


def test_parts_of_other_neurons_are_refused_and_the_old_page_stays(tmp_path: Path) -> None:
    path = report(tmp_path / "p.html", pages.neurons())
    before = path.read_bytes()
    parts = pages.everything()["parts"]
    with pytest.raises(LensNeuronsError, match="these parts are of another profile"):
        report(path, replace(pages.neurons(), tau=0.6), parts=parts)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_results_of_another_model_say_so(whole: tuple[str, Page]) -> None:
    _, page = whole
    assert page.text.count("Measured on other weights than those of the neurons: another.") == 1


# --- hostile text ---

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "</template></style><svg onload=alert(1)>",
    "<s>struck</s>",
    "\"quoted\" 'single' & &amp; &lt;b&gt;",
    "{{ 7 * 7 }} {% raw %} {# no #}",
    "\u202egnirts sdrawkcab",
    "שלום عليكم",
    "e\u0301\u0323 কি ห้า",
    "👩\u200d👩\u200d👧 🏴\U000e0067\U000e0062\U000e007f",
    "nul\0l",
    "lone \ud800 surrogate \udfff",
    "line\nbreak\ttab\u2028",
    "<!--",
]


@pytest.mark.parametrize("text", [" ".join(HOSTILE[i : i + 3]) for i in range(0, 14, 3)])
def test_no_text_from_outside_acts_or_hides(
    text: str, harmless: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "get_plotlyjs", lambda: "")  # 4.6 MB less to parse
    languages = ("en", text, f"{text} 2")
    found = pages.neurons(languages)
    found = replace(found, provenance=replace(found.provenance, model=text))
    name = pages.best(found, 1)[0]
    texts = dict.fromkeys(languages, (text, text, text))
    card = replace(pages.card(found, name, texts), source=text)
    accuracy = replace(pages.accuracy(), provenance=found.provenance)
    claims = replace(pages.everything()["claims"], description=text)
    path = report(
        tmp_path / "p.html", found, cards=[card], effects=[pages.matrix(languages)],
        accuracy=accuracy, claims=claims, title=text, notes=[text],
    )  # fmt: skip
    raw = path.read_bytes()
    assert b"\0" not in raw
    source = raw.decode("utf-8")
    page = Page(source)
    assert page.open == []
    assert [tag for tag, _ in page.elements] == harmless
    shown = " ".join(visible(text).split())
    assert page.text.count(shown) >= 10
    assert not any(n.startswith("on") for _, attributes in page.elements for n in attributes)
    assert page.blocks["table"]["languages"][1]["code"] == plain(text)
    for block in page.blocks.values():
        json.dumps(block, ensure_ascii=False).encode("utf-8")  # no lone surrogate is left


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The elements of the same page with harmless names."""
    found = pages.neurons(("en", "xx", "xx 2"))
    name = pages.best(found, 1)[0]
    texts = dict.fromkeys(found.languages, ("a", "b", "c"))
    path = tmp_path_factory.mktemp("page") / "plain.html"
    report(
        path, found, cards=[pages.card(found, name, texts)],
        effects=[pages.matrix(found.languages)], accuracy=pages.accuracy(),
        claims=pages.everything()["claims"], title="x", notes=["x"],
    )  # fmt: skip
    return [tag for tag, _ in Page(path.read_text(encoding="utf-8")).elements]


@pytest.mark.parametrize("text", [*HOSTILE, "\u2068\0\u2069", "\u2069\u2068", "", "◌\u0301"])
def test_what_is_visible_stays_as_it_is(text: str) -> None:
    once = visible(text)
    assert visible(once) == once
    assert visible(plain(text)) == plain(text)
    assert all(c.isprintable() or c in "\u200c\u200d\u2068\u2069" or c > "\U000e0000" for c in once)
    if text.isprintable():
        assert once == text


# --- cells ---


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (12345, "12,345"), (-3, "−3"), (0.5, "0.500"), (-0.25, "−0.250"), (2e-5, "2.0e−05"),
        (1234.0, "1,234"), (0.0, "0.000"), (None, "–"), (float("nan"), "–"), (True, "yes"),
        (False, "no"), ("<b>", "<b>"),
    ],
)  # fmt: skip
def test_cells_are_written_alike(cell: Any, shown: str) -> None:
    assert write_cell(cell) == shown


def test_a_long_table_says_what_it_leaves_out() -> None:
    frame = pages.neurons().to_pandas()
    table = table_of(frame[["name", "p_max"]], "all", most=7)
    assert table.head == ("name", "p max")
    assert (len(table.rows), table.left_out) == (7, len(frame) - 7)
    assert table.wordy == (True, False)
    assert Table(("a", "b"), ()).wordy == (False, False)


def test_the_templates_hold_no_address() -> None:
    folder = Path(report_page.__file__).parent / "templates"
    for name in ("page.html.jinja", "page.css", "page.js"):
        assert not re.search(r"https?://|url\(|import\s", (folder / name).read_text("utf-8"))
