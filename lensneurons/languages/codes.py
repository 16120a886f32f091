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

from difflib import get_close_matches
from functools import lru_cache

import langcodes
import regex
from langcodes.data_dicts import LIKELY_SUBTAGS
from langcodes.registry_parser import parse_registry
from langcodes.tag_parser import LanguageTagError

from lensneurons.errors import CorpusError

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


@lru_cache(maxsize=4096)
def language_code(tag: str) -> str:
    """The canonical BCP-47 tag of a language: ``"zh"`` for ``"ZH"``, ``"en"`` for ``"eng"``.

    Script and region are kept if given: ``"zh"`` and ``"zh-Hans"`` are two keys.

    Raises:
        CorpusError: the tag names no language (a name like ``"Chinese"`` is refused too, with the
            tag it should be).
    """
    try:
        language = langcodes.Language.get(tag)
    except LanguageTagError:
        raise CorpusError(_refusal(tag)) from None
    if not language.is_valid() or language.language in _NO_LANGUAGE or not language.language:
        raise CorpusError(_refusal(tag))
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
        raise CorpusError(_refusal(name, what="the English name of a language")) from None


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
    letters = len(_letters().findall(text))
    return len(_letters(home).findall(text)) / letters if letters else 0.0


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


def _refusal(given: str, what: str = "a language code") -> str:
    """The message that refuses `given`, with the tag that was probably meant."""
    hint, text = None, str(given)
    if len(text) == 2 and (country := f"und-{text.upper()}") in LIKELY_SUBTAGS:
        # "jp" and "cn" are countries; CLDR knows the language most written there.
        hint = langcodes.Language.get(LIKELY_SUBTAGS[country]).language
    elif len(text) > 3:
        names = get_close_matches(text.strip().casefold(), _codes(), n=1, cutoff=0.8)
        hint = _codes()[names[0]] if names else None
    remedy = f"did you mean {hint!r} ({language_name(hint)})?" if hint else ""
    example = "use a BCP-47 tag such as 'en', 'zh' or 'sw'"
    return f"{given!r} is not {what}; {remedy or example}"
