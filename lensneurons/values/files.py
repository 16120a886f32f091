"""Files that are whole or absent: written under a temporary name, then renamed.

A value of numbers is one ``.safetensors`` file. Its arrays are the value's arrays; its header
carries one JSON text with the kind, the format version and everything else. A reader needs no
pickle and no lensneurons: ``safetensors.safe_open(path, "np").metadata()`` shows it all. A value of
texts is one ``.jsonl`` file, whose first line is the header and whose other lines are its rows.

A file is written under a temporary name in the same folder, flushed to the disk and renamed, so a
crash at any moment leaves the old file or the new one, never a piece.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.errors import StorageError

FORMAT_VERSION = 1
HEADER = "lensneurons"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block has succeeded.

    The file is flushed to the disk before the rename. Where the block raises, the temporary file
    is removed and `path` stays as it was.

    Args:
        path: the final path; its folder is made where it is missing.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, final)
        _flush(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Force a file or a folder to the disk, so that a rename cannot overtake its contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_json(path: str | Path, value: Mapping[str, Any]) -> Path:
    """Write `value` as readable, key-sorted JSON, atomically, and return the path."""
    with replacing(path) as temporary:
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def load_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StorageError: there is no such file, or it holds no JSON object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist") from None
    except ValueError as error:
        raise StorageError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise StorageError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def save_arrays(
    path: str | Path, kind: str, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]
) -> Path:
    """Write arrays and JSON details as one safetensors file, atomically; the same input gives the
    same bytes.

    Args:
        path: the file to write.
        kind: what the value is, such as ``"activation statistics"``; checked on loading.
        arrays: name to array.
        details: everything else, as JSON values.
    """
    from safetensors.numpy import save_file

    header = {"kind": kind, "version": FORMAT_VERSION, "details": dict(details)}
    text = json.dumps(header, sort_keys=True, ensure_ascii=False)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={HEADER: text})
    return Path(path)


def load_arrays(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_arrays` wrote.

    Returns:
        The arrays by name, and the details.

    Raises:
        StorageError: there is no such file, it is damaged, of another kind, or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise StorageError(
            f"{path} does not exist" if not Path(path).exists() else f"{path} is a folder"
        )
    try:
        with safe_open(path, framework="np") as file:
            details = _read_header(path, (file.metadata() or {}).get(HEADER), kind)
            return {name: file.get_tensor(name) for name in file.keys()}, details
    except SafetensorError as error:
        raise StorageError(f"{path} is damaged or no safetensors file: {error}") from None


def _read_header(path: str | Path, text: str | None, kind: str) -> dict[str, Any]:
    """The details of a header; raise unless this code reads its kind and version."""
    if text is None:
        raise StorageError(f"{path} was not written by lensneurons: its header has no {HEADER!r}")
    try:
        header = json.loads(text)
        kind_found, version, details = header["kind"], header["version"], header["details"]
    except (ValueError, TypeError, KeyError):
        raise StorageError(f"{path} has a header that lensneurons never wrote") from None
    if kind_found != kind:
        raise StorageError(f"{path} holds {kind_found}, but {kind} is wanted")
    if version > FORMAT_VERSION:
        raise StorageError(
            f"{path} has format version {version}; this lensneurons reads up to "
            f"{FORMAT_VERSION}: upgrade it"
        )
    return details


def read_kind(path: str | Path) -> str:
    """What a file holds, such as ``"activation statistics"``, by its header.

    Raises:
        StorageError: there is no such file, or nothing in it that says what it holds.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise StorageError(f"{path} does not exist")
    try:
        try:
            with safe_open(path, framework="np") as file:
                return json.loads((file.metadata() or {})[HEADER])["kind"]
        except SafetensorError:
            with Path(path).open(encoding="utf-8") as lines:
                return json.loads(lines.readline())[HEADER]["kind"]
    except (KeyError, TypeError, ValueError):
        raise StorageError(f"{path} is no value that lensneurons saved") from None


def save_rows(
    path: str | Path, kind: str, rows: Iterable[Mapping[str, Any]], details: Mapping[str, Any]
) -> Path:
    """Write rows and JSON details as JSON lines, atomically, and return the path.

    Args:
        path: the file to write.
        kind: what the value is, such as ``"sampled responses"``; checked on loading.
        rows: JSON objects.
        details: everything else, as JSON values.
    """
    header = {HEADER: {"kind": kind, "version": FORMAT_VERSION, "details": dict(details)}}
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as lines:
        for line in (header, *rows):
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    return Path(path)


def load_rows(path: str | Path, kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read what `save_rows` wrote.

    Returns:
        The rows, and the details.

    Raises:
        StorageError: there is no such file, it is damaged, of another kind, or of a newer version.
    """
    if not Path(path).is_file():
        raise StorageError(f"{path} does not exist")
    try:
        with Path(path).open(encoding="utf-8", newline="\n") as lines:
            header, *rows = [json.loads(line) for line in lines]
        text = json.dumps(header[HEADER]) if HEADER in header else None
    except (ValueError, TypeError):
        raise StorageError(f"{path} is damaged or no file of JSON lines") from None
    return rows, _read_header(path, text, kind)
