"""The card of a neuron as HTML: compact, everything escaped, no JavaScript.

The layout is ``templates/card.html.jinja``; this file makes the words and numbers that stand in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensneurons.cards.card import NeuronCard
    from lensneurons.cards.vocabulary import TokenValue

# Width of a bar for p = 1, in em.
_BAR = 5.0
_HEADS = {
    "plnd": "length written (rank)",
    "activation_gradient": "activation x gradient (rank)",
}
_MINUS = "\N{MINUS SIGN}"
_VISIBLE = str.maketrans({"\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"})


def card_html(card: NeuronCard) -> str:
    """The card as an HTML fragment."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lensneurons.cards"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["visible"] = lambda text: text.translate(_VISIBLE)
    return environment.get_template("card.html.jinja").render(
        record=card.record,
        heads=_heads(card),
        rows=[_row(card, language) for language in card.languages],
        bar=lambda share: _BAR * share,
        tau=min(card.record.tau, 1.0),
        vocabulary=_vocabulary(card),
        contexts=[
            (language, [c for c in card.contexts if c.language == language])
            for language in card.languages
        ],
        notes=_notes(card),
    )


def _heads(card: NeuronCard) -> list[str]:
    """The columns behind the language: those that the card has numbers for."""
    heads = ["p [95 %]" if card.record.interval else "p"]
    heads += ["mean activation"] if card.record.mean else []
    heads += [_HEADS[method] for method in card.importance]
    return heads + (["NLL without it"] if card.effect is not None else [])


def _row(card: NeuronCard, language: str) -> dict[str, Any]:
    """One language: its cells, each a number and what stands beside it, and p for the bar."""
    record = card.record
    share = record.probability.get(language)
    cells = [(_number(share, "{:.3f}"), _ends(record.interval, language, "{:.2f}".format))]
    if record.mean:
        cells.append((_number(record.mean.get(language), "{:.3f}"), ""))
    for weights in card.importance.values():
        weight = weights.get(language)
        cells.append((f"{weight.value:.2g}", f"({weight.rank:,})") if weight else ("", ""))
    if card.effect is not None:
        change = card.effect.get(language)
        ends = _ends(card.effect_interval, language, _change)
        cells.append(("" if change is None else _change(change), ends))
    return {
        "language": language,
        "above": language in record.languages,
        "share": share,
        "cells": cells,
    }


def _vocabulary(card: NeuronCard) -> list[tuple[str, tuple[TokenValue, ...]]]:
    """The lists of tokens, each with the deviation of its first."""
    effect = card.vocabulary
    lists = {"promotes": effect.promoted, "suppresses": effect.suppressed, "hears": effect.heard}
    return [(f"{name}, {ts[0].deviation:+.1f}", ts) for name, ts in lists.items() if ts]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _change(value: float) -> str:
    """A change with its sign, and none where it rounds to 0."""
    text = f"{abs(value):.4f}"
    return "0" if not float(text) else f"{'+' if value > 0 else _MINUS}{text}"


def _ends(
    interval: dict[str, tuple[float, float]] | None, language: str, form: Callable[[float], str]
) -> str:
    """The ends of an interval, where there is one."""
    if interval is None or language not in interval:
        return ""
    return f"[{', '.join(map(form, interval[language]))}]"


def _notes(card: NeuronCard) -> list[str]:
    """What a reader has to know to read the numbers."""
    notes = [
        f"Bars: p, with tau as a line; bold: above tau. Texts: {card.source}.",
        f"Tokens: strongest first, its distance from the mean in standard deviations; chance "
        f"reaches {card.vocabulary.chance:.1f}.",
    ]
    if card.importance:
        notes.append(f"Ranks among {card.n_neurons:,} neurons, by size.")
    if card.effect is not None:
        notes.append(
            "NLL without it: change of the mean in nats a token, 95 % interval over items."
        )
    return notes
