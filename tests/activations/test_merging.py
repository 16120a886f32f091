"""Many statistics into one: what pairwise merging gives, bit for bit, in memory and in a file."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from lensneurons.activations.merging import merge_statistics
from lensneurons.activations.statistics import ARRAYS, ActivationStatistics
from lensneurons.errors import LensNeuronsError, ProvenanceError, StorageError
from lensneurons.values.provenance import Provenance

LANGUAGES = (("zh", "en"), ("en", "zh"), ("th", "zh", "sw"), ("sw",), ("en",))
SHAPE = (3, 2, 6)


def make(seed: int, languages: tuple[str, ...], **own) -> ActivationStatistics:
    """Statistics of one shard, as gated neurons of two experts a layer would have them."""
    source = np.random.default_rng(seed)
    tokens = source.integers(1, 90, (SHAPE[0], len(languages)))
    shape = (*SHAPE, len(languages))
    routed = source.binomial(tokens[:, None, None], 0.6, (*SHAPE[:2], 2, len(languages)))
    counts = source.binomial(routed.repeat(3, axis=2), 0.4)
    linear = source.binomial(tokens[:, None, None] - counts, 0.3)
    values = source.normal(size=shape[1:]) * 10.0 ** source.integers(-9, 9, shape[1:])
    given = {
        "sums": values,
        "squares": values**2,
        "provenance": Provenance(model="m", weights="w", corpora=(f"corpus {seed}",)),
        "n_experts": 2,
        "grouped_routed": routed,
        "grouped_linear": linear,
        "grouped_both": np.zeros(shape, np.int64),
    }
    return ActivationStatistics(languages, counts, tokens, **{**given, **own})


def same(ours: ActivationStatistics, theirs: ActivationStatistics) -> bool:
    for name in ARRAYS:
        one, other = getattr(ours, name), getattr(theirs, name)
        if (one is None) != (other is None) or (
            one is not None and one.tobytes() != other.tobytes()
        ):
            return False
    return (ours.languages, ours.provenance) == (theirs.languages, theirs.provenance)


PARTS = [make(seed, languages) for seed, languages in enumerate(LANGUAGES)]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_many_are_what_pairs_give(tmp_path, number):
    wanted = reduce(ActivationStatistics.merge, PARTS[:number])
    files = [one.save(tmp_path / f"{n}.safetensors") for n, one in enumerate(PARTS[:number])]
    assert same(merge_statistics(PARTS[:number]), wanted)
    found = merge_statistics(files, file=tmp_path / "all.safetensors")
    assert same(found, wanted)
    saved = wanted.save(tmp_path / "wanted.safetensors")
    assert (tmp_path / "all.safetensors").read_bytes() == saved.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["all.safetensors", "wanted.safetensors", *(file.name for file in files)]
    )


def test_a_tree_gives_the_same_integers(tmp_path):
    two = merge_statistics(PARTS[:2], file=tmp_path / "two"), merge_statistics(PARTS[2:])
    tree, flat = merge_statistics(two), merge_statistics(PARTS)
    for name in ("grouped_counts", "grouped_tokens", "grouped_routed", "grouped_linear"):
        assert np.array_equal(getattr(tree, name), getattr(flat, name))
    np.testing.assert_allclose(tree.sums, flat.sums, rtol=1e-12)


def test_what_one_part_lacks_the_sum_lacks(tmp_path):
    bare = replace(PARTS[1], sums=None, squares=None)
    found = merge_statistics([PARTS[0], bare], file=tmp_path / "all")
    assert found.sums is None
    assert found.squares is None
    assert same(found, PARTS[0].merge(bare))


def test_a_sum_can_replace_a_part(tmp_path):
    first = PARTS[0].save(tmp_path / "a")
    found = merge_statistics([first, PARTS[1]], file=first)
    assert same(found, PARTS[0].merge(PARTS[1]))


def test_what_does_not_belong_together_is_refused(tmp_path):
    with pytest.raises(LensNeuronsError, match="no statistics to merge"):
        merge_statistics([])
    file = tmp_path / "all"
    with pytest.raises(ProvenanceError, match="counted the corpus corpus 0"):
        merge_statistics([PARTS[0], PARTS[1], PARTS[0]], file=file)
    other = replace(PARTS[1], provenance=Provenance(model="other", corpora=("x",)))
    with pytest.raises(ProvenanceError, match="'m' and 'other'"):
        merge_statistics([PARTS[0], other], file=file)
    few = replace(PARTS[1], n_experts=3, grouped_routed=None)
    with pytest.raises(ProvenanceError, match="part 2 has n_experts=3, the first one 2"):
        merge_statistics([PARTS[0], few], file=file)
    groups = {name: getattr(PARTS[1], name)[:2] for name in ARRAYS if name.startswith("grouped")}
    with pytest.raises(LensNeuronsError, match=r"part 2 has .* \[2, 2, 6\], the first one \[3, 2"):
        merge_statistics([PARTS[0], replace(PARTS[1], **groups)], file=file)
    assert not list(tmp_path.iterdir())


def test_a_damaged_part_is_named_and_nothing_is_written(tmp_path):
    first, second = (one.save(tmp_path / str(n)) for n, one in enumerate(PARTS[:2]))
    content = bytearray(second.read_bytes())
    content[-3] ^= 1
    second.write_bytes(content)
    with pytest.raises(StorageError, match="1 is damaged: its content is not"):
        merge_statistics([first, second], file=tmp_path / "all")
    assert not (tmp_path / "all").exists()
