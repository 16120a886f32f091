"""The paper's claims about alignment as named tests, each with its verdict.

arXiv 2505.21505 (sections 4 and 5) says what alignment changes:

    part 1   specific, related rise; agnostic fall       N = 1, 2   fall
    part 2   agnostic rise                               N = 3 ... K - 1   rise
    part 3   specific + related rise; agnostic fall      N = K      rises most
    part 4   agnostic rise; specific, related fall       trained and untouched languages alike:
    English  fewest specific neurons, its related ones   specific fall, related rise
             shared with the most languages

and one claim that it suggests without testing: neurons newly related to an untouched language are
shared with the trained ones (`lensneurons.comparison.sharing`).

A claim is a number with an expected sign, measured on all items. The verdict at level 0.95:

    holds          the jackknife interval lies on the expected side of 0, and p <= 0.05
    does not hold  it lies on the other side, and p of the contrary <= 0.05; or nothing changed
    undecided      all else, with the reason

p is one-sided, toward the expected sign. What is permuted: for changes, before and after within
groups of parallel items (`lensneurons.uncertainty.swaps`); for sharing, which of matched
neurons are the new ones, or which languages are called trained (`lensneurons.comparison.sharing`);
for English, which is a rank among K languages and no change, nothing, and the interval decides.
"More than every other" is tested against each of the others at the full level, and holds where all
those tests do.

English is judged on the selected neurons of the run before, as in the paper: on the published
Mistral-7B counts it has 12 specific ones, the next language 48. Among *all* neurons it has 2,450
and six languages have fewer.

Power (simulated: tests/test_claims.py): with ten groups a change of three (four, five) standard
errors is found in 77 % (94 %, 99 %) of corpora; where nothing but noise changed, at most 2.5 % of
the claims hold and as many do not. With fewer than five groups no p-value is at most 0.05 and no
change can "hold".

What this does not show: thirty tests at 0.05 let one or two claims "hold" by chance where nothing
holds; count them. And a claim that does not hold here is one about this model and corpus.

>>> ln.claims(change, parts=ln.divide_layers(neurons))              # doctest: +SKIP

A claim with its number, its interval, its p-value and its verdict, and tables of such claims.

The verdict, at level 0.95, on a number that was turned so that the expected sign is positive:

    holds          the interval lies above 0, and p, where there is one, is at most 0.05
    does not hold  the interval lies below 0, and p of the contrary is at most 0.05; or nothing
                   changed in any group of items
    undecided      all else, with the reason

An interval of no width says little by itself: where three neurons are agnostic, leaving a group out
may change nothing although their number is uncertain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lensneurons.comparison.before_after import (
    Boundaries,
    Comparison,
    Figure,
    boundaries_of,
    p_text,
)
from lensneurons.comparison.class_counts import ClassTables, of_class
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.neurons.parts import LayerParts
from lensneurons.uncertainty.swaps import least_interval, require_level, swap_p_least
from lensneurons.values.files import load_json, save_json
from lensneurons.values.tables import html_table

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


PART_SIGNS: tuple[tuple[int, str, Sign], ...] = (
    (1, "specific", "rises"),
    (1, "related", "rises"),
    (1, "agnostic", "falls"),
    (2, "agnostic", "rises"),
    (3, "specific + related", "rises"),
    (3, "agnostic", "falls"),
    (4, "specific", "falls"),
    (4, "related", "falls"),
    (4, "agnostic", "rises"),
)
SWAPS = "before and after swapped within groups of items"
FLIPS = "which matched pairs are new"
CHOICES = "which languages are called trained"
RANK = "none: a rank, decided by its interval"


def claims(
    comparison: Comparison,
    *,
    parts: LayerParts | Boundaries | None = None,
    level: float = 0.95,
) -> Claims:
    """Test the paper's claims on a comparison.

    Args:
        comparison: what `compare` gives.
        parts: the four parts of the model before: what `divide_layers` found, or four pairs of
            first and last layers; claims about parts are undecided without.
        level: coverage of the intervals; p-values are held against ``1 - level``.

    Raises:
        LensNeuronsError: a level outside (0, 1), or boundaries that are not four parts.
    """
    require_level(level)
    judge = _Judge(comparison, level)
    rows = [
        *_about_parts(judge, parts),
        *_about_numbers(judge),
        *_about_training(judge),
        *_about_sharing(judge),
        *_about_english(judge),
    ]
    return Claims(tuple(rows), level, comparison.description)


@dataclass(frozen=True)
class _Judge:
    """Measures claims on a comparison."""

    comparison: Comparison
    level: float

    def change(self, claim: str, expected: Sign, figure: Figure) -> Claim:
        """A claim about changes [draw, number] that should all have the expected sign."""
        sign = -1 if expected == "falls" else 1
        alone = self.comparison.alone
        changes = np.zeros((1, 1)) if alone is None else sign * figure(alone)
        p = (NAN, NAN) if alone is None else swap_p_least(changes)
        still = alone is not None and not changes.any()
        ends = self._ends(lambda tables: sign * figure(tables))
        return judged(claim, expected, ends, p=p, permuted=SWAPS, level=self.level, still=still)

    def rank(self, claim: str, figure: Figure) -> Claim:
        """A claim about differences [draw, number], no changes, that should all be positive."""
        ends = self._ends(figure)
        return judged(claim, "positive", ends, p=None, permuted=RANK, level=self.level)

    def _ends(self, figure: Figure) -> tuple[float, float, float]:
        tables, left_out = self.comparison.tables, self.comparison.left_out
        return self.least(figure(tables)[0], None if left_out is None else figure(left_out))

    def least(self, values: np.ndarray, left_out: np.ndarray | None) -> tuple[float, float, float]:
        """The least of several numbers, and the ends of its interval where there is one."""
        if left_out is None or not len(left_out) or np.isnan(left_out).any():
            return float(values.min()), NAN, NAN
        found = least_interval(values, left_out, level=self.level)
        return float(found.estimate), float(found.low), float(found.high)


def _about_parts(judge: _Judge, parts: LayerParts | Boundaries | None) -> Iterator[Claim]:
    found = isinstance(parts, Sequence) or (parts is not None and parts.boundaries is not None)
    spans = boundaries_of(parts, judge.comparison.n_layers) if parts is not None and found else None
    if spans is not None and len(spans) != 4:
        raise LensNeuronsError(f"{len(spans)} parts were given: the claims are about four")
    for number, kind, expected in PART_SIGNS:
        claim = f"part {number}: {kind} neurons"
        if spans is None:
            yield undecided(claim, expected, SWAPS, "no parts")
        else:
            yield judge.change(claim, expected, partial(_part, spans[number - 1], kind))


def _part(span: tuple[int, int], kind: str, tables: ClassTables) -> np.ndarray:
    layers = tables.layer_change()[:, span[0] : span[1] + 1]
    return of_class(layers.sum(axis=1), kind)[:, None]


def _about_numbers(judge: _Judge) -> Iterator[Claim]:
    last = len(judge.comparison.languages)
    for n in range(1, last):
        expected: Sign = "falls" if n <= 2 else "rises"
        yield judge.change(f"neurons with N = {n}", expected, partial(_number, n))
    yield judge.change(f"neurons with N = {last}", "rises", partial(_number, last))
    if last > 1:
        claim = f"neurons with N = {last} rise more than those with any other N > 0"
        yield judge.change(claim, "positive", _most)


def _number(n: int, tables: ClassTables) -> np.ndarray:
    return tables.histogram_change()[:, n : n + 1]


def _most(tables: ClassTables) -> np.ndarray:
    change = tables.histogram_change()
    return change[:, -1:] - change[:, 1:-1]


def _about_training(judge: _Judge) -> Iterator[Claim]:
    found = judge.comparison
    places = {language: i for i, language in enumerate(found.languages)}
    groups = {"trained": found.trained, "untouched": found.untouched if found.trained else ()}
    kinds: tuple[tuple[str, Sign], ...] = (("specific", "falls"), ("related", "rises"))
    for name, languages in groups.items():
        for kind, expected in kinds:
            claim = f"{kind} neurons of a language, mean over {name} ones"
            if languages:
                of = [places[language] for language in languages]
                yield judge.change(claim, expected, partial(_languages, of, kind))
            else:
                yield undecided(claim, expected, SWAPS, _missing(found))


def _languages(places: list[int], kind: str, tables: ClassTables) -> np.ndarray:
    return of_class(tables.member_change()[:, places].sum(axis=1), kind)[:, None] / len(places)


def _missing(comparison: Comparison) -> str:
    """Why trained and untouched languages cannot be told apart."""
    if not comparison.trained:
        return "compare(..., trained=...) was not given"
    return "no language is untouched"


def _about_sharing(judge: _Judge) -> Iterator[Claim]:
    claim = "neurons newly related to untouched languages are shared with trained ones"
    sharing = judge.comparison.sharing
    if sharing is None:
        reason = _missing(judge.comparison)
        yield undecided(claim, "positive", FLIPS, reason)
        yield undecided(f"{claim}, more than with others", "positive", CHOICES, reason)
        return
    names = (claim, f"{claim}, more than with others")
    values = np.array([sharing.excess, sharing.contrast])
    p = (sharing.flipped_p, sharing.others_p)
    for i, permuted in enumerate((FLIPS, CHOICES)):
        ends = judge.least(values[i : i + 1], sharing.left_out[:, i : i + 1])
        yield judged(names[i], "positive", ends, p=p[i], permuted=permuted, level=judge.level)


def _about_english(judge: _Judge) -> Iterator[Claim]:
    few = "English has fewer selected specific neurons than any other language (before)"
    wide = "selected related neurons of English are shared with the most languages (before)"
    languages = judge.comparison.languages
    missing = "" if judge.comparison.selected.any() else "no lambda selects neurons"
    missing = missing if "en" in languages else "English was not counted"
    if missing:
        yield from (undecided(claim, "positive", RANK, missing) for claim in (few, wide))
        return
    place = languages.index("en")
    yield judge.rank(few, lambda tables: -_lead(_specific(tables), place))
    yield judge.rank(wide, lambda tables: _lead(_mean_number(tables), place))


def _lead(values: np.ndarray, place: int) -> np.ndarray:
    """By how much one language exceeds each other one: [draw, other language]."""
    return values[:, place : place + 1] - np.delete(values, place, axis=1)


def _specific(tables: ClassTables) -> np.ndarray:
    """int64 [draw, language]: selected specific neurons before."""
    return of_class(tables.selected, "specific")


def _mean_number(tables: ClassTables) -> np.ndarray:
    """float64 [draw, language]: mean N of selected related neurons before; NaN without any."""
    related = tables.selected[:, :, 2:-1]
    neurons = related.sum(axis=-1)
    total = related @ np.arange(2, 2 + related.shape[-1])
    return np.divide(total, neurons, out=np.full(neurons.shape, np.nan), where=neurons > 0)
