"""Tokens: which ones count, known answers, and laws that hold for every tokenizer."""

from __future__ import annotations

from copy import deepcopy
from inspect import unwrap

import numpy as np
import pytest
from corpus_data import ROWS, TOKENIZERS, byte_level, llama_bytes, llama_like, piece_bytes, words
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import real_data
from transformers import AutoTokenizer, ByT5Tokenizer

from lensneurons.corpora.checks import CorpusWarning
from lensneurons.corpora.corpus import build_corpus, load_corpus
from lensneurons.errors import CorpusError
from lensneurons.tokens import encoding
from lensneurons.tokens.encoding import LanguageTokens, Scope, encode, tokenizer_hash

SCOPES: tuple[Scope, ...] = ("response", "prompt", "all")
CORPUS = build_corpus(ROWS)


def one(prompt, response, tokenizer, scope="response"):
    """The counted tokens of one text, as the tokenizer spells them."""
    row = {"id": "1", "language": "qaa", "prompt": prompt, "response": response}
    encoded = encode(build_corpus([row]), tokenizer, scope=scope)
    ids = encoded.ids[encoded.start[0] : encoded.stop[0]]
    return tokenizer.convert_ids_to_tokens(ids.tolist())


@pytest.mark.parametrize(
    ("tokenizer", "prompt", "response", "counted", "before"),
    [
        # The token " 42" begins in the prompt and holds the response.
        (byte_level, "answer: ", "42", ["Ġ42"], ["answer", ":"]),
        (byte_level, "answer:", " 42", ["Ġ42"], ["answer", ":"]),
        (byte_level, "answer:\n", "42", ["42"], ["answer", ":", "Ċ"]),
        # Trimmed offsets would give these lone spaces no character at all.
        (byte_level, "answer: \n", " \n ", ["Ġ", "Ċ", "Ġ"], ["answer", ":", "Ġ", "Ċ"]),
        # Three byte pieces share each ideograph, and go where it goes.
        (byte_level, "蘭", "蘭", ["è", "ĺ", "Ń"], ["è", "ĺ", "Ń"]),
        (llama_like, "Tom ", "42", ["▁42"], ["▁", "T", "o", "m"]),
        (llama_like, "Tom", "蘭", ["<0xE8>", "<0x98>", "<0xAD>"], ["▁", "T", "o", "m"]),
        (llama_like, "", "Tom", ["▁", "T", "o", "m"], []),
        (words, "Tom has ", "Answer: 43", ["answer", ":", "[UNK]"], ["tom", "has"]),
    ],
)
def test_known_seams(tokenizer, prompt, response, counted, before):
    assert one(prompt, response, tokenizer()) == counted
    if before:
        assert one(prompt, response, tokenizer(), "prompt") == before
        assert one(prompt, response, tokenizer(), "all") == before + counted


def test_straddling_tokens_are_reported():
    corpus = load_corpus({"en": [("answer: ", "42"), ("answer:", " 42")], "de": [("a", "42")] * 2})
    report = encode(corpus, byte_level()).report
    assert [(row.language, row.straddling) for row in report.languages] == [("en", 1), ("de", 0)]
    assert report.total == LanguageTokens("all", 4, 10, 4, 1)
    assert repr(report) == (
        "EncodingReport(2 languages, 4 texts, 10 tokens, 4 counted in scope 'response',"
        " 1 across the seam)"
    )
    assert report.to_pandas()["counted"].tolist() == [2, 2]
    assert "<td>de</td><td>2</td><td>4</td><td>2</td>" in report._repr_html_()


def test_added_special_tokens_never_count():
    encoded = encode(CORPUS, llama_like(), scope="all")
    firsts, lasts = encoded.offsets[:-1], encoded.offsets[1:] - 1
    assert set(encoded.ids[firsts]) == {1}
    assert set(encoded.ids[lasts]) == {2}
    assert (encoded.start == 1).all()
    assert (encoded.stop == encoded.lengths - 1).all()


