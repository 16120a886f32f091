"""What figures draw alike: panels over one axis, lines with bands, shaded layers, axes of counts.

A count axis is linear while all counts can be read on it, and logarithmic otherwise. A logarithmic
axis has no zero, so a count of zero stands at 0.5 with the tick label "0"; hover and printed
numbers always give the count itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64, Int64
from plotly.subplots import make_subplots

from lensneurons.plots.labels import entities
from lensneurons.plots.numbers import span
from lensneurons.plots.style import layout_of

Place = Literal["x", "y"]
ZERO = 0.5  # where a count of 0 stands on a logarithmic axis
_RATIO = 30  # largest over smallest positive count that a linear axis is good for
PART_COLOURS = ("rgba(86,180,233,.16)", "rgba(0,158,115,.12)", "rgba(230,159,0,.16)",
                "rgba(204,121,167,.24)")  # fmt: skip
SHARE_TICKS = {"range": [-0.03, 1.03], "tickvals": [0, 0.25, 0.5, 0.75, 1]}


class Look(NamedTuple):
    """How a line is told apart: never by its colour alone."""

    colour: str
    dash: str = "solid"
    symbol: str = "circle"


def opens(**what: str | tuple[Place, Iterable[Any]]) -> dict[str, Any]:
    """The `meta` of a trace whose cells or points open their neurons on a report.

    `what` says the language, layer, class or name of a cell: one value for all of the trace, or
    an axis and a value for each place on it.
    """
    told = {
        name: one if isinstance(one, str) else {"axis": one[0], "values": list(one[1])}
        for name, one in what.items()
    }
    return {"opens": told}


def panels(heads: Sequence[Sequence[str]], **options: Any) -> go.Figure:
    """Empty panels with axes that move together, each with its head above its left corner.

    `heads` go by row and column; `options` are those of plotly's `make_subplots`, such as spacings.
    """
    texts = [f"<b>{entities(head)}</b>" if head else "" for row in heads for head in row]
    options = {"rows": len(heads), "cols": len(heads[0]), "shared_xaxes": True, **options}
    figure = make_subplots(subplot_titles=texts, **options)
    places = [(r + 1, c + 1) for r, row in enumerate(heads) for c, head in enumerate(row) if head]
    for place, note in zip(places, layout_of(figure).annotations, strict=True):
        subplot: Any = figure.get_subplot(*place)
        note.update(x=subplot.xaxis.domain[0], xanchor="left", font={"size": 12})
    return figure


def stack(heights: Sequence[int], *, gap: int, heads: Sequence[str] = ()) -> tuple[go.Figure, int]:
    """Empty panels below each other over one horizontal axis, and the height of all.

    Heights, and the gap between two panels, are in pixels.
    """
    total = sum(heights) + gap * (len(heights) - 1)
    named = [[head] for head in heads] or [[""]] * len(heights)
    return panels(named, row_heights=[*heights], vertical_spacing=gap / total), total


def line_with_band(
    places: np.ndarray, interval: Any, *, name: str, look: Look, number: str, **where: Any
) -> list[go.Scatter]:
    """A line over its band; an error bar if there is a single place.

    Args:
        places: float [place], where on the horizontal axis, rising.
        interval: an `Interval` or `Change`, the numbers [place] and their ends; NaN leaves a gap.
        name: its entry in the legend and in the hover; escaped by the caller.
        look: colour, dash and symbol.
        number: how the hover writes a number, such as ``".2f"``.
        where: the legend of both traces.
    """
    estimate, low, high = interval.estimate, interval.low, interval.high
    line = go.Scatter(
        x=places,
        y=estimate,
        customdata=np.stack([low, high], axis=1),
        name=name,
        legendgroup=name,
        mode="lines+markers",
        line={"color": look.colour, "width": 2.2, "dash": look.dash},
        marker={"symbol": look.symbol, "size": 7 if len(places) < 60 else 5},
        cliponaxis=False,
        hovertemplate=f"%{{fullData.name}}: %{{y:{number}}} "
        f"(%{{customdata[0]:{number}}} to %{{customdata[1]:{number}}})<extra></extra>",
        **where,
    )
    if len(places) == 1:
        return [line.update(error_y={**error_bars(interval), "color": look.colour})]
    known = np.isfinite(low) & np.isfinite(high)
    rgb = ", ".join(str(int(look.colour[i : i + 2], 16)) for i in (1, 3, 5))
    band = go.Scatter(
        x=np.concatenate([places[known], places[known][::-1]]),
        y=np.concatenate([high[known], low[known][::-1]]),
        fill="toself",
        fillcolor=f"rgba({rgb}, 0.18)",
        mode="lines",
        line={"width": 0},
        name=name,
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
        **where,
    )
    return [band, line]


def level_line(figure: go.Figure, row: int, y: float = 0, dash: str = "solid") -> None:
    """Draw a thin line across a panel that has its traces already, by default at no change."""
    where: dict[str, Any] = {"row": row, "col": 1}
    figure.add_hline(y=y, layer="below", line={"width": 1, "dash": dash}, **where)


def error_bars(interval: Any) -> dict[str, Any]:
    """Error bars for an estimate with `low` and `high`; none if they are unknown."""
    if np.isnan(interval.low).any():
        return {}
    up, down = interval.high - interval.estimate, interval.estimate - interval.low
    return {"array": up, "arrayminus": down, "thickness": 1.4, "width": 5}


def shade_layers(
    figure: go.Figure,
    spans: Sequence[tuple[int, int]],
    hover: Sequence[str],
    *,
    rows: Iterable[int | None],
    ends: Sequence[tuple[int, int, int]] = (),
) -> None:
    """Shade runs of layers, and number them at the top of the first panel.

    Args:
        figure: the figure, whose traces and ranges are there already; changed in place.
        spans: first and last layers; none changes nothing.
        hover: what pointing at a number tells.
        rows: the panels to shade; None in a figure without panels.
        ends: first layers of parts with the ends of their 95% intervals, drawn below the numbers.
    """
    if not spans:
        return
    axis = layout_of(figure).yaxis
    low, high = axis.range
    axis.range = [low, high + 0.15 * (high - low)]  # room for the numbers
    for row in rows:
        where: dict[str, Any] = {} if row is None else {"row": row, "col": 1}
        for number, ((first, last), text) in enumerate(zip(spans, hover, strict=True), start=1):
            told = {"text": f"<b>{number}</b>", "hovertext": entities(text)}
            if row in (None, 1):
                where |= {"annotation": told, "annotation_position": "top"}
            figure.add_vrect(
                x0=first - 0.5, x1=last + 0.5, layer="below", line_width=0,
                fillcolor=PART_COLOURS[(number - 1) % len(PART_COLOURS)], **where,
            )  # fmt: skip
    if ends:
        first, left, right = np.array(ends, float).T
        place = high + 0.02 * (high - low)
        figure.add_scatter(
            x=first - 0.5,
            y=np.full(len(ends), 10**place if axis.type == "log" else place),
            error_x={"array": right - first, "arrayminus": first - left, "width": 4},
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 8, "color": "#7a8190"},
            name="first layer of a part, 95% interval",
            hoverinfo="skip",
        )


def part_label(name: str, first: int, last: int) -> str:
    """``"decoding: layers 8–12"``."""
    return f"{name}{'layers' if last > first else 'layer'} {span(first, last)}"


def count_axis(counts: Int64[np.ndarray, "*places"], title: str) -> dict[str, Any]:
    """The settings of an axis on which all of `counts` can be read; its title says of what."""
    positive = counts[counts > 0]
    most = int(positive.max(initial=1))
    if not positive.size or most <= _RATIO * positive.min():
        ticks = {"dtick": 1} if most <= 8 else {"tickformat": ",d"}
        return {"title": title, "type": "linear", "range": [0, 1.1 * most], **ticks}
    least = ZERO if (counts == 0).any() else int(positive.min())
    steps = (1, 2, 5) if most < 400 * least else (1,)
    marks = [step * 10**power for power in range(len(str(most))) for step in steps]
    values = [*([ZERO] if least == ZERO else []), *(t for t in marks if 0.8 * least <= t <= most)]
    low = least if least == ZERO else 0.8 * least
    return {
        "title": f"{title} (log scale)",
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(most * (most / low) ** 0.1))],
        "tickvals": values,
        "ticktext": ["0" if value == ZERO else f"{value:,}" for value in values],
    }


def on_axis(
    counts: Int64[np.ndarray, "*places"], axis: dict[str, Any]
) -> Float64[np.ndarray, "*places"]:
    """Where counts stand on an axis of `count_axis`."""
    places = counts.astype(float)
    return np.maximum(places, ZERO) if axis["type"] == "log" else places


def change_axis(title: str, *changes: Any) -> dict[str, Any]:
    """A linear axis with some room around changes and 0; whole ticks if there are few."""
    ends = [[0.0], *(np.ravel([one.estimate, one.low, one.high]) for one in changes)]
    known = np.concatenate(ends)
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    room = 0.12 * (high - low) or 1.0
    marks = {"dtick": 1} if high - low <= 3 else {"nticks": 5, "tickformat": ",~g"}
    return {"title": title, "range": [low - room, high + room], **marks}
