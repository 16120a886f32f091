"""Adapters: low-rank changes of a model's weights, added to them when it is loaded.

An adapter is a PEFT folder: ``adapter_config.json`` and ``adapter_model.safetensors``. It is merged
into the weights (``W + alpha / rank * B A``), so that what comes after sees a plain model: the same
hooks, the same speed. The demo model comes with some of its own, `demo_adapters`.

A folder that this package made has a third file, ``lensneurons.json``: hashes of the other two, and
what the adapter is where it is a control. A folder whose files have other hashes is refused.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lensneurons.errors import LensNeuronsError, ModelError, StorageError, choose
from lensneurons.models.identity import first_sentence, hash_weights
from lensneurons.models.weights import probe_logits
from lensneurons.values.files import load_json

DEMO_ADAPTERS = Path(__file__).parents[1] / "demo" / "adapters"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MARK = "lensneurons.json"


def demo_adapters() -> list[str]:
    """Names of the adapters of the demo model, such as ``"zh-de"`` and ``"zh-de/40"``."""
    found = (path.parent.relative_to(DEMO_ADAPTERS) for path in DEMO_ADAPTERS.rglob(CONFIG))
    return sorted(map(Path.as_posix, found))


def add_adapter(
    hugging_face: Any,
    name: str,
    adapter: str | Path,
    local_files_only: bool = False,
    revision: str | None = None,
) -> Any:
    """Merge an adapter into a model, and prove that the sum is what PEFT computes with both.

    Args:
        hugging_face: a causal language model; its weights change.
        name: the name that it goes by, ``"demo"`` for the package's own.
        adapter: as in `load_model`.
        local_files_only: never ask the hub.
        revision: branch, tag or commit of the adapter on the hub.

    Returns:
        The model with the sum of both as its weights.

    Raises:
        ModelError: no such adapter, one of another model, or one that is more than a change of
            weights (prompt tuning, a low-rank change of tied embeddings).
        StorageError: a file of the adapter is not the one that this package wrote there.
        LensNeuronsError: PEFT is not installed.

    Warns:
        UserWarning: the adapter changes no weight.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise LensNeuronsError(
            "adapters need peft, which is not installed: pip install 'lensneurons[align]'"
        ) from None
    source = _find(name, adapter)
    read_mark(source)
    options: dict[str, Any] = {"local_files_only": local_files_only or Path(source).is_dir()}
    options |= {"revision": revision} if revision else {}
    before = hash_weights(hugging_face)
    refusal = f"adapter {str(adapter)!r} does not fit {name!r} or could not be read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT warns of is refused below
            adapted: Any = PeftModel.from_pretrained(hugging_face, source, **options).eval()
            if not hasattr(adapted.base_model, "merge_and_unload"):
                raise ValueError(f"{adapted.active_peft_config.peft_type.value} changes no weights")
            _require_all_used(adapted, source, options)
            wanted = probe_logits(adapted)
            merged = adapted.merge_and_unload().eval()
    except Exception as error:  # PEFT raises whatever a wrong file or configuration ends in
        raise ModelError(f"{refusal}: {first_sentence(error)}") from error
    if hash_weights(merged) == before:
        warnings.warn(
            f"adapter {str(adapter)!r} changes no weight of {name!r}: it is untrained, its alpha "
            "is 0, or its change is lost in rounding (then load in float32). All numbers will be "
            "those of the base model",
            UserWarning,
            stacklevel=4,
        )
    scale = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    difference = float((probe_logits(merged) - wanted).abs().max() / scale)
    if not difference <= (1e-3 if wanted.dtype in (torch.float32, torch.float64) else 0.1):
        raise ModelError(
            f"adapter {str(adapter)!r} cannot be added to the weights of {name!r}: merged, the "
            f"logits differ from PEFT's own by {difference:.1e} of the largest. It changes weights "
            "that the model uses twice (tied embeddings): train it without embed_tokens and lm_head"
        )
    return merged


def _require_all_used(adapted: Any, source: str, options: dict[str, Any]) -> None:
    """Raise unless the adapter's file and the adapted model name the same weights.

    PEFT leaves out what does not fit, and begins what is missing with zeros: the base model.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    weights = load_peft_weights(source, device="cpu", **options)
    if damaged := sorted(name for name, one in weights.items() if not torch.isfinite(one).all()):
        raise ValueError(f"{damaged[0]} holds infinite numbers or NaN: it is damaged")
    given = set(weights)
    taken = set(get_peft_model_state_dict(adapted))
    if given != taken:
        extra, lacking = sorted(given - taken), sorted(taken - given)
        first = (
            f"has no place for {extra[0]}" if extra else f"expects {lacking[0]}, not in the file"
        )
        raise ValueError(
            f"of {len(given)} weights in its file {len(given & taken)} fit; the model {first}"
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_mark(folder: str | Path) -> dict[str, Any]:
    """What this package wrote about an adapter into its folder; empty where it wrote nothing.

    Raises:
        StorageError: the weights or the configuration are not those that were written.
    """
    mark = Path(folder) / MARK
    if not mark.is_file():
        return {}
    about = load_json(mark)
    for name, digest in about.get("files", {}).items():
        path = mark.with_name(name)
        if name in (CONFIG, WEIGHTS) and not (path.is_file() and file_hash(path) == digest):
            raise StorageError(
                f"{path} is damaged: it is not the file that was written there. Copy it again or "
                f"make it anew; delete {MARK} beside it if you changed it on purpose"
            )
    return about


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what PEFT and TRL make transformers say of its next version away from the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*gradient_checkpointing` is deprecated", FutureWarning)
        yield


def adapter_name(name: str, adapter: str | Path) -> str:
    """Model and adapter in words, and which control it is if it is one."""
    control = read_mark(_find(name, adapter)).get("control")
    return f"{name} + {adapter}" + (f" (control: {control})" if control else "")


def _find(name: str, adapter: str | Path) -> str:
    """Folder or hub name of an adapter."""
    path = Path(adapter).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file():
            held = ", ".join(sorted(file.parent.name for file in path.glob(f"*/{CONFIG}"))[:5])
            inside = f", but holds some: {held}" if held else ""
            raise ModelError(f"{path} holds no {CONFIG}: it is no PEFT adapter{inside}")
        if not (path / WEIGHTS).is_file() and not (path / "adapter_model.bin").is_file():
            raise ModelError(f"{path} holds no {WEIGHTS}: the adapter has lost its weights")
        return str(path)
    if name == "demo" and not path.is_absolute():
        return str(DEMO_ADAPTERS / choose(str(adapter), demo_adapters(), "adapter"))
    if path.is_absolute() or str(adapter).startswith((".", "~")) or str(adapter).count("/") > 1:
        raise ModelError(f"{adapter} is not a folder: give a hub name or the folder of an adapter")
    return str(adapter)
