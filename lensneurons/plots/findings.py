"""What a deactivation matrix shows, in numbers and in one true sentence.

Three means of every setting: over the cells of a language on itself (own), over all other cells
(others), and over the cells on itself of the random sets (random). Whether neurons do more than
random ones, or more to their own language than to others, is read from the interval of the
difference, drawn over the same items: an interval that holds zero is no finding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lensneurons.experiments.ablation import AblationMatrix
from lensneurons.plots.labels import counted, full_name, listing
from lensneurons.plots.notes import capital, signed, with_ends
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws

_UNITS = {"nll": "nats a token", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Finding:
    """The means of a setting, as changes, and its differences, as harm: positive is worse.

    Attributes:
        setting: what was removed, such as ``"specific + related"``.
        own: mean change of a language without its own neurons; NaN where no row is a column.
        others: mean change of the other languages; NaN where there are none.
        random: mean change of a language without random neurons; of all cells without `own`.
        harm: `own`, or where there is none `others`, as harm.
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


def own_cells(matrix: AblationMatrix) -> np.ndarray:
    """Bool [row, column]: the cells of a language on itself."""
    return np.array(matrix.rows)[:, None] == np.array(matrix.languages)[None, :]


def find(matrix: AblationMatrix) -> list[Finding]:
    """A finding for every setting.

    Raises:
        LensNeuronsError: fewer than two items, which have no interval.
    """
    corpora = ItemDraws(matrix.item_ids, matrix.language)
    own = own_cells(matrix)
    there = own if own.any() else np.ones_like(own)
    harm = 1.0 if matrix.metric == "nll" else -1.0
    drawn = [corpora.means(values, matrix.weight) for values in (matrix.effect, matrix.control)]
    found = []
    for place, setting in enumerate(matrix.classes):
        cells = matrix.cells(setting), matrix.control_cells(setting)
        removed, random = (
            np.concatenate([one[None], draws[:, place]])
            for one, draws in zip(cells, drawn, strict=True)
        )
        means = [_mean(removed, own), _mean(removed, ~own), _mean(random, there)]
        beyond = [_mean(removed, there), _mean(removed - random, there), means[0] - means[1]]
        numbers = (*means, *(harm * one for one in beyond))
        intervals = (_interval(corpora, one) for one in numbers)
        found.append(Finding(matrix.name_of(setting), *intervals))
    return found


def headline(found: list[Finding]) -> int:
    """The setting that a title is about: where the own language is hit most beyond the others."""
    return int(np.argmax([one.contrast for one in found]))


def write_title(matrix: AblationMatrix, found: list[Finding]) -> str:
    """What the matrix shows, or that it shows nothing; visible, not escaped."""
    one = found[headline(found)]
    unit = _UNITS[matrix.metric]
    random = f"{signed(float(one.random.estimate))} with random neurons"
    if np.isnan(one.own.estimate):
        change = signed(float(one.others.estimate))
        hurts = f"hurts other languages {_beside_random(one)}"
        told = hurts if one.harm.low > 0 else "does not measurably hurt other languages"
        return f"Removing {one.setting} neurons {told}: {change} {unit}, {random}"
    numbers = [f"{signed(float(one.own.estimate))} {unit}"]
    if np.isfinite(one.others.estimate):
        numbers.append(f"{signed(float(one.others.estimate))} in other languages")
    if len(found) > 1 and not any(_above(other.beyond_random) for other in found):
        verdict = "No setting measurably hurts the own language more than random neurons do"
        return (
            f"{verdict}; {one.setting}: {numbers[0]}, random {signed(float(one.random.estimate))}"
        )
    removing = f"Removing {one.setting} neurons {_verdict(one)}"
    return f"{removing}: {listing([*numbers, random])}"


def _verdict(one: Finding) -> str:
    if one.harm.low <= 0:
        return "does not measurably hurt their own language"
    if not _above(one.beyond_random) or np.isnan(one.others.estimate):
        return f"hurts their own language {_beside_random(one)}"
    if _above(one.beyond_others):
        return "hurts their own language most"
    if one.beyond_others.high < 0:
        return "hurts other languages more than their own"
    return "hurts their own language not measurably more than others"


def _beside_random(one: Finding) -> str:
    if _above(one.beyond_random):
        return "more than removing random ones"
    if one.beyond_random.high < 0:
        return "less than removing random ones"
    return "not measurably more than removing random ones"


def write_setting(matrix: AblationMatrix, found: Finding, place: int) -> str:
    """The three means of a setting with their intervals; visible, not escaped."""
    named = {"own language": found.own, "others": found.others, "random": found.random}
    told = ", ".join(f"{name} {_with_ends(one)}" for name, one in named.items())
    empty = [row for row, n in zip(matrix.rows, matrix.sizes[place], strict=True) if not n]
    lacking = f"; none to remove for {listing(map(full_name, empty))}" if empty else ""
    return capital(f"{found.setting}: {told}{lacking}")


def write_control(matrix: AblationMatrix) -> str:
    """What the controls and intervals are; visible, not escaped."""
    items = counted(len(set(matrix.item_ids)), "item")
    return (
        f"Random: mean of {counted(matrix.draws, 'set')} of as many neurons in every layer, about "
        f"as often active; in brackets: 95%, bootstrap over {items}"
    )


def _with_ends(one: Interval) -> str:
    return with_ends(float(one.estimate), float(one.low), float(one.high))


def _above(difference: Interval) -> bool:
    return bool(difference.low > 0)


def _mean(cells: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean over chosen cells of [draw, row, column]; NaN without any."""
    picked = cells[:, chosen]
    return picked.mean(axis=1) if picked.shape[1] else np.full(len(cells), np.nan)


def _interval(corpora: ItemDraws, values: np.ndarray) -> Interval:
    """Interval of values [1 + draw] whose first one is that of all items."""
    if np.isnan(values).all():
        nothing = np.asarray(np.nan)
        return Interval(nothing, nothing, nothing, 0.95, "none")
    return corpora.interval(np.asarray(values[0]), values[1:])
