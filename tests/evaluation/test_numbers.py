"""The last number of a text, however it is written."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensneurons.evaluation.numbers import last_number, same_number

# The zeros of some scripts: Unicode's decimal digits follow their zero.
ZEROS = {
    "Latin": "0",
    "full-width": "０",
    "Bengali": "০",
    "Thai": "๐",
    "Arabic-Indic": "٠",
    "Persian": "۰",
    "Devanagari": "०",
    "mathematical bold": "𝟎",
}


def write(text, script):
    """A text with its ASCII digits in another script."""
    zero = ord(ZEROS[script])
    return "".join(chr(zero + int(sign)) if sign.isascii() and sign.isdigit() else sign
                   for sign in text)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("38 + 21 = 59", 59),
        ("The answer is 59.", 59),
        ("答案是五十九（59）。", 59),
        ("Nothing here.", None),
        ("", None),
        ("五十九 XII m² ①", None),
        # digits
        ("উত্তর হলো ৫৯টি", 59),
        ("คำตอบคือ ๕๙", 59),
        ("الجواب ٥٩", 59),
        ("جواب ۵۹", 59),
        ("答えは５９です", 59),
        ("answer: 𝟓𝟗", 59),
        ("৫9", 59),
        # thousands and decimals
        ("1,234", 1234),
        ("1,234.5", 1234.5),
        ("12,345,678.25", 12345678.25),
        ("12,34,567", 1234567),
        ("১২,৩৪,৫৬৭.৫", 1234567.5),
        ("1.234,5", 1234.5),
        ("50.000 Dollar", 50000),
        ("1.234.567", 1234567),
        ("1 234", 1234),
        ("1\u00a0234,50 €", 1234.5),
        ("1\u202f234\u202f567", 1234567),
        ("1'234.5", 1234.5),
        ("1’234", 1234),
        ("٥٬٣٠٠", 5300),
        ("١٬٢٣٤٫٥", 1234.5),
        ("٣٫١٢٥", 3.125),
        ("５，３００．５", 5300.5),
        ("0.125", 0.125),
        ("0,125", 0.125),
        ("3.125", 3125),  # one separator before three digits groups thousands
        ("3,5", 3.5),
        ("12.50", 12.5),
        ("1,2345", 1.2345),
        ("it costs .5", 0.5),
        ("100,00", 100),
        # what is no separator
        ("in 2019 500 came", 500),
        ("1, 2, 3", 3),
        ("1,2,3", 3),
        ("5，300", 300),  # a Chinese comma between clauses
        ("59.\n\n100 000", 100000),
        ("59\n000", 0),
        # signs, currencies, percent
        ("-5", -5),
        ("it is −5 degrees", -5),
        ("＝－５", -5),
        ("-$1,234.50", -1234.5),
        (r"\$-5", -5),
        ("-€5", -5),
        ("答案是-5", -5),
        ("(-3)", -3),
        ("50 %", 50),
        ("৫০%", 50),
        ("$59.00", 59),
        ("8-5", 5),
        ("8 -5", 5),
        ("(8) - 5", 5),
        ("- 5", 5),
        ("10–15", 15),
        ("COVID-19", 19),
        # not read as what they are
        ("3/4", 4),
        ("12.05.2024", 2024),
        (r"\boxed{18}", 18),
    ],
)  # fmt: skip
def test_last_number(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize("script", ZEROS)
@given(
    number=st.integers(-(10**12), 10**12),
    style=st.sampled_from(["{}", "{:,}", "= {:,}.", "x {:,} y", "（{}）", "${:,}.00"]),
)
def test_integers_come_back_in_every_script(number, style, script):
    assert last_number(write(style.format(number), script)) == number


@given(st.integers(0, 10**9), st.sampled_from([".", " ", "\u00a0", "\u202f", "'", "٬"]))
def test_thousands_come_back_with_every_separator(number, separator):
    assert last_number(f"{number:,}".replace(",", separator)) == number


@given(st.decimals(0, 10**6, places=2), st.sampled_from(["{:,}", "{}"]))
def test_decimals_come_back_with_point_and_comma(number, style):
    english = style.format(number)
    german = english.translate(str.maketrans(",.", ".,"))
    assert last_number(english) == last_number(german) == float(str(number))


@given(st.text(), st.integers(0, 999))
def test_only_the_last_number_counts(text, number):
    assert last_number(f"{text} ; {number}") == number


@given(st.text(alphabet=st.characters(categories=["Nd", "Po", "Zs", "Pd", "Sc", "L"])))
def test_any_text_gives_a_number_or_none(text):
    found = last_number(text)
    digits = any(unicodedata.decimal(sign, None) is not None for sign in text)
    assert (found is not None) == digits


def test_a_number_beyond_floats_is_infinite_and_right_for_nothing():
    assert last_number("9" * 5000) == math.inf
    assert not same_number(math.inf, math.inf)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (59.0, 59.009, True),
        (59.0, 58.991, True),
        (59.0, 59.02, False),
        (-59.0, 59.0, False),
        (None, 59.0, False),
        (None, None, False),
    ],
)
def test_same_number(one, other, same):
    assert same_number(one, other) is same
