"""The same comparison at every checkpoint of a training run.

Each checkpoint is compared with the first one at the same bar, over the same groups of items, so
the changes can be read as one curve. Only two checkpoints are in memory at a time where `runs` is a
generator.

>>> def checkpoints():                                        # doctest: +SKIP
...     for step in (0, 250, 500, 1000):
...         yield str(step), ln.ActivationStatistics.load(f"runs/{step}")
>>> series = ln.compare_series(checkpoints(), trained=("zh", "de"))   # doctest: +SKIP
>>> series.to_pandas("layers"), series["1000"]                # doctest: +SKIP

What this does not show: the checkpoints share their items and the first run, so their errors go
together: a curve that stays above its start is one observation, not many.

The result of `compare`: every change of the classes of neurons, with interval and p-value.

>>> change.to_pandas()                     # neurons with N = 0 ... K           # doctest: +SKIP
>>> change.to_pandas("transitions")        # from N to N                        # doctest: +SKIP
>>> change.part_changes(parts)             # specific, related, agnostic by part  # doctest: +SKIP

The tables of a comparison: what `Comparison.to_pandas` returns.

What changed between two models that read the same texts: before and after alignment.

    compare(before, after): class of every neuron at ONE bar -> changes, each with interval and p

The classes are those of arXiv 2505.21505, section 3, over *all* neurons. With each run's own
percentile, exactly 5 % of all memberships would pass in every run, and "more neurons are shared
after alignment" could not be seen; so both runs are classified at one shared tau, by default that
of the run before. Intervals (jackknife over groups of items, the same group left out of both runs)
and p-values (before and after swapped within groups) need ``collect(..., groups=10)``; see
`lensneurons.uncertainty.swaps` for what exactly is permuted. The bar stays fixed in all draws:
it is part of the definition.

What this does not show: that alignment caused a change (compare a control run trained on something
else), or that a neuron whose class changed matters (ablate it). Tables hold many p-values; they are
not corrected for their number.

>>> change = ln.compare(before, after, trained=("zh", "de"))       # doctest: +SKIP
>>> change.to_pandas("layers"), ln.claims(change)                  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics, require_comparable
from lensneurons.comparison.class_counts import (
    ClassTables,
    PairedCounts,
    count_tables,
    of_class,
    pair_counts,
    stack_tables,
)
from lensneurons.comparison.sharing import Sharing, measure_sharing
from lensneurons.errors import IdentificationError, LensNeuronsError, ProvenanceError, choose
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.neurons.scores import percentile_bar
from lensneurons.shapes import (
    FlatNeurons,
    LanguageCounts,
    ModelMemberships,
    NeuronMask,
    NeuronNumbers,
    PairedRates,
    RowMask,
)
from lensneurons.uncertainty.swaps import jackknife_interval, swap_p
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance, require_same
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd


KIND = "comparison"
Table = Literal["histogram", "layers", "languages", "transitions", "overlap"]
TABLES = ("histogram", "layers", "languages", "transitions", "overlap")
CLASSES = ("specific", "related", "agnostic")
Figure = Callable[[ClassTables], np.ndarray]
Boundaries = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Change:
    """A change, or an array of changes, with what the groups of items say about it.

    Attributes:
        estimate: after minus before, on all items.
        low: lower end of the jackknife interval; NaN without groups.
        high: upper end.
        p: two-sided p-value of the swap test; NaN without groups.
        level: coverage of the interval.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    level: float


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Classes of all neurons before and after, at one bar; immutable.

    Attributes:
        languages: codes, in the order of the language axes.
        n_layers: layers of the model.
        d_mlp: neurons a layer.
        tau: the bar of both runs.
        tau_origin: where it comes from.
        flat: int64 [neuron], the neurons that exceed the bar somewhere, ``layer * d_mlp + neuron``;
            all others have N = 0 before and after.
        above: bool [run, language, neuron], where p > tau; run 0 is before, 1 after.
        selected: bool [neuron], which have the lowest scores before (`identify`); for the claims
            about English, which are about these.
        trained: languages that were trained between the runs.
        pivot: the language that they were aligned to, or None.
        left_out: the tables without each group of items; None without groups.
        alone: the tables of each group alone; None without groups.
        sharing: the sharing hypothesis; None without trained or without untouched languages.
        provenance: of the two runs.
    """

    languages: tuple[str, ...]
    n_layers: int
    d_mlp: int
    tau: float
    tau_origin: str
    flat: FlatNeurons
    above: ModelMemberships
    selected: RowMask
    trained: tuple[str, ...] = ()
    pivot: str | None = None
    left_out: ClassTables | None = None
    alone: ClassTables | None = None
    sharing: Sharing | None = None
    provenance: tuple[Provenance, Provenance] = (Provenance(), Provenance())

    @property
    def n_groups(self) -> int:
        """Number of groups of items; 1 where there are no intervals."""
        return 1 if self.left_out is None else len(self.left_out.layers)

    @property
    def untouched(self) -> tuple[str, ...]:
        """The languages that were neither trained nor the pivot."""
        return tuple(k for k in self.languages if k not in (*self.trained, self.pivot))

    def role_of(self, language: str) -> str:
        """``"trained"``, ``"untouched"`` or ``"pivot"``; empty where none was said to be trained.

        Raises:
            LensNeuronsError: the language is not there; those that are get listed.
        """
        choose(language, self.languages, "language")
        if not self.trained:
            return ""
        named = "pivot" if language == self.pivot else "untouched"
        return "trained" if language in self.trained else named

    @cached_property
    def tables(self) -> ClassTables:
        """Counts of classes over all items; one draw."""
        return self.count(self.above)

    def count(self, above: ModelMemberships) -> ClassTables:
        """Counts of classes for memberships [run, language, neuron] of the neurons in `flat`."""
        return count_tables(
            above,
            self.flat // self.d_mlp,
            selected=self.selected,
            n_layers=self.n_layers,
            d_mlp=self.d_mlp,
        )

    @cached_property
    def n_before(self) -> NeuronNumbers:
        """int64 [layer, neuron]: N before."""
        return self._number(0)

    @cached_property
    def n_after(self) -> NeuronNumbers:
        """int64 [layer, neuron]: N after."""
        return self._number(1)

    def _number(self, run: int) -> NeuronNumbers:
        numbers = np.zeros(self.n_layers * self.d_mlp, np.int64)
        numbers[self.flat] = self.above[run].sum(axis=0)
        return numbers.reshape(self.n_layers, self.d_mlp)

    @property
    def transitions(self) -> LanguageCounts:
        """int64 [N before, N after]: how many neurons went from which N to which."""
        return self.tables.transitions[0]

    def change(self, figure: Figure, *, level: float = 0.95) -> Change:
        """A change of class counts with its interval and p-value.

        Args:
            figure: gives changes [draw, ...], after minus before, from tables of several draws.
            level: coverage.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        estimate = np.asarray(figure(self.tables)[0], float)
        if self.left_out is None or self.alone is None:
            unknown = np.full(estimate.shape, np.nan)
            return Change(estimate, unknown, unknown, unknown, level)
        ends = jackknife_interval(estimate, figure(self.left_out), level=level)
        return Change(estimate, ends.low, ends.high, swap_p(figure(self.alone)), level)

    def to_pandas(self, table: Table = "histogram", *, level: float = 0.95) -> pd.DataFrame:
        """One of the tables of the comparison.

        Args:
            table: ``"histogram"`` (one row an N), ``"layers"`` (a layer and class),
                ``"languages"`` (a language and class), each with before, after, change, low, high
                and p; ``"transitions"`` (N before and after: neurons, low, high, and the net flow,
                neurons that went this way less those that went back, with its p); or ``"overlap"``
                (a language: its specific and related neurons before and after, those of both,
                those expected of random sets with as many neurons a layer, and Jaccard with its
                interval, Dice, containment).
            level: coverage of the intervals.

        Raises:
            LensNeuronsError: no such table, or a level outside (0, 1).
        """
        choose(table, TABLES, "table")
        from lensneurons.comparison import before_after as tables

        return getattr(tables, f"{table}_table")(self, level)

    def part_changes(self, parts: LayerParts | Boundaries, *, level: float = 0.95) -> pd.DataFrame:
        """One row a part and class: before, after, change, low, high, p.

        Args:
            parts: what `divide_layers` found, or first and last layers.
            level: coverage.

        Raises:
            LensNeuronsError: no four parts were found, or layers that are not there.
        """
        from lensneurons.comparison.before_after import part_table

        return part_table(self, boundaries_of(parts, self.n_layers), level)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays, details = pack(self)
        return save_arrays(path, KIND, arrays, details)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        return unpack(*load_arrays(path, KIND))

    @property
    def description(self) -> str:
        """Population, bar, items and training in one line, for the subtitle of every figure."""
        groups = f"{self.n_groups} groups of items" if self.n_groups > 1 else "no intervals"
        training = f"; trained {' '.join(self.trained)}" if self.trained else ""
        neurons = self.n_layers * self.d_mlp
        return (
            f"all {neurons:,} neurons; tau {self.tau:.4f} ({self.tau_origin}); {groups}{training}"
        )

    def __repr__(self) -> str:
        moved = self.tables.histogram_change()[0]
        told = ", ".join(f"{n}: {change:+d}" for n, change in enumerate(moved))
        return f"Comparison({self.description}; neurons by N {told})"

    def _repr_html_(self) -> str:
        table = self.to_pandas()
        rows = [
            (r["n"], r["class"], r["before"], r["after"], change_text(r), p_text(r["p"]))
            for r in table.to_dict("records")
        ]
        head = ("N", "class", "before", "after", "change", "p")
        return html_table(f"Comparison: {self.description}", head, rows)


