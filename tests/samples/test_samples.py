"""The samples: what they hold is what was measured, no text is in them, and damage is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest
from real_data import real_data
from real_models import real_model
from transformers import AutoTokenizer

import lensneurons as ln
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.samples.sample import ABOUT, FOLDER, STATISTICS, About, read_sample, sample_names

GEMMA = "gemma-3-270m"
# The run that the sample was made of, by `identify` with its default options.
PROFILE = {
    "specific": "84 17 11 17 30 27 26 57 32 45 48 48 77 143 213 306 368 375",
    "related": "47 69 31 71 46 33 42 66 66 81 109 100 128 78 136 210 204 300",
    "agnostic": "27 37 24 181 65 85 49 55 54 90 80 65 47 13 10 8 5 23",
}
HISTOGRAM = [32205, 1924, 647, 352, 219, 174, 111, 91, 79, 144, 918]
TOKENS = {
    "bn": 9660, "de": 10551, "en": 7942, "es": 10221, "fr": 11032,
    "ja": 9537, "ru": 10976, "sw": 12988, "th": 12827, "zh": 8660,
}  # fmt: skip


@pytest.fixture(scope="module")
def gemma():
    return ln.load_sample(GEMMA)


def test_its_numbers_are_those_of_the_run(gemma):
    neurons = ln.identify(gemma.statistics)
    profile = neurons.layer_profile("all")
    assert [" ".join(map(str, column)) for column in profile.T.tolist()] == [*PROFILE.values()]
    assert neurons.histogram("all").tolist() == HISTOGRAM
    assert neurons.tau == pytest.approx(0.849769053, abs=1e-9)
    assert dict(zip(neurons.languages, gemma.statistics.tokens.tolist(), strict=True)) == TOKENS
    assert gemma.statistics.grouped_counts.shape == (10, 18, 2048, 10)


def test_the_other_sample_too_is_its_run():
    qwen = ln.load_sample("qwen2.5-coder-0.5b")
    neurons = ln.identify(qwen.statistics)
    assert neurons.histogram("all").tolist() == [105647, 3774, 1734, 1062, 863, 807, 2849]
    assert neurons.layer_profile("all")[:, 0].tolist() == [
        476, 72, 37, 30, 84, 61, 44, 78, 90, 140, 161, 159,
        140, 215, 205, 166, 143, 93, 139, 102, 130, 278, 496, 235,
    ]  # fmt: skip
    assert qwen.statistics.tokens.tolist() == [3186, 2084, 3190, 1386, 2382, 1625]
    assert qwen.neurons.selected.sum() == 1167
    assert qwen.effects["nll"].rows == ("de", "zh", "sw")


def test_its_neurons_are_those_that_it_says(gemma):
    assert (gemma.neurons.score_name, gemma.neurons.top_rate) == ("lape", 0.01)
    assert gemma.neurons.selected.sum() == 369
    assert np.array_equal(gemma.parts.profile, gemma.neurons.layer_profile("all"))
    assert gemma.parts.draws is not None


def test_counted_tokens_are_those_of_the_tokenizer(gemma):
    """The tokens of each group and language, counted again without a forward pass."""
    tokenizer = AutoTokenizer.from_pretrained(real_model(GEMMA))
    corpus = ln.load_corpus(real_data("flores_sib200"), split="train", limit=300)
    tokens = np.zeros((10, len(gemma.statistics.languages)), np.int64)
    for item in corpus.items:
        digest = blake2b(item.id.encode(), digest_size=8).digest()
        group = int.from_bytes(digest, "big") % 10
        number = len(tokenizer(item.text, add_special_tokens=False)["input_ids"])
        tokens[group, gemma.statistics.languages.index(item.language)] += number
    assert np.array_equal(gemma.statistics.grouped_tokens, tokens)


def test_without_a_model_everything_but_means_works(gemma, tmp_path):
    neurons = gemma.neurons
    assert "de" in neurons.overlap().index
    interval = ln.uncertainty.jackknife(gemma.statistics, lambda s: s.probability.mean((0, 1)))
    assert np.all(interval.low < interval.high)
    name = neurons.specific["de"].names[0]
    facts = ln.cards.neuron_facts(neurons, name, statistics=gemma.statistics)
    assert facts.interval is not None
    assert facts.mean is None
    for name in ("mean", "standard_deviation"):
        with pytest.raises(LensNeuronsError, match=r"run collect\(\) on the model"):
            getattr(gemma.statistics, name)
    ln.report(tmp_path / "page.html", neurons, parts=gemma.parts)
    assert "gemma-3-270m" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_it_shows_what_it_is_of(gemma):
    shown = gemma._repr_html_()
    for text in (repr(gemma), shown):
        assert "4-bit weights dequantised to float32" in text
        assert "FLORES-200" in text
    assert "Gemma Terms of Use" in shown
    assert "CC BY-SA 4.0" in shown
    assert "ln.collect(" in repr(gemma.about)
    assert "not in the sample" in gemma.about._repr_html_()


def test_unknown_names_are_refused_with_the_known_ones():
    assert GEMMA in sample_names()
    with pytest.raises(LensNeuronsError, match=r"choose one of \['gemma-3-270m'.*Did you mean"):
        ln.load_sample("gemma-3-270")
    for wrong in ("", "../samples/gemma-3-270m", "demo"):
        with pytest.raises(LensNeuronsError, match="is not known; choose one of"):
            ln.load_sample(wrong)


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(FOLDER / GEMMA, tmp_path / "copy")


@pytest.mark.parametrize("name", [ABOUT, STATISTICS])
def test_a_damaged_file_is_refused(copy, name):
    content = (copy / name).read_bytes()
    for place in (3, len(content) // 2, len(content) - 4):
        (copy / name).write_bytes(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
        with pytest.raises(StorageError, match=name):
            read_sample(copy)
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match=name):
        read_sample(copy)
    (copy / name).unlink()
    with pytest.raises(StorageError, match=f"{name} does not exist"):
        read_sample(copy)


def test_a_file_that_is_named_has_to_be_there(copy):
    about = About.load(copy / ABOUT)
    for name in ("effects-nll.safetensors", "lens.safetensors", "cards/L1N2.jsonl"):
        replace(about, files=(*about.files, name)).save(copy / ABOUT)
        kept = (copy / name).read_bytes() if (copy / name).exists() else None
        (copy / name).unlink(missing_ok=True)
        with pytest.raises(StorageError, match=f"{name.rpartition('/')[2]} does not exist"):
            read_sample(copy)
        if kept is not None:
            (copy / name).write_bytes(kept)


@pytest.mark.parametrize("name", sample_names())
def test_a_sample_is_small_and_quotes_no_text(name):
    files = [path for path in (FOLDER / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 11_000_000
    assert all(card.contexts == () for card in ln.load_sample(name).cards)


def test_no_sentence_of_the_corpus_is_in_a_sample():
    corpus = ln.load_corpus(real_data("flores_sib200"), split="train", limit=300)
    held = b"".join(path.read_bytes() for path in FOLDER.rglob("*") if path.is_file())
    asked = ln.load_corpus(real_data("mgsm"), limit=25)
    texts = [item.text[20:40].encode() for item in (*corpus.items, *asked.items)]
    assert not [text for text in texts if len(text) >= 20 and text in held]
