"""A series of short runs: read from a file, killed and gone on with, and put into one table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from lensneurons.demo.workshop import series
from lensneurons.demo.workshop.model import build_model
from lensneurons.demo.workshop.recipe import Recipe
from lensneurons.demo.workshop.series import RUNS, TABLE, main, read_runs
from lensneurons.demo.workshop.tokenizer import train_tokenizer
from lensneurons.demo.world import LANGUAGES
from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.ablation import ablation_matrix

TINY = """
[changes.base]
n_layers = 5
width = 32
n_heads = 2
d_mlp = 32
vocabulary = 600
tokenizer_items = 30
steps = 6
items = 6
warm_up = 1
validate_every = 1
validation_items = 1
[changes.new]
firing_target = 0.1
steer_from = 2
tied = false
meetings = { answer = 0.3, translate = 0.2 }
[runs]
plain = []
new = ["new"]
"""
# A measurement of few texts, in this process or another.
FEW = {"COUNTED": 6, "ANSWERED": 1, "REMOVED": 5, "CONTROLS": 1, "LONGEST": 4}
ROWS = ["en", "zh"]  # whose neurons are removed


def test_the_prepared_series_has_what_was_to_be_varied_and_no_model_is_too_large() -> None:
    runs = read_runs(RUNS)
    assert len(runs) >= 8
    assert len({repr(recipe) for recipe in runs.values()}) == len(runs)
    tokenizer = train_tokenizer(1024, 100, 384)
    for recipe in runs.values():
        assert (recipe.steps, recipe.seed) == (500, 0)
        size = sum(weight.numel() for weight in build_model(recipe, tokenizer).parameters())
        assert size <= 4_000_000
    present = runs["present"]
    world = ("shares", "worked", "meetings", "long_share", "word_drills", "gate", "tied")
    assert all(getattr(present, key) == getattr(Recipe(), key) for key in world)
    for key in ("meetings", "firing_target", "gate", "n_layers", "d_mlp", "worked", "long_share"):
        assert len({repr(getattr(recipe, key)) for recipe in runs.values()}) > 1
    assert sum(sum(recipe.meetings.values()) == 0.5 for recipe in runs.values()) >= 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[changes.base]\n[runs]\na = ["b"]\n', "a change of the run a='b'"),
        ("[changes.base]\nlayers = 3\n[runs]\na = []\n", "a setting of the run a='layers'"),
        ("[changes.base]\nsteps = 0\n[runs]\na = []\n", "steps=0"),
    ],
)
def test_a_file_that_makes_no_runs_is_refused(tmp_path, text, message, capsys) -> None:
    path = tmp_path / "runs.toml"
    path.write_text(text)
    with pytest.raises(LensNeuronsError, match=message):
        read_runs(path)
    assert main([str(tmp_path / "out"), "--runs", str(path)]) == 2
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err


def test_a_killed_series_goes_on_to_the_same_weights_and_table(tmp_path, monkeypatch) -> None:
    for name, value in FEW.items():
        monkeypatch.setattr(series, name, value)
    monkeypatch.setattr(series, "ablation_matrix", partial(ablation_matrix, languages=ROWS))
    (tmp_path / "runs.toml").write_text(TINY)
    threads = torch.get_num_threads()
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    assert main([str(whole), "--runs", str(tmp_path / "runs.toml")]) == 0
    arguments = [str(killed), "--runs", str(tmp_path / "runs.toml")]
    code = "\n".join([
        "from functools import partial",
        "from lensneurons.demo.workshop import series",
        *(f"series.{name} = {value}" for name, value in FEW.items()),
        f"series.ablation_matrix = partial(series.ablation_matrix, languages={ROWS})",
        f"series.main({arguments})",
    ])  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (killed / "new" / "checkpoint.safetensors").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "new" / "measured.json").exists()
    measured = (killed / "plain" / "measured.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (killed / "plain" / "measured.json").stat().st_mtime_ns == measured  # not again
    torch.set_num_threads(threads)
    for run in ("plain", "new"):
        weights = [(folder / run / "model.safetensors").read_bytes() for folder in (whole, killed)]
        assert weights[0] == weights[1]
    tables = [read_table(folder / TABLE) for folder in (whole, killed)]
    assert tables[0] == tables[1]


def read_table(path: Path) -> str:
    """The table without the run time."""
    text = path.read_text(encoding="utf-8")
    assert "2 of 2 runs are finished" in text
    return "\n".join(row for row in text.splitlines() if "," not in row)


def test_every_figure_of_the_table_stands_under_its_name(tmp_path) -> None:
    """JSON sorts its keys, so no column may trust their order."""
    figures = {name: place / 8 for place, name in enumerate(series.FIGURES)}
    by_language = {code: place / 4 for place, code in enumerate(LANGUAGES)}
    found = {
        "parameters": 1234567, "tokens": 50, "seconds": 120.0, "tau": 0.125, "firing": [0.5, 0.25],
        "profile": [[1, 2, 3], [4, 5, 6]], "histogram": list(range(11)), "parts": [1, 4],
        "told": "two parts", "nll": by_language, "right": by_language, "worked": by_language,
        "effects": figures,
    }  # fmt: skip
    series.save_json(tmp_path / "one" / series.MEASURED, found, sealed=False)
    series.write_table({"one": Recipe(), "other": Recipe(seed=1)}, tmp_path)
    text = (tmp_path / TABLE).read_text()
    assert "1 of 2 runs" in text
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    shown = {}
    for place, row in enumerate(rows):
        if row[0] == "run" and len(row) > 1 and rows[place + 1][0] == "---":
            shown |= {(place, i, name): rows[place + 2][i] for i, name in enumerate(row)}
    named = [(name, value) for (_, _, name), value in shown.items()]
    for code, value in by_language.items():
        assert named.count((code, f"{value:.2f}")) == 3
    values = [value for name, value in named if name in series.FIGURES.values()]
    assert values == [f"{value:.2f}" for value in figures.values()]
    assert ("specific", "1 4") in named
    assert ("agnostic", "3 6") in named
    assert ("parts found", "1 4") in named
    assert ("N = 10", "10") in named
    assert ("layers", "50.0 25.0") in named
    assert "* one: two parts" in text
