"""The attention view as HTML: CircuitsVis from its local files, once a page.

CircuitsVis's own display asks a web address first and then loads its code from a server. Here its
bundle (one file of the installed package, 1.3 MB) is put into the page as it is, and every text is
drawn by its component ``AttentionHeads``, which writes token names on a canvas: they are never read
as HTML. In the script they are JSON without any ``<``, so that no text can end it.

The drawing has dark axes on white, also in a dark notebook.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from markupsafe import Markup

from lensneurons.errors import LensNeuronsError
from lensneurons.plots.labels import plain
from lensneurons.views.characters import visible
from lensneurons.views.pages import label_of, render

if TYPE_CHECKING:
    from lensneurons.views.attention_view import AttentionView, TextAttention

_LONGEST = 14  # characters of a token's name on an axis


def attention_fragment(view: AttentionView) -> str:
    """The view as a piece of HTML for a notebook or a larger page, JavaScript included."""
    parts = [_text(text, view.heads) for text in view.texts]
    return render("attention.html.jinja", view=view, texts=parts, bundle=Markup(_bundle()))


def attention_page(view: AttentionView) -> str:
    """The view as a whole page; its policy lets it load nothing from anywhere."""
    title = f"attention of layer {view.layer} in {plain(view.model)}"
    return render("page.html.jinja", title=title, body=attention_fragment(view), scripts=True)


def _text(text: TextAttention, heads: tuple[int, ...]) -> dict[str, Any]:
    """One text for the template; the properties of its drawing are safe within a script."""
    label, language = label_of(text.label)
    properties = {
        "attention": [[[round(float(v), 4) for v in row] for row in head] for head in text.pattern],
        "tokens": [_short(name) for name in text.tokens],
        "attentionHeadNames": [f"H{head}" for head in heads],
        "minValue": 0,
        "maxValue": 1,
        "maskUpperTri": True,
    }
    return {
        "label": label,
        "language": language,
        "shown": visible(text.read.text),
        "element": f"lensneurons-attention-{uuid4().hex}",
        "properties": Markup(json.dumps(properties, separators=(",", ":")).replace("<", "\\u003c")),
    }


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


@lru_cache(maxsize=1)
def _bundle() -> str:
    """The JavaScript of CircuitsVis, without anything that would end a script element.

    Importing CircuitsVis takes seconds and is not needed.

    Raises:
        LensNeuronsError: it is not where CircuitsVis 1.43 keeps it.
    """
    package = find_spec("circuitsvis")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder, "dist", "cdn", "iife.js")
        if path.is_file():
            code = path.read_text(encoding="utf-8")
            return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    raise LensNeuronsError(
        "the JavaScript of CircuitsVis is not installed (circuitsvis/dist/cdn/iife.js): "
        "pip install 'circuitsvis>=1.43'"
    )
