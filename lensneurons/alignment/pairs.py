"""Step 3 of an alignment: pairs of a better and a worse answer to the same problem.

    better   right answer, right language, ended by itself
    worse    any other answer to the same problem in the same language with a lower score

Only right answers win, so that faithfulness to the pivot is never bought with errors. A text is
counted once however often it was drawn, and no pair stands twice. A cap an item and a cap a
language keep easy problems and plentiful languages from filling the data: pairs are taken item by
item in turn, so a cap takes the same from all of them.

>>> pairs = preference_pairs(scored, languages=["zh", "de"], per_language=500)   # doctest: +SKIP
>>> control = pairs.shuffled(seed=0)   # better and worse by the toss of a coin   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lensneurons.alignment.responses import ScoredResponse, ScoredResponses, TextTable
from lensneurons.corpora.corpus import wanted_languages
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.languages.codes import language_name
from lensneurons.values.files import load_rows, save_rows
from lensneurons.values.provenance import Provenance
from lensneurons.values.tables import html_table

KIND = "preference pairs"


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A better and a worse answer to one problem.

    Attributes:
        id: the item.
        language: the language that it was asked in.
        prompt: what the model was given.
        chosen: the better answer.
        rejected: the worse answer.
        chosen_score: score of the better answer.
        rejected_score: score of the worse answer.
    """

    id: str
    language: str
    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float


@dataclass(frozen=True, eq=False, repr=False)
class PreferencePairs(TextTable[PreferencePair]):
    """Pairs of answers for `align`. Made by `preference_pairs`.

    Attributes:
        rows: the pairs, language by language.
        pivot: the language whose responses were the measure.
        scorer: name of the measure.
        provenance: of the model that answered.
        shuffle_seed: of the coin that turned pairs around; None where nobody did.
    """

    rows: tuple[PreferencePair, ...]
    pivot: str
    scorer: str
    provenance: Provenance
    shuffle_seed: int | None = None

    def shuffled(self, *, seed: int = 0) -> PreferencePairs:
        """The same pairs, each turned around by the toss of a coin: a control for `align`.

        What training on it changes comes from seeing the texts, not from the preferences.

        Args:
            seed: of the coin.
        """
        turned = np.random.default_rng(seed).random(len(self)) < 0.5
        pairs = [_turn(p) if t else p for p, t in zip(self.rows, turned, strict=True)]
        return replace(self, rows=tuple(pairs), shuffle_seed=seed)

    def select(self, languages: Sequence[str]) -> PreferencePairs:
        """The pairs of some languages.

        Raises:
            CorpusError: no language, or none of its pairs is here.
        """
        wanted = wanted_languages(languages)
        if lacking := [tag for tag in wanted if tag not in self.languages]:
            raise CorpusError(f"no pairs in {lacking}; there are some in {list(self.languages)}")
        return replace(self, rows=tuple(pair for pair in self.rows if pair.language in wanted))

    def save(self, path: str | Path) -> Path:
        """Write JSON lines, atomically, and return the path."""
        details = {
            "pivot": self.pivot,
            "scorer": self.scorer,
            "provenance": self.provenance.to_dict(),
            "shuffle_seed": self.shuffle_seed,
        }
        return save_rows(path, KIND, map(asdict, self.rows), details)

    @classmethod
    def load(cls, path: str | Path) -> PreferencePairs:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        rows, details = load_rows(path, KIND)
        return cls(
            tuple(PreferencePair(**row) for row in rows),
            details["pivot"],
            details["scorer"],
            Provenance.from_dict(details["provenance"]),
            details["shuffle_seed"],
        )

    def __repr__(self) -> str:
        shuffled = "" if self.shuffle_seed is None else ", shuffled"
        return (
            f"PreferencePairs({self.provenance.model}: {len(self)} pairs in "
            f"{' '.join(self.languages)} by {self.scorer} with {self.pivot}{shuffled})"
        )

    def _repr_html_(self) -> str:
        rows = []
        for tag in self.languages:
            own = [pair for pair in self.rows if pair.language == tag]
            gap = np.mean([pair.chosen_score - pair.rejected_score for pair in own])
            items = len({pair.id for pair in own})
            rows.append((tag, language_name(tag), items, len(own), f"{gap:.3f}"))
        return html_table(repr(self), ("language", "name", "items", "pairs", "mean gap"), rows)


