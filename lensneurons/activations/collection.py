"""From a model and a corpus to activation statistics, in one pass and constant memory.

    encode -> plan batches -> forward without logits -> reduce inside the hook -> add integers

Every counted token is read once: the response mask says what counts, so no prompt-only run has to
be subtracted (which, in the published code, leaks at the seam and gives probabilities up to
1.001). Activations are never stored: memory is the counts, the token ids of the corpus (4 bytes a
token) and one layer of one batch.

Counts are integers and do not depend on batch size, padding or order; the float64 sums beside them
are added up in the order of the plan, so the same call gives the same bytes, interrupted or not.

>>> statistics = ln.collect(model, corpus, run_dir="runs/base")          # doctest: +SKIP

A run folder holds what was asked, what is done, and the result, and survives ``kill -9``:

    runs/base/
      run.json                    provenance and plan, written first
      languages/zh.safetensors    totals of one language so far, replaced as a whole
      statistics.safetensors      the result, written last; ``languages/`` is removed then

A language file says how many batches it holds; a run that was killed goes on after those.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Int64

from lensneurons.activations.reduction import Reduced, reduce_batch, reduce_experts, reduce_routing
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, StorageError, choose
from lensneurons.models.expert_neurons import (
    ExpertNeuronSite,
    activation_of,
    expert_neuron_site,
    gate_of,
    shared_neuron_site,
)
from lensneurons.models.forward import (
    Forward,
    to_device,
    watching,
    watching_experts,
    watching_routers,
)
from lensneurons.models.routers import ExpertSite, expert_site
from lensneurons.models.running import require_finite, runs_model
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.options import plain_options
from lensneurons.shapes import GroupWeights, LayerSums
from lensneurons.tokens.batches import Batch, PaddingSide, item_groups, make_batch
from lensneurons.tokens.encoding import Overlong, Scope
from lensneurons.tokens.prepared import PreparedCorpus, Texts, prepare, refuse_hooks
from lensneurons.values.base import read_only
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import Run, open_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Site = Literal["neurons", "experts", "expert_neurons", "shared_neurons"]
Found = NeuronSite | ExpertSite | ExpertNeuronSite
KIND = "totals of one language"
ARRAYS = ("counts", "tokens", "sums", "squares")


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
    counts: Int64[np.ndarray, "group layer neuron"]
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
            groups: int [row], the group of each row of their counts.
            counted: int [row], counted tokens of each row.
        """
        np.add.at(self.tokens, groups, counted)
        for layer, reduced in enumerate(layers):
            for row, group in enumerate(groups):
                self.counts[group, layer] += reduced.counts[row]
            self.sums[layer] += reduced.sums
            self.squares[layer] += reduced.squares
        self.batches_done += 1


_KNOWS_MEMORY = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})  # not on Windows


def require_memory(groups: int, languages: int, n_layers: int = 1, d_mlp: int = 64) -> None:
    """Raise where the counts of all groups would not fit into the memory of this machine.

    Args:
        groups: how many resampling groups.
        languages: how many languages.
        n_layers: of the model; by default those of a model smaller than any.
        d_mlp: neurons a layer.

    Raises:
        LensNeuronsError: the counts, 8 bytes each, take more than the physical memory.
    """
    size = 8 * groups * languages * n_layers * d_mlp
    held = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if _KNOWS_MEMORY else 2**44
    if size > held:
        raise LensNeuronsError(
            f"groups={groups}: the counts of {languages} languages in {n_layers} x {d_mlp} neurons"
            f" would take {size / 2**30:,.0f} GiB or more, and this machine has"
            f" {held / 2**30:,.0f}; 10 groups are enough for intervals"
        )


