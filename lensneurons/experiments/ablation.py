"""Deactivation matrices: what removing the neurons of one language does to every language.

    row      the language whose neurons are set to 0 (or to their mean, or to resampled values)
    column   the language that is evaluated
    cell     difference of the mean NLL of its responses, in nats a token, or of its accuracy: the
             share of answers that are right and in the right language (arXiv 2505.21505, section 5)

Three settings build on each other, as in the paper: (a) the specific neurons of the row's language,
(b) its specific and related neurons, (c) those and all language-agnostic neurons.

A cell alone means little, because removing any neurons does harm, and removing active ones more. So
beside each cell stand three **controls**, the mean effects of random sets with as many neurons in
every layer (`lensneurons.experiments.controls`):

    own        as active in the row's own language
    activity   as active on the mean over the languages
    layer      any neurons

Language neurons are active in their language by definition (p > tau), so what they do beyond the
last two may show no more than that. Neurons matched in the own language are the shared, active
ones: removing them can harm it as much as the set does, and the others too. So the evidence that a
set belongs to a language is

    selectivity    effect on the own language - mean effect on the others
    compared with  the selectivity of own-matched controls, on the same items

Neurons that are merely active pass this and no more; neurons that a language needs also have an
effect on it that goes beyond that of own-matched controls (`AblationMatrix.beyond_control`).

Every item meets random sets of its own, so items are independent, and a bootstrap over items draws
all cells, controls and figures together. A matrix that was interrupted resumes cell by cell and
ends with the same bits.

>>> matrix = ln.ablation_matrix(model, corpus, neurons)                  # doctest: +SKIP
>>> matrix.selectivity_beyond_control("related"), matrix.summary()       # doctest: +SKIP

What this does not show: a selective effect says that a language needs these neurons more than the
others do. It does not say that it needs nothing else, nor what the neurons compute.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.engines.choice import Engine
from lensneurons.engines.pool import engine_for
from lensneurons.errors import EmptySetWarning, LensNeuronsError, StorageError, choose
from lensneurons.evaluation.likelihood import TextMeasure, fitting, in_pieces
from lensneurons.evaluation.shots import fingerprint_of
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.controls import (
    Match,
    Pool,
    Removed,
    draw_control,
    draws_an_item,
    matched_rates,
    warn_of_mismatch,
)
from lensneurons.experiments.metrics import METRICS, Metric
from lensneurons.interventions.edited_sites import EditedSite, edited_site
from lensneurons.interventions.editing import READS, AblationMethod, ablate, require_method
from lensneurons.models.running import runs_model
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.sets import NeuronSet, chosen_set
from lensneurons.options import plain_options
from lensneurons.tokens.batches import divide
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.pieces import Pieces
from lensneurons.tokens.prepared import PreparedCorpus, prepare, refuse_hooks
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.progress import with_bar
from lensneurons.values.run_folders import Run, open_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Cell = tuple[str, str, str]  # setting, row and column
MATCHES: tuple[Match, ...] = get_args(Match)


@plain_options
@runs_model
def ablation_matrix(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    neurons: LanguageNeurons,
    *,
    classes: Sequence[str] = LAYER_CLASSES,
    sets: Mapping[str, Mapping[str, NeuronSet]] | None = None,
    languages: Sequence[str] | None = None,
    metric: Metric = "nll",
    controls: int = 20,
    match: Match | Sequence[Match] = MATCHES,
    pool: Pool = "all",
    method: AblationMethod = "zero",
    statistics: ActivationStatistics | None = None,
    reference: ParallelCorpus | PreparedCorpus | None = None,
    max_new_tokens: int | None = None,
    stop: Sequence[str] = (),
    shots: ParallelCorpus | None = None,
    scope: Scope | None = None,
    run_dir: str | Path | None = None,
    batch_tokens: int = 4096,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    engine: Engine = "local",
    progress: bool = True,
) -> AblationMatrix:
    """Remove each language's neurons in turn, and measure the effect on every language.

    Args:
        model: a TransformerLens model; it stays as it is.
        corpus: the texts; their languages become the columns.
        neurons: whose sets are removed (of its population).
        classes: the settings; each removes its class and those named before it.
        sets: sets of your own instead of the classes: the name of each setting to language to what
            is removed for it. `neurons` then says how active all neurons are, for the controls.
        languages: the rows; None for all languages of `neurons` (or of `sets`).
        metric: what a cell measures. Accuracy lets the model write, which takes much longer.
        controls: random sets of each control. Of n items each meets ``ceil(controls / n)`` of its
            own, so with n or more items there is one for every item.
        match: in what random sets are like the set, beside their layers: ``"own"`` in p in the
            row's language, ``"activity"`` in the mean of p, ``"layer"`` in nothing; each is a
            control of its own.
        pool: which neurons random sets are drawn from, always without those of the set: ``"all"``
            others, those ``"unselected"`` for any language, or those ``"below tau"`` in the row's.
        method: what stands in for the activations, as for `ablate`: ``"zero"``, the ``"mean"`` over
            all languages of `statistics`, or ``"resample"`` from `reference`, which then runs again
            for every batch, so give few texts.
        statistics: for ``"mean"``.
        reference: for ``"resample"``; which token stands in where depends on seed and batch_tokens.
        max_new_tokens: for accuracy, most tokens of an answer. A model that has lost a language
            often does not stop, so give little more than the longest right answer needs.
        stop: for accuracy, strings before which an answer is cut.
        shots: for accuracy, worked examples before the prompts of their language.
        scope: for the NLL, whose tokens are evaluated.
        run_dir: a folder for the result; the same call resumes there, cell by cell.
        batch_tokens: most tokens in a batch, padding included.
        seed: of the random sets and the resampling.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        engine: ``"local"``, this process; ``"ray"`` or a `lensneurons.engines.RayEngine`, workers
            that do a cell each, with the same result.
        progress: show a progress bar, in cells.

    Returns:
        The matrix, with all effects by text.

    Raises:
        LensNeuronsError: an unknown class or language, neurons of another model, no control, a
            layer with too few neurons for a control of the same size, or `method` lacks what it
            needs, or is given what it does not read; Ray is not installed, has too little room, or
            its workers died.
        ModelError: the model has hooks, and there are workers; or theirs is another one.
        CorpusError: texts that the model cannot read.
        ProvenanceError: `run_dir` was begun with something else; says what.

    Warns:
        ControlWarning: a layer holds no other neurons as active as those of a set.
        EmptySetWarning: some rows remove no neurons; names them.
    """
    removed = ablation_sets(neurons, classes, languages)
    if sets is not None:
        removed = own_sets(neurons, sets, languages)
    measure = METRICS[choose(metric, METRICS, "metric")]
    matches = _matches(match)
    choose(pool, get_args(Pool), "pool")
    choose(method, get_args(AblationMethod), "method")
    if controls < 1:
        raise LensNeuronsError(f"controls={controls}: an effect needs a control to mean anything")
    refuse_hooks(model, run_dir)
    workers = engine_for(engine, model)
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    site = edited_site(model, next(iter(removed.values())).values())
    require_method(site, method)
    if (neurons.n_layers, neurons.d_mlp) != (site.n_layers, site.d_mlp):
        raise LensNeuronsError(
            f"neurons of {neurons.n_layers} layers x {neurons.d_mlp} are not of this model of "
            f"{site.n_layers} x {site.d_mlp}"
        )
    edit = _edit(model, site, method, statistics, reference, tokenizer)
    score = measure.scorer(prepared, max_new_tokens, stop, shots)
    an_item = draws_an_item(controls, len(set(prepared.encoded.item_ids)))
    drawing = {"draws": an_item * len(set(prepared.encoded.item_ids)), "seed": seed}
    conditions = {
        (setting, row): Removed(
            one, tuple(draw_control(neurons, row, one, m, pool, **drawing) for m in matches)
        )
        for setting, rows in removed.items()
        for row, one in rows.items()
    }
    rates = {place: matched_rates(neurons, one) for place, one in conditions.items()}
    warn_of_mismatch(rates, neurons.languages, matches)
    warn_of_empty_rows(removed)
    job = CellJob(prepared, score, fitting(model, batch_tokens), conditions, an_item, edit, seed)
    provenance = replace(
        prepared.provenance(),
        attention="eager",  # logits need the bridge
        hook=site.hook,
        activation=site.activation_name,
    )
    plan = {
        "kind": CELL_KIND,
        "classes": list(removed),
        "rows": list(next(iter(removed.values()))),
        "neurons": _digest(
            f"{one.label}:{len(one)}:".encode() + one.flat.tobytes()
            for one, _ in conditions.values()
        ),
        "control_sets": _digest(
            control.flat.tobytes() for _, drawn in conditions.values() for control in drawn
        ),
        "metric": metric,
        "max_new_tokens": max_new_tokens,
        "controls": controls,
        "match": list(matches),
        "pool": pool,
        "method": method,
        "batch_tokens": job.batch_tokens,
        "seed": seed,
    }
    if statistics is not None:
        plan["statistics"] = _digest([statistics.mean.tobytes()])
    if isinstance(edit.get("reference"), PreparedCorpus):
        plan["reference"] = f"{edit['reference'].corpus.fingerprint}, {edit['reference'].scope}"
    if stop:
        plan["stop"] = [stop] if isinstance(stop, str) else list(stop)
    if shots is not None:
        plan["shots"] = fingerprint_of(shots)
    with open_folder(run_dir, provenance, plan) as folder:
        if folder is not None and (folder / AblationMatrix.RUN_FILE).exists():
            done = AblationMatrix.load(folder / AblationMatrix.RUN_FILE)
            folder.require_result(done)
            return done
        if workers is None:
            base, weight = base_scores(job)
            runs = run_cells(job, base, folder)
            effects = _effects(job, runs, len(base), progress)
        else:
            from lensneurons.experiments.cells import Cells, cells_of_workers

            cells = Cells.of(job, metric, max_new_tokens, stop, shots)
            with cells_of_workers(cells, job, folder, workers) as (base, weight, runs):
                effects = _effects(job, runs, len(base), progress)
        effect, control = effects[0], effects[1:]
        counts = [[one.per_layer() for one in rows.values()] for rows in removed.values()]
        matrix = AblationMatrix(
            rows=tuple(next(iter(removed.values()))),
            languages=prepared.encoded.languages,
            classes=tuple(removed),
            matches=matches,
            metric=metric,
            base=base,
            effect=effect,
            control=control,
            weight=weight,
            language=prepared.encoded.language,
            item_ids=prepared.encoded.item_ids,
            neurons_by_layer=np.array(counts, np.int64),
            identified=neurons.languages,
            rates=_by_condition(rates, removed),
            draws=drawing["draws"],
            method=method,
            pool=pool,
            provenance=provenance,
            made_from=neurons.description,
        )
        if folder is not None:
            folder.finish(matrix)
            shutil.rmtree(folder / "cells", ignore_errors=True)
        return matrix


def _matches(match: str | Sequence[str]) -> tuple[Match, ...]:
    """The kinds of controls, each once."""
    found: Any = (match,) if isinstance(match, str) else tuple(match)
    for one in found:
        choose(one, MATCHES, "match")
    if not found or len(set(found)) < len(found):
        raise LensNeuronsError(f"match: {list(found)} is empty or names one twice")
    return found


def _edit(
    model: Any,
    site: EditedSite,
    method: AblationMethod,
    statistics: ActivationStatistics | None,
    reference: ParallelCorpus | PreparedCorpus | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> dict[str, Any]:
    """The options of `ablate` for a method, once it has what it needs.

    Raises:
        LensNeuronsError: it lacks something, or is given what it does not read.
    """
    for name, value in {"statistics": statistics, "reference": reference}.items():
        reader = next(one for one, names in READS.items() if name in names)
        if (value is not None) != (reader == method):
            needed = f"method={method!r} needs {name}="
            unread = f"{name}= needs method={reader!r}, not {method!r}"
            raise LensNeuronsError(needed if value is None else unread)
    if statistics is not None:
        if (statistics.n_layers, statistics.d_mlp) != (site.n_layers, site.d_mlp):
            raise LensNeuronsError(
                f"statistics of {statistics.n_layers} layers x {statistics.d_mlp} are not of this "
                f"model of {site.n_layers} x {site.d_mlp}"
            )
        return {"method": method, "statistics": statistics}
    if reference is not None:
        return {"method": method, "reference": prepare(model, reference, tokenizer=tokenizer)}
    return {}


def ablation_sets(
    neurons: LanguageNeurons,
    classes: Sequence[str] = LAYER_CLASSES,
    languages: Sequence[str] | None = None,
) -> dict[str, dict[str, NeuronSet]]:
    """What each setting removes for each language.

    Args:
        neurons: whose sets.
        classes: the settings; each removes its class and those named before it.
        languages: the rows; None for all languages of `neurons`.

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
    nothing = replace(neurons.agnostic, flat=np.zeros(0, np.int64), activity=None)
    removed = dict.fromkeys(rows, nothing)
    for added in classes:
        for k in rows:
            own = neurons.agnostic if added == "agnostic" else getattr(neurons, added)[k]
            removed[k] = removed[k] | own
        found[added] = {k: one.relabel(f"{added} {k}") for k, one in removed.items()}
    return found


