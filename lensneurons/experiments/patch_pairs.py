"""Two texts to patch between, and what the second one may go on with.

A pair is two *different* items: the source asks A in one language, the target asks B in another.
Both stop right before the answer. What the target then says, once a state of the source was put
into it, tells what the state carried:

    ============  ====================================  =====================
    outcome       continuation                          what was carried
    ============  ====================================  =====================
    ``both``      A's answer in the source's language   the answer and its language
    ``concept``   A's answer in the target's language   the answer without its language
    ``language``  B's answer in the source's language   the language without the answer
    ``neither``   B's answer in the target's language   nothing
    ============  ====================================  =====================

Where the answer is written alike in both languages (digits, or Han numerals in Chinese and
Japanese), ``concept`` and ``neither`` alone are left, and only the answer can be seen to travel.

`answer_pairs` makes such pairs of a parallel corpus. Where it stops decides what is measured:

    ``"thing"``   after the digits after the last "=": "16 + 26 = 42| apples". The last position is
                  a digit, the same in every language, so the language that is carried comes from
                  the text before it. The answer is what is counted.
    ``"result"``  before those digits: "16 + 26 = |42". The model has to work the result out of the
                  operands; digits have no language.
    ``"word"``    before the number word of the demo's last sentence: "The answer is| forty-two".
                  The result stands in the text as digits and is only to be said. But the last
                  position is a word of the source's language, so the language is carried from the
                  first layer on, by that word itself.
    ``"number"``  before the last number of any corpus's responses, such as MGSM's.

Items that lack it (Swahili ones go on "42, so ...") take no part.

>>> pairs = ln.answer_pairs(corpus, source="en", before="thing")         # doctest: +SKIP

What this does not show: that two answers mean one concept. They are translations because the corpus
says so, and what precedes the answer (prompt, names, operands) differs between A and B as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import regex

from lensneurons.corpora.items import Item
from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.numerals import last_number
from lensneurons.tokens.seams import exact_backend

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Before = Literal["thing", "result", "word", "number"]
OUTCOMES = ("both", "concept", "language", "neither")

_ANSWERS = {
    "thing": regex.compile(r"(?>.*=)\s*\d+(\s*[\p{L}\p{M}]+)", regex.DOTALL),
    "result": regex.compile(r"(?>.*=)\s*(\d+)", regex.DOTALL),
    "number": regex.compile(r".*(?<![\d.,])(\d(?:[\d.,]*\d)?)", regex.DOTALL),
}


@dataclass(frozen=True, slots=True)
class PatchPair:
    """A source and a target text, and what the target may go on with.

    Attributes:
        source: text whose state at its end is put into the target.
        source_next: how the source goes on in its own run. It is not read; it decides where the
            last token of the source ends.
        target: text whose last position gets that state.
        continuations: name of an outcome to the text that may follow the target.
        language: language of the target.
        item: what is drawn again in a bootstrap; pairs of the same items share it.
    """

    source: str
    source_next: str
    target: str
    continuations: Mapping[str, str]
    language: str
    item: str


class EncodedPair(NamedTuple):
    """A pair in tokens: ids of both texts up to the end, and of each continuation."""

    source: list[int]
    target: list[int]
    continuations: dict[str, list[int]]


def answer_pairs(
    corpus: ParallelCorpus,
    *,
    source: str = "en",
    languages: Sequence[str] | None = None,
    before: Before = "result",
    seed: int = 0,
) -> list[PatchPair]:
    """Pair different items of a parallel corpus, cut before their answers.

    Items are shuffled and paired two by two, so no item is in two pairs; each pair is taken in both
    directions and in every language.

    Args:
        corpus: items whose responses hold their answers.
        source: language of the sources.
        languages: languages of the targets; None for all but `source`. With `source` itself among
            them, patching within a language stands beside patching across.
        before: where both texts stop; see above. ``"number"`` is for any corpus.
        seed: of the shuffle.

    Returns:
        The pairs, language by language. Outcomes that are written alike are left out.

    Raises:
        CorpusError: a language that the corpus lacks or whose responses have nothing that `before`
            looks for, or fewer than four items that have it in all these languages.
        LensNeuronsError: `before` is not known.
    """
    choose(before, get_args(Before), "before")
    targets = [tag for tag in corpus.languages if tag != source]
    targets = targets if languages is None else list(languages)
    wanted = corpus.select(list(dict.fromkeys([source, *targets])))
    cuts = {}
    for item in wanted:
        if span := _answer_span(item, before):
            cuts[item.id, item.language] = _cut(item, *span)
    units = _units(wanted, cuts, before, seed)
    return [
        _pair(cuts, a, b, source, language, f"{min(unit)}|{max(unit)}")
        for language in targets
        for unit in units
        for a, b in (unit, unit[::-1])
    ]


def _units(
    corpus: ParallelCorpus, cuts: Mapping[tuple[str, str], Any], before: Before, seed: int
) -> list[tuple[str, str]]:
    """Items two by two: those that could be cut in every language."""
    for tag in corpus.languages:
        if not any((name, tag) in cuts for name in corpus.ids):
            raise CorpusError(
                f"before={before!r} finds nothing in the responses of {tag!r}: leave it out of "
                "languages=, or cut elsewhere"
            )
    shared = [i for i in corpus.ids if all((i, tag) in cuts for tag in corpus.languages)]
    if len(shared) < 4:
        raise CorpusError(
            f"before={before!r} finds something in {len(shared)} items in all of "
            f"{list(corpus.languages)}: two pairs need four"
        )
    order = np.random.default_rng(seed).permutation(len(shared))
    names = [shared[place] for place in order]
    return list(zip(names[::2], names[1::2], strict=False))


def _cut(item: Item, start: int, stop: int) -> tuple[str, str]:
    """What stands before the answer, and the answer, which is response[start:stop]."""
    seam = len(item.prompt) + start
    return item.text[:seam], item.response[start:stop]


def _answer_span(item: Item, before: Before) -> tuple[int, int] | None:
    """Where the answer stands in the response, as its first character and its end."""
    if before == "word":
        return _word_span(item)
    found = _ANSWERS[before].match(item.response)
    return found.span(1) if found else None


def _word_span(item: Item) -> tuple[int, int] | None:
    """The number word of the demo's last sentence, with the space before it."""
    from lensneurons.demo.world import LANGUAGES, find_language

    number = last_number(item.response)
    if number is None or item.language not in LANGUAGES:
        return None
    word = find_language(item.language).spell(int(number))
    stop = item.response.rfind(word) + len(word)
    if stop < len(word):
        return None
    return len(item.response[: stop - len(word)].rstrip()), stop


