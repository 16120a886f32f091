"""One door for everything that holds a corpus: what is this, and who reads it.

A path is known by its content and name, a folder by the names of its files, other sources by their
type. What is not understood is refused with what was found and with all that would be understood.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Any, NamedTuple

from lensneurons.corpora.items import Record
from lensneurons.corpora.readers import (
    read_aligned_text,
    read_dataset,
    read_dict,
    read_jsonl,
    read_mgsm,
    read_msvamp,
    read_parquet,
    read_sib200,
)
from lensneurons.errors import CorpusError
from lensneurons.languages.codes import language_code
from lensneurons.registry import CORPORA, load_registered

if TYPE_CHECKING:
    import datasets


UNDERSTOOD = """load_corpus understands
  a .jsonl or .parquet file, or a folder of them, with id, language, prompt, response
  MGSM: a folder with mgsm_<language>.tsv
  MSVAMP: a folder with test_<English language name>.json
  SIB-200: a folder with <language>.<split>.tsv
  aligned text: a folder with <language>.txt, one sentence a line
  a dict from language to texts or (prompt, response) pairs
  a Hugging Face data set, loaded with datasets.load_dataset
  "demo\""""

# A file's name tells its kind; the first pattern that fits decides.
_PATTERNS = {
    "MGSM": r"mgsm_.+\.tsv",
    "MSVAMP": r"test_.+\.json",
    "SIB-200": r".+\.(train|dev|test)\.tsv",
    "aligned text": r"(?!(readme|license|notice)\b).+\.txt",
    "JSON lines": r".+\.jsonl",
    "Parquet": r".+\.parquet",
}


class Source(NamedTuple):
    """An opened source: what to call it, its records, and whether they come as a stream."""

    name: str
    records: Iterable[Record]
    streamed: bool = False


def open_source(
    source: Any, *, split: str | None = None, limit: int | None = None, separator: str = "\n"
) -> Source:
    """Find the reader for `source`.

    Args:
        source: a path, a dictionary, a Hugging Face data set, or a registered name, such as
            ``"demo"``.
        split: the part of a source that has parts.
        limit: how many items a registered corpus makes; other sources are cut by the caller.
        separator: closes the prompt where question and answer come as two columns.

    Raises:
        CorpusError: the source is not understood, or has no such split.
    """
    if isinstance(source, str) and (reader := load_registered(CORPORA, source)) is not None:
        return Source(*reader(split, limit))
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source), split, separator)
    if _is_dataset(source, "DatasetDict", "IterableDatasetDict"):
        source, split = _part(source, split), None
    if _is_dataset(source, "Dataset", "IterableDataset"):
        _refuse_split(split, "a single data set")
        return _open_dataset(source)
    if isinstance(source, Mapping):
        _refuse_split(split, "a dictionary")
        return Source("dictionary", read_dict(source))
    raise CorpusError(f"{type(source).__name__} is no source of a corpus; {UNDERSTOOD}")


def take_items(
    records: Iterable[Record], limit: int | None, languages: Sequence[str] | None
) -> Iterator[Record]:
    """Yield from a stream the rows of the first `limit` ids in the wanted languages.

    The stream ends as soon as every wanted language has all of them. Without `languages` it is
    read to its end, because another language might still come.

    Args:
        records: the rows as read; rows whose id or language cannot be read pass, to be refused.
        limit: the number of ids, or None for all.
        languages: canonical tags, or None for all.

    Raises:
        CorpusError: the stream ended without one of the languages.
    """
    ids: dict[object, None] = {}
    kept: Counter[str | None] = Counter()
    seen: set[str | None] = set()
    for record in records:
        language, item = _tag(record.columns.get("language")), record.columns.get("id")
        seen.add(language)
        if languages is not None and language is not None and language not in languages:
            continue
        if limit is not None and item not in ids and len(ids) >= limit:
            continue
        ids[item] = None
        kept[language] += 1
        yield record
        if limit is not None and languages and all(kept[tag] >= limit for tag in languages):
            return
    missing = sorted(set(languages or ()) - seen)
    if missing:
        present = sorted(tag for tag in seen if tag is not None)
        raise CorpusError(f"the stream has no language {missing[0]!r}; it has {present}")


