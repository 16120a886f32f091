"""Counting in several processes: shards of the plan, a ledger of those that are done, their sum.

A shard is some consecutive batches of one language, and its id is the language with the numbers of
these batches in the plan. A worker returns

    counts, tokens   int64, summed over the shard: the order does not matter
    sums, squares    float64 of each batch: they are added up here, batch by batch in the order of
                     the plan, as one process adds them

so the totals are the same bits for any number of workers and any size of the shards. Every shard
that comes back is written beside the totals of its language before it is used:

    languages/zh.safetensors                      batches 0 to 23 of Chinese
    languages/zh.00000032-00000040.safetensors    a shard that waits for those before it

The totals take up shards in order and say how many batches they hold, so no batch is added twice.
A run that was killed keeps both; what is missing is divided anew. The local engine reads the totals
alone, and goes on behind them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from lensneurons.activations.collection import (
    ARRAYS,
    BRANCHES,
    LanguageTotals,
    RunFolder,
    read_batch,
)
from lensneurons.activations.sites import reader_of
from lensneurons.engines.choice import RayEngine
from lensneurons.engines.pool import pool
from lensneurons.errors import StorageError
from lensneurons.tokens.batches import PaddingSide, item_groups
from lensneurons.tokens.encoding import EncodedCorpus
from lensneurons.tokens.pieces import Pieces
from lensneurons.tokens.prepared import PreparedCorpus
from lensneurons.values.files import load_arrays, save_arrays

KIND = "counts of a shard"
_FILE = re.compile(r"\.(\d{8,})-(\d{8,})\.safetensors")


@dataclass(frozen=True, order=True)
class Shard:
    """Batches ``first`` to ``stop - 1`` of a language, in the order of the plan.

    Attributes:
        number: of the language.
        first: number of its first batch among those of the language.
        stop: the end, exclusive.
    """

    number: int
    first: int
    stop: int


@dataclass(frozen=True, eq=False)
class ShardCounts:
    """What a worker counted.

    Attributes:
        counts: int64 [group, layer, neuron].
        tokens: int64 [group].
        sums: float64 [batch, layer, neuron].
        squares: the same.
        linear: int64 [group, layer, neuron], or None.
        both: the same.
    """

    counts: Int64[np.ndarray, "group layer neuron"]
    tokens: Int64[np.ndarray, " group"]
    sums: Float64[np.ndarray, "batch layer neuron"]
    squares: Float64[np.ndarray, "batch layer neuron"]
    linear: Int64[np.ndarray, "group layer neuron"] | None = None
    both: Int64[np.ndarray, "group layer neuron"] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Those that there are, by name."""
        found = {name: getattr(self, name) for name in (*ARRAYS, *BRANCHES)}
        return {name: one for name, one in found.items() if one is not None}

    def add_to(self, totals: LanguageTotals) -> None:
        """Add to the totals of the batches before, in the order of the plan."""
        totals.tokens += self.tokens
        totals.counts += self.counts
        for name in BRANCHES:
            total, own = getattr(totals, name), getattr(self, name)
            if total is not None and own is not None:
                total += own
        for sums, squares in zip(self.sums, self.squares, strict=True):
            totals.sums += sums
            totals.squares += squares
            totals.batches_done += 1


@dataclass(frozen=True)
class Counting:
    """What a worker does: counts shards of texts.

    A payload is the texts of a shard, encoded, and the numbers of them that form each batch.
    """

    site: str
    branches: bool
    groups: int
    padding_side: PaddingSide

    def on(self, model: Any) -> Callable[[tuple[EncodedCorpus, list[np.ndarray]]], ShardCounts]:
        """The function that counts a shard."""
        reader = reader_of(self.site, model, branches=self.branches)
        site, pieces = reader.site, Pieces()

        def count(shard: tuple[EncodedCorpus, list[np.ndarray]]) -> ShardCounts:
            encoded, batches = shard
            group_of = item_groups(encoded.item_ids, self.groups)
            shape = (site.n_layers, site.d_mlp)
            totals = LanguageTotals.zeros("", self.groups, *shape, branches=self.branches)
            sums, squares = (np.zeros((len(batches), *shape)) for _ in range(2))
            with reader.watching() as forward:
                for number, rows in enumerate(batches):
                    for held, counted in read_batch(
                        *(encoded, rows, group_of, reader, forward, pieces),
                        padding_side=self.padding_side,
                    ):
                        totals.add(reader.reduced, held, counted)
                        for layer, reduced in enumerate(reader.reduced):
                            sums[number, layer] += reduced.sums
                            squares[number, layer] += reduced.squares
            halves = {name: getattr(totals, name) for name in BRANCHES}
            return ShardCounts(totals.counts, totals.tokens, sums, squares, **halves)

        return count


