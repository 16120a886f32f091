"""Sets of neurons: an immutable value with set algebra, overlap, and matched random controls.

>>> a = NeuronSet.from_names(["L0N3", "L1N5"], n_layers=2, d_mlp=8)
>>> b = NeuronSet.from_names(["L1N5", "L1N6"], n_layers=2, d_mlp=8)
>>> list(a & b), (a | b).per_layer().tolist(), a.jaccard(b)
(['L1N5'], [1, 2], 0.3333333333333333)

An effect of removing a set means little without its control: what removing any set of that size, in
those layers, with neurons that are active as often, does. `random_control` makes such sets. Each
draw replaces every neuron of the set by a random one of the same layer (and expert), outside the
set, whose activation probability has about the same rank: one of the nearest candidates above and
below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Int64

from lensneurons.errors import LensNeuronsError, choose, shown
from lensneurons.options import plain_options
from lensneurons.shapes import FlatNeurons, NeuronMask, NeuronScores
from lensneurons.values.base import Overview, Value, read_only

if TYPE_CHECKING:
    import pandas as pd

Matched = NeuronScores | int | None
MaskFormat = Literal["lensneurons", "lape"]
_NAME = re.compile(r"L(\d+)(?:([EH])(\d+))?N(\d+)")
NEIGHBOURS = 20


@dataclass(frozen=True, eq=False, repr=False)
class NeuronSet(Value):
    """Some neurons of one model.

    Attributes:
        flat: int64 [neurons], sorted and unique: ``layer * d_mlp + neuron``.
        n_layers: layers of the model.
        d_mlp: neurons a layer.
        label: what the set is, for figures and tables.
        activity: float64 [layer, neuron], the activation probability that random sets match if
            nothing else is said; None where the set knows none. Files do not hold it.
        n_experts: routed experts of a layer where these are neurons inside them, which are called
            such as ``"L2E5N10"``: number ``5 * (d_mlp / n_experts) + 10`` of layer 2. None for all
            others.
        unit: ``"expert"`` where these are experts of a mixture, ``"query unit"`` and the like
            (`values.provenance.UNITS`) where they are outputs of a linear map; None for neurons.
        n_heads: heads of a layer where these are outputs of an attention projection, which are
            called such as ``"L2H1N5"``. None for all others.

    Raises:
        LensNeuronsError: an index is outside the model.
    """

    FILE_KIND: ClassVar = "neuron set"

    flat: FlatNeurons
    n_layers: int
    d_mlp: int
    label: str = "neurons"
    activity: NeuronScores | None = None
    n_experts: int | None = None
    unit: str | None = None
    n_heads: int | None = None

    def __post_init__(self) -> None:
        flat = np.sort(np.asarray(self.flat, np.int64))
        flat = flat[np.diff(flat, prepend=flat[:1] - 1) != 0]
        size = self.n_layers * self.d_mlp
        if flat.size and (flat[0] < 0 or flat[-1] >= size):
            raise LensNeuronsError(
                f"neuron {flat[-1] if flat[-1] >= size else flat[0]} is outside a model of "
                f"{self.n_layers} layers x {self.d_mlp} neurons"
            )
        object.__setattr__(self, "flat", read_only(flat))

    @classmethod
    def from_mask(cls, mask: NeuronMask, label: str = "neurons") -> NeuronSet:
        """The neurons where a bool [layer, neuron] mask is true."""
        return cls(np.flatnonzero(mask), mask.shape[0], mask.shape[1], label)

    @classmethod
    @plain_options
    def from_names(
        cls,
        names: Iterable[str],
        *,
        n_layers: int,
        d_mlp: int,
        label: str = "neurons",
        n_experts: int | None = None,
        unit: str | None = None,
        n_heads: int | None = None,
    ) -> NeuronSet:
        """The neurons with names such as ``"L12N3456"``, ``"L2E5N10"`` with `n_experts`, or
        ``"L2H1N5"`` with `n_heads`.

        Raises:
            LensNeuronsError: a name is not of that form, or outside the model.
        """
        flat = np.array(
            [flat_index(name, n_layers, d_mlp, n_experts, n_heads) for name in names], np.int64
        )
        parts = {"n_experts": n_experts, "unit": unit, "n_heads": n_heads}
        return cls(flat, n_layers, d_mlp, label, **parts)

    @property
    def units(self) -> str:
        """What it holds, in words: ``"neurons"``, ``"neurons inside experts"``, ``"experts"``..."""
        return f"{self.unit or 'neuron'}s{' inside experts' if self.n_experts else ''}"

    @property
    def layers(self) -> FlatNeurons:
        """int64 [neurons], the layer of each neuron."""
        return self.flat // self.d_mlp

    @property
    def neurons(self) -> FlatNeurons:
        """int64 [neurons], the index of each neuron in its layer."""
        return self.flat % self.d_mlp

    @property
    def names(self) -> list[str]:
        """Names such as ``"L12N3456"``, in order of layer and index."""
        parts = self.n_experts, self.n_heads
        return [neuron_name(flat, self.d_mlp, *parts) for flat in self.flat.tolist()]

    def by_layer(self) -> dict[int, FlatNeurons]:
        """Indices within the layer, for each layer that has any: what a hook needs."""
        return {int(layer): self.neurons[self.layers == layer] for layer in np.unique(self.layers)}

    def per_layer(self) -> Int64[np.ndarray, " layer"]:
        """int64 [layer], how many neurons of each layer are in the set."""
        return np.bincount(self.layers, minlength=self.n_layers)

    def mask(self) -> NeuronMask:
        """Bool [layer, neuron], true where the set is."""
        mask = np.zeros(self.n_layers * self.d_mlp, bool)
        mask[self.flat] = True
        return mask.reshape(self.n_layers, self.d_mlp)

    def relabel(self, label: str) -> NeuronSet:
        """The same neurons under another label."""
        return replace(self, label=label)

    def __len__(self) -> int:
        return len(self.flat)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(
            np.isin(
                flat_index(name, self.n_layers, self.d_mlp, self.n_experts, self.n_heads), self.flat
            )
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NeuronSet)
            and (self.n_layers, self.d_mlp) == (other.n_layers, other.d_mlp)
            and np.array_equal(self.flat, other.flat)
        )

    def __hash__(self) -> int:
        return hash((self.n_layers, self.d_mlp, self.flat.tobytes()))

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return self._with(np.concatenate([self.flat, other.flat]), other, "|")

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return self._with(np.intersect1d(self.flat, other.flat, assume_unique=True), other, "&")

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return self._with(np.setdiff1d(self.flat, other.flat, assume_unique=True), other, "-")

    def __xor__(self, other: NeuronSet) -> NeuronSet:
        return self._with(np.setxor1d(self.flat, other.flat, assume_unique=True), other, "^")

    def __le__(self, other: NeuronSet) -> bool:
        return len(self & other) == len(self)

    def _with(self, flat: FlatNeurons, other: NeuronSet, sign: str) -> NeuronSet:
        if (self.n_layers, self.d_mlp) != (other.n_layers, other.d_mlp):
            raise LensNeuronsError(
                f"{self.label} is of a model of {self.n_layers} x {self.d_mlp} neurons, "
                f"{other.label} of one of {other.n_layers} x {other.d_mlp}"
            )
        activity = self.activity if self.activity is other.activity else None
        label = f"({self.label} {sign} {other.label})"
        return replace(self, flat=flat, label=label, activity=activity)

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return Value._pack(replace(self, activity=None))

    def jaccard(self, other: NeuronSet) -> float:
        """``|A & B| / |A | B|``: symmetric, 1 for equal sets, NaN for two empty ones."""
        return _ratio(len(self & other), len(self | other))

    def dice(self, other: NeuronSet) -> float:
        """``2 |A & B| / (|A| + |B|)``: symmetric, at least the Jaccard index."""
        return _ratio(2 * len(self & other), len(self) + len(other))

    def containment(self, other: NeuronSet) -> float:
        """``|A & B| / |A|``: the share of this set that is in the other; not symmetric."""
        return _ratio(len(self & other), len(self))

    @plain_options
    def random_control(
        self,
        probability: Matched = None,
        *,
        draws: int = 20,
        seed: int = 0,
        exclude: NeuronSet | None = None,
    ) -> list[NeuronSet]:
        """Random sets with as many neurons in every layer, matched by activation probability.

        ``neurons["zh"].random_control(5)`` gives five sets that are as active in Chinese.

        Args:
            probability: float64 [layer, neuron], what to match: ``statistics.probability[..., k]``
                for the language that is evaluated, or its mean over the languages. None matches
                what the set knows: p in its language, or the mean of p for agnostic neurons. A
                whole number stands for `draws`.
            draws: how many sets.
            seed: the same seed gives the same sets.
            exclude: neurons that must not be drawn, beside those of the set itself.

        Returns:
            `draws` sets, none of which shares a neuron with the set or with `exclude`.

        Raises:
            LensNeuronsError: a layer has fewer candidates than the set has neurons there, no
                draws, or the set knows nothing to match.
        """
        if isinstance(probability, Integral) and not isinstance(probability, bool):
            probability, draws = None, int(probability)
        if draws < 1:
            raise LensNeuronsError(f"draws={draws}: give 1 or more")
        probability = self.activity if probability is None else probability
        if not isinstance(probability, np.ndarray):
            raise LensNeuronsError(
                f"{self.label} does not say in which language its random sets should be as active: "
                "random_control(statistics.probability[..., k])"
                if probability is None
                else f"probability={shown(probability)}: give a number of sets, or [layer, neuron]"
            )
        label = f"control of {self.label}"
        drawn = draw_controls(self, probability, draws=draws, seed=seed, exclude=exclude)
        return [replace(self, flat=flat, label=label) for flat in drawn]

    def save(self, path: str | Path, *, format: MaskFormat = "lensneurons") -> Path:
        """Write one file, atomically, and return its path.

        Args:
            path: the file.
            format: ``"lensneurons"`` (safetensors), or ``"lape"``, the ``.pth`` mask
                of the published code, a list of this one set (for `read_published_mask`).
        """
        if choose(format, get_args(MaskFormat), "format") == "lensneurons":
            return super().save(path)
        from lensneurons.neurons.published import write_published_mask

        return write_published_mask(path, {self.label: self})

    def to_pandas(self) -> pd.DataFrame:
        """One row a neuron: name, layer, neuron."""
        import pandas as pd

        return pd.DataFrame({"name": self.names, "layer": self.layers, "neuron": self.neurons})

    def _brief(self) -> str:
        shown = ", ".join(self.names[:4]) + (", ..." if len(self) > 4 else "")
        unit = self.unit or "neuron"
        return f"{self.label}: {len(self)} {unit}s in {self.n_layers} layers: {shown}"

    def _overview(self) -> Overview:
        counts = self.per_layer()
        rows = [(layer, counts[layer]) for layer in np.flatnonzero(counts)]
        units = f"{self.unit or 'neuron'}s"
        return Overview(f"{self.label}: {len(self)} {units}", ("layer", units), rows)


# What a person may have in hand: a set, a neuron's name, or several names (`chosen_set`).
OneSet = NeuronSet | str | Sequence[str]


def draw_controls(
    neurons: NeuronSet,
    probability: NeuronScores,
    *,
    draws: int,
    seed: int,
    exclude: NeuronSet | None = None,
) -> Int64[np.ndarray, "draw neurons"]:
    """The flat indices of `draws` random sets, int64 [draw, neurons], layer by layer.

    Neurons inside experts are drawn from the same expert: others read other tokens.

    Arguments and errors are those of `NeuronSet.random_control`. All draws are made together, so
    the time grows with the neurons of the set and hardly with the draws.
    """
    if probability.shape != (neurons.n_layers, neurons.d_mlp):
        raise LensNeuronsError(
            f"probability {probability.shape} is not [layer, neuron] of {neurons.n_layers} x "
            f"{neurons.d_mlp}: choose one language, or take the mean over them"
        )
    random = np.random.default_rng(seed)
    taken = neurons if exclude is None else neurons | exclude
    width = neurons.d_mlp // (neurons.n_experts or 1)
    pools = [
        _Pool(neurons, taken, pool, width, probability.ravel())
        for pool in np.unique(neurons.flat // width).tolist()
    ]
    drawn = [pool.draw(random, draws) for pool in pools]
    return np.concatenate([np.empty((draws, 0), np.int64), *drawn], axis=1)


def chosen_set(
    given: Any,
    n_layers: int,
    d_mlp: int,
    *,
    unit: str | None = None,
    n_experts: int | None = None,
    n_heads: int | None = None,
) -> NeuronSet:
    """The set that somebody means by a set, by a neuron's name, or by several names.

    >>> chosen_set(["L0N3", "L1N5"], 2, 8)
    NeuronSet(L0N3 L1N5: 2 neurons in 2 layers: L0N3, L1N5)

    `unit`, `n_experts` and `n_heads` are those that the set has to have; see `NeuronSet`.

    Raises:
        LensNeuronsError: something else, a set of another model or of other units, or a name
            outside the model.
    """
    parts = {"unit": unit, "n_experts": n_experts, "n_heads": n_heads}
    if isinstance(given, NeuronSet):
        wanted = NeuronSet(np.zeros(0, np.int64), n_layers, d_mlp, **parts).units
        if given.units != wanted:
            raise LensNeuronsError(
                f"{given.label} holds {given.units}, and {wanted} are meant here: ablate() and "
                "ablation_matrix() take either, other functions neurons of dense MLPs alone"
            )
        if (given.n_layers, given.d_mlp) != (n_layers, d_mlp):
            raise LensNeuronsError(
                f"{given.label} is of a model of {given.n_layers} layers x {given.d_mlp} neurons, "
                f"this one has {n_layers} x {d_mlp}"
            )
        return given
    names: Any = given.replace(",", " ").split() if isinstance(given, str) else given
    several = isinstance(names, Iterable) and hasattr(names, "__len__")
    listed = [one for one in (names if several else ()) if isinstance(one, str)]
    if not listed or len(listed) < len([*names]):
        told = ", such as neurons['zh']" if hasattr(given, "languages") else ""
        raise LensNeuronsError(
            f"neurons={shown(given)}: give a set{told}, a neuron's name such as 'L2N10', or a list "
            "of names"
        )
    label = " ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
    return NeuronSet.from_names(listed, n_layers=n_layers, d_mlp=d_mlp, label=label, **parts)


def flat_index(
    name: str,
    n_layers: int,
    d_mlp: int,
    n_experts: int | None = None,
    n_heads: int | None = None,
) -> int:
    """Flat index ``layer * d_mlp + neuron`` of a neuron named such as ``"L12N3456"``.

    Neurons inside `n_experts` routed experts a layer are named such as ``"L2E5N10"``, outputs of a
    projection of `n_heads` heads such as ``"L2H1N5"``.

    Raises:
        LensNeuronsError: the name is not of that form, or outside the model.
    """
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    letter = "E" if n_experts else "H" if n_heads else None
    if match is None or match[2] != letter:
        form = {
            None: "'L12N3456'",
            "E": "'L2E5N10' (layer, expert, neuron)",
            "H": "'L2H1N5' (layer, head, unit)",
        }[letter]
        raise LensNeuronsError(f"{shown(name)} is not the name of a neuron: write {form}")
    layer, part, neuron = (int(match[place] or 0) for place in (1, 3, 4))
    parts = n_experts or n_heads or 1
    width = d_mlp // parts
    if layer >= n_layers or part >= parts or neuron >= width:
        inside = f"{parts} {'experts' if n_experts else 'heads'} x " if letter else ""
        raise LensNeuronsError(
            f"{name} is outside a model of {n_layers} layers x {inside}{width} neurons"
        )
    return layer * d_mlp + part * width + neuron


def neuron_name(
    flat: int, d_mlp: int, n_experts: int | None = None, n_heads: int | None = None
) -> str:
    """The name of the neuron at a flat index: the inverse of `flat_index`."""
    layer, neuron = divmod(flat, d_mlp)
    parts = n_experts or n_heads
    if parts is None:
        return f"L{layer}N{neuron}"
    part, place = divmod(neuron, d_mlp // parts)
    return f"L{layer}{'E' if n_experts else 'H'}{part}N{place}"


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


class _Pool:
    """The candidates of one layer, or of one expert in it, by probability, and between which the
    members would stand.

    Args:
        neurons: the set.
        taken: what must not be drawn, the set itself included.
        number: of the pool: it holds the flat indices from ``number * width`` on.
        width: neurons of it.
        probability: float64 [layer * neuron].
    """

    def __init__(
        self, neurons: NeuronSet, taken: NeuronSet, number: int, width: int, probability: np.ndarray
    ) -> None:
        members = neurons.flat[neurons.flat // width == number]
        own = np.arange(number * width, (number + 1) * width)
        free = np.setdiff1d(own, taken.flat[taken.flat // width == number])
        if len(free) < len(members):
            layer, expert = divmod(number, neurons.n_experts or 1)
            where = f"layer {layer}" if neurons.n_experts is None else f"expert L{layer}E{expert}"
            raise LensNeuronsError(
                f"{where} has {len(free)} neurons outside {taken.label}, too few to match "
                f"its {len(members)}: a same-size control needs as many"
            )
        self.candidates = free[np.argsort(probability[free], kind="stable")]
        values = probability[self.candidates]
        self.lowest = np.searchsorted(values, probability[members], side="left")
        self.highest = np.searchsorted(values, probability[members], side="right")

    def draw(self, random: np.random.Generator, draws: int) -> Int64[np.ndarray, "draw member"]:
        """One candidate for each member, without replacement, near its rank; all draws at once.

        Candidates of equal probability (0 above all) have no order: a member stands anywhere
        among its equals.
        """
        members = len(self.lowest)
        places = random.integers(self.lowest, self.highest, (draws, members), endpoint=True)
        free = np.ones((draws, len(self.candidates)), bool)
        picks = np.empty_like(places)
        for turn, place in enumerate(random.permuted(places, axis=1).T):
            enough = min(NEIGHBOURS // 2, free.shape[1] - turn)
            picks[:, turn] = _free_near(free, place, enough, random)
            free[np.arange(draws), picks[:, turn]] = False
        return self.candidates[picks]


def _free_near(
    free: np.ndarray, place: np.ndarray, enough: int, random: np.random.Generator
) -> np.ndarray:
    """A random free candidate near each draw's place, [draw].

    The window around a place widens until it holds `enough` free candidates.
    """
    picks, open_, reach = np.empty_like(place), np.arange(len(free)), NEIGHBOURS // 2
    while len(open_):
        near = place[open_, None] + np.arange(-reach, reach)
        inside = (near >= 0) & (near < free.shape[1])
        near = near.clip(0, free.shape[1] - 1)
        inside &= free[open_[:, None], near]
        done = np.count_nonzero(inside, axis=1) >= enough
        key = np.where(inside[done], random.random((int(done.sum()), 2 * reach)), -1.0)
        picks[open_[done]] = near[done, key.argmax(axis=1)]
        open_, reach = open_[~done], 2 * reach
    return picks
