"""What the options of a command name: its engine, corpus, worked examples and model, opened.

Each function takes the options as they were read, and refuses what does not fit together.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import ParallelCorpus, load_corpus
from lensneurons.corpora.streams import CorpusStream, stream_corpus
from lensneurons.engines.choice import Engine, RayEngine
from lensneurons.errors import LensNeuronsError, ProvenanceError
from lensneurons.evaluation.shots import require_examples
from lensneurons.models.identity import hash_weights
from lensneurons.models.loading import load_model
from lensneurons.tokens.chat import chat_corpus, refuse_system_alone
from lensneurons.values.provenance import UNKNOWN

PLACES = ("device", "device_map", "max_memory", "offload_folder")  # where a model's weights lie


def pick(options: Namespace, *names: str) -> dict[str, Any]:
    """Options by the names of the arguments that take them, which are their own names."""
    return {name: getattr(options, name) for name in names}


def open_engine(options: Namespace) -> Engine:
    """The engine that the options name.

    Raises:
        LensNeuronsError: options of workers, and none are asked for.
    """
    named = {"workers": options.workers, "cpus": options.worker_cpus}
    named |= {"gpus": options.worker_gpus, "address": options.ray_address}
    given = {name: value for name, value in named.items() if value is not None}
    if options.engine == "ray":
        return RayEngine(**given)
    if given:
        raise LensNeuronsError("--workers, --worker-... and --ray-address need --engine ray")
    return "local"


def open_corpus(options: Namespace, languages: Sequence[str] | None) -> ParallelCorpus:
    """Read the corpus that the options name, in some languages or in all."""
    if not options.chat:
        refuse_system_alone(None, options.system)
    return load_corpus(options.corpus, languages=languages, **pick(options, "split", "limit"))


def open_stream(options: Namespace) -> CorpusStream:
    """The corpus that the options name, to be read shard by shard.

    Raises:
        LensNeuronsError: an option that a stream does not take.
    """
    if options.chat or options.system is not None or options.limit is not None or options.romanised:
        raise LensNeuronsError(
            "--stream reads texts as they are, and all of them: leave --chat, --system, --limit "
            "and --romanised away, or read the corpus whole"
        )
    return stream_corpus(
        options.corpus, languages=options.languages, **pick(options, "split", "shard_items")
    )


def open_shots(options: Namespace, corpus: ParallelCorpus) -> ParallelCorpus | None:
    """Read the worked examples that the options name, in the languages of a corpus.

    Raises:
        LensNeuronsError: a number of examples, and no file.
        CorpusError: what `require_examples` refuses, or fewer examples than asked.
    """
    if options.shots is None:
        if options.n_shots is not None:
            raise LensNeuronsError("--n-shots takes examples from a file: give --shots too")
        return None
    languages = corpus.languages
    shots = load_corpus(options.shots, languages=languages, limit=options.n_shots)
    require_examples(corpus.items, shots)
    if options.n_shots and len(shots) < options.n_shots * len(languages):
        raise LensNeuronsError(
            f"--n-shots {options.n_shots}: {options.shots} has {len(shots) // len(languages)} "
            "examples a language"
        )
    return shots


def in_template(options: Namespace, model: Any, corpus: ParallelCorpus) -> ParallelCorpus:
    """The corpus in the model's chat template where the options say so, else as it is."""
    return chat_corpus(model, corpus, system=options.system) if options.chat else corpus


def open_model(options: Namespace, dtype: Any) -> Any:
    """Load the model that the options name."""
    return load_model(
        options.model,
        dtype=dtype,
        local_files_only=options.offline,
        adapter=getattr(options, "adapter", None),  # align has none
        adapter_revision=getattr(options, "adapter_revision", None),
        **pick(options, *PLACES, "revision"),
    )


def open_same_model(options: Namespace, statistics: ActivationStatistics) -> Any:
    """Load the model in the number format of the run, and require the weights of the run.

    Raises:
        ProvenanceError: its weights differ, and ``--other-weights`` was not given.
    """
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
