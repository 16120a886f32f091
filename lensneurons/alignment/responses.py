"""Step 2 of an alignment: how faithful each sampled answer is to the answer in the pivot language.

MAPO (She et al. 2024, arXiv 2401.06838) prefers the answers that say the same as the English one.
Two measures of that, and room for your own:

``"consistency"``  ``2 m / (a + b)``: of the ``a`` numbers in digits of the text and the ``b`` of
                   the parallel response, ``m`` stand in matching blocks, in order (Ratcliff and
                   Obershelp). 1 where both reason through the same numbers. Exact, and needs no
                   other model; but it reads digits alone
translation        mean log likelihood of a token of the parallel response, given the text, under a
                   translation model (`translation_scorer`): what MAPO does

Every text is also judged as `accuracy` judges answers: right number, right language.

>>> scored = score_responses(responses, corpus, pivot="en")      # doctest: +SKIP

What it does not show: whether a step of the reasoning is right; whether the language is good.

What the values of the steps have in common: rows of texts, each of an item and a language.

What the steps of an alignment share: work in blocks, each block a file that is never redone.

Step 1 of an alignment: several answers of the model to every problem, in every language.

    corpus -> prompt x samples -> texts

A model whose answers to one problem differ shows by itself what it could do better; the later steps
only have to tell the better answers from the worse. Texts are drawn at a temperature, each from a
noise of its own (`lensneurons.evaluation.generation`), so the same call writes the same texts,
whatever the batches and however often it was interrupted.

>>> responses = respond(model, corpus, samples=8, run_dir="runs/zh-de/responses")  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.answers import expected_number
from lensneurons.evaluation.generation import Decoding, encode_prompts, fit_context, write_responses
from lensneurons.evaluation.numbers import last_number, numbers_in, same_number
from lensneurons.languages.codes import language_code, language_name
from lensneurons.languages.detection import (
    detect_language,
    names_in,
    require_identifiable,
)
from lensneurons.models.identity import original_tokenizer
from lensneurons.tokens.prepared import model_provenance
from lensneurons.values.files import load_rows, save_rows
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


Entry = TypeVar("Entry")


class TextTable(Generic[Entry]):
    """What a table can do with its ``rows``: dataclasses with an ``id`` and a ``language``."""

    rows: tuple[Entry, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all rows in their order."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(repr(row).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in the order of their first row."""
        return tuple(dict.fromkeys(row.language for row in self._dataclasses()))

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Entry]:
        """All rows."""
        return iter(self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """One row a text or pair, with the attributes of the rows as columns."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self._dataclasses()])

    def _dataclasses(self) -> tuple[Any, ...]:
        return self.rows


Row = dict[str, Any]
BLOCK = "block of rows"


def work_in_blocks(
    entries: Sequence[Entry],
    work: Callable[[int, Sequence[Entry]], list[Row]],
    *,
    size: int,
    run_dir: str | Path | None,
    provenance: Provenance,
    plan: Mapping[str, Any],
    label: str,
    progress: bool,
) -> list[Row]:
    """Turn entries into rows, block by block; with a folder, a block that is there is read.

    Args:
        entries: what to work on.
        work: gets the place of the first entry of a block, and its entries; gives JSON rows.
        size: entries a block.
        run_dir: new, empty, or begun by the same work; None keeps nothing.
        provenance: of the model and the corpus.
        plan: everything else that decides the rows, as JSON.
        label: of the progress bar.
        progress: show one, in entries.

    Raises:
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, corpus or plan.
    """
    from tqdm.auto import tqdm

    rows: list[Row] = []
    with (
        open_folder(run_dir, provenance, {**plan, "block": size}) as folder,
        tqdm(total=len(entries), desc=label, unit="text", disable=not progress) as bar,
    ):
        for first in range(0, len(entries), size):
            block = entries[first : first + size]
            path = folder / "blocks" / f"{first:08d}.jsonl" if folder else None
            rows += _block(path, lambda: work(first, block))  # noqa: B023
            bar.update(len(block))
    return rows


def _block(path: Path | None, work: Callable[[], list[Row]]) -> list[Row]:
    """The rows of one block, from its file where there is one."""
    if path is not None and path.is_file():
        return load_rows(path, BLOCK)[0]
    rows = work()
    if path is not None:
        save_rows(path, BLOCK, rows, {})
    return rows


KIND = "sampled responses"
FILE = "responses.jsonl"
# Prompts a block: small enough to lose little, large enough to fill batches.
BLOCK_SAMPLING = 512


@dataclass(frozen=True, slots=True)
class SampledResponse:
    """One of the answers of a model to a problem.

    Attributes:
        id: the item.
        language: the language that it was asked in.
        sample: number of the answer, from 0.
        prompt: what the model was given.
        text: what it wrote, without special tokens.
        finished: whether it ended by itself, not at the limit of tokens.
    """

    id: str
    language: str
    sample: int
    prompt: str
    text: str
    finished: bool


@dataclass(frozen=True, eq=False, repr=False)
class SampledResponses(TextTable[SampledResponse]):
    """Several answers to every item. Made by `respond`.

    Attributes:
        rows: the answers, item by item.
        decoding: how they were written.
        provenance: of the model and the corpus.
    """

    rows: tuple[SampledResponse, ...]
    decoding: Decoding
    provenance: Provenance

    def save(self, path: str | Path) -> Path:
        """Write JSON lines, atomically, and return the path."""
        details = {"decoding": asdict(self.decoding), "provenance": self.provenance.to_dict()}
        return save_rows(path, KIND, map(asdict, self.rows), details)

    @classmethod
    def load(cls, path: str | Path) -> SampledResponses:
        """Read what `save` wrote, or the folder that `respond` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        rows, details = load_rows(_in_folder(path), KIND)
        return _from_rows(rows, details)

    def __repr__(self) -> str:
        return (
            f"SampledResponses({self.provenance.model}: {len(self)} texts, "
            f"{len(self.languages)} languages {' '.join(self.languages)}, "
            f"temperature {self.decoding.temperature:g})"
        )

    def _repr_html_(self) -> str:
        table = self.to_pandas().groupby("language", sort=False)
        rows = [
            (tag, language_name(str(tag)), own["id"].nunique(), len(own), own["text"].nunique())
            for tag, own in table
        ]
        return html_table(repr(self), ("language", "name", "items", "texts", "different"), rows)


def respond(
    model: Any,
    corpus: ParallelCorpus,
    *,
    samples: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int | None = None,
    batch_tokens: int = 16384,
    tokenizer: PreTrainedTokenizerBase | None = None,
    run_dir: str | Path | None = None,
    progress: bool = True,
) -> SampledResponses:
    """Let a model answer every item of a corpus several times.

    Args:
        model: what `load_model` returns, or any TransformerLens model.
        corpus: problems with a prompt.
        samples: answers an item and language.
        temperature: of the drawing, above 0: at 0 all answers to a problem would be the same.
        seed: of the drawing.
        max_new_tokens: most tokens of an answer; None for 512, or less where the context has less.
        batch_tokens: largest rectangle, prompts times (longest prompt + new tokens).
        tokenizer: encodes the prompts; by default the model's own, as it was saved.
        run_dir: a folder that keeps what is done, so that an interrupted call goes on there. It
            ends with ``responses.jsonl`` in it, for the next step.
        progress: show one progress bar, in texts.

    Raises:
        CorpusError: an item without a prompt.
        LensNeuronsError: an option out of its range, or prompts too long.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read.
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, corpus or plan.
    """
    decoding = Decoding(max_new_tokens, temperature, seed, batch_tokens)
    require_answerable(corpus, samples, temperature)
    tokenizer = tokenizer or original_tokenizer(model)
    ids = encode_prompts([item.prompt for item in corpus], tokenizer)
    fit_context(model, [len(row) for row in ids], max_new_tokens)
    provenance = model_provenance(model, tokenizer, corpus.fingerprint)
    asked = [(item, sample) for item in corpus for sample in range(samples)]

    def write(first: int, block: Sequence[Any]) -> list[Row]:
        prompts = [item.prompt for item, _ in block]
        written = write_responses(
            model, prompts, decoding, first_row=first, tokenizer=tokenizer, progress=False
        )
        return [
            asdict(SampledResponse(i.id, i.language, n, i.prompt, new.text, new.finished))
            for (i, n), new in zip(block, written, strict=True)
        ]

    plan = {"samples": samples, **asdict(decoding)}
    del plan["batch_tokens"]  # decides memory and speed, and no text but by rounding
    rows = work_in_blocks(
        asked, write, size=BLOCK_SAMPLING, run_dir=run_dir, provenance=provenance, plan=plan,
        label="respond", progress=progress,
    )  # fmt: skip
    responses = SampledResponses(
        tuple(SampledResponse(**row) for row in rows), decoding, provenance
    )
    if run_dir is not None:
        responses.save(Path(run_dir) / FILE)
    return responses


def require_answerable(corpus: ParallelCorpus, samples: int, temperature: float) -> None:
    """Raise for a request that could not give different answers to problems.

    Raises:
        LensNeuronsError: one answer a problem, or all of them the same.
        CorpusError: an item without a prompt.
    """
    if samples < 2 or not temperature:
        raise LensNeuronsError(
            f"samples={samples}, temperature={temperature}: pairs are made of different answers to "
            "one problem, so give at least 2 samples and a temperature above 0"
        )
    if empty := [item for item in corpus if not item.prompt]:
        raise CorpusError(f"{empty[0].id!r} ({empty[0].language}) has no prompt to answer")


def _in_folder(path: str | Path) -> Path:
    return Path(path) / FILE if Path(path).is_dir() else Path(path)


def _from_rows(rows: Sequence[Row], details: Mapping[str, Any]) -> SampledResponses:
    return SampledResponses(
        tuple(SampledResponse(**row) for row in rows),
        Decoding(**details["decoding"]),
        Provenance.from_dict(details["provenance"]),
    )


KIND_SCORING = "scored responses"
FILE_SCORING = "scores.jsonl"
BLOCK_SCORING = 256


class Parallel(NamedTuple):
    """A text and what it is compared with."""

    text: str
    language: str
    reference: str


# Scores of a list of texts, the higher the more faithful; it names itself by `__name__`.
Scorer = Callable[[Sequence[Parallel]], list[float]]


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """A sampled answer and what it is worth.

    Attributes:
        id: the item.
        language: the language that it was asked in.
        sample: number of the answer, from 0.
        prompt: what the model was given.
        text: what it wrote.
        finished: whether it ended by itself.
        score: faithfulness to the pivot's response; the higher the better.
        right_answer: whether its last number answers the item.
        right_language: whether it is in the language of the item.
    """

    id: str
    language: str
    sample: int
    prompt: str
    text: str
    finished: bool
    score: float
    right_answer: bool
    right_language: bool


@dataclass(frozen=True, eq=False, repr=False)
class ScoredResponses(TextTable[ScoredResponse]):
    """Sampled answers with their scores. Made by `score_responses`.

    Attributes:
        rows: the answers, item by item.
        pivot: the language of the responses that they were compared with.
        scorer: name of the measure.
        provenance: of the model that answered, and of the corpus that it was judged by.
    """

    rows: tuple[ScoredResponse, ...]
    pivot: str
    scorer: str
    provenance: Provenance

    def save(self, path: str | Path) -> Path:
        """Write JSON lines, atomically, and return the path."""
        details = {
            "pivot": self.pivot,
            "scorer": self.scorer,
            "provenance": self.provenance.to_dict(),
        }
        return save_rows(path, KIND_SCORING, map(asdict, self.rows), details)

    @classmethod
    def load(cls, path: str | Path) -> ScoredResponses:
        """Read what `save` wrote, or the folder that `score_responses` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        source = Path(path) / FILE_SCORING if Path(path).is_dir() else Path(path)
        rows, details = load_rows(source, KIND_SCORING)
        scored = tuple(ScoredResponse(**row) for row in rows)
        provenance = Provenance.from_dict(details["provenance"])
        return cls(scored, details["pivot"], details["scorer"], provenance)

    def __repr__(self) -> str:
        right = sum(row.right_answer for row in self) / max(1, len(self))
        return (
            f"ScoredResponses({self.provenance.model}: {len(self)} texts in "
            f"{len(self.languages)} languages by {self.scorer} with {self.pivot}: "
            f"{right:.1%} right answers)"
        )

    def _repr_html_(self) -> str:
        means = self.to_pandas().groupby("language", sort=False)
        columns = ["score", "right_answer", "right_language", "finished"]
        rows = [
            (tag, language_name(str(tag)), len(own), *(f"{own[c].mean():.3f}" for c in columns))
            for tag, own in means
        ]
        return html_table(repr(self), ("language", "name", "texts", *columns), rows)


def score_responses(
    responses: SampledResponses,
    corpus: ParallelCorpus,
    *,
    pivot: str = "en",
    scorer: Scorer | str = "consistency",
    run_dir: str | Path | None = None,
    progress: bool = True,
) -> ScoredResponses:
    """Score every sampled answer against the parallel response, and judge its number and language.

    Args:
        responses: what `respond` gave, or a selection of it.
        corpus: has every answered item in its language and in the pivot language; responses end
            with the number that answers the problem.
        pivot: the language whose responses are the measure.
        scorer: ``"consistency"``, a `translation_scorer`, or your own: a function from a list of
            `Parallel` to their scores, whose ``__name__`` says what it is.
        run_dir: a folder that keeps what is done; ends with ``scores.jsonl`` in it.
        progress: show one progress bar, in texts.

    Raises:
        CorpusError: an item is not in the corpus in its language or in the pivot language, or its
            response has no number.
        LensNeuronsError: a scorer of an unknown name, or a language that cannot be told from
            others of its script.
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with other responses, corpus or options.
    """
    pivot = language_code(pivot)
    score = _scorer(scorer)
    items = {(item.id, item.language): item for item in corpus}
    references = {key: _reference(items, key, pivot) for key in _keys(responses)}
    expected = {key: expected_number(items[key]) for key in references}
    require_identifiable(corpus.languages)

    def judge(_: int, block: Sequence[SampledResponse]) -> list[Row]:
        parallels = [Parallel(r.text, r.language, references[r.id, r.language]) for r in block]
        return [
            _judged(row, value, expected[row.id, row.language], corpus.languages)
            for row, value in zip(block, score(parallels), strict=True)
        ]

    name = getattr(score, "__name__", type(score).__name__)
    plan = {"responses": responses.fingerprint, "corpus": corpus.fingerprint}
    rows = work_in_blocks(
        responses.rows, judge, size=BLOCK_SCORING, run_dir=run_dir, provenance=responses.provenance,
        plan={**plan, "pivot": pivot, "scorer": name}, label="score", progress=progress,
    )  # fmt: skip
    scored = ScoredResponses(
        tuple(ScoredResponse(**row) for row in rows), pivot, name, responses.provenance
    )
    if run_dir is not None:
        scored.save(Path(run_dir) / FILE_SCORING)
    return scored


def consistency(parallels: Sequence[Parallel]) -> list[float]:
    """Share of the numbers in digits that a text and its reference have in common, in order.

    Args:
        parallels: texts and references.

    Returns:
        0 to 1 each; 0 where neither has a number.
    """
    return [_common(numbers_in(text), numbers_in(ref)) for text, _, ref in parallels]


def _common(ours: list[float], theirs: list[float]) -> float:
    if not ours and not theirs:
        return 0.0
    return SequenceMatcher(None, ours, theirs, autojunk=False).ratio()


def _scorer(scorer: Scorer | str) -> Scorer:
    if isinstance(scorer, str):
        choose(scorer, ("consistency",), "scorer")
        return consistency
    return scorer


def _keys(responses: SampledResponses) -> dict[tuple[str, str], None]:
    return dict.fromkeys((row.id, row.language) for row in responses)


def _reference(items: Mapping[tuple[str, str], Item], key: tuple[str, str], pivot: str) -> str:
    """The pivot's response to an item.

    Raises:
        CorpusError: the corpus lacks the item in its language, or a response in the pivot.
    """
    parallel = items.get((key[0], pivot))
    response = parallel.response if parallel else ""
    if key not in items or not response:
        lacking = "this item" if key not in items else f"a response to it in {pivot!r}"
        raise CorpusError(
            f"{key[0]!r} was answered in {key[1]!r}, but the corpus has not {lacking}: give the "
            "corpus that was answered, in the pivot language too"
        )
    return response


def _judged(row: SampledResponse, score: float, expected: float, languages: tuple[str, ...]) -> Row:
    guess = detect_language(row.text, languages=languages, ignore=names_in(row.prompt))
    return {
        **asdict(row),
        "score": float(score),
        "right_answer": same_number(last_number(row.text), expected),
        "right_language": guess.language == row.language,
    }
