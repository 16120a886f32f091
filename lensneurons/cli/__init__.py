"""The command line: one command for each step, from `demo` and `collect` to `report`.

Each command is the function of the same name with its options as flags. Bad input, and a file or
folder that cannot be read or written, end with one line on stderr and exit code 2. Nothing heavy is
imported before a command runs, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from lensneurons.cli.options import add_commands

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 when interrupted."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:
        from lensneurons.errors import LensNeuronsError

        if not isinstance(error, LensNeuronsError):
            raise
        return _end(options.command, str(error), BAD_INPUT)
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        told = f"{error.filename}: {error.strerror}" if named else str(error)
        return _end(options.command, told, BAD_INPUT)
    except KeyboardInterrupt:
        return _end(options.command, "interrupted", INTERRUPTED)
    return 0


def _end(command: str, told: str, code: int) -> int:
    """Say in one line why a command ends, and return its exit code."""
    sys.stderr.write(f"lensneurons {command}: {' '.join(told.split())}\n")
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from lensneurons import __version__

    parser = _Parser(
        prog="lensneurons",
        description="Find the neurons of a language model that belong to one language, to several, "
        "or to all, the four parts that they divide the layers into, and what removing them does.",
    )
    parser.add_argument("--version", action="version", version=f"lensneurons {__version__}")
    add_commands(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    return parser
