"""The Chromium of the system, which Playwright drives through pipes: the sockets stay blocked.

Where there is none, or no playwright, a test file that imports this is skipped with that reason.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no page is tested in a browser: put a chromium on the path", True)
playwright = pytest.importorskip(
    "playwright.sync_api",
    reason="no page is tested in a browser: pip install -e '.[dev]' brings playwright",
)


@contextmanager
def launched() -> Iterator[Any]:
    """A browser, closed at the end of the block."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
