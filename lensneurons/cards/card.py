"""One neuron on one card: whose it is, what excites it, what it writes, what it is good for.

    class, owner, languages above tau           from the identification
    p of each language against tau, mean        from the statistics
    strongest contexts of each language         `contexts.top_contexts`
    tokens promoted, suppressed, heard          `vocabulary.promoted_tokens`
    importance and its rank in the model        `attribution.importance`
    effect that importance predicts             minus activation x gradient, to first order
    difference of the mean NLL without it       `interventions.ablate` and `evaluation.nll`
    how well the one predicts the other         `agreement.agreement_of_cards`, over ten neurons
                                                or more that are described together

`neuron_facts` gives the first two lines and needs no model; `describe` gives all of them, and
`describe_all` the cards of many neurons in as few passes as possible.

>>> describe(model, neurons, "L12N345", corpus=corpus)                    # doctest: +SKIP
>>> describe_all(model, neurons, neurons.specific["zh"], corpus=corpus)   # doctest: +SKIP

In a notebook a card is compact HTML without JavaScript, everything escaped; the layout is
``templates/card.html.jinja``.

What this does not show: a cause. The lines are measured in different ways on purpose, and where
they disagree, doubt the reading of the others. The effect of one neuron alone is small, and has no
control here: `NeuronSet.random_control` draws other neurons to compare it with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from lensneurons.activations.statistics import SIGNS, ActivationStatistics
from lensneurons.cards.agreement import (
    FIRST_ORDER,
    ImportanceAgreement,
    agreement_of_cards,
)
from lensneurons.cards.attribution import Importance, importance
from lensneurons.cards.contexts import Context, top_contexts
from lensneurons.cards.edge_graph import CardEdge, card_edges, edge_graph
from lensneurons.cards.edges import NeuronEdges
from lensneurons.cards.public_pages import public_page
from lensneurons.cards.vocabulary import VocabularyEffect, promoted_tokens
from lensneurons.errors import LensNeuronsError, StorageError, shown
from lensneurons.evaluation.likelihood import CorpusNLL, nll
from lensneurons.interventions.editing import ablate
from lensneurons.models.running import runs_model
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.belonging import differences, require_own_statistics
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.options import plain_options
from lensneurons.tokens.characters import bytes_note, bytes_told
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import PreparedCorpus, Texts, prepare
from lensneurons.uncertainty.groups import jackknife
from lensneurons.values.base import Overview, Shown, Value
from lensneurons.values.files import load_rows, save_rows
from lensneurons.values.progress import with_bar
from lensneurons.values.provenance import require_same
from lensneurons.values.tables import html_templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ends = dict[str, tuple[float, float]]  # language to the ends of an interval


@dataclass(frozen=True, repr=False)
class NeuronFacts(Shown):
    """What identification knows of one neuron. Made by `neuron_facts`.

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
            of items; None without groups to leave out.
        mean: language to mean activation ``act_fn(hook_pre)``; None where it is not known.
        branches: language to the shares of its tokens by the signs of gate and linear branch, in
            the order of `statistics.SIGNS`; None where they were not counted.
    """

    name: str
    class_name: str
    languages: tuple[str, ...]
    owner: str | None
    selected: bool
    score: float
    tau: float
    probability: dict[str, float]
    interval: Ends | None = None
    mean: dict[str, float] | None = None
    branches: dict[str, tuple[float, float, float, float]] | None = None

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

    def _brief(self) -> str:
        shares = ", ".join(f"{k} {p:.3f}" for k, p in self.probability.items())
        return f"{self.name} {self.title}; {self.details}; p: {shares}"

    def _overview(self) -> Overview:
        mean = self.mean or {}
        rows = [
            (
                k,
                f"{p:.4f}",
                f"{mean[k]:.4f}" if mean else "",
                *(f"{share:.4f}" for share in (self.branches or {}).get(k, ())),
            )
            for k, p in self.probability.items()
        ]
        title = f"{self.name} {self.title} ({self.details})"
        signs = SIGN_HEADS if self.branches else ()
        return Overview(title, ("language", "p", "mean activation", *signs), rows)


@plain_options
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
    layer, neuron = divmod(neurons.flat_index(name), neurons.d_mlp)
    languages, class_name = neurons.languages_of(name), neurons.class_of(name)
    facts = NeuronFacts(
        name=neurons.name_of(layer, neuron),
        class_name=class_name,
        languages=languages,
        owner=languages[0] if class_name == "specific" else None,
        selected=bool(neurons.selected[layer, neuron]),
        score=float(neurons.score[layer, neuron]),
        tau=neurons.tau,
        probability=_by_language(neurons.languages, neurons.probability[layer, neuron]),
    )
    if statistics is None:
        return facts
    require_same(neurons.provenance, statistics.provenance)
    if statistics.languages != neurons.languages:
        raise LensNeuronsError(
            f"the statistics of {list(statistics.languages)} are not those that the neurons were "
            f"identified from, of {list(neurons.languages)}: statistics.select(neurons.languages)"
        )
    require_own_statistics(neurons, statistics)
    alone = statistics.of_neuron(layer, neuron)
    mean = None if alone.sums is None else _by_language(alone.languages, alone.mean[0, 0])
    if alone.grouped_linear is not None:
        shares = (alone.branches[0, 0] / alone.tokens[:, None]).tolist()
        branches = dict(zip(alone.languages, map(_four, shares), strict=True))
        facts = replace(facts, branches=branches)
    try:
        found = jackknife(alone, lambda drawn: drawn.probability[0, 0])
    except LensNeuronsError:  # too few groups
        return replace(facts, mean=mean)
    ends = np.clip([found.low, found.high], 0, 1).T.tolist()
    interval = {k: (low, high) for k, (low, high) in zip(alone.languages, ends, strict=True)}
    return replace(facts, mean=mean, interval=interval)


def _four(shares: Sequence[float]) -> tuple[float, float, float, float]:
    first, second, third, fourth = shares
    return first, second, third, fourth


def _by_language(languages: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(languages, values.tolist(), strict=True))


@dataclass(frozen=True)
class Weight:
    """Importance of a neuron in one language: its value, and its rank in the model by size."""

    value: float
    rank: int


@dataclass(frozen=True, repr=False)
class NeuronCard(Value):
    """Everything about one neuron, over one corpus. Made by `describe` and `describe_all`.

    Attributes:
        facts: what identification knows.
        contexts: strongest contexts, language by language.
        vocabulary: what the neuron writes and hears.
        importance: method to language to value and rank.
        effect: language to the difference of the mean NLL, in nats a token, when this neuron alone
            is set to 0; positive where the model misses it. None where it was not measured.
        effect_interval: ends of its 95 % bootstrap interval over items; None for a single item.
        n_neurons: neurons of the model, for ranks.
        source: corpus and scope.
        agreement: how well importance predicts the effects of the neurons that were described
            together; None where they were fewer than ten, or one of the two was not measured.
        page: address of the neuron's public page, where one is documented (`public_pages`).
        edges: the strongest edges from earlier neurons, where `with_edges` was called.
    """

    FILE_KIND = "neuron card"
    FILE_NAMES = {"facts": "record"}

    facts: NeuronFacts
    contexts: tuple[Context, ...]
    vocabulary: VocabularyEffect
    importance: dict[str, dict[str, Weight]]
    effect: dict[str, float] | None
    effect_interval: Ends | None
    n_neurons: int
    source: str
    agreement: ImportanceAgreement | None = None
    page: str | None = None
    edges: tuple[CardEdge, ...] | None = None

    def __post_init__(self) -> None:
        if self.page is not None and not self.page.startswith("https://"):
            raise LensNeuronsError(f"page={shown(self.page)} is no address that begins with https")
        super().__post_init__()

    @property
    def predicted(self) -> dict[str, float] | None:
        """Language to the effect that importance predicts: minus activation x gradient, in nats a
        token; None without that importance.
        """
        found = self.importance.get("activation_gradient")
        return None if found is None else {k: -weight.value for k, weight in found.items()}

    @property
    def worth(self) -> str:
        """How well importance predicts removals, in words."""
        return FIRST_ORDER if self.agreement is None else self.agreement.told

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the identification, then any others of the corpus."""
        own = [context.language for context in self.contexts]
        measured = [k for found in (*self.importance.values(), self.effect or {}) for k in found]
        return tuple(dict.fromkeys([*self.facts.probability, *own, *measured]))

    def with_edges(self, edges: NeuronEdges, neurons: LanguageNeurons | None = None) -> NeuronCard:
        """The card with what `neuron_edges` gives, drawn as a small graph.

        `neurons` tell the classes of the sources. A `LensNeuronsError` says that the edges lead to
        another neuron.
        """
        return replace(self, edges=card_edges(edges, self.facts.name, neurons))

    def to_dict(self) -> dict[str, Any]:
        """The card as JSON values; an infinite score is null."""
        _, values = self._pack()
        if not math.isfinite(self.facts.score):
            values["record"]["score"] = None
        return values

    def save(self, path: str | Path) -> Path:
        """Write a line of JSON behind a header, atomically, and return the path."""
        return save_rows(path, self.FILE_KIND, [self.to_dict()], {})

    @classmethod
    def load(cls, path: str | Path) -> NeuronCard:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        rows, _ = load_rows(path, cls.FILE_KIND)
        try:
            [row] = rows
            if row["record"]["score"] is None:
                row["record"]["score"] = math.inf
            return cls._unpack({}, row)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError):
            raise StorageError(f"{path} does not hold one whole card: write it anew") from None

    def _brief(self) -> str:
        promoted = " ".join(repr(token.text) for token in self.vocabulary.promoted[:3])
        parts = [repr(self.facts), f"promotes {promoted}"]
        if self.effect:
            language, added = max(self.effect.items(), key=lambda pair: abs(pair[1]))
            parts.append(f"without it NLL {language} {added:+.4f}")
            if self.predicted and language in self.predicted:
                parts[-1] += f" (predicted {self.predicted[language]:+.4f})"
        return "; ".join(parts)

    def _repr_html_(self) -> str:
        return card_html(self)


