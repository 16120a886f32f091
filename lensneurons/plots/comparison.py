"""Before and after: how the classes of neurons change, by N, layer, checkpoint and language.

All neurons count, at one bar for both runs (`lensneurons.comparison.before_after`). Changes have
bootstrap intervals over groups of items, if there are groups; a change is called measurable if its
interval leaves out 0. Beside the changes stands what needs no sharing: an equal rise of all firing,
a common shift with noise, and the change at each model's own bar (`lensneurons.comparison.nulls`).

>>> ln.plots.histogram_change(change), ln.plots.transitions(change)        # doctest: +SKIP
>>> ln.plots.class_changes(change, parts), ln.plots.language_changes(change)  # doctest: +SKIP
>>> ln.plots.checkpoint_series(series)                                     # doctest: +SKIP

What these do not show: that the training between the runs caused a change; or which of many 95%
intervals side by side leave out 0 by chance. Checkpoints share their items and the first run, so a
curve that stays above its start is one observation, not many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lensneurons.comparison.before_after import Change, Comparison
from lensneurons.comparison.change_tables import Boundaries, boundaries_of, p_equals
from lensneurons.comparison.class_counts import CLASSES, ClassTables, class_names
from lensneurons.comparison.series import ComparisonSeries
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.labels import capital, entities, escape_label, full_name, plain
from lensneurons.plots.numbers import count_change, counted, listing, short_number, with_ends
from lensneurons.plots.panels import (
    Look,
    change_axis,
    count_axis,
    error_bars,
    level_line,
    line_with_band,
    panels,
    part_label,
    shade_layers,
    stack,
)
from lensneurons.plots.profile import class_bars, evidence, require_layers
from lensneurons.plots.style import (
    CLASS_COLOURS,
    CLASS_SYMBOLS,
    GREY,
    class_key,
    frame,
    language_colour,
    language_tick,
    layer_ticks,
    ticks,
)
from lensneurons.plots.units import says_unit
from lensneurons.values.provenance import UNKNOWN

_ROLES = {"trained": Look("#0072b2", "solid", "circle"),
          "untouched": Look("#8a5a9e", "dash", "circle-open")}  # fmt: skip
_SYMBOLS = {"trained": "circle", "untouched": "circle-open", "pivot": "diamond", "": "circle"}
_MEAN = {"symbol": "diamond-wide", "size": 13, "color": GREY}
_PANEL, _GAP = 135, 30  # pixels of a panel of lines, and between two
_LONGEST = 16  # characters of a checkpoint's name on the axis


@says_unit
def histogram_change(comparison: Comparison) -> go.Figure:
    """Draw how many neurons exceed tau in N = 0, 1, ..., K languages, before and after.

    Returns:
        Counts above, and below them the changes with 95% intervals. N = 0, which mirrors the sum
        of the others, has its change in the subtitle.
    """
    runs = comparison.tables.layers[0].sum(axis=1)
    change = comparison.change(ClassTables.histogram_change)
    k = runs.shape[1] - 1
    kinds = class_names(k)
    axis = count_axis(runs.ravel(), "neurons")
    figure, height = stack([230, 170], gap=14)
    look = {"short": k > 5, "size": 11 if k <= 11 else 9, "upright": k <= 13}
    for name, counts in zip(("before", "after"), runs, strict=True):
        figure.add_trace(class_bars(name, counts, axis, **look), row=1, col=1)
    bars = go.Bar(
        x=np.arange(1, k + 1),
        y=change.estimate[1:],
        error_y=error_bars(change[1:]),
        customdata=[[_with_nulls(change[n]), kinds[n]] for n in range(1, k + 1)],
        marker={"color": [CLASS_COLOURS[kind] for kind in kinds[1:]]},
        width=0.5,
        name="change",
        showlegend=False,
        hovertemplate="N = %{x}, %{customdata[1]}<br>%{customdata[0]}<extra>change</extra>",
    )
    figure.add_trace(bars, row=2, col=1)
    for name, symbol, values in _nulls(change[1:]):
        marker = {"symbol": symbol, "size": 9, "color": GREY, "line": {"width": 1.5}}
        points = go.Scatter(
            x=np.arange(1, k + 1), y=values, mode="markers", name=name, marker=marker,
            showlegend=False,
            hovertemplate=f"N = %{{x}}<br>{name}: %{{y:+,.4~g}}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(points, row=2, col=1)
    figure.add_traces(class_key(kinds, runs=True))
    level_line(figure, 2)
    figure.update_xaxes(dtick=1, range=[-0.6, k + 0.6], showgrid=False)
    figure.update_xaxes(title="N, number of languages with p > tau", row=2)
    below = change_axis("change", change[1:])
    figure.update_layout(barmode="group", yaxis=axis, yaxis2=below)
    old, new = (int(run[2:].sum()) for run in runs)
    shared = comparison.change(lambda t: t.change_above(2))
    told = f"Neurons above tau in two languages or more: {old:,} before, {new:,} after"
    notes = _notes(
        comparison,
        f"Of that change {_told_nulls(shared, signs=True)}",
        f"Neurons above tau in no language: {_change_text(change[0])}",
    )
    told += f" ({_verdict(shared)})"
    return frame(figure, told, notes, plot_height=height, legend=True)


def _nulls(change: Change) -> list[tuple[str, str, np.ndarray]]:
    """What stands beside a change: its name, its symbol and its values, where there are any."""
    found = [
        ("an equal rise of all firing", "diamond-open", change.uniform),
        ("a common shift with noise", "x-thin-open", change.drift),
        ("each at its own bar", "line-ew-open", change.own_bar),
    ]
    return [row for row in found if np.isfinite(row[2]).all()]


def _told_nulls(change: Change, *, signs: bool = False) -> str:
    """``"an equal rise of all firing gives +12, noise gives +3, ..."``; `signs` are those of the
    points.
    """
    signed = {"diamond-open": " (◇)", "x-thin-open": " (×)", "line-ew-open": " (–)"}
    return listing(
        f"{name}{signed[symbol] if signs else ''} gives {count_change(float(value))}"
        for name, symbol, value in _nulls(change)
    )


def _with_nulls(change: Change) -> str:
    """A change with interval and p, and below it what its nulls give."""
    nulls = (f"{name}: {count_change(float(value))}" for name, _, value in _nulls(change))
    beyond = with_ends(
        float(change.beyond), float(change.beyond_low), float(change.beyond_high), count_change
    )
    lines = [
        entities(_change_text(change)),
        *nulls,
        f"beyond an equal rise of all firing: {beyond}",
    ]
    return "<br>".join(lines if np.isfinite(change.beyond) else lines[:-1])


@says_unit
def transitions(comparison: Comparison) -> go.Figure:
    """Draw from how many languages neurons go to how many: neurons by N before and N after.

    Returns:
        A heat map with the counts in its cells; colours are shares of the row, so that every N
        before can be read by itself. Hover gives intervals and the net flow with its p-value.
    """
    counts = comparison.transitions
    k = len(counts) - 1
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.full(counts.shape, np.nan), where=rows > 0)
    words = [[short_number(n) if n else "" for n in row] for row in counts.tolist()]
    fits = k <= 26
    cells = go.Heatmap(
        z=share,
        zmin=0,
        zmax=1,
        text=words if fits else None,
        texttemplate="%{text}" if fits else None,
        textfont={"size": 12 if k <= 11 else 9 if k <= 16 else 7},
        customdata=_told_transitions(comparison, share),
        hovertemplate="N = %{y} before, %{x} after<br>%{customdata}<extra></extra>",
        hoverongaps=False,
        colorbar={"title": {"text": "share of the row"}, "tickformat": ".0%"},
        name="transitions",
    )
    figure = go.Figure(cells)
    corners = ((i - 0.5, i + 0.5) for i in range(k + 1))
    path = "".join(f"M{low},{low}H{high}V{high}H{low}Z" for low, high in corners)
    figure.add_shape(type="path", path=path, line={"width": 1.2})
    every = 1 if k <= 16 else 5
    marks = ticks([
        f'<span style="color:{CLASS_COLOURS[kind]}">■</span>{n if n % every == 0 else ""}'
        for n, kind in enumerate(class_names(k))
    ])  # fmt: skip
    marks |= {"showgrid": False, "tickangle": 0}
    figure.update_xaxes(title="N after", range=[-0.5, k + 0.5], **marks)
    figure.update_yaxes(title="N before", range=[k + 0.5, -0.5], **marks)
    net = _change_text(comparison.change(ClassTables.net_rise))
    colours = "squares: unclassified, specific (N = 1), related, agnostic (N = K)"
    notes = _notes(
        comparison,
        f"Neurons that rise in N less those that fall: {net}",
        f"Outlined: N stays; empty rows: no neuron had this N; {colours}",
    )
    height = min(max(32 * (k + 1), 160), 620)
    return frame(figure, _title_of_moves(counts), notes, plot_height=height)


def _told_transitions(comparison: Comparison, share: np.ndarray) -> list[list[str]]:
    """What the hover says of every cell: neurons with interval, share, net flow with p."""
    told = []
    rows = comparison.to_pandas("transitions").to_dict("records")
    for row, part in zip(rows, share.ravel().tolist(), strict=True):
        ends = "" if np.isnan(row["low"]) else f" (95% {row['low']:,.0f} to {row['high']:,.0f})"
        p = f", {entities(p_equals(row['p']))}" if p_equals(row["p"]) else ""
        net = f"<br>this way less back: {count_change(float(row['net']))}{p}"
        of = "" if np.isnan(part) else f", {part:.1%} of the row"
        told.append(f"{row['neurons']:,} neurons{ends}{of}{net}")
    return np.array(told, object).reshape(share.shape).tolist()


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


@says_unit
def class_changes(
    comparison: Comparison, parts: LayerParts | Boundaries | None = None
) -> go.Figure:
    """Draw the change of specific, related and agnostic neurons in every layer.

    Args:
        comparison: before and after.
        parts: the four parts of the model before (`divide_layers`), or first and last layers. Found
            parts are shaded, and the change of every class in each is written below.

    Returns:
        A panel for each class with 95% bands, each on its own scale.

    Raises:
        LensNeuronsError: parts of another model.
    """
    n_layers, change = comparison.n_layers, comparison.change(ClassTables.class_change_by_layer)
    spans, names = _spans(parts, n_layers)
    figure, height = stack([_PANEL] * len(CLASSES), gap=_GAP, heads=CLASSES)
    for row, kind in enumerate(CLASSES, start=1):
        look = Look(CLASS_COLOURS[kind], "solid", CLASS_SYMBOLS[kind])
        _change_line(figure, np.arange(n_layers), change[:, row - 1], kind, look, row)
    figure.update_xaxes(**layer_ticks(n_layers))
    figure.update_xaxes(title="layer", row=3)
    figure.update_layout(hovermode="x unified")
    findings = _part_findings(comparison, spans, names)
    shade_layers(figure, spans, findings, rows=range(1, len(CLASSES) + 1))
    told = evidence(parts) if isinstance(parts, LayerParts) else []
    totals = comparison.change(ClassTables.class_change)
    told = [f"{capital(kind)}: {_told_nulls(totals[i])}" for i, kind in enumerate(CLASSES)] + told
    notes = _notes(comparison, "Change: neurons of the layer, after less before", *told)
    title = capital(_told_classes(comparison))
    return frame(figure, title, notes, findings=findings, plot_height=height)


def _spans(
    parts: LayerParts | Boundaries | None, n_layers: int
) -> tuple[list[tuple[int, int]], list[str]]:
    """First and last layers of the parts that were found, and their names."""
    if parts is None:
        return [], []
    if not isinstance(parts, LayerParts):
        spans = boundaries_of(parts, n_layers)
        return spans, [""] * len(spans)
    require_layers(parts, n_layers, "the comparison")
    found = parts.parts if parts.found else ()
    return [(part.first, part.last) for part in found], [f"{part.name}, " for part in found]


def _part_findings(
    comparison: Comparison, spans: list[tuple[int, int]], names: list[str]
) -> list[str]:
    """One line a part: what it is, and the change of every class in it."""
    if not spans:
        return []
    lines = []
    for number, rows in comparison.part_changes(spans).groupby("part", sort=False):
        place = int(number) - 1  # pyright: ignore[reportArgumentType]
        change = zip(rows["class"], rows["change"], rows["low"], rows["high"], strict=True)
        told = (
            f"{kind} {with_ends(*map(float, ends), write=count_change)}" for kind, *ends in change
        )
        lines.append(f"{number}  {part_label(names[place], *spans[place])}: {', '.join(told)}")
    return lines


def _told_classes(comparison: Comparison) -> str:
    """Whether each class rises or falls over all layers."""
    totals = comparison.change(ClassTables.class_change)
    named = zip(CLASSES, ("neurons", "ones", "ones"), strict=True)
    return listing(f"{kind} {noun} {_verdict(totals[i])}" for i, (kind, noun) in enumerate(named))


def checkpoint_series(series: ComparisonSeries) -> go.Figure:
    """Draw the change of specific, related and agnostic neurons since the first checkpoint.

    Returns:
        A panel for each class with 95% bands. If languages were trained, a fourth one has the
        related neurons of a language, mean over trained and over untouched ones. Checkpoints stand
        at even distances.
    """
    names, start = [series.first, *series.names], series.comparisons[0]
    groups = {"trained": start.trained, "untouched": start.untouched if start.trained else ()}
    roles = {}
    for role, codes in groups.items():
        if of := [start.languages.index(code) for code in codes]:
            roles[role] = series.change(lambda t, of=of: t.mean_change(of, "related"))
    of_roles = "related neurons of a language, mean over trained ones (solid) and untouched ones "
    heads = [*CLASSES, *([f"{of_roles}(dashed)"] if roles else [])]
    figure, height = stack([_PANEL] * len(heads), gap=_GAP, heads=heads)
    places, change = np.arange(len(names)), series.change(ClassTables.class_change)
    for row, kind in enumerate(CLASSES, start=1):
        look = Look(CLASS_COLOURS[kind], "solid", CLASS_SYMBOLS[kind])
        _change_line(figure, places, change[:, row - 1], kind, look, row)
    for role, mean in roles.items():
        _change_line(figure, places, mean, role, _ROLES[role], len(heads))
    if roles:
        figure.update_layout(yaxis4=change_axis("neurons", *roles.values()))
    step = max(1, len(names) // 16)
    figure.update_xaxes(
        tickmode="array",
        tickvals=places[::step],
        ticktext=[escape_label(name, _LONGEST) for name in names[::step]],
        range=[-0.3, len(series) + 0.3],
    )
    figure.update_xaxes(title="checkpoint (even distances)", row=len(heads))
    figure.update_layout(hovermode="x unified")
    first, last = plain(series.first, _LONGEST), series.comparisons[-1]
    told = f"Change: neurons of the whole model, less those of the first checkpoint, {first}"
    to = plain(series.names[-1], _LONGEST)
    title = f"From checkpoint {first} to {to}, {_told_classes(last)}"
    return frame(figure, title, _notes(last, told), plot_height=height, bottom=60)


def _change_line(
    figure: go.Figure, places: np.ndarray, change: Change, name: str, look: Look, row: int
) -> None:
    """Add a line of changes with its band to a panel, with its axis and zero line."""
    traces = line_with_band(places, change, name=entities(name), look=look, number="+,.1f")
    if np.isnan(change.low).any():
        traces = traces[-1:]
        traces[0].update(hovertemplate="%{fullData.name}: %{y:+,.4~g}<extra></extra>", error_y=None)
    figure.add_traces(traces, rows=row, cols=1)
    level_line(figure, row)
    figure.update_yaxes(**change_axis("neurons", change), row=row, col=1)


@says_unit
def language_changes(comparison: Comparison) -> go.Figure:
    """Draw the change of the specific and the related neurons of every language.

    Returns:
        Two panels with a row a language, trained ones first, then untouched ones and the pivot,
        and below them the means of each role; 95% intervals if there are groups.
    """
    ranks = {"trained": 0, "untouched": 1, "pivot": 2, "": 0}
    order = sorted(comparison.languages, key=lambda code: ranks[comparison.role_of(code)])
    roles = [comparison.role_of(code) for code in order]
    groups = {"trained": comparison.trained, "untouched": comparison.untouched}
    groups = groups if comparison.trained else {"all": comparison.languages}
    means = {f"mean of {name} ({len(codes)})": codes for name, codes in groups.items() if codes}
    changes = comparison.change(ClassTables.class_change_by_language)
    figure = panels([["", ""]], shared_yaxes=True, horizontal_spacing=0.04)
    for column, kind in enumerate(("specific", "related"), start=1):
        change = changes[:, column - 1]
        for role in dict.fromkeys(roles):
            rows = [row for row, one in enumerate(roles) if one == role]
            codes = [order[row] for row in rows]
            own = change[[comparison.languages.index(code) for code in codes]]
            colours = [language_colour(code) for code in codes]
            marker = {"symbol": _SYMBOLS[role], "size": 10, "color": colours}
            marker["line"] = {"width": 2, "color": colours}
            told = [f"{entities(full_name(k))}{', ' if role else ''}{role}" for k in codes]
            points = _points(own, rows, told, kind, marker)
            shown = bool(role) and column == 1
            points.update(name=role or "languages", legendgroup=role, showlegend=shown)
            figure.add_trace(points, row=1, col=column)
        for row, (name, codes) in enumerate(means.items(), start=len(order)):
            mean = _mean_change(comparison, codes, kind)[None]
            points = _points(mean, [row], [name], kind, _MEAN).update(name=name, showlegend=False)
            figure.add_trace(points, row=1, col=column)
        axis = change_axis(f"{kind} neurons, change", change)
        figure.update_xaxes(**axis, row=1, col=column)
    figure.add_vline(x=0, layer="below", line_width=1)
    figure.add_hline(y=len(order) - 0.5, line={"width": 0.7, "dash": "dot"})
    texts = [*map(language_tick, order), *means]
    height = 26 if len(texts) <= 16 else 18
    figure.update_yaxes(**ticks(texts), range=[len(texts) - 0.4, -0.6])
    figure.update_yaxes(tickfont={"size": 12 if height > 20 else 10})
    told = "Change: neurons of the language, after less before; every panel has its own scale"
    return frame(
        figure, _title_of_languages(comparison, [*means.values()]), _notes(comparison, told),
        plot_height=height * len(texts), legend=bool(comparison.trained),
    )  # fmt: skip


def _points(change: Change, rows: list[int], told: list[str], kind: str, marker: dict) -> Any:
    """Points with intervals in some rows; `told` is what the hover calls each of them."""
    return go.Scatter(
        x=change.estimate,
        y=rows,
        error_x={**error_bars(change), "color": GREY},
        mode="markers",
        marker=marker,
        customdata=[[name, _with_nulls(change[i])] for i, name in enumerate(told)],
        hovertemplate=f"%{{customdata[0]}}<br>{kind}: %{{customdata[1]}}<extra></extra>",
    )


def _title_of_languages(comparison: Comparison, groups: list[tuple[str, ...]]) -> str:
    def told(codes: tuple[str, ...], kind: str) -> str:
        return _verdict(_mean_change(comparison, codes, kind))

    if not comparison.trained:
        specific, related = (told(groups[0], kind) for kind in ("specific", "related"))
        return f"On average, specific neurons of a language {specific}, related ones {related}"
    trained, *others = (told(codes, "related") for codes in groups)
    untouched = f", of an untouched one {others[0]}" if others else ""
    return f"On average, related neurons of a trained language {trained}{untouched}"


def _mean_change(comparison: Comparison, languages: Sequence[str], kind: str) -> Change:
    places = [comparison.languages.index(language) for language in languages]
    return comparison.change(lambda t: t.mean_change(places, kind))


def _change_text(change: Change) -> str:
    """A change with interval and p-value, if there are groups."""
    value, low, high, p = (float(x) for x in (change.estimate, change.low, change.high, change.p))
    told = with_ends(value, low, high, count_change)
    return f"{told}, {p_equals(p)}" if p_equals(p) else told


def _verdict(change: Change) -> str:
    """``"rise by 12"``, ``"fall by 3"``, or that they do not measurably."""
    value, low, high = (float(x) for x in (change.estimate, change.low, change.high))
    if value == 0:
        return "do not change in number"
    told = f"{'rise' if value > 0 else 'fall'} by {count_change(abs(value)).lstrip('+')}"
    measured = np.isnan(low) or low > 0 or high < 0
    return told if measured else f"do not measurably change ({count_change(value)})"


def _notes(comparison: Comparison, *told: str) -> list[str]:
    """Models, population, bar and groups, then what else is to be said."""
    names = [
        plain("/".join(one.model.split("/")[-2:]), 40)
        for one in comparison.provenance
        if one.model != UNKNOWN
    ]
    text = plain(comparison.description)
    both = len(names) == 2 and names[0] != names[1]
    first = f"{' before, '.join(names)} after: {text}" if both else capital(text)
    bands = ["intervals: 95%, bootstrap over groups"] if comparison.n_groups > 1 else []
    sentences = [first, *told]
    return [*sentences[:-1], "; ".join([sentences[-1], *bands])]
