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

A claim about a change is about what no null explains. Its number is the *least* of four, each
turned so that the expected sign is positive:

    the change                  it has the sign that is claimed
    the change less *uniform*   it is more than an equal rise of all firing gives
    the change less *drift*     it is more than noise without a direction gives
    the change less *alike*     it is more than neurons that fire more in all languages give

(`lensneurons.comparison.nulls`). Number, interval and p are all of this statistic
(`lensneurons.uncertainty.drawn`); p is two-sided. The claims are one family, so their p-values are
adjusted for their number (Holm), and one rule gives every verdict at level 0.95:

    holds          the adjusted p is at most 0.05, and the number is positive
    does not hold  the adjusted p is at most 0.05, and the number is negative; or there were such
                   neurons, and nothing changed in any draw of the items
    undecided      all else, with the reason; also where there was nothing to change

What the error is made of: for changes, drawn groups of items, and for the change less drift or
alike also the noise itself; it is at least ``sqrt(change)``, as each neuron that moved could have
moved the other way, so a change of fewer than ten neurons never holds. For sharing, which
of matched pairs are the new ones (`lensneurons.comparison.sharing`). For English, drawn groups of
items. "More than every other" holds where each of those tests does.

English is judged on the selected neurons of the model before, as in the paper: on the published
Mistral-7B counts it has 12 specific ones, the next language 48. Among *all* neurons it has 2,450,
and six languages have fewer.

Power and error, simulated (tests/simulations/comparison_claims.py; 8 languages, 4,000 neurons, ten
groups): with more firing alone (x 1.10 to 1.22), with noise on the logits (independent, or half of
it common to the languages of a neuron), with both, and with nothing, no claim held in any of six
worlds each. Where each untouched language joins an eighth of the trained ones' neurons, "related
neurons of untouched languages rise" and both claims about sharing held in six of six; where they
leave as many others for them, the claims about sharing in four and three. Planted rises of 6, 9, 13
and 19 neurons a language hold in 0, 0, 5 and 6 of six; unadjusted p-values are small in 2, 4, 6, 6.

Worlds that were made later and read once, with heavy-tailed rates and layers unlike one another:
no claim about a change or sharing held where every neuron fired more by a number of its own, with a
long tail; where half of the neurons of one layer did, in all languages; or where one neuron in five
did in a random half of the languages (five worlds each, tests/support/later_worlds.py). Without
*alike* such worlds pass for alignment: one neuron in six that fires more in all languages made
"related neurons of untouched languages rise" hold in 8 of 8, and with it in 0 of 6
(tests/support/unseen_worlds.py). Where an eighth of the trained languages' neurons draw the
untouched ones, that claim held in 6 of 6 beside a rise of all firing, in 5 of 5 beside one neuron
in six that fires more everywhere, in 4 of 5 where they draw all untouched languages at once (a rise
of 15 neurons a language), and in 0 of 6 where each language joins by itself and few do (11 neurons:
a small rise is not found). "Newly related neurons are shared" held in 6, 3, 0 and 6 of the same:
languages that all join at once leave no pairs to compare. Each finds what the other may miss.

A change that "does not hold" can be one that is less than its nulls give. Look at `change` beside
the verdict.

>>> ln.claims(change, parts=ln.divide_layers(neurons))              # doctest: +SKIP

What this does not show: that the training caused what holds; compare a random adapter and one that
was trained on shuffled pairs. A claim that does not hold here is one about this model and corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.change_tables import Boundaries, boundaries_of, p_equals, p_text
from lensneurons.comparison.class_counts import ClassTables, by_class, of_class, ratio
from lensneurons.comparison.nulls import NULLS_VERSION, require_same_nulls
from lensneurons.errors import LensNeuronsError, StorageError, choose
from lensneurons.neurons.belonging import require_own_profile
from lensneurons.neurons.language_neurons import LAYER_CLASSES
from lensneurons.neurons.parts import LayerParts
from lensneurons.options import plain_options
from lensneurons.uncertainty.drawn import (
    Tested,
    degrees_of,
    drawn_error,
    holm,
    student,
    student_of_least,
)
from lensneurons.uncertainty.groups import require_level
from lensneurons.values.base import Overview, Table, from_json, whole
from lensneurons.values.files import load_json, save_json
from lensneurons.values.provenance import Provenance

Verdict = Literal["holds", "does not hold", "undecided"]
Sign = Literal["rises", "falls", "positive"]
NAN = float("nan")


