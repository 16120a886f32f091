"""Shards in any order and of any size add up to the bits of one process; nothing counts twice."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tiny
import torch
from shuffled_pool import ShuffledPool, Stopped

from lensneurons.activations.collection import collect
from lensneurons.activations.shards import KIND, Shard, missing_shards, select_texts
from lensneurons.alignment import responses as answers
from lensneurons.alignment.responses import respond
from lensneurons.corpora.corpus import build_corpus
from lensneurons.corpora.streams import stream_corpus
from lensneurons.engines import RayEngine
from lensneurons.errors import LensNeuronsError, ModelError, StorageError
from lensneurons.evaluation import answers as judged
from lensneurons.evaluation.answers import accuracy
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.models.replicas import (
    build_model,
    last_logits,
    pack_model,
    require_replica,
    traits_of,
)
from lensneurons.tokens.batches import make_batch
from lensneurons.tokens.prepared import prepare
from lensneurons.values.files import load_arrays, save_arrays

pytestmark = pytest.mark.filterwarnings("ignore:no other neurons are as active")

CORPUS = tiny.tiny_corpus()
OPTIONS = {"batch_tokens": 200, "groups": 3, "progress": False, "checkpoint_seconds": 0.0}
RESULT = "statistics.safetensors"


def size(batches: int) -> RayEngine:
    return RayEngine(shard_batches=batches)


@pytest.fixture
def shuffled(monkeypatch) -> ShuffledPool:
    return ShuffledPool(monkeypatch)


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    """The folder of the local engine."""
    folder = tmp_path_factory.mktemp("whole")
    collect(llama, CORPUS, run_dir=folder, **OPTIONS)
    return folder


@pytest.mark.parametrize("batches", [1, 2, 5, 1000])
def test_any_order_and_any_size_give_the_same_bytes(batches, llama, whole, shuffled, tmp_path):
    shuffled.random.seed(batches)
    collect(llama, CORPUS, run_dir=tmp_path, engine=size(batches), **OPTIONS)
    assert (tmp_path / RESULT).read_bytes() == (whole / RESULT).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "run.json", RESULT]
    assert len(set(shuffled.did)) == len(shuffled.did) > 2


def same(ours, theirs) -> None:
    for name in ("grouped_counts", "grouped_tokens", "sums", "squares"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()
    for name in ("grouped_linear", "grouped_both"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert (one is None) == (other is None)
        assert one is None or one.tobytes() == other.tobytes()
    assert ours.provenance == theirs.provenance


def test_without_a_folder_and_with_both_halves(llama, shuffled):
    options = {**OPTIONS, "branches": True}
    found = collect(llama, CORPUS, engine=size(2), **options)
    same(found, collect(llama, CORPUS, **options))


def test_neurons_inside_experts(experts, shuffled):
    model, options = experts("Mixtral")[1], {**OPTIONS, "site": "expert_neurons"}
    same(collect(model, CORPUS, engine=size(2), **options), collect(model, CORPUS, **options))


def interrupted(model, shuffled, folder, after, batches) -> None:
    shuffled.stop_after = after
    with pytest.raises(Stopped):
        collect(model, CORPUS, run_dir=folder, engine=size(batches), **OPTIONS)
    shuffled.stop_after, shuffled.did = 10**9, []


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_driver_that_died_goes_on_with_another_size(after, llama, whole, shuffled, tmp_path):
    interrupted(llama, shuffled, tmp_path, after, 1)
    copied = shutil.copytree(tmp_path, tmp_path.with_name(f"local{after}"))
    collect(llama, CORPUS, run_dir=tmp_path, engine=size(3), **OPTIONS)
    assert (tmp_path / RESULT).read_bytes() == (whole / RESULT).read_bytes()
    n = sum(int(name.split()[3]) - int(name.split()[1]) + 1 for name in shuffled.did)
    batches = len(prepare(llama, CORPUS).batches(OPTIONS["batch_tokens"]))
    assert n == batches - after  # only what was missing was run
    collect(llama, CORPUS, run_dir=copied, **OPTIONS)  # the local engine goes on there as well
    assert (copied / RESULT).read_bytes() == (whole / RESULT).read_bytes()
    assert not (copied / "languages").exists()


def test_workers_go_on_where_one_process_stopped(llama, whole, shuffled, tmp_path, monkeypatch):
    from lensneurons.activations import collection

    calls, batch = [], collection.make_batch

    def dying(*arguments, **options):
        calls.append(1)
        if len(calls) == 8:
            raise Stopped
        return batch(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(collection, "make_batch", dying)
        with pytest.raises(Stopped):
            collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
    collect(llama, CORPUS, run_dir=tmp_path, engine=size(2), **OPTIONS)
    assert (tmp_path / RESULT).read_bytes() == (whole / RESULT).read_bytes()


@pytest.mark.parametrize("batches", [1, 3, 1000])
def test_a_stream_counted_by_workers_has_the_same_bytes(batches, llama, shuffled, tmp_path):
    """Whole, and after a driver that died between the shards of the stream."""
    CORPUS.save(tmp_path / "texts.jsonl")
    stream = stream_corpus(tmp_path / "texts.jsonl", shard_items=5)
    local, ours = tmp_path / "local", tmp_path / "ours"
    collect(llama, stream, run_dir=local, **OPTIONS)
    shuffled.stop_after = 4
    with pytest.raises(Stopped):
        collect(llama, stream, run_dir=ours, engine=size(batches), **OPTIONS)
    shuffled.stop_after = 10**9
    collect(llama, stream, run_dir=ours, engine=size(batches), **OPTIONS)
    assert (ours / RESULT).read_bytes() == (local / RESULT).read_bytes()
    assert len(shuffled.did) > 5


def a_waiting_shard(folder):
    """The file of a shard that no total has taken up, and its arrays."""
    return sorted((folder / "languages").glob("*.*-*.safetensors"))[-1]


def test_a_damaged_shard_a_foreign_one_and_two_of_the_same(llama, shuffled, tmp_path):
    interrupted(llama, shuffled, tmp_path, 7, 1)
    path = a_waiting_shard(tmp_path)
    kept = path.read_bytes()
    go_on = {"run_dir": tmp_path, "engine": size(1), **OPTIONS}
    path.write_bytes(kept[:-8] + bytes([kept[-8] ^ 1]) + kept[-7:])
    with pytest.raises(StorageError, match=r"damaged: .*delete it to count it again"):
        collect(llama, CORPUS, **go_on)
    path.write_bytes(kept)
    arrays, details = load_arrays(path, KIND)
    more = arrays["counts"] + arrays["tokens"].max() + 1
    save_arrays(path, KIND, {**arrays, "counts": more}, details)
    with pytest.raises(StorageError, match="active on more tokens than there are"):
        collect(llama, CORPUS, **go_on)
    other = {**details, "of": {**details["of"], "run": "another"}}
    save_arrays(path, KIND, arrays, other)
    with pytest.raises(StorageError, match=r"does not belong here .*delete it to count it again"):
        collect(llama, CORPUS, **go_on)
    path.write_bytes(kept)
    language, first = path.name.split(".")[0], details["of"]["first"]
    twin = path.with_name(f"{language}.{first:08d}-{first + 2:08d}.safetensors")
    twin.write_bytes(kept)
    with pytest.raises(StorageError, match="hold the same batches, which would count twice"):
        collect(llama, CORPUS, **go_on)


def test_what_is_missing_is_divided_around_what_is_there():
    there = [Shard(0, 4, 6), Shard(0, 9, 10)]
    found = [(s.first, s.stop) for s in missing_shards(0, 1, there, 14, 2)]
    assert found == [(1, 3), (3, 4), (6, 8), (8, 9), (10, 12), (12, 14)]
    assert missing_shards(0, 3, [], 3, 2) == []


def test_selected_texts_make_the_same_batch(llama):
    encoded = prepare(llama, CORPUS).encoded
    rows = prepare(llama, CORPUS).batches(300)[1]
    ours = make_batch(select_texts(encoded, rows), np.arange(len(rows)), padding_side="left")
    theirs = make_batch(encoded, rows, padding_side="left")
    for name in ("tokens", "attention_mask", "counted"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


MATRIX = {
    "classes": ["specific", "related"], "languages": ["zh", "th"],
    "controls": 2, "batch_tokens": 300, "progress": False,
}  # fmt: skip


def test_cells_in_any_order_give_the_same_matrix(llama, shuffled, tmp_path):
    neurons, texts = tiny.drawn_neurons(), CORPUS.head(3)
    ablation_matrix(llama, texts, neurons, run_dir=tmp_path / "local", **MATRIX)
    shuffled.stop_after = 11
    go_on = {"run_dir": tmp_path / "ray", "engine": "ray", **MATRIX}
    with pytest.raises(Stopped):
        ablation_matrix(llama, texts, neurons, **go_on)
    there = len(list((tmp_path / "ray" / "cells").iterdir()))
    shuffled.stop_after, shuffled.did = 10**9, []
    ablation_matrix(llama, texts, neurons, **go_on)
    assert there + sum(name.startswith("the cell") for name in shuffled.did) == 12
    files = [tmp_path / name / "ablation.safetensors" for name in ("local", "ray")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_resampling_travels(llama, shuffled):
    options = {**MATRIX, "method": "resample", "reference": CORPUS.head(2)}
    texts, neurons = CORPUS.head(2), tiny.drawn_neurons()
    local = ablation_matrix(llama, texts, neurons, **options)
    found = ablation_matrix(llama, texts, neurons, engine="ray", **options)
    for name in ("effect", "control", "base", "weight"):
        assert getattr(found, name).tobytes() == getattr(local, name).tobytes()


ROWS = [(f"i{n}", k, f"{n} {word}") for n in range(3) for k, word in (("en", "cats"), ("de", "K"))]
PROBLEMS = build_corpus(
    [dict(zip(("id", "language", "prompt"), row, strict=True), response="1") for row in ROWS]
)


def test_blocks_in_any_order_are_the_same_texts(llama, shuffled, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "PROMPTS_A_BLOCK", 4)
    options = {"samples": 3, "max_new_tokens": 6, "progress": False}
    local = respond(llama, PROBLEMS, **options)
    shuffled.stop_after = 3
    with pytest.raises(Stopped):
        respond(llama, PROBLEMS, run_dir=tmp_path, engine="ray", **options)
    shuffled.stop_after = 10**9
    found = respond(llama, PROBLEMS, run_dir=tmp_path, engine="ray", **options)
    assert found.rows == local.rows
    assert len(shuffled.did) == len(set(shuffled.did)) == 5


def test_answers_in_any_order_have_the_same_verdicts(llama, shuffled, tmp_path, monkeypatch):
    """Drawn texts, so that a block that took another place's noise would differ."""
    monkeypatch.setattr(judged, "PROMPTS_A_BLOCK", 2)
    options = {"max_new_tokens": 6, "temperature": 1.0, "progress": False}
    local, folder = tmp_path / "local", tmp_path / "ours"
    wanted = accuracy(llama, PROBLEMS, run_dir=local, **options)
    shuffled.stop_after = 2
    with pytest.raises(Stopped):
        accuracy(llama, PROBLEMS, run_dir=folder, engine="ray", **options)
    assert len(list((folder / "blocks").iterdir())) == 2
    shuffled.stop_after = 10**9
    found = accuracy(llama, PROBLEMS, run_dir=folder, engine="ray", **options)
    assert found.answers == wanted.answers
    assert len({answer.text for answer in found}) == len(PROBLEMS)
    file = "accuracy.safetensors"
    assert (folder / file).read_bytes() == (local / file).read_bytes()
    assert sorted(shuffled.did) == ["prompts 0 to 1", "prompts 2 to 3", "prompts 4 to 5"]
    again = accuracy(llama, PROBLEMS, engine="ray", **options)  # without a folder
    assert again.answers == wanted.answers


