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
    return text.translate({ord("0") + digit: chr(zero + digit) for digit in range(10)})


# A number, and texts whose last number it is.
READ = [
    (59, "38 + 21 = 59", "The answer is 59.", "答案是五十九（59）。", "$59.00"),
    (None, "Nothing here.", "", "五十九 XII m² ①"),
    # digits
    (59, "উত্তর হলো ৫৯টি", "คำตอบคือ ๕๙", "الجواب ٥٩", "جواب ۵۹"),
    (59, "答えは５９です", "answer: 𝟓𝟗", "৫9"),
    # thousands and decimals
    (1234, "1,234", "1 234", "1’234"),
    (1234.5, "1,234.5", "1.234,5", "1\u00a0234,50 €", "1'234.5", "١٬٢٣٤٫٥"),
    (1234567, "12,34,567", "1.234.567", "1\u202f234\u202f567"),
    (12345678.25, "12,345,678.25"),
    (1234567.5, "১২,৩৪,৫৬৭.৫"),
    (50000, "50.000 Dollar"),
    (5300, "٥٬٣٠٠"),
    (5300.5, "５，３００．５"),
    (3.125, "٣٫١٢٥"),
    (0.125, "0.125", "0,125"),
    (3125, "3.125"),  # one separator before three digits groups thousands
    (3.5, "3,5"),
    (12.5, "12.50"),
    (1.2345, "1,2345"),
    (0.5, "it costs .5"),
    (100, "100,00"),
    # what is no separator
    (500, "in 2019 500 came"),
    (3, "1, 2, 3", "1,2,3"),
    (300, "5，300"),  # a Chinese comma between clauses
    (100000, "59.\n\n100 000"),
    (0, "59\n000"),
    # signs, currencies, percent
    (-5, "-5", "it is −5 degrees", "＝－５", r"\$-5", "-€5", "答案是-5"),
    (-1234.5, "-$1,234.50"),
    (-3, "(-3)"),
    (50, "50 %", "৫০%"),
    (5, "8-5", "8 -5", "(8) - 5", "- 5"),
    (15, "10–15"),
    (19, "COVID-19"),
    # not read as what they are
    (4, "3/4"),
    (2024, "12.05.2024"),
    (18, r"\boxed{18}"),
]


@pytest.mark.parametrize(
    ("text", "number"), [(text, number) for number, *texts in READ for text in texts]
)
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
