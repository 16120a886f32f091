"""The report page: what is on it against the values, and that no text from outside acts in it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any, get_args

import before_after
import figure_values
import numpy as np
import pages
import pytest
from figure_values import wobbly
from pages import Page
from plotly.offline import get_plotlyjs

from lensneurons import plots
from lensneurons.comparison.before_after import TableName, compare
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.answers import accuracy_difference, mean_difference
from lensneurons.evaluation.generation import Decoding
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.plots.labels import plain
from lensneurons.plots.numbers import write_cell
from lensneurons.reports import neuron_table, report, report_page
from lensneurons.reports.contents import ReportValues, Section, Table, table_of, visible
from lensneurons.reports.report_page import take_apart, themes
from lensneurons.reports.sections import make_tabs
from lensneurons.values.files import write_csv
from lensneurons.views.explorer import explore


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of everything."""
    path = tmp_path_factory.mktemp("page") / "all.html"
    return report(path, **pages.everything()).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


@pytest.fixture(scope="module")
def sections() -> list[Section]:
    values = {k: v for k, v in pages.everything().items() if k not in ("title", "notes")}
    return [one for tab in make_tabs(ReportValues(**values)) for one in tab.sections]


def unpacked(source: str) -> dict[str, str]:
    """The packed texts of a page, by the id of their element."""
    found = re.findall(r'<script type="text/plain" data-packed id="([^"]+)">([^<]*)<', source)
    return {name: gzip.decompress(base64.b64decode(text)).decode() for name, text in found}


def written(folder: Path, found: LanguageNeurons, *names: str, **more: Any) -> Page:
    """A page of neurons with the cards of some, without plotly.js: 4.6 MB less to parse."""
    cards = [pages.card(found, name, pages.TEXTS) for name in names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_page, "get_plotlyjs", lambda: "")
        path = report(folder / "page.html", found, **{"cards": cards, **more})
    assert b"\0" not in path.read_bytes()
    return Page(path.read_bytes().decode("utf-8"))


def test_the_page_needs_nothing_but_itself(source: str, page: Page) -> None:
    assert len(source.encode()) < 3_500_000
    policy = str(next(m["content"] for m in page.named("meta") if m.get("http-equiv")))
    assert policy.startswith("default-src 'none'; script-src 'unsafe-inline';")
    assert "http" not in policy
    addresses = [a for _, at in page.elements for n, a in at.items() if n in ("src", "href")]
    assert sorted(set(addresses)) == ["#tabs", "data:,"]
    scripts = [at for name, at in page.elements if name == "script"]
    assert [at["id"] for at in scripts if at.get("id") == "plotly"] == ["plotly"]
    assert unpacked(source)["plotly"] == get_plotlyjs()


def test_tabs_are_there_for_what_was_given(page: Page, tmp_path: Path) -> None:
    names = ["findings", "layers", "languages", "effects", "neurons", "explorer", "change", "about"]
    always = ["findings", "layers", "languages", "neurons", "explorer", "about"]
    tabs = [b["id"] for b in page.named("button") if b.get("role") == "tab"]
    assert tabs == [f"tab-{name}" for name in names]
    least = written(tmp_path, pages.neurons())
    for one, there in ((page, names), (least, always)):
        assert [d["id"] for d in one.named("div") if d.get("role") == "tabpanel"] == there
    assert "with texts" not in least.text


def test_the_summary_counts_what_is_there(page: Page) -> None:
    found = pages.neurons()
    n = np.bincount((found.probability > 0.4).sum(axis=-1).ravel(), minlength=11)
    assert (
        f"Of 320 neurons, {n[1]} are language-specific (active above the bar in one language), "
        f"{n[2:10].sum()} language-related (in several) and {n[10]} language-agnostic (in all 10); "
        f"{n[0]} exceed it in none."
    ) in page.text
    places, cells = np.eye(10, dtype=bool), pages.matrix().effect[1].reshape(10, 10, -1).mean(-1)
    assert f"changes: its own by +{cells[places].mean():.2f} (" in page.text
    assert f"that of the other languages by +{cells[~places].mean():.3f} (" in page.text
    assert "Of 6 answers, 67% are right, and 33% are right and in the language" in page.text
    assert re.search(r"Of the 28 claims about alignment, \d+ .* are undec", page.text)
    assert re.search(r"all firing alone gives \+\d+, a common shift with noise gives", page.text)


