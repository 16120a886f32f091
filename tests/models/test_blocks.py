"""A block that adds more to the stream than attention and MLP is refused, whatever it adds."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from lensneurons.errors import ModelError
from lensneurons.models import loading, sites
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site, verify_neuron_hooks

# Shapes of blocks: sandwich norms, a multiplier, an own factor a layer, parallel, hybrid, wrapper.
BLOCKS = ("Bamba", "Cohere2", "FalconH1", "Gemma4", "Granite", "Mistral3 (vision)", "Mpt")
REFUSED = {
    "FalconH1 (multipliers)": r"its MLP multiplies within \(gate_multiplier 0.7, down_mult",
    "Gemma3n": "TransformerLens has no adapter for Gemma3nForCausalLM",
    "Gemma4 (per-layer inputs)": r"add up to: per_layer_input_gate, per_layer_projection \(",
    "Gemma4 (widths)": r"cannot be used: its layers differ in width: \[52, 104\] neurons",
    "Helium": "TransformerLens has no adapter for HeliumForCausalLM",
    "Jamba": "TransformerLens does not compute what Hugging Face does",
    "Lfm2": "Lfm2MLP names no activation function",
    "NemotronH": "block 0 has no MLP of its own; it holds norm, mixer",
    "OpenAIGPT": "add up to: something that no module of it names, or a norm of the sum",
}


@pytest.fixture(scope="module")
def further(tmp_path_factory):
    """``further(architecture)``: the folder of one of `tiny.FURTHER` or `tiny.UNSUPPORTED`."""
    folder = tmp_path_factory.mktemp("further")
    return lambda name: tiny.save_model(name, folder / name)


@pytest.mark.parametrize("architecture", BLOCKS)
def test_blocks_of_every_shape_add_up(architecture, further):
    load_model(further(architecture), device="cpu")


@pytest.mark.parametrize("architecture", REFUSED)
def test_the_reason_of_a_refusal_is_the_real_one(architecture, further):
    with pytest.raises(ModelError, match=REFUSED[architecture]):
        load_model(further(architecture), device="cpu")


def test_a_model_that_the_bridge_cannot_run_is_refused_when_it_is_loaded(further, monkeypatch):
    kind, values = tiny.FURTHER["Bamba"]
    monkeypatch.setitem(tiny.FURTHER, "Bamba", (kind, values | {"attn_layer_indices": []}))
    with pytest.raises(ModelError, match="TransformerLens does not compute what .* on Attention"):
        load_model(further("Bamba"), device="cpu")


def test_sizes_that_do_not_fit_each_other_are_refused_by_name(further, monkeypatch):
    kind, values = tiny.UNSUPPORTED["Gemma4 (widths)"]
    broken = (kind, values | {"hidden_size_per_layer_input": 0})
    monkeypatch.setitem(tiny.UNSUPPORTED, "Gemma4 (widths)", broken)
    with pytest.raises(ModelError, match="Hugging Face cannot run Gemma4ForCausalLM with this con"):
        load_model(further("Gemma4 (widths)"), device="cpu")


# Sabotage: a Llama whose second block does something else


class Adapter(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.down, self.up = nn.Linear(tiny.D_MODEL, 6), nn.Linear(6, tiny.D_MODEL)

    def forward(self, x):
        return x + self.up(torch.relu(self.down(x)))


def changed(model, change):
    """Let `change(layer, input, output)` say what the second block gives."""
    layer = model.blocks[1].original_component
    plain = layer.forward
    layer.forward = lambda hidden_states, **more: change(
        layer, hidden_states, plain(hidden_states, **more)
    )


def adding(make):
    """Give the second block a module `extra` that reads its input and adds to its output."""

    def sabotage(model):
        model.blocks[1].original_component.extra = make(model)
        changed(model, lambda layer, given, out: out + layer.extra(given))

    return sabotage


def after_the_mlp(make):
    """Put a module behind the MLP of the second block."""

    def sabotage(model):
        layer = model.blocks[1].original_component
        layer.extra = make(model)
        mlp = layer.mlp
        plain = mlp.original_component.forward
        mlp.original_component.forward = lambda x: layer.extra(plain(x))

    return sabotage


def second_mlp(model):
    return type(model.blocks[0].mlp.original_component)(model.original_model.config)


def scaled(factor):
    def sabotage(model):
        mlp = model.blocks[1].mlp.original_component
        plain = mlp.forward
        mlp.forward = lambda x: plain(x) * factor

    return sabotage


def gated(model):
    """The MLP's output, times a number for each token that a linear map gives."""
    layer = model.blocks[1].original_component
    layer.extra = nn.Linear(tiny.D_MODEL, 1)
    plain = layer.mlp.original_component.forward
    layer.mlp.original_component.forward = lambda x: plain(x) * torch.sigmoid(layer.extra(x))


