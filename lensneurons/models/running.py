"""Running a model: one thread at a time, in evaluation mode, in the numbers of its own dtype.

In training mode dropout makes every number a draw; within an autocast region the numbers are those
of another dtype than the provenance says; and another thread's hooks act on whoever runs the model.
`runs_model` keeps the three away from every function that runs one, and `reserved` keeps a model
for the thread that has edits on it.
"""

from __future__ import annotations

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
