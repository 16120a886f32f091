"""Accuracy before and after: the same problems asked twice, paired item by item.

    change = share right after - share right before

Of one language: Newcombe's score interval for a paired difference (1998, method 10: Wilson's ends
of both shares, with the correlation of the two), which is not empty where nobody changed, and
McNemar's exact test of the items that did. Of several languages together: the mean over them, with
a bootstrap over items, which are the same in every language and so are drawn together.

What it does not show: why answers changed. A text may be right by another way than before.

What a model answered to the problems of a corpus: each text, and whether it is right.

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

How often a model answers the problems of a corpus, and in the language it was asked in.

    prompt -> text -> last number (`numerals`) and language (`language_identification`)

The answer of an item is the last number of its response, in the corpus and in the model's text. The
language is identified over the whole text, without numbers and without the names of the prompt,
among the languages of the corpus and a few large ones; "undetermined" is not right.

>>> result = ln.accuracy(model, corpus, max_new_tokens=128)          # doctest: +SKIP
>>> result.per_language()[["right_answer", "right_language", "both"]]    # doctest: +SKIP

What it does not show: whether the reasoning holds. A text that goes on after its answer (a base
model that invents a next problem) is judged by the last number of all that it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError, choose
from lensneurons.evaluation.generation import (
    Decoding,
    Response,
    encode_prompts,
    fit_context,
    write_responses,
    write_rows,
)
from lensneurons.evaluation.numbers import last_number, same_number
from lensneurons.languages.codes import language_name
from lensneurons.languages.detection import (
    MINIMUM_CONFIDENCE,
    LanguageGuess,
    detect_language,
    names_in,
    require_identifiable,
)
from lensneurons.models.family import model_family
from lensneurons.models.identity import original_tokenizer
from lensneurons.tokens.prepared import model_provenance
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import item_bootstrap
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


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


Identify = Callable[[str], LanguageGuess]


def accuracy(
    model: Any,
    corpus: ParallelCorpus,
    *,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    batch_tokens: int = 16384,
    minimum_confidence: float = MINIMUM_CONFIDENCE,
    ignore: Sequence[str] = (),
    identify: Identify | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> Accuracy:
    """Let a model answer every item of a corpus, and judge number and language apart.

    Args:
        model: what `load_model` returns, or any TransformerLens model. Hooks on it act.
        corpus: problems whose responses end with the number that answers them.
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        temperature: 0 always takes the likeliest token; else tokens are drawn.
        seed: of the drawing; the same for two states of a model gives paired texts.
        batch_tokens: largest rectangle, prompts times (longest prompt + new tokens).
        minimum_confidence: below it the language of a text is undetermined.
        ignore: words that say nothing about the language, beside the names of each prompt.
        identify: your own identification of languages, from a text to a `LanguageGuess` with tags
            spelt as in the corpus; `minimum_confidence` and `ignore` are then yours to apply.
        tokenizer: encodes the prompts; by default the model's own, as it was saved.
        progress: show one progress bar, in prompts.

    Returns:
        One answer an item, with per-language shares and intervals.

    Raises:
        CorpusError: an item without a number in its response, or without a prompt.
        LensNeuronsError: an option out of its range, prompts too long, or a language that cannot be
            told from others of its script.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read.
    """
    decoding = Decoding(max_new_tokens, temperature, seed, batch_tokens)
    expected = [expected_number(item) for item in corpus]
    if identify is None:
        _require_identification(corpus, ignore, minimum_confidence)
    tokenizer = tokenizer or original_tokenizer(model)
    prompts = [item.prompt for item in corpus]
    written = write_responses(model, prompts, decoding, tokenizer=tokenizer, progress=progress)
    answers = []
    for item, number, response in zip(corpus, expected, written, strict=True):
        ask = identify or _identify_for(item, corpus, ignore, minimum_confidence)
        answers.append(_judge(item, number, response, ask))
    provenance = model_provenance(model, tokenizer, corpus.fingerprint)
    return Accuracy(tuple(answers), decoding, provenance)


def answer_scorer(
    model: Any,
    corpus: ParallelCorpus,
    *,
    max_new_tokens: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Callable[[Sequence[int]], list[bool]]:
    """Make the function that lets a model answer some items, greedily, as one batch a call.

    Args:
        model: a ``TransformerBridge``; hooks that are on it when the function is called act.
        corpus: problems whose responses end with the number that answers them.
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        tokenizer: encodes the prompts; by default the model's own, as it was saved.

    Returns:
        ``score(rows)``: whether each answer is right and in the right language. An item may be
        named several times: rows that differ in their condition.

    Raises:
        CorpusError: an item without a number in its response, or without a prompt.
        LensNeuronsError: prompts too long, or a language that cannot be told from others.
        ModelError: a model of TransformerLens 3.9, which writes prompts of one length only.
    """
    if model_family(model) == "hooked":
        raise ModelError("answers under several conditions need a TransformerBridge: load_model()")
    expected = [expected_number(item) for item in corpus]
    _require_identification(corpus, (), MINIMUM_CONFIDENCE)
    tokenizer = tokenizer or original_tokenizer(model)
    ids = encode_prompts([item.prompt for item in corpus], tokenizer)
    decoding = Decoding(fit_context(model, [len(row) for row in ids], max_new_tokens))
    asks = [_identify_for(item, corpus, (), MINIMUM_CONFIDENCE) for item in corpus]

    def score(rows: Sequence[int]) -> list[bool]:
        written = write_rows(model, tokenizer, [ids[row] for row in rows], list(rows), decoding)
        pairs = zip(rows, written, strict=True)
        return [_judge(corpus.items[i], expected[i], text, asks[i]).both for i, text in pairs]

    return score


def _require_identification(
    corpus: ParallelCorpus, ignore: Sequence[str], minimum_confidence: float
) -> None:
    """Ask once in vain, so that a language or a confidence that will not do is refused now."""
    require_identifiable(corpus.languages)
    _identify_for(corpus.items[0], corpus, ignore, minimum_confidence)("")


def expected_number(item: Item) -> float:
    """The number that answers an item.

    Raises:
        CorpusError: its response has no number, or it has no prompt.
    """
    number = last_number(item.response)
    if number is None or not item.prompt:
        lack = "prompt" if not item.prompt else "number in its response"
        raise CorpusError(
            f"{item.id!r} ({item.language}) has no {lack}: accuracy needs problems with a prompt "
            "and a response that ends with the number that answers them"
        )
    return number


def _identify_for(
    item: Item, corpus: ParallelCorpus, ignore: Sequence[str], minimum_confidence: float
) -> Identify:
    """`detect_language` for the texts of one item."""

    def identify(text: str) -> LanguageGuess:
        return detect_language(
            text,
            languages=corpus.languages,
            ignore={*ignore, *names_in(item.prompt)},
            minimum_confidence=minimum_confidence,
        )

    return identify


def _judge(item: Item, expected: float, response: Response, identify: Identify) -> Answer:
    """What a text is worth."""
    return Answer(
        id=item.id,
        language=item.language,
        text=response.text,
        expected=expected,
        number=last_number(response.text),
        guess=identify(response.text),
        finished=response.finished,
    )


def accuracy_difference(
    before: Accuracy, after: Accuracy, *, part: str = "both", level: float = 0.95
) -> pd.DataFrame:
    """Change of the share of right answers, language by language.

    Args:
        before: answers of one model.
        after: answers of another, or under an intervention. Items that only one of them has are
            left out.
        part: ``"right_answer"``, ``"right_language"`` or ``"both"``.
        level: coverage of the intervals.

    Returns:
        One row a language of both. Columns: items; before, after and change (shares, 0 to 1); low
        and high of the change; p, McNemar's exact test.

    Raises:
        CorpusError: no item was asked in both.
        LensNeuronsError: an unknown part, or a level outside (0, 1).
    """
    import pandas as pd

    found = _paired(before, after, part)
    rows = {}
    for language in dict.fromkeys(language for language, _ in found):
        pairs = np.array([pair for (tag, _), pair in found.items() if tag == language], bool)
        rows[language] = _row_answer_changes(pairs[:, 0], pairs[:, 1], level)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("language")


def mean_difference(
    before: Accuracy,
    after: Accuracy,
    *,
    languages: Sequence[str] | None = None,
    part: str = "both",
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Change of the mean over languages of the share of right answers.

    Args:
        before: answers of one model.
        after: answers of another to the same items.
        languages: which to average, such as those nobody trained; None for all.
        part: as in `accuracy_difference`.
        level: coverage.
        seed: of the bootstrap over items.

    Returns:
        One number (arrays without dimensions) with its ends, -1 to 1.

    Raises:
        CorpusError: no item was asked in both, or a language is missing.
        LensNeuronsError: an unknown part, a level outside (0, 1), or fewer than two items.
    """
    found = _paired(before, after, part)
    wanted = list(dict.fromkeys(tag for tag, _ in found)) if languages is None else list(languages)
    if missing := [tag for tag in wanted if tag not in {tag for tag, _ in found}]:
        raise CorpusError(f"no item was asked in {missing} before and after")
    kept = {key: pair for key, pair in found.items() if key[0] in wanted}
    # Each language weighs the same, however many items it has.
    sizes = {tag: sum(key[0] == tag for key in kept) for tag in wanted}
    weight = 1 / np.array([sizes[tag] for tag, _ in kept])
    change = np.array([float(after) - float(before) for before, after in kept.values()])
    drawn = item_bootstrap(
        tuple(item for _, item in kept),
        np.zeros(len(kept), np.int64),
        change * weight,
        weight,
        level=level,
        seed=seed,
    )
    middle, low, high = (np.asarray(value[0]) for value in (drawn.estimate, drawn.low, drawn.high))
    return Interval(middle, low, high, level, drawn.method)


