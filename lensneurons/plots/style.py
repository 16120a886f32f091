"""The visual language of all figures: colours that keep their meaning, fonts, and the frame.

A language has one colour everywhere, chosen by its code and never by its position. The ten
languages of arXiv 2505.21505 have the ten colours of Petroff (arXiv 2107.02270), which stay apart
under colour-vision deficiency. Any other code gets a colour from a stable hash. Two hashed colours
can come close, so a figure never says by colour alone what it does not also write. Classes have
four of the colours of Okabe and Ito, and a marker symbol each. In changes, worse is orange and
better is blue, whichever sign worse has.

`frame` gives a figure its title and notes twice: drawn above the plot, and as data in
``figure.layout.meta``, from where `lensneurons.reports` and other pages read them:

    title      what the figure shows or finds, one sentence
    notes      what a reader has to know, a sentence each; the subtitle
    findings   lines with numbers that stand below the plot
    pixels     how much of the height the title and notes (above) and the findings (below) take

These texts are plain: neither broken into lines nor escaped. The templates are passed to each
figure; nothing is registered with plotly.
"""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import plotly.graph_objects as go

from lensneurons.errors import choose
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.plots.labels import entities, escape_label, headed, lines, plain

Theme = Literal["light", "dark"]

LANGUAGE_COLOURS = {
    "en": "#3f90da",
    "ru": "#bd1f01",
    "es": "#ffa90e",
    "fr": "#832db6",
    "de": "#717581",
    "zh": "#e76300",
    "ja": "#a96b59",
    "bn": "#2fa5a8",  # Petroff's cyan, darkened to hold on white
    "th": "#b9ac70",
    "sw": "#94a4a2",
}
CLASS_COLOURS = {
    "unclassified": "#9aa0a6",
    "specific": "#d55e00",
    "related": "#0072b2",
    "agnostic": "#009e73",
}
CLASS_SYMBOLS = {"specific": "circle", "related": "square", "agnostic": "diamond"}
GREY = "#7a8190"

FONTS = (
    "Inter, Noto Sans, Open Sans, Noto Sans CJK SC, Noto Sans SC, Noto Sans CJK JP, Noto Sans JP, "
    "Noto Sans Thai, Noto Sans Bengali, Noto Sans Arabic, Noto Sans Hebrew, Noto Sans Devanagari, "
    "Noto Sans CJK KR, Noto Sans KR, system-ui, Helvetica, Arial, sans-serif"
)
WIDTH = 900


class Lines(NamedTuple):
    """Text above a figure: font size and height of a line in pixels, and characters a line."""

    size: int
    row: int
    width: int


TITLE, SUBTITLE = Lines(17, 24, 84), Lines(12, 17, 138)
ABOVE = 24  # pixels over the title
BELOW, FINDING_ROW = 52, 19  # pixels below a figure, and of each line written there

_INK = {
    "light": {"text": "#1f2430", "muted": "#5b6270", "grid": "#e6e8ec", "paper": "#ffffff"},
    "dark": {"text": "#e8eaed", "muted": "#a3abb8", "grid": "#333a45", "paper": "#15181d"},
}
_SEQUENTIAL = {
    "light": ["#f3f6fb", "#dfeaf6", "#bfd9ee", "#8fbfe0", "#559bcb", "#2a70ae", "#0f4582"],
    "dark": ["#1d222a", "#1c3f66", "#1f68a6", "#4d97c9", "#94c1e0", "#cfe0f1", "#f3f6fb"],
}
_DIVERGING = {
    "light": ["#0f4582", "#2a70ae", "#8fbfe0", "#f6f7f9", "#f3b183", "#d55e00", "#8a3800"],
    "dark": ["#a5cdf0", "#4d97c9", "#1d4a76", "#20252d", "#77370d", "#dd6c15", "#ffbe8c"],
}


def layout_of(figure: go.Figure) -> Any:
    """The layout of a figure, without the types that plotly's stubs lack."""
    return figure.layout


