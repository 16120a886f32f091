"""The demo world as a corpus: what ``load_corpus("demo")`` reads, and where its number words stand.

Both are registered as entry points (see `lensneurons.registry`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from lensneurons.corpora.items import Item, Record
from lensneurons.demo.world import LANGUAGES, SPLITS, Split, find_language, generate, render
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.numbers import last_number

# Its problems are drawn until they differ, which takes ever longer as they run out.
MOST = 10_000


def read(split: str | None, limit: int | None) -> tuple[str, Iterator[Record]]:
    """Write problems of the demo world in all of its languages.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``; None for the last.
        limit: how many problems; None for 100.

    Returns:
        The name of the corpus, and its rows.

    Raises:
        LensNeuronsError: no such split, or a `limit` that is negative or above `MOST`.
    """
    if limit is not None and limit > MOST:
        raise LensNeuronsError(
            f"limit={limit}: the demo world has no more than {MOST:,} problems to give; ask for"
            " fewer"
        )
    part = cast("Split", choose("test" if split is None else split, SPLITS, "split"))
    rows = (
        {"id": problem.id, "language": language, "prompt": prompt, "response": response}
        for problem in generate(part, 100 if limit is None else limit)
        for language in LANGUAGES
        for prompt, response in (render(problem, language),)
    )
    return f"demo {part}", (Record(f"demo {part}:{row['id']}", row) for row in rows)


def word_span(item: Item) -> tuple[int, int] | None:
    """Find the last number of a response, written as a word, with the space before it.

    Returns:
        First character and end, or None if there is no such word.
    """
    number = last_number(item.response, language=item.language)
    if number is None or item.language not in LANGUAGES:
        return None
    word = find_language(item.language).spell(int(number))
    start = item.response.rfind(word)
    if start < 0:
        return None
    return len(item.response[:start].rstrip()), start + len(word)
