"""Readers: what each format becomes, and what is said when a file is not that format."""

from __future__ import annotations

import itertools
import json

import pytest
from corpus_data import ROWS

from lensneurons.corpora.corpus import load_corpus
from lensneurons.corpora.items import Record
from lensneurons.corpora.readers import read_jsonl, read_lines, read_parquet, rename_columns
from lensneurons.errors import CorpusError


def write(folder, **files):
    """Write files into a folder; in their names, "__" stands for a dot."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def texts(source, **options):
    corpus = load_corpus(source, **options)
    return [(item.id, item.language, item.prompt, item.response) for item in corpus]


def refusal(source, **options):
    with pytest.raises(CorpusError) as caught:
        load_corpus(source, **options)
    return str(caught.value)


def test_lines_keep_everything_but_their_ends(tmp_path):
    write(tmp_path, a__txt="\ufeffone\r\n\ufeff\u2028two\x0b \n\nlast\r")
    places, lines = zip(*read_lines(tmp_path / "a.txt"), strict=True)
    assert places == ("a.txt:1", "a.txt:2", "a.txt:3", "a.txt:4")
    assert lines == ("one", "\ufeff\u2028two\x0b ", "", "last")


def test_jsonl_also_under_another_name_and_in_shards(tmp_path):
    lines = "\n\n".join(json.dumps(row) for row in ROWS)
    path = write(tmp_path, a__jsonl=lines) / "a.jsonl"
    records = list(read_jsonl(path))
    assert [record.columns for record in records] == ROWS
    assert [record.where for record in records[:2]] == ["a.jsonl:1", "a.jsonl:3"]
    named_otherwise = write(tmp_path, b__data=lines) / "b.data"
    assert load_corpus(named_otherwise).fingerprint == load_corpus(path).fingerprint
    halves = ["\n".join(json.dumps(row) for row in part) for part in (ROWS[:3], ROWS[3:])]
    (tmp_path / "shards").mkdir()
    shards = write(tmp_path / "shards", a__jsonl=halves[0], b__jsonl=halves[1])
    assert texts(shards) == [tuple(row.values()) for row in ROWS]


def test_parquet(tmp_path):
    import pandas as pd

    path = tmp_path / "rows.parquet"
    pd.DataFrame([row | {"id": int(row["id"])} for row in ROWS]).to_parquet(path)
    assert next(read_parquet(path)).where == "rows.parquet:1"
    assert texts(path) == [tuple(row.values()) for row in ROWS]
    path.write_bytes(b"PAR1 but nothing else")
    assert "cannot be read as Parquet" in refusal(path)


def test_mgsm(tmp_path):
    write(tmp_path, mgsm_en__tsv='A "quoted\tone\nWhat?\t2\n', mgsm_zh__tsv='"问\t一\n什么？\t2\n')
    write(tmp_path, LICENSE="not a corpus", README__txt="not a language")
    assert texts(tmp_path) == [
        ("1", "en", 'A "quoted\n', "one"),
        ("2", "en", "What?\n", "2"),
        ("1", "zh", '"问\n', "一"),
        ("2", "zh", "什么？\n", "2"),
    ]
    assert texts(tmp_path / "mgsm_zh.tsv", separator=": ")[0] == ("1", "zh", '"问: ', "一")


def test_msvamp(tmp_path):
    row = {"query": "how many ?", "m_query": "多少？", "response": "8.0", "equation": "- 1 2"}
    english = {"query": "how many ?", "response": "8.0"}
    write(tmp_path, test_Chinese__json=json.dumps(row), test_English__json=json.dumps(english))
    assert texts(tmp_path, languages=["en", "zh"]) == [
        ("1", "en", "how many ?\n", "8.0"),
        ("1", "zh", "多少？\n", "8.0"),
    ]


def test_aligned_text_is_all_response(tmp_path):
    write(tmp_path, en__txt="One.\nTwo.\n", swh__txt="Moja.\r\nMbili.")
    assert texts(tmp_path, limit=1) == [("1", "en", "", "One."), ("1", "swh", "", "Moja.")]


def test_sib200(tmp_path):
    head = "index_id\tcategory\ttext\n"
    write(tmp_path, en__dev__tsv=head + "7\tsports\tRun.\n", de__dev__tsv=head + "7\tsports\tLauf.")
    write(tmp_path, en__test__tsv=head + "9\tx\tGo.\n", de__test__tsv=head + "9\tx\tGeh.\n")
    assert texts(tmp_path, split="test") == [("9", "de", "", "Geh."), ("9", "en", "", "Go.")]
    assert load_corpus(tmp_path).ids == ("7", "9")
    assert "split='train' is not in" in refusal(tmp_path, split="train")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"en": "One."}, "the texts of 'en' are str; give a list of texts"),
        ({"en": {"One.", "Two."}}, "the texts of 'en' are set; give a list of texts"),
        ({"en": {"One.": "Two."}}, "the texts of 'en' are dict; give a list of texts"),
        ({"en": [("a", "b", "c")]}, "en[1] is ('a', 'b', 'c'); give a text or a (prompt, resp"),
        ({"en": ["a", 7]}, "en[2] is 7; give a text"),
        ({"english": ["a"]}, "english:1: 'english' is not a language code"),
    ],
)
def test_a_dictionary_of_something_else_is_refused(entries, message):
    assert message in refusal(entries)


def test_columns_under_other_names():
    import datasets

    rows = [{"n": 1, "lang": "en", "question": "Why?", "answer": "So.", "score": 0.5}]
    names = {"id": "n", "language": "lang", "prompt": "question", "response": "answer"}
    dataset = datasets.Dataset.from_list(rows)
    assert texts(dataset, columns=names) == [("1", "en", "Why?\n", "So.")]
    assert texts(dataset, columns=names, separator=" ") == [("1", "en", "Why? ", "So.")]
    assert "column 'n' is not understood" in refusal(dataset)
    assert "renames to 'question'" in refusal(dataset, columns={"question": "prompt"})
    message = refusal(dataset, columns=names | {"id": "key"})
    assert "there is no column 'key' for 'id'; the columns are ['answer', 'lang'" in message
    kept = [Record("x:1", {"prompt": "verbatim", "response": "", "n": 1})]
    same = rename_columns(kept, {"prompt": "prompt", "response": "response"})
    assert next(same).columns == {"prompt": "verbatim", "response": ""}


def test_splits_of_a_data_set():
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    parts = datasets.DatasetDict({"train": rows.select([0, 2, 4]), "test": rows})
    assert len(load_corpus(parts, split="train")) == 3
    told = "the data set has the splits ['train', 'test']; choose one with split="
    assert refusal(parts) == told
    assert "split='dev' is not in the data set; it has" in refusal(parts, split="dev")
    assert "a single data set has no splits; leave it out" in refusal(rows, split="test")


def test_a_stream_is_read_no_further_than_needed():
    import datasets

    def endless():
        for number in itertools.count():
            for language in ("en", "sw", "de"):
                yield {"id": number, "language": language, "response": f"{number}!"}

    stream = datasets.IterableDataset.from_generator(endless)
    corpus = load_corpus(stream, limit=3, languages=["sw", "en"])
    assert (corpus.languages, corpus.ids) == (("sw", "en"), ("0", "1", "2"))
    short = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    message = refusal(short, limit=1, languages=["en", "sw"])
    assert "the stream has no language 'sw'; it has ['en', 'th', 'zh']" in message


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds nothing; load_corpus understands"),
        ({"a__csv": "x"}, "holds a.csv; load_corpus understands"),
        ({"en__txt": "a", "b__jsonl": "{}"}, "holds several kinds: JSON lines (b.jsonl), aligned"),
        ({"notes__txt": "a"}, "notes.txt is to be named after its language; 'notes' is not"),
        (
            {"de__txt": b"one\nStra\xdfe\n"},
            "de.txt:2: byte 0xDF at position 4 is not UTF-8; save the file as UTF-8",
        ),
        ({"de__txt": "eins\n".encode("utf-16")}, "de.txt:1: byte 0xFF at position 0 is not UTF-8"),
        ({"en__txt": "One.\n\nThree."}, "en.txt:2: id '2' in 'en' has neither prompt nor response"),
        (
            {"a__jsonl": '\n{"id": 1'},
            "a.jsonl:2: this line is not JSON (Expecting ',' delimiter at column 9)",
        ),
        ({"a__jsonl": "\n[1, 2]"}, "a.jsonl:2: this line is a JSON list, not an object"),
        ({"a__jsonl": '\n{"id": 1, "language": "en"}'}, "a.jsonl:2: column 'response' is missing"),
        ({"mgsm_en__tsv": "a?\t2\nno tab"}, "mgsm_en.tsv:2: 1 fields separated by tabs"),
        ({"mgsm_english__tsv": "a?\t2"}, "is to be named after its language; 'english'"),
        (
            {"test_Thai__json": '{"query": "?", "response": "8"}'},
            "test_Thai.json:1: no text under 'm_query' or 'response', only",
        ),
        ({"test_Chinees__json": "{}"}, "did you mean 'zh' (Chinese)?"),
        (
            {"en__dev__tsv": "7\tx\tRun.\n"},
            "en.dev.tsv:1: ['7', 'x', 'Run.'] is no line of SIB-200",
        ),
    ],
)
def test_files_that_are_not_what_their_names_say_are_refused(tmp_path, files, message):
    assert message in refusal(write(tmp_path, **files))


def test_other_sources_are_refused_with_all_that_is_understood(tmp_path):
    message = refusal("google/mgsm")
    assert message.startswith("'google/mgsm' is no file or folder; load_corpus understands")
    assert "a Hugging Face data set, loaded with datasets.load_dataset" in message
    assert refusal(7).startswith("int is no source of a corpus; load_corpus understands")
    assert "is empty" in refusal(write(tmp_path, a__jsonl="") / "a.jsonl")
    assert "begins with b'\\x00\\x01'" in refusal(write(tmp_path, a__bin=b"\0\1") / "a.bin")
    assert "has no splits" in refusal(write(tmp_path, en__txt="a") / "en.txt", split="test")
