"""Top contexts against a search by hand over plain Hugging Face activations, text by text."""

from __future__ import annotations

from contextlib import contextmanager
from inspect import unwrap
from itertools import product

import numpy as np
import pytest
import regex
import tiny
import torch
from oracle import ACTIVATIONS, encode_by_hand, pre_of
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.cards.contexts import top_contexts
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.characters import character_starts, cut_token, excerpt_html
from lensneurons.tokens.encoding import encode
from lensneurons.tokens.prepared import prepare

CORPUS = tiny.tiny_corpus()
NAMES = ["L0N3", "L0N40", "L1N17", "L2N0", "L2N51"]


def chosen(model, names=NAMES):
    site = neuron_site(model)
    return NeuronSet.from_names(names, n_layers=site.n_layers, d_mlp=site.d_mlp)


def by_hand(folder, architecture, *, k, scope="response", per_item=1):
    """(neuron, language, item, position, activation) of the strongest, one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    activation = ACTIVATIONS.get(architecture, functional.silu)
    rows = []
    for number, item in enumerate(CORPUS):
        ids, where = encode_by_hand(tokenizer, item, scope)
        values = activation(pre_of(model, architecture, ids)).numpy()
        for name in NAMES:
            layer, neuron = (int(part) for part in name[1:].split("N"))
            own = sorted((-values[layer, place, neuron], place) for place in where)[:per_item]
            rows += [(name, item.language, -v, number, place) for v, place in own if v < 0]
    found = []
    for own in product(NAMES, CORPUS.languages):
        best = sorted((-v, i, place) for *of, v, i, place in rows if tuple(of) == own)[:k]
        found += [(*own, CORPUS.items[i].id, place, -v) for v, i, place in best]
    return found


def assert_same(contexts, theirs):
    """The same values in the same order, each where it says; rounding may swap near-equal ones."""
    activation = {row[:4]: row[4] for row in theirs}
    ours = [(r.neuron, r.language, r.item, r.position) for r in contexts.rows]
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    assert len(set(ours) & set(activation)) > 0.95 * len(ours)
    for row, place, their in zip(contexts.rows, ours, theirs, strict=True):
        assert row.activation == pytest.approx(their[4], rel=3e-4)
        assert row.activation == pytest.approx(activation.get(place, their[4]), rel=3e-4)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        *((architecture, {}) for architecture in ("Llama", "GPT2", "OPT", "Phi3", "Qwen2")),
        *(("Llama", {"per_item": n}) for n in (2, 9)),
        *(("Llama", {"scope": scope}) for scope in ("prompt", "all")),
    ],
)
def test_the_strongest_equal_hugging_face(architecture, options, bridge, model_folder):
    model = bridge(architecture)
    ours = top_contexts(model, CORPUS, chosen(model), k=4, **options)
    assert_same(ours, by_hand(model_folder(architecture), architecture, k=4, **options))
    assert len(ours.rows) > 15


def test_batches_do_not_matter(bridge):
    model = bridge("Llama")
    whole, single = (
        top_contexts(model, CORPUS, chosen(model), k=4, batch_tokens=n) for n in (10**6, 1)
    )
    places = [[(r.neuron, r.item, r.position, r.token) for r in c.rows] for c in (whole, single)]
    assert places[0] == places[1]


def test_a_silent_neuron_has_no_context(model_folder):
    model = load_model(model_folder("OPT"), device="cpu")
    fc1 = model.original_model.model.decoder.layers[1].fc1.original_component
    with torch.no_grad():
        fc1.weight[4:6], fc1.bias[4], fc1.bias[5] = 0, 1, -1
    contexts = top_contexts(model, CORPUS, chosen(model, ["L1N4", "L1N5"]), k=2)
    assert contexts.of("L1N5") == ()
    assert [row.activation for row in contexts.of("L1N4")] == [1.0] * 6


def test_equal_activations_go_by_text_and_position(model_folder):
    """The same text under four ids: every activation is there four times, the first two win."""
    model = load_model(model_folder("Llama"), device="cpu")
    same = {"language": "en", "prompt": "one\n", "response": "aa aa aa"}
    corpus = build_corpus([{"id": name, **same} for name in ("d", "b", "c", "a")])
    rows = top_contexts(model, corpus, chosen(model), k=2, batch_tokens=1).rows
    assert {row.item for row in rows} == {"d", "b"}
    assert [row.item for row in rows] == ["d", "b"] * (len(rows) // 2)


def test_hooks_of_others_act_and_stay(bridge):
    model, calls = bridge("Llama"), []

    def silence(tensor, hook):
        calls.append(1)
        return tensor * 0 - 1

    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_pre", silence)]):
        contexts = top_contexts(model, CORPUS, chosen(model), k=2)
        assert contexts.provenance.interventions == "hooks"
    assert calls
    assert contexts.of("L1N17") == ()
    assert top_contexts(model, CORPUS, chosen(model), k=2).of("L1N17")


def test_a_layer_that_does_not_pass_is_noticed(bridge, monkeypatch):
    @contextmanager
    def blind(model, site, watch):
        yield lambda tokens, mask: watch(0, torch.zeros(*tokens.shape, site.d_mlp))

    monkeypatch.setattr("lensneurons.cards.contexts.watching", blind)
    with pytest.raises(LensNeuronsError, match="hook_pre of 3 layers fired 3 times in 3 batches"):
        top_contexts(bridge("Llama"), CORPUS, chosen(bridge("Llama")), batch_tokens=10**6)


def test_the_excerpt_is_the_text_around_the_token(bridge, model_folder):
    """Tokens found by their bytes; the excerpt is cut where no character is torn."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder("Llama"))
    model = bridge("Llama")
    contexts = top_contexts(model, CORPUS, chosen(model), k=8, window=9, scope="all")
    taken = {(row.neuron, row.language, row.item) for row in contexts.rows}
    assert len(taken) == len(contexts.rows), "one token of an item by default"
    torn = 0
    for row in contexts.rows:
        item = next(i for i in CORPUS if (i.id, i.language) == (row.item, row.language))
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(item.text)["input_ids"])
        lengths = [0 if piece == "<s>" else len(piece) for piece in pieces]
        begin, end = sum(lengths[: row.position]), sum(lengths[: row.position + 1])
        whole = row.before + row.token + row.after
        assert whole in item.text
        spans = []
        for match in regex.finditer(regex.escape(whole), item.text, overlapped=True):
            left = len((item.text[: match.start()] + row.before).encode())
            spans.append((left, left + len(row.token.encode())))
        assert any(left <= begin and end <= right for left, right in spans)
        torn += (begin, end) not in spans
        assert "\N{REPLACEMENT CHARACTER}" not in whole
        assert row.before[-1:] in ("", "\n") or not regex.match(r"\p{M}", row.token)
        assert row.token.endswith("\n") or not regex.match(r"\p{M}", row.after)
        assert max(len(character_starts(part)) for part in (row.before, row.after)) <= 9
    assert torn > 10, "no token that is a part of a character proves nothing"


