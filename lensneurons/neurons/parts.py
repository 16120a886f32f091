"""The four parts of a multilingual model, read off its layer profile, part by part.

arXiv 2505.21505 (section 4.2) sees four parts, with boundaries drawn by eye:

    1  multilingual understanding           first layers   specific, related peak; agnostic few
    2  shared semantic space reasoning      middle layers  specific, related rare; agnostic peak
    3  multilingual output transformation   late layers    specific, related peak; agnostic lowest
    4  vocabulary space outputting          last layer(s)  specific fall, related rise; agnostic
                                                           at their maximum

Here every line is a **contrast** between two neighbouring parts: a difference of ``log1p`` counts
over *all* neurons (counts of selected neurons hold no agnostic ones), positive where the paper is
right. A *peak* is the highest mean of neighbouring layers, one sixteenth of the depth wide.

Part 4 is the end of the layers, at most a quarter, whose specific neurons are low against related
and agnostic ones; the split is the least-squares one of that difference over the late half. Parts 1
to 3 are the least-squares division of the layers before it, on z-scored ``log1p`` counts, among the
divisions whose contrasts all have the sign of the paper. On the published Mistral-7B counts this
gives 0-4, 5-19, 20-30, 31. **The rule, not the data, puts layer 31 apart**: the best four segments
without any rule are 0-4, 5-20, 21-27, 28-31.

A contrast has an interval, and *holds*, *does not hold* or is *undecided* (the interval includes
0). The interval covers how much the layers **wobble** and, given statistics in groups of items,
what other texts would give. The wobble of a class is the spread of its second differences over the
layers of a part, at least that of a Poisson count: what no neighbour confirms is no peak. A profile
alone has intervals from its wobble alone. An interval has a nominal coverage of 90 %, so a contrast
is a one-sided test at 5 %; a finding for which all must hold needs no correction for their number.

A part is there if its own contrasts hold; nothing is there without parts 2 and 3, against which the
others are measured. Where not all four are there, the layers are also divided into 2, 3, 4, into 1,
2, 3 and into 2, 3, and the division in which most parts are there is taken. The four are *found* if
all are there, unless agnostic neurons are clearly lower before part 3 than in it, or clearly higher
before part 4: those two claims compare distant layers and may be undecided.

How often four parts are found (tests/simulations/four_parts.py, seed 0):

    published profile, log-normal noise of 5, 10, 20, 30 %          1.00  1.00  .82  .44
    the same on 12, 16, 20, 24, 28, 40, 60, 80 layers, 10 %         .51 .93 1.00 1.00 1.00 .99 1 1
    shuffled, reversed, flat, monotone, sigmoid, U- and V-shaped,
    smooth random layers, 12 and 32 of them, 10 %                   at most .01, of 200

Without noise the published profile shows its parts on each of these depths. **Twelve interpolated
layers miss .90 by one contrast**: related neurons peak in layers 29 and 30 of 32, which fall
between two of twelve points, so that 1,068 beside 678 are left in one layer. Told the spread of the
noise and of the published layers, which no user knows, all contrasts hold in .80 of draws on 12
layers, .63 on 11, .99 on 13; so no estimate of the spread reaches .90 there. Lower quantiles of the
bends, or one wobble for all classes, find fewer than the rule does. Where each part keeps its share
of the layers, the four are found in .67, .88, .95, .96, .90, .96 of draws on 10, 11, 12, 14, 16, 20
layers. From 16 layers on both worlds have .90 (interpolated: 13 and 14 .70, 15 .88), and a result
for fewer layers says that they are few.

**Two or three parts are no half of a finding**: parts 2 and 3 alone are reported in up to .19 of
monotone profiles, three parts in up to .15 of V-shaped ones, and all four, with agnostic neurons
lowest in the wrong one, in .07 of the published profile reversed. The number of segments is tested
apart (`lensneurons.neurons.segments`); no verdict depends on it.

Where four parts were found, the intervals held the contrast of the profile before noise in .97 (10
% on 32 layers), .98 (10 % on 16) and .93 (20 % on 32) of 100 draws each; nominal are .90. They are
wide, because bends of the profile itself count as wobble. Simulated without texts.

What this does not show: parts of a profile of frequencies are not yet parts of a computation;
patching and ablation by layer test that. What alignment changes in each part is tested in
`lensneurons.comparison.paper_claims`.

>>> import lensneurons as ln
>>> sample = ln.load_sample("gemma-3-270m")
>>> parts = ln.divide_layers(sample.neurons, sample.statistics)
>>> parts.found, parts.undecided, [(part.number, part.first, part.last) for part in parts.parts]
(False, (1, 4), [(2, 0, 12), (3, 13, 17)])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.belonging import require_own_statistics
from lensneurons.neurons.drawn_profiles import drawn_profiles
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.segments import LayerFeatures, explained, segment_costs, segment_tests
from lensneurons.options import plain_options
from lensneurons.shapes import LayerProfile
from lensneurons.uncertainty.groups import usable_weights
from lensneurons.values.base import Overview, Value

Verdict = Literal["holds", "does not hold", "undecided", "cannot be judged"]
Spans = dict[int, tuple[int, int]]  # part to its first layer and the layer after it
Logs = Float64[np.ndarray, "layer kind"]  # log1p of counts
DrawnLogs = Float64[np.ndarray, "draw layer kind"]
Noise = Float64[np.ndarray, "noise layer kind"]

NAMES = (
    "multilingual understanding",
    "shared semantic space reasoning",
    "multilingual output space transformation",
    "vocabulary space outputting",
)
FEWEST_LAYERS = 5  # they divide
ENOUGH_LAYERS = 16  # to find four parts in 90 % of profiles with 10 % noise; see above
LEVEL = 0.9  # of an interval: a claim that holds passes a one-sided test at 5 %
_WIDE = 1.6449  # standard deviations on each side of such an interval
_NOISES = 200  # draws of the wobble: with fewer, a close verdict depends on the seed
_ENOUGH = 5  # as many as twelve layers have
_LAYOUTS = ((1, 2, 3, 4), (2, 3, 4), (1, 2, 3), (2, 3))

_CLAIMS = {
    1: (
        "part 1 has more specific neurons than part 2",
        "part 1 has more related neurons than part 2",
        "agnostic neurons peak higher in part 2 than in part 1",
    ),
    2: ("agnostic neurons peak higher in part 2 than in part 3",),
    3: (
        "specific neurons peak higher in part 3 than in part 2",
        "related neurons peak higher in part 3 than in part 2",
    ),
    4: (
        "related neurons rise from the end of part 3 to part 4",
        "agnostic neurons rise from the end of part 3 to part 4",
        "specific neurons fall there against related and agnostic ones",
    ),
    0: ("agnostic neurons are lowest in part 3", "agnostic neurons are maximal in part 4"),
}


@dataclass(frozen=True)
class Part:
    """One part of the model: layers `first` to `last`, both included."""

    number: int
    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Criterion:
    """One line of the paper's description as a contrast, tested on a profile.

    Attributes:
        part: the part that it is about; 0 for the profile as a whole.
        claim: what should hold.
        verdict: ``"holds"`` and ``"does not hold"`` where the interval lies on one side of 0,
            ``"undecided"`` where it includes 0, ``"cannot be judged"`` without the part.
        measured: the contrast as a ratio of counts, or what is missing.
        contrast: difference of log counts, positive where the claim is right; None without one.
        low, high: ends of its 90 % interval.
    """

    part: int
    claim: str
    verdict: Verdict
    measured: str
    contrast: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the verdict is ``"holds"``."""
        return self.verdict == "holds"


