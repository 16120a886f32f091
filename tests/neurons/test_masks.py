"""Masks in the published form: what is written is what the published code reads, and reads back."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap

import numpy as np
import pytest
import tiny
import torch
from edited import draw_set
from real_data import real_data

from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.published import read_published_mask, write_published_mask
from lensneurons.neurons.sets import NeuronSet


def test_a_mask_by_hand(tmp_path):
    sets = {
        "zh": NeuronSet(np.array([1, 5, 4]), 3, 4, "zh"),
        "en": NeuronSet(np.array([11]), 3, 4, "en"),
    }
    content = torch.load(write_published_mask(tmp_path / "m.pth", sets), weights_only=True)
    assert [[one.tolist() for one in layers] for layers in content] == [
        [[1], [0, 1], []],
        [[], [], [3]],
    ]
    assert {one.dtype for layers in content for one in layers} == {torch.int64}
    assert read_published_mask(tmp_path / "m.pth", languages=["zh", "en"], d_mlp=4) == sets


def test_neurons_and_sets_save_it(tmp_path):
    neurons = tiny.drawn_neurons()
    path = neurons.save(tmp_path / "all.pth", format="lape")
    found = read_published_mask(path, languages=neurons.languages, d_mlp=tiny.D_MLP)
    assert found == {k: neurons[k] for k in neurons.languages}
    one = draw_set()
    found = read_published_mask(
        one.save(tmp_path / "one.pth", format="lape"), languages=["x"], d_mlp=tiny.D_MLP
    )
    assert found == {"x": one}
    assert NeuronSet.load(one.save(tmp_path / "one")) == one
    assert type(neurons).load(neurons.save(tmp_path / "all"))["en"] == neurons["en"]


def test_a_published_mask_comes_back_as_it_was(tmp_path):
    """The tensors of a real file of the published code, read and written again."""
    path = real_data("lape_masks") / "LLaMA-2-7B.neuron.pth"
    languages = [str(n) for n in range(len(torch.load(path, weights_only=True)))]
    sets = read_published_mask(path, languages=languages, d_mlp=11008)
    ours = torch.load(write_published_mask(tmp_path / "m.pth", sets), weights_only=True)
    theirs = torch.load(path, weights_only=True)
    for mine, published in zip(ours, theirs, strict=True):
        for a, b in zip(mine, published, strict=True):
            assert torch.equal(a, b.long().sort().values)


def test_what_is_refused(tmp_path):
    with pytest.raises(LensNeuronsError, match="'lape'"):
        unwrap(NeuronSet.save)(draw_set(), tmp_path / "x", format="pickle")
    with pytest.raises(LensNeuronsError, match="sets of one model"):
        write_published_mask(tmp_path / "x", {"a": draw_set(), "b": draw_set(d_mlp=8)})
    with pytest.raises(LensNeuronsError, match="sets of one model"):
        write_published_mask(tmp_path / "x", {})
    for kind in ({"unit": "expert"}, {"n_experts": 2}):
        with pytest.raises(LensNeuronsError, match="neurons of dense layers"):
            replace(draw_set(), **kind).save(tmp_path / "x", format="lape")
