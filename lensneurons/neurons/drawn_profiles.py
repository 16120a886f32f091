"""The layer profile of corpora whose groups are drawn again, a block of neurons at a time.

A draw weighs group g by how often it was drawn; a neuron's count is the weighted sum over the
groups, and its class follows at the bar of the neurons that were identified:

    N[d, l, j] = number of languages k with  sum_g w[d, g] counts[g, l, j, k] / tokens[d, k]  >  tau

All draws are made for one block of neurons before the next is read. So counts of any size are read
once, from the file that they may lie in, and nothing of the size of a model is held for a draw. The
sums are products of matrices in float64, which is exact for counts below 2**53.

What this does not show: how tau would move with other texts; it stays.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.shapes import GroupWeights
from lensneurons.values.mapping import let_go

_BLOCK = 2**20  # numbers that are held for the draws of a block of neurons: 8 MB


def drawn_profiles(
    statistics: ActivationStatistics, tau: float, weights: Iterable[GroupWeights]
) -> Int64[np.ndarray, "draw layer kind"]:
    """Specific, related and agnostic neurons of every layer in every draw, over all neurons.

    Args:
        statistics: counts in groups.
        tau: the bar, the same in every draw.
        weights: int64 [group] of each draw, how often each group was drawn; every language has
            tokens in it.
    """
    drawn = np.array([*weights], np.float64)  # [draw, group]
    languages, d_mlp = len(statistics.languages), statistics.d_mlp
    width = d_mlp // (statistics.n_experts or 1)
    step = max(1, _BLOCK // (len(drawn) * languages))
    found = np.zeros((len(drawn), statistics.n_layers, 3), np.int64)
    tokens = (drawn @ statistics.grouped_tokens)[:, None]  # [draw, 1, language]
    for layer in range(statistics.n_layers):
        for first in range(0, d_mlp, step):
            own = statistics.grouped_counts[:, layer, first : first + step]
            if (routed := statistics.grouped_routed) is not None:
                experts = np.arange(first, first + own.shape[1]) // width
                tokens = np.tensordot(drawn, routed[:, layer, experts].astype(float), axes=1)
            p = np.tensordot(drawn, own.astype(float), axes=1)
            p /= np.maximum(tokens, 1)
            above = np.count_nonzero(p > tau, axis=-1)  # [draw, neuron]
            classes = (above == 1, (above > 1) & (above < languages), above == languages)
            for place, members in enumerate(classes):
                found[:, layer, place] += np.count_nonzero(members, axis=1)
        let_go(statistics.grouped_counts, statistics.grouped_routed)
    return found
