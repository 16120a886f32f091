"""Cards, measured: all that can be said about some neurons, in as few passes as that takes.

>>> describe(model, neurons, "L12N345", corpus=corpus)                    # doctest: +SKIP
>>> describe_all(model, neurons, neurons.specific["zh"], corpus=corpus)   # doctest: +SKIP

What identification knows of one neuron: whose it is, and how often it is active.

>>> neuron_facts(neurons, "L12N345")                                           # doctest: +SKIP

The card of a neuron as HTML: compact, everything escaped, no JavaScript.

The layout is ``templates/card.html.jinja``; this file makes the words and numbers that stand in it.

One neuron on one card: whose it is, what excites it, what it writes, what it is good for.

    class, owner, languages above tau           from the identification
    p of each language against tau, mean        from the statistics
    strongest contexts of each language         `contexts.top_contexts`
    tokens promoted, suppressed, heard          `vocabulary.promoted_tokens`
    importance and its rank in the model        `attribution.importance`
    change of the mean NLL without it           `interventions.ablate` and `evaluation.nll`

`neuron_facts` gives the first two lines and needs no model; `describe` gives all of it.

What this does not show: a cause. The lines are measured in different ways on purpose, and where
they disagree the reading of the others is doubtful. The effect of one neuron alone is small, and
has no control here: `NeuronSet.random_control` draws other neurons to compare it with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.attribution import Importance, Method, importance
from lensneurons.cards.contexts import Context, top_contexts
from lensneurons.cards.vocabulary import TokenValue, VocabularyEffect, promoted_tokens
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError, StorageError, choose
from lensneurons.evaluation.likelihood import CorpusNLL, nll
from lensneurons.interventions.editing import ablate
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet, flat_index
from lensneurons.shapes import Importances
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import PreparedCorpus, prepare
from lensneurons.uncertainty.groups import jackknife
from lensneurons.values.files import load_rows, save_rows
from lensneurons.values.provenance import require_same
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lensneurons.cards.vocabulary import TokenValue


@dataclass(frozen=True, repr=False)
class NeuronFacts:
    """What identification knows of one neuron.

    Attributes:
        name: such as ``"L12N345"``.
        class_name: one of `neurons.CLASSES`.
        languages: those above tau.
        owner: the one language above tau of a language-specific neuron, else None.
        selected: whether its score is among the lowest.
        score: low for language neurons; infinite where LAPE has none, above tau nowhere.
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
        score = f"score {self.score:.4f}" if math.isfinite(self.score) else "no score"
        return f"{chosen}, {score}; bar tau {self.tau:.4f}"

    def __repr__(self) -> str:
        shares = ", ".join(f"{k} {p:.3f}" for k, p in self.probability.items())
        return f"NeuronFacts({self.name} {self.title}; {self.details}; p: {shares})"

    def _repr_html_(self) -> str:
        mean = self.mean or {}
        rows = [
            (k, f"{p:.4f}", f"{mean[k]:.4f}" if mean else "") for k, p in self.probability.items()
        ]
        title = f"{self.name} {self.title} ({self.details})"
        return html_table(title, ("language", "p", "mean activation"), rows)