def own_sets(
    neurons: LanguageNeurons,
    sets: Mapping[str, Mapping[str, NeuronSet]],
    languages: Sequence[str] | None,
) -> dict[str, dict[str, NeuronSet]]:
    """The same of somebody's own sets: setting, to language, to what it removes.

    Raises:
        LensNeuronsError: no setting, one that is called like a class, settings of other languages,
            or sets of another model.
    """
    if clash := [name for name in sets if name in LAYER_CLASSES]:
        raise LensNeuronsError(f"sets: {clash} are names of classes; call them otherwise")
    rows = tuple(next(iter(sets.values()), {}) if languages is None else languages)
    found: dict[str, dict[str, NeuronSet]] = {}
    for name, of in sets.items():
        if lacking := [k for k in rows if k not in of or k not in neurons.languages]:
            raise LensNeuronsError(
                f"sets[{name!r}] has no neurons for {lacking}, or the activation probabilities"
                f" have no such language: give a set for each of {list(rows)}, out of"
                f" {list(neurons.languages)}"
            )
        chosen = {k: chosen_set(of[k], neurons.n_layers, neurons.d_mlp) for k in rows}
        found[name] = {k: one.relabel(f"{name} {k}") for k, one in chosen.items()}
    if not found or not rows:
        raise LensNeuronsError("sets: give at least one setting, with a set for a language")
    return found


