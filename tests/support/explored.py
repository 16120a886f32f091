"""An explorer of made-up neurons over given texts: what the page shows depends on no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pages

from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.characters import Span, TextTokens
from lensneurons.views.explorer import ExploredText, Explorer


def words(text: str) -> TextTokens:
    """A text with a token for every word and for every character between words."""
    parts = [part for piece in text.split(" ") for part in (piece, " ")][:-1]
    spans = tuple(Span(part, (i,)) for i, part in enumerate(part for part in parts if part))
    ends = np.cumsum([len(span.text) for span in spans]).tolist()
    offsets = tuple(zip([0, *ends], ends, strict=False))
    pieces = tuple(span.text for span in spans)
    return TextTokens(text, tuple(range(len(spans))), pieces, offsets, spans)


def explored(items: list[Mapping[str, str]], tau: float = 0.4123) -> Explorer:
    """Neurons of every class, all of the selected ones recorded; tau lies between two bars."""
    found: LanguageNeurons = replace(pages.neurons(), tau=tau)
    random = np.random.default_rng(5)
    texts = tuple(
        ExploredText(str(number), language, item.get("en", ""), words(text))
        for number, item in enumerate(items)
        for language, text in item.items()
    )
    recorded = NeuronSet.from_mask(found.selected, "recorded")
    spans = sum(len(text.read.spans) for text in texts)
    activations = random.integers(-127, 128, (len(recorded), spans)).astype(np.int8)
    ends = random.uniform(1, 4, len(recorded))
    return Explorer(found, texts, recorded, activations, ends, len(recorded), len(items))
