"""Step 1 of an alignment: several answers of the model to every problem, in every language.

    corpus -> prompt x samples -> texts

A model whose answers to one problem differ shows by itself what it could do better; the later steps
only have to tell the better answers from the worse. Texts are drawn at a temperature, each from a
noise of its own (`lensneurons.evaluation.decoding`), so the same call writes the same texts,
whatever the batches and however often it was interrupted.

>>> responses = respond(model, corpus, samples=8, run_dir="runs/zh-de/responses")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensneurons.alignment.steps import Row, work_in_blocks
from lensneurons.alignment.tables import TextTable
from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.display import html_table
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.evaluation.decoding import Decoding
from lensneurons.evaluation.responses import encode_prompts, fit_context, write_responses
from lensneurons.languages import language_name
from lensneurons.models.loading import original_tokenizer
from lensneurons.provenance import Provenance
from lensneurons.storage import load_rows, save_rows
from lensneurons.tokens.prepared import model_provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KIND = "sampled responses"
FILE = "responses.jsonl"
# Prompts a block: small enough to lose little, large enough to fill batches.
BLOCK = 512


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
        asked, write, size=BLOCK, run_dir=run_dir, provenance=provenance, plan=plan,
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
