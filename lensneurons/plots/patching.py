"""What patching carries from one language into another, layer by layer.

Lines are the shares of the outcomes among each other (`lensneurons.experiments.carrying`),
pooled over all pairs that have the same outcomes: pairs whose answer is written alike in both
languages can show the answer travel and not its language, so they have a panel of their own.
Patching within one language is such a case, and the control of patching across.

What this does not show: that the model itself carries an answer this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import plotly.graph_objects as go

from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.carrying import OUTCOMES, CarryOver
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.bands import Look, line_with_band
from lensneurons.plots.labels import (
    counted,
    entities,
    escape_label,
    full_name,
    listing,
    plain,
    spans,
)
from lensneurons.plots.layers import PART_COLOURS, evidence_lines, part_text, write_below
from lensneurons.plots.notes import headed, share_with_ends
from lensneurons.plots.style import BELOW, KEY_ROW, frame, layer_ticks, layout_of
from lensneurons.uncertainty.groups import Interval

_LOOKS = {
    "both": Look("#d98e04", "solid", "circle"),
    "concept": Look("#b8569f", "solid", "diamond"),
    "language": Look("#3f9bd1", "dash", "square"),
    "neither": Look("#868d99", "dot", "triangle-up"),
}
_OTHERS = (Look("#55a868"), Look("#8172b3", "dash"), Look("#a05a2c", "dashdot", "cross"))
_MEANING = {
    "both": "answer and language of the source are carried",
    "concept": "its answer alone",
    "language": "its language alone",
    "neither": "nothing",
}
_MOST = 3  # panels
_PANEL, _GAP, _HEAD = 280, 40, 20  # pixels


def carry_over(result: CarryOver, parts: LayerParts | None = None) -> go.Figure:
    """How probable each outcome is after patching each layer, against no patch.

    Args:
        result: what `carry_over` measured.
        parts: what `divide_layers` gave for the same model. Found parts are shaded.

    Returns:
        A panel for the pairs of each choice of outcomes, the one with most outcomes first: lines
        with 95% bands (bootstrap over pairs of items), dotted levels without a patch, and how much
        of the probability the outcomes hold together.

    Raises:
        LensNeuronsError: the parts have other layers than the result, or fewer than two pairs of
            items, which have no interval.
    """
    n_layers = len(result.log_probability)
    if parts is not None and len(parts.profile) != n_layers:
        raise LensNeuronsError(
            f"the parts are of a model of {len(parts.profile)} layers, the result of one of "
            f"{n_layers}: give the parts of the same model"
        )
    groups = _groups(result)
    figure = go.Figure()
    for row, group in enumerate(groups):
        for place, outcome in enumerate(group.outcomes):
            figure.add_traces(_outcome(group, outcome, place, row))
        figure.add_trace(_together(group, row))
    height = _place(figure, groups, n_layers)
    key: list[str] = []
    if parts is not None and parts.found:
        _shade(figure, parts)
        key = [part_text(part, parts) for part in parts.parts]
    write_below(figure, key)
    told = [*_subtitle(result, groups), *evidence_lines(parts)]
    bottom = BELOW + KEY_ROW * len(key)
    frame(figure, _title(groups[0]), told, plot_height=height, bottom=bottom, legend=True)
    head = _HEAD if len(groups) > 1 else 0
    return figure.update_layout(
        hovermode="x unified",
        legend={"y": 1 + head / height},
        margin={"t": layout_of(figure).margin.t + head},
        height=layout_of(figure).height + head,
    )


@dataclass(frozen=True)
class _Group:
    """The pairs that have the same outcomes."""

    outcomes: tuple[str, ...]
    result: CarryOver

    def share(self, *outcomes: str) -> Interval:
        """Share of some outcomes together, pooled, [layer]."""
        found = self.result.interval(*outcomes, pooled=True)
        estimate, low, high = found.estimate[:, 0], found.low[:, 0], found.high[:, 0]
        return replace(found, estimate=estimate, low=low, high=high)

    def unpatched(self, *outcomes: str) -> float:
        """Share of some outcomes together without a patch, pooled."""
        values = self.result.unpatched
        odds = np.exp(values - np.nanmax(values, axis=1, keepdims=True))
        chosen = [place for place, name in enumerate(self.result.outcomes) if name in outcomes]
        return float((np.nansum(odds[:, chosen], axis=1) / np.nansum(odds, axis=1)).mean())

    @property
    def together(self) -> np.ndarray:
        """Mean probability of the outcomes together, [layer]."""
        return np.nansum(np.exp(self.result.log_probability), axis=-1).mean(axis=-1)

    @property
    def name(self) -> str:
        """How many pairs, and into which languages; visible, not escaped."""
        there = [self.result.languages[place] for place in np.unique(self.result.language)]
        names = listing(map(full_name if len(there) < 5 else plain, there))
        alike = "" if {"both", "language"} & set(self.outcomes) else ", answers written alike"
        return f"{counted(len(self.result.items), 'pair')} into {names}{alike}"


def _groups(result: CarryOver) -> list[_Group]:
    """Pairs by the outcomes that they have, those with most first, where an interval is possible.

    Raises:
        LensNeuronsError: no pairs of at least two pairs of items have the same outcomes.
    """
    present = ~np.isnan(result.unpatched)
    kinds = sorted({tuple(row) for row in present.tolist()}, key=lambda kind: (-sum(kind), kind))
    found = [_group(result, np.array(kind), (present == kind).all(axis=1)) for kind in kinds]
    enough = [group for group in found if len(set(group.result.items)) > 1]
    if not enough:
        raise LensNeuronsError("an interval needs at least two pairs of items; give more pairs")
    return enough[:_MOST]


def _group(result: CarryOver, outcomes: np.ndarray, pairs: np.ndarray) -> _Group:
    chosen = np.flatnonzero(pairs)
    names = [name for name, there in zip(result.outcomes, outcomes, strict=True) if there]
    part = replace(
        result,
        log_probability=result.log_probability[:, chosen],
        unpatched=result.unpatched[chosen],
        language=result.language[chosen],
        items=tuple(result.items[place] for place in chosen),
    )
    known = [name for name in OUTCOMES if name in names]
    return _Group((*known, *(name for name in names if name not in known)), part)


def _outcome(group: _Group, outcome: str, place: int, row: int) -> list[go.Scatter]:
    """The line of an outcome with its band, and its level without a patch."""
    found = group.share(outcome)
    look = _LOOKS.get(outcome, _OTHERS[place % len(_OTHERS)])
    name, where = escape_label(outcome, 24), _where(row)
    layers = np.arange(len(found.estimate))
    drawn = line_with_band(layers, found, name=name, look=look, number=".2f", **where)
    drawn[-1].update(showlegend=row == 0)
    level = group.unpatched(outcome)
    flat = go.Scatter(
        x=[-0.5, len(layers) - 0.5],
        y=[level, level],
        mode="lines",
        line={"color": look.colour, "width": 1.3, "dash": "dot"},
        name=f"{name} without a patch",
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
        **where,
    )
    return [flat, *drawn]


def _together(group: _Group, row: int) -> go.Scatter:
    """How probable the outcomes are together: where this is small, shares are about little."""
    return go.Scatter(
        x=np.arange(len(group.together)),
        y=group.together,
        mode="lines",
        line={"color": "#868d99", "width": 1},
        name="probability of all together",
        legendgroup="together",
        showlegend=row == 0,
        hovertemplate="all together: probability %{y:.3f}<extra></extra>",
        **_where(row),
    )


def _where(row: int) -> dict[str, str]:
    return {"xaxis": "x", "yaxis": "y" if row == 0 else f"y{row + 1}"}


def _place(figure: go.Figure, groups: Sequence[_Group], n_layers: int) -> int:
    """Panels below each other over one axis of layers; returns their height in pixels."""
    height = len(groups) * _PANEL + (len(groups) - 1) * _GAP
    for row, group in enumerate(groups):
        top = 1 - row * (_PANEL + _GAP) / height
        axis = {
            "title": "share",
            "range": [-0.03, 1.12],
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "domain": [max(top - _PANEL / height, 0), top],
        }
        figure.update_layout({f"yaxis{row + 1}": axis})
        if len(groups) > 1:
            figure.add_annotation(
                text=f"<b>{entities(group.name)}</b>", x=0, xref="paper", xanchor="left",
                y=top, yref="paper", yanchor="bottom", showarrow=False,
            )  # fmt: skip
    figure.update_layout(xaxis=layer_ticks(n_layers) | {"title": "patched layer"})
    figure.update_layout(xaxis_anchor=_where(len(groups) - 1)["yaxis"])
    return height


def _shade(figure: go.Figure, parts: LayerParts) -> None:
    for part in parts.parts:
        figure.add_shape(
            type="rect", x0=part.first - 0.5, x1=part.last + 0.5, y0=0, y1=1, yref="paper",
            fillcolor=PART_COLOURS[part.number - 1], layer="below", line_width=0,
        )  # fmt: skip
        figure.add_annotation(
            text=f"<b>{part.number}</b>", x=(part.first + part.last) / 2, y=1, yref="paper",
            yanchor="top", showarrow=False, hovertext=entities(part_text(part, parts)),
        )  # fmt: skip


def _title(group: _Group) -> str:
    """In which layers answer and language are carried, and where the answer comes alone."""
    answer, language = (
        group.share("both", one) if {"both", one} & set(group.outcomes) else None
        for one in ("concept", "language")
    )
    if answer is None or "neither" not in group.outcomes:
        last, name = max((group.share(name).estimate[-1], name) for name in group.outcomes)
        before = group.unpatched(name)
        told = f"Patching the last layer makes {plain(name, 24)} most probable"
        return f"{told}: share {last:.2f}, without a patch {before:.2f}"
    carried = _carried(answer, group.unpatched("both", "concept"))
    told = f"Patching {_layers(carried)} carries the source's answer over"
    if language is None:
        return f"{told}; it is written alike in both languages"
    with_it = _carried(language, group.unpatched("both", "language"))
    told += f", patching {_layers(with_it)} its language"
    alone = [layer for layer in carried if answer.low[layer] > 0.5 > language.high[layer]]
    return f"{told}: in {_layers(alone)} the answer comes alone" if alone else told


def _carried(found: Interval, before: float) -> list[int]:
    """Layers where a share is above one half, and above what it is without a patch."""
    return np.flatnonzero(found.estimate > max(0.5, before)).tolist()


def _layers(layers: list[int]) -> str:
    if not layers:
        return "no layer"
    named = spans(layers)
    return f"layer{'s' if len(layers) > 1 else ''} {named}" if named else f"{len(layers)} layers"


def _subtitle(result: CarryOver, groups: Sequence[_Group]) -> list[str]:
    first = groups[0]
    asked = "the next token" if result.asked == "first" else "all tokens of each answer"
    shown = sum(len(group.result.items) for group in groups)
    left = len(result.items) - shown
    pairs = first.name if len(groups) == 1 else counted(shown, "pair")
    lines = [
        headed(
            result.provenance,
            f"{pairs}; share: probability of {asked} among the outcomes"
            + (f"; {counted(left, 'other pair')} with other outcomes not shown" if left else ""),
        ),
        "; ".join(f"{name}: {_MEANING[name]}" for name in first.outcomes if name in _MEANING),
        "Carried over: both + concept (answer) or both + language (language) above one half, and "
        "above its level without a patch (dotted)",
        f"{_peak(first)}bands: 95%, bootstrap over "
        f"{counted(len(set(first.result.items)), 'pair')} of items",
    ]
    dropped = [f"{full_name(k)} {n}" for k, n in result.dropped.items() if n]
    lacking = f"Left out, as outcomes begin alike: {listing(dropped)}"
    return [line for line in [*lines, *([lacking] if dropped else [])] if line]


def _peak(group: _Group) -> str:
    """Where the answer without its language is largest."""
    if not {"concept", "both"} <= set(group.outcomes):
        return ""
    found = group.share("concept")
    top = int(found.estimate.argmax())
    told = share_with_ends(found.estimate[top], found.low[top], found.high[top])
    before = group.unpatched("concept")
    return f"Concept is largest in layer {top}: {told}, without a patch {before:.2f}; "
