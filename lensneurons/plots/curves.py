"""What steering does by strength, and what training on preferences does by step.

`steering_curve`: languages and answers above, NLL below. A language has its own colour: what is
written or predicted in the language steered toward, or stays in the language of the prompts.

`alignment_curves`: share of pairs that the model gets right, reward margin and loss. A pair is
right if the better answer has the higher implicit reward. Pairs that were held out tell whether the
preference was learned or the pairs were; a run on shuffled preferences, drawn beside it, tells how
much of that any training on these texts would do.

>>> ln.plots.steering_curve(curve), ln.plots.alignment_curves(run)         # doctest: +SKIP

What these do not show: a curve over strengths says nothing about other neurons, so steer random
ones of the same size (`NeuronSet.random_control`) as well; pairs that are right do not mean that
the model answers better, which `accuracy` before and after tells.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go

from lensneurons.alignment.training import Alignment
from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.plots.labels import entities, escape_label, full_name, headed, plain
from lensneurons.plots.numbers import counted, share, signed, with_ends
from lensneurons.plots.panels import SHARE_TICKS, Look, level_line, line_with_band, stack
from lensneurons.plots.style import GREY, frame, language_colour
from lensneurons.uncertainty.groups import Interval


def steering_curve(curve: SteeringCurve) -> go.Figure:
    """Draw language, right answers and NLL of a model against the strength of steering.

    Returns:
        Above, shares of the texts in the language steered toward and in that of the prompts, and
        of right answers (in whatever language), with Wilson's 95% intervals. Below, the NLL of the
        three kinds of texts, as change since alpha 0 if that was run, with a bootstrap over items.

    Raises:
        LensNeuronsError: fewer than two items, which have no interval.
    """
    order = np.argsort(curve.alphas)
    alphas = np.array(curve.alphas, float)[order]
    below, gap = 190, 62
    figure, height = stack([250, below], gap=gap)
    for row, name, look, found in _lines(curve):
        estimate, low, high = (one[order] for one in (found.estimate, found.low, found.high))
        rising = replace(found, estimate=estimate, low=low, high=high)
        number, legend = (".2f", "legend") if row == 1 else (".3f", "legend2")
        traces = line_with_band(alphas, rising, name=name, look=look, number=number, legend=legend)
        figure.add_traces(traces, rows=row, cols=1)
    if from_zero := 0 in curve.alphas:
        level_line(figure, 2)
    figure.update_xaxes(title="strength alpha, in means of the language steered toward", row=2)
    figure.update_yaxes(title="share of texts", **SHARE_TICKS, row=1)
    figure.update_yaxes(title=f"{'change of ' if from_zero else ''}NLL<br>nats a token", row=2)
    place = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "bottom"}
    figure.update_layout(legend2={**place, "y": (below + 4) / height}, hovermode="x unified")
    return frame(figure, _title(curve), _notes(curve), plot_height=height, legend=True)


def _lines(curve: SteeringCurve) -> list[tuple[int, str, Look, Interval]]:
    """Panel, name, look and numbers of every line: shares of texts, then NLL of each kind."""
    measure = curve.nll_difference if 0 in curve.alphas else curve.mean_nll
    pair = (curve.toward, curve.prompts_in)
    new, old = map(language_colour, pair)
    turned, stayed = (f"texts in {entities(full_name(code))}" for code in pair)
    to, of = (escape_label(code, 14) for code in pair)
    return [
        (1, turned, Look(new), curve.share_in(curve.toward)),
        (1, stayed, Look(old, "dash", "square"), curve.share_in(curve.prompts_in)),
        (1, "right answers", Look(GREY, "dot", "diamond"), curve.share_right()),
        (2, f"{of} answers to {of} prompts", Look(old, "dash", "square"), measure("own")),
        (2, f"{to} answers to {of} prompts", Look(new), measure("switched")),
        (2, f"{to} answers to {to} prompts", Look(new, "dot", "triangle-up"), measure("target")),
    ]


def _title(curve: SteeringCurve) -> str:
    """How many texts turn at most, against the least strength, and how many answers are right."""
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


def _notes(curve: SteeringCurve) -> list[str]:
    without = f", without {plain(curve.ablated, 60)}" if curve.ablated else ""
    steered = f"{plain(curve.neurons, 60)}, {plain(curve.method, 24)}{without}"
    told = f"prompts in {full_name(curve.prompts_in)}; steered: {steered}"
    best = int(curve.share_in(curve.toward).estimate.argmax())

    def at_best(found: Interval) -> tuple[float, float, float]:
        return found.estimate[best], found.low[best], found.high[best]

    both = with_ends(*at_best(curve.share_right_toward()), share)
    where = f"At alpha {curve.alphas[best]:g}, answers right and in {full_name(curve.toward)}"
    notes = [headed(curve.provenance, told), f"{where}: {both}"]
    if 0 in curve.alphas:
        own, target = (with_ends(*at_best(curve.nll_difference(k))) for k in ("own", "target"))
        of = f"{own} on texts in {full_name(curve.prompts_in)}, {target} on texts in "
        notes.append(f"NLL there, nats a token: {of}{full_name(curve.toward)}")
    else:
        notes.append("Alpha 0 was not run, so NLL is no change")
    items = counted(len(curve.item_ids), "item")
    bands = f"Bands: 95%, Wilson's for shares, bootstrap over {items} for NLL"
    apart = "measurable: bands do not overlap; other texts: a third language, or none"
    return [*notes, f"{bands}; {apart}"]


_LOSS_PANELS = (  # column, title, number in the hover, and value of the untrained model
    ("accuracy", "pairs right", ".0%", 0.5),
    ("margin", "reward margin<br>nats times beta", ".3f", 0.0),
    ("loss", "loss<br>nats", ".3f", float(np.log(2))),
)


def alignment_curves(run: Alignment, *, control: Alignment | None = None) -> go.Figure:
    """Draw accuracy, margin and loss of the pairs over the steps of an alignment.

    Args:
        run: what `align` gave.
        control: the same on ``pairs.shuffled()``, drawn in grey.

    Returns:
        Three panels over one axis: pairs trained on as thin dotted lines (means since the point
        before), pairs held out as solid ones. A thin line shows the untrained model.

    Raises:
        LensNeuronsError: `control` was trained on preferences as they were scored.
    """
    if control is not None and control.preferences == "as scored":
        raise LensNeuronsError(
            f"control={control.folder} was trained on preferences as they were scored: give a run "
            "on pairs.shuffled()"
        )
    figure, height = stack([150] * len(_LOSS_PANELS), gap=26)
    logs = [("", run.to_pandas(), "#2f6fb7")]
    if control is not None:
        logs.append(("shuffled, ", control.to_pandas(), "#8a8f99"))
    looks = (
        ("trained", "trained on", "lines", {"dash": "dot", "width": 1.4}),
        ("held out", "held out", "lines+markers", {"dash": "solid", "width": 2.4}),
    )
    for row, (column, title, number, untrained) in enumerate(_LOSS_PANELS, start=1):
        for prefix, log, colour in logs:
            for pairs, words, mode, line in looks:
                own, name = log[log["pairs"] == pairs], prefix + words
                if own.empty:
                    continue
                figure.add_scatter(
                    x=own["step"], y=own[column], name=name, legendgroup=name,
                    showlegend=row == 1, mode=mode, line={"color": colour, **line},
                    hovertemplate=f"{name}: %{{y:{number}}}<extra></extra>", row=row, col=1,
                )  # fmt: skip
        level_line(figure, row, untrained, "dot")
        figure.update_yaxes(title=title, row=row)
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%", row=1)
    figure.update_xaxes(title="step", row=len(_LOSS_PANELS))
    figure.update_layout(hovermode="x unified")
    log = logs[0][1]
    kind = "held out" if "held out" in set(log["pairs"]) else "trained"
    last = log[log["pairs"] == kind].iloc[-1]
    title = (
        f"After {last['step']} steps {last['accuracy']:.0%} of the pairs "
        f"{'trained on' if kind == 'trained' else kind} are right, with a margin of "
        f"{signed(last['margin'])}"
    )
    settings = run.settings
    told = (
        f"{counted(run.n_pairs, 'pair')}, {settings.batch} a step; rank {settings.rank}, alpha "
        f"{settings.alpha}, beta {settings.beta:g}, rate {settings.learning_rate:g}"
    )
    told += "; a control: preferences shuffled" if run.preferences == "shuffled" else ""
    notes = [
        headed(run.provenance, f"alignment {plain(run.folder.name, 40)}: {told}"),
        "Dotted: the untrained model, by which no answer is better",
        *([] if control is None else ["Grey: the same texts, preferences turned by a coin"]),
    ]
    return frame(figure, title, notes, plot_height=height, legend=True)
