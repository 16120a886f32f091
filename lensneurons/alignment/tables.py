"""What the values of the steps have in common: rows of texts, each of an item and a language."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import pandas as pd

Entry = TypeVar("Entry")


class TextTable(Generic[Entry]):
    """What a table can do with its ``rows``: dataclasses with an ``id`` and a ``language``."""

    rows: tuple[Entry, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all rows in their order."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(repr(row).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in the order of their first row."""
        return tuple(dict.fromkeys(row.language for row in self._dataclasses()))

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Entry]:
        """All rows."""
        return iter(self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """One row a text or pair, with the attributes of the rows as columns."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self._dataclasses()])

    def _dataclasses(self) -> tuple[Any, ...]:
        return self.rows
