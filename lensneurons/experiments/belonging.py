"""Whether the effects in a deactivation matrix are those of some neurons.

A matrix holds how many neurons it removed in every layer, and their mean activation probability in
every language. Both follow from the neurons, the classes and the rows, so a matrix of others is
refused whatever it was called and however it was saved. Sets of somebody's own are those of some
neurons if they are what ``neurons[language]`` gives. A new matrix also says in words how its
neurons were identified (`AblationMatrix.made_from`), for the message:

>>> require_own_effects(neurons, matrix)                                 # doctest: +SKIP

What this does not show: on which model the effects were measured. That may be another than the
neurons are of; a report says so.
"""

from __future__ import annotations

import numpy as np

from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.ablation import ablation_sets
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.controls import Removed, matched_rates
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons


def require_own_effects(neurons: LanguageNeurons, matrix: AblationMatrix) -> None:
    """Raise unless a matrix removed the sets of these neurons.

    Raises:
        LensNeuronsError: it removed others; says how either were identified, and what to do.
    """
    layers = matrix.neurons_by_layer.shape[-1]
    if matrix.identified != neurons.languages or layers != neurons.n_layers:
        raise LensNeuronsError(
            f"effects are of neurons of {list(matrix.identified)} in {layers} layers, these "
            f"neurons of {list(neurons.languages)} in {neurons.n_layers}: give the matrix of these "
            "neurons"
        )
    if own := [one for one in matrix.classes if one not in LAYER_CLASSES]:
        sets = dict.fromkeys(own, {code: neurons[code] for code in matrix.rows})
    else:
        sets = ablation_sets(neurons, matrix.classes, matrix.rows)
    for place, (setting, rows) in enumerate(sets.items()):
        for row, one in enumerate(rows.values()):
            removed = matrix.neurons_by_layer[place, row]
            rates = matched_rates(neurons, Removed(one, ()))[0]
            if np.array_equal(removed, one.per_layer()) and np.allclose(
                matrix.rates[0, place, row], rates, rtol=1e-9, atol=1e-12, equal_nan=True
            ):
                continue
            if own:
                raise LensNeuronsError(
                    f"effects are of sets of somebody's own ({setting}), not of these neurons: give"
                    " the matrix of their classes, or of sets such as {'zh': neurons['zh']}"
                )
            made = matrix.made_from or f"{removed.sum():,} {setting} neurons of {matrix.rows[row]}"
            raise LensNeuronsError(
                f"effects were measured with {made}, these neurons were identified with "
                f"{neurons.description} ({len(one):,} {setting} neurons of {matrix.rows[row]}): "
                "identify with the options of the matrix, or make the matrix of these neurons"
            )
