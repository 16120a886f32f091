"""Files are whole or not there, equal for equal values, and say what is wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from lensneurons.errors import StorageError
from lensneurons.values.files import (
    FORMAT_VERSION,
    arrays_checksum,
    load_arrays,
    load_json,
    replacing,
    save_arrays,
    save_json,
)

TABLE = np.arange(12).reshape(3, 4)
ARRAYS = {
    "counts": np.arange(24, dtype=np.int64).reshape(2, 3, 4),
    "sums": np.linspace(-1, 1, 7),
    "mask": np.array([[True, False]]),
    # safetensors writes the memory as it lies: these would come back scrambled.
    **{"turned": TABLE.T, "every second": TABLE[:, ::2], "backwards": TABLE[::-1]},
}
DETAILS = {"languages": ["zh", "sw"], "name": "ภาษาไทย", "nested": {"b": 1, "a": [1.5, None]}}


@pytest.fixture
def saved(tmp_path):
    return save_arrays(tmp_path / "value.safetensors", "test value", ARRAYS, DETAILS)


def test_what_is_saved_comes_back(saved):
    arrays, details = load_arrays(saved, "test value")
    assert details == DETAILS
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array), name


def test_the_same_value_gives_the_same_bytes(saved, tmp_path):
    turned = {name: DETAILS[name] for name in reversed(DETAILS)}
    arrays = {name: ARRAYS[name] for name in reversed(ARRAYS)}
    again = save_arrays(tmp_path / "again", "test value", arrays, turned)
    assert again.read_bytes() == saved.read_bytes()


def test_the_header_can_be_read_without_this_package(saved):
    with safe_open(saved, framework="np") as file:
        header = json.loads(file.metadata()["lensneurons"])
    told = {"kind": "test value", "version": FORMAT_VERSION, "details": DETAILS}
    assert header == {**told, "checksum": arrays_checksum("test value", ARRAYS, DETAILS)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "none does not exist"),
        ("", None, "is a folder"),
        ("noise", b"\x89PNG not this", "noise is damaged or no safetensors file"),
        ("empty", b"", "empty is damaged"),
    ],
)
def test_a_missing_file_a_folder_and_noise_are_told_apart(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StorageError, match=message):
        load_arrays(tmp_path / name, "test value")


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_damaged(kept, saved):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(StorageError, match="is damaged"):
        load_arrays(saved, "test value")


def test_another_kind_is_refused(saved):
    with pytest.raises(StorageError, match="holds test value, but activation statistics is wanted"):
        load_arrays(saved, "activation statistics")


def test_a_newer_version_asks_for_an_upgrade(saved, monkeypatch):
    monkeypatch.setattr("lensneurons.values.files.FORMAT_VERSION", 1)
    with pytest.raises(StorageError, match="format version 2; this lensneurons reads up to 1: upg"):
        load_arrays(saved, "test value")


FOREIGN = [{"lensneurons": header} for header in ("no json", "[]", "{}", '{"kind": 1}')]


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, *FOREIGN])
def test_a_safetensors_file_of_somebody_else_is_refused(metadata, tmp_path):
    save_file({"w": np.zeros(3)}, tmp_path / "model", metadata=metadata)
    ours = "has a header that lensneurons never wrote"
    message = ours if metadata in FOREIGN else "was not written by lensneurons: its header has no"
    with pytest.raises(StorageError, match=message):
        load_arrays(tmp_path / "model", "test value")


def write_a_piece(path):
    with replacing(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt


def write_nothing(path):
    with replacing(path):
        pass


@pytest.mark.parametrize(
    ("write", "error"), [(write_a_piece, KeyboardInterrupt), (write_nothing, FileNotFoundError)]
)
def test_a_crash_leaves_the_old_file_alone(write, error, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error):
        write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_appears_at_once_and_alone(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent, "a rename across file systems is no rename"
        assert temporary.name.startswith(".")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_save_keeps_the_old_value(saved):
    with pytest.raises(TypeError):
        save_arrays(saved, "test value", ARRAYS, {"not json": object()})
    assert load_arrays(saved, "test value")[1] == DETAILS


def test_json_comes_back_and_is_sorted_and_readable(tmp_path):
    path = save_json(tmp_path / "run.json", {"b": 1, "a": {"name": "日本語"}})
    assert load_json(path) == {"b": 1, "a": {"name": "日本語"}}
    text = path.read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')
    assert "日本語" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b'{"a": ', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1, 2]", "holds a JSON list, not an object"),
    ],
)
def test_bad_json_is_named(content, message, tmp_path):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(StorageError, match=message):
        load_json(tmp_path / "run.json")
