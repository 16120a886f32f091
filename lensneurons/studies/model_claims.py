"""The paper's statements about a single model as named tests, each with its verdict.

arXiv 2505.21505 (sections 4 and 5) describes one model before it asks what alignment changes. Each
statement is a number that is positive where the paper is right:

    four parts   every contrast of `divide_layers` (section 4.2), in logs of counts
    places       specific and related neurons, over all neurons: more in the first quarter of the
                 layers, and in the last, than in the middle half; agnostic ones: fewer (section
                 4.2). Mean log1p count of one region less that of the other
    floor        more neurons have N = K than N = K - 1: the histogram of N rises at its end
                 (section 4). ln((n_K + 1/2) / (n_{K-1} + 1/2))
    removal      (section 5) nats a token beyond random sets that are as active in the row's
                 language: half the harm of specific + related neurons to their own language less
                 that of specific ones alone; the harm itself; that to the own language less the
                 mean of the others; the harm that agnostic ones add to the language they harm
                 least, also without taking the random sets off
    English      (section 5) of selected neurons, fewest specific ones and the highest mean N of
                 related ones; removing its neurons harms it less than the mean of the others
    scripts      (section 5) languages with a script in common share more selected related neurons
                 (Jaccard), and removing the neurons of one harms the other more (nats a token),
                 than languages without. Scripts are those of CLDR (`lensneurons.languages.scripts`)

**Errors.** A number varies with the parts of the model that it is made of, and with the texts:

    four parts      those of `divide_layers` at this level: the wobble of layers, and texts
    places          layers as independent draws of their region (Welch), and texts
    floor, English  neurons as independent draws (Poisson, or the spread of N), and texts
    removal         items, and what one more random set would do (as in `placebo_p`), so intervals
                    are wider than those of `AblationMatrix.beyond_control`
    scripts         languages dealt anew to rows and columns: p is the share of deals that set
                    scripts as far apart; the interval holds the shifts that this does not refuse

Texts are drawn groups of items. Without groups, parts and places have the errors of layers alone,
and floor and English are undecided. Independent errors add in squares (degrees of freedom by
Satterthwaite). "Every language" and "any other" are the least of several numbers
(`lensneurons.uncertainty.drawn`).

**Verdicts.** All tests are one family: p-values are adjusted for their number (Holm) and judged as
`lensneurons.comparison.paper_claims` does. And a contrast of a part is judged only where
`divide_layers` finds that part, because its division is chosen from the profile that it is tested
on. Without this rule some contrast holds in 15 to 24 % of profiles of shuffled or flat layers, and
some does not hold in 7 to 26 %; with it, some holds in at most 2 % (12 and 32 layers, 100 each).

>>> import lensneurons as ln
>>> sample = ln.load_sample("gemma-3-270m")
>>> found = ln.studies.model_claims(sample.neurons, parts=sample.parts)
>>> found["agnostic neurons are lowest in part 3"].verdict
'holds'

What this does not show: that other models, or this one on texts of another kind, do alike. A place
holds as well where counts drift smoothly over the depth, without parts. Languages of one script
have more in common than their script, and ten of them are few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.class_counts import of_class, ratio
from lensneurons.comparison.paper_claims import NAN, Claim, Claims, decided, undecided
from lensneurons.errors import LensNeuronsError, shown
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.belonging import require_own_effects
from lensneurons.languages.codes import known_code, scripts
from lensneurons.neurons.belonging import require_own_profile, require_own_statistics
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LEVEL, Criterion, LayerParts
from lensneurons.options import plain_options
from lensneurons.shapes import LanguageMatrix
from lensneurons.uncertainty.contrasts import standard_error
from lensneurons.uncertainty.drawn import Tested, degrees_of, drawn_error, student, student_of_least
from lensneurons.uncertainty.groups import require_level, resamples
from lensneurons.uncertainty.items import ItemDraws

DRAWS = 200  # of the groups of items: the errors are known to 5 %
DEALS = 20_000  # of the languages; an adjusted p of 5 % among 30 tests is 17 of them at each end
FEWEST_LAYERS = 12  # with two layers a quarter, a place holds in 10 % of shuffled profiles
PLACES = (
    ("specific", "first quarter", "middle half"),
    ("specific", "last quarter", "middle half"),
    ("related", "first quarter", "middle half"),
    ("related", "last quarter", "middle half"),
    ("agnostic", "middle half", "first quarter"),
    ("agnostic", "middle half", "last quarter"),
)
_TOLD = {
    "holds": "would hold",
    "does not hold": "would not hold",
    "undecided": "is undecided",
    "cannot be judged": "cannot be judged",
}
COLUMNS = ("specific", "related", "agnostic")  # of a layer profile
NO_GROUPS = "no interval without groups of items"


@plain_options
def model_claims(
    neurons: LanguageNeurons,
    *,
    statistics: ActivationStatistics | None = None,
    parts: LayerParts | None = None,
    effects: AblationMatrix | None = None,
    level: float = 0.95,
) -> Claims:
    """Test the paper's statements about one model.

    A statement whose input is not given is undecided and says so.

    Args:
        neurons: the identified neurons, by the paper's score or LAPE.
        statistics: what they were identified from, in groups of items (``collect(...,
            groups=10)``): what other texts would give.
        parts: what `divide_layers` gives for them.
        effects: what `ablation_matrix` gives for them, in NLL, beside random sets of
            ``match="own"``; settings that it lacks are undecided.
        level: coverage of the intervals; p-values are held against ``1 - level``.

    Raises:
        LensNeuronsError: a level outside (0, 1), or statistics, parts or effects of other neurons,
            or effects on accuracy.
    """
    require_level(level)
    _require_own(neurons, statistics, parts, effects)
    tables = _Tables.of(neurons, statistics)
    rows = [
        *_about_parts(parts, level),
        *_about_places(tables, level),
        _about_floor(tables, level),
        *_about_removal(effects, level),
        *_about_english(tables, effects, level),
        *_about_scripts(neurons, effects, level),
    ]
    texts = f"{tables.n_groups} groups of items" if tables.n_groups > 1 else "no groups of items"
    told = f"one model, {neurons.provenance.model}: {len(neurons.languages)} languages, {texts}"
    if effects is not None:
        told += f", neurons removed on {effects.n_items} items"
    made = {"made_from": neurons.description, "provenance": neurons.provenance}
    return Claims(decided(rows, level), level, told, **made)


def _require_own(
    neurons: LanguageNeurons,
    statistics: ActivationStatistics | None,
    parts: LayerParts | None,
    effects: AblationMatrix | None,
) -> None:
    """Raise unless everything is about these neurons."""
    if statistics is not None:
        require_own_statistics(neurons, statistics)
    if parts is not None:
        remedy = "divide_layers(neurons, statistics)"
        require_own_profile(parts.profile, neurons.layer_profile("all"), remedy=remedy)
    if effects is None:
        return
    if not isinstance(effects, AblationMatrix):
        raise LensNeuronsError(
            f"effects={shown(effects)}: give one matrix, what ablation_matrix() returns"
        )
    if effects.metric != "nll":
        raise LensNeuronsError(
            f"effects on {effects.metric} were given: the claims are about NLL, "
            "ablation_matrix(..., metric='nll')"
        )
    require_own_effects(neurons, effects)


# The counts that the statements are about, on all items and on drawn ones


@dataclass(frozen=True, eq=False)
class _Tables:
    """Counts of one model; index 0 of the first axis is all items, the others are drawn groups.

    Attributes:
        languages: codes.
        profile: [1 + draw, layer, class], of all neurons.
        histogram: [1 + draw, N], of all neurons.
        selected: [1 + draw, language, N], selected neurons above the bar in the language.
        n_groups: of items; 1 without statistics or groups, and then nothing is drawn.
    """

    languages: tuple[str, ...]
    profile: np.ndarray
    histogram: np.ndarray
    selected: np.ndarray
    n_groups: int

    @classmethod
    def of(cls, neurons: LanguageNeurons, statistics: ActivationStatistics | None) -> _Tables:
        """Count on all items, and on `DRAWS` corpora of drawn groups, at the bar of the neurons."""
        drawn: Iterator[ActivationStatistics] = iter(())
        n_groups = 1 if statistics is None else statistics.n_groups
        if statistics is not None and n_groups > 1:
            drawn = resamples(statistics.select(neurons.languages), draws=DRAWS)
        alike = (replace(neurons, probability=one.probability) for one in drawn)
        counts = [
            (one.layer_profile("all"), one.histogram("all"), _members(one))
            for one in chain([neurons], alike)
        ]
        profile, histogram, selected = map(np.stack, zip(*counts, strict=True))
        return cls(neurons.languages, profile, histogram, selected, n_groups)

    def variance_of_texts(self, values: np.ndarray) -> np.ndarray | float:
        """Squared errors [...] of numbers [1 + draw, ...] that drawn groups tell; 0 without."""
        return drawn_error(values[1:], self.n_groups) ** 2 if self.n_groups > 1 else 0.0

    @property
    def degrees(self) -> float:
        """Degrees of freedom of these errors."""
        return float(degrees_of(self.n_groups)) if self.n_groups > 1 else np.inf


def _members(neurons: LanguageNeurons) -> np.ndarray:
    """int64 [language, N]: selected neurons that exceed the bar in a language, by their N."""
    above, number = neurons.above[neurons.selected], neurons.n_above[neurons.selected]
    return np.stack([
        np.bincount(number[column], minlength=len(neurons.languages) + 1) for column in above.T
    ])  # fmt: skip


def _satterthwaite(
    variances: Sequence[np.ndarray | float], degrees: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors and degrees of freedom [...] of sums of independent errors."""
    total = np.asarray(sum(variances), float)
    parts = sum(np.square(v) / d for v, d in zip(variances, degrees, strict=True))
    freedom = np.divide(np.square(total), parts, out=np.full(total.shape, 1e6), where=parts > 0)
    return np.asarray(np.sqrt(total)), np.asarray(np.minimum(freedom, 1e6))


