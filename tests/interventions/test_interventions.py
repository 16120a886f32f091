"""An intervention is what its formula says of the activation, by Hugging Face's own forward."""

from __future__ import annotations

from contextlib import ExitStack
from functools import lru_cache
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
    post_of,
    zero_rows,
)
from oracle import count_by_hand
from transformers import AutoModelForCausalLM

from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.interventions.editing import ablate, scale, steer
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.sets import NeuronSet

ANY = draw_statistics()


@pytest.fixture(scope="module")
def folder_of(model_folder, tmp_path_factory):
    """The folders of `model_folder`, and a Llama whose gate is a ReLU."""

    @lru_cache
    def folder(architecture):
        if architecture != "Llama ReLU":
            return model_folder(architecture)
        model = tiny.random_model("Llama")
        model.config.hidden_act = "relu"
        path = tmp_path_factory.mktemp("relu")
        model.save_pretrained(path)
        tiny.byte_tokenizer(bos=True).save_pretrained(path)
        return path

    return folder


@pytest.fixture(scope="module")
def load(folder_of):
    """``load("Llama")``: a bridge, loaded once; no test may leave it changed."""
    return lru_cache(lambda architecture: load_model(folder_of(architecture), device="cpu"))


@pytest.fixture(scope="module")
def plain(folder_of):
    """``plain("Llama")``: the same model as Hugging Face loads it, always a new one."""

    def loaded(architecture):
        options = {"attn_implementation": "eager"}  # as the bridge computes
        return AutoModelForCausalLM.from_pretrained(folder_of(architecture), **options).eval()

    return loaded


@pytest.fixture(scope="module")
def llama(load):
    return load("Llama")


