"""What a study will cost before it begins, from one measured batch; and what fits into a budget.

    rates   seconds a token (or a step of writing), measured on a few texts of the corpus
    sizes   how many items each step reads
    plan    passes x tokens x rates, step by step

Reading is linear in tokens, so a rate measured on one batch carries far. Writing is not: a step
costs a fixed part and a part for each text of the batch, so it is measured with two sizes of batch,
and a text is planned at its longest.

>>> ln.study(model, corpus, "runs/study", dry_run=True)                  # doctest: +SKIP

A budget shortens a study by reading fewer items, in the same proportion in every step, but never
fewer than an interval needs (`LEAST`). What was cut is said.

What it does not know: other programs on the machine, and how soon a model ends its texts. A second
model is planned at the rates of the first.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from lensneurons.activations.collection import collect
from lensneurons.activations.items import ItemActivations
from lensneurons.cards.card import describe_all
from lensneurons.comparison.coupled_layers import layer_coupling
from lensneurons.comparison.coupled_neurons import FEWEST as FEWEST_COUPLED
from lensneurons.comparison.coupled_neurons import GROUPS, coupling
from lensneurons.comparison.overlap import compare_halves
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import EmptySetWarning, LensNeuronsError
from lensneurons.evaluation.generation import generate
from lensneurons.evaluation.likelihood import nll
from lensneurons.experiments.ablation_effects import FEWEST
from lensneurons.experiments.lens import logit_lens
from lensneurons.interventions.editing import ablate
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import FEWEST_LAYERS, divide_layers
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.batches import item_groups
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import prepare
from lensneurons.values.base import Overview, Table

PROBE_TOKENS = 1500  # of the texts that rates are measured on
PROBE_NEURONS = 256  # whose coupling is measured
SINGLE_ITEMS = 2  # that neurons are removed on one by one
COUPLING_DRAWS = 200
MEASURES = ("activation", "plnd", "direct", "activation_gradient")  # of importance, cheap ones
WRITTEN = (2, 8)  # new tokens of the texts whose writing is measured
BATCHES = (2, 12)  # and how many of them are written at once
ENOUGH_SECONDS = 1.0  # of a step of unlike costs: shorter is mostly what a call costs by itself
# Page, tables and hashes: 3.1, 3.5 and 8.3 s measured for 4,096, 36,864 and 116,736 neurons.
RESULTS_SECONDS, RESULTS_SECONDS_A_NEURON = 2.5, 5e-5


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many items of each language the steps of a study read.

    Attributes:
        items: for the counts, the first ones of the corpus.
        effect_items: for the effects, the last ones, which the counts do not read.
        controls: random sets of each control, a setting and language.
        lens_items: for the logit lens.
        card_items: for the texts and the importances on cards.
        cards: cards of each language.
    """

    items: int
    effect_items: int
    controls: int
    lens_items: int
    card_items: int
    cards: int


