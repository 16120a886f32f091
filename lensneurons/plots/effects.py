"""Deactivation matrices: what removing the neurons of one language does to every language.

Small multiples: a panel for each setting, and one on the same colours for its control, as many
random neurons. Cells of a language on itself have an outline. Where settings differ so much that
an even scale would leave one without colour, colours go by the square root; numbers never do. The
scale reaches at least three times the largest control, so that effects like it look like nothing.

What this does not show: a strong diagonal says that these neurons are needed for their language
more than random ones, not that nothing else is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from lensneurons.errors import choose
from lensneurons.experiments.ablation import UNITS, AblationMatrix
from lensneurons.plots.diverging import colour_changes, end_of_scale, needs_root, on_scale
from lensneurons.plots.findings import (
    find,
    headline,
    own_cells,
    write_control,
    write_setting,
    write_title,
)
from lensneurons.plots.grids import Grid
from lensneurons.plots.labels import entities, escape_label, full_name, plain
from lensneurons.plots.notes import MINUS, headed
from lensneurons.plots.style import frame, language_tick

Places = Int[np.ndarray, "_"]
Details = Float[np.ndarray, "row column detail"]
Order = Literal["clustered", "given"]
_NAMED = 14  # most languages whose full names leave a file small
_LABEL = 14  # longest label of a language on an axis


def ablation_effects(
    matrix: AblationMatrix, *, order: Order = "clustered", controls: bool = True
) -> go.Figure:
    """Effects of removing each language's neurons on each language, beside random neurons.

    Args:
        matrix: the effects.
        order: ``"clustered"`` puts rows of similar effects side by side (by the setting that the
            title is about), ``"given"`` keeps the order of the matrix. Columns that are rows come
            first, in the order of the rows, so that own cells are on the diagonal.
        controls: whether the control of every setting has a panel; its mean is told in any case.

    Returns:
        Heat maps with numbers in the cells where they fit; orange is worse, blue is better. Hover
        gives effect and control with their 95% intervals, and how many neurons were removed.

    Raises:
        LensNeuronsError: no such order, or fewer than two items, which have no interval.
    """
    choose(order, ("clustered", "given"), "order")
    found = find(matrix)
    setting = matrix.classes[headline(found)]
    clustered = order == "clustered" and len(matrix.rows) > 2
    first = list(matrix.language_order(setting) if clustered else matrix.rows)
    rows, columns = _places(matrix.rows, first), _places(matrix.languages, first)
    panels = _panels(matrix, rows, columns)
    effects = [panel.values[0] for panel in panels]
    root = needs_root(effects)
    grid = Grid(len(panels), len(rows), len(columns), controls)
    figure = go.Figure()
    for place, panel in enumerate(panels):
        for control in range(1 + controls):
            _draw(figure, grid, (place, bool(control)), panel, root)
    bottom = _ticks(figure, grid, matrix, (rows, columns))
    unit, up_is_worse = UNITS[matrix.metric], matrix.metric == "nll"
    most = end_of_scale(effects, [panel.values[1] for panel in panels])
    colour_changes(figure, most, unit, root=root, up_is_worse=up_is_worse, bottom=bottom)
    by = "; rows sorted by likeness" if clustered else ""
    worse = "positive" if up_is_worse else "negative"
    told = f"{unit}, {worse} is worse; outlined: a language on itself{by}"
    subtitle = [
        headed(matrix.provenance, told),
        *(write_setting(matrix, one, place) for place, one in enumerate(found)),
        write_control(matrix),
    ]
    title = write_title(matrix, found)
    return frame(figure, title, subtitle, plot_height=grid.height, bottom=bottom)


@dataclass(frozen=True)
class _Panel:
    """One setting: what the panels of its effects and of its controls show.

    Attributes:
        head: what it removes in addition to the setting before.
        values: effects and controls, [row, column] each.
        details: neurons, effect with its ends, control with its ends.
        names: row and column of every cell.
        own: cells of a language on itself.
    """

    head: str
    values: tuple[np.ndarray, np.ndarray]
    details: Details
    names: list[list[str]]
    own: np.ndarray


def _places(languages: Sequence[str], first: Sequence[str]) -> Places:
    """Places of languages, those of `first` first and in its order."""
    order = [languages.index(tag) for tag in first if tag in languages]
    rest = [place for place in range(len(languages)) if place not in order]
    return np.array([*order, *rest], np.int64)


def _panels(matrix: AblationMatrix, rows: Places, columns: Places) -> list[_Panel]:
    few = max(len(rows), len(columns)) <= _NAMED
    named, read = (
        [entities(full_name(k)) if few else escape_label(k, _LABEL) for k in languages]
        for languages in ([matrix.rows[i] for i in rows], [matrix.languages[i] for i in columns])
    )
    names = [[f"{row} → {column}" for column in read] for row in named]
    chosen = np.ix_(rows, columns)
    panels = []
    for place, setting in enumerate(matrix.classes):
        effect, control = matrix.interval(setting), matrix.control_interval(setting)
        sizes = np.broadcast_to(matrix.sizes[place][:, None], effect.estimate.shape)
        numbers = [sizes, effect.estimate, effect.low, effect.high]
        numbers += [control.estimate, control.low, control.high]
        details = np.stack([number[chosen] for number in numbers], axis=-1)
        panels.append(
            _Panel(
                ("+ " if place else "") + plain(setting, 24),
                (details[..., 1], details[..., 4]),
                details.astype(np.float32),
                names,
                own_cells(matrix)[chosen],
            )
        )
    return panels


def _draw(
    figure: go.Figure, grid: Grid, place: tuple[int, bool], panel: _Panel, root: bool
) -> None:
    """Add the effects of a setting, or its controls: cells, outline and head."""
    control = place[1]
    values = panel.values[control]
    axes = grid.axes(*place)
    figure.add_trace(_cells(panel, on_scale(values, root), _texts(values, grid), axes))
    if path := _outline(panel.own):
        x, y = axes.values()
        figure.add_shape(type="path", path=path, xref=x, yref=y, line={"width": 1.3})
    x, y = grid.corner(*place)
    head = entities(f"{panel.head}: random control" if control else panel.head)
    figure.add_annotation(
        text=f"<b>{head}</b>", x=x, y=y, xref="paper", yref="paper",
        xanchor="left", yanchor="bottom", showarrow=False,
    )  # fmt: skip


def _cells(
    panel: _Panel, placed: np.ndarray, written: dict[str, Any], axes: dict[str, str]
) -> go.Heatmap:
    return go.Heatmap(
        z=placed,
        coloraxis="coloraxis",
        customdata=panel.details,
        hovertext=panel.names,
        hovertemplate="removed → evaluated: %{hovertext}<br>"
        "%{customdata[0]:,} neurons: %{customdata[1]:+.4f} "
        "(95% %{customdata[2]:+.4f} to %{customdata[3]:+.4f})<br>"
        "random ones: %{customdata[4]:+.4f} (95% %{customdata[5]:+.4f} to %{customdata[6]:+.4f})"
        "<extra>%{fullData.name}</extra>",
        name=entities(panel.head),
        **written,
        **axes,
    )


def _texts(values: np.ndarray, grid: Grid) -> dict[str, Any]:
    """The numbers in the cells, or nothing where they do not fit."""
    texts = [[_cell(value) for value in row] for row in values.tolist()]
    size = grid.font_size(4)
    return {"text": texts, "texttemplate": "%{text}", "textfont": {"size": size}} if size else {}


def _cell(value: float) -> str:
    """A change in two digits: ``"1.2"``, ``".26"``, ``"−.03"``, ``".00"``; ``"–"`` for none."""
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    text = f"{size:.2f}".removeprefix("0") if size < 0.995 else f"{size:.{int(size < 9.95)}f}"
    return text if text == ".00" or value > 0 else MINUS + text


def _outline(own: np.ndarray) -> str:
    """A path around each cell of a language on itself."""
    corners = ((j - 0.5, i - 0.5) for i, j in np.argwhere(own))
    return "".join(f"M{x},{y}H{x + 1}V{y + 1}H{x}Z" for x, y in corners)


def _ticks(
    figure: go.Figure, grid: Grid, matrix: AblationMatrix, places: tuple[Places, Places]
) -> int:
    """Give all axes their languages, and return the pixels needed below the panels."""
    rows = [language_tick(matrix.rows[place]) for place in places[0].tolist()]
    columns = [language_tick(matrix.languages[place]) for place in places[1].tolist()]
    longest = min(max(map(len, matrix.languages)), _LABEL)
    short = longest <= 3
    if short:
        columns = [tick.replace("</span> ", "</span><br>", 1) for tick in columns]
    font = {"size": 11 if grid.panel_height / grid.rows < 18 else 12}
    x = _language_axis(columns, "evaluated", font)
    y = _language_axis(rows, "removed", font)
    y["range"] = y["range"][::-1]
    figure.update_layout(grid.layout({**x, "tickangle": 0 if short else -90}, y))
    return 36 + (30 if short else 30 + 7 * longest) + 74


def _language_axis(ticks: list[str], title: str, font: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "tickmode": "array",
        "tickvals": [*range(len(ticks))],
        "ticktext": ticks,
        "tickfont": font,
        "range": [-0.5, len(ticks) - 0.5],
        "showgrid": False,
    }
