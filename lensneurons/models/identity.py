"""What a model is: its tokenizer and its proofs, asked once a model, and its hashes.

Reading a tokenizer of 33 MB takes 5 s, and the proofs of the hooks two forward passes. So both are
kept beside the model, in a dictionary that forgets a model when the user does.

What can change between two calls (weights, hooks, the attention kernel) is not kept: it is read at
the run. One call reads it once, however many functions it goes through (`once_a_call`): a card
would hash the weights five times.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import xxhash

from lensneurons.errors import ModelError
from lensneurons.models.family import model_family
from lensneurons.models.offload import value_of

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase

_KNOWN: WeakKeyDictionary[Any, dict[str, tuple[Hashable, Any]]] = WeakKeyDictionary()
# What the call that runs now has read: owner (kept, so that its id stays its own) and value.
_READ: ContextVar[dict[tuple[int, str], tuple[Any, Any]] | None] = ContextVar("_READ", default=None)


def original_tokenizer(model: Any) -> PreTrainedTokenizerBase:
    """The tokenizer as it was saved, with its own rule for BOS; read from its files once a model.

    TransformerLens gives a model a tokenizer that prepends BOS even where the original does not
    (Qwen 2, BLOOM), which would shift every activation. So `load_model` keeps the one that it read;
    that of a model which was bridged elsewhere is read again from where it came, at the model's
    own revision, and gets the tokens that were added to it in memory.

    Raises:
        ModelError: the model has no tokenizer, or it cannot be read again, or not as it is.
    """
    source = getattr(getattr(model, "tokenizer", None), "name_or_path", None)
    if not source:
        raise ModelError("the model has no tokenizer that can be read again: pass tokenizer=")
    return once(
        model,
        "tokenizer",
        (source, _added(model)),
        lambda: _with_added(model, _read_tokenizer(model, source)),
    )


def remember_tokenizer(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep the tokenizer that a model was loaded with, for `original_tokenizer`."""
    once(model, "tokenizer", (model.tokenizer.name_or_path, _added(model)), lambda: tokenizer)


def copy_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy for TransformerLens to change; it shares the vocabulary, which nobody changes.

    A deep copy of 262,000 words takes 5 s, and TransformerLens reads a tokenizer anew (6 s) where
    it is not told that BOS comes in front. So it is told where that is so already.
    """
    if not getattr(tokenizer, "is_fast", False):
        return copy.deepcopy(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer")  # noqa: B009 (its type is that of any id)
    words = [vars(tokenizer).get(name) for name in ("_vocab", "_merges")]
    words.append(tokenizer.init_kwargs.get("added_tokens_decoder"))
    twin = copy.deepcopy(
        tokenizer, {id(backend): copy_backend(backend)} | {id(part): part for part in words}
    )
    bos = tokenizer.bos_token_id
    if bos is not None and backend.encode("a").ids[0] == bos:
        twin.init_kwargs["add_bos_token"] = True
    return twin


def copy_backend(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A tokenizer of the same parts, without truncation and padding; its own parts can be replaced.

    The parts are shared: with 250,000 words a copy through JSON takes 8 s, this takes milliseconds.
    """
    own = type(backend)(backend.model)
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (part := getattr(backend, name)) is not None:
            setattr(own, name, part)
    added = added_tokens(backend)
    own.add_tokens([added[number] for number in sorted(added)])
    return own


def added_tokens(backend: tokenizers.Tokenizer) -> dict[int, Any]:
    """Id to added token; Gemma has 6,400, so one call reads them once."""
    return once_a_call(backend, "added tokens", backend.get_added_tokens_decoder)


