"""Sites other than dense neurons on the command line, from `collect` to `report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from edited import logits_of, plain_model

from lensneurons.activations.sites import SITES
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cli import main, options
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.interventions.editing import ablate
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify

pytestmark = [
    pytest.mark.filterwarnings("ignore::lensneurons.errors.ControlWarning"),
    pytest.mark.filterwarnings("ignore::lensneurons.errors.EmptySetWarning"),
]
# Many neurons, so that every class has some.
CHOSEN = ["--score", "lape", "--tau", "0.2", "--top-rate", "0.1"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> str:
    """The tiny corpus as a file."""
    rows = [
        {
            "id": one.id,
            "language": one.language,
            "prompt": one.prompt,
            "response": one.response,
        }
        for one in tiny.tiny_corpus()
    ]
    file = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(file)


def run(*arguments: Any) -> None:
    """Run a command that succeeds."""
    assert main([str(one) for one in arguments]) == 0


def test_the_choices_are_the_table_of_sites() -> None:
    assert tuple(SITES) == options.SITES


@pytest.mark.parametrize(
    ("architecture", "site"),
    [("Qwen3Moe", "expert_neurons"), ("Mixtral", "experts"), ("Llama", "v")],
)
def test_a_site_goes_through_every_command(
    architecture: str, site: str, model_folder: Any, texts: str, tmp_path: Path, capsys: Any
) -> None:
    model, counted = model_folder(architecture), tmp_path / "run"
    run("collect", model, "--corpus", texts, "--site", site, "--out", counted)
    found = ActivationStatistics.load(counted)
    unit = found.provenance.unit
    run("identify", counted, *CHOSEN, "--out", tmp_path / "neurons")
    assert f"{unit}s" in capsys.readouterr().out
    neurons = identify(found, score="lape", tau=0.2, top_rate=0.1)
    language = max(neurons.languages, key=lambda k: len(neurons[k]))
    given = ["--languages", language, "--classes", "specific,related"]
    run(
        *("ablate", model, counted, "--corpus", texts, *CHOSEN, *given, "--match", "layer"),
        *("--controls", "4", "--out", tmp_path / "effects"),
    )
    matrix = AblationMatrix.load(tmp_path / "effects" / "nll")
    assert matrix.provenance.unit == unit
    assert np.abs(matrix.effect).max() > 1e-5
    run("export", model, counted, *CHOSEN, *given, "--out", tmp_path / "without")
    whole = load_model(model, device="cpu")
    with ablate(whole, neurons[language]):
        wanted = logits_of(whole)
    difference = (logits_of(plain_model(tmp_path / "without")) - wanted).abs().max()
    assert difference <= 5e-6 * wanted.abs().max()
    records = ["records", model, counted, "--corpus", texts, *CHOSEN, *given]
    records += ["--top", "2", "--random", "2", "--out", tmp_path / "records"]
    if site == "experts":
        assert main([str(one) for one in records]) == 2
        assert "experts have no activation that a record could hold" in capsys.readouterr().err
    else:
        run(*records)
        about = json.loads((tmp_path / "records" / "lensneurons.json").read_text())
        assert about["neurons"] == neurons[language].names
    run("report", counted, tmp_path / "effects", *CHOSEN, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"Every language {unit}" in page


def test_branches_are_counted_and_shown(
    model_folder: Any, texts: str, tmp_path: Path, capsys: Any
) -> None:
    model, counted = model_folder("Llama"), tmp_path / "run"
    run("collect", model, "--corpus", texts, "--branches", "--out", counted)
    assert ActivationStatistics.load(counted).branches.shape == (3, 52, 3, 4)
    capsys.readouterr()
    run("describe", model, counted, "L1N7", "--corpus", texts, "--limit", "2", *CHOSEN)
    assert "gate +, linear -" in capsys.readouterr().out
