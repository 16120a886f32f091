"""The fast way through a model: the numbers of the bridge, and nothing of the model changed."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import tiny
import torch

from lensneurons.activations.collection import collect
from lensneurons.errors import ModelError
from lensneurons.models.forward import (
    attention_implementation,
    forward_path,
    require_same_neurons,
    watching,
)
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site
from lensneurons.models.views import has_hooks

IDS = torch.randint(3, 340, (3, 31), generator=torch.Generator().manual_seed(1))
LEFT = torch.ones_like(IDS)
LEFT[1, :12] = LEFT[2, :29] = 0
NOT_PLAIN = ("Phi3", "Falcon")  # a fused gate, and an adapter that replaces `forward`


def pre_of(model, path, mask=None):
    """hook_pre [layer, batch, pos, neuron] by one of the ways through a model."""
    seen = {}
    with watching(model, neuron_site(model), seen.__setitem__, path=path) as run:
        run(IDS, mask)
    assert list(seen) == list(range(tiny.LAYERS))
    return torch.stack(list(seen.values())).clone()


def counts_of(model):
    return collect(model, tiny.tiny_corpus(), progress=False)


def fingerprint(model):
    """All that a pass could leave behind: weights, modules, hooks, configurations, attributes."""
    with torch.no_grad():
        logits = model(IDS)  # first, because TransformerLens wires some hooks of its own only now
    state = {name: value.clone() for name, value in model.state_dict().items()}
    inside = {}
    for name, module in model.named_modules():
        hooks = {
            key: list(value)
            for key, value in vars(module).items()
            if isinstance(value, OrderedDict)
        }
        config = getattr(module, "config", None)
        kernel = getattr(config, "_attn_implementation", None), copy.deepcopy(str(config))
        points = [id(handle) for handle in getattr(module, "fwd_hooks", [])]
        inside[name] = (id(module), id(vars(module)), sorted(vars(module)), hooks, kernel, points)
    return state, inside, logits


def assert_unchanged(before, model):
    after = fingerprint(model)
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_plain_models_take_the_fast_way(architecture, bridge):
    model = bridge(architecture)
    assert forward_path(model) == ("bridge" if architecture in NOT_PLAIN else "native")
    assert not has_hooks(model)


@pytest.mark.parametrize("architecture", [a for a in tiny.ARCHITECTURES if a not in NOT_PLAIN])
@pytest.mark.parametrize("mask", [None, LEFT], ids=["no padding", "left padding"])
def test_both_ways_see_the_same_neurons(architecture, mask, bridge):
    native, bridged = (pre_of(bridge(architecture), path, mask) for path in ("native", "bridge"))
    real = slice(None) if mask is None else mask.bool()
    native, bridged = native[:, real], bridged[:, real]
    assert (native - bridged).abs().max() < 2e-5 * bridged.abs().max()


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_model_is_bitwise_as_before(architecture, model_folder):
    model = load_model(model_folder(architecture), device="cpu")  # that no test has touched yet
    before = fingerprint(model)
    counts_of(model)
    assert_unchanged(before, model)


@pytest.mark.parametrize("path", ["native", "bridge"])
@pytest.mark.parametrize("architecture", ["Llama", "GPT2", "OPT"])
def test_the_model_is_bitwise_as_before_after_an_exception(architecture, path, model_folder):
    model = load_model(model_folder(architecture), device="cpu")
    before = fingerprint(model)

    def interrupt(layer, pre):
        if layer == 1:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        watching(model, neuron_site(model), interrupt, path=path) as run,
    ):
        run(IDS, None)
    assert_unchanged(before, model)


def test_the_fast_way_stops_after_the_last_neurons(bridge, monkeypatch):
    model = bridge("Qwen2")
    last = model.blocks[-1].mlp.out.original_component
    forward = type(last).forward

    def guarded(self, *args):
        assert self.weight is not last.weight, "W_out of the last layer ran"
        return forward(self, *args)

    monkeypatch.setattr(type(last), "forward", guarded)
    assert pre_of(model, "native").shape == (3, 3, 31, tiny.D_MLP)
    with pytest.raises(AssertionError, match="ran"):
        pre_of(model, "bridge")


def test_the_fast_way_uses_the_kernel_that_hugging_face_would(bridge):
    assert attention_implementation(bridge("Llama")) == "sdpa"
    assert attention_implementation(bridge("Gemma2")) == "eager"
    assert attention_implementation(bridge("Llama"), "bridge") == "eager"


def test_an_ablation_in_a_with_block_acts_on_the_counts(own):
    before = counts_of(own)
    with own.hooks(fwd_hooks=[("blocks.0.mlp.hook_post", lambda tensor, hook: tensor * 0)]):
        assert forward_path(own) == "bridge"
        assert has_hooks(own)
        ablated = counts_of(own)
    assert forward_path(own) == "native"
    assert np.array_equal(ablated.counts[0], before.counts[0])
    assert not np.array_equal(ablated.counts[1], before.counts[1])
    assert ablated.provenance.attention == "eager"
    assert np.array_equal(counts_of(own).counts, before.counts)


def test_a_permanent_hook_acts_too_and_is_left_where_it_is(own):
    own.add_hook("blocks.1.mlp.hook_pre", lambda tensor, hook: tensor.abs())
    assert forward_path(own) == "bridge"
    before = fingerprint(own)
    assert (counts_of(own).probability[1] == 1).all()
    assert_unchanged(before, own)
    own.reset_hooks()
    assert forward_path(own) == "native"


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        ("register_forward_hook", lambda module, inputs, output: output * 0),
        ("register_forward_pre_hook", lambda module, inputs: (inputs[0] * 0,)),
    ],
)
def test_a_raw_pytorch_hook_acts_too(kind, hook, own):
    before = counts_of(own)
    handle = getattr(own.blocks[0].mlp.original_component, kind)(hook)
    assert forward_path(own) == "bridge"
    changed = counts_of(own)
    handle.remove()
    assert not np.array_equal(changed.counts[1], before.counts[1])
    assert forward_path(own) == "native"


def test_a_cache_leaves_no_hooks_that_count(own):
    """Asked for a cache, transformers installs recorders for good; the model computes as before."""
    before = counts_of(own)
    with torch.no_grad():
        own.run_with_cache(IDS)
    assert forward_path(own) == "native"
    assert counts_of(own).provenance == before.provenance


def test_an_intervention_of_transformer_lens_itself_acts_too(own):
    def swap(tensor, hook):
        return tensor.flip(0)

    swap.__module__ = "transformer_lens.tools.analysis.interchange"
    with own.hooks(fwd_hooks=[("blocks.0.hook_out", swap)]):
        assert forward_path(own) == "bridge"


def test_processed_weights_take_the_bridge(own):
    before = counts_of(own)
    own.enable_compatibility_mode()
    assert forward_path(own) == "bridge"
    after = counts_of(own)
    assert np.abs(after.counts - before.counts).max() <= 1  # folding moves values by rounding
    assert after.provenance.weights != before.provenance.weights


def test_a_replaced_forward_takes_the_bridge(own):
    inner = own.blocks[1].mlp.original_component
    inner.forward = inner.forward
    assert forward_path(own) == "bridge"


def test_a_fast_way_that_sees_something_else_is_refused(own, monkeypatch):
    monkeypatch.setattr(
        "lensneurons.models.forward.first_projection", lambda mlp: getattr(mlp, "in", None)
    )
    with pytest.raises(ModelError, match=r"the fast path and the bridge disagree by [1-9]"):
        require_same_neurons(own, neuron_site(own))


def test_a_parametrised_weight_acts(own):
    class Nothing(torch.nn.Module):
        def forward(self, weight):
            return weight * 0

    gate = own.blocks[1].mlp.gate.original_component
    torch.nn.utils.parametrize.register_parametrization(gate, "weight", Nothing())
    counts = collect(own, tiny.tiny_corpus(), progress=False).counts
    assert [bool(layer.any()) for layer in counts] == [True, False, True]
