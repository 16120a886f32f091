"""Files of arrays that are too large for memory: written in place, whole or absent.

`save_arrays` needs its arrays in memory. Here they lie in the file from the start, as zeros, and
what a block puts into them goes to the disk; the result is the file that `save_arrays` would have
written, byte for byte:

>>> with filling_arrays(path, kind, {"counts": (np.int64, shape)}, {}) as arrays: # doctest: +SKIP
...     for layer in range(shape[0]):
...         arrays["counts"][layer] = count(layer)
...         let_go(arrays["counts"])

What this does not do: resume. A block that was killed leaves a temporary file, which the next one
in the same folder removes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.values.files import HEADER, arrays_checksum, header_text, replacing
from lensneurons.values.mapping import lay_out

_NO_SEAL = "0" * 32  # stands for a checksum that is not known yet


@contextmanager
def filling_arrays(
    path: str | Path,
    kind: str,
    shapes: Mapping[str, tuple[Any, tuple[int, ...]]],
    details: Mapping[str, Any],
) -> Iterator[dict[str, np.ndarray]]:
    """Yield arrays of zeros that lie in the file that `save_arrays` would write of them.

    What the block puts into them goes to the disk as memory needs it. Once the block has succeeded
    the file gets its checksum and its name; where it raises, nothing is left.

    Args:
        path: the file to write.
        kind: what the value is.
        shapes: name of each array to its number format and its shape.
        details: everything else, as JSON values.

    Raises:
        StorageError: the file cannot be written there, or the disk has not enough room; before
            the block begins.
    """
    numbers = {name: (np.dtype(number), shape) for name, (number, shape) in shapes.items()}
    text = header_text(kind, details, _NO_SEAL)
    start, places = lay_out(numbers, {HEADER: text})
    size = max([len(start), *(end for _, end in places.values())])
    with replacing(path) as temporary:
        with temporary.open("w+b") as file:
            file.write(start)
            file.truncate(size)
            file.flush()
            if hasattr(os, "posix_fallocate"):  # a disk that fills up later would kill the process
                os.posix_fallocate(file.fileno(), 0, size)
        arrays = {
            name: np.memmap(temporary, number, "r+", places[name][0], shape)
            if math.prod(shape)
            else np.zeros(shape, number)
            for name, (number, shape) in numbers.items()
        }
        yield arrays
        seal = arrays_checksum(kind, arrays, details)
        for array in arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        arrays.clear()
        with temporary.open("r+b") as file:
            file.write(lay_out(numbers, {HEADER: header_text(kind, details, seal)})[0])
