"""Peak memory of `collect` does not grow with the corpus: each size in a process of its own."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from timing import told


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    for texts in (16, 320):
        output = subprocess.run(
            [sys.executable, __file__, str(texts)], check=True, capture_output=True, text=True
        ).stdout
        model, peak = map(float, output.split())
        yield told(
            f"collect, {texts * 128:,} tokens, peak beside the model", peak - model, "MiB", 0
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    import torch
    from collection import build_model, word_corpus

    from lensneurons.activations.collection import collect

    torch.set_num_threads(1)
    _, bridge = build_model()
    before = _peak()
    collect(
        bridge, word_corpus(int(sys.argv[1]), 128), scope="all", batch_tokens=1024, progress=False
    )
    print(before, _peak())