def warn_of_empty_rows(sets: Mapping[str, Mapping[str, NeuronSet]]) -> None:
    """Warn, once, of the rows whose cells are 0 because they remove nothing."""
    empty = [one.label for rows in sets.values() for one in rows.values() if not len(one)]
    if empty:
        warnings.warn(
            f"no neurons in {', '.join(empty)}: these rows remove nothing, their cells are 0, and "
            "the means over the rows hold them; leave them out (languages=, classes=), or take "
            "more neurons: identify(score='lape') or a greater top_rate",
            EmptySetWarning,
            stacklevel=5,  # past the two decorators of `ablation_matrix`
        )


CELL_KIND = "cell of an ablation matrix"


@dataclass(frozen=True)
class CellJob:
    """What `ablation_matrix` runs.

    `score` gives sum and weight of some texts, run as one batch of at most `batch_tokens` tokens.
    A condition is a setting and a row: the neurons that are removed, and their controls, of whose
    draws every item meets `draws_an_item`. `edit` are options of `ablate`; `pieces` knows what fits
    into memory.
    """

    prepared: PreparedCorpus
    score: TextMeasure
    batch_tokens: int
    conditions: Mapping[tuple[str, str], Removed]
    draws_an_item: int
    edit: Mapping[str, Any]
    seed: int
    pieces: Pieces = field(default_factory=Pieces)

    @property
    def cells(self) -> list[Cell]:
        """Every cell, column by column."""
        return [(*one, k) for k in self.prepared.encoded.languages for one in self.conditions]

    def texts(self, column: str) -> np.ndarray:
        """The texts of a column, the longest first."""
        encoded = self.prepared.encoded
        texts = np.flatnonzero(encoded.language == encoded.languages.index(column))
        return texts[np.argsort(-encoded.lengths[texts], kind="stable")]

    @cached_property
    def items(self) -> dict[str, int]:
        """Items by name, so that a language that lacks some changes nothing, to their numbers."""
        return {name: i for i, name in enumerate(dict.fromkeys(self.prepared.encoded.item_ids))}

    def ablating(self, sets: Sequence[NeuronSet], *of: object) -> Any:
        """An `ablate` block for the rows of a batch; resampling has a seed of its own in each."""
        options = dict(self.edit)
        if "reference" in options:
            name = hashlib.sha256(repr((self.seed, *of)).encode()).hexdigest()
            options["seed"] = int(name[:12], 16)
        return ablate(self.prepared.model, sets, **options)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _by_condition(
    values: Mapping[tuple[str, str], np.ndarray], sets: Mapping[str, Mapping[str, NeuronSet]]
) -> np.ndarray:
    """Values [side, ...] of every condition as [side, setting, row, ...]."""
    table = [[values[setting, row] for row in rows] for setting, rows in sets.items()]
    return np.moveaxis(np.array(table), 2, 0)