SIGN_HEADS = tuple(f"gate {gate}, linear {linear}" for gate, linear in SIGNS)
METHODS = {
    "activation": "mean |activation|",
    "plnd": "length written",
    "direct": "direct logit",
    "activation_gradient": "activation x gradient",
    "integrated_gradients": "integrated gradients",
}
_MINUS = "\N{MINUS SIGN}"
_VISIBLE = str.maketrans({"\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"})
_BAR = 5.0  # width of a bar for p = 1, in em


def card_html(card: NeuronCard) -> str:
    """The card as an HTML fragment."""
    facts, effect, columns = card.facts, card.vocabulary, _columns(card)
    rows = [
        {
            "language": language,
            "above": language in facts.languages,
            "share": facts.probability.get(language),
            "cells": [column.get(language, ("", "")) for column in columns.values()],
        }
        for language in card.languages
    ]
    notes = [
        f"Bars: p, with tau as a line; bold: above tau. Texts: {card.source}.",
        f"Tokens: strongest first, its distance from the mean in standard deviations; chance "
        f"reaches {effect.chance:.1f}.",
    ]
    if told := bytes_note(token.text.strip() for _, found in effect.lists for token in found):
        notes.append(told)
    if facts.branches:
        notes.append(
            "Gate and linear: shares of the tokens by the signs of the two halves; the neuron "
            "writes along its row of W_out where both are alike, against it elsewhere."
        )
    if card.importance:
        notes.append(f"Ranks among {card.n_neurons:,} neurons, by size.")
    if card.effect is not None:
        notes.append(
            "NLL without it: change of the mean in nats a token, 95 % interval over items."
        )
    if card.predicted is not None:
        notes.append(f"Predicted: minus {METHODS['activation_gradient']}. {card.worth}")
    if card.edges:
        notes.append(
            "Edges: what earlier neurons give to the argument of this one past all others, with "
            "attention and norms as they were, mean over tokens; dashed: they lower it."
        )
    return (
        html_templates("lensneurons.cards")
        .get_template("card.html.jinja")
        .render(
            facts=facts,
            page=card.page,
            heads=list(columns),
            rows=rows,
            bar=lambda share: _BAR * share,
            tau=min(facts.tau, 1.0),
            vocabulary=[(f"{name}, {ts[0].deviation:+.1f}", ts) for name, ts in effect.lists],
            contexts=[(k, [c for c in card.contexts if c.language == k]) for k in card.languages],
            graph=edge_graph(card.edges, facts.name, facts.languages) if card.edges else None,
            notes=notes,
            visible=lambda text: text.translate(_VISIBLE),
            held=lambda text: bytes_told(text.strip()),
        )
    )


