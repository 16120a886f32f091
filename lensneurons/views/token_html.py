"""The token view as HTML: one span for each run of characters, its numbers in its tooltip.

The colours are those of changes in figures (`plots.diverging`): orange above zero, blue below, and
nothing at zero. They are laid over the page with an opacity that grows with the magnitude, so that
the text keeps its own colour and its contrast on a light and on a dark ground. A line under the
text says the same without colour: solid above zero, dotted below, thicker with the magnitude.

Colours stand in the style of each span, where no notebook's clean-up loses them; the rest of the
style sheet names the class ``lensneurons-tokens`` in every rule. There is no JavaScript.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lensneurons.plots.labels import plain
from lensneurons.plots.notes import MINUS
from lensneurons.views.characters import Span, visible
from lensneurons.views.pages import label_of, render

if TYPE_CHECKING:
    from lensneurons.views.token_view import ColouredText, TokenView

ABOVE, BELOW = (213, 94, 0), (42, 112, 174)
# Opacity at the ends of the scale. With it the text of JupyterLab, VS Code and Colab, light and
# dark, keeps a contrast of 4.5 : 1 or more.
OPACITY = 0.55
_LINE = 3  # pixels of the line under the text at the ends of the scale


def token_fragment(view: TokenView) -> str:
    """The view as a piece of HTML for a notebook or a larger page."""
    return render("tokens.html.jinja", view=view, **_parts(view))


def token_page(view: TokenView) -> str:
    """The view as a whole page; its policy lets it load nothing and run nothing."""
    return render("page.html.jinja", title=view.what, body=token_fragment(view), scripts=False)


def number(value: float) -> str:
    """An activation to three digits with its sign: ``"+1.24"``, ``"−0.0312"``, ``"0"``."""
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    return f"{sign}{abs(value):.3g}"


def shade(value: float | None, end: float) -> str:
    """The colour and the line of a value, as CSS; nothing for zero or no value.

    Args:
        value: an activation.
        end: the activation at the ends of the scale.
    """
    share = min(abs(value) / end, 1.0) if value and end else 0.0
    if share < 0.005:
        return ""
    red, green, blue = ABOVE if value and value > 0 else BELOW
    line = "solid" if value and value > 0 else "dotted"
    return (
        f"background-color:rgba({red},{green},{blue},{OPACITY * share:.3f});"
        f"border-bottom:{round(_LINE * share)}px {line} rgba({red},{green},{blue},0.9)"
    )


def _parts(view: TokenView) -> dict[str, Any]:
    """What the template shows beside the view itself."""
    return {
        "texts": [_text(text, view.end) for text in view.texts],
        "ticks": [number(part) for part in np.linspace(view.start, view.end, 5).tolist()],
        "above": f"rgba({','.join(map(str, ABOVE))},{OPACITY})",
        "below": f"rgba({','.join(map(str, BELOW))},{OPACITY})",
    }


def _text(text: ColouredText, end: float) -> dict[str, Any]:
    """One text for the template."""
    label, language = label_of(text.label)
    return {
        "label": label,
        "language": language,
        "facts": _facts(text),
        "added": [
            f"{plain(text.read.pieces[p])} {number(float(text.activations[p]))}"
            for p in text.read.added
        ],
        "spans": [
            (visible(span.text), shade(value, end), _tooltip(text, span), "\n" in span.text)
            for span, value in zip(text.read.spans, text.values, strict=True)
        ],
    }


def _facts(text: ColouredText) -> str:
    """The size of a text and where its value is largest, for readers who cannot hover."""
    pairs = zip(text.values, text.read.spans, strict=True)
    shown = [(value, span) for value, span in pairs if value is not None]
    if not shown:
        return f"{len(text.read.ids)} tokens"
    value, span = max(shown, key=lambda pair: abs(pair[0]))
    where = f"strongest {number(value)} at “{plain(span.text)}”" if value else "0 everywhere"
    return f"{len(text.read.ids)} tokens, {where}"


def _tooltip(text: ColouredText, span: Span) -> str:
    """The value of a span, and the id, piece and activation of every token that touches it."""
    value = text.value(span)
    if value is None:
        return "no token holds this"
    lines = [
        f"token {text.read.ids[place]} “{plain(text.read.pieces[place])}” "
        f"{number(float(text.activations[place]))}"
        for place in span.tokens
    ]
    return "\n".join([number(value), *lines])
