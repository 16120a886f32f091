"""Corpora larger than memory: read shard by shard, in one order, each shard checked.

    >>> stream = ln.stream_corpus("texts/", shard_items=2000)                # doctest: +SKIP
    >>> for shard in stream: ...            # each is a ParallelCorpus       # doctest: +SKIP
    >>> statistics = ln.collect(model, stream, run_dir="runs/base")          # doctest: +SKIP

The files of a folder are read in the order of their names and the rows in their own, `shard_items`
rows a shard, over the borders of files. So the same files give the same shards in every run. Only
the shard that is worked on and the next one lie in memory; beside them, 8 bytes for every item.

Items are those of `load_corpus`, with the same columns and checks, and errors name file and line.
Across shards it is checked that no id is given twice in one language, and that either all items
have a response or none. Translations of an item may lie in different shards: `collect` finds the
group of an item from its id. Not checked across shards: whether every language has every item, and
texts in a foreign script; ``shard.problems`` has what a shard shows alone, and is not announced.

What else this does not show: the order is that of the files, so the first shards are no sample of
the corpus.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from lensneurons.corpora.checks import SHOWN, and_more, check_records, warn_outside
from lensneurons.corpora.corpus import (
    ParallelCorpus,
    arrange,
    require_columns,
    wanted_languages,
)
from lensneurons.corpora.items import Item, Record
from lensneurons.corpora.readers import FORMATS, rename_columns
from lensneurons.corpora.seen import SeenKeys, item_keys
from lensneurons.corpora.sources import is_dataset, open_source, parts_of_folder
from lensneurons.errors import CorpusError, shown
from lensneurons.languages.codes import known_code
from lensneurons.options import plain_options
from lensneurons.values.base import Overview, Shown

STREAMED = ("JSON lines", "Parquet")
REMEDY = "let whoever writes it end, and stream the corpus anew"


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of one file: the numbers that errors name, lines of JSON lines or rows of Parquet.

    Attributes:
        file: its name, or that of the data set.
        first: number of the first row.
        last: number of the last row.
    """

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.file}:{self.first}-{self.last}"


@dataclass(frozen=True)
class CorpusShard(ParallelCorpus):
    """Some rows of a stream, as a corpus. Made by going through a `CorpusStream`.

    Attributes:
        number: of the shard in its stream, from 0.
        spans: the rows that it holds, file by file.
        digest: SHA-256 (64 hex digits) of all rows of the stream up to its end.
    """

    number: int = 0
    spans: tuple[Span, ...] = ()
    digest: str = ""


@dataclass(frozen=True, slots=True)
class StreamFile:
    """A file of a stream as it was when the stream was made.

    Attributes:
        path: where it lies.
        size: bytes.
        changed: when it was written, in nanoseconds.
    """

    path: Path
    size: int
    changed: int

    @classmethod
    def at(cls, path: Path) -> StreamFile:
        """The file as it is now."""
        about = path.stat()
        return cls(path, about.st_size, about.st_mtime_ns)

    def require_unchanged(self) -> None:
        """Raise unless the file still has its size and its time.

        Raises:
            CorpusError: says what changed.
        """
        try:
            now = StreamFile.at(self.path)
        except OSError as cause:
            told = f"{self.path} cannot be read any more: {cause.strerror or cause}; {REMEDY}"
            raise CorpusError(told) from None
        if now.size != self.size:
            how = "grew" if now.size > self.size else "shrank"
            told = f"{self.path} {how} from {self.size} to {now.size} bytes since the stream"
            raise CorpusError(f"{told} was made; {REMEDY}")
        if now.changed != self.changed:
            raise CorpusError(f"{self.path} was written since the stream was made; {REMEDY}")


