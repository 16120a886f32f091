"""How far a number would move with other texts: bootstrap and jackknife over groups of items.

`collect` keeps the counts of G groups of parallel items apart. Drawing the groups again, with all
languages of an item together, and recomputing any number from the drawn counts gives its spread
without another forward pass: probabilities, class counts, boundaries of the parts, and differences
between two models that read the same items (paired: the same groups are drawn for both).

The intervals speak of other items of the same kind. With few groups the bootstrap is too narrow: it
has ``G`` values to draw from, spreads ``sqrt((G - 1) / G)`` of what it should, and knows no
Student's t. At the defaults, ten groups and 200 draws, its 95 % intervals are a fifth too short and
hold the truth in 87 % of corpora; the jackknife, with Student's t of ``G - 1`` degrees of freedom,
in 94 % (simulated with unequal groups: tests/test_intervals.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics, require_comparable
from lensneurons.errors import LensNeuronsError
from lensneurons.shapes import GroupWeights

Measure = Callable[[ActivationStatistics], np.ndarray | float]


@dataclass(frozen=True)
class Interval:
    """A number, or an array of numbers, with the interval that other texts would give.

    Attributes:
        estimate: the value on all items.
        low: lower end, of the same shape.
        high: upper end, of the same shape.
        level: coverage that the interval aims at.
        method: ``"bootstrap"`` or ``"jackknife"``.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    method: str


def group_weights(n_groups: int, draws: int, seed: int = 0) -> Iterator[GroupWeights]:
    """How often each group is drawn, ``draws`` times: int64 [group], summing to the groups.

    Raises:
        LensNeuronsError: fewer than two groups.
    """
    _require_groups(n_groups)
    random = np.random.default_rng(seed)
    for _ in range(draws):
        yield random.multinomial(n_groups, np.full(n_groups, 1 / n_groups)).astype(np.int64)


def resamples(
    statistics: ActivationStatistics, *, draws: int = 200, seed: int = 0
) -> Iterator[ActivationStatistics]:
    """The statistics of corpora whose groups of items are drawn again with replacement.

    A draw that leaves a language without tokens is drawn again; with ten groups or more of a real
    corpus this does not happen.

    Raises:
        LensNeuronsError: the statistics keep fewer than two groups, or nearly every draw leaves a
            language without tokens.
    """
    done = 0
    for weights in group_weights(statistics.n_groups, 10 * draws, seed):
        if (weights @ statistics.grouped_tokens).all():
            yield statistics.resample(weights)
            done += 1
        if done == draws:
            return
    raise LensNeuronsError(
        f"only {done} of {10 * draws} draws of the groups have tokens in every language: collect "
        "with fewer groups, or more items"
    )


def bootstrap(
    statistics: ActivationStatistics,
    measure: Measure,
    *,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of anything that can be computed from activation statistics.

    Args:
        statistics: counts in at least two groups.
        measure: gives a number or an array from statistics, of a shape that does not change.
        draws: how many corpora to draw.
        level: coverage.
        seed: the same seed gives the same interval.

    Raises:
        LensNeuronsError: fewer than two groups, no draw, or a level outside (0, 1).
    """
    _require_sense(draws, level)
    values = [measure(drawn) for drawn in resamples(statistics, draws=draws, seed=seed)]
    return _percentiles(measure(statistics), values, level)


def bootstrap_difference(
    before: ActivationStatistics,
    after: ActivationStatistics,
    measure: Measure,
    *,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Paired bootstrap of ``measure(after) - measure(before)``: the same items for both.

    Raises:
        ProvenanceError: the two did not count the same corpus in the same way.
        LensNeuronsError: fewer than two groups.
    """
    require_comparable(before, after)
    _require_sense(draws, level)
    pairs = zip(
        resamples(before, draws=draws, seed=seed),
        resamples(after, draws=draws, seed=seed),
        strict=True,
    )
    values = [np.subtract(measure(new), measure(old)) for old, new in pairs]
    return _percentiles(np.subtract(measure(after), measure(before)), values, level)


def _percentiles(estimate: object, values: list[np.ndarray | float], level: float) -> Interval:
    low, high = np.quantile(np.array(values, float), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return _interval(estimate, low, high, level, "bootstrap")


def _interval(estimate: object, low: object, high: object, level: float, method: str) -> Interval:
    """The interval, with numbers as arrays without axes."""
    middle, bottom, top = (np.asarray(value, float) for value in (estimate, low, high))
    return Interval(middle, bottom, top, level, method)


def jackknife(
    statistics: ActivationStatistics, measure: Measure, *, level: float = 0.95
) -> Interval:
    """Delete-one-group jackknife with Student's t: G evaluations, for smooth numbers.

    Right for probabilities, means and class counts; not for boundaries, medians and percentiles,
    whose jackknife variance is wrong (use `bootstrap`).

    Raises:
        LensNeuronsError: fewer than two groups.
    """
    from scipy.stats import t

    n = statistics.n_groups
    _require_groups(n)
    _require_sense(n, level)
    _require_spread(statistics)
    left_out = np.array(
        [measure(statistics.resample(row)) for row in 1 - np.eye(n, dtype=np.int64)], float
    )
    error = np.sqrt((n - 1) / n * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))
    estimate = np.asarray(measure(statistics), float)
    reach = t.ppf((1 + level) / 2, n - 1) * error
    return _interval(estimate, estimate - reach, estimate + reach, level, "jackknife")


def _require_groups(n_groups: int) -> None:
    if n_groups < 2:
        raise LensNeuronsError(
            "intervals need the counts of at least two groups of items: collect(..., groups=10). "
            "Published counts have one group, so they have no intervals"
        )


def _require_sense(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise LensNeuronsError(
            f"draws={draws}, level={level}: an interval needs at least one draw and a level "
            "between 0 and 1"
        )


def _require_spread(statistics: ActivationStatistics) -> None:
    """Raise where leaving one group out would leave a language without tokens."""
    alone = (statistics.grouped_tokens == statistics.tokens).any(axis=0)
    if alone.any():
        languages = [k for k, lonely in zip(statistics.languages, alone, strict=True) if lonely]
        raise LensNeuronsError(
            f"all items of {languages} fell into one group, so leaving it out leaves nothing: "
            "count more items, or collect with other groups"
        )
