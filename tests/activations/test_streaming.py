"""A stream gives the counts of a corpus read whole, killed or not, and refuses what changed."""

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import replace
from inspect import unwrap
from itertools import chain, repeat
from unittest import mock

import numpy as np
import pytest
import tiny

from lensneurons.activations import streaming
from lensneurons.activations.collection import collect
from lensneurons.activations.streaming import ahead
from lensneurons.cli import main
from lensneurons.corpora.corpus import load_corpus
from lensneurons.corpora.streams import stream_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, ProvenanceError, StorageError
from lensneurons.tokens.prepared import corpus_of_texts, prepare
from lensneurons.values import files as storage
from lensneurons.values.run_folders import open_folder

# Python 3.12 warns of any fork beside threads; ours run nothing but the collection and die.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ROWS = [
    {"id": i.id, "language": i.language, "prompt": i.prompt, "response": i.response}
    for i in tiny.tiny_corpus()
]
MIXED = [ROWS[n] for n in np.random.default_rng(1).permutation(len(ROWS))]
OPTIONS = {"checkpoint_seconds": 0.0, "batch_tokens": 200, "groups": 3, "progress": False}
RESULT = "statistics.safetensors"
KILLED = -signal.SIGKILL


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    """The texts of the tiny corpus in two files, in an order that tears all items apart."""
    write(tmp_path / "texts" / "a.jsonl", MIXED[:13])
    return write(tmp_path / "texts" / "b.jsonl", MIXED[13:]).parent


def run(model, folder, run_dir=None, shard_items=5, **options):
    stream = stream_corpus(folder, shard_items=shard_items)
    return collect(model, stream, run_dir=run_dir, **OPTIONS | options)


@pytest.fixture(scope="module")
def reference(llama, tmp_path_factory):
    """``reference(scope=...)``: the statistics of the corpus read whole."""
    file = write(tmp_path_factory.mktemp("whole") / "all.jsonl", MIXED)
    corpus = load_corpus(file)
    return lambda **options: collect(llama, corpus, **OPTIONS | options)


