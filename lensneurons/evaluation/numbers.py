"""The last number of a text, in whatever digits and with whatever separators it is written.

A word problem is answered by the last number of the text. Any decimal digits of Unicode are read
(``৫৯``, ``๕๙``, ``٥٩``, ``５９``), and these ways to write a number:

=================================  =======================================================
``1,234.5`` ``12,34,567.8``        comma groups (by three, or the Indian way), point
``1.234,5`` ``1.234.567``          point groups, comma
``1 234,5`` ``1'234.5`` ``١٬٢٣٤``  groups by a space of any width, an apostrophe, U+066C
``1234.5`` ``1234,5`` ``.5``       no groups; point, comma or U+066B before the decimals
=================================  =======================================================

**One separator before exactly three digits groups thousands**, whether it is a comma or a point:
``1,234`` and ``1.234`` are 1234 (German problems of MGSM write 50.000, English ones 50,000). Only
after a leading zero it is a decimal one: ``0.125``. So 3.125 is read as 3125: where answers have
three decimals, this reader is not for them.

A minus counts where it stands directly before the number (or its currency sign) and not after a
number, a bracket or a cased letter: ``-5``, ``-$5``, but not ``8-5``, ``8 -5``, ``- 5``, ``B-5``.

>>> last_number("38 + 21 = 59. The answer is 1,059.50 dollars."), last_number("উত্তর: ৫৯%")
(1059.5, 59.0)

What it does not read: numbers in words, Han or Roman numerals; fractions (``3/4`` is 4), powers
(``10^3`` is 3), times of day, dates, versions. Percent and currency signs are left aside.
"""

from __future__ import annotations

import unicodedata

import regex

# Right answers of the published evaluations lie within this of the answer.
TOLERANCE = 1e-2

_DIGIT = regex.compile(r"\p{Nd}")
_WIDE = regex.compile(r"(?<=[０-９])[．，](?=[０-９])")
_WIDE_MARKS = {"．": ".", "，": ","}
# Read after `_plain_digits`, which leaves no digits but ASCII's.
_NUMBER = regex.compile(
    r"""
    (?P<minus> (?=[-−－﹣]) (?<![\p{Lu}\p{Ll}\p{M}_] | [\d)\]}%٪]\s*) . (?:\\?\p{Sc})? )?
    (?:
        (?<!\d) (?: (?P<whole>[1-9]\d{0,2} (?:,\d{3})+)           (?:\.(?P<part>\d+))?
                  | (?P<whole>[1-9]\d?     (?:,\d{2})+ ,\d{3})    (?:\.(?P<part>\d+))?
                  | (?P<whole>[1-9]\d{0,2} (?:\.\d{3})+)          (?:,(?P<part>\d+))?
                  | (?P<whole>[1-9]\d{0,2} (?:[\p{Zs}'’٬]\d{3})+) (?:[.,٫](?P<part>\d+))?
                ) (?!\d)
      | (?P<whole>\d+) (?:[.,٫](?P<part>\d+))?
      | (?<![\p{L}\d)\]}]) [.](?P<part>\d+)
    )
    """,
    regex.VERBOSE,
)


def last_number(text: str) -> float | None:
    """Return the last number of a text, or None where no digit stands in it.

    Args:
        text: any text.

    Returns:
        The number as written, so 50 for ``"50 %"``; infinite beyond the range of a float.
    """
    return next(reversed(numbers_in(text)), None)


def numbers_in(text: str) -> list[float]:
    """Return every number of a text that is written in digits, in its order.

    Args:
        text: any text.

    Returns:
        The numbers as `last_number` reads them.
    """
    return [_value(found) for found in _NUMBER.finditer(_plain_digits(text))]


def _value(found: regex.Match[str]) -> float:
    whole = _digits(found["whole"]) or "0"
    value = float(f"{whole}.{found['part'] or 0}")
    return -value if found["minus"] else value


def same_number(one: float | None, other: float | None) -> bool:
    """Whether two numbers are there and lie within `TOLERANCE` of one another."""
    return one is not None and other is not None and abs(one - other) <= TOLERANCE


def _plain_digits(text: str) -> str:
    """The text with all decimal digits, and the marks between full-width ones, as in ASCII."""
    text = _WIDE.sub(lambda found: _WIDE_MARKS[found[0]], text)
    return _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0], " ")), text)


def _digits(whole: str | None) -> str:
    return "".join(sign for sign in whole or "" if sign.isdecimal())
