"""What each command does: ``do_collect`` is ``lensneurons collect``, and so on.

A command refuses what it can before it loads a model, calls the function of the same name, and
prints the result. Commands that test neurons identify them from the run folder of `collect`, and
require a model with the weights of that run.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from argparse import Namespace
from functools import reduce
from html import escape
from operator import or_
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lensneurons.activations.collection import collect, require_memory
from lensneurons.activations.items import ItemActivations, item_activations
from lensneurons.activations.merging import merge_statistics
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.alignment.controls import random_adapter
from lensneurons.alignment.pairs import preference_pairs
from lensneurons.alignment.responses import (
    require_answerable,
    require_other_languages,
    respond,
    score_responses,
)
from lensneurons.alignment.training import DPOSettings, align, require_extra
from lensneurons.alignment.translation import translation_scorer
from lensneurons.cards.card import card_html, describe_all, neuron_facts
from lensneurons.cards.records import write_records
from lensneurons.cli import summaries
from lensneurons.cli.inputs import (
    PLACES,
    in_template,
    open_corpus,
    open_engine,
    open_model,
    open_same_model,
    open_shots,
    open_stream,
    pick,
)
from lensneurons.cli.shown_files import gather
from lensneurons.comparison.before_after import TABLES, compare
from lensneurons.comparison.paper_claims import claims
from lensneurons.comparison.series import compare_series
from lensneurons.corpora.corpus import ParallelCorpus, load_corpus, wanted_languages
from lensneurons.corpora.romanised import romanise
from lensneurons.errors import (
    EmptySetWarning,
    LensNeuronsError,
    StorageError,
    choose,
)
from lensneurons.evaluation.answers import answer_scorer
from lensneurons.experiments.ablation import ablation_matrix, ablation_sets
from lensneurons.experiments.ablation_effects import FEWEST
from lensneurons.experiments.metrics import METRICS
from lensneurons.interventions.export import export
from lensneurons.languages.codes import language_code
from lensneurons.languages.detection import require_identifiable
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.methods import READS
from lensneurons.neurons.parts import FEWEST_LAYERS, divide_layers
from lensneurons.neurons.published import holds_published_counts, read_published_counts
from lensneurons.values.files import plain_numbers, replacing, write_csv

COUNTING = ("site", "branches", "scope", "groups", "batch_tokens", "max_length", "overlong")
DPO_SETTINGS = (
    "steps", "batch", "micro_batch", "learning_rate", "beta", "rank", "alpha",
    "checkpoint_every", "seed",
)  # fmt: skip
# What a method reads beside the counts, and who writes it.
_WRITTEN_BY = {
    "items": "--items FILE, the activations of single texts: collect --items FILE writes them",
    "romanised": "--romanised RUN, counts of the same texts in Latin letters: collect the corpus "
    "again with --romanised and --out RUN",
}
CARD_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>:root{{color-scheme:light dark}} body{{font:16px/1.5 sans-serif;margin:2em}}
body>*+*{{margin-top:3em}}</style></head>
<body>{cards}</body></html>
"""


def do_demo(options: Namespace) -> None:
    """Run every step on the small model, and say where the report is."""
    from lensneurons.demo.run import run_demo  # this and `report` import plotly: a second

    require_writable_file(options.out)
    run_demo(options.out, languages=options.languages, items=options.items, say=say)


