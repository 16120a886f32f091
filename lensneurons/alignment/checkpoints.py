"""Checkpoints of an alignment: each says what it is of, and a damaged one is passed over.

The folder of the finished adapter says in the same way what it holds (`mark_adapter`), so
`load_model` refuses an adapter whose bytes changed since.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from warnings import warn

from lensneurons.errors import StorageError, StorageWarning
from lensneurons.models.adapters import CONFIG, MARK, WEIGHTS, file_hash
from lensneurons.values.files import load_json, save_json
from lensneurons.values.run_folders import Run

# The files of a checkpoint, the one that is written last at the end.
WHOLE = (WEIGHTS, "optimizer.pt", "scheduler.pt", "trainer_state.json")


def checkpoints(folder: Path) -> dict[int, Path]:
    """Step to the folder of its checkpoint, in the order of the steps."""
    named = ((re.fullmatch(r"checkpoint-([0-9]+)", path.name), path) for path in folder.iterdir())
    found = {int(name[1]): path for name, path in named if name and path.is_dir()}
    return dict(sorted(found.items()))


def marking(run: Run, control: str | None) -> Any:
    """A callback that writes into every checkpoint, last of all, what it is of and holds."""
    from transformers import TrainerCallback

    told = _told(control)

    class Marking(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoint = run / f"checkpoint-{state.global_step}"
            about = {**run.part(step=state.global_step), **told}
            save_json(checkpoint / MARK, {**about, "files": _file_hashes(checkpoint)})

    return Marking()


def mark_adapter(folder: Path, control: str | None, **about: Any) -> None:
    """Write beside a finished adapter the hashes of its files, and which control it is, if any."""
    files = {name: file_hash(folder / name) for name in (CONFIG, WEIGHTS)}
    save_json(folder / MARK, {**about, **_told(control), "files": files})


def _told(control: str | None) -> dict[str, str]:
    return {} if control is None else {"control": control}


def _file_hashes(checkpoint: Path) -> dict[str, str]:
    """File name to the hash of its content, without the mark."""
    found = {}
    for path in sorted(checkpoint.iterdir()):
        if path.is_file() and path.name != MARK and not path.name.startswith("."):
            found[path.name] = file_hash(path)
    return found


def last_whole(folder: Path, run: Run | None = None) -> str | None:
    """The last checkpoint that was written to its end; pieces of later ones are removed.

    Without `run`, the open folder, checkpoints need not say what they are of.

    Raises:
        StorageError: a checkpoint is of another run, or of another step.

    Warns:
        StorageWarning: a checkpoint was written to its end, but is damaged.
    """
    marked = run is not None and bool(run.fingerprint)
    for step, checkpoint in reversed(checkpoints(folder).items()):
        ended, damage = (checkpoint / MARK).exists() or not marked, ""
        try:
            mark = load_json(checkpoint / MARK) if marked and ended else {}
            if lacking := [name for name in WHOLE if not (checkpoint / name).is_file()]:
                damage = f"it has no {lacking[0]}"
            else:
                load_json(checkpoint / WHOLE[-1])
        except StorageError as error:  # broken off in the middle of its last file
            mark, damage = {}, str(error)
        if run is not None and mark:
            try:
                run.require_part(checkpoint, mark, step=step)
            except StorageError as error:
                raise StorageError(f"{error}; delete it, and call again") from None
            found = _file_hashes(checkpoint)
            changed = [n for n, digest in mark.get("files", {}).items() if found.get(n) != digest]
            damage = damage or (f"{changed[0]} was changed" if changed else "")
        if ended and not damage:
            return str(checkpoint)
        if marked and ended:
            warn(
                f"{checkpoint} is damaged ({damage}): training goes on at the checkpoint before it",
                StorageWarning,
                stacklevel=3,
            )
        shutil.rmtree(checkpoint)
    return None