@dataclass(frozen=True, eq=False, repr=False)
class CorpusStream(Shown):
    """A corpus that is read shard by shard. Made by `stream_corpus`; may be gone through often.

    Attributes:
        name: what the corpus is called.
        files: the files, in the order of reading; none for a data set.
        shard_items: rows of a shard.
        languages: the tags that are kept, in their order; None for all.
        read: begins to read, and yields the rows of all files.
    """

    name: str
    files: tuple[StreamFile, ...]
    shard_items: int
    languages: tuple[str, ...] | None
    read: Callable[[], Iterable[Record]] = field(repr=False)

    def __iter__(self) -> Iterator[CorpusShard]:
        """Read the shards, from the first on.

        Raises:
            CorpusError: a row is wrong, an item was given in an earlier shard, a file changed since
                the stream was made, a wanted language is not there, or there are no rows.
        """
        records, checks = iter(self.read()), _AcrossShards(self)
        digest, number, missing = _new_digest(), 0, dict.fromkeys(self.languages or ())
        while True:
            try:
                chunk = list(islice(records, self.shard_items))
                items = check_records(chunk) if chunk else ()
            except CorpusError:
                self.require_unchanged()  # half a line is no error of whoever writes it
                raise
            if not chunk:
                break
            spans = _spans(chunk)
            self.require_unchanged({span.file for span in spans})
            checks.add(chunk, items)
            kept = [i for i in items if self.languages is None or i.language in self.languages]
            for item in kept:
                _add_row(digest, item)
                missing.pop(item.language, None)
            if kept:
                yield self._shard(number, kept, spans, digest.hexdigest())
                number += 1
        if missing or not number:
            none = f"has no language {next(iter(missing))!r}" if missing else "has no rows"
            raise CorpusError(f"the stream {self.name!r} {none}")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of all items in their order, whatever the shards and files.

        Asking for it reads the whole stream.
        """
        return [shard.digest for shard in self][-1]

    def require_unchanged(self, names: set[str] | None = None) -> None:
        """Raise unless the files (those of some names; None: all) are as the stream found them.

        Raises:
            CorpusError: says which file, and what changed.
        """
        for file in self.files:
            if names is None or file.path.name in names:
                file.require_unchanged()

    def _shard(
        self, number: int, items: Sequence[Item], spans: tuple[Span, ...], digest: str
    ) -> CorpusShard:
        name, order = f"{self.name}, shard {number}", self.languages
        ordered = items if order is None else sorted(items, key=lambda i: order.index(i.language))
        return CorpusShard(name, arrange(name, ordered).items, "none", number, spans, digest)

    def _brief(self) -> str:
        size = sum(file.size for file in self.files)
        files = f"{len(self.files)} files, {size:,} bytes" if self.files else "a data set"
        tags = "" if self.languages is None else f", {' '.join(self.languages)} alone"
        return f"{self.name!r}: {files}{tags}, {self.shard_items} rows a shard"

    def _overview(self) -> Overview:
        rows = [(file.path.name, f"{file.size:,}") for file in self.files]
        return Overview(repr(self), ("file", "bytes"), rows)


def stream_digest(items: Iterable[Item]) -> str:
    """The fingerprint that a stream of these items has."""
    digest = _new_digest()
    for item in items:
        _add_row(digest, item)
    return digest.hexdigest()


def _new_digest() -> Any:
    return hashlib.sha256(b"lensneurons stream 1\n")


def _add_row(digest: Any, item: Item) -> None:
    row = [item.id, item.language, item.prompt, item.response]
    digest.update(json.dumps(row).encode() + b"\n")


def _spans(chunk: Sequence[Record]) -> tuple[Span, ...]:
    edges: dict[str, list[int]] = {}
    for record in chunk:
        name, _, number = record.where.rpartition(":")
        edges.setdefault(name, []).append(int(number))
    return tuple(Span(name, found[0], found[-1]) for name, found in edges.items())


class _AcrossShards:
    """What has to hold for the items of all shards together."""

    def __init__(self, stream: CorpusStream) -> None:
        self.stream, self.seen = stream, SeenKeys()
        self.answered: bool | None = None

    def add(self, chunk: Sequence[Record], items: Sequence[Item]) -> None:
        """Check the items of one more shard, which are those of its rows in the same order.

        Raises:
            CorpusError: an item was given before, or has a response while earlier ones have none.
        """
        keys = item_keys((item.id, item.language) for item in items)
        for place in self.seen.known(keys).nonzero()[0].tolist():
            item, where = items[place], chunk[place].where
            if (first := self._first(item, where)) is not None:
                raise CorpusError(
                    f"{where}: id {shown(item.id)} in {item.language!r} was already given at "
                    f"{first}, in an earlier shard; an item has one text in a language"
                )
        self.seen.add(keys)
        answered = any(item.response.strip() for item in items)
        if self.answered not in (None, answered):
            now, before = ("a response", "none") if answered else ("no response", "one")
            raise CorpusError(
                f"{chunk[0].where}: items have {now} from here on, while those of earlier shards "
                f"have {before}; give all of them one, or none"
            )
        self.answered = answered

    def _first(self, item: Item, before: str) -> str | None:
        """Where an item was given before a row; None where only its hash was: the stream is read
        again up to there.
        """
        for record in self.stream.read():
            if record.where == before:
                break
            name, language = record.columns.get("id"), record.columns.get("language")
            if str(name) == item.id and known_code(language) == item.language:
                return record.where
        return None


@plain_options
def stream_corpus(
    source: Any,
    *,
    shard_items: int = 1000,
    languages: Sequence[str] | None = None,
    split: str | None = None,
    separator: str = "\n",
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
) -> CorpusStream:
    """Make a corpus that is read shard by shard, so that it may be larger than memory.

    Args:
        source: a folder of JSON lines and Parquet files, read in the order of their names; one such
            file; or a Hugging Face data set, streamed or not, which has to give the same rows in
            the same order whenever it is gone through. JSON lines may be compressed (``.jsonl.gz``,
            ``.bz2``, ``.xz``, ``.zst``). The columns are those of `load_corpus`.
        shard_items: rows of a shard: texts in one language each. About as many as fill some
            batches in every language; translations of an item are best near each other.
        languages: tags to keep, which also give the order; None for all.
        split: the part of a data set.
        separator: closes a prompt that `columns` takes from another column.
        columns: for rows with other names, from ours to theirs, as for `load_corpus`.
        name: what to call the corpus; None for the name of the file, folder or data set.

    Returns:
        The stream. Nothing was read but sizes and times of the files.

    Raises:
        CorpusError: the source is not understood.

    Warns:
        CorpusWarning: files of a folder are left out, because no reader takes their names.
    """
    if shard_items < 1:
        raise CorpusError(f"shard_items={shard_items} holds nothing; give 1 or more")
    tags = None if languages is None else wanted_languages(languages)
    if columns is not None:
        require_columns(columns)
    if is_dataset(source):
        opened = open_source(source, split=split)
        own, files = opened.name, ()

        def rows() -> Iterable[Record]:
            return open_source(source, split=split).records
    else:
        if split is not None:
            raise CorpusError(f"split={shown(split)} was given, but files have no splits")
        own, found = _find_files(source)
        files = tuple(StreamFile.at(path) for path, _ in found)

        def rows() -> Iterable[Record]:
            for path, form in found:
                yield from FORMATS[form][1]([path], separator)

    def read() -> Iterable[Record]:
        records = rows()
        return records if columns is None else rename_columns(records, columns, separator=separator)

    return CorpusStream(own if name is None else name, files, shard_items, tags, read)


def _find_files(source: Any) -> tuple[str, list[tuple[Path, str]]]:
    """The name of a folder or file, and its files with their formats, sorted by name.

    Raises:
        CorpusError: there are none that can be streamed.
    """
    wanted = "give a folder of JSON lines and Parquet files, one such file, or a data set"
    if not isinstance(source, str | os.PathLike):
        raise CorpusError(f"{shown(source)} is no corpus to stream: {wanted}; load_corpus the rest")
    path = Path(source)
    try:
        if path.is_file():
            found, skipped, own = parts_of_folder([path]), [], path.stem
        else:
            entries = sorted(path.iterdir())
            found, own = parts_of_folder(entries), path.resolve().name
            skipped = found.skipped
    except (OSError, ValueError) as cause:
        if isinstance(cause, CorpusError):
            raise
        told = getattr(cause, "strerror", None) or cause
        raise CorpusError(f"{shown(os.fspath(path), 200)}: {told}; {wanted}") from None
    others = [form for form in found.files if form not in STREAMED]
    if others or not found.files:
        held = f"{others[0]} ({found.files[others[0]][0].name})" if others else "no such file"
        raise CorpusError(f"{path} holds {held}, which cannot be streamed: {wanted}")
    if skipped:
        listed = ", ".join(skipped[:SHOWN]) + and_more(skipped)
        warn_outside(f"stream {own!r}: {listed} left out, because no reader takes such a name")
    both = [(file, form) for form, files in found.files.items() for file in files]
    return own, sorted(both, key=lambda pair: pair[0].name)
