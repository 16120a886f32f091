"""Everything that a page can show, checked before a line of it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lensneurons.cards.card import NeuronCard, neuron_facts
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.paper_claims import Claims
from lensneurons.comparison.series import ComparisonSeries
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.answers import Accuracy
from lensneurons.experiments.ablation import AblationMatrix
from lensneurons.experiments.carrying import CarryOver
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts


@dataclass(frozen=True)
class Findings:
    """The values of one page; all but the neurons may be missing. See `compose.report`."""

    neurons: LanguageNeurons
    parts: LayerParts | None = None
    cards: Sequence[NeuronCard] = ()
    effects: Sequence[AblationMatrix] = ()
    comparison: Comparison | None = None
    claims: Claims | None = None
    series: ComparisonSeries | None = None
    accuracy: Accuracy | None = None
    steering: SteeringCurve | None = None
    carry_over: CarryOver | None = None
    lens: LensCurves | None = None


def check_cards(neurons: LanguageNeurons, cards: Sequence[NeuronCard]) -> None:
    """Raise unless every card is of one of these neurons, and none is there twice.

    Raises:
        LensNeuronsError: names the card.
    """
    seen: set[str] = set()
    for card in cards:
        name = card.record.name
        ours = neuron_facts(neurons, name)
        if (ours.probability, ours.tau) != (card.record.probability, card.record.tau):
            raise LensNeuronsError(
                f"the card of {name} is of other neurons than the page (another model, corpus, "
                "language or tau): describe it with the neurons that you give to the page"
            )
        if name in seen:
            raise LensNeuronsError(f"two cards are of {name}: give one")
        seen.add(name)
