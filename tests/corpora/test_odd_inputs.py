"""Damaged, malicious and odd sources end in one sentence, soon, and never in other items."""

from __future__ import annotations

import io
import warnings
from inspect import unwrap
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensneurons.corpora.checks import CorpusWarning
from lensneurons.corpora.corpus import build_corpus, load_corpus
from lensneurons.errors import LONGEST, CorpusError, LensNeuronsError, shown
from lensneurons.languages import codes
from lensneurons.languages.codes import foreign_share, known_code, language_code

ROW = {"id": 1, "language": "en", "response": "One."}
LINE = '{"id": 1, "language": "en", "response": %s}\n'


def refusal(source: Any, load: Any = load_corpus) -> str:
    with pytest.raises(CorpusError) as caught:
        load(source)
    return str(caught.value)


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_fuzzed_inputs_are_read_unchanged_or_refused(tmp_path):
    """The same as tests/simulations/fuzzed_inputs.py, which draws 100,000."""
    found = [fuzzing.try_input(number, 7, tmp_path) for number in range(350)]
    assert [one for one in found if one[1] not in ("read", "refused")] == []
    assert {"read", "refused"} <= {word for _, word, _ in found}
    assert {kind for kind, word, _ in found if word == "read"} == {*fuzzing.FORMATS, "rows"}


def test_the_fuzzing_notices_other_items_and_tracebacks():
    corpus = build_corpus([ROW])
    same = [("1", "en", "", "One.")]
    assert fuzzing.outcome(lambda: corpus, lambda: same)[0] == "read"
    assert fuzzing.outcome(lambda: corpus, lambda: [])[0] == "changed"
    assert fuzzing.outcome(lambda: 1 / 0, None)[0] == "traceback"


@pytest.mark.parametrize("rows", [[[1, 2]], ["en"], [None], [5]])
def test_rows_that_are_no_mappings(rows):
    assert "is no row; give mappings with the columns 'id'" in refusal(rows, build_corpus)


@pytest.mark.parametrize("rows", [5, None, "en", b"en"])
def test_no_list_of_rows(rows):
    assert "is no list of rows; give a list of mappings" in refusal(rows, build_corpus)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000 + "]" * 100_000, "a.jsonl:1: this line is JSON nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "a.jsonl:1: this line is JSON nested too deeply"),
        ("9" * 5000, "a.jsonl:1: this line holds a number of too many digits; write it as text"),
        ("[" * 500 + "]" * 500, "a.jsonl:1: response is list, not text: [[[["),
        ('"a", "response": "b"', "a.jsonl:1: the key 'response' stands twice in one object"),
    ],
)
def test_json_that_python_cannot_read_or_reads_otherwise(tmp_path, text, told):
    assert told in refusal(file(tmp_path, "a.jsonl", LINE % text))


def test_a_number_of_too_many_digits_among_rows():
    rows = [ROW | {"id": 10**5000}, ROW | {"language": 10**5000}, ROW | {"response": 10**5000}]
    message = refusal(rows, build_corpus)
    assert "record 1: id is a whole number of too many digits" in message
    assert "record 3: response is int, not text: <int>" in message
    assert build_corpus([ROW | {"id": np.int64(7)}]).ids == ("7",)


# Parquet


def parquet(folder: Path, table: Any, **options: Any) -> Path:
    pq.write_table(table, folder / "a.parquet", **options)
    return folder / "a.parquet"