def _row(claim: str, tested: Tested) -> Claim:
    """A claim that is positive where the paper is right, not yet judged."""
    measured, low, high, p = map(float, (tested.estimate, tested.low, tested.high, tested.p))
    return Claim(claim, "positive", measured, low, high, p, NAN, "undecided")


def _missing(claim: str, reason: str, measured: float = NAN) -> Claim:
    """A claim about which nothing can be said, with its number if there is one."""
    return replace(undecided(claim, "positive", reason), measured=measured)


# Layers


def _about_parts(parts: LayerParts | None, level: float) -> Iterator[Claim]:
    """The contrasts of `divide_layers` with the intervals and p-values of their own errors."""
    if parts is None:
        yield _missing("the four parts", "parts were not given: divide_layers(neurons, statistics)")
        return
    there = {0, *(part.number for part in parts.parts)}
    for criterion in parts.criteria:
        row = _contrast(criterion, level)
        if criterion.part not in there:
            told = f"part {criterion.part} was not found; on the best division for it this "
            row = replace(row, p=NAN, reason=told + _TOLD[criterion.verdict])
        yield row


def _contrast(criterion: Criterion, level: float) -> Claim:
    """A criterion, its normal interval at another level."""
    from scipy.special import ndtri

    if criterion.contrast is None or criterion.low is None or criterion.high is None:
        return _missing(criterion.claim, criterion.measured)
    error = (criterion.high - criterion.low) / (2 * ndtri((1 + LEVEL) / 2))
    tested = student(np.asarray(criterion.contrast), np.asarray(error), 10**6, level=level)
    return _row(criterion.claim, tested)


