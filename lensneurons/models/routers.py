"""The routers of a mixture of experts: where each token is sent.

A sparse layer holds E experts, each an MLP, and a router that chooses k of them for every token and
weighs what they give. In the classes of transformers a router is a module of its own, which returns

    logits or probabilities [tokens, E],   weights [tokens, k],   indices [tokens, k]

so counts read what the model itself used, whatever stands between the two (softmax before or after
the choice, sigmoids, groups of experts, a bias of the choice). Measured on fifteen
families, from Mixtral, OLMoE and Qwen3-MoE to GPT-OSS, DeepSeek-V3 and Gemma 4: the tests name all.

A model may have layers without a router (the first ones of DeepSeek-V3, ``mlp_only_layers``).

What routing does not show: what an expert does with a token, or how large its output is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lensneurons.errors import ModelError
from lensneurons.models.family import all_modules, context_length, input_device, model_family
from lensneurons.models.identity import once
from lensneurons.values.provenance import ROUTER

# What a router gave for one batch: layer, weights [tokens, k], indices [tokens, k].
Routed = Callable[[int, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class ExpertSite:
    """The experts of one model.

    Attributes:
        n_layers: transformer blocks, with a router or without.
        n_experts: routed experts of a layer; shared ones, which every token passes, are not among
            them.
        top_k: experts that a token is sent to.
        layers: the layers that have a router.
    """

    n_layers: int
    n_experts: int
    top_k: int
    layers: tuple[int, ...]

    @property
    def d_mlp(self) -> int:
        """Units a layer: experts stand where statistics have neurons."""
        return self.n_experts

    @property
    def hook(self) -> str:
        """What provenance calls the site."""
        return ROUTER

    @property
    def activation_name(self) -> str:
        """What provenance says of the choice."""
        return f"top {self.top_k} of {self.n_experts} experts"

    @property
    def parts(self) -> dict[str, int]:
        """Of how many parts the experts of a layer are: of none."""
        return {}


def has_routers(model: Any) -> bool:
    """Whether a model is a mixture of experts whose routers are modules of their own."""
    if model_family(model) == "hooked":
        return False
    return once(model, "routers", None, lambda: any(map(_is_router, all_modules(model))))


def routers(model: Any) -> dict[int, nn.Module]:
    """Layer to the Hugging Face module that routes there; layers without one are left out.

    Raises:
        ModelError: a block has several.
    """
    found = {}
    for layer, block in enumerate(model.blocks):
        own = [one for one in all_modules(block) if _is_router(one)]
        if len(own) > 1:
            raise ModelError(
                f"block {layer} of {type(model.original_model).__name__} has {len(own)} routers, "
                "and counts of experts need one"
            )
        if own:
            found[layer] = own[0]
    return found


def _is_router(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Router")


def expert_site(model: Any) -> ExpertSite:
    """Find the experts of a TransformerLens model, proved once by a short text that is routed.

    Raises:
        ModelError: no layer has a router, layers differ in experts or k, or a router does not run
            once a pass or does not say which experts it chose.
    """
    if not has_routers(model):
        name = type(getattr(model, "original_model", model)).__name__
        raise ModelError(
            f"{name} has no routers, so there are no experts to count: site='neurons' counts the "
            "neurons of a model without experts"
        )
    return once(model, "experts", None, lambda: _prove(model))


@torch.inference_mode()
def _prove(model: Any) -> ExpertSite:
    """The experts, from what the routers give for a short text."""
    size, length = int(model.cfg.d_vocab), min(16, context_length(model))
    ids = torch.linspace(min(4, size - 1), size - 1, length, device=input_device(model)).long()
    found: dict[int, tuple[int, int]] = {}
    fired: list[int] = []

    def keep(layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        fired.append(layer)
        weights, indices = routing(module, output)
        experts = output[0].shape[-1]
        chosen = indices.sort(-1).values
        twice = bool((chosen[:, 1:] == chosen[:, :-1]).any())
        if (
            len(indices) != length
            or twice
            or not 0 <= int(indices.min()) <= int(indices.max()) < experts
        ):
            raise ModelError(f"{type(module).__name__} does not choose experts token by token")
        found[layer] = experts, weights.shape[-1]

    with hooking_routers(routers(model), keep):
        model(ids[None], return_type="logits")
    wanted = sorted(routers(model))
    if fired != wanted:
        raise ModelError(
            f"routers must run once a forward pass, from the first layer to the last ({wanted}), "
            f"but ran as {fired}"
        )
    if len(set(found.values())) > 1:
        raise ModelError(f"layers differ in experts and k: {sorted(set(found.values()))}")
    [(n_experts, top_k)] = set(found.values())
    return ExpertSite(len(model.blocks), n_experts, top_k, tuple(wanted))


def routing(router: nn.Module, output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and indices, both [tokens, k], of what a router returned.

    Raises:
        ModelError: it returned something else.
    """
    whole = isinstance(output, tuple) and len(output) == 3
    if whole and all(isinstance(one, torch.Tensor) and one.ndim == 2 for one in output):
        _, weights, indices = output
        if weights.shape == indices.shape and not indices.is_floating_point():
            return weights, indices
    raise ModelError(
        f"{type(router).__name__} does not return logits, weights and indices of the chosen "
        "experts, so its choices cannot be counted; please report this architecture"
    )


@contextmanager
def hooking_routers(
    found: dict[int, nn.Module], watch: Callable[[int, nn.Module, Any, Any], Any]
) -> Iterator[None]:
    """Call ``watch(layer, router, inputs, output)`` after every pass of a router in the block.

    What it returns, where that is not None, stands in for the output.
    """

    def hook(layer: int) -> Callable[..., Any]:
        return lambda module, inputs, output: watch(layer, module, inputs, output)

    handles = [router.register_forward_hook(hook(layer)) for layer, router in found.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
