"""A run that is killed at any moment goes on, and ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from unittest import mock

import pytest
import safetensors.numpy
import tiny
import torch

from lensneurons.activations import collection as runs
from lensneurons.activations.collection import LanguageTotals, RunFolder, collect
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError, ProvenanceError, StorageError
from lensneurons.models.loading import load_model
from lensneurons.values import files as storage
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder

# Python 3.12 warns of any fork beside threads; ours run nothing but the collection and die.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

CORPUS = tiny.tiny_corpus()
OPTIONS = {"checkpoint_seconds": 0.0, "batch_tokens": 200, "groups": 3, "progress": False}
RESULT = "statistics.safetensors"
KILLED = -signal.SIGKILL
WRITE = safetensors.numpy.save_file


@pytest.fixture(scope="module")
def run(llama):
    """``run(folder)``: the collection of these tests, begun or gone on with."""
    return lambda folder, corpus=CORPUS, **options: collect(
        llama, corpus, run_dir=folder, **OPTIONS | options
    )


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    """The folder of a run that nobody interrupted, and how often it renamed a file into place."""
    folder = tmp_path_factory.mktemp("whole")
    with mock.patch.object(storage.os, "replace", wraps=os.replace) as renames:
        run(folder)
    return folder, renames.call_count


@pytest.fixture(scope="module")
def finished(uninterrupted):
    return uninterrupted[0]


@pytest.fixture(scope="module")
def whole(finished):
    return (finished / RESULT).read_bytes()


def in_child(action):
    """Run `action` in a forked process; its exit status, -9 where it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def life(run, folder, owner, name, number, instead=die):
    """Status of a run in a child, where the n-th call of `owner.name` is `instead`."""

    def action():
        original = getattr(owner, name)
        calls = chain(repeat(original, number - 1), [instead], repeat(original))
        setattr(owner, name, lambda *args, **kwargs: next(calls)(*args, **kwargs))
        run(folder)

    return in_child(action)


@pytest.mark.parametrize("place", [1, 2, 5, -2, -1, 0])
def test_killed_between_write_and_rename(place, uninterrupted, run, whole, tmp_path):
    _, renames = uninterrupted
    assert renames > 12
    number, folder = place if place > 0 else renames + place, tmp_path / "run"
    assert life(run, folder, storage.os, "replace", number) == KILLED
    assert not (folder / RESULT).exists()
    assert list(folder.rglob(".*.tmp"))
    run(folder)
    assert (folder / RESULT).read_bytes() == whole
    assert not list(folder.rglob(".*.tmp"))


