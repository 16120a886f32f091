"""Attention by language: Hugging Face's own patterns, targets by hand, and the null."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import kstest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.corpora.corpus import ParallelCorpus, build_corpus
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.experiments.attention_shares import (
    COLUMNS,
    TARGETS,
    AttentionShares,
    attention_shares,
)
from lensneurons.models.loading import load_model
from lensneurons.tokens.prepared import prepare

# What each character is to a reader of the language, in the order of the texts.
WRITTEN = {
    "zh": ("小明有3只cat。", "ooodofffr"),
    "en": ("He has 3 猫.", "oorooordrfr"),
    "th": ("มี 12 ตัว", "oo" + "r" + "dd" + "r" + "ooo"),
}
LETTERS = {"o": "own", "f": "foreign", "d": "digits", "r": "rest"}


def corpus() -> ParallelCorpus:
    rows = [("i1", code, "7? ", text) for code, (text, _) in WRITTEN.items()]
    rows += [("i2", code, "", text[::-1]) for code, (text, _) in WRITTEN.items()]
    names = ("id", "language", "prompt", "response")
    return build_corpus([dict(zip(names, row, strict=True)) for row in rows])


def by_hand(folder: Path, model) -> np.ndarray:
    """float64 [layer, head, text, column], from Hugging Face's patterns and `WRITTEN`."""
    hugging_face = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = prepare(model, corpus()).encoded
    found = np.zeros((tiny.LAYERS, 4, len(encoded), len(COLUMNS)))
    for text in range(len(encoded)):
        ids = encoded.ids[encoded.offsets[text] : encoded.offsets[text + 1]].astype(np.int64)
        with torch.no_grad():
            said = hugging_face(torch.from_numpy(ids)[None], output_attentions=True)
        written, what = WRITTEN[encoded.languages[encoded.language[text]]]
        if encoded.item_ids[text] == "i2":
            asked, written, what = "", written[::-1], what[::-1]
        else:
            asked, written, what = "7? ", "7? " + written, "drr" + what
        read = tokenizer(written, return_offsets_mapping=True)
        assert read["input_ids"] == ids.tolist()
        columns = [0]
        for begin, end in read["offset_mapping"][1:]:  # of the characters that a token touches
            place = "response" if begin >= len(asked) else "prompt"
            touched = what[begin:end]
            first = "o" if "o" in touched else "f" if "f" in touched else min(touched)
            columns.append(COLUMNS.index(f"{place} {LETTERS[first]}"))
        ahead = int(encoded.start[text])
        for layer, pattern in enumerate(said.attentions):
            for place in range(ahead, len(ids)):
                for source in range(place + 1):
                    looked = pattern[0, :, place, source].double().numpy()
                    found[layer, :, text, columns[source]] += looked
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model("Llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(folder: Path):
    return load_model(str(folder))


@pytest.fixture(scope="module")
def shares(model) -> AttentionShares:
    return attention_shares(model, corpus())


def test_they_are_those_of_hugging_face(folder, model, shares):
    wanted = by_hand(folder, model)
    assert np.allclose(shares.mass, wanted, atol=1e-5)
    assert all(
        wanted[..., COLUMNS.index(name)].sum() > 0 for name in COLUMNS if "prompt" not in name
    )
    small = attention_shares(model, corpus(), batch_tokens=1)
    assert np.allclose(small.mass, shares.mass, atol=1e-6)


def test_shares_add_up_in_both_divisions(shares):
    by_what = sum(shares.shares(target) for target in TARGETS[:5])
    by_place = sum(shares.shares(target) for target in ("special", "prompt", "response"))
    assert np.allclose(by_what, 1)
    assert np.allclose(by_place, 1)
    assert np.allclose(sum(shares.available(target) for target in TARGETS[:5]), 1)
    place = shares.languages.index("en")
    texts = shares.language == place
    wanted = shares.mass[:, :, texts, 0].sum(-1) / shares.tokens[texts].sum()
    assert np.allclose(shares.shares("special")[..., place], wanted)


def test_a_uniform_head_has_what_is_available(shares):
    """Every source alike: BOS is 1 of 2, 3, ... sources of the tokens after it."""
    text = next(n for n, name in enumerate(shares.item_ids) if name == "i2")
    tokens = np.arange(2, shares.tokens[text] + 2)
    assert shares.uniform[text, 0] == pytest.approx((1 / tokens).sum())
    even = replace(shares, mass=np.broadcast_to(shares.uniform, shares.mass.shape))
    assert np.allclose(even.shares("digits"), shares.available("digits"))


def made(share: np.ndarray) -> AttentionShares:
    """Shares [head, item, language] of digits, all else on special tokens; ten tokens a text."""
    heads, items, languages = share.shape
    mass = np.zeros((1, heads, items * languages, len(COLUMNS)))
    mass[0, :, :, COLUMNS.index("response digits")] = 10 * share.reshape(heads, -1)
    mass[..., 0] = 10 - mass.sum(axis=-1)
    return AttentionShares(
        mass=mass,
        uniform=mass[0, 0],
        tokens=np.full(items * languages, 10),
        language=np.tile(np.arange(languages), items),
        item_ids=tuple(f"i{item}" for item in range(items) for _ in range(languages)),
        languages=tuple("abcdefghij"[:languages]),
    )


def test_p_is_uniform_where_languages_mean_nothing():
    """Items differ, languages do not: 400 heads that know nothing of each other."""
    random = np.random.default_rng(3)
    share = random.beta(2, 8, (400, 12, 1)) * random.uniform(0.5, 1, (400, 12, 4))
    ranked = made(share).ranked("digits", draws=199)
    assert kstest(ranked["p"], "uniform").pvalue > 0.01
    assert (ranked["p_adjusted"] < 0.05).sum() <= 1
    assert np.allclose(ranked["spread"].mean(), ranked["spread_shuffled"].mean(), rtol=0.05)


def test_a_head_that_treats_one_language_differently_comes_first():
    random = np.random.default_rng(4)
    share = random.uniform(0.1, 0.2, (40, 12, 4))
    share[17, :, 2] += 0.15
    table = made(share).ranked("digits", draws=999)
    first = table.iloc[0]
    assert (first["layer"], first["head"], first["highest"]) == (0, 17, "c")
    assert first["p"] == pytest.approx(1 / 1000)
    assert first["p_adjusted"] < 0.05
    assert first["spread"] == pytest.approx(share[17].mean(axis=0).std())
    assert first["highest_share"] == pytest.approx(share[17, :, 2].mean())
    assert (table["p_adjusted"].iloc[1:] > 0.05).all()


def test_of_a_bare_text_no_letter_is_foreign(model):
    found = attention_shares(model, prepare(model, ["a ж 猫"]))
    assert found.shares("foreign").max() == 0 < found.shares("own").min()


def test_intervals_hold_the_mean(shares):
    found = shares.interval("own")
    assert np.allclose(found.estimate, shares.shares("own"))
    assert (found.low <= found.estimate).all()
    assert (found.estimate <= found.high).all()


def test_the_table_has_every_share(shares):
    table = shares.to_pandas().set_index(["layer", "head", "language", "target"])
    assert len(table) == tiny.LAYERS * 4 * 3 * len(TARGETS)
    place = shares.languages.index("th")
    row = table.loc[(2, 3, "th", "own")]
    assert row["share"] == pytest.approx(shares.shares("own")[2, 3, place])
    assert row["available"] == pytest.approx(shares.available("own")[place])
    assert "Mean share of all heads" in shares._repr_html_()


def test_they_come_back_from_a_file(shares, tmp_path):
    again = AttentionShares.load(shares.save(tmp_path / "shares"))
    assert np.array_equal(again.mass, shares.mass)
    assert again.provenance == shares.provenance
    assert again.provenance.hook == "hook_pattern"


def test_what_cannot_be_read_is_refused(model, shares):
    with pytest.raises(
        LensNeuronsError, match=r"target='bos' is not known; choose one of \['special', 'own'"
    ):
        unwrap(AttentionShares.shares)(shares, "bos")
    with pytest.raises(LensNeuronsError, match="comparing languages needs two languages"):
        made(np.full((2, 1, 2), 0.5)).ranked("digits")

    def spoil(pattern, hook):
        return pattern * 2

    spoiled = model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", spoil)])
    with spoiled, pytest.raises(ModelError, match="the hooks hold no attention"):
        attention_shares(model, corpus())
