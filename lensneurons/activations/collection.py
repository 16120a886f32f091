"""From a model and a corpus to activation statistics, in one pass and constant memory.

    encode -> plan batches -> forward without logits -> reduce inside the hook -> add integers

Every counted token is read once: the response mask says what counts, so no prompt-only run has to
be subtracted (which, in the published code, leaks at the seam and gives probabilities up to
1.001). Activations are never stored: memory is the counts, the token ids of the corpus (4 bytes a
token) and one layer of one batch.

Counts are integers and do not depend on batch size, padding or order; the float64 sums beside them
are added up in the order of the plan, so the same call gives the same bits, interrupted or not.

>>> statistics = ln.collect(model, corpus, run_dir="runs/base")          # doctest: +SKIP

A run folder holds what was asked, what is done, and the result, and survives ``kill -9``:

    runs/base/
      run.json                    provenance and plan, written first
      languages/zh.safetensors    totals of one language so far, replaced as a whole
      statistics.safetensors      the result, written last; ``languages/`` is removed then

A language file says how many batches it holds. A run that was killed goes on after those, adds the
same floats in the same order, and so ends with the same bytes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from lensneurons.activations.reduction import Reduced, reduce_batch
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError, StorageError, choose
from lensneurons.models.forward import (
    Forward,
    Watch,
    has_hooks,
    prove_neurons,
    to_device,
    watching,
)
from lensneurons.models.sites import NeuronSite
from lensneurons.shapes import GroupedLayers, GroupWeights, LayerSums
from lensneurons.tokens.batches import Batch, PaddingSide, item_groups, make_batch
from lensneurons.tokens.encoding import Overlong, Scope
from lensneurons.tokens.prepared import PreparedCorpus, prepare, refuse_hooks
from lensneurons.values.base import read_only
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


KIND = "totals of one language"


@dataclass
class LanguageTotals:
    """Running totals of one language.

    Attributes:
        language: its code.
        counts: int64 [group, layer, neuron].
        tokens: int64 [group].
        sums: float64 [layer, neuron], of the activation.
        squares: float64 [layer, neuron].
        batches_done: how many batches of the plan are in.
    """

    language: str
    counts: GroupedLayers
    tokens: GroupWeights
    sums: LayerSums
    squares: LayerSums
    batches_done: int = 0

    @classmethod
    def zeros(cls, language: str, groups: int, n_layers: int, d_mlp: int) -> LanguageTotals:
        """Totals before the first batch."""
        shape = (n_layers, d_mlp)
        counts = np.zeros((groups, *shape), np.int64)
        return cls(language, counts, np.zeros(groups, np.int64), np.zeros(shape), np.zeros(shape))

    def add(self, layers: Sequence[Reduced], groups: np.ndarray, counted: np.ndarray) -> None:
        """Add one batch.

        Args:
            layers: the reduced layers, in order.
            groups: int [row], the group of each row.
            counted: int [row], counted tokens of each row.
        """
        np.add.at(self.tokens, groups, counted)
        for layer, reduced in enumerate(layers):
            for row, group in enumerate(groups):
                self.counts[group, layer] += reduced.counts[row]
            self.sums[layer] += reduced.sums
            self.squares[layer] += reduced.squares
        self.batches_done += 1


class RunFolder:
    """A run that is under way; without a folder it only keeps everything in memory."""

    def __init__(self, folder: Path | None, checkpoint_seconds: float) -> None:
        self.folder = folder
        self.checkpoint_seconds = checkpoint_seconds
        self.last_checkpoint = time.monotonic()
        self.finished: ActivationStatistics | None = None
        if folder is not None and (folder / "statistics.safetensors").is_file():
            self.finished = ActivationStatistics.load(folder)

    def load(self, language: str) -> LanguageTotals | None:
        """What was saved of a language, or None."""
        if self.folder is None or not self._file(language).is_file():
            return None
        try:
            arrays, details = load_arrays(self._file(language), KIND)
        except StorageError as error:
            raise StorageError(f"{error}; delete it to count {language} again") from None
        return LanguageTotals(language, **arrays, batches_done=details["batches_done"])

    def checkpoint(self, totals: LanguageTotals) -> None:
        """Save the totals of a language where enough time has passed."""
        if time.monotonic() - self.last_checkpoint >= self.checkpoint_seconds:
            self.save(totals)

    def save(self, totals: LanguageTotals) -> None:
        """Save the totals of a language now."""
        if self.folder is None:
            return
        arrays = {name: getattr(totals, name) for name in ("counts", "tokens", "sums", "squares")}
        details = {"language": totals.language, "batches_done": totals.batches_done}
        save_arrays(self._file(totals.language), KIND, arrays, details)
        self.last_checkpoint = time.monotonic()

    def finish(
        self, languages: Iterable[LanguageTotals], provenance: Provenance
    ) -> ActivationStatistics:
        """Stack the totals of all languages into the result; write it where there is a folder."""
        totals = list(languages)

        def stack(name: str) -> np.ndarray:
            return read_only(np.stack([getattr(total, name) for total in totals], axis=-1))

        statistics = ActivationStatistics(
            languages=tuple(total.language for total in totals),
            grouped_counts=stack("counts"),
            grouped_tokens=stack("tokens"),
            sums=stack("sums"),
            squares=stack("squares"),
            provenance=provenance,
        )
        if self.folder is not None:
            statistics.save(self.folder / "statistics.safetensors")
            shutil.rmtree(self.folder / "languages", ignore_errors=True)
        return statistics

    def _file(self, language: str) -> Path:
        return Path(self.folder or ".") / "languages" / f"{language}.safetensors"


@contextmanager
def open_run(
    folder: str | Path | None,
    provenance: Provenance,
    plan: Mapping[str, Any],
    checkpoint_seconds: float = 30.0,
) -> Iterator[RunFolder]:
    """Begin a run, or go on with one; nobody else can work in the folder meanwhile.

    Raises:
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, corpus or plan.
    """
    with open_folder(folder, provenance, plan) as path:
        yield RunFolder(path, checkpoint_seconds)


def collect(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    *,
    scope: Scope | None = None,
    run_dir: str | Path | None = None,
    groups: int = 10,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    overlong: Overlong | None = None,
    padding_side: PaddingSide = "right",
    tokenizer: PreTrainedTokenizerBase | None = None,
    checkpoint_seconds: float = 30.0,
    progress: bool = True,
) -> ActivationStatistics:
    """Count on how many tokens of each language every neuron of a model is active.

    Args:
        model: what `load_model` returns, or any TransformerLens model; it is not changed. Hooks
            that are on it (an ablation, say) act while the statistics are collected.
        corpus: parallel items, prepared or not; each language needs at least one counted token.
        scope: which tokens count: those of the response (None, the paper's choice), of the prompt,
            or all. BOS, other special tokens and padding never count.
        run_dir: a folder for the result. What was done is saved there every `checkpoint_seconds`,
            and the same call goes on where it stopped; a finished run is only read.
        groups: number of groups of parallel items whose counts are kept apart for intervals; costs
            8 bytes a group, neuron and language.
        batch_tokens: most tokens in a batch, padding included.
        max_length: longest text in tokens; the model's context length by default.
        overlong: whether longer texts are refused (None) or cut at `max_length`.
        padding_side: where short texts of a batch are padded; the counts do not depend on it.
        tokenizer: encodes the corpus; by default the model's own, as it was saved.
        checkpoint_seconds: how often the state is written to `run_dir`.
        progress: show one progress bar, in tokens.

    Returns:
        The statistics, int64 counts and float64 sums [layer, neuron, language].

    Raises:
        ModelError: the model has no dense MLP neurons, or its hooks do not hold what they name.
        CorpusError: texts without counted tokens, too long, or ids outside the vocabulary.
        LensNeuronsError: `run_dir` is given while hooks are on the model.
        StorageError: `run_dir` holds something else, or another process works in it.
        ProvenanceError: `run_dir` was begun with another model, corpus or plan; says which.
    """
    if groups < 1:
        raise LensNeuronsError(f"groups={groups}: at least 1 group of items is needed")
    choose(padding_side, get_args(PaddingSide), "padding_side")
    prepared = prepare(
        model, corpus, scope=scope, max_length=max_length, overlong=overlong, tokenizer=tokenizer
    )
    batches = prepared.batches(batch_tokens)
    refuse_hooks(model, run_dir)
    plan = {
        "groups": groups,
        "batch_tokens": batch_tokens,
        "padding_side": padding_side,
        "overlong": prepared.overlong,
        "max_length": prepared.max_length,
        "languages": list(prepared.encoded.languages),
        "counted_tokens": prepared.encoded.report.total.counted,
    }
    provenance = prepared.provenance()
    with open_run(run_dir, provenance, plan, checkpoint_seconds) as run:
        if run.finished is not None:
            return run.finished
        if not has_hooks(model):
            prove_neurons(model)
        pass_over = _Pass(prepared, batches, groups, padding_side, progress)
        return run.finish(_collect_languages(pass_over, run), provenance)


@dataclass(frozen=True)
class _Pass:
    """What one pass over a corpus needs to know."""

    prepared: PreparedCorpus
    batches: list[np.ndarray]
    groups: int
    padding_side: PaddingSide
    progress: bool


def _collect_languages(over: _Pass, run: RunFolder) -> Iterator[LanguageTotals]:
    """Run every language that the run folder does not have yet, and yield the totals in order."""
    groups = item_groups(over.prepared.encoded.item_ids, over.groups)
    collector = _Collector(over.prepared.site)
    with (
        _progress_bar(over) as bar,
        watching(over.prepared.model, over.prepared.site, collector.watch) as forward,
    ):
        encoded = over.prepared.encoded
        for k, language in enumerate(encoded.languages):
            rows = [batch for batch in over.batches if encoded.language[batch[0]] == k]
            yield _collect_language(over, language, rows, groups, collector, forward, run, bar)


def _collect_language(
    over: _Pass,
    language: str,
    batches: list[np.ndarray],
    groups: np.ndarray,
    collector: _Collector,
    forward: Forward,
    run: RunFolder,
    bar: Any,
) -> LanguageTotals:
    """Run the batches of one language from where its saved totals end."""
    totals = run.load(language) or LanguageTotals.zeros(
        language, over.groups, over.prepared.site.n_layers, over.prepared.site.d_mlp
    )
    done = totals.batches_done
    bar.set_postfix_str(language)
    for number, rows in enumerate(batches):
        batch = make_batch(over.prepared.encoded, rows, padding_side=over.padding_side)
        if number >= done:
            collector.run(forward, over.prepared.model, batch)
            totals.add(collector.reduced, groups[rows], batch.counted.sum(1).numpy())
            run.checkpoint(totals)
        bar.update(batch.n_counted)
    if totals.batches_done > done:
        run.save(totals)
    return totals


class _Collector:
    """Reduces each layer as it passes, and makes sure that every layer passed exactly once."""

    def __init__(self, site: NeuronSite) -> None:
        self.site = site
        self.counted = torch.zeros((0, 0), dtype=torch.bool)
        self.reduced: list[Reduced] = []

    def run(self, forward: Forward, model: Any, batch: Batch) -> None:
        """Run one batch; `reduced` then holds one entry a layer, in order."""
        self.counted, self.reduced = batch.counted, []
        mask = batch.attention_mask if _needs_mask(batch) else None
        forward(to_device(model, batch.tokens), None if mask is None else to_device(model, mask))
        if len(self.reduced) != self.site.n_layers:
            raise LensNeuronsError(
                f"hook_pre fired {len(self.reduced)} times in a forward pass of "
                f"{self.site.n_layers} layers: the counts would be wrong"
            )

    @property
    def watch(self) -> Watch:
        """The watcher to hand to `watching`."""

        def seen(layer: int, pre: torch.Tensor) -> None:
            if layer != len(self.reduced) or pre.shape[-1] != self.site.d_mlp:
                raise LensNeuronsError(
                    f"hook_pre of layer {layer} came as number {len(self.reduced)} and "
                    f"{pre.shape[-1]} wide (d_mlp is {self.site.d_mlp}): the counts would be wrong"
                )
            self.reduced.append(reduce_batch(pre, self.counted, self.site.activation))

        return seen


def _needs_mask(batch: Batch) -> bool:
    """Only padding on the left needs a mask: a causal model never looks at what is on the right."""
    return bool((batch.attention_mask[:, 0] == 0).any())


@contextmanager
def _progress_bar(over: _Pass) -> Iterator[Any]:
    """One bar over all counted tokens of all languages."""
    from tqdm.auto import tqdm

    with tqdm(
        total=over.prepared.encoded.report.total.counted,
        unit="token",
        unit_scale=True,
        desc="collect",
        disable=not over.progress,
    ) as bar:
        yield bar
