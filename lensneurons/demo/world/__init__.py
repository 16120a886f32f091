"""Parallel word problems in ten languages, made offline from a seed.

Every problem exists in all ten languages with the same id, numbers and answer. Its content decides
the split, so no test problem was seen in training in any language.

>>> prompt, response = render(generate("test", 1)[0], "en")
>>> response.endswith(").")
True

The texts are grammatical, and free of sense: "a shirt for two dollars" (see ``REVIEW.md``).
"""

from lensneurons.demo.world.language import LANGUAGES, Language, find_language
from lensneurons.demo.world.problems import (
    FAMILIES,
    SPLITS,
    Problem,
    Split,
    generate,
    make_problem,
    stream,
)
from lensneurons.demo.world.template import render

__all__ = [
    "FAMILIES", "LANGUAGES", "SPLITS", "Language", "Problem", "Split",
    "find_language", "generate", "make_problem", "render", "stream",
]  # fmt: skip
