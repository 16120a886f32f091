"""Which language a text is written in: first its script, then a model of letter sequences.

    confidence = (share of the letters in the main script) * P(language | text in that script)

Numbers, LaTeX commands, single Latin letters (``x``, ``A``) and the words in ``ignore`` (names) say
nothing about a language and are left out. The script with the most letters decides:

* Han and kana are Japanese if kana are 5 % of them. Han alone is Chinese, with confidence
  ``1 / (1 + 0.4^n)``: of Japanese runs of n characters a share of about 0.4^n has no kana
  (measured for n = 2 to 10).
* A script of one language (Thai, Bengali) is that language.
* In any other script `lingua <https://github.com/pemistahl/lingua-py>`_ chooses among the languages
  of that script that it knows. Of its 49 Latin ones (0.9 GB, ten seconds to read) only those in
  `languages` and eleven large ones take part (0.3 GB, three seconds). The eleven are there to be
  found out: if the language of a text was no candidate, 36 to 60 % of its texts of 40 characters
  were taken for another corpus language without them, 2 to 12 % with them (whole sentences: 64 to
  83 % and 2 to 18 %, French 47 %). The price: of English texts of 40 characters 88 % are
  recognised in place of 98 %; the others are undetermined.

A guess below `minimum_confidence`, or for a text without letters, is undetermined: its language is
None.

How many texts are recognised grows with their length: of runs of 10, 20, 40 and 80 characters of
1997 news sentences (NTREX) at least 28, 55, 86 and 96 % in each of ten languages, with at most 4.0,
2.0, 0.8 and 0.5 % taken for another (all numbers: assets/measurements.md). Of the 250 questions of
MGSM in each language one is undetermined, in French, and none is mistaken.

An undetermined text is no mistake. Whoever counts it as one favours languages that are told sooner:
of runs of 40 characters 88 % of the English, 86 % of the Spanish and all of the Chinese ones are
recognised, a bias of 14 points between languages (72 at 10 characters, 45 at 20, 4 at 80). Among
the texts whose language could be told, the languages differ by 0.9 points at 40 characters (10.5 at
10, 3.3 at 20, 0.5 at 80). So compare languages by that share (``right_language_determined`` of
`Accuracy.per_language`), or over texts of 80 characters or more.

>>> detect_language("Die Antwort ist neunundfünfzig (59).", languages=["de", "en", "th"]).language
'de'
>>> detect_language("38 + 21 = 59").language is None
True

What it does not show: that the text makes sense. Nonsense made of English pieces is English, and a
language that neither lingua nor `languages` has is taken for its nearest neighbour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import langcodes
import regex

from lensneurons.errors import LensNeuronsError
from lensneurons.languages.codes import language_code, scripts
from lensneurons.options import plain_options

# Latin languages that always take part: a model that leaves its language falls into a large one,
# English above all.
NEIGHBOURS = ("en", "es", "fr", "de", "pt", "it", "nl", "pl", "id", "tr", "vi")
MINIMUM_CONFIDENCE = 0.5

_DIGITS = 9  # of a probability
_KANA = ("Hira", "Kana")
_KANA_SHARE = 0.05  # Japanese NTREX sentences have 18 % or more, Chinese ones none
_NO_KANA = 0.4  # share of single characters of Japanese text after which kana are still missing
_ONLY_JAPANESE = 100.0  # odds for Japanese where a corpus has it and no Chinese

# How many letters English needs for one of theirs (NTREX: 2.9 for Han, 2.0 for Japanese), so that
# a foreign name in a Chinese sentence does not weigh three times its due.
_WEIGHT = {"Hani": 3.0, "Jpan": 2.0}

_SILENT = regex.compile(r"\\[A-Za-z]+|\p{N}+|(?<!\p{L})\p{Script=Latn}(?!\p{L})")
_NUMBERS = regex.compile(r"\\[A-Za-z]+|\p{N}+")
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}'’-]*")


@dataclass(frozen=True, slots=True)
class LanguageGuess:
    """The language that a text seems to be written in.

    Attributes:
        language: its tag, spelt as in `languages` if it is one of them; None for undetermined.
        confidence: 0 to 1, of the best language, even if it is too low to be named.
        script: ISO 15924 code of the script with the most letters (kana and Han of a Japanese text
            are ``"Jpan"``); None if the text has no letters.
    """

    language: str | None
    confidence: float
    script: str | None


@plain_options
def detect_language(
    text: str,
    *,
    languages: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    minimum_confidence: float = MINIMUM_CONFIDENCE,
) -> LanguageGuess:
    """Guess the language of a text.

    Args:
        text: any text; the more letters the better (the module says how many are needed).
        languages: tags of the languages to expect; others can still be the answer. None expects
            every language that lingua knows (for Latin texts 0.9 GB and ten seconds, once).
        ignore: words to leave out, such as names; whole words, in any case.
        minimum_confidence: below it the language is None.

    Raises:
        CorpusError: a tag names no language.
        LensNeuronsError: a language that cannot be told from others of its script, or a
            `minimum_confidence` outside 0 to 1.
    """
    if not 0 <= minimum_confidence <= 1:
        raise LensNeuronsError(f"minimum_confidence={minimum_confidence} is not between 0 and 1")
    expected = None if languages is None else require_identifiable(tuple(languages))
    words = leave_out(text, ignore)
    counts = _count_scripts(_SILENT.sub(" ", words), expected or ())
    if not counts:
        return LanguageGuess(None, 0.0, None)
    weights = {script: n * _WEIGHT.get(script, 1.0) for script, n in counts.items()}
    script = max(weights, key=lambda one: weights[one])
    language, probability = _ask(_NUMBERS.sub(" ", words), script, counts[script], expected)
    confidence = probability * weights[script] / sum(weights.values())
    if confidence < minimum_confidence or confidence == 0:
        return LanguageGuess(None, confidence, script)
    spelt = next((tag for tag in expected or () if _base(tag) == language), language)
    return LanguageGuess(spelt, confidence, script)  # "pt-BR" for "pt" where a corpus says so


def names_in(prompt: str) -> frozenset[str]:
    """The words of a prompt that begin with a capital letter: names, mostly.

    A response repeats the names of its prompt in whatever language it is written, so they are no
    evidence. German nouns and the first words of sentences come along.
    """
    return frozenset(word for word in _WORD.findall(prompt) if word[0].isupper())


def leave_out(text: str, ignore: Iterable[str]) -> str:
    """The text without the words in `ignore`: whole words, in any case."""
    words = {word.casefold() for word in ([ignore] if isinstance(ignore, str) else ignore)}
    return _WORD.sub(lambda found: " " if found[0].casefold() in words else found[0], text)


@lru_cache(maxsize=64)
def require_identifiable(languages: tuple[str, ...]) -> tuple[str, ...]:
    """Make sure that each language can be told from all others, and return the canonical tags.

    Raises:
        CorpusError: a tag names no language.
        LensNeuronsError: lingua does not know a language that shares its script with another one,
            or two tags are one language (``"zh-Hans"`` and ``"zh-Hant"``).
    """
    tags = tuple(dict.fromkeys(map(language_code, languages)))
    if twins := [tag for tag in tags if sum(_base(tag) == _base(other) for other in tags) > 1]:
        raise LensNeuronsError(f"{twins} are one language to a model of its letters: keep one")
    for tag in tags:
        if not any(_base(tag) in _models().get(script, ()) for script in scripts(tag)):
            rivals = {s for other in tags if other != tag for s in scripts(other)} | set(_models())
            if not scripts(tag) or scripts(tag) & rivals:
                raise LensNeuronsError(
                    f"{tag!r} cannot be told from other languages of its script, because lingua "
                    "does not know it: leave it out, or pass your own identify="
                )
    return tags


def _base(tag: str) -> str:
    """The language of a tag without script and region; "swh" is "sw", "nb" and "nn" are "no"."""
    base = langcodes.Language.get(langcodes.standardize_tag(tag, macro=True)).language or tag
    return "no" if base in ("nb", "nn") else base


@lru_cache(maxsize=1)
def _models() -> dict[str, dict[str, list[Any]]]:
    """Script to language to lingua's languages (two for Norwegian)."""
    import lingua

    models: dict[str, dict[str, list[Any]]] = {}
    for language in sorted(lingua.Language.all(), key=lambda one: one.name):
        tag = language.iso_code_639_1.name.lower()
        for script in scripts(tag):
            models.setdefault(script, {}).setdefault(_base(tag), []).append(language)
    return models


