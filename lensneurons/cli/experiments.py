"""What the commands do that test neurons on their model: ablate, describe.

Neurons come from a run folder of `collect`, so the model has to be the one that was run: the hash
over its weights is compared with the one that the folder keeps. Whatever can be wrong is looked at
before the model is loaded, and the rest before anything runs.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lensneurons.cli import summaries
from lensneurons.cli.commands import (
    find_neurons,
    open_corpus,
    open_model,
    require_writable,
    say,
    say_json,
)

if TYPE_CHECKING:
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.cards.card import NeuronCard
    from lensneurons.corpora.corpus import ParallelCorpus
    from lensneurons.experiments.ablation import AblationMatrix
    from lensneurons.neurons.language_neurons import LanguageNeurons

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>:root{{color-scheme:light dark}} body{{font:16px/1.5 sans-serif;margin:2em}}
body>*+*{{margin-top:3em}}</style></head>
<body>{cards}</body></html>
"""


def ablate(options: Namespace) -> None:
    """Make a deactivation matrix for each metric, in a folder of its own, and print its summary."""
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.corpora.corpus import wanted_languages
    from lensneurons.experiments.ablation import ablation_sets

    require_writable(options.out)
    _check_metrics(options.metric)
    statistics = ActivationStatistics.load(options.folder)
    neurons = find_neurons(options, statistics)
    rows = wanted_languages(options.languages or statistics.languages)
    ablation_sets(neurons, options.classes, rows)
    columns = wanted_languages(options.evaluate or statistics.languages)
    corpus = open_corpus(options, columns)
    _check_columns(rows, corpus, options.metric)
    model = _open_same_model(options, statistics)
    _check_answers(model, corpus, options)
    found = {}
    for metric in options.metric:
        found[metric] = matrix = _make_matrix(model, corpus, neurons, rows, metric, options)
        _write_table(matrix, options, metric)
        if not options.json:
            say(summaries.describe_matrix(matrix, options.out / f"{metric}.csv"))
    if options.json:
        say_json(summaries.summarise_matrices(found))


def describe(options: Namespace) -> None:
    """Print the cards of some neurons; write them as a page, and as files, if asked."""
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.cards.card import describe_all, neuron_facts

    for folder in (options.out and options.out.parent, options.save):
        if folder is not None:
            require_writable(folder)
    statistics = ActivationStatistics.load(options.folder)
    neurons = find_neurons(options, statistics)
    names = list(dict.fromkeys(neuron_facts(neurons, name).name for name in options.neurons))
    corpus = open_corpus(options, options.languages or statistics.languages)
    model = _open_same_model(options, statistics)
    cards = describe_all(
        model,
        neurons,
        names,
        corpus=corpus,
        statistics=statistics,
        scope=options.scope,
        progress=len(names) > 1,
    )
    if options.out is not None:
        _write_page(cards, options.out)
    for card in cards:
        if options.save is not None:
            card.save(options.save / f"{card.facts.name}.jsonl")
        if options.json:
            say_json(card.to_dict())
        else:
            say(repr(card))


def _open_same_model(options: Namespace, statistics: ActivationStatistics) -> Any:
    """The model, in the number format of the run, once it is plain that it is the one of the run.

    Raises:
        ProvenanceError: its weights are others, and nobody said that they may be.
    """
    from lensneurons.errors import ProvenanceError
    from lensneurons.models.identity import hash_weights
    from lensneurons.values.provenance import UNKNOWN

    origin = statistics.provenance
    dtype = options.dtype or (origin.dtype if origin.dtype != UNKNOWN else "float32")
    model = open_model(options, dtype)
    same = origin.weights in (UNKNOWN, hash_weights(model))
    if not same and not options.other_weights:
        raise ProvenanceError(
            f"{options.model} in {dtype} does not have the weights that {options.folder} was "
            f"collected from ({origin.model} in {origin.dtype}): give that model and --dtype, or "
            "--other-weights to test its neurons in this one"
        )
    return model


def _check_metrics(metrics: list[str]) -> None:
    from lensneurons.errors import LensNeuronsError, choose
    from lensneurons.experiments.ablation import Metric

    for metric in metrics:
        choose(metric, get_args(Metric), "metric")
    if len(set(metrics)) < len(metrics):
        raise LensNeuronsError(f"metric: {metrics} names one twice")


def _check_columns(rows: tuple[str, ...], corpus: ParallelCorpus, metrics: list[str]) -> None:
    """Raise where the summary would lack its diagonal, the rest, or its intervals."""
    from lensneurons.errors import LensNeuronsError
    from lensneurons.languages.detection import require_identifiable

    if len(corpus.languages) < 2 or not set(rows) <= set(corpus.languages):
        raise LensNeuronsError(
            f"the neurons of {list(rows)} are removed and {list(corpus.languages)} evaluated: "
            "evaluate these and at least one other language"
        )
    if len(corpus.ids) < 2:
        raise LensNeuronsError("intervals need at least two items a language: raise the limit")
    if "accuracy" in metrics:
        require_identifiable(corpus.languages)


def _check_answers(model: Any, corpus: ParallelCorpus, options: Namespace) -> None:
    """Raise for texts that accuracy cannot judge, before another metric runs for hours."""
    from lensneurons.evaluation.answers import answer_scorer

    if "accuracy" in options.metric:
        answer_scorer(model, corpus, max_new_tokens=options.max_new_tokens)


def _make_matrix(
    model: Any,
    corpus: ParallelCorpus,
    neurons: LanguageNeurons,
    rows: tuple[str, ...],
    metric: Any,
    options: Namespace,
) -> AblationMatrix:
    """The matrix of one metric, from its folder as far as it is there."""
    from lensneurons.experiments.ablation import ablation_matrix

    return ablation_matrix(
        model,
        corpus,
        neurons,
        classes=options.classes,
        languages=rows,
        metric=metric,
        controls=options.controls,
        max_new_tokens=options.max_new_tokens if metric == "accuracy" else None,
        scope=options.scope,
        run_dir=options.out / metric,
        batch_tokens=options.batch_tokens,
        seed=options.seed,
    )


def _write_table(matrix: AblationMatrix, options: Namespace, metric: str) -> None:
    """The cells of a matrix, as a table."""
    from lensneurons.values.files import replacing

    with replacing(options.out / f"{metric}.csv") as path:
        matrix.to_pandas().to_csv(path, index=False)


def _write_page(cards: Sequence[NeuronCard], path: Path) -> None:
    """The cards, as a page that needs nothing else."""
    from lensneurons.cards.card import card_html
    from lensneurons.values.files import replacing

    title = escape(" ".join(card.facts.name for card in cards))
    page = PAGE.format(title=title, cards="\n".join(map(card_html, cards)))
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
