"""The model that comes with the package: what its card says of it holds."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import pytest
import torch

import lensneurons as ln
from lensneurons.demo import run
from lensneurons.demo.run import SCORE, TOP_RATE, run_demo
from lensneurons.demo.workshop.model_card import CHOSEN_ON, TRIED
from lensneurons.demo.workshop.recipe import RECIPES, Recipe
from lensneurons.demo.world import LANGUAGES, generate, render
from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.ablation_effects import FEWEST
from lensneurons.models.adapters import DEMO_ADAPTERS
from lensneurons.models.loading import DEMO_FOLDER
from lensneurons.values.files import load_json


@pytest.fixture(scope="module")
def demo() -> Any:
    return ln.load_model("demo", device="cpu")


@lru_cache
def hugging_face(attention: str) -> tuple[Any, Any]:
    """The same folder through Hugging Face's own door."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        DEMO_FOLDER, dtype=torch.float32, attn_implementation=attention
    )
    return model.eval(), AutoTokenizer.from_pretrained(DEMO_FOLDER)


def test_it_is_small_and_whole_and_made_by_the_committed_recipe(demo) -> None:
    files = {path.name: path.stat().st_size for path in DEMO_FOLDER.iterdir()}
    assert sum(files.values()) < 15 * 2**20
    needed = "README.md config.json model.safetensors recipe.json tokenizer.json"
    assert set(needed.split()) <= set(files)
    assert "checkpoint.safetensors" not in files
    assert Recipe(**load_json(DEMO_FOLDER / "recipe.json")) == RECIPES["full"]
    assert demo.cfg.model_name == "demo"
    assert demo.original_model.config.hidden_act == "relu"
    assert (demo.cfg.n_layers, demo.cfg.d_mlp) == (12, 384)


@pytest.mark.parametrize("language", LANGUAGES)
def test_logits_equal_hugging_face(demo: Any, language: str) -> None:
    plain, tokenizer = hugging_face("eager")
    problem = generate("test", 1)[0]
    ids = torch.tensor([tokenizer("".join(render(problem, language)))["input_ids"]])
    with torch.no_grad():
        logits = demo(ids)
        assert torch.equal(logits, plain(ids).logits)
        usual = hugging_face("sdpa")[0](ids).logits
    torch.testing.assert_close(logits, usual, rtol=1e-4, atol=1e-4)


def test_its_tokenizer_gives_back_ten_thousand_texts() -> None:
    _, tokenizer = hugging_face("eager")
    problems = generate("train", 1000, seed=5)
    for language in LANGUAGES:
        texts = ["".join(render(problem, language)) for problem in problems]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        assert tokenizer.batch_decode(ids) == texts


def test_it_solves_problems_that_it_has_never_seen(demo: Any) -> None:
    corpus = ln.load_corpus("demo", split="test", languages=["en", "de", "zh", "bn"], limit=25)
    found = ln.accuracy(demo, corpus, max_new_tokens=80, progress=False).per_language()
    # On 200 problems: see the card. Four standard errors of 25 are left for chance.
    assert found.loc["en", "both"] >= 0.7
    assert found.loc[["de", "zh"], "both"].min() >= 0.5
    assert found.loc["bn", "both"] < found.loc["en", "both"]


@pytest.mark.filterwarnings("ignore:no other neurons are as active")
def test_its_neurons_are_needed_by_their_own_language(demo) -> None:
    corpus = ln.load_corpus("demo", split="validation", limit=25)
    statistics = ln.collect(demo, corpus, progress=False)
    neurons = ln.identify(statistics, score=SCORE, top_rate=TOP_RATE)
    some = ["en", "zh", "th"]
    corpus = ln.load_corpus("demo", split="test", limit=5, languages=some)
    sets = {"specific + related": {code: neurons[code] for code in some}}
    options: Any = {"sets": sets, "match": ("own", "activity"), "controls": 3}
    matrix = ln.ablation_matrix(demo, corpus, neurons, **options, progress=False)
    both = matrix.summary().set_index(["removed", "figure"])["estimate"]["specific + related"]
    assert both["mean diagonal"] > 0.08
    assert both["diagonal / off-diagonal"] > 3
    assert both["mean diagonal"] > 3 * both["control (activity): mean diagonal"]
    assert both["beyond control (own): selectivity"] > 0.04


def test_the_card_says_what_is_asked_of_a_card() -> None:
    card = (DEMO_FOLDER / "README.md").read_text(encoding="utf-8")
    headings = ("Training", "Accuracy", "What it shows", "Again, with other seeds", "Limits")
    for heading in headings:
        assert f"## {heading}\n" in card
    assert "training_curve.svg" in card
    assert f"chosen while looking at seed {CHOSEN_ON}: {TRIED}" in card
    assert (DEMO_FOLDER / "training_curve.svg").is_file()
    rows = re.findall(r"^\| (\w\w) \| ([\d.]+)% \| ([\d.]+)% \(", card, re.MULTILINE)
    assert [code for code, *_ in rows] == list(LANGUAGES)
    shares = RECIPES["full"].shares
    assert all(abs(float(share) / 100 - shares[code]) < 0.001 for code, share, _ in rows)


def test_the_page_says_of_the_alignment_what_its_card_says() -> None:
    card = (DEMO_ADAPTERS / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"(\d+\.\d)(?: points)? \((\d+\.\d) to (\d+\.\d)\)", run.ALIGNED_NOTE)
    assert len(told) == 2
    for change, low, high in told:
        assert f"+{change} (+{low} to +{high})" in card
    others = re.search(r"other seeds gained (\S+) and (\S+) points", run.ALIGNED_NOTE)
    assert others is not None
    [row] = re.findall(r"^\| right: zh-de \| untouched \|(.*)", card, re.MULTILINE)
    assert re.findall(r"\+(\S+) \(", row)[1:3] == list(others.groups())


def test_the_demo_writes_its_page_and_refuses_a_single_language(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(run, "MATRIX_ITEMS", FEWEST)  # ten take as long as all the rest
    monkeypatch.setattr(run, "WRITTEN", 20)
    monkeypatch.setattr(run, "ANSWER_ITEMS", 3)
    with pytest.raises(LensNeuronsError, match="language"):
        run_demo(tmp_path / "demo.html", languages=["en"], items=3, say=print)
    said: list[str] = []
    page = run_demo(tmp_path / "demo.html", languages=["en", "zh", "sw"], items=6, say=said.append)
    text = page.read_text(encoding="utf-8")
    assert "word problems in ten languages" in text
    assert "Right answers, before and after" in text
    assert "Gemma 3 270M: 18 layers" in text
    assert "Mistral-7B of the paper: 32 layers" in text
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*https?://", text)
    assert any("neurons by the number of languages" in line for line in said)
