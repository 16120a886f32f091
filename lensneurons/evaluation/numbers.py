r"""The number that answers a text, in any digits and with the separators of its language.

The answer is the number behind the answer's marker ("The answer is", ``####``, ``\boxed{}``; see
`lensneurons.evaluation.markers`), and the last number of a text without one. All decimal digits of
Unicode are read (``৫৯``, ``๕๙``, ``٥٩``, ``５９``), and these ways to write a number:

=====================================  ===================================================
``1,234.5`` ``12,34,567.8``            comma groups (by three, or the Indian way), point
``1.234,5`` ``1.234.567``              point groups, comma
``1 234,5`` ``1'234.5`` ``١٬٢٣٤``      groups by a space, ``'``, ``_``, U+066C, ``،``
``1234.5`` ``1234,5`` ``.5``           no groups; point, comma or U+066B before decimals
``9{,}500`` ``1\,234`` ``１，２３４``    LaTeX's and full-width separators
``1.5e3`` ``1.5 × 10^3`` ``2^{10}``    scientific notation, powers (``10³`` too)
``3/4`` ``2 1/2`` ``2½`` ``\frac34``   fractions and mixed numbers
``12:30``                              a time of day, in hours: 12.5
``3万`` ``3 Mio.`` ``$1.2k``           multipliers (`lensneurons.evaluation.multipliers`)
=====================================  ===================================================

**One separator before exactly three digits is decided by the language** of the text:

=================  =========================  ==========  ==========
languages          such as                    ``1.234``   ``1,234``
=================  =========================  ==========  ==========
decimal point      en zh ja th bn sw, others  1.234       1234
decimal comma      de es fr ru (CLDR's list)  1234        1.234
not given                                     1234        1234
=================  =========================  ==========  ==========

It is decimal everywhere after a leading zero (``0.125``), and groups wherever nothing else is
possible (``1,234.5``, ``1.234.567``). A full-width comma groups; where no language is given it does
so only before a group that begins with 0, because it also stands between clauses.

A minus (or an en dash) counts if it stands directly before the number (or its currency sign) and
not after a number, a bracket or a cased letter: ``-5``, ``-$5``, ``负5``, but not ``8-5``,
``8 -5``, ``- 5``, ``B-5``. An exponent of a unit is no number: ``25 m^2``, ``25 m2``.

>>> last_number("38 + 21 = 59. The answer is 1,059.50 dollars."), last_number("উত্তর: ৫৯%")
(1059.5, 59.0)
>>> last_number("3.125 kg", language="en"), last_number("3.125 Dollar", language="de")
(3.125, 3125.0)

What it does not read: numbers in words, Han or Roman numerals, dates, versions, times with units
(``3时30分``, ``3 h 30`` are two numbers). "The answer is fifty-nine" leaves the last number in
digits, and a text without digits has no answer. Words are not read because no rule reads them
alike in ten languages: "one", "un", ``一`` and "ein" are also articles or parts of other words, and
a rule that is surer in one language than in another makes up a difference between them. Percent
and currency signs are ignored.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Literal

import regex

from lensneurons.evaluation.markers import answer_part
from lensneurons.evaluation.multipliers import Read, multiplied

# The published evaluations accept answers within this distance.
TOLERANCE = 1e-2

# Languages whose decimal sign is a comma, and regions that differ from their language (CLDR 45).
DECIMAL_COMMA = frozenset(
    "af az be bg bs ca cs da de el es et eu fi fo fr gl hr hu hy id is it ka kk ky lb lt lv mk nb"
    " nl nn no pl pt ro ru sk sl sq sr sv tr uk uz vi".split()
)
_POINT_REGIONS = frozenset(
    "de-CH de-LI it-CH es-419 es-DO es-GT es-HN es-MX es-NI es-PA es-PE es-PR es-SV es-US".split()
)

_DIGIT = regex.compile(r"\p{Nd}")
_WIDE = regex.compile(r"(?<=[０-９])[．，](?=[０-９])")
_VULGAR = regex.compile(r"(\d)?\s?([¼½¾⅐-⅞])")
_FRACTION = regex.compile(
    r"(?P<before>\d)?\s*\\[dtc]?frac\s*(?:\{\s*(?P<top>\d+)\s*\}|(?P<top>\d))"
    r"\s*(?:\{\s*(?P<bottom>\d+)\s*\}|(?P<bottom>\d))"
)
_LATEX = (
    (r"(?<=\d)\{\s*([.,])\s*\}(?=\d)", r"\1"),
    (r"(?<=\d),?\\!(?=\d)", ","),
    (r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))", "\N{NO-BREAK SPACE}"),
    (r"\\(?:times|cdot)(?![a-zA-Z])", "×"),
)
# The exponent of a unit or a variable, such as m^2, \text{cm}^{3}, (x)^2; and 25 m2.
_EXPONENT = regex.compile(r"(?<=[\p{L})}])\s?\^\s*(?:\{\s*[-−]?\d+\s*\}|[-−]?\d+)")
_UNIT = regex.compile(r"(?<=\d\s?(?:[kcdm]?m|ft|in))[23](?![\d\p{L}]|[.,]\d)")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")

# For texts whose digits were all turned into ASCII's. FULL is a full-width comma with its group.
_NUMBER = r"""
    (?P<minus> (?=[-−－﹣‐‑‒–]) (?<![\p{Lu}\p{Ll}\p{M}_] | [\d)\]}%٪]\s*) . (?:\\?\p{Sc})?
             | 负 | 負 | マイナス )?
    (?:
        (?<!\d) (?: (?P<whole>[1-9]\d{0,2} (?:,\d{3})+)              (?:\.(?P<part>\d+))?
                  | (?P<whole>[1-9]\d?     (?:,\d{2})+ ,\d{3})       (?:\.(?P<part>\d+))?
                  | (?P<whole>[1-9]\d{0,2} (?:\.\d{3})+)             (?:,(?P<part>\d+))?
                  | (?P<whole>[1-9]\d{0,2} (?:[\p{Zs}'’ʼ٬،_]\d{3})+) (?:[.,٫](?P<part>\d+))?
                  | (?P<whole>[1-9]\d{0,2} (?:FULL)+)                (?:\.(?P<part>\d+))?
                ) (?!\d)
      | (?P<whole>\d+) (?:[.,٫](?P<part>\d+))?
      | (?<![\p{L}\d)\]}]) [.](?P<part>\d+)
    )
    """
_ANY_LANGUAGE = regex.compile(_NUMBER.replace("FULL", r"，0\d{2}"), regex.VERBOSE)
_OF_LANGUAGE = regex.compile(_NUMBER.replace("FULL", r"，\d{3}"), regex.VERBOSE)

_BARE = regex.compile(r"\s*-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?\s*")

_POINT_AND_THREE = regex.compile(r"\s*-?[1-9][0-9]{0,2}\.[0-9]{3}\s*")

Decimal = Literal["point", "comma", "unknown"]


def last_number(text: str, *, language: str | None = None) -> float | None:
    """The number that answers a text, so 50 for ``"50 %"``; None if the text has no digit.

    It is the number behind the answer's marker, or the last one of the text; infinite beyond the
    range of a float.

    Args:
        text: what was written.
        language: of the text, as a tag; decides what ``1.234`` is. None: it groups thousands.
    """
    part, pick = answer_part(text)
    numbers = numbers_in(part, language=language)
    return numbers[0 if pick == "first" else -1] if numbers else None


def stated_number(response: str, *, language: str | None = None) -> float | None:
    """The number that answers a problem, from the response of a corpus.

    A response that is nothing but a number is in the notation of programs, whatever its language:
    MGSM writes 2,125 and MSVAMP 8.0 in all of theirs. A point before three digits is left to the
    language: a German 1.000 is a thousand.
    """
    programs = _BARE.fullmatch(response) and not _POINT_AND_THREE.fullmatch(response)
    return last_number(response, language="en" if programs else language)


def numbers_in(text: str, *, language: str | None = None) -> list[float]:
    """Every number of a text that is written in digits, from first to last; see `last_number`."""
    text = _plain(text)
    number = _OF_LANGUAGE if language else _ANY_LANGUAGE
    decimal = decimal_sign(language)
    values, place = [], 0
    while found := number.search(text, place):
        value = _value(found, decimal)
        magnitude, place = _extended(text, found, value, number, decimal, language)
        values.append(-magnitude if found["minus"] else magnitude)
    return values


def decimal_sign(language: str | None) -> Decimal:
    """Whether a language writes a point or a comma before decimals."""
    if not language:
        return "unknown"
    comma = language.split("-")[0] in DECIMAL_COMMA and language not in _POINT_REGIONS
    return "comma" if comma else "point"


def same_number(one: float | None, other: float | None) -> bool:
    """Whether both numbers are there and lie within `TOLERANCE` of one another."""
    return one is not None and other is not None and abs(one - other) <= TOLERANCE


# How a number is read


def _plain(text: str) -> str:
    """The text with ASCII digits, and without LaTeX and the exponents of units."""
    text = _WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0], " ")), text)
    text = _VULGAR.sub(
        lambda found: f"{found[1] or ''} {unicodedata.normalize('NFKC', found[2])}", text
    )
    if "\\" in text or "{" in text or "~" in text:
        text = _FRACTION.sub(
            lambda f: (f["before"] + " " if f["before"] else "") + f"{f['top']}/{f['bottom']}", text
        )
        for found, written in _LATEX:
            text = regex.sub(found, written, text)
    return _UNIT.sub("", _EXPONENT.sub("", text))


def _value(found: Any, decimal: Decimal) -> float:
    """The number without its sign: groups are joined, unless one separator is a decimal sign."""
    whole, part = found["whole"] or "", found["part"]
    digits = "".join(sign for sign in whole if sign.isdecimal())
    marks = [sign for sign in whole if not sign.isdecimal()]
    if not part and marks == ["." if decimal == "point" else ","] and decimal != "unknown":
        return float(whole.replace(",", "."))
    return float(f"{digits or 0}.{part or 0}")


def _extended(
    text: str,
    found: Any,
    value: float,
    number: Any,
    decimal: Decimal,
    language: str | None,
) -> tuple[float, int]:
    """The value with what follows or precedes the number (a power, a fraction), and its end."""
    end = found.end()
    for tail in (_clock, _mixed, _over, _scientific, _power):
        if extended := tail(text, found, value):
            return extended

    def read(place: int) -> Read:
        more = number.match(text, place)
        return (_value(more, decimal), more.end()) if more and not more["minus"] else None

    return multiplied(text, found.span(), value, language, read) or (value, end)


def _integer(found: Any) -> bool:
    return found["part"] is None and str(found["whole"]).isdecimal()


def _clock(text: str, found: Any, value: float) -> Read:
    """``12:30`` in hours."""
    before = text[max(found.start() - 1, 0) : found.start()]
    if not _integer(found) or value > 24 or before in {":", ".", ",", "/"}:
        return None
    time = regex.compile(r"(?<=(?<!\d)\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?![\d:]|[.,]\d)")
    if not (rest := time.match(text, found.end())):
        return None
    return value + int(rest[1]) / 60 + int(rest[2] or 0) / 3600, rest.end()


_OVER = r"(\d+)\s?[/⁄]\s?(\d+)(?![\d/⁄]|[.,]\d)"


def _mixed(text: str, found: Any, value: float) -> Read:
    """``2 1/2``: a whole number and a proper fraction."""
    rest = regex.compile(rf"\p{{Zs}}{_OVER}").match(text, found.end())
    if not rest or not _integer(found) or not 0 < float(rest[1]) < float(rest[2]):
        return None
    return value + float(rest[1]) / float(rest[2]), rest.end()


def _over(text: str, found: Any, value: float) -> Read:
    """``3/4``; a date such as 12/05/2024 is none."""
    begin, end = found.span("whole")
    if not _integer(found) or regex.search(r"[/⁄]\s?$", text[max(begin - 2, 0) : begin]):
        return None
    rest = regex.compile(_OVER).match(text, begin)
    if not rest or not float(rest[2]) or rest.end(1) != end:
        return None
    return value / float(rest[2]), rest.end()


def _scientific(text: str, found: Any, value: float) -> Read:
    """``1.5e3`` and ``1.5 × 10^3``."""
    rest = regex.compile(
        r"[eE](?P<ten>[-+−]?\d{1,5})(?![\p{L}\d])"
        r"|\s?[×xX*·⋅∙]\s?10(?:\s?\^\s?\{?\s?(?P<ten>[-−+]?\d{1,5})\s?\}?|(?P<ten>⁻?[⁰¹²³⁴-⁹]{1,5}))"
    ).match(text, found.end())
    return (value * _raise(10.0, rest["ten"]), rest.end()) if rest else None


def _power(text: str, found: Any, value: float) -> Read:
    """``10^3``, ``2^{10}``, ``10³``."""
    rest = regex.compile(
        r"\s?\^\s?\{?\s?(?P<power>[-−]?\d{1,5})\s?\}?|(?P<power>⁻?[⁰¹²³⁴-⁹]{1,5})"
    ).match(text, found.end())
    return (_raise(value, rest["power"]), rest.end()) if rest else None


def _raise(base: float, power: str) -> float:
    try:
        return float(base) ** int(power.translate(_RAISED))
    except (OverflowError, ZeroDivisionError):
        return float("inf")
