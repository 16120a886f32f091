"""The tables of a comparison: counts and changes as rows.

>>> change.to_pandas("languages"), change.to_pandas("overlap")              # doctest: +SKIP

What these do not show: that a change is more than its nulls (`lensneurons.comparison.nulls`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lensneurons.comparison.class_counts import ClassTables, of_class, ratio
from lensneurons.errors import LensNeuronsError, shown
from lensneurons.neurons.parts import LayerParts

if TYPE_CHECKING:
    import pandas as pd

    from lensneurons.comparison.before_after import Change, Comparison

CHANGE_ARRAYS = (
    "estimate", "low", "high", "p", "uniform", "beyond", "beyond_low", "beyond_high", "beyond_p",
    "drift", "alike", "own_bar",
)  # fmt: skip
LEAST_P = 1e-6  # below, the tail of the distribution is a guess
Boundaries = Sequence[tuple[int, int]]


def p_text(p: float) -> str:
    """A p-value, or nothing."""
    return "" if np.isnan(p) else f"{p:.3g}" if p >= LEAST_P else f"< {LEAST_P:g}"


def p_equals(p: float, name: str = "p") -> str:
    """``"p = 0.03"`` or ``"p < 1e-06"``; nothing where there is none."""
    told = p_text(p)
    return f"{name} {told}" if told.startswith("<") else f"{name} = {told}" if told else ""


def boundaries_of(parts: LayerParts | Boundaries, n_layers: int) -> list[tuple[int, int]]:
    """First and last layers of parts, checked against the layers of the model.

    Raises:
        LensNeuronsError: no four parts were found, or layers that overlap or are not there.
    """
    given = parts.boundaries if isinstance(parts, LayerParts) else parts
    if given is None:
        raise LensNeuronsError(
            f"four parts were not found: {parts!r}. Give first and last layers yourself, such "
            "as [(0, 4), (5, 19), (20, 30), (31, 31)]"
        )
    try:
        spans = [(int(first), int(last)) for first, last in given]
    except (TypeError, ValueError):
        raise LensNeuronsError(
            f"parts={shown(given)}: give what divide_layers() gives, or first and last layers, "
            "such as [(0, 4), (5, 19), (20, 30), (31, 31)]"
        ) from None
    edges = [edge for first, last in spans for edge in (first, last + 1)]
    if not spans or edges != sorted(edges) or edges[0] < 0 or edges[-1] > n_layers:
        raise LensNeuronsError(
            f"parts {spans} are not first and last layers, in order, of {n_layers} layers"
        )
    return spans


def change_table(keys: Mapping[str, Any], counts: np.ndarray, change: Change) -> pd.DataFrame:
    """Keys, then counts [model, ...] and their change."""
    import pandas as pd

    before, after = counts
    columns = {"before": before, "after": after, "change": after - before}
    columns |= {name: getattr(change, name) for name in CHANGE_ARRAYS[1:]}
    return pd.DataFrame({**keys, **{name: column.ravel() for name, column in columns.items()}})


def _net_flow(tables: ClassTables) -> np.ndarray:
    """int64 [draw, N before, N after]: neurons that went this way less those that went back."""
    return tables.transitions - tables.transitions.swapaxes(1, 2)


def _overlaps(tables: ClassTables) -> np.ndarray:
    """int64 [before, after and both; draw; language]: specific and related neurons."""
    sizes = of_class(tables.members, "specific + related")
    return np.stack([sizes[:, 0], sizes[:, 1], tables.stayed])


def transitions_table(found: Comparison, level: float) -> pd.DataFrame:
    """Neurons that went from every N before to every N after, with the net flow."""
    import pandas as pd

    counts = found.transitions.astype(float)
    net = found.tested(counts - counts.T, lambda of: _net_flow(of[0]), level)
    ends = found.tested(counts, lambda of: of[0].transitions, level)
    before, after = np.indices(counts.shape)
    columns = {"n_before": before, "n_after": after, "neurons": found.transitions}
    columns |= {
        "low": np.maximum(ends.low, 0.0),
        "high": ends.high,
        "net": net.estimate.astype(np.int64),
        "p": net.p,
    }
    return pd.DataFrame({name: column.ravel() for name, column in columns.items()})


def overlap_table(found: Comparison, level: float) -> pd.DataFrame:
    """Neurons of every language before, after and of both."""
    import pandas as pd

    def jaccard_of(tables: ClassTables) -> np.ndarray:
        before, after, both = _overlaps(tables)
        return ratio(both, before + after - both)

    before, after, both = _overlaps(found.tables)[:, 0]
    jaccard = jaccard_of(found.tables)[0]
    ends = found.tested(jaccard, lambda of: jaccard_of(of[0]), level)
    low, high = np.clip([ends.low, ends.high], 0, 1)
    columns = {"language": list(found.languages), "before": before, "after": after}
    columns |= {"both": both, "expected": _expected_overlap(found)}
    columns |= {"jaccard": jaccard, "jaccard_low": low, "jaccard_high": high}
    columns |= {"dice": ratio(2 * both, before + after), "containment": ratio(both, before)}
    return pd.DataFrame(columns)


def _expected_overlap(found: Comparison) -> np.ndarray:
    """float64 [language]: neurons that random sets with as many a layer have in common."""
    number = found.above.sum(axis=1)
    between = (number > 0) & (number < len(found.languages))
    layer = found.flat // found.d_mlp
    members = found.above & between[:, None]
    before, after = (
        np.array([np.bincount(layer[one], minlength=found.n_layers) for one in model])
        for model in members
    )
    return (before * after).sum(axis=1) / found.d_mlp
