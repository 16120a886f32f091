"""The score, tau and the selection against the oracle."""

from __future__ import annotations

import math
from functools import cache

import method_oracle as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lensneurons.neurons import scores
from lensneurons.neurons.scores import (
    count_above,
    expected_largest_part,
    lambda_of_paper,
    language_rows,
    languages_above,
    normalised_entropy,
    normalised_maximum,
    percentile_bar,
    score_terms,
    select_lowest,
)

LANGUAGES = ("zh", "ar", "en", "sw", "bn", "th")


@st.composite
def probabilities(draw):
    """Unfriendly probabilities: dead neurons, equal values, one language alone, K from 2 to 6."""
    shape = tuple(draw(st.integers(low, high)) for low, high in ((1, 3), (1, 6), (2, 6)))
    coarse = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0])
    fine = st.floats(0, 1, allow_subnormal=False)
    return draw(hnp.arrays(np.float64, shape, elements=st.one_of(coarse, fine)))


def rows_of(p):
    return language_rows(p, LANGUAGES[: p.shape[-1]])


@settings(max_examples=100, deadline=None)
@given(probabilities())
def test_entropy_and_maximum_are_the_oracles(p):
    rows = rows_of(p)
    flat = oracle.neurons_of(p.tolist())
    entropies, maxima = normalised_entropy(rows).ravel(), normalised_maximum(rows).ravel()
    assert entropies == pytest.approx([oracle.entropy(n) for n in flat], abs=1e-12)
    assert maxima == pytest.approx([oracle.maximum(n) for n in flat], abs=1e-12)
    assert entropies.min() >= -1e-12
    assert entropies.max() <= 1 + 1e-12


@pytest.mark.parametrize("k", range(2, 7))
def test_known_entropies(k):
    alone, equal, dead, pair = np.zeros(k), np.full(k, 0.3), np.zeros(k), np.zeros(k)
    alone[1], pair[:2] = 0.9, 0.4
    rows = rows_of(np.array([[alone, equal, dead, pair]]))
    wanted = [0, 1, 1, math.log(2) / math.log(k)]
    assert normalised_entropy(rows)[0] == pytest.approx(wanted, abs=1e-9)
    harmonic = sum(1 / i for i in range(1, k + 1))
    assert normalised_maximum(rows)[0] == pytest.approx(
        [0.9 * k / harmonic, 0.3 * k / harmonic, 0, 0.4 * k / harmonic]
    )


def test_a_neuron_of_one_language_counts_the_others_as_tiny_not_as_nothing():
    """``p' >= 1e-12``, as published: the entropy is a little above 0, never NaN."""
    value = normalised_entropy(rows_of(np.array([[[0.7, 0.0, 0.0]]])))[0, 0]
    assert value == pytest.approx(2e-12 * math.log(1e12) / math.log(3), rel=1e-9)


def test_the_expected_largest_part_is_what_a_simulation_gives():
    """Random divisions of a stick: the mean of the largest part is ``H_K / K``."""
    random = np.random.default_rng(0)
    for k in (2, 3, 6, 10):
        parts = random.dirichlet(np.ones(k), 20_000).max(axis=1)
        assert abs(parts.mean() - expected_largest_part(k)) < 4 * parts.std() / 20_000**0.5
    assert expected_largest_part(10) == pytest.approx(0.29289682539)


def test_lambda_of_the_printed_equation():
    """Both weights select the same neurons: ``H - w max`` is ``score * ln K``."""
    assert lambda_of_paper(0.109375, 10) == pytest.approx(0.8598, abs=5e-5)
    p = np.random.default_rng(1).random((2, 30, 4))
    rows = rows_of(p)
    ours = normalised_entropy(rows) - 0.11 * normalised_maximum(rows)
    printed = normalised_entropy(rows) * math.log(4) - lambda_of_paper(0.11, 4) * rows.max(axis=0)
    assert printed == pytest.approx(ours * math.log(4))


