"""A prepared corpus is made once for one model; what belongs to a run is read at the run."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import tiny
import torch
from edited import draw_set

from lensneurons.activations.collection import collect
from lensneurons.cards.contexts import top_contexts
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.evaluation import answers as answering
from lensneurons.evaluation.answers import accuracy, answer_scorer
from lensneurons.evaluation.likelihood import nll
from lensneurons.interventions.editing import ablate
from lensneurons.languages.detection import LanguageGuess
from lensneurons.models import identity
from lensneurons.models.identity import hash_weights, original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.tokens import prepared as room
from lensneurons.tokens.prepared import prepare

CORPUS = tiny.tiny_corpus()


@pytest.fixture(scope="module")
def ready(llama):
    return prepare(llama, CORPUS)


# The same numbers


VERBS = {
    "nll": lambda m, c: nll(m, c),
    "collect": lambda m, c: collect(m, c, progress=False),
    "top_contexts": lambda m, c: top_contexts(m, c, draw_set(), k=2),
}


@pytest.mark.parametrize("verb", VERBS)
def test_results_are_bitwise_those_of_the_plain_corpus(verb, llama, ready, tmp_path):
    plain, ours = VERBS[verb](llama, CORPUS), VERBS[verb](llama, ready)
    files = [one.save(tmp_path / name) for name, one in (("plain", plain), ("ours", ours))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_answers_are_those_of_the_plain_corpus(llama, monkeypatch):
    guess = LanguageGuess("th", 1.0, "Thai")
    monkeypatch.setattr(answering, "detect_language", lambda text, **options: guess)
    rows = [
        {"id": str(n), "language": language, "prompt": f"{n} + 1 = ", "response": str(n + 1)}
        for language in ("en", "th")
        for n in range(3)
    ]
    corpus = build_corpus(rows)
    ready, other = prepare(llama, corpus), tiny.byte_tokenizer(bos=False)
    without_bos = prepare(llama, corpus, tokenizer=other)
    options = {"max_new_tokens": 5, "progress": False}
    for one, tokenizer in ((ready, None), (without_bos, other)):
        ours = accuracy(llama, one, **options)
        plain = accuracy(llama, corpus, tokenizer=tokenizer, **options)
        assert (ours.answers, ours.provenance) == (plain.answers, plain.provenance)
        scores = [answer_scorer(llama, c, max_new_tokens=5)([0, 4, 0]) for c in (corpus, ready)]
        assert scores[0] == scores[1]
    with pytest.raises(LensNeuronsError, match="tokenizer=.* differs from that of"):
        accuracy(llama, ready, tokenizer=other, **options)


# Once, not once a call


def test_a_corpus_is_encoded_once_and_a_tokenizer_read_once_a_model(own, model_folder, monkeypatch):
    calls: Counter[str] = Counter()

    def counted(place, name):
        whole = getattr(place, name)

        def count(*given, **options):
            calls[name] += 1
            return whole(*given, **options)

        monkeypatch.setattr(place, name, count)

    counted(room, "encode")
    counted(identity, "_read_tokenizer")
    ready = prepare(own, CORPUS)
    for verb in VERBS.values():
        verb(own, ready)
    assert calls == {"encode": 1}
    assert ready.tokenizer is original_tokenizer(own)
    nll(own, CORPUS)
    assert calls == {"encode": 2}
    another = load_model(model_folder("Llama"), device="cpu")
    assert original_tokenizer(another) is not ready.tokenizer
    assert calls["_read_tokenizer"] == 0  # loading keeps what it read


def test_what_is_asked_again_must_be_what_was_prepared(llama, ready):
    assert prepare(llama, ready) is ready
    same = {"scope": "response", "max_length": tiny.POSITIONS, "overlong": "refuse"}
    assert prepare(llama, ready, tokenizer=ready.tokenizer, **same) is ready
    other = {"scope": "all", "max_length": 20, "overlong": "cut"}
    for option, value in {**other, "tokenizer": tiny.byte_tokenizer(bos=False)}.items():
        with pytest.raises(LensNeuronsError, match=rf"^{option}=.* differs from that of Prepared"):
            prepare(llama, ready, **{option: value})
    with pytest.raises(LensNeuronsError, match="scope='all' differs from .*'response'"):
        nll(llama, ready, scope="all")


def test_another_model_is_refused_even_a_copy(own, ready):
    for verb in VERBS.values():
        with pytest.raises(LensNeuronsError, match="was prepared for another model: prepare"):
            verb(own, ready)


# At the moment of the run


WRITES = {
    "data": lambda weight: weight.data[3, 5].add_(1.0),
    "no gradient": torch.no_grad()(lambda weight: weight[3, 5].add_(1.0)),
    "numpy": lambda weight: np.put(weight.detach().numpy(), 101, 9.0),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_weight_that_is_edited_in_place_is_noticed(write, own):
    ready, before = prepare(own, CORPUS), hash_weights(own)
    assert ready.provenance().weights == before
    weight = own.blocks[0].mlp.out.original_component.weight
    kept = weight.detach().clone()
    WRITES[write](weight)
    assert not torch.equal(weight, kept)
    assert ready.provenance().weights == hash_weights(own) != before
    assert nll(own, ready).provenance.weights != before
    weight.data.copy_(kept)
    assert nll(own, ready).provenance.weights == before


def test_hooks_put_on_after_preparing_act_and_show(llama, ready):
    assert ready.provenance().interventions == "none"
    plain = nll(llama, ready)
    with ablate(llama, draw_set()):
        assert ready.provenance().interventions == "hooks"
        ours, theirs = nll(llama, ready), nll(llama, CORPUS)
        counts = collect(llama, ready, progress=False)
    assert ours.nll.tobytes() == theirs.nll.tobytes() != plain.nll.tobytes()
    assert ours.provenance == theirs.provenance != plain.provenance
    assert counts.provenance.interventions == "hooks"
    assert nll(llama, ready).nll.tobytes() == plain.nll.tobytes()
    assert np.array_equal(ready.encoded.predicted, plain.tokens)


def test_a_cut_is_part_of_the_scope(llama, ready):
    assert ready.provenance().scope == "response"
    cut = prepare(llama, CORPUS, max_length=60, overlong="cut")
    assert cut.provenance().scope == "response, cut at 60 tokens"
    counted = cut.encoded.report.total.counted
    told = rf"PreparedCorpus\(tiny for .*: 24 texts, {counted} counted tokens in scope 'response'\)"
    assert re.fullmatch(told, repr(cut))


# Refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 193}, "max_length=193 is beyond the model's context of 192"),
        (
            {"max_length": 4, "overlong": "cut"},
            r"no counted token of \['.*'\] is left within max_length=4: raise it",
        ),
    ],
)
def test_what_the_model_cannot_read_is_refused(options, message, llama):
    with pytest.raises(CorpusError, match=message):
        prepare(llama, CORPUS.select(ids=["item-1"]), **options)
