"""The same comparison at every checkpoint of a training.

Each checkpoint is compared with the first one (`compare`), at the same bar and over the same groups
of items, so the changes can be read as one curve:

>>> def checkpoints():                          # two in memory at a time       # doctest: +SKIP
...     for step in (0, 250, 500, 1000):
...         yield str(step), ln.ActivationStatistics.load(f"runs/{step}")
>>> series = ln.comparison.compare_series(checkpoints(), trained=("zh", "de"))  # doctest: +SKIP
>>> series.to_pandas("layers"), series["1000"]                                  # doctest: +SKIP

What this does not show: the checkpoints share their items and the first model, so their errors go
together. A curve that stays above its start is one observation, not many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lensneurons.comparison.before_after import (
    Change,
    ClassMeasure,
    Comparison,
    Counted,
    TableName,
    compare,
)
from lensneurons.comparison.change_tables import CHANGE_ARRAYS
from lensneurons.errors import LensNeuronsError, choose, shown
from lensneurons.options import plain_options
from lensneurons.values.base import Overview, Value

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonSeries(Value):
    """Comparisons of every later checkpoint with the first. Made by `compare_series`.

    Attributes:
        first: name of the first checkpoint.
        names: names of the later ones, in order.
        comparisons: one each.
    """

    FILE_KIND = "comparison series"

    first: str
    names: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    def __getitem__(self, name: str) -> Comparison:
        """Of a checkpoint with the first; without one, a `LensNeuronsError` lists them."""
        return self.comparisons[self.names.index(choose(name, self.names, "checkpoint"))]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @plain_options
    def change(self, measure: ClassMeasure, *, level: float = 0.95) -> Change:
        """Changes [checkpoint, ...] since the first checkpoint, whose own change of 0 comes first.

        The arguments and errors are those of `Comparison.change`.
        """
        found = [one.change(measure, level=level) for one in self.comparisons]
        start = found[0].each(lambda one: np.abs(0.0 * one))  # NaN without groups; never -0.0
        unknown = np.full_like(start.p, np.nan)
        start = replace(start, p=unknown, beyond_p=unknown)
        arrays = {
            name: np.stack([getattr(one, name) for one in (start, *found)])
            for name in CHANGE_ARRAYS
        }
        return Change(**arrays, level=level)

    @plain_options
    def to_pandas(self, table: TableName = "histogram", *, level: float = 0.95) -> pd.DataFrame:
        """The tables of `Comparison.to_pandas` below each other; first column: checkpoint."""
        import pandas as pd

        tables = [one.to_pandas(table, level=level) for one in self.comparisons]
        for name, one in zip(self.names, tables, strict=True):
            one.insert(0, "checkpoint", name)
        return pd.concat(tables, ignore_index=True)

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        packed = [one._pack() for one in self.comparisons]
        arrays = {f"{i}.{n}": a for i, (own, _) in enumerate(packed) for n, a in own.items()}
        details = {"first": self.first, "names": self.names, "each": [own for _, own in packed]}
        return arrays, details

    @classmethod
    def _unpack(
        cls, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]
    ) -> ComparisonSeries:
        own: list[dict[str, np.ndarray]] = [{} for _ in details["names"]]
        for name, array in arrays.items():
            place, _, rest = name.partition(".")
            own[int(place)][rest] = array
        found = map(Comparison._unpack, own, details["each"])
        return cls(details["first"], tuple(details["names"]), tuple(found))

    @property
    def description(self) -> str:
        """Checkpoints and bar in one line, for the subtitle of every figure."""
        return f"{' '.join(self.names)} against {self.first}; {self.comparisons[0].description}"

    def _brief(self) -> str:
        return self.description

    def _overview(self) -> Overview:
        changes = [one.tables.histogram_change()[0] for one in self.comparisons]
        head = ("checkpoint", *(f"N = {n}" for n in range(len(changes[0]))))
        told = zip(self.names, changes, strict=True)
        rows = [(name, *(f"{n:+d}" for n in change)) for name, change in told]
        return Overview(f"Change of neurons by N: {self.description}", head, rows)


@plain_options
def compare_series(
    checkpoints: Mapping[str, Counted] | Iterable[tuple[str, Counted]],
    *,
    tau: float | Literal["first"] = "first",
    percentile: float = 0.95,
    trained: Sequence[str] = (),
    pivot: str | None = "en",
    seed: int = 0,
) -> ComparisonSeries:
    """Compare every checkpoint with the first one, at one bar.

    The checkpoints are statistics or neurons by name, in order; pairs of both may come from a
    generator, so that only two are in memory at a time. The options are those of `compare`, and
    ``tau="first"`` is the bar of the first checkpoint.

    Raises:
        LensNeuronsError: fewer than two checkpoints, one named twice, or anything that `compare`
            refuses; the checkpoint is named.
    """
    if isinstance(tau, str):
        choose(tau, ("first",), "tau")
    bar = "before" if isinstance(tau, str) else tau
    pairs = _named_pairs(checkpoints)
    few = "a series needs at least two checkpoints, the first to compare with"
    start = next(pairs, None)
    if start is None:
        raise LensNeuronsError(few)
    first, before = start
    found: dict[str, Comparison] = {}
    for name, after in pairs:
        if name in (first, *found):
            raise LensNeuronsError(f"the checkpoint {name!r} is named twice")
        options = {"percentile": percentile, "pivot": pivot, "seed": seed}
        try:
            found[name] = compare(before, after, tau=bar, trained=trained, **options)
        except LensNeuronsError as error:
            raise type(error)(f"checkpoint {name!r} against {first!r}: {error}") from None
    if not found:
        raise LensNeuronsError(few)
    return ComparisonSeries(first, tuple(found), tuple(found.values()))


def _named_pairs(checkpoints: object) -> Iterator[tuple[str, Counted]]:
    """The checkpoints one by one, each with its name."""
    given = checkpoints.items() if isinstance(checkpoints, Mapping) else checkpoints
    wanted = "give statistics or neurons by name, such as {'base': before, 'step 500': after}"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise LensNeuronsError(f"checkpoints={shown(checkpoints)}: {wanted}")
    for pair in given:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise LensNeuronsError(f"checkpoints holds {shown(pair)}: {wanted}")
        yield str(pair[0]), pair[1]
