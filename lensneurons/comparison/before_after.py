"""What changed between two models that read the same texts: before and after alignment.

    compare(before, after): class of every neuron at ONE bar -> changes, each beside its nulls

The classes are those of arXiv 2505.21505, section 3, over *all* neurons (`class_counts`). Both
models are classified at one shared tau, by default that of the model before. With each model's own
percentile, exactly 5 % of all memberships would pass in each, and "more neurons are shared after
alignment" could not be seen. But at a fixed bar a model that is merely *busier* shows more shared
neurons too. So every change stands beside those that need no sharing
(`lensneurons.comparison.nulls`):

    uniform   the layer's median shift on every logit      drift   the same and undirected noise
    alike     what each neuron does in its other languages, and noise
    own_bar   the model after at the bar that as many probabilities exceed as before
    beyond    change less uniform: what an equal rise of all firing does not explain

Intervals and p-values (bootstrap over groups of items, the same groups for both models) need
``collect(..., groups=10)``; a number, its interval and its p are of one statistic
(`lensneurons.uncertainty.drawn`). The bar stays fixed in all draws, because it is part of the
definition.

>>> change = ln.compare(before, after, trained=("zh", "de"))                  # doctest: +SKIP
>>> change.to_pandas()                          # neurons with N = 0 ... K     # doctest: +SKIP
>>> change.to_pandas("transitions")             # from N to N                  # doctest: +SKIP
>>> change.part_changes(parts)                  # classes by part              # doctest: +SKIP
>>> ln.claims(change, parts=parts)              # the paper's claims, tested   # doctest: +SKIP

What this does not show: that alignment caused a change (compare a control trained on something
else), or that a neuron whose class changed matters (ablate it). p and the interval of a change say
that it would come back with other texts, not that it is sharing. Tables hold many p-values, which
are not corrected for their number; those of `claims` are.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Int64

from lensneurons.activations.statistics import ActivationStatistics, require_comparable
from lensneurons.comparison.change_tables import (
    CHANGE_ARRAYS,
    Boundaries,
    boundaries_of,
    change_table,
    overlap_table,
    transitions_table,
)
from lensneurons.comparison.class_counts import (
    CLASSES,
    ClassTables,
    by_class,
    class_names,
    count_classes,
    pair_counts,
)
from lensneurons.comparison.nulls import (
    NULLS_VERSION,
    REMEDY,
    draw_tables,
    layer_shifts,
    raise_uniformly,
    require_same_nulls,
)
from lensneurons.comparison.sharing import Sharing, measure_sharing
from lensneurons.errors import (
    EmptySetWarning,
    IdentificationError,
    LensNeuronsError,
    ProvenanceError,
    choose,
)
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.neurons.scores import percentile_bar
from lensneurons.options import plain_options
from lensneurons.shapes import FlatNeurons, ModelMemberships, NeuronMask, NeuronNumbers, RowMask
from lensneurons.uncertainty.drawn import Tested, degrees_of, drawn_error, student
from lensneurons.uncertainty.groups import require_level, require_spread
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance, require_same

if TYPE_CHECKING:
    import pandas as pd

TableName = Literal["histogram", "layers", "languages", "transitions", "overlap"]
TABLES = ("histogram", "layers", "languages", "transitions", "overlap")
# Gives changes [draw, ...], after minus before, from the tables of several draws.
ClassMeasure = Callable[[ClassTables], np.ndarray]
# What a model is known by: its counts (with groups: intervals and p-values), or its neurons.
Counted = ActivationStatistics | LanguageNeurons
REACH = 1.75  # logits below the bar from which drift and shifts may carry a neuron above it
MAY_CHANGE = ("model", "revision", "weights", "config", "interventions")


@dataclass(frozen=True, eq=False)
class Change:
    """A change, or an array of changes, beside what its nulls give.

    Attributes:
        estimate: after minus before, on all items.
        low: lower end of its interval over texts; NaN without groups.
        high: upper end.
        p: two-sided p-value of "no change"; NaN without groups.
        uniform: the change that the layers' median shifts alone give.
        beyond: `estimate` less `uniform`.
        beyond_low: lower end of its interval; NaN without groups.
        beyond_high: upper end.
        beyond_p: its two-sided p-value.
        drift: the change that noise without a direction gives; NaN without groups.
        alike: the change that what neurons do in their other languages gives; NaN without groups.
        own_bar: the change at each model's own bar.
        level: coverage of the intervals.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    uniform: np.ndarray
    beyond: np.ndarray
    beyond_low: np.ndarray
    beyond_high: np.ndarray
    beyond_p: np.ndarray
    drift: np.ndarray
    alike: np.ndarray
    own_bar: np.ndarray
    level: float

    def __getitem__(self, chosen: Any) -> Change:
        """Some of the changes, by an index or a mask of NumPy."""
        return self.each(lambda array: array[chosen])

    def each(self, turn: Callable[[np.ndarray], Any]) -> Change:
        """The same with every array turned into another, such as one of another shape."""
        arrays = {name: np.asarray(turn(getattr(self, name))) for name in CHANGE_ARRAYS}
        return Change(**arrays, level=self.level)


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
        own_tau: the bar of the model after that as many of its probabilities exceed as exceed tau
            before.
        uniform: the tables of the model before and of the same with every logit raised by its
            layer's median shift; one draw.
        own_bar: the tables of the model before at tau, and of the model after at `own_tau`.
        drift: the tables of the model before and of the same after a drift, draw by draw; None
            without groups.
        alike: the tables of the model before and of the same after every neuron moved, in each
            language, as it did in its other languages, draw by draw; None without groups.
        drawn: the tables of both models on drawn groups of items; None without groups.
        uniform_drawn: those of `uniform` on the same groups.
        drift_drawn: those of `drift` on the same groups.
        alike_drawn: those of `alike` on the same groups.
        n_groups: groups of items; 1 where there are no intervals.
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
    own_tau: float = float("nan")
    uniform: ClassTables | None = None
    own_bar: ClassTables | None = None
    drift: ClassTables | None = None
    alike: ClassTables | None = None
    drawn: ClassTables | None = None
    uniform_drawn: ClassTables | None = None
    drift_drawn: ClassTables | None = None
    alike_drawn: ClassTables | None = None
    n_groups: int = 1
    sharing: Sharing | None = None
    provenance: tuple[Provenance, Provenance] = (Provenance(), Provenance())

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
        """A change of class counts with its interval and p-value, beside its nulls.

        Args:
            measure: a method of `ClassTables`, such as ``ClassTables.class_change_by_layer``, or
                any function that gives changes [draw, ...], after minus before, from such tables.
            level: coverage.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        estimate = np.asarray(measure(self.tables)[0], float)
        nulls = (self.uniform, self.drift, self.alike, self.own_bar)
        uniform, *rest = (
            np.full(estimate.shape, np.nan) if one is None else measure(one).mean(axis=0)
            for one in nulls
        )
        first = self.tested(estimate, lambda of: measure(of[0]), level)
        more = np.asarray(estimate - uniform)
        beyond = self.tested(more, lambda of: measure(of[0]) - measure(of[1]), level)
        arrays = (estimate, first.low, first.high, first.p, uniform, beyond.estimate)
        arrays += (beyond.low, beyond.high, beyond.p, *rest)
        return Change(*map(np.asarray, arrays), level=level)

    def tested(
        self,
        estimate: np.ndarray,
        measure: Callable[[tuple[ClassTables, ...]], np.ndarray],
        level: float,
    ) -> Tested:
        """Intervals and p-values of numbers that `measure` gives from the drawn tables of both
        models and of the nulls (`all_drawn`); NaN without groups.
        """
        require_level(level)
        error, drawn = np.full(estimate.shape, np.nan), self.all_drawn
        if drawn is not None:
            error = drawn_error(measure(drawn), self.n_groups)
        return student(estimate, error, degrees_of(self.n_groups), level=level)

    @property
    def all_drawn(self) -> tuple[ClassTables, ...] | None:
        """The drawn tables of both models, and of `uniform`, `drift` and `alike`."""
        four = (self.drawn, self.uniform_drawn, self.drift_drawn, self.alike_drawn)
        return None if None in four else four  # pyright: ignore[reportReturnType]

    @plain_options
    def to_pandas(self, table: TableName = "histogram", *, level: float = 0.95) -> pd.DataFrame:
        """One of the tables of the comparison.

        Args:
            table: ``"histogram"`` (one row an N), ``"layers"`` (a layer and class),
                ``"languages"`` (a language and class), each with before, after and the columns of
                `Change`; ``"transitions"`` (N before and after: neurons, low, high, and the net
                flow, neurons that went this way less those that went back, with its p); or
                ``"overlap"`` (a language: its specific and related neurons before, after and in
                both, those expected of random sets with as many neurons a layer, Jaccard with its
                interval, Dice, containment).
            level: coverage of the intervals.

        Raises:
            LensNeuronsError: no such table, or a level outside (0, 1).
        """
        choose(table, TABLES, "table")
        if table == "transitions":
            return transitions_table(self, level)
        if table == "overlap":
            return overlap_table(self, level)
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
        return change_table(keys, counts, self.change(measure, level=level))

    @plain_options
    def part_changes(self, parts: LayerParts | Boundaries, *, level: float = 0.95) -> pd.DataFrame:
        """One row a part and class: part, first, last, class, before, after, columns of `Change`.

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
        return change_table({**keys, "class": list(CLASSES) * len(spans)}, counts, change)

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, details = Value._pack(replace(self, **dict.fromkeys(_TABLES_OF)))
        for name in _TABLES_OF:
            value = getattr(self, name)
            own = ({}, {}) if value is None else value._pack()
            arrays |= {f"{name}.{key}": array for key, array in own[0].items()}
            details |= {f"{name}.{key}": entry for key, entry in own[1].items()}
        return arrays, details | {"nulls": NULLS_VERSION}

    @classmethod
    def _unpack(cls, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> Comparison:
        details = dict(details)
        remedy = "delete the file, and compare the two runs again"
        require_same_nulls(details.pop("nulls", None), "this comparison", remedy)
        parts = {}
        for name, value in _TABLES_OF.items():
            start = f"{name}."
            own = [
                {
                    key.removeprefix(start): entry
                    for key, entry in some.items()
                    if key.startswith(start)
                }
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
        """Population, bar, items, training and whether a model is a control, in one line."""
        bar = f"tau {self.tau:.4f} ({self.tau_origin})"
        groups = f"{self.n_groups} groups of items" if self.n_groups > 1 else "no intervals"
        training = f"; trained {' '.join(self.trained)}" if self.trained else ""
        for when, of in zip(("before", "after"), self.provenance, strict=True):
            if control := re.search(r"\(control: (.+)\)", of.model):  # as the model was loaded
                training += f"; CONTROL {when}: {control[1]}"
        return f"all {self.n_layers * self.d_mlp:,} neurons; {bar}; {groups}{training}"

    def _brief(self) -> str:
        moved = self.tables.histogram_change()[0]
        told = ", ".join(f"{n}: {change:+d}" for n, change in enumerate(moved))
        return f"{self.description}; neurons by N {told}"

    def _overview(self) -> Overview:
        rows = []
        for row in self.to_pandas().to_dict("records"):
            change, beyond = (
                f"{row[name]:+g}"
                + ("" if np.isnan(row[low]) else f" ({row[low]:+.1f} to {row[high]:+.1f})")
                for name, low, high in (
                    ("change", "low", "high"),
                    ("beyond", "beyond_low", "beyond_high"),
                )
            )
            rest = (f"{row['uniform']:+g}", beyond, f"{row['drift']:+.1f}")
            rest += (f"{row['alike']:+.1f}", f"{row['own_bar']:+g}")
            rows.append((row["n"], row["class"], row["before"], row["after"], change, *rest))
        names = ("N", "class", "before", "after", "change", "uniform", "beyond", "drift", "alike")
        return Overview(f"Comparison: {self.description}", (*names, "own bar"), rows)


_TABLES_OF: dict[str, type[Value]] = {
    "uniform": ClassTables, "own_bar": ClassTables, "drift": ClassTables, "alike": ClassTables,
    "drawn": ClassTables, "uniform_drawn": ClassTables, "drift_drawn": ClassTables,
    "alike_drawn": ClassTables, "sharing": Sharing,
}  # fmt: skip


@plain_options
def compare(
    before: Counted,
    after: Counted,
    *,
    tau: float | Literal["before"] = "before",
    percentile: float = 0.95,
    trained: Sequence[str] = (),
    pivot: str | None = "en",
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
    own_bar = _own_bar(before, after, bar)
    pair = None
    if isinstance(before, ActivationStatistics) and isinstance(after, ActivationStatistics):
        pair = pair_counts(before, after, _reach(min(bar, own_bar)))
        rates, flat = pair.rates(), pair.flat
    else:
        order = [after.languages.index(language) for language in before.languages]
        ours = before.probability.reshape(-1, len(order))
        theirs = after.probability.reshape(-1, len(order))[:, order]
        near = _reach(min(bar, own_bar))
        flat = np.flatnonzero((ours > near).any(axis=1) | (theirs > near).any(axis=1))
        rates = np.stack([ours[flat].T, theirs[flat].T])
    layer = flat // before.d_mlp
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
        own_tau=own_bar,
        provenance=(before.provenance, after.provenance),
    )
    shift = layer_shifts(rates, layer, bar, found.n_layers)
    uniform = raise_uniformly(rates[0], layer, bar, shift)
    found = replace(
        found,
        uniform=found.count([np.stack([rates[0] > bar, uniform])]),
        own_bar=found.count([np.stack([rates[0] > bar, rates[1] > own_bar])]),
    )
    if pair is not None and len(pair.counts) > 1:
        require_spread(pair.tokens, found.languages, REMEDY)
        drawn = draw_tables(
            *(pair, layer, bar),
            selected=found.selected,
            n_layers=found.n_layers,
            d_mlp=found.d_mlp,
            seed=seed,
        )
        found = replace(found, n_groups=len(pair.counts), **drawn)
    if not found.trained or not found.untouched:
        return found
    sharing = measure_sharing(
        rates,
        layer,
        tau=bar,
        candidates=[i for i, k in enumerate(found.languages) if k != found.pivot],
        trained=[found.languages.index(k) for k in found.trained],
    )
    return replace(found, sharing=sharing)


def _own_bar(before: Counted, after: Counted, tau: float) -> float:
    """The bar that as many probabilities exceed after as exceed tau before."""
    share = float((before.probability <= tau).mean())
    return percentile_bar(after.probability, share)


def _reach(bar: float) -> float:
    """The probability from which a neuron can come above a bar by drift or by a factor."""
    odds = bar / (1 - bar) * np.exp(-REACH) if bar < 1 else np.inf
    return float(odds / (1 + odds)) if np.isfinite(odds) else bar / 2


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
        with warnings.catch_warnings(action="ignore", category=EmptySetWarning):
            return identify(before, tau=tau).selected
    except IdentificationError:
        return np.zeros((before.n_layers, before.d_mlp), bool)
