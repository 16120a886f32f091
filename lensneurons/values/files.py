"""Files that are whole or absent, and that say so when they were changed.

A value of numbers is one ``.safetensors`` file. Its arrays are the value's arrays; its header
carries one JSON text with the kind, the format version and everything else. A reader needs no
pickle and no lensneurons: ``safetensors.safe_open(path, "np").metadata()`` shows it all. A value of
texts is one ``.jsonl`` file, whose first line is the header and whose other lines are its rows.

A file is written under a temporary name in the same folder, flushed to the disk and renamed, so a
crash at any moment leaves the old file or the new one, never a piece.

Since format version 2 every header has a checksum (xxh3, 128 bits) over all the rest of the file:
kind, version, details, and name, type, shape and bytes of every array, or the lines of the rows and
their number. A file whose content has another checksum is refused. It finds damage and mix-ups; it
is no signature, and somebody who means to forge a file can. Files of version 1 have no checksum and
still load.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from lensneurons.errors import StorageError, shown
from lensneurons.values.mapping import in_pieces, map_arrays

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 2
UNSEALED = 1  # the last version without a checksum
HEADER = "lensneurons"
REMEDY = "copy it again, or delete it and make it anew"
# The name of a temporary file: the final one's, then process, host and 16 random digits.
_TEMPORARY = re.compile(
    r"\.(?P<final>.+)\.(?P<process>[0-9a-f]{8})(?P<host>[0-9a-f]{8})[0-9a-f]{16}\.tmp", re.DOTALL
)
_HOST = xxhash.xxh32_hexdigest(gethostname().encode())
_OLD = 24 * 3600.0  # seconds after which a temporary file of another machine is given up
_TOLD = {
    errno.ENOSPC: "the disk is full; free some space and do it again",
    errno.EDQUOT: "your quota of the disk is used up; free some space and do it again",
    errno.EROFS: "the disk is read-only; give a path on another one",
    errno.EACCES: "permission denied; ask the owner of the folder, or give another path",
    errno.EPERM: "permission denied; ask the owner of the folder, or give another path",
}


def system_path(path: Any) -> Path:
    """A path that a system can have; every function that takes one asks here.

    Raises:
        StorageError: it is no path, or holds a NUL character.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise StorageError(f"{shown(path)} is no path: give text or a pathlib.Path")
    if "\0" in os.fspath(path):
        raise StorageError(f"{shown(str(path))} holds a NUL character, which no path has")
    return Path(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block has succeeded.

    The file is flushed to the disk before the rename, and gets the mode that the umask gives.
    Where the block raises, the temporary file is removed and `path` stays as it was.

    Args:
        path: the final path; its folder is made where it is missing.

    Raises:
        StorageError: `path` is a folder, the disk is full, or the file may not be written there.
    """
    final = system_path(path)
    name = f".{final.name}.{os.getpid() & 0xFFFFFFFF:08x}{_HOST}{os.urandom(8).hex()}.tmp"
    temporary = final.with_name(name)
    with explaining(final):
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder; give the name of a file")
            remove_leftovers(final.parent, of=final.name)
            mode = _usual_mode(temporary)
            yield temporary
            _flush(temporary)
            with suppress(OSError):  # file systems without modes
                temporary.chmod(mode)
            os.replace(temporary, final)
            with suppress(OSError):  # network shares and Windows cannot flush a folder
                _flush(final.parent)
        finally:
            with suppress(OSError, ValueError):
                temporary.unlink()


def new_folder(path: str | Path) -> Path:
    """The path of a folder that is to be made: none is there yet, or an empty one.

    Raises:
        StorageError: it holds something, or is a file.
    """
    target = system_path(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StorageError(f"{target} is there already: give a new folder")
    return target


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` once the block has succeeded.

    Where the block raises, the temporary folder is removed. The block makes the folder.

    Raises:
        StorageError: as `new_folder`; or the disk is full, or nothing may be written there.
    """
    target = new_folder(path)
    temporary = target.with_name(f".{target.name}.{os.getpid():x}{os.urandom(8).hex()}.tmp")
    with explaining(target):
        try:
            yield temporary
            if target.exists():
                target.rmdir()  # empty; Windows does not rename onto it
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def explaining(final: Path) -> Iterator[None]:
    """Turn what the disk says against writing `final` in the block into a sentence.

    Raises:
        StorageError: the disk is full, or the file may not be written there.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if (reason := _why_not_written(error, final)) is None:
            raise
        raise StorageError(f"{final} cannot be written: {reason}") from error


def _usual_mode(path: Path) -> int:
    """The mode that a new file at `path` gets; safetensors makes its files for the owner alone."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        path.unlink()


def _flush(path: Path) -> None:
    """Force a file or a folder to the disk, so that a rename cannot overtake its contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # cannot be flushed
            raise
    finally:
        os.close(descriptor)


def _why_not_written(error: Exception, final: Path) -> str | None:
    """What the disk says against a file; None where the error is not about the disk."""
    from safetensors import SafetensorError

    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, SafetensorError) and (found := re.search(r"os error (\d+)", str(error))):
        number = int(found[1])
    if number == errno.ENOENT:
        gone = "its folder was removed or renamed meanwhile; do it again"
        return None if final.parent.is_dir() else gone
    if number in _TOLD:
        return _TOLD[number]
    if isinstance(error, OSError) and number is not None:
        return error.strerror or str(error)
    return None


def write_csv(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as CSV, and return its path; an index with a name is the first column.

    Raises:
        StorageError: the file cannot be written there.
    """
    final = system_path(path)
    with replacing(final) as temporary:
        with_index(frame).to_csv(temporary, index=False, errors="backslashreplace")
    return final


def with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its index as the first column, if the index has a name."""
    return frame if frame.index.name is None else frame.reset_index()


def plain_numbers(value: Any) -> Any:
    """Mappings and lists as JSON takes them: Python's numbers, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(name): plain_numbers(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def remove_leftovers(folder: Path, *, of: str | None = None) -> None:
    """Remove temporary files that a killed process of this package left in a folder itself.

    Files of a process that still runs, and those of others, stay.

    Args:
        folder: where to look; not below it.
        of: name of the final file; None for all.
    """
    try:
        entries = list(folder.iterdir())
    except OSError:  # one may write into a folder that one may not list
        return
    for path in entries:
        found = _TEMPORARY.fullmatch(path.name)
        if found and of in (None, found["final"]) and _is_left(path, found):
            with suppress(OSError):
                path.unlink()


def _is_left(path: Path, name: re.Match[str]) -> bool:
    """Whether nobody will rename a temporary file any more."""
    import time

    try:
        if name["host"] == _HOST and os.name == "posix":
            os.kill(int(name["process"], 16), 0)
            return False
        return time.time() - path.stat().st_mtime > _OLD
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False


def require_file(path: str | Path) -> None:
    """Raise unless `path` is a file that may be read.

    Raises:
        StorageError: says whether it is missing, a folder, or not permitted.
    """
    path = system_path(path)
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISREG(kind):
            with open(path, "rb"):
                return
        said = "is a folder" if stat.S_ISDIR(kind) else "is no regular file"
    except (FileNotFoundError, NotADirectoryError):
        said = "does not exist"
    except PermissionError:
        said = "cannot be read: permission denied; ask its owner"
    except OSError as error:  # a loop of links, a name that is too long
        said = f"cannot be read: {error}"
    raise StorageError(f"{path} {said}")


def _json_text(value: Any, **options: Any) -> str:
    """JSON that can be written as UTF-8: halves of surrogate pairs are escaped."""
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, **options)
    return text


