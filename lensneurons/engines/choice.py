"""Which engine does a job, and with what. Knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lensneurons.errors import LensNeuronsError, choose, shown
from lensneurons.options import finite_number, whole_number

EngineName = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Workers of Ray, each with a replica of the model.

    Attributes:
        workers: how many.
        address: of a cluster, such as ``"auto"`` on one of its nodes; None starts Ray on this
            machine and ends it afterwards. A Ray that this process has begun is used as it is.
        cpus: processors of a worker, and its threads of torch.
        gpus: of a worker; a share such as 0.5 puts two workers on one. With 0 it computes on the
            processor.
        shard_batches: most batches in a shard of `collect`. A shard that comes back holds 16 bytes
            a batch and neuron.
        attempts: how often a shard is given to a worker that dies before the job ends.
        load: makes the model in the worker, in place of sending the one that was given. It is
            called without arguments, in an environment that sees the GPUs of the worker.

    Raises:
        LensNeuronsError: a number out of its range, or a `load` that cannot be called.
    """

    workers: int = 2
    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    shard_batches: int = 8
    attempts: int = 3
    load: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "cpus", "shard_batches", "attempts"):
            number = whole_number(getattr(self, name), name)
            if number < 1:
                raise LensNeuronsError(f"{name}={number}: give 1 or more")
            object.__setattr__(self, name, number)
        gpus = finite_number(self.gpus, "gpus")
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise LensNeuronsError(
                f"gpus={gpus:g}: give a share of one, such as 0.5, or a whole number of them"
            )
        object.__setattr__(self, "gpus", gpus)
        if self.address is not None and not (isinstance(self.address, str) and self.address):
            raise LensNeuronsError(
                f"address={shown(self.address)}: give 'auto', or such as 'ray://host:10001'"
            )
        if self.load is not None and not callable(self.load):
            raise LensNeuronsError(
                f"load={shown(self.load)} cannot be called: give a function without arguments that "
                "returns the model"
            )


Engine = EngineName | RayEngine


def ray_engine(engine: Engine) -> RayEngine | None:
    """The engine with its options, or None where this process does the work.

    Raises:
        LensNeuronsError: no such engine.
    """
    if isinstance(engine, RayEngine):
        return engine
    return RayEngine() if choose(engine, get_args(EngineName), "engine") == "ray" else None