def _about_places(tables: _Tables, level: float) -> Iterator[Claim]:
    logs = np.log1p(tables.profile)
    n, quarter = logs.shape[1], max(1, round(logs.shape[1] / 4))
    regions = {
        "first quarter": slice(0, quarter),
        "middle half": slice(quarter, n - quarter),
        "last quarter": slice(n - quarter, n),
    }
    for name, more, fewer in PLACES:
        claim = f"{name} neurons: more in the {more} of the layers than in the {fewer}"
        column = logs[..., COLUMNS.index(name)]
        pair = [column[:, regions[where]] for where in (more, fewer)]
        difference = pair[0].mean(axis=1) - pair[1].mean(axis=1)
        if n < FEWEST_LAYERS:
            told = f"{n} layers are too few to see how they spread: {FEWEST_LAYERS} are needed"
            yield _missing(claim, told, float(difference[0]))
            continue
        spread = [one[0].var(ddof=1) / one.shape[1] for one in pair]
        error, freedom = _satterthwaite(
            [*spread, tables.variance_of_texts(difference)],
            [*(one.shape[1] - 1.0 for one in pair), tables.degrees],
        )
        yield _row(claim, student(np.asarray(difference[0]), error, float(freedom), level=level))


# Numbers of languages, and English


def _about_floor(tables: _Tables, level: float) -> Claim:
    k = len(tables.languages)
    claim = f"more neurons have N = {k} than N = {k - 1}"
    halves = tables.histogram[:, -2:] + 0.5  # an empty count has a logarithm, too
    rise = np.log(halves[:, 1] / halves[:, 0])
    if tables.n_groups < 2:
        return _missing(claim, _sign_alone(float(rise[0])), float(rise[0]))
    variances = [float((1 / halves[0]).sum()), tables.variance_of_texts(rise)]
    error, freedom = _satterthwaite(variances, [np.inf, tables.degrees])
    return _row(claim, student(np.asarray(rise[0]), error, float(freedom), level=level))