def _columns(card: NeuronCard) -> dict[str, dict[str, tuple[str, str]]]:
    """Head of a column to language to the number there and what stands beside it."""
    facts = card.facts
    columns = {
        "p [95 %]" if facts.interval else "p": {
            k: (f"{p:.3f}", _ends(facts.interval, k, "{:.2f}".format))
            for k, p in facts.probability.items()
        }
    }
    if facts.branches:
        for place, head in enumerate(SIGN_HEADS):
            columns[head] = {k: (f"{found[place]:.3f}", "") for k, found in facts.branches.items()}
    if facts.mean:
        columns["mean activation"] = {k: (f"{mean:.3f}", "") for k, mean in facts.mean.items()}
    for method, weights in card.importance.items():
        columns[f"{METHODS[method]} (rank)"] = {
            k: (f"{one.value:.2g}", f"({one.rank:,})") for k, one in weights.items()
        }
    if card.predicted is not None:
        columns["NLL without it, predicted"] = {
            k: (_signed(added), "") for k, added in card.predicted.items()
        }
    if card.effect is not None:
        columns["NLL without it"] = {
            k: (_signed(added), _ends(card.effect_interval, k, _signed))
            for k, added in card.effect.items()
        }
    return columns


def _signed(value: float) -> str:
    """A number with its sign, and without one where it rounds to 0."""
    text = f"{abs(value):.4f}"
    return "0" if not float(text) else f"{'+' if value > 0 else _MINUS}{text}"