def test_parquet_that_is_not_utf8_names_the_row(tmp_path):
    offsets = pa.py_buffer(np.array([0, 3, 5, 6], np.int32))
    bad = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"abcd\xffe"))
    table = pa.table({"id": ["1", "2", "3"], "language": ["en"] * 3, "response": bad})
    message = refusal(parquet(tmp_path, table))
    assert message.startswith("a.parquet:2: 'response' is not UTF-8 (byte 0xFF at position 1)")


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_small_parquet_file_that_stands_for_600_megabytes(tmp_path, dictionary):
    rows = 600 if dictionary else 70
    texts = pa.array(["a" * 2**20] * rows)
    table = pa.table(
        {"id": list(map(str, range(rows))), "language": ["en"] * rows, "prompt": texts}
    )
    path = parquet(tmp_path, table, compression="zstd", use_dictionary=dictionary)
    assert path.stat().st_size < 64 * 1024
    assert "above the limit of 67108864; write its texts as JSON lines" in refusal(path)


def test_a_long_prompt_that_all_rows_share_is_read(tmp_path):
    rows = 2000
    shared = "Question and answer. " * 1000
    table = pa.table(
        {
            "id": list(map(str, range(rows))),
            "language": ["en"] * rows,
            "prompt": [shared] * rows,
            "response": [f"{n * n}." for n in range(rows)],
        }
    )
    corpus = load_corpus(parquet(tmp_path, table))
    assert {item.prompt for item in corpus} == {shared}
    assert corpus.items[40].response == "1600."


def test_columns_of_other_kinds_are_not_read(tmp_path):
    table = pa.table({"id": ["1"], "language": ["en"], "response": ["One."], "tags": [["a"]]})
    path = parquet(tmp_path, table)
    assert "column 'tags' is not understood" in refusal(path)
    names = {"id": "id", "language": "language", "response": "response"}
    assert load_corpus(path, columns=names).items[0].response == "One."
    with pytest.raises(CorpusError, match="prompt is ListType, not text"):
        load_corpus(path, columns=names | {"prompt": "tags"})


def test_a_parquet_file_with_fewer_rows_than_it_declares(tmp_path, monkeypatch):
    table = pa.table({"id": ["1", "2"], "language": ["en"] * 2, "response": ["a", "b"]})
    path = parquet(tmp_path, table)
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda *a, **k: iter(table.slice(1).to_batches())
    )
    assert "declares 2 rows and holds 1; write it anew" in refusal(path)


def test_a_damaged_page_is_found_by_its_checksum(tmp_path):
    table = pa.table({"id": ["1"], "language": ["en"], "response": ["Hello there, all of you"]})
    path = parquet(tmp_path, table, compression="none", write_page_checksum=True)
    path.write_bytes(path.read_bytes().replace(b"Hello", b"Jello", 1))
    assert "cannot be read as Parquet" in refusal(path)


# Languages


def test_a_name_that_is_no_language_is_looked_up_once_and_told_once():
    rows = [ROW | {"id": n, "language": "Chinesse"} for n in range(3000)]
    codes._looked_up.cache_clear()
    message = refusal(rows, build_corpus)
    assert codes._looked_up.cache_info().misses <= 2  # the name, and another spelling of it
    told = "record 1 (and 2999 more): 'Chinesse' is not a language code; did you mean 'zh'"
    assert message.startswith(f"1 problem in the corpus:\n  {told}")


def test_many_names_that_are_no_language_cost_no_suggestion_each(monkeypatch):
    asked = []
    monkeypatch.setattr("lensneurons.languages.codes._closest", asked.append)
    rows = [ROW | {"id": n, "language": f"Chinesse{n}"} for n in range(2000)]
    message = refusal(rows, build_corpus)
    assert message.startswith("2000 problems in the corpus:\n  record 1: 'Chinesse0' is not a")
    assert len(asked) == 10


@pytest.mark.parametrize("name", ["x" * 10**7, "\0", "\ud800", "", 5, None, [1], "x-", "i-", "und"])
def test_odd_names_of_languages(name):
    assert known_code(name) is None
    with pytest.raises(CorpusError, match="is not a language code") as caught:
        unwrap(language_code)(name)  # without the test's own type checks
    assert len(str(caught.value)) < 200


