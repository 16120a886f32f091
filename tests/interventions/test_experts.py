"""Experts taken out or favoured: rows deleted, weights 0, and logits moved, each by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from edited import IDS, logits_of

from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import EmptySetWarning, LensNeuronsError, ModelError
from lensneurons.interventions.experts import ablate_experts, steer_experts
from lensneurons.models.routers import expert_site
from lensneurons.neurons.sets import NeuronSet
from lensneurons.values.provenance import ROUTER, Provenance

# One expert a layer; two of DeepSeek's, one from each of its groups, which stay equal.
REMOVED = {"DeepseekV3": ((1, 6), (3, 4), (2, 7))}
NUMBER = {  # entry of the configuration
    "Mixtral": "num_local_experts",
    "GptOss": "num_local_experts",
    "DeepseekV3": "n_routed_experts",
}


def removed(architecture, site):
    """Layer to the experts that the tests remove there."""
    rows = REMOVED.get(architecture, ((1,), (0,), (3,)))
    return {layer: rows[layer] for layer in site.layers}


def as_set(rows, site):
    mask = np.zeros((site.n_layers, site.n_experts), bool)
    for layer, own in rows.items():
        mask[layer, list(own)] = True
    return NeuronSet.from_mask(mask, "experts")


def smaller(folder, architecture, rows, site, monkeypatch):
    """A plain model of fewer experts: the rows of the others, by deletion."""
    kind, values = tiny.EXPERTS[architecture]
    left = site.n_experts - len(next(iter(rows.values())))
    name = NUMBER.get(architecture, "num_experts")
    monkeypatch.setitem(tiny.EXPERTS, architecture, (kind, values | {name: left}))
    config = tiny.configuration(architecture)
    config._attn_implementation = "eager"
    model = tiny.auto_class(config).from_config(config, attn_implementation="eager")
    state = {}
    for key, weight in tiny.load_plain(folder).state_dict().items():
        if any(part in key for part in (".experts.", ".gate.", ".router.")):
            layer = int(key.split("layers.")[1].split(".")[0])
            if layer in rows and len(weight) == site.n_experts:
                kept = [e for e in range(site.n_experts) if e not in rows[layer]]
                weight = weight[kept]
        state[key] = weight
    model.load_state_dict(state)
    return model.eval()


def scaled(folder, rows, factor):
    """The plain model with the output of some experts times a factor, by their matrix and bias."""
    plain = tiny.load_plain(folder, attn_implementation="eager")
    for layer, own in rows.items():
        block = plain.model.layers[layer]
        inner = getattr(block, "experts", None) or block.mlp.experts
        inner.down_proj.data[list(own)] *= factor
        if hasattr(inner, "down_proj_bias"):
            inner.down_proj_bias.data[list(own)] *= factor
    return plain


@pytest.mark.parametrize("architecture", tiny.EXPERTS)
def test_without_an_expert_is_the_model_whose_rows_were_deleted(architecture, experts, monkeypatch):
    folder, model = experts(architecture)
    site, before = expert_site(model), logits_of(experts(architecture)[1])
    rows = removed(architecture, site)
    wanted = logits_of(smaller(folder, architecture, rows, site, monkeypatch))
    with ablate_experts(model, as_set(rows, site)):
        found = logits_of(model)
    largest = wanted.abs().max()
    assert (found - wanted).abs().max() <= 5e-6 * largest
    assert (found - before).abs().max() > 1e-3 * largest
    assert torch.equal(logits_of(model), before)


@pytest.mark.parametrize("architecture", tiny.EXPERTS)
def test_without_renormalising_its_weight_is_zero(architecture, experts):
    """By hand: the expert's output matrix is 0 (and its bias), and the choice is as it was."""
    folder, model = experts(architecture)
    site = expert_site(model)
    rows = removed(architecture, site)
    wanted, before = logits_of(scaled(folder, rows, 0)), logits_of(model)
    with ablate_experts(model, as_set(rows, site), renormalise=False):
        found = logits_of(model)
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()
    assert (found - before).abs().max() > 1e-3 * wanted.abs().max()


