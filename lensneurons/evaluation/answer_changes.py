"""Accuracy before and after: the same problems asked twice, paired item by item.

    change = share right after - share right before

Of one language: Newcombe's score interval for a paired difference (1998, method 10: Wilson's ends
of both shares, with the correlation of the two), which is not empty where nobody changed, and
McNemar's exact test of the items that did. Of several languages together: the mean over them, with
a bootstrap over items, which are the same in every language and so are drawn together.

What it does not show: why answers changed. A text may be right by another way than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lensneurons.errors import CorpusError, choose
from lensneurons.evaluation.answers import PARTS, Accuracy, wilson_interval
from lensneurons.evaluation.item_intervals import item_bootstrap
from lensneurons.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd


def accuracy_change(
    before: Accuracy, after: Accuracy, *, part: str = "both", level: float = 0.95
) -> pd.DataFrame:
    """Change of the share of right answers, language by language.

    Args:
        before: answers of one model.
        after: answers of another, or under an intervention. Items that only one of them has are
            left out.
        part: ``"right_answer"``, ``"right_language"`` or ``"both"``.
        level: coverage of the intervals.

    Returns:
        One row a language of both. Columns: items; before, after and change (shares, 0 to 1); low
        and high of the change; p, McNemar's exact test.

    Raises:
        CorpusError: no item was asked in both.
        LensNeuronsError: an unknown part, or a level outside (0, 1).
    """
    import pandas as pd

    found = _paired(before, after, part)
    rows = {}
    for language in dict.fromkeys(language for language, _ in found):
        pairs = np.array([pair for (tag, _), pair in found.items() if tag == language], bool)
        rows[language] = _row(pairs[:, 0], pairs[:, 1], level)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("language")


def mean_change(
    before: Accuracy,
    after: Accuracy,
    *,
    languages: Sequence[str] | None = None,
    part: str = "both",
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Change of the mean over languages of the share of right answers.

    Args:
        before: answers of one model.
        after: answers of another to the same items.
        languages: which to average, such as those nobody trained; None for all.
        part: as in `accuracy_change`.
        level: coverage.
        seed: of the bootstrap over items.

    Returns:
        One number (arrays without dimensions) with its ends, -1 to 1.

    Raises:
        CorpusError: no item was asked in both, or a language is missing.
        LensNeuronsError: an unknown part, a level outside (0, 1), or fewer than two items.
    """
    found = _paired(before, after, part)
    wanted = list(dict.fromkeys(tag for tag, _ in found)) if languages is None else list(languages)
    if missing := [tag for tag in wanted if tag not in {tag for tag, _ in found}]:
        raise CorpusError(f"no item was asked in {missing} before and after")
    kept = {key: pair for key, pair in found.items() if key[0] in wanted}
    # Each language weighs the same, however many items it has.
    sizes = {tag: sum(key[0] == tag for key in kept) for tag in wanted}
    weight = 1 / np.array([sizes[tag] for tag, _ in kept])
    change = np.array([float(after) - float(before) for before, after in kept.values()])
    drawn = item_bootstrap(
        tuple(item for _, item in kept),
        np.zeros(len(kept), np.int64),
        change * weight,
        weight,
        level=level,
        seed=seed,
    )
    middle, low, high = (np.asarray(value[0]) for value in (drawn.estimate, drawn.low, drawn.high))
    return Interval(middle, low, high, level, drawn.method)


def _paired(
    before: Accuracy, after: Accuracy, part: str
) -> dict[tuple[str, str], tuple[bool, bool]]:
    """Language and item to whether it was right before, and after."""
    choose(part, PARTS, "part")
    first = {(answer.language, answer.id): getattr(answer, part) for answer in before}
    second = {(answer.language, answer.id): getattr(answer, part) for answer in after}
    found = {key: (right, second[key]) for key, right in first.items() if key in second}
    if not found:
        raise CorpusError("no item was asked both before and after: give the same problems")
    return found


def _row(before: np.ndarray, after: np.ndarray, level: float) -> dict[str, int | float]:
    """One row of `accuracy_change`."""
    from scipy.stats import binomtest

    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    low, high = paired_interval(before, after, level=level)
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return {
        "items": len(before),
        "before": float(before.mean()),
        "after": float(after.mean()),
        "change": float(after.mean()) - float(before.mean()),
        "low": low,
        "high": high,
        "p": float(p),
    }


def paired_interval(
    before: np.ndarray, after: np.ndarray, *, level: float = 0.95
) -> tuple[float, float]:
    """Newcombe's interval of the difference of two paired shares (method 10).

    Args:
        before: bool [item].
        after: bool [item], of the same items.
        level: coverage, between 0 and 1.

    Returns:
        Lower and upper end of the share after less the share before.
    """
    n, one, two = len(before), float(after.mean()), float(before.mean())
    low_one, high_one = wilson_interval(int(after.sum()), n, level=level)
    low_two, high_two = wilson_interval(int(before.sum()), n, level=level)
    phi = _correlation(before, after)
    below, above = one - low_one, high_two - two
    down = np.sqrt(below**2 - 2 * phi * below * above + above**2)
    below, above = high_one - one, two - low_two
    up = np.sqrt(below**2 - 2 * phi * below * above + above**2)
    return float(one - two - down), float(one - two + up)


def _correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Phi of a two by two table, with Newcombe's correction for continuity."""
    n = len(before)
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    whole = before.sum() * (n - before.sum()) * after.sum() * (n - after.sum())
    if not whole:
        return 0.0
    excess = both * neither - lost * gained
    excess = max(excess - n / 2, 0) if excess > 0 else excess
    return excess / float(np.sqrt(float(whole)))
