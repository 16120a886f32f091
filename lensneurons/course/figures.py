"""Two figures about the definitions: where the bar tau lies, and what lambda lets in."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.neurons.identification import identify
from lensneurons.plots.style import CLASS_COLOURS, GREY, frame

BINS = 50  # of the probabilities
STEPS = 41  # values of lambda


def where_tau_lies(statistics: ActivationStatistics, *, percentile: float = 0.95) -> go.Figure:
    """Draw how often each activation probability occurs, and the bar that a few of them pass.

    Args:
        statistics: counts of all languages.
        percentile: of all probabilities; the bar is the number at this place of their order.
    """
    p = statistics.probability.ravel()
    tau = float(np.sort(p)[round(percentile * p.size) - 1])
    below = max(1, min(BINS - 1, round(BINS * tau)))  # bins, so that the bar lies between two
    sides = np.linspace(0, tau, below + 1), np.linspace(tau, 1, BINS - below + 1)[1:]
    counts, edges = np.histogram(p, np.concatenate(sides))
    middles = (edges[:-1] + edges[1:]) / 2
    colours = [CLASS_COLOURS["specific"] if one > tau else GREY for one in middles]
    figure = go.Figure(go.Bar(x=middles, y=counts, marker_color=colours, width=np.diff(edges)))
    figure.update_traces(hovertemplate="p near %{x:.2f}: %{y:,} of them<extra></extra>")
    figure.add_vline(tau, line_dash="dash", line_color=GREY)
    figure.add_annotation(
        x=tau, y=1, yref="paper", text=f"tau = {tau:.3f} ", showarrow=False, xanchor="right"
    )
    figure.update_xaxes(title="p, activation probability of a neuron in a language", range=[0, 1])
    figure.update_yaxes(title="neurons x languages (log scale)", type="log", dtick=1)
    figure.update_layout(bargap=0, showlegend=False)
    above = float(np.mean(p > tau))
    title = f"{above:.1%} of all probabilities exceed tau = {tau:.3f}"
    size = f"{statistics.n_layers} layers x {statistics.d_mlp} neurons"
    notes = [f"{p.size:,} probabilities: {size} x {len(statistics.languages)} languages"]
    return frame(figure, title, notes)


def where_lambda_lies(
    statistics: ActivationStatistics, *, top_rate: float, up_to: float | None = None
) -> go.Figure:
    """Draw how many neurons of each class the paper's score selects at each lambda.

    Args:
        statistics: counts of all languages.
        top_rate: share of neurons to select.
        up_to: the largest lambda; twice the exact one by default.
    """
    exact = identify(statistics, top_rate=top_rate).lambda_ or 0.0
    top = up_to if up_to is not None else max(2 * exact, 0.1)
    values = np.linspace(0, top, STEPS)
    found = np.array(
        [
            identify(statistics, top_rate=top_rate, lambda_=float(value)).histogram()
            for value in values
        ]
    )
    by_class = {
        "unclassified": found[:, 0],
        "specific": found[:, 1],
        "related": found[:, 2:-1].sum(1),
        "agnostic": found[:, -1],
    }
    figure = go.Figure(
        [
            go.Scatter(x=values, y=counts, name=name, line_color=CLASS_COLOURS[name])
            for name, counts in by_class.items()
        ]
    )
    figure.add_vline(exact, line_dash="dash", line_color=GREY)
    figure.add_annotation(
        x=exact, y=1, yref="paper", text=f"{exact:.3f} ", showarrow=False, xanchor="right"
    )
    figure.update_xaxes(title="lambda", range=[0, top])
    figure.update_yaxes(title="selected neurons", rangemode="tozero")
    title = f"From lambda = {exact:.3f} on, agnostic neurons are selected"
    notes = [f"The {top_rate:.3g} of all neurons with the lowest score of the paper"]
    return frame(figure, title, notes, legend=True)
