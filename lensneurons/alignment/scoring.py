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
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from lensneurons.alignment.sampling import SampledResponse, SampledResponses
from lensneurons.alignment.steps import Row, work_in_blocks
from lensneurons.alignment.tables import TextTable
from lensneurons.corpora.items import Item
from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.display import html_table
from lensneurons.errors import CorpusError, choose
from lensneurons.evaluation.answering import expected_number
from lensneurons.evaluation.numerals import last_number, numbers_in, same_number
from lensneurons.language_identification import (
    identify_language,
    names_in,
    require_identifiable,
)
from lensneurons.languages import language_code, language_name
from lensneurons.provenance import Provenance
from lensneurons.storage import load_rows, save_rows

KIND = "scored responses"
FILE = "scores.jsonl"
BLOCK = 256


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
        return save_rows(path, KIND, map(asdict, self.rows), details)

    @classmethod
    def load(cls, path: str | Path) -> ScoredResponses:
        """Read what `save` wrote, or the folder that `score_responses` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        source = Path(path) / FILE if Path(path).is_dir() else Path(path)
        rows, details = load_rows(source, KIND)
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
        responses.rows, judge, size=BLOCK, run_dir=run_dir, provenance=responses.provenance,
        plan={**plan, "pivot": pivot, "scorer": name}, label="score", progress=progress,
    )  # fmt: skip
    scored = ScoredResponses(
        tuple(ScoredResponse(**row) for row in rows), pivot, name, responses.provenance
    )
    if run_dir is not None:
        scored.save(Path(run_dir) / FILE)
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
    guess = identify_language(row.text, languages=languages, ignore=names_in(row.prompt))
    return {
        **asdict(row),
        "score": float(score),
        "right_answer": same_number(last_number(row.text), expected),
        "right_language": guess.language == row.language,
    }
