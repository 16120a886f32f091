r"""Text in figures: make any name safe, because plotly reads labels as a kind of HTML.

In a label ``<s>`` becomes strike-through, and ``$x$`` becomes a formula where MathJax is loaded. A
line break or a lone surrogate breaks the page, and a direction override reorders its neighbours.
Every string that is not a constant of this package therefore goes through `escape_label`. Titles
and notes go through `plain` alone, because `lensneurons.plots.style.frame` escapes them.

>>> escape_label("<s>Thai</s> $\n")
'&lt;s&gt;Thai&lt;/s&gt; &#36;␊'
"""

from __future__ import annotations

import textwrap
import unicodedata

from lensneurons.errors import CorpusError
from lensneurons.languages.codes import language_name
from lensneurons.values.provenance import UNKNOWN, Provenance

# Joiners and tags are part of how Bengali, Persian and emoji are written. The other format
# characters (direction overrides, zero-width spaces, byte order marks) only hide things.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT = frozenset({"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))})
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def escape_label(text: object, most: int | None = None) -> str:
    r"""Return a string in the form in which plotly shows it as written.

    Args:
        text: anything; its `str` is shown. Control characters, lone surrogates and hidden format
            characters become visible (``␀``, ``\ud800``).
        most: longest text to show, in characters; a longer one is cut and ends in "…".
    """
    return entities(plain(text, most))


def plain(text: object, most: int | None = None) -> str:
    """Make everything in a string visible, without escaping it for plotly."""
    shown = "".join(map(_visible, str(text)))
    if most is not None and len(shown) > most:
        shown = shown[: most - 1] + "…"
    if shown and unicodedata.category(shown[0])[0] == "M":
        shown = "◌" + shown
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in shown):
        return f"\u2068{shown}\u2069"  # isolated, so that it cannot reorder its neighbours
    return shown


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    hidden = unicodedata.category(character) in _HIDDEN and character not in _KEPT
    noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return f"\\u{code:04x}" if hidden or noncharacter else character


def entities(text: str) -> str:
    """Escape the characters of a visible string that plotly or MathJax would act on."""
    return text.translate(_ENTITIES)


def lines(text: str, width: int) -> list[str]:
    """Break a visible text into escaped lines of at most `width` characters."""
    return [entities(line) for line in textwrap.wrap(text, width, break_on_hyphens=False)]


def capital(text: str) -> str:
    """Write the first letter as a capital and leave the rest."""
    return text[:1].upper() + text[1:]


def full_name(code: str) -> str:
    """``"Chinese (zh)"``, or the code alone if it is no known tag; visible, not escaped."""
    try:
        return f"{plain(language_name(code))} ({plain(code)})"
    except CorpusError:
        return plain(code, 40)


def headed(provenance: Provenance, text: str) -> str:
    """Put the name of the model, if it is known, in front of a sentence; not escaped."""
    if provenance.model == UNKNOWN:
        return capital(text)
    return f"{plain('/'.join(provenance.model.split('/')[-2:]), 48)}: {text}"
