"""Which tokens touch which characters of a text: nothing is lost, no character is cut.

A token may be one byte of an ideograph, or a vowel sign that stands on the letter before it, and
decoded alone it is garbage. So a text is divided into **spans of whole characters** (Unicode's
extended grapheme clusters): a span is a longest run of characters that the same tokens touch.

    text = s_1 s_2 ... s_n        the joined spans are the text, whatever the tokenizer normalises
    tokens(s_i) != tokens(s_i+1)  a token that ends inside a character is in two spans or more

>>> read = group_tokens(tokenizer, ["3 ห้า"])[0]                       # doctest: +SKIP
>>> read.spans                                                            # doctest: +SKIP
(Span(text='3', tokens=(1,)), Span(text=' ', tokens=(2,)), Span(text='ห้', tokens=(3, 4, 5)), ...

Needs no model. What it does not show: where inside a character a token begins; `token_labels` marks
it with an ellipsis, and the pieces name the bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import regex

from lensneurons.plots.labels import plain
from lensneurons.tokens.characters import character_starts, token_texts
from lensneurons.tokens.encoding import exact_backend

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase

Offset = tuple[int, int]
_BYTE = regex.compile(r"<0x([0-9A-F]{2})>")
# No tokenizer takes half a surrogate pair; the model reads the replacement character in its place.
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_PART = "…"
_SPACES = str.maketrans({" ": "␣"})


@dataclass(frozen=True, slots=True)
class Span:
    """Some whole characters, and the positions of the tokens that touch them (none: no token)."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TextTokens:
    """A text, its tokens, and the spans of characters that they make.

    Attributes:
        text: as it was given.
        ids: token ids, special tokens included, as the model reads them.
        pieces: what each token stands for alone; a piece of a character as its bytes.
        offsets: first character (code point) and end of each token; empty for a token without
            characters, such as a special token that the tokenizer adds.
        spans: the text, divided.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    offsets: tuple[Offset, ...]
    spans: tuple[Span, ...]

    @property
    def added(self) -> tuple[int, ...]:
        """Positions of the tokens that stand for no character of the text."""
        return tuple(place for place, (begin, end) in enumerate(self.offsets) if begin == end)


def group_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> list[TextTokens]:
    """Divide texts into spans of whole characters, each with the tokens that touch it.

    Args:
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.
        texts: any texts; a lone surrogate is read as U+FFFD.

    Raises:
        CorpusError: the tokenizer is slow, or does more than its backend.
    """
    texts = list(texts)
    readable = [_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text) for text in texts]
    backend = exact_backend(tokenizer, readable[:1])
    encodings = backend.encode_batch(readable)
    known = sorted({number for encoding in encodings for number in encoding.ids})
    own = getattr(tokenizer, "backend_tokenizer")  # noqa: B009 (its type is that of any id)
    pieces = dict(zip(known, token_texts(own, known), strict=True))
    found = []
    for text, read, encoding in zip(texts, readable, encodings, strict=True):
        offsets = tuple(_exact_offsets(encoding, read))
        shown = tuple(pieces[number] for number in encoding.ids)
        found.append(TextTokens(text, tuple(encoding.ids), shown, offsets, _spans(text, offsets)))
    return found


def token_labels(read: TextTokens) -> tuple[str, ...]:
    """A short visible name for each token: the whole characters that it touches.

    A token that begins or ends inside a character has an ellipsis there: the three bytes of an
    ideograph are ``明…``, ``…明…`` and ``…明``. A space is ``␣``, control characters are visible.
    """
    touched: list[list[Span]] = [[] for _ in read.ids]
    for span in read.spans:
        for place in span.tokens:
            touched[place].append(span)
    return tuple(
        _label(place, spans, read.pieces[place]).translate(_SPACES)
        for place, spans in enumerate(touched)
    )


def visible(text: str) -> str:
    r"""A text with what cannot be seen made visible; a line feed and a tab stay.

    >>> visible("a\0b\u202e\n")
    'a␀b\\u202e\n'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else plain(c) for c in text)


def _label(place: int, spans: Sequence[Span], piece: str) -> str:
    if not spans:
        return plain(piece)
    before = _PART if min(spans[0].tokens) < place else ""
    after = _PART if max(spans[-1].tokens) > place else ""
    return f"{before}{plain(''.join(span.text for span in spans))}{after}"


def _spans(text: str, offsets: Sequence[Offset]) -> tuple[Span, ...]:
    """The longest runs of characters that are touched by the same tokens."""
    edges = [*character_starts(text), len(text)]
    touching: list[tuple[int, ...]] = [()] * (len(edges) - 1)
    for place, (begin, end) in enumerate(offsets):
        if begin < end:
            for number in range(bisect_right(edges, begin) - 1, bisect_left(edges, end)):
                touching[number] += (place,)
    spans, first = [], 0
    for members, run in groupby(touching):
        last = first + sum(1 for _ in run)
        spans.append(Span(text[edges[first] : edges[last]], members))
        first = last
    return tuple(spans)


def _exact_offsets(encoding: tokenizers.Encoding, text: str) -> Iterator[Offset]:
    """The offsets of an encoding, those of byte tokens made exact.

    Unigram models with byte fallback give each byte of a run of unknown characters the offsets of
    the whole run. Where the bytes spell those very characters, each is given its own.
    """
    found = [_BYTE.fullmatch(token) for token in encoding.tokens]
    if not any(found):
        yield from encoding.offsets
        return
    values = [int(match[1], 16) if match else None for match in found]
    pairs = zip(values, encoding.offsets, strict=True)
    for (is_byte, (begin, end)), run in groupby(pairs, lambda p: (p[0] is not None, p[1])):
        spelled = bytes(value for value, _ in run if value is not None) if is_byte else b""
        if is_byte and spelled == text[begin:end].encode():
            for place, character in enumerate(text[begin:end], start=begin):
                yield from [(place, place + 1)] * len(character.encode())
        else:
            yield from [(begin, end)] * (len(spelled) or sum(1 for _ in run))
