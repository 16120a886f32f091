"""`study`: from a model and a corpus to the whole paper, in one command that can be resumed.

    plan       measure one batch; say what every step will cost
    answers    let the model answer, where the corpus has prompts and only numbers to answer them
    counts     activation statistics of the first items
    neurons    identified with the paper's score and with LAPE; the four parts; stability
    lens       the languages that each layer would say
    effects    deactivation matrices with controls, on the last items, which the counts do not read
    cards      the strongest neurons of each language, looked at closely
    methods    other methods and measures beside them, and coupling (if asked for)
    aligned    counts of a second model, its answers, and what changed
    results    claims with verdicts, page, tables, figures, and all numbers in ``study.json``

Each step leaves its value in the folder, and a study that was killed goes on after the last whole
one; collecting, answering and matrices go on within. A folder that was begun with another model,
corpus or option is refused by name. The same study ends with the same bytes, however often it was
interrupted; only ``plan.jsonl``, ``timings.json`` (measured times) and ``steps.json`` (the hash of
the plan) differ.

    runs/study/
      study.json            all numbers, with versions and the hashes of the other files
      page.html             everything to look at
      tables/*.csv, *.parquet        figures/*.svg, *.png (if asked for)
      counts/ answers/ effects-nll/  run folders        values/ cards/   saved values

>>> ln.study(model, corpus, "runs/study")                                # doctest: +SKIP

What it does not do: choose for you. Neurons whose effects are measured come from one score and one
share of neurons, which is an option. Items that identify neurons and items that show their effects
are different ones, and the fewer there are the wider the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from lensneurons.activations.collection import collect, require_memory
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.card import NeuronCard, describe_all
from lensneurons.comparison.before_after import Comparison, compare
from lensneurons.comparison.overlap import Stability, compare_halves, stability
from lensneurons.comparison.paper_claims import Claims, claims
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.engines.choice import Engine, ray_engine
from lensneurons.engines.pool import engine_for, ray_started
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.answers import Accuracy, accuracy, expected_number
from lensneurons.evaluation.generation import encode_prompts, fit_context
from lensneurons.experiments.ablation import MATCHES, ablation_matrix
from lensneurons.experiments.ablation_effects import FEWEST
from lensneurons.experiments.controls import Match
from lensneurons.experiments.lens import LensCurves, logit_lens
from lensneurons.experiments.metrics import METRICS
from lensneurons.models.running import runs_model
from lensneurons.neurons.identification import Score, identify
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.parts import FEWEST_LAYERS, LayerParts, divide_layers
from lensneurons.options import plain_options
from lensneurons.studies.finished import SCORES, Study
from lensneurons.studies.kept import Kept
from lensneurons.studies.methods_step import compare_all, require_methods
from lensneurons.studies.model_claims import model_claims
from lensneurons.studies.plan import (
    LEAST,
    Plan,
    Sizes,
    Work,
    fit,
    measure_rates,
    plan_steps,
)
from lensneurons.studies.texts import counted_items, is_bare, with_answers
from lensneurons.tokens.chat import Template, chat_corpus, refuse_system_alone
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import prepare, refuse_hooks
from lensneurons.values.files import remove_leftovers, system_path
from lensneurons.values.run_folders import Run, open_folder

STEPS = (
    "answers", "counts", "neurons", "lens", "effects", "cards", "methods", "aligned", "results",
)  # fmt: skip
SKIPPABLE = ("lens", "effects", "cards")
# Options that a folder may be begun without, and then be gone on with.
UNDECIDED = (
    "aligned", "other", "dry_run", "skip", "figures", "title", "engine", "say",
    "methods", "method_items", "method_neurons", "single_neurons",
)  # fmt: skip
FOLDERS = ("values", "cards", "tables", "figures")


@plain_options
@runs_model
def study(
    model: Any,
    corpus: ParallelCorpus,
    out: str | Path,
    *,
    aligned: Any = None,
    trained: Sequence[str] = (),
    other: ParallelCorpus | None = None,
    items: int | None = None,
    effect_items: int = 20,
    controls: int = 20,
    match: Match | Sequence[Match] = ("own",),
    lens_items: int = 20,
    card_items: int = 20,
    cards: int = 2,
    methods: Sequence[str] = (),
    method_items: int = 80,
    method_neurons: int = 100,
    single_neurons: int = 100,
    languages: Sequence[str] | None = None,
    classes: Sequence[str] = LAYER_CLASSES,
    metric: Sequence[str] = ("nll",),
    score: Score = "lape",
    top_rate: float = 0.01,
    scope: Scope | None = None,
    template: Template | None = None,
    system: str | None = None,
    max_new_tokens: int = 256,
    stop: Sequence[str] = (),
    groups: int = 10,
    batch_tokens: int = 4096,
    seed: int = 0,
    budget: float | None = None,
    dry_run: bool = False,
    skip: Sequence[str] = (),
    figures: Sequence[str] = (),
    title: str | None = None,
    engine: Engine = "local",
    say: Callable[[str], None] | None = None,
) -> Study | Plan:
    """Do the whole analysis of a model, step by step, in a folder.

    Args:
        model: what `load_model` returns; it stays as it is.
        corpus: parallel items with responses, or with prompts and bare numbers, which the model
            then answers first.
        out: the folder; the same call goes on there.
        aligned: a second model of the same architecture, or a function that loads it.
        trained: languages that the second one was trained on.
        other: another corpus in the same languages, for the stability of the neurons.
        items: items that are counted; None for all but those of the effects.
        effect_items: items that effects are measured on, the last of the corpus.
        controls: random sets of each control.
        match: what random sets have in common with the set, as in `ablation_matrix`.
        lens_items: items that the logit lens reads.
        card_items: items that cards quote and measure on.
        cards: cards of each language.
        methods: two or more ways to find neurons, compared by what removing their neurons does,
            with coupling and the agreement of measures: methods of `identify` (``"paper"``,
            ``"lape"``, ``"activation_entropy"``, ``"difference"``, ``"average_precision"``,
            ``"paired_difference"``) and measures of importance (``"activation"``, ``"plnd"``,
            ``"direct"``, ``"activation_gradient"``). None leaves the step out; a folder begun
            without can be gone on with them.
        method_items: counted items that methods of single texts, measures and coupling read.
        method_neurons: neurons of each language by each method.
        single_neurons: neurons that are removed one by one.
        languages: whose neurons are removed; None for all.
        classes: the settings of the matrices.
        metric: ``"nll"``, ``"accuracy"`` (slow), or both.
        score: the score whose neurons are removed and shown, ``"lape"`` or ``"paper"``.
        top_rate: share of neurons to select.
        scope: which tokens count; None for the responses.
        template: ``"chat"`` writes prompts into the model's own chat template.
        system: system prompt of the chat.
        max_new_tokens: of an answer.
        stop: strings before which an answer is cut.
        groups: of items, for intervals.
        batch_tokens: most tokens in a batch, padding included.
        seed: of everything that is drawn.
        budget: seconds; fewer items are read so that the study fits.
        dry_run: only measure one batch and return the plan; nothing is written.
        skip: steps to leave out: ``"lens"``, ``"effects"``, ``"cards"``.
        figures: endings of files to draw all figures as, ``"svg"``, ``"png"``, ``"html"``; the
            first two start Chrome.
        title: heading of the page.
        engine: who answers, counts and measures effects: ``"local"``, this process; ``"ray"`` or a
            `lensneurons.engines.RayEngine`, workers, with the same result.
        say: called with each line about the progress.

    Returns:
        What was found, or the plan of a dry run.

    Raises:
        LensNeuronsError: an option out of its range, too few items, or a budget that is too small.
        CorpusError: texts that the model cannot read, or prompts without anything to count.
        ProvenanceError: the folder was begun with something else; says what.
        StorageError: the folder holds something else, is in use, or a file in it was changed.
    """
    return _Job(**locals()).run()


class _Job:
    """One call of `study`: its options, and the steps in order."""

    def __init__(self, model: Any, corpus: ParallelCorpus, out: str | Path, **given: Any) -> None:
        self.model, self.out = model, system_path(out)
        self.options: dict[str, Any] = given
        self.say = given["say"] or (lambda line: None)
        _check(given)
        refuse_hooks(model, out)
        engine_for(given["engine"], model)
        self.corpus = corpus
        self.answered = is_bare(corpus) and given["scope"] in (None, "response")
        if given["template"] is not None:
            self.corpus = chat_corpus(model, corpus, system=given["system"])
        wanted = Sizes(
            counted_items(corpus, given),
            *(given[name] for name in ("effect_items", "controls", "lens_items")),
            *(given[name] for name in ("card_items", "cards")),
        )
        self.sizes = wanted
        self.steps = tuple(
            step
            for step in STEPS
            if step not in given["skip"]
            and (step != "answers" or self.answered)
            and (step != "aligned" or given["aligned"] is not None)
            and (step != "methods" or given["methods"])
        )

    def run(self) -> Study | Plan:
        given = self.options
        prepared = prepare(self.model, self.corpus, scope=given["scope"])
        require_memory(
            given["groups"], len(self.corpus.languages), prepared.site.n_layers, prepared.site.d_mlp
        )
        if self.answered:
            for item in self.corpus:
                expected_number(item)
        self.work = self._work(prepared)
        if given["dry_run"]:
            return self._plan()
        decided = {
            name: list(value) if isinstance(value, tuple | list) else value
            for name, value in given.items()
            if name not in UNDECIDED
        }
        if given["other"] is not None:
            decided["other"] = given["other"].fingerprint
        provenance = replace(prepared.provenance(), hook="study", activation="study")
        with (
            open_folder(self.out, provenance, decided) as folder,
            ray_started(ray_engine(given["engine"])),
        ):
            return self._steps(cast(Run, folder))

    def _work(self, prepared: Any) -> Work:
        given, ids = self.options, len(self.corpus.ids)
        tokens = float(prepared.encoded.lengths.sum()) / ids
        longest = 0
        if self.answered:
            tokenizer = prepared.tokenizer
            prompts = encode_prompts([item.prompt for item in self.corpus], tokenizer)
            fit_context(self.model, [len(row) for row in prompts], given["max_new_tokens"])
            longest = max(map(len, prompts))
            tokens += 0.6 * given["max_new_tokens"] * len(self.corpus.languages)  # most end earlier
        rows = given["languages"] or self.corpus.languages
        matches = (given["match"],) if isinstance(given["match"], str) else given["match"]
        return Work(
            steps=self.steps,
            languages=len(self.corpus.languages),
            tokens=tokens,
            settings=len(given["classes"]),
            rows=len(rows),
            matches=len(matches),
            metrics=tuple(given["metric"]),
            new_tokens=given["max_new_tokens"] if longest else 0,
            prompt_tokens=longest,
            batch_tokens=given["batch_tokens"],
            neurons=prepared.site.n_layers * prepared.site.d_mlp,
            groups=given["groups"],
            other_items=0 if given["other"] is None else len(given["other"].ids),
            methods=tuple(given["methods"]),
            method_items=given["method_items"],
            single_neurons=given["single_neurons"],
        )

    def _plan(self) -> Plan:
        prompts = [item.prompt for item in self.corpus] if self.answered else ()
        rates = measure_rates(
            self.model,
            self.corpus,
            scope=self.options["scope"],
            steps=self.steps,
            prompts=prompts,
        )
        cut: tuple[str, ...] = ()
        sizes, budget = self.sizes, self.options["budget"]
        if budget is not None:
            sizes, cut = fit(self.work, sizes, rates, budget)
        return Plan(plan_steps(self.work, sizes, rates), sizes, cut, budget)

    def _steps(self, folder: Run) -> Study:
        """All steps, each once."""
        given = self.options
        kept = Kept(folder, self.say)
        with kept.timed("plan"):
            plan = kept.value("plan.jsonl", Plan, self._plan)
        self.sizes = plan.sizes
        self.say(repr(plan))
        # `items` are counted from the first, those of the effects from the last.
        ids, sizes = self.corpus.ids, plan.sizes
        asked = (*ids[: sizes.items], *ids[len(ids) - sizes.effect_items :])
        texts = self.corpus.select(ids=asked)
        answers = None
        if self.answered:
            with kept.timed("answers"):
                answers = self._answer(self.model, texts, folder / "answers")
            texts = with_answers(texts, answers)
        counted = texts.select(ids=[one for one in texts.ids if one in set(ids[: sizes.items])])
        rest = [one for one in texts.ids if one not in set(counted.ids)]
        scope, batch_tokens = given["scope"], given["batch_tokens"]
        with kept.timed("counts"):
            counting = {"scope": scope, "groups": given["groups"], "batch_tokens": batch_tokens}
            counting["engine"] = given["engine"]
            statistics = collect(
                self.model, counted, run_dir=folder / "counts", progress=False, **counting
            )
        with kept.timed("neurons"):
            found = self._identify(kept, statistics, counting)
        found.plan, found.accuracy = plan, answers
        if "lens" in self.steps:
            read = partial(
                logit_lens,
                self.model,
                counted.head(sizes.lens_items),
                reference=counted,  # few items use few tokens often enough to tell their language
                scope=scope,
            )
            with kept.timed("lens"):
                found.lens = kept.value("values/lens.safetensors", LensCurves, read)
        if "effects" in self.steps:
            with kept.timed("effects"):
                self._remove(folder, found, texts.select(ids=rest))
        if "cards" in self.steps:
            with kept.timed("cards"):
                found.cards = self._describe(kept, found, counted.head(sizes.card_items))
        if "methods" in self.steps:
            with kept.timed("methods"):
                compare_all(self.model, found, kept, counted, texts.select(ids=rest), given)
        if "aligned" in self.steps:
            with kept.timed("aligned"):
                self._compare(folder, kept, found, texts, counted, counting)
        from lensneurons.studies.results import write_results

        with kept.timed("results"):
            # Made anew by every call, as an earlier one may have skipped the effects.
            found.claims["model"] = model_claims(
                found.chosen,
                statistics=statistics,
                parts=found.parts,
                effects=found.effects.get("nll"),
            )
            found.claims["model"].save(folder / "values/claims-model.json")
            for name in FOLDERS:
                if (folder / name).is_dir():
                    remove_leftovers(folder / name)
            write_results(found, self.corpus, given)
        return found

    def _answer(self, model: Any, texts: ParallelCorpus, run_dir: Path) -> Accuracy:
        given = self.options
        return accuracy(
            model,
            texts,
            max_new_tokens=given["max_new_tokens"],
            stop=given["stop"],
            batch_tokens=16 * given["batch_tokens"],
            seed=given["seed"],
            run_dir=run_dir,
            engine=given["engine"],
            progress=False,
        )

    def _identify(
        self, kept: Kept, statistics: ActivationStatistics, counting: Mapping[str, Any]
    ) -> Study:
        given = self.options
        by_score: dict[str, LanguageNeurons] = {}
        for one in SCORES:
            find = partial(identify, score=one, top_rate=given["top_rate"])
            make = partial(find, statistics)
            by_score[one] = kept.value(f"values/{one}.safetensors", LanguageNeurons, make)
        found = Study(self.out, Plan((), self.sizes), statistics, by_score, given["score"])
        find = partial(identify, score=given["score"], top_rate=given["top_rate"])
        chosen = found.chosen
        grouped = statistics.n_groups > 1
        if chosen.n_layers >= FEWEST_LAYERS:
            divide = partial(
                divide_layers, chosen, statistics if grouped else None, seed=given["seed"]
            )
            found.parts = kept.value("values/parts.safetensors", LayerParts, divide)
        if grouped:
            halves = partial(compare_halves, statistics, find=find, seed=given["seed"])
            file = "values/stability-halves.safetensors"
            found.stability["halves"] = kept.value(file, Stability, halves)
        if given["other"] is not None:
            other = given["other"].select(statistics.languages)
            again = collect(
                self.model, other, run_dir=self.out / "counts-other", progress=False, **counting
            )
            file = "values/stability-other.safetensors"
            compared = partial(stability, chosen, find(again))
            found.stability["other corpus"] = kept.value(file, Stability, compared)
        return found

    def _remove(self, folder: Run, found: Study, texts: ParallelCorpus) -> None:
        """Measure the deactivation matrices."""
        given = self.options
        for name in given["metric"]:
            writing = {"max_new_tokens": given["max_new_tokens"], "stop": given["stop"]}
            found.effects[name] = ablation_matrix(
                self.model,
                self._judged(texts) if name == "accuracy" else texts,
                found.chosen,
                classes=given["classes"],
                languages=given["languages"],
                metric=name,
                controls=self.sizes.controls,
                match=given["match"],
                scope=given["scope"],
                run_dir=folder / f"effects-{name}",
                batch_tokens=given["batch_tokens"],
                seed=given["seed"],
                engine=given["engine"],
                progress=False,
                **(writing if name == "accuracy" else {}),
            )

    def _judged(self, texts: ParallelCorpus) -> ParallelCorpus:
        """The same items with their own responses, which say what is right."""
        return self.corpus.select(ids=texts.ids)

    def _describe(self, kept: Kept, found: Study, texts: ParallelCorpus) -> tuple[NeuronCard, ...]:
        """The cards of the strongest specific neurons of each language."""
        table = found.chosen.to_pandas()
        specific = table[table["class"] == "specific"]  # the lowest scores first
        names = list(specific.groupby("languages", sort=False).head(self.sizes.cards)["name"])
        files = {name: f"cards/{name}.jsonl" for name in names}
        if not names:
            return ()
        if not all(kept.has(file) for file in files.values()):
            made = describe_all(
                self.model,
                found.chosen,
                names,
                corpus=texts,
                statistics=found.statistics,
                scope=self.options["scope"],
            )
            for name, card in zip(names, made, strict=True):
                kept.value(files[name], NeuronCard, lambda card=card: card)
        return tuple(kept.load(file, NeuronCard) for file in files.values())

    def _compare(
        self,
        folder: Run,
        kept: Kept,
        found: Study,
        texts: ParallelCorpus,
        counted: ParallelCorpus,
        counting: Mapping[str, Any],
    ) -> None:
        """Count and ask the second model, and compare."""
        given = self.options
        second = given["aligned"]
        second = second if hasattr(second, "cfg") else second()
        if self.answered:
            asked = self._judged(texts)
            found.aligned_accuracy = self._answer(second, asked, folder / "aligned-answers")
        found.aligned = collect(
            second, counted, run_dir=folder / "aligned-counts", progress=False, **counting
        )
        change = partial(
            compare, found.statistics, found.aligned, trained=given["trained"], seed=given["seed"]
        )
        file = "values/comparison.safetensors"
        found.comparison = kept.value(file, Comparison, change)
        judged = partial(claims, found.comparison, parts=found.parts)
        file = "values/claims-change.json"
        found.claims["change"] = kept.value(file, Claims, judged)


def _check(given: Mapping[str, Any]) -> None:
    """Refuse what can be refused without the model.

    Raises:
        LensNeuronsError: an option out of its range.
    """
    refuse_system_alone(given["template"], given["system"])
    choose(given["score"], SCORES, "score")
    for name in given["skip"]:
        choose(name, SKIPPABLE, "skip")
    for name in given["metric"]:
        choose(name, METRICS, "metric")
    for name in given["figures"]:
        choose(name, ("svg", "png", "html"), "figures")
    require_methods(given)
    for one in (given["match"],) if isinstance(given["match"], str) else given["match"]:
        choose(one, MATCHES, "match")
    for name, least in asdict(LEAST).items():
        value = given[name]
        if name in ("effect_items", "items"):
            least = FEWEST if name == "effect_items" else 2 * min(given["groups"], 10)
        else:
            least = 1
        if value is not None and value < least:
            raise LensNeuronsError(f"{name}={value}: give {least} or more; fewer have no interval")
    if given["budget"] is not None and given["budget"] <= 0:
        raise LensNeuronsError(f"budget={given['budget']}: give seconds, more than 0")
