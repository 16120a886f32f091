"""What the pool does with workers: each shard once, again where one dies, and never for ever."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from fake_ray import Dies, FakeRay, Ref

from lensneurons.engines import RayEngine
from lensneurons.engines import pool as pools
from lensneurons.engines.pool import pool, ray_started
from lensneurons.errors import CorpusError, LensNeuronsError

DONE = Counter[int]()


@dataclass(frozen=True)
class Doubling:
    """Doubles a number; dies at some as often as `deaths` says, and raises at -1 and -2."""

    deaths: tuple[tuple[int, int], ...] = ()

    def on(self, model: Any) -> Callable[[int], int]:
        def double(number: int) -> int:
            DONE[number] += 1
            if DONE[number] <= dict(self.deaths).get(number, 0):
                raise Dies
            if number == -1:
                raise CorpusError("a text cannot be read")
            if number == -2:
                raise ZeroDivisionError("division by zero")
            return 2 * number

        return double


@pytest.fixture
def fake(monkeypatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setattr(pools, "_import_ray", lambda: ray)
    DONE.clear()
    return ray


def doubled(engine: RayEngine, model: Any, numbers: list[int], work: Doubling | None = None):
    names = [f"number {one}" for one in numbers]
    with pool(engine, model) as hands:
        return list(hands.run(work or Doubling(), names, numbers.__getitem__))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_shard_comes_back_once(workers, fake, llama):
    found = doubled(RayEngine(workers=workers), llama, [*range(20)])
    assert sorted(found) == [(n, 2 * n) for n in range(20)]
    assert len(fake.actors) == workers
    assert not any(actor.alive for actor in fake.actors)
    assert (fake.running, fake.starts) == (False, 1)
    assert fake.options["address"] == "local"
    assert fake.options["include_dashboard"] is False


def test_a_shard_whose_worker_dies_is_done_again(fake, llama):
    found = doubled(RayEngine(), llama, [*range(9)], Doubling(((3, 2), (7, 1))))
    assert sorted(found) == [(n, 2 * n) for n in range(9)]
    assert len(fake.actors) == 2 + 3
    assert (DONE[3], DONE[7], DONE[5]) == (3, 2, 1)


def test_a_shard_that_always_kills_is_named(fake, llama):
    told = r"no worker could do number 3: 3 died of it \(ActorDiedError: the actor died because"
    with pytest.raises(LensNeuronsError, match=told):
        doubled(RayEngine(workers=1), llama, [*range(9)], Doubling(((3, 10**6),)))
    assert DONE[3] == 3
    assert not fake.running


def test_workers_that_die_while_they_are_made_are_not_made_for_ever(fake, llama, monkeypatch):
    def dying() -> Any:
        raise Dies

    told = "no worker could make its model: 2 died of it"
    # Arrives as it is: a function of a test cannot be pickled.
    monkeypatch.setattr(fake, "put", lambda value: Ref(None, lambda: value))
    with pytest.raises(LensNeuronsError, match=told):
        doubled(RayEngine(workers=1, attempts=2, load=dying), llama, [1])


def test_errors_of_a_shard_are_raised_here_and_not_tried_again(fake, llama):
    with pytest.raises(CorpusError, match="a text cannot be read"):
        doubled(RayEngine(), llama, [1, -1, 2])
    with pytest.raises(LensNeuronsError, match="could not do number -2: ZeroDivisionError: div"):
        doubled(RayEngine(), llama, [1, -2])
    assert DONE[-1] == DONE[-2] == 1


def test_no_shard_runs_far_ahead_of_the_oldest(fake, llama):
    far, oldest = [], set(range(40))
    with pool(RayEngine(workers=2), llama) as hands:

        def payload(place: int) -> int:
            far.append(place - min(oldest))
            return place

        for place, _ in hands.run(Doubling(), [str(n) for n in range(40)], payload):
            oldest.discard(place)
    assert 2 <= max(far) <= 8


def test_calls_in_a_block_share_workers_of_one_model(fake, llama, own):
    engine = RayEngine(workers=2)
    with ray_started(engine):
        doubled(engine, llama, [1, 2, 3])
        doubled(RayEngine(workers=1, shard_batches=3), llama, [4, 5])
        doubled(RayEngine(workers=3), llama, [6, 7, 8])
        assert [actor.alive for actor in fake.actors] == [True] * 3
        with torch.no_grad():
            next(iter(own.original_model.parameters())).mul_(1.5)
        doubled(engine, own, [9, 10])  # another model has workers of its own
        assert [actor.alive for actor in fake.actors] == [False] * 3 + [True] * 2
        assert fake.starts == 1
    assert not any(actor.alive for actor in fake.actors)
    assert not fake.running


def test_a_ray_that_runs_is_used_and_goes_on(fake, llama):
    fake.running = True
    doubled(RayEngine(), llama, [1, 2])
    assert (fake.running, fake.starts) == (True, 0)


def test_room_is_looked_at_before_anybody_waits(fake, llama):
    with pytest.raises(LensNeuronsError, match=r"5 with 1 CPU each need 5, and Ray has 4"):
        doubled(RayEngine(workers=5), llama, [1])
    with pytest.raises(LensNeuronsError, match=r"2 with 0.5 GPU each need 1, and Ray has 0"):
        doubled(RayEngine(gpus=0.5), llama, [1])
    assert not fake.running


def test_a_ray_that_does_not_start_is_tried_three_times(fake, llama, monkeypatch):
    tries = []

    def init(**options: Any) -> None:
        tries.append(options["address"])
        if len(tries) < 3:
            raise RuntimeError("the node timed out")

    monkeypatch.setattr(fake, "init", init)
    doubled(RayEngine(), llama, [1])
    assert tries == ["local"] * 3
    tries.clear()
    with pytest.raises(LensNeuronsError, match=r"at address='ray://a:1': the node timed out"):
        doubled(RayEngine(address="ray://a:1"), llama, [1])
    assert tries == ["ray://a:1"]


def test_a_start_that_fails_leaves_no_process(fake, llama, monkeypatch):
    """Ray itself forgets what it had begun; other processes of this one go on."""
    waiting = [sys.executable, "-c", "import time; time.sleep(60)"]
    other = subprocess.Popen([*waiting, "array/of/x"])
    left = []

    def init(**options: Any) -> None:
        left.append(subprocess.Popen([*waiting, "/site/ray/core/gcs_server"]))
        raise RuntimeError("the node timed out")

    monkeypatch.setattr(fake, "init", init)
    try:
        with pytest.raises(LensNeuronsError, match="on this machine: the node timed out"):
            doubled(RayEngine(), llama, [1])
        assert len(left) == 3
        assert all(process.wait(10) < 0 for process in left)
        assert other.poll() is None
    finally:
        for process in (other, *left):
            process.kill()
            process.wait()
