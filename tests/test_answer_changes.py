"""Changes of accuracy: paired by item, with intervals that cover, and a test worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.evaluation.answers import (
    Accuracy,
    Answer,
    accuracy_difference,
    mean_difference,
    paired_interval,
)
from lensneurons.evaluation.generation import Decoding
from lensneurons.languages.detection import LanguageGuess
from lensneurons.values.provenance import Provenance


def answers(right: dict[str, str]) -> Accuracy:
    """Answers by language; a letter an item: r right, w wrong, o right in another language, - not
    asked."""
    rows = [
        Answer(f"i{n}", tag, "", 1.0, 0.0 if letter == "w" else 1.0,
               LanguageGuess("fr" if letter == "o" else tag, 1.0, None), True)
        for tag, letters in right.items()
        for n, letter in enumerate(letters)
        if letter != "-"
    ]  # fmt: skip
    return Accuracy(tuple(rows), Decoding(), Provenance())


BEFORE = answers({"en": "rrrrr", "th": "wwwwwwww", "zh": "rwrwo"})
AFTER = answers({"zh": "rrrww", "th": "rrrrrrww", "en": "rrrr-"})


def test_items_are_paired_by_name_and_language():
    table = accuracy_difference(BEFORE, AFTER)
    assert table.index.tolist() == ["en", "th", "zh"]
    assert table["items"].tolist() == [4, 8, 5]
    assert table["before"].tolist() == [1.0, 0.0, 0.4]
    assert np.allclose(table["after"], [1.0, 6 / 8, 3 / 5])
    assert np.allclose(table["change"], [0, 6 / 8, 1 / 5])
    # McNemar, two-sided: 6 of 6 changes upward; 1 of 1; no change at all
    assert np.allclose(table["p"], [1.0, 2 / 2**6, 1.0])
    other = accuracy_difference(BEFORE, AFTER, verdict="right_answer").loc["zh"]
    assert np.isclose(other["before"], 3 / 5)
    assert np.isclose(other["change"], 0)


def test_an_interval_is_not_empty_where_nothing_changed():
    low, high = paired_interval(np.ones(30, bool), np.ones(30, bool))
    assert -0.2 < low < -0.05
    assert 0.05 < high < 0.2


def test_intervals_turn_with_their_sides():
    random = np.random.default_rng(0)
    one, other = random.random(50) < 0.4, random.random(50) < 0.7
    low, high = paired_interval(one, other)
    back = paired_interval(other, one)
    assert np.allclose(back, (-high, -low))
    assert low < other.mean() - one.mean() < high


@pytest.mark.parametrize(
    ("n", "gain", "loss", "right"), [(20, 0.2, 0.05, 0.3), (60, 0.1, 0.1, 0.7)]
)
def test_intervals_cover_the_truth(n, gain, loss, right):
    """Items that are right before with one chance, and change with two others."""
    random = np.random.default_rng(1)
    truth, held, trials = (1 - right) * gain - right * loss, 0, 600
    for _ in range(trials):
        before = random.random(n) < right
        moved = random.random(n) < np.where(before, loss, gain)
        low, high = paired_interval(before, before ^ moved)
        held += low <= truth <= high
    assert 0.93 <= held / trials <= 0.995


def test_the_mean_weighs_languages_alike_and_draws_items_together():
    found = mean_difference(BEFORE, AFTER)
    assert np.isclose(found.estimate, np.mean([0, 6 / 8, 1 / 5]))
    assert found.low < found.estimate < found.high
    assert np.isclose(mean_difference(BEFORE, AFTER, languages=["th", "en"]).estimate, 3 / 8)
    same = mean_difference(BEFORE, BEFORE)
    assert (same.low, same.estimate, same.high) == (0, 0, 0)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(CorpusError, match="no item was asked both before and after"):
        accuracy_difference(BEFORE, answers({"de": "rr"}))
    with pytest.raises(CorpusError, match=r"no item was asked in \['de'\]"):
        mean_difference(BEFORE, AFTER, languages=["de", "en"])
    with pytest.raises(LensNeuronsError, match="verdict='all' is not known"):
        accuracy_difference(BEFORE, AFTER, verdict="all")
    with pytest.raises(LensNeuronsError, match="level"):
        mean_difference(BEFORE, AFTER, level=1.5)
