"""The pairs of a carry-over by the outcomes that they have, each group pooled over its languages.

Pairs whose answer is written alike in both languages lack the outcomes ``both`` and ``language``:
they can show the answer travel but not its language, so they are a group of their own.

>>> outcome_groups(ln.carry_over(model, pairs))[0].share("both", "concept")   # doctest: +SKIP

What this does not show: that the model itself carries an answer this way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.carrying import OUTCOMES, CarryOver
from lensneurons.uncertainty.groups import Interval


@dataclass(frozen=True, eq=False)
class OutcomeGroup:
    """The pairs that have the same outcomes.

    Attributes:
        outcomes: what these pairs have, the known outcomes first.
        result: their part of the result.
    """

    outcomes: tuple[str, ...]
    result: CarryOver

    def share(self, *outcomes: str) -> Interval:
        """Share of some outcomes together, [layer], with its interval over pairs of items."""
        found = self.result.interval(*outcomes, pooled=True)
        ends = (found.estimate[:, 0], found.low[:, 0], found.high[:, 0])
        return Interval(*ends, found.level, found.method)

    def unpatched(self, *outcomes: str) -> float:
        """Share of some outcomes together without a patch."""
        values = self.result.unpatched
        odds = np.exp(values - np.nanmax(values, axis=1, keepdims=True))
        chosen = [place for place, name in enumerate(self.result.outcomes) if name in outcomes]
        return float((np.nansum(odds[:, chosen], axis=1) / np.nansum(odds, axis=1)).mean())

    def carried(self, *outcomes: str) -> list[int]:
        """Layers in which a share is above one half, and above what it is without a patch."""
        level = max(0.5, self.unpatched(*outcomes))
        return np.flatnonzero(self.share(*outcomes).estimate > level).tolist()

    @property
    def together(self) -> Float64[np.ndarray, " layer"]:
        """float64 [layer]: mean probability of all outcomes together."""
        return np.nansum(np.exp(self.result.log_probability), axis=-1).mean(axis=-1)


def outcome_groups(result: CarryOver) -> list[OutcomeGroup]:
    """The pairs by the outcomes that they have, those with most outcomes first.

    A group of a single pair of items is left out, because it has no interval.

    Raises:
        LensNeuronsError: no group has two pairs of items.
    """
    present = ~np.isnan(result.unpatched)
    found = []
    for row in sorted({tuple(row) for row in present.tolist()}, key=lambda row: (-sum(row), row)):
        chosen = np.flatnonzero((present == row).all(axis=1))
        names = [name for name, there in zip(result.outcomes, row, strict=True) if there]
        known = [name for name in OUTCOMES if name in names]
        part = replace(
            result,
            log_probability=result.log_probability[:, chosen],
            unpatched=result.unpatched[chosen],
            language=result.language[chosen],
            items=tuple(result.items[place] for place in chosen),
        )
        if len(set(part.items)) > 1:
            outcomes = (*known, *(name for name in names if name not in known))
            found.append(OutcomeGroup(outcomes, part))
    if not found:
        raise LensNeuronsError("an interval needs at least two pairs of items; give more pairs")
    return found
