"""Which of the two kinds of TransformerLens model this is, and what both say of themselves."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from lensneurons.errors import ModelError

Family = Literal["bridge", "hooked"]


def model_family(model: Any) -> Family:
    """Whether a model is a ``TransformerBridge`` or a TransformerLens 3.9 ``HookedTransformer``.

    Raises:
        ModelError: it is neither; a Hugging Face model is told how to become one.
    """
    # A bridge builds its `hook_dict` at every look, which takes as long as some forward passes.
    if hasattr(model, "original_model") and hasattr(type(model), "hook_dict"):
        return "bridge"
    if type(model).__name__ == "HookedTransformer" and hasattr(model, "hook_dict"):
        return "hooked"
    raise ModelError(
        f"{type(model).__name__} is not a TransformerLens model: pass what load_model() returns, "
        "or TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)"
    )


def all_modules(*roots: nn.Module) -> list[nn.Module]:
    """Every module of some trees, each once.

    A bridge has thousands (every hook point is one), and every call walks over them several times:
    this takes a tenth of the time of ``nn.Module.modules``.
    """
    found: dict[int, nn.Module] = {}
    left = list(roots)
    while left:
        module = left.pop()
        if id(module) not in found:
            found[id(module)] = module
            left.extend(child for child in module._modules.values() if child is not None)
    return list(found.values())


def unwrap(module: Any) -> Any:
    """The Hugging Face module inside a bridge component, or the module itself."""
    while (inner := module.__dict__.get("_modules", {}).get("_original_component")) is not None:
        module = inner
    return module


def input_device(model: Any) -> torch.device:
    """Where the token ids of a model have to be; of weights on a disk, where others compute."""
    places = (weight.device for weight in model.parameters() if not weight.is_meta)
    return next(places, torch.device("cpu"))


def context_length(model: Any) -> int:
    """Longest text in tokens that the model was made for, and reads alike beside any other.

    Longrope (Phi-3 128k) rotates a whole batch by other factors as soon as its longest text passes
    a length: the numbers of a short text would depend on its batch. So the context ends there.
    """
    config = getattr(getattr(model, "original_model", None), "config", None)
    return min([int(model.cfg.n_ctx), *_switching_lengths(config)])


def _switching_lengths(config: Any) -> list[int]:
    """The lengths beyond which rotary factors depend on the longest text of a batch."""
    given = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [value for value in given.values() if isinstance(value, dict)]
    own = getattr(config, "original_max_position_embeddings", None)
    lengths = [
        parameters.get("original_max_position_embeddings") or own
        for parameters in by_layer_type or [given]
        if parameters.get("rope_type") in ("longrope", "dynamic")
    ]
    return [int(length) for length in lengths if length]
