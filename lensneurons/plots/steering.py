"""What steering does and what it costs, by strength: languages and answers above, NLL below.

A language has its own colour: what is written or predicted in the language steered toward is in
that of this language, what stays in the language of the prompts in that of the other.

What this does not show: a curve over the strengths of one set of neurons says nothing of other
neurons; steer random ones of the same size (`NeuronSet.random_control`) for that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go

from lensneurons.experiments.steering import SteeringCurve, TextKind
from lensneurons.plots.bands import Look, line_with_band
from lensneurons.plots.labels import counted, entities, escape_label, full_name, plain
from lensneurons.plots.notes import headed, share_with_ends, with_ends
from lensneurons.plots.style import frame, language_colour
from lensneurons.uncertainty.groups import Interval

_TOP, _GAP, _BELOW = 250, 62, 190  # pixels
_RIGHT = "#7a8190"


def steering_curve(curve: SteeringCurve) -> go.Figure:
    """Language, right answers and NLL of a model against the strength of steering.

    Args:
        curve: what `steering_curve` measured.

    Returns:
        Above, shares of the texts in the language steered toward and in that of the prompts, and
        of right answers (in whatever language), with Wilson's 95% intervals. Below, the NLL of the
        three kinds of texts, as change since alpha 0 where that was run, with a bootstrap over
        items.

    Raises:
        LensNeuronsError: fewer than two items, which have no interval.
    """
    order = np.argsort(curve.alphas)
    alphas = np.array(curve.alphas, float)[order]
    figure = go.Figure()
    for name, look, found in _shares(curve):
        figure.add_traces(
            line_with_band(alphas, _sorted(found, order), name=name, look=look, number=".2f",
                           xaxis="x", yaxis="y", legend="legend")
        )  # fmt: skip
    for name, look, found in _costs(curve):
        figure.add_traces(
            line_with_band(alphas, _sorted(found, order), name=name, look=look, number=".3f",
                           xaxis="x", yaxis="y2", legend="legend2")
        )  # fmt: skip
    height = _place(figure, curve)
    figure.update_layout(hovermode="x unified")
    return frame(figure, _title(curve), _subtitle(curve), plot_height=height, legend=True)


def _sorted(found: Interval, order: np.ndarray) -> Interval:
    return replace(
        found, estimate=found.estimate[order], low=found.low[order], high=found.high[order]
    )


def _shares(curve: SteeringCurve) -> list[tuple[str, Look, Interval]]:
    """Shares of texts, each with its name and look."""
    toward, stayed = (entities(full_name(k)) for k in (curve.toward, curve.prompts_in))
    return [
        (
            f"texts in {toward}",
            Look(language_colour(curve.toward)),
            curve.share_in(curve.toward),
        ),
        (
            f"texts in {stayed}",
            Look(language_colour(curve.prompts_in), "dash", "square"),
            curve.share_in(curve.prompts_in),
        ),
        ("right answers", Look(_RIGHT, "dot", "diamond"), curve.share_right()),
    ]


def _costs(curve: SteeringCurve) -> list[tuple[str, Look, Interval]]:
    """NLL of every kind of texts, each with its name and look."""
    toward, stayed = (escape_label(k, 14) for k in (curve.toward, curve.prompts_in))
    looks: dict[TextKind, tuple[str, str, str, str]] = {
        "own": (f"{stayed} answers to {stayed} prompts", curve.prompts_in, "dash", "square"),
        "switched": (f"{toward} answers to {stayed} prompts", curve.toward, "solid", "circle"),
        "target": (f"{toward} answers to {toward} prompts", curve.toward, "dot", "triangle-up"),
    }
    measure = curve.nll_difference if 0 in curve.alphas else curve.mean_nll
    return [
        (name, Look(language_colour(code), dash, symbol), measure(kind))
        for kind, (name, code, dash, symbol) in looks.items()
    ]


def _place(figure: go.Figure, curve: SteeringCurve) -> int:
    """Two panels over one axis, each with its legend; returns their height in pixels."""
    height = _TOP + _GAP + _BELOW
    change = 0 in curve.alphas
    figure.update_layout(
        xaxis={"title": "strength alpha, in means of the language steered toward", "anchor": "y2"},
        yaxis={
            "title": "share of texts",
            "domain": [1 - _TOP / height, 1],
            "range": [-0.03, 1.03],
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
        },
        yaxis2={
            "title": f"{'change of ' if change else ''}NLL<br>nats a token",
            "domain": [0, _BELOW / height],
        },
        legend2={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": (_BELOW + 4) / height,
            "yanchor": "bottom",
        },
    )
    if change:
        figure.add_shape(
            type="line", x0=0, x1=1, xref="paper", y0=0, y1=0, yref="y2", layer="below",
            line={"width": 1},
        )  # fmt: skip
    return height


def _title(curve: SteeringCurve) -> str:
    """How many texts turn at most, beside the least strength, and what becomes of the answers."""
    turned, right = curve.share_in(curve.toward), curve.share_right()
    start, best = int(np.abs(curve.alphas).argmin()), int(turned.estimate.argmax())
    language, first = full_name(curve.toward), curve.alphas[start]
    before, after = turned.estimate[start], turned.estimate[best]
    if turned.low[best] <= turned.high[start]:
        told = f"Steering does not measurably turn texts to {language}"
        return f"{told}: at most {after:.0%} are in it, {before:.0%} at alpha {first:g}"
    told = f"Steering turns {after:.0%} of the texts to {language} at alpha {curve.alphas[best]:g}"
    change = f"from {right.estimate[start]:.0%} to {right.estimate[best]:.0%}"
    apart = right.high[best] < right.low[start] or right.low[best] > right.high[start]
    verb = "go" if apart else "go, not measurably,"
    return f"{told} ({before:.0%} at {first:g}); right answers {verb} {change}"


def _subtitle(curve: SteeringCurve) -> list[str]:
    without = f", without {plain(curve.ablated, 60)}" if curve.ablated else ""
    steered = f"{plain(curve.neurons, 60)}, {plain(curve.method, 24)}{without}"
    told = f"prompts in {full_name(curve.prompts_in)}; steered: {steered}"
    items = counted(len(curve.item_ids), "item")
    bands = f"Bands: 95%, Wilson's for shares, bootstrap over {items} for NLL"
    apart = "measurable: bands do not overlap; other texts: a third language, or none"
    return [headed(curve.provenance, told), *_at_best(curve), f"{bands}; {apart}"]


def _at_best(curve: SteeringCurve) -> list[str]:
    """What is written and lost at the strength that turns most texts."""
    best = int(curve.share_in(curve.toward).estimate.argmax())
    both = share_with_ends(*_one(curve.share_right_toward(), best))
    told = (
        f"At alpha {curve.alphas[best]:g}, answers right and in {full_name(curve.toward)}: {both}"
    )
    if 0 not in curve.alphas:
        return [told, "Alpha 0 was not run, so NLL is no change"]
    costs = [with_ends(*_one(curve.nll_difference(kind), best)) for kind in ("own", "target")]
    stayed, toward = (
        f"{cost} on texts in {full_name(code)}"
        for cost, code in zip(costs, (curve.prompts_in, curve.toward), strict=True)
    )
    return [told, f"NLL there, nats a token: {stayed}, {toward}"]


def _one(found: Interval, place: int) -> tuple[float, float, float]:
    return found.estimate[place], found.low[place], found.high[place]
