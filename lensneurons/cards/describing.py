"""Cards, measured: all that can be said about some neurons, in as few passes as that takes.

>>> describe(model, neurons, "L12N345", corpus=corpus)                    # doctest: +SKIP
>>> describe_all(model, neurons, neurons.specific["zh"], corpus=corpus)   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.attribution import Importance, Method, importance
from lensneurons.cards.card import NeuronCard, Weight
from lensneurons.cards.contexts import top_contexts
from lensneurons.cards.records import look_up
from lensneurons.cards.vocabulary import promoted_tokens
from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.likelihood import CorpusNLL, nll
from lensneurons.identification.neuron_sets import NeuronSet
from lensneurons.identification.neurons import LanguageNeurons
from lensneurons.interventions.neurons import ablate
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.shapes import Importances
from lensneurons.tokens.encoded import Scope

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    corpus: ParallelCorpus,
    statistics: ActivationStatistics | None = None,
    importances: Sequence[Importance] | None = None,
    effect: bool = True,
    scope: Scope = "response",
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
    choose(scope, get_args(Scope), "scope")
    records = [look_up(neurons, name, statistics=statistics) for name in names]
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
    shared: dict[str, Any] = {"scope": scope, "tokenizer": tokenizer}
    contexts = top_contexts(model, corpus, together, k=k, window=window, **shared)
    if importances is None:
        importances = [importance(model, corpus, method=m, **shared) for m in get_args(Method)]
    before = nll(model, corpus, **shared) if effect else None
    rows = zip(records, words, strict=True)
    return tuple(
        NeuronCard(
            record,
            contexts=contexts.of(record.name),
            vocabulary=vocabulary,
            importance={one.method: _weights(one, record.name) for one in importances},
            **_effect(model, corpus, record.name, before, shared),
            n_neurons=site.n_layers * site.d_mlp,
            source=f"{len(corpus.ids)} items of {corpus.name}, {scope} tokens",
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


def _effect(
    model: Any, corpus: ParallelCorpus, name: str, before: CorpusNLL | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Change of the mean NLL without the neuron by language, and the ends of its interval."""
    if before is None:
        return {"effect": None, "effect_interval": None}
    site = neuron_site(model)
    with ablate(model, NeuronSet.from_names([name], n_layers=site.n_layers, d_mlp=site.d_mlp)):
        after = nll(model, corpus, **options)
    change = dict(zip(after.languages, (after.mean - before.mean).tolist(), strict=True))
    if len(corpus.ids) < 2:
        return {"effect": change, "effect_interval": None}
    found = after.change(before)
    ends = zip(found.low.tolist(), found.high.tolist(), strict=True)
    return {"effect": change, "effect_interval": dict(zip(after.languages, ends, strict=True))}


def _with_progress(rows: Iterable[Any], total: int, progress: bool) -> Iterable[Any]:
    from tqdm.auto import tqdm

    return tqdm(rows, total=total, unit="neuron", desc="describe", disable=not progress)
