"""In which language each layer would go on: the logit lens, along the layers.

Lines are the probability of tokens of one kind (`lensneurons.experiments.lens`), pooled over
the languages but the pivot or of one language; below them, one kind of tokens language by language.

What this does not show: that a model thinks in the pivot; see `lensneurons.experiments.lens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go

from lensneurons.errors import LensNeuronsError, choose
from lensneurons.experiments.lens import LensCurves, LensKind
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.bands import Look, line_with_band
from lensneurons.plots.class_lines import axis_name, panel_head, shade_parts, stack_panels
from lensneurons.plots.labels import counted, entities, full_name, listing, plain, spans
from lensneurons.plots.layers import evidence_lines, layer_profile, part_text, write_below
from lensneurons.plots.notes import headed, with_ends
from lensneurons.plots.style import (
    BELOW,
    KEY_ROW,
    frame,
    language_colour,
    language_ticks,
    layer_ticks,
    layout_of,
)
from lensneurons.uncertainty.groups import Interval

_LOOKS = {
    "own": Look("#d98e04", "solid", "circle"),
    "others": Look("#868d99", "dash", "square"),
    "shared": Look("#55a868", "dot", "triangle-up"),
    "rare": Look("#b08bbf", "dot", "cross"),
    "true": Look("#b8569f", "dashdot", "diamond"),
}
_NAMES = {
    "own": "own language",
    "others": "all other languages",
    "shared": "shared",
    "rare": "rare",
    "true": "the true next token",
}
_PROFILE, _LINES, _GAP = 170, 280, 62  # pixels


def lens_curves(
    curves: LensCurves,
    language: str | None = None,
    *,
    by_language: LensKind | None = None,
    neurons: LanguageNeurons | None = None,
    parts: LayerParts | None = None,
) -> go.Figure:
    """Probability of each kind of tokens in every layer.

    Args:
        curves: what `logit_lens` measured.
        language: the texts of one language; by default all but the pivot's, each language counting
            the same.
        by_language: the kind in the heat map; by default the pivot, without one the true token.
        neurons: identified neurons of the same model; their layer profile stands above.
        parts: what `divide_layers` gave for the same model. Found parts are shaded.

    Returns:
        Lines with 95% bands, bootstrapped over items; where they are of several languages, a heat
        map below has one kind of tokens by language, with intervals in the hover.

    Raises:
        LensNeuronsError: no such language or kind, neurons or parts of a model with other layers,
            or fewer than two items, which have no interval.
    """
    if language is not None:
        choose(language, curves.languages, "language")
    mapped: LensKind = by_language or ("pivot" if curves.pivot else "true")
    choose(mapped, curves.kinds, "kind")
    _require_layers(curves, neurons, parts)
    figure, heights, heads = go.Figure(), [_LINES], [_head(curves, language)]
    if neurons is not None:
        _add_profile(figure, neurons)
        heights, heads = [_PROFILE, *heights], ["neurons of the layer, all neurons", *heads]
    row = len(heights)
    _add_lines(figure, curves, language, row)
    rows = _rows(curves, mapped) if language is None else []
    if len(rows) > 1:
        heights.append(min(max(22 * len(rows), 66), 420))
        heads.append(f"{_name(curves, mapped)}, by language of the text")
    height = stack_panels(figure, heights, gap=_GAP)
    if len(rows) > 1:
        _add_map(figure, curves, mapped, rows, (len(heights), heights[-1] / height))
    for place, head in enumerate(heads):
        panel_head(figure, head, axis_name(place))
    key = _shade(figure, parts, row)
    told = [*_subtitle(curves, language), *evidence_lines(parts)]
    figure.update_layout(xaxis=layer_ticks(curves.n_layers), hovermode="x unified")
    frame(
        figure, _title(curves, language), told,
        plot_height=height, bottom=BELOW + KEY_ROW * len(key), legend=True,
    )  # fmt: skip
    return _place_legends(figure, heights, height)


def _require_layers(
    curves: LensCurves, neurons: LanguageNeurons | None, parts: LayerParts | None
) -> None:
    layers = {
        "neurons": None if neurons is None else neurons.n_layers,
        "parts": None if parts is None else len(parts.profile),
    }
    for name, n in layers.items():
        if n not in (None, curves.n_layers):
            raise LensNeuronsError(
                f"the {name} are of a model of {n} layers, the curves of one of "
                f"{curves.n_layers}: give those of the same model"
            )


def _add_profile(figure: go.Figure, neurons: LanguageNeurons) -> None:
    """The lines of the layer profile in the first panel."""
    profile = layer_profile(neurons)
    figure.add_traces(profile.data)
    axis = layout_of(profile).yaxis.to_plotly_json()
    figure.update_layout(yaxis={**axis, "title": {"text": "neurons"}})


def _rows(curves: LensCurves, kind: str) -> list[int]:
    """The languages that have a number of this kind."""
    return [i for i, k in enumerate(curves.languages) if (kind, k) != ("pivot", curves.pivot)]


def _name(curves: LensCurves, kind: str) -> str:
    """What a kind is called; visible, not escaped."""
    return full_name(curves.pivot or "") if kind == "pivot" else _NAMES[kind]


def _add_lines(figure: go.Figure, curves: LensCurves, language: str | None, row: int) -> None:
    """The lines of the kinds in a panel."""
    axis = axis_name(row - 1)
    for kind in curves.kinds:
        if kind == "pivot" and language is not None and language == curves.pivot:
            continue
        look = _LOOKS.get(kind) or Look(language_colour(curves.pivot or ""), "solid", "square")
        name = _name(curves, kind)
        drawn = line_with_band(
            np.arange(curves.n_layers), _found(curves, kind, language), name=entities(name),
            look=look, number=".3f", yaxis=axis, legend="legend2",
        )  # fmt: skip
        figure.add_traces(drawn)
    ticks = {"range": [-0.03, 1.03], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    figure.update_layout({f"yaxis{row}": {"title": "probability", **ticks}})


def _found(curves: LensCurves, kind: LensKind, language: str | None) -> Interval:
    """Mean probability [layer], pooled or of one language."""
    return _of(curves, curves.interval(kind, pooled=language is None), language)


def _of(curves: LensCurves, found: Interval, language: str | None) -> Interval:
    """One language of an interval [layer, language], or a pooled one as it is."""
    if language is None:
        return found
    place = curves.languages.index(language)
    ends = (one[:, place] for one in (found.estimate, found.low, found.high))
    return replace(found, **dict(zip(("estimate", "low", "high"), ends, strict=True)))


def _add_map(
    figure: go.Figure, curves: LensCurves, kind: LensKind, rows: list[int],
    panel: tuple[int, float],
) -> None:  # fmt: skip
    """One kind by language and layer, in the last panel, given with its share of the height."""
    found = curves.interval(kind)
    values, low, high = (one[:, rows].T for one in (found.estimate, found.low, found.high))
    codes = [curves.languages[place] for place in rows]
    named = [entities(full_name(code)) for code in codes]
    few = values.size < 2000
    trace = go.Heatmap(
        z=values.astype(np.float32),
        zmin=0,
        zmax=float(values.max()) or 1.0,
        customdata=np.stack([low, high], axis=-1).astype(np.float32),
        hovertext=[[name] * curves.n_layers for name in named] if few else None,
        hovertemplate=("%{hovertext}: " if few else "")
        + "%{z:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})<extra></extra>",
        colorbar={
            "len": panel[1], "lenmode": "fraction", "y": 0, "yanchor": "bottom", "nticks": 4,
        },
        name="by language",
        yaxis=axis_name(panel[0] - 1),
    )  # fmt: skip
    figure.add_trace(trace)
    axis = {**language_ticks(codes), "range": [len(codes) - 0.5, -0.5], "showgrid": False}
    axis["tickfont"] = {"size": 12 if len(codes) <= 19 else 9}
    figure.update_layout({f"yaxis{panel[0]}": axis})


def _shade(figure: go.Figure, parts: LayerParts | None, panels: int) -> list[str]:
    """Shade found parts in the panels of lines; the text about them for below the axis."""
    if parts is None or not parts.found:
        return []
    key = [part_text(part, parts) for part in parts.parts]
    shade_parts(figure, [(part.first, part.last) for part in parts.parts], key, panels=panels)
    write_below(figure, key)
    return key


def _place_legends(figure: go.Figure, heights: Sequence[int], height: int) -> go.Figure:
    """The legend of each panel over its head."""
    head = 20
    top = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "bottom"}
    profile = len(heights) > 1 and heights[0] == _PROFILE
    second = 1 - (_PROFILE + _GAP) / height if profile else 1.0
    return figure.update_layout(
        legend={**top, "y": 1 + head / height},
        legend2={**top, "y": second + head / height},
        margin={"t": layout_of(figure).margin.t + head},
        height=layout_of(figure).height + head,
    )


def _pivot(curves: LensCurves) -> str:
    return full_name(curves.pivot or "")


def _head(curves: LensCurves, language: str | None) -> str:
    if language is not None:
        return f"texts in {full_name(language)}"
    if curves.pivot in curves.languages and len(curves.languages) > 1:
        return f"mean over {len(curves.languages) - 1} languages other than {_pivot(curves)}"
    return f"mean over {counted(len(curves.languages), 'language')}"


def _title(curves: LensCurves, language: str | None) -> str:
    """Where the tokens of the pivot are more probable than those of the text's own language."""
    own = _found(curves, "own", language).estimate
    if curves.pivot is None or (language or list(curves.languages)) in (
        curves.pivot,
        [curves.pivot],
    ):
        told = f"Tokens of the text's own language: probability {own[0]:.2f} in the first layer"
        top = int(own.argmax())
        return f"{told}, {own[-1]:.2f} in the last, most in layer {top} ({own[top]:.2f})"
    gap = _of(curves, curves.difference("pivot", "own", pooled=language is None), language)
    lead, trail = np.flatnonzero(gap.low > 0), np.flatnonzero(gap.high < 0)
    if not lead.size:
        top = int(gap.estimate.argmax())
        mass = _found(curves, "pivot", language).estimate[top]
        return (
            f"In no layer are {_pivot(curves)} tokens measurably more probable than those of the "
            f"text's own language; closest in layer {top}: {mass:.2f} and {own[top]:.2f}"
        )
    told = f"{_pivot(curves)} tokens are more probable than those of the text's own language in "
    return f"{told}{_layers(lead)}, less probable in {_layers(trail)}"