def do_study(options: Namespace) -> None:
    """Do the whole analysis of a model, or say what it would cost, and say where the page is."""
    from lensneurons.studies.plan import Plan, minutes
    from lensneurons.studies.study import study

    require_writable(None if options.dry_run else options.out)
    engine = open_engine(options)
    if options.aligned and options.adapter:
        raise LensNeuronsError("--aligned and --adapter both name the second model: give one")
    corpus = open_corpus(options, options.languages)
    other = load_corpus(options.other, languages=corpus.languages) if options.other else None
    loading = {"dtype": options.dtype, "local_files_only": options.offline}
    loading |= pick(options, *PLACES, "revision")

    def load_second() -> Any:
        if options.adapter:
            return load_model(options.model, adapter=options.adapter, **loading)
        return load_model(options.aligned, **{**loading, "revision": None})

    names = (
        "dry_run", "budget", "skip", "trained", "items", "effect_items", "controls", "match",
        "lens_items", "card_items", "cards", "classes", "metric", "score", "top_rate", "scope",
        "max_new_tokens", "stop", "groups", "batch_tokens", "seed", "figures", "title", "system",
        "methods", "method_items", "method_neurons", "single_neurons",
    )  # fmt: skip
    found = study(
        load_model(options.model, **loading),
        corpus,
        options.out,
        aligned=load_second if options.aligned or options.adapter else None,
        other=other,
        languages=options.removed,
        engine=engine,
        template="chat" if options.chat else None,
        say=lambda line: None if options.json else say(line),
        **pick(options, *names),
    )
    if isinstance(found, Plan):
        rows = found.to_pandas().round(1)
        told = {"seconds": found.seconds, "cut": list(found.cut), "steps": rows.to_dict("records")}
        rows["seconds"] = [minutes(one) for one in rows["seconds"]]
        rows = rows.rename(columns={"seconds": "time", "memory": "GiB", "disk": "MiB"})
        tell(options, told, f"{found!r}\n\n{rows.to_string(index=False)}")
    elif options.json:
        say_json(found.numbers)
    else:
        say(f"\n{found.to_text()}\npage: {found.page}")


def do_collect(options: Namespace) -> None:
    """Count activations of a model over a corpus, into a run folder."""
    require_writable(options.out)
    engine = open_engine(options)
    require_writable_file(options.items)
    if options.items is not None and (options.stream or options.site != "neurons"):
        raise LensNeuronsError("--items takes texts that are read whole (no --stream), and neurons")
    corpus = open_stream(options) if options.stream else open_corpus(options, options.languages)
    if isinstance(corpus, ParallelCorpus):
        require_memory(options.groups, len(corpus.languages))
        corpus = romanise(corpus) if options.romanised else corpus
    model = open_model(options, options.dtype)
    if isinstance(corpus, ParallelCorpus):
        corpus = in_template(options, model, corpus)
    counting = {"engine": engine, **pick(options, *COUNTING)}
    say(collect(model, corpus, run_dir=options.out, **counting).to_text())
    if options.items is not None and isinstance(corpus, ParallelCorpus):
        reading = pick(options, "scope", "batch_tokens")
        item_activations(model, corpus, **reading).save(options.items)
        say(f"activations of single texts: {options.items}")
    say(f"next: lensneurons identify {options.out}")


def do_merge(options: Namespace) -> None:
    """Add up what several runs counted, into one file.

    Raises:
        LensNeuronsError: the file is one of the parts, which would be lost.
    """
    require_writable_file(options.out)
    for one in options.parts:
        if options.out.resolve() in (one.resolve(), (one / "statistics.safetensors").resolve()):
            raise LensNeuronsError(
                f"--out {options.out} is one of the parts: give the sum a name of its own"
            )
    say(merge_statistics(options.parts, file=options.out).to_text())
    say(f"next: lensneurons identify {options.out}")


def do_identify(options: Namespace) -> None:
    """Classify the neurons of a run folder or of published counts; write them if asked."""
    require_writable(options.out)
    neurons = find_neurons(options, read_statistics(options))
    parts = divide_layers(neurons) if neurons.n_layers >= FEWEST_LAYERS else None
    if options.out is not None:
        from lensneurons.reports import report

        neurons.save(options.out / "neurons.safetensors")
        write_csv(neurons.to_pandas(), options.out / "neurons.csv")
        report(options.out / "neurons.html", neurons, parts=parts)
    text = summaries.describe_neurons(neurons, parts)
    text += f"\npage: {options.out / 'neurons.html'}" if options.out is not None else ""
    tell(options, summaries.summarise_neurons(neurons, parts), text)


def do_parts(options: Namespace) -> None:
    """Divide the layers into the four parts, with intervals where items were counted in groups."""
    statistics = read_statistics(options)
    grouped = statistics if statistics.n_groups > 1 else None
    parts = divide_layers(find_neurons(options, statistics), grouped, draws=options.draws)
    tell(options, summaries.summarise_parts(parts), summaries.describe_parts(parts))