@dataclass(frozen=True, eq=False, repr=False)
class LayerParts(Value):
    """Which of the paper's four parts a model shows, and how well.

    Attributes:
        found: whether all four are there; only then there are `boundaries`.
        parts: the parts that are there, none to four, with their layers.
        division: the best division into four, which was tested first.
        criteria: every line of the description, tested; those of a part that is not there on
            `division`.
        profile: int64 [layer, 3], specific, related and agnostic neurons, all neurons.
        explained: share of the variance of the profile that the best division into 1, 2, 3, 4 and
            5 segments explains.
        fewer_p: p of "three segments are enough", see `lensneurons.neurons.segments`.
        trend_p: p of "a cubic trend is enough".
        wobble: relative spread of neighbouring layers, for each class.
        draws: int64 [draw, 4], first layers of the parts in each bootstrap draw, -1 where a draw
            does not have the part; None without statistics.
    """

    FILE_KIND: ClassVar = "layer parts"

    found: bool
    parts: tuple[Part, ...]
    division: tuple[Part, ...]
    criteria: tuple[Criterion, ...]
    profile: LayerProfile
    explained: tuple[float, ...]
    fewer_p: float
    trend_p: float
    wobble: tuple[float, ...]
    draws: Int64[np.ndarray, "draw 4"] | None = None

    @property
    def boundaries(self) -> list[tuple[int, int]] | None:
        """First and last layer of each of the four parts; None where they were not found."""
        return [(part.first, part.last) for part in self.parts] if self.found else None

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers of the parts that are not there, and one of whose criteria does not hold."""
        refuted = {c.part for c in self.criteria if c.verdict == "does not hold"}
        return tuple(number for number in self._absent if number in refuted)

    @property
    def undecided(self) -> tuple[int, ...]:
        """The numbers of the other parts that are not there."""
        return tuple(number for number in self._absent if number not in self.missing)

    @property
    def _absent(self) -> list[int]:
        there = {part.number for part in self.parts}
        return [number for number in (1, 2, 3, 4) if number not in there]

    @property
    def failed(self) -> tuple[Criterion, ...]:
        """The criteria that stand against four parts, each once.

        Those of a missing part that do not hold or are undecided, and those about the whole profile
        that do not hold.
        """
        return tuple(
            c for c in self.criteria
            if c.verdict == "does not hold" or (c.part and c.verdict == "undecided")
        )  # fmt: skip

    @property
    def shares(self) -> dict[int, float] | None:
        """Share of the bootstrap draws with four, three, two and no parts; None without draws."""
        if self.draws is None:
            return None
        number = (self.draws >= 0).sum(axis=1)
        return {n: float(np.mean(number == n)) for n in (4, 3, 2, 0)}

    @plain_options
    def interval(self, part: int, level: float = 0.95) -> tuple[int, int]:
        """Bootstrap interval of the first layer of a part.

        Draws without the part are left out.

        Raises:
            LensNeuronsError: `divide_layers` had no statistics to resample, or no such part.
        """
        if self.draws is None or part not in (2, 3, 4):
            raise LensNeuronsError(
                "boundaries of parts 2, 3 and 4 have intervals where divide_layers(neurons, "
                f"statistics) was given statistics with groups; asked for part {part}"
            )
        starts = self.draws[:, part - 1]
        starts = starts[starts >= 0]
        if len(starts) == 0:
            raise LensNeuronsError(f"no bootstrap draw has a part {part}")
        ends = np.quantile(starts, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        return int(ends[0]), int(ends[1])

    @property
    def summary(self) -> str:
        """Which parts are there, in which layers, and what stands against the others.

        A model of fewer than 16 layers that does not show all four is told to be shallow.
        """
        if self.found:
            return f"found: {_spans(self.parts)}"
        there = [f"{part.number} in layers {_spans((part,))}" for part in self.parts]
        told = [f"parts found: {', '.join(there)}"] if there else ["no part found"]
        against = "; ".join(f"{c.claim}: {c.verdict} ({c.measured})" for c in self.failed)
        against = against or "no division shows them all at once"
        if not there:
            told += [f"best division {_spans(self.division)}"]
        for status, numbers in (("missing", self.missing), ("undecided", self.undecided)):
            if numbers:
                told.append(f"{status}: {', '.join(map(str, numbers))}")
        told.append(against)
        if len(self.profile) < ENOUGH_LAYERS:
            told.append(
                f"{len(self.profile)} layers are few: parts that are there can be missed with "
                f"fewer than {ENOUGH_LAYERS}"
            )
        return "; ".join(told)

    def _brief(self) -> str:
        return self.summary if self.found else f"not found; {self.summary}"

    def _overview(self) -> Overview:
        rows = [(c.part or "", c.claim, c.verdict, c.measured) for c in self.criteria]
        told = "Four parts " + ("found" if self.found else "not found")
        there = _spans(self.parts) if self.parts else "none"
        title = f"{told}; parts {there}"
        return Overview(title, ("part", "criterion", "verdict", "measured"), rows)

    @classmethod
    def _unpack(cls, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> LayerParts:
        if "shuffle_p" in details:
            raise ValueError(
                "an older lensneurons wrote it, whose criteria had no intervals; call divide_layers"
            )
        return super()._unpack(arrays, details)


def _spans(parts: tuple[Part, ...]) -> str:
    return " / ".join(
        str(part.first) if part.first == part.last else f"{part.first}-{part.last}"
        for part in parts
    )


@plain_options
def divide_layers(
    neurons: LanguageNeurons | LayerProfile,
    statistics: ActivationStatistics | None = None,
    *,
    draws: int = 100,
    seed: int = 0,
) -> LayerParts:
    """Divide the layers of a model into the paper's parts and test which of them it shows.

    Args:
        neurons: the identified neurons (all of them count, whatever their population), or a profile
            int64 [layer, 3] of specific, related and agnostic neurons.
        statistics: what the neurons were identified from, for the bootstrap over texts; needs
            ``collect(..., groups=G)`` with G >= 2.
        draws: corpora that are drawn from the groups, and profiles for each test of the number of
            segments.
        seed: the same seed gives the same result.

    Raises:
        LensNeuronsError: fewer than five layers, which cannot show four parts, fewer than two
            draws, statistics without groups, statistics that the neurons were not identified from,
            or statistics for a bare profile.
    """
    profile = neurons if isinstance(neurons, np.ndarray) else neurons.layer_profile("all")
    if len(profile) < FEWEST_LAYERS:
        raise LensNeuronsError(
            f"a model of {len(profile)} layers cannot show four parts: {FEWEST_LAYERS} are needed"
        )
    if draws < 2:
        raise LensNeuronsError(f"draws={draws}: intervals need at least two draws")
    texts = None
    if statistics is not None:
        if isinstance(neurons, np.ndarray):
            raise LensNeuronsError("a profile has no bar to resample at: give the neurons")
        require_own_statistics(neurons, statistics)
        same = statistics.select(neurons.languages)
        weights = usable_weights(same, draws=draws, seed=seed)
        texts = np.log1p(drawn_profiles(same, neurons.tau, weights))  # at the bar of the neurons
    logs = np.log1p(profile.astype(float))
    division = _place(logs, _LAYOUTS[0])
    wobble = _wobble(logs, division)
    spread = np.maximum(wobble, np.exp(-logs / 2))  # a count of n is no surer than Poisson
    noise = spread * np.random.default_rng(seed).normal(size=(_NOISES, *logs.shape))
    drawn = (logs if texts is None else texts[np.arange(_NOISES) % draws]) + noise
    spans, criteria = _find(logs, drawn)
    refuted = any(c.part == 0 and c.verdict == "does not hold" for c in criteria)
    features = _scaled(logs)
    fewer_p, trend_p = segment_tests(features, draws=draws, seed=seed)
    return LayerParts(
        found=len(spans) == 4 and not refuted,
        parts=_named(spans),
        division=_named(division),
        criteria=criteria,
        profile=profile,
        explained=tuple(explained(features, number) for number in range(1, 6)),
        fewer_p=fewer_p,
        trend_p=trend_p,
        wobble=tuple(np.expm1(wobble).tolist()),
        draws=None if texts is None else _of_texts(texts, noise),
    )


def _named(spans: Spans) -> tuple[Part, ...]:
    return tuple(Part(n, NAMES[n - 1], first, stop - 1) for n, (first, stop) in spans.items())


def _of_texts(texts: DrawnLogs, noise: Noise) -> Int64[np.ndarray, "draw 4"]:
    """First layers of the parts that each drawn profile shows by itself; -1 where it does not."""
    found = [_find(logs, logs + noise)[0] for logs in texts]
    starts = [[spans.get(n, (-1, 0))[0] for n in (1, 2, 3, 4)] for spans in found]
    return np.array(starts, np.int64)


def _wobble(logs: Logs, spans: Spans) -> Float64[np.ndarray, " kind"]:
    """Spread of the layers about their neighbours, for each class.

    The median of absolute second differences within the parts, scaled to the standard deviation of
    independent normal noise. A boundary between parts is no wobble; but where the parts have fewer
    than `_ENOUGH` second differences, all are taken.
    """
    bends = np.abs(logs[:-2] - 2 * logs[1:-1] + logs[2:])
    within = [layer for first, stop in spans.values() for layer in range(first, stop - 2)]
    if len(within) >= _ENOUGH:
        bends = bends[within]
    return np.median(bends, axis=0) / (0.6745 * np.sqrt(6))


def _scaled(logs: Logs) -> LayerFeatures:
    """float64 [layer, 3]: every column with mean 0 and spread 1; a constant one is all zeros."""
    spread = logs.std(axis=0)
    return (logs - logs.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)


# Where parts may lie


def _place(logs: Logs, layout: tuple[int, ...]) -> Spans:
    """The best place for the parts of a layout: part to its first layer and the layer after it."""
    end = _last_part(logs) if 4 in layout else len(logs)
    cost = segment_costs(_scaled(logs[:end]))
    mean, peak = _means(logs), _peaks(logs)
    if 1 in layout:
        second, third = np.triu_indices(end - 1, 1)
        second, third = second + 1, third + 1  # every pair of first layers
        left = cost[0, second] + cost[second, third] + cost[third, end]
        signs = _early(mean[0, second], mean[second, third], peak[0, second], peak[second, third])
    else:
        third = np.arange(1, end)
        second = np.zeros_like(third)
        left, signs = cost[0, third] + cost[third, end], []
    signs = [*signs, *_late(peak[second, third], peak[third, end])]
    allowed = np.all(np.array(signs) > 0, axis=0)
    best = int(np.where(allowed, left, np.inf).argmin() if allowed.any() else left.argmin())
    edges = [0, int(second[best]), int(third[best]), end, len(logs)]
    return {n: (edges[n - 1], edges[n]) for n in layout}


def _last_part(logs: Logs) -> int:
    """First layer of part 4, if there is one.

    The layers after it, at most a quarter, have few specific neurons for their related and agnostic
    ones. Of the splits of the late half that leave such an end, the least-squares one is taken; the
    last layer where there is none.
    """
    n, half = len(logs), len(logs) // 2
    balance = logs[:, 0] - logs[:, 1:].mean(axis=1)
    best, most = n - 1, 0.0
    for start in range(n - 1, max(half, n - 1 - max(1, n // 4)), -1):
        before, after = balance[half:start], balance[start:]
        drop = before.mean() - after.mean()
        gain = drop**2 / (1 / len(before) + 1 / len(after))
        if drop > 0 and gain > most:
            best, most = start, gain
    return best


def _width(n_layers: int) -> int:
    """Neighbouring layers that make a peak."""
    return max(1, round(n_layers / 16))


def _means(logs: Logs) -> Float64[np.ndarray, "first stop kind"]:
    """float64 [first, last + 1, kind]: the mean of the layers first..last."""
    total = np.concatenate([np.zeros((1, 3)), np.cumsum(logs, axis=0)])
    places = np.arange(len(total))
    return (total - total[:, None]) / np.maximum(places - places[:, None], 1)[..., None]


def _peaks(logs: Logs) -> Float64[np.ndarray, "first stop kind"]:
    """float64 [first, last + 1, kind]: `_peak` of the layers first..last."""
    n, width, mean = len(logs), _width(len(logs)), _means(logs)
    peaks = mean.copy()  # of runs that are shorter than a peak is wide
    windows = mean[np.arange(n - width + 1), np.arange(width, n + 1)]
    for first in range(n - width + 1):
        peaks[first, first + width :] = np.maximum.accumulate(windows[first:], axis=0)
    return peaks


# What they should show


def _early(mean1: Any, mean2: Any, peak1: Any, peak2: Any) -> list[Any]:
    """The contrasts of part 1 with part 2, of arrays [..., kind]."""
    differences = mean1 - mean2
    return [differences[..., 0], differences[..., 1], peak2[..., 2] - peak1[..., 2]]


def _late(peak2: Any, peak3: Any) -> list[Any]:
    """The contrasts of part 2 with part 3, of arrays [..., kind]."""
    rise = peak3 - peak2
    return [-rise[..., 2], rise[..., 0], rise[..., 1]]


def _contrasts(logs: np.ndarray, spans: Spans) -> dict[str, Any]:
    """The contrast of every claim whose parts have places, of float64 [..., layer, kind]."""
    width = _width(logs.shape[-2])
    parts = {n: logs[..., first:stop, :] for n, (first, stop) in spans.items()}
    peak = {n: _peak(part, width) for n, part in parts.items()}
    mean = {n: part.mean(axis=-2) for n, part in parts.items()}
    found = dict(zip((*_CLAIMS[2], *_CLAIMS[3]), _late(peak[2], peak[3]), strict=True))
    if 1 in parts:
        found |= zip(_CLAIMS[1], _early(mean[1], mean[2], peak[1], peak[2]), strict=True)
    lowest, maximal = _CLAIMS[0]
    before = logs[..., : spans[3][0], 2:]
    found[lowest] = (_peak(-parts[3][..., 2:], width) - _peak(-before, width))[..., 0]
    if 4 in parts:
        rise = mean[4] - parts[3][..., -width:, :].mean(axis=-2)
        relative = rise[..., 1:].mean(axis=-1) - rise[..., 0]
        found |= zip(_CLAIMS[4], (rise[..., 1], rise[..., 2], relative), strict=True)
        before = logs[..., : spans[4][0], :]
        found[maximal] = (mean[4] - _peak(before, width))[..., 2]
    return found


def _peak(layers: np.ndarray, width: int) -> np.ndarray:
    """[..., kind]: the highest mean of `width` neighbouring layers, or of all, if fewer."""
    windows = np.lib.stride_tricks.sliding_window_view(
        layers, min(width, layers.shape[-2]), axis=-2
    )
    return windows.mean(axis=-1).max(axis=-2)


def _find(logs: Logs, drawn: DrawnLogs) -> tuple[Spans, tuple[Criterion, ...]]:
    """The places of the parts that are there, and every criterion, judged once.

    Args:
        logs: float64 [layer, kind].
        drawn: float64 [draw, layer, kind], the same in other draws.

    Returns:
        Part to its place, empty without parts 2 and 3; and the criteria on the division in which
        most parts are there (those of a part that it leaves out on the division into four).
    """
    divisions = []
    for layout in _LAYOUTS:
        spans = _place(logs, layout)
        judged = _judge(_contrasts(logs, spans), _contrasts(drawn, spans))
        there = {n: spans[n] for n in layout if all(judged[claim].holds for claim in _CLAIMS[n])}
        divisions.append((judged, there if {2, 3} <= there.keys() else {}, -len(layout)))
        if len(there) == 4:
            break
    judged, there, _ = max(divisions, key=lambda division: (len(division[1]), division[2]))
    if not there:
        judged = divisions[0][0]
    criteria = []
    for part, claims in _CLAIMS.items():
        for claim in claims:
            needed = part or int(claim[-1])  # a claim about the whole ends on the part it needs
            if part or needed in there:
                criteria.append(judged.get(claim) or divisions[0][0][claim])
            else:
                criteria.append(Criterion(0, claim, "cannot be judged", f"no part {needed}"))
    return there, tuple(criteria)


def _judge(contrasts: Mapping[str, Any], drawn: Mapping[str, np.ndarray]) -> dict[str, Criterion]:
    """Every contrast with its interval and verdict."""
    judged = {}
    for part, claims in _CLAIMS.items():
        for claim in (claim for claim in claims if claim in contrasts):
            middle, half = float(contrasts[claim]), _WIDE * float(drawn[claim].std(ddof=1))
            low, high = middle - half, middle + half
            verdict = "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
            ratio, ends = np.exp(middle), np.exp([low, high])
            told = f"ratio {ratio:.2f}, {ends[0]:.2f} to {ends[1]:.2f}"
            judged[claim] = Criterion(part, claim, verdict, told, middle, low, high)
    return judged
