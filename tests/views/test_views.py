"""The token view and the attention view: characters whole, numbers right, hostile text inert.

Activations and patterns are those of a plain Hugging Face forward; how tokens are put together to
whole characters is tested in `tests/tokens/test_characters.py`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from corpus_data import whole_words
from many_scripts import tokenizer, world
from tiny import D_MLP, LAYERS, byte_tokenizer, first_matrix

from lensneurons import views
from lensneurons.demo.world import LANGUAGES
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError
from lensneurons.models.attention_patterns import pattern_hooks
from lensneurons.models.forward import watching
from lensneurons.models.views import has_hooks
from lensneurons.neurons.sets import NeuronSet
from lensneurons.plots.style import TEMPLATES
from lensneurons.tokens.characters import group_tokens
from lensneurons.views import attention_view, token_view
from lensneurons.views.page import visible

TEXTS = ["the cat sat on a mat", "小明有三个苹果", "แมวนั่งบนเสื่อ 9"]
HOSTILE = (
    "<script>alert(1)</script> </div></section><img src=x onerror='x()'> \"'`& <s> &amp; "
    "a\u202eb e\u0301 \u0301 👨‍👩‍👧 \0 \x07 \ud800 مرحبا שלום ক্ষ ห้า \ufeff\u2028 <!-- ]]>"
)


@pytest.mark.parametrize("text", [text for texts in world(3).values() for text in texts])
def test_ordinary_text_is_visible_as_it_is(text: str) -> None:
    assert visible(text) == text
    assert visible(text + "\0\u202e\ud800\r") == text + "␀\\u202e\\ud800␍"


def hugging_face(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def pre_activations(folder: Path, architecture: str, ids: list[int]) -> np.ndarray:
    """hook_pre [layer, token, neuron] by forward hooks on the Hugging Face model."""
    model, seen = hugging_face(folder), []
    for module, read in first_matrix(model, architecture):
        module.register_forward_hook(lambda m, i, o, read=read: seen.append(read(o)))
    with torch.no_grad():
        model(torch.tensor([ids]))
    return np.stack([pre.reshape(len(ids), -1).double().numpy() for pre in seen])


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Llama": lambda x: x / (1 + np.exp(-x)),
    "GPT2": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "OPT": lambda x: np.maximum(x, 0),
}


@pytest.mark.parametrize("architecture", list(ACTIVATIONS))
def test_values_are_those_of_a_plain_forward(
    architecture: str, bridge: Callable[..., Any], model_folder: Callable[..., Path]
) -> None:
    model = bridge(architecture)
    chosen = NeuronSet(np.array([3, 17, D_MLP + 5, 3 * D_MLP - 1]), LAYERS, D_MLP, "four")
    one = views.tokens(model, TEXTS, (1, 5))
    mean = views.tokens(model, TEXTS, chosen)
    assert not has_hooks(model)
    for text, single, several in zip(TEXTS, one.texts, mean.texts, strict=True):
        ids = list(single.read.ids)
        assert ids == byte_tokenizer(bos=architecture != "GPT2")(text)["input_ids"]
        pre = pre_activations(model_folder(architecture), architecture, ids)
        acts = ACTIVATIONS[architecture](pre)
        np.testing.assert_allclose(single.activations, acts[1, :, 5], atol=2e-5)
        wanted = (acts[0, :, 3] + acts[0, :, 17] + acts[1, :, 5] + acts[2, :, D_MLP - 1]) / 4
        np.testing.assert_allclose(several.activations, wanted, atol=2e-5)


def test_names_and_pairs_are_the_same_neuron(bridge: Callable[..., Any]) -> None:
    named = views.tokens(bridge("Llama"), TEXTS[0], "L2N17")
    paired = views.tokens(bridge("Llama"), TEXTS[0], (2, 17))
    assert named.neurons == paired.neurons
    assert np.array_equal(named.texts[0].activations, paired.texts[0].activations)
    assert repr(named).startswith("TokenView(activation of L2N17; 1 texts, ")


def test_hooks_that_are_on_the_model_act(bridge: Callable[..., Any]) -> None:
    model = bridge("Llama")
    plain = [views.tokens(model, TEXTS[0], (layer, 5)).texts[0].activations for layer in (0, 1)]
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda t, hook: t.flip(-1))]):
        changed = [views.tokens(model, TEXTS[0], (k, 5)).texts[0].activations for k in (0, 1)]
    np.testing.assert_allclose(changed[0], plain[0], atol=2e-5)
    assert np.abs(changed[1] - plain[1]).max() > 0.01


def test_a_span_has_its_largest_magnitude_and_the_scale_leaves_out_bos(view: Any) -> None:
    text = view.texts[1]
    signed = np.random.default_rng(1).normal(size=len(text.read.ids))
    text = replace(text, activations=signed)
    for span, value in zip(text.read.spans, text.values, strict=True):
        members = [text.activations[place] for place in span.tokens]
        assert value in members
        assert abs(value) == max(map(abs, members))
    assert min(text.values) < 0
    assert text.read.added == (0,)
    shown = [np.delete(t.activations, t.read.added) for t in view.texts]
    assert view.end == max(np.abs(np.concatenate(shown)))
    loud = replace(text, activations=np.where(np.arange(len(text.read.ids)) == 0, 1e6, 0.5))
    assert replace(view, texts=(loud,)).end == 0.5


def test_the_table_has_every_token(view: Any) -> None:
    table = view.to_pandas()
    assert list(table.columns) == list(token_view.COLUMNS)
    assert len(table) == sum(len(text.read.ids) for text in view.texts)
    second = table[table.text == 1]
    assert second.label.tolist() == ["zh"] * len(second)
    assert second.activation.tolist() == view.texts[1].activations.tolist()
    held = [TEXTS[1][b:e] for b, e in zip(second.begin, second.end, strict=True)]
    assert held == second.characters.tolist()  # no combining marks here


@pytest.fixture(scope="module")
def view(bridge: Callable[..., Any]) -> Any:
    return views.tokens(bridge("Llama"), TEXTS, "L1N5", labels=["en", "zh", "th"])


def refused(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(LensNeuronsError) as error:
        inspect.unwrap(function)(*args, **options)
    return str(error.value)


def test_bad_input_is_refused_before_any_forward_pass(
    bridge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bridge("Llama")
    monkeypatch.setattr(token_view, "watch_chosen", None)  # a pass would now be a TypeError
    other = NeuronSet(np.array([1]), LAYERS, D_MLP + 1, "other")
    empty = NeuronSet(np.array([], np.int64), LAYERS, D_MLP)
    assert "L9N0 is outside a model of 3 layers" in refused(views.tokens, model, "a", "L9N0")
    assert "write 'L12N3456'" in refused(views.tokens, model, "a", "layer 3")
    assert f"of a model of 3 x {D_MLP + 1}" in refused(views.tokens, model, "a", other)
    assert "holds no neurons" in refused(views.tokens, model, "a", empty)
    assert "no text: give a text" in refused(views.tokens, model, [], "L0N0")
    assert "text 2 of 2 is empty" in refused(views.tokens, model, ["a", ""], "L0N0")
    assert "1 labels for 2 texts" in refused(views.tokens, model, ["a", "b"], "L0N0", labels=["en"])
    assert "text 1 of 1 has" in refused(views.tokens, model, "x y" * 400, "L0N0")
    long = refused(views.tokens, model, ["a b c"] * 3, "L0N0", most_tokens=10)
    assert "18 tokens to show, but most_tokens=10" in long
    assert "pass the tokenizer that belongs" in refused(
        views.tokens, model, world(3)["en"][0][:60], "L0N0", tokenizer=tokenizer("demo")
    )


def test_texts_without_tokens_are_refused(bridge: Callable[..., Any]) -> None:
    with pytest.raises(CorpusError, match="text 1 of 1 has no tokens"):
        views.tokens(
            bridge("Llama"), "  ", "L0N0", tokenizer=whole_words(["[UNK]"], unk_token="[UNK]")
        )


def test_a_hook_that_does_not_fire_is_seen(
    bridge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lensneurons.views.watched.watching",
        lambda model, site, _: watching(model, site, lambda layer, pre: None),
    )
    with pytest.raises(ModelError, match="hook_pre of 1 layers fired 0 times"):
        views.tokens(bridge("Llama"), "a", "L1N5")


class Page(HTMLParser):
    """Tags, attributes, and the text content of every element of class "text"."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if dict(attrs).get("class") == "text":
            self.inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "div"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def spans(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "span" and "title" in attrs]


