"""What was made from some neurons, or they from it: numbers of others are refused by name.

Statistics belong to neurons if they hold the very probabilities that were identified from; parts
if their layer profile is that of the neurons. Both are told from the numbers themselves, so files
of any age can be checked, and a copy of the same run under another path passes:

>>> require_own_statistics(neurons, statistics)                          # doctest: +SKIP

What this does not show: two runs that counted exactly the same cannot be told apart.
"""

from __future__ import annotations

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.values.provenance import UNKNOWN, Provenance


def require_own_statistics(neurons: LanguageNeurons, statistics: ActivationStatistics) -> None:
    """Raise unless some neurons were identified from some statistics.

    Raises:
        LensNeuronsError: another shape, or other probabilities, with what differs; or a language
            of the neurons is not there.
    """
    shape = (statistics.n_layers, statistics.d_mlp)
    if statistics.languages != neurons.languages:
        statistics = statistics.select(neurons.languages)
    same = shape == (neurons.n_layers, neurons.d_mlp)
    if same and all(map(np.array_equal, statistics.probability, neurons.probability)):
        return
    told = differences(neurons.provenance, statistics.provenance)
    if not same:
        told = f"{shape[0]} x {shape[1]} neurons, not {neurons.n_layers} x {neurons.d_mlp}"
    raise LensNeuronsError(
        "the statistics have other activation probabilities than the neurons"
        f"{f' ({told})' if told else ''}: give those that identify read"
    )


def require_own_profile(
    profile: np.ndarray, ours: np.ndarray, *, remedy: str, whose: str = "that of the neurons"
) -> None:
    """Raise unless the layer profile of some parts is the one that is wanted.

    Args:
        profile: int64 [layer, 3], of the parts.
        ours: int64 [layer, 3], what it should be.
        remedy: the call that gives the right parts.
        whose: the profile is.

    Raises:
        LensNeuronsError: they differ, with the neurons of either.
    """
    if np.array_equal(profile, ours):
        return
    theirs, wanted = (
        f"{len(one)} layers with {one[:, 0].sum():,} specific, {one[:, 1].sum():,} related and "
        f"{one[:, 2].sum():,} agnostic neurons"
        for one in (profile, ours)
    )
    raise LensNeuronsError(
        f"the parts are of another layer profile ({theirs}) than {whose} ({wanted}): give {remedy}"
    )


def differences(ours: Provenance, theirs: Provenance) -> str:
    """Where two provenances that are known differ in model, corpus or tokens, in words; or nothing.

    The first of each pair is that of the neurons.
    """
    found = []
    if UNKNOWN not in (ours.weights, theirs.weights) and ours.weights != theirs.weights:
        found.append(f"model {theirs.model}, not {ours.model}")
        if ours.model == theirs.model:
            found[-1] = f"other weights of {ours.model}"
    if ours.corpora and theirs.corpora and ours.corpora != theirs.corpora:
        found.append(f"corpus {theirs.corpora[0][:12]}, not {ours.corpora[0][:12]}")
    if UNKNOWN not in (ours.scope, theirs.scope) and ours.scope != theirs.scope:
        found.append(f"{theirs.scope} tokens, not {ours.scope} tokens")
    return "; ".join(found)
