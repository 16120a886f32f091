"""Patching against plain Hugging Face hooks, and the promises of the context manager."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from inspect import unwrap

import edited
import numpy as np
import pytest
import tiny
import torch
from edited import NAMES, USUAL, draw_set, plain_model, state_of

from lensneurons.errors import EmptySetWarning, LensNeuronsError, ModelError
from lensneurons.interventions.patching import patch, place_numbers, read_source, residual_name
from lensneurons.models.loading import load_model
from lensneurons.neurons.sets import NeuronSet

RANDOM = torch.Generator().manual_seed(5)
SOURCE = torch.randint(3, 340, (3, 17), generator=RANDOM)
TARGET = torch.randint(3, 340, (3, 23), generator=RANDOM)
WHOLE = torch.arange(tiny.D_MODEL)  # of a residual stream
ARCHITECTURES = ("Llama", "GPT2", "Gemma2", "Phi3")


def logits_of(model, ids=TARGET, **options):
    return edited.logits_of(model, ids, **options)


@torch.no_grad()
def patch_by_hand(plain, patches):
    """Logits over TARGET of a Hugging Face model that PyTorch hooks overwrite with what was seen.

    A patch is what registers the hook on a module's input or output, a source that is read without
    any hook, places to take from and to put into, and entries of the last axis.
    """
    seen, row = [], torch.arange(3)[:, None, None]

    def tensor(inputs, *output):
        both = output[0] if output else inputs
        return both[0] if isinstance(both, tuple) else both

    def read(place, module, *given):
        seen.append(tensor(*given)[place])

    def put(place, values, module, *given):
        tensor(*given)[place] = values

    for register, source, taken, _, entries in patches:
        handle = register(partial(read, (row, torch.tensor(taken)[:, None], entries)))
        plain(source)
        handle.remove()
    for values, (register, _, _, places, entries) in zip(seen, patches, strict=True):
        register(partial(put, (row, torch.tensor(places)[:, None], entries), values))
    return plain(TARGET).logits


def blocks(plain, architecture):
    return plain.get_submodule(NAMES.get(architecture, USUAL)[0])


def close(ours, theirs):
    return (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_after_the_last_layer_the_target_says_what_the_source_says(architecture, bridge):
    model = bridge(architecture)
    with patch(model, SOURCE, layer=tiny.LAYERS - 1):
        patched = logits_of(model)
    assert close(patched[:, -1], logits_of(model, SOURCE)[:, -1])
    assert torch.equal(patched[:, :-1], logits_of(model)[:, :-1])


@pytest.mark.parametrize("layer", range(tiny.LAYERS))
@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_a_layer_equals_a_plain_hook(architecture, layer, bridge, model_folder):
    model, plain = bridge(architecture), plain_model(model_folder(architecture))
    with patch(model, SOURCE, layer=layer, positions=[20, 1], source_positions=[4, 16]):
        ours = logits_of(model)
    register = blocks(plain, architecture)[layer].register_forward_hook
    assert close(ours, patch_by_hand(plain, [(register, SOURCE, [4, 16], [20, 1], WHOLE)]))
    assert (ours - logits_of(model)).abs().max() > 0.1


@pytest.mark.parametrize("share", [1.0, 0.3], ids=["all neurons", "some neurons"])
@pytest.mark.parametrize("architecture", ["Llama", "GPT2", "Phi3"])
def test_neurons_equal_a_plain_hook(architecture, share, bridge, model_folder):
    model, plain = bridge(architecture), plain_model(model_folder(architecture))
    mask = np.random.default_rng(2).random((tiny.LAYERS, tiny.D_MLP)) < share
    mask[0] = False
    with patch(model, SOURCE, neurons=NeuronSet.from_mask(mask), positions=[-1, 2]):
        ours = logits_of(model)
    patches = []
    for layer in (1, 2):
        out = blocks(plain, architecture)[layer].get_submodule(NAMES.get(architecture, USUAL)[2])
        own = np.flatnonzero(mask[layer])
        patches.append((out.register_forward_pre_hook, SOURCE, [-1, 2], [-1, 2], own))
    assert close(ours, patch_by_hand(plain, patches))
    assert (ours - logits_of(model)).abs().max() > 0.01


@pytest.mark.parametrize("layer", range(tiny.LAYERS))
def test_a_text_patched_with_itself_or_with_nothing_is_bitwise_itself(layer, bridge):
    model = bridge("Llama")
    everywhere = list(range(TARGET.shape[1]))
    nothing = np.zeros((tiny.LAYERS, tiny.D_MLP), bool)
    mask = nothing.copy()
    mask[layer, ::2] = True
    for source, options in (
        (TARGET, {"layer": layer, "positions": everywhere}),
        (TARGET, {"neurons": NeuronSet.from_mask(mask), "positions": everywhere}),
        (SOURCE, {"neurons": NeuronSet.from_mask(nothing)}),
    ):
        told = nullcontext() if source is TARGET else pytest.warns(EmptySetWarning)
        with told, patch(model, source, **options):
            inside = logits_of(model)
            assert torch.equal(inside, logits_of(model))
        assert torch.equal(inside, logits_of(model))


def test_texts_of_unequal_lengths_each_at_its_own_place(bridge):
    """Padded on the right with places in a tensor, on the left with -1, alone: all the same."""
    model = bridge("Qwen2")
    taken, put = torch.tensor([[3], [16], [9]]), torch.tensor([[22], [5], [11]])
    with patch(model, SOURCE, layer=1, positions=put, source_positions=taken):
        right = logits_of(model)[torch.arange(3), put[:, 0]]
    lefts = {}
    for name, ids, ends in (("source", SOURCE, taken), ("target", TARGET, put)):
        shifted, mask = torch.full_like(ids, 2), torch.zeros_like(ids)
        for row, end in enumerate(ends[:, 0] + 1):
            shifted[row, -end:], mask[row, -end:] = ids[row, :end], 1
        lefts[name] = shifted, mask
    (source, source_mask), (target, mask) = lefts["source"], lefts["target"]
    with patch(model, source, layer=1, source_mask=source_mask):
        left = logits_of(model, target, attention_mask=mask)[:, -1]
    for row in range(3):
        one = SOURCE[row : row + 1, : taken[row, 0] + 1]
        with patch(model, one, layer=1):
            alone = logits_of(model, TARGET[row : row + 1, : put[row, 0] + 1])[0, -1]
        assert close(right[row], alone)
        assert close(left[row], alone)


def test_one_source_for_all_rows(bridge):
    model = bridge("Llama")
    with patch(model, SOURCE[:1], layer=0):
        one = logits_of(model)
    with patch(model, SOURCE[:1].expand(3, -1).contiguous(), layer=0):
        three = logits_of(model)
    assert close(one, three)


def test_nested_patches_take_from_untouched_sources(bridge, model_folder):
    model, plain = bridge("Llama"), plain_model(model_folder("Llama"))
    other = torch.randint(3, 340, (3, 17), generator=torch.Generator().manual_seed(8))
    with patch(model, SOURCE, layer=0, positions=2), patch(model, other, layer=1, positions=-3):
        ours = logits_of(model)
    first, second, _ = (layer.register_forward_hook for layer in plain.model.layers)
    patches = [(first, SOURCE, [2], [2], WHOLE), (second, other, [-3], [-3], WHOLE)]
    assert close(ours, patch_by_hand(plain, patches))


def test_other_hooks_act_on_the_source_too(bridge):
    model = bridge("Llama")
    with model.hooks(fwd_hooks=[(residual_name(0), lambda tensor, hook: tensor * 0.5)]):
        halved = logits_of(model, SOURCE)[:, -1]
        with patch(model, SOURCE, layer=tiny.LAYERS - 1):
            assert close(logits_of(model)[:, -1], halved)


def interrupt(model, shifted):
    assert not torch.equal(logits_of(model), shifted)
    raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{"layer": 1}, {"neurons": draw_set()}])
def test_the_model_is_as_before_even_after_an_exception(options, model_folder):
    model = load_model(model_folder("Llama"), device="cpu")
    unhooked = logits_of(model)
    model.add_hook(residual_name(0), lambda tensor, hook: tensor + 1)
    before, shifted = state_of(model), logits_of(model)
    assert not torch.equal(unhooked, shifted)
    with pytest.raises(KeyboardInterrupt), patch(model, SOURCE, **options):
        interrupt(model, shifted)
    with pytest.raises(LensNeuronsError, match="rows"), patch(model, SOURCE[:2], **options):
        logits_of(model)
    with pytest.raises(IndexError):  # while the source is read
        patch(model, SOURCE + 10_000, **options).__enter__()
    assert state_of(model) == before


def test_steps_of_a_generation_are_left_alone(bridge):
    """After the last layer only the next token reads the stream: it alone is the source's."""
    model = bridge("Llama")
    with patch(model, SOURCE[:1], layer=tiny.LAYERS - 1):
        told = model.generate(
            TARGET[:1], max_new_tokens=4, do_sample=False, verbose=False, stop_at_eos=False
        )
    expected = torch.cat([TARGET[:1], logits_of(model, SOURCE[:1])[:, -1:].argmax(-1)], 1)
    for _ in range(3):
        expected = torch.cat([expected, logits_of(model, expected)[:, -1:].argmax(-1)], 1)
    assert told.tolist() == expected.tolist()


