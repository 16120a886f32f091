"""Did anything change but noise? An exact test that swaps *before* and *after* within groups.

What is permuted: the labels *before* and *after* within a group of parallel items, all its neurons
and languages together, independently in each group. The statistic is the sum over the groups of the
change within each group alone:

    T = sum_g D_g              swapping group g turns D_g into -D_g

Where alignment did nothing but add noise of the same kind, all ``2^G`` sign patterns are equally
probable, and the p-value, the share of patterns whose sum is as extreme, is **exact** for a given
bar. A bar of the model before moves too little to matter (simulated:
tests/comparison/test_before_after.py).

Why within groups, and not the pooled counts with some groups swapped: classes are thresholded.
Where p moves from far below the bar to far above it, a pool with a third of the groups swapped
still shows the whole change, so the largest effects would get p-values near 0.4.

Intervals of the same changes are those of the jackknife (`lensneurons.uncertainty.groups`), with
the same group left out before and after. A bootstrap of few groups is too short, and its draws,
noisier than the corpus, move neurons over the bar that the corpus does not. Simulated
(tests/comparison/test_before_after.py), 95 % intervals of ten groups hold the truth in 97 to 98 %
of corpora: rather too long, since single neurons cross the bar.

What this does not show: with G groups no one-sided p-value is below ``1 / 2^G`` (0.05 needs five
groups); and a small p speaks against "nothing changed", not for a cause.
"""

from __future__ import annotations

import numpy as np

from lensneurons.uncertainty.groups import Interval, jackknife_interval

MOST_PATTERNS = 4096  # all patterns up to 12 groups


def swap_p(changes: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Two-sided p-values of changes: share of swaps whose sum is as far from 0.

    Args:
        changes: [group, ...], change within each group alone, after minus before.
        seed: for more than 12 groups, whose patterns are drawn.
    """
    sums = np.abs(_swapped_sums(changes, seed))
    return np.asarray((sums >= sums[0] - _rounding(changes)).mean(axis=0))


def swap_p_least(changes: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """One-sided p-values of "every one of these changes is positive", and of its contrary.

    Args:
        changes: [group, number], change within each group alone, after minus before.
        seed: for more than 12 groups, whose patterns are drawn.

    Returns:
        Share of swaps whose least sum is as large, and share whose least sum is as small.
    """
    least, slack = _swapped_sums(changes, seed).min(axis=1), _rounding(changes).max()
    return float((least >= least[0] - slack).mean()), float((least <= least[0] + slack).mean())


def _rounding(changes: np.ndarray) -> np.ndarray:
    """[...]: how far sums that are equal may differ; means over languages are no whole numbers."""
    return np.asarray(1e-12 * np.abs(changes).sum(axis=0))


def least_interval(estimate: np.ndarray, left_out: np.ndarray, *, level: float = 0.95) -> Interval:
    """Interval of the least of several numbers, for "more than every other".

    The least exceeds x where all do. Each is tested at the full level (intersection-union, Berger
    1982), so the lower end is the least lower end. The least is below x where one number is, so the
    upper end is the least of upper ends that hold together.

    The arguments and errors are those of `jackknife_interval`, for an estimate [number].
    """
    found = jackknife_interval(estimate, left_out, level=level, among=len(estimate))
    least = (found.estimate.min(), found.low.min(), found.high.min())
    return Interval.of(*least, level, found.method)


def _swapped_sums(changes: np.ndarray, seed: int) -> np.ndarray:
    """Sums [pattern, ...] with the signs of some groups turned; pattern 0 turns none."""
    n = len(changes)
    if 2**n <= MOST_PATTERNS:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (MOST_PATTERNS, n))
        bits[0] = 0
    return np.tensordot(1 - 2 * bits, changes, axes=1)
