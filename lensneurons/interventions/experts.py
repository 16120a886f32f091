"""Experts taken out of a mixture, through its router, for as long as a block runs.

Two things can be meant by a model without an expert:

``renormalise=True``   The router chooses among the others: the expert's logit is minus infinity
                       before softmax (or sigmoid) and choice. Its tokens go to the next best expert
                       and the weights are shared among those that are left, as in a model that was
                       built without it: the logits are those of one whose rows were deleted.
``renormalise=False``  The router chooses as before, and where it chose the expert, nothing is
                       added: its weight is 0, the other weights stay, k - 1 experts act.

The second is the ablation of a neuron (its output is 0); the first asks what the model can do
without it. Shared experts, which every token passes, stay.

>>> experts = ln.identify(statistics)["th"]                                   # doctest: +SKIP
>>> with ablate_experts(model, experts):                                      # doctest: +SKIP
...     ln.nll(model, corpus)

The effect needs its control: removing any experts that get as many tokens does harm.
``experts.random_control(statistics.probability[..., k])`` draws experts of the same layers with
nearly the routing load of language k, and the mean over the languages matches the load of all. In a
layer of few experts there are few of the same load: say both loads beside the effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lensneurons.errors import LensNeuronsError
from lensneurons.models.routers import expert_site, hooking_routers, routers, routing
from lensneurons.models.running import reserved
from lensneurons.neurons.empty_sets import warn_of_no_neurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.options import plain_options

# Router to what the open blocks remove there: bool [expert], and whether it renormalises.
_REMOVED: WeakKeyDictionary[nn.Module, list[tuple[torch.Tensor, bool]]] = WeakKeyDictionary()


@plain_options
@contextmanager
def ablate_experts(model: Any, experts: NeuronSet, *, renormalise: bool = True) -> Iterator[Any]:
    """Take experts out of a mixture for as long as the block runs.

    Args:
        model: a TransformerLens model with routers.
        experts: which, by layer and number, such as ``"L12N3"``; `identify` gives such sets from
            statistics of experts. Blocks within each other remove the experts of both.
        renormalise: whether the router chooses among the others, or nothing stands in.

    Yields:
        The model.

    Raises:
        ModelError: the model has no routers.
        LensNeuronsError: experts of another model, of a layer without a router, or so many that
            fewer than k are left to choose from.

    Warns:
        EmptySetWarning: there are no experts in `experts`, so nothing changes.
    """
    site, found = expert_site(model), routers(model)
    if experts.n_experts is not None:
        raise LensNeuronsError(
            f"{experts.label} holds neurons inside experts, such as L2E5N10, and whole experts are "
            "taken out here: identify() from statistics of site='experts' gives such sets"
        )
    if (experts.n_layers, experts.d_mlp) != (site.n_layers, site.n_experts):
        raise LensNeuronsError(
            f"{experts.label} is of a model of {experts.n_layers} layers x {experts.d_mlp} units, "
            f"this one has {site.n_layers} x {site.n_experts} experts"
        )
    warn_of_no_neurons([experts])
    masks = {layer: experts.mask()[layer] for layer in experts.by_layer()}
    if dense := sorted(masks.keys() - found.keys()):
        raise LensNeuronsError(f"layers {dense} have no router, so there is no expert to remove")
    opened = {found[layer]: (torch.from_numpy(one), renormalise) for layer, one in masks.items()}
    for layer in masks:
        entries = [*_REMOVED.get(found[layer], []), opened[found[layer]]]
        left = site.n_experts - int(_union(entries, site.n_experts).sum())
        if left < site.top_k:
            raise LensNeuronsError(
                f"{left} of {site.n_experts} experts of layer {layer} would be left, but a token "
                f"goes to {site.top_k}: remove fewer, or give renormalise=False"
            )
    with reserved(model):
        for router, entry in opened.items():
            _REMOVED.setdefault(router, []).append(entry)
        try:
            with hooking_routers({layer: found[layer] for layer in masks}, _reroute):
                yield model
        finally:
            for router, entry in opened.items():
                _REMOVED[router] = [one for one in _REMOVED[router] if one is not entry]


def _union(entries: list[tuple[torch.Tensor, bool]], n_experts: int) -> torch.Tensor:
    """Bool [expert]: what the blocks that renormalise remove together."""
    union = torch.zeros(n_experts, dtype=torch.bool)
    for mask, renormalised in entries:
        union |= mask & renormalised
    return union


def _reroute(layer: int, router: nn.Module, inputs: Any, output: Any) -> Any:
    """What a router gives without the experts that the open blocks remove."""
    entries, place = _REMOVED[router], output[0].device
    union = _union(entries, output[0].shape[-1]).to(place)
    if union.any():
        with _Without(union):
            output = type(router).forward(router, *inputs)
    weights, indices = routing(router, output)
    for mask, renormalised in entries:
        if not renormalised:
            weights = weights.masked_fill(mask.to(place)[indices], 0)
    return output[0], weights, indices


class _Without(TorchFunctionMode):
    """Within it a router finds minus infinity where removed experts have their logits and scores.

    Routers differ in what they do between their matrix and their choice. So the matrix product and
    every choice of the largest among all experts are met where they are made: a score that is not
    minus infinity for a logit that is (sigmoid plus a bias) loses as well, also within groups of
    experts.
    """

    def __init__(self, removed: torch.Tensor) -> None:
        super().__init__()
        self.removed = removed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` with what it should see."""
        if func in (torch.topk, torch.Tensor.topk):
            args = (self._without(args[0]), *args[1:])
        result = func(*args, **(kwargs or {}))
        return self._without(result) if func is nn.functional.linear else result

    def _without(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [..., expert] or [tokens, group, expert of the group]; others as they are."""
        n = len(self.removed)
        if scores.shape[-1] == n:
            return scores.masked_fill(self.removed, -torch.inf)
        if scores.ndim == 3 and scores.shape[1] * scores.shape[2] == n:
            return scores.masked_fill(self.removed.view(scores.shape[1:]), -torch.inf)
        return scores