def change_text(row: dict[Any, Any]) -> str:
    """A change with its interval, where it has one."""
    ends = "" if np.isnan(row["low"]) else f" ({row['low']:+.1f} to {row['high']:+.1f})"
    return f"{row['change']:+g}{ends}"


def p_text(p: float) -> str:
    """A p-value, or nothing."""
    return "" if np.isnan(p) else f"{p:.3g}"


def boundaries_of(parts: LayerParts | Boundaries, n_layers: int) -> list[tuple[int, int]]:
    """First and last layers of parts, once they are of a model of so many layers.

    Raises:
        LensNeuronsError: no four parts were found, or layers that overlap or are not there.
    """
    if isinstance(parts, LayerParts):
        if parts.boundaries is None:
            raise LensNeuronsError(
                f"four parts were not found: {parts!r}. Give first and last layers yourself, such "
                "as [(0, 4), (5, 19), (20, 30), (31, 31)]"
            )
        parts = parts.boundaries
    spans = [(int(first), int(last)) for first, last in parts]
    edges = [edge for first, last in spans for edge in (first, last + 1)]
    if not spans or edges != sorted(edges) or edges[0] < 0 or edges[-1] > n_layers:
        raise LensNeuronsError(
            f"parts {spans} are not first and last layers, in order, of {n_layers} layers"
        )
    return spans