class RunFolder:
    """A run that is under way; without a folder it only keeps everything in memory."""

    def __init__(self, folder: Run | None, checkpoint_seconds: float) -> None:
        self.folder = folder
        self.checkpoint_seconds = checkpoint_seconds
        self.last_checkpoint = time.monotonic()
        self.finished: ActivationStatistics | None = None
        if folder is not None and (folder / ActivationStatistics.RUN_FILE).exists():
            self.finished = ActivationStatistics.load(folder / ActivationStatistics.RUN_FILE)
            folder.require_result(self.finished)
            shutil.rmtree(folder / "languages", ignore_errors=True)  # killed before it could

    def load(self, language: str) -> LanguageTotals | None:
        """What was saved of a language, or None."""
        if self.folder is None or not self._file(language).exists():
            return None
        file = self._file(language)
        try:
            arrays, details = load_arrays(file, KIND)
            self.folder.require_part(file, details, language=language)
            return _whole_totals(file, language, arrays, details)
        except StorageError as error:
            raise StorageError(f"{error}; delete it to count {language} again") from None

    def save(self, totals: LanguageTotals, *, now: bool = True) -> None:
        """Save the totals of a language: now, or only where enough time has passed."""
        waiting = time.monotonic() - self.last_checkpoint < self.checkpoint_seconds
        if self.folder is None or (waiting and not now):
            return
        arrays = {name: getattr(totals, name) for name in ARRAYS}
        details = self.folder.part(language=totals.language)
        details |= {"language": totals.language, "batches_done": totals.batches_done}
        save_arrays(self._file(totals.language), KIND, arrays, details)
        self.last_checkpoint = time.monotonic()

    def finish(
        self, languages: Iterable[LanguageTotals], provenance: Provenance, n_experts: int | None
    ) -> ActivationStatistics:
        """Stack the totals of all languages into the result; write it where there is a folder."""
        totals = list(languages)
        names = tuple(one.language for one in totals)
        counts, tokens, sums, squares = (
            read_only(np.stack([getattr(one, name) for one in totals], axis=-1)) for name in ARRAYS
        )
        statistics = ActivationStatistics(
            names, counts, tokens, sums, squares, provenance, n_experts=n_experts
        )
        if self.folder is not None:
            self.folder.finish(statistics)
            shutil.rmtree(self.folder / "languages", ignore_errors=True)
        return statistics

    def _file(self, language: str) -> Path:
        folder = Path(".") if self.folder is None else self.folder.path
        return folder / "languages" / f"{language}.safetensors"


def _whole_totals(
    file: Path, language: str, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]
) -> LanguageTotals:
    """The totals that a file holds.

    Raises:
        StorageError: they lack something, or are what no corpus can give.
    """
    batches = details.get("batches_done")
    if set(arrays) != set(ARRAYS) or not isinstance(batches, int) or batches < 0:
        raise StorageError(f"{file} does not hold one whole {KIND}")
    counts, tokens, sums, squares = (arrays[name] for name in ARRAYS)
    shaped = counts.ndim == 3 and sums.shape == squares.shape == counts.shape[1:]
    typed = counts.dtype == tokens.dtype == np.int64 and sums.dtype == squares.dtype == np.float64
    if not (shaped and typed and tokens.shape == counts.shape[:1]):
        raise StorageError(f"{file} does not hold one whole {KIND}")
    if (counts < 0).any() or (counts > tokens[:, None, None]).any():
        raise StorageError(f"{file} is damaged: a neuron is active on more tokens than there are")
    if not (np.isfinite(sums).all() and np.isfinite(squares).all()):
        raise StorageError(f"{file} is damaged: a sum of activations is not finite")
    return LanguageTotals(language, counts, tokens, sums, squares, batches)


