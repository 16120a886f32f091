"""Options as plain Python values: the door that every number of a caller passes.

A number may come as NumPy's or torch's scalar, a list of texts as a pandas Series, a generator or
an array. `plain_options` turns them into what the function's annotations say before it begins, so
that results can be saved and two calls that mean the same leave the same files. What is no such
thing is refused with the name of the option:

    >>> @plain_options
    ... def count(groups: int = 10, rate: float = 0.5): return groups, rate
    >>> count(np.int64(5), rate=np.float32(0.25))
    (5, 0.25)

An argument that takes a value of this package (its annotation says ``LanguageNeurons``, say) is
refused where something else is given, with the function that makes such a value. So no caller meets
``'str' object has no attribute``.

What it does not do: check limits. Whether 5 groups are few or many is for the function to say.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import numpy as np

from lensneurons.errors import LensNeuronsError, shown

P = ParamSpec("P")
R = TypeVar("R")

TEXTS = ("Sequence[str]", "Iterable[str]")
# What makes the values of the package, by the names of their classes.
MADE_BY = {
    "AblationMatrix": "what ablation_matrix() gives",
    "ActivationStatistics": "what collect() gives",
    "Accuracy": "what accuracy() gives",
    "CarryOver": "what carry_over() gives",
    "Continuations": "what try_without() gives",
    "Claims": "what claims() or model_claims() gives",
    "Comparison": "what compare() gives",
    "Coupling": "what coupling() gives",
    "ComparisonSeries": "what compare_series() gives",
    "LanguageNeurons": "what identify() gives",
    "LayerCoupling": "what layer_coupling() gives",
    "LayerParts": "what divide_layers() gives",
    "LensCurves": "what logit_lens() gives",
    "MethodAgreement": "what importance_agreement() gives",
    "MethodComparison": "what compare_methods() gives",
    "NeuronCard": "what describe() gives",
    "NeuronSet": "a set of neurons, such as neurons['zh']",
    "ParallelCorpus": "what load_corpus() gives",
    "PreparedCorpus": "what prepare() gives",
    "SteeringCurve": "what steering_curve() gives",
    "ndarray": "an array",
}
_ALIASES = {
    "Counted": ("ActivationStatistics", "LanguageNeurons"),
    "LayerProfile": ("ndarray",),
}
# What else an option may be beside a number; such values pass, for the function to judge.
_WORDS = ("str", "Literal")


def plain_options(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that its numbers, truth values and texts come as plain Python values.

    It reads the annotations: ``int``, ``float``, ``bool``, ``Sequence[str]`` and ``Iterable[str]``,
    each alone or beside None, ``str`` or ``Literal``; and the classes in `MADE_BY`, alone, beside
    each other or None. Other arguments pass as they are.

    The decorated function raises a LensNeuronsError that names the option where a number is text, a
    truth value, NaN, infinite, or, where a whole number is wanted, not whole; where one of some
    texts is no text; and where a value of the package is something else.
    """
    signature = inspect.signature(function)
    readers = {
        name: reader
        for name, parameter in signature.parameters.items()
        if (reader := _reader(name, str(parameter.annotation))) is not None
    }

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # which says what is missing, as Python does
        for name, reader in readers.items():
            if name in given.arguments:
                given.arguments[name] = reader(given.arguments[name])
        return function(*given.args, **given.kwargs)

    return called


def whole_number(value: Any, what: str) -> int:
    """Return a whole number as Python's int; `what` is the name of the option.

    Raises:
        LensNeuronsError: it is no whole number, which a truth value is not either.
    """
    value = _scalar(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise LensNeuronsError(f"{what}={shown(value)} is not a whole number; give one such as 10")
    return value if type(value) is int else int(value)


def finite_number(value: Any, what: str) -> float:
    """Return a number as Python's, if it is finite; `what` is the name of the option.

    Raises:
        LensNeuronsError: it is no number, NaN or infinite.
    """
    value = _scalar(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise LensNeuronsError(f"{what}={shown(value)} is not a number; give one such as 0.5")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number above 1.8e308
        finite = False
    if not finite:
        raise LensNeuronsError(f"{what}={shown(value)} is not a finite number; give one that is")
    return float(value)


def each_number(what: str, given: Any) -> tuple[float, ...]:
    """One number or several, each finite and once; `what` is the name of the option.

    Raises:
        LensNeuronsError: none, no numbers, one twice, NaN or infinite.
    """
    several = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)
    listed = [*given] if several else [given]
    found = tuple(finite_number(one, what) for one in listed)
    if not found or len(set(found)) < len(found):
        raise LensNeuronsError(f"{what}={shown(given)}: give one number or several, each once")
    return found


def truth_value(value: Any, what: str) -> bool:
    """Return True or False as Python's; `what` is the name of the option.

    Raises:
        LensNeuronsError: it is neither.
    """
    value = _scalar(value)
    if not isinstance(value, bool | np.bool_):
        raise LensNeuronsError(f"{what}={shown(value)} is neither True nor False")
    return bool(value)


def plain_texts(values: Any, what: str) -> Any:
    """Return texts as a list of Python's str; a single text passes as it is.

    Args:
        values: a list, tuple, generator, array or pandas Series of texts.
        what: the name of the option.

    Raises:
        LensNeuronsError: it is nothing of that kind, or holds something that is no text.
    """
    if isinstance(values, str):
        return str(values)
    if isinstance(values, Mapping | bytes) or not isinstance(values, Iterable):
        raise LensNeuronsError(f"{what}={shown(values)} is no list of texts; give a list")
    listed = list(values) if getattr(values, "shape", (1,)) != () else [values]
    for place, value in enumerate(listed):
        if not isinstance(value, str):
            raise LensNeuronsError(f"{what}[{place}]={shown(value)} is not text; give texts alone")
    return (
        values if type(values) in (list, tuple) and _are_plain(values) else list(map(str, listed))
    )


def _value_of(value: Any, name: str, wanted: Iterable[str], *, optional: bool) -> Any:
    """The value, if it is of one of the wanted classes, by name, or None where that may be."""
    if value is None and optional:
        return value
    if any(one.__name__ in wanted for one in type(value).__mro__):
        return value
    told = ", or ".join(MADE_BY[kind] for kind in wanted)
    raise LensNeuronsError(f"{name}={shown(value)}: give {told}")


def _are_plain(values: Iterable[object]) -> bool:
    return all(type(value) is str for value in values)


def _scalar(value: Any) -> Any:
    """The one number of a NumPy or torch scalar; anything else as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _reader(name: str, annotation: str) -> Callable[[Any], Any] | None:
    """What turns an argument into a plain value, or None where nothing is to be done."""
    kinds = [part.strip() for part in annotation.split("|")]
    kinds = [one for kind in kinds for one in _ALIASES.get(kind, (kind,))]
    wanted = [kind for kind in kinds if kind != "None"]
    if wanted and all(kind in MADE_BY for kind in wanted):
        return lambda value: _value_of(value, name, wanted, optional="None" in kinds)
    reads = (
        (whole_number, ("int",)),
        (finite_number, ("float",)),
        (truth_value, ("bool",)),
        (plain_texts, TEXTS),
    )
    read = next((read for read, names in reads if any(one in names for one in kinds)), None)
    if read is None:
        return None
    words = any(kind.startswith(_WORDS) for kind in kinds)

    def reader(value: Any) -> Any:
        if (value is None and "None" in kinds) or (words and isinstance(value, str)):
            return value
        return read(value, name)

    return reader
