"""The paper's claims about alignment as named tests, each with its verdict.

arXiv 2505.21505 (sections 4 and 5) says what alignment changes:

    part 1   specific, related rise; agnostic fall       N = 1, 2   fall
    part 2   agnostic rise                               N = 3 ... K - 1   rise
    part 3   specific + related rise; agnostic fall      N = K      rises most
    part 4   agnostic rise; specific, related fall       trained and untouched languages alike:
    English  fewest specific neurons, its related ones   specific fall, related rise
             shared with the most languages

and suggests one claim without testing it: neurons newly related to an untouched language are shared
with the trained ones (`lensneurons.comparison.sharing`).

A claim is a number with an expected sign, measured on all items. The verdict at level 0.95:

    holds          the jackknife interval lies on the expected side of 0, and p, where there is one,
                   is at most 0.05
    does not hold  it lies on the other side, and p of the contrary is at most 0.05; or nothing
                   changed in any group of items
    undecided      all else, with the reason

p is one-sided, toward the expected sign. What is permuted: for changes, before and after within
groups of parallel items (`lensneurons.uncertainty.swaps`); for sharing, which of matched neurons
are the new ones, or which languages are called trained; for English, nothing: a rank among K
languages is no change, and the interval decides. "More than every other" is tested against each of
the others at the full level, and holds where all those tests do. An interval of no width says
little: where three neurons are agnostic, leaving a group out may change nothing.

English is judged on the selected neurons of the model before, as in the paper: on the published
Mistral-7B counts it has 12 specific ones, the next language 48. Among *all* neurons it has 2,450,
and six languages have fewer.

Power (simulated: tests/comparison/test_claims.py): with ten groups a change of three (four, five)
standard errors is found in 77 % (94 %, 99 %) of corpora. Where nothing but noise changed, at most
2.5 % of the claims hold, and at most as many do not. With fewer than five groups no p-value is at
most 0.05, so no change can "hold".

>>> ln.claims(change, parts=ln.divide_layers(neurons))              # doctest: +SKIP

What this does not show: thirty tests at 0.05 let one or two claims "hold" by chance where nothing
holds; count them. And a claim that does not hold here is one about this model and corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from lensneurons.comparison.before_after import (
    Boundaries,
    ClassMeasure,
    Comparison,
    boundaries_of,
    p_text,
)
from lensneurons.comparison.class_counts import ClassTables, of_class, ratio
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.neurons.parts import LayerParts
from lensneurons.options import plain_options
from lensneurons.uncertainty.groups import require_level
from lensneurons.uncertainty.swaps import least_interval, swap_p_least
from lensneurons.values.base import Overview, Table, from_json, whole
from lensneurons.values.files import load_json, save_json

Verdict = Literal["holds", "does not hold", "undecided"]
Sign = Literal["rises", "falls", "positive"]
Ends = tuple[float, float, float]
NAN = float("nan")


@dataclass(frozen=True)
class Claim:
    """One claim, measured.

    Attributes:
        claim: what should hold.
        expected: ``"rises"``, ``"falls"``, or ``"positive"`` for a number that is no change.
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


