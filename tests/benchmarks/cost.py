"""How the cost of identification grows with languages, layers and width: log-log slopes.

A slope of 1 is a cost in proportion. Statistics are those of `tests/simulations/scale.py`; sizes
take turns, and every round gives a slope.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from timing import slope, told

sys.path.insert(0, str(Path(__file__).parents[1] / "simulations"))

from scale import draw_statistics

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.neurons.identification import identify

SIZES = {  # languages, layers, width; each twice the one before
    "languages": [(k, 8, 16384) for k in (10, 20, 40, 80)],  # enough neurons for each
    "layers": [(20, layers, 4096) for layers in (8, 16, 32, 64)],
    "width": [(20, 8, width) for width in (4096, 8192, 16384, 32768)],
}


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    with tempfile.TemporaryDirectory() as folder:
        for axis, sizes in SIZES.items():
            statistics = []
            for number, size in enumerate(sizes):
                file = Path(folder) / f"{axis} {number}"
                draw_statistics(file, size, 1)
                statistics.append(ActivationStatistics.load(file))
            seconds = np.full((rounds, len(sizes)), np.inf)
            for number in range(rounds + 1):
                for place, one in enumerate(statistics):
                    spent = _identified(one)
                    if number:  # the first one is not counted
                        seconds[number - 1, place] = spent
            place = list(SIZES).index(axis)
            numbers = [size[place] for size in sizes]
            for number, spent in zip(numbers, seconds.T, strict=True):
                yield told(f"identify, {number:,} {axis}", spent, "CPU s", 3)
            each = [slope(numbers, row) for row in seconds]
            yield told(f"slope of identify in {axis}", each, "")


def _identified(statistics: ActivationStatistics) -> float:
    """CPU seconds of one identification, with its classes, from counts."""
    fresh = ActivationStatistics(
        statistics.languages, statistics.grouped_counts, statistics.grouped_tokens
    )
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = identify(fresh)
    _ = found.class_codes, found.specific, found.related
    return time.process_time() - begun
