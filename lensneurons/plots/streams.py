"""What the residual stream holds, layer by layer: what it would say, and what it carries over.

`lens_curves` shows the logit lens: lines are the probability of each kind of tokens
(`lensneurons.experiments.lens`), pooled over the languages other than the pivot or of one language;
below them stands one kind of tokens language by language.

`carry_over` shows patching: lines are the shares of the outcomes among each other
(`lensneurons.experiments.carrying`), pooled over all pairs that have the same outcomes. Pairs whose
answer is written alike in both languages can show the answer travel but not its language, so they
have a panel of their own. Patching within one language is such a case, and the control of patching
across.

>>> ln.plots.lens_curves(curves, neurons=neurons, parts=parts)             # doctest: +SKIP
>>> ln.plots.carry_over(result, parts)                                     # doctest: +SKIP

What these do not show: that a model thinks in the pivot, or itself carries an answer this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lensneurons.errors import LensNeuronsError, choose
from lensneurons.experiments.carrying import CarryOver
from lensneurons.experiments.lens import LensCurves, LensKind
from lensneurons.experiments.outcome_groups import OutcomeGroup, outcome_groups
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.labels import entities, escape_label, full_name, headed, plain
from lensneurons.plots.numbers import counted, listing, named_layers, share, with_ends
from lensneurons.plots.panels import (
    SHARE_TICKS,
    Look,
    count_axis,
    line_with_band,
    stack,
)
from lensneurons.plots.profile import evidence, profile_lines, require_layers, shade_parts
from lensneurons.plots.style import frame, language_colour, language_ticks, layer_ticks
from lensneurons.uncertainty.groups import Interval

_HEAD = 20  # pixels above the first panel, for its head
_KINDS = {
    "own": ("own language", Look("#d98e04", "solid", "circle")),
    "others": ("all other languages", Look("#868d99", "dash", "square")),
    "shared": ("shared", Look("#55a868", "dot", "triangle-up")),
    "rare": ("rare", Look("#b08bbf", "dot", "cross")),
    "true": ("the true next token", Look("#b8569f", "dashdot", "diamond")),
}
_PROFILE, _LINES, _GAP = 170, 280, 62  # pixels of the panels of the lens


def lens_curves(
    curves: LensCurves,
    language: str | None = None,
    *,
    by_language: LensKind | None = None,
    neurons: LanguageNeurons | None = None,
    parts: LayerParts | None = None,
) -> go.Figure:
    """Draw the probability of each kind of tokens in every layer.

    Args:
        curves: what `logit_lens` measured.
        language: the texts of one language; by default all but the pivot's, each language counting
            the same.
        by_language: the kind in the heat map; by default the pivot, without one the true token.
        neurons: identified neurons of the same model; their layer profile stands above.
        parts: what `divide_layers` gave for the same model. Found parts are shaded.

    Returns:
        Lines with 95% bands, bootstrapped over items. If they are of several languages, a heat map
        below has one kind of tokens by language, with intervals in the hover.

    Raises:
        LensNeuronsError: no such language or kind, neurons or parts of a model with other layers,
            or fewer than two items, which have no interval.
    """
    if language is not None:
        choose(language, curves.languages, "language")
    mapped: LensKind = by_language or ("pivot" if curves.pivot else "true")
    choose(mapped, curves.kinds, "kind")
    if neurons is not None and neurons.n_layers != curves.n_layers:
        raise LensNeuronsError(
            f"the neurons are of a model of {neurons.n_layers} layers, the curves of one of "
            f"{curves.n_layers}: give those of the same model"
        )
    require_layers(parts, curves.n_layers, "the curves")
    heights, heads = [_LINES], [_lens_head(curves, language)]
    if neurons is not None:
        heights, heads = [_PROFILE, *heights], ["neurons of the layer, all neurons", *heads]
    lines = len(heights)  # the panel of the lines
    rows = [k for k in curves.languages if (mapped, k) != ("pivot", curves.pivot)]
    if has_map := language is None and len(rows) > 1:
        heights.append(min(max(22 * len(rows), 66), 420))
        heads.append(f"{_kind_name(curves, mapped)}, by language of the text")
    figure, height = stack(heights, gap=_GAP, heads=heads)
    if neurons is not None:
        profile = neurons.layer_profile("all")
        axis = count_axis(profile, "neurons of the layer")
        figure.add_traces(profile_lines(profile, axis), rows=1, cols=1)
        figure.update_layout(yaxis={**axis, "title": {"text": "neurons"}})
    for kind in curves.kinds:
        if kind == "pivot" and language is not None and language == curves.pivot:
            continue
        look = Look(language_colour(curves.pivot or ""), "solid", "square")
        drawn = line_with_band(
            np.arange(curves.n_layers), _mass(curves, kind, language),
            name=entities(_kind_name(curves, kind)), number=".3f", legend="legend2",
            look=_KINDS[kind][1] if kind in _KINDS else look,
        )  # fmt: skip
        figure.add_traces(drawn, rows=lines, cols=1)
    figure.update_yaxes(title="probability", **SHARE_TICKS, row=lines)
    if has_map:
        part = heights[-1] / height
        figure.add_trace(_lens_map(curves, mapped, rows, part), row=len(heights), col=1)
        names, font = language_ticks(rows, down=True), {"size": 12 if len(rows) <= 19 else 9}
        figure.update_yaxes(**names, tickfont=font, row=len(heights))
    figure.update_xaxes(**layer_ticks(curves.n_layers))
    figure.update_xaxes(title="layer", row=len(heights))
    findings = shade_parts(figure, parts, rows=range(1, lines + 1))
    second = 1 - (_PROFILE + _GAP) / height if lines == 2 else 1.0  # top of the lines
    place = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "bottom"}
    figure.update_layout(
        hovermode="x unified",
        legend={**place, "y": 1 + _HEAD / height},
        legend2={**place, "y": second + _HEAD / height},
    )
    return frame(
        figure, _lens_title(curves, language), [*_lens_notes(curves, language), *evidence(parts)],
        findings=findings, plot_height=height, legend=True, room=_HEAD,
    )  # fmt: skip


def _kind_name(curves: LensCurves, kind: str) -> str:
    """What a kind is called; visible, not escaped."""
    return full_name(curves.pivot or "") if kind == "pivot" else _KINDS[kind][0]


def _mass(curves: LensCurves, kind: LensKind, language: str | None) -> Interval:
    """Mean probability [layer], pooled or of one language."""
    return _of(curves, curves.interval(kind, pooled=language is None), language)


def _of(curves: LensCurves, found: Interval, chosen: str | list[str] | None) -> Interval:
    """One language or some of an interval [layer, language], or a pooled one as it is."""
    if chosen is None:
        return found
    find = curves.languages.index
    place = find(chosen) if isinstance(chosen, str) else [find(code) for code in chosen]
    estimate, low, high = (one[:, place] for one in (found.estimate, found.low, found.high))
    return replace(found, estimate=estimate, low=low, high=high)


def _lens_map(curves: LensCurves, kind: LensKind, codes: list[str], part: float) -> go.Heatmap:
    """One kind by language and layer; its colour bar is a part of the height."""
    found = _of(curves, curves.interval(kind), codes)
    values, low, high = found.estimate.T, found.low.T, found.high.T
    few = values.size < 2000
    named = [[entities(full_name(code))] * curves.n_layers for code in codes]
    return go.Heatmap(
        z=values.astype(np.float32),
        zmin=0,
        zmax=float(values.max()) or 1.0,
        customdata=np.stack([low, high], axis=-1).astype(np.float32),
        hovertext=named if few else None,
        hovertemplate=("%{hovertext}: " if few else "")
        + "%{z:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})<extra></extra>",
        colorbar={"len": part, "lenmode": "fraction", "y": 0, "yanchor": "bottom", "nticks": 4},
        name="by language",
    )


def _lens_head(curves: LensCurves, language: str | None) -> str:
    if language is not None:
        return f"texts in {full_name(language)}"
    if curves.pivot in curves.languages and len(curves.languages) > 1:
        others = len(curves.languages) - 1
        return f"mean over {others} languages other than {_kind_name(curves, 'pivot')}"
    return f"mean over {counted(len(curves.languages), 'language')}"


def _lens_title(curves: LensCurves, language: str | None) -> str:
    """Where the tokens of the pivot are more probable than those of the text's own language."""
    own = _mass(curves, "own", language).estimate
    alone = [curves.pivot] in ([language], list(curves.languages))
    if curves.pivot is None or alone:
        told = f"Tokens of the text's own language: probability {own[0]:.2f} in the first layer"
        top = int(own.argmax())
        return f"{told}, {own[-1]:.2f} in the last, most in layer {top} ({own[top]:.2f})"
    pivot = _kind_name(curves, "pivot")
    gap = _of(curves, curves.difference("pivot", "own", pooled=language is None), language)
    lead, trail = np.flatnonzero(gap.low > 0).tolist(), np.flatnonzero(gap.high < 0).tolist()
    if not lead:
        top = int(gap.estimate.argmax())
        mass = _mass(curves, "pivot", language).estimate[top]
        return (
            f"In no layer are {pivot} tokens measurably more probable than those of the "
            f"text's own language; closest in layer {top}: {mass:.2f} and {own[top]:.2f}"
        )
    return (
        f"{pivot} tokens are more probable than those of the text's own language in "
        f"{named_layers(lead)}, less probable in {named_layers(trail)}"
    )


