"""Sharing by item: loops by hand, planted neurons, uniform p, coverage, and a model."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap
from itertools import permutations

import numpy as np
import pytest
import tiny
from oracle import encode_by_hand, pre_of
from scipy.stats import kstest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.comparison.shared_items import STATES, ItemSharing, Tally, item_sharing
from lensneurons.corpora.checks import CorpusWarning
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import LensNeuronsError


def tallied(active, codes=None, draws=1, blocks=1, seed=0, level=0.95):
    """The arrays of activity [language, item, layer, neuron], block by block."""
    codes = np.zeros(active.shape[2:], np.int64) if codes is None else codes
    classes = 1 + (int(codes.max()) + 1 if codes.any() else 0)
    tally = Tally(len(active), active.shape[1], codes, classes, draws=draws, seed=seed)
    done = 0
    for block in np.array_split(active, blocks, axis=1):
        tally.add(block, done)
        done += block.shape[1]
    return tally.result(level)


def name_of(number, k):
    if number == 0:
        return "none"
    if number == 1:
        return "one"
    return "all" if number == k else "some"


def test_shares_and_what_is_expected_by_hand():
    """Expected is the mean over all ways to shuffle each language's items."""
    random = np.random.default_rng(0)
    active = random.random((3, 4, 1, 5)) < 0.5
    active[:, :, 0, 4] = True
    found = tallied(active)
    shares, expected = np.zeros((5, 4)), np.zeros((5, 4))
    orders = list(permutations(range(4)))
    for j in range(5):
        for i in range(4):
            shares[j, STATES.index(name_of(active[:, i, 0, j].sum(), 3))] += 1 / 4
        for one in orders:
            for two in orders:
                for i in range(4):
                    n = active[0, i, 0, j] + active[1, one[i], 0, j] + active[2, two[i], 0, j]
                    n = int(active[0, i, 0, j]) + int(active[1, one[i], 0, j])
                    n += int(active[2, two[i], 0, j])
                    expected[j, STATES.index(name_of(n, 3))] += 1 / 4 / len(orders) ** 2
    np.testing.assert_allclose(found["neuron"][0], shares)
    np.testing.assert_allclose(found["neuron_expected"][0], expected)
    np.testing.assert_allclose(found["share"][0, 0], shares.mean(0))
    np.testing.assert_allclose(found["excess"][0, 1], (shares - expected).mean(0), atol=1e-12)
    assert found["neuron_expected"][0, 4].tolist() == [0, 0, 0, 1]


def test_blocks_change_nothing_but_the_shuffles_and_classes_are_masks():
    random = np.random.default_rng(1)
    active = random.random((3, 47, 2, 30)) < 0.4
    codes = random.integers(4, size=(2, 30))
    one, many = tallied(active, codes), tallied(active, codes, blocks=5)
    for name in one:
        if name != "p":
            np.testing.assert_allclose(one[name], many[name], atol=1e-12)
    for code in range(4):
        mask = codes == code
        np.testing.assert_allclose(one["share"][code + 1, -1], one["neuron"][mask].mean(0))
        np.testing.assert_allclose(
            one["expected"][code + 1, 1], one["neuron_expected"][1][mask[1]].mean(0)
        )


def test_the_interval_is_the_jackknifes():
    random = np.random.default_rng(2)
    active = random.random((2, 25, 1, 8)) < 0.4
    found = tallied(active)
    less = []
    for group in range(20):
        one = tallied(active[:, np.arange(25) % 20 != group])
        less.append(one["excess"][0, -1])
    less = np.array(less)
    error = np.sqrt(19 / 20 * np.square(less - less.mean(0)).sum(0))
    np.testing.assert_allclose(
        found["excess_high"][0, -1] - found["excess"][0, -1], 2.093024 * error, rtol=1e-5
    )


def test_planted_neurons_of_content_are_told_from_those_of_chance():
    random = np.random.default_rng(3)
    rate = random.uniform(0.1, 0.9, size=100)
    content = np.broadcast_to(random.random((40, 100)) < rate, (3, 40, 100))
    chance = random.random((3, 40, 100)) < rate
    found = tallied(np.stack([content, chance], axis=2), draws=199, blocks=2)
    assert found["share"][0, 0, 1:3].tolist() == [0, 0]  # one, some
    np.testing.assert_allclose(found["share"][0, 1], found["expected"][0, 1], atol=0.02)
    assert (found["excess_low"][0, 0, [0, 3]] > 0.1).all()
    assert found["p"][0, 0].max() == 1 / 200


def correlated(random, items, shared, neurons=60):
    """Activity that follows few topics, some of them common to the languages."""
    loadings = np.random.default_rng(0).normal(size=(4, neurons))
    topics, own = random.normal(size=(items, 4)), random.normal(size=(3, items, 4))
    values = (np.sqrt(shared) * topics + np.sqrt(1 - shared) * own) @ loadings
    return (values > 1)[:, :, None]


