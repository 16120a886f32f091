"""HTML that cannot be broken by what is put into it: small tables, and templates that escape.

`html_table` is how values show themselves in a notebook: a plain table, no JavaScript; `text_table`
is the same for a console. Larger pieces are jinja2 templates of their package, from
`html_templates`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

_SENTENCE = 45  # characters; longer ones are no labels


def html_table(title: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table with a caption; every inserted string is escaped.

    Args:
        title: the caption.
        head: the column names.
        rows: the cells, row by row, as long as `head`. Columns that hold sentences are aligned at
            the left; numbers and short words as notebooks do it, at the right.
    """
    rows = list(rows)
    long = {i for row in rows for i, value in enumerate(row) if len(str(value)) > _SENTENCE}

    def cells(values: Sequence[object], tag: str) -> str:
        left = " style='text-align:left'"
        return "".join(
            f"<{tag}{left if i in long else ''}>{safe(value)}</{tag}>"
            for i, value in enumerate(values)
        )

    def safe(value: object) -> str:
        # A lone surrogate has no UTF-8, so that a notebook that holds one could not be saved.
        return escape(str(value).encode("utf-8", "backslashreplace").decode())

    caption = f"<caption style='text-align:left;font-weight:bold'>{safe(title)}</caption>"
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    table = f"<thead><tr>{cells(head, 'th')}</tr></thead><tbody>{body}</tbody>"
    # A table of many languages is wider than a page: it scrolls by itself, the page does not.
    return f"<div style='overflow-x:auto;max-width:100%'><table>{caption}{table}</table></div>"


def text_table(title: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return the same table as aligned text: a title, then a line a row.

    Columns of numbers are aligned at the right, others at the left. Wide characters take two
    columns of a console, and marks on another character none.
    """
    lines = [[_one_line(value) for value in row] for row in (head, *rows)]
    if not head:
        return _one_line(title)
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    right = [all(map(_is_number, column[1:])) for column in zip(*lines, strict=True)]
    told = [
        "  ".join(
            " " * (width - _width(cell)) + cell if number else cell + " " * (width - _width(cell))
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([_one_line(title), *told])


def _one_line(value: object) -> str:
    """A cell as one line, whatever it holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _width(text: str) -> int:
    """Columns that a text takes in a console."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me") for c in text)


def _is_number(text: str) -> bool:
    return not text.strip("0123456789.,+-\N{MINUS SIGN}%e ()[]") or text in ("nan", "", "–")


@cache
def html_templates(package: str, finalize: Callable[[object], object] | None = None) -> Environment:
    """Return the HTML templates of a package, shared by all callers: do not change them.

    Every value is escaped unless it is `Markup`, and a missing one is an error. So is NaN or
    infinity in JSON, which no browser reads.

    Args:
        package: name of the package whose folder ``templates`` holds them.
        finalize: what to do with every value before it is written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {
        "sort_keys": True,
        "allow_nan": False,
        "separators": (",", ":"),
    }
    return environment