def _lens_notes(curves: LensCurves, language: str | None) -> list[str]:
    items = counted(len(set(curves.item_ids)), "item")
    kinds = "own + other languages + shared + rare = 1"
    if curves.pivot:
        kinds = f"own + {plain(curves.pivot, 14)} + all others + shared + rare = 1"
    notes = [
        headed(curves.provenance, plain(curves.description)),
        f"Next token read after every layer; {kinds}; bands: 95%, bootstrap over {items}",
    ]
    in_pivot = curves.pivot == language or curves.languages == (curves.pivot,)
    if curves.pivot is not None and len(curves.owners) > 2 and not in_pivot:
        found = _of(curves, curves.pivot_lead(pooled=language is None), language)
        top = int(found.estimate.argmax())
        ends = with_ends(found.estimate[top], found.low[top], found.high[top])
        pivot = _kind_name(curves, "pivot")
        notes.append(f"{pivot} less one other language on average: most in layer {top}, {ends}")
    sizes = zip((*curves.owners, "shared", "rare"), curves.vocabulary.tolist(), strict=True)
    owned = listing((f"{plain(name, 14)} {n:,}" for name, n in sizes), most=14)
    return [*notes, f"Tokens of the vocabulary: {owned}"]


_OUTCOME_LOOKS = {
    "both": Look("#d98e04", "solid", "circle"),
    "concept": Look("#b8569f", "solid", "diamond"),
    "language": Look("#3f9bd1", "dash", "square"),
    "neither": Look("#868d99", "dot", "triangle-up"),
}
_OTHERS = (Look("#55a868"), Look("#8172b3", "dash"), Look("#a05a2c", "dashdot", "cross"))
_MEANING = {
    "both": "answer and language of the source are carried",
    "concept": "its answer alone",
    "language": "its language alone",
    "neither": "nothing",
}
_MOST = 3  # panels


