"""Sets of neurons: laws of the algebra, known overlaps, names, files, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.sets import NeuronSet, flat_index

LAYERS, WIDTH = 3, 7
EVERY = set(range(LAYERS * WIDTH))
FLAT = st.sets(st.integers(0, LAYERS * WIDTH - 1))


def made(flat, label="neurons"):
    return NeuronSet(np.array(sorted(flat, reverse=True), np.int64), LAYERS, WIDTH, label)


def members(neurons):
    return set(neurons.flat.tolist())


@settings(max_examples=150, deadline=None)
@given(FLAT, FLAT, FLAT)
def test_the_algebra_is_that_of_sets(x, y, z):
    a, b, c = made(x), made(y), made(z)
    assert members(a | b) == x | y
    assert members(a & b) == x & y
    assert members(a - b) == x - y
    assert members(a ^ b) == x ^ y
    assert (a <= b) == (x <= y)
    assert (a >= b) == (x >= y)
    assert (a == b) == (x == y)
    assert a & (b | c) == (a & b) | (a & c)
    assert made(EVERY) - (a | b) == (made(EVERY) - a) & (made(EVERY) - b)
    assert len({a, made(x, "another label"), b}) == len({frozenset(x), frozenset(y)})
    assert len(a) == len(x)


@settings(max_examples=150, deadline=None)
@given(FLAT, FLAT)
def test_overlaps_are_bounded_and_symmetric_where_they_should_be(x, y):
    a, b = made(x), made(y)
    if not x and not y:
        assert np.isnan([a.jaccard(b), a.dice(b), a.containment(b)]).all()
        return
    assert a.jaccard(b) == b.jaccard(a) == len(x & y) / len(x | y)
    assert a.dice(b) == b.dice(a) == 2 * len(x & y) / (len(x) + len(y))
    assert 0 <= a.jaccard(b) <= a.dice(b) <= 1
    assert (a.jaccard(b) == 1) == (x == y)
    assert np.isnan(a.containment(b)) == (not x)
    if x:
        assert a.containment(b) == len(x & y) / len(x)
        assert a.containment(b) >= a.jaccard(b)
        assert (a.containment(b) == 1) == (x <= y)


@settings(max_examples=100, deadline=None)
@given(FLAT)
def test_names_masks_and_layers_round_trip(x):
    a = made(x, "some")
    assert a.flat.tolist() == sorted(x)
    names = [f"L{i // WIDTH}N{i % WIDTH}" for i in sorted(x)]
    assert list(a) == a.names == names
    assert NeuronSet.from_names(reversed(names), n_layers=LAYERS, d_mlp=WIDTH) == a
    assert NeuronSet.from_mask(a.mask()) == a
    assert a.per_layer().tolist() == [
        sum(i // WIDTH == layer for i in x) for layer in range(LAYERS)
    ]
    by_layer = {k: v.tolist() for k, v in a.by_layer().items()}
    assert {layer * WIDTH + j for layer, js in by_layer.items() for j in js} == x
    assert all(by_layer.values())
    assert a.to_pandas()["name"].tolist() == names
    assert a.to_pandas().columns.tolist() == ["name", "layer", "neuron"]
    for i in EVERY:
        assert (f"L{i // WIDTH}N{i % WIDTH}" in a) == (i in x)


def test_a_set_is_sorted_unique_immutable_and_comes_back(tmp_path):
    given_flat = np.array([5, 3, 5], np.int64)
    a = NeuronSet(given_flat, LAYERS, WIDTH, "specific 中文")
    given_flat[0] = 9
    assert a.flat.tolist() == [3, 5]
    for one in (a, NeuronSet.load(a.save(tmp_path / "deep" / "zh.safetensors"))):
        assert (one, one.label) == (a, "specific 中文")
        with pytest.raises(ValueError, match="read-only"):
            one.flat[0] = 1
    assert NeuronSet.load(made(set()).save(tmp_path / "none")) == made(set())


def test_labels_tell_how_a_set_was_made():
    a, b = made({1, 2}, "zh"), made({2, 3}, "ja")
    assert (a & b).label == "(zh & ja)"
    assert (a - b).relabel("only zh").label == "only zh"
    assert repr(a) == "NeuronSet(zh: 2 neurons in 3 layers: L0N1, L0N2)"
    assert "L0N0, L0N1, L0N2, L0N3, ..." in repr(made(EVERY))
    assert "<td>1</td><td>7</td>" in made(EVERY, "<b>")._repr_html_()
    assert "&lt;b&gt;" in made(EVERY, "<b>")._repr_html_()


@pytest.mark.parametrize("name", ["", "L1", "N3", "L1N", "l1n2", "L1N2 ", "1.2", "L-1N2", "L1N-2"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(LensNeuronsError, match=r"is not the name of a neuron: write 'L12N3456'"):
        flat_index(name, LAYERS, WIDTH)


def test_what_is_outside_the_model_is_refused():
    with pytest.raises(LensNeuronsError, match="L3N0 is outside a model of 3 layers x 7 neurons"):
        flat_index("L3N0", LAYERS, WIDTH)
    with pytest.raises(LensNeuronsError, match="L0N7 is outside"):
        NeuronSet.from_names(["L0N7"], n_layers=LAYERS, d_mlp=WIDTH)
    with pytest.raises(LensNeuronsError, match="neuron 21 is outside a model of 3 layers x 7"):
        made({21})
    with pytest.raises(LensNeuronsError, match="neuron -1 is outside"):
        made({-1, 4})


def test_sets_of_different_models_do_not_mix():
    ours, theirs = made({1}, "zh"), NeuronSet(np.array([1], np.int64), WIDTH, LAYERS, "ja")
    assert ours != theirs
    for act in ("__or__", "__and__", "__sub__", "__xor__", "__le__", "jaccard", "dice"):
        with pytest.raises(LensNeuronsError, match="zh is of a model of 3 x 7 neurons, ja of one"):
            getattr(ours, act)(theirs)
