"""Random controls of an ablation: which neurons stand in for a set, and how well they match it.

A control has as many neurons in every layer as the set. "As active" must say in which language:

    own        p in the row's own language, layer by layer: active there, whoever else they serve
    activity   the mean of p over the languages
    layer      nothing: any neurons of the same layers, most of which hardly fire

Every item meets random sets of its own, which no other item meets: of n items each meets
``ceil(controls / n)`` independent draws, the same ones in all its languages. So items are
independent of each other, and a bootstrap over items counts the spread over draws as well.

A match can fail: no other neuron of a layer may be as active as a neuron that fires on 95 % of
tokens. `matched_rates` says what p is in the set and in its controls, and `warn_of_mismatch` warns
where the two differ by more than `MISSED` and by more than `MISSED_SHARE` of the set's.

>>> draw_control(neurons, "zh", removed, "own", "all", draws=250, seed=0)    # doctest: +SKIP

What this does not show: neurons that fire as often need not fire on the same tokens, nor as
strongly, nor write as much into the residual stream.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64

from lensneurons.errors import ControlWarning
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet, draw_controls
from lensneurons.shapes import NeuronScores

Match = Literal["own", "activity", "layer"]
Pool = Literal["all", "unselected", "below tau"]
Condition = tuple[str, str]  # setting and row

# A layer of a control is told as a mismatch where its p is off by more than both.
MISSED = 0.05
MISSED_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Control:
    """The random sets of one set of neurons.

    Attributes:
        of: the set that they stand in for.
        flat: int32 [draw, neurons], the flat indices of each random set.
    """

    of: NeuronSet
    flat: Int32[np.ndarray, "draw neurons"]

    def __getitem__(self, draw: int) -> NeuronSet:
        flat = self.flat[draw].astype(np.int64)
        return replace(self.of, flat=flat, label=f"control of {self.of.label}", activity=None)

    def __len__(self) -> int:
        return len(self.flat)


class Removed(NamedTuple):
    """What a condition removes: a set of neurons, or one of its random sets of each match."""

    neurons: NeuronSet
    controls: tuple[Control, ...]


def draws_an_item(controls: int, items: int) -> int:
    """How many random sets every item meets so that all items together meet `controls` or more."""
    return -(-controls // items)


def draw_control(
    neurons: LanguageNeurons,
    row: str,
    removed: NeuronSet,
    match: Match,
    pool: Pool,
    *,
    draws: int,
    seed: int,
) -> Control:
    """Draw the random sets of one match for the neurons that a row removes.

    Raises:
        LensNeuronsError: a layer has fewer candidates than neurons to match.
    """
    drawn = draw_controls(
        removed,
        matched_activity(neurons, row, match),
        draws=draws,
        seed=seed,
        exclude=_kept_out(neurons, row, pool),
    )
    return Control(removed, drawn.astype(np.int32))


def matched_activity(neurons: LanguageNeurons, row: str, match: Match) -> NeuronScores:
    """float64 [layer, neuron]: what a match goes by; all zero leaves nothing to match."""
    if match == "layer":
        return np.zeros(neurons.probability.shape[:2])
    return _matched(neurons.probability, neurons.languages.index(row), match)


def _matched(rates: np.ndarray, own: int, match: str) -> np.ndarray:
    """The p that a match goes by, [...], from p [..., language]; of `layer`: in the own one."""
    return rates.mean(axis=-1) if match == "activity" else rates[..., own]


def _kept_out(neurons: LanguageNeurons, row: str, pool: Pool) -> NeuronSet | None:
    """The neurons that a pool leaves out, beside those that are removed."""
    if pool == "all":
        return None
    if pool == "unselected":
        mask, label = neurons.counted & (neurons.n_above > 0), "the selected"
    else:
        mask, label = neurons.above[..., neurons.languages.index(row)], f"those above tau in {row}"
    return NeuronSet.from_mask(mask, label)


def matched_rates(
    neurons: LanguageNeurons, removed: Removed
) -> Float64[np.ndarray, "_ layer language"]:
    """Mean p of a set's neurons, then of each of its controls over all draws, by layer.

    NaN in layers where the set has no neuron.
    """
    p = neurons.probability.reshape(-1, len(neurons.languages))
    shape = neurons.n_layers, len(neurons.languages)
    found = np.full((1 + len(removed.controls), *shape), np.nan)
    drawn = [removed.neurons.flat[None], *(control.flat for control in removed.controls)]
    for kind, flat in enumerate(drawn):
        times = np.bincount(flat.ravel(), minlength=len(p))
        for layer in removed.neurons.by_layer():
            here = slice(layer * neurons.d_mlp, (layer + 1) * neurons.d_mlp)
            found[kind, layer] = times[here] @ p[here] / times[here].sum()
    return found


class Gap(NamedTuple):
    """The layer in which a control misses its set most: p of both, as the match goes by it."""

    layer: int
    of_set: float
    of_control: float

    @property
    def missed(self) -> bool:
        """Whether they differ by more than `MISSED` and `MISSED_SHARE` of the set's p."""
        off = abs(self.of_control - self.of_set)
        return off > MISSED and off > MISSED_SHARE * self.of_set


def worst_layer(rates: np.ndarray, own: int, match: str, kind: int) -> Gap | None:
    """Where a control is farthest from its set; None of an empty set.

    Args:
        rates: float64 [1 + match, layer, language], what `matched_rates` gives.
        own: number of the row's language.
        match: of the control.
        kind: its place in `rates`.
    """
    of_set, of_control = (_matched(rates[place], own, match) for place in (0, kind))
    off = np.abs(of_control - of_set)
    if np.isnan(off).all():
        return None
    layer = int(np.nanargmax(off))
    return Gap(layer, float(of_set[layer]), float(of_control[layer]))


def warn_of_mismatch(
    rates: Mapping[Condition, np.ndarray], languages: Sequence[str], matches: Sequence[Match]
) -> None:
    """Warn, once, of the controls whose pool held no neurons as active as those of their set.

    Args:
        rates: setting and row to float64 [1 + match, layer, language].
        languages: the last axis of the rates.
        matches: the controls; ``"layer"`` matches nothing and is never told.
    """
    missed = []
    for (setting, row), found in rates.items():
        for kind, match in enumerate(matches, start=1):
            gap = worst_layer(found, languages.index(row), match, kind)
            if match != "layer" and gap is not None and gap.missed:
                missed.append((abs(gap.of_control - gap.of_set), setting, row, match, gap))
    if not missed:
        return
    missed.sort(key=lambda one: -one[0])
    told = [
        f"{setting} {row}, layer {gap.layer}, match {match!r}: p {gap.of_set:.2f} of the set, "
        f"{gap.of_control:.2f} of its control"
        for _, setting, row, match, gap in missed[:3]
    ]
    more = f"; and {len(missed) - 3} more" if len(missed) > 3 else ""
    warnings.warn(
        f"no other neurons are as active as these ({'; '.join(told)}{more}), so what these "
        "controls lack may be activity: see matched(), and leave the setting out (classes=), "
        "widen the pool (pool='all'), or read the selectivity alone",
        ControlWarning,
        stacklevel=5,  # past the two decorators of `ablation_matrix`
    )


def neurons_by_layer(removed: Sequence[NeuronSet]) -> Int64[np.ndarray, "set layer"]:
    """int64 [set, layer]: how many neurons of each layer are in each set."""
    return np.stack([one.per_layer() for one in removed]).astype(np.int64)