@dataclass(frozen=True)
class Claim:
    """One claim, measured.

    Attributes:
        claim: what should hold.
        expected: ``"rises"``, ``"falls"``, or ``"positive"`` for a number that is no change.
        measured: the number that decides, for changes what no null explains; NaN where it cannot be
            measured.
        low: lower end of its interval; NaN without groups of items.
        high: upper end.
        p: its two-sided p-value; NaN where there is none.
        p_adjusted: the same, adjusted for the number of claims (Holm).
        verdict: ``"holds"``, ``"does not hold"`` or ``"undecided"``.
        reason: why it is undecided, or does not hold; may be empty.
        change: the change itself; NaN for a number that is no change.
        uniform: the change that the layers' median shifts alone give.
        drift: the change that noise without a direction gives; NaN without groups.
        alike: the change that what neurons do in their other languages gives; NaN without groups.
        own_bar: the change at each model's own bar.
    """

    claim: str
    expected: Sign
    measured: float
    low: float
    high: float
    p: float
    p_adjusted: float
    verdict: Verdict
    reason: str = ""
    change: float = NAN
    uniform: float = NAN
    drift: float = NAN
    alike: float = NAN
    own_bar: float = NAN


@dataclass(frozen=True, eq=False, repr=False)
class Claims(Table[Claim]):
    """Verdicts on the paper's claims. Made by `claims`; its file is readable JSON.

    Attributes:
        rows: one a claim.
        level: coverage of the intervals; an adjusted p-value up to ``1 - level`` is small.
        description: what was compared.
        made_from: bar and, of one model, how its neurons were identified; empty in files of an
            earlier lensneurons.
        provenance: of the model, or of the one before the change.
    """

    FILE_KIND = "claims"

    rows: tuple[Claim, ...]
    level: float
    description: str
    made_from: str = ""
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def about_changes(self) -> bool:
        """Whether claims are about a change; those about one model are about numbers alone."""
        return any(row.expected != "positive" for row in self.rows)

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
        about = {
            "about": self.description,
            "made_from": self.made_from,
            "provenance": self.provenance.to_dict(),
        }
        if self.about_changes:
            about["nulls"] = NULLS_VERSION
        return save_json(path, {"claims": rows, "level": self.level, **about})

    @classmethod
    def load(cls, path: str | Path) -> Claims:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, no JSON, or one that lacks something or was changed.
        """
        found = load_json(path)

        def build() -> Claims:
            if any("permuted" in row for row in found["claims"]):
                raise StorageError(
                    f"{path} was saved by an earlier lensneurons, whose p-values were of another "
                    "statistic than the numbers, and not adjusted: test the claims again"
                )
            rows = tuple(
                from_json(Claim, {name: NAN if one is None else one for name, one in row.items()})
                for row in found["claims"]
            )
            if any(row.expected != "positive" for row in rows):
                remedy = "delete it, compare the two runs, and test the claims again"
                require_same_nulls(found.get("nulls"), str(path), remedy)
            known = {"claims", "level", "about", "made_from", "provenance", "nulls"}
            if foreign := sorted(found.keys() - known):
                raise KeyError(f"no entry is called {foreign[0]!r}")
            made, origin = found.get("made_from", ""), found.get("provenance", {})
            level, about = from_json(float, found["level"]), from_json(str, found["about"])
            return cls(rows, level, about, from_json(str, made), Provenance.from_dict(origin))

        return whole(Path(path), cls, build)

    def _brief(self) -> str:
        counts = Counter(row.verdict for row in self.rows)
        told = ", ".join(f"{number} {name}" for name, number in counts.items())
        return f"{len(self.rows)}: {told}; {self.description}"

    def _overview(self) -> Overview:
        rows, about = [], self.about_changes
        for row in self.rows:
            ends = "" if np.isnan(row.low) else f"{row.low:.4g} to {row.high:.4g}"
            told = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
            measured = f"{row.measured:.4g}"
            numbers = (measured, ends, p_text(row.p_adjusted))
            nulls = tuple(
                "" if np.isnan(one) else f"{one:.4g}"
                for one in (row.change, row.uniform, row.drift, row.alike)
            )
            rows.append((row.claim, row.expected, *(nulls if about else ()), *numbers, told))
        middle = ("change", *NULLS, "beyond them") if about else ("measured",)
        head = ("claim", "expected", *middle, "interval", "adjusted p", "verdict")
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
FEWEST = 10  # neurons: where none of fewer moved, that says nothing
NULLS = ("uniform", "drift", "alike")
# Counts [draw, model, number] of which all changes should have the expected sign.
Counts = Callable[[ClassTables], np.ndarray]


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
        LensNeuronsError: a level outside (0, 1), boundaries that are not four parts, or parts that
            were found in other neurons than those of the model before.
    """
    require_level(level)
    spans = None
    if isinstance(parts, LayerParts):
        before = by_class(comparison.tables.layers[0, 0], LAYER_CLASSES)
        remedy = f"divide_layers(identify(before, tau={comparison.tau!r}))"
        require_own_profile(parts.profile, before, remedy=remedy, whose="the model before has")
    if parts is not None and not (isinstance(parts, LayerParts) and parts.boundaries is None):
        spans = boundaries_of(parts, comparison.n_layers)
        if len(spans) != 4:
            raise LensNeuronsError(f"{len(spans)} parts were given: the claims are about four")
    rows = []
    for claim, expected, counts, languages in _claimed_changes(comparison, spans):
        if isinstance(counts, str):
            rows.append(undecided(claim, expected, counts))
        else:
            row = _change(comparison, claim, expected, counts, level, languages=languages)
            rows.append(row)
    rows += [*_about_sharing(comparison, level), *_about_english(comparison, level)]
    return Claims(
        decided(rows, level),
        level,
        comparison.description,
        made_from=comparison.description,
        provenance=comparison.provenance[0],
    )


