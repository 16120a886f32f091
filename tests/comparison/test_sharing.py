"""Do untouched languages join the trained ones' neurons? Counted by hand, and under both nulls."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
from before_after import LANGUAGES, TAU, TRAINED, Planned, placed, plan, runs

from lensneurons.comparison.before_after import compare
from lensneurons.comparison.sharing import Sharing, measure_sharing

K = len(LANGUAGES)


def by_hand(rows: list[Planned], trained: tuple[str, ...]) -> tuple[int, int, float]:
    """New pairs, shared ones among them, and expected shared ones; by strata, pair by pair.

    In a plan p before is the same for all that are not active; a silent neuron is far from the bar.
    """
    strata: dict[Any, list[tuple[bool, bool]]] = defaultdict(list)
    both_runs = list(zip(placed(rows, 1), placed(rows, 2), strict=True))
    for language in [k for k in LANGUAGES if k not in ("en", *trained)]:
        for (layer, neuron, before), (_, _, after) in both_runs:
            others = len(set(after) - {language})
            if language in before or not 1 <= others <= K - 2 or neuron >= 150:
                continue
            shared = bool(set(after) & set(trained))
            strata[language, layer, others].append((language in after, shared))
    sums = np.zeros(3)
    for new, shared in (np.array(pairs).T for pairs in strata.values()):
        sums += new.sum(), (new & shared).sum(), new.sum() * shared.mean()
    return int(sums[0]), int(sums[1]), float(sums[2])


def sharing_of(rows: list[Planned]) -> Sharing:
    found = compare(*runs(rows), tau=TAU, trained=TRAINED).sharing
    assert found is not None
    return found


def test_excess_is_counted() -> None:
    new, both, expected = by_hand(plan(), TRAINED)
    found = sharing_of(plan())
    assert found.pairs == new > 50
    assert found.share == pytest.approx(both / new)
    assert found.baseline == pytest.approx(expected / new)
    assert found.excess == pytest.approx((both - expected) / new)
    assert found.left_out[:, 0] == pytest.approx(found.excess)  # every group says the same


def test_every_other_choice_of_languages_is_made() -> None:
    found = sharing_of(plan())
    choices = [c for c in combinations(LANGUAGES[1:], 2) if c != TRAINED]
    expected = []
    for choice in choices:
        new, both, baseline = by_hand(plan(), choice)
        expected.append((both - baseline) / new)
    assert found.others == pytest.approx(np.array(expected))
    assert len(choices) == comb(7, 2) - 1
    assert found.contrast == pytest.approx(found.excess - np.mean(expected))
    assert found.others_p[0] == (1 + sum(e >= found.excess for e in expected)) / 21 == 1 / 21


def test_without_joins_there_is_nothing_to_share() -> None:
    found = sharing_of([(layer, before, before) for layer, before, _ in plan()])
    assert found.pairs == 0
    assert np.isnan([found.share, found.excess, found.contrast]).all()
    assert np.isnan(found.flipped_p).all()


def test_without_untouched_languages_there_is_no_hypothesis() -> None:
    pair = runs(plan())
    assert compare(*pair, tau=TAU, trained=LANGUAGES[1:]).sharing is None
    assert compare(*pair, tau=TAU).sharing is None
    every = compare(*pair, tau=TAU, trained=LANGUAGES[1:], pivot=None)
    assert every.untouched == ("en",)
    assert every.sharing is not None


def test_joins_of_all_neurons_within_reach_are_no_sharing() -> None:
    """An untouched language joins every second neuron, whoever's it is: no excess."""
    rows: list[Planned] = [
        (layer, ("en", k), ("en", k, "sw") if i % 2 else ("en", k))
        for layer in (0, 3)
        for k in LANGUAGES
        if k not in ("en", "sw")
        for i in range(4 if layer else 2)
    ]
    assert sharing_of(rows).excess == pytest.approx(0)
    more = [*rows, *[(3, ("en", "zh"), ("en", "zh", "sw")) for _ in range(20)]]
    assert sharing_of(more).excess > 0.05


def world(
    random: np.random.Generator,
    *,
    sizes: bool = False,
    kin: float = 0.0,
    boost: float = 0.0,
    noise: float = 0.4,
    far: bool = False,
) -> Sharing:
    """A random world of 8 languages; every language is noise but for a boost of shared neurons.

    `kin` ties language 3 to language 1; `boost` raises the others in neurons of languages 1 and 2.
    """
    logit = random.normal(-1.3, 0.8, (1, 1500)) + random.normal(0, 1, (8, 1500))
    logit += np.linspace(0.8, -0.8, 8)[:, None] * sizes
    logit[3] = kin * logit[1] + (1 - kin**2) ** 0.5 * logit[3]
    after = logit + random.normal(0, noise, logit.shape) + boost * (logit[1:3].max(0) > 0)
    rates = 1 / (1 + np.exp(-np.stack([logit, after])))
    if far:  # hide from the matching how close a language was
        rates[0] = np.where(rates[0] > 0.5, rates[0], 0.1)
    options = {"tau": 0.5, "candidates": range(1, 8), "trained": (1, 2), "flips": 199, "seed": 0}
    return measure_sharing(rates, random.integers(0, 3, 1500), [], **options)


@pytest.mark.parametrize("options", [{}, {"sizes": True, "kin": 0.8}])
def test_noise_is_called_noise(options: dict[str, Any]) -> None:
    """Both p-values are uniform where untouched languages join what is close, by chance."""
    random = np.random.default_rng(0)
    worlds = [world(random, **options) for _ in range(120)]
    excess = np.array([one.excess for one in worlds])
    assert abs(excess.mean()) < 3.5 * excess.std() / 120**0.5
    spread = np.mean([one.flipped.std() for one in worlds])
    assert spread == pytest.approx(excess.std(), rel=0.2)
    for level in (0.05, 0.25, 0.5):
        error = 3.5 * (level * (1 - level) / 120) ** 0.5
        assert np.mean([one.flipped_p[0] <= level for one in worlds]) <= level + error
        if not options:
            assert np.mean([one.others_p[0] <= level for one in worlds]) <= level + error


def test_without_matching_kinship_looks_like_alignment() -> None:
    """The guard sabotaged: without p before, kin of a trained language join "its" neurons."""
    random = np.random.default_rng(1)
    blind = np.array([world(random, kin=0.8, far=True).excess for _ in range(60)])
    assert blind.mean() > 3.5 * blind.std() / 60**0.5


def test_power() -> None:
    """A boost that makes an excess of about 0.04 among 500 new pairs is found in most worlds."""
    random = np.random.default_rng(2)
    worlds = [world(random, boost=0.3) for _ in range(60)]
    assert np.mean([one.excess for one in worlds]) == pytest.approx(0.04, abs=0.02)
    assert np.mean([one.flipped_p[0] <= 0.05 for one in worlds]) > 0.6
    assert np.mean([one.others_p[0] <= 0.05 for one in worlds]) > 0.5


def test_many_choices_are_drawn() -> None:
    random = np.random.default_rng(3)
    rates, layer = random.random((2, 16, 200)), np.zeros(200, np.int64)
    options = {"candidates": range(16), "trained": range(6), "tau": 0.7, "flips": 10, "seed": 0}
    found = measure_sharing(rates, layer, [], **options)
    assert 800 < len(found.others) < 1000
    assert len(found.flipped) == 10
    assert found.flipped_p[0] > 0
