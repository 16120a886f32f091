"""How well importance predicts removals: known answers, and the card that says it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
from pages import Page

from lensneurons.activations.collection import collect
from lensneurons.cards.agreement import (
    FIRST_ORDER,
    agreement_of,
    agreement_of_cards,
)
from lensneurons.cards.card import NeuronCard, describe_all
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.identification import identify

CORPUS = tiny.tiny_corpus().head(3)
NAMES = [f"L{layer}N{neuron}" for layer in range(3) for neuron in (1, 7, 20, 33)]


@pytest.fixture(scope="module")
def cards(bridge):
    model = bridge("Llama")
    neurons = identify(collect(model, CORPUS, progress=False))
    return describe_all(model, neurons, NAMES, corpus=CORPUS, k=1, tokens=2)


def ranks(values):
    """Ranks from 1, without ties, by counting."""
    return np.array([1 + sum(other < value for other in values) for value in values])


def test_predicted_is_minus_the_gradient_and_the_agreement_is_told_on_every_card(cards):
    assert len({card.agreement for card in cards}) == 1
    found, rho = cards[0].agreement, []
    for card in cards:
        slopes = card.importance["activation_gradient"]
        assert card.predicted == {k: -weight.value for k, weight in slopes.items()}
    for language in CORPUS.languages:
        predicted, measured = (
            ranks([values[language] for values in rows])
            for rows in ([card.predicted for card in cards], [card.effect for card in cards])
        )
        n = len(cards)
        rho.append(1 - 6 * ((predicted - measured) ** 2).sum() / (n * (n**2 - 1)))
    assert found.neurons == len(NAMES) == 12
    assert found.spearman == pytest.approx(np.mean(rho))
    sizes = [
        sum(abs(value) for values in rows for value in values.values())
        for rows in ([card.predicted for card in cards], [card.effect for card in cards])
    ]
    assert found.ratio == pytest.approx(sizes[0] / sizes[1])


def test_known_answers():
    measured = np.random.default_rng(0).normal(size=(40, 3))
    small = agreement_of(measured / 10, measured)
    assert (small.neurons, small.spearman) == (40, pytest.approx(1.0))
    assert small.ratio == pytest.approx(0.1)
    assert agreement_of(-(measured**3), measured).spearman == pytest.approx(-1.0)
    one_right = np.stack([measured[:, 0], -measured[:, 1], np.zeros(40)], axis=1)
    found = agreement_of(one_right, measured)  # a language without a prediction does not count
    assert found.spearman == pytest.approx(0.0)
    blind = agreement_of(
        np.random.default_rng(1).normal(size=(4000, 3)), np.repeat(measured, 100, 0)
    )
    assert abs(blind.spearman) < 0.05


def test_the_card_shows_both_and_what_the_prediction_is_worth(cards, tmp_path):
    card = cards[0]
    page = Page(card._repr_html_())
    for word in ("NLL without it, predicted", "NLL without it", card.agreement.told):
        assert word in page.text
    assert f"rho = {card.agreement.spearman:.2f}" in card.agreement.told
    assert "(predicted " in repr(card)
    alone = replace(card, agreement=None, effect=None, effect_interval=None)
    assert FIRST_ORDER in Page(alone._repr_html_()).text
    assert "a first-order estimate" in FIRST_ORDER
    without = replace(alone, importance={"plnd": card.importance["plnd"]})
    assert without.predicted is None
    assert "redicted" not in Page(without._repr_html_()).text
    for one in (card, alone):
        assert NeuronCard.load(one.save(tmp_path / "card.jsonl")) == one


def test_a_file_without_an_agreement_loads(cards, tmp_path):
    from lensneurons.values.files import load_rows, save_rows

    kind = NeuronCard.FILE_KIND
    [row], _ = load_rows(cards[0].save(tmp_path / "card.jsonl"), kind)
    assert row.pop("agreement")["neurons"] == 12
    old = save_rows(tmp_path / "old.jsonl", kind, [row], {})
    assert NeuronCard.load(old) == replace(cards[0], agreement=None)


def test_refusals(cards):
    with pytest.raises(LensNeuronsError, match="9 cards: an agreement is told of 10 neurons"):
        agreement_of_cards(cards[:9])
    blind = replace(cards[3], importance={})
    with pytest.raises(LensNeuronsError, match="L0N33 has no activation_gradient: measure it"):
        agreement_of_cards([*cards[:3], blind, *cards[4:]])
    unmeasured = replace(cards[0], effect=None)
    with pytest.raises(LensNeuronsError, match="L0N1 has no effect: measure it"):
        agreement_of_cards([unmeasured, *cards[1:]])
    with pytest.raises(LensNeuronsError, match="no language has predicted and measured effects"):
        agreement_of(np.zeros((12, 2)), np.ones((12, 2)))
