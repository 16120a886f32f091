"""What remains of "these neurons belong to this language" on a real model, under three controls.

    python tests/simulations/real_controls.py MODEL FOLDER [--items 10] [--rows de zh ja sw]

MODEL is a folder or a name; FOLDER holds `CODE.dev.tsv` and `CODE.test.tsv` of FLORES sentences
(columns `index_id` and `text`). LAPE at 1 % finds the neurons on `--read` sentences of ``dev``; the
specific and related ones of each row are set to zero on other sentences, of ``test``.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import lensneurons as ln

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "th", "zh")


def sentences(folder: Path, split: str, number: int, languages: tuple[str, ...]) -> list[dict]:
    """The first sentences of a split that every language has, as records of a corpus."""
    texts = {}
    for code in languages:
        with (folder / f"{code}.{split}.tsv").open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            texts[code] = {row["index_id"]: row["text"] for row in rows}
    shared = [key for key in texts[languages[0]] if all(key in found for found in texts.values())]
    return [
        {"id": key, "language": code, "response": texts[code][key]}
        for key in shared[:number]
        for code in languages
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--read", type=int, default=20, help="sentences that neurons are found on")
    parser.add_argument("--items", type=int, default=10, help="sentences that effects are read on")
    parser.add_argument("--rows", nargs="+", default=["de", "zh", "ja", "sw"])
    parser.add_argument("--out", type=Path, help="run folder of the matrix")
    options = parser.parse_args()
    model = ln.load_model(options.model)
    read = ln.build_corpus(sentences(options.folder, "dev", options.read, LANGUAGES))
    statistics = ln.collect(model, read, scope="all")
    neurons = ln.identify(statistics, score="lape", top_rate=0.01)
    columns = tuple(dict.fromkeys(("en", *options.rows)))
    held_out = ln.build_corpus(sentences(options.folder, "test", options.items, columns))
    matrix = ln.ablation_matrix(
        model,
        held_out,
        neurons,
        classes=("specific", "related"),
        languages=options.rows,
        controls=options.items,
        scope="all",
        run_dir=options.out,
        batch_tokens=2048,
    )
    for setting in matrix.classes:
        print(matrix.matched(setting).round(3).to_string(index=False))
    print(matrix.summary().round(3).to_string(index=False))
    print(matrix.to_pandas().round(3).to_string(index=False))


if __name__ == "__main__":
    main()
