"""One text of a corpus: as it was read (`Record`) and as it is used (`Item`).

Readers turn files into records, `checks.check_records` turns records into items, and a
`ParallelCorpus` holds items. A record knows the line it came from, so an error can name it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source, unchecked.

    Attributes:
        where: the place to name in an error, like ``"mgsm_zh.tsv:12"``.
        columns: what was read, a mapping if it is a row; ``id``, ``language``, ``prompt`` and
            ``response`` are understood.
    """

    where: str
    columns: Any


@dataclass(frozen=True, slots=True)
class Item:
    """One text in one language; items with the same ``id`` are translations of one another.

    Attributes:
        id: the item's name, the same in every language.
        language: canonical BCP-47 tag.
        prompt: what the model is given; may be empty.
        response: what it is to answer; may be empty where no item of the corpus has one.
    """

    id: str
    language: str
    prompt: str
    response: str

    @property
    def text(self) -> str:
        """The prompt and the response, with nothing inserted between them."""
        return self.prompt + self.response
