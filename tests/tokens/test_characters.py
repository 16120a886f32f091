"""Tokens are shown by whole characters: none is cut, nothing is lost, every byte has its place.

What a token touches is computed apart from the tokenizers' offsets: from the bytes that its piece
stands for, laid end to end.
"""

from __future__ import annotations

from itertools import accumulate

import pytest
import regex
from corpus_data import whole_words
from many_scripts import BYTES, tokenizer, world
from tiny import byte_tokenizer

from lensneurons.demo.world import LANGUAGES
from lensneurons.plots.labels import plain
from lensneurons.tokens.characters import bytes_note, bytes_told, group_tokens, token_labels


def lengths_in_bytes(kind: str, ids: tuple[int, ...]) -> list[int]:
    """How many bytes of (marked) text each token stands for."""
    pieces = tokenizer(kind).convert_ids_to_tokens(list(ids))
    if kind == "demo":
        return [0 if piece == "<s>" else len(piece) for piece in pieces]
    if kind == "bytes":
        return [len(piece) for piece in pieces]  # one letter of its alphabet a byte
    return [1 if piece in BYTES else len(piece.replace("▁", " ").encode()) for piece in pieces]


def touched_by_bytes(kind: str, text: str, ids: tuple[int, ...]) -> list[set[int]]:
    """The tokens that touch each character, from where their bytes fall."""
    marker = "" if kind == "demo" else " "
    owner = [t for t, length in enumerate(lengths_in_bytes(kind, ids)) for _ in range(length)]
    assert len(owner) == len((marker + text).encode())
    found, at = [], len(marker)
    for character in regex.findall(r"\X", text):
        size = len(character.encode())
        found.append(set(owner[at : at + size]))
        at += size
    if marker:  # the marker belongs to the first character, which its offsets say
        found[0] |= {owner[0]}
    return found


@pytest.mark.parametrize("kind", ["demo", "bytes", "fallback", "unigram"])
def test_the_shown_text_is_the_text_and_no_character_is_cut(kind: str) -> None:
    texts = [text for language in world().values() for text in language]
    assert len(texts) == 600
    for text, read in zip(texts, group_tokens(tokenizer(kind), texts), strict=True):
        assert "".join(span.text for span in read.spans) == read.text == text
        ends = {0} | {found.end() for found in regex.finditer(r"\X", text)}
        assert {*accumulate(len(span.text) for span in read.spans)} <= ends
        members = [span.tokens for span in read.spans]
        assert all(one != next_ for one, next_ in zip(members, members[1:], strict=False))
        assert {t for m in members for t in m} | {*read.added} == {*range(len(read.ids))}


@pytest.mark.parametrize("kind", ["demo", "bytes", "fallback"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_span_names_the_tokens_whose_bytes_it_holds(kind: str, language: str) -> None:
    texts = [*world()[language][:5], "é👍🏽 ক্ষ ห้ำ 👨‍👩‍👧."]
    for text, read in zip(texts, group_tokens(tokenizer(kind), texts), strict=True):
        ours = [set(s.tokens) for s in read.spans for _ in regex.findall(r"\X", s.text)]
        assert ours == touched_by_bytes(kind, text, read.ids)


def test_bytes_of_a_run_of_unknown_characters_go_to_their_own_characters() -> None:
    """Unigram gives each byte of the run the offsets of the whole run."""
    read = group_tokens(tokenizer("unigram"), ["ক খ😀গ"])[0]
    spans = [(span.text, len(span.tokens)) for span in read.spans]
    assert spans[-3:] == [("খ", 3), ("😀", 4), ("গ", 3)]
    normalised = group_tokens(tokenizer("unigram"), ["Ａé①ﬁ\ufdfa"])[0]
    assert "".join(span.text for span in normalised.spans) == "Ａé①ﬁ\ufdfa"
    assert {t for s in normalised.spans for t in s.tokens} == {*range(len(normalised.ids))}


def test_what_the_tokenizer_drops_is_shown_without_a_token() -> None:
    read = group_tokens(whole_words(["[UNK]", "a"], unk_token="[UNK]"), ["a  b\n"])[0]
    spans = [(span.text, span.tokens) for span in read.spans]
    assert spans == [("a", (0,)), ("  ", ()), ("b", (1,)), ("\n", ())]


def test_labels_are_whole_characters_with_an_ellipsis_inside_them() -> None:
    read = group_tokens(byte_tokenizer(bos=True), ["é X\0", "\U00013000"])
    assert token_labels(read[0], plain) == ("<s>", "é…", "…é", "␣", "X", "␀")
    assert token_labels(read[1])[1:] == ("𓀀…", "…𓀀…", "…𓀀…", "…𓀀")
    assert read[0].pieces[:3] == ("<s>", "<C3>", "<A9>")
    assert read[0].added == (0,)


def test_a_lone_surrogate_is_read_as_the_replacement_character() -> None:
    bad, good = group_tokens(tokenizer("demo"), ["a\ud800b", "a\ufffdb"])
    assert bad.ids == good.ids
    assert "".join(span.text for span in bad.spans) == "a\ud800b"


def test_pieces_that_are_bytes_are_told_in_words() -> None:
    """Every cut of characters of two, three and four bytes, in both ways of writing bytes."""
    for character in "éЖह苹한🍎𐍈":
        spelled = character.encode()
        for cut in range(1, len(spelled)):
            for part, place in ((spelled[:cut], "first"), (spelled[cut:], "later")):
                written = f"<{part.hex(' ').upper()}>"
                told = bytes_told(written)
                many = f"{len(part)} " if len(part) > 1 else ""
                if place == "first":
                    assert told == f"the first {many}of the {len(spelled)} bytes of a character"
                else:
                    noun = "bytes" if many else "byte"
                    assert told == f"{many or 'a '}later {noun} of a character"
                assert f"such as {written} is bytes" in bytes_note(["cat", written])
                if len(part) == 1:
                    assert bytes_told(f"<0x{part.hex().upper()}>") == told
    both = f"<{('é'.encode()[1:] + '苹'.encode()[:1]).hex(' ').upper()}>"
    assert bytes_told(both) == bytes_told("<0x0A>") == "bytes of characters"
    for piece in ("cat", "<s>", "<E4", "E4>", "<e4>", "<E4B8>", "<0xE4 B8>x", "", "苹"):
        assert bytes_told(piece) == ""
    assert bytes_note(["cat", "苹"]) == ""


@pytest.mark.parametrize("kind", ["bytes", "fallback"])
def test_pieces_of_a_real_reading_are_told_where_they_hold_no_whole_character(kind: str) -> None:
    (read,) = group_tokens(tokenizer(kind), ["ab 🍎"])
    assert [bytes_told(piece) for piece in read.pieces][-4:] == [
        "the first of the 4 bytes of a character", *["a later byte of a character"] * 3
    ]  # fmt: skip