def assert_same_counts(ours, whole):
    assert ours.languages == whole.languages
    for name in ("grouped_counts", "grouped_tokens", "grouped_linear", "grouped_both"):
        assert np.array_equal(getattr(ours, name), getattr(whole, name)), name
    for name in ("sums", "squares"):
        np.testing.assert_allclose(getattr(ours, name), getattr(whole, name), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shard_items", [1, 5, 7, 24, 1000])
def test_counts_are_those_of_the_whole_corpus(shard_items, llama, folder, reference):
    ours = run(llama, folder, shard_items=shard_items)
    assert_same_counts(ours, reference())
    stream = stream_corpus(folder, shard_items=3)
    assert ours.provenance.corpora == (stream.fingerprint,)
    assert replace(ours.provenance, corpora=()) == replace(reference().provenance, corpora=())
    if shard_items == 1000:  # the only shard is the corpus: the same bits
        assert np.array_equal(ours.sums, reference().sums)


@pytest.mark.parametrize(
    "options", [{"scope": "all"}, {"branches": True}, {"site": "q"}, {"padding_side": "left"}]
)
def test_options_mean_the_same(options, llama, folder, reference):
    assert_same_counts(run(llama, folder, **options), reference(**options))


def test_cut_texts_may_leave_a_language_without_tokens_in_a_shard(llama, folder, reference):
    """Texts that the cut empties are no error as long as others of their language count."""
    cut = {"max_length": 20, "overlong": "cut"}
    ours = run(llama, folder, shard_items=1, **cut)
    assert_same_counts(ours, reference(**cut))
    assert (
        ours.provenance.scope == reference(**cut).provenance.scope == "response, cut at 20 tokens"
    )
    with pytest.raises(CorpusError, match=r"no counted token of \['en', .* within max_length=1:"):
        run(llama, folder, max_length=1, overlong="cut", scope="response")


def test_totals_are_those_of_the_report(llama, folder):
    ours = run(llama, folder)
    file = write(folder.parent / "one" / "all.jsonl", MIXED)
    report = prepare(llama, load_corpus(file)).encoded.report
    assert [row.language for row in report.languages] == list(ours.languages)
    assert [row.counted for row in report.languages] == ours.tokens.tolist()


def test_chosen_languages_in_their_order(llama, folder, reference):
    stream = stream_corpus(folder, shard_items=4, languages=["th", "en"])
    ours = collect(llama, stream, **OPTIONS)
    assert_same_counts(ours, reference().select(["th", "en"]))


# Killed


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


def life(model, folder, run_dir, number):
    """Status of a run in a child that dies at the n-th file that it puts into place."""

    def action():
        calls = chain(repeat(os.replace, number - 1), [lambda *_: os.kill(os.getpid(), 9)])
        storage.os.replace = lambda *args: next(calls)(*args)
        run(model, folder, run_dir)

    return in_child(action)


@pytest.fixture
def uninterrupted(llama, folder):
    """The bytes of a run that nobody interrupted, and how many files it put into place."""
    with mock.patch.object(storage.os, "replace", wraps=os.replace) as renames:
        run(llama, folder, folder.parent / "whole")
    return (folder.parent / "whole" / RESULT).read_bytes(), renames.call_count


def test_killed_at_every_sort_of_file_it_ends_with_the_same_bytes(uninterrupted, llama, folder):
    whole, renames = uninterrupted
    assert renames > 15
    for number in (2, 3, 4, 5, 9, 14, renames - 1, renames):
        run_dir = folder.parent / f"run{number}"
        assert life(llama, folder, run_dir, number) == KILLED
        assert not (run_dir / RESULT).exists()
        run(llama, folder, run_dir)
        assert (run_dir / RESULT).read_bytes() == whole
        assert not (run_dir / "languages").exists()


def test_killed_again_and_again(uninterrupted, llama, folder):
    """Each life puts four files into place and dies at the fifth."""
    lives, run_dir = 0, folder.parent / "run"
    while life(llama, folder, run_dir, 5) == KILLED:
        lives += 1
        assert lives < 20
    assert lives >= 3
    assert (run_dir / RESULT).read_bytes() == uninterrupted[0]


def test_what_was_counted_is_not_run_again(uninterrupted, llama, folder, monkeypatch):
    run_dir = folder.parent / "run"
    assert life(llama, folder, run_dir, uninterrupted[1] - 1) == KILLED
    monkeypatch.setattr(streaming, "read_batch", None)
    monkeypatch.setattr(streaming, "encode", None)
    run(llama, folder, run_dir)
    assert (run_dir / RESULT).read_bytes() == uninterrupted[0]
    monkeypatch.setattr(streaming, "ahead", None)
    assert run(llama, folder, run_dir).save(run_dir.parent / "x").read_bytes() == uninterrupted[0]


# Texts that changed


def grow(at):
    write(at / "b.jsonl", [*MIXED[13:], ROWS[0] | {"id": "more"}])


def shrink(at):
    write(at / "b.jsonl", MIXED[13:-1])


def edit(at):
    """The same bytes in number, and one letter of the second file changed."""
    row = MIXED[15] | {"response": MIXED[15]["response"][:-1] + "9"}
    size = (at / "b.jsonl").stat().st_size
    write(at / "b.jsonl", [*MIXED[13:15], row, *MIXED[16:]])
    with (at / "b.jsonl").open("ab") as file:
        file.write(b" " * (size - file.tell()))


CHANGES = [
    (grow, r"b\.jsonl grew from \d+ to \d+ bytes since .*run was begun: a run goes on"),
    (shrink, r"b\.jsonl shrank from \d+ to \d+ bytes since"),
    (lambda at: write(at / "c.jsonl", [ROWS[0] | {"id": "more"}]), r"c\.jsonl is new since"),
    (lambda at: (at / "a.jsonl").unlink(), r"a\.jsonl is not there any more since"),
]


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_files_that_changed_are_named(change, told, finished, llama, folder):
    run_dir = folder.parent / "run"
    if finished:
        run(llama, folder, run_dir)
    else:
        assert life(llama, folder, run_dir, 16) == KILLED
    change(folder)
    with pytest.raises(ProvenanceError, match=told):
        run(llama, folder, run_dir)


@pytest.mark.parametrize("finished", [False, True])
def test_a_text_that_changed_in_a_file_of_the_same_size_is_found(finished, llama, folder):
    run_dir = folder.parent / "run"
    text = (folder / "b.jsonl").read_text()
    if finished:
        run(llama, folder, run_dir)
    else:
        assert life(llama, folder, run_dir, 20) == KILLED
    edit(folder)
    assert (folder / "b.jsonl").stat().st_size == len(text.encode())
    told = "are others than counted" if finished else r"shard 3 of 'texts' \(b\.jsonl:3-7\) is not"
    with pytest.raises(ProvenanceError, match=told):
        run(llama, folder, run_dir)
    (folder / "b.jsonl").write_text(text)  # as it was, at another time
    assert_same_counts(run(llama, folder, run_dir), run(llama, folder))


def test_a_data_set_that_ended_earlier_or_gives_other_rows(llama, tmp_path):
    import datasets

    def stream(rows):
        return stream_corpus(datasets.Dataset.from_list(rows).to_iterable_dataset(), shard_items=5)

    def die(*args):
        raise KeyboardInterrupt

    with mock.patch.object(streaming.Ledger, "require_all", die), pytest.raises(KeyboardInterrupt):
        collect(llama, stream(MIXED), run_dir=tmp_path, **OPTIONS)
    with pytest.raises(ProvenanceError, match=r"has 2 shards, and had 5 or more"):
        collect(llama, stream(MIXED[:10]), run_dir=tmp_path, **OPTIONS)
    with pytest.raises(ProvenanceError, match=r"shard 0 of 'dataset' \(dataset:1-5\) is not what"):
        collect(llama, stream(ROWS), run_dir=tmp_path, **OPTIONS)
    whole = collect(llama, stream(MIXED), run_dir=tmp_path, **OPTIONS)
    assert_same_counts(whole, collect(llama, stream(MIXED), **OPTIONS))
    again = collect(llama, stream(MIXED), run_dir=tmp_path, **OPTIONS)
    assert again.provenance == whole.provenance
    with pytest.raises(ProvenanceError, match="are others than counted"):
        collect(llama, stream(ROWS), run_dir=tmp_path, **OPTIONS)


def test_another_plan_is_refused(llama, folder):
    run(llama, folder, folder.parent / "run")
    for options, told in (
        ({"shard_items": 6}, "shard_items: 5, now 6"),
        ({"groups": 4}, "groups: 3, now 4"),
        ({"scope": "all"}, "scope: 'response' and 'all'"),
    ):
        with pytest.raises(ProvenanceError, match=told):
            run(llama, folder, folder.parent / "run", **options)
    corpus = load_corpus(write(folder.parent / "one" / "a.jsonl", MIXED))
    with pytest.raises(ProvenanceError, match="begun with something else"):
        collect(llama, corpus, run_dir=folder.parent / "run", **OPTIONS)


# The run folder


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ledger", r"ledger\.safetensors is damaged.*; delete .*languages to count anew"),
        ("en", r"en\.safetensors is damaged .*; delete it to count en again"),
        ("stream.json", r"stream\.json is (damaged|not JSON)"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(name, told, uninterrupted, llama, folder):
    run_dir = folder.parent / "run"
    assert life(llama, folder, run_dir, 19) == KILLED
    file = run_dir / (name if "." in name else f"languages/{name}.safetensors")
    os.truncate(file, file.stat().st_size - 7)
    with pytest.raises(StorageError, match=told):
        run(llama, folder, run_dir)
    file.unlink()
    if name == "ledger":
        with pytest.raises(StorageError, match=r"ledger\.safetensors lacks shards .*: delete"):
            run(llama, folder, run_dir)
        for left in (run_dir / "languages").iterdir():
            left.unlink()
    run(llama, folder, run_dir)
    assert (run_dir / RESULT).read_bytes() == uninterrupted[0]


def test_a_language_of_another_run_is_refused(llama, folder):
    for name, size in (("run", 5), ("other", 6)):
        with mock.patch.object(streaming, "_whole", side_effect=KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                run(llama, folder, folder.parent / name, shard_items=size)
    ours, theirs = (
        folder.parent / name / "languages" / "en.safetensors" for name in ("run", "other")
    )
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(StorageError, match=r"en\.safetensors does not belong here"):
        run(llama, folder, folder.parent / "run")


def test_a_shard_counted_twice_is_noticed(llama, folder, monkeypatch):
    """Sabotage: every batch is counted twice; the shards and the languages then disagree."""
    read = streaming.read_batch

    def twice(*args, **options):
        yield from read(*args, **options)
        yield from read(*args, **options)

    monkeypatch.setattr(streaming, "read_batch", twice)
    with pytest.raises(LensNeuronsError, match=r"languages have \d+ .* and the shards \d+, so"):
        run(llama, folder)


@pytest.mark.parametrize("place", [3, 6, 11, -1])
def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_space(
    place, uninterrupted, llama, folder
):
    whole, renames = uninterrupted
    run_dir, number = folder.parent / "run", place if place > 0 else renames
    full = OSError(errno.ENOSPC, "No space left on device")
    calls = chain(repeat(os.replace, number - 1), [mock.Mock(side_effect=full)])
    with mock.patch.object(storage.os, "replace", lambda *args: next(calls)(*args)):
        with pytest.raises(StorageError, match=r"cannot be written: the disk is full; free some"):
            run(llama, folder, run_dir)
    run(llama, folder, run_dir)
    assert (run_dir / RESULT).read_bytes() == whole


def test_a_folder_that_is_read_only_or_in_use(llama, folder):
    run_dir = folder.parent / "run"
    denied = PermissionError(errno.EACCES, "Permission denied")
    with mock.patch("pathlib.Path.touch", side_effect=denied):
        with pytest.raises(StorageError, match="cannot be used: Permission denied; give a folder"):
            run(llama, folder, run_dir)
    reader, writer = os.pipe()
    first = os.fork()
    if first == 0:
        with open_folder(run_dir, llama_provenance(), {}):
            os.write(writer, b".")
            signal.pause()
        os._exit(0)
    assert os.read(reader, 1) == b"."
    with pytest.raises(StorageError, match="another process works in run_dir="):
        run(llama, folder, run_dir)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)


def llama_provenance():
    from lensneurons.values.provenance import Provenance

    return Provenance()


# Read ahead


def test_one_step_is_made_ahead_and_no_more():
    made = []

    def steps():
        for n in range(4):
            made.append(n)
            yield n
        raise CorpusError("the fifth")

    coming = ahead(steps())
    for n in range(4):
        assert next(coming) == n
        assert max(made) <= n + 1
    with pytest.raises(CorpusError, match="the fifth"):
        next(coming)


def test_a_wrong_row_ends_the_run_where_its_turn_comes(llama, folder):
    write(folder / "c.jsonl", [ROWS[0] | {"language": "english"}])
    run_dir = folder.parent / "run"
    with pytest.raises(CorpusError, match=r"c\.jsonl:1: 'english' is not a language code"):
        run(llama, folder, run_dir, shard_items=6)
    assert len(list((run_dir / "languages").glob("??.safetensors"))) == 3


def test_other_verbs_say_that_they_read_whole_corpora(folder):
    with pytest.raises(CorpusError, match=r"CorpusStream\('texts': 2 files.* shard by shard"):
        unwrap(corpus_of_texts)(stream_corpus(folder))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"batch_tokens": 0}, "batch_tokens=0 holds nothing"),
        ({"scope": "answer"}, "scope='answer' is not known"),
        ({"max_length": 10**6}, "max_length=1000000 is beyond the model's context"),
        ({"max_length": 0}, "max_length=0 leaves no token"),
        ({"groups": 0}, "groups=0"),
    ],
)
def test_options_are_checked_at_the_door(option, told, llama, folder, monkeypatch):
    monkeypatch.setattr(streaming, "collect_stream", unwrap(streaming.collect_stream))
    stream = stream_corpus(folder)
    with pytest.raises(LensNeuronsError, match=told):
        unwrap(collect)(llama, stream, progress=False, **option)


def test_the_command_streams(model_folder, folder, reference, capsys):
    run_dir = folder.parent / "run"
    command = [
        "collect",
        str(model_folder("Llama")),
        "--corpus",
        str(folder),
        "--out",
        str(run_dir),
    ]
    command += ["--stream", "--shard-items", "7", "--groups", "3", "--batch-tokens", "200"]
    assert main(command) == 0
    assert "counted tokens" in capsys.readouterr().out
    from lensneurons.activations.statistics import ActivationStatistics

    assert_same_counts(ActivationStatistics.load(run_dir), reference())
    assert main([*command, "--limit", "3"]) == 2
    assert "--stream reads texts as they are" in capsys.readouterr().err