def test_a_spelled_special_token_may_stand_beside_the_counted_run_but_not_in_it():
    with pytest.warns(CorpusWarning, match="texts begin with '<s>'"):
        assert one("<s>Tom", "42</s>", llama_like()) == ["42"]
    assert one("Tom</s>", "42", llama_like()) == ["▁42"]
    message = r"'1' \(qaa\): the special token '</s>' stands between counted tokens in scope 'all'"
    with pytest.raises(CorpusError, match=message):
        one("Tom</s>", "42", llama_like(), "all")


def test_an_unknown_token_counts_even_where_it_pads():
    assert one("Tom ", "has zebra", words()) == ["has", "[UNK]"]
    assert llama_like().pad_token_id == llama_like().unk_token_id
    assert one("Tom", "42<unk>", llama_like()) == ["42", "<unk>"]


TEXT = st.text(st.sampled_from("ab 42:\n蘭小ก็é\u200b🙂▁"), max_size=10)
RESPONSE = TEXT.filter(lambda text: bool(text.strip()))


@settings(max_examples=160, deadline=None)
@given(TEXT, RESPONSE, st.sampled_from(sorted(TOKENIZERS)))
def test_prompt_and_response_are_all_and_hold_exactly_their_bytes(prompt, response, kind):
    """The oracle knows no offsets: it adds up the bytes each piece stands for."""
    tokenizer = TOKENIZERS[kind]()
    scopes = ("prompt", "response", "all")
    before, counted, whole = (_counted(prompt, response, tokenizer, scope) for scope in scopes)
    assert before + counted == whole
    if kind not in ("byte level", "llama like"):
        return
    spell = piece_bytes if kind == "byte level" else llama_bytes
    # Llama writes spaces as "▁", cannot tell one in the text from a space, and puts one in front:
    # that stands for no byte of the text, and belongs to the first character.
    mark, line = (b" ", " ") if kind == "llama like" else (b"", "▁")
    prompt, response = (text.replace("▁", line).encode() for text in (prompt, response))
    read = b"".join(map(spell, before))
    assert read + b"".join(map(spell, counted)) == mark + prompt + response
    seam = len(mark + prompt) if prompt else 0
    assert len(read) <= seam, "a token of the prompt holds a byte of the response"
    assert len(read) + len(spell(counted[0])) > seam, "a counted token holds no byte of it"


def _counted(prompt, response, tokenizer, scope):
    """Like `one`, but empty where no token counts."""
    try:
        return one(prompt, response, tokenizer, scope)
    except CorpusError:
        return []


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ids_are_the_tokenizers_own(kind):
    tokenizer = TOKENIZERS[kind]()
    encoded = encode(CORPUS, tokenizer)
    own = [tokenizer(item.text)["input_ids"] for item in CORPUS]
    assert encoded.ids.tolist() == sum(own, [])
    assert encoded.ids.dtype == np.int32
    assert encoded.offsets.dtype == np.int64
    assert encoded.lengths.tolist() == [len(ids) for ids in own]
    assert len(encoded) == 6
    assert encoded.item_ids == ("1", "2") * 3
    assert [encoded.languages[n] for n in encoded.language] == ["en"] * 2 + ["zh"] * 2 + ["th"] * 2


