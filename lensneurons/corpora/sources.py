"""One door for everything that holds a corpus: what is this, and who reads it.

A path is known by its content and name, a folder by the names of its files, other sources by their
type. Anything else is refused, with what was found and with all that would be understood.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from re import fullmatch
from typing import Any, NamedTuple

from lensneurons.corpora.items import Record
from lensneurons.corpora.readers import FORMATS, read_dataset, read_dict
from lensneurons.errors import CorpusError
from lensneurons.languages.codes import language_code
from lensneurons.registry import CORPORA, load_registered

UNDERSTOOD = """load_corpus understands
  a .jsonl or .parquet file, or a folder of them, with id, language, prompt, response
  MGSM: a folder with mgsm_<language>.tsv
  MSVAMP: a folder with test_<English language name>.json
  SIB-200: a folder with <language>.<split>.tsv
  aligned text: a folder with <language>.txt, one sentence a line
  a dict from language to texts or (prompt, response) pairs
  a Hugging Face data set, loaded with datasets.load_dataset
  "demo\""""


class Source(NamedTuple):
    """An opened source: what to call it, its records, and whether they come as a stream."""

    name: str
    records: Iterable[Record]
    streamed: bool = False


def open_source(
    source: Any, *, split: str | None = None, limit: int | None = None, separator: str = "\n"
) -> Source:
    """Find the reader for a path, a dictionary, a data set, or a registered name like ``"demo"``.

    The options are those of `load_corpus`; only a registered corpus reads `limit`, the caller cuts
    all others.

    Raises:
        CorpusError: the source is not understood, or has no such split.
    """
    if isinstance(source, str) and (reader := load_registered(CORPORA, source)) is not None:
        return Source(*reader(split, limit))
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source), split, separator)
    if _is_dataset(source, "DatasetDict", "IterableDatasetDict"):
        _check_split("the data set", [str(part) for part in source], split)
        if split is None and len(source) != 1:
            raise CorpusError(f"the data set has the splits {list(source)}; choose one with split=")
        source, split = source[next(iter(source)) if split is None else split], None
    if _is_dataset(source, "Dataset", "IterableDataset"):
        _check_split("a single data set", (), split)
        name = (source.info.dataset_name if source.info else None) or "dataset"
        streamed = _is_dataset(source, "IterableDataset")
        return Source(name, read_dataset(source, where=name), streamed)
    if isinstance(source, Mapping):
        _check_split("a dictionary", (), split)
        return Source("dictionary", read_dict(source))
    raise CorpusError(f"{type(source).__name__} is no source of a corpus; {UNDERSTOOD}")


def _is_dataset(source: object, *names: str) -> bool:
    """Recognise data sets without importing their library: nobody can hold one without it."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(source, tuple(getattr(library, n) for n in names))


def _check_split(source: object, parts: Sequence[str], split: str | None) -> None:
    if split is not None and not parts:
        raise CorpusError(f"split={split!r} was given, but {source} has no splits; leave it out")
    if split is not None and split not in parts:
        raise CorpusError(f"split={split!r} is not in {source}; it has {list(parts)}")


def _open_path(path: Path, split: str | None, separator: str) -> Source:
    if path.is_dir():
        format_, files = _folder_format(path)
    elif path.is_file():
        format_, files = _file_format(path), [path]
    else:
        raise CorpusError(f"{os.fspath(path)!r} is no file or folder; {UNDERSTOOD}")
    if format_ == "SIB-200":
        part_of = {file: file.name.split(".")[-2] for file in files}
        _check_split(path, sorted(set(part_of.values())), split)
        files = [file for file in files if split is None or part_of[file] == split]
    else:
        _check_split(f"{path} ({format_})", (), split)
    name = path.stem if path.is_file() else path.resolve().name
    return Source(name, FORMATS[format_][1](files, separator))


def _named_format(path: Path) -> str | None:
    name = path.name.lower()
    return next((one for one, (form, _) in FORMATS.items() if fullmatch(form, name)), None)


def _file_format(path: Path) -> str:
    """The format of one file, by its first bytes if they tell, else by its name."""
    with path.open("rb") as file:
        head = file.read(4096)
    named = _named_format(path)
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") and named != "MSVAMP":
        return "JSON lines"
    if named is None or not head:
        what = "is empty" if not head else f"begins with {head[:20]!r}, which is not understood"
        raise CorpusError(f"{path} {what}; {UNDERSTOOD}")
    return named


def _folder_format(folder: Path) -> tuple[str, list[Path]]:
    """The format of a folder's files, and those files sorted by name."""
    entries = sorted(folder.iterdir())
    found: dict[str, list[Path]] = {}
    for file in entries:
        if file.is_file() and (named := _named_format(file)) is not None:
            found.setdefault(named, []).append(file)
    if not found:
        held = ", ".join(path.name for path in entries[:10]) + (", ..." if entries[10:] else "")
        raise CorpusError(f"{folder} holds {held or 'nothing'}; {UNDERSTOOD}")
    if len(found) > 1:
        held = ", ".join(f"{one} ({files[0].name})" for one, files in found.items())
        raise CorpusError(f"{folder} holds several kinds: {held}; keep one or give one file")
    return next(iter(found.items()))


def take_items(
    records: Iterable[Record], limit: int | None, languages: Sequence[str] | None
) -> Iterator[Record]:
    """Yield from a stream the rows of the first `limit` ids in the wanted languages.

    The stream is left as soon as every wanted language has all of them. Without `languages` it is
    read to its end, because another language might still come. Rows whose id or language cannot be
    read pass, to be refused later.

    Raises:
        CorpusError: the stream ended without one of the languages.
    """
    ids: set[object] = set()
    kept: Counter[str | None] = Counter()
    seen: set[str | None] = set()
    for record in records:
        language, item = _tag(record.columns.get("language")), record.columns.get("id")
        seen.add(language)
        if languages is not None and language is not None and language not in languages:
            continue
        if limit is not None and item not in ids and len(ids) >= limit:
            continue
        ids.add(item)
        kept[language] += 1
        yield record
        if limit is not None and languages and all(kept[tag] >= limit for tag in languages):
            return
    if missing := sorted(set(languages or ()) - seen):
        present = sorted(tag for tag in seen if tag is not None)
        raise CorpusError(f"the stream has no language {missing[0]!r}; it has {present}")


def _tag(value: object) -> str | None:
    try:
        return language_code(value) if isinstance(value, str) else None
    except CorpusError:
        return None
