"""Regressions whose units are languages, or pairs of languages: few, and not independent.

Two questions of cross-lingual studies are regressions:

* *Does the change of a language's neurons predict its gain?* A row is a language, or a language in
  one of several trainings: `regress_languages`.
* *Do script, family, share of the data or tokens per character predict how many neurons two
  languages share?* A row is a pair of languages: `regress_pairs`. A trait that is a number enters
  as the distance ``|x_a - x_b|``, any other as 1 where the two languages are alike.

Rows of one language go together: 45 pairs of ten languages are not 45 observations, since each
language is in nine of them, and three trainings of ten languages are not 30. So languages, not
rows, are what is left out and shuffled here:

    estimate   least squares (statsmodels); in units of the outcome per unit of the predictor
    interval   jackknife that leaves out one language with all its rows, Student's t with one
               degree of freedom less than there are languages
    p          languages are permuted. Pairs: the residuals of a predictor, given the others, are
               permuted in rows and columns alike (double semi-partialling: Dekker, Krackhardt and
               Snijders 2007, "Sensitivity of MRQAP Tests"; with one predictor the test of Mantel
               1967). Languages: residuals of the outcome without the predictor (Freedman and Lane
               1983), all rows of a language together, and a t whose error allows languages of
               unequal spread (DiCiccio and Romano 2017)
    mixed      the same coefficient with random effects of the languages (REML, statsmodels): both
               languages of a pair add theirs. Its interval takes Student's t with as many degrees
               of freedom as there are languages more than coefficients
    worth      rows / (jackknifed error / plain error)^2: as how many independent rows these tell.
               Of pairs at most about half, since the jackknife counts twice what a pair has of its
               own; so intervals of pairs are long where languages hardly matter

Ten languages are few. `Regression.detectable` is the partial correlation that so many languages
find in 80 % of studies at the 5 % level: .79 with ten languages and one predictor. What is not
found may well be there, and of several predictors tried, one is found by chance.

Simulated with ten languages (tests/simulations/regressions.py) and nothing to be found: the plain p
of least squares is at most .05 in 6, 14 and 24 % of studies of pairs whose trait is a distance,
where languages have 0, 50 and 80 % of the variance; that of permuted languages in 6, 0 and 9 %. Of
a trait that is alike or not, both are in 3 to 4 %. With one row a language whose noise grows with
the predictor it is 13 and 9 %, with three trainings 12 and 7 %: ten languages are too few for an
exact test there. Jackknifed intervals hold the truth in 91 to 100 %, those of the mixed model in 94
to 100 %.

>>> traits = language_traits(prepared).assign(family=[...], share=[...])   # doctest: +SKIP
>>> regress_pairs(neurons.overlap("jaccard"), traits).to_pandas()          # doctest: +SKIP
>>> rows = pandas.DataFrame({"language": [...], "gain": [...], "new": [...]})  # doctest: +SKIP
>>> regress_languages(rows, "gain", predictors=["new"])                    # doctest: +SKIP

What this does not show: a cause. Where languages differ much in how central they are, least squares
has little power and the mixed model, which takes that out, tells more; it also assumes more. Where
the two disagree, say so. Script, family and data go together, and languages were not drawn
at random from those of the world. With traits that go together (`Regression.inflation` above about
5), which of them predicts cannot be told.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64

from lensneurons.errors import LensNeuronsError, choose
from lensneurons.languages.codes import scripts
from lensneurons.options import plain_options
from lensneurons.tokens.prepared import UNTOLD, PreparedCorpus
from lensneurons.uncertainty.groups import jackknife_interval, require_level
from lensneurons.values.base import Overview, Value

if TYPE_CHECKING:
    import pandas as pd

OfTerms = Float64[np.ndarray, " term"]
PARTS = ("estimate", "low", "high", "p", "worth", "inflation", "mixed", "mixed_low", "mixed_high")
FEWEST = 6  # languages
POWER = 0.8


@dataclass(frozen=True, eq=False, repr=False)
class Regression(Value):
    """A regression over languages or pairs. Made by `regress_languages` and `regress_pairs`.

    Attributes:
        unit: what a row is, ``"language"`` or ``"pair"``.
        outcome: name of what is predicted.
        languages: codes.
        rows: how many.
        terms: predictors.
        estimate: float64 [term], coefficient.
        low: lower end of its interval.
        high: upper end.
        p: two-sided, of permuted languages; not corrected for the number of terms.
        worth: how many independent rows the rows are worth for this coefficient; more than there
            are where rows of one language go against each other.
        inflation: variance inflation factor; 1 where the predictor goes with no other.
        mixed: coefficient with random effects of languages; NaN where a language has one row.
        mixed_low: lower end of its interval.
        mixed_high: upper end.
        of_languages: share of the residual variance that languages have, 0 to 1, from the mixed
            model.
        draws: permutations.
        level: coverage of the intervals.
    """

    FILE_KIND: ClassVar = "regression over languages"
    AXES: ClassVar = {name: ("term",) for name in PARTS}
    COORDINATES: ClassVar = {"term": "terms"}

    unit: Literal["language", "pair"]
    outcome: str
    languages: tuple[str, ...]
    rows: int
    terms: tuple[str, ...]
    estimate: OfTerms
    low: OfTerms
    high: OfTerms
    p: OfTerms
    worth: OfTerms
    inflation: OfTerms
    mixed: OfTerms
    mixed_low: OfTerms
    mixed_high: OfTerms
    of_languages: float
    draws: int
    level: float

    @property
    def detectable(self) -> float:
        """Partial correlation that is found in 80 % of studies of so many languages, p <= .05.

        By Fisher's z, of independent languages: ``tanh((z_.975 + z_.8) / sqrt(n - k - 2))`` with n
        languages and k predictors. Pairs of n languages are worth more than n rows or fewer,
        which `worth` tells.
        """
        from scipy.special import ndtri

        left = max(len(self.languages) - len(self.terms) - 2, 1)
        return float(np.tanh((ndtri(0.975) + ndtri(POWER)) / left**0.5))

    def to_pandas(self) -> pd.DataFrame:
        """One row a predictor: estimate, ends, p, worth, inflation, and the mixed model's."""
        import pandas as pd

        names = {name: getattr(self, name) for name in PARTS}
        return pd.DataFrame(names, index=pd.Index(self.terms, name="term", dtype=object))

    def _brief(self) -> str:
        of = f"{self.rows} rows" if self.unit == "language" else f"{self.rows} pairs"
        ends = zip(self.terms, self.estimate, self.low, self.high, strict=True)
        told = ", ".join(f"{k} {one:.3g} [{low:.3g}, {high:.3g}]" for k, one, low, high in ends)
        few = f"{len(self.languages)} languages find a partial correlation of {self.detectable:.2f}"
        return f"{self.outcome}, {of} of {len(self.languages)} languages: {told}. {few} in 80 %"

    def _overview(self) -> Overview:
        rows = [
            (term, f"{e:.3g} [{a:.3g}, {b:.3g}]", f"{p:.3f}", f"{w:.0f} of {self.rows}", f"{v:.1f}",
             f"{m:.3g} [{x:.3g}, {y:.3g}]")
            for term, e, a, b, p, w, v, m, x, y in zip(
                self.terms, *(getattr(self, name) for name in PARTS), strict=True
            )
        ]  # fmt: skip
        head = ("predictor", "coefficient", "p", "rows worth", "inflation", "mixed model")
        return Overview(repr(self), head, rows)


