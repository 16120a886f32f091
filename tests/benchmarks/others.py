"""Other libraries that give the same counts: a side each, where they are installed.

Each does what its documentation shows for one batch, takes the pre-activations of all layers and
counts those above 0. None of them groups, checks or saves, so they are compared for speed alone;
the counts of a batch have to be equal.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

Counts = Callable[[torch.Tensor], torch.Tensor]  # ids [batch, pos] to counts [layer, neuron]


def other_sides(hugging_face: Any, folder: Path) -> dict[str, Counts]:
    """Name of each library that is here to what counts one batch with it.

    Args:
        hugging_face: a Qwen2 or Llama of Hugging Face; it stays as it is.
        folder: the same model, saved.
    """
    sides: dict[str, Counts] = {"hooks": _hooks(hugging_face)}
    for name, made in (("nnsight", lambda: _nnsight(hugging_face)),
                       ("interp_engine", lambda: _interp_engine(folder))):  # fmt: skip
        with suppress(ImportError):  # not installed, or without what it needs
            sides[name] = made()
    return sides


def _hooks(model: Any) -> Counts:
    """Plain PyTorch hooks on Hugging Face's model, with the unembedding that it computes."""

    def count(ids: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []
        handles = [
            layer.mlp.gate_proj.register_forward_hook(
                lambda module, args, output: found.append((output > 0).sum((0, 1)))
            )
            for layer in model.model.layers
        ]
        with torch.inference_mode():
            model(ids)
        for handle in handles:
            handle.remove()
        return torch.stack(found).cpu()

    return count


def _nnsight(model: Any) -> Counts:
    from nnsight import NNsight

    wrapped = NNsight(model)

    def count(ids: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), wrapped.trace(ids):
            found = list().save()  # nnsight adds the method to a call's result
            for layer in wrapped.model.layers:
                found.append((layer.mlp.gate_proj.output > 0).sum((0, 1)))
        return torch.stack(found).cpu()

    return count


def _interp_engine(folder: Path) -> Counts:
    from interp_engine import Address, capture, load_model
    from transformers import AutoConfig

    model = load_model(str(folder), backend="eager", device="cpu", dtype="float32")
    layers = AutoConfig.from_pretrained(folder).num_hidden_layers
    points = [Address("mlp_pre", layer) for layer in range(layers)]

    def count(ids: torch.Tensor) -> torch.Tensor:
        held = capture(model, ids, points)
        return torch.stack([(held[point] > 0).sum((0, 1)) for point in points]).cpu()

    return count
