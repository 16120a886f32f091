"""Hooks act where they say, in every block, row and position, and nothing is left behind."""

from __future__ import annotations

import re
from contextlib import nullcontext
from functools import partial
from inspect import unwrap

import numpy as np
import pytest
import tiny
import torch
from edited import IDS, draw_set, draw_statistics, logits_of, post_of, state_of

from lensneurons.errors import EmptySetWarning, LensNeuronsError, ModelError
from lensneurons.interventions.editing import LayerHook, ablate, chosen_places, scale, steer
from lensneurons.models.loading import load_model


@pytest.fixture
def own(model_folder):
    return load_model(model_folder("Llama"), device="cpu")


# Sets and blocks

ANY = draw_statistics()
ENTER = {
    "zero": ablate,
    "mean": partial(ablate, method="mean", statistics=ANY, language="th"),
    "resample": partial(ablate, method="resample", reference=tiny.tiny_corpus(("en",))),
    "scale": partial(scale, factor=3.0),
    "add": partial(steer, statistics=ANY, toward="zh"),
    "replace": partial(steer, statistics=ANY, toward="zh", method="replace"),
}


@pytest.mark.parametrize("kind", ["zero", "mean", "replace"])
@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_two_blocks_are_the_union(architecture, kind, bridge):
    model, enter = bridge(architecture), ENTER[kind]
    first, second = draw_set(0, (0, 2)), draw_set(1, (0, 1))
    assert 0 < len(first & second) < min(len(first), len(second))
    with enter(model, first | second):
        union = logits_of(model)
    for outer, inner in ((first, second), (second, first)):
        with enter(model, outer):
            alone = logits_of(model)
            with enter(model, inner):
                assert torch.equal(logits_of(model), union)
            assert torch.equal(logits_of(model), alone)
    assert not torch.equal(alone, union)


def test_the_inner_block_acts_on_what_the_outer_left(llama):
    neurons = draw_set()
    with scale(llama, neurons, 8.0):
        whole = logits_of(llama)
    with scale(llama, neurons, 2.0), scale(llama, neurons, 4.0):
        assert torch.equal(logits_of(llama), whole)
    with ablate(llama, neurons):
        zero = logits_of(llama)
    with scale(llama, neurons, 2.0), ablate(llama, neurons), scale(llama, neurons, 4.0):
        assert torch.equal(logits_of(llama), zero)


def interrupt(model, enter):
    with enter(model, draw_set()), scale(model, draw_set(1), 0.5):
        logits_of(model)
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ENTER)
@pytest.mark.parametrize("architecture", ["Llama", "OPT"])
def test_the_hooks_of_an_edit_are_gone_after_an_exception(architecture, kind, bridge):
    model = bridge(architecture)
    model.add_hook("blocks.1.hook_out", lambda tensor, hook: tensor * 1.5)
    try:
        before = state_of(model)
        with (
            pytest.warns(EmptySetWarning, match="no neurons in 'set 0'") as told,
            ENTER[kind](model, draw_set(layers=())),
        ):
            assert logits_of(model).numpy().tobytes() == before[0]
        assert len(told) == 1
        with ENTER[kind](model, draw_set()):
            assert logits_of(model).numpy().tobytes() != before[0]
        assert state_of(model) == before
        with pytest.raises(KeyboardInterrupt):
            interrupt(model, ENTER[kind])
        assert state_of(model) == before
    finally:
        model.reset_hooks()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_no_hook_stays_where_one_cannot_be_added(after, own, monkeypatch):
    before, added = state_of(own), []

    def refuse(*args, **kwargs):
        if len(added) == after:
            raise RuntimeError("no more hooks")
        added.append(args)

    with monkeypatch.context() as patched:
        patched.setattr(type(own), "check_hooks_to_add", refuse)
        with pytest.raises(RuntimeError, match="no more hooks"):
            with ENTER["mean"](own, draw_set()):
                raise AssertionError("the block ran")
    assert state_of(own) == before


def test_hooks_of_others_act_and_stay(own):
    neurons, kept = draw_set(), []
    own.add_hook("blocks.0.mlp.hook_post", lambda t, hook: kept.append(t + 1) or kept[-1])
    before = post_of(own)
    with ablate(own, neurons):
        changed = post_of(own)
        own.add_hook("blocks.2.hook_out", lambda tensor, hook: tensor * 0)
    zeroed = torch.from_numpy(neurons.mask()[0])
    assert not changed[..., zeroed].any()
    assert torch.equal(changed[..., ~zeroed], before[..., ~zeroed])
    assert torch.equal(kept[1], before)  # what others keep of a pass in the block
    assert torch.equal(post_of(own), before)
    own.reset_hooks()
    assert torch.equal(post_of(own) + 1, before)
    with ablate(own, neurons):
        own.reset_hooks()
        assert post_of(own)[..., zeroed].any()


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_hooks_act_once_in_compatibility_mode(architecture, model_folder):
    model = load_model(model_folder(architecture), device="cpu")
    model.enable_compatibility_mode()
    neurons = draw_set()
    before, here = post_of(model), torch.from_numpy(neurons.mask()[0])
    with scale(model, neurons, 2.0):
        assert torch.equal(post_of(model), torch.where(here, before * 2, before))
    with ENTER["mean"](model, neurons), ENTER["add"](model, neurons):
        assert torch.equal(post_of(model)[..., ~here], before[..., ~here])
    assert torch.equal(post_of(model), before)


