"""Rows of a Parquet file, checked before they are believed.

A Parquet file says how many rows it has and how large each column is, and a few bytes of it can
stand for any amount of text. So what it declares is checked first, text stays in its dictionary
until its size is known, and the rows read must be as many as declared. Only columns of text,
numbers and truth values are read: of any other column a row holds the type, so that an error can
name it.

What it does not show: that the content is what was written. Only a file with page checksums, which
pyarrow writes on request, tells that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lensneurons.corpora.items import Record
from lensneurons.errors import CorpusError, shown

# Text of a real corpus takes up to 10 times its file, and 200 times where all rows share a long
# prompt. What takes more is no corpus, and would take all memory.
LARGEST_SHARE = 1000
LARGEST_ANYWAY = 64 * 2**20
_ROWS = 1024
_CELL = 8  # bytes of a cell beside its text


def read_parquet(path: Path) -> Iterator[Record]:
    """Yield the rows of a Parquet file, read in batches of bounded memory; rows count from 1.

    Raises:
        CorpusError: the file is damaged or no Parquet, holds text that is not UTF-8, two columns of
            one name or no column of text, or text far larger than the file.
    """
    import pyarrow

    faults = (ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError)
    try:
        yield from _rows(path)
    except CorpusError:
        raise
    except (pyarrow.ArrowException, NotImplementedError, *faults) as cause:
        told = shown(str(cause), 300)[1:-1] or type(cause).__name__
        raise CorpusError(f"{path} cannot be read as Parquet: {told}") from cause


def _rows(path: Path) -> Iterator[Record]:
    from pyarrow import parquet, types

    with parquet.ParquetFile(path) as table:
        declared, schema = table.metadata, table.schema_arrow
        names = list(schema.names)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise CorpusError(f"{path} has two columns {shown(twice[0])}; rename one of them")
        read = [field.name for field in schema if _is_plain(field.type)]
        if not read:
            raise CorpusError(f"{path} has no column of text; it has {shown(names, 200)}")
        limit = max(LARGEST_ANYWAY, LARGEST_SHARE * path.stat().st_size)
        _check_size(path, _declared_size(declared), limit)
        n_rows = declared.num_rows
        unread = {name: schema.field(name).type for name in names if name not in read}
        texts = [name for name in read if not types.is_primitive(schema.field(name).type)]

    size = done = 0
    with parquet.ParquetFile(path, read_dictionary=texts, page_checksum_verification=True) as table:
        for batch in table.iter_batches(_ROWS, columns=read, use_threads=False):
            size += sum(map(_size, batch.columns))
            _check_size(path, size, limit)
            columns = {
                name: _cells(batch.column(name), f"{path.name}", name, done) for name in read
            }
            for row in range(batch.num_rows):
                cells = {
                    name: columns[name][row] if name in columns else unread[name] for name in names
                }
                yield Record(f"{path.name}:{done + row + 1}", cells)
            done += batch.num_rows
    if done != n_rows:
        raise CorpusError(f"{path} declares {n_rows} rows and holds {done}; write it anew")


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind)
    number = types.is_integer(kind) or types.is_floating(kind)
    return text or number or types.is_boolean(kind) or types.is_null(kind)


def _declared_size(declared: Any) -> int:
    """Bytes of all columns before compression, as the file's footer has them.

    The footer is not asked for single columns: where the statistics of one contradict the schema,
    pyarrow 26 ends the whole process in answering, while reading the column raises an error.
    """
    groups = (declared.row_group(number) for number in range(declared.num_row_groups))
    return _CELL * declared.num_rows + sum(max(0, group.total_byte_size) for group in groups)


def _size(column: Any) -> int:
    """Bytes of a column once its texts stand alone."""
    import pyarrow.compute
    from pyarrow import types

    compute: Any = pyarrow.compute  # its functions are made at run time

    size = _CELL * len(column)
    if types.is_dictionary(column.type) and not types.is_primitive(column.type.value_type):
        lengths = compute.binary_length(column.dictionary)
        return size + (compute.sum(lengths.take(column.indices)).as_py() or 0)
    return size + column.nbytes


def _check_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise CorpusError(
            f"{path} has {path.stat().st_size} bytes and stands for {size} or more, above the limit"
            f" of {limit}; write its texts as JSON lines, or in several files"
        )


def _cells(column: Any, file: str, name: str, before: int) -> list[object]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        for row in range(len(column)):
            try:
                column[row].as_py()
            except UnicodeDecodeError as cause:
                byte = f"byte 0x{cause.object[cause.start]:02X} at position {cause.start}"
                raise CorpusError(
                    f"{file}:{before + row + 1}: {shown(name)} is not UTF-8 ({byte}); write its"
                    " text as UTF-8"
                ) from cause
        raise
