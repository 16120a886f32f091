"""A run that is killed at any moment goes on, and ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tiny
import torch

from lensneurons.activations import collection as runs
from lensneurons.activations.collection import LanguageTotals, RunFolder, collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import build_corpus
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


@pytest.fixture(scope="module")
def llama(bridge):
    return bridge("Llama")


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    """The bytes of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    collect(llama, CORPUS, run_dir=folder, **OPTIONS)
    return (folder / RESULT).read_bytes()


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


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(owner, name, number, before=die):
    """Make `before` happen ahead of the n-th call of `owner.name`; for good, so only in a child."""
    calls, original = iter(range(1, 10**6)), getattr(owner, name)

    def called(*args, **kwargs):
        if next(calls) == number:
            before()
        return original(*args, **kwargs)

    setattr(owner, name, called)


def count_calls(action, owner, name):
    """How often `action` calls `owner.name`, counted in a child through a pipe."""
    reader, writer = os.pipe()

    def counted():
        original = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: (os.write(writer, b"."), original(*a, **k))[1])
        action()

    assert in_child(counted) == 0
    os.close(writer)
    with os.fdopen(reader, "rb") as calls:
        return len(calls.read())


@pytest.fixture(scope="module")
def n_saves(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("counted") / "run"
    return count_calls(
        lambda: collect(llama, CORPUS, run_dir=folder, **OPTIONS), storage.os, "replace"
    )


@pytest.mark.parametrize("place", [1, 2, 5, -2, -1, 0])
def test_killed_between_write_and_rename(place, n_saves, llama, whole, tmp_path):
    number = place if place > 0 else n_saves + place

    def killed():
        on_call(storage.os, "replace", number)
        collect(llama, CORPUS, run_dir=tmp_path / "run", **OPTIONS)

    assert n_saves > 12
    assert in_child(killed) == KILLED
    assert not (tmp_path / "run" / RESULT).exists()
    assert list((tmp_path / "run").rglob(".*.tmp"))
    collect(llama, CORPUS, run_dir=tmp_path / "run", **OPTIONS)
    assert (tmp_path / "run" / RESULT).read_bytes() == whole
    assert not list((tmp_path / "run").rglob(".*.tmp"))


@pytest.mark.parametrize("number", [1, 7])
def test_killed_in_the_middle_of_a_write(number, llama, whole, tmp_path):
    write = safetensors.numpy.save_file

    def half(arrays, path, metadata=None):
        write(arrays, path, metadata=metadata)
        os.truncate(path, path.stat().st_size // 2)
        die()

    def killed():
        calls = iter(range(1, 10**6))
        safetensors.numpy.save_file = lambda *a, **k: (half if next(calls) == number else write)(
            *a, **k
        )
        collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)

    assert in_child(killed) == KILLED
    collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
    assert (tmp_path / RESULT).read_bytes() == whole


def test_killed_again_and_again(llama, whole, tmp_path):
    """Each life sees three saves and dies in the fourth: every batch is done once, in order."""

    def short_life():
        on_call(storage.os, "replace", 4)
        collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)

    lives = 0
    while (status := in_child(short_life)) == KILLED:
        lives += 1
        assert lives < 30
    assert status == 0
    assert lives >= 3
    assert (tmp_path / RESULT).read_bytes() == whole


def test_killed_after_the_result_was_written(llama, whole, tmp_path):
    def killed():
        import shutil

        on_call(shutil, "rmtree", 1)
        collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)

    assert in_child(killed) == KILLED
    assert (tmp_path / RESULT).read_bytes() == whole
    again = collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
    assert again.save(tmp_path / "again").read_bytes() == whole


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


def test_without_a_folder_the_result_is_the_same(llama, whole, tmp_path):
    statistics = collect(llama, CORPUS, **OPTIONS)
    assert statistics.save(tmp_path / "saved.safetensors").read_bytes() == whole


def test_rare_checkpoints_change_nothing(llama, whole, tmp_path):
    collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS | {"checkpoint_seconds": 1e9})
    assert (tmp_path / RESULT).read_bytes() == whole
    assert not (tmp_path / "languages").exists()


def test_checkpoints_wait_for_their_time(tmp_path):
    with open_folder(tmp_path, Provenance(), {}) as folder:
        run = RunFolder(folder, 3600.0)
        totals = LanguageTotals.zeros("zh", 1, 2, 3)
        run.checkpoint(totals)
        assert run.load("zh") is None
        run.save(totals)
        assert run.load("zh").batches_done == 0


