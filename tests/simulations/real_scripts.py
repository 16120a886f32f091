"""How many language neurons of a real model are script detectors? By language, with intervals.

    python tests/simulations/real_scripts.py MODEL FLORES [ITEMS]

MODEL is a folder, FLORES the folder of SIB-200. Needs uroman. The neurons are LAPE's 1 % of the
texts in their own script; the figures are in ``assets/measurements.md``.
"""

from __future__ import annotations

import sys
import time

import torch

import lensneurons as ln

if __name__ == "__main__":
    torch.set_num_threads(1)
    model, began = ln.load_model(sys.argv[1]), time.process_time()
    items = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    corpus = ln.load_corpus(sys.argv[2], split="train", limit=items)
    native = ln.collect(model, corpus, scope="all", progress=False)
    latin = ln.collect(model, ln.corpora.romanise(corpus), scope="all", progress=False)
    neurons = ln.identify(native, score="lape")
    control = ln.comparison.script_control(neurons, native, latin)
    table = control.to_pandas()
    print(table[table["layer"].isna()].round(3).to_string())
    thirds = table.dropna(subset=["layer"]).assign(
        third=lambda t: 3 * t["layer"] // native.n_layers
    )
    sums = thirds.groupby(["language", "third"])[["neurons", "lost", "lost_control"]].sum()
    print(sums.round(1).to_string())
    tokens = dict(zip(native.languages, latin.tokens / native.tokens, strict=True))
    print(f"tokens, romanised / native: {tokens}")
    print(f"{items} items, {time.process_time() - began:.0f} CPU-s")
