"""Coupling of neurons and layers: plain formulas, planted neurons, uniform p, coverage."""

from __future__ import annotations

from dataclasses import fields
from inspect import unwrap
from itertools import combinations

import numpy as np
import pytest
import tiny
from scipy.stats import kstest, pearsonr, rankdata, spearmanr

from lensneurons.activations.items import ItemActivations
from lensneurons.comparison.coupled_layers import (
    LayerCoupling,
    layer_coupling,
    unbiased_cka,
    unbiased_hsic,
)
from lensneurons.comparison.coupled_neurons import Coupling, coupling
from lensneurons.errors import LensNeuronsError


def made(values, languages="abcdefgh"):
    """Items with activations [language, item, layer, neuron]."""
    values = np.asarray(values, np.float32)
    names = tuple(f"item {n}" for n in range(values.shape[1]))
    return ItemActivations(tuple(languages[: len(values)]), names, values)


def draw(random, shared, shape=(3, 40, 2, 50)):
    """Rectified activations of which a share comes from what the languages have in common."""
    common, own = random.normal(size=shape[1:]), random.normal(size=shape)
    return np.maximum(np.sqrt(shared) * common + np.sqrt(1 - shared) * own, -0.5)


@pytest.mark.parametrize(("measure", "theirs"), [("pearson", pearsonr), ("spearman", spearmanr)])
def test_every_number_is_a_plain_mean_of_correlations(measure, theirs):
    random = np.random.default_rng(0)
    values = draw(random, 0.4, (3, 21, 2, 6))
    values[1, :, 0, 2] = 1.5  # no spread in one language
    found = coupling(made(values), measure=measure, draws=3)
    r = np.full((3, 3, 2, 6), np.nan)
    for a, b in combinations(range(3), 2):
        for layer, j in np.ndindex(2, 6):
            if (layer, j) != (0, 2):
                r[a, b, layer, j] = theirs(values[a, :, layer, j], values[b, :, layer, j]).statistic
    pairs = np.array([r[a, b] for a, b in combinations(range(3), 2)])
    np.testing.assert_allclose(found.neuron, pairs.mean(0), atol=1e-6)
    assert found.undefined.tolist() == [1, 0]
    assert np.isnan(found.neuron_p[0, 2])
    assert np.isfinite(found.neuron_p).sum() == 11


def test_kendalls_concordance_in_other_units():
    random = np.random.default_rng(1)
    values = random.normal(size=(4, 22, 1, 1))
    ranks = rankdata(values[:, :, 0, 0], axis=1)
    n, k = 22, 4
    w = 12 * np.square(ranks.sum(0) - k * (n + 1) / 2).sum() / (k**2 * (n**3 - n))
    found = coupling(made(values), measure="spearman", draws=1).neuron[0, 0]
    assert found == pytest.approx((k * w - 1) / (k - 1), abs=1e-6)


def test_the_estimate_is_the_jackknifes_and_its_parts_are_those_of_the_classes():
    random = np.random.default_rng(2)
    neurons = tiny.drawn_neurons(languages=("en", "zh", "th"))
    shape = (3, 25, neurons.n_layers, neurons.d_mlp)
    items = made(draw(random, 0.3, shape))
    found = coupling(items, neurons, draws=2)
    without = [
        coupling(made(np.delete(items.mean, np.flatnonzero(np.arange(25) % 20 == g), 1)), draws=1)
        for g in range(20)
    ]
    masks = [neurons.class_codes >= 0, *(neurons.class_codes == code for code in range(4))]
    for place, mask in enumerate(masks):
        if not mask.any():
            assert np.isnan(found.estimate[place, -1])
            continue
        whole = np.arctanh(found.neuron[mask].mean())
        less = np.mean([np.arctanh(one.neuron[mask].mean()) for one in without])
        assert np.arctanh(found.estimate[place, -1]) == pytest.approx(
            20 * whole - 19 * less, abs=1e-4
        )
    rows = found.to_pandas()
    assert rows["class"].unique().tolist() == [
        "all",
        "unclassified",
        "specific",
        "related",
        "agnostic",
    ]
    assert len(rows) == 5 * (neurons.n_layers + 1)
    assert rows["layer"].isna().sum() == 5
    diagonal = found.pair_estimate.diagonal()
    np.testing.assert_allclose(diagonal, 1, atol=1e-5)