def _added(model: Any) -> int:
    """How many tokens were added to the model's tokenizer, in its files or in memory."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:  # a slow one
        return len(getattr(model.tokenizer, "added_tokens_decoder", ()))
    return len(added_tokens(backend))


def _with_added(model: Any, saved: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The saved tokenizer with the tokens that the model's tokenizer has beyond it."""
    theirs, size = model.tokenizer, int(model.cfg.d_vocab)
    known = saved.get_vocab()
    own = {n: token for n, token in theirs.added_tokens_decoder.items() if n < size}
    new = {n: token for n, token in sorted(own.items()) if token.content not in known}
    framing = ("eos_token", "bos_token", "pad_token")  # TransformerLens gives those that lack
    invented = {getattr(theirs, name) for name in framing if getattr(saved, name) is None}
    saved.add_tokens([token for token in new.values() if token.content not in invented])
    wrong = [t.content for n, t in own.items() if saved.get_vocab().get(t.content, n) != n]
    if wrong:
        raise ModelError(
            f"the model's tokenizer was changed in memory ({wrong[0]!r} has another id than in its "
            "files), so the saved one does not fit: pass tokenizer="
        )
    return saved


def _read_tokenizer(model: Any, source: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    config = getattr(getattr(model, "original_model", None), "config", None)
    commit = getattr(config, "_commit_hash", None)
    same_place = commit and getattr(config, "_name_or_path", None) == source
    options: dict[str, Any] = {"revision": commit} if same_place else {}
    try:
        return AutoTokenizer.from_pretrained(
            source, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the tokenizer of the model cannot be read again from {source!r} "
            f"({first_sentence(error)}): pass tokenizer="
        ) from error


def first_sentence(error: BaseException) -> str:
    """What went wrong, without the advice that follows it."""
    text = " ".join(str(error).split()).split(". ")[0][:300].rstrip(".")
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def once(model: Any, what: str, key: Hashable, make: Callable[[], Any]) -> Any:
    """What `make` gave the last time for this model and key; it runs again where the key differs.

    Args:
        model: a TransformerLens model.
        what: a name for it, such as ``"proof of the hooks"``.
        key: what it depends on, beside the model.
        make: makes it; an error is raised anew at every call.
    """
    try:
        known = _KNOWN.setdefault(model, {})
    except TypeError:  # not an object that can be forgotten: nothing is kept for it
        return make()
    if what not in known or known[what][0] != key:
        known[what] = (key, make())
    return known[what][1]


@contextmanager
def one_call() -> Iterator[None]:
    """What `once_a_call` gives stays the same until the outermost such block ends."""
    if _READ.get() is not None:
        yield
        return
    token = _READ.set({})
    try:
        yield
    finally:
        _READ.reset(token)


def once_a_call(owner: Any, what: str, make: Callable[[], Any]) -> Any:
    """What `make` gave for this owner since the outermost `one_call` began; outside, what it gives.

    For what nothing within one call changes, and anything may change between two: an edit of
    weights through ``weight.data`` or NumPy leaves no trace but in the numbers.
    """
    known = _READ.get()
    if known is None:
        return make()
    if (id(owner), what) not in known:
        known[id(owner), what] = owner, make()
    return known[id(owner), what][1]


def revision_of(model: Any) -> str:
    """Commit of the hub that the model was loaded from, or "unknown" for a local folder."""
    config = getattr(getattr(model, "original_model", None), "config", None)
    return str(getattr(config, "_commit_hash", None) or "unknown")


def remember_quantisation(model: Any, types: str) -> None:
    """Keep what the weights of a model were before they became floats, for `quantisation_of`."""
    once(model, "quantisation", types, lambda: types)


def quantisation_of(model: Any) -> str:
    """What the weights were before they became floats, ``"GGUF Q8_0, F32"``, or ``"none"``."""
    known = _KNOWN.get(model, {}).get("quantisation")
    return "none" if known is None else str(known[1])


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

    XXH3 reads the weights at the speed of the memory (1 GB in 0.12 s; SHA-256 takes 1 s), so it is
    made anew at every call, and an edit in place is noticed. It is no defence against forgery, and
    none is needed.
    """
    return once_a_call(model, "weights", lambda: _weights_digest(model))


def _weights_digest(model: Any) -> str:
    digest = xxhash.xxh3_128()
    for name, weight in model.named_parameters():
        if weight.is_meta:  # on the disk
            owner, _, own = name.rpartition(".")
            weight = value_of(model.get_submodule(owner), own)
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
