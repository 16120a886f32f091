"""GGUF files: the quantised weights of llama.cpp, read as the float weights that they stand for.

    model = ln.load_model("qwen2.5-0.5b-q4_k_m.gguf")         # needs the extra gguf

Transformers multiplies every block by its scale; what comes out is a plain model, with the same
hooks as any other. The file brings its own configuration and tokenizer. Its numbers are those of
the quantised model, not of the one that it was made from: 4 bits a weight change signs and answers.
So the provenance names the types of the weights, the largest share first (``"GGUF Q4_K, Q6_K"``).

What it does not read: files that are one part of several, and architectures that transformers
cannot take from a GGUF file.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.identity import first_sentence

SUFFIX = ".gguf"


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that a path is, or that its folder holds in place of ``config.json``.

    Raises:
        ModelError: the folder holds several.
    """
    if os.path.isfile(path):  # False also for a name that is too long
        return path if path.suffix.lower() == SUFFIX else None
    if not os.path.isdir(path) or (path / "config.json").is_file():
        return None
    held = sorted(file for file in path.iterdir() if file.suffix.lower() == SUFFIX)
    if len(held) > 1:
        names = ", ".join(file.name for file in held[:5])
        raise ModelError(f"{path} holds {len(held)} GGUF files ({names}): give the path of one")
    return held[0] if held else None


def gguf_types(path: Path) -> str:
    """The types of the weights in a file, the largest share first: ``"GGUF Q8_0, F32"``.

    Raises:
        LensNeuronsError: the package gguf is not installed.
        ModelError: the file is cut off, or no GGUF file.
    """
    return _types(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # reading a vocabulary of 152,000 words takes seconds
def _types(path: Path, changed: int) -> str:
    try:
        reading = import_module("gguf")
    except ImportError:
        raise LensNeuronsError(
            "GGUF files need gguf, which is not installed: pip install 'lensneurons[gguf]'"
        ) from None
    numbers: Counter[str] = Counter()
    try:
        reader = reading.GGUFReader(path)
        for tensor in reader.tensors:
            numbers[tensor.tensor_type.name] += int(tensor.n_elements)
        parts = reader.get_field("split.count")
    except Exception as error:  # a damaged file ends anywhere in its reader
        raise ModelError(
            f"{path} could not be read as GGUF, it is damaged or cut off: {first_sentence(error)}; "
            "copy or download it again"
        ) from error
    if parts is not None and int(parts.contents()) > 1:
        raise ModelError(
            f"{path} is one of {parts.contents()} parts: join them (llama-gguf-split --merge)"
        )
    return f"GGUF {', '.join(name for name, _ in numbers.most_common())}"