def test_every_section_has_its_words_and_every_figure_its_numbers(
    page: Page, sections: list[Section]
) -> None:
    assert len(sections) == 21
    for section in sections:
        assert section.heading in page.text
        assert section.text in page.text
        tables = (*section.tables, *section.open_tables)
        assert tables or section.heading.startswith("One of them")
        for table in tables:
            assert all(len(row) == len(table.head) for row in table.rows)
    plots = [d for d in page.named("div") if d.get("class") == "plot"]
    assert len(plots) == sum(section.figure is not None for section in sections) == 16
    assert all(d["role"] == "img" and d["tabindex"] == "0" and d["aria-label"] for d in plots)


def test_a_prompt_stands_with_what_was_written_without_neurons(
    source: str, sections: list[Section]
) -> None:
    (one,) = [section for section in sections if section.heading.startswith("The same prompt")]
    (table,) = one.open_tables
    assert table.caption == "3 + 4 & so on … (scaled, by factor)"
    assert table.rows == (
        ("none", "–", "Answer: 7", "0%", "0.250"),
        ("th: 12 neurons", "0", "Answer: <8>", "50%", "1.500"),
        ("random, as active", "0", "Answer: 7", "0%", "0.500"),
    )
    assert "Answer: &lt;8&gt;" in source


def test_answers_stand_before_and_after_with_means_by_kind_of_language(
    page: Page, sections: list[Section]
) -> None:
    (one,) = [section for section in sections if section.heading.startswith("Right answers, bef")]
    (table,) = one.open_tables
    assert table.caption == "another; after: aligned"
    english, thai, mean = table.rows
    change = accuracy_difference(pages.accuracy(), pages.accuracy(aligned=True)).loc["th"]
    told = f"+33.3 ({100 * change['low']:+.1f} to {100 * change['high']:+.1f})".replace("-", "−")
    assert thai == ("Thai (th)", "untouched", 3, "0.33", "0.67", told, "1")
    assert english[:2] == ("English (en)", "pivot")
    found = mean_difference(pages.accuracy(), pages.accuracy(aligned=True), languages=["th"])
    told = f"+33.3 ({100 * found.low:+.1f} to {100 * found.high:+.1f})".replace("-", "−")
    assert mean == ("mean of the untouched languages", "", None, None, None, told, "")
    assert f"in the right language changed by {told} points in the untouched lang" in page.text


def test_answers_that_were_drawn_say_so(tmp_path: Path) -> None:
    before, after = (
        replace(pages.accuracy(aligned=aligned), decoding=Decoding(temperature=0.7))
        for aligned in (False, True)
    )
    page = written(tmp_path, pages.neurons(), accuracy=before, aligned_accuracy=after)
    assert page.text.count("another, answers drawn at temperature 0.7") == 2
    assert re.search(r"changed by \+33\.3 \([^)]*\) points in all languages \(means", page.text)


def test_a_single_problem_has_answers_and_no_mean(tmp_path: Path) -> None:
    before, after = (
        replace(one, answers=one.answers[:1])
        for one in (pages.accuracy(), pages.accuracy(aligned=True))
    )
    page = written(tmp_path, pages.neurons(), accuracy=before, aligned_accuracy=after)
    assert "Right answers, before and after" in page.text
    assert "mean of" not in page.text
    assert "changed by" not in page.text


