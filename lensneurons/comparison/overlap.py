"""Are the same neurons found twice? Overlap between data sets, models, or halves of a corpus.

For the neurons A and B of two identifications, on models of one shape, language by language,

    containment   |A & B| / |A|,  and  |A & B| / |B|
    Jaccard       |A & B| / |A | B|
    Dice          2 |A & B| / (|A| + |B|)

(arXiv 2505.21505 asks how stable language neurons are across data sets and alignment.) Three sorts
of sets are compared: the neurons of each language (specific and related), those of any language,
and the pairs (neuron, language), which a neuron that changes its languages does not share.

Language neurons crowd in some layers, so chance has to know the layers: deal the second neurons
anew within each layer, each keeping its languages. With A_l and B_l, the sets (or pairs) of layer
l, and d_mlp neurons a layer,

    expected |A & B|  =  sum_l |A_l| |B_l| / d_mlp                  the hypergeometric mean

The standard deviation is exact too (Hoeffding's for a sum over a random permutation), and so are
the expected containment and Dice. The Jaccard index is given at the expected |A & B|.

>>> import lensneurons as ln
>>> statistics = ln.load_sample("gemma-3-270m").statistics
>>> halves = ln.comparison.compare_halves(statistics)     # identified twice, on half of the items
>>> ln.comparison.stability(ln.identify(mgsm), ln.identify(msvamp))      # doctest: +SKIP

What this does not show: neurons that are found twice can be wrong twice (a corpus of digits, say),
and with fewer tokens or another bar, other neurons are found without the model being unstable. The
halves of a corpus hold half of its tokens each, so they agree less than two whole corpora would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.class_counts import ratio
from lensneurons.errors import EmptySetWarning, LensNeuronsError, choose
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons, Population
from lensneurons.options import plain_options
from lensneurons.shapes import Memberships
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

OverlapMeasure = Literal["containment", "containment_second", "jaccard", "dice"]


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Value):
    """How many neurons are found twice, and how many would be by chance. Made by `stability`.

    Every array has one entry a language, one for the neurons of any language, and one for the pairs
    (neuron, language): `rows`.

    Attributes:
        languages: those that both identifications have, in the order of the first.
        first: int64 [row], neurons (or pairs) of the first.
        second: int64 [row], of the second.
        shared: int64 [row], of both.
        expected: float64 [row], mean of `shared` where the second neurons are dealt anew within
            each layer.
        deviation: float64 [row], its standard deviation.
        population: which neurons were compared, ``"selected"`` or ``"all"``.
        provenances: of the first and the second.
    """

    FILE_KIND = "stability"
    AXES = {name: ("row",) for name in ("first", "second", "shared", "expected", "deviation")}
    COORDINATES = {"row": "rows"}

    languages: tuple[str, ...]
    first: Int64[np.ndarray, " rows"]
    second: Int64[np.ndarray, " rows"]
    shared: Int64[np.ndarray, " rows"]
    expected: Float64[np.ndarray, " rows"]
    deviation: Float64[np.ndarray, " rows"]
    population: Population
    provenances: tuple[Provenance, Provenance] = (Provenance(), Provenance())

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the entries of every array."""
        return (*self.languages, "any language", "neuron-language pairs")

    def overlap(self, measure: OverlapMeasure = "jaccard") -> Float64[np.ndarray, " rows"]:
        """float64 [row]: agreement of the two, between 0 and 1; NaN where nothing is there.

        Args:
            measure: ``"jaccard"``, ``"dice"``, ``"containment"`` (share of the first neurons that
                are among the second) or ``"containment_second"`` (the other way round).
        """
        return self._measured(self.shared, measure)

    def by_chance(self, measure: OverlapMeasure = "jaccard") -> Float64[np.ndarray, " rows"]:
        """float64 [row]: the same measure of the expected number of shared neurons."""
        return self._measured(self.expected, measure)

    def _measured(self, shared: np.ndarray, measure: str) -> np.ndarray:
        choose(measure, get_args(OverlapMeasure), "measure")
        part, whole = {
            "containment": (shared, self.first),
            "containment_second": (shared, self.second),
            "jaccard": (shared, self.first + self.second - shared),
            "dice": (2 * shared, self.first + self.second),
        }[measure]
        return ratio(part, whole)

    def to_pandas(self) -> pd.DataFrame:
        """One row a language, then any language and pairs: counts, chance, and every measure.

        ``z`` is the distance of the shared number from chance in standard deviations; each measure
        has its value by chance beside it (``jaccard``, ``jaccard_chance``).
        """
        import pandas as pd

        table = {name: getattr(self, name) for name in self.AXES}
        table["z"] = ratio(self.shared - self.expected, self.deviation)
        for measure in get_args(OverlapMeasure):
            table[measure] = self.overlap(measure)
            table[f"{measure}_chance"] = self.by_chance(measure)
        return pd.DataFrame(table, index=pd.Index(self.rows, name="neurons of", dtype=object))

    def _brief(self) -> str:
        entries = zip(self.rows, self.overlap(), self.by_chance(), strict=True)
        told = ", ".join(f"{row} {value:.3f} ({chance:.3f})" for row, value, chance in entries)
        return f"{self.population} neurons; Jaccard (by chance): {told}"

    def _overview(self) -> Overview:
        measures = get_args(OverlapMeasure)
        pairs = [(self.overlap(name), self.by_chance(name)) for name in measures]
        rows = [
            (row, self.first[i], self.second[i], self.shared[i], f"{self.expected[i]:.1f}")
            + tuple(f"{found[i]:.3f} ({chance[i]:.3f})" for found, chance in pairs)
            for i, row in enumerate(self.rows)
        ]
        head = ("neurons of", "first", "second", "shared", "by chance", *measures)
        return Overview(f"Stability of {self.population} neurons (by chance)", head, rows)


