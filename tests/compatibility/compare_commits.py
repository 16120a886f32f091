"""Whether two checkouts compute the same: bit for bit, on the demo model and its adapters.

    python tests/compatibility/compare_commits.py OLD_CHECKOUT [NEW_CHECKOUT]

Each checkout computes, in a process of its own, statistics, language neurons, parts, an ablation
matrix, NLL, importance, cards, contexts, a comparison before and after alignment, its claims, a
logit lens, a steering curve, patching and sampled responses, prints a hash of each, and saves it.
The new checkout then loads the files of the old one. What differs is named, and the exit code is 1.

A hash is taken over the contents of a value, field by field, whatever the fields are called;
versions of libraries are left out, and so are cards' texts about the value itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOMS = ("", ".alignment", ".cards", ".comparison", ".evaluation", ".experiments", ".neurons")
CLASSES = {
    "statistics": "ActivationStatistics",
    "neurons": "LanguageNeurons",
    "matrix": "AblationMatrix",
    "nll": "CorpusNLL",
    "importance": "Importance",
    "contexts": "Contexts",
    "card": "NeuronCard",
    "comparison": "Comparison",
    "claims": "Claims",
    "lens": "LensCurves",
    "curve": "SteeringCurve",
    "patching": "CarryOver",
    "responses": "SampledResponses",
    "set": "NeuronSet",
}


def find(name: str) -> Any:
    """A public name, in the package or one level down."""
    for room in ROOMS:
        found = getattr(importlib.import_module(f"lensneurons{room}"), name, None)
        if found is not None:
            return found
    raise LookupError(f"lensneurons has no {name}")


def digest(value: Any) -> str:
    """A hash of the contents of a value."""
    return hashlib.sha256(repr(_contents(value)).encode()).hexdigest()[:16]


def _contents(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        raw = np.ascontiguousarray(value)
        return (str(raw.dtype), raw.shape, hashlib.sha256(raw.tobytes()).hexdigest())
    if dataclasses.is_dataclass(value):
        named = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return [_contents(one) for name, one in named if name != "versions"]
    if isinstance(value, Mapping):
        return [(str(k), _contents(one)) for k, one in value.items()]
    if isinstance(value, list | tuple):
        return [_contents(one) for one in value]
    if isinstance(value, Path):
        return value.name
    return repr(value)


def compute() -> dict[str, Any]:
    """Every value, on a small part of the demo world."""
    load_model, collect = find("load_model"), find("collect")
    model, aligned = load_model("demo"), load_model("demo", adapter="zh-de")
    corpus = find("load_corpus")("demo", limit=12)
    few = corpus.select(["en", "de", "zh", "sw"]).head(4)
    statistics = collect(model, corpus, groups=4, progress=False)
    after = collect(aligned, corpus, groups=4, progress=False)
    neurons = find("identify")(statistics)
    chosen = neurons.with_population("all").specific["zh"]
    comparison = find("compare")(statistics, after, trained=("zh", "de"), pivot="en")
    pairs = find("answer_pairs")(corpus, source="en", languages=["de", "zh"])
    quiet: dict[str, Any] = {"progress": False}
    return {
        "statistics": statistics,
        "neurons": neurons,
        "set": chosen,
        "parts": find("divide_layers")(neurons, statistics, draws=20),
        "matrix": find("ablation_matrix")(model, few, neurons, controls=3, **quiet),
        "nll": find("nll")(model, few),
        "importance": find("importance")(model, few, method="activation_gradient"),
        "contexts": find("top_contexts")(model, few, chosen, k=2),
        "card": find("describe")(model, neurons, chosen.names[0], corpus=few),
        "comparison": comparison,
        "claims": find("claims")(comparison),
        "lens": find("logit_lens")(model, few),
        "curve": find("steering_curve")(
            model, few, chosen, statistics=statistics, toward="zh", prompts_in="en",
            alphas=(0.0, 1.0), max_new_tokens=12, **quiet,
        ),
        "patching": find("carry_over")(model, pairs[:8], **quiet),
        "responses": find("respond")(model, few.head(2), samples=2, max_new_tokens=8, **quiet),
    }  # fmt: skip


def run_checkout(own: Path, others: Path | None) -> None:
    """Compute, save into `own`, load from `others`, and print the hashes as JSON."""
    values = compute()
    found = {name: digest(value) for name, value in values.items()}
    for name, value in values.items():
        if name in CLASSES:
            value.save(own / name)
    loaded = {}
    if others is not None:
        for name, kind in CLASSES.items():
            try:
                loaded[name] = digest(find(kind).load(others / name))
            except ValueError as error:
                loaded[name] = f"refused: {error}"
    sys.stdout.write("\n" + json.dumps({"computed": found, "loaded": loaded}) + "\n")


def ask(checkout: Path, own: Path, others: Path | None) -> dict[str, dict[str, str]]:
    """Run this file with the package of a checkout."""
    own.mkdir()
    command = [sys.executable, __file__, "--run", str(own), *([str(others)] if others else [])]
    told = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=told, cwd=own, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(old: str, new: str | None = None) -> int:
    """Compare two checkouts; the new one is that of this file by default."""
    here = Path(new) if new else Path(inspect.getfile(main)).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        first = ask(Path(old).resolve(), Path(folder, "old"), None)
        second = ask(here.resolve(), Path(folder, "new"), Path(folder, "old"))
    wrong = 0
    for name, ours in first["computed"].items():
        same = ours == second["computed"][name]
        file = second["loaded"].get(name)
        read = "same" if file == ours else f"DIFFERS {file}"
        wrong += (not same) + (file is not None and file != ours)
        told = f"{name:12} {'same' if same else 'DIFFERS'}"
        sys.stdout.write(told + (f", old file {read}\n" if file is not None else "\n"))
    return int(wrong > 0)


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        run_checkout(Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    else:
        sys.exit(main(*sys.argv[1:]))
