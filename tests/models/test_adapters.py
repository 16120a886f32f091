"""Adapters: what is called base + adapter is exactly that, or refused."""

from __future__ import annotations

import json
import os
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lensneurons.errors import ModelError
from lensneurons.models.adapters import quiet
from lensneurons.models.loading import load_model

IDS = torch.tensor([[5, 17, 42, 99, 260]])


@pytest.fixture
def adapter(model_folder, tmp_path):
    """``adapter(base, config, edit)``: the folder of an adapter with random weights."""

    def make(base, config, edit=lambda weights: weights):
        plain = AutoModelForCausalLM.from_pretrained(model_folder(base))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(plain, config)
            torch.manual_seed(0)
            for weight in model.parameters():
                if weight.requires_grad:
                    torch.nn.init.normal_(weight, std=0.1)
            model.save_pretrained(tmp_path)
        file = tmp_path / "adapter_model.safetensors"
        save_file(edit(load_file(file)), file)
        return tmp_path

    return make


def lora(*modules, **options):
    return LoraConfig(task_type="CAUSAL_LM", target_modules=list(modules), **options)


@pytest.mark.parametrize(
    ("base", "config"),
    [
        ("Llama", lora("q_proj", "up_proj")),
        ("Llama", lora("lm_head")),
        ("Llama", lora("q_proj", modules_to_save=["lm_head"])),
        ("GPT2", lora("c_fc", fan_in_fan_out=True)),
        ("GPT2", lora("c_attn", modules_to_save=["wte"], fan_in_fan_out=True)),
        ("Llama", lora("q_proj", trainable_token_indices=[5, 17])),
        ("Llama", lora("q_proj", use_dora=True, use_rslora=True)),
        ("Llama", LoraConfig(task_type="CAUSAL_LM", target_parameters=["mlp.gate_proj.weight"])),
    ],
    ids=["lora", "head", "whole head", "conv1d", "tied whole", "rows", "dora", "parameters"],
)
def test_a_merged_adapter_gives_the_logits_of_peft(base, config, adapter, model_folder, bridge):
    folder = adapter(base, config)
    plain = AutoModelForCausalLM.from_pretrained(model_folder(base))
    with torch.no_grad(), quiet():
        wanted = PeftModel.from_pretrained(plain, folder).eval()(IDS).logits
        ours = load_model(model_folder(base), adapter=folder, device="cpu")(IDS)
    torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(ours, bridge(base)(IDS), atol=1e-3)


def renamed(weights):
    return {name.replace(".model.layers", ".layers"): w for name, w in weights.items()}


def with_nan(weights):
    return {name: w * (float("nan") if "layers.1" in name else 1) for name, w in weights.items()}


def untrained(weights):
    return {name: weight * (0 if "lora_B" in name else 1) for name, weight in weights.items()}


def without_layer_1(weights):
    return {name: weight for name, weight in weights.items() if "layers.1" not in name}


@pytest.mark.parametrize(
    ("base", "config", "edit", "message"),
    [
        ("Llama", lora("q_proj"), renamed, "of 6 weights in its file 0 fit; the model has no"),
        ("Llama", lora("q_proj"), without_layer_1, r"4 fit; the model expects .*layers\.1"),
        ("Llama", lora("q_proj"), with_nan, r"layers\.1\.\S+lora_A\S+ holds infinite .* damaged"),
        ("GPT2", lora("lm_head"), None, "uses twice .tied embeddings.: train it without"),
        ("GPT2", lora("wte"), None, "merged, the logits differ from PEFT's own by"),
        ("Llama", lora("q_proj", lora_bias=True), None, "Impossible to merge LoRA"),
        (
            *("Llama", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), None),
            "PROMPT_TUNING changes no weights",
        ),
    ],
    ids=["names", "half", "nan", "tied head", "tied rows", "bias", "prompt tuning"],
)
def test_an_adapter_that_is_not_what_it_is_called_is_refused(
    base, config, edit, message, adapter, model_folder
):
    folder = adapter(base, config, edit or (lambda weights: weights))
    with pytest.raises(ModelError, match=message):
        load_model(model_folder(base), adapter=folder, device="cpu")


@pytest.mark.parametrize(("alpha", "edit"), [(8, untrained), (0, lambda weights: weights)])
def test_an_adapter_that_changes_nothing_says_so(alpha, edit, adapter, model_folder, bridge):
    folder = adapter("Llama", lora("q_proj", lora_alpha=alpha), edit)
    with pytest.warns(UserWarning, match="changes no weight of .*untrained, its alpha is 0"):
        model = load_model(model_folder("Llama"), adapter=folder, device="cpu")
    assert torch.equal(model(IDS), bridge("Llama")(IDS))


def test_an_adapter_of_another_width_or_rank_is_refused(adapter, model_folder):
    folder = adapter("Qwen3", lora("q_proj"))
    with pytest.raises(ModelError, match="does not fit .* size mismatch"):
        load_model(model_folder("Llama"), adapter=folder, device="cpu")
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 4}))
    with pytest.raises(ModelError, match="does not fit .* size mismatch"):
        load_model(model_folder("Qwen3"), adapter=folder, device="cpu")


def test_several_adapters_and_none_are_told_apart(adapter, model_folder, tmp_path):
    folder = adapter("Llama", lora("q_proj"))
    for name in ("zh", "en"):
        shutil.copytree(folder, tmp_path / "several" / name, ignore=lambda *_: ("several",))
    with pytest.raises(ModelError, match="it is no PEFT adapter, but holds some: en, zh"):
        load_model(model_folder("Llama"), adapter=tmp_path / "several", device="cpu")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="no adapter_model.safetensors: .* has lost its weights"):
        load_model(model_folder("Llama"), adapter=folder, device="cpu")


def test_a_malicious_adapter_is_not_run_and_its_protection_not_talked_away(
    adapter, model_folder, tmp_path
):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    folder = adapter("Llama", lora("q_proj"))
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"a": Malicious()}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="could not be read: Weights only load failed$"):
        load_model(model_folder("Llama"), adapter=folder, device="cpu")
    assert not (tmp_path / "was run").exists()
