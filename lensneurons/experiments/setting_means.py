"""The means of a deactivation matrix, and whether they differ: what its neurons do to whom.

Three means of every setting: over the cells of a language on itself (own), over all other cells
(others), and over the own cells of the random sets (random). Intervals of their differences, drawn
over the same items, tell whether neurons do more than random ones, or more to their own language
than to others: an interval that holds zero is no finding.

>>> setting_means(ln.ablation_matrix(model, corpus, neurons))              # doctest: +SKIP

What this does not show: that nothing else is needed for a language.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lensneurons.experiments.ablation import AblationMatrix
from lensneurons.experiments.metrics import METRICS
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws


@dataclass(frozen=True)
class SettingMeans:
    """The means of a setting, as effects, and its differences, as harm: positive is worse.

    Attributes:
        setting: what was removed, such as ``"specific + related"``.
        own: mean effect on a language of removing its own neurons; NaN if no row is a column.
        others: mean effect on the other languages; NaN if there are none.
        random: mean effect on a language of removing random neurons; of all cells without `own`.
        harm: `own`, or `others` if there is none, as harm.
        beyond_random: harm of `own` (of all cells without it) over that of `random`.
        beyond_others: harm of `own` over that of `others`.
    """

    setting: str
    own: Interval
    others: Interval
    random: Interval
    harm: Interval
    beyond_random: Interval
    beyond_others: Interval

    @property
    def contrast(self) -> float:
        """How much more the own language is harmed than the others, or than by random neurons."""
        least = [float(one.estimate) for one in (self.beyond_others, self.beyond_random)]
        return float(np.nan_to_num(np.nanmin(least))) if np.isfinite(least).any() else 0.0


def setting_means(matrix: AblationMatrix) -> list[SettingMeans]:
    """The means and differences of every setting, with bootstrap intervals over items.

    Raises:
        LensNeuronsError: fewer than two items, which have no interval.
    """
    corpora, own = ItemDraws(matrix.item_ids, matrix.language), matrix.own_cells
    there = own if own.any() else np.ones_like(own)
    harm = float(METRICS[matrix.metric].harm)
    drawn = [corpora.means(values, matrix.weight) for values in (matrix.effect, matrix.control)]

    def mean(cells: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        picked = cells[:, chosen]
        return picked.mean(axis=1) if picked.shape[1] else np.full(len(cells), np.nan)

    def interval(values: np.ndarray) -> Interval:
        """Of values [1 + draw] whose first one is that of all items."""
        if np.isnan(values).all():
            return Interval.of(np.nan, np.nan, np.nan, 0.95, "none")
        return corpora.interval(np.asarray(values[0]), values[1:])

    found = []
    for place, setting in enumerate(matrix.classes):
        cells = matrix.cells(setting), matrix.control_cells(setting)
        removed, random = (
            np.concatenate([one[None], draws[:, place]])
            for one, draws in zip(cells, drawn, strict=True)
        )
        means = [mean(removed, own), mean(removed, ~own), mean(random, there)]
        beyond = [mean(removed, there), mean(removed - random, there), means[0] - means[1]]
        intervals = (interval(one) for one in (*means, *(harm * one for one in beyond)))
        found.append(SettingMeans(matrix.name_of(setting), *intervals))
    return found
