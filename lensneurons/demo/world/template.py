"""Write a problem in a language, by filling the slots of templates.

The slots of a template stand in braces:

* ``{A}``, ``{A.gen}``: name of the first person (B, C: of the second and third), in a form.
* ``{A?he|she}``: text chosen by the gender of the person; ``{x?m|f}`` by the class of the thing.
* ``{x}``, ``{x.pl}``, ``{box.pl}``: the thing of the problem, or a unit, in a form.
* ``{0}``, ``{0.x}``, ``{1.box.acc}``: a number, alone or counting a thing, in a form.
* ``{eq}``, ``{eq.x}``, ``{r.x}``: the last step, the last step counting a thing, and only the
  counted result (``eq1`` and ``r1``: the first step).

Each language has its own forms (see `lensneurons.demo.world.language`).
"""

from __future__ import annotations

import re
import zlib

from lensneurons.demo.world.language import Language, find_language
from lensneurons.demo.world.problems import Problem, work_out

_SLOT = re.compile(r"\{(\w+)([.?]?)([^{}]*)\}")


def render(problem: Problem, language: str) -> tuple[str, str]:
    """Write a problem in one of the `LANGUAGES`.

    Returns:
        The prompt (the question and a newline) and the response: short reasoning in digits, then a
        sentence that gives the answer as a word and as digits, such as "The answer is two (2).".

    Raises:
        LensNeuronsError: no such language.
    """
    found = find_language(language)
    variants = found.questions[problem.family]
    pick = zlib.crc32(f"{language}:{problem.id}".encode()) % len(variants)
    prompt = fill_template(variants[pick], problem, found) + "\n"
    closing = found.closing.format(word=found.spell(problem.answer), number=problem.answer)
    reasoning = fill_template(found.steps[problem.family], problem, found)
    response = reasoning + found.space + closing
    return prompt[0].upper() + prompt[1:], response[0].upper() + response[1:]


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
        if head in ("eq", "eq1", "r", "r1"):
            step = work_out(problem.family, problem.numbers)[0 if head.endswith("1") else -1]
            equation = head.startswith("eq")
            result = str(step.result)
            if noun:
                result = language.count(step.result, noun, form or "eq" * equation, True)
            return f"{step.left} {step.sign} {step.right} = {result}" if equation else result
        return language.noun(key, rest)

    return _SLOT.sub(fill, template)
