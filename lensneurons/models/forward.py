"""One forward pass that hands every layer's neurons to a watcher and computes no logits.

Three ways lead to the same numbers; `forward_path` takes the first that fits:

``native``  A view of the bridge's Hugging Face model in which every bridge component is replaced by
            the module that it wraps. The view shares all weights with the user's model, which stays
            as it is. It runs the base model (no unembedding) with the attention kernel that
            Hugging Face would choose, and stops after the last layer's neurons.
``bridge``  The bridge itself, with the unembedding of one position. It is for models with hooks of
            the user (they must act), with processed weights, or with a layout that is not plain
            (fused projections, several devices).
``hooked``  A TransformerLens 3.9 ``HookedTransformer``, which can leave the unembedding out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from lensneurons.errors import ModelError
from lensneurons.models.expert_neurons import (
    ExpertNeuronSite,
    ExpertWatch,
    chosen_experts,
    expert_modules,
)
from lensneurons.models.family import (
    context_length,
    input_device,
    model_family,
    unwrap,
)
from lensneurons.models.identity import once
from lensneurons.models.linear_sites import LinearSite, linear_modules
from lensneurons.models.routers import (
    ExpertSite,
    Routed,
    hooking_routers,
    routers,
    routing,
)
from lensneurons.models.running import FiniteCheck
from lensneurons.models.sites import (
    NeuronSite,
    first_projection,
    linear_branch,
    neuron_site,
    probe_tokens,
    verify_neuron_hooks,
)
from lensneurons.models.views import has_hooks, is_plain, plain_modules, plain_view
from lensneurons.shapes import Activation, AttentionMask, TokenIds

Path = Literal["native", "bridge", "hooked"]
Watch = Callable[[int, Activation], None]
WatchBoth = Callable[..., None]  # layer, pre, linear
ModuleWatch = Callable[[int, nn.Module, Any, Any], None]
Forward = Callable[[TokenIds, AttentionMask | None], None]


class _AllSeen(Exception):
    """The last layer's neurons were seen: the rest of the forward pass is not needed."""


def forward_path(model: Any) -> Path:
    """Say which of the three ways `watching` takes for a model as it is now."""
    if model_family(model) == "hooked":
        return "hooked"
    return "native" if is_plain(model) else "bridge"


def attention_implementation(model: Any, path: Path | None = None) -> str:
    """The attention kernel that a pass over this path uses, such as ``"sdpa"`` or ``"eager"``."""
    path = path or forward_path(model)
    if path != "native":
        return "eager"
    hugging_face = model.original_model
    return once(model, "attention", type(hugging_face), lambda: _default_attention(hugging_face))


@contextmanager
def watching(
    model: Any, site: NeuronSite, watch: Watch, *, path: Path | None = None
) -> Iterator[Forward]:
    """Yield a function that runs one batch and hands each layer's hook_pre to `watch`.

    Args:
        model: a TransformerLens model; however the block ends, the model is then as before.
        site: its neurons.
        watch: called as ``watch(layer, pre)`` with the pre-activation [batch, pos, d_mlp].
        path: one of the three ways, for tests; None for what `forward_path` says.

    Yields:
        ``run(tokens, attention_mask)``. Right padding needs no mask in a causal model and costs
        speed with one: pass None for it. It raises a ModelError where a pre-activation is not
        finite.

    Raises:
        ModelError: as `prove_neurons`, where no hooks of the user are on the model.
    """
    if path is None and not has_hooks(model):
        prove_neurons(model)
    path, check = path or forward_path(model), FiniteCheck()

    def finite(layer: int, pre: Activation) -> None:
        check(pre, f"the pre-activations of layer {layer}")
        if not check.repeats:
            watch(layer, pre)

    if path == "native":
        with _watch_native(model, site, finite) as run:
            yield check.after(run)
        return

    def hook(layer: int) -> Callable[..., None]:
        return lambda tensor, hook: finite(layer, tensor)

    def run_hooked(tokens: TokenIds, mask: AttentionMask | None) -> None:
        with torch.inference_mode():
            model(tokens, attention_mask=mask, **least_logits(model))

    with model.hooks(fwd_hooks=[(name, hook(layer)) for layer, name in enumerate(site.pre)]):
        yield check.after(run_hooked)