def shown(kind: str, texts: list[str], labels: list[str], seed: int = 0) -> Any:
    """A view with drawn values: what is written depends on no model."""
    random = np.random.default_rng(seed)
    read = views.group_tokens(tokenizer(kind), texts)
    return coloured(
        *((label, one, random.normal(size=len(one.ids)))
          for label, one in zip(labels, read, strict=True))
    )  # fmt: skip


def coloured(*texts: tuple[str, views.TextTokens, np.ndarray]) -> views.TokenView:
    parts = tuple(token_view.ColouredText(*text) for text in texts)
    return views.TokenView(parts, NeuronSet(np.array([7]), 2, 8), "demo")


@pytest.mark.parametrize("kind", ["demo", "bytes", "fallback", "unigram"])
def test_a_reader_of_the_page_gets_the_text_back(kind: str) -> None:
    texts = [world()[k][place] for place, k in enumerate(LANGUAGES)]
    drawn = shown(kind, texts, list(LANGUAGES))
    page = Page(drawn.html())
    assert page.texts == texts
    named = [attrs["lang"] for _, attrs in page.tags if attrs.get("class") == "text"]
    assert named == list(LANGUAGES)
    assert all(a["dir"] == "auto" for _, a in page.tags if a.get("class") == "text")
    assert "Thai (th)" in drawn.html()