class Ledger:
    """The shards in a run folder that are done and not yet in the totals of their language."""

    def __init__(self, run: RunFolder, languages: Sequence[str]) -> None:
        self.run, self.languages = run, languages

    def path(self, shard: Shard) -> Path | None:
        """The file of a shard, or None without a folder."""
        if self.run.folder is None:
            return None
        name = f"{self.languages[shard.number]}.{shard.first:08d}-{shard.stop:08d}.safetensors"
        return self.run.folder / "languages" / name

    def waiting(self, number: int, done: int) -> list[Shard]:
        """The shards of a language that wait in the folder, in order; those in its totals go.

        Raises:
            StorageError: two of them hold the same batches.
        """
        found, folder = [], self.run.folder
        language = self.languages[number]
        for path in (folder / "languages").glob(f"{language}.*") if folder else ():
            if match := _FILE.fullmatch(path.name.removeprefix(language)):
                shard = Shard(number, int(match[1]), int(match[2]))
                if shard.first < done:
                    path.unlink()
                else:
                    found.append(shard)
        found.sort()
        for before, after in zip(found, found[1:], strict=False):
            if after.first < before.stop:
                raise StorageError(
                    f"{self.path(before)} and {self.path(after)} hold the same batches, which "
                    "would count twice: delete one of them"
                )
        return found

    def save(self, shard: Shard, counted: ShardCounts) -> None:
        """Write a shard, where there is a folder."""
        folder, path = self.run.folder, self.path(shard)
        if folder is not None and path is not None:
            save_arrays(path, KIND, counted.arrays(), folder.part(**self._id(shard)))

    def load(self, shard: Shard, shape: tuple[int, ...]) -> ShardCounts:
        """Read a shard back; `shape` is that of its counts.

        Raises:
            StorageError: it is damaged, or of another run or other batches.
        """
        folder, path = self.run.folder, self.path(shard)
        if folder is None or path is None:
            raise StorageError("a shard without a folder")
        try:
            arrays, details = load_arrays(path, KIND)
            folder.require_part(path, details, **self._id(shard))
            return _whole_shard(path, arrays, shard, shape)
        except StorageError as error:
            raise StorageError(f"{error}; delete it to count it again") from None

    def take_up(self, totals: LanguageTotals, shards: list[Shard], *, now: bool) -> None:
        """Save totals, now or where it is time; the files of the shards in them go then."""
        before = self.run.last_checkpoint
        self.run.save(totals, now=now)
        if self.run.last_checkpoint != before:
            for shard in shards:
                if path := self.path(shard):
                    path.unlink(missing_ok=True)
            shards.clear()

    def _id(self, shard: Shard) -> dict[str, Any]:
        language = self.languages[shard.number]
        return {"language": language, "first": shard.first, "stop": shard.stop}


def _whole_shard(
    path: Path, arrays: Mapping[str, np.ndarray], shard: Shard, shape: tuple[int, ...]
) -> ShardCounts:
    """The counts that a file holds.

    Raises:
        StorageError: they lack something, or are what no corpus can give.
    """
    if set(arrays) not in ({*ARRAYS}, {*ARRAYS, *BRANCHES}):
        raise StorageError(f"{path} does not hold one whole shard")
    counted, batches = ShardCounts(**arrays), (shard.stop - shard.first, *shape[1:])
    whole = [one for one in (counted.counts, counted.linear, counted.both) if one is not None]
    fits = all((one.dtype, one.shape) == (np.int64, shape) for one in whole)
    fits = fits and (counted.tokens.dtype, counted.tokens.shape) == (np.int64, shape[:1])
    for one in (counted.sums, counted.squares):
        fits = fits and (one.dtype, one.shape) == (np.float64, batches)
    if not fits:
        raise StorageError(f"{path} does not hold one whole shard")
    if (counted.counts < 0).any() or (counted.counts > counted.tokens[:, None, None]).any():
        raise StorageError(f"{path} is damaged: a neuron is active on more tokens than there are")
    if not (np.isfinite(counted.sums).all() and np.isfinite(counted.squares).all()):
        raise StorageError(f"{path} is damaged: a sum of activations is not finite")
    return counted


def missing_shards(
    number: int, done: int, waiting: Sequence[Shard], n: int, size: int
) -> list[Shard]:
    """Divide the batches of a language that are neither in its totals nor in a waiting shard.

    Args:
        number: of the language.
        done: how many batches are in its totals.
        waiting: shards that are done, in order.
        n: batches of the language.
        size: most batches of a shard.

    Returns:
        The shards, in order.
    """
    found, first = [], done
    for edge in [*waiting, Shard(number, n, n)]:
        for start in range(first, edge.first, size):
            found.append(Shard(number, start, min(start + size, edge.first)))
        first = edge.stop
    return found