def test_messages_are_bounded():
    long = "x" * 5_000_000
    rows = [ROW | {"id": long}, ROW | {"id": long}, ROW | {long: 1}, ROW | {"language": long}]
    assert len(refusal(rows, build_corpus)) < 2000
    message = str(LensNeuronsError(f"begin{long}end"))
    assert len(message) <= LONGEST
    assert message.startswith("begin")
    assert message.endswith("end")
    assert shown(long) == f"'{'x' * 56}..."
    assert shown([]) == "[]"


def test_the_share_of_foreign_letters_of_a_long_text_is_that_of_a_short_one():
    text = "abcdé 一, "
    assert foreign_share(text * 500_000, "en") == foreign_share(text, "en") == pytest.approx(1 / 6)
    assert foreign_share(text * 500_000, "zh") == pytest.approx(5 / 6)


def test_a_line_of_20_megabytes(tmp_path):
    text = "naïve 一 " * 2_000_000
    path = file(tmp_path, "a.jsonl", LINE % f'"{text}"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        assert load_corpus(path).items[0].response == text


# Files and folders


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("One.\rTwo.\r", ["One.", "Two."]),
        ("One.\rTwo.\rThree.", ["One.", "Two.", "Three."]),
        ("One.\r\nTwo.\r\n", ["One.", "Two."]),
        ("One\rand a half.\nTwo.", ["One\rand a half.", "Two."]),
    ],
)
def test_lines_end_in_a_line_feed_or_in_a_file_without_any_in_a_return(tmp_path, content, lines):
    corpus = load_corpus(file(tmp_path, "en.txt", content))
    assert [item.response for item in corpus] == lines


def test_files_that_look_like_a_part_of_the_corpus_are_named(tmp_path):
    for name in ("en.txt", "de.txt", "fr.csv", "sw.txt.gz", "README.txt", "LICENSE", "run.py"):
        file(tmp_path, name, "One.\n")
    (tmp_path / "more").mkdir()
    file(tmp_path / "more", "zh.txt", "一。\n")
    (tmp_path / "code").mkdir()
    told = r"fr.csv, more, sw.txt.gz are left out, because no reader takes such a name"
    with pytest.warns(CorpusWarning, match=told) as warned:
        assert load_corpus(tmp_path).languages == ("de", "en")
    assert not warned[0].filename.endswith(("corpus.py", "checks.py"))


@pytest.mark.parametrize("path", ["a\0b.jsonl", "x" * 5000])
def test_a_path_that_no_system_has(path):
    assert len(refusal(path)) < 1200


@pytest.mark.parametrize("form", [None, "numpy", "torch", "arrow", "pandas"])
def test_a_data_set_in_another_format_is_read_as_its_plain_rows(form):
    import datasets

    rows = [{"id": n, "language": "en", "response": f"{n}!", "score": 0.5} for n in range(3)]
    dataset = datasets.Dataset.from_list(rows)
    chosen = ["id", "language", "response"]
    corpus = load_corpus(dataset.with_format(form, columns=chosen))
    assert [(item.id, item.response) for item in corpus] == [("0", "0!"), ("1", "1!"), ("2", "2!")]
    stream = dataset.select_columns(chosen).to_iterable_dataset().with_format(form)
    assert load_corpus(stream).fingerprint == corpus.fingerprint


def test_the_parquet_reader_survives_any_footer(tmp_path):
    """Every byte of the footer is set to 0 and to 255 in turn.

    Some of these made pyarrow end the process: a column that is required by the schema, and has
    statistics of one that is not.
    """
    table = pa.table({"id": ["1"], "language": ["en"], "response": ["One."]})
    target = io.BytesIO()
    pq.write_table(table, target, store_schema=False)
    data, path = target.getvalue(), tmp_path / "a.parquet"
    for place in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data)):
        for byte in (0, 255):
            path.write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
            word, told = fuzzing.outcome(lambda: load_corpus(path), None)
            assert word in ("read", "refused"), told
