"""The hook that changes some neurons of a running model, in chosen rows and positions.

A condition is a set of neurons. All rows of a batch share one, or each row has its own: then K
conditions ride in one batch. A change is computed for the neurons of all conditions together and
taken over where row, position and neuron are meant; every other entry keeps its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.identification.neuron_sets import NeuronSet
from lensneurons.models.sites import NeuronSite
from lensneurons.shapes import Activation, CountedMask, NeuronIndices, RowMembers

Neurons = NeuronSet | Sequence[NeuronSet]
Positions = slice | Sequence[int] | CountedMask
# New hook_post of some neurons [batch, pos, neurons] from their hook_post and linear branch.
Change = Callable[[torch.Tensor, Any], torch.Tensor]
ChangeLayer = Callable[[int, NeuronIndices], Change]


@contextmanager
def changing(
    model: Any,
    site: NeuronSite,
    neurons: Neurons,
    change: ChangeLayer,
    *,
    positions: Positions | None = None,
    linear: bool = False,
) -> Iterator[None]:
    """Change ``hook_post`` of some neurons for as long as the block runs: what the others build on.

    Args:
        model: a TransformerLens model.
        site: its neurons.
        neurons: a set, or one set for each row of every batch.
        change: called once a layer with its number and the int64 indices of the neurons in it;
            gives the function that makes new values [batch, pos, neurons] from the old ones and
            the linear branch (None unless `linear`).
        positions: where to act.
        linear: whether the function reads the linear branch of a gated MLP.

    Raises:
        ModelError: the model lacks a hook that is needed, so the change would not happen.
    """
    hooks: list[tuple[str, Callable[..., torch.Tensor | None]]] = []
    for layer, members in members_by_layer(neurons).items():
        edit = _Edit(members, change(layer, members.indices), positions, linear)
        if linear:
            hooks.append((site.pre[layer].replace("hook_pre", "hook_pre_linear"), edit.keep_linear))
        hooks.append((site.post[layer], edit))
    if missing := [name for name, _ in hooks if name not in model.hook_dict]:
        raise ModelError(f"{type(model).__name__} has no {missing[0]}: the hook would never fire")
    with model.hooks(fwd_hooks=hooks):
        yield


@dataclass(frozen=True)
class Members:
    """The neurons of one layer in all sets together, and which rows of a batch they are meant for.

    Attributes:
        indices: int64 [neurons], within the layer.
        rows: bool [row, neurons]; one row stands for all.
    """

    indices: NeuronIndices
    rows: RowMembers


def members_by_layer(neurons: Neurons) -> dict[int, Members]:
    """The neurons of every layer that has any, in the order of the layers."""
    by_layer = [one.by_layer() for one in as_sets(neurons)]
    found = {}
    for layer in sorted({layer for one in by_layer for layer in one}):
        own = [one.get(layer, np.zeros(0, np.int64)) for one in by_layer]
        indices = np.unique(np.concatenate(own))
        rows = np.stack([np.isin(indices, one) for one in own])
        found[layer] = Members(torch.from_numpy(indices), torch.from_numpy(rows))
    return found


class _Edit:
    """The hook of one layer."""

    def __init__(
        self, members: Members, change: Change, positions: Positions | None, linear: bool
    ) -> None:
        self.members = members
        self.change = change
        self.positions = positions
        self.needs_linear = linear
        self.linear: torch.Tensor | None = None

    def keep_linear(self, tensor: torch.Tensor, hook: Any) -> None:
        """Remember the linear branch, which fires before ``hook_post``."""
        self.linear = tensor

    def __call__(self, post: Activation, hook: Any) -> Activation | None:
        """The changed ``hook_post`` of a pass."""
        if self.positions is not None and post.shape[1] == 1:
            return None
        indices = self.members.indices.to(post.device)
        here = post[..., indices]
        changed = self.change(here, self._linear_of(indices))
        chosen = _chosen(self.members.rows, self.positions, post)
        result = post.clone()
        result[..., indices] = torch.where(chosen, changed.to(post.dtype), here)
        return result

    def _linear_of(self, indices: torch.Tensor) -> torch.Tensor | None:
        if not self.needs_linear:
            return None
        if self.linear is None:
            raise LensNeuronsError("hook_pre_linear did not fire before hook_post")
        linear, self.linear = self.linear, None
        return linear[..., indices]


def _chosen(rows: RowMembers, positions: Positions | None, post: Activation) -> torch.Tensor:
    """Bool [batch or 1, pos or 1, neurons]: the entries of a pass that are changed."""
    if len(rows) not in (1, len(post)):
        raise LensNeuronsError(
            f"{len(rows)} sets of neurons, one a row, but a batch of {len(post)} rows: "
            "give one set for all rows, or batches of as many rows"
        )
    chosen = rows[:, None, :].to(post.device)
    if positions is None:
        return chosen
    return chosen & _place(positions, post).to(post.device)[..., None]


def _place(positions: Positions, post: Activation) -> torch.Tensor:
    """Bool [batch or 1, pos]: the positions that are meant."""
    if isinstance(positions, torch.Tensor):
        if positions.shape != post.shape[:2]:
            raise LensNeuronsError(
                f"positions {list(positions.shape)} do not fit a batch {list(post.shape[:2])}"
            )
        return positions
    places = torch.zeros(1, post.shape[1], dtype=torch.bool)
    try:
        places[:, positions if isinstance(positions, slice) else list(positions)] = True
    except IndexError:
        raise LensNeuronsError(
            f"positions={positions} are not all within a text of {post.shape[1]} tokens"
        ) from None
    return places


def as_sets(neurons: Neurons) -> list[NeuronSet]:
    """The sets of neurons, one for all rows or one for each."""
    return [neurons] if isinstance(neurons, NeuronSet) else list(neurons)


def require_fit(neurons: Neurons, site: NeuronSite) -> None:
    """Raise unless the sets of neurons are of the model with this site.

    Raises:
        LensNeuronsError: no set, or one of a model of another size.
    """
    if not as_sets(neurons):
        raise LensNeuronsError("no set of neurons: give a NeuronSet, or one for each row")
    for one in as_sets(neurons):
        if (one.n_layers, one.d_mlp) != (site.n_layers, site.d_mlp):
            raise LensNeuronsError(
                f"{one.label} is of a model of {one.n_layers} layers x {one.d_mlp} neurons, this "
                f"one has {site.n_layers} x {site.d_mlp}"
            )
