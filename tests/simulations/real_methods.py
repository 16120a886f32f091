"""The published ways to find language neurons at equal numbers, on a real model; run by hand.

    python tests/simulations/real_methods.py MODEL FOLDER [--number 100] [--rows de zh ja sw]
    python tests/simulations/real_methods.py demo demo --scope response --read 60 --number 30

MODEL is a folder or a name; FOLDER holds `CODE.dev.tsv` and `CODE.test.tsv` of FLORES sentences, as
for `real_controls.py`, or is ``demo`` for problems of the demo world. Neurons are found on ``dev``
(``validation``) and removed on ``test``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from real_controls import LANGUAGES, sentences

import lensneurons as ln
from lensneurons.activations import item_activations
from lensneurons.cards import importance
from lensneurons.experiments import compare_methods
from lensneurons.neurons import rank_neurons


def texts(folder: Path, split: str, number: int, languages: tuple[str, ...]) -> ln.ParallelCorpus:
    """Sentences of FLORES, or problems of the demo."""
    if str(folder) != "demo":
        return ln.build_corpus(sentences(folder, split, number, languages))
    split = {"dev": "validation"}.get(split, split)
    return ln.load_corpus("demo", split=split, limit=number, languages=languages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--read", type=int, default=20, help="sentences that neurons are found on")
    parser.add_argument("--items", type=int, default=10, help="sentences that effects are read on")
    parser.add_argument("--number", type=int, default=100, help="neurons of each language")
    parser.add_argument("--rows", nargs="+", default=["de", "zh", "ja", "sw"])
    parser.add_argument("--scope", default="all", choices=["all", "response"])
    parser.add_argument("--out", type=Path, help="run folder of the effects")
    options = parser.parse_args()
    model = ln.load_model(options.model)
    corpus = texts(options.folder, "dev", options.read, LANGUAGES)
    read = ln.prepare(model, corpus, scope=options.scope)
    seconds: dict[str, float] = {}

    def timed(name, find):
        begun = time.process_time()
        found = find()
        seconds[name] = time.process_time() - begun
        return found

    statistics = timed("collect", lambda: ln.collect(model, read, progress=False))
    items = timed("items", lambda: item_activations(model, read, progress=False))
    lape = ln.identify(statistics, score="lape", top_rate=0.03)
    methods = {
        "LAPE": lape,
        "average precision": timed("average precision", lambda: rank_neurons(items)),
        "difference": timed("difference", lambda: rank_neurons(items, method="difference")),
        "PLND": timed("PLND", lambda: importance(model, read)),
        "activation x gradient": timed(
            "activation x gradient",
            lambda: importance(model, read, method="activation_gradient"),
        ),
    }
    told = ", ".join(f"{name} {one:.0f}" for name, one in seconds.items())
    print(f"CPU seconds: {told}", flush=True)
    columns = tuple(dict.fromkeys(("en", *options.rows)))
    held_out = texts(options.folder, "test", options.items, columns)
    found = compare_methods(
        model,
        held_out,
        methods,
        lape,
        number=options.number,
        languages=options.rows,
        controls=options.items,
        scope=options.scope,
        run_dir=options.out,
        batch_tokens=2048,
        progress=False,
    )
    print(found)
    print(found.to_pandas().round(3).to_string(index=False))
    print(found.overlap().round(2).to_string())
    print(found.layer_profile().to_string())
    for method in found.sets:
        print(method, found.matrix.cells(method).round(2).tolist())


if __name__ == "__main__":
    main()
