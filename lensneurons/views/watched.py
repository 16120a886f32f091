"""What chosen neurons read on each text of a view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lensneurons.errors import ModelError
from lensneurons.models.forward import to_device, watching
from lensneurons.models.sites import NeuronSite
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.characters import TextTokens


def watch_chosen(
    model: Any,
    site: NeuronSite,
    neurons: NeuronSet,
    read: Sequence[TextTokens],
    value: Callable[[int, torch.Tensor], torch.Tensor],
) -> list[list[torch.Tensor]]:
    """Run a model on each text and keep what a function makes of the chosen neurons' hook_pre.

    Args:
        model: a TransformerLens model.
        site: its neurons.
        neurons: those that are watched.
        read: the texts.
        value: called with a layer and its hook_pre, float32 [token, chosen neuron], in each layer
            that holds chosen neurons.

    Returns:
        Text by text, the values of those layers.

    Raises:
        ModelError: a hook did not fire once.
    """
    layers = {layer: torch.from_numpy(chosen) for layer, chosen in neurons.by_layer().items()}
    parts: list[torch.Tensor] = []
    found: list[list[torch.Tensor]] = []

    def watch(layer: int, pre: torch.Tensor) -> None:
        if layer in layers:
            here = pre.detach()[0][:, layers[layer].to(pre.device)].float()
            parts.append(value(layer, here))

    with watching(model, site, watch) as run:
        for one in read:
            parts.clear()
            run(to_device(model, torch.tensor([one.ids])), None)
            if len(parts) != len(layers):
                raise ModelError(f"hook_pre of {len(layers)} layers fired {len(parts)} times")
            found.append([*parts])
    return found
