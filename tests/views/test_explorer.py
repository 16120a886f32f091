"""The explorer: exact codes of p, activations of a plain forward, refusals, hostile texts inert."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html import unescape
from inspect import unwrap
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
import torch
from bs4 import BeautifulSoup
from explored import explored
from tiny import D_MLP, LAYERS

import lensneurons as ln
from lensneurons.errors import LensNeuronsError
from lensneurons.models.views import has_hooks
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.views import explorer
from lensneurons.views.page import visible

HOSTILE = (
    "<script>alert(1)</script> </div></section><img src=x onerror='x()'> \"'`& <s> &amp; a\u202eb"
    " \0 \ud800 <!-- ]]>"
)
TEXTS = {"en": "She has 3 apples.", "zh": "小明有三个苹果", "th": "แมวนั่งบนเสื่อ"}


def made_up(layers: int = LAYERS, d_mlp: int = D_MLP) -> LanguageNeurons:
    """Neurons of the tiny model's shape, of all four classes."""
    random = np.random.default_rng(2)
    p = random.integers(0, 201, (layers, d_mlp, 3)) / 200  # many lie on a bar exactly
    score = random.random((layers, d_mlp))
    return LanguageNeurons(
        languages=("en", "zh", "th"), probability=p, score=score, selected=score < 0.4, tau=0.503,
        tau_origin="given", lambda_=None, lambda_origin="none", score_name="lape", top_rate=0.4,
    )  # fmt: skip


