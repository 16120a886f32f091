"""Ways to find a language's neurons, and measures of importance, beside each other.

`method_effects` shows what removing the neurons of each method does, beside random neurons as
active; `method_overlap` how many neurons two methods share; `method_layers` where they lie.
`importance_agreement` shows how well cheap measures rank single neurons by what removing them does.

>>> ln.plots.method_effects(compared), ln.plots.importance_agreement(agreement)  # doctest: +SKIP

What these do not show: which method is right. One may find the neurons of an alphabet, another
those of a grammar; and a measure that ranks single neurons well need not rank sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.method_comparison import MethodComparison
from lensneurons.experiments.metrics import METRICS
from lensneurons.plots.ablation import as_active
from lensneurons.plots.labels import escape_label, full_name, headed, plain
from lensneurons.plots.numbers import counted, listing, share, small_share, with_ends
from lensneurons.plots.panels import Look
from lensneurons.plots.style import GREY, frame, layer_ticks, ticks
from lensneurons.uncertainty.groups import Interval

_LONGEST = 24  # characters of a method's name
_ROW = 62  # pixels of a method
# Colour-blind safe (Okabe and Ito), each with a dash and a symbol of its own.
_LOOKS = (
    Look("#0072b2"), Look("#d55e00", "dash", "square"), Look("#009e73", "dot", "diamond"),
    Look("#cc79a7", "dashdot", "triangle-up"), Look("#56b4e9", "longdash", "x"),
    Look("#e69f00", "solid", "cross"), Look("#7a8190", "dash", "star"),
    Look("#5b3794", "dot", "hexagon"), Look("#8a3800", "dashdot", "pentagon"),
    Look("#2fa5a8", "longdash", "circle-open"),
)  # fmt: skip
_OWN = "control (own): mean diagonal"
_EFFECTS = (  # figure of the matrix, entry of the legend, look
    ("mean diagonal", "own language", Look("#d55e00")),
    (_OWN, "own language, random neurons", Look(GREY, symbol="circle-open")),
    ("mean off-diagonal", "other languages", Look("#0072b2", symbol="square")),
)


def method_effects(comparison: MethodComparison, *, level: float = 0.95) -> go.Figure:
    """Draw what removing the neurons of each method does, with intervals over items.

    Args:
        comparison: what `compare_methods` gave.
        level: coverage of the intervals.

    Returns:
        A row a method: the change of its own language, the same without random neurons as active
        in it, and the mean of the other languages.

    Raises:
        LensNeuronsError: a level outside (0, 1).
    """
    matrix, names = comparison.matrix, list(comparison.sets)
    found = {name: matrix.figures(name, level=level) for name in names}
    figure = go.Figure()
    every = []
    for number, (key, told, look) in enumerate(_EFFECTS):
        ends = _stacked([found[name][key] for name in names], level)
        every.append(ends)
        rows = np.arange(len(names)) + 0.22 * (number - 1)
        figure.add_trace(_points(ends, rows, names, told, look, ".3f"))
    figure.update_xaxes(title=METRICS[matrix.metric].unit, nticks=8, range=_around(every))
    figure.update_yaxes(**_down(names))
    figure.add_vline(x=0, layer="below", line={"width": 1})
    return frame(
        figure, told_effects(comparison, level=level),
        _effects_notes(comparison, level), plot_height=_ROW * len(names), legend=True,
    )  # fmt: skip


def told_effects(comparison: MethodComparison, *, level: float = 0.95) -> str:
    """The method whose neurons do most harm beyond random ones, if any measurably does."""
    matrix = comparison.matrix
    unit, harm = METRICS[matrix.metric].short_unit, METRICS[matrix.metric].harm
    beyond = {
        name: matrix.figures(name, level=level)["beyond control (own): mean diagonal"]
        for name in comparison.sets
    }
    if all(np.isnan(float(one.low)) for one in beyond.values()):
        return "Too few items for intervals: no method can be told from random neurons"
    harms = {
        name: (harm * float(one.estimate), min(harm * float(one.low), harm * float(one.high)))
        for name, one in beyond.items()
    }
    clear = [name for name, (_, least) in harms.items() if least > 0]
    if not clear:
        return "No method's neurons harm their language measurably more than random ones do"
    best = max(clear, key=lambda name: harms[name][0])
    one = beyond[best]
    ends = with_ends(float(one.estimate), float(one.low), float(one.high))
    controls = f"random neurons {as_active(matrix, best, 'own')}"
    told = f"Neurons of {plain(best, _LONGEST)} change their own language by {ends} {unit} beyond"
    others = f", the most harm of {len(beyond)} methods" if len(beyond) > 1 else ""
    return f"{told} {controls}{others}"


def _effects_notes(comparison: MethodComparison, level: float) -> list[str]:
    matrix, first = comparison.matrix, next(iter(comparison.sets.values()))
    sizes = listing((f"{plain(k, 14)} {len(one)}" for k, one in first.items()), most=14)
    bars = matrix.too_few or f"bars: {level:.0%} intervals over {counted(matrix.n_items, 'item')}"
    return [
        headed(matrix.provenance, f"neurons of each language, as many by each method: {sizes}"),
        f"Means over {counted(len(first), 'language')}; {bars}",
        *_told_random(matrix, list(comparison.sets)),
    ]


def _told_random(matrix: AblationMatrix, names: Sequence[str]) -> list[str]:
    """How active the random neurons of each method are, a sentence for each way."""
    ways: dict[str, list[str]] = {}
    for name in names:
        ways.setdefault(as_active(matrix, name, "own"), []).append(plain(name, _LONGEST))
    if len(ways) == 1:
        return [f"Random neurons are {next(iter(ways))}"]
    return [f"Random neurons of {listing(of)} are {way}" for way, of in ways.items()]


def method_overlap(comparison: MethodComparison) -> go.Figure:
    """Draw which share of their neurons every two methods have in common.

    Args:
        comparison: what `compare_methods` gave.

    Returns:
        A heat map of Jaccard indices, means over the languages.
    """
    table, names = comparison.overlap(), list(comparison.sets)
    values = np.where(np.eye(len(names)) == 1, np.nan, table.to_numpy(float))
    labels = [escape_label(name, _LONGEST) for name in names]
    figure = go.Figure(
        go.Heatmap(
            z=values, zmin=0, zmax=float(np.nanmax(values)) or 1.0,
            text=[["" if np.isnan(v) else small_share(v) for v in row] for row in values],
            texttemplate="%{text}",
            customdata=[[[row, column] for column in labels] for row in labels],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>Jaccard %{z:.3f}<extra></extra>",
            hoverongaps=False,
            colorbar={"title": {"text": "Jaccard overlap"}},
            name="overlap",
        )
    )  # fmt: skip
    figure.update_xaxes(**ticks(labels), showgrid=False).update_yaxes(**_down(names))
    places = np.argwhere(values == np.nanmax(values))
    one, other = (plain(names[place], _LONGEST) for place in sorted(places[0]))
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    told = f"Of all pairs {one} and {other} have most neurons in common"
    title = f"{told}: Jaccard {share(most)}; the least is {share(least)}"
    if len(names) == 2:
        title = f"{one} and {other} share neurons: Jaccard {share(most)}"
    note = "Jaccard: neurons of both / neurons of either; mean over the languages"
    notes = [headed(comparison.matrix.provenance, note)]
    return frame(figure, title, notes, plot_height=min(max(46 * len(names), 160), 560))


def method_layers(comparison: MethodComparison) -> go.Figure:
    """Draw how many of its neurons each method finds in each layer, over all languages.

    Args:
        comparison: what `compare_methods` gave.
    """
    table, names = comparison.layer_profile(), list(comparison.sets)
    figure = go.Figure()
    for name, look in zip(names, _looks(len(names)), strict=True):
        figure.add_scatter(
            x=table.index.to_numpy(), y=table[name].to_numpy(), mode="lines+markers",
            name=escape_label(name, _LONGEST), line={"color": look.colour, "dash": look.dash},
            marker={"symbol": look.symbol, "size": 7}, cliponaxis=False,
            hovertemplate="%{fullData.name}: %{y:,}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="layer", **layer_ticks(len(table)))
    figure.update_yaxes(title="neurons", rangemode="tozero")
    figure.update_layout(hovermode="x unified")
    middle = {}
    for name in names:
        running = table[name].to_numpy().cumsum()
        middle[name] = int(np.searchsorted(running, running[-1] / 2))
    early, late = (f(names, key=lambda name: middle[name]) for f in (min, max))
    title = (
        f"Each method has half of its neurons by layer {middle[early]}"
        if middle[early] == middle[late]
        else f"{plain(early, _LONGEST)} has half of its neurons by layer {middle[early]}, "
        f"{plain(late, _LONGEST)} by layer {middle[late]}"
    )
    languages = listing(full_name(k) for k in next(iter(comparison.sets.values())))
    notes = [headed(comparison.matrix.provenance, f"all neurons of {languages} together")]
    return frame(figure, title, notes, plot_height=300, legend=True)


def importance_agreement(agreement: MethodAgreement, *, level: float = 0.95) -> go.Figure:
    """Draw how well each measure ranks single neurons by what removing them does.

    Args:
        agreement: what `lensneurons.cards.importance_agreement` gave.
        level: coverage of the intervals, a bootstrap over neurons.

    Returns:
        A row a measure: the rank correlation of sizes, that of signed changes where the measure
        predicts any, and the recall of the largest effects; means over the languages.

    Raises:
        LensNeuronsError: fewer neurons than an agreement takes, or a level outside (0, 1).
    """
    table = agreement.to_pandas(level=level)
    rows = table[table["language"] == "all"].set_index("method")
    names = [str(name) for name in rows.index]
    chance = float(rows["chance"].iloc[0])
    kinds = (
        ("spearman", "rank correlation of sizes", Look("#0072b2")),
        ("signed", "of signed changes", Look("#56b4e9", symbol="circle-open")),
        ("recall", f"recall of the largest {chance:.0%}", Look("#d55e00", symbol="square")),
    )
    figure, every, found = go.Figure(), [], {}
    for number, (key, told, look) in enumerate(kinds):
        ends = found[key] = _of_column(rows, key, level)
        every.append(ends)
        places = np.arange(len(names)) + 0.22 * (number - 1)
        figure.add_trace(_points(ends, places, names, told, look, ".2f"))
    low = min(0.0, *(float(np.nanmin(one.low, initial=0.0)) for one in every))
    figure.add_vline(x=chance, layer="below", line={"width": 1, "dash": "dot"})
    figure.update_xaxes(title="agreement with removal, 1 is perfect", range=[low - 0.03, 1.03])
    figure.update_yaxes(**_down(names))
    used = counted(len(agreement.neurons), "neuron")
    told = f"{used} removed one by one; means over {listing(map(full_name, agreement.languages))}"
    notes = [
        headed(agreement.provenance, told),
        f"Bars: {level:.0%} intervals over neurons; dotted: the recall that chance gives",
    ]
    if not np.isnan(agreement.plain_seconds):
        costs = (f"{plain(name)} {cost:.3g}" for name, cost in rows["cost"].items())
        notes.append(f"Cost, in plain passes over the texts: {listing(costs)}")
    title = _told_spearman(names, found["spearman"])
    return frame(figure, title, notes, plot_height=_ROW * len(names), legend=True)


def told_agreement(agreement: MethodAgreement) -> str:
    """The measure that ranks best, in a sentence."""
    table = agreement.to_pandas()
    rows = table[table["language"] == "all"].set_index("method")
    return _told_spearman([*map(str, rows.index)], _of_column(rows, "spearman", 0.95))


def _of_column(rows: Any, name: str, level: float) -> Interval:
    """A column of a table of agreements with its ends."""
    estimate, low, high = (rows[f"{name}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    return Interval.of(estimate, low, high, level, "bootstrap")


def _told_spearman(names: Sequence[str], found: Interval) -> str:
    """The measure that ranks best, and whether others do measurably worse."""
    if not np.isfinite(found.estimate).any():
        return "No measure tells the neurons of this sample apart"
    best = int(np.nanargmax(found.estimate))
    estimate, low, high = (float(one[best]) for one in (found.estimate, found.low, found.high))
    ends = with_ends(estimate, low, high, share)
    near = sum(bool(high >= found.low[best]) for high in np.delete(found.high, best))
    told = f"{plain(names[best])} ranks neurons most as their removal does: {ends}"
    if len(names) == 1:
        return f"{plain(names[best])} ranks neurons as their removal does: {ends}"
    return f"{told}; intervals of {near} of {len(names) - 1} others overlap with it"


def _looks(number: int) -> list[Look]:
    """As many looks as there are methods; they begin anew after ten."""
    return [_LOOKS[place % len(_LOOKS)] for place in range(number)]


def _stacked(found: Sequence[Interval], level: float) -> Interval:
    """Numbers with their ends, one after the other."""
    middle, low, high = np.array([(one.estimate, one.low, one.high) for one in found], float).T
    return Interval.of(middle, low, high, level, found[0].method)


def _points(
    ends: Interval, rows: np.ndarray, names: Sequence[str], told: str, look: Look, number: str
) -> go.Scatter:
    """Points with bars, one a row; a number without an interval has no bar."""
    middle, low, high = ends.estimate, ends.low, ends.high
    bars: dict[str, Any] = {"array": high - middle, "arrayminus": middle - low, "width": 4}
    labels = [escape_label(name, _LONGEST) for name in names]
    return go.Scatter(
        x=middle, y=rows, mode="markers", name=told,
        error_x={**bars, "thickness": 1.5, "color": look.colour},
        marker={"color": look.colour, "symbol": look.symbol, "size": 9},
        customdata=[[label, a, b] for label, a, b in zip(labels, low, high, strict=True)],
        hovertemplate=f"%{{customdata[0]}}<br>%{{fullData.name}}: %{{x:{number}}} "
        f"(%{{customdata[1]:{number}}} to %{{customdata[2]:{number}}})<extra></extra>",
    )  # fmt: skip


def _around(every: Sequence[Interval]) -> list[float]:
    """Ends of an axis that shows all numbers with their intervals, and 0."""
    ends = np.concatenate([[0.0], *(np.ravel([x.estimate, x.low, x.high]) for x in every)])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = 0.05 * (high - low) or 1.0
    return [low - room, high + room]


def _down(names: Sequence[str]) -> dict[str, Any]:
    """The settings of a vertical axis of methods, the first one above."""
    labels = [escape_label(name, _LONGEST) for name in names]
    return {**ticks(labels), "range": [len(names) - 0.5, -0.5], "showgrid": False}