def test_counts_under_it_are_those_of_the_others(experts):
    _, model = experts("Qwen3Moe")
    site, corpus = expert_site(model), tiny.tiny_corpus()
    rows = removed("Qwen3Moe", site)
    with ablate_experts(model, as_set(rows, site)):
        found = collect(model, corpus, site="experts", progress=False)
    for layer, own in rows.items():
        assert not found.counts[layer, list(own)].any()
    assert (found.counts.sum(1) == site.top_k * found.tokens).all()
    assert found.provenance.interventions == "hooks"


@pytest.mark.parametrize("renormalise", [True, False])
def test_blocks_within_each_other_are_the_union(renormalise, experts):
    _, model = experts("Olmoe")
    site = expert_site(model)
    first, second = as_set({0: (1,), 1: (2, 3)}, site), as_set({1: (0,), 2: (5,)}, site)
    with ablate_experts(model, first | second, renormalise=renormalise):
        union = logits_of(model)
    for outer, inner in ((first, second), (second, first)):
        with ablate_experts(model, outer, renormalise=renormalise):
            alone = logits_of(model)
            with ablate_experts(model, inner, renormalise=renormalise):
                assert torch.equal(logits_of(model), union)
            assert torch.equal(logits_of(model), alone)
    assert not torch.equal(alone, union)


# Steering through the router


def test_a_bias_is_that_of_the_routers_own_bias(experts):
    """GPT-OSS has a bias at its router: the number is added there by hand."""
    folder, model = experts("GptOss")
    site = expert_site(model)
    rows = removed("GptOss", site)
    plain = tiny.load_plain(folder, attn_implementation="eager")
    for layer, own in rows.items():
        plain.model.layers[layer].mlp.router.bias.data[list(own)] += 1.5
    wanted, before = logits_of(plain), logits_of(model)
    with steer_experts(model, as_set(rows, site), 1.5):
        found = logits_of(model)
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()
    assert (found - before).abs().max() > 1e-3 * wanted.abs().max()
    assert torch.equal(logits_of(model), before)


def test_a_bias_stands_before_softmax_and_choice(experts):
    """By hand, for Mixtral: softmax of the logits and the bias, the best two, weights to sum 1."""
    folder, model = experts("Mixtral")
    site = expert_site(model)
    rows = removed("Mixtral", site)
    plain = tiny.load_plain(folder, attn_implementation="eager")
    for layer, own in rows.items():
        added = torch.zeros(site.n_experts)
        added[list(own)] = -0.75
        gate = plain.model.layers[layer].mlp.gate

        def route(x, weight=gate.weight, added=added):
            shares = torch.softmax(x.reshape(-1, x.shape[-1]) @ weight.T + added, -1)
            best, chosen = shares.topk(site.top_k)
            return shares, best / best.sum(-1, keepdim=True), chosen

        gate.forward = route
    wanted, before = logits_of(plain), logits_of(model)
    with steer_experts(model, as_set(rows, site), -0.75):
        found = logits_of(model)
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()
    assert (found - before).abs().max() > 1e-3 * wanted.abs().max()


@pytest.mark.parametrize("architecture", tiny.EXPERTS)
def test_without_renormalising_its_output_is_scaled(architecture, experts):
    folder, model = experts(architecture)
    site = expert_site(model)
    rows = removed(architecture, site)
    wanted = logits_of(scaled(folder, rows, 2))
    with steer_experts(model, as_set(rows, site), float(np.log(2)), renormalise=False):
        found = logits_of(model)
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()
    # The limit in which nothing is left of it is the ablation, in both ways.
    for renormalise in (True, False):
        with steer_experts(model, as_set(rows, site), -1e4, renormalise=renormalise):
            steered = logits_of(model)
        with ablate_experts(model, as_set(rows, site), renormalise=renormalise):
            ablated = logits_of(model)
        assert (steered - ablated).abs().max() <= 5e-6 * ablated.abs().max()


