"""Which tokens hold which characters: a tokenizer's backend, read exactly.

The offsets that fast tokenizers report are nearly what is wanted, with two traps, and both are
closed on a private copy of the backend, so that the user's tokenizer stays as it is:

* byte-level tokenizers trim spaces from the offsets (`trim_offsets`): the token ``" 42"`` claims
  the characters of ``"42"`` only, and a lone space claims none. Untrimmed, the tokens cover the
  text, and a token across the seam can be seen;
* truncation and padding that an earlier call left on the backend would cut or fill texts.

That the copy encodes as the tokenizer itself does is checked on real texts, not assumed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lensneurons.errors import CorpusError
from lensneurons.tokens.encoded import Scope

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase


_PARTS = ("normalizer", "pre_tokenizer", "post_processor")


class CountedTokens(NamedTuple):
    """One encoded text: its ids (int32), its counted run [start, stop), its straddling tokens."""

    ids: np.ndarray
    start: int
    stop: int
    straddling: int


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a fingerprint of how a tokenizer turns text into counted tokens.

    Args:
        tokenizer: a Hugging Face fast tokenizer.

    Returns:
        SHA-256 (64 hex digits) over its parts (vocabulary and merges, normaliser, pre-tokenizer,
        special-token template, added tokens) and over which ids are special. The same in every
        load; truncation, padding and the padding token, which change no count, are left out.

    Raises:
        CorpusError: the tokenizer is slow, or has a part written in Python.
    """
    backend = _backend(tokenizer)
    digest = sha256(b"lensneurons tokenizer 1\n")
    digest.update(_part_json(backend.model))
    added = sorted(backend.get_added_tokens_decoder().items())
    rules = {
        "parts": [json.loads(_part_json(getattr(backend, name))) for name in _PARTS],
        "added": [[number, *_spelling(token)] for number, token in added],
        "special": special_ids(tokenizer).tolist(),
        "split special": _splits_special(tokenizer),
    }
    digest.update(json.dumps(rules, sort_keys=True).encode())
    return digest.hexdigest()


def special_ids(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return the ids (sorted int64) that never count: all special tokens but "unknown".

    An unknown token holds a real character, so it counts, unless it doubles as BOS or EOS. What
    pads is no matter: people pad with whatever is at hand.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
    """
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special}
    special.discard(tokenizer.unk_token_id)
    names = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    framing: set[int] = {getattr(tokenizer, name) for name in names} - {None}
    return np.array(sorted(special | framing), dtype=np.int64)


def exact_backend(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[str]
) -> tokenizers.Tokenizer:
    """Return a copy of a tokenizer's backend whose offsets cover every character of its tokens.

    Args:
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.
        samples: texts on which the copy must give the ids that the tokenizer gives.

    Raises:
        CorpusError: the tokenizer is slow, or does more than its backend.
    """
    backend = _copy_backend(_backend(tokenizer))
    backend.encode_special_tokens = _splits_special(tokenizer)
    for sample in samples:
        theirs = list(tokenizer(sample, verbose=False)["input_ids"])
        if backend.encode(sample).ids != theirs:
            raise CorpusError(
                f"{type(tokenizer).__name__} changes what its backend encodes, first in"
                f" {sample!r:.60}: its tokens cannot be located; give the plain fast tokenizer"
            )
    return backend


def count_tokens(
    encoding: tokenizers.Encoding, seam: int, length: int, scope: Scope, special: np.ndarray
) -> CountedTokens:
    """Find the counted tokens of one encoded text.

    Args:
        encoding: ids and untrimmed offsets of prompt + response.
        seam: the number of characters of the prompt.
        length: the number of characters of the whole text.
        scope: which tokens count.
        special: ids that never count.

    Raises:
        CorpusError: the counted tokens are not one run.
    """
    ids = np.array(encoding.ids, dtype=np.int32)
    begin, end = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
    mute = np.array(encoding.special_tokens_mask, dtype=bool) | np.isin(ids, special)
    # A token without characters (a marker some tokenizers add) stands where it begins.
    in_response = np.where(end > begin, end > seam, begin >= seam) & (seam < length)
    chosen = {"response": in_response, "prompt": ~in_response, "all": np.ones_like(mute)}[scope]
    places = np.flatnonzero(chosen & ~mute)
    straddling = int(((begin < seam) & (end > seam) & ~mute).sum())
    if not places.size:
        return CountedTokens(ids, 0, 0, straddling)
    start, stop = int(places[0]), int(places[-1]) + 1
    if stop - start != places.size:
        raise CorpusError(_broken_run(encoding, start, stop, mute, scope))
    return CountedTokens(ids, start, stop, straddling)


def _broken_run(
    encoding: tokenizers.Encoding, start: int, stop: int, mute: np.ndarray, scope: Scope
) -> str:
    inside = np.flatnonzero(mute[start:stop])
    if inside.size:
        token = encoding.tokens[start + int(inside[0])]
        return (
            f"the special token {token!r} stands between counted tokens in scope {scope!r}; it"
            " never counts and would break the run: remove it from the text, or count the"
            " response of a prompt that holds it"
        )
    return (
        "the tokenizer's offsets are out of order, so prompt and response cannot be told apart;"
        " use another tokenizer or scope='all'"
    )


def _backend(tokenizer: PreTrainedTokenizerBase) -> tokenizers.Tokenizer:
    if not getattr(tokenizer, "is_fast", False):
        raise CorpusError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so it cannot say which"
            " characters a token holds; load one that has a tokenizer.json, with"
            " AutoTokenizer.from_pretrained"
        )
    return getattr(tokenizer, "backend_tokenizer")  # noqa: B009 (its type is that of any id)


def _copy_backend(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a backend of the same parts, which are shared, not copied.

    With 250,000 words a copy by way of JSON takes 8 s; this takes milliseconds.
    """
    import tokenizers

    own = tokenizers.Tokenizer(backend.model)
    for name in _PARTS:
        setattr(own, name, getattr(backend, name))
    own.post_processor = _untrimmed(backend.post_processor)
    added = backend.get_added_tokens_decoder()
    own.add_tokens([added[number] for number in sorted(added)])
    return own


def _untrimmed(processor: Any) -> Any:
    """Return a copy of a post-processor with `trim_offsets` off in it and in all it is made of."""
    if processor is None:
        return None
    state = json.loads(processor.__getstate__())
    _keep_spaces(state)
    own = deepcopy(processor)
    own.__setstate__(json.dumps(state).encode())
    return own


def _keep_spaces(state: Any) -> None:
    if isinstance(state, dict):
        if "trim_offsets" in state:
            state["trim_offsets"] = False
        state = list(state.values())
    if isinstance(state, list):
        for part in state:
            _keep_spaces(part)


def _spelling(token: tokenizers.AddedToken) -> list[str | bool]:
    flags = (token.single_word, token.lstrip, token.rstrip, token.normalized, token.special)
    return [token.content, *flags]


def _splits_special(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether special tokens that a text spells are encoded as ordinary text."""
    return bool(getattr(tokenizer, "split_special_tokens", False))


def _part_json(part: Any) -> bytes:
    try:
        return b"null" if part is None else part.__getstate__()
    except Exception as cause:  # the Rust side raises bare Exceptions
        raise CorpusError(
            f"the tokenizer's {type(part).__name__} is written in Python and cannot be"
            " fingerprinted; use the tokenizer.json of its model"
        ) from cause
