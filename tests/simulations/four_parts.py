"""How often `divide_layers` finds the four parts: where they are, and where they are not.

RESULTS

Run from the repository: `python tests/simulations/four_parts.py --profiles 100`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from layer_profiles import MISTRAL, interpolated, noisy, shapes

from lensneurons.neurons.parts import LayerParts, divide_layers

Draw = Callable[[np.random.Generator], np.ndarray]


def worlds() -> Iterator[tuple[str, Draw]]:
    """Every world with its name: the published profile, its likes, and profiles without parts."""
    for noise in (0.1, 0.2, 0.05, 0.3):
        yield f"published, 32 layers, noise {noise:.0%}", lambda r, s=noise: noisy(MISTRAL, s, r)
    for n in (12, 16, 20, 24, 28, 40, 60, 80):
        name = f"published, on {n} layers, noise 10%"
        yield name, lambda r, n=n: noisy(interpolated(n), 0.1, r)
    for n in (32, 12):
        yield f"shuffled, {n} layers", lambda r, n=n: r.permutation(interpolated(n).round())
        name = f"reversed, {n} layers, noise 10%"
        yield name, lambda r, n=n: noisy(interpolated(n)[::-1], 0.1, r)
        for kind, shape in shapes().items():
            name = f"{kind}, {n} layers, noise 10%"
            yield name, lambda r, n=n, make=shape: noisy(make(n, r), 0.1, r)

        yield (
            f"smooth random, {n} layers, no noise",
            lambda r, n=n: shapes()["smooth random"](n, r).round(),
        )


def tell(name: str, found: list[LayerParts]) -> str:
    """A row: share found, shares with 4, 3, 2 and no parts, shares of small p."""
    numbers = np.array([len(parts.parts) for parts in found])
    shares = [np.mean([parts.found for parts in found])]
    shares += [np.mean(numbers == n) for n in (4, 3, 2, 0)]
    shares += [np.mean([parts.fewer_p <= 0.05 for parts in found])]
    shares += [np.mean([max(parts.fewer_p, parts.trend_p) <= 0.05 for parts in found])]
    return f"{name:45}" + "".join(f"{share:9.3f}" for share in shares)


def main() -> None:
    """Print one row a world."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--profiles", type=int, default=100, help="profiles a world")
    options.add_argument("--draws", type=int, default=30, help="draws of every interval and test")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="worlds whose name contains it")
    given = options.parse_args()
    head = ("found", "4 parts", "3", "2", "none", "p fewer", "p both")
    sys.stdout.write(f"{'':45}" + "".join(f"{word:>9}" for word in head) + "\n")
    for name, draw in worlds():
        if given.only not in name:
            continue
        random = np.random.default_rng(given.seed)
        profiles = [draw(random).astype(np.int64) for _ in range(given.profiles)]
        found = [divide_layers(one, draws=given.draws, seed=i) for i, one in enumerate(profiles)]
        sys.stdout.write(tell(name, found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
