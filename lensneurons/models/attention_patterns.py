"""The hooks of attention patterns: what they are called, and how near 1 a row of them has to be.

    hook_pattern    [batch, head, destination, source], softmax over the sources of each destination

>>> pattern_hooks(model)[:2]                                               # doctest: +SKIP
['blocks.0.attn.hook_pattern', 'blocks.1.attn.hook_pattern']

What this does not show: that a hook holds attention. Who reads one checks that its rows add up to 1
within `ROW_TOLERANCE`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lensneurons.errors import LensNeuronsError, ModelError

# Rows of random scores over 32 to 2048 tokens add up to 1 within 0.0025 in bf16, 0.0004 in fp16.
ROW_TOLERANCE = 0.01


def pattern_hooks(model: Any, layers: Iterable[int] | None = None) -> list[str]:
    """The names of the hooks of some layers, or of all.

    Raises:
        LensNeuronsError: no such layer.
        ModelError: a layer has no such hook.
    """
    n_layers = int(model.cfg.n_layers)
    names = []
    for layer in range(n_layers) if layers is None else layers:
        if not 0 <= layer < n_layers:
            raise LensNeuronsError(f"layer {layer}: the model has layers 0 to {n_layers - 1}")
        name = f"blocks.{layer}.attn.hook_pattern"
        if name not in model.hook_dict:
            raise ModelError(
                f"the model has no {name}: its layer {layer} has no attention that TransformerLens "
                "hooks; choose another layer or model"
            )
        names.append(name)
    return names
