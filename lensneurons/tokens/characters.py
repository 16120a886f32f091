"""A token cut out of its text, in characters that a reader sees.

A token may be one byte of an ideograph, or a vowel sign that stands on the letter before it, and
decoded alone it is garbage. So it is shown as the text it covers, widened to whole characters
(Unicode's extended grapheme clusters), with so many characters of the text on each side.

    >>> text = "3 ห้า"
    >>> cut_token(text, 3, 4, starts=character_starts(text), window=2)
    ('3 ', 'ห้', 'า')

What it does not show: where inside a character a token begins; several tokens may look the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    import tokenizers

# A line break, shown; the space without width lets the line break there.
_BREAK = "\N{RETURN SYMBOL}\N{ZERO WIDTH SPACE}"


class Excerpts:
    """Cuts tokens out of texts; every text is read once.

    Args:
        texts: the texts, in the order of their numbers.
        backend: encodes them, with offsets that cover all characters (`seams.exact_backend`).
        window: most characters on each side of a token.
    """

    def __init__(self, texts: Sequence[str], backend: tokenizers.Tokenizer, window: int) -> None:
        self.texts, self.backend, self.window = texts, backend, window
        self.read: dict[int, tuple[list[tuple[int, int]], list[int]]] = {}

    def __call__(self, number: int, position: int) -> tuple[str, str, str]:
        """What stands before a token of a text, the token, and what stands after it."""
        text = self.texts[number]
        if number not in self.read:
            self.read[number] = self.backend.encode(text).offsets, character_starts(text)
        offsets, starts = self.read[number]
        return cut_token(text, *offsets[position], starts=starts, window=self.window)


def character_starts(text: str) -> list[int]:
    """Where each character that a reader sees begins, in code points."""
    return [match.start() for match in regex.finditer(r"\X", text)]


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
    return (
        text[edges[left] : edges[first]],
        text[edges[first] : edges[last]],
        text[edges[last] : edges[right]],
    )


def excerpt_html(before: str, token: str, after: str, *, language: str) -> str:
    """An excerpt with its token marked, as HTML: escaped, kept apart from the direction of what
    surrounds it, and tagged with its language, which chooses the forms of Chinese characters.
    """
    left, middle, right = (escape(part).replace("\n", _BREAK) for part in (before, token, after))
    return f"<bdi dir='auto' lang='{escape(language)}'>{left}<mark>{middle}</mark>{right}</bdi>"


def token_texts(backend: tokenizers.Tokenizer, ids: Sequence[int]) -> list[str]:
    """The characters of single tokens, spaces in front kept; parts of characters as bytes.

    Args:
        backend: the tokenizer's backend.
        ids: numbers in the vocabulary.
    """
    return [_text(backend, backend.id_to_token(number) or "") for number in ids]


def _text(backend: tokenizers.Tokenizer, piece: str) -> str:
    """What a piece adds to an "a" in front of it: decoders strip what stands first of all."""
    if backend.decoder is None or piece in _special(backend):
        return piece
    text = backend.decoder.decode(["a", piece])[1:]
    return text if "\N{REPLACEMENT CHARACTER}" not in text else _bytes(piece)


def _special(backend: tokenizers.Tokenizer) -> set[str]:
    return {t.content for t in backend.get_added_tokens_decoder().values() if t.special}


def _bytes(piece: str) -> str:
    """A piece that is no whole character, as the bytes it stands for, if they can be told."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    known = {char: byte for byte, char in bytes_to_unicode().items()}
    if not set(piece) <= known.keys() or piece.startswith("<0x"):
        return piece
    return f"<{' '.join(f'{known[char]:02X}' for char in piece)}>"
