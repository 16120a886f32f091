"""Workers without processes: shards done in any order by a replica, everything pickled on its way.

Stands in for `lensneurons.engines.pool.pool`, so that what the driver does with shards is tested
where Ray is not installed, and with orders that no cluster would give twice.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from lensneurons.models.replicas import (
    build_model,
    last_logits,
    pack_model,
    require_replica,
    traits_of,
)
from lensneurons.models.running import runs_model

MODULES = (
    "lensneurons.activations.shards", "lensneurons.activations.streaming",
    "lensneurons.experiments.cells", "lensneurons.evaluation.written_blocks",
)  # fmt: skip
_REPLICAS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


class Stopped(Exception):
    """The driver dies."""


def replica_of(model: Any) -> Any:
    """A proved replica of a model, made once."""
    if model not in _REPLICAS:
        built = build_model(travelled(pack_model(model)), "cpu")
        require_replica(built, traits_of(model), last_logits(model))
        _REPLICAS[model] = built
    return _REPLICAS[model]


def travelled(value: Any) -> Any:
    """What arrives of a value in another process."""
    return pickle.loads(pickle.dumps(value))


class ShuffledPool:
    """Does shards in an order of its own; `did` holds the names of those that were done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> None:
        self.random, self.did, self.stop_after = random.Random(seed), list[str](), 10**9

        @contextmanager
        def pool(engine: Any, model: Any) -> Iterator[Any]:
            self.model = replica_of(model)
            yield self

        for module in MODULES:
            monkeypatch.setattr(f"{module}.pool", pool)
            monkeypatch.setattr("lensneurons.engines.pool.find_spec", lambda name: True)

    def run(
        self, work: Any, names: Sequence[str], payload: Callable[[int], Any]
    ) -> Iterator[tuple[int, Any]]:
        """See `Pool.run`; raises `Stopped` after `stop_after` shards."""
        work = travelled(work)
        do = runs_model(lambda model: work.on(model))(self.model)
        for place in self.random.sample(range(len(names)), len(names)):
            if len(self.did) >= self.stop_after:
                raise Stopped
            given = travelled(payload(place))
            result = runs_model(lambda model, given=given: do(given))(self.model)
            self.did.append(names[place])
            yield place, travelled(result)
