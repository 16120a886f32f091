"""What can be wrong with a corpus, and what is done about it.

Errors would make the counts mean something else: the same item twice, an item without text, a row
whose columns are not understood, a language that is none. They are all collected and raised
together, so that a file is repaired in one go. Warnings leave the counts right but the comparison
between languages in doubt: item sets that differ, texts in a foreign script. They stay with the
corpus and are announced once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lensneurons.corpora.items import Item, Record
from lensneurons.errors import CorpusError
from lensneurons.languages.codes import foreign_share, language_code, scripts

ProblemKind = Literal[
    "duplicate",
    "empty",
    "unknown column",
    "missing column",
    "text",
    "unequal items",
    "foreign script",
    "language",
]

COLUMNS = ("id", "language", "prompt", "response")

SHOWN = 10

# A text is foreign where more than this share of its letters is. Latin names are ordinary in
# other scripts: of 1997 Chinese NTREX sentences 27 exceed one half, 1 exceeds 0.9; the three
# Russian, Thai and Chinese ones above 0.9 are indeed untranslated or names alone. In languages
# written in Latin letters no text of MGSM, MSVAMP, NTREX or FLORES has any share at all.
_FOREIGN_TO_LATIN = 0.5
_FOREIGN_TO_OTHERS = 0.9


class CorpusWarning(UserWarning):
    """A corpus whose languages may not be comparable; the counts themselves are right."""


@dataclass(frozen=True, slots=True)
class CorpusProblem:
    """One thing that is wrong with a corpus.

    Attributes:
        kind: what sort of problem it is.
        message: the problem in words, with the offending value.
        where: its place: ``"file:line"`` for an error, the language for a warning.
    """

    kind: ProblemKind
    message: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def check_records(records: Iterable[Record]) -> tuple[Item, ...]:
    """Return the items of `records`, in their order.

    Args:
        records: rows with the columns `id` and `language`, and `prompt` or `response` or both.
            Ids may be whole numbers; a text that is None or left out is empty.

    Raises:
        CorpusError: there are no records, or any of them is wrong. All problems are collected; the
            first ten are listed with their places.
    """
    found = _Findings()
    items: list[Item] = []
    places: list[str] = []
    for record in records:
        item = _item(record, found)
        if item is not None:
            items.append(item)
            places.append(record.where)
    _find_duplicates(items, places, found)
    _find_empty(items, places, found)
    found.refuse()
    if not items:
        raise CorpusError("the corpus has no items; give at least one text in one language")
    return tuple(items)


def find_doubts(items: Sequence[Item]) -> tuple[CorpusProblem, ...]:
    """Return what makes the languages of checked items hard to compare.

    Args:
        items: the items of a corpus.

    Returns:
        At most two problems a language: ``"unequal items"`` and ``"foreign script"``.
    """
    by_language: dict[str, list[Item]] = {}
    for item in items:
        by_language.setdefault(item.language, []).append(item)
    doubts = [_unequal(language, own, items) for language, own in by_language.items()]
    doubts += [_foreign(language, own) for language, own in by_language.items()]
    return tuple(doubt for doubt in doubts if doubt is not None)


def announce(name: str, problems: Sequence[CorpusProblem], *, stacklevel: int = 3) -> None:
    """Warn once about all `problems` of the corpus `name`; say nothing where there are none.

    Args:
        name: the corpus.
        problems: what `find_doubts` found.
        stacklevel: frames between this call and the line to blame, as for ``warnings.warn``.
    """
    if problems:
        listed = "; ".join(str(problem) for problem in problems[:SHOWN])
        message = f"corpus {name!r}: {listed}{and_more(problems)}. See .problems of the corpus."
        warnings.warn(message, CorpusWarning, stacklevel=stacklevel)


def and_more(things: Sequence[object]) -> str:
    """Return ``" ... and 5 more"`` where a list of `things` is cut after the first ten."""
    return f" ... and {len(things) - SHOWN} more" if len(things) > SHOWN else ""


class _Findings:
    """The errors met so far; one that repeats is kept once, with its first place."""

    def __init__(self) -> None:
        self._places: dict[tuple[ProblemKind, str], list[str]] = {}

    def add(self, kind: ProblemKind, message: str, where: str) -> None:
        self._places.setdefault((kind, message), []).append(where)

    def problems(self) -> list[CorpusProblem]:
        """Return the errors as problems, repeated ones with the number of their other places."""
        return [
            CorpusProblem(kind, message, _first(places))
            for (kind, message), places in self._places.items()
        ]

    def refuse(self) -> None:
        """Raise one error for all that was found, if anything was."""
        problems = self.problems()
        if problems:
            listed = "\n  ".join(str(problem) for problem in problems[:SHOWN])
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            more = and_more(problems)
            raise CorpusError(f"{count} in the corpus:\n  {listed}{more and chr(10) + ' ' + more}")


def _first(places: Sequence[str]) -> str:
    return places[0] if len(places) == 1 else f"{places[0]} (and {len(places) - 1} more)"


def _item(record: Record, found: _Findings) -> Item | None:
    """Return the item of a record, or None where its columns or its language cannot be read."""
    if not _columns_are_right(record, found):
        return None
    columns = record.columns
    name, language = _id(columns["id"], record, found), _language(record, found)
    prompt, response = (_text(column, record, found) for column in ("prompt", "response"))
    if name is None or language is None or prompt is None or response is None:
        return None
    return Item(name, language, prompt, response)


def _columns_are_right(record: Record, found: _Findings) -> bool:
    columns: Mapping[str, object] = record.columns
    known = ", ".join(repr(column) for column in COLUMNS)
    unknown = [column for column in columns if column not in COLUMNS]
    for column in unknown:
        message = (
            f"column {column!r} is not understood; the columns are {known}: rename or drop it, or"
            f" say columns={{'prompt': {column!r}}}"
        )
        found.add("unknown column", message, record.where)
    missing = [column for column in ("id", "language") if columns.get(column) is None]
    if "prompt" not in columns and "response" not in columns:
        missing.append("response")
    for column in missing:
        message = f"column {column!r} is missing; every row needs an id, a language and a text"
        found.add("missing column", message, record.where)
    return not unknown and not missing


def _id(value: object, record: Record, found: _Findings) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        message = f"id {value!r} is neither text nor a whole number"
        found.add("text", message, record.where)
        return None
    return _sound(str(value), "id", record, found)


def _language(record: Record, found: _Findings) -> str | None:
    value = record.columns["language"]
    try:
        return language_code(value if isinstance(value, str) else repr(value))
    except CorpusError as refusal:
        found.add("language", str(refusal), record.where)
        return None


def _text(column: str, record: Record, found: _Findings) -> str | None:
    value = record.columns.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        message = f"{column} is {type(value).__name__}, not text: {value!r:.60}"
        found.add("text", message, record.where)
        return None
    return _sound(value, column, record, found)


def _sound(text: str, column: str, record: Record, found: _Findings) -> str | None:
    """Return `text` where every tokenizer can read it.

    Lone surrogates have no UTF-8, so no tokenizer takes them; a NUL is never text and nearly
    always UTF-16 read as something else. Everything else is kept as it is, unnormalised.
    """
    bad = next((char for char in text if char == "\0" or "\ud800" <= char <= "\udfff"), None)
    if bad is None:
        return text
    what = "a NUL character" if bad == "\0" else f"the lone surrogate U+{ord(bad):04X}"
    found.add("text", f"{column} holds {what}; repair the text's encoding", record.where)
    return None


def _find_duplicates(items: Sequence[Item], places: Sequence[str], found: _Findings) -> None:
    seen: dict[tuple[str, str], str] = {}
    for item, where in zip(items, places, strict=True):
        key = (item.id, item.language)
        if key in seen:
            message = f"id {item.id!r} in {item.language!r} was already given at {seen[key]}"
            found.add("duplicate", message, where)
        seen.setdefault(key, where)


def _find_empty(items: Sequence[Item], places: Sequence[str], found: _Findings) -> None:
    answered = any(item.response.strip() for item in items)
    for item, where in zip(items, places, strict=True):
        who = f"id {item.id!r} in {item.language!r}"
        if not item.text.strip():
            found.add("empty", f"{who} has neither prompt nor response", where)
        elif answered and not item.response.strip():
            found.add("empty", f"{who} has no response, while other items have one", where)


def _unequal(language: str, own: Sequence[Item], items: Sequence[Item]) -> CorpusProblem | None:
    every = dict.fromkeys(item.id for item in items)
    present = {item.id for item in own}
    lacking = [name for name in every if name not in present]
    if not lacking:
        return None
    message = f"lacks {len(lacking)} of {len(every)} ids, e.g. {_examples(lacking)}"
    return CorpusProblem("unequal items", message, language)


def _foreign(language: str, own: Sequence[Item]) -> CorpusProblem | None:
    limit = _FOREIGN_TO_LATIN if "Latn" in scripts(language) else _FOREIGN_TO_OTHERS
    foreign = [item.id for item in own if foreign_share(item.text, language) > limit]
    if not foreign:
        return None
    message = f"{len(foreign)} of {len(own)} texts are in another script, ids {_examples(foreign)}"
    return CorpusProblem("foreign script", message, language)


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in ids[:3]) + (", ..." if len(ids) > 3 else "")
