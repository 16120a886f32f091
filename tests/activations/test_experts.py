"""Routing counts: those of a plain Hugging Face forward, and of routers set by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from mixtures import count_routing
from oracle import encode_by_hand
from transformers import AutoTokenizer

from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.contexts import top_contexts
from lensneurons.errors import ModelError
from lensneurons.evaluation.likelihood import nll
from lensneurons.models import routers
from lensneurons.models.forward import forward_path
from lensneurons.models.loading import load_model
from lensneurons.models.routers import expert_site
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.identification import identify
from lensneurons.neurons.sets import NeuronSet

CORPUS = tiny.tiny_corpus()
DENSE = {"Qwen2Moe": [1], "DeepseekV3": [0]}  # layers without a router
DENSE |= dict.fromkeys(("Afmoe", "DeepseekV2", "Ernie4_5_Moe", "Glm4Moe", "Glm4MoeLite"), [0])


@pytest.mark.parametrize("architecture", [*tiny.EXPERTS, *tiny.MORE_EXPERTS])
def test_counts_are_those_of_a_plain_forward(architecture, experts):
    folder, model = experts(architecture)
    found = collect(model, CORPUS, site="experts", progress=False)
    counts, weights, tokens = count_routing(folder, architecture, CORPUS)
    assert np.array_equal(found.counts, counts)
    assert np.array_equal(found.tokens, tokens)
    np.testing.assert_allclose(found.sums, weights, rtol=1e-5, atol=1e-6)
    site = expert_site(model)
    routed = [layer for layer in range(tiny.LAYERS) if layer not in DENSE.get(architecture, [])]
    assert list(site.layers) == routed
    assert (found.counts[routed].sum(1) == site.top_k * tokens).all()
    assert not found.counts[DENSE.get(architecture, [])].any()
    assert found.provenance.unit == "expert"
    assert f"{site.n_experts} experts, response tokens" in repr(found)


@pytest.mark.parametrize("architecture", ["Mixtral", "DeepseekV3", "Gemma4 (experts)"])
def test_batches_padding_and_hooks_do_not_matter(architecture, experts):
    _, model = experts(architecture)
    whole = collect(model, CORPUS, site="experts", progress=False)
    assert forward_path(model) == "native" or architecture == "Gemma4 (experts)"
    for options in ({"batch_tokens": 64}, {"padding_side": "left"}):
        other = collect(model, CORPUS, site="experts", progress=False, **options)
        assert np.array_equal(other.counts, whole.counts)
    seen = []
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: seen.append(1))]):
        assert forward_path(model) == "bridge"
        other = collect(model, CORPUS, site="experts", progress=False)
    assert seen
    assert np.array_equal(other.counts, whole.counts)


def test_a_run_folder_is_read_again_and_no_other_site_is_taken_for_it(experts, tmp_path):
    _, model = experts("Mixtral")
    first = collect(model, CORPUS, site="experts", run_dir=tmp_path / "run", progress=False)
    again = collect(model, CORPUS, site="experts", run_dir=tmp_path / "run", progress=False)
    loaded = ActivationStatistics.load(tmp_path / "run")
    assert np.array_equal(again.counts, first.counts)
    assert loaded.provenance.unit == "expert"
    assert "selected experts" in identify(loaded, top_rate=0.5).description


# Routers set by hand


@torch.no_grad()
def plant(folder, out):
    """A Mixtral that sends a token to one expert, by its id alone: `expert_of` [id].

    Nothing is added to the stream, so every layer reads the embedding, whose largest entry says
    the expert; layer l moves it by l places.
    """
    model = tiny.load_plain(folder)
    model.config.num_experts_per_tok = 1
    own = {k: set() for k in CORPUS.languages}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for item in CORPUS:
        own[item.language] |= set(tokenizer(item.text)["input_ids"])
    expert_of = np.arange(tiny.VOCABULARY) % 3 + 3
    for expert, (language, ids) in enumerate(own.items()):
        others = set().union(*(two for other, two in own.items() if other != language))
        expert_of[sorted(ids - others)] = expert
    embedding = model.get_input_embeddings().weight
    embedding.zero_()
    embedding[torch.arange(tiny.VOCABULARY), torch.from_numpy(expert_of)] = 1.0
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.experts.down_proj.zero_()
        layer.post_attention_layernorm.weight.fill_(1.0)
        layer.mlp.gate.weight.zero_()
        for expert in range(6):
            layer.mlp.gate.weight[(expert + number) % 6, expert] = 1.0
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return expert_of


def test_planted_routers_are_recovered_exactly(experts, tmp_path):
    expert_of = plant(experts("Mixtral")[0], tmp_path)
    model = load_model(tmp_path, device="cpu")
    found = collect(model, CORPUS, site="experts", progress=False)
    tokenizer, languages = AutoTokenizer.from_pretrained(tmp_path), list(CORPUS.languages)
    wanted = np.zeros((tiny.LAYERS, 6, len(languages)), int)
    for item in CORPUS:
        ids, where = encode_by_hand(tokenizer, item, "response")
        for place in where:
            for layer in range(tiny.LAYERS):
                expert = (expert_of[ids[place]] + layer) % 6
                wanted[layer, expert, languages.index(item.language)] += 1
    assert np.array_equal(found.counts, wanted)
    neurons = identify(found, tau=0.2, top_rate=0.5, score="lape").with_population("all")
    for k, language in enumerate(languages):
        if wanted[0, k, k] > 0.2 * found.tokens[k]:
            planted = {f"L{layer}N{(k + layer) % 6}" for layer in range(tiny.LAYERS)}
            assert planted <= set(neurons.specific[language].names)
    assert max(wanted[0, k, k] / found.tokens[k] for k in range(len(languages))) > 0.2


# What is refused


def test_what_acts_on_neurons_refuses_experts(experts):
    _, model = experts("Gemma4 (experts)")
    some = NeuronSet.from_names(["L0N1"], n_layers=tiny.LAYERS, d_mlp=tiny.D_MLP)
    for call in (
        lambda: neuron_site(model),
        lambda: collect(model, CORPUS, progress=False),
        lambda: top_contexts(model, CORPUS, some),
    ):
        with pytest.raises(ModelError, match="it is a mixture of experts, and neurons inside"):
            call()
    assert nll(model, CORPUS, progress=False).mean.shape


def test_a_dense_model_has_no_experts(llama):
    with pytest.raises(ModelError, match="LlamaForCausalLM has no routers, so there are no expert"):
        collect(llama, CORPUS, site="experts", progress=False)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda out: out[:2], "does not return logits, weights and indices"),
        (lambda out: (*out[:2], out[2].float()), "does not return logits, weights and indices"),
        (lambda out: (*out[:2], out[2] * 0), "does not choose experts token by token"),
    ],
)
def test_a_router_that_says_something_else_is_noticed(output, message, experts, monkeypatch):
    folder, _ = experts("Qwen3Moe")
    model = load_model(folder, device="cpu")
    found = routers.routers(model)
    plain = routers.hooking_routers

    def changed(own, watch):
        return plain(own, lambda *given: watch(*given[:3], output(given[3])))

    monkeypatch.setattr(routers, "hooking_routers", changed)
    assert sorted(found) == [0, 1, 2]
    with pytest.raises(ModelError, match=message):
        routers._prove(model)
