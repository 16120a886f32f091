"""Where the panels of a deactivation matrix stand: small multiples with cells about square.

Settings stand side by side, each over its control; where their cells would get too narrow, below
each other, each beside its control. All sizes are for a figure of the usual width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lensneurons.plots.style import WIDTH

_MARGINS = 64 + 32  # pixels left and right of the panels
_GAP = 0.03  # between panels that are side by side, as a share of the width
_HEAD = 32  # pixels between panels that are below each other, for the head of the lower one
_SIDE_BY_SIDE = 30  # most columns of cells side by side that leave room for numbers
_NARROWER = 0.85  # a page on a phone is narrower, and its numbers must fit as well


@dataclass(frozen=True)
class Grid:
    """Panels of `rows` x `columns` cells for every setting, with or without controls."""

    settings: int
    rows: int
    columns: int
    controls: bool

    @property
    def stacked(self) -> bool:
        """Whether settings are below each other, with controls beside them."""
        return self.settings == 1 or self.settings * self.columns > _SIDE_BY_SIDE

    @property
    def across(self) -> int:
        """Panels side by side."""
        return 1 + self.controls if self.stacked else self.settings

    @property
    def down(self) -> int:
        """Panels below each other."""
        return self.settings if self.stacked else 1 + self.controls

    @property
    def cell(self) -> float:
        """Width of a cell in pixels."""
        return (WIDTH - _MARGINS) * self._width / self.columns

    @property
    def panel_height(self) -> float:
        """Height of a panel in pixels: of square cells, within reason."""
        return float(min(max(min(self.cell, 36) * self.rows, 72), 520))

    @property
    def height(self) -> int:
        """Height of all panels in pixels."""
        return round(self.down * self.panel_height + (self.down - 1) * _HEAD)

    def font_size(self, longest: int) -> int:
        """Size of numbers of so many characters that fits the cells; 0 where none does."""
        room = min(self.cell * _NARROWER / (0.58 * longest), 0.62 * self.panel_height / self.rows)
        return min(int(room), 12) if room >= 8 else 0

    def place(self, setting: int, control: bool) -> tuple[int, int]:
        """Row and column of a panel among the panels."""
        return (setting, int(control)) if self.stacked else (int(control), setting)

    def axes(self, setting: int, control: bool) -> dict[str, str]:
        """The axes of a panel: x is shared by the panels below each other, y by those beside."""
        row, column = self.place(setting, control)
        return {"xaxis": _axis("x", column), "yaxis": _axis("y", row)}

    def layout(self, x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
        """All axes, which move together; titles and ticks below and left of the panels alone.

        Args:
            x: settings of every horizontal axis.
            y: settings of every vertical axis.
        """
        axes: dict[str, Any] = {}
        for column in range(self.across):
            anchor, matches = _axis("y", self.down - 1), None if column == 0 else "x"
            place = {"domain": self._across(column), "anchor": anchor, "matches": matches}
            axes[_axis("x", column).replace("x", "xaxis")] = {**x, **place}
        for row in range(self.down):
            matches = None if row == 0 else "y"
            place = {"domain": self._down(row), "anchor": "x", "matches": matches}
            axes[_axis("y", row).replace("y", "yaxis")] = {**y, **place}
        return axes

    def corner(self, setting: int, control: bool) -> tuple[float, float]:
        """Left upper corner of a panel, as shares of the width and height of all panels."""
        row, column = self.place(setting, control)
        return self._across(column)[0], self._down(row)[1]

    @property
    def _width(self) -> float:
        """Width of a panel as a share of all."""
        return (1 - _GAP * (self.across - 1)) / self.across

    def _across(self, column: int) -> list[float]:
        start = column * (self._width + _GAP)
        return [start, min(start + self._width, 1.0)]

    def _down(self, row: int) -> list[float]:
        top = 1 - row * (self.panel_height + _HEAD) / self.height
        return [max(top - self.panel_height / self.height, 0.0), top]


def _axis(letter: str, place: int) -> str:
    return letter if place == 0 else f"{letter}{place + 1}"