def test_gradients_flow_through_a_patched_pass(bridge):
    model = bridge("Llama")
    streams = []
    name = residual_name(0)
    with (
        patch(model, SOURCE, layer=1),
        model.hooks(fwd_hooks=[(name, lambda t, hook: streams.append(t.requires_grad_()))]),
    ):
        logits = model(TARGET, return_type="logits")
        (gradient,) = torch.autograd.grad(logits[:, -1].logsumexp(-1).sum(), streams[0])
    assert gradient[:, :-1].abs().max() > 0  # through the attention of layer 2
    assert torch.equal(gradient[:, -1], torch.zeros_like(gradient[:, -1]))  # overwritten


def test_positions_are_counted_from_either_end():
    assert place_numbers(-1, (2, 5)).tolist() == [[4], [4]]
    assert place_numbers([0, -2], (1, 5)).tolist() == [[0, 3]]
    assert place_numbers(torch.tensor([[1], [-5]]), (2, 5)).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either layer="),
        ({"layer": 0, "neurons": NeuronSet(np.zeros(1, np.int64), 3, 52)}, "give either layer="),
        ({"layer": 3}, "layer=3: the model has layers 0 to 2"),
        ({"layer": -1}, "layer=-1: the model has layers 0 to 2"),
        ({"neurons": NeuronSet(np.zeros(1, np.int64), 3, 53)}, r"3 layers x 53 neurons, this"),
        ({"layer": 0, "positions": 17}, r"positions \[17\] are not all within a text of 17 tokens"),
        ({"layer": 0, "positions": -18}, "not all within"),
        ({"layer": 0, "positions": []}, "no positions"),
        ({"layer": 0, "positions": [1, 2], "source_positions": 3}, "1 positions of the source"),
        ({"layer": 0, "positions": torch.ones(2, 1).long()}, "2 rows do not fit a batch of 3"),
        ({"layer": 0, "source_mask": torch.zeros(3, 17).long()}, "point at padding"),
    ],
)
def test_bad_input_is_refused_before_any_pass(options, message, bridge, monkeypatch):
    model = bridge("Llama")
    monkeypatch.setattr(type(model), "forward", None)
    with pytest.raises(LensNeuronsError, match=message):
        next(unwrap(patch)(model, SOURCE, **options))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(LensNeuronsError, match=r"source_mask \[3, 5\] is not of \[3, 17\]"):
        unwrap(read_source)(None, SOURCE, [], -1, torch.ones(3, 5).long())


def test_a_target_too_short_for_its_positions_is_refused(bridge):
    model = bridge("Llama")
    refused = pytest.raises(LensNeuronsError, match="within a text of 5 tokens")
    with patch(model, SOURCE, layer=0, positions=12), refused:
        logits_of(model, TARGET[:, :5])


def test_hooks_that_would_not_fire_are_refused(model_folder, monkeypatch):
    model = load_model(model_folder("Llama"), device="cpu")
    there = dict(model.hook_dict)
    monkeypatch.setattr(type(model), "hook_dict", there)
    name = there.pop(residual_name(1))
    with pytest.raises(ModelError, match=r"no blocks.1.hook_resid_post: the hook would never"):
        patch(model, SOURCE, layer=1).__enter__()
    there[residual_name(1)] = name
    silent = contextmanager(lambda fwd_hooks: iter([None]))
    monkeypatch.setattr(type(model), "hooks", lambda self, fwd_hooks: silent(fwd_hooks))
    with pytest.raises(ModelError, match="did not fire"):
        patch(model, SOURCE, layer=1).__enter__()
