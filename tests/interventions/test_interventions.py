"""An intervention is what its formula says of the activation, by Hugging Face's own forward."""

from __future__ import annotations

from functools import partial
from inspect import unwrap

import numpy as np
import pytest
import tiny
import torch
from edited import (
    IDS,
    changed_activations,
    continue_greedily,
    draw_set,
    draw_statistics,
    logits_of,
    plain_model,
    post_of,
    zero_rows,
)
from oracle import count_by_hand

from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.interventions.editing import ablate, scale, steer
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.sets import NeuronSet

ANY = draw_statistics()


STEER = partial(steer, statistics=ANY, toward="zh")
MEAN = partial(ablate, method="mean", statistics=ANY)


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    """A Llama whose gate is a ReLU: its folder and its bridge."""
    folder = tiny.save_model("Llama", tmp_path_factory.mktemp("relu"))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"silu"', '"relu"'))
    return folder, load_model(folder, device="cpu")


# Against Hugging Face


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_zero_is_w_out_without_the_rows(architecture, bridge, model_folder):
    """Bitwise, where the bridge itself has Hugging Face's bits (11 of the 16)."""
    model, other = bridge(architecture), plain_model(model_folder(architecture))
    before, neurons = logits_of(other), draw_set(d_mlp=neuron_site(model).d_mlp)
    exact = torch.equal(logits_of(model), before)
    after = logits_of(zero_rows(other, architecture, neurons.by_layer()))
    with ablate(model, neurons) as given:
        assert given is model
        ours = logits_of(model)
    assert (ours - after).abs().max() <= (0 if exact else 2e-6 * after.abs().max())
    assert (after - before).abs().max() > 0.1 * after.abs().max()
    assert exact or architecture != "Llama"


