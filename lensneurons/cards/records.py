"""What identification knows of one neuron: whose it is, and how often it is active.

>>> look_up(neurons, "L12N345")                                           # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError
from lensneurons.identification.neuron_sets import flat_index
from lensneurons.identification.neurons import LanguageNeurons
from lensneurons.intervals import jackknife
from lensneurons.provenance import require_same


@dataclass(frozen=True, repr=False)
class NeuronRecord:
    """What identification knows of one neuron.

    Attributes:
        name: such as ``"L12N345"``.
        class_name: one of `neurons.CLASSES`.
        languages: those above tau.
        owner: the one language above tau of a language-specific neuron, else None.
        selected: whether its score is among the lowest.
        score: low for language neurons; infinite where LAPE has none, above tau nowhere.
        tau: the bar.
        probability: language to activation probability.
        interval: language to the ends of the interval of the probability, by jackknife over groups
            of items; None where nothing to draw from was given.
        mean: language to mean activation ``act_fn(hook_pre)``; None where it was not given.
    """

    name: str
    class_name: str
    languages: tuple[str, ...]
    owner: str | None
    selected: bool
    score: float
    tau: float
    probability: dict[str, float]
    interval: dict[str, tuple[float, float]] | None = None
    mean: dict[str, float] | None = None

    @property
    def title(self) -> str:
        """Class and languages, in words."""
        return f"{self.class_name}{': ' if self.languages else ''}{' '.join(self.languages)}"

    @property
    def details(self) -> str:
        """Selection, score and tau, in words."""
        chosen = "selected" if self.selected else "not selected"
        score = f"score {self.score:.4f}" if math.isfinite(self.score) else "no score"
        return f"{chosen}, {score}; bar tau {self.tau:.4f}"

    def __repr__(self) -> str:
        shares = ", ".join(f"{k} {p:.3f}" for k, p in self.probability.items())
        return f"NeuronRecord({self.name} {self.title}; {self.details}; p: {shares})"

    def _repr_html_(self) -> str:
        mean = self.mean or {}
        rows = [
            (k, f"{p:.4f}", f"{mean[k]:.4f}" if mean else "") for k, p in self.probability.items()
        ]
        title = f"{self.name} {self.title} ({self.details})"
        return html_table(title, ("language", "p", "mean activation"), rows)


def look_up(
    neurons: LanguageNeurons, name: str, *, statistics: ActivationStatistics | None = None
) -> NeuronRecord:
    """What identification knows of one neuron; needs no model.

    Args:
        neurons: what `identify` gives.
        name: such as ``"L12N345"``.
        statistics: what it was identified from, for mean activations and intervals.

    Raises:
        LensNeuronsError: the neuron is not in the model, or the statistics are of other languages.
        ProvenanceError: the statistics are not those that the neurons were identified from.
    """
    layer, neuron = divmod(flat_index(name, neurons.n_layers, neurons.d_mlp), neurons.d_mlp)
    languages = neurons.languages_of(name)
    class_name = neurons.class_of(name)
    record = NeuronRecord(
        name=f"L{layer}N{neuron}",
        class_name=class_name,
        languages=languages,
        owner=languages[0] if class_name == "specific" else None,
        selected=bool(neurons.selected[layer, neuron]),
        score=float(neurons.score[layer, neuron]),
        tau=neurons.tau,
        probability=_by_language(neurons.languages, neurons.probability[layer, neuron]),
    )
    if statistics is None:
        return record
    _require_origin(neurons, statistics)
    one = _only(statistics, layer, neuron)
    mean = None if one.sums is None else _by_language(one.languages, one.mean[0, 0])
    return replace(record, mean=mean, interval=_interval(one))


def _by_language(languages: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(languages, values.tolist(), strict=True))


def _require_origin(neurons: LanguageNeurons, statistics: ActivationStatistics) -> None:
    require_same(neurons.provenance, statistics.provenance)
    ours = (neurons.languages, neurons.n_layers, neurons.d_mlp)
    theirs = (statistics.languages, statistics.n_layers, statistics.d_mlp)
    if ours != theirs:
        raise LensNeuronsError(
            f"the statistics (languages, layers, width: {theirs}) are not those that the neurons "
            f"were identified from ({ours})"
        )


def _only(statistics: ActivationStatistics, layer: int, neuron: int) -> ActivationStatistics:
    """The statistics of one neuron: what follows costs nothing."""
    at = (slice(layer, layer + 1), slice(neuron, neuron + 1))
    return replace(
        statistics,
        grouped_counts=statistics.grouped_counts[(slice(None), *at)],
        sums=None if statistics.sums is None else statistics.sums[at],
        squares=None if statistics.squares is None else statistics.squares[at],
    )


def _interval(one: ActivationStatistics) -> dict[str, tuple[float, float]] | None:
    """95 % interval of p by jackknife over groups of items; None where they do not allow it."""
    try:
        found = jackknife(one, lambda drawn: drawn.probability[0, 0])
    except LensNeuronsError:
        return None
    low, high = np.clip(found.low, 0, 1).tolist(), np.clip(found.high, 0, 1).tolist()
    return dict(zip(one.languages, zip(low, high, strict=True), strict=True))
