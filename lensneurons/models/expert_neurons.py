"""Neurons inside the experts of a mixture, computed again from each expert's own weights.

An expert is a gated MLP. For a token x that reaches expert e of a layer

    pre[e] = x @ W_gate[e] (+ b_gate[e])       expert[e] = (act_fn(pre[e]) * linear) @ W_down[e]

and a neuron of the expert is active where ``act_fn(pre[e]) > 0``, as in a dense MLP. No hook holds
``pre``: in transformers the experts of a layer are one module that computes all of them at once. So
what goes into that module (the tokens, and the experts chosen for each) is read in the forward
pass, and ``pre`` is computed anew, for the chosen experts alone, by the gate's half of their first
matrix. That this is the gate's half, and the right activation function, is proved once a model: the
whole layer, computed again the same way, must be what the module gave.

Two sites. ``expert_neurons`` are those of the routed experts: E experts of one width in a layer,
neuron j of expert e is number ``e * width + j`` of the layer and is called ``L2E5N10``.
``shared_neurons`` are those of the dense MLP that every token passes beside them (the shared
experts of Qwen2-MoE and DeepSeek-V3, the MLP of Gemma 4), which has a width of its own.

Measured on fifteen families, which the tests name.

What this does not read: the dense layers of a mixture (the first ones of DeepSeek-V3), and what a
routed neuron would have done with a token that was sent elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lensneurons.errors import ModelError
from lensneurons.models.family import all_modules, unwrap
from lensneurons.models.identity import once
from lensneurons.models.routers import expert_site, hooking_routers, routers
from lensneurons.models.sites import (
    ActivationFunction,
    activation_name,
    decided_by_sign,
    identity_tolerance,
    probe_tokens,
)

# What experts read in one batch: layer, module, tokens [token, d_model], experts int [token, k].
ExpertWatch = Callable[[int, nn.Module, torch.Tensor, torch.Tensor], None]
ONE = 1  # a shared MLP is read as the one expert of its layer


@dataclass(frozen=True)
class ExpertNeuronSite:
    """The neurons inside the experts of one model; all of them have a gate.

    Attributes:
        n_layers: transformer blocks, with experts or without.
        n_experts: routed experts of a layer; 1 for a shared one.
        width: neurons of an expert.
        layers: the layers that have such experts.
        activation_name: the activation function, for provenance.
        sign_decides: whether it is positive exactly where its argument is, in every layer.
        shared: whether they are those that every token passes.
    """

    n_layers: int
    n_experts: int
    width: int
    layers: tuple[int, ...]
    activation_name: str
    sign_decides: bool
    shared: bool

    gated = True

    @property
    def d_mlp(self) -> int:
        """Neurons a layer, over all its experts."""
        return self.n_experts * self.width

    @property
    def hook(self) -> str:
        """What provenance calls the site."""
        return "gate of shared experts" if self.shared else "gate of routed experts"

    @property
    def parts(self) -> dict[str, int]:
        """Of how many experts the neurons of a layer are, where they are routed ones."""
        return {} if self.shared else {"n_experts": self.n_experts}


def expert_neuron_site(model: Any) -> ExpertNeuronSite:
    """Find the neurons inside the routed experts, proved once by a short text.

    Raises:
        ModelError: the model has no routers, its experts are laid out in an unknown way (says
            which class), or the layer computed again from their weights is another one.
    """
    expert_site(model)
    return once(model, "expert neurons", None, lambda: _prove(model, shared=False))


def shared_neuron_site(model: Any) -> ExpertNeuronSite:
    """Find the neurons of the MLP that every token passes beside the routed experts.

    Raises:
        ModelError: as `expert_neuron_site`; or no layer has such an MLP.
    """
    expert_site(model)
    return once(model, "shared neurons", None, lambda: _prove(model, shared=True))


def expert_modules(model: Any, shared: bool) -> dict[int, nn.Module]:
    """Layer to the Hugging Face module of its routed experts, or of its shared MLP.

    Raises:
        ModelError: a layer with a router has no such module.
    """
    found = {}
    for layer, router in routers(model).items():
        beside = _beside(model.blocks[layer], router)
        own = [one for one in beside if (_is_mlp(one) if shared else _holds_experts(one))]
        if len(own) != 1:
            name, kinds = _name(model), ", ".join(type(one).__name__ for one in beside)
            raise ModelError(
                f"{name} has no shared expert beside its router in layer {layer}; "
                "site='expert_neurons' counts the neurons of the routed ones"
                if shared
                else f"the experts of {name} cannot be read: no module beside the router of layer "
                f"{layer} holds them ({kinds}); site='experts' counts how often each is chosen"
            )
        found[layer] = own[0]
    return found


def _beside(block: nn.Module, router: nn.Module) -> list[nn.Module]:
    """The Hugging Face modules that stand beside a router in the module that holds it."""
    for parent in all_modules(block):
        own = [unwrap(child) for child in parent._modules.values() if child is not None]
        if any(one is router for one in own) and any(map(_holds_experts, own)):
            return [one for one in own if one is not router]
    return []


def _holds_experts(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Experts")


def _is_mlp(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj"))


def _name(model: Any) -> str:
    return type(getattr(model, "original_model", model)).__name__


def gate_of(module: nn.Module, x: torch.Tensor, expert: int) -> torch.Tensor:
    """[token, width]: the argument of the activation function in one expert.

    Args:
        module: the experts of a layer, or a shared MLP.
        x: [token, d_model], what the module reads.
        expert: its number; a shared MLP has one.
    """
    return _projected(module, x, expert, linear=False)


def halves_of(module: Any, x: torch.Tensor, expert: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[token, width] each: the activation of the neurons of an expert, and its linear branch.

    Their product is what the expert's last matrix reads; GPT-OSS adds 1 to the branch.
    """
    linear = _projected(module, x, expert, linear=True)
    if _is_clamped(module):
        linear = linear.clamp(-module.limit, module.limit) + 1
    return activation_of(module)(gate_of(module, x, expert)), linear