def pack(comparison: Comparison) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and details of a comparison, as they are stored."""
    arrays = {name: getattr(comparison, name) for name in _ARRAYS}
    details: dict[str, Any] = {name: getattr(comparison, name) for name in _WORDS}
    for name in ("left_out", "alone", "sharing"):
        value = getattr(comparison, name)
        if value is None:
            continue
        for entry in fields(value):
            part = getattr(value, entry.name)
            if isinstance(part, np.ndarray):
                arrays[f"{name}.{entry.name}"] = part
            else:
                details[f"{name}.{entry.name}"] = part
    details["provenance"] = [one.to_dict() for one in comparison.provenance]
    return arrays, details


def unpack(arrays: dict[str, np.ndarray], details: dict[str, Any]) -> Comparison:
    """The comparison that `pack` took apart."""

    def part(name: str, kind: type[ClassTables] | type[Sharing]) -> Any:
        both = {**arrays, **details}
        found = {n.removeprefix(f"{name}."): v for n, v in both.items() if n.startswith(f"{name}.")}
        return kind(**found) if found else None

    words: dict[str, Any] = {name: details[name] for name in _WORDS}
    words |= {name: tuple(words[name]) for name in ("languages", "trained")}
    words |= {name: arrays[name] for name in _ARRAYS}
    before, after = (Provenance.from_dict(one) for one in details["provenance"])
    return Comparison(
        **words,
        left_out=part("left_out", ClassTables),
        alone=part("alone", ClassTables),
        sharing=part("sharing", Sharing),
        provenance=(before, after),
    )


_ARRAYS = ("flat", "above", "selected")
_WORDS = ("languages", "n_layers", "d_mlp", "tau", "tau_origin", "trained", "pivot")


def class_of_number(n: int, n_languages: int) -> str:
    """The class of neurons that exceed the bar in n of K languages."""
    if n in (0, 1):
        return ("unclassified", "specific")[n]
    return "agnostic" if n == n_languages else "related"


def histogram_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row an N: n, class, before, after, change, low, high, p."""
    runs = comparison.tables.layers[0].sum(axis=1)
    change = comparison.change(ClassTables.histogram_change, level=level)
    numbers = range(runs.shape[1])
    names = [class_of_number(n, len(comparison.languages)) for n in numbers]
    return _table({"n": list(numbers), "class": names}, runs, change)


