"""Preference optimization, against a loss worked out with plain Hugging Face."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lensneurons.activations.collection import collect
from lensneurons.alignment import checkpoints, training
from lensneurons.alignment.pairs import PreferencePair, PreferencePairs, preference_pairs
from lensneurons.alignment.responses import respond, score_responses
from lensneurons.alignment.training import Alignment, align, split_pairs, target_modules
from lensneurons.comparison.before_after import compare
from lensneurons.comparison.paper_claims import claims
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import (
    CorpusError,
    LensNeuronsError,
    ModelError,
    ProvenanceError,
    StorageError,
    StorageWarning,
)
from lensneurons.models.loading import load_model
from lensneurons.plots import alignment_curves
from lensneurons.values.files import load_json, save_json
from lensneurons.values.provenance import Provenance

TEXTS = ["the cat sat", "小明有三个苹果", "แมวนั่งบนเสื่อ", "nine apples"]
PAIRS = PreferencePairs(
    tuple(
        PreferencePair(f"i{n}", ("en", "zh", "th")[n % 3], f"{TEXTS[n % 4]} {n}\n",
                       f"twice {n}", f"before dinner {n + 1}", 1.0, 0.0)
        for n in range(20)
    ),
    "en", "hand", Provenance(model="hand"),
)  # fmt: skip
OPTIONS = {
    "steps": 6, "batch": 4, "micro_batch": 2, "learning_rate": 1e-2, "rank": 3, "alpha": 6,
    "checkpoint_every": 2, "held_out": 0.2, "device": "cpu", "progress": False,
}  # fmt: skip
# The linear maps of each family's attention, written down here from Hugging Face's code.
FAMILIES = {
    **dict.fromkeys(
        ("Llama", "Gemma2", "Qwen3"), ("self_attn.", ["q_proj", "k_proj", "v_proj", "o_proj"])
    ),
    "Phi3": ("self_attn.", ["qkv_proj", "o_proj"]),
    "Phi": ("self_attn.", ["q_proj", "k_proj", "v_proj", "dense"]),
    "GPT2": ("attn.", ["c_attn", "c_proj"]),
    "GPTNeoX": ("attention.", ["query_key_value", "dense"]),
    **dict.fromkeys(("Bloom", "Falcon"), ("self_attention.", ["query_key_value", "dense"])),
    **dict.fromkeys(("OPT", "XGLM"), ("self_attn.", ["q_proj", "k_proj", "v_proj", "out_proj"])),
    "GPTJ": ("attn.", ["q_proj", "k_proj", "v_proj", "out_proj"]),
}


@pytest.fixture(scope="module")
def run(model_folder, tmp_path_factory) -> Alignment:
    return align(model_folder("Llama"), PAIRS, tmp_path_factory.mktemp("runs") / "run", **OPTIONS)


@pytest.fixture(scope="module")
def adapted(run, model_folder):
    return load_model(model_folder("Llama"), adapter=run.folder, device="cpu")


def answer_likelihood(model, prompt: str, answer: str) -> float:
    """Sum of the log likelihoods of an answer and the end token after it."""
    tokenizer = tiny.byte_tokenizer(bos=True)
    asked = tokenizer(prompt)["input_ids"]
    ids = tokenizer(prompt + answer + tokenizer.eos_token)["input_ids"]
    assert ids[: len(asked)] == asked
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logits[range(len(ids) - 1), ids[1:]][len(asked) - 1 :].sum().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_is_on_the_attention_alone(family):
    model = tiny.random_model(family)
    expression = re.compile(target_modules(model, "attention"))
    owner, names = FAMILIES[family]
    matched = [name for name, _ in model.named_modules() if expression.fullmatch(name)]
    assert len(matched) == tiny.LAYERS * len(names)
    assert all(name.endswith(tuple(owner + one for one in names)) for name in matched)


def test_modules_can_be_named_and_unknown_ones_are_refused():
    model = tiny.random_model("Llama")
    expression = re.compile(target_modules(model, ["down_proj", "q_proj"]))
    matched = {n.split(".")[-1] for n, _ in model.named_modules() if expression.fullmatch(n)}
    assert matched == {"down_proj", "q_proj"}
    with pytest.raises(ModelError, match="LlamaForCausalLM has no linear map 'c_attn'; it has"):
        target_modules(model, "c_attn")


def test_the_log_tells_the_loss_of_the_adapter_on_pairs_it_never_saw(run, adapted, model_folder):
    """Margin, accuracy and loss of the last checkpoint, pair by pair, by plain Hugging Face."""
    base = AutoModelForCausalLM.from_pretrained(model_folder("Llama")).eval()
    _, held_out = split_pairs(PAIRS, 0.2, 0)
    assert len(held_out) == 4
    margins = []
    for pair in held_out:
        chosen, rejected = (
            answer_likelihood(adapted.original_model, pair.prompt, text)
            - answer_likelihood(base, pair.prompt, text)
            for text in (pair.chosen, pair.rejected)
        )
        margins.append(0.1 * (chosen - rejected))
    last = run.to_pandas().query("pairs == 'held out'").iloc[-1]
    assert last["step"] == 6
    assert np.isclose(last["margin"], np.mean(margins), atol=1e-4)
    assert np.isclose(last["accuracy"], np.mean(np.array(margins) > 0))
    assert np.isclose(last["loss"], np.mean(np.log1p(np.exp(-np.array(margins)))), atol=1e-4)


def test_training_raises_the_margin(run):
    trained = run.to_pandas().query("pairs == 'trained'")
    assert trained["step"].tolist() == [2, 4, 6]
    # The rate of the first step is 0, so both rows of its margin are those of the base model.
    assert trained["margin"].iloc[0] == 0
    assert np.isclose(trained["loss"].iloc[0], np.log(2))
    assert trained["margin"].is_monotonic_increasing
    assert trained["loss"].is_monotonic_decreasing
    assert list(run.checkpoints) == [2, 4, 6]
    assert run.n_pairs == 16


def test_a_run_on_shuffled_pairs_says_that_it_is_a_control(run, model_folder, tmp_path):
    assert run.preferences == "as scored"
    assert "CONTROL" not in repr(run)
    options = OPTIONS | {"steps": 2}
    control = align(model_folder("Llama"), PAIRS.shuffled(seed=3), tmp_path / "run", **options)
    read = Alignment.load(control.folder)
    assert control.preferences == read.preferences == "shuffled"
    assert "CONTROL, preferences shuffled: 2 steps" in repr(read)
    for folder in (control.folder, control.checkpoints[2]):
        assert load_json(folder / checkpoints.MARK)["control"] == "shuffled pairs, seed 3"
        model = load_model(model_folder("Llama"), adapter=folder, device="cpu")
        assert model.cfg.model_name.endswith("(control: shuffled pairs, seed 3)")
    # an alignment of an earlier lensneurons does not say
    details = load_json(control.folder / Alignment.RUN_FILE)
    del details["preferences"]
    save_json(control.folder / Alignment.RUN_FILE, details)
    assert Alignment.load(control.folder).preferences == "unknown"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("where", ["", "checkpoint-4"])
def test_a_flipped_bit_of_a_finished_adapter_is_refused(run, model_folder, tmp_path, where, name):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    for other in ("optimizer.pt", "README.md"):  # not needed to load it
        (folder / where / other).unlink(missing_ok=True)
    load_model(model_folder("Llama"), adapter=folder / where, device="cpu")
    file = folder / where / name
    content = bytearray(file.read_bytes())
    content[-30] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StorageError, match=f"{name} is damaged: it is not the file that was writt"):
        load_model(model_folder("Llama"), adapter=folder / where, device="cpu")
    if not where:
        with pytest.raises(StorageError, match=f"{name} is damaged"):
            Alignment.load(folder)
        with pytest.raises(StorageError, match=f"{name} is damaged"):
            align(model_folder("Llama"), PAIRS, folder, **OPTIONS)
    (folder / where / checkpoints.MARK).unlink()
    if name == "adapter_model.safetensors":  # whoever changed it on purpose
        load_model(model_folder("Llama"), adapter=folder / where, device="cpu")


def test_no_weight_of_a_neuron_changes(adapted, model_folder):
    before = AutoModelForCausalLM.from_pretrained(model_folder("Llama")).state_dict()
    after = {
        name.replace("._original_component", ""): weight
        for name, weight in adapted.original_model.named_parameters()
    }
    changed = {name for name in before.keys() & after if not torch.equal(before[name], after[name])}
    assert len(changed) == tiny.LAYERS * 4
    assert all(".self_attn." in name for name in changed)


def test_every_checkpoint_is_an_adapter(run, adapted, model_folder, bridge):
    tokens = torch.tensor([[0, 40, 41, 42, 43]])
    folder = model_folder("Llama")
    models = [load_model(folder, adapter=path, device="cpu") for path in run.checkpoints.values()]
    logits = [model(tokens) for model in (bridge("Llama"), *models)]
    assert all(not torch.equal(one, other) for one, other in zip(logits, logits[1:], strict=False))
    assert torch.equal(adapted(tokens), logits[-1])
    assert adapted.cfg.model_name == f"{folder} + {run.folder}"


def test_an_adapter_that_counts_nothing_leaves_the_neurons_bitwise(model_folder, bridge, tmp_path):
    run = align(model_folder("Llama"), PAIRS, tmp_path / "run", **OPTIONS | {"alpha": 0})
    assert set(run.to_pandas()["margin"]) == {0.0}
    with pytest.warns(UserWarning, match="changes no weight"):
        model = load_model(model_folder("Llama"), adapter=run.folder, device="cpu")
    before, after = (
        collect(m, tiny.tiny_corpus(), progress=False) for m in (bridge("Llama"), model)
    )
    assert np.array_equal(before.counts, after.counts)
    tokens = torch.tensor([[0, 40, 41, 42, 43]])
    assert torch.equal(model(tokens), bridge("Llama")(tokens))


@pytest.mark.parametrize("family", ["Gemma2", "GPT2"])
def test_other_architectures_run_through(model_folder, bridge, tmp_path, family):
    run = align(model_folder(family), PAIRS, tmp_path / "run", **OPTIONS | {"steps": 2})
    model = load_model(model_folder(family), adapter=run.folder, device="cpu")
    before, after = (
        collect(m, tiny.tiny_corpus(), progress=False) for m in (bridge(family), model)
    )
    assert not np.array_equal(before.counts, after.counts)


@pytest.mark.parametrize("step", [1, 5])  # before the first checkpoint, and after the second
def test_an_interrupted_training_ends_with_the_same_weights(
    run, model_folder, tmp_path, monkeypatch, step
):
    from trl.trainer.dpo_trainer import DPOTrainer

    real, folder = DPOTrainer.training_step, tmp_path / "run"

    def failing(self, *arguments, **options):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DPOTrainer, "training_step", failing)
        with pytest.raises(KeyboardInterrupt):
            align(model_folder("Llama"), PAIRS, folder, **OPTIONS)
    with pytest.raises(StorageError, match="align\\(\\) did not finish there"):
        Alignment.load(folder)
    resumed = align(model_folder("Llama"), PAIRS, folder, **OPTIONS)
    ours, theirs = (load_file(one.folder / checkpoints.WHOLE[0]) for one in (resumed, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    logs = [one.to_pandas().drop(columns="gradient") for one in (resumed, run)]
    assert logs[0].equals(logs[1])


def test_a_checkpoint_that_was_half_written_is_left_out(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "checkpoint-6/trainer_state.json").write_text('{"global_st')
    (folder / "checkpoint-4/optimizer.pt").unlink()
    for step in (4, 6):
        (folder / f"checkpoint-{step}" / checkpoints.MARK).unlink()
    assert checkpoints.last_whole(folder) == str(folder / "checkpoint-2")
    assert not (folder / "checkpoint-6").exists()


def unfinished(run, folder):
    """A copy of a run's folder, as if it was killed before its end."""
    shutil.copytree(run.folder, folder)
    (folder / Alignment.RUN_FILE).unlink()
    (folder / checkpoints.WHOLE[0]).unlink()
    return folder


