"""The methods step of a study: its values, that it goes on, its plan, and what it refuses."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_studies import RATES, SIZES, SMALL, WORK, hashes, short_texts, stopped

from lensneurons.activations.items import item_activations
from lensneurons.cards.attribution import importance
from lensneurons.cards.method_agreement import importance_agreement
from lensneurons.cli import main
from lensneurons.comparison.coupled_layers import layer_coupling
from lensneurons.comparison.coupled_neurons import coupling
from lensneurons.errors import LensNeuronsError, ProvenanceError
from lensneurons.experiments.method_comparison import compare_methods
from lensneurons.neurons.identification import identify
from lensneurons.studies.methods_step import METHODS
from lensneurons.studies.plan import MEASURES, SINGLE_ITEMS, Plan, plan_steps
from lensneurons.studies.study import Study, study

step = import_module("lensneurons.studies.methods_step")
pytestmark = pytest.mark.filterwarnings("ignore:no other neurons are as active")

LANGUAGES = ["en", "zh"]
ASKED: dict[str, Any] = {
    **SMALL, "skip": ["lens", "effects", "cards"], "single_neurons": 12, "method_neurons": 3,
    "methods": ["average_precision", "lape", "plnd"],
}  # fmt: skip


@pytest.fixture(scope="module")
def texts():
    return short_texts(LANGUAGES)


@pytest.fixture(scope="module")
def finished(bridge, texts, tmp_path_factory) -> Study:
    """A study of a tiny random model, with the step."""
    return study(bridge("Llama"), texts, tmp_path_factory.mktemp("study") / "whole", **ASKED)


def test_its_values_are_those_of_the_functions(bridge, texts, finished):
    model, ids = bridge("Llama"), texts.ids
    counted, held_out = texts.select(ids=ids[:21]), texts.select(ids=ids[21:])
    items = item_activations(model, counted, progress=False)
    by_precision = identify(
        finished.statistics, method="average_precision", items=items, top_rate=0.2
    )
    rows = [k for k in LANGUAGES if len(by_precision[k]) and len(finished.chosen[k])]
    assert rows  # else nothing is tested
    methods = {
        "average_precision": by_precision,
        "lape": finished.chosen,
        "plnd": importance(model, counted),
    }
    told = compare_methods(
        model, held_out, methods, finished.chosen,
        number=3, languages=rows, controls=5, progress=False,
    )  # fmt: skip
    assert finished.methods is not None
    assert list(finished.methods.sets) == list(methods)
    assert finished.methods.sets == told.sets
    assert np.array_equal(finished.methods.matrix.effect, told.matrix.effect)
    assert set(finished.methods.matrix.item_ids) == set(held_out.ids)
    by_neuron, by_layer = coupling(items, finished.chosen), layer_coupling(items)
    assert np.array_equal(finished.coupling.neuron, by_neuron.neuron, equal_nan=True)
    assert np.array_equal(finished.coupling.pair_low, by_neuron.pair_low)
    assert np.array_equal(finished.layer_coupling.cka, by_layer.cka)
    alone = importance_agreement(
        model, counted.head(SINGLE_ITEMS), finished.chosen,
        number=12, methods=MEASURES, progress=False,
    )  # fmt: skip
    assert np.array_equal(finished.agreement.effect, alone.effect)
    assert np.array_equal(finished.agreement.value, alone.value)


def test_its_files_say_what_its_values_say(finished):
    numbers, folder = finished.numbers, finished.folder
    effects = finished.methods.to_pandas()
    told = pd.DataFrame(numbers["methods"]["effects"])
    assert told[["method", "figure"]].equals(effects[["method", "figure"]])
    assert told["low"].tolist() == effects["low"].tolist()
    assert (
        pd.read_csv(folder / "tables/methods.csv")["method"].unique().tolist() == ASKED["methods"]
    )
    assert numbers["coupling"]["items"] == 21
    layers = pd.read_csv(folder / "tables/coupling.csv")
    assert layers["estimate"].to_numpy() == pytest.approx(
        finished.coupling.estimate.ravel(), nan_ok=True
    )
    pair = numbers["coupling"]["pairs"][0]
    assert (pair["language"], pair["other"]) == ("en", "zh")
    assert pair["estimate"] == pytest.approx(finished.coupling.pair_estimate[0, 1])
    measured = pd.read_csv(folder / "tables/agreement.csv")
    assert measured["method"].unique().tolist() == list(MEASURES)
    assert not (folder / "methods" / "items.npy").exists()
    for name in ("methods", "methods-overlap", "coupling-pairs", "coupling-layers"):
        assert f"tables/{name}.csv" in numbers["files"]
    page = finished.page.read_text()
    for heading in ("Methods beside each other", "answered alike", "Which measure of importance"):
        assert heading in page


def test_a_finished_study_is_read_again(finished):
    again = Study.load(finished.folder)
    assert again.methods.sets == finished.methods.sets
    assert np.array_equal(again.coupling.neuron, finished.coupling.neuron, equal_nan=True)
    assert np.array_equal(again.layer_coupling.cosine, finished.layer_coupling.cosine)
    assert np.array_equal(again.agreement.effect, finished.agreement.effect)
    assert "3 methods compared" in repr(again)


STOPS = (
    "item_activations", "importance", "compare_methods", "coupling", "layer_coupling",
    "importance_agreement",
)  # fmt: skip


def test_a_step_that_was_stopped_everywhere_ends_with_the_same_bytes(
    bridge, texts, finished, tmp_path, monkeypatch
):
    """A folder begun without the step goes on with it, six times from the last stop."""
    model, folder = bridge("Llama"), tmp_path / "run"
    without = study(model, texts, folder, **{**ASKED, "methods": []})
    assert without.methods is without.agreement is None
    assert "methods" not in without.numbers
    for verb in STOPS:
        with monkeypatch.context() as patched:
            patched.setattr(step, verb, stopped(getattr(step, verb)))
            with pytest.raises(KeyboardInterrupt):
                study(model, texts, folder, **ASKED)
        assert not (folder / "methods" / "items.npy").exists()
    study(model, texts, folder, **ASKED)
    assert hashes(folder) == hashes(finished.folder)
    for other, named in (
        ({"methods": ["lape", "plnd"]}, "methods"),
        ({"method_neurons": 4}, "method_neurons"),
        ({"method_items": 20}, "method_items"),
        ({"single_neurons": 13}, "single_neurons"),
    ):
        with pytest.raises(ProvenanceError, match=named):
            study(model, texts, folder, **{**ASKED, **other})
    assert hashes(folder) == hashes(finished.folder)


def test_few_items_have_no_coupling_and_the_page_says_so(bridge, texts, tmp_path):
    options = {**ASKED, "method_items": 6, "methods": ["lape", "difference"]}
    found = study(bridge("Llama"), texts, tmp_path / "run", **options)
    assert found.coupling is found.layer_coupling is None
    assert found.agreement is not None
    assert "coupling" not in found.numbers
    assert "Coupling is left out: it takes 20 counted items or more" in found.page.read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"methods": ["lape"]}, r"methods=\['lape'\]: give two or more"),
        ({"methods": ["lape", "lape"]}, "each once"),
        ({"methods": ["lape", "script_lape"]}, "methods='script_lape'"),
        ({"method_items": 1}, "method_items=1: give 2 or more"),
        ({"method_neurons": 0}, "method_neurons=0: give 1"),
        ({"single_neurons": 9}, "single_neurons=9: give 10 or more"),
    ],
)
def test_bad_options_are_refused_before_any_work(options, told, bridge, texts, tmp_path):
    with pytest.raises(LensNeuronsError, match=told):
        study(bridge("Llama"), texts, tmp_path / "run", **{**ASKED, **options})
    assert not (tmp_path / "run").exists()


def test_the_plan_by_hand():
    given = {name: getattr(WORK, name) for name in WORK.__dataclass_fields__}
    work = type(WORK)(**{
        **given, "steps": ("methods",), "methods": ("lape", "average_precision", "plnd"),
        "method_items": 80, "single_neurons": 50,
    })  # fmt: skip
    rates = type(RATES)(0.01, 0.02, 0.05, 0.1, 3.0, np.nan, np.nan, 1.5, 40.0)
    (row,) = plan_steps(work, SIZES, rates)
    removed = 3 * 4 * 20 * (1 + 2)  # methods, rows, items, the set and its random ones
    scored = removed + 2 * 50 + 2 * 80  # and single neurons, and a measure on the items
    assert row.seconds == pytest.approx(200 * (scored * 0.02 + 80 * 0.01) + 40.0 * 4)
    assert row.texts == (scored + 80) * 4
    assert set(MEASURES) < set(METHODS)


def test_a_dry_run_names_the_step(bridge, texts, tmp_path):
    found = study(bridge("Llama"), texts, tmp_path / "run", dry_run=True, **ASKED)
    assert isinstance(found, Plan)
    assert [row.step for row in found] == ["counts", "neurons", "methods", "results"]
    assert all(row.seconds > 0 for row in found)
    assert not (tmp_path / "run").exists()


def test_the_command(tmp_path, capsys):
    asked = ["study", "demo", "--corpus", "demo", "--split", "test", "--limit", "26"]
    asked += [
        "--languages",
        "en,sw",
        "--out",
        str(tmp_path / "run"),
        "--skip",
        "lens,cards,effects",
    ]
    asked += ["--effect-items", "5", "--controls", "5", "--top-rate", "0.09"]
    assert main([*asked, "--dry-run", "--json", "--methods"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [one["step"] for one in steps] == ["counts", "neurons", "methods", "results"]
    assert main([*asked, "--methods", "lape,lap"]) == 2
    assert "average_precision" in capsys.readouterr().err
