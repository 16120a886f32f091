"""The NLL is Hugging Face's cross-entropy of the counted tokens, one by one."""

from __future__ import annotations

from functools import lru_cache
from math import exp, log

import numpy as np
import pytest
import tiny
import torch
from edited import draw_set, losses_by_hand, plain_model, zero_rows
from oracle import encode_by_hand
from transformers import AutoTokenizer

from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError, ProvenanceError
from lensneurons.evaluation.likelihood import CorpusNLL, fitting, nll, text_scorer, token_nll
from lensneurons.interventions.editing import ablate
from lensneurons.models.loading import load_model
from lensneurons.tokens.encoding import tokenizer_hash
from lensneurons.tokens.prepared import prepare
from lensneurons.values.provenance import Provenance

CORPUS = tiny.tiny_corpus()


@pytest.fixture(scope="module")
def plain(model_folder):
    """``plain("Llama")``: a new Hugging Face model."""
    return lambda architecture: plain_model(model_folder(architecture))


@pytest.fixture(scope="module")
def by_hand(plain, tokenizer_of):
    """``by_hand("Llama", "response")``: NLL and counted tokens of each text of the corpus.

    A token without one before it does not count. Another model or tokenizer may stand in.
    """

    @lru_cache
    def losses(architecture, model, tokenizer):
        model = model or plain(architecture)
        ids = [tokenizer(item.text)["input_ids"] for item in CORPUS]
        return [losses_by_hand(model, text).double().numpy() for text in ids]

    def sums(architecture, scope="response", model=None, tokenizer=None):
        tokenizer = tokenizer or tokenizer_of(architecture)
        places = [encode_by_hand(tokenizer, item, scope)[1] for item in CORPUS]
        places = [np.array([place for place in text if place > 0]) for text in places]
        pairs = zip(losses(architecture, model, tokenizer), places, strict=True)
        counted = np.array([len(at) for at in places])
        return np.array([loss[at - 1].sum() for loss, at in pairs]), counted

    return sums


@pytest.fixture(scope="module")
def tokenizer_of(model_folder):
    return lru_cache(lambda architecture: AutoTokenizer.from_pretrained(model_folder(architecture)))


@pytest.fixture(scope="module")
def llama(bridge):
    return bridge("Llama")


@pytest.fixture(scope="module")
def before(llama):
    return nll(llama, CORPUS)


# Against Hugging Face


@pytest.mark.parametrize("scope", ["response", "prompt", "all"])
@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Gemma2", "GPT2", "Bloom", "OPT"])
def test_nll_is_the_cross_entropy(architecture, scope, bridge, by_hand):
    sums, tokens = by_hand(architecture, scope)
    for options in ({}, {"padding_side": "left", "batch_tokens": 300}):
        ours = nll(bridge(architecture), CORPUS, scope=scope, **options)
        assert ours.tokens.tolist() == tokens.tolist()
        assert np.abs((ours.nll - sums) / tokens).max() < 1e-5
        assert (ours.provenance.scope, ours.provenance.attention) == (scope, "eager")


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("batch_tokens", [1, 97, 10**6])
def test_nll_does_not_depend_on_batches_or_padding(padding_side, batch_tokens, bridge, by_hand):
    sums, tokens = by_hand("Mistral", "response")
    options = {"padding_side": padding_side, "batch_tokens": batch_tokens}
    ours = nll(bridge("Mistral"), CORPUS, **options)
    assert np.abs((ours.nll - sums) / tokens).max() < 1e-5


@pytest.mark.parametrize("architecture", ["Mistral", "GPTNeoX", "XGLM"])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_every_token_is_the_cross_entropy(architecture, padding, bridge, plain):
    random, other = np.random.default_rng(2), plain(architecture)
    texts = [random.integers(3, 340, length).tolist() for length in (31, 5, 2, 19)]
    tokens, mask = torch.full((4, 31), 2), torch.zeros(4, 31, dtype=torch.int64)
    for row, ids in enumerate(texts):
        here = slice(0, len(ids)) if padding == "right" else slice(31 - len(ids), 31)
        tokens[row, here], mask[row, here] = torch.tensor(ids), 1
    ours = token_nll(bridge(architecture), tokens, mask if padding == "left" else None)
    assert (ours.shape, ours.dtype) == ((4, 30), torch.float32)
    for row, ids in enumerate(texts):
        here = ours[row, : len(ids) - 1] if padding == "right" else ours[row, 31 - len(ids) :]
        assert (here - losses_by_hand(other, ids)).abs().max() < 1e-5


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_nll_under_an_ablation_is_that_without_rows_of_w_out(architecture, bridge, plain, by_hand):
    model = bridge(architecture)
    zeroed = zero_rows(plain(architecture), architecture, draw_set().by_layer())
    sums, tokens = by_hand(architecture, "response", zeroed)
    untouched = nll(model, CORPUS)
    with ablate(model, draw_set()):
        ours = nll(model, CORPUS)
    assert np.abs((ours.nll - sums) / tokens).max() < 1e-5
    assert np.abs(ours.mean - untouched.mean).min() > 0.01
    assert np.array_equal(nll(model, CORPUS).nll, untouched.nll)
    assert (untouched.provenance.interventions, ours.provenance.interventions) == ("none", "hooks")


