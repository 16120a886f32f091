"""How other evaluations judge an answer, written anew from what they say they do.

**lm-evaluation-harness, MGSM.** Two filters. *flexible*: the last match of a number of ASCII digits
with points, commas and a dollar sign (``-?[$0-9.,]{2,}`` or ``-?[0-9]+``). *strict*: what follows
"The answer is" of the language, or ``####``. Either is compared with the expected number as a
string, without punctuation and case, so 3.5 and 35 are the same and a sign does not count.

**MathOctopus.** The last unsigned number, after commas between digits are dropped; zeros that end
its decimals are dropped, and it is compared as a float within 0.01.

    python tests/support/answer_rules.py        # how many of the answers each rule gets right
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

from answer_table import ROWS

from lensneurons.evaluation.numbers import TOLERANCE, last_number, same_number

STATED = {
    "en": "The answer is",
    "de": "Die Antwort (?:lautet|ist)",
    "es": "La respuesta es",
    "fr": "La réponse est",
    "ru": "Ответ —",
    "zh": "答案是",
    "ja": "答えは",
    "th": "คำตอบคือ",
    "bn": "উত্তর (?:হলো|হল)",
    "sw": "Jibu ni",
}


def written(value: float) -> str:
    """A number as a data set has it."""
    return f"{value:.0f}" if value == int(value) else str(value)


def _same_string(found: str, value: float) -> bool:
    bare = str.maketrans("", "", string.punctuation)
    return found.translate(bare).lower() == written(value).translate(bare).lower()


def harness_flexible(text: str, language: str, value: float) -> bool:
    """Whether the last number is the expected one, as strings without punctuation."""
    found = list(re.finditer(r"-?[$0-9.,]{2,}|-?[0-9]+", text))
    return bool(found) and _same_string(found[-1][0], value)


def harness_strict(text: str, language: str, value: float) -> bool:
    """Whether the number behind "The answer is" or ``####`` is the expected one."""
    found = re.search(rf"(?:{STATED[language]}|####)\s*(-?[0-9.,]+)", text)
    return found is not None and _same_string(found[1], value)


def without_extra_zeros(number: str) -> float:
    """3 for "3.00", 2.5 for "2.50"."""
    return float(number.rstrip("0").rstrip(".") if "." in number else number)


def math_octopus(text: str, language: str, value: float) -> bool:
    """Whether the last unsigned number is the expected one, within 0.01."""
    joined = re.sub(r"(?<=\d),(?=\d)", "", text)
    found = re.findall(r"\d+(?:\.\d+)?", joined)
    return bool(found) and abs(without_extra_zeros(found[-1]) - value) < TOLERANCE


def ours(text: str, language: str, value: float) -> bool:
    """Whether `last_number` is the expected number."""
    return same_number(last_number(text, language=language), float(value))


RULES: dict[str, Callable[[str, str, float], bool]] = {
    "lensneurons": ours,
    "harness, flexible": harness_flexible,
    "harness, strict": harness_strict,
    "MathOctopus": math_octopus,
}


def count_right() -> dict[str, dict[str, int]]:
    """For each rule and language how many answers it judges right; "all" is their sum."""
    table: dict[str, dict[str, int]] = {}
    for name, rule in RULES.items():
        right = dict.fromkeys(dict.fromkeys(language for language, _, _ in ROWS), 0)
        for language, text, value in ROWS:
            right[language] += rule(text, language, value)
        table[name] = {"all": sum(right.values()), **right}
    return table


if __name__ == "__main__":
    counts = count_right()
    columns = list(counts["lensneurons"])
    sizes = {tag: sum(language == tag for language, _, _ in ROWS) for tag in columns}
    lines = [("rule", *columns), ("answers", *({**sizes, "all": len(ROWS)}.values()))]
    lines += [(name, *row.values()) for name, row in counts.items()]
    for line in lines:
        print(f"{line[0]:20}" + "".join(f"{cell!s:>5}" for cell in line[1:]))