# Name, our block, and the new activation from the old one and the means [neuron] in each language.
CHANGES = {
    "mean of one": (partial(MEAN, language="zh"), lambda a, en, zh, th: zh),
    "mean of all": (MEAN, lambda a, en, zh, th: (en + zh + th) / 3),
    "scale": (partial(scale, factor=-1.5), lambda a, en, zh, th: -1.5 * a),
    "add": (partial(STEER, alpha=2.0), lambda a, en, zh, th: a + 2 * zh),
    "replace": (
        partial(STEER, toward="th", method="replace", alpha=0.5),
        lambda a, en, zh, th: 0.5 * th,
    ),
    "difference": (
        partial(STEER, method="difference", alpha=-1.5),
        lambda a, en, zh, th: a - 1.5 * (zh - (en + th) / 2),
    ),
    "difference of two": (
        partial(STEER, method="difference", away_from="en"),
        lambda a, en, zh, th: a + zh - en,
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("architecture", ["Llama", "Llama ReLU", "Phi3", "Gemma2", "GPT2", "OPT"])
def test_the_output_of_the_activation_function_is_changed(
    architecture, kind, bridge, model_folder, relu
):
    """The linear branch of a gated MLP follows the text: only ``act_fn``'s output is replaced."""
    architecture, gate = architecture.split()[0], architecture.split()[1:]
    folder, model = relu if gate else (model_folder(architecture), bridge(architecture))
    block, formula = CHANGES[kind]
    neurons = draw_set()
    means = torch.from_numpy(ANY.sums / ANY.grouped_tokens[0]).float()

    def change(layer, activation):
        here = neurons.by_layer().get(layer, np.zeros(0, np.int64))
        activation = activation.clone()
        activation[..., here] = formula(activation[..., here], *means[layer, here].unbind(-1))
        return activation

    with changed_activations(plain_model(folder), architecture, change) as other:
        after = logits_of(other)
    with block(model, neurons):
        ours = logits_of(model)
    assert (ours - after).abs().max() < 1e-5 * after.abs().max()
    assert (ours - logits_of(model)).abs().max() > 0.05 * after.abs().max()


def test_bfloat16_stays_bfloat16(model_folder):
    model = load_model(model_folder("Llama"), device="cpu", dtype="bfloat16")
    neurons, here = draw_set(), draw_set().mask()[0]
    with MEAN(model, neurons, language="zh"):
        post = post_of(model)
        assert logits_of(model).dtype == torch.bfloat16
        hook = ("blocks.0.mlp.hook_pre_linear", lambda tensor, hook: seen.append(tensor))
        seen = []
        model.run_with_hooks(IDS, fwd_hooks=[hook])
    mean = torch.from_numpy(ANY.mean[0, here, 1]).bfloat16()
    assert torch.equal(post[..., here], mean * seen[0][..., here])


# All that runs in the block


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_it_acts_under_generate(architecture, bridge, model_folder):
    model, folder = bridge(architecture), model_folder(architecture)
    other = plain_model(folder)
    zeroed = zero_rows(plain_model(folder), architecture, draw_set().by_layer())
    with ablate(model, draw_set()):
        assert_writes(model, continue_greedily(zeroed, zeroed, IDS, 6))
    with ablate(model, draw_set(), positions=slice(None)):  # the steps are left alone
        assert_writes(model, continue_greedily(zeroed, other, IDS, 6))
    assert_writes(model, continue_greedily(other, other, IDS, 6))


def assert_writes(model, expected):
    assert torch.equal(generate(model, IDS), expected)
    assert torch.equal(generate(model.original_model, IDS), expected)


def generate(model, ids, **options):
    """What a bridge, or Hugging Face's own `generate`, writes."""
    if hasattr(model, "original_model"):
        options |= {"stop_at_eos": False, "verbose": False, "return_type": "tokens"}
    return model.generate(ids, do_sample=False, max_new_tokens=6, **options)[:, ids.shape[1] :]


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_it_acts_under_generate_with_padding_on_the_left(architecture, bridge):
    model = bridge(architecture)
    mask = torch.ones_like(IDS)
    mask[0, :6] = mask[2, :2] = 0
    padded = IDS.masked_fill(mask == 0, 2)
    with ablate(model, draw_set()):
        alone = [generate(model, IDS[row : row + 1, 11 - n :]) for row, n in enumerate(mask.sum(1))]
        for way in (model, model.original_model):
            assert torch.equal(generate(way, padded, attention_mask=mask), torch.cat(alone))


def test_a_cache_holds_what_is_left(bridge):
    neurons, model = draw_set(), bridge("Llama")
    with ablate(model, neurons):
        _, cache = model.run_with_cache(IDS)
        seen = post_of(model, 2)
    zeroed = torch.from_numpy(neurons.mask())
    for layer in (0, 2):
        assert not cache[f"blocks.{layer}.mlp.hook_post"][..., zeroed[layer]].any()
    assert torch.equal(cache["blocks.2.mlp.hook_post"], seen)
    assert seen[..., ~zeroed[2]].any()


def test_collect_counts_downstream_of_an_ablation(bridge, model_folder, tmp_path):
    model, corpus, plain = bridge("Llama"), tiny.tiny_corpus(), plain_model(model_folder("Llama"))
    zero_rows(plain, "Llama", draw_set().by_layer()).save_pretrained(tmp_path)
    tiny.byte_tokenizer(bos=True).save_pretrained(tmp_path)
    oracle = count_by_hand(tmp_path, "Llama", corpus)
    assert oracle.margin > 2e-6
    with ablate(model, draw_set()):
        ours = collect(model, corpus, progress=False)
    before = collect(model, corpus, progress=False)
    assert np.array_equal(ours.counts, oracle.counts)
    assert np.array_equal(ours.counts[0], before.counts[0])
    assert not np.array_equal(ours.counts[1], before.counts[1])
    assert (before.provenance.interventions, ours.provenance.interventions) == ("none", "hooks")


# Refused at the door

SET = draw_set()
OTHER = NeuronSet.from_names(["L1N5"], n_layers=2, d_mlp=52, label="the neurons of zh")
COUNTS = ActivationStatistics(("zh",), np.ones((1, 3, 52, 1), np.int64), np.ones((1, 1), np.int64))
SMALL, ALONE = draw_statistics(d_mlp=40), draw_statistics(("zh",))
AWAY = partial(STEER, method="difference")
RESAMPLE = partial(ablate, method="resample")


@pytest.mark.parametrize(
    ("block", "options", "message"),
    [
        (ablate, {"neurons": OTHER}, "the neurons of zh is of a model of 2 layers x 52 neuro"),
        (ablate, {"neurons": [SET, OTHER]}, "this one has 3 x 52"),
        (ablate, {"neurons": []}, "no set of neurons: give a NeuronSet, or one for each row"),
        (scale, {"neurons": OTHER, "factor": 2.0}, "this one has 3 x 52"),
        (STEER, {"neurons": OTHER}, "this one has 3 x 52"),
        (ablate, {"method": "means"}, "Did you mean 'mean'"),
        (STEER, {"method": "set"}, "method='set' is no"),
        (ablate, {"method": "mean"}, "method='mean' needs statistics="),
        (MEAN, {"language": "sw"}, r"'sw' is not known; choose one of \['en', 'zh', 'th'\]"),
        (MEAN, {"statistics": COUNTS}, "these statistics hold counts without sums"),
        (MEAN, {"statistics": SMALL}, "3 layers x 40 neurons do not belong .* 3 x 52"),
        (RESAMPLE, {}, "needs reference=, a corpus"),
        (ablate, {"statistics": ANY}, "statistics= needs method='mean', not 'zero'"),
        (RESAMPLE, {"language": "zh"}, "language= needs .*'mean', not 'resamp"),
        (MEAN, {"reference": tiny.tiny_corpus()}, "reference= needs .*'resample', not 'm"),
        (scale, {"factor": float("nan")}, "factor=nan: give a finite number"),
        (STEER, {"alpha": float("inf")}, "alpha=inf: give a finite number"),
        (STEER, {"toward": "fr"}, "language='fr' is not known"),
        (STEER, {"statistics": SMALL}, "do not belong to a model"),
        (STEER, {"away_from": "en"}, "'en' needs method='difference', not 'add'"),
        (AWAY, {"away_from": "zh"}, "'zh' is also toward=: nothing would change"),
        (AWAY, {"away_from": "fr"}, "language='fr' is not known"),
        (AWAY, {"statistics": ALONE}, "method='difference' needs statistics of a second language"),
    ],
)
def test_it_is_refused(block, options, message, bridge):
    model, bound = bridge("Llama"), partial(block)
    before = [list(point.fwd_hooks) for point in model.hook_dict.values()]
    given = {"neurons": SET, **bound.keywords, **options}
    with pytest.raises(LensNeuronsError, match=message):
        next(unwrap(bound.func)(model, **given))
    assert [list(point.fwd_hooks) for point in model.hook_dict.values()] == before


def test_a_hugging_face_model_is_refused():
    with pytest.raises(ModelError, match="is not a TransformerLens model"):
        ablate(tiny.random_model("Llama"), SET).__enter__()