def test_a_tokenizer_may_be_given(bridge, by_hand, tokenizer_of, monkeypatch):
    """The model's own, and one that puts a BOS in front of each text."""
    model, ours = bridge("Qwen2"), nll(bridge("Qwen2"), CORPUS)
    other = tiny.byte_tokenizer(bos=True)
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(ModelError, match="no tokenizer that can be read again: pass tokenizer="):
        nll(model, CORPUS)
    assert np.array_equal(nll(model, CORPUS, tokenizer=tokenizer_of("Qwen2")).nll, ours.nll)
    found = nll(model, CORPUS, tokenizer=other)
    sums, tokens = by_hand("Qwen2", tokenizer=other)
    assert found.tokens.tolist() == tokens.tolist()
    np.testing.assert_allclose(found.nll, sums, rtol=1e-5)
    assert np.abs(found.mean - ours.mean).min() > 1e-3
    assert found.provenance.tokenizer == tokenizer_hash(other) != ours.provenance.tokenizer


@pytest.mark.parametrize("architecture", ["Llama", "Qwen2"])
def test_a_first_token_does_not_count(architecture, bridge, tokenizer_of):
    """BOS is none of the text; where there is none, nothing predicts the text's first token."""
    lengths = [len(tokenizer_of(architecture)(item.text)["input_ids"]) for item in CORPUS]
    ours = nll(bridge(architecture), CORPUS, scope="all")
    assert (ours.tokens == np.array(lengths) - 1).all()
    counted = prepare(bridge(architecture), CORPUS, scope="all").encoded.report.total.counted
    assert counted - ours.tokens.sum() == (len(CORPUS) if architecture == "Qwen2" else 0)


@pytest.mark.parametrize(("dtype", "exact"), [("float32", 1e-6), ("float64", 1e-14)])
def test_a_model_that_knows_nothing_has_the_perplexity_of_its_words(dtype, exact, plain, tmp_path):
    model = plain("Llama")
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(tmp_path)
    tiny.byte_tokenizer(bos=True).save_pretrained(tmp_path)
    uniform = load_model(tmp_path, device="cpu", dtype=dtype)
    found = nll(uniform, CORPUS)
    assert found.perplexity.tolist() == pytest.approx([350] * 3, rel=exact)
    assert token_nll(uniform, torch.full((1, 3), 7)).dtype == getattr(torch, dtype)


def test_half_precision_is_added_up_in_single(model_folder, before):
    half = load_model(model_folder("Llama"), device="cpu", dtype="bfloat16")
    assert token_nll(half, torch.full((2, 5), 9)).dtype == torch.float32
    assert np.abs(nll(half, CORPUS).mean - before.mean).max() < 0.2


def test_the_same_call_gives_the_same_bits(llama, before, capsys):
    again = nll(llama, CORPUS, progress=True)
    assert "nll: 100%" in capsys.readouterr().err
    assert np.array_equal(again.nll, before.nll)
    assert again.provenance == before.provenance
    assert again.interval(seed=3).low.tolist() == before.interval(seed=3).low.tolist()
    assert (again.interval(seed=4).low != before.interval(seed=3).low).any()


def test_a_text_may_stand_in_several_rows(llama, before):
    sums, tokens = text_scorer(llama, prepare(llama, CORPUS).encoded)([3, 5, 3])
    assert sums[0] == sums[2]
    assert tokens.tolist() == before.tokens[[3, 5, 3]].tolist()
    np.testing.assert_allclose(sums, before.nll[[3, 5, 3]], rtol=1e-5)


# Numbers by language


LANGUAGE = np.array([0, 1, 0, 1, 1, 0])
IDS = ("a", "a", "b", "b", "c", "c")


def build(nll, tokens=(1, 2, 3, 4, 5, 6), **other):
    values = {"languages": ("en", "zh"), "language": LANGUAGE, "item_ids": IDS, **other}
    return CorpusNLL(nll=np.array(nll, float), tokens=np.array(tokens), **values)


PLAIN = build([1.0, 2.0, 6.0, 12.0, 3.0, 5.0])
HARDER = build([2.0, 3.0, 9.0, 12.5, 4.0, 5.0], provenance=Provenance(interventions="hooks"))


def test_a_mean_weighs_tokens_not_texts():
    assert PLAIN.mean.tolist() == [12 / 10, 17 / 11]
    assert PLAIN.perplexity.tolist() == pytest.approx([exp(1.2), exp(17 / 11)])
    assert PLAIN.interval().estimate.tolist() == PLAIN.mean.tolist()
    row = {"item": "b", "language": "zh", "nll": 12.0, "tokens": 4}
    assert PLAIN.to_pandas().iloc[3].to_dict() == row
    assert "en 1.200, zh 1.545" in repr(PLAIN)
    assert "<td>3.320</td>" in PLAIN._repr_html_()