def base_scores(job: CellJob) -> tuple[np.ndarray, np.ndarray]:
    """Score and weight of every text while nothing is removed, both [text]."""
    base, weight = np.zeros(len(job.prepared.encoded)), np.zeros(len(job.prepared.encoded))
    for rows in job.prepared.batches(job.batch_tokens):
        base[rows], weight[rows] = in_pieces(job.pieces, job.score, job.prepared.encoded, rows)
    return base, weight


def _effects(
    job: CellJob, runs: Iterator[tuple[Cell, np.ndarray]], texts: int, progress: bool
) -> np.ndarray:
    """Put cells together: effects and controls [1 + match, setting, row, text]."""
    settings = tuple(dict.fromkeys(setting for setting, _ in job.conditions))
    languages = tuple(dict.fromkeys(row for _, row in job.conditions))
    sides = 1 + len(next(iter(job.conditions.values())).controls)
    effects = np.zeros((sides, len(settings), len(languages), texts))
    for cell, found in with_bar(runs, "ablate", "cell", shown=progress, total=len(job.cells)):
        setting, row, column = cell
        effects[:, settings.index(setting), languages.index(row), job.texts(column)] = found
    return effects


def run_cells(
    job: CellJob, base: np.ndarray, folder: Run | None
) -> Iterator[tuple[Cell, np.ndarray]]:
    """Yield every cell with its effects and controls [1 + match, text]: from its file, or by a run.

    Raises:
        StorageError: the file of a cell is damaged.
    """
    for cell in job.cells:
        effects = load_cell(job, cell, folder)
        if effects is None:
            effects = run_cell(job, base, *cell)
            save_cell(cell, effects, folder)
        yield cell, effects


