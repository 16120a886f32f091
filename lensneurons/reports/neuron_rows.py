"""The table of language neurons: what the browser searches, sorts and opens.

A row is ``[name, class, languages, score, p_max, N, selected, [p, ...]]``; languages are places in
the list of languages. A large model has more neurons than a page can hold: those with the lowest
scores are kept, the others are counted, and neurons with a card are always there: also those that
the score leaves out, whose score is null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lensneurons.cards.card import NeuronCard
from lensneurons.neurons.language_neurons import CLASSES, LanguageNeurons
from lensneurons.neurons.sets import flat_index
from lensneurons.plots.labels import full_name, plain
from lensneurons.plots.style import language_colour
from lensneurons.reports.findings import Findings

MOST_NEURONS = 3000  # about 110 bytes each with ten languages


def table_data(findings: Findings) -> dict[str, Any]:
    """All that the table and the small cards need, as JSON values."""
    neurons, cards = findings.neurons, findings.cards
    listed = _listed(neurons)
    shown = listed[:MOST_NEURONS]
    carded = _places(neurons, [card.facts.name for card in cards])
    shown = np.concatenate([shown, carded[~np.isin(carded, shown)]])
    return {
        "languages": [_language(code) for code in neurons.languages],
        "tau": neurons.tau,
        "rows": _rows(neurons, shown),
        "words": {card.facts.name: _words(card) for card in cards},
        "scored": neurons.score_name,
    }


def told_table(findings: Findings) -> str:
    """Which neurons the table lists, and which it leaves out."""
    neurons = findings.neurons
    listed = _listed(neurons)
    which = "selected neurons" if neurons.population == "selected" else "neurons of the model"
    told = f"All {len(listed):,} {which} that are active above tau in some language"
    if len(listed) <= MOST_NEURONS:
        return f"{told}, best score first."
    last = neurons.score.flat[listed[MOST_NEURONS - 1]]
    return (
        f"Of the {len(listed):,} {which} that are active above tau in some language, the "
        f"{MOST_NEURONS:,} with the lowest scores (up to {last:.4f}); the other "
        f"{len(listed) - MOST_NEURONS:,} are left out here: neurons.to_pandas() has all of them."
    )


def _listed(neurons: LanguageNeurons) -> np.ndarray:
    """Flat places of the classified neurons of the population, best score first."""
    chosen = np.flatnonzero(neurons.counted & (neurons.n_above > 0))
    return chosen[np.argsort(neurons.score.flat[chosen], kind="stable")]


def _places(neurons: LanguageNeurons, names: Sequence[str]) -> np.ndarray:
    return np.array([flat_index(n, neurons.n_layers, neurons.d_mlp) for n in names], np.int64)


def _rows(neurons: LanguageNeurons, places: np.ndarray) -> list[list[Any]]:
    k = len(neurons.languages)
    p = neurons.probability.reshape(-1, k)[places]
    above = neurons.above.reshape(-1, k)[places]
    columns = zip(
        places.tolist(),
        neurons.class_codes.flat[places].tolist(),
        neurons.score.flat[places].tolist(),
        neurons.selected.flat[places].tolist(),
        above,
        np.round(p, 3),
        strict=True,
    )
    return [
        [
            f"L{place // neurons.d_mlp}N{place % neurons.d_mlp}",
            CLASSES[code],
            np.flatnonzero(own).tolist(),
            round(score, 5) if math.isfinite(score) else None,
            float(shares.max()),
            int(own.sum()),
            int(selected),
            shares.tolist(),
        ]
        for place, code, score, selected, own, shares in columns
    ]


def _language(code: str) -> dict[str, str]:
    return {"code": plain(code), "name": full_name(code), "colour": language_colour(code)}


def _words(card: NeuronCard) -> list[str]:
    """What a card can be found by: the tokens that it names."""
    effect = card.vocabulary
    tokens = [token.text for token in (*effect.promoted, *effect.heard)]
    tokens += [context.token for context in card.contexts]
    return sorted({plain(token.strip()).lower() for token in tokens if token.strip()})
