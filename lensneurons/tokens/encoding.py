"""From texts to token ids, with the tokens that count marked in each text.

A neuron's activation probability is a share of *counted tokens*, so what counts is decided here,
once. Prompt and response are encoded together, as the model reads them, and told apart by the
characters each token holds:

* **a token that holds at least one character of the response belongs to the response**, also where
  it begins in the prompt (a merged ``" 42"`` across the seam); all others belong to the prompt, so
  the two scopes are disjoint and together make ``"all"``;
* a token that is one of several for the same character (the byte pieces of an ideograph) goes where
  that character is;
* special tokens never count, whether the tokenizer adds them or a text spells them;
* the counted tokens of a text are one run ``[start, stop)``, or the text is refused.

The tokenizer is used as it is, with its own rule for BOS, and stays as it is.

    >>> encoded = encode(corpus, tokenizer, scope="response")  # doctest: +SKIP
    >>> for rows in plan_batches(encoded, batch_tokens=4096):  # doctest: +SKIP
    ...     batch = make_batch(encoded, rows)

What it does not settle: a straddling token is read with the prompt *and* the response in view.
Their number is in the report; a line break at the end of the prompt avoids nearly all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lensneurons.corpora.items import Item
from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.corpora.problems import SHOWN, and_more
from lensneurons.errors import CorpusError, choose
from lensneurons.tokens.batches import Batch, PaddingSide, item_groups, make_batch, plan_batches
from lensneurons.tokens.encoded import EncodedCorpus, EncodingReport, LanguageTokens, Scope
from lensneurons.tokens.seams import (
    CountedTokens,
    count_tokens,
    exact_backend,
    special_ids,
    tokenizer_hash,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Batch",
    "EncodedCorpus",
    "EncodingReport",
    "LanguageTokens",
    "Overlong",
    "PaddingSide",
    "Scope",
    "encode",
    "item_groups",
    "make_batch",
    "plan_batches",
    "tokenizer_hash",
]

Overlong = Literal["refuse", "cut"]

# Texts handed to the tokenizer at once: enough to keep its threads busy, few enough that their
# offsets (which take some hundred bytes a token) do not add up.
_TEXTS_AT_ONCE = 512


def encode(
    corpus: ParallelCorpus,
    tokenizer: PreTrainedTokenizerBase,
    *,
    scope: Scope = "response",
    max_length: int | None = None,
    overlong: Overlong = "refuse",
) -> EncodedCorpus:
    """Encode a corpus and mark the tokens that count.

    Args:
        corpus: the texts.
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.
        scope: which tokens count: those of the response, of the prompt, or all of the text.
        max_length: the most tokens a text may have, special tokens included; None for no limit.
        overlong: what to do with longer texts: refuse them all in one error, or cut each after
            its first `max_length` tokens (the report says what was lost).

    Returns:
        The corpus as flat arrays, text by text in its order.

    Raises:
        CorpusError: the tokenizer is slow; a text is too long; a text has no counted token, cut or
            not; or its counted tokens are not one run.
    """
    choose(scope, get_args(Scope), "scope")
    choose(overlong, get_args(Overlong), "overlong")
    if max_length is not None and max_length < 1:
        raise CorpusError(f"max_length={max_length} leaves no token; give 1 or more")
    texts = list(_encode_texts(corpus, tokenizer, scope))
    _refuse_empty(corpus, texts, scope)
    if max_length is not None and overlong == "refuse":
        _refuse_long(corpus, texts, max_length)
    kept = [_cut(text, max_length) for text in texts]
    return EncodedCorpus(
        ids=np.concatenate([text.ids for text in kept]),
        offsets=np.cumsum([0] + [len(text.ids) for text in kept], dtype=np.int64),
        start=np.array([text.start for text in kept], dtype=np.int32),
        stop=np.array([text.stop for text in kept], dtype=np.int32),
        language=np.array([corpus.languages.index(i.language) for i in corpus], dtype=np.int32),
        languages=corpus.languages,
        item_ids=tuple(item.id for item in corpus),
        scope=scope,
        pad_id=_pad_id(tokenizer),
        report=_report(corpus, texts, kept, scope),
    )


def _encode_texts(
    corpus: ParallelCorpus, tokenizer: PreTrainedTokenizerBase, scope: Scope
) -> Iterator[CountedTokens]:
    first_of_each = {item.language: item.text for item in reversed(corpus.items)}
    backend = exact_backend(tokenizer, list(first_of_each.values()))
    special = special_ids(tokenizer)
    for begin in range(0, len(corpus), _TEXTS_AT_ONCE):
        items = corpus.items[begin : begin + _TEXTS_AT_ONCE]
        encodings = backend.encode_batch([item.text for item in items])
        for item, encoding in zip(items, encodings, strict=True):
            try:
                seam, length = len(item.prompt), len(item.text)
                yield count_tokens(encoding, seam, length, scope, special)
            except CorpusError as refusal:
                raise CorpusError(f"{_who(item)}: {refusal}") from None


def _cut(text: CountedTokens, max_length: int | None) -> CountedTokens:
    """Keep the first `max_length` tokens; a counted run beyond them becomes empty."""
    if max_length is None or len(text.ids) <= max_length:
        return text
    start, stop = min(text.start, max_length), min(text.stop, max_length)
    return text._replace(ids=text.ids[:max_length], start=start, stop=stop)


def _refuse_empty(corpus: ParallelCorpus, texts: Sequence[CountedTokens], scope: Scope) -> None:
    pairs = zip(corpus, texts, strict=True)
    empty = [_who(item) for item, text in pairs if text.start == text.stop]
    if empty:
        listed = ", ".join(empty[:SHOWN]) + and_more(empty)
        raise CorpusError(
            f"no token counts in scope {scope!r} for {len(empty)} of {len(corpus)} texts: {listed};"
            " choose another scope, or select other items"
        )


def _refuse_long(corpus: ParallelCorpus, texts: Sequence[CountedTokens], max_length: int) -> None:
    pairs = zip(corpus, texts, strict=True)
    long = [f"{_who(i)}: {len(t.ids)} tokens" for i, t in pairs if len(t.ids) > max_length]
    if long:
        listed = "; ".join(long[:SHOWN]) + and_more(long)
        raise CorpusError(
            f"{len(long)} of {len(corpus)} texts exceed max_length={max_length}: {listed};"
            " raise max_length, select other items, or say overlong='cut'"
        )


def _report(
    corpus: ParallelCorpus,
    texts: Sequence[CountedTokens],
    kept: Sequence[CountedTokens],
    scope: Scope,
) -> EncodingReport:
    """Add up what was encoded (`texts`) and what is left after the cut (`kept`)."""
    rows = {tag: LanguageTokens(tag) for tag in corpus.languages}
    for item, text, rest in zip(corpus, texts, kept, strict=True):
        row, counted = rows[item.language], rest.stop - rest.start
        rows[item.language] = replace(
            row,
            texts=row.texts + 1,
            tokens=row.tokens + len(rest.ids),
            counted=row.counted + counted,
            straddling=row.straddling + text.straddling,
            cut=row.cut + (len(rest.ids) < len(text.ids)),
            lost=row.lost + text.stop - text.start - counted,
            emptied=row.emptied + (counted == 0),
        )
    return EncodingReport(scope, tuple(rows.values()))


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id to fill up with; any id does, because padding is masked and never counts."""
    choices = (getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id"))
    return next((choice for choice in choices if choice is not None), 0)


def _who(item: Item) -> str:
    return f"{item.id!r} ({item.language})"
