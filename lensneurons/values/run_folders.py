"""A folder for a long job: it says first what was asked, and only one process works in it.

``run.json`` holds the provenance and the plan of the job. The error for a
folder that was begun with something else names the difference, so a job can rely on what it finds.

Every file of the folder says which run it is of (a fingerprint of provenance and plan) and which
part of it (a language, a cell, a block), and ``run.json`` has the checksum of the result before the
result is there. So a file of another run, or of another part, that was copied in is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensneurons.errors import ProvenanceError, StorageError
from lensneurons.values.base import Value
from lensneurons.values.files import (
    arrays_checksum,
    checksum,
    load_json,
    read_json,
    remove_leftovers,
    require_file,
    save_json,
    system_path,
)
from lensneurons.values.provenance import Provenance, require_same

# Folders that jobs make for their parts, within the folder of the run.
PARTS = ("languages", "cells", "blocks")
_OF_SAFETENSORS = re.compile(r"\.tmp[0-9A-Za-z]{6}")  # what its writer leaves when it is killed


@dataclass(frozen=True)
class Run:
    """A run folder that is open. ``run / "name"`` is the path of a file in it.

    Attributes:
        path: the folder.
        fingerprint: hash of the provenance and the plan that the folder was begun with; empty for
            a folder of an earlier lensneurons, whose files do not say what they are of.
    """

    path: Path
    fingerprint: str
    _descriptor: int | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def part(self, **of: Any) -> dict[str, Any]:
        """What the file of a part has to say of itself, such as ``language="zh"``.

        Raises:
            StorageError: the folder is not there any more.
        """
        self.require_there()
        return {"of": {"run": self.fingerprint, **of}}

    def require_part(self, file: Path, details: Mapping[str, Any], **of: Any) -> None:
        """Raise unless the details of a file say that it is of this run and this part.

        Raises:
            StorageError: says what the file is of.
        """
        found = details.get("of")
        if not self.fingerprint and found is None:
            return
        wanted = {"run": self.fingerprint, **of}
        if not isinstance(found, dict) or found != wanted:
            found = found if isinstance(found, dict) else {}
            told = [
                f"{k} {found.get(k)!r}, not {v!r}" for k, v in wanted.items() if found.get(k) != v
            ]
            raise StorageError(f"{file} does not belong here (it is of {'; '.join(told)})")

    def finish(self, value: Value) -> None:
        """Write the result, once ``run.json`` has its checksum.

        Raises:
            StorageError: the folder is not there any more.
        """
        self.require_there()
        if self.fingerprint:
            about = load_json(self / "run.json")
            save_json(self / "run.json", {**about, "result": _checksum(value)})
        value.save(self / value.RUN_FILE)

    def require_result(self, value: Value) -> None:
        """Raise unless a value is the result that this run wrote.

        Raises:
            StorageError: it was copied in.
        """
        if self.fingerprint and load_json(self / "run.json").get("result") != _checksum(value):
            raise StorageError(
                f"{self / value.RUN_FILE} was not written by this run: delete it, and call again"
            )

    def require_there(self) -> None:
        """Raise unless the path still leads to the folder that was opened.

        Raises:
            StorageError: it was removed or renamed.
        """
        try:
            require_file(self / "run.json")
            if self._descriptor is not None:
                ours, there = os.fstat(self._descriptor), self.path.stat()
                if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
                    raise FileNotFoundError
        except (OSError, StorageError):
            raise StorageError(
                f"run_dir={self.path} was removed or renamed while the job ran: what was done "
                "since is lost; call again, with the folder's new name if it has one"
            ) from None


def _checksum(value: Value) -> str:
    return arrays_checksum(value.FILE_KIND, *value._pack())


@contextmanager
def open_folder(
    folder: str | Path | None, provenance: Provenance, plan: Mapping[str, Any]
) -> Iterator[Run | None]:
    """Begin a job in a folder, or go on with one; nobody else can work in the folder meanwhile.

    Args:
        folder: new, empty, or begun by the same job; None for a job that keeps nothing.
        provenance: of the model and the corpus.
        plan: everything else that decides the result, as JSON.

    Yields:
        The open folder, or None.

    Raises:
        StorageError: the folder holds something else, another process works in it, or it was
            removed or renamed before the job ended.
        ProvenanceError: the folder was begun with another model, corpus or plan; says which.
    """
    if folder is None:
        yield None
        return
    path = system_path(folder)
    with _locked(path):
        if (path / "run.json").exists():
            about, sealed = read_json(path / "run.json")
            _require_same_run(path, about, provenance, plan)
        else:
            about, sealed = {"provenance": provenance.to_dict(), "plan": dict(plan)}, True
            save_json(path / "run.json", about)
        with _held(path) as descriptor:
            run = Run(path, _fingerprint(path) if sealed else "", descriptor)
            yield run
            run.require_there()


def _fingerprint(path: Path) -> str:
    about = load_json(path / "run.json")
    return checksum([about["provenance"], about["plan"]])


@contextmanager
def _held(path: Path) -> Iterator[int | None]:
    """A descriptor of the folder, so that no other folder gets its number; None on Windows."""
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it also when the process is killed."""
    from filelock import FileLock, Timeout

    if os.path.exists(path) and not os.path.isdir(path):
        raise StorageError(f"run_dir={path} is a file: give a folder")
    try:
        visible = (
            [p.name for p in path.iterdir() if p.name[0] != "."] if os.path.isdir(path) else []
        )
        if visible and "run.json" not in visible:
            raise StorageError(
                f"run_dir={path} holds other files ({visible[0]}): give a new folder"
            )
        path.mkdir(parents=True, exist_ok=True)
        (path / ".lock").touch()
    except OSError as error:
        raise StorageError(
            f"run_dir={path} cannot be used: {error.strerror}; give a folder that you may write to"
        ) from None
    try:
        with FileLock(path / ".lock", timeout=0):
            _clean(path)
            yield
    except Timeout:
        raise StorageError(f"another process works in run_dir={path}: wait for it") from None


def _clean(path: Path) -> None:
    """Remove what killed processes left in a locked folder and in the folders of its parts."""
    for folder in (path, *(path / name for name in PARTS)):
        # A folder with a run of its own may be in use.
        if folder.is_dir() and (folder == path or not (folder / "run.json").exists()):
            remove_leftovers(folder)
            for left in folder.iterdir() if folder != path else ():
                if _OF_SAFETENSORS.fullmatch(left.name):
                    left.unlink(missing_ok=True)


def _require_same_run(
    path: Path, saved: Mapping[str, Any], provenance: Provenance, plan: Mapping[str, Any]
) -> None:
    """Raise unless a run may be resumed with this provenance and plan."""
    if not all(isinstance(saved.get(name), dict) for name in ("provenance", "plan")):
        raise StorageError(f"{path}/run.json is of no job of lensneurons: give a new folder")
    try:
        begun = Provenance.from_dict(saved["provenance"])
    except (TypeError, ValueError):
        raise StorageError(f"{path}/run.json has no whole provenance: give a new folder") from None
    try:
        require_same(begun, provenance)
    except ProvenanceError as error:
        raise ProvenanceError(f"{path} was begun with something else: {error}") from None
    # An option may be in one plan alone: those that nobody gave are left out.
    before, now = saved["plan"], json.loads(json.dumps(dict(plan)))
    different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if different:
        told = "; ".join(f"{n}: {before.get(n)!r}, now {now.get(n)!r}" for n in different)
        raise ProvenanceError(
            f"{path} was begun with another plan ({told}): give the same options or a new run_dir"
        )
