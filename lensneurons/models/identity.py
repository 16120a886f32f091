"""What a model is, asked once a model and not once a call: its tokenizer, its hashes, its proofs.

Reading a tokenizer of 33 MB takes 5 s, hashing 270 million weights 1.7 s, and the proofs two
forward passes. So each is kept beside the model, in a dictionary that forgets a model when the
user does.
The hash of the weights is made anew where any of them changed: all of their bytes are added up in
blocks before every use, at the speed of the memory (a tenth of the time of the hash), so a weight
that was edited in place is noticed, also through ``weight.data``.

What can change between two calls without a trace in the weights (hooks, the attention kernel) is
not kept: it is read at the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xxhash

from lensneurons.errors import ModelError
from lensneurons.models.family import model_family

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BLOCK = 4096
_KNOWN: WeakKeyDictionary[Any, dict[str, tuple[Hashable, Any]]] = WeakKeyDictionary()


def original_tokenizer(model: Any) -> PreTrainedTokenizerBase:
    """The tokenizer as it was saved, with its own rule for BOS; read from its files once a model.

    TransformerLens gives a model a tokenizer that prepends BOS even where the original does not
    (Qwen 2, BLOOM), which would shift every activation. So it is read again from where it came.

    Raises:
        ModelError: the model has no tokenizer, or it cannot be read again.
    """
    source = getattr(getattr(model, "tokenizer", None), "name_or_path", None)
    if not source:
        raise ModelError("the model has no tokenizer that can be read again: pass tokenizer=")
    return once(model, "tokenizer", source, lambda: _read_tokenizer(source))


def _read_tokenizer(source: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).split(". ")[0][:300].rstrip(".")
        raise ModelError(
            f"the tokenizer of the model cannot be read again from {source!r} "
            f"({reason}): pass tokenizer="
        ) from error


def once(model: Any, what: str, key: Hashable, make: Callable[[], Any]) -> Any:
    """What `make` gave the last time for this model and key; it runs again where the key differs.

    Args:
        model: a TransformerLens model.
        what: a name for it, such as ``"proof of the hooks"``.
        key: what it depends on, beside the model.
        make: makes it; an error is raised anew at every call.
    """
    known = _KNOWN.setdefault(model, {})
    if what not in known or known[what][0] != key:
        known[what] = (key, make())
    return known[what][1]


def revision_of(model: Any) -> str:
    """Commit of the hub that the model was loaded from, or "unknown" for a local folder."""
    config = getattr(getattr(model, "original_model", None), "config", None)
    return str(getattr(config, "_commit_hash", None) or "unknown")


def hash_config(model: Any) -> str:
    """Hash of everything in the model's configuration that is not a path or a runtime choice."""
    if model_family(model) == "bridge":
        config = model.original_model.config.to_diff_dict()
    else:
        config = {name: str(value) for name, value in vars(model.cfg).items()}
    runtime = ("_name_or_path", "transformers_version", "device", "dtype", "output_attentions")
    kept = sorted(
        (k, str(v)) for k, v in config.items() if k not in runtime and "attn_impl" not in k
    )
    return hashlib.sha256(repr(kept).encode()).hexdigest()


def hash_weights(model: Any) -> str:
    """Hash over every weight of the model: one changed bit, or two swapped weights, change it.

    XXH3 reads the weights at the speed of the memory (SHA-256: 1 GB/s, half a minute for a model
    of 7 billion parameters); it is no defence against forgery, and none is needed.
    """

    def read() -> str:
        digest = xxhash.xxh3_128()
        for name, weight in _weights(model):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(_bytes(weight).data)
        return digest.hexdigest()

    return once(model, "weights", _sums(model), read)


def _sums(model: Any) -> str:
    """A quick look at all weights: names, shapes, and the sum of each block of their bytes."""
    digest = xxhash.xxh3_128()
    for name, weight in _weights(model):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        raw = _bytes(weight)
        whole = len(raw) // (8 * _BLOCK) * (8 * _BLOCK)
        blocks = raw[:whole].view(np.int64).reshape(-1, _BLOCK)
        digest.update(blocks.sum(axis=1).data)
        digest.update(raw[whole:].data)
    return digest.hexdigest()


def _bytes(weight: torch.Tensor) -> np.ndarray:
    """The bytes of a weight, uint8 [bytes]; no copy on a CPU."""
    return weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()


def _weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of each parameter once; weights offloaded to a disk go by name alone."""
    for name, weight in model.named_parameters():
        yield name, weight if weight.device.type != "meta" else torch.zeros(2)