def test_answers_after_without_those_before_are_refused(tmp_path: Path) -> None:
    after = pages.accuracy(aligned=True)
    with pytest.raises(LensNeuronsError, match="aligned_accuracy= has nothing to stand beside"):
        report(tmp_path / "page.html", pages.neurons(), aligned_accuracy=after)
    assert not list(tmp_path.iterdir())


def test_other_models_stand_below_this_one(sections: list[Section]) -> None:
    (one,) = [section for section in sections if section.heading == "Beside other models"]
    (table,) = one.tables
    assert len(table.rows) == 32
    assert table.rows[0] == ("the paper's", 0, 1922, 3743, 181)
    heads = " ".join(note.text for note in one.figure.layout.annotations)
    assert re.search(r"this model: 8 layers.*the paper's: 32 layers", unescape(heads))


def test_titles_and_notes_leave_the_picture_and_stay_whole(sections: list[Section]) -> None:
    """What a figure draws around its plot is text on the report, and the plot keeps its size."""
    figures = [section.figure for section in sections if section.figure]
    with_parts = plots.class_changes(pages.everything()["comparison"], before_after.PARTS)
    for figure in [*figures, with_parts]:
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
        sizes = {m["height"] - m["margin"]["t"] - m["margin"]["b"] for m in (before, layout)}
        assert len(sizes) == 1
    assert told[-4].startswith("1  layers 0–")


def test_both_grounds_are_clear_and_their_labels_are_not() -> None:
    for theme in themes().values():
        layout = theme["layout"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert layout["hoverlabel"]["bgcolor"].startswith("#")
        assert layout["hoverlabel"]["font"]["color"] == layout["font"]["color"]
    assert themes()["light"]["layout"]["font"] != themes()["dark"]["layout"]["font"]


def test_the_table_is_that_of_the_neurons(page: Page) -> None:
    table, frame = page.blocks["table"], pages.neurons().to_pandas()
    names, classes, owned, scores, peaks, n_above, _, shares = zip(*table["rows"], strict=True)
    assert list(names) == frame["name"].tolist()
    assert list(classes) == frame["class"].tolist()
    assert [" ".join(pages.LANGUAGES[k] for k in own) for own in owned] == list(frame["languages"])
    assert list(scores) == pytest.approx(frame["score"], abs=1e-5)
    assert list(peaks) == pytest.approx(frame["p_max"], abs=6e-4)
    assert list(n_above) == frame["n_above"].tolist()
    p = frame[[f"p_{k}" for k in pages.LANGUAGES]].to_numpy()
    read = [[int(one[2 * k : 2 * k + 2], 36) / 1000 for k in range(10)] for one in shares]
    assert {len(one) for one in shares} == {20}
    assert np.abs(np.array(read) - p).max() <= 5e-4 + 1e-12
    assert [k["code"] for k in table["languages"]] == list(pages.LANGUAGES)
    assert f"All {len(frame)} selected neurons that are active above tau" in page.text


def test_a_large_model_has_its_best_neurons_and_is_told_which_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuron_table, "MOST_NEURONS", 20)
    found, frame = pages.neurons(), pages.neurons().to_pandas()
    last = frame["name"].iloc[-1]
    page = written(tmp_path, found, last)
    assert [row[0] for row in page.blocks["table"]["rows"]] == [*frame["name"].head(20), last]
    bar = f"{frame['score'].iloc[19]:.4f}"
    assert (
        f"Of the {len(frame)} selected neurons that are active above tau in some language, the 20 "
        f"with the lowest scores (up to {bar}); the other {len(frame) - 20} are left out here"
    ) in page.text


