"""Deactivation matrices: what removing the neurons of one language does to every language.

Small multiples: a panel for each setting, and one with the same colours for its first control,
random neurons matched by how active they are in the row's language. Cells of a language on itself
have an outline; cells above or below what one more random set could do have bold numbers. Colours
are centred on zero. If the settings differ so much that an even scale would leave one without
colour, colours go by the square root; numbers never do. The scale reaches at least three times the
largest control, so that effects like it look like nothing.

The title says whether removing a set is more selective, harm to the own language less mean harm to
the others, than removing those random neurons. It calls them as active only where they are: where a
layer has none that match (`ControlWarning`), it says how active they are. The notes tell this from
a harm to the own language beyond theirs, and give the other controls. Everything is read from
the means of every setting (`lensneurons.experiments.setting_means`).

>>> ln.plots.ablation_effects(ln.ablation_matrix(model, corpus, neurons))  # doctest: +SKIP

What this does not show: a selective effect says that these neurons are needed for their language
more than for others, not that nothing else is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from lensneurons.errors import choose
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.controls import Match, worst_layer
from lensneurons.experiments.metrics import METRICS
from lensneurons.experiments.setting_means import SettingMeans, setting_means
from lensneurons.neurons.language_neurons import LAYER_CLASSES
from lensneurons.plots.labels import capital, entities, escape_label, full_name, headed, plain
from lensneurons.plots.numbers import (
    MINUS,
    counted,
    listing,
    share,
    signed,
    small_change,
    with_ends,
)
from lensneurons.plots.panels import opens, panels
from lensneurons.plots.style import WIDTH, frame, language_tick, ticks
from lensneurons.uncertainty.groups import Interval

Order = Literal["clustered", "given"]
_NAMED = 14  # most languages whose full names leave a file small
_LABEL = 14  # longest label of a language on an axis
_UNEVEN = 8  # largest change over that of the weakest panel, from which colours go by the root
_YARDSTICK = 3  # the scale reaches at least so many times the largest control
_KEY = 50  # pixels that the key of the colours takes


def ablation_effects(
    matrix: AblationMatrix, *, order: Order = "clustered", controls: bool = True
) -> go.Figure:
    """Draw the effects of removing each language's neurons on each language, and of random ones.

    Args:
        matrix: the effects.
        order: ``"clustered"`` puts rows of similar effects side by side (by the setting that the
            title is about), ``"given"`` keeps the order of the matrix. Columns that are rows come
            first, in the order of the rows, so that own cells are on the diagonal.
        controls: whether the control of every setting has a panel; its mean is told in any case.

    Returns:
        Heat maps with numbers in the cells if they fit; orange is worse, blue is better. Hover
        gives effect and control with their 95% intervals, and how many neurons were removed.

    Raises:
        LensNeuronsError: no such order.
    """
    choose(order, ("clustered", "given"), "order")
    means = setting_means(matrix)
    top = top_setting(matrix, means)  # what the title is about
    clustered = order == "clustered" and len(matrix.rows) > 2
    rows = [*(matrix.language_order(matrix.classes[top]) if clustered else matrix.rows)]
    columns = [k for k in dict.fromkeys([*rows, *matrix.languages]) if k in matrix.languages]
    cells = np.ix_([matrix.rows.index(k) for k in rows],
                   [matrix.languages.index(k) for k in columns])  # fmt: skip
    details = [_details(matrix, place, cells) for place in range(len(matrix.classes))]
    marks = [matrix.marked(one, matrix.matches[0])[cells] for one in matrix.classes]
    effects = [one[..., 1] for one in details]
    tops = [_largest(one) for one in effects]
    root = max(tops) > _UNEVEN * min(tops) > 0
    end = scale_end(effects, [one[..., 4] for one in details])
    grid = panel_grid(len(details), len(rows), len(columns), controls)
    figure = _panels(matrix, grid, controls)
    own, names = matrix.own_cells[cells], _names(rows, columns)
    corners = ((j - 0.5, i - 0.5) for i, j in np.argwhere(own))
    path = "".join(f"M{x},{y}H{x + 1}V{y + 1}H{x}Z" for x, y in corners)
    for number, numbers in enumerate(details):
        head = _head(matrix.classes[number], number)
        for control in range(1 + controls):
            row, col = grid.place(number, control)
            shown = numbers[..., 4 if control else 1]
            bold = np.zeros(shown.shape, bool) if control else marks[number]
            trace = _cells(head, numbers, names, shown, bold, grid.font_size(4))
            trace.update(z=_on_scale(shown, root), meta=opens(language=("y", map(plain, rows))))
            figure.add_trace(trace, row=row, col=col)
            if path:
                figure.add_shape(type="path", path=path, line={"width": 1.3}, row=row, col=col)
    unit, up_is_worse = METRICS[matrix.metric].unit, METRICS[matrix.metric].harm > 0
    bottom = _language_axes(figure, grid, rows, columns)
    _colour_key(figure, end, unit, root=root, up_is_worse=up_is_worse, bottom=bottom)
    told = f"{unit}, {'positive' if up_is_worse else 'negative'} is worse; outlined: a language on "
    told += f"itself{'; rows sorted by likeness' if clustered else ''}"
    items = matrix.too_few or f"in brackets: 95% over {counted(matrix.n_items, 'item')}"
    bold = sum(int(one.sum()) for one in marks)
    notes = [
        headed(matrix.provenance, told),
        told_beyond(matrix, means[top]),
        *(_told_setting(matrix, one, place) for place, one in enumerate(means)),
        "Selectivity: change in the own language less the mean of the others. Random neurons: as "
        f"many in every layer; panels show those {_told_panels(matrix)}; each item meets "
        f"sets of its own, {counted(matrix.draws, 'set')} in all; {items}",
        f"Bold ({counted(bold, 'cell')}): {multiplicity(matrix)}" if not matrix.too_few else "",
    ]
    title = headline(matrix, means[top])
    notes = [note for note in notes if note]
    return frame(figure, title, notes, plot_height=grid.height, bottom=bottom)


# What the means of a setting say


_MATCHED = {
    "own": "active in that language",
    "activity": "active on average over the languages",
    "layer": "of the same layers",
}


def as_active(matrix: AblationMatrix, setting: str, match: Match) -> str:
    """Say which random neurons stand in for those of a setting: ``"as active in that language"``.

    Where a layer of a row misses its match by more than `ControlWarning` lets pass, it says what
    they are instead: ``"less active in that language (p 0.83 against 0.97)"``, means over the rows.
    """
    if match == "layer":
        return _MATCHED[match]
    if not misses_match(matrix, setting, match):
        return f"as {_MATCHED[match]}"
    side, others = matrix.sides.index(match), len(matrix.identified) - 1
    p, elsewhere = matrix.mean_p(setting)[[0, side]].T
    if match == "activity" and others:
        p = (p + others * elsewhere) / (1 + others)
    ours, theirs = map(share, p.tolist())
    if ours == theirs:
        return f"about as {_MATCHED[match]}"
    return f"{'less' if p[1] < p[0] else 'more'} {_MATCHED[match]} (p {theirs} against {ours})"


def misses_match(matrix: AblationMatrix, setting: str, match: Match) -> bool:
    """Whether a layer of a row misses its match by more than `ControlWarning` lets pass."""
    side, place = matrix.sides.index(match), matrix.classes.index(setting)
    gaps = (
        worst_layer(rates, matrix.identified.index(row), match, side)
        for row, rates in zip(matrix.rows, matrix.rates[:, place].swapaxes(0, 1), strict=True)
    )
    return match != "layer" and any(gap.missed for gap in gaps if gap)


def _told_panels(matrix: AblationMatrix) -> str:
    """How active the random neurons of the panels are, and in which settings if that differs."""
    settings: dict[str, list[str]] = {}
    for one in matrix.classes:
        how = as_active(matrix, one, matrix.matches[0])
        settings.setdefault(how, []).append(matrix.name_of(one))
    if len(settings) == 1:
        return next(iter(settings))
    return " or ".join(f"{how}, for {listing(names)}," for how, names in settings.items())[:-1]


def top_setting(matrix: AblationMatrix, means: Sequence[SettingMeans]) -> int:
    """Place of the setting that a title is about: the one that goes farthest beyond its control.

    One whose control is not as active as the set, only where all are such. One that removes
    nothing, only where all do, and then the last.
    """
    if not matrix.sizes.any():
        return len(matrix.classes) - 1
    first = matrix.matches[0]
    removing = matrix.sizes.any(axis=1)
    matched = [not misses_match(matrix, one, first) for one in matrix.classes]
    fair = removing & np.array(matched)
    candidates = fair if fair.any() else removing
    beyond = [
        [float(one.selectivity_beyond_control[first].estimate) for one in means],
        [float(one.beyond_control[first].estimate) for one in means],
    ]
    known = next((x for x in beyond if np.isfinite(x).any()), [0.0] * len(means))
    return int(np.argmax(np.where(candidates, np.nan_to_num(known, nan=-np.inf), -np.inf)))


def removes_nothing(matrix: AblationMatrix, one: SettingMeans) -> bool:
    """Whether no language has neurons of a setting, so that its effects of 0 say nothing."""
    return not matrix.sizes[matrix.classes.index(_class_of(matrix, one))].any()


def _class_of(matrix: AblationMatrix, one: SettingMeans) -> str:
    """The class that a setting adds, by which the matrix knows it."""
    return next(name for name in matrix.classes if matrix.name_of(name) == one.setting)


def headline(matrix: AblationMatrix, one: SettingMeans) -> str:
    """What the matrix shows in one setting, or that it shows nothing; visible, not escaped."""
    if removes_nothing(matrix, one):
        return f"Nothing was removed: these languages have no {one.setting} neurons"
    match = matrix.matches[0]
    setting = _class_of(matrix, one)
    own, others, random = (
        signed(float(found.estimate)) for found in (one.own, one.others, one.random[match])
    )
    removing, unit = f"Removing {one.setting} neurons", METRICS[matrix.metric].short_unit
    controls = f"random neurons {as_active(matrix, setting, match)}"
    numbers = [] if np.isnan(one.own.estimate) else [f"{own} {unit} in the own language"]
    if np.isfinite(one.others.estimate):
        numbers.append(f"{others}{'' if numbers else f' {unit}'} in other languages")
    told = listing([*numbers, f"{random} with {controls}"])
    brief = listing([*numbers, f"{random} with random ones"])
    if matrix.too_few:
        return f"{removing}: {told} ({matrix.too_few})"
    whom = "other languages" if np.isnan(one.own.estimate) else "their own language"
    if not one.harm.low > 0:
        return f"{removing} does not measurably hurt {whom}: {told}"
    if np.isnan(one.selectivity.estimate):
        degree = _degree(one.beyond_control[match], one.beyond_p[match])
        return f"{removing} hurts {whom} {degree} than removing {controls}: {brief}"
    if one.selectivity.high < 0:
        return f"{removing} hurts other languages more than their own: {told}"
    if not one.selectivity.low > 0:
        return f"{removing} hurts their own language not measurably more than others: {told}"
    degree = _degree(one.selectivity_beyond_control[match], one.selectivity_p[match])
    both = (as_change(matrix, x) for x in (one.selectivity, one.control_selectivity[match]))
    mine, chance = (signed(float(found.estimate)) for found in both)
    return (
        f"{removing} is {degree} selective than removing {controls}: {mine} against {chance} {unit}"
    )


def told_beyond(matrix: AblationMatrix, one: SettingMeans) -> str:
    """Whether the set matters more to its language than its control, or only more selectively.

    Nothing where there is no interval, no other language, or nothing removed.
    """
    if removes_nothing(matrix, one):
        return ""
    match = matrix.matches[0]
    effect, selectivity = one.beyond_control[match], one.selectivity_beyond_control[match]
    if np.isnan(selectivity.low) or np.isnan(one.own.estimate):
        return ""
    harm, own = (
        interval_told(as_change(matrix, found)).replace(" (", ", ").rstrip(")") + doubt
        for found, doubt in (
            (effect, _doubt(effect, one.beyond_p[match])),
            (selectivity, _doubt(selectivity, one.selectivity_p[match])),
        )
    )
    controls = as_active(matrix, _class_of(matrix, one), match)
    controls = controls.replace("that language", "it")
    degree, selective = _degree(effect), _degree(selectivity)
    link = "and" if (degree == "more") == (selective == "more") else "but"
    return (
        f"{capital(one.setting)} neurons matter {degree} to their language than random neurons "
        f"{controls} ({harm}), {link} {selective} "
        f"selectively ({own})"
    )


def as_change(matrix: AblationMatrix, harm: Interval) -> Interval:
    """A difference of harms as one of changes, in the sign of the cells."""
    if METRICS[matrix.metric].harm > 0:
        return harm
    return Interval.of(-harm.estimate, -harm.high, -harm.low, harm.level, harm.method)


def multiplicity(matrix: AblationMatrix) -> str:
    """What a mark says, in one sentence; nothing where no cell has an interval."""
    if matrix.too_few:
        return ""
    return (
        "more, or less, than one more random set could do; among the "
        f"{counted(matrix.own_cells.size, 'cell')} of a setting, a false mark in at most 5% of "
        "matrices (Holm)"
    )


def _degree(found: Interval, p: float = 0.0) -> str:
    """Whether a set goes beyond the mean of random sets; with `p`, beyond one more of them too."""
    if not (found.low > 0 or found.high < 0) or p > 1 - found.level:
        return "not measurably more"
    return "more" if found.low > 0 else "less"


def _doubt(found: Interval, p: float) -> str:
    """A clause for a set beyond the mean of random sets that one more of them could equal."""
    clear = found.low > 0 or found.high < 0
    return "; another random set could do as much" if clear and p > 1 - found.level else ""


def _told_setting(matrix: AblationMatrix, means: SettingMeans, place: int) -> str:
    """The means of a setting with their intervals; visible, not escaped."""
    named = {"own language": means.own, "others": means.others}
    told = [f"{name} {interval_told(found)}" for name, found in named.items()]
    if np.isfinite(means.selectivity.estimate):
        chance = (
            f"{m} {interval_told(as_change(matrix, x))}"
            for m, x in means.control_selectivity.items()
        )
        mine = interval_told(as_change(matrix, means.selectivity))
        told.append(f"selectivity {mine}; that of random neurons by match: {', '.join(chance)}")
    else:
        chance = (f"{match} {interval_told(found)}" for match, found in means.random.items())
        told.append(f"random neurons by match: {', '.join(chance)}")
    empty = [row for row, n in zip(matrix.rows, matrix.sizes[place], strict=True) if not n]
    lacking = f"; none to remove for {listing(map(full_name, empty))}" if empty else ""
    return capital(f"{means.setting}: {', '.join(told)}{lacking}")


def interval_told(found: Interval, write: Callable[[float], str] = signed) -> str:
    """A number with its interval, as `lensneurons.plots.numbers.with_ends` writes it."""
    return with_ends(float(found.estimate), float(found.low), float(found.high), write)


# The cells


def _details(matrix: AblationMatrix, place: int, cells: tuple[np.ndarray, ...]) -> np.ndarray:
    """Float [row, column, 7]: neurons, effect with its ends, control with its ends."""
    setting = matrix.classes[place]
    effect, control = matrix.interval(setting), matrix.control_interval(setting)
    ends = [getattr(one, k) for one in (effect, control) for k in ("estimate", "low", "high")]
    return np.stack(np.broadcast_arrays(matrix.sizes[place][:, None], *ends), axis=-1)[cells]


def _names(rows: list[str], columns: list[str]) -> list[list[str]]:
    """Row and column of every cell, by their full names if there are few languages."""
    few = max(len(rows), len(columns)) <= _NAMED
    removed, read = (
        [entities(full_name(k)) if few else escape_label(k, _LABEL) for k in codes]
        for codes in (rows, columns)
    )
    return [[f"{row} → {column}" for column in read] for row in removed]


def _cells(
    name: str,
    details: np.ndarray,
    names: list[list[str]],
    shown: np.ndarray,
    bold: np.ndarray,
    size: int,
) -> go.Heatmap:
    """The cells of a panel, with their numbers in them if a size of the font fits."""
    texts = [[small_change(value) for value in row] for row in shown.tolist()]
    for i, j in np.argwhere(bold):
        texts[i][j] = f"<b>{texts[i][j]}</b>"
    inside = {"text": texts, "texttemplate": "%{text}", "textfont": {"size": size}}
    return go.Heatmap(
        coloraxis="coloraxis",
        customdata=details.astype(np.float32),
        hovertext=names,
        hovertemplate="removed → evaluated: %{hovertext}<br>"
        "%{customdata[0]:,} neurons: %{customdata[1]:+.4f} "
        "(95% %{customdata[2]:+.4f} to %{customdata[3]:+.4f})<br>"
        "random ones: %{customdata[4]:+.4f} (95% %{customdata[5]:+.4f} to %{customdata[6]:+.4f})"
        "<extra>%{fullData.name}</extra>",
        name=entities(name),
        **(inside if size else {}),
    )


# Where the panels stand, and their axes


@dataclass(frozen=True)
class PanelGrid:
    """Panels with cells about square, in pixels, for a figure of the usual width.

    Settings stand side by side, each over its control. If their cells would get too narrow, they
    stand below each other, each beside its control.
    """

    stacked: bool  # whether settings are below each other
    across: int  # panels side by side
    down: int  # panels below each other
    cell: float  # width of a cell
    row: float  # height of a cell
    panel: float  # height of a panel

    HEAD = 32  # pixels between panels that are below each other, for the head of the lower one
    GAP = 0.03  # between panels that are side by side, as a share of the width

    @property
    def height(self) -> int:
        """Height of all panels."""
        return round(self.down * self.panel + (self.down - 1) * self.HEAD)

    def place(self, setting: int, control: int) -> tuple[int, int]:
        """Row and column of a panel among the panels, from 1."""
        row, column = (setting, control) if self.stacked else (control, setting)
        return row + 1, column + 1

    def font_size(self, longest: int) -> int:
        """Size of numbers of so many characters that fits the cells; 0 if none does."""
        narrow = 0.85  # a page on a phone is narrower, and its numbers must fit as well
        room = min(self.cell * narrow / (0.58 * longest), 0.62 * self.row)
        return min(int(room), 12) if room >= 8 else 0


def panel_grid(settings: int, rows: int, columns: int, controls: bool) -> PanelGrid:
    """Arrange a panel of `rows` x `columns` cells for every setting, with or without controls."""
    stacked = settings == 1 or settings * columns > 30  # more leave no room for numbers
    across, down = 1 + controls, settings
    if not stacked:
        across, down = down, across
    margins = 64 + 32
    cell = (WIDTH - margins) * (1 - PanelGrid.GAP * (across - 1)) / across / columns
    panel = float(min(max(min(cell, 36) * rows, 72), 520))
    return PanelGrid(stacked, across, down, cell, panel / rows, panel)


def _head(setting: str, place: int) -> str:
    """What a panel removes: classes in addition to the one before."""
    return ("+ " if place and setting in LAYER_CLASSES else "") + plain(setting, 24)


def _head_of_control(matrix: AblationMatrix, setting: str) -> str:
    match = matrix.matches[0]
    told = {"activity": "mean activity", "layer": "same layers"}
    return told.get(match) or as_active(matrix, setting, match).partition(" in ")[0]


def _panels(matrix: AblationMatrix, grid: PanelGrid, controls: bool) -> go.Figure:
    heads = [[""] * grid.across for _ in range(grid.down)]
    for number, setting in enumerate(matrix.classes):
        for control in range(1 + controls):
            row, column = grid.place(number, control)
            random = f": random, {_head_of_control(matrix, setting)}" if control else ""
            heads[row - 1][column - 1] = f"{_head(setting, number)}{random}"
    return panels(
        heads, shared_xaxes="all", shared_yaxes="all", horizontal_spacing=grid.GAP,
        vertical_spacing=grid.HEAD / grid.height,
    )  # fmt: skip


def _language_axes(
    figure: go.Figure, grid: PanelGrid, rows: Sequence[str], columns: Sequence[str]
) -> int:
    """Give all axes their languages, and return the pixels needed below the panels."""
    longest = min(max(map(len, columns)), _LABEL)
    short, across = longest <= 3, [language_tick(code) for code in columns]
    if short:
        across = [tick.replace("</span> ", "</span><br>", 1) for tick in across]
    shared = {"tickfont": {"size": 11 if grid.row < 18 else 12}, "showgrid": False}
    down = ticks([language_tick(code) for code in rows])
    figure.update_xaxes(range=[-0.5, len(columns) - 0.5], tickangle=0 if short else -90)
    figure.update_xaxes(**ticks(across), **shared)
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], **down, **shared)
    figure.update_xaxes(title="evaluated", row=grid.down).update_yaxes(title="removed", col=1)
    return 36 + (30 if short else 30 + 7 * longest) + 74


# Colours


def _largest(changes: np.ndarray) -> float:
    return float(np.abs(changes[np.isfinite(changes)]).max(initial=0.0))


def scale_end(effects: list[np.ndarray], controls: list[np.ndarray]) -> float:
    """The change at the ends of a scale on which effects like those of the controls stay pale."""
    most = max(map(_largest, effects))
    return max(most, _YARDSTICK * max(map(_largest, controls))) or 1.0


def _on_scale(changes: np.ndarray, root: bool) -> np.ndarray:
    """Where changes stand on the scale, float32: as they are, or their signed square roots."""
    placed = np.sign(changes) * np.sqrt(np.abs(changes)) if root else changes
    return np.asarray(placed, np.float32)


def _colour_key(
    figure: go.Figure, most: float, title: str, *, root: bool, up_is_worse: bool, bottom: int
) -> None:
    """Give all panels one colour axis, with its key at the bottom.

    The colours themselves belong to the templates, so they follow the theme.
    """
    figure.add_annotation(
        text=title + (" (colours by the square root)" if root else ""), x=0.5, xref="paper",
        y=0, yref="paper", yshift=_KEY - bottom, yanchor="bottom", showarrow=False,
    )  # fmt: skip
    marks: dict[str, Any] = {"nticks": 7}
    if root:  # both ends, their quarters and sixteenths, and zero: evenly spaced by the root
        parts = np.array([-1, -1 / 4, -1 / 16, 0, 1 / 16, 1 / 4, 1]) * most
        signs = [MINUS if part < 0 else "+" if part > 0 else "" for part in parts]
        texts = [f"{sign}{abs(part):.2g}" for sign, part in zip(signs, parts, strict=True)]
        marks = {"tickvals": _on_scale(parts, True), "ticktext": texts}
    key = {
        "orientation": "h",
        "thickness": 10,
        "outlinewidth": 0,
        "len": 0.6,
        "x": 0.5,
        "yref": "container",
        "y": 0.0,
        "yanchor": "bottom",
        "ticklen": 0,
        **marks,
    }
    end = float(_on_scale(np.array(most), root))
    axis = {"autocolorscale": True, "reversescale": not up_is_worse, "cmin": -end, "cmax": end}
    figure.update_layout(coloraxis={**axis, "colorbar": key})
