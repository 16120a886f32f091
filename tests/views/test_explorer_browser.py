"""The explorer in a browser: its classes are the package's, by mouse and by key; it stays calm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pages
from browser import launched
from explored import explored

from lensneurons.neurons.language_neurons import LanguageNeurons

ITEMS = [
    {k: "".join(parts) for k, parts in pages.TEXTS.items()},
    {
        "en": "<script>window.broken=1</script> <img src=x onerror=window.broken=1>",
        "zh": '</script>"',
    },
]
# The labels of all cells, once they are written (80 ms after a choice, by the same clock).
CELLS = """() => new Promise(done => setTimeout(() => done([...document.querySelectorAll(
    "#map tbody tr")].map(row => [...row.children].slice(1).map(cell => cell.title))), 100))"""


def counts(page: Any) -> np.ndarray:
    """The neurons of every cell, [layer, class or language]."""
    rows = page.evaluate(CELLS)[::-1]
    return np.array([[int(told.split(": ")[1].split()[0]) for told in row] for row in rows])


def wanted(found: LanguageNeurons) -> np.ndarray:
    """The same by the package."""
    languages = [found[k].per_layer() for k in found.languages]
    return np.column_stack([found.layer_profile(), *languages])


def listed(page: Any) -> list[str]:
    return page.locator("#list .row b").all_inner_texts()


def test_the_explorer_by_mouse_and_by_key(tmp_path: Path) -> None:
    view = explored(ITEMS)
    found, wrong = view.neurons, []
    file = view.save(tmp_path / "page.html").as_uri()
    with launched() as browser:

        def opened(address: str = "", **how: Any) -> Any:
            context = browser.new_context(viewport={"width": 1200, "height": 900}, **how)
            page = context.new_page()
            page.on("console", lambda message: wrong.append(message.text))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda r: r.url.startswith("file:") or wrong.append(r.url))
            page.goto(f"{file}#{address}")
            return page

        page = opened()
        table = found.to_pandas()
        assert np.array_equal(counts(page), wanted(found))
        assert listed(page) == table["name"].head(len(listed(page))).tolist()
        # Other bars, and all neurons: the slider by key, the buttons by mouse.
        page.locator("#all").click()
        everyone = found.with_population("all")
        assert np.array_equal(counts(page), wanted(everyone))
        bars, own = view.bars, int(np.searchsorted(view.bars, found.tau))
        page.locator("#tau").focus()
        for key, place in (("ArrowRight", own + 1), ("Home", 0), ("End", len(bars) - 1)):
            page.keyboard.press(key)
            assert page.locator("#bar-value").inner_text() == f"{bars[place]:g}"
            assert np.array_equal(counts(page), wanted(replace(everyone, tau=float(bars[place]))))
        page.goto(f"{file}#tau={bars[60]}&all=0")
        assert np.array_equal(counts(page), wanted(replace(found, tau=float(bars[60]))))

        # A cell, a language and a token filter the list; chips take filters away.
        page.goto(f"{file}#")
        page.locator("#map tbody tr").nth(0).locator("td").nth(0).click()
        kept = table[(table["layer"] == pages.N_LAYERS - 1) & (table["class"] == "specific")]
        assert listed(page) == kept["name"].head(len(listed(page))).tolist()
        assert page.locator(".chip").all_inner_texts() == ["layer 7", "specific"]
        page.locator(".chip", has_text="specific").click()
        page.locator("#map thead th").nth(3 + pages.LANGUAGES.index("zh")).click()
        layer = [int(name[1:].split("N")[0]) == 7 for name in found["zh"].names]
        assert page.locator("#status").inner_text() == f"{sum(layer)} of {found.selected.sum()}"
        page.locator(".chip", has_text="layer").click()
        page.locator(".chip", has_text="Chinese").click()
        page.locator(".tokens[lang=ja] span").first.click()
        at = int(page.locator(".tokens .at").get_attribute("data-span"))
        firing = view.activations[:, at] > 0
        strength = view.activations[:, at] * view.ends.astype(np.float32)
        order = view.recorded.flat[np.argsort(-np.where(firing, strength, -1e9), kind="stable")]
        order = [i for i in order[: firing.sum()] if found.class_codes.flat[i]]
        names = [f"L{i // pages.D_MLP}N{i % pages.D_MLP}" for i in order]
        assert listed(page) == names[: len(listed(page))]

        # A neuron by key: the texts change, the address holds it, Escape takes it back.
        page.locator("#list").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator("#facts b").inner_text() == names[1]
        row = view.activations[view.recorded.flat.tolist().index(order[1])]
        lined = "marks => marks.map(m => m.style.borderBottomStyle === 'solid')"
        solid = page.locator(".tokens span").evaluate_all(lined)
        assert solid == (row[: len(solid)] > 0).tolist()
        page.wait_for_function("name => location.hash.endsWith('neuron=' + name)", arg=names[1])
        again = opened(page.url.partition("#")[2], color_scheme="dark")
        assert again.locator("#facts").inner_text() == page.locator("#facts").inner_text()
        assert listed(again) == listed(page)
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.wait_for_function("() => location.href.endsWith('#')")
        assert page.locator(".chip").count() == 0
        page.locator("#map [tabindex='0']").focus()  # the head of Chinese, chosen above
        for key in ("ArrowDown", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        assert page.locator(".chip").all_inner_texts() == ["layer 7", "Japanese (ja)"]

        # Hostile texts, hostile addresses, and a phone.
        page.goto("about:blank")
        page.goto(f"{file}#item=2&layer=99&class=<b>&neuron=L9N9&language=__proto__&tau=x")
        shown = page.locator(".tokens").all_inner_texts()
        assert shown == list(ITEMS[1].values())
        assert page.evaluate("window.broken") is None
        assert page.locator(".chip").count() == 0
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert wrong == []
