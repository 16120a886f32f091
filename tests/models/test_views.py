"""The view that writes: hooks on linear maps act in it, no other hook point is left."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import tiny
import torch

from lensneurons.evaluation.generation import generate
from lensneurons.interventions.editing import scale
from lensneurons.models.family import all_modules
from lensneurons.models.sites import neuron_site
from lensneurons.models.views import writing_view
from lensneurons.neurons.sets import NeuronSet

IDS = torch.randint(3, 340, (3, 31), generator=torch.Generator().manual_seed(1))
FUSED = ("Phi3", "Falcon")  # their models have no plain view


def half(tensor, hook):
    return tensor * torch.linspace(0, 1, tensor.shape[-1])


def bridges_in(view):
    return [one for one in all_modules(view) if "model_bridge" in type(one).__module__]


def both(model):
    """Logits of the bridge and of what writes its texts, and whether that is a view."""
    view = writing_view(model)
    with torch.inference_mode():
        return model(IDS), view(IDS).logits, view is not model.original_model


@pytest.mark.parametrize("architecture", [a for a in tiny.ARCHITECTURES if a not in FUSED])
def test_hooks_on_a_linear_map_act_in_the_view(architecture, bridge):
    model = bridge(architecture)
    whole, viewed, _ = both(model)
    torch.testing.assert_close(viewed, whole)
    sites = neuron_site(model).post
    with model.hooks(fwd_hooks=[(sites[0], half), (sites[-1], half)]):
        hooked, viewed, is_view = both(model)
        assert not torch.allclose(hooked, whole)
        torch.testing.assert_close(viewed, hooked)
        if is_view:
            kept = {id(one) for one in bridges_in(writing_view(model))}
            assert kept == {id(model.blocks[layer].mlp.out) for layer in (0, -1)}
    assert not bridges_in(writing_view(model))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_hook_on_any_point_sees_and_does_the_same_where_texts_are_written(architecture, bridge):
    """Also on points that a bridge never calls, such as the fused map of GPT-2's attention."""
    model, seen = bridge(architecture), []

    def keep(tensor, hook):
        seen.append(tensor.clone())
        return tensor * 0.5

    viewed = set()
    for name in [one for one in model.hook_dict if one.startswith("blocks.1.")]:
        with ExitStack() as stack:
            try:
                stack.enter_context(model.hooks(fwd_hooks=[(name, keep)]))
            except ValueError:  # a point that a setting of the bridge switches on
                continue
            view = writing_view(model)
            if view is model.original_model:
                continue
            viewed.add(name)
            ways = []
            for run in (lambda: model(IDS), lambda view=view: view(IDS).logits):
                seen.clear()
                with torch.inference_mode():
                    ways.append([run(), *seen])
            assert len(ways[0]) == len(ways[1])
            for ours, theirs in zip(*ways, strict=True):
                torch.testing.assert_close(ours, theirs)
    assert not any(".attn." in name for name in viewed)
    assert architecture in FUSED or any("mlp" in name for name in viewed)


def test_most_architectures_have_a_view_under_hooks(bridge):
    found = []
    for architecture in tiny.ARCHITECTURES:
        model = bridge(architecture)
        with model.hooks(fwd_hooks=[(neuron_site(model).post[0], half)]):
            if both(model)[2]:
                found.append(architecture)
    assert {"Llama", "GPT2", "Gemma2", "Qwen3"} <= set(found)
    assert len(found) > len(tiny.ARCHITECTURES) // 2


@pytest.mark.parametrize("point", ["blocks.1.hook_out", "blocks.1.attn.hook_pattern", "hook_embed"])
def test_other_hooks_leave_the_writing_to_the_bridge(own, point):
    neurons = (neuron_site(own).post[0], half)
    with own.hooks(fwd_hooks=[neurons, (point, lambda tensor, hook: tensor)]):
        assert writing_view(own) is own.original_model
    with own.hooks(fwd_hooks=[neurons]):
        assert writing_view(own) is not own.original_model


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_raw_hook_on_a_linear_map_leaves_the_writing_to_the_bridge(own, kind):
    handle = getattr(own.blocks[0].mlp.out.original_component, kind)(lambda *given: None)
    assert writing_view(own) is own.original_model
    handle.remove()
    assert writing_view(own) is not own.original_model


def test_texts_under_an_ablation_are_those_of_the_bridge(own, monkeypatch):
    names = [f"L{layer}N{neuron}" for layer in (0, 2) for neuron in range(0, 40, 3)]
    neurons = NeuronSet.from_names(names, n_layers=tiny.LAYERS, d_mlp=tiny.D_MLP)
    prompts = ["one two three", "seven"]
    with scale(own, neurons, 0.0):
        viewed = generate(own, prompts, max_new_tokens=12, progress=False)
        with monkeypatch.context() as patch:
            patch.setattr(
                "lensneurons.evaluation.generation.writing_view", lambda m: m.original_model
            )
            assert generate(own, prompts, max_new_tokens=12, progress=False) == viewed
    assert generate(own, prompts, max_new_tokens=12, progress=False) != viewed
