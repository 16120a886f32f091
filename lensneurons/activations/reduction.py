"""From the pre-activations of one batch to integers: the innermost step, which keeps nothing.

For every row of a batch the counted tokens with ``act_fn(hook_pre) > 0`` are counted as integers
(``hook_pre > 0`` says the same for all activation functions but xIELU), and the activation
``act_fn(hook_pre)`` and its square are summed over all counted tokens. On a CPU this
works through blocks of 64 tokens that stay in the cache (one layer of 1024 tokens x 4864 neurons:
11 ms, the gate's own matrix product 100 ms); elsewhere whole batches are reduced on the device, and
stay there until `fetch` brings those of all layers at once, so that no layer waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64

from lensneurons.errors import LensNeuronsError
from lensneurons.shapes import Activation, CountedMask

ActivationFunction = Callable[[torch.Tensor], torch.Tensor]
EXACT_FLOAT32 = 2**24
BLOCK = 64


@dataclass(frozen=True)
class Reduced:
    """One layer of one batch, reduced over tokens.

    Attributes:
        counts: int64 [row, d_mlp], counted tokens of each row on which the neuron is active; a row
            is a text, or a group of texts where groups were given.
        sums: float64 [d_mlp], sum of the activation over the counted tokens of all rows.
        squares: float64 [d_mlp], sum of its square.
        linear: int64 [row, d_mlp], tokens whose linear branch is above 0; None if not asked.
        both: int64 [row, d_mlp], those of them on which the neuron is active.
    """

    counts: Int64[np.ndarray, "row d_mlp"]
    sums: Float64[np.ndarray, " d_mlp"]
    squares: Float64[np.ndarray, " d_mlp"]
    linear: Int64[np.ndarray, "row d_mlp"] | None = None
    both: Int64[np.ndarray, "row d_mlp"] | None = None

    def with_branches(
        self, linear: Int64[np.ndarray, "row d_mlp"], both: Int64[np.ndarray, "row d_mlp"]
    ) -> Reduced:
        """The same with what `count_branches` gives."""
        return replace(self, linear=linear, both=both)


@dataclass(frozen=True)
class Places:
    """What counts in a batch, on the device where it is asked for.

    Attributes:
        counted: bool [batch, pos].
        groups: int64 [batch], the group of each text, from 0 without gaps.
        n_groups: how many groups there are.
    """

    counted: CountedMask
    groups: Int64[torch.Tensor, " batch"]
    n_groups: int

    def to(self, device: torch.device) -> Places:
        """The same on another device."""
        return Places(self.counted.to(device), self.groups.to(device), self.n_groups)

    def by_group(self, counts: torch.Tensor) -> torch.Tensor:
        """Counts [batch, d_mlp] of texts, added up: int64 [group, d_mlp]."""
        total = counts.new_zeros((self.n_groups, counts.shape[1]), dtype=torch.int64)
        return total.index_add_(0, self.groups, counts.to(torch.int64))


def reduce_batch(
    pre: Activation,
    counted: CountedMask,
    activation: ActivationFunction,
    sign_decides: bool = True,
    *,
    groups: np.ndarray | None = None,
) -> Reduced:
    """Reduce the pre-activations of one layer over the counted tokens.

    Args:
        pre: [batch, pos, d_mlp], any floating dtype; half precision is read as float32.
        counted: bool [batch, pos] on the CPU.
        activation: the layer's activation function.
        sign_decides: whether it is positive exactly where its argument is.
        groups: int [batch], the row of the counts that each text is added to; None for its own.
    """
    groups = np.arange(len(counted)) if groups is None else groups
    if pre.device.type == "cpu":
        return _reduce_on_cpu(_wide(pre), counted, activation, sign_decides, groups)
    places = places_of(counted, groups).to(pre.device)
    return Reduced(*fetch(reduce_there(pre, places, activation, sign_decides)))


def places_of(counted: CountedMask, groups: np.ndarray) -> Places:
    """The places of a batch on the CPU, from its mask and the group of each text."""
    numbers = torch.from_numpy(groups.astype(np.int64))
    return Places(counted, numbers, int(groups.max(initial=-1)) + 1)


def _wide(values: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, all else as it is."""
    values = values.detach()
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _reduce_on_cpu(
    pre: Activation,
    counted: CountedMask,
    activation: ActivationFunction,
    sign_decides: bool,
    groups: np.ndarray,
) -> Reduced:
    """Work through each row in blocks that stay in the cache.

    A block has fewer than 256 tokens, so its counts fit uint8 and are then added up as int64; its
    sums are float32 over 64 values and are then added up as float64.
    """
    counts = np.zeros((int(groups.max(initial=-1)) + 1, pre.shape[2]), np.int64)
    sums, squares = np.zeros(pre.shape[2]), np.zeros(pre.shape[2])
    for row, places in enumerate(counted.numpy()):
        (where,) = np.nonzero(places)
        contiguous = len(where) > 0 and where[-1] - where[0] + 1 == len(where)
        chosen = slice(where[0], where[-1] + 1) if contiguous else where  # a slice is no copy
        for arguments in pre[row, chosen].split(BLOCK):
            values = activation(arguments).numpy()
            active = ((arguments.numpy() if sign_decides else values) > 0).view(np.uint8)
            counts[groups[row]] += np.add.reduce(active, axis=0, dtype=np.uint8)
            sums += values.sum(axis=0)
            squares += np.einsum("tj,tj->j", values, values)
    return Reduced(counts, sums, squares)


