"""Ray in one process, whose workers die where a test wants: what the pool does then is its own.

Actors run when they are waited for, one task after the other, in an order drawn from a seed.
Everything that goes to one or comes back is pickled.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """What Ray raises."""


class RayTaskError(RayError):
    """Raised in a task."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class ActorDiedError(RayError):
    """Its process is gone."""


class Dies(BaseException):
    """Raised in a task: its worker is killed."""


class Ref:
    """A task of an actor, or a value that was put."""

    def __init__(self, actor: Actor | None, run: Callable[[], Any]) -> None:
        self.actor, self.run = actor, run
        self.state: tuple[str, Any] | None = None


class Actor:
    """A worker; its tasks run in their order."""

    def __init__(self, owner: FakeRay, make: type) -> None:
        self.owner, self.inside, self.alive = owner, make(), True
        self.tasks: list[Ref] = []
        owner.actors.append(self)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: self._task(name, given))

    def _task(self, name: str, given: tuple[Any, ...]) -> Ref:
        arrived = [
            one.run() if isinstance(one, Ref) else pickle.loads(pickle.dumps(one)) for one in given
        ]
        ref = Ref(self, lambda: getattr(self.inside, name)(*arrived))
        self.tasks.append(ref)
        return ref


class FakeRay:
    """The functions of ``ray`` that the pool calls."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, cpus: int = 4, seed: int = 0) -> None:
        self.cpus, self.random = cpus, random.Random(seed)
        self.actors: list[Actor] = []
        self.running, self.starts = False, 0

    def is_initialized(self) -> bool:
        return self.running

    def init(self, **options: Any) -> None:
        self.running, self.starts, self.options = True, self.starts + 1, options

    def shutdown(self) -> None:
        self.running = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.cpus}

    def put(self, value: Any) -> Ref:
        packed = pickle.dumps(value)
        return Ref(None, lambda: pickle.loads(packed))

    def remote(self, make: type) -> Any:
        made = SimpleNamespace(remote=lambda: Actor(self, make))
        return SimpleNamespace(options=lambda **options: made)

    def kill(self, actor: Actor) -> None:
        actor.alive = False

    def wait(self, refs: list[Ref], num_returns: int) -> tuple[list[Ref], list[Ref]]:
        """Run the next task of an actor that is drawn."""
        assert num_returns == 1
        assert refs
        ref = self.random.choice(refs)
        assert ref.actor is not None
        for task in ref.actor.tasks:
            if task.state is None:
                task.state = self._done(task)
            if task is ref:
                break
        return [ref], [one for one in refs if one is not ref]

    def _done(self, task: Ref) -> tuple[str, Any]:
        actor = task.actor
        assert actor is not None
        if not actor.alive:
            return "died", None
        try:
            return "result", pickle.loads(pickle.dumps(task.run()))
        except Dies:
            actor.alive = False
            return "died", None
        except Exception as error:  # noqa: BLE001 - whatever a task raises
            return "raised", error

    def get(self, ref: Ref) -> Any:
        assert ref.state is not None
        state, value = ref.state
        if state == "died":
            raise ActorDiedError("the actor died because its process was killed")
        if state == "raised":
            raise RayTaskError(value)
        return value
