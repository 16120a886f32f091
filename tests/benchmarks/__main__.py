"""Ratios rather than seconds: ours against plain Hugging Face and against the published algorithm.

    python tests/benchmarks                    # everything, about ten minutes on two cores
    python tests/benchmarks identification     # one of those below

Both sides of a ratio run in turn in one process; the median and the spread of the pairs are told.
The numbers of each section go into ``assets/benchmarks.json``, in place of those that were there.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import ablation
import collection
import cost
import explorer
import fixed_costs
import gpu
import identification
import memory
import methods
import preparation
import workers
from timing import RECORDS

from lensneurons.values.files import save_json
from lensneurons.values.provenance import library_versions

BENCHMARKS = {
    "identification": identification,
    "collection": collection,
    "memory": memory,
    "ablation": ablation,
    "preparation": preparation,
    "fixed_costs": fixed_costs,
    "explorer": explorer,
    "cost": cost,
    "methods": methods,
    "workers": workers,
    "gpu": gpu,
}
FILE = Path(__file__).parents[2] / "assets" / "benchmarks.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=FILE, help="where the numbers go")
    options = parser.parse_args()
    for name in options.which or BENCHMARKS:
        print(f"\n## {name}\n")
        RECORDS.clear()
        lines = []
        for line in BENCHMARKS[name].measure(options.rounds):
            print(line, flush=True)
            lines.append(line)
        if RECORDS:
            _keep(options.json, name, lines, options.rounds)


def _keep(file: Path, section: str, lines: list[str], rounds: int) -> None:
    """Put the numbers of a section into the file, beside those of the other sections."""
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    measured = {one["name"] for one in RECORDS}
    found[section] = {
        "measured": RECORDS,
        "told": [line for line in lines if line.split(": ")[0] not in measured],
        "rounds": rounds,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": library_versions(),
    }
    save_json(file, found, sealed=False)


if __name__ == "__main__":
    main()