def _claimed_changes(
    comparison: Comparison, spans: list[tuple[int, int]] | None
) -> Iterator[tuple[str, Sign, Counts | str, int]]:
    """Every claim about changes: its text, its sign, its counts, or why there are none, and over
    how many languages they are means.
    """

    def of_part(first: int, end: int, name: str, tables: ClassTables) -> np.ndarray:
        return of_class(tables.layers[:, :, first : end + 1].sum(axis=2), name)[..., None]

    def of_number(n: int, tables: ClassTables) -> np.ndarray:
        return tables.layers.sum(axis=2)[..., n : n + 1]

    def lead(tables: ClassTables) -> np.ndarray:
        return of_number(last, tables) - tables.layers.sum(axis=2)[..., 1:-1]

    def mean_of(places: Sequence[int], name: str, tables: ClassTables) -> np.ndarray:
        return of_class(tables.members[:, :, places].sum(axis=2), name)[..., None] / len(places)

    for number, name, sign in PART_SIGNS:
        counts = partial(of_part, *spans[number - 1], name) if spans else "no parts"
        yield f"part {number}: {name} neurons", sign, counts, 1
    last = len(comparison.languages)
    for n in range(1, last + 1):
        sign = "falls" if n <= 2 and n < last else "rises"
        yield f"neurons with N = {n}", sign, partial(of_number, n), 1
    yield f"neurons with N = {last} rise more than those with any other N > 0", "positive", lead, 1
    untouched = comparison.untouched if comparison.trained else ()
    for role, languages in {"trained": comparison.trained, "untouched": untouched}.items():
        places = [comparison.languages.index(language) for language in languages]
        for name, sign in MEAN_SIGNS:
            counts = partial(mean_of, places, name) if places else _missing(comparison)
            claim = f"{name} neurons of a language, mean over {role} ones"
            yield claim, sign, counts, max(1, len(places))


def _missing(comparison: Comparison) -> str:
    """Why trained and untouched languages cannot be told apart."""
    if not comparison.trained:
        return "compare(..., trained=...) was not given"
    return "no language is untouched"


def _change(
    comparison: Comparison,
    claim: str,
    expected: Sign,
    counts: Counts,
    level: float,
    *,
    languages: int = 1,
) -> Claim:
    """Measure a claim about changes of counts, means over so many languages, that should all have
    the expected sign.
    """
    sign = -1 if expected == "falls" else 1

    def turned(tables: ClassTables) -> np.ndarray:
        found = sign * counts(tables)
        return found[:, 1] - found[:, 0]

    change = turned(comparison.tables)[0].astype(float)
    told = {"change": change}
    for name in (*NULLS, "own_bar"):
        one = getattr(comparison, name)
        told[name] = np.full(change.shape, NAN) if one is None else turned(one).mean(axis=0)
    # Of several changes the one that counts is the least, and its nulls are shown.
    shown = {name: float(sign * one[change.argmin()]) + 0.0 for name, one in told.items()}
    drawn = comparison.all_drawn
    if drawn is None:
        found = (float(sign * change.min()) + 0.0, NAN, NAN, NAN, NAN)
        return Claim(claim, expected, *found, "undecided", _no_groups(change.min()), **shown)
    moves, *by_null = (turned(one) for one in drawn)
    values = np.stack([change, *(change - told[name] for name in NULLS)])
    error = np.stack(
        [drawn_error(one, comparison.n_groups) for one in (moves, *(moves - by for by in by_null))]
    )
    # Each neuron that moved could have moved the other way: a Poisson error, at least.
    error = np.maximum(error, np.abs(change / languages) ** 0.5)
    tested = student_of_least(
        values.ravel(), error.ravel(), degrees_of(comparison.n_groups), level=level
    )
    row = _row(claim, expected, tested, **shown)
    if not change.any() and not moves.any():
        there = int(counts(comparison.tables).max() * languages)
        if there < FEWEST:
            few = f"only {there} such neurons" if there else "no such neurons"
            return replace(row, p=NAN, reason=f"nothing to change: there are {few}")
        return replace(row, verdict="does not hold", reason="nothing changed in any draw of items")
    weakest = int((values / np.where(error > 0, error, 1e-9)).min(axis=1).argmin())
    less = f" less {NULLS[weakest - 1]}" if weakest else ""
    return replace(row, reason=f"the change{less}")


