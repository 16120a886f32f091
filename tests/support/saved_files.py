"""One file of every kind that the package saves, and what happens to one that was damaged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import method_oracle
import numpy as np

from lensneurons.activations.collection import LanguageTotals, RunFolder
from lensneurons.alignment.pairs import PreferencePair, PreferencePairs
from lensneurons.alignment.responses import (
    SampledResponse,
    SampledResponses,
    ScoredResponse,
    ScoredResponses,
)
from lensneurons.alignment.training import Alignment, DPOSettings
from lensneurons.comparison.before_after import compare
from lensneurons.comparison.paper_claims import Claim, Claims
from lensneurons.comparison.series import compare_series
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.blocks import BLOCK, load_block
from lensneurons.evaluation.generation import Decoding
from lensneurons.experiments.ablation import CELL_KIND
from lensneurons.values.files import load_arrays, save_arrays, save_rows
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import Run, open_folder

FLIPPED, CUT = "one bit flipped", "cut off"
ABOUT = Provenance(model="m", weights="a1b2", corpora=("c3",))
PLAN = {"groups": 2, "languages": ["en", "zh"]}


@dataclass(frozen=True)
class Saved:
    """A file, what reads it, and what it holds, as text."""

    path: Path
    read: Callable[[], str]
    holds: str


def text_of(value: Any) -> str:
    """All that a value or a part of one holds, as text; NaN equals NaN."""
    if hasattr(value, "_pack"):
        value = (type(value).__name__, *value._pack())
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    if isinstance(value, dict):
        return json.dumps({str(k): text_of(v) for k, v in value.items()}, sort_keys=True)
    if isinstance(value, list | tuple):
        return json.dumps([text_of(one) for one in value])
    return repr(value)


def more_values() -> dict[str, Any]:
    """Values that `tests.test_saved_values` lacks."""
    counts = [
        method_oracle.statistics_of([[[5, 0], [0, 9], [0, 0]]], [10, 20], ["zh", "en"]),
        method_oracle.statistics_of([[[6, 1], [2, 9], [0, 3]]], [10, 20], ["zh", "en"]),
    ]
    answers = [SampledResponse("i1", "en", n, "How many?\n", f"{n} แมว", True) for n in range(4)]
    scored = [ScoredResponse("i1", "en", n, "?", f"{n}", True, 0.5, True, True) for n in range(4)]
    pair = PreferencePair("i1", "zh", "?", "3", "4", 1.0, 0.25)
    return {
        "comparison": compare(*counts, tau=0.3),
        "series": compare_series({"base": counts[0], "end": counts[1]}, tau=0.3),
        "claims": Claims(
            (Claim("one", "rises", 0.5, 0.25, float("nan"), 0.01, 0.02, "holds"),), 0.95, "two"
        ),
        "responses": SampledResponses(tuple(answers), Decoding(9, 1.0, 0, 64), ABOUT),
        "scored": ScoredResponses(tuple(scored), "en", "consistency", ABOUT),
        "pairs": PreferencePairs((pair, pair), "en", "consistency", ABOUT, 4),
    }


def write_all(folder: Path, values: dict[str, Any]) -> dict[str, Saved]:
    """Write every value, and every file of a run folder, below a folder."""
    saved = {}
    for name, value in (values | more_values()).items():
        path = value.save(folder / name.replace(" ", "_"))
        saved[name] = Saved(path, lambda v=value, p=path: text_of(type(v).load(p)), text_of(value))
    done = folder / "aligned"
    settings = DPOSettings(modules=("q_proj",))
    log = ({"step": 1, "pairs": "trained", "loss": 0.5},)
    aligned = Alignment(done, settings, 4, log, ABOUT)
    path = aligned.save()
    read = lambda: text_of(Alignment.load(done))  # noqa: E731
    saved["alignment"] = Saved(path, read, read())
    return saved | _parts(folder / "run")


def _parts(folder: Path) -> dict[str, Saved]:
    """The files of a run folder that is under way."""
    random = np.random.default_rng(0)

    def opened(work: Callable[[Run], Any]) -> str:
        with open_folder(folder, ABOUT, PLAN) as run:
            assert run is not None
            return text_of(work(run))

    def totals(run: Run) -> Any:
        found = RunFolder(run, 1.0).load("zh")
        return None if found is None else vars(found)

    def cell(run: Run) -> Any:
        arrays, details = load_arrays(run / "cells" / "x.safetensors", CELL_KIND)
        run.require_part(run / "cells" / "x.safetensors", details, row="en")
        return arrays

    def block(run: Run) -> Any:
        path = run / "blocks" / "0.jsonl"
        return [repr(row) for row in load_block(run, path, SampledResponse, "respond", 0, 4)]

    def about(run: Run) -> Any:
        return run.fingerprint

    with open_folder(folder, ABOUT, PLAN) as run:
        assert run is not None
        one = LanguageTotals.zeros("zh", 2, 2, 3)
        one.tokens[:] = 9
        one.counts[:] = random.integers(0, 9, one.counts.shape)
        RunFolder(run, 1.0).save(one)
        effects = {"effects": random.normal(size=(2, 5))}
        save_arrays(run / "cells" / "x.safetensors", CELL_KIND, effects, run.part(row="en"))
        rows = [
            {"id": "i", "language": "en", "sample": n, "prompt": "?", "text": "3", "finished": True}
            for n in range(4)
        ]
        save_rows(run / "blocks" / "0.jsonl", BLOCK, rows, run.part(job="respond", first=0))
    files = {
        "totals of a language": ("languages/zh.safetensors", totals),
        "cell": ("cells/x.safetensors", cell),
        "block": ("blocks/0.jsonl", block),
        "run.json": ("run.json", about),
    }
    return {
        name: Saved(folder / path, lambda w=work: opened(w), opened(work))
        for name, (path, work) in files.items()
    }


def damage(saved: Saved, how: str, random: np.random.Generator) -> str:
    """What comes of a damaged file: refused, equal, silently different, or a traceback."""
    whole = saved.path.read_bytes()
    content = bytearray(whole)
    place = int(random.integers(len(whole)))
    if how == FLIPPED:
        content[place] ^= 1 << int(random.integers(8))
    else:
        del content[place:]
    saved.path.write_bytes(bytes(content))
    try:
        return "equal" if saved.read() == saved.holds else f"silently different: {place}"
    except LensNeuronsError:
        return "refused"
    except Exception as error:  # noqa: BLE001  # this is what is looked for
        return f"traceback: {type(error).__name__}: {error}"
    finally:
        saved.path.write_bytes(whole)


def damage_many(
    files: dict[str, Saved], how: str, number: int, seed: int
) -> dict[str, Counter[str]]:
    """Damage files in turn, each at a random place; outcomes by file."""
    random = np.random.default_rng(seed)
    found: dict[str, Counter[str]] = {name: Counter() for name in files}
    for turn in range(number):
        name = list(files)[turn % len(files)]
        found[name][damage(files[name], how, random)] += 1
    return found
