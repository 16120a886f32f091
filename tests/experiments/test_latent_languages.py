"""Entropy, scripts and words of translations: Hugging Face by hand, planted leads, bad input."""

from __future__ import annotations

import math
from dataclasses import replace
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from lens_oracle import by_hand

from lensneurons import plots
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.experiments import latent_languages
from lensneurons.experiments.latent_languages import (
    REST,
    LensLanguages,
    lens_languages,
    token_scripts,
    translation_words,
)
from lensneurons.models.identity import original_tokenizer
from lensneurons.tokens.prepared import prepare

CORPUS = tiny.tiny_corpus()


@pytest.fixture(scope="module")
def plain(llama):
    return lens_languages(llama, CORPUS)


@pytest.mark.parametrize("architecture", ["Llama", "Gemma2"])
def test_every_layer_equals_hugging_face_by_hand(architecture, bridge, model_folder):
    model = bridge(architecture)
    found = lens_languages(model, CORPUS, batch_tokens=300)
    encoded = prepare(model, CORPUS).encoded
    backend = original_tokenizer(model).backend_tokenizer
    columns, of_token = token_scripts(backend, tiny.VOCABULARY, encoded.languages)
    names = list(dict.fromkeys(encoded.item_ids))
    words = translation_words(encoded, names, backend)
    entropy = np.zeros((tiny.LAYERS, len(encoded)))
    script = np.zeros((*entropy.shape, len(columns)))
    translation = np.zeros((*entropy.shape, 3))
    elsewhere = np.zeros((*entropy.shape, 3))
    order = np.random.default_rng(0).permutation(len(names)).tolist()
    follows = dict(zip(order, [order[-1], *order[:-1]], strict=True))
    for text in range(len(encoded)):
        ids = encoded.ids[encoded.offsets[text] : encoded.offsets[text + 1]].astype(np.int64)
        said = by_hand(model_folder(architecture), architecture, torch.from_numpy(ids))
        own = names.index(encoded.item_ids[text])
        for place in range(max(1, encoded.start[text]), encoded.stop[text]):
            p = said[:, place - 1]
            for layer in range(tiny.LAYERS):
                entropy[layer, text] -= sum(x * math.log(x) for x in p[layer] if x > 0)
            for column in range(len(columns)):
                script[:, text, column] += p[:, of_token == column].sum(-1)
            for k in range(3):
                translation[:, text, k] += p[:, words[own][k]].sum(-1)
                elsewhere[:, text, k] += p[:, words[follows[own]][k]].sum(-1)
    np.testing.assert_allclose(found.entropies, entropy, rtol=1e-4)
    np.testing.assert_allclose(found.mass, script, atol=1e-3)
    np.testing.assert_allclose(found.translation, translation, atol=1e-3)
    np.testing.assert_allclose(found.elsewhere, elsewhere, atol=1e-3)
    np.testing.assert_allclose(
        found.mass.sum(-1), np.tile(found.tokens, (tiny.LAYERS, 1)), rtol=1e-5
    )
    assert (found.entropies <= found.tokens * math.log(tiny.VOCABULARY) + 1e-3).all()
    assert np.abs(found.translation - found.elsewhere).max() > 0.01


class Backend:
    """A tokenizer's backend with given pieces, written as they are."""

    decoder = None

    def __init__(self, pieces):
        self.pieces = pieces

    def get_vocab_size(self):
        return len(self.pieces)

    def id_to_token(self, number):
        return self.pieces[number]

    def get_added_tokens_decoder(self):
        return {}


def test_the_script_of_every_sort_of_token():
    told = {
        " cat": "Latn", "кот": "Cyrl", "แมว": "Thai", "\u0e34": "Thai", "猫": "Hani",
        "ネコ": "Kana", "ねこ": "Hira", "猫が": "mixed", "aи": "mixed", "γάτα": "other",
        "12": "none", " ": "none", "<0x98>": "bytes", "<E0 B8>": "bytes", "x2": "Latn",
    }  # fmt: skip
    languages = ("en", "ru", "th", "ja", "und")
    columns, place = token_scripts(Backend(list(told)), len(told) + 2, languages)
    assert columns == ("Cyrl", "Hani", "Hira", "Kana", "Latn", "Thai", *REST)
    assert [columns[n] for n in place] == [*told.values(), "none", "none"]


def test_words_are_those_of_one_language_alone(llama):
    rows = [
        {"id": name, "language": k, "response": text}
        for name, own in {
            "a": {"en": "ab 1 x", "fr": "cb 1 y"},
            "b": {"en": "b", "fr": "d"},
        }.items()
        for k, text in own.items()
    ]
    encoded = prepare(llama, build_corpus(rows)).encoded
    backend = original_tokenizer(llama).backend_tokenizer
    words = translation_words(encoded, ["a", "b"], backend)

    def texts(ids):
        return sorted(backend.id_to_token(number) for number in ids.tolist())

    assert [texts(one) for one in words[0]] == [["a", "x"], ["c", "y"]]
    assert [texts(one) for one in words[1]] == [["b"], ["d"]]


