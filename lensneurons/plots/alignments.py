"""What training on preferences did, step by step: loss, margin, and share of pairs it gets right.

A pair is right where the better answer has the higher implicit reward. Pairs that were held out
tell whether the preference was learned or the pairs were; a run on shuffled preferences, drawn
beside it, tells how much of that any training on these texts would do.

What this does not show: that the model answers better; `accuracy` before and after does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go

from lensneurons.plots.labels import counted, escape_label
from lensneurons.plots.notes import headed, signed
from lensneurons.plots.style import frame

if TYPE_CHECKING:
    import pandas as pd

    from lensneurons.alignment.training import Alignment

_PANEL, _GAP = 150, 26  # pixels
_RUN, _CONTROL = "#2f6fb7", "#8a8f99"


class _Panel(NamedTuple):
    column: str
    title: str
    number: str
    still: float  # of the untrained model


_PANELS = (
    _Panel("accuracy", "pairs right", ".0%", 0.5),
    _Panel("margin", "reward margin<br>nats times beta", ".3f", 0.0),
    _Panel("loss", "loss<br>nats", ".3f", float(np.log(2))),
)


def alignment_curves(run: Alignment, *, control: Alignment | None = None) -> go.Figure:
    """Accuracy, margin and loss of the pairs over the steps of an alignment.

    Args:
        run: what `align` gave.
        control: the same with shuffled preferences, drawn in grey.

    Returns:
        Three panels over one axis: pairs trained on as thin dotted lines (means since the point
        before), pairs held out as solid ones. A thin line shows the untrained model.
    """
    figure = go.Figure()
    height = len(_PANELS) * _PANEL + (len(_PANELS) - 1) * _GAP
    for number, panel in enumerate(_PANELS):
        top = 1 - number * (_PANEL + _GAP) / height
        axis = f"yaxis{number + 1 if number else ''}"
        figure.update_layout(
            {axis: {"title": panel.title, "domain": [max(0, top - _PANEL / height), top]}}
        )
        where = axis.replace("axis", "")
        figure.add_shape(
            type="line", x0=0, x1=1, xref="paper", y0=panel.still, y1=panel.still, yref=where,
            layer="below", line={"width": 1, "dash": "dot"},
        )  # fmt: skip
        for name, one, colour in (
            ("", run, _RUN),
            ("shuffled, ", control, _CONTROL),
        ):
            if one is not None:
                figure.add_traces(_lines(one.to_pandas(), panel, name, colour, where, number == 0))
    figure.update_layout(
        yaxis={"range": [-0.03, 1.03], "tickformat": ".0%"},
        xaxis={"title": "step", "anchor": f"y{len(_PANELS)}"},
        hovermode="x unified",
    )
    return frame(figure, _title(run), _subtitle(run, control), plot_height=height, legend=True)


def _lines(
    log: pd.DataFrame, panel: _Panel, name: str, colour: str, where: str, first: bool
) -> list[go.Scatter]:
    """One line for the pairs trained on and one for those held out."""
    drawn = []
    for pairs, dash, width in (("trained", "dot", 1.4), ("held out", "solid", 2.4)):
        own = log[log["pairs"] == pairs]
        if own.empty:
            continue
        told = f"{name}{'trained on' if pairs == 'trained' else 'held out'}"
        drawn.append(
            go.Scatter(
                x=own["step"],
                y=own[panel.column],
                yaxis=where,
                name=told,
                legendgroup=told,
                showlegend=first,
                mode="lines" if pairs == "trained" else "lines+markers",
                line={"color": colour, "dash": dash, "width": width},
                hovertemplate=f"{told}: %{{y:{panel.number}}}<extra></extra>",
            )
        )
    return drawn


def _title(run: Alignment) -> str:
    """What became of the pairs that were not trained on; of the others where none were kept."""
    log = run.to_pandas()
    kind = "held out" if "held out" in set(log["pairs"]) else "trained"
    last = log[log["pairs"] == kind].iloc[-1]
    told = "held out" if kind == "held out" else "trained on"
    return (
        f"After {last['step']} steps {last['accuracy']:.0%} of the pairs {told} are right, with a "
        f"margin of {signed(last['margin'])}"
    )


def _subtitle(run: Alignment, control: Alignment | None) -> list[str]:
    settings = run.settings
    told = (
        f"{counted(run.n_pairs, 'pair')}, {settings.batch} a step; rank {settings.rank}, alpha "
        f"{settings.alpha}, beta {settings.beta:g}, rate {settings.learning_rate:g}"
    )
    last = [] if control is None else ["Grey: the same texts, preferences turned by a coin"]
    where = escape_label(run.folder.name, 40)
    return [
        headed(run.provenance, f"alignment {where}: {told}"),
        "Dotted: the untrained model, by which no answer is better",
        *last,
    ]