@pytest.mark.parametrize("architecture", ["GPT2", "Gemma3", "OPT"])
def test_a_replica_is_the_model_with_changed_weights(architecture, model_folder):
    from lensneurons.models.loading import load_model

    model = load_model(model_folder(architecture), device="cpu")
    with torch.no_grad():
        next(iter(model.original_model.parameters())).mul_(1.5)
    built = build_model(pack_model(model), "cpu")
    require_replica(built, traits_of(model), last_logits(model))
    options = {**OPTIONS, "batch_tokens": 500}
    same(collect(built, CORPUS.head(2), **options), collect(model, CORPUS.head(2), **options))


def test_another_model_is_no_replica(own, llama):
    traits, logits = traits_of(own), last_logits(own)
    with torch.no_grad():
        own.original_model.model.norm.weight.mul_(1.5)
    with pytest.raises(ModelError, match="the worker's model has another weights"):
        require_replica(own, traits, logits)
    own = replace_function(own)
    with pytest.raises(ModelError, match="same weights and writes other logits"):
        require_replica(build_model(pack_model(own), "cpu"), traits_of(own), last_logits(own))


def replace_function(model):
    """A change that neither weights nor configuration show."""
    model.original_model.model.layers[1].mlp.act_fn = torch.nn.Tanh()
    return model


