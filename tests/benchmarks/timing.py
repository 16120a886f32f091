"""Timing of things that take turns."""

import time
from collections.abc import Callable

import numpy as np


def take_turns(
    rounds: int, clock: Callable[[], float] = time.perf_counter, **sides: Callable[[], object]
) -> dict[str, np.ndarray]:
    """Seconds of each side in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            start = clock()
            run()
            if number:
                seconds[name].append(clock() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values: np.ndarray, digits: int = 2) -> str:
    """Median (smallest to largest); of ``base / ours``, how many times faster ours is."""
    median, low, high = (f"{f(values):.{digits}f}" for f in (np.median, np.min, np.max))
    return f"{median} ({low} to {high})"
