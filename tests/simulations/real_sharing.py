"""Sharing by item, specificity, the lens and traits of pairs on a real model; run by hand.

    python tests/simulations/real_sharing.py MODEL FOLDER [--items 20] [--lens-items 8]

MODEL is a folder or a name; FOLDER holds `CODE.test.tsv` of FLORES sentences, as for
`real_controls.py`. Classes and counts are those of a sample of the same model (`ln.load_sample`),
from other sentences; regressions need statsmodels.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from real_controls import LANGUAGES, sentences

import lensneurons as ln
from lensneurons.comparison import item_sharing, language_traits, regress_pairs, specificity
from lensneurons.experiments import lens_languages


def tell(name, table, begun):
    """Print a table under its name and the seconds of CPU that it took."""
    sys.stdout.write(f"{name}: {time.process_time() - begun:.0f} s\n{table}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", default="gemma-3-270m")
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--lens-items", type=int, default=8)
    parser.add_argument("--languages", nargs="+", default=["en", "fr", "zh", "sw"])
    options = parser.parse_args()
    sample = ln.load_sample(options.sample)
    begun = time.process_time()
    found = specificity(sample.statistics, of="specific")
    tell("specificity", found.to_pandas().round(3).to_string(), begun)
    model = ln.load_model(options.model)
    every = ln.build_corpus(sentences(options.folder, "test", 3, LANGUAGES))
    if find_spec("statsmodels"):
        begun = time.process_time()
        traits = language_traits(ln.prepare(model, every, scope="all"))
        overlap = sample.neurons.overlap("jaccard")
        found = regress_pairs(overlap, traits)
        tell("pairs", found.to_pandas().round(4).to_string(), begun)
    corpus = ln.build_corpus(sentences(options.folder, "test", options.items, options.languages))
    begun = time.process_time()
    shared = item_sharing(model, corpus, sample.neurons, scope="all", progress=False)
    tell("sharing", shared.to_pandas().round(4).to_string(index=False), begun)
    begun = time.process_time()
    read = lens_languages(model, corpus.head(options.lens_items), scope="all")
    tell("lens", read.to_text(), begun)
    sys.stdout.write(
        read.latent(draws=300).query("rank == 1").round(4).to_string(index=False) + "\n"
    )


if __name__ == "__main__":
    main()
