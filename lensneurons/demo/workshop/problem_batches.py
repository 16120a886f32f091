"""Training batches from the world: those of a step depend on its number and the recipe alone.

A training can therefore resume at any step without a state of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from lensneurons.demo.workshop.recipe import Recipe
from lensneurons.demo.world import LANGUAGES, find_language, generate, render
from lensneurons.demo.world.meetings import meet
from lensneurons.demo.world.problems import (
    LONG_FAMILIES,
    Problem,
    Step,
    sample_problem,
    work_out,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Text:
    """One problem or drill: ``<s>``, the prompt, the response and ``</s>`` in tokens.

    Attributes:
        ids: of the tokens.
        weights: of each token in the loss; 0 for ``<s>``.
        language: that of the response; empty for drills of arithmetic, which are in none.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    language: str


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Some texts of similar length, padded on the right.

    Attributes:
        ids: int64 [text, position].
        weight: float32 [text, position], weight in the loss: 0 for padding and for ``<s>``.
        charge: float32 [text, position], weight in the sparsity penalty: 0 for padding.
    """

    ids: np.ndarray
    weight: np.ndarray
    charge: np.ndarray


def encode_problems(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[tuple[str, str, str]],
    *,
    prompt_weight: float = 0.0,
) -> list[Text]:
    """Encode problems (language, prompt, response) as the model reads them.

    A prompt token weighs `prompt_weight` in the loss; a response token weighs 1.
    """
    codes, prompts, responses = zip(*texts, strict=True)
    before = tokenizer(list(prompts))["input_ids"]
    after = tokenizer(list(responses), add_special_tokens=False)["input_ids"]
    end: Any = tokenizer.eos_token_id
    return [
        Text(
            (*prompt, *response, end),
            (0.0, *[prompt_weight] * (len(prompt) - 1), *[1.0] * (len(response) + 1)),
            code,
        )
        for code, prompt, response in zip(codes, before, after, strict=True)
    ]


def encode_drill(tokenizer: PreTrainedTokenizerBase, equations: Iterable[Step]) -> Text:
    """Encode equations, one a line, as a text of no language; only their results have weight."""
    lines = ((f"{e.left} {e.sign} {e.right}", str(e.result)) for e in equations)
    return _encode_lines(tokenizer, lines, "")


def draw_word_drill(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rng: Random) -> Text:
    """Draw number words and digits of one language, as many lines as a drill has equations.

    Half of the numbers are below 100. Every second line goes from the digits to the words.
    """
    language = find_language(rng.choice(LANGUAGES))
    lines: list[tuple[str, str]] = []
    for line in range(recipe.drill_equations):
        number = rng.randint(2, rng.choice((99, 999)))
        word, digits = language.spell(number), str(number)
        lines.append((word, digits) if line % 2 == 0 else (digits, word))
    return _encode_lines(tokenizer, lines, language.code)


def _encode_lines(
    tokenizer: PreTrainedTokenizerBase, lines: Iterable[tuple[str, str]], language: str
) -> Text:
    """Encode lines ``left = right``; only what is right of the sign has weight."""
    begin: Any = tokenizer.bos_token_id
    ids, weights = [begin], [0.0]
    for left, right in lines:
        for part, weight in ((f"{left} =", 0.0), (f" {right}\n", 1.0)):
            tokens: Any = tokenizer(part, add_special_tokens=False)["input_ids"]
            ids += tokens
            weights += [weight] * len(tokens)
    return Text(tuple(ids), tuple(weights), language)


def draw_step(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, step: int) -> list[Text]:
    """Draw the texts of a step, counted from 0: problems in one language or two, and drills."""
    rng = Random(f"{recipe.seed}:{step}")
    codes = rng.choices(list(recipe.shares), list(recipe.shares.values()), k=recipe.items)
    training = _draw_training(recipe, rng)
    texts = [_write_text(recipe, next(training), code, rng) for code in codes]
    drills = recipe.drill_texts if step >= recipe.drills_from else 0
    equations = (one for p in training for one in work_out(p.family, p.numbers))
    encoded = encode_problems(tokenizer, texts, prompt_weight=recipe.prompt_weight)
    for _ in range(drills):
        encoded.append(encode_drill(tokenizer, islice(equations, recipe.drill_equations)))
    encoded += [draw_word_drill(recipe, tokenizer, rng) for _ in range(recipe.word_drills)]
    return encoded


def _draw_training(recipe: Recipe, rng: Random) -> Iterator[Problem]:
    """Draw problems of the training split without end."""
    while True:
        long = recipe.long_share > 0 and rng.random() < recipe.long_share
        problem = sample_problem(rng, LONG_FAMILIES) if long else sample_problem(rng)
        if problem.split == "train":
            yield problem


def _write_text(recipe: Recipe, problem: Problem, code: str, rng: Random) -> tuple[str, str, str]:
    """Write a problem that is asked in a language: language of the response, prompt, response.

    Whatever a recipe does not use draws nothing from `rng`, so that recipes without it keep their
    texts.
    """
    meeting = ""
    if recipe.meetings:
        alone = 1 - sum(recipe.meetings.values())
        [meeting] = rng.choices(["", *recipe.meetings], [alone, *recipe.meetings.values()])
    others = {other: share for other, share in recipe.shares.items() if other != code}
    other = rng.choices(list(others), list(others.values()))[0] if meeting else code
    spoken = code if meeting == "switch" else other
    share = recipe.worked.get(spoken, 1.0)
    worked = share == 1 or rng.random() < share
    if not meeting:
        return code, *render(problem, code, worked=worked)
    return spoken, *meet(problem, meeting, (code, other), worked=worked)  # pyright: ignore[reportArgumentType]


def draw_held_out(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, language: str) -> list[Text]:
    """Write the recipe's validation problems in a language; they are the same in every language."""
    problems = generate("validation", recipe.validation_items)
    return encode_problems(tokenizer, ((language, *render(p, language)) for p in problems))


def make_batches(
    texts: Iterable[Text], recipe: Recipe, tokenizer: PreTrainedTokenizerBase
) -> Iterator[TextBatch]:
    """Divide texts into batches of similar length, every text once, padded as the tokenizer does.

    A batch has at most ``recipe.micro_tokens`` tokens, or a single text. What a token of each
    language is charged for its active neurons follows from the recipe and is 1 on average.
    """
    balance = recipe.sparsity_balance
    charges = {code: max(share, 1e-6) ** -balance for code, share in recipe.shares.items()}
    mean = sum(recipe.shares[code] * charge for code, charge in charges.items())
    charges = {code: charge / mean for code, charge in charges.items()}
    pad: Any = tokenizer.pad_token_id
    rows: list[Text] = []
    for text in sorted(texts, key=lambda text: len(text.ids)):
        if rows and (len(rows) + 1) * len(text.ids) > recipe.micro_tokens:
            yield _pad(rows, charges, pad)
            rows = []
        rows.append(text)
    if rows:
        yield _pad(rows, charges, pad)


def _pad(rows: list[Text], charges: dict[str, float], pad: int) -> TextBatch:
    """Lay texts side by side. Drills, in no language, are charged 1 a token."""
    shape = len(rows), max(len(row.ids) for row in rows)
    ids = np.full(shape, pad, np.int64)
    weight, charge = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        weight[i, : len(row.ids)] = row.weights
        charge[i, : len(row.ids)] = charges.get(row.language, 1.0)
    return TextBatch(ids, weight, charge)