def test_hooks_do_not_travel(llama, monkeypatch):
    monkeypatch.setattr("lensneurons.engines.pool.find_spec", lambda name: True)
    with llama.hooks(fwd_hooks=[("blocks.0.mlp.hook_post", lambda x, hook: x * 0)]):
        for call in (
            lambda: collect(llama, CORPUS, engine="ray", **OPTIONS),
            lambda: ablation_matrix(llama, CORPUS, tiny.drawn_neurons(), engine="ray", **MATRIX),
            lambda: respond(llama, PROBLEMS, engine="ray", progress=False),
            lambda: accuracy(llama, PROBLEMS, engine="ray", progress=False),
        ):
            with pytest.raises(ModelError, match="they do not travel to workers"):
                call()


def test_without_ray_it_says_what_to_install(llama, monkeypatch):
    monkeypatch.setattr("lensneurons.engines.pool.find_spec", lambda name: None)
    with pytest.raises(LensNeuronsError, match=r"needs Ray: pip install 'lensneurons\[ray\]'"):
        collect(llama, CORPUS, engine="ray", **OPTIONS)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"workers": 0}, "workers=0: give 1 or more"),
        ({"cpus": -2}, "cpus=-2: give 1 or more"),
        ({"gpus": 1.5}, "gpus=1.5: give a share of one, such as 0.5, or a whole number"),
        ({"gpus": -1.0}, "gpus=-1: give a share"),
        ({"shard_batches": 0}, "shard_batches=0"),
        ({"address": ""}, "address='': give 'auto'"),
    ],
)
def test_options_of_workers_are_checked(wrong, told):
    with pytest.raises(LensNeuronsError, match=told):
        RayEngine(**wrong)
