"""The ten languages of the demo world: their words, read from data files, and their grammar.

Nearly all of a language is data, in ``words/CODE.toml``:

* ``columns`` and ``nouns``: the forms of every noun, and its class (gender, or the like).
* ``classes``: words that go with the nouns of a class, such as articles.
* ``phrases``: forms made of others, such as ``a = "{article} {noun}"``.
* ``counts``: how a number and a noun are put together, by form (``plain``, if no form is given).
* ``questions``, ``steps``, ``closing``: templates (see `lensneurons.demo.world.template`).
* ``requests``, ``languages``: how to ask for an answer in, or a translation into, each language.

A subclass of `Language` adds the rules that a table cannot hold.

>>> find_language("fr").count(21, "chair", "", False)
'vingt et une chaises'
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import normalize

from num2words import num2words

from lensneurons.demo.world.problems import NAMES
from lensneurons.errors import choose

Noun = Mapping[str, str]


class Language:
    """The words, templates and grammar of one language.

    Attributes:
        code: two letters, the name of the data file.
        names: key of a name to the name.
        nouns: key of a thing, unit or place to its forms by name of the form; ``noun`` is the basic
            one. ``class`` is no form.
        questions: family to the variants of its question.
        steps: family to the template of its reasoning.
        closing: last sentence of a worked answer, with the slots ``{word}`` and ``{number}``.
        space: what stands between two sentences.
        requests: ``"answer"`` or ``"translate"`` to a sentence with the slot ``{language}``.
        languages: code to what fills that slot, for each of the two where they differ.
    """

    def __init__(self, code: str) -> None:
        path = Path(__file__).with_name("words") / f"{code}.toml"
        table: dict[str, Any] = tomllib.loads(normalize("NFC", path.read_text(encoding="utf-8")))
        self.code = code
        names = f"{table['women']} {table['men']}".split()
        self.names: dict[str, str] = dict(zip(NAMES, names, strict=True))
        self.questions: dict[str, list[str]] = table["questions"]
        self.steps: dict[str, str] = table["steps"]
        self.closing: str = table["closing"]
        self.requests: dict[str, str] = table["requests"]
        self.languages: dict[str, list[str]] = table["languages"]
        self.space: str = table.get("space", " ")
        self._classes: dict[str, dict[str, str]] = table.get("classes", {})
        self._numbers: dict[str, Any] = table.get("numbers", {})
        self._numeral: str = table.get("numeral", "{}")
        self._counts = {"plain": "{number} {noun}", **table.get("counts", {})}
        self.nouns: dict[str, dict[str, str]] = {
            key: dict(zip(("noun", "loc"), words, strict=False))
            for key, words in table["places"].items()
        }
        for key, words in table["nouns"].items():
            noun = self.nouns[key] = dict(zip(table["columns"], words, strict=False))
            noun |= self._classes.get(noun.get("class", ""), {})
            noun |= self.inflect(noun)
            for form, phrase in table.get("phrases", {}).items():
                noun[form] = phrase.format_map(noun)

    def inflect(self, noun: Noun) -> dict[str, str]:
        """Derive the forms of a noun that follow from its other forms by rule."""
        return {}

    def spell(self, value: int, noun: Noun | None = None) -> str:
        """Write a number from 0 to 999 in words, such as "one hundred and five".

        `noun` is what it counts, as in `nouns`; None for the number by itself.
        """
        return _spell(value, self.code)

    def noun(self, key: str, form: str) -> str:
        """Write a thing, unit or place in a form; in its basic form where it has no such form."""
        return self.nouns[key].get(form, self.nouns[key]["noun"])

    def count(self, value: int, key: str, form: str, as_digits: bool) -> str:
        """Write a number together with what it counts: "twelve apples" or "12 apples".

        Args:
            value: the number.
            key: of the thing or unit.
            form: one of this language's; any other is the plain one.
            as_digits: write the number in digits.
        """
        noun = self.nouns[key]
        words = {
            "number": self._numeral.format(value) if as_digits else self.spell(value, noun),
            "digits": str(value),
            "noun": self.noun(key, "" if value == 1 else "pl"),
        }
        return self._counts.get(form, self._counts["plain"]).format_map({**noun, **words})

    def name(self, name: str, form: str) -> str:
        """Write a name in a form."""
        return name

    def agree(self, key: str) -> int:
        """Say which alternative of a ``{x?...|...}`` slot goes with a thing."""
        noun = self.nouns[key]
        return list(self._classes).index(noun["class"]) if "class" in noun else 0


@cache
def _spell(value: int, language: str, **options: Any) -> str:
    return str(num2words(value, lang=language, **options))


class _English(Language):
    def inflect(self, noun: Noun) -> dict[str, str]:
        return {"a": f"{'an' if noun['noun'][0] in 'aeiou' else 'a'} {noun['noun']}"}

    def name(self, name: str, form: str) -> str:
        return f"{name}'s" if form == "s" else name


class _Russian(Language):
    def inflect(self, noun: Noun) -> dict[str, str]:
        word = noun["noun"]
        if noun["class"] == "f":
            word = word[:-1] + {"а": "у", "я": "ю"}.get(word[-1], word[-1])
        animate_man = noun["class"] == "m" and "animate" in noun
        return {"acc": noun["gen"] if animate_man else word}

    def spell(self, value: int, noun: Noun | None = None, case: str = "n") -> str:
        """Write a number: case n(ominative), d(ative), i(nstrumental), a(ccusative of things)."""
        gender = noun["class"] if noun else "m"
        if case != "a":
            return _spell(value, "ru", gender=gender, case=case[0])
        words = _spell(value, "ru", gender=gender, case="n")
        return words[:-1] + "у" if words.endswith("одна") else words

    def count(self, value: int, key: str, form: str, as_digits: bool) -> str:
        noun = self.nouns[key]
        teen, last = value % 100 in range(11, 15), value % 10
        one, few = last == 1 and not teen, last in (2, 3, 4) and not teen
        shown = form if one else "gen" if few else "gpl"
        case = "a" if form == "acc" else "n"
        if form in ("dat", "ins"):
            case, shown = form[0], f"{form}1" if one else form
        elif form == "acc" and "animate" in noun:
            # num2words' accusative is that of animates. Only 2, 3 and 4 by themselves decline
            # ("двух коз"); "двадцать две козы" does not.
            if value in (2, 3, 4):
                case, shown = "animate", "gpl"
            elif one and noun["class"] == "m":
                case = "animate"
        number = str(value) if as_digits else self.spell(value, noun, case)
        return f"{number} {self.noun(key, shown)}"

    def name(self, name: str, form: str) -> str:
        if form not in ("gen", "dat"):
            return name
        genitive, stem, last = form == "gen", name[:-1], name[-1]
        if name.endswith("ия"):
            return stem + "и"
        if last == "а":
            return stem + (("и" if stem[-1] in "гкхжшчщ" else "ы") if genitive else "е")
        if last == "я":
            return stem + ("и" if genitive else "е")
        if last in "йь":
            return stem + ("я" if genitive else "ю")
        return name + ("а" if genitive else "у")


class _Spanish(Language):
    def spell(self, value: int, noun: Noun | None = None) -> str:
        words, gender = _spell(value, "es"), noun["class"] if noun else ""
        if gender == "m" and words.endswith("uno"):
            return words[:-3] + ("ún" if words.endswith("veintiuno") else "un")
        if gender == "f":
            words = words[:-1] + "a" if words.endswith("uno") else words
            return words.replace("cientos", "cientas").replace("quinientos", "quinientas")
        return words

    def name(self, name: str, form: str) -> str:
        """Write a name; the form "y" puts "and" before it, which is "e" before an i."""
        return f"{'e' if name[0] in 'IÍ' else 'y'} {name}" if form == "y" else name


class _French(Language):
    def inflect(self, noun: Noun) -> dict[str, str]:
        return {"de": self.name(noun["pl"], "de")}

    def spell(self, value: int, noun: Noun | None = None) -> str:
        words = _spell(value, "fr")
        is_one = value % 10 == 1 and value % 100 not in (11, 71, 91)
        return words + "e" if noun and noun["class"] == "f" and is_one else words

    def name(self, name: str, form: str) -> str:
        """Write a name; the forms "de" and "que" put that word before it, shortened if need be."""
        if not form:
            return name
        elided = name[0].lower() in "aeiouhàâéèêîôûœ"
        return f"{form[:-1]}'{name}" if elided else f"{form} {name}"


class _German(Language):
    def inflect(self, noun: Noun) -> dict[str, str]:
        return {"dat": noun["pl"] + ("" if noun["pl"][-1] in "ns" else "n")}

    def count(self, value: int, key: str, form: str, as_digits: bool) -> str:
        if key == "time":  # one word: dreimal, 3-mal
            return f"{value}-mal" if as_digits else f"{self.spell(value)}mal"
        return super().count(value, key, form, as_digits)


class _Chinese(Language):
    def spell(self, value: int, noun: Noun | None = None) -> str:
        if noun and value == 2:
            return "两"
        characters = "零一二三四五六七八九"
        hundreds, tens, units = value // 100, value // 10 % 10, value % 10
        unit = characters[units] if units or not value else ""
        ten = characters[tens] + "十" if tens else "零" * bool(hundreds and units)
        if not hundreds:
            return ("十" if tens == 1 else ten) + unit
        return ("两" if hundreds == 2 else characters[hundreds]) + "百" + ten + unit


class _Bengali(Language):
    def inflect(self, noun: Noun) -> dict[str, str]:
        return {"gen": self.name(noun["noun"], "gen"), "loc": noun["noun"] + "য়"}

    def spell(self, value: int, noun: Noun | None = None) -> str:
        hundreds, rest = divmod(value, 100)
        words = self._numbers["hundreds"].split()[hundreds - 1 : hundreds]
        below = " ".join(self._numbers["below_hundred"]).split()
        return " ".join([*words, below[rest]] if rest or not hundreds else words)

    def count(self, value: int, key: str, form: str, as_digits: bool) -> str:
        """Write number, classifier and noun: "ta" the plainer classifier, "per" so many to each."""
        noun = self.nouns[key]
        number = str(value) if as_digits else self.spell(value)
        classifier = noun.get("ta" if form.startswith("ta") else "ti", "")
        if as_digits and noun.get("class") == "j":
            classifier = f" {classifier}"
        if number.endswith("দুই") and classifier:  # দুটি, দুটো, দুজন
            number, classifier = number[:-1], "টো" if classifier == "টা" else classifier
        each = " করে" if form.endswith("per") else ""
        counted = self.noun(key, form if form in ("gen", "loc") else "")
        return f"{number}{classifier}{each} {counted}"

    def name(self, name: str, form: str) -> str:
        if form == "gen":  # by the last sound
            after_vowel = name[-1] in "ািীুূেো"
            return name + ("র" if after_vowel else "য়ের" if name[-1] == "ই" else "ের")
        return name + "কে" if form == "acc" else name


class _Swahili(Language):
    def spell(self, value: int, noun: Noun | None = None) -> str:
        noun = noun or self._classes["10"]  # that of numbers by themselves
        units, tens = self._numbers["units"].split(), self._numbers["tens"].split()
        hundred, ten, unit = value // 100, value // 10 % 10, value % 10
        parts = [f"mia {units[hundred]}"] * bool(hundred) + [tens[ten - 1]] * bool(ten)
        if unit == 1:
            parts += [noun["unit"]]
        elif unit or not value:
            stem = self._numbers["stems"].get(str(unit))
            parts += [noun["prefix"] + stem if stem and noun["prefix"] else units[unit]]
        return " na ".join(parts) if len(parts) < 3 else f"{parts[0]} {parts[1]} na {parts[2]}"


_GRAMMARS: dict[str, type[Language]] = {
    "en": _English, "ru": _Russian, "es": _Spanish, "fr": _French, "de": _German,
    "zh": _Chinese, "ja": Language, "bn": _Bengali, "th": Language, "sw": _Swahili,
}  # fmt: skip
LANGUAGES: tuple[str, ...] = tuple(_GRAMMARS)


def find_language(code: str) -> Language:
    """Return one of the `LANGUAGES` of the world, read once.

    Raises:
        LensNeuronsError: no such language.
    """
    return _read(choose(code, LANGUAGES, "language"))


@cache
def _read(code: str) -> Language:
    return _GRAMMARS[code](code)
