"""How much the neurons of two languages have in common: a matrix of languages.

Similar languages are put side by side by average-linkage clustering on ``1 - overlap`` (mean of
both directions for containment). Two empty sets have no overlap: such a cell stays empty and says
so; it is not a zero.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Int

from lensneurons.errors import choose
from lensneurons.neurons.language_neurons import LanguageNeurons, Overlap
from lensneurons.plots.labels import entities, full_name, short_number
from lensneurons.plots.style import frame, language_ticks, population_note
from lensneurons.shapes import LanguageMatrix

Places = Int[np.ndarray, "language"]
Order = Literal["clustered", "given"]
_TEXT = {
    "jaccard": ("Jaccard", "neurons of both / neurons of either"),
    "dice": ("Dice", "2 x neurons of both / sum of the two sets"),
    "containment": ("Containment", "share of the row's neurons that are the column's too"),
}


def overlap(
    neurons: LanguageNeurons, measure: Overlap = "jaccard", *, order: Order = "clustered"
) -> go.Figure:
    """Overlap of the neurons of each pair of languages, in the population.

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
    choose(measure, tuple(_TEXT), "measure")
    choose(order, ("clustered", "given"), "order")
    values = neurons.overlap_matrix(measure)
    k = len(values)
    places = _clustered(values) if order == "clustered" else np.arange(k)
    values = values[np.ix_(places, places)]
    languages = [neurons.languages[place] for place in places]
    sizes = neurons.shared.diagonal()[places].tolist()
    figure = go.Figure(_pairs(languages, sizes, values, measure))
    figure.add_traces([_sizes(languages, sizes), _undefined(values)])
    ticks = {**language_ticks(languages), "showgrid": False}
    figure.update_xaxes(range=[-0.5, k - 0.5], **ticks)
    figure.update_yaxes(range=[k - 0.5, -0.5], **ticks)
    if measure == "containment":
        figure.update_xaxes(title="are also neurons of")
        figure.update_yaxes(title="neurons of")
    height = min(max(34 * k, 200), 620)
    title = _title(languages, values, measure)
    return frame(figure, title, _subtitle(neurons, values, measure), plot_height=height)


def _clustered(values: LanguageMatrix) -> Places:
    """An order of the languages in which similar ones are neighbours."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1.0 - np.nan_to_num((values + values.T) / 2)
    np.fill_diagonal(distance, 0.0)
    pairs = squareform(distance, checks=False)
    return leaves_list(linkage(pairs, "average", optimal_ordering=True))


def _off_diagonal(values: LanguageMatrix) -> LanguageMatrix:
    return np.where(np.eye(len(values), dtype=bool), np.nan, values)


def _pairs(
    languages: list[str], sizes: list[int], values: LanguageMatrix, measure: Overlap
) -> go.Heatmap:
    values = _off_diagonal(values)
    most = np.nanmax(values) if np.isfinite(values).any() else 1.0
    names = [entities(full_name(code)) for code in languages]
    rows = [f"{name}, {counted:,} neurons" for name, counted in zip(names, sizes, strict=True)]
    return go.Heatmap(
        z=values,
        zmin=0,
        zmax=float(most) or 1.0,
        text=[["" if np.isnan(v) else _cell(v) for v in row] for row in values],
        texttemplate="%{text}",
        textfont={"size": 12 if len(names) <= 14 else 9},
        customdata=[[[row, column] for column in rows] for row in rows],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>"
        f"{measure} %{{z:.4f}}<extra></extra>",
        hoverongaps=False,
        colorbar={"title": {"text": f"{_TEXT[measure][0]} overlap"}},
        name="overlap",
    )


def _cell(value: float) -> str:
    """``".28"``; a positive number that rounds to zero is not written as zero."""
    if 0 < value < 0.005:
        return "&lt;.01"
    return f"{value:.2f}".removeprefix("0") if value else "0"


def _sizes(languages: list[str], sizes: list[int]) -> go.Heatmap:
    """The diagonal: how many neurons a language has."""
    k = len(languages)
    grid = np.where(np.eye(k, dtype=bool), 0.0, np.nan)
    words = [
        [f"n {short_number(n)}" if i == j else "" for j in range(k)] for i, n in enumerate(sizes)
    ]
    named = [
        f"{entities(full_name(c))}: {n:,} neurons" for c, n in zip(languages, sizes, strict=True)
    ]
    return _grey(grid, words, [[name] * k for name in named], "#d3d7de", "sizes")


def _undefined(values: LanguageMatrix) -> go.Heatmap:
    """Pairs without a number: both sets, or the row's, are empty."""
    missing = np.isnan(values) & ~np.eye(len(values), dtype=bool)
    words = [["–" if cell else "" for cell in row] for row in missing]
    told = [["not defined: no neurons to share"] * len(row) for row in words]
    return _grey(np.where(missing, 0.0, np.nan), words, told, "#eef0f3", "undefined")


def _grey(
    grid: LanguageMatrix, words: list[list[str]], hover: list[list[str]], colour: str, name: str
) -> go.Heatmap:
    return go.Heatmap(
        z=grid,
        text=words,
        texttemplate="%{text}",
        textfont={"size": 11 if len(words) <= 14 else 8},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        colorscale=[[0, colour], [1, colour]],
        showscale=False,
        name=name,
    )


def _title(languages: list[str], values: LanguageMatrix, measure: Overlap) -> str:
    values = _off_diagonal(values)
    if not np.isfinite(values).any():
        return "No language has neurons in this population, so no overlap is defined"
    most = np.nanmax(values)
    if most == 0:
        return "No two languages share a neuron"
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    first, second = full_name(languages[row]), full_name(languages[column])
    if measure == "containment":
        return f"Largest containment: {most:.0%} of the neurons of {first} are also of {second}"
    return f"{first} and {second} share most: {_TEXT[measure][0]} overlap {most:.2f}"


def _subtitle(neurons: LanguageNeurons, values: LanguageMatrix, measure: Overlap) -> list[str]:
    told = f"{_TEXT[measure][0]}: {_TEXT[measure][1]}; diagonal: n neurons of the language"
    if np.isnan(values).any():
        told += "; –: not defined, a set is empty"
    return [population_note(neurons), told]
