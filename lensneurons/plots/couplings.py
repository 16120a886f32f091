"""How alike a model answers an item and its translation: by layer and class, and by language pair.

>>> found = ln.comparison.coupling(items, neurons)                         # doctest: +SKIP
>>> ln.plots.coupling(found), ln.plots.language_coupling(found)            # doctest: +SKIP

What these do not show: what is shared. Topic, length and digits couple neurons as meaning does
(`lensneurons.comparison.coupled_neurons`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go

from lensneurons.comparison.coupled_neurons import Coupling
from lensneurons.plots.labels import entities, full_name, headed
from lensneurons.plots.numbers import counted, share, small_change, with_ends
from lensneurons.plots.panels import Look, level_line, line_with_band, stack
from lensneurons.plots.style import (
    CLASS_COLOURS,
    CLASS_SYMBOLS,
    frame,
    language_ticks,
    layer_ticks,
)
from lensneurons.uncertainty.groups import Interval

_ALL = "#b8569f"
_MOST_WRITTEN = 32  # languages whose numbers fit into the cells
_DASHES = {"specific": "dash", "related": "dot", "agnostic": "dashdot", "unclassified": "longdash"}


def coupling(found: Coupling) -> go.Figure:
    """Draw the mean coupling of the neurons of every layer, by class.

    Args:
        found: what `lensneurons.comparison.coupling` gave.

    Returns:
        A line a class with the band of its intervals; dotted: the mean of shuffled items.
    """
    figure, height = stack([320], gap=0)
    layers, every = np.arange(found.estimate.shape[1] - 1), []
    for place, name in enumerate(found.classes):
        ends = Interval.of(
            found.estimate[place, :-1], found.low[place, :-1], found.high[place, :-1],
            found.level, "jackknife",
        )  # fmt: skip
        if not np.isfinite(ends.estimate).any():
            continue  # no neuron of this class
        every.append(ends)
        look = Look(
            CLASS_COLOURS.get(name, _ALL), _DASHES.get(name, "solid"),
            CLASS_SYMBOLS.get(name, "cross"),
        )  # fmt: skip
        told = "all neurons" if name == "all" else name
        for number, run in enumerate(_runs(np.isfinite(ends.estimate))):
            part = replace(
                ends, estimate=ends.estimate[run], low=ends.low[run], high=ends.high[run]
            )
            drawn = line_with_band(layers[run], part, name=told, look=look, number=".2f")
            drawn[-1].update(showlegend=number == 0)
            figure.add_traces(drawn)
    figure.update_xaxes(title="layer", **layer_ticks(len(layers)))
    least = min([0.0, *(float(np.nanmin(one.low)) for one in every)])
    most = max([0.1, *(float(np.nanmax(one.high)) for one in every)])
    ends = [least - 0.03, most + 0.03]
    figure.update_yaxes(title="coupling, mean correlation", range=ends, nticks=6)
    if every:
        level_line(figure, 1, float(np.nanmean(found.null[0])), "dot")
    figure.update_layout(hovermode="x unified")
    return frame(figure, told_coupling(found), _notes(found), plot_height=height, legend=True)


def _runs(known: np.ndarray) -> list[slice]:
    """The runs of layers that have a number, so that no band spans one without."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def told_coupling(found: Coupling) -> str:
    """The layer that couples most over all neurons, if any does measurably."""
    estimate, low, high = (getattr(found, name)[0, :-1] for name in ("estimate", "low", "high"))
    if not np.isfinite(estimate).any() or not (low > 0).any():
        return "In no layer are an item and its translation answered alike, measurably"
    best = int(np.nanargmax(estimate))
    ends = with_ends(float(estimate[best]), float(low[best]), float(high[best]), share)
    least = int(np.nanargmin(estimate))
    told = f"An item and its translation are answered most alike in layer {best}: {ends}"
    return told if best == least else f"{told}, least in layer {least}: {share(estimate[least])}"


def _notes(found: Coupling) -> list[str]:
    names = {"pearson": "Pearson's", "spearman": "Spearman's"}
    items = counted(found.n_items, "item")
    told = f"{names[found.measure]} correlation over {items} of a neuron's activations in two"
    notes = [
        headed(found.provenance, f"{told} of {len(found.languages)} languages, mean over pairs"),
        f"Bands: {found.level:.0%} intervals over items; dotted: {found.draws} shuffles of items",
    ]
    if undefined := int(found.undefined.sum()):
        notes.append(f"Left out, the same for all items: {counted(undefined, 'neuron')}")
    return notes


def language_coupling(found: Coupling) -> go.Figure:
    """Draw how coupled the neurons are between every two languages, over all layers.

    Args:
        found: what `lensneurons.comparison.coupling` gave.

    Returns:
        A heat map of mean correlations, with intervals in the hover.
    """
    languages, k = found.languages, len(found.languages)
    values = np.where(np.eye(k) == 1, np.nan, found.pair_estimate)
    names = [entities(full_name(code)) for code in languages]
    told = np.stack([found.pair_low, found.pair_high, found.pair_p], axis=-1)
    written = [["" if np.isnan(v) else small_change(v) for v in row] for row in values]
    known = np.isfinite(values).any()
    figure = go.Figure(
        go.Heatmap(
            z=values,
            zmin=min(0.0, float(np.nanmin(values))) if known else 0.0,
            zmax=(float(np.nanmax(values)) or 1.0) if known else 1.0,
            text=written if k <= _MOST_WRITTEN else None,
            texttemplate="%{text}" if k <= _MOST_WRITTEN else None,
            textfont={"size": 12 if k <= 14 else 9},
            customdata=[
                [[a, b, *told[i, j].tolist()] for j, b in enumerate(names)]
                for i, a in enumerate(names)
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>coupling %{z:.3f} "
            "(%{customdata[2]:.3f} to %{customdata[3]:.3f}), p %{customdata[4]:.3f}<extra></extra>",
            hoverongaps=False,
            colorbar={"title": {"text": "coupling"}},
            name="pairs",
        )
    )
    figure.update_xaxes(**language_ticks(languages))
    figure.update_yaxes(**language_ticks(languages, down=True))
    height = min(max(34 * k, 200), 620)
    return frame(figure, _pairs_title(found, values), _notes(found), plot_height=height)


def _pairs_title(found: Coupling, values: np.ndarray) -> str:
    """The pairs of languages that are coupled most and least."""
    if not np.isfinite(values).any():
        return "No neuron differs between items in every language"

    def pair(place: int) -> str:
        one, two = sorted(divmod(place, len(values)))
        return f"{full_name(found.languages[one])} and {full_name(found.languages[two])}"

    def ends(place: int) -> str:
        parts = (found.pair_estimate, found.pair_low, found.pair_high)
        estimate, low, high = (float(part.flat[place]) for part in parts)
        return with_ends(estimate, low, high, share)

    most, least = int(np.nanargmax(values)), int(np.nanargmin(values))
    if len(values) == 2:
        return f"Neurons answer items in {pair(most)} with a coupling of {ends(most)}"
    told = f"{pair(most)} are coupled most: {ends(most)}"
    return f"{told}; least {pair(least)}: {ends(least)}"
