"""How specific are a language's neurons to it, on texts that did not choose them?

The specificity of a neuron of language k, and the index of the language, are

    s_j = p[j, k] - max over m != k of p[j, m]            index_k = mean of s_j over its neurons

with p the activation probability. Neurons are chosen for large p in few languages, so on the very
counts that chose them the index is too large: what noise put above the bar stays in (`naive`). Here
the groups of items are divided in two. One half chooses the neurons, the other tells their p; then
the other way round, and again for several divisions, and the mean is taken.

One bias is left. The largest of several noisy p is too large, so `index` is too low. If the half
that chooses the neurons also chooses each one's rival language m, no maximum is taken over noise,
but the rival may be the wrong one, so `rival` is too high. The truth lies between the two, and they
meet as texts become many.

With two runs of one corpus (before and after alignment), the same halves choose and measure:

    change    index of the neurons after, less that of the neurons before: each run's own, above
              the bar of the first
    same      index of the neurons chosen before, measured after less measured before

Intervals come from drawing the groups again with replacement, choosing and measuring anew, and the
spread of the draws (`lensneurons.uncertainty.drawn`). With neurons as they were chosen, an interval
would hold the mean of the estimate in 70 to 85 % of corpora instead of 95 %; these do in 94 to
100 % (simulated with six and ten groups: tests/comparison/test_specificity.py).

>>> ln.comparison.specificity(before, after).to_pandas()                 # doctest: +SKIP
>>> few = functools.partial(ln.identify, top_rate=0.005)                 # doctest: +SKIP
>>> ln.comparison.specificity(before, find=few, of="specific")           # doctest: +SKIP

What this does not show: a neuron can be specific to a script or a topic (see `script_control`).
Half of the texts choose worse than all, so these are other neurons than those of the whole corpus,
and a little less specific. Related neurons share a language by definition, so their index is about
0 or below; `of="specific"` leaves them out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float64

from lensneurons.activations.statistics import ActivationStatistics, require_comparable
from lensneurons.errors import EmptySetWarning, LensNeuronsError, choose
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.options import plain_options
from lensneurons.uncertainty.drawn import degrees_of, drawn_error, student
from lensneurons.uncertainty.groups import REMEDY, require_level, require_spread
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

Whose = Literal["language", "specific"]
Find = Callable[..., LanguageNeurons]
OfRuns = Float64[np.ndarray, "run language"]
Ends = Float64[np.ndarray, "language ends"]
# Numbers of one division: index, with its rival, number of neurons; then those kept of before.
INDEX, RIVAL, NUMBER, SAME = range(4)


@dataclass(frozen=True, eq=False, repr=False)
class Specificity(Value):
    """Specificity indices of languages, before and after. Made by `specificity`.

    Attributes:
        languages: codes.
        of: ``"language"`` for its specific and related neurons, ``"specific"`` for the first alone.
        neurons: float64 [run, language], neurons that a half chose, on average.
        index: float64 [run, language], -1 to 1, on the half that did not choose; a little too low.
            NaN where no half has neurons.
        low: lower end of its interval.
        high: upper end.
        rival: the same with the rival that the choosing half named; a little too high.
        naive: the same of neurons that the whole corpus chose, on that corpus; biased upwards.
        change: float64 [language, 3], index after less before, with its interval; NaN with one run.
        same: float64 [language, 3], the same of the neurons that were chosen before.
        splits: divisions of the groups.
        level: coverage of the intervals.
        provenances: of one run or two.
    """

    FILE_KIND: ClassVar = "specificity of languages"
    AXES: ClassVar = {
        name: ("run", "language") for name in ("neurons", "index", "low", "high", "rival", "naive")
    }
    COORDINATES: ClassVar = {"language": "languages", "run": "runs"}

    languages: tuple[str, ...]
    of: Whose
    neurons: OfRuns
    index: OfRuns
    low: OfRuns
    high: OfRuns
    rival: OfRuns
    naive: OfRuns
    change: Ends
    same: Ends
    splits: int
    level: float
    provenances: tuple[Provenance, ...] = field(default_factory=tuple)

    @property
    def runs(self) -> tuple[str, ...]:
        """The order of the first axis."""
        return ("before", "after")[: len(self.index)]

    def to_pandas(self) -> pd.DataFrame:
        """One row a language: the numbers of each run, and the changes where there are two."""
        import pandas as pd

        table = pd.DataFrame({"language": list(self.languages)})
        for run, name in enumerate(self.runs):
            prefix = f"{name}_" if len(self.runs) > 1 else ""
            for one in self.AXES:
                table[prefix + one] = getattr(self, one)[run]
        if len(self.runs) > 1:
            for name in ("change", "same"):
                table[[name, f"{name}_low", f"{name}_high"]] = getattr(self, name)
        return table

    def _brief(self) -> str:
        told = (
            f"{k} " + " to ".join(f"{one:.3f}" for one in self.index[:, n])
            for n, k in enumerate(self.languages)
        )
        return ", ".join(told)

    def _overview(self) -> Overview:
        head = ["language"]
        for name in self.runs:
            head += [f"neurons {name}", f"index {name}", "naive"]
        head += ["change", "of the same neurons"] if len(self.runs) > 1 else []
        rows = []
        for n, k in enumerate(self.languages):
            row: list[object] = [k]
            for run in range(len(self.runs)):
                ends = self.index[run, n], self.low[run, n], self.high[run, n]
                row += [f"{self.neurons[run, n]:.0f}", _told(*ends), f"{self.naive[run, n]:.3f}"]
            if len(self.runs) > 1:
                row += [_told(*self.change[n]), _told(*self.same[n])]
            rows.append(row)
        title = "Specificity: p in the language less its largest p in another, on other texts"
        return Overview(title, head, rows)


def _told(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


@plain_options
def specificity(
    before: ActivationStatistics,
    after: ActivationStatistics | None = None,
    *,
    find: Find = identify,
    of: Whose = "language",
    splits: int = 2,
    draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Specificity:
    """Measure how specific the neurons of each language are, on texts that did not choose them.

    Args:
        before: counts in four groups of items or more.
        after: counts of the same corpus by another model, such as the aligned one.
        find: identifies the neurons of a half, from its statistics; with options, say
            ``functools.partial(identify, top_rate=0.02)``. Halves have counts alone, no sums. Of
            `after`, it is called with ``tau=``, the bar of the same half before.
        of: ``"language"`` for its specific and related neurons, ``"specific"`` for the first alone.
        splits: random divisions of the groups in two.
        draws: corpora to draw for the intervals. Each takes two identifications for each run and
            split.
        level: coverage of the intervals.
        seed: of divisions and draws.

    Raises:
        LensNeuronsError: fewer than four groups, or halves without tokens of a language; no split,
            fewer than two draws, or another word for `of`.
        ProvenanceError: the runs did not count the same corpus in the same way.
    """
    choose(of, get_args(Whose), "of")
    require_level(level)
    n_groups = before.n_groups
    if n_groups < 4 or splits < 1 or draws < 2:
        raise LensNeuronsError(
            f"{n_groups} groups of items, splits={splits}, draws={draws}: two halves with intervals"
            " need four groups or more, collect(..., groups=10), one split and two draws"
        )
    runs = (before,) if after is None else (before, after)
    if after is not None:
        require_comparable(before, after)
    require_spread(before.grouped_tokens, before.languages, REMEDY)
    random = np.random.default_rng(seed)
    halves = [random.permutation(n_groups) < n_groups // 2 for _ in range(splits)]
    with warnings.catch_warnings(action="ignore", category=EmptySetWarning):
        numbers, *drawn = (
            _mean(np.stack([_of_division(runs, weights, half, find, of) for half in halves]))
            for weights in _weights(before, halves, draws, random)
        )
        whole = _chosen(runs, np.ones(n_groups, np.int64), find, of)
    naive = [_measured(run.probability, sets)[0] for run, sets in zip(runs, whole, strict=True)]
    error = partial(_ends, n_groups=n_groups, level=level)
    index = error(numbers[:, INDEX], np.stack(drawn)[:, :, INDEX])
    change = same = np.full((len(before.languages), 3), np.nan)
    if after is not None:
        change, same = (
            error(_difference(numbers, row), _difference(np.stack(drawn), row))
            for row in (INDEX, SAME)
        )
    return Specificity(
        before.languages,
        of,
        numbers[:, NUMBER],
        numbers[:, INDEX],
        index[..., 1],
        index[..., 2],
        numbers[:, RIVAL],
        np.stack(naive),
        change,
        same,
        splits,
        level,
        tuple(run.provenance for run in runs),
    )


Chosen = list[tuple[np.ndarray, np.ndarray]]  # of each language: flat indices, and their rivals


def _chosen(
    runs: tuple[ActivationStatistics, ...], weights: np.ndarray, find: Find, of: Whose
) -> list[Chosen]:
    """The neurons of each language and their rivals, run by run, that some groups choose."""
    sets: list[Chosen] = []
    tau: dict[str, float] = {}
    for run in runs:
        neurons = find(run.resample(weights), **tau)
        tau = tau or {"tau": neurons.tau}
        p = neurons.probability.reshape(-1, len(neurons.languages))
        own: Chosen = []
        for k, language in enumerate(neurons.languages):
            flat = (neurons.specific if of == "specific" else neurons)[language].flat
            own.append((flat, _others(p[flat], k).argmax(axis=-1)))
        sets.append(own)
    return sets


def _others(p: np.ndarray, language: int) -> np.ndarray:
    """Probabilities [neuron, language], below all others in one language."""
    p = p.copy()
    p[:, language] = -1
    return p


def _measured(p: np.ndarray, chosen: Chosen) -> np.ndarray:
    """Index, the same with the chosen rivals, and number: [3, language]; NaN without neurons."""
    p = p.reshape(-1, p.shape[-1])
    told = np.full((3, len(chosen)), np.nan)
    for k, (flat, rivals) in enumerate(chosen):
        told[NUMBER, k] = len(flat)
        if len(flat):
            own = p[flat]
            told[INDEX, k] = (own[:, k] - _others(own, k).max(axis=-1)).mean()
            told[RIVAL, k] = (own[:, k] - own[np.arange(len(flat)), rivals]).mean()
    return told


def _weights(
    statistics: ActivationStatistics,
    halves: list[np.ndarray],
    draws: int,
    random: np.random.Generator,
) -> Iterator[np.ndarray]:
    """How often each group stands in the corpus as it is, then in each drawn one, int64 [group].

    Raises:
        LensNeuronsError: halves without tokens of a language, or no draw that has some in each.
    """
    n = statistics.n_groups
    done, tries = -1, 0
    while done < draws:
        even = np.full(n, 1 / n)
        weights = random.multinomial(n, even) if done >= 0 else np.ones(n, np.int64)
        usable = all(
            (weights * side @ statistics.grouped_tokens).all() for h in halves for side in (h, ~h)
        )
        tries += 1
        if usable:
            yield weights
            done += 1
        elif done < 0 or tries > 10 * draws + 10:
            raise LensNeuronsError(
                "half of the groups has no tokens in some language: count more items, or collect"
                " with fewer groups"
            )


def _of_division(
    runs: tuple[ActivationStatistics, ...],
    weights: np.ndarray,
    first: np.ndarray,
    find: Find,
    of: Whose,
) -> np.ndarray:
    """Numbers [run, number, language] of one division, where either half chooses for the other."""
    halves = [weights * side for side in (first, ~first)]
    rates = [[run.resample(half).probability for run in runs] for half in halves]
    return _both_ways([_chosen(runs, half, find, of) for half in halves], rates)


def _both_ways(sets: list[list[Chosen]], rates: list[list[np.ndarray]]) -> np.ndarray:
    """Numbers [run, number, language], where either half chooses and the other measures."""
    ways = []
    for chooser in (0, 1):
        numbers = []
        for run, p in enumerate(rates[1 - chooser]):
            same = _measured(p, sets[chooser][0])[INDEX]
            numbers.append([*_measured(p, sets[chooser][run]), same])
        ways.append(numbers)
    return _mean(np.array(ways))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is told; NaN where nothing is."""
    told = ~np.isnan(values)
    number = told.sum(axis=0)
    total = np.where(told, values, 0).sum(axis=0)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _difference(numbers: np.ndarray, row: int) -> np.ndarray:
    """After less before, [..., language], of numbers [..., run, number, language]."""
    return numbers[..., 1, row, :] - numbers[..., 0, row, :]


def _ends(found: np.ndarray, drawn: np.ndarray, n_groups: int, level: float) -> np.ndarray:
    """A number [...] and its interval from those of draws [draw, ...], float64 [..., 3]."""
    there = np.isfinite(drawn).all(axis=0)
    error = np.where(there, drawn_error(np.where(there, drawn, 0), n_groups), np.nan)
    ends = student(found, error, degrees_of(n_groups), level=level)
    return np.stack([ends.estimate, ends.low, ends.high], axis=-1)
