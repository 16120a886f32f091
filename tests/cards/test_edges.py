"""Edges: paths written out by hand, finite differences, cut edges, and what is not linear."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap

import numpy as np
import pages
import pytest
import tiny
import torch
from figure_values import make_edges
from scipy.stats import pearsonr
from transformers import AutoModelForCausalLM

import lensneurons as ln
from lensneurons import plots
from lensneurons.cards import edges as module
from lensneurons.cards.edges import NeuronEdges, neuron_edges
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.batches import make_batch
from lensneurons.tokens.prepared import prepare

CORPUS = tiny.tiny_corpus(("en", "th"))
TARGET = "L2N10"


def by_hand(folder, ids, neuron=10):
    """Edges [layer, source, neuron] into L2 at every position: what each writes, carried on.

    A vector of the stream goes on as it is, and through values and outputs of the attention with
    the weights that were seen; norms multiply by what they were seen to.
    """
    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()
    posts, inputs = {}, {}

    def keep(name, place):
        return lambda m, given, out: inputs.__setitem__((name, place), given[0][0].detach())

    for n, block in enumerate(hf.model.layers):
        block.mlp.down_proj.register_forward_pre_hook(
            lambda m, given, n=n: posts.__setitem__(n, given[0][0].detach())
        )
        block.input_layernorm.register_forward_hook(keep("one", n))
        block.post_attention_layernorm.register_forward_hook(keep("two", n))
    pre = {}
    hf.model.layers[2].mlp.gate_proj.register_forward_hook(
        lambda m, given, out: pre.__setitem__(0, out[0, :, neuron].detach())
    )
    with torch.no_grad():
        weights = hf(ids[None], output_attentions=True).attentions

    def scaled(norm, at, x):
        given = inputs[at]
        scale = (given.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
        return norm.weight * scale * x

    def attended(n, x):
        attention = hf.model.layers[n].self_attn
        size = attention.head_dim
        values = (
            attention.v_proj.weight @ scaled(hf.model.layers[n].input_layernorm, ("one", n), x).T
        )
        heads = []
        for head in range(attention.config.num_attention_heads):
            kv = head // attention.num_key_value_groups
            heads.append(weights[n][0, head] @ values[kv * size : (kv + 1) * size].T)
        return torch.cat(heads, dim=-1) @ attention.o_proj.weight.T

    found = torch.zeros(2, hf.config.intermediate_size, len(ids), dtype=torch.float64)
    last = hf.model.layers[2]
    with torch.no_grad():
        for layer in range(2):
            written = hf.model.layers[layer].mlp.down_proj.weight
            for source in range(found.shape[1]):
                x = posts[layer][:, source, None] * written[:, source]
                for n in range(layer + 1, 3):
                    x = x + attended(n, x)
                x = scaled(last.post_attention_layernorm, ("two", 2), x)
                found[layer, source] = x @ last.mlp.gate_proj.weight[neuron]
    return found.numpy(), pre[0].numpy()


def test_every_edge_is_the_sum_of_its_paths(model_folder, bridge):
    model = bridge("Llama")
    corpus = CORPUS.head(5)
    found = neuron_edges(model, corpus, TARGET, top=4, batch_tokens=300, cut=False)
    encoded = prepare(model, corpus).encoded
    sums, argument, tokens = np.zeros((2, tiny.D_MLP, 2)), np.zeros(2), np.zeros(2)
    for text, k in enumerate(encoded.language):
        ids = encoded.ids[encoded.offsets[text] : encoded.offsets[text + 1]].astype(np.int64)
        counted = slice(encoded.start[text], encoded.stop[text])
        edges, pre = by_hand(model_folder("Llama"), torch.from_numpy(ids))
        sums[..., k] += edges[..., counted].sum(-1)
        argument[k] += pre[counted].sum()
        tokens[k] += encoded.stop[text] - encoded.start[text]
    np.testing.assert_allclose(found.value, sums / tokens, atol=2e-5)
    np.testing.assert_allclose(found.argument, argument / tokens, atol=1e-4)
    np.testing.assert_allclose(found.rest, (argument - sums.sum((0, 1))) / tokens, atol=1e-3)
    assert np.abs(found.value).max() > 0.01
    size = np.abs(found.value).max(-1).ravel()
    names = [f"L{n // tiny.D_MLP}N{n % tiny.D_MLP}" for n in np.argsort(-size)[:4]]
    assert list(found.edges) == names
    assert (found.low < found.strength).all()
    assert (found.strength < found.high).all()


@pytest.mark.parametrize("architecture", ["Gemma3", "GPT2", "GPTNeoX"])
def test_finite_differences_with_patterns_and_norms_held(architecture, bridge):
    """The argument with one neuron a little larger, in a pass that holds what another one saw."""
    model = bridge(architecture)
    site, encoded = neuron_site(model), prepare(model, CORPUS).encoded
    batch = make_batch(encoded, [5])
    found, _ = module._attribute(model, site, batch, (2, 10), check=True)
    counted, seen = batch.counted[0], []
    frozen = module._Frozen()

    def see(pre):
        seen.append(float(pre.reshape(*batch.tokens.shape, -1)[0, counted, 10].double().sum()))

    def passing(change):
        def leaf(layer, post):
            if change is None or layer != change[0]:
                return post if layer not in held else held[layer]
            more = held[layer].clone()
            more[..., change[1]] *= 1 + change[2]
            return more

        with torch.no_grad(), module._holding(model, site, 2, frozen, leaf, see):
            model(batch.tokens, attention_mask=None)

    held = {}
    names = [(name, lambda t, hook, n=n: held.__setitem__(n, t.clone())) for n, name in
             enumerate(site.post[:2])]  # fmt: skip
    with torch.no_grad(), model.hooks(fwd_hooks=names):
        model(batch.tokens, attention_mask=None)
    passing(None)
    for layer, source in ((0, 3), (0, 40), (1, 7)):
        passing((layer, source, 8.0))
        assert (seen[-1] - seen[0]) / 8 == pytest.approx(found[0, layer, source], abs=2e-4)


def test_a_frozen_pass_changes_no_number(bridge):
    model = bridge("Gemma3")
    found = neuron_edges(model, CORPUS, TARGET, top=1, cut=False)
    item = ln.collect(model, CORPUS, progress=False)
    seen = []
    site = neuron_site(model)
    with model.hooks(fwd_hooks=[(site.pre[2], lambda t, hook: seen.append(t[0, :, 10].clone()))]):
        encoded = prepare(model, CORPUS).encoded
        sums = np.zeros(2)
        for text in range(len(encoded)):
            batch = make_batch(encoded, [text])
            with torch.inference_mode():
                model(batch.tokens, attention_mask=None)
            sums[encoded.language[text]] += float(seen[-1][batch.counted[0]].sum())
    np.testing.assert_allclose(found.argument, sums / item.tokens, rtol=1e-4, atol=1e-4)


def test_cut_edges_are_those_of_path_patching_by_hand(bridge):
    model = bridge("Llama")
    found = neuron_edges(model, CORPUS, TARGET, sources=["L1N3", "L0N4", "L2N1"], top=5)
    assert set(found.edges) == {"L1N3", "L0N4"}
    site, encoded = neuron_site(model), prepare(model, CORPUS).encoded
    sums, tokens = np.zeros((2, 2)), np.zeros(2)
    for text, k in enumerate(encoded.language):
        batch = make_batch(encoded, [text])
        whole, posts = passed(model, site, batch, {})
        for edge, name in enumerate(found.edges):
            layer, source = (int(part) for part in name[1:].split("N"))
            held = {n: posts[n].clone() for n in range(2)}
            held[layer][..., source] = 0
            sums[edge, k] += whole - passed(model, site, batch, held)[0]
        tokens[k] += encoded.stop[text] - encoded.start[text]
    np.testing.assert_allclose(found.cut, sums / tokens, atol=2e-4)
    assert np.abs(found.cut).max() > 0.001


def passed(model, site, batch, held):
    """The target's argument summed over counted tokens, and hook_post, where some are held."""
    seen, posts = [], {}

    def post(n):
        return lambda t, hook: posts.setdefault(n, held.get(n, t).clone())

    hooks = [(name, post(n)) for n, name in enumerate(site.post)]
    see = (site.pre[2], lambda t, hook: seen.append(float(t[0, batch.counted[0], 10].sum())))
    with torch.inference_mode(), model.hooks(fwd_hooks=[*hooks, see]):
        model(batch.tokens, attention_mask=None)
    return seen[0], posts


