"""Do two runs find the same neurons? Overlap between data sets, models, or halves of a corpus.

For the neurons A and B of two runs of models of one shape, language by language,

    containment   |A & B| / |A|,  and  |A & B| / |B|
    Jaccard       |A & B| / |A | B|
    Dice          2 |A & B| / (|A| + |B|)

(arXiv 2505.21505 asks how stable language neurons are across data sets and alignment.) Three kinds
of sets are compared: the neurons of each language (specific and related), those of any language,
and the pairs (neuron, language), which a neuron that changes its languages does not share.

An overlap means little before one knows what chance gives. Language neurons crowd in some layers,
so chance has to know the layers: let the second run's neurons be dealt anew within each layer, each
keeping its languages. With A_l and B_l, the sets (or pairs) of layer l, and d_mlp neurons a layer,

    expected |A & B|  =  sum_l |A_l| |B_l| / d_mlp                  the hypergeometric mean

and its standard deviation is exact too: Hoeffding's for a sum over a random permutation, which is
the hypergeometric one for sets. Containment and Dice are proportional to |A & B|, so their expected
values are exact; the Jaccard index is given at the expected |A & B|, a hair below its mean.

>>> first, second = ln.identify(mgsm), ln.identify(msvamp)              # doctest: +SKIP
>>> ln.stability(first, second).to_pandas()                              # doctest: +SKIP

What this does not show: neurons that both runs find can be wrong twice (a corpus of digits, say),
and those of a run with fewer tokens or another bar differ without the model being unstable. The
halves of a corpus hold half of its tokens each, so they agree less than two whole corpora would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons, Population
from lensneurons.shapes import Memberships, NeuronMask, OverlapCounts, OverlapValues
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd

KIND = "stability"
OverlapMeasure = Literal["containment", "containment_second", "jaccard", "dice"]
ARRAYS = ("first", "second", "shared", "expected", "deviation")
# What stands behind the languages in every array.
TOGETHER = ("any language", "neuron-language pairs")


@dataclass(frozen=True, eq=False, repr=False)
class Stability:
    """How many neurons two runs share, and how many they would by chance; immutable.

    Every array has one entry a language, one for the neurons of any language, and one for the pairs
    (neuron, language): `rows`.

    Attributes:
        languages: those that both runs have, in the order of the first.
        first: int64 [row], neurons (or pairs) of the first run.
        second: int64 [row], of the second.
        shared: int64 [row], of both.
        expected: float64 [row], mean of `shared` where the second run's neurons are dealt anew
            within each layer.
        deviation: float64 [row], its standard deviation.
        population: which neurons were compared, ``"selected"`` or ``"all"``.
        provenances: of the first and the second run.
    """

    languages: tuple[str, ...]
    first: OverlapCounts
    second: OverlapCounts
    shared: OverlapCounts
    expected: OverlapValues
    deviation: OverlapValues
    population: Population
    provenances: tuple[Provenance, Provenance] = field(
        default_factory=lambda: (Provenance(), Provenance())
    )

    def __post_init__(self) -> None:
        for name in ARRAYS:
            view = getattr(self, name).view()  # the caller's own array stays writable
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the entries of every array."""
        return (*self.languages, *TOGETHER)

    def overlap(self, measure: OverlapMeasure = "jaccard") -> OverlapValues:
        """float64 [row]: how far the two runs agree, between 0 and 1; NaN where nothing is there.

        Args:
            measure: ``"jaccard"``, ``"dice"``, ``"containment"`` (share of the first run's neurons
                that the second has) or ``"containment_second"`` (the other way round).
        """
        return self._of(self.shared, measure)

    def by_chance(self, measure: OverlapMeasure = "jaccard") -> OverlapValues:
        """float64 [row]: the same measure of the expected number of shared neurons."""
        return self._of(self.expected, measure)

    def _of(self, shared: np.ndarray, measure: str) -> OverlapValues:
        choose(measure, get_args(OverlapMeasure), "measure")
        part, whole = {
            "containment": (shared, self.first),
            "containment_second": (shared, self.second),
            "jaccard": (shared, self.first + self.second - shared),
            "dice": (2 * shared, self.first + self.second),
        }[measure]
        return np.divide(part, whole, out=np.full(len(shared), np.nan), where=whole > 0)

    def to_pandas(self) -> pd.DataFrame:
        """One row a language, then any language and pairs: counts, chance, and every measure.

        ``z`` is the distance of the shared number from chance in standard deviations; each measure
        has its value by chance beside it (``jaccard``, ``jaccard_chance``).
        """
        import pandas as pd

        flat = np.full(len(self.rows), np.nan)
        away = self.shared - self.expected
        table = {name: getattr(self, name) for name in ARRAYS}
        table["z"] = np.divide(away, self.deviation, out=flat, where=self.deviation > 0)
        for measure in get_args(OverlapMeasure):
            table[measure] = self.overlap(measure)
            table[f"{measure}_chance"] = self.by_chance(measure)
        return pd.DataFrame(table, index=pd.Index(self.rows, name="neurons of", dtype=object))

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        details = {
            "languages": self.languages,
            "population": self.population,
            "provenances": [one.to_dict() for one in self.provenances],
        }
        return save_arrays(path, KIND, {name: getattr(self, name) for name in ARRAYS}, details)

    @classmethod
    def load(cls, path: str | Path) -> Stability:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        first, second = (Provenance.from_dict(one) for one in details["provenances"])
        return cls(
            **arrays,
            languages=tuple(details["languages"]),
            population=details["population"],
            provenances=(first, second),
        )

    def __repr__(self) -> str:
        found, chance = self.overlap(), self.by_chance()
        told = ", ".join(
            f"{row} {value:.3f} ({by_chance:.3f})"
            for row, value, by_chance in zip(self.rows, found, chance, strict=True)
        )
        return f"Stability({self.population} neurons; Jaccard (by chance): {told})"

    def _repr_html_(self) -> str:
        measures = get_args(OverlapMeasure)
        pairs = [(self.overlap(name), self.by_chance(name)) for name in measures]
        rows = [
            (row, self.first[i], self.second[i], self.shared[i], f"{self.expected[i]:.1f}")
            + tuple(f"{found[i]:.3f} ({chance[i]:.3f})" for found, chance in pairs)
            for i, row in enumerate(self.rows)
        ]
        heads = ("neurons of", "first", "second", "shared", "by chance", *measures)
        return html_table(f"Stability of {self.population} neurons (by chance)", heads, rows)


