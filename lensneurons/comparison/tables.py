"""The tables of a comparison: what `Comparison.to_pandas` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lensneurons.comparison.class_changes import CLASSES, Change, Comparison
from lensneurons.comparison.class_tables import ClassTables, of_class
from lensneurons.comparison.group_tests import jackknife_interval

if TYPE_CHECKING:
    import pandas as pd


def class_of_number(n: int, n_languages: int) -> str:
    """The class of neurons that exceed the bar in n of K languages."""
    if n in (0, 1):
        return ("unclassified", "specific")[n]
    return "agnostic" if n == n_languages else "related"


def histogram_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row an N: n, class, before, after, change, low, high, p."""
    runs = comparison.tables.layers[0].sum(axis=1)
    change = comparison.change(ClassTables.histogram_change, level=level)
    numbers = range(runs.shape[1])
    names = [class_of_number(n, len(comparison.languages)) for n in numbers]
    return _table({"n": list(numbers), "class": names}, runs, change)


def layers_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row a layer and class: layer, class, before, after, change, low, high, p."""
    runs = _by_class(comparison.tables.layers[0])
    change = comparison.change(lambda t: _by_class(t.layer_change()), level=level)
    keys = {"layer": np.repeat(np.arange(runs.shape[1]), len(CLASSES))}
    return _table({**keys, "class": list(CLASSES) * runs.shape[1]}, runs, change)


def part_table(
    comparison: Comparison, spans: Sequence[tuple[int, int]], level: float
) -> pd.DataFrame:
    """One row a part and class: part, first, last, class, before, after, change, low, high, p."""

    def by_part(counts: np.ndarray) -> np.ndarray:
        sums = [counts[..., first : last + 1, :].sum(axis=-2) for first, last in spans]
        return _by_class(np.stack(sums, axis=-2))

    runs = by_part(comparison.tables.layers[0])
    change = comparison.change(lambda t: by_part(t.layer_change()), level=level)
    numbers = np.repeat(np.arange(len(spans)), len(CLASSES))
    first, last = np.array(spans)[numbers].T
    keys = {"part": numbers + 1, "first": first, "last": last}
    return _table({**keys, "class": list(CLASSES) * len(spans)}, runs, change)


def languages_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row a language and class: language, role, class, before, after, change, low, high, p."""
    kinds = ("specific", "related")

    def by_kind(counts: np.ndarray) -> np.ndarray:
        return np.stack([of_class(counts, kind) for kind in kinds], axis=-1)

    runs = by_kind(comparison.tables.members[0])
    change = comparison.change(lambda t: by_kind(t.member_change()), level=level)
    languages = [language for language in comparison.languages for _ in kinds]
    roles = [comparison.role_of(language) for language in languages]
    keys = {"language": languages, "role": roles, "class": list(kinds) * runs.shape[1]}
    return _table(keys, runs, change)


def transitions_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row a transition: n_before, n_after, neurons, low, high, net, p.

    Swapping before and after in a group turns its transitions round, so what the swap test tests is
    the net flow.
    """
    import pandas as pd

    found = comparison.transitions.astype(float)
    net = comparison.change(lambda t: t.transitions - t.transitions.swapaxes(1, 2), level=level)
    low = high = np.full(found.shape, np.nan)
    if comparison.left_out is not None:
        ends = jackknife_interval(found, comparison.left_out.transitions, level=level)
        low, high = np.maximum(ends.low, 0.0), ends.high
    before, after = np.indices(found.shape)
    columns = {"n_before": before, "n_after": after, "neurons": comparison.transitions}
    columns |= {"low": low, "high": high, "net": net.estimate.astype(np.int64), "p": net.p}
    return pd.DataFrame({name: column.ravel() for name, column in columns.items()})


def overlap_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row a language: before, after, both, expected, jaccard with ends, dice, containment."""
    import pandas as pd

    before, after, both = _overlaps(comparison.tables)[:, 0]
    jaccard = _ratio(both, before + after - both)
    low = high = np.full(len(both), np.nan)
    if comparison.left_out is not None:
        ours, theirs, shared = _overlaps(comparison.left_out)
        ends = jackknife_interval(jaccard, _ratio(shared, ours + theirs - shared), level=level)
        low, high = np.clip(ends.low, 0, 1), np.clip(ends.high, 0, 1)
    columns = {"language": list(comparison.languages), "before": before, "after": after}
    columns |= {"both": both, "expected": _expected_overlap(comparison)}
    columns |= {"jaccard": jaccard, "jaccard_low": low, "jaccard_high": high}
    columns |= {"dice": _ratio(2 * both, before + after), "containment": _ratio(both, before)}
    return pd.DataFrame(columns)


def _overlaps(tables: ClassTables) -> np.ndarray:
    """int64 [before, after and both; draw; language]: specific and related neurons."""
    sizes = of_class(tables.members, "specific + related")
    return np.stack([sizes[:, 0], sizes[:, 1], tables.stayed])


def _expected_overlap(comparison: Comparison) -> np.ndarray:
    """float64 [language]: neurons that random sets with as many a layer have in common."""
    number = comparison.above.sum(axis=1)
    between = (number > 0) & (number < len(comparison.languages))
    layer = comparison.flat // comparison.d_mlp
    members = comparison.above & between[:, None]
    sizes = np.array(
        [[np.bincount(layer[m], minlength=comparison.n_layers) for m in run] for run in members]
    )
    return (sizes[0] * sizes[1]).sum(axis=1) / comparison.d_mlp


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _by_class(counts: np.ndarray) -> np.ndarray:
    """Counts [..., N] as [..., class]."""
    return np.stack([of_class(counts, kind) for kind in CLASSES], axis=-1)


def _table(keys: dict[str, object], runs: np.ndarray, change: Change) -> pd.DataFrame:
    """Keys, then counts of both runs [run, ...] and their change."""
    import pandas as pd

    columns = {"before": runs[0], "after": runs[1], "change": runs[1] - runs[0]}
    columns |= {"low": change.low, "high": change.high, "p": change.p}
    return pd.DataFrame({**keys, **{name: column.ravel() for name, column in columns.items()}})
