"""The layer profile: how many specific, related and agnostic neurons each layer has.

All neurons count, classified by N alone, because the selected ones hold no agnostic neuron by
construction. Where the four parts of the model were found they are shaded; where they were not,
the title says so and why, and nothing is shaded.

What this does not show: that a layer computes what its part is called after.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.parts import LayerParts, Part
from lensneurons.plots.axes import count_axis, on_axis
from lensneurons.plots.labels import entities, listing, plain, span
from lensneurons.plots.style import (
    BELOW,
    CLASS_COLOURS,
    CLASS_SYMBOLS,
    KEY_ROW,
    frame,
    layer_ticks,
    population_note,
)
from lensneurons.shapes import LayerProfile

PART_COLOURS = ("rgba(86,180,233,.16)", "rgba(0,158,115,.12)", "rgba(230,159,0,.16)",
                 "rgba(204,121,167,.24)")  # fmt: skip
_DASHES = {"specific": "solid", "related": "solid", "agnostic": "dash"}
_STRIP = 0.92  # share of the height below the strip of part numbers


def layer_profile(neurons: LanguageNeurons, parts: LayerParts | None = None) -> go.Figure:
    """Specific, related and agnostic neurons of every layer, over all neurons of the model.

    Args:
        neurons: the identified neurons; their population does not matter here.
        parts: what `divide_layers` gave for them. Found parts are shaded, with the bootstrap
            intervals of their boundaries where there are any.

    Returns:
        Lines over layers; the count axis is logarithmic where counts differ much.

    Raises:
        LensNeuronsError: `parts` were made from another profile.
    """
    profile = neurons.layer_profile("all")
    if parts is not None and not np.array_equal(parts.profile, profile):
        raise LensNeuronsError(
            "these parts are of another profile than the neurons (another model, corpus or tau): "
            "call divide_layers on the same neurons"
        )
    figure = go.Figure(_lines(profile))
    figure.update_xaxes(**layer_ticks(len(profile)))
    figure.update_yaxes(**count_axis(profile, "neurons of the layer"))
    key: list[str] = []
    if parts is not None and parts.found:
        _shade(figure, parts)
        key = [part_text(part, parts) for part in parts.parts]
    write_below(figure, key)
    subtitle = [population_note(neurons.with_population("all")), *evidence_lines(parts)]
    figure.update_layout(hovermode="x unified")
    bottom = BELOW + KEY_ROW * len(key)
    return frame(figure, _title(profile, parts), subtitle, bottom=bottom, legend=True)


def _lines(profile: LayerProfile) -> list[go.Scatter]:
    axis = count_axis(profile, "")
    return [
        go.Scatter(
            x=np.arange(len(profile)),
            y=on_axis(profile[:, column], axis),
            customdata=profile[:, column],
            name=name,
            mode="lines+markers",
            line={"color": CLASS_COLOURS[name], "width": 2.2, "dash": _DASHES[name]},
            marker={"symbol": CLASS_SYMBOLS[name], "size": 7 if len(profile) < 60 else 5},
            cliponaxis=False,
            hovertemplate="%{customdata:,} " + name + "<extra></extra>",
        )
        for column, name in enumerate(LAYER_CLASSES)
    ]


def _title(profile: LayerProfile, parts: LayerParts | None) -> str:
    if parts is None:
        return _peaks(profile)
    if parts.boundaries is not None:
        found = listing(span(first, last) for first, last in parts.boundaries)
        return f"The four parts of the model are layers {found}"
    reasons = [f"“{plain(c.claim)}” fails ({plain(c.measured)})" for c in parts.failed]
    return ": ".join(["Four parts were not found", *reasons[:1]])


def _peaks(profile: LayerProfile) -> str:
    """Where each class is most frequent; classes without neurons are named as such."""
    peaks = [np.flatnonzero(counts == counts.max()) for counts in profile.T]
    there = [
        f"{name} in {_layers(peak)}"
        for name, peak, counts in zip(LAYER_CLASSES, peaks, profile.T, strict=True)
        if counts.any()
    ]
    absent = [
        name for name, counts in zip(LAYER_CLASSES, profile.T, strict=True) if not counts.any()
    ]
    if not there:
        return "No neuron of this model is specific, related or agnostic"
    missing = f"; there are no {' or '.join(absent)} neurons" if absent else ""
    return f"Where neurons are most frequent: {listing(there)}{missing}"


def _layers(peak: np.ndarray) -> str:
    if len(peak) > 3:
        return f"{len(peak)} layers alike"
    return f"layer{'s' if len(peak) > 1 else ''} {listing(peak)}"


def evidence_lines(parts: LayerParts | None) -> list[str]:
    """How well the parts are founded, as lines of a subtitle; none without parts."""
    if parts is None:
        return []
    total, failed = len(parts.criteria), len(parts.failed)
    order = f"shuffled layers are fitted as well with p = {parts.shuffle_p:.3g}"
    if parts.found:
        return [f"All {total} criteria hold; {order}"]
    tried = listing(span(part.first, part.last) for part in parts.parts)
    best = f"the best division, {tried}, is not shaded"
    return [f"{failed} of {total} criteria fail; {order}; {best}"]


def _interval(part: Part, parts: LayerParts) -> tuple[int, int] | None:
    """Bootstrap interval of the first layer of a part, where there is one."""
    if parts.draws is None or part.number == 1 or not (parts.draws[:, part.number - 2] >= 0).any():
        return None
    return parts.interval(part.number)


def part_text(part: Part, parts: LayerParts) -> str:
    """Number, name, layers and boundary interval of a part, in one line."""
    interval = _interval(part, parts)
    word = "layers" if part.last > part.first else "layer"
    text = f"{part.number}  {part.name}: {word} {span(part.first, part.last)}"
    if interval is None:
        return text
    return f"{text} (first layer, 95% of bootstrap draws: {span(*interval)})"


def _shade(figure: go.Figure, parts: LayerParts) -> None:
    """Shade the parts, number them in a strip above the lines, and draw boundary intervals."""
    figure.update_layout(
        yaxis={"domain": [0, _STRIP]},
        yaxis2={"domain": [_STRIP, 1], "range": [0, 1], "visible": False, "fixedrange": True},
    )
    for part in parts.parts:
        place = {"x0": part.first - 0.5, "x1": part.last + 0.5, "y0": 0, "y1": 1}
        colour = PART_COLOURS[part.number - 1]
        figure.add_shape(
            type="rect", yref="paper", fillcolor=colour, layer="below", line_width=0, **place
        )
        figure.add_annotation(
            text=f"<b>{part.number}</b>",
            x=(part.first + part.last) / 2,
            y=0.5,
            yref="y2",
            showarrow=False,
            hovertext=entities(part_text(part, parts)),
        )
    figure.add_trace(_boundaries(parts))


def _boundaries(parts: LayerParts) -> go.Scatter:
    """The boundaries that have intervals, as points with horizontal bars in the strip."""
    known = [(p.first, ends) for p in parts.parts if (ends := _interval(p, parts)) is not None]
    firsts = np.array([first for first, _ in known], float)
    ends = np.array([ends for _, ends in known], float).reshape(-1, 2)
    return go.Scatter(
        x=firsts - 0.5,
        y=np.full(len(known), 0.14),
        error_x={"array": ends[:, 1] - firsts, "arrayminus": firsts - ends[:, 0], "width": 4},
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 8, "color": "#7a8190"},
        yaxis="y2",
        name="first layer of a part, 95% interval",
        showlegend=bool(known),
        hoverinfo="skip",
    )


def write_below(figure: go.Figure, key: list[str]) -> None:
    """Write lines under the axis of a figure."""
    for row, text in enumerate(key):
        figure.add_annotation(
            text=entities(text), x=0, xref="paper", xanchor="left", y=0, yref="paper",
            yanchor="top", yshift=8 - BELOW - KEY_ROW * row, showarrow=False,
        )  # fmt: skip