def layers_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row a layer and class: layer, class, before, after, change, low, high, p."""
    runs = _by_class(comparison.tables.layers[0])
    change = comparison.change(lambda t: _by_class(t.layer_change()), level=level)
    keys = {"layer": np.repeat(np.arange(runs.shape[1]), len(CLASSES))}
    return _table({**keys, "class": list(CLASSES) * runs.shape[1]}, runs, change)


def part_table(
    comparison: Comparison, spans: Sequence[tuple[int, int]], level: float
) -> pd.DataFrame:
    """One row a part and class: part, first, last, class, before, after, change, low, high, p."""

    def by_part(counts: np.ndarray) -> np.ndarray:
        sums = [counts[..., first : last + 1, :].sum(axis=-2) for first, last in spans]
        return _by_class(np.stack(sums, axis=-2))

    runs = by_part(comparison.tables.layers[0])
    change = comparison.change(lambda t: by_part(t.layer_change()), level=level)
    numbers = np.repeat(np.arange(len(spans)), len(CLASSES))
    first, last = np.array(spans)[numbers].T
    keys = {"part": numbers + 1, "first": first, "last": last}
    return _table({**keys, "class": list(CLASSES) * len(spans)}, runs, change)


def languages_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row a language and class: language, role, class, before, after, change, low, high, p."""
    kinds = ("specific", "related")

    def by_kind(counts: np.ndarray) -> np.ndarray:
        return np.stack([of_class(counts, kind) for kind in kinds], axis=-1)

    runs = by_kind(comparison.tables.members[0])
    change = comparison.change(lambda t: by_kind(t.member_change()), level=level)
    languages = [language for language in comparison.languages for _ in kinds]
    roles = [comparison.role_of(language) for language in languages]
    keys = {"language": languages, "role": roles, "class": list(kinds) * runs.shape[1]}
    return _table(keys, runs, change)


