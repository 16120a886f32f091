"""Grids of patches against plain hooks on the Hugging Face model, TransformerLens, and by hand."""

from __future__ import annotations

from inspect import unwrap

import numpy as np
import pytest
import tiny
import torch
from transformer_lens import patching

from lensneurons.errors import LensNeuronsError
from lensneurons.views import PatchGrid, patch_grid

A, B = "the cat sat on a mat", "小明有三个苹果"


@pytest.fixture(scope="module")
def plain():
    """The Hugging Face model behind the Llama of all tests, and its tokenizer."""
    return tiny.random_model("Llama"), tiny.byte_tokenizer(bos=True)


def ids_of(tokenizer, text):
    return torch.tensor([tokenizer(text)["input_ids"]])


@torch.no_grad()
def by_hooks(plain, site, measure):
    """The grid, one pass a cell, by forward hooks of PyTorch alone."""
    model, tokenizer = plain
    a, b = ids_of(tokenizer, A), ids_of(tokenizer, B)
    modules = [layer if site == "residual" else layer.mlp for layer in model.model.layers]
    n = min(a.shape[1], b.shape[1])
    grid = np.zeros((len(modules), n))
    for layer, module in enumerate(modules):
        seen = {}

        def keep(_, __, out, seen=seen):
            seen["out"] = (out[0] if isinstance(out, tuple) else out).clone()

        with module.register_forward_hook(keep):
            model(a)
        for place in range(-n, 0):

            def put(_, __, out, seen=seen, place=place):
                hidden = (out[0] if isinstance(out, tuple) else out).clone()
                hidden[:, place] = seen["out"][:, place]
                return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

            with module.register_forward_hook(put):
                grid[layer, place] = measure(model(b).logits[0, -1])
    return grid, measure(model(a).logits[0, -1]), measure(model(b).logits[0, -1])


@pytest.mark.parametrize("site", ["residual", "mlp"])
def test_every_cell_is_that_of_plain_hooks(site, llama, plain):
    for metric, against in (("logit difference", 9), ("probability", None)):

        def measure(logits, against=against):
            if against is None:
                return logits.double().softmax(-1)[7].item()
            return (logits[7] - logits[against]).item()

        found = patch_grid(llama, A, B, answer=7, against=against, metric=metric, site=site)
        grid, source, target = by_hooks(plain, site, measure)
        assert found.values.shape == grid.shape == (tiny.LAYERS, len(found.positions))
        np.testing.assert_allclose(found.values, grid, atol=2e-4)
        assert np.ptp(grid) > 1e-3
        assert (found.source, found.target) == pytest.approx((source, target), abs=2e-4)


def test_equal_lengths_are_the_grid_of_transformer_lens(llama, plain):
    tokens = ids_of(plain[1], A)
    b = plain[1].decode(tokens[0, 1:].flip(0))
    other = ids_of(plain[1], b)
    if other.shape != tokens.shape:  # merges differ: another text of the same length
        b, other = A[::-1], ids_of(plain[1], A[::-1])
    n = min(tokens.shape[1], other.shape[1])
    found = patch_grid(llama, A, b, answer=5, against=6)
    if tokens.shape == other.shape:
        _, cache = llama.run_with_cache(tokens)
        grid = patching.generic_activation_patch(
            llama, other, cache, lambda logits: logits[0, -1, 5] - logits[0, -1, 6],
            patching.layer_pos_patch_setter, "resid_post", index_axis_names=("layer", "pos"),
        )  # fmt: skip
        np.testing.assert_allclose(found.values, grid.numpy(), atol=2e-4)
    assert found.values.shape[1] == n


def test_known_cells(llama):
    found = patch_grid(llama, A, B)
    assert found.values[-1, -1] == pytest.approx(found.source, abs=1e-4)  # the prediction itself
    assert found.restored[-1, -1] == pytest.approx(1, abs=1e-4)
    same = patch_grid(llama, A, A, metric="probability")
    np.testing.assert_allclose(same.values, same.target, atol=1e-6)
    assert np.isnan(same.restored).all()
    before = found.restored[-1, :-1]  # the last layer's stream elsewhere reaches no prediction
    np.testing.assert_allclose(before, 0, atol=1e-4)
    assert llama.hook_dict["blocks.0.hook_resid_post"].fwd_hooks == []


def test_the_model_names_the_tokens_where_none_are_given(llama, plain):
    model, tokenizer = plain
    with torch.no_grad():
        says = [int(model(ids_of(tokenizer, text)).logits[0, -1].argmax()) for text in (A, B)]
    found = patch_grid(llama, A, B)
    assert says[0] != says[1]
    assert (found.answer, found.against) == tuple(tokenizer.decode([one]) for one in says)
    assert found.metric == "logit difference"
    assert found.source > 0 > found.target
    whole = tokenizer(A + "三")["input_ids"]
    first = tokenizer.decode([whole[len(tokenizer(A)["input_ids"])]])
    assert patch_grid(llama, A, B, answer="三").answer == first


def test_it_is_a_table_a_figure_and_a_file(llama, tmp_path):
    found = patch_grid(llama, A, "<b>" + B, metric="probability")
    table = found.to_pandas()
    assert len(table) == found.values.size
    row = table[(table["layer"] == 1) & (table["position"] == -1)].iloc[0]
    assert row["value"] == found.values[1, -1]
    assert (row["source_token"], row["target_token"]) == (
        found.source_tokens[-1],
        found.target_tokens[-1],
    )
    figure = found.figure()
    heat = figure.data[0]
    np.testing.assert_array_equal(heat.z, found.values)
    np.testing.assert_array_equal(heat.customdata, found.restored)
    words = figure.to_json()
    assert "&lt;b" in words or "&lt;" in words
    assert "<b>小" not in words
    assert "<b>" not in found._repr_html_()
    again = PatchGrid.load(found.save(tmp_path / "grid"))
    assert repr(again) == repr(found)
    assert again.figure().to_json() == figure.to_json()


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        (("", B), {}, "a='': give a sentence"),
        ((A, 3), {}, "b=3: give a sentence"),
        ((A, B), {"site": "attn"}, "site='attn' is not known"),
        ((A, B), {"metric": "loss"}, "metric='loss' is not known"),
        ((A, B), {"answer": 10**6}, "answer=1000000 is no id below 350"),
        ((A, B), {"answer": ""}, "answer='': give a text, or the id of a token"),
        ((A, B), {"answer": 5, "against": 5}, "is what both are about"),
        ((A, A), {"metric": "logit difference"}, "is what both are about"),
    ],
)
def test_refusals(given, options, told, llama):
    with pytest.raises(LensNeuronsError, match=told):
        unwrap(patch_grid)(llama, *given, **options)
