"""Planted models: verdicts of every claim about one model, with the paper's picture and without.

    python tests/simulations/model_claims.py --worlds 12 --nothing 100

RESULTS
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import model_worlds as planted
import numpy as np

import lensneurons as ln
from lensneurons.comparison.paper_claims import Claims

LARGE = {"n_layers": 32, "d_mlp": 800}
WORLDS = {
    "paper": (planted.FEATURES, LARGE),
    "model": (("layers", "floor"), LARGE),
    "languages": (("removal", "english", "scripts"), LARGE),
    "nothing": ((), {"n_layers": 20, "d_mlp": 300}),
    "12 layers": ((), {"n_layers": 12, "d_mlp": 300}),
}


def judge(random: np.random.Generator, features: tuple[str, ...], shape: dict[str, int]) -> Claims:
    """The claims of a planted model."""
    statistics, neurons, matrix = planted.planted(random, features, **shape)
    parts = ln.divide_layers(neurons, statistics, draws=20)
    return ln.studies.model_claims(neurons, statistics=statistics, parts=parts, effects=matrix)


def main() -> None:
    """Print the share of worlds in which each claim holds / does not hold."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--worlds", type=int, default=12, help="worlds with anything of the paper")
    options.add_argument("--nothing", type=int, default=100, help="worlds without, of each size")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    began = time.process_time()
    verdicts: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    wrong: Counter[str] = Counter()
    numbers = {}
    for place, (world, (features, shape)) in enumerate(WORLDS.items()):
        number_of = given.worlds if features else given.nothing
        if not number_of:
            continue
        numbers[world] = number_of
        for number in range(number_of):
            found = judge(np.random.default_rng((given.seed, place, number)), features, shape)
            for row in found:
                verdicts[row.claim][world][row.verdict] += 1
            wrong[world] += bool(planted.false_holds(found, features))
    told = [f"{'holds / does not hold':70}" + "".join(f"{world:>12}" for world in numbers)]
    for claim, by_world in verdicts.items():
        rates = (
            f"{by_world[w]['holds'] / n:.2f}/{by_world[w]['does not hold'] / n:.2f}"
            for w, n in numbers.items()
        )
        told.append(f"{claim[:69]:70}" + "".join(f"{rate:>12}" for rate in rates))
    rates = (f"{wrong[world] / n:.2f}" for world, n in numbers.items())
    told.append(f"{'any holds that should not':70}" + "".join(f"{rate:>12}" for rate in rates))
    told.append(f"{numbers}, seed {given.seed}, {time.process_time() - began:.0f} s")
    sys.stdout.write("\n".join(told) + "\n")


if __name__ == "__main__":
    main()
