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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Int64

from lensneurons.activations.reduction import Reduced
from lensneurons.activations.sites import Reader, Site, reader_of
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.streams import CorpusStream
from lensneurons.engines.choice import Engine
from lensneurons.engines.pool import engine_for
from lensneurons.errors import LensNeuronsError, StorageError, choose
from lensneurons.models.forward import Forward
from lensneurons.models.running import runs_model
from lensneurons.options import plain_options
from lensneurons.shapes import GroupWeights, LayerSums
from lensneurons.tokens.batches import PaddingSide, item_groups, make_batch
from lensneurons.tokens.encoding import EncodedCorpus, Overlong, Scope
from lensneurons.tokens.pieces import Pieces
from lensneurons.tokens.prepared import PreparedCorpus, Texts, prepare, refuse_hooks
from lensneurons.values.base import read_only
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import Run, open_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KIND = "totals of one language"
ARRAYS = ("counts", "tokens", "sums", "squares")
BRANCHES = ("linear", "both")  # further arrays, where the halves of gated neurons are counted


@dataclass
class LanguageTotals:
    """Running totals of one language.

    Attributes:
        language: its code.
        counts: int64 [group, layer, neuron].
        tokens: int64 [group].
        sums: float64 [layer, neuron], of the activation.
        squares: float64 [layer, neuron].
        batches_done: how many batches of the plan are in; of a stream, how many of its shards.
        linear: int64 [group, layer, neuron], where the linear branch is above 0; None if not asked.
        both: the same, and the neuron is active.
    """

    language: str
    counts: Int64[np.ndarray, "group layer neuron"]
    tokens: GroupWeights
    sums: LayerSums
    squares: LayerSums
    batches_done: int = 0
    linear: Int64[np.ndarray, "group layer neuron"] | None = None
    both: Int64[np.ndarray, "group layer neuron"] | None = None

    @classmethod
    def zeros(
        cls, language: str, groups: int, n_layers: int, d_mlp: int, *, branches: bool = False
    ) -> LanguageTotals:
        """Totals before the first batch."""
        shape = (n_layers, d_mlp)
        counts, tokens = np.zeros((groups, *shape), np.int64), np.zeros(groups, np.int64)
        halves: dict[str, Any] = {n: np.zeros_like(counts) for n in BRANCHES if branches}
        return cls(language, counts, tokens, np.zeros(shape), np.zeros(shape), **halves)

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
                for total, own in ((self.linear, reduced.linear), (self.both, reduced.both)):
                    if total is not None and own is not None:
                        total[group, layer] += own[row]
            self.sums[layer] += reduced.sums
            self.squares[layer] += reduced.squares
        self.batches_done += 1


_KNOWS_MEMORY = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})  # not on Windows