@settings(max_examples=100, deadline=None)
@given(probabilities(), st.floats(0.001, 0.999))
def test_tau_is_the_oracles(p, percentile):
    bar = percentile_bar(p, percentile)
    assert bar == oracle.tau(p.tolist(), percentile)
    assert languages_above(rows_of(p), bar).ravel().tolist() == [
        oracle.n_above(neuron, bar) for neuron in oracle.neurons_of(p.tolist())
    ]


def test_tau_is_counted_from_one_and_the_bar_is_strict():
    p = np.arange(1, 21).reshape(1, 10, 2) / 20
    assert percentile_bar(p, 0.95) == 0.95  # the 19th of 20
    assert percentile_bar(p, 0.5) == 0.5
    assert percentile_bar(p, 0.001) == 0.05
    assert percentile_bar(p, 0.999) == 1.0
    assert languages_above(rows_of(p), 0.95)[0].tolist() == [0] * 9 + [1]


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 9)),
        elements=st.sampled_from([*np.arange(-3.0, 4), np.inf]),
    ),
    st.integers(0, 30),
)
def test_the_lowest_scores_are_selected_ties_by_index(scores, number):
    wanted = oracle.lowest(scores.ravel().tolist(), number)
    assert set(np.flatnonzero(select_lowest(scores, number))) == wanted
    assert select_lowest(scores, number).shape == scores.shape


@pytest.mark.parametrize(("block", "few"), [(1, 0), (7, 0), (64, 3), (10**6, 10**6)])
@pytest.mark.parametrize("drawn", ["spread", "tied", "mostly silent", "one number"])
def test_neither_blocks_nor_counting_change_a_bit(monkeypatch, block, few, drawn):
    """Against a sorted copy of everything, and against all neurons scored at once."""
    random = np.random.default_rng(0)
    p = {
        "spread": random.random((3, 17, 5)) ** 9,
        "tied": random.integers(0, 5, (3, 17, 5)) / 4,
        "mostly silent": random.random((3, 17, 5)) * (random.random((3, 17, 5)) < 0.1),
        "one number": np.full((3, 17, 5), 0.3),
    }[drawn]
    p[0, 0, 0] *= -0.0
    languages = ["zh", "en", "de", "sw", "th"]
    wanted, rows = np.sort(p, axis=None), language_rows(p, languages)
    monkeypatch.setattr(scores, "BLOCK", block)
    monkeypatch.setattr(scores, "NEURONS", block)
    monkeypatch.setattr(scores, "FEW", few)
    for percentile in (0.001, 0.1, 0.5, 0.95, 0.999):
        place = min(max(round(percentile * p.size), 1), p.size) - 1
        assert percentile_bar(p, percentile) == wanted[place]
    for terms, number in zip(score_terms(p, languages, "f8", "f4"), ("f8", "f4"), strict=True):
        own = rows.astype(number)
        assert terms.entropy.dtype == terms.maximum.dtype == number
        assert terms.entropy.tobytes() == normalised_entropy(own).tobytes()
        assert terms.maximum.tobytes() == normalised_maximum(own).tobytes()
    assert np.array_equal(count_above(p, 0.3), languages_above(rows, 0.3))


def test_the_steps_of_scoring_grow_with_the_languages_and_not_with_their_square(monkeypatch):
    """Steps are operations on one language of a block: blocks times languages."""
    monkeypatch.setattr(scores, "NEURONS", 16)
    steps = dict.fromkeys(("blocks", "parts"), 0)
    entropy, part = scores.normalised_entropy, scores.expected_largest_part.__wrapped__

    def counting_blocks(rows):
        steps["blocks"] += 1
        return entropy(rows)

    @cache
    def counting_parts(n_languages):
        steps["parts"] += 1
        return part(n_languages)

    monkeypatch.setattr(scores, "normalised_entropy", counting_blocks)
    monkeypatch.setattr(scores, "expected_largest_part", counting_parts)
    for n_languages in (4, 100):
        steps.update(blocks=0, parts=0)
        p = np.random.default_rng(0).random((3, 50, n_languages))
        score_terms(p, [f"x{k:03d}" for k in range(n_languages)], "f8", "f4")
        assert steps == {"blocks": 3 * 4 * 2, "parts": 1}
