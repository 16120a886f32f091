"""The plan for a large model says only what the package can do: commands parse, names exist."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import lensneurons as ln
from lensneurons.cli.options import build_parser

PLAN = (Path(__file__).parents[1] / "assets" / "scale.md").read_text(encoding="utf-8")
CODE = re.findall(r"```(\w+)\n(.*?)```", PLAN, re.S)


def commands() -> list[str]:
    """Every command of the plan: lines of its shell blocks, and what stands between backticks."""
    shell = "\n".join(text for language, text in CODE if language == "sh").replace("\\\n", " ")
    lines = [line.strip() for line in shell.splitlines()]
    quoted = re.findall(r"`(lensneurons [^`]*)`", PLAN)
    return [*(one for one in lines if one.startswith("lensneurons ")), *quoted]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_plan_parses(command: str) -> None:
    _, *given = shlex.split(command, comments=True)
    assert build_parser().parse_args(given).command == given[0]


def test_the_plan_has_the_commands_that_it_is_about() -> None:
    named = {one.split()[1] for one in commands()}
    assert {"study", "collect", "merge", "identify", "report"} <= named
    options = {word for one in commands() for word in one.split() if word.startswith("--")}
    assert {"--stream", "--dry-run", "--engine", "--worker-gpus", "--ray-address"} <= options


def test_functions_of_the_plan_exist_and_take_its_arguments() -> None:
    checked = []
    for language, text in CODE:
        for call in ast.walk(ast.parse(text)) if language == "python" else ():
            if isinstance(call, ast.Call) and (name := ast.unparse(call.func)).startswith("ln."):
                function: Any = ln
                for part in name.split(".")[1:]:
                    function = getattr(function, part)
                named = [one.arg for one in call.keywords if one.arg]
                own = inspect.signature(function)
                own.bind_partial(*call.args, **dict.fromkeys(named))
                checked.append(name)
    assert {"ln.engines.RayEngine", "ln.collect", "ln.activations.merge_statistics"} <= {*checked}
