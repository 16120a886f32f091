"""Loading: logits equal Hugging Face's, errors say what to do, fingerprints notice every change."""

from __future__ import annotations

from inspect import unwrap
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.errors import ModelError
from lensneurons.models.family import context_length, input_device, model_family
from lensneurons.models.identity import hash_config, hash_weights, original_tokenizer
from lensneurons.models.loading import load_model

IDS = torch.tensor([[5, 17, 42, 99, 260, 3, 3, 331]])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_logits_equal_hugging_face(architecture, model_folder, bridge):
    reference = AutoModelForCausalLM.from_pretrained(model_folder(architecture)).eval()
    with torch.no_grad():
        ours, theirs = bridge(architecture)(IDS), reference(IDS).logits
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float64])
def test_the_model_has_the_asked_dtype_and_is_in_evaluation_mode(dtype, model_folder):
    model = load_model(str(model_folder("Llama")), dtype=dtype, device="cpu")
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {weight.dtype for weight in model.parameters()} == {wanted}
    assert not model.original_model.training
    assert input_device(model).type == "cpu"


def test_an_unknown_name_says_what_a_model_needs():
    with pytest.raises(ModelError, match="'nobody/no-such-model' could not be loaded from the hub"):
        load_model("nobody/no-such-model")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config\.json: .*save_pretrained"):
        load_model(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path, model_folder):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model_folder("Llama") / name).read_bytes())
    with pytest.raises(ModelError, match="could not be loaded from the folder: .*needs config"):
        load_model(tmp_path)


def test_damaged_weights_are_refused(tmp_path, model_folder):
    for file in model_folder("Llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="could not be loaded from the folder"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "a/b/c", "~/nothing-here"])
def test_a_path_that_is_no_folder_is_never_taken_for_a_hub_name(name):
    with pytest.raises(ModelError, match="is not a folder: give a hub name or a Hugging Face"):
        load_model(name)


def test_a_file_instead_of_a_folder_is_refused(model_folder):
    with pytest.raises(ModelError, match=r"config\.json is not a folder"):
        load_model(model_folder("Llama") / "config.json")


def test_an_unknown_dtype_lists_the_choices(model_folder):
    with pytest.raises(ValueError, match=r"dtype='float8' is not known; choose one of \['float32'"):
        unwrap(load_model)(model_folder("Llama"), dtype="float8")  # without the test's type checks


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [("Mixtral", "block 0 has a MoEBridge"), ("Mamba", "block 0 has no mlp")],
)
def test_models_without_dense_neurons_are_refused(architecture, reason, model_folder):
    with pytest.raises(ModelError, match="ForCausalLM has no dense MLP neurons") as refusal:
        load_model(model_folder(architecture))
    assert reason in str(refusal.value)
    assert "Supported are models whose every block has one MLP" in str(refusal.value)
    assert "mixtures of experts and state-space models are not" in str(refusal.value)


def test_a_hugging_face_model_is_told_how_to_become_a_bridge():
    with pytest.raises(ModelError, match=r"LlamaForCausalLM is not .*boot_transformers\(name, hf"):
        model_family(tiny.random_model("Llama"))


@pytest.mark.parametrize(
    ("architecture", "first"), [("Qwen2", "not bos"), ("Bloom", "not bos"), ("Llama", "bos")]
)
def test_the_original_tokenizer_keeps_its_own_bos_rule(architecture, first, model_folder, bridge):
    tokenizer = original_tokenizer(bridge(architecture))
    saved = AutoTokenizer.from_pretrained(model_folder(architecture))
    ids = tokenizer("a cat")["input_ids"]
    assert ids == saved("a cat")["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) == (first == "bos")


def test_a_model_without_a_tokenizer_asks_for_one():
    with pytest.raises(ModelError, match="no tokenizer that can be read again: pass tokenizer="):
        original_tokenizer(SimpleNamespace(tokenizer=None))
    gone = SimpleNamespace(tokenizer=SimpleNamespace(name_or_path="/no/such/folder"))
    with pytest.raises(ModelError, match="cannot be read again from '/no/such/folder'.*tokenizer="):
        original_tokenizer(gone)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_context_length_is_the_configured_one(architecture, bridge):
    wanted = 2048 if architecture == "Bloom" else tiny.POSITIONS  # BLOOM's configuration has none
    assert context_length(bridge(architecture)) == wanted


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


def test_the_smallest_change_of_a_weight_changes_the_hash(model_folder):
    model = load_model(model_folder("Llama"), device="cpu")
    original = hash_weights(model)
    weight = model.original_model.get_input_embeddings().weight
    with torch.no_grad():
        weight[201, 7] = torch.nextafter(weight[201, 7], torch.tensor(9.0))
    assert hash_weights(model) != original


def test_two_swapped_weights_change_the_hash(model_folder):
    model = load_model(model_folder("Llama"), device="cpu")
    original = hash_weights(model)
    weight = model.original_model.get_input_embeddings().weight
    for one, two in (((0, 0), (0, 1)), ((7, 5), (301, 20)), ((131, 8), (17, 30))):
        values = weight[one].item(), weight[two].item()
        with torch.no_grad():
            weight[one], weight[two] = values[::-1]
            assert hash_weights(model) != original, (one, two)
            weight[one], weight[two] = values
    assert hash_weights(model) == original


def test_the_dtype_is_in_the_hash(model_folder, bridge):
    half = load_model(model_folder("Llama"), dtype="bfloat16", device="cpu")
    assert hash_weights(half) != hash_weights(bridge("Llama"))


def test_hash_config_notices_what_changes_the_computation(model_folder):
    model = load_model(model_folder("Llama"), device="cpu")
    original = hash_config(model)
    model.original_model.config.rms_norm_eps = 1e-3
    assert hash_config(model) != original


def test_hash_config_does_not_depend_on_the_folder_the_dtype_or_the_kernel(model_folder, tmp_path):
    for file in model_folder("Llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = load_model(model_folder("Llama"), device="cpu")
    moved = load_model(tmp_path, dtype="float64", device="cpu")
    moved.original_model.config._attn_implementation = "sdpa"
    assert hash_config(moved) == hash_config(model)
