"""Views of a bridge's Hugging Face model: without its hook points, with all of its weights.

A bridge wraps each module of a Hugging Face model in a component that has hook points. They cost
time at every pass, most of all where passes are short, and do nothing where nobody has put a hook
on them. A view is a shallow copy of the tree of modules in which components are replaced by what
they wrap. It shares the weights; the model stays as it is.

`plain_view` has no component at all; `writing_view` has those of MLPs that hooks are on.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from lensneurons.models.family import all_modules, unwrap
from lensneurons.models.routers import has_routers, routers
from lensneurons.models.sites import first_projection

# Whose hooks change nothing (TransformerLens's own interventions live in other modules of it).
PASSIVE = ("transformer_lens.model_bridge.", "transformers.utils.output_capturing")
# Components that call `hook_in`, the map and `hook_out`, and do nothing else.
MAPS = ("LinearBridge", "Conv1DBridge")


def writing_view(model: Any) -> Any:
    """The Hugging Face model that writes a bridge's texts: the one inside, or a view of it.

    Hooks on inputs and outputs of an MLP's linear maps, such as those of `ablate`, `scale` and
    `steer`, act in a view as well; for any other the bridge's own model writes. (A bridge may pass
    by the maps of its attention, and a hook on one that it never calls would act in a view.) A view
    has the bridge's eager attention, so a text does not depend on whether hooks are on the model.
    """
    hooked = [id(one) for one in _hooked(model)]
    points = _map_points(model) if hooked else {}
    if not _is_raw(model) or not all(one in points for one in hooked):
        return model.original_model
    return plain_view(model, "eager", keeping=[points[one] for one in hooked])[0]


def _map_points(model: Any) -> dict[int, nn.Module]:
    """The components of the linear maps of dense MLPs, by the ids of their hook points."""
    if has_routers(model):
        return {}
    inside = {id(one) for block in model.blocks for one in block.mlp._modules.values()}
    return {
        id(point): component
        for component in _components(model.original_model)
        if id(component) in inside and type(component).__name__ in MAPS
        for point in (component.hook_in, component.hook_out)
    }


def plain_view(
    model: Any, attention: str, *, keeping: Iterable[nn.Module] = ()
) -> tuple[Any, dict[int, nn.Module]]:
    """A view with an attention kernel, and its modules by the id of what each was copied from.

    Components of `keeping` stay in it, with all that they hold.
    """
    copies = {id(component): component for component in keeping}
    configs: dict[int, Any] = {}
    view = _copy_plain(model.original_model, copies, configs)
    for config in configs.values():
        config._attn_implementation = attention
    return view, copies


def is_plain(model: Any) -> bool:
    """Whether a plain view computes what the bridge would: no hooks, raw weights, one device."""
    return not _hooked(model) and _is_raw(model)


def has_hooks(model: Any) -> bool:
    """Whether the user's hooks are on the model, through TransformerLens or through PyTorch.

    Hooks that change nothing do not count: those of the bridge itself (captures on its layer norms,
    mirrors on the MLPs of OPT), and the recorders that transformers leaves behind after a cache
    was asked for.
    """
    return bool(_hooked(model))


def plain_modules(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of a bridged tree as Hugging Face built it, without bridge components."""
    return map(unwrap, _components(module))


def _components(module: nn.Module) -> Iterator[nn.Module]:
    """What stands at each place of a Hugging Face tree: a bridge component, or a plain module."""
    yield module
    for child in unwrap(module)._modules.values():
        if child is not None:
            yield from _components(child)


def _hooked(model: Any) -> list[nn.Module]:
    """The hook points and modules that the user's hooks are on."""
    points = {id(point): point for point in model.hook_dict.values()}
    attached = [(point, [one.user_hook for one in point.fwd_hooks]) for point in points.values()]
    for module in all_modules(model):
        if id(module) not in points:
            own = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
            attached.append((module, own))
    return [
        one
        for one, hooks in attached
        if not all(str(hook.__module__).startswith(PASSIVE) for hook in hooks)
    ]


def _is_raw(model: Any) -> bool:
    """Whether nothing but its hooks keeps a bridge from computing what its plain view would."""
    if getattr(model, "compatibility_mode", False):
        return False
    for module in all_modules(model):
        # Accelerate and some adapters of TransformerLens replace `forward` on the instance.
        if "forward" in vars(module) or getattr(module, "_use_processed_weights", False):
            return False
        if is_parametrized(module):  # cannot be copied
            return False
    native = {id(module) for module in plain_modules(model.original_model)}
    if has_routers(model):
        return all(id(router) in native for router in routers(model).values())
    return all(id(unwrap(first_projection(block.mlp))) in native for block in model.blocks)


def _copy_plain(
    module: nn.Module, copies: dict[int, nn.Module], configs: dict[int, Any]
) -> nn.Module:
    """A shallow copy of a module tree: own children, hooks and configuration, shared weights."""
    for one in (module, unwrap(module)):  # a component that is kept, or what is copied already
        if id(one) in copies:
            return copies[id(one)]
    module = unwrap(module)
    twin = copies[id(module)] = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, OrderedDict) and name.endswith(
            ("hooks", "_with_kwargs", "always_called")
        ):
            twin.__dict__[name] = OrderedDict(value)
    config = module.__dict__.get("config")
    if config is not None:
        twin.__dict__["config"] = configs.setdefault(id(config), copy.deepcopy(config))
    twin.__dict__["_modules"] = {
        name: None if child is None else _copy_plain(child, copies, configs)
        for name, child in module._modules.items()
    }
    return twin
