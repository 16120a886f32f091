"""One neuron on one card: whose it is, what excites it, what it writes, what it is good for.

    class, owner, languages above tau           from the identification
    p of each language against tau, mean        from the statistics
    strongest contexts of each language         `contexts.top_contexts`
    tokens promoted, suppressed, heard          `vocabulary.promoted_tokens`
    importance and its rank in the model        `attribution.importance`
    change of the mean NLL without it           `interventions.ablate` and `evaluation.nll`

`look_up` gives the first two lines and needs no model; `describe` gives all of it.

What this does not show: a cause. The lines are measured in different ways on purpose, and where
they disagree the reading of the others is doubtful. The effect of one neuron alone is small, and
has no control here: `NeuronSet.random_control` draws other neurons to compare it with.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lensneurons.cards.contexts import Context
from lensneurons.cards.html import card_html
from lensneurons.cards.records import NeuronRecord
from lensneurons.cards.vocabulary import TokenValue, VocabularyEffect
from lensneurons.errors import StorageError
from lensneurons.storage import load_rows, save_rows

KIND = "neuron card"


@dataclass(frozen=True)
class Weight:
    """Importance of a neuron in one language: its value, and its rank in the model by size."""

    value: float
    rank: int


@dataclass(frozen=True, repr=False)
class NeuronCard:
    """Everything about one neuron, over one corpus.

    Attributes:
        record: what identification knows.
        contexts: strongest contexts, language by language.
        vocabulary: what the neuron writes and hears.
        importance: method to language to value and rank.
        effect: language to the change of the mean NLL, in nats a token, when this neuron alone is
            set to 0; positive where it is missed. None where it was not measured.
        effect_interval: ends of its 95 % bootstrap interval over items; None for a single item.
        n_neurons: neurons of the model, for ranks.
        source: corpus and scope.
    """

    record: NeuronRecord
    contexts: tuple[Context, ...]
    vocabulary: VocabularyEffect
    importance: dict[str, dict[str, Weight]]
    effect: dict[str, float] | None
    effect_interval: dict[str, tuple[float, float]] | None
    n_neurons: int
    source: str

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the identification, then any others of the corpus."""
        measured = [*self.importance.values(), self.effect or {}]
        own = [context.language for context in self.contexts]
        return tuple(
            dict.fromkeys([*self.record.probability, *own, *(k for d in measured for k in d)])
        )

    def to_dict(self) -> dict[str, Any]:
        """The card as JSON values; an infinite score is null."""
        values = asdict(self)
        if not math.isfinite(self.record.score):
            values["record"]["score"] = None
        return values

    def save(self, path: str | Path) -> Path:
        """Write a line of JSON behind a header, atomically, and return the path."""
        return save_rows(path, KIND, [self.to_dict()], {})

    @classmethod
    def load(cls, path: str | Path) -> NeuronCard:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        rows, _ = load_rows(path, KIND)
        try:
            [row] = rows
            return cls(**row | _values(row))
        except (TypeError, KeyError, ValueError):
            raise StorageError(f"{path} does not hold one whole card: write it anew") from None

    def __repr__(self) -> str:
        promoted = " ".join(repr(token.text) for token in self.vocabulary.promoted[:3])
        parts = [f"promotes {promoted}"]
        if self.effect:
            language, change = max(self.effect.items(), key=lambda pair: abs(pair[1]))
            parts.append(f"without it NLL {language} {change:+.4f}")
        return f"NeuronCard({self.record!r}; {'; '.join(parts)})"

    def _repr_html_(self) -> str:
        return card_html(self)


def _values(row: dict[str, Any]) -> dict[str, Any]:
    """What `NeuronCard.to_dict` made plain, as it was."""
    record, vocabulary = row["record"], row["vocabulary"]
    kinds = ("promoted", "suppressed", "heard")
    tokens = {kind: tuple(TokenValue(**one) for one in vocabulary[kind]) for kind in kinds}
    exact = {"languages": tuple(record["languages"]), "interval": _ends(record["interval"])}
    exact["score"] = math.inf if record["score"] is None else record["score"]
    return {
        "record": NeuronRecord(**record | exact),
        "contexts": tuple(Context(**one) for one in row["contexts"]),
        "vocabulary": VocabularyEffect(**vocabulary | tokens),
        "importance": {
            method: {language: Weight(**one) for language, one in found.items()}
            for method, found in row["importance"].items()
        },
        "effect_interval": _ends(row["effect_interval"]),
    }


def _ends(found: dict[str, list[float]] | None) -> dict[str, tuple[float, float]] | None:
    """Intervals by language, their ends as tuples."""
    return None if found is None else {k: (low, high) for k, (low, high) in found.items()}
