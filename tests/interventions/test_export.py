"""An exported folder, read by plain transformers, gives the logits of `ablate` and `scale`."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from unittest.mock import patch

import pytest
import tiny
import torch
from edited import draw_set, draw_statistics, logits_of, plain_model, state_of, zero_rows

from lensneurons.errors import EmptySetWarning, LensNeuronsError, ModelError, StorageError
from lensneurons.interventions.editing import ablate, scale, steer
from lensneurons.interventions.export import export
from lensneurons.models.identity import hash_config, hash_weights, original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.sets import NeuronSet
from lensneurons.values.files import load_json

module = sys.modules[export.__module__]

EXPORTED = (*tiny.ARCHITECTURES, "Apertus", "Gemma4", "Glm4", "Gemma3 (vision)")


@pytest.fixture
def own(model_folder):
    return load_model(model_folder("Llama"), device="cpu")


@pytest.mark.parametrize("architecture", EXPORTED)
def test_the_reloaded_folder_gives_the_logits_of_the_hooks(
    architecture, bridge, model_folder, tmp_path
):
    model = bridge(architecture)
    neurons, before = draw_set(d_mlp=neuron_site(model).d_mlp), state_of(model)
    for factor, edit in ((0.0, ablate), (-1.5, partial(scale, factor=-1.5))):
        folder = export(model, neurons, tmp_path / f"{factor}", factor=factor)
        with edit(model, neurons):
            wanted = logits_of(model)
        found = logits_of(plain_model(folder))
        largest = wanted.abs().max()
        assert (found - wanted).abs().max() <= 2e-6 * largest
        assert (logits_of(model) - wanted).abs().max() > 1e-3 * largest
    if "vision" not in architecture:  # another class, whose rows are elsewhere
        by_hand = zero_rows(
            plain_model(model_folder(architecture)), architecture, neurons.by_layer()
        )
        assert torch.equal(logits_of(plain_model(tmp_path / "0.0")), logits_of(by_hand))
    assert state_of(model) == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_written_as_it_is(dtype, model_folder, tmp_path):
    model = load_model(model_folder("Qwen2"), device="cpu", dtype=dtype)
    neurons = draw_set()
    again = load_model(export(model, neurons, tmp_path / "out"), device="cpu", dtype=dtype)
    with ablate(model, neurons):
        assert torch.equal(logits_of(again), logits_of(model))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype


def test_tied_embeddings_stay_tied(model_folder, tmp_path):
    """Gemma's unembedding is its embedding; the file holds it once."""
    model = load_model(model_folder("Gemma2"), device="cpu")
    plain = plain_model(export(model, draw_set(), tmp_path / "out"))
    assert plain.lm_head.weight.data_ptr() == plain.model.embed_tokens.weight.data_ptr()


def test_the_folder_is_a_model_like_the_one_before(own, tmp_path):
    folder = export(own, draw_set(), tmp_path / "out")
    again = load_model(folder, device="cpu")
    assert hash_config(again) == hash_config(own)
    text = "Ein Text, 还有 ไทย"
    assert original_tokenizer(again)(text).input_ids == original_tokenizer(own)(text).input_ids
    about = load_json(folder / "lensneurons.json")
    assert about["neurons"] == draw_set().names
    assert about["factor"] == 0.0
    assert about["model"]["weights"] == hash_weights(own)
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_an_adapter_is_merged(tmp_path):
    model = load_model("demo", device="cpu", adapter="sw-th")
    site = neuron_site(model)
    neurons = NeuronSet.from_names(["L1N3"], n_layers=site.n_layers, d_mlp=site.d_mlp)
    again = load_model(export(model, neurons, tmp_path / "out"), device="cpu")
    with ablate(model, neurons):
        wanted = logits_of(model)
    assert (logits_of(again) - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    assert "sw-th" in load_json(tmp_path / "out" / "lensneurons.json")["model"]["model"]


def test_no_neurons_are_the_model_itself(own, model_folder, tmp_path):
    with pytest.warns(EmptySetWarning, match="no neurons"):
        folder = export(own, NeuronSet.from_mask(draw_set().mask() & False), tmp_path / "out")
    assert torch.equal(
        logits_of(plain_model(folder)), logits_of(plain_model(model_folder("Llama")))
    )


# What is refused


def test_hooks_are_no_weights(own, tmp_path):
    statistics = draw_statistics()
    for edit in (
        ablate(own, draw_set()),
        ablate(own, draw_set(), method="mean", statistics=statistics),
        steer(own, draw_set(), statistics, toward="zh"),
    ):
        with edit, pytest.raises(ModelError, match="weights cannot express what they do"):
            export(own, draw_set(), tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_sets_by_row_are_no_weights(own, tmp_path):
    with pytest.raises(LensNeuronsError, match="2 sets of neurons"):
        export(own, [draw_set(0), draw_set(1)], tmp_path / "out")


def test_a_weight_that_two_layers_share_is_refused(own, tmp_path):
    inner = [block.mlp.out.original_component for block in own.blocks]
    inner[1].weight = inner[0].weight
    with pytest.raises(
        ModelError, match=r"0.mlp.down_proj.weight is also the weight of model.layers.1"
    ):
        export(own, draw_set(layers=(0,)), tmp_path / "out")


def test_an_adapter_that_is_not_merged_is_refused(own, tmp_path):
    inner = own.blocks[1].mlp.original_component
    inner.adapter = torch.nn.Linear(3, 3, bias=False)
    with pytest.raises(ModelError, match=r"no place for model.layers.1.mlp.adapter.weight"):
        export(own, draw_set(), tmp_path / "out")
    del inner.adapter


def test_a_bias_that_was_added_is_refused(own, tmp_path):
    own.unembed.original_component.bias.fill_(0.5)
    with pytest.raises(ModelError, match="no place for lm_head.bias"):
        export(own, draw_set(), tmp_path / "out")


def test_processed_weights_are_refused(own, tmp_path):
    own.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(ModelError, match="processed"):
        export(own, draw_set(), tmp_path / "out")


def test_rows_of_the_wrong_layer_are_noticed(own, tmp_path):
    """The proof, when what it guards is broken."""

    def wrong(view, owner, own, at, factor):
        right(view, owner, own, (at[0], (at[1] + 1) % tiny.D_MLP), factor)

    right = module._scale
    with (
        patch.object(module, "_scale", wrong),
        pytest.raises(ModelError, match="cannot express this edit"),
    ):
        export(own, draw_set(), tmp_path / "out")


def test_a_full_folder_stays(own, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(StorageError, match="is there already"):
        export(own, draw_set(), tmp_path)
    assert os.listdir(tmp_path) == ["mine"]


def test_nothing_is_left_of_a_failure(own, tmp_path):
    tokenizer = original_tokenizer(own)
    failing = patch.object(type(tokenizer), "save_pretrained", side_effect=OSError(28, "full"))
    with failing, pytest.raises(StorageError, match="disk is full"):
        export(own, draw_set(), tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_bad_numbers_and_other_models(own, tmp_path):
    with pytest.raises(LensNeuronsError, match="factor"):
        export(own, draw_set(), tmp_path / "out", factor=float("inf"))
    with pytest.raises(LensNeuronsError, match="is of a model of"):
        export(own, draw_set(d_mlp=8), tmp_path / "out")