def carry_over(result: CarryOver, parts: LayerParts | None = None) -> go.Figure:
    """Draw how probable each outcome is after patching each layer, against no patch.

    Args:
        result: what `carry_over` measured.
        parts: what `divide_layers` gave for the same model. Found parts are shaded.

    Returns:
        A panel for the pairs of each choice of outcomes, the one with most outcomes first: lines
        with 95% bands (bootstrap over pairs of items), dotted levels without a patch, and how much
        of the probability the outcomes hold together.

    Raises:
        LensNeuronsError: the parts have other layers than the result, or fewer than two pairs of
            items, which have no interval.
    """
    n_layers = len(result.log_probability)
    require_layers(parts, n_layers, "the result")
    groups = outcome_groups(result)[:_MOST]
    several = len(groups) > 1
    heads = [_told_pairs(group) for group in groups] if several else []
    figure, height = stack([280] * len(groups), gap=40, heads=heads)
    for row, group in enumerate(groups, start=1):
        for place, outcome in enumerate(group.outcomes):
            lines = _outcome_lines(group, outcome, place, shown=row == 1)
            figure.add_traces(lines, rows=row, cols=1)
        figure.add_trace(_together(group).update(showlegend=row == 1), row=row, col=1)
    figure.update_yaxes(title="share", **SHARE_TICKS)
    figure.update_xaxes(**layer_ticks(n_layers))
    figure.update_xaxes(title="patched layer", row=len(groups))
    findings = shade_parts(figure, parts, rows=range(1, len(groups) + 1))
    room = _HEAD if several else 0
    figure.update_layout(hovermode="x unified", legend={"y": 1 + room / height})
    return frame(
        figure, _carry_title(groups[0]), [*_carry_notes(result, groups), *evidence(parts)],
        findings=findings, plot_height=height, legend=True, room=room,
    )  # fmt: skip


