"""Workers of Ray that do shards: the one file that imports Ray.

    with pool(engine, model) as hands:
        for place, result in hands.run(work, names, payload): ...

Work is an object that travels: ``work.on(model)`` is called once in a worker, and gives the
function that turns the payload of a shard into its result. A worker does one shard at a time.
Results come in the order in which they are done; which shard one is of, its place says.

A worker that dies (killed, out of memory, its machine gone) is replaced, and its shard is done
again, at most `RayEngine.attempts` times. Ray's own retries are off: what counts once is decided
here, by the place of the shard.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import torch

from lensneurons.engines.choice import Engine, RayEngine, ray_engine
from lensneurons.errors import LensNeuronsError
from lensneurons.models.identity import first_sentence
from lensneurons.models.replicas import (
    build_model,
    last_logits,
    pack_model,
    require_no_hooks,
    require_replica,
    traits_of,
)
from lensneurons.models.running import runs_model

STARTS = 3  # attempts to start Ray; a busy machine needs longer than it waits
# Read by Ray when it starts. Its own niceness of workers is 15: they would stand back behind
# everything else on the machine.
ENVIRONMENT = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


_OF_RAY = re.compile(r"[\\/]ray[\\/]")  # the folder of its programs

# One entry while a `ray_started` block runs: its pool, or an empty list.
_BLOCKS: list[list[Pool]] = []


@runtime_checkable
class Work(Protocol):
    """What a worker does; travels there."""

    def on(self, model: Any) -> Callable[[Any], Any]:
        """Prepare for a model, and return the function from a payload to a result."""
        ...


def _import_ray() -> Any:
    """The module ``ray``, with its environment."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return import_module("ray")


def engine_for(engine: Engine, model: Any) -> RayEngine | None:
    """The workers that a job gets, or None where this process does it; nothing is started yet.

    Raises:
        LensNeuronsError: no such engine, or Ray is not installed.
        ModelError: there are workers, and hooks on the model.
    """
    chosen = ray_engine(engine)
    if chosen is not None:
        require_no_hooks(model)
        if find_spec("ray") is None:
            raise LensNeuronsError("engine='ray' needs Ray: pip install 'lensneurons[ray]'")
    return chosen


@contextmanager
def ray_started(engine: RayEngine | None) -> Iterator[None]:
    """Have Ray running in the block: the Ray that runs already, or one that ends with the block.

    Within the block calls for one model share their workers, which end with it. Nothing is started
    for the local engine, None.

    Raises:
        LensNeuronsError: Ray does not start, or has less room than the workers need.
    """
    if engine is None or _BLOCKS:
        yield
        return
    ray = _import_ray()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, engine)
    _BLOCKS.append([])
    try:
        yield
    finally:
        for hands in _BLOCKS.pop():
            hands.close()
        if ours:
            ray.shutdown()


def _start(ray: Any, engine: RayEngine) -> None:
    """Connect to the cluster, or start Ray on this machine; a busy one gets several attempts."""
    here = engine.address is None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if here:
        options["include_dashboard"] = False
        options["num_cpus"] = max(os.cpu_count() or 1, engine.workers * engine.cpus)
    for left in reversed(range(STARTS if here else 1)):
        before = _processes_of_ray()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Ray's own next versions
                ray.init(address="local" if here else engine.address, **options)
            return
        except Exception as error:  # whatever its processes end in
            with suppress(Exception):
                ray.shutdown()
            for process in _processes_of_ray() - before:  # Ray forgets those of such an attempt
                with suppress(Exception):
                    process.kill()
            if left == 0:
                where = "on this machine" if here else f"at address={engine.address!r}"
                raise LensNeuronsError(
                    f"Ray did not start {where}: {first_sentence(error)}; its logs are in "
                    "/tmp/ray/session_latest/logs. A machine that is very busy is too slow for it"
                ) from error


def _processes_of_ray() -> set[Any]:
    """Ray's own processes among those that this one has begun."""
    psutil = import_module("psutil")  # comes with Ray
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if any(part.startswith("ray::") or _OF_RAY.search(part) for part in process.cmdline()):
                found.add(process)
    return found


def _require_room(ray: Any, engine: RayEngine) -> None:
    """Raise where the workers would wait for ever for processors or GPUs that are not there.

    Raises:
        LensNeuronsError: says what there is.
    """
    there = ray.cluster_resources()
    for name, each in (("CPU", engine.cpus), ("GPU", engine.gpus)):
        wanted, held = engine.workers * each, there.get(name, 0)
        if wanted > held:
            raise LensNeuronsError(
                f"workers={engine.workers} with {each:g} {name} each need {wanted:g}, and Ray has "
                f"{held:g}: give fewer workers, or start Ray with more"
            )


class _Worker:
    """The process of a worker: its model, and what it does with it. Becomes an actor of Ray."""

    def begin(self, replica: Any, work: Any) -> int:
        """Make the model if there is none yet, and prepare for the work; returns the process id."""
        if replica is not None:
            packed, load, traits, logits, threads, device = replica
            torch.set_num_threads(threads)
            self.model = load() if load is not None else build_model(packed, device)
            runs_model(require_replica)(self.model, traits, logits)
        self.work = runs_model(lambda model: work.on(model))(self.model)
        return os.getpid()

    def run(self, payload: Any) -> Any:
        """Do one shard."""
        return runs_model(lambda model: self.work(payload))(self.model)


