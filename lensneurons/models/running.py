"""Running a model: one thread at a time, in evaluation mode, in the numbers of its own dtype.

In training mode dropout makes every number a draw; within an autocast region the numbers are those
of another dtype than the provenance says; and another thread's hooks act on whoever runs the model.
`runs_model` keeps the three away from every function that runs one, and `reserved` keeps a model
for the thread that has edits on it. `require_finite` refuses what half precision overflows into:
NaN is not above 0, so an overflowing neuron would count as silent.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from lensneurons.errors import ModelError
from lensneurons.models.family import input_device
from lensneurons.models.identity import once

P = ParamSpec("P")
R = TypeVar("R")


def runs_model(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that runs the model it gets as its first argument.

    While it runs, the model is in evaluation mode, autocast is off, and other threads are refused;
    afterwards everything is as it was.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        if not isinstance(model, torch.nn.Module):  # refused by the function, in its own words
            return function(*args, **kwargs)
        device = input_device(model).type
        with reserved(model), _evaluating(model), torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return run


def require_finite(values: torch.Tensor, what: str) -> None:
    """Raise if numbers that a model computed are not finite.

    Args:
        values: any shape. One sum is made first, so that the check costs one pass.
        what: names them in the message.

    Raises:
        ModelError: there are infinite values or NaN; says how many, and what to do.
    """
    if math.isfinite(float(values.detach().sum(dtype=torch.float64))):
        return
    finite = torch.isfinite(values)
    if finite.all():
        return
    share = 1 - float(finite.double().mean())
    raise ModelError(
        f"{share:.2%} of {what} are infinite or not a number: half precision overflows, so load "
        "the model with dtype='bfloat16' or 'float32'; in float32 its weights are damaged"
    )


@contextmanager
def reserved(model: Any) -> Iterator[None]:
    """Keep a model for this thread while the block runs.

    Raises:
        ModelError: another thread runs the model, or has edits on it.
    """
    lock = once(model, "lock", None, threading.RLock)
    if not lock.acquire(blocking=False):
        raise ModelError(
            "another thread runs this model or has edits on it, and either would change the "
            "other's numbers: load a model for each thread, or wait for the other to end"
        )
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put the modules of a model that are in training mode into evaluation mode meanwhile."""
    parts = [*model.modules(), *getattr(model, "original_model", model).modules()]
    training = [module for module in parts if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
