"""Tables of the workshop's cards, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a table, a line each of its head and rows."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def points(middle: float, low: float, high: float) -> str:
    """Write a change of a share in points of percent, with its interval if it has one."""
    ends = f" ({100 * low:+.1f} to {100 * high:+.1f})" if low == low else ""
    return f"{100 * middle:+.1f}{ends}"
