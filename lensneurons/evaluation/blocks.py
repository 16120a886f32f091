"""Rows that take long to make, block by block: a killed job loses no more than one block.

    entries -> blocks of `size` -> rows -> one value

A block that is in the run folder is not made again (`lensneurons.values.run_folders`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from lensneurons.errors import StorageError
from lensneurons.values.base import Value, from_json
from lensneurons.values.files import load_rows, save_rows
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import Run, open_folder

BLOCK = "block of rows"
Made = TypeVar("Made", bound=Value)
# From the firsts of blocks to each of them with its rows, as they are done.
Perform = Callable[[Sequence[int]], Iterator[tuple[int, list[Any]]]]


def in_blocks(
    entries: Sequence[Any],
    work: Callable[[int, Sequence[Any]], list[Any]],
    make: type,
    finish: Callable[[tuple[Any, ...]], Made],
    *,
    size: int,
    run_dir: str | Path | None,
    provenance: Provenance,
    plan: Mapping[str, Any],
    label: str,
    progress: bool,
    perform: Perform | None = None,
) -> Made:
    """Turn entries into a table, block by block; a block that is in the folder is not done again.

    `work` gets the place of the first entry of a block, and its entries; `make` is the class
    of a row, and `finish` makes the table, which the folder gets. `plan` is all that decides the
    rows, beside the provenance. `perform` makes the blocks in another way than one after the other:
    it gets the firsts of those that are missing, and yields each with its rows as it is done.
    """
    from tqdm.auto import tqdm

    def block(first: int) -> Sequence[Any]:
        return entries[first : first + size]

    def path(folder: Run, first: int) -> Path:
        return folder / "blocks" / f"{first:08d}.jsonl"

    def one_by_one(missing: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
        for first in missing:
            yield first, work(first, block(first))

    done: dict[int, list[Any]] = {}
    with (
        open_folder(run_dir, provenance, {**plan, "block": size}) as folder,
        tqdm(total=len(entries), desc=label, unit="text", disable=not progress) as bar,
    ):
        for first in range(0, len(entries), size):
            if folder is not None and path(folder, first).exists():
                number = len(block(first))
                done[first] = load_block(folder, path(folder, first), make, label, first, number)
                bar.update(number)
        missing = [first for first in range(0, len(entries), size) if first not in done]
        for first, found in (perform or one_by_one)(missing):
            if folder is not None:
                about = folder.part(job=label, first=first)
                save_rows(path(folder, first), BLOCK, map(asdict, found), about)
            done[first] = found
            bar.update(len(found))
        table = finish(tuple(row for first in sorted(done) for row in done[first]))
        if folder is not None:
            folder.require_there()
            table.save(folder / table.RUN_FILE)
    return table


def load_block(
    folder: Run, path: Path, make: Any, label: str, first: int, number: int
) -> list[Any]:
    """The rows of a block that is in the folder.

    Raises:
        StorageError: it is damaged, or of another run or place.
    """
    try:
        rows, details = load_rows(path, BLOCK)
        folder.require_part(path, details, job=label, first=first)
        if len(rows) != number:
            raise StorageError(f"{path} is damaged: it holds {len(rows)} rows of {number}")
        return [from_json(make, row) for row in rows]
    except (KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged: {error}; delete it to do it again") from None
    except StorageError as error:
        raise StorageError(f"{error}; delete it to do it again") from None
