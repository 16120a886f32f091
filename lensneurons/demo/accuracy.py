"""How often a model solves word problems it has never seen, language by language.

The model writes greedily until ``</s>``; it is right when the last number in its text is the
answer. Nothing is asked of the reasoning, nor of the language it is written in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensneurons.demo.world import LANGUAGES, Problem, generate, render
from lensneurons.demo.world.problems import Split
from lensneurons.errors import choose

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NUMBER = re.compile(r"\d+")
# Tokens that a response may have; worked answers have about 35.
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers of a model in one language.

    Attributes:
        language: its code.
        right: problems whose last number was the answer.
        problems: problems asked.
    """

    language: str
    right: int
    problems: int

    @property
    def share(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.right / self.problems


def measure_accuracy(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    languages: Iterable[str] = LANGUAGES,
    n: int = 100,
    split: Split = "test",
    batch: int = 50,
) -> dict[str, Accuracy]:
    """Let a model solve held-out problems, the same ones in every language.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: its tokenizer.
        languages: codes of the world's languages.
        n: problems a language.
        split: where they come from, ``"test"`` or ``"validation"``.
        batch: problems that are solved at once.

    Returns:
        Language to its accuracy.

    Raises:
        LensNeuronsError: a language is not one of the world's.
    """
    codes = [choose(code, LANGUAGES, "language") for code in languages]
    problems = generate(split, n)
    found = {}
    for code in codes:
        written = write_responses(model, tokenizer, _prompts(problems, code), batch)
        pairs = zip(problems, written, strict=True)
        right = sum(last_number(text) == problem.answer for problem, text in pairs)
        found[code] = Accuracy(code, right, n)
    return found


def _prompts(problems: Iterable[Problem], language: str) -> list[str]:
    return [render(problem, language)[0] for problem in problems]


def last_number(text: str) -> int | None:
    """Read the last number of a text.

    Args:
        text: any text.

    Returns:
        The number, or None where no digit stands in it.
    """
    numbers = _NUMBER.findall(text)
    return int(numbers[-1]) if numbers else None


def write_responses(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], batch: int = 50
) -> list[str]:
    """Let a model answer prompts, greedily.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: its tokenizer; padding goes on the left.
        prompts: what to go on from.
        batch: prompts that are answered at once.

    Returns:
        The text after each prompt, without special tokens, in the order of the prompts.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written = [""] * len(prompts)
    for begin in range(0, len(order), batch):
        rows = order[begin : begin + batch]
        answers = _write_batch(model, tokenizer, [prompts[i] for i in rows])
        for i, answer in zip(rows, answers, strict=True):
            written[i] = answer
    return written


def _write_batch(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> Iterator[str]:
    """Answer one batch of prompts."""
    import torch

    inputs = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    with torch.no_grad():
        ids = model.generate(
            **{name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")},
            max_new_tokens=_LONGEST,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    answers = ids[:, inputs["input_ids"].shape[1] :]
    yield from tokenizer.batch_decode(answers, skip_special_tokens=True)
