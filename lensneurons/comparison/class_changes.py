"""The result of `compare`: every change of the classes of neurons, with interval and p-value.

>>> change.to_pandas()                     # neurons with N = 0 ... K           # doctest: +SKIP
>>> change.to_pandas("transitions")        # from N to N                        # doctest: +SKIP
>>> change.part_changes(parts)             # specific, related, agnostic by part  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lensneurons.comparison.class_tables import ClassTables, count_tables
from lensneurons.comparison.group_tests import jackknife_interval, swap_p
from lensneurons.comparison.sharing import Sharing
from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.phases import LayerParts
from lensneurons.provenance import Provenance
from lensneurons.shapes import FlatNeurons, LanguageCounts, NeuronNumbers, RowMask, RunMemberships
from lensneurons.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    import pandas as pd

KIND = "comparison"
Table = Literal["histogram", "layers", "languages", "transitions", "overlap"]
TABLES = ("histogram", "layers", "languages", "transitions", "overlap")
CLASSES = ("specific", "related", "agnostic")
Figure = Callable[[ClassTables], np.ndarray]
Boundaries = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Change:
    """A change, or an array of changes, with what the groups of items say about it.

    Attributes:
        estimate: after minus before, on all items.
        low: lower end of the jackknife interval; NaN without groups.
        high: upper end.
        p: two-sided p-value of the swap test; NaN without groups.
        level: coverage of the interval.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    level: float


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Classes of all neurons before and after, at one bar; immutable.

    Attributes:
        languages: codes, in the order of the language axes.
        n_layers: layers of the model.
        d_mlp: neurons a layer.
        tau: the bar of both runs.
        tau_origin: where it comes from.
        flat: int64 [neuron], the neurons that exceed the bar somewhere, ``layer * d_mlp + neuron``;
            all others have N = 0 before and after.
        above: bool [run, language, neuron], where p > tau; run 0 is before, 1 after.
        selected: bool [neuron], which have the lowest scores before (`identify`); for the claims
            about English, which are about these.
        trained: languages that were trained between the runs.
        pivot: the language that they were aligned to, or None.
        left_out: the tables without each group of items; None without groups.
        alone: the tables of each group alone; None without groups.
        sharing: the sharing hypothesis; None without trained or without untouched languages.
        provenance: of the two runs.
    """

    languages: tuple[str, ...]
    n_layers: int
    d_mlp: int
    tau: float
    tau_origin: str
    flat: FlatNeurons
    above: RunMemberships
    selected: RowMask
    trained: tuple[str, ...] = ()
    pivot: str | None = None
    left_out: ClassTables | None = None
    alone: ClassTables | None = None
    sharing: Sharing | None = None
    provenance: tuple[Provenance, Provenance] = (Provenance(), Provenance())

    @property
    def n_groups(self) -> int:
        """Number of groups of items; 1 where there are no intervals."""
        return 1 if self.left_out is None else len(self.left_out.layers)

    @property
    def untouched(self) -> tuple[str, ...]:
        """The languages that were neither trained nor the pivot."""
        return tuple(k for k in self.languages if k not in (*self.trained, self.pivot))

    def role_of(self, language: str) -> str:
        """``"trained"``, ``"untouched"`` or ``"pivot"``; empty where none was said to be trained.

        Raises:
            LensNeuronsError: the language is not there; those that are get listed.
        """
        choose(language, self.languages, "language")
        if not self.trained:
            return ""
        named = "pivot" if language == self.pivot else "untouched"
        return "trained" if language in self.trained else named

    @cached_property
    def tables(self) -> ClassTables:
        """Counts of classes over all items; one draw."""
        return self.count(self.above)

    def count(self, above: RunMemberships) -> ClassTables:
        """Counts of classes for memberships [run, language, neuron] of the neurons in `flat`."""
        return count_tables(
            above,
            self.flat // self.d_mlp,
            selected=self.selected,
            n_layers=self.n_layers,
            d_mlp=self.d_mlp,
        )

    @cached_property
    def n_before(self) -> NeuronNumbers:
        """int64 [layer, neuron]: N before."""
        return self._number(0)

    @cached_property
    def n_after(self) -> NeuronNumbers:
        """int64 [layer, neuron]: N after."""
        return self._number(1)

    def _number(self, run: int) -> NeuronNumbers:
        numbers = np.zeros(self.n_layers * self.d_mlp, np.int64)
        numbers[self.flat] = self.above[run].sum(axis=0)
        return numbers.reshape(self.n_layers, self.d_mlp)

    @property
    def transitions(self) -> LanguageCounts:
        """int64 [N before, N after]: how many neurons went from which N to which."""
        return self.tables.transitions[0]

    def change(self, figure: Figure, *, level: float = 0.95) -> Change:
        """A change of class counts with its interval and p-value.

        Args:
            figure: gives changes [draw, ...], after minus before, from tables of several draws.
            level: coverage.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        estimate = np.asarray(figure(self.tables)[0], float)
        if self.left_out is None or self.alone is None:
            unknown = np.full(estimate.shape, np.nan)
            return Change(estimate, unknown, unknown, unknown, level)
        ends = jackknife_interval(estimate, figure(self.left_out), level=level)
        return Change(estimate, ends.low, ends.high, swap_p(figure(self.alone)), level)

    def to_pandas(self, table: Table = "histogram", *, level: float = 0.95) -> pd.DataFrame:
        """One of the tables of the comparison.

        Args:
            table: ``"histogram"`` (one row an N), ``"layers"`` (a layer and class),
                ``"languages"`` (a language and class), each with before, after, change, low, high
                and p; ``"transitions"`` (N before and after: neurons, low, high, and the net flow,
                neurons that went this way less those that went back, with its p); or ``"overlap"``
                (a language: its specific and related neurons before and after, those of both,
                those expected of random sets with as many neurons a layer, and Jaccard with its
                interval, Dice, containment).
            level: coverage of the intervals.

        Raises:
            LensNeuronsError: no such table, or a level outside (0, 1).
        """
        choose(table, TABLES, "table")
        from lensneurons.comparison import tables

        return getattr(tables, f"{table}_table")(self, level)

    def part_changes(self, parts: LayerParts | Boundaries, *, level: float = 0.95) -> pd.DataFrame:
        """One row a part and class: before, after, change, low, high, p.

        Args:
            parts: what `divide_layers` found, or first and last layers.
            level: coverage.

        Raises:
            LensNeuronsError: no four parts were found, or layers that are not there.
        """
        from lensneurons.comparison.tables import part_table

        return part_table(self, boundaries_of(parts, self.n_layers), level)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays, details = pack(self)
        return save_arrays(path, KIND, arrays, details)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        return unpack(*load_arrays(path, KIND))

    @property
    def description(self) -> str:
        """Population, bar, items and training in one line, for the subtitle of every figure."""
        groups = f"{self.n_groups} groups of items" if self.n_groups > 1 else "no intervals"
        training = f"; trained {' '.join(self.trained)}" if self.trained else ""
        neurons = self.n_layers * self.d_mlp
        return (
            f"all {neurons:,} neurons; tau {self.tau:.4f} ({self.tau_origin}); {groups}{training}"
        )

    def __repr__(self) -> str:
        moved = self.tables.histogram_change()[0]
        told = ", ".join(f"{n}: {change:+d}" for n, change in enumerate(moved))
        return f"Comparison({self.description}; neurons by N {told})"

    def _repr_html_(self) -> str:
        table = self.to_pandas()
        rows = [
            (r["n"], r["class"], r["before"], r["after"], change_text(r), p_text(r["p"]))
            for r in table.to_dict("records")
        ]
        head = ("N", "class", "before", "after", "change", "p")
        return html_table(f"Comparison: {self.description}", head, rows)


