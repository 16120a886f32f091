"""What a model answered to the problems of a corpus: each text, and whether it is right.

    right answer    the last number of the text is the last number of the item's response
    right language  the text, whole, is in the language of the item
    both            one and the other

The two parts are kept apart because they fail apart: a model without its Thai neurons may still
solve a problem, in English.

The interval of a share is Wilson's (1927). Each item is right or wrong once, so right items are
binomial; Wilson's interval covers close to its level also for few items and shares near 0 and 1,
where a bootstrap of ``0 of 50`` would say "0 to 0" (Wilson: 0 to 7 %). It speaks of one language of
one model. The items are the same in every language and every model, so differences between two of
them have narrower intervals, paired by item: bootstrap the items of `Accuracy.to_pandas` for those.

What it does not show: whether the reasoning is right; whether a text that ends at the limit of
tokens would have got there (`Answer.finished` tells them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.decoding import Decoding
from lensneurons.evaluation.numerals import same_number
from lensneurons.language_identification import LanguageGuess
from lensneurons.languages import language_name
from lensneurons.provenance import Provenance
from lensneurons.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    import pandas as pd

KIND = "accuracy"
PARTS = ("right_answer", "right_language", "both")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote for one item.

    Attributes:
        id: the item.
        language: the language that it was asked in.
        text: what the model wrote, whole.
        expected: the number that answers it.
        number: the last number of the text; None where it has none.
        guess: the language that the text seems to be written in.
        finished: whether the text ended by itself, not at the limit of tokens.
    """

    id: str
    language: str
    text: str
    expected: float
    number: float | None
    guess: LanguageGuess
    finished: bool

    @property
    def right_answer(self) -> bool:
        """Whether the last number is the expected one, within 0.01."""
        return same_number(self.number, self.expected)

    @property
    def right_language(self) -> bool:
        """Whether the text is in the language of its item; undetermined is not."""
        return self.guess.language == self.language

    @property
    def both(self) -> bool:
        """Right answer in the right language."""
        return self.right_answer and self.right_language


