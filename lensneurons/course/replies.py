"""What a check says of an answer, and what became of a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """The reply to an answer.

    Attributes:
        right: whether the answer is right.
        words: why, or what to look at; Markdown.
    """

    right: bool
    words: str

    def __repr__(self) -> str:
        return f"{'✓ Right.' if self.right else '✗ Not yet.'} {self.words}"

    def _repr_markdown_(self) -> str:
        mark = "✓ **Right.**" if self.right else "✗ **Not yet.**"
        return f"{mark} {self.words}"


@dataclass(frozen=True)
class Guess:
    """What was guessed before the number was seen, beside the number."""

    words: str

    def __repr__(self) -> str:
        return self.words

    def _repr_markdown_(self) -> str:
        return self.words


def right(words: str) -> Reply:
    """The answer is right, and why."""
    return Reply(True, words)


def not_yet(words: str) -> Reply:
    """The answer is not right yet, and what to look at."""
    return Reply(False, words)


def compare_guess(guess: Any, known: Any, what: str) -> Guess:
    """Say how a guess and the measured value compare; nobody is told right or wrong.

    Args:
        guess: a number, a word, or None before anything was guessed.
        known: what was measured.
        what: both are, such as ``"layer of the peak"``.
    """
    if guess is None:
        return Guess(f"Write your guess down before you go on: {what}?")
    same = "as you guessed" if guess == known else f"you guessed {guess}"
    return Guess(f"{what[:1].upper()}{what[1:]}: {known}; {same}.")
