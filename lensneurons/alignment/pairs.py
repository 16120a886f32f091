"""Step 3 of an alignment: pairs of a better and a worse answer to the same problem.

    better   right answer, right language, ended by itself
    worse    any other answer to the same problem in the same language with a lower score

Only right answers win, so that faithfulness to the pivot is never bought with errors. A text counts
once however often it was drawn, and no pair stands twice. Caps for an item and for a language keep
easy problems and plentiful languages from filling the data. The cap of a language takes the first
pair of every item, then the second of every item, and so on, so it takes as much from all of them.

>>> pairs = preference_pairs(scored, languages=["zh", "de"], per_language=500)   # doctest: +SKIP
>>> control = pairs.shuffled(seed=0)   # better and worse by the toss of a coin   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lensneurons.alignment.responses import ScoredResponse, ScoredResponses, TextTable
from lensneurons.corpora.corpus import wanted_languages
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.languages.codes import language_name
from lensneurons.options import plain_options
from lensneurons.tokens.chat import chat_prompts, template_hash
from lensneurons.values.base import Overview
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A better and a worse answer to one problem.

    Attributes:
        id: the item.
        language: the language that it was asked in.
        prompt: what the model was given.
        chosen: the better answer.
        rejected: the worse answer.
        chosen_score: response score of the better answer.
        rejected_score: response score of the worse answer.
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
        shuffle_seed: of the coin that turned pairs around; None where no coin did.
    """

    FILE_KIND = "preference pairs"

    rows: tuple[PreferencePair, ...]
    pivot: str
    scorer: str
    provenance: Provenance
    shuffle_seed: int | None = None

    @plain_options
    def shuffled(self, *, seed: int = 0) -> PreferencePairs:
        """The same pairs, each turned around by the toss of a coin: a control for `align`.

        What training on it changes comes from seeing the texts, not from the preferences.

        Args:
            seed: of the coin.
        """
        coins = np.random.default_rng(seed).random(len(self)) < 0.5
        rows = [
            replace(
                pair,
                chosen=pair.rejected,
                rejected=pair.chosen,
                chosen_score=pair.rejected_score,
                rejected_score=pair.chosen_score,
            )
            if turned
            else pair
            for pair, turned in zip(self.rows, coins, strict=True)
        ]
        return replace(self, rows=tuple(rows), shuffle_seed=seed)

    @plain_options
    def in_chat(
        self, tokenizer: PreTrainedTokenizerBase, *, system: str | None = None
    ) -> PreferencePairs:
        """The same pairs, each prompt as the user's turn of the tokenizer's own chat template.

        Pairs of answers that were given in that template already stay as they are.

        Args:
            tokenizer: that of the model.
            system: the system prompt of the chat.

        Raises:
            ModelError: the tokenizer has no chat template, or it fails.
            CorpusError: a pair has no prompt, or the pairs are written in another template.
        """
        own = self.provenance.template
        wanted = template_hash(tokenizer, system)
        if own == wanted:
            return self
        if own != "none":
            raise CorpusError(
                "the prompts of the pairs are turns of a chat in another template, or with another "
                "system prompt: leave template= out to train on them as they are"
            )
        if empty := next((pair for pair in self.rows if not pair.prompt.strip()), None):
            raise CorpusError(f"a pair of {empty.id!r} ({empty.language}) has no prompt for a chat")
        prompts = chat_prompts(tokenizer, [pair.prompt for pair in self.rows], system=system)
        rows = tuple(
            replace(pair, prompt=new) for pair, new in zip(self.rows, prompts, strict=True)
        )
        return replace(self, rows=rows, provenance=replace(self.provenance, template=wanted))

    @plain_options
    def select(self, languages: Sequence[str]) -> PreferencePairs:
        """The pairs of some languages.

        Raises:
            CorpusError: no language was given, or one has no pairs here.
        """
        wanted = wanted_languages(languages)
        if lacking := [tag for tag in wanted if tag not in self.languages]:
            raise CorpusError(f"no pairs in {lacking}; there are some in {list(self.languages)}")
        return replace(self, rows=tuple(pair for pair in self.rows if pair.language in wanted))

    def _brief(self) -> str:
        shuffled = "" if self.shuffle_seed is None else ", shuffled"
        return (
            f"{self.provenance.model}: {len(self)} pairs in {' '.join(self.languages)} by "
            f"{self.scorer} with {self.pivot}{shuffled}"
        )

    def _overview(self) -> Overview:
        rows = []
        for tag in self.languages:
            own = [pair for pair in self.rows if pair.language == tag]
            gap = np.mean([pair.chosen_score - pair.rejected_score for pair in own])
            items = len({pair.id for pair in own})
            rows.append((tag, language_name(tag), items, len(own), f"{gap:.3f}"))
        return Overview(repr(self), ("language", "name", "items", "pairs", "mean gap"), rows)


@plain_options
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
    if languages is None:
        wanted = tuple(tag for tag in scored.languages if tag != scored.pivot)
    else:
        wanted = wanted_languages(languages)
    if lacking := [tag for tag in wanted if tag not in scored.languages]:
        raise CorpusError(f"no answers in {lacking}; there are some in {list(scored.languages)}")
    random = np.random.default_rng(seed)
    pairs: list[PreferencePair] = []
    for language in wanted:
        own = [row for row in scored if row.language == language]
        items = []
        for item in dict.fromkeys(row.id for row in own):
            found = _pairs_of([row for row in own if row.id == item], minimum_gap)
            items.append([found[place] for place in random.permutation(len(found))][:per_item])
        items = list(filter(None, items))
        order = [items[place] for place in random.permutation(len(items))]
        turns = range(max(map(len, order), default=0))
        in_turn = [found[turn] for turn in turns for found in order if turn < len(found)]
        pairs += in_turn[:per_language]
    if not pairs:
        raise CorpusError(
            f"no pair in {len(scored)} answers: every problem has only right answers, or none. "
            "Sample more, at another temperature, or give other problems"
        )
    return PreferencePairs(tuple(pairs), scored.pivot, scored.scorer, scored.provenance)


def _pairs_of(answers: Sequence[ScoredResponse], minimum_gap: float) -> list[PreferencePair]:
    """Every pair of the answers to one problem in one language."""
    finished = {row.text: row for row in reversed(answers) if row.finished}  # the first of each
    texts = list(finished.values())[::-1]
    return [
        PreferencePair(b.id, b.language, b.prompt, b.text, w.text, b.score, w.score)
        for b in texts
        if b.right_answer and b.right_language
        for w in texts
        if b.score - w.score > minimum_gap
    ]
