"""Quantised checkpoints: which are read, as the float weights that they stand for.

    bitsandbytes         4 and 8 bits; turned into floats once they are read; needs bitsandbytes
    fp8                  8-bit floats in blocks with scales; turned into floats while they are read
    compressed-tensors   the same; needs compressed-tensors
    GPTQ, AWQ, others    refused: transformers has no way to turn them into floats

Every number of this package that reads weights (the proof of the hooks, rows of W_out, exports)
needs floats, so packed weights are refused rather than half supported. The numbers are those of the
quantised weights, and so are the counts; the memory is that of float weights in `dtype`. The
provenance names the scheme: ``"fp8"``, ``"bitsandbytes nf4"``.

`config.json` says how a checkpoint is quantised, so what cannot be read is refused before its
weights are downloaded. GGUF files are read in the same sense (`lensneurons.models.gguf`).

What this does not do: compute as a serving engine would, which may quantise activations as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensneurons.errors import ModelError
from lensneurons.models.identity import first_sentence

# Scheme to the class of transformers whose option turns its weights into floats while they load.
_WHILE_READING = {"fp8": "FineGrainedFP8Config", "compressed-tensors": "CompressedTensorsConfig"}
_AFTERWARDS = ("bitsandbytes",)
REMEDY = (
    "load the checkpoint in float16 or bfloat16, a GGUF file, or weights quantised with "
    "bitsandbytes, fp8 or compressed-tensors"
)


def quantised_as(config: Any) -> str | None:
    """How a checkpoint is quantised, by its configuration: ``"bitsandbytes nf4"``; None if not."""
    about = _about(config)
    if about is None:
        return None
    method = _method(about)
    if method == "bitsandbytes":
        four = about.get("load_in_4bit") or about.get("_load_in_4bit")
        return f"{method} {about.get('bnb_4bit_quant_type', 'fp4') if four else 'int8'}"
    bits = about.get("bits", about.get("w_bit"))
    return method if bits is None else f"{method} {bits} bits"


def options_for_floats(source: str, config: Any) -> dict[str, Any]:
    """The options of transformers that read a quantised checkpoint as floats; none for others.

    Args:
        source: where it is read from, for the message.
        config: its configuration, which is there before its weights are.

    Raises:
        ModelError: its scheme has no floats, or a package that reads it is missing.
    """
    import transformers
    from transformers.quantizers.auto import AutoHfQuantizer

    about, told = _about(config), quantised_as(config)
    if about is None:
        return {}
    method = _method(about)
    if method not in (*_WHILE_READING, *_AFTERWARDS):
        raise ModelError(
            f"{source!r} is quantised ({told}), and transformers cannot turn such weights into "
            f"floats, which the proof of the neuron hooks needs: {REMEDY}"
        )
    try:
        quantiser: Any = AutoHfQuantizer.from_config(dict(about), pre_quantized=True)
        quantiser.validate_environment(device_map=None)
    except Exception as error:  # what is missing ends anywhere in the quantisers
        raise ModelError(
            f"{source!r} is quantised ({told}), and cannot be read here: {first_sentence(error)}"
        ) from error
    if method in _AFTERWARDS:
        return {}
    return {"quantization_config": getattr(transformers, _WHILE_READING[method])(dequantize=True)}


def as_floats(source: str, model: Any, dtype: Any) -> Any:
    """A model that was read with `options_for_floats`, with float weights.

    Raises:
        ModelError: some are packed still.
    """
    if _about(model.config) is not None and _method(_about(model.config) or {}) in _AFTERWARDS:
        model = model.dequantize(dtype)
    model = model.to(dtype) if any(w.dtype != dtype for w in model.parameters()) else model
    packed = [name for name, weight in model.named_parameters() if not weight.is_floating_point()]
    if packed:
        raise ModelError(
            f"{source!r} keeps {packed[0]} and {len(packed) - 1} more weights packed: {REMEDY}"
        )
    return model


def _about(config: Any) -> Mapping[str, Any] | None:
    """What a configuration says of its quantisation; that of a part that reads text counts too."""
    own = getattr(config, "quantization_config", None)
    if own is None:
        own = getattr(config.get_text_config(decoder=True), "quantization_config", None)
    if own is None:
        return None
    return own if isinstance(own, Mapping) else own.to_dict()


def _method(about: Mapping[str, Any]) -> str:
    """The name of a scheme; old configurations of bitsandbytes have none."""
    named = about.get("quant_method")
    if named is None and any(about.get(f"load_in_{bits}bit") for bits in (4, 8)):
        return "bitsandbytes"
    return str(getattr(named, "value", named) or "an unnamed scheme")
