"""Bytes of a file that may be compressed: gzip, bzip2, xz and Zstandard, by the end of its name.

    >>> with open_bytes(Path("a.jsonl.gz")) as file: first = file.readline()    # doctest: +SKIP

A file is read as it is unpacked, so it never lies in memory whole. Zstandard is read by pyarrow.
What this does not do: look into archives of several files (``.zip``, ``.tar.gz``).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What the end of a file's name says, in a pattern of names.
COMPRESSED = r"(\.(gz|bz2|xz|zst))?"
# What damaged files raise; gzip and pyarrow also raise plain OSErrors.
FAULTS = (EOFError, zlib.error, lzma.LZMAError)


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file for reading, unpacked where its name ends in .gz, .bz2, .xz or .zst.

    Raises:
        OSError: it cannot be opened.
    """
    openers: dict[str, Callable[[Path], Any]] = {
        ".gz": lambda one: gzip.open(one, "rb"),
        ".bz2": lambda one: bz2.open(one, "rb"),
        ".xz": lambda one: lzma.open(one, "rb"),
        ".zst": _open_zstandard,
    }
    return openers.get(path.suffix.lower(), lambda one: one.open("rb"))(path)


def _open_zstandard(path: Path) -> io.BufferedIOBase:
    import pyarrow

    raw: Any = pyarrow.input_stream(str(path), compression="zstd")
    return io.BufferedReader(raw)