@pytest.mark.parametrize("name", ["optimizer.pt", "adapter_model.safetensors", checkpoints.MARK])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(run, model_folder, tmp_path, name):
    folder = unfinished(run, tmp_path / "run")
    file = folder / "checkpoint-6" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))
    with pytest.warns(StorageWarning, match=r"checkpoint-6 is damaged \(.*\): training goes on at"):
        resumed = align(model_folder("Llama"), PAIRS, folder, **OPTIONS)
    ours, theirs = (load_file(one.folder / checkpoints.WHOLE[0]) for one in (resumed, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("change", "told"), [({"step": 2}, "step 2, not 6"), ({"run": "00"}, "run '00', not '.*'")]
)
def test_a_checkpoint_of_another_step_or_run_is_refused(run, model_folder, tmp_path, change, told):
    folder = unfinished(run, tmp_path / "run")
    mark = load_json(folder / "checkpoint-6" / checkpoints.MARK)
    save_json(folder / "checkpoint-6" / checkpoints.MARK, {**mark, "of": {**mark["of"], **change}})
    with pytest.raises(
        StorageError, match=rf"checkpoint-6 does not belong here .*{told}.*; delete it"
    ):
        align(model_folder("Llama"), PAIRS, folder, **OPTIONS)


def test_the_result_of_another_run_is_refused(run, model_folder, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    replace(run, folder=folder, settings=replace(run.settings, seed=3)).save()
    with pytest.raises(StorageError, match=r"alignment.json is of another run \(seed: 3, not 0\)"):
        align(model_folder("Llama"), PAIRS, folder, **OPTIONS)


@pytest.mark.parametrize("change", [{"provenance": None}, {"more": 1}, {"n_pairs": 1.5}])
def test_an_alignment_file_with_gaps_is_refused(run, tmp_path, change):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    save_json(folder / "alignment.json", {**load_json(folder / "alignment.json"), **change})
    with pytest.raises(StorageError, match="alignment.json does not hold one whole alignment"):
        Alignment.load(folder)


def test_a_finished_folder_is_read_and_another_plan_refused(run, model_folder, monkeypatch):
    monkeypatch.setattr(training, "_make_trainer", None)
    again = align(model_folder("Llama"), PAIRS, run.folder, **OPTIONS)
    assert (again.log, again.n_pairs, again.provenance) == (run.log, 16, run.provenance)
    kept = json.loads((run.folder / "alignment.json").read_text())
    assert (kept["settings"]["steps"], kept["n_pairs"], kept["log"]) == (6, 16, list(run.log))
    assert repr(again) == repr(run)
    assert "held out" in run._repr_html_()
    with pytest.raises(ProvenanceError, match="rank: 3, now 4"):
        align(model_folder("Llama"), PAIRS, run.folder, **OPTIONS | {"rank": 4})
    with pytest.raises(ProvenanceError, match="corpora: "):
        align(model_folder("Llama"), PAIRS.shuffled(), run.folder, **OPTIONS)
    with pytest.raises(ProvenanceError, match="weights: "):
        align(model_folder("Llama", 1), PAIRS, run.folder, **OPTIONS)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"steps": 0}, "steps=0: give 1 or more"),
        ({"batch": 5}, "micro_batch=2 does not divide batch=5"),
        ({"learning_rate": 0.0}, "learning_rate=0.0, beta=0.1: both are above 0"),
        ({"held_out": 1.0}, "held_out=1.0: give a share from 0 below 1"),
    ],
)
def test_settings_out_of_range_are_refused(model_folder, tmp_path, wrong, told):
    with pytest.raises(LensNeuronsError, match=re.escape(told)):
        align(model_folder("Llama"), PAIRS, tmp_path / "run", **OPTIONS | wrong)


