"""How values show themselves in a notebook: plain escaped HTML tables, no JavaScript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(title: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table with a caption; every inserted string is escaped.

    Args:
        title: the caption.
        head: the column names.
        rows: the cells, row by row, as long as `head`.
    """
    caption = f"<caption style='text-align:left;font-weight:bold'>{escape(title)}</caption>"
    body = "".join(f"<tr>{_cells(row, 'td')}</tr>" for row in rows)
    return (
        f"<table>{caption}<thead><tr>{_cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cells(values: Sequence[object], tag: str) -> str:
    return "".join(f"<{tag}>{escape(str(value))}</{tag}>" for value in values)
