r"""Texts that something else than the model here writes: a server, an API, a file of answers.

    writer(prompts) -> texts        one text a prompt, in their order

Writing takes a token at a time, and a serving engine such as vLLM does it many times faster than a
loop over a TransformerLens model. Counting needs every activation and stays here. So `respond` and
`accuracy` take any callable that writes texts, and their provenance names it:

>>> from openai import OpenAI                                            # doctest: +SKIP
>>> server = OpenAI(base_url="http://localhost:8000/v1", api_key="none")  # doctest: +SKIP
>>> def by_vllm(prompts):                     # vllm serve Qwen/Qwen3-0.6B-Base  # doctest: +SKIP
...     answer = server.completions.create(
...         model="Qwen/Qwen3-0.6B-Base", prompt=list(prompts), max_tokens=256, temperature=0
...     )
...     return [choice.text for choice in sorted(answer.choices, key=lambda one: one.index)]
>>> ln.accuracy(model, corpus, writer=by_vllm, stop=["\n\n"])              # doctest: +SKIP

How it decodes is the writer's own matter, so options such as `temperature` are refused beside it;
`stop` cuts its texts. `respond` gives it each prompt as often as it wants samples, so it has to
draw. Its model should be the one that is given here: nothing can check that.

What it does not tell: how many tokens a text has, and whether it ended by itself. Texts count as
finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lensneurons.errors import LensNeuronsError, shown
from lensneurons.evaluation.generation import Decoding, Response
from lensneurons.models.views import has_hooks
from lensneurons.values.provenance import Provenance

Writer = Callable[[Sequence[str]], Sequence[str]]
# What a writer decides itself, and what stands there where nobody gave it.
OWN = {"max_new_tokens": (None,), "temperature": (0.0, 1.0), "seed": (0,), "engine": ("local",)}


def writer_name(writer: Writer) -> str:
    """What a writer is called: the name of the function, or of the class of the object."""
    return str(getattr(writer, "__qualname__", None) or type(writer).__qualname__)


def require_writer(writer: Writer, model: Any, **options: Any) -> None:
    """Raise unless something can write in place of a model, and was given nothing that is its own.

    Args:
        writer: the callable.
        model: whose texts they stand for.
        options: those of `OWN`, as they were given.

    Raises:
        LensNeuronsError: it cannot be called; an option is the writer's own; or there are hooks on
            the model, which would not act.
    """
    if not callable(writer):
        raise LensNeuronsError(
            f"writer={shown(writer)} cannot be called: give a function from a list of prompts to "
            "the list of their texts"
        )
    for name, value in options.items():
        if value not in OWN[name]:
            raise LensNeuronsError(
                f"{name}={shown(value)}: the writer decides that itself; leave it out here"
            )
    if has_hooks(model):
        raise LensNeuronsError(
            "there are hooks on the model, which do not act on what a writer writes: let the model "
            "write, without writer="
        )


def decoding_of(writer: Writer, decoding: Decoding) -> Decoding:
    """How a writer writes: what is known of it are its name, the stop strings and the examples."""
    return Decoding(stop=decoding.stop, shots=decoding.shots, writer=writer_name(writer))


def provenance_of(writer: Writer, provenance: Provenance) -> Provenance:
    """The provenance of texts that a writer wrote."""
    return replace(provenance, interventions=f"texts by the writer {writer_name(writer)}")


def written_by(writer: Writer, prompts: Sequence[str], decoding: Decoding) -> list[Response]:
    """Let a writer write, and cut its texts at the stop strings.

    Raises:
        LensNeuronsError: it gives another number of texts, or something that is no text.
    """
    given = writer(list(prompts))
    texts = [given] if isinstance(given, str) else list(given)
    name = writer_name(writer)
    if isinstance(given, str) or len(texts) != len(prompts):
        raise LensNeuronsError(
            f"writer {name} gave {'one str' if isinstance(given, str) else f'{len(texts)} texts'} "
            f"for {len(prompts)} prompts: return a list with one text a prompt, in their order"
        )
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise LensNeuronsError(
                f"writer {name} gave {shown(text)} for prompt {place}: return texts alone"
            )
    cut = [(text, decoding.cut(text)) for text in texts]
    return [Response(text if before is None else before, True, 0) for text, before in cut]