# A finished run


@pytest.fixture
def finished(llama, tmp_path):
    collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
    return tmp_path


def test_a_finished_run_is_only_read(llama, finished, monkeypatch):
    first = ActivationStatistics.load(finished)
    stamp = (finished / RESULT).stat().st_mtime_ns

    def ran(*args, **kwargs):
        raise AssertionError("a forward pass ran")

    monkeypatch.setattr(torch.nn.Embedding, "forward", ran)
    again = collect(llama, CORPUS, run_dir=finished, **OPTIONS)
    assert np.array_equal(again.grouped_counts, first.grouped_counts)
    assert np.array_equal(again.sums, first.sums)
    assert again.provenance == first.provenance
    assert (finished / RESULT).stat().st_mtime_ns == stamp


def test_a_folder_may_be_renamed_and_the_model_moved(finished, model_folder, tmp_path):
    """What counts is the weights, not the path they were read from."""
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in model_folder("Llama").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    collect(load_model(moved, device="cpu"), CORPUS, run_dir=finished, **OPTIONS)


def test_another_corpus_is_refused(llama, finished):
    other = CORPUS.select(ids=CORPUS.ids[:5])
    with pytest.raises(ProvenanceError, match=r"was begun with something else: .*corpora: "):
        collect(llama, other, run_dir=finished, **OPTIONS)


def test_a_corrected_text_is_another_corpus(llama, finished):
    rows = [vars_of(item) for item in CORPUS]
    rows[3]["response"] += "!"
    with pytest.raises(ProvenanceError, match="corpora: "):
        collect(llama, build_corpus(rows), run_dir=finished, **OPTIONS)


def vars_of(item):
    return {name: getattr(item, name) for name in ("id", "language", "prompt", "response")}


def test_changed_weights_are_refused(model_folder, finished):
    model = load_model(model_folder("Llama"), device="cpu")
    with torch.no_grad():
        model.blocks[1].mlp.gate.original_component.weight[3, 4] += 1e-6
    with pytest.raises(ProvenanceError, match=r"something else: .*\(weights: '[0-9a-f]+' and"):
        collect(model, CORPUS, run_dir=finished, **OPTIONS)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"groups": 4},
            r"another plan \(groups: 3, now 4\): give the same options or a new run_di",
        ),
        ({"batch_tokens": 64}, "batch_tokens: 200, now 64"),
        ({"padding_side": "left"}, "padding_side: 'right', now 'left'"),
        ({"max_length": 150}, "max_length: 192, now 150"),
        ({"scope": "all"}, "scope: 'response' and 'all'"),
    ],
)
def test_another_plan_is_refused(option, message, llama, finished):
    with pytest.raises(ProvenanceError, match=message):
        collect(llama, CORPUS, run_dir=finished, **OPTIONS | option)


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


def test_a_folder_that_holds_something_else_is_refused(llama, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=r"holds other files \(thesis\.tex\): give a new folder"):
        collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_json_of_somebody_else_is_refused(llama, tmp_path):
    (tmp_path / "run.json").write_text('{"trainer": "mine"}')
    with pytest.raises(StorageError, match=r"run\.json is of no job of lensneurons: give a new"):
        collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)


def test_a_file_instead_of_a_folder_is_refused(llama, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file: give a folder"):
        collect(llama, CORPUS, run_dir=tmp_path / "file", **OPTIONS)


def test_a_damaged_language_file_is_named_with_the_remedy(llama, whole, tmp_path):
    def killed():
        on_call(storage.os, "replace", 6)
        collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)

    assert in_child(killed) == KILLED
    file = tmp_path / "languages" / "en.safetensors"
    os.truncate(file, file.stat().st_size - 7)
    with pytest.raises(StorageError, match=r"en\.safetensors is damaged .*; delete it to count en"):
        collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
    file.unlink()
    collect(llama, CORPUS, run_dir=tmp_path, **OPTIONS)
    assert (tmp_path / RESULT).read_bytes() == whole


def test_a_run_tells_what_was_asked(finished):
    run = json.loads((finished / "run.json").read_text())
    assert run["plan"]["languages"] == ["en", "zh", "th"]
    assert run["provenance"]["scope"] == "response"
    assert run["provenance"]["interventions"] == "none"