@pytest.mark.parametrize("measure", ["pearson", "spearman"])
def test_coupled_neurons_are_told_from_others_whose_p_is_uniform(measure):
    random = np.random.default_rng(3)
    values = np.maximum(random.standard_t(4, size=(3, 50, 2, 500)), 0)
    values[:, :, 1] += np.maximum(
        random.standard_t(4, size=(50, 500)), 0
    )  # the second layer shares
    found = coupling(made(values), measure=measure, draws=199)
    assert kstest(found.neuron_p[0], "uniform").pvalue > 0.01
    assert np.mean(found.neuron_p[1] <= 0.01) > 0.95
    assert found.p[0, 0] > 0.05
    assert found.p[0, 1] == 1 / 200
    assert abs(found.null[0]).max() < 0.01


def test_intervals_hold_the_truth_and_hardly_more():
    """Neurons go up and down together, so their mean is as uncertain as the items are few."""
    random, held, width = np.random.default_rng(4), 0, []
    loadings = random.normal(size=(5, 40))
    for _ in range(200):
        topics, own = random.normal(size=(30, 5)), random.normal(size=(2, 30, 5))
        values = (np.sqrt(0.5) * topics + np.sqrt(0.5) * own) @ loadings
        found = coupling(made(values[:, :, None]), draws=1)
        held += found.low[0, 0] <= 0.5 <= found.high[0, 0]
        width.append(found.high[0, 0] - found.low[0, 0])
    assert 0.9 <= held / 200 <= 0.985
    assert np.mean(width) < 0.5


def test_hsic_is_that_of_all_quadruples():
    """Unbiased HSIC is the mean of a kernel over all sets of four items (Song et al. 2012)."""
    random = np.random.default_rng(5)
    one, two = (kernel @ kernel.T for kernel in random.normal(size=(2, 7, 3)))
    n, total = 7, []
    for i, j, q, r in np.ndindex(n, n, n, n):
        if len({i, j, q, r}) == 4:
            total.append(one[i, j] * (two[i, j] + two[q, r] - 2 * two[i, q]))
    assert unbiased_hsic(one, two) / (n * (n - 3)) == pytest.approx(np.mean(total))


def test_cka_of_turned_and_scaled_activations_is_one_and_of_others_about_zero():
    random = np.random.default_rng(6)
    values = random.normal(size=(30, 8))
    turn = np.linalg.qr(random.normal(size=(8, 8)))[0]
    kernel, turned = values @ values.T, 9 * (values @ turn) @ (values @ turn).T
    assert unbiased_cka(kernel, turned) == pytest.approx(1)
    found = layer_coupling(made(random.normal(size=(2, 60, 1, 4000))), draws=99)
    assert abs(found.cka[0, 0]) < 0.2  # the biased one is .98
    assert found.cka_p[0, 0] > 0.05


def test_retrieval_and_cosine_by_hand():
    random = np.random.default_rng(7)
    values = draw(random, 0.3, (2, 20, 1, 12))
    found = layer_coupling(made(values), draws=1)
    a, b = (one[:, 0] - one[:, 0].mean(0) for one in values.astype(np.float64))
    cosine = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b] for x in a])
    right = [np.argmax(cosine[i]) == i for i in range(20)]
    right += [np.argmax(cosine[:, i]) == i for i in range(20)]
    assert found.retrieval[0, 0] == pytest.approx(np.mean(right))
    others = cosine[~np.eye(20, dtype=bool)].mean()
    assert found.cosine[0, 0] == pytest.approx(cosine.diagonal().mean() - others, abs=1e-6)
    assert found.retrieval_low[0, 0] < found.retrieval[0, 0] < found.retrieval_high[0, 0]