def _ends(interval: Ends | None, language: str, form: Callable[[float], str]) -> str:
    """The ends of an interval, where there is one."""
    if interval is None or language not in interval:
        return ""
    return f"[{', '.join(map(form, interval[language]))}]"


class CardOptions(TypedDict, total=False):
    """The options of `describe_all` that `describe` takes as well, as keyword arguments."""

    statistics: ActivationStatistics | None
    importances: Sequence[Importance] | None
    effect: bool
    scope: Scope | None
    k: int
    tokens: int
    window: int
    tokenizer: PreTrainedTokenizerBase | None


@runs_model
def describe(
    model: Any,
    neurons: LanguageNeurons,
    name: str,
    *,
    corpus: Texts,
    **options: Unpack[CardOptions],
) -> NeuronCard:
    """Put together all that can be said about one neuron, such as ``"L12N345"``.

    Arguments, options and errors are those of `describe_all`, which is faster for many neurons.
    """
    return describe_all(model, neurons, [name], corpus=corpus, **options)[0]


@plain_options
@runs_model
def describe_all(
    model: Any,
    neurons: LanguageNeurons,
    names: str | Iterable[str],
    *,
    corpus: Texts,
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
    """Put together all that can be said about some neurons.

    Contexts, importances and the NLL of the whole model are measured once for all of them; only
    the effect costs a pass a neuron. Ten neurons or more say how well importance predicts the
    effects (`NeuronCard.agreement`).

    Args:
        model: the TransformerLens model that the neurons are of; it stays as it is.
        neurons: what `identify` gives.
        names: such as ``"L12N345"``, ``["L12N345", "L3N7"]``, or a `NeuronSet`.
        corpus: texts for the contexts, the importances and the effects; 20 items a language take
            seconds on a small model.
        statistics: what the neurons were identified from, for mean activations and intervals.
        importances: what `importance` gave, over any corpus; None measures both methods on `corpus`
            (a pass each), an empty list leaves them out.
        effect: whether to ablate each neuron alone (one pass, and one a neuron).
        scope: which tokens count.
        k: most contexts of a neuron and language.
        tokens: how many tokens of the vocabulary in each list.
        window: most characters on each side of a context.
        tokenizer: encodes the corpus and names the tokens; None for the model's own, as it was
            saved.
        progress: show a progress bar over the effects.

    Returns:
        A card a neuron, in the order of `names`.

    Raises:
        LensNeuronsError: a neuron is named twice, or the neurons, the statistics or an importance
            are of another model.
        ModelError: the model has no dense MLP neurons, or no tokenizer.
        CorpusError: a text has no counted token, or is too long.
    """
    names = names.replace(",", " ").split() if isinstance(names, str) else names
    facts = [neuron_facts(neurons, name, statistics=statistics) for name in names]
    found = [one.name for one in facts]
    if len(set(found)) < len(found):
        raise LensNeuronsError(f"{found} names a neuron twice: a card is made once")
    site = neuron_site(model)
    shapes = (one.value.shape[:2] for one in importances or ())
    for shape in ((neurons.n_layers, neurons.d_mlp), *shapes):
        if shape != (site.n_layers, site.d_mlp):
            raise LensNeuronsError(
                f"neurons or importances of {shape[0]} layers x {shape[1]} neurons do not belong "
                f"to a model of {site.n_layers} x {site.d_mlp}"
            )
    if not found:
        return ()
    together = NeuronSet.from_names(found, n_layers=site.n_layers, d_mlp=site.d_mlp)
    # Weights alone, so that a wrong number of tokens is refused before anything runs.
    words = [promoted_tokens(model, name, k=tokens, tokenizer=tokenizer) for name in found]
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    for one in importances or ():
        if told := differences(
            prepared.provenance(), replace(one.provenance, corpora=(), scope="unknown")
        ):
            raise LensNeuronsError(f"an importance was measured on another model ({told})")
    contexts = top_contexts(model, prepared, together, k=k, window=window)
    if importances is None:
        importances = [
            importance(model, prepared, method="plnd"),
            importance(model, prepared, method="activation_gradient"),
        ]
    plain = nll(model, prepared) if effect else None
    texts, cards = prepared.corpus, []
    steps = zip(facts, words, strict=True)
    shown = progress and effect
    for one, vocabulary in with_bar(steps, "describe", "neuron", shown=shown, total=len(found)):
        added, ends = (None, None) if plain is None else _effect(prepared, one.name, plain)
        cards.append(
            NeuronCard(
                facts=one,
                contexts=contexts.of(one.name),
                vocabulary=vocabulary,
                importance={which.method: _weights(which, one.name) for which in importances},
                effect=added,
                effect_interval=ends,
                n_neurons=site.n_layers * site.d_mlp,
                source=f"{len(texts.ids)} items of {texts.name}, {prepared.scope} tokens",
                page=public_page(neurons, one.name),
            )
        )
    try:
        agreement = agreement_of_cards(cards)
    except LensNeuronsError:  # too few, or nothing to compare
        return tuple(cards)
    return tuple(replace(card, agreement=agreement) for card in cards)


def _weights(found: Importance, name: str) -> dict[str, Weight]:
    rank = found.rank(name)
    return {language: Weight(value, rank[language]) for language, value in found.of(name).items()}


def _effect(
    prepared: PreparedCorpus, name: str, plain: CorpusNLL
) -> tuple[dict[str, float], Ends | None]:
    """Difference of the mean NLL without the neuron by language, and the ends of its interval."""
    model, site = prepared.model, prepared.site
    with ablate(model, NeuronSet.from_names([name], n_layers=site.n_layers, d_mlp=site.d_mlp)):
        without = nll(model, prepared)
    added = _by_language(without.languages, without.mean - plain.mean)
    if len(prepared.corpus.ids) < 2:
        return added, None
    found = without.difference(plain)
    ends = zip(found.low.tolist(), found.high.tolist(), strict=True)
    return added, dict(zip(without.languages, ends, strict=True))
