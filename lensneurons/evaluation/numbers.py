"""The last number of a text, in any digits and with any separators.

The answer to a word problem is the last number of the text. All decimal digits of Unicode are read
(``৫৯``, ``๕๙``, ``٥٩``, ``５９``), and these ways to write a number:

=================================  =======================================================
``1,234.5`` ``12,34,567.8``        comma groups (by three, or the Indian way), point
``1.234,5`` ``1.234.567``          point groups, comma
``1 234,5`` ``1'234.5`` ``١٬٢٣٤``  groups by a space of any width, an apostrophe, U+066C
``1234.5`` ``1234,5`` ``.5``       no groups; point, comma or U+066B before the decimals
=================================  =======================================================

**One separator before exactly three digits groups thousands**, whether it is a comma or a point:
``1,234`` and ``1.234`` are 1234 (German problems of MGSM write 50.000, English ones 50,000). It is
a decimal separator only after a leading zero: ``0.125``. So 3.125 is read as 3125; do not use this
reader for answers with three decimals.

A minus counts if it stands directly before the number (or its currency sign) and not after a
number, a bracket or a cased letter: ``-5``, ``-$5``, but not ``8-5``, ``8 -5``, ``- 5``, ``B-5``.

>>> last_number("38 + 21 = 59. The answer is 1,059.50 dollars."), last_number("উত্তর: ৫৯%")
(1059.5, 59.0)

What it does not read: numbers in words, Han or Roman numerals; fractions (``3/4`` is 4), powers
(``10^3`` is 3), times of day, dates, versions. Percent and currency signs are ignored.
"""

from __future__ import annotations

import unicodedata

import regex

# The published evaluations accept answers within this distance.
TOLERANCE = 1e-2

_DIGIT = regex.compile(r"\p{Nd}")
_WIDE = regex.compile(r"(?<=[０-９])[．，](?=[０-９])")
# For texts whose digits were all turned into ASCII's.
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
    """The last number of a text as written, so 50 for ``"50 %"``; None if the text has no digit.

    It is infinite beyond the range of a float.
    """
    return next(reversed(numbers_in(text)), None)


def numbers_in(text: str) -> list[float]:
    """Every number of a text that is written in digits, from first to last; see `last_number`."""
    text = _WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0], " ")), text)
    numbers = []
    for found in _NUMBER.finditer(text):
        whole = "".join(sign for sign in found["whole"] or "" if sign.isdecimal())
        value = float(f"{whole or 0}.{found['part'] or 0}")
        numbers.append(-value if found["minus"] else value)
    return numbers


def same_number(one: float | None, other: float | None) -> bool:
    """Whether both numbers are there and lie within `TOLERANCE` of one another."""
    return one is not None and other is not None and abs(one - other) <= TOLERANCE