@lru_cache(maxsize=32)
def _letters(tags: tuple[str, ...]) -> regex.Pattern[str]:
    """The pattern of one letter, whose group is its script; Zzzz for all other scripts."""
    named = sorted(set(_models()).union(*map(scripts, tags)))
    groups = "|".join(rf"(?P<{script}>\p{{Script={script}}})" for script in named)
    other = r"(?P<Zzzz>[^\p{Script=Zyyy}\p{Script=Zinh}])"
    return regex.compile(rf"(?=\p{{L}})(?:{groups}|{other})")


def _count_scripts(text: str, tags: tuple[str, ...]) -> Counter[str]:
    """Letters by script; Han and kana are one, ``"Jpan"`` or, with hardly any kana, Hani."""
    counts = Counter(str(found.lastgroup) for found in _letters(tags).finditer(text))
    kana = sum(counts.pop(script, 0) for script in _KANA)
    both = kana + counts.pop("Hani", 0)
    if both:
        counts["Jpan" if kana > _KANA_SHARE * both else "Hani"] = both
    return counts


def _ask(
    text: str, script: str, letters: int, expected: tuple[str, ...] | None
) -> tuple[str | None, float]:
    """The likeliest language of a text mostly in one script, and its probability."""
    if script == "Jpan":
        return "ja", 1.0
    if script == "Hani":  # without kana: Chinese, or a short Japanese text
        bases = {_base(tag) for tag in expected or ()}
        odds = _NO_KANA**letters * (_ONLY_JAPANESE if bases & {"ja", "zh"} == {"ja"} else 1.0)
        return ("ja", odds / (1 + odds)) if odds > 1 else ("zh", 1 / (1 + odds))
    candidates = known = tuple(_models().get(script, ()))
    if expected is not None:
        own = [_base(tag) for tag in expected if script in scripts(tag)]
        candidates = tuple(dict.fromkeys([*own, *(NEIGHBOURS if script == "Latn" else known)]))
    if len(candidates) < 2:
        return (candidates[0], 1.0) if candidates else (None, 0.0)
    text = regex.sub(rf"(?!\p{{Script={script}}})\p{{L}}+", " ", text)
    shares = dict.fromkeys(candidates, 0.0)
    for value in _detector(script, candidates).compute_language_confidence_values(text):
        shares[_base(value.language.iso_code_639_1.name.lower())] += value.value
    best = max(shares, key=lambda tag: shares[tag])
    # Lingua adds in an order of its own each time: the last bits differ between two calls.
    return best, min(1.0, round(shares[best], _DIGITS))


@lru_cache(maxsize=32)
def _detector(script: str, candidates: tuple[str, ...]) -> Any:
    """Lingua's detector of some languages of a script; it reads its models when first asked."""
    import lingua

    languages = [one for tag in candidates for one in _models()[script][tag]]
    return lingua.LanguageDetectorBuilder.from_languages(*languages).build()
