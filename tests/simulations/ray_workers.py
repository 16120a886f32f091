"""Count with 1, 2 and 3 workers of Ray, kill a worker and the driver, and compare every bit.

    python tests/simulations/ray_workers.py [--model demo] [--workers 1 2 3] [--shards 1 3]
        [--items 4] [--languages en zh sw] [--flores FOLDER]

Each run is compared with the local engine, which has as many threads as a worker, one. Texts are
those of the demo, or sentences of FLORES (`real_controls.py` says what FOLDER holds). Printed are
``equal`` or ``UNEQUAL``, and seconds, without the start of Ray and the loading of replicas, which
all runs of a number of workers wait for:

    workers N       statistics of N workers, with shards of so many batches
    matrix          effects and controls of two random sets, two languages, two items, by the most
                    workers
    killed worker   a worker is killed from outside after the first shard, while it counts
    killed driver   the driver is killed with SIGKILL after two shards, with one worker; the next
                    goes on in its folder; how many of Ray's processes outlive the first by a minute

A replica of Gemma 3 270M takes about 3 GB; `assets/measurements.md` has what it gave.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import psutil
import torch
from real_controls import sentences

import lensneurons as ln
from lensneurons.engines.pool import pool, ray_started

COUNT: dict[str, Any] = {"progress": False, "batch_tokens": 64, "groups": 3, "scope": "all"}
ARRAYS = ("grouped_counts", "grouped_tokens", "sums", "squares")


def same(ours: Any, theirs: Any, names: tuple[str, ...]) -> str:
    """Whether arrays have the same bytes."""
    equal = all(getattr(ours, n).tobytes() == getattr(theirs, n).tobytes() for n in names)
    return "equal" if equal else "UNEQUAL"


def timed(name: str, run: Callable[[], Any], wanted: Any, names: tuple[str, ...] = ARRAYS) -> None:
    """Run, compare, print."""
    begun = time.monotonic()
    told = same(run(), wanted, names)
    print(f"{name:30} {told:8} {time.monotonic() - begun:7.1f} s", flush=True)


def ray_processes() -> list[psutil.Process]:
    """The actors that run on this machine."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "ray::_Worker" in " ".join(process.info["cmdline"] or ()):
            found.append(process)
    return found


def kill_one(folder: Path) -> None:
    """Kill a worker of this process's Ray as soon as the first shard is in the folder."""
    while not list(folder.glob("languages/*")):
        time.sleep(0.05)
    ours = set(psutil.Process().children(recursive=True))
    workers = [one for one in ray_processes() if one in ours]
    if workers:
        workers[0].kill()
        print(f"  killed {workers[0].pid}, {len(workers)} workers were there", flush=True)


def kill_driver(folder: Path, options: argparse.Namespace) -> None:
    """Begin the same count in a process, and kill it after two shards."""
    command = [sys.executable, __file__, "--model", options.model, "--driver", str(folder)]
    command += ["--items", str(options.items), "--languages", *options.languages]
    command += ["--flores", str(options.flores)] if options.flores else []
    child = subprocess.Popen(command)
    while child.poll() is None and len(list(folder.glob("languages/*"))) < 2:
        time.sleep(0.02)
    children = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
    child.send_signal(signal.SIGKILL)
    child.wait()
    print(f"  driver ended with {child.returncode}", flush=True)
    gone, alive = psutil.wait_procs(children, timeout=60)
    print(f"  {len(gone)} processes of its Ray ended by themselves, {len(alive)} live", flush=True)