def _pair(
    cuts: Mapping[tuple[str, str], tuple[str, str]],
    a: str,
    b: str,
    source: str,
    language: str,
    unit: str,
) -> PatchPair:
    """The pair of item A in the source's language and item B in the target's."""
    (text_a, said_a), (text_b, said_b) = cuts[a, source], cuts[b, language]
    continuations = {
        "both": said_a,
        "concept": cuts[a, language][1],
        "language": cuts[b, source][1],
        "neither": said_b,
    }
    for outcome, alike in (("both", "concept"), ("language", "neither")):
        if continuations[outcome].strip() == continuations[alike].strip():
            del continuations[outcome]
    return PatchPair(text_a, said_a, text_b, continuations, language, unit)


def encode_pairs(
    pairs: Sequence[PatchPair], tokenizer: PreTrainedTokenizerBase
) -> list[EncodedPair | None]:
    """Encode pairs, each text together with what follows it, as a model reads it in one piece.

    The target ends where its continuations part: before the first token that holds a character of
    any of them. A pair whose continuations do not begin with different tokens cannot tell them
    apart at the next token, and is None.

    Args:
        pairs: what to encode.
        tokenizer: a Hugging Face fast tokenizer; it stays as it is.

    Raises:
        LensNeuronsError: no pairs, or one with fewer than two continuations or an empty text.
    """
    _require_pairs(pairs)
    backend = exact_backend(tokenizer, [pairs[0].source])
    return [_encode_pair(pair, backend) for pair in pairs]


def _require_pairs(pairs: Sequence[PatchPair]) -> None:
    if not pairs:
        raise LensNeuronsError("no pairs to patch between: make some with answer_pairs()")
    for pair in pairs:
        texts = (pair.source, pair.target, *pair.continuations.values())
        if len(pair.continuations) < 2 or not all(texts):
            raise LensNeuronsError(
                f"pair {pair.item!r} ({pair.language}) needs two texts and at least two "
                f"continuations that are not empty, not {dict(pair.continuations)}"
            )


def _encode_pair(pair: PatchPair, backend: Any) -> EncodedPair | None:
    source, seam = _encode(backend, pair.source, pair.source_next)
    whole = {name: _encode(backend, pair.target, text) for name, text in pair.continuations.items()}
    ids = [ids for ids, _ in whole.values()]
    end = min(_shared(ids), *(seam for _, seam in whole.values()))
    firsts = {one[end] for one in ids if len(one) > end}
    if not seam or not end or len(firsts) < len(ids):
        return None
    rest = {name: one[end:] for name, (one, _) in whole.items()}
    return EncodedPair(source[:seam], ids[0][:end], rest)


def _encode(backend: Any, text: str, after: str) -> tuple[list[int], int]:
    """Ids of a text and what follows it, and how many of them hold characters of the text alone."""
    encoding = backend.encode(text + after)
    muted, ends = encoding.special_tokens_mask, [end for _, end in encoding.offsets]
    stop = max((i + 1 for i, mute in enumerate(muted) if not mute), default=0)
    beyond = (i for i in range(stop) if not muted[i] and ends[i] > len(text))
    return encoding.ids[:stop], next(beyond, stop)


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning."""
    columns: Iterator[tuple[int, ...]] = zip(*rows, strict=False)
    return next(
        (i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, rows))
    )
