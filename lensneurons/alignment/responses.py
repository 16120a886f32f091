"""Steps 1 and 2 of an alignment: several answers to every problem, and what each is worth.

    respond           corpus -> prompt x samples -> texts
    score_responses   texts -> faithfulness to the pivot's response, right number, right language

A model whose answers to one problem differ shows by itself what it could do better; the later steps
only have to tell the better answers from the worse. Texts are drawn at a temperature, each from
noise of its own (`lensneurons.evaluation.generation`), so the same call writes the same texts,
whatever the batches and however often it was interrupted.

MAPO (She et al. 2024, arXiv 2401.06838) prefers the answers that say the same as the English one.
There are two measures of that, and room for your own:

``"consistency"``  ``2 m / (a + b)``: of the ``a`` numbers in digits of the text and the ``b`` of
                   the parallel response, ``m`` stand in matching blocks, in order (Ratcliff and
                   Obershelp). 1 where both reason through the same numbers. Exact, and needs no
                   other model; but it reads digits alone
translation        mean log likelihood of a token of the parallel response, given the text, under a
                   translation model (`translation_scorer`): what MAPO does

Every text is also judged as `accuracy` judges answers: right number, right language.

>>> responses = respond(model, corpus, samples=8, run_dir="runs/zh-de/responses")  # doctest: +SKIP
>>> scored = score_responses(responses, corpus, pivot="en")                       # doctest: +SKIP

What it does not show: whether a step of the reasoning is right; whether the language is good.
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
from lensneurons.engines.choice import Engine
from lensneurons.engines.pool import engine_for
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.answers import expected_number
from lensneurons.evaluation.blocks import in_blocks
from lensneurons.evaluation.generation import (
    Decoding,
    Response,
    encode_prompts,
    fit_context,
    write_responses,
)
from lensneurons.evaluation.numbers import last_number, numbers_in, same_number
from lensneurons.evaluation.shots import fingerprint_of, prompts_of, refuse_chats
from lensneurons.evaluation.writers import (
    Writer,
    decoding_of,
    provenance_of,
    require_writer,
    written_by,
)
from lensneurons.evaluation.written_blocks import Writing, written_by_workers
from lensneurons.languages.codes import language_code, language_name
from lensneurons.languages.detection import detect_language, names_in, require_identifiable
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.running import runs_model
from lensneurons.options import plain_options
from lensneurons.tokens.prepared import model_provenance
from lensneurons.values.base import Overview, Table
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Small enough to lose little in an interruption, large enough to fill batches.
PROMPTS_A_BLOCK = 512
ANSWERS_A_BLOCK = 256
Row = TypeVar("Row")


@dataclass(frozen=True, eq=False, repr=False)
class TextTable(Table[Row], Generic[Row]):
    """Rows of texts, each of an item (``id``) and a ``language``."""

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
        rows: tuple[Any, ...] = self.rows
        return tuple(dict.fromkeys(row.language for row in rows))


@dataclass(frozen=True, slots=True)
class SampledResponse:
    """One of the answers of a model to a problem.

    Attributes:
        id: the item.
        language: the language that it was asked in.
        sample: number of the answer, from 0.
        prompt: of the item, which the model was given, after examples if there were any.
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

    FILE_KIND = "sampled responses"
    RUN_FILE = "responses.jsonl"

    decoding: Decoding
    provenance: Provenance

    def _brief(self) -> str:
        temperature, writer = self.decoding.temperature, self.decoding.writer
        return (
            f"{self.provenance.model}: {len(self)} texts, {len(self.languages)} languages "
            f"{' '.join(self.languages)}, "
            f"{f'written by {writer}' if writer else f'temperature {temperature:g}'}"
        )

    def _overview(self) -> Overview:
        rows = [
            (tag, language_name(str(tag)), own["id"].nunique(), len(own), own["text"].nunique())
            for tag, own in self.to_pandas().groupby("language", sort=False)
        ]
        return Overview(repr(self), ("language", "name", "items", "texts", "different"), rows)


