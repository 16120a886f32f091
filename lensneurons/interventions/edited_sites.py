"""Where an edit acts: the units that a set holds, and the hooks that change them.

    neurons of dense MLPs    hook_post                                  TransformerLens's own hook
    outputs of linear maps   what the map gives                         a hook on the map
    neurons inside experts   what the expert's last matrix reads        a hook on the experts

Transformers computes the experts of a layer at once, so no tensor of their neurons passes by. The
edit is made on what comes out of them: for each expert that is edited, the neurons of its tokens
are computed again from its weights (what the counts do as well), and the output changes by

    weight of the expert * (edited - what it was) @ W_down

which is what the layer would have given, but for rounding (measured in fp32: at most 2e-6 of the
largest logit in fifteen families). It costs up to the time of those experts again.

Blocks within each other act one after the other, as hooks do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from lensneurons.errors import LensNeuronsError
from lensneurons.models.expert_neurons import (
    ExpertNeuronSite,
    chosen_experts,
    expert_modules,
    expert_neuron_site,
    halves_of,
    shared_neuron_site,
    written,
)
from lensneurons.models.linear_sites import LinearSite, linear_modules, linear_site, name_of_unit
from lensneurons.models.routers import ExpertSite, expert_site, has_routers, hooking_routers
from lensneurons.models.running import reserved
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.neurons.sets import NeuronSet
from lensneurons.values.provenance import ROUTER, UNITS

EditedSite = NeuronSite | LinearSite | ExpertNeuronSite | ExpertSite
# Post [token, width] of an expert, its linear branch, its number, and its tokens; gives the post.
Edit = Callable[[torch.Tensor, torch.Tensor, int, torch.Tensor], torch.Tensor]
_OPEN: WeakKeyDictionary[nn.Module, list[Edit]] = WeakKeyDictionary()


def edited_site(model: Any, neurons: Any) -> EditedSite:
    """The site of a model whose units some sets hold; of names, that of its neurons.

    In a mixture of experts, names such as ``"L2E5N10"`` are neurons inside routed experts, and sets
    of neurons without an expert those of the MLP that every token passes.

    Raises:
        ModelError: the model has no such site.
        LensNeuronsError: sets of different units.
    """
    given = [neurons] if isinstance(neurons, NeuronSet | str) else _listed(neurons)
    sets = [one for one in given if isinstance(one, NeuronSet)]
    if len(units := sorted({one.units for one in sets})) > 1:
        raise LensNeuronsError(f"sets of {' and '.join(units)}: give sets of the same units")
    unit = next((one.unit for one in sets), None)
    if unit == UNITS[ROUTER]:
        return expert_site(model)
    if unit is not None and (name := name_of_unit(unit)) is not None:
        return linear_site(model, name)
    if any(one.n_experts for one in sets):
        return expert_neuron_site(model)
    if has_routers(model) and given:
        inside = any(isinstance(one, str) and "E" in one for one in given)
        return expert_neuron_site(model) if inside else shared_neuron_site(model)
    return neuron_site(model)


def _listed(neurons: Any) -> list[Any]:
    return list(neurons) if isinstance(neurons, Iterable) else []


def wanted_parts(site: EditedSite) -> dict[str, Any]:
    """What a set of a site's units says of itself: unit, experts, heads."""
    unit = UNITS.get(site.hook)
    return {"unit": unit, **site.parts}


@contextmanager
def editing_outputs(
    model: Any, site: LinearSite, hooks: dict[int, Callable[..., torch.Tensor | None]]
) -> Iterator[None]:
    """Change the outputs of linear maps for as long as the block runs.

    Args:
        model: a TransformerLens model.
        site: the maps.
        hooks: layer to a hook, called with the output [batch, pos, units].
    """
    maps = linear_modules(model, site.name)

    def change(layer: int, module: nn.Module, inputs: Any, output: torch.Tensor) -> Any:
        batched = output.reshape(*shape.read, output.shape[-1])  # OPT flattens batch and position
        edited = hooks[layer](batched, None)
        return None if edited is None else edited.reshape(output.shape)

    own = {layer: maps[layer] for layer in hooks}
    with reserved(model), _batch_shape(model) as shape, hooking_routers(own, change):
        yield


@dataclass
class _Shape:
    """Batch and position of the pass that runs."""

    read: tuple[int, int] = (0, 0)


@contextmanager
def _batch_shape(model: Any) -> Iterator[_Shape]:
    """Yield what says how many texts and positions the running pass has."""
    shape = _Shape()

    def look(module: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        stream = inputs[0] if inputs else named["hidden_states"]
        shape.read = int(stream.shape[0]), int(stream.shape[1])

    handle = model.blocks[0].register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield shape
    finally:
        handle.remove()


@runtime_checkable
class InsideHook(Protocol):
    """An edit of the neurons inside the experts of a layer: `interventions.editing.LayerHook`."""

    layer: int
    members: Any

    def meant(
        self, batch: tuple[int, int], tokens: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor | None:
        """Bool [token, neurons]: where the edit is meant, of some of its neurons."""
        ...

    def inside(
        self, here: torch.Tensor, linear: torch.Tensor, places: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """The new post [token, neurons] of some of its neurons."""
        ...


@contextmanager
def editing_experts(
    model: Any, site: ExpertNeuronSite, hooks: Sequence[InsideHook]
) -> Iterator[None]:
    """Change neurons inside experts for as long as the block runs.

    Args:
        model: a TransformerLens model.
        site: its neurons inside experts.
        hooks: what is edited, a layer each.
    """
    modules = expert_modules(model, site.shared)
    by_layer = {hook.layer: hook for hook in hooks}

    def entry(hook: InsideHook) -> Edit:
        numbers = hook.members.indices // site.width

        def edited(
            post: torch.Tensor, linear: torch.Tensor, expert: int, tokens: torch.Tensor
        ) -> torch.Tensor:
            places = torch.from_numpy(np.flatnonzero(numbers.numpy() == expert))
            own = (hook.members.indices[places] % site.width).to(post.device)
            if not len(own) or (chosen := hook.meant(shape.read, tokens, places)) is None:
                return post
            changed = post.clone()
            changed[:, own] = hook.inside(post[:, own], linear[:, own], places, chosen)
            return changed

        return edited

    entries = {layer: entry(hook) for layer, hook in by_layer.items()}

    def correct(layer: int, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        own, opened = entries[layer], _OPEN[module]
        before = opened[: opened.index(own)]
        x, indices = chosen_experts(inputs)
        added = torch.zeros_like(x)
        touched = (by_layer[layer].members.indices // site.width).unique().tolist()
        for expert in touched:
            token, place = torch.where(indices == expert)
            if not len(token):
                continue
            activation, linear = halves_of(module, x[token], expert)
            post = activation * linear
            for earlier in before:
                post = earlier(post, linear, expert, token)
            moved = own(post, linear, expert, token) - post
            change = written(module, moved, expert)
            if not site.shared:
                change = change * inputs[2][token, place, None]
            added.index_add_(0, token, change.to(added.dtype))
        return output + added.reshape(output.shape)

    found = {layer: modules[layer] for layer in by_layer}
    with reserved(model), _batch_shape(model) as shape:
        for layer, module in found.items():
            _OPEN.setdefault(module, []).append(entries[layer])
        try:
            with hooking_routers(found, correct):
                yield
        finally:
            for layer, module in found.items():
                _OPEN[module].remove(entries[layer])
