"""Coupling of neurons and layers between the languages of a real model; run by hand.

    python tests/simulations/real_coupling.py MODEL FOLDER [--sample NAME] [--items 80]

MODEL is a folder or a name; FOLDER holds `CODE.test.tsv` of FLORES sentences, as for
`real_controls.py`. The classes are those of a sample of the same model (`ln.load_sample`), whose
neurons were identified on other sentences.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from real_controls import LANGUAGES, sentences

import lensneurons as ln
from lensneurons.activations import item_activations
from lensneurons.comparison import coupling, layer_coupling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", default="gemma-3-270m")
    parser.add_argument("--items", type=int, default=80)
    parser.add_argument("--draws", type=int, default=99)
    parser.add_argument("--file", type=Path, help="where the activations are kept")
    options = parser.parse_args()
    model = ln.load_model(options.model)
    corpus = ln.build_corpus(sentences(options.folder, "test", options.items, LANGUAGES))
    begun = time.process_time()
    items = item_activations(model, corpus, scope="all", file=options.file, progress=False)
    read = time.process_time()
    found = coupling(items, ln.load_sample(options.sample).neurons, draws=options.draws)
    coupled = time.process_time()
    layers = layer_coupling(items, draws=options.draws)
    done = time.process_time()
    print(f"CPU seconds: read {read - begun:.0f}, {coupled - read:.0f}, {done - coupled:.0f}")
    print(found.to_pandas().round(3).to_string(index=False))
    print(found.pairs().round(3).to_string(index=False))
    table = layers.to_pandas()
    print(table.groupby("layer")[["cka", "retrieval", "cosine"]].mean().round(3).to_string())
    english = table[(table["language"] == "en") | (table["other"] == "en")]
    print(english[english["layer"].isin([0, 8, 16])].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