@plain_options
@runs_model
def respond(
    model: Any,
    corpus: ParallelCorpus,
    *,
    samples: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int | None = None,
    batch_tokens: int = 16384,
    stop: Sequence[str] = (),
    shots: ParallelCorpus | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    run_dir: str | Path | None = None,
    writer: Writer | None = None,
    engine: Engine = "local",
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
        stop: a text is cut before the first of these strings that the model writes, and ends
            there.
        shots: worked examples, which stand before the prompts of their language. They are not kept
            in the rows, so that a later training learns to answer without them.
        tokenizer: encodes the prompts; by default the model's own, as it was saved.
        run_dir: a folder that keeps what is done, so that an interrupted call goes on there. It
            ends with ``responses.jsonl`` in it, for the next step.
        writer: writes in place of the model, such as a vLLM server: a function from a list of
            prompts to the list of their texts (`lensneurons.evaluation.writers`). It gets a prompt
            `samples` times, and decides tokens, temperature and seed itself.
        engine: ``"local"``, this process; ``"ray"`` or a `lensneurons.engines.RayEngine`, workers
            that write a block of prompts each, with the same texts.
        progress: show one progress bar, in texts.

    Raises:
        CorpusError: an item without a prompt; `shots` without a language, with fewer in one, or
            with an item of the corpus.
        LensNeuronsError: an option out of its range, or prompts too long; a `writer` that gives
            something else than one text a prompt, or stands beside its own options or hooks; Ray
            is not installed, has too little room, or its workers died.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read; the model has
            hooks, and there are workers; or theirs is another one.
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, corpus or plan.
    """
    decoding = Decoding(
        max_new_tokens, temperature, seed, batch_tokens, stop, fingerprint_of(shots)
    )
    refuse_chats(corpus, shots)
    require_answerable(corpus, samples, temperature)
    tokenizer = tokenizer or original_tokenizer(model)
    given = prompts_of(corpus.items, shots, tokenizer)
    provenance = model_provenance(model, tokenizer, corpus.fingerprint, corpus.template)
    if writer is None:
        fit_context(model, [len(row) for row in encode_prompts(given, tokenizer)], max_new_tokens)
    else:
        own = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        require_writer(writer, model, engine=engine, **own)
        decoding = decoding_of(writer, decoding)
        provenance = provenance_of(writer, provenance)
    workers = engine_for(engine, model)
    pairs = zip(corpus.items, given, strict=True)
    asked = [(item, sample, prompt) for item, prompt in pairs for sample in range(samples)]

    def prompts_from(first: int) -> list[str]:
        return [prompt for _, _, prompt in asked[first : first + PROMPTS_A_BLOCK]]

    def rows(first: int, written: Sequence[Response]) -> list[SampledResponse]:
        return [
            SampledResponse(item.id, item.language, n, item.prompt, new.text, new.finished)
            for (item, n, _), new in zip(asked[first : first + len(written)], written, strict=True)
        ]

    def write(first: int, block: Sequence[Any]) -> list[SampledResponse]:
        prompts = prompts_from(first)
        if writer is not None:
            return rows(first, written_by(writer, prompts, decoding))
        own = {"first_row": first, "tokenizer": tokenizer, "progress": False}
        return rows(first, write_responses(model, prompts, decoding, **own))

    def by_workers(missing: Sequence[int]) -> Iterator[tuple[int, list[SampledResponse]]]:
        if workers is not None:
            blocks, work = {n: prompts_from(n) for n in missing}, Writing(decoding, tokenizer)
            for first, written in written_by_workers(workers, model, work, blocks):
                yield first, rows(first, written)

    plan = {"samples": samples, **decoding.plan()}
    return in_blocks(
        asked, write, SampledResponse,
        lambda rows: SampledResponses(rows, decoding, provenance),
        size=PROMPTS_A_BLOCK, run_dir=run_dir, provenance=provenance, plan=plan,
        label="respond", progress=progress, perform=None if workers is None else by_workers,
    )  # fmt: skip


@plain_options
def require_answerable(corpus: ParallelCorpus, samples: int, temperature: float) -> None:
    """Raise for a request that could not give different answers to problems.

    Raises:
        LensNeuronsError: one answer a problem, or all of them the same.
        CorpusError: an item without a prompt.
    """
    if samples < 2 or temperature <= 0:
        raise LensNeuronsError(
            f"samples={samples}, temperature={temperature}: pairs are made of different answers to "
            "one problem, so give at least 2 samples and a temperature above 0"
        )
    if empty := [item for item in corpus if not item.prompt]:
        raise CorpusError(f"{empty[0].id!r} ({empty[0].language}) has no prompt to answer")


def require_other_languages(languages: Sequence[str], pivot: str) -> None:
    """Raise where answers would only be compared with those of their own language.

    Raises:
        LensNeuronsError: the pivot language is the only one.
    """
    if set(languages) <= {pivot}:
        raise LensNeuronsError(
            f"languages={list(languages)}: {pivot!r} is the pivot, which the others are aligned to;"
            " name at least one other language, or another pivot"
        )


@dataclass(frozen=True, slots=True)
class ScoredResponse(SampledResponse):
    """A sampled answer and what it is worth.

    Attributes:
        score: response score, faithfulness to the pivot's response; the higher the better.
        right_answer: whether its last number answers the item.
        right_language: whether it is in the language of the item.
    """

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

    FILE_KIND = "scored responses"
    RUN_FILE = "scores.jsonl"

    pivot: str
    scorer: str
    provenance: Provenance

    def _brief(self) -> str:
        right = sum(row.right_answer for row in self) / max(1, len(self))
        return (
            f"{self.provenance.model}: {len(self)} texts in {len(self.languages)} languages by "
            f"{self.scorer} with {self.pivot}: {right:.1%} right answers"
        )

    def _overview(self) -> Overview:
        columns = ["score", "right_answer", "right_language", "finished"]
        rows = [
            (tag, language_name(str(tag)), len(own), *(f"{own[c].mean():.3f}" for c in columns))
            for tag, own in self.to_pandas().groupby("language", sort=False)
        ]
        return Overview(repr(self), ("language", "name", "texts", *columns), rows)


class Parallel(NamedTuple):
    """A text and what it is compared with."""

    text: str
    language: str
    reference: str


# Scores of a list of texts, the higher the more faithful; it names itself by `__name__`.
Scorer = Callable[[Sequence[Parallel]], list[float]]


@plain_options
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
    require_other_languages(list(dict.fromkeys(row.language for row in responses)), pivot)
    if isinstance(scorer, str):
        choose(scorer, ("consistency",), "scorer")
        scorer = consistency
    score = scorer
    items = {(item.id, item.language): item for item in corpus}
    references = _references(responses, items, pivot)
    expected = {key: expected_number(items[key]) for key in references}
    require_identifiable(corpus.languages)

    def judge(_: int, block: Sequence[SampledResponse]) -> list[ScoredResponse]:
        values = score([Parallel(r.text, r.language, references[r.id, r.language]) for r in block])
        judged = []
        for row, value in zip(block, values, strict=True):
            names = names_in(row.prompt)
            guess = detect_language(row.text, languages=corpus.languages, ignore=names)
            number = last_number(row.text, language=guess.language or row.language)
            judged.append(
                ScoredResponse(
                    **asdict(row),
                    score=float(value),
                    right_answer=same_number(number, expected[row.id, row.language]),
                    right_language=guess.language == row.language,
                )
            )
        return judged

    name = getattr(score, "__name__", type(score).__name__)
    plan = {"responses": responses.fingerprint, "corpus": corpus.fingerprint, "pivot": pivot}
    return in_blocks(
        responses.rows, judge, ScoredResponse,
        lambda rows: ScoredResponses(rows, pivot, name, responses.provenance),
        size=ANSWERS_A_BLOCK, run_dir=run_dir, provenance=responses.provenance,
        plan={**plan, "scorer": name}, label="score",
        progress=progress,
    )  # fmt: skip


def _references(
    responses: SampledResponses, items: Mapping[tuple[str, str], Item], pivot: str
) -> dict[tuple[str, str], str]:
    """The pivot's response to every item that was answered, by item and language.

    Raises:
        CorpusError: the corpus lacks an item in its language, or a response in the pivot.
    """
    found = {}
    for row in responses:
        parallel = items.get((row.id, pivot))
        here = (row.id, row.language) in items
        if not here or parallel is None or not parallel.response:
            lacking = f"a response to it in {pivot!r}" if here else "this item"
            raise CorpusError(
                f"{row.id!r} was answered in {row.language!r}, but the corpus has not {lacking}: "
                "give the corpus that was answered, in the pivot language too"
            )
        found[row.id, row.language] = parallel.response
    return found


def consistency(parallels: Sequence[Parallel]) -> list[float]:
    """Share of the numbers in digits that a text and its reference have in common, in order.

    Args:
        parallels: texts and references.

    Returns:
        0 to 1 each; 0 where neither has a number.
    """
    scores = []
    for text, language, reference in parallels:
        ours, theirs = numbers_in(text, language=language), numbers_in(reference)
        matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
        scores.append(matcher.ratio() if ours or theirs else 0.0)
    return scores
