"""What a made-up ablation matrix must hold so that it is one of some neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensneurons.experiments.ablation import ablation_sets
from lensneurons.experiments.controls import Removed, matched_rates
from lensneurons.neurons.language_neurons import LanguageNeurons


def of_neurons(neurons: LanguageNeurons, classes: tuple[str, ...], sides: int) -> dict[str, Any]:
    """Fields of an `AblationMatrix` of these neurons, whose controls are as active as the sets."""
    rows = [list(row.values()) for row in ablation_sets(neurons, classes).values()]
    rates = [[matched_rates(neurons, Removed(one, ()))[0] for one in row] for row in rows]
    return {
        "neurons_by_layer": np.array([[one.per_layer() for one in row] for row in rows]),
        "identified": neurons.languages,
        "rates": np.stack([np.array(rates)] * sides),
        "made_from": neurons.description,
    }
