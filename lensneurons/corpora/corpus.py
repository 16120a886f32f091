"""Parallel corpora: the same items in several languages, checked once and never changed.

Everything that this package counts is counted over a corpus, and every comparison of languages
assumes that its items say the same thing in each. So a corpus is a value: its items are checked at
the door, ordered by language and then by item, and its fingerprint names its content, whatever file
it came from.

    >>> corpus = load_corpus({"en": ["One.", "Two."], "sw": ["Moja.", "Mbili."]})
    >>> corpus.languages, len(corpus), corpus.is_parallel
    (('en', 'sw'), 4, True)

What it does not show: that the texts are good translations, or in the language they claim. Item
sets that differ and texts in a foreign script are reported (`ParallelCorpus.problems`); a machine
translation, or Spanish under ``"fr"``, is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensneurons.corpora.checks import (
    COLUMNS,
    SHOWN,
    CorpusProblem,
    and_more,
    announce,
    check_records,
    find_doubts,
    warn_outside,
)
from lensneurons.corpora.items import Item, Record
from lensneurons.corpora.readers import rename_columns
from lensneurons.corpora.sources import open_source, take_items
from lensneurons.errors import CorpusError, shown
from lensneurons.languages.codes import language_code, language_name
from lensneurons.options import plain_options
from lensneurons.values.files import replacing
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import os

    import pandas as pd


@dataclass(frozen=True)
class ParallelCorpus:
    """The same items in several languages. Made by `load_corpus` or `build_corpus`.

    Attributes:
        name: what the corpus is called in reports; no part of its identity.
        items: all texts, language by language, in the order of the source within each.
        template: hash of the chat template that wrote the prompts, or ``"none"``; no part of the
            identity, because the texts are.
    """

    name: str
    items: tuple[Item, ...]
    template: str = "none"

    @cached_property
    def problems(self) -> tuple[CorpusProblem, ...]:
        """What makes the languages hard to compare; empty for a clean corpus."""
        return find_doubts(self.items)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages, in the order of their first appearance."""
        return tuple(dict.fromkeys(item.language for item in self.items))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of all languages, each once, in the order of their first appearance."""
        return tuple(dict.fromkeys(item.id for item in self.items))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the content and its order, whatever the file and the name."""
        digest = hashlib.sha256(b"lensneurons corpus 1\n")
        for item in self.items:
            row = [item.id, item.language, item.prompt, item.response]
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()

    @property
    def is_parallel(self) -> bool:
        """Whether every language has every item."""
        return len(self.items) == len(self.ids) * len(self.languages)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @plain_options
    def select(
        self, languages: Sequence[str] | None = None, ids: Iterable[str] | None = None
    ) -> ParallelCorpus:
        """The corpus of some languages and some items.

        Args:
            languages: tags, which also give the order; None for all.
            ids: items, which keep the order of the corpus; None for all.

        Raises:
            CorpusError: a language or an id is not in the corpus, or nothing is left.
        """
        tags = self.languages if languages is None else wanted_languages(languages)
        if unknown := [tag for tag in tags if tag not in self.languages]:
            held = list(self.languages)
            raise CorpusError(f"corpus {self.name!r} has no language {unknown[0]!r}; it has {held}")
        known = set(self.ids)
        wanted = known if ids is None else {ids} if isinstance(ids, str) else set(ids)
        if unknown := sorted(map(repr, wanted - known)):
            held = ", ".join(map(repr, self.ids[:3]))
            raise CorpusError(
                f"corpus {self.name!r} has no id {unknown[0]}; it has {len(known)}: {held}, ..."
            )
        kept = [item for item in self.items if item.language in tags and item.id in wanted]
        kept.sort(key=lambda item: tags.index(item.language))
        return replace(arrange(self.name, kept), template=self.template)

    @plain_options
    def head(self, n: int) -> ParallelCorpus:
        """The corpus of the first `n` ids, in every language.

        Raises:
            CorpusError: `n` is less than 1.
        """
        if n < 1:
            raise CorpusError(f"the first {n} items were asked for; give 1 or more")
        return self.select(ids=self.ids[:n])

    def to_pandas(self) -> pd.DataFrame:
        """A table with the columns id, language, prompt, response; one row an item."""
        import pandas as pd

        return pd.DataFrame([asdict(item) for item in self.items], columns=list(COLUMNS))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the corpus as JSON lines, whole or not at all, and return the path.

        Raises:
            CorpusError: the path does not end in ``.jsonl``.
        """
        target = Path(path)
        if target.suffix != ".jsonl":
            raise CorpusError(f"cannot write a corpus to {target}; give a name that ends in .jsonl")
        with replacing(target) as path, path.open("w", encoding="utf-8", newline="\n") as lines:
            for item in self.items:
                lines.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
        return target

    def __repr__(self) -> str:
        return (
            f"ParallelCorpus({self.name!r}: {len(self.items)} items, {len(self.ids)} ids,"
            f" {len(self.languages)} languages {' '.join(self.languages)})"
        )

    def _repr_html_(self) -> str:
        rows = []
        for tag in self.languages:
            own = [item for item in self.items if item.language == tag]
            prompts = sum(len(item.prompt) for item in own)
            responses = sum(len(item.response) for item in own)
            rows.append((tag, language_name(tag), len(own), prompts, responses))
        head = ("language", "name", "items", "prompt characters", "response characters")
        doubts = "; ".join(map(str, self.problems))
        return html_table(f"{self!r}{doubts and ' - ' + doubts}", head, rows)


def build_corpus(records: Any, *, name: str = "corpus") -> ParallelCorpus:
    """Check rows and make them a corpus.

    Args:
        records: rows with ``id``, ``language``, and ``prompt`` or ``response`` or both; as
            `Record`s, which know their file and line, or as plain mappings.
        name: what to call the corpus.

    Raises:
        CorpusError: any row is wrong; all problems are listed.

    Warns:
        CorpusWarning: once, if the languages are hard to compare (`ParallelCorpus.problems`).
    """
    corpus = _check(records, name)
    announce(corpus.name, corpus.problems)
    return corpus


@plain_options
def load_corpus(
    source: Any,
    *,
    languages: Sequence[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    separator: str = "\n",
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
) -> ParallelCorpus:
    """Read a parallel corpus from whatever holds it.

    Args:
        source: a ``.jsonl`` file (also ``.jsonl.gz``, ``.bz2``, ``.xz``, ``.zst``) or ``.parquet``
            file; a folder of MGSM, MSVAMP or SIB-200; a folder of ``<language>.txt`` with aligned
            lines; a dictionary from language to texts or to
            (prompt, response) pairs; a Hugging Face data set (an ``IterableDataset`` is streamed);
            or ``"demo"``, the package's own word problems.
        languages: tags to keep, which also give the order; None for all.
        split: the part of a data set, of SIB-200 (None: all parts) or of the demo (None: test).
        limit: keep the first so many ids in every language; the demo makes so many (None: 100).
        separator: what stands between question and answer where a source has them as two columns
            (MGSM, MSVAMP, `columns`); it closes the prompt.
        columns: for rows with other names, from ours to theirs: ``{"id": "key", "language":
            "lang", "prompt": "question", "response": "answer"}``; other columns are left out.
        name: what to call the corpus; None for the name of the file, folder or data set.

    Returns:
        The corpus, language by language.

    Raises:
        CorpusError: the source is not understood, a row is wrong, or a language is not there.

    Warns:
        CorpusWarning: once, if the languages are hard to compare (`ParallelCorpus.problems`).
    """
    if limit is not None and limit < 1:
        raise CorpusError(f"limit={limit} leaves nothing; give 1 or more, or leave it out")
    tags = None if languages is None else wanted_languages(languages)
    opened = open_source(source, split=split, limit=limit, separator=separator)
    records = opened.records
    if columns is not None:
        require_columns(columns)
        records = rename_columns(records, columns, separator=separator)
    if opened.streamed:
        records = take_items(records, limit, tags)
    corpus = _check(records, opened.name if name is None else name)
    if opened.skipped:
        listed = ", ".join(opened.skipped[:SHOWN]) + and_more(opened.skipped)
        warn_outside(
            f"corpus {corpus.name!r}: {listed} {'are' if opened.skipped[1:] else 'is'} left out,"
            " because no reader takes such a name; rename, unpack or remove what is left out"
        )
    if tags is not None:
        corpus = corpus.select(languages=tags)
    if limit is not None:
        corpus = corpus.head(limit)
    announce(corpus.name, corpus.problems)
    return corpus


def require_columns(columns: object) -> None:
    """Raise unless `columns` is a mapping from some of our names to theirs.

    Raises:
        CorpusError: it is none, or names a column that we do not have.
    """
    if not isinstance(columns, Mapping) or not all(
        isinstance(one, str) for pair in columns.items() for one in pair
    ):
        raise CorpusError(f"columns={shown(columns)} is no mapping from our names to theirs")
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise CorpusError(
            f"columns={dict(columns)} renames to {unknown[0]!r}; write it as our name: theirs,"
            f" with our names {list(COLUMNS)}"
        )


def wanted_languages(languages: Sequence[str]) -> tuple[str, ...]:
    """The canonical tags of languages in any spelling, each once, in order; "zh" alone is one.

    Raises:
        CorpusError: one of them is no language, or there are none.
    """
    given = [languages] if isinstance(languages, str) else list(languages)
    if not given:
        raise CorpusError("languages=[] leaves nothing; name at least one or leave it out")
    return tuple(dict.fromkeys(map(language_code, given)))


def _check(records: Any, name: str) -> ParallelCorpus:
    if not isinstance(records, Iterable) or isinstance(records, str | bytes):
        raise CorpusError(f"{shown(records)} is no list of rows; give a list of mappings")
    numbered = enumerate(records, start=1)
    placed = (r if isinstance(r, Record) else Record(f"record {n}", r) for n, r in numbered)
    return arrange(name, check_records(placed))


def arrange(name: str, items: Sequence[Item]) -> ParallelCorpus:
    """The corpus of checked items, brought into its one order: language by language."""
    if not items:
        raise CorpusError(f"nothing of corpus {name!r} is left; ask for items that it has")
    order = {tag: place for place, tag in enumerate(dict.fromkeys(i.language for i in items))}
    ordered = tuple(sorted(items, key=lambda item: order[item.language]))
    return ParallelCorpus(name, ordered)
