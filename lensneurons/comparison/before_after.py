"""What changed between two models that read the same texts: before and after alignment.

    compare(before, after): class of every neuron at ONE bar -> changes, each with interval and p

The classes are those of arXiv 2505.21505, section 3, over *all* neurons (`class_counts`). Both
models are classified at one shared tau, by default that of the model before. With each model's own
percentile, exactly 5 % of all memberships would pass in each, and "more neurons are shared after
alignment" could not be seen.

Intervals (jackknife over groups of items, the same group left out of both models) and p-values
(before and after swapped within groups) need ``collect(..., groups=10)``;
`lensneurons.uncertainty.swaps` says what exactly is permuted. The bar stays fixed in all draws,
because it is part of the definition.

>>> change = ln.compare(before, after, trained=("zh", "de"))                  # doctest: +SKIP
>>> change.to_pandas()                          # neurons with N = 0 ... K     # doctest: +SKIP
>>> change.to_pandas("transitions")             # from N to N                  # doctest: +SKIP
>>> change.part_changes(parts)                  # classes by part              # doctest: +SKIP
>>> ln.claims(change, parts=parts)              # the paper's claims, tested   # doctest: +SKIP

What this does not show: that alignment caused a change (compare a control trained on something
else), or that a neuron whose class changed matters (ablate it). Tables hold many p-values, which
are not corrected for their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Int64

from lensneurons.activations.statistics import ActivationStatistics, require_comparable
from lensneurons.comparison.class_counts import (
    CLASSES,
    ClassTables,
    by_class,
    class_names,
    count_classes,
    of_class,
    pair_counts,
    ratio,
)
from lensneurons.comparison.sharing import Sharing, measure_sharing
from lensneurons.errors import IdentificationError, LensNeuronsError, ProvenanceError, choose
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.neurons.scores import percentile_bar
from lensneurons.options import plain_options
from lensneurons.shapes import FlatNeurons, ModelMemberships, NeuronMask, NeuronNumbers, RowMask
from lensneurons.uncertainty.groups import jackknife_interval, require_spread
from lensneurons.uncertainty.swaps import swap_p
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance, require_same

if TYPE_CHECKING:
    import pandas as pd

TableName = Literal["histogram", "layers", "languages", "transitions", "overlap"]
TABLES = ("histogram", "layers", "languages", "transitions", "overlap")
# Gives changes [draw, ...], after minus before, from the tables of several draws.
ClassMeasure = Callable[[ClassTables], np.ndarray]
Boundaries = Sequence[tuple[int, int]]
# What a model is known by: its counts (with groups: intervals and p-values), or its neurons.
Counted = ActivationStatistics | LanguageNeurons
REMEDY = (
    "count more items, collect with other groups, or compare both models as "
    "statistics.resample(np.ones(n_groups, int)), without intervals"
)
MAY_CHANGE = ("model", "revision", "weights", "config", "interventions")


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

    def __getitem__(self, chosen: Any) -> Change:
        """Some of the changes, by an index or a mask of NumPy."""
        arrays = (self.estimate, self.low, self.high, self.p)
        return Change(*(np.asarray(one[chosen]) for one in arrays), level=self.level)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Value):
    """Classes of all neurons before and after, at one bar. Made by `compare`.

    Attributes:
        languages: codes, in the order of the language axes.
        n_layers: layers of the model.
        d_mlp: neurons a layer.
        tau: the bar of both models.
        tau_origin: where it comes from.
        flat: int64 [neuron], the neurons that exceed the bar somewhere, ``layer * d_mlp + neuron``;
            all others have N = 0 before and after.
        above: bool [model, language, neuron], where p > tau; model 0 is before, 1 after.
        selected: bool [neuron], which have the lowest scores before (`identify`); the claims about
            English are about these.
        trained: languages that the model after was trained on.
        pivot: the language that they were aligned to, or None.
        left_out: the tables without each group of items; None without groups.
        alone: the tables of each group alone; None without groups.
        sharing: the sharing hypothesis; None without trained or without untouched languages.
        provenance: of the two models.
    """

    FILE_KIND = "comparison"
    AXES = {
        "n_before": ("layer", "neuron"),
        "n_after": ("layer", "neuron"),
        "transitions": ("languages_before", "languages_after"),
    }

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
        """``"trained"``, ``"untouched"`` or ``"pivot"``; empty where `trained` is.

        Raises:
            LensNeuronsError: no such language; the message lists them.
        """
        choose(language, self.languages, "language")
        if not self.trained:
            return ""
        if language in self.trained:
            return "trained"
        return "pivot" if language == self.pivot else "untouched"

    @cached_property
    def tables(self) -> ClassTables:
        """Counts of classes over all items: one draw."""
        return self.count([self.above])

    def count(self, draws: Iterable[ModelMemberships]) -> ClassTables:
        """Counts of classes for draws of memberships of the neurons in `flat`."""
        shape = {"n_layers": self.n_layers, "d_mlp": self.d_mlp}
        return count_classes(draws, self.flat // self.d_mlp, selected=self.selected, **shape)

    @cached_property
    def n_before(self) -> NeuronNumbers:
        """int64 [layer, neuron]: N before."""
        return self._n_above(0)

    @cached_property
    def n_after(self) -> NeuronNumbers:
        """int64 [layer, neuron]: N after."""
        return self._n_above(1)

    def _n_above(self, model: int) -> NeuronNumbers:
        numbers = np.zeros((self.n_layers, self.d_mlp), np.int64)
        numbers.flat[self.flat] = self.above[model].sum(axis=0)
        return numbers

    @property
    def transitions(self) -> Int64[np.ndarray, "n_before n_after"]:
        """int64 [N before, N after]: how many neurons went from which N to which."""
        return self.tables.transitions[0]

    @plain_options
    def change(self, measure: ClassMeasure, *, level: float = 0.95) -> Change:
        """A change of class counts with its interval and p-value.

        Args:
            measure: a method of `ClassTables`, such as ``ClassTables.class_change_by_layer``, or
                any function that gives changes [draw, ...], after minus before, from such tables.
            level: coverage.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        estimate = np.asarray(measure(self.tables)[0], float)
        low, high = self._ends(estimate, measure, level)
        p = np.full(low.shape, np.nan) if self.alone is None else swap_p(measure(self.alone))
        return Change(estimate, low, high, p, level)

    def _ends(self, estimate: np.ndarray, measure: ClassMeasure, level: float) -> list[np.ndarray]:
        """Low and high ends of the jackknife interval; NaN without groups."""
        if self.left_out is None:
            return [np.full(estimate.shape, np.nan)] * 2
        ends = jackknife_interval(estimate, measure(self.left_out), level=level)
        return [ends.low, ends.high]

    @plain_options
    def to_pandas(self, table: TableName = "histogram", *, level: float = 0.95) -> pd.DataFrame:
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
        if table == "transitions":
            return self._transitions_table(level)
        if table == "overlap":
            return self._overlap_table(level)
        whole, k, names = self.tables, len(self.languages), list(CLASSES)
        if table == "histogram":
            keys: dict[str, Any] = {"n": list(range(k + 1)), "class": class_names(k)}
            counts, measure = whole.layers[0].sum(axis=1), ClassTables.histogram_change
        elif table == "layers":
            layers = np.repeat(np.arange(self.n_layers), len(names))
            keys = {"layer": layers, "class": names * self.n_layers}
            counts, measure = by_class(whole.layers[0]), ClassTables.class_change_by_layer
        else:
            each = [language for language in self.languages for _ in names[:2]]
            roles = [self.role_of(language) for language in each]
            keys = {"language": each, "role": roles, "class": names[:2] * k}
            counts = by_class(whole.members[0], names[:2])
            measure = ClassTables.class_change_by_language
        return _change_table(keys, counts, self.change(measure, level=level))

    @plain_options
    def part_changes(self, parts: LayerParts | Boundaries, *, level: float = 0.95) -> pd.DataFrame:
        """One row a part and class: part, first, last, class, before, after, change, low, high, p.

        Args:
            parts: what `divide_layers` found, or first and last layers.
            level: coverage.

        Raises:
            LensNeuronsError: no four parts were found, or layers that are not there.
        """
        spans = boundaries_of(parts, self.n_layers)

        def by_part(counts: np.ndarray) -> np.ndarray:
            sums = [counts[..., first : last + 1, :].sum(axis=-2) for first, last in spans]
            return by_class(np.stack(sums, axis=-2))

        numbers = np.repeat(np.arange(len(spans)), len(CLASSES))
        first, last = np.array(spans)[numbers].T
        keys = {"part": numbers + 1, "first": first, "last": last}
        change = self.change(lambda t: by_part(t.layer_change()), level=level)
        counts = by_part(self.tables.layers[0])
        return _change_table({**keys, "class": list(CLASSES) * len(spans)}, counts, change)

    def _transitions_table(self, level: float) -> pd.DataFrame:
        import pandas as pd

        # Swapping before and after in a group turns its transitions round, so the swap test is one
        # of the net flow.
        net = self.change(lambda t: t.transitions - t.transitions.swapaxes(1, 2), level=level)
        found = self.transitions.astype(float)
        low, high = self._ends(found, lambda t: t.transitions, level)
        before, after = np.indices(found.shape)
        columns = {"n_before": before, "n_after": after, "neurons": self.transitions}
        columns |= {
            "low": np.maximum(low, 0.0),
            "high": high,
            "net": net.estimate.astype(np.int64),
            "p": net.p,
        }
        return pd.DataFrame({name: column.ravel() for name, column in columns.items()})

    def _overlap_table(self, level: float) -> pd.DataFrame:
        import pandas as pd

        def jaccard_of(tables: ClassTables) -> np.ndarray:
            before, after, both = _overlaps(tables)
            return ratio(both, before + after - both)

        before, after, both = _overlaps(self.tables)[:, 0]
        jaccard = jaccard_of(self.tables)[0]
        low, high = np.clip(self._ends(jaccard, jaccard_of, level), 0, 1)
        columns = {"language": list(self.languages), "before": before, "after": after}
        columns |= {"both": both, "expected": self._expected_overlap()}
        columns |= {"jaccard": jaccard, "jaccard_low": low, "jaccard_high": high}
        columns |= {"dice": ratio(2 * both, before + after), "containment": ratio(both, before)}
        return pd.DataFrame(columns)

    def _expected_overlap(self) -> np.ndarray:
        """float64 [language]: neurons that random sets with as many a layer have in common."""
        number = self.above.sum(axis=1)
        between = (number > 0) & (number < len(self.languages))
        layer = self.flat // self.d_mlp
        members = self.above & between[:, None]
        before, after = (
            np.array([np.bincount(layer[one], minlength=self.n_layers) for one in model])
            for model in members
        )
        return (before * after).sum(axis=1) / self.d_mlp

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, details = Value._pack(replace(self, left_out=None, alone=None, sharing=None))
        for name in _TABLES_OF:
            value = getattr(self, name)
            own = ({}, {}) if value is None else value._pack()
            arrays |= {f"{name}.{key}": array for key, array in own[0].items()}
            details |= {f"{name}.{key}": entry for key, entry in own[1].items()}
        return arrays, details

    @classmethod
    def _unpack(cls, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> Comparison:
        parts = {}
        for name, value in _TABLES_OF.items():
            start = f"{name}."
            own = [
                {key.removeprefix(start): entry for key, entry in some.items() if start in key}
                for some in (arrays, details)
            ]
            parts[name] = value._unpack(*own) if any(own) else None
        own_arrays, own_details = (
            {key: entry for key, entry in some.items() if key.partition(".")[0] not in _TABLES_OF}
            for some in (arrays, details)
        )
        return replace(super()._unpack(own_arrays, own_details), **parts)

    @property
    def description(self) -> str:
        """Population, bar, items and training in one line, for the subtitle of every figure."""
        bar = f"tau {self.tau:.4f} ({self.tau_origin})"
        groups = f"{self.n_groups} groups of items" if self.n_groups > 1 else "no intervals"
        training = f"; trained {' '.join(self.trained)}" if self.trained else ""
        return f"all {self.n_layers * self.d_mlp:,} neurons; {bar}; {groups}{training}"

    def _brief(self) -> str:
        moved = self.tables.histogram_change()[0]
        told = ", ".join(f"{n}: {change:+d}" for n, change in enumerate(moved))
        return f"{self.description}; neurons by N {told}"

    def _overview(self) -> Overview:
        rows = []
        for n, name, before, after, change, low, high, p in self.to_pandas().itertuples(
            index=False
        ):
            ends = "" if np.isnan(low) else f" ({low:+.1f} to {high:+.1f})"
            rows.append((n, name, before, after, f"{change:+g}{ends}", p_text(p)))
        head = ("N", "class", "before", "after", "change", "p")
        return Overview(f"Comparison: {self.description}", head, rows)


_TABLES_OF: dict[str, type[Value]] = {
    "left_out": ClassTables, "alone": ClassTables, "sharing": Sharing,
}  # fmt: skip


def p_text(p: float) -> str:
    """A p-value, or nothing."""
    return "" if np.isnan(p) else f"{p:.3g}"


def boundaries_of(parts: LayerParts | Boundaries, n_layers: int) -> list[tuple[int, int]]:
    """First and last layers of parts, checked against the layers of the model.

    Raises:
        LensNeuronsError: no four parts were found, or layers that overlap or are not there.
    """
    given = parts.boundaries if isinstance(parts, LayerParts) else parts
    if given is None:
        raise LensNeuronsError(
            f"four parts were not found: {parts!r}. Give first and last layers yourself, such "
            "as [(0, 4), (5, 19), (20, 30), (31, 31)]"
        )
    spans = [(int(first), int(last)) for first, last in given]
    edges = [edge for first, last in spans for edge in (first, last + 1)]
    if not spans or edges != sorted(edges) or edges[0] < 0 or edges[-1] > n_layers:
        raise LensNeuronsError(
            f"parts {spans} are not first and last layers, in order, of {n_layers} layers"
        )
    return spans


def _change_table(keys: Mapping[str, Any], counts: np.ndarray, change: Change) -> pd.DataFrame:
    """Keys, then counts [model, ...] and their change."""
    import pandas as pd

    before, after = counts
    columns = {"before": before, "after": after, "change": after - before}
    columns |= {"low": change.low, "high": change.high, "p": change.p}
    return pd.DataFrame({**keys, **{name: column.ravel() for name, column in columns.items()}})


def _overlaps(tables: ClassTables) -> np.ndarray:
    """int64 [before, after and both; draw; language]: specific and related neurons."""
    sizes = of_class(tables.members, "specific + related")
    return np.stack([sizes[:, 0], sizes[:, 1], tables.stayed])


@plain_options
def compare(
    before: Counted,
    after: Counted,
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
        tau: one bar for both, or ``"before"``: the percentile of the first model, or the bar that
            its neurons were identified with.
        percentile: of all activation probabilities of `before`; only for statistics.
        trained: languages that the second model was trained on, to compare with untouched ones.
        pivot: the language that others were aligned to, neither trained nor untouched; without
            effect where it was not counted.
        flips: draws of the null of the sharing hypothesis.
        seed: the same seed gives the same result.

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
    pair = None
    if isinstance(before, ActivationStatistics) and isinstance(after, ActivationStatistics):
        pair = pair_counts(before, after, bar)
        rates, flat = pair.whole(), pair.flat
    else:
        order = [after.languages.index(language) for language in before.languages]
        ours = before.probability.reshape(-1, len(order))
        theirs = after.probability.reshape(-1, len(order))[:, order]
        flat = np.flatnonzero((ours > bar).any(axis=1) | (theirs > bar).any(axis=1))
        rates = np.stack([ours[flat].T, theirs[flat].T])
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
    groups = range(len(pair.counts) if pair is not None and len(pair.counts) > 1 else 0)
    if pair is not None and groups:
        require_spread(pair.tokens, found.languages, REMEDY)
        left_out, alone = (
            found.count(of(group) > bar for group in groups) for of in (pair.left_out, pair.alone)
        )
        found = replace(found, left_out=left_out, alone=alone)
    if not found.trained or not found.untouched:
        return found
    sharing = measure_sharing(
        rates,
        flat // found.d_mlp,
        (pair.left_out(group) for group in groups if pair is not None),
        tau=bar,
        candidates=[i for i, k in enumerate(found.languages) if k != found.pivot],
        trained=[found.languages.index(k) for k in found.trained],
        flips=flips,
        seed=seed,
    )
    return replace(found, sharing=sharing)


def _matched(before: Counted, after: Counted) -> Counted:
    """`after`, checked against `before`; statistics come with their languages in its order."""
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


def _bar(before: Counted, tau: float | str, percentile: float) -> tuple[float, str]:
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
    """The trained languages, checked, in the order of the corpus."""
    if isinstance(trained, str):
        raise LensNeuronsError(f"trained={trained!r} is one text: write ({trained!r},)")
    for language in trained:
        choose(language, languages, "trained language")
    if pivot in trained:
        raise LensNeuronsError(
            f"{pivot!r} is both trained and pivot: pass pivot=None, or leave it out of trained"
        )
    return tuple(language for language in languages if language in trained)


def _selected(before: Counted, tau: float) -> NeuronMask:
    """The selected neurons of the model before; none where no lambda selects any."""
    if isinstance(before, LanguageNeurons):
        return before.selected
    try:
        return identify(before, tau=tau).selected
    except IdentificationError:
        return np.zeros((before.n_layers, before.d_mlp), bool)
