"""The command line: one command for each step, from `demo` and `collect` to `report`.

    lensneurons collect Qwen/Qwen3-0.6B-Base --corpus answers.jsonl --out runs/base
    lensneurons merge node1/run node2/run --out base.safetensors   # counts of several machines
    lensneurons identify runs/base --out results/      # neurons, table, report; or --json
    lensneurons identify runs/base --method script_lape --romanised runs/latin
    lensneurons parts runs/base                        # the four parts and their evidence
    lensneurons identify activations/mgsm --published  # the authors' own .pt counts
    lensneurons ablate Qwen/Qwen3-0.6B-Base runs/base --corpus answers.jsonl --languages zh,de \
        --classes specific,related --metric nll,accuracy --out runs/ablation
    lensneurons describe Qwen/Qwen3-0.6B-Base runs/base L12N345 L3N7 --corpus answers.jsonl \
        --save runs/cards
    lensneurons align Qwen/Qwen3-0.6B-Base --corpus problems.jsonl --languages zh,de \
        --out runs/zh-de
    lensneurons random-adapter runs/zh-de/adapter --out runs/random   # a control of equal norm
    lensneurons collect Qwen/Qwen3-0.6B-Base --adapter runs/zh-de/adapter --corpus answers.jsonl \
        --out runs/aligned
    lensneurons compare runs/base runs/aligned --trained zh,de   # a verdict on each claim
    lensneurons report runs/base runs/ablation runs/cards --out report.html

`options` declares the flags: each has the name of the argument of the function behind the command.
`inputs` opens what they name, and `commands` calls those functions. Without a command the help is
shown; a mistyped command or option is told what comes nearest. Bad input, and a file that cannot be
read or written, end with one line on stderr and exit code 2. Jobs that write a run folder continue
when they are called again.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lensneurons.cli.options import BAD_INPUT, build_parser
from lensneurons.errors import Explained, LensNeuronsError, shown

INTERRUPTED = 130
CLOSED = 141  # what a shell reports of a program that writes to a closed pipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 when interrupted, 141
    when nobody reads the output any more.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _warnings_in_one_line():
            code = _run(given)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        if sys.stdout is None:
            return CLOSED
        # Whoever read the output has enough of it, as `head` after ten lines.
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
        return CLOSED
    return code


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Write the package's own warnings to stderr without the line of code that gave them."""
    before = warnings.formatwarning

    def written(message: Any, category: type[Warning], *where: Any, **line: Any) -> str:
        if issubclass(category, Explained):
            return f"lensneurons: {message}\n"
        return before(message, category, *where, **line)

    warnings.formatwarning = written
    try:
        yield
    finally:
        warnings.formatwarning = before


def _run(given: list[str]) -> int:
    parser = build_parser()
    if not given:  # somebody asks what there is
        if sys.stdout is not None:
            parser.print_help(sys.stdout)
        return 0
    options = parser.parse_args(given)
    try:
        if unfit := [one for one in given if "\0" in one]:
            raise LensNeuronsError(f"{shown(unfit[0])} holds a NUL character, which no name has")
        from lensneurons.cli import commands  # torch and all: not before --help has answered

        getattr(commands, f"do_{options.command.replace('-', '_')}")(options)
    except LensNeuronsError as error:
        told, code = str(error), BAD_INPUT
    except BrokenPipeError:
        raise
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        told, code = f"{error.filename}: {error.strerror}" if named else str(error), BAD_INPUT
    except KeyboardInterrupt:
        told, code = "interrupted", INTERRUPTED
    else:
        return 0
    sys.stderr.write(f"lensneurons {options.command}: {' '.join(told.split())}\n")
    return code
