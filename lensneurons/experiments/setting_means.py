"""The means of a deactivation matrix, and whether they differ: what its neurons do to whom.

The means of every setting are over the cells of a language on itself (own), over all other cells
(others), and over the own cells of the random sets of each match. Intervals of their differences,
drawn over the same items, tell whether neurons do more than random ones (beyond control), more to
their own language than to others (selectivity), and whether they are more selective than random
ones (selectivity beyond control): an interval that holds zero is no finding. Nor is a distance from
the *mean* of random sets that one more random set would reach as often as 1 in 20 times.

>>> setting_means(ln.ablation_matrix(model, corpus, neurons))              # doctest: +SKIP

What this does not show: that nothing else is needed for a language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.metrics import METRICS
from lensneurons.uncertainty.groups import Interval


@dataclass(frozen=True)
class SettingMeans:
    """The means of a setting, as effects, and its differences, as harm: positive is worse.

    The mappings are by the matches of the matrix, such as ``"own"``.

    Attributes:
        setting: what was removed, such as ``"specific + related"``.
        own: mean effect on a language of removing its own neurons; NaN if no row is a column.
        others: mean effect on the other languages; NaN if there are none.
        random: mean effect on a language of removing random neurons; of the other languages if no
            row is a column.
        harm: `own`, or `others` if there is none, as harm.
        beyond_control: harm of the same less that of `random`.
        selectivity: harm to the own language less that to the others, mean over the rows.
        control_selectivity: the same of random neurons.
        selectivity_beyond_control: `selectivity` less that of random neurons.
        beyond_p: p of "other random neurons could be as far from their mean", of `beyond_control`.
        selectivity_p: the same of `selectivity_beyond_control`.
    """

    setting: str
    own: Interval
    others: Interval
    random: Mapping[str, Interval]
    harm: Interval
    beyond_control: Mapping[str, Interval]
    selectivity: Interval
    control_selectivity: Mapping[str, Interval]
    selectivity_beyond_control: Mapping[str, Interval]
    beyond_p: Mapping[str, float]
    selectivity_p: Mapping[str, float]


def setting_means(matrix: AblationMatrix) -> list[SettingMeans]:
    """The means and differences of every setting, with their intervals over items."""
    foreign, matches = not matrix.own_cells.any(), matrix.matches
    mean = "mean off-diagonal" if foreign else "mean diagonal"

    def as_harm(found: Interval) -> Interval:
        if METRICS[matrix.metric].harm > 0:
            return found
        return Interval.of(-found.estimate, -found.high, -found.low, found.level, found.method)

    def of(setting: str) -> SettingMeans:
        found = matrix.figures(setting)
        p = {match: matrix.mean_placebo_p(setting, match) for match in matches}

        def by_match(head: str, name: str) -> dict[str, Interval]:
            return {m: found[f"{head} ({m}): {name}"] for m in matches}

        def harms(head: str, name: str) -> dict[str, Interval]:
            return {m: as_harm(one) for m, one in by_match(head, name).items()}

        return SettingMeans(
            setting=matrix.name_of(setting),
            own=found["mean diagonal"],
            others=found["mean off-diagonal"],
            random=by_match("control", mean),
            harm=as_harm(found[mean]),
            beyond_control=harms("beyond control", mean),
            selectivity=as_harm(found["selectivity"]),
            control_selectivity=harms("control", "selectivity"),
            selectivity_beyond_control=harms("beyond control", "selectivity"),
            beyond_p={match: p[match][mean] for match in matches},
            selectivity_p={match: p[match]["selectivity"] for match in matches},
        )

    return [of(setting) for setting in matrix.classes]