def stability(a: LanguageNeurons, b: LanguageNeurons) -> Stability:
    """Compare the neurons that were identified twice.

    The second were found on other texts, in another state of the model, or with another seed. The
    languages that both have are compared, matched by name; "any language" is any of those.

    Raises:
        LensNeuronsError: models of another shape, no common language, or another population.
    """
    if (a.n_layers, a.d_mlp) != (b.n_layers, b.d_mlp):
        raise LensNeuronsError(
            f"neurons of {a.n_layers} layers x {a.d_mlp} and of {b.n_layers} x {b.d_mlp} do not "
            "compare: the models must have the same shape"
        )
    if a.population != b.population:
        raise LensNeuronsError(
            f"the first holds {a.population} neurons, the second {b.population}: give both the "
            f"same, with_population({a.population!r})"
        )
    common = tuple(language for language in a.languages if language in b.languages)
    if not common:
        both = f"{list(a.languages)} and {list(b.languages)}"
        raise LensNeuronsError(f"no language in common: {both}")
    first, second = _members(a, common), _members(b, common)
    expected, variance = _by_chance(first, second)
    return Stability(
        languages=common,
        first=_shared(first, first),
        second=_shared(second, second),
        shared=_shared(first, second),
        expected=expected,
        deviation=np.sqrt(variance),
        population=a.population,
        provenances=(a.provenance, b.provenance),
    )


def _members(neurons: LanguageNeurons, languages: tuple[str, ...]) -> Memberships:
    """Bool [layer, neuron, language]: the specific and related neurons of some languages."""
    own = (neurons.n_above > 0) & (neurons.n_above < len(neurons.languages)) & neurons.counted
    places = [neurons.languages.index(language) for language in languages]
    return neurons.above[..., places] & own[..., None]


def _shared(first: Memberships, second: Memberships) -> np.ndarray:
    """Common members of each language, of any, and pairs: int64 [row]."""
    by_language = (first & second).sum((0, 1))
    of_any = first.any(-1) & second.any(-1)
    return np.array([*by_language, of_any.sum(), by_language.sum()], np.int64)


def _by_chance(first: Memberships, second: Memberships) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance [row] of what is shared when `second` is dealt anew in each layer.

    Neuron i of the first meets neuron j of the second and shares ``A_i . B_j`` languages with it.
    The sum over a random permutation of d neurons has mean ``sum(A) . sum(B) / d`` and variance
    ``sum_ij (a_i . b_j)^2 / (d - 1)``, a and b being A and B less their means over the layer. That
    sum is the trace of ``a^T a b^T b``, of matrices [language, language].
    """
    means, variances = np.zeros((2, first.shape[-1] + 2))
    d = first.shape[1]
    for layers in zip(first, second, strict=True):
        # A row is one language, any of them, or all together as pairs: bool [neuron, languages].
        rows = ([*one.T[..., None], one.any(-1, keepdims=True), one] for one in layers)
        for row, (ours, theirs) in enumerate(zip(*rows, strict=True)):
            a, b = (members - members.mean(0) for members in (ours, theirs))
            means[row] += float(ours.sum(0) @ theirs.sum(0) / d)
            variances[row] += float(np.sum((a.T @ a) * (b.T @ b))) / max(1, d - 1)
    return means, variances


@plain_options
def compare_halves(
    statistics: ActivationStatistics,
    *,
    find: Callable[[ActivationStatistics], LanguageNeurons] = identify,
    seed: int = 0,
) -> Stability:
    """Compare the neurons that two random halves of a corpus give.

    Args:
        statistics: counts in at least two groups of items.
        find: identifies the neurons of a half; with options, say
            ``functools.partial(identify, top_rate=0.02)``.
        seed: which groups go together.

    Raises:
        LensNeuronsError: fewer than two groups, or a half without tokens of a language.
    """
    n = statistics.n_groups
    if n < 2:
        raise LensNeuronsError(
            "halves need the counts of at least two groups of items: collect(..., groups=10)"
        )
    half = np.random.default_rng(seed).permutation(n) < n // 2
    with warnings.catch_warnings(action="ignore", category=EmptySetWarning):
        first, second = (find(statistics.resample(of.astype(np.int64))) for of in (half, ~half))
    return stability(first, second)