def change_text(row: dict[Any, Any]) -> str:
    """A change with its interval, where it has one."""
    ends = "" if np.isnan(row["low"]) else f" ({row['low']:+.1f} to {row['high']:+.1f})"
    return f"{row['change']:+g}{ends}"


def p_text(p: float) -> str:
    """A p-value, or nothing."""
    return "" if np.isnan(p) else f"{p:.3g}"


def boundaries_of(parts: LayerParts | Boundaries, n_layers: int) -> list[tuple[int, int]]:
    """First and last layers of parts, once they are of a model of so many layers.

    Raises:
        LensNeuronsError: no four parts were found, or layers that overlap or are not there.
    """
    if isinstance(parts, LayerParts):
        if parts.boundaries is None:
            raise LensNeuronsError(
                f"four parts were not found: {parts!r}. Give first and last layers yourself, such "
                "as [(0, 4), (5, 19), (20, 30), (31, 31)]"
            )
        parts = parts.boundaries
    spans = [(int(first), int(last)) for first, last in parts]
    edges = [edge for first, last in spans for edge in (first, last + 1)]
    if not spans or edges != sorted(edges) or edges[0] < 0 or edges[-1] > n_layers:
        raise LensNeuronsError(
            f"parts {spans} are not first and last layers, in order, of {n_layers} layers"
        )
    return spans


def pack(comparison: Comparison) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and details of a comparison, as they are stored."""
    arrays = {name: getattr(comparison, name) for name in _ARRAYS}
    details: dict[str, Any] = {name: getattr(comparison, name) for name in _WORDS}
    for name in ("left_out", "alone", "sharing"):
        value = getattr(comparison, name)
        if value is None:
            continue
        for entry in fields(value):
            part = getattr(value, entry.name)
            if isinstance(part, np.ndarray):
                arrays[f"{name}.{entry.name}"] = part
            else:
                details[f"{name}.{entry.name}"] = part
    details["provenance"] = [one.to_dict() for one in comparison.provenance]
    return arrays, details


def unpack(arrays: dict[str, np.ndarray], details: dict[str, Any]) -> Comparison:
    """The comparison that `pack` took apart."""

    def part(name: str, kind: type[ClassTables] | type[Sharing]) -> Any:
        both = {**arrays, **details}
        found = {n.removeprefix(f"{name}."): v for n, v in both.items() if n.startswith(f"{name}.")}
        return kind(**found) if found else None

    words: dict[str, Any] = {name: details[name] for name in _WORDS}
    words |= {name: tuple(words[name]) for name in ("languages", "trained")}
    words |= {name: arrays[name] for name in _ARRAYS}
    before, after = (Provenance.from_dict(one) for one in details["provenance"])
    return Comparison(
        **words,
        left_out=part("left_out", ClassTables),
        alone=part("alone", ClassTables),
        sharing=part("sharing", Sharing),
        provenance=(before, after),
    )


_ARRAYS = ("flat", "above", "selected")
_WORDS = ("languages", "n_layers", "d_mlp", "tau", "tau_origin", "trained", "pivot")
