"""An edited model as an ordinary Hugging Face folder, for tools that know nothing of hooks.

What a neuron adds to the stream is its activation times its row of W_out. So an edit that
multiplies activations, the same at every position, is an edit of weights:

    factor * hook_post[j] * W_out[j]  =  hook_post[j] * (factor * W_out[j])

The same holds for neurons inside experts, for whole experts (their last matrix), and for outputs of
linear maps (rows of the map, and its bias). ``factor=0`` is `ablate`, another one is `scale`. Norms
behind the MLP and multipliers of the block read the sum, so they do not matter.
lm-evaluation-harness, vLLM or a GGUF converter read the folder as any other model, and so does
`load_model`.

>>> export(model, neurons["zh"], "runs/without-zh")                            # doctest: +SKIP
>>> load_model("runs/without-zh")                                              # doctest: +SKIP

Not every edit is one of weights. The mean of an activation is a constant: an MLP needs a bias for
it, and a gated one multiplies it by its linear branch at every position. The same holds for a
vector that is added (`steer`), and positions and texts cannot be told apart in a weight. None of
them is offered here; hooks that are on the model are refused.

In half precision a row times 0 is exact; another factor rounds the weights where `scale` rounds
the activations. The folder holds a model of text, also where that came out of one with a vision
tower.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lensneurons.errors import ModelError
from lensneurons.interventions.edited_sites import EditedSite, edited_site
from lensneurons.interventions.editing import Neurons, scale, single_set
from lensneurons.models.expert_neurons import ExpertNeuronSite, expert_modules
from lensneurons.models.family import model_family, unwrap
from lensneurons.models.forward import attention_implementation
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.linear_sites import LinearSite, linear_modules
from lensneurons.models.routers import ExpertSite
from lensneurons.models.running import runs_model
from lensneurons.models.sites import probe_tokens
from lensneurons.models.views import has_hooks, plain_view
from lensneurons.neurons.sets import NeuronSet
from lensneurons.options import plain_options
from lensneurons.shapes import FlatNeurons, Logits
from lensneurons.tokens.encoding import tokenizer_hash
from lensneurons.tokens.prepared import model_provenance
from lensneurons.values.files import new_folder, save_json, whole_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROVENANCE = "lensneurons.json"


@plain_options
@runs_model
def export(
    model: Any,
    neurons: Neurons,
    folder: str | Path,
    *,
    factor: float = 0.0,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Path:
    """Write a model whose neurons are ablated or scaled as a Hugging Face folder.

    Args:
        model: what `load_model` returns; it is not changed. An adapter that it was loaded with is
            part of its weights.
        neurons: whose activations are multiplied.
        folder: a folder that does not exist or is empty. It appears whole or not at all.
        factor: 0 ablates, 2 doubles, -1 turns the sign around.
        tokenizer: goes into the folder; by default the model's own, as it was saved.

    Returns:
        `folder`: weights in the dtype of `model` (safetensors), config.json, tokenizer, and
        ``lensneurons.json`` with the neurons, the factor and the provenance of the model.

    Raises:
        LensNeuronsError: not one set of neurons, one of another model, or a factor not finite.
        ModelError: weights cannot express the edit: hooks are on the model, its weights were
            processed, wrapped or offloaded, or another part of the model shares a W_out.
        StorageError: `folder` holds something, or cannot be written.

    Warns:
        EmptySetWarning: there are no neurons in `neurons`, so nothing changes.
    """
    target = new_folder(folder)
    _require_own_weights(model)
    site = edited_site(model, neurons)
    chosen = single_set(neurons, site)
    tokenizer = tokenizer or original_tokenizer(model)
    view, copies = plain_view(model, attention_implementation(model, "bridge"))
    _drop_additions(view)
    for layer, indices in chosen.by_layer().items():
        _scale_units(model, site, view, copies, layer=layer, indices=indices, factor=factor)
    _require_same_edit(model, view, chosen, factor)
    about = {
        "made_by": "lensneurons.interventions.export",
        "factor": factor,
        "label": chosen.label,
        "neurons": chosen.names,
        "units": chosen.units,
        "model": model_provenance(model, tokenizer_hash(tokenizer), "none").to_dict(),
    }
    with whole_folder(target) as temporary:
        view.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        save_json(temporary / PROVENANCE, about)
    return target


def _require_own_weights(model: Any) -> None:
    """Raise unless the weights of a model are all that decides what it computes."""
    if model_family(model) == "hooked":
        raise ModelError(
            "a HookedTransformer holds its weights in a form of its own, which no Hugging Face "
            "class reads: load_model() the same weights, and export those"
        )
    if has_hooks(model):
        raise ModelError(
            "there are hooks on the model, such as those of ablate() and steer(), and weights "
            "cannot express what they do: export outside the block. What can be exported is one "
            "factor for all positions"
        )
    if getattr(model, "compatibility_mode", False):
        raise ModelError(
            "the weights of the model were processed (enable_compatibility_mode), and no Hugging "
            "Face class computes the same with them: load it anew"
        )
    if lost := [name for name, weight in model.named_parameters() if weight.is_meta]:
        raise ModelError(f"{lost[0]} is offloaded, so it cannot be written: load the whole model")
    if any("_hf_hook" in vars(module) for module in model.modules()):
        raise ModelError("the model is spread over several devices: load it on one to export it")


def _drop_additions(view: Any) -> None:
    """Leave out what TransformerLens added: a bias of 0 at the unembedding, and ways to run.

    Raises:
        ModelError: the model's class has no place for another weight, or lacks one.
    """
    for module in view.modules():
        vars(module).pop("forward", None)  # of a bridge; Falcon's blocks have one
    with torch.device("meta"):
        wanted = type(view)(view.config).state_dict().keys()
    found = view.state_dict()
    for name in found.keys() - wanted:
        owner, _, own = name.rpartition(".")
        if not name.endswith(".bias") or bool(found[name].any()):
            raise ModelError(
                f"{type(view).__name__} has no place for {name}: something was added to the model "
                "(an adapter that is not merged: merge_and_unload), and a folder would lack it"
            )
        # New dictionaries: the old ones are the user's model's.
        inner = vars(view.get_submodule(owner))
        inner["_buffers"] = {n: one for n, one in inner["_buffers"].items() if n != own}
        inner["_parameters"] = {**inner["_parameters"], own: None}
    if lacking := wanted - found.keys():
        raise ModelError(f"the model has no {min(lacking)}, which {type(view).__name__} reads")


def _scale_units(
    model: Any,
    site: EditedSite,
    view: nn.Module,
    copies: dict[int, nn.Module],
    *,
    layer: int,
    indices: FlatNeurons,
    factor: float,
) -> None:
    """Give the view's own modules of a layer the scaled weights of some units.

    Raises:
        ModelError: as `_scale`; or the projection is a part of a fused one.
    """
    units = torch.from_numpy(np.array(indices))
    if isinstance(site, ExpertSite):
        own = copies[id(expert_modules(model, False)[layer])]
        for name in ("down_proj", "down_proj_bias"):
            if name in own._parameters:
                _scale(view, own, name, (units,), factor)
        return
    if isinstance(site, LinearSite):
        inner = linear_modules(model, site.name)[layer]
        if id(inner) not in copies:
            raise ModelError(
                f"{site.name} of {type(view).__name__} is a part of one fused projection, and its "
                "rows are written for split ones alone: use ablate() or scale()"
            )
        own = copies[id(inner)]
        flipped = type(own).__name__ == "Conv1D"  # GPT-2 keeps its matrices as [in, out]
        _scale(view, own, "weight", (slice(None), units) if flipped else (units,), factor)
        if own._parameters.get("bias") is not None:
            _scale(view, own, "bias", (units,), factor)
        return
    if isinstance(site, ExpertNeuronSite):
        inner: Any = expert_modules(model, site.shared)[layer]
        if not site.shared:
            expert, place = units // site.width, units % site.width
            at = (expert, place) if inner.is_transposed else (expert, slice(None), place)
            _scale(view, copies[id(inner)], "down_proj", at, factor)
            return
        inner = unwrap(inner.down_proj)
    else:
        inner = model.blocks[layer].mlp.out.original_component
    own = copies[id(inner)]
    flipped = type(own).__name__ == "Conv1D"
    _scale(view, own, "weight", (units,) if flipped else (slice(None), units), factor)


def _scale(view: nn.Module, owner: nn.Module, own: str, at: tuple[Any, ...], factor: float) -> None:
    """Give a module of the view a weight of its own, multiplied at some places.

    Raises:
        ModelError: another part of the model uses the same weights, or they are no floats.
    """
    told = next(name for name, module in view.named_modules() if module is owner)
    weight = owner._parameters.get(own)
    if weight is None or not weight.is_floating_point():
        raise ModelError(f"{told}.{own} is quantised: load the model in floats")
    for name, module in view.named_modules():
        others = [one for one in module._parameters.values() if one is not None]
        if module is not owner and any(one.data_ptr() == weight.data_ptr() for one in others):
            raise ModelError(
                f"{told}.{own} is also the weight of {name}, which would change with it"
            )
    scaled = weight.detach().clone()
    scaled[at] *= factor
    owner.__dict__["_parameters"] = {**owner._parameters, own: nn.Parameter(scaled, False)}


@torch.inference_mode()
def _require_same_edit(model: Any, view: Any, neurons: NeuronSet, factor: float) -> None:
    """Prove on a short text that the new weights do what the hooks do.

    Raises:
        ModelError: the logits differ by more than rounding.
    """
    ids = probe_tokens(model)
    with scale(model, neurons, factor):
        wanted: Logits = model(ids, return_type="logits")
    logits: Logits = view(input_ids=ids, use_cache=False).logits
    largest = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    difference = float((logits - wanted).abs().max() / largest)
    # In fp32 at most 5e-7 over 51 architectures; half precision rounds weights where hooks round
    # activations.
    if not difference <= (1e-5 if wanted.dtype in (torch.float32, torch.float64) else 0.1):
        raise ModelError(
            f"the weights of {type(view).__name__} cannot express this edit: the logits of a short "
            f"text differ from those under hooks by {difference:.1e} of the largest; please report "
            "this architecture"
        )
