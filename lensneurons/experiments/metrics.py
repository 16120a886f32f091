"""What a cell of an ablation matrix measures: a new metric is one entry of `METRICS`.

A metric scores texts: it gives each text a value and a weight, and a cell is the weighted mean over
texts with some neurons removed, less that of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.answers import answer_scorer
from lensneurons.evaluation.likelihood import TextMeasure, require_predicted, text_scorer
from lensneurons.tokens.prepared import PreparedCorpus

Metric = Literal["nll", "accuracy"]


class Measure(NamedTuple):
    """How a metric is computed and told.

    Attributes:
        scorer: takes a prepared corpus, the most new tokens of an answer and what stops it, and
            worked examples; gives the function that scores texts by their numbers: values and
            weights.
        unit: of a cell.
        short_unit: of a number in a sentence.
        subject: what changes, as a sentence says it.
        harm: 1 where a rise is worse, -1 where a fall is.
        section: title of its section in a report.
    """

    scorer: Callable[
        [PreparedCorpus, int | None, Sequence[str], ParallelCorpus | None], TextMeasure
    ]
    unit: str
    short_unit: str
    subject: str
    harm: Literal[1, -1]
    section: str


def _by_nll(
    prepared: PreparedCorpus,
    max_new_tokens: int | None,
    stop: Sequence[str],
    shots: ParallelCorpus | None,
) -> TextMeasure:
    if shots is not None:
        raise LensNeuronsError(
            "shots stand before prompts that a model answers: give metric='accuracy'"
        )
    require_predicted(prepared.encoded)
    return text_scorer(prepared.model, prepared.encoded)


def _by_answers(
    prepared: PreparedCorpus,
    max_new_tokens: int | None,
    stop: Sequence[str],
    shots: ParallelCorpus | None,
) -> TextMeasure:
    """1 where number and language are right; all texts weigh the same."""
    answer = answer_scorer(
        prepared.model, prepared, max_new_tokens=max_new_tokens, stop=stop, shots=shots
    )

    def score(rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        right = np.array(answer([int(row) for row in rows]), np.float64)
        return right, np.ones(len(right), np.int64)

    return score


METRICS: dict[str, Measure] = {
    "nll": Measure(
        _by_nll,
        unit="change of NLL, nats a token",
        short_unit="nats a token",
        subject="NLL, in nats a token,",
        harm=1,
        section="What removing them does",
    ),
    "accuracy": Measure(
        _by_answers,
        unit="change of accuracy",
        short_unit="accuracy",
        subject="accuracy",
        harm=-1,
        section="And to right answers",
    ),
}
