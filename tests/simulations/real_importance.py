"""Cheap measures of importance against the removal of single neurons; run by hand.

    python tests/simulations/real_importance.py demo [--items 3] [--neurons 300]
    python tests/simulations/real_importance.py MODEL FOLDER --sample NAME [--items 2] [--steps 2]

MODEL is a folder or a name; FOLDER holds `CODE.test.tsv` of FLORES sentences, as for
`real_controls.py`; those with the shortest text in the first language are taken. The classes are
those of a sample of the same model (`ln.load_sample`); those of the demo model are identified on
its test split.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from real_controls import sentences

import lensneurons as ln
from lensneurons.cards import importance_agreement


def short_sentences(folder: Path, number: int, languages: tuple[str, ...]) -> list[dict]:
    """The sentences whose texts in the first language are shortest."""
    rows = sentences(folder, "test", 10**6, languages)
    own = sorted(
        (len(row["response"]), row["id"]) for row in rows if row["language"] == languages[0]
    )
    chosen = {name for _, name in own[:number]}
    return [row for row in rows if row["id"] in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--sample", default="gemma-3-270m")
    parser.add_argument("--items", type=int, default=3)
    parser.add_argument("--neurons", type=int, default=300)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--languages", nargs="+", default=["en", "de", "zh"])
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--out", type=Path, help="where the result is saved")
    options = parser.parse_args()
    begun = time.process_time()
    model = ln.load_model(options.model, device="cpu")
    if options.folder is None:
        whole = ln.load_corpus("demo", split="test", limit=20)
        statistics = ln.collect(model, whole, progress=False)
        neurons = ln.identify(statistics, score="lape", top_rate=0.09)
        corpus, scope = whole.select(options.languages).head(options.items), "response"
    else:
        neurons = ln.load_sample(options.sample).neurons
        languages = tuple(options.languages)
        corpus = ln.build_corpus(short_sentences(options.folder, options.items, languages))
        scope = "all"
    prepared = ln.prepare(model, corpus, scope=scope)
    lengths = prepared.encoded.lengths
    print(f"{len(lengths)} texts of {lengths.tolist()} tokens", flush=True)
    found = importance_agreement(
        model, prepared, neurons,
        number=options.neurons, steps=options.steps, methods=options.methods, progress=False,
    )  # fmt: skip
    if options.out is not None:
        found.save(options.out)
    print(found.to_pandas().round(3).to_string(index=False))
    print(f"CPU seconds: {time.process_time() - begun:.0f} in all")
    print(f"plain pass {found.plain_seconds:.2f}, removals {found.effect_seconds:.0f}")
    for name in dict.fromkeys(found.classes):
        own = found.of_class(name)
        table = own.to_pandas(draws=200)
        told = table[table["language"] == "all"][["method", "neurons", "spearman", "recall"]]
        print(name, "mean |effect| %.5f" % abs(own.effect).mean())  # noqa: UP031
        print(told.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