@pytest.mark.parametrize(
    ("text", "begin", "end", "window", "cut"),
    [
        ("abcdef", 2, 3, 2, ("ab", "c", "de")),
        ("abcdef", 0, 1, 2, ("", "a", "bc")),
        ("abcdef", 4, 6, 9, ("abcd", "ef", "")),
        ("abcdef", 2, 3, 0, ("", "c", "")),
        ("abcdef", 2, 2, 1, ("b", "", "c")),
        ("abcdef", 6, 6, 2, ("ef", "", "")),
        ("xกำy", 2, 3, 1, ("x", "กำ", "y")),  # the vowel alone
        ("xกำy", 1, 2, 1, ("x", "กำ", "y")),  # the consonant alone
        ("e\u0301a\u0308o", 1, 3, 1, ("", "e\u0301a\u0308", "o")),  # across two characters
        ("বিড়াল", 1, 2, 1, ("", "বি", "ড়া")),
        ("\U0001f469\u200d\U0001f680!", 2, 3, 1, ("", "\U0001f469\u200d\U0001f680", "!")),
    ],
)
def test_tokens_are_widened_to_characters(text, begin, end, window, cut):
    assert cut_token(text, begin, end, starts=character_starts(text), window=window) == cut


def test_html_of_an_excerpt_is_escaped():
    html = excerpt_html("<b>\n", "</script>&", "'x'", language="ar")
    assert html == (
        "<bdi dir='auto' lang='ar'>&lt;b&gt;\N{RETURN SYMBOL}\N{ZERO WIDTH SPACE}"
        "<mark>&lt;/script&gt;&amp;</mark>&#x27;x&#x27;</bdi>"
    )


