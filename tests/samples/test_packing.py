"""Packed counts: any come back to the bit; the form is the documented one; damage is refused."""

from __future__ import annotations

import lzma
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.samples.packing import PackedStatistics
from lensneurons.values.provenance import Provenance

ORIGIN = Provenance(model="hand", weights="w", corpora=("c",), versions={"torch": "2"})


def counted(
    groups: int = 4, layers: int = 3, width: int = 20, languages: int = 5, *,
    most: int = 900, shared: float = 1.0, seed: int = 0,
) -> ActivationStatistics:  # fmt: skip
    """Counts of groups whose texts move all languages alike, by `shared` standard deviations."""
    random = np.random.default_rng(seed)
    tokens = random.integers(1, most, (groups, languages))
    p = random.beta(0.4, 2.0, (layers, width, 1)) * random.beta(3, 1, (layers, width, languages))
    moved = shared * 0.3 * random.standard_normal((groups, layers, width, 1))
    logit = np.log(p / (1 - p) + 1e-12) + moved
    counts = random.binomial(tokens[:, None, None], 1 / (1 + np.exp(-logit)))
    codes = tuple(f"l{k}" for k in range(languages))
    return ActivationStatistics(codes, counts, tokens, provenance=ORIGIN)


def require_same(ours: ActivationStatistics, theirs: ActivationStatistics) -> None:
    for name in ("grouped_counts", "grouped_tokens"):
        first, second = getattr(ours, name), getattr(theirs, name)
        assert (first.dtype, first.tolist()) == (second.dtype, second.tolist())
    assert (ours.languages, ours.provenance) == (theirs.languages, theirs.provenance)


@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(1, 5),
    languages=st.integers(1, 4),
    most=st.sampled_from([2, 200, 3_000, 80_000, 5_000_000]),
    shared=st.sampled_from([0.0, 1.0, 9.0]),
)
@settings(max_examples=25, deadline=None)
def test_any_counts_come_back(seed, groups, languages, most, shared):
    given_ = counted(groups, 2, 7, languages, most=most, shared=shared, seed=seed)
    require_same(given_, PackedStatistics.pack(given_).unpack())


def test_groups_without_a_language_and_silent_neurons_come_back():
    statistics = counted()
    counts, tokens = statistics.grouped_counts.copy(), statistics.grouped_tokens.copy()
    counts[1:, :, :, 2] = tokens[1:, 2] = 0  # one language in the first group alone
    counts[:, 1, 3:9] = 0
    counts[:, 0, :4] = tokens[:, None]
    statistics = replace(statistics, grouped_counts=counts, grouped_tokens=tokens)
    require_same(statistics, PackedStatistics.pack(statistics).unpack())


def test_it_comes_back_from_its_file_without_sums(tmp_path):
    statistics = counted()
    full = replace(statistics, sums=statistics.counts / 3, squares=statistics.counts / 7)
    packed = PackedStatistics.pack(full)
    again = PackedStatistics.load(packed.save(tmp_path / "packed"))
    require_same(statistics, again.unpack())
    with pytest.raises(LensNeuronsError, match="run collect"):
        _ = again.unpack().mean
    assert repr(again) == repr(packed)
    assert again.save(tmp_path / "again").read_bytes() == (tmp_path / "packed").read_bytes()


def read_by_hand(packed: PackedStatistics) -> list:
    """The counts [group][place], number by number, as the docstring of the module has it."""
    groups, n = packed.tokens.shape
    layers, width = packed.shape

    def numbers(array):
        planes, many = lzma.decompress(bytes(array)), layers * width * n
        many *= groups - 1 if array is packed.remainders else 1
        return [
            sum(planes[many * plane + i] << 8 * plane for plane in range(len(planes) // many))
            for i in range(many)
        ]

    totals, tokens = numbers(packed.totals), packed.tokens.tolist()
    everything = [sum(tokens[g][k] for g in range(groups)) for k in range(n)]
    spread = [t * (everything[i % n] - t) / everything[i % n] for i, t in enumerate(totals)]
    order = sorted(range(len(totals)), key=spread.__getitem__)
    written, counts = numbers(packed.remainders), [[0] * len(totals) for _ in range(groups)]
    for group in range(groups):
        for place in range(0, len(totals), n):
            before = 0
            for k in range(n):
                i = place + k
                left = totals[i] - sum(counts[g][i] for g in range(group))
                if group == groups - 1:
                    counts[group][i] = left
                    continue
                rest = sum(tokens[g][k] for g in range(group, groups))
                code = written[group * len(totals) + order.index(i)]
                remainder = -(code + 1) // 2 if code % 2 else code // 2
                departure = remainder + int(packed.weights[k] * before + 512) // 1024
                counts[group][i] = departure + (2 * left * tokens[group][k] + rest) // (2 * rest)
                before += departure
    return counts


def test_the_form_is_the_documented_one():
    statistics = counted(3, 2, 4, 3, most=40)
    flat = statistics.grouped_counts.reshape(3, -1).tolist()
    assert read_by_hand(PackedStatistics.pack(statistics)) == flat


def test_texts_that_move_languages_alike_pack_better():
    """Where texts of a group move all languages, what was seen in one predicts the next."""
    for shared, least, most in ((0.0, -60, 60), (3.0, 150, 1024)):
        packed = PackedStatistics.pack(counted(10, 2, 300, 3, shared=shared))
        assert packed.weights[0] == 0
        assert least <= packed.weights[1] <= most
    raw = counted(10, 4, 200, 10, shared=1.0)
    packed = PackedStatistics.pack(raw)
    bytes_ = packed.totals.nbytes + packed.remainders.nbytes
    assert bytes_ < raw.grouped_counts.nbytes / 6
    assert bytes_ < len(lzma.compress(raw.grouped_counts.astype(np.int16).tobytes()))


@pytest.mark.parametrize("name", ["totals", "remainders"])
def test_damaged_bytes_are_refused(name):
    packed = PackedStatistics.pack(counted())
    array = getattr(packed, name)
    for place in (0, len(array) // 2, len(array) - 1):
        changed = array.copy()
        changed[place] ^= 1
        with pytest.raises(StorageError, match="are damaged"):
            replace(packed, **{name: changed}).unpack()
    with pytest.raises(StorageError, match="damaged"):
        replace(packed, **{name: array[:-9]}).unpack()
    other = getattr(PackedStatistics.pack(counted(width=10)), name)
    with pytest.raises(StorageError, match="damaged|do not unpack"):
        replace(packed, **{name: other}).unpack()


def test_whole_bytes_of_other_counts_are_refused():
    """The checksum of the counts, not that of the bytes, has the last word."""
    packed, other = (PackedStatistics.pack(counted(seed=seed)) for seed in (0, 1))
    for change in (
        {"weights": packed.weights + 1},
        {"tokens": packed.tokens + 1},
        {"languages": packed.languages[::-1]},
        {"provenance": Provenance()},
        {"checksum": other.checksum},
    ):
        with pytest.raises(StorageError, match="do not unpack to those that were packed"):
            replace(packed, **change).unpack()