def test_on_the_demo_model_edges_are_what_is_cut_where_nothing_reacts():
    model = ln.load_model("demo")
    corpus = ln.load_corpus("demo", limit=3).select(["en", "zh"])
    found = neuron_edges(model, corpus, "L5N3", top=6)
    site, encoded = neuron_site(model), prepare(model, corpus).encoded
    frozen = [module._Frozen() for _ in encoded.language]
    posts, sums = {}, np.zeros((7, 2))
    for run, name in enumerate([None, *found.edges]):
        layer, source = (int(part) for part in name[1:].split("N")) if name else (-1, -1)
        for text, k in enumerate(encoded.language):
            batch, seen = make_batch(encoded, [text]), []

            def see(pre, seen=seen, batch=batch):
                seen.append(float(pre[0, batch.counted[0], 3].double().sum()))

            def leaf(n, post, text=text, layer=layer, source=source):
                held = posts.setdefault((text, n), post.clone()).clone()
                if n == layer:
                    held[..., source] = 0
                return held

            with torch.no_grad(), module._holding(model, site, 5, frozen[text], leaf, see):
                model(batch.tokens, attention_mask=None)
            sums[run, k] += seen[0]
    tokens = np.bincount(encoded.language, encoded.stop - encoded.start)
    np.testing.assert_allclose(found.strength, (sums[0] - sums[1:]) / tokens, atol=1e-5)
    # Attention and norms react: edges that are cut in the free model are others, but go with them.
    assert pearsonr(found.strength.ravel(), found.cut.ravel()).statistic > 0.4