@contextmanager
def pool(engine: RayEngine, model: Any) -> Iterator[Pool]:
    """Have workers with replicas of a model; those of an earlier call that are of the same.

    Raises:
        LensNeuronsError: as `ray_started`.
        ModelError: the model cannot be sent (`pack_model`).
    """
    ray = _import_ray()
    with ray_started(engine):
        _require_room(ray, engine)
        kept, traits = _BLOCKS[-1], traits_of(model)
        if not (kept and kept[0].serves(engine, traits)):
            for old in kept:
                old.close()
            packed = pack_model(model) if engine.load is None else None
            kept[:] = [Pool(ray, engine, packed, traits, last_logits(model))]
        hands = kept[0]
        hands.engine = engine
        try:
            yield hands
        except BaseException:
            hands.close()  # they may be busy with what nobody waits for
            raise


class Pool:
    """Workers that do shards. Made by `pool`."""

    def __init__(
        self, ray: Any, engine: RayEngine, packed: Any, traits: Mapping[str, str], logits: Any
    ) -> None:
        self.ray, self.engine, self.traits = ray, engine, traits
        device = "cuda" if engine.gpus else "cpu"
        try:
            self.replica = ray.put((packed, engine.load, traits, logits, engine.cpus, device))
        except Exception as error:  # the store is full, or load= cannot be pickled
            raise LensNeuronsError(
                f"the model cannot be sent to workers: {first_sentence(error)}; give a load= that "
                "can be pickled and makes the model in the worker"
            ) from error
        self.make = ray.remote(_Worker).options(
            num_cpus=engine.cpus,
            num_gpus=engine.gpus,
            max_restarts=0,
            max_task_retries=0,
        )
        self.actors: list[Any] = []
        self.lost = 0  # workers that died while they were made

    def serves(self, engine: RayEngine, traits: Mapping[str, str]) -> bool:
        """Whether these workers are what an engine asks for a model with these traits."""
        free = {"workers": 1, "shard_batches": 1, "attempts": 1}  # may differ between calls
        return traits == self.traits and replace(engine, **free) == replace(self.engine, **free)

    def close(self) -> None:
        """End the workers."""
        for actor in self.actors:
            with suppress(Exception):
                self.ray.kill(actor)
        self.actors = []

    def run(
        self, work: Work, names: Sequence[str], payload: Callable[[int], Any]
    ) -> Iterator[tuple[int, Any]]:
        """Do shards, and yield the place and the result of each as soon as it is done.

        Args:
            work: what is done.
            names: of the shards, for errors.
            payload: what the worker gets of a shard, by its place; called when it is its turn.

        Raises:
            LensNeuronsError: a worker raised it, or died too often; names the shard and the cause.
        """
        ray, self.lost = self.ray, 0
        ahead = 4 * self.engine.workers  # shards that may be done before the oldest one is
        waiting, done = deque(range(len(names))), bytearray(len(names))
        oldest, tried = 0, Counter[int]()
        work_there = ray.put(work)
        beginning: dict[Any, Any] = {}
        running: dict[Any, tuple[Any, int]] = {}
        idle: deque[Any] = deque()
        for actor in self.actors[: self.engine.workers]:
            beginning[actor.begin.remote(None, work_there)] = actor
        for _ in range(min(self.engine.workers, len(names)) - len(self.actors)):
            self._begin_worker(beginning, work_there)
        while oldest < len(names):
            while idle and waiting and waiting[0] < oldest + ahead:
                actor, place = idle.popleft(), waiting.popleft()
                running[actor.run.remote(payload(place))] = actor, place
            (ready,), _ = ray.wait([*running, *beginning], num_returns=1)
            begun = ready in beginning
            actor, place = (beginning.pop(ready), None) if begun else running.pop(ready)
            what = "make its model" if place is None else f"do {names[place]}"
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:  # raised there, and would be again
                cause = getattr(error, "cause", None) or error
                if isinstance(cause, LensNeuronsError):
                    raise cause from error
                raise LensNeuronsError(
                    f"a worker could not {what}: {type(cause).__name__}: {first_sentence(cause)}"
                ) from error
            except ray.exceptions.RayError as error:  # the worker is gone
                self._give_up(actor, place, tried, what, error)
                if place is not None:
                    waiting.appendleft(place)
                self._begin_worker(beginning, work_there)
                continue
            idle.append(actor)
            if place is not None:
                done[place] = 1
                while oldest < len(names) and done[oldest]:
                    oldest += 1
                yield place, result

    def _begin_worker(self, beginning: dict[Any, Any], work: Any) -> None:
        actor = self.make.remote()
        self.actors.append(actor)
        beginning[actor.begin.remote(self.replica, work)] = actor

    def _give_up(
        self, actor: Any, place: int | None, tried: Counter[int], what: str, error: Exception
    ) -> None:
        """Forget a worker that died; raise where the same has happened too often.

        Raises:
            LensNeuronsError: names the shard and the cause.
        """
        self.actors = [one for one in self.actors if one is not actor]
        with suppress(Exception):
            self.ray.kill(actor)
        if place is None:
            self.lost += 1
            times = self.lost
        else:
            tried[place] += 1
            times = tried[place]
        if times >= self.engine.attempts:
            raise LensNeuronsError(
                f"no worker could {what}: {times} died of it ({type(error).__name__}: "
                f"{first_sentence(error)}). Often it is memory: give fewer workers, or a smaller "
                "batch_tokens"
            ) from error
