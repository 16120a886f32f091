"""Chats: prompts as the user's turn of a model's own chat template, responses as the assistant's.

A model that was tuned on chats reads a bare question as it never did in training. So each prompt is
written into the template that its tokenizer brings, up to where the assistant begins:

    prompt     <|user|>2 + 3 = ?<|end|><|assistant|>       rendered, never counted
    response   5                                           counted, exactly these tokens

    ready = ln.prepare(model, corpus, template="chat", system="Answer in the language asked in.")
    ln.collect(model, ready); ln.accuracy(model, ready)    # every function takes it
    ln.generate(model, ["2 + 3 = ?"], template="chat")

What is a chat corpus? A plain corpus with other prompts: `chat_corpus` gives it, for functions that
take no prepared one. Its fingerprint is that of the rendered texts.

* The generation prompt (the head of the assistant's turn) is part of the prompt, not counted.
* The end of the assistant's turn is neither read nor counted: it stands behind all counted tokens,
  and a causal model never looks to the right.
* A BOS that the template writes is left to a tokenizer that adds one, so the model reads one.
* The hash of the template and the system prompt are in the provenance.

What it does not settle: a template that writes the day's date gives another corpus every day; one
that writes no BOS is read with one where the tokenizer adds it; turns before the last are not
rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError
from lensneurons.models.identity import first_sentence, original_tokenizer
from lensneurons.options import plain_options

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat"]


@plain_options
def chat_corpus(
    model: Any,
    corpus: ParallelCorpus,
    *,
    system: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> ParallelCorpus:
    """The corpus whose prompts are turns of the user in the model's own chat template.

    Args:
        model: a TransformerLens model, whose tokenizer has the template.
        corpus: texts with prompts; the responses stay as they are.
        system: what the system's turn says; None for whatever the template writes without one.
        tokenizer: None for the model's own, as it was saved.

    Raises:
        ModelError: the tokenizer has no chat template, or it fails (many refuse a system prompt).
        CorpusError: an item without a prompt, or a corpus whose prompts are rendered already.
    """
    if corpus.template != "none":
        raise CorpusError(f"the prompts of {corpus!r} are turns of a chat already")
    if empty := next((item for item in corpus if not item.prompt.strip()), None):
        raise CorpusError(
            f"{empty.id!r} ({empty.language}) has no prompt, so the user would say nothing: a chat "
            "needs prompts; leave template= out for plain texts"
        )
    own = tokenizer or original_tokenizer(model)
    prompts = chat_prompts(own, [item.prompt for item in corpus], system=system)
    items = (replace(item, prompt=new) for item, new in zip(corpus, prompts, strict=True))
    return replace(corpus, items=tuple(items), template=template_hash(own, system))


def chat_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, system: str | None = None
) -> list[str]:
    """Each prompt as the user's turn, up to the beginning of the assistant's.

    Raises:
        ModelError: the tokenizer has no chat template, or it fails.
    """
    _require_template(tokenizer)
    before = [] if system is None else [{"role": "system", "content": system}]
    try:
        rendered = [
            str(
                tokenizer.apply_chat_template(
                    [*before, {"role": "user", "content": prompt}],
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
            for prompt in prompts
        ]
    except Exception as error:  # a template raises whatever its author wrote
        advice = "" if system is None else "; many templates know no system prompt: leave it out"
        name, told = tokenizer.name_or_path, first_sentence(error)
        raise ModelError(f"the chat template of {name!r} fails: {told}{advice}") from error
    bos = tokenizer.bos_token
    adds = bos is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return [text.removeprefix(str(bos)) if adds else text for text in rendered]


def template_hash(tokenizer: PreTrainedTokenizerBase, system: str | None) -> str:
    """SHA-256 (64 hex digits) of the chat template and the system prompt."""
    parts = repr((tokenizer.chat_template, system))
    return sha256(b"lensneurons chat 1\n" + parts.encode()).hexdigest()


def _require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template, as those of base "
            "models have none: leave template= out, or take the chat version of the model"
        )


def refuse_system_alone(template: str | None, system: str | None) -> None:
    """Raise if a system prompt is given without a template to write it.

    Raises:
        LensNeuronsError: `template` is unknown, or `system` needs it.
    """
    if template not in (None, "chat"):
        raise LensNeuronsError(f"template={template!r}: give 'chat', or leave it out")
    if system is not None and template is None:
        raise LensNeuronsError("system= needs template='chat': plain texts have no system prompt")
