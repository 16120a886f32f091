"""Exported folders of other sites than dense neurons, read by plain transformers."""

from __future__ import annotations

import json

import pytest
import tiny
from edited import drawn_units, logits_of, plain_model, state_of

from lensneurons.errors import ModelError
from lensneurons.interventions.editing import ablate, scale
from lensneurons.interventions.export import export
from lensneurons.models.expert_neurons import expert_neuron_site, shared_neuron_site
from lensneurons.models.linear_sites import linear_site
from lensneurons.models.loading import load_model
from lensneurons.models.routers import expert_site


def require_exported(model, units, folder):
    """The folder of the ablated model gives the logits of the block, in plain transformers."""
    before = state_of(model)
    with ablate(model, units):
        wanted = logits_of(model)
    found = logits_of(plain_model(export(model, units, folder)))
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()
    assert (logits_of(model) - wanted).abs().max() > 1e-3 * wanted.abs().max()
    assert state_of(model) == before


@pytest.mark.parametrize("architecture", tiny.EXPERTS)
def test_mixtures(architecture, experts, tmp_path):
    _, model = experts(architecture)
    find = {"inside": expert_neuron_site, "whole": expert_site}
    find |= {"shared": shared_neuron_site} if architecture in tiny.SHARED_MLPS else {}
    for name, site in find.items():
        require_exported(model, drawn_units(site(model)), tmp_path / name)
    again = load_model(tmp_path / "inside", device="cpu")
    with ablate(model, drawn_units(expert_neuron_site(model))):
        wanted = logits_of(model)
    assert (logits_of(again) - wanted).abs().max() <= 5e-6 * wanted.abs().max()
    about = json.loads((tmp_path / "inside" / "lensneurons.json").read_text())
    assert about["units"] == "neurons inside experts"
    assert about["neurons"][0].startswith("L")


def test_a_factor_of_neurons_inside_experts(experts, tmp_path):
    _, model = experts("GptOss")
    units = drawn_units(expert_neuron_site(model))
    with scale(model, units, -1.5):
        wanted = logits_of(model)
    found = logits_of(plain_model(export(model, units, tmp_path / "out", factor=-1.5)))
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()


@pytest.mark.parametrize("architecture", ["Qwen2", "OPT", "Gemma3"])
def test_outputs_of_linear_maps(architecture, bridge, tmp_path):
    model = bridge(architecture)
    for name in ("q", "k", "v", "attn_out", "mlp_out"):
        require_exported(model, drawn_units(linear_site(model, name)), tmp_path / name)


def test_a_fused_projection_is_refused(bridge, tmp_path):
    model = bridge("GPT2")
    with pytest.raises(ModelError, match="q of GPT2LMHeadModel is a part of one fused projection"):
        export(model, drawn_units(linear_site(model, "q")), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    require_exported(model, drawn_units(linear_site(model, "attn_out")), tmp_path / "out")
