"""A text begins once: a BOS that it spells is not added a second time.

A prompt that a chat template rendered already begins with the text of BOS (``<s>[INST] ...``), and
a tokenizer that adds BOS puts another in front. The model would then read two, as it never did in
training, and its activations change. So what the tokenizer adds in front is left out where the text
itself begins with the same tokens; a `CorpusWarning` says so once a call. That gives the ids of
``tokenizer(text, add_special_tokens=False)``, which is how chat templates are meant to be encoded.

The rule is about tokens, not about BOS: it holds for ``[CLS]`` and for codes of languages in front.
A tokenizer that adds nothing reads the text as it stands.

    ids    <s> <s> [INST] 2 + 2   ->   <s> [INST] 2 + 2
    mask    1   0    0    0 0 0         (1: the tokenizer added it)

What it does not touch: a BOS anywhere but at the very beginning, or one that a text spells twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from lensneurons.corpora.checks import CorpusWarning

if TYPE_CHECKING:
    import tokenizers


def doubled(ids: Sequence[int], added: Sequence[int]) -> int:
    """How many tokens to leave out in front because the text spells them itself.

    Args:
        ids: the token ids of a text.
        added: 1 for each token that the tokenizer added, else 0 (``special_tokens_mask``).
    """
    front = len(list(takewhile(bool, added)))
    spelt = list(ids[front : 2 * front]) == list(ids[:front]) and not any(added[front : 2 * front])
    return front if spelt else 0


def encode_once(
    backend: tokenizers.Tokenizer, texts: Iterable[str]
) -> tuple[list[tokenizers.Encoding], str]:
    """Encode texts so that none begins twice.

    Returns:
        The encodings, and the tokens that were left out in front of a text; empty where none were.
    """
    encodings, left_out = backend.encode_batch(list(texts)), ""
    for encoding in encodings:
        if count := doubled(encoding.ids, encoding.special_tokens_mask):
            left_out = "".join(encoding.tokens[:count])
            encoding.truncate(len(encoding.ids) - count, direction="left")
    return encodings, left_out


def without_spelt(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """The texts without a BOS at their beginning that the tokenizer adds as well.

    For programs that encode texts by themselves, such as TRL.
    """
    bos, kept = tokenizer.bos_token, list(texts)
    begun = [n for n, text in enumerate(kept) if bos and text.startswith(bos)]
    encoded = tokenizer([kept[n] for n in begun], return_special_tokens_mask=True) if begun else {}
    left_out = ""
    for n, ids, added in zip(begun, *(encoded.get(name, ()) for name in _COLUMNS), strict=True):
        if doubled(ids, added):
            kept[n], left_out = kept[n].removeprefix(bos), bos
    warn_doubled(left_out)
    return kept


_COLUMNS = ("input_ids", "special_tokens_mask")


def warn_doubled(left_out: str) -> None:
    """Warn that some texts begin with tokens that the tokenizer adds; nothing for none."""
    if left_out:
        message = (
            f"texts begin with {left_out!r}, which the tokenizer adds as well: each is read with "
            "one, not two. A chat template may have written it; leave it out of the texts to "
            "silence this"
        )
        warnings.warn(message, CorpusWarning, stacklevel=3)
