"""The four parts of a multilingual model, read off its layer profile, or an honest "not found".

arXiv 2505.21505 (section 4.2) sees four parts, with boundaries drawn by eye:

    1  multilingual understanding           first layers   specific, related peak; agnostic few
    2  shared semantic space reasoning      middle layers  specific, related rare; agnostic peak
    3  multilingual output transformation   late layers    specific, related peak; agnostic lowest
    4  vocabulary space outputting          last layer(s)  specific fall, related rise; agnostic
                                                           at their maximum

Here a rule draws them. Part 4 is what follows the late maximum of the specific neurons, where they
fall while related and agnostic ones rise. Parts 1 to 3 are the least-squares division of the other
layers into three segments, on z-scored ``log1p`` of the three counts over *all* neurons (counts of
selected neurons hold no agnostic ones). Each line of the table above is then checked, and so is the
order of the layers: a division that fits shuffled layers as well explains nothing. (What alignment
changes in each part is tested in `lensneurons.comparison.paper_claims`.)

On the published Mistral-7B counts this gives 0-4, 5-19, 20-30, 31.

What this does not show: parts of a profile of frequencies are not yet parts of a computation;
patching and ablation by layer test that.

>>> parts = ln.divide_layers(neurons, statistics)        # doctest: +SKIP
>>> parts.found, parts.boundaries, parts.failed          # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.options import plain_options
from lensneurons.shapes import LayerProfile
from lensneurons.uncertainty.groups import resamples
from lensneurons.values.base import Overview, Value

LayerFeatures = Float64[np.ndarray, "layer feature"]


def segment_costs(features: LayerFeatures) -> Float64[np.ndarray, "first stop"]:
    """float64 [first, last + 1]: squared distance of the points first..last from their mean."""
    n = len(features)
    total = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, axis=0)])
    square = np.concatenate([[0.0], np.cumsum(np.square(features).sum(axis=1))])
    first, stop = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    length = np.maximum(stop - first, 1)
    cost = square[stop] - square[first] - np.square(total[stop] - total[first]).sum(-1) / length
    return np.where(stop > first, np.maximum(cost, 0.0), np.inf)


def best_segments(features: LayerFeatures, number: int) -> tuple[list[int], float]:
    """The best division into `number` segments, by exact dynamic programming (Bellman 1961).

    It minimises the squared distance of every layer from the mean of its segment, in O(k n^2).

    Args:
        features: float64 [layer, feature].
        number: segments, at most the number of layers.

    Returns:
        The first point of each segment, and the squared distance that is left.

    >>> best_segments(np.array([[0.0], [0.1], [5.0], [5.1], [9.0]]), 3)[0]
    [0, 2, 4]
    """
    cost = segment_costs(features)
    n = len(features)
    best, choice = cost[0].copy(), []
    for _ in range(number - 1):
        through = best[:, None] + cost
        choice.append(through.argmin(axis=0))
        best = through.min(axis=0)
    starts, stop = [], n
    for table in reversed(choice):
        stop = int(table[stop])
        starts.append(stop)
    return [0, *reversed(starts)], float(best[n])


def explained(features: LayerFeatures, number: int) -> float:
    """Share of the variance that the best division into `number` segments explains, in [0, 1]."""
    whole = best_segments(features, 1)[1]
    return 1.0 - best_segments(features, number)[1] / whole if whole > 0 else 0.0


NAMES = (
    "multilingual understanding",
    "shared semantic space reasoning",
    "multilingual output space transformation",
    "vocabulary space outputting",
)
FEWEST_LAYERS = 5  # they divide; but below eight too many orders fit as well for p <= CHANCE
CHANCE = 0.05


@dataclass(frozen=True)
class Part:
    """One part of the model: layers `first` to `last`, both included."""

    number: int
    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Criterion:
    """One line of the paper's description, tested on a profile.

    Attributes:
        part: the part that it is about; 0 for the division as a whole.
        claim: what should hold.
        holds: whether it does.
        measured: the numbers behind it.
    """

    part: int
    claim: str
    holds: bool
    measured: str


@dataclass(frozen=True, eq=False, repr=False)
class LayerParts(Value):
    """The best division of a model into parts, and whether it shows the paper's four.

    Attributes:
        found: whether all criteria hold; only then `parts` may be called the four parts.
        parts: the best division, of four parts, or of three where no part 4 follows.
        criteria: every line of the description, tested.
        profile: int64 [layer, 3], specific, related and agnostic neurons, all neurons.
        explained: share of the variance of the profile that the best division into 1, 2, 3, 4 and
            5 segments explains.
        shuffle_p: share of shuffled layer orders whose best division explains as much.
        draws: int64 [draw, 3], first layers of parts 2, 3 and 4 in each bootstrap draw, -1 where a
            draw has no part 4; None without statistics.
    """

    FILE_KIND: ClassVar = "layer parts"

    found: bool
    parts: tuple[Part, ...]
    criteria: tuple[Criterion, ...]
    profile: LayerProfile
    explained: tuple[float, ...]
    shuffle_p: float
    draws: Int64[np.ndarray, "draw 3"] | None = None

    @property
    def boundaries(self) -> list[tuple[int, int]] | None:
        """First and last layer of each of the four parts; None where they were not found."""
        return [(part.first, part.last) for part in self.parts] if self.found else None

    @property
    def failed(self) -> tuple[Criterion, ...]:
        """The criteria that do not hold: why four parts were not found."""
        return tuple(criterion for criterion in self.criteria if not criterion.holds)

    @plain_options
    def interval(self, part: int, level: float = 0.95) -> tuple[int, int]:
        """Bootstrap interval of the first layer of part 2, 3 or 4.

        Draws without a part 4 are left out of its interval.

        Raises:
            LensNeuronsError: `divide_layers` had no statistics to resample, or no such part.
        """
        if self.draws is None or part not in (2, 3, 4):
            raise LensNeuronsError(
                "boundaries of parts 2, 3 and 4 have intervals where divide_layers(neurons, "
                f"statistics) was given statistics with groups; asked for part {part}"
            )
        starts = self.draws[:, part - 2]
        starts = starts[starts >= 0]
        if len(starts) == 0:
            raise LensNeuronsError(f"no bootstrap draw has a part {part}")
        ends = np.quantile(starts, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        return int(ends[0]), int(ends[1])

    def _brief(self) -> str:
        if self.found:
            return f"found: {self._spans}"
        reasons = "; ".join(f"{c.claim} ({c.measured})" for c in self.failed)
        return f"not found; best division {self._spans}; fails: {reasons}"

    def _overview(self) -> Overview:
        rows = [
            (c.part or "", c.claim, "yes" if c.holds else "no", c.measured) for c in self.criteria
        ]
        title = f"Four parts {'found' if self.found else 'not found'}; best division {self._spans}"
        return Overview(title, ("part", "criterion", "holds", "measured"), rows)

    @property
    def _spans(self) -> str:
        return " / ".join(
            str(part.first) if part.first == part.last else f"{part.first}-{part.last}"
            for part in self.parts
        )


@plain_options
def divide_layers(
    neurons: LanguageNeurons | LayerProfile,
    statistics: ActivationStatistics | None = None,
    *,
    draws: int = 100,
    shuffles: int = 1000,
    seed: int = 0,
) -> LayerParts:
    """Divide the layers of a model into the paper's parts and test whether it shows them.

    Args:
        neurons: the identified neurons (all of them count, whatever their population), or a profile
            int64 [layer, 3] of specific, related and agnostic neurons.
        statistics: what the neurons were identified from, for the bootstrap over texts; needs
            ``collect(..., groups=G)`` with G >= 2.
        draws: bootstrap draws of the boundaries.
        shuffles: random layer orders to compare the fit with.
        seed: the same seed gives the same result.

    Raises:
        LensNeuronsError: fewer than five layers, which cannot show four parts, statistics without
            groups or without a language of the neurons, or statistics for a bare profile.
    """
    profile = neurons if isinstance(neurons, np.ndarray) else neurons.layer_profile("all")
    if len(profile) < FEWEST_LAYERS:
        raise LensNeuronsError(
            f"a model of {len(profile)} layers cannot show four parts: {FEWEST_LAYERS} are needed"
        )
    found = _divide(profile, shuffles, seed)
    if statistics is None:
        return found
    if isinstance(neurons, np.ndarray):
        raise LensNeuronsError("a profile has no bar to resample at: give the identified neurons")
    same = statistics.select(neurons.languages)
    starts = []
    for drawn in resamples(same, draws=draws, seed=seed):  # at the bar of the neurons
        resampled = replace(neurons, probability=drawn.probability)
        starts.append(_starts(resampled.layer_profile("all")))
    return replace(found, draws=np.array(starts, np.int64))


def _divide(profile: LayerProfile, shuffles: int, seed: int) -> LayerParts:
    starts = [start for start in _starts(profile) if start >= 0]
    edges = [0, *starts, len(profile)]
    parts = tuple(Part(i + 1, NAMES[i], edges[i], edges[i + 1] - 1) for i in range(len(edges) - 1))
    head = edges[3]
    shuffle_p = _shuffle_p(_features(profile[:head]), shuffles, seed)
    claim = "three segments fit the layers better than shuffled layers"
    order = Criterion(0, claim, shuffle_p <= CHANCE, f"p = {shuffle_p:.3g}")
    criteria = (*_criteria(profile, parts), order)
    whole = _features(profile)
    return LayerParts(
        found=len(parts) == 4 and all(criterion.holds for criterion in criteria),
        parts=parts,
        criteria=criteria,
        profile=profile,
        explained=tuple(explained(whole, number) for number in range(1, 6)),
        shuffle_p=shuffle_p,
    )


def _features(profile: LayerProfile) -> LayerFeatures:
    """float64 [layer, 3]: z-scored log1p of the three counts; a constant column is all zeros."""
    logs = np.log1p(profile.astype(float))
    spread = logs.std(axis=0)
    return (logs - logs.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _starts(profile: LayerProfile) -> list[int]:
    """First layers of parts 2, 3 and 4; -1 for part 4 where there is none."""
    last = _last_part_start(profile)
    head = profile if last < 0 else profile[:last]
    return [*best_segments(_features(head), 3)[0][1:], last]


def _last_part_start(profile: LayerProfile) -> int:
    """First layer of part 4, or -1: after the late maximum of specific neurons they fall while
    related and agnostic ones rise.
    """
    specific, related, agnostic = profile.T
    peak = _late_peak(profile)
    after = slice(peak + 1, None)
    if peak + 1 == len(profile) or peak < 3:
        return -1
    falls = specific[after].mean() < specific[peak]
    rise = related[after].mean() > related[peak] and agnostic[after].mean() > agnostic[peak]
    return peak + 1 if falls and rise else -1


def _late_peak(profile: LayerProfile) -> int:
    """The layer of the second half that has most specific neurons."""
    half = len(profile) // 2
    return half + int(profile[half:, 0].argmax())


def _shuffle_p(features: LayerFeatures, shuffles: int, seed: int) -> float:
    """Share of random layer orders that three segments explain as well, counting the real one."""
    random = np.random.default_rng(seed)
    real = explained(features, 3)
    shuffled = [explained(random.permutation(features), 3) for _ in range(shuffles)]
    return (1 + sum(value >= real - 1e-12 for value in shuffled)) / (1 + shuffles)


def _criteria(profile: LayerProfile, parts: tuple[Part, ...]) -> tuple[Criterion, ...]:
    """Every line of the paper's description, tested on the means of the parts."""
    specific, related, agnostic = profile.T

    def mean(counts: np.ndarray, number: int) -> float:
        part = parts[number - 1]
        return float(counts[part.first : part.last + 1].mean())

    def more(part: int, what: str, counts: np.ndarray, above: int, below: int) -> Criterion:
        high, low = mean(counts, above), mean(counts, below)
        claim = f"part {above} has more {what} neurons than part {below}"
        return Criterion(part, claim, high > low, f"mean a layer {high:.1f} against {low:.1f}")

    return (
        more(1, "specific", specific, 1, 2),
        more(1, "related", related, 1, 2),
        more(2, "agnostic", agnostic, 2, 1),
        more(2, "agnostic", agnostic, 2, 3),
        more(3, "specific", specific, 3, 2),
        more(3, "related", related, 3, 2),
        _extreme(3, "lowest", agnostic, parts),
        *_last_part_criteria(profile, parts),
    )


def _last_part_criteria(profile: LayerProfile, parts: tuple[Part, ...]) -> tuple[Criterion, ...]:
    claim = "after the late peak of specific neurons they fall while related and agnostic ones rise"
    if len(parts) < 4:
        where = f"peak in layer {_late_peak(profile)} of {len(profile)}"
        return (Criterion(4, claim, False, where),)
    before, last = profile[parts[3].first - 1], profile[parts[3].first :].mean(axis=0)
    numbers = ", ".join(f"{old} to {new:.0f}" for old, new in zip(before, last, strict=True))
    return (
        Criterion(4, claim, True, f"specific, related, agnostic: {numbers}"),
        _extreme(4, "maximal", profile[:, 2], parts),
    )


def _extreme(part: int, word: str, counts: np.ndarray, parts: tuple[Part, ...]) -> Criterion:
    """Whether the agnostic neurons are ``"lowest"`` or ``"maximal"`` over all layers in a part."""
    layer = int(counts.argmin() if word == "lowest" else counts.argmax())
    inside = parts[part - 1].first <= layer <= parts[part - 1].last
    claim = f"agnostic neurons are {word} in part {part}"
    return Criterion(part, claim, inside, f"{word} in layer {layer}: {counts[layer]}")
