"""Changes and claims as rows of points with intervals: by language, and by claim.

What these do not show: many intervals of 95% side by side leave out 0 now and then by chance; so do
claims hold by chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from lensneurons.comparison.before_after import Change, Comparison, p_text
from lensneurons.comparison.class_counts import ClassTables, of_class
from lensneurons.comparison.paper_claims import Claim, Claims
from lensneurons.plots.comparison import (
    change_axis,
    change_text,
    error_bars,
    subtitle,
    take,
    verdict,
)
from lensneurons.plots.labels import counted, entities, full_name, lines, plain
from lensneurons.plots.notes import MINUS, capital
from lensneurons.plots.style import frame, language_colour, language_tick, note

_KINDS = ("specific", "related")
_SYMBOLS = {"trained": "circle", "untouched": "circle-open", "pivot": "diamond", "": "circle"}
_GREY = "#7a8190"
_HOLDS = {
    "holds": ("circle", "#0072b2"),
    "does not hold": ("x", "#d55e00"),
    "undecided": ("circle-open", "#868d99"),
}
_CLAIM = 64  # characters a line of a claim
_LONGEST = 116  # characters of a claim


def language_changes(comparison: Comparison) -> go.Figure:
    """Change of the specific and the related neurons of every language.

    Args:
        comparison: what `compare` gives.

    Returns:
        Two panels with a row a language, trained ones first, then untouched ones and the pivot,
        and below them the means of each role; 95% intervals where there are groups.
    """
    order = _by_role(comparison)
    roles = [comparison.role_of(comparison.languages[place]) for place in order]
    means = _means(comparison)
    figure = go.Figure()
    for column, kind in enumerate(_KINDS):
        change = comparison.change(lambda t, kind=kind: of_class(t.member_change(), kind))
        for role in dict.fromkeys(roles):
            rows = [row for row, one in enumerate(roles) if one == role]
            codes = [comparison.languages[order[row]] for row in rows]
            own = take(change, [order[row] for row in rows])
            figure.add_trace(_points(own, rows, codes, role, kind, column))
        for row, (name, places) in enumerate(means, start=len(order)):
            mean = take(_mean_change(comparison, places, kind), [0])
            figure.add_trace(_mean_point(mean, row, name, kind, column))
    ticks = [language_tick(comparison.languages[place]) for place in order]
    height = _place_panels(figure, comparison, [*ticks, *(name for name, _ in means)], len(order))
    told = "Change: neurons of the language, after less before; every panel has its own scale"
    return frame(
        figure, _title_of_languages(comparison), subtitle(comparison, told),
        plot_height=height, legend=bool(comparison.trained),
    )  # fmt: skip


def _by_role(comparison: Comparison) -> list[int]:
    """Places of the languages: trained, untouched, pivot; within a role in their order."""
    ranks = {"trained": 0, "untouched": 1, "pivot": 2, "": 0}
    places = range(len(comparison.languages))
    return sorted(places, key=lambda i: ranks[comparison.role_of(comparison.languages[i])])


def _means(comparison: Comparison) -> list[tuple[str, list[int]]]:
    """The rows of means: their names, and places of their languages."""
    groups = {"trained": comparison.trained, "untouched": comparison.untouched}
    if not comparison.trained:
        groups = {"all": comparison.languages}
    places = {language: place for place, language in enumerate(comparison.languages)}
    found = [(name, [places[code] for code in codes]) for name, codes in groups.items() if codes]
    return [(f"mean of {name} ({len(chosen)})", chosen) for name, chosen in found]


def _mean_change(comparison: Comparison, places: Sequence[int], kind: str) -> Change:
    """Mean change over some languages, [1]."""

    def mean(tables: ClassTables) -> np.ndarray:
        return of_class(tables.member_change()[:, list(places)], kind).mean(axis=1)[:, None]

    return comparison.change(mean)


def _points(
    change: Change, rows: list[int], codes: list[str], role: str, kind: str, column: int
) -> go.Scatter:
    numbers, colours = range(len(rows)), [language_colour(code) for code in codes]
    return go.Scatter(
        x=change.estimate,
        y=rows,
        error_x=_bars(change),
        mode="markers",
        marker={
            "symbol": _SYMBOLS[role],
            "size": 10,
            "color": colours,
            "line": {"width": 2, "color": colours},
        },
        customdata=[[entities(full_name(codes[i])), change_text(change, i)] for i in numbers],
        name=role or "languages",
        legendgroup=role,
        showlegend=bool(role) and column == 0,
        hovertemplate=f"%{{customdata[0]}}{', ' if role else ''}{role}<br>{kind}: "
        "%{customdata[1]}<extra></extra>",
        xaxis=f"x{column + 1}" if column else "x",
    )


def _mean_point(change: Change, row: int, name: str, kind: str, column: int) -> go.Scatter:
    return go.Scatter(
        x=change.estimate,
        y=[row],
        error_x=_bars(change),
        mode="markers",
        marker={"symbol": "diamond-wide", "size": 13, "color": _GREY},
        customdata=[[name, change_text(change, 0)]],
        name=name,
        showlegend=False,
        hovertemplate=f"%{{customdata[0]}}<br>{kind}: %{{customdata[1]}}<extra></extra>",
        xaxis=f"x{column + 1}" if column else "x",
    )


def _bars(change: Change) -> dict | None:
    bars = error_bars(change, slice(None))
    return None if bars is None else {**bars, "color": _GREY}


def _place_panels(
    figure: go.Figure, comparison: Comparison, ticks: list[str], languages: int
) -> int:
    """Two panels side by side with one axis of rows; their height in pixels."""
    row = 26 if len(ticks) <= 16 else 18
    for column, kind in enumerate(_KINDS):
        change = comparison.change(lambda t, kind=kind: of_class(t.member_change(), kind))
        axis = change_axis(change, slice(None), f"{kind} neurons, change")
        figure.update_layout(
            {f"xaxis{column + 1}": {**axis, "domain": [0.52 * column, 0.48 + 0.52 * column]}}
        )
        x = f"x{column + 1}" if column else "x"
        figure.add_shape(
            type="line", x0=0, x1=0, xref=x, y0=0, y1=1, yref="paper", layer="below",
            line={"width": 1},
        )  # fmt: skip
    figure.add_shape(
        type="line", x0=0, x1=1, xref="paper", y0=languages - 0.5, y1=languages - 0.5,
        line={"width": 0.7, "dash": "dot"},
    )  # fmt: skip
    figure.update_layout(
        yaxis={
            "tickmode": "array",
            "tickvals": [*range(len(ticks))],
            "ticktext": ticks,
            "range": [len(ticks) - 0.4, -0.6],
            "tickfont": {"size": 12 if row > 20 else 10},
        }
    )
    return row * len(ticks)


def _title_of_languages(comparison: Comparison) -> str:
    places = [chosen for _, chosen in _means(comparison)]
    if not comparison.trained:
        specific, related = (verdict(_mean_change(comparison, places[0], k), 0) for k in _KINDS)
        return f"On average, specific neurons of a language {specific}, related ones {related}"
    told = [verdict(_mean_change(comparison, chosen, "related"), 0) for chosen in places]
    untouched = f", of an untouched one {told[1]}" if len(told) > 1 else ""
    return f"On average, related neurons of a trained language {told[0]}{untouched}"


def claims(tested: Claims) -> go.Figure:
    """Claims with their numbers, intervals and verdicts, one below the other.

    Args:
        tested: what `claims` gives.

    Returns:
        A row a claim, each on its own scale and turned so that what is claimed lies to the right;
        the numbers themselves stand beside it.
    """
    figure = go.Figure()
    rows = list(tested)
    for name in _HOLDS:
        places = [i for i, row in enumerate(rows) if _verdict_of(row) == name]
        figure.add_trace(_claim_points(rows, places, name))
    for place, row in enumerate(rows):
        figure.add_annotation(
            text=entities(_numbers(row)), x=1, xref="paper", xanchor="left", xshift=6,
            y=place, showarrow=False, font={"size": 11},
        )  # fmt: skip
    texts = [lines(_claimed(row), _CLAIM) for row in rows]
    height = max(60, 30 * len(rows) if any(len(text) > 1 for text in texts) else 22 * len(rows))
    figure.add_shape(
        type="line", x0=0, x1=0, y0=0, y1=1, yref="paper", layer="below", line={"width": 1}
    )
    figure.update_layout(
        xaxis={
            "range": [-1.15, 1.15],
            "tickvals": [-0.7, 0, 0.7],
            "ticktext": ["contrary", "0", "as claimed"],
            "showgrid": False,
        },
        yaxis={
            "tickmode": "array",
            "tickvals": [*range(len(rows))],
            "ticktext": ["<br>".join(text) for text in texts],
            "range": [len(rows) - 0.4, -0.6],
            "tickfont": {"size": 11},
        },
    )
    if not rows:
        note(figure, "no claims")
    figure.add_annotation(
        text=_key(rows), x=0.5, xref="paper", y=1, yref="paper", yanchor="bottom", yshift=6,
        showarrow=False,
    )  # fmt: skip
    frame(figure, _title_of_claims(rows), _about_claims(tested), plot_height=height, legend=True)
    return figure.update_layout(margin={"r": 250}, showlegend=False)


def _key(rows: list[Claim]) -> str:
    """What the symbols of the points mean, and how many there are."""
    signs = dict(zip(_HOLDS, "●✕○", strict=True))
    numbers = {name: sum(_verdict_of(row) == name for row in rows) for name in _HOLDS}
    return "\u2003".join(
        f'<span style="color:{_HOLDS[name][1]}">{signs[name]}</span> {name} ({number})'
        for name, number in numbers.items()
    )


def _claimed(row: Claim) -> str:
    """The claim and its expected sign; ``N = 8`` and ``N > 0`` stay on one line."""
    sign = f": {row.expected}" if row.expected in ("rises", "falls") else ""
    text = plain(row.claim, _LONGEST) + sign
    return text.replace(" = ", "\u00a0=\u00a0").replace(" > ", "\u00a0>\u00a0")


def _verdict_of(row: Claim) -> str:
    return row.verdict if row.verdict in _HOLDS else "undecided"


def _claim_points(rows: list[Claim], places: list[int], name: str) -> go.Scatter:
    """The claims of one verdict; a claim without a number has a row but no point."""
    symbol, colour = _HOLDS[name]
    turned = np.array([_turned(rows[place]) for place in places], float).reshape(-1, 3)
    middle, low, high = turned.T
    bars = {"array": high - middle, "arrayminus": middle - low, "thickness": 1.6, "width": 4}
    return go.Scatter(
        x=middle,
        y=places,
        error_x={**bars, "color": colour},
        mode="markers",
        marker={
            "symbol": symbol,
            "size": 9,
            "color": colour,
            "line": {"width": 2, "color": colour},
        },
        customdata=[_hover(rows[place]) for place in places],
        name=name,
        hovertemplate="%{customdata}<extra></extra>",
    )


def _turned(row: Claim) -> tuple[float, float, float]:
    """Number and ends, turned so that the claim lies to the right, the farthest end at 1."""
    ends = np.array([row.measured, row.low, row.high])
    known = np.abs(ends[np.isfinite(ends)])
    most = float(known.max(initial=0.0)) or 1.0
    middle, low, high = (ends if row.expected != "falls" else -ends[[0, 2, 1]]) / most
    return float(middle), float(low), float(high)


def _numbers(row: Claim) -> str:
    """The number with its interval and p, or why there is none."""
    if not np.isfinite(row.measured):
        return plain(row.reason, 40)
    ends = "" if np.isnan(row.low) else f" ({_short(row.low)} to {_short(row.high)})"
    p = "" if np.isnan(row.p) else f", p = {p_text(row.p)}"
    return f"{_short(row.measured)}{ends}{p}"


def _short(value: float) -> str:
    """A number in three digits or whole, of at most four decimals: ``"+12"``, ``"−0.031"``."""
    size = abs(value)
    text = f"{size:,.0f}" if size >= 100 else f"{size:.3g}" if size >= 0.001 else f"{size:.4f}"
    text = "0" if value == 0 else text
    return text if not float(text.replace(",", "")) else f"{'+' if value > 0 else MINUS}{text}"


def _hover(row: Claim) -> str:
    why = f": {plain(row.reason)}" if row.reason else ""
    head = lines(_claimed(row), 70)
    rest = [f"measured {_numbers(row)}", f"{plain(row.verdict)}{why}"]
    rest.append(f"permuted: {plain(row.permuted)}")
    return "<br>".join([*head, *(line for text in rest for line in lines(text, 70))])


def _title_of_claims(rows: list[Claim]) -> str:
    number = [sum(_verdict_of(row) == name for row in rows) for name in _HOLDS]
    holds, fails, open_ = number
    word = "holds" if holds == 1 else "hold"
    return (
        f"Of {counted(len(rows), 'claim')} {holds} {word}, {fails} "
        f"{'does' if fails == 1 else 'do'} not, {open_} {'is' if open_ == 1 else 'are'} undecided"
    )


def _about_claims(tested: Claims) -> list[str]:
    chance = (1 - tested.level) / 2 * len(tested)
    told = "Each row has its own scale, and what is claimed lies to the right"
    if all(np.isnan(row.low) for row in tested):
        return [capital(plain(tested.description)), told]
    held = f"where nothing changed, at most about {chance:.1f} of so many claims hold by chance"
    return [
        capital(plain(tested.description)),
        f"{told}; bars: {tested.level:.0%} intervals; {held}",
    ]
