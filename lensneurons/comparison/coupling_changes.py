"""Does alignment couple languages more? The coupling of two models, over the same items.

Both models read the same n parallel items. With r the coupling of a neuron, or the mean of a class,
a layer or a pair of languages (`lensneurons.comparison.coupled_neurons`),

    change = r_after - r_before

by class and layer, and by pair of languages. A neuron that has no spread in one language of either
model is left out of both, so the change is one of the same neurons. Classes are those of the model
before, for both.

Languages that were trained are set against those that were not. Let c_k be the coupling of language
k with the pivot (or with all other languages, where there is no pivot among them), over all
neurons:

    trained    mean change of c_k over the trained languages
    untouched  mean change of c_k over the others, the pivot left out
    contrast   trained less untouched

The interval is a jackknife of the change over up to `GROUPS` groups of items, paired: the same
items are left out of both models. It has Student's t, and the estimate is freed of the bias of few
items. No shuffle of items stands beside it: what is asked is not whether languages are coupled, but
whether they are so by more, and where the two models are one the change is 0 exactly.

Simulated (tests/comparison/test_coupling_changes.py): intervals of 95 % hold the truth in 93 to
98 % of corpora of 20 and 40 items, for classes, pairs and the contrast.

>>> change = coupling_change(before, after, neurons, trained=("zh", "de"))  # doctest: +SKIP
>>> change.to_pandas(), change.languages_to_pandas()                        # doctest: +SKIP

What this does not show: why. A coupling rises where neurons follow the content more, and also where
they follow length or digits more; activations that grow alike in all languages leave it as it is,
since a correlation knows no scale. Two trained languages are two: the interval is one over texts,
for this training and these languages. Trained languages differ from untouched ones before the
training too (`c_before`); set a control adapter beside them (`alignment.random_adapter`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, get_args

import numpy as np
from jaxtyping import Float64

from lensneurons.activations.items import ItemActivations
from lensneurons.comparison.coupled_neurons import (
    FEWEST,
    GROUPS,
    ByLayer,
    CouplingSums,
    Measure,
    classes_among,
    mean_of_pairs,
    rows_by_layer,
    rows_by_pair,
    standardised,
)
from lensneurons.errors import LensNeuronsError, ProvenanceError, choose
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.options import plain_options
from lensneurons.shapes import LanguageMatrix, NeuronScores
from lensneurons.uncertainty.groups import Interval, jackknife_interval, require_level
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance, require_same

if TYPE_CHECKING:
    import pandas as pd

CHANGED = ("model", "revision", "weights", "config", "interventions")
PARTS = ("before", "after", "change", "low", "high")
CONTRASTS = ("trained", "untouched", "contrast")


@dataclass(frozen=True, eq=False, repr=False)
class CouplingChange(Value):
    """Coupling between languages before and after a training. Made by `coupling_change`.

    Attributes:
        languages: codes.
        n_items: parallel items.
        measure: ``"pearson"`` or ``"spearman"``.
        classes: ``"all"`` neurons, then the classes where neurons were given.
        trained: languages that were trained on; empty where it was not said.
        pivot: the language that the others' coupling is taken with; None for all others.
        neuron: float64 [layer, neuron], change of each neuron; NaN where one has no spread.
        before: float64 [class, layer + 1], mean coupling as it was; the last column is of all
            layers together. NaN where there are none.
        after: the same of the second model.
        change: after less before, without the bias of few items.
        low: lower end of its interval.
        high: upper end.
        pair_before: float64 [language, language], mean correlation over all neurons.
        pair_after: the same of the second model.
        pair_change: after less before; 0 on the diagonal.
        pair_low: lower end of its interval.
        pair_high: upper end.
        language: float64 [language, 3], change of each language's coupling with the pivot, or with
            all others, and its ends. NaN for the pivot.
        contrasts: float64 [3, 3], of `CONTRASTS`: the change and its ends; NaN without languages
            of both sorts.
        undefined: neurons left out.
        level: coverage of the intervals.
        provenances: of both models.
    """

    FILE_KIND: ClassVar = "change of coupling"
    AXES: ClassVar = {
        "neuron": ("layer", "neuron"),
        "pair_change": ("language_of_row", "other"),
        "language": ("language_of_row", "ends"),
    }
    COORDINATES: ClassVar = {"language_of_row": "languages", "other": "languages"}

    languages: tuple[str, ...]
    n_items: int
    measure: Measure
    classes: tuple[str, ...]
    trained: tuple[str, ...]
    pivot: str | None
    neuron: NeuronScores
    before: ByLayer
    after: ByLayer
    change: ByLayer
    low: ByLayer
    high: ByLayer
    pair_before: LanguageMatrix
    pair_after: LanguageMatrix
    pair_change: LanguageMatrix
    pair_low: LanguageMatrix
    pair_high: LanguageMatrix
    language: Float64[np.ndarray, "language ends"]
    contrasts: Float64[np.ndarray, "3 3"]
    undefined: int
    level: float
    provenances: tuple[Provenance, Provenance] = field(
        default_factory=lambda: (Provenance(), Provenance())
    )

    def to_pandas(self) -> pd.DataFrame:
        """One row a class and layer (NA: all): before, after, change, low, high."""
        return rows_by_layer(self.classes, {name: getattr(self, name) for name in PARTS})

    def pairs(self) -> pd.DataFrame:
        """One row a pair of languages: before, after, change, low, high, how many were trained."""
        table = rows_by_pair(
            self.languages, {name: getattr(self, f"pair_{name}") for name in PARTS}
        )
        one, two = (table[name].isin(self.trained).astype(int) for name in ("language", "other"))
        return table.assign(trained=one + two)

    def languages_to_pandas(self) -> pd.DataFrame:
        """One row a language but the pivot, then trained, untouched, contrast: change, ends."""
        import pandas as pd

        names = [*self.languages, *CONTRASTS]
        sort = ["trained" if k in self.trained else "untouched" for k in self.languages]
        table = pd.DataFrame({"of": names, "sort": [*sort, *3 * ["mean"]]})
        table[["change", "low", "high"]] = np.vstack([self.language, self.contrasts])
        return table.loc[table.of != self.pivot].reset_index(drop=True)

    def _brief(self) -> str:
        told = ", ".join(
            f"{name} {one:+.4f} [{low:+.4f}, {high:+.4f}]"
            for name, one, low, high in zip(
                self.classes, self.change[:, -1], self.low[:, -1], self.high[:, -1], strict=True
            )
        )
        return f"{self.measure}, {self.n_items} items, {len(self.languages)} languages: {told}"

    def _overview(self) -> Overview:
        cells = np.stack([self.change, self.low, self.high], -1).swapaxes(0, 1)
        rows = [
            (layer, *(f"{r:+.4f} [{low:+.4f}, {high:+.4f}]" for r, low, high in row))
            for layer, row in zip([*range(len(cells) - 1), "all layers"], cells, strict=True)
        ]
        for name, (value, low, high) in zip(CONTRASTS, self.contrasts, strict=True):
            if self.trained:
                told = f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"
                rows.append((name, told, *[""] * (len(self.classes) - 1)))
        title = f"Change of coupling ({self.measure}) of {' '.join(self.languages)}"
        return Overview(f"{title} over {self.n_items} items", ("layer", *self.classes), rows)


@plain_options
def coupling_change(
    before: ItemActivations,
    after: ItemActivations,
    neurons: LanguageNeurons | None = None,
    *,
    trained: Sequence[str] = (),
    pivot: str | None = "en",
    measure: Measure = "pearson",
    level: float = 0.95,
) -> CouplingChange:
    """Compare the coupling of neurons between languages before and after a training.

    Args:
        before: what `item_activations` gives, of two languages and `FEWEST` items or more.
        after: the same items by the other model.
        neurons: classes of the neurons of the model before, for a mean of each class.
        trained: languages that were trained on; the pivot is none of them.
        pivot: the language whose coupling with the others is looked at; None, or ``"en"`` where
            English is missing, for the mean over all other languages.
        measure: ``"pearson"`` or ``"spearman"``.
        level: coverage of the intervals.

    Raises:
        ProvenanceError: the two read other texts, or in another way.
        LensNeuronsError: other items, languages or shapes; one language alone, too few items,
            an unknown language, or neurons of another model.
    """
    choose(measure, get_args(Measure), "measure")
    require_level(level)
    _require_same_items(before, after)
    names, n_items = before.languages, len(before.item_ids)
    if len(names) < 2 or n_items < FEWEST:
        raise LensNeuronsError(
            f"{n_items} items in {len(names)} languages: a coupling needs two languages and"
            f" {FEWEST} items or more"
        )
    pivot = None if pivot == "en" and pivot not in names else pivot
    if pivot is not None:
        choose(pivot, names, "pivot")
    for one in trained:
        choose(one, [k for k in names if k != pivot], "trained language")
    classes, codes = classes_among(before.mean.shape[2:], before.provenance, neurons)
    groups = np.arange(n_items) % min(GROUPS, n_items)
    left, size = int(groups.max()) + 1, (len(classes), before.n_layers, len(names))
    found, without = (
        [CouplingSums.zeros(corpora, *size) for _ in range(2)] for corpora in (1, left)
    )
    neuron = np.full((before.n_layers, before.d_mlp), np.nan)
    undefined = 0
    for layer in range(before.n_layers):
        given = [np.asarray(one.mean[:, :, layer], np.float32) for one in (before, after)]
        masks = [np.arange(n_items) >= 0, *(groups != group for group in range(left))]
        for corpus, mask in enumerate(masks):
            both = [standardised(one[:, mask], measure) for one in given]
            flat = np.isnan(both[0][0, 0]) | np.isnan(both[1][0, 0])
            coupled = [np.where(flat, np.nan, mean_of_pairs(one)) for one in both]
            sums, place = (found, 0) if corpus == 0 else (without, corpus - 1)
            for run in range(2):
                sums[run].add(place, layer, both[run], coupled[run], codes[layer])
            if corpus == 0:
                neuron[layer] = coupled[1] - coupled[0]
                undefined += int(flat.sum())
    (first, pair_first), (second, pair_second) = (tuple(one.means()) for one in found)
    less, pair_less = _differences(without)
    change = _corrected((second - first)[0], less, level)
    pairs = _corrected((pair_second - pair_first)[0], pair_less, level)
    language, contrasts = _by_language(
        (pair_second - pair_first)[0], pair_less, names, tuple(trained), pivot, level
    )
    return CouplingChange(
        names,
        n_items,
        measure,
        classes,
        tuple(trained),
        pivot,
        neuron,
        first[0],
        second[0],
        change.estimate,
        change.low,
        change.high,
        pair_first[0],
        pair_second[0],
        pairs.estimate,
        pairs.low,
        pairs.high,
        language,
        contrasts,
        undefined,
        level,
        (before.provenance, after.provenance),
    )


def _require_same_items(before: ItemActivations, after: ItemActivations) -> None:
    """Raise unless two models read the same items in the same way.

    Raises:
        ProvenanceError: other texts, or another scope, tokenizer or hook.
        LensNeuronsError: other languages, items or shapes.
    """
    require_same(before.provenance, after.provenance, ignoring=CHANGED)
    for name in ("languages", "item_ids", "n_layers", "d_mlp"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if ours != theirs:
            shown = f": {ours} and {theirs}" if name != "item_ids" else ""
            raise ProvenanceError(
                f"the two differ in {name}{shown}; read the same corpus with both models"
            )


def _differences(sums: list[CouplingSums]) -> tuple[np.ndarray, np.ndarray]:
    """After less before, by class and layer, and by pair, of several corpora."""
    (one, pair_one), (two, pair_two) = (tuple(run.means()) for run in sums)
    return two - one, pair_two - pair_one


def _corrected(found: np.ndarray, without: np.ndarray, level: float) -> Interval:
    """Jackknife of numbers from those without each group [group, ...], freed of their bias."""
    n = len(without)
    estimate = n * found - (n - 1) * without.mean(axis=0)
    return jackknife_interval(estimate, without, level=level)


def _by_language(
    found: np.ndarray,
    without: np.ndarray,
    names: tuple[str, ...],
    trained: tuple[str, ...],
    pivot: str | None,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Changes of each language, and trained, untouched and contrast, each with its ends."""
    codes = np.array(names)
    if pivot is None:
        weights = (1 - np.eye(len(names))) / (len(names) - 1)
    else:
        weights = np.tile(codes == pivot, (len(names), 1)).astype(float)
    of_language = np.einsum("...ij,ij->...i", found, weights)
    less = np.einsum("...ij,ij->...i", without, weights)
    sorts = [
        np.isin(codes, trained) & (codes != pivot),
        ~np.isin(codes, trained) & (codes != pivot),
    ]
    both = all(one.any() for one in sorts)

    def told(values: np.ndarray) -> np.ndarray:
        one, two = (
            values[..., sort].mean(axis=-1) if both else np.nan * values[..., 0] for sort in sorts
        )
        return np.stack([one, two, one - two], axis=-1)

    language, contrasts = (
        _corrected(made(of_language), made(less), level) for made in (lambda x: x, told)
    )
    ends = [np.stack([one.estimate, one.low, one.high], axis=-1) for one in (language, contrasts)]
    ends[0][codes == pivot] = np.nan
    return ends[0], ends[1]