def reduce_there(
    pre: Activation, places: Places, activation: ActivationFunction, sign_decides: bool = True
) -> list[torch.Tensor]:
    """`reduce_batch` as whole-batch operations whose results stay on the device of `pre`.

    Counting zeros and ones in float32 is exact below 2^24 tokens.

    Args:
        pre: [batch, pos, d_mlp].
        places: what counts, on the same device.
        activation: the layer's activation function.
        sign_decides: whether it is positive exactly where its argument is.

    Returns:
        Counts int64 [group, d_mlp], sums and squares float64 [d_mlp].

    Raises:
        LensNeuronsError: a batch of 2^24 tokens or more.
    """
    pre, counted = _wide(pre), places.counted
    if counted.numel() >= EXACT_FLOAT32:
        raise LensNeuronsError(
            f"a batch of {counted.numel()} tokens is too large: lower batch_tokens"
        )
    values = activation(pre)
    active = (((pre if sign_decides else values) > 0) & counted[..., None]).to(torch.float32)
    values = values.masked_fill(~counted[..., None], 0.0)
    return [
        places.by_group(active.sum(dim=1)),
        values.sum(dim=(0, 1), dtype=torch.float64),
        values.square().sum(dim=(0, 1), dtype=torch.float64),
    ]


def fetch(held: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Arrays of tensors on any devices, with one transfer from each device."""
    by_device: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(held):
        by_device.setdefault(tensor.device, []).append(place)
    found: dict[int, np.ndarray] = {}
    for own in by_device.values():
        flat = [held[n].detach().contiguous().reshape(-1).view(torch.uint8) for n in own]
        edges = np.cumsum([0, *map(len, flat)])
        together = torch.cat(flat).cpu().numpy()
        for n, start, stop in zip(own, edges, edges[1:], strict=False):
            dtype = torch.empty(0, dtype=held[n].dtype).numpy().dtype
            found[n] = together[start:stop].copy().view(dtype).reshape(held[n].shape)
    return [found[n] for n in range(len(held))]


def count_branches(
    pre: Activation,
    linear: Activation,
    places: Places,
    activation: ActivationFunction,
    sign_decides: bool = True,
) -> list[torch.Tensor]:
    """Count where the linear branch of gated neurons is above 0, and where it is and they are
    active.

    Args:
        pre: [batch, pos, d_mlp], the gate's output.
        linear: [batch, pos, d_mlp], that of the linear branch.
        places: what counts, on the same device.
        activation: the layer's activation function.
        sign_decides: whether it is positive exactly where its argument is.

    Returns:
        Both int64 [group, d_mlp], on the device of `pre`.
    """
    above = (linear.detach() > 0) & places.counted[..., None]
    pre = pre.detach() if sign_decides else activation(_wide(pre))
    both = above & (pre > 0)
    return [places.by_group(above.sum(1)), places.by_group(both.sum(1))]


def reduce_routing(
    weights: torch.Tensor, indices: torch.Tensor, counted: CountedMask, n_experts: int
) -> Reduced:
    """Reduce the choices of one router over the counted tokens: experts stand for neurons.

    A token counts once for each of the k experts that it is sent to; the sums are of the weights
    that the router gave them, 0 where it was sent elsewhere.

    Args:
        weights: [batch * pos, k], of the chosen experts, on the CPU.
        indices: int [batch * pos, k], on the CPU.
        counted: bool [batch, pos] on the CPU.
        n_experts: experts of the layer.
    """
    rows, width = counted.shape
    chosen = indices.reshape(rows, width, -1).numpy()
    values = weights.detach().double().reshape(rows, width, -1).numpy()
    counts = np.zeros((rows, n_experts), np.int64)
    sums, squares = np.zeros(n_experts), np.zeros(n_experts)
    for row, places in enumerate(counted.numpy()):
        own, given = chosen[row, places].ravel(), values[row, places].ravel()
        counts[row] = np.bincount(own, minlength=n_experts)
        sums += np.bincount(own, given, n_experts)
        squares += np.bincount(own, given**2, n_experts)
    return Reduced(counts, sums, squares)


def reduce_experts(
    read: Callable[[torch.Tensor, int], torch.Tensor],
    indices: torch.Tensor,
    counted: CountedMask,
    activation: ActivationFunction,
    *,
    groups: np.ndarray,
    size: tuple[int, int],
    sign_decides: bool = True,
) -> Reduced:
    """Reduce the neurons inside the experts of one layer over the counted tokens.

    A neuron is active on a token that was sent to its expert and makes its pre-activation positive.
    The counts are of groups of rows: those of rows would take gigabytes where experts are many.

    Args:
        read: gives the pre-activations [n, width] of int [n] tokens in one expert.
        indices: int [batch * pos, k], the experts of each token.
        counted: bool [batch, pos] on the CPU.
        activation: the activation function of the layer.
        groups: int [batch], the place of each row among the counts that are returned.
        size: experts, and neurons of each.
        sign_decides: whether the activation is positive exactly where its argument is.

    Returns:
        ``counts`` int64 [group, expert * width]; sums over the tokens that were sent there.
    """
    (experts, width), chosen = size, indices.cpu()
    counts = np.zeros((int(groups.max()) + 1, experts, width), np.int64)
    sums, squares = np.zeros((experts, width)), np.zeros((experts, width))
    of_token = torch.from_numpy(groups).repeat_interleave(counted.shape[1])
    there = counted.reshape(-1, 1)
    for expert in chosen[counted.reshape(-1)].unique().tolist():
        tokens = ((chosen == expert) & there).any(1).nonzero()[:, 0]
        pre = read(tokens.to(indices.device), expert).detach()
        pre = _wide(pre)
        values = activation(pre)
        active = ((pre if sign_decides else values) > 0).cpu().numpy()
        for group in np.unique(own := of_token[tokens].numpy()):
            counts[group, expert] += active[own == group].sum(0)
        sums[expert] += values.sum(0, dtype=torch.float64).cpu().numpy()
        squares[expert] += values.square().sum(0, dtype=torch.float64).cpu().numpy()
    return Reduced(counts.reshape(len(counts), -1), sums.ravel(), squares.ravel())
