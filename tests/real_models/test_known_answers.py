"""Real models: the layer profile, the counts and the logits are those of a plain Hugging Face run.

Each model has one test, because loading it and reading its sentences takes a minute or more:

* the profile of all neurons over the first sentences of FLORES ``dev`` is known exactly;
* counts are those of PyTorch hooks on the Hugging Face model, one sentence at a time, up to the
  tokens whose pre-activation is within rounding of 0, which may fall on either side;
* ablating the neurons of three languages gives the logits of the model with zeroed rows of W_out;
* texts are those of Hugging Face's own `generate`, token by token, without hooks and with one.

The weights are 4-bit weights, dequantised to float32. Nearly all of the time is the forward pass of
the sentences that the profile needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from edited import zero_rows
from oracle import pre_of
from real_data import real_data
from real_models import real_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import lensneurons as ln

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "th", "zh")
# Batches against single texts and sdpa against eager: of the largest pre-activation of a layer.
ROUNDING = 2e-6
LOGITS = 2e-5  # of the largest logit
LAST = 3  # positions whose logits are compared: a vocabulary of 262,000 costs as much as the layers


@dataclass(frozen=True)
class Known:
    """What is known of a model: over so many sentences a language; `compared` with the hooks."""

    sentences: int
    compared: int
    tau: float
    specific: str
    related: str
    agnostic: str
    n_above: str


KNOWN = {
    "gemma-3-270m": Known(
        sentences=60,
        compared=3,
        tau=0.852,
        specific="86 16 13 16 34 26 27 57 35 46 41 48 76 146 223 311 368 378",
        related="47 70 28 71 43 37 40 69 68 81 114 105 125 81 137 207 199 296",
        agnostic="27 36 25 181 66 83 48 55 54 90 80 64 48 14 10 8 4 22",
        n_above="32184 1947 654 362 203 170 102 99 82 146 915",
    ),
    "qwen2.5-coder-0.5b": Known(
        sentences=20,
        compared=2,
        tau=0.7395,
        specific="390 251 43 29 117 99 64 75 130 140 150 133 128 152 177 136 144 111 203 123 250 "
        "638 973 699",
        related="1774 86 68 29 147 60 95 96 136 146 210 222 217 291 308 259 307 150 221 250 291 "
        "424 858 614",
        agnostic="242 13 20 15 36 19 47 41 50 39 102 78 125 132 212 196 218 56 32 135 144 48 109 "
        "94",
        n_above="101919 5355 2356 1255 962 688 458 454 492 594 2203",
    ),
}


def numbers(text):
    return [int(one) for one in text.split()]


@pytest.mark.parametrize("name", KNOWN)
def test_known_answers(name):
    known, folder = KNOWN[name], real_model(name)
    corpus = ln.load_corpus(real_data("flores_sib200"), split="dev", limit=known.sentences)
    assert corpus.languages == LANGUAGES
    model = ln.load_model(folder, device="cpu")
    statistics = ln.collect(model, corpus, progress=False)
    check_profile(statistics, known)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    few = corpus.head(known.compared)
    check_counts(ln.collect(model, few, progress=False), plain, tokenizer, few)
    check_texts(model, plain, tokenizer, few)
    check_ablations(model, plain, tokenizer, few, ln.identify(statistics, score="lape"))


def check_profile(statistics, known):
    neurons = ln.identify(statistics, population="all")
    assert neurons.tau == pytest.approx(known.tau, abs=5e-4)
    for column, name in enumerate(("specific", "related", "agnostic")):
        profile = neurons.layer_profile()[:, column].tolist()
        assert profile == numbers(getattr(known, name)), name
    assert neurons.histogram().tolist() == numbers(known.n_above)


def check_counts(statistics, plain, tokenizer, corpus):
    """Every count lies between the tokens surely above 0 and those that may be."""
    special = set(tokenizer.all_special_ids)
    surely, perhaps = np.zeros((2, *statistics.counts.shape), np.int64)
    tokens = np.zeros(len(LANGUAGES), np.int64)
    for item in corpus:
        ids = tokenizer(item.text)["input_ids"]
        counted = [place for place, token in enumerate(ids) if token not in special]
        pre = pre_of(plain, "base", ids, logits_to_keep=1)[:, counted]
        edge = ROUNDING * pre.abs().amax((1, 2), keepdim=True)
        column = LANGUAGES.index(item.language)
        surely[..., column] += (pre > edge).sum(1).numpy()
        perhaps[..., column] += (pre > -edge).sum(1).numpy()
        tokens[column] += len(counted)
    assert np.array_equal(statistics.tokens, tokens)
    assert (surely <= statistics.counts).all()
    assert (statistics.counts <= perhaps).all()
    unsure = (perhaps - surely).sum() / (tokens.sum() * surely[..., 0].size)
    assert unsure < 1e-4, "the band around 0 is so wide that it proves nothing"


def check_texts(model, plain, tokenizer, corpus):
    """What is written after the first words, with the model's hook points left out and passed."""
    prompts = [item.text[:20] for item in corpus if item.language in ("de", "zh")][:3]
    tokenizer.padding_side = "left"
    given = tokenizer(prompts, return_tensors="pt", padding=True)
    ends = plain.generation_config.eos_token_id
    config = GenerationConfig(max_new_tokens=6, eos_token_id=ends, pad_token_id=0)
    with torch.inference_mode():
        written = plain.generate(**given, generation_config=config)
    new = written[:, given["input_ids"].shape[1] :]
    wanted = tokenizer.batch_decode(new, skip_special_tokens=True)
    assert ln.generate(model, prompts, max_new_tokens=6, progress=False) == wanted
    with model.hooks(fwd_hooks=[("blocks.0.mlp.hook_post", lambda tensor, hook: tensor)]):
        assert ln.generate(model, prompts, max_new_tokens=6, progress=False) == wanted


@torch.inference_mode()
def check_ablations(model, plain, tokenizer, corpus, neurons):
    plain.set_attn_implementation("eager")
    for language in ("de", "zh", "sw"):
        text = next(item.text for item in corpus if item.language == language)
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        chosen = neurons[language]
        assert len(chosen) > 20
        whole = plain(ids, logits_to_keep=LAST).logits
        kept = {
            layer: plain.model.layers[layer].mlp.down_proj.weight.data[:, own].clone()
            for layer, own in chosen.by_layer().items()
        }
        wanted = zero_rows(plain, "base", chosen.by_layer())(ids, logits_to_keep=LAST).logits
        for layer, own in chosen.by_layer().items():
            plain.model.layers[layer].mlp.down_proj.weight.data[:, own] = kept[layer]
        with ln.ablate(model, chosen):
            ours = model(ids, logits_to_keep=LAST)
        scale = wanted.abs().max()
        assert (ours - wanted).abs().max() <= LOGITS * scale
        assert (whole - wanted).abs().max() > 100 * LOGITS * scale, "the ablation does nothing"
