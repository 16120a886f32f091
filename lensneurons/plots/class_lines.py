"""Where and when the classes of neurons change: by layer, and by checkpoint of a training run.

A panel for each class, each on its own scale, over all neurons at one bar.

What these do not show: that the training caused a change; and checkpoints share their items and the
first run, so a curve that stays above its start is one observation, not many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from lensneurons.comparison.before_after import (
    CLASSES,
    Boundaries,
    Change,
    ClassMeasure,
    Comparison,
    boundaries_of,
)
from lensneurons.comparison.class_counts import ClassTables, of_class
from lensneurons.comparison.series import ComparisonSeries
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.bands import Look, line_with_band
from lensneurons.plots.comparison import (
    change_axis,
    subtitle,
    take,
    verdict,
    with_interval,
    zero_line,
)
from lensneurons.plots.labels import entities, escape_label, listing, plain, span
from lensneurons.plots.layers import PART_COLOURS, evidence_lines, write_below
from lensneurons.plots.notes import capital
from lensneurons.plots.style import (
    BELOW,
    CLASS_COLOURS,
    CLASS_SYMBOLS,
    KEY_ROW,
    frame,
    layer_ticks,
    layout_of,
)
from lensneurons.uncertainty.groups import Interval

_ROW, _GAP = 135, 30  # pixels
_ROLES = {"trained": Look("#0072b2", "solid", "circle"),
          "untouched": Look("#8a5a9e", "dash", "circle-open")}  # fmt: skip
_ENDS = ("change", "low", "high")
_LABEL = 16  # longest name of a checkpoint on the axis


def class_changes(
    comparison: Comparison, parts: LayerParts | Boundaries | None = None
) -> go.Figure:
    """Change of specific, related and agnostic neurons in every layer.

    Args:
        comparison: what `compare` gives.
        parts: the four parts of the model before (`divide_layers`), or first and last layers. Found
            parts are shaded, and the change of every class in each is written below.

    Returns:
        A panel for each class with 95% bands.

    Raises:
        LensNeuronsError: parts of another model.
    """
    n_layers = comparison.n_layers
    spans, names = _spans(parts, n_layers)
    change = comparison.change(
        lambda t: np.stack([of_class(t.layer_change(), kind) for kind in CLASSES], axis=-1)
    )
    figure = go.Figure()
    for row, kind in enumerate(CLASSES):
        look = Look(CLASS_COLOURS[kind], "solid", CLASS_SYMBOLS[kind])
        change_line(figure, np.arange(n_layers), take(change, (slice(None), row)), kind, look, row)
    height = stack_panels(figure, [_ROW] * len(CLASSES), gap=_GAP)
    figure.update_layout(xaxis=layer_ticks(n_layers), hovermode="x unified")
    key = _part_lines(comparison, spans, names)
    shade_parts(figure, spans, key, panels=len(CLASSES))
    write_below(figure, key)
    evidence = evidence_lines(parts) if isinstance(parts, LayerParts) else []
    lines = subtitle(comparison, "Change: neurons of the layer, after less before", *evidence)
    return frame(
        figure, capital(_classes(comparison)), lines,
        plot_height=height, bottom=BELOW + KEY_ROW * len(key),
    )  # fmt: skip


def _spans(
    parts: LayerParts | Boundaries | None, n_layers: int
) -> tuple[list[tuple[int, int]], list[str]]:
    """First and last layers of the parts that were found, and their names."""
    if parts is None:
        return [], []
    if not isinstance(parts, LayerParts):
        spans = boundaries_of(parts, n_layers)
        return spans, [""] * len(spans)
    if len(parts.profile) != n_layers:
        raise LensNeuronsError(
            f"the parts are of a model of {len(parts.profile)} layers, the comparison of one of "
            f"{n_layers}: give the parts of the same model"
        )
    found = parts.parts if parts.found else ()
    return [(part.first, part.last) for part in found], [f"{part.name}, " for part in found]


def _part_lines(
    comparison: Comparison, spans: list[tuple[int, int]], names: list[str]
) -> list[str]:
    """One line a part: what it is, and the change of every class in it."""
    if not spans:
        return []
    rows = comparison.part_changes(spans).to_dict("records")
    lines = []
    for number, (name, ends) in enumerate(zip(names, spans, strict=True)):
        own = rows[number * len(CLASSES) : (number + 1) * len(CLASSES)]
        told = (f"{row['class']} {with_interval(*(float(row[n]) for n in _ENDS))}" for row in own)
        word = "layers" if ends[1] > ends[0] else "layer"
        lines.append(f"{number + 1}  {name}{word} {span(*ends)}: {', '.join(told)}")
    return lines


def _classes(comparison: Comparison) -> str:
    """Whether each class rises or falls over all layers."""
    totals = comparison.change(
        lambda t: np.stack([of_class(t.histogram_change(), kind) for kind in CLASSES], axis=-1)
    )
    nouns = ("neurons", "ones", "ones")
    told = zip(CLASSES, nouns, strict=True)
    return listing(f"{kind} {noun} {verdict(totals, i)}" for i, (kind, noun) in enumerate(told))


def checkpoint_series(series: ComparisonSeries) -> go.Figure:
    """Change of specific, related and agnostic neurons since the first checkpoint.

    Args:
        series: what `compare_series` gives.

    Returns:
        A panel for each class with 95% bands; where languages were trained, one more with the
        related neurons of a language, mean over trained and over untouched ones. Checkpoints stand
        at even distances.
    """
    figure = go.Figure()
    places = np.arange(len(series) + 1)
    for row, kind in enumerate(CLASSES):
        look = Look(CLASS_COLOURS[kind], "solid", CLASS_SYMBOLS[kind])
        change = _over_series(series, lambda t, kind=kind: of_class(t.histogram_change(), kind))
        change_line(figure, places, change, kind, look, row)
    rows = len(CLASSES) + _roles(figure, series, places, len(CLASSES))
    height = stack_panels(figure, [_ROW] * rows, gap=_GAP)
    names = [series.first, *series.names]
    step = max(1, len(names) // 16)
    figure.update_layout(
        hovermode="x unified",
        xaxis={
            "title": "checkpoint (even distances)",
            "tickmode": "array",
            "tickvals": places[::step],
            "ticktext": [escape_label(name, _LABEL) for name in names[::step]],
            "range": [-0.3, len(series) + 0.3],
        },
    )
    first = plain(series.first, _LABEL)
    told = f"Change: neurons of the whole model, less those of the first checkpoint, {first}"
    last = series.comparisons[-1]
    title = f"From checkpoint {first} to {plain(series.names[-1], _LABEL)}, {_classes(last)}"
    return frame(figure, title, subtitle(last, told), plot_height=height, bottom=60)


def _over_series(series: ComparisonSeries, figure: ClassMeasure) -> Change:
    """A change [checkpoint] of a number [draw], with 0 for the first checkpoint."""
    found = [one.change(lambda t: figure(t)[:, None]) for one in series.comparisons]
    known = not np.isnan(found[0].low).any()
    start = {"estimate": 0.0, "low": 0.0 if known else np.nan, "high": 0.0 if known else np.nan}
    ends = {
        name: np.array([start.get(name, np.nan), *(getattr(one, name)[0] for one in found)])
        for name in ("estimate", "low", "high", "p")
    }
    return Change(**ends, level=found[0].level)


def _roles(figure: go.Figure, series: ComparisonSeries, places: np.ndarray, row: int) -> int:
    """Add the panel of trained and untouched languages; how many panels were added, 0 or 1."""
    first = series.comparisons[0]
    groups = {"trained": first.trained, "untouched": first.untouched if first.trained else ()}
    changes = {}
    for name, languages in groups.items():
        if chosen := [first.languages.index(language) for language in languages]:
            changes[name] = _over_series(series, lambda t, of=chosen: _related(t, of))
    if not changes:
        return 0
    head = (
        "related neurons of a language, mean over trained ones (solid) and untouched ones (dashed)"
    )
    for name, change in changes.items():
        change_line(figure, places, change, name, _ROLES[name], row, head="")
    pairs = [(one.estimate, one.low, one.high, one.p) for one in changes.values()]
    estimate, low, high, p = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    together = Change(estimate, low, high, p, next(iter(changes.values())).level)
    figure.update_layout({f"yaxis{row + 1}": change_axis(together, slice(None), "neurons")})
    panel_head(figure, head, axis_name(row))
    return 1


def _related(tables: ClassTables, places: list[int]) -> np.ndarray:
    """float64 [draw]: mean change of the related neurons of some languages."""
    return of_class(tables.member_change()[:, places], "related").mean(axis=1)


# Panels below each other


def stack_panels(figure: go.Figure, heights: Sequence[int], *, gap: int) -> int:
    """Place vertical axes below each other over one horizontal one; their height in pixels."""
    total = sum(heights) + gap * (len(heights) - 1)
    top = total
    for row, height in enumerate(heights):
        domain = [max((top - height) / total, 0.0), top / total]
        figure.update_layout({f"yaxis{row + 1}": {"domain": domain}})
        top -= height + gap
    return figure.update_layout(xaxis_anchor=f"y{len(heights)}") and total


def change_line(
    figure: go.Figure, places: np.ndarray, change: Change, name: str, look: Look, row: int,
    *, head: str | None = None,
) -> None:  # fmt: skip
    """Add a line of changes with its band to a panel, with its head, axis and zero line."""
    axis = axis_name(row)
    ends = Interval(change.estimate, change.low, change.high, change.level, "jackknife")
    traces = line_with_band(
        places, ends, name=entities(name), look=look, number="+,.1f", yaxis=axis
    )
    if np.isnan(change.low).any():
        traces = traces[-1:]
        traces[0].update(hovertemplate="%{fullData.name}: %{y:+,.4~g}<extra></extra>", error_y=None)
    figure.add_traces(traces)
    figure.update_layout({f"yaxis{row + 1}": {**change_axis(change, slice(None), "neurons")}})
    zero_line(figure, axis)
    panel_head(figure, name if head is None else head, axis)


def axis_name(row: int) -> str:
    """What traces and shapes call the vertical axis of a panel: ``"y"``, ``"y2"``, ..."""
    return f"y{row + 1}" if row else "y"


def panel_head(figure: go.Figure, text: str, axis: str) -> None:
    """Write what a panel is about above its left corner."""
    figure.add_annotation(
        text=f"<b>{entities(text)}</b>", x=0, xref="paper", xanchor="left",
        y=1, yref=f"{axis} domain", yanchor="bottom", showarrow=False,
    )  # fmt: skip


def shade_parts(
    figure: go.Figure, spans: Sequence[tuple[int, int]], hover: Sequence[str], *, panels: int
) -> None:
    """Shade runs of layers in the first panels, and number them where the first makes room."""
    if spans:
        low, high = layout_of(figure)["yaxis"].range
        figure.update_layout(yaxis={"range": [low, high + 0.15 * (high - low)]})
    for place, ((first, last), text) in enumerate(zip(spans, hover, strict=True)):
        for row in range(panels):
            figure.add_shape(
                type="rect", x0=first - 0.5, x1=last + 0.5, y0=0, y1=1,
                yref=f"{axis_name(row)} domain", layer="below", line_width=0,
                fillcolor=PART_COLOURS[place % len(PART_COLOURS)],
            )  # fmt: skip
        figure.add_annotation(
            text=f"<b>{place + 1}</b>", x=(first + last) / 2, y=1, yref="paper",
            yanchor="top", showarrow=False, hovertext=entities(text),
        )  # fmt: skip
