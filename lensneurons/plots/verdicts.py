"""Claims as rows of points with intervals, one below the other, with their verdicts.

>>> ln.plots.claims(ln.claims(change, parts=parts))                        # doctest: +SKIP

A claim about a change is drawn with the number that decides: the least of the change, of the change
less what an equal rise of all firing gives, and of it less what a common shift with noise gives.
p-values are adjusted for the number of claims. Claims about one model are numbers alone.

What this does not show: that the training caused what holds.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from lensneurons.comparison.change_tables import p_equals
from lensneurons.comparison.paper_claims import Claim, Claims
from lensneurons.plots.labels import capital, entities, lines, plain
from lensneurons.plots.numbers import counted, three_digits, with_ends
from lensneurons.plots.style import frame, ticks, write_inside

_LOOKS = {  # symbol, colour, and the symbol as text
    "holds": ("circle", "#0072b2", "●"),
    "does not hold": ("x", "#d55e00", "✕"),
    "undecided": ("circle-open", "#868d99", "○"),
}
_WIDTH, _LONGEST = 64, 116  # characters of a line of a claim, and of the whole claim


def claims(tested: Claims) -> go.Figure:
    """Draw claims with their numbers, intervals and verdicts, one below the other.

    Each row has its own scale and is turned so that what is claimed lies to the right; the numbers
    themselves stand beside it.
    """
    rows = list(tested)
    places: dict[str, list[int]] = {name: [] for name in _LOOKS}
    for place, row in enumerate(rows):
        places[row.verdict if row.verdict in _LOOKS else "undecided"].append(place)
    figure = go.Figure([_points(rows, of, name) for name, of in places.items()])
    for place, row in enumerate(rows):
        figure.add_annotation(
            text=entities(_numbers(row)), x=1, xref="paper", xanchor="left", xshift=6,
            y=place, showarrow=False, font={"size": 11},
        )  # fmt: skip
    figure.add_vline(x=0, layer="below", line_width=1)
    texts = [lines(_claimed(row), _WIDTH) for row in rows]
    figure.update_xaxes(
        range=[-1.15, 1.15],
        tickvals=[-0.7, 0, 0.7],
        ticktext=["contrary", "0", "as claimed"],
        showgrid=False,
    )
    names = ticks(["<br>".join(text) for text in texts])
    figure.update_yaxes(**names, range=[len(rows) - 0.4, -0.6], tickfont={"size": 11})
    if not rows:
        write_inside(figure, "no claims")
    key = (
        f'<span style="color:{colour}">{sign}</span> {name} ({len(places[name])})'
        for name, (_, colour, sign) in _LOOKS.items()
    )
    figure.add_annotation(
        text="\u2003".join(key), x=0.5, xref="paper", y=1, yref="paper", yanchor="bottom",
        yshift=6, showarrow=False,
    )  # fmt: skip
    told = "Each row has its own scale, and what is claimed lies to the right"
    if any(np.isfinite(row.low) for row in rows):
        told += f"; bars: {tested.level:.0%} intervals; p adjusted for the number of claims (Holm)"
    least = (
        "Changes: the least of the change, of it less what an equal rise of all firing gives, and "
        "of it less what a common shift with noise gives"
    )
    notes = [capital(plain(tested.description)), *([least] if tested.about_changes else []), told]
    height = max(60, (30 if any(len(text) > 1 for text in texts) else 22) * len(rows))
    frame(figure, _title(*map(len, places.values())), notes, plot_height=height, room=20)
    return figure.update_layout(margin={"r": 290})


def _points(rows: list[Claim], places: list[int], verdict: str) -> go.Scatter:
    """The claims of one verdict; a claim without a number has a row but no point."""
    symbol, colour, _ = _LOOKS[verdict]
    turned = np.array([_turned(rows[place]) for place in places], float).reshape(-1, 3)
    middle, low, high = turned.T
    bars = {"array": high - middle, "arrayminus": middle - low, "thickness": 1.6, "width": 4}
    line = {"width": 2, "color": colour}
    return go.Scatter(
        x=middle,
        y=places,
        error_x={**bars, "color": colour},
        mode="markers",
        marker={"symbol": symbol, "size": 9, "color": colour, "line": line},
        customdata=[_hover(rows[place]) for place in places],
        name=verdict,
        hovertemplate="%{customdata}<extra></extra>",
    )


def _turned(row: Claim) -> np.ndarray:
    """Number and ends, turned so that the claim lies to the right, the farthest end at 1."""
    ends = np.array([row.measured, row.low, row.high])
    most = float(np.abs(ends[np.isfinite(ends)]).max(initial=0.0)) or 1.0
    return (ends if row.expected != "falls" else -ends[[0, 2, 1]]) / most


def _claimed(row: Claim) -> str:
    """The claim and its expected sign; ``N = 8`` and ``N > 0`` stay on one line."""
    sign = f": {row.expected}" if row.expected in ("rises", "falls") else ""
    text = plain(row.claim, _LONGEST) + sign
    return text.replace(" = ", "\u00a0=\u00a0").replace(" > ", "\u00a0>\u00a0")


def _numbers(row: Claim) -> str:
    """The number with its interval and p, or why there is none."""
    if not np.isfinite(row.measured):
        return plain(row.reason, 40)
    p = p_equals(row.p_adjusted, "adj. p")
    number = with_ends(row.measured, row.low, row.high, three_digits)
    return f"{number}, {p}" if p else number


def _hover(row: Claim) -> str:
    why = f": {plain(row.reason)}" if row.reason else ""
    told = [_claimed(row), f"measured {_numbers(row)}", f"{plain(row.verdict)}{why}"]
    beside = {
        "change": row.change,
        "an equal rise of all firing gives": row.uniform,
        "a common shift with noise gives": row.drift,
        "what each neuron does in its other languages gives": row.alike,
        "at each model's own bar": row.own_bar,
    }
    told += [f"{name} {three_digits(one)}" for name, one in beside.items() if np.isfinite(one)]
    return "<br>".join(line for text in told for line in lines(text, 70))


def _title(holds: int, fails: int, undecided: int) -> str:
    return (
        f"Of {counted(holds + fails + undecided, 'claim')} {holds} "
        f"{'holds' if holds == 1 else 'hold'}, {fails} {'does' if fails == 1 else 'do'} not, "
        f"{undecided} {'is' if undecided == 1 else 'are'} undecided"
    )
