"""How every notebook begins: figures that ask no network for anything, and no progress bars.

A figure is given in two forms, and a notebook's page takes the first that it can draw:

    application/vnd.plotly.v1+json   JupyterLab, by the extension that comes with plotly; VS Code,
                                     by its extension of renderers for notebooks
    text/html                        nbconvert, and all else; it needs the plotly.js that `begin`
                                     writes into the output of its cell

Google Colab shows every output in a frame of its own, where that plotly.js is not; so there the
renderer that plotly has for Colab is used, whose figures load plotly.js from the web.
"""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

UNUSED = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"]  # buttons of a figure


def begin() -> None:
    """Make figures show themselves offline, and hide progress bars and the warning about them.

    plotly.js is written once, into the output of the cell that calls this; in Google Colab it is
    not, and figures load it from the web.
    """
    import plotly.io
    from plotly.io.base_renderers import NotebookRenderer, PlotlyRenderer

    class Offline(NotebookRenderer):
        """Plotly's renderer for notebooks, without its request for MathJax."""

        def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, Any]:
            """Return a figure as plotly's JSON, and as HTML."""
            html = super().to_mimebundle(fig_dict)["text/html"]
            asks = r"<script[^>]*mathjax[^>]*></script>"
            figure = PlotlyRenderer(config=self.config).to_mimebundle(fig_dict)
            return {**figure, "text/html": re.sub(asks, "", html, flags=re.IGNORECASE)}

    config = {
        "showSendToCloud": False,
        "displaylogo": False,
        "modeBarButtonsToRemove": UNUSED,
    }
    if "COLAB_NOTEBOOK_ID" in os.environ:  # as plotly itself recognizes Colab
        plotly.io.renderers.default = "colab"
    else:
        plotly.io.renderers["offline"] = Offline(config=config)
        plotly.io.renderers.default = "offline"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    warnings.filterwarnings("ignore", "IProgress not found")
