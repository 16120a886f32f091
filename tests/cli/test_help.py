"""The help: shown without a command, with two examples of each that read, and the nearest name."""

from __future__ import annotations

import re
import shlex

import pytest

from lensneurons.cli import commands, main
from lensneurons.cli.examples import EXAMPLES
from lensneurons.cli.options import build_parser

NAMES = [
    name.removeprefix("do_").replace("_", "-") for name in vars(commands) if name.startswith("do_")
]


def told(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(list(arguments))
    except SystemExit as end:
        code = int(str(end.code))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_without_a_command_the_help_is_shown(capsys) -> None:
    code, out, err = told(capsys)
    assert (code, err) == (0, "")
    assert [name for name in NAMES if not re.search(rf"^ +{name}\s", out, re.M)] == []
    assert "Begin with: lensneurons demo" in out


def test_every_command_has_two_examples_that_it_reads(capsys) -> None:
    assert list(EXAMPLES) == NAMES
    for name, examples in EXAMPLES.items():
        code, out, _ = told(capsys, name, "--help")
        assert code == 0
        assert len(set(examples)) == 2
        for example in examples:
            assert f"\n  {example}\n" in out
            program, *rest = shlex.split(example)
            options = build_parser().parse_args(rest)
            assert (program, options.command) == ("lensneurons", name)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("colect m", "lensneurons: 'colect' is no command, did you mean collect?; there are demo,"),
        ("reprot", "'reprot' is no command, did you mean report?"),
        ("xyzzy", "'xyzzy' is no command; there are demo, study, collect"),
        ("collect m --limt 2", "lensneurons collect: '--limt' is no option, did you mean --limit?"),
        ("ablate m r --batch-token=9 --metrik nll", "'--metrik' is no option, did you mean --met"),
        (
            "parts r --qqqq",
            "lensneurons parts: '--qqqq' is no option (see lensneurons parts --help)",
        ),
        ("identify r -- --odd", "unrecognized arguments: --odd"),
    ],
)
def test_what_is_mistyped_is_told_its_nearest(arguments: str, line: str, capsys) -> None:
    code, out, err = told(capsys, *arguments.split())
    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1


def test_a_value_that_looks_like_an_option_is_none(capsys) -> None:
    """What stands behind an equals sign is a value, and a prefix of one option is that option."""
    given = ["collect", "m", "--corp=demo", "--out", "x", "--system=--limt", "--chat"]
    assert build_parser().parse_args(given).system == "--limt"