# The fewest items that still give intervals: two in each of ten groups, and `FEWEST` for a mean.
LEAST = Sizes(items=20, effect_items=FEWEST, controls=FEWEST, lens_items=5, card_items=5, cards=1)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step, before it is done.

    Attributes:
        step: its name.
        texts: texts that pass through the model, all passes together.
        tokens: of these texts; for writing, of the texts at their longest.
        seconds: of wall-clock time.
        memory: GiB of the process at its largest.
        disk: MiB that the step writes into the folder. Activations of single texts, most of what
            "methods" writes, are removed at its end.
    """

    step: str
    texts: int
    tokens: int
    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Table[PlannedStep]):
    """What a study will cost. Made by ``study(..., dry_run=True)``, and by every study first.

    Attributes:
        rows: one a step, in order.
        sizes: how many items each step reads.
        cut: what a budget took away, a sentence each.
        budget: seconds that were allowed; None for a study without a budget.
    """

    FILE_KIND = "study plan"

    rows: tuple[PlannedStep, ...]
    sizes: Sizes
    cut: tuple[str, ...] = ()
    budget: float | None = None

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(row.seconds for row in self.rows)

    def _brief(self) -> str:
        memory, disk = max(row.memory for row in self.rows), sum(row.disk for row in self.rows)
        told = f"{len(self)} steps, {minutes(self.seconds)}, {memory:.1f} GiB of memory, "
        return "; ".join([f"{told}{disk:.0f} MiB on disk", *self.cut])

    def _overview(self) -> Overview:
        rows = [
            (row.step, row.texts, row.tokens, minutes(row.seconds), f"{row.memory:.1f}",
             f"{row.disk:.1f}")
            for row in self.rows
        ]  # fmt: skip
        head = ("step", "texts", "tokens", "time", "memory, GiB", "disk, MiB")
        return Overview(repr(self), head, rows)


def minutes(seconds: float) -> str:
    """A time to read: ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Rates:
    """What one batch cost.

    Attributes:
        counting: seconds a token of `collect`.
        scoring: seconds a token of a pass with logits and neurons removed.
        lens: seconds a token of `logit_lens`.
        card: seconds a token of the importances and contexts of cards.
        neurons: seconds to identify, to divide the layers and to compare halves.
        step: seconds of one step of writing, without texts; NaN where nothing is written.
        step_text: what each text adds to it.
        memory: GiB of the process after measuring.
        coupling: seconds of the coupling of all neurons and layers over `FEWEST_COUPLED` items.
    """

    counting: float
    scoring: float
    lens: float
    card: float
    neurons: float
    step: float
    step_text: float
    memory: float
    coupling: float = 0.0


