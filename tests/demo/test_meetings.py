"""What only a training asks for: two languages in one text, long problems, direct answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import chain, permutations
from random import Random

import pytest
import regex
from asked_questions import SOLVERS

from lensneurons.demo.world import (
    FAMILIES,
    LANGUAGES,
    SPLITS,
    Problem,
    find_language,
    generate,
    make_problem,
    render,
)
from lensneurons.demo.world.meetings import MEETINGS, meet, request
from lensneurons.demo.world.problems import (
    ALL_FAMILIES,
    LONG_FAMILIES,
    THINGS,
    sample_problem,
)
from lensneurons.demo.world.template import write_question
from lensneurons.errors import LensNeuronsError

# The independent solver of what the long families ask.
LONG_SOLVERS: dict[str, Callable[..., int]] = {
    "boxes_gain_loss": lambda boxes, each, got, gave: boxes * each + got - gave,
    "boxes_share": lambda had, boxes, each, children: (had + boxes * each) // children,
    "four_changes": lambda had, got, gave, bought, taken: had + got - gave + bought - taken,
    "times_boxes": lambda boxes, each, loose, times, gave: (boxes * each + loose) * times - gave,
}
PAIRS = [pair for code in LANGUAGES for pair in ((code, "en"), ("en", code)) if code != "en"]
PAIRS += [("zh", "ja"), ("th", "ru"), ("sw", "bn"), ("de", "th")]


@cache
def long_problems(n: int = 600) -> tuple[Problem, ...]:
    rng = Random(5)
    return tuple(sample_problem(rng, LONG_FAMILIES) for _ in range(n))


@cache
def mixed_problems() -> tuple[Problem, ...]:
    """Two problems of every family."""
    drawn = (*generate("train", 200, seed=2), *long_problems())
    by_family = {name: [p for p in drawn if p.family == name][:2] for name in ALL_FAMILIES}
    assert {len(problems) for problems in by_family.values()} == {2}
    return tuple(chain.from_iterable(by_family.values()))


@cache
def number_words(language: str) -> dict[str, int]:
    """Every way to write 2 to 999 in a language, with any noun and in any case, to its number."""
    found = find_language(language)
    words: dict[str, int] = {"দু": 2} if language == "bn" else {}  # before a classifier
    things = [found.nouns[key] for key in THINGS]
    classes = {noun.get("class", ""): noun for noun in things}
    for value in range(2, 1000):
        for noun in (None, *classes.values()):
            for case in ("n", "a", "animate", "d", "i") if language == "ru" else ("",):
                spelled = found.spell(value, noun, *[case][: bool(case)])  # type: ignore[call-arg]
                words[spelled] = value
    return words


@cache
def number_pattern(language: str, frame: str) -> re.Pattern[str]:
    """Digits, or the longest number word that stands where a word may begin (and end).

    A classifier of the language `frame` may follow at once.
    """
    words = sorted(number_words(language), key=len, reverse=True)
    alternatives = "|".join(map(re.escape, words))
    left = "" if language in ("zh", "ja", "th") else r"(?<!\w)"
    right = "" if {language, frame} & {"zh", "ja", "th", "bn"} else r"(?=mal|\b)"
    return re.compile(rf"\d+|{left}(?:{alternatives}){right}", re.IGNORECASE)


def read_numbers(text: str, language: str, frame: str) -> list[int]:
    """Read all numbers of a text in their order, in digits or in the words of a language."""
    words = number_words(language)
    found = number_pattern(language, frame).findall(text)
    return [int(one) if one.isdigit() else words[one.lower()] for one in found]


@cache
def readers(language: str, counting: str) -> list[tuple[str, list[str], list[str]]]:
    """Of every question: its family, its pieces between slots, and where each number goes.

    A number word of the template itself goes nowhere: "".
    """
    patterns = []
    for family, variants in find_language(language).questions.items():
        for variant in variants:
            pieces = re.split(r"(\{[^{}]*\})", variant)
            places: list[str] = []
            for piece in pieces:
                if re.match(r"\{\d", piece):
                    places.append(piece[1])
                elif not piece.startswith("{"):
                    places += [""] * len(number_pattern(counting, language).findall(piece))
            times = find_language(language).nouns["time"]["noun"][:2]  # vez, veces
            shown = [times if re.match(r"\{\d\.time", p) else p for p in pieces]
            patterns.append((family, [p for p in shown if p and p[0] != "{"], places))
    return patterns


def solve(question: str, language: str, counting: str | None = None) -> int | None:
    """Answer a question from its text alone.

    Its family is that of the template with most of whose letters the text has, in their order.
    """
    question = question.replace("浩二", "__")  # the one name that holds a number
    numbers = read_numbers(question, counting or language, language)
    best: tuple[int, int | None] = (0, None)
    for family, pieces, places in readers(language, counting or language):
        at, letters = 0, 0
        for piece in pieces:
            at = question.lower().find(piece.lower(), at) + len(piece)
            letters += len(piece)
            if at < len(piece):
                break
        else:
            if len(places) == len(numbers) and letters > best[0]:
                given = {place: n for place, n in zip(places, numbers, strict=True) if place}
                in_order = [given[place] for place in sorted(given)]
                best = letters, {**SOLVERS, **LONG_SOLVERS}[family](*in_order)
    return best[1]


def last_digits(text: str) -> int:
    return int(regex.findall(r"\d+", text)[-1])


def test_long_problems_are_solved_by_an_independent_solver_in_three_or_four_steps():
    assert set(LONG_SOLVERS) == set(LONG_FAMILIES)
    assert not set(LONG_FAMILIES) & set(FAMILIES)
    assert {len(f.plan.split(",")) for f in LONG_FAMILIES.values()} == {3, 4}
    for problem in long_problems():
        numbers = problem.numbers
        assert LONG_SOLVERS[problem.family](*numbers) == problem.answer
        if problem.family == "boxes_share":
            assert (numbers[0] + numbers[1] * numbers[2]) % numbers[3] == 0
    assert {p.family for p in long_problems()} == set(LONG_FAMILIES)
    assert {p.split for p in long_problems()} == set(SPLITS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_equation_of_a_long_answer_holds_and_leads_to_the_next(language):
    for problem in long_problems():
        response = render(problem, language)[1]
        steps = regex.findall(r"(\d+) ([-+×÷]) (\d+) = (\d+)", response)
        assert len(steps) == len(ALL_FAMILIES[problem.family].plan.split(","))
        for left, sign, right, result in steps:
            a, b = int(left), int(right)
            assert int(result) == {"+": a + b, "-": a - b, "×": a * b, "÷": a / b}[sign]
        for before, after in zip(steps, steps[1:], strict=False):
            assert before[3] in (after[0], after[2])
        assert int(steps[-1][3]) == last_digits(response) == problem.answer


@pytest.mark.parametrize("language", LANGUAGES)
def test_long_texts_are_clean_and_a_solver_that_reads_them_finds_the_answer(language):
    for problem in long_problems()[:60]:
        texts = [
            write_question(problem, find_language(language), variant)
            for variant in range(len(find_language(language).questions[problem.family]))
        ]
        for text in texts:
            assert solve(text, language) == problem.answer
            assert unicodedata.is_normalized("NFC", text)
            assert not regex.search(r"  |\n|[{}|_]|^ | $|None| [,.!;:]", text)


@pytest.mark.parametrize("pair", PAIRS)
def test_an_answer_in_another_language_is_that_of_the_question_that_was_read(pair):
    first, second = pair
    wanted = request("answer", *map(find_language, pair))
    for problem in mixed_problems():
        prompt, response = meet(problem, "answer", pair)
        question = prompt.removesuffix(f"{wanted}\n").rstrip()
        assert question + "\n" == render(problem, first)[0]
        assert solve(question, first) == last_digits(response)
        assert response == render(problem, second)[1]


@pytest.mark.parametrize("pair", PAIRS)
def test_a_translation_asks_what_its_source_asks(pair):
    first, second = pair
    wanted = request("translate", *map(find_language, pair))
    for problem in mixed_problems():
        prompt, translation = meet(problem, "translate", pair)
        source = prompt.removesuffix("\n").removeprefix(wanted).lstrip()
        assert solve(source, first) == solve(translation, second) == problem.answer
        both_prompt, both = meet(problem, "both", pair)
        answer, again, other = both.split("\n")
        assert (both_prompt, again) == (source + "\n", translation)
        assert last_digits(answer) == last_digits(other) == problem.answer
        assert (answer, other) == (render(problem, first)[1], render(problem, second)[1])


@pytest.mark.parametrize("pair", PAIRS)
def test_a_switch_counts_in_the_words_of_the_other_language(pair):
    first, second = pair
    for problem in mixed_problems():
        prompt, response = meet(problem, "switch", pair)
        assert response == render(problem, first)[1]
        for place, value in enumerate(problem.numbers):
            word = str(value) if place in problem.digits else find_language(second).spell(value)
            assert word.lower() in prompt.lower()
        assert solve(prompt.strip(), first, second) == problem.answer
        assert not regex.search(r"  |^ | \n| [,.。，]", prompt)


def test_no_text_of_training_asks_what_a_held_out_problem_asks_in_any_language_or_variant():
    """A training text shows no question of validation or test, not even as a translation."""
    questions: dict[str, set[tuple[str, str]]] = {split: set() for split in SPLITS}
    ids: dict[str, set[str]] = {split: set() for split in SPLITS}
    rng = Random(8)
    problems = [sample_problem(rng, ALL_FAMILIES) for _ in range(1500)]
    for problem in problems:
        ids[problem.split].add(problem.id)
        for code in LANGUAGES:
            language = find_language(code)
            for variant in range(len(language.questions[problem.family])):
                questions[problem.split].add((code, write_question(problem, language, variant)))
    for one, other in permutations(SPLITS, 2):
        assert not questions[one] & questions[other]
        assert not ids[one] & ids[other]
    held_out = {question for split in ("validation", "test") for _, question in questions[split]}
    for problem in [p for p in problems if p.split == "train"][:200]:
        for meeting in MEETINGS:
            prompt, response = meet(problem, meeting, rng.choice(PAIRS))  # type: ignore[arg-type]
            assert not held_out & {*prompt.split("\n"), *response.split("\n")}


def test_the_corpus_stays_in_one_language_and_in_the_short_families():
    for split in SPLITS:
        assert {problem.family for problem in generate(split, 150)} == set(FAMILIES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_direct_answer_is_the_last_sentence_alone(language):
    for problem in mixed_problems():
        worked, direct = (render(problem, language, worked=worked) for worked in (True, False))
        assert worked[0] == direct[0]
        assert worked[1].lower().endswith(direct[1].lower())
        assert "=" not in direct[1]
        assert last_digits(direct[1]) == problem.answer


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_can_ask_for_every_other_in_words_of_its_own(language):
    found = find_language(language)
    assert set(found.languages) == set(LANGUAGES)
    for meeting in ("answer", "translate"):
        asked = {request(meeting, found, find_language(code)) for code in LANGUAGES}
        assert len(asked) == len(LANGUAGES)
        assert not any("{" in text for text in asked)


def test_requests_are_those_written_by_hand():
    written = {
        ("en", "de"): ("Answer in German.", "Translate into German:"),
        ("ru", "sw"): ("Ответь на суахили.", "Переведи на суахили:"),
        ("ru", "en"): ("Ответь на английском языке.", "Переведи на английский язык:"),
        ("de", "fr"): ("Antworte auf Französisch.", "Übersetze ins Französische:"),
        ("fr", "th"): ("Réponds en thaï.", "Traduis en thaï :"),
        ("es", "en"): ("Responde en inglés.", "Traduce al inglés:"),
        ("sw", "en"): ("Jibu kwa Kiingereza.", "Tafsiri kwa Kiingereza:"),
        ("zh", "en"): ("请用英语回答。", "请把下面的题目翻译成英语："),
        ("ja", "zh"): ("中国語で答えてください。", "次の問題を中国語に訳してください。"),
        ("th", "zh"): ("จงตอบเป็นภาษาจีน", "จงแปลเป็นภาษาจีน:"),
        ("bn", "zh"): ("চীনা ভাষায় উত্তর দাও।", "চীনা ভাষায় অনুবাদ করো:"),
    }
    for pair, texts in written.items():
        first, second = map(find_language, pair)
        found = [request(meeting, first, second) for meeting in ("answer", "translate")]
        assert found == [unicodedata.normalize("NFC", text) for text in texts]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: meet(p, "sing", ("en", "de")), "meeting='sing'.*'answer', 'translate'"),
        (lambda p: meet(p, "answer", ("en", "en")), "two different languages"),
        (lambda p: meet(p, "answer", ("en", "xx")), "language='xx'"),
        (lambda p: make_problem("boxes_share", (5, 2, 3, 4), ("f00",), ("book",)), "divide"),
        (lambda p: make_problem("boxes_share", (5, 2, 3), ("f00",), ("book",)), "4 numbers"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(LensNeuronsError, match=message):
        call(long_problems()[0])