@contextmanager
def watching_branches(
    model: Any, site: NeuronSite, watch: WatchBoth, *, path: Path | None = None
) -> Iterator[Forward]:
    """`watching` for both halves of gated neurons.

    `watch` is called as ``watch(layer, pre, linear)``, both [batch, pos, d_mlp].

    Raises:
        ModelError: as `prove_neurons`; or the linear branch of the native path is another one.
    """
    if path is None:
        if not has_hooks(model):
            prove_neurons(model)
        _prove_branches(model, site)
    held: dict[int, dict[str, Activation]] = {}
    check = FiniteCheck()

    def see(half: str, layer: int, value: Activation) -> None:
        check(value, f"the {half} of the neurons of layer {layer}")
        held.setdefault(layer, {})[half] = value
        if len(held[layer]) == 2:
            both = held.pop(layer)
            if not check.repeats:
                watch(layer, **both)

    def anew(run: Forward) -> Forward:
        """Begin each batch without what one that failed has left."""

        def begun(tokens: TokenIds, mask: AttentionMask | None) -> None:
            held.clear()
            run(tokens, mask)

        return check.after(begun)

    if (path or forward_path(model)) == "native":

        def seen(half: str) -> ModuleWatch:
            return lambda layer, module, inputs, output: see(half, layer, output)

        mlps = [block.mlp for block in model.blocks]
        gates = {layer: unwrap(mlp.gate) for layer, mlp in enumerate(mlps)}
        linears = {layer: unwrap(getattr(mlp, "in")) for layer, mlp in enumerate(mlps)}
        watched = (gates, seen("pre")), (linears, seen("linear"))
        with _watching_modules(model, *watched, path="native") as run:
            yield anew(run)
        return

    def hook(half: str, layer: int) -> Callable[..., None]:
        return lambda tensor, hook: see(half, layer, tensor)

    def run_hooked(tokens: TokenIds, mask: AttentionMask | None) -> None:
        with torch.inference_mode():
            model(tokens, attention_mask=mask, **least_logits(model))

    hooks = [(name, hook("pre", layer)) for layer, name in enumerate(site.pre)]
    hooks += [(linear_branch(name), hook("linear", layer)) for layer, name in enumerate(site.pre)]
    with model.hooks(fwd_hooks=hooks):
        yield anew(run_hooked)


def _prove_branches(model: Any, site: NeuronSite) -> None:
    """Prove once that the native view sees the linear branch that the bridge's hooks see.

    Raises:
        ModelError: it differs by more than rounding.
    """
    if forward_path(model) != "native":
        return

    def prove() -> bool:
        tokens, seen = probe_tokens(model), []
        for path in ("native", "bridge"):
            own: list[Activation] = []
            keep = partial(_keep_linear, own)
            with watching_branches(model, site, keep, path=path) as run:
                run(tokens, None)
            seen.append(own)
        if (worst := _worst(*seen)) > _allowed(seen[1][0].dtype):
            raise ModelError(
                f"the fast path and the bridge disagree by {worst:.1e} on the linear branch of "
                f"{type(model.original_model).__name__}: please report this architecture"
            )
        return True

    once(model, "proof of the linear branch", None, prove)


def _keep_linear(kept: list[Activation], layer: int, pre: Activation, linear: Activation) -> None:
    kept.append(linear)


