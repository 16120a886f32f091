"""Which of the two kinds of TransformerLens model this is, and what both say of themselves."""

from __future__ import annotations

from typing import Any, Literal

import torch

from lensneurons.errors import ModelError

Family = Literal["bridge", "hooked"]


def model_family(model: Any) -> Family:
    """Whether a model is a ``TransformerBridge`` or a TransformerLens 3.9 ``HookedTransformer``.

    Raises:
        ModelError: it is neither; a Hugging Face model is told how to become one.
    """
    if hasattr(model, "original_model") and hasattr(model, "hook_dict"):
        return "bridge"
    if type(model).__name__ == "HookedTransformer" and hasattr(model, "hook_dict"):
        return "hooked"
    raise ModelError(
        f"{type(model).__name__} is not a TransformerLens model: pass what load_model() returns, "
        "or TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)"
    )


def input_device(model: Any) -> torch.device:
    """Where the token ids of a model have to be."""
    return next(iter(model.parameters())).device


def context_length(model: Any) -> int:
    """Longest text in tokens that the model was made for."""
    return int(model.cfg.n_ctx)
