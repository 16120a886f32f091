"""Loading: logits equal Hugging Face's, errors say what to do, fingerprints notice every change."""

from __future__ import annotations

from inspect import unwrap
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.errors import ModelError
from lensneurons.models.family import context_length, input_device
from lensneurons.models.identity import (
    copy_tokenizer,
    hash_config,
    hash_weights,
    original_tokenizer,
)
from lensneurons.models.loading import load_model, read_model
from lensneurons.tokens.encoding import tokenizer_hash

IDS = torch.tensor([[5, 17, 42, 99, 260, 3, 3, 331]])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_logits_and_context_are_those_of_hugging_face(architecture, model_folder, bridge):
    reference = AutoModelForCausalLM.from_pretrained(model_folder(architecture)).eval()
    with torch.no_grad():
        ours, theirs = bridge(architecture)(IDS), reference(IDS).logits
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    context = 2048 if architecture == "Bloom" else tiny.POSITIONS  # BLOOM's configuration has none
    assert context_length(bridge(architecture)) == context


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float64])
def test_the_model_has_the_asked_dtype_and_is_in_evaluation_mode(dtype, model_folder):
    model = load_model(str(model_folder("Llama")), dtype=dtype, device="cpu")
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {weight.dtype for weight in model.parameters()} == {wanted}
    assert not model.original_model.training
    assert input_device(model).type == "cpu"


@pytest.mark.parametrize("weights", [None, b"\x00" * 100])
def test_a_folder_without_whole_weights_is_refused(weights, tmp_path, model_folder):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model_folder("Llama") / name).read_bytes())
    if weights:
        (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match="could not be loaded from the folder: .*needs config"):
        load_model(tmp_path)


def cached(cache: Path, model: Path, name: str, refs: dict[str, str]) -> None:
    """A model as the hub's cache keeps it: snapshots by commit, and names of commits."""
    for ref, commit in refs.items():
        copytree(model, cache / f"models--{name.replace('/', '--')}" / "snapshots" / commit)
        path = cache / f"models--{name.replace('/', '--')}" / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)


