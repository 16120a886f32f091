"""Rankings by single texts: plain loops, planted neurons, ties, and false discoveries."""

from __future__ import annotations

from inspect import unwrap

import numpy as np
import pytest
from scipy.stats import kstest, ttest_1samp

from lensneurons.activations.items import ItemActivations
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.rankings import NeuronRanking, rank_neurons


def made(values, languages="abcdef"):
    """Items with activations [language, item, layer, neuron]."""
    values = np.asarray(values, np.float32)
    names = tuple(f"item {n}" for n in range(values.shape[1]))
    return ItemActivations(tuple(languages[: len(values)]), names, values)


def precision_by_hand(scores, own):
    """Average precision as the sum of precision times the rise of recall, value by value."""
    total = 0.0
    for value in sorted(set(scores), reverse=True):
        taken = [mine for score, mine in zip(scores, own, strict=True) if score >= value]
        here = [mine for score, mine in zip(scores, own, strict=True) if score == value]
        total += sum(here) / sum(own) * sum(taken) / len(taken)
    return total


@pytest.mark.parametrize("rounded", [False, True])
def test_average_precision_by_hand_with_ties_too(rounded):
    random = np.random.default_rng(0)
    values = random.normal(size=(3, 8, 2, 5))
    values = np.maximum(np.round(values), 0) if rounded else values
    found = rank_neurons(made(values))
    for layer, j in np.ndindex(2, 5):
        scores = values[:, :, layer, j].astype(np.float32).ravel().tolist()
        for k in range(3):
            own = np.repeat(np.arange(3) == k, 8).tolist()
            expected = precision_by_hand(scores, own)
            assert found.value[layer, j, k] == pytest.approx(expected)


def test_difference_is_the_paired_test():
    random = np.random.default_rng(1)
    values = random.normal(size=(4, 12, 1, 6)).astype(np.float32)
    found = rank_neurons(made(values), method="difference")
    for k in range(4):
        others = np.delete(values, k, axis=0).mean(0, dtype=np.float64)
        each = (values[k] - others)[:, 0]
        theirs = ttest_1samp(each, 0)
        np.testing.assert_allclose(found.value[0, :, k], each.mean(0) / each.std(0, ddof=1))
        np.testing.assert_allclose(found.p[0, :, k], theirs.pvalue)


def test_planted_neurons_come_first_and_last():
    random = np.random.default_rng(2)
    values = random.normal(size=(3, 20, 2, 30))
    values[1, :, 1, 7] += 9  # told by its activity
    values[1, :, 0, 3] -= 9  # told by its silence
    values[:, :, 0, 4] = 0.5  # tells nothing
    for method in ("average_precision", "difference"):
        found = rank_neurons(made(values), method=method)
        assert found.top("b", 1).names == ["L1N7"]
        assert found.bottom("b", 1).names == ["L0N3"]
        assert np.isnan(found.value[0, 4]).all()
        assert len(found.top("b", 59)) == 59
        with pytest.raises(LensNeuronsError, match="1 to 59"):
            found.top("b", 60)
        assert "L1N7" in found.to_text()


def test_false_discoveries_stay_at_their_rate():
    random = np.random.default_rng(3)
    values = random.normal(size=(3, 25, 1, 2000))
    values[0, :, 0, :200] += 1.5
    found = rank_neurons(made(values), method="difference")
    assert kstest(found.p[0, 200:, 1], "uniform").pvalue > 0.01
    flat = found.significant("a").flat
    assert np.sum(flat < 200) > 190
    assert np.mean(flat >= 200) < 0.05
    assert len(found.significant("b")) < 5
    with pytest.raises(LensNeuronsError, match="method='difference'"):
        rank_neurons(made(values[..., :3])).significant("a")
    with pytest.raises(LensNeuronsError, match="rate=1"):
        found.significant("a", rate=1.0)


def test_bad_input_saved_and_shown(tmp_path):
    values = np.random.default_rng(4).normal(size=(2, 5, 2, 3))
    with pytest.raises(LensNeuronsError, match="two languages"):
        rank_neurons(made(values[:1]))
    with pytest.raises(LensNeuronsError, match="method"):
        unwrap(rank_neurons)(made(values), method="entropy")  # the tests check types before
    found = rank_neurons(made(values), method="difference")
    with pytest.raises(LensNeuronsError, match="language"):
        found.top("zh", 1)
    again = NeuronRanking.load(found.save(tmp_path / "ranking"))
    np.testing.assert_array_equal(again.value, found.value)
    np.testing.assert_array_equal(again.p, found.p)
    assert len(found.to_pandas()) == 2 * 3 * 2
    assert found.to_xarray()["value"].sel(language="b").shape == (2, 3)


@pytest.mark.parametrize("method", ["average_precision", "difference"])
def test_blocks_of_neurons_give_what_all_at_once_give(method, monkeypatch):
    values = np.random.default_rng(5).random((3, 7, 2, 11)).astype(np.float32)
    values[..., 4] = 0.5  # alike for all texts
    items = ItemActivations(("en", "zh", "th"), tuple("abcdefg"), values)
    whole = rank_neurons(items, method=method)
    monkeypatch.setattr("lensneurons.activations.items.BLOCK", 3 * 7 * 4)
    assert [part.start for _, part in items.blocks()] == [0, 4, 8] * 2
    blocks = rank_neurons(items, method=method)
    assert np.array_equal(blocks.value, whole.value, equal_nan=True)
    if whole.p is not None:
        assert np.array_equal(blocks.p, whole.p, equal_nan=True)
