"""Streams: the shards of a corpus on disk, in one order, with the checks of a whole corpus."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import weakref

import numpy as np
import pyarrow
import pytest
import tiny

from lensneurons.corpora.checks import CorpusWarning
from lensneurons.corpora.corpus import load_corpus
from lensneurons.corpora.seen import SeenKeys, item_keys
from lensneurons.corpora.streams import stream_corpus, stream_digest
from lensneurons.errors import CorpusError

ROWS = [
    {"id": i.id, "language": i.language, "prompt": i.prompt, "response": i.response}
    for i in tiny.tiny_corpus()
]
PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstd(path, data):
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(data)


def write(path, rows):
    """Rows as a file whose name says how."""
    if path.suffix == ".parquet":
        import pandas as pd

        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".zst":
        zstd(path, lines(rows))
    else:
        path.write_bytes(PACK.get(path.suffix, PACK[""])(lines(rows)))
    return path


@pytest.fixture
def folder(tmp_path):
    """The tiny corpus in six files of every form, whose names are not written in their order."""
    parts = np.array_split(np.arange(len(ROWS)), 6)
    names = ["a.jsonl", "b.parquet", "c.jsonl.gz", "d.jsonl.xz", "e.jsonl.zst", "f.jsonl.bz2"]
    for name, part in reversed(list(zip(names, parts, strict=True))):
        write(tmp_path / name, [ROWS[n] for n in part])
    return tmp_path


def rows_of(shards):
    return [(i.id, i.language, i.prompt, i.response) for shard in shards for i in shard]


@pytest.mark.parametrize("size", [1, 5, 7, 24, 1000])
def test_shards_hold_all_rows_in_order_whatever_their_size(size, folder):
    stream = stream_corpus(folder, shard_items=size)
    shards = list(stream)
    assert [shard.number for shard in shards] == list(range(-(-len(ROWS) // size)))
    assert {len(shard) for shard in shards[:-1]} <= {size}
    whole = load_corpus(tiny_lines(folder.parent / "whole.jsonl"))
    if size in (1, 1000):  # a shard has its rows language by language
        assert rows_of(shards) == rows_of([whole])
    assert sorted(rows_of(shards)) == sorted(rows_of([whole]))
    assert shards[-1].digest == stream.fingerprint == stream_digest(whole)
    assert rows_of(stream) == rows_of(shards)  # a stream may be gone through again
    assert stream_corpus(folder, shard_items=9).fingerprint == stream.fingerprint


def tiny_lines(path):
    return write(path, ROWS)


def test_a_shard_says_where_its_rows_are(folder):
    shards = list(stream_corpus(folder, shard_items=6))
    told = ["a.jsonl:1-4 b.parquet:1-2", "b.parquet:3-4 c.jsonl.gz:1-4"]
    told += ["d.jsonl.xz:1-4 e.jsonl.zst:1-2", "e.jsonl.zst:3-4 f.jsonl.bz2:1-4"]
    assert [" ".join(map(str, shard.spans)) for shard in shards] == told
    assert shards[0].fingerprint == load_corpus_of(shards[0]).fingerprint
    assert len({shard.digest for shard in shards}) == 4
    assert "6 files" in repr(stream_corpus(folder))
    assert "a.jsonl" in stream_corpus(folder).to_text()


def load_corpus_of(shard):
    from lensneurons.corpora.corpus import build_corpus

    rows = [
        {"id": i.id, "language": i.language, "prompt": i.prompt, "response": i.response}
        for i in shard
    ]
    return build_corpus(rows)


def test_a_whole_corpus_reads_what_is_compressed(folder):
    (folder / "b.parquet").unlink()
    with pytest.warns(CorpusWarning, match="en: lacks 4 of 8 ids"):
        found = load_corpus(folder)
    assert rows_of([found]) == [tuple(row.values()) for n, row in enumerate(ROWS) if n // 4 != 1]
    assert rows_of([load_corpus(folder / "e.jsonl.zst")]) == [
        tuple(r.values()) for r in ROWS[16:20]
    ]


@pytest.mark.parametrize("end", [".gz", ".bz2", ".xz", ".zst"])
def test_what_cannot_be_unpacked_is_named(end, tmp_path):
    file = write(tmp_path / f"a.jsonl{end}", ROWS)
    os.truncate(file, file.stat().st_size - 9)
    with pytest.raises(CorpusError, match=rf"a\.jsonl{end} cannot be (unpacked|read)"):
        list(stream_corpus(tmp_path))
    file.write_bytes(b"no such thing at all")
    with pytest.raises(CorpusError, match=rf"a\.jsonl{end} cannot be (unpacked|read)"):
        list(stream_corpus(tmp_path))


def test_some_languages_in_an_order(folder):
    stream = stream_corpus(folder, shard_items=5, languages=["th", "en"])
    whole = load_corpus(tiny_lines(folder.parent / "w.jsonl"), languages=["th", "en"])
    assert sorted(rows_of(stream)) == sorted(rows_of([whole]))
    assert [shard.number for shard in stream] == list(range(len(list(stream))))
    two = [shard.languages for shard in stream_corpus(folder, languages=["th", "en"])]
    assert two == [("th", "en")]
    with pytest.raises(CorpusError, match="the stream '.*' has no language 'sw'"):
        list(stream_corpus(folder, languages=["en", "sw"]))


def test_a_data_set_streamed_or_not():
    import datasets

    whole = datasets.Dataset.from_list(ROWS)
    for source in (whole, whole.to_iterable_dataset(), datasets.DatasetDict({"test": whole})):
        stream = stream_corpus(source, shard_items=7, name="rows")
        assert sorted(rows_of(stream)) == sorted(tuple(row.values()) for row in ROWS)
        assert stream.fingerprint == stream_digest(load_corpus(whole))
        assert (stream.files, stream.name) == ((), "rows")
    spans = [shard.spans[0] for shard in stream_corpus(whole, shard_items=20)]
    assert [(span.first, span.last) for span in spans] == [(1, 20), (21, 24)]
    with pytest.raises(CorpusError, match="split='train' is not in"):
        stream_corpus(datasets.DatasetDict({"test": whole}), split="train")


def test_columns_under_other_names(tmp_path):
    rows = [{"n": 1, "lang": "en", "q": "Why?", "a": "So.", "score": 1}]
    write(tmp_path / "a.jsonl", rows)
    names = {"id": "n", "language": "lang", "prompt": "q", "response": "a"}
    assert rows_of(stream_corpus(tmp_path, columns=names)) == [("1", "en", "Why?\n", "So.")]
    with pytest.raises(CorpusError, match="column 'n' is not understood"):
        list(stream_corpus(tmp_path))
    with pytest.raises(CorpusError, match="renames to 'question'"):
        stream_corpus(tmp_path, columns={"question": "q"})


# Errors


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            ROWS[2],
            r"b\.jsonl:4: id 'item-2' in 'en' was already given at a\.jsonl:3, in",
        ),
        (ROWS[2] | {"language": "english"}, r"b\.jsonl:4: 'english' is not a language code"),
        (ROWS[2] | {"id": "x", "out": "y"}, r"b\.jsonl:4: column 'out' is not understood"),
        ({"id": "x", "language": "en"}, r"b\.jsonl:4: column 'response' is missing"),
    ],
)
def test_errors_name_file_and_line(row, told, tmp_path):
    write(tmp_path / "a.jsonl", ROWS[:8])
    write(tmp_path / "b.jsonl", [*ROWS[8:11], row, ROWS[12]])
    with pytest.raises(CorpusError, match=told):
        list(stream_corpus(tmp_path, shard_items=3))


def test_a_hash_that_two_items_share_is_no_duplicate(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", ROWS)
    keys = "lensneurons.corpora.streams.item_keys"
    monkeypatch.setattr(keys, lambda items: np.array([7 for _ in items], np.uint64))
    assert len(rows_of(stream_corpus(tmp_path, shard_items=5))) == len(ROWS)
    write(tmp_path / "b.jsonl", ROWS[5:6])
    with pytest.raises(CorpusError, match=r"b\.jsonl:1: id .* already given at a\.jsonl:6"):
        list(stream_corpus(tmp_path, shard_items=24))


def test_responses_in_all_shards_or_in_none(tmp_path):
    silent = [row | {"response": ""} for row in ROWS[12:]]
    write(tmp_path / "a.jsonl", ROWS[:12])
    write(tmp_path / "b.jsonl", silent)
    with pytest.raises(CorpusError, match=r"b\.jsonl:1: items have no response from here on"):
        list(stream_corpus(tmp_path, shard_items=6))
    (tmp_path / "a.jsonl").rename(tmp_path / "c.jsonl")
    with pytest.raises(CorpusError, match=r"c\.jsonl:1: items have a response from here on"):
        list(stream_corpus(tmp_path, shard_items=6))


def test_files_that_change_while_they_are_read(tmp_path):
    first = write(tmp_path / "a.jsonl", ROWS[:8])
    second = write(tmp_path / "b.jsonl", ROWS[8:])
    shards = iter(stream_corpus(tmp_path, shard_items=4))
    next(shards)
    with second.open("ab") as file:
        file.write(lines([ROWS[0] | {"id": "new"}])[:-7])
    next(shards)
    with pytest.raises(CorpusError, match=r"b\.jsonl grew from \d+ to \d+ bytes since the stream"):
        list(shards)
    shards = iter(stream_corpus(tmp_path, shard_items=4))
    next(shards)
    os.utime(first, ns=(1, 1))
    with pytest.raises(CorpusError, match=r"a\.jsonl was written since the stream was made; let"):
        next(shards)
    shards = iter(stream_corpus(tmp_path, shard_items=4))
    second.unlink()
    with pytest.raises(CorpusError, match=r"b\.jsonl cannot be read any more"):
        list(shards)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda at: at / "nowhere", "nowhere.*: No such file or directory; give a folder of JSON"),
        (lambda at: at, "holds no such file, which cannot be streamed"),
        (lambda at: {"en": ["a"]}, r"\{'en': \['a'\]\} is no corpus to stream"),
        (lambda at: write(at / "en.txt", ROWS).parent, r"holds aligned text \(en\.txt\)"),
    ],
)
def test_what_cannot_be_streamed_is_refused(make, told, tmp_path):
    with pytest.raises(CorpusError, match=told):
        stream_corpus(make(tmp_path))


def test_options_and_files_left_out(tmp_path):
    write(tmp_path / "a.jsonl", [])
    with pytest.raises(CorpusError, match="has no rows"):
        list(stream_corpus(tmp_path))
    with pytest.raises(CorpusError, match="shard_items=0 holds nothing; give 1 or more"):
        stream_corpus(tmp_path, shard_items=0)
    with pytest.raises(CorpusError, match="split='test' was given, but files have no splits"):
        stream_corpus(tmp_path, split="test")
    (tmp_path / "b.jsonl.zip").write_bytes(b"PK")
    with pytest.warns(CorpusWarning, match=r"b\.jsonl\.zip left out"):
        stream_corpus(tmp_path)


# Memory


def test_seen_keys_are_a_set():
    random, ours, theirs = np.random.default_rng(0), SeenKeys(), set()
    for size in random.integers(0, 40, 200):
        keys = random.integers(0, 3000, size).astype(np.uint64)
        assert ours.known(keys).tolist() == [int(key) in theirs for key in keys]
        ours.add(keys)
        theirs |= {int(key) for key in keys}
    assert len(ours.runs) <= np.log2(len(ours)) + 1
    assert len({*item_keys([("1", "en"), ("1", "de"), ("e", "n1"), ("1e", "n")]).tolist()}) == 4


def test_one_shard_is_held_and_eight_bytes_an_item(tmp_path):
    """`tests/simulations/stream_memory.py` measures the memory of whole processes."""
    rows = ({"id": n, "language": "en", "prompt": "", "response": "word"} for n in range(600))
    write(tmp_path / "a.jsonl", list(rows))
    alive = weakref.WeakSet()
    most = 0
    for shard in stream_corpus(tmp_path, shard_items=20):
        alive.add(shard)
        most = max(most, len(alive))
    assert most <= 2  # the one before is let go of once the next is there
    seen = SeenKeys()
    for start in range(0, 6000, 20):
        seen.add(item_keys((str(n), "en") for n in range(start, start + 20)))
    assert sum(run.nbytes for run in seen.runs) == 8 * 6000