def neuron_facts(
    neurons: LanguageNeurons, name: str, *, statistics: ActivationStatistics | None = None
) -> NeuronFacts:
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
    record = NeuronFacts(
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

    record: NeuronFacts
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
    exact = {"languages": tuple(record["languages"]), "interval": _ends_card(record["interval"])}
    exact["score"] = math.inf if record["score"] is None else record["score"]
    return {
        "record": NeuronFacts(**record | exact),
        "contexts": tuple(Context(**one) for one in row["contexts"]),
        "vocabulary": VocabularyEffect(**vocabulary | tokens),
        "importance": {
            method: {language: Weight(**one) for language, one in found.items()}
            for method, found in row["importance"].items()
        },
        "effect_interval": _ends_card(row["effect_interval"]),
    }


def _ends_card(found: dict[str, list[float]] | None) -> dict[str, tuple[float, float]] | None:
    """Intervals by language, their ends as tuples."""
    return None if found is None else {k: (low, high) for k, (low, high) in found.items()}


def describe(
    model: Any,
    neurons: LanguageNeurons,
    name: str,
    *,
    corpus: ParallelCorpus | PreparedCorpus,
    statistics: ActivationStatistics | None = None,
    importances: Sequence[Importance] | None = None,
    effect: bool = True,
    scope: Scope | None = None,
    k: int = 3,
    tokens: int = 10,
    window: int = 40,
    tokenizer: PreTrainedTokenizerBase | None = None,
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
        tokenizer: encodes the corpus and names the tokens; by default the model's own, as it was
            saved.

    Raises:
        LensNeuronsError: the neuron, the statistics or an importance is of another model.
        ModelError: the model has no dense MLP neurons, or no tokenizer.
        CorpusError: a text has no counted token, or is too long.
    """
    [card] = describe_all(
        model,
        neurons,
        [name],
        corpus=corpus,
        statistics=statistics,
        importances=importances,
        effect=effect,
        scope=scope,
        k=k,
        tokens=tokens,
        window=window,
        tokenizer=tokenizer,
    )
    return card


def describe_all(
    model: Any,
    neurons: LanguageNeurons,
    names: Iterable[str],
    *,
    corpus: ParallelCorpus | PreparedCorpus,
    statistics: ActivationStatistics | None = None,
    importances: Sequence[Importance] | None = None,
    effect: bool = True,
    scope: Scope | None = None,
    k: int = 3,
    tokens: int = 10,
    window: int = 40,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> tuple[NeuronCard, ...]:
    """The cards of several neurons, each what `describe` gives.

    Contexts, importances and the NLL of the whole model are measured once for all of them; only
    the effect costs a pass a neuron.

    Args:
        model: as for `describe`, and so is every option but two.
        neurons: what `identify` gives.
        names: such as ``["L12N345", "L3N7"]``, or a `NeuronSet`.
        corpus: texts.
        statistics: what the neurons were identified from.
        importances: measured before; None measures both kinds, an empty list leaves them out.
        effect: whether to ablate each neuron.
        scope: which tokens count.
        k: most contexts a language.
        tokens: how many tokens of the vocabulary of each kind.
        window: most characters on each side of a context.
        tokenizer: by default the model's own, as it was saved.
        progress: show a progress bar over the effects.

    Returns:
        A card a neuron, in the order of `names`.

    Raises:
        LensNeuronsError: a neuron is named twice, or as `describe`.
        ModelError: as `describe`.
        CorpusError: as `describe`.
    """
    if scope is not None:
        choose(scope, get_args(Scope), "scope")
    records = [neuron_facts(neurons, name, statistics=statistics) for name in names]
    found = [record.name for record in records]
    if len(set(found)) < len(found):
        raise LensNeuronsError(f"{found} names a neuron twice: a card is made once")
    site = neuron_site(model)
    for what in (neurons, *(one.value for one in importances or ())):
        _require_shape(what, site)
    if not found:
        return ()
    together = NeuronSet.from_names(found, n_layers=site.n_layers, d_mlp=site.d_mlp)
    # Weights alone, so that a wrong number of tokens is refused before anything runs.
    words = [promoted_tokens(model, name, k=tokens, tokenizer=tokenizer) for name in found]
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    contexts = top_contexts(model, prepared, together, k=k, window=window)
    if importances is None:
        importances = [importance(model, prepared, method=m) for m in get_args(Method)]
    before = nll(model, prepared) if effect else None
    texts = prepared.corpus
    source = f"{len(texts.ids)} items of {texts.name}, {prepared.scope} tokens"
    rows = zip(records, words, strict=True)
    return tuple(
        NeuronCard(
            record,
            contexts=contexts.of(record.name),
            vocabulary=vocabulary,
            importance={one.method: _weights(one, record.name) for one in importances},
            **_effect(prepared, record.name, before),
            n_neurons=site.n_layers * site.d_mlp,
            source=source,
        )
        for record, vocabulary in _with_progress(rows, len(found), progress and effect)
    )


def _require_shape(what: LanguageNeurons | Importances, site: NeuronSite) -> None:
    shape = what.shape[:2] if isinstance(what, np.ndarray) else (what.n_layers, what.d_mlp)
    if shape != (site.n_layers, site.d_mlp):
        raise LensNeuronsError(
            f"neurons or importances of {shape[0]} layers x {shape[1]} neurons do not belong to a "
            f"model of {site.n_layers} x {site.d_mlp}"
        )


def _weights(found: Importance, name: str) -> dict[str, Weight]:
    rank = found.rank(name)
    return {k: Weight(value, rank[k]) for k, value in found.of(name).items()}


def _effect(prepared: PreparedCorpus, name: str, before: CorpusNLL | None) -> dict[str, Any]:
    """Change of the mean NLL without the neuron by language, and the ends of its interval."""
    if before is None:
        return {"effect": None, "effect_interval": None}
    site = prepared.site
    with ablate(
        prepared.model, NeuronSet.from_names([name], n_layers=site.n_layers, d_mlp=site.d_mlp)
    ):
        after = nll(prepared.model, prepared)
    change = dict(zip(after.languages, (after.mean - before.mean).tolist(), strict=True))
    if len(prepared.corpus.ids) < 2:
        return {"effect": change, "effect_interval": None}
    found = after.difference(before)
    ends = zip(found.low.tolist(), found.high.tolist(), strict=True)
    return {"effect": change, "effect_interval": dict(zip(after.languages, ends, strict=True))}


def _with_progress(rows: Iterable[Any], total: int, progress: bool) -> Iterable[Any]:
    from tqdm.auto import tqdm

    return tqdm(rows, total=total, unit="neuron", desc="describe", disable=not progress)
