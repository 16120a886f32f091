"""Write a problem in a language, by filling the slots of templates.

The slots of a template stand in braces:

* ``{A}``, ``{A.gen}``: name of the first person (B, C: of the second and third), in a form.
* ``{A?he|she}``: text chosen by the gender of the person; ``{x?m|f}`` by the class of the thing.
* ``{x}``, ``{x.pl}``, ``{box.pl}``: the thing of the problem, or a unit, in a form.
* ``{0}``, ``{0.x}``, ``{1.box.acc}``: a number, alone or counting a thing, in a form.
* ``{eq}``, ``{eq.x}``, ``{r.x}``: the last step, the last step counting a thing, and only the
  counted result (``eq1`` and ``r1``: the first step; ``eq2`` the second, and so on).

Each language has its own forms (see `lensneurons.demo.world.language`).
"""

from __future__ import annotations

import re
import zlib

from lensneurons.demo.world.language import Language, find_language
from lensneurons.demo.world.problems import Problem, work_out

_SLOT = re.compile(r"\{(\w+)([.?]?)([^{}]*)\}")
_STEP = re.compile(r"(eq|r)(\d?)")


def render(problem: Problem, language: str, *, worked: bool = True) -> tuple[str, str]:
    """Write a problem in one of the `LANGUAGES`.

    Args:
        problem: what is asked.
        language: its code.
        worked: begin the response with short reasoning in digits. Otherwise it is direct: the last
            sentence alone.

    Returns:
        The prompt (the question and a newline) and the response, whose last sentence gives the
        answer as a word and as digits, such as "The answer is two (2).".

    Raises:
        LensNeuronsError: no such language.
    """
    found = find_language(language)
    question = write_question(problem, found, pick_variant(problem, found))
    return question + "\n", write_answer(problem, found, worked=worked)


def pick_variant(problem: Problem, language: Language) -> int:
    """Say which variant of its question a problem has in a language."""
    variants = language.questions[problem.family]
    return zlib.crc32(f"{language.code}:{problem.id}".encode()) % len(variants)


def write_question(problem: Problem, language: Language, variant: int) -> str:
    """Write the question of a problem in a variant, counted from 0."""
    question = fill_template(language.questions[problem.family][variant], problem, language)
    return question[0].upper() + question[1:]


def write_answer(problem: Problem, language: Language, *, worked: bool = True) -> str:
    """Write the answer of a problem, worked or direct."""
    closing = language.closing.format(word=language.spell(problem.answer), number=problem.answer)
    reasoning = fill_template(language.steps[problem.family], problem, language)
    answer = reasoning + language.space + closing if worked else closing
    return answer[0].upper() + answer[1:]


def fill_template(template: str, problem: Problem, language: Language) -> str:
    """Replace every slot of a template by what the problem holds, as the language writes it."""
    keys = dict(zip("ABC", problem.people, strict=False))
    keys |= zip("x", problem.things, strict=False)

    def fill(slot: re.Match[str]) -> str:
        head, operator, rest = slot.groups()
        key = keys.get(head, head)
        if operator == "?":
            place = key.startswith("f") if head in "ABC" else language.agree(key)
            return rest.split("|")[place]
        if head in "ABC":
            return language.name(language.names[key], rest)
        noun, _, form = rest.partition(".")
        noun = keys.get(noun, noun)
        if head.isdigit():
            value, as_digits = problem.numbers[int(head)], int(head) in problem.digits
            if noun:
                return language.count(value, noun, form, as_digits)
            return str(value) if as_digits else language.spell(value)
        if of_step := _STEP.fullmatch(head):
            equation, place = of_step[1] == "eq", int(of_step[2] or 0) - 1
            step = work_out(problem.family, problem.numbers)[place]
            result = str(step.result)
            if noun:
                result = language.count(step.result, noun, form or "eq" * equation, True)
            return f"{step.left} {step.sign} {step.right} = {result}" if equation else result
        return language.noun(key, rest)

    return _SLOT.sub(fill, template)
