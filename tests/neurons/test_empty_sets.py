"""Empty and nearly empty sets: who lacks neurons, why, and the options that give them some."""

from __future__ import annotations

import warnings

import few_neurons
import numpy as np
import pytest

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import EmptySetWarning, LensNeuronsError
from lensneurons.neurons import empty_sets
from lensneurons.neurons.empty_sets import FEWEST_NEURONS, lape_rate
from lensneurons.neurons.identification import identify
from lensneurons.samples.sample import load_sample


def drawn(seed: int) -> ActivationStatistics:
    """Sixty neurons in four languages, most of which fire seldom."""
    counts = np.random.default_rng(seed).beta(0.3, 1.0, (1, 3, 20, 4)) * 1000
    return ActivationStatistics(
        ("en", "zh", "th", "sw"), counts.astype(np.int64), np.full((1, 4), 1000)
    )


def smallest(neurons) -> int:
    return min(len(neurons[language]) for language in neurons.languages)


@pytest.mark.parametrize("rows", [1, 5, 10**6])
@pytest.mark.parametrize("seed", range(8))
def test_the_rate_is_the_least_that_gives_every_language_enough(seed, rows, monkeypatch):
    """Against all rates, tried one by one; however many neurons are looked at together."""
    monkeypatch.setattr(empty_sets, "_ROWS", rows)
    statistics = drawn(seed)
    size = 60
    sizes = [
        smallest(identify(statistics, score="lape", tau=0.3, top_rate=number / size))
        for number in range(1, size)
    ]
    least = 1 + next(place for place, one in enumerate(sizes) if one >= FEWEST_NEURONS)
    assert sizes == sorted(sizes)  # every greater rate does as well
    rate = lape_rate(identify(statistics, tau=0.3, lambda_=0.0, top_rate=0.1))
    assert rate is not None
    assert least / size <= rate < least / size + 0.01
    assert float(f"{rate:.2g}") == rate
    again = identify(statistics, score="lape", tau=0.3, top_rate=rate)
    assert smallest(again) >= FEWEST_NEURONS


def test_where_no_rate_helps_there_is_none():
    found = identify(few_neurons.statistics(), tau=few_neurons.TAU)
    assert lape_rate(found) == 0.045
    assert lape_rate(found, 1) == 0.035
    assert lape_rate(found, 4) is None  # each language has three in the whole model
    assert lape_rate(identify(few_neurons.statistics(), tau=0.95)) is None


def test_each_language_without_neurons_is_told_with_the_reason_and_the_remedy():
    with pytest.warns(EmptySetWarning) as told:
        found = identify(few_neurons.statistics(), tau=few_neurons.TAU, lambda_=0.0, top_rate=0.05)
    assert found.histogram().tolist() == [10, 0, 0, 0]
    assert len(told) == 1
    assert str(told[0].message) == (
        "hardly any neurons: none of en, zh, th. top_rate=0.05 selects 10 of 200 neurons; 10 of "
        "them exceed tau in no language (N = 0). score='lape' selects no neuron with N = 0 and "
        "gives every language 3 or more"
    )


def test_the_remedy_of_the_message_works_and_is_silent():
    with warnings.catch_warnings(action="error"):
        found = identify(
            few_neurons.statistics(), score="lape", tau=few_neurons.TAU, top_rate=0.045
        )
        everyone = identify(
            few_neurons.statistics(), tau=few_neurons.TAU, lambda_=0.0, population="all"
        )
    assert [len(found[k]) for k in found.languages] == [3, 3, 3]
    assert [len(everyone[k]) for k in found.languages] == [3, 3, 3]


@pytest.mark.parametrize("score", ["paper", "lape"])
def test_a_real_model_is_identified_in_silence(score):
    with warnings.catch_warnings(action="error"):
        identify(load_sample("gemma-3-270m").statistics, score=score)


def test_an_unknown_language_is_told_in_every_mapping():
    found = identify(few_neurons.statistics(), score="lape", tau=few_neurons.TAU, top_rate=0.1)
    for sets in (found, found.specific, found.related):
        with pytest.raises(LensNeuronsError, match=r"language='xx' is not known.*'en', 'zh', 'th'"):
            sets["xx"]
    assert "xx" not in found.specific
    assert found.specific.get("xx") is None
