"""What a page is made of: tabs of sections, each with words, a figure, and its numbers as tables.

Plain values, so that what is on the page can be tested without reading HTML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

Cell = str | int | float | bool | None
MOST_ROWS = 200  # of a table behind a figure; the values themselves have all of them


@dataclass(frozen=True)
class Table:
    """A small table: numbers with their units in the head, or words.

    Attributes:
        head: names of the columns.
        rows: the cells; None and NaN are shown as a dash.
        caption: what it holds.
        left_out: rows that were left out, at the end.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    left_out: int = 0

    @property
    def wordy(self) -> tuple[bool, ...]:
        """Which columns hold words and stand to the left."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.head)
        return tuple(any(isinstance(cell, str | bool) for cell in column) for column in columns)


@dataclass(frozen=True)
class Section:
    """One thing to look at.

    Attributes:
        heading: what it is about, a few words.
        text: how to read it.
        figure: a figure of `lensneurons.plots`, or None.
        tables: its numbers: behind a click below a figure, open where there is none.
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


def table_of(frame: pd.DataFrame, caption: str = "", *, most: int = MOST_ROWS) -> Table:
    """A table of a data frame, without its index.

    Args:
        frame: any; underscores in the names of its columns become spaces.
        caption: what it holds.
        most: rows to show; how many are left out is kept.
    """
    shown = frame.head(most)
    rows = zip(*(shown[name].tolist() for name in shown), strict=True)
    head = tuple(str(name).replace("_", " ") for name in shown)
    return Table(head, tuple(rows), caption, len(frame) - len(shown))


def write_cell(cell: Cell) -> str:
    """A cell as it is shown: thousands with commas, fractions with three digits."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "–"
    if isinstance(cell, str):
        return cell
    whole = isinstance(cell, int) or abs(cell) >= 1000
    form = ",.0f" if whole else ".3f" if abs(cell) >= 0.001 or not cell else ".1e"
    return f"{cell:{form}}".replace("-", "\N{MINUS SIGN}")
