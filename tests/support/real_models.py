"""Where the real models are, for the tests that run them; they skip, and say so, where none is.

Each is a Hugging Face folder with the weights, the configuration and the tokenizer. Weights of one
name may differ by their quantisation: the known answers are those of 4-bit weights, dequantised.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "LENSNEURONS_MODELS"


def real_model(name: str) -> Path:
    """Return the folder of a real model, or skip the test with the reason.

    Args:
        name: a folder such as ``"gemma-3-270m"``.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        pytest.skip(f"no real model {name!r}: set {VARIABLE} to the folder that holds it")
    folder = Path(given) / name
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no real model {name!r} in {given}, which {VARIABLE} names")
    return folder