@pytest.mark.parametrize("number", [1, 7])
def test_killed_in_the_middle_of_a_write(number, run, whole, tmp_path):
    def half(arrays, path, metadata=None):
        WRITE(arrays, path, metadata=metadata)
        os.truncate(path, path.stat().st_size // 2)
        die()

    assert life(run, tmp_path, safetensors.numpy, "save_file", number, half) == KILLED
    run(tmp_path)
    assert (tmp_path / RESULT).read_bytes() == whole


def test_killed_again_and_again(run, whole, tmp_path):
    """Each life sees three saves and dies in the fourth: every batch is done once, in order."""
    lives = 0
    while (status := life(run, tmp_path, storage.os, "replace", 4)) == KILLED:
        lives += 1
        assert lives < 30
    assert status == 0
    assert lives >= 3
    assert (tmp_path / RESULT).read_bytes() == whole


def test_killed_after_the_result_was_written(run, whole, tmp_path):
    assert life(run, tmp_path, shutil, "rmtree", 1) == KILLED
    assert (tmp_path / RESULT).read_bytes() == whole
    assert run(tmp_path).save(tmp_path / "again").read_bytes() == whole


SCRIPT = """
import os, sys
os.environ["OMP_NUM_THREADS"] = "1"
sys.path[:0] = [{root!r}, {support!r}]
import tiny
from lensneurons.activations.collection import collect
from lensneurons.models.loading import load_model
collect(load_model({model!r}, device="cpu"), tiny.tiny_corpus(), run_dir={run!r}, **{options!r})
"""


def test_killed_at_random_moments_from_outside(model_folder, llama, whole, tmp_path):
    """Children that write slowly; a process that is started anew does the rest."""
    save = runs.save_arrays
    for _ in range(3):
        before = written(tmp_path)
        child = os.fork()
        if child == 0:
            runs.save_arrays = lambda *a: (time.sleep(0.1), save(*a), time.sleep(0.1))[1]
            try:
                collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
            finally:
                os._exit(1)
        deadline = time.monotonic() + 60
        while written(tmp_path) == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
    assert not (tmp_path / RESULT).exists()
    root = Path(__file__).parents[2]
    support = root / "tests" / "support"
    values = {"root": str(root), "support": str(support), "run": str(tmp_path)}
    values |= {"model": str(model_folder("Llama")), "options": OPTIONS}
    anew = subprocess.run([sys.executable, "-c", SCRIPT.format(**values)], check=False)
    assert anew.returncode == 0
    assert (tmp_path / RESULT).read_bytes() == whole


def written(folder):
    """When each file below a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_neither_the_folder_nor_its_checkpoints_change_the_result(run, whole, tmp_path):
    assert run(None).save(tmp_path / "saved.safetensors").read_bytes() == whole
    run(tmp_path / "rare", checkpoint_seconds=1e9)
    assert (tmp_path / "rare" / RESULT).read_bytes() == whole
    assert not (tmp_path / "rare" / "languages").exists()


def test_killed_between_the_result_and_the_end(run, whole, tmp_path):
    run(tmp_path)
    (tmp_path / "languages").mkdir()
    (tmp_path / "languages" / "zh.safetensors").write_bytes(b"done")
    run(tmp_path)
    assert (tmp_path / RESULT).read_bytes() == whole
    assert not (tmp_path / "languages").exists()


def test_checkpoints_wait_for_their_time(tmp_path):
    with open_folder(tmp_path, Provenance(), {}) as folder:
        run = RunFolder(folder, 3600.0)
        totals = LanguageTotals.zeros("zh", 1, 2, 3)
        run.save(totals, now=False)
        assert run.load("zh") is None
        run.save(totals)
        assert run.load("zh").batches_done == 0


# A finished run


def test_a_finished_run_is_only_read(run, finished, whole, tmp_path, monkeypatch):
    stamp = (finished / RESULT).stat().st_mtime_ns

    def ran(*args, **kwargs):
        raise AssertionError("a forward pass ran")

    monkeypatch.setattr(torch.nn.Embedding, "forward", ran)
    assert run(finished).save(tmp_path / "again").read_bytes() == whole
    assert (finished / RESULT).stat().st_mtime_ns == stamp


def test_a_folder_may_be_renamed_and_the_model_moved(finished, model_folder, tmp_path):
    """What counts is the weights, not the path they were read from."""
    moved = shutil.copytree(model_folder("Llama"), tmp_path / "elsewhere")
    folder = shutil.copytree(finished, tmp_path / "renamed")
    collect(load_model(moved, device="cpu"), CORPUS, run_dir=folder, **OPTIONS)


def test_changed_weights_are_refused(model_folder, finished):
    model = load_model(model_folder("Llama"), device="cpu")
    with torch.no_grad():
        model.blocks[1].mlp.gate.original_component.weight[3, 4] += 1e-6
    with pytest.raises(ProvenanceError, match=r"something else: .*\(weights: '[0-9a-f]+' and"):
        collect(model, CORPUS, run_dir=finished, **OPTIONS)


ITEMS = CORPUS.items
CORRECTED = (*ITEMS[:3], replace(ITEMS[3], response=ITEMS[3].response + "!"), *ITEMS[4:])
CORPORA = (CORPUS.select(ids=CORPUS.ids[:5]), ParallelCorpus("tiny", CORRECTED))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        *(({"corpus": c}, r"was begun with something else: .*corpora: ") for c in CORPORA),
        ({"groups": 4}, r"another plan \(groups: 3, now 4\): give the same options or a new run"),
        ({"batch_tokens": 64}, "batch_tokens: 200, now 64"),
        ({"padding_side": "left"}, "padding_side: 'right', now 'left'"),
        ({"max_length": 150}, "max_length: 192, now 150"),
        ({"scope": "all"}, "scope: 'response' and 'all'"),
    ],
)
def test_another_corpus_or_plan_is_refused(option, message, run, finished):
    with pytest.raises(ProvenanceError, match=message):
        run(finished, **option)


def test_hooks_on_the_model_are_refused_because_they_cannot_be_recognised(finished, bridge):
    """Gemma 2 runs eager with and without hooks: nothing else would tell an ablation apart."""
    model = bridge("Gemma2")
    hook = ("blocks.0.mlp.hook_post", lambda tensor, hook: tensor * 0)
    with (
        model.hooks(fwd_hooks=[hook]),
        pytest.raises(LensNeuronsError, match=r"hooks on the model, .*without run_dir and save"),
    ):
        collect(model, CORPUS, run_dir=finished / "new", **OPTIONS)
    assert not (finished / "new").exists()


# Folders


def test_a_second_process_in_the_folder_is_refused_until_the_first_is_dead(llama, tmp_path):
    reader, writer = os.pipe()
    first = os.fork()
    if first == 0:
        with open_folder(tmp_path, Provenance(), {}):
            os.write(writer, b".")
            time.sleep(60)
        os._exit(0)
    assert os.read(reader, 1) == b"."
    with pytest.raises(StorageError, match="another process works in run_dir=.*: wait for it"):
        collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    with open_folder(tmp_path, Provenance(), {}) as folder:
        run = RunFolder(folder, 30.0)
        assert run.finished is None


@pytest.mark.parametrize(
    ("left", "text", "message"),
    [
        (["thesis.tex"], "years of work", r"holds other files \(thesis\.tex\): give a new folder"),
        (
            [".lock", "run.json"],
            '{"trainer": "mine"}',
            r"run\.json is of no job of lensneurons: g",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused(left, text, message, run, tmp_path):
    file = tmp_path / left[-1]
    file.write_text(text)
    with pytest.raises(StorageError, match=message):
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    assert file.read_text() == text
    with pytest.raises(StorageError, match="is a file: give a folder"):
        run(file)


def test_a_damaged_language_file_is_named_with_the_remedy(run, whole, tmp_path):
    assert life(run, tmp_path, storage.os, "replace", 6) == KILLED
    file = tmp_path / "languages" / "en.safetensors"
    os.truncate(file, file.stat().st_size - 7)
    with pytest.raises(StorageError, match=r"en\.safetensors is damaged .*; delete it to count en"):
        run(tmp_path)
    file.unlink()
    run(tmp_path)
    assert (tmp_path / RESULT).read_bytes() == whole


def test_a_run_tells_what_was_asked(finished):
    told = json.loads((finished / "run.json").read_text())
    assert told["plan"]["languages"] == ["en", "zh", "th"]
    assert told["provenance"]["scope"] == "response"
    assert told["provenance"]["interventions"] == "none"