def _told_pairs(group: OutcomeGroup) -> str:
    """How many pairs, and into which languages; visible, not escaped."""
    result = group.result
    there = [result.languages[place] for place in np.unique(result.language)]
    names = listing(map(full_name if len(there) < 5 else plain, there))
    alike = "" if {"both", "language"} & set(group.outcomes) else ", answers written alike"
    return f"{counted(len(result.items), 'pair')} into {names}{alike}"


def _outcome_lines(
    group: OutcomeGroup, outcome: str, place: int, *, shown: bool
) -> list[go.Scatter]:
    """The level of an outcome without a patch, and its line with its band."""
    found, level = group.share(outcome), group.unpatched(outcome)
    look = _OUTCOME_LOOKS.get(outcome, _OTHERS[place % len(_OTHERS)])
    name, layers = escape_label(outcome, 24), np.arange(len(found.estimate))
    drawn = line_with_band(layers, found, name=name, look=look, number=".2f")
    drawn[-1].update(showlegend=shown)
    flat = go.Scatter(
        x=[-0.5, len(layers) - 0.5],
        y=[level, level],
        mode="lines",
        line={"color": look.colour, "width": 1.3, "dash": "dot"},
        name=f"{name} without a patch",
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )
    return [flat, *drawn]


def _together(group: OutcomeGroup) -> Any:
    """How probable the outcomes are together: if this is small, shares are about little."""
    return go.Scatter(
        x=np.arange(len(group.together)),
        y=group.together,
        mode="lines",
        line={"color": "#868d99", "width": 1},
        name="probability of all together",
        legendgroup="together",
        hovertemplate="all together: probability %{y:.3f}<extra></extra>",
    )


def _carry_title(group: OutcomeGroup) -> str:
    """In which layers answer and language are carried, and where the answer comes alone."""
    outcomes = set(group.outcomes)
    if not {"both", "concept"} & outcomes or "neither" not in outcomes:
        last, name = max((group.share(name).estimate[-1], name) for name in group.outcomes)
        before = group.unpatched(name)
        told = f"Patching the last layer makes {plain(name, 24)} most probable"
        return f"{told}: share {last:.2f}, without a patch {before:.2f}"
    carried = group.carried("both", "concept")
    told = f"Patching {named_layers(carried)} carries the source's answer over"
    if not {"both", "language"} & outcomes:
        return f"{told}; it is written alike in both languages"
    answer, language = group.share("both", "concept"), group.share("both", "language")
    told += f", patching {named_layers(group.carried('both', 'language'))} its language"
    alone = [layer for layer in carried if answer.low[layer] > 0.5 > language.high[layer]]
    return f"{told}: in {named_layers(alone)} the answer comes alone" if alone else told


def _carry_notes(result: CarryOver, groups: Sequence[OutcomeGroup]) -> list[str]:
    first = groups[0]
    asked = "the next token" if result.asked == "first" else "all tokens of each answer"
    shown = sum(len(group.result.items) for group in groups)
    pairs = _told_pairs(first) if len(groups) == 1 else counted(shown, "pair")
    told = f"{pairs}; share: probability of {asked} among the outcomes"
    if left := len(result.items) - shown:
        told += f"; {counted(left, 'other pair')} with other outcomes not shown"
    peak = ""
    if {"concept", "both"} <= set(first.outcomes):
        found = first.share("concept")
        top = int(found.estimate.argmax())
        ends = with_ends(found.estimate[top], found.low[top], found.high[top], share)
        before = first.unpatched("concept")
        peak = f"Concept is largest in layer {top}: {ends}, without a patch {before:.2f}; "
    items = counted(len(set(first.result.items)), "pair")
    notes = [
        headed(result.provenance, told),
        "; ".join(f"{name}: {_MEANING[name]}" for name in first.outcomes if name in _MEANING),
        _carried_note(first.outcomes),
        f"{peak}bands: 95%, bootstrap over {items} of items",
    ]
    if dropped := [f"{full_name(k)} {n}" for k, n in result.dropped.items() if n]:
        notes.append(f"Left out, as outcomes begin alike: {listing(dropped)}")
    return [note for note in notes if note]


def _carried_note(outcomes: Sequence[str]) -> str:
    """When a layer is said to carry answer or language, in the outcomes that are there."""
    if "neither" not in outcomes:
        return ""
    sums = []
    for alone, what in (("concept", "answer"), ("language", "language")):
        there = [name for name in ("both", alone) if name in outcomes]
        sums += [f"{' + '.join(there)} ({what})"] if there else []
    told = f"Carried over: {' or '.join(sums)} above one half, and above its level without a patch"
    return f"{told} (dotted)" if sums else ""
