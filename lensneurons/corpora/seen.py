"""Which items of a stream were read before, in 8 bytes each.

A set of Python's takes about 100 bytes an item; sorted arrays of 64-bit hashes take 8, and up to
twice that for a moment while two of them are joined. Each array is at least twice as long as the
next, so there are few of them, and an item is joined a few times in all.

What this does not prove: that two items with one hash are the same. Among n items there is such a
pair by chance with probability ``n^2 / 2^65`` (0.3 % for 330 million), so whoever asks has to
compare the items themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash
from jaxtyping import Bool, UInt64

Keys = UInt64[np.ndarray, " item"]


def item_keys(items: Iterable[tuple[str, str]]) -> Keys:
    """A hash of each (id, language): xxh3 of 64 bits; neither holds a NUL."""
    hashes = (xxhash.xxh3_64_intdigest(f"{language}\0{name}".encode()) for name, language in items)
    return np.array(list(hashes), dtype=np.uint64)


class SeenKeys:
    """The keys that were added so far."""

    def __init__(self) -> None:
        self.runs: list[Keys] = []  # each sorted, and at least twice as long as the next

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def known(self, keys: Keys) -> Bool[np.ndarray, " item"]:
        """Whether each key was added before."""
        found = np.zeros(len(keys), dtype=np.bool_)
        for run in self.runs:
            places = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            found |= run[places] == keys
        return found

    def add(self, keys: Keys) -> None:
        """Add keys."""
        if len(keys):
            self.runs.append(np.sort(keys))
        while len(self.runs) > 1 and len(self.runs[-2]) < 2 * len(self.runs[-1]):
            self.runs[-2:] = [np.sort(np.concatenate(self.runs[-2:]), kind="stable")]
