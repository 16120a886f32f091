"""Damaged files, and files of another run, language, cell or block, are refused.

`tests/simulations/damaged_files.py` damages ten times as many.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from saved_files import ABOUT, CUT, FLIPPED, PLAN, damage_many, more_values, write_all

from lensneurons.activations.collection import LanguageTotals, RunFolder
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.alignment.responses import SampledResponse, SampledResponses
from lensneurons.comparison.paper_claims import Claims
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.evaluation.blocks import BLOCK, load_block
from lensneurons.values import files as storage
from lensneurons.values.files import load_json, load_rows, save_json, save_rows
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder

STATISTICS = ActivationStatistics(
    ("en", "zh"), np.ones((1, 2, 3, 2), np.int64), np.array([[4, 9]]), provenance=ABOUT
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("files"), {"statistics": STATISTICS})


@pytest.mark.parametrize(("how", "number", "seed"), [(FLIPPED, 150, 2), (CUT, 75, 3)])
def test_no_damage_goes_unseen(files, how, number, seed):
    assert all(saved.read() == saved.holds for saved in files.values())
    found = sum(damage_many(files, how, number, seed).values(), Counter())
    assert found.keys() <= {"refused", "equal"}, found


def test_without_the_checksum_damage_would_go_unseen(files, monkeypatch):
    """The guard, sabotaged: the same flips change what is read."""
    header = storage._read_header
    monkeypatch.setattr(
        storage, "_read_header", lambda *a: header(*a) | {"version": storage.UNSEALED}
    )
    some = {name: files[name] for name in ("statistics", "comparison", "responses", "pairs")}
    found = sum(damage_many(some, FLIPPED, 150, 2).values(), Counter())
    assert any(what.startswith("silently different") for what in found)


def rewrite(path, change):
    """The header of a safetensors file, changed by hand."""
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["lensneurons"])
    change(header)
    save_file(load_file(path), path, metadata={"lensneurons": json.dumps(header)})
    return path


def old(header):
    """Make a header that of version 1."""
    del header["checksum"]
    header["version"] = 1


def test_files_of_version_1_still_load(tmp_path):
    path = rewrite(STATISTICS.save(tmp_path / "s"), old)
    assert ActivationStatistics.load(path).save(tmp_path / "t").read_bytes() == (
        STATISTICS.save(tmp_path / "u").read_bytes()
    )
    responses = more_values()["responses"]
    first, *rows = responses.save(tmp_path / "r").read_text().splitlines()
    header = json.loads(first)["lensneurons"]
    old(header)
    del header["rows"]
    (tmp_path / "r").write_text("\n".join([json.dumps({"lensneurons": header}), *rows]) + "\n")
    assert SampledResponses.load(tmp_path / "r").rows == responses.rows
    (tmp_path / "run.json").write_text('{"a": 1}')
    assert load_json(tmp_path / "run.json") == {"a": 1}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("checksum", None, "version 2, but no checksum: it is damaged; copy it again, or delete"),
        ("checksum", "00", "is damaged: its content is not what its checksum was made of; copy"),
        ("version", 1, "has a header that lensneurons never wrote"),
        ("version", 0, "has format version 0, which never was"),
        ("version", 3, "reads up to 2: upgrade it"),
        ("version", True, "has format version True, which never was"),
        ("version", "2", "has format version '2', which never was"),
        ("kind", "language neurons", "holds language neurons, but activation statistics is wanted"),
        ("details", None, "has a header that lensneurons never wrote"),
        ("more", 1, "has a header that lensneurons never wrote"),
    ],
)
def test_a_changed_header_is_refused(name, value, message, tmp_path):
    def change(header):
        header[name] = value
        if value is None and name == "checksum":
            del header[name]

    with pytest.raises(StorageError, match=message):
        ActivationStatistics.load(rewrite(STATISTICS.save(tmp_path / "s"), change))


def test_rows_that_were_cut_at_a_line_end_are_refused(tmp_path):
    path = save_rows(tmp_path / "rows", "rows", [{"n": n} for n in range(9)], {})
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:8]))
    with pytest.raises(StorageError, match="is damaged: it holds 7 rows of 9; copy it again, or"):
        load_rows(path, "rows")


@pytest.mark.parametrize("other", ["lensneuront", "Lensneurons"])
def test_a_json_file_whose_seal_lost_its_name_is_refused(other, tmp_path):
    path = save_json(tmp_path / "run.json", {"a": 1})
    path.write_text(path.read_text().replace("lensneurons", other))
    with pytest.raises(StorageError, match="is damaged: its 'lensneurons' has no version and"):
        load_json(path)


# Files of something else, copied in


def totals(language, count=1):
    one = LanguageTotals.zeros(language, 2, 2, 3)
    one.tokens[:], one.counts[:] = 9, count
    return one


def test_totals_of_another_language_or_run_are_refused(tmp_path):
    for name, plan in (("one", PLAN), ("two", {**PLAN, "groups": 3})):
        with open_folder(tmp_path / name, ABOUT, plan) as run:
            RunFolder(run, 1.0).save(totals("en"))
    one, two = (tmp_path / name / "languages" for name in ("one", "two"))
    shutil.copy(one / "en.safetensors", one / "zh.safetensors")
    shutil.copy(two / "en.safetensors", one / "th.safetensors")
    with open_folder(tmp_path / "one", ABOUT, PLAN) as run:
        folder = RunFolder(run, 1.0)
        assert folder.load("en").counts.sum() == 12
        for language, told in (("zh", "language 'en', not 'zh'"), ("th", "of run '.*', not '.*'")):
            message = f"{language}.safetensors does not belong here .*{told}.*; delete it to count"
            with pytest.raises(StorageError, match=message):
                folder.load(language)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": totals("en", 10).counts}, "active on more tokens than there are"),
        ({"counts": totals("en").counts * 1.0}, "does not hold one whole totals"),
        ({"sums": np.full((2, 3), np.nan)}, "a sum of activations is not finite"),
        ({"sums": np.zeros((3, 2))}, "does not hold one whole totals"),
        ({"batches_done": -1}, "does not hold one whole totals"),
    ],
)
def test_impossible_totals_are_refused(change, message, tmp_path):
    with open_folder(tmp_path, ABOUT, PLAN) as run:
        folder, one = RunFolder(run, 1.0), totals("en")
        vars(one).update(change)
        folder.save(one)
        with pytest.raises(StorageError, match=message):
            folder.load("en")


def test_the_statistics_of_another_corpus_are_refused(tmp_path):
    other = replace(STATISTICS, provenance=replace(ABOUT, corpora=("d4",)))
    for done in (None, STATISTICS):
        with open_folder(tmp_path, ABOUT, PLAN) as run:
            if done is not None:
                run.finish(done)
                assert RunFolder(run, 1.0).finished is not None
            other.save(tmp_path / "statistics.safetensors")
            with pytest.raises(StorageError, match="was not written by this run: delete it"):
                RunFolder(run, 1.0)


def test_a_block_of_another_place_is_refused(tmp_path):
    rows = [{"id": "i", "language": "en", "sample": 0, "prompt": "", "text": "", "finished": True}]
    with open_folder(tmp_path, ABOUT, PLAN) as run:
        path = save_rows(run / "blocks" / "0.jsonl", BLOCK, rows, run.part(job="x", first=0))
        assert len(load_block(run, path, SampledResponse, "x", 0, 1)) == 1
        for label, first, number in (("x", 1, 1), ("y", 0, 1), ("x", 0, 2)):
            with pytest.raises(StorageError, match="delete it to do it again"):
                load_block(run, path, SampledResponse, label, first, number)


# Impossible values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grouped_counts": np.full((1, 2, 3, 2), 5)}, "active on 5 of 4 tokens in en"),
        ({"sums": np.full((2, 3, 2), np.inf)}, "sums are not all finite"),
        ({"squares": np.full((2, 3, 2), -1.0)}, "a sum of squares is negative"),
    ],
)
def test_impossible_statistics_are_refused(change, message):
    with pytest.raises(LensNeuronsError, match=message):
        replace(STATISTICS, **change)


def null_provenance(details):
    details["provenance"] = None


def null_model(details):
    details["provenance"]["model"] = None


def renamed(details):
    details["tongues"] = details.pop("languages" if "languages" in details else "pivot")


@pytest.mark.parametrize("change", [null_provenance, null_model, renamed])
def test_null_and_renamed_entries_are_refused(change, tmp_path):
    path = STATISTICS.save(tmp_path / "s")
    rewrite(path, lambda header: (old(header), change(header["details"])))
    with pytest.raises(StorageError, match="does not hold one whole activation statistics"):
        ActivationStatistics.load(path)
    value = more_values()["scored"]
    rows, details = load_rows(value.save(tmp_path / "r"), value.FILE_KIND)
    change(details)
    path = save_rows(tmp_path / "r", value.FILE_KIND, rows, details)
    with pytest.raises(StorageError, match="does not hold one whole scored responses"):
        type(value).load(path)


@pytest.mark.parametrize("value", more_values().values(), ids=list(more_values()))
def test_every_loader_says_what_lacks(value, tmp_path):
    path = value.save(tmp_path / "value")
    if isinstance(value, Claims):
        found = load_json(path)
        for name in ("claims", "level", "about"):
            save_json(path, {k: v for k, v in found.items() if k != name})
            with pytest.raises(StorageError, match="does not hold one whole claims"):
                type(value).load(path)
    (tmp_path / "folder" / type(value).RUN_FILE).mkdir(parents=True)
    with pytest.raises(StorageError, match="is a folder"):
        type(value).load(tmp_path / "folder")
    with pytest.raises(StorageError, match="does not exist"):
        type(value).load(path / "below a file")
    with pytest.raises(StorageError, match="holds a NUL character"):
        type(value).load("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="is no regular file"):
        type(value).load(tmp_path / "pipe")


def test_a_run_folder_with_a_broken_run_json_is_refused(tmp_path):
    save_json(tmp_path / "run.json", {"provenance": {"model": None}, "plan": {}})
    with (
        pytest.raises(StorageError, match="has no whole provenance: give a new folder"),
        open_folder(tmp_path, Provenance(), {}),
    ):
        pass
