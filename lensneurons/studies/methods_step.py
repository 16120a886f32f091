"""The methods of the field beside those of the study, as one step of it.

    comparison   each method gives every language its first neurons on the counted items, as many by
                 each; they are removed on the items of the effects, beside random neurons as active
    coupling     does a neuron, or a layer, answer an item and its translation alike?
    agreement    single neurons are removed one by one, and cheap measures ranked by what that does

LAPE, the paper's score, the entropy and the difference of means read the counts of the study, all
its items; the others the first `method_items` of them. Measures that integrate gradients are not
among them: they cost dozens of passes.

Everything is written under ``values``. What it was asked for is in ``methods/run.json``, so the
same folder refuses other methods. The activations of single texts lie in a file while the step runs
and are removed at its end, so memory does not grow with the items.

What this does not do: romanise. LAPE under script control needs texts in Latin letters
(`corpora.romanise`), which are another corpus.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

from lensneurons.activations.items import ItemActivations, item_activations
from lensneurons.cards.agreement import FEWEST as FEWEST_SINGLE
from lensneurons.cards.attribution import importance
from lensneurons.cards.method_agreement import MethodAgreement, importance_agreement
from lensneurons.comparison.coupled_layers import LayerCoupling, layer_coupling
from lensneurons.comparison.coupled_neurons import FEWEST as FEWEST_COUPLED
from lensneurons.comparison.coupled_neurons import Coupling, coupling
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import EmptySetWarning, LensNeuronsError, choose
from lensneurons.experiments.method_comparison import MethodComparison, compare_methods
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.methods import READS
from lensneurons.studies.finished import SCORES, Study
from lensneurons.studies.kept import Kept
from lensneurons.studies.plan import COUPLING_DRAWS, MEASURES, SINGLE_ITEMS
from lensneurons.values.run_folders import Run, open_folder

BY_ITEMS = tuple(one for one, reads in READS.items() if reads == "items")
METHODS = (*SCORES, "activation_entropy", "difference", *BY_ITEMS, *MEASURES)
_ASKED = ("methods", "method_items", "method_neurons", "single_neurons")


def require_methods(given: Mapping[str, Any]) -> None:
    """Refuse options of the step before any work.

    Raises:
        LensNeuronsError: an unknown method, one alone or twice, or too few items or neurons.
    """
    methods = given["methods"]
    for one in methods:
        choose(one, METHODS, "methods")
    if len(methods) == 1 or len(set(methods)) < len(methods):
        raise LensNeuronsError(f"methods={list(methods)}: give two or more, each once, or none")
    least = {"method_items": 2, "method_neurons": 1, "single_neurons": FEWEST_SINGLE}
    for name, number in least.items():
        if given[name] < number:
            raise LensNeuronsError(f"{name}={given[name]}: give {number} or more")


def compare_all(
    model: Any,
    found: Study,
    kept: Kept,
    counted: ParallelCorpus,
    held_out: ParallelCorpus,
    given: Mapping[str, Any],
) -> None:
    """Do the step, and put its values into the study.

    Args:
        model: the model of the study.
        found: its statistics and neurons; the values of this step are added.
        kept: the folder of the study.
        counted: the items that it counted.
        held_out: those of the effects.
        given: the options of the study.
    """
    asked = {name: given[name] for name in _ASKED} | {"methods": list(given["methods"])}
    texts, scope = counted.head(given["method_items"]), given["scope"]
    reading = {"scope": scope, "batch_tokens": given["batch_tokens"], "progress": False}
    with open_folder(kept.folder / "methods", found.statistics.provenance, asked) as folder:
        run = cast(Run, folder)
        file = run / "items.npy"
        items = cache(partial(item_activations, model, texts, file=file, **reading))
        try:
            found.methods = _compared(model, found, kept, run, items, texts, held_out, given)
            if len(texts.ids) >= FEWEST_COUPLED:
                options = {"draws": COUPLING_DRAWS, "seed": given["seed"]}
                found.coupling = kept.value(
                    "values/coupling.safetensors",
                    Coupling,
                    lambda: coupling(items(), found.chosen, **options),
                )
                found.layer_coupling = kept.value(
                    "values/layer_coupling.safetensors",
                    LayerCoupling,
                    lambda: layer_coupling(items(), **options),
                )
            found.agreement = kept.value(
                "values/agreement.safetensors",
                MethodAgreement,
                lambda: importance_agreement(
                    model,
                    counted.head(SINGLE_ITEMS),
                    found.chosen,
                    number=min(given["single_neurons"], found.chosen.score.size),
                    methods=MEASURES,
                    scope=scope,
                    seed=given["seed"],
                    progress=False,
                ).without_times(),
            )
        finally:
            file.unlink(missing_ok=True)


def _compared(
    model: Any,
    found: Study,
    kept: Kept,
    folder: Run,
    items: Callable[[], ItemActivations],
    texts: ParallelCorpus,
    held_out: ParallelCorpus,
    given: Mapping[str, Any],
) -> MethodComparison | None:
    """The comparison of the methods; None where no language has neurons by all of them."""
    file = "values/methods.safetensors"
    if kept.has(file):
        return kept.load(file, MethodComparison)
    ranked: dict[str, Any] = {}
    for name in given["methods"]:
        if name not in MEASURES:
            ranked[name] = _identified(found, name, items, given["top_rate"])
    rows = given["languages"] or found.statistics.languages
    rows = [k for k in rows if all(len(one[k]) for one in ranked.values())]
    if not rows:
        return None
    for name in given["methods"]:
        if name in MEASURES:
            ranked[name] = importance(
                model, texts, method=name, scope=given["scope"], progress=False
            )
    return kept.value(
        file,
        MethodComparison,
        lambda: compare_methods(
            model,
            held_out,
            {name: ranked[name] for name in given["methods"]},
            found.chosen,
            number=given["method_neurons"],
            languages=rows,
            controls=found.plan.sizes.controls,
            scope=given["scope"],
            run_dir=folder / "effects",
            batch_tokens=given["batch_tokens"],
            seed=given["seed"],
            progress=False,
        ),
    )


def _identified(
    found: Study, name: str, items: Callable[[], ItemActivations], top_rate: float
) -> LanguageNeurons:
    """The neurons of one method; that some language has few is told by the comparison."""
    if name in found.neurons:
        return found.neurons[name]
    reads: dict[str, Any] = {"items": items()} if name in BY_ITEMS else {}
    with warnings.catch_warnings(action="ignore", category=EmptySetWarning):
        return identify(found.statistics, method=cast(Any, name), top_rate=top_rate, **reads)


def left_out(study: Study, languages: Sequence[str] | None) -> list[str]:
    """What the step could not do, a sentence each; nothing where it was not asked for.

    Args:
        study: what was found.
        languages: whose neurons were to be removed; None for all.
    """
    if study.agreement is None:  # the step was not done
        return []
    told = []
    if study.methods is None:
        told.append("Methods are not compared: in every language some method finds no neuron.")
    else:
        rows = study.methods.matrix.rows
        lacking = [k for k in languages or study.statistics.languages if k not in rows]
        if lacking:
            told.append(f"Methods are not compared in {', '.join(lacking)}: some find no neuron.")
    if study.coupling is None:
        told.append(f"Coupling is left out: it takes {FEWEST_COUPLED} counted items or more.")
    return told
