"""A matrix that is killed at any moment goes on, ends with the same bytes, and knows its folder."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import ProvenanceError, StorageError
from lensneurons.experiments import ablation as ablation_cells
from lensneurons.experiments.ablation import AblationMatrix, ablation_matrix
from lensneurons.models.loading import load_model
from lensneurons.values import files as storage
from lensneurons.values import run_folders
from lensneurons.values.files import load_arrays, load_json, save_arrays, save_json

# Python 3.12 warns of any fork beside threads; ours run nothing but the matrix and die.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:no other neurons are as active"),
]

CORPUS = tiny.tiny_corpus().head(3)
OPTIONS = {
    "classes": ["specific", "related"], "languages": ["zh", "th"],
    "controls": 2, "batch_tokens": 300, "progress": False,
}  # fmt: skip
RESULT = "ablation.safetensors"
CELLS = 3 * 2 * 2
KILLED = -signal.SIGKILL
NEURONS = tiny.drawn_neurons()


@pytest.fixture(scope="module")
def llama(bridge):
    return bridge("Llama")


def run(model, folder, neurons=NEURONS, corpus=CORPUS, **options):
    return ablation_matrix(model, corpus, neurons, run_dir=folder, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    """The folder of a matrix that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(llama, folder)
    return folder


@pytest.fixture
def finished(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "finished")


@pytest.fixture
def goes_on(llama, whole, tmp_path):
    """Run on in a folder, and compare the bytes with those of an uninterrupted run."""

    def going():
        assert not (tmp_path / RESULT).exists()
        run(llama, tmp_path)
        assert (tmp_path / RESULT).read_bytes() == (whole / RESULT).read_bytes()

    return going


def killed_before_replace(number, llama, folder):
    """Run in a forked process that dies ahead of its n-th rename; its exit status."""
    child = os.fork()
    if child == 0:
        calls, rename = iter(range(1, 10**6)), os.replace

        def renaming(*paths):
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*paths)

        storage.os.replace = renaming
        status = 1
        try:
            run(llama, folder)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", [1, 2, 3, 8, CELLS + 1, CELLS + 2, CELLS + 3])
def test_killed_between_write_and_rename(number, llama, goes_on, tmp_path):
    """Renamed are run.json, every cell, run.json with the result's checksum, and the result."""
    assert killed_before_replace(number, llama, tmp_path) == KILLED
    assert len(list(tmp_path.rglob(".*.tmp"))) == 1
    assert len(list(tmp_path.glob("cells/*.safetensors"))) == min(max(0, number - 2), CELLS)
    goes_on()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", RESULT, "run.json"]


def test_there_are_no_other_renames(llama, tmp_path):
    assert killed_before_replace(CELLS + 4, llama, tmp_path) == 0


def test_cells_that_are_done_are_not_run_again(llama, goes_on, tmp_path, monkeypatch):
    """Of 12 cells 7 are there: beside the untouched texts, the passes of 5 cells are run."""
    assert killed_before_replace(9, llama, tmp_path) == KILLED
    ran, plain = [], ablation_cells.run_cell

    def counted(job, base, *cell):
        ran.append(cell)
        return plain(job, base, *cell)

    monkeypatch.setattr(ablation_cells, "run_cell", counted)
    goes_on()
    rest = [("related", "th", "zh")]
    rest += [(s, row, "th") for s in ("specific", "related") for row in ("zh", "th")]
    assert ran == rest


def test_killed_at_a_random_moment_from_outside(llama, goes_on, tmp_path):
    """A child that writes slowly, killed once some cells are done; this process goes on."""
    child = os.fork()
    if child == 0:
        save = ablation_cells.save_arrays
        ablation_cells.save_arrays = lambda *a: (time.sleep(0.05), save(*a), time.sleep(0.05))
        try:
            run(llama, tmp_path)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("cells/*.safetensors"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0, 0.2)))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
    goes_on()


def test_without_a_folder_the_result_is_the_same(llama, whole, tmp_path):
    matrix = ablation_matrix(llama, CORPUS, NEURONS, **OPTIONS)
    assert matrix.save(tmp_path / "saved").read_bytes() == (whole / RESULT).read_bytes()


# --- a finished folder ---


def test_a_finished_folder_is_only_read(llama, finished, monkeypatch):
    first, stamp = AblationMatrix.load(finished), (finished / RESULT).stat().st_mtime_ns
    monkeypatch.setattr(torch.nn.Embedding, "forward", None)
    again = run(llama, finished)
    assert np.array_equal(again.effect, first.effect)
    assert again.provenance == first.provenance
    assert (finished / RESULT).stat().st_mtime_ns == stamp


