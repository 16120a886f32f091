"""The neuron site: right for every architecture, and refused wherever it does not hold."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from lensneurons.errors import ModelError
from lensneurons.models.identity import one_call
from lensneurons.models.loading import load_model
from lensneurons.models.sites import (
    decided_by_sign,
    neuron_site,
    probe_tokens,
    verify_neuron_hooks,
)

NAMES = {"GPT2": "NewGELUActivation", "GPTJ": "NewGELUActivation", "Phi": "NewGELUActivation"}
NAMES |= {"Bloom": "BloomGelu", "OPT": "ReLU", "Gemma2": "GELUTanh", "Gemma3": "GELUTanh"}
NAMES |= {"GPTNeoX": "GELUActivation", "Falcon": "GELUActivation", "XGLM": "GELUActivation"}


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_site_is_that_of_the_modules(architecture, bridge):
    site = neuron_site(bridge(architecture))
    no_choice = architecture in ("Bloom", "Falcon")
    assert site.n_layers == len(site.pre) == len(site.post) == tiny.LAYERS
    assert site.d_mlp == (4 * tiny.D_MODEL if no_choice else tiny.D_MLP)
    assert site.gated == (architecture in tiny.GATED)
    assert site.activation_name == NAMES.get(architecture, "SiLUActivation")
    assert site.pre[1] == "blocks.1.mlp.hook_pre"


@pytest.mark.parametrize("architecture", ["Bloom", "Falcon"])
def test_the_activation_is_the_modules_own_not_the_configurations(architecture, bridge):
    """TransformerLens notes ReLU for both; both compute GELU, which is not 0 below 0."""
    model = bridge(architecture)
    assert "gelu" not in str(model.cfg.act_fn).lower()
    assert neuron_site(model).activations[0](torch.tensor([-1.0])).item() == pytest.approx(
        -0.159, 0.01
    )


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_hooks_hold_what_they_name(architecture, bridge):
    model = bridge(architecture)
    proof = verify_neuron_hooks(model)
    assert proof.fired == 1
    assert proof.mlp_difference < 1e-6
    assert proof.activation_difference < 1e-6
    assert not any(point.fwd_hooks for point in model.hook_dict.values() if "pre" in point.name)


def test_own_tokens_and_half_precision_prove_the_hooks_too(bridge, model_folder):
    assert verify_neuron_hooks(bridge("OPT"), torch.randint(3, 300, (4, 9))).fired == 1
    half = load_model(model_folder("Qwen2"), dtype="bfloat16", device="cpu")
    assert verify_neuron_hooks(half).fired == 1


def test_the_probe_stays_inside_the_vocabulary(bridge):
    tokens = probe_tokens(bridge("GPT2"))
    assert tokens.shape == (1, 16)
    assert tokens.min() >= 4
    assert tokens.max() == tiny.VOCABULARY - 1


# Sabotage


def hooked(point, change):
    return lambda model: model.add_hook(f"blocks.{point}", change)


def alter_one(tensor, hook):
    changed = tensor.clone()
    changed[0, 5, 7] += 0.5
    return changed


def run_twice(model):
    inner = model.blocks[1].mlp.original_component
    once = inner.forward
    inner.forward = lambda hidden: once(hidden) + once(hidden)


def replace_forward(model):
    model.blocks[1].mlp.original_component.forward = torch.zeros_like


def widen(model):
    wide = nn.Parameter(torch.zeros(tiny.D_MODEL, 60))
    model.blocks[1].mlp.out.original_component.weight = wide


def activate_by(activation, layer=0):
    return lambda model: setattr(model.blocks[layer].mlp.original_component, "act_fn", activation)


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        (hooked("0.mlp.hook_post", alter_one), "from hook_post by [1-9].*remove other hooks"),
        (hooked("2.mlp.hook_post", alter_one), "from hook_post by [1-9].*remove other hooks"),
        (hooked("1.mlp.out.hook_out", lambda x, hook: x * 1.01), r"MLP's output by 9\.9e-03"),
        (hooked("0.mlp.hook_pre", lambda x, hook: x[..., :1]), "is 1 wide, but d_mlp is 52: not"),
        (replace_forward, r"must fire once .*'blocks\.1\.mlp\.hook_pre': 0"),
        (run_twice, r"must fire once .*'blocks\.1\.mlp\.hook_pre': 2"),
        (activate_by(nn.Sigmoid()), "Sigmoid is not positive exactly where its argument is"),
        (activate_by(nn.LeakyReLU(-0.1)), "LeakyReLU is not positive exactly where its argument"),
        (activate_by(nn.Softplus()), "Softplus is not positive exactly where its argument is"),
        (activate_by(None), "LlamaMLP names no activation function"),
        (widen, r"its layers differ in width: \[52, 60\]"),
    ],
)
def test_what_does_not_hold_is_noticed(sabotage, message, own):
    sabotage(own)
    with pytest.raises(ModelError, match=message):
        verify_neuron_hooks(own)


def test_each_layer_is_read_by_its_own_activation(own):
    activate_by(nn.ReLU(), layer=2)(own)
    assert verify_neuron_hooks(own).activation_difference < 1e-6
    assert neuron_site(own).activation_name == "SiLUActivation, ReLU"


def test_a_hook_that_alters_hook_pre_is_seen_by_everybody_and_so_proves_nothing_wrong(own):
    own.add_hook("blocks.0.mlp.hook_pre", lambda tensor, hook: -tensor)
    assert verify_neuron_hooks(own).activation_difference < 1e-6


class Counted(nn.Module):
    """An activation that knows how often it ran, and can become another one."""

    function, runs = staticmethod(torch.relu), 0

    def forward(self, x):
        self.runs += 1
        return self.function(x)


def test_an_activation_is_looked_at_once_a_call_and_anew_in_the_next():
    activation = Counted()
    with one_call():
        assert decided_by_sign(activation)
        assert decided_by_sign(activation)
    assert activation.runs == 1
    activation.function = lambda x: x + 1  # above 0 from -1 on
    assert not decided_by_sign(activation)
    with one_call():
        assert not decided_by_sign(activation)
    activation.function = torch.sigmoid
    for _ in range(2):
        with one_call(), pytest.raises(ModelError, match="Counted is not positive exactly where"):
            decided_by_sign(activation)
