"""Deactivation matrices: what removing the neurons of one language does to every language.

    row      the language whose neurons are set to 0
    column   the language that is evaluated
    cell     difference of the mean NLL of its responses, in nats a token, or of its accuracy: the
             share of answers that are right and in the right language (arXiv 2505.21505, section 5)

Three settings build on each other, as in the paper: (a) the specific neurons of the row's language,
(b) its specific and related neurons, (c) those and all language-agnostic neurons.

A cell alone means little, because removing any neurons does harm. So each cell has a **control**:
the mean over 20 or more random sets of the same size, with as many neurons in every layer, that are
active about as often (on the mean over the languages), or of any activity. The two together give

    causal ratio   effect of the set / effect of its control                   for each cell
    selectivity    effect on the own language / largest effect on another      for each row

Controls are not matched by the probability in the row's own language. Neurons that are as active
there belong to that language by definition (p > tau), and removing them harms it as much. They
differ in what they do to the other languages, and that is what selectivity measures.

Control draws are spread over the items: the first item meets the first draw, the second item the
second, and so on. So 20 draws cost one pass over the texts instead of 20, and the interval over
items includes the spread over draws.

A matrix that was interrupted resumes cell by cell and ends with the same bits. One bootstrap over
items draws all cells, their controls and every summary together.

>>> matrix = ln.ablation_matrix(model, corpus, neurons)                  # doctest: +SKIP
>>> matrix.cells("specific"), matrix.selectivity(), matrix.summary()     # doctest: +SKIP

What this does not show: a strong diagonal says that a language needs these neurons more than others
of their kind. It does not say that it needs nothing else, nor what the neurons compute.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError, StorageError, choose
from lensneurons.evaluation.likelihood import TextMeasure, fitting
from lensneurons.evaluation.shots import fingerprint_of
from lensneurons.experiments.metrics import METRICS, Metric
from lensneurons.interventions.editing import ablate
from lensneurons.models.running import runs_model
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.options import plain_options
from lensneurons.shapes import LanguageMatrix
from lensneurons.tokens.batches import divide
from lensneurons.tokens.encoding import Scope
from lensneurons.tokens.prepared import PreparedCorpus, prepare, refuse_hooks
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws
from lensneurons.values.base import Overview, Value
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.progress import with_bar
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import Run, open_folder

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

Match = Literal["activity", "layer"]

TextEffects = Float64[np.ndarray, "setting row text"]
Cell = tuple[str, str, str]  # setting, row and column


@dataclass(frozen=True, eq=False, repr=False)
class AblationMatrix(Value):
    """Effects of removing each language's neurons on each language. Made by `ablation_matrix`.

    A setting is the union of the classes up to its own: ``"related"`` removes the specific and the
    related neurons.

    Attributes:
        rows: languages whose neurons were removed.
        languages: languages that were evaluated, the columns.
        classes: the settings, each named by the class that it adds.
        metric: what a cell measures: ``"nll"`` (nats a token) or ``"accuracy"`` (share of right
            answers in the right language).
        base: float64 [text], NLL (or 1 for a right answer) of the model without any ablation.
        effect: float64 [setting, row, text], what the ablation adds to it.
        control: float64 [setting, row, text], what random sets add, mean over their draws.
        weight: float64 [text], counted tokens (or 1).
        language: int [text], number of each text's language.
        item_ids: name of each text's item.
        sizes: int64 [setting, row], how many neurons were removed.
        draws: random sets of each control.
        provenance: model, corpus and scope.
    """

    FILE_KIND = "ablation matrix"
    RUN_FILE = "ablation.safetensors"
    AXES = {
        **dict.fromkeys(("base", "weight", "language"), ("text",)),
        **dict.fromkeys(("effect", "control"), ("setting", "row", "text")),
        "sizes": ("setting", "row"),
    }
    COORDINATES = {"setting": "classes", "row": "rows", "text": "item_ids"}

    rows: tuple[str, ...]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    metric: Metric
    base: Float64[np.ndarray, " text"]
    effect: TextEffects
    control: TextEffects
    weight: Float64[np.ndarray, " text"]
    language: Int[np.ndarray, " text"]
    item_ids: tuple[str, ...]
    sizes: Int64[np.ndarray, "setting row"]
    draws: int
    provenance: Provenance = field(default_factory=Provenance)

    def cells(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: mean effect in a setting; None for the last one.

        Raises:
            LensNeuronsError: no such setting.
        """
        return self._means(self.effect)[self._place(setting)]

    def control_cells(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: mean effect of the random sets."""
        return self._means(self.control)[self._place(setting)]

    @plain_options
    def interval(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Cells with bootstrap intervals over items, [row, column]."""
        return self._interval(self.cells(setting), self._drawn_cells(setting)[0], level)

    @plain_options
    def control_interval(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Control cells with bootstrap intervals over items and draws, [row, column]."""
        return self._interval(self.control_cells(setting), self._drawn_cells(setting)[1], level)

    @plain_options
    def causal_ratio(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Effect over control, [row, column]; without meaning where a control is about 0."""
        estimate = _ratio(self.cells(setting), self.control_cells(setting))
        return self._interval(estimate, _ratio(*self._drawn_cells(setting)), level)

    @plain_options
    def selectivity(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Effect on the own language over the largest effect on another, [row]."""
        estimate = self._selectivity(self.cells(setting))
        return self._interval(estimate, self._selectivity(self._drawn_cells(setting)[0]), level)

    @plain_options
    def summary(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a setting and figure: removed, figure, estimate, low, high.

        Figures: mean diagonal, mean off-diagonal, mean diagonal of the control, the ratios of the
        first to the other two, and the English cell where English is a row.
        """
        import pandas as pd

        rows = []
        for setting in self.classes:
            figures = self._figures(self.cells(setting), self.control_cells(setting))
            drawn = self._figures(*self._drawn_cells(setting))
            for name, estimate in figures.items():
                found = self._interval(estimate, drawn[name], level)
                ends = (float(one) for one in (found.estimate, found.low, found.high))
                rows.append((self.name_of(setting), name, *ends))
        return pd.DataFrame(rows, columns=["removed", "figure", "estimate", "low", "high"])

    def name_of(self, setting: str | None = None) -> str:
        """What a setting removes, such as ``"specific + related"``."""
        return " + ".join(self.classes[: self._place(setting) + 1])

    def log_perplexity_difference(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: ``ln(1 + difference of perplexity)``, the paper's figure.

        NaN where the perplexity falls by 1 or more.

        Raises:
            LensNeuronsError: the metric is not the NLL.
        """
        if self.metric != "nll":
            raise LensNeuronsError("perplexity needs metric='nll', these cells hold accuracy")
        before = self._means(self.base[None, None])[0, 0]
        added = np.exp(before + self.cells(setting)) - np.exp(before)
        return np.log1p(added, out=np.full_like(added, np.nan), where=added > -1)

    def language_order(self, setting: str | None = None) -> tuple[str, ...]:
        """The rows, ordered so that languages with similar effects stand side by side.

        Average linkage on the correlation distance between the effects of two rows on the columns
        that are neither's own, with optimal ordering of the leaves.
        """
        from scipy.cluster.hierarchy import leaves_list, linkage
        from scipy.spatial.distance import squareform

        distance = _row_distances(self.cells(setting), self.own_cells)
        if len(self.rows) < 3:
            return self.rows
        tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
        return tuple(self.rows[i] for i in leaves_list(tree))

    @plain_options
    def to_pandas(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a cell: removed, row, column, neurons, effect and control with their ends."""
        import pandas as pd

        pairs = [(row, column) for row in self.rows for column in self.languages]
        parts = []
        for setting, sizes in zip(self.classes, self.sizes, strict=True):
            table = pd.DataFrame(pairs, columns=["row", "column"])
            table.insert(0, "removed", self.name_of(setting))
            table["neurons"] = np.repeat(sizes, len(self.languages))
            for name, ask in (("effect", self.interval), ("control", self.control_interval)):
                found = ask(setting, level=level)
                table[name] = found.estimate.ravel()
                table[f"{name}_low"] = found.low.ravel()
                table[f"{name}_high"] = found.high.ravel()
            parts.append(table)
        return pd.concat(parts, ignore_index=True)

    def _place(self, setting: str | None) -> int:
        setting = setting or self.classes[-1]
        return self.classes.index(choose(setting, self.classes, "setting"))

    @cached_property
    def own_cells(self) -> Bool[np.ndarray, "row column"]:
        """Bool [row, column]: the cells of a language on itself."""
        return np.array(self.rows)[:, None] == np.array(self.languages)[None, :]

    def _means(self, values: TextEffects) -> Float64[np.ndarray, "setting row language"]:
        """Mean by language."""
        of_language = np.eye(len(self.languages))[self.language]
        return values @ of_language / (self.weight @ of_language)

    @cached_property
    def _corpora(self) -> ItemDraws:
        return ItemDraws(self.item_ids, self.language)

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Effects and controls in drawn corpora, each [draw, setting, row, language]."""
        effect, control = (self._corpora.means(v, self.weight) for v in (self.effect, self.control))
        return effect, control

    def _drawn_cells(self, setting: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Cells and control cells in drawn corpora, each [draw, row, column]."""
        place = self._place(setting)
        return self._drawn[0][:, place], self._drawn[1][:, place]

    def _interval(self, estimate: np.ndarray, drawn: np.ndarray, level: float) -> Interval:
        """The interval of an estimate from its draws [draw, ...]; NaN where every draw is NaN."""
        known = ~np.isnan(drawn).all(0)
        found = self._corpora.interval(estimate, np.where(known, drawn, 0.0), level)
        low, high = (np.where(known, end, np.nan) for end in (found.low, found.high))
        return replace(found, low=low, high=high)

    def _selectivity(self, cells: np.ndarray) -> np.ndarray:
        """Selectivity [..., row] from cells [..., row, column]."""
        own = np.where(self.own_cells, cells, 0.0).sum(-1)
        other = np.where(self.own_cells, -np.inf, cells).max(-1)
        return np.where(self.own_cells.any(-1) & np.isfinite(other), _ratio(own, other), np.nan)

    def _figures(self, cells: np.ndarray, control: np.ndarray) -> dict[str, np.ndarray]:
        """The figures of `summary` [...] from cells and control cells [..., row, column]."""
        diagonal, elsewhere = _mean(cells[..., self.own_cells]), _mean(cells[..., ~self.own_cells])
        chance = _mean(control[..., self.own_cells])
        figures = {
            "mean diagonal": diagonal,
            "mean off-diagonal": elsewhere,
            "mean diagonal of the control": chance,
            "diagonal / off-diagonal": _ratio(diagonal, elsewhere),
            "diagonal / control": _ratio(diagonal, chance),
        }
        if "en" in self.rows and "en" in self.languages:
            at = self.rows.index("en"), self.languages.index("en")
            figures["English on itself"] = np.asarray(cells[..., *at])
        return figures

    def _brief(self) -> str:
        told = []
        for setting in self.classes:
            figures = self._figures(self.cells(setting), self.control_cells(setting))
            own, other, chance = (f"{value:.3f}" for value in list(figures.values())[:3])
            name = self.name_of(setting)
            told.append(f"{name}: diagonal {own}, off-diagonal {other}, control {chance}")
        size = f"{len(self.rows)} x {len(self.languages)}"
        return f"{size}, {METRICS[self.metric].unit}: {'; '.join(told)}"

    def _overview(self) -> Overview:
        lines = zip(self.rows, self.sizes[-1], self.cells(), strict=True)
        rows = [(row, n, *(f"{cell:.3f}" for cell in line)) for row, n, line in lines]
        title = f"AblationMatrix, {self.name_of()} removed: {METRICS[self.metric].unit}"
        return Overview(title, ("removed", "neurons", *self.languages), rows)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN where it is empty."""
    empty = values.shape[-1] == 0
    return np.asarray(np.full(values.shape[:-1], np.nan) if empty else values.mean(-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The ratio of the two, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def _row_distances(cells: LanguageMatrix, own: np.ndarray) -> np.ndarray:
    """1 - correlation of two rows over the columns that are neither's own, [row, row]."""
    distance = np.zeros((len(cells), len(cells)))
    for i in range(len(cells)):
        for j in range(i):
            others = ~(own[i] | own[j])
            pair = cells[i, others], cells[j, others]
            flat = others.sum() < 2 or min(np.ptp(row) for row in pair) == 0
            distance[i, j] = distance[j, i] = 1 - (0 if flat else np.corrcoef(*pair)[0, 1])
    return distance


@plain_options
@runs_model
def ablation_matrix(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    neurons: LanguageNeurons,
    *,
    classes: Sequence[str] = LAYER_CLASSES,
    languages: Sequence[str] | None = None,
    metric: Metric = "nll",
    controls: int = 20,
    match: Match = "activity",
    max_new_tokens: int | None = None,
    stop: Sequence[str] = (),
    shots: ParallelCorpus | None = None,
    scope: Scope | None = None,
    run_dir: str | Path | None = None,
    batch_tokens: int = 4096,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> AblationMatrix:
    """Remove each language's neurons in turn, and measure the effect on every language.

    Args:
        model: a TransformerLens model; it stays as it is.
        corpus: the texts; their languages become the columns.
        neurons: whose sets are removed (of its population).
        classes: the settings; each removes its class and those named before it.
        languages: the rows; None for all languages of `neurons`.
        metric: what a cell measures. Accuracy lets the model write, which takes much longer.
        controls: random sets a row and setting.
        match: ``"activity"``: control neurons are of the same layers and active about as often;
            ``"layer"``: any neurons of the same layers, most of which hardly fire.
        max_new_tokens: for accuracy, most tokens of an answer. A model that has lost a language
            often does not stop, so give little more than the longest right answer needs.
        stop: for accuracy, strings before which an answer is cut.
        shots: for accuracy, worked examples before the prompts of their language.
        scope: for the NLL, whose tokens are evaluated.
        run_dir: a folder for the result; the same call resumes there, cell by cell.
        batch_tokens: most tokens in a batch, padding included.
        seed: of the random sets.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in cells.

    Returns:
        The matrix, with all effects by text.

    Raises:
        LensNeuronsError: an unknown class or language, neurons of another model, no control, or a
            layer with too few neurons for a control of the same size.
        CorpusError: texts that the model cannot read.
        ProvenanceError: `run_dir` was begun with something else; says what.
    """
    sets = ablation_sets(neurons, classes, languages)
    measure = METRICS[choose(metric, METRICS, "metric")]
    choose(match, get_args(Match), "match")
    if controls < 1:
        raise LensNeuronsError(f"controls={controls}: an effect needs a control to mean anything")
    refuse_hooks(model, run_dir)
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    site = prepared.site
    if (neurons.n_layers, neurons.d_mlp) != (site.n_layers, site.d_mlp):
        raise LensNeuronsError(
            f"neurons of {neurons.n_layers} layers x {neurons.d_mlp} are not of this model of "
            f"{site.n_layers} x {site.d_mlp}"
        )
    score = measure.scorer(prepared, max_new_tokens, stop, shots)
    activity = neurons.probability.mean(axis=-1)
    if match == "layer":
        activity = np.zeros_like(activity)  # equal activities leave nothing to match
    conditions = {
        (setting, row): (one, one.random_control(activity, draws=controls, seed=seed))
        for setting, rows in sets.items()
        for row, one in rows.items()
    }
    job = CellJob(prepared, score, fitting(model, batch_tokens), conditions)
    provenance = replace(prepared.provenance(), attention="eager")  # logits need the bridge
    plan = {
        "kind": CELL_KIND,
        "classes": list(classes),
        "rows": list(sets[classes[0]]),
        "neurons": _digest(one for one, _ in conditions.values()),
        "control_sets": _digest(one for _, draws in conditions.values() for one in draws),
        "metric": metric,
        "max_new_tokens": max_new_tokens,
        "controls": controls,
        "match": match,
        "batch_tokens": job.batch_tokens,
        "seed": seed,
    }
    if stop:
        plan["stop"] = [stop] if isinstance(stop, str) else list(stop)
    if shots is not None:
        plan["shots"] = fingerprint_of(shots)
    with open_folder(run_dir, provenance, plan) as folder:
        if folder is not None and (folder / AblationMatrix.RUN_FILE).exists():
            done = AblationMatrix.load(folder / AblationMatrix.RUN_FILE)
            folder.require_result(done)
            return done
        matrix = _assemble(job, metric, folder, provenance, progress)
        if folder is not None:
            folder.finish(matrix)
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
    removed = dict.fromkeys(rows, NeuronSet(np.zeros(0, np.int64), neurons.n_layers, neurons.d_mlp))
    for added in classes:
        for k in rows:
            own = neurons.agnostic if added == "agnostic" else getattr(neurons, added)[k]
            removed[k] = removed[k] | own
        found[added] = {k: one.relabel(f"{added} {k}") for k, one in removed.items()}
    return found


CELL_KIND = "cell of an ablation matrix"


@dataclass(frozen=True)
class CellJob:
    """What `ablation_matrix` runs.

    `score` gives sum and weight of some texts, run as one batch of at most `batch_tokens` tokens.
    A condition is a setting and a row: the neurons that are removed, and the random sets.
    """

    prepared: PreparedCorpus
    score: TextMeasure
    batch_tokens: int
    conditions: dict[tuple[str, str], tuple[NeuronSet, list[NeuronSet]]]

    @property
    def cells(self) -> list[Cell]:
        """Every cell, column by column."""
        return [(*one, k) for k in self.prepared.encoded.languages for one in self.conditions]

    def texts(self, column: str) -> np.ndarray:
        """The texts of a column, the longest first."""
        encoded = self.prepared.encoded
        texts = np.flatnonzero(encoded.language == encoded.languages.index(column))
        return texts[np.argsort(-encoded.lengths[texts], kind="stable")]


def _digest(sets: Iterable[NeuronSet]) -> str:
    """A hash over all sets and their labels."""
    told = (f"{one.label}:{len(one)}:".encode() + one.flat.tobytes() for one in sets)
    return hashlib.sha256(b"".join(told)).hexdigest()


def _assemble(
    job: CellJob, metric: Metric, folder: Run | None, provenance: Provenance, progress: bool
) -> AblationMatrix:
    """Run the cells that are missing and put all of them together."""
    encoded = job.prepared.encoded
    base, weight = np.zeros(len(encoded)), np.zeros(len(encoded))
    for rows in job.prepared.batches(job.batch_tokens):
        base[rows], weight[rows] = job.score(rows)
    settings = tuple(dict.fromkeys(setting for setting, _ in job.conditions))
    languages = tuple(dict.fromkeys(row for _, row in job.conditions))
    effect = np.zeros((len(settings), len(languages), len(base)))
    control = np.zeros_like(effect)
    runs, total = run_cells(job, base, folder), len(job.cells)
    for cell, found in with_bar(runs, "ablate", "cell", shown=progress, total=total):
        setting, row, column = cell
        place = settings.index(setting), languages.index(row), job.texts(column)
        effect[place], control[place] = found
    removed, draws = zip(*job.conditions.values(), strict=True)
    return AblationMatrix(
        rows=languages,
        languages=encoded.languages,
        classes=settings,
        metric=metric,
        base=base,
        effect=effect,
        control=control,
        weight=weight,
        language=encoded.language,
        item_ids=encoded.item_ids,
        sizes=np.array(list(map(len, removed))).reshape(effect.shape[:2]),
        draws=len(draws[0]),
        provenance=provenance,
    )


def run_cells(
    job: CellJob, base: np.ndarray, folder: Run | None
) -> Iterator[tuple[Cell, np.ndarray]]:
    """Yield every cell with its effects and controls [2, text]: from its file, or by a run.

    Raises:
        StorageError: the file of a cell is damaged.
    """
    for cell in job.cells:
        of = dict(zip(("setting", "row", "column"), cell, strict=True))
        file = None if folder is None else folder / "cells" / f"{'_'.join(cell)}.safetensors"
        if folder is not None and file is not None and file.exists():
            try:
                arrays, details = load_arrays(file, CELL_KIND)
                folder.require_part(file, details, **of)
                effects = _whole_effects(file, arrays, len(job.texts(cell[-1])))
            except StorageError as error:
                raise StorageError(f"{error}; delete it to run the cell again") from None
        else:
            effects = _run_cell(job, base, *cell)
            if folder is not None and file is not None:
                save_arrays(file, CELL_KIND, {"effects": effects}, folder.part(**of))
        yield cell, effects


def _whole_effects(file: Path, arrays: Mapping[str, np.ndarray], texts: int) -> np.ndarray:
    """Effects and controls of a cell, float64 [2, text], once the file proves to hold them."""
    effects = arrays.get("effects", np.zeros(0))
    if (effects.dtype, effects.shape) != (np.float64, (2, texts)) or np.isnan(effects).any():
        raise StorageError(f"{file} does not hold the effects of {texts} texts")
    return effects


def _run_cell(job: CellJob, base: np.ndarray, setting: str, row: str, column: str) -> np.ndarray:
    """Effect and mean control of every text of a column, float64 [2, text]."""
    (removed, draws), texts = job.conditions[setting, row], job.texts(column)
    if len(removed) == 0:
        return np.zeros((2, len(texts)))
    encoded = job.prepared.encoded
    # Of n items, item i meets the draws i, i + n, i + 2n, ... (modulo their number), one a pass,
    # until every draw was met. Items go by name, so a language that lacks some changes nothing.
    items = {name: number for number, name in enumerate(dict.fromkeys(encoded.item_ids))}
    numbers = [items[encoded.item_ids[text]] for text in texts]
    conditions = [[removed] * len(texts)]
    for first in range(0, len(draws), len(items)):
        conditions.append([draws[(first + number) % len(draws)] for number in numbers])
    # One row of a batch is a text under a condition; texts go from the longest to the shortest.
    text, condition = np.divmod(np.arange(len(texts) * len(conditions)), len(conditions))
    scores = np.zeros((len(conditions), len(texts)))
    for part in divide(encoded.lengths[texts[text]], job.batch_tokens):
        places = condition[part], text[part]
        with ablate(job.prepared.model, [conditions[c][i] for c, i in zip(*places, strict=True)]):
            scores[places], _ = job.score(texts[text[part]])
    scores -= base[texts]
    return np.stack([scores[0], scores[1:].mean(0)])
