"""Counting with one and two workers of Ray against one process, on the demo model.

Ray is started once, and its workers have their replicas before the first round that counts; what
that takes is told beside. On a machine with few cores the workers share what one process has: a
ratio above 1 needs a core for each. What is always measured is that the counts are equal.
"""

import inspect
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from timing import take_turns, told

import lensneurons as ln
from lensneurons.engines.pool import ray_started


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    if find_spec("ray") is None or "engine" not in inspect.signature(ln.collect).parameters:
        yield "no Ray here: pip install 'lensneurons[ray]'"
        return
    torch.set_num_threads(1)
    model, corpus = ln.load_model("demo", device="cpu"), ln.load_corpus("demo", split="train")
    wanted = ln.collect(model, corpus, progress=False)
    begun = time.perf_counter()
    with ray_started(ln.engines.RayEngine(workers=2)):
        yield told("start of Ray", time.perf_counter() - begun, "s", 1)
        for number in (1, 2):
            count = _counting(model, corpus, number)
            begun, found = time.perf_counter(), count()
            first = time.perf_counter() - begun
            yield told(f"first collect with {number} workers, replicas loaded in it", first, "s", 1)
            if not np.array_equal(found.grouped_counts, wanted.grouped_counts):
                raise RuntimeError(f"{number} workers count something else than one process")
            seconds = take_turns(
                min(rounds, 3),
                time.perf_counter,
                local=lambda: ln.collect(model, corpus, progress=False),
                ray=count,
            )
            ratio = seconds["local"] / seconds["ray"]
            yield told(f"collect with {number} workers, against one process", ratio, "times")


def _counting(model: object, corpus: object, number: int) -> Callable[[], ln.ActivationStatistics]:
    engine = ln.engines.RayEngine(workers=number)
    return lambda: ln.collect(model, corpus, engine=engine, progress=False)
