"""Languages by name: BCP-47 tags, English names, and the scripts a language is written in.

Everywhere in this package a language is a key like ``"zh"``, never a position in a list. This file
turns what people write (``"ZH"``, ``"eng"``, ``"zh_Hans"``) into one canonical tag and refuses what
is no language. It also knows the scripts of a language, so that French texts under ``"th"`` are
noticed before they are counted. All knowledge comes from the IANA registry and CLDR's likely
subtags, which the ``langcodes`` library ships; there is no table of languages here.

    >>> language_code("eng"), language_name("sw"), sorted(scripts("ja"))
    ('en', 'Swahili', ['Hani', 'Hira', 'Kana'])

What it does not do: detect the language of a text. A Spanish text under ``"en"`` has the right
script and passes.
"""

from __future__ import annotations

import sys
from collections import Counter
from difflib import get_close_matches
from functools import lru_cache

import langcodes
import numpy as np
import regex
from langcodes.data_dicts import LIKELY_SUBTAGS
from langcodes.registry_parser import parse_registry
from langcodes.tag_parser import LanguageTagError

from lensneurons.errors import CorpusError, shown

# Tags that the standard has but that name no one language.
_NO_LANGUAGE = frozenset({"und", "mul", "mis", "zxx"})

# ISO 15924 also has codes for *writing systems*, which mix or narrow Unicode scripts.
_UNICODE_SCRIPTS = {
    "Hans": {"Hani"},
    "Hant": {"Hani"},
    "Hanb": {"Hani", "Bopo"},
    "Hntl": {"Hani", "Latn"},
    "Hrkt": {"Hira", "Kana"},
    "Jpan": {"Hani", "Hira", "Kana"},
    "Jamo": {"Hang"},
    "Kore": {"Hang", "Hani"},
    "Aran": {"Arab"},
    "Latf": {"Latn"},
    "Latg": {"Latn"},
    "Cyrs": {"Cyrl"},
    "Syre": {"Syrc"},
    "Syrj": {"Syrc"},
    "Syrn": {"Syrc"},
}

# Letters with a script of their own: digits, punctuation and U+30FC belong to every language.
_LETTER = r"(?![\p{Script=Zyyy}\p{Script=Zinh}])\p{L}"

# The registry's names carry remarks: "Swahili (macrolanguage)", "Modern Greek (1453-)".
_REMARK = regex.compile(r"^Modern (?=Greek)|\s*\(.*?\)")


# Characters that are counted at once in a long text: 30 times as fast as one by one.
_AT_ONCE = 2**20

# Characters of the longest tag that is looked up: a language, a script, a region and variants.
_LONGEST_TAG = 100


def language_code(tag: str) -> str:
    """The canonical BCP-47 tag of a language: ``"zh"`` for ``"ZH"``, ``"en"`` for ``"eng"``.

    Script and region are kept if given: ``"zh"`` and ``"zh-Hans"`` are two keys.

    Raises:
        CorpusError: the tag names no language (a name like ``"Chinese"`` is refused too, with the
            tag it should be).
    """
    code = known_code(tag)
    if code is None:
        raise CorpusError(refusal(tag))
    return code


def known_code(tag: object) -> str | None:
    """The canonical tag of a language as `language_code` gives it, or None where it would refuse.

    A name that is no language costs as little as one that is, however often it is asked for: the
    suggestion, which takes 20 ms, is for `refusal` to make.
    """
    if not isinstance(tag, str) or len(tag) > _LONGEST_TAG:
        return None
    return _looked_up(str(tag))


@lru_cache(maxsize=4096)
def _looked_up(tag: str) -> str | None:
    try:
        language = langcodes.Language.get(tag)
    except LanguageTagError:
        return None
    if not language.is_valid() or language.language in _NO_LANGUAGE or not language.language:
        return None
    return language.to_tag()


@lru_cache(maxsize=4096)
def language_name(code: str) -> str:
    """The English name of a language: ``"Swahili"`` for ``"sw"``, ``"Chinese (Hant)"``.

    Raises:
        CorpusError: the tag names no language.
    """
    first, _, rest = language_code(code).partition("-")
    name = _all_names().get(first, [first])[0]  # private-use tags like "qaa" have no name
    return f"{name} ({rest})" if rest else name


def language_of_name(name: str) -> str:
    """The tag of a language by its English name in the IANA registry: ``"zh"`` for ``"Chinese"``.

    Raises:
        CorpusError: no language has that name; close names are suggested.
    """
    try:
        return _codes()[name.strip().casefold()]
    except KeyError:
        raise CorpusError(refusal(name, what="the English name of a language")) from None


