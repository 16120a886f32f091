"""Before and after: how many neurons have which N, and from which N they go to which.

All neurons count, at one bar for both runs (`lensneurons.comparison.before_after`). Changes have
jackknife intervals over groups of items where there are groups; a change is called measurable where
its interval leaves out 0.

What these do not show: that the training between the runs caused a change; nor, of many intervals
of 95% side by side, which of them leave out 0 by chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lensneurons.comparison.before_after import Change, Comparison, p_text
from lensneurons.comparison.class_counts import ClassTables
from lensneurons.plots.axes import count_axis, on_axis
from lensneurons.plots.labels import counted, plain, short_number
from lensneurons.plots.notes import MINUS, capital
from lensneurons.plots.style import CLASS_COLOURS, frame
from lensneurons.values.provenance import UNKNOWN

_ABOVE, _CHANGE, _GAP = 230, 170, 14  # pixels


def histogram_change(comparison: Comparison) -> go.Figure:
    """How many neurons exceed tau in N = 0, 1, ..., K languages, before and after.

    Args:
        comparison: what `compare` gives.

    Returns:
        Counts above, and below them the changes with 95% intervals; N = 0, which mirrors the sum
        of the others, has its change in the subtitle.
    """
    runs = comparison.tables.layers[0].sum(axis=1)
    change = comparison.change(ClassTables.histogram_change)
    kinds = n_classes(runs.shape[1] - 1)
    axis = count_axis(runs.ravel(), "neurons")
    figure = go.Figure([_bars(name, counts, axis, kinds) for name, counts in _named(runs)])
    figure.add_trace(_change_bars(change, kinds))
    figure.add_traces(_class_key(kinds))
    height = _ABOVE + _GAP + _CHANGE
    k = len(kinds) - 1
    title = "N, number of languages with p > tau"
    figure.update_layout(xaxis={"title": title, "dtick": 1, "range": [-0.6, k + 0.6]})
    figure.update_layout(xaxis={"showgrid": False, "anchor": "y2"}, barmode="group")
    figure.update_layout(
        yaxis={**axis, "domain": [1 - _ABOVE / height, 1]},
        yaxis2={**change_axis(change, slice(1, None), "change"), "domain": [0, _CHANGE / height]},
    )
    zero_line(figure, "y2")
    none = change_text(change, 0)
    told = f"Neurons above tau in no language: {none}"
    return frame(
        figure, _title_of_numbers(comparison, runs), subtitle(comparison, told),
        plot_height=height, legend=True,
    )  # fmt: skip


def n_classes(k: int) -> list[str]:
    """Class of N = 0, 1, ..., K."""
    return ["unclassified", "specific", *["related"] * (k - 2), "agnostic"]


def _named(runs: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [("before", runs[0]), ("after", runs[1])]


def _bars(name: str, counts: np.ndarray, axis: dict[str, Any], kinds: list[str]) -> go.Bar:
    few = len(counts) <= 6
    return go.Bar(
        x=np.arange(len(counts)),
        y=on_axis(counts, axis),
        customdata=[[f"{n:,}", kind] for n, kind in zip(counts.tolist(), kinds, strict=True)],
        text=[f"{n:,}" if few else short_number(n) for n in counts.tolist()],
        textposition="outside",
        textfont={"size": 11 if len(counts) <= 12 else 9},
        textangle=0 if len(counts) <= 14 else -90,
        cliponaxis=False,
        name=name,
        showlegend=False,
        marker={
            "color": [CLASS_COLOURS[kind] for kind in kinds],
            "pattern": {"shape": "/" if name == "before" else "", "size": 6, "solidity": 0.35},
        },
        hovertemplate="N = %{x}, %{customdata[1]}<br>%{customdata[0]} neurons"
        f"<extra>{name}</extra>",
    )


def _change_bars(change: Change, kinds: list[str]) -> go.Bar:
    """Changes of N = 1 ... K, with error bars where there are groups."""
    numbers = np.arange(1, len(kinds))
    return go.Bar(
        x=numbers,
        y=change.estimate[1:],
        error_y=error_bars(change, slice(1, None)),
        customdata=[[change_text(change, n), kinds[n]] for n in numbers],
        marker={"color": [CLASS_COLOURS[kind] for kind in kinds[1:]]},
        width=0.5,
        name="change",
        showlegend=False,
        yaxis="y2",
        hovertemplate="N = %{x}, %{customdata[1]}<br>%{customdata[0]}<extra>change</extra>",
    )


def _class_key(kinds: list[str]) -> list[go.Scatter]:
    """Entries of the legend: the classes that K has, then before and after by pattern."""
    entries = [(kind, CLASS_COLOURS[kind], "square") for kind in dict.fromkeys(kinds)]
    entries += [("before: striped", "#7a8190", "hash-open"), ("after: solid", "#7a8190", "square")]
    return [
        go.Scatter(
            x=[None], y=[None], mode="markers", name=name, hoverinfo="skip",
            marker={"symbol": symbol, "color": colour, "size": 11},
        )
        for name, colour, symbol in entries
    ]  # fmt: skip


def _title_of_numbers(comparison: Comparison, runs: np.ndarray) -> str:
    old, new = (int(run[2:].sum()) for run in runs)
    change = comparison.change(lambda t: t.histogram_change()[:, 2:].sum(axis=1, keepdims=True))
    told = f"Neurons above tau in two languages or more: {old:,} before, {new:,} after"
    return f"{told} ({verdict(change, 0)})"


def transitions(comparison: Comparison) -> go.Figure:
    """From how many languages to how many: neurons by N before and N after.

    Args:
        comparison: what `compare` gives.

    Returns:
        A heat map with the counts in its cells; colours are shares of the row, so that every N
        before can be read by itself. Hover gives intervals and the net flow with its p-value.
    """
    counts = comparison.transitions
    k = len(counts) - 1
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.full(counts.shape, np.nan), where=rows > 0)
    size = 12 if k <= 11 else 9
    trace = go.Heatmap(
        z=share,
        zmin=0,
        zmax=1,
        text=[[short_number(n) if n else "" for n in row] for row in counts.tolist()]
        if k <= 26
        else None,
        texttemplate="%{text}" if k <= 26 else None,
        textfont={"size": size if k <= 16 else 7},
        customdata=_told_transitions(comparison, share),
        hovertemplate="N = %{y} before, %{x} after<br>%{customdata}<extra></extra>",
        hoverongaps=False,
        colorbar={"title": {"text": "share of the row"}, "tickformat": ".0%"},
        name="transitions",
    )
    figure = go.Figure([trace])
    figure.add_shape(
        type="path", line={"width": 1.2},
        path="".join(f"M{i - 0.5},{i - 0.5}H{i + 0.5}V{i + 0.5}H{i - 0.5}Z" for i in range(k + 1)),
    )  # fmt: skip
    ticks = {"tickmode": "array", "tickvals": [*range(k + 1)], "ticktext": _class_ticks(k)}
    ticks |= {"showgrid": False, "tickangle": 0}
    figure.update_xaxes(title="N after", range=[-0.5, k + 0.5], **ticks)
    figure.update_yaxes(title="N before", range=[k + 0.5, -0.5], **ticks)
    colours = "squares: unclassified, specific (N = 1), related, agnostic (N = K)"
    told = f"Outlined: N stays; empty rows: no neuron had this N; {colours}"
    height = min(max(32 * (k + 1), 160), 620)
    lines = subtitle(comparison, _net(comparison), told)
    return frame(figure, _title_of_moves(counts), lines, plot_height=height)


def _class_ticks(k: int) -> list[str]:
    every = 1 if k <= 16 else 5
    return [
        f'<span style="color:{CLASS_COLOURS[kind]}">■</span>{n if n % every == 0 else ""}'
        for n, kind in enumerate(n_classes(k))
    ]


def _told_transitions(comparison: Comparison, share: np.ndarray) -> list[list[str]]:
    """What the hover says of every cell: neurons with interval, share, net flow with p."""
    table = comparison.to_pandas("transitions")
    told = []
    for row, part in zip(table.to_dict("records"), share.ravel().tolist(), strict=True):
        ends = "" if np.isnan(row["low"]) else f" (95% {row['low']:,.0f} to {row['high']:,.0f})"
        p = "" if np.isnan(row["p"]) else f", p = {p_text(row['p'])}"
        net = f"<br>this way less back: {number_text(float(row['net']))}{p}"
        of = "" if np.isnan(part) else f", {part:.1%} of the row"
        told.append(f"{row['neurons']:,} neurons{ends}{of}{net}")
    k = len(share)
    return [told[i * k : (i + 1) * k] for i in range(k)]


def _title_of_moves(counts: np.ndarray) -> str:
    there = int(counts.sum() - counts[0, 0])
    if not there:
        return "No neuron exceeds tau in any language, before or after"
    up, down = int(np.triu(counts, 1).sum()), int(np.tril(counts, -1).sum())
    stays = f"{(there - up - down) / there:.0%} keep their N"
    return (
        f"Of {counted(there, 'neuron')} above tau somewhere, {stays}, {up / there:.0%} are above "
        f"it in more languages after, {down / there:.0%} in fewer"
    )


def _net(comparison: Comparison) -> str:
    """Rising less falling neurons, with interval and p."""

    def rising(tables: ClassTables) -> np.ndarray:
        flows = tables.transitions
        return (np.triu(flows, 1) - np.tril(flows, -1)).sum(axis=(1, 2))[:, None]

    change = comparison.change(rising)
    return f"Neurons that rise in N less those that fall: {change_text(change, 0)}"


# What the figures of changes share: axes, and numbers in words.


def zero_line(figure: go.Figure, axis: str) -> None:
    """Draw the line of no change across a panel."""
    figure.add_shape(
        type="line", x0=0, x1=1, xref="paper", y0=0, y1=0, yref=axis, layer="below",
        line={"width": 1},
    )  # fmt: skip


def change_axis(change: Change, chosen: Any, title: str) -> dict[str, Any]:
    """A linear axis with some room around all changes, whole numbers where they are few."""
    ends = [one[chosen] for one in (change.estimate, change.low, change.high)]
    known = np.concatenate([np.ravel(one) for one in ends] + [[0.0]])
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    room = 0.12 * (high - low) or 1.0
    ticks = {"dtick": 1} if high - low <= 3 else {"nticks": 5, "tickformat": ",~g"}
    return {"title": title, "range": [low - room, high + room], **ticks}


def take(change: Change, chosen: Any) -> Change:
    """Some numbers of an array of changes."""
    return replace(
        change,
        estimate=change.estimate[chosen],
        low=change.low[chosen],
        high=change.high[chosen],
        p=change.p[chosen],
    )


def error_bars(change: Change, chosen: Any) -> dict[str, Any] | None:
    """Error bars of changes; None without groups."""
    middle, low, high = (one[chosen] for one in (change.estimate, change.low, change.high))
    if np.isnan(low).any():
        return None
    return {"array": high - middle, "arrayminus": middle - low, "thickness": 1.4, "width": 5}


def number_text(value: float) -> str:
    """A change of a count: ``"+12"``, ``"−3.5"``, ``"0"``; one decimal where it is not whole."""
    if not np.isfinite(value):
        return "not defined"
    text = f"{abs(value):,.1f}".removesuffix(".0")
    return text if text == "0" else f"{'+' if value > 0 else MINUS}{text}"


def with_interval(value: float, low: float, high: float) -> str:
    """A change with its ends, where it has any: ``"+12 (+4 to +20)"``."""
    ends = "" if np.isnan(low) else f" ({number_text(low)} to {number_text(high)})"
    return number_text(value) + ends


def change_text(change: Change, place: Any) -> str:
    """A change with interval and p-value, where there are groups."""
    value, low, high, p = (
        float(getattr(change, name)[place]) for name in ("estimate", "low", "high", "p")
    )
    told = with_interval(value, low, high)
    return told if np.isnan(p) else f"{told}, p = {p_text(p)}"


def verdict(change: Change, place: Any) -> str:
    """``"rise by 12"``, ``"fall by 3"``, or that they do not measurably."""
    value, low, high = (float(getattr(change, name)[place]) for name in ("estimate", "low", "high"))
    if value == 0:
        return "do not change in number"
    told = f"{'rise' if value > 0 else 'fall'} by {number_text(abs(value)).lstrip('+')}"
    measured = np.isnan(low) or low > 0 or high < 0
    return told if measured else f"do not measurably change ({number_text(value)})"


def subtitle(comparison: Comparison, *told: str) -> list[str]:
    """Models, population, bar and groups, then what else is to be said; visible, not escaped."""
    names = [
        plain("/".join(one.model.split("/")[-2:]), 40)
        for one in comparison.provenance
        if one.model != UNKNOWN
    ]
    models = (
        f"{' before, '.join(names)} after: " if len(names) == 2 and names[0] != names[1] else ""
    )
    text = plain(comparison.description)
    bands = "intervals: 95%, jackknife over groups" if comparison.n_groups > 1 else ""
    sentences = [models + (text if models else capital(text)), *told]
    return [*sentences[:-1], "; ".join(filter(None, [sentences[-1], bands]))]