@dataclass(frozen=True, eq=False, repr=False)
class Accuracy:
    """The answers of a model to a corpus. Made by `accuracy`.

    Attributes:
        answers: one an item, in the order of the corpus.
        decoding: how the texts were written.
        provenance: model, weights, corpus, and whether hooks (an ablation) were on the model.
    """

    answers: tuple[Answer, ...]
    decoding: Decoding
    provenance: Provenance

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages, in the order of the corpus."""
        return tuple(dict.fromkeys(answer.language for answer in self.answers))

    def __len__(self) -> int:
        """The number of answers."""
        return len(self.answers)

    def __iter__(self) -> Iterator[Answer]:
        """All answers, language by language."""
        return iter(self.answers)

    def per_language(self, *, level: float = 0.95) -> pd.DataFrame:
        """Shares of right answers and right languages, with Wilson's intervals.

        Args:
            level: coverage of the intervals.

        Returns:
            One row a language. Columns: items; for right_answer, right_language and both the share
            (0 to 1) and its ``_low`` and ``_high`` ends; the shares undetermined (no language
            could be told) and unfinished (cut at the limit of tokens).

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        import pandas as pd

        if not 0 < level < 1:
            raise LensNeuronsError(f"level={level}: coverage is a number between 0 and 1")
        rows = [self._summary(language, level) for language in self.languages]
        return pd.DataFrame(rows, index=pd.Index(self.languages, name="language", dtype=object))

    def _summary(self, language: str, level: float) -> dict[str, int | float]:
        """One row of `per_language`."""
        own = [answer for answer in self.answers if answer.language == language]
        row: dict[str, int | float] = {"items": len(own)}
        for part in PARTS:
            right = sum(getattr(answer, part) for answer in own)
            low, high = wilson_interval(right, len(own), level=level)
            row |= {part: right / len(own), f"{part}_low": low, f"{part}_high": high}
        row["undetermined"] = sum(answer.guess.language is None for answer in own) / len(own)
        row["unfinished"] = sum(not answer.finished for answer in own) / len(own)
        return row

    def to_pandas(self) -> pd.DataFrame:
        """One row an answer: id, language, text, expected, number, guess, confidence, script,
        finished, and the three parts.
        """
        import pandas as pd

        return pd.DataFrame([_row(answer) for answer in self.answers])

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path.

        What is right is written beside the numbers it follows from, for readers of other programs.
        """
        rows = [_row(answer) for answer in self]
        arrays = {name: np.array([row[name] for row in rows], np.float64) for name in _NUMBERS}
        for name in ("finished", *PARTS):
            arrays[name] = np.array([row[name] for row in rows], bool)
        details: dict[str, Any] = {name: [row[name] for row in rows] for name in _TEXTS}
        details["decoding"] = asdict(self.decoding)
        details["provenance"] = self.provenance.to_dict()
        return save_arrays(path, KIND, arrays, details)

    @classmethod
    def load(cls, path: str | Path) -> Accuracy:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        columns: Mapping[str, Any] = {**{n: a.tolist() for n, a in arrays.items()}, **details}
        names = (*_TEXTS, *_NUMBERS, "finished")
        values = zip(*(columns[name] for name in names), strict=True)
        answers = tuple(_answer(dict(zip(names, row, strict=True))) for row in values)
        provenance = Provenance.from_dict(details["provenance"])
        return cls(answers, Decoding(**details["decoding"]), provenance)

    def __repr__(self) -> str:
        shares = (sum(getattr(answer, part) for answer in self) / len(self) for part in PARTS)
        told = ", ".join(
            f"{part.replace('_', ' ')} {share:.1%}"
            for part, share in zip(PARTS, shares, strict=True)
        )
        return (
            f"Accuracy({self.provenance.model}: {len(self)} answers in {len(self.languages)} "
            f"languages: {told})"
        )

    def _repr_html_(self) -> str:
        table = self.per_language()
        head = ("language", "name", "items", *(part.replace("_", " ") for part in PARTS))
        rows = [
            (tag, language_name(tag), int(row["items"]), *(_share(row, part) for part in PARTS))
            for tag, row in zip(table.index, table.to_dict("records"), strict=True)
        ]
        return html_table(repr(self), head, rows)


_TEXTS = ("id", "language", "text", "guess", "script")
_NUMBERS = ("expected", "number", "confidence")


def _row(answer: Answer) -> dict[str, Any]:
    """One row of `Accuracy.to_pandas`."""
    return {
        "id": answer.id,
        "language": answer.language,
        "text": answer.text,
        "expected": answer.expected,
        "number": np.nan if answer.number is None else answer.number,
        "guess": answer.guess.language,
        "confidence": answer.guess.confidence,
        "script": answer.guess.script,
        "finished": answer.finished,
        **{part: getattr(answer, part) for part in PARTS},
    }


def _answer(row: Mapping[str, Any]) -> Answer:
    """The answer that `_row` described."""
    return Answer(
        id=row["id"],
        language=row["language"],
        text=row["text"],
        expected=row["expected"],
        number=None if np.isnan(row["number"]) else row["number"],
        guess=LanguageGuess(row["guess"], row["confidence"], row["script"]),
        finished=row["finished"],
    )


def _share(row: Mapping[Any, Any], part: str) -> str:
    """A share with its interval, in percent, such as ``"43 % (31-57)"``."""
    low, middle, high = (100 * row[part + end] for end in ("_low", "", "_high"))
    return f"{middle:.0f} % ({low:.0f}-{high:.0f})"


def wilson_interval(right: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        right: how many of them.
        n: of how many, at least 1.
        level: coverage, between 0 and 1.

    Returns:
        Lower and upper end, 0 to 1.
    """
    from scipy.stats import binomtest

    found = binomtest(int(right), n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)