def _paired(
    before: Accuracy, after: Accuracy, part: str
) -> dict[tuple[str, str], tuple[bool, bool]]:
    """Language and item to whether it was right before, and after."""
    choose(part, PARTS, "part")
    first = {(answer.language, answer.id): getattr(answer, part) for answer in before}
    second = {(answer.language, answer.id): getattr(answer, part) for answer in after}
    found = {key: (right, second[key]) for key, right in first.items() if key in second}
    if not found:
        raise CorpusError("no item was asked both before and after: give the same problems")
    return found


def _row_answer_changes(
    before: np.ndarray, after: np.ndarray, level: float
) -> dict[str, int | float]:
    """One row of `accuracy_difference`."""
    from scipy.stats import binomtest

    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    low, high = paired_interval(before, after, level=level)
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return {
        "items": len(before),
        "before": float(before.mean()),
        "after": float(after.mean()),
        "change": float(after.mean()) - float(before.mean()),
        "low": low,
        "high": high,
        "p": float(p),
    }


def paired_interval(
    before: np.ndarray, after: np.ndarray, *, level: float = 0.95
) -> tuple[float, float]:
    """Newcombe's interval of the difference of two paired shares (method 10).

    Args:
        before: bool [item].
        after: bool [item], of the same items.
        level: coverage, between 0 and 1.

    Returns:
        Lower and upper end of the share after less the share before.
    """
    n, one, two = len(before), float(after.mean()), float(before.mean())
    low_one, high_one = wilson_interval(int(after.sum()), n, level=level)
    low_two, high_two = wilson_interval(int(before.sum()), n, level=level)
    phi = _correlation(before, after)
    below, above = one - low_one, high_two - two
    down = np.sqrt(below**2 - 2 * phi * below * above + above**2)
    below, above = high_one - one, two - low_two
    up = np.sqrt(below**2 - 2 * phi * below * above + above**2)
    return float(one - two - down), float(one - two + up)


def _correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Phi of a two by two table, with Newcombe's correction for continuity."""
    n = len(before)
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    whole = before.sum() * (n - before.sum()) * after.sum() * (n - after.sum())
    if not whole:
        return 0.0
    excess = both * neither - lost * gained
    excess = max(excess - n / 2, 0) if excess > 0 else excess
    return excess / float(np.sqrt(float(whole)))
