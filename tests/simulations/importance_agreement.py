"""How well importance predicts what removing one neuron does, on the demo model.

    python tests/simulations/importance_agreement.py [--neurons 120] [--items 12] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from scipy.stats import spearmanr

import lensneurons as ln
from lensneurons.cards.attribution import importance
from lensneurons.interventions.editing import ablate
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.prepared import prepare


def main() -> int:
    """Measure, and write one line a group of neurons and method."""
    parser = argparse.ArgumentParser(description="Importance against removal.")
    parser.add_argument("--neurons", type=int, default=120, help="drawn at random")
    parser.add_argument("--largest", type=int, default=12, help="of each language, by gradient")
    parser.add_argument("--items", type=int, default=12, help="items a language")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    options = parser.parse_args()
    began = time.process_time()
    model = ln.load_model("demo", device="cpu")
    corpus = prepare(model, ln.load_corpus("demo", split="test", limit=options.items))
    values = {m: importance(model, corpus, method=m) for m in ("activation_gradient", "plnd")}
    gradient = values["activation_gradient"]
    n_layers, d_mlp, n_languages = gradient.value.shape
    total = n_layers * d_mlp
    flat = gradient.value.reshape(total, n_languages)
    top = np.argsort(-np.abs(flat).mean(axis=1), kind="stable")[: options.largest]
    drawn = np.random.default_rng(options.seed).choice(total, options.neurons, replace=False)
    plain = ln.nll(model, corpus)
    assert plain.languages == gradient.languages
    t = time.process_time()
    measured = {}
    for place in dict.fromkeys([*top.tolist(), *drawn.tolist()]):
        with ablate(model, NeuronSet([place], n_layers, d_mlp)):
            measured[place] = ln.nll(model, corpus).mean - plain.mean
    sys.stdout.write(f"{len(measured)} neurons, {time.process_time() - t:.0f} CPU seconds\n")
    for name, members in (("largest", top), ("drawn", drawn)):
        effect = np.array([measured[int(p)] for p in members])
        for method, found in values.items():
            own = found.value.reshape(total, n_languages)[members]
            predicted = -own if method == "activation_gradient" else own
            rho = [spearmanr(predicted[:, k], effect[:, k])[0] for k in range(n_languages)]
            rho_abs = [spearmanr(abs(predicted[:, k]), abs(effect[:, k]))[0] for k in range(n_languages)]
            r = [np.corrcoef(predicted[:, k], effect[:, k])[0, 1] for k in range(n_languages)]
            ratio = np.abs(predicted).sum() / np.abs(effect).sum()
            sys.stdout.write(f"{name} {method}: rho {np.mean(rho):.3f} [{min(rho):.2f} {max(rho):.2f}] abs {np.mean(rho_abs):.3f} r {np.mean(r):.3f} ratio {ratio:.3f} signed ratio {predicted.sum()/effect.sum():.3f} sign agree {np.mean(np.sign(predicted)==np.sign(effect)):.3f} mean abs pred {np.abs(predicted).mean():.5f} eff {np.abs(effect).mean():.5f} max eff {np.abs(effect).max():.4f}\n")
    sys.stdout.write(f"{time.process_time() - began:.0f} CPU seconds\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
