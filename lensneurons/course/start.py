"""How every notebook begins: figures that ask no network for anything, and no progress bars."""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

UNUSED = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"]  # buttons of a figure


def begin() -> None:
    """Make figures show themselves offline, and hide progress bars and two warnings about them.

    plotly.js is written once, into the output of the cell that calls this.
    """
    import plotly.io
    from plotly.io.base_renderers import NotebookRenderer

    class Offline(NotebookRenderer):
        """Plotly's renderer for notebooks, without its request for MathJax."""

        def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, str]:
            """Return a figure as HTML."""
            html = super().to_mimebundle(fig_dict)["text/html"]
            asks = r"<script[^>]*mathjax[^>]*></script>"
            return {"text/html": re.sub(asks, "", html, flags=re.IGNORECASE)}

    config = {
        "showSendToCloud": False,
        "displaylogo": False,
        "modeBarButtonsToRemove": UNUSED,
    }
    plotly.io.renderers["offline"] = Offline(config=config)
    plotly.io.renderers.default = "offline"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    warnings.filterwarnings("ignore", "IProgress not found")
