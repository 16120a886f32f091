r"""Few-shot examples: worked problems before each prompt, in the prompt's own language.

    example 1: prompt + response

    example 2: prompt + response

    the prompt

Examples are items of a small corpus: the prompt and the response, with nothing inserted between
them, as everywhere. A blank line stands between examples. Every prompt gets all examples of its
language, in the order of their corpus, and every language needs the same number of them, so that
languages can be compared. Examples are read and never counted: answers, numbers and languages are
those of what the model writes.

A problem that is asked must not be an example. An example with the prompt of a problem of its
language, or with its id and its response, is refused, whatever the spaces: leaving it out would
give some prompts fewer examples. Another problem may have the id, for some formats number their
rows.

>>> examples = ln.load_corpus("train.jsonl").head(3)                     # doctest: +SKIP
>>> ln.accuracy(model, corpus, shots=examples, stop=["\n\n"])             # doctest: +SKIP

What it does not do: draw examples, or make each of them a turn of a chat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.errors import CorpusError, LensNeuronsError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n\n"


def prompts_of(
    items: Sequence[Item], shots: ParallelCorpus | None, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """What a model is given for each item: the examples of its language, then its prompt.

    Args:
        items: what is asked.
        shots: worked examples; None for the bare prompts.
        tokenizer: whose BOS, where texts are rendered with it, is kept at the beginning alone.

    Raises:
        LensNeuronsError: `shots` is no corpus.
        CorpusError: a language without examples or with fewer than another, an example without a
            prompt or a response, or one that is asked.
    """
    if not fingerprint_of(shots) or shots is None:
        return [item.prompt for item in items]
    require_examples(items, shots)
    bos = str(tokenizer.bos_token or "")
    examples = {
        language: [item.text for item in shots if item.language == language]
        for language in {item.language for item in items}
    }

    def together(texts: list[str]) -> str:
        return SEPARATOR.join([texts[0], *(text.removeprefix(bos) for text in texts[1:])])

    return [together([*examples[item.language], item.prompt]) for item in items]


def prompts_after(
    shots: ParallelCorpus, prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """What a model is given for bare prompts: examples in one language, then the prompt.

    Raises:
        LensNeuronsError: `shots` is no corpus, or there are no prompts.
        CorpusError: examples in several languages, one without a prompt or a response, or one that
            is asked.
    """
    if isinstance(prompts, str) or not prompts:
        raise LensNeuronsError(f"prompts={prompts!r}: give a list of one text or more")
    fingerprint_of(shots)
    if len(shots.languages) != 1:
        raise CorpusError(
            f"shots has examples in {list(shots.languages)}, and nobody says which language a "
            "prompt is in: select() one language"
        )
    # An id that no corpus has: ids are never empty.
    items = [Item("", shots.languages[0], prompt, "") for prompt in prompts]
    return prompts_of(items, shots, tokenizer)


def require_examples(items: Sequence[Item], shots: ParallelCorpus) -> None:
    """Raise unless a corpus has examples for all items, and none of the items among them.

    Raises:
        CorpusError: a language without examples or with fewer than another, an example without a
            prompt or a response, or one that is asked.
    """
    languages = dict.fromkeys(item.language for item in items)
    count = Counter(item.language for item in shots)
    if lacking := [language for language in languages if not count[language]]:
        raise CorpusError(
            f"shots has no example in {lacking}, only in {list(shots.languages)}: examples stand "
            "in the language of their prompt, so give some for every language"
        )
    numbers = {language: count[language] for language in languages}
    if len(set(numbers.values())) > 1:
        raise CorpusError(
            f"shots has {numbers} examples: languages are compared under the same number of them; "
            "give every language the same"
        )
    used = [item for item in shots if item.language in languages]
    if bare := [item for item in used if not item.prompt.strip() or not item.response.strip()]:
        raise CorpusError(
            f"example {bare[0].id!r} ({bare[0].language}) has no prompt or no response: an example "
            "needs both"
        )
    problems = {mark for item in items for mark in _marks(item)}
    if asked := [item for item in used if problems & _marks(item)]:
        raise CorpusError(
            f"example {asked[0].id!r} ({asked[0].language}) is one of the problems that are asked, "
            "by its prompt or by its id and response, so an answer would stand in a prompt: give "
            "other examples, or select() the problems without them"
        )


def refuse_chats(corpus: ParallelCorpus, shots: ParallelCorpus | None) -> None:
    """Raise where examples would stand before a turn of a chat.

    Raises:
        CorpusError: examples for a corpus that is written in a chat template.
    """
    if shots is not None and corpus.template != "none":
        raise CorpusError(
            "the prompts are turns of a chat, and worked examples would stand before the template: "
            "leave shots= out, or template= (generate() takes both, as one turn of the user)"
        )


def fingerprint_of(shots: Any) -> str:
    """The fingerprint of the examples; empty for None.

    Raises:
        LensNeuronsError: `shots` is no corpus.
        CorpusError: the examples are turns of a chat.
    """
    if shots is not None and not isinstance(shots, ParallelCorpus):
        raise LensNeuronsError(
            f"shots={shown(shots)}: give a ParallelCorpus of worked examples, such as "
            "load_corpus(path).head(3)"
        )
    if shots is not None and shots.template != "none":
        raise CorpusError("the examples are turns of a chat: give them as plain texts")
    return "" if shots is None else shots.fingerprint


def _marks(item: Item) -> set[tuple[str, ...]]:
    """What tells a problem in its language: its prompt, and its id with its response."""
    prompt, response = (" ".join(text.split()) for text in (item.prompt, item.response))
    return {(item.language, prompt), (item.language, item.id, response)}
