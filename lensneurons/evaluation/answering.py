"""How often a model answers the problems of a corpus, and in the language it was asked in.

    prompt -> text -> last number (`numerals`) and language (`language_identification`)

The answer of an item is the last number of its response, in the corpus and in the model's text. The
language is identified over the whole text, without numbers and without the names of the prompt,
among the languages of the corpus and a few large ones; "undetermined" is not right.

>>> result = ln.accuracy(model, corpus, max_new_tokens=128)          # doctest: +SKIP
>>> result.per_language()[["right_answer", "right_language", "both"]]    # doctest: +SKIP

What it does not show: whether the reasoning holds. A text that goes on after its answer (a base
model that invents a next problem) is judged by the last number of all that it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lensneurons.corpora.items import Item
from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.errors import CorpusError, ModelError
from lensneurons.evaluation.answers import Accuracy, Answer
from lensneurons.evaluation.decoding import Decoding
from lensneurons.evaluation.numerals import last_number
from lensneurons.evaluation.responses import (
    Response,
    encode_prompts,
    fit_context,
    write_responses,
    write_rows,
)
from lensneurons.language_identification import (
    MINIMUM_CONFIDENCE,
    LanguageGuess,
    identify_language,
    names_in,
    require_identifiable,
)
from lensneurons.models.loading import (
    model_family,
    original_tokenizer,
)
from lensneurons.tokens.prepared import model_provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Identify = Callable[[str], LanguageGuess]


def accuracy(
    model: Any,
    corpus: ParallelCorpus,
    *,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    batch_tokens: int = 16384,
    minimum_confidence: float = MINIMUM_CONFIDENCE,
    ignore: Sequence[str] = (),
    identify: Identify | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> Accuracy:
    """Let a model answer every item of a corpus, and judge number and language apart.

    Args:
        model: what `load_model` returns, or any TransformerLens model. Hooks on it act.
        corpus: problems whose responses end with the number that answers them.
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        temperature: 0 always takes the likeliest token; else tokens are drawn.
        seed: of the drawing; the same for two states of a model gives paired texts.
        batch_tokens: largest rectangle, prompts times (longest prompt + new tokens).
        minimum_confidence: below it the language of a text is undetermined.
        ignore: words that say nothing about the language, beside the names of each prompt.
        identify: your own identification of languages, from a text to a `LanguageGuess` with tags
            spelt as in the corpus; `minimum_confidence` and `ignore` are then yours to apply.
        tokenizer: encodes the prompts; by default the model's own, as it was saved.
        progress: show one progress bar, in prompts.

    Returns:
        One answer an item, with per-language shares and intervals.

    Raises:
        CorpusError: an item without a number in its response, or without a prompt.
        LensNeuronsError: an option out of its range, prompts too long, or a language that cannot be
            told from others of its script.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read.
    """
    decoding = Decoding(max_new_tokens, temperature, seed, batch_tokens)
    expected = [expected_number(item) for item in corpus]
    if identify is None:
        _require_identification(corpus, ignore, minimum_confidence)
    tokenizer = tokenizer or original_tokenizer(model)
    prompts = [item.prompt for item in corpus]
    written = write_responses(model, prompts, decoding, tokenizer=tokenizer, progress=progress)
    answers = []
    for item, number, response in zip(corpus, expected, written, strict=True):
        ask = identify or _identify_for(item, corpus, ignore, minimum_confidence)
        answers.append(_judge(item, number, response, ask))
    provenance = model_provenance(model, tokenizer, corpus.fingerprint)
    return Accuracy(tuple(answers), decoding, provenance)


def answer_scorer(
    model: Any,
    corpus: ParallelCorpus,
    *,
    max_new_tokens: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Callable[[Sequence[int]], list[bool]]:
    """Make the function that lets a model answer some items, greedily, as one batch a call.

    Args:
        model: a ``TransformerBridge``; hooks that are on it when the function is called act.
        corpus: problems whose responses end with the number that answers them.
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        tokenizer: encodes the prompts; by default the model's own, as it was saved.

    Returns:
        ``score(rows)``: whether each answer is right and in the right language. An item may be
        named several times: rows that differ in their condition.

    Raises:
        CorpusError: an item without a number in its response, or without a prompt.
        LensNeuronsError: prompts too long, or a language that cannot be told from others.
        ModelError: a model of TransformerLens 3.9, which writes prompts of one length only.
    """
    if model_family(model) == "hooked":
        raise ModelError("answers under several conditions need a TransformerBridge: load_model()")
    expected = [expected_number(item) for item in corpus]
    _require_identification(corpus, (), MINIMUM_CONFIDENCE)
    tokenizer = tokenizer or original_tokenizer(model)
    ids = encode_prompts([item.prompt for item in corpus], tokenizer)
    decoding = Decoding(fit_context(model, [len(row) for row in ids], max_new_tokens))
    asks = [_identify_for(item, corpus, (), MINIMUM_CONFIDENCE) for item in corpus]

    def score(rows: Sequence[int]) -> list[bool]:
        written = write_rows(model, tokenizer, [ids[row] for row in rows], list(rows), decoding)
        pairs = zip(rows, written, strict=True)
        return [_judge(corpus.items[i], expected[i], text, asks[i]).both for i, text in pairs]

    return score


def _require_identification(
    corpus: ParallelCorpus, ignore: Sequence[str], minimum_confidence: float
) -> None:
    """Ask once in vain, so that a language or a confidence that will not do is refused now."""
    require_identifiable(corpus.languages)
    _identify_for(corpus.items[0], corpus, ignore, minimum_confidence)("")


def expected_number(item: Item) -> float:
    """The number that answers an item.

    Raises:
        CorpusError: its response has no number, or it has no prompt.
    """
    number = last_number(item.response)
    if number is None or not item.prompt:
        lack = "prompt" if not item.prompt else "number in its response"
        raise CorpusError(
            f"{item.id!r} ({item.language}) has no {lack}: accuracy needs problems with a prompt "
            "and a response that ends with the number that answers them"
        )
    return number


def _identify_for(
    item: Item, corpus: ParallelCorpus, ignore: Sequence[str], minimum_confidence: float
) -> Identify:
    """`identify_language` for the texts of one item."""

    def identify(text: str) -> LanguageGuess:
        return identify_language(
            text,
            languages=corpus.languages,
            ignore={*ignore, *names_in(item.prompt)},
            minimum_confidence=minimum_confidence,
        )

    return identify


def _judge(item: Item, expected: float, response: Response, identify: Identify) -> Answer:
    """What a text is worth."""
    return Answer(
        id=item.id,
        language=item.language,
        text=response.text,
        expected=expected,
        number=last_number(response.text),
        guess=identify(response.text),
        finished=response.finished,
    )
