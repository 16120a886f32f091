"""Arrays that stay in their file: read as they are needed, written without holding them.

A safetensors file is a length of eight bytes, a JSON header, and the bytes of the arrays one after
another. So an array can be a window on the file: the system brings the pages that are read and lets
go of them when memory is short. Counts of 100 languages in 80 layers of 28,672 neurons and 10
groups are 18 GB; mapped, they take the memory of what is looked at.

>>> arrays = map_arrays("statistics.safetensors")                        # doctest: +SKIP
>>> arrays["counts"][0, 12].sum()                                        # doctest: +SKIP

What this does not do: protect the file. Files of this package are replaced, never written over, so
a mapped array keeps what it showed; a program that writes into the file changes it.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PIECE = 2**26  # bytes that are looked at before a mapped array lets go of its pages
# Names of number formats in a safetensors file, in the order in which its writer puts arrays.
FORMATS = {
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
    "F32": "<f4",
    "U32": "<u4",
    "I32": "<i4",
    "F16": "<f2",
    "U16": "<u2",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_NAMES = {number: name for name, number in FORMATS.items()}


def map_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, read-only, each a window on the file.

    The file has to be whole, as ``safetensors.safe_open`` makes sure.

    Raises:
        KeyError: a number format that NumPy lacks, such as BF16.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    return {name: _window(held, 8 + length, about) for name, about in header.items()}


def _window(held: mmap.mmap, start: int, about: Mapping[str, Any]) -> np.ndarray:
    """One array within the file; `about` is its entry in the header."""
    number, shape = np.dtype(FORMATS[about["dtype"]]), about["shape"]
    if not (size := math.prod(shape)):
        return np.zeros(shape, number)
    begin = start + about["data_offsets"][0]
    return np.frombuffer(held, number, size, begin).reshape(shape)


def let_go(*arrays: np.ndarray | None) -> None:
    """Let the pages of mapped arrays leave memory, once they were read; nothing for others.

    The numbers stay: what is read again comes from the file, or from the system's cache of it.
    """
    for array in arrays:
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, memoryview):
            owner = owner.obj
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            owner.madvise(mmap.MADV_DONTNEED)


def in_pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """The bytes of a contiguous array, uint8, piece by piece; a mapped one lets go of each."""
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, flat.size, PIECE):
        yield flat[start : start + PIECE]
        let_go(array)


def lay_out(
    shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The first bytes of a safetensors file, and where each array lies in it.

    They are the bytes that ``safetensors.numpy.save_file`` writes.

    Args:
        shapes: name of each array to its number format and its shape.
        metadata: texts of the header.

    Returns:
        The length and the header; name to the first byte of the array and the one after it.
    """
    order = list(FORMATS)
    kinds = {name: _NAMES[number.newbyteorder("<").str] for name, (number, _) in shapes.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    places, end = dict[str, tuple[int, int]](), 0
    for name in sorted(shapes, key=lambda name: (order.index(kinds[name]), name)):
        number, shape = shapes[name]
        begin, end = end, end + number.itemsize * math.prod(shape)
        header[name] = {"dtype": kinds[name], "shape": [*shape], "data_offsets": [begin, end]}
        places[name] = begin, end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    moved = {name: (start + begin, start + stop) for name, (begin, stop) in places.items()}
    return len(text).to_bytes(8, "little") + text, moved
