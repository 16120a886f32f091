r"""Where a text says its answer: behind ``####``, in ``\boxed{}``, after "The answer is".

A text may go on after its answer ("The answer is 18 dollars. She has had 3 jobs."), and a base
model invents a next problem. So the answer is looked for in this order:

1. What an invented next problem says is left out: all from a line that begins with a word such as
   "Question:" or "Q:", where a number stands before it.
2. The last **marker** that a number follows decides. The number is the first one of its sentence;
   of a calculation ("Answer: 3 + 4 = 7"), the one after the last ``=``.
3. A text without a marker is answered by its last number.

Markers are ``####``, ``\boxed{...}`` and phrases of the languages below, in texts of any language.
A phrase that ends with a colon ("Answer:") counts if the number follows at once; at the beginning
of a text it may head the whole derivation, so there it counts only if its sentence holds one number
and nothing is calculated behind it.

>>> answer_part("The answer is 18 dollars. She has had 3 jobs.")
(' 18 dollars', 'first')
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import regex

Pick = Literal["first", "last"]

# Phrases that state the answer, and words before a colon that do, by language.
PHRASES = {
    "en": r"answer\s+(?:is|was|equals|would\s+be|will\s+be)|answer\s*=",
    "de": r"Antwort\s+(?:ist|lautet|beträgt)",
    "es": r"respuesta\s+(?:final\s+)?(?:es|sería|será)",
    "fr": r"réponse\s+(?:finale\s+)?(?:est|serait|sera)",
    "ru": r"ответ\s*(?:[-–—]|равен|равна|составляет|будет)",
    "sw": r"jibu\s+(?:la\s+mwisho\s+)?(?:ni|litakuwa)",
    "zh": r"答案(?:应该|應該)?(?:是|为|為|等于|等於)",
    "ja": r"答え(?:は|が)|解答は|正解は",
    "th": r"คำตอบ(?:สุดท้าย)?\s*(?:คือ|เป็น)|ตอบว่า",
    "bn": r"উত্তর(?:টি)?\s*(?:হলো|হল|হবে|হচ্ছে)",
}
LABELS = (
    r"answer|result|antwort|ergebnis|respuesta|réponse|ответ|jibu|答案?|答え|解答|คำตอบ|ตอบ|উত্তর"
)
QUESTIONS = (
    r"questions?|problem|exercise|instruction|q|user|human|frage|aufgabe|pregunta|problema|question"
    r"|problème|вопрос|задача|swali|问题|問題|题目|題目|質問|问|問|โจทย์|คำถาม|প্রশ্ন"
)

# Languages without spaces have no letter-free place in front of a phrase.
_UNSPACED = "|".join(PHRASES[language] for language in ("zh", "ja", "th"))
_PHRASE = regex.compile(
    rf"(?<!\p{{L}})(?:{'|'.join(PHRASES.values())})|{_UNSPACED}", regex.IGNORECASE
)
_LABEL = regex.compile(
    rf"(?<![\p{{Lu}}\p{{Ll}}\p{{M}}])(?:{LABELS})\**\s*[:：]\**", regex.IGNORECASE
)
_BOXED = regex.compile(r"\\(?:boxed|fbox)\s*(\{(?:[^{}]|(?1))*\})")
_HASHES = regex.compile(r"####(?!#)")
_NEXT = regex.compile(
    rf"(?:^|\n)[\s*#>]*(?:{QUESTIONS})\s*(?:\d+\s*)?\**\s*[:：]", regex.IGNORECASE
)
# A sentence ends with a line, or with a full stop that is not inside a number.
_END = regex.compile(r"\n|[.!?](?=\s|$)|[。！？।॥]")
_DIGIT = regex.compile(r"\p{Nd}")
_SUM = regex.compile(r"\p{Nd}\s*[-−+*/×·÷]\s*\p{Nd}")
_AT_ONCE = regex.compile(r"[^\p{L}\p{Nd}\n]*\p{Nd}")


def answer_part(text: str) -> tuple[str, Pick]:
    """The part of a text that holds its answer, and whether its first or last number is it."""
    text = _without_next_problem(text)
    found = sorted(_marked(text), key=lambda one: one[0])
    return found[-1][1:] if found else (text, "last")


def _without_next_problem(text: str) -> str:
    """The text up to an invented next problem; a question before any number stays."""
    for found in _NEXT.finditer(text):
        if _DIGIT.search(text, endpos=found.start()):
            return text[: found.start()]
    return text


def _marked(text: str) -> Iterator[tuple[int, str, Pick]]:
    """Of each marker that a number follows: where it stands, what it marks, which number counts."""
    for found in _BOXED.finditer(text):
        if _DIGIT.search(found[1]):
            yield found.start(), found[1][1:-1], "last"
    for marker in (_HASHES, _PHRASE, _LABEL):
        for found in marker.finditer(text):
            said = _sentence(text, found.end())
            if not _DIGIT.search(said):
                continue
            if marker is _LABEL and not _states(text, found.start(), found.end(), said):
                continue
            yield found.start(), *_calculated(said)


def _sentence(text: str, begin: int) -> str:
    """What follows a marker, up to the end of the sentence; empty lines before it are passed."""
    begin += len(regex.match(r"[\s\\\[(*$:：]*", text, pos=begin)[0])  # pyright: ignore
    end = _END.search(text, pos=begin)
    return text[begin - 1 : end.start() if end else len(text)]


def _states(text: str, begin: int, end: int, said: str) -> bool:
    """Whether "Answer:" states a number, and does not head a derivation."""
    if not _AT_ONCE.match(said):
        return False
    if _DIGIT.search(text, endpos=begin):
        return True
    return "=" not in text[end + len(said) :] and len(regex.findall(r"\p{Nd}+", said)) == 1


def _calculated(said: str) -> tuple[str, Pick]:
    """What stands after the last ``=`` of a sentence, if a number does."""
    _, equals, result = said.rpartition("=")
    open_ = not equals or not _DIGIT.search(result) or _SUM.search(result)  # "42 = 6 x 7"
    return (said if open_ else result), "first"
