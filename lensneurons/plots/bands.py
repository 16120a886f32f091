"""Lines with their intervals as bands: one way to draw any number along layers or strengths."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from lensneurons.uncertainty.groups import Interval


class Look(NamedTuple):
    """How a line is told apart: never by its colour alone."""

    colour: str
    dash: str = "solid"
    symbol: str = "circle"


def line_with_band(
    places: np.ndarray, interval: Interval, *, name: str, look: Look, number: str, **where: Any
) -> list[go.Scatter]:
    """A band and the line over it; where there is one place alone, an error bar.

    Args:
        places: float [place], where on the horizontal axis, rising.
        interval: the numbers [place] and their ends; NaN leaves a gap.
        name: its entry in the legend and in the hover; escaped by the caller.
        look: colour, dash and symbol.
        number: how the hover writes a number, such as ``".2f"``.
        where: axes and legend of both traces.
    """
    low, high = interval.low, interval.high
    line = go.Scatter(
        x=places,
        y=interval.estimate,
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
    if len(places) > 1:
        return [_band(places, interval, look.colour, name, where), line]
    ends = {"array": high - interval.estimate, "arrayminus": interval.estimate - low}
    return [line.update(error_y={**ends, "thickness": 1.4, "width": 5, "color": look.colour})]


def _band(
    places: np.ndarray, interval: Interval, colour: str, name: str, where: dict[str, Any]
) -> go.Scatter:
    known = np.isfinite(interval.low) & np.isfinite(interval.high)
    there, low, high = places[known], interval.low[known], interval.high[known]
    return go.Scatter(
        x=np.concatenate([there, there[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.18)",
        mode="lines",
        line={"width": 0},
        name=name,
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
        **where,
    )
