"""Small studies: their options and texts, the bytes that they leave, and how one is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.corpora.corpus import ParallelCorpus, load_corpus
from lensneurons.studies.plan import Rates, Sizes, Work

SMALL: dict[str, Any] = {
    "effect_items": 5, "controls": 5, "lens_items": 2, "card_items": 2, "cards": 1,
    "top_rate": 0.2, "classes": ["specific", "related"],
}  # fmt: skip
# Measured times are never the same; steps.json has the hash of the plan.
MEASURED = ("plan.jsonl", "timings.json", "steps.json")
WORK = Work(
    steps=("counts", "neurons", "lens", "effects", "cards", "results"), languages=4, tokens=200.0,
    settings=3, rows=4, matches=2, metrics=("nll",), new_tokens=0, prompt_tokens=0,
    batch_tokens=4096, neurons=10_000, groups=10,
)  # fmt: skip
RATES = Rates(0.01, 0.02, 0.05, 0.1, 3.0, np.nan, np.nan, 1.5)
SIZES = Sizes(items=300, effect_items=20, controls=40, lens_items=50, card_items=20, cards=2)


def short_texts(languages: Sequence[str]) -> ParallelCorpus:
    """The 26 shortest of 60 problems of the demo."""
    corpus = load_corpus("demo", split="test", limit=60, languages=languages)
    longest = {one: max(len(i.text) for i in corpus if i.id == one) for one in corpus.ids}
    return corpus.select(ids=sorted(longest, key=lambda one: longest[one])[:26])


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file whose bytes do not tell the time, locks left out."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (*MEASURED, ".lock")
    }


def stopped(whole):
    """A function that does its work, and is stopped before anybody gets the value."""

    def stop(*arguments, **options):
        whole(*arguments, **options)
        raise KeyboardInterrupt

    return stop
