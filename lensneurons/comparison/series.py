"""The same comparison at every checkpoint of a training run.

Each checkpoint is compared with the first one at the same bar, over the same groups of items, so
the changes can be read as one curve. Only two checkpoints are in memory at a time where `runs` is a
generator.

>>> def checkpoints():                                        # doctest: +SKIP
...     for step in (0, 250, 500, 1000):
...         yield str(step), ln.ActivationStatistics.load(f"runs/{step}")
>>> series = ln.compare_series(checkpoints(), trained=("zh", "de"))   # doctest: +SKIP
>>> series.to_pandas("layers"), series["1000"]                # doctest: +SKIP

What this does not show: the checkpoints share their items and the first run, so their errors go
together: a curve that stays above its start is one observation, not many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lensneurons.comparison.before_after import Run, compare
from lensneurons.comparison.class_changes import Comparison, Table, pack, unpack
from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    import pandas as pd

KIND = "comparison series"


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonSeries:
    """Comparisons of every later checkpoint with the first; immutable.

    Attributes:
        first: name of the first checkpoint.
        names: names of the later ones, in order.
        comparisons: one each.
    """

    first: str
    names: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    def __getitem__(self, name: str) -> Comparison:
        """The comparison of a checkpoint with the first one.

        Raises:
            LensNeuronsError: no such checkpoint; those that are get listed.
        """
        return self.comparisons[self.names.index(choose(name, self.names, "checkpoint"))]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def to_pandas(self, table: Table = "histogram", *, level: float = 0.95) -> pd.DataFrame:
        """The tables of `Comparison.to_pandas` below each other; first column: checkpoint.

        Raises:
            LensNeuronsError: no such table, or a level outside (0, 1).
        """
        import pandas as pd

        tables = [one.to_pandas(table, level=level) for one in self.comparisons]
        for name, one in zip(self.names, tables, strict=True):
            one.insert(0, "checkpoint", name)
        return pd.concat(tables, ignore_index=True)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        packed = [pack(one) for one in self.comparisons]
        arrays = {f"{i}.{n}": a for i, (own, _) in enumerate(packed) for n, a in own.items()}
        details = {"first": self.first, "names": self.names, "each": [own for _, own in packed]}
        return save_arrays(path, KIND, arrays, details)

    @classmethod
    def load(cls, path: str | Path) -> ComparisonSeries:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        found = []
        for i, own in enumerate(details["each"]):
            start = f"{i}."
            mine = {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
            found.append(unpack(mine, own))
        return cls(details["first"], tuple(details["names"]), tuple(found))

    @property
    def description(self) -> str:
        """Checkpoints and bar in one line, for the subtitle of every figure."""
        return f"{' '.join(self.names)} against {self.first}; {self.comparisons[0].description}"

    def __repr__(self) -> str:
        return f"ComparisonSeries({self.description})"

    def _repr_html_(self) -> str:
        changes = [one.tables.histogram_change()[0] for one in self.comparisons]
        told = zip(self.names, changes, strict=True)
        rows = [(name, *(f"{n:+d}" for n in change)) for name, change in told]
        head = ("checkpoint", *(f"N = {n}" for n in range(len(changes[0]))))
        return html_table(f"Change of neurons by N: {self.description}", head, rows)


def compare_series(
    runs: Mapping[str, Run] | Iterable[tuple[str, Run]],
    *,
    tau: float | Literal["first"] = "first",
    percentile: float = 0.95,
    trained: Sequence[str] = (),
    pivot: str | None = "en",
    flips: int = 1000,
    seed: int = 0,
) -> ComparisonSeries:
    """Compare every checkpoint with the first one, at one bar.

    Args:
        runs: checkpoints in order, by name; pairs of name and statistics may come from a generator.
        tau: the bar, or ``"first"``: that of the first checkpoint.
        percentile: as for `compare`.
        trained: as for `compare`.
        pivot: as for `compare`.
        flips: as for `compare`.
        seed: as for `compare`.

    Raises:
        LensNeuronsError: fewer than two checkpoints, one named twice, or anything that `compare`
            refuses; the checkpoint is named.
    """
    if isinstance(tau, str):
        choose(tau, ("first",), "tau")
    pairs = _pairs(runs)
    start = next(pairs, None)
    if start is None:
        raise LensNeuronsError(_FEW)
    bar = "before" if isinstance(tau, str) else tau
    found: dict[str, Comparison] = {}
    for name, after in pairs:
        if name in (start[0], *found):
            raise LensNeuronsError(f"the checkpoint {name!r} is named twice")
        options = {"percentile": percentile, "pivot": pivot, "flips": flips, "seed": seed}
        try:
            found[name] = compare(start[1], after, tau=bar, trained=trained, **options)
        except LensNeuronsError as error:
            raise type(error)(f"checkpoint {name!r} against {start[0]!r}: {error}") from None
    if not found:
        raise LensNeuronsError(_FEW)
    return ComparisonSeries(start[0], tuple(found), tuple(found.values()))


def _pairs(runs: Mapping[str, Run] | Iterable[tuple[str, Run]]) -> Iterator[tuple[str, Run]]:
    """Names and runs, one after the other."""
    if isinstance(runs, Mapping):
        yield from ((str(name), run) for name, run in runs.items())
    else:
        yield from runs


_FEW = "a series needs at least two checkpoints, the first to compare with"
