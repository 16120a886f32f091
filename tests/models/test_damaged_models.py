"""Models whose files say one thing and hold another are refused; nothing is run or installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from lensneurons.errors import ModelError
from lensneurons.evaluation.generation import generate
from lensneurons.evaluation.likelihood import nll
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model


@pytest.fixture
def changed(model_folder, tmp_path):
    """``changed(weights=edit, config={...})``: a copy of the tiny Llama with other files."""

    def change(weights=None, config=None):
        folder = tmp_path / "changed"
        shutil.copytree(model_folder("Llama"), folder)
        if weights is not None:
            file = folder / "model.safetensors"
            save_file(weights(load_file(file)), file, metadata={"format": "pt"})
        if config is not None:
            file = folder / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | config))
        return folder

    return change


GATE = "model.layers.1.mlp.gate_proj.weight"


def without(part):
    return lambda weights: {name: w for name, w in weights.items() if part not in name}


def damaged(name):
    return lambda weights: weights | {name: weights[name] * float("nan")}


def with_weight(name):
    return lambda weights: weights | {name: torch.zeros(32)}


def prefixed(prefix):
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("lm_head"), r"lacks lm_head\.weight of the model's weights; .*random numbers"),
        (without(GATE), rf"lacks {GATE} of the model's weights"),
        (without("layers.1.mlp"), r"lacks model\.layers\.1\.mlp\.down_proj\.weight, .*up_proj"),
        (prefixed("_orig_mod."), r"and 27 more .*'_orig_mod\.', the mark of torch\.compile"),
        (prefixed("module."), r"begin with 'module\.', the mark of DataParallel"),
        (with_weight("model.layers.0.self_attn.q_proj.bias"), r"has no place: the numbers would"),
        (with_weight("model.layers.0.mlp.up_proj.lora_A.weight"), r"merge an adapter"),
        (with_weight("model.layers.1.mlp.down_proj.bias"), r"has no place: the numbers would"),
        (
            with_weight("model.norm.bias"),
            r"holds model\.norm\.bias for which \w+ has no place",
        ),
        (with_weight("lm_head.bias"), r"holds lm_head\.bias for which \w+ has no place"),
        (damaged(GATE), r"the logits of a short text are infinite .*its weights are damaged"),
    ],
)
def test_weights_that_are_missing_or_unread_are_refused(edit, message, changed):
    with pytest.raises(ModelError, match=message):
        load_model(changed(edit))


@pytest.mark.parametrize(
    "name", ["visual.patch.weight", "model.layers.3.mlp.shared_head.weight", "score.weight"]
)
def test_weights_of_other_heads_change_nothing(name, changed, bridge):
    ids = torch.tensor([[5, 17, 42]])
    ours = load_model(changed(with_weight(name)), device="cpu")(ids)
    assert torch.equal(ours, bridge("Llama")(ids))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"intermediate_size": 60}, r"down_proj\.weight as \[32, 52\], .* it is \[32, 60\]"),
        ({"vocab_size": 10}, r"as \[350, 32\], but by its config\.json it is \[10, 32\]"),
        ({"num_hidden_layers": 2}, r"layers\.2\.input_layernorm\.weight.* and 6 more for which"),
        ({"num_hidden_layers": 0}, "no transformer blocks"),
        ({"num_attention_heads": 0}, "could not be loaded from the folder"),
        ({"hidden_size": "a"}, "Field 'hidden_size' expected int, got str"),
        ({"hidden_act": "nope"}, "KeyError 'nope'"),
        ({"architectures": 3}, "TransformerLens cannot bridge"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(config, message, changed):
    with pytest.raises(ModelError, match=message):
        load_model(changed(config=config))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Falcon", {"alibi": True}, r"does not compute what .* logits differ by"),
        ("OPT", {"do_layer_norm_before": False}, "does not compute what .* component not set"),
        ("GPTNeoX", {"attention_bias": False}, "cannot bridge .*with this configuration.: Assert"),
    ],
)
def test_a_configuration_that_transformer_lens_computes_otherwise_is_refused(
    name, options, message, tmp_path
):
    kind, sizes = tiny.ARCHITECTURES[name]
    config = getattr(transformers, kind)(**(sizes | options))
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
    model.save_pretrained(tmp_path)
    tiny.byte_tokenizer(bos=False).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("damage", ["truncated", "malicious"])
def test_a_damaged_or_malicious_pickle_is_refused_and_not_run(damage, changed, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    folder = changed()
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    torch.save({"a": torch.zeros(999) if damage == "truncated" else Malicious()}, file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(ModelError, match="could not be loaded from the folder"):
        load_model(folder)
    assert not (tmp_path / "was run").exists()


def test_code_in_a_model_folder_is_neither_run_nor_asked_about(changed, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    folder = changed(config={"auto_map": own, "model_type": "own", "architectures": ["Model"]})
    (folder / "own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'was run')!r})")
    with pytest.raises(ModelError, match="contains custom code"):
        load_model(folder)
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("device", ["tpu", "meta", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(device, model_folder):
    with pytest.raises(ModelError, match="device="):
        load_model(model_folder("Llama"), device=device)


@pytest.fixture
def no_processes(monkeypatch):
    """Starting any process fails the test, even where the failure is swallowed."""
    started = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, *a, **_: started.append(a))
    monkeypatch.setattr(os, "system", started.append)
    yield
    assert started == []


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_loading_starts_no_process(architecture, model_folder, no_processes):
    load_model(model_folder(architecture), device="cpu")


def test_of_a_model_that_sees_pictures_the_language_model_is_loaded(tmp_path, no_processes):
    vision = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    text = tiny.configuration("Gemma3").to_dict()
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    whole = Gemma3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    tiny.byte_tokenizer(bos=True).save_pretrained(tmp_path)
    model, ids = load_model(tmp_path, device="cpu"), torch.tensor([[0, 5, 17, 42, 99, 260]])
    assert type(model.original_model).__name__ == "Gemma3ForCausalLM"
    with torch.no_grad():
        torch.testing.assert_close(model(ids), whole(ids).logits, atol=1e-5, rtol=1e-5)
    assert nll(model, tiny.tiny_corpus()).mean.shape == (3,)


@pytest.mark.parametrize(
    ("kind", "text", "vision", "options"),
    [
        ("Llava", "Llama", "clip_vision_model", {"image_token_index": 9}),
        ("Mistral3", "Mistral", "pixtral", {"image_token_index": 9}),
        ("InternVL", "Qwen2", "internvl_vision", {"image_token_id": 9}),
    ],
)
def test_wrappers_that_are_no_causal_models_of_transformers_are_loaded_too(
    kind, text, vision, options, tmp_path, no_processes
):
    tower = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14, "model_type": vision}
    config = getattr(transformers, f"{kind}Config")(
        text_config=tiny.configuration(text).to_dict(), vision_config=tower, **options
    )
    torch.manual_seed(0)
    whole = transformers.AutoModelForImageTextToText.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    tiny.byte_tokenizer(bos=True).save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "LlavaProcessor"}')
    model, ids = load_model(tmp_path, device="cpu"), torch.tensor([[0, 5, 17, 42, 99, 260]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), whole(ids).logits, atol=1e-5, rtol=1e-5)
    assert nll(model, tiny.tiny_corpus()).mean.shape == (3,)


def test_code_beside_a_known_architecture_is_not_run(changed, tmp_path, bridge, no_processes):
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    folder = changed(config={"auto_map": own})
    code = f"import os; os.mkdir({str(tmp_path / 'was run')!r})"
    (folder / "own.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    (folder / "custom_generate" / "requirements.txt").write_text("torchvision")
    for name in ("tokenizer_config.json", "processor_config.json", "generation_config.json"):
        file = folder / name
        about = json.loads(file.read_text()) if file.exists() else {}
        auto = {"AutoTokenizer": [None, "own.T"], "AutoProcessor": "own.P"}
        about |= {"auto_map": auto, "custom_generate": str(folder), "trust_remote_code": True}
        file.write_text(json.dumps(about))
    model, prompts = load_model(folder, device="cpu"), ["the cat"]
    wanted = generate(bridge("Llama"), prompts, max_new_tokens=3, progress=False)
    assert generate(model, prompts, max_new_tokens=3, progress=False) == wanted
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("lost", "could not be loaded from the folder: No such file"),
        ("copied", r"lacks .* of the model's weights"),
        ("unlisted", r"lacks .* of the model's weights"),
    ],
)
def test_shards_that_are_lost_or_not_themselves_are_refused(damage, message, changed):
    folder = changed()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    load_model(folder, device="cpu")
    index = folder / "model.safetensors.index.json"
    about = json.loads(index.read_text())
    first, second = sorted(set(about["weight_map"].values()))[:2]
    if damage == "lost":
        (folder / second).unlink()
    elif damage == "copied":
        shutil.copy(folder / first, folder / second)
    else:
        places = about["weight_map"].items()
        about["weight_map"] = {name: place for name, place in places if place != second}
        index.write_text(json.dumps(about))
    with pytest.raises(ModelError, match=message):
        load_model(folder, device="cpu")


def test_tied_weights_that_are_declared_untied_and_a_lost_bias_are_refused(model_folder, tmp_path):
    folder = shutil.copytree(model_folder("GPT2"), tmp_path / "untied")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ModelError, match=r"lacks lm_head\.weight of"):
        load_model(folder, device="cpu")
    (folder / "config.json").write_text(json.dumps(config))
    file = folder / "model.safetensors"
    kept = {n: w for n, w in load_file(file).items() if not n.endswith("h.1.mlp.c_fc.bias")}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks transformer\.h\.1\.mlp\.c_fc\.bias of"):
        load_model(folder, device="cpu")


def test_the_tokenizer_of_the_moment_of_loading_is_kept(changed):
    folder = changed()
    model = load_model(folder, device="cpu")
    (folder / "tokenizer.json").unlink()
    assert original_tokenizer(model)("a cat")["input_ids"][0] == 0


def test_tokens_that_were_added_in_memory_are_read(changed):
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = changed()
    tokenizer, hugging_face = (
        kind.from_pretrained(folder) for kind in (AutoTokenizer, AutoModelForCausalLM)
    )
    tokenizer.add_tokens(["<cat>", "<mat>"])
    tokenizer.add_bos_token = True  # else TransformerLens reads it again itself, without them
    hugging_face.resize_token_embeddings(352)
    model = TransformerBridge.boot_transformers(
        str(folder), hf_model=hugging_face, tokenizer=tokenizer, device="cpu"
    )
    wanted = [tokenizer.convert_tokens_to_ids(token) for token in ("<mat>", "<cat>")]
    read = original_tokenizer(model)("<mat><cat>")["input_ids"]
    assert read[-2:] == wanted