# Rows and positions


@pytest.mark.parametrize("kind", ["zero", "mean", "scale", "add"])
def test_each_row_has_its_own_set(kind, llama):
    sets = [draw_set(0), draw_set(1, (1,)), draw_set(layers=())]
    with ENTER[kind](llama, sets):
        together = logits_of(llama)
    for row, one in enumerate(sets):
        with ENTER[kind](llama, one) if one else nullcontext():
            assert torch.equal(together[row], logits_of(llama)[row])
            alone = logits_of(llama, IDS[row : row + 1])[0]
        assert (together[row] - alone).abs().max() < 1e-5 * alone.abs().max()
    assert torch.equal(together[2], logits_of(llama)[2])


MASK = torch.zeros(3, 11, dtype=torch.bool)
MASK[0, 2:7] = MASK[2, 10] = True
PLACES = {
    "indices": [0, 7],
    "from the end": (-1, 3),
    "slice": slice(2, 5),
    "every other": slice(None, None, 2),
    "no index": [],
    "mask": MASK,
}


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("kind", ["zero", "replace"])
def test_positions_say_where(kind, places, llama):
    sets = [draw_set(seed, (0,)) for seed in range(3)]
    meant = torch.zeros(3, 11, tiny.D_MLP, dtype=torch.bool)
    for row, one in enumerate(sets):
        there = places[row].numpy() if isinstance(places, torch.Tensor) else places
        there = list(there) if isinstance(there, tuple) else there
        meant[row, np.arange(11)[there]] = torch.from_numpy(one.mask()[0])
    before = post_of(llama)
    with ENTER[kind](llama, sets):
        everywhere = post_of(llama)
    with ENTER[kind](llama, sets, positions=places):
        assert torch.equal(post_of(llama), torch.where(meant, everywhere, before))


@pytest.mark.parametrize(
    ("count", "places", "message"),
    [
        (2, None, "2 sets of neurons, one a row, but a batch of 3 rows: give"),
        (4, None, "4 sets of neurons, one a row, but a batch of 3 rows: give"),
        (1, [0, 11], r"positions=\[0, 11\] are not all within a text of 11 tokens"),
        (1, (-12,), r"positions=\(-12,\) are not all within a text of 11 tokens"),
    ],
)
def test_what_does_not_fit_a_pass_is_refused(count, places, message, llama):
    sets = [draw_set(seed) for seed in range(count)]
    with ablate(llama, sets, positions=places), pytest.raises(LensNeuronsError, match=message):
        logits_of(llama)


@pytest.mark.parametrize("mask", [MASK[:, :9], MASK[:1], MASK[0]], ids=["short", "row", "flat"])
def test_a_mask_that_does_not_fit_is_refused(mask):
    message = re.escape(f"positions {list(mask.shape)} do not fit a batch [3, 11]")
    with pytest.raises(LensNeuronsError, match=f"^{message}$"):
        unwrap(chosen_places)(mask, torch.zeros(3, 11, 52))


def test_one_position_is_a_step_where_positions_are_given(llama):
    step = IDS[:, :1]
    with ablate(llama, draw_set(), positions=[0]):
        assert torch.equal(logits_of(llama, step), logits_of(llama, step))
        given = post_of(llama, ids=step)
    with ablate(llama, draw_set()):
        assert not torch.equal(post_of(llama, ids=step), given)
    assert torch.equal(post_of(llama, ids=step), given)


# Hooks that would not act


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("zero", "blocks.2.mlp.hook_post"), ("mean", "blocks.0.mlp.hook_pre_linear")],
)
def test_a_model_without_the_hook_is_refused(kind, missing, own, monkeypatch):
    found = own.hook_dict
    del found[missing]
    monkeypatch.setattr(type(own), "hook_dict", property(lambda self: found))
    with pytest.raises(ModelError, match=f"TransformerBridge has no {missing}: the hook would nev"):
        with ENTER[kind](own, draw_set()):
            raise AssertionError("the block ran")


def test_a_linear_branch_that_does_not_fire_is_noticed(llama, monkeypatch):
    monkeypatch.setattr(LayerHook, "keep_linear", lambda self, tensor, hook: None)
    with ENTER["zero"](llama, draw_set()):
        logits_of(llama)
    with ENTER["mean"](llama, draw_set()):
        with pytest.raises(LensNeuronsError, match="hook_pre_linear did not fire before hook_post"):
            logits_of(llama)
