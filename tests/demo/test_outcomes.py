"""What alignments did to answers: groups of languages, paired changes, and resumed answers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from planted_answers import ITEMS, planted

from lensneurons.demo.workshop import outcomes
from lensneurons.demo.workshop.align import groups_of
from lensneurons.demo.workshop.outcomes import (
    answer_all,
    compare_means,
    main,
    verdicts,
    write_tables,
)
from lensneurons.demo.world import LANGUAGES
from lensneurons.errors import LensNeuronsError


def test_a_run_trains_what_its_name_says_and_leaves_the_rest_but_english() -> None:
    groups = groups_of("zh-de-mlp-shuffled")
    assert groups["trained"] == ("zh", "de")
    assert set(groups["untouched"]) == set(LANGUAGES) - {"zh", "de", "en"}
    assert groups_of("all")["untouched"] == ()
    with pytest.raises(LensNeuronsError, match="sw-th"):
        groups_of("zh-sw")


def test_changes_are_paired_means_of_the_languages_of_a_group() -> None:
    base, run = planted({"zh": 8, "de": 4, "ru": 2})
    before, after = verdicts(base, "right"), verdicts(run, "right")
    assert before.shape == (len(LANGUAGES), ITEMS)
    estimate, low, high = compare_means(before, after, ["zh", "de"])
    assert estimate == pytest.approx((8 + 4) / 2 / ITEMS)
    assert low < estimate < high
    still, low, high = compare_means(before, after, ["th"])  # nobody changed, of 40 problems
    assert low < still == 0 < high
    worked = compare_means(verdicts(base, "worked"), verdicts(run, "worked"), ["zh", "de"])
    assert worked[0] == pytest.approx(-estimate)


def test_tables_hold_every_language_and_what_lies_beyond_the_controls() -> None:
    base, run = planted({"zh": 8, "de": 4, "ru": 7})
    _, coin = planted({"zh": 2})
    text = write_tables({"base": base, "zh-de": run, "zh-de-shuffled": coin})
    rows = re.findall(r"^\| zh-de \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 2
    cells = [cell.strip() for cell in rows[0].split("|")]
    shown = dict(zip((*LANGUAGES, "trained", "untouched"), cells, strict=True))
    assert shown["zh"].startswith("**+20.0 (")
    assert shown["de"].startswith("**+10.0 (")
    assert shown["ru"].startswith("+17.5 (")
    assert shown["trained"].startswith("+15.0 (")
    assert shown["untouched"].startswith("+2.5 (")
    beyond = re.findall(r"^\* zh-de beyond its control shuffled: ([+-][\d.]+)", text, re.MULTILINE)
    assert beyond == ["+12.5", "-12.5"]  # right answers, then worked ones
    assert "| base | 50.0 |" in text


def test_answers_are_kept_and_the_tables_written(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(outcomes, "LONGEST", 6)
    arguments = ["demo", str(tmp_path), "--run", "zh-de=zh-de", "--problems", "2", "--threads", "1"]
    assert main([*arguments, "--split", "validation"]) == 0
    text = (tmp_path / "outcomes.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == str(tmp_path / "outcomes.md")
    assert "| base |" in text
    assert "| zh-de |" in text

    def write(*_: Any, **__: Any) -> Any:
        raise AssertionError("everything is answered")

    monkeypatch.setattr("lensneurons.evaluation.answers.write_responses", write)
    again = answer_all("demo", {"zh-de": "zh-de"}, tmp_path, split="validation", problems=2)
    assert write_tables(again) == text
    assert {one.decoding.temperature for one in again.values()} == {1.0}  # drawn by default
    assert main(["demo", str(tmp_path), "--run", "x=zh-de"]) == 2
    assert "begin its name" in capsys.readouterr().err
