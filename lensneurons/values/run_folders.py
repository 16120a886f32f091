"""A folder for a long job: it says first what was asked, and only one process works in it.

``run.json`` holds the provenance and the plan of the job. The error for a
folder that was begun with something else names the difference, so a job can rely on what it finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lensneurons.errors import ProvenanceError, StorageError
from lensneurons.values.files import load_json, save_json
from lensneurons.values.provenance import Provenance, require_same


@contextmanager
def open_folder(
    folder: str | Path | None, provenance: Provenance, plan: Mapping[str, Any]
) -> Iterator[Path | None]:
    """Begin a job in a folder, or go on with one; nobody else can work in the folder meanwhile.

    Args:
        folder: new, empty, or begun by the same job; None for a job that keeps nothing.
        provenance: of the model and the corpus.
        plan: everything else that decides the result, as JSON.

    Yields:
        The folder, or None.

    Raises:
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, corpus or plan; says which.
    """
    if folder is None:
        yield None
        return
    path = Path(folder)
    with _locked(path):
        if (path / "run.json").is_file():
            _require_same_run(path, load_json(path / "run.json"), provenance, plan)
        else:
            save_json(path / "run.json", {"provenance": provenance.to_dict(), "plan": dict(plan)})
        yield path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it also when the process is killed."""
    from filelock import FileLock, Timeout

    if path.exists() and not path.is_dir():
        raise StorageError(f"run_dir={path} is a file: give a folder")
    visible = [p.name for p in path.iterdir() if p.name[0] != "."] if path.is_dir() else []
    if visible and "run.json" not in visible:
        raise StorageError(f"run_dir={path} holds other files ({visible[0]}): give a new folder")
    path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path / ".lock", timeout=0):
            for leftover in path.rglob(".*.tmp"):
                leftover.unlink()
            yield
    except Timeout:
        raise StorageError(f"another process works in run_dir={path}: wait for it") from None


def _require_same_run(
    path: Path, saved: Mapping[str, Any], provenance: Provenance, plan: Mapping[str, Any]
) -> None:
    """Raise unless a run may be resumed with this provenance and plan."""
    if not {"provenance", "plan"} <= saved.keys():
        raise StorageError(f"{path}/run.json is of no job of lensneurons: give a new folder")
    try:
        require_same(Provenance.from_dict(saved["provenance"]), provenance)
    except ProvenanceError as error:
        raise ProvenanceError(f"{path} was begun with something else: {error}") from None
    different = [name for name in plan if saved["plan"].get(name) != plan[name]]
    if different:
        told = "; ".join(f"{n}: {saved['plan'].get(n)!r}, now {plan[n]!r}" for n in different)
        raise ProvenanceError(
            f"{path} was begun with another plan ({told}): give the same options or a new run_dir"
        )
