"""What the steps of an alignment share: work in blocks, each block a file that is never redone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lensneurons.provenance import Provenance
from lensneurons.run_folders import open_folder
from lensneurons.storage import load_rows, save_rows

Entry = TypeVar("Entry")
Row = dict[str, Any]
BLOCK = "block of rows"


def work_in_blocks(
    entries: Sequence[Entry],
    work: Callable[[int, Sequence[Entry]], list[Row]],
    *,
    size: int,
    run_dir: str | Path | None,
    provenance: Provenance,
    plan: Mapping[str, Any],
    label: str,
    progress: bool,
) -> list[Row]:
    """Turn entries into rows, block by block; with a folder, a block that is there is read.

    Args:
        entries: what to work on.
        work: gets the place of the first entry of a block, and its entries; gives JSON rows.
        size: entries a block.
        run_dir: new, empty, or begun by the same work; None keeps nothing.
        provenance: of the model and the corpus.
        plan: everything else that decides the rows, as JSON.
        label: of the progress bar.
        progress: show one, in entries.

    Raises:
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, corpus or plan.
    """
    from tqdm.auto import tqdm

    rows: list[Row] = []
    with (
        open_folder(run_dir, provenance, {**plan, "block": size}) as folder,
        tqdm(total=len(entries), desc=label, unit="text", disable=not progress) as bar,
    ):
        for first in range(0, len(entries), size):
            block = entries[first : first + size]
            path = folder / "blocks" / f"{first:08d}.jsonl" if folder else None
            rows += _block(path, lambda: work(first, block))  # noqa: B023
            bar.update(len(block))
    return rows


def _block(path: Path | None, work: Callable[[], list[Row]]) -> list[Row]:
    """The rows of one block, from its file where there is one."""
    if path is not None and path.is_file():
        return load_rows(path, BLOCK)[0]
    rows = work()
    if path is not None:
        save_rows(path, BLOCK, rows, {})
    return rows