def test_a_favoured_expert_gets_every_token(experts):
    _, model = experts("Qwen3Moe")
    site, corpus = expert_site(model), tiny.tiny_corpus()
    rows = removed("Qwen3Moe", site)
    load = []
    for bias in (-2.0, 0.0, 2.0, 50.0):
        with steer_experts(model, as_set(rows, site), bias):
            found = collect(model, corpus, site="experts", progress=False)
        assert (found.counts.sum(1) == site.top_k * found.tokens).all()
        load.append(np.stack([found.counts[layer, own[0]] for layer, own in rows.items()]))
    assert (load[-1] == found.tokens).all()
    assert (np.diff([one.sum() for one in load]) > 0).all()


def test_biases_add_up_and_blocks_may_be_mixed(experts):
    _, model = experts("Olmoe")
    site = expert_site(model)
    first, second = as_set({0: (1,), 1: (2, 3)}, site), as_set({1: (2,), 2: (5,)}, site)
    with steer_experts(model, first, 0.75), steer_experts(model, first, -0.25):
        both = logits_of(model)
    with steer_experts(model, first, 0.5):
        assert torch.equal(logits_of(model), both)
    with steer_experts(model, first, 0.5), ablate_experts(model, second):
        one_way = logits_of(model)
    with ablate_experts(model, second), steer_experts(model, first, 0.5):
        assert torch.equal(logits_of(model), one_way)
    for bias in (np.inf, -np.inf, np.nan):
        with (
            pytest.raises(LensNeuronsError, match="is not a finite number"),
            steer_experts(model, first, bias),
        ):
            pass


def test_controls_have_the_same_load():
    """Random experts of the same layers, with nearly the share of the tokens."""
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.full(128, 0.5), (4, 2)).transpose(0, 2, 1)
    counts = np.round(shares * 8e5).astype(np.int64)[None]
    tokens = np.array([[100_000, 100_000]])
    found = ActivationStatistics(
        ("en", "th"), counts.clip(max=100_000), tokens, provenance=Provenance(hook=ROUTER)
    )
    load = found.probability[..., 1]
    chosen = NeuronSet.from_mask(
        (load > np.quantile(load, 0.8)) & (random.random(load.shape) < 0.3)
    )
    controls = chosen.random_control(load, draws=50)
    ratio = np.mean([load.flat[one.flat].sum() for one in controls]) / load.flat[chosen.flat].sum()
    assert 0.85 < ratio < 1.15
    assert all((one.per_layer() == chosen.per_layer()).all() for one in controls)


def test_what_is_refused(experts, llama):
    _, model = experts("Qwen2Moe")
    site = expert_site(model)
    some = as_set({0: (1,)}, site)
    with pytest.raises(ModelError, match="has no routers"), ablate_experts(llama, some):
        pass
    other = NeuronSet.from_names(["L0N1"], n_layers=3, d_mlp=9)
    with pytest.raises(LensNeuronsError, match="3 x 6 experts"), ablate_experts(model, other):
        pass
    dense = as_set({1: (1,)}, site)
    with (
        pytest.raises(LensNeuronsError, match=r"layers \[1\] have no"),
        ablate_experts(model, dense),
    ):
        pass
    many, more = as_set({0: (0, 1, 2)}, site), as_set({0: (3, 4)}, site)
    with ablate_experts(model, many):
        with (
            pytest.raises(LensNeuronsError, match="1 of 6 experts of layer 0 would be left"),
            ablate_experts(model, more),
        ):
            pass
        with ablate_experts(model, more, renormalise=False):
            assert torch.isfinite(logits_of(model, IDS)).all()
    with pytest.warns(EmptySetWarning), ablate_experts(model, as_set({}, site)):
        pass
