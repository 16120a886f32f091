"""A claim with its number, its interval, its p-value and its verdict, and tables of such claims.

The verdict, at level 0.95, on a number that was turned so that the expected sign is positive:

    holds          the interval lies above 0, and p, where there is one, is at most 0.05
    does not hold  the interval lies below 0, and p of the contrary is at most 0.05; or nothing
                   changed in any group of items
    undecided      all else, with the reason

An interval of no width says little by itself: where three neurons are agnostic, leaving a group out
may change nothing although their number is uncertain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lensneurons.comparison.class_changes import p_text
from lensneurons.display import html_table
from lensneurons.errors import choose
from lensneurons.storage import load_json, save_json

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["holds", "does not hold", "undecided"]
Sign = Literal["rises", "falls", "positive"]
NAN = float("nan")


@dataclass(frozen=True)
class Claim:
    """One claim, measured.

    Attributes:
        claim: what should hold.
        expected: ``"rises"``, ``"falls"``, or ``"positive"`` for a difference that is no change.
        measured: the number; NaN where it cannot be measured.
        low: lower end of its interval; NaN without groups of items.
        high: upper end.
        p: one-sided p-value toward the expected sign; NaN where there is none.
        permuted: what the null permutes.
        verdict: ``"holds"``, ``"does not hold"`` or ``"undecided"``.
        reason: why it is undecided, or that nothing changed; else empty.
    """

    claim: str
    expected: Sign
    measured: float
    low: float
    high: float
    p: float
    permuted: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Claims:
    """Verdicts on the paper's claims; immutable.

    Attributes:
        rows: one a claim.
        level: coverage of the intervals; a p-value up to ``1 - level`` is small.
        description: what was compared.
    """

    rows: tuple[Claim, ...]
    level: float
    description: str

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, claim: str) -> Claim:
        """The row of a claim.

        Raises:
            LensNeuronsError: no such claim; those that are get listed.
        """
        names = [row.claim for row in self.rows]
        return self.rows[names.index(choose(claim, names, "claim"))]

    def to_pandas(self) -> pd.DataFrame:
        """One row a claim: claim, expected, measured, low, high, p, permuted, verdict, reason."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])

    def save(self, path: str | Path) -> Path:
        """Write readable JSON, atomically, and return its path."""
        rows = [_swap_values(asdict(row), NAN, None) for row in self.rows]
        return save_json(path, {"claims": rows, "level": self.level, "about": self.description})

    @classmethod
    def load(cls, path: str | Path) -> Claims:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or no JSON.
        """
        found = load_json(path)
        rows = tuple(Claim(**_swap_values(row, None, NAN)) for row in found["claims"])
        return cls(rows, found["level"], found["about"])

    def __repr__(self) -> str:
        verdicts = [row.verdict for row in self.rows]
        counts = {name: verdicts.count(name) for name in dict.fromkeys(verdicts)}
        told = ", ".join(f"{number} {name}" for name, number in counts.items())
        return f"Claims({len(self.rows)}: {told}; {self.description})"

    def _repr_html_(self) -> str:
        head = ("claim", "expected", "measured", "interval", "p", "verdict")
        rows = [
            (r.claim, r.expected, f"{r.measured:.4g}", _ends(r), p_text(r.p), _told(r))
            for r in self.rows
        ]
        return html_table(f"Claims: {self.description}", head, rows)


def _ends(row: Claim) -> str:
    return "" if np.isnan(row.low) else f"{row.low:.4g} to {row.high:.4g}"


def _told(row: Claim) -> str:
    return f"{row.verdict}: {row.reason}" if row.reason else row.verdict


def _swap_values(row: dict, old: float | None, new: float | None) -> dict:
    """A row with one kind of unknown number in place of the other: JSON has no NaN."""
    return {
        name: new if value is old or (isinstance(value, float) and np.isnan(value)) else value
        for name, value in row.items()
    }


def judged(
    claim: str,
    expected: Sign,
    ends: tuple[float, float, float],
    *,
    p: tuple[float, float] | None,
    permuted: str,
    level: float,
    still: bool = False,
) -> Claim:
    """The row of a claim, with its verdict.

    Args:
        claim: what should hold.
        expected: its sign.
        ends: the number and the ends of its interval, turned so that the expected sign is positive;
            the row turns them back.
        p: one-sided p-values toward the expected sign and toward the contrary; None where nothing
            is permuted and the interval decides.
        permuted: what the null permutes.
        level: coverage of the interval.
        still: whether nothing changed in any group of items.
    """
    verdict, reason = _verdict(ends, p or (0.0, 0.0), level, still)
    measured, low, high = ends
    if expected == "falls":
        measured, low, high = -measured, -high, -low
    numbers = (float(measured) + 0.0, float(low) + 0.0, float(high) + 0.0)  # no -0.0
    return Claim(claim, expected, *numbers, p[0] if p else NAN, permuted, verdict, reason)


def undecided(claim: str, expected: Sign, permuted: str, reason: str) -> Claim:
    """A claim about which nothing can be said, and why."""
    return Claim(claim, expected, NAN, NAN, NAN, NAN, permuted, "undecided", reason)


def _verdict(
    ends: tuple[float, float, float], p: tuple[float, float], level: float, still: bool
) -> tuple[Verdict, str]:
    measured, low, high = ends
    if np.isnan(measured):
        return "undecided", "there is nothing to measure it on"
    if np.isnan(low):
        side = "as expected" if measured > 0 else "not as expected"
        return "undecided", f"no interval without groups of items (the sign is {side})"
    if still and measured == 0:
        return "does not hold", "nothing changed in any group of items"
    if low <= 0 <= high:
        return "undecided", "the interval holds 0"
    against = high < 0
    if not p[against] <= 1 - level + 1e-12:
        return "undecided", f"p{' of the contrary' * against} = {p_text(p[against]) or 'unknown'}"
    return ("does not hold" if against else "holds"), ""