def test_hostile_text_is_inert_and_visible() -> None:
    labels = ["<b onclick='x'>", 'en" onload="x']
    tame, page = (Page(shown("demo", t, k).html()) for t, k in (
        (["one", "two"], ["a b", "c d"]), ([HOSTILE, HOSTILE[::-1]], labels),
    ))  # fmt: skip
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in tame.tags}
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.texts[0] == visible(HOSTILE)
    for trace in ("<script>alert(1)</script>", "\\u202e", "␀", "␇", "\\ud800", "\\ufeff\\u2028"):
        assert trace in page.texts[0]
    shown("demo", [HOSTILE], ["\ud800"]).html().encode("utf-8")
    assert "\\ud800" in "".join(shown("demo", [HOSTILE], [""]).to_pandas().characters)


def test_the_page_loads_and_runs_nothing(view: Any, tmp_path: Path) -> None:
    html = view.html()
    assert "default-src 'none'; style-src 'unsafe-inline'\"" in html
    assert re.findall(r"https?:|url\(|@import|<script|<link| src=", html) == []
    assert view.save(tmp_path / "new" / "a.html") == tmp_path / "new" / "a.html"
    assert (tmp_path / "new" / "a.html").read_text(encoding="utf-8") == html
    assert view._repr_html_() in html
    rules = re.search(r"<div class=\"lensneurons-tokens\".*?<style>(.*?)</style>", html, re.DOTALL)
    assert rules is not None
    for rule in rules[1].strip().splitlines():
        assert rule.startswith(".lensneurons-tokens ")


