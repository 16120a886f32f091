"""Characters and words that multiply a number: ``3万``, ``1万2千``, ``2.5 million``, ``12k``.

    value = sum of number x size, the sizes falling

Han characters multiply in every language. Words multiply in their own language only, because "mil"
is 1000 in Spanish and nothing in English. So do the letters of English: ``12k`` is 12000, and in an
amount of money ``$1.2M`` and ``£3bn`` are millions and billions (``5m`` alone is metres).

Digits that follow a Han multiplier at once are added: ``5万2000`` is 52000. In Chinese a single
digit counts the next lower size, as it is said: ``3万5`` is 35000 and ``3万零5`` is 30005. In other
languages, and where none is given, ``3万5`` is 30005.

What it does not read: numbers that are words altogether, such as "five thousand" or ``五万``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import regex

Read = tuple[float, int] | None  # a number, and where the text goes on

_MONEY = r"(?<=\p{Sc}\s?\d[\d.,]*)"

# Words behind a number that multiply it. Thai has no spaces, so a word that only
# begins like one (พันธุ์) is barred.
MULTIPLIERS = {
    "en": {
        r"thousand|(?<=\d)k": 1e3,
        rf"million|{_MONEY}m": 1e6,
        rf"billion|{_MONEY}bn?": 1e9,
        "trillion": 1e12,
    },
    "de": {"tausend": 1e3, "millionen|million|mio\\.?": 1e6, "milliarden?|mrd\\.?": 1e9},
    "es": {"mil": 1e3, "millones|millón": 1e6},
    "fr": {"mille": 1e3, "millions?": 1e6, "milliards?": 1e9},
    "ru": {
        "тысяч[аиу]?|тыс\\.?": 1e3,
        "миллион(?:а|ов)?|млн\\.?": 1e6,
        "миллиард(?:а|ов)?|млрд\\.?": 1e9,
    },
    "bn": {"হাজার": 1e3, "লক্ষ|লাখ": 1e5, "কোটি": 1e7},
    "th": {"พัน(?!ธ)": 1e3, "หมื่น": 1e4, "แสน": 1e5, "ล้าน": 1e6},
}
# Swahili puts them in front: "elfu 5" is 5000.
IN_FRONT = {"elfu": 1e3, "laki": 1e5, "milioni": 1e6, "bilioni": 1e9}
_SMALL = {"十": 10, "百": 100, "千": 1000}
_LARGE = {"万": 1e4, "萬": 1e4, "億": 1e8, "亿": 1e8, "兆": 1e12}

# Kilogram and kilometre are 千克 and 千米; 百分 begins "percent".
_HAN = regex.compile(
    r"\s?(?P<small>千(?![克米瓦卡焦赫帕伏字]|グラム|メートル)|百(?!分)|十)?(?P<large>[万萬億亿兆])?"
)


def multiplied(
    text: str,
    span: tuple[int, int],
    value: float,
    language: str | None,
    read: Callable[[int], Read],
) -> Read:
    """Multiply a number by the characters or words around it.

    Args:
        text: with ASCII digits.
        span: where the number stands in it.
        value: the number.
        language: of the text; without it only Han characters multiply.
        read: reads a number at a place of the text.

    Returns:
        The value and its end; None where nothing multiplies it.
    """
    own = (language or "").split("-")[0]
    if found := _han(text, span[1], value, read, spoken=own == "zh"):
        return found
    if own == "sw":
        front = _FRONT.search(text, endpos=span[0])
        return (value * IN_FRONT[front[1].lower()], span[1]) if front else None
    if own not in MULTIPLIERS:
        return None
    words, total, scale, end = _words(own), 0.0, float("inf"), 0
    place = span[1]
    while (word := words.match(text, place)) and (size := _size(word)) < scale:
        total, scale, end = total + value * size, size, word.end()
        more = read(end + text[end : end + 1].isspace())
        if more is None:
            break
        value, place = more
    return (total, end) if end else None


_FRONT = regex.compile(rf"(?<!\p{{L}})({'|'.join(IN_FRONT)})\s$", regex.IGNORECASE)


@lru_cache
def _words(language: str) -> Any:
    """The words of a language behind a number, each in a group named after its size."""
    behind = "" if language in {"th", "bn"} else r"(?![\p{L}\p{M}])"
    said = "|".join(f"(?P<x{size:.0f}>(?:{word}))" for word, size in MULTIPLIERS[language].items())
    return regex.compile(rf"[\s-]?(?:{said}){behind}", regex.IGNORECASE)


def _size(word: Any) -> float:
    return float(str(word.lastgroup)[1:])


def _han(text: str, end: int, value: float, read: Callable[[int], Read], *, spoken: bool) -> Read:
    """The sum of numbers, each with its Han multipliers, and of digits that follow the last."""
    total, scale, place = 0.0, float("inf"), end
    while True:
        sign = _HAN.match(text, place)
        size = _han_size(sign)
        if value * size >= scale:  # belongs to another number
            break
        if size == 1:
            # A digit at once behind a size, unlike one behind a zero: 3万5, but 3万零5.
            lower = scale / 10 if spoken and total and place == end + 1 else 1
            return (total + value * lower, place) if total else None
        total, scale, end = total + value * size, size, sign.end() if sign else end
        more = read(end + (text[end : end + 1] in {"零", "〇"}))
        if more is None:
            break
        value, place = more
    return (total, end) if scale < float("inf") else None


def _han_size(sign: Any) -> float:
    small, large = (sign["small"], sign["large"]) if sign else (None, None)
    return float(_SMALL.get(small or "", 1) * _LARGE.get(large or "", 1))