def test_what_is_not_linear_is_told(bridge, monkeypatch):
    """Sabotage: a hook that squares what attention gives."""
    model = bridge("Llama")
    name = "blocks.1.hook_attn_out"
    name = name if name in model.hook_dict else "blocks.1.attn.hook_out"
    with model.hooks(fwd_hooks=[(name, lambda t, hook: t * t.abs())]):
        with pytest.raises(ModelError, match="not linear"):
            neuron_edges(model, CORPUS, TARGET, cut=False)


def test_patterns_that_cannot_be_held_are_told(bridge):
    with pytest.raises(ModelError, match="cannot hold"):
        neuron_edges(bridge("OPT"), CORPUS, TARGET, cut=False)


def test_files_tables_and_the_model_stays_as_it_is(llama, tmp_path):
    before = {name: p.grad for name, p in llama.named_parameters()}
    found = neuron_edges(llama, CORPUS, TARGET, top=3, cut=False)
    assert all(p.grad is before[name] for name, p in llama.named_parameters())
    assert not any(point.fwd_hooks for point in llama.hook_dict.values())
    again = NeuronEdges.load(found.save(tmp_path / "one"))
    np.testing.assert_array_equal(again.value, found.value)
    assert np.isnan(found.cut).all()
    assert len(found.to_pandas()) == 3 * 2
    assert "all neurons" in found.to_text()
    assert TARGET in repr(found)


def test_bad_input_says_what_to_do(llama, monkeypatch):
    monkeypatch.setattr(module, "_attribute", None)
    call = unwrap(neuron_edges)
    for given, told in (
        ({"target": "L0N3"}, "layer 1 or later"),
        ({"target": TARGET, "top": 0}, "one edge"),
        ({"target": TARGET, "sources": ["L2N3"]}, "no source"),
        ({"target": "L9N3"}, "L9N3"),
        ({"target": TARGET, "level": 0.0}, "level"),
    ):
        with pytest.raises(LensNeuronsError, match=told):
            call(llama, CORPUS, **given)
    with pytest.raises(LensNeuronsError, match="two items"):
        call(llama, CORPUS.head(1), TARGET)
    other = NeuronSet(np.array([3]), 2, 5, "other")
    with pytest.raises(LensNeuronsError, match="is of a model"):
        call(llama, CORPUS, TARGET, sources=other)


def test_on_a_card_edges_are_a_graph_with_every_number(tmp_path):
    neurons = pages.neurons()
    card = pages.card(neurons, "L1N2", pages.TEXTS)
    edges = make_edges(pages.LANGUAGES, layers=1, number=3)
    with pytest.raises(LensNeuronsError, match="edges into L1N3, and the card is of L1N2"):
        card.with_edges(edges)
    edges = replace(edges, target="L1N2", edges=("L0N1", "L0N2", "L0N3"))
    found = card.with_edges(edges, neurons)
    again = type(card).load(found.save(tmp_path / "card"))
    assert again.edges == found.edges
    html = again._repr_html_()
    assert html.count("<path ") == 3
    assert "<svg" not in card._repr_html_()
    shown = next((k for k in found.facts.languages if k in pages.LANGUAGES), None)
    for edge in found.edges:
        assert f"{edge.source} {edge.title}" in html
        if shown:
            assert f"{edge.value[shown]:+.3f} [{edge.low[shown]:+.2f}" in html
    assert html.count("stroke-dasharray") == sum(edge.value[shown] < 0 for edge in found.edges)


def test_the_figure_says_what_is_strongest():
    figure = plots.neuron_edges(make_edges(("zh", "en")))
    assert figure.layout.meta["title"].startswith(
        "L0N7 raises the argument of L5N3 most in Chinese"
    )
    lines = [trace for trace in figure.data if trace.mode.startswith("lines")]
    assert max(trace.line.width for trace in lines) == 9
    with pytest.raises(LensNeuronsError, match="language"):
        plots.neuron_edges(make_edges(("zh", "en")), "fr")