@dataclass(frozen=True, eq=False, repr=False)
class Claims(Table[Claim]):
    """Verdicts on the paper's claims. Made by `claims`; its file is readable JSON.

    Attributes:
        rows: one a claim.
        level: coverage of the intervals; a p-value up to ``1 - level`` is small.
        description: what was compared.
    """

    FILE_KIND = "claims"

    rows: tuple[Claim, ...]
    level: float
    description: str

    def __getitem__(self, claim: str) -> Claim:
        """The row of a claim; without one, a `LensNeuronsError` lists them."""
        names = [row.claim for row in self.rows]
        return self.rows[names.index(choose(claim, names, "claim"))]

    def save(self, path: str | Path) -> Path:
        """Write readable JSON, atomically, and return its path."""
        rows = [
            {name: None if value != value else value for name, value in asdict(row).items()}
            for row in self.rows  # JSON has no NaN, the only value that differs from itself
        ]
        return save_json(path, {"claims": rows, "level": self.level, "about": self.description})

    @classmethod
    def load(cls, path: str | Path) -> Claims:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, no JSON, or one that lacks something or was changed.
        """
        found = load_json(path)

        def build() -> Claims:
            rows = tuple(
                from_json(Claim, {name: NAN if one is None else one for name, one in row.items()})
                for row in found["claims"]
            )
            if foreign := sorted(found.keys() - {"claims", "level", "about"}):
                raise KeyError(f"no entry is called {foreign[0]!r}")
            return cls(rows, from_json(float, found["level"]), from_json(str, found["about"]))

        return whole(Path(path), cls, build)

    def _brief(self) -> str:
        counts = Counter(row.verdict for row in self.rows)
        told = ", ".join(f"{number} {name}" for name, number in counts.items())
        return f"{len(self.rows)}: {told}; {self.description}"

    def _overview(self) -> Overview:
        rows = []
        for row in self.rows:
            ends = "" if np.isnan(row.low) else f"{row.low:.4g} to {row.high:.4g}"
            told = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
            measured = f"{row.measured:.4g}"
            rows.append((row.claim, row.expected, measured, ends, p_text(row.p), told))
        head = ("claim", "expected", "measured", "interval", "p", "verdict")
        return Overview(f"Claims: {self.description}", head, rows)


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
MEAN_SIGNS: tuple[tuple[str, Sign], ...] = (("specific", "falls"), ("related", "rises"))
SWAPS = "before and after swapped within groups of items"
FLIPS = "which matched pairs are new"
CHOICES = "which languages are called trained"
RANK = "none: a rank, decided by its interval"


@plain_options
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
    spans = None
    if parts is not None and not (isinstance(parts, LayerParts) and parts.boundaries is None):
        spans = boundaries_of(parts, comparison.n_layers)
        if len(spans) != 4:
            raise LensNeuronsError(f"{len(spans)} parts were given: the claims are about four")
    rows = []
    for claim, expected, measure in _claimed_changes(comparison, spans):
        if isinstance(measure, str):
            rows.append(undecided(claim, expected, SWAPS, measure))
        else:
            rows.append(_change(comparison, claim, expected, measure, level))
    rows += [*_about_sharing(comparison, level), *_about_english(comparison, level)]
    return Claims(tuple(rows), level, comparison.description)


def _claimed_changes(
    comparison: Comparison, spans: list[tuple[int, int]] | None
) -> Iterator[tuple[str, Sign, ClassMeasure | str]]:
    """Every claim about changes: its text, its sign, and the changes [draw, number] that should all
    have the sign, or why there are none.
    """

    def part_change(first: int, end: int, name: str, tables: ClassTables) -> np.ndarray:
        return of_class(tables.layer_change()[:, first : end + 1].sum(axis=1), name)[:, None]

    def number_change(n: int, tables: ClassTables) -> np.ndarray:
        return tables.histogram_change()[:, n : n + 1]

    def mean_change(places: Sequence[int], name: str, tables: ClassTables) -> np.ndarray:
        return tables.mean_change(places, name)[:, None]

    for number, name, sign in PART_SIGNS:
        measure = partial(part_change, *spans[number - 1], name) if spans else "no parts"
        yield f"part {number}: {name} neurons", sign, measure
    last = len(comparison.languages)
    for n in range(1, last + 1):
        sign = "falls" if n <= 2 and n < last else "rises"
        yield f"neurons with N = {n}", sign, partial(number_change, n)
    claim = f"neurons with N = {last} rise more than those with any other N > 0"
    yield claim, "positive", lambda t: number_change(last, t) - t.histogram_change()[:, 1:-1]
    untouched = comparison.untouched if comparison.trained else ()
    for role, languages in {"trained": comparison.trained, "untouched": untouched}.items():
        places = [comparison.languages.index(language) for language in languages]
        for name, sign in MEAN_SIGNS:
            measure = partial(mean_change, places, name) if places else _missing(comparison)
            yield f"{name} neurons of a language, mean over {role} ones", sign, measure


def _missing(comparison: Comparison) -> str:
    """Why trained and untouched languages cannot be told apart."""
    if not comparison.trained:
        return "compare(..., trained=...) was not given"
    return "no language is untouched"


def _change(
    comparison: Comparison, claim: str, expected: Sign, measure: ClassMeasure, level: float
) -> Claim:
    """Judge a claim about changes [draw, number] that should all have the expected sign."""
    sign = -1 if expected == "falls" else 1
    p, still = (NAN, NAN), False
    if comparison.alone is not None:
        changes = sign * measure(comparison.alone)
        p, still = swap_p_least(changes), not changes.any()
    ends = _ends(comparison, lambda tables: sign * measure(tables), level)
    return judged(claim, expected, ends, p=p, permuted=SWAPS, level=level, still=still)


def _about_sharing(comparison: Comparison, level: float) -> Iterator[Claim]:
    claim = "neurons newly related to untouched languages are shared with trained ones"
    names = {claim: FLIPS, f"{claim}, more than with others": CHOICES}
    sharing = comparison.sharing
    if sharing is None:
        reason = _missing(comparison)
        yield from (undecided(name, "positive", what, reason) for name, what in names.items())
        return
    values = np.array([sharing.excess, sharing.contrast])
    p = (sharing.flipped_p, sharing.others_p)
    for i, (name, permuted) in enumerate(names.items()):
        ends = _least(values[[i]], sharing.left_out[:, [i]], level)
        yield judged(name, "positive", ends, p=p[i], permuted=permuted, level=level)


def _about_english(comparison: Comparison, level: float) -> Iterator[Claim]:
    few = "English has fewer selected specific neurons than any other language (before)"
    wide = "selected related neurons of English are shared with the most languages (before)"
    missing = "" if comparison.selected.any() else "no lambda selects neurons"
    missing = missing if "en" in comparison.languages else "English was not counted"
    if missing:
        yield from (undecided(claim, "positive", RANK, missing) for claim in (few, wide))
        return
    place = comparison.languages.index("en")

    def lead(by_language: np.ndarray) -> np.ndarray:
        """By how much English exceeds each other language: [draw, other language]."""
        return by_language[:, place : place + 1] - np.delete(by_language, place, axis=1)

    def mean_number(tables: ClassTables) -> np.ndarray:
        """Mean N of the selected related neurons: [draw, language]."""
        related = tables.selected[:, :, 2:-1]
        return ratio(related @ np.arange(2, 2 + related.shape[-1]), related.sum(axis=-1))

    for claim, measure in (
        (few, lambda tables: -lead(of_class(tables.selected, "specific"))),
        (wide, lambda tables: lead(mean_number(tables))),
    ):
        ends = _ends(comparison, measure, level)
        yield judged(claim, "positive", ends, p=None, permuted=RANK, level=level)


def _ends(comparison: Comparison, measure: ClassMeasure, level: float) -> Ends:
    left_out = None if comparison.left_out is None else measure(comparison.left_out)
    return _least(measure(comparison.tables)[0], left_out, level)


def _least(values: np.ndarray, left_out: np.ndarray | None, level: float) -> Ends:
    """The least of several numbers, and the ends of its interval where there is one."""
    if left_out is None or not len(left_out) or np.isnan(left_out).any():
        return float(values.min()), NAN, NAN
    found = least_interval(values, left_out, level=level)
    return float(found.estimate), float(found.low), float(found.high)


def judged(
    claim: str,
    expected: Sign,
    ends: Ends,
    *,
    p: tuple[float, float] | None,
    permuted: str,
    level: float,
    still: bool = False,
) -> Claim:
    """The row of a claim, with its verdict.

    Args:
        claim: as for `Claim`.
        expected: as for `Claim`.
        ends: the number and the ends of its interval, turned so that the expected sign is positive;
            the row turns them back.
        p: one-sided p-values toward the expected sign and toward the contrary; None where nothing
            is permuted and the interval decides.
        permuted: as for `Claim`.
        level: coverage of the interval.
        still: whether nothing changed in any group of items.
    """
    verdict, reason = _verdict(ends, p or (0.0, 0.0), level, still)
    measured, low, high = ends
    if expected == "falls":
        measured, low, high = -measured, -high, -low
    numbers = (float(measured) + 0.0, float(low) + 0.0, float(high) + 0.0)  # no -0.0
    return Claim(claim, expected, *numbers, p[0] if p else NAN, permuted, verdict, reason)


def _verdict(ends: Ends, p: tuple[float, float], level: float, still: bool) -> tuple[Verdict, str]:
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


def undecided(claim: str, expected: Sign, permuted: str, reason: str) -> Claim:
    """A claim about which nothing can be said, and why."""
    return Claim(claim, expected, NAN, NAN, NAN, NAN, permuted, "undecided", reason)
