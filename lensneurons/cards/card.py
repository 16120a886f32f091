"""One neuron on one card: whose it is, what excites it, what it writes, what it is good for.

    class, owner, languages above tau           from the identification
    p of each language against tau, mean        from the statistics
    strongest contexts of each language         `contexts.top_contexts`
    tokens promoted, suppressed, heard          `vocabulary.promoted_tokens`
    importance and its rank in the model        `attribution.importance`
    change of the mean NLL without it           `interventions.ablate` and `evaluation.nll`

`look_up` gives the first two lines and needs no model; `describe` gives all of it.

>>> look_up(neurons, "L12N345")                                           # doctest: +SKIP
>>> describe(model, neurons, "L12N345", corpus=corpus)                    # doctest: +SKIP

What this does not show: a cause. The lines are measured in different ways on purpose, and where
they disagree the reading of the others is doubtful. The effect of one neuron alone is small, and
has no control here: `NeuronSet.random_control` draws other neurons to compare it with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.attribution import Importance, Method, importance
from lensneurons.cards.contexts import Context, top_contexts
from lensneurons.cards.html import card_html
from lensneurons.cards.vocabulary import VocabularyEffect, promoted_tokens
from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.likelihood import nll
from lensneurons.identification.neuron_sets import NeuronSet, flat_index
from lensneurons.identification.neurons import LanguageNeurons
from lensneurons.intervals import jackknife
from lensneurons.interventions.neurons import ablate
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.provenance import require_same
from lensneurons.shapes import Importances
from lensneurons.tokens.encoded import Scope


@dataclass(frozen=True, repr=False)
class NeuronRecord:
    """What identification knows of one neuron.

    Attributes:
        name: such as ``"L12N345"``.
        class_name: one of `neurons.CLASSES`.
        languages: those above tau.
        owner: the one language above tau of a language-specific neuron, else None.
        selected: whether its score is among the lowest.
        score: low for language neurons.
        tau: the bar.
        probability: language to activation probability.
        interval: language to the ends of the interval of the probability, by jackknife over groups
            of items; None where nothing to draw from was given.
        mean: language to mean activation ``act_fn(hook_pre)``; None where it was not given.
    """

    name: str
    class_name: str
    languages: tuple[str, ...]
    owner: str | None
    selected: bool
    score: float
    tau: float
    probability: dict[str, float]
    interval: dict[str, tuple[float, float]] | None = None
    mean: dict[str, float] | None = None

    @property
    def title(self) -> str:
        """Class and languages, in words."""
        return f"{self.class_name}{': ' if self.languages else ''}{' '.join(self.languages)}"

    @property
    def details(self) -> str:
        """Selection, score and tau, in words."""
        chosen = "selected" if self.selected else "not selected"
        return f"{chosen}, score {self.score:.4f}; bar tau {self.tau:.4f}"

    def __repr__(self) -> str:
        shares = ", ".join(f"{k} {p:.3f}" for k, p in self.probability.items())
        return f"NeuronRecord({self.name} {self.title}; {self.details}; p: {shares})"

    def _repr_html_(self) -> str:
        mean = self.mean or {}
        rows = [
            (k, f"{p:.4f}", f"{mean[k]:.4f}" if mean else "") for k, p in self.probability.items()
        ]
        title = f"{self.name} {self.title} ({self.details})"
        return html_table(title, ("language", "p", "mean activation"), rows)


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
        """The card as JSON values."""
        return asdict(self)

    def __repr__(self) -> str:
        promoted = " ".join(repr(token.text) for token in self.vocabulary.promoted[:3])
        parts = [f"promotes {promoted}"]
        if self.effect:
            language, change = max(self.effect.items(), key=lambda pair: abs(pair[1]))
            parts.append(f"without it NLL {language} {change:+.4f}")
        return f"NeuronCard({self.record!r}; {'; '.join(parts)})"

    def _repr_html_(self) -> str:
        return card_html(self)


def look_up(
    neurons: LanguageNeurons, name: str, *, statistics: ActivationStatistics | None = None
) -> NeuronRecord:
    """What identification knows of one neuron; needs no model.

    Args:
        neurons: what `identify` gives.
        name: such as ``"L12N345"``.
        statistics: what it was identified from, for mean activations and intervals.

    Raises:
        LensNeuronsError: the neuron is not in the model, or the statistics are of other languages.
        ProvenanceError: the statistics are not those that the neurons were identified from.
    """
    layer, neuron = divmod(flat_index(name, neurons.n_layers, neurons.d_mlp), neurons.d_mlp)
    languages = neurons.languages_of(name)
    class_name = neurons.class_of(name)
    record = NeuronRecord(
        name=f"L{layer}N{neuron}",
        class_name=class_name,
        languages=languages,
        owner=languages[0] if class_name == "specific" else None,
        selected=bool(neurons.selected[layer, neuron]),
        score=float(neurons.score[layer, neuron]),
        tau=neurons.tau,
        probability=_by_language(neurons.languages, neurons.probability[layer, neuron]),
    )
    if statistics is None:
        return record
    _require_origin(neurons, statistics)
    one = _only(statistics, layer, neuron)
    mean = None if one.sums is None else _by_language(one.languages, one.mean[0, 0])
    return replace(record, mean=mean, interval=_interval(one))


def describe(
    model: Any,
    neurons: LanguageNeurons,
    name: str,
    *,
    corpus: ParallelCorpus,
    statistics: ActivationStatistics | None = None,
    importances: Sequence[Importance] | None = None,
    effect: bool = True,
    scope: Scope = "response",
    k: int = 3,
    tokens: int = 10,
    window: int = 40,
) -> NeuronCard:
    """Put together all that can be said about one neuron.

    Args:
        model: the TransformerLens model that the neurons are of; it stays as it is.
        neurons: what `identify` gives.
        name: such as ``"L12N345"``.
        corpus: texts for the contexts, the importances and the effect; 20 items a language take
            seconds on a small model.
        statistics: what the neurons were identified from, for mean activations and intervals.
        importances: what `importance` gave, over any corpus; None measures both kinds on `corpus`
            (a pass each), an empty list leaves them out.
        effect: whether to ablate the neuron (two passes).
        scope: which tokens count.
        k: most contexts a language.
        tokens: how many tokens of the vocabulary of each kind.
        window: most characters on each side of a context.

    Raises:
        LensNeuronsError: the neuron, the statistics or an importance is of another model.
        ModelError: the model has no dense MLP neurons, or no tokenizer.
        CorpusError: a text has no counted token, or is too long.
    """
    choose(scope, get_args(Scope), "scope")
    record = look_up(neurons, name, statistics=statistics)
    site = neuron_site(model)
    for what in (neurons, *(found.value for found in importances or ())):
        _require_shape(what, site)
    alone = NeuronSet.from_names([name], n_layers=site.n_layers, d_mlp=site.d_mlp)
    vocabulary = promoted_tokens(model, name, k=tokens)
    contexts = top_contexts(model, corpus, alone, k=k, scope=scope, window=window)
    if importances is None:
        importances = [importance(model, corpus, method=m, scope=scope) for m in get_args(Method)]
    change, ends = _effect(model, corpus, alone, scope) if effect else (None, None)
    return NeuronCard(
        record=record,
        contexts=contexts.rows,
        vocabulary=vocabulary,
        importance={found.method: _weights(found, name) for found in importances},
        effect=change,
        effect_interval=ends,
        n_neurons=site.n_layers * site.d_mlp,
        source=f"{corpus.name}, {scope} tokens",
    )


def _by_language(languages: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(languages, values.tolist(), strict=True))


def _require_origin(neurons: LanguageNeurons, statistics: ActivationStatistics) -> None:
    require_same(neurons.provenance, statistics.provenance)
    ours = (neurons.languages, neurons.n_layers, neurons.d_mlp)
    theirs = (statistics.languages, statistics.n_layers, statistics.d_mlp)
    if ours != theirs:
        raise LensNeuronsError(
            f"the statistics (languages, layers, width: {theirs}) are not those that the neurons "
            f"were identified from ({ours})"
        )


def _require_shape(what: LanguageNeurons | Importances, site: NeuronSite) -> None:
    shape = what.shape[:2] if isinstance(what, np.ndarray) else (what.n_layers, what.d_mlp)
    if shape != (site.n_layers, site.d_mlp):
        raise LensNeuronsError(
            f"neurons or importances of {shape[0]} layers x {shape[1]} neurons do not belong to a "
            f"model of {site.n_layers} x {site.d_mlp}"
        )


def _only(statistics: ActivationStatistics, layer: int, neuron: int) -> ActivationStatistics:
    """The statistics of one neuron: what follows costs nothing."""
    at = (slice(layer, layer + 1), slice(neuron, neuron + 1))
    return replace(
        statistics,
        grouped_counts=statistics.grouped_counts[(slice(None), *at)],
        sums=None if statistics.sums is None else statistics.sums[at],
        squares=None if statistics.squares is None else statistics.squares[at],
    )


def _interval(one: ActivationStatistics) -> dict[str, tuple[float, float]] | None:
    """95 % interval of p by jackknife over groups of items; None where they do not allow it."""
    try:
        found = jackknife(one, lambda drawn: drawn.probability[0, 0])
    except LensNeuronsError:
        return None
    low, high = np.clip(found.low, 0, 1).tolist(), np.clip(found.high, 0, 1).tolist()
    return dict(zip(one.languages, zip(low, high, strict=True), strict=True))


def _weights(found: Importance, name: str) -> dict[str, Weight]:
    rank = found.rank(name)
    return {k: Weight(value, rank[k]) for k, value in found.of(name).items()}


def _effect(
    model: Any, corpus: ParallelCorpus, alone: NeuronSet, scope: Scope
) -> tuple[dict[str, float], dict[str, tuple[float, float]] | None]:
    """Change of the mean NLL without the neuron by language, and the ends of its interval."""
    before = nll(model, corpus, scope=scope)
    with ablate(model, alone):
        after = nll(model, corpus, scope=scope)
    change = _by_language(after.languages, after.mean - before.mean)
    if len(corpus.ids) < 2:
        return change, None
    found = after.change(before)
    ends = zip(found.low.tolist(), found.high.tolist(), strict=True)
    return change, dict(zip(after.languages, ends, strict=True))
