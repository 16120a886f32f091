"""What every figure has to pass, whatever its names and texts hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import plotly.graph_objects as go

from lensneurons import plots

# What plotly reads as markup and the figures use.
MARKUP = {"br", "span", "/span", "b", "/b", "extra", "/extra"}


def words(value: object) -> Iterator[str]:
    """Every string anywhere in the JSON of a figure."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        for item in value:
            yield from words(item)
    elif isinstance(value, str):
        yield value


def require_inert(figure: go.Figure) -> None:
    """Hostile names are shown and do nothing: no tags, no control characters, no formulas, and
    nothing that a hover template would fill in."""
    drawn = json.loads(figure.to_json())
    # Titles and notes as data are what is to be read, not what plotly draws: visible, not escaped.
    for text in words(drawn["layout"].pop("meta")):
        assert not re.search("[\x00-\x1f\ud800-\udfff\u202e]", text), text
    for text in words(drawn):
        assert not set(re.findall(r"<(/?[a-z]*)", text)) - MARKUP, text
        assert not re.search("[\x00-\x1f\ud800-\udfff\u202e]", text), text
        assert "$" not in text, text
    fragment = plots.figure_fragment(figure)
    assert "<script>alert" not in fragment
    assert "<img" not in fragment
    templates = [trace.hovertemplate or "" for trace in figure.data]
    assert not any("evil" in text or "%{y} %{customdata[0]}" in text for text in templates)