def select_texts(encoded: EncodedCorpus, rows: np.ndarray) -> EncodedCorpus:
    """An encoded corpus of some of its texts, in the given order; its report stays as it is."""
    lengths = encoded.lengths[rows]
    ids = [encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]] for row in rows]
    return replace(
        encoded,
        ids=np.concatenate(ids),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        start=encoded.start[rows],
        stop=encoded.stop[rows],
        language=encoded.language[rows],
        item_ids=tuple(encoded.item_ids[row] for row in rows),
    )


def shard_payload(
    encoded: EncodedCorpus, batches: Sequence[np.ndarray]
) -> tuple[EncodedCorpus, list[np.ndarray]]:
    """What a worker gets: the texts of some batches, and their numbers there, batch by batch."""
    ends = np.cumsum([len(rows) for rows in batches])
    numbers = np.split(np.arange(ends[-1]), ends[:-1])
    return select_texts(encoded, np.concatenate(batches)), numbers


def collect_shards(
    prepared: PreparedCorpus,
    site: Any,
    batches: Sequence[np.ndarray],
    run: RunFolder,
    *,
    work: Counting,
    engine: RayEngine,
    progress: bool,
) -> Iterator[LanguageTotals]:
    """Yield the totals of every language in order, counted by workers.

    Args:
        prepared: the corpus.
        site: what is counted.
        batches: the plan.
        run: keeps what is done.
        work: how a worker counts.
        engine: the workers.
        progress: show one progress bar, in tokens.

    Raises:
        LensNeuronsError: a worker raised it, or died too often.
        StorageError: a file of the ledger is damaged.
    """
    from tqdm.auto import tqdm

    encoded, languages = prepared.encoded, prepared.encoded.languages
    counted = encoded.stop - encoded.start
    of_language = [encoded.language[rows[0]] for rows in batches]
    plan = [
        [rows for rows, own in zip(batches, of_language, strict=True) if own == k]
        for k in range(len(languages))
    ]
    ledger = Ledger(run, languages)
    shape = (work.groups, site.n_layers, site.d_mlp)
    totals = [
        run.load(k) or LanguageTotals.zeros(k, *shape, branches=work.branches) for k in languages
    ]
    # A shard that is done waits here, by its language and first batch, until those before it are
    # in: its counts, or None where they are in its file.
    waiting: dict[tuple[int, int], tuple[Shard, ShardCounts | None]] = {}
    missing: list[Shard] = []
    for k, total in enumerate(totals):
        there = ledger.waiting(k, total.batches_done)
        waiting |= {(k, shard.first): (shard, None) for shard in there}
        missing += missing_shards(k, total.batches_done, there, len(plan[k]), engine.shard_batches)

    def rows_of(shard: Shard) -> list[np.ndarray]:
        return plan[shard.number][shard.first : shard.stop]

    def tokens_of(shard: Shard) -> int:
        return sum(int(counted[rows].sum()) for rows in rows_of(shard))

    def payload(place: int) -> tuple[EncodedCorpus, list[np.ndarray]]:
        return shard_payload(encoded, rows_of(missing[place]))

    def arriving() -> Generator[tuple[Shard, ShardCounts]]:
        names = [f"batches {s.first} to {s.stop - 1} of {languages[s.number]}" for s in missing]
        if missing:
            with pool(engine, prepared.model) as hands:
                for place, found in hands.run(work, names, payload):
                    yield missing[place], found

    label = f"collect, {engine.workers} workers"
    begun = encoded.report.total.counted - sum(map(tokens_of, missing))
    with (
        tqdm(
            total=encoded.report.total.counted,
            initial=begun,
            unit="token",
            unit_scale=True,
            desc=label,
            disable=not progress,
        ) as bar,
        closing(arriving()) as results,
    ):
        for k, total in enumerate(totals):
            done, taken = total.batches_done, []
            while total.batches_done < len(plan[k]):
                at = k, total.batches_done
                if at not in waiting:
                    shard, found = next(results)
                    ledger.save(shard, found)
                    bar.update(tokens_of(shard))
                    next_one = (shard.number, shard.first) == at
                    kept = found if next_one or run.folder is None else None
                    waiting[shard.number, shard.first] = shard, kept
                    continue
                shard, kept = waiting.pop(at)
                (kept or ledger.load(shard, shape)).add_to(total)
                taken.append(shard)
                ledger.take_up(total, taken, now=False)
            if total.batches_done > done:
                ledger.take_up(total, taken, now=True)
            yield total
        next(results, None)  # all are in: the workers are free for the next call
