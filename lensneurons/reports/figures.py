"""Figures for a page: titles and notes become text that wraps, and the ground that of the page.

`plots.style.frame` writes the title and the subtitle of a figure into the picture, in lines made
for 900 pixels. On a page they are text of the page: they wrap on a phone, can be selected, and are
read aloud. What is left is data and layout without a template; the page adds the one that suits the
light or the dark ground.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import unescape
from typing import Any

import plotly.graph_objects as go

from lensneurons.plots.style import ABOVE, BELOW, KEY_ROW, SUBTITLE, TITLE, in_theme

_KEPT_ABOVE = 8  # pixels
_CLEAR = "rgba(0,0,0,0)"
_HOVER = {"light": ("#ffffff", "#c9c6be"), "dark": ("#24272d", "#454a53")}


@dataclass(frozen=True)
class PageFigure:
    """A figure taken apart.

    Attributes:
        title: what it shows or finds, as plain text.
        notes: what has to be known to read it, a sentence each.
        spec: data and layout, as JSON values, without template and title.
        height: pixels.
        zooms_both: whether both axes are zoomed, as in a heat map; else the horizontal one.
    """

    title: str
    notes: tuple[str, ...]
    spec: dict[str, Any]
    height: int
    zooms_both: bool


def take_apart(figure: go.Figure) -> PageFigure:
    """Title, notes and picture of a figure of this package."""
    spec: dict[str, Any] = json.loads(figure.to_json() or "{}")
    layout = spec["layout"]
    title, keys = layout.pop("title", {}), _take_keys(layout)
    heads, subtitles = (_lines(text) for text in (title, title.get("subtitle", {})))
    margin = layout.get("margin", {})
    lifted = ABOVE + TITLE.row * len(heads) + SUBTITLE.row * len(subtitles) - _KEPT_ABOVE
    top, bottom = margin.get("t", 80), margin.get("b", BELOW)
    margin |= {"t": max(top - lifted, _KEPT_ABOVE), "b": bottom - KEY_ROW * len(keys)}
    height = layout.get("height", 450) - (top - margin["t"]) - KEY_ROW * len(keys)
    for name in ("template", "width", "paper_bgcolor", "plot_bgcolor"):
        layout.pop(name, None)
    layout |= {"margin": margin, "height": height, "autosize": True}
    notes = [*_sentences(subtitles), *keys]
    kinds = {trace.get("type", "scatter") for trace in spec["data"]}
    picture = {"data": spec["data"], "layout": layout}
    return PageFigure(" ".join(heads), tuple(notes), picture, height, "heatmap" in kinds)


def themes() -> dict[str, Any]:
    """The templates of a light and of a dark page, as JSON values, on the ground of the page."""
    found: dict[str, Any] = {}
    for name, (ground, line) in _HOVER.items():
        empty = in_theme(go.Figure(), "dark" if name == "dark" else "light")
        template: dict[str, Any] = json.loads(empty.to_json() or "{}")["layout"]["template"]
        label: dict[str, Any] = {"bgcolor": ground, "bordercolor": line}
        label["font"] = {"color": template["layout"]["font"]["color"]}
        template["layout"]["hoverlabel"] = _joined(template["layout"]["hoverlabel"], label)
        template["layout"] |= {"paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR}
        found[name] = template
    return found


def _joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {**old, **new, "font": {**old["font"], **new["font"]}}


def _lines(text: dict[str, Any]) -> list[str]:
    """The lines of a title or a subtitle, as plain text."""
    found = (text.get("text") or "").split("<br>")
    return [line for line in map(_plain, found) if line]


def _plain(text: str) -> str:
    """A text of plotly without its tags and entities."""
    return unescape(re.sub(r"<[^>]*>", "", text)).strip()


def _sentences(lines: list[str]) -> list[str]:
    """Lines put together again to the sentences that `frame` broke: each begins with a capital or
    follows a line that is too short to have been broken.
    """
    found: list[str] = []
    for line, before in zip(lines, ["", *lines], strict=False):
        if found and len(before) + len(line.split(" ")[0]) + 1 > SUBTITLE.width:
            found[-1] += f" {line}"
        else:
            found.append(line)
    return found


def _take_keys(layout: dict[str, Any]) -> list[str]:
    """Remove the lines that `write_below` wrote under the axis, and return them."""
    notes = layout.get("annotations", [])
    keys = [note for note in notes if _is_key(note)]
    layout["annotations"] = [note for note in notes if note not in keys]
    return [_plain(note["text"]) for note in keys]


def _is_key(note: dict[str, Any]) -> bool:
    below = note.get("yref") == "paper" and note.get("y") == 0 and note.get("yanchor") == "top"
    left = note.get("xref") == "paper" and note.get("x") == 0 and note.get("xanchor") == "left"
    return below and left and note.get("yshift", 0) <= -40
