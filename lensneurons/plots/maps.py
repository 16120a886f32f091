"""Where the neurons of each language sit: a map of layers and languages, and a zoom into a layer.

The map of a model counts neurons, so its size does not depend on their number; the zoom shows one
layer neuron by neuron.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import CLASSES, LanguageNeurons
from lensneurons.plots.labels import counted, entities, full_name, listing, spans
from lensneurons.plots.style import (
    CLASS_COLOURS,
    frame,
    language_ticks,
    layer_ticks,
    note,
    population_note,
)
from lensneurons.shapes import FlatNeurons

MOST_NEURONS = 600
_MOST_NAMES = 32  # neurons whose names fit on the axis
_ABOVE = ("#7db8e8", "#2f7fc2", "#17508f")


def neuron_map(neurons: LanguageNeurons, layer: int | None = None) -> go.Figure:
    """Where the language neurons of the population are, by layer and language.

    Args:
        neurons: the identified neurons; their population is the one that is shown.
        layer: zoom into this layer: one row a classified neuron, one column a language. Of more
            than 600 neurons 600 are shown, evenly spaced in the order of the figure.

    Returns:
        A heat map of counts, or of the probabilities of one layer.

    Raises:
        LensNeuronsError: the model has no such layer.
    """
    if layer is None:
        return _model_map(neurons)
    if not 0 <= layer < neurons.n_layers:
        raise LensNeuronsError(
            f"layer {layer} is outside a model of {neurons.n_layers} layers: "
            f"0 to {neurons.n_layers - 1}"
        )
    return _layer_map(neurons, layer)


def _model_map(neurons: LanguageNeurons) -> go.Figure:
    specific, related = (_by_layer(neurons, code) for code in (1, 2))
    total = specific + related
    names = [entities(full_name(code)) for code in neurons.languages]
    details = [
        [[name, *cell] for cell in zip(*row, strict=True)]
        for name, *row in zip(
            names, total.tolist(), specific.tolist(), related.tolist(), strict=True
        )
    ]
    least, most = int(total.min()), max(int(total.max()), int(total.min()) + 1)
    marks = _marks(least, most)
    figure = go.Figure(
        go.Heatmap(
            z=np.log1p(total).astype(np.float32),
            zmin=float(np.log1p(least)),
            zmax=float(np.log1p(most)),
            customdata=details,
            hovertemplate="%{customdata[0]}, layer %{x}<br>%{customdata[1]:,} neurons: "
            "%{customdata[2]:,} specific, %{customdata[3]:,} related<extra></extra>",
            colorbar={
                "title": {"text": "neurons (log scale)"},
                "tickvals": np.log1p(marks),
                "ticktext": [f"{mark:,}" for mark in marks],
            },
        )
    )
    figure.update_xaxes(**layer_ticks(neurons.n_layers), showgrid=False)
    k = len(neurons.languages)
    ends = {"range": [k - 0.5, -0.5], "showgrid": False}
    figure.update_yaxes(title="language", **language_ticks(neurons.languages), **ends)
    told = "Each cell: specific and related neurons of a language; a related one counts for several"
    height = min(max(24 * k, 150), 560)
    return frame(figure, _title(neurons), [population_note(neurons), told], plot_height=height)


def _marks(least: int, most: int) -> list[int]:
    """Ticks of a log1p scale: both ends, and 1, 3, 10, ... where they have room between them."""
    room = 0.06 * (np.log1p(most) - np.log1p(least))
    steps = [step * 10**power for power in range(7) for step in (1, 3)]
    between = [m for m in steps if np.log1p(least) + room < np.log1p(m) < np.log1p(most) - room]
    return [least, *between, most]


def _by_layer(neurons: LanguageNeurons, code: int) -> np.ndarray:
    """int64 [language, layer]: neurons of a class and of the population above tau in a language."""
    chosen = (neurons.class_codes == code) & neurons.counted
    above = (neurons.probability > neurons.tau) & chosen[..., None]
    return above.sum(axis=1).T.astype(np.int64)


def _title(neurons: LanguageNeurons) -> str:
    per_layer = neurons.layer_profile()[:, :2].sum(axis=1)
    if not per_layer.any():
        return "No neuron of this population is specific or related to a language"
    order = np.argsort(-per_layer, kind="stable")
    enough = int(np.searchsorted(np.cumsum(per_layer[order]), per_layer.sum() / 2)) + 1
    layers = sorted(order[:enough].tolist())
    share = per_layer[layers].sum() / per_layer.sum()
    place = f"{enough} of {counted(neurons.n_layers, 'layer')}"
    where = spans(layers) or "scattered over the model"
    where = f"layer {where}" if enough == 1 else where
    return f"{share:.0%} of the specific and related neurons are in {place}: {where}"


def _layer_map(neurons: LanguageNeurons, layer: int) -> go.Figure:
    order = _in_order(neurons, layer)
    shown = order[_evenly(len(order), MOST_NEURONS)]
    if not len(order):
        return _empty_layer(neurons, layer)
    specific, related, agnostic = neurons.layer_profile()[layer].tolist()
    title = f"Layer {layer}: {listing(_numbers(specific, related, agnostic))}"
    subtitle = [population_note(neurons), _rule(len(order), len(shown))]
    figure = go.Figure([_strip(neurons, layer, shown), _cells(neurons, layer, shown)])
    figure.add_traces(_class_key(neurons, layer, shown))
    _place(figure, neurons, len(shown))
    height = 420 if len(shown) > _MOST_NAMES else max(15 * len(shown), 150)
    return frame(figure, title, subtitle, plot_height=height, legend=True)


def _empty_layer(neurons: LanguageNeurons, layer: int) -> go.Figure:
    figure = note(go.Figure(), "No neuron of this layer and population exceeds tau")
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    title = f"Layer {layer} has no classified neuron in this population"
    return frame(figure, title, [population_note(neurons)], plot_height=150)


def _numbers(specific: int, related: int, agnostic: int) -> list[str]:
    names = ("specific neuron", "related neuron", "agnostic neuron")
    return [counted(n, name) for n, name in zip((specific, related, agnostic), names, strict=True)]


def _rule(total: int, shown: int) -> str:
    order = "rows by class, then by strongest language, then by its p"
    if shown < total:
        return f"{shown:,} of {total:,} classified neurons, evenly spaced in this order: {order}"
    return f"Every classified neuron; {order}"


def _in_order(neurons: LanguageNeurons, layer: int) -> FlatNeurons:
    """Classified neurons of a layer: by class, strongest language, falling probability."""
    codes = neurons.class_codes[layer]
    chosen = np.flatnonzero((codes > 0) & neurons.counted[layer])
    p = neurons.probability[layer, chosen]
    strongest = p.argmax(axis=1) * (codes[chosen] < 3)  # agnostic ones are of no language
    return chosen[np.lexsort((-p.max(axis=1), strongest, codes[chosen]))]


def _evenly(number: int, most: int) -> FlatNeurons:
    """`most` of `number` places, evenly spaced with both ends, or all of them."""
    if number <= most:
        return np.arange(number, dtype=np.int64)
    return np.round(np.linspace(0, number - 1, most)).astype(np.int64)


def _strip(neurons: LanguageNeurons, layer: int, shown: FlatNeurons) -> go.Heatmap:
    """A narrow column with the class of every row."""
    codes = neurons.class_codes[layer, shown]
    above = neurons.probability[layer, shown] > neurons.tau
    owners = [
        entities(
            listing(
                [
                    full_name(k)
                    for k, is_above in zip(neurons.languages, row, strict=True)
                    if is_above
                ],
                4,
            )
        )
        for row in above
    ]
    colours = [CLASS_COLOURS[name] for name in CLASSES]
    return go.Heatmap(
        z=codes[:, None].astype(np.int8),
        y=_names(layer, shown),
        x=[0],
        zmin=-0.5,
        zmax=3.5,
        colorscale=[[(i + j) / 4, c] for i, c in enumerate(colours) for j in (0, 1)],
        showscale=False,
        xgap=0,
        ygap=0,
        name="class",
        customdata=[[[CLASSES[c], o]] for c, o in zip(codes, owners, strict=True)],
        hovertemplate="%{y}: %{customdata[0]}<br>above tau in %{customdata[1]}<extra></extra>",
    )


def _cells(neurons: LanguageNeurons, layer: int, shown: FlatNeurons) -> go.Heatmap:
    """Probabilities of the rows; the colours jump at tau."""
    tau = min(max(neurons.tau, 0.0), 1.0)
    below = [[0.0, "rgba(128,134,145,.04)"], [tau, "rgba(128,134,145,.38)"]]
    ends = [end for end in (0, 1) if abs(end - tau) > 0.08]  # room for the label of tau
    above = [[tau + (1 - tau) * i / 2, colour] for i, colour in enumerate(_ABOVE)]
    return go.Heatmap(
        z=neurons.probability[layer, shown].astype(np.float32),
        y=_names(layer, shown),
        x=np.arange(len(neurons.languages)),
        xaxis="x2",
        zmin=0,
        zmax=1,
        colorscale=below + above,
        xgap=1,
        ygap=1 if len(shown) <= _MOST_NAMES else 0,
        name="probability",
        hovertemplate="%{y}, %{x}<br>p = %{z:.4f}<extra></extra>",
        colorbar={
            "title": {"text": "activation probability p"},
            "tickvals": [neurons.tau, *ends],
            "ticktext": [f"tau {neurons.tau:.2f}", *map(str, ends)],
        },
    )


def _names(layer: int, shown: FlatNeurons) -> list[str]:
    return [f"L{layer}N{neuron}" for neuron in shown]


def _class_key(neurons: LanguageNeurons, layer: int, shown: FlatNeurons) -> list[go.Scatter]:
    there = np.unique(neurons.class_codes[layer, shown])
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=CLASSES[code],
            marker={"symbol": "square", "color": CLASS_COLOURS[CLASSES[code]], "size": 11},
            hoverinfo="skip",
        )
        for code in there
    ]


def _place(figure: go.Figure, neurons: LanguageNeurons, rows: int) -> None:
    """The axes of the zoom: a strip of classes left of the languages, rows from the top."""
    k = len(neurons.languages)
    few = rows <= _MOST_NAMES
    figure.update_layout(
        xaxis={"domain": [0, 0.02], "visible": False},
        xaxis2={
            **language_ticks(neurons.languages),
            "title": "language",
            "domain": [0.03, 1],
            "range": [-0.5, k - 0.5],
            "showgrid": False,
        },
        yaxis={
            "type": "category",
            "autorange": "reversed",
            "title": "neuron" if few else "neurons",
            "showticklabels": few and rows > 0,
            "showgrid": False,
        },
    )
    if few and rows:
        figure.update_yaxes(dtick=1)
