"""Running a model: one thread at a time, in evaluation mode, in the numbers of its own dtype.

In training mode dropout makes every number a draw; within an autocast region the numbers are those
of another dtype than the provenance says; and another thread's hooks, or those of another asyncio
task, act on whoever runs the model. `runs_model` keeps the three away from every function that runs
one, and `reserved` keeps a model for whoever has edits on it. A model that was cast after loading
(``model.half()``) has its rotary frequencies rounded too, which moves every position: it is
refused. `require_finite` refuses what half precision overflows into: NaN is not above 0, so an
overflowing neuron would count as silent.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from lensneurons.errors import ModelError
from lensneurons.models.family import all_modules, input_device
from lensneurons.models.identity import once, one_call

P = ParamSpec("P")
R = TypeVar("R")


def runs_model(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that runs the model it gets as its first argument.

    While it runs, the model is in evaluation mode, autocast is off, new tensors are made on the
    CPU, and other threads are refused; afterwards everything is as it was.

    The function raises a ModelError where the rotary frequencies are in half precision.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        if not isinstance(model, torch.nn.Module):  # refused by the function, in its own words
            return function(*args, **kwargs)
        device = input_device(model).type
        _require_exact_positions(model)
        with (
            reserved(model),
            one_call(),
            _evaluating(model),
            torch.autocast(device, enabled=False),
            _tensors_on_cpu(),
        ):
            return function(*args, **kwargs)

    return run


def require_finite(values: torch.Tensor, what: str) -> None:
    """Raise if numbers that a model computed are not finite.

    Args:
        values: any shape. One sum is made first, so that the check costs one pass; a sum that
            overflows is looked at again.
        what: names them in the message.

    Raises:
        ModelError: there are infinite values or NaN; says how many, and what to do.
    """
    values = values.detach()
    if math.isfinite(float(_sum(values))):
        return
    finite = torch.isfinite(values)
    if finite.all():
        return
    share = 1 - float(finite.double().mean())
    raise ModelError(
        f"{share:.2%} of {what} are infinite or not a number: half precision overflows, so load "
        "the model with dtype='bfloat16' or 'float32'; in float32 its weights are damaged"
    )


def _sum(values: torch.Tensor) -> torch.Tensor:
    # A sum in another dtype than float32's own copies every number.
    half = values.dtype in (torch.float16, torch.bfloat16)
    return values.sum(dtype=torch.float32 if half else None)


def reading_waits(values: torch.Tensor) -> bool:
    """Whether reading a number of a tensor waits for a device, as on a GPU."""
    return values.device.type != "cpu"


class FiniteCheck:
    """`require_finite` for all layers of a forward pass, which waits for a GPU once a pass.

    On a CPU each layer is looked at as it passes. Elsewhere one sum of each stays on its device,
    and all are read after the pass. Where one is not finite, the pass is run again, and each layer
    is looked at as it passes, so that the error is the same.

    Attributes:
        repeats: whether this is such a pass, in which nobody else should see a layer.
    """

    def __init__(self) -> None:
        self.repeats = False
        self._sums: dict[torch.device, list[torch.Tensor]] = {}

    def __call__(self, values: torch.Tensor, what: str) -> None:
        """Look at numbers that a layer computed, now or later.

        Raises:
            ModelError: as `require_finite`.
        """
        if self.repeats or not reading_waits(values):
            require_finite(values, what)
        else:
            self._sums.setdefault(values.device, []).append(_sum(values.detach()).float())

    def after(self, run: Callable[..., None]) -> Callable[..., None]:
        """A function that runs one batch, and then looks at what was kept."""

        def checked(*batch: Any) -> None:
            self._sums = {}
            run(*batch)
            sums, self._sums = self._sums, {}
            if all(bool(torch.stack(own).isfinite().all()) for own in sums.values()):
                return
            self.repeats = True
            try:
                run(*batch)
            finally:
                self.repeats = False

        return checked


@contextmanager
def reserved(model: Any) -> Iterator[None]:
    """Keep a model for this thread, and within it for this asyncio task, while the block runs.

    The block may end elsewhere than it began, as that of a forgotten generator does.

    Raises:
        ModelError: another thread or task runs the model, or has edits on it.
    """
    here = threading.current_thread(), _task()
    with _GUARD:
        holders = once(model, "holders", None, list[Holder])
        if any(_is_elsewhere(holder, here) for holder in holders):
            raise ModelError(
                "another thread runs this model or has edits on it, and either would change the "
                "other's numbers: load a model for each thread, or wait for the other to end "
                "(the same holds for tasks of asyncio)"
            )
        holders.append(here)
    try:
        yield
    finally:
        with _GUARD:
            holders.remove(here)


Holder = tuple[threading.Thread, Any]  # a thread, and its asyncio task or None
_GUARD = threading.RLock()  # reentrant: a collected generator may end a block at any moment


def _task() -> Any:
    """The asyncio task that runs in this thread, or None."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop
        return None


def _is_elsewhere(holder: Holder, here: Holder) -> bool:
    """Whether a holder is another thread, or a task of this one that waits in its block.

    A task that is over left its block open: notebooks may run each cell in a task of its own.
    """
    (thread, task), (this_thread, this_task) = holder, here
    waits = task is not None and task is not this_task and not task.done()
    return thread is not this_thread or waits


def _require_exact_positions(model: Any) -> None:
    """Raise if the rotary frequencies, which Hugging Face keeps in float32, were cast with it."""
    for module in all_modules(getattr(model, "original_model", model)):
        for name, buffer in module._buffers.items():
            if not name.endswith("inv_freq") or buffer is None:
                continue
            if buffer.dtype not in (torch.float16, torch.bfloat16):
                continue
            dtype = str(buffer.dtype).removeprefix("torch.")
            raise ModelError(
                f"the model was cast to {dtype} after it was loaded, which rounds its rotary "
                f"frequencies ({name}), so positions are wrong: load_model(..., dtype={dtype!r})"
            )


def _tensors_on_cpu() -> AbstractContextManager[Any]:
    """Make new tensors on the CPU, from where they move to the model, whatever default is set."""
    usual = torch.get_default_device().type == "cpu"  # the context itself costs time at every call
    return nullcontext() if usual else torch.device("cpu")


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put the modules of a model that are in training mode into evaluation mode meanwhile."""
    parts = all_modules(model, getattr(model, "original_model", model))
    training = [module for module in parts if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