def language_traits(prepared: PreparedCorpus) -> pd.DataFrame:
    """What a corpus tells of its languages: script, and tokens per character.

    Args:
        prepared: a corpus as a model reads it (`prepare`).

    Returns:
        One row a language, by its code: ``script`` (ISO 15924 codes, such as ``"Hani+Hira+Kana"``)
        and ``tokens_per_character`` (of whole texts, special tokens included). Add other traits as
        columns: family, share of the training data.
    """
    import pandas as pd

    encoded = prepared.encoded
    tokens = np.bincount(encoded.language, encoded.lengths, minlength=len(encoded.languages))
    characters = dict.fromkeys(encoded.languages, 0)
    for item in prepared.corpus:
        characters[item.language] += len(item.text)
    index = pd.Index(encoded.languages, dtype=object, name="language")
    written = ["+".join(sorted(scripts(k))) if k != UNTOLD else "" for k in encoded.languages]
    ratio = [n / characters[k] for n, k in zip(tokens, encoded.languages, strict=True)]
    return pd.DataFrame({"script": written, "tokens_per_character": ratio}, index=index)


@plain_options
def regress_pairs(
    outcome: pd.DataFrame,
    traits: pd.DataFrame,
    *,
    predictors: Sequence[str] = (),
    name: str = "overlap",
    draws: int = 999,
    level: float = 0.95,
    seed: int = 0,
) -> Regression:
    """Predict a number of every pair of languages from how far their traits are apart.

    Args:
        outcome: a symmetric table [language, language], such as ``neurons.overlap("jaccard")``; its
            diagonal is not read.
        traits: one row a language, named by its code, and a column each trait. Numbers become
            distances, anything else 1 where two languages are alike and 0 where they are not.
        predictors: columns of `traits`; all of them where none is given.
        name: of the outcome, for tables.
        draws: permutations of the languages; the smallest p is ``1 / (draws + 1)``.
        level: coverage of the intervals.
        seed: of the permutations.

    Raises:
        LensNeuronsError: fewer than `FEWEST` languages, or too few for the predictors; a table that
            is not symmetric or has gaps; traits that lack a language, or that predict nothing, also
            without one of the languages; no draw; statsmodels is not installed.
    """
    _require(draws, level)
    languages = [str(k) for k in outcome.index]
    y = np.asarray(outcome, float)
    one, two = np.triu_indices(len(languages), 1)
    if list(outcome.columns) != list(outcome.index) or not np.allclose(y, y.T, equal_nan=True):
        raise LensNeuronsError(
            "the outcome is not symmetric: give a table whose rows and columns are the same"
            " languages, and a measure without direction, such as overlap('jaccard')"
        )
    if missing := [k for k in languages if k not in traits.index]:
        raise LensNeuronsError(f"traits have no row for {missing}; they have {list(traits.index)}")
    names = [choose(k, list(traits.columns), "predictor") for k in predictors or traits.columns]
    square = [_distances(traits.loc[languages, k]) for k in names]
    x = np.stack([matrix[one, two] for matrix in square], axis=1)
    members = np.zeros((len(one), len(languages)))
    members[np.arange(len(one)), one] = members[np.arange(len(one)), two] = 1
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(languages)) for _ in range(draws)]

    def permuted(
        design: np.ndarray, values: np.ndarray, term: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rest = _residual(np.delete(design, term, axis=1), design[:, term])
        matrix = np.zeros((len(languages), len(languages)))
        matrix[one, two] = matrix[two, one] = rest
        return np.stack([matrix[order][:, order][one, two] for order in orders]), values

    return _fitted("pair", name, languages, names, x, y[one, two], members, permuted, draws, level)


@plain_options
def regress_languages(
    rows: pd.DataFrame,
    outcome: str,
    *,
    predictors: Sequence[str],
    language: str = "language",
    draws: int = 999,
    level: float = 0.95,
    seed: int = 0,
) -> Regression:
    """Predict a number of every language, in one training or several, from others.

    Args:
        rows: a table with a row for each language, or for each language in each training; every
            language has as many rows as any other, and its trainings in the same order.
        outcome: the column that is predicted.
        predictors: columns of numbers.
        language: the column of the languages.
        draws: permutations of the languages; the smallest p is ``1 / (draws + 1)``.
        level: coverage of the intervals.
        seed: of the permutations.

    Raises:
        LensNeuronsError: fewer than `FEWEST` languages, or too few for the predictors; a column
            that is not there or holds no numbers; gaps; languages with unlike numbers of rows;
            predictors that predict nothing, also without one of the languages; no draw; statsmodels
            is not installed.
    """
    _require(draws, level)
    columns = [str(one) for one in rows.columns]
    for one in (language, outcome, *predictors):
        choose(one, columns, "column")
    ordered = rows.sort_values(language, kind="stable")
    codes, number = np.unique(ordered[language].astype(str), return_counts=True)
    if len(set(number.tolist())) > 1:
        raise LensNeuronsError(
            f"languages have {int(number.min())} to {int(number.max())} rows: give every language"
            " a row for each training, or average them"
        )
    x = np.stack([_numbers(ordered[one], one) for one in predictors], axis=1)
    y = _numbers(ordered[outcome], outcome)
    members = np.repeat(np.eye(len(codes)), number[0], axis=0)
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(codes)) for _ in range(draws)]

    def permuted(
        design: np.ndarray, values: np.ndarray, term: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rest = _residual(np.delete(design, term, axis=1), values)
        blocks = rest.reshape(len(codes), -1)
        return design[:, term], np.stack([blocks[order].ravel() for order in orders])

    names, told = list(predictors), codes.tolist()
    return _fitted("language", outcome, told, names, x, y, members, permuted, draws, level)


def _require(draws: int, level: float) -> None:
    """Raise unless there is a draw, a level, and statsmodels."""
    require_level(level)
    if draws < 1:
        raise LensNeuronsError(f"draws={draws}: give 1 or more")
    try:
        import statsmodels.api  # noqa: F401
    except ImportError:
        raise LensNeuronsError(
            "regressions need statsmodels, which is not installed: pip install"
            " 'lensneurons[statistics]'"
        ) from None


def _numbers(column: Any, name: str) -> np.ndarray:
    """A column as float64."""
    try:
        return np.asarray(column, float)
    except (TypeError, ValueError):
        raise LensNeuronsError(
            f"{name} holds no numbers ({column.iloc[0]!r}): give numbers, or 0 and 1"
        ) from None


def _distances(column: Any) -> np.ndarray:
    """Distances of numbers, or 1 where two entries are alike: float64 [language, language]."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if is_numeric_dtype(column) and not is_bool_dtype(column):
        values = np.asarray(column, float)
        return np.abs(values[:, None] - values)
    values = np.asarray(column, object)
    alike = [[float(one == two) for two in values] for one in values]
    return np.where(np.asarray(column.isna())[:, None] | np.asarray(column.isna()), np.nan, alike)


def _residual(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values [..., row] less what columns of a design predict of them."""
    basis = np.linalg.qr(design)[0]
    return values - (values @ basis) @ basis.T


Permuted = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def _fitted(
    unit: Literal["language", "pair"],
    outcome: str,
    languages: list[str],
    names: list[str],
    x: np.ndarray,
    y: np.ndarray,
    members: np.ndarray,
    permuted: Permuted,
    draws: int,
    level: float,
) -> Regression:
    """The regression of y [row] on x [row, term], with rows of languages [row, language]."""
    import statsmodels.api as sm
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    n, k = len(languages), len(names)
    if n < FEWEST or n < k + 4:
        raise LensNeuronsError(
            f"{n} languages for {k} predictors: give {max(FEWEST, k + 4)} languages or more, or"
            " fewer predictors"
        )
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise LensNeuronsError(
            "there are gaps or infinite numbers among outcome and traits: leave out the languages"
            " that have them"
        )
    design = np.column_stack([np.ones(len(y)), x])
    _require_rank(design, names, languages, members)
    plain = sm.OLS(y, design).fit()
    kept = [members[:, place] == 0 for place in range(n)]
    less = np.stack([np.linalg.lstsq(design[one], y[one], rcond=None)[0] for one in kept])
    ends = jackknife_interval(plain.params, less, level=level)
    error = np.sqrt((n - 1) / n * np.square(less - less.mean(axis=0)).sum(axis=0))
    p = np.zeros(k)
    for term in range(k):
        others = np.delete(design, term + 1, axis=1)
        blocks = n if unit == "language" else None
        found = _partial_t(others, design[:, term + 1], y, blocks)
        by_chance = _partial_t(others, *permuted(design, y, term + 1), blocks)
        p[term] = (1 + (np.abs(by_chance) >= np.abs(found) - 1e-12).sum()) / (draws + 1)
    with np.errstate(divide="ignore"):
        worth = len(y) / (error / plain.bse) ** 2
    mixed, share = _mixed(design, y, members, level)
    inflation = [variance_inflation_factor(design, term + 1) for term in range(k)]
    return Regression(
        unit=unit,
        outcome=outcome,
        languages=tuple(languages),
        rows=len(y),
        terms=tuple(names),
        estimate=plain.params[1:],
        low=ends.low[1:],
        high=ends.high[1:],
        p=p,
        worth=worth[1:],
        inflation=np.array(inflation, float),
        mixed=mixed[0, 1:],
        mixed_low=mixed[1, 1:],
        mixed_high=mixed[2, 1:],
        of_languages=share,
        draws=draws,
        level=level,
    )


def _require_rank(
    design: np.ndarray, names: list[str], languages: list[str], members: np.ndarray
) -> None:
    """Raise where predictors follow from each other, or would without one of the languages."""
    for place, language in [(None, ""), *enumerate(languages)]:
        rows = design if place is None else design[members[:, place] == 0]
        scale = np.abs(rows).max(axis=0)
        if np.linalg.matrix_rank(rows / np.where(scale > 0, scale, 1)) < design.shape[1]:
            alone = f" without {language}" if language else ""
            raise LensNeuronsError(
                f"predictors {names} are constant, or follow from each other{alone}, so nothing"
                " tells them apart: leave some out, or give more languages"
            )


def _partial_t(
    others: np.ndarray, predictor: np.ndarray, outcome: np.ndarray, blocks: int | None = None
) -> np.ndarray:
    """Student's t of a predictor [..., row] of an outcome [..., row], given other columns.

    With `blocks`, the error is that of so many languages whose rows stand together, which may be
    of unequal spread (DiCiccio and Romano 2017).
    """
    x, y = _residual(others, predictor), _residual(others, outcome)
    xx, xy, yy = (x * x).sum(-1), (x * y).sum(-1), (y * y).sum(-1)
    if blocks is None:
        freedom = len(others) - others.shape[1] - 1
        squared = xx * np.maximum(yy - xy**2 / xx, 0) / freedom
    else:
        scores = x * (y - (xy / xx)[..., None] * x)
        squared = np.square(scores.reshape(*scores.shape[:-1], blocks, -1).sum(-1)).sum(-1)
    return np.asarray(xy / np.sqrt(np.maximum(squared, 1e-300)))


def _mixed(
    design: np.ndarray, y: np.ndarray, members: np.ndarray, level: float
) -> tuple[np.ndarray, float]:
    """Coefficients and ends [3, column] with random effects of languages, and their share.

    NaN where every language has one row, or the fit does not converge.
    """
    from scipy.special import stdtrit
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    nothing = np.full((3, design.shape[1]), np.nan), float("nan")
    n = members.shape[1]
    if len(y) == n:
        return nothing
    spec = VCSpec(["language"], [[[str(place) for place in range(n)]]], [[members]])
    spread = y.std() or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of 0 is told by the share of the languages
        try:
            fit: Any = MixedLM(y / spread, design, np.ones(len(y)), exog_vc=spec).fit(
                reml=True, method=["lbfgs"]
            )
        except (np.linalg.LinAlgError, ValueError):
            return nothing
    error = np.asarray(fit.bse_fe, float)
    if not fit.converged or not np.isfinite(error).all():
        return nothing
    reach = stdtrit(n - design.shape[1], (1 + level) / 2) * error
    middle = np.asarray(fit.fe_params, float)
    own = float(fit.vcomp[0]) * float(members.sum(axis=1).mean())
    ends = np.stack([middle, middle - reach, middle + reach]) * spread
    return ends, own / (own + float(fit.scale))
