"""One reader a format; each yields `Record`s that know the line they came from.

A reader maps columns and nothing else: it does not clean, normalise or guess. Whether the records
make a corpus is for `checks.check_records` to say. Text is UTF-8. A byte-order mark at the start of
a file and Windows line ends are tolerated; any other encoding is refused with its line. Only a line
feed ends a line, or in a file without any a carriage return: U+2028 and the like are part of the
text.

If question and answer come as two columns, the separator closes the prompt, so that prompt +
response is exactly what the model reads. `FORMATS` lists the formats that are known by the names of
their files; a new one is a function and an entry there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import Any

from lensneurons.corpora.compressed import COMPRESSED, FAULTS, open_bytes
from lensneurons.corpora.items import Record
from lensneurons.corpora.parquet import read_parquet
from lensneurons.errors import CorpusError, shown
from lensneurons.languages.codes import language_code, language_of_name


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every line of a UTF-8 text file without its line end: ``("zh.txt:12", "...")``.

    A file that is compressed by its name is unpacked as it is read.

    Raises:
        CorpusError: the file cannot be opened or unpacked, or a line is not UTF-8.
    """
    try:
        with open_bytes(path) as file:
            first = file.readline()
            old = b"\r" in first and not first.endswith(b"\n")  # the whole file, as old Macs wrote
            lines = first.removesuffix(b"\r").split(b"\r") if old else chain([first], file)
            for number, line in enumerate(lines, start=1):
                if number == 1 and not line and not old:
                    return  # an empty file has no line
                where = f"{path.name}:{number}"
                try:
                    text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
                except UnicodeDecodeError as cause:
                    byte = f"byte 0x{line[cause.start]:02X} at position {cause.start}"
                    told = f"{where}: {byte} is not UTF-8; save the file as UTF-8"
                    raise CorpusError(told) from cause
                yield where, text.removeprefix("\ufeff") if number == 1 else text
    except OSError as cause:
        raise CorpusError(f"{path} cannot be read: {cause.strerror or cause}") from cause
    except FAULTS as cause:
        raise CorpusError(f"{path} cannot be unpacked: {cause}; copy it again") from cause


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the rows of a file with one JSON object a line; blank lines are skipped.

    Raises:
        CorpusError: a line is not JSON or not an object.
    """
    for where, line in read_lines(path):
        if line.strip():
            yield Record(where, _json_object(line, where))


def _json_object(line: str, where: str) -> dict[str, object]:
    try:
        value = json.loads(line, object_pairs_hook=_only_once)
    except json.JSONDecodeError as cause:
        raise CorpusError(
            f"{where}: this line is not JSON ({cause.msg} at column {cause.colno}); give one JSON"
            " object a line"
        ) from cause
    except CorpusError as cause:
        raise CorpusError(f"{where}: {cause}") from None
    except RecursionError:
        raise CorpusError(
            f"{where}: this line is JSON nested too deeply; give one flat JSON object a line"
        ) from None
    except ValueError:  # more digits than Python reads
        raise CorpusError(
            f"{where}: this line holds a number of too many digits; write it as text"
        ) from None
    if not isinstance(value, dict):
        raise CorpusError(
            f"{where}: this line is a JSON {type(value).__name__}, not an object; give one object a"
            ' line: {"id": ..., "language": ..., "prompt": ..., "response": ...}'
        )
    return value


def _only_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of some pairs; JSON's own reader would take the last of two equal keys."""
    made = dict(pairs)
    if len(made) < len(pairs):
        key = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise CorpusError(f"the key {shown(key)} stands twice in one object; keep one of them")
    return made


# One file a language, line i the same item in every file: the number of the line is the id.


def read_mgsm(paths: Sequence[Path], separator: str) -> Iterator[Record]:
    """Yield the items of MGSM: ``mgsm_<language>.tsv``, a question, a tab and an answer a line.

    Quotation marks are text: the files know no quoting.

    Raises:
        CorpusError: a line has not exactly two fields, or a file is named after no language.
    """
    for path in paths:
        language = _language(path, path.stem.removeprefix("mgsm_"))
        for where, line in read_lines(path):
            fields = line.split("\t")
            if len(fields) != 2:
                told = f"{where}: {len(fields)} fields separated by tabs"
                raise CorpusError(f"{told}; a line of MGSM has two, question and answer")
            yield _numbered(where, language, fields[0] + separator, fields[1])


def read_msvamp(paths: Sequence[Path], separator: str) -> Iterator[Record]:
    """Yield the items of MSVAMP: ``test_<English language name>.json``, JSON *lines* in fact.

    ``m_query`` holds the question in the language of the file, ``response`` the answer. ``query``
    is always the English question and is read only from an English file without ``m_query``.

    Raises:
        CorpusError: a line is not a JSON object or has no question or answer, or a file is named
            after no language.
    """
    for path in paths:
        language = _language(path, path.stem.removeprefix("test_"), language_of_name)
        asked = ("m_query", "query") if language == "en" else ("m_query",)
        for where, line in read_lines(path):
            row = _json_object(line, where)
            question = next((row[key] for key in asked if isinstance(row.get(key), str)), None)
            answer = row.get("response")
            if question is None or not isinstance(answer, str):
                raise CorpusError(
                    f"{where}: no text under 'm_query' or 'response', only {_names(row)}; both are"
                    " needed in MSVAMP"
                )
            yield _numbered(where, language, f"{question}{separator}", answer)