def written(module: Any, inside: torch.Tensor, expert: int) -> torch.Tensor:
    """[token, d_model]: what the last matrix of an expert makes of [token, width], without bias."""
    if _is_mlp(module):
        matrix: Any = unwrap(module.down_proj)
        return functional.linear(inside, matrix.weight)
    weight = module.down_proj[expert]
    return functional.linear(inside, weight.T if module.is_transposed else weight)


def _projected(module: Any, x: torch.Tensor, expert: int, *, linear: bool) -> torch.Tensor:
    """[token, width] of one expert: the gate, or the linear branch."""
    if _is_mlp(module):
        matrix: Any = unwrap(module.up_proj if linear else module.gate_proj)
        return functional.linear(x, matrix.weight, matrix.bias)
    weight, bias = module.gate_up_proj[expert], None
    if module.has_bias:
        bias = _half(module, module.gate_up_proj_bias[expert], linear)
    if module.is_transposed:
        weight = weight.T
    return functional.linear(x, _half(module, weight, linear), bias)


def _half(module: Any, both: torch.Tensor, linear: bool) -> torch.Tensor:
    """The rows of the gate or of the linear branch, which follow or alternate with each other."""
    return both.chunk(2)[linear] if module.is_concatenated else both[int(linear) :: 2]


class _ClampedSwish:
    """GPT-OSS: ``g * sigmoid(alpha * g)``, g at most `limit`."""

    __name__ = "clamped swish"

    def __init__(self, module: Any) -> None:
        self.alpha, self.limit = module.alpha, module.limit

    def __call__(self, gate: torch.Tensor) -> torch.Tensor:
        gate = gate.clamp(max=self.limit)
        return gate * torch.sigmoid(gate * self.alpha)


def activation_of(module: Any) -> ActivationFunction:
    """The activation function of the experts of a layer, or of a shared MLP.

    Raises:
        ModelError: the module names none.
    """
    found: Any = getattr(module, "act_fn", None)
    if found is not None:
        return found
    if _is_clamped(module):
        return _ClampedSwish(module)
    raise ModelError(f"{type(module).__name__} names no activation function")


def _is_clamped(module: nn.Module) -> bool:
    return hasattr(module, "alpha") and hasattr(module, "limit")


