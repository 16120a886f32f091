"""Answers of demo models whose verdicts are planted."""

from __future__ import annotations

import numpy as np

from lensneurons.demo.world import LANGUAGES
from lensneurons.evaluation.answers import Accuracy, Answer
from lensneurons.evaluation.generation import Decoding
from lensneurons.languages.detection import LanguageGuess
from lensneurons.values.provenance import Provenance

ITEMS = 40


def answers(right: np.ndarray, worked: np.ndarray) -> Accuracy:
    """Answers whose verdicts are bool [language, item]."""
    rows = [
        Answer(
            f"item {item}",
            code,
            ("3 + 4 = 7. " if worked[row, item] else "") + "7",
            7.0,
            7.0 if right[row, item] else 8.0,
            LanguageGuess(code, 1.0, "planted"),
            True,
        )
        for item in range(ITEMS)
        for row, code in enumerate(LANGUAGES)
    ]
    return Accuracy(tuple(rows), Decoding(), Provenance())


def planted(gain: dict[str, int], seed: int = 0) -> tuple[Accuracy, Accuracy]:
    """A base that is right on half of the problems, and a run right on some more by language."""
    right = np.zeros((len(LANGUAGES), ITEMS), bool)
    right[:, : ITEMS // 2] = True
    after = right.copy()
    for code, more in gain.items():
        after[LANGUAGES.index(code), ITEMS // 2 : ITEMS // 2 + more] = True
    return answers(right, ~right), answers(after, ~after)
