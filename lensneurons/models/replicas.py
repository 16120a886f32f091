"""The same model in another process: packed, built again, and proved to be the same.

    pack_model        weights, configuration and tokenizer of a bridge: what can travel
    build_model       the model again, by the way of `load_model`
    traits_of         what must be the same there: hashes of weights and configuration, number
                      format, way of the forward pass, attention kernel, versions of the libraries
    require_replica   raises where one differs, or where the model writes other logits

The weights travel as they are in memory, so those that somebody changed after loading arrive
changed. What is not in the weights or the configuration (a function that was replaced, say) does
not travel: the logits of a short text show it, and such a model is refused.

>>> built = build_model(pack_model(model), "cpu")                        # doctest: +SKIP
>>> require_replica(built, traits_of(model), last_logits(model))         # doctest: +SKIP

What it does not carry: hooks; models over several devices; models of TransformerLens 3.9. These
are built in the other process by a function of the user.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lensneurons.errors import ModelError
from lensneurons.models.family import model_family
from lensneurons.models.forward import attention_implementation, forward_path
from lensneurons.models.identity import (
    copy_tokenizer,
    hash_config,
    hash_weights,
    original_tokenizer,
    quantisation_of,
    remember_quantisation,
    remember_tokenizer,
)
from lensneurons.models.loading import bridge_model
from lensneurons.models.running import require_finite
from lensneurons.models.sites import probe_tokens
from lensneurons.models.views import has_hooks, plain_view
from lensneurons.values.provenance import library_versions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Where a module keeps tensors; None for plain attributes.
SLOTS = ("_parameters", "_buffers", None)


@dataclass(frozen=True, eq=False)
class PackedTensor:
    """One tensor as bytes, which travel without a copy.

    Attributes:
        data: uint8 [bytes].
        dtype: of the tensor.
        shape: of the tensor.
        trained: whether it is a parameter.
    """

    data: np.ndarray
    dtype: torch.dtype
    shape: tuple[int, ...]
    trained: bool

    @classmethod
    def of(cls, tensor: torch.Tensor) -> PackedTensor:
        """The bytes of a tensor, on the CPU."""
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        trained = isinstance(tensor, torch.nn.Parameter)
        return cls(flat.numpy(), tensor.dtype, tuple(tensor.shape), trained)

    def tensor(self) -> torch.Tensor:
        """A copy, in memory that is aligned as torch aligns it."""
        flat = torch.empty(len(self.data), dtype=torch.uint8)
        flat.numpy()[:] = self.data
        made = flat.view(self.dtype).reshape(self.shape)
        trains = self.trained and made.is_floating_point()
        return torch.nn.Parameter(made, requires_grad=trains) if self.trained else made


@dataclass(frozen=True, eq=False)
class PackedModel:
    """A model without what is bound to its process. Made by `pack_model`.

    Attributes:
        name: that the model goes by.
        architecture: the Hugging Face class.
        config: its configuration.
        generation_config: how it ends texts.
        tensors: every tensor once.
        places: path of a module, slot, name there, and number of the tensor; tied weights have one
            number.
        tokenizer: as it was saved.
        quantisation: what the weights were before they became floats.
    """

    name: str
    architecture: type
    config: Any
    generation_config: Any
    tensors: tuple[PackedTensor, ...]
    places: tuple[tuple[str, str | None, str, int], ...]
    tokenizer: PreTrainedTokenizerBase
    quantisation: str


def pack_model(model: Any) -> PackedModel:
    """Pack a bridge for another process.

    Raises:
        ModelError: hooks are on it, it lies on several devices or on a disk, or it is a model of
            TransformerLens 3.9.
    """
    if model_family(model) == "hooked":
        raise ModelError(
            "a HookedTransformer of TransformerLens 3.9 cannot be sent to workers: give a function "
            "that makes it there, RayEngine(load=...)"
        )
    require_no_hooks(model)
    places = {str(weight.device) for weight in model.parameters()}
    if len(places) > 1 or "meta" in places:
        raise ModelError(
            f"a model over several places ({', '.join(sorted(places))}) cannot be sent to workers: "
            "give a function that loads it there, such as RayEngine(load=lambda: "
            "lensneurons.load_model(name, device_map='auto'))"
        )
    view = plain_view(model, attention_implementation(model, "native"))[0]
    numbers: dict[int, int] = {}
    tensors: list[torch.Tensor] = []
    found: list[tuple[str, str | None, str, int]] = []
    for path, module in view.named_modules():
        for slot in SLOTS:
            for name, tensor in (vars(module) if slot is None else vars(module)[slot]).items():
                if not isinstance(tensor, torch.Tensor):
                    continue
                if id(tensor) not in numbers:
                    numbers[id(tensor)] = len(tensors)
                    tensors.append(tensor)
                found.append((path, slot, name, numbers[id(tensor)]))
    return PackedModel(
        name=str(model.cfg.model_name),
        architecture=type(view),
        config=view.config,
        generation_config=getattr(view, "generation_config", None),
        tensors=tuple(map(PackedTensor.of, tensors)),
        places=tuple(found),
        tokenizer=original_tokenizer(model),
        quantisation=quantisation_of(model),
    )


def require_no_hooks(model: Any) -> None:
    """Raise unless a model is without hooks of somebody.

    Raises:
        ModelError: hooks do not travel to another process.
    """
    if has_hooks(model):
        raise ModelError(
            "there are hooks on the model, and they do not travel to workers, whose numbers would "
            "be those of the model without them: take engine='local', or export() the edited model "
            "and load that"
        )


def build_model(packed: PackedModel, device: str) -> Any:
    """Build a packed model on a device.

    Raises:
        ModelError: its architecture has other modules here than where it was packed.
    """
    config = copy.deepcopy(packed.config)
    with torch.device("meta"):
        hugging_face = packed.architecture(config).eval()
    modules = dict(hugging_face.named_modules())
    made: dict[int, torch.Tensor] = {}
    for path, slot, name, number in packed.places:
        if path not in modules:
            raise ModelError(
                f"{packed.architecture.__name__} has no module {path!r} when it is built from its "
                "configuration, so it cannot be sent to workers: give RayEngine(load=...)"
            )
        kept = vars(modules[path]) if slot is None else vars(modules[path])[slot]
        if name not in kept and slot != "_parameters":  # of the bridge, which adds it again
            continue
        if number not in made:
            made[number] = packed.tensors[number].tensor()
        kept[name] = made[number]
    left = [
        f"{path}.{name}"
        for path, module in modules.items()
        for slot in SLOTS
        for name, one in (vars(module) if slot is None else vars(module)[slot]).items()
        if isinstance(one, torch.Tensor) and one.is_meta
    ]
    if left:
        raise ModelError(
            f"{packed.architecture.__name__} has {left[0]} when it is built from its configuration,"
            " and the packed model has not: give RayEngine(load=...)"
        )
    hugging_face.generation_config = copy.deepcopy(packed.generation_config)
    place = torch.device(device)
    tokenizer = packed.tokenizer
    model = bridge_model(packed.name, hugging_face.to(place), copy_tokenizer(tokenizer), place)
    remember_tokenizer(model, tokenizer)
    if packed.quantisation != "none":
        remember_quantisation(model, packed.quantisation)
    return model


def traits_of(model: Any) -> dict[str, str]:
    """What two copies of a model must have in common for their numbers to be the same."""
    return {
        "weights": hash_weights(model),
        "configuration": hash_config(model),
        "number format": str(next(iter(model.parameters())).dtype).removeprefix("torch."),
        "way of the forward pass": forward_path(model),
        "attention": attention_implementation(model),
        **{f"version of {name}": one for name, one in library_versions().items()},
    }


def last_logits(model: Any) -> np.ndarray:
    """Logits [vocabulary] after a short text, float32.

    Raises:
        ModelError: some are infinite or not a number.
    """
    with torch.inference_mode():
        logits = model(probe_tokens(model), return_type="logits")[0, -1].float().cpu()
    require_finite(logits, "the logits of a short text")
    return logits.numpy()


def require_replica(model: Any, traits: Mapping[str, str], logits: np.ndarray) -> None:
    """Raise unless a model has the traits of another, and writes its logits.

    Args:
        model: the copy.
        traits: of the other, by `traits_of`.
        logits: of the other, by `last_logits`.

    Raises:
        ModelError: a trait or the logits differ; names the first.
    """
    for name, own in traits_of(model).items():
        if own != traits.get(name):
            raise ModelError(
                f"the worker's model has another {name} ({own}) than the one here "
                f"({traits.get(name)}), so its numbers would be of another model: give the workers "
                "the same libraries, and a load= that makes the same model"
            )
    found = last_logits(model)
    if found.shape != logits.shape:
        raise ModelError(f"the worker's model has {len(found)} logits, the one here {len(logits)}")
    difference = float(np.abs(found - logits).max() / max(np.abs(logits).max(), 1e-30))
    # Another processor or another number of threads: 1e-6 in fp32, some 1e-2 in half precision.
    if difference > (1e-4 if traits["number format"] in ("float32", "float64") else 0.1):
        raise ModelError(
            f"the worker's model has the same weights and writes other logits (they differ by "
            f"{difference:.1e} of the largest): something else was changed in the model's memory, "
            "such as a function; take engine='local', or give a load= that makes the change"
        )
