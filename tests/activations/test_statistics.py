"""Statistics: known answers, laws of addition, and what their door lets in."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from inspect import unwrap
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensneurons.activations.checks import check_statistics
from lensneurons.activations.statistics import ActivationStatistics, require_comparable
from lensneurons.errors import LensNeuronsError, ProvenanceError
from lensneurons.values.provenance import Provenance

GROUPS, LAYERS, WIDTH = 4, 2, 5


def make(seed=0, languages=("zh", "en", "sw"), groups=GROUPS, corpora=("one",)):
    source = np.random.default_rng(seed)
    tokens = source.integers(1, 90, (groups, len(languages)))
    shape = (groups, LAYERS, WIDTH, len(languages))
    counts = source.binomial(np.broadcast_to(tokens[:, None, None], shape), 0.3).astype(np.int64)
    values = source.normal(size=(LAYERS, WIDTH, len(languages)))
    provenance = Provenance(model="m", weights="w", scope="response", corpora=corpora)
    return ActivationStatistics(
        languages, counts, tokens, values, np.square(values) * 40, provenance
    )


def known():
    """Two groups, one layer, two neurons, zh and en; every value below is done in the head."""
    counts = np.array([[[[1, 0], [2, 3]]], [[[2, 0], [0, 5]]]])
    tokens = np.array([[2, 3], [2, 7]])
    sums = np.array([[[4.0, -5.0], [8.0, 20.0]]])
    squares = np.array([[[20.0, 2.5], [16.0, 40.0]]])
    return ActivationStatistics(("zh", "en"), counts, tokens, sums, squares)


def test_known_answers():
    statistics = known()
    assert (statistics.n_groups, statistics.n_layers, statistics.d_mlp) == (2, 1, 2)
    assert statistics.counts.tolist() == [[[3, 0], [2, 8]]]
    assert statistics.tokens.tolist() == [4, 10]
    assert statistics.probability.tolist() == [[[0.75, 0.0], [0.5, 0.8]]]
    assert statistics.mean.tolist() == [[[1.0, -0.5], [2.0, 2.0]]]
    assert statistics.standard_deviation.tolist() == [[[2.0, 0.0], [0.0, 0.0]]]
    rounded = replace(statistics, squares=np.array([[[3.999, 2.4999], [15.999, 39.99]]]))
    assert (rounded.standard_deviation >= 0).all()
    assert repr(statistics) == (
        "ActivationStatistics(1 layers x 2 neurons, unknown tokens: zh 4, en 10; 2 groups)"
    )
    assert "<td>zh</td><td>4</td><td>0.6250</td>" in statistics._repr_html_()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)))
def test_merging_in_any_order_gives_the_same_integers(order):
    parts = [make(seed, corpora=(f"corpus {seed}",)) for seed in range(4)]
    one = functools.reduce(ActivationStatistics.merge, [parts[place] for place in order])
    assert np.array_equal(one.grouped_counts, sum(part.grouped_counts for part in parts))
    assert np.array_equal(one.grouped_tokens, sum(part.grouped_tokens for part in parts))
    np.testing.assert_allclose(one.sums, sum(part.sums for part in parts), rtol=1e-12, atol=1e-12)
    assert one.provenance.corpora == tuple(f"corpus {seed}" for seed in range(4))


def test_merging_matches_languages_by_name_and_keeps_those_of_one_side():
    ours = make(1, ("zh", "en"))
    theirs = make(2, ("th", "zh"), corpora=("two",))
    merged = ours.merge(theirs)
    assert merged.languages == ("zh", "en", "th")
    assert np.array_equal(merged.counts[..., 0], ours.counts[..., 0] + theirs.counts[..., 1])
    assert np.array_equal(merged.counts[..., 1], ours.counts[..., 1])
    assert np.array_equal(merged.counts[..., 2], theirs.counts[..., 0])
    assert np.array_equal(merged.sums[..., 0], ours.sums[..., 0] + theirs.sums[..., 1])


def test_merging_counts_without_sums_gives_counts_without_sums():
    bare = replace(make(2, corpora=("two",)), sums=None, squares=None)
    merged = make(1).merge(bare)
    assert merged.sums is None
    with pytest.raises(LensNeuronsError, match=r"hold counts without sums .*: run collect\(\)"):
        _ = merged.mean
    with pytest.raises(LensNeuronsError, match="without s"):
        _ = merged.standard_deviation


def test_merging_refuses_other_shapes_and_corpora():
    other = make(2, groups=3, corpora=("two",))
    with pytest.raises(LensNeuronsError, match=r"\[4, 2, 5\] and \[3, 2, 5\]"):
        make(1).merge(other)
    with pytest.raises(ProvenanceError, match="counted the corpus one"):
        make(1).merge(make(2))


def test_select_reorders_by_name():
    statistics = make(3)
    chosen = statistics.select(["sw", "zh"])
    assert chosen.languages == ("sw", "zh")
    assert np.array_equal(chosen.grouped_counts, statistics.grouped_counts[..., [2, 0]])
    assert np.array_equal(chosen.tokens, statistics.tokens[[2, 0]])
    assert np.array_equal(chosen.sums, statistics.sums[..., [2, 0]])
    assert chosen.provenance == statistics.provenance


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (["zh", "xx"], r"language='xx' is not known; .*\['zh', 'en', 'sw'\]"),
        (["zh", "zh"], "a language is named twice"),
        ("zh", "language='z' is not known"),
    ],
)
def test_languages_that_are_not_there_are_refused(languages, message):
    with pytest.raises(LensNeuronsError, match=message):
        make().select(languages)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=GROUPS, max_size=GROUPS))
def test_resampling_is_a_weighted_sum_of_groups(weights):
    statistics, weights = make(4), np.array(weights, np.int64)
    if not weights.any():
        with pytest.raises(LensNeuronsError, match="no token was counted"):
            statistics.resample(weights)
        return
    drawn = statistics.resample(weights)
    assert np.array_equal(drawn.counts, np.einsum("g,g...", weights, statistics.grouped_counts))
    assert np.array_equal(drawn.tokens, np.einsum("g,g...", weights, statistics.grouped_tokens))
    assert drawn.counts.dtype == np.int64
    assert drawn.sums is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ("zh", "zh", "sw")}, "a language is named twice"),
        ({"languages": ("zh", "en")}, "2 languages do not fit: want"),
        ({"grouped_tokens": np.ones((3, 3), np.int64)}, r"tokens \(3, 3\) .*do not fit"),
        ({"sums": np.zeros((2, 5, 2))}, r"sums \(2, 5, 2\) do not fit counts \(4, 2, 5, 3\)"),
        ({"squares": np.zeros((2, 4, 3))}, "squares"),
        ({"grouped_counts": np.full((4, 2, 5, 3), -1)}, "negative: the counter overflowed"),
        ({"grouped_counts": np.full((4, 2, 5, 3), np.nan)}, "counts are float64: give whole"),
        ({"grouped_tokens": np.ones((4, 3))}, "tokens are float64: give whole numbers"),
        ({"grouped_tokens": np.zeros((4, 3), np.int64)}, r"no token was counted in \['zh', 'en'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    """Asked of the check itself: the test suite's own shape checks would refuse them earlier."""
    with pytest.raises(LensNeuronsError, match=message):
        unwrap(check_statistics)(SimpleNamespace(**vars(make()) | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[({name: "other"}, name) for name in ("scope", "tokenizer", "dtype", "hook")],
        ({"corpora": ("two",)}, "corpora"),
    ],
)
def test_comparing_allows_another_model_but_not_another_corpus(change, message):
    before = make(1)
    after = dict.fromkeys(("model", "weights", "config", "revision", "interventions"), "after")
    require_comparable(before, replace(make(2), provenance=replace(before.provenance, **after)))
    other = replace(make(2), provenance=replace(before.provenance, **change))
    with pytest.raises(ProvenanceError, match=message):
        require_comparable(before, other)


def test_comparing_needs_the_same_languages_and_groups():
    with pytest.raises(ProvenanceError, match="the two differ in languages: .* and "):
        require_comparable(make(), make().select(["zh", "en"]))
    with pytest.raises(ProvenanceError, match="the two differ in n_groups: 4 and 1"):
        require_comparable(make(), make().resample(np.ones(GROUPS, np.int64)))


def test_the_table_has_one_row_a_neuron_and_language_in_the_order_of_the_arrays():
    statistics = make(6)
    places = itertools.product(range(LAYERS), range(WIDTH), range(3))
    assert list(statistics.to_pandas().itertuples(index=False, name="Row")) == [
        (layer, j, statistics.languages[k], active, statistics.tokens[k], active / tokens)
        for layer, j, k in places
        for active, tokens in [(statistics.counts[layer, j, k], statistics.tokens[k])]
    ]
    columns = ["layer", "neuron", "language", "active", "tokens", "probability"]
    assert list(statistics.to_pandas().columns) == columns
