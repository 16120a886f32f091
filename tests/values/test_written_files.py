"""Written files: their mode, full and odd disks, leftovers, and a run folder that goes away."""

from __future__ import annotations

import errno
import os
import shutil
import time

import numpy as np
import pytest
from safetensors import SafetensorError

from lensneurons.errors import StorageError
from lensneurons.values import files as storage
from lensneurons.values.files import (
    load_arrays,
    load_json,
    load_rows,
    read_kind,
    replacing,
    save_arrays,
    save_json,
    save_rows,
)
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder

# Python 3.12 warns of any fork beside threads; ours write one file and end.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ONES = {"ones": np.ones(3)}
WRITERS = {
    "arrays": lambda path: save_arrays(path, "k", ONES, {}),
    "rows": lambda path: save_rows(path, "k", [{"a": 1}], {}),
    "json": lambda path: save_json(path, {"a": 1}),
}
READERS = {
    "arrays": lambda path: load_arrays(path, "k"),
    "rows": lambda path: load_rows(path, "k"),
    "json": load_json,
    "kind": read_kind,
}


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_gives_the_mode(umask, mode, write, tmp_path):
    before = os.umask(umask)
    try:
        assert write(tmp_path / "file").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def full(number):
    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full; free some space and do it again"),
        (errno.EDQUOT, "your quota of the disk is used up; free some space"),
        (errno.EROFS, "the disk is read-only; give a path on another one"),
        (errno.EACCES, "permission denied; ask the owner of the folder, or give another path"),
        (errno.EIO, "Input/output error"),
        (errno.ENAMETOOLONG, "File name too long"),
    ],
)
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_what_the_disk_says_is_told_and_nothing_is_left(
    call, number, told, write, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(storage.os, call, full(number))
    with pytest.raises(StorageError, match=rf"file cannot be written: {told}"):
        write(tmp_path / "file")
    monkeypatch.undo()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_disk_that_is_full_for_safetensors(tmp_path, monkeypatch):
    def fail(arrays, path, metadata):
        path.write_text("piece")
        raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(StorageError, match="file cannot be written: the disk is full"):
        WRITERS["arrays"](tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_block_stay_as_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file"):
        raise ZeroDivisionError


def test_folders_that_cannot_be_flushed_do_no_harm(write, tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(storage.os, "fsync", fsync)
    assert write(tmp_path / "file").is_file()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("folder", "it is a folder; give the name of a file"),
        ("file/below", "File exists"),
        ("n" * 300, "File name too long"),
    ],
)
def test_a_place_that_holds_no_file_is_told(place, told, write, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    with pytest.raises(StorageError, match=f"cannot be written: {told}"):
        write(tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_a_file_that_may_not_be_read_is_not_called_missing(read, tmp_path, monkeypatch):
    path = save_json(tmp_path / "file", {"a": 1})

    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StorageError, match="file cannot be read: permission denied; ask its owner"):
        read(path)


# Leftovers


def leave(folder, name):
    """A process that ends in the middle of writing a file."""
    child = os.fork()
    if child == 0:
        try:
            with replacing(folder / name) as path:
                path.write_text("piece")
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


NOT_OURS = (".notes.tmp", ".file.tmp", ".file.0123456789abcdef.tmp", "file.tmp", ".tmp")


def test_the_next_save_removes_what_a_killed_one_left(write, tmp_path):
    for name in NOT_OURS:
        (tmp_path / name).write_text("mine")
    leave(tmp_path, "file")
    leave(tmp_path, "other")
    assert len(list(tmp_path.iterdir())) == len(NOT_OURS) + 2
    with replacing(tmp_path / "file") as running:
        running.write_text("running")
        write(tmp_path / "file")
        assert running.read_text() == "running"  # of a process that lives
    left = {path.name for path in tmp_path.iterdir()} - {*NOT_OURS, "file"}
    assert [name[:7] for name in left] == [".other."]
    assert all((tmp_path / name).read_text() == "mine" for name in NOT_OURS)


def test_what_another_machine_left_stays_for_a_day(tmp_path):
    old, young = (tmp_path / f".file.{'ab' * 15}{n}.tmp" for n in ("00", "01"))
    for path in (old, young):
        path.write_text("piece")
    os.utime(old, (time.time() - 90_000,) * 2)
    save_json(tmp_path / "file", {})
    assert not old.exists()
    assert young.exists()


def test_a_run_folder_removes_its_own_leftovers_alone(tmp_path):
    with open_folder(tmp_path, Provenance(), {}) as run:
        for folder in ("", "languages", "own"):
            (run / folder).mkdir(exist_ok=True)
            leave(run / folder, "statistics.safetensors")
            (run / folder / ".notes.tmp").write_text("mine")
        (run / "languages" / ".tmpaB3xYz").write_text("of safetensors, killed")
    shutil.copytree(tmp_path / "languages", tmp_path / "cells")
    save_json(tmp_path / "cells" / "run.json", {})  # a run of its own, under way perhaps
    with open_folder(tmp_path, Provenance(), {}):
        left = sorted(str(path.relative_to(tmp_path))[:25] for path in tmp_path.rglob(".*.tmp"))
        assert left == sorted(
            [".notes.tmp", "languages/.notes.tmp", "own/.notes.tmp", "cells/.notes.tmp"]
            + ["cells/.statistics.safetensors"[:25], "own/.statistics.safetensors"[:25]]
        )
        assert not (tmp_path / "languages" / ".tmpaB3xYz").exists()


# A run folder that goes away


def remove(folder):
    shutil.rmtree(folder)


def rename(folder):
    folder.rename(folder.with_name("elsewhere"))


def swap(folder):
    rename(folder)
    shutil.copytree(folder.with_name("elsewhere"), folder)


@pytest.mark.parametrize("change", [remove, rename, swap])
@pytest.mark.parametrize("saves", [True, False])
def test_a_folder_that_goes_away_ends_the_job(change, saves, tmp_path):
    folder = tmp_path / "run"

    def job():
        with open_folder(folder, Provenance(), {}) as run:
            change(folder)
            if saves:
                save_arrays(run / "part", "k", ONES, run.part(language="zh"))

    with pytest.raises(StorageError, match="run was removed or renamed while the job ran"):
        job()
    assert not (folder / "part").exists()


def test_a_run_folder_without_permission_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.touch", full(errno.EACCES))
    with (
        pytest.raises(StorageError, match="cannot be used: Permission denied; give a folder"),
        open_folder(tmp_path / "run", Provenance(), {}),
    ):
        pass
