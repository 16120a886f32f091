"""The report page in a browser: it asks the network for nothing, and works by mouse and by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pages
import pytest
from explored import explored

from lensneurons.reports import report

playwright = browser.playwright

TABS = ("findings", "layers", "languages", "effects", "neurons", "explorer", "change", "about")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
TOUCHED = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
Open = Callable[..., Any]
# A figure is unpacked before it is drawn.
DRAWN = "() => [...document.querySelectorAll('.plot')].every(p => !p.drawn || p._fullLayout)"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(tmp_path_factory.mktemp("page") / "page.html", **pages.everything())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.launched() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def desktop(chromium: Any) -> Any:
    """A page that all tests load anew: the first load in a page takes four times as long."""
    return chromium.new_context(viewport=DESKTOP, reduced_motion="reduce").new_page()


@pytest.fixture
def opened(chromium: Any, desktop: Any, file: Path) -> Iterator[Open]:
    """Opens the page; at the end nothing may have gone wrong, and nothing have been asked for."""
    used, wrong = [], []

    def open_page(
        tab: str = "",
        *,
        path: Path = file,
        told: list[str] = wrong,
        color_scheme: str = "light",
        **how: Any,
    ) -> Any:
        page = desktop
        if how or used:  # a page of its own
            how = {"viewport": DESKTOP, "reduced_motion": "reduce", **how}
            page = chromium.new_context(**how).new_page()
        page.goto("about:blank")  # from the same file to another tab nothing would be loaded
        page.emulate_media(color_scheme=color_scheme, media="null")
        heard = {
            "console": lambda message: told.append(f"{message.type}: {message.text}"),
            "pageerror": lambda error: told.append(f"error: {error}"),
            "request": lambda r: r.url.startswith(("file:", "data:")) or told.append(r.url),
        }
        for event, listener in heard.items():
            page.on(event, listener)
        used.append((page, heard))
        page.goto(f"{path.as_uri()}#{tab}")
        page.wait_for_function(DRAWN)
        return page

    yield open_page
    for page, heard in used:
        for event, listener in heard.items():
            page.remove_listener(event, listener)
        if page is not desktop:
            page.context.close()
    assert wrong == []


def names(page: Any) -> list[str]:
    """The neurons in the table, as they stand there."""
    return page.locator("#neuron-table .open").all_inner_texts()


def ranges(page: Any, plot: Any) -> list[list[float]]:
    """The axes of a figure."""
    return plot.evaluate("p => [p._fullLayout.xaxis.range, p._fullLayout.yaxis.range]")


def focused(page: Any) -> str:
    """What has the focus: its id, or its text."""
    return page.evaluate("document.activeElement.id || document.activeElement.innerText")


def test_a_page_that_asks_for_something_is_noticed(opened: Open, file: Path) -> None:
    """The guard of all other tests, and the policy of the page: neither image nor request."""
    bad = file.with_name("bad.html")
    foreign = '<img src="https://example.org/x.png"></body>'
    bad.write_text(file.read_text("utf-8").replace("</body>", foreign), encoding="utf-8")
    told: list[str] = []
    page = opened(path=bad, told=told)
    page.wait_for_timeout(200)
    assert any("Content Security Policy" in line for line in told)
    assert page.evaluate("document.images[0].naturalWidth") == 0


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"]
)
def test_every_tab_is_drawn_and_fits(
    opened: Open, size: dict[str, int], scheme: str, tmp_path: Path
) -> None:
    phone = size is PHONE
    page = opened(color_scheme=scheme, **(TOUCHED if phone else {}))
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        panel = page.locator(f"#{tab}")
        playwright.expect(panel).to_be_visible()
        for plot in panel.locator(".plot").all():
            playwright.expect(plot.locator("svg.main-svg").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        shot = page.screenshot(path=tmp_path / f"{tab}.png", full_page=True)
        assert len(shot) > 20_000
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(253, 252, 250)", "dark": "rgb(21, 23, 27)"}[scheme]


def test_figures_follow_the_ground(opened: Open) -> None:
    page = opened("layers", color_scheme="light")
    plot = page.locator("#layers .plot").first
    colour = "p => p._fullLayout.font.color"
    assert plot.evaluate(colour) == "#1f2430"
    page.emulate_media(color_scheme="dark")
    assert plot.evaluate(colour) == "#e8eaed"
    assert plot.evaluate("p => p._fullLayout.paper_bgcolor") == "rgba(0,0,0,0)"


def test_tabs_by_mouse_and_by_key(opened: Open) -> None:
    page = opened()
    chosen = page.locator('[role="tab"][aria-selected="true"]')
    assert chosen.inner_text() == "Findings"
    page.locator("#tab-effects").click()
    assert page.locator('[role="tabpanel"]:visible').get_attribute("id") == "effects"
    assert page.url.endswith("#effects")
    for key, tab in {
        "ArrowRight": "neurons", "End": "about", "ArrowRight ": "findings", "ArrowLeft": "about",
        "Home": "findings",
    }.items():  # fmt: skip
        page.keyboard.press(key.strip())
        assert focused(page) == f"tab-{tab}"
        assert chosen.get_attribute("aria-controls") == tab
        assert page.locator('[role="tabpanel"]:visible').get_attribute("id") == tab
    assert page.locator('[role="tab"][tabindex="0"]').count() == 1


def test_the_table_is_searched(opened: Open) -> None:
    page, frame = opened("neurons"), pages.neurons().to_pandas()
    status, query = page.locator("#status"), page.get_by_label("Search")
    assert names(page) == frame["name"].head(25).tolist()
    assert status.inner_text() == f"{len(frame)} of {len(frame)} neurons, the first 25 shown"
    for words, kept in {
        "l3n": frame["layer"] == 3,
        "Thai": frame["p_th"] > 0.4,
        "th specific": (frame["p_th"] > 0.4) & (frame["class"] == "specific"),
        "苹果": frame["name"].isin(frame["name"].head(2)),
        "no such thing": frame["layer"] == 99,
    }.items():
        query.fill(words)
        assert names(page) == frame["name"][kept].head(25).tolist(), words
        assert status.inner_text().startswith(f"{kept.sum()} of {len(frame)} neurons")
    query.fill("")
    page.get_by_label("Language", exact=True).select_option(label="Korean (ko)")
    page.get_by_label("Class", exact=True).select_option("related")
    kept = (frame["p_ko"] > 0.4) & (frame["class"] == "related")
    assert names(page) == frame["name"][kept].head(25).tolist()
    page.get_by_label("Class", exact=True).select_option("")
    page.get_by_label("Language", exact=True).select_option("")
    page.get_by_label("with texts").check()
    assert names(page) == frame["name"].head(2).tolist()
    page.get_by_label("with texts").uncheck()
    page.get_by_role("button", name="Show 100 more").click()
    assert names(page) == frame["name"].head(125).tolist()


def test_the_table_is_sorted(opened: Open) -> None:
    page, frame = opened("neurons"), pages.neurons().to_pandas()
    head = page.locator("th[aria-sort]")
    assert (head.inner_text().strip(), head.get_attribute("aria-sort")) == ("score", "ascending")
    page.get_by_role("button", name="score").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page) == frame["name"].iloc[::-1].head(25).tolist()
    page.get_by_role("button", name="neuron", exact=True).focus()
    page.keyboard.press("Enter")
    ordered = frame.sort_values(["layer", "neuron"])["name"]
    assert names(page) == ordered.head(25).tolist()
    assert focused(page).startswith("neuron")
    page.keyboard.press("Space")
    assert names(page) == ordered.iloc[::-1].head(25).tolist()
    page.get_by_role("button", name="peak p").click()
    shown = page.locator("#neuron-table tbody td:nth-child(5)").all_inner_texts()
    assert shown == [f"{p:.3f}" for p in sorted(frame["p_max"])[:25]]


def test_a_neuron_without_a_score_comes_last(opened: Open, tmp_path: Path) -> None:
    found, name = pages.with_scoreless(pages.neurons())
    card = pages.card(found, name, pages.TEXTS)
    page = opened("neurons", path=report(tmp_path / "page.html", found, cards=[card]))
    page.get_by_role("button", name="score").click()
    first = page.locator("#neuron-table tbody tr").first.locator("th, td").all_inner_texts()
    assert (first[0], first[1], first[3]) == (f"{name} with texts", "unclassified", "–")
    page.get_by_role("button", name=name, exact=True).click()
    assert "not selected, no score" in page.locator("#card-told").inner_text()


def test_a_card_opens_by_key_and_gives_the_focus_back(opened: Open) -> None:
    page, found = opened("neurons"), pages.neurons()
    first, second, third = pages.best(found, 3)
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name=second, exact=True).focus()
    page.keyboard.press("Enter")
    assert page.locator("#card-name").inner_text() == second
    assert focused(page) == "close"
    assert page.url.endswith(f"#{second}")
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    assert page.locator("#card-name").inner_text() == third
    assert "Texts and tokens were not gathered" in dialog.inner_text()
    page.locator("#previous").click()
    page.locator("#previous").click()
    assert page.locator("#card-name").inner_text() == first
    assert page.locator("#previous").is_disabled()
    page.keyboard.press("Escape")
    playwright.expect(dialog).to_be_hidden()
    assert focused(page) == first
    assert page.url.endswith("#neurons")


def test_a_card_opens_by_mouse_and_shows_the_probabilities(opened: Open) -> None:
    page, found = opened("neurons"), pages.neurons()
    name = pages.best(found, 3)[2]
    page.locator("#neuron-table tbody tr").nth(2).locator("td").nth(3).click()
    rows = page.locator(".bars tr")
    layer, neuron = (int(part) for part in name[1:].split("N"))
    p = found.probability[layer, neuron]
    assert rows.locator("td:last-child").all_inner_texts() == [f"{value:.3f}" for value in p]
    bold = rows.locator("td.above").all_inner_texts()
    assert bold == [f"{value:.3f}" for value in p if value > 0.4]
    width = rows.nth(0).locator(".track i").evaluate("i => i.style.width")
    assert float(width.rstrip("%")) == pytest.approx(100 * p[0], abs=0.06)
    page.mouse.click(5, 5)  # beside the card
    playwright.expect(page.get_by_role("dialog")).to_be_hidden()


def test_ten_scripts_are_shown_as_they_were_written(opened: Open) -> None:
    name = pages.best(pages.neurons(), 1)[0]
    page = opened(name)  # the address of a card opens it
    assert page.locator("#card-name").inner_text() == name
    page.locator("#card details summary").click()
    for language, parts in pages.TEXTS.items():
        text = page.locator(f'#card .text[lang="{language}"]')
        assert text.inner_text() == "".join(parts)
        assert text.locator("mark").inner_text() == parts[1]
    tokens = page.locator("#card .tokens").first.locator("bdi").all_inner_texts()
    words = [parts[1] for parts in pages.TEXTS.values()]
    assert [token.strip("\u2068\u2069") for token in tokens] == words


def test_a_figure_is_zoomed_by_key_button_and_mouse(opened: Open) -> None:
    page = opened("layers")
    plot = page.locator("#layers .plot").first
    (low, high), upright = ranges(page, plot)
    plot.focus()
    page.keyboard.press("+")
    (near, far), after = ranges(page, plot)
    assert (far - near) == pytest.approx((high - low) * 2 / 3)
    assert after == upright
    page.keyboard.press("ArrowRight")
    assert ranges(page, plot)[0][0] == pytest.approx(near + (far - near) / 5)
    page.keyboard.press("0")
    assert ranges(page, plot) == [[low, high], upright]
    tools = page.locator("#layers figure").first
    tools.get_by_role("button", name="zoom out").click()
    assert ranges(page, plot)[0] == pytest.approx([low - (high - low) / 4, high + (high - low) / 4])
    tools.get_by_role("button", name="whole").click()
    box = plot.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 3 / 4, box["y"] + box["height"] - 20, steps=5)
    page.mouse.up()
    page.wait_for_function("([p, high]) => p._fullLayout.xaxis.range[1] < high",
                           arg=[plot.element_handle(), high])  # fmt: skip
    heat = page.locator("#languages .plot").nth(1)
    page.locator("#tab-languages").click()
    across, up = ranges(page, heat)
    heat.focus()
    page.keyboard.press("+")
    assert abs(ranges(page, heat)[1][1] - ranges(page, heat)[1][0]) < abs(up[1] - up[0])
    assert ranges(page, heat)[0] != across


def test_the_first_screen_has_a_sentence_and_does_not_wait_for_plotly(opened: Open) -> None:
    page = opened()
    assert page.evaluate("typeof Plotly") == "undefined"
    assert page.locator("#tabs").bounding_box()["y"] < DESKTOP["height"] / 2
    (name, *_), example = pages.best(pages.neurons(), 1), page.locator("aside")
    assert example.locator("h3").inner_text() == f"One of them: {name}"
    text = example.locator(".excerpt").first
    assert text.inner_text() == "".join(pages.TEXTS[text.get_attribute("lang")])
    example.get_by_role("button").click()
    assert page.locator("#card-name").inner_text() == name
    page.keyboard.press("Escape")
    assert focused(page) == "Open its card"
    page.locator("#tab-layers").click()
    page.wait_for_function("typeof Plotly == 'object'")


def test_a_hundred_languages_are_drawn_and_in_the_cards(opened: Open, tmp_path: Path) -> None:
    """Their heat maps are packed."""
    found = pages.many_languages()
    page = opened("languages", path=report(tmp_path / "many.html", found))
    heat = page.locator("#languages .plot").last
    z = heat.evaluate("p => Array.from(p.calcdata[0][0].z[7])")
    languages = found.language_order()
    row = found.overlap().loc[languages[7], list(languages)].tolist()
    wanted = [value for place, value in enumerate(row) if place != 7]
    assert [one for one in z if one is not None] == pytest.approx(wanted)
    name = found.to_pandas()["name"].iloc[0]
    page.locator("#tab-neurons").click()
    page.locator(f'[data-neuron="{name}"]').click()
    layer, neuron = map(int, name.removeprefix("L").split("N"))
    told = page.locator(".bars td:last-child").all_inner_texts()
    assert told == [f"{value:.3f}" for value in np.round(found.probability[layer, neuron], 3)]


def test_a_click_on_a_cell_tells_its_story_and_leads_to_its_neurons(opened: Open) -> None:
    page, frame = opened("effects"), pages.neurons().to_pandas()
    story, go_on = page.locator("#story"), page.locator("#story-neurons")
    page.locator("#effects .plot .nsewdrag").first.click(position={"x": 12, "y": 12})
    assert story.locator("h2").inner_text() == "removed → evaluated: Chinese (zh) → Chinese (zh)"
    assert "random ones: +0.07" in story.inner_text()
    go_on.click()
    assert page.get_by_label("Language", exact=True).input_value() == "2"
    assert names(page) == frame["name"][frame["p_zh"] > 0.4].head(25).tolist()
    page.locator("#tab-layers").click()
    plot = page.locator("#layers .plot").first
    plot.locator(".scatterlayer .trace").nth(1).locator(".point").nth(3).hover(force=True)
    page.mouse.down()
    page.mouse.up()
    assert story.locator("h2").inner_text() == "layer 3"
    assert f"{pages.neurons().layer_profile('all')[3, 1]} related" in story.inner_text()
    go_on.click()
    assert names(page) == frame["name"][frame["layer"] == 3].head(25).tolist()


def test_the_explorer_is_a_tab_made_when_opened_and_the_address_holds_its_view(
    opened: Open, tmp_path: Path
) -> None:
    texts = explored([{k: "".join(parts) for k, parts in pages.TEXTS.items()}], tau=0.4)
    given = {**pages.everything(), "neurons": texts.neurons, "explorer": texts}
    path = report(tmp_path / "page.html", **given)
    page, frame = opened(path=path), "#explorer iframe"
    assert page.locator("iframe").count() == 0
    page.locator("#tab-explorer").click()
    assert page.locator(frame).get_attribute("sandbox") == "allow-scripts"
    inside = page.frame_locator(frame)
    assert inside.locator(".tokens[lang=th]").inner_text() == "".join(pages.TEXTS["th"])
    assert inside.locator("h1").count() == 0
    inside.locator("#map tbody tr").nth(2).locator("td").nth(0).click()
    expected = f"explorer?layer={pages.N_LAYERS - 3}&class=specific"
    page.wait_for_function("end => location.hash === '#' + end", arg=expected)
    chips = inside.locator(".chip").all_inner_texts()
    page.locator("#tab-layers").click()
    assert page.url.endswith("#layers")
    page.locator("#tab-explorer").click()
    assert page.url.endswith(expected)
    again = opened(expected, path=path).frame_locator(frame)
    playwright.expect(again.locator(".chip")).to_have_text(chips)
    # A card leads to its neuron.
    name = pages.best(texts.neurons, 3)[2]
    page.locator("#tab-neurons").click()
    page.get_by_role("button", name=name, exact=True).click()
    page.locator("#card-explore").click()
    playwright.expect(page.frame_locator(frame).locator("#facts b")).to_have_text(name)
    page.wait_for_function("end => location.hash === '#' + end", arg=f"explorer?neuron={name}")
    assert focused(page) == "tab-explorer"


def test_all_tabs_are_printed_on_white(opened: Open, tmp_path: Path) -> None:
    page = opened(color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator('[role="tabpanel"]:visible').count() == len(TABS) - 1
    assert page.locator("#explorer").is_hidden()  # it is made to be used
    assert page.locator('[role="tab"]:visible').count() == 0
    plots = page.locator(".plot")
    page.wait_for_function(DRAWN)
    drawn = plots.evaluate_all("ps => ps.map(p => p._fullLayout && p._fullLayout.font.color)")
    assert set(drawn) == {"#1f2430"}
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator('[role="tabpanel"]:visible').count() == 1
    assert len(page.pdf(path=tmp_path / "page.pdf")) > 100_000


def test_every_control_has_a_name_and_figures_have_numbers(opened: Open) -> None:
    page = opened()
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        for control in page.locator(f"#{tab}").locator("button:visible, input, select").all():
            named = control.evaluate(
                "c => (c.getAttribute('aria-label') || c.innerText || "
                "(c.labels && c.labels[0] && c.labels[0].innerText) || '').trim()"
            )
            assert named
    page.locator("#tab-layers").click()
    details = page.locator("#layers details").first
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    counts = pages.neurons().layer_profile("all")
    cells = details.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells == [str(count) for count in counts[0]]
