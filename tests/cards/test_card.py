"""The card of a neuron: each line against the function that it comes from, and the page itself."""

from __future__ import annotations

import json
from dataclasses import replace
from inspect import unwrap

import edited
import method_oracle as oracle
import numpy as np
import pytest
import tiny
import torch
from oracle import encode_by_hand
from pages import Page
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.activations.collection import collect
from lensneurons.cards import card as describing
from lensneurons.cards.attribution import Importance, importance
from lensneurons.cards.card import NeuronCard, Weight, describe, describe_all, neuron_facts
from lensneurons.cards.contexts import Context, top_contexts
from lensneurons.cards.vocabulary import TokenValue, promoted_tokens
from lensneurons.errors import LensNeuronsError, ProvenanceError, StorageError
from lensneurons.evaluation.likelihood import nll
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.views import has_hooks
from lensneurons.neurons.identification import identify
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.encoding import encode
from lensneurons.tokens.prepared import prepare

CORPUS = tiny.tiny_corpus().head(4)
LANGUAGES = ("zh", "ja", "en")
OTHER = Importance(("en",), np.zeros((3, 9, 1)), "plnd")
COUNTS = np.array([[[90, 20, 1], [1, 2, 3], [90, 150, 2]], [[80, 180, 30], [0, 0, 0], [5, 9, 39]]])


def identified():
    """Six neurons, some of each class, with tau 0.5: L0N0 zh, L0N2 zh ja, L1N0 all, L1N2 en."""
    statistics = oracle.statistics_of(COUNTS, [100, 200, 40], LANGUAGES)
    return statistics, identify(statistics, tau=0.5, top_rate=0.5)


@pytest.fixture(scope="module")
def llama(bridge):
    return bridge("Llama")


@pytest.fixture(scope="module")
def statistics(llama):
    return collect(llama, CORPUS, progress=False, groups=3)


@pytest.fixture(scope="module")
def neurons(statistics):
    return identify(statistics)


@pytest.fixture(scope="module")
def name(neurons):
    return str(neurons.with_population("all").to_pandas()["name"][0])


@pytest.fixture(scope="module")
def card(llama, neurons, statistics, name):
    return describe(llama, neurons, name, corpus=CORPUS, statistics=statistics, k=2, tokens=4)


@pytest.mark.parametrize(
    ("name", "class_name", "languages", "owner"),
    [
        ("L0N0", "specific", ("zh",), "zh"),
        ("L0N1", "unclassified", (), None),
        ("L0N2", "related", ("zh", "ja"), None),
        ("L1N0", "agnostic", ("zh", "ja", "en"), None),
        ("L1N2", "specific", ("en",), "en"),
    ],
)
def test_class_owner_and_probabilities(name, class_name, languages, owner):
    _, neurons = identified()
    facts = neuron_facts(neurons, name)
    assert (facts.name, facts.class_name) == (name, class_name)
    assert (facts.languages, facts.owner) == (languages, owner)
    layer, neuron = int(name[1]), int(name[3])
    shares = COUNTS[layer, neuron] / [100, 200, 40]
    assert facts.probability == pytest.approx(dict(zip(LANGUAGES, shares, strict=True)))
    assert facts.tau == 0.5
    assert facts.score == neurons.score[layer, neuron]
    assert facts.selected == neurons.selected[layer, neuron]
    assert (facts.mean, facts.interval) == (None, None)
    assert facts.title == ": ".join(filter(None, (class_name, " ".join(languages))))
    assert repr(facts).startswith(f"NeuronFacts({name} {facts.title}; ")
    assert f"zh {shares[0]:.3f}, ja {shares[1]:.3f}, en {shares[2]:.3f}" in repr(facts)
    assert f"<td>ja</td><td>{shares[1]:.4f}</td><td></td>" in facts._repr_html_()


def test_means_and_intervals_come_from_statistics(statistics, neurons, name):
    facts = neuron_facts(neurons, name, statistics=statistics)
    layer, neuron = (int(part) for part in name[1:].split("N"))
    for k, language in enumerate(statistics.languages):
        assert facts.mean[language] == statistics.mean[layer, neuron, k]
        low, high = facts.interval[language]
        p = statistics.probability[layer, neuron, k]
        assert 0 <= low <= p <= high <= 1
        if 0 < p < 1:
            assert high - low > 0.01


def test_one_group_has_no_interval_and_counts_alone_have_no_mean(llama):
    once = collect(llama, CORPUS, progress=False, groups=1)
    facts = neuron_facts(identify(once), "L0N0", statistics=once)
    assert (facts.interval, facts.mean is None) == (None, False)
    counts = replace(once, sums=None, squares=None)
    assert neuron_facts(identify(once), "L0N0", statistics=counts).mean is None