def require_memory(
    groups: int, languages: int, n_layers: int = 1, d_mlp: int = 64, *, arrays: int = 1
) -> None:
    """Raise where the counts of all groups would not fit into the memory of this machine.

    Args:
        groups: how many resampling groups.
        languages: how many languages.
        n_layers: of the model; by default those of a model smaller than any.
        d_mlp: neurons a layer.
        arrays: how many counts are kept of each.

    Raises:
        LensNeuronsError: the counts, 8 bytes each, take more than the physical memory.
    """
    size = 8 * arrays * groups * languages * n_layers * d_mlp
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
        arrays = {name: getattr(totals, name) for name in (*ARRAYS, *BRANCHES)}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        details = self.folder.part(language=totals.language)
        details |= {"language": totals.language, "batches_done": totals.batches_done}
        save_arrays(self._file(totals.language), KIND, arrays, details)
        self.last_checkpoint = time.monotonic()

    def finish(
        self,
        languages: Iterable[LanguageTotals],
        provenance: Provenance,
        parts: Mapping[str, int],
    ) -> ActivationStatistics:
        """Stack the totals of all languages into the result; write it where there is a folder.

        `parts` says of how many experts or heads the neurons of a layer are.
        """
        totals = list(languages)
        names = tuple(one.language for one in totals)
        stacked = {
            name: read_only(np.stack([getattr(one, name) for one in totals], axis=-1))
            for name in (*ARRAYS, *BRANCHES)
            if getattr(totals[0], name) is not None
        }
        counts, tokens, sums, squares = (stacked.pop(name) for name in ARRAYS)
        halves: dict[str, Any] = {f"grouped_{name}": one for name, one in stacked.items()}
        statistics = ActivationStatistics(
            names, counts, tokens, sums, squares, provenance, **{**parts, **halves}
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
    known = (set(ARRAYS), {*ARRAYS, *BRANCHES})
    if set(arrays) not in known or not isinstance(batches, int) or batches < 0:
        raise StorageError(f"{file} does not hold one whole {KIND}")
    counts, tokens, sums, squares = (arrays[name] for name in ARRAYS)
    halves = {name: arrays[name] for name in BRANCHES if name in arrays}
    shaped = counts.ndim == 3 and sums.shape == squares.shape == counts.shape[1:]
    shaped = shaped and all(one.shape == counts.shape for one in halves.values())
    whole = (counts, tokens, *halves.values())
    typed = all(one.dtype == np.int64 for one in whole)
    typed = typed and sums.dtype == squares.dtype == np.float64
    if not (shaped and typed and tokens.shape == counts.shape[:1]):
        raise StorageError(f"{file} does not hold one whole {KIND}")
    if (counts < 0).any() or (counts > tokens[:, None, None]).any():
        raise StorageError(f"{file} is damaged: a neuron is active on more tokens than there are")
    if not (np.isfinite(sums).all() and np.isfinite(squares).all()):
        raise StorageError(f"{file} is damaged: a sum of activations is not finite")
    return LanguageTotals(language, counts, tokens, sums, squares, batches, **halves)


@plain_options
@runs_model
def collect(
    model: Any,
    corpus: Texts | CorpusStream,
    *,
    site: Site = "neurons",
    branches: bool = False,
    scope: Scope | None = None,
    run_dir: str | Path | None = None,
    groups: int = 10,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    overlong: Overlong | None = None,
    padding_side: PaddingSide = "right",
    tokenizer: PreTrainedTokenizerBase | None = None,
    checkpoint_seconds: float = 30.0,
    engine: Engine = "local",
    progress: bool = True,
) -> ActivationStatistics:
    """Count on how many tokens of each language every neuron of a model is active (or expert used).

    Args:
        model: what `load_model` returns, or any TransformerLens model; it is not changed. Hooks
            that are on it (an ablation, say) act while the statistics are collected.
        corpus: parallel items, prepared or not; each language needs at least one counted token. Of
            a corpus larger than memory a stream (`lensneurons.corpora.stream_corpus`), whose next
            shard is read while the model works. Its counts are those of the corpus read whole; its
            sums differ by rounding, and are the same bits for the same ``shard_items``.
        site: what is counted: ``"neurons"`` of dense MLPs; of a mixture of experts the choices of
            ``"experts"`` by its routers, ``"expert_neurons"`` inside the routed experts, or
            ``"shared_neurons"`` of the MLP that every token passes beside them
            (`lensneurons.models.expert_neurons`); of any model the outputs of its linear maps that
            are above 0, ``"q"``, ``"k"``, ``"v"``, ``"attn_out"`` and ``"mlp_out"``
            (`lensneurons.models.linear_sites` says what that can be compared with).
        branches: count the linear branch of gated neurons as well, for the four combinations of
            signs in `ActivationStatistics.branches`; ``site="neurons"`` alone. Costs 16 bytes a
            group, neuron and language.
        scope: which tokens count: those of the response (None, the paper's choice), of the prompt,
            or all. BOS, other special tokens and padding never count.
        run_dir: a folder for the result. What was done is saved there every `checkpoint_seconds`,
            and the same call goes on where it stopped; a finished run is only read.
        groups: number of groups of parallel items whose counts are kept apart for intervals; costs
            8 bytes a group, neuron and language.
        batch_tokens: most tokens in a batch, padding included. A batch that does not fit into
            memory is run again in halves, with a warning that says what fits.
        max_length: longest text in tokens; the model's context length by default.
        overlong: whether longer texts are refused (None) or cut at `max_length`.
        padding_side: where short texts of a batch are padded; the counts do not depend on it.
        tokenizer: encodes the corpus; by default the model's own, as it was saved.
        checkpoint_seconds: how often the state is written to `run_dir`.
        engine: ``"local"``, this process; ``"ray"`` or a `lensneurons.engines.RayEngine`, workers
            with replicas of the model, whose result is the same bit for bit.
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
            name; it has hooks, and there are workers; the model of a worker is another one.
        CorpusError: texts without counted tokens, too long, or ids outside the vocabulary; a file
            of a stream changed while it was read.
        LensNeuronsError: `run_dir` is given while hooks are on the model; the counts of `groups`
            do not fit into memory, or a single text does not; Ray is not installed, has too little
            room, or its workers died.
        StorageError: `run_dir` holds something else, or another process works in it.
        ProvenanceError: `run_dir` was begun with another model, corpus or plan; says which, and of
            a stream which file.

    Warns:
        MemoryWarning: once, if a batch did not fit into memory.
    """
    if groups < 1:
        raise LensNeuronsError(f"groups={groups}: at least 1 group of items is needed")
    choose(padding_side, get_args(PaddingSide), "padding_side")
    workers = engine_for(engine, model)
    reader = reader_of(choose(site, get_args(Site), "site"), model, branches=branches)
    found = reader.site
    if isinstance(corpus, CorpusStream):
        from lensneurons.activations.streaming import collect_stream

        return collect_stream(
            model,
            corpus,
            site=site,
            reader=reader,
            scope=scope,
            run_dir=run_dir,
            groups=groups,
            batch_tokens=batch_tokens,
            max_length=max_length,
            overlong=overlong,
            padding_side=padding_side,
            tokenizer=tokenizer,
            checkpoint_seconds=checkpoint_seconds,
            workers=workers,
            progress=progress,
        )
    prepared = prepare(
        model, corpus, scope=scope, max_length=max_length, overlong=overlong, tokenizer=tokenizer
    )
    languages = len(prepared.encoded.languages)
    require_memory(groups, languages, found.n_layers, found.d_mlp, arrays=3 if branches else 1)
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
    if branches:
        plan["branches"] = True
    provenance = replace(
        prepared.provenance(),
        hook=found.hook,
        activation=found.activation_name,
        attention=reader.attention,
    )
    with open_folder(run_dir, provenance, plan) as folder:
        run = RunFolder(folder, checkpoint_seconds)
        if run.finished is not None:
            return run.finished
        if workers is not None:
            from lensneurons.activations.shards import Counting, collect_shards

            work = Counting(site, branches, groups, padding_side)
            totals = collect_shards(
                prepared, found, batches, run, work=work, engine=workers, progress=progress
            )
        else:
            totals = _collect_languages(
                prepared,
                reader,
                batches,
                run,
                groups=groups,
                padding_side=padding_side,
                progress=progress,
            )
        return run.finish(totals, provenance, found.parts)


def _collect_languages(
    prepared: PreparedCorpus,
    reader: Reader,
    batches: Sequence[np.ndarray],
    run: RunFolder,
    *,
    groups: int,
    padding_side: PaddingSide,
    progress: bool,
) -> Iterator[LanguageTotals]:
    """Yield the totals of every language in order; each goes on from what the run folder holds."""
    from tqdm.auto import tqdm

    encoded, site = prepared.encoded, reader.site
    group_of = item_groups(encoded.item_ids, groups)
    total = encoded.report.total.counted
    bar = tqdm(total=total, unit="token", unit_scale=True, desc="collect", disable=not progress)
    pieces = Pieces()
    with bar, reader.watching() as forward:
        for k, language in enumerate(encoded.languages):
            bar.set_postfix_str(language)
            totals = run.load(language) or LanguageTotals.zeros(
                language, groups, site.n_layers, site.d_mlp, branches=reader.branches
            )
            done = totals.batches_done
            own = [rows for rows in batches if encoded.language[rows[0]] == k]
            for number, rows in enumerate(own):
                if number >= done:
                    for held, counted in read_batch(
                        *(encoded, rows, group_of, reader, forward, pieces),
                        padding_side=padding_side,
                    ):
                        totals.add(reader.reduced, held, counted)
                    totals.batches_done = number + 1
                    run.save(totals, now=False)
                bar.update(int((encoded.stop[rows] - encoded.start[rows]).sum()))
            if totals.batches_done > done:
                run.save(totals)
            yield totals


def read_batch(
    encoded: EncodedCorpus,
    rows: np.ndarray,
    group_of: np.ndarray,
    reader: Reader,
    forward: Forward,
    pieces: Pieces,
    *,
    padding_side: PaddingSide,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run one batch of the plan, whole or in the parts that fit; what is counted is in the reader.

    Args:
        encoded: the corpus.
        rows: int [row], the numbers of the texts, the longest first.
        group_of: int [text], the group of each text of the corpus.
        reader: reduces each layer as it passes.
        forward: runs a batch.
        pieces: knows what fits into memory.
        padding_side: where short texts are padded.

    Yields:
        Of each part the groups of the rows of `Reader.reduced` and their counted tokens, as
        `LanguageTotals.add` takes them.
    """

    def measure(part: slice) -> tuple[np.ndarray, np.ndarray]:
        batch = make_batch(encoded, rows[part], padding_side=padding_side)
        held, counted = group_of[rows[part]], batch.counted.sum(1).numpy()
        if reader.by_group:
            held, reader.groups = np.unique(held, return_inverse=True)
            counted = np.bincount(reader.groups, counted).astype(np.int64)
        reader.run(forward, batch)
        return held, counted

    for _, found in pieces.run(encoded.lengths[rows], measure):
        yield found
