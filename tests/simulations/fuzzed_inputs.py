"""Feed damaged and odd inputs to all corpus readers and to the command line, and count what comes.

    python tests/simulations/fuzzed_inputs.py [inputs, default 100000] [lines, default 200] [seed]

``read`` is what was read as an independent reader reads it, ``refused`` what ended in an error of
the package. Nothing may be ``changed``, end in a ``traceback`` or be ``slow`` (over 10 seconds):
then the exit code is 1, and the first few are shown with their numbers, by which
`fuzzing.try_input` draws them again. Interrupted, it shows what it has.
100,000 inputs and 200 command lines take about two minutes of one core.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import fuzzing
from edited import draw_statistics

WORDS = ("read", "refused", "changed", "traceback", "slow")


def main(inputs: int = 100_000, lines: int = 200, seed: int = 0) -> int:
    began = time.perf_counter()
    found: dict[str, Counter[str]] = {}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name, suppress(KeyboardInterrupt):
        folder = Path(name)
        draw_statistics().save(folder / "statistics.safetensors")
        places = [name, f"{name}/nowhere", f"{name}/a.jsonl", f"{name}/en.txt", "/dev/null"]
        random = Random(seed)
        for number in range(lines):
            line = fuzzing.command_line(random, places)
            word, told = fuzzing.try_command(line)
            found.setdefault("command lines", Counter())[word] += 1
            if word not in WORDS[:2]:
                faults.append(f"line {number}: {word} {line!r:.300}\n{told}")
        for number in range(inputs):
            kind, word, told = fuzzing.try_input(number, seed, folder)
            found.setdefault(kind, Counter())[word] += 1
            if word not in WORDS[:2]:
                faults.append(f"input {number} ({kind}): {word}\n{told}")
    print(f"{'':14}" + "".join(f"{word:>11}" for word in WORDS))
    for kind, counts in found.items():
        print(f"{kind:14}" + "".join(f"{counts[word]:>11}" for word in WORDS))
    print(f"seed {seed}, {time.perf_counter() - began:.0f} s, {len(faults)} faults")
    print("\n".join(faults[:10]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
