r"""Texts in which two languages meet over one problem; only a training can ask for them.

* ``answer``: the question in one language, a request for the answer in another, and that answer.
* ``translate``: a request for a translation of the question, and the translation.
* ``both``: question and answer in one language, then both in the other.
* ``switch``: question and answer in one language, with the question's number words in the other.

Requests are in the language of the question. The test and validation problems of a corpus are never
written like this: they stay in one language each. A text holds what its problem holds, so the split
of the problem holds for the text in all its languages.

Every person has one name in each language, and a translation changes the name as a localised
schoolbook does. A switch keeps the nouns, their forms and the word order of the first language.

>>> from lensneurons.demo.world.problems import make_problem
>>> problem = make_problem("gain", (12, 30), ("f00", "m00"), ("apple",))
>>> meet(problem, "answer", ("en", "de"))[0].split("? ")[1]
'Answer in German.\n'
>>> meet(problem, "answer", ("en", "de"))[1].split(". ")[1]
'Die Antwort ist zweiundvierzig (42).'
"""

from __future__ import annotations

import re
from copy import copy
from typing import Literal, get_args

from lensneurons.demo.world.language import Language, find_language
from lensneurons.demo.world.problems import Problem
from lensneurons.demo.world.template import pick_variant, write_answer, write_question
from lensneurons.errors import LensNeuronsError, choose

Meeting = Literal["answer", "translate", "both", "switch"]
# Words of another script stand apart even there, but for Chinese and Japanese among themselves.
_WITHOUT_SPACES = ("zh", "ja", "th")
_HAN = {"zh", "ja"}
MEETINGS: tuple[str, ...] = get_args(Meeting)


def meet(
    problem: Problem, meeting: Meeting, languages: tuple[str, str], *, worked: bool = True
) -> tuple[str, str]:
    """Write a problem in two languages.

    Both have the same variant of the question, so that a translation follows from its source.

    Args:
        problem: what is asked.
        meeting: how the languages meet.
        languages: codes of the first language, that of the question, and of the other.
        worked: work the answers out; otherwise they are direct, as in `render`.

    Returns:
        The prompt, which ends with a newline, and the response.

    Raises:
        LensNeuronsError: no such meeting or language, or the same language twice.
    """
    choose(meeting, MEETINGS, "meeting")
    if languages[0] == languages[1]:
        raise LensNeuronsError(f"languages={languages}: give two different languages")
    first, second = (find_language(code) for code in languages)
    variant = pick_variant(problem, first)
    question = write_question(problem, first, variant)
    if meeting == "switch":
        question = write_question(problem, _count_in(first, second), variant)
        question = re.sub(" +", " ", question.strip())
        return f"{question}\n", write_answer(problem, first, worked=worked)
    if meeting == "answer":
        prompt = f"{question}{first.space}{request(meeting, first, second)}\n"
        return prompt, write_answer(problem, second, worked=worked)
    translation = write_question(problem, second, variant)
    if meeting == "translate":
        return f"{request(meeting, first, second)}{first.space}{question}\n", translation
    answers = [write_answer(problem, language, worked=worked) for language in (first, second)]
    return f"{question}\n", "\n".join((answers[0], translation, answers[1]))


def request(meeting: Literal["answer", "translate"], first: Language, second: Language) -> str:
    """Ask in the first language for an answer in, or a translation into, the second."""
    names = first.languages[second.code]
    return first.requests[meeting].format(language=names[-1 if meeting == "translate" else 0])


def _count_in(language: Language, other: Language) -> Language:
    """Return a language that spells numbers in the words of another."""
    switched = copy(language)
    apart = language.code in _WITHOUT_SPACES and not {language.code, other.code} <= _HAN
    form = " {} " if apart else "{}"
    vars(switched)["spell"] = lambda value, *_: form.format(other.spell(value))
    return switched
