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

The result of `ablation_matrix`: effects and controls of every text, and what follows from them.

Everything is kept by text, so that means, ratios and their intervals come from the same numbers:
one bootstrap over items draws all cells, their controls and every summary together.

The cells of a deactivation matrix, run one by one, each kept as soon as it is done.

A text meets its ablation and its control draws in one batch, as rows with a set of neurons each.
The batches of a cell depend on nothing but the cell, so a matrix that was interrupted ends with the
same bits.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError, StorageError, choose
from lensneurons.evaluation.answers import answer_scorer
from lensneurons.evaluation.likelihood import TextMeasure, fitting, require_predicted, text_scorer
from lensneurons.interventions.editing import ablate
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.shapes import (
    Cells,
    DrawnCells,
    LanguageMatrix,
    SetSizes,
    TextEffects,
    TextNumbers,
    TextValues,
)
from lensneurons.tokens.batches import plan_batches
from lensneurons.tokens.encoding import EncodedCorpus, Scope
from lensneurons.tokens.prepared import PreparedCorpus, prepare, refuse_hooks
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


KIND = "ablation matrix"
Metric = Literal["nll", "accuracy"]
UNITS = {"nll": "change of NLL, nats a token", "accuracy": "change of accuracy"}
ARRAYS = ("base", "effect", "control", "weight", "language", "sizes")


