"""Statistics: known answers, laws of addition, and what their door lets in."""

from __future__ import annotations

import itertools
from dataclasses import replace
from inspect import unwrap
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensneurons.activations.statistics import ActivationStatistics, _check, require_comparable
from lensneurons.errors import LensNeuronsError, ProvenanceError, StorageError
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


def assert_same(one, two):
    assert one.languages == two.languages
    assert np.array_equal(one.grouped_counts, two.grouped_counts)
    assert np.array_equal(one.grouped_tokens, two.grouped_tokens)
    np.testing.assert_allclose(one.sums, two.sums, rtol=1e-12)
    np.testing.assert_allclose(one.squares, two.squares, rtol=1e-12)


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


def test_rounding_never_makes_a_negative_variance():
    statistics = replace(known(), squares=np.array([[[3.999, 2.4999], [15.999, 39.99]]]))
    assert (statistics.standard_deviation >= 0).all()


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_probabilities_are_shares(seed):
    statistics = make(seed)
    assert statistics.probability.min() >= 0
    assert statistics.probability.max() <= 1
    assert statistics.probability.shape == (LAYERS, WIDTH, 3)
    weighted = statistics.probability * statistics.tokens
    np.testing.assert_allclose(weighted, statistics.counts, rtol=1e-12)


@settings(max_examples=20)
@given(st.permutations(range(4)))
def test_merging_in_any_order_gives_the_same_integers(order):
    parts = [make(seed, corpora=(f"corpus {seed}",)) for seed in range(4)]
    merged = [parts[place] for place in order]
    one, *others = merged
    for other in others:
        one = one.merge(other)
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


def test_merging_changes_neither_side():
    ours, theirs = make(1), make(2, corpora=("two",))
    before = ours.grouped_counts.copy()
    ours.merge(theirs)
    assert np.array_equal(ours.grouped_counts, before)


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
    assert_same(chosen.select(["zh", "sw"]), statistics.select(["zh", "sw"]))


def test_select_lists_what_there_is():
    with pytest.raises(
        LensNeuronsError, match=r"language='xx' is not known; .*\['zh', 'en', 'sw'\]"
    ):
        make().select(["zh", "xx"])
    with pytest.raises(LensNeuronsError, match="named twice"):
        make().select(["zh", "zh"])


def test_a_language_selection_of_one_text_is_not_read_letter_by_letter():
    with pytest.raises(LensNeuronsError, match="language='z' is not known"):
        make().select("zh")


@settings(max_examples=20)
@given(st.lists(st.integers(0, 5), min_size=GROUPS, max_size=GROUPS).filter(any))
def test_resampling_is_a_weighted_sum_of_groups(weights):
    statistics = make(4)
    drawn = statistics.resample(np.array(weights, dtype=np.int64))
    pairs = zip(weights, statistics.grouped_counts, strict=True)
    assert np.array_equal(drawn.counts, sum(weight * group for weight, group in pairs))
    pairs = zip(weights, statistics.grouped_tokens, strict=True)
    assert np.array_equal(drawn.tokens, sum(weight * group for weight, group in pairs))
    assert drawn.counts.dtype == np.int64
    assert drawn.sums is None


def test_resampling_to_nothing_is_refused():
    with pytest.raises(LensNeuronsError, match="no token was counted"):
        make().resample(np.zeros(GROUPS, np.int64))