def _parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or so deep that Python cannot read it.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def checksum(value: Any, parts: Iterable[Any] = ()) -> str:
    """xxh3 (128 bits, hexadecimal) of a JSON value, however its keys are ordered, and of bytes."""
    digest = xxhash.xxh3_128(json.dumps(value, sort_keys=True).encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def save_json(path: str | Path, value: Mapping[str, Any], *, sealed: bool = True) -> Path:
    """Write `value` as readable, key-sorted JSON, atomically, and return the path.

    Args:
        path: the file to write.
        value: a JSON object.
        sealed: add ``"lensneurons"`` with the format version and a checksum; False for a file that
            another program reads.
    """
    plain: dict[str, Any] = json.loads(json.dumps(dict(value)))  # as it will be read
    if sealed:
        plain[HEADER] = {"version": FORMAT_VERSION, "checksum": checksum([FORMAT_VERSION, plain])}
    with replacing(path) as temporary:
        text = _json_text(plain, indent=1, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def load_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object; one of version 2 must have its checksum.

    Raises:
        StorageError: there is no such file, it holds no JSON object, or it was changed.
    """
    return read_json(path)[0]


def read_json(path: str | Path) -> tuple[dict[str, Any], bool]:
    """A JSON object, and whether it has a checksum.

    Raises:
        StorageError: there is no such file, it holds no JSON object, or it was changed.
    """
    require_file(path)
    try:
        value = _parse(Path(path).read_bytes().decode())
    except ValueError as error:
        raise StorageError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise StorageError(f"{path} holds a JSON {type(value).__name__}, not an object")
    # A seal under another name is that of a file whose key was changed.
    seals = {
        k for k, v in value.items() if isinstance(v, dict) and {"version", "checksum"} == set(v)
    }
    if not seals and HEADER not in value:
        return value, False
    seal = value.pop(HEADER, None)
    if not isinstance(seal, dict) or set(seal) != {"version", "checksum"}:
        raise StorageError(
            f"{path} is damaged: its {HEADER!r} has no version and checksum; {REMEDY}"
        )
    _require_known(path, seal["version"])
    if seal["checksum"] != checksum([seal["version"], value]):
        raise StorageError(_changed(path))
    return value, True


def _changed(path: str | Path) -> str:
    return f"{path} is damaged: its content is not what its checksum was made of; {REMEDY}"


def _require_known(path: str | Path, version: Any) -> None:
    """Raise unless this code reads the version."""
    if isinstance(version, bool) or not isinstance(version, int) or version < UNSEALED:
        raise StorageError(f"{path} has format version {version!r}, which never was: {REMEDY}")
    if version > FORMAT_VERSION:
        raise StorageError(
            f"{path} has format version {version}; this lensneurons reads up to "
            f"{FORMAT_VERSION}: upgrade it"
        )


def _plain(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as safetensors writes them: row by row, the lowest byte of a number first."""
    return {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in arrays.items()
    }


def arrays_checksum(
    kind: str,
    arrays: Mapping[str, np.ndarray],
    details: Mapping[str, Any],
    version: int | None = None,
) -> str:
    """The checksum in the header of what `save_arrays` writes."""
    plain, names = _plain(arrays), sorted(arrays)
    described = [[name, plain[name].dtype.str, list(plain[name].shape)] for name in names]
    about = [kind, version or FORMAT_VERSION, json.loads(json.dumps(dict(details))), described]
    return checksum(about, (piece for name in names for piece in in_pieces(plain[name])))


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

    text = header_text(kind, details, arrays_checksum(kind, arrays, details))
    with replacing(path) as temporary:
        save_file(_plain(arrays), temporary, metadata={HEADER: text})
    return Path(path)


def header_text(kind: str, details: Mapping[str, Any], seal: str) -> str:
    """The JSON text in the header of what `save_arrays` writes; `seal` is its checksum."""
    header = {"kind": kind, "version": FORMAT_VERSION, "details": dict(details), "checksum": seal}
    return _json_text(header, sort_keys=True)


def load_arrays(
    path: str | Path, kind: str, *, memory_map: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_arrays` wrote.

    Args:
        path: the file.
        kind: what the value is.
        memory_map: leave the arrays in the file, read-only. The checksum takes one pass over the
            file either way, and holds 64 MB of it at a time.

    Returns:
        The arrays by name, and the details.

    Raises:
        StorageError: there is no such file, it is damaged, of another kind, or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(path, framework="np") as file:
            header = _read_header(path, (file.metadata() or {}).get(HEADER), kind)
            arrays = {} if memory_map else {name: file.get_tensor(name) for name in file.keys()}
        arrays = map_arrays(path) if memory_map else arrays
    except StorageError:
        raise
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
    ) as error:
        # NumPy lacks some number formats of safetensors, such as BF16
        raise StorageError(f"{path} is damaged or no safetensors file: {error}") from None
    version, details = header["version"], header["details"]
    if version > UNSEALED and header["checksum"] != arrays_checksum(kind, arrays, details, version):
        raise StorageError(_changed(path))
    return arrays, details


def _read_header(path: str | Path, text: str | None, kind: str, *more: str) -> dict[str, Any]:
    """A header, once this code reads its kind and version; `more` are its keys of version 2."""
    if text is None:
        raise StorageError(f"{path} was not written by lensneurons: its header has no {HEADER!r}")
    try:
        header = _parse(text)
        kind_found, version, _ = header["kind"], header["version"], header["details"].keys()
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StorageError(f"{path} has a header that lensneurons never wrote") from None
    if kind_found != kind:
        raise StorageError(f"{path} holds {kind_found}, but {kind} is wanted")
    _require_known(path, version)
    sealed = {"checksum", *more} if version > UNSEALED else set()
    keys = {"kind", "version", "details", *sealed}
    if lacking := keys - header.keys():
        raise StorageError(
            f"{path} has format version {version}, but no {min(lacking)}: it is damaged; {REMEDY}"
        )
    if set(header) != keys:
        raise StorageError(f"{path} has a header that lensneurons never wrote")
    return header


def read_kind(path: str | Path) -> str:
    """What a file holds, such as ``"activation statistics"``, by its header.

    Raises:
        StorageError: there is no such file, or nothing in it that says what it holds.
    """
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        try:
            with safe_open(path, framework="np") as file:
                kind = _parse((file.metadata() or {})[HEADER])["kind"]
        except SafetensorError:
            with Path(path).open("rb") as lines:
                kind = _parse(lines.readline())[HEADER]["kind"]
    except (KeyError, TypeError, ValueError, OSError):
        kind = None
    if not isinstance(kind, str):
        raise StorageError(f"{path} is no value that lensneurons saved")
    return kind


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
    lines = [_json_text(row).encode() + b"\n" for row in rows]
    header = {"kind": kind, "version": FORMAT_VERSION, "details": dict(details), "rows": len(lines)}
    header = json.loads(json.dumps(header))
    header["checksum"] = checksum(header, lines)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_json_text({HEADER: header}).encode() + b"\n")
        file.writelines(lines)
    return Path(path)


def load_rows(path: str | Path, kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read what `save_rows` wrote.

    Returns:
        The rows, and the details.

    Raises:
        StorageError: there is no such file, it is damaged, of another kind, or of a newer version.
    """
    require_file(path)
    damaged = f"{path} is damaged or no file of JSON lines"
    first, *lines = Path(path).read_bytes().splitlines(keepends=True) or [b""]
    try:
        found = _parse(first)
    except ValueError:
        raise StorageError(damaged) from None
    text = json.dumps(found[HEADER]) if isinstance(found, dict) and HEADER in found else None
    header = _read_header(path, text, kind, "rows")
    if header["version"] > UNSEALED:
        if header["rows"] != len(lines):
            raise StorageError(
                f"{path} is damaged: it holds {len(lines)} rows of {header['rows']}; {REMEDY}"
            )
        given = header.pop("checksum")
        if len(found) > 1 or given != checksum(header, lines):
            raise StorageError(_changed(path))
    try:
        rows = [_parse(line) for line in lines]
    except ValueError:
        raise StorageError(damaged) from None
    if not all(isinstance(row, dict) for row in rows):
        raise StorageError(damaged)
    return rows, header["details"]
