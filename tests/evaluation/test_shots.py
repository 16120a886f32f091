"""Few-shot examples: put before prompts of their language, never counted, never the problem."""

from __future__ import annotations

import json
from dataclasses import replace
from unittest.mock import patch

import pytest

from lensneurons.alignment.responses import respond
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, ProvenanceError
from lensneurons.evaluation import answers
from lensneurons.evaluation.answers import Accuracy, accuracy, answer_scorer
from lensneurons.evaluation.generation import Decoding, generate
from lensneurons.evaluation.shots import fingerprint_of, prompts_of
from lensneurons.models.identity import original_tokenizer

ASKED = build_corpus(
    [
        {"id": str(n), "language": tag, "prompt": prompt, "response": f"It is {n}"}
        for tag in ("en", "sw")
        for n, prompt in enumerate(("the cat", "a dog and a", "the"))
    ]
)
SHOTS = build_corpus(
    [
        {"id": f"shot {n}", "language": tag, "prompt": f"{tag} {n}? ", "response": f"It is {n}"}
        for tag in ("sw", "en", "fr")
        for n in (4, 5)
    ]
)
OPTIONS = {"max_new_tokens": 8, "progress": False}


def by_hand(prompt: str, tag: str) -> str:
    return f"{tag} 4? It is 4\n\n{tag} 5? It is 5\n\n{prompt}"


def changed(shots, **values):
    """The examples with the first one changed."""
    return replace(shots, items=(replace(shots.items[0], **values), *shots.items[1:]))


def test_each_prompt_follows_all_examples_of_its_language(bridge):
    tokenizer = original_tokenizer(bridge("Llama"))
    assert prompts_of(ASKED.items, SHOTS, tokenizer) == [
        by_hand(item.prompt, item.language) for item in ASKED
    ]
    assert prompts_of(ASKED.items, None, tokenizer) == [item.prompt for item in ASKED]


def test_answers_are_those_to_the_whole_prompt_and_only_they_are_read(bridge, tmp_path):
    model = bridge("Llama")
    found = accuracy(model, ASKED, shots=SHOTS, **OPTIONS)
    wanted = generate(model, [by_hand(item.prompt, item.language) for item in ASKED], **OPTIONS)
    assert [one.text for one in found] == wanted
    assert not any("It is" in one.text for one in found)
    assert [one.expected for one in found] == [0, 1, 2] * 2
    bare = accuracy(model, ASKED, **OPTIONS)
    assert [one.text for one in bare] != wanted
    score = answer_scorer(model, ASKED, max_new_tokens=8, shots=SHOTS)
    assert score(range(len(ASKED))) == [one.both for one in found]
    found.save(tmp_path / "a.npz")
    assert Accuracy.load(tmp_path / "a.npz").decoding.shots == SHOTS.fingerprint
    assert bare.decoding.shots == ""


def test_prompts_without_a_language_take_examples_in_one(bridge):
    model, prompts = bridge("Llama"), ["the cat", "the"]
    told = generate(model, prompts, shots=SHOTS.select(["en"]), **OPTIONS)
    assert told == generate(model, [by_hand(one, "en") for one in prompts], **OPTIONS)
    with pytest.raises(CorpusError, match=r"\['sw', 'en', 'fr'\].*select\(\) one language"):
        generate(model, prompts, shots=SHOTS, **OPTIONS)
    with pytest.raises(CorpusError, match="is one of the problems that are asked"):
        generate(model, ["en  5?"], shots=SHOTS.select(["en"]), **OPTIONS)


def test_a_begin_token_rendered_into_texts_stands_once(bridge):
    tokenizer = original_tokenizer(bridge("Llama"))
    bos = tokenizer.bos_token
    assert bos
    asked, shots = (
        replace(one, items=tuple(replace(item, prompt=bos + item.prompt) for item in one))
        for one in (ASKED, SHOTS)
    )
    assert prompts_of(asked.items, shots, tokenizer) == [
        bos + by_hand(item.prompt, item.language) for item in ASKED
    ]


@pytest.mark.parametrize(
    ("shots", "told"),
    [
        (SHOTS.select(["en"]), r"no example in \['sw'\], only in \['en'\]"),
        (replace(SHOTS, items=SHOTS.items[1:]), r"\{'en': 2, 'sw': 1\} examples.*the same"),
        (changed(SHOTS, prompt=" "), r"'shot 4' \(sw\) has no prompt or no response"),
        (changed(SHOTS, response=""), r"'shot 4' \(sw\) has no prompt or no response"),
        (changed(SHOTS, prompt="a dog\n and a "), r"'shot 4' \(sw\) is one of the problems"),
        (changed(SHOTS, id="2", response="It  is 2"), r"'2' \(sw\) is one of the problems"),
    ],
)
def test_examples_that_do_not_fit_are_refused_before_any_pass(bridge, shots, told):
    model = bridge("Llama")
    for ask in (accuracy, answer_scorer, respond):
        options = {"max_new_tokens": 8} if ask is answer_scorer else OPTIONS
        with (
            patch.object(answers, "write_responses", side_effect=AssertionError),
            pytest.raises(LensNeuronsError, match=told),
        ):
            ask(model, ASKED, shots=shots, **options)


@pytest.mark.parametrize("shots", [list(SHOTS.items), "shots.jsonl", [{"prompt": "2 + 2"}], 3])
def test_examples_are_a_corpus(shots):
    with pytest.raises(LensNeuronsError, match=r"shots=.*give a ParallelCorpus of worked examples"):
        fingerprint_of(shots)


def test_another_problem_may_have_the_number_of_a_row(bridge):
    tokenizer = original_tokenizer(bridge("Llama"))
    assert prompts_of(ASKED.items, changed(SHOTS, id="2"), tokenizer)[0] == by_hand("the cat", "en")


def test_too_many_examples_for_the_context(bridge):
    long = build_corpus(
        [
            {"id": f"s{n}", "language": tag, "prompt": f"{n} " * 40, "response": "7"}
            for tag in ("en", "sw")
            for n in range(40)
        ]
    )
    with pytest.raises(LensNeuronsError, match="beyond the model's context.*give fewer shots"):
        accuracy(bridge("Llama"), ASKED, shots=long, **OPTIONS)


def test_a_run_goes_on_under_the_same_examples_alone(bridge, tmp_path):
    model, asked = bridge("Llama"), ASKED.select(["en"])
    options = {"samples": 2, "run_dir": tmp_path / "run", **OPTIONS}
    first = respond(model, asked, shots=SHOTS, **options)
    assert {row.prompt for row in first} == {item.prompt for item in asked}
    assert first.decoding.shots == SHOTS.fingerprint
    assert [*respond(model, asked, shots=SHOTS, **options)] == [*first]
    for other in (None, SHOTS.head(1)):
        with pytest.raises(ProvenanceError, match="shots"):
            respond(model, asked, shots=other, **options)


def test_plans_without_examples_stay_as_they_were():
    assert "shots" not in Decoding().plan()
    assert json.loads(json.dumps(Decoding(shots="ab").plan()))["shots"] == "ab"
