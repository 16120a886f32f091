"""The searchable table of language neurons, and their cards.

A row is ``[name, class, languages, score, p_max, N, selected, p]``; languages are places in the
list of languages, and p is a text of two digits of base 36 a language, in thousandths. A large
model has more neurons than a report can hold. Those with the lowest scores are kept and the others
are counted. Neurons with a card are always there, even those that the score leaves out, whose score
is null. The browser adds the probabilities to each card.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from lensneurons.cards.card import METHODS, NeuronCard
from lensneurons.neurons.language_neurons import CLASSES, LanguageNeurons
from lensneurons.neurons.sets import neuron_name
from lensneurons.plots.labels import full_name, plain
from lensneurons.plots.numbers import listing, signed, with_ends
from lensneurons.plots.style import language_colour
from lensneurons.reports.contents import ReportValues, Table, visible
from lensneurons.tokens.characters import bytes_note, bytes_told, excerpt_html

MOST_NEURONS = 3000  # about 80 bytes each with ten languages
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_THOUSANDTHS = np.array([_DIGITS[n // 36] + _DIGITS[n % 36] for n in range(1001)])


def table_data(values: ReportValues) -> dict[str, Any]:
    """All that the table and the small cards need, as JSON values."""
    neurons = values.neurons
    shown = _listed(neurons)[:MOST_NEURONS]
    carded = np.array([neurons.flat_index(card.facts.name) for card in values.cards], np.int64)
    return {
        "languages": [
            {"code": plain(code), "name": full_name(code), "colour": language_colour(code)}
            for code in neurons.languages
        ],
        "tau": neurons.tau,
        "rows": _rows(neurons, np.concatenate([shown, carded[~np.isin(carded, shown)]])),
        "words": {card.facts.name: _words(card) for card in values.cards},
        "scored": neurons.score_name,
        "unit": neurons.provenance.unit,
    }


def told_table(neurons: LanguageNeurons) -> str:
    """Which neurons the table lists, and which it leaves out."""
    listed = _listed(neurons)
    which = "selected neurons" if neurons.population == "selected" else "neurons of the model"
    told = f"{len(listed):,} {which} that are active above tau in some language"
    if len(listed) <= MOST_NEURONS:
        return f"All {told}, best score first."
    last = neurons.score.flat[listed[MOST_NEURONS - 1]]
    return (
        f"Of the {told}, the {MOST_NEURONS:,} with the lowest scores (up to {last:.4f}); the other "
        f"{len(listed) - MOST_NEURONS:,} are left out here: neurons.to_pandas() has all of them."
    )


def _listed(neurons: LanguageNeurons) -> np.ndarray:
    """Flat places of the classified neurons of the population, best score first."""
    chosen = np.flatnonzero(neurons.counted & (neurons.n_above > 0))
    return chosen[np.argsort(neurons.score.flat[chosen], kind="stable")]


def _rows(neurons: LanguageNeurons, places: np.ndarray) -> list[list[Any]]:
    k = len(neurons.languages)
    columns = zip(
        places.tolist(),
        neurons.class_codes.flat[places].tolist(),
        neurons.score.flat[places].tolist(),
        neurons.selected.flat[places].tolist(),
        neurons.above.reshape(-1, k)[places],
        np.round(neurons.probability.reshape(-1, k)[places], 3),
        strict=True,
    )
    return [
        [
            neuron_name(place, neurons.d_mlp, neurons.n_experts),
            CLASSES[code],
            np.flatnonzero(own).tolist(),
            round(score, 5) if math.isfinite(score) else None,
            float(shares.max()),
            int(own.sum()),
            int(selected),
            "".join(_THOUSANDTHS[np.rint(1000 * shares).astype(np.int64)]),
        ]
        for place, code, score, selected, own, shares in columns
    ]


def _words(card: NeuronCard) -> list[str]:
    """What a card can be found by: the tokens that it names."""
    effect = card.vocabulary
    tokens = [token.text for token in (*effect.promoted, *effect.heard)]
    tokens += [context.token for context in card.contexts]
    return sorted({plain(token.strip()).lower() for token in tokens if token.strip()})


def report_card(card: NeuronCard) -> dict[str, Any]:
    """A card for the template: lists of tokens, contexts by language, what was measured."""
    effect = card.vocabulary
    tokens = [
        (
            name,
            [(plain(visible(t.text)), t.deviation, bytes_told(t.text.strip())) for t in found],
        )
        for name, found in effect.lists
    ]
    # All languages stand first if the neuron is above tau in none.
    own = [k for k in card.languages if k in card.facts.languages or not card.facts.languages]
    others = [k for k in card.languages if k not in own]
    names = [full_name(code) for code in card.facts.languages]
    return {
        "name": card.facts.name,
        "told": f"{card.facts.class_name.capitalize()}: {listing(names)}" if names else "",
        "tokens": tokens,
        "bytes_note": bytes_note(
            token.text.strip() for _, found in effect.lists for token in found
        ),
        "contexts": [list(_groups(card, languages)) for languages in (own, others)],
        "measured": _measured(card),
        "chance": effect.chance,
        "source": card.source,
        "page": card.page,
    }


def _groups(card: NeuronCard, languages: Sequence[str]) -> Iterator[tuple[str, str, list]]:
    """Language, its name, and its excerpts as HTML with their activations."""
    for language in languages:
        texts = []
        for context in card.contexts:
            if context.language == language:
                parts = (visible(part) for part in (context.before, context.token, context.after))
                excerpt = Markup(excerpt_html(*parts, language=plain(language)))
                texts.append((context.activation, excerpt))
        if texts:
            yield plain(language), full_name(language), texts


def _measured(card: NeuronCard) -> Table | None:
    """One row a language: value and rank of each importance, the effect of ablating it that
    importance predicts, and the measured one.
    """
    head = [f"{METHODS[method]} (rank)" for method in card.importance]
    head += ["NLL without it, predicted"] if card.predicted is not None else []
    head += ["NLL without it"] if card.effect is not None else []
    if not head:
        return None
    rows = []
    for language in card.languages:
        found = [weights.get(language) for weights in card.importance.values()]
        cells = [f"{one.value:.2g} ({one.rank:,})" if one else "–" for one in found]
        if card.predicted is not None:
            cells.append(signed(card.predicted[language]) if language in card.predicted else "–")
        if card.effect is not None:
            change = card.effect.get(language)
            ends = (card.effect_interval or {}).get(language, (math.nan, math.nan))
            cells.append("–" if change is None else with_ends(change, *ends, signed))
        rows.append((full_name(language), *cells))
    caption = f"Ranks among {card.n_neurons:,} neurons. " if card.importance else ""
    caption += card.worth if card.predicted is not None else ""
    return Table(("language", *head), tuple(rows), caption.strip())