def planted_reading(random, items=40, lead=0.1):
    """Texts of three languages: a middle layer has the English words of the item."""
    n = items * 3
    language = np.repeat(np.arange(3), items)
    tokens = random.integers(5, 30, n)
    scale = tokens[:, None] * random.dirichlet([2, 2, 20], n)
    shared = random.normal(size=items) * 0.02
    elsewhere = np.tile(0.1 * scale, (2, 1, 1))
    translation = elsewhere + random.normal(size=(2, n, 3)) * tokens[:, None] * 0.02
    translation += (np.tile(shared, 3) * tokens)[:, None]
    translation[1, :, 0] += lead * tokens
    return LensLanguages(
        entropies=np.ones((2, n)) * tokens,
        mass=np.tile(scale, (2, 1, 1)),
        translation=translation,
        elsewhere=elsewhere,
        tokens=tokens,
        language=language,
        item_ids=tuple(str(i) for i in range(items)) * 3,
        languages=("en", "fr", "th"),
        scripts=("Latn", "Thai", "none"),
        words=np.ones((n, 3), np.int64),
        vocabulary=np.array([5, 4, 3]),
    )


def test_a_planted_latent_language_is_found_and_chance_is_not():
    random, found, held, false = np.random.default_rng(0), [], 0, 0
    for _ in range(60):
        read = planted_reading(random)
        table = read.latent(draws=200)
        first = table[(table.layer == 1) & (table["rank"] == 1)].iloc[0]
        found.append(first.language == "en" and first.measurable)
        held += first.low <= 0.1 <= first.high
        false += int(table[table.layer == 0].measurable.sum())
    assert all(found)
    assert held / 60 > 0.85
    assert false / 180 < 0.08


def test_means_leave_the_language_itself_out():
    read = planted_reading(np.random.default_rng(1), lead=0.5)
    mean = ((read.translation - read.elsewhere)[1, :, 0], read.tokens)
    own = [mean[0][read.language == k].sum() / mean[1][read.language == k].sum() for k in (1, 2)]
    assert read.lead("en", pooled=True).estimate[1] == pytest.approx(np.mean(own))
    assert read.entropy().estimate == pytest.approx(1)
    shares = read.mass[0, :, :2]
    own = [
        shares[read.language == k, column].sum() / read.tokens[read.language == k].sum()
        for k, column in ((0, 0), (1, 0), (2, 1))
    ]
    np.testing.assert_allclose(read.script_share().estimate[0], own)
    one = read.script_share("Thai", pooled=True)
    assert one.low[0] < one.estimate[0] < one.high[0]


def test_items_that_lack_a_language_are_left_out(llama, plain):
    rows = [one for one in CORPUS if (one.id, one.language) != ("item-3", "th")]
    with pytest.warns(UserWarning, match="lacks 1"):
        corpus = build_corpus(
            [
                {"id": o.id, "language": o.language, "prompt": o.prompt, "response": o.response}
                for o in rows
            ]
        )
    found = lens_languages(llama, corpus)
    assert found.left_out == 1
    assert "item-3" not in found.item_ids
    kept = [n for n, name in enumerate(plain.item_ids) if name != "item-3"]
    np.testing.assert_allclose(found.entropies, plain.entropies[:, kept], rtol=1e-4)


def test_files_and_tables(plain, tmp_path):
    again = LensLanguages.load(plain.save(tmp_path / "one"))
    np.testing.assert_array_equal(again.translation, plain.translation)
    assert again.scripts == plain.scripts
    table = plain.to_pandas()
    assert len(table) == tiny.LAYERS * 3
    assert {"entropy", "script Thai", "script bytes", "translation zh", "elsewhere en"} <= set(
        table
    )
    assert "lead of zh" in plain.to_text()
    assert plain.vocabulary.sum() == tiny.VOCABULARY


def test_bad_input_says_what_to_do(llama, plain, monkeypatch):
    monkeypatch.setattr(latent_languages, "_read", None)
    with pytest.raises(LensNeuronsError, match="no translation"):
        lens_languages(llama, CORPUS.select(["en"]))
    with pytest.raises(CorpusError, match="three are needed"):
        lens_languages(llama, CORPUS.head(2))
    with pytest.raises(LensNeuronsError, match="language"):
        unwrap(LensLanguages.lead)(plain, "fr")
    with pytest.raises(LensNeuronsError, match="script"):
        unwrap(LensLanguages.script_share)(plain, "Cyrl")
    keep = np.array([name == "item-0" for name in plain.item_ids])
    arrays = ("entropies", "mass", "translation", "elsewhere")
    few: dict[str, Any] = {name: getattr(plain, name)[:, keep] for name in arrays}
    few |= {name: getattr(plain, name)[keep] for name in ("tokens", "language", "words")}
    alone = replace(plain, item_ids=("item-0",) * 3, **few)
    with pytest.raises(LensNeuronsError, match="two items"):
        alone.entropy()


def test_the_figure_names_the_latent_language_or_none():
    told = plots.lens_languages(planted_reading(np.random.default_rng(2), lead=0.3)).layout.meta
    assert told["title"].startswith("Layer 1 has an item's words in English (en) most")
    told = plots.lens_languages(
        replace(read := planted_reading(np.random.default_rng(2)), translation=read.elsewhere)
    ).layout.meta
    assert told["title"].startswith("No layer has an item's words")
