"""The texts of a study: how many are counted, and what the model wrote in place of bare numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.evaluation.answers import Accuracy
from lensneurons.evaluation.numbers import stated_number

BARE = 24  # characters; a response that is shorter and holds a number is an answer, no text


def counted_items(corpus: ParallelCorpus, given: Mapping[str, Any]) -> int:
    """How many items are counted.

    Raises:
        LensNeuronsError: the corpus has too few for counts and effects.
        CorpusError: it is not parallel.
    """
    if not corpus.is_parallel:
        raise CorpusError(
            f"{corpus!r}: some items lack a language, so effects would be of other items in each; "
            "select those that all languages have"
        )
    # Kept for the effects also where they are skipped, as a later call may measure them.
    rest = len(corpus.ids) - given["effect_items"]
    items = rest if given["items"] is None else given["items"]
    if items > rest or items < 2:
        raise LensNeuronsError(
            f"{len(corpus.ids)} items a language, of which the effects take "
            f"{len(corpus.ids) - rest}: {rest} are left, and {items} were to be counted; lower "
            "items or effect_items, or give a larger corpus"
        )
    return items


def is_bare(corpus: ParallelCorpus) -> bool:
    """Whether the responses are numbers that answer prompts, and no texts to count."""
    return all(
        item.prompt
        and len(item.response) <= BARE
        and stated_number(item.response, language=item.language) is not None
        for item in corpus
    )


def with_answers(texts: ParallelCorpus, answers: Accuracy) -> ParallelCorpus:
    """The items with what the model wrote as responses; items without a text in any language go.

    Raises:
        CorpusError: the model wrote nothing.
    """
    written = {(one.id, one.language): one.text for one in answers}
    empty = {id for (id, _), text in written.items() if not text.strip()}
    if len(empty) == len(texts.ids):
        raise CorpusError("the model answered no item in all languages: nothing can be counted")
    items = tuple(
        replace(item, response=written[item.id, item.language])
        for item in texts
        if item.id not in empty
    )
    return replace(texts, items=items)
