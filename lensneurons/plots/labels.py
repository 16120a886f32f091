r"""Text in figures: plotly reads labels as pseudo-HTML, and names may hold anything.

``<s>`` in a label becomes strike-through, ``$x$`` becomes a formula where MathJax is loaded, a line
break or a lone surrogate breaks the page, a direction override turns its neighbours round. Every
string that is not a constant of this package goes through `escape_label` (or `plain`, where
`lensneurons.plots.style.frame` escapes later), so it is shown as written and does nothing.

>>> escape_label("<s>Thai</s> $\n")
'&lt;s&gt;Thai&lt;/s&gt; &#36;␊'
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from lensneurons.errors import CorpusError
from lensneurons.languages.codes import language_name

# Joiners and tags are part of how Bengali, Persian and emoji are written; the other format
# characters (direction overrides, zero-width spaces, byte order marks) only hide things.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT = frozenset({"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))})
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def escape_label(text: object, most: int | None = None) -> str:
    r"""A string as plotly must get it to show it as written.

    Args:
        text: anything; its `str` is shown. Control characters, lone surrogates and hidden format
            characters become visible (``␀``, ``\ud800``).
        most: longest text to show, in characters; a longer one is cut and ends in "…".
    """
    return entities(plain(text, most))


def plain(text: object, most: int | None = None) -> str:
    """The visible form of a string, before `entities` makes it safe for plotly."""
    shown = "".join(map(_visible, str(text)))
    if most is not None and len(shown) > most:
        shown = shown[: most - 1] + "…"
    if shown and unicodedata.category(shown[0])[0] == "M":
        shown = "◌" + shown
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in shown):
        return f"\u2068{shown}\u2069"  # isolated, so that it cannot reorder its neighbours
    return shown


def entities(text: str) -> str:
    """A visible string with the characters escaped that plotly or MathJax would act on."""
    return text.translate(_ENTITIES)


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    hidden = unicodedata.category(character) in _HIDDEN and character not in _KEPT
    nothing = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return f"\\u{code:04x}" if hidden or nothing else character


def full_name(code: str) -> str:
    """``"Chinese (zh)"``, or the code alone where it is no known tag; visible, not escaped."""
    try:
        return f"{plain(language_name(code))} ({plain(code)})"
    except CorpusError:
        return plain(code, 40)


def lines(text: str, width: int) -> list[str]:
    """A visible text in escaped lines of at most `width` characters."""
    return [entities(line) for line in textwrap.wrap(text, width, break_on_hyphens=False)]


def listing(items: Iterable[object], most: int = 6) -> str:
    """``"a, b and c"``; of more than `most` the first ones and how many follow."""
    words = [str(item) for item in items]
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def span(first: int, last: int) -> str:
    """``"5–19"``, or ``"31"`` for one layer."""
    return str(first) if first == last else f"{first}–{last}"


def spans(layers: Sequence[int]) -> str:
    """Sorted layer numbers as runs: ``"0–1, 28 and 30–31"``; nothing where there are over six."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return listing(span(*run) for run in runs) if len(runs) <= 6 else ""


def counted(number: int, noun: str) -> str:
    """``"no neurons"``, ``"1 neuron"``, ``"1,234 neurons"``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s") if number else f"no {noun}s"


def short_number(number: int) -> str:
    """A count in at most four characters: ``"742"``, ``"7.8k"``, ``"397k"``, ``"1.2M"``."""
    for unit, sign in ((1_000_000, "M"), (1_000, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.{0 if number >= 9.95 * unit else 1}f}{sign}"
    return str(number)
