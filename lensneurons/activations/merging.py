"""Many statistics become one: the shards of a corpus, or what several workers have counted.

    total[g, l, j, k] = sum over the parts of counts[g, l, j, k]

`ActivationStatistics.merge` adds two in memory. Here any number is added up a layer at a time, from
files that are mapped into memory to a file that is written in place. So memory holds one layer,
whatever the number and the size of the parts:

>>> total = merge_statistics(["a.safetensors", "b.safetensors"], file="all.safetensors")
... # doctest: +SKIP

Parts can be added in any tree, such as ten by ten on each machine and then the sums: counts are
integers, so every tree gives the same bits. The sums of activations beside them are float64, added
in the order of the parts; another order may change their last digits.

What this does not find: two parts that read the same texts under different fingerprints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.activations.statistics import ARRAYS, ActivationStatistics
from lensneurons.errors import LensNeuronsError, ProvenanceError, shown
from lensneurons.values.base import read_only
from lensneurons.values.filling import filling_arrays
from lensneurons.values.mapping import let_go
from lensneurons.values.provenance import Provenance


def merge_statistics(
    parts: Iterable[ActivationStatistics | str | Path], *, file: str | Path | None = None
) -> ActivationStatistics:
    """Add up statistics of different parts of a corpus; languages are matched by name.

    Args:
        parts: statistics, or their files or run folders, which are mapped into memory.
        file: where to write the sum, which then stays there (``memory_map=True``); None keeps it
            in memory.

    Returns:
        What ``first.merge(second).merge(third)...`` gives, bit for bit.

    Raises:
        LensNeuronsError: no part, or parts that differ in layers, width or number of groups.
        ProvenanceError: they differ in model, dtype, attention, tokenizer, hook or scope (each
            difference is named), or two counted the same corpus.
        StorageError: a file is damaged, or `file` cannot be written.
    """
    if isinstance(parts, ActivationStatistics | str | Path):
        parts = [parts]
    if not isinstance(parts, Iterable):
        raise LensNeuronsError(f"parts={shown(parts)}: give a list of statistics or of their files")
    given = list(parts)
    found = [
        one
        if isinstance(one, ActivationStatistics)
        else ActivationStatistics.load(one, memory_map=True)
        for one in given
    ]
    if not found:
        raise LensNeuronsError("no statistics to merge: give one part or more")
    names = [
        f"part {number}" + (f" ({one})" if isinstance(one, str | Path) else "")
        for number, one in enumerate(given, 1)
    ]
    provenance = _merged_provenance(found, names)
    _require_same_shape(found, names)
    languages = tuple(dict.fromkeys(language for one in found for language in one.languages))
    arrays_of_all = [
        name for name in ARRAYS if all(getattr(one, name) is not None for one in found)
    ]
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        name: (first.dtype, (*first.shape[:-1], len(languages)))
        for name in arrays_of_all
        for first in [getattr(found[0], name)]
    }
    fields = {"languages": languages, "provenance": provenance}
    fields |= {name: getattr(found[0], name) for name in ("n_experts", "n_heads")}
    if file is None:
        arrays = {name: np.zeros(shape, number) for name, (number, shape) in shapes.items()}
        _fill(arrays, found, languages)
        frozen: dict[str, Any] = {name: read_only(array) for name, array in arrays.items()}
        return ActivationStatistics(**fields, **frozen)
    own = ActivationStatistics.FILE_NAMES
    in_file = {own.get(name, name): shape for name, shape in shapes.items()}
    details = ActivationStatistics._packed(fields)[1]
    with filling_arrays(file, ActivationStatistics.FILE_KIND, in_file, details) as arrays:
        totals = {name: arrays[own.get(name, name)] for name in arrays_of_all}
        _fill(totals, found, languages)
    return ActivationStatistics.load(file, memory_map=True)


def _fill(
    totals: Mapping[str, np.ndarray],
    parts: Sequence[ActivationStatistics],
    languages: tuple[str, ...],
) -> None:
    """Add the arrays of all parts to zeros, in their order, one layer of one group at a time."""
    columns = [
        slice(None) if one.languages == languages else [languages.index(k) for k in one.languages]
        for one in parts
    ]
    for name, total in totals.items():
        for place in np.ndindex(total.shape[:-2]):
            for one, own in zip(parts, columns, strict=True):
                array = getattr(one, name)
                total[place][..., own] += array[place]
                let_go(array)
            let_go(total)


def _merged_provenance(parts: Sequence[ActivationStatistics], names: Sequence[str]) -> Provenance:
    """The provenance of the sum of all parts.

    Raises:
        ProvenanceError: names the first part that does not belong to those before it, and why.
    """
    total = parts[0].provenance
    for name, one in zip(names[1:], parts[1:], strict=True):
        try:
            total = total.merge(one.provenance)
        except ProvenanceError as error:
            raise ProvenanceError(f"{name}, beside those before it: {error}") from None
    return total


def _require_same_shape(parts: Sequence[ActivationStatistics], names: Sequence[str]) -> None:
    """Raise unless all parts have the groups, layers and neurons of the first."""
    first = parts[0]
    for part, other in zip(names, parts, strict=True):
        ours, theirs = (list(one.grouped_counts.shape[:-1]) for one in (first, other))
        if ours != theirs:
            raise LensNeuronsError(
                f"{part} has [group, layer, neuron] {theirs}, the first one {ours}: "
                "merge statistics of one model, collected with the same groups"
            )
        for name in ("n_experts", "n_heads"):
            ours, theirs = getattr(first, name), getattr(other, name)
            if ours != theirs:
                raise ProvenanceError(
                    f"{part} has {name}={theirs}, the first one {ours}: merge "
                    "statistics of one model and one site"
                )