def read_aligned_text(paths: Sequence[Path], separator: str) -> Iterator[Record]:
    """Yield aligned sentences of ``<language>.txt``: a response without a prompt each.

    Raises:
        CorpusError: a file is named after no language.
    """
    for path in paths:
        language = _language(path, path.stem)
        for where, line in read_lines(path):
            yield _numbered(where, language, "", line)


def read_sib200(paths: Sequence[Path], separator: str) -> Iterator[Record]:
    """Yield the FLORES sentences of SIB-200: ``<language>.<split>.tsv`` with a header.

    The columns are ``index_id`` (the id, which aligns the languages), ``category`` and ``text``
    (the response; there is no prompt).

    Raises:
        CorpusError: the header or a line is not as described, or a file is named after no language.
    """
    for path in paths:
        language = _language(path, path.name.split(".")[0])
        for number, (where, line) in enumerate(read_lines(path)):
            fields = line.split("\t")
            if len(fields) != 3 or (number == 0 and fields != ["index_id", "category", "text"]):
                raise CorpusError(
                    f"{where}: {shown(fields, 80)} is no line of SIB-200; three fields separated by"
                    " tabs are wanted, under the header index_id, category, text"
                )
            if number:
                yield Record(where, {"id": fields[0], "language": language, "response": fields[2]})


def _numbered(where: str, language: object, prompt: str, response: str) -> Record:
    columns = {"id": where.rpartition(":")[2], "language": language}
    return Record(where, columns | {"prompt": prompt, "response": response})


def _names(columns: Iterable[object]) -> str:
    """The columns of a row, sorted, in a message; the first ten of more."""
    names = sorted(map(shown, columns))
    return f"[{', '.join(names[:10])}{', ...' if names[10:] else ''}]"


def _language(path: Path, name: str, read: Callable[[str], str] = language_code) -> str:
    """The language that a file is named after."""
    try:
        return read(name)
    except CorpusError as refusal:
        raise CorpusError(f"{path} is to be named after its language; {refusal}") from None


Reader = Callable[[Sequence[Path], str], Iterable[Record]]
# Format to the pattern of its files' names, and its reader; the first pattern that fits decides.
FORMATS: dict[str, tuple[str, Reader]] = {
    "MGSM": (r"mgsm_.+\.tsv", read_mgsm),
    "MSVAMP": (r"test_.+\.json", read_msvamp),
    "SIB-200": (r".+\.(train|dev|test)\.tsv", read_sib200),
    "aligned text": (r"(?!(readme|license|notice)\b).+\.txt", read_aligned_text),
    "JSON lines": (
        r".+\.jsonl" + COMPRESSED,
        lambda paths, _: (r for path in paths for r in read_jsonl(path)),
    ),
    "Parquet": (r".+\.parquet", lambda paths, _: (r for path in paths for r in read_parquet(path))),
}


# Sources that are no files


def read_dict(texts: Mapping[str, object]) -> Iterator[Record]:
    """Yield the items of a dictionary from language to texts; the i-th text has the id str(i).

    Args:
        texts: for each language its texts, aligned by position from 1: responses alone, or pairs
            of prompt and response.

    Raises:
        CorpusError: a value is neither a list of texts nor a list of pairs.
    """
    for language, entries in texts.items():
        where = language if isinstance(language, str) and len(language) < 60 else shown(language)
        # A set has no order, so its texts could not be aligned with those of another language.
        if isinstance(entries, str | Set | Mapping) or not isinstance(entries, Iterable):
            raise CorpusError(
                f"the texts of {shown(language)} are {type(entries).__name__}; give a list of"
                " texts, or of (prompt, response) pairs"
            )
        for number, entry in enumerate(entries, start=1):
            pair = ("", entry) if isinstance(entry, str) else entry
            if not (
                isinstance(pair, (tuple, list))
                and len(pair) == 2
                and all(isinstance(part, str) for part in pair)
            ):
                told = f"{where}[{number}] is {shown(entry)}"
                raise CorpusError(f"{told}; give a text or a (prompt, response) pair")
            yield _numbered(f"{where}:{number}", language, *pair)


def read_dataset(dataset: Iterable[Any], *, where: str = "dataset") -> Iterator[Record]:
    """Yield the rows of a Hugging Face data set, streamed or not, or of a table called `where`."""
    for number, row in enumerate(dataset, start=1):
        yield Record(f"{where}:{number}", row)


def rename_columns(
    records: Iterable[Record], columns: Mapping[str, str], *, separator: str = "\n"
) -> Iterator[Record]:
    """Yield records whose columns are taken from others; what is not named is left out.

    Args:
        records: the rows as read.
        columns: from our name (``"prompt"``) to the source's (``"question"``).
        separator: closes a renamed, non-empty prompt: the tables of others hold questions and
            answers without what stands between them.

    Raises:
        CorpusError: a row lacks one of the columns.
    """
    asked = columns.get("prompt", "prompt") != "prompt"
    for record in records:
        row: dict[str, Any] = {}
        for ours, theirs in columns.items():
            if not isinstance(record.columns, Mapping):
                raise CorpusError(f"{record.where}: {shown(record.columns)} is no row of columns")
            if theirs not in record.columns:
                raise CorpusError(
                    f"{record.where}: there is no column {theirs!r} for {ours!r}; the columns are"
                    f" {_names(record.columns)}"
                )
            row[ours] = record.columns[theirs]
        if asked and isinstance(row["prompt"], str) and row["prompt"]:
            row["prompt"] += separator
        yield Record(record.where, row)