@dataclass(frozen=True, eq=False, repr=False)
class AblationMatrix:
    """Effects of removing each language's neurons on each language; immutable.

    A setting is the union of the classes up to its own: ``"related"`` removes the specific and the
    related neurons.

    Attributes:
        rows: languages whose neurons were removed.
        languages: languages that were evaluated, the columns.
        classes: the settings, by the class that each one adds.
        metric: what a cell measures: ``"nll"`` (nats a token) or ``"accuracy"`` (share of right
            answers in the right language).
        base: float64 [text], NLL (or 1 for a right answer) of the untouched model.
        effect: float64 [setting, row, text], what is added to it by the ablation.
        control: float64 [setting, row, text], what random sets add, mean over their draws.
        weight: float64 [text], counted tokens (or 1).
        language: int [text], number of each text's language.
        item_ids: name of each text's item.
        sizes: int64 [setting, row], neurons that were removed.
        draws: random sets of each control.
        provenance: model, corpus and scope.
    """

    rows: tuple[str, ...]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    metric: Metric
    base: TextValues
    effect: TextEffects
    control: TextEffects
    weight: TextValues
    language: TextNumbers
    item_ids: tuple[str, ...]
    sizes: SetSizes
    draws: int
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        for name in ARRAYS:
            view = getattr(self, name).view()  # the caller's own array stays writable
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def cells(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: mean effect in a setting; by default the last one.

        Raises:
            LensNeuronsError: no such setting; those that are get listed.
        """
        return self._cells(self.effect)[self._place(setting)]

    def control_cells(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: mean effect of random sets of the same size."""
        return self._cells(self.control)[self._place(setting)]

    def interval(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Cells with bootstrap intervals over items, [row, column]."""
        drawn = self._drawn[0][:, self._place(setting)]
        return self._resampling.interval(self.cells(setting), drawn, level)

    def control_interval(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Control cells with bootstrap intervals over items and draws, [row, column]."""
        drawn = self._drawn[1][:, self._place(setting)]
        return self._resampling.interval(self.control_cells(setting), drawn, level)

    def causal_ratio(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Effect over control, [row, column]; without meaning where a control is about 0."""
        return self._derive(_ratio, setting, level)

    def selectivity(self, setting: str | None = None, *, level: float = 0.95) -> Interval:
        """Effect on the own language over the largest effect on another, [row]."""
        return self._derive(lambda cells, _: self._selectivity(cells), setting, level)

    def summary(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a setting and figure: the estimate and its interval.

        Figures: mean diagonal, mean off-diagonal, mean diagonal of the control, the two ratios of
        the diagonal to them, and the English cell where English is a row.
        """
        import pandas as pd

        figures = self._figures
        rows = []
        for setting in self.classes:
            for name, figure in figures.items():
                found = self._derive(figure, setting, level)
                ends = (found.estimate, found.low, found.high)
                rows.append((self.name_of(setting), name, *(float(end) for end in ends)))
        return pd.DataFrame(rows, columns=["removed", "figure", "estimate", "low", "high"])

    def name_of(self, setting: str | None = None) -> str:
        """What a setting removes, such as ``"specific + related"``."""
        return " + ".join(self.classes[: self._place(setting) + 1])

    def log_perplexity_difference(self, setting: str | None = None) -> LanguageMatrix:
        """float64 [row, column]: ``ln(1 + change of perplexity)``, the paper's figure.

        NaN where the perplexity falls by 1 or more.

        Raises:
            LensNeuronsError: the metric is not the NLL.
        """
        if self.metric != "nll":
            raise LensNeuronsError("perplexity needs metric='nll', these cells hold accuracy")
        before = self._cells(self.base[None, None])[0, 0]
        change = np.exp(before + self.cells(setting)) - np.exp(before)
        return np.log1p(change, out=np.full_like(change, np.nan), where=change > -1)

    def language_order(self, setting: str | None = None) -> tuple[str, ...]:
        """The rows in the order that puts languages of similar effects side by side.

        Average linkage on the correlation distance between the effects of two rows on the columns
        that are neither's own; optimal ordering of the leaves.
        """
        from scipy.cluster.hierarchy import leaves_list, linkage
        from scipy.spatial.distance import squareform

        distance = _row_distances(self.cells(setting), self._own)
        if len(self.rows) < 3:
            return self.rows
        tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
        return tuple(self.rows[i] for i in leaves_list(tree))

    def to_pandas(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a cell: removed, row, column, neurons, effect and control with their ends."""
        import pandas as pd

        parts = []
        for s, setting in enumerate(self.classes):
            effect = self.interval(setting, level=level)
            control = self.control_interval(setting, level=level)
            row, column = np.indices(effect.estimate.shape).reshape(2, -1)
            parts.append(
                pd.DataFrame(
                    {
                        "removed": self.name_of(setting),
                        "row": np.array(self.rows)[row],
                        "column": np.array(self.languages)[column],
                        "neurons": self.sizes[s][row],
                        **_columns("effect", effect),
                        **_columns("control", control),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def _cells(self, values: TextEffects) -> Cells:
        """Mean by language, [setting, row, language]."""
        of_language = np.eye(len(self.languages))[self.language]
        return values @ of_language / (self.weight @ of_language)

    @cached_property
    def _resampling(self) -> ItemDraws:
        return ItemDraws(self.item_ids, self.language)

    @cached_property
    def _drawn(self) -> tuple[DrawnCells, DrawnCells]:
        """Effects and controls in drawn corpora, each [draw, setting, row, language]."""
        drawn = self._resampling
        return drawn.means(self.effect, self.weight), drawn.means(self.control, self.weight)

    def _place(self, setting: str | None) -> int:
        choose(setting or self.classes[-1], self.classes, "setting")
        return self.classes.index(setting or self.classes[-1])

    @cached_property
    def _own(self) -> np.ndarray:
        """Bool [row, column]: the cell of a language on itself."""
        return np.array(self.rows)[:, None] == np.array(self.languages)[None, :]

    def _derive(
        self,
        figure: Callable[[np.ndarray, np.ndarray], np.ndarray],
        setting: str | None,
        level: float,
    ) -> Interval:
        """A figure of cells and controls [..., row, column], with its interval."""
        place = self._place(setting)
        estimate = figure(self.cells(setting), self.control_cells(setting))
        drawn = figure(*(draws[:, place] for draws in self._drawn))
        known = ~np.isnan(drawn).all(0)
        found = self._resampling.interval(estimate, np.where(known, drawn, 0.0), level)
        low, high = (np.where(known, end, np.nan) for end in (found.low, found.high))
        return replace(found, low=low, high=high)

    def _selectivity(self, cells: np.ndarray) -> np.ndarray:
        own = np.where(self._own, cells, 0.0).sum(-1)
        other = np.where(self._own, -np.inf, cells).max(-1)
        return np.where(self._own.any(-1) & np.isfinite(other), _ratio(own, other), np.nan)

    @property
    def _figures(self) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
        own = self._own

        def diagonal(cells: np.ndarray) -> np.ndarray:
            return _mean(cells[..., own])

        def elsewhere(cells: np.ndarray) -> np.ndarray:
            return _mean(cells[..., ~own])

        figures: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
            "mean diagonal": lambda cells, control: diagonal(cells),
            "mean off-diagonal": lambda cells, control: elsewhere(cells),
            "mean diagonal of the control": lambda cells, control: diagonal(control),
            "diagonal / off-diagonal": lambda cells, control: _ratio(
                diagonal(cells), elsewhere(cells)
            ),
            "diagonal / control": lambda cells, control: _ratio(diagonal(cells), diagonal(control)),
        }
        if "en" in self.rows and "en" in self.languages:
            at = self.rows.index("en"), self.languages.index("en")
            figures["English on itself"] = lambda cells, control: np.asarray(cells[..., *at])
        return figures

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        others = [f.name for f in fields(self) if f.name not in (*ARRAYS, "provenance")]
        details = {name: getattr(self, name) for name in others}
        return save_arrays(path, KIND, arrays, {**details, "provenance": self.provenance.to_dict()})

    @classmethod
    def load(cls, path: str | Path) -> AblationMatrix:
        """Read what `save` wrote; a run folder of `ablation_matrix` is accepted as well.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        file = Path(path) / "ablation.safetensors" if Path(path).is_dir() else Path(path)
        arrays, details = load_arrays(file, KIND)
        for name in ("rows", "languages", "classes", "item_ids"):
            details[name] = tuple(details[name])
        details["provenance"] = Provenance.from_dict(details["provenance"])
        return cls(**arrays, **details)

    def __repr__(self) -> str:
        told = []
        for setting in self.classes:
            cells, control = self.cells(setting), self.control_cells(setting)
            means = [f(cells, control) for f in list(self._figures.values())[:3]]
            told.append(
                "{}: diagonal {:.3f}, off-diagonal {:.3f}, control {:.3f}".format(
                    self.name_of(setting), *means
                )
            )
        size = f"{len(self.rows)} x {len(self.languages)}"
        return f"AblationMatrix({size}, {UNITS[self.metric]}: {'; '.join(told)})"

    def _repr_html_(self) -> str:
        cells = self.cells()
        rows = [
            (row, n, *(f"{cell:.3f}" for cell in line))
            for row, n, line in zip(self.rows, self.sizes[-1], cells, strict=True)
        ]
        title = f"AblationMatrix, {self.name_of()} removed: {UNITS[self.metric]}"
        return html_table(title, ("removed", "neurons", *self.languages), rows)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN where it has no entry."""
    empty = values.shape[-1] == 0
    return np.asarray(np.full(values.shape[:-1], np.nan) if empty else values.mean(-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def _columns(name: str, interval: Interval) -> dict[str, np.ndarray]:
    return {
        name: interval.estimate.ravel(),
        f"{name}_low": interval.low.ravel(),
        f"{name}_high": interval.high.ravel(),
    }


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


CELL = "cell of an ablation matrix"
Cell = tuple[str, str, str]


@dataclass(frozen=True)
class CellJob:
    """All that is to be run: every cell is a setting, a row and a column.

    Attributes:
        model: a TransformerLens model.
        encoded: the texts.
        score: gives sum and weight of some texts, run as one batch.
        batch_tokens: most tokens in a batch.
        sets: setting to row language to the neurons that are removed.
        controls: setting to row language to the random sets beside them.
    """

    model: Any
    encoded: EncodedCorpus
    score: TextMeasure
    batch_tokens: int
    sets: dict[str, dict[str, NeuronSet]]
    controls: dict[str, dict[str, list[NeuronSet]]]

    @property
    def cells(self) -> list[Cell]:
        """Every cell, column by column."""
        columns = self.encoded.languages
        return [(s, row, k) for k in columns for s, rows in self.sets.items() for row in rows]

    def texts(self, column: str) -> np.ndarray:
        """The texts of a column, the longest first."""
        texts = np.flatnonzero(self.encoded.language == self.encoded.languages.index(column))
        return texts[np.argsort(-self.encoded.lengths[texts], kind="stable")]

    def items(self) -> dict[str, int]:
        """Number of each item: which control draws it meets."""
        return {name: i for i, name in enumerate(dict.fromkeys(self.encoded.item_ids))}


def score_untouched(job: CellJob) -> tuple[np.ndarray, np.ndarray]:
    """TextMeasure and weight of every text without any ablation."""
    base, weight = np.zeros(len(job.encoded)), np.zeros(len(job.encoded))
    for rows in plan_batches(job.encoded, batch_tokens=job.batch_tokens):
        base[rows], weight[rows] = job.score(rows)
    return base, weight


def run_cells(
    job: CellJob, base: np.ndarray, folder: Path | None
) -> Iterator[tuple[Cell, np.ndarray]]:
    """Yield every cell with its effects and controls [2, text], from the folder where they are."""
    for cell in job.cells:
        file = None if folder is None else folder / "cells" / f"{'_'.join(cell)}.safetensors"
        if file is not None and file.is_file():
            yield cell, _read(file)
            continue
        effects = _run_cell(job, base, *cell)
        if file is not None:
            save_arrays(file, CELL, {"effects": effects}, {})
        yield cell, effects


def _read(file: Path) -> np.ndarray:
    try:
        return load_arrays(file, CELL)[0]["effects"]
    except StorageError as error:
        raise StorageError(f"{error}; delete it to run the cell again") from None


def _run_cell(job: CellJob, base: np.ndarray, setting: str, row: str, column: str) -> np.ndarray:
    """Effect and mean control of every text of a column, float64 [2, text]."""
    chosen, draws = job.sets[setting][row], job.controls[setting][row]
    texts, items = job.texts(column), job.items()
    if len(chosen) == 0:
        return np.zeros((2, len(texts)))
    passes = -(-len(draws) // len(items))
    numbers = [items[job.encoded.item_ids[text]] for text in texts]
    conditions = [[chosen] * len(texts)] + [
        [draws[(number + p * len(items)) % len(draws)] for number in numbers] for p in range(passes)
    ]
    jobs = [(i, c) for i in range(len(texts)) for c in range(len(conditions))]
    changed = np.zeros((len(conditions), len(texts)))
    for part in _batches(job, texts, jobs):
        with ablate(job.model, [conditions[c][i] for i, c in part]):
            scores, _ = job.score([int(texts[i]) for i, _ in part])
        changed[[c for _, c in part], [i for i, _ in part]] = scores
    changed -= base[texts]
    return np.stack([changed[0], changed[1:].mean(0)])


def _batches(
    job: CellJob, texts: np.ndarray, jobs: list[tuple[int, int]]
) -> Iterator[list[tuple[int, int]]]:
    """Divide texts under conditions, the longest first, into batches of at most so many tokens."""
    first = 0
    while first < len(jobs):
        longest = int(job.encoded.lengths[texts[jobs[first][0]]])
        last = first + max(1, job.batch_tokens // longest)
        yield jobs[first:last]
        first = last


Match = Literal["activity", "layer"]


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
    scope: Scope | None = None,
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
    sets = ablation_sets(neurons, classes, languages)
    _check(neurons, neuron_site(model), controls)
    refuse_hooks(model, run_dir)
    choose(metric, get_args(Metric), "metric")
    choose(match, get_args(Match), "match")
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    if metric == "nll":
        require_predicted(prepared.encoded)
        score = text_scorer(model, prepared.encoded)
    else:
        score = _answer_score(prepared, max_new_tokens)
    drawn = _controls(sets, neurons, controls, match, seed)
    job = CellJob(model, prepared.encoded, score, fitting(model, batch_tokens), sets, drawn)
    provenance = replace(prepared.provenance(), attention="eager")  # logits need the bridge
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


def _answer_score(prepared: PreparedCorpus, max_new_tokens: int | None) -> TextMeasure:
    """The function that scores texts by their answers: right or not, each of weight 1."""
    answer = answer_scorer(
        prepared.model, prepared.corpus, max_new_tokens=max_new_tokens, tokenizer=prepared.tokenizer
    )

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