def _tag(value: object) -> str | None:
    try:
        return language_code(value) if isinstance(value, str) else None
    except CorpusError:
        return None


def _open_path(path: Path, split: str | None, separator: str) -> Source:
    if path.is_dir():
        kind, files = _folder_kind(path)
    elif path.is_file():
        kind, files = _file_kind(path), [path]
    else:
        raise CorpusError(f"{os.fspath(path)!r} is no file or folder; {UNDERSTOOD}")
    if kind == "SIB-200":
        files = _sib200_files(path, files, split)
    else:
        _refuse_split(split, f"{path} ({kind})")
    name = path.stem if path.is_file() else path.resolve().name
    return Source(name, _read(kind, files, separator))


def _read(kind: str, files: Sequence[Path], separator: str) -> Iterable[Record]:
    if kind == "MGSM":
        return read_mgsm(files, separator=separator)
    if kind == "MSVAMP":
        return read_msvamp(files, separator=separator)
    if kind == "SIB-200":
        return read_sib200(files)
    if kind == "aligned text":
        return read_aligned_text(files)
    reader = read_parquet if kind == "Parquet" else read_jsonl
    return (record for file in files for record in reader(file))


def _name_kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for kind, form in _PATTERNS.items() if fullmatch(form, name)), None)


def _file_kind(path: Path) -> str:
    """Return the kind of one file: by its first bytes where they tell, else by its name."""
    with path.open("rb") as file:
        head = file.read(4096)
    kind = _name_kind(path)
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") and kind != "MSVAMP":
        return "JSON lines"
    if kind is None or not head:
        what = "is empty" if not head else f"begins with {head[:20]!r}, which is not understood"
        raise CorpusError(f"{path} {what}; {UNDERSTOOD}")
    return kind


def _folder_kind(folder: Path) -> tuple[str, list[Path]]:
    """Return the kind of a folder's files, and those files in the order of their names."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kind = _name_kind(file)
        if kind is not None:
            kinds.setdefault(kind, []).append(file)
    if not kinds:
        names = [path.name for path in sorted(folder.iterdir())]
        held = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise CorpusError(f"{folder} holds {held or 'nothing'}; {UNDERSTOOD}")
    if len(kinds) > 1:
        held = ", ".join(f"{kind} ({found[0].name})" for kind, found in kinds.items())
        raise CorpusError(f"{folder} holds several kinds: {held}; keep one or give one file")
    return next(iter(kinds.items()))


def _sib200_files(path: Path, files: Sequence[Path], split: str | None) -> list[Path]:
    parts = sorted({file.name.split(".")[-2] for file in files})
    _check_part(path, parts, split)
    return [file for file in files if split is None or file.name.split(".")[-2] == split]


def _check_part(source: object, parts: Sequence[str], split: str | None) -> None:
    if split is not None and split not in parts:
        raise CorpusError(f"split={split!r} is not in {source}; it has {list(parts)}")


def _refuse_split(split: str | None, what: str) -> None:
    if split is not None:
        raise CorpusError(f"split={split!r} was given, but {what} has no splits; leave it out")


def _is_dataset(source: object, *kinds: str) -> bool:
    """Tell data sets without importing their library: nobody can hold one without it."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(source, tuple(getattr(library, k) for k in kinds))


def _part(
    parts: datasets.DatasetDict | datasets.IterableDatasetDict, split: str | None
) -> datasets.Dataset | datasets.IterableDataset:
    _check_part("the data set", [str(part) for part in parts], split)
    if split is None and len(parts) != 1:
        raise CorpusError(f"the data set has the splits {list(parts)}; choose one with split=")
    return parts[next(iter(parts)) if split is None else split]


def _open_dataset(dataset: datasets.Dataset | datasets.IterableDataset) -> Source:
    name = (dataset.info.dataset_name if dataset.info else None) or "dataset"
    streamed = _is_dataset(dataset, "IterableDataset")
    return Source(name, read_dataset(dataset, where=name), streamed)
