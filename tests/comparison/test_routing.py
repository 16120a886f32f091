"""Divergence of routing: known answers, its null, and how often its interval holds the truth."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from real_data import real_data
from scipy.spatial.distance import jensenshannon

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.routing import RoutingDivergence, js_bits, routing_divergence
from lensneurons.errors import LensNeuronsError
from lensneurons.values.provenance import ROUTER, Provenance


def made(counts, languages=("en", "th", "zh")):
    """Statistics of experts from counts [group, layer, expert, language], two experts a token."""
    counts = np.asarray(counts, np.int64)
    tokens = counts.sum(2).max(1)
    provenance = Provenance(hook=ROUTER)
    return ActivationStatistics(languages, counts, tokens, provenance=provenance)


def draw(random, shares, items=40, groups=10):
    """Counts [group, layer, expert]: each text has shares of its own around those of [layer]."""
    counts = np.zeros((groups, *shares.shape), np.int64)
    for item in range(items):
        for layer, share in enumerate(shares):
            own = random.dirichlet(40 * share + 1e-9)
            counts[item % groups, layer] += random.multinomial(8 * random.geometric(1 / 60), own)
    return counts


def test_known_answers():
    assert js_bits(np.array([5, 0, 5]), np.array([1, 0, 1])) == 0
    assert js_bits(np.array([3, 0]), np.array([0, 9])) == 1
    half = js_bits(np.array([1, 1]), np.array([1, 0]))
    assert half == pytest.approx(1.5 - 0.75 * np.log2(3))
    assert np.isnan(js_bits(np.zeros(3), np.ones(3)))
    random = np.random.default_rng(0)
    for _ in range(20):
        p, q = random.integers(0, 9, (2, 7)) + np.array([[1], [0]])
        q[0] += 1
        assert js_bits(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
        assert js_bits(p, q) == pytest.approx(js_bits(3 * q, p))


def test_counts_without_groups_give_the_divergence_alone():
    random = np.random.default_rng(1)
    counts = random.integers(1, 50, (1, 4, 6, 3))
    counts[0, 2] = 0  # a layer without a router
    found = routing_divergence(made(counts), pivot="th")
    assert found.languages == ("en", "zh")
    for layer in (0, 1, 3):
        p, q = counts[0, layer, :, 2], counts[0, layer, :, 1]
        assert found.divergence[layer, 1] == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert np.isnan(found.divergence[2]).all()
    assert np.isnan([found.low, found.high, found.null, found.p]).all()


def test_groups_correct_it_and_the_null_is_that_of_all_swaps():
    random = np.random.default_rng(2)
    counts = random.integers(1, 30, (4, 3, 5, 2))
    counts[:, 0, 0, 1] += 200
    counts[:, 2] = 0
    found = routing_divergence(made(counts, ("en", "th")))
    ours, theirs = counts[..., 1], counts[..., 0]

    def js(a, b):
        return np.array(
            [jensenshannon(p, q, base=2) ** 2 for p, q in zip(a[:2], b[:2], strict=True)]
        )

    whole = js(ours.sum(0), theirs.sum(0))
    without = np.mean([js(ours.sum(0) - ours[g], theirs.sum(0) - theirs[g]) for g in range(4)], 0)
    np.testing.assert_allclose(found.divergence[:2, 0], np.clip(4 * whole - 3 * without, 0, 1))
    null = []
    for way in product((0, 1), repeat=4):  # twice as many, in pairs of the same value
        swap = np.array(way)[:, None, None] == 1
        null.append(js(np.where(swap, theirs, ours).sum(0), np.where(swap, ours, theirs).sum(0)))
    null = np.array(null)
    np.testing.assert_allclose(found.null[:2, 0], null.mean(0))
    z = (null - null.mean(0)) / null.std(0)
    wanted = [(z.max(1) >= z[0, layer] - 1e-9).mean() for layer in (0, 1)]
    np.testing.assert_allclose(found.p[:2, 0], wanted)
    assert np.isnan(found.p[2, 0])
    assert found.p[0, 0] == 1 / 8


def test_the_interval_holds_the_truth_and_p_keeps_its_level():
    """A smaller version of tests/simulations/routing_divergence.py."""
    random = np.random.default_rng(3)
    held, rejected, corrected = [], [], []
    for _ in range(60):
        pivot, other = random.dirichlet(np.full(32, 0.7), 2)
        moved = 0.7 * pivot + 0.3 * other
        truth = js_bits(pivot, moved)
        both = [draw(random, np.stack([pivot, pivot])), draw(random, np.stack([pivot, moved]))]
        found = routing_divergence(made(np.stack(both, -1), ("en", "th")))
        held.append(found.low[1, 0] <= truth <= found.high[1, 0])
        corrected.append(found.divergence[1, 0] - truth)
        same = routing_divergence(
            made(np.stack([draw(random, pivot[None]), draw(random, pivot[None])], -1), ("en", "th"))
        )
        rejected.append(same.p[0, 0] < 0.05)
        assert found.p[1, 0] < 0.05
    assert 0.85 <= np.mean(held) <= 1
    assert np.mean(rejected) <= 0.12
    assert abs(np.mean(corrected)) < 0.004


def test_published_routing_is_a_u_over_depth():
    """Qwen3-30B-A3B on MGSM, as published: far from English at both ends, near in the middle."""
    folder, languages = real_data("moe_routing"), ("en", "bn", "de", "es", "fr", "ja", "sw", "zh")
    counts = np.zeros((1, 48, 128, len(languages)), np.int64)
    for k, language in enumerate(languages):
        for layer, experts in json.loads((folder / f"{language}.json").read_text()).items():
            for expert in filter(str.isdigit, experts):
                counts[0, int(layer), int(expert), k] = experts[expert]["activation_tokens"]
    mean = routing_divergence(made(counts, languages)).divergence.mean(axis=1)
    assert mean[[0, -1]].round(2).tolist() == [0.31, 0.65]  # .21 and .45 nats
    assert mean.argmin() == 31
    assert mean.min() == pytest.approx(0.035, abs=5e-4)


def test_it_is_saved_shown_and_a_table(tmp_path):
    found = routing_divergence(made(np.random.default_rng(4).integers(1, 50, (3, 2, 6, 3))))
    again = RoutingDivergence.load(found.save(tmp_path / "x"))
    assert again.to_pandas().equals(found.to_pandas())
    assert list(found.to_pandas().language) == ["th", "zh"] * 2
    assert "bits from en, mean over 2 layers: th 0." in repr(found)
    assert "<table" in found._repr_html_()


def test_what_is_refused():
    some = made(np.ones((2, 2, 4, 2)), ("en", "th"))
    neurons = ActivationStatistics(some.languages, some.grouped_counts, some.grouped_tokens)
    with pytest.raises(LensNeuronsError, match="count neurons"):
        routing_divergence(neurons)
    with pytest.raises(LensNeuronsError, match="pivot='de'"):
        routing_divergence(some, pivot="de")
    with pytest.raises(LensNeuronsError, match="no language but th"):
        routing_divergence(some.select(["th"]), pivot="th")
    with pytest.raises(LensNeuronsError, match="level=2"):
        routing_divergence(some, level=2)
