"""Language tags, names and scripts."""

from __future__ import annotations

import pytest

from lensneurons.errors import CorpusError
from lensneurons.languages.codes import (
    foreign_share,
    language_code,
    language_name,
    language_of_name,
    scripts,
)


@pytest.mark.parametrize(
    ("given", "canonical", "name", "written_in"),
    [
        ("en", "en", "English", {"Latn"}),
        ("eng", "en", "English", {"Latn"}),
        ("ger", "de", "German", {"Latn"}),
        ("zh", "zh", "Chinese", {"Hani"}),
        ("ZH", "zh", "Chinese", {"Hani"}),
        ("zho_Hans", "zh-Hans", "Chinese (Hans)", {"Hani"}),
        ("zh-Hant", "zh-Hant", "Chinese (Hant)", {"Hani"}),
        ("ja", "ja", "Japanese", {"Hani", "Hira", "Kana"}),
        ("ko", "ko", "Korean", {"Hang", "Hani"}),
        ("pt_br", "pt-BR", "Portuguese (BR)", {"Latn"}),
        ("iw", "he", "Hebrew", {"Hebr"}),
        ("el", "el", "Greek", {"Grek"}),
        ("ru", "ru", "Russian", {"Cyrl"}),
        ("sr", "sr", "Serbian", {"Cyrl"}),
        ("sr-Latn", "sr-Latn", "Serbian (Latn)", {"Latn"}),
        ("bn", "bn", "Bengali", {"Beng"}),
        ("sw", "sw", "Swahili", {"Latn"}),
        ("swh", "swh", "Swahili", {"Latn"}),
        ("qaa", "qaa", "qaa", set()),
    ],
)
def test_a_tag_has_a_canonical_form_a_name_and_scripts(given, canonical, name, written_in):
    assert language_code(given) == canonical
    assert language_code(canonical) == canonical
    assert language_name(given) == name
    assert scripts(given) == written_in


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("Chinese", "did you mean 'zh' (Chinese)?"),
        ("german", "did you mean 'de' (German)?"),
        ("Swahilli", "did you mean 'sw' (Swahili)?"),
        ("jp", "did you mean 'ja' (Japanese)?"),
        ("cn", "did you mean 'zh' (Chinese)?"),
        ("xx", "use a BCP-47 tag such as 'en', 'zh' or 'sw'"),
        ("und", "use a BCP-47 tag"),
        ("", "use a BCP-47 tag"),
        ("e n", "use a BCP-47 tag"),
    ],
)
def test_what_is_no_code_is_refused_with_the_likely_one(given, hint):
    with pytest.raises(CorpusError) as refusal:
        language_code(given)
    assert str(refusal.value).startswith(f"{given!r} is not a language code; ")
    assert hint in str(refusal.value)


def test_every_language_of_msvamp_is_found_by_name_and_no_name_is_guessed():
    names = "English Russian Spanish French German Chinese Japanese Bengali Thai Swahili"
    codes = [language_of_name(name) for name in names.split()]
    assert codes == ["en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw"]
    assert [language_name(code) for code in codes] == names.split()
    with pytest.raises(CorpusError, match=r"'Germann' is not the English name .*'de' \(German\)\?"):
        language_of_name("Germann")


@pytest.mark.parametrize(
    ("text", "code", "share"),
    [
        ("Il faut", "th", 1.0),
        ("Il faut", "fr", 0.0),
        ("abcด", "th", 0.75),
        ("日本ひカー", "ja", 0.0),  # U+30FC belongs to no script
        ("日本ab", "ja", 0.5),
        ("12 + 3 = 15!", "ru", 0.0),
        ("", "ru", 0.0),
        ("ก็", "th", 0.0),  # a vowel sign is a mark, not a letter
        ("ก็ab", "en", 1 / 3),
        ("anything", "qaa", 0.0),
    ],
)
def test_foreign_share(text, code, share):
    assert foreign_share(text, code) == pytest.approx(share)
