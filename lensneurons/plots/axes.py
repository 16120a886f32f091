"""Axes of counts: linear while all counts can be read on it, logarithmic where they cannot.

A logarithmic axis has no zero, so a count of zero stands at 0.5 with the tick label "0"; hover and
printed numbers always give the count itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

from lensneurons.shapes import Histogram, LayerProfile

Places = Float64[np.ndarray, "*places"]
ZERO = 0.5
_RATIO = 30  # largest over smallest positive count that a linear axis is good for


def count_axis(counts: Histogram | LayerProfile, title: str) -> dict[str, Any]:
    """The settings of an axis for `counts`.

    Args:
        counts: all counts that are drawn on it.
        title: what is counted.
    """
    positive = counts[counts > 0]
    most = int(positive.max(initial=1))
    if not positive.size or most <= _RATIO * positive.min():
        ticks = {"dtick": 1} if most <= 8 else {"tickformat": ",d"}
        return {"title": title, "type": "linear", "range": [0, 1.1 * most], **ticks}
    least = ZERO if (counts == 0).any() else int(positive.min())
    steps = (1, 2, 5) if most < 400 * least else (1,)
    ticks = [step * 10**power for power in range(len(str(most))) for step in steps]
    values = [*([ZERO] if least == ZERO else []), *(t for t in ticks if 0.8 * least <= t <= most)]
    low = least if least == ZERO else 0.8 * least
    return {
        "title": f"{title} (log scale)",
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(most * (most / low) ** 0.1))],
        "tickvals": values,
        "ticktext": ["0" if value == ZERO else f"{value:,}" for value in values],
    }


def on_axis(counts: Histogram | LayerProfile, axis: dict[str, Any]) -> Places:
    """Where the counts stand on an axis of `count_axis`."""
    places = counts.astype(float)
    return np.maximum(places, ZERO) if axis["type"] == "log" else places