def test_state_left_on_the_tokenizer_changes_nothing():
    tokenizer = byte_level()
    clean, fingerprint = encode(CORPUS, tokenizer), tokenizer_hash(tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    try:
        assert tokenizer_hash(tokenizer) == fingerprint
        assert encode(CORPUS, tokenizer).ids.tolist() == clean.ids.tolist()
    finally:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_hash_is_the_same_in_every_load(kind, tmp_path):
    tokenizer = TOKENIZERS[kind]()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    matching = [
        name for name in TOKENIZERS if tokenizer_hash(TOKENIZERS[name]()) == tokenizer_hash(again)
    ]
    assert matching == [kind]
    again.add_special_tokens({"extra_special_tokens": ["<|new|>"]})
    again.add_tokens(["ZEB"])
    assert tokenizer_hash(again) != tokenizer_hash(tokenizer)
    added = build_corpus([{"id": 1, "language": "qaa", "prompt": "<|new|>", "response": "ZEB!"}])
    assert encode(added, again).ids.tolist() == again("<|new|>ZEB!")["input_ids"]


def test_a_vocabulary_is_written_once_and_another_in_its_place_is_noticed(monkeypatch):
    tokenizer, other, written = deepcopy(byte_level()), llama_like(), []
    write = encoding._part_json
    monkeypatch.setattr(encoding, "_part_json", lambda part: written.append(part) or write(part))
    model = type(tokenizer.backend_tokenizer.model)
    hashes = [tokenizer_hash(tokenizer) for _ in range(3)]
    assert sum(isinstance(part, model) for part in written) == 1
    assert len(set(hashes)) == 1
    tokenizer.backend_tokenizer.model.dropout = 0.25
    hashes.append(tokenizer_hash(tokenizer))
    tokenizer.backend_tokenizer.model = other.backend_tokenizer.model
    hashes.append(tokenizer_hash(tokenizer))
    assert len(set(hashes)) == 3


def test_cut_texts_lose_their_ends_and_the_report_says_so():
    corpus = load_corpus({"en": [("Tom has", " Tom has 42"), ("Tom Tom Tom", " has")]})
    whole = encode(corpus, words())
    assert whole.lengths.tolist() == [7, 6]
    cut = encode(corpus, words(), max_length=4, overlong="cut")
    assert cut.lengths.tolist() == [4, 4]
    assert cut.ids[:4].tolist() == whole.ids[:4].tolist()
    assert (cut.start.tolist(), cut.stop.tolist()) == ([3, 4], [4, 4])
    assert cut.report.total == LanguageTokens("all", 2, 8, 1, cut=2, lost=3, emptied=1)
    assert "2 texts cut (3 tokens lost)" in repr(cut)
    assert encode(corpus, words(), max_length=7).report == whole.report


class Doubling:
    """A fast tokenizer whose own call does more than its backend."""

    def __getattr__(self, name):
        return getattr(byte_level(), name)

    def __call__(self, text, **options):
        return {"input_ids": byte_level()(text)["input_ids"] * 2}


@pytest.mark.parametrize(
    ("tokenizer", "options", "message"),
    [
        (ByT5Tokenizer, {}, "ByT5Tokenizer is not a fast tokenizer, .* AutoTokenizer"),
        (Doubling, {}, "Doubling changes what its backend encodes"),
        (words, {"scope": "answer"}, r"scope='answer' is not known; choose one of \['response'"),
        (words, {"overlong": "skip"}, r"overlong='skip' is not known; choose one of \['refuse'"),
        (words, {"max_length": 0}, "max_length=0 leaves no token; give 1 or more"),
        (
            words,
            {"max_length": 7},
            r"^2 of 6 texts exceed max_length=7: '1' \(en\): 11 tokens; '2' \(en\): 8 tokens;"
            " raise max_length, select other items, or say overlong='cut'$",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused(tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        unwrap(encode)(CORPUS, tokenizer(), **options)  # without the suite's type checks


def test_texts_without_counted_tokens_are_named():
    told = r"for 12 of 12 texts: '1' \(en\), '2' \(en\).*'10' \(en\) ... and 2 more; choose another"
    with pytest.raises(CorpusError, match=f"^no token counts in scope 'prompt' {told}"):
        encode(load_corpus({"en": ["One."] * 12}), byte_level(), scope="prompt")


def test_real_questions_count_as_they_should():
    corpus = load_corpus(real_data("mgsm"), limit=20)
    parts = {scope: encode(corpus, byte_level(), scope=scope) for scope in SCOPES}
    whole = parts["all"]
    assert (parts["prompt"].stop == parts["response"].start).all()
    assert (parts["response"].stop == whole.stop).all()
    assert (whole.stop == whole.lengths).all()
    decoded = [
        byte_level().decode(whole.ids[a:b].tolist())
        for a, b in zip(whole.offsets[:-1], whole.offsets[1:], strict=True)
    ]
    assert decoded == [item.text for item in corpus]
