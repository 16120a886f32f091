"""How figures and reports write numbers: one place for all formats.

>>> signed(-0.0312), with_ends(1.236, 1.1, 1.38)
('−0.031', '+1.24 (+1.10 to +1.38)')
>>> count_change(-3.5), short_number(397_496), layer_runs([0, 1, 28, 30, 31])
('−3.5', '397k', '0–1, 28 and 30–31')
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

MINUS = "\u2212"
Cell = str | int | float | bool | None


# Changes have a sign, and none where they round to zero.


def signed(value: float, form: str = "") -> str:
    """Write a change with its sign: ``"+1.24"``, ``"−0.031"``, ``"0.00"``.

    Args:
        value: the change; NaN and infinity are "not defined".
        form: how to write its size, such as ``".3g"``; by default two decimals, three below 0.1.
    """
    if not math.isfinite(value):
        return "not defined"
    text = f"{abs(value):{form or ('.3f' if 0 < abs(value) < 0.1 else '.2f')}}"
    return text if not float(text.replace(",", "")) else f"{'+' if value > 0 else MINUS}{text}"


def count_change(value: float) -> str:
    """Write a change of a count: ``"+12"``, ``"−3.5"``, ``"0"``; one decimal if not whole."""
    return signed(value, ",.1f").removesuffix(".0")


def three_digits(value: float) -> str:
    """Write a change in three digits or whole, with at most four decimals: ``"−0.031"``."""
    size = abs(value)
    return signed(value, ",.0f" if size >= 100 else ".3g" if size >= 0.001 or not size else ".4f")


def percent_points(value: float) -> str:
    """Write a change of a share in points of percent: ``"+3.1"`` for 0.031."""
    return signed(100 * value, ".1f")


def share(value: float) -> str:
    """Write a share in two decimals: ``"0.62"``."""
    return f"{value:.2f}"


def with_ends(
    estimate: float, low: float, high: float, write: Callable[[float], str] = signed
) -> str:
    """Write a number with its interval, if it has one: ``"+1.24 (+1.10 to +1.38)"``."""
    ends = "" if math.isnan(low) else f" ({write(low)} to {write(high)})"
    return write(estimate) + (ends if math.isfinite(estimate) else "")


# Numbers in cells, where there is little room.


def small_change(value: float) -> str:
    """A change in two digits: ``"1.2"``, ``".26"``, ``"−.03"``, ``".00"``; ``"–"`` for none."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    text = f"{size:.2f}".removeprefix("0") if size < 0.995 else f"{size:.{int(size < 9.95)}f}"
    return text if text == ".00" or value > 0 else MINUS + text


def small_share(value: float) -> str:
    """A share as ``".28"``, escaped; a positive one that rounds to zero is not written as zero."""
    if 0 < value < 0.005:
        return "&lt;.01"
    return f"{value:.2f}".removeprefix("0") if value else "0"


def short_number(number: int) -> str:
    """A count in at most four characters: ``"742"``, ``"7.8k"``, ``"397k"``, ``"1.2M"``."""
    for unit, sign in ((1_000_000, "M"), (1_000, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.{0 if number >= 9.95 * unit else 1}f}{sign}"
    return str(number)


def write_cell(cell: Cell) -> str:
    """A cell of a table: thousands with commas, fractions with three digits, words as they are."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "–"
    if isinstance(cell, str):
        return cell
    whole = isinstance(cell, int) or abs(cell) >= 1000
    form = ",.0f" if whole else ".3f" if abs(cell) >= 0.001 or not cell else ".1e"
    return f"{cell:{form}}".replace("-", MINUS)


# Numbers and lists in sentences.


def counted(number: int, noun: str) -> str:
    """``"no neurons"``, ``"1 neuron"``, ``"1,234 neurons"``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s") if number else f"no {noun}s"


def listing(items: Iterable[object], most: int = 6) -> str:
    """``"a, b and c"``; of more than `most` items the first ones and how many follow."""
    words = [str(item) for item in items]
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def span(first: int, last: int) -> str:
    """``"5–19"``, or ``"31"`` for one layer."""
    return str(first) if first == last else f"{first}–{last}"


def layer_runs(layers: Sequence[int]) -> str:
    """Sorted layer numbers as runs: ``"0–1, 28 and 30–31"``; nothing if there are over six."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return listing(span(*run) for run in runs) if len(runs) <= 6 else ""


def named_layers(layers: Sequence[int]) -> str:
    """``"no layer"``, ``"layer 3"``, ``"layers 0–1 and 28"``, or how many there are."""
    if not len(layers):
        return "no layer"
    runs = layer_runs(layers)
    return f"layer{'s' if len(layers) > 1 else ''} {runs}" if runs else f"{len(layers)} layers"
