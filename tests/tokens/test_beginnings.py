"""A text that spells BOS is read with one, wherever texts are encoded."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from corpus_data import byte_level, llama_like, words
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

import lensneurons.tokens.encoding as encoding_module
from lensneurons.activations.collection import collect
from lensneurons.alignment.pairs import PreferencePair, PreferencePairs
from lensneurons.alignment.training import (
    DPOSettings,
    _check_lengths,
    _make_trainer,
    target_modules,
)
from lensneurons.corpora.checks import CorpusWarning
from lensneurons.corpora.corpus import build_corpus
from lensneurons.evaluation.generation import encode_prompts
from lensneurons.experiments.carrying import PatchPair, encode_pairs
from lensneurons.models.adapters import quiet
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import read_model
from lensneurons.tokens.beginnings import doubled, encode_once, without_spelt
from lensneurons.tokens.characters import Excerpts, group_tokens
from lensneurons.tokens.encoding import encode, exact_backend
from lensneurons.values.provenance import Provenance

TOLD = "which the tokenizer adds as well: each is read with one, not two"


def byte_level_with_bos():
    """A Llama-3-like tokenizer: byte level, and ``<|end|>`` in front of every text."""
    tokenizer = type(byte_level())(
        tokenizer_object=byte_level().backend_tokenizer.from_str(
            byte_level().backend_tokenizer.to_str()
        ),
        bos_token="<|end|>",
        eos_token="<|end|>",
    )
    bos = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.bos_token_id)]
    )
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), bos]
    )
    return tokenizer


# A tokenizer that adds something in front, and what it adds.
ADDING = [(llama_like, "<s>"), (byte_level_with_bos, "<|end|>"), (words, "[CLS]")]
PROMPTS = ["Tom has 42: ", "Tom:", "answer "]


def corpus_of(prompts, response="42"):
    rows = [
        {"id": str(n), "language": "qaa", "prompt": prompt, "response": response}
        for n, prompt in enumerate(prompts)
    ]
    return build_corpus(rows)


@pytest.mark.parametrize(("make", "bos"), ADDING)
@pytest.mark.parametrize("scope", ["response", "prompt", "all"])
def test_the_encoding_is_that_of_the_text_without_the_spelt_bos(make, bos, scope):
    tokenizer = make()
    plain = encode(corpus_of(PROMPTS), tokenizer, scope=scope)
    with pytest.warns(CorpusWarning, match=TOLD) as told:
        spelt = encode(corpus_of([bos + text for text in PROMPTS]), tokenizer, scope=scope)
    assert len(told) == 1
    for name in ("ids", "offsets", "start", "stop"):
        assert np.array_equal(getattr(spelt, name), getattr(plain, name)), name
    assert spelt.report == plain.report


@pytest.mark.parametrize(("make", "bos"), ADDING)
def test_prompts_and_their_views_begin_once(make, bos):
    tokenizer, spelt = make(), [bos + text for text in PROMPTS]
    plain = encode_prompts(PROMPTS, tokenizer)
    with pytest.warns(CorpusWarning, match=TOLD):
        assert encode_prompts([*spelt, bos], tokenizer) == [*plain, plain[0][:1]]
    with pytest.warns(CorpusWarning, match=TOLD):
        read = group_tokens(tokenizer, spelt)
    assert [one.ids for one in read] == [one.ids for one in group_tokens(tokenizer, PROMPTS)]
    assert all("".join(span.text for span in one.spans) == one.text for one in read)
    assert all(one.offsets[0] == (0, len(bos)) for one in read)


@pytest.mark.parametrize(("make", "bos"), ADDING)
def test_pairs_to_patch_begin_once(make, bos):
    tokenizer = make()

    def pair(front):
        ends = {"both": "42", "concept": "Tom"}
        return PatchPair(front + "Tom has ", "42", front + "answer: ", ends, "en", "1")

    plain = encode_pairs([pair("")], tokenizer)
    with pytest.warns(CorpusWarning, match=TOLD) as told:
        spelt = encode_pairs([pair(bos)] * 2, tokenizer)
    assert len(told) == 1
    assert plain[0]
    assert spelt == plain * 2


@pytest.mark.parametrize(("make", "bos"), ADDING)
def test_an_excerpt_shows_the_token_at_its_position(make, bos):
    tokenizer, text = make(), bos + "Tom has 42"
    excerpts = Excerpts([text], exact_backend(tokenizer, [text]), 100)
    (encoding,), _ = encode_once(exact_backend(tokenizer, [text]), [text])
    place = next(n for n, (_, end) in enumerate(encoding.offsets) if end == len(text))
    before, token, after = excerpts(0, place)
    assert token.strip() in "42"
    assert (before[: len(bos)], after) == (bos, "")


@pytest.mark.parametrize("tokenizer", [byte_level()])
def test_a_tokenizer_that_adds_nothing_reads_the_text_as_it_stands(tokenizer):
    text = "<|end|>answer: 42"
    ids = tokenizer(text)["input_ids"]
    assert encode_prompts([text], tokenizer) == [ids]
    assert group_tokens(tokenizer, [text])[0].ids == tuple(ids)
    assert encode(corpus_of([text]), tokenizer).ids[: len(ids)].tolist() == ids
    assert without_spelt(tokenizer, [text]) == [text]


@pytest.mark.parametrize("text", ["Tom <s> 42", "Tom", "</s>Tom"])
def test_a_bos_elsewhere_stays(text):
    tokenizer = llama_like()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encode_prompts([text], tokenizer) == [tokenizer(text)["input_ids"][:-1]]
        assert without_spelt(tokenizer, [text]) == [text]


@given(st.lists(st.integers(1, 3), max_size=3), st.lists(st.integers(1, 3), max_size=6))
def test_what_is_left_out_is_spelt_behind_it(front, text):
    """Known by comparing with the ids that nothing was added to."""
    count = doubled([*front, *text], [1] * len(front) + [0] * len(text))
    assert count == (len(front) if text[: len(front)] == front else 0)
    assert [*front, *text][count:][: len(front)] == front


def test_texts_for_other_programs_lose_the_spelt_bos():
    tokenizer = llama_like()
    with pytest.warns(CorpusWarning, match=TOLD):
        assert without_spelt(tokenizer, ["<s>Tom", "Tom<s>", "Tom"]) == ["Tom", "Tom<s>", "Tom"]
    pair = PreferencePair("1", "en", "<s>Tom", "4", "2", 1.0, 0.0)
    pairs = PreferencePairs((pair,), "en", "hand", Provenance(model="hand"))
    length = len(tokenizer("Tom4")["input_ids"])
    _check_lengths(pairs, tokenizer, SimpleNamespace(max_position_embeddings=length + 1))


def test_training_reads_one(model_folder, tmp_path):
    folder = model_folder("Llama")
    network, tokenizer, _ = read_model(folder)
    modules = target_modules(network, "attention")
    settings = DPOSettings(steps=1, batch=1, micro_batch=1, modules=modules)
    read = []
    for front in ("", tokenizer.bos_token):
        network, _, _ = read_model(folder)  # PEFT changes the last one
        pairs = [PreferencePair("1", "en", front + "the cat ", "a", "b", 1.0, 0.0)]
        with pytest.warns(CorpusWarning, match=TOLD) if front else nullcontext():
            with quiet():
                trainer = _make_trainer(network, tokenizer, (pairs, []), tmp_path, settings, "cpu")
        read.append(trainer.train_dataset[0]["prompt_ids"])
    assert read[0] == read[1]
    assert read[0][:2].count(tokenizer.bos_token_id) == 1


def test_counts_are_those_of_the_text_without_the_spelt_bos(bridge):
    model = bridge("Llama")
    bos = original_tokenizer(model).bos_token
    rows = ["the cat sat ", "a dog and a cat "]
    plain = collect(model, corpus_of(rows, "the dog"), progress=False)
    with pytest.warns(CorpusWarning, match=TOLD):
        spelt = collect(model, corpus_of([bos + row for row in rows], "the dog"), progress=False)
    assert np.array_equal(spelt.counts, plain.counts)


def test_without_the_guard_two_are_read(monkeypatch):
    """Sabotage: the tests above would see it."""
    tokenizer = llama_like()

    def encode_twice(backend, texts):
        return backend.encode_batch(list(texts)), ""

    monkeypatch.setattr(encoding_module, "encode_once", encode_twice)
    encoded = encode(corpus_of(["<s>Tom "]), tokenizer)
    assert encoded.ids[:2].tolist() == [tokenizer.bos_token_id] * 2
