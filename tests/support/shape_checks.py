"""Checks of annotated shapes and types, in enough calls of every function and not in all.

A check takes a tenth of a millisecond. A comparison calls small functions thousands of times, and
with every call checked it takes 2.3 times as long. So in each test the first `FIRST` calls of a
function are checked, and then one call in `ONE_IN`; most tests call a function less than 20 times,
so with 20 first calls they took half as long again as with 5. A second call is checked because
much is kept after a first. Functions are decorated at their first checked call: those inside other
functions are made again and again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from functools import cache, partial, wraps
from types import CodeType
from typing import Any

import jaxtyping

FIRST = 2
ONE_IN = 25

_every_call = jaxtyping.jaxtyped
_calls: dict[CodeType, int] = {}


def install(modules: Iterable[str]) -> None:
    """Check the functions and dataclasses of these modules, which are not imported yet."""
    jaxtyping.jaxtyped = checked  # what the import hook writes above every function and class
    jaxtyping.install_import_hook(list(modules), "beartype.beartype")


def begin_test() -> None:
    """Count the calls from 0 again."""
    _calls.clear()


def checked(decorated: Any = None, *, typechecker: Callable[..., Any] | None = None) -> Any:
    """Stand in for `jaxtyping.jaxtyped`: decorate a function, property or dataclass."""
    if typechecker is None:  # `jaxtyped("context")`, in the package itself
        return _every_call(decorated)
    again = partial(checked, typechecker=typechecker)
    if decorated is None:
        return again
    if isinstance(decorated, (classmethod, staticmethod)):
        return type(decorated)(again(decorated.__func__))
    if isinstance(decorated, property):
        parts = (decorated.fget, decorated.fset, decorated.fdel)
        return property(*(part and again(part) for part in parts))
    if inspect.isclass(decorated):
        if is_dataclass(decorated) and "__init__" in vars(decorated):
            decorated.__init__ = again(decorated.__init__)
        return decorated

    code = decorated.__code__
    with_check = cache(lambda: _every_call(decorated, typechecker=typechecker))

    @wraps(decorated)
    def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        number = _calls[code] = _calls.get(code, 0) + 1
        if number <= FIRST or number % ONE_IN == 0:
            return with_check()(*args, **kwargs)
        return decorated(*args, **kwargs)

    return called
