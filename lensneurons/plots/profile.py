"""Classes of neurons in one model: how many there are by layer, and by number of languages.

Let N be the number of languages in which a neuron exceeds tau. N = 0 is unclassified, 1 specific,
2 to K - 1 related, K agnostic. The layer profile counts all neurons, classified by N alone, because
the selected ones hold no agnostic neuron by construction. It shades the four parts of the model if
they were found; if not, the title says which of them were.

>>> import lensneurons as ln
>>> sample = ln.load_sample("gemma-3-270m")
>>> figure = ln.plots.layer_profile(sample.neurons, sample.parts)
>>> figure.layout.meta["title"]
'Of the four parts, 2 (layers 0–12) and 3 (layers 13–17) are there, 1 and 4 are undecided'
>>> paper = ln.samples.published_profile("mistral-7b")
>>> figure = ln.plots.layer_profiles({"Gemma": sample.neurons, "paper": paper})
>>> ln.plots.language_histogram(after, before=before)                      # doctest: +SKIP

What these do not show: that a layer computes what its part is named after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64, Int64

from lensneurons.comparison.class_counts import class_names
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.labels import plain
from lensneurons.plots.numbers import counted, listing, short_number, span
from lensneurons.plots.panels import count_axis, on_axis, opens, part_label, shade_layers, stack
from lensneurons.plots.style import (
    CLASS_COLOURS,
    CLASS_SYMBOLS,
    class_key,
    frame,
    layer_ticks,
    population_note,
)
from lensneurons.samples.profiles import PublishedProfile

_DASHES = {"specific": "solid", "related": "solid", "agnostic": "dash"}
_HEAD = 20  # pixels of the head of a panel


def layer_profile(neurons: LanguageNeurons, parts: LayerParts | None = None) -> go.Figure:
    """Draw the specific, related and agnostic neurons of every layer, over all neurons.

    Args:
        neurons: the identified neurons; their population does not matter here.
        parts: what `divide_layers` gave for them. Found parts are shaded, with the bootstrap
            intervals of their boundaries if there are any.

    Returns:
        Lines over layers; the count axis is logarithmic if counts differ much.

    Raises:
        LensNeuronsError: `parts` were made from another profile.
    """
    profile = neurons.layer_profile("all")
    if parts is not None and not np.array_equal(parts.profile, profile):
        raise LensNeuronsError(
            "these parts are of another profile than the neurons (another model, corpus or tau): "
            "call divide_layers on the same neurons"
        )
    axis = count_axis(profile, "neurons of the layer")
    figure = go.Figure(profile_lines(profile, axis))
    figure.update_xaxes(title="layer", **layer_ticks(len(profile)))
    figure.update_yaxes(**axis)
    findings = shade_parts(figure, parts, rows=[None], ends=True)
    notes = [population_note(neurons.with_population("all")), *evidence(parts)]
    figure.update_layout(hovermode="x unified")
    return frame(figure, _title(profile, parts), notes, findings=findings, legend=True)


def layer_profiles(models: Mapping[str, LanguageNeurons | PublishedProfile]) -> go.Figure:
    """Draw the classes of several models below each other, over the depth of their layers.

    Models differ in layers and width, so layers stand at their depth (the first at 0%, the last at
    100%), and a line gives the share of the layer's neurons.

    Args:
        models: name to the identified neurons, whose population does not matter here, or to a
            profile of `lensneurons.samples`.

    Returns:
        A panel for each model, on one logarithmic axis of shares.

    Raises:
        LensNeuronsError: no model, or something else than neurons or a published profile.
    """
    if not models:
        raise LensNeuronsError("no model to draw: give at least one, such as {'mine': neurons}")
    for name, one in models.items():
        if not isinstance(one, LanguageNeurons | PublishedProfile):
            raise LensNeuronsError(
                f"models[{name!r}] is a {type(one).__name__}: give what identify() or "
                "samples.published_profile() returns"
            )
    names = [plain(name, 40) for name in models]
    profiles = [profile_of(one) for one in models.values()]
    widths = [one.d_mlp for one in models.values()]
    axis = _share_axis([100 * n / width for n, width in zip(profiles, widths, strict=True)])
    heads = [
        f"{name}: {len(profile)} layers x {width} neurons"
        for name, profile, width in zip(names, profiles, widths, strict=True)
    ]
    figure, height = stack([150] * len(names), gap=46, heads=heads)
    for row, (profile, width) in enumerate(zip(profiles, widths, strict=True), start=1):
        lines = _share_lines(profile, width, axis, shown=row == 1)
        figure.add_traces(lines, rows=row, cols=1)
    figure.update_layout(hovermode="x unified", legend={"y": 1 + _HEAD / height})
    figure.update_yaxes(**axis)
    figure.update_xaxes(range=[-2, 102], ticksuffix="%", dtick=25)
    figure.update_xaxes(title="depth of the layer, first to last", row=len(names), col=1)
    notes = ["Share of each layer's neurons; all neurons count"]
    notes += [f"{name}: {_origin(one)}" for name, one in zip(names, models.values(), strict=True)]
    peaks = [f"{_depths(p)[p[:, 0].argmax()]:.0f}%" for p in profiles]
    told = listing(f"{where} in {name}" for name, where in zip(names, peaks, strict=True))
    title = f"Specific neurons are most frequent at a depth of {told}"
    return frame(figure, title, notes, plot_height=height, legend=True, room=_HEAD)


def _share_lines(
    profile: Int64[np.ndarray, "layer kind"], width: int, axis: dict[str, Any], *, shown: bool
) -> list[go.Scatter]:
    """A line over the depth for each class, on an axis of `_share_axis`."""
    share, low = 100 * profile / width, 10 ** axis["range"][0]
    return [
        go.Scatter(
            x=_depths(profile),
            y=np.maximum(share[:, column], low),
            customdata=np.stack([np.arange(len(profile)), profile[:, column]], axis=1),
            text=[f"{part:.2f}%" for part in share[:, column]],
            name=name,
            legendgroup=name,
            showlegend=shown,
            mode="lines+markers",
            line={"color": CLASS_COLOURS[name], "width": 2.2, "dash": _DASHES[name]},
            marker={"symbol": CLASS_SYMBOLS[name], "size": 6},
            cliponaxis=False,
            hovertemplate=f"layer %{{customdata[0]}}: %{{customdata[1]:,}} {name} (%{{text}})"
            "<extra></extra>",
        )
        for column, name in enumerate(LAYER_CLASSES)
    ]


def _depths(profile: Int64[np.ndarray, "layer kind"]) -> Float64[np.ndarray, " layer"]:
    """How far each layer is on the way from the first to the last one, in percent."""
    return np.linspace(0, 100, len(profile))


def profile_of(model: LanguageNeurons | PublishedProfile) -> Int64[np.ndarray, "layer kind"]:
    """Specific, related and agnostic neurons of each layer, among all neurons."""
    return model.profile if isinstance(model, PublishedProfile) else model.layer_profile("all")


def _origin(model: LanguageNeurons | PublishedProfile) -> str:
    """What a profile was counted on, in words."""
    if isinstance(model, PublishedProfile):
        return f"{model.texts}; tau {model.tau:.4f}; {model.source}"
    return population_note(model.with_population("all"))


def _share_axis(shares: Sequence[np.ndarray]) -> dict[str, Any]:
    """A logarithmic axis for the shares [layer, kind] of all models, in percent; 0 is its end."""
    every = np.concatenate([share.ravel() for share in shares])
    positive = every[every > 0]
    least, most = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 100.0)
    low = 0.5 * least
    steps = [step * 10.0**power for power in range(-4, 3) for step in (1, 3)]
    marks = [mark for mark in steps if least <= mark <= most]
    zero = [low] if (every == 0).any() else []
    return {
        "title": "share of the layer",
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(1.2 * most))],
        "tickvals": [*zero, *marks],
        "ticktext": [*("0" for _ in zero), *(f"{mark:g}%" for mark in marks)],
    }


def profile_lines(profile: Int64[np.ndarray, "layer kind"], axis: dict[str, Any]) -> list[Any]:
    """A line over the layers for each class, on an axis of `count_axis`."""
    return [
        go.Scatter(
            x=np.arange(len(profile)),
            y=on_axis(profile[:, column], axis),
            customdata=profile[:, column],
            meta=opens(**{"class": name}, layer=("x", range(len(profile)))),
            name=name,
            mode="lines+markers",
            line={"color": CLASS_COLOURS[name], "width": 2.2, "dash": _DASHES[name]},
            marker={"symbol": CLASS_SYMBOLS[name], "size": 7 if len(profile) < 60 else 5},
            cliponaxis=False,
            hovertemplate="%{customdata:,} " + name + "<extra></extra>",
        )
        for column, name in enumerate(LAYER_CLASSES)
    ]


def shade_parts(
    figure: go.Figure,
    parts: LayerParts | None,
    *,
    rows: Iterable[int | None],
    ends: bool = False,
) -> list[str]:
    """Shade found parts as `shade_layers` does, and return a line about each.

    `ends` draws the 95% intervals of their first layers.
    """
    if parts is None or not parts.found:
        return []
    told, intervals = [], []
    for part in parts.parts:
        text = f"{part.number}  {part_label(f'{part.name}: ', part.first, part.last)}"
        drawn = None if parts.draws is None else parts.draws[:, part.number - 1]
        if drawn is not None and part.number > 1 and (drawn >= 0).any():
            interval = parts.interval(part.number)
            text += f" (first layer, 95% of bootstrap draws: {span(*interval)})"
            intervals.append((part.first, *interval))
        told.append(text)
    spans = [(part.first, part.last) for part in parts.parts]
    shade_layers(figure, spans, told, rows=rows, ends=intervals if ends else ())
    return told


def evidence(parts: LayerParts | None) -> list[str]:
    """How well the parts are founded, as a note; none without parts."""
    if parts is None:
        return []
    verdicts = [criterion.verdict for criterion in parts.criteria]
    words = {"holds": "hold", "does not hold": "do not hold"}
    numbers = (f"{verdicts.count(v)} {words.get(v, v)}" for v in dict.fromkeys(verdicts))
    told = f"Of {len(verdicts)} criteria of the four parts: {listing(numbers)} (90% intervals)"
    enough = f"three segments fit as well with p = {parts.fewer_p:.2g}, cubic trends with p = "
    told += f"; {enough}{parts.trend_p:.2g}"
    if parts.draws is not None and parts.shares is not None:
        told += f"; all four are in {parts.shares[4]:.0%} of {len(parts.draws)} bootstrap draws"
    return [told]


def told_parts(parts: LayerParts) -> str:
    """``"2 (layers 0–12) and 3 (layers 13–17) are there, 1 is missing, 4 is undecided"``."""
    there = [part_label(f"{part.number} (", part.first, part.last) + ")" for part in parts.parts]
    told = [
        f"{listing(numbers)} {'is' if len(numbers) == 1 else 'are'} {status}"
        for status, numbers in (
            ("there", there),
            ("missing", [str(number) for number in parts.missing]),
            ("undecided", [str(number) for number in parts.undecided]),
        )
        if numbers
    ]
    told += [f"yet it does not hold that {c.claim}" for c in parts.failed if c.part == 0]
    return ", ".join(told)


def require_layers(parts: LayerParts | None, n_layers: int, what: str) -> None:
    """Raise unless parts are of a model of so many layers; `what` names the other value."""
    if parts is not None and len(parts.profile) != n_layers:
        raise LensNeuronsError(
            f"the parts are of a model of {len(parts.profile)} layers, {what} of one of "
            f"{n_layers}: give the parts of the same model"
        )


def _title(profile: Int64[np.ndarray, "layer kind"], parts: LayerParts | None) -> str:
    """The found parts, or why there are none; without parts, where each class peaks."""
    if parts is not None and parts.boundaries is not None:
        found = listing(span(first, last) for first, last in parts.boundaries)
        return f"The four parts of the model are layers {found}"
    if parts is not None:
        return f"Of the four parts, {told_parts(parts)}"
    there, absent = [], []
    for name, counts in zip(LAYER_CLASSES, profile.T, strict=True):
        peak = np.flatnonzero(counts == counts.max())
        where = f"layer{'s' if len(peak) > 1 else ''} {listing(peak)}"
        if counts.any():
            there.append(f"{name} in {f'{len(peak)} layers alike' if len(peak) > 3 else where}")
        else:
            absent.append(name)
    if not there:
        return "No neuron of this model is specific, related or agnostic"
    missing = f"; there are no {' or '.join(absent)} neurons" if absent else ""
    return f"Where neurons are most frequent: {listing(there)}{missing}"


def language_histogram(
    neurons: LanguageNeurons, *, before: LanguageNeurons | None = None
) -> go.Figure:
    """Draw how many neurons of the population exceed tau in N = 0, 1, ..., K languages.

    Args:
        neurons: the identified neurons; their population is the one that is counted.
        before: the neurons before a change such as alignment, drawn beside them from the same
            kind of population.

    Returns:
        Bars with their counts; the axis is logarithmic if counts differ much.

    Raises:
        LensNeuronsError: `before` is about other languages.
    """
    if before is not None and set(before.languages) != set(neurons.languages):
        raise LensNeuronsError(
            f"before is about {sorted(before.languages)}, the neurons about "
            f"{sorted(neurons.languages)}: a histogram of N compares the same languages"
        )
    shown = {"after" if before else "": neurons.histogram()}
    if before is not None:
        shown = {"before": before.histogram(neurons.population), **shown}
    axis = count_axis(np.concatenate([*shown.values()]), "neurons")
    k = len(neurons.languages)
    bars = len(shown) * (k + 1)
    look = {"short": bars > 13, "size": 11, "upright": bars <= 32}
    figure = go.Figure([class_bars(name, n, axis, **look) for name, n in shown.items()])
    figure.add_traces(class_key(class_names(k), runs=before is not None))
    marks = {"tick0": 0, "dtick": 1, "range": [-0.6, k + 0.6], "showgrid": False}
    figure.update_xaxes(title="N, number of languages with p > tau", **marks)
    figure.update_yaxes(**axis)
    figure.update_layout(barmode="group", uniformtext={"minsize": 9, "mode": "show"})
    if before is None:
        return frame(figure, _class_title(neurons), [population_note(neurons)], legend=True)
    old, new = (int(counts[2:].sum()) for counts in shown.values())
    title = f"Neurons above tau in two languages or more: {old:,} before, {new:,} after"
    each = "Each model has its own tau, so the share of p > tau is fixed: identify(..., tau=...)"
    notes = [
        f"Before: {population_note(before.with_population(neurons.population))}",
        f"After: {population_note(neurons)}",
        "One shared tau" if before.tau == neurons.tau else each,
    ]
    return frame(figure, title, notes, legend=True)


def class_bars(
    name: str,
    histogram: Int64[np.ndarray, " languages_above"],
    axis: dict[str, Any],
    *,
    short: bool,
    size: int,
    upright: bool,
) -> go.Bar:
    """A bar for each N in the colour of its class, striped in the run before.

    Args:
        name: ``"before"``, ``"after"``, or nothing.
        histogram: neurons with N = 0, ..., K.
        axis: settings from `count_axis`.
        short: whether the counts above the bars are shortened.
        size: of their font.
        upright: whether they are written horizontally.
    """
    counts, classes = histogram.tolist(), class_names(len(histogram) - 1)
    return go.Bar(
        x=np.arange(len(counts)),
        y=on_axis(histogram, axis),
        customdata=[[f"{n:,}", kind] for n, kind in zip(counts, classes, strict=True)],
        text=[short_number(n) if short else f"{n:,}" for n in counts],
        textposition="outside",
        textangle=0 if upright else -90,
        textfont={"size": size},
        cliponaxis=False,
        name=name,
        showlegend=False,
        marker={
            "color": [CLASS_COLOURS[kind] for kind in classes],
            "pattern": {"shape": "/" if name == "before" else "", "size": 6, "solidity": 0.35},
        },
        hovertemplate="N = %{x}, %{customdata[1]}<br>%{customdata[0]} neurons"
        f"<extra>{name}</extra>",
    )


def _class_title(neurons: LanguageNeurons) -> str:
    histogram = neurons.histogram()
    if not histogram[1:].any():
        return f"All {counted(int(histogram[0]), 'neuron')} are unclassified: none exceeds tau"
    many = [histogram[1], histogram[2:-1].sum(), histogram[-1], histogram[0]]
    specific, related, agnostic, neither = (f"{int(n):,}" if n else "no" for n in many)
    middle = "" if len(histogram) == 3 else f" {related} related,"
    last = f"{agnostic} agnostic and {neither} unclassified neurons"
    return f"{specific} specific,{middle} {last}".capitalize()
