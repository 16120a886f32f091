"""Published ways to score neurons beside the paper's and LAPE, for `identify(method=...)`.

Each gives a number a neuron, low for a language's; `identify` selects the lowest, and classes
follow from the activation probabilities and the bar tau as always. As in LAPE a neuron with N = 0
is left out: it belongs to no language whatever its score.

    "activation_entropy"  H(e') / ln K of the mean square activation e_k = mean of a^2 in language
        k, e' = e / sum_k e: LAPE's entropy (arXiv 2402.16438) of how strongly a neuron is active in
        place of how often. Our reading of "entropy of importance": the mean square, because a mean
        may be negative and statistics hold no mean of |a|.

    "difference"          - max_k d_k, d_k = (mean_k - mean of the other languages' means) / s, with
        s^2 the mean over the languages of the variance over tokens: a standardised difference of
        means. No p is given, for tokens of a text are not independent.

    "average_precision"   - max_k AP_k of the texts (Kojima et al. 2024, arXiv 2404.02431), by
        `rank_neurons`. The source takes the first *and* the last of each language; here the first,
        for the last are above no bar there (`NeuronRanking.bottom` has them). How many to take it
        leaves to the reader: 1,000 of each end, say.

    "paired_difference"   - max_k of Cohen's d_z over items, by `rank_neurons`, whose `significant`
        controls false discoveries.

    "script_lape"         LAPE among the neurons that keep each of their languages (p > tau) where
        the same texts are romanised. Which neurons are left out is our rule; at one tau for
        both texts, so a neuron that fires less on any romanised text is left out as well.

>>> identify(statistics, method="average_precision", items=items)       # doctest: +SKIP

What this does not show: which method is right. `compare_methods` removes what they find.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lensneurons.activations.items import ItemActivations
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import IdentificationError
from lensneurons.neurons.rankings import rank_neurons
from lensneurons.neurons.scores import language_rows, normalised_entropy
from lensneurons.shapes import NeuronMask, NeuronScores
from lensneurons.values.provenance import UNKNOWN, Provenance, require_same

Method = Literal[
    "paper", "lape", "activation_entropy", "difference", "average_precision", "paired_difference",
    "script_lape",
]  # fmt: skip
# What each method reads beside the statistics.
READS = {"average_precision": "items", "paired_difference": "items"}
READS |= {"script_lape": "romanised"}
GIVES = {
    "items": "what item_activations(model, corpus) gives",
    "romanised": "what collect(model, corpora.romanise(corpus)) gives",
}


def activation_entropy(statistics: ActivationStatistics) -> NeuronScores:
    """float64 [layer, neuron]: entropy over the languages of the mean square activation.

    Raises:
        IdentificationError: only counts are known.
    """
    _require_moments(statistics, "activation_entropy")
    mean_square = statistics.standard_deviation**2 + statistics.mean**2
    return normalised_entropy(language_rows(mean_square, statistics.languages))


def token_difference(statistics: ActivationStatistics) -> NeuronScores:
    """float64 [layer, neuron]: minus the largest standardised difference of means, over tokens.

    Infinite for a neuron whose activation is the same on all tokens.

    Raises:
        IdentificationError: only counts are known.
    """
    _require_moments(statistics, "difference")
    means = language_rows(statistics.mean, statistics.languages)
    variances = language_rows(statistics.standard_deviation**2, statistics.languages)
    spread = np.sqrt(variances.mean(axis=0))
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    largest = (means - others).max(axis=0)
    return -np.divide(largest, spread, out=np.full(spread.shape, -np.inf), where=spread > 0)


def item_score(
    statistics: ActivationStatistics,
    items: ItemActivations,
    method: Literal["average_precision", "paired_difference"],
) -> NeuronScores:
    """float64 [layer, neuron]: minus the largest value of `rank_neurons` over the languages.

    Infinite for a neuron that all texts are alike to.

    Raises:
        IdentificationError: the activations are of other languages or of another model.
        ProvenanceError: they are of another model, with what differs.
    """
    require_same_model(statistics.provenance, items.provenance)
    given = sorted(items.languages), items.n_layers, items.d_mlp
    if given != (sorted(statistics.languages), statistics.n_layers, statistics.d_mlp):
        raise IdentificationError(
            f"items= holds {items.n_layers} layers x {items.d_mlp} neurons in"
            f" {list(items.languages)}, the statistics {statistics.n_layers} x"
            f" {statistics.d_mlp} in {list(statistics.languages)}: give those of one model and the"
            " same languages"
        )
    which = "difference" if method == "paired_difference" else "average_precision"
    value = rank_neurons(items, method=which).value
    return -np.where(np.isnan(value), -np.inf, value).max(axis=-1)


def keeps_languages(
    statistics: ActivationStatistics, romanised: ActivationStatistics, tau: float
) -> NeuronMask:
    """Bool [layer, neuron]: above tau in the romanised texts of each language it is of.

    Raises:
        IdentificationError: the second statistics lack a language, or are of another model.
        ProvenanceError: they are of another model, with what differs.
    """
    require_same_model(statistics.provenance, romanised.provenance)
    shape = romanised.n_layers, romanised.d_mlp
    lacking = sorted(set(statistics.languages) - set(romanised.languages))
    if lacking or shape != (statistics.n_layers, statistics.d_mlp):
        raise IdentificationError(
            f"romanised= holds {shape[0]} layers x {shape[1]} neurons and lacks {lacking}:"
            " collect all languages of the statistics with the same model; one in Latin letters"
            " stands for itself"
        )
    again = romanised.select(statistics.languages).probability > tau
    return np.all(again | (statistics.probability <= tau), axis=-1)


def require_same_model(ours: Provenance, theirs: Provenance) -> None:
    """Raise where two known models differ; texts, tokens counted and attention may.

    Raises:
        ProvenanceError: names what differs.
    """
    if UNKNOWN in (ours.weights, theirs.weights):
        return
    texts = ("corpora", "scope", "template", "attention", "dtype")
    require_same(ours, theirs, ignoring=texts)


def _require_moments(statistics: ActivationStatistics, method: str) -> None:
    if statistics.sums is None or statistics.squares is None:
        raise IdentificationError(
            f"method={method!r} needs sums and squares of the activation, which these statistics"
            " lack (published counts never have them): collect() gives them, or take method='lape'"
        )
