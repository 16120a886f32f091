"""One neuron: how often it is active in each language, against tau (Figure 1 of arXiv 2505.21505).

What this does not show: that the neuron matters for a language; see the interventions for that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import flat_index
from lensneurons.plots.labels import entities, full_name, listing, plain
from lensneurons.plots.style import frame, language_colour, language_ticks, population_note
from lensneurons.uncertainty.groups import Interval, jackknife


def neuron_probabilities(
    neurons: LanguageNeurons, name: str, *, statistics: ActivationStatistics | None = None
) -> go.Figure:
    """The activation probability of one neuron in every language, against tau.

    Args:
        neurons: the identified neurons.
        name: a neuron such as ``"L12N345"``.
        statistics: what they were identified from; counts in two or more groups of items give
            every bar a 95% jackknife interval.

    Returns:
        One bar a language in its colour, pale where p does not exceed tau.

    Raises:
        LensNeuronsError: no such neuron, or statistics of other neurons or languages.
    """
    layer, neuron = divmod(flat_index(name, neurons.n_layers, neurons.d_mlp), neurons.d_mlp)
    p = neurons.probability[layer, neuron]
    interval = None if statistics is None else _interval(statistics, neurons, layer, neuron)
    figure = go.Figure(_bars(neurons, p, interval))
    figure.add_hline(y=neurons.tau, line={"dash": "dash", "width": 1.5})
    figure.add_annotation(
        text=f"tau {neurons.tau:.4f}", x=1,
        xshift=6, xref="paper", y=neurons.tau, xanchor="left",
        yanchor="middle", showarrow=False,
    )  # fmt: skip
    ends = {"range": [-0.6, len(p) - 0.4], "showgrid": False}
    figure.update_xaxes(title="language", **language_ticks(neurons.languages), **ends)
    top = max(1.0, float(p.max())) * 1.07
    figure.update_layout(margin={"r": 96})
    figure.update_yaxes(title="activation probability p", range=[0, top], tickformat=".1f")
    subtitle = [_selection(neurons, layer, neuron), _precision(statistics, interval)]
    return frame(figure, _title(neurons, name), [population_note(neurons), "; ".join(subtitle)])


def _bars(neurons: LanguageNeurons, p: np.ndarray, interval: Interval | None) -> go.Bar:
    colours = [language_colour(code) for code in neurons.languages]
    named = [entities(full_name(code)) for code in neurons.languages]
    hover = "%{customdata[0]}<br>p = %{y:.4f}, %{customdata[1]} tau"
    details = [
        [n, "above" if value > neurons.tau else "not above"]
        for n, value in zip(named, p, strict=True)
    ]
    errors = None
    if interval is not None:
        low, high = np.clip(interval.low, 0, 1), np.clip(interval.high, 0, 1)
        hover += "<br>95% interval %{customdata[2]:.4f} to %{customdata[3]:.4f}"
        details = [
            [*row, a, b] for row, a, b in zip(details, low.tolist(), high.tolist(), strict=True)
        ]
        up, down = np.maximum(high - p, 0), np.maximum(p - low, 0)
        errors = {"array": up, "arrayminus": down, "thickness": 1.4, "width": 5}
    return go.Bar(
        x=np.arange(len(p)),
        y=p,
        error_y=errors,
        customdata=details,
        text=[f"{value:.2f}" for value in p],
        textposition="none" if interval is not None or len(p) > 16 else "outside",
        cliponaxis=False,
        marker={"color": colours, "opacity": np.where(p > neurons.tau, 1.0, 0.4)},
        hovertemplate=hover + "<extra></extra>",
    )


def _title(neurons: LanguageNeurons, name: str) -> str:
    kind, above = neurons.class_of(name), neurons.languages_of(name)
    owners = listing(map(full_name, above))
    return {
        "specific": f"{name} is specific to {owners}: above tau in no other language",
        "related": f"{name} is related to {len(above)} of {len(neurons.languages)} languages: "
        f"{listing(map(plain, above)) if len(above) > 3 else owners}",
        "agnostic": f"{name} is language-agnostic: above tau in all {len(above)} languages",
        "unclassified": f"{name} is unclassified: above tau in none of the "
        f"{len(neurons.languages)} languages",
    }[kind]


def _selection(neurons: LanguageNeurons, layer: int, neuron: int) -> str:
    chosen = bool(neurons.selected[layer, neuron])
    return f"This neuron is {'' if chosen else 'not '}among the selected ones"


def _precision(statistics: ActivationStatistics | None, interval: Interval | None) -> str:
    if interval is not None and statistics is not None:
        return f"bars: 95% jackknife intervals over {statistics.n_groups} groups of items"
    return "no intervals" + (
        ": the counts were kept in one group" if statistics else " were asked for"
    )


def _interval(
    statistics: ActivationStatistics, neurons: LanguageNeurons, layer: int, neuron: int
) -> Interval | None:
    """Jackknife interval of one neuron's probabilities; None where there is one group only."""
    same = (statistics.n_layers, statistics.d_mlp) == (neurons.n_layers, neurons.d_mlp)
    if not same or set(statistics.languages) != set(neurons.languages):
        raise LensNeuronsError(
            f"the statistics are of {statistics.n_layers} layers x {statistics.d_mlp} neurons in "
            f"{list(statistics.languages)}, the neurons of {neurons.n_layers} x {neurons.d_mlp} in "
            f"{list(neurons.languages)}: give those that they were identified from"
        )
    grouped = statistics.grouped_counts[:, layer : layer + 1, neuron : neuron + 1]
    one = replace(statistics, grouped_counts=grouped, sums=None, squares=None)
    one = one.select(neurons.languages)
    if not np.array_equal(one.probability[0, 0], neurons.probability[layer, neuron]):
        raise LensNeuronsError(
            "the statistics give this neuron other probabilities than the neurons hold: give those "
            "that they were identified from"
        )
    return jackknife(one, lambda drawn: drawn.probability[0, 0]) if one.n_groups > 1 else None
