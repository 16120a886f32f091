"""What a report is made of: the values it shows, and tabs of sections with figures and tables.

Plain values, so that what is on the report can be tested without reading HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from lensneurons.cards.card import NeuronCard
from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.coupled_layers import LayerCoupling
from lensneurons.comparison.coupled_neurons import Coupling
from lensneurons.comparison.paper_claims import Claims
from lensneurons.comparison.series import ComparisonSeries
from lensneurons.evaluation.answers import Accuracy
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.carrying import CarryOver
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.method_comparison import MethodComparison
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.experiments.without import Continuations
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.labels import plain
from lensneurons.plots.numbers import Cell
from lensneurons.samples.profiles import PublishedProfile
from lensneurons.views.explorer import Explorer

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

MOST_ROWS = 200  # of a table behind a figure; the values themselves have all of them
_SIGNS = {
    "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
    "\t": "\N{RIGHTWARDS ARROW TO BAR}",
}
_ISOLATED = re.compile("\u2068([^\u2068\u2069]*)\u2069")


@dataclass(frozen=True)
class ReportValues:
    """The values that one report shows; all but the neurons may be missing. See `report`."""

    neurons: LanguageNeurons
    parts: LayerParts | None = None
    cards: Sequence[NeuronCard] = ()
    effects: Sequence[AblationMatrix] = ()
    comparison: Comparison | None = None
    claims: Claims | None = None
    series: ComparisonSeries | None = None
    accuracy: Accuracy | None = None
    steering: SteeringCurve | None = None
    carry_over: CarryOver | None = None
    lens: LensCurves | None = None
    beside: Mapping[str, LanguageNeurons | PublishedProfile] = field(default_factory=dict)
    explorer: Explorer | None = None
    methods: MethodComparison | None = None
    coupling: Coupling | None = None
    layer_coupling: LayerCoupling | None = None
    agreement: MethodAgreement | None = None
    continuations: Sequence[Continuations] = ()
    aligned_accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Table:
    """A small table: numbers with their units in the head, or words.

    Attributes:
        head: names of the columns.
        rows: the cells; None and NaN are shown as a dash.
        caption: what it holds.
        left_out: number of rows that were left out, at the end.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    left_out: int = 0

    @cached_property
    def wordy(self) -> tuple[bool, ...]:
        """Which columns hold words and stand to the left."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.head)
        return tuple(any(isinstance(cell, str | bool) for cell in column) for column in columns)


def table_of(frame: pd.DataFrame, caption: str = "", *, most: int = MOST_ROWS) -> Table:
    """Make a table of a data frame, without its index.

    Args:
        frame: any; underscores in the names of its columns become spaces.
        caption: what it holds.
        most: rows to show; how many are left out is kept.
    """
    shown = frame.head(most)
    rows = zip(*(shown[name].tolist() for name in shown), strict=True)
    head = tuple(str(name).replace("_", " ") for name in shown)
    return Table(head, tuple(rows), caption, len(frame) - len(shown))


@dataclass(frozen=True)
class Section:
    """One thing to look at.

    Attributes:
        heading: what it is about, a few words.
        text: how to read it.
        figure: a figure of `lensneurons.plots`, or None.
        tables: its numbers, behind a click.
        open_tables: tables that are always open.
        least_width: pixels below which the figure is scrolled and not narrowed further.
    """

    heading: str
    text: str
    figure: Figure | None = None
    tables: tuple[Table, ...] = ()
    open_tables: tuple[Table, ...] = ()
    least_width: int = 0


@dataclass(frozen=True)
class Tab:
    """Sections that are read together; `name` is the fragment of its address."""

    name: str
    heading: str
    sections: tuple[Section, ...]


def visible(text: str) -> str:
    """Show everything in a text, so that nothing in it is hidden; twice is the same as once.

    Control characters, lone surrogates, direction overrides and other characters without a shape
    become signs or escapes. Joiners that are part of how Persian, Bengali or emoji are written
    stay, and so do the isolates that `plain` puts around names that run from right to left.
    """

    def seen(part: str) -> str:
        return "".join(c if c.isprintable() else _SIGNS.get(c) or plain(c) for c in part)

    found, end = [], 0
    for isolated in _ISOLATED.finditer(text):
        found += [seen(text[end : isolated.start()]), f"\u2068{seen(isolated[1])}\u2069"]
        end = isolated.end()
    return "".join([*found, seen(text[end:])])