@plain_options
@runs_model
def collect(
    model: Any,
    corpus: Texts,
    *,
    site: Site = "neurons",
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
    """Count on how many tokens of each language every neuron of a model is active (or expert used).

    Args:
        model: what `load_model` returns, or any TransformerLens model; it is not changed. Hooks
            that are on it (an ablation, say) act while the statistics are collected.
        corpus: parallel items, prepared or not; each language needs at least one counted token.
        site: what is counted: ``"neurons"`` of dense MLPs; of a mixture of experts the choices of
            ``"experts"`` by its routers, ``"expert_neurons"`` inside the routed experts, or
            ``"shared_neurons"`` of the MLP that every token passes beside them
            (`lensneurons.models.expert_neurons`).
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
        The statistics, int64 counts and float64 sums [layer, neuron, language]. With experts, the
        counted tokens that were sent to each [layer, expert, language] (k experts a token), and
        sums of the weights that their routers gave them. Rows of layers without a router are 0;
        among r routed layers of n, the percentile q of all experts in `identify` is the percentile
        ``1 - (1 - q) * n / r`` of those that exist. Neuron j of expert e is number
        ``e * width + j`` of its layer, named such as ``L2E5N10``; it is active on the tokens that
        were sent to its expert and make it so, out of all counted tokens:
        ``statistics.among_routed(collect(model, corpus, site="experts"))`` has the tokens that were
        sent there as the denominator.

    Raises:
        ModelError: the model has no dense MLP neurons (no routers, for experts; experts whose
            weights cannot be read, for the neurons inside), or its hooks do not hold what they
            name.
        CorpusError: texts without counted tokens, too long, or ids outside the vocabulary.
        LensNeuronsError: `run_dir` is given while hooks are on the model, or the counts of `groups`
            do not fit into memory.
        StorageError: `run_dir` holds something else, or another process works in it.
        ProvenanceError: `run_dir` was begun with another model, corpus or plan; says which.
    """
    if groups < 1:
        raise LensNeuronsError(f"groups={groups}: at least 1 group of items is needed")
    choose(padding_side, get_args(PaddingSide), "padding_side")
    find: dict[str, Callable[[Any], Found]] = {
        "neurons": neuron_site,
        "experts": expert_site,
        "expert_neurons": expert_neuron_site,
        "shared_neurons": shared_neuron_site,
    }
    found = find[choose(site, get_args(Site), "site")](model)
    prepared = prepare(
        model, corpus, scope=scope, max_length=max_length, overlong=overlong, tokenizer=tokenizer
    )
    require_memory(groups, len(prepared.encoded.languages), found.n_layers, found.d_mlp)
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
    provenance, n_experts = prepared.provenance(), None
    if isinstance(found, ExpertNeuronSite):
        provenance = replace(provenance, hook=found.hook, activation=found.activation_name)
        n_experts = None if found.shared else found.n_experts
    with open_folder(run_dir, provenance, plan) as folder:
        run = RunFolder(folder, checkpoint_seconds)
        if run.finished is not None:
            return run.finished
        totals = _collect_languages(
            prepared,
            found,
            batches,
            run,
            groups=groups,
            padding_side=padding_side,
            progress=progress,
        )
        return run.finish(totals, provenance, n_experts)


def _collect_languages(
    prepared: PreparedCorpus,
    site: Found,
    batches: Sequence[np.ndarray],
    run: RunFolder,
    *,
    groups: int,
    padding_side: PaddingSide,
    progress: bool,
) -> Iterator[LanguageTotals]:
    """Yield the totals of every language in order; each goes on from what the run folder holds."""
    from tqdm.auto import tqdm

    encoded = prepared.encoded
    group_of = item_groups(encoded.item_ids, groups)
    layers: _Layers | _Routers | _Experts
    if isinstance(site, NeuronSite):
        layers = _Layers(site)
        watch = watching(prepared.model, site, layers.watch)
    elif isinstance(site, ExpertSite):
        layers = _Routers(site)
        watch = watching_routers(prepared.model, site, layers.watch)
    else:
        layers = _Experts(site)
        watch = watching_experts(prepared.model, site, layers.watch)
    total = encoded.report.total.counted
    bar = tqdm(total=total, unit="token", unit_scale=True, desc="collect", disable=not progress)
    with bar, watch as forward:
        for k, language in enumerate(encoded.languages):
            bar.set_postfix_str(language)
            totals = run.load(language) or LanguageTotals.zeros(
                language, groups, site.n_layers, site.d_mlp
            )
            done = totals.batches_done
            own = [rows for rows in batches if encoded.language[rows[0]] == k]
            for number, rows in enumerate(own):
                batch = make_batch(encoded, rows, padding_side=padding_side)
                if number >= done:
                    held, counted = group_of[rows], batch.counted.sum(1).numpy()
                    if isinstance(layers, _Experts):
                        held, layers.groups = np.unique(held, return_inverse=True)
                        counted = np.bincount(layers.groups, counted).astype(np.int64)
                    layers.run(forward, prepared.model, batch)
                    totals.add(layers.reduced, held, counted)
                    run.save(totals, now=False)
                bar.update(batch.n_counted)
            if totals.batches_done > done:
                run.save(totals)
            yield totals


def _forward(forward: Forward, model: Any, batch: Batch) -> None:
    """Run one batch. Only padding on the left needs a mask: a causal model looks to the left."""
    padded_left = bool((batch.attention_mask[:, 0] == 0).any())
    mask = to_device(model, batch.attention_mask) if padded_left else None
    forward(to_device(model, batch.tokens), mask)


class _Layers:
    """Reduces each layer as it passes, and makes sure that every layer passes exactly once."""

    def __init__(self, site: NeuronSite) -> None:
        self.site = site
        self.counted = torch.zeros((0, 0), dtype=torch.bool)
        self.reduced: list[Reduced] = []

    def run(self, forward: Forward, model: Any, batch: Batch) -> None:
        """Run one batch; `reduced` then holds one entry a layer, in order."""
        self.counted, self.reduced = batch.counted, []
        _forward(forward, model, batch)
        if len(self.reduced) != self.site.n_layers:
            raise LensNeuronsError(
                f"hook_pre fired {len(self.reduced)} times in a forward pass of "
                f"{self.site.n_layers} layers: the counts would be wrong"
            )

    def watch(self, layer: int, pre: torch.Tensor) -> None:
        """Reduce one layer of the batch that is running."""
        if layer != len(self.reduced) or pre.shape[-1] != self.site.d_mlp:
            raise LensNeuronsError(
                f"hook_pre of layer {layer} came as number {len(self.reduced)} and "
                f"{pre.shape[-1]} wide (d_mlp is {self.site.d_mlp}): the counts would be wrong"
            )
        self.reduced.append(reduce_batch(pre, self.counted, *self.site.reading(layer)))


class _Routers:
    """`_Layers` for the choices of routers; layers without one get zeros."""

    def __init__(self, site: ExpertSite) -> None:
        self.site = site
        self.counted = torch.zeros((0, 0), dtype=torch.bool)
        self.reduced: list[Reduced] = []
        self.seen: list[int] = []

    def run(self, forward: Forward, model: Any, batch: Batch) -> None:
        """Run one batch; `reduced` then holds one entry a layer, in order."""
        rows, width = len(batch.counted), self.site.n_experts
        self.counted, self.seen = batch.counted, []
        nothing = Reduced(np.zeros((rows, width), np.int64), np.zeros(width), np.zeros(width))
        self.reduced = [nothing] * self.site.n_layers
        _forward(forward, model, batch)
        if self.seen != list(self.site.layers):
            raise LensNeuronsError(
                f"the routers of layers {list(self.site.layers)} ran as {self.seen}: the counts "
                "would be wrong"
            )

    def watch(self, layer: int, weights: torch.Tensor, indices: torch.Tensor) -> None:
        """Reduce the choices of one layer of the batch that is running."""
        self.seen.append(layer)
        if indices.shape != (self.counted.numel(), self.site.top_k):
            raise LensNeuronsError(
                f"the router of layer {layer} chose {list(indices.shape)} for a batch of "
                f"{list(self.counted.shape)} tokens: the counts would be wrong"
            )
        self.reduced[layer] = reduce_routing(weights, indices, self.counted, self.site.n_experts)


class _Experts:
    """`_Layers` for the neurons inside experts; layers without experts get zeros."""

    def __init__(self, site: ExpertNeuronSite) -> None:
        self.site = site
        self.counted = torch.zeros((0, 0), dtype=torch.bool)
        self.groups = np.zeros(0, np.int64)  # of the rows of the batch that runs next
        self.reduced: list[Reduced] = []
        self.seen: list[int] = []

    def run(self, forward: Forward, model: Any, batch: Batch) -> None:
        """Run one batch; `reduced` then holds one entry a layer, in order, a row a group."""
        number, width = int(self.groups.max()) + 1, self.site.d_mlp
        self.counted, self.seen = batch.counted, []
        nothing = Reduced(np.zeros((number, width), np.int64), np.zeros(width), np.zeros(width))
        self.reduced = [nothing] * self.site.n_layers
        _forward(forward, model, batch)
        if self.seen != list(self.site.layers):
            raise LensNeuronsError(
                f"the experts of layers {list(self.site.layers)} ran as {self.seen}: the counts "
                "would be wrong"
            )

    def watch(self, layer: int, module: Any, x: torch.Tensor, indices: torch.Tensor) -> None:
        """Reduce the experts of one layer of the batch that is running."""
        self.seen.append(layer)
        if len(x) != self.counted.numel() or len(indices) != len(x):
            raise LensNeuronsError(
                f"the experts of layer {layer} read {len(x)} tokens of a batch of "
                f"{list(self.counted.shape)}: the counts would be wrong"
            )

        def read(tokens: torch.Tensor, expert: int) -> torch.Tensor:
            pre = gate_of(module, x[tokens], expert)
            require_finite(pre, f"the pre-activations of expert {expert} of layer {layer}")
            return pre

        self.reduced[layer] = reduce_experts(
            read,
            indices,
            self.counted,
            activation_of(module),
            groups=self.groups,
            size=(self.site.n_experts, self.site.width),
            sign_decides=self.site.sign_decides,
        )