def _layers(layers: np.ndarray) -> str:
    if not layers.size:
        return "no layer"
    named = spans(layers.tolist())
    return f"layer{'s' if len(layers) > 1 else ''} {named}" if named else f"{len(layers)} layers"


def _subtitle(curves: LensCurves, language: str | None) -> list[str]:
    items = counted(len(set(curves.item_ids)), "item")
    kinds = "own + other languages + shared + rare = 1"
    if curves.pivot:
        kinds = f"own + {plain(curves.pivot, 14)} + all others + shared + rare = 1"
    sizes = zip((*curves.owners, "shared", "rare"), curves.vocabulary.tolist(), strict=True)
    owned = listing((f"{plain(name, 14)} {n:,}" for name, n in sizes), most=14)
    return [
        headed(curves.provenance, plain(curves.description)),
        f"Next token read after every layer; {kinds}; bands: 95%, bootstrap over {items}",
        *_control(curves, language),
        f"Tokens of the vocabulary: {owned}",
    ]


def _control(curves: LensCurves, language: str | None) -> list[str]:
    """By how much the pivot exceeds a mean other language, where it does so most."""
    if curves.pivot is None or len(curves.owners) < 3 or language == curves.pivot:
        return []
    if curves.languages == (curves.pivot,):
        return []
    found = _of(curves, curves.pivot_lead(pooled=language is None), language)
    top = int(found.estimate.argmax())
    ends = with_ends(found.estimate[top], found.low[top], found.high[top])
    return [f"{_pivot(curves)} less one other language on average: most in layer {top}, {ends}"]
