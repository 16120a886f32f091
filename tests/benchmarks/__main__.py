"""Ratios, never seconds: ours against plain Hugging Face and against the published algorithm.

    python tests/benchmarks                    # everything, about ten minutes on two cores
    python tests/benchmarks identification     # one of those below

Both sides of a ratio run in turn in one process; the median and the spread of the pairs are told.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import ablation
import collection
import explorer
import fixed_costs
import identification
import memory
import preparation

BENCHMARKS = {
    "identification": identification,
    "collection": collection,
    "memory": memory,
    "ablation": ablation,
    "preparation": preparation,
    "fixed_costs": fixed_costs,
    "explorer": explorer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name in options.which or BENCHMARKS:
        print(f"\n## {name}\n")
        for line in BENCHMARKS[name].measure(options.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
