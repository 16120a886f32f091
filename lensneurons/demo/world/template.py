"""The templates that problems are written with, and what a language must provide for them.

A template is text with slots in braces:

* ``{A}``, ``{A.gen}``: the first person's name (B, C: the second, third), in a form.
* ``{A?he|she}``: text chosen by the person's gender; ``{x?m|f}`` by the thing's.
* ``{x}``, ``{x.pl}``, ``{box.pl}``: the problem's thing, or a unit, in a form.
* ``{0}``, ``{0.x}``, ``{1.box.acc}``: a number, alone or counting a thing, in a form.
* ``{eq}``, ``{eq.x}``, ``{r.x}``: the last step, the last step counting a thing, and the counted
  result alone (``eq1`` and ``r1``: those of the first step).

Which forms there are is each language's own business.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from unicodedata import normalize

from .problems import NAMES, Problem, Step, work_out

_HEAD = re.compile(r"^\w*")
_SLOT = re.compile(r"\{([^{}]+)\}")
Piece = str | tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Language:
    """Everything that writes problems in one language.

    Attributes:
        code: Two-letter code.
        names: Name of every name key.
        spell: Writes a number as the word that names it, outside any sentence.
        count: Writes a number with what it counts: (number, key, form, as digits) to text.
        noun: Writes a thing, place or unit: (key, form) to text.
        name: Writes a name: (name, form) to text.
        agree: Position of a thing's alternative in a ``?`` slot.
        questions: Template variants of every family's question.
        steps: Template of every family's reasoning.
        closing: Last sentence of a worked answer; ``{word}`` and ``{number}`` are its slots.
        space: What stands between two sentences.
    """

    code: str
    names: Mapping[str, str]
    spell: Callable[[int], str]
    count: Callable[[int, str, str, bool], str]
    noun: Callable[[str, str], str]
    name: Callable[[str, str], str]
    agree: Callable[[str], int]
    questions: Mapping[str, tuple[str, ...]]
    steps: Mapping[str, str]
    closing: str
    space: str = " "


def read_table(text: str) -> dict[str, tuple[str, ...]]:
    """Read a compact table of words.

    Args:
        text: Entries separated by semicolons; each a key and its fields separated by white space,
            with ``_`` for a space inside a field and ``-`` for an empty field.

    Returns:
        The fields of every key, in Unicode's composed form.
    """
    rows = (normalize("NFC", row).split() for row in text.split(";"))
    return {
        key: tuple("" if field == "-" else field.replace("_", " ") for field in fields)
        for key, *fields in filter(None, rows)
    }


def read_templates(text: str, glue: str = " ") -> dict[str, tuple[str, ...]]:
    """Read a table of question templates.

    Args:
        text: For every family a line with its name, then its variants, each after "- "; other
            lines are indented and continue the variant before them.
        glue: What joins a variant's lines.

    Returns:
        The variants of every family, in Unicode's composed form.
    """
    families = re.split(r"\n(?=\w+\n- )", normalize("NFC", text).strip())
    variants = (family.split("\n- ") for family in families)
    return {name: tuple(v.replace("\n  ", glue) for v in rest) for name, *rest in variants}


def read_names(female: str, male: str) -> dict[str, str]:
    """Pair a language's names with the name keys.

    Args:
        female: Twenty female names separated by white space.
        male: Twenty male names.

    Returns:
        The name of every key, in Unicode's composed form.
    """
    return dict(zip(NAMES, normalize("NFC", f"{female} {male}").split(), strict=True))


def keep_name(name: str, form: str) -> str:
    """Return a name unchanged, for languages whose names have no forms.

    Args:
        name: The name.
        form: Ignored.

    Returns:
        The same name.
    """
    return name


@cache
def _parse(template: str) -> tuple[Piece, ...]:
    """Split a template into literal text and slots (head, operator, rest)."""
    parts = _SLOT.split(normalize("NFC", template))
    return tuple(_split_slot(part) if place % 2 else part for place, part in enumerate(parts))


def _split_slot(slot: str) -> tuple[str, str, str]:
    """Split a slot such as ``A?he|she`` into head, operator and rest."""
    head = _HEAD.findall(slot)[0]
    return head, slot[len(head) :][:1], slot[len(head) + 1 :]


def _fill_step(step: Step, head: str, key: str, form: str, language: Language) -> str:
    """Write a slot of the worked answer: an equation, or its counted result."""
    if not key:
        return step.format_text() if head.startswith("eq") else str(step.result)
    counted = language.count(step.result, key, form or "eq" * head.startswith("eq"), True)
    if head.startswith("r"):
        return counted
    return f"{step.left} {step.sign} {step.right} = {counted}"


def _fill(slot: tuple[str, str, str], problem: Problem, language: Language) -> str:
    """Write one slot of a template."""
    head, operator, rest = slot
    names = zip("ABC", problem.people, strict=False)
    keys = dict(names) | dict(zip("x", problem.things, strict=False))
    if operator == "?":
        at = int(keys[head][0] == "f") if head in "ABC" else language.agree(keys[head])
        return rest.split("|")[at]
    if head in ("A", "B", "C"):
        return language.name(language.names[keys[head]], rest)
    noun, _, form = rest.partition(".")
    noun = keys.get(noun, noun)
    if head.isdigit():
        return _fill_number(problem, int(head), noun, form, language)
    if head in ("eq", "r", "eq1", "r1"):
        step = work_out(problem.family, problem.numbers)[0 if head.endswith("1") else -1]
        return _fill_step(step, head, noun, form, language)
    return language.noun(keys.get(head, head), rest)


def _fill_number(problem: Problem, at: int, noun: str, form: str, language: Language) -> str:
    """Write one of the question's numbers, in words or digits, alone or with what it counts."""
    value, as_digits = problem.numbers[at], at in problem.digits
    if noun:
        return language.count(value, noun, form, as_digits)
    return str(value) if as_digits else language.spell(value)


def fill_template(template: str, problem: Problem, language: Language) -> str:
    """Write a template for a problem.

    Args:
        template: The text with slots.
        problem: Where names, numbers and things come from.
        language: How they are written.

    Returns:
        The text, without slots.
    """
    pieces = _parse(template)
    return "".join(p if isinstance(p, str) else _fill(p, problem, language) for p in pieces)


def write_problem(problem: Problem, language: Language) -> tuple[str, str]:
    """Write a problem's question and worked answer.

    Args:
        problem: What to write.
        language: What to write it in.

    Returns:
        The question with a newline after it, and the worked answer.
    """
    variants = language.questions[problem.family]
    pick = zlib.crc32(f"{language.code}:{problem.id}".encode()) % len(variants)
    reasoning = fill_template(language.steps[problem.family], problem, language)
    closing = language.closing.format(word=language.spell(problem.answer), number=problem.answer)
    prompt = fill_template(variants[pick], problem, language) + "\n"
    response = reasoning + language.space + closing
    return prompt[0].upper() + prompt[1:], response[0].upper() + response[1:]
