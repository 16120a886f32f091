"""The effects of removing each language's neurons on each language, beside those of random ones.

    effect                      [row, column], of a set: what `ablation_matrix` measures
    selectivity                 [row], effect on the own language - mean effect on the others
    beyond control              [row, column], effect of the set - mean effect of its random sets
    selectivity beyond control  [row], selectivity of the set - that of its random sets

The last is the headline, against random sets matched by p in the row's language (`matched`). All
are differences, in nats a token or shares of right answers, so none loses its meaning near 0. All
are linear in the means of items. Their intervals are over items, each with all its languages and
its random sets: the outer ends of Student's t, Hall's t and a bootstrap. A cell of accuracy has
Newcombe's paired interval; a ratio has Fieller's, or no value where its denominator is not clear of
zero (`lensneurons.uncertainty.contrasts`). There is none over fewer than `FEWEST` items.

>>> matrix.selectivity_beyond_control("related"), matrix.summary()       # doctest: +SKIP
>>> matrix.matched("related")          # how active the random sets are  # doctest: +SKIP
>>> matrix.marked("related")           # cells beyond any random set     # doctest: +SKIP

`marked` is for many cells at once: of a setting's cells without an effect beyond random sets, any
is marked in at most 5 % of matrices (Holm). It asks for more than an interval of effect less
control that excludes zero. With many items that excludes zero for a random set as well, because no
set does what the mean of sets does; a mark says that one more random set would not be as far off.

What this does not show: see `lensneurons.experiments.ablation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from lensneurons.errors import LensNeuronsError, StorageError, choose
from lensneurons.experiments.controls import Match, Pool, worst_layer
from lensneurons.experiments.metrics import METRICS, Metric
from lensneurons.interventions.editing import AblationMethod
from lensneurons.neurons.language_neurons import LAYER_CLASSES
from lensneurons.options import plain_options
from lensneurons.shapes import LanguageMatrix
from lensneurons.uncertainty.contrasts import (
    fieller_interval,
    holm,
    placebo_p,
    skewed_interval,
    student_interval,
    wider,
)
from lensneurons.uncertainty.groups import Interval, require_level
from lensneurons.uncertainty.items import ItemDraws
from lensneurons.uncertainty.paired import paired_interval
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd
else:
    Self = Any  # the tests check types at run time with beartype, which cannot check Self

FEWEST = 5  # items that an interval needs: of fewer, nobody can say how far they spread

TextEffects = Float64[np.ndarray, "setting row text"]


@dataclass(frozen=True, eq=False, repr=False)
class AblationMatrix(Value):
    """Effects of removing each language's neurons on each language. Made by `ablation_matrix`.

    A setting is the union of the classes up to its own: ``"related"`` removes the specific and the
    related neurons. Sets of somebody's own are settings too, which do not build on each other.

    Attributes:
        rows: languages whose neurons were removed.
        languages: languages that were evaluated, the columns.
        classes: the settings, each named by the class that it adds, or as somebody called it.
        matches: what the random sets have in common with the set, one control each.
        metric: what a cell measures: ``"nll"`` (nats a token) or ``"accuracy"`` (share of right
            answers in the right language).
        base: float64 [text], NLL (or 1 for a right answer) of the model without any ablation.
        effect: float64 [setting, row, text], what the ablation adds to it.
        control: float64 [match, setting, row, text], what the random sets of the text's item add,
            their mean.
        weight: float64 [text], counted tokens (or 1).
        language: int [text], number of each text's language.
        item_ids: name of each text's item.
        neurons_by_layer: int64 [setting, row, layer], how many neurons were removed.
        identified: languages that the neurons were identified in, the last axis of `rates`.
        rates: float64 [1 + match, setting, row, layer, identified], mean activation probability of
            the neurons of the set, then of those of each control; NaN where the set has none.
        draws: random sets of each control; each item meets as many of its own.
        method: what stood in for the activations: ``"zero"``, ``"mean"`` or ``"resample"``.
        pool: which neurons the random sets were drawn from.
        provenance: model, corpus and scope.
        made_from: how the neurons were identified; None in files of an earlier lensneurons.
    """

    FILE_KIND = "ablation matrix"
    RUN_FILE = "ablation.safetensors"
    AXES = {
        **dict.fromkeys(("base", "weight", "language"), ("text",)),
        "effect": ("setting", "row", "text"),
        "control": ("match", "setting", "row", "text"),
        "neurons_by_layer": ("setting", "row", "layer"),
        "rates": ("neurons", "setting", "row", "layer", "identified"),
    }
    COORDINATES = {
        "setting": "classes",
        "row": "rows",
        "text": "item_ids",
        "match": "matches",
        "neurons": "sides",
        "identified": "identified",
    }

    rows: tuple[str, ...]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    matches: tuple[Match, ...]
    metric: Metric
    base: Float64[np.ndarray, " text"]
    effect: TextEffects
    control: Float64[np.ndarray, "match setting row text"]
    weight: Float64[np.ndarray, " text"]
    language: Int[np.ndarray, " text"]
    item_ids: tuple[str, ...]
    neurons_by_layer: Int64[np.ndarray, "setting row layer"]
    identified: tuple[str, ...]
    rates: Float64[np.ndarray, "side setting row layer identified"]
    draws: int
    method: AblationMethod = "zero"
    pool: Pool = "all"
    provenance: Provenance = field(default_factory=Provenance)
    made_from: str | None = None

    @classmethod
    def _unpack(cls, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> Self:
        if "matches" not in details:
            raise StorageError(
                "it was made when items shared random sets and did not say in which language these "
                "were as active, so its controls have no valid interval"
            )
        return super()._unpack(arrays, details)

    @property
    def sizes(self) -> Int64[np.ndarray, "setting row"]:
        """int64 [setting, row]: how many neurons were removed."""
        return self.neurons_by_layer.sum(axis=-1)

    @property
    def sides(self) -> tuple[str, ...]:
        """What the first axis of `rates` names: the set, then the match of each control."""
        return ("set", *self.matches)

    @property
    def n_items(self) -> int:
        """Number of different items."""
        return len(set(self.item_ids))

    @property
    def too_few(self) -> str:
        """Why there are no intervals, such as ``"3 items: too few for an interval"``; or empty."""
        told = "item" if self.n_items == 1 else "items"
        return f"{self.n_items} {told}: too few for an interval" if self.n_items < FEWEST else ""

    def cells(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: mean effect in a setting; None for the last one.

        Raises:
            LensNeuronsError: no such setting.
        """
        return self._means(self.effect)[self._place(setting)]

    def control_cells(
        self, setting: str | None = None, match: Match | None = None
    ) -> LanguageMatrix:
        """float64 [row, column]: mean effect of the random sets of a match; None for the first.

        Raises:
            LensNeuronsError: no such setting or match.
        """
        side = self._side(match or self.matches[0])
        return self._means(self.control)[side - 1, self._place(setting)]

    @plain_options
    def interval(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Cells with intervals over items, [row, column]; those of accuracy are paired."""
        found = self._interval(self._values(setting)[:, 0], level)
        return self._paired(found, self._place(setting)) if self.metric == "accuracy" else found

    @plain_options
    def control_interval(
        self, setting: str | None = None, match: Match | None = None, *, level: float = 0.95
    ) -> Interval:
        """Control cells with intervals over items, each with its draws, [row, column]."""
        side = self._side(match or self.matches[0])
        return self._interval(self._values(setting)[:, side], level)

    @plain_options
    def beyond_control(
        self, setting: str | None = None, match: Match = "own", *, level: float = 0.95
    ) -> Interval:
        """Effect of the set less that of its random sets, [row, column]."""
        values, side = self._values(setting), self._side(match)
        return self._interval(values[:, 0] - values[:, side], level)

    @plain_options
    def selectivity(
        self, setting: str | None = None, match: Match | None = None, *, level: float = 0.95
    ) -> Interval:
        """Effect on the own language less the mean effect on the others, [row].

        Args:
            setting: None for the last one.
            match: of the random sets whose selectivity it is; None for the set itself.
            level: coverage.

        Returns:
            In the unit of the cells; NaN for a row that is no column, or the only one.
        """
        own, others = self._own_and_others(self._values(setting)[:, self._side(match)])
        return self._interval(own - others, level)

    @plain_options
    def selectivity_ratio(
        self, setting: str | None = None, match: Match | None = None, *, level: float = 0.95
    ) -> Interval:
        """Effect on the own language over the mean effect on the others, [row]; Fieller's ends.

        NaN where the mean effect on the others is not clear of zero.
        """
        own, others = self._own_and_others(self._values(setting)[:, self._side(match)])
        return self._ratio(own, others, level)

    @plain_options
    def selectivity_beyond_control(
        self, setting: str | None = None, match: Match = "own", *, level: float = 0.95
    ) -> Interval:
        """Selectivity of the set less that of its random sets, on the same items, [row].

        The evidence that the neurons belong to the language, if the random sets are as active in
        it (``match="own"``).
        """
        own, others = self._own_and_others(self._values(setting))
        selectivity = own - others
        return self._interval(selectivity[:, 0] - selectivity[:, self._side(match)], level)

    @plain_options
    def placebo_p(self, setting: str | None = None, match: Match = "own") -> LanguageMatrix:
        """P of "one more random set could be as far from the mean of such sets", [row, column].

        Two-sided, and rather too large (`lensneurons.uncertainty.contrasts.placebo_p`). NaN without
        intervals, and where nothing was removed.
        """
        found = self._placebo_p(self._values(setting), match)
        return np.where((self.sizes[self._place(setting)] > 0)[:, None], found, np.nan)

    def mean_placebo_p(self, setting: str | None = None, match: Match = "own") -> dict[str, float]:
        """`placebo_p` of the means of `figures`: one more random set in every row, as far off."""
        means, k = self._mean_effects(self._values(setting)), max(int(self.own_cells.sum()), 1)
        return {name: float(self._placebo_p(values, match, k)) for name, values in means.items()}

    @plain_options
    def marked(
        self, setting: str | None = None, match: Match = "own", *, level: float = 0.95
    ) -> Bool[np.ndarray, "row column"]:
        """Bool [row, column]: cells above or below what one more random set could do (Holm).

        Of all cells of a setting that are not, any is marked in at most 5 % of matrices.
        """
        require_level(level)
        return holm(self.placebo_p(setting, match)) <= 1 - level

    @plain_options
    def figures(self, setting: str | None = None, *, level: float = 0.95) -> dict[str, Interval]:
        """The figures of `summary` of one setting: name to a number with its interval.

        Ratios have no value where the interval of the denominator holds zero; p has no interval.
        """
        means = self._mean_effects(self._values(setting))
        place, p, found = self._place(setting), self._own_p(self._place(setting)), {}
        k = max(int(self.own_cells.sum()), 1)
        for side, match in enumerate(self.sides):
            head = f"control ({match}): " if side else ""
            for name, values in means.items():
                found[head + name] = self._interval(values[:, side], level, k)
            found[f"{head}diagonal / off-diagonal"] = self._ratio(
                means["mean diagonal"][:, side], means["mean off-diagonal"][:, side], level
            )
            told = np.mean(p[side][~np.isnan(p[side])]) if self.sizes[place].any() else np.nan
            found[f"{head}p in the own language"] = Interval.of(told, np.nan, np.nan, level, "none")
        for side, match in enumerate(self.matches, start=1):
            for name, values in means.items():
                beyond = values[:, 0] - values[:, side]
                found[f"beyond control ({match}): {name}"] = self._interval(beyond, level, k)
        if "en" in self.rows and "en" in self.languages:
            at = self.rows.index("en"), self.languages.index("en")
            found["English on itself"] = self._interval(self._values(setting)[:, 0, *at], level)
        return found

    @plain_options
    def summary(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a setting and figure: removed, figure, estimate, low, high.

        Figures, of the set and of each control: mean diagonal, mean off-diagonal, selectivity (mean
        over the rows), the ratio of the first two, and p in the row's language (mean over the
        rows); then how far the set goes beyond each control; and the English cell where English is
        a row. Ends are NaN over fewer than five items (`too_few` says so), and those of p.
        """
        import pandas as pd

        rows = [
            (self.name_of(setting), name, *(float(x) for x in (f.estimate, f.low, f.high)))
            for setting in self.classes
            for name, f in self.figures(setting, level=level).items()
        ]
        return pd.DataFrame(rows, columns=["removed", "figure", "estimate", "low", "high"])

    def name_of(self, setting: str | None = None) -> str:
        """What a setting removes, such as ``"specific + related"``."""
        place = self._place(setting)
        own = self.classes[place] not in LAYER_CLASSES  # sets that do not build on each other
        return self.classes[place] if own else " + ".join(self.classes[: place + 1])

    def log_perplexity_difference(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: ``ln(1 + difference of perplexity)``, the paper's figure.

        NaN where the perplexity falls by 1 or more.

        Raises:
            LensNeuronsError: the metric is not the NLL.
        """
        if self.metric != "nll":
            raise LensNeuronsError("perplexity needs metric='nll', these cells hold accuracy")
        before = self._means(self.base)
        added = np.exp(before + self.cells(setting)) - np.exp(before)
        return np.log1p(added, out=np.full_like(added, np.nan), where=added > -1)

    def language_order(self, setting: str | None = None) -> tuple[str, ...]:
        """The rows, ordered so that languages with similar effects stand side by side.

        Average linkage on the correlation distance between the effects of two rows on the columns
        that are neither's own, with optimal ordering of the leaves.
        """
        from scipy.cluster.hierarchy import leaves_list, linkage
        from scipy.spatial.distance import squareform

        distance = _row_distances(self.cells(setting), self.own_cells)
        if len(self.rows) < 3:
            return self.rows
        tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
        return tuple(self.rows[i] for i in leaves_list(tree))

    def mean_p(self, setting: str | None = None) -> Float64[np.ndarray, "side 2"]:
        """float64 [side, 2]: mean p of the set and each control, in the own and other languages.

        Means over the rows that remove anything; NaN where there is none.
        """
        p, found = self._p(self._place(setting)), []
        own = np.array(self.rows)[:, None] == np.array(self.identified)[None, :]
        for mask in (own, ~own):
            values = p[:, mask]
            found.append(_mean(values[:, ~np.isnan(values).any(axis=0)]))
        return np.stack(found, axis=-1)

    def matched(self, setting: str | None = None) -> pd.DataFrame:
        """How well the random sets of a setting match it: one row a language removed and match.

        Columns: row, match, neurons; p_own and control_p_own, mean activation probability of the
        set and of its control in the row's language; p_others and control_p_others, in the others;
        layer, where the two are farthest apart in what the match goes by (p in the row's language
        for ``"own"`` and ``"layer"``, the mean of p for ``"activity"``), and gap, by how much the
        control's p is above the set's there. NaN, and layer -1, where nothing was removed.
        """
        import pandas as pd

        place, rows = self._place(setting), []
        p = self._p(place)
        for number, row in enumerate(self.rows):
            own = self.identified.index(row)
            others = np.delete(p[:, number], own, axis=-1)
            others = others.mean(axis=-1) if others.size else np.full(len(p), np.nan)
            for side, match in enumerate(self.matches, start=1):
                gap = worst_layer(self.rates[:, place, number], own, match, side)
                rows.append((
                    row, match, self.sizes[place, number], p[0, number, own], p[side, number, own],
                    others[0], others[side], -1 if gap is None else gap.layer,
                    np.nan if gap is None else gap.of_control - gap.of_set,
                ))  # fmt: skip
        columns = ["row", "match", "neurons", "p_own", "control_p_own", "p_others"]
        return pd.DataFrame(rows, columns=[*columns, "control_p_others", "layer", "gap"])

    @plain_options
    def to_pandas(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a cell: removed, row, column, neurons; effect and every control with its ends.

        The controls are ``control_own``, ``control_own_low``, ``control_own_high`` and so on. Then
        `placebo_p` and `marked`, of the first control.
        """
        import pandas as pd

        pairs = [(row, column) for row in self.rows for column in self.languages]
        parts = []
        for setting, sizes in zip(self.classes, self.sizes, strict=True):
            table = pd.DataFrame(pairs, columns=["row", "column"])
            table.insert(0, "removed", self.name_of(setting))
            table["neurons"] = np.repeat(sizes, len(self.languages))
            asked = {"effect": self.interval(setting, level=level)}
            asked |= {
                f"control_{m}": self.control_interval(setting, m, level=level) for m in self.matches
            }
            for name, found in asked.items():
                table[name] = found.estimate.ravel()
                table[f"{name}_low"] = found.low.ravel()
                table[f"{name}_high"] = found.high.ravel()
            table["placebo_p"] = self.placebo_p(setting, self.matches[0]).ravel()
            table["marked"] = self.marked(setting, self.matches[0], level=level).ravel()
            parts.append(table)
        return pd.concat(parts, ignore_index=True)

    def _place(self, setting: str | None) -> int:
        setting = setting or self.classes[-1]
        return self.classes.index(choose(setting, self.classes, "setting"))

    def _side(self, match: Match | None) -> int:
        """Place among `sides`: 0 is the set."""
        return 0 if match is None else 1 + self.matches.index(choose(match, self.matches, "match"))

    @cached_property
    def own_cells(self) -> Bool[np.ndarray, "row column"]:
        """Bool [row, column]: the cells of a language on itself."""
        return np.array(self.rows)[:, None] == np.array(self.languages)[None, :]

    def _means(self, values: np.ndarray) -> np.ndarray:
        """Mean by language [..., language] of values [..., text]."""
        of_language = np.eye(len(self.languages))[self.language]
        return values @ of_language / (self.weight @ of_language)

    @cached_property
    def _sides(self) -> Float64[np.ndarray, "side setting row text"]:
        return np.concatenate([self.effect[None], self.control])

    @cached_property
    def _spread(self) -> np.ndarray:
        """What each item adds to the error of a cell, then cells in drawn corpora.

        [item + draw, side, setting, row, language]; NaN in languages with fewer than `FEWEST`
        items, of which no interval is made.
        """
        few = np.bincount(self.language, minlength=len(self.languages)) < FEWEST
        if few.all():
            return np.full((self.n_items, *self._sides.shape[:-1], len(few)), np.nan)
        items = ItemDraws(self.item_ids, self.language)
        asked = self._sides, self.weight
        found = np.concatenate([items.residuals(*asked), items.means(*asked)])
        found[..., few] = np.nan
        return found

    def _values(self, setting: str | None) -> np.ndarray:
        """Cells of a setting, [1 + item + draw, side, row, column].

        Those of all items, what each item adds to their error, and those of drawn items: whatever
        is linear in the cells is the same function of all three.
        """
        place = self._place(setting)
        return np.concatenate([self._means(self._sides)[None, :, place], self._spread[:, :, place]])

    def _interval(self, values: np.ndarray, level: float, cells: int = 1) -> Interval:
        """The interval of values [1 + item + draw, ...]; its ends are NaN where it has none.

        Each value is a mean of so many `cells` that do not share their texts.
        """
        require_level(level)
        estimate, residuals, drawn = np.split(values, [1, 1 + self.n_items])
        estimate = np.asarray(estimate[0])
        known = np.isfinite(residuals).all(0)
        if not known.any():
            nowhere = np.full(estimate.shape, np.nan)
            return Interval.of(estimate, nowhere, nowhere, level, "none")
        added = cells**-0.5 if self.metric == "accuracy" else 0.0
        found = student_interval(estimate, residuals, level=level, added=added)
        items = ItemDraws(self.item_ids, self.language)
        found = wider(found, items.interval(estimate, np.where(known, drawn, 0.0), level))
        if not added:
            found = wider(found, skewed_interval(estimate, residuals, level=level))
        low, high = (np.where(known, end, np.nan) for end in (found.low, found.high))
        return replace(found, low=low, high=high)

    def _placebo_p(self, values: np.ndarray, match: Match, cells: int = 1) -> np.ndarray:
        """`placebo_p` of values [1 + item + draw, side, ...], means of so many cells each."""
        control = values[:, self._side(match)]
        beyond, items = values[:, 0] - control, slice(1, 1 + self.n_items)
        if self.too_few:
            return np.full(beyond.shape[1:], np.nan)
        sets, added = -(-self.draws // self.n_items), cells**-0.5 * (self.metric == "accuracy")
        return placebo_p(beyond[0], beyond[items], control[items], sets=sets, added=added)

    def _ratio(self, part: np.ndarray, whole: np.ndarray, level: float) -> Interval:
        """A ratio of values [1 + item + draw, ...]; NaN where the whole is not clear of zero."""
        (a, first), (b, second) = ((v[0], v[1 : 1 + self.n_items]) for v in (part, whole))
        if self.too_few:
            nowhere = np.full(np.shape(a), np.nan)
            return Interval.of(nowhere, nowhere, nowhere, level, "none")
        return fieller_interval(a, b, first, second, level=level)

    def _paired(self, found: Interval, place: int) -> Interval:
        """The cells of a setting with Newcombe's interval, where they have one."""
        ends = np.stack([found.low, found.high])
        for column in range(len(self.languages)):
            texts = self.language == column
            before = self.base[texts] > 0.5
            for row, changes in enumerate(self.effect[place][:, texts]):
                if self.sizes[place, row] and not np.isnan(ends[0, row, column]):
                    after = self.base[texts] + changes > 0.5
                    ends[:, row, column] = paired_interval(before, after, level=found.level)
        return replace(found, low=ends[0], high=ends[1], method="Newcombe")

    def _own_and_others(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Effect on the own language and mean effect on the others, each [..., row].

        Both are NaN for a row that is no column, or the only one.
        """
        own, others = (
            np.where(mask, cells, 0.0).sum(-1) / np.where(mask.any(-1), mask.sum(-1), np.nan)
            for mask in (self.own_cells, ~self.own_cells)
        )
        return own, others

    def _mean_effects(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """Means over cells [..., row, column], each [...]."""
        own, others = self._own_and_others(cells)
        return {
            "mean diagonal": _mean(cells[..., self.own_cells]),
            "mean off-diagonal": _mean(cells[..., ~self.own_cells]),
            "selectivity": _mean((own - others)[..., self._has_selectivity]),
        }

    @cached_property
    def _has_selectivity(self) -> np.ndarray:
        """Bool [row]: the rows that are a column, but not the only one."""
        return np.asarray(self.own_cells.any(-1) & ~self.own_cells.all(-1))

    def _p(self, place: int) -> np.ndarray:
        """Mean p of the removed neurons and of each control, [side, row, identified language]."""
        neurons = self.neurons_by_layer[place][..., None]
        sums = (np.nan_to_num(self.rates[:, place]) * neurons).sum(axis=2)
        total = np.broadcast_to(neurons.sum(axis=1), sums.shape)
        return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)

    def _own_p(self, place: int) -> np.ndarray:
        """Mean p in the row's language, [side, row]."""
        own = [self.identified.index(row) for row in self.rows]
        return self._p(place)[:, np.arange(len(own)), own]

    def _brief(self) -> str:
        told = []
        for place, setting in enumerate(self.classes):
            found = self._mean_effects(self._means(self._sides[:, place]))
            own, other, selectivity = (values[0] for values in found.values())
            controls = ", ".join(
                f"{match} {value:.3f}"
                for match, value in zip(self.matches, found["selectivity"][1:], strict=True)
            )
            told.append(
                f"{self.name_of(setting)}: diagonal {own:.3f}, off-diagonal {other:.3f}, "
                f"selectivity {selectivity:.3f} (controls: {controls})"
            )
        few = f"; {self.too_few}" if self.too_few else ""
        size = f"{len(self.rows)} x {len(self.languages)}, method {self.method}"
        return f"{size}, {METRICS[self.metric].unit}: {'; '.join(told)}{few}"

    def _overview(self) -> Overview:
        lines = zip(self.rows, self.sizes[-1], self.cells(), strict=True)
        rows = [(row, n, *(f"{cell:.3f}" for cell in line)) for row, n, line in lines]
        title = f"AblationMatrix, {self.name_of()} removed: {METRICS[self.metric].unit}"
        return Overview(title, ("removed", "neurons", *self.languages), rows)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN where it is empty."""
    empty = values.shape[-1] == 0
    return np.asarray(np.full(values.shape[:-1], np.nan) if empty else values.mean(-1))


def _row_distances(cells: LanguageMatrix, own: np.ndarray) -> np.ndarray:
    """1 - correlation of two rows over the columns that are neither's own, [row, row]."""
    distance = np.zeros((len(cells), len(cells)))
    for i in range(len(cells)):
        for j in range(i):
            others = ~(own[i] | own[j])
            pair = cells[i, others], cells[j, others]
            flat = others.sum() < 2 or min(np.ptp(row) for row in pair) == 0
            distance[i, j] = distance[j, i] = 1 - (0 if flat else np.corrcoef(*pair)[0, 1])
    return distance