def data_of(html: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    return json.loads(found)


def array_of(html: str, name: str, kind: str) -> np.ndarray:
    (found,) = re.findall(rf'id="blob-{name}">(.*?)</script>', html)
    return np.frombuffer(base64.b64decode(found), kind)


def tags(html: str) -> set[str]:
    return {tag.name for tag in BeautifulSoup(html, "html.parser").find_all()}


def test_every_bar_divides_as_the_package_does() -> None:
    found = made_up()
    html = ln.explore(found).html()
    data = data_of(html)
    codes = array_of(html, "codes", "u1").reshape(LAYERS, D_MLP, 3)
    assert data["bars"][data["own"]] == found.tau
    for place, bar in [*enumerate(data["bars"])][:: len(data["bars"]) // 20]:
        again = replace(found, tau=bar)
        assert np.array_equal(codes > place, again.above)
    table = found.with_population("all").to_pandas()
    chosen = [f"L{i // D_MLP}N{i % D_MLP}" for i in array_of(html, "best", "<i4")]
    assert [name for name in table["name"] if name in chosen] == [
        name for name in chosen if found.class_of(name) != "unclassified"
    ]
    assert len(chosen) == found.selected.sum()


def test_activations_are_those_of_a_plain_forward(llama: Any) -> None:
    found = made_up()
    page = ln.explore(found, TEXTS, model=llama)
    assert not has_hooks(llama)
    assert page.recorded == NeuronSet.from_mask(found.selected) | found.agnostic
    column = 0
    for text in page.texts:
        _, cache = llama.run_with_cache(torch.tensor([text.read.ids]))
        pre = np.stack([cache[f"blocks.{i}.mlp.hook_pre"][0].numpy() for i in range(LAYERS)])
        values = (pre / (1 + np.exp(-pre)))[page.recorded.layers, :, page.recorded.neurons]
        active = (pre > 0)[page.recorded.layers, :, page.recorded.neurons]
        for span in text.read.spans:
            here = page.activations[:, column]
            assert np.array_equal(here > 0, active[:, span.tokens].any(axis=1))
            wanted = values[:, span.tokens].max(axis=1)
            assert (np.abs(here * page.ends / 127 - wanted) <= page.ends / 127 + 1e-5).all()
            column += 1
    assert column == page.activations.shape[1]
    assert (np.abs(page.activations).max(axis=1) == 127).all()


def test_texts_of_any_form_stand_side_by_side_with_their_meaning(llama: Any) -> None:
    found, corpus = made_up(), ln.load_corpus({k: [text] * 3 for k, text in TEXTS.items()})
    page = ln.explore(found, corpus, model=llama, items=2, record="L0N1")
    assert [(t.item, t.label) for t in page.texts] == [
        (i, k) for i in corpus.ids[:2] for k in TEXTS
    ]
    assert {text.gloss for text in page.texts} == {TEXTS["en"]}
    assert "The first 2 of 3 items are shown." in page.html()
    assert page.recorded.names == ["L0N1"]
    told = data_of(ln.explore(found, TEXTS, model=llama, glosses=["apples"]).html())
    assert [item["gloss"] for item in told["items"]] == ["apples"]
    bare = ln.explore(found, ["ab", "cd"], model=llama, glosses=["one", "two"])
    (item,) = data_of(bare.html())["items"]
    assert [(t["label"], t["language"], t["gloss"]) for t in item["texts"]] == [
        ("text 1", "", "one"), ("text 2", "", "two"),
    ]  # fmt: skip


def test_what_is_too_much_is_drawn_from_each_class_and_said(llama: Any) -> None:
    found = made_up()
    page = ln.explore(found, "abc", model=llama, most_numbers=3 * 20)
    assert len(page.texts[0].read.spans) == 3
    codes = found.class_codes.flat[page.recorded.flat]
    assert np.bincount(codes, minlength=4).tolist() == [5, 5, 5, 5]
    every = len(NeuronSet.from_mask(found.selected) | found.agnostic)
    assert f"Activations were recorded for 20 of {every} neurons, drawn at random" in page.html()
    few = explorer._sampled(np.arange(9), np.array([0, 1, 1, 1, 1, 2, 2, 2, 2]), 6)
    assert len(few) == 6
    assert few[0] == 0  # the only one of its class


def test_bad_input_is_refused_before_any_forward_pass(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer, "watch_chosen", None)  # a pass would now be a TypeError
    for texts, options, told in (
        (None, {"model": llama}, "model= is given without texts"),
        (None, {"model": None, "record": "L0N0"}, "record= is given without texts"),
        ("ab", {"model": None}, "texts are coloured by what a model does"),
        ("ab", {"items": 0}, "items=0: give 1 or more"),
        ("", {}, "'' is no text"),
        (["ab", 3], {}, "3 is no text"),
        ("ab", {"record": "L9N0"}, "L9N0 is outside a model of 3 layers"),
        ("ab", {"record": 7}, "neurons=7: give a set"),
        (TEXTS, {"glosses": ["a", "b"]}, r"give a list of 1, one for each item that is shown"),
        (["ab", "cd"], {"glosses": ["a"]}, "give a list of 2, one for each text"),
        ("ab", {"most_numbers": 1}, "2 spans of characters to show, but most_numbers=1"),
        ("x y" * 400, {}, "the context of the model"),
    ):
        with pytest.raises(LensNeuronsError, match=told):
            unwrap(explorer.explore)(made_up(), texts, **{"model": llama, **options})
    with pytest.raises(LensNeuronsError, match=f"the model has 3 x {D_MLP}: give the model"):
        ln.explore(made_up(4), "ab", model=llama)
    with pytest.raises(LensNeuronsError, match="neurons='zh': give what identify"):
        ln.explore("zh")  # pyright: ignore


def test_hostile_texts_and_names_are_inert() -> None:
    hostile = HOSTILE.replace(" ", "\u2028", 1)
    page = explored([{"en": hostile, "zh": "</script><script>x()</script>"}])
    bad = replace(page.neurons, tau_origin="<script>x()</script>")
    html = replace(page, neurons=bad).html()
    html.encode("utf-8")
    assert html.lower().count("<script") == html.lower().count("</script") == 7
    assert "x()</script>" not in html
    data = data_of(html)
    joined = "".join(data["items"][0]["texts"][0]["spans"])
    assert joined == "".join(visible(span.text) for span in page.texts[0].read.spans)
    assert "\\u2028" in joined
    assert "\u2028" not in html
    tame = explored([{"en": "a b", "zh": "c"}]).html()
    assert tags(html) == tags(tame)


def test_the_page_needs_nothing_and_a_notebook_shows_it(tmp_path: Path) -> None:
    page = explored([{k: "".join(parts) for k, parts in pages.TEXTS.items()}])
    html = page.save(tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in html
    assert re.findall(r"https?:|url\(|@import|<link| src=", html) == []
    frame = page._repr_html_()
    (inside,) = re.findall(r'srcdoc="(.*?)"', frame, re.DOTALL)
    assert unescape(inside) == html
    assert 'sandbox="allow-scripts"' in frame
    languages = [text["language"] for text in data_of(html)["items"][0]["texts"]]
    assert languages == list(pages.LANGUAGES)
    assert repr(page).startswith("Explorer(Neurons of up-model: 320 in 8 layers; 10 texts, ")
    bare = ln.explore(page.neurons)
    assert bare.activations.size == 0
    assert 'id="rows"' not in bare.html()
