"""What the commands do that find neurons: demo, collect, identify, phases.

Each takes the options of its command, calls the function of the same name, and prints its result.
"""

from __future__ import annotations

import json
import math
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensneurons.cli import summaries

if TYPE_CHECKING:
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.corpora.corpus import ParallelCorpus
    from lensneurons.neurons.language_neurons import LanguageNeurons
    from lensneurons.neurons.parts import LayerParts


def demo(options: Namespace) -> None:
    """Run everything on the small model, and say where its page is."""
    from lensneurons.demo.run import run_demo

    require_writable(options.out.parent)
    run_demo(options.out, languages=options.languages, items=options.items, say=say)


def collect(options: Namespace) -> None:
    """Count activations of a model over a corpus, into a run folder."""
    from lensneurons.activations.collection import collect

    require_writable(options.out)
    corpus = open_corpus(options, options.languages)
    statistics = collect(
        open_model(options, options.dtype),
        corpus,
        scope=options.scope,
        run_dir=options.out,
        groups=options.groups,
        batch_tokens=options.batch_tokens,
        max_length=options.max_length,
        overlong=options.overlong,
    )
    say(repr(statistics))


def identify(options: Namespace) -> None:
    """Classify the neurons of a run folder or of published counts, and keep them if asked."""
    if options.out is not None:
        require_writable(options.out)
    neurons = find_neurons(options, _read(options))
    parts = _parts(neurons)
    if options.out is not None:
        _write(options.out, neurons, parts)
    if options.json:
        say_json(summaries.summarise_neurons(neurons, parts))
    else:
        say(summaries.describe_neurons(neurons, parts))


def phases(options: Namespace) -> None:
    """Divide the layers into the four parts, with intervals where there are groups of items."""
    from lensneurons.neurons.parts import divide_layers

    statistics = _read(options)
    grouped = statistics if statistics.n_groups > 1 else None
    parts = divide_layers(find_neurons(options, statistics), grouped, draws=options.draws)
    if options.json:
        say_json(summaries.summarise_parts(parts))
    else:
        say(summaries.describe_parts(parts))


def say(text: str) -> None:
    """Write a line to stdout."""
    sys.stdout.write(text + "\n")


def say_json(value: Any) -> None:
    """Write a value as one line of JSON to stdout; numbers that JSON lacks are null."""
    say(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    """A value with null in place of every infinite number and every NaN."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_writable(folder: Path) -> None:
    """Raise where a folder cannot be written to, or made: before work is done for nothing.

    Raises:
        StorageError: names the file or folder in the way.
    """
    from lensneurons.errors import StorageError

    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise StorageError(f"{there} is a file: nothing can be written into {folder}")
    if not os.access(there, os.W_OK):
        raise StorageError(f"{there} is read-only: nothing can be written into {folder}")


def open_corpus(options: Namespace, languages: Sequence[str] | None) -> ParallelCorpus:
    """Read the corpus that the options name, in some languages or in all."""
    from lensneurons.corpora.corpus import load_corpus

    return load_corpus(
        options.corpus, languages=languages, split=options.split, limit=options.limit
    )


def open_model(options: Namespace, dtype: Any) -> Any:
    """Load the model that the options name."""
    from lensneurons.models.loading import load_model

    return load_model(
        options.model,
        device=options.device,
        dtype=dtype,
        revision=options.revision,
        local_files_only=options.offline,
        adapter=options.adapter,
    )


def find_neurons(options: Namespace, statistics: ActivationStatistics) -> LanguageNeurons:
    """Identify the neurons of some statistics as the options say."""
    from lensneurons.neurons.identification import identify

    return identify(
        statistics,
        score=options.score,
        top_rate=options.top_rate,
        percentile=options.percentile,
        lambda_=options.lambda_,
        tau=options.tau,
    )


def _read(options: Namespace) -> ActivationStatistics:
    """Statistics of a run folder, or of published counts."""
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.neurons.published import holds_published_counts, read_published_counts

    if options.published or holds_published_counts(options.folder):
        return read_published_counts(options.folder, languages=options.languages)
    statistics = ActivationStatistics.load(options.folder)
    return statistics.select(options.languages) if options.languages else statistics


def _parts(neurons: LanguageNeurons) -> LayerParts | None:
    """The parts, or None for a model with too few layers to have four."""
    from lensneurons.neurons.parts import FEWEST_LAYERS, divide_layers

    return divide_layers(neurons) if neurons.n_layers >= FEWEST_LAYERS else None


def _write(folder: Path, neurons: LanguageNeurons, parts: LayerParts | None) -> None:
    """Neurons, table and page of one identification."""
    from lensneurons.reports import report
    from lensneurons.values.files import replacing

    neurons.save(folder / "neurons.safetensors")
    with replacing(folder / "neurons.csv") as path:
        neurons.to_pandas().to_csv(path, index=False)
    report(folder / "neurons.html", neurons, parts=parts)
