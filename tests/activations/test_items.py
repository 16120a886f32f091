"""Activations of items are Hugging Face's, text by text, in memory and in a file."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import tiny
import torch
from oracle import ACTIVATIONS, encode_by_hand, pre_of
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.activations.items import ItemActivations, item_activations
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, StorageError

CORPUS = tiny.tiny_corpus(("en", "th"))


@pytest.mark.parametrize("scope", ["response", "all"])
@pytest.mark.parametrize("architecture", ["Llama", "OPT"])
def test_every_text_has_the_mean_of_its_own_counted_tokens(
    architecture, scope, model_folder, bridge
):
    folder = model_folder(architecture)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = item_activations(bridge(architecture), CORPUS, scope=scope, progress=False)
    act = ACTIVATIONS.get(architecture, functional.silu)
    assert found.languages == ("en", "th")
    for item in CORPUS:
        ids, at = encode_by_hand(tokenizer, item, scope)
        theirs = act(pre_of(plain, architecture, ids)[:, at]).mean(1)
        own = found.languages.index(item.language), found.item_ids.index(item.id)
        np.testing.assert_allclose(found.mean[own], theirs.detach(), rtol=1e-4, atol=1e-6)


def test_batches_change_nothing_and_a_file_holds_the_same(llama, tmp_path):
    usual = item_activations(llama, CORPUS, progress=False)
    alone = item_activations(llama, CORPUS, batch_tokens=1, progress=False)
    filed = item_activations(llama, CORPUS, file=tmp_path / "items.npy", progress=False)
    np.testing.assert_allclose(usual.mean, alone.mean, rtol=1e-4, atol=1e-6)
    assert isinstance(filed.mean, np.memmap)
    np.testing.assert_array_equal(usual.mean, filed.mean)
    assert [path.name for path in tmp_path.iterdir()] == ["items.npy"]
    with pytest.raises(StorageError, match="folder"):
        item_activations(llama, CORPUS, file=tmp_path, progress=False)


def test_a_full_disk_is_told_before_the_pass_and_leaves_no_file(llama, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="disk is full"):
        item_activations(llama, CORPUS, file=tmp_path / "items.npy", progress=False)
    assert not list(tmp_path.iterdir())


def test_items_without_a_language_are_left_out_and_told(llama):
    rows = [
        {"id": "1", "language": "en", "prompt": "", "response": "one two three"},
        {"id": "2", "language": "en", "prompt": "", "response": "four five"},
        {"id": "2", "language": "de", "prompt": "", "response": "vier"},
    ]
    with pytest.warns(UserWarning, match="lacks 1 of 2"):
        corpus = build_corpus(rows, name="rows")
    found = item_activations(llama, corpus, progress=False)
    assert (found.item_ids, found.left_out) == (("2",), 1)
    assert "1 items lack a language" in repr(found)
    with pytest.warns(UserWarning, match="lacks 1 of 2"):
        apart = build_corpus([rows[0], rows[2]], name="rows")
    with pytest.raises(CorpusError, match="select languages"):
        item_activations(llama, apart, progress=False)


def test_saved_and_shown(llama, tmp_path):
    found = item_activations(llama, CORPUS, progress=False)
    again = ItemActivations.load(found.save(tmp_path / "items"))
    np.testing.assert_array_equal(found.mean, again.mean)
    assert again.item_ids == found.item_ids
    assert "layer 2" in found.to_text()
    assert found.to_xarray()["mean"].sel(language="th").shape == found.mean.shape[1:]
    with pytest.raises(LensNeuronsError, match="do not fit"):
        ItemActivations(("en",), found.item_ids, found.mean)


def test_hooks_act(llama):
    found = item_activations(llama, CORPUS, progress=False)
    silence = ("blocks.1.mlp.hook_pre", lambda pre, hook: torch.zeros_like(pre))
    with llama.hooks(fwd_hooks=[silence]):
        without = item_activations(llama, CORPUS, progress=False)
    assert not without.mean[:, :, 1].any()
    np.testing.assert_allclose(found.mean[:, :, 0], without.mean[:, :, 0], rtol=1e-3, atol=1e-6)
