"""Alignments of several trainings in one table: each seed by itself, and all of them together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from planted_answers import planted

from lensneurons.demo.workshop.seeds import main, over_seeds


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Outcomes of three seeds: Chinese gains 8, 12 and 4 of 40 problems, the control 2 in each."""
    for seed, gain in zip("345", (8, 12, 4), strict=True):
        base, run = planted({"zh": gain, "ru": 7})
        _, control = planted({"zh": 2})
        for name, one in {"base": base, "zh-de": run, "zh-de-random": control}.items():
            one.save(tmp_path / seed / name / one.RUN_FILE)
    return [f"{seed}={tmp_path / seed}" for seed in "345"]


def test_seeds_stand_beside_each_other_and_beyond_their_controls(folders, capsys) -> None:
    assert main(folders) == 0
    text = capsys.readouterr().out
    assert "| Right answer in the right language | languages | seed 3 | seed 4 | seed 5 |" in text

    def middles(row: str) -> list[list[str]]:
        lines = re.findall(rf"^\| {row} \| (.*) \|$", text, re.MULTILINE)
        return [[cell.split()[0] for cell in line.split(" | ")] for line in lines]

    right, worked = middles(r"zh-de \| trained")  # zh and de together: half of what zh gained
    assert right == ["+10.0", "+15.0", "+5.0", "+10.0"]
    assert worked == ["-10.0", "-15.0", "-5.0", "-10.0"]
    assert middles(r"zh-de \| untouched")[0] == ["+2.5"] * 4
    assert middles(r"zh-de less zh-de-random \| trained")[0] == ["+7.5", "+12.5", "+2.5", "+7.5"]
    assert middles(r"zh-de-random less .*") == []


def test_a_seed_alone_has_no_interval_over_seeds(folders, capsys) -> None:
    assert main(folders[:1]) == 0
    text = capsys.readouterr().out
    assert "nan" not in text
    assert re.search(
        r"^\| zh-de \| trained \| \+10\.0 \([^)]+\) \| \+10\.0 \|$", text, re.MULTILINE
    )


def test_the_mean_over_seeds_has_students_interval() -> None:
    mean, low, high = over_seeds([0.1, 0.15, 0.05])
    half = 4.302653 * 0.05 / 3**0.5  # t of two degrees of freedom
    assert (mean, low, high) == pytest.approx((0.1, 0.1 - half, 0.1 + half), abs=1e-6)
    assert np.isnan(over_seeds([0.1])[1:]).all()


def test_what_cannot_be_compared_is_said(folders, tmp_path, capsys) -> None:
    assert main(["3", folders[1]]) == 2
    assert "SEED=FOLDER" in capsys.readouterr().err
    (tmp_path / "5" / "zh-de").rename(tmp_path / "5" / "all")
    assert main(folders) == 2
    assert "same runs" in capsys.readouterr().err
    assert main([f"3={tmp_path / 'none'}"]) == 2
    assert "none" in capsys.readouterr().err
