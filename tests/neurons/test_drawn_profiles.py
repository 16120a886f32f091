"""Profiles of drawn corpora: those of statistics that are drawn and identified one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.neurons import drawn_profiles as profiles
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.uncertainty.groups import resamples, usable_weights


@pytest.mark.parametrize("languages", [2, 5])
@pytest.mark.parametrize("among_routed", [False, True])
@pytest.mark.parametrize("block", [1, 300, 2**20])
def test_a_draw_is_that_of_its_own_statistics(monkeypatch, languages, among_routed, block):
    monkeypatch.setattr(profiles, "_BLOCK", block)
    random = np.random.default_rng(languages)
    tokens = random.integers(0, 12, (6, languages))  # some draws leave a language without any
    shape = (6, 5, 8, languages)
    sent = random.binomial(tokens[:, None, None], 0.7, (6, 5, 2, languages))
    active = random.random((5, 8, languages))
    counts = random.binomial(sent.repeat(4, axis=2), np.broadcast_to(active, shape))
    more = {"n_experts": 2, "grouped_routed": sent} if among_routed else {}
    statistics = ActivationStatistics(tuple("abcde"[:languages]), counts, tokens, **more)
    tau = float(np.median(statistics.probability))
    neurons = LanguageNeurons(
        languages=statistics.languages,
        probability=statistics.probability,
        score=np.zeros((5, 8)),
        selected=np.ones((5, 8), bool),
        tau=tau,
        tau_origin="given",
        lambda_=None,
        lambda_origin="none",
        score_name="lape",
        top_rate=0.5,
    )
    wanted = [
        replace(neurons, probability=drawn.probability).layer_profile("all")
        for drawn in resamples(statistics, draws=20, seed=3)
    ]
    weights = usable_weights(statistics, draws=20, seed=3)
    found = profiles.drawn_profiles(statistics, tau, weights)
    assert np.array_equal(found, np.array(wanted))
    assert len(np.unique(found, axis=0)) > 5  # the draws differ