SELECTED, PROBABILITY = NEURONS.selected.copy(), NEURONS.probability.copy()
SELECTED.flat[NEURONS.specific["zh"].flat[0]] = False
PROBABILITY[NEURONS.n_above == 0] /= 3  # leaves the sets as they are, but not their controls
NAMES = ("id", "language", "prompt", "response")
LONGER = [{name: getattr(item, name) for name in NAMES} for item in CORPUS]
LONGER[3]["response"] += "!"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"seed": 1}, "seed: 0, now 1"),
        ({"controls": 3}, "controls: 2, now 3"),
        ({"batch_tokens": 200}, "batch_tokens: 300, now 200"),
        ({"classes": ["specific"]}, r"classes: \['specific', 'related'\], now \['specific'\]"),
        ({"languages": ["th", "zh"]}, r"rows: \['zh', 'th'\], now \['th', 'zh'\]"),
        ({"scope": "all"}, "scope: 'response' and 'all'"),
        (
            {"neurons": replace(NEURONS, selected=SELECTED)},
            r"another plan \(control_sets: .*; neurons: '[0-9a-f]{64}', now",
        ),
        ({"neurons": NEURONS.with_population("all")}, "neurons: "),
        (
            {"neurons": replace(NEURONS, probability=PROBABILITY)},
            r"another plan \(control_sets: ",
        ),
        ({"corpus": build_corpus(LONGER)}, r"begun with something else: .*corpora: "),
        ({"corpus": CORPUS.select(languages=["zh", "th"])}, "corpora: "),
    ],
)
def test_something_else_is_refused(option, message, llama, finished):
    with pytest.raises(ProvenanceError, match=message):
        run(llama, finished, **option)


def test_changed_weights_are_refused(model_folder, finished):
    model = load_model(model_folder("Llama"), device="cpu")
    with torch.no_grad():
        model.blocks[1].mlp.gate.original_component.weight[3, 4] += 1e-6
    with pytest.raises(ProvenanceError, match=r"something else: .*\(weights: '[0-9a-f]+' and"):
        run(model, finished)


def test_a_folder_of_another_job_is_refused(llama, finished, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=r"holds other files \(thesis\.tex\)"):
        run(llama, tmp_path / "other")
    counted = tmp_path / "counted"
    collect(llama, CORPUS, run_dir=counted, groups=2, progress=False)
    with pytest.raises(ProvenanceError, match="begun with"):
        run(llama, counted)


def test_a_damaged_cell_is_named(llama, goes_on, tmp_path):
    assert killed_before_replace(6, llama, tmp_path) == KILLED
    file = tmp_path / "cells" / "specific_th_en.safetensors"
    os.truncate(file, file.stat().st_size - 7)
    with pytest.raises(StorageError, match=r"th_en\.safetensors is damaged .*; delete it to run t"):
        run(llama, tmp_path)
    file.unlink()
    goes_on()


def test_a_cell_of_another_column_or_matrix_is_refused(llama, tmp_path):
    folder = tmp_path
    assert killed_before_replace(CELLS + 2, llama, folder) == KILLED
    first, second = sorted((folder / "cells").iterdir())[:2]
    whole = first.read_bytes()
    shutil.copy(second, first)
    message = (
        r"does not belong here \(it is of column '.*', not '.*'\); delete it to run the cell again"
    )
    with pytest.raises(StorageError, match=message):
        run(llama, folder)
    first.write_bytes(whole)
    arrays, details = load_arrays(first, ablation_cells.CELL_KIND)
    of = {**details["of"], "run": "00"}
    save_arrays(first, ablation_cells.CELL_KIND, arrays, {"of": of})
    with pytest.raises(StorageError, match=r"it is of run '00', not '.*'\)"):
        run(llama, folder)
    first.write_bytes(whole)
    run(llama, folder)


def test_the_matrix_of_another_run_is_refused(finished, llama):
    matrix = AblationMatrix.load(finished)
    replace(matrix, effect=matrix.effect * 2).save(finished / RESULT)
    with pytest.raises(StorageError, match="was not written by this run: delete it, and call ag"):
        run(llama, finished)


def test_a_finished_folder_of_an_earlier_version_is_read(finished, llama):
    """A file that does not say how its neurons were identified is the one that its run wrote."""
    earlier = replace(AblationMatrix.load(finished), made_from=None)
    assert "made_from" not in earlier._pack()[1]
    about = load_json(finished / "run.json")
    save_json(finished / "run.json", {**about, "result": run_folders._checksum(earlier)})
    earlier.save(finished / RESULT)
    assert run(llama, finished).made_from is None