def _require_layout(module: Any, n_experts: int) -> int:
    """The width of the experts of a module; raise unless its weights can be read.

    Raises:
        ModelError: names the class, and what is unknown about it.
    """
    if _is_mlp(module):
        matrix: Any = unwrap(module.down_proj)
        return int(matrix.weight.shape[1])
    flags = ("has_bias", "has_gate", "is_transposed", "is_concatenated")
    weight: Any = getattr(module, "gate_up_proj", None)
    last: Any = getattr(module, "down_proj", None)
    known = all(isinstance(getattr(module, flag, None), bool) for flag in flags)
    whole = all(isinstance(one, torch.Tensor) and one.ndim == 3 for one in (weight, last))
    if not (known and whole and module.has_gate) or getattr(module, "has_post_expert_norm", False):
        raise ModelError(
            f"{type(module).__name__} is laid out in a way that is not known (experts with a gate, "
            "in one matrix for all of them, and nothing behind them), so the neurons inside cannot "
            "be read; site='experts' counts how often each expert is chosen"
        )
    if len(last) != n_experts:
        raise ModelError(f"{type(module).__name__} holds {len(last)} experts, not {n_experts}")
    return int(last.shape[1 if module.is_transposed else 2])


@torch.inference_mode()
def _prove(model: Any, *, shared: bool) -> ExpertNeuronSite:
    """The site, once the layers computed again from the weights are what the model gave."""
    found, n_experts = expert_modules(model, shared), expert_site(model).n_experts
    widths = {_require_layout(module, n_experts) for module in found.values()}
    if len(widths) > 1:
        raise ModelError(f"layers of {_name(model)} differ in width: {sorted(widths)}")
    activations = [activation_of(module) for module in found.values()]
    by_sign = all([decided_by_sign(activation) for activation in activations])
    worst: dict[int, float] = {}

    def compare(layer: int, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if layer in worst:
            raise ModelError(f"{type(module).__name__} runs more than once a forward pass")
        again = _computed_again(module, *inputs)
        given = output.reshape(again.shape)
        largest = given.abs().max().clamp(min=torch.finfo(given.dtype).tiny)
        worst[layer] = float((again - given).abs().max() / largest)

    with hooking_routers(found, compare):
        model(probe_tokens(model), return_type="logits")
    if worst.keys() != found.keys():
        raise ModelError(f"experts ran in layers {sorted(worst)}, not in {sorted(found)}")
    tolerance = identity_tolerance(next(iter(model.parameters())).dtype)
    if (largest := max(worst.values())) > tolerance:
        name = type(next(iter(found.values()))).__name__
        raise ModelError(
            f"{name} computes something else than its weights say: computed again from them, its "
            f"output differs by {largest:.1e} of the largest entry (allowed {tolerance:.0e}); "
            "please report this architecture"
        )
    names = ", ".join(dict.fromkeys(map(activation_name, activations)))
    experts = ONE if shared else n_experts
    return ExpertNeuronSite(
        n_layers=len(model.blocks),
        n_experts=experts,
        width=widths.pop(),
        layers=tuple(sorted(found)),
        activation_name=names,
        sign_decides=by_sign,
        shared=shared,
    )


def chosen_experts(inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What a module of experts reads: tokens [token, d_model], their experts int [token, k].

    A shared MLP reads the tokens alone: its one expert is that of every token.
    """
    x = inputs[0].reshape(-1, inputs[0].shape[-1])
    if len(inputs) == 1:
        return x, torch.zeros((len(x), ONE), dtype=torch.long, device=x.device)
    return x, inputs[1]


def _computed_again(module: Any, *inputs: torch.Tensor) -> torch.Tensor:
    """The output of a module [token, d_model] from its weights, expert by expert."""
    x, indices = chosen_experts(inputs)
    total = torch.zeros_like(x)
    for expert in indices.unique().tolist():
        token, place = torch.where(indices == expert)
        activation, linear = halves_of(module, x[token], expert)
        given = written(module, activation * linear, expert)
        if _is_mlp(module):
            bias: Any = unwrap(module.down_proj).bias
            return given if bias is None else given + bias
        if module.has_bias:
            given = given + module.down_proj_bias[expert]
        total.index_add_(0, token, (given * inputs[2][token, place, None]).to(total.dtype))
    return total