def main() -> None:
    """All runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--items", type=int, default=4)
    parser.add_argument("--languages", nargs="+", default=["en", "zh", "sw"])
    parser.add_argument("--shards", nargs="+", type=int, default=[1, 3], help="batches of a shard")
    parser.add_argument("--flores", type=Path, help="folder of sentences to read")
    parser.add_argument("--driver", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "no other neurons are as active")
    torch.set_num_threads(1)
    ray, corpus = ln.engines.RayEngine, texts_of(options)
    model = ln.load_model(options.model, device="cpu")
    if options.driver is not None:
        one = ray(workers=1, shard_batches=1)
        with ExitStack() as stack:
            start_ray(stack, one)
            ln.collect(model, corpus, run_dir=options.driver, engine=one, **COUNT)
        return
    many = ray(workers=max(options.workers), shard_batches=1)
    with ExitStack() as stack:
        start_ray(stack, many)
        in_workers(options, model, corpus, many, stack)


def start_ray(stack: ExitStack, engine: ln.engines.RayEngine, tries: int = 10) -> None:
    """Start Ray, which waits 30 s for its own processes: on a busy machine that is too short."""
    for left in reversed(range(tries)):
        try:
            stack.enter_context(ray_started(engine))
            return
        except ln.LensNeuronsError as error:
            print(f"  {error}", flush=True)
            if not left:
                raise


def in_workers(
    options: argparse.Namespace, model: Any, corpus: ln.ParallelCorpus, many: Any, stack: ExitStack
) -> None:
    """The runs; Ray is there, and ends before the driver is killed."""
    ray = ln.engines.RayEngine
    begun = time.monotonic()
    wanted = ln.collect(model, corpus, **COUNT)
    tokens = int(wanted.tokens.sum())
    print(f"{'one process':30} {tokens} tokens {time.monotonic() - begun:7.1f} s", flush=True)
    neurons = ln.identify(wanted, score="lape", top_rate=0.05)
    cells = {"classes": ["specific"], "controls": 2, "match": "own", "progress": False}
    cells |= {"languages": options.languages[:2], "scope": "all"}
    texts = corpus.select(options.languages[:2]).head(2)
    local = ln.ablation_matrix(model, texts, neurons, **cells)
    with tempfile.TemporaryDirectory() as name:
        for workers in options.workers:
            for size in options.shards:
                engine = ray(workers=workers, shard_batches=size)
                have_replicas(engine, model)
                run = lambda engine=engine: ln.collect(model, corpus, engine=engine, **COUNT)  # noqa: E731
                timed(f"workers {workers}, shards of {size}", run, wanted)
        timed(
            f"matrix, workers {many.workers}",
            lambda: ln.ablation_matrix(model, texts, neurons, engine=many, **cells),
            local, ("effect", "control", "base", "weight"),
        )  # fmt: skip
        folder = Path(name) / "worker"
        threading.Thread(target=kill_one, args=[folder], daemon=True).start()
        killed = {"run_dir": folder, "engine": many, **COUNT}
        timed("killed worker", lambda: ln.collect(model, corpus, **killed), wanted)
        stack.close()
        folder = Path(name) / "driver"
        kill_driver(folder, options)
        done = len(list(folder.glob("languages/*")))
        print(f"  {done} shards are in its folder", flush=True)
        one = ray(workers=1, shard_batches=1)
        start_ray(stack, one)
        goes_on = {"run_dir": folder, "engine": one, **COUNT}
        timed("killed driver", lambda: ln.collect(model, corpus, **goes_on), wanted)


@dataclass(frozen=True)
class Waiting:
    """Work that waits, and says in which process."""

    def on(self, model: Any) -> Callable[[float], int]:
        def wait(seconds: float) -> int:
            time.sleep(seconds)
            return os.getpid()

        return wait


def have_replicas(engine: ln.engines.RayEngine, model: Any) -> None:
    """Wait until every worker has its replica: else the first ones do all there is."""
    begun, there, number = time.monotonic(), set[int](), 4 * engine.workers
    with pool(engine, model) as hands:
        while len(there) < engine.workers:
            there |= {pid for _, pid in hands.run(Waiting(), ["wait"] * number, lambda _: 0.5)}
    print(f"  {len(there)} workers have replicas, {time.monotonic() - begun:.1f} s", flush=True)


def texts_of(options: argparse.Namespace) -> ln.ParallelCorpus:
    """The sentences of FLORES, or the problems of the demo."""
    if options.flores:
        languages = tuple(options.languages)
        return ln.build_corpus(sentences(options.flores, "dev", options.items, languages))
    return ln.load_corpus("demo", languages=options.languages).head(options.items)


if __name__ == "__main__":
    main()
