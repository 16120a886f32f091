"""The goals of CONTRIBUTING that can be measured: sizes, names, documentation, imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "lensneurons"
FILES = sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)
LONGEST_FILE = 600
NO_NAMES = ("utils", "util", "helpers", "helper", "manager", "engine", "misc", "common")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def public(path: Path) -> Iterator[tuple[str, ast.Module | ast.ClassDef | Function]]:
    """Modules, and functions, classes and methods whose names do not begin with ``_``."""
    module = tree(path)
    yield path.name, module
    for node in module.body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield f"{path.name}:{node.name}", node
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, Function) and not member.name.startswith("_"):
                        yield f"{path.name}:{node.name}.{member.name}", member


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_well_named(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert not set(path.stem.split("_")) & set(NO_NAMES)


def test_everything_public_is_documented() -> None:
    bare = [name for path in FILES for name, node in public(path) if not ast.get_docstring(node)]
    assert bare == []


def test_every_function_is_fully_annotated() -> None:
    """Public or not: every argument but self and cls, and every result."""
    lacking = []
    for path in FILES:
        for function in functions(path):
            spec = function.args
            arguments = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
            arguments += [a for a in (spec.vararg, spec.kwarg) if a is not None]
            bare = [a.arg for a in arguments if a.annotation is None]
            if set(bare) - {"self", "cls"} or function.returns is None:
                lacking.append(f"{path.name}:{function.name}")
    assert lacking == []


def test_no_print_no_assert_no_bare_except() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            match node:
                case ast.Assert() | ast.ExceptHandler(type=None):
                    found.append(f"{path.name}:{node.lineno} {type(node).__name__}")
                case ast.Call(func=ast.Name(id="print" | "breakpoint" | "eval" | "exec" as name)):
                    found.append(f"{path.name}:{node.lineno} {name}")
    assert found == []


def test_options_after_the_second_argument_are_keywords() -> None:
    """The functions at the top level of the package: at most two arguments by position."""
    stub = tree(ROOT / "__init__.pyi")
    exported = {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    wordy = []
    for name, module in exported.items():
        path = ROOT / f"{(module or '').replace('.', '/')}.py"
        if path.is_file():
            wordy += [
                name
                for node in tree(path).body
                if isinstance(node, Function) and node.name == name and len(node.args.args) > 3
            ]
    assert wordy == []


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, lensneurons\n"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'transformer_lens', 'plotly'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_exported_name_is_there() -> None:
    import lensneurons

    missing = [name for name in lensneurons.__all__ if getattr(lensneurons, name, None) is None]
    assert missing == []
