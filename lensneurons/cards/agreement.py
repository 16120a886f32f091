"""What importance is worth: how well it predicts what removing a neuron does.

    predicted_k = - (activation x gradient)_k       change of NLL_k to first order, one pass for all
    measured_k  = NLL_k without the neuron - NLL_k                        one pass for every neuron

    rho    Spearman's correlation of the two over the neurons, averaged over the languages
    ratio  sum of |predicted| / sum of |measured|, over neurons and languages

rho 1 means that importance ranks the removals as they are, whatever their size; ratio 1 that it has
their size. `describe_all` measures both for the neurons that it describes together.

>>> cards = describe_all(model, neurons, importance.top("zh", 50), corpus=corpus)  # doctest: +SKIP
>>> agreement_of_cards(cards).spearman                                           # doctest: +SKIP

What this does not show: the agreement over other neurons. It has no interval: it describes these
neurons. Where they were chosen by their importance, its range is cut and so is rho.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lensneurons.errors import LensNeuronsError

if TYPE_CHECKING:
    from lensneurons.cards.card import NeuronCard

# What a card says where no agreement was measured.
FIRST_ORDER = (
    "It is a first-order estimate, and removing a neuron may do far more or less (on the demo "
    "model about three times as much, and nine times for the largest): describe ten neurons or "
    "more together to see how well it predicts."
)
FEWEST = 10  # neurons over which a correlation is told


@dataclass(frozen=True)
class ImportanceAgreement:
    """How well importance predicts the removals of some neurons. Made by `agreement_of_cards`.

    Attributes:
        neurons: how many.
        spearman: of predicted and measured over the neurons, -1 to 1, mean over the languages in
            which neither is the same for all.
        ratio: sum of |predicted| over sum of |measured|; below 1 where removals do more.
    """

    neurons: int
    spearman: float
    ratio: float

    @property
    def told(self) -> str:
        """One sentence for a card."""
        return (
            f"Over the {self.neurons} neurons described together the prediction ranks the removals "
            f"with rho = {self.spearman:.2f} (1: perfectly) and has {self.ratio:.2g} times their "
            "size."
        )


def agreement_of_cards(cards: Sequence[NeuronCard]) -> ImportanceAgreement:
    """Compare predicted and measured effects of neurons, over the languages that have both.

    Args:
        cards: what `describe_all` gave with effects and ``"activation_gradient"``; ten or more.

    Raises:
        LensNeuronsError: too few cards, or one without a prediction or a measured effect.
    """
    if len(cards) < FEWEST:
        raise LensNeuronsError(
            f"{len(cards)} cards: an agreement is told of {FEWEST} neurons or more; describe more"
        )
    for card in cards:
        if card.predicted is None or card.effect is None:
            lack = "activation_gradient" if card.predicted is None else "effect"
            raise LensNeuronsError(f"the card of {card.facts.name} has no {lack}: measure it")
    both = [k for k in cards[0].effect or {} if all(k in (card.predicted or {}) for card in cards)]
    predicted, measured = (
        np.array([[values[k] for k in both] for values in rows])
        for rows in ([c.predicted or {} for c in cards], [c.effect or {} for c in cards])
    )
    return agreement_of(predicted, measured)


def agreement_of(predicted: np.ndarray, measured: np.ndarray) -> ImportanceAgreement:
    """The agreement of two arrays, float64 [neuron, language].

    Raises:
        LensNeuronsError: no language has both, or one of the two is the same for all neurons.
    """
    from scipy.stats import spearmanr

    pairs = [
        (ours, theirs)
        for ours, theirs in zip(predicted.T, measured.T, strict=True)
        if np.ptp(ours) > 0 and np.ptp(theirs) > 0
    ]
    if not pairs:
        raise LensNeuronsError(
            "no language has predicted and measured effects that differ between the neurons"
        )
    rho = [spearmanr(ours, theirs).statistic for ours, theirs in pairs]  # pyright: ignore[reportAttributeAccessIssue]
    ratio = np.abs(predicted).sum() / np.abs(measured).sum()
    return ImportanceAgreement(len(predicted), float(np.mean(rho)), float(ratio))
