"""Recorded activations are Hugging Face's, and resampling puts whole recorded tokens in."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from edited import IDS, draw_set, logits_of, post_of
from oracle import ACTIVATIONS, encode_by_hand, pre_of
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.activations.recording import ActivationDraws, record_activations
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError
from lensneurons.interventions.editing import ablate, members_by_layer

CORPUS = tiny.tiny_corpus(("en", "th"))
LAYERS = (0, 2)
HERE = draw_set().by_layer()


@pytest.fixture(scope="module")
def by_hand(model_folder):
    """``by_hand("Llama")``: activations [token, layer, neuron] of the response tokens, by text."""

    def activations(architecture):
        folder = model_folder(architecture)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = [encode_by_hand(tokenizer, item, "response") for item in CORPUS]
        pre = torch.cat([pre_of(model, architecture, ids)[:, at] for ids, at in texts], 1)
        return ACTIVATIONS.get(architecture, functional.silu)(pre).transpose(0, 1)

    return activations


def record(model, **options):
    chosen = {layer: torch.from_numpy(here) for layer, here in HERE.items()}
    return record_activations(model, CORPUS, chosen, **options)


def tokens_of(values, recorded, layer):
    """Number of the recorded token that each row of activations [row, neuron] is."""
    distance = torch.cdist(
        values.double(),
        recorded[:, layer, HERE[layer]].double(),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    nearest, token = distance.min(1)
    assert nearest.max() < 1e-4, "an activation that no token of the reference has"
    assert distance.sort(1).values[:, 1].min() > 1e-2, "two tokens that cannot be told apart"
    return token


@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
@pytest.mark.parametrize("architecture", ["Llama", "Phi3", "OPT"])
def test_the_activations_are_hugging_faces(architecture, batch_tokens, bridge, by_hand):
    """Each response token once; the same tokens, in the same order, in every layer."""
    ours, theirs = record(bridge(architecture), batch_tokens=batch_tokens), by_hand(architecture)
    assert list(ours) == list(LAYERS)
    tokens = [tokens_of(ours[layer], theirs, layer) for layer in LAYERS]
    assert torch.equal(*tokens)
    assert tokens[0].sort().values.tolist() == list(range(len(theirs)))


def test_long_texts_and_a_tokenizer_that_is_not_read_are_refused(bridge, monkeypatch):
    model = bridge("Llama")
    with pytest.raises(LensNeuronsError, match="tokenizer= needs method='resample', not 'zero'"):
        ablate(model, draw_set(), tokenizer=tiny.byte_tokenizer(bos=True)).__enter__()
    monkeypatch.setattr(model.cfg, "n_ctx", 40)
    with pytest.raises(CorpusError, match="exceed max_length=40"):
        record(model)


def test_hooks_on_the_model_act(bridge):
    model = bridge("Llama")
    before = record(model)
    with ablate(model, draw_set(1, (0,))):
        after = record(model)
    assert (before[0] - after[0]).abs().max() < 1e-5
    assert (before[2] - after[2]).abs().max() > 0.1


def test_a_tokenizer_may_be_given(bridge, monkeypatch):
    """To `record_activations`, and to `ablate`, whose reference is read with it."""
    model, given = bridge("Llama"), tiny.byte_tokenizer(bos=True)
    before = record(model)
    with resample(model, 3):
        drawn = logits_of(model)
    monkeypatch.setattr(model, "tokenizer", None)
    for run in (record, lambda model: resample(model).__enter__()):
        with pytest.raises(ModelError, match="no tokenizer that can be read again: pass tokeni"):
            run(model)
    after = record(model, tokenizer=given)
    assert all(torch.equal(before[layer], after[layer]) for layer in LAYERS)
    with resample(model, 3, tokenizer=given):
        assert torch.equal(logits_of(model), drawn)
    other = record(model, tokenizer=tiny.byte_tokenizer(bos=False))
    assert all((before[layer] - other[layer]).abs().max() > 0.01 for layer in LAYERS)


# Resampling


def resample(model, seed=0, neurons=None, **options):
    neurons = draw_set() if neurons is None else neurons
    return ablate(model, neurons, method="resample", reference=CORPUS, seed=seed, **options)


@pytest.mark.parametrize("architecture", ["Llama", "Phi3", "GPT2"])
def test_every_activation_is_one_of_the_reference(architecture, bridge, by_hand):
    """At a position the neurons of all layers come from one token; positions differ."""
    model, recorded = bridge(architecture), by_hand(architecture)
    before = post_of(model)
    with resample(model):
        drawn = activations_in(model)
    first, last = (tokens_of(drawn[layer], recorded, layer) for layer in LAYERS)
    assert torch.equal(first, last)
    assert len(first.unique()) > 15  # 33 draws of 100 or more tokens
    others = np.setdiff1d(np.arange(tiny.D_MLP), HERE[0])
    with resample(model):
        assert torch.equal(post_of(model)[..., others], before[..., others])


def activations_in(model, ids=IDS):
    """What the chosen neurons of each layer hold in one pass, [position, neuron]."""
    seen = {}
    names = [f"blocks.{n}.mlp.hook_{kind}" for n in LAYERS for kind in ("post", "pre_linear")]
    names = [name for name in names if name in model.hook_dict]
    hooks = [(n, lambda t, hook, n=n: seen.update({n: t.detach().clone()})) for n in names]
    with torch.no_grad():
        model.run_with_hooks(ids, fwd_hooks=hooks)

    def activation(layer):
        name = f"blocks.{layer}.mlp.hook_post"
        linear = seen.get(name.replace("post", "pre_linear"), torch.ones(1))
        return (seen[name] / linear)[..., HERE[layer]].flatten(0, 1)

    return {layer: activation(layer) for layer in LAYERS}


def test_the_seed_decides(bridge):
    model = bridge("Qwen2")

    def passes(seed):
        with resample(model, seed):
            return logits_of(model), logits_of(model)

    first, second = passes(5)
    assert not torch.equal(first, second)  # every pass draws anew
    assert all(map(torch.equal, (first, second), passes(5)))
    assert not torch.equal(first, passes(6)[0])


def test_steps_of_a_generation_draw_too(bridge, by_hand):
    model, recorded = bridge("GPT2"), by_hand("GPT2")
    with resample(model):
        for n in (11, 1, 4):
            drawn = activations_in(model, IDS[:, :n])
            assert len(tokens_of(drawn[0], recorded, 0)) == 3 * n


def test_rows_and_positions_are_resampled_alone(bridge):
    model = bridge("Llama")
    before, mask = post_of(model), torch.zeros(3, 11, dtype=torch.bool)
    mask[0, 4:] = mask[1, 9] = True
    sets = [draw_set(), draw_set(layers=()), draw_set(7, (0,))]
    with resample(model, neurons=sets, positions=mask):
        changed = post_of(model) != before
    for row, one in enumerate(sets):
        assert not changed[row, ~mask[row]].any()
        assert not changed[row][:, ~one.mask()[0]].any()
        assert changed[row, mask[row]][:, one.mask()[0]].all()


def test_an_outer_block_acts_while_the_reference_runs(bridge):
    model = bridge("Llama")
    with ablate(model, draw_set(1, (0,))):
        outside = record(model)
        with resample(model):
            inside = activations_in(model)[2]
    distance = torch.cdist(inside.double(), outside[2].double())
    assert distance.min(1).values.max() < 1e-4


def test_gradients_flow_around_what_was_drawn(bridge):
    model = bridge("Llama")
    given = torch.zeros(3, 11, tiny.D_MODEL, requires_grad=True)
    with resample(model), model.hooks(fwd_hooks=[("hook_embed", lambda t, hook: t + given)]):
        model(IDS).square().mean().backward()
    assert given.grad.abs().sum() > 0
    model.zero_grad()


def test_layers_that_differ_in_a_pass_are_noticed():
    draws = ActivationDraws({0: torch.ones(9, 2), 2: torch.ones(9, 5)}, seed=0)
    assert draws.like(torch.zeros(3, 4, 2, dtype=torch.float64), 0).dtype == torch.float64
    assert draws.like(torch.zeros(3, 4, 5), 2).shape == (3, 4, 5)
    with pytest.raises(LensNeuronsError, match="the layers of one pass differ in batch or posit"):
        draws.like(torch.zeros(3, 5, 5), 2)


def test_draws_are_even():
    """Nine tokens, 9000 draws: no share is off by more than four standard errors."""
    draws = ActivationDraws({1: torch.arange(9.0)[:, None]}, seed=3)
    counts = draws.like(torch.zeros(90, 100, 1), 1).flatten().int().bincount(minlength=9)
    assert counts.sum() == 9000
    assert (counts - 1000).abs().max() < 4 * (9000 * 8 / 81) ** 0.5


def test_sets_of_all_rows_are_recorded_together():
    members = members_by_layer([draw_set(0), draw_set(1, (0, 1))])
    assert list(members) == [0, 1, 2]
    union = np.flatnonzero(draw_set(0).mask()[0] | draw_set(1, (0,)).mask()[0])
    assert members[0].indices.tolist() == union.tolist()
    assert members[0].rows.any(0).all()
    assert members[2].rows.tolist()[1] == [False] * len(members[2].indices)
