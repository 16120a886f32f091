"""Seconds and memory of everything after counting, at the size of a large model in many languages.

    python tests/simulations/scale.py --folder /tmp/scale                        # 100 x 80 x 28,672
    python tests/simulations/scale.py --folder /tmp/scale --groups 10 --steps load identify

Statistics of a made-up model are drawn a layer at a time into a file of 8 bytes a group, layer,
neuron and language. Then every step runs in a process of its own, which reads what the steps before
it left in the folder. A step is told in CPU seconds (user and system), seconds on the clock, and
the most memory of its own (anonymous pages, looked at every 10 ms); the pages of a mapped file,
which the system can take back at any time, stand beside it. Imports are not timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lensneurons.activations.merging import merge_statistics
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.values.filling import filling_arrays
from lensneurons.values.mapping import let_go
from lensneurons.values.provenance import Provenance

TOKENS = 1_000_000  # counted tokens of a language in each group
SIZE = (100, 80, 28_672)


def draw_layer(random: np.random.Generator, place: float, width: int, languages: int) -> np.ndarray:
    """Activation probabilities float32 [neuron, language] of one layer at a depth of 0 to 1.

    Most neurons fire seldom and alike everywhere. Some fire in one language, some in several and
    some in all; the first two are frequent at both ends, the last in the middle.
    """
    ends = 0.2 + 0.8 * abs(2 * place - 1)
    base = random.random((width, 1), np.float32) ** 4 * np.float32(0.4)
    p = base * (0.7 + 0.6 * random.random((width, languages), np.float32))
    which = random.random(width)
    for neuron in np.flatnonzero(which < 0.04 * ends):
        p[neuron, random.integers(languages)] += 0.5
    for neuron in np.flatnonzero((which > 0.5) & (which < 0.5 + 0.05 * ends)):
        p[neuron, random.permutation(languages)[: random.integers(2, 1 + languages // 3)]] += 0.4
    p[which > 0.98 + 0.019 * ends] += 0.45
    return np.minimum(p, 0.999, out=p)


def draw_statistics(file: Path, size: tuple[int, int, int], groups: int, *, seed: int = 0) -> None:
    """Write statistics of [language, layer, neuron] into a file."""
    languages, layers, width = size
    names = tuple(f"x{number:03d}" for number in range(languages))
    about = {"languages": names, "provenance": Provenance(corpora=(f"seed {seed}",))}
    shape = (groups, layers, width, languages)
    shapes = {"counts": (np.int64, shape), "tokens": (np.int64, (groups, languages))}
    details = ActivationStatistics._packed(about)[1]
    with filling_arrays(file, ActivationStatistics.FILE_KIND, shapes, details) as arrays:
        arrays["tokens"][...] = TOKENS
        for layer in range(layers):
            random = np.random.default_rng([seed, layer])
            p = draw_layer(random, layer / max(1, layers - 1), width, languages)
            for group in range(groups):  # a little more or less in each
                arrays["counts"][group, layer] = p * TOKENS * (1 - 0.001 * group)
            let_go(arrays["counts"])


# Steps: each reads from the folder, and returns what is to be done and timed


def _load(folder: Path) -> Callable[[], object]:
    return lambda: ActivationStatistics.load(folder / "statistics", memory_map=True)


def _identify(folder: Path, score: str) -> Callable[[], object]:
    statistics = ActivationStatistics.load(folder / "statistics", memory_map=True)

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = identify(statistics, score=score)
        KEPT.append(found)

    return run


def _keep(folder: Path) -> Callable[[], object]:
    _identify(folder, "lape")()
    return lambda: KEPT[0].save(folder / "neurons")


def _read(folder: Path) -> Callable[[], object]:
    return lambda: LanguageNeurons.load(folder / "neurons", memory_map=True)


def _classify(folder: Path) -> Callable[[], object]:
    neurons = LanguageNeurons.load(folder / "neurons", memory_map=True)

    def run() -> None:
        _ = neurons.class_codes, neurons.specific, neurons.related, neurons.agnostic
        _ = neurons.histogram("all"), neurons.layer_profile("all"), neurons.overlap_matrix()
        _ = neurons.per_language(), repr(neurons)

    return run


def _table(folder: Path) -> Callable[[], object]:
    neurons = LanguageNeurons.load(folder / "neurons", memory_map=True)
    return lambda: neurons.to_pandas().to_csv(folder / "neurons.csv")


def _figure(folder: Path, name: str) -> Callable[[], object]:
    from lensneurons import plots

    neurons = LanguageNeurons.load(folder / "neurons", memory_map=True)

    def run() -> None:
        text = getattr(plots, name)(neurons).to_json()
        (folder / f"{name}.json").write_text(text)

    return run


def _page(folder: Path) -> Callable[[], object]:
    from lensneurons.reports.report_page import report

    neurons = LanguageNeurons.load(folder / "neurons", memory_map=True)
    return lambda: report(folder / "report.html", neurons)


def _parts(folder: Path) -> Callable[[], object]:
    from lensneurons.neurons.parts import divide_layers

    statistics = ActivationStatistics.load(folder / "statistics", memory_map=True)
    neurons = LanguageNeurons.load(folder / "neurons", memory_map=True)
    return lambda: divide_layers(neurons, statistics if statistics.n_groups > 1 else None)


def _merge(folder: Path) -> Callable[[], object]:
    first = ActivationStatistics.load(folder / "statistics", memory_map=True)
    other = folder / "other"
    if not other.exists():
        size = (len(first.languages), first.n_layers, first.d_mlp)
        draw_statistics(other, size, first.n_groups, seed=1)
    return lambda: merge_statistics([first, other], file=folder / "merged")


KEPT: list[LanguageNeurons] = []
STEPS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "load": _load,
    "identify paper": lambda folder: _identify(folder, "paper"),
    "identify lape": lambda folder: _identify(folder, "lape"),
    "save neurons": _keep,
    "load neurons": _read,
    "classify": _classify,
    "table": _table,
    "layer_profile": lambda folder: _figure(folder, "layer_profile"),
    "neuron_map": lambda folder: _figure(folder, "neuron_map"),
    "overlap": lambda folder: _figure(folder, "overlap"),
    "page": _page,
    "parts": _parts,
    "merge": _merge,
}
WRITTEN = {"page": "report.html", "table": "neurons.csv", "save neurons": "neurons"}
WRITTEN |= {name: f"{name}.json" for name in ("layer_profile", "neuron_map", "overlap")}


@contextmanager
def watching_memory() -> Iterator[dict[str, float]]:
    """Yield a dictionary that holds the most MiB of this process once the block is left."""
    most = {"own": 0.0, "mapped": 0.0}
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            lines = Path("/proc/self/status").read_text().splitlines()
            held = {line.split(":")[0]: line.split()[1] for line in lines if "Rss" in line}
            most["own"] = max(most["own"], int(held["RssAnon"]) / 1024)
            most["mapped"] = max(most["mapped"], int(held["RssFile"]) / 1024)
            stop.wait(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def run_step(name: str, folder: Path) -> dict[str, float]:
    """Do one step in this process and tell its costs."""
    run = STEPS[name](folder)
    begun, clock = time.process_time(), time.perf_counter()
    with watching_memory() as most:
        run()
    found = {"cpu_seconds": time.process_time() - begun, "seconds": time.perf_counter() - clock}
    if name in WRITTEN:
        found["written_mb"] = (folder / WRITTEN[name]).stat().st_size / 1e6
    return {**found, "own_mib": most["own"], "mapped_mib": most["mapped"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for the files; they stay")
    parser.add_argument("--size", type=int, nargs=3, default=SIZE, help="languages layers width")
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--steps", nargs="*", choices=[*STEPS, []], help="default: all")
    parser.add_argument("--one", choices=[*STEPS], help="a step, in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_step(options.one, options.folder)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "statistics"
    if not file.exists():
        draw_statistics(file, tuple(options.size), options.groups)
    print(f"{file.stat().st_size / 1e9:.2f} GB of statistics", flush=True)
    for name in options.steps or STEPS:
        command = [sys.executable, __file__, "--folder", str(options.folder), "--one", name]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        told = json.loads(output.splitlines()[-1])
        print(f"{name}: " + ", ".join(f"{k} {v:,.2f}" for k, v in told.items()), flush=True)


if __name__ == "__main__":
    main()
