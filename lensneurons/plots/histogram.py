"""In how many languages neurons are active: the histogram of N, of one model or before and after.

N = 0 is unclassified, 1 language-specific, 2 to K - 1 language-related, K language-agnostic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.plots.axes import count_axis, on_axis
from lensneurons.plots.labels import counted, plain, short_number
from lensneurons.plots.style import CLASS_COLOURS, frame, population_note
from lensneurons.shapes import Histogram


def language_histogram(
    neurons: LanguageNeurons, *, before: LanguageNeurons | None = None
) -> go.Figure:
    """How many neurons of the population exceed tau in N = 0, 1, ..., K languages.

    Args:
        neurons: the identified neurons; their population is the one that is counted.
        before: the neurons before a change such as alignment, drawn beside them from the same
            kind of population.

    Returns:
        Bars with their counts; the axis is logarithmic where counts differ much.

    Raises:
        LensNeuronsError: `before` is about other languages.
    """
    if before is not None and set(before.languages) != set(neurons.languages):
        raise LensNeuronsError(
            f"before is about {sorted(before.languages)}, the neurons about "
            f"{sorted(neurons.languages)}: a histogram of N compares the same languages"
        )
    shown = {"after" if before else "": neurons.histogram()}
    if before is not None:
        shown = {"before": before.histogram(neurons.population), **shown}
    axis = count_axis(np.concatenate([*shown.values()]), "neurons")
    k = len(neurons.languages)
    figure = go.Figure([_bars(name, counts, axis, len(shown)) for name, counts in shown.items()])
    figure.add_traces(_class_key(shown))
    ticks = {"tick0": 0, "dtick": 1, "range": [-0.6, k + 0.6]}
    figure.update_xaxes(title="N, number of languages with p > tau", showgrid=False, **ticks)
    figure.update_yaxes(**axis)
    figure.update_layout(barmode="group", uniformtext={"minsize": 9, "mode": "show"})
    title = _title(neurons) if before is None else _title_of_change(before, neurons)
    return frame(figure, title, _subtitle(neurons, before), legend=True)


def _classes(k: int) -> list[str]:
    """Class of N = 0, 1, ..., K."""
    return ["unclassified", "specific", *["related"] * (k - 2), "agnostic"]


def _bars(name: str, histogram: Histogram, axis: dict[str, Any], groups: int) -> go.Bar:
    bars = groups * len(histogram)
    classes = _classes(len(histogram) - 1)
    return go.Bar(
        x=np.arange(len(histogram)),
        y=on_axis(histogram, axis),
        customdata=[[f"{n:,}", kind] for n, kind in zip(histogram, classes, strict=True)],
        text=[short_number(n) if bars > 13 else f"{n:,}" for n in histogram.tolist()],
        textposition="outside",
        textangle=-90 if bars > 32 else 0,
        textfont={"size": 11},
        cliponaxis=False,
        name=name,
        showlegend=False,
        marker={
            "color": [CLASS_COLOURS[kind] for kind in classes],
            "pattern": {"shape": "/" if name == "before" else "", "size": 6, "solidity": 0.35},
        },
        hovertemplate=f"N = %{{x}}, %{{customdata[1]}}<br>%{{customdata[0]}} neurons"
        f"<extra>{name}</extra>",
    )


def _class_key(shown: dict[str, Histogram]) -> list[go.Scatter]:
    """Entries of the legend: the classes that K has, then before and after by pattern."""
    classes = dict.fromkeys(_classes(len(next(iter(shown.values()))) - 1))
    entries = [(name, CLASS_COLOURS[name], "square") for name in classes]
    if len(shown) > 1:
        entries += [
            ("before: striped", "#7a8190", "hash-open"),
            ("after: solid", "#7a8190", "square"),
        ]
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "color": colour, "size": 11},
            hoverinfo="skip",
        )
        for name, colour, symbol in entries
    ]


def _title(neurons: LanguageNeurons) -> str:
    histogram = neurons.histogram()
    many = [histogram[1], histogram[2:-1].sum(), histogram[-1], histogram[0]]
    if not histogram[1:].any():
        return f"All {counted(int(histogram[0]), 'neuron')} are unclassified: none exceeds tau"
    specific, related, agnostic, neither = (f"{int(n):,}" if n else "no" for n in many)
    middle = "" if len(histogram) == 3 else f" {related} related,"
    last = f"{agnostic} agnostic and {neither} unclassified neurons"
    return f"{specific} specific,{middle} {last}".capitalize()


def _title_of_change(before: LanguageNeurons, after: LanguageNeurons) -> str:
    old = int(before.histogram(after.population)[2:].sum())
    new = int(after.histogram()[2:].sum())
    return f"Neurons above tau in two languages or more: {old:,} before, {new:,} after"


def _subtitle(neurons: LanguageNeurons, before: LanguageNeurons | None) -> list[str]:
    own = population_note(neurons)
    if before is None:
        return [own]
    first = population_note(before.with_population(neurons.population))
    same = before.tau == neurons.tau
    each = "Each model has its own tau, so the share of p > tau is fixed: identify(..., tau=...)"
    return [f"Before: {first}", f"After: {own}", plain("One shared tau" if same else each)]
