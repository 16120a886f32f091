"""The whole package on a model with planted neurons: everything equals its closed form."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import method_oracle as oracle
import numpy as np
import planted
import pytest

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import load_corpus
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import divide_layers

K = len(planted.LANGUAGES)


@pytest.fixture(scope="module", params=["silu", "relu"])
def statistics(request, tmp_path_factory):
    """save -> load -> read the corpus -> collect, as a user does."""
    folder = planted.save_model(tmp_path_factory.mktemp(request.param), request.param)
    model = load_model(folder, device="cpu")
    corpus = load_corpus(planted.texts())
    collected = collect(model, corpus, groups=6, batch_tokens=600, progress=False)
    assert collected.provenance.activation.lower().startswith(request.param)
    return collected


@cache
def flat():
    return [neuron for layer in planted.neurons() for neuron in layer]


def found(statistics):
    return identify(statistics, percentile=planted.PERCENTILE, top_rate=planted.TOP_RATE)


def test_the_plan_is_what_its_docstring_says():
    for neuron in flat():
        for language, p in zip(planted.LANGUAGES, planted.probability(neuron), strict=True):
            assert p > 0.6 if language in neuron.languages else p < 0.15
    kinds = [len(neuron.languages) for neuron in flat()]
    assert kinds.count(K) == sum(g for _, _, g in planted.PROFILE)
    assert kinds.count(1) == sum(s for s, _, _ in planted.PROFILE)
    assert {kinds.count(n) > 20 for n in range(K + 1)} == {True}
    assert len({planted.tokens(k).total() for k in planted.LANGUAGES}) == K
    assert len(set(map(tuple, (planted.probability(n) for n in flat())))) > 25


def test_tokens_and_probabilities_as_fractions(statistics):
    totals = [planted.tokens(k).total() for k in planted.LANGUAGES]
    assert statistics.languages == planted.LANGUAGES
    assert statistics.tokens.tolist() == totals
    measured = [
        [
            [Fraction(int(c), n) for c, n in zip(neuron, totals, strict=True)]
            for neuron in layer
        ]
        for layer in statistics.counts
    ]  # fmt: skip
    assert measured == planted.probabilities()
    assert statistics.n_groups == 6


def test_the_mean_activation(statistics):
    a = planted.stretch()
    relu = statistics.provenance.activation.lower() == "relu"
    high, low = (a, 0.0) if relu else (a / (1 + math.exp(-a)), -a / (1 + math.exp(a)))
    p = statistics.probability
    assert statistics.mean == pytest.approx(p * high + (1 - p) * low, rel=1e-5, abs=1e-7)


def test_tau_classes_and_owners(statistics):
    result = found(statistics)
    assert result.tau == float(planted.tau())
    for i, neuron in enumerate(flat()):
        name = f"L{i // planted.D_MLP}N{i % planted.D_MLP}"
        assert result.languages_of(name) == neuron.languages
        assert result.class_of(name) == oracle.class_name(len(neuron.languages), K)
    sizes = [len(neuron.languages) for neuron in flat()]
    assert result.histogram("all").tolist() == [sizes.count(n) for n in range(K + 1)]
    everything = result.with_population("all")
    for language in planted.LANGUAGES:
        own = [i for i, n in enumerate(flat()) if language in n.languages]
        alone = [i for i in own if sizes[i] == 1]
        shared = [i for i in own if 1 < sizes[i] < K]
        assert everything.specific[language].flat.tolist() == alone
        assert everything.related[language].flat.tolist() == shared
    assert everything.agnostic.flat.tolist() == [i for i, n in enumerate(sizes) if n == K]


def test_lambda_and_the_selected_neurons(statistics):
    result = found(statistics)
    weight, number = planted.lambda_and_number()
    assert result.lambda_origin == "exact"
    assert result.lambda_ == pytest.approx(weight, rel=1e-12)
    assert result.selected.sum() == number
    shares = [[float(p) for p in planted.probability(n)] for n in flat()]
    scores = [oracle.score(s, weight) for s in shares]
    bar = sorted(scores)[number - 1]
    selected = result.selected.ravel()
    for i, value in enumerate(scores):  # equal kinds tie at the bar, and go by flat index
        if abs(value - bar) > 1e-9:
            assert selected[i] == (value < bar)
    tied = [i for i, value in enumerate(scores) if abs(value - bar) <= 1e-9]
    by_kind: dict[tuple[float, ...], list[bool]] = {}
    for i in tied:
        by_kind.setdefault(tuple(shares[i]), []).append(bool(selected[i]))
    assert all(chosen == sorted(chosen, reverse=True) for chosen in by_kind.values())
    for language in planted.LANGUAGES:
        own = {i for i, n in enumerate(flat()) if language in n.languages and len(n.languages) < K}
        assert set(result[language].flat.tolist()) == own & set(np.flatnonzero(selected))
    just_above = identify(
        statistics, lambda_=weight * (1 + 1e-9), percentile=planted.PERCENTILE,
        top_rate=planted.TOP_RATE,
    )  # fmt: skip
    assert just_above.histogram("selected")[-1] > 0


def test_layer_profile_and_the_four_parts(statistics):
    result = found(statistics)
    assert [tuple(row) for row in result.layer_profile("all").tolist()] == planted.PROFILE
    parts = divide_layers(result, statistics, draws=20)
    assert parts.boundaries == planted.BOUNDARIES
    assert [parts.interval(n) for n in (2, 3, 4)] == [(3, 3), (7, 7), (11, 11)]


def test_prompts_have_other_probabilities(tmp_path):
    """The same model, counted over its prompts: the rare words are common there."""
    model = load_model(planted.save_model(tmp_path), device="cpu")
    corpus = load_corpus(planted.texts())
    prompts = collect(model, corpus, scope="prompt", groups=1, progress=False)
    for k, language in enumerate(planted.LANGUAGES):
        prompt_words = " ".join(prompt for prompt, _ in planted.texts()[language]).split()
        assert prompts.tokens[k] == len(prompt_words)
        for j, neuron in enumerate(planted.neurons()[0]):
            assert prompts.counts[0, j, k] == sum(w in neuron.fires_on for w in prompt_words)
