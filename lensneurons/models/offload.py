"""Models over several devices: where their weights go, and how those on a disk are read.

A model that is too large for one device is split by layers (``load_model(..., device_map=...)``,
done by Accelerate). Weights that lie on a disk are brought for each forward pass and let go; until
then the model holds tensors without values. What reads a weight itself, such as a row of W_out,
brings its module first:

>>> with in_memory(model.blocks[0].mlp):                                     # doctest: +SKIP
...     row = model.blocks[0].mlp.W_out[17]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from lensneurons.errors import LensNeuronsError, ModelError, choose, shown
from lensneurons.values.files import system_path

Spread = Literal["auto", "balanced", "balanced_low_0", "sequential"]
DeviceMap = str | Mapping[str, str | int]  # one of `Spread`, or the place of every module


def placement(
    device_map: DeviceMap | None,
    max_memory: Mapping[int | str, int | str] | None,
    offload_folder: str | Path | None,
    device: object,
) -> dict[str, Any]:
    """The options of transformers that spread a model, or none of them.

    Raises:
        LensNeuronsError: options that do not go together, no such spread, a place without values,
            or Accelerate is not installed.
    """
    if device_map is None:
        given = {"max_memory": max_memory, "offload_folder": offload_folder}
        if alone := [name for name, value in given.items() if value is not None]:
            raise LensNeuronsError(
                f"{alone[0]}= says how a model is spread: give device_map='auto' with it"
            )
        return {}
    if device is not None:
        raise LensNeuronsError(
            f"device={shown(device)} and device_map={shown(device_map)}: give one of the two"
        )
    if isinstance(device_map, str):
        choose(device_map, get_args(Spread), "device_map")
    elif "meta" in map(str, device_map.values()):
        raise LensNeuronsError("device_map puts weights on 'meta', which holds none: give 'disk'")
    if find_spec("accelerate") is None:
        raise LensNeuronsError("device_map= needs Accelerate: pip install 'lensneurons[split]'")
    options: dict[str, Any] = {
        "device_map": device_map if isinstance(device_map, str) else dict(device_map)
    }
    if max_memory is not None:
        options["max_memory"] = dict(max_memory)
    if offload_folder is not None:
        options["offload_folder"] = str(system_path(offload_folder))
    return options


def require_readable_embedding(hugging_face: Any) -> None:
    """Raise where an embedding that is also the unembedding lies on the disk.

    Raises:
        ModelError: it does; Accelerate loses a weight that two modules share there.
    """
    tied = hugging_face.config.get_text_config(decoder=True).tie_word_embeddings
    if tied and hugging_face.get_input_embeddings().weight.is_meta:
        raise ModelError(
            f"the embedding of {type(hugging_face).__name__} is also its unembedding, and a weight "
            "of two modules cannot lie on the disk: keep both in memory and put layers there"
        )


@contextmanager
def in_memory(*modules: torch.nn.Module | None) -> Iterator[None]:
    """Bring the weights of modules from the disk for a while; nothing where none lie there."""
    parts = [part for module in modules if module is not None for part in module.modules()]
    with ExitStack() as stack:
        for part in dict.fromkeys(parts):
            if any(weight.is_meta for weight in part.parameters(recurse=False)):
                from accelerate.utils import align_module_device

                stack.enter_context(align_module_device(part))
        yield


def value_of(module: torch.nn.Module, name: str) -> torch.Tensor:
    """A parameter of a module itself, from the disk where it lies there."""
    with in_memory(module):
        return getattr(module, name).detach().cpu()
