"""What a user installs: the package and its data, without the workshop of the demo model."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from subprocess import run

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lensneurons"
WORKSHOPS = ("lensneurons/demo/workshop/", "lensneurons/samples/workshop.py")
LARGEST = 20_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip(
        "hatchling", reason="no wheel is tested: pip install -e '.[dev]' builds one"
    )
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run(command, cwd=ROOT, check=True, capture_output=True)
    [made] = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_package_and_its_data_but_no_workshop(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == {name for name in there if not name.startswith(WORKSHOPS)}
    assert wheel.stat().st_size <= LARGEST
    assert {name.rsplit(".", 1)[-1] for name in held} >= {"toml", "safetensors", "json", "jinja"}


def test_the_demo_world_and_model_work_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Nothing that a user reaches needs the workshop."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import lensneurons as ln; from lensneurons.demo.world import *\n"
        f"assert ln.__file__.startswith(r'{tmp_path}'), ln.__file__\n"
        "assert len({render(generate('test', 1)[0], code) for code in LANGUAGES}) == 10\n"
        "assert ln.load_sample('gemma-3-270m').statistics.n_layers == 18\n"
        "assert ln.load_model('demo', adapter='sw-th/20', device='cpu').cfg.n_layers == 12\n"
    )
    run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_nothing_outside_the_workshop_imports_it() -> None:
    for path in PACKAGE.rglob("*.py"):
        if not path.relative_to(ROOT).as_posix().startswith(WORKSHOPS):
            text = path.read_text(encoding="utf-8")
            assert not any(f"{name}.workshop" in text for name in ("demo", "samples")), path