# Testing neurons on their model


def do_ablate(options: Namespace) -> None:
    """Make an ablation matrix for each metric, in a folder of its own, and print its summary."""
    require_writable(options.out)
    engine = open_engine(options)
    for metric in options.metric:
        choose(metric, METRICS, "metric")
    if len(set(options.metric)) < len(options.metric):
        raise LensNeuronsError(f"metric: {options.metric} names one twice")
    statistics = ActivationStatistics.load(options.folder)
    neurons = find_neurons(options, statistics)
    rows = wanted_languages(options.languages or statistics.languages)
    ablation_sets(neurons, options.classes, rows)
    corpus = open_corpus(options, wanted_languages(options.evaluate or statistics.languages))
    if len(corpus.languages) < 2 or not set(rows) <= set(corpus.languages):
        raise LensNeuronsError(
            f"the neurons of {list(rows)} are removed and {list(corpus.languages)} evaluated: "
            "evaluate these and at least one other language"
        )
    if len(corpus.ids) < 2:
        raise LensNeuronsError(
            "one item a language shows nothing: raise the limit (intervals need "
            f"{FEWEST} items a language)"
        )
    if "accuracy" in options.metric:
        require_identifiable(corpus.languages)
    shots = open_shots(options, corpus)
    model = open_same_model(options, statistics)
    corpus = in_template(options, model, corpus)
    if "accuracy" in options.metric:  # refuse its texts before the NLL runs for hours
        answering = pick(options, "max_new_tokens", "stop")
        answer_scorer(model, corpus, shots=shots, **answering)
    names = ("classes", "controls", "match", "pool", "method", "scope", "batch_tokens", "seed")
    testing = pick(options, *names)
    matrices = {}
    for metric in options.metric:
        matrices[metric] = matrix = ablation_matrix(
            model,
            corpus,
            neurons,
            languages=rows,
            metric=metric,
            max_new_tokens=options.max_new_tokens if metric == "accuracy" else None,
            stop=options.stop if metric == "accuracy" else (),
            shots=shots if metric == "accuracy" else None,
            statistics=statistics if options.method == "mean" else None,
            run_dir=options.out / metric,
            engine=engine,
            **testing,
        )
        table = options.out / f"{metric}.csv"
        write_csv(matrix.to_pandas(), table)
        if not options.json:
            say(summaries.describe_matrix(matrix, table))
    if options.json:
        say_json(summaries.summarise_matrices(matrices))


def do_describe(options: Namespace) -> None:
    """Print the cards of some neurons; write them as a page, and as files, if asked."""
    require_writable_file(options.out)
    require_writable(options.save)
    statistics = ActivationStatistics.load(options.folder)
    neurons = find_neurons(options, statistics)
    names = list(dict.fromkeys(neuron_facts(neurons, name).name for name in options.neurons))
    corpus = open_corpus(options, options.languages or statistics.languages)
    model = open_same_model(options, statistics)
    cards = describe_all(
        model,
        neurons,
        names,
        corpus=in_template(options, model, corpus),
        statistics=statistics,
        scope=options.scope,
        progress=len(names) > 1,
    )
    if options.out is not None:
        page = CARD_PAGE.format(
            title=escape(" ".join(names)), cards="\n".join(map(card_html, cards))
        )
        with replacing(options.out) as path:
            path.write_text(page, encoding="utf-8", errors="backslashreplace")
    for name, found in zip(names, cards, strict=True):
        if options.save is not None:
            found.save(options.save / f"{name}.jsonl")
        tell(options, found.to_dict(), summaries.describe_card(found))
    if options.out is not None and not options.json:
        say(f"page: {options.out}")


def do_export(options: Namespace) -> None:
    """Write a model whose neurons of some languages are ablated or scaled, and say where."""
    require_writable(options.out)
    statistics = ActivationStatistics.load(options.folder)
    chosen = neurons_of(find_neurons(options, statistics), options)
    export(open_same_model(options, statistics), chosen, options.out, factor=options.factor)
    say(f"{chosen!r}\nmodel: {options.out}")