def test_a_page_that_cannot_be_made_leaves_the_old_one(
    view: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view.save(tmp_path / "a.html")
    before = (tmp_path / "a.html").read_bytes()
    monkeypatch.setattr(token_view, "render", None)
    with pytest.raises(TypeError):
        view.save(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_tooltip_names_every_token_of_its_span() -> None:
    read = views.group_tokens(byte_tokenizer(bos=True), ["é<\0"])
    drawn = coloured(("fr", read[0], np.array([9.0, 0.25, -0.5, 0.0, 0.1234])))
    spans = Page(drawn.html()).spans()
    first, second = (read[0].ids[place] for place in (1, 2))
    told = f"token {first} “<C3>” (the first of the 2 bytes of a character) +0.25"
    later = f"token {second} “<A9>” (a later byte of a character) −0.5"
    assert spans[0]["title"] == f"−0.5\n{told}\n{later}"
    assert "rgba(42,112,174,0.550)" in str(spans[0]["style"])
    assert "dotted" in str(spans[0]["style"])
    assert "style" not in spans[1]  # zero has no colour
    assert str(spans[2]["title"]).startswith("+0.123\ntoken ")
    assert "solid" in str(spans[2]["style"])
    assert "&lt;s&gt; +9" in drawn.html()
    assert "strongest −0.5 at “é”" in drawn.html()


def test_all_texts_share_one_scale_and_its_legend() -> None:
    one, two = views.group_tokens(byte_tokenizer(bos=False), ["ab", "cd"])
    drawn = coloured(("en", one, np.array([1.0, 2.0])), ("de", two, np.array([4.0, 1.0])))
    styles = [attrs["style"] for attrs in Page(drawn.html()).spans()]
    assert styles[0] == styles[3]
    assert [float(re.findall(r"[\d.]+", str(s))[3]) for s in styles] == [0.138, 0.275, 0.55, 0.138]
    mixed = coloured(("en", one, np.array([-8.0, 2.0])), ("de", two, np.array([4.0, 1.0])))
    for view, scale in ((drawn, "0 +1 +2 +3 +4"), (mixed, "−8 −4 0 +4 +8")):
        assert "".join(f"<span>{tick}</span>" for tick in scale.split()) in view.html()
    quiet = coloured(("en", one, np.zeros(2)))
    assert "0 everywhere" in quiet.html()
    assert all("style" not in attrs for attrs in Page(quiet.html()).spans())


def luminance(colour: tuple[float, ...]) -> float:
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Ground and text of JupyterLab, VS Code, Colab and our own pages.
GROUNDS = [
    ("#ffffff", "#212121"), ("#ffffff", "#3b3b3b"), ("#ffffff", "#1f2430"), ("#111111", "#e0e0e0"),
    ("#1f1f1f", "#cccccc"), ("#1e1e1e", "#d4d4d4"), ("#383838", "#e3e3e3"), ("#15181d", "#e8eaed"),
]  # fmt: skip


@pytest.mark.parametrize("colour", [token_view.ABOVE, token_view.BELOW])
@pytest.mark.parametrize("pair", GROUNDS)
def test_text_keeps_its_contrast_at_the_ends_of_the_scale(
    colour: tuple[int, int, int], pair: tuple[str, str]
) -> None:
    ground, ink = (tuple(bytes.fromhex(code[1:])) for code in pair)
    a = token_view.OPACITY
    mixed = tuple(a * c + (1 - a) * g for c, g in zip(colour, ground, strict=True))
    high, low = sorted([luminance(mixed), luminance(ink)], reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_colours_are_those_of_changes_in_figures() -> None:
    scale = [colour for _, colour in TEMPLATES["light"].layout.colorscale.diverging]
    ours = ["#" + bytes(colour).hex() for colour in (token_view.BELOW, token_view.ABOVE)]
    assert [scale.index(colour) for colour in ours] == [1, 5]  # blue below, orange above


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3", "Gemma2", "GPT2", "Bloom", "Mistral"])
def test_patterns_are_those_of_hugging_face(
    architecture: str, bridge: Callable[..., Any], model_folder: Callable[..., Path]
) -> None:
    looked = views.attention(bridge(architecture), TEXTS, 1)
    assert not has_hooks(bridge(architecture))
    plain = hugging_face(model_folder(architecture))
    for text in looked.texts:
        with torch.no_grad():
            ids = torch.tensor([text.read.ids])
            theirs = plain(ids, output_attentions=True).attentions[1][0].numpy()
        np.testing.assert_allclose(text.pattern, theirs, atol=2e-6)


def test_heads_can_be_chosen_and_the_table_is_the_pattern(bridge: Callable[..., Any]) -> None:
    whole = views.attention(bridge("Llama"), TEXTS[:2], 2, labels=["en", "zh"])
    part = views.attention(bridge("Llama"), TEXTS[:2], 2, heads=[3, 1], labels=["en", "zh"])
    assert np.array_equal(part.texts[1].pattern, whole.texts[1].pattern[[3, 1]])
    table = part.to_pandas()
    names = "text label head destination source destination_token source_token attention"
    assert list(table.columns) == names.split()
    row = table[(table.text == 1) & (table["head"] == 3)].set_index(["destination", "source"])
    assert row.attention[4, 2] == whole.texts[1].pattern[3, 4, 2]
    assert row.source_token[4, 2] == whole.texts[1].tokens[2]
    sizes = [len(text.read.ids) for text in part.texts]
    assert len(table) == sum(2 * n * (n + 1) // 2 for n in sizes)
    assert repr(part) == f"AttentionView(layer 2, 2 heads; texts of {sizes[0]}, {sizes[1]} tokens)"


def test_bad_attention_input_is_refused_before_any_forward_pass(
    bridge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bridge("Llama")
    monkeypatch.setattr(attention_view, "_pattern", None)
    assert "layers 0 to 2" in refused(views.attention, model, "a", 3)
    assert "layers 0 to 2" in refused(views.attention, model, "a", -1)
    assert "heads 0 to 3 once" in refused(views.attention, model, "a", 0, heads=[4])
    assert "heads 0 to 3 once" in refused(views.attention, model, "a", 0, heads=[1, 1])
    assert "at least one" in refused(views.attention, model, "a", 0, heads=[])
    assert "text 1 of 1 is empty" in refused(views.attention, model, "", 0)
    large = refused(views.attention, model, ["abc", "b"], 0, most_numbers=50)
    assert "numbers to draw, but most_numbers=50: shorten the texts, choose heads=" in large
    with pytest.raises(ModelError, match="not a TransformerLens model"):
        inspect.unwrap(views.attention)(object(), "a", 0)


def test_a_hook_that_holds_no_pattern_is_seen(bridge: Callable[..., Any]) -> None:
    model, name = bridge("Llama"), "blocks.0.attn.hook_pattern"
    for change, told in ((lambda t, hook: t * 2, "add up to 2 to 2"),
                         (lambda t, hook: t.flip(-1), "later token")):  # fmt: skip
        with model.hooks(fwd_hooks=[(name, change)]):
            with pytest.raises(ModelError, match=told):
                views.attention(model, "abc", 0)
    hookless = SimpleNamespace(cfg=SimpleNamespace(n_layers=2), hook_dict={})
    with pytest.raises(ModelError, match=r"has no blocks\.0\.attn\.hook_pattern"):
        pattern_hooks(hookless, [0])


def test_the_page_draws_every_text_and_names_every_token(
    bridge: Callable[..., Any], tmp_path: Path
) -> None:
    looked = views.attention(bridge("Llama"), [HOSTILE, "小明"], 0, labels=["</script><b>", "zh"])
    html = looked.save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert html.count("<script>") == html.lower().count("</script") == 1
    page = Page(html)
    assert not [a for _, attrs in page.tags for a in attrs if a in ("src", "href")]
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in html
    assert '<meta name="color-scheme" content="light dark">' in html
    (drawn,) = re.findall(r'drawAttention\(document\.getElementById\("[\w-]+"\), (.*)\);', html)
    assert not set("<>&'\u2028") & set(drawn)
    for given, text in zip(json.loads(drawn), looked.texts, strict=True):
        np.testing.assert_allclose(given["attention"], text.pattern, atol=6e-5)
        assert given["tokens"] == list(text.tokens)
        assert given["heads"] == ["H0", "H1", "H2", "H3"]
    assert {tag for tag, _ in page.tags} == {
        "html", "head", "meta", "title", "style", "body", "div", "b", "span", "section", "bdi",
        "script",
    }  # fmt: skip
    assert looked._repr_html_().count("<section>") == 2
    rules = re.search(r"<style>\n(\.lensneurons-attention.*?)</style>", html, re.DOTALL)
    assert rules is not None
    for rule in rules[1].strip().splitlines():
        assert rule.startswith(".lensneurons-attention ")


@pytest.mark.parametrize(("text", "held"), [("a 🍎", True), ("a b", False)])
def test_pieces_that_are_bytes_are_explained_where_there_are_some(text: str, held: bool) -> None:
    (read,) = group_tokens(tokenizer("bytes"), [text])
    coloured = token_view.ColouredText("", read, np.ones(len(read.ids)))
    one = NeuronSet.from_names(["L0N1"], n_layers=LAYERS, d_mlp=D_MLP)
    html = token_view.TokenView((coloured,), one, "made-up")._repr_html_()
    assert ("the first of the 4 bytes of a character" in html) == held
    assert html.count("is bytes, not letters") == held
