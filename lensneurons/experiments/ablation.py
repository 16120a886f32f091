"""Deactivation matrices: what removing the neurons of one language does to every language.

    row      language whose neurons are set to 0
    column   language that is evaluated
    cell     change of the mean NLL of its responses, in nats a token, or of its accuracy: answers
             that are right and in the right language (arXiv 2505.21505, section 5)

Three settings build on each other, as in the paper: (a) the specific neurons of the row's language,
(b) its specific and related ones, (c) those and all language-agnostic neurons.

A cell alone means little: removing any neurons does harm. So beside each stands a **control**, the
mean over 20 random sets or more of the same size, with as many neurons in every layer, that are
active about as often (on the mean over the languages), or of any activity. From the two come

    causal ratio   effect of the set / effect of its control                   of each cell
    selectivity    effect on the own language / largest effect on another      of each row

Control draws are spread over the items: the first item meets the first draw, the second item the
second, and so on, so that 20 draws cost one pass over the texts instead of 20. The mean is that of
all draws, and the interval over items carries the spread over draws with it. Each row of a batch
has its own set of neurons, so a text meets its ablation and its control in one batch.

Controls are not matched by the probability in the row's own language: neurons that are as active in
it are neurons of that language by definition (p > tau), the shared ones that were not selected, and
removing them harms that language as much. They differ in what they do to the others, which is what
selectivity measures.

What this does not show: a strong diagonal says that these neurons are needed for their language
more than others of their kind, not that nothing else is needed, and not what they compute.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.answering import answer_scorer
from lensneurons.evaluation.likelihood import Score, fitting, require_predicted, text_scorer
from lensneurons.experiments.ablation_cells import CELL, CellJob, run_cells, score_untouched
from lensneurons.experiments.ablation_effects import AblationMatrix, Metric
from lensneurons.identification.neuron_sets import NeuronSet
from lensneurons.identification.neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.models.loading import original_tokenizer
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.provenance import Provenance
from lensneurons.run_folders import open_folder
from lensneurons.tokens.encoded import Scope
from lensneurons.tokens.prepared import encode_for, provenance_of, refuse_hooks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Match = Literal["activity", "layer"]


def ablation_matrix(
    model: Any,
    corpus: ParallelCorpus,
    neurons: LanguageNeurons,
    *,
    classes: Sequence[str] = LAYER_CLASSES,
    languages: Sequence[str] | None = None,
    metric: Metric = "nll",
    controls: int = 20,
    match: Match = "activity",
    max_new_tokens: int | None = None,
    scope: Scope = "response",
    run_dir: str | Path | None = None,
    batch_tokens: int = 4096,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> AblationMatrix:
    """Remove each language's neurons in turn, and see what becomes of every language.

    Args:
        model: a TransformerLens model; it is not changed.
        corpus: the texts, in the languages that become the columns.
        neurons: whose sets are removed (of its population).
        classes: a setting each, which removes its class and those named before it.
        languages: the rows; all languages of `neurons` by default.
        metric: what a cell measures. Accuracy lets the model write, which takes much longer.
        controls: random sets a row and setting.
        match: ``"activity"``: control neurons are of the same layers and active about as often;
            ``"layer"``: any of the same layers, most of which hardly fire.
        max_new_tokens: for accuracy, most tokens of an answer; a model that has lost a language
            often does not stop, so give little more than the longest right answer needs.
        scope: for the NLL, whose tokens are evaluated.
        run_dir: a folder for the result; the same call goes on where it stopped, cell by cell.
        batch_tokens: most tokens in a batch, padding included.
        seed: of the random sets.
        tokenizer: encodes the corpus; by default the model's own, as it was saved.
        progress: show a progress bar, in cells.

    Returns:
        The matrix, with all effects by text.

    Raises:
        LensNeuronsError: an unknown class or language, neurons of another model, no control, or a
            layer with too few neurons for a control of the same size.
        CorpusError: texts that the model cannot read.
        ProvenanceError: `run_dir` was begun with something else; says what.
    """
    site = neuron_site(model)
    sets = ablation_sets(neurons, classes, languages)
    _check(neurons, site, controls)
    refuse_hooks(model, run_dir)
    choose(metric, get_args(Metric), "metric")
    choose(match, get_args(Match), "match")
    tokenizer = tokenizer or original_tokenizer(model)
    encoded = encode_for(model, corpus, scope=scope, tokenizer=tokenizer)
    if metric == "nll":
        require_predicted(encoded)
        score = text_scorer(model, encoded)
    else:
        score = _answer_score(model, corpus, max_new_tokens, tokenizer)
    drawn = _controls(sets, neurons, controls, match, seed)
    job = CellJob(model, encoded, score, fitting(model, batch_tokens), sets, drawn)
    provenance = provenance_of(model, site, encoded, corpus, tokenizer)
    provenance = replace(provenance, attention="eager")  # logits need the bridge
    plan = {
        "kind": CELL,
        "classes": list(classes),
        "rows": list(sets[classes[0]]),
        "neurons": _digest(one for rows in sets.values() for one in rows.values()),
        "control_sets": _digest(
            one for rows in drawn.values() for draws in rows.values() for one in draws
        ),
        "metric": metric,
        "max_new_tokens": max_new_tokens,
        "controls": controls,
        "match": match,
        "batch_tokens": job.batch_tokens,
        "seed": seed,
    }
    with open_folder(run_dir, provenance, plan) as folder:
        file = None if folder is None else folder / "ablation.safetensors"
        if file is not None and file.is_file():
            return AblationMatrix.load(file)
        matrix = _assemble(job, metric, folder, provenance, progress)
        if folder is not None and file is not None:
            matrix.save(file)
            shutil.rmtree(folder / "cells", ignore_errors=True)
        return matrix


def ablation_sets(
    neurons: LanguageNeurons,
    classes: Sequence[str] = LAYER_CLASSES,
    languages: Sequence[str] | None = None,
) -> dict[str, dict[str, NeuronSet]]:
    """What each setting removes for each language.

    Args:
        neurons: whose sets.
        classes: a setting each, which removes its class and those named before it.
        languages: the rows; all languages of `neurons` by default.

    Returns:
        Class that the setting adds, to language, to neurons.

    Raises:
        LensNeuronsError: an unknown class or language, none, or one named twice.
    """
    rows = tuple(neurons.languages if languages is None else languages)
    for name, given, known in (
        ("class", tuple(classes), LAYER_CLASSES),
        ("language", rows, neurons.languages),
    ):
        for one in given:
            choose(one, known, name)
        if not given or len(set(given)) < len(given):
            raise LensNeuronsError(f"{name}: {list(given)} is empty or names one twice")
    found: dict[str, dict[str, NeuronSet]] = {}
    nothing = NeuronSet(np.zeros(0, np.int64), neurons.n_layers, neurons.d_mlp)
    removed = dict.fromkeys(rows, nothing)
    for added in classes:
        removed = {k: removed[k] | _of_class(neurons, added, k) for k in rows}
        found[added] = {k: one.relabel(f"{added} {k}") for k, one in removed.items()}
    return found


def _of_class(neurons: LanguageNeurons, name: str, language: str) -> NeuronSet:
    return neurons.agnostic if name == "agnostic" else getattr(neurons, name)[language]


def _answer_score(
    model: Any,
    corpus: ParallelCorpus,
    max_new_tokens: int | None,
    tokenizer: PreTrainedTokenizerBase,
) -> Score:
    """The function that scores texts by their answers: right or not, each of weight 1."""
    answer = answer_scorer(model, corpus, max_new_tokens=max_new_tokens, tokenizer=tokenizer)

    def score(rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        right = np.array(answer([int(row) for row in rows]), np.float64)
        return right, np.ones(len(right), np.int64)

    return score


def _check(neurons: LanguageNeurons, site: NeuronSite, controls: int) -> None:
    if (neurons.n_layers, neurons.d_mlp) != (site.n_layers, site.d_mlp):
        raise LensNeuronsError(
            f"neurons of {neurons.n_layers} layers x {neurons.d_mlp} are not of this model of "
            f"{site.n_layers} x {site.d_mlp}"
        )
    if controls < 1:
        raise LensNeuronsError(f"controls={controls}: an effect needs a control to mean anything")


def _controls(
    sets: dict[str, dict[str, NeuronSet]],
    neurons: LanguageNeurons,
    draws: int,
    match: Match,
    seed: int,
) -> dict[str, dict[str, list[NeuronSet]]]:
    """Random sets for every setting and row; neurons of one activity have no order to match."""
    activity = neurons.probability.mean(axis=-1)
    if match == "layer":
        activity = np.zeros_like(activity)
    return {
        setting: {
            row: one.random_control(activity, draws=draws, seed=seed) for row, one in rows.items()
        }
        for setting, rows in sets.items()
    }


def _digest(sets: Iterable[NeuronSet]) -> str:
    """A name for all sets together."""
    digest = hashlib.sha256()
    for one in sets:
        digest.update(f"{one.label}:{len(one)}:".encode() + one.flat.tobytes())
    return digest.hexdigest()


def _assemble(
    job: CellJob, metric: Metric, folder: Path | None, provenance: Provenance, progress: bool
) -> AblationMatrix:
    """Run what is missing and put the cells together."""
    settings, rows = list(job.sets), list(next(iter(job.sets.values())))
    base, weight = score_untouched(job)
    effect = np.zeros((len(settings), len(rows), len(base)))
    control = np.zeros_like(effect)
    for (setting, row, column), found in _with_progress(
        run_cells(job, base, folder), job, progress
    ):
        place = settings.index(setting), rows.index(row), job.texts(column)
        effect[place], control[place] = found
    first = job.controls[settings[0]][rows[0]]
    return AblationMatrix(
        rows=tuple(rows),
        languages=job.encoded.languages,
        classes=tuple(settings),
        metric=metric,
        base=base,
        effect=effect,
        control=control,
        weight=weight,
        language=job.encoded.language,
        item_ids=job.encoded.item_ids,
        sizes=np.array([[len(s) for s in by_row.values()] for by_row in job.sets.values()]),
        draws=len(first),
        provenance=provenance,
    )


def _with_progress(cells: Iterator[Any], job: CellJob, shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(cells, total=len(job.cells), desc="ablate", unit="cell", disable=not shown)
