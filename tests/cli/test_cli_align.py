"""The commands `align` and `compare`: what they write and print, and how they end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import before_after
import pandas as pd
import pytest

from lensneurons.alignment.controls import random_adapter
from lensneurons.alignment.pairs import PreferencePairs
from lensneurons.alignment.responses import SampledResponses, ScoredResponses
from lensneurons.alignment.training import Alignment
from lensneurons.cli import main
from lensneurons.comparison.before_after import Comparison, compare
from lensneurons.comparison.paper_claims import Claims, claims

ALIGN = [
    "align", "demo", "--corpus", "demo", "--split", "train", "--limit", "5", "--languages", "zh",
    "--samples", "4", "--max-new-tokens", "60", "--steps", "2", "--batch", "4", "--rank", "2",
    "--alpha", "4", "--learning-rate", "1e-4", "--checkpoint-every", "1", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def aligned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("align") / "run"
    assert main([*ALIGN, "--out", str(folder)]) == 0
    return folder


def test_align_leaves_a_file_for_every_step_and_takes_them_up_again(aligned, capsys):
    responses = SampledResponses.load(aligned / "responses")
    scored = ScoredResponses.load(aligned / "scores")
    pairs = PreferencePairs.load(aligned / "pairs.jsonl")
    run = Alignment.load(aligned / "adapter")
    assert len(responses) == len(scored) == 20
    assert responses.languages == pairs.languages == ("zh",)
    assert (run.settings.steps, run.settings.rank, list(run.checkpoints)) == (2, 2, [1, 2])
    before = {path: path.stat().st_mtime_ns for path in aligned.rglob("checkpoint-*/*")}
    assert main([*ALIGN, "--out", str(aligned)]) == 0
    assert {path: path.stat().st_mtime_ns for path in aligned.rglob("checkpoint-*/*")} == before
    assert f"adapter: {aligned / 'adapter'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [(["--rank", "3"], "rank: 2, now 3"), (["--temperature", "0.9"], "temperature: 1.0, now 0.9")],
)
def test_another_plan_is_refused(aligned, tmp_path, capsys, change, told):
    folder = shutil.copytree(aligned, tmp_path / "run")
    assert main([*ALIGN, "--out", str(folder), *change]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--languages", "xx"], "is not a language code"),
        (["--batch", "6"], "micro_batch=4 does not divide batch=6"),
        (["--languages", "en"], "'en' is the pivot, which the others are aligned to"),
        (["--learning-rate", "inf"], "learning_rate=inf is not a finite number"),
        (["--beta", "nan"], "beta=nan is not a finite number"),
        (["--temperature", "inf"], "temperature=inf is not a finite number"),
        (["--samples", "1"], "at least 2 samples"),
        (["--scorer", "/nowhere"], "could not be loaded"),
        (["--shots", "demo", "--n-shots", "101"], "give fewer shots, or leave long prompts out"),
        (["--n-shots", "2"], "give --shots too"),
    ],
)
def test_align_refuses_in_one_line(tmp_path, capsys, wrong, told):
    assert main([*ALIGN, "--out", str(tmp_path / "run"), *wrong]) == 2
    error = capsys.readouterr().err
    assert told in error
    refusal = [line for line in error.splitlines() if line and "Loading weights" not in line]
    assert len(refusal) == 1


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    first, second = before_after.runs(before_after.plan())
    return first.save(folder / "a.safetensors"), second.save(folder / "b.safetensors")


def test_compare_prints_and_writes_what_the_functions_give(planned, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["compare", *map(str, planned), "--trained", "zh,de", "--tau", "0.5"]
    assert main([*asked, "--out", str(out)]) == 0
    pair = before_after.runs(before_after.plan())
    found = compare(*pair, tau=0.5, trained=["zh", "de"])
    printed = capsys.readouterr().out
    assert found.to_text() in printed
    assert all(claim.claim in printed for claim in claims(found))
    kept = Comparison.load(out / "comparison.safetensors")
    assert kept.transitions.tolist() == found.transitions.tolist()
    judged = [claim.claim for claim in Claims.load(out / "claims.json")]
    assert len(judged) > 10
    table = pd.read_csv(out / "histogram.csv")
    assert table["before"].tolist() == found.to_pandas("histogram")["before"].tolist()
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["claim"] for row in told["claims"]} == set(judged)


def test_compare_names_what_differs(planned, tmp_path, capsys):
    five = before_after.LANGUAGES[:5]
    rows = [row for row in before_after.plan() if {*row[1], *row[2]} <= set(five)]
    other = before_after.runs(rows, languages=five)[1]
    path = other.save(tmp_path / "other.safetensors")
    assert main(["compare", str(planned[0]), str(path)]) == 2
    assert "languages" in capsys.readouterr().err


def test_a_random_adapter_of_a_name_is_that_of_the_function(tmp_path, capsys):
    assert main(["random-adapter", "sw-th", "--seed", "3", "--out", str(tmp_path / "cli")]) == 0
    assert capsys.readouterr().out == f"adapter: {tmp_path / 'cli'}\n"
    ours = random_adapter("sw-th", tmp_path / "ours", seed=3)
    name = "adapter_model.safetensors"
    assert (tmp_path / "cli" / name).read_bytes() == (ours / name).read_bytes()


def test_an_adapter_is_collected_and_compared(tmp_path, capsys):
    """The way of a user: two runs of one corpus, one with an adapter, and what changed."""
    runs = [tmp_path / name for name in ("base", "aligned")]
    asked = ["collect", "demo", "--corpus", "demo", "--limit", "6", "--languages", "en,th,sw"]
    for run, more in zip(runs, ([], ["--adapter", "sw-th"]), strict=True):
        assert main([*asked, "--device", "cpu", "--groups", "3", "--out", str(run), *more]) == 0
    assert main(["compare", *map(str, runs), "--trained", "th,sw", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert any("trained" in row["claim"] for row in told["claims"])
    assert main([*asked, "--out", str(tmp_path / "x"), "--adapter", "sw-tt"]) == 2
    assert "Did you mean 'sw-th'" in capsys.readouterr().err