def test_the_value_is_shown(bridge):
    model = bridge("Llama")
    contexts = top_contexts(model, CORPUS, chosen(model), k=2)
    assert contexts.provenance.corpora == (CORPUS.fingerprint,)
    table = contexts.to_pandas()
    assert list(table)[:5] == ["neuron", "language", "item", "position", "activation"]
    assert len(table) == len(contexts.rows)
    assert (
        repr(contexts)
        == f"Contexts({len(table)} contexts of 5 neurons in 3 languages, at most 2 each)"
    )
    assert contexts._repr_html_().count("<mark>") == len(table)
    first = contexts.of("L1N17", "zh")[0]
    assert first.token in repr(first)
    assert repr(first).startswith(f"Context(L1N17 zh {first.item} @{first.position} ")


def test_many_contexts_are_not_all_shown(bridge):
    many = chosen(bridge("Llama"), [f"L0N{j}" for j in range(30)])
    html = top_contexts(bridge("Llama"), CORPUS, many, k=3)._repr_html_()
    assert html.count("<mark>") == 60
    assert "the first 60 are shown" in html


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0: give 1 or more"),
        ({"per_item": 0}, "per_item=0: give 1 or more"),
        ({"window": -1}, "window=-1: give 0 or more"),
        ({"scope": "answer"}, "scope='answer' is not known; choose one of"),
    ],
)
def test_refused_options(options, message, bridge, monkeypatch):
    monkeypatch.setattr("lensneurons.cards.contexts.watching", None)
    monkeypatch.setattr("lensneurons.cards.contexts.prepare", unwrap(prepare))
    monkeypatch.setattr("lensneurons.tokens.prepared.encode", unwrap(encode))
    with pytest.raises(LensNeuronsError, match=message):
        unwrap(top_contexts)(bridge("Llama"), CORPUS, chosen(bridge("Llama")), **options)


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        (NeuronSet(np.array([1]), 3, 53), "of 3 layers x 53 neurons, this one has 3 x 52"),
        (NeuronSet(np.array([], np.int64), 3, 52), "holds no neurons: give one or more"),
    ],
)
def test_neurons_of_another_model_are_refused(neurons, message, bridge):
    with pytest.raises(LensNeuronsError, match=message):
        top_contexts(bridge("Llama"), CORPUS, neurons)


def test_long_texts_are_refused(bridge):
    row = {"id": "1", "language": "en", "prompt": "x", "response": "the cat " * 200}
    with pytest.raises(CorpusError, match="exceed max_length=192"):
        top_contexts(bridge("Llama"), build_corpus([row]), chosen(bridge("Llama")))


def test_what_was_not_looked_at_is_refused(bridge):
    contexts = top_contexts(bridge("Llama"), CORPUS, chosen(bridge("Llama")), k=1)
    with pytest.raises(LensNeuronsError, match="L0N4 is not among the 5 neurons here"):
        contexts.of("L0N4")
    with pytest.raises(LensNeuronsError, match="language='sw' is not known"):
        contexts.of("L0N3", "sw")
