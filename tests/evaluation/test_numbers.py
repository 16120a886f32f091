"""The last number of a text, however it is written."""

from __future__ import annotations

import math
import unicodedata

import pytest
from answer_rules import count_right, written
from answer_table import ROWS
from hypothesis import given, settings
from hypothesis import strategies as st

from lensneurons.evaluation import numbers
from lensneurons.evaluation.numbers import (
    decimal_sign,
    last_number,
    numbers_in,
    same_number,
    stated_number,
)

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
    (300, "5，300 of them"),  # "5，005" has a group that is no number of its own
    (5005, "5，005"),
    # fractions, powers, times of day
    (0.75, "3/4", "¾", r"\frac{3}{4}", r"\dfrac34", "৩/৪", "a: 3 / 4"),
    (-0.75, "-3/4", r"-\frac{3}{4}"),
    (2.5, "2 1/2", "2½", r"2\frac{1}{2}", "2 ½"),
    (0, "3/0"),
    (1000, "10^3", "10^{3}", "10³", "1e3", "1 × 10^3", "1E+3", r"1 \cdot 10^{3}", "1x10³"),
    (0.001, "10^-3", "10^{-3}", "10⁻³", "1e-3"),
    (25, "25 m^2", "25 m²", "25 m2", r"25 \text{ m}^2", r"25\,\mathrm{cm}^{2}", "x^2 = 25 m^2"),
    (12.5, "12:30", "১২:৩০"),
    (3, "2024:3", "1:2:3"),
    (math.inf, "9^99999", "1e99999", "0^-1"),
    # LaTeX
    (9500, r"\boxed{9{,}500}", r"9\,500", r"9,\!500", "9~500", r"\(9\;500\)"),
    # Han multipliers
    (30000, "3万", "３万円", "3 萬"),
    (12000, "1万2千", "1万2000", "1.2万"),
    (52000, "5万2000", "5万2千"),
    (30500, "3万零500"),
    (350000000, "3亿5000万", "3億5千万"),
    (5, "5千克", "5千米", "5百分点"),
    (4, "3万, 4", "3万 4"),
    # not read as what they are
    (2024, "12/05/2024"),
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


# --- by language ---

POINT, COMMA = ("en", "zh", "ja", "th", "bn", "sw", "es-MX", "de-CH"), ("de", "es", "fr", "ru")


@pytest.mark.parametrize(("language", "text", "number"), ROWS)
def test_answers_of_ten_languages(language, text, number):
    assert last_number(text, language=language) == pytest.approx(number, rel=1e-12)


def test_how_other_rules_judge_the_same_answers():
    counts = count_right()
    assert len(ROWS) == len(set(ROWS)) == 190
    assert {name: row["all"] for name, row in counts.items()} == {
        "lensneurons": 190,
        "harness, flexible": 73,
        "harness, strict": 10,
        "MathOctopus": 65,
    }


@pytest.mark.parametrize("language", [*POINT, *COMMA])
@given(whole=st.integers(1, 999), part=st.integers(0, 999))
def test_one_separator_before_three_digits_is_decided_by_the_language(language, whole, part):
    grouped, decimals = whole * 1000 + part, whole + part / 1000
    point, comma = f"{whole}.{part:03}", f"{whole},{part:03}"
    if language in COMMA:
        assert (last_number(point, language=language), last_number(comma, language=language)) == (
            grouped,
            pytest.approx(decimals),
        )
        assert decimal_sign(language) == "comma"
    else:
        assert (last_number(point, language=language), last_number(comma, language=language)) == (
            pytest.approx(decimals),
            grouped,
        )
        assert decimal_sign(language) == "point"
    assert last_number(point) == last_number(comma) == grouped


@pytest.mark.parametrize("language", [*POINT, *COMMA, None])
@given(st.decimals(10**6, 10**9, places=2))
def test_two_kinds_of_separators_are_read_in_every_language(language, number):
    english = f"{number:,}"
    german = english.translate(str.maketrans(",.", ".,"))
    for text in (english, german):
        assert last_number(text, language=language) == float(str(number))


@settings(deadline=None)  # reads several texts an example
@given(st.integers(0, 10**6), st.text(alphabet="abc xyz,", max_size=20), st.integers(0, 999))
def test_the_number_behind_a_marker_answers(answer, text, number):
    for marker in (
        "The answer is {}",
        "#### {}",
        r"\boxed{{{}}}",
        "答案是{}",
        "Die Antwort ist {}",
    ):
        said = f"2 + 3 = 5. {marker.format(answer)}. {text} {number}"
        assert last_number(said, language="en") == answer


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7, "Answer: 3 apples and 4 apples. 3 + 4 = 7"),  # heads the derivation
        (3, "Answer: 3 apples."),
        (7, "The answer is 3 + 4 = 7 apples, of 12."),
        (42, "The answer is 42 = 6 * 7"),
        (12, "The answer is not known. 5 + 7 = 12"),
        (9, "The answer is 8. No, wait. The answer is 9."),
        (42, "The answer is:\n\n**42**\n\nTom was born in 2019."),
        (8, "Question: 3 and 5?\nIt is 3 + 5 = 8."),
        (18, "It is 18.\n\nQ: Tom has 3.\nA: 3"),
        (5, r"\boxed{18"[:7] + " 5"),
    ],
)
def test_known_places_of_the_answer(number, text):
    assert last_number(text, language="en") == number


@pytest.mark.parametrize(
    ("number", "language", "response"),
    [
        (2125, "de", "2,125"),  # as MGSM writes its answers in every language
        (8, "fr", "8.0"),  # as MSVAMP does
        (114200, "ru", " 114,200\n"),
        (50000, "de", "Es sind 50.000"),
        (1.5, "de", "1,5"),
        (1000, "de", "1.000"),
        (1, "en", "1.000"),
    ],
)
def test_a_response_that_is_a_bare_number_is_in_the_notation_of_programs(
    number, language, response
):
    assert stated_number(response, language=language) == number


@given(st.integers(-(10**9), 10**9), st.sampled_from(["bn", "de", "ru", "th"]))
def test_written_numbers_come_back(number, language):
    assert stated_number(written(number), language=language) == number


@settings(deadline=None)
@given(st.text(alphabet="0123456789.,/^{}\\frac eE+-×万千億 :½²，٬", max_size=30))
def test_any_soup_of_numbers_is_read(text):
    """No error, no hang; each number is a float."""
    for language in (None, "en", "de", "zh", "bn", "sw"):
        found = numbers_in(text, language=language)
        assert all(isinstance(one, float) for one in found)


def test_without_the_rule_by_language_the_table_is_not_read(monkeypatch):
    """Sabotage: the table sees the rule."""
    monkeypatch.setattr(numbers, "decimal_sign", lambda language: "unknown")
    assert count_right()["lensneurons"]["all"] < 190
    monkeypatch.undo()
    monkeypatch.setattr(numbers, "answer_part", lambda text: (text, "last"))
    assert count_right()["lensneurons"]["all"] < 170
