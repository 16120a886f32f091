"""Strings as a reader of the page has to see them: nothing in them is hidden, nothing else changes.

Control characters, lone surrogates, direction overrides and other characters without a shape become
signs or escapes; joiners that are part of how Persian, Bengali or emoji are written stay, and so do
the isolates that `plots.labels.plain` puts around names that run from right to left.
"""

from __future__ import annotations

import re

from lensneurons.plots.labels import plain

_SIGNS = {
    "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
    "\t": "\N{RIGHTWARDS ARROW TO BAR}",
}
_ISOLATED = re.compile("\u2068([^\u2068\u2069]*)\u2069")


def visible(text: str) -> str:
    """A text in which everything can be seen; to do it twice is the same as once."""
    found, end = [], 0
    for isolated in _ISOLATED.finditer(text):
        found += [_seen(text[end : isolated.start()]), f"\u2068{_seen(isolated[1])}\u2069"]
        end = isolated.end()
    return "".join([*found, _seen(text[end:])])


def _seen(text: str) -> str:
    return "".join(c if c.isprintable() else _SIGNS.get(c) or plain(c) for c in text)