def bias(model):
    layer = model.blocks[1].original_component
    layer.register_parameter("extra", nn.Parameter(torch.full((tiny.D_MODEL,), 0.01)))
    changed(model, lambda layer, given, out: out + layer.extra)


SABOTAGE = {
    "a second MLP": (adding(second_mlp), r"block 1 .*add up to: extra \("),
    "an adapter beside": (adding(Adapter), r"block 1 .*add up to: extra \("),
    "an adapter behind": (after_the_mlp(Adapter), r"block 1 .*add up to: extra \("),
    "a linear map": (adding(lambda model: nn.Linear(32, 32)), r"block 1 .*add up to: extra \("),
    "a bias": (bias, r"block 1 .*add up to: something that no module"),
    "a gate": (gated, r"block 1 .*add up to: extra \("),
    "a scaled MLP": (scaled(0.37), r"block 1 multiplies its MLP by 0\.37, a number that it"),
    "no MLP": (scaled(0.0), r"block 1 multiplies its MLP by "),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_a_block_that_does_more_or_less_is_refused(what, own):
    sabotage, message = SABOTAGE[what]
    torch.manual_seed(0)
    sabotage(own)
    with pytest.raises(ModelError, match=f"does more than its neurons do: {message}"):
        verify_neuron_hooks(own)


def test_a_model_that_adds_up_is_as_before_the_check(own):
    hooks = [dict(module._forward_hooks) for module in own.modules()]
    verify_neuron_hooks(own)
    assert [dict(module._forward_hooks) for module in own.modules()] == hooks


# In other dtypes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("architecture", ["Gemma4", "Granite", "Mpt"])
def test_rounding_is_no_surplus_in_any_dtype(architecture, dtype, further):
    load_model(further(architecture), dtype=dtype, device="cpu")


def test_a_surplus_is_seen_in_half_precision_too(further):
    with pytest.raises(ModelError, match="add up to: per_layer_input_gate"):
        load_model(further("Gemma4 (per-layer inputs)"), dtype="float16", device="cpu")


def test_experts_without_a_router_of_that_name_are_a_surplus(further, monkeypatch):
    """The guard of the blocks, when the routers are not recognised."""
    for module in (loading, sites):
        monkeypatch.setattr(module, "has_routers", lambda model: False)
    with pytest.raises(ModelError, match=r"does more .*: block 0 .*: router, experts \(\d\d%"):
        load_model(further("Gemma4 (experts)"), device="cpu")


# xIELU


def test_xielu_is_positive_far_below_zero_from_a_point_of_each_layer(further):
    model = load_model(further("Apertus"), device="cpu")
    with torch.no_grad():  # alpha_n = 0.5 + softplus: 1.19 and 4.5
        for layer, value in ((0, 0.0), (1, 4.0)):
            model.blocks[layer].mlp.original_component.act_fn.alpha_n.fill_(value)
    site = neuron_site(model)
    assert not site.sign_decides
    points = torch.tensor([-3.0, -1.2, -0.1, 0.0, 2.0])
    active = [(site.activations[layer](points) > 0).tolist() for layer in (0, 1)]
    assert active == [[True, False, False, False, True], [True, True, False, False, True]]
