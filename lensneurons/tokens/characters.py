"""Tokens and the characters that a reader sees: no character is cut, nothing is lost.

A token may be one byte of an ideograph, or a vowel sign that stands on the letter before it.
Decoded alone it is garbage. So tokens are shown by the whole characters (Unicode's extended
grapheme clusters) that they touch, in two ways:

* `group_tokens` divides a text into **spans**: the longest runs of characters that the same tokens
  touch. The joined spans are the text, whatever the tokenizer normalises; a token that ends inside
  a character is in two spans or more.
* `cut_token` cuts one token out of a text, with some characters on each side.

    >>> text = "3 ห้า"
    >>> cut_token(text, 3, 4, starts=character_starts(text), window=2)
    ('3 ', 'ห้', 'า')
    >>> group_tokens(tokenizer, [text])[0].spans                       # doctest: +SKIP
    (Span(text='3', tokens=(1,)), Span(text=' ', tokens=(2,)), Span(text='ห้', tokens=(3, 4, 5)), ...

No model is needed. What it does not show: where inside a character a token begins. `token_labels`
marks such a token with an ellipsis, and `token_texts` names its bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

import regex

from lensneurons.models.identity import added_tokens
from lensneurons.tokens.beginnings import encode_once, warn_doubled
from lensneurons.tokens.encoding import exact_backend

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase

Offset = tuple[int, int]


def character_starts(text: str) -> list[int]:
    """Where each character that a reader sees begins, in code points."""
    return [match.start() for match in regex.finditer(r"\X", text)]


def token_texts(backend: tokenizers.Tokenizer, ids: Sequence[int]) -> list[str]:
    """The characters of single tokens, spaces in front kept; parts of characters as bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {char: byte for byte, char in bytes_to_unicode().items()}
    special = {t.content for t in added_tokens(backend).values() if t.special}

    def text(piece: str) -> str:
        if backend.decoder is None or piece in special:
            return piece
        # Decoders strip a space that stands first of all, so an "a" goes in front.
        read = backend.decoder.decode(["a", piece])[1:]
        if "\N{REPLACEMENT CHARACTER}" not in read:
            return read
        if piece.startswith("<0x") or not set(piece) <= byte_of.keys():
            return piece
        return f"<{' '.join(f'{byte_of[char]:02X}' for char in piece)}>"

    return [text(backend.id_to_token(number) or "") for number in ids]


_BYTES = regex.compile(r"<(?:0x)?([0-9A-F]{2}(?: [0-9A-F]{2})*)>")


def piece_bytes(piece: str) -> bytes | None:
    r"""The bytes of a token that is only bytes of characters; None for any other piece.

    >>> piece_bytes("<E0 B8>"), piece_bytes("<0x98>"), piece_bytes("cat")
    (b'\xe0\xb8', b'\x98', None)
    """
    match = _BYTES.fullmatch(piece)
    return None if match is None else bytes.fromhex(match[1])


def bytes_told(piece: str) -> str:
    """What a token holds that is only bytes of characters, in words; of another piece, nothing.

    >>> bytes_told("<E0 B8>"), bytes_told("<0x98>"), bytes_told("cat")
    ('the first 2 of the 3 bytes of a character', 'a later byte of a character', '')
    """
    if (held := piece_bytes(piece)) is None:
        return ""
    first, *rest = held
    later = all(0x80 <= byte < 0xC0 for byte in rest)
    length = 2 + (first >= 0xE0) + (first >= 0xF0)
    if later and 0x80 <= first < 0xC0:
        return (
            f"{len(rest) + 1} later bytes of a character" if rest else "a later byte of a character"
        )
    if later and 0xC2 <= first < 0xF5 and len(rest) + 1 < length:
        many = f"{len(rest) + 1} " if rest else ""
        return f"the first {many}of the {length} bytes of a character"
    return "bytes of characters"


def bytes_note(pieces: Iterable[str]) -> str:
    """A sentence about pieces that are bytes, if there is one among these; else nothing."""
    found = next(filter(bytes_told, pieces), "")
    if not found:
        return ""
    return (
        f"A piece such as {found} is bytes, not letters: a character without a token of its own is "
        "written in several tokens, and each holds some of its bytes."
    )


