"""How often `divide_layers` finds the four parts: where they are, and where they are not.

Columns: share of profiles whose four parts are found; whose parts are four (with a claim about the
whole refuted where that is more than found), three, two or none; with p <= .05 of "three segments
are enough"; with both p <= .05, that is also of "cubic trends are enough". 200 profiles a world,
seed 0, about 140 seconds of one core:

                                            found 4 parts       3       2    none p fewer  p both
    published, 32 layers, noise 10%          1.00    1.00    0.00    0.00    0.00    1.00    1.00
    published, 32 layers, noise 20%          0.82    0.84    0.16    0.00    0.00    1.00    1.00
    published, 32 layers, noise 5%           1.00    1.00    0.00    0.00    0.00    1.00    1.00
    published, 32 layers, noise 30%          0.44    0.46    0.44    0.00    0.10    1.00    1.00
    published, on 12 layers, noise 10%       0.51    0.51    0.00    0.00    0.49    0.68    0.40
    published, on 16 layers, noise 10%       0.93    0.93    0.01    0.00    0.07    0.99    0.90
    published, on 20 layers, noise 10%       1.00    1.00    0.00    0.00    0.00    1.00    0.99
    published, on 24 layers, noise 10%       1.00    1.00    0.00    0.00    0.00    1.00    1.00
    published, on 28 layers, noise 10%       1.00    1.00    0.00    0.00    0.00    1.00    1.00
    published, on 40 layers, noise 10%       0.99    0.99    0.01    0.00    0.00    1.00    1.00
    published, on 60 layers, noise 10%       1.00    1.00    0.00    0.00    0.00    1.00    1.00
    published, on 80 layers, noise 10%       1.00    1.00    0.00    0.00    0.00    1.00    1.00
    shuffled, 32 layers                      0.00    0.00    0.00    0.01    0.99    0.03    0.03
    reversed, 32 layers, noise 10%           0.00    0.07    0.47    0.36    0.10    1.00    1.00
    flat, 32 layers, noise 10%               0.00    0.00    0.00    0.01    0.99    0.01    0.00
    monotone, 32 layers, noise 10%           0.00    0.00    0.00    0.13    0.87    1.00    0.00
    sigmoid, 32 layers, noise 10%            0.00    0.00    0.00    0.10    0.90    1.00    0.99
    U-shaped, 32 layers, noise 10%           0.00    0.00    0.12    0.13    0.75    1.00    0.00
    V-shaped, 32 layers, noise 10%           0.00    0.00    0.12    0.17    0.71    0.99    0.03
    smooth random, 32 layers, noise 10%      0.01    0.01    0.12    0.17    0.70    0.97    0.60
    smooth random, 32 layers, no noise       0.00    0.02    0.10    0.20    0.68    0.99    0.58
    shuffled, 12 layers                      0.00    0.00    0.00    0.01    0.99    0.03    0.01
    reversed, 12 layers, noise 10%           0.00    0.00    0.00    0.95    0.05    0.72    0.43
    flat, 12 layers, noise 10%               0.00    0.00    0.00    0.00    1.00    0.01    0.00
    monotone, 12 layers, noise 10%           0.00    0.00    0.00    0.19    0.81    0.49    0.00
    sigmoid, 12 layers, noise 10%            0.00    0.00    0.00    0.17    0.83    0.55    0.42
    U-shaped, 12 layers, noise 10%           0.00    0.00    0.15    0.18    0.67    0.28    0.00
    V-shaped, 12 layers, noise 10%           0.00    0.00    0.15    0.18    0.66    0.19    0.00
    smooth random, 12 layers, noise 10%      0.00    0.00    0.03    0.16    0.81    0.20    0.04
    smooth random, 12 layers, no noise       0.00    0.00    0.04    0.10    0.86    0.22    0.04

Of worlds without parts only waves show all four, in 1 %. Reversed layers have all four places in
some draws, with the fewest agnostic neurons in the wrong part. A smooth curve passes "three
segments" nearly always and "cubic trends" never if it is monotone, U- or V-shaped; a steep sigmoid
and waves pass both, so a small p is no evidence for parts by itself.

Run from the repository: `python tests/simulations/four_parts.py --profiles 50`.
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
    return f"{name:37}" + "".join(f"{share:8.2f}" for share in shares)


def main() -> None:
    """Print one row a world."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--profiles", type=int, default=100, help="profiles a world")
    options.add_argument("--draws", type=int, default=30, help="draws of every interval and test")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="worlds whose name contains it")
    given = options.parse_args()
    head = ("found", "4 parts", "3", "2", "none", "p fewer", "p both")
    sys.stdout.write(f"{'':37}" + "".join(f"{word:>8}" for word in head) + "\n")
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
