"""A study: what it leaves, that it goes on where it was stopped, and what it refuses."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from hashlib import sha256
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from shuffled_pool import ShuffledPool
from small_studies import RATES, SIZES, SMALL, WORK, hashes, short_texts, stopped

from lensneurons.activations.collection import collect
from lensneurons.cli import main
from lensneurons.corpora.checks import CorpusWarning
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, ProvenanceError, StorageError
from lensneurons.evaluation import answers as answering
from lensneurons.evaluation import written_blocks
from lensneurons.evaluation.generation import Response
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.experiments.lens import logit_lens
from lensneurons.neurons.identification import identify
from lensneurons.studies.plan import LEAST, Plan, Rates, Work, fit, plan_steps
from lensneurons.studies.study import Study, study
from lensneurons.tokens.batches import item_groups

studying = import_module("lensneurons.studies.study")  # its name is also its function

LANGUAGES = ["en", "de", "zh"]


@pytest.fixture(scope="session")
def texts():
    return short_texts(LANGUAGES)


@pytest.fixture(scope="session")
def finished(bridge, texts, tmp_path_factory) -> Study:
    """A study of a tiny random model that ran through."""
    return study(bridge("Llama"), texts, tmp_path_factory.mktemp("study") / "whole", **SMALL)


# --- what it leaves ---


def test_its_values_are_those_of_the_functions(bridge, texts, finished):
    model, ids = bridge("Llama"), texts.ids
    statistics = collect(model, texts.select(ids=ids[:21]), progress=False)
    assert np.array_equal(finished.statistics.counts, statistics.counts)
    neurons = identify(statistics, score="lape", top_rate=0.2)
    assert np.array_equal(finished.chosen.selected, neurons.selected)
    counted = texts.select(ids=ids[:21])
    curves = logit_lens(model, counted.head(2), reference=counted)  # not of two items alone
    assert np.array_equal(finished.lens.mass, curves.mass)
    assert curves.vocabulary.tolist() != logit_lens(model, counted.head(2)).vocabulary.tolist()
    matrix = ablation_matrix(
        model, texts.select(ids=ids[21:]), neurons, classes=("specific", "related"), controls=5,
        match="own", progress=False,
    )  # fmt: skip
    assert np.array_equal(finished.effects["nll"].effect, matrix.effect)
    assert np.array_equal(finished.effects["nll"].control, matrix.control)
    assert set(finished.effects["nll"].item_ids).isdisjoint(ids[:21])  # held out


def test_its_files_say_what_its_values_say(finished):
    folder, numbers = finished.folder, finished.numbers
    layers = pd.read_csv(folder / "tables/layers.csv")
    profile = finished.chosen.layer_profile("all")
    assert layers[["specific", "related", "agnostic"]].to_numpy().tolist() == profile.tolist()
    assert numbers["layers"]["specific"] == profile[:, 0].tolist()
    assert numbers["histogram"] == finished.chosen.histogram("all").tolist()
    cells = np.array(numbers["effects"]["nll"]["cells"]["related"])
    assert cells == pytest.approx(finished.effects["nll"].cells("related"))
    assert numbers["model"]["weights"] == finished.statistics.provenance.weights
    for csv in (folder / "tables").glob("*.csv"):
        rows, columns = pd.read_parquet(csv.with_suffix(".parquet")).shape
        assert pd.read_csv(csv).shape == (rows, columns)
    halves = pd.read_csv(folder / "tables/stability-halves.csv")
    assert set(finished.statistics.languages) < set(numbers["stability"]["halves"])
    assert halves["neurons of"].tolist()[:3] == list(finished.statistics.languages)
    for name, told in numbers["files"].items():
        assert sha256((folder / name).read_bytes()).hexdigest() == told
    page = finished.page.read_text()
    assert "21 items of demo" in page
    assert "on 5 other items" in page
    steps = json.loads((folder / "timings.json").read_text())["steps"]
    assert {"plan", "counts", "neurons", "lens", "effects", "cards", "results"} <= set(steps)


def test_a_finished_study_is_read_again(finished):
    again = Study.load(finished.folder)
    assert np.array_equal(again.statistics.counts, finished.statistics.counts)
    assert again.score == "lape"
    assert set(again.effects) == {"nll"}
    assert [one.facts.name for one in again.cards] == sorted(
        one.facts.name for one in finished.cards
    )
    assert "page" in repr(again)
    assert again._repr_html_()


# --- going on, and refusing ---

# In the order in which a study calls them, each in another step.
STOPS = ("collect", "identify", "logit_lens", "ablation_matrix", "describe_all")


def test_a_study_that_was_stopped_in_every_step_ends_with_the_same_bytes(
    bridge, texts, finished, tmp_path, monkeypatch
):
    """It goes on five times, each time from where the last stop left it."""
    model = bridge("Llama")
    for verb in STOPS:
        with monkeypatch.context() as patched:
            patched.setattr(studying, verb, stopped(getattr(studying, verb)))
            with pytest.raises(KeyboardInterrupt):
                study(model, texts, tmp_path / "run", **SMALL)
        assert not (tmp_path / "run" / "study.json").exists()
    study(model, texts, tmp_path / "run", **SMALL)
    assert hashes(tmp_path / "run") == hashes(finished.folder)


def test_a_folder_of_another_study_is_refused_by_name(bridge, texts, finished):
    before = hashes(finished.folder)
    for other, named in (
        ({"seed": 1}, "seed"),
        ({"top_rate": 0.1}, "top_rate"),
        ({"effect_items": 6}, "effect_items"),
        ({"budget": 1e6}, "budget"),
    ):
        with pytest.raises(ProvenanceError, match=named):
            study(bridge("Llama"), texts, finished.folder, **{**SMALL, **other})
    with pytest.raises(ProvenanceError, match="corpora"):
        study(bridge("Llama"), texts.select(["de", "en"]), finished.folder, **SMALL)
    with pytest.raises(ProvenanceError, match="weights"):
        study(bridge("Qwen2"), texts, finished.folder, **SMALL)
    assert hashes(finished.folder) == before


def test_a_step_that_was_skipped_is_done_later(bridge, texts, finished, tmp_path):
    part = study(bridge("Llama"), texts, tmp_path / "run", skip=["effects", "cards"], **SMALL)
    assert not part.effects
    assert not part.cards
    study(bridge("Llama"), texts, tmp_path / "run", **SMALL)
    assert hashes(tmp_path / "run") == hashes(finished.folder)


def test_a_value_that_was_changed_is_refused(bridge, texts, finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    foreign = finished.neurons["lape"].with_population("all")
    foreign.save(tmp_path / "run" / "values" / "lape.safetensors")
    with pytest.raises(StorageError, match=r"lape\.safetensors was not written by this study"):
        study(bridge("Llama"), texts, tmp_path / "run", **SMALL)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"effect_items": 4}, "effect_items=4"),
        ({"items": 3}, "items=3"),
        ({"items": 24}, "24 were to be counted"),
        ({"skip": ["counts"]}, "skip"),
        ({"metric": ["bleu"]}, "metric"),
        ({"figures": ["gif"]}, "figures"),
        ({"budget": 0.0}, "budget"),
        ({"system": "Answer."}, "template"),
    ],
)
def test_bad_options_are_refused_before_any_work(options, told, bridge, texts, tmp_path):
    with pytest.raises(LensNeuronsError, match=told):
        study(bridge("Llama"), texts, tmp_path / "run", **{**SMALL, **options})
    assert not (tmp_path / "run").exists()


def test_items_without_a_language_are_refused(bridge, texts, tmp_path):
    rows = [item for item in texts if (item.id, item.language) != (texts.ids[0], "zh")]
    with pytest.warns(CorpusWarning, match="lacks 1"):
        corpus = build_corpus([
            {"id": i.id, "language": i.language, "prompt": i.prompt, "response": i.response}
            for i in rows
        ])  # fmt: skip
    with pytest.raises(CorpusError, match="lack a language"):
        study(bridge("Llama"), corpus, tmp_path / "run", **SMALL)


# --- answers, and a second model ---


@pytest.fixture
def bare(texts):
    """The same problems with bare numbers to answer them."""
    rows = [
        {"id": i.id, "language": i.language, "prompt": i.prompt, "response": str(n % 7)}
        for n, i in enumerate(texts)
    ]
    return build_corpus(rows, name="bare")


def test_bare_numbers_are_answered_first(bridge, bare, texts, tmp_path, monkeypatch):
    responses = {item.prompt: item.response for item in texts}
    silent = {item.prompt for item in texts if item.id == texts.ids[3]}

    def write(model, prompts, decoding, **options):
        return [Response("" if p in silent else responses[p], True, 9) for p in prompts]

    monkeypatch.setattr(answering, "write_responses", write)
    options = {**SMALL, "skip": ["lens", "cards"], "max_new_tokens": 4, "aligned": bridge("Llama")}
    found = study(bridge("Llama"), bare, tmp_path / "run", trained=["de"], **options)
    assert found.accuracy is not None
    assert len(found.accuracy) == 26 * 3
    kept = [one for one in texts.ids[:21] if one != texts.ids[3]]  # nobody answered it
    told = collect(bridge("Llama"), texts.select(ids=kept), progress=False)
    assert np.array_equal(found.statistics.counts, told.counts)
    assert found.aligned is not None
    assert np.array_equal(found.aligned.counts, told.counts)
    assert {row.verdict for row in found.claims["change"]} <= {"undecided", "does not hold"}
    difference = pd.read_csv(found.folder / "tables" / "accuracy-difference.csv")
    assert (difference["change"] == 0).all()


def test_workers_answer_and_count_what_one_process_does(bridge, bare, texts, tmp_path, monkeypatch):
    responses = {item.prompt: item.response for item in texts}

    def write(model, prompts, decoding, **options):
        return [Response(responses[p], True, 9) for p in prompts]

    options = {**SMALL, "skip": ["lens", "effects", "cards"], "max_new_tokens": 4}
    monkeypatch.setattr(answering, "write_responses", write)
    study(bridge("Llama"), bare, tmp_path / "local", **options)
    monkeypatch.setattr(answering, "write_responses", None)  # this process writes nothing now
    monkeypatch.setattr(written_blocks, "write_responses", write)
    monkeypatch.setattr(studying, "ray_started", lambda engine: nullcontext())
    pool = ShuffledPool(monkeypatch)
    study(bridge("Llama"), bare, tmp_path / "ray", engine="ray", **options)
    assert "prompts 0 to 77" in pool.did
    assert any(name.startswith("batches") for name in pool.did)
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")


# --- plan and budget ---


def test_the_plan_by_hand():
    found = {row.step: row for row in plan_steps(WORK, SIZES, RATES)}
    assert found["counts"].tokens == 300 * 200
    assert found["counts"].seconds == pytest.approx(300 * 200 * 0.01)
    passes = 3 * 4 * (1 + 2 * 2)  # settings, rows, the set and two draws of two controls
    assert found["effects"].texts == passes * 20 * 4
    assert found["effects"].seconds == pytest.approx(passes * 20 * 200 * 0.02)
    assert found["cards"].seconds == pytest.approx(20 * 200 * (0.1 + 8 * 0.02))
    assert found["lens"].seconds == pytest.approx(50 * 200 * 0.05)
    assert found["neurons"].seconds == 3


def test_writing_is_planned_by_steps_and_batches():
    work = Work(**{
        **{name: getattr(WORK, name) for name in Work.__dataclass_fields__},
        "steps": ("answers", "aligned"), "new_tokens": 100, "prompt_tokens": 100,
    })  # fmt: skip
    rates = Rates(0.01, 0.02, 0.05, 0.1, 3.0, 0.5, 0.01, 1.5)
    answers, aligned = plan_steps(work, SIZES, rates)
    texts, at_once = 320 * 4, 4 * 4096 // 200
    assert answers.texts == texts
    writing = -(-texts // at_once) * 100 * (0.5 + 0.01 * at_once)
    assert answers.seconds == pytest.approx(writing)
    assert aligned.texts == texts + 300 * 4  # the second model answers as well, and is counted
    assert aligned.seconds == pytest.approx(writing + 300 * 200 * 0.01)


def test_a_budget_cuts_no_deeper_than_intervals_allow():
    whole = sum(row.seconds for row in plan_steps(WORK, SIZES, RATES))
    assert fit(WORK, SIZES, RATES, whole) == (SIZES, ())
    least = sum(row.seconds for row in plan_steps(WORK, LEAST, RATES))
    for budget in (least, (least + whole) / 2, 0.99 * whole):
        sizes, cut = fit(WORK, SIZES, RATES, budget)
        assert sum(row.seconds for row in plan_steps(WORK, sizes, RATES)) <= budget
        assert cut
        assert f"of {SIZES.items}" in cut[0]
    with pytest.raises(LensNeuronsError, match="smallest study"):
        fit(WORK, SIZES, RATES, 0.9 * least)


def test_a_dry_run_writes_nothing_and_names_every_step(bridge, texts, tmp_path):
    found = study(bridge("Llama"), texts, tmp_path / "run", dry_run=True, **SMALL)
    assert isinstance(found, Plan)
    assert not (tmp_path / "run").exists()
    assert [row.step for row in found] == [
        "counts", "neurons", "lens", "effects", "cards", "results",
    ]  # fmt: skip
    assert all(row.seconds > 0 for row in found)


def test_a_plan_takes_long_texts_whose_first_items_share_a_half(
    bridge, texts, tmp_path, monkeypatch
):
    """Two items are a whole batch then, and half of all pairs of names fall into one half."""
    monkeypatch.setattr("lensneurons.studies.plan.PROBE_TOKENS", 1)
    ids = [texts.ids[i] for i in np.argsort(item_groups(texts.ids, 2), kind="stable")]
    assert len(set(item_groups(ids[:2], 2))) == 1
    assert study(bridge("Llama"), texts.select(ids=ids), tmp_path / "run", dry_run=True, **SMALL)


def test_a_budget_is_asked_once(bridge, texts, tmp_path, monkeypatch):
    """A study that goes on keeps the sizes that it chose, however fast the machine is now."""
    options = {**SMALL, "skip": ["lens", "cards", "effects"], "budget": 1e6}
    monkeypatch.setattr(studying, "fit", lambda work, sizes, *_: (LEAST, ("items: fewer",)))
    first = study(bridge("Llama"), texts, tmp_path / "run", **options)
    monkeypatch.setattr(studying, "fit", lambda work, sizes, *_: (sizes, ()))
    again = study(bridge("Llama"), texts, tmp_path / "run", **options)
    assert first.plan.sizes == again.plan.sizes == LEAST
    assert again.plan.cut == ("items: fewer",)


# --- the command ---


def test_the_command(tmp_path, capsys):
    asked = ["study", "demo", "--corpus", "demo", "--split", "test", "--limit", "26"]
    asked += ["--languages", "en,sw", "--out", str(tmp_path / "run"), "--skip", "lens,cards"]
    asked += ["--effect-items", "5", "--controls", "5", "--top-rate", "0.09"]
    asked += ["--classes", "specific", "--match", "layer"]
    assert main([*asked, "--dry-run"]) == 0
    assert "effects" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "page:" in out
    steps = [line.split(" ...")[0] for line in out.splitlines() if line.endswith(" ...")]
    assert steps == ["plan", "counts", "neurons", "effects", "results"]  # once each, no more
    assert main([*asked, "--json"]) == 0  # read, not done again
    assert json.loads(capsys.readouterr().out)["score"] == "lape"
    assert main([*asked, "--seed", "3"]) == 2
    assert "seed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*asked, "--budget", "soon"])
    assert "30m" in capsys.readouterr().err