def _row(claim: str, expected: Sign, tested: Tested, **shown: float) -> Claim:
    """A claim whose number was turned so that the expected sign is positive, turned back."""
    measured, low, high, p = (
        float(one) + 0.0 for one in (tested.estimate, tested.low, tested.high, tested.p)
    )
    if expected == "falls":
        measured, low, high = -measured + 0.0, -high + 0.0, -low + 0.0  # no -0.0
    row = Claim(claim, expected, measured, low, high, p, NAN, "undecided")
    return replace(row, **shown)


def _no_groups(measured: float) -> str:
    side = "as expected" if measured > 0 else "not as expected"
    return f"no interval without groups of items (the sign is {side})"


def decided(rows: Sequence[Claim], level: float) -> tuple[Claim, ...]:
    """The rows with adjusted p-values and verdicts.

    A row whose verdict is given keeps it; so does a row without p. The reason of others is which of
    several numbers decides, or empty.
    """
    adjusted = holm(np.array([row.p for row in rows]))
    found = []
    for row, p in zip(rows, adjusted.tolist(), strict=True):
        verdict, reason = row.verdict, row.reason
        if verdict == "undecided" and not np.isnan(p):
            small = p <= 1 - level + 1e-12
            right = (row.measured > 0) != (row.expected == "falls")
            if small:
                verdict = "holds" if right else "does not hold"
                against = reason and (row.change > 0) != (row.expected == "falls")
                reason = f"{reason} is negative" if against and not right else ""
            else:
                reason = p_equals(p, "adjusted p") + (f" ({reason})" if reason else "")
        found.append(replace(row, p_adjusted=p, verdict=verdict, reason=reason))
    return tuple(found)


def _about_sharing(comparison: Comparison, level: float) -> Iterator[Claim]:
    claim = "neurons newly related to untouched languages are shared with trained ones"
    names = (claim, f"{claim}, more than with others")
    sharing = comparison.sharing
    if sharing is None:
        yield from (undecided(name, "positive", _missing(comparison)) for name in names)
        return
    values = (
        (sharing.excess, sharing.error, sharing.neurons - 1),
        (sharing.contrast, sharing.contrast_error, sharing.neurons - 1),
    )
    for name, (value, error, degrees) in zip(names, values, strict=True):
        if sharing.pairs == 0:
            yield undecided(name, "positive", "there are no newly related neurons")
        elif sharing.too_few:
            yield replace(undecided(name, "positive", sharing.too_few), measured=value)
        elif comparison.n_groups < 2:
            yield replace(undecided(name, "positive", _no_groups(value)), measured=value)
        else:
            one = student(np.asarray(value), np.asarray(error), degrees, level=level)
            yield _row(name, "positive", one)


def _about_english(comparison: Comparison, level: float) -> Iterator[Claim]:
    few = "English has fewer selected specific neurons than any other language (before)"
    wide = "selected related neurons of English are shared with the most languages (before)"
    missing = "" if comparison.selected.any() else "no lambda selects neurons"
    missing = missing if "en" in comparison.languages else "English was not counted"
    if missing:
        yield from (undecided(claim, "positive", missing) for claim in (few, wide))
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
        value, drawn = measure(comparison.tables)[0], comparison.drawn
        least = float(value.min())
        if np.isnan(least):
            yield undecided(claim, "positive", "there is nothing to measure it on")
        elif drawn is None or np.isnan(measure(drawn)).any():
            reason = "some draws of the items have nothing to measure it on"
            reason = reason if drawn is not None else _no_groups(least)
            yield replace(undecided(claim, "positive", reason), measured=least)
        else:
            error = drawn_error(measure(drawn), comparison.n_groups)
            tested = student_of_least(value, error, degrees_of(comparison.n_groups), level=level)
            yield _row(claim, "positive", tested)


def undecided(claim: str, expected: Sign, reason: str) -> Claim:
    """A claim about which nothing can be said, and why."""
    return Claim(claim, expected, NAN, NAN, NAN, NAN, NAN, "undecided", reason)
