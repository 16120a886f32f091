"""Hugging Face models whose neurons are changed by hand: in the weights, or by PyTorch hooks.

Of the code under test only values are used: sets and statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import tiny
import torch
from torch.nn import functional

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.neurons.sets import NeuronSet
from lensneurons.values.provenance import UNITS

IDS = torch.randint(3, 340, (3, 11), generator=torch.Generator().manual_seed(1))
# Names of the layers, and in a layer those of the activation function and of W_out.
NAMES = {name: (layers, act, out) for name, (layers, _, act, out) in tiny.MODULES.items()}
USUAL = ("model.layers", *tiny.USUAL_MODULES[2:])


def plain_model(folder: Any) -> Any:
    """A new Hugging Face model of a folder, whose attention is computed as in the bridge."""
    return tiny.load_plain(folder, attn_implementation="eager")


def zero_rows(model: Any, architecture: str, neurons: Mapping[int, np.ndarray]) -> Any:
    """Set rows of W_out (layer to neurons) to zero for good, and return the model."""
    layers, _, out = NAMES.get(architecture, USUAL)
    for layer, own in neurons.items():
        module = model.get_submodule(f"{layers}.{layer}.{out}")
        if type(module).__name__ == "Conv1D":  # GPT-2 keeps its matrices as [in, out]
            module.weight.data[own] = 0
        else:
            module.weight.data[:, own] = 0
    return model


@contextmanager
def changed_activations(
    model: Any, architecture: str, change: Callable[[int, torch.Tensor], torch.Tensor]
) -> Iterator[Any]:
    """Replace what the activation function of each layer returns by ``change(layer, returned)``."""
    layers, activation, _ = NAMES.get(architecture, USUAL)

    def hook(layer: int) -> Callable[..., torch.Tensor]:
        return lambda module, inputs, output: change(layer, output)

    handles = [
        block.get_submodule(activation).register_forward_hook(hook(layer))
        for layer, block in enumerate(model.get_submodule(layers))
    ]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def last_matrix(hf: Any, architecture: str) -> list[tuple[Any, torch.Tensor]]:
    """For each layer the module that reads hook_post, and its rows [neuron, d_model]."""
    layers, _, out = NAMES.get(architecture, USUAL)
    found = [block.get_submodule(out) for block in hf.get_submodule(layers)]
    # Conv1D is stored the other way round.
    return [(one, one.weight if architecture == "GPT2" else one.weight.T) for one in found]


@contextmanager
def before(
    modules: list[tuple[Any, torch.Tensor]], act: Callable[[int, torch.Tensor], Any]
) -> Iterator[None]:
    """Call ``act(layer, inputs [pos, neuron])``; what it returns goes on instead."""

    def hook(layer: int) -> Callable[..., Any]:
        def seen(module: Any, inputs: Any) -> Any:
            changed = act(layer, inputs[0].flatten(0, -2))
            return None if changed is None else (changed.reshape(inputs[0].shape),)

        return seen

    with ExitStack() as stack:
        for layer, (module, _) in enumerate(modules):
            stack.enter_context(module.register_forward_pre_hook(hook(layer)))
        yield


@torch.no_grad()
def continue_greedily(first: Any, later: Any, ids: torch.Tensor, steps: int) -> torch.Tensor:
    """The likeliest tokens [row, step] after `ids`: one model reads them, another writes."""
    output, written = first(ids, use_cache=True), []
    for _ in range(steps):
        written.append(output.logits[:, -1].argmax(-1, keepdim=True))
        output = later(written[-1], past_key_values=output.past_key_values, use_cache=True)
    return torch.cat(written, 1)


def draw_set(seed: int = 0, layers: tuple[int, ...] = (0, 2), d_mlp: int = tiny.D_MLP) -> NeuronSet:
    """A third of the neurons of some layers of a tiny model; none of the others."""
    mask = np.random.default_rng(seed).random((tiny.LAYERS, d_mlp)) < 0.3
    mask[[layer for layer in range(tiny.LAYERS) if layer not in layers]] = False
    return NeuronSet.from_mask(mask, f"set {seed}")


def drawn_units(
    site: Any, seed: int = 0, share: float = 0.3, layers: tuple[int, ...] | None = None
) -> NeuronSet:
    """Some units of any site, in the layers that have such units."""
    mask = np.random.default_rng(seed).random((site.n_layers, site.d_mlp)) < share
    kept = getattr(site, "layers", range(site.n_layers)) if layers is None else layers
    mask[[layer for layer in range(site.n_layers) if layer not in kept]] = False
    unit = UNITS.get(site.hook)
    return NeuronSet(np.flatnonzero(mask), site.n_layers, site.d_mlp, unit=unit, **site.parts)


def draw_statistics(
    languages: tuple[str, ...] = ("en", "zh", "th"), d_mlp: int = tiny.D_MLP
) -> ActivationStatistics:
    """Means that no model has, so that taking another language's cannot go unseen."""
    shape = (tiny.LAYERS, d_mlp, len(languages))
    tokens = np.arange(50, 50 + 20 * len(languages), 20)[None]
    sums = np.random.default_rng(3).normal(0, 2, shape) * tokens
    counts = np.ones((1, *shape), np.int64)
    return ActivationStatistics(languages, counts, tokens, sums=sums, squares=sums**2)


@torch.no_grad()
def logits_of(model: Any, ids: torch.Tensor = IDS, **options: Any) -> torch.Tensor:
    """Logits of a bridge or of a Hugging Face model."""
    output = model(ids, **options)
    return getattr(output, "logits", output)


@torch.no_grad()
def post_of(model: Any, layer: int = 0, ids: torch.Tensor = IDS) -> torch.Tensor:
    """hook_post of a bridge as a hook sees it that was added last."""
    seen = []
    hook = (f"blocks.{layer}.mlp.hook_post", lambda tensor, hook: seen.append(tensor.clone()))
    model.run_with_hooks(ids, fwd_hooks=[hook])
    return seen[0]


def state_of(model: Any, ids: torch.Tensor = IDS) -> tuple[Any, ...]:
    """Logits as bytes, every hook of every module, and how deep TransformerLens's blocks are."""
    logits, hooks = logits_of(model, ids), {}  # the first pass makes some attributes
    for name, module in model.named_modules():
        torch_hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        hooks[name] = torch_hooks, list(getattr(module, "fwd_hooks", [])), list(vars(module))
    return logits.numpy().tobytes(), hooks, getattr(model, "context_level", 0)


@torch.no_grad()
def losses_by_hand(model: Any, ids: list[int]) -> torch.Tensor:
    """Cross-entropy [pos - 1] of one text under a Hugging Face model, without padding or mask."""
    logits = model(torch.tensor([ids])).logits[0, :-1]
    return functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
