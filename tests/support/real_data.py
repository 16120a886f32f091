"""Where the real data is, for the tests that read it; they skip, and say so, where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "LENSNEURONS_DATA"


def find_data(name: str) -> Path | None:
    """Return the folder of a real data set, or None where there is none."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get(VARIABLE) or beside) / name
    return folder if folder.is_dir() else None


def real_data(name: str) -> Path:
    """Return the folder of a real data set, or skip the test with the reason.

    Args:
        name: a folder such as ``"mgsm"``.
    """
    folder = find_data(name)
    if folder is None:
        pytest.skip(f"no real data {name!r}: set {VARIABLE} to the folder that holds it")
    return folder