# Against Hugging Face


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_zero_is_w_out_without_the_rows(architecture, load, plain):
    """Bitwise, where the bridge itself has Hugging Face's bits (11 of the 16)."""
    model, other = load(architecture), plain(architecture)
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
    "mean of one": (
        lambda m, n, s: ablate(m, n, method="mean", statistics=s, language="zh"),
        lambda a, en, zh, th: zh.expand_as(a),
    ),
    "mean of all": (
        lambda m, n, s: ablate(m, n, method="mean", statistics=s),
        lambda a, en, zh, th: ((en + zh + th) / 3).expand_as(a),
    ),
    "scale": (lambda m, n, s: scale(m, n, -1.5), lambda a, en, zh, th: -1.5 * a),
    "add": (
        lambda m, n, s: steer(m, n, s, toward="zh", alpha=2.0),
        lambda a, en, zh, th: a + 2 * zh,
    ),
    "replace": (
        lambda m, n, s: steer(m, n, s, toward="th", method="replace", alpha=0.5),
        lambda a, en, zh, th: (0.5 * th).expand_as(a),
    ),
    "difference": (
        lambda m, n, s: steer(m, n, s, toward="zh", method="difference", alpha=-1.5),
        lambda a, en, zh, th: a - 1.5 * (zh - (en + th) / 2),
    ),
    "difference of two": (
        lambda m, n, s: steer(m, n, s, toward="zh", method="difference", away_from="en"),
        lambda a, en, zh, th: a + zh - en,
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("architecture", ["Llama", "Llama ReLU", "Phi3", "Gemma2", "GPT2", "OPT"])
def test_the_output_of_the_activation_function_is_changed(architecture, kind, load, plain):
    """The linear branch of a gated MLP follows the text: only ``act_fn``'s output is replaced."""
    model = load(architecture)
    block, formula = CHANGES[kind]
    neurons, statistics = draw_set(), draw_statistics()
    means = torch.from_numpy(statistics.sums / statistics.grouped_tokens[0]).float()

    def change(layer, activation):
        here = neurons.by_layer().get(layer, np.zeros(0, np.int64))
        activation = activation.clone()
        activation[..., here] = formula(activation[..., here], *means[layer, here].unbind(-1))
        return activation

    with changed_activations(plain(architecture), architecture.split()[0], change) as other:
        after = logits_of(other)
    with block(model, neurons, statistics):
        ours = logits_of(model)
    assert (ours - after).abs().max() < 1e-5 * after.abs().max()
    assert (ours - logits_of(model)).abs().max() > 0.05 * after.abs().max()


def test_bfloat16_stays_bfloat16(model_folder):
    model = load_model(model_folder("Llama"), device="cpu", dtype="bfloat16")
    neurons, here = draw_set(), draw_set().mask()[0]
    with ablate(model, neurons, method="mean", statistics=ANY, language="zh"):
        post = post_of(model)
        assert logits_of(model).dtype == torch.bfloat16
        hook = ("blocks.0.mlp.hook_pre_linear", lambda tensor, hook: seen.append(tensor))
        seen = []
        model.run_with_hooks(IDS, fwd_hooks=[hook])
    mean = torch.from_numpy(ANY.mean[0, here, 1]).bfloat16()
    assert torch.equal(post[..., here], mean * seen[0][..., here])


# All that runs in the block


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_it_acts_under_generate(architecture, load, plain):
    model, other = load(architecture), plain(architecture)
    zeroed = zero_rows(plain(architecture), architecture, draw_set().by_layer())
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
def test_it_acts_under_generate_with_padding_on_the_left(architecture, load):
    model = load(architecture)
    mask = torch.ones_like(IDS)
    mask[0, :6] = mask[2, :2] = 0
    padded = IDS.masked_fill(mask == 0, 2)
    with ablate(model, draw_set()):
        alone = [generate(model, IDS[row : row + 1, 11 - n :]) for row, n in enumerate(mask.sum(1))]
        for way in (model, model.original_model):
            assert torch.equal(generate(way, padded, attention_mask=mask), torch.cat(alone))


def test_a_cache_holds_what_is_left(load):
    neurons, model = draw_set(), load("Llama")
    with ablate(model, neurons):
        _, cache = model.run_with_cache(IDS)
        seen = post_of(model, 2)
    zeroed = torch.from_numpy(neurons.mask())
    for layer in (0, 2):
        assert not cache[f"blocks.{layer}.mlp.hook_post"][..., zeroed[layer]].any()
    assert torch.equal(cache["blocks.2.mlp.hook_post"], seen)
    assert seen[..., ~zeroed[2]].any()


def test_collect_counts_downstream_of_an_ablation(load, plain, tmp_path):
    model, corpus = load("Llama"), tiny.tiny_corpus()
    zero_rows(plain("Llama"), "Llama", draw_set().by_layer()).save_pretrained(tmp_path)
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
MEAN = {"method": "mean", "statistics": ANY}
AWAY = {"toward": "zh", "method": "difference"}
REFUSED = [
    (ablate, [OTHER], {}, "the neurons of zh is of a model of 2 layers x 52 neuro"),
    (ablate, [[SET, OTHER]], {}, "this one has 3 x 52"),
    (ablate, [[]], {}, "no set of neurons: give a NeuronSet, or one for each row"),
    (scale, [OTHER, 2.0], {}, "this one has 3 x 52"),
    (steer, [OTHER, ANY], {"toward": "zh"}, "this one has 3 x 52"),
    (ablate, [SET], {"method": "means"}, "Did you mean 'mean'"),
    (steer, [SET, ANY], {"toward": "zh", "method": "set"}, "method='set' is no"),
    (ablate, [SET], {"method": "mean"}, "method='mean' needs statistics="),
    (
        ablate,
        [SET],
        {**MEAN, "language": "sw"},
        r"'sw' is not known; choose one of \['en', 'zh', 'th'\]",
    ),
    (ablate, [SET], {**MEAN, "statistics": COUNTS}, "these statistics hold counts without sums"),
    (ablate, [SET], {**MEAN, "statistics": SMALL}, "3 layers x 40 neurons do not belong .* 3 x 52"),
    (ablate, [SET], {"method": "resample"}, "needs reference=, a corpus"),
    (ablate, [SET], {"statistics": ANY}, "statistics= needs method='mean', not 'zero'"),
    (
        ablate,
        [SET],
        {"method": "resample", "language": "zh"},
        "language= needs .*'mean', not 'resamp",
    ),
    (
        ablate,
        [SET],
        {**MEAN, "reference": tiny.tiny_corpus()},
        "reference= needs .*'resample', not 'm",
    ),
    (scale, [SET, float("nan")], {}, "factor=nan: give a finite number"),
    (steer, [SET, ANY], {"toward": "zh", "alpha": float("inf")}, "alpha=inf: give a finite number"),
    (steer, [SET, ANY], {"toward": "fr"}, "language='fr' is not known"),
    (steer, [SET, SMALL], {"toward": "zh"}, "do not belong to a model"),
    (
        steer,
        [SET, ANY],
        {"toward": "zh", "away_from": "en"},
        "'en' needs method='difference', not 'add'",
    ),
    (steer, [SET, ANY], {**AWAY, "away_from": "zh"}, "'zh' is also toward=: nothing would change"),
    (steer, [SET, ANY], {**AWAY, "away_from": "fr"}, "language='fr' is not known"),
    (steer, [SET, ALONE], AWAY, "method='difference' needs statistics of a second language"),
]


@pytest.mark.parametrize(("function", "given", "options", "message"), REFUSED)
def test_it_is_refused(function, given, options, message, load):
    model = load("Llama")
    before = [list(point.fwd_hooks) for point in model.hook_dict.values()]
    with pytest.raises(LensNeuronsError, match=message):
        next(unwrap(function)(model, *given, **options))
    assert [list(point.fwd_hooks) for point in model.hook_dict.values()] == before


def test_a_hugging_face_model_is_refused(plain):
    with ExitStack() as stack, pytest.raises(ModelError, match="is not a TransformerLens model"):
        stack.enter_context(ablate(plain("Llama"), draw_set()))
