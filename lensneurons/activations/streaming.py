"""Counting a corpus that is read shard by shard: memory stays flat, and nothing counts twice.

    next shard: read, check, encode  |  this shard: plan batches -> forward -> add integers
    (one thread, one shard ahead)    |  (the model)

Workers (``collect(..., engine="ray")``) share the batches of one shard at a time. Their sums are
added in the order of the plan, so they give the same bits.

Memory holds the counts of all languages, two shards, 8 bytes an item and 48 bytes a shard, however
many tokens there are. The order is that of the stream, so the same shards give the same bits.

A run folder holds the same files as that of a whole corpus, and two more:

    runs/base/
      stream.json                     names, sizes and times of the corpus files, written first
      languages/zh.safetensors        totals of one language, and how many shards they have
      languages/ledger.safetensors    of each shard: digest of all rows up to there, counted tokens

The files of languages are written one after the other, so a killed run may have left one of them
some shards behind. Each says how many it has, and takes the shards after those. A run that goes on
reads all texts from the first on, and compares their digests with the ledger before it adds any: a
corpus that changed in a row that was counted is refused. At the end the counted tokens of the
languages and those of the shards, which were kept apart, must be the same number.

What this does not show: that rows are in a good order. A run that was stopped has the first ones.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import numpy as np

from lensneurons.activations.collection import (
    LanguageTotals,
    RunFolder,
    read_batch,
    require_memory,
)
from lensneurons.activations.shards import Counting as ShardCounting
from lensneurons.activations.shards import shard_payload
from lensneurons.activations.sites import Reader, Site
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.streams import CorpusShard, CorpusStream
from lensneurons.engines.choice import RayEngine
from lensneurons.engines.pool import pool
from lensneurons.errors import CorpusError, LensNeuronsError, ProvenanceError, StorageError, choose
from lensneurons.models.identity import original_tokenizer
from lensneurons.tokens.batches import PaddingSide, item_groups, plan_batches
from lensneurons.tokens.encoding import EncodedCorpus, Overlong, Scope, encode, tokenizer_hash
from lensneurons.tokens.pieces import Pieces
from lensneurons.tokens.prepared import (
    longest_text,
    model_provenance,
    refuse_hooks,
    require_known_ids,
)
from lensneurons.values.files import load_arrays, load_json, save_arrays, save_json
from lensneurons.values.run_folders import Run, open_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = "stream.json"
LEDGER_KIND = "ledger of a stream"
REMEDY = (
    "a run goes on over the texts that it was begun with alone: put them back as they were, or "
    "give a new run_dir (new texts in files of their own can be counted there, then merge())"
)
T = TypeVar("T")
Add = Callable[[EncodedCorpus, Sequence[np.ndarray]], None]


class Read(NamedTuple):
    """A shard that was read ahead: encoded, or not where all its languages have it already."""

    shard: CorpusShard
    encoded: EncodedCorpus | None


class Ledger:
    """What was read of a stream, shard by shard; see the module's docstring.

    Attributes:
        digests: 32 bytes a shard, of all rows up to its end.
        counted: counted tokens of each shard, in all languages.
        cut: texts of each shard that were cut.
    """

    def __init__(self, folder: Run | None) -> None:
        self.folder = folder
        self.digests = bytearray()
        self.counted, self.cut = array("q"), array("q")
        if folder is not None and self._file.exists():
            self._load(folder)

    def __len__(self) -> int:
        return len(self.counted)

    def require_same(self, shard: CorpusShard, stream: CorpusStream) -> None:
        """Raise unless all rows up to the end of a shard are those that were read before.

        Raises:
            ProvenanceError: names the shard and its rows.
        """
        at = 32 * shard.number
        if shard.number < len(self) and self.digests[at : at + 32] != bytes.fromhex(shard.digest):
            rows = ", ".join(map(str, shard.spans))
            raise ProvenanceError(
                f"shard {shard.number} of {stream.name!r} ({rows}) is not what it was when "
                f"{self._file.parents[1]} was begun: a text in it was changed, added or removed; "
                f"{REMEDY}"
            )

    def add(self, shard: CorpusShard, encoded: EncodedCorpus) -> None:
        """Note a shard that is read for the first time."""
        if shard.number == len(self):
            total = encoded.report.total
            self.digests += bytes.fromhex(shard.digest)
            self.counted.append(total.counted)
            self.cut.append(total.cut)

    def require_all(self, read: int, stream: CorpusStream) -> None:
        """Raise unless so many shards, all of the stream, are those of the ledger.

        Raises:
            ProvenanceError: the stream ended before.
        """
        if read != len(self):
            raise ProvenanceError(
                f"{stream.name!r} has {read} shards, and had {len(self)} or more when the run was "
                f"begun: texts at its end were removed; {REMEDY}"
            )

    def save(self) -> None:
        """Write the ledger."""
        if self.folder is not None:
            arrays = {
                "digests": np.frombuffer(bytes(self.digests), np.uint8).reshape(-1, 32),
                "counted": np.array(self.counted, np.int64),
                "cut": np.array(self.cut, np.int64),
            }
            save_arrays(self._file, LEDGER_KIND, arrays, self.folder.part(ledger=True))

    @property
    def _file(self) -> Path:
        folder = Path(".") if self.folder is None else self.folder.path
        return folder / "languages" / "ledger.safetensors"

    def _load(self, folder: Run) -> None:
        remedy = f"delete {self._file.parent} to count anew"
        try:
            arrays, details = load_arrays(self._file, LEDGER_KIND)
            folder.require_part(self._file, details, ledger=True)
        except StorageError as error:
            raise StorageError(f"{error}; {remedy}") from None
        shapes = {name: (one.dtype.str, one.shape) for name, one in arrays.items()}
        n = len(arrays.get("counted", ()))
        numbers = (np.dtype(np.int64).str, (n,))
        if shapes != {"digests": ("|u1", (n, 32)), "counted": numbers, "cut": numbers}:
            raise StorageError(f"{self._file} does not hold one whole {LEDGER_KIND}; {remedy}")
        self.digests = bytearray(arrays["digests"].tobytes())
        self.counted, self.cut = (array("q", arrays[name].tolist()) for name in ("counted", "cut"))


class Counting:
    """The totals of all languages, and how many shards each had when the run went on."""

    def __init__(self, stream: CorpusStream, reader: Reader, run: RunFolder, groups: int) -> None:
        self.stream, self.reader, self.run, self.groups = stream, reader, run, groups
        self.ledger = Ledger(run.folder)
        self.totals: dict[str, LanguageTotals] = {}
        self.begun: dict[str, int] = {}
        for language in stream.languages or ():
            self.begin(language)

    def begin(self, language: str) -> None:
        """Take up a language, where it is new.

        Raises:
            StorageError: its file is damaged, or knows of shards that the ledger does not.
            LensNeuronsError: the counts of so many languages do not fit into memory.
        """
        if language in self.totals:
            return
        site, branches = self.reader.site, self.reader.branches
        held, arrays = len(self.totals) + 1, 3 if branches else 1
        require_memory(self.groups, held, site.n_layers, site.d_mlp, arrays=arrays)
        totals = self.run.load(language)
        if totals is not None and totals.batches_done > len(self.ledger):
            raise StorageError(
                f"{self.ledger._file} lacks shards that the totals of {language} have: delete "
                f"{self.ledger._file.parent} to count anew"
            )
        self.totals[language] = totals or LanguageTotals.zeros(
            language, self.groups, site.n_layers, site.d_mlp, branches=branches
        )
        self.begun[language] = self.totals[language].batches_done

    def lacking(self, shard: CorpusShard) -> list[str]:
        """The languages of a shard whose totals do not have it yet."""
        for language in shard.languages:
            self.begin(language)
        return [k for k in shard.languages if self.begun[k] <= shard.number]

    def save(self, changed: Iterable[str]) -> None:
        """Write the ledger, and then the totals of some languages."""
        self.ledger.save()
        for language in changed:
            self.run.save(self.totals[language])


def collect_stream(
    model: Any,
    stream: CorpusStream,
    *,
    site: Site,
    reader: Reader,
    scope: Scope | None,
    run_dir: str | Path | None,
    groups: int,
    batch_tokens: int,
    max_length: int | None,
    overlong: Overlong | None,
    padding_side: PaddingSide,
    tokenizer: PreTrainedTokenizerBase | None,
    checkpoint_seconds: float,
    workers: RayEngine | None,
    progress: bool,
) -> ActivationStatistics:
    """`collect` for a stream; `reader` is that of the `site`, all else are its options.

    Raises:
        ProvenanceError: `run_dir` was begun with other texts, another model or plan; says which.
        CorpusError: a row is wrong, or a file changed while it was read.
    """
    scope, overlong = scope or "response", overlong or "refuse"
    choose(scope, get_args(Scope), "scope")
    choose(overlong, get_args(Overlong), "overlong")
    if batch_tokens < 1:
        raise CorpusError(f"batch_tokens={batch_tokens} holds nothing; give 1 or more")
    tokenizer = tokenizer or original_tokenizer(model)
    longest, found = longest_text(model, max_length), reader.site
    if longest < 1:
        raise CorpusError(f"max_length={longest} leaves no token; give 1 or more")
    refuse_hooks(model, run_dir)
    begun = replace(
        model_provenance(model, tokenizer_hash(tokenizer), ""),
        corpora=(),  # known at the end: until then the ledger proves what was read
        hook=found.hook,
        activation=found.activation_name,
        attention=reader.attention,
        scope=scope,
    )
    plan: dict[str, Any] = {
        "groups": groups,
        "batch_tokens": batch_tokens,
        "padding_side": padding_side,
        "overlong": overlong,
        "max_length": longest,
        "shard_items": stream.shard_items,
        "languages": None if stream.languages is None else list(stream.languages),
    }
    if reader.branches:
        plan["branches"] = True

    def encoded(shard: CorpusShard, languages: list[str]) -> EncodedCorpus:
        texts = encode(
            shard.select(languages), tokenizer, scope=scope, max_length=longest, overlong=overlong
        )
        require_known_ids(texts, int(model.cfg.d_vocab))
        return texts

    with open_folder(run_dir, begun, plan) as folder:
        if folder is not None:
            _require_same_files(folder, stream)
        run = RunFolder(folder, checkpoint_seconds)
        if run.finished is not None:
            _require_same_rows(run.finished, folder, stream)
            return run.finished
        counting = Counting(stream, reader, run, groups)

        def read(shard: CorpusShard) -> Read:
            counting.ledger.require_same(shard, stream)
            languages = counting.lacking(shard)
            return Read(shard, encoded(shard, languages) if languages else None)

        work = ShardCounting(site, reader.branches, groups, padding_side)
        with _adding(counting, model, workers, work) as add:
            digest = _count(
                (read(shard) for shard in stream),
                counting,
                add,
                batch_tokens=batch_tokens,
                progress=progress,
            )
        if any(counting.ledger.cut):
            scope_told = f"{scope}, cut at {longest} tokens"
        else:
            scope_told = scope
        provenance = replace(begun, corpora=(digest,), scope=scope_told)
        return run.finish(_whole(counting, longest), provenance, found.parts)


@contextmanager
def _adding(
    counting: Counting, model: Any, workers: RayEngine | None, work: ShardCounting
) -> Iterator[Add]:
    """The function that adds the batches of a shard to the totals: here, or by workers.

    Workers count some batches of one language each; they are added in the order of the plan.
    """
    reader, totals = counting.reader, counting.totals
    if workers is None:
        pieces = Pieces()
        with reader.watching() as forward:

            def add(encoded: EncodedCorpus, batches: Sequence[np.ndarray]) -> None:
                group_of = item_groups(encoded.item_ids, counting.groups)
                for rows in batches:
                    own = totals[encoded.languages[encoded.language[rows[0]]]]
                    for held, counted in read_batch(
                        *(encoded, rows, group_of, reader, forward, pieces),
                        padding_side=work.padding_side,
                    ):
                        own.add(reader.reduced, held, counted)

            yield add
        return
    with pool(workers, model) as hands:

        def add_by_workers(encoded: EncodedCorpus, batches: Sequence[np.ndarray]) -> None:
            parts = [
                (k, [*held][first : first + workers.shard_batches])
                for k, own in groupby(batches, lambda rows: int(encoded.language[rows[0]]))
                for held in [list(own)]
                for first in range(0, len(held), workers.shard_batches)
            ]
            names = [f"{len(held)} batches of {encoded.languages[k]}" for k, held in parts]
            done = hands.run(work, names, lambda place: shard_payload(encoded, parts[place][1]))
            found = dict(done)
            for place, (k, _) in enumerate(parts):
                found[place].add_to(totals[encoded.languages[k]])

        yield add_by_workers


def _count(
    shards: Iterator[Read],
    counting: Counting,
    add: Add,
    *,
    batch_tokens: int,
    progress: bool,
) -> str:
    """Count all shards, and return the digest of all their rows."""
    from tqdm.auto import tqdm

    run, ledger = counting.run, counting.ledger
    changed, digest, number = dict[str, None](), "", -1
    bar = tqdm(unit="token", unit_scale=True, desc="collect", disable=not progress)
    with bar:
        for shard, encoded in ahead(shards):
            digest, number = shard.digest, shard.number
            bar.set_postfix_str(f"shard {number}{', checked' if encoded is None else ''}")
            if encoded is None:
                continue
            add(encoded, plan_batches(encoded, batch_tokens=batch_tokens))
            for language in encoded.languages:
                counting.totals[language].batches_done = number + 1
            changed |= dict.fromkeys(encoded.languages)
            ledger.add(shard, encoded)
            bar.update(encoded.report.total.counted)
            if time.monotonic() - run.last_checkpoint >= run.checkpoint_seconds:
                counting.save(changed)
                changed.clear()
        ledger.require_all(number + 1, counting.stream)
        if changed:
            counting.save(changed)
    return digest


def ahead(steps: Iterator[T]) -> Iterator[T]:
    """Yield what `steps` yields; a thread makes the next one meanwhile, and no more than that.

    An error of a step is raised where its turn comes.
    """
    end = object()
    with ThreadPoolExecutor(1, "lensneurons-reader") as thread:
        coming = thread.submit(next, steps, end)
        while (step := coming.result()) is not end:
            coming = thread.submit(next, steps, end)
            yield step  # type: ignore[misc]


def _whole(counting: Counting, longest: int) -> list[LanguageTotals]:
    """The totals of all languages, once they are those of the shards.

    Raises:
        CorpusError: a language has no counted token left.
        LensNeuronsError: shards were left out, or counted twice.
    """
    totals = list(counting.totals.values())
    if empty := [one.language for one in totals if not one.tokens.sum()]:
        raise CorpusError(
            f"no counted token of {empty} is left within max_length={longest}: raise it, or "
            "select other languages"
        )
    ours, theirs = sum(int(one.tokens.sum()) for one in totals), sum(counting.ledger.counted)
    if ours != theirs:
        raise LensNeuronsError(
            f"the languages have {ours} counted tokens and the shards {theirs}, so a shard was "
            "left out or counted twice: begin anew in another run_dir, and please report this"
        )
    return totals


def _require_same_files(folder: Run, stream: CorpusStream) -> None:
    """Raise unless the files of a stream are those of the run; note them where it begins.

    Raises:
        ProvenanceError: says which file is new, gone, or of another size.
    """
    now = {file.path.name: [file.size, file.changed] for file in stream.files}
    if not (folder / FILES).exists():
        save_json(folder / FILES, {"files": now, **folder.part(stream=True)})
        return
    told = load_json(folder / FILES)
    folder.require_part(folder / FILES, told, stream=True)
    then = told["files"]
    for name in {**then, **now}:
        if name not in now or name not in then:
            what = "is not there any more" if name in then else "is new"
        elif now[name][0] != then[name][0]:
            sizes = then[name][0], now[name][0]
            what = f"{'grew' if sizes[1] > sizes[0] else 'shrank'} from {sizes[0]} to {sizes[1]}"
            what += " bytes"
        else:
            continue
        raise ProvenanceError(f"{name} {what} since {folder.path} was begun: {REMEDY}")


def _require_same_rows(
    finished: ActivationStatistics, folder: Run | None, stream: CorpusStream
) -> None:
    """Raise unless a finished run counted the rows of a stream.

    Where no file was written since, that is so. Else the stream is read, and its digest compared.

    Raises:
        ProvenanceError: the texts are others.
    """
    now = {file.path.name: [file.size, file.changed] for file in stream.files}
    if folder is not None and now and load_json(folder / FILES)["files"] == now:
        return
    if (stream.fingerprint,) != finished.provenance.corpora:
        raise ProvenanceError(f"the texts of {stream.name!r} are others than counted: {REMEDY}")