def test_every_line_is_what_its_function_gives(card, llama, neurons, statistics, name):
    alone = NeuronSet.from_names([name], n_layers=tiny.LAYERS, d_mlp=tiny.D_MLP)
    assert card.facts == neuron_facts(neurons, name, statistics=statistics)
    assert card.contexts == top_contexts(llama, CORPUS, alone, k=2).rows
    assert card.vocabulary == promoted_tokens(llama, name, k=4)
    for method in ("plnd", "activation_gradient"):
        found = importance(llama, CORPUS, method=method)
        ours = card.importance[method]
        assert {k: w.value for k, w in ours.items()} == found.of(name)
        assert {k: w.rank for k, w in ours.items()} == found.rank(name)
    assert card.languages == CORPUS.languages
    assert card.n_neurons == tiny.LAYERS * tiny.D_MLP
    assert card.source == "4 items of tiny, response tokens"
    assert not has_hooks(llama)


def test_the_effect_equals_hugging_face_without_the_neuron(card, model_folder, name):
    hf = AutoModelForCausalLM.from_pretrained(model_folder("Llama")).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder("Llama"))
    layer, neuron = (int(part) for part in name[1:].split("N"))

    def mean_nll(language):
        total, tokens = 0.0, 0
        for item in CORPUS.select([language]):
            ids, where = encode_by_hand(tokenizer, item, "response")
            with torch.no_grad():
                chances = hf(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            total -= sum(float(chances[place - 1, ids[place]]) for place in where)
            tokens += len(where)
        return total / tokens

    plain = {language: mean_nll(language) for language in CORPUS.languages}
    edited.zero_rows(hf, "Llama", {layer: neuron})
    without = {language: mean_nll(language) for language in CORPUS.languages}
    for language in CORPUS.languages:
        change = without[language] - plain[language]
        assert card.effect[language] == pytest.approx(change, abs=2e-5)
        low, high = card.effect_interval[language]
        assert low <= card.effect[language] <= high
    assert max(map(abs, card.effect.values())) > 1e-3


def test_a_single_item_has_an_effect_without_interval(llama, neurons, name):
    found = describe(llama, neurons, name, corpus=CORPUS.head(1), importances=())
    assert (found.effect is None, found.effect_interval) == (False, None)
    assert "[95 %]" not in found._repr_html_()


def test_what_is_not_wanted_is_not_measured(llama, neurons, name, monkeypatch):
    for what in ("importance", "nll", "ablate"):
        monkeypatch.setattr(describing, what, None)
    given = Importance(("sw", "en"), np.random.default_rng(0).random((3, 52, 2)), "plnd")
    found = describe(llama, neurons, name, corpus=CORPUS, importances=[given], effect=False)
    assert found.effect is None
    assert found.importance["plnd"]["sw"] == Weight(given.of(name)["sw"], given.rank(name)["sw"])
    assert found.languages == (*CORPUS.languages, "sw")
    little = describe(llama, neurons, name, corpus=CORPUS, importances=(), effect=False)
    page = Page(replace(little, contexts=())._repr_html_())
    for absent in ("NLL", "mean activation", "rank", "Ranks", "95 %"):
        assert absent not in page.text
    assert (little.importance, "without it" in repr(little)) == ({}, False)


def test_the_page_holds_every_line(card):
    page = Page(card._repr_html_())
    seen, text = [tag for tag, _ in page.elements], "".join(page.words)
    assert set(seen) <= set("div b table thead tbody tr th td span bdi mark".split())
    for context in card.contexts:
        assert context.token.replace("\n", "\N{RETURN SYMBOL}\N{ZERO WIDTH SPACE}") in text
    heads = ("p [95 %]", "mean activation", "length written", "gradient", "NLL without it")
    for word in (*heads, "promotes", "suppresses", "hears", card.facts.name, "156 neurons"):
        assert word in text
    assert seen.count("mark") == len(card.contexts)
    assert len(card._repr_html_()) < 60_000


def test_changes_have_signs_unless_they_are_nothing(card):
    small = dict.fromkeys(card.effect, -2e-5) | {"en": -0.25}
    page = Page(replace(card, effect=small, effect_interval=None)._repr_html_())
    assert "\N{MINUS SIGN}0.2500" in page.text
    assert "0.0000" not in page.text


def test_whatever_texts_hold_is_escaped(card):
    evil = "<script>alert('&')</script>"
    context = Context(card.facts.name, "en", evil, 3, 1.5, evil, evil, evil)
    token = TokenValue(1, evil + "\n", 1.0, 1.0)
    vocabulary = replace(card.vocabulary, promoted=(token,), suppressed=(), heard=(token,))
    hurt = replace(card, contexts=(context,), vocabulary=vocabulary, source=evil)
    page = Page(hurt._repr_html_())
    assert page.named("script") == []
    assert page.text.count(evil) == 3 + 2 + 1
    assert "suppresses" not in page.text


def test_the_card_as_json(card):
    values = json.loads(json.dumps(card.to_dict()))
    assert values["record"]["name"] == card.facts.name
    assert values["effect"] == card.effect
    assert values["contexts"][0]["token"] == card.contexts[0].token
    assert values["importance"]["plnd"]["en"]["rank"] == card.importance["plnd"]["en"].rank
    assert "; promotes " in repr(card)
    assert "without it NLL " in repr(card)


def test_no_score_is_null(card, tmp_path):
    without = replace(card, facts=replace(card.facts, score=np.inf))
    path = without.save(tmp_path / "card.jsonl")
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert without.to_dict()["record"]["score"] is None
    assert NeuronCard.load(path) == without
    assert "selected, no score; bar tau" in repr(without)


def test_a_broken_card_is_refused(card, tmp_path):
    path = card.save(tmp_path / "card.jsonl")
    header, row = path.read_text(encoding="utf-8").splitlines()
    values = json.loads(row)
    del values["vocabulary"]
    for rows in ([], [row, row], [json.dumps(values)]):
        path.write_text("\n".join([header, *rows]), encoding="utf-8")
        with pytest.raises(StorageError, match=r"card\.jsonl (does not hold one|is damaged)"):
            NeuronCard.load(path)


def test_a_tokenizer_may_be_given(llama, neurons, name, card, statistics, monkeypatch):
    own = original_tokenizer(llama)
    monkeypatch.setattr(llama, "tokenizer", None)
    options = {"corpus": CORPUS, "statistics": statistics, "k": 2, "tokens": 4}
    assert describe(llama, neurons, name, tokenizer=own, **options) == card


def test_many_cards_are_those_of_one_by_one(llama, neurons, statistics, monkeypatch):
    passes, plain = [], nll
    monkeypatch.setattr(describing, "nll", lambda *a, **o: passes.append(1) or plain(*a, **o))
    names = ["L2N7", "L0N3"]
    options = {"corpus": CORPUS, "statistics": statistics, "k": 2, "tokens": 3}
    found = describe_all(llama, neurons, names, **options)
    assert len(passes) == 1 + len(names)
    assert found == tuple(describe(llama, neurons, name, **options) for name in names)
    chosen = NeuronSet.from_names(names, n_layers=tiny.LAYERS, d_mlp=tiny.D_MLP)
    in_order = describe_all(llama, neurons, chosen, **options)
    assert [card.facts.name for card in in_order] == ["L0N3", "L2N7"]
    assert set(map(repr, in_order)) == set(map(repr, found))
    assert describe_all(llama, neurons, [], **options) == ()
    with pytest.raises(LensNeuronsError, match="names a neuron twice"):
        describe_all(llama, neurons, ["L0N3", "L0N03"], **options)


def test_statistics_of_something_else_are_refused(statistics, neurons):
    few = statistics.select(["en", "zh"])
    with pytest.raises(LensNeuronsError, match="are not those that the neurons were identified"):
        neuron_facts(neurons, "L0N0", statistics=few)
    other = replace(statistics, provenance=replace(statistics.provenance, weights="other"))
    with pytest.raises(ProvenanceError, match="weights"):
        neuron_facts(neurons, "L0N0", statistics=other)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("L7N0", {}, "L7N0 is outside a model of 3 layers x 52 neurons"),
        ("zh", {}, "'zh' is not the name of a neuron"),
        ("L0N0", {"scope": "answer"}, "scope='answer' is not known"),
        ("L0N0", {"k": 0}, "k=0: give 1 or more"),
        ("L0N0", {"tokens": 0}, "k=0 asks for no token"),
        ("L0N0", {"importances": [OTHER]}, "of 3 layers x 9 neurons do not belong to a model of 3"),
    ],
)
def test_refusals(name, options, message, llama, neurons, monkeypatch):
    monkeypatch.setattr("lensneurons.cards.contexts.watching", None)
    monkeypatch.setattr(describing, "describe_all", unwrap(describe_all))
    monkeypatch.setattr(describing, "prepare", unwrap(prepare))
    monkeypatch.setattr("lensneurons.tokens.prepared.encode", unwrap(encode))
    with pytest.raises(LensNeuronsError, match=message):
        unwrap(describe)(llama, neurons, name, corpus=CORPUS, **options)


def test_neurons_of_another_model_are_refused(llama):
    with pytest.raises(LensNeuronsError, match="2 layers x 3 neurons do not belong to a model"):
        describe(llama, identified()[1], "L0N0", corpus=CORPUS)
