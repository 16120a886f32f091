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
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lensneurons.encoded import Scope
from lensneurons.errors import CorpusError

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase


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
        SHA-256 (64 hex digits) over its backend (vocabulary, merges, normaliser, special-token
        template) and over which ids are special. The same in every load; truncation, padding and
        the padding token, which change no count, are left out.

    Raises:
        CorpusError: the tokenizer is slow or cannot be serialised.
    """
    state = _backend_state(tokenizer)
    state["special"] = special_ids(tokenizer).tolist()
    state["split_special"] = bool(getattr(tokenizer, "split_special_tokens", False))
    return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def special_ids(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return the ids (sorted int64) that never count: all special tokens but "unknown".

    An unknown token holds a real character, so it counts, unless it doubles as BOS or EOS.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
    """
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    framing = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    framing |= {tokenizer.cls_token_id, tokenizer.sep_token_id}
    if tokenizer.unk_token_id not in framing:
        special.discard(tokenizer.unk_token_id)
    return np.array(sorted(special), dtype=np.int64)


def exact_backend(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[str]
) -> tokenizers.Tokenizer:
    """Return a copy of a tokenizer's backend whose offsets cover every character of its tokens.

    Args:
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.
        samples: texts on which the copy must give the ids that the tokenizer gives.

    Raises:
        CorpusError: the tokenizer is slow, cannot be serialised, or does more than its backend.
    """
    import tokenizers

    state = _backend_state(tokenizer)
    _keep_spaces(state["post_processor"])
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
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


def _backend_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the backend's JSON without the truncation and padding of earlier calls."""
    if not getattr(tokenizer, "is_fast", False):
        raise CorpusError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so it cannot say which"
            " characters a token holds; load one that has a tokenizer.json, with"
            " AutoTokenizer.from_pretrained"
        )
    try:
        text = tokenizer.backend_tokenizer.to_str()
    except Exception as cause:  # the Rust side raises bare Exceptions
        raise CorpusError(
            f"{type(tokenizer).__name__} holds parts written in Python and cannot be serialised"
            f" ({cause}); use its tokenizer.json"
        ) from cause
    return json.loads(text) | {"truncation": None, "padding": None}


def _keep_spaces(part: Any) -> None:
    """Switch `trim_offsets` off in a post-processor and in all it is made of."""
    if isinstance(part, list):
        for inner in part:
            _keep_spaces(inner)
    elif isinstance(part, dict):
        if "trim_offsets" in part:
            part["trim_offsets"] = False
        _keep_spaces(list(part.values()))
