"""Rows that take long to make, block by block: a killed job loses no more than one block.

    entries -> blocks of `size` -> rows -> one value

A block that is in the run folder is not made again (`lensneurons.values.run_folders`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
) -> Made:
    """Turn entries into a table, block by block; a block that is in the folder is not done again.

    `work` gets the place of the first entry of a block, and its entries; `make` is the class
    of a row, and `finish` makes the table, which the folder gets. `plan` is all that decides the
    rows, beside the provenance.
    """
    from tqdm.auto import tqdm

    rows: list[Any] = []
    with (
        open_folder(run_dir, provenance, {**plan, "block": size}) as folder,
        tqdm(total=len(entries), desc=label, unit="text", disable=not progress) as bar,
    ):
        for first in range(0, len(entries), size):
            block = entries[first : first + size]
            path = folder / "blocks" / f"{first:08d}.jsonl" if folder else None
            if folder is not None and path is not None and path.exists():
                found = load_block(folder, path, make, label, first, len(block))
            else:
                found = work(first, block)
                if folder is not None and path is not None:
                    save_rows(path, BLOCK, map(asdict, found), folder.part(job=label, first=first))
            rows += found
            bar.update(len(block))
        table = finish(tuple(rows))
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
