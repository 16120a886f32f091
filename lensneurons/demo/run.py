"""`lensneurons demo`: everything, on the model that comes with the package, without a network.

load -> collect on held-out problems -> identify -> four parts -> one page
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lensneurons.activations import collect
from lensneurons.corpora import load_corpus
from lensneurons.identification import Score, identify
from lensneurons.models import load_model
from lensneurons.neurons import LanguageNeurons
from lensneurons.phases import LayerParts, divide_layers
from lensneurons.report import report

SCORE: Score = "lape"
TOP_RATE = 0.09
NOTE = (
    "The model is a small one of {parameters:,} parameters that comes with this package, trained "
    "by it on word problems in ten languages, with sparse gates. It shows how the method works; it "
    "is no finding about large language models. Its card is demo/weights/README.md in the package."
)


def run_demo(
    out: str | Path,
    *,
    languages: Sequence[str] | None = None,
    items: int = 100,
    say: Callable[[str], None],
) -> Path:
    """Run the main job from the model to the page, and tell what happens.

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
    say("1. loading the demo model")
    model = load_model("demo")
    say(f"2. counting activations over {len(corpus)} held-out problems")
    statistics = collect(model, corpus)
    say("3. identifying language neurons and looking for the four parts")
    neurons = identify(statistics, score=SCORE, top_rate=TOP_RATE)
    parts = divide_layers(neurons, statistics)
    parameters = sum(weight.numel() for weight in model.original_model.parameters())
    note = NOTE.format(parameters=parameters)
    page = report(out, neurons, parts, title="Language neurons of a small model", notes=[note])
    for line in _summary(neurons, parts):
        say(line)
    say(f"\n{note}\n\npage: {page} ({time.perf_counter() - start:.0f} s)")
    return page


def _summary(neurons: LanguageNeurons, parts: LayerParts) -> Iterator[str]:
    yield f"\n{neurons.description}\n"
    yield neurons.per_language().to_string()
    histogram = neurons.histogram("all")
    yield "\nneurons by the number of languages they are active in, N = 0, 1, ...:"
    yield "  " + "  ".join(f"{count}" for count in histogram)
    yield f"\n{parts!r}"
