"""The outputs of a model's linear maps as units: queries, keys, values, and what both halves write.

    q  k  v     x @ W + b of the attention's projections, before norms and rotary positions
    attn_out    output of the attention's last map
    mlp_out     output of W_out

each with its bias, before any norm behind it. No activation function follows, so a unit counts as
active where its value is above 0: a statement about a sign, which half of the units of a random map
satisfy half of the time. The mean and the mean square are kept beside it
(`ActivationStatistics.mean`).

What this can be compared with. Kojima et al. 2024 (arXiv 2404.02431) take the outputs of all linear
maps of a block, these five among them; they rank units by how well the mean value over a text tells
the language (average precision), so their lists are not those of a bar on the share of positive
values. PLND (arXiv 2402.18815) takes columns of W_Q, W_K and W_V as neurons as well, but by how
much the layer's output changes without them, a magnitude: ``squares`` says how large a unit is, the
counts here do not. LAPE and arXiv 2505.21505 count neurons of MLPs alone.

Grouped queries have fewer keys and values than queries. Unit j of a projection is number
``j % size`` of head ``j // size``, and is called ``L2H1N5``.

>>> collect(model, corpus, site="v")                                           # doctest: +SKIP

What this does not read: layers of another kind than attention, latent attention (DeepSeek-V3),
whose queries and keys are put together from several maps, and the W_out of a mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from lensneurons.errors import ModelError
from lensneurons.models.family import model_family, unwrap
from lensneurons.models.identity import once
from lensneurons.models.routers import hooking_routers
from lensneurons.models.sites import probe_tokens
from lensneurons.values.provenance import UNITS

LinearName = Literal["q", "k", "v", "attn_out", "mlp_out"]
# Name of the site to those of TransformerLens: the part of a block, and its map.
PLACES: dict[str, tuple[str, str]] = {
    "q": ("attn", "q"),
    "k": ("attn", "k"),
    "v": ("attn", "v"),
    "attn_out": ("attn", "o"),
    "mlp_out": ("mlp", "out"),
}


@dataclass(frozen=True)
class LinearSite:
    """The outputs of one linear map in every block.

    Attributes:
        name: one of `PLACES`.
        n_layers: transformer blocks.
        d_mlp: outputs of the map: units stand where statistics have neurons.
        n_heads: heads that they are divided into; None for outputs of the stream's width.
    """

    name: LinearName
    n_layers: int
    d_mlp: int
    n_heads: int | None

    gated = False
    activation_name = "none"

    @property
    def hook(self) -> str:
        """What provenance calls the site."""
        return f"{'.'.join(PLACES[self.name])}.hook_out"

    @property
    def parts(self) -> dict[str, int]:
        """Of how many heads the units of a layer are."""
        return {} if self.n_heads is None else {"n_heads": self.n_heads}


def name_of_unit(unit: str) -> LinearName | None:
    """The site of a unit such as ``"query unit"``; None of those that are no outputs of maps."""
    found: Any = [
        name for name, place in PLACES.items() if UNITS[f"{'.'.join(place)}.hook_out"] == unit
    ]
    return found[0] if found else None


def linear_modules(model: Any, name: LinearName) -> dict[int, nn.Module]:
    """Layer to the module that is the map.

    Of a fused projection (GPT-2, GPT-NeoX, Phi-3) it is the part that TransformerLens split off.

    Raises:
        ModelError: a layer has no such map; says which, and what is there.
    """
    owner, part = PLACES[name]
    kind = type(getattr(model, "original_model", model)).__name__
    if model_family(model) == "hooked":
        raise ModelError(
            f"site={name!r} reads the modules of Hugging Face, which a HookedTransformer has not: "
            "load_model() the same weights"
        )
    found = {}
    for layer, block in enumerate(model.blocks):
        inner = getattr(getattr(block, owner, None), part, None)
        module = None if inner is None else unwrap(inner)
        if module is None or module is inner:
            held = type(getattr(block, owner, None)).__name__
            has = "no attention" if held == "NoneType" else f"no such map of its own ({held})"
            raise ModelError(
                f"site={name!r} needs one map in every layer, and block {layer} of {kind} has {has}"
            )
        found[layer] = module
    return found


def linear_site(model: Any, name: LinearName) -> LinearSite:
    """Find the outputs of a linear map in every block, proved once by a short text.

    Raises:
        ModelError: a block has no such map, blocks differ in width, or a map does not run once a
            pass, from the first block to the last.
    """
    return once(model, f"outputs of {name}", None, lambda: _prove(model, name))


@torch.inference_mode()
def _prove(model: Any, name: LinearName) -> LinearSite:
    """The site, from what the maps give for a short text."""
    found, widths, fired = linear_modules(model, name), set(), []
    kind = type(model.original_model).__name__

    def keep(layer: int, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        fired.append(layer)
        widths.add(int(output.shape[-1]))

    with hooking_routers(found, keep):
        model(probe_tokens(model), return_type="logits")
    if fired != sorted(found):
        raise ModelError(
            f"site={name!r} needs a map that runs once a forward pass in every layer, and those of "
            f"{kind} ran as {fired}"
        )
    if len(widths) > 1:
        raise ModelError(
            f"site={name!r} needs one width, and layers of {kind} differ: {sorted(widths)}"
        )
    [width] = widths
    heads = _heads(model, name, width)
    return LinearSite(name, len(model.blocks), width, heads)


def _heads(model: Any, name: LinearName, width: int) -> int | None:
    """How many heads the outputs of a projection are divided into.

    Raises:
        ModelError: they are not those of the model's heads alone (a gate beside the queries).
    """
    if name not in ("q", "k", "v"):
        return None
    size, queries = int(model.cfg.d_head), int(model.cfg.n_heads)
    if width % size or (name == "q" and width != queries * size):
        raise ModelError(
            f"site={name!r}: {width} outputs are not those of heads of {size}, so what each of "
            f"them is in {type(model.original_model).__name__} is not known"
        )
    return width // size
