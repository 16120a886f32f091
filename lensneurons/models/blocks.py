"""Whether the neurons of a block are all that it adds to the stream beside its attention.

Neurons can be counted and removed rightly in a model that does more than they do: experts beside a
dense MLP, a second MLP, an adapter. Every number would be right and the model half seen. So every
block has to add up, for each value of the stream:

    out = s * in + a * attention + b * MLP

``MLP`` is what W_out gives (with the norms that it passes afterwards, and nothing else), and so is
``attention`` for each mixer of the block. Without norms and multipliers s = a = b = 1. Other
factors are found by least squares, and that of the MLP has to be a number that the block itself
holds, such as Granite's ``residual_multiplier``.

The sum is made while a short text passes through the model. It shows that nothing else was added
for that text; an expert that it never reaches, or whose weights are zero, is not seen.

>>> with summing_blocks(model) as surplus:        # doctest: +SKIP
...     model(ids)
>>> surplus                                       # doctest: +SKIP
['block 0 gives more than its input, its attention and its MLP add up to: router, experts (…)']
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lensneurons.errors import ModelError

# Names of TransformerLens for what moves information between positions.
MIXERS = ("attn", "linear_attn", "mamba", "mixer", "ssm", "conv")
# In units of rounding (eps) of |in| + |attention| + |MLP| + |out|. In fp32, on tiny models of
# 51 architectures: at most 0.5 where all factors are 1 (49 architectures of 51).
ROUNDING = 4.0


@contextmanager
def summing_blocks(model: Any) -> Iterator[list[str]]:
    """Watch the blocks of a bridge while one short text passes.

    Yields:
        A list that holds, when the block has ended, what blocks of the model add beside their
        attention and MLP, in words; empty where every block adds up.
    """
    found: list[str] = []
    watched = [_Block(layer, block, found) for layer, block in enumerate(model.blocks)]
    try:
        yield found
    finally:
        for block in watched:
            block.release()


def require_no_surplus(model: Any, surplus: list[str]) -> None:
    """Raise if blocks of a model add more to the stream than attention and MLP.

    Raises:
        ModelError: names the first block, and what it adds.
    """
    if surplus:
        raise ModelError(
            f"{type(model.original_model).__name__} does more than its neurons do: {surplus[0]}. "
            "Counts and ablations of them would miss that part of the model"
        )


class _Block:
    """What passed through one block: its mixers, its MLP, and the norms behind them."""

    def __init__(self, layer: int, block: Any, found: list[str]) -> None:
        self.layer, self.block, self.found = layer, block, found
        self.mixed: list[torch.Tensor] = []
        self.mlp: torch.Tensor | None = None
        self.norms: list[tuple[torch.Tensor, torch.Tensor]] = []
        mixers = {id(one): one for one in (getattr(block, name, None) for name in MIXERS)}
        self.handles = [block.register_forward_hook(self._end, with_kwargs=True)]
        for mixer in mixers.values():
            if isinstance(mixer, nn.Module):
                self.handles.append(mixer.register_forward_hook(self._keep_mixed))
        self.handles.append(block.mlp.out.hook_out.register_forward_hook(self._keep_mlp))
        for module in block.modules():
            if _is_norm(module):
                self.handles.append(module.register_forward_hook(self._keep_norm))

    def release(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()

    def _keep_mixed(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.mixed.append(_rows(output))

    def _keep_mlp(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.mlp = _rows(output)

    def _keep_norm(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if inputs and isinstance(inputs[0], torch.Tensor) and isinstance(output, torch.Tensor):
            self.norms.append((_rows(inputs[0]), _rows(output)))

    def _end(self, module: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:
        eps = torch.finfo(_first(output).dtype).eps
        before = _rows(inputs[0] if inputs else named["hidden_states"])
        after = _rows(output)
        if self.mlp is None:
            self.found.append(f"block {self.layer} ran without its MLP")
            return
        mlp = self._normed(self.mlp)
        # BLOOM's attention returns the stream with its own output added, which the next norm reads.
        said = [
            _surplus(self.block, [*parts, mlp], after, eps)
            for parts in ([before, *map(self._normed, self.mixed)], self.mixed)
        ]
        if None not in said:
            self.found.append(f"block {self.layer} {said[0]}")
        self.mixed, self.mlp, self.norms = [], None, []

    def _normed(self, part: torch.Tensor) -> torch.Tensor:
        """What is left of a part behind the norms that read it and nothing else."""
        for given, returned in self.norms:
            if given.shape == part.shape and torch.equal(given, part):
                part = returned
        return part


def _surplus(block: Any, parts: list[torch.Tensor], after: torch.Tensor, eps: float) -> str | None:
    """What a block adds beside its parts, in words, or None where it adds up.

    Args:
        block: the bridge of the block.
        parts: each [row, d_model]; the last is the MLP's.
        after: [row, d_model], the block's output.
        eps: of the dtype of the stream.
    """
    if any(part.shape != after.shape for part in parts):
        return "gives another shape than its parts"
    # Relative to its own size: a few values of the stream are a thousand times the others.
    size = sum((part.abs() for part in parts), after.abs()).clamp(min=1e-30)
    columns = torch.stack([(part / size).flatten() for part in parts], -1)
    target, allowed = (after / size).flatten(), ROUNDING * eps + 1e-12
    if float((target - columns.sum(-1)).abs().max()) <= allowed:
        return None
    if not torch.isfinite(target).all() or not torch.isfinite(columns).all():
        return None  # refused by name where the pre-activations are read
    factors = torch.linalg.lstsq(columns, target[:, None], driver="gelsd").solution[:, 0]
    worst = float((target - columns @ factors).abs().max())
    if worst > allowed:
        return (
            "gives more than its input, its attention and its MLP add up to: "
            f"{_others(block)} ({worst:.0%} of it)"
        )
    factor = float(factors[-1])
    if not any(abs(factor / held - 1) <= 1e-5 + 4 * eps for held in _held_numbers(block)):
        return f"multiplies its MLP by {factor:.4g}, a number that it holds nowhere"
    return None


def _others(block: Any) -> str:
    """The names of the parts of a block that hold matrices and are neither attention nor MLP."""
    own = block.original_component
    known = [getattr(block, name, None) for name in (*MIXERS, "mlp")]
    counted = {id(w) for part in known if isinstance(part, nn.Module) for w in part.parameters()}
    names = []
    for name, weight in own.named_parameters():
        if weight.ndim > 1 and id(weight) not in counted:
            names.append(name.removeprefix("_original_component.").split(".")[0])
    told = ", ".join(dict.fromkeys(names))
    return told or "something that no module of it names, or a norm of the sum"


def _held_numbers(block: Any) -> list[float]:
    """1, and the numbers other than 0 that a block and its MLP hold as attributes or buffers."""
    numbers = [1.0]
    for module in (block.original_component, block.mlp, _unwrapped(block.mlp)):
        numbers += [float(value) for value in vars(module).values() if type(value) in (int, float)]
        numbers += [
            float(value)
            for value in (*module._buffers.values(), *module._parameters.values())
            if value is not None and value.numel() == 1
        ]
    return [number for number in numbers if number]


def _unwrapped(module: Any) -> Any:
    """The Hugging Face module of a bridge component."""
    return getattr(module, "original_component", None) or module


def _is_norm(module: nn.Module) -> bool:
    """Whether a module has vectors alone for weights, as norms have, or none; no hook point."""
    weights = list(module.parameters())
    return all(weight.ndim <= 1 for weight in weights) and "HookPoint" not in type(module).__name__


def _first(output: Any) -> torch.Tensor:
    """The tensor that a module returns, or the first of several."""
    return output if isinstance(output, torch.Tensor) else output[0]


def _rows(output: Any) -> torch.Tensor:
    """A copy [row, d_model] in float64 on the CPU, which no later step of the model changes."""
    tensor = _first(output).detach()
    return tensor.reshape(-1, tensor.shape[-1]).to("cpu", torch.float64, copy=True)