@contextmanager
def _watch_native(model: Any, site: NeuronSite, watch: Watch) -> Iterator[Forward]:
    """`watching` over the plain Hugging Face view of a bridge."""
    view, copies = plain_view(model, attention_implementation(model, "native"))
    shape: tuple[int, ...] = ()

    def hook(layer: int) -> Callable[..., None]:
        def seen(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            watch(layer, output.reshape(*shape, -1))  # OPT flattens batch and position
            if layer == site.n_layers - 1:
                raise _AllSeen

        return seen

    for layer, block in enumerate(model.blocks):
        copies[id(unwrap(first_projection(block.mlp)))].register_forward_hook(hook(layer))

    def run(tokens: TokenIds, mask: AttentionMask | None) -> None:
        nonlocal shape
        shape = tokens.shape
        # As in Hugging Face's generate: positions start at the first real token of each row.
        places = None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode(), suppress(_AllSeen):
            view.base_model(tokens, attention_mask=mask, position_ids=places, use_cache=False)

    yield run


@contextmanager
def watching_routers(model: Any, site: ExpertSite, watch: Routed) -> Iterator[Forward]:
    """Yield a function that runs one batch and hands each router's choices to `watch`.

    Args:
        model: a TransformerLens model; however the block ends, the model is then as before.
        site: its experts.
        watch: called as ``watch(layer, weights, indices)``, both [tokens, k]; the tokens of a batch
            are in a row, text by text.

    Yields:
        ``run(tokens, attention_mask)``, as `watching`. It raises a ModelError where a weight is
        not finite.
    """
    check = FiniteCheck()

    def routed(layer: int, router: nn.Module, inputs: Any, output: Any) -> None:
        weights, indices = routing(router, output)
        check(weights, f"the weights of the router of layer {layer}")
        if not check.repeats:
            watch(layer, weights, indices)

    with _watching_modules(model, (routers(model), routed)) as run:
        yield check.after(run)


@contextmanager
def watching_experts(model: Any, site: ExpertNeuronSite, watch: ExpertWatch) -> Iterator[Forward]:
    """`watching_routers` for what the experts of each layer read.

    `watch` is called as ``watch(layer, module, x, indices)`` with the module of the experts, its
    tokens [token, d_model] and their experts int [token, k].
    """

    def read(layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        watch(layer, module, *chosen_experts(inputs))

    with _watching_modules(model, (expert_modules(model, site.shared), read)) as run:
        yield run


@contextmanager
def watching_outputs(model: Any, site: LinearSite, watch: Watch) -> Iterator[Forward]:
    """`watching_routers` for the outputs of linear maps: ``watch(layer, output)``.

    The output is [batch, pos, units], or [batch * pos, units] where a model flattens both.

    Raises:
        ModelError: the native view sees other outputs than the bridge.
    """
    path, check = output_path(model, site), FiniteCheck()

    def seen(layer: int, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        check(output, f"the outputs {site.name} of layer {layer}")
        if not check.repeats:
            watch(layer, output)

    if path == "native":
        once(model, f"proof of {site.name}", None, lambda: _prove_outputs(model, site))
    with _watching_modules(model, (linear_modules(model, site.name), seen), path=path) as run:
        yield check.after(run)


def output_path(model: Any, site: LinearSite) -> Path:
    """The way on which outputs of linear maps are read: the bridge alone splits fused ones."""
    if forward_path(model) != "native":
        return "bridge"
    native = {id(module) for module in plain_modules(model.original_model)}
    maps = linear_modules(model, site.name).values()
    return "native" if all(id(one) in native for one in maps) else "bridge"


def _prove_outputs(model: Any, site: LinearSite) -> bool:
    """Prove on a short text that both paths see the same outputs.

    Raises:
        ModelError: they differ by more than rounding.
    """
    found, seen = linear_modules(model, site.name), []
    for path in ("native", "bridge"):
        own: list[Activation] = []

        def keep(layer: int, module: nn.Module, inputs: Any, output: Any, own: Any = own) -> None:
            own.append(output.reshape(1, -1, output.shape[-1]).clone())

        with _watching_modules(model, (found, keep), path=path) as run:
            run(probe_tokens(model), None)
        seen.append(own)
    if (worst := _worst(*seen)) > _allowed(seen[1][0].dtype):
        raise ModelError(
            f"the fast path and the bridge disagree by {worst:.1e} on the outputs {site.name} of "
            f"{type(model.original_model).__name__}: please report this architecture"
        )
    return True


@contextmanager
def _watching_modules(
    model: Any, *watched: tuple[dict[int, nn.Module], ModuleWatch], path: Path | None = None
) -> Iterator[Forward]:
    """Yield a function that runs one batch and calls a watcher after each of some modules.

    The native path ends after the last layer of the last of `watched`.
    """
    run_model = model
    native = (path or forward_path(model)) == "native"
    if native:
        view, copies = plain_view(model, attention_implementation(model, "native"))
        watched = tuple(
            ({layer: copies[id(module)] for layer, module in found.items()}, watch)
            for found, watch in watched
        )
        run_model = view.base_model
    (final, told), others = watched[-1], watched[:-1]

    def seen(layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        told(layer, module, inputs, output)
        if native and layer == max(final):
            raise _AllSeen

    def run(tokens: TokenIds, mask: AttentionMask | None) -> None:
        with torch.inference_mode(), suppress(_AllSeen):
            if native:
                places = None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)
                run_model(tokens, attention_mask=mask, position_ids=places, use_cache=False)
            else:
                run_model(tokens, attention_mask=mask, **least_logits(model))

    with ExitStack() as stack:
        for found, watch in others:
            stack.enter_context(hooking_routers(found, watch))
        stack.enter_context(hooking_routers(final, seen))
        yield run


def _default_attention(hugging_face: Any) -> str:
    """The kernel that Hugging Face chooses for this architecture by default.

    TransformerLens switches a model to eager attention in place, so a model without weights is
    built and asked. Architectures for which sdpa would be wrong (Gemma 2) answer eager.
    """
    config = copy.deepcopy(hugging_face.config)
    config._attn_implementation = None
    with torch.device("meta"):
        return str(type(hugging_face)(config).config._attn_implementation)


def require_same_neurons(model: Any, site: NeuronSite) -> None:
    """Prove on a short probe that the native view sees the neurons that the bridge's hooks see.

    Raises:
        ModelError: a pre-activation differs by more than rounding between the two paths.
    """
    if forward_path(model) != "native":
        return
    tokens = probe_tokens(model)
    seen = [_pre_activations(model, site, tokens, path) for path in ("native", "bridge")]
    if (worst := _worst(*seen)) > _allowed(seen[1][0].dtype):
        raise ModelError(
            f"the fast path and the bridge disagree by {worst:.1e} on "
            f"{type(model.original_model).__name__}: please report this architecture"
        )


def require_same_in_company(model: Any, site: NeuronSite) -> None:
    """Prove on a short probe that a text gives the same beside a longer one as alone.

    Raises:
        ModelError: a pre-activation differs by more than rounding, so numbers would depend on how
            texts are put together in batches.
    """
    text = probe_tokens(model)
    length = min(4 * text.shape[1], context_length(model))
    pair = text.repeat(2, -(-length // text.shape[1]))[:, :length]
    pair[0, text.shape[1] :] = 0  # padding: a causal model never looks to the right
    path = forward_path(model)
    alone = _pre_activations(model, site, text, path)
    beside = [pre[:1, : text.shape[1]] for pre in _pre_activations(model, site, pair, path)]
    if (worst := _worst(alone, beside)) > _allowed(alone[0].dtype):
        raise ModelError(
            f"{type(model.original_model).__name__} reads a text otherwise beside a longer one: "
            f"pre-activations differ by {worst:.1e} of the largest, so counts would depend on the "
            "batches; please report this architecture"
        )


def _pre_activations(
    model: Any, site: NeuronSite, tokens: TokenIds, path: Path
) -> list[Activation]:
    """hook_pre of every layer for one batch over one path."""
    seen: list[Activation] = []
    with watching(model, site, lambda layer, pre: seen.append(pre), path=path) as run:
        run(tokens, None)
    return seen


def _worst(ours: list[Activation], theirs: list[Activation]) -> float:
    """Largest difference over all layers, relative to the largest entry."""
    scale = max(float(pre.abs().max()) for pre in theirs)
    largest = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    return largest / max(scale, 1e-30)


def _allowed(dtype: torch.dtype) -> float:
    """Sdpa against eager: 1e-7 to 1e-6 in fp32 over 16 architectures, a few 1e-3 in bf16."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.1


def prove_neurons(model: Any) -> None:
    """Prove once for a model that its hooks are its neurons, and that every path sees the same.

    Raises:
        ModelError: as `verify_neuron_hooks`, `require_same_neurons` and `require_same_in_company`.
    """

    def prove() -> bool:
        verify_neuron_hooks(model)
        require_same_neurons(model, neuron_site(model))
        require_same_in_company(model, neuron_site(model))
        return True

    weight = next(iter(model.parameters()))
    once(model, "proof of the hooks", (forward_path(model), weight.dtype, weight.device), prove)


def least_logits(model: Any) -> dict[str, Any]:
    """Options of a pass that is run for its hooks alone: the fewest logits that it can give."""
    return {"return_type": None} if model_family(model) == "hooked" else {"logits_to_keep": 1}


def to_device(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Move token ids or a mask to where the model reads its input."""
    return ids.to(input_device(model), non_blocking=True)