def test_p_is_uniform_where_nothing_is_shared():
    random, found = np.random.default_rng(4), []
    for seed in range(60):
        active = correlated(random, 40, 0.0)
        found.append(tallied(active, draws=39, blocks=2, seed=seed)["p"][0, -1, 3])
    spread = np.array(found) - random.random(len(found)) / 40  # of forty steps
    assert kstest(spread, "uniform").pvalue > 0.01


def test_intervals_hold_the_truth_and_hardly_more():
    random = np.random.default_rng(5)
    true = tallied(correlated(random, 20000, 0.5))["excess"][0, -1]
    held = np.zeros(4)
    for _ in range(80):
        found = tallied(correlated(random, 40, 0.5))
        held += (found["excess_low"][0, -1] <= true) & (true <= found["excess_high"][0, -1])
    assert (held / 80 >= 0.9).all(), held
    assert (held / 80 <= 0.99).all(), held


def many():
    """Twenty-four items in two languages, out of order, and one that lacks a language."""
    few = list(tiny.tiny_corpus(("en", "th")))
    rows = [
        {"id": f"{one.id} {n}", "language": one.language, "prompt": one.prompt,
         "response": one.response[n:] + one.response[: n or None]}
        for n in range(3) for one in few
    ]  # fmt: skip
    with pytest.warns(CorpusWarning, match="lacks 1 of 25"):
        return build_corpus([*rows[::-1], {"id": "alone", "language": "en", "response": "one"}])


@pytest.mark.parametrize("bar", [None, 0.0])
def test_of_a_model_text_by_text(model_folder, bridge, bar):
    folder, corpus = model_folder("Llama"), many()
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    on = {}
    for item in corpus:
        ids, at = encode_by_hand(tokenizer, item, "response")
        share = (pre_of(plain, "Llama", ids)[:, at] > 0).double().mean(1).numpy()
        on[item.language, item.id] = share > (0.5 if bar is None else bar)
    names = [name for language, name in on if language == "th"]
    number = np.stack([on["en", name].astype(int) + on["th", name] for name in names])
    options = {"bar": bar, "draws": 2, "progress": False}
    found = item_sharing(bridge("Llama"), corpus, **options)
    small = item_sharing(bridge("Llama"), corpus, batch_tokens=100, **options)
    assert (found.n_items, found.left_out) == (24, 1)
    for place, n in ((0, 0), (1, 1), (3, 2)):
        np.testing.assert_allclose(found.neuron[..., place], (number == n).mean(0))
    np.testing.assert_allclose(found.neuron[..., 2], 0)
    np.testing.assert_array_equal(found.neuron, small.neuron)
    np.testing.assert_array_equal(found.p, small.p)


def test_classes_files_and_tables(llama, tmp_path):
    neurons = tiny.drawn_neurons(languages=("en", "th"))
    found = item_sharing(llama, many(), neurons, draws=3, progress=False)
    assert found.bar == neurons.tau
    assert found.classes == ("all", "unclassified", "specific", "related", "agnostic")
    specific = neurons.class_codes == 1
    np.testing.assert_allclose(found.share[2, -1], found.neuron[specific].mean(0))
    again = ItemSharing.load(found.save(tmp_path / "one"))
    np.testing.assert_array_equal(again.excess_low, found.excess_low)
    table = found.to_pandas()
    assert len(table) == 5 * (tiny.LAYERS + 1) * 4
    own = table.query("`class` == 'specific' and layer.isna() and state == 'all'")
    assert own.share.item() == found.share[2, -1, 3]
    assert "beyond chance" in found.to_text()
    assert "24 items in 2 languages" in repr(found)


def test_bad_input_is_refused_before_a_pass(llama, monkeypatch):
    monkeypatch.setattr("lensneurons.comparison.shared_items._read", None)
    corpus = many()
    for given, told in (
        ({"draws": 0}, "draws=0"),
        ({"bar": 1.0}, "a share of tokens"),
        ({"level": 2.0}, "level"),
        ({"neurons": replace(
            tiny.drawn_neurons(), probability=np.ones((3, 5, 2)), score=np.ones((3, 5)),
            selected=np.ones((3, 5), bool), languages=("en", "th"),
        )}, "another model"),
    ):  # fmt: skip
        with pytest.raises(LensNeuronsError, match=told):
            unwrap(item_sharing)(llama, corpus, progress=False, **given)
    with pytest.raises(LensNeuronsError, match="20 items"):
        item_sharing(llama, tiny.tiny_corpus(), progress=False)
    with pytest.raises(LensNeuronsError, match="two languages"):
        item_sharing(llama, corpus.select(["en"]), progress=False)
