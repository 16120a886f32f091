"""1,000 random single-bit flips and 500 truncations over every kind of saved file.

    python tests/simulations/damaged_files.py        # seeds 0 and 1; about 10 seconds on one core

A damaged file must be refused, or hold what it held (a flip of padding, or of ``1e5`` to ``1E5``).
The exit code is 1 where one of them reads as something else, or raises anything but an error of the
package. Not part of the suite, which damages 150 files.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "support")]

from saved_files import CUT, FLIPPED, damage_many, write_all  # noqa: E402
from test_saved_values import VALUES  # noqa: E402


def main() -> int:
    """Damage the files, and write one line a kind of file and damage."""
    began, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        files = write_all(Path(folder), VALUES)
        wrong = [name for name, saved in files.items() if saved.read() != saved.holds]
        sys.stdout.write(f"undamaged: {len(files) - len(wrong)} of {len(files)} equal {wrong}\n")
        bad += len(wrong)
        for how, number, seed in ((FLIPPED, 1000, 0), (CUT, 500, 1)):
            total: Counter[str] = Counter()
            for name, outcomes in damage_many(files, how, number, seed).items():
                told = ", ".join(f"{what} {n}" for what, n in outcomes.items())
                sys.stdout.write(f"{how}, {name}: {told}\n")
                for what, n in outcomes.items():
                    total[what.split(":")[0]] += n
            kinds = ("refused", "equal", "silently different", "traceback")
            told = ", ".join(f"{kind} {total[kind]}" for kind in kinds)
            sys.stdout.write(
                f"{how}, {number} times over {len(files)} files, seed {seed}: {told}\n"
            )
            bad += total["silently different"] + total["traceback"]
    sys.stdout.write(f"{time.monotonic() - began:.0f} seconds\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
