"""What every test runs under: no network, one thread, and annotated shapes checked."""

from __future__ import annotations

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import shape_checks
from pytest_socket import disable_socket

gc.disable()  # until all is imported: a fifth of the time went into looking through modules

# From here on an array of another shape or dtype than a function's annotation is an error. The
# demo world holds no arrays, and checking its strings would take minutes.
PACKAGE = Path(__file__).parents[1] / "lensneurons"
PACKAGES = [path.stem for path in PACKAGE.iterdir() if path.stem != "demo"]
shape_checks.install(f"lensneurons.{name}" for name in PACKAGES)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Block the network for every test and fixture; the mark ``enable_socket`` lifts it."""
    shape_checks.begin_test()
    disable_socket(allow_unix_socket=True)


# Begun first, so that no process is left with one of them when the others have ended.
SLOWEST = ["test_notebooks.py", "test_forms.py", "test_model.py", "test_docs.py", "test_cli.py"]
SLOWEST += ["test_study.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first, and leave the rest in its order."""
    items.sort(key=lambda item: (*SLOWEST, item.path.name).index(item.path.name))


def pytest_collection_finish() -> None:
    """Let the garbage collector look at what tests make, and no more at what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``model_folder("Llama")``: a tiny random model, saved as Hugging Face saves one."""
    from tiny import save_model

    @lru_cache
    def saved(architecture: str, seed: int | None = None) -> Path:
        return save_model(architecture, tmp_path_factory.mktemp(architecture), seed)

    return saved


@pytest.fixture(scope="session")
def bridge(model_folder: Callable[..., Path]) -> Callable[..., Any]:
    """``bridge("Llama")``: the same model loaded once; no test may leave it changed."""
    from lensneurons.models.loading import load_model

    return lru_cache(lambda architecture: load_model(model_folder(architecture), device="cpu"))


@pytest.fixture(scope="session")
def experts(
    model_folder: Callable[..., Path], bridge: Callable[..., Any]
) -> Callable[[str], tuple[Path, Any]]:
    """``experts("Mixtral")``: folder and model of one of `tiny.EXPERTS`."""
    return lambda architecture: (model_folder(architecture), bridge(architecture))


@pytest.fixture(scope="session")
def llama(bridge: Callable[..., Any]) -> Any:
    """The Llama that all tests share."""
    return bridge("Llama")


@pytest.fixture
def own(model_folder: Callable[..., Path]) -> Any:
    """A Llama of the test's own, to be changed."""
    from lensneurons.models.loading import load_model

    return load_model(model_folder("Llama"), device="cpu")