def _sign_alone(measured: float) -> str:
    return f"{NO_GROUPS} (the sign is {'as' if measured > 0 else 'not as'} expected)"


def _about_english(
    tables: _Tables, effects: AblationMatrix | None, level: float
) -> Iterator[Claim]:
    few = "English has fewer selected specific neurons than any other language"
    wide = "selected related neurons of English are shared with the most languages"
    harm = "removing its neurons harms English less than theirs harm the other languages"
    if "en" not in tables.languages or len(tables.languages) < 3:
        told = "English was not counted" if "en" not in tables.languages else "only two languages"
        yield from (_missing(claim, told) for claim in (few, wide, harm))
        return
    place = tables.languages.index("en")

    def lead(values: np.ndarray) -> np.ndarray:
        """By how much English exceeds each other language: [..., other language]."""
        return values[..., place : place + 1] - np.delete(values, place, axis=-1)

    def both(variances: np.ndarray) -> np.ndarray:
        """The variance of each such difference."""
        return variances[place] + np.delete(variances, place)

    specific = of_class(tables.selected, "specific").astype(float)
    yield _least(few, -lead(specific), both(np.maximum(specific[0], 1.0)), tables, level)
    related = tables.selected[:, :, 2:-1]
    number, n = related.sum(axis=-1), np.arange(2, 2 + related.shape[-1])
    mean = ratio(related @ n, number)
    spread = ratio(related @ np.square(n), number) - np.square(mean)  # of N, over the neurons
    yield _least(wide, lead(mean), both(ratio(spread[0], number[0] - 1)), tables, level)
    yield _removed_english(harm, effects, level)


def _least(
    claim: str, values: np.ndarray, of_neurons: np.ndarray, tables: _Tables, level: float
) -> Claim:
    """The least of numbers [1 + draw, number] with a variance of neurons each."""
    least = float(values[0].min())
    if not np.isfinite(of_neurons).all() or np.isnan(values).any():
        told = "a language has fewer than two such neurons, on all items or in a draw of them"
        return _missing(claim, told, least)
    if tables.n_groups < 2:
        return _missing(claim, _sign_alone(least), least)
    variances = [of_neurons, tables.variance_of_texts(values)]
    error, freedom = _satterthwaite(variances, [np.inf, tables.degrees])
    return _row(claim, student_of_least(values[0], error, float(freedom.min()), level=level))


# Removal. Values are float64 [2, 1 + item, row, column]: of the set less its random sets, then of
# the random sets alone; index 0 of the second axis is the mean, the others what each item adds to
# its error. Any linear function of the cells is the same function of all of them.

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of values and of the own cells


