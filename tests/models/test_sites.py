"""The neuron site: right for every architecture, and refused wherever it does not hold."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from lensneurons.errors import ModelError
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site, probe_tokens, verify_neuron_hooks

NAMES = {"GPT2": "NewGELUActivation", "GPTJ": "NewGELUActivation", "Phi": "NewGELUActivation"}
NAMES |= {"Bloom": "BloomGelu", "OPT": "ReLU", "Gemma2": "GELUTanh", "Gemma3": "GELUTanh"}
NAMES |= {"GPTNeoX": "GELUActivation", "Falcon": "GELUActivation", "XGLM": "GELUActivation"}


@pytest.fixture
def own(model_folder):
    """A Llama of the test's own, to be sabotaged."""
    return load_model(model_folder("Llama"), device="cpu")


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
    assert neuron_site(model).activation(torch.tensor([-1.0])).item() == pytest.approx(-0.159, 0.01)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_hooks_hold_what_they_name(architecture, bridge):
    model = bridge(architecture)
    proof = verify_neuron_hooks(model)
    assert proof.fired == 1
    assert proof.mlp_difference < 1e-6
    assert proof.activation_difference < 1e-6
    assert not any(point.fwd_hooks for point in model.hook_dict.values() if "pre" in point.name)


def test_own_tokens_may_prove_the_hooks(bridge):
    assert verify_neuron_hooks(bridge("OPT"), torch.randint(3, 300, (4, 9))).fired == 1


def test_half_precision_passes_within_its_own_tolerance(model_folder):
    model = load_model(model_folder("Qwen2"), dtype="bfloat16", device="cpu")
    assert verify_neuron_hooks(model).fired == 1


def test_the_probe_stays_inside_the_vocabulary(bridge):
    tokens = probe_tokens(bridge("GPT2"))
    assert tokens.shape == (1, 16)
    assert tokens.min() >= 4
    assert tokens.max() == tiny.VOCABULARY - 1


@pytest.mark.parametrize("layer", [0, tiny.LAYERS - 1])
def test_a_hook_that_alters_hook_post_is_noticed(layer, own):
    def alter(tensor, hook):
        changed = tensor.clone()
        changed[0, 5, 7] += 0.5
        return changed

    own.add_hook(f"blocks.{layer}.mlp.hook_post", alter)
    with pytest.raises(ModelError, match=r"differs from hook_post by [1-9].*remove other hooks"):
        verify_neuron_hooks(own)


def test_a_hook_that_alters_hook_pre_is_seen_by_everybody_and_so_proves_nothing_wrong(own):
    own.add_hook("blocks.0.mlp.hook_pre", lambda tensor, hook: -tensor)
    assert verify_neuron_hooks(own).activation_difference < 1e-6


def test_an_output_that_is_not_w_out_times_post_is_noticed(own):
    own.blocks[1].mlp.out.hook_out.add_hook(lambda tensor, hook: tensor * 1.01)
    with pytest.raises(ModelError, match=r"hook_post @ W_out from the MLP's output by 9\.9e-03"):
        verify_neuron_hooks(own)


def test_a_hook_that_never_fires_is_noticed(own):
    own.blocks[1].mlp.original_component.forward = torch.zeros_like
    with pytest.raises(ModelError, match=r"must fire once .*'blocks\.1\.mlp\.hook_pre': 0"):
        verify_neuron_hooks(own)


def test_a_hook_that_fires_twice_is_noticed(own):
    inner = own.blocks[1].mlp.original_component
    once = inner.forward
    inner.forward = lambda hidden: once(hidden) + once(hidden)
    with pytest.raises(ModelError, match=r"must fire once .*'blocks\.1\.mlp\.hook_pre': 2"):
        verify_neuron_hooks(own)


def test_a_tensor_of_another_width_is_not_the_neurons(own):
    own.add_hook("blocks.0.mlp.hook_pre", lambda tensor, hook: tensor[..., :1])
    with pytest.raises(ModelError, match=r"hook_pre is 1 wide, but d_mlp is 52: not the neurons"):
        verify_neuron_hooks(own)


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.LeakyReLU(-0.1), nn.Softplus()])
def test_only_activations_that_keep_the_sign_are_accepted(activation, own):
    own.blocks[0].mlp.original_component.act_fn = activation
    name = type(activation).__name__
    with pytest.raises(ModelError, match=f"{name} is not positive exactly where its argument is"):
        neuron_site(own)


def test_one_layer_with_another_activation_is_noticed(own):
    own.blocks[2].mlp.original_component.act_fn = nn.ReLU()
    with pytest.raises(ModelError, match=r"act_fn\(hook_pre\) differs from hook_post"):
        verify_neuron_hooks(own)


def test_layers_of_different_width_are_refused(own):
    wide = nn.Parameter(torch.zeros(tiny.D_MODEL, 60))
    own.blocks[1].mlp.out.original_component.weight = wide
    with pytest.raises(ModelError, match=r"its layers differ in width: \[52, 60\]"):
        neuron_site(own)


def test_an_mlp_without_a_named_activation_is_refused(own):
    own.blocks[0].mlp.original_component.act_fn = None
    with pytest.raises(ModelError, match="LlamaMLP names no activation function"):
        neuron_site(own)
