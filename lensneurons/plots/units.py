"""Figures and texts about experts say "expert" where those about neurons say "neuron".

What was counted is the same kind of number for all sites, so all figures serve all, and only their
words differ. The functions of this package write "neuron"; the last step of each exchanges the word
where the statistics count something else, such as choices of experts (`Provenance.unit`):

>>> in_unit("Of 1,024 neurons, no neuron is agnostic", "expert")
'Of 1,024 experts, no expert is agnostic'

Names (``L2N10``), and words that only contain it (``my-neurons``, a model's name), stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import plotly.graph_objects as go

from lensneurons.values.provenance import Provenance

P = ParamSpec("P")
_NEURON = re.compile(r"(?<![\w/.-])(?:([Aa]) )?([Nn])euron(s?)(?![\w/-])")


def in_unit(value: Any, unit: str) -> Any:
    """A text, or all texts within tuples, lists, mappings and dataclasses, about another unit.

    Args:
        value: what holds them; figures and numbers in it stay as they are.
        unit: ``"neuron"``, which changes nothing, ``"expert"``, or another of `UNITS`.
    """
    if unit == "neuron":
        return value
    if isinstance(value, str):
        return _NEURON.sub(lambda found: _exchanged(found, unit), value)
    if isinstance(value, Mapping):
        return {k: v if k == "template" else in_unit(v, unit) for k, v in value.items()}
    if isinstance(value, tuple | list):
        found = [in_unit(one, unit) for one in value]
        return found if isinstance(value, list) else tuple(found)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return in_unit(value.tolist(), unit)
    if is_dataclass(value) and not isinstance(value, type):
        given = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return replace(value, **{name: in_unit(one, unit) for name, one in given.items()})
    return value


def _exchanged(found: re.Match[str], unit: str) -> str:
    """``"a neuron"`` becomes ``"an expert"``, ``"Neurons"`` becomes ``"Experts"``."""
    article, letter, plural = found.groups()
    word = unit[0].upper() + unit[1:] if letter == "N" else unit
    an = article and f"{article}n " if unit[0] in "aeM" else article and f"{article} "
    return f"{an or ''}{word}{plural}"


def says_unit(draw: Callable[P, go.Figure]) -> Callable[P, go.Figure]:
    """Decorate a function that draws a figure: the words of it are about what was counted."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> go.Figure:
        figure = draw(*args, **kwargs)
        units = set(_units([*args, *kwargs.values()]))
        if len(units) != 1 or units == {"neuron"}:
            return figure
        return go.Figure(in_unit(figure.to_plotly_json(), units.pop()))

    return drawn


def _units(values: Iterable[Any]) -> Iterable[str]:
    """What the values that a figure is drawn from count."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _units(value.values())
        found = getattr(value, "provenance", ())
        for one in found if isinstance(found, tuple) else (found,):
            if isinstance(one, Provenance):
                yield one.unit