def transitions_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row a transition: n_before, n_after, neurons, low, high, net, p.

    Swapping before and after in a group turns its transitions round, so what the swap test tests is
    the net flow.
    """
    import pandas as pd

    found = comparison.transitions.astype(float)
    net = comparison.change(lambda t: t.transitions - t.transitions.swapaxes(1, 2), level=level)
    low = high = np.full(found.shape, np.nan)
    if comparison.left_out is not None:
        ends = jackknife_interval(found, comparison.left_out.transitions, level=level)
        low, high = np.maximum(ends.low, 0.0), ends.high
    before, after = np.indices(found.shape)
    columns = {"n_before": before, "n_after": after, "neurons": comparison.transitions}
    columns |= {"low": low, "high": high, "net": net.estimate.astype(np.int64), "p": net.p}
    return pd.DataFrame({name: column.ravel() for name, column in columns.items()})


def overlap_table(comparison: Comparison, level: float) -> pd.DataFrame:
    """One row a language: before, after, both, expected, jaccard with ends, dice, containment."""
    import pandas as pd

    before, after, both = _overlaps(comparison.tables)[:, 0]
    jaccard = _ratio(both, before + after - both)
    low = high = np.full(len(both), np.nan)
    if comparison.left_out is not None:
        ours, theirs, shared = _overlaps(comparison.left_out)
        ends = jackknife_interval(jaccard, _ratio(shared, ours + theirs - shared), level=level)
        low, high = np.clip(ends.low, 0, 1), np.clip(ends.high, 0, 1)
    columns = {"language": list(comparison.languages), "before": before, "after": after}
    columns |= {"both": both, "expected": _expected_overlap(comparison)}
    columns |= {"jaccard": jaccard, "jaccard_low": low, "jaccard_high": high}
    columns |= {"dice": _ratio(2 * both, before + after), "containment": _ratio(both, before)}
    return pd.DataFrame(columns)


def _overlaps(tables: ClassTables) -> np.ndarray:
    """int64 [before, after and both; draw; language]: specific and related neurons."""
    sizes = of_class(tables.members, "specific + related")
    return np.stack([sizes[:, 0], sizes[:, 1], tables.stayed])


def _expected_overlap(comparison: Comparison) -> np.ndarray:
    """float64 [language]: neurons that random sets with as many a layer have in common."""
    number = comparison.above.sum(axis=1)
    between = (number > 0) & (number < len(comparison.languages))
    layer = comparison.flat // comparison.d_mlp
    members = comparison.above & between[:, None]
    sizes = np.array(
        [[np.bincount(layer[m], minlength=comparison.n_layers) for m in run] for run in members]
    )
    return (sizes[0] * sizes[1]).sum(axis=1) / comparison.d_mlp


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _by_class(counts: np.ndarray) -> np.ndarray:
    """Counts [..., N] as [..., class]."""
    return np.stack([of_class(counts, kind) for kind in CLASSES], axis=-1)


def _table(keys: dict[str, object], runs: np.ndarray, change: Change) -> pd.DataFrame:
    """Keys, then counts of both runs [run, ...] and their change."""
    import pandas as pd

    columns = {"before": runs[0], "after": runs[1], "change": runs[1] - runs[0]}
    columns |= {"low": change.low, "high": change.high, "p": change.p}
    return pd.DataFrame({**keys, **{name: column.ravel() for name, column in columns.items()}})


Run = ActivationStatistics | LanguageNeurons
MAY_CHANGE = ("model", "revision", "weights", "config", "interventions")


def compare(
    before: Run,
    after: Run,
    *,
    tau: float | Literal["before"] = "before",
    percentile: float = 0.95,
    trained: Sequence[str] = (),
    pivot: str | None = "en",
    flips: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the language neurons of two models that read the same texts.

    Args:
        before: statistics of the first model (with groups: intervals and p-values), or its
            identified neurons (without).
        after: the same of the second model; languages are matched by name.
        tau: one bar for both, or ``"before"``: the percentile of the first run, or the bar that its
            neurons were identified with.
        percentile: of all activation probabilities of `before`; only for statistics.
        trained: languages that the second model was trained on; for the comparison with untouched
            ones.
        pivot: the language that others were aligned to, neither trained nor untouched; without
            effect where it was not counted.
        flips: draws of the null of the sharing hypothesis.
        seed: the same seed gives the same result.

    Returns:
        The changes, as tables.

    Raises:
        ProvenanceError: the two differ in corpus, scope, hook, tokenizer, languages or shape; each
            difference is named.
        LensNeuronsError: a tau or percentile that makes no sense, a trained language that was not
            counted or is the pivot, fewer than two languages, or one whose items all fell into one
            group.
    """
    after = _matched(before, after)
    if len(before.languages) < 2:
        raise LensNeuronsError(f"only {list(before.languages)} was counted: classes need two")
    bar, origin = _bar(before, tau, percentile)
    touched = _trained(before.languages, trained, pivot)
    rates, flat, pair = _rates(before, after, bar)
    found = Comparison(
        languages=before.languages,
        n_layers=before.n_layers,
        d_mlp=before.d_mlp,
        tau=bar,
        tau_origin=origin,
        flat=flat,
        above=rates > bar,
        selected=_selected(before, bar).ravel()[flat],
        trained=touched,
        pivot=pivot if pivot in before.languages else None,
        provenance=(before.provenance, after.provenance),
    )
    found = _with_groups(found, pair)
    return (
        found
        if not found.trained or not found.untouched
        else replace(found, sharing=_sharing(found, rates, pair, flips, seed))
    )