def _cell_file(folder: Run, cell: Cell) -> tuple[Path, dict[str, str]]:
    """The file of a cell, and which part of the run it is."""
    of: dict[str, str] = dict(zip(("setting", "row", "column"), cell, strict=True))
    return folder / "cells" / f"{'_'.join(cell)}.safetensors", of


def load_cell(job: CellJob, cell: Cell, folder: Run | None) -> np.ndarray | None:
    """Effects and controls [1 + match, text] of a cell that is in the folder; None for others.

    Raises:
        StorageError: its file is damaged.
    """
    if folder is None:
        return None
    file, of = _cell_file(folder, cell)
    if not file.exists():
        return None
    try:
        arrays, details = load_arrays(file, CELL_KIND)
        folder.require_part(file, details, **of)
        sides = 1 + len(job.conditions[cell[:2]].controls)
        return _whole_effects(file, arrays, (sides, len(job.texts(cell[-1]))))
    except StorageError as error:
        raise StorageError(f"{error}; delete it to run the cell again") from None


def save_cell(cell: Cell, effects: np.ndarray, folder: Run | None) -> None:
    """Write a cell, where there is a folder."""
    if folder is not None:
        file, of = _cell_file(folder, cell)
        save_arrays(file, CELL_KIND, {"effects": effects}, folder.part(**of))


def _whole_effects(
    file: Path, arrays: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    """Effects and controls of a cell, float64 [1 + match, text], once the file proves whole."""
    effects = arrays.get("effects", np.zeros(0))
    if (effects.dtype, effects.shape) != (np.float64, shape) or np.isnan(effects).any():
        raise StorageError(f"{file} does not hold the effects of {shape[1]} texts")
    return effects


def run_cell(job: CellJob, base: np.ndarray, setting: str, row: str, column: str) -> np.ndarray:
    """Effect and mean controls of every text of a column, float64 [1 + match, text]."""
    (removed, controls), texts = job.conditions[setting, row], job.texts(column)
    if len(removed) == 0:
        return np.zeros((1 + len(controls), len(texts)))
    encoded, each = job.prepared.encoded, job.draws_an_item
    numbers = [job.items[encoded.item_ids[text]] for text in texts]
    conditions = [[removed] * len(texts)]
    for control in controls:  # the sets of an item are its own: each * number and those after it
        conditions += [[control[each * number + d] for number in numbers] for d in range(each)]
    # One row of a batch is a text under a condition; texts go from the longest to the shortest.
    text, condition = np.divmod(np.arange(len(texts) * len(conditions)), len(conditions))
    scores = np.zeros((len(conditions), len(texts)))
    lengths = encoded.lengths[texts[text]]

    def measure(batch: slice, part: slice) -> np.ndarray:
        places = condition[batch][part], text[batch][part]
        sets = [conditions[c][i] for c, i in zip(*places, strict=True)]
        with job.ablating(sets, setting, row, column, batch.start + part.start):
            return job.score(texts[places[1]])[0]

    for batch in divide(lengths, job.batch_tokens):
        for part, found in job.pieces.run(lengths[batch], partial(measure, batch)):
            scores[condition[batch][part], text[batch][part]] = found
    scores -= base[texts]
    means = scores[1:].reshape(len(controls), each, len(texts)).mean(axis=1)
    return np.concatenate([scores[:1], means])
