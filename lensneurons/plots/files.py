"""Figures as files: a page that needs no network, a fragment for a larger page, PNG and SVG."""

from __future__ import annotations

import re
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from lensneurons.errors import LensNeuronsError, choose
from lensneurons.options import plain_options
from lensneurons.plots.style import WIDTH, layout_of
from lensneurons.values.files import replacing
from lensneurons.values.tables import html_templates

CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d"],
}


@plain_options
def save_figure(figure: go.Figure, path: str | Path, *, scale: float = 2.0) -> Path:
    """Write a figure, whole or not at all, and return its path.

    Args:
        figure: any plotly figure.
        path: ends in ``.html`` (interactive, with plotly.js inside, no network), ``.png`` or
            ``.svg`` (900 pixels wide unless the figure says otherwise).
        scale: pixels of the PNG for each pixel of the layout.

    Raises:
        LensNeuronsError: another ending, or no kaleido or Chrome to draw a PNG or SVG with.
    """
    ending = choose(Path(path).suffix.lower(), (".html", ".png", ".svg"), "ending of the file")
    with replacing(path) as temporary:
        if ending == ".html":
            page = html_templates("lensneurons.plots").get_template("figure.html.jinja")
            ground = layout_of(figure).template.layout.paper_bgcolor or "white"
            body = Markup(figure_fragment(figure, plotly_js=True))
            text = page.render(title=_title(figure), ground=ground, figure=body)
            temporary.write_text(text, encoding="utf-8")
        else:
            temporary.write_bytes(_image(figure, ending[1:], scale))
    return Path(path)


def figure_fragment(figure: go.Figure, *, plotly_js: bool = False) -> str:
    """Return a figure as a piece of HTML for a page that has plotly.js already, or with it.

    Args:
        figure: any plotly figure.
        plotly_js: whether to put plotly.js (4.6 MB) before it.
    """
    body = figure.to_html(
        full_html=False, include_plotlyjs=plotly_js, include_mathjax=False, config=CONFIG
    )
    opening = Markup('<figure style="margin:0" aria-label="{}">').format(_title(figure))
    return f"{opening}{body}</figure>"


def _title(figure: go.Figure) -> str:
    """The title as plain text: from the data of our own figures, else without its markup."""
    meta = layout_of(figure).meta
    if isinstance(meta, dict) and "title" in meta:
        return meta["title"]
    return unescape(re.sub(r"<[^>]*>", " ", layout_of(figure).title.text or "figure"))


def _image(figure: go.Figure, kind: str, scale: float) -> bytes:
    if find_spec("kaleido") is None:
        raise LensNeuronsError(
            f"a .{kind} needs kaleido, which is not installed: pip install 'lensneurons[png]', or "
            "write .html"
        )
    width, height = layout_of(figure).width or WIDTH, layout_of(figure).height or 500
    try:
        return figure.to_image(format=kind, width=width, height=height, scale=scale)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise LensNeuronsError(
            f"kaleido could not draw the .{kind} (it needs Chrome or Chromium): {reason}; "
            "write .html instead"
        ) from error
