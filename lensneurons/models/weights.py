"""Whether a model is what its files say: all of their weights, no others, and the same logits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from lensneurons.errors import ModelError
from lensneurons.models.family import input_device
from lensneurons.models.identity import first_sentence
from lensneurons.models.running import require_finite
from lensneurons.shapes import Logits, TokenIds

PROBE = 24  # tokens of the text that proofs read

# What wrappers put in front of the names of weights, and who does.
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel",
    "_fsdp_wrapped_module.": "FSDP",
    "base_model.model.": "PEFT",
    "model._orig_mod.": "torch.compile",
}


def require_complete(source: str, model: Any, report: Mapping[str, Any]) -> None:
    """Raise unless every weight came from the file, and every weight of its blocks was used.

    Hugging Face fills missing weights with random numbers. It leaves out weights that the model has
    no place for: those of another head change nothing, but a bias or an adapter within the blocks
    does, and so does one of a module that the model has (``lm_head.bias``).

    Args:
        source: where the model was read from, for the message.
        model: a Hugging Face model.
        report: its loading information: missing, unexpected and mismatched names of weights.

    Raises:
        ModelError: names the first weights.
    """
    missing, unread = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if report["mismatched_keys"]:
        name, given, wanted = min(report["mismatched_keys"])
        raise ModelError(
            f"{source!r} holds {name} as {list(given)}, but by its config.json it is "
            f"{list(wanted)}: the two are not of one model"
        )
    if missing:
        prefix = next((p for p in WRAPPERS if unread and unread[0].startswith(p)), None)
        advice = (
            f"the names in the file begin with {prefix!r}, the mark of {WRAPPERS[prefix]}: save "
            "the model that is wrapped, not its wrapper"
            if prefix
            else "without them Hugging Face fills in random numbers: save the whole model again "
            "(save_pretrained)"
        )
        raise ModelError(f"{source!r} lacks {_some(missing)} of the model's weights; {advice}")
    blocks = {_block(name) for name, _ in model.named_parameters()} - {""}
    own = {_in_block(name) for name, _ in model.named_parameters()}
    further = {_block(key) for key in unread} - blocks
    # Blocks of another make predict several tokens and may go; blocks like ours are lost layers.
    alike = {b for b in further if {_in_block(k) for k in unread if _block(k) == b} <= own}
    lacked = blocks | (alike - {""})
    parents = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    if lost := [k for k in unread if _block(k) in lacked or k.rpartition(".")[0] in parents]:
        raise ModelError(
            f"{source!r} holds {_some(lost)} for which {type(model).__name__} has no place: the "
            "numbers would be those of another model. Correct config.json; merge an adapter "
            "(merge_and_unload) before save_pretrained"
        )


def _block(key: str) -> str:
    """The block that a weight stands in: ``model.layers.3`` of ``model.layers.3.mlp.x.weight``."""
    found = re.match(r"(.*?\.\d+)\.", key)
    return found[1] if found else ""


def _in_block(key: str) -> str:
    """The rest of the name: ``mlp.x.weight``."""
    return key.removeprefix(f"{_block(key)}.")


def _some(names: list[str]) -> str:
    """The first three of some names and how many they are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def text_model(model: Any) -> Any:
    """The part of a model that reads and writes text, on the same weights.

    TransformerLens takes a model with a vision tower for one that needs an image processor, and
    installs packages to read it.

    Raises:
        ModelError: there is no such part.
    """
    from transformers import AutoModelForCausalLM

    config = model.config.get_text_config(decoder=True)
    if config is model.config:
        return model
    try:
        with torch.device("meta"):
            text = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"{type(model).__name__} has no language model of its own that transformers knows: "
            f"{first_sentence(error)}"
        ) from error
    text.config.architectures = [type(text).__name__]
    setattr(text, text.base_model_prefix, model.get_decoder())
    text.set_output_embeddings(model.get_output_embeddings())
    text.generation_config = model.generation_config
    if left := [name for name, weight in text.named_parameters() if weight.is_meta]:
        raise ModelError(
            f"{type(model).__name__} keeps {_some(left)} elsewhere than {type(text).__name__}, so "
            "its language model cannot be taken out of it"
        )
    return text


def probe_logits(hugging_face: Any) -> Logits:
    """Logits [1, pos, vocabulary] of a short text of ids spread over the vocabulary.

    Raises:
        ModelError: Hugging Face cannot run it, or some logits are infinite or not a number.
    """
    try:
        with torch.inference_mode():
            logits = hugging_face(input_ids=_probe(hugging_face), use_cache=False).logits
    except Exception as error:  # sizes of a configuration that do not fit each other
        raise ModelError(
            f"Hugging Face cannot run {type(hugging_face).__name__} with this configuration: "
            f"{first_sentence(error)}"
        ) from error
    require_finite(logits, "the logits of a short text")
    return logits


def _probe(hugging_face: Any) -> TokenIds:
    """The ids [1, pos] of a short text, spread over the vocabulary."""
    size = hugging_face.get_input_embeddings().weight.shape[0]
    device = input_device(hugging_face)
    return torch.linspace(min(4, size - 1), size - 1, PROBE, device=device).long()[None]


def require_same_logits(name: str, model: Any, wanted: Logits) -> None:
    """Raise unless a bridge computes what the model did before its modules were replaced.

    Args:
        name: of the model, for the message.
        model: the bridge.
        wanted: the model's `probe_logits` before.

    Raises:
        ModelError: the logits differ by more than rounding, or cannot be computed any more.
    """
    bridged = model.original_model
    try:
        with torch.inference_mode():
            logits = model(_probe(bridged), return_type="logits")
        require_finite(logits, "the logits of a short text")
        scale = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
        difference = float((logits - wanted).abs().max() / scale)
        said = f"its logits differ by {difference:.1e} of the largest"
    except Exception as error:  # a module that TransformerLens lost or calls in another way
        raise ModelError(f"{_not_the_same(name, bridged)}: {first_sentence(error)}") from error
    # Eager attention against sdpa: 1e-7 to 1e-6 in fp32, some 1e-2 in half precision.
    if not difference <= (1e-4 if wanted.dtype in (torch.float32, torch.float64) else 0.1):
        raise ModelError(f"{_not_the_same(name, bridged)}: {said}")


def _not_the_same(name: str, bridged: Any) -> str:
    return (
        f"TransformerLens does not compute what Hugging Face does for {name!r} "
        f"({type(bridged).__name__} with this configuration), so no number of it would be right"
    )