def test_nothing_can_be_written_into_statistics():
    statistics = make()
    for name in ("grouped_counts", "grouped_tokens", "sums", "squares"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(statistics, name)[:] = 0
    with pytest.raises(ValueError, match="read-only"):
        make(groups=1).counts[:] = 0
    with pytest.raises(AttributeError):
        statistics.languages = ("en",)


def test_the_callers_arrays_stay_writable():
    counts, tokens = np.ones((1, 1, 2, 1), np.int64), np.full((1, 1), 3)
    ActivationStatistics(("zh",), counts, tokens)
    counts[0] = 2
    tokens[0] = 4


@pytest.mark.parametrize("sums", [True, False])
def test_saving_and_loading_is_bitwise(sums, tmp_path):
    statistics = make(5) if sums else replace(make(5), sums=None, squares=None)
    path = statistics.save(tmp_path / "statistics.safetensors")
    loaded = ActivationStatistics.load(path)
    assert loaded.languages == statistics.languages
    assert loaded.provenance == statistics.provenance
    for name in ("grouped_counts", "grouped_tokens", "sums", "squares"):
        ours, theirs = getattr(statistics, name), getattr(loaded, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.dtype == theirs.dtype and np.array_equal(ours, theirs))
    assert loaded.save(tmp_path / "again").read_bytes() == path.read_bytes()
    assert np.array_equal(ActivationStatistics.load(tmp_path).counts, statistics.counts)


def test_loading_nothing_says_so(tmp_path):
    with pytest.raises(StorageError, match=r"statistics\.safetensors does not exist"):
        ActivationStatistics.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ("zh", "zh", "sw")}, "a language is named twice"),
        ({"languages": ("zh", "en")}, "2 languages do not fit: want"),
        ({"grouped_tokens": np.ones((3, 3), np.int64)}, r"tokens \(3, 3\) .*do not fit"),
        ({"sums": np.zeros((2, 5, 2))}, r"sums \(2, 5, 2\) do not fit counts \(4, 2, 5, 3\)"),
        ({"squares": np.zeros((2, 4, 3))}, "squares"),
        ({"grouped_counts": np.full((4, 2, 5, 3), -1)}, "negative: the counter overflowed"),
        ({"grouped_tokens": np.zeros((4, 3), np.int64)}, r"no token was counted in \['zh', 'en'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    """Asked of the check itself: the test suite's own shape checks would refuse them earlier."""
    with pytest.raises(LensNeuronsError, match=message):
        unwrap(_check)(SimpleNamespace(**vars(make()) | change))


def test_the_check_is_made():
    with pytest.raises(LensNeuronsError, match="a language is named twice"):
        replace(make(), languages=("zh", "zh", "sw"))


def test_comparing_allows_another_model_but_not_another_corpus():
    before = make(1)
    change = {"model": "after", "weights": "v", "config": "c", "revision": "r"}
    change |= {"interventions": "hooks"}
    require_comparable(before, replace(make(2), provenance=replace(before.provenance, **change)))
    for name in ("scope", "tokenizer", "dtype", "hook"):
        other = replace(make(2), provenance=replace(before.provenance, **{name: "other"}))
        with pytest.raises(ProvenanceError, match=name):
            require_comparable(before, other)
    with pytest.raises(ProvenanceError, match="corpora"):
        require_comparable(before, make(2, corpora=("two",)))
    with pytest.raises(ProvenanceError, match="the two differ in languages: .* and "):
        require_comparable(before, before.select(["zh", "en"]))
    with pytest.raises(ProvenanceError, match="the two differ in n_groups: 4 and 1"):
        require_comparable(before, before.resample(np.ones(GROUPS, np.int64)))


def test_the_table_has_one_row_a_neuron_and_language():
    table = known().to_pandas()
    assert list(table.columns) == ["layer", "neuron", "language", "active", "tokens", "probability"]
    rows = table.to_numpy().tolist()
    assert rows == [
        [0, 0, "zh", 3, 4, 0.75],
        [0, 0, "en", 0, 10, 0.0],
        [0, 1, "zh", 2, 4, 0.5],
        [0, 1, "en", 8, 10, 0.8],
    ]


def test_the_table_of_several_layers_is_in_the_order_of_the_arrays():
    statistics = make(6)
    table = statistics.to_pandas().set_index(["layer", "neuron", "language"])
    for layer, neuron, k in itertools.product(range(LAYERS), range(WIDTH), range(3)):
        row = table.loc[(layer, neuron, statistics.languages[k])]
        assert row.active == statistics.counts[layer, neuron, k]
        assert row.tokens == statistics.tokens[k]


def test_they_show_themselves():
    assert repr(known()) == (
        "ActivationStatistics(1 layers x 2 neurons, unknown tokens: zh 4, en 10; 2 groups)"
    )
    html = known()._repr_html_()
    assert "<td>zh</td><td>4</td><td>0.6250</td>" in html
    assert "<script" not in html
