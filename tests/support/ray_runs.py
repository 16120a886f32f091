"""Runs with workers of Ray, in a process of its own: the tests have no sockets, and Ray needs some.

    python tests/support/ray_runs.py FOLDER [ADDRESS]

Prints one JSON object: what each run gave, as hashes of bytes, to be compared with those of the
local engine, which are printed beside them. One Ray is started for all.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import lensneurons as ln
from lensneurons.activations.shards import Counting
from lensneurons.alignment import responses
from lensneurons.engines.pool import ray_started
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation import answers

warnings.filterwarnings("ignore", "no other neurons are as active")
QUIET: dict[str, Any] = {"progress": False}
COUNT = {**QUIET, "batch_tokens": 200, "groups": 3}
CELLS = {**QUIET, "classes": ["specific"], "controls": 2, "match": "own", "languages": ["zh"]}
WRITE = {**QUIET, "samples": 2, "max_new_tokens": 4}
ANSWER = {**QUIET, "max_new_tokens": 4}


def digest(*parts: bytes) -> str:
    """SHA-256 of all parts."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def of_statistics(found: Any) -> str:
    """All numbers of statistics."""
    arrays = found.grouped_counts, found.grouped_tokens, found.sums, found.squares
    return digest(*(one.tobytes() for one in arrays))


def of_matrix(found: Any) -> str:
    """All numbers of a matrix."""
    arrays = found.effect, found.control, found.base, found.weight
    return digest(*(one.tobytes() for one in arrays))


@dataclass(frozen=True)
class Killing(Counting):
    """Counts, but the worker that gets batches of so many texts kills itself, if nobody did yet."""

    marks: str = ""
    times: int = 1

    def on(self, model: Any) -> Callable[[Any], Any]:
        """Count, or die."""
        count = super().on(model)
        begun = Path(self.marks)

        def dying(shard: Any) -> Any:
            deaths = len(list(begun.glob("death-*")))
            if deaths < self.times:
                (begun / f"death-{deaths}-{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return count(shard)

        return dying


def main(folder: Path, address: str | None) -> dict[str, Any]:
    """All runs."""
    torch.set_num_threads(1)  # as many as a worker has
    model = ln.load_model("demo", device="cpu")
    corpus = ln.load_corpus("demo", languages=["en", "zh", "sw"]).head(6)
    told: dict[str, Any] = {}
    statistics = ln.collect(model, corpus, **COUNT)
    neurons = ln.identify(statistics, score="lape", top_rate=0.09)
    told["statistics"] = of_statistics(statistics)
    told["matrix"] = of_matrix(ln.ablation_matrix(model, corpus.head(2), neurons, **CELLS))
    responses.PROMPTS_A_BLOCK = 4
    texts = corpus.head(2)
    told["texts"] = digest(repr(ln.alignment.respond(model, texts, **WRITE).rows).encode())
    answers.PROMPTS_A_BLOCK = 2
    told["answers"] = digest(repr(ln.accuracy(model, texts, **ANSWER).answers).encode())
    engine = ln.engines.RayEngine(workers=3, address=address)
    begun = time.time()
    with ray_started(engine):
        told["seconds to start"] = time.time() - begun
        for workers, size in ((1, 8), (2, 1), (3, 2)):
            chosen = replace(engine, workers=workers, shard_batches=size)
            found = ln.collect(model, corpus, engine=chosen, **COUNT)
            told[f"statistics {workers} {size}"] = of_statistics(found)
        two = replace(engine, workers=2)
        found = ln.ablation_matrix(model, corpus.head(2), neurons, engine=two, **CELLS)
        told["matrix 2"] = of_matrix(found)
        found = ln.alignment.respond(model, texts, engine=two, **WRITE)
        told["texts 2"] = digest(repr(found.rows).encode())
        found = ln.accuracy(model, texts, engine=two, **ANSWER)
        told["answers 2"] = digest(repr(found.answers).encode())
        dying(model, corpus, folder, two, told)
        told["no room"] = refused(model, corpus, replace(two, workers=1000))
    return told


def dying(model: Any, corpus: Any, folder: Path, engine: Any, told: dict[str, Any]) -> None:
    """Workers that are killed: some of them, or every one."""
    from lensneurons.activations import shards

    for name, times, attempts in (("killed", 1, 3), ("all killed", 10**6, 1)):
        marks = folder / name
        marks.mkdir()

        def killing(*given: Any, marks: Path = marks, times: int = times) -> Killing:
            return Killing(*given, marks=str(marks), times=times)

        # Pickled by name: the worker imports this file as a module.
        shards.Counting = killing
        try:
            small = replace(engine, workers=1, shard_batches=2, attempts=attempts)
            found = ln.collect(model, corpus, engine=small, run_dir=folder / f"{name}-run", **COUNT)
            told[name] = of_statistics(found)
        except LensNeuronsError as error:
            told[name] = str(error)
        finally:
            shards.Counting = Counting
        told[f"{name} deaths"] = len(list(marks.iterdir()))


def refused(model: Any, corpus: Any, engine: Any) -> str:
    """What is said against an engine."""
    try:
        ln.collect(model, corpus, engine=engine, **COUNT)
    except LensNeuronsError as error:
        return str(error)
    return "nothing was refused"


if __name__ == "__main__":
    import ray_runs  # by its name, so that what travels can be found by it in a worker

    print(json.dumps(ray_runs.main(Path(sys.argv[1]), (sys.argv[2:] or [None])[0])))
