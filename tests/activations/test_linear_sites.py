"""Outputs of linear maps: those of plain Hugging Face projections, fused ones split by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from oracle import encode_by_hand
from transformers import AutoTokenizer

from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, ModelError, ProvenanceError
from lensneurons.models import forward, linear_sites
from lensneurons.models.linear_sites import PLACES, linear_site, name_of_unit
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.neurons.sets import NeuronSet
from lensneurons.plots.units import in_unit
from lensneurons.values.provenance import UNITS

CORPUS = tiny.tiny_corpus()


def thirds(out, heads, kv):
    return out.chunk(3, -1)


def by_head(out, heads, kv):
    """GPT-NeoX, BLOOM: query, key and value of a head, then those of the next."""
    split = out.unflatten(-1, (heads, 3, -1))
    return tuple(split[..., place, :].flatten(-2) for place in range(3))


def in_turn(out, heads, kv):
    size = out.shape[-1] // (heads + 2 * kv)
    return out.split([heads * size, kv * size, kv * size], -1)


# Layers; in a layer the three projections, or the fused one and how it is split; the last maps.
SEPARATE = ("model.layers", [f"self_attn.{name}_proj" for name in "qkv"])
ENDS = ("self_attn.o_proj", "mlp.down_proj")
FAMILIES = {
    **dict.fromkeys(("Llama", "Qwen2", "Gemma3", "Olmo2"), (*SEPARATE, ENDS)),
    "Mixtral": (*SEPARATE, ENDS[:1]),
    "Phi3": ("model.layers", ("self_attn.qkv_proj", in_turn), ENDS),
    "GPT2": ("transformer.h", ("attn.c_attn", thirds), ("attn.c_proj", "mlp.c_proj")),
    "GPTNeoX": (
        "gpt_neox.layers",
        ("attention.query_key_value", by_head),
        ("attention.dense", "mlp.dense_4h_to_h"),
    ),
    "Bloom": (
        "transformer.h",
        ("self_attention.query_key_value", by_head),
        ("self_attention.dense", "mlp.dense_4h_to_h"),
    ),
    "Falcon": (
        "transformer.h",
        ("self_attention.query_key_value", in_turn),
        ("self_attention.dense", "mlp.dense_4h_to_h"),
    ),
    "OPT": (
        "model.decoder.layers",
        [f"self_attn.{name}_proj" for name in "qkv"],
        ("self_attn.out_proj", "fc2"),
    ),
}


def values_by_hand(folder, architecture):
    """Site to (language, values [layer, token, unit]) of each text: eager, one text at a time."""
    plain = tiny.load_plain(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = plain.config
    heads = config.num_attention_heads
    kv = 1 if architecture == "Falcon" else getattr(config, "num_key_value_heads", heads)
    layers, maps, ends = FAMILIES[architecture]
    seen = {name: [] for name in PLACES}

    def keep_all(parts):
        for name, part in zip("qkv", parts, strict=True):
            seen[name].append(part.clone())  # Falcon adds to it in place

    for block in plain.get_submodule(layers):
        if isinstance(maps, list):
            for name, path in zip("qkv", maps, strict=True):
                block.get_submodule(path).register_forward_hook(
                    lambda module, given, out, name=name: seen[name].append(out.clone())
                )
        else:
            path, split = maps
            block.get_submodule(path).register_forward_hook(
                lambda module, given, out, split=split: keep_all(split(out, heads, kv))
            )
        for name, path in zip(("attn_out", "mlp_out"), ends, strict=False):
            block.get_submodule(path).register_forward_hook(
                lambda module, given, out, name=name: seen[name].append(out.clone())
            )
    found = {name: [] for name in PLACES}
    for item in CORPUS:
        ids, where = encode_by_hand(tokenizer, item, "response")
        for values in seen.values():
            values.clear()
        with torch.no_grad():
            plain(torch.tensor([ids]))
        for name, values in seen.items():
            if values:
                stacked = torch.stack([one.reshape(len(ids), -1) for one in values])
                found[name].append((item.language, stacked[:, where]))
    return found


def count_by_hand(values):
    """Counts and sums [layer, unit, language] of what `values_by_hand` gives of a site."""
    by_language = [[v for k, v in values if k == language] for language in CORPUS.languages]
    joined = [torch.cat(own, 1) for own in by_language]
    assert min(float(one.abs().min()) for one in joined) > 1e-6  # else rounding would decide
    counts = np.stack([(one > 0).sum(1).numpy() for one in joined], -1)
    return counts, np.stack([one.double().sum(1).numpy() for one in joined], -1)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_counts_are_those_of_plain_projections(architecture, model_folder, bridge):
    values = values_by_hand(model_folder(architecture), architecture)
    model = bridge(architecture)
    for name, own in values.items():
        if not own:  # a mixture has no one W_out
            with pytest.raises(ModelError, match="site='mlp_out' needs one map in every layer"):
                collect(model, CORPUS, site=name, progress=False)
            continue
        counts, sums = count_by_hand(own)
        found = collect(model, CORPUS, site=name, progress=False)
        assert np.array_equal(found.counts, counts)
        np.testing.assert_allclose(found.sums, sums, rtol=1e-4, atol=1e-4)
        assert found.provenance.unit == UNITS[found.provenance.hook]
        assert name_of_unit(found.provenance.unit) == name
        assert found.provenance.activation == "none"


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_batches_padding_and_hooks_do_not_matter(architecture, bridge):
    model = bridge(architecture)
    whole = collect(model, CORPUS, site="k", progress=False)
    assert whole.provenance.attention == ("sdpa" if architecture == "Llama" else "eager")
    for options in ({"batch_tokens": 64}, {"padding_side": "left"}):
        other = collect(model, CORPUS, site="k", progress=False, **options)
        assert np.array_equal(other.grouped_counts, whole.grouped_counts)
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: None)]):
        other = collect(model, CORPUS, site="k", progress=False)
    assert np.array_equal(other.grouped_counts, whole.grouped_counts)
    assert other.provenance.interventions == "hooks"


def test_heads_are_in_names_files_and_run_folders(llama, tmp_path):
    found = collect(llama, CORPUS, site="v", run_dir=tmp_path / "run", progress=False)
    again = collect(llama, CORPUS, site="v", run_dir=tmp_path / "run", progress=False)
    assert np.array_equal(found.counts, again.counts)
    assert found.n_heads == again.n_heads == 2
    with pytest.raises(ProvenanceError, match="attn.v.hook_out"):
        collect(llama, CORPUS, site="k", run_dir=tmp_path / "run", progress=False)
    assert "3 layers x 2 heads x 8 value units" in repr(found)
    loaded = ActivationStatistics.load(found.save(tmp_path / "v.safetensors"))
    assert loaded.n_heads == 2
    assert loaded.provenance == found.provenance
    neurons = identify(loaded, top_rate=0.3, tau=0.5, score="lape")
    assert "selected value units" in neurons.description
    assert neurons.name_of(1, 11) == "L1H1N3"
    assert neurons.flat_index("L1H1N3") == 16 + 11
    for set_ in neurons.specific.values():
        assert all("H" in name for name in set_.names)
        assert NeuronSet.load(set_.save(tmp_path / "set")).names == set_.names
    with pytest.raises(LensNeuronsError, match=r"write 'L2H1N5' \(layer, head, unit\)"):
        neurons.class_of("L1N11")
    with pytest.raises(LensNeuronsError, match="outside a model of 3 layers x 2 heads x 8 neuro"):
        neurons.class_of("L1H2N0")
    one = found.of_neuron(1, 11)
    assert np.array_equal(one.counts[0, 0], found.counts[1, 11])
    assert found.resample(np.ones(10, np.int64)).n_heads == 2


def test_words_are_those_of_the_unit():
    told = "Of 9 neurons a neuron is active; Neurons"
    assert in_unit(told, "value unit") == ("Of 9 value units a value unit is active; Value units")
    assert in_unit(told, "MLP output") == ("Of 9 MLP outputs an MLP output is active; MLP outputs")


# What is refused


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("Youtu", "block 0 of YoutuForCausalLM has no such map of its own (MLAAttentionBridge)"),
        ("Qwen3_5", "block 0 of Qwen3_5ForCausalLM has no attention"),
        ("Gemma4", "needs one width, and layers of Gemma4ForCausalLM differ: [48, 64]"),
    ],
)
def test_what_has_no_one_projection_is_refused(architecture, message, bridge):
    with pytest.raises(ModelError) as raised:
        collect(bridge(architecture), CORPUS, site="q", progress=False)
    assert message in str(raised.value)


def test_a_map_that_is_not_run_is_noticed(own, monkeypatch):
    plain = linear_sites.linear_modules

    def swapped(model, name):
        found = plain(model, name)
        return {**found, 0: found[1], 1: found[0]}

    monkeypatch.setattr(linear_sites, "linear_modules", swapped)
    with pytest.raises(ModelError, match="runs once a forward pass in every layer"):
        linear_site(own, "q")


def test_paths_that_disagree_are_noticed(model_folder, monkeypatch):
    model = load_model(model_folder("Llama"), device="cpu")
    monkeypatch.setattr(forward, "_worst", lambda ours, theirs: 0.5)
    monkeypatch.setattr(forward, "prove_neurons", lambda model: None)
    with pytest.raises(ModelError, match="disagree by 5.0e-01 on the outputs q"):
        collect(model, CORPUS, site="q", progress=False)
