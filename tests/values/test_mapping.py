"""Arrays that stay in their file: the same numbers, checked as well, written without a copy."""

from __future__ import annotations

import mmap
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import StorageError
from lensneurons.values import mapping
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.filling import filling_arrays
from lensneurons.values.mapping import let_go, map_arrays

NUMBERS = ("i8", "f8", "f4", "f2", "i4", "u4", "i2", "u2", "i1", "u1", "u8", "?")
ARRAYS = {
    **{f"of {n}": (np.arange(15).reshape(3, 5) % 7).astype(n) for n in NUMBERS},
    "empty": np.zeros((0, 4)),
}
DETAILS = {"text": "中文\n\x01\x7f\ud83d", "list": [1, None, 0.1]}


def statistics() -> ActivationStatistics:
    counts = np.random.default_rng(0).integers(0, 9, (3, 4, 50, 2))
    return ActivationStatistics(("zh", "en"), counts, np.full((3, 2), 9))


def is_mapped(array) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    array = array.obj if isinstance(array, memoryview) else array
    return isinstance(array, mmap.mmap)


def test_mapped_arrays_are_those_of_the_file(tmp_path):
    path = save_arrays(tmp_path / "a", "k", ARRAYS, DETAILS)
    mapped, details = load_arrays(path, "k", memory_map=True)
    read, same = load_arrays(path, "k")
    assert details == same
    assert mapped.keys() == read.keys()
    for name, array in read.items():
        assert mapped[name].dtype == array.dtype
        assert mapped[name].shape == array.shape
        assert mapped[name].tobytes() == array.tobytes()
        assert not mapped[name].flags.writeable or not array.size
        assert is_mapped(mapped[name]) == bool(array.size)
    let_go(*mapped.values())
    assert mapped["of i8"].tobytes() == read["of i8"].tobytes()
    let_go(read["of i8"], None)  # nothing, for others
    assert read["of i8"].tobytes() == mapped["of i8"].tobytes()


def test_a_file_that_is_filled_is_the_file_that_is_saved(tmp_path):
    saved = save_arrays(tmp_path / "a", "k", ARRAYS, DETAILS)
    shapes = {name: (array.dtype, array.shape) for name, array in ARRAYS.items()}
    with filling_arrays(tmp_path / "b", "k", shapes, DETAILS) as arrays:
        for name, array in ARRAYS.items():
            assert not arrays[name].any()
            arrays[name][...] = array
            let_go(arrays[name])
        assert not (tmp_path / "b").exists()
    assert (tmp_path / "b").read_bytes() == saved.read_bytes()


def test_the_layout_is_that_of_safetensors(tmp_path):
    save_file(ARRAYS, tmp_path / "a", {"é": '"\\/\u2028\t'})
    shapes = {name: (array.dtype, array.shape) for name, array in ARRAYS.items()}
    start, places = mapping.lay_out(shapes, {"é": '"\\/\u2028\t'})
    content = (tmp_path / "a").read_bytes()
    assert content.startswith(start)
    assert max(end for _, end in places.values()) == len(content)


def test_nothing_is_left_where_filling_fails(tmp_path):
    def fill():
        with filling_arrays(tmp_path / "a", "k", {"x": (np.int64, (4,))}, {}):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fill()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no fallocate on this system")
def test_a_disk_without_room_is_told_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    begun = []

    def fill():
        with filling_arrays(tmp_path / "a", "k", {"x": (np.int64, (4,))}, {}):
            begun.append(True)

    with pytest.raises(StorageError, match="the disk is full"):
        fill()
    assert not begun
    assert not list(tmp_path.iterdir())


def test_mapped_statistics_are_the_same_and_stay_in_the_file(tmp_path):
    wanted = statistics()
    path = wanted.save(tmp_path / "s")
    found = ActivationStatistics.load(path, memory_map=True)
    assert is_mapped(found.grouped_counts)
    assert not found.grouped_counts.flags.writeable
    for name in ("grouped_counts", "counts", "tokens", "probability"):
        assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes()
    assert not is_mapped(ActivationStatistics.load(path).grouped_counts)
    statistics().save(path)  # replaced, not written over
    assert found.counts.tobytes() == wanted.counts.tobytes()
    assert found.save(tmp_path / "t").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("place", [-1, -1000, 300])
def test_a_changed_byte_is_found_without_reading_into_memory(tmp_path, place, monkeypatch):
    monkeypatch.setattr(mapping, "PIECE", 128)
    path = statistics().save(tmp_path / "s")
    assert ActivationStatistics.load(path, memory_map=True).n_groups == 3
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError):
        ActivationStatistics.load(path, memory_map=True)


def test_a_cut_or_foreign_file_is_refused(tmp_path):
    path = statistics().save(tmp_path / "s")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StorageError, match="damaged"):
        ActivationStatistics.load(path, memory_map=True)
    with pytest.raises(StorageError, match="does not exist"):
        ActivationStatistics.load(tmp_path / "none", memory_map=True)
    save_file({"x": np.zeros(3)}, tmp_path / "x")
    assert map_arrays(tmp_path / "x")["x"].tolist() == [0, 0, 0]
    with pytest.raises(StorageError, match="not written by lensneurons"):
        ActivationStatistics.load(tmp_path / "x", memory_map=True)