def test_a_hundred_languages_take_little_room_and_lose_no_number(tmp_path: Path) -> None:
    found = pages.many_languages()
    source = report(tmp_path / "page.html", found).read_text("utf-8")
    assert len(source) < 4_500_000
    page, texts = Page(source), unpacked(source)
    (heat,) = [
        one["data"]
        for one in (json.loads(text) for name, text in texts.items() if name != "plotly")
        if one["data"][0]["name"] == "overlap"
    ]
    z = np.frombuffer(base64.b64decode(heat[0]["z"]["bdata"]), heat[0]["z"]["dtype"])
    z, languages = z.reshape(100, 100), found.language_order()
    wanted = found.overlap().loc[list(languages), list(languages)].to_numpy()
    assert np.array_equal(z[~np.eye(100, dtype=bool)], wanted[~np.eye(100, dtype=bool)])
    rows = page.blocks["table"]["rows"]
    assert len(rows) == neuron_table.MOST_NEURONS
    assert {len(row[-1]) for row in rows} == {200}


def test_an_explorer_that_would_make_the_file_large_is_made_on_demand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pages.neurons()
    monkeypatch.setattr(report_page, "MOST_EXPLORED", found.probability.size - 1)
    path = tmp_path / "page.html"
    assert 'id="explorer' not in report(path, found).read_text("utf-8")
    assert 'id="explorer-page"' in report(path, found, explorer=explore(found)).read_text("utf-8")


def test_a_card_can_be_of_a_neuron_that_was_not_selected(tmp_path: Path) -> None:
    found = pages.neurons()
    layer, neuron = np.argwhere(~found.selected)[0].tolist()
    page = written(tmp_path, found, f"L{layer}N{neuron}")
    name, *_, selected, _ = page.blocks["table"]["rows"][-1]
    assert (name, selected) == (f"L{layer}N{neuron}", 0)


def test_a_neuron_without_a_score_has_its_card(tmp_path: Path) -> None:
    """JSON of a browser has no infinity, and one would empty the whole page."""
    found, name = pages.with_scoreless(pages.neurons())
    page = written(tmp_path, found, name)  # whose parser takes JSON as a browser does
    assert len(page.blocks) > 3
    [row] = [row for row in page.blocks["table"]["rows"] if row[0] == name]
    assert (row[1], row[3]) == ("unclassified", None)


