"""``python -m lensneurons.demo.workshop.train``: make a demo model from nothing but this package.

    python -m lensneurons.demo.workshop.train --preset full --out FOLDER

A run that was stopped goes on when it is called again with the same arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

PRESETS = ("seconds", "full")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a model and say where it is.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0, or 2 where the folder holds something else.
    """
    options = _parser().parse_args(arguments)
    from dataclasses import replace

    import torch

    from lensneurons.demo.workshop.recipe import RECIPES
    from lensneurons.demo.workshop.training import train
    from lensneurons.errors import LensNeuronsError

    torch.set_num_threads(options.threads)
    changes = {name: getattr(options, name) for name in ("seed", "steps")}
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        folder = train(
            replace(RECIPES[options.preset], **given), options.out, progress=not options.quiet
        )
    except LensNeuronsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{folder}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.train",
        description="Train the demo model on word problems in ten languages, without outside data.",
    )
    parser.add_argument("--preset", choices=PRESETS, default="full", help="which recipe")
    parser.add_argument("--out", required=True, help="folder for the model; resumed if begun")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    parser.add_argument("--steps", type=int, help="another number of steps than the recipe's")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
