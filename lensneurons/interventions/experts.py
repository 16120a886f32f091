"""Experts taken out of a mixture, or chosen more often, through its router, while a block runs.

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

`steer_experts` is the same with a number b in the place of minus infinity, which favours an expert
(b > 0) or discourages it. With ``renormalise=True`` b is added to its logit before softmax (or
sigmoid) and choice, so it is chosen more often and the weights of the others shrink. Else the
choice stays, and where it fell on the expert, its weight is multiplied by e^b and the others stay.
Blocks within each other add up.

The effect needs its control: removing any experts that get as many tokens does harm.
``experts.random_control(statistics.probability[..., k])`` draws experts of the same layers with
nearly the routing load of language k, and the mean over the languages matches the load of all. In a
layer of few experts there are few of the same load: say both loads beside the effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lensneurons.errors import LensNeuronsError
from lensneurons.models.routers import (
    ExpertSite,
    expert_site,
    hooking_routers,
    routers,
    routing,
)
from lensneurons.models.running import reserved
from lensneurons.neurons.empty_sets import warn_of_no_neurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.options import plain_options

# What a block adds to the logits of a router, float32 [expert], and whether it renormalises. Or
# factors of the weights, float32 [row, expert], one row for all, without renormalising.
Entry = tuple[torch.Tensor, bool]
_OPEN: WeakKeyDictionary[nn.Module, list[Entry]] = WeakKeyDictionary()


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
    with _rerouting(model, experts, -math.inf, renormalise):
        yield model


@plain_options
@contextmanager
def steer_experts(
    model: Any, experts: NeuronSet, bias: float, *, renormalise: bool = True
) -> Iterator[Any]:
    """Favour or discourage experts of a mixture for as long as the block runs.

    Args:
        model: a TransformerLens model with routers.
        experts: which, as for `ablate_experts`.
        bias: added to their logits, in nats: log 2 doubles the odds of a softmax.
        renormalise: whether the router chooses with it, or the weights that it gave alone change.

    Yields:
        The model.

    Raises:
        ModelError: the model has no routers.
        LensNeuronsError: a bias that is not finite, experts of another model, or of a layer without
            a router.

    Warns:
        EmptySetWarning: there are no experts in `experts`, so nothing changes.
    """
    with _rerouting(model, experts, bias, renormalise):
        yield model


@contextmanager
def _rerouting(model: Any, experts: NeuronSet, bias: float, renormalise: bool) -> Iterator[None]:
    """Add a number to the logits of some experts while the block runs."""
    site, found = expert_site(model), routers(model)
    mask = torch.from_numpy(_own(experts, site).mask())
    layers = _routed_layers([experts], found)
    warn_of_no_neurons([experts])
    opened: dict[nn.Module, Entry] = {}
    for layer in layers:
        added = torch.zeros(site.n_experts).masked_fill(mask[layer], bias)
        if renormalise:
            total = _total([*_OPEN.get(found[layer], []), (added, True)], site.n_experts)
            _require_enough(int((total > -math.inf).sum()), layer, site)
        opened[found[layer]] = (added, True) if renormalise else (added.exp()[None], False)
    with _opening(model, {layer: found[layer] for layer in layers}, opened):
        yield


@contextmanager
def weighing_experts(model: Any, sets: Sequence[NeuronSet], factor: float) -> Iterator[None]:
    """Multiply what experts add to the stream while the block runs: `ablate` and `scale` of them.

    The routers choose as before. With several sets each is for one row of every batch.

    Raises:
        ModelError: the model has no routers.
        LensNeuronsError: experts of another model, or of a layer without a router.
    """
    site, found = expert_site(model), routers(model)
    masks = torch.from_numpy(np.stack([_own(one, site).mask() for one in sets], axis=1))
    layers = _routed_layers(sets, found)
    opened: dict[nn.Module, Entry] = {
        found[layer]: (torch.ones(masks[layer].shape).masked_fill(masks[layer], factor), False)
        for layer in layers
    }
    with _opening(model, {layer: found[layer] for layer in layers}, opened):
        yield


def _own(experts: NeuronSet, site: ExpertSite) -> NeuronSet:
    """The set, once it is one of whole experts of a model."""
    if experts.n_experts is not None:
        raise LensNeuronsError(
            f"{experts.label} holds neurons inside experts, such as L2E5N10, and whole experts are "
            "meant here: identify() from statistics of site='experts' gives such sets"
        )
    if (experts.n_layers, experts.d_mlp) != (site.n_layers, site.n_experts):
        raise LensNeuronsError(
            f"{experts.label} is of a model of {experts.n_layers} layers x {experts.d_mlp} units, "
            f"this one has {site.n_layers} x {site.n_experts} experts"
        )
    return experts


def _routed_layers(sets: Sequence[NeuronSet], found: Mapping[int, nn.Module]) -> list[int]:
    """The layers in which some sets have experts.

    Raises:
        LensNeuronsError: one of them has no router.
    """
    layers = sorted({layer for one in sets for layer in one.by_layer()})
    if dense := sorted(set(layers) - found.keys()):
        raise LensNeuronsError(f"layers {dense} have no router, so there is no expert to choose")
    return layers


def _require_enough(left: int, layer: int, site: ExpertSite) -> None:
    """Raise if a router would have fewer experts than a token goes to."""
    if left < site.top_k:
        raise LensNeuronsError(
            f"{left} of {site.n_experts} experts of layer {layer} would be left, but a token "
            f"goes to {site.top_k}: remove fewer, or give renormalise=False"
        )


@contextmanager
def _opening(
    model: Any, found: dict[int, nn.Module], opened: Mapping[nn.Module, Entry]
) -> Iterator[None]:
    """Reroute by some entries, and by those that are open already, while the block runs."""
    with reserved(model):
        for router, entry in opened.items():
            _OPEN.setdefault(router, []).append(entry)
        try:
            with hooking_routers(found, _reroute):
                yield
        finally:
            for router, entry in opened.items():
                _OPEN[router] = [one for one in _OPEN[router] if one is not entry]


def _total(entries: list[Entry], n_experts: int) -> torch.Tensor:
    """float32 [expert]: what the blocks that renormalise add together."""
    return sum((one for one, own in entries if own), torch.zeros(n_experts))


def _reroute(layer: int, router: nn.Module, inputs: Any, output: Any) -> Any:
    """What a router gives under the open blocks."""
    entries, place = _OPEN[router], output[0].device
    total = _total(entries, output[0].shape[-1]).to(place)
    if total.any() or len(entries) > 1:  # the hook of another block may have acted already
        with _Biased(total):
            output = type(router).forward(router, *inputs)
    weights, indices = routing(router, output)
    for factors, renormalised in entries:
        if not renormalised:
            weights = weights * _by_token(factors, len(indices)).to(weights).gather(1, indices)
    return output[0], weights, indices


def _by_token(factors: torch.Tensor, tokens: int) -> torch.Tensor:
    """Factors [row, expert] as [token, expert]; the tokens of a batch are in a row, text by text.

    Raises:
        LensNeuronsError: the rows are not those of the batch.
    """
    if len(factors) > 1 and tokens % len(factors):
        raise LensNeuronsError(
            f"{len(factors)} sets of experts, one a row, but a batch of {tokens} tokens: give one "
            "set for all rows, or batches of as many rows"
        )
    if len(factors) == 1:
        return factors.expand(tokens, -1)
    return factors.repeat_interleave(tokens // len(factors), 0)


class _Biased(TorchFunctionMode):
    """Within it a router finds other logits: a number added, or minus infinity.

    Routers differ in what they do between their matrix and their choice, so the matrix product is
    met where it is made. Where it is minus infinity, so is every choice of the largest among all
    experts: a score that is not minus infinity for a logit that is (sigmoid plus a bias) loses as
    well, also within groups of experts.
    """

    def __init__(self, added: torch.Tensor) -> None:
        super().__init__()
        self.added = added
        self.removed = added == -math.inf

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` with what it should see."""
        if func in (torch.topk, torch.Tensor.topk):
            args = (self._without(args[0]), *args[1:])
        result = func(*args, **(kwargs or {}))
        if func is nn.functional.linear and result.shape[-1] == len(self.added):
            return result + self.added.to(result)
        return result

    def _without(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [..., expert] or [tokens, group, expert of the group]; others as they are."""
        n = len(self.removed)
        if scores.shape[-1] == n:
            return scores.masked_fill(self.removed, -torch.inf)
        if scores.ndim == 3 and scores.shape[1] * scores.shape[2] == n:
            return scores.masked_fill(self.removed.view(scores.shape[1:]), -torch.inf)
        return scores
