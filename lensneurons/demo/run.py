"""`lensneurons demo`: everything, on a small model, without a network.

train in seconds -> collect on held-out problems -> identify -> four parts -> one page
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lensneurons.activations import collect
from lensneurons.corpora import load_corpus
from lensneurons.demo.recipe import RECIPES
from lensneurons.demo.training import train
from lensneurons.identification import identify
from lensneurons.models import load_model
from lensneurons.neurons import LanguageNeurons
from lensneurons.phases import LayerParts, divide_layers
from lensneurons.report import report

TOP_RATE = 0.05
MODEL = "a small model, trained for this demo"
NOTE = (
    "This demo trains a model of {parameters:,} parameters for a few seconds on word problems in "
    "ten languages, before your eyes. It has seen enough to tell the languages apart, not to solve "
    "the problems, so the page is a tour of the method, not a finding about language models."
)


def run_demo(
    out: str | Path,
    *,
    languages: Sequence[str] | None = None,
    items: int = 100,
    say: Callable[[str], None],
) -> Path:
    """Run the main job from training to the page, and tell what happens.

    Args:
        out: the page to write.
        languages: which of the ten languages to compare; all by default.
        items: held-out problems in each language.
        say: called with each line of the summary.

    Returns:
        The path of the page.

    Raises:
        LensNeuronsError: an unknown language, or fewer than two.
    """
    start = time.perf_counter()
    corpus = load_corpus("demo", split="test", limit=items, languages=languages)
    with _trained_model(say) as folder:
        model = load_model(folder)
        say(f"2. counting activations over {len(corpus)} held-out problems")
        statistics = collect(model, corpus)
        parameters = sum(weight.numel() for weight in model.original_model.parameters())
    say("3. identifying language neurons and looking for the four parts")
    neurons = _named(identify(statistics, top_rate=TOP_RATE))
    parts = divide_layers(neurons, statistics)
    note = NOTE.format(parameters=parameters)
    page = report(out, neurons, parts, title="Language neurons of a small model", notes=[note])
    for line in _summary(neurons, parts):
        say(line)
    say(f"\n{note}\n\npage: {page} ({time.perf_counter() - start:.0f} s)")
    return page


@contextmanager
def _trained_model(say: Callable[[str], None]) -> Iterator[Path]:
    """A folder with a model that was trained just now, for as long as the block runs."""
    say("1. training a small model for this demo (no trained one ships with the package yet)")
    with TemporaryDirectory(prefix="lensneurons-") as folder:
        yield train(RECIPES["seconds"], Path(folder) / "model")


def _named(neurons: LanguageNeurons) -> LanguageNeurons:
    """The neurons of a model that is called what it is, not by the folder it was trained in."""
    return replace(neurons, provenance=replace(neurons.provenance, model=MODEL))


def _summary(neurons: LanguageNeurons, parts: LayerParts) -> Iterator[str]:
    yield f"\n{neurons.description}\n"
    yield neurons.per_language().to_string()
    histogram = neurons.histogram("all")
    yield "\nneurons by the number of languages they are active in, N = 0, 1, ...:"
    yield "  " + "  ".join(f"{count}" for count in histogram)
    yield f"\n{parts!r}"
