"""What drives one neuron: its strongest edges from earlier neurons, as a small graph.

>>> ln.plots.neuron_edges(edges, "zh")                                     # doctest: +SKIP

What it does not show: edges among the earlier neurons, and what reaches the neuron through others.
Lines are as thick as an edge is strong; the hover has its interval, and what is lost where it is
cut.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lensneurons.cards.edges import NeuronEdges
from lensneurons.errors import choose
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.plots.labels import full_name, headed
from lensneurons.plots.numbers import signed, with_ends
from lensneurons.plots.style import GREY, frame

_RAISES, _LOWERS = "#2a70ae", "#d55e00"
_THICKEST = 9.0


def neuron_edges(
    edges: NeuronEdges, language: str | None = None, *, neurons: LanguageNeurons | None = None
) -> go.Figure:
    """Draw the strongest edges into one neuron, by layer.

    Args:
        edges: what `lensneurons.cards.neuron_edges` gives.
        language: in which; None for that of the strongest edge.
        neurons: what tells the classes of the sources.

    Returns:
        Sources by layer, each with a line to the target; solid blue where it raises the argument,
        dashed orange where it lowers it.

    Raises:
        LensNeuronsError: the edges have no such language.
    """
    strength = edges.strength
    if language is None:
        language = edges.languages[int(np.abs(strength).max(axis=0).argmax())]
    place = edges.languages.index(choose(language, edges.languages, "language"))
    own = strength[:, place]
    most = float(np.abs(own).max()) or 1.0
    layers = [int(name[1:].split("N")[0]) for name in edges.edges]
    last = int(edges.target[1:].split("N")[0])
    order = np.lexsort(np.stack([-own, np.array(layers, float)])).tolist()
    heights = np.linspace(1, -1, len(order)) if len(order) > 1 else np.zeros(1)
    figure = go.Figure()
    for height, number in zip(heights.tolist(), order, strict=True):
        name, value = edges.edges[number], float(own[number])
        told = with_ends(
            value, float(edges.low[number, place]), float(edges.high[number, place]), signed
        )
        sort = "" if neurons is None else f"<br>{neurons.class_of(name)}"
        cut = float(edges.cut[number, place])
        lost = "" if np.isnan(cut) else f"<br>lost where it is cut: {signed(cut)}"
        raises = value >= 0
        figure.add_scatter(
            x=[layers[number], last], y=[height, 0], mode="lines+markers",
            line={
                "color": _RAISES if raises else _LOWERS, "dash": "solid" if raises else "dash",
                "width": max(0.8, _THICKEST * abs(value) / most),
            },
            marker={"size": [9, 1]}, opacity=0.8, showlegend=False, name=name,
            hovertemplate=f"{name}{sort}<br>{told}{lost}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(  # above all lines
        x=[layers[number] for number in order], y=heights, mode="text",
        text=[f"{edges.edges[number]} {signed(float(own[number]))}" for number in order],
        textposition="top center", showlegend=False, hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=[last], y=[0], mode="markers+text", marker={"size": 16, "color": GREY},
        text=[edges.target], textposition="middle right", showlegend=False, name=edges.target,
        hovertemplate=f"{edges.target}<br>argument {signed(float(edges.argument[place]))}"
        "<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="layer", range=[min(layers) - 0.7, last + 0.9], dtick=1)
    figure.update_yaxes(visible=False, range=[-1.25, 1.3])
    strongest = int(np.abs(own).argmax())
    verb = "raises" if own[strongest] >= 0 else "lowers"
    title = (
        f"{edges.edges[strongest]} {verb} the argument of {edges.target} most in "
        f"{full_name(language)}: {signed(float(own[strongest]))} of a mean of "
        f"{signed(float(edges.argument[place]))}"
    )
    every = float(edges.value[..., place].sum())
    notes = [
        headed(edges.provenance, f"edges into {edges.target}, {len(edges.edges)} of the strongest"),
        f"Units of hook_pre, mean over tokens; all earlier neurons together {signed(every)}, "
        f"embeddings and biases {signed(float(edges.rest[place]))}",
        "Attention patterns and norms as they were; dashed orange: lowers the argument",
    ]
    return frame(figure, title, notes, plot_height=max(220, 40 * len(edges.edges)))
