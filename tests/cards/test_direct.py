"""Direct attribution and integrated gradients against plain Hugging Face models."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import tiny
import torch
from edited import before, last_matrix
from oracle import encode_by_hand

from lensneurons.cards.attribution import importance
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.loading import load_model
from lensneurons.models.views import has_hooks

CORPUS = tiny.tiny_corpus().head(3)
# Final norm, norms between MLP and stream, and attention; from Hugging Face's code, not from ours.
PARTS = {
    "GPT2": ("transformer.ln_f", None, "attn"),
    "OPT": ("model.decoder.final_layer_norm", None, "self_attn"),
    "Gemma3": ("model.norm", "post_feedforward_layernorm", "self_attn"),
    "Olmo2": ("model.norm", "post_feedforward_layernorm", "self_attn"),
    "Llama": ("model.norm", None, "self_attn"),
}
LAYERS = {"GPT2": "transformer.h", "OPT": "model.decoder.layers"}


@contextmanager
def direct_paths_alone(hf, architecture, leaves):
    """What layers pass on is cut but for what h adds; norms keep their scales."""
    final, post, attention = PARTS[architecture]
    blocks = hf.get_submodule(LAYERS.get(architecture, "model.layers"))
    norms = [hf.get_submodule(final), *(getattr(b, post) for b in blocks if post)]

    def cut(module, inputs, output):
        return tuple(o.detach() if torch.is_tensor(o) else o for o in output)

    def frozen(module, inputs, output):
        (x,), bias = inputs, getattr(module, "bias", None)
        x = x if bias is None else x - x.mean(-1, keepdim=True)
        bias = 0 if bias is None else bias.detach()
        return x * ((output - bias) / x).detach() + bias

    def leaf(layer, h):
        leaves[layer] = h.detach().requires_grad_()
        return leaves[layer]

    with ExitStack() as stack, before(last_matrix(hf, architecture), leaf):
        for block in blocks:
            stack.enter_context(getattr(block, attention).register_forward_hook(cut))
        for norm in norms:
            stack.enter_context(norm.register_forward_hook(frozen))
        yield


def direct_by_hand(folder, architecture, tokens=None):
    """Mean of what h adds to the centred logit, [layer, neuron, language], by autograd."""
    hf = tiny.load_plain(folder, dtype=torch.float64, attn_implementation="eager")
    tokenizer = tiny.byte_tokenizer(bos=architecture in tiny.PREPEND_BOS)
    columns = []
    for language in CORPUS.languages:
        total, n = 0.0, 0
        for item in CORPUS.select([language]):
            ids, where = encode_by_hand(tokenizer, item, "response")
            targets = [place for place in where if place > 0]
            leaves = {}
            with direct_paths_alone(hf, architecture, leaves):
                logits = hf(torch.tensor([ids])).logits[0]
            asked = 0.0
            for place in targets:
                row = logits[place - 1]
                wanted = row[ids[place]] if tokens is None else row[list(tokens)].mean()
                asked = asked + wanted - row.mean()
            slopes = torch.autograd.grad(asked, [leaves[n] for n in range(tiny.LAYERS)])
            total += np.stack(
                [(leaves[n] * slope).sum(0).detach().numpy() for n, slope in enumerate(slopes)]
            )
            n += len(targets)
        columns.append(total / n)
    return np.stack(columns, -1)


@pytest.mark.parametrize("architecture", PARTS)
def test_direct_equals_autograd_along_the_direct_path(architecture, bridge, model_folder):
    ours = importance(bridge(architecture), CORPUS, method="direct").value
    theirs = direct_by_hand(model_folder(architecture), architecture)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    assert not has_hooks(bridge(architecture))


def test_direct_of_a_set_of_tokens(bridge, model_folder):
    ours = importance(bridge("Gemma3"), CORPUS, method="direct", tokens=[7, 40, 41]).value
    theirs = direct_by_hand(model_folder("Gemma3"), "Gemma3", tokens=[7, 40, 41])
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@torch.no_grad()
def nll_of(hf, architecture, language, change):
    """Mean NLL of the counted tokens where ``change(layer, h of the counted tokens)`` goes on."""
    tokenizer = tiny.byte_tokenizer(bos=architecture in tiny.PREPEND_BOS)
    total, n = 0.0, 0
    for item in CORPUS.select([language]):
        ids, where = encode_by_hand(tokenizer, item, "response")

        def changed(layer, h, where=where):
            h = h.clone()
            h[where] = change(layer, h[where])
            return h

        with before(last_matrix(hf, architecture), changed):
            chances = hf(torch.tensor([ids])).logits[0].log_softmax(-1)
        targets = [place for place in where if place > 0]
        total -= sum(float(chances[place - 1, ids[place]]) for place in targets)
        n += len(targets)
    return total / n


@pytest.mark.parametrize("architecture", ["Llama", "OPT"])
def test_integrated_gradients_equal_finite_differences(architecture, model_folder):
    """At both midpoints the whole layer is scaled, and one neuron a little more or less."""
    folder = model_folder(architecture)
    model = load_model(folder, device="cpu", dtype="float64")
    found = importance(model, CORPUS, method="integrated_gradients", steps=2)
    hf = tiny.load_plain(folder, dtype=torch.float64)
    step = 1e-4 if architecture == "OPT" else 1e-2
    for layer, neuron, language in ((0, 7, "en"), (1, 20, "th"), (2, 3, "zh")):
        slopes = []
        for share in (0.25, 0.75):
            ends = []
            for sign in (1, -1):

                def scaled(at, h, share=share, sign=sign, layer=layer, neuron=neuron):
                    if at != layer:
                        return h
                    h = share * h
                    h[:, neuron] *= 1 + sign * step / share
                    return h

                ends.append(nll_of(hf, architecture, language, scaled))
            slopes.append((ends[0] - ends[1]) / (2 * step))
        value = found.of(f"L{layer}N{neuron}")[language]
        largest = np.abs(found.value[layer]).max()
        assert value == pytest.approx(np.mean(slopes), rel=0.01, abs=0.003 * largest)
        assert found.predicted(f"L{layer}N{neuron}")[language] == -value


def test_integrated_gradients_of_a_layer_add_up_to_what_it_does(model_folder):
    """To the midpoint rule of d NLL / d share, and nearer to the whole with more midpoints."""
    folder = model_folder("Llama")
    model = load_model(folder, device="cpu", dtype="float64")
    hf = tiny.load_plain(folder, dtype=torch.float64)
    chinese = CORPUS.select(["zh"])
    coarse, fine = (
        importance(model, chinese, method="integrated_gradients", steps=n).value.sum(1)[:, 0]
        for n in (1, 10)
    )

    def at(layer, share):
        return nll_of(hf, "Llama", "zh", lambda n, h: h * share if n == layer else h)

    wholes = []
    for layer in range(tiny.LAYERS):
        slopes = [
            (at(layer, share + 1e-3) - at(layer, share - 1e-3)) / 2e-3
            for share in (np.arange(10) + 0.5) / 10
        ]
        assert fine[layer] == pytest.approx(np.mean(slopes), abs=1e-3)
        wholes.append(at(layer, 1) - at(layer, 0))
    assert np.abs(fine - wholes).sum() < 0.5 * np.abs(coarse - wholes).sum()


def test_integrated_gradients_leave_weights_and_modes_alone(bridge):
    model = bridge("Qwen2")
    plain = importance(model, CORPUS, method="integrated_gradients", steps=1).value
    with torch.inference_mode():
        again = importance(model, CORPUS, method="integrated_gradients", steps=1).value
        assert torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    assert np.array_equal(plain, again)
    assert all(weight.grad is None for weight in model.parameters())
    assert not has_hooks(model)


@pytest.mark.parametrize("method", ["direct", "integrated_gradients", "activation"])
def test_batches_do_not_matter(method, bridge):
    whole, single = (
        importance(bridge("Gemma3"), CORPUS, method=method, batch_tokens=n) for n in (10**6, 1)
    )
    largest = np.abs(whole.value).max()
    np.testing.assert_allclose(single.value, whole.value, rtol=1e-3, atol=1e-5 * largest)


def test_lengths_are_activations_times_rows(bridge):
    model = bridge("GPT2")
    length, mean = (importance(model, CORPUS, method=m).value for m in ("plnd", "activation"))
    rows = [block.mlp.W_out.detach().double().norm(dim=1).numpy() for block in model.blocks]
    np.testing.assert_allclose(length, mean * np.stack(rows)[..., None], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "plnd", "steps": 3}, "steps= needs method='integrated_gradients', not 'plnd'"),
        ({"method": "plnd", "tokens": [3]}, "tokens= needs method='direct', not 'plnd'"),
        ({"method": "integrated_gradients", "steps": 0}, "steps=0: give 1 or more"),
        ({"method": "direct", "tokens": []}, "give one id or more, each from 0 to 349"),
        ({"method": "direct", "tokens": [350]}, "give one id or more, each from 0 to 349"),
        ({"method": "direct", "tokens": [-1]}, "give one id or more, each from 0 to 349"),
    ],
)
def test_refusals(options, told, bridge):
    with pytest.raises(LensNeuronsError, match=told):
        importance(bridge("Llama"), CORPUS, **options)


def test_a_stream_that_is_rescaled_has_no_direct_path(bridge):
    with pytest.raises(ModelError, match="rescales its residual stream after each layer"):
        importance(bridge("Gemma4"), CORPUS, method="direct")
