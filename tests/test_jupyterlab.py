"""The first notebook in a real JupyterLab: all cells run, and the page shows what they give.

JupyterLab runs as a process of its own, on this machine's own address alone and without a token,
with settings and files in a temporary folder. The Chromium of the system opens a copy of the
notebook. Playwright talks to it through pipes, so the sockets of the tests stay blocked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import notebook_tools as tools
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
if CHROMIUM is None:
    pytest.skip("the notebooks are not tested in JupyterLab: put a chromium on the path", True)
playwright = pytest.importorskip(
    "playwright.sync_api",
    reason="the notebooks are not tested in JupyterLab: pip install -e '.[dev]' brings playwright",
)
if importlib.util.find_spec("jupyterlab") is None:
    pytest.skip("the notebooks are not tested in JupyterLab: pip install -e '.[dev]'", True)

SETTINGS = {
    # All cells are on the page, not those in sight alone.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# Of every code cell: whether it has run; and what the kernel does.
STATE = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    const cells = [...panel.content.model.cells].filter(cell => cell.type === "code");
    return [cells.every(cell => cell.executionCount !== null),
            panel.sessionContext.session?.kernel?.status];
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab over a copy of the first notebook; it is stopped at the end."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(tools.PATHS[0], folder)
    for name, setting in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(setting))
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(folder / name.lower()) for name in homes}
    own["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": "0",
        "ServerApp.open_browser": "False",
        "ServerApp.allow_root": "True",
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": "True",
    }
    told = [f"--{name}={value}" for name, value in options.items()]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *told],
            cwd=folder,
            env={**os.environ, **own},
            stdout=log,
            stderr=log,
        )
    try:
        yield f"{_url(folder, server)}lab/tree/{tools.PATHS[0].name}"
    finally:
        server.terminate()  # it ends its kernels
        server.wait(30)


def _url(folder: Path, server: subprocess.Popen[bytes]) -> str:
    """What the server writes down once it listens."""
    until = time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        for file in (folder / "jupyter_runtime_dir").glob("jpserver-*.json"):
            if text := file.read_text():
                return json.loads(text)["url"]
        time.sleep(0.2)
    raise AssertionError((folder / "log").read_text())


def test_the_first_notebook_in_jupyterlab(address: str) -> None:
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(900_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.locator(".jp-Notebook").wait_for()
        page.wait_for_function(f"() => ({STATE})()[1] === 'idle'", polling=500)
        page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        done = f"() => JSON.stringify(({STATE})()) === '[true,\"idle\"]'"
        page.wait_for_function(done, polling=1000)  # by the frame it would cost much
        _is_as_it_should_be(page)
        browser.close()
    home = address.split("/lab")[0]
    local = (home, home.replace("http", "ws"), "data:", "blob:")
    assert [url for url in asked if not url.startswith(local)] == []


def _is_as_it_should_be(page: Any) -> None:
    """No error; all figures, a coloured text, and the reply to exercises without an answer."""
    errors = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type*='stderr']"
    assert page.locator(errors).all_inner_texts() == []
    notebook = tools.read(tools.PATHS[0])
    plots = page.locator(".js-plotly-plot .main-svg")
    plots.first.wait_for(state="attached")
    figures = sum("ln.plots." in c.source for c in notebook.cells if c.cell_type == "code")
    assert page.locator(".js-plotly-plot").count() == figures
    outputs = page.locator(".jp-OutputArea-output")
    assert outputs.get_by_text("act_fn(hook_pre)").count() == 1  # the scale of the coloured text
    assert outputs.get_by_text("Not yet.").count() == len(list(tools.exercises(notebook)))