def _with_groups(found: Comparison, pair: PairedCounts | None) -> Comparison:
    """The comparison with what the groups of items tell."""
    if pair is None or pair.n_groups < 2:
        return found
    pair.require_spread(found.languages)
    groups = range(pair.n_groups)
    return replace(
        found,
        left_out=stack_tables([found.count(pair.left_out(g) > found.tau) for g in groups]),
        alone=stack_tables([found.count(pair.alone(g) > found.tau) for g in groups]),
    )


def _sharing(
    found: Comparison, rates: PairedRates, pair: PairedCounts | None, flips: int, seed: int
) -> Sharing:
    places = {language: i for i, language in enumerate(found.languages)}
    groups = range(pair.n_groups if pair is not None and pair.n_groups > 1 else 0)
    return measure_sharing(
        rates,
        found.flat // found.d_mlp,
        (pair.left_out(group) for group in groups if pair is not None),
        tau=found.tau,
        candidates=[places[k] for k in found.languages if k != found.pivot],
        trained=[places[k] for k in found.trained],
        flips=flips,
        seed=seed,
    )


def _selected(before: Run, tau: float) -> NeuronMask:
    """The selected neurons of the run before; none where no lambda selects any."""
    if isinstance(before, LanguageNeurons):
        return before.selected
    try:
        return identify(before, tau=tau).selected
    except IdentificationError:
        return np.zeros((before.n_layers, before.d_mlp), bool)


