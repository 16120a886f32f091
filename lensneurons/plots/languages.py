"""The neurons of each language: where they are, what they share, and one of them alone.

`neuron_map` counts neurons by layer and language, so its size does not depend on their number; its
zoom shows one layer neuron by neuron. `overlap` compares languages pair by pair: similar ones stand
side by side, and two empty sets have no overlap, which is not a zero. `neuron_probabilities` shows
one neuron against tau (Figure 1 of arXiv 2505.21505).

>>> import lensneurons as ln
>>> sample = ln.load_sample("gemma-3-270m")
>>> whole, one = ln.plots.neuron_map(sample.neurons), ln.plots.neuron_map(sample.neurons, layer=12)
>>> figure = ln.plots.overlap(sample.neurons, "dice")
>>> figure = ln.plots.neuron_probabilities(sample.neurons, "L12N345", statistics=sample.statistics)

What these do not show: that a neuron matters for a language; interventions do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.neurons.language_neurons import CLASSES, LanguageNeurons, Overlap
from lensneurons.options import plain_options
from lensneurons.plots.labels import entities, full_name, plain
from lensneurons.plots.numbers import counted, layer_runs, listing, short_number, small_share
from lensneurons.plots.panels import error_bars, opens
from lensneurons.plots.style import (
    CLASS_COLOURS,
    class_key,
    frame,
    language_colour,
    language_rows,
    language_ticks,
    layer_ticks,
    population_note,
    write_inside,
)
from lensneurons.plots.units import says_unit
from lensneurons.uncertainty.groups import Interval, jackknife

Order = Literal["clustered", "given"]
MOST_NEURONS = 600
_MOST_WRITTEN = 32  # languages whose numbers fit into the cells of a matrix
_MOST_NAMES = 32  # neurons whose names fit on the axis
_ABOVE = ("#7db8e8", "#2f7fc2", "#17508f")
_MEASURES = {
    "jaccard": ("Jaccard", "neurons of both / neurons of either"),
    "dice": ("Dice", "2 x neurons of both / sum of the two sets"),
    "containment": ("Containment", "share of the row's neurons that are the column's too"),
}


@says_unit
@plain_options
def neuron_map(neurons: LanguageNeurons, layer: int | None = None) -> go.Figure:
    """Draw where the language neurons of the population are, by layer and language.

    Args:
        neurons: the identified neurons; their population is the one that is shown.
        layer: zoom into this layer: one row a classified neuron, one column a language. Of more
            than 600 neurons 600 are shown, evenly spaced in the order of the figure.

    Returns:
        A heat map of counts, or of the probabilities of one layer.

    Raises:
        LensNeuronsError: the model has no such layer.
    """
    if layer is None:
        return _model_map(neurons)
    if not 0 <= layer < neurons.n_layers:
        raise LensNeuronsError(
            f"layer {layer} is outside a model of {neurons.n_layers} layers: "
            f"0 to {neurons.n_layers - 1}"
        )
    return _layer_map(neurons, layer)


def _model_map(neurons: LanguageNeurons) -> go.Figure:
    languages = neurons.languages
    specific, related = (
        np.stack([sets[code].per_layer() for code in languages])
        for sets in (neurons.specific, neurons.related)
    )
    total = specific + related
    names = np.array([[entities(full_name(code))] for code in languages], object)
    details = np.stack(np.broadcast_arrays(names, total, specific, related), axis=-1)
    least, most = int(total.min()), max(int(total.max()), int(total.min()) + 1)
    low, high = np.log1p([least, most]).tolist()
    # Ticks: both ends, and 1, 3, 10, 30, ... where they have room between them.
    steps = [step * 10**power for power in range(7) for step in (1, 3)]
    room = 0.06 * (high - low)
    marks = [least, *(m for m in steps if low + room < np.log1p(m) < high - room), most]
    cells = go.Heatmap(
        z=np.log1p(total).astype(np.float32),
        zmin=low,
        zmax=high,
        meta=opens(language=("y", map(plain, languages)), layer=("x", range(neurons.n_layers))),
        customdata=details.tolist(),
        hovertemplate="%{customdata[0]}, layer %{x}<br>%{customdata[1]:,} neurons: "
        "%{customdata[2]:,} specific, %{customdata[3]:,} related<extra></extra>",
        colorbar={
            "title": {"text": "neurons (log scale)"},
            "tickvals": np.log1p(marks),
            "ticktext": [f"{mark:,}" for mark in marks],
        },
    )
    figure = go.Figure(cells)
    figure.update_xaxes(title="layer", showgrid=False, **layer_ticks(neurons.n_layers))
    figure.update_yaxes(title="language", **language_ticks(languages, down=True))
    told = "Each cell: specific and related neurons of a language; a related one counts for several"
    notes = [population_note(neurons), told]
    height = language_rows(len(languages), each=24, least=150, most=560)
    return frame(figure, _map_title(neurons), notes, plot_height=height)


def _map_title(neurons: LanguageNeurons) -> str:
    """The fewest layers that hold half of the specific and related neurons."""
    per_layer = neurons.layer_profile()[:, :2].sum(axis=1)
    if not per_layer.any():
        return "No neuron of this population is specific or related to a language"
    order = np.argsort(-per_layer, kind="stable")
    enough = int(np.searchsorted(np.cumsum(per_layer[order]), per_layer.sum() / 2)) + 1
    layers = sorted(order[:enough].tolist())
    share = per_layer[layers].sum() / per_layer.sum()
    place = f"{enough} of {counted(neurons.n_layers, 'layer')}"
    where = f"{'layer ' if enough == 1 else ''}{layer_runs(layers) or 'scattered over the model'}"
    return f"{share:.0%} of the specific and related neurons are in {place}: {where}"


def _layer_map(neurons: LanguageNeurons, layer: int) -> go.Figure:
    # Classified neurons by class, then strongest language (agnostic ones have none), then p.
    codes = neurons.class_codes[layer]
    chosen = np.flatnonzero((codes > 0) & neurons.counted[layer])
    p = neurons.probability[layer, chosen]
    strongest = p.argmax(axis=1) * (codes[chosen] < 3)
    order = chosen[np.lexsort((-p.max(axis=1), strongest, codes[chosen]))]
    if not len(order):
        figure = write_inside(go.Figure(), "No neuron of this layer and population exceeds tau")
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
        title = f"Layer {layer} has no classified neuron in this population"
        return frame(figure, title, [population_note(neurons)], plot_height=150)
    shown = order
    if len(order) > MOST_NEURONS:
        evenly = np.linspace(0, len(order) - 1, MOST_NEURONS)
        shown = order[np.round(evenly).astype(np.int64)]
    kinds, p = codes[shown], neurons.probability[layer, shown]
    few, names = (
        len(shown) <= _MOST_NAMES,
        [neurons.name_of(layer, int(neuron)) for neuron in shown],
    )
    colours = [CLASS_COLOURS[name] for name in CLASSES]
    known = np.array([full_name(code) for code in neurons.languages], object)
    owners = [entities(listing(known[row], 4)) for row in neurons.above[layer, shown]]
    strip = go.Heatmap(
        z=kinds[:, None].astype(np.int8),
        y=names,
        x=[0],
        zmin=-0.5,
        zmax=3.5,
        colorscale=[[(i + j) / 4, c] for i, c in enumerate(colours) for j in (0, 1)],
        showscale=False,
        xgap=0,
        ygap=0,
        name="class",
        meta=opens(name=("y", names)),
        customdata=[[[CLASSES[c], o]] for c, o in zip(kinds, owners, strict=True)],
        hovertemplate="%{y}: %{customdata[0]}<br>above tau in %{customdata[1]}<extra></extra>",
    )
    tau = min(max(neurons.tau, 0.0), 1.0)  # the colours jump at it
    below = [[0.0, "rgba(128,134,145,.04)"], [tau, "rgba(128,134,145,.38)"]]
    above = [[tau + (1 - tau) * i / 2, colour] for i, colour in enumerate(_ABOVE)]
    ends = [end for end in (0, 1) if abs(end - tau) > 0.08]  # room for the label of tau
    cells = go.Heatmap(
        z=p.astype(np.float32),
        y=names,
        x=np.arange(len(neurons.languages)),
        xaxis="x2",
        zmin=0,
        zmax=1,
        colorscale=below + above,
        xgap=1,
        ygap=1 if few else 0,
        name="probability",
        meta=opens(name=("y", names)),
        hovertemplate="%{y}, %{x}<br>p = %{z:.4f}<extra></extra>",
        colorbar={
            "title": {"text": "activation probability p"},
            "tickvals": [neurons.tau, *ends],
            "ticktext": [f"tau {neurons.tau:.2f}", *map(str, ends)],
        },
    )
    figure = go.Figure([strip, cells])
    figure.add_traces(class_key(CLASSES[code] for code in np.unique(kinds)))
    figure.update_layout(
        xaxis={"domain": [0, 0.02], "visible": False},
        xaxis2={
            **language_ticks(neurons.languages),
            "title": "language",
            "domain": [0.03, 1],
        },
        yaxis={
            "type": "category",
            "autorange": "reversed",
            "title": "neuron" if few else "neurons",
            "showticklabels": few,
            "showgrid": False,
            "dtick": 1 if few else None,
        },
    )
    nouns = ("specific neuron", "related neuron", "agnostic neuron")
    numbers = zip(neurons.layer_profile()[layer].tolist(), nouns, strict=True)
    title = f"Layer {layer}: {listing(counted(n, name) for n, name in numbers)}"
    rule = "rows by class, then by strongest language, then by its p"
    told = f"Every classified neuron; {rule}"
    if len(shown) < len(order):
        some = f"{len(shown):,} of {len(order):,} classified neurons"
        told = f"{some}, evenly spaced in this order: {rule}"
    height = max(15 * len(shown), 150) if few else 420
    notes = [population_note(neurons), told]
    return frame(figure, title, notes, plot_height=height, legend=True)


@says_unit
def overlap(
    neurons: LanguageNeurons, measure: Overlap = "jaccard", *, order: Order = "clustered"
) -> go.Figure:
    """Draw the overlap of the neurons of each pair of languages, in the population.

    Args:
        neurons: the identified neurons; their population is the one that is compared.
        measure: ``"jaccard"``, ``"dice"`` or ``"containment"`` (rows in columns).
        order: ``"clustered"`` puts similar languages side by side, ``"given"`` keeps the order of
            the languages.

    Returns:
        A heat map with the numbers in its cells; the diagonal gives the sizes of the sets.

    Raises:
        LensNeuronsError: no such measure or order.
    """
    choose(measure, tuple(_MEASURES), "measure")
    choose(order, ("clustered", "given"), "order")
    given = neurons.languages
    languages = neurons.language_order(measure) if order == "clustered" else given
    places = [given.index(code) for code in languages]
    values, own = neurons.overlap_matrix(measure)[np.ix_(places, places)], np.eye(len(given)) == 1
    pairs = np.where(own, np.nan, values)
    sizes = neurons.shared.diagonal()[places].tolist()
    names = [entities(full_name(code)) for code in languages]
    rows = [f"{name}, {n:,} neurons" for name, n in zip(names, sizes, strict=True)]
    most = float(np.nanmax(pairs)) if np.isfinite(pairs).any() else 1.0
    k, few, label = len(languages), len(languages) <= 14, _MEASURES[measure][0]
    written = None  # a cell of more languages is narrower than its number
    if k <= _MOST_WRITTEN:
        written = [["" if np.isnan(v) else small_share(v) for v in row] for row in pairs]
    figure = go.Figure(
        go.Heatmap(
            z=pairs,
            zmin=0,
            zmax=most or 1.0,
            text=written,
            texttemplate=None if written is None else "%{text}",
            textfont={"size": 12 if few else 9},
            customdata=[[[row, column] for column in rows] for row in rows],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>"
            f"{measure} %{{z:.4f}}<extra></extra>",
            hoverongaps=False,
            colorbar={"title": {"text": f"{label} overlap"}},
            name="overlap",
        )
    )
    counts = [[f"n {short_number(n)}" for n in sizes]] * k
    told = [[f"{name}: {n:,} neurons"] * k for name, n in zip(names, sizes, strict=True)]
    undefined = np.isnan(values) & ~own
    nothing = np.full((k, k), "not defined: no neurons to share").tolist()
    figure.add_trace(_grey_cells(own, counts, told, "#d3d7de", "sizes"))
    figure.add_trace(_grey_cells(undefined, [["–"] * k] * k, nothing, "#eef0f3", "undefined"))
    figure.update_xaxes(**language_ticks(languages))
    figure.update_yaxes(**language_ticks(languages, down=True))
    if measure == "containment":
        figure.update_xaxes(title="are also neurons of").update_yaxes(title="neurons of")
    note = f"{label}: {_MEASURES[measure][1]}; diagonal: n neurons of the language"
    note += "; –: not defined, a set is empty" if np.isnan(values).any() else ""
    title = _overlap_title(languages, pairs, measure)
    notes = [population_note(neurons), note]
    height = language_rows(k, each=34, least=200, most=620)
    return frame(figure, title, notes, plot_height=height)


def _grey_cells(
    there: np.ndarray, words: list[list[str]], hover: list[list[str]], colour: str, name: str
) -> go.Heatmap:
    """Cells of one colour with words in them, where `there` is true."""
    return go.Heatmap(
        z=np.where(there, 0.0, np.nan),
        text=np.where(there, words, "").tolist() if len(words) <= _MOST_WRITTEN else None,
        texttemplate="%{text}" if len(words) <= _MOST_WRITTEN else None,
        textfont={"size": 11 if len(words) <= 14 else 8},
        customdata=np.where(there, hover, "").tolist(),  # cells that are not drawn say nothing
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        colorscale=[[0, colour], [1, colour]],
        showscale=False,
        name=name,
    )


def _overlap_title(
    languages: tuple[str, ...], pairs: Float64[np.ndarray, "row column"], measure: Overlap
) -> str:
    if not np.isfinite(pairs).any():
        return "No language has neurons in this population, so no overlap is defined"
    most = np.nanmax(pairs)
    if most == 0:
        return "No two languages share a neuron"
    row, column = np.unravel_index(np.nanargmax(pairs), pairs.shape)
    first, second = full_name(languages[row]), full_name(languages[column])
    if measure == "containment":
        return f"Largest containment: {most:.0%} of the neurons of {first} are also of {second}"
    return f"{first} and {second} share most: {_MEASURES[measure][0]} overlap {most:.2f}"


@says_unit
def neuron_probabilities(
    neurons: LanguageNeurons, name: str, *, statistics: ActivationStatistics | None = None
) -> go.Figure:
    """Draw the activation probability of one neuron in every language, against tau.

    Args:
        neurons: the identified neurons.
        name: a neuron such as ``"L12N345"``.
        statistics: what they were identified from; counts in two or more groups of items give
            every bar a 95% jackknife interval.

    Returns:
        One bar a language in its colour, pale where p does not exceed tau.

    Raises:
        LensNeuronsError: no such neuron, or statistics of other neurons or languages.
    """
    layer, neuron = divmod(neurons.flat_index(name), neurons.d_mlp)
    p, above = neurons.probability[layer, neuron], neurons.above[layer, neuron]
    interval = None if statistics is None else _interval(statistics, neurons, layer, neuron)
    named = [entities(full_name(code)) for code in neurons.languages]
    details = [named, np.where(above, "above", "not above").tolist()]
    hover, errors = "%{customdata[0]}<br>p = %{y:.4f}, %{customdata[1]} tau", None
    if interval is not None:
        hover += "<br>95% interval %{customdata[2]:.4f} to %{customdata[3]:.4f}"
        details += [interval.low.tolist(), interval.high.tolist()]
        errors = error_bars(interval)
    figure = go.Figure(
        go.Bar(
            x=np.arange(len(p)),
            y=p.copy(),
            error_y=errors,
            customdata=[*zip(*details, strict=True)],
            text=[f"{value:.2f}" for value in p],
            textposition="none" if interval is not None or len(p) > 16 else "outside",
            cliponaxis=False,
            marker={
                "color": [language_colour(code) for code in neurons.languages],
                "opacity": np.where(above, 1.0, 0.4),
            },
            hovertemplate=hover + "<extra></extra>",
        )
    )
    figure.add_hline(y=neurons.tau, line={"dash": "dash", "width": 1.5})
    figure.add_annotation(
        text=f"tau {neurons.tau:.4f}", x=1,
        xshift=6, xref="paper", y=neurons.tau, xanchor="left",
        yanchor="middle", showarrow=False,
    )  # fmt: skip
    places = {**language_ticks(neurons.languages), "range": [-0.6, len(p) - 0.4]}
    figure.update_xaxes(title="language", **places)
    top = max(1.0, float(p.max())) * 1.07
    figure.update_yaxes(title="activation probability p", range=[0, top], tickformat=".1f")
    selection = "" if neurons.selected[layer, neuron] else "not "
    told = f"This neuron is {selection}among the selected ones; {_precision(statistics, interval)}"
    frame(figure, _neuron_title(neurons, name), [population_note(neurons), told])
    return figure.update_layout(margin={"r": 96})


def _neuron_title(neurons: LanguageNeurons, name: str) -> str:
    above, k = neurons.languages_of(name), len(neurons.languages)
    owners = listing(map(plain if len(above) > 3 else full_name, above))
    return {
        "specific": f"{name} is specific to {owners}: above tau in no other language",
        "related": f"{name} is related to {len(above)} of {k} languages: {owners}",
        "agnostic": f"{name} is language-agnostic: above tau in all {len(above)} languages",
        "unclassified": f"{name} is unclassified: above tau in none of the {k} languages",
    }[neurons.class_of(name)]


def _precision(statistics: ActivationStatistics | None, interval: Interval | None) -> str:
    if statistics is None:
        return "no intervals were asked for"
    if interval is None:
        return "no intervals: the counts were kept in one group"
    return f"bars: 95% jackknife intervals over {statistics.n_groups} groups of items"


def _interval(
    statistics: ActivationStatistics, neurons: LanguageNeurons, layer: int, neuron: int
) -> Interval | None:
    """Jackknife interval of one neuron's probabilities, within [0, 1]; None with one group."""
    same = (statistics.n_layers, statistics.d_mlp) == (neurons.n_layers, neurons.d_mlp)
    if not same or set(statistics.languages) != set(neurons.languages):
        raise LensNeuronsError(
            f"the statistics are of {statistics.n_layers} layers x {statistics.d_mlp} neurons in "
            f"{list(statistics.languages)}, the neurons of {neurons.n_layers} x {neurons.d_mlp} in "
            f"{list(neurons.languages)}: give those that they were identified from"
        )
    one = statistics.of_neuron(layer, neuron).select(neurons.languages)
    if not np.array_equal(one.probability[0, 0], neurons.probability[layer, neuron]):
        raise LensNeuronsError(
            "the statistics give this neuron other probabilities than the neurons hold: give those "
            "that they were identified from"
        )
    if one.n_groups < 2:
        return None
    found = jackknife(one, lambda drawn: drawn.probability[0, 0])
    return replace(found, low=np.clip(found.low, 0, 1), high=np.clip(found.high, 0, 1))
