"""The cards of neurons for the page: contexts, tokens, importance and effect of each.

The browser adds the probabilities, which it has for every neuron of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lensneurons.cards.card import NeuronCard
from lensneurons.cards.contexts import Context
from lensneurons.plots.labels import full_name, plain
from lensneurons.plots.notes import signed
from lensneurons.reports.contents import Table
from lensneurons.reports.visible import visible
from lensneurons.tokens.characters import excerpt_html

Group = tuple[str, str, tuple[tuple[float, Markup], ...]]
_METHODS = {"plnd": "length written", "activation_gradient": "activation x gradient"}


@dataclass(frozen=True)
class PageCard:
    """A card as the template needs it.

    Attributes:
        name: of the neuron.
        tokens: what a list of tokens is, the largest distance in it, and its tokens with theirs.
        contexts: language, its name, and its excerpts with their activations: of the languages
            above tau, then of the others.
        measured: importance and effect by language; None where neither was measured.
        chance: the distance that a random neuron's first token reaches, in standard deviations.
        source: corpus and scope of the contexts.
    """

    name: str
    tokens: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]
    contexts: tuple[tuple[Group, ...], tuple[Group, ...]]
    measured: Table | None
    chance: float
    source: str


def page_cards(cards: Sequence[NeuronCard]) -> list[PageCard]:
    """The cards, in the order given."""
    return [
        PageCard(
            name=card.facts.name,
            tokens=tuple(_tokens(card)),
            contexts=_contexts(card),
            measured=_measured(card),
            chance=card.vocabulary.chance,
            source=card.source,
        )
        for card in cards
    ]


def _tokens(card: NeuronCard) -> Iterator[tuple[str, tuple[tuple[str, float], ...]]]:
    effect = card.vocabulary
    lists = {"promotes": effect.promoted, "suppresses": effect.suppressed, "hears": effect.heard}
    for name, tokens in lists.items():
        if tokens:
            yield name, tuple((_token(t.text), t.deviation) for t in tokens)


def _contexts(card: NeuronCard) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    """Excerpts of the languages above tau and of the others; all are own where none is above."""
    own = [k for k in card.languages if k in card.facts.languages or not card.facts.languages]
    others = [k for k in card.languages if k not in own]
    return tuple(_groups(card, own)), tuple(_groups(card, others))


def _groups(card: NeuronCard, languages: Sequence[str]) -> Iterator[Group]:
    for language in languages:
        found = [context for context in card.contexts if context.language == language]
        texts = tuple((context.activation, _excerpt(context)) for context in found)
        if texts:
            yield plain(language), full_name(language), texts


def _excerpt(context: Context) -> Markup:
    """A context as HTML, with everything that a reader would not see made visible."""
    parts = (visible(part) for part in (context.before, context.token, context.after))
    return Markup(excerpt_html(*parts, language=plain(context.language)))


def _token(text: str) -> str:
    """A token: visible, and a mark alone on a ring to stand on."""
    return plain(visible(text))


def _measured(card: NeuronCard) -> Table | None:
    """One row a language: value and rank of each importance, and the effect of ablating it."""
    head = [f"{_METHODS[method]} (rank)" for method in card.importance]
    head += ["NLL without it"] if card.effect is not None else []
    if not head:
        return None
    rows = tuple((full_name(k), *_numbers(card, k)) for k in card.languages)
    caption = f"Ranks among {card.n_neurons:,} neurons" if card.importance else ""
    return Table(("language", *head), rows, caption)


def _numbers(card: NeuronCard, language: str) -> Iterator[str]:
    for weights in card.importance.values():
        weight = weights.get(language)
        yield f"{weight.value:.2g} ({weight.rank:,})" if weight else "–"
    if card.effect is not None:
        change = card.effect.get(language)
        low, high = (card.effect_interval or {}).get(language, (None, None))
        ends = "" if low is None or high is None else f" ({signed(low)} to {signed(high)})"
        yield "–" if change is None else f"{signed(change)}{ends}"
