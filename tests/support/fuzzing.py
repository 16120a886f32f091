"""Damaged and odd inputs of every corpus reader, and odd command lines, drawn from a seed.

An input is a valid file that was mutated. What comes of it is one word: ``read`` (its items are
those of an independent reading), ``refused`` (by an error of the package), ``changed`` (its items
are others), ``traceback`` or ``slow``.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import langcodes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensneurons.cli import main
from lensneurons.corpora.corpus import build_corpus, load_corpus
from lensneurons.errors import LensNeuronsError

SLOW = 10.0  # seconds
Row = tuple[str, str, str, str]

ODD = [
    "\0", "\ufeff", "\u2028", "\u0085", "\x0b", "\r", "\r\n", "\n", "\t", '"', "\\",
    "\xed\xa0\x80", "\U0001f469\u200d\U0001f680", "e\u0301" * 50, "\u202e", "ﬁ", "𝒳", "İ", "ß",
    "\\ud800", "\\u0000", "NaN", "Infinity", "1e999", "null", "true", "{}", "[]", "-0",
    "9" * 5000, "[" * 2000, '{"a":' * 2000, "x" * 20_000, "语" * 5000,
]  # fmt: skip


def texts(random: Random) -> list[tuple[str, str]]:
    """A few questions and their answers, some of them odd."""
    odd = ["naïve", "你好", "ภาษาไทย", "a b", "émile", "𝒳", "1 + 1", "e\u0301"]
    return [
        (f"{random.choice(odd)} {n}?", f"{random.choice(odd)} {n}.")
        for n in range(random.randint(1, 6))
    ]


def mutate(data: bytes, random: Random) -> bytes:
    """The bytes after zero to four small changes."""
    for _ in range(random.choice([0, 1, 1, 1, 2, 4])):
        place = random.randrange(len(data) + 1)
        end = min(len(data), place + random.choice([1, 1, 2, 8, 64]))
        kind = random.randrange(7)
        if kind == 0 and data:
            place = min(place, len(data) - 1)
            flipped = data[place] ^ (1 << random.randrange(8))
            data = data[:place] + bytes([flipped]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + data[end:]
        elif kind == 2:
            data = data[:place]
        elif kind == 3:
            data = data[:place] + random.choice(ODD).encode("utf-8", "surrogatepass") + data[place:]
        elif kind == 4:
            data = data[:end] + data[place:]
        elif kind == 5:
            data = data[:place] + random.randbytes(random.choice([1, 4, 16])) + data[end:]
        else:
            ends = random.choice([b"\r\n", b"\r", b"\n\n", b"\n\r"])
            data = data.replace(b"\n", ends)
    return data


# Formats: the name of the file, a valid file, and an independent reading of any bytes.


def lines_of(data: bytes) -> list[str]:
    text = data.decode().removeprefix("\ufeff")
    if "\n" not in text:
        return text.removesuffix("\r").split("\r") if text else []
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def tag(name: str) -> str:
    return langcodes.Language.get(name).to_tag()


def by_language(rows: list[Row]) -> list[Row]:
    order = list(dict.fromkeys(row[1] for row in rows))
    return sorted(rows, key=lambda row: order.index(row[1]))


def row_of(columns: dict[str, Any]) -> Row:
    prompt, response = (columns.get(name) or "" for name in ("prompt", "response"))
    return str(columns["id"]), tag(columns["language"]), prompt, response


def jsonl(random: Random) -> bytes:
    rows = [
        {"id": n, "language": language, "prompt": prompt, "response": response}
        for language in random.sample(["en", "zh", "sw", "de"], 2)
        for n, (prompt, response) in enumerate(texts(random))
    ]
    ascii_ = random.random() < 0.5
    return "".join(json.dumps(row, ensure_ascii=ascii_) + "\n" for row in rows).encode()


def read_jsonl(data: bytes) -> list[Row]:
    return [row_of(json.loads(line)) for line in lines_of(data) if line.strip()]


def read_text(data: bytes) -> list[Row]:
    return [(str(n), "en", "", line) for n, line in enumerate(lines_of(data), 1)]


def read_mgsm(data: bytes) -> list[Row]:
    pairs = (line.split("\t") for line in lines_of(data))
    return [(str(n), "en", f"{asked}\n", told) for n, (asked, told) in enumerate(pairs, 1)]


def read_sib(data: bytes) -> list[Row]:
    return [(line.split("\t")[0], "en", "", line.split("\t")[2]) for line in lines_of(data)[1:]]


def read_msvamp(data: bytes) -> list[Row]:
    rows = [json.loads(line) for line in lines_of(data)]
    return [(str(n), "zh", f"{r['m_query']}\n", r["response"]) for n, r in enumerate(rows, 1)]


def sib(random: Random) -> bytes:
    rows = [f"{n}\tsport\t{told}\n" for n, (_, told) in enumerate(texts(random))]
    return ("index_id\tcategory\ttext\n" + "".join(rows)).encode()


def msvamp(random: Random) -> bytes:
    rows = [{"m_query": asked, "response": told} for asked, told in texts(random)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(random: Random) -> bytes:
    rows = [json.loads(line) for line in jsonl(random).splitlines()]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    if random.random() < 0.3:
        odd = [
            pa.array([b"\xff\xfea"] * len(rows), pa.binary()).cast(pa.binary()),
            pa.array([["a", "b"]] * len(rows)),
            pa.array([None] * len(rows), pa.string()),
            pa.array([1.5] * len(rows)),
            pa.array(["x\0y"] * len(rows)),
            pa.array(["a"] * len(rows)).dictionary_encode(),
            pa.StringArray.from_buffers(
                len(rows),
                pa.py_buffer(np.arange(len(rows) + 1, dtype=np.int32)),
                pa.py_buffer(b"\xff" * len(rows)),
            ),
        ]
        columns[random.choice(list(columns))] = random.choice(odd)
    target = io.BytesIO()
    pq.write_table(
        pa.table(columns),
        target,
        compression=random.choice(["none", "snappy", "zstd"]),
        use_dictionary=random.random() < 0.5,
        data_page_version=random.choice(["1.0", "2.0"]),
        write_page_checksum=random.random() < 0.5,
    )
    return target.getvalue()


def read_rows_of_parquet(data: bytes) -> list[Row]:
    return [row_of(row) for row in pq.read_table(io.BytesIO(data)).to_pylist()]


Format = tuple[str, Callable[[Random], bytes], Callable[[bytes], list[Row]]]
FORMATS: dict[str, Format] = {
    "JSON lines": ("a.jsonl", jsonl, read_jsonl),
    "aligned text": (
        "en.txt",
        lambda random: "".join(f"{told}\n" for _, told in texts(random)).encode(),
        read_text,
    ),
    "MGSM": (
        "mgsm_en.tsv",
        lambda random: "".join(f"{asked}\t{told}\n" for asked, told in texts(random)).encode(),
        read_mgsm,
    ),
    "SIB-200": ("en.dev.tsv", sib, read_sib),
    "MSVAMP": ("test_Chinese.json", msvamp, read_msvamp),
    "Parquet": ("a.parquet", parquet, read_rows_of_parquet),
}
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, math.nan, 10**5000, "", "\0", "\ud800", "x" * 100_000, b"bytes", [], {},
    [[1, 2]], "en", "zh", "Chinese", "EN", "1", np.int64(3), np.float32(0.5), object(), "e\u0301",
]  # fmt: skip


def odd_rows(random: Random) -> Any:
    """Python values as `build_corpus` may be given them."""
    names: list[Any] = ["id", "language", "prompt", "response", "text", 1, None]
    rows: list[Any] = [
        {name: random.choice(VALUES) for name in random.sample(names, random.randint(0, 5))}
        for _ in range(random.randint(0, 3))
    ]
    rows += [{"id": n, "language": "en", "prompt": "p"} for n in range(random.randint(0, 2))]
    rows += random.sample(VALUES, random.choice([0, 0, 1]))
    return rows if random.random() < 0.95 else random.choice(VALUES)


class _TooLongError(BaseException):
    """The time is over; no `except Exception` swallows it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer; a call into a library is interrupted when it returns."""

    def stop(*_: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(load: Callable[[], Any], expected: Callable[[], list[Row]] | None) -> tuple[str, str]:
    """One word about an input, and its traceback or message."""
    began = time.perf_counter()
    try:
        with time_limit(SLOW), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            corpus = load()
    except LensNeuronsError as error:
        return ("refused" if 0 < len(str(error)) <= 10_000 else "traceback"), str(error)
    except _TooLongError:
        return "slow", ""
    except Exception:  # noqa: BLE001 - that there is none is what is tested
        return "traceback", traceback.format_exc()
    if time.perf_counter() - began > SLOW:
        return "slow", ""
    found = [(item.id, item.language, item.prompt, item.response) for item in corpus]
    if expected is None or found == by_language(expected()):
        return "read", ""
    return "changed", repr(found)[:300]


def try_input(number: int, seed: int, folder: Path) -> tuple[str, str, str]:
    """Draw an input by its number and try it: its kind, one word, and what was told."""
    random = Random(f"{seed}:{number}")
    kind = (*FORMATS, "rows")[number % (len(FORMATS) + 1)]
    if kind == "rows":
        rows = odd_rows(random)
        return kind, *outcome(lambda: build_corpus(rows), None)
    name, make, read = FORMATS[kind]
    data = mutate(make(random), random)
    path = folder / name
    path.write_bytes(data)
    return kind, *outcome(lambda: load_corpus(path), lambda: read(data))


# Command lines

NUMBERS = [
    "0", "1", "-1", "5", "1e999", "inf", "nan", "-inf", "0.5", "9" * 20, "9" * 5000, "", " ", "٣",
    "1_0", "0x10", "1000000000", "true",
]  # fmt: skip
COMMANDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "identify": (1, ("--top-rate", "--percentile", "--lambda", "--tau", "--out", "--languages")),
    "parts": (1, ("--draws", "--tau", "--top-rate", "--percentile", "--languages")),
    "compare": (2, ("--trained", "--pivot", "--tau", "--percentile", "--out")),
    "report": (2, ("--out", "--title", "--trained", "--tau")),
    "collect": (1, ("--corpus", "--out", "--groups", "--limit", "--split", "--languages")),
    "ablate": (2, ("--corpus", "--out", "--controls", "--metric", "--classes", "--seed")),
    "describe": (3, ("--corpus", "--out", "--save", "--limit", "--languages")),
    "align": (
        1,
        ("--corpus", "--out", "--languages", "--scorer", "--learning-rate", "--limit", "--pivot"),
    ),
    "demo": (0, ("--items", "--out", "--languages")),
}


def command_line(random: Random, places: list[str]) -> list[str]:
    """An odd command line that no model is loaded for: MODEL is never one."""
    command = random.choice(list(COMMANDS))
    first, options = COMMANDS[command]
    words = [*places, *NUMBERS, *ODD[:13], "en", "zh,de", "xx", "en,en", ",", "L0N1", "demo "]
    line = [command, *random.choices(places, k=first)]
    for option in random.sample(options, random.randint(0, len(options))):
        line += [option, random.choice(words)]
    if command == "demo":  # which would else run for a minute
        line += ["--items", random.choice(["0", "-1", "x", "9" * 30])]
    return line


def try_command(line: list[str]) -> tuple[str, str]:
    """One word about a command line, and what it wrote to standard error."""
    out, told = io.StringIO(), io.StringIO()
    try:
        with (
            time_limit(SLOW),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(told),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            code = main(line)
    except SystemExit as end:
        code = end.code
    except _TooLongError:
        return "slow", repr(line)[:300]
    except Exception:  # noqa: BLE001 - that there is none is what is tested
        return "traceback", traceback.format_exc()
    if code == 0:
        return "read", ""
    one_line = told.getvalue().count("\n") == 1 and len(told.getvalue()) < 11_000
    return ("refused" if code == 2 and one_line else "traceback"), told.getvalue()