def alpha3(code: str) -> str:
    """The ISO 639-3 code of a language: ``"zho"`` of ``"zh"``.

    Raises:
        CorpusError: the tag names no language.
    """
    return langcodes.Language.get(language_code(code)).to_alpha3()


@lru_cache(maxsize=4096)
def scripts(code: str) -> frozenset[str]:
    """The Unicode scripts that a language is written in, as four-letter ISO 15924 codes.

    A script in the tag decides (``"sr-Latn"``), else CLDR's likely script (``"sr"`` is Cyrillic).
    Japanese has ``{"Hani", "Hira", "Kana"}``. The set is empty if nothing is known (private-use
    tags): then nothing is foreign.

    Raises:
        CorpusError: the tag names no language.
    """
    # CLDR lists only macrolanguages: "swh" is written as "sw".
    language = langcodes.Language.get(langcodes.standardize_tag(language_code(code), macro=True))
    if language.script is None and language.language not in LIKELY_SUBTAGS:
        return frozenset()  # maximize() would fall back on English and answer "Latn"
    script = language.maximize().script
    return frozenset(_UNICODE_SCRIPTS.get(script, {script}) if script else ())


def foreign_share(text: str, code: str) -> float:
    """The share (0 to 1) of a text's letters in a script that is foreign to its language.

    Letters are Unicode's category L; letters common to all scripts, digits, punctuation and
    combining marks do not count. The share is 0.0 if the text has no letters or the language no
    known script.

    Raises:
        CorpusError: the tag names no language.
    """
    home = scripts(code)
    if not home:
        return 0.0
    times = _occurrences(text)
    letters, foreign = (
        sum(times[char] for char in pattern.findall("".join(times)))
        for pattern in (_letters(), _letters(home))
    )
    return foreign / letters if letters else 0.0


def _occurrences(text: str) -> dict[str, int]:
    """How often each character of a text occurs; each is then looked at once."""
    if len(text) <= _AT_ONCE:
        return Counter(text)
    counts = np.zeros(sys.maxunicode + 1, np.int64)
    for begin in range(0, len(text), _AT_ONCE):
        encoded = text[begin : begin + _AT_ONCE].encode("utf-32-le", "surrogatepass")
        counts += np.bincount(np.frombuffer(encoded, "<u4"), minlength=len(counts))
    return {chr(code): int(counts[code]) for code in counts.nonzero()[0]}


@lru_cache(maxsize=256)
def _letters(outside: frozenset[str] = frozenset()) -> regex.Pattern[str]:
    """The pattern of one letter whose script is none of `outside`."""
    barred = "".join(rf"\p{{Script={script}}}" for script in sorted(outside))
    return regex.compile((rf"(?![{barred}])" if barred else "") + _LETTER)


@lru_cache(maxsize=1)
def _all_names() -> dict[str, list[str]]:
    """The English names of every language subtag, without remarks like "(1453-)"."""
    return {
        entry["Subtag"]: [_REMARK.sub("", name) for name in entry["Description"]]
        for entry in parse_registry()
        if entry["Type"] == "language" and "Deprecated" not in entry and ".." not in entry["Subtag"]
    }


@lru_cache(maxsize=1)
def _codes() -> dict[str, str]:
    """The tag of every English name; of two tags with one name, the shorter."""
    codes: dict[str, str] = {}
    for code, names in sorted(_all_names().items(), key=lambda pair: len(pair[0])):
        for name in names if code not in _NO_LANGUAGE else ():
            codes.setdefault(name.casefold(), code)
    return codes


def refusal(given: object, what: str = "a language code") -> str:
    """The message that refuses `given`, with the tag that was probably meant."""
    hint, text = None, given if isinstance(given, str) else ""
    if len(text) == 2 and (country := f"und-{text.upper()}") in LIKELY_SUBTAGS:
        # "jp" and "cn" are countries; CLDR knows the language most written there.
        hint = langcodes.Language.get(LIKELY_SUBTAGS[country]).language
    elif 3 < len(text) <= _LONGEST_TAG:
        hint = _closest(text.strip().casefold())
    remedy = f"did you mean {hint!r} ({language_name(hint)})?" if hint else ""
    example = "use a BCP-47 tag such as 'en', 'zh' or 'sw'"
    return f"{shown(given)} is not {what}; {remedy or example}"


@lru_cache(maxsize=4096)
def _closest(name: str) -> str | None:
    """The tag of the language whose English name is nearest to a name, if one is near."""
    names = get_close_matches(name, _codes(), n=1, cutoff=0.8)
    return _codes()[names[0]] if names else None
