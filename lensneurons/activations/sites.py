"""What `collect` can count: every site, how it is found in a model, and how a batch is reduced.

    neurons           dense MLPs                                    `lensneurons.models.sites`
    experts           choices of the routers of a mixture           `lensneurons.models.routers`
    expert_neurons    neurons inside its routed experts             `models.expert_neurons`
    shared_neurons    neurons that every token passes beside them   `models.expert_neurons`
    q k v             outputs of the projections of the attention   `models.linear_sites`
    attn_out mlp_out  outputs of the last maps of both              `models.linear_sites`

`SITES` is the one table of them. A site says ``n_layers``, ``d_mlp`` (units a layer), ``hook`` and
``activation_name`` (for the provenance), and ``parts`` (of how many experts or heads the units of a
layer are). A `Reader` runs the batches of a site and reduces each layer as it passes, so that all
that is left of a batch are integers and sums.

On a GPU these stay there until the batch has passed, and come in one transfer: no layer waits for
the device. The neurons inside experts are the exception: which tokens an expert reads has to be
known before they can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from lensneurons.activations.reduction import (
    Places,
    Reduced,
    count_branches,
    fetch,
    places_of,
    reduce_batch,
    reduce_experts,
    reduce_routing,
    reduce_there,
)
from lensneurons.errors import LensNeuronsError
from lensneurons.models.expert_neurons import (
    activation_of,
    expert_neuron_site,
    gate_of,
    shared_neuron_site,
)
from lensneurons.models.forward import (
    Forward,
    attention_implementation,
    output_path,
    to_device,
    watching,
    watching_branches,
    watching_experts,
    watching_outputs,
    watching_routers,
)
from lensneurons.models.linear_sites import linear_site
from lensneurons.models.routers import expert_site
from lensneurons.models.running import reading_waits, require_finite
from lensneurons.models.sites import neuron_site
from lensneurons.tokens.batches import Batch

Site = Literal[
    "neurons",
    "experts",
    "expert_neurons",
    "shared_neurons",
    "q",
    "k",
    "v",
    "attn_out",
    "mlp_out",
]


class Reader:
    """Runs batches and reduces each layer as it passes; layers without such units get zeros.

    Attributes:
        site: what is counted, as the site's own module finds it.
        reduced: one entry a layer after `run`, in order.
        groups: int [row], the place of each row of the next batch, where `by_group`.
        by_group: whether the rows of counts are those of groups, or of texts.
        branches: whether the linear branch is counted as well.
    """

    by_group = False
    branches = False
    name = "hook_pre"  # of what passes, for messages

    def __init__(self, site: Any, model: Any) -> None:
        self.site, self.model = site, model
        self.counted = torch.zeros((0, 0), dtype=torch.bool)
        self.groups = np.zeros(0, np.int64)
        self.reduced: list[Reduced] = []
        self.seen: list[int] = []
        # By layer: tensors on its device, and what makes them the reduced layer once they are here.
        self.held: dict[int, tuple[list[torch.Tensor], Callable[..., Reduced]]] = {}
        self._places: dict[torch.device, Places] = {}

    @property
    def layers(self) -> list[int]:
        """The layers that pass, from the first to the last."""
        return list(getattr(self.site, "layers", range(self.site.n_layers)))

    @property
    def attention(self) -> str:
        """The attention kernel of its passes."""
        return attention_implementation(self.model)

    def watching(self) -> AbstractContextManager[Forward]:
        """The block in which batches run."""
        raise NotImplementedError

    def run(self, forward: Forward, batch: Batch) -> None:
        """Run one batch.

        Raises:
            LensNeuronsError: a layer did not pass exactly once, or in another shape.
        """
        rows = int(self.groups.max()) + 1 if self.by_group else len(batch.counted)
        width = self.site.d_mlp
        self.counted, self.seen, self.held, self._places = batch.counted, [], {}, {}
        nothing = Reduced(np.zeros((rows, width), np.int64), np.zeros(width), np.zeros(width))
        self.reduced = [nothing] * self.site.n_layers
        # Only padding on the left needs a mask: a causal model looks to the left.
        padded_left = not batch.attention_mask[:, 0].numpy().all()
        mask = to_device(self.model, batch.attention_mask) if padded_left else None
        forward(to_device(self.model, batch.tokens), mask)
        if self.seen != self.layers:
            raise LensNeuronsError(
                f"{self.name} of layers {self.layers} passed as {self.seen} in one forward pass: "
                "the counts would be wrong"
            )

        held, self.held = self.held, {}
        arrays = iter(fetch([tensor for tensors, _ in held.values() for tensor in tensors]))
        for layer, (tensors, made) in held.items():
            self.reduced[layer] = made(*(next(arrays) for _ in tensors))

    def places(self, device: torch.device) -> Places:
        """What counts in the batch that is running, on a device: moved there once a batch."""
        if device not in self._places:
            self._places[device] = places_of(self.counted, self.groups).to(device)
        return self._places[device]

    def require_shape(self, layer: int, found: torch.Size, wanted: tuple[int, ...]) -> None:
        """Note that a layer passes; raise where it has not the wanted shape.

        Raises:
            LensNeuronsError: names the layer and both shapes.
        """
        self.seen.append(layer)
        if tuple(found) != wanted:
            raise LensNeuronsError(
                f"{self.name} of layer {layer} is {list(found)}, not {list(wanted)}, for a batch "
                f"of {list(self.counted.shape)} tokens: the counts would be wrong"
            )


class Neurons(Reader):
    """The neurons of dense MLPs."""

    by_group = True

    def watching(self) -> AbstractContextManager[Forward]:
        """See `Reader.watching`."""
        return watching(self.model, self.site, self.watch)

    def watch(self, layer: int, pre: torch.Tensor) -> None:
        """Reduce one layer of the batch that is running."""
        self.require_shape(layer, pre.shape, (*self.counted.shape, self.site.d_mlp))
        self.reduce(layer, pre, *self.site.reading(layer))

    def reduce(self, layer: int, pre: torch.Tensor, *reading: Any) -> None:
        """Reduce one layer, here or on its device."""
        if reading_waits(pre):
            self.held[layer] = reduce_there(pre, self.places(pre.device), *reading), Reduced
        else:
            self.reduced[layer] = reduce_batch(pre, self.counted, *reading, groups=self.groups)


class Branches(Neurons):
    """The neurons of gated MLPs, and their linear branch."""

    branches = True

    def watching(self) -> AbstractContextManager[Forward]:
        """See `Reader.watching`."""
        return watching_branches(self.model, self.site, self.watch_both)

    def watch_both(self, layer: int, pre: torch.Tensor, linear: torch.Tensor) -> None:
        """Reduce both halves of one layer of the batch that is running."""
        self.watch(layer, pre)
        there = linear.to(pre.device)
        counts = count_branches(pre, there, self.places(pre.device), *self.site.reading(layer))
        if layer in self.held:
            self.held[layer][0].extend(counts)
        else:
            linear_counts, both = (one.numpy() for one in counts)
            self.reduced[layer] = self.reduced[layer].with_branches(linear_counts, both)


class Outputs(Neurons):
    """The outputs of linear maps: no activation function stands behind them."""

    name = "the output"

    @property
    def attention(self) -> str:
        """The attention kernel of its passes."""
        return attention_implementation(self.model, output_path(self.model, self.site))

    def watching(self) -> AbstractContextManager[Forward]:
        """See `Reader.watching`."""
        return watching_outputs(self.model, self.site, self.watch)

    def watch(self, layer: int, pre: torch.Tensor) -> None:
        """Reduce one layer of the batch that is running."""
        pre = pre.reshape(*self.counted.shape, -1)  # OPT flattens batch and position
        self.require_shape(layer, pre.shape, (*self.counted.shape, self.site.d_mlp))
        self.reduce(layer, pre, lambda value: value)


class Routers(Reader):
    """The choices of routers."""

    name = "the router"

    def watching(self) -> AbstractContextManager[Forward]:
        """See `Reader.watching`."""
        return watching_routers(self.model, self.site, self.watch)

    def watch(self, layer: int, weights: torch.Tensor, indices: torch.Tensor) -> None:
        """Reduce the choices of one layer of the batch that is running."""
        self.require_shape(layer, indices.shape, (self.counted.numel(), self.site.top_k))
        counted, experts = self.counted, self.site.n_experts

        def made(weights: np.ndarray, indices: np.ndarray) -> Reduced:
            there = torch.from_numpy(weights), torch.from_numpy(indices)
            return reduce_routing(*there, counted, experts)

        kept = [weights.detach().to(torch.float64, copy=True), indices.detach().clone()]
        self.held[layer] = kept, made


class Experts(Reader):
    """The neurons inside experts."""

    by_group = True
    name = "what the experts read"

    def watching(self) -> AbstractContextManager[Forward]:
        """See `Reader.watching`."""
        return watching_experts(self.model, self.site, self.watch)

    def watch(self, layer: int, module: Any, x: torch.Tensor, indices: torch.Tensor) -> None:
        """Reduce the experts of one layer of the batch that is running."""
        self.require_shape(layer, x.shape[:1], (self.counted.numel(),))

        def read(tokens: torch.Tensor, expert: int) -> torch.Tensor:
            pre = gate_of(module, x[tokens], expert)
            require_finite(pre, f"the pre-activations of expert {expert} of layer {layer}")
            return pre

        self.reduced[layer] = reduce_experts(
            read,
            indices,
            self.counted,
            activation_of(module),
            groups=self.groups,
            size=(self.site.n_experts, self.site.width),
            sign_decides=self.site.sign_decides,
        )


class Entry(NamedTuple):
    """How a site is found in a model, and what reads it."""

    find: Callable[[Any], Any]
    reader: type[Reader]


def _linear(name: Any) -> Entry:
    return Entry(lambda model: linear_site(model, name), Outputs)


SITES: dict[str, Entry] = {
    "neurons": Entry(neuron_site, Neurons),
    "experts": Entry(expert_site, Routers),
    "expert_neurons": Entry(expert_neuron_site, Experts),
    "shared_neurons": Entry(shared_neuron_site, Experts),
    **{name: _linear(name) for name in ("q", "k", "v", "attn_out", "mlp_out")},
}


def reader_of(site: str, model: Any, *, branches: bool) -> Reader:
    """What reads a site of a model.

    Args:
        site: its name.
        model: a TransformerLens model.
        branches: whether the linear branch is counted as well.

    Raises:
        ModelError: the model has no such site.
        LensNeuronsError: `branches` of another site than the neurons, or of a model without gates.
    """
    if branches and site != "neurons":
        raise LensNeuronsError(
            f"branches=True counts the two halves of gated neurons, and site={site!r} counts "
            "something else: leave branches away, or take site='neurons'"
        )
    entry = SITES[site]
    found = entry.find(model)
    if branches and not found.gated:
        raise LensNeuronsError(
            "branches=True needs neurons with a gate and a linear branch, and those of "
            f"{type(getattr(model, 'original_model', model)).__name__} have one half alone"
        )
    return (Branches if branches else entry.reader)(found, model)