def _own(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Mean over the cells of a language on itself: [2, 1 + item]."""
    return values[..., own].mean(axis=-1)


def _own_less_others(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Own cell less the mean of the others, mean over the rows that have one: [2, 1 + item]."""
    values, own = values[..., own.any(axis=1), :], own[own.any(axis=1)]
    others = np.where(own, 0.0, values).sum(axis=-1) / (own.shape[1] - 1)
    return _own(values, own) - others.mean(axis=-1)


def _every_column(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Mean over the rows: [2, 1 + item, column]."""
    return values.mean(axis=-2)


class _Removal(NamedTuple):
    """A number that decides a statement about sets of all languages.

    Attributes:
        measure: of which linear function of the cells it is.
        weights: of the settings whose sum the cells are.
        beyond: whether the harm of random sets is taken off.
    """

    measure: Measure
    weights: dict[str, float]
    beyond: bool = True


ADDED = {"agnostic": 1.0, "related": -1.0}
REMOVAL = {
    "specific neurons alone do less than half the harm of specific + related ones": _Removal(
        _own, {"related": 0.5, "specific": -1.0}
    ),
    "specific + related neurons harm their own language more than random sets do": _Removal(
        _own, {"related": 1.0}
    ),
    "specific + related neurons harm their own language most, more so than random sets": _Removal(
        _own_less_others, {"related": 1.0}
    ),
    "adding agnostic neurons harms every language": _Removal(_every_column, ADDED, beyond=False),
    "adding agnostic neurons harms every language more than random sets do": _Removal(
        _every_column, ADDED
    ),
}


def _about_removal(effects: AblationMatrix | None, level: float) -> Iterator[Claim]:
    for claim, (measure, weights, beyond) in REMOVAL.items():
        told = _untested(effects, weights)
        if effects is None or told:
            yield _missing(claim, told)
            continue
        harms = [weight * _harm(effects, setting) for setting, weight in weights.items()]
        values = np.stack(harms).sum(axis=0)
        if not beyond:
            values = np.stack([values.sum(axis=0), np.zeros_like(values[0])])
        yield _row(claim, _tested(effects, measure(values, effects.own_cells), level))


def _untested(effects: AblationMatrix | None, settings: Iterable[str]) -> str:
    """Why settings of a matrix cannot be tested; empty where they can."""
    if effects is None:
        return "effects were not given: ablation_matrix(model, corpus, neurons=neurons)"
    if lacking := [one for one in settings if one not in effects.classes]:
        return f"effects lack the setting {lacking[0]!r}"
    if "own" not in effects.matches:
        return "effects lack random sets that are as active in the row's language (match='own')"
    if not effects.own_cells.any() or len(effects.languages) < 2:
        return "effects hold no language that was removed and evaluated beside another"
    return effects.too_few


def _harm(effects: AblationMatrix, setting: str) -> np.ndarray:
    """The values of a setting."""
    place, side = effects.classes.index(setting), effects.matches.index("own")
    residuals = ItemDraws(effects.item_ids, effects.language).residuals(
        np.stack([effects.effect[place], effects.control[side, place]]), effects.weight
    )
    means = np.stack([effects.cells(setting), effects.control_cells(setting, "own")])
    both = np.concatenate([means[None], residuals]).swapaxes(0, 1)
    return np.stack([both[0] - both[1], both[1]])


def _tested(effects: AblationMatrix, values: np.ndarray, level: float) -> Tested:
    """A number [2, 1 + item], or the least of several [2, 1 + item, number].

    The error is that of items, and the spread of one more random set: each item met random sets of
    its own, so their spread over items is at least that (as in `placebo_p`).
    """
    beyond, random = values
    n = effects.n_items
    each = -(-effects.draws // n)  # random sets that an item met
    single = each * n * standard_error(random[1:]) ** 2
    error = np.asarray(np.sqrt(standard_error(beyond[1:]) ** 2 + single))
    test = student if beyond.ndim == 1 else student_of_least
    return test(np.asarray(beyond[0]), error, n - 1, level=level)


def _removed_english(claim: str, effects: AblationMatrix | None, level: float) -> Claim:
    told = _untested(effects, ["related"])
    if effects is None or told:
        return _missing(claim, told)
    own = effects.own_cells
    rows = [row for row, mine in zip(effects.rows, own, strict=True) if mine.any()]
    if "en" not in rows or len(rows) < 2:
        return _missing(claim, "effects lack English, or any other language, on itself")
    diagonal, place = _harm(effects, "related")[..., own], rows.index("en")
    lead = np.delete(diagonal, place, axis=-1).mean(axis=-1) - diagonal[..., place]
    return _row(claim, _tested(effects, lead, level))


# Scripts


def _about_scripts(
    neurons: LanguageNeurons, effects: AblationMatrix | None, level: float
) -> Iterator[Claim]:
    shared = "languages of one script share more selected related neurons than others"
    yield _by_script(shared, neurons.languages, _related_jaccard(neurons), level)
    harmed = "removing a language's neurons harms others of its script more than the rest"
    told = _untested(effects, ["related"])
    if effects is None or told:
        yield _missing(harmed, told)
        return
    both = [one for one in effects.rows if one in effects.languages]
    rows, columns = (
        [names.index(one) for one in both] for names in (effects.rows, effects.languages)
    )
    cells = _harm(effects, "related")[0, 0][np.ix_(rows, columns)]
    yield _by_script(harmed, both, (cells + cells.T) / 2, level)


def _related_jaccard(neurons: LanguageNeurons) -> LanguageMatrix:
    """Jaccard index of the selected related neurons of each pair; NaN where there are none."""
    between = (neurons.n_above > 1) & (neurons.n_above < len(neurons.languages))
    members = neurons.above[between & neurons.selected].astype(float)
    shared = members.T @ members
    sizes = shared.diagonal()
    return ratio(shared, sizes[:, None] + sizes - shared)


def _by_script(claim: str, languages: Sequence[str], values: LanguageMatrix, level: float) -> Claim:
    """Mean of a symmetric table over pairs of one script, less that over the others."""
    written = [scripts(one) if known_code(one) else frozenset() for one in languages]
    one, other = np.triu_indices(len(languages), 1)
    same = np.array([[bool(a & b) for b in written] for a in written])
    if not 0 < same[one, other].sum() < len(one):
        return _missing(claim, "there are no pairs of one script, or no others")
    measured, low, high, p = _deal(values, same, level)
    if np.isnan(measured):
        return _missing(claim, "a language has no selected related neurons")
    return _row(claim, Tested(*map(np.asarray, (measured, low, high, p))))


def _deal(values: np.ndarray, same: np.ndarray, level: float) -> tuple[float, float, float, float]:
    """Difference of means, ends of its interval, and p, by dealing the languages anew.

    With S the table of pairs of one script and T the difference of means, the deal d reaches as far
    as the table ``values - shift * S`` does itself just where ``shift >= (T - T_d) / (1 - c_d)``;
    c_d is what T would be for S after the deal, 1 where the deal changes no pair. So the shifts
    that a two-sided test does not refuse lie between two of these quotients. Ends are NaN where
    there are too few different deals to refuse any.
    """
    random, k = np.random.default_rng(0), len(same)
    one, other = np.triu_indices(k, 1)
    orders = random.permuted(np.tile(np.arange(k), (DEALS, 1)), axis=1)
    dealt = np.concatenate([same[None, one, other], same[orders[:, one], orders[:, other]]])
    number, pairs = dealt[0].sum(), len(one)

    def difference(table: np.ndarray) -> np.ndarray:
        inside = dealt @ table[one, other]
        return inside / number - (table[one, other].sum() - inside) / (pairs - number)

    t, c = difference(values), difference(same.astype(float))
    moved = c < 1 - 1e-9
    shifts = np.divide(t[0] - t, 1 - c, out=np.zeros(len(t)), where=moved)
    up, down = np.sort(np.where(moved, shifts, -np.inf)), np.sort(np.where(moved, shifts, np.inf))
    p = 2 * min((up <= 1e-12).mean(), (down >= -1e-12).mean())
    rank = int(np.floor((1 - level) / 2 * len(t) + 1e-9))  # so many deals are refused at each end
    ends = np.array([up[rank], down[len(t) - 1 - rank]])
    low, high = ends if np.isfinite(ends).all() else (NAN, NAN)
    return float(t[0]), float(low), float(high), min(1.0, float(p))
