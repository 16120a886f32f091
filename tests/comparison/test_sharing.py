"""Do untouched languages join the trained ones' neurons? Counted by hand, and under both nulls."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from before_after import LANGUAGES, TAU, TRAINED, Planned, placed, plan, runs

from lensneurons.comparison.before_after import compare
from lensneurons.comparison.sharing import Sharing, measure_sharing

K = len(LANGUAGES)


def by_hand(rows: list[Planned], trained: tuple[str, ...]) -> tuple[int, int, int, float, float]:
    """New pairs, informative ones, shared ones among these, and how many of them would be shared,
    and would be by choosing other languages; by strata, pair by pair.

    In a plan p before is the same for all that are not active; a silent neuron is far from the bar.
    """
    strata: dict[Any, list[tuple[bool, bool, float]]] = defaultdict(list)
    both_runs = list(zip(placed(rows, 1), placed(rows, 2), strict=True))
    for language in [k for k in LANGUAGES if k not in ("en", *trained)]:
        choices = [*combinations([k for k in LANGUAGES[1:] if k != language], len(trained))]
        for (layer, neuron, before), (_, _, after) in both_runs:
            others = set(after) - {language}
            if language in before or not 1 <= len(others) <= K - 2 or neuron >= 150:
                continue
            chance = float(np.mean([bool(others & set(choice)) for choice in choices]))
            shared = bool(others & set(trained))
            strata[language, layer, len(others)].append((language in after, shared, chance))
    pairs = informative = both = 0
    expected = contrast = 0.0
    for stratum in strata.values():
        new, shared, chance = (np.array(column) for column in zip(*stratum, strict=True))
        pairs += int(new.sum())
        lead = shared - chance
        contrast += lead[new].sum() - new.sum() * lead.mean()
        if 0 < new.sum() < len(new) and 0 < shared.sum() < len(new):
            informative += int(new.sum())
            both += int((new & shared).sum())
            expected += float(new.sum() * shared.mean())
    return pairs, informative, both, expected, float(contrast)


def sharing_of(rows: list[Planned]) -> Sharing:
    found = compare(*runs(rows), tau=TAU, trained=TRAINED).sharing
    assert found is not None
    return found


def test_excess_and_contrast_are_counted() -> None:
    pairs, informative, both, expected, contrast = by_hand(plan(), TRAINED)
    found = sharing_of(plan())
    assert (found.pairs, found.informative) == (pairs, informative)
    assert 30 < informative < pairs
    assert found.share == pytest.approx(both / informative)
    assert found.baseline == pytest.approx(expected / informative)
    assert found.excess == pytest.approx((both - expected) / informative)
    assert found.contrast == pytest.approx(contrast / informative)


def test_pairs_alone_in_their_stratum_tell_nothing() -> None:
    """Every language joins neurons of a trained one, one a layer: all are shared, and no other
    neuron was within reach.
    """
    rows: list[Planned] = [
        (layer, ("en", "zh"), ("en", "zh", k)) for layer, k in enumerate(LANGUAGES[3:])
    ]
    found = sharing_of(rows)
    assert (found.pairs, found.share_of_all, found.informative) == (5, 1.0, 0)
    assert np.isnan([found.share, found.excess, found.error]).all()
    assert found.too_few.startswith("too few: 0 of 5 new pairs are informative")
    assert sharing_of(plan()).too_few == ""


def test_without_joins_there_is_nothing_to_share() -> None:
    found = sharing_of([(layer, before, before) for layer, before, _ in plan()])
    assert found.pairs == 0
    assert np.isnan([found.share, found.excess, found.contrast]).all()
    assert found.too_few.startswith("too few: 0 of 0")


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
    options = {"tau": 0.5, "candidates": range(1, 8), "trained": (1, 2)}
    return measure_sharing(rates, random.integers(0, 3, 1500), **options)


def steps(worlds: list[Sharing], name: str) -> np.ndarray:
    """Numbers in standard errors."""
    value, error = {"excess": "error", "contrast": "contrast_error"}, name
    return np.array([getattr(one, error) / getattr(one, value[name]) for one in worlds])


@pytest.mark.parametrize("options", [{}, {"sizes": True, "kin": 0.8}])
@pytest.mark.parametrize("name", ["excess", "contrast"])
def test_noise_is_called_noise(options: dict[str, Any], name: str) -> None:
    """In standard errors both are standard normal where languages join what is close."""
    random = np.random.default_rng(0)
    found = steps([world(random, **options) for _ in range(150)], name)
    assert abs(found.mean()) < 3.5 / 150**0.5
    assert found.std() == pytest.approx(1, abs=0.2)
    assert np.mean(np.abs(found) > 1.96) <= 0.05 + 3.5 * (0.05 * 0.95 / 150) ** 0.5


def test_without_matching_kinship_looks_like_alignment() -> None:
    """The guard sabotaged: without p before, kin of a trained language join "its" neurons."""
    random = np.random.default_rng(1)
    blind = np.array([world(random, kin=0.8, far=True).excess for _ in range(60)])
    assert blind.mean() > 3.5 * blind.std() / 60**0.5


def test_power() -> None:
    """A boost that makes an excess of 0.16 among informative pairs is found in most worlds."""
    random = np.random.default_rng(2)
    worlds = [world(random, boost=0.3) for _ in range(60)]
    assert np.mean([one.excess for one in worlds]) == pytest.approx(0.16, abs=0.03)
    for name in ("excess", "contrast"):
        assert np.mean(steps(worlds, name) > 1.96) > 0.5


def test_neurons_that_rise_everywhere_have_no_contrast() -> None:
    """Whoever has a neuron, all others join it: that is no matter of the trained languages."""
    random = np.random.default_rng(3)
    found = []
    for _ in range(60):
        logit = random.normal(-1.3, 0.8, (1, 1500)) + random.normal(0, 1, (8, 1500))
        after = logit + random.normal(0, 0.4, logit.shape) + 0.4 * ((logit > 0).sum(0) > 1)
        rates = 1 / (1 + np.exp(-np.stack([logit, after])))
        options = {"tau": 0.5, "candidates": range(1, 8), "trained": (1, 2)}
        found.append(measure_sharing(rates, random.integers(0, 3, 1500), **options))
    assert abs(steps(found, "contrast").mean()) < 3.5 / 60**0.5 + 0.15
