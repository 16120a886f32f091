"""Adapters: low-rank changes of a model's weights, added to them when it is loaded.

An adapter is a PEFT folder: ``adapter_config.json`` and ``adapter_model.safetensors``. It is merged
into the weights (``W + alpha / rank * B A``), so that what comes after sees a plain model: the same
hooks, the same speed. The demo model comes with some of its own, `demo_adapters`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lensneurons.errors import LensNeuronsError, ModelError, choose

DEMO_ADAPTERS = Path(__file__).parents[1] / "demo" / "adapters"
CONFIG = "adapter_config.json"


def demo_adapters() -> list[str]:
    """Names of the adapters of the demo model, such as ``"zh-de"`` and ``"zh-de/100"``."""
    found = (path.parent.relative_to(DEMO_ADAPTERS) for path in DEMO_ADAPTERS.rglob(CONFIG))
    return sorted(map(Path.as_posix, found))


def add_adapter(
    hugging_face: Any, name: str, adapter: str | Path, local_files_only: bool = False
) -> Any:
    """Merge an adapter into a model.

    Args:
        hugging_face: a causal language model; its weights change.
        name: the name that it goes by, ``"demo"`` for the package's own.
        adapter: as in `load_model`.
        local_files_only: never ask the hub.

    Returns:
        The model with the sum of both as its weights.

    Raises:
        ModelError: no such adapter, or one of another model.
        LensNeuronsError: PEFT is not installed.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise LensNeuronsError(
            "adapters need peft, which is not installed: pip install 'lensneurons[align]'"
        ) from None
    from safetensors import SafetensorError

    source = _find(name, adapter)
    local: dict[str, Any] = {"local_files_only": local_files_only or Path(source).is_dir()}
    try:
        with quiet():
            adapted = PeftModel.from_pretrained(hugging_face, source, **local)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"adapter {str(adapter)!r} does not fit {name!r} or could not be read: {reason}"
        ) from error
    return adapted.merge_and_unload().eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what PEFT and TRL make transformers say of its next version away from the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _find(name: str, adapter: str | Path) -> str:
    """Folder or hub name of an adapter."""
    path = Path(adapter).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise ModelError(f"{path} holds no {CONFIG}: it is no PEFT adapter")
        return str(path)
    if name == "demo" and not path.is_absolute():
        return str(DEMO_ADAPTERS / choose(str(adapter), demo_adapters(), "adapter"))
    if path.is_absolute() or str(adapter).startswith((".", "~")) or str(adapter).count("/") > 1:
        raise ModelError(f"{adapter} is not a folder: give a hub name or the folder of an adapter")
    return str(adapter)