def test_other_revisions_in_the_cache_are_named(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    one, two = "a" * 40, "b" * 40
    cached(tmp_path, model_folder("Llama"), "x/y", {"step-10": one, "step/20": two})
    for options, asked in (({}, "main"), ({"revision": "step-30"}, "step-30")):
        with pytest.raises(ModelError) as raised:
            load_model("x/y", local_files_only=True, **options)
        assert (
            f"The cache has no revision {asked!r} of it, but {one} (step-10), {two} (step/20): "
            "give revision= one of these, or load it once with network." in str(raised.value)
        )
    with pytest.raises(ModelError) as raised:
        load_model("x/z", local_files_only=True)
    assert "The cache has" not in str(raised.value)


def test_what_is_no_folder_is_never_taken_for_a_hub_name(model_folder):
    file = model_folder("Llama") / "config.json"
    for name in ("/no/such/folder", "./missing", "a/b/c", "~/nothing-here", file):
        with pytest.raises(ModelError, match=f"{name} is not a folder: give a hub name, a Hug"):
            load_model(name)
    with pytest.raises(ModelError, match="'nobody/no-such-model' could not be loaded from the hub"):
        load_model("nobody/no-such-model")


def test_an_unknown_dtype_lists_the_choices(model_folder):
    with pytest.raises(ValueError, match=r"dtype='float8' is not known; choose one of \['float32'"):
        unwrap(read_model)(model_folder("Llama"), dtype="float8")  # without the test's type checks


def test_models_without_dense_neurons_are_refused(model_folder):
    supported = "Supported are models whose every block has one MLP .* state-space models are not"
    message = f"ForCausalLM cannot be used: block 0 has no MLP of its own.*{supported}"
    with pytest.raises(ModelError, match=message):
        load_model(model_folder("Mamba"))


@pytest.mark.parametrize(
    ("architecture", "first"), [("Qwen2", "not bos"), ("Bloom", "not bos"), ("Llama", "bos")]
)
def test_the_original_tokenizer_keeps_its_own_bos_rule(architecture, first, model_folder, bridge):
    tokenizer = original_tokenizer(bridge(architecture))
    saved = AutoTokenizer.from_pretrained(model_folder(architecture))
    ids = tokenizer("a cat")["input_ids"]
    assert ids == saved("a cat")["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) == (first == "bos")


def test_a_tokenizer_that_is_gone_is_asked_for():
    gone = SimpleNamespace(tokenizer=SimpleNamespace(name_or_path="/no/such/folder"))
    with pytest.raises(ModelError, match="cannot be read again from '/no/such/folder'.*tokenizer="):
        original_tokenizer(gone)


@pytest.mark.parametrize("architecture", ["Llama", "GPT2", "Bloom"])
def test_hashes_are_equal_across_loads(architecture, model_folder, bridge):
    again = load_model(model_folder(architecture), device="cpu")
    assert hash_weights(again) == hash_weights(bridge(architecture))
    assert hash_config(again) == hash_config(bridge(architecture))


def test_every_weight_is_in_the_hash(model_folder):
    model = load_model(model_folder("GPT2"), device="cpu")
    original = hash_weights(model)
    for name, weight in model.named_parameters():
        last = (-1,) * weight.dim()
        value = weight[last].item()
        with torch.no_grad():
            weight[last] += 1
            assert hash_weights(model) != original, name
            weight[last] = value
    assert hash_weights(model) == original


def test_the_smallest_change_and_two_swapped_weights_change_the_hash(own):
    original = hash_weights(own)
    weight = own.original_model.get_input_embeddings().weight
    for one, two in (((0, 0), (0, 1)), ((7, 5), (301, 20)), ((131, 8), (17, 30))):
        values = weight[one].item(), weight[two].item()
        with torch.no_grad():
            weight[one], weight[two] = values[::-1]
            assert hash_weights(own) != original, (one, two)
            weight[one], weight[two] = values
    assert hash_weights(own) == original
    with torch.no_grad():
        weight[201, 7] = torch.nextafter(weight[201, 7], torch.tensor(9.0))
    assert hash_weights(own) != original


def test_the_dtype_is_in_the_hash_of_the_weights_and_epsilon_in_that_of_the_config(
    model_folder, own
):
    half = load_model(model_folder("Llama"), dtype="bfloat16", device="cpu")
    assert hash_weights(half) != hash_weights(own)
    original = hash_config(own)
    own.original_model.config.rms_norm_eps = 1e-3
    assert hash_config(own) != original


def test_hash_config_does_not_depend_on_the_folder_the_dtype_or_the_kernel(
    bridge, model_folder, tmp_path
):
    copytree(model_folder("Llama"), tmp_path / "moved")
    moved = load_model(tmp_path / "moved", dtype="float64", device="cpu")
    moved.original_model.config._attn_implementation = "sdpa"
    assert hash_config(moved) == hash_config(bridge("Llama"))


@pytest.mark.parametrize("architecture", ["Llama", "Qwen2"])
def test_a_tokenizer_is_copied_without_its_vocabulary_and_stays_as_it_is(
    architecture, model_folder
):
    own = AutoTokenizer.from_pretrained(model_folder(architecture))
    text = "the cat 有三个 <s> apples"
    before, fingerprint = own(text)["input_ids"], tokenizer_hash(own)
    twin = copy_tokenizer(own)
    assert twin(text)["input_ids"] == before
    assert twin.decode(before) == own.decode(before)
    assert tokenizer_hash(twin) == fingerprint
    twin.add_tokens(["apples"])
    twin.bos_token = twin.eos_token
    twin.padding_side = "left" if own.padding_side == "right" else "right"
    twin.backend_tokenizer.post_processor = None
    twin.init_kwargs["add_bos_token"] = None
    assert twin(text)["input_ids"] != before
    assert own(text)["input_ids"] == before
    assert tokenizer_hash(own) == fingerprint
    assert own.padding_side != twin.padding_side
    assert own.init_kwargs.get("add_bos_token", 0) is not None


def test_a_tokenizer_that_begins_with_bos_is_read_once(model_folder, monkeypatch):
    read, calls = AutoTokenizer.from_pretrained, []
    monkeypatch.setattr(
        AutoTokenizer,
        "from_pretrained",
        lambda *given, **options: calls.append(given) or read(*given, **options),
    )
    model = load_model(model_folder("Llama"), device="cpu")
    assert len(calls) == 1
    assert model.to_tokens("the cat").tolist() == [
        original_tokenizer(model)("the cat")["input_ids"]
    ]


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch) -> None:
    """And then only the cache is: transformers would ask for every file, six times each."""
    asked: list[dict[str, Any]] = []

    def silent(self: Any, name: str, **options: Any) -> None:
        asked.append({"name": name, **options})
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", silent)
    with pytest.raises(ModelError, match="from the local cache, and the hub does not answer"):
        load_model("nobody/has-this")
    assert asked == [{"name": "nobody/has-this", "revision": None, "timeout": 10.0}]
    with pytest.raises(ModelError, match="from the hub or its local cache"):
        load_model("nobody/has-this", local_files_only=True)
    assert len(asked) == 1