def test_pairs_beyond_the_context_are_refused(model_folder, tmp_path):
    long = PreferencePair("long", "th", "แมว" * 80, "yes", "no", 1.0, 0.0)
    pairs = replace(PAIRS, rows=(*PAIRS.rows, long))
    with pytest.raises(CorpusError, match=r"a pair of 'long' \(th\) has \d+ tokens"):
        align(model_folder("Llama"), pairs, tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(LensNeuronsError, match=r"pip install 'lensneurons\[align\]'"):
        training.require_extra()


def test_pairs_are_held_out_problem_by_problem():
    trained, held_out = split_pairs(replace(PAIRS, rows=PAIRS.rows * 2), 0.25, 0)
    assert len(held_out) == 10
    assert not {p.id for p in trained} & {p.id for p in held_out}
    with pytest.raises(CorpusError, match="none is left to train on"):
        split_pairs(replace(PAIRS, rows=PAIRS.rows[:1]), 0.9, 0)


def test_adapters_that_do_not_fit_are_refused(run, model_folder, tmp_path):
    broken = shutil.copytree(run.folder, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"nonsense")
    (broken / checkpoints.MARK).unlink()
    (tmp_path / "empty").mkdir()
    for family, folder, told in (
        ("GPT2", run.folder, "does not fit .* or could not be read"),
        ("Llama", tmp_path / "empty", "holds no adapter_config.json"),
        ("Llama", tmp_path / "none", "is not a folder"),
        ("Llama", broken, "could not be read"),
    ):
        with pytest.raises(ModelError, match=told):
            load_model(model_folder(family), adapter=folder)
    with pytest.raises(LensNeuronsError, match="adapter='zh-dd' is not known"):
        load_model("demo", adapter="zh-dd")


def test_the_figure_shows_the_log(run, tmp_path):
    with pytest.raises(LensNeuronsError, match=r"preferences as they were scored: give a run on"):
        alignment_curves(run, control=run)
    control = replace(run, preferences="shuffled")
    assert "a control: preferences shuffled" in alignment_curves(control).layout.title.subtitle.text
    figure = alignment_curves(run, control=control)
    assert "a control" not in figure.layout.title.subtitle.text
    log = run.to_pandas()
    drawn = {(trace.name, trace.yaxis): trace for trace in figure.data}
    assert len(drawn) == len(figure.data) == 12
    for kind, told in (("trained", "trained on"), ("held out", "held out")):
        own = log[log["pairs"] == kind]
        for axis, column in (("y", "accuracy"), ("y2", "margin"), ("y3", "loss")):
            for name in (told, f"shuffled, {told}"):
                assert list(drawn[name, axis].x) == own["step"].tolist()
                assert np.allclose(drawn[name, axis].y, own[column])
    last = log[log["pairs"] == "held out"].iloc[-1]
    assert f"{last['accuracy']:.0%} of the pairs held out" in figure.layout.title.text
    assert len(figure.to_json()) < 30_000
    assert "Grey" not in str(alignment_curves(run).layout.title.subtitle.text)


def test_every_step_runs_on_a_model_of_another_family(bridge, model_folder, tmp_path):
    """A random model is never right, so its longest answers are called right by hand."""
    corpus = tiny.tiny_corpus()
    rows = [(item.id, item.language, item.prompt, "9") for item in corpus]
    names = ("id", "language", "prompt", "response")
    numbered = build_corpus([dict(zip(names, row, strict=True)) for row in rows])
    responses = respond(
        bridge("Qwen3"), numbered.select(["zh", "th"]), samples=3, max_new_tokens=8,
        run_dir=tmp_path / "responses", progress=False,
    )  # fmt: skip

    def length(parallels):
        return [float(len(parallel.text)) for parallel in parallels]

    scored = score_responses(responses, numbered, scorer=length, progress=False)
    longest = {row.id + row.language: row for row in sorted(scored, key=lambda row: row.score)}
    best = {id(row) for row in longest.values()}
    rows = tuple(
        replace(row, right_answer=id(row) in best, right_language=True, finished=True)
        for row in scored
    )
    pairs = preference_pairs(replace(scored, rows=rows))
    assert pairs.languages == ("zh", "th")
    run = align(model_folder("Qwen3"), pairs, tmp_path / "run", **OPTIONS | {"steps": 2})
    aligned = load_model(model_folder("Qwen3"), adapter=run.folder, device="cpu")
    before, after = (
        collect(model, corpus, groups=2, progress=False) for model in (bridge("Qwen3"), aligned)
    )
    assert not np.array_equal(before.counts, after.counts)
    change = compare(before, after, trained=["zh", "th"])
    assert change.n_before.shape == (tiny.LAYERS, before.d_mlp)
    assert {row.verdict for row in claims(change)} <= {"holds", "does not hold", "undecided"}