def test_a_page_that_no_browser_reads_is_not_written(tmp_path: Path) -> None:
    broken = replace(pages.neurons(), tau=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        report(tmp_path / "page.html", broken)
    assert list(tmp_path.iterdir()) == []


def test_tokens_that_are_bytes_are_explained_on_their_card_alone(tmp_path: Path) -> None:
    found = pages.neurons()
    first, second = pages.best(found, 2)
    plain_card, card = (pages.card(found, name, pages.TEXTS) for name in (first, second))
    piece = replace(card.vocabulary.promoted[0], text="<E0 B8>")
    promoted = (*card.vocabulary.promoted[:1], piece)
    card = replace(card, vocabulary=replace(card.vocabulary, promoted=promoted))
    written(tmp_path, found, cards=[plain_card, card])
    source = (tmp_path / "page.html").read_text("utf-8")
    told = "standard deviations; the first 2 of the 3 bytes of a character"
    assert source.count(told) == source.count("such as &lt;E0 B8&gt; is bytes, not letters") == 1
    assert source.index(told) > source.index(f'<template id="card-{second}">')
    shown = card._repr_html_()
    assert told in shown
    assert "such as &lt;E0 B8&gt; is bytes" in shown
    assert "is bytes" not in plain_card._repr_html_()


def test_cards_hold_texts_tokens_and_numbers(source: str, page: Page) -> None:
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


def test_cards_of_other_neurons_are_refused(tmp_path: Path) -> None:
    found = pages.neurons()
    name = pages.best(found, 1)[0]
    card = pages.card(found, name, pages.TEXTS)
    foreign = pages.card(replace(found, tau=0.41), name, pages.TEXTS)
    far = replace(card, facts=replace(card.facts, name="L99N0"))
    for cards, told in (
        ([foreign], f"card of {name} is of other neurons than the page"),
        ([card, card], f"two cards are of {name}: give one"),
        ([far], "L99N0 is outside a model of 8 layers"),
    ):
        with pytest.raises(LensNeuronsError, match=told):
            report(tmp_path / "p.html", found, cards=cards)
    assert list(tmp_path.iterdir()) == []


def test_parts_of_other_neurons_are_refused_and_the_old_page_stays(tmp_path: Path) -> None:
    path = report(tmp_path / "p.html", pages.neurons())
    before = path.read_bytes()
    parts = pages.everything()["parts"]
    with pytest.raises(LensNeuronsError, match="the parts are of another layer profile"):
        report(path, replace(pages.neurons(), tau=0.6), parts=parts)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_results_of_another_model_say_so(page: Page) -> None:
    assert page.text.count("Measured on other weights than those of the neurons: another.") == 1


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


def of_words(folder: Path, code: str, *texts: str) -> Page:
    """A page whose languages, texts, model, title and notes are given."""
    languages = ("en", code, f"{code} 2")
    found = pages.neurons(languages)
    found = replace(found, provenance=replace(found.provenance, model=texts[0]))
    card = pages.card(found, pages.best(found, 1)[0], dict.fromkeys(languages, texts))
    return written(
        folder, found, cards=[replace(card, source=texts[0])], effects=[pages.matrix(languages)],
        accuracy=replace(pages.accuracy(), provenance=found.provenance), title=texts[0],
        notes=texts[:1], claims=replace(pages.everything()["claims"], description=texts[0]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The elements of the page of harmless words."""
    page = of_words(tmp_path_factory.mktemp("page"), "xx", "a", "b", "c")
    return [tag for tag, _ in page.elements]


@pytest.mark.parametrize("text", [" ".join(HOSTILE[i : i + 3]) for i in range(0, 14, 3)])
def test_no_text_from_outside_acts_or_hides(text: str, harmless: list[str], tmp_path: Path) -> None:
    page = of_words(tmp_path, text, text, text, text)
    assert [tag for tag, _ in page.elements] == harmless
    assert page.text.count(" ".join(visible(text).split())) >= 10
    assert not any(n.startswith("on") for _, attributes in page.elements for n in attributes)
    assert page.blocks["table"]["languages"][1]["code"] == plain(text)
    for block in page.blocks.values():
        json.dumps(block, ensure_ascii=False).encode("utf-8")  # no lone surrogate is left


@pytest.mark.parametrize("table", get_args(TableName))
def test_tables_hold_a_lone_surrogate(table: TableName, tmp_path: Path) -> None:
    change = wobbly(figure_values.HOSTILE)
    write_csv(change.to_pandas(table), tmp_path / "table.csv")
    if table == "languages":
        assert "nul\0\\ud800" in (tmp_path / "table.csv").read_text(encoding="utf-8")
        found = figure_values.hostile()
        later = replace(found, probability=found.probability[::-1])
        report(tmp_path / "report.html", found, comparison=compare(found, later))
        assert "\\ud800" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [*HOSTILE, "\u2068\0\u2069", "\u2069\u2068", "", "◌\u0301"])
def test_what_is_visible_stays_as_it_is(text: str) -> None:
    once = visible(text)
    assert visible(once) == once
    assert visible(plain(text)) == plain(text)
    assert all(c.isprintable() or c in "\u200c\u200d\u2068\u2069" or c > "\U000e0000" for c in once)
    if text.isprintable():
        assert once == text


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
    assert table.wordy is table.wordy  # not looked up again for each of 9,000 cells
    assert Table(("a", "b"), ()).wordy == (False, False)


def test_the_templates_hold_no_address() -> None:
    folder = Path(report_page.__file__).parent / "templates"
    for name in ("page.html.jinja", "page.css", "page.js"):
        assert not re.search(r"https?://|url\(|import\s", (folder / name).read_text("utf-8"))