def stability(a: LanguageNeurons, b: LanguageNeurons) -> Stability:
    """Compare the neurons that two runs found.

    Args:
        a: neurons of one run.
        b: those of another: other texts, another state of the model, another seed.

    Returns:
        Sizes, shared neurons and what chance would give, for the languages that both have, matched
        by name. "Any language" is any of those.

    Raises:
        LensNeuronsError: models of another shape, no common language, or another population.
    """
    languages = _common_languages(a, b)
    ours, theirs = _members(a, languages), _members(b, languages)
    return Stability(
        languages=languages,
        first=_sizes(ours, _in_any(ours)),
        second=_sizes(theirs, _in_any(theirs)),
        shared=_sizes(ours & theirs, _in_any(ours) & _in_any(theirs)),
        **_by_chance(ours, theirs),
        population=a.population,
        provenances=(a.provenance, b.provenance),
    )


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
    first, second = (find(statistics.resample(of.astype(np.int64))) for of in (half, ~half))
    return stability(first, second)


def _common_languages(a: LanguageNeurons, b: LanguageNeurons) -> tuple[str, ...]:
    """The languages of both, in the order of the first, once the two can be compared."""
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
        raise LensNeuronsError(
            f"no language in common: {list(a.languages)} and {list(b.languages)}"
        )
    return common


def _members(neurons: LanguageNeurons, languages: tuple[str, ...]) -> Memberships:
    """Bool [layer, neuron, language]: the specific and related neurons of some languages."""
    own = (neurons.n_above > 0) & (neurons.n_above < len(neurons.languages)) & neurons.counted
    places = [neurons.languages.index(language) for language in languages]
    return neurons.above[..., places] & own[..., None]


def _in_any(members: Memberships) -> NeuronMask:
    return np.asarray(members.any(axis=-1))


def _sizes(members: Memberships, in_any: NeuronMask) -> OverlapCounts:
    """Members of each language, of any, and pairs, int64 [row]."""
    by_language = members.sum((0, 1))
    return np.array([*by_language, in_any.sum(), by_language.sum()], np.int64)


def _by_chance(ours: Memberships, theirs: Memberships) -> dict[str, OverlapValues]:
    """Mean and standard deviation of what is shared when `theirs` are dealt anew in each layer.

    Neuron i of ours meets neuron j of theirs and shares ``A_i . B_j``, languages in common. The sum
    over a random permutation of d neurons has mean ``sum(A) . sum(B) / d`` and variance
    ``sum_ij (a_i . b_j)^2 / (d - 1)``, a and b being A and B less their means over the layer: the
    sum is the trace of ``a^T a b^T b``, of matrices [language, language].
    """
    means = np.zeros(ours.shape[-1] + 2)
    variances = np.zeros_like(means)
    for first, second in zip(ours, theirs, strict=True):
        of_first, of_second = (
            [*run.T[..., None], run.any(-1, keepdims=True), run] for run in (first, second)
        )
        for row, pair in enumerate(zip(of_first, of_second, strict=True)):
            mean, variance = _dealt(*pair)
            means[row] += mean
            variances[row] += variance
    return {"expected": means, "deviation": np.sqrt(variances)}


def _dealt(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the shared members of one layer, bool [neuron, language] each."""
    d = len(first)
    a, b = (members - members.mean(0) for members in (first, second))
    mean = first.sum(0) @ second.sum(0) / d
    return float(mean), float(np.sum((a.T @ a) * (b.T @ b))) / max(1, d - 1)
