"""The result of `ablation_matrix`: effects and controls of every text, and what follows from them.

Everything is kept by text, so that means, ratios and their intervals come from the same numbers:
one bootstrap over items draws all cells, their controls and every summary together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.item_intervals import ItemDraws
from lensneurons.intervals import Interval
from lensneurons.provenance import Provenance
from lensneurons.shapes import (
    Cells,
    DrawnCells,
    LanguageMatrix,
    SetSizes,
    TextEffects,
    TextNumbers,
    TextValues,
)
from lensneurons.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    import pandas as pd

KIND = "ablation matrix"
Metric = Literal["nll", "accuracy"]
UNITS = {"nll": "change of NLL, nats a token", "accuracy": "change of accuracy"}
ARRAYS = ("base", "effect", "control", "weight", "language", "sizes")


@dataclass(frozen=True, eq=False, repr=False)
class AblationMatrix:
    """Effects of removing each language's neurons on each language; immutable.

    A setting is the union of the classes up to its own: ``"related"`` removes the specific and the
    related neurons.

    Attributes:
        rows: languages whose neurons were removed.
        languages: languages that were evaluated, the columns.
        classes: the settings, by the class that each one adds.
        metric: what a cell measures: ``"nll"`` (nats a token) or ``"accuracy"`` (share of right
            answers in the right language).
        base: float64 [text], NLL (or 1 for a right answer) of the untouched model.
        effect: float64 [setting, row, text], what is added to it by the ablation.
        control: float64 [setting, row, text], what random sets add, mean over their draws.
        weight: float64 [text], counted tokens (or 1).
        language: int [text], number of each text's language.
        item_ids: name of each text's item.
        sizes: int64 [setting, row], neurons that were removed.
        draws: random sets of each control.
        provenance: model, corpus and scope.
    """

    rows: tuple[str, ...]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    metric: Metric
    base: TextValues
    effect: TextEffects
    control: TextEffects
    weight: TextValues
    language: TextNumbers
    item_ids: tuple[str, ...]
    sizes: SetSizes
    draws: int
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        for name in ARRAYS:
            view = getattr(self, name).view()  # the caller's own array stays writable
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def cells(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: mean effect in a setting; by default the last one.

        Raises:
            LensNeuronsError: no such setting; those that are get listed.
        """
        return self._cells(self.effect)[self._place(setting)]

    def control_cells(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: mean effect of random sets of the same size."""
        return self._cells(self.control)[self._place(setting)]

    def interval(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Cells with bootstrap intervals over items, [row, column]."""
        drawn = self._drawn[0][:, self._place(setting)]
        return self._resampling.interval(self.cells(setting), drawn, level)

    def control_interval(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Control cells with bootstrap intervals over items and draws, [row, column]."""
        drawn = self._drawn[1][:, self._place(setting)]
        return self._resampling.interval(self.control_cells(setting), drawn, level)

    def causal_ratio(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Effect over control, [row, column]; without meaning where a control is about 0."""
        return self._derive(_ratio, setting, level)

    def selectivity(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Effect on the own language over the largest effect on another, [row]."""
        return self._derive(lambda cells, _: self._selectivity(cells), setting, level)

    def summary(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a setting and figure: the estimate and its interval.

        Figures: mean diagonal, mean off-diagonal, mean diagonal of the control, the two ratios of
        the diagonal to them, and the English cell where English is a row.
        """
        import pandas as pd

        figures = self._figures
        rows = []
        for setting in self.classes:
            for name, figure in figures.items():
                found = self._derive(figure, setting, level)
                ends = (found.estimate, found.low, found.high)
                rows.append((self.name_of(setting), name, *(float(end) for end in ends)))
        return pd.DataFrame(rows, columns=["removed", "figure", "estimate", "low", "high"])

    def name_of(self, setting: str | None = None) -> str:
        """What a setting removes, such as ``"specific + related"``."""
        return " + ".join(self.classes[: self._place(setting) + 1])

    def log_perplexity_change(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: ``ln(1 + change of perplexity)``, the paper's figure.

        NaN where the perplexity falls by 1 or more.

        Raises:
            LensNeuronsError: the metric is not the NLL.
        """
        if self.metric != "nll":
            raise LensNeuronsError("perplexity needs metric='nll', these cells hold accuracy")
        before = self._cells(self.base[None, None])[0, 0]
        change = np.exp(before + self.cells(setting)) - np.exp(before)
        return np.log1p(change, out=np.full_like(change, np.nan), where=change > -1)

    def language_order(self, setting: str | None = None) -> tuple[str, ...]:
        """The rows in the order that puts languages of similar effects side by side.

        Average linkage on the correlation distance between the effects of two rows on the columns
        that are neither's own; optimal ordering of the leaves.
        """
        from scipy.cluster.hierarchy import leaves_list, linkage
        from scipy.spatial.distance import squareform

        distance = _row_distances(self.cells(setting), self._own)
        if len(self.rows) < 3:
            return self.rows
        tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
        return tuple(self.rows[i] for i in leaves_list(tree))

    def to_pandas(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a cell: removed, row, column, neurons, effect and control with their ends."""
        import pandas as pd

        parts = []
        for s, setting in enumerate(self.classes):
            effect = self.interval(setting, level=level)
            control = self.control_interval(setting, level=level)
            row, column = np.indices(effect.estimate.shape).reshape(2, -1)
            parts.append(
                pd.DataFrame(
                    {
                        "removed": self.name_of(setting),
                        "row": np.array(self.rows)[row],
                        "column": np.array(self.languages)[column],
                        "neurons": self.sizes[s][row],
                        **_columns("effect", effect),
                        **_columns("control", control),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def _cells(self, values: TextEffects) -> Cells:
        """Mean by language, [setting, row, language]."""
        of_language = np.eye(len(self.languages))[self.language]
        return values @ of_language / (self.weight @ of_language)

    @cached_property
    def _resampling(self) -> ItemDraws:
        return ItemDraws(self.item_ids, self.language)

    @cached_property
    def _drawn(self) -> tuple[DrawnCells, DrawnCells]:
        """Effects and controls in drawn corpora, each [draw, setting, row, language]."""
        drawn = self._resampling
        return drawn.means(self.effect, self.weight), drawn.means(self.control, self.weight)

    def _place(self, setting: str | None) -> int:
        choose(setting or self.classes[-1], self.classes, "setting")
        return self.classes.index(setting or self.classes[-1])

    @cached_property
    def _own(self) -> np.ndarray:
        """Bool [row, column]: the cell of a language on itself."""
        return np.array(self.rows)[:, None] == np.array(self.languages)[None, :]

    def _derive(
        self,
        figure: Callable[[np.ndarray, np.ndarray], np.ndarray],
        setting: str | None,
        level: float,
    ) -> Interval:
        """A figure of cells and controls [..., row, column], with its interval."""
        place = self._place(setting)
        estimate = figure(self.cells(setting), self.control_cells(setting))
        drawn = figure(*(draws[:, place] for draws in self._drawn))
        known = ~np.isnan(drawn).all(0)
        found = self._resampling.interval(estimate, np.where(known, drawn, 0.0), level)
        low, high = (np.where(known, end, np.nan) for end in (found.low, found.high))
        return replace(found, low=low, high=high)

    def _selectivity(self, cells: np.ndarray) -> np.ndarray:
        own = np.where(self._own, cells, 0.0).sum(-1)
        other = np.where(self._own, -np.inf, cells).max(-1)
        return np.where(self._own.any(-1) & np.isfinite(other), _ratio(own, other), np.nan)

    @property
    def _figures(self) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
        own = self._own

        def diagonal(cells: np.ndarray) -> np.ndarray:
            return _mean(cells[..., own])

        def elsewhere(cells: np.ndarray) -> np.ndarray:
            return _mean(cells[..., ~own])

        figures: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
            "mean diagonal": lambda cells, control: diagonal(cells),
            "mean off-diagonal": lambda cells, control: elsewhere(cells),
            "mean diagonal of the control": lambda cells, control: diagonal(control),
            "diagonal / off-diagonal": lambda cells, control: _ratio(
                diagonal(cells), elsewhere(cells)
            ),
            "diagonal / control": lambda cells, control: _ratio(diagonal(cells), diagonal(control)),
        }
        if "en" in self.rows and "en" in self.languages:
            at = self.rows.index("en"), self.languages.index("en")
            figures["English on itself"] = lambda cells, control: np.asarray(cells[..., *at])
        return figures

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        others = [f.name for f in fields(self) if f.name not in (*ARRAYS, "provenance")]
        details = {name: getattr(self, name) for name in others}
        return save_arrays(path, KIND, arrays, {**details, "provenance": self.provenance.to_dict()})

    @classmethod
    def load(cls, path: str | Path) -> AblationMatrix:
        """Read what `save` wrote; a run folder of `ablation_matrix` is accepted as well.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        file = Path(path) / "ablation.safetensors" if Path(path).is_dir() else Path(path)
        arrays, details = load_arrays(file, KIND)
        for name in ("rows", "languages", "classes", "item_ids"):
            details[name] = tuple(details[name])
        details["provenance"] = Provenance.from_dict(details["provenance"])
        return cls(**arrays, **details)

    def __repr__(self) -> str:
        told = []
        for setting in self.classes:
            cells, control = self.cells(setting), self.control_cells(setting)
            means = [f(cells, control) for f in list(self._figures.values())[:3]]
            told.append(
                "{}: diagonal {:.3f}, off-diagonal {:.3f}, control {:.3f}".format(
                    self.name_of(setting), *means
                )
            )
        size = f"{len(self.rows)} x {len(self.languages)}"
        return f"AblationMatrix({size}, {UNITS[self.metric]}: {'; '.join(told)})"

    def _repr_html_(self) -> str:
        cells = self.cells()
        rows = [
            (row, n, *(f"{cell:.3f}" for cell in line))
            for row, n, line in zip(self.rows, self.sizes[-1], cells, strict=True)
        ]
        title = f"AblationMatrix, {self.name_of()} removed: {UNITS[self.metric]}"
        return html_table(title, ("removed", "neurons", *self.languages), rows)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN where it has no entry."""
    empty = values.shape[-1] == 0
    return np.asarray(np.full(values.shape[:-1], np.nan) if empty else values.mean(-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def _columns(name: str, interval: Interval) -> dict[str, np.ndarray]:
    return {
        name: interval.estimate.ravel(),
        f"{name}_low": interval.low.ravel(),
        f"{name}_high": interval.high.ravel(),
    }


def _row_distances(cells: LanguageMatrix, own: np.ndarray) -> np.ndarray:
    """1 - correlation of two rows over the columns that are neither's own, [row, row]."""
    distance = np.zeros((len(cells), len(cells)))
    for i in range(len(cells)):
        for j in range(i):
            others = ~(own[i] | own[j])
            pair = cells[i, others], cells[j, others]
            flat = others.sum() < 2 or min(np.ptp(row) for row in pair) == 0
            distance[i, j] = distance[j, i] = 1 - (0 if flat else np.corrcoef(*pair)[0, 1])
    return distance
