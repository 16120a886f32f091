"""What the views share: reading their input, and showing themselves as HTML.

A view is HTML from the templates of this package, with every value escaped. `html` is a whole page
whose policy lets it load nothing from anywhere; a notebook shows the same without the page around.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from markupsafe import Markup

from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.languages.codes import language_code
from lensneurons.models.family import context_length
from lensneurons.models.identity import original_tokenizer
from lensneurons.plots.labels import full_name, plain
from lensneurons.plots.style import FONTS, TEMPLATES
from lensneurons.tokens.characters import TextTokens, group_tokens
from lensneurons.values.files import replacing
from lensneurons.values.tables import html_templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def visible(text: str) -> str:
    r"""A text with what cannot be seen made visible; a line feed and a tab stay.

    >>> visible("a\0b\u202e\n")
    'a␀b\\u202e\n'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else plain(c) for c in text)


class View(ABC):
    """Texts that show themselves in a notebook, and as a page of their own."""

    SCRIPTS: ClassVar[bool]  # whether its page runs JavaScript

    @property
    @abstractmethod
    def title(self) -> str:
        """What the page is called."""

    @abstractmethod
    def _repr_html_(self) -> str: ...

    def html(self) -> str:
        """Return a whole page that needs no network."""
        body = Markup(self._repr_html_())
        return render("page.html.jinja", title=self.title, body=body, scripts=self.SCRIPTS)

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all, and return its path."""
        with replacing(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")
        return Path(path)


def render(template: str, **values: object) -> str:
    """Fill in a template of this package; every value is escaped, and a missing one is an error."""
    layouts: dict[str, Any] = {theme: template.layout for theme, template in TEMPLATES.items()}
    inks = {theme: (one.paper_bgcolor, one.font.color) for theme, one in layouts.items()}
    found = html_templates("lensneurons.views").get_template(template)
    return found.render(fonts=FONTS, inks=inks, **values)


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


def read_texts(
    model: Any,
    texts: str | Sequence[str],
    labels: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[tuple[str, ...], list[TextTokens]]:
    """Give each text its label, and divide it into tokens and characters.

    Arguments are those of the views. Without labels, a single text has none and several have
    numbers.

    Raises:
        LensNeuronsError: there are no texts, one is empty, or there are not as many labels.
        CorpusError: a text is longer than the model's context, has no tokens, or has ids outside
            the vocabulary.
        ModelError: the model's tokenizer cannot be read.
    """
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given or not all(given):
        what = f"text {given.index('') + 1} of {len(given)} is empty" if given else "no text"
        raise LensNeuronsError(f"{what}: give a text, or a list of texts, with something in each")
    if labels is None:
        names = [f"text {n}" for n in range(1, len(given) + 1)] if len(given) > 1 else [""]
    else:
        names = [labels] if isinstance(labels, str) else list(labels)
    if len(names) != len(given):
        raise LensNeuronsError(
            f"{len(names)} labels for {len(given)} texts: give one each, such as ['en', 'th']"
        )
    read = group_tokens(tokenizer or original_tokenizer(model), given)
    most, size = context_length(model), int(model.cfg.d_vocab)
    for number, one in enumerate(read, start=1):
        who = f"text {number} of {len(read)}"
        if not one.ids:
            raise CorpusError(f"{who} has no tokens: the tokenizer drops all of {one.text!r:.40}")
        if len(one.ids) > most:
            raise CorpusError(
                f"{who} has {len(one.ids)} tokens, the context of the model {most}: shorten it"
            )
        if max(one.ids) >= size:
            raise CorpusError(
                f"the tokenizer gives id {max(one.ids)}, but the model's vocabulary has {size}: "
                "pass the tokenizer that belongs to the model"
            )
    return tuple(names), read
