"""GGUF files: the dequantised weights are those of the folder that they were written from.

The files are written here, with the writer of the package gguf; without it all but one test skip.
"""

from __future__ import annotations

import json
import sys
from copy import deepcopy

import numpy as np
import pytest
import tiny
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.loading import load_model
from lensneurons.tokens.prepared import prepare

IDS = torch.tensor([[5, 17, 42, 99, 260, 3, 3, 331]])
CORPUS = tiny.tiny_corpus()
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def gguf():
    return pytest.importorskip("gguf", reason="no gguf: pip install 'lensneurons[gguf]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama whose every matrix has rows of a multiple of 32, as blocks of Q8_0 need."""
    path = tmp_path_factory.mktemp("llama")
    torch.manual_seed(5)
    config = LlamaConfig(**tiny._GROUPED | {"intermediate_size": 64, "num_hidden_layers": 2})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.25)
    model.save_pretrained(path)
    tokenizer = deepcopy(tiny.byte_tokenizer(bos=True))
    # GGUF knows it by this rule for splitting texts.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save_pretrained(path)
    return path


def interleaved(weight, heads):
    """Rows of a projection in the order of llama.cpp, whose rotation takes neighbours."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write(gguf, folder, path, kind="F32", architecture="llama", extra=()):
    """Write a model with its tokenizer; matrices as `kind`, vectors as F32."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    for name, value in extra:
        writer.add_uint16(name, value)
    write_tokenizer(writer, folder, config.vocab_size)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        values = weight.numpy()
        for projection, count in heads.items():
            values = interleaved(values, count) if projection in name else values
        add_tensor(gguf, writer, name, np.ascontiguousarray(values), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tensor(gguf, writer, name, values, kind):
    ends = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = name.removesuffix(".weight")
    if stem not in ends:
        _, _, layer, inner = stem.split(".", 3)
        ends[stem] = f"blk.{layer}.{NAMES[inner]}"
    type_ = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
    packed = gguf.quants.quantize(values, type_)
    writer.add_tensor(f"{ends[stem]}.weight", packed, raw_dtype=type_)


def write_tokenizer(writer, folder, size):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    merges = json.loads(tokenizer.backend_tokenizer.model.__getstate__())["merges"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([words.get(number, f"<none {number}>") for number in range(size)])
    special = set(tokenizer.all_special_ids)
    writer.add_token_types([3 if n in special else 1 if n in words else 5 for n in range(size)])
    writer.add_token_merges(pairs)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(True)


def test_float_weights_give_the_logits_of_the_folder(gguf, folder, tmp_path):
    path = write(gguf, folder, tmp_path / "tiny-f32.gguf")
    ours, theirs = load_model(path, device="cpu"), load_model(folder, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS), theirs(IDS), atol=2e-5, rtol=1e-5)
    mine, wanted = prepare(ours, CORPUS), prepare(theirs, CORPUS)
    assert mine.encoded.ids.tolist() == wanted.encoded.ids.tolist()
    assert mine.encoded.start.tolist() == wanted.encoded.start.tolist()
    provenance = mine.provenance()
    assert provenance.quantisation == "GGUF F32"
    assert provenance.model == str(path)
    assert wanted.provenance().quantisation == "none"


def test_quantised_weights_are_what_the_blocks_stand_for(gguf, folder, tmp_path):
    (tmp_path / "alone").mkdir()
    path = write(gguf, folder, tmp_path / "alone" / "tiny-q8_0.gguf", "Q8_0")
    ours = load_model(path.parent, device="cpu")  # a folder of one file is that file
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        before = plain(IDS).logits
        for weight in plain.parameters():
            if weight.ndim == 2:
                weight.copy_(rounded(weight))
        wanted = plain(IDS).logits
        torch.testing.assert_close(ours(IDS), wanted, atol=2e-5, rtol=1e-5)
        assert (before - wanted).abs().max() > 1e-3
    assert prepare(ours, CORPUS).provenance().quantisation == "GGUF Q8_0, F32"


def rounded(weight):
    """Q8_0: 32 weights share a scale (float16), the largest is 127."""
    blocks = weight.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    steps = torch.where(scale > 0, blocks * (1 / scale), 0).double()
    steps = torch.sign(steps) * torch.floor(steps.abs() + 0.5)
    return (steps.float() * scale.half().float()).reshape(weight.shape)


def test_what_cannot_be_read_is_refused(gguf, folder, tmp_path):
    whole = write(gguf, folder, tmp_path / "a.gguf").read_bytes()
    (tmp_path / "b.gguf").write_bytes(whole)
    with pytest.raises(ModelError, match=r"holds 2 GGUF files \(a.gguf, b.gguf\): give the path"):
        load_model(tmp_path)
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 9):
        (tmp_path / "b.gguf").write_bytes(whole[:size])
        with pytest.raises(ModelError, match="could not be read as GGUF, it is damaged or cut off"):
            load_model(tmp_path / "b.gguf")
    strange = write(gguf, folder, tmp_path / "c.gguf", architecture="rwkv7")
    with pytest.raises(ModelError, match="could not be loaded from the file: .*rwkv7"):
        load_model(strange)
    part = write(gguf, folder, tmp_path / "d.gguf", extra=[("split.count", 3)])
    with pytest.raises(ModelError, match="is one of 3 parts: join them"):
        load_model(part)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(LensNeuronsError, match=r"pip install 'lensneurons\[gguf\]'"):
        load_model(tmp_path / "model.gguf")
