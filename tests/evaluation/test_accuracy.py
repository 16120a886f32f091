"""Accuracy: number and language apart, intervals that cover, differences paired by item, files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from oracle import wilson_by_hand
from safetensors.numpy import load_file

from lensneurons.corpora.corpus import ParallelCorpus, build_corpus, load_corpus
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.evaluation import answers as answering
from lensneurons.evaluation.answers import (
    Accuracy,
    Answer,
    accuracy,
    accuracy_difference,
    mean_difference,
)
from lensneurons.evaluation.generation import Decoding, Response, generate
from lensneurons.languages.detection import LanguageGuess
from lensneurons.uncertainty.paired import wilson_interval
from lensneurons.values.provenance import Provenance

PROBLEMS = {
    "en": [
        ("Ryan has 38 flowers and buys 21 more. How many now?\n", "He has 59 flowers (59)."),
        ("Ruby has 1,200 stamps and sells 200. How many are left?\n", "1,000"),
        ("How many legs have four cats?\n", "16"),
    ],
    "de": [
        ("Karl hat 38 Blumen und kauft 21. Wie viele sind es?\n", "Er hat 59 Blumen (59)."),
        ("Eva hat 1.200 Marken und verkauft 200. Wie viele bleiben?\n", "1.000"),
        ("Wie viele Beine haben vier Katzen?\n", "16"),
    ],
    "th": [
        ("มีดอกไม้ 38 ดอก ซื้อเพิ่ม 21 ดอก มีกี่ดอก\n", "59"),
        ("มี 1,200 ดวง ขาย 200 ดวง เหลือกี่ดวง\n", "๑,๐๐๐"),
        ("แมวสี่ตัวมีกี่ขา\n", "16"),
    ],
}
# What a model might have written, and what it is worth: right answer, right language.
WRITTEN = [
    (Response("Ryan has 38 + 21 = 59 flowers in all. The answer is 59.", True, 20), True, True),
    (Response("Es bleiben ihr noch genau 1.000 Marken, also 1 000.", True, 20), True, False),
    (Response("Four cats have four legs each, so together they have 15", False, 80), False, True),
    (Response("Die Antwort ist neunundfünfzig Blumen, also 59,00.", True, 20), True, True),
    (Response("1000", True, 2), True, False),
    (Response("Nobody ever counted the legs of these lovely cats.", True, 20), False, False),
    (Response("คำตอบคือ ๕๙ ดอก", True, 9), True, True),
    (Response("คำตอบคือ 1200", True, 9), False, True),
    (Response("", True, 1), False, False),
]


@pytest.fixture
def corpus():
    rows = [
        {"id": f"item-{number}", "language": language, "prompt": prompt, "response": response}
        for language, problems in PROBLEMS.items()
        for number, (prompt, response) in enumerate(problems)
    ]
    return build_corpus(rows, name="three problems")


@pytest.fixture
def judged(corpus, bridge, monkeypatch):
    """The answers in `WRITTEN`, as if the model had written them."""

    def write(model, prompts, decoding, **options):
        assert prompts == [item.prompt for item in corpus]
        return [response for response, _, _ in WRITTEN]

    monkeypatch.setattr(answering, "write_responses", write)
    return accuracy(bridge("Llama"), corpus, max_new_tokens=80, seed=7, progress=False)


# --- judging ---


def test_number_and_language_are_judged_apart(judged):
    verdicts = [(answer, language, answer and language) for _, answer, language in WRITTEN]
    assert [(a.right_answer, a.right_language, a.both) for a in judged] == verdicts
    assert [a.expected for a in judged] == [59, 1000, 16] * 3
    assert [a.number for a in judged] == [59, 1000, 15, 59, 1000, None, 59, 1200, None]
    guesses = ["en", "de", "en", "de", None, "en", "th", "th", None]
    assert [a.guess.language for a in judged] == guesses
    assert [a.text for a in judged] == [response.text for response, _, _ in WRITTEN]


def test_the_table_of_the_languages(judged):
    table = judged.per_language()
    assert list(table.index) == ["en", "de", "th"]
    assert table["items"].tolist() == [3, 3, 3]
    thirds = 3 * table[["right_answer", "right_language", "both", "undetermined", "unfinished"]]
    by_hand = [[2, 2, 1, 0, 1], [2, 1, 1, 1, 0], [1, 2, 1, 1, 0]]
    assert thirds.to_numpy() == pytest.approx(np.array(by_hand))
    assert table["n_undetermined"].tolist() == [0, 1, 1]
    assert table["right_language_determined"].tolist() == pytest.approx([2 / 3, 1 / 2, 1.0])
    for language, told in (("en", (2, 3)), ("de", (1, 2)), ("th", (2, 2))):
        ends = [table.loc[language, f"right_language_determined_{end}"] for end in ("low", "high")]
        assert ends == pytest.approx(wilson_by_hand(*told))
    ends = table.loc["en", ["right_answer_low", "right_answer_high"]].tolist()
    assert ends == pytest.approx(wilson_interval(2, 3))
    narrow = judged.per_language(level=0.5)
    assert (narrow["both_low"] > table["both_low"]).all()
    assert (narrow["both_high"] < table["both_high"]).all()


def test_names_of_the_prompt_and_given_ones_are_ignored(corpus, bridge, monkeypatch):
    asked = []

    def identify(text, **options):
        asked.append(options)
        return LanguageGuess("th", 1.0, "Thai")

    monkeypatch.setattr(answering, "detect_language", identify)
    result = accuracy(
        bridge("Llama"), corpus, max_new_tokens=1, ignore=["Octopus"], minimum_confidence=0.7,
        progress=False,
    )  # fmt: skip
    assert {"Octopus", "Ryan", "How"} == set(asked[1]["ignore"])
    assert {"Octopus", "Karl", "Blumen", "Wie"} == set(asked[4]["ignore"])
    assert asked[1]["minimum_confidence"] == 0.7
    assert asked[1]["languages"] == ("en", "de", "th")
    assert [a.right_language for a in result] == [False] * 6 + [True] * 3


def test_another_identification_takes_any_language(bridge):
    rows = [{"id": "1", "language": k, "prompt": "2 + 3 = ", "response": "5"} for k in ("ig", "en")]
    corpus = build_corpus(rows)
    options: dict[str, Any] = {"max_new_tokens": 2, "progress": False}
    with pytest.raises(LensNeuronsError, match="'ig' cannot be told .* pass your own identify="):
        accuracy(bridge("Llama"), corpus, **options)
    own = accuracy(
        bridge("Llama"), corpus, identify=lambda text: LanguageGuess("ig", 1.0, None), **options
    )
    assert [a.right_language for a in own] == [True, False]


# --- the whole way ---


def test_the_texts_are_those_of_generate_and_hooks_act(corpus, bridge):
    model = bridge("Llama")
    prompts = [item.prompt for item in corpus]
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0.9, "seed": 5}
    before = accuracy(model, corpus, **options, progress=False)
    assert [a.text for a in before] == generate(model, prompts, **options, progress=False)
    with model.hooks(fwd_hooks=[("blocks.0.mlp.hook_post", lambda tensor, hook: tensor * 0)]):
        after = accuracy(model, corpus, **options, progress=False)
    assert [a.text for a in after] != [a.text for a in before]
    assert (before.provenance.interventions, after.provenance.interventions) == ("none", "hooks")
    assert before.provenance.corpora == (corpus.fingerprint,)
    assert before.provenance.weights == after.provenance.weights
    assert before.decoding == Decoding(max_new_tokens=6, temperature=0.9, seed=5)


def test_the_demo_corpus_is_answered(bridge):
    corpus = load_corpus("demo", limit=2, languages=["zh"])
    result = accuracy(bridge("Bloom"), corpus, max_new_tokens=3, progress=False)
    assert [a.id for a in result] == list(corpus.ids)
    assert all(a.expected > 0 for a in result)


# --- at the door ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response": "many"}, r"'item-1' \(de\) has no number in its response: accuracy needs"),
        ({"prompt": ""}, r"'item-1' \(de\) has no prompt: accuracy needs problems"),
    ],
)
def test_items_without_a_problem_are_refused(corpus, change, message):
    items = list(corpus.items)
    items[4] = replace(items[4], **change)
    with pytest.raises(CorpusError, match=message):
        accuracy(None, ParallelCorpus("broken", tuple(items)), progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum_confidence": 1.2}, "minimum_confidence=1.2 is not between 0 and 1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: write at least 1 token"),
        ({"temperature": -1.0}, "temperature=-1.0"),
    ],
)
def test_options_out_of_range_are_refused_before_the_model_is_touched(corpus, options, message):
    with pytest.raises(LensNeuronsError, match=message):
        accuracy(None, corpus, **options, progress=False)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_that_is_none_is_refused(judged, level):
    with pytest.raises(LensNeuronsError, match=f"level={level}: coverage is a number between"):
        judged.per_language(level=level)


# --- as a value ---


def test_files_keep_what_has_no_number_or_too_large_a_one(judged, tmp_path):
    guess = LanguageGuess(None, 0.0, None)
    answer = Answer("1", "en", "9" * 400, 5.0, float("inf"), guess, False)
    path = replace(judged, answers=(*judged, answer)).save(tmp_path / "accuracy")
    assert Accuracy.load(path).answers == (*judged, answer)
    assert not answer.right_answer
    right = load_file(path)["both"]  # readable without lensneurons
    assert right.tolist() == [*(a.both for a in judged), False]


def test_it_shows_itself(judged):
    table = judged.to_pandas()
    assert list(table.columns) == [
        "id", "language", "text", "expected", "number", "guess", "confidence", "script",
        "finished", "right_answer", "right_language", "both",
    ]  # fmt: skip
    assert len(table) == len(judged) == 9
    assert table["both"].sum() == 3
    assert pd.isna(table["number"][5])
    assert pd.isna(table["guess"][4])
    assert "9 answers in 3 languages: right answer 55.6%, right language 55.6%" in repr(judged)
    assert "both 33.3%" in repr(judged)
    shown = judged._repr_html_()
    assert "<td>German</td><td>3</td><td>67 % (21-94)</td>" in shown
    assert "<td>1</td><td>50 % (9-91)</td>" in shown


def test_a_language_of_which_no_text_could_be_told(judged):
    answers = tuple(replace(a, guess=LanguageGuess(None, 0.0, None)) for a in judged)
    found = replace(judged, answers=answers)
    table = found.per_language()
    assert table["n_undetermined"].tolist() == [3, 3, 3]
    assert table["right_language"].tolist() == [0, 0, 0]
    told = table.filter(regex="^right_language_determined")
    assert told.shape == (3, 3)
    assert told.isna().to_numpy().all()
    assert "<td>3</td><td></td></tr>" in found._repr_html_()


# --- two runs, paired by item ---


def answers(right):
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


def test_the_mean_weighs_languages_alike_and_draws_items_together():
    found = mean_difference(BEFORE, AFTER)
    assert np.isclose(found.estimate, np.mean([0, 6 / 8, 1 / 5]))
    assert found.low < found.estimate < found.high
    assert np.isclose(mean_difference(BEFORE, AFTER, languages=["th", "en"]).estimate, 3 / 8)
    same = mean_difference(BEFORE, BEFORE)  # nobody changed, of few items
    assert same.low < same.estimate == 0 < same.high


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(CorpusError, match="no item was asked both before and after"):
        accuracy_difference(BEFORE, answers({"de": "rr"}))
    with pytest.raises(CorpusError, match=r"no item was asked in \['de'\]"):
        mean_difference(BEFORE, AFTER, languages=["de", "en"])
    with pytest.raises(LensNeuronsError, match="verdict='all' is not known"):
        accuracy_difference(BEFORE, AFTER, verdict="all")
    with pytest.raises(LensNeuronsError, match="level"):
        mean_difference(BEFORE, AFTER, level=1.5)
