"""One door for everything that holds a corpus: what is this, and who reads it.

A path is known by its content and name, a folder by the names of its files, other sources by their
type. Anything else is refused, with what was found and with all that would be understood.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from re import fullmatch
from typing import Any, NamedTuple

from lensneurons.corpora.items import Record
from lensneurons.corpora.readers import FORMATS, read_dataset, read_dict
from lensneurons.errors import CorpusError, shown
from lensneurons.languages.codes import known_code
from lensneurons.registry import CORPORA, load_registered

UNDERSTOOD = """load_corpus understands
  a .jsonl or .parquet file, or a folder of them, with id, language, prompt, response;
    JSON lines may be compressed: .jsonl.gz, .bz2, .xz, .zst
  MGSM: a folder with mgsm_<language>.tsv
  MSVAMP: a folder with test_<English language name>.json
  SIB-200: a folder with <language>.<split>.tsv
  aligned text: a folder with <language>.txt, one sentence a line
  a dict from language to texts or (prompt, response) pairs
  a Hugging Face data set, loaded with datasets.load_dataset
  "demo\""""

# Names of files that hold texts, whether or not a reader knows them.
_DATA = (
    r".+\.(txt|text|tsv|csv|tab|json|jsonl|jsonlines|ndjson|parquet|arrow)(\.(gz|bz2|xz|zst|zip))?"
)


class Source(NamedTuple):
    """An opened source: what to call it, its records, whether they come as a stream, and what is
    left out of a folder although it looks like a part of the corpus.
    """

    name: str
    records: Iterable[Record]
    streamed: bool = False
    skipped: Sequence[str] = ()


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
        return Source(name, read_dataset(_plain(source), where=name), streamed)
    if isinstance(source, Mapping):
        _check_split("a dictionary", (), split)
        return Source("dictionary", read_dict(source))
    raise CorpusError(f"{type(source).__name__} is no source of a corpus; {UNDERSTOOD}")


def is_dataset(source: object) -> bool:
    """Whether a source is a Hugging Face data set, whole or of splits, streamed or not."""
    names = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return _is_dataset(source, *names)


def _is_dataset(source: object, *names: str) -> bool:
    """Recognise data sets without importing their library: nobody can hold one without it."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(source, tuple(getattr(library, n) for n in names))


def _plain(dataset: Any) -> Any:
    """A data set whose rows are Python values, not NumPy's, torch's or Arrow's.

    The chosen columns stay chosen, and a transform of the user's own stays.
    """
    form = getattr(dataset, "format", None)  # of a data set that is no stream
    if isinstance(form, Mapping):
        if form["type"] in (None, "custom"):
            return dataset
        chosen = None if set(form["columns"]) == set(dataset.column_names) else form["columns"]
        return dataset.with_format(None, columns=chosen)
    return dataset.with_format(None) if hasattr(dataset, "with_format") else dataset


def _check_split(source: object, parts: Sequence[str], split: str | None) -> None:
    if split is not None and not parts:
        raise CorpusError(
            f"split={shown(split)} was given, but {source} has no splits; leave it out"
        )
    if split is not None and split not in parts:
        raise CorpusError(f"split={shown(split)} is not in {source}; it has {list(parts)}")


def _open_path(path: Path, split: str | None, separator: str) -> Source:
    try:
        return _open_there(path, split, separator)
    except OSError as cause:
        raise CorpusError(f"{shown(os.fspath(path), 200)}: {cause.strerror or cause}") from None
    except ValueError as cause:  # a NUL, which no path has
        if isinstance(cause, CorpusError):
            raise
        raise CorpusError(f"{shown(os.fspath(path), 200)} is no path: {cause}") from None


def _open_there(path: Path, split: str | None, separator: str) -> Source:
    skipped: list[str] = []
    if path.is_dir():
        format_, files, skipped = _folder_format(path)
    elif path.is_file():
        format_, files = _file_format(path), [path]
    else:
        raise CorpusError(f"{shown(os.fspath(path), 200)} is no file or folder; {UNDERSTOOD}")
    if format_ == "SIB-200":
        part_of = {file: file.name.split(".")[-2] for file in files}
        _check_split(path, sorted(set(part_of.values())), split)
        files = [file for file in files if split is None or part_of[file] == split]
    else:
        _check_split(f"{path} ({format_})", (), split)
    name = path.stem if path.is_file() else path.resolve().name
    return Source(name, FORMATS[format_][1](files, separator), skipped=skipped)


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


def _folder_format(folder: Path) -> tuple[str, list[Path], list[str]]:
    """The format of a folder's files, those files sorted by name, and the files left out."""
    entries = sorted(folder.iterdir())
    found, skipped = parts_of_folder(entries)
    if not found:
        held = ", ".join(path.name for path in entries[:10]) + (", ..." if entries[10:] else "")
        raise CorpusError(f"{folder} holds {held or 'nothing'}; {UNDERSTOOD}")
    if len(found) > 1:
        held = ", ".join(f"{one} ({files[0].name})" for one, files in found.items())
        raise CorpusError(f"{folder} holds several kinds: {held}; keep one or give one file")
    return (*next(iter(found.items())), skipped)


class Parts(NamedTuple):
    """Files by the format that their names say, and the names of those that no reader takes."""

    files: dict[str, list[Path]]
    skipped: list[str]


def parts_of_folder(entries: Iterable[Path]) -> Parts:
    """Tell the files of a folder apart, in their order."""
    found, skipped = Parts({}, [])
    for file in entries:
        named = _named_format(file) if file.is_file() else None
        if named is not None:
            found.setdefault(named, []).append(file)
        elif _looks_like_a_part(file):
            skipped.append(file.name)
    return Parts(found, skipped)


def _looks_like_a_part(path: Path) -> bool:
    """Whether a file that no reader takes holds data by its name, or a folder such files."""
    name = path.name.lower()
    if name.startswith(".") or fullmatch(r"(readme|license|notice)\b.*", name):
        return False
    if path.is_dir():
        return any(_named_format(one) or _looks_like_a_part(one) for one in _files_of(path))
    return fullmatch(_DATA, name) is not None


def _files_of(folder: Path) -> list[Path]:
    """The files right under a folder; none if it cannot be read."""
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


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
        if not isinstance(record.columns, Mapping):
            yield record  # to be refused later
            continue
        language, item = known_code(record.columns.get("language")), record.columns.get("id")
        seen.add(language)
        if languages is not None and language is not None and language not in languages:
            continue
        if not isinstance(item, Hashable):
            yield record
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