def language_colour(code: str) -> str:
    """The colour of a language, as ``"#rrggbb"``: the same in every figure, session and order."""
    if code in LANGUAGE_COLOURS:
        return LANGUAGE_COLOURS[code]
    number = zlib.crc32(code.encode("utf-8", "surrogatepass"))
    lightness = (0.40, 0.50, 0.60)[number // 360 % 3]
    red, green, blue = colorsys.hls_to_rgb(number % 360 / 360, lightness, 0.55)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))


def language_tick(code: str) -> str:
    """A language on an axis: a square of its colour and its code, escaped and at most 14 long."""
    return f'<span style="color:{language_colour(code)}">■</span> {escape_label(code, 14)}'


def ticks(texts: Sequence[str]) -> dict[str, Any]:
    """The settings of an axis with these texts at positions 0, 1, ..."""
    return {"tickmode": "array", "tickvals": [*range(len(texts))], "ticktext": [*texts]}


MANY_LANGUAGES = 45  # whose names need a smaller font


def language_ticks(languages: Sequence[str], *, down: bool = False) -> dict[str, Any]:
    """The settings of an axis whose positions 0, 1, ... are languages, across or down."""
    ends = (-0.5, len(languages) - 0.5)
    names = ticks([language_tick(code) for code in languages])
    if len(languages) > MANY_LANGUAGES:
        names["tickfont"] = {"size": 7}  # 9 pixels a language (`language_rows`)
    return {**names, "showgrid": False, "range": [*(ends[::-1] if down else ends)]}


def language_rows(n_languages: int, *, each: int, least: int, most: int) -> int:
    """Pixels of rows of languages: `each` for one, within bounds, but never too few for a name."""
    return max(min(max(each * n_languages, least), most), 9 * n_languages)