def test_all_right_is_no_certainty():
    random = np.random.default_rng(8)
    same = random.normal(size=(1, 20, 1, 30)).repeat(2, axis=0)
    found = layer_coupling(made(same), draws=1)
    assert (found.retrieval[0, 0], found.retrieval_high[0, 0]) == (1, 1)
    assert found.retrieval_low[0, 0] < 0.9
    assert found.cka[0, 0] == pytest.approx(1)


def test_bad_input_says_what_to_do():
    random = np.random.default_rng(9)
    items = made(random.normal(size=(3, 22, 2, 5)))
    for call in (coupling, layer_coupling):
        with pytest.raises(LensNeuronsError, match="20 items"):
            call(made(random.normal(size=(3, 19, 2, 5))))
        with pytest.raises(LensNeuronsError, match="two languages"):
            call(made(random.normal(size=(1, 22, 2, 5))))
        with pytest.raises(LensNeuronsError, match="draws=0"):
            call(items, draws=0)
        with pytest.raises(LensNeuronsError, match="level"):
            call(items, level=1.0)
    with pytest.raises(LensNeuronsError, match="another model"):
        coupling(items, tiny.drawn_neurons())
    with pytest.raises(LensNeuronsError, match="kendall"):
        unwrap(coupling)(items, measure="kendall")  # the tests check types before
    silent = random.normal(size=(2, 22, 2, 5))
    silent[1, :, 1] = 0
    with pytest.raises(LensNeuronsError, match=r"layer 1 answers all items of \['b'\] alike"):
        layer_coupling(made(silent))


def test_saved_and_shown(tmp_path):
    items = made(draw(np.random.default_rng(10), 0.3))
    one, two = coupling(items, draws=5), layer_coupling(items, draws=5)
    again = Coupling.load(one.save(tmp_path / "one"))
    np.testing.assert_array_equal(again.neuron, one.neuron)
    assert again.classes == ("all",)
    assert len(one.pairs()) == 3
    assert "all layers" in one.to_text()
    table = LayerCoupling.load(two.save(tmp_path / "two")).to_pandas()
    assert len(table) == 2 * 3
    assert {"cka_p", "retrieval_low", "cosine_high"} <= set(table)
    assert "cka" in two.to_text()


def test_neurons_are_read_in_blocks_whose_memory_items_do_not_change(tmp_path, monkeypatch):
    """Blocks of one neuron give what one block of all gives; a file is never read whole."""
    random = np.random.default_rng(9)
    neurons = tiny.drawn_neurons(languages=("en", "zh", "th"))
    values = draw(random, 0.4, (3, 24, neurons.n_layers, neurons.d_mlp)).astype(np.float32)
    values[0, :, 1, 3] = 0.0
    np.save(tmp_path / "items.npy", values)
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
    items = ItemActivations(("en", "zh", "th"), tuple(f"item {n}" for n in range(24)), mapped)
    for measure in ("pearson", "spearman"):
        whole = coupling(items, neurons, measure=measure, draws=5)
        largest: list[int] = []
        real = np.take_along_axis

        def watched(array, *rest, real=real, largest=largest, **more):
            largest.append(array.size)
            return real(array, *rest, **more)

        with monkeypatch.context() as patched:
            patched.setattr("lensneurons.activations.items.BLOCK", 3 * 24 * 2)
            patched.setattr(np, "take_along_axis", watched)
            blocks = coupling(items, neurons, measure=measure, draws=5)
        assert max(largest) == 3 * 24 * 2
        for entry in fields(Coupling):
            one, other = getattr(whole, entry.name), getattr(blocks, entry.name)
            if isinstance(one, np.ndarray):
                np.testing.assert_allclose(other, one, atol=1e-9)
