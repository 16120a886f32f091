"""The strongest edges into a neuron on its card: a small graph that needs no script.

Earlier neurons stand on the left, the earliest first, and the neuron of the card on the right. A
line is as thick as its edge is strong in the language shown; one that lowers the argument is
dashed. Every number stands in words beside it, so the picture tells nothing by itself.

>>> card.with_edges(edges, neurons)                                      # doctest: +SKIP

What this does not show: edges among the earlier neurons, and those of other languages than the one
shown, which are in the value (`NeuronCard.edges`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lensneurons.cards.edges import NeuronEdges
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import LanguageNeurons

MOST = 8  # edges on a card
ROW, WIDTH, TEXT = 24, 560, 300  # pixels: a row, the picture, and where its lines begin
THICKEST = 7.0


@dataclass(frozen=True)
class CardEdge:
    """One edge on a card.

    Attributes:
        source: name of the earlier neuron.
        title: its class and languages, or nothing where they are not known.
        value: language to what it gives to the argument, in units of hook_pre.
        low: language to the lower end of the interval.
        high: language to the upper end.
    """

    source: str
    title: str
    value: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]


def card_edges(
    edges: NeuronEdges, name: str, neurons: LanguageNeurons | None
) -> tuple[CardEdge, ...]:
    """The strongest edges into a neuron, as its card keeps them.

    Args:
        edges: what `neuron_edges` gives.
        name: the neuron of the card.
        neurons: what tells the classes of the sources.

    Raises:
        LensNeuronsError: edges into another neuron.
    """
    if edges.target != name:
        raise LensNeuronsError(
            f"these are edges into {edges.target}, and the card is of {name}: neuron_edges(model,"
            f" corpus, {name!r})"
        )
    found = []
    parts = zip(edges.edges, edges.strength, edges.low, edges.high, strict=True)
    for source, *numbers in list(parts)[:MOST]:
        value, low, high = (
            dict(zip(edges.languages, map(float, row), strict=True)) for row in numbers
        )
        title = ""
        if neurons is not None:
            languages = neurons.languages_of(source)
            told = languages if len(languages) <= 4 else [f"in {len(languages)} languages"]
            title = " ".join([neurons.class_of(source), *told])
        found.append(CardEdge(source, title, value, low, high))
    return tuple(found)


def edge_graph(edges: Sequence[CardEdge], name: str, languages: Sequence[str]) -> dict[str, Any]:
    """What the card's template draws: rows of text, and lines with their places.

    Args:
        edges: of the card.
        name: the card's neuron.
        languages: those that are preferred, such as the owner; the first that the edges have is
            shown, else the one with the strongest edge.
    """
    told = edges[0].value
    strongest = max(told, key=lambda k: max(abs(edge.value[k]) for edge in edges))
    shown = next((k for k in languages if k in told), strongest)
    ordered = sorted(edges, key=lambda edge: int(edge.source[1:].split("N")[0]))
    most = max(abs(edge.value[shown]) for edge in ordered) or 1.0
    height = ROW * len(ordered)
    rows = []
    for number, edge in enumerate(ordered):
        value, low, high = (one[shown] for one in (edge.value, edge.low, edge.high))
        y, middle = ROW * (number + 0.5), (TEXT + WIDTH - 70) / 2
        ends = "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"
        rows.append(
            {
                "text": f"{edge.source} {edge.title}".strip(),
                "number": f"{value:+.3f}{ends}",
                "y": y,
                "path": f"M {TEXT} {y:.1f} C {middle:.0f} {y:.1f} {middle:.0f} {height / 2:.1f} "
                f"{WIDTH - 70} {height / 2:.1f}",
                "width": max(0.6, THICKEST * abs(value) / most),
                "lowers": value < 0,
            }
        )
    return {"rows": rows, "height": height, "width": WIDTH, "name": name, "language": shown}