def _matched(before: Run, after: Run) -> Run:
    """`after` with its languages in the order of `before`, once the two may be compared."""
    if isinstance(after, ActivationStatistics) and set(after.languages) == set(before.languages):
        after = after if after.languages == before.languages else after.select(before.languages)
    if isinstance(before, ActivationStatistics) and isinstance(after, ActivationStatistics):
        require_comparable(before, after)
        return after
    require_same(before.provenance, after.provenance, ignoring=MAY_CHANGE)
    for name in ("languages", "n_layers", "d_mlp"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if ours != theirs and not (name == "languages" and set(ours) == set(theirs)):
            raise ProvenanceError(f"the two differ in {name}: {ours} and {theirs}")
    return after


def _bar(before: Run, tau: float | str, percentile: float) -> tuple[float, str]:
    """The shared bar, and where it comes from."""
    if isinstance(tau, str):
        choose(tau, ("before",), "tau")
        if isinstance(before, LanguageNeurons):
            return before.tau, "of the run before"
        if not 0 < percentile < 1:
            raise LensNeuronsError(f"percentile={percentile} is not a share between 0 and 1")
        bar = percentile_bar(before.probability, percentile)
        return bar, f"percentile {percentile:g} of the run before"
    if not 0 <= tau < 1:
        raise LensNeuronsError(f"tau={tau} is not an activation probability in [0, 1)")
    return float(tau), "given"


def _trained(
    languages: tuple[str, ...], trained: Sequence[str], pivot: str | None
) -> tuple[str, ...]:
    """The trained languages in the order of the corpus."""
    if isinstance(trained, str):
        raise LensNeuronsError(f"trained={trained!r} is one text: write ({trained!r},)")
    for language in trained:
        choose(language, languages, "trained language")
    if pivot in trained:
        raise LensNeuronsError(
            f"{pivot!r} is both trained and pivot: pass pivot=None, or leave it out of trained"
        )
    return tuple(language for language in languages if language in trained)


def _rates(
    before: Run, after: Run, tau: float
) -> tuple[PairedRates, FlatNeurons, PairedCounts | None]:
    """Probabilities [run, language, neuron] of the neurons that can exceed the bar, and which."""
    if isinstance(before, ActivationStatistics) and isinstance(after, ActivationStatistics):
        pair = pair_counts(before, after, tau)
        return pair.whole(), pair.flat, pair
    order = [after.languages.index(language) for language in before.languages]
    ours = before.probability.reshape(-1, len(order))
    theirs = after.probability.reshape(-1, len(order))[:, order]
    flat = np.flatnonzero((ours > tau).any(axis=1) | (theirs > tau).any(axis=1))
    return np.stack([ours[flat].T, theirs[flat].T]), flat, None


KIND_SERIES = "comparison series"


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonSeries:
    """Comparisons of every later checkpoint with the first; immutable.

    Attributes:
        first: name of the first checkpoint.
        names: names of the later ones, in order.
        comparisons: one each.
    """

    first: str
    names: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    def __getitem__(self, name: str) -> Comparison:
        """The comparison of a checkpoint with the first one.

        Raises:
            LensNeuronsError: no such checkpoint; those that are get listed.
        """
        return self.comparisons[self.names.index(choose(name, self.names, "checkpoint"))]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def to_pandas(self, table: Table = "histogram", *, level: float = 0.95) -> pd.DataFrame:
        """The tables of `Comparison.to_pandas` below each other; first column: checkpoint.

        Raises:
            LensNeuronsError: no such table, or a level outside (0, 1).
        """
        import pandas as pd

        tables = [one.to_pandas(table, level=level) for one in self.comparisons]
        for name, one in zip(self.names, tables, strict=True):
            one.insert(0, "checkpoint", name)
        return pd.concat(tables, ignore_index=True)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        packed = [pack(one) for one in self.comparisons]
        arrays = {f"{i}.{n}": a for i, (own, _) in enumerate(packed) for n, a in own.items()}
        details = {"first": self.first, "names": self.names, "each": [own for _, own in packed]}
        return save_arrays(path, KIND_SERIES, arrays, details)

    @classmethod
    def load(cls, path: str | Path) -> ComparisonSeries:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND_SERIES)
        found = []
        for i, own in enumerate(details["each"]):
            start = f"{i}."
            mine = {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
            found.append(unpack(mine, own))
        return cls(details["first"], tuple(details["names"]), tuple(found))

    @property
    def description(self) -> str:
        """Checkpoints and bar in one line, for the subtitle of every figure."""
        return f"{' '.join(self.names)} against {self.first}; {self.comparisons[0].description}"

    def __repr__(self) -> str:
        return f"ComparisonSeries({self.description})"

    def _repr_html_(self) -> str:
        changes = [one.tables.histogram_change()[0] for one in self.comparisons]
        told = zip(self.names, changes, strict=True)
        rows = [(name, *(f"{n:+d}" for n in change)) for name, change in told]
        head = ("checkpoint", *(f"N = {n}" for n in range(len(changes[0]))))
        return html_table(f"Change of neurons by N: {self.description}", head, rows)


def compare_series(
    runs: Mapping[str, Run] | Iterable[tuple[str, Run]],
    *,
    tau: float | Literal["first"] = "first",
    percentile: float = 0.95,
    trained: Sequence[str] = (),
    pivot: str | None = "en",
    flips: int = 1000,
    seed: int = 0,
) -> ComparisonSeries:
    """Compare every checkpoint with the first one, at one bar.

    Args:
        runs: checkpoints in order, by name; pairs of name and statistics may come from a generator.
        tau: the bar, or ``"first"``: that of the first checkpoint.
        percentile: as for `compare`.
        trained: as for `compare`.
        pivot: as for `compare`.
        flips: as for `compare`.
        seed: as for `compare`.

    Raises:
        LensNeuronsError: fewer than two checkpoints, one named twice, or anything that `compare`
            refuses; the checkpoint is named.
    """
    if isinstance(tau, str):
        choose(tau, ("first",), "tau")
    pairs = _pairs(runs)
    start = next(pairs, None)
    if start is None:
        raise LensNeuronsError(_FEW)
    bar = "before" if isinstance(tau, str) else tau
    found: dict[str, Comparison] = {}
    for name, after in pairs:
        if name in (start[0], *found):
            raise LensNeuronsError(f"the checkpoint {name!r} is named twice")
        options = {"percentile": percentile, "pivot": pivot, "flips": flips, "seed": seed}
        try:
            found[name] = compare(start[1], after, tau=bar, trained=trained, **options)
        except LensNeuronsError as error:
            raise type(error)(f"checkpoint {name!r} against {start[0]!r}: {error}") from None
    if not found:
        raise LensNeuronsError(_FEW)
    return ComparisonSeries(start[0], tuple(found), tuple(found.values()))


def _pairs(runs: Mapping[str, Run] | Iterable[tuple[str, Run]]) -> Iterator[tuple[str, Run]]:
    """Names and runs, one after the other."""
    if isinstance(runs, Mapping):
        yield from ((str(name), run) for name, run in runs.items())
    else:
        yield from runs


_FEW = "a series needs at least two checkpoints, the first to compare with"
