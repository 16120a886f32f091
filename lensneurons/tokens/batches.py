"""Batches of texts of one language and similar length, the longest first.

Sorting by length keeps padding small. Starting with the longest makes memory peak at once: a run
that fits its first batch fits them all. The plan depends only on the lengths, so every run has the
same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int

from lensneurons.errors import CorpusError, choose
from lensneurons.shapes import AttentionMask, CountedMask, TextNumbers, TokenIds
from lensneurons.tokens.encoding import EncodedCorpus

PaddingSide = Literal["right", "left"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some texts of one language as a rectangle of token ids.

    Attributes:
        tokens: token ids, padded to the longest text.
        attention_mask: 1 on the tokens of the texts, 0 on padding.
        start: first counted position of each row, padding included.
        stop: end (exclusive) of the counted positions of each row.
        rows: which texts of the encoded corpus the rows are.
        language: their language.
    """

    tokens: TokenIds
    attention_mask: AttentionMask
    start: Int[np.ndarray, " batch"]
    stop: Int[np.ndarray, " batch"]
    rows: Int[np.ndarray, " batch"]
    language: str

    @property
    def counted(self) -> CountedMask:
        """True on the counted tokens."""
        positions = torch.arange(self.tokens.shape[1])
        start, stop = (torch.from_numpy(edge)[:, None] for edge in (self.start, self.stop))
        return (positions >= start) & (positions < stop)

    @property
    def predicted(self) -> Bool[torch.Tensor, "batch next"]:
        """Bool [batch, pos - 1]: the counted tokens that have a token before them.

        Like the logits, position t is about token t + 1.
        """
        return self.counted[:, 1:] & self.attention_mask[:, :-1].bool()

    @property
    def n_counted(self) -> int:
        """The number of counted tokens."""
        return int((self.stop - self.start).sum())


def plan_batches(encoded: EncodedCorpus, *, batch_tokens: int) -> list[np.ndarray]:
    """Divide the texts into batches of one language each, and give the numbers of their texts.

    Languages follow the order of the corpus. Within each, the longest texts come first and equal
    lengths keep the order of the corpus. Every text is in exactly one batch.

    Raises:
        CorpusError: `batch_tokens` is less than 1.
    """
    if batch_tokens < 1:
        raise CorpusError(f"batch_tokens={batch_tokens} holds nothing; give 1 or more")
    plan: list[np.ndarray] = []
    for number in range(len(encoded.languages)):
        rows = np.flatnonzero(encoded.language == number)
        rows = rows[np.argsort(-encoded.lengths[rows], kind="stable")]
        plan += [rows[part] for part in divide(encoded.lengths[rows], batch_tokens)]
    return plan


def divide(lengths: Sequence[int] | np.ndarray, batch_tokens: int) -> Iterator[slice]:
    """Divide rows, the longest first, into batches of at most `batch_tokens`, padding included.

    A longer row is a batch of its own.
    """
    first = 0
    while first < len(lengths):
        last = first + max(1, batch_tokens // max(1, int(lengths[first])))
        yield slice(first, last)
        first = last


def make_batch(
    encoded: EncodedCorpus, rows: Sequence[int] | np.ndarray, *, padding_side: PaddingSide = "right"
) -> Batch:
    """Lay texts of one language, given by their numbers, out as one padded rectangle.

    Raises:
        CorpusError: there are no rows, one is not in the corpus, or they mix languages.
    """
    choose(padding_side, get_args(PaddingSide), "padding_side")
    rows = np.asarray(rows, dtype=np.int64)
    if rows.size == 0 or rows.min() < 0 or rows.max() >= len(encoded):
        raise CorpusError(f"rows {rows.tolist()[:10]} are not texts 0 to {len(encoded) - 1}")
    tags = [encoded.languages[number] for number in np.unique(encoded.language[rows])]
    if len(tags) > 1:
        raise CorpusError(f"the rows mix the languages {tags}; a batch holds one")
    lengths = encoded.lengths[rows]
    shift = lengths.max() - lengths if padding_side == "left" else np.zeros_like(lengths)
    tokens = np.full((len(rows), int(lengths.max())), encoded.pad_id, dtype=np.int64)
    mask = np.zeros_like(tokens)
    for place, (row, begin, length) in enumerate(zip(rows, shift, lengths, strict=True)):
        here = slice(begin, begin + length)
        tokens[place, here] = encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]]
        mask[place, here] = 1
    return Batch(
        tokens=torch.from_numpy(tokens),
        attention_mask=torch.from_numpy(mask),
        start=encoded.start[rows] + shift,
        stop=encoded.stop[rows] + shift,
        rows=rows,
        language=tags[0],
    )


def item_groups(item_ids: Sequence[str], n_groups: int) -> TextNumbers:
    """The resampling group of each item, from a hash of its id.

    An item is in the same group in every language, order, shard and process, so a bootstrap over
    groups never tears the translations of an item apart.

    Returns:
        int64 numbers from 0 to ``n_groups - 1``: BLAKE2b (8 bytes, big-endian) modulo `n_groups`.

    Raises:
        CorpusError: `n_groups` is less than 1.
    """
    if n_groups < 1:
        raise CorpusError(f"n_groups={n_groups} leaves no group; give 1 or more")
    digests = (blake2b(name.encode(), digest_size=8).digest() for name in item_ids)
    return np.array([int.from_bytes(one, "big") % n_groups for one in digests], dtype=np.int64)
