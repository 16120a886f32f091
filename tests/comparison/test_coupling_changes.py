"""Change of coupling: the difference of two couplings, planted trainings, coverage, bad input."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap

import numpy as np
import pytest
import tiny
from scipy.stats import pearsonr

from lensneurons.activations.items import ItemActivations
from lensneurons.comparison.coupled_neurons import coupling
from lensneurons.comparison.coupling_changes import CouplingChange, coupling_change
from lensneurons.errors import LensNeuronsError, ProvenanceError

LANGUAGES = ("en", "zh", "th", "sw")


def made(values, languages=LANGUAGES):
    values = np.asarray(values, np.float32)
    names = tuple(f"item {n}" for n in range(values.shape[1]))
    return ItemActivations(languages[: len(values)], names, values)


def world(random, items, shared, neurons=20):
    """Two models: languages share topics to a degree [model, language] with English."""
    loadings = np.random.default_rng(0).normal(size=(5, neurons))
    topics, own = random.normal(size=(items, 5)), random.normal(size=(4, items, 5))
    noise = random.normal(size=(2, 4, items, neurons))
    share = np.asarray(shared)[..., None, None]
    values = (np.sqrt(share) * topics + np.sqrt(1 - share) * own) @ loadings + noise
    return tuple(made(one[:, :, None]) for one in values)


def test_every_change_is_a_difference_of_plain_correlations():
    random = np.random.default_rng(1)
    values = random.normal(size=(2, 3, 25, 2, 6))
    values[1, 1, :, 0, 2] = 4.0  # without spread in one language of one model
    found = coupling_change(made(values[0]), made(values[1]), trained=["zh"])
    r = np.zeros((2, 3, 3, 2, 6))
    for run, a, b, layer, j in np.ndindex(r.shape):
        if (layer, j) != (0, 2):
            one, two = values[run, a, :, layer, j], values[run, b, :, layer, j]
            r[run, a, b, layer, j] = pearsonr(one, two).statistic
    pairs = (r[:, 0, 1] + r[:, 0, 2] + r[:, 1, 2]) / 3
    assert found.undefined == 1
    assert np.isnan(found.neuron[0, 2])
    keep = ~np.isnan(found.neuron)
    np.testing.assert_allclose(found.neuron[keep], (pairs[1] - pairs[0])[keep], atol=1e-6)
    np.testing.assert_allclose(found.before[0, 1], pairs[0][1].mean(), atol=1e-6)
    np.testing.assert_allclose(found.after[0, -1], pairs[1][keep].mean(), atol=1e-6)
    mean = r[:, :, :, keep].mean(-1)
    np.testing.assert_allclose(found.pair_after, mean[1], atol=1e-5)
    np.testing.assert_allclose(found.pair_before, mean[0], atol=1e-5)


def test_estimates_are_the_jackknifes_and_contrasts_their_means():
    one, two = world(np.random.default_rng(2), 27, [[0.3] * 4, [0.6] * 4], neurons=5)
    found = coupling_change(one, two, trained=("zh", "th"))
    whole = coupling(two, draws=1).neuron.mean() - coupling(one, draws=1).neuron.mean()
    less, of = [], []
    for group in range(20):
        kept = np.arange(27) % 20 != group
        parts = [coupling(made(m.mean[:, kept]), draws=1).neuron.mean() for m in (one, two)]
        less.append(parts[1] - parts[0])
        r = [np.zeros(4), np.zeros(4)]
        for run, m in enumerate((one, two)):
            for k in range(1, 4):
                r[run][k] = np.mean([
                    pearsonr(m.mean[0, kept, 0, j], m.mean[k, kept, 0, j]).statistic
                    for j in range(5)
                ])  # fmt: skip
        of.append(r[1] - r[0])
    assert found.change[0, -1] == pytest.approx(20 * whole - 19 * np.mean(less), abs=1e-5)
    error = np.sqrt(19 / 20 * np.square(np.array(less) - np.mean(less)).sum())
    assert found.high[0, -1] - found.change[0, -1] == pytest.approx(2.093024 * error, rel=1e-3)
    plain = (found.pair_after - found.pair_before)[0]
    np.testing.assert_allclose(
        found.language[1:, 0], (20 * plain - 19 * np.mean(of, 0))[1:], atol=1e-5
    )
    trained, untouched, contrast = found.contrasts[:, 0]
    assert trained == pytest.approx(found.language[[1, 2], 0].mean())
    assert untouched == pytest.approx(found.language[3, 0])
    assert contrast == pytest.approx(trained - untouched)
    assert np.isnan(found.language[0]).all()


def test_one_model_twice_has_not_changed():
    one, _ = world(np.random.default_rng(3), 25, [[0.3] * 4, [0.3] * 4])
    scaled = made(one.mean * 7 + 3)  # a correlation knows no scale
    for after, near in ((one, 0), (scaled, 1e-5)):
        found = coupling_change(one, after, trained=("zh",), measure="spearman")
        assert np.abs(found.high).max() <= near
        assert np.abs(found.contrasts).max() <= near


def test_a_planted_training_couples_the_trained_languages_alone():
    """English shares all its topics; zh and th come closer to them, sw does not."""
    random = np.random.default_rng(4)
    shared = [[1, 0.2, 0.2, 0.2], [1, 0.7, 0.7, 0.2]]
    one, two = world(random, 60, shared)
    found = coupling_change(one, two, trained=("zh", "th"))
    assert found.low[0, -1] > 0
    assert (found.contrasts[[0, 2], 1] > 0).all()
    assert found.contrasts[1, 1] < 0 < found.contrasts[1, 2]
    table = found.pairs().set_index(["language", "other"])
    assert table.loc[("en", "zh"), "low"] > 0
    assert table.loc[("zh", "th"), "trained"] == 2
    names = found.languages_to_pandas().of.tolist()
    assert names == ["zh", "th", "sw", "trained", "untouched", "contrast"]
    every = coupling_change(one, two, trained=("zh", "th"), pivot=None)
    assert every.pivot is None
    assert np.isfinite(every.language).all()
    assert every.contrasts[0, 0] < found.contrasts[0, 0]


def test_intervals_hold_the_truth_and_hardly_more():
    random = np.random.default_rng(5)
    shared = [[1, 0.2, 0.5, 0.3], [1, 0.5, 0.6, 0.3]]
    true = coupling_change(*world(random, 8000, shared), trained=("zh", "th"))
    held, n = np.zeros(3), 60
    for _ in range(n):
        found = coupling_change(*world(random, 40, shared), trained=("zh", "th"))
        held += (
            found.low[0, -1] <= true.change[0, -1] <= found.high[0, -1],
            found.pair_low[0, 1] <= true.pair_change[0, 1] <= found.pair_high[0, 1],
            found.contrasts[2, 1] <= true.contrasts[2, 0] <= found.contrasts[2, 2],
        )
    assert (held / n >= 0.9).all(), held / n
    assert (held / n < 1).any(), held / n


def test_classes_files_and_tables(tmp_path):
    random = np.random.default_rng(6)
    neurons = tiny.drawn_neurons(languages=("en", "zh", "th"))
    shape = (3, 24, neurons.n_layers, neurons.d_mlp)
    one, two = made(random.normal(size=shape)), made(random.normal(size=shape))
    found = coupling_change(one, two, neurons, trained=("zh",))
    mask = neurons.class_codes == 2
    np.testing.assert_allclose(
        (found.after - found.before)[3, -1], found.neuron[mask].mean(), atol=1e-9
    )
    again = CouplingChange.load(found.save(tmp_path / "one"))
    np.testing.assert_array_equal(again.contrasts, found.contrasts)
    assert again.trained == ("zh",)
    assert len(found.to_pandas()) == 5 * (neurons.n_layers + 1)
    assert "contrast" in found.to_text()
    assert "contrast" not in replace(found, trained=()).to_text()
    assert np.isnan(coupling_change(one, two).contrasts).all()


def test_bad_input_says_what_to_do():
    random = np.random.default_rng(7)
    one = made(random.normal(size=(3, 22, 1, 4)))
    few = made(random.normal(size=(3, 19, 1, 4)))
    with pytest.raises(LensNeuronsError, match="20 items"):
        coupling_change(few, few)
    with pytest.raises(LensNeuronsError, match="trained language"):
        coupling_change(one, one, trained=("en",))
    with pytest.raises(LensNeuronsError, match="pivot"):
        coupling_change(one, one, pivot="de")
    with pytest.raises(LensNeuronsError, match="kendall"):
        unwrap(coupling_change)(one, one, measure="kendall")
    with pytest.raises(ProvenanceError, match="item_ids"):
        coupling_change(one, made(random.normal(size=(3, 23, 1, 4))))
    with pytest.raises(ProvenanceError, match="d_mlp"):
        coupling_change(one, made(random.normal(size=(3, 22, 1, 5))))
    other = replace(one, provenance=replace(one.provenance, scope="all"))
    with pytest.raises(ProvenanceError, match="scope"):
        coupling_change(one, other)
    with pytest.raises(LensNeuronsError, match="another model"):
        coupling_change(one, one, tiny.drawn_neurons())
