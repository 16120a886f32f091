"""`lensneurons demo`: everything, on the model that comes with the package, without a network.

load -> collect on held-out problems -> identify -> four parts -> ablate -> try prompts without
     -> describe -> collect and ask the aligned model, compare -> report

The order is that of the paper. Collecting is fast and reads many problems. The matrix of effects
and the texts on the cards are slow and use few, so the whole takes a minute. Every figure says how
many items it rests on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lensneurons.activations.collection import collect
from lensneurons.cards.card import describe_all
from lensneurons.comparison.before_after import compare
from lensneurons.corpora.corpus import ParallelCorpus, load_corpus
from lensneurons.errors import ControlWarning, EmptySetWarning, LensNeuronsError
from lensneurons.evaluation.answers import Accuracy, accuracy
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.experiments.ablation_effects import FEWEST, AblationMatrix
from lensneurons.experiments.without import try_without
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import Score, identify
from lensneurons.neurons.parts import divide_layers
from lensneurons.options import plain_options
from lensneurons.reports import report
from lensneurons.samples.profiles import published_profile
from lensneurons.samples.sample import load_sample
from lensneurons.views.explorer import explore

SCORE: Score = "lape"
TOP_RATE = 0.09
EFFECTS_IN = ("en", "es", "zh", "ja", "sw")  # all ten have four times the cells
MATRIX_ITEMS = 10  # each meets one random set of each control
BATCH_TOKENS = 2048  # of so small a model, what the caches of a processor hold
PROMPTED = ("zh", "sw")  # languages of the prompts that are continued with and without
ALIGNED, TRAINED = "zh-de", ("zh", "de")  # adapter, and the languages that it was trained in
ANSWERED = (*TRAINED, "ja", "es")  # languages of the problems answered before and after it
ANSWER_ITEMS = 10
WRITTEN = 60  # most tokens of a continuation or an answer
CONTEXT_ITEMS = 12
EXPLORED_ITEMS = 2  # in every language; an item more makes the file 0.4 MB larger
CARDS = 2  # in each language
NOTE = (
    "The model is a small one of {parameters:,} parameters that comes with this package, trained "
    "by it on word problems in ten languages, with sparse gates. It shows how the method works; it "
    "is no finding about large language models. Its card is demo/weights/README.md in the package."
)
ALIGNED_NOTE = (
    "Ten problems a language say little about the alignment. On 500, right answers rose by 17.0 "
    "points (13.9 to 20.0) in Chinese and German, which were trained, and by 6.5 (5.1 to 7.8) in "
    "the seven untouched languages; after a training on shuffled pairs they did not. Two models "
    "of other seeds gained 8.7 and 5.9 points there. demo/adapters/README.md in the package has "
    "all runs and controls, also one that does harm."
)


@plain_options
def run_demo(
    out: str | Path,
    *,
    languages: Sequence[str] | None = None,
    items: int = 30,
    say: Callable[[str], None],
) -> Path:
    """Run the main job from the model to the report, and return the report's path.

    Args:
        out: the report to write.
        languages: which of the ten languages to compare; all by default.
        items: held-out problems in each language.
        say: called with each line of the summary.

    Raises:
        LensNeuronsError: an unknown language, or fewer than two.
    """
    start = time.perf_counter()
    corpus = load_corpus("demo", split="test", limit=items, languages=languages)
    if len(corpus.languages) < 2:
        raise LensNeuronsError(
            f"only {list(corpus.languages)}: neurons of a language need a second one to be told "
            "apart; give two or more, such as en,zh"
        )
    say("1. loading the demo model")
    model = load_model("demo")
    say(f"2. counting activations over {len(corpus)} held-out problems")
    statistics = collect(model, corpus, batch_tokens=BATCH_TOKENS)
    say("3. identifying language neurons and looking for the four parts")
    neurons = identify(statistics, score=SCORE, top_rate=TOP_RATE)
    parts = divide_layers(neurons, statistics)
    shown = [code for code in corpus.languages if languages is not None or code in EFFECTS_IN]
    few = corpus.select(shown).head(MATRIX_ITEMS)
    say(f"4. removing those of {len(shown)} languages, on {len(few.ids)} problems in each")
    effects: tuple[AblationMatrix, ...] = ()
    if len(few.ids) >= FEWEST:  # fewer have no interval
        with warnings.catch_warnings(record=True) as warned:
            for kind in (ControlWarning, EmptySetWarning):
                warnings.simplefilter("always", kind)
            options: Any = {"controls": MATRIX_ITEMS, "match": "own"}
            # Agnostic neurons stay: they fire too often for any to match them.
            sets = {"specific and related": {code: neurons[code] for code in shown}}
            effects = (ablation_matrix(model, few, neurons, sets=sets, **options),)
        for one in warned:
            say(f"   note: {one.message}")
    say("5. the same prompt with and without them")
    prompts = {item.language: item.prompt for item in corpus.head(1)}
    continuations = [
        try_without(model, prompts[code], neurons[code], max_new_tokens=WRITTEN)
        for code in PROMPTED
        if code in prompts and len(neurons[code])
    ]
    say("6. looking closer at some of them")
    table = neurons.to_pandas()
    specific = table[table["class"] == "specific"]  # the lowest scores first
    cards = describe_all(
        model,
        neurons,
        specific.groupby("languages", sort=False).head(CARDS)["name"],
        corpus=corpus.head(CONTEXT_ITEMS),
        statistics=statistics,
        importances=[],  # these and the effects take longer than all of the rest
        effect=False,
        k=2,
        tokens=8,
    )
    say(f"7. answering and counting again after the alignment of {' and '.join(TRAINED)}")
    aligned = load_model("demo", adapter=ALIGNED)
    after = collect(aligned, corpus, batch_tokens=BATCH_TOKENS)
    trained = [code for code in TRAINED if code in corpus.languages]
    comparison = compare(statistics, after, tau=neurons.tau, trained=trained)
    answers = _answer_both(corpus, model, aligned)
    parameters = sum(weight.numel() for weight in model.original_model.parameters())
    note = NOTE.format(parameters=parameters)
    title = "Language neurons of a small model"
    real = {
        "Gemma 3 270M": load_sample("gemma-3-270m").neurons,
        "Mistral-7B of the paper": published_profile("mistral-7b"),
    }
    page = report(
        out, neurons, parts=parts, cards=cards, effects=effects, continuations=continuations,
        comparison=comparison, accuracy=answers[0], aligned_accuracy=answers[1],
        beside=real, title=title, notes=[note, ALIGNED_NOTE],
        explorer=explore(neurons, corpus, model=model, items=EXPLORED_ITEMS),
    )  # fmt: skip
    say(f"\n{neurons.description}\n\n{neurons.per_language().to_string()}")
    say("\nneurons by the number of languages they are active in, N = 0, 1, ...:")
    say("  " + "  ".join(f"{count}" for count in neurons.histogram("all")))
    for found in (parts, *effects):
        say(f"\n{found!r}")
    say(f"\n{note}\n\npage: {page} ({time.perf_counter() - start:.0f} s)")
    return page


def _answer_both(
    corpus: ParallelCorpus, model: Any, aligned: Any
) -> tuple[Accuracy | None, Accuracy | None]:
    """Answers of both models to the same problems, drawn from the same noise.

    Greedy answers would hide that the model knows two ways to answer. There are none where the
    corpus has none of the languages of `ANSWERED`.
    """
    asked = [code for code in ANSWERED if code in corpus.languages]
    if not asked:
        return None, None
    problems = corpus.select(asked).head(ANSWER_ITEMS)
    options: Any = {"max_new_tokens": WRITTEN, "temperature": 1.0}
    return accuracy(model, problems, **options), accuracy(aligned, problems, **options)
