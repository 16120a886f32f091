"""Sampled answers, their scores and the pairs made of them, against values worked out apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
import torch

from lensneurons.alignment import responses as answers
from lensneurons.alignment.pairs import PreferencePairs, preference_pairs
from lensneurons.alignment.responses import (
    Parallel,
    SampledResponse,
    SampledResponses,
    ScoredResponse,
    ScoredResponses,
    consistency,
    respond,
    score_responses,
)
from lensneurons.alignment.translation import translation_scorer
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import (
    CorpusError,
    LensNeuronsError,
    ModelError,
    ProvenanceError,
    StorageError,
)
from lensneurons.evaluation.generation import Decoding
from lensneurons.values.files import load_rows, save_rows
from lensneurons.values.provenance import Provenance

ROWS = [
    ("a", "en", "Anna has 3 and buys 4.\n", "She has 3 + 4 = 7 apples. The answer is seven (7)."),
    ("a", "de", "Anna hat 3 und kauft 4.\n", "Sie hat 3 + 4 = 7 Äpfel. Die Antwort ist (7)."),
    ("a", "th", "แอนนามี 3 ผล ซื้อ 4 ผล\n", "มี 3 + 4 = 7 ผล คำตอบคือ (7)"),
    ("b", "en", "Ben has 9 and sells 5.\n", "He has 9 - 5 = 4 pears left. The answer is (4)."),
    ("b", "de", "Ben hat 9 und verkauft 5.\n", "Er hat noch 9 - 5 = 4 Birnen. Also (4)."),
    ("b", "th", "เบนมี 9 ผล ขาย 5 ผล\n", "เหลือ 9 - 5 = 4 ผล คำตอบคือ (4)"),
]
FIELDS = ("id", "language", "prompt", "response")
CORPUS = build_corpus([dict(zip(FIELDS, row, strict=True)) for row in ROWS])
PROMPTS = {(row[0], row[1]): row[2] for row in ROWS}
OPTIONS = {"samples": 3, "max_new_tokens": 12, "progress": False}


def sampled(*answers: tuple[str, str, str]) -> SampledResponses:
    """Answers (item, language, text), numbered within their item."""
    seen: Counter[tuple[str, str]] = Counter()
    rows = []
    for item, language, text in answers:
        number, seen[item, language] = seen[item, language], seen[item, language] + 1
        rows.append(SampledResponse(item, language, number, PROMPTS[item, language], text, True))
    return SampledResponses(tuple(rows), Decoding(9, 1.0), Provenance(model="hand"))


@pytest.fixture(scope="module")
def whole(bridge):
    return respond(bridge("Llama"), CORPUS, **OPTIONS)


def test_every_item_is_answered_as_often_as_asked(whole):
    assert Counter((row.id, row.language) for row in whole) == {(r[0], r[1]): 3 for r in ROWS}
    assert all(row.prompt == PROMPTS[row.id, row.language] for row in whole)
    assert len({row.text for row in whole}) > 6


def test_texts_do_not_depend_on_batches_or_blocks(bridge, whole, monkeypatch):
    monkeypatch.setattr(answers, "PROMPTS_A_BLOCK", 4)
    again = respond(bridge("Llama"), CORPUS, batch_tokens=70, **OPTIONS)
    assert again.rows == whole.rows
    other = respond(bridge("Llama"), CORPUS, seed=1, **OPTIONS)
    assert other.rows != whole.rows


def test_an_interrupted_call_goes_on_and_ends_the_same(bridge, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "PROMPTS_A_BLOCK", 5)
    real, calls = answers.write_responses, []

    def failing(*arguments, **options):
        calls.append(options["first_row"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(answers, "write_responses", failing)
    with pytest.raises(KeyboardInterrupt):
        respond(bridge("Llama"), CORPUS, run_dir=tmp_path / "run", **OPTIONS)
    resumed = respond(bridge("Llama"), CORPUS, run_dir=tmp_path / "run", **OPTIONS)
    assert calls == [0, 5, 10, 10, 15]
    assert resumed.rows == whole.rows
    assert SampledResponses.load(tmp_path / "run").rows == whole.rows
    for other, told in (
        ({"temperature": 0.5}, r"another plan \(temperature: 1.0, now 0.5\)"),
        ({}, "corpora: "),
    ):
        corpus = CORPUS if other else CORPUS.head(1)
        with pytest.raises(ProvenanceError, match=told):
            respond(bridge("Llama"), corpus, run_dir=tmp_path / "run", **OPTIONS | other)


@pytest.mark.parametrize("wrong", [{"samples": 1}, {"temperature": 0.0}])
def test_answers_that_could_not_differ_are_refused(bridge, wrong):
    with pytest.raises(LensNeuronsError, match="at least 2 samples and a temperature above 0"):
        respond(bridge("Llama"), CORPUS, **OPTIONS | wrong)


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        ("3 + 4 = 7 (7)", "3 + 4 = 7. The answer is seven (7).", 1.0),
        ("๓ + ๔ = ๗ (๗)", "3 + 4 = 7 (7)", 1.0),
        ("4 + 3 = 7 (7)", "3 + 4 = 7 (7)", 2 * 3 / 8),  # 4, 7, 7 in order
        ("3 + 4 = 8 (8)", "3 + 4 = 7 (7)", 2 * 2 / 8),
        ("7", "3 + 4 = 7 (7)", 2 * 1 / 5),
        ("none", "3 + 4 = 7 (7)", 0.0),
        ("none", "none", 0.0),
    ],
)
def test_consistency_is_the_share_of_common_numbers(text, reference, score):
    assert consistency([Parallel(text, "de", reference)]) == [score]


ANSWERS = sampled(
    ("a", "de", "Sie hat 3 + 4 = 7 Äpfel, die Antwort ist sieben (7)."),
    ("a", "de", "Sie hat 3 + 4 = 8 Äpfel, die Antwort ist acht (8)."),
    ("a", "de", "She has 3 + 4 = 7 apples, so the answer is seven (7)."),
    ("b", "th", "เหลือ 9 - 5 = 4 ผล คำตอบคือสี่ (4)"),
)


def test_answers_are_compared_with_the_pivot_and_judged():
    scored = score_responses(ANSWERS, CORPUS, progress=False)
    assert [row.score for row in scored] == [1.0, 0.5, 1.0, 1.0]
    assert [row.right_answer for row in scored] == [True, False, True, True]
    assert [row.right_language for row in scored] == [True, True, False, True]
    assert scored.pivot == "en"
    assert scored.scorer == "consistency"


def test_any_function_can_score_and_sees_the_pivot_of_each_item():
    seen: list[Parallel] = []

    def length(parallels):
        seen.extend(parallels)
        return [float(len(parallel.text)) for parallel in parallels]

    scored = score_responses(ANSWERS, CORPUS, pivot="th", scorer=length, progress=False)
    assert [row.score for row in scored] == [len(row.text) for row in ANSWERS]
    assert [p.reference for p in seen] == [ROWS[2][3]] * 3 + [ROWS[5][3]]
    assert scored.scorer == "length"


def test_scores_survive_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "ANSWERS_A_BLOCK", 1)
    calls = []

    def stubborn(parallels):
        calls.append(parallels[0].text)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [0.5] * len(parallels)

    ask = {"scorer": stubborn, "run_dir": tmp_path / "s", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        score_responses(ANSWERS, CORPUS, **ask)
    done = score_responses(ANSWERS, CORPUS, **ask)
    assert len(calls) == 5
    assert ScoredResponses.load(tmp_path / "s").rows == done.rows
    with pytest.raises(ProvenanceError, match="scorer: 'stubborn', now 'consistency'"):
        score_responses(ANSWERS, CORPUS, run_dir=tmp_path / "s", progress=False)


@pytest.mark.parametrize(
    ("languages", "scorer", "told"),
    [
        (["de", "th"], "consistency", "the corpus has not a response to it in 'en'"),
        (["en", "th"], "consistency", "the corpus has not this item"),
        (["en", "de", "th"], "bleu", "scorer='bleu' is not known"),
    ],
)
def test_what_cannot_be_scored_is_refused(languages, scorer, told):
    with pytest.raises(LensNeuronsError, match=told):
        score_responses(ANSWERS, CORPUS.select(languages), scorer=scorer, progress=False)


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A tiny random model of NLLB's family, with its tokenizer over single characters."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    signs = sorted({sign for row in ROWS for sign in row[3]} | {"▁"})
    words = ["<s>", "<pad>", "</s>", "<unk>", *signs]
    tokenizer = NllbTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[])
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": len(tokenizer)}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "init_std": 0.5}
    torch.manual_seed(3)
    model = M2M100ForConditionalGeneration(
        M2M100Config(**sizes, **heads, encoder_ffn_dim=24, decoder_ffn_dim=24)
    ).eval()
    folder = tmp_path_factory.mktemp("nllb")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model, tokenizer


def test_translation_likelihood_is_that_of_the_model_text_by_text(translator):
    folder, model, tokenizer = translator
    asked = [
        Parallel("Sie hat 3 + 4 = 7 Äpfel.", "de", ROWS[0][3]),
        Parallel("มี 3 ผล", "th", "He has 4."),
        Parallel("Sie hat 8.", "de", ROWS[3][3]),
    ]
    expected = []
    for text, language, reference in asked:
        tokenizer.src_lang = {"de": "deu_Latn", "th": "tha_Thai"}[language]
        source = tokenizer(text, return_tensors="pt")["input_ids"]
        tokenizer.src_lang = "eng_Latn"
        target = tokenizer(reference, return_tensors="pt")["input_ids"][0]
        read = torch.cat([torch.tensor([model.config.decoder_start_token_id]), target[:-1]])
        with torch.no_grad():
            logits = model(input_ids=source, decoder_input_ids=read[None]).logits[0]
        chosen = logits.log_softmax(-1)[range(len(target)), target]
        assert tokenizer.convert_ids_to_tokens(int(target[0])) == "eng_Latn"
        expected.append(chosen[1:].mean().item())
    for batch_tokens in (4096, 1):
        scorer = translation_scorer(folder, device="cpu", batch_tokens=batch_tokens)
        assert np.allclose(scorer(asked), expected, atol=1e-5)
        assert np.allclose(scorer([asked[1], asked[1]]), [expected[1]] * 2, atol=1e-5)


def test_languages_are_found_by_the_codes_of_the_model(translator):
    folder, _, _ = translator
    known = translation_scorer(folder, device="cpu")
    for tag in ("sw", "zh", "bn", "ru", "ja"):  # swh_Latn, zho_Hans, ben_Beng, rus_Cyrl, jpn_Jpan
        assert known([Parallel("7", tag, "7")])[0] < 0
    with pytest.raises(LensNeuronsError, match=r"no code for 'la' \(looked for lat_Latn, "):
        known([Parallel("7", "la", "7")])
    named = translation_scorer(folder, device="cpu", codes={"la": "ita_Latn"})
    assert named([Parallel("7", "la", "7")]) == known([Parallel("7", "it", "7")])


def test_a_model_that_translates_nothing_is_refused(model_folder, tmp_path):
    for folder in (model_folder("Llama"), tmp_path):
        with pytest.raises(ModelError, match="could not be loaded"):
            translation_scorer(folder, device="cpu")


def scored(*rows: tuple[str, str, str, float, bool, bool]) -> ScoredResponses:
    """Answers (item, language, text, score, right answer, right language)."""
    made = [
        ScoredResponse(item, tag, n, f"{item}?", text, text != "cut", score, right, own)
        for n, (item, tag, text, score, right, own) in enumerate(rows)
    ]
    return ScoredResponses(tuple(made), "en", "hand", Provenance(model="hand"))


HAND = scored(
    ("a", "de", "best", 1.0, True, True),
    ("a", "de", "best", 1.0, True, True),  # drawn twice
    ("a", "de", "good", 0.8, True, True),
    ("a", "de", "wrong", 0.9, False, True),
    ("a", "de", "bad", 0.1, False, True),
    ("a", "de", "english", 1.0, True, False),
    ("a", "de", "cut", 0.0, False, True),
    ("b", "de", "fine", 1.0, True, True),
    ("b", "th", "no", 0.2, False, True),
    ("c", "th", "yes", 0.7, True, True),
    ("c", "th", "near", 0.6, False, True),
    ("a", "en", "win", 1.0, True, True),
    ("a", "en", "lose", 0.0, False, True),
)


def told(pairs: PreferencePairs) -> set[tuple[str, str, str, str]]:
    return {(p.language, p.id, p.chosen, p.rejected) for p in pairs}


def test_pairs_are_those_that_the_rules_name():
    pairs = preference_pairs(HAND, per_item=99)
    far = {
        ("de", "a", "best", "good"),
        ("de", "a", "best", "bad"),
        ("de", "a", "good", "bad"),
    }
    assert told(pairs) == far | {("de", "a", "best", "wrong"), ("th", "c", "yes", "near")}
    assert len(pairs) == 5
    assert pairs.languages == ("de", "th")
    assert told(preference_pairs(HAND, minimum_gap=0.15, per_item=99)) == far
    assert told(preference_pairs(HAND, languages=["en"])) == {("en", "a", "win", "lose")}


def test_caps_take_from_every_item_alike():
    rows = [
        (f"i{item}", "de", f"{item} {n}", float(n == 0), n == 0, True)
        for item in range(6)
        for n in range(2 + item)
    ]
    pairs = preference_pairs(scored(*rows), per_item=3, per_language=11)
    counts = Counter(pair.id for pair in pairs)
    assert counts["i0"] == 1
    assert sorted(counts.values()) == [1, 2, 2, 2, 2, 2]
    assert sum(counts.values()) == 11
    drawn = [preference_pairs(scored(*rows), per_item=1, seed=seed).rows for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_shuffled_pairs_are_the_same_texts_half_of_them_turned():
    numbers = product(range(400), (0, 1))
    rows = [(f"i{n}", "de", f"{n} {k}", float(k), bool(k), True) for n, k in numbers]
    pairs = preference_pairs(scored(*rows))
    control = pairs.shuffled(seed=1)
    turned = [new.chosen == old.rejected for new, old in zip(control, pairs, strict=True)]
    assert 150 < sum(turned) < 250
    for new, old in zip(control, pairs, strict=True):
        assert {new.chosen, new.rejected} == {old.chosen, old.rejected}
        assert (new.chosen_score > new.rejected_score) == (new.chosen == old.chosen)
    assert control.fingerprint != pairs.fingerprint
    assert "shuffled" in repr(control)


def test_pairs_can_be_selected():
    pairs = preference_pairs(HAND)
    assert pairs.select(["th"]).languages == ("th",)
    with pytest.raises(CorpusError, match=r"no pairs in \['bn'\]"):
        pairs.select(["bn"])


def test_answers_without_a_pair_are_refused():
    with pytest.raises(CorpusError, match="no pair in 13 answers"):
        preference_pairs(HAND, minimum_gap=5.0)
    with pytest.raises(CorpusError, match=r"no answers in \['fr'\]"):
        preference_pairs(HAND, languages=["fr"])
    with pytest.raises(LensNeuronsError, match="per_item=0"):
        preference_pairs(HAND, per_item=0)


PAIRS = preference_pairs(HAND)


@pytest.mark.parametrize("value", [ANSWERS, HAND, PAIRS, PAIRS.shuffled(seed=4)])
def test_files_keep_their_layout_and_values_show_themselves(value, tmp_path):
    """A header and one JSON line a row; a coin that was not tossed may stand there as null."""
    path = value.save(tmp_path / "rows.jsonl")
    rows, details = load_rows(path, value.FILE_KIND)
    assert rows == [asdict(row) for row in value]
    names = {"decoding"} if value is ANSWERS else {"pivot", "scorer"}
    assert details.keys() - {"shuffle_seed"} == names | {"provenance"}
    null = save_rows(tmp_path / "null", value.FILE_KIND, rows, {"shuffle_seed": None, **details})
    for file in (path, null):
        loaded = type(value).load(file)
        assert vars(loaded) == {name: vars(value)[name] for name in vars(loaded)}
        assert loaded.fingerprint == value.fingerprint
    assert type(value).__name__ in repr(value)
    assert "German" in value._repr_html_()
    assert len(value.to_pandas()) == len(value)
    other = ScoredResponses if value is not HAND else SampledResponses
    with pytest.raises(StorageError, match=f"holds {value.FILE_KIND}, but {other.FILE_KIND}"):
        other.load(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StorageError, match="is damaged"):
        type(value).load(path)