def do_records(options: Namespace) -> None:
    """Write a record file for each neuron of some languages, for automated interpretation."""
    require_writable(options.out)
    statistics = ActivationStatistics.load(options.folder)
    chosen = neurons_of(find_neurons(options, statistics), options)
    given = pick(options, "top", "random", "seed", "scope", "batch_tokens")
    corpus = open_corpus(options, options.texts or options.languages)
    model = open_same_model(options, statistics)
    write_records(model, in_template(options, model, corpus), chosen, options.out, **given)
    say(f"records: {options.out}")


# Aligning a model, and comparing it with what it was


def do_align(options: Namespace) -> None:
    """Sample, score, pair and train, each step in a folder of its own under ``--out``."""
    require_extra()
    require_writable(options.out)
    settings = pick(options, *DPO_SETTINGS)
    DPOSettings(**settings)
    pivot = language_code(options.pivot)
    corpus = open_corpus(options, list(dict.fromkeys([*options.languages, pivot])))
    require_other_languages(corpus.select(options.languages).languages, pivot)
    require_answerable(corpus, options.samples, options.temperature)
    asked = corpus.select(options.languages)
    shots = open_shots(options, asked)
    scorer: Any = options.scorer
    if scorer != "consistency":
        scorer = translation_scorer(
            scorer, pivot=pivot, languages=corpus.languages, local_files_only=options.offline
        )
    model = open_model(options, options.dtype)
    responses = respond(
        model,
        in_template(options, model, asked),
        shots=shots,
        run_dir=options.out / "responses",
        **pick(options, "samples", "temperature", "max_new_tokens", "stop", "seed"),
    )
    del model  # align() reads its weights again
    say(responses.to_text())
    scored = score_responses(
        responses, corpus, pivot=pivot, scorer=scorer, run_dir=options.out / "scores"
    )
    say(scored.to_text())
    chosen = pick(options, "languages", "per_item", "per_language", "seed")
    pairs = preference_pairs(scored, **chosen)
    pairs = pairs.shuffled(seed=options.seed) if options.shuffled else pairs
    pairs.save(options.out / "pairs.jsonl")
    say(pairs.to_text())
    run = align(
        options.model,
        pairs,
        options.out / "adapter",
        local_files_only=options.offline,
        **pick(options, "dtype", "device", "revision"),
        **settings,
    )
    say(f"{run.to_text()}\nadapter: {run.folder}")


def do_random_adapter(options: Namespace) -> None:
    """Write a control: an adapter that changes as much, in a random direction."""
    say(f"adapter: {random_adapter(options.adapter, options.out, seed=options.seed)}")


def do_compare(options: Namespace) -> None:
    """Print what changed between two runs, and every claim of the paper with its verdict."""
    require_writable(options.out)
    before, after = (ActivationStatistics.load(run) for run in (options.before, options.after))
    tau: Any = options.tau if options.tau is not None else "before"
    found = compare(before, after, tau=tau, **pick(options, "percentile", "trained", "pivot"))
    with warnings.catch_warnings(action="ignore", category=EmptySetWarning):  # no set is read
        neurons = identify(before, tau=options.tau, percentile=options.percentile)
    parts = divide_layers(neurons, before if before.n_groups > 1 else None)
    judged = claims(found, parts=parts if parts.found else None)
    if options.out is not None:
        found.save(options.out / "comparison.safetensors")
        judged.save(options.out / "claims.json")
        for table in TABLES:
            write_csv(found.to_pandas(table), options.out / f"{table}.csv")
    verdicts = judged.to_pandas()
    told = {"comparison": found.description, "claims": verdicts.to_dict("records")}
    text = f"{found.to_text()}\n\n{judged.to_text()}\nChanges are numbers of neurons."
    text += f"\ntables: {options.out}" if options.out is not None else ""
    tell(options, told, text)


# Reporting what the other commands left


