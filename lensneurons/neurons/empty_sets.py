"""Sets of neurons that are empty, or nearly so: who lacks neurons, why, and what would fill them.

An empty set is no result: to remove it changes nothing, and nothing that is measured with it means
anything. The usual cause is a selection of neurons that hardly ever fire. The paper's score is low
for a neuron that fires in one language only, however seldom; where it fires so seldom that it is
above tau in no language (N = 0) it is selected, and belongs to no set. LAPE leaves such neurons
out, so its order alone decides how many neurons it takes until every language has some:
`lape_rate`, exactly.

>>> import lensneurons as ln
>>> lape_rate(ln.load_sample("gemma-3-270m").neurons)
0.0011

What this does not show: that so few neurons do anything, or that many of them would.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from lensneurons.errors import EmptySetWarning
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.scores import score_terms
from lensneurons.neurons.sets import NeuronSet

FEWEST_NEURONS = 3  # a set of fewer is nearly empty
_ROWS = 2**13  # neurons that are looked at together


def lape_rate(neurons: LanguageNeurons, fewest: int = FEWEST_NEURONS) -> float | None:
    """The least `top_rate` at which LAPE gives every language so many neurons, at the same tau.

    Args:
        neurons: any identification; only its probabilities and its tau are read.
        fewest: specific and related neurons that every language shall have.

    Returns:
        A share, rounded up at two significant digits; every greater one does as well. None where
        a language has fewer neurons in the whole model, or where all would have to be selected.
    """
    n_languages, n = len(neurons.languages), neurons.n_above
    (terms,) = score_terms(neurons.probability, neurons.languages, np.float64)
    order = np.argsort(np.where(n > 0, terms.entropy, np.inf), axis=None, kind="stable")
    above, member = neurons.above.reshape(-1, n_languages), ((n > 0) & (n < n_languages)).ravel()
    counted = np.flatnonzero(member[order])  # places in the order of neurons that sets may hold
    found, last = np.zeros(n_languages, np.int64), -1
    for first in range(0, len(counted), _ROWS):  # most often the first ones are enough
        some = counted[first : first + _ROWS]
        totals = found + np.cumsum(above[order[some]], axis=0, dtype=np.int64)
        lacking, found = found < fewest, totals[-1]
        if (reached := lacking & (found >= fewest)).any():
            last = int(some[np.argmax(totals[:, reached] >= fewest, axis=0).max()])
        if (found >= fewest).all():
            break
    else:
        return None
    rate = (last + 1) / n.size
    step = 10.0 ** (math.floor(math.log10(rate)) - 1)
    rounded = float(f"{math.ceil(round(rate / step, 9)) * step:.2g}")
    return rounded if rounded < 1 else None


def warn_of_few_neurons(neurons: LanguageNeurons) -> None:
    """Warn of the languages with fewer than `FEWEST_NEURONS` neurons, and say what would help."""
    sizes = {language: len(neurons[language]) for language in neurons.languages}
    few = {k: size for k, size in sizes.items() if size < FEWEST_NEURONS}
    if not few:
        return
    counts, size = neurons.histogram(), neurons.selected.size
    told = f"all {size:,} neurons are counted"
    if neurons.population == "selected":
        told = f"top_rate={neurons.top_rate:g} selects {counts.sum():,} of {size:,} neurons"
    if counts[0]:
        told += f"; {counts[0]:,} of them exceed tau in no language (N = 0)"
    warnings.warn(
        f"hardly any neurons: {_listed(few)}. {told}. {_remedy(neurons)}",
        EmptySetWarning,
        stacklevel=4,  # past `identify` and its decorator
    )


def warn_of_no_neurons(sets: Sequence[NeuronSet]) -> None:
    """Warn where all of some sets are empty, so that an intervention on them changes nothing."""
    if any(map(len, sets)):
        return
    labels = ", ".join(dict.fromkeys(repr(one.label) for one in sets))
    warnings.warn(
        f"no neurons in {labels}: the model stays as it is, and an effect of 0 says nothing; "
        "identify(score='lape') or a greater top_rate gives a language more neurons",
        EmptySetWarning,
        stacklevel=5,  # past `fitting_sets`, the intervention and its `with`
    )


def _listed(few: Mapping[str, int]) -> str:
    """Languages by the number of their neurons, such as ``"none of zh, ja; 1 of en"``."""
    by_size: dict[int, list[str]] = {}
    for language, size in few.items():
        by_size.setdefault(size, []).append(language)
    return "; ".join(f"{size or 'none'} of {', '.join(by_size[size])}" for size in sorted(by_size))


def _remedy(neurons: LanguageNeurons) -> str:
    """The options that would give every language `FEWEST_NEURONS`, or that none would."""
    rate = lape_rate(neurons)
    if rate is None:
        return (
            f"No selection gives every language {FEWEST_NEURONS}: at tau {neurons.tau:.3g} the "
            "model has no more of its own; lower the percentile or tau, or count more texts"
        )
    enough = f"every language {FEWEST_NEURONS} or more"
    if neurons.score_name == "lape":
        return f"top_rate={rate:g} or more gives {enough}"
    since = "" if rate <= neurons.top_rate else f" from top_rate={rate:g} on"
    return f"score='lape' selects no neuron with N = 0 and gives {enough}{since}"
