"""What preparing a corpus once saves: `describe_all`, `steering_curve` and a second `nll`.

    python tests/benchmarks preparation
    LENSNEURONS_BEFORE=/checkout/of/another/commit python tests/benchmarks preparation

Two sides take turns, each in a process of its own that loads the model once. They are two commits
where `LENSNEURONS_BEFORE` names a checkout of the other; else both run this commit, and the first
side begins every call with an empty memory of the model and a corpus that is not prepared. The
models are the demo's and those in the folder that `LENSNEURONS_MODELS` names.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from timing import spread

HERE = Path(__file__).resolve().parents[2]
WORK = ("describe_all of 3 neurons", "steering_curve with 4 alphas", "a second nll")


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    other = os.environ.get("LENSNEURONS_BEFORE")
    folder = os.environ.get("LENSNEURONS_MODELS")
    real = sorted(path.parent for path in Path(folder).glob("*/config.json")) if folder else []
    yield f"1 thread; {other or 'unprepared'} against this commit, prepared; ratio of seconds,"
    yield f"median of {rounds} pairs (smallest to largest), after one that is not counted"
    for model in ("demo", *real):
        before = _Side(Path(other) if other else HERE, str(model), forgets=not other)
        after = _Side(HERE, str(model), forgets=False)
        for name in WORK:
            pairs = [(before.run(name), after.run(name)) for _ in range(rounds + 1)][1:]
            seconds = np.array(pairs)  # [round, side, wall or CPU]
            wall, cpu = (spread(seconds[:, 0, i] / seconds[:, 1, i]) for i in (0, 1))
            first, second = (f"{value:.2f} s" for value in np.median(seconds[:, :, 0], axis=0))
            yield f"{Path(model).name}: {name}: wall {wall}, CPU {cpu} ({first} against {second})"
        before.close()
        after.close()


class _Side:
    """A process that runs the work of one side when it is asked to."""

    def __init__(self, checkout: Path, model: str, *, forgets: bool) -> None:
        command = [sys.executable, __file__, model, "forgets" if forgets else "remembers"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        )

    def run(self, name: str) -> tuple[float, float]:
        """Wall and CPU seconds of one call."""
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def prepare_work(model_name: str, forgets: bool) -> dict[str, Callable[[], object]]:
    """The calls to measure, on one model, with names that both commits know."""
    import torch

    import lensneurons as ln

    torch.set_num_threads(1)
    model = ln.load_model(model_name, device="cpu")
    corpus = ln.load_corpus("demo", limit=4, languages=["en", "zh"])
    statistics = ln.collect(model, corpus, progress=False)
    neurons = ln.identify(statistics)
    every = neurons.with_population("all")
    names = list(every.to_pandas()["name"][:3])
    chosen = max((every[language] for language in every.languages), key=len)
    texts = ln.prepare(model, corpus) if hasattr(ln, "prepare") and not forgets else corpus

    def once(run: Callable[[], object]) -> Callable[[], object]:
        def forgetting() -> object:
            from lensneurons.models import identity

            identity._KNOWN.pop(model, None)
            return run()

        return forgetting if forgets else run

    curve = {"statistics": statistics, "toward": "zh", "prompts_in": "en", "progress": False}
    calls: dict[str, Callable[[], object]] = {
        WORK[0]: lambda: ln.cards.describe_all(model, neurons, names, corpus=texts),
        WORK[1]: lambda: ln.steering_curve(model, texts, chosen, max_new_tokens=8, **curve),
        WORK[2]: lambda: ln.nll(model, texts),
    }
    return {name: once(run) for name, run in calls.items()}


def serve(model_name: str, forgets: bool) -> None:
    """Answer each name on the standard input with the wall and CPU seconds of its call."""
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    calls = prepare_work(model_name, forgets)
    for line in sys.stdin:
        run = calls[line.strip()]
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        out.write(json.dumps(seconds) + "\n")
        out.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] == "forgets")