def do_report(options: Namespace) -> None:
    """Write one report of a run and of what lies in the other folders, and say where it is.

    The neurons of the first folder are identified. Everything else is recognised by its file kind:
    later runs (the model after training, or its checkpoints in order), folders of `ablate` and
    `describe`, and files that the `save` of a value wrote.
    """
    from lensneurons.reports import report

    require_writable_file(options.out)
    first, *others = options.folders
    statistics = ActivationStatistics.load(first, memory_map=True)
    neurons = find_neurons(options, statistics)
    parts = None
    if neurons.n_layers >= FEWEST_LAYERS:
        parts = divide_layers(neurons, statistics if statistics.n_groups > 1 else None)
    found = gather(others)
    later = found.pop("runs", {})
    bar: dict[str, Any] = {"percentile": options.percentile, "trained": options.trained}
    if later:
        tau: Any = neurons.tau if options.tau is not None else "before"
        change = compare(statistics, [*later.values()][-1], tau=tau, **bar)
        four = parts if parts is not None and parts.found else None
        found |= {"comparison": change, "claims": claims(change, parts=four)}
    if len(later) > 1:
        runs = {str(path): run for path, run in {first: statistics, **later}.items()}
        tau = neurons.tau if options.tau is not None else "first"
        found["series"] = compare_series(runs, tau=tau, **bar)
    page = report(options.out, neurons, parts=parts, title=options.title, **found)
    tell(options, {"page": str(page)}, f"page: {page}")


# What commands share


def neurons_of(neurons: LanguageNeurons, options: Namespace) -> Any:
    """The neurons of the classes and languages that the options name, as one set."""
    rows = [*ablation_sets(neurons, options.classes, options.languages).values()][-1]
    return reduce(or_, rows.values()).relabel(f"{'+'.join(options.classes)} {' '.join(rows)}")


def tell(options: Namespace, value: Any, text: str) -> None:
    """Print a result: as one JSON object if the options say so, else as text."""
    if options.json:
        say_json(value)
    else:
        say(text)


def say(text: str) -> None:
    """Write a line to stdout, if there is one; what its encoding lacks is written as an escape."""
    if sys.stdout is not None:  # it was closed before the program began
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def say_json(value: Any) -> None:
    """Write a value as one line of JSON to stdout; numbers that JSON lacks are null."""
    say(json.dumps(plain_numbers(value), allow_nan=False))


def require_writable(folder: Path | None) -> None:
    """Raise if a folder cannot be written to, or made, before any work is done for nothing.

    Raises:
        StorageError: names the file or folder in the way.
    """
    if folder is None:  # nothing is to be written
        return
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise StorageError(f"{there} is a file: nothing can be written into {folder}")
    if not os.access(there, os.W_OK):
        raise StorageError(f"{there} is read-only: nothing can be written into {folder}")
    try:
        TemporaryFile(dir=there).close()
    except OSError as cause:
        raise StorageError(f"nothing can be written into {folder}: {cause.strerror}") from None


def require_writable_file(path: Path | None) -> None:
    """Raise if a file cannot be written, before any work is done for nothing.

    Raises:
        StorageError: names the file or folder in the way.
    """
    if path is None:
        return
    if path.is_dir():
        raise StorageError(f"{path} is a folder: give the name of a file in it")
    require_writable(path.parent)


def read_statistics(options: Namespace) -> ActivationStatistics:
    """Read the statistics of a run folder or file, which stay on the disk, or published counts."""
    if options.published or holds_published_counts(options.folder):
        return read_published_counts(options.folder, languages=options.languages)
    statistics = ActivationStatistics.load(options.folder, memory_map=True)
    return statistics.select(options.languages) if options.languages else statistics


def find_neurons(options: Namespace, statistics: ActivationStatistics) -> LanguageNeurons:
    """Identify the neurons of some statistics as the options say.

    Raises:
        LensNeuronsError: the method lacks what it reads beside them; says what writes it.
    """
    chosen = pick(options, "score", "top_rate", "percentile", "lambda_", "tau")
    if hasattr(options, "way"):  # `identify` and `parts`; others take a score alone
        needed = READS.get(options.way)
        if needed is not None and getattr(options, needed) is None:
            raise LensNeuronsError(f"--method {options.way} needs {_WRITTEN_BY[needed]}")
        chosen["method"] = options.way
        if options.items is not None:
            chosen["items"] = ItemActivations.load(options.items, memory_map=True)
        if options.romanised is not None:
            chosen["romanised"] = ActivationStatistics.load(options.romanised)
    return identify(statistics, **chosen)
