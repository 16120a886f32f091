"""What each way to find neurons, to rank them and to couple them costs, beside plain counting.

CPU seconds of the demo model on the same texts, the sides in turns: each round gives a ratio to
`collect` of that round. Ways that read statistics are measured from ready ones, without the pass
that made them; ways that read single texts or gradients include their pass. Integrated gradients
have fewer texts, and `collect` of these beside them. Then the most memory that Python's own arrays
took (tracemalloc) at few and at four times as many items, whose activations lie in a file.
"""

import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from timing import take_turns, told

import lensneurons as ln
from lensneurons.activations.items import ItemActivations, item_activations
from lensneurons.cards import importance
from lensneurons.comparison import coupling, layer_coupling
from lensneurons.experiments import attention_shares
from lensneurons.neurons import rank_neurons

LANGUAGES = ["en", "de", "zh", "th", "sw"]
ITEMS, FEW = 20, 2
BY_COUNTS = ("paper", "lape", "activation_entropy", "difference")
BY_PASSES = ("activation", "plnd", "direct", "activation_gradient")


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    warnings.simplefilter("ignore")
    model = ln.load_model("demo", device="cpu")
    texts = ln.load_corpus("demo", split="test", limit=ITEMS, languages=LANGUAGES)
    corpus, few = ln.prepare(model, texts), ln.prepare(model, texts.head(FEW))
    quiet = {"progress": False}
    statistics = ln.collect(model, corpus, **quiet)
    items = item_activations(model, corpus, **quiet)
    sides: dict[str, Callable[[], object]] = {"collect": lambda: ln.collect(model, corpus, **quiet)}
    for name in BY_COUNTS:
        sides[f"identify, {name}"] = partial(ln.identify, statistics, method=name)
    sides["item_activations"] = lambda: item_activations(model, corpus, **quiet)
    for name in ("average_precision", "paired_difference"):
        find = partial(ln.identify, statistics, method=name)
        sides[f"identify, {name}, with its pass"] = lambda find=find: find(
            items=item_activations(model, corpus, **quiet)
        )
    # Romanised texts are another corpus of about the same length: here the same one, counted again.
    sides["identify, script_lape, with its pass"] = lambda: ln.identify(
        statistics, method="script_lape", romanised=ln.collect(model, corpus, **quiet)
    )
    for name in BY_PASSES:
        sides[f"importance, {name}"] = partial(importance, model, corpus, method=name, **quiet)
    sides["coupling, 200 draws"] = lambda: coupling(items)
    sides["coupling, Spearman, 200 draws"] = lambda: coupling(items, measure="spearman")
    sides["layer_coupling, 200 draws"] = lambda: layer_coupling(items)
    sides["attention_shares"] = lambda: attention_shares(model, corpus)
    yield from _ratios(take_turns(rounds, time.process_time, **sides), "collect")
    sides = {"collect, few": lambda: ln.collect(model, few, **quiet)}
    slow = partial(importance, model, few, method="integrated_gradients", **quiet)
    sides["importance, integrated_gradients, 4 steps"] = slow
    yield from _ratios(take_turns(rounds, time.process_time, **sides), "collect, few")
    yield from _memory(model)


def _ratios(seconds: dict[str, np.ndarray], base: str) -> Iterator[str]:
    yield told(base, seconds[base], "CPU s")
    for name, spent in seconds.items():
        if name != base:
            yield told(name, spent / seconds[base], "times collect", 3)


def _memory(model: object) -> Iterator[str]:
    for number in (40, 160):
        texts = ln.load_corpus("demo", split="test", limit=number, languages=LANGUAGES)
        with tempfile.TemporaryDirectory() as folder:
            reading = {"file": Path(folder) / "items.npy", "progress": False}
            read = partial(item_activations, model, ln.prepare(model, texts), **reading)
            yield told(f"item_activations into a file, {number} items", _peak(read), "MiB")
            work = partial(layer_coupling, read(), draws=20)
            yield told(f"layer_coupling, {number} items", _peak(work), "MiB")
    for number in (500, 2000):  # made-up numbers: as many would take long to read
        with tempfile.TemporaryDirectory() as folder:
            shape = (len(LANGUAGES), number, 1, 1024)
            file = Path(folder) / "items.npy"
            np.save(file, np.random.default_rng(0).random(shape, np.float32))
            names = tuple(map(str, range(number)))
            items = ItemActivations(tuple(LANGUAGES), names, np.load(file, mmap_mode="r"))
            for measure in ("pearson", "spearman"):
                work = partial(coupling, items, measure=measure, draws=2)
                yield told(f"coupling, {measure}, {number:,} items", _peak(work), "MiB")
            for method in ("average_precision", "difference"):
                work = partial(rank_neurons, items, method=method)
                yield told(f"rank_neurons, {method}, {number:,} items", _peak(work), "MiB")


def _peak(work: Callable[[], object]) -> float:
    """Most MiB that the work held at once, beyond what was there before."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    work()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (most - before) / 2**20
