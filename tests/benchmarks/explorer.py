"""What a click on the explorer costs: CPU milliseconds of the page's main thread, by kind of click.

500,000 made-up neurons in 32 layers, ten languages, and texts in ten scripts. Each kind of click is
made several times; between two clicks the page is as it was at first. A click ends when the page
has been drawn; what tooltips and screen readers say is written later, and is told apart
(*afterwards*). Time is that of the thread, not of the clock, so that a busy machine gives the same.
Needs a Chromium on the path, and playwright.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pages
from explored import words
from timing import spread

from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.views.explorer import MOST_NUMBERS, ExploredText, Explorer

LAYERS, WIDTH = 32, 15_625
# Before the click (an element to press first, or none), and what is pressed.
CLICKS = {
    "a neuron": ("", "#list .row:nth-child(3)"),
    "a layer": ("", "#map tbody tr:nth-child(9) th"),
    "a class": ("", "#map thead th:nth-child(2)"),
    "a language": ("", "#map thead th:nth-child(8)"),
    "a cell of a class": ("", "#map tbody tr:nth-child(9) td:nth-child(3)"),
    "a cell of a language": ("", "#map tbody tr:nth-child(9) td:nth-child(8)"),
    "a token": ("", ".tokens span:nth-child(3)"),
    "another text": ("", "#turn button:nth-child(2)"),
    "all neurons": ("", "#all"),
    "a layer, all neurons": ("#all", "#map tbody tr:nth-child(9) th"),
    "a language, all neurons": ("#all", "#map thead th:nth-child(8)"),
    "a token, all neurons": ("#all", ".tokens span:nth-child(3)"),
    "a neuron, all neurons": ("#all", "#list .row:nth-child(3)"),
    "a filter removed": ("#map thead th:nth-child(8)", ".chip"),
}
PRESS = """async ([selector, tau]) => {
    const drawn = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
    if (selector) document.querySelector(selector).click();
    else {
        const slider = document.getElementById("tau");
        slider.value = +slider.value + tau;
        slider.dispatchEvent(new Event("input", {bubbles: true}));
    }
    await drawn(); await drawn();
}"""


def synthetic(layers: int = LAYERS, width: int = WIDTH) -> Explorer:
    """Neurons of every class, a fifth of them selected, and six items of texts in ten scripts."""
    random = np.random.default_rng(4)
    shape = (layers, width, len(pages.LANGUAGES))
    often = random.choice([0.02, 0.15, 0.9], (*shape[:2], 1), p=[0.6, 0.3, 0.1])
    high = random.random(shape, np.float32) < often
    p = np.where(high, random.uniform(0.4, 1, shape), random.exponential(0.08, shape)).clip(0, 1)
    found = LanguageNeurons(
        pages.LANGUAGES, p, random.random(shape[:2]), random.random(shape[:2]) < 0.2, 0.4, "given",
        None, "none", "lape", 0.2,
    )  # fmt: skip
    texts = tuple(
        ExploredText(str(item), language, "", words(f"{''.join(parts)} " * 3))
        for item in range(6)
        for language, parts in pages.TEXTS.items()
    )
    spans = sum(len(text.read.spans) for text in texts)
    candidates = np.flatnonzero(found.selected)
    flat = np.sort(random.permutation(candidates)[: MOST_NUMBERS // spans])
    activations = random.integers(-127, 128, (len(flat), spans)).astype(np.int8)
    recorded = NeuronSet(flat, layers, width, "recorded")
    return Explorer(found, texts, recorded, activations, np.ones(len(flat)), len(candidates), 6)


def measure(rounds: int) -> Iterator[str]:
    """Lines of a table: one kind of click each."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = synthetic().save(Path(folder) / "explorer.html")
        yield f"{LAYERS * WIDTH:,} neurons, {file.stat().st_size / 1e6:.1f} MB"
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        meter = page.context.new_cdp_session(page)
        meter.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(file.as_uri())
        shown = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        yield f"first paint after {shown:.0f} ms, {_spent(meter):.0f} ms of CPU (by the clock)"
        yield "| click | CPU ms, median (least to most) | afterwards |"
        yield "|---|---|---|"
        for name, (before, press) in {**CLICKS, "tau, one step": ("", "")}.items():
            found = [_cost(page, meter, file.as_uri(), before, press) for _ in range(rounds)]
            clicks, later = (np.array(column) for column in zip(*found, strict=True))
            yield f"| {name} | {spread(clicks, 0)} | {spread(later, 0)} |"
        browser.close()


def _cost(page: Any, meter: Any, address: str, before: str, press: str) -> tuple[float, float]:
    """CPU milliseconds of a click, and of what follows it."""
    page.goto(f"{address}#{time.monotonic_ns()}")  # every view begins as the first one
    if before:
        page.evaluate(PRESS, [before, 0])
    page.wait_for_timeout(250)
    start = _spent(meter)
    page.evaluate(PRESS, [press, 3])
    drawn = _spent(meter)
    page.wait_for_timeout(250)
    return drawn - start, _spent(meter) - drawn


def _spent(meter: Any) -> float:
    """CPU milliseconds of the main thread in tasks so far."""
    found = {one["name"]: one["value"] for one in meter.send("Performance.getMetrics")["metrics"]}
    return 1000 * found["TaskDuration"]