def layer_ticks(n_layers: int) -> dict[str, Any]:
    """The settings of an axis of layers: whole numbers, at most about 16 of them."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, n_layers) if n_layers <= 16 * step)
    return {"tick0": 0, "dtick": step, "range": [-0.5, n_layers - 0.5]}


def class_key(classes: Iterable[str], *, runs: bool = False) -> list[go.Scatter]:
    """Entries of a legend: the colours of classes, then before and after by their pattern."""
    entries = [(name, CLASS_COLOURS[name], "square") for name in dict.fromkeys(classes)]
    if runs:
        entries += [("before: striped", GREY, "hash-open"), ("after: solid", GREY, "square")]
    return [
        go.Scatter(
            x=[None], y=[None], mode="markers", name=name, hoverinfo="skip",
            marker={"symbol": symbol, "color": colour, "size": 11},
        )
        for name, colour, symbol in entries
    ]  # fmt: skip


def population_note(neurons: LanguageNeurons) -> str:
    """Model, population, tau and lambda in one sentence; visible, not escaped."""
    told = plain(neurons.description)
    if neurons.population == "all" and neurons.lambda_origin == "unbounded":
        told += "; lambda, which nothing bounds here, plays no part"
    return headed(neurons.provenance, told)


def frame(
    figure: go.Figure,
    title: str,
    notes: Sequence[str],
    *,
    findings: Sequence[str] = (),
    plot_height: int = 330,
    bottom: int = BELOW,
    legend: bool = False,
    room: int = 0,
) -> go.Figure:
    """Give a figure its title, notes, template and margins, and return it.

    Args:
        figure: the figure, changed in place.
        title: what the figure finds or shows; visible, not escaped, like all texts here.
        notes: sentences of the subtitle, each on a line of its own.
        findings: lines below the plot.
        plot_height: pixels of the plotting area.
        bottom: pixels between the plotting area and the findings.
        legend: whether there is a legend, which takes a row above the plotting area.
        room: pixels to leave free below the legend, for heads of panels.
    """
    head = lines(title, TITLE.width)
    rest = [line for sentence in notes for line in lines(sentence, SUBTITLE.width)]
    above = ABOVE + TITLE.row * len(head) + SUBTITLE.row * len(rest)
    below = FINDING_ROW * len(findings)
    top = above + room + (38 if legend else 18)
    for row, text in enumerate(findings):
        figure.add_annotation(
            name="finding", text=entities(text), x=0, xref="paper", xanchor="left", y=0,
            yref="paper", yanchor="top", yshift=8 - BELOW - FINDING_ROW * row, showarrow=False,
        )  # fmt: skip
    # plotly puts the first line of several 0.7 em higher than a line that stands alone
    heading = {
        "text": "<br>".join(head),
        "subtitle": {"text": "<br>".join(rest if len(rest) > 1 else [*rest, " "])},
        "pad": {"t": 14 if len(head) == 1 else 14 + 0.7 * TITLE.size, "l": 16},
    }
    return figure.update_layout(
        template=TEMPLATES["light"],
        title=heading,
        height=plot_height + top + bottom + below,
        margin={"t": top, "b": bottom + below},
        showlegend=legend,
        meta={
            "title": title,
            "notes": [*notes],
            "findings": [*findings],
            "pixels": {"above": above, "below": below},
        },
    )


def in_theme(figure: go.Figure, theme: Theme) -> go.Figure:
    """Copy a figure of this package onto a light or a dark ground.

    Raises:
        LensNeuronsError: no such theme.
    """
    choose(theme, ("light", "dark"), "theme")
    return go.Figure(figure).update_layout(template=TEMPLATES[theme])


def write_inside(figure: go.Figure, text: str) -> go.Figure:
    """Write a sentence into the middle of an empty figure, and return it."""
    return figure.add_annotation(
        text=entities(text), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
    )


def _template(theme: Theme) -> go.layout.Template:
    ink = _INK[theme]
    axis = {
        "gridcolor": ink["grid"],
        "linecolor": ink["grid"],
        "zeroline": False,
        "ticks": "",
        "ticklabelstandoff": 4,
        "automargin": True,
        "title": {"standoff": 10, "font": {"color": ink["muted"], "size": 13}},
        "tickfont": {"size": 12},
    }
    scale, diverging = (
        [[place / (len(colours) - 1), colour] for place, colour in enumerate(colours)]
        for colours in (_SEQUENTIAL[theme], _DIVERGING[theme])
    )
    bar = {"thickness": 12, "outlinewidth": 0, "title": {"side": "right"}, "tickfont": {"size": 11}}
    left_top = {"xanchor": "left", "yanchor": "top", "x": 0, "y": 1}
    return go.layout.Template(
        layout={
            "font": {"family": FONTS, "size": 13, "color": ink["text"]},
            "paper_bgcolor": ink["paper"],
            "plot_bgcolor": ink["paper"],
            "title": {
                "font": {"size": TITLE.size, "weight": 600},
                "subtitle": {"font": {"size": SUBTITLE.size, "color": ink["muted"]}},
                "xref": "container",
                "yref": "container",
                **left_top,
            },
            "margin": {"l": 64, "r": 32, "t": 80, "b": BELOW},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"orientation": "h", **left_top, "yanchor": "bottom"},
            "hoverlabel": {
                "font": {"family": FONTS, "size": 13},
                "align": "left",
                "namelength": -1,
            },
            "annotationdefaults": {"font": {"size": 12, "color": ink["muted"]}},
            "shapedefaults": {"line": {"color": ink["muted"]}},
            "barcornerradius": 2,
            "bargap": 0.18,
            "colorscale": {"diverging": diverging},
        },
        data={
            "bar": [{"error_y": {"color": ink["text"]}}],
            "heatmap": [{"colorscale": scale, "colorbar": bar, "xgap": 1, "ygap": 1}],
        },
    )


TEMPLATES: dict[str, go.layout.Template] = {theme: _template(theme) for theme in ("light", "dark")}
