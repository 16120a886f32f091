"""The result of identification: class, owner and languages of every neuron of a model.

Two populations are kept apart everywhere. The *selected* neurons (the lowest scores) are what
interventions act on; by construction they hold no language-agnostic neuron. *All* neurons,
classified by N alone, are what layer profiles, histograms of N and the four parts are made of.

>>> import lensneurons as ln
>>> neurons = ln.load_sample("gemma-3-270m").neurons
>>> len(neurons["zh"]), len(neurons["zh"] & neurons["ja"])      # specific | related; what both use
(71, 49)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Int64

from lensneurons.errors import LensNeuronsError, choose
from lensneurons.neurons.lambda_search import AUTHORS_UPPER_END, Origin
from lensneurons.neurons.sets import MaskFormat, NeuronSet, flat_index, neuron_name
from lensneurons.options import plain_options
from lensneurons.shapes import (
    FlatNeurons,
    LanguageMatrix,
    LayerProfile,
    Memberships,
    NeuronMask,
    NeuronNumbers,
    NeuronScores,
    Probabilities,
)
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import ROUTED, Provenance

if TYPE_CHECKING:
    import pandas as pd

Population = Literal["selected", "all"]
Overlap = Literal["jaccard", "dice", "containment"]
CLASSES = ("unclassified", "specific", "related", "agnostic")
LAYER_CLASSES = CLASSES[1:]
METHOD_NAMES = {
    "lape": "LAPE",
    "activation_entropy": "entropy of the mean square activation",
    "difference": "difference of means",
    "average_precision": "average precision",
    "paired_difference": "paired difference of means",
    "script_lape": "LAPE of neurons that keep their languages in other letters",
}


class ByLanguage(dict[str, NeuronSet]):
    """Language to its neurons; asked for an unknown language it says which ones there are."""

    def __missing__(self, language: str) -> NeuronSet:
        return self[choose(language, self, "language")]  # raises: it is not there


@dataclass(frozen=True, eq=False, repr=False)
class LanguageNeurons(Value):
    """Every neuron of a model, classified by the languages it is active in; immutable.

    Attributes:
        languages: codes, in the order of the last axis.
        probability: float64 [layer, neuron, language], activation probability.
        score: float64 [layer, neuron], low for language neurons.
        selected: bool [layer, neuron], the lowest scores.
        tau: the bar that a probability must exceed.
        tau_origin: ``"percentile 0.95"`` or ``"given"``.
        lambda_: weight of the largest probability; None where the score has none, such as LAPE.
        lambda_origin: ``"exact"`` (bounded by a language-agnostic neuron), ``"unbounded"`` (nothing
            bounds it: the largest up to 0.2 stands in), ``"given"``, or ``"none"``.
        score_name: the method of `identify`: ``"paper"``, ``"lape"`` or another.
        top_rate: share of neurons that was selected.
        population: which neurons the sets hold, ``"selected"`` or ``"all"``.
        provenance: where the statistics come from.
        lambda_floor: lambda rounded down at six digits after the point, where float32 code selects
            no language-agnostic neuron either (`lambda_search.floor_lambda`): the value to quote.
            None for a lambda that was given, for LAPE, where there is no such value nearby, and in
            files of an earlier lensneurons.
        n_experts: routed experts of a layer where these are neurons inside them, named such as
            ``"L2E5N10"``; None for all others.
        n_heads: heads of a layer where these are outputs of an attention projection, named such as
            ``"L2H1N5"``; None for all others.
    """

    FILE_KIND: ClassVar = "language neurons"
    AXES: ClassVar = {
        "probability": ("layer", "neuron", "language"),
        "score": ("layer", "neuron"),
        "selected": ("layer", "neuron"),
        "n_above": ("layer", "neuron"),
    }
    COORDINATES: ClassVar = {"language": "languages"}

    languages: tuple[str, ...]
    probability: Probabilities
    score: NeuronScores
    selected: NeuronMask
    tau: float
    tau_origin: str
    lambda_: float | None
    lambda_origin: Origin
    score_name: str
    top_rate: float
    population: Population = "selected"
    provenance: Provenance = field(default_factory=Provenance)
    lambda_floor: float | None = None
    n_experts: int | None = None
    n_heads: int | None = None

    def __post_init__(self) -> None:
        choose(self.population, ("selected", "all"), "population")
        super().__post_init__()

    @classmethod
    def load(cls, path: str | Path, *, memory_map: bool = False) -> LanguageNeurons:
        """Read what `save` wrote.

        Args:
            path: the file.
            memory_map: leave the probabilities in the file and read them as they are needed.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        return cls._read(path, memory_map=memory_map)

    def with_population(self, population: Population) -> LanguageNeurons:
        """The same result with its sets drawn from ``"selected"`` or ``"all"`` neurons."""
        return replace(self, population=population)

    def save(self, path: str | Path, *, format: MaskFormat = "lensneurons") -> Path:
        """Write one file, atomically, and return its path.

        Args:
            path: the file.
            format: ``"lensneurons"`` (safetensors, all of it), or ``"lape"``, the
                ``.pth`` mask of the published code: the neurons of each language, in the order of
                `languages` (for `read_published_mask`).
        """
        if choose(format, get_args(MaskFormat), "format") == "lensneurons":
            return super().save(path)
        from lensneurons.neurons.published import write_published_mask

        return write_published_mask(path, {language: self[language] for language in self.languages})

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return self.probability.shape[0]

    @property
    def d_mlp(self) -> int:
        """Neurons a layer."""
        return self.probability.shape[1]

    @cached_property
    def above(self) -> Memberships:
        """Bool [layer, neuron, language]: where p > tau."""
        return self.probability > self.tau

    @cached_property
    def n_above(self) -> NeuronNumbers:
        """int64 [layer, neuron]: N, the number of languages with p > tau."""
        return np.count_nonzero(self.above, axis=-1).astype(np.int64)

    @cached_property
    def class_codes(self) -> NeuronNumbers:
        """int64 [layer, neuron]: 0 unclassified, 1 specific, 2 related, 3 agnostic (`CLASSES`)."""
        codes = np.full(len(self.languages) + 1, 2, np.int64)
        codes[[0, 1, -1]] = 0, 1, 3
        return codes[self.n_above]

    @cached_property
    def counted(self) -> NeuronMask:
        """Bool [layer, neuron]: the neurons of the population."""
        return self.selected if self.population == "selected" else np.ones_like(self.selected)

    @cached_property
    def specific(self) -> ByLanguage:
        """Language to the neurons of the population that exceed tau in this language alone."""
        return self._by_language("specific", self.n_above == 1)

    @cached_property
    def related(self) -> ByLanguage:
        """Language to the neurons of the population that exceed tau in it and others, not all."""
        between = (self.n_above > 1) & (self.n_above < len(self.languages))
        return self._by_language("related", between)

    @cached_property
    def agnostic(self) -> NeuronSet:
        """The neurons that exceed tau in every language, of the whole model.

        With the automatic lambda they lie outside the selection, so the population does not matter
        here; `layer_profile` and `histogram` count those of the population alone.
        """
        flat = np.flatnonzero(self.n_above == len(self.languages))
        return self._set(flat, "agnostic", self.probability.mean(axis=-1))

    def __getitem__(self, language: str) -> NeuronSet:
        """The neurons of a language: its specific and its related ones.

        Raises:
            LensNeuronsError: the language is not there; the message lists those that are.
        """
        choose(language, self.languages, "language")
        return (self.specific[language] | self.related[language]).relabel(language)

    @plain_options
    def top(self, language: str, n: int) -> NeuronSet:
        """The n neurons of a language with the lowest scores; equal ones by index.

        Raises:
            LensNeuronsError: the language is not there, or has fewer neurons.
        """
        own = self[language]
        if not 1 <= n <= len(own):
            raise LensNeuronsError(
                f"n={n}: {language} has {len(own)} neurons; give 1 to that many, or identify with a"
                " greater top_rate"
            )
        order = np.argsort(self.score.flat[own.flat], kind="stable")
        activity = self._activity[self.languages.index(language)]
        return self._set(own.flat[np.sort(order[:n])], f"top {language}", activity)

    def _by_language(self, label: str, mask: NeuronMask) -> ByLanguage:
        """The neurons of a mask and of the population that exceed tau, language by language."""
        chosen = np.flatnonzero(mask & self.counted)
        members = self.above.reshape(-1, len(self.languages))[chosen]
        return ByLanguage(
            (k, self._set(chosen[members[:, i]], f"{label} {k}", self._activity[i]))
            for i, k in enumerate(self.languages)
        )

    def _set(self, flat: FlatNeurons, label: str, activity: NeuronScores) -> NeuronSet:
        """Some of these neurons, or experts, which say so."""
        unit = None if self.provenance.unit == "neuron" else self.provenance.unit
        parts = {"n_experts": self.n_experts, "n_heads": self.n_heads}
        return NeuronSet(flat, self.n_layers, self.d_mlp, label, activity, unit=unit, **parts)

    @cached_property
    def _activity(self) -> tuple[NeuronScores, ...]:
        """What random sets match, float64 [layer, neuron] of each language: one view of it."""
        return tuple(self.probability[..., i] for i in range(len(self.languages)))

    def class_of(self, name: str) -> str:
        """Class of one neuron named such as ``"L12N3456"``: one of `CLASSES`."""
        return CLASSES[self.class_codes.flat[self.flat_index(name)]]

    def flat_index(self, name: str) -> int:
        """Flat index ``layer * d_mlp + neuron`` of one neuron.

        Raises:
            LensNeuronsError: it is no name of a neuron of this model.
        """
        return flat_index(name, self.n_layers, self.d_mlp, self.n_experts, self.n_heads)

    def name_of(self, layer: int, neuron: int) -> str:
        """Name of one neuron, such as ``"L12N3456"``."""
        flat = layer * self.d_mlp + neuron
        return neuron_name(flat, self.d_mlp, self.n_experts, self.n_heads)

    def languages_of(self, name: str) -> tuple[str, ...]:
        """The languages in which one neuron exceeds tau; the owner where there is one only."""
        layer, neuron = divmod(self.flat_index(name), self.d_mlp)
        return tuple(np.array(self.languages)[self.above[layer, neuron]].tolist())

    def histogram(self, population: Population | None = None) -> Int64[np.ndarray, " n_above"]:
        """int64 [K + 1]: how many neurons of a population have N = 0, 1, ..., K."""
        counted = self.with_population(population or self.population).counted
        return np.bincount(self.n_above[counted], minlength=len(self.languages) + 1)

    def layer_profile(self, population: Population | None = None) -> LayerProfile:
        """int64 [layer, 3]: specific, related and agnostic neurons of a population by layer."""
        counted = self.with_population(population or self.population).counted
        columns = [np.sum((self.class_codes == code) & counted, axis=1) for code in (1, 2, 3)]
        return np.stack(columns, axis=1).astype(np.int64)

    def overlap(self, measure: Overlap = "jaccard") -> pd.DataFrame:
        """Overlap of the neurons of each pair of languages, as a K x K table.

        Args:
            measure: ``"jaccard"``, ``"dice"``, or ``"containment"`` (share of the row's neurons
                that the column has).
        """
        import pandas as pd

        names = pd.Index(self.languages, dtype=object)
        return pd.DataFrame(self.overlap_matrix(measure), index=names, columns=names)

    def overlap_matrix(self, measure: Overlap = "jaccard") -> LanguageMatrix:
        """`overlap` as float64 [row language, column language]; NaN where both sets are empty."""
        choose(measure, ("jaccard", "dice", "containment"), "measure")
        shared = self.shared
        rows, columns = np.meshgrid(shared.diagonal(), shared.diagonal(), indexing="ij")
        part, whole = {
            "jaccard": (shared, rows + columns - shared),
            "dice": (2 * shared, rows + columns),
            "containment": (shared, rows),
        }[measure]
        return np.divide(part, whole, out=np.full(shared.shape, np.nan), where=whole > 0)

    def language_order(self, measure: Overlap = "jaccard") -> tuple[str, ...]:
        """The languages in an order that puts those that share neurons side by side.

        Average-linkage clustering on ``1 - overlap`` (the mean of both directions), with an
        optimal ordering of the leaves.
        """
        from scipy.cluster.hierarchy import leaves_list, linkage
        from scipy.spatial.distance import squareform

        values = self.overlap_matrix(measure)
        distance = 1.0 - np.nan_to_num((values + values.T) / 2)
        np.fill_diagonal(distance, 0.0)
        tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
        return tuple(self.languages[place] for place in leaves_list(tree))

    @cached_property
    def shared(self) -> Int64[np.ndarray, "language language"]:
        """int64 [language, language]: neurons of the population that two languages share.

        The diagonal holds each language's own. One product of matrices: a pair of sets at a time
        takes minutes where sets hold 200,000 neurons.
        """
        between = self.counted & (self.n_above > 0) & (self.n_above < len(self.languages))
        total = np.zeros((len(self.languages), len(self.languages)))
        for own, chosen in zip(self.above, between, strict=True):  # a layer at a time
            members = own[chosen].astype(np.float64)
            total += members.T @ members
        return total.astype(np.int64)

    def per_language(self) -> pd.DataFrame:
        """One row a language: specific, related and all neurons of the population."""
        import pandas as pd

        names = pd.Index(self.languages, name="language", dtype=object)
        rows = [(len(self.specific[k]), len(self.related[k]), len(self[k])) for k in names]
        return pd.DataFrame(rows, index=names, columns=["specific", "related", "neurons"])

    def to_pandas(self) -> pd.DataFrame:
        """One row a classified neuron of the population, best score first.

        Columns: name, layer, neuron, class, languages (those above tau), n_above, score, p_max and
        one probability a language (``p_zh``).
        """
        import pandas as pd

        chosen = np.flatnonzero(self.counted & (self.n_above > 0))
        chosen = chosen[np.argsort(self.score.flat[chosen], kind="stable")]
        layers, neurons = np.divmod(chosen, self.d_mlp)
        p = self.probability.reshape(-1, len(self.languages))[chosen]
        codes = self.class_codes.flat[chosen]
        return pd.DataFrame(
            {
                "name": [
                    neuron_name(flat, self.d_mlp, self.n_experts, self.n_heads)
                    for flat in chosen.tolist()
                ],
                "layer": layers,
                "neuron": neurons,
                "class": np.array(CLASSES)[codes],
                "languages": [" ".join(np.array(self.languages)[row]) for row in (p > self.tau)],
                "n_above": self.n_above.flat[chosen],
                "score": self.score.flat[chosen],
                "p_max": p.max(axis=1, initial=0.0),
                **{f"p_{k}": p[:, i] for i, k in enumerate(self.languages)},
            }
        )

    @property
    def description(self) -> str:
        """Population, tau and lambda in one line, for the subtitle of every figure."""
        weight = METHOD_NAMES.get(self.score_name, self.score_name)
        weight = weight if self.lambda_ is None else f"lambda {self.lambda_:.6g}"
        if self.lambda_floor is not None:
            weight = f"lambda {self.lambda_floor:.6f}, exactly {self.lambda_:.10g}"
        if self.lambda_origin == "unbounded":
            weight += f" (nothing bounds it; searched up to {AUTHORS_UPPER_END} as published)"
        units = f"{self.provenance.unit}s"
        which = f"{int(self.selected.sum()):,} selected {units} ({self.top_rate:.2%}, {weight})"
        which = which if self.population == "selected" else f"all {self.selected.size:,} {units}"
        if self.provenance.scope.endswith(ROUTED):
            which += ", p among the tokens sent to their expert"
        return f"{which}; tau {self.tau:.4f} ({self.tau_origin})"

    def _brief(self) -> str:
        counts = ", ".join(f"{k} {len(s)}+{len(self.related[k])}" for k, s in self.specific.items())
        return f"{self.description}; specific+related: {counts}"

    def _overview(self) -> Overview:
        rows = [(k, len(s), len(self.related[k])) for k, s in self.specific.items()]
        title = f"LanguageNeurons: {self.description}"
        return Overview(title, ("language", "specific", "related"), rows)
