"""The values of a study in its folder: each is made once, and read where it is there already.

``steps.json`` has the SHA-256 of every value that was written whole, so a value that was copied in
or changed is refused. ``timings.json`` has the time of every step, all calls together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar

from lensneurons.errors import StorageError
from lensneurons.studies.plan import peak_memory
from lensneurons.values.base import Value
from lensneurons.values.files import load_json, save_json
from lensneurons.values.run_folders import Run

V = TypeVar("V", bound=Value)


class Kept:
    """The values of a study in its folder: made once, and read where they are there already."""

    def __init__(self, folder: Run, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.sums: dict[str, str] = {}
        if (folder / "steps.json").exists():
            self.sums = load_json(folder / "steps.json")["files"]
        self.times: dict[str, dict[str, float]] = {}
        if (folder / "timings.json").exists():
            self.times = load_json(folder / "timings.json")["steps"]

    def has(self, file: str) -> bool:
        """Whether a value was written whole."""
        return file in self.sums and (self.folder / file).exists()

    def load(self, file: str, kind: type[V]) -> V:
        """Read a value that this study wrote.

        Raises:
            StorageError: it is damaged, or was copied in.
        """
        path = self.folder / file
        if sha256(path.read_bytes()).hexdigest() != self.sums[file]:
            raise StorageError(f"{path} was not written by this study: delete it, and call again")
        return kind.load(path)

    def value(self, file: str, kind: type[V], make: Callable[[], V]) -> V:
        """The value of a file: read, or made and written."""
        if not self.has(file):
            self.folder.require_there()
            make().save(self.folder / file)
            self.sums[file] = sha256((self.folder / file).read_bytes()).hexdigest()
            save_json(self.folder / "steps.json", {"files": dict(sorted(self.sums.items()))})
        return self.load(file, kind)

    def timed(self, step: str) -> Timed:
        """A block whose time is told and kept."""
        return Timed(self, step)


class Timed:
    """Adds the time of a block to what earlier calls spent on the same step."""

    def __init__(self, kept: Kept, step: str) -> None:
        self.kept, self.step = kept, step

    def __enter__(self) -> None:
        self.kept.say(f"{self.step} ...")
        self.start = time.perf_counter(), time.process_time()

    def __exit__(self, kind: object, *_: object) -> None:
        wall, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        if kind is not None:
            return
        before = self.kept.times.get(self.step, {"seconds": 0.0, "cpu_seconds": 0.0})
        self.kept.times[self.step] = {
            "seconds": round(before["seconds"] + wall, 2),
            "cpu_seconds": round(before["cpu_seconds"] + cpu, 2),
            "memory_gib": round(peak_memory(), 2),
        }
        save_json(self.kept.folder / "timings.json", {"steps": self.kept.times})
