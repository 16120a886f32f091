"""What both views ask of their input, before any forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.models.family import context_length
from lensneurons.models.identity import original_tokenizer
from lensneurons.tokens.characters import TextTokens, group_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_texts(
    model: Any, texts: str | Sequence[str], tokenizer: PreTrainedTokenizerBase | None
) -> list[TextTokens]:
    """Divide one or more texts into tokens and characters, once the model can read them.

    Args:
        model: a TransformerLens model.
        texts: a text, or several.
        tokenizer: by default the model's own, as it was saved.

    Raises:
        LensNeuronsError: there are no texts, or one is empty.
        CorpusError: a text is longer than the model's context, or has ids outside its vocabulary.
        ModelError: the model's tokenizer cannot be read.
    """
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given or not all(given):
        what = f"text {given.index('') + 1} of {len(given)} is empty" if given else "no text"
        raise LensNeuronsError(f"{what}: give a text, or a list of texts, with something in each")
    read = group_tokens(tokenizer or original_tokenizer(model), given)
    for number, one in enumerate(read, start=1):
        _check(model, one, f"text {number} of {len(read)}")
    return read


def label_texts(labels: Sequence[str] | None, number: int) -> tuple[str, ...]:
    """The label of each text; without any, its number, or nothing where there is one text.

    Raises:
        LensNeuronsError: there are not as many labels as texts.
    """
    if labels is None:
        return ("",) if number == 1 else tuple(f"text {place + 1}" for place in range(number))
    given = [labels] if isinstance(labels, str) else list(labels)
    if len(given) != number:
        raise LensNeuronsError(
            f"{len(given)} labels for {number} texts: give one each, such as ['en', 'th']"
        )
    return tuple(given)


def _check(model: Any, read: TextTokens, who: str) -> None:
    if not read.ids:
        raise CorpusError(f"{who} has no tokens: the tokenizer drops all of {read.text!r:.40}")
    if len(read.ids) > (most := context_length(model)):
        raise CorpusError(
            f"{who} has {len(read.ids)} tokens, the context of the model {most}: shorten it"
        )
    if max(read.ids) >= (size := int(model.cfg.d_vocab)):
        raise CorpusError(
            f"the tokenizer gives id {max(read.ids)}, but the model's vocabulary has {size}: "
            "pass the tokenizer that belongs to the model"
        )
