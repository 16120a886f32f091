"""Parallel mathematical word problems in ten languages, made offline from a seed.

Every problem exists in all ten languages with the same id, numbers and answer. A problem belongs
to one split, decided by its content, so a test problem was never seen in any language.
"""

from .bengali import BENGALI
from .chinese import CHINESE
from .english import ENGLISH
from .french import FRENCH
from .german import GERMAN
from .japanese import JAPANESE
from .problems import FAMILIES, SPLITS, Problem, Split, generate, make_problem, stream
from .russian import RUSSIAN
from .spanish import SPANISH
from .swahili import SWAHILI
from .template import Language, write_problem
from .thai import THAI

__all__ = [
    "FAMILIES", "LANGUAGES", "SPLITS", "Problem", "Split",
    "find_language", "generate", "make_problem", "render", "stream",
]  # fmt: skip

_ALL = (ENGLISH, RUSSIAN, SPANISH, FRENCH, GERMAN, CHINESE, JAPANESE, BENGALI, THAI, SWAHILI)
_BY_CODE = {language.code: language for language in _ALL}
LANGUAGES: tuple[str, ...] = tuple(_BY_CODE)


def find_language(code: str) -> Language:
    """Find what writes problems in a language.

    Args:
        code: One of :data:`LANGUAGES`.

    Returns:
        The language's words, templates and rules.

    Raises:
        ValueError: If there is no such language.
    """
    if code not in _BY_CODE:
        raise ValueError(f"unknown language {code!r}; choose one of {', '.join(LANGUAGES)}")
    return _BY_CODE[code]


def render(problem: Problem, language: str) -> tuple[str, str]:
    """Write a problem in a language.

    Args:
        problem: The problem.
        language: One of :data:`LANGUAGES`.

    Returns:
        The prompt (the question and a newline) and the response: short reasoning in digits, then a
        sentence that gives the answer as a word and as digits, such as "The answer is two (2).".

    Raises:
        ValueError: If there is no such language.
    """
    return write_problem(problem, find_language(language))
