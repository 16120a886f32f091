"""Counts in half precision are the model's own, and the signs that differ from float32 are told."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny
import torch
from oracle import count_by_hand, encode_by_hand, pre_of
from transformers import AutoTokenizer

from lensneurons.activations.collection import collect
from lensneurons.activations.sign_differences import SignDifferences, sign_differences
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.loading import load_model

CORPUS = tiny.tiny_corpus()
ARCHITECTURES = ["Llama", "GPT2"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_counts_are_those_of_hugging_face_in_that_dtype(dtype, architecture, model_folder):
    """Text by text, because other shapes of a matrix product round otherwise."""
    model = load_model(model_folder(architecture), dtype=dtype, device="cpu")
    ours = collect(model, CORPUS, batch_tokens=1, progress=False)
    half = getattr(torch, dtype)
    oracle = count_by_hand(model_folder(architecture), architecture, CORPUS, dtype=half)
    assert np.array_equal(ours.tokens, oracle.tokens)
    assert np.array_equal(ours.counts, oracle.counts)
    wide = count_by_hand(model_folder(architecture), architecture, CORPUS)
    assert not np.array_equal(ours.counts, wide.counts)
    assert ours.provenance.dtype == dtype


def by_hand(folder, architecture, dtype, exact=None):
    """Signs that differ, [layer, language]: silenced and roused; one plain forward a text."""
    half = tiny.load_plain(folder, dtype=dtype)
    full = copy.deepcopy(half).float() if exact is None else exact
    tokenizer = AutoTokenizer.from_pretrained(folder)
    silenced, roused = (np.zeros((tiny.LAYERS, 3), np.int64) for _ in range(2))
    for item in CORPUS:
        ids, where = encode_by_hand(tokenizer, item, "response")
        own, true = (pre_of(m, architecture, ids)[:, where].numpy_force() > 0 for m in (half, full))
        k = CORPUS.languages.index(item.language)
        silenced[:, k] += (true & ~own).sum(axis=(1, 2))
        roused[:, k] += (own & ~true).sum(axis=(1, 2))
    return silenced, roused


def to_numpy(tensor):
    return tensor.float().numpy()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_differing_signs_are_those_of_plain_models(dtype, architecture, model_folder, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "numpy_force", to_numpy, raising=False)
    folder = model_folder(architecture)
    model = load_model(folder, dtype=dtype, device="cpu")
    found = sign_differences(model, CORPUS, batch_tokens=1, progress=False)
    silenced, roused = by_hand(folder, architecture, getattr(torch, dtype))
    assert silenced.sum() + roused.sum() > 0
    assert np.array_equal(found.silenced, silenced)
    assert np.array_equal(found.roused, roused)
    signs = found.tokens * found.d_mlp
    np.testing.assert_allclose(found.share, (silenced + roused) / signs)
    assert next(iter(model.parameters())).dtype is getattr(torch, dtype)  # the model is as before


def test_with_a_reference_the_rounding_of_weights_counts_too(model_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.Tensor, "numpy_force", to_numpy, raising=False)
    folder = model_folder("Llama")
    model, exact = (load_model(folder, dtype=d, device="cpu") for d in ("bfloat16", "float32"))
    found = sign_differences(model, CORPUS, reference=exact, batch_tokens=1, progress=False)
    wanted = by_hand(folder, "Llama", torch.bfloat16, tiny.load_plain(folder))
    assert np.array_equal([found.silenced, found.roused], wanted)
    counts = [collect(m, CORPUS, batch_tokens=1, progress=False).counts for m in (model, exact)]
    net = (counts[0] - counts[1]).sum(axis=1)  # what the two kinds leave of each other in counts
    assert np.array_equal(net, found.roused - found.silenced)
    again = SignDifferences.load(found.save(tmp_path / "signs"))
    assert np.array_equal(again.share, found.share)
    assert "bfloat16 against float32" in repr(again)
    assert "layer" in again._repr_html_()


def test_what_cannot_be_compared_is_refused(llama, model_folder):
    half = load_model(model_folder("Llama"), dtype="bfloat16", device="cpu")
    with pytest.raises(LensNeuronsError, match="the model is in float32, whose signs are"):
        sign_differences(llama, CORPUS)
    with pytest.raises(ModelError, match="reference is in half precision too"):
        sign_differences(half, CORPUS, reference=half)
    with pytest.raises(ModelError, match="reference has 3 layers x 128 neurons, and the model 3 x"):
        sign_differences(half, CORPUS, reference=load_model(model_folder("Bloom"), device="cpu"))
    hook = ("blocks.0.mlp.hook_post", lambda tensor, hook: tensor * 0)
    with half.hooks(fwd_hooks=[hook]), pytest.raises(LensNeuronsError, match="hooks on the model"):
        sign_differences(half, CORPUS)