def test_a_change_is_that_of_the_means():
    change = HARDER.difference(PLAIN)
    assert change.estimate.tolist() == pytest.approx([4 / 10, 2.5 / 11])
    assert (change.low < change.estimate).all()
    assert (HARDER.difference(PLAIN, level=0.5).low > change.low).all()
    none = PLAIN.difference(PLAIN)
    assert not np.stack([none.estimate, none.low, none.high]).any()


def test_the_papers_figure():
    """Mean NLLs of 1.2 and 17 / 11 rise to 1.6 and 19.5 / 11: ln(1 + change of perplexity)."""
    ours = HARDER.log_perplexity_difference(PLAIN)
    by_hand = [log(1 + exp(1.6) - exp(1.2)), log(1 + exp(19.5 / 11) - exp(17 / 11))]
    assert ours.tolist() == pytest.approx(by_hand, rel=1e-12)
    assert ours.tolist() == pytest.approx([0.968, 0.787], abs=5e-4)
    assert np.isnan(PLAIN.log_perplexity_difference(HARDER)).all()
    assert PLAIN.log_perplexity_difference(PLAIN).tolist() == [0, 0]


def test_pairs_are_much_narrower():
    """Texts differ by 1 nat a token, the change by 0.05: unpaired intervals would not see it."""
    random = np.random.default_rng(5)
    ids = tuple(f"i{n}" for n in range(40))
    tokens = random.integers(20, 200, 40)
    told = {"languages": ("en",), "language": np.zeros(40, int), "item_ids": ids, "tokens": tokens}
    easy = random.normal(3, 1, 40) * tokens
    plain = build(easy, **told)
    change = build(easy + random.normal(0.1, 0.05, 40) * tokens, **told).difference(plain)
    alone = plain.interval()
    assert change.low > 0.05
    assert (change.high - change.low) < 0.1 * (alone.high - alone.low)


# Same texts only


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"provenance": Provenance(corpora=("x",))}, r"corpora: \('x',\) and \(\)"),
        ({"provenance": Provenance(scope="all")}, "scope: 'all' and 'unknown'"),
        ({"provenance": Provenance(tokenizer="t")}, "tokenizer: 't' and 'unknown'"),
        ({"languages": ("en", "ja")}, "the two are about other texts: their languages differ"),
        ({"item_ids": (*IDS[:5], "d")}, "the two are about other texts: their item_ids differ"),
        ({"language": 1 - LANGUAGE}, "the two are about other texts: their language differ"),
        ({"tokens": (1, 2, 3, 4, 5, 7)}, "the two counted other tokens of the same texts"),
    ],
)
def test_other_texts_are_refused(other, message):
    foreign = build([1.0, 2.0, 6.0, 12.0, 3.0, 5.0], **other)
    for compare in (PLAIN.difference, PLAIN.log_perplexity_difference):
        with pytest.raises(ProvenanceError, match=message):
            compare(foreign)


def test_another_model_may_be_compared():
    entries = ("model", "weights", "config", "dtype", "attention", "activation")
    provenance = Provenance(**dict.fromkeys(entries, "another"))
    other = build([1.0, 2.0, 6.0, 12.0, 3.0, 5.0], provenance=provenance)
    assert not PLAIN.difference(other).estimate.any()


# Refused before any forward pass


@pytest.fixture
def no_forward(model_folder, monkeypatch):
    def ran(self, *args, **kwargs):
        raise AssertionError("a forward pass ran")

    model = load_model(model_folder("Qwen2"), device="cpu")
    monkeypatch.setattr(torch.nn.Embedding, "forward", ran)
    return model


def test_batches_that_hold_nothing_are_refused(no_forward):
    with pytest.raises(LensNeuronsError, match="batch_tokens=0 holds nothing; give 1 or more"):
        nll(no_forward, CORPUS, batch_tokens=0)
    with pytest.raises(AssertionError, match="a forward pass ran"):
        nll(no_forward, CORPUS)


@pytest.mark.parametrize(
    ("prompt", "response", "scope", "message"),
    [
        ("", "x", "prompt", "no token counts in scope 'prompt' for 1 of 2 texts"),
        ("a", "xyz " * 200, "response", "exceed max_length=192"),
        ("", "x", "response", r"every counted token of \['fr'\] is the first of its text"),
    ],
)
def test_texts_that_cannot_be_scored_are_refused(prompt, response, scope, message, no_forward):
    rows = [
        {"id": "1", "language": "en", "prompt": "so long", "response": " a text"},
        {"id": "1", "language": "fr", "prompt": prompt, "response": response},
    ]
    with pytest.raises(CorpusError, match=message):
        nll(no_forward, build_corpus(rows), scope=scope)


def test_a_hugging_face_model_is_refused():
    with pytest.raises(ModelError, match="is not a TransformerLens model"):
        nll(tiny.random_model("Llama"), CORPUS)


def test_large_vocabularies_get_small_batches(llama, monkeypatch):
    assert fitting(llama, 4096) == 4096
    monkeypatch.setattr("lensneurons.evaluation.likelihood.LOGITS", 35_000)
    assert fitting(llama, 4096) == 100
