"""Templates of the views, filled in with everything escaped, and the labels above the texts."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lensneurons.errors import CorpusError
from lensneurons.languages.codes import language_code
from lensneurons.plots.labels import full_name, plain
from lensneurons.plots.style import FONTS, TEMPLATES

if TYPE_CHECKING:
    import jinja2


def render(template: str, **values: object) -> str:
    """A template of this package, filled in; every value is escaped.

    Args:
        template: its file name.
        values: what it asks for; a missing one is an error.
    """
    return _environment().get_template(template).render(**values)


def visible(text: str) -> str:
    r"""A text with what cannot be seen made visible; a line feed and a tab stay.

    >>> visible("a\0b\u202e\n")
    'a␀b\\u202e\n'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else plain(c) for c in text)


def label_of(label: str) -> tuple[str, str]:
    """A label as it is shown, and the language tag of what stands below it (or nothing).

    Words such as "new" are language tags too (Newari), so only short tags are shown by name.

    >>> label_of("th"), label_of("new"), label_of("before <s>")
    (('Thai (th)', 'th'), ('new', 'new'), ('before <s>', ''))
    """
    try:
        tag = language_code(label)
    except CorpusError:
        return plain(label), ""
    return full_name(label) if len(tag.partition("-")[0]) == 2 else plain(label), tag


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lensneurons.views"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.globals["fonts"] = FONTS
    environment.globals["inks"] = {theme: _ink(theme) for theme in TEMPLATES}
    return environment


def _ink(theme: str) -> tuple[str, str]:
    """The ground and the text of a theme, as the figures have them."""
    layout: Any = TEMPLATES[theme].layout
    return layout.paper_bgcolor, layout.font.color
