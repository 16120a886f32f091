"""STYLE.md's measured goals, kept: sizes, names, documentation, and the direction of the imports.

The body of a function is counted in lines of its source from its first statement to its last,
without its docstring; lines of nested functions belong to both.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "lensneurons"
FILES = sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)
LONGEST_FILE = 350
MEDIAN_FUNCTION = 12
NO_NAMES = ("utils", "util", "helpers", "helper", "manager", "engine", "misc", "common")
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Who may import whom: a file imports, at its top, only from the rows above its own. Files of one
# row do not know each other. New files get a place here.
LAYERS = [
    "errors shapes display corpora/items tokens/excerpts cards/html __init__",
    "storage provenance languages evaluation/numerals models/adapters",
    "corpora/problems corpora/readers tokens/encoded language_identification demo/world",
    "corpora/sources activations/statistics identification/scores comparison/class_tables "
    "comparison/sharing segments tokens/seams",
    "intervals comparison/paired_counts identification/lambda_search identification/neuron_sets",
    "corpora/parallel identification/controls activations/published identification/neurons "
    "tokens/batches evaluation/item_intervals comparison/group_tests",
    "tokens/encoding models/loading identification/classification",
    "models/sites evaluation/decoding cards/records",
    "models/forward activations/reduction phases comparison/run_overlap interventions/changes "
    "cards/vocabulary evaluation/responses evaluation/answers experiments/patch_pairs",
    "run_folders comparison/class_changes evaluation/answer_changes tokens/prepared "
    "experiments/patch_results experiments/steering_curves experiments/lens_curves",
    "activations/runs comparison/tables comparison/claim_rows evaluation/answering",
    "activations/recording activations/collection evaluation/likelihood cards/contexts",
    "interventions/neurons experiments/ablation_effects interventions/patching cards/card",
    "experiments/ablation_cells experiments/patch_runs experiments/steering cards/attribution "
    "comparison/before_after comparison/claims experiments/lens",
    "experiments/ablation comparison/series",
    "plots",
    "cards/describing",
    "alignment page views",
    "demo",
    "cli",
    "__main__",
]
# Imports inside functions may also point down where a method hands its work to the file that does
# it, so that the object in the user's hand has the verb: `from_cache`, `random_control`.
DOWNWARD = {
    ("activations/statistics", "activations/reduction"),
    ("identification/neuron_sets", "identification/controls"),
    ("models/loading", "models/sites"),
    ("identification/neurons", "cards/records"),
    ("identification/neurons", "cards/describing"),
    ("comparison/class_changes", "comparison/tables"),
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


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


def test_the_median_function_is_short() -> None:
    lengths = [body_lines(function) for path in FILES for function in functions(path)]
    assert len(lengths) > 100
    assert statistics.median(lengths) <= MEDIAN_FUNCTION


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
            bad = (
                (isinstance(node, ast.Assert) and "assert")
                or (isinstance(node, ast.ExceptHandler) and node.type is None and "bare except")
                or (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in ("print", "breakpoint", "eval", "exec")
                    and node.func.id
                )
            )
            if bad:
                found.append(f"{path.name}:{node.lineno} {bad}")
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


def place_of(name: str) -> str | None:
    """Where in `LAYERS` a name of the package stands: the longest part of it that is there.

    ``demo.world.thai`` counts as ``demo/world``, ``plots.maps`` as ``plots``, and
    ``models.loading.load_model`` as ``models/loading``.
    """
    parts = name.split(".")
    heads = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((head for head in heads if head in RANK), None)


def dotted(path: Path) -> str:
    """The name of a file in the package; a package with nothing but a docstring is ``__init__``."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    empty = path.stem == "__init__" and len(tree(path).body) == 1
    return "__init__" if empty else name


RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row.split()}
MODULES = {path: place_of(dotted(path)) or dotted(path) for path in FILES}


def imports(path: Path, *, at_top: bool) -> Iterator[str]:
    """Modules of the package that a file imports, at its top or inside functions.

    Imports under ``if TYPE_CHECKING`` are for annotations alone and do not count.
    """
    module = tree(path)
    inside, typing = set(), set()
    for node in ast.walk(module):
        if isinstance(node, Function):
            inside |= {id(n) for n in ast.walk(node)}
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            typing |= {id(n) for n in ast.walk(node)}
    for node in ast.walk(module):
        if id(node) in typing or (id(node) in inside) == at_top:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lensneurons":
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from filter(None, (place_of(n.removeprefix("lensneurons.")) for n in names))


def test_every_file_has_its_place() -> None:
    homeless = sorted(set(MODULES.values()) - set(RANK))
    assert homeless == [], f"say in LAYERS of tests/test_style.py which row {homeless} stand in"


def test_nothing_upstream_imports_anything_downstream() -> None:
    wrong = [
        f"{name} imports {other}"
        for path, name in MODULES.items()
        for other in imports(path, at_top=True)
        if other != name and RANK[other] >= RANK[name]
    ]
    assert wrong == []


def test_imports_inside_functions_go_up_but_for_the_named_ones() -> None:
    wrong = {
        (name, other)
        for path, name in MODULES.items()
        for other in imports(path, at_top=False)
        if other != name and RANK[other] >= RANK[name]
    }
    assert wrong - DOWNWARD == set()


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
