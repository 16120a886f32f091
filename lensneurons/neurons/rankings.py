"""Other published ways to rank the neurons of a language, from activations of single texts.

The paper's score and LAPE (`identify`) ask how often a neuron is active. These ask how well the
mean activation of a text (`lensneurons.activations.items`) tells the language of the text, for each
language on its own:

    "average_precision"   the neuron as a classifier: texts of the language are to stand before all
        others when texts are sorted by its activation. Average precision is the mean, over the
        language's texts, of the share of its texts among those that stand no later. 1: all of them
        come first; by chance 1 / K of K languages. (Kojima et al. 2024, arXiv 2404.02431, who take
        the neurons with the largest *and* the smallest values, `top` and `bottom`. Their texts are
        sentences, and their activations those of more sites than the MLP's.)

    "difference"          of every item, the activation in the language less the mean of the others;
        the value is the mean of these differences over their standard deviation (Cohen's d_z), and
        p that of a paired t-test, two-sided.

Memory does not grow with items that lie in a file (``item_activations(file=...)``): neurons are
read in blocks.

>>> items = item_activations(model, corpus)                              # doctest: +SKIP
>>> ranking = rank_neurons(items, method="average_precision")            # doctest: +SKIP
>>> ln.ablate(model, ranking.top("zh", 100))                             # doctest: +SKIP

What this does not show: that a neuron matters. One that tells a language perfectly may be one of
many that do; `compare_methods` removes them. Texts of one corpus also differ in length, and a
neuron of the alphabet tells a language as well as one of its grammar.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float64

from lensneurons.activations.items import ItemActivations
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.neurons.sets import NeuronSet, neuron_name
from lensneurons.options import plain_options
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

Ranking = Literal["average_precision", "difference"]
ByLanguage = Float64[np.ndarray, "layer neuron language"]


@dataclass(frozen=True, eq=False, repr=False)
class NeuronRanking(Value):
    """How well every neuron tells the texts of every language. Made by `rank_neurons`.

    Attributes:
        languages: codes, in the order of the last axis.
        n_items: parallel items.
        method: ``"average_precision"`` or ``"difference"``.
        value: float64 [layer, neuron, language], high where a neuron is more active in the language
            than in others; NaN where all texts are alike to it.
        p: the same of the paired t-test; None for average precision.
        provenance: where the activations come from.
    """

    FILE_KIND: ClassVar = "ranking of neurons"
    AXES: ClassVar = {"value": ("layer", "neuron", "language")}
    COORDINATES: ClassVar = {"language": "languages"}

    languages: tuple[str, ...]
    n_items: int
    method: Ranking
    value: ByLanguage
    p: ByLanguage | None = None
    provenance: Provenance = field(default_factory=Provenance)

    @plain_options
    def top(self, language: str, n: int) -> NeuronSet:
        """The n neurons with the largest values in a language; equal ones by index.

        Raises:
            LensNeuronsError: the language is not there, or not so many neurons have a value.
        """
        return self._best(language, n, -1, "top")

    @plain_options
    def bottom(self, language: str, n: int) -> NeuronSet:
        """The n neurons with the smallest values: less active in the language than in others.

        Raises:
            LensNeuronsError: the language is not there, or not so many neurons have a value.
        """
        return self._best(language, n, 1, "bottom")

    def _best(self, language: str, n: int, sign: int, told: str) -> NeuronSet:
        choose(language, self.languages, "language")
        value = sign * self.value[..., self.languages.index(language)].ravel()
        known = int(np.sum(~np.isnan(value)))
        if not 1 <= n <= known:
            raise LensNeuronsError(f"n={n}: give 1 to {known}, the neurons that have a value")
        order = np.argsort(value, kind="stable")  # NaN comes last
        layers, width, _ = self.value.shape
        return NeuronSet(order[:n], layers, width, f"{self.method} {told} {language}")

    @plain_options
    def significant(self, language: str, *, rate: float = 0.05) -> NeuronSet:
        """The neurons more active in a language than in the others, at a false-discovery rate.

        Benjamini and Hochberg's over all neurons of the model, of the paired t-tests: among the
        neurons in the set about `rate` at most are no more active there on average.

        Raises:
            LensNeuronsError: the method has no p, the language is not there, or a rate outside
                (0, 1).
        """
        from scipy.stats import false_discovery_control

        choose(language, self.languages, "language")
        if self.p is None or not 0 < rate < 1:
            raise LensNeuronsError(
                f"method {self.method!r}, rate={rate}: a rate between 0 and 1 needs the p of"
                " method='difference'"
            )
        place = self.languages.index(language)
        p, value = self.p[..., place].ravel(), self.value[..., place].ravel()
        known = np.flatnonzero(~np.isnan(p))
        found = known[(false_discovery_control(p[known]) <= rate) & (value[known] > 0)]
        layers, width, _ = self.value.shape
        return NeuronSet(found, layers, width, f"{self.method} {language}, rate {rate:g}")

    def to_pandas(self) -> pd.DataFrame:
        """One row a neuron and language: name, layer, neuron, language, value (and p)."""
        import pandas as pd

        layer, neuron, k = (axis.ravel() for axis in np.indices(self.value.shape))
        names = [f"L{i}N{j}" for i, j in zip(layer, neuron, strict=True)]
        table = {"name": names, "layer": layer, "neuron": neuron}
        table["language"] = np.array(self.languages, dtype=object)[k]
        numbers = {"value": self.value.ravel()} | ({} if self.p is None else {"p": self.p.ravel()})
        return pd.DataFrame({**table, **numbers})

    def _brief(self) -> str:
        layers, width, _ = self.value.shape
        told = f"{layers} layers x {width} neurons in {' '.join(self.languages)}"
        return f"{self.method}: {told}; {self.n_items} items"

    def _overview(self) -> Overview:
        rows, width = [], self.value.shape[1]
        for k, language in enumerate(self.languages):
            flat = self.value[..., k].ravel()
            best = np.argsort(-flat, kind="stable")[:5]
            told = (f"{neuron_name(int(i), width)} {flat[i]:.3g}" for i in best)
            rows.append((language, ", ".join(told)))
        return Overview(repr(self), ("language", "largest"), rows)


@plain_options
def rank_neurons(items: ItemActivations, *, method: Ranking = "average_precision") -> NeuronRanking:
    """Rank the neurons of every language by how well they tell its texts.

    Args:
        items: what `item_activations` gives, of two languages and two items or more.
        method: ``"average_precision"`` or ``"difference"``.

    Raises:
        LensNeuronsError: an unknown method, one language alone, or fewer than two items.
    """
    choose(method, get_args(Ranking), "method")
    if min(items.mean.shape[:2]) < 2:
        raise LensNeuronsError(
            f"{items.mean.shape[1]} items in {list(items.languages)}: texts are told apart in two"
            " languages and two items, or more"
        )
    rank = _average_precision if method == "average_precision" else _difference
    shape = items.n_layers, items.d_mlp, len(items.languages)
    value, p = np.empty(shape), np.empty(shape)
    for layer, block in items.blocks():
        found = rank(np.asarray(items.mean[:, :, layer, block]))
        value[layer, block], p[layer, block] = (one.T for one in found)
    known = None if method == "average_precision" else p
    return NeuronRanking(
        items.languages, len(items.item_ids), method, value, known, items.provenance
    )


def _average_precision(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision, float64 [language, neuron], of values [language, item, neuron]; and none.

    Texts of equal value stand at the last of their places, as scikit-learn has it.
    """
    n_languages, n_items, width = values.shape
    flat = values.reshape(-1, width)
    order = np.argsort(-flat, axis=0, kind="stable")
    ranked = np.take_along_axis(flat, order, axis=0)
    places = np.arange(len(flat))[:, None]
    last = np.vstack([ranked[:-1] != ranked[1:], np.ones((1, width), bool)])
    end = np.where(last, places, len(flat) - 1)
    end = np.minimum.accumulate(end[::-1], axis=0)[::-1]  # where the texts of this value end
    language = order // n_items
    found = np.empty((n_languages, width))
    for k in range(n_languages):
        own = language == k
        precision = np.take_along_axis(own.cumsum(axis=0), end, axis=0) / (end + 1)
        found[k] = (precision * own).sum(axis=0) / n_items
    found[:, ranked[0] == ranked[-1]] = np.nan
    return found, found


def _difference(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cohen's d_z and the p of the paired t-test, float64 [language, neuron]."""
    from scipy.special import stdtr

    values = values.astype(np.float64)
    n_languages, n_items, _ = values.shape
    others = (values.sum(axis=0) - values) / (n_languages - 1)
    each = values - others
    spread = each.std(axis=1, ddof=1)
    size = np.divide(each.mean(axis=1), spread, out=np.full(spread.shape, np.nan), where=spread > 0)
    return size, 2 * stdtr(n_items - 1, -np.abs(size) * np.sqrt(n_items))