# One text, divided


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
    # No tokenizer takes half a surrogate pair; the model reads the replacement character instead.
    readable = [regex.sub(r"[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text) for text in texts]
    encodings, left_out = encode_once(exact_backend(tokenizer, readable[:1]), readable)
    warn_doubled(left_out)
    known = sorted({number for encoding in encodings for number in encoding.ids})
    own = getattr(tokenizer, "backend_tokenizer")  # noqa: B009 (its type is that of any id)
    pieces = dict(zip(known, token_texts(own, known), strict=True))
    found = []
    for text, read, encoding in zip(texts, readable, encodings, strict=True):
        offsets = tuple(_exact_offsets(encoding, read))
        shown = tuple(pieces[number] for number in encoding.ids)
        found.append(TextTokens(text, tuple(encoding.ids), shown, offsets, _spans(text, offsets)))
    return found


def _exact_offsets(encoding: tokenizers.Encoding, text: str) -> Iterator[Offset]:
    """The offsets of an encoding, made exact for byte tokens.

    Unigram models with byte fallback give each byte of a run of unknown characters the offsets of
    the whole run. If the bytes spell those very characters, each byte gets its own character.
    """
    found = [regex.fullmatch(r"<0x([0-9A-F]{2})>", token) for token in encoding.tokens]
    values = [int(match[1], 16) if match else -1 for match in found]
    pairs = zip(values, encoding.offsets, strict=True)
    for (is_byte, (begin, end)), run in groupby(pairs, lambda p: (p[0] >= 0, p[1])):
        spelled = [value for value, _ in run]
        if is_byte and bytes(spelled) == text[begin:end].encode():
            for place, character in enumerate(text[begin:end], start=begin):
                yield from [(place, place + 1)] * len(character.encode())
        else:
            yield from [(begin, end)] * len(spelled)


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
        last = first + len(list(run))
        spans.append(Span(text[edges[first] : edges[last]], members))
        first = last
    return tuple(spans)


def token_labels(read: TextTokens, shown: Callable[[str], str] = str) -> tuple[str, ...]:
    """A short name for each token: the whole characters that it touches.

    A token that begins or ends inside a character has an ellipsis there: the three bytes of an
    ideograph are ``明…``, ``…明…`` and ``…明``. A space is ``␣``.

    Args:
        read: a text and its tokens.
        shown: makes the characters visible (control characters, say); by default they stay.
    """
    touched: list[list[Span]] = [[] for _ in read.ids]
    for span in read.spans:
        for place in span.tokens:
            touched[place].append(span)
    labels = []
    for place, (spans, piece) in enumerate(zip(touched, read.pieces, strict=True)):
        label = shown("".join(span.text for span in spans) if spans else piece)
        before = "…" if spans and min(spans[0].tokens) < place else ""
        after = "…" if spans and max(spans[-1].tokens) > place else ""
        labels.append(f"{before}{label}{after}".replace(" ", "␣"))
    return tuple(labels)


# One token, cut out of its text


class Excerpts:
    """Cuts tokens out of texts, which it encodes once, with so many characters on each side.

    The backend's offsets must cover all characters (`exact_backend`).
    """

    def __init__(self, texts: Sequence[str], backend: tokenizers.Tokenizer, window: int) -> None:
        self.texts, self.backend, self.window = texts, backend, window
        self.read: dict[int, tuple[list[Offset], list[int]]] = {}

    def __call__(self, number: int, position: int) -> tuple[str, str, str]:
        """What stands before a token of a text, the token, and what stands after it."""
        text = self.texts[number]
        if number not in self.read:
            (encoding,), _ = encode_once(self.backend, [text])
            self.read[number] = encoding.offsets, character_starts(text)
        offsets, starts = self.read[number]
        return cut_token(text, *offsets[position], starts=starts, window=self.window)


def cut_token(
    text: str, begin: int, end: int, *, starts: list[int], window: int
) -> tuple[str, str, str]:
    """Cut a token out of a text, widened to whole characters.

    Args:
        text: the text.
        begin: first code point of the token.
        end: end of the token, exclusive; a token without characters ends where it begins.
        starts: what `character_starts` gives.
        window: most characters on each side.

    Returns:
        What stands before the token, the token, and what stands after it.
    """
    edges = [*starts, len(text)]
    last = bisect_left(edges, end)
    first = bisect_right(edges, begin) - 1 if end > begin else last
    left, right = max(first - window, 0), min(last + window, len(starts))
    cuts = (edges[left], edges[first]), (edges[first], edges[last]), (edges[last], edges[right])
    before, token, after = (text[slice(*cut)] for cut in cuts)
    return before, token, after


def excerpt_html(before: str, token: str, after: str, *, language: str) -> str:
    """An excerpt as HTML with its token marked and every string escaped.

    ``<bdi>`` keeps its direction apart from the text around it; the language chooses the forms of
    Chinese characters. A line break is shown, and a space without width lets the line break there.
    """
    shown = "\N{RETURN SYMBOL}\N{ZERO WIDTH SPACE}"
    left, middle, right = (escape(part).replace("\n", shown) for part in (before, token, after))
    return f"<bdi dir='auto' lang='{escape(language)}'>{left}<mark>{middle}</mark>{right}</bdi>"
