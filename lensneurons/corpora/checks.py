"""What can be wrong with a corpus, and what is done about it.

Errors would make the counts mean something else: the same item twice, an item without text, a row
with unknown columns, a language that is none. They are collected and raised together, so that a
file is repaired in one go. Doubts leave the counts right but make the comparison between languages
questionable: item sets that differ, texts in a foreign script. They stay with the corpus and are
announced once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Literal

from lensneurons.corpora.items import Item, Record
from lensneurons.errors import CorpusError, Explained, shown
from lensneurons.languages.codes import foreign_share, known_code, refusal, scripts

COLUMNS = ("id", "language", "prompt", "response")

_PACKAGE = str(Path(__file__).parents[1])

SHOWN = 10
_ROW = "give mappings with the columns 'id', 'language', and 'prompt' or 'response'"
_LONGEST_NAME = 200  # characters of what is no language that tell it from others
_LONGEST_ID = 4000  # digits; Python itself writes 4,300

# A text is foreign if more than this share of its letters is. Latin names are ordinary in other
# scripts: of 1997 Chinese NTREX sentences 27 exceed one half, 1 exceeds 0.9; the three Russian,
# Thai and Chinese ones above 0.9 are indeed untranslated or names alone. In languages written in
# Latin letters no text of MGSM, MSVAMP, NTREX or FLORES has any share at all.
_FOREIGN_TO_LATIN = 0.5
_FOREIGN_TO_OTHERS = 0.9


class CorpusWarning(Explained, UserWarning):
    """A corpus whose languages may not be comparable; the counts themselves are right."""


@dataclass(frozen=True, slots=True)
class CorpusProblem:
    """One thing that makes a language of a corpus hard to compare.

    Attributes:
        what: the sort of problem.
        message: the problem in words, with the offending ids.
        where: the language.
    """

    what: Literal["unequal items", "foreign script"]
    message: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def check_records(records: Iterable[Record]) -> tuple[Item, ...]:
    """Turn records into items, in the same order.

    Args:
        records: rows with the columns `id` and `language`, and `prompt` or `response` or both.
            Ids may be whole numbers; a text that is None or left out is empty.

    Raises:
        CorpusError: there are no records, or any of them is wrong. All problems are collected; the
            first ten are listed with their places. One that repeats is listed once.
    """
    found: dict[Told, list[str]] = {}  # message to its places

    def add(message: Told, where: str) -> None:
        found.setdefault(message, []).append(where)

    read = [(_item(record, add), record.where) for record in records]
    items = [(item, where) for item, where in read if item is not None]
    first: dict[tuple[str, str], str] = {}
    for item, where in items:
        if (key := (item.id, item.language)) in first:
            add(f"{_who(item)} was already given at {first[key]}", where)
        first.setdefault(key, where)
    answered = any(item.response.strip() for item, _ in items)
    for item, where in items:
        silent = not item.response.strip()
        if silent and not item.prompt.strip():
            add(f"{_who(item)} has neither prompt nor response", where)
        elif answered and silent:
            add(f"{_who(item)} has no response, while other items have one", where)
    if found:
        lines = [
            f"{places[0]}{f' (and {len(places) - 1} more)' if places[1:] else ''}: {message}"
            for message, places in islice(found.items(), SHOWN)
        ]
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        listed, more = "\n  ".join(lines), and_more(found)
        raise CorpusError(f"{count} in the corpus:\n  {listed}{more and chr(10) + ' ' + more}")
    if not items:
        raise CorpusError("the corpus has no items; give at least one text in one language")
    return tuple(item for item, _ in items)


@dataclass(frozen=True, slots=True)
class _NoLanguage:
    """A problem whose text, which suggests a tag, is written only if it is listed."""

    given: str

    def __str__(self) -> str:
        return refusal(self.given)


Told = str | _NoLanguage
Add = Callable[[Told, str], None]


def _who(item: Item) -> str:
    return f"id {shown(item.id)} in {item.language!r}"


def _item(record: Record, add: Add) -> Item | None:
    """The item of a record, or None (and a problem added) if it cannot be read."""
    columns, where = record.columns, record.where
    if not isinstance(columns, Mapping):
        add(f"{shown(columns)} is no row; {_ROW}", where)
        return None
    known = ", ".join(repr(column) for column in COLUMNS)
    unknown = [column for column in columns if column not in COLUMNS]
    for column in map(shown, unknown[:SHOWN]):
        remedy = f"rename or drop it, or say columns={{'prompt': {column}}}"
        add(f"column {column} is not understood; the columns are {known}: {remedy}", where)
    missing = [column for column in ("id", "language") if columns.get(column) is None]
    missing += [] if "prompt" in columns or "response" in columns else ["response"]
    for column in missing:
        add(f"column {column!r} is missing; every row needs an id, a language and a text", where)
    if unknown or missing:
        return None

    name, given = _id(columns["id"], where, add), columns["language"]
    tag = known_code(given)
    if tag is None:
        cut = given[:_LONGEST_NAME] if isinstance(given, str) else shown(given)
        add(_NoLanguage(cut), where)
    prompt, response = (_sound(columns.get(one), one, where, add) for one in COLUMNS[2:])
    if name is None or tag is None or prompt is None or response is None:
        return None
    return Item(name, tag, prompt, response)


def _id(given: object, where: str, add: Add) -> str | None:
    """The name of an item: text that is not empty, or a whole number as text."""
    if isinstance(given, Integral) and not isinstance(given, bool):
        given = shown(int(given), _LONGEST_ID)  # no repr: more digits than Python writes
        if not given.lstrip("-").isdigit():
            add("id is a whole number of too many digits: write it as text", where)
            return None
    if not isinstance(given, str) or given == "":
        add(f"id {shown(given)} is neither text nor a whole number", where)
        return None
    return _sound(given, "id", where, add)


def _sound(text: object, column: str, where: str, add: Add) -> str | None:
    """A text as it is, if every tokenizer can read it.

    A lone surrogate has no UTF-8, so no tokenizer takes it; a NUL is never text and nearly always
    UTF-16 read as something else. Everything else is kept, unnormalised.
    """
    if text is None:
        return ""
    if not isinstance(text, str):
        add(f"{column} is {type(text).__name__}, not text: {shown(text)}", where)
        return None
    end = text.find("\0")
    bad = "" if end < 0 else "\0"
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        bad = bad if 0 <= end < cause.start else text[cause.start]
    if bad:
        what = "a NUL character" if bad == "\0" else f"the lone surrogate U+{ord(bad):04X}"
        add(f"{column} holds {what}; repair the text's encoding", where)
        return None
    return str(text)


def find_doubts(items: Sequence[Item]) -> tuple[CorpusProblem, ...]:
    """What makes the languages of checked items hard to compare: at most two problems each."""
    by_language: dict[str, list[Item]] = {}
    for item in items:
        by_language.setdefault(item.language, []).append(item)
    every = dict.fromkeys(item.id for item in items)
    unequal, foreign = [], []
    for language, own in by_language.items():
        present = {item.id for item in own}
        if lacking := [name for name in every if name not in present]:
            message = f"lacks {len(lacking)} of {len(every)} ids, e.g. {_examples(lacking)}"
            unequal.append(CorpusProblem("unequal items", message, language))
        limit = _FOREIGN_TO_LATIN if "Latn" in scripts(language) else _FOREIGN_TO_OTHERS
        if odd := [item.id for item in own if foreign_share(item.text, language) > limit]:
            message = f"{len(odd)} of {len(own)} texts are in another script, ids {_examples(odd)}"
            foreign.append(CorpusProblem("foreign script", message, language))
    return (*unequal, *foreign)


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(map(shown, ids[:3])) + (", ..." if len(ids) > 3 else "")


def announce(name: str, problems: Sequence[CorpusProblem]) -> None:
    """Warn once about all problems of a corpus, where the caller of this function was called."""
    if problems:
        listed = "; ".join(str(problem) for problem in problems[:SHOWN])
        message = f"corpus {name!r}: {listed}{and_more(problems)}. See .problems of the corpus."
        warn_outside(message)


def warn_outside(message: str, category: type[Warning] = CorpusWarning) -> None:
    """Warn where the package was called, however deep the caller of this function lies in it."""
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def and_more(things: Collection[object]) -> str:
    """Return ``" ... and 5 more"`` if a list of `things` is cut after the first ten."""
    return f" ... and {len(things) - SHOWN} more" if len(things) > SHOWN else ""
