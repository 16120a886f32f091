"""What the subtitles of effects say alike: the model, signed numbers, and intervals in words."""

from __future__ import annotations

import math

from lensneurons.plots.labels import plain
from lensneurons.values.provenance import UNKNOWN, Provenance

MINUS = "\u2212"


def headed(provenance: Provenance, text: str) -> str:
    """A sentence of a subtitle after the name of the model, if it is known; not escaped."""
    model = "/".join(provenance.model.split("/")[-2:])
    return capital(text) if model == UNKNOWN else f"{plain(model, 48)}: {text}"


def capital(text: str) -> str:
    """The text with a capital letter first."""
    return text[:1].upper() + text[1:]


def signed(value: float) -> str:
    """A change with its sign: ``"+1.24"``, ``"−0.031"``, ``"0.00"``; three decimals below 0.1."""
    if not math.isfinite(value):
        return "not defined"
    text = f"{abs(value):.{3 if 0 < abs(value) < 0.1 else 2}f}"
    return text if not float(text) else f"{'+' if value > 0 else MINUS}{text}"


def with_ends(estimate: float, low: float, high: float) -> str:
    """A change with its interval: ``"+1.24 (+1.10 to +1.38)"``."""
    if not math.isfinite(estimate):
        return "not defined"
    return f"{signed(estimate)} ({signed(low)} to {signed(high)})"


def share_with_ends(estimate: float, low: float, high: float) -> str:
    """A share with its interval: ``"0.62 (0.50 to 0.71)"``."""
    return f"{estimate:.2f} ({low:.2f} to {high:.2f})"