def peak_memory() -> float:
    """Largest memory of this process so far, GiB; NaN on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return math.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2 ** (30 if sys.platform == "darwin" else 20)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _rate(work: Callable[[ParallelCorpus], object], corpus: ParallelCorpus) -> float:
    """Seconds an item, on twice as many items until `ENOUGH_SECONDS` have passed."""
    spent, number = 0.0, 1
    while spent < ENOUGH_SECONDS and number <= len(corpus.ids):
        spent = _seconds(partial(work, corpus.head(number)))
        number *= 2
    return 2 * spent / number


def measure_rates(
    model: Any,
    corpus: ParallelCorpus,
    *,
    scope: Scope | None,
    steps: Sequence[str],
    prompts: Sequence[str] = (),
) -> Rates:
    """Measure what the steps of a study cost a token, each on one batch after a first, unmeasured.

    Args:
        model: a TransformerLens model.
        corpus: its texts are read.
        scope: which tokens count.
        steps: those that will be done; the others cost 0.
        prompts: what texts are written after.
    """
    lengths = prepare(model, corpus, scope=scope).encoded.lengths
    an_item = float(lengths.sum()) / len(corpus.ids)
    few = corpus.head(max(2, min(len(corpus.ids), round(PROBE_TOKENS / an_item))))
    probe = prepare(model, few, scope=scope)
    tokens = float(probe.encoded.lengths.sum())
    quiet: Any = {"progress": False}
    # A group is a hash of an item's name: the few items of a batch must not share one.
    groups = next(n for n in range(2, 100) if len(set(item_groups(few.ids, n))) > 1)
    statistics = collect(model, probe, groups=groups, **quiet)
    found = dict.fromkeys(("counting", "scoring", "lens", "card", "neurons", "coupling"), 0.0)
    found["counting"] = _seconds(lambda: collect(model, probe, groups=groups, **quiet)) / tokens
    site = probe.site
    removed = NeuronSet(np.zeros(1, np.int64), site.n_layers, site.d_mlp)
    if {"effects", "cards", "methods"} & set(steps):
        with ablate(model, removed):
            nll(model, probe.corpus.head(1), scope=scope, **quiet)
            found["scoring"] = _seconds(lambda: nll(model, probe, **quiet)) / tokens
    identified = []

    def find() -> None:
        with warnings.catch_warnings(action="ignore", category=EmptySetWarning):
            identified.append(identify(statistics, score="lape"))
            identify(statistics)
        if site.n_layers >= FEWEST_LAYERS:
            divide_layers(identified[0], statistics)
        compare_halves(statistics)

    found["neurons"] = _seconds(find)
    # The lens costs a vocabulary a layer: two languages are enough.
    slow = corpus.select(corpus.languages[:2])
    an_item = float(prepare(model, slow, scope=scope).encoded.lengths.sum()) / len(slow.ids)
    if "lens" in steps:
        found["lens"] = (
            _rate(lambda few: logit_lens(model, few, scope=scope, **quiet), slow) / an_item
        )
    if "cards" in steps:
        names = identified[0].to_pandas()["name"][:1]

        def describe(few: ParallelCorpus) -> None:
            describe_all(model, identified[0], names, corpus=few, scope=scope, **quiet)

        found["card"] = max(0.0, _rate(describe, slow) / an_item - found["scoring"])
    if "methods" in steps:
        found["coupling"] = _coupling_seconds(len(corpus.languages), site.n_layers, site.d_mlp)
    step = each = math.nan
    if prompts:
        per_step = []
        for size in BATCHES:
            some = [prompts[place % len(prompts)] for place in range(size)]
            short, long = (
                _seconds(lambda n=n, some=some: generate(model, some, max_new_tokens=n, **quiet))
                for n in WRITTEN
            )
            per_step.append(max(long - short, 1e-4) / (WRITTEN[1] - WRITTEN[0]))
        each = max(0.0, (per_step[1] - per_step[0]) / (BATCHES[1] - BATCHES[0]))
        step = max(per_step[0] - BATCHES[0] * each, 1e-4)
    return Rates(**found, step=step, step_text=each, memory=peak_memory())


def _coupling_seconds(languages: int, n_layers: int, d_mlp: int) -> float:
    """Seconds of both couplings over `FEWEST_COUPLED` items, from a few made-up neurons."""
    width, draws = min(d_mlp, PROBE_NEURONS), 20
    values = np.random.default_rng(0).random((languages, FEWEST_COUPLED, 1, width), np.float32)
    names = tuple(map(str, range(FEWEST_COUPLED)))
    items = ItemActivations(tuple(f"l{n}" for n in range(languages)), names, values)
    by_neuron = _seconds(lambda: coupling(items, draws=draws))
    by_layer = _seconds(lambda: layer_coupling(items, draws=draws))
    passes = (1 + GROUPS + COUPLING_DRAWS) / (1 + GROUPS + draws)
    return passes * n_layers * (by_neuron * d_mlp / width + by_layer)


@dataclass(frozen=True)
class Work:
    """What decides the cost of a study, beside its sizes and the rates.

    Attributes:
        steps: names, in order.
        languages: of the corpus.
        tokens: of one item in all languages, as it is read.
        settings: of the matrices.
        rows: languages whose neurons are removed.
        matches: kinds of controls.
        metrics: of the matrices.
        new_tokens: of a written text, at most; 0 where nothing is written.
        prompt_tokens: of the longest prompt.
        batch_tokens: of a batch.
        neurons: of the model.
        groups: of items.
        other_items: of the second corpus.
        methods: that are compared.
        method_items: that they read, at most.
        single_neurons: that are removed one by one.
    """

    steps: tuple[str, ...]
    languages: int
    tokens: float
    settings: int
    rows: int
    matches: int
    metrics: tuple[str, ...]
    new_tokens: int
    prompt_tokens: int
    batch_tokens: int
    neurons: int
    groups: int
    other_items: int = 0
    methods: tuple[str, ...] = ()
    method_items: int = 0
    single_neurons: int = 0


def plan_steps(work: Work, sizes: Sizes, rates: Rates) -> tuple[PlannedStep, ...]:
    """Texts, tokens, seconds, memory and disk of every step."""
    counts = 8 * work.neurons * work.languages * (work.groups + 2)  # and two float64 sums
    memory = rates.memory + 2 * counts / 2**30
    rows = []

    def add(step: str, texts: int, seconds: float, disk: int, tokens: float | None = None) -> None:
        if step in work.steps:
            read = texts / work.languages * work.tokens if tokens is None else tokens
            rows.append(PlannedStep(step, texts, round(read), seconds, memory, disk / 2**20))

    def writing(texts: int, at_once: int) -> float:
        batches = math.ceil(texts / at_once)
        return batches * work.new_tokens * (rates.step + rates.step_text * min(at_once, texts))

    asked = (sizes.items + sizes.effect_items) * work.languages
    longest = work.prompt_tokens + work.new_tokens
    answering = writing(asked, max(1, 4 * work.batch_tokens // max(1, longest)))
    add("answers", asked, answering, 2000 * asked, float(asked * work.new_tokens))
    texts = sizes.items * work.languages
    add("counts", texts, texts / work.languages * work.tokens * rates.counting, counts)
    other = work.other_items * work.languages  # counted for the stability
    seconds = rates.neurons + work.other_items * work.tokens * rates.counting
    disk = 3 * work.neurons * 40 + (counts if other else 0)
    add("neurons", other, seconds, disk)
    texts = sizes.lens_items * work.languages
    add("lens", texts, texts / work.languages * work.tokens * rates.lens, 500 * texts)
    an_item = 1 + work.matches * math.ceil(sizes.controls / sizes.effect_items)
    passes = work.settings * work.rows * an_item
    texts = sizes.effect_items * work.languages * passes
    seconds = tokens = 0.0
    if "nll" in work.metrics:
        tokens += texts / work.languages * work.tokens
        seconds += tokens * rates.scoring
    if "accuracy" in work.metrics:
        tokens += texts * work.new_tokens
        seconds += writing(texts, max(1, work.batch_tokens // max(1, work.prompt_tokens)))
    add("effects", texts * len(work.metrics), seconds, 16 * texts, tokens)
    read = sizes.card_items * work.tokens
    cards = sizes.cards * work.languages
    seconds = read * (rates.card + cards * rates.scoring)
    add("cards", sizes.card_items * work.languages * (cards + 4), seconds, 20_000 * cards)
    one_by_one = SINGLE_ITEMS * work.single_neurons
    items = min(work.method_items, sizes.items)
    measures = len([one for one in work.methods if one in MEASURES])
    compared = len(work.methods) * work.rows * sizes.effect_items
    compared *= 1 + math.ceil(sizes.controls / sizes.effect_items)
    scored = compared + one_by_one + 2 * items * measures  # a gradient costs about two passes
    seconds = work.tokens * (scored * rates.scoring + items * rates.counting)
    seconds += rates.coupling * items / FEWEST_COUPLED
    texts = (scored + items) * work.languages
    disk = 4 * items * work.languages * work.neurons + 16 * work.neurons
    add("methods", texts, seconds, disk + 16 * compared * work.languages)
    texts = sizes.items * work.languages
    seconds = texts / work.languages * work.tokens * rates.counting
    disk = counts
    if "answers" in work.steps:
        texts, seconds, disk = texts + asked, seconds + answering, disk + 2000 * asked
    add("aligned", texts, seconds, disk)
    seconds = RESULTS_SECONDS + RESULTS_SECONDS_A_NEURON * work.neurons
    add("results", 0, seconds, 20_000_000)
    return tuple(rows)


def fit(work: Work, sizes: Sizes, rates: Rates, budget: float) -> tuple[Sizes, tuple[str, ...]]:
    """The largest sizes that fit into a budget, in seconds, and what was cut, a sentence each.

    Raises:
        LensNeuronsError: not even the smallest study fits; says how long that takes.
    """

    def at(share: float) -> Sizes:
        told = {
            one.name: min(
                getattr(sizes, one.name),
                max(getattr(LEAST, one.name), int(share * getattr(sizes, one.name))),
            )
            for one in fields(Sizes)
        }
        return replace(sizes, **told)

    def cost(share: float) -> float:
        return sum(row.seconds for row in plan_steps(work, at(share), rates))

    if cost(1.0) <= budget:
        return sizes, ()
    if cost(0.0) > budget:
        raise LensNeuronsError(
            f"budget={minutes(budget)}: the smallest study that gives intervals takes about "
            f"{minutes(cost(0.0))}; give more, or leave out steps (skip), languages or settings"
        )
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    chosen = at(low)
    cut = tuple(
        f"{one.name.replace('_', ' ')}: {getattr(chosen, one.name)} of {getattr(sizes, one.name)}"
        for one in fields(Sizes)
        if getattr(chosen, one.name) < getattr(sizes, one.name)
    )
    return chosen, cut