def preference_pairs(
    scored: ScoredResponses,
    *,
    languages: Sequence[str] | None = None,
    per_item: int = 4,
    per_language: int = 10_000,
    minimum_gap: float = 0.0,
    seed: int = 0,
) -> PreferencePairs:
    """Make pairs of better and worse answers.

    Args:
        scored: what `score_responses` gave.
        languages: whose answers to pair; None for all but the pivot.
        per_item: most pairs of one problem in one language.
        per_language: most pairs of one language.
        minimum_gap: the scores of a pair differ by more than this.
        seed: of the draw where a cap leaves pairs out.

    Raises:
        CorpusError: a language has no answers here, or no pair was found in any.
        LensNeuronsError: a cap below 1, or a negative gap.
    """
    if per_item < 1 or per_language < 1 or minimum_gap < 0:
        raise LensNeuronsError(
            f"per_item={per_item}, per_language={per_language}, minimum_gap={minimum_gap}: give "
            "caps of 1 or more and a gap of 0 or more"
        )
    random = np.random.default_rng(seed)
    pairs: list[PreferencePair] = []
    for language in _wanted(scored, languages):
        own = [row for row in scored if row.language == language]
        drawn = [_draw(found, random) for found in _pairs_by_item(own, minimum_gap)]
        pairs += _in_turn([some[:per_item] for some in drawn], random)[:per_language]
    if not pairs:
        raise CorpusError(
            f"no pair in {len(scored)} answers: every problem has only right answers, or none. "
            "Sample more, at another temperature, or give other problems"
        )
    return PreferencePairs(tuple(pairs), scored.pivot, scored.scorer, scored.provenance)


def _wanted(scored: ScoredResponses, languages: Sequence[str] | None) -> tuple[str, ...]:
    """The languages to pair, once it is plain that they were answered."""
    if languages is None:
        return tuple(tag for tag in scored.languages if tag != scored.pivot)
    wanted = wanted_languages(languages)
    if lacking := [tag for tag in wanted if tag not in scored.languages]:
        raise CorpusError(f"no answers in {lacking}; there are some in {list(scored.languages)}")
    return wanted


def _pairs_by_item(
    rows: Sequence[ScoredResponse], minimum_gap: float
) -> Iterator[list[PreferencePair]]:
    """Every pair of each problem of one language."""
    for item in dict.fromkeys(row.id for row in rows):
        finished = [row for row in rows if row.id == item and row.finished]
        texts = list({row.text: row for row in reversed(finished)}.values())[::-1]
        better = [row for row in texts if row.right_answer and row.right_language]
        yield [_pair(b, w) for b in better for w in texts if b.score - w.score > minimum_gap]


def _pair(better: ScoredResponse, worse: ScoredResponse) -> PreferencePair:
    return PreferencePair(
        better.id, better.language, better.prompt,
        better.text, worse.text, better.score, worse.score,
    )  # fmt: skip


def _turn(pair: PreferencePair) -> PreferencePair:
    return replace(
        pair,
        chosen=pair.rejected,
        rejected=pair.chosen,
        chosen_score=pair.rejected_score,
        rejected_score=pair.chosen_score,
    )


def _draw(pairs: Sequence[PreferencePair], random: np.random.Generator) -> list[PreferencePair]:
    """The pairs in an order of chance."""
    return [pairs[place] for place in random.permutation(len(pairs))]


def _in_turn(
    by_item: Iterable[Sequence[PreferencePair]], random: np.random.Generator
) -> list[PreferencePair]:
    """The first pair of every item, then the second of every item, and so on."""
    items = [pairs for pairs in by_item if pairs]
    order = [items[place] for place in random.permutation(len(items))]
    longest = max(map(len, order), default=0)
    return [pairs[turn] for turn in range(longest) for pairs in order if turn < len(pairs)]
