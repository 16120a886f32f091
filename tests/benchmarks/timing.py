"""Timing of things that take turns, and the record of what was measured."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

RECORDS: list[dict[str, Any]] = []  # of the section that runs; `__main__` writes them as JSON


def take_turns(
    rounds: int, clock: Callable[[], float] = time.perf_counter, **sides: Callable[[], object]
) -> dict[str, np.ndarray]:
    """Seconds of each side in each round, after one round that is not counted.

    The order of the sides turns round from one round to the next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            start = clock()
            sides[name]()
            if number:
                seconds[name].append(clock() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values: np.ndarray, digits: int = 2) -> str:
    """Median (smallest to largest); of ``base / ours``, how many times faster ours is."""
    median, low, high = (f"{f(values):,.{digits}f}" for f in (np.median, np.min, np.max))
    return f"{median} ({low} to {high})"


def told(name: str, values: object, unit: str, digits: int = 2) -> str:
    """A line about measured values, which are recorded: median, smallest, largest, all of them."""
    found = np.atleast_1d(np.asarray(values, float))
    median, low, high = (float(f(found)) for f in (np.median, np.min, np.max))
    ends = {"median": median, "smallest": low, "largest": high}
    RECORDS.append({"name": name, "unit": unit, **ends, "values": found.tolist()})
    shown = spread(found, digits) if len(found) > 1 else f"{median:,.{digits}f}"
    return f"{name}: {shown} {unit}"


def slope(sizes: object, seconds: object) -> float:
    """The exponent of a cost: the least-squares slope of log seconds over log sizes."""
    return float(np.polyfit(np.log(np.asarray(sizes, float)), np.log(seconds), 1)[0])
