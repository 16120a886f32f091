"""Continuations with and without neurons: texts and NLL by other means, words, hostile texts."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from inspect import unwrap

import numpy as np
import pytest
import tiny
import torch

import lensneurons as ln
from lensneurons.errors import EmptySetWarning, LensNeuronsError
from lensneurons.experiments.without import Continuation, Continuations, try_without

PROMPT = "the cat sat on"
CORPUS = tiny.tiny_corpus().head(3)


@pytest.fixture(scope="module")
def statistics(llama):
    return ln.collect(llama, CORPUS, progress=False)


@pytest.fixture(scope="module")
def neurons(statistics):
    return ln.identify(statistics, score="lape", top_rate=0.4, tau=0.5)


def silenced(model, neurons, factor):
    """Hooks of PyTorch that scale what reaches the down projection of a Hugging Face Llama."""
    hooks = []
    for layer, own in neurons.by_layer().items():

        def scaled(_, given, own=own):
            post = given[0].clone()
            post[..., own] = post[..., own] * factor
            return (post,)

        down = model.model.layers[layer].mlp.down_proj
        hooks.append(down.register_forward_pre_hook(scaled))
    return hooks


@torch.no_grad()
def by_hand(neurons, factor, scored=None, new=8):
    """Greedy text and NLL a token of a continuation, by plain passes of the Hugging Face model."""
    model, tokenizer = tiny.random_model("Llama"), tiny.byte_tokenizer(bos=True)
    hooks = [] if neurons is None else silenced(model, neurons, factor)
    ids, start = tokenizer(PROMPT)["input_ids"], len(tokenizer(PROMPT)["input_ids"])
    for _ in range(new):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    text = tokenizer.decode(ids[start:], skip_special_tokens=True)
    scored = text if scored is None else scored
    whole = tokenizer(PROMPT + scored)["input_ids"]
    logits = model(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
    losses = -logits[torch.arange(len(whole) - 1), torch.tensor(whole[1:])]
    for hook in hooks:
        hook.remove()
    return text, losses[start - 1 :].mean().item(), len(whole) - start


def test_texts_and_nll_are_those_of_plain_hooks(llama, neurons):
    own = neurons["en"]
    found = try_without(llama, PROMPT, own, factor=[0, 0.5], max_new_tokens=8)
    assert [row.condition for row in found] == ["whole", *["without", "random"] * 2]
    assert [row.strength for row in found] == [None, 0.0, 0.0, 0.5, 0.5]
    [random] = own.random_control(1)
    text, nll, tokens = by_hand(None, 1)
    assert (found.whole.text, found.scored) == (text, text)
    expected = [(text, nll)]
    for factor in (0, 0.5):
        for chosen in (own, random):
            expected.append(by_hand(chosen, factor, scored=text)[:2])
    assert [row.text for row in found] == [one for one, _ in expected]
    assert [row.nll for row in found] == pytest.approx([one for _, one in expected], abs=2e-4)
    assert found.tokens == tokens
    assert len({row.nll for row in found}) == 5
    assert found.match == "as active where en is"


def test_a_given_continuation_is_scored(llama, neurons):
    found = try_without(llama, PROMPT, "L2N10 L1N3", continuation="三个苹果", max_new_tokens=2)
    _, nll, _ = by_hand(None, 1, scored="三个苹果", new=1)
    assert found.scored == "三个苹果"
    assert found.whole.nll == pytest.approx(nll, abs=2e-4)
    assert (found.neurons, found.match) == ("L2N10 L1N3: 2 neurons", "of the same layers")


def test_steering_is_steer(llama, neurons, statistics):
    found = try_without(
        llama, PROMPT, neurons["zh"], toward="zh", statistics=statistics, alpha=2, max_new_tokens=6
    )
    with ln.steer(llama, neurons["zh"], statistics, toward="zh", alpha=2.0):
        [text] = ln.generate(llama, [PROMPT], max_new_tokens=6, progress=False)
    assert found.rows[1].text == text
    assert found.edit == "steered toward zh, by alpha"


def made(whole, other, prompt="p", label="zh"):
    rows = (
        Continuation("whole", None, whole, 1.0),
        Continuation("without", 0.0, other, 1.5),
        Continuation("random", 0.0, whole, None),
    )
    return Continuations(rows, prompt, whole, 3, label, "scaled, by factor", "alike")


@pytest.mark.parametrize(
    ("whole", "other", "changed"),
    [
        ("he has two red apples", "he had two apples", ["had"]),
        ("小明有三个苹果", "小明有两个苹果", ["两"]),
        ("same words", "same words", []),
        ("", "all new", ["all new"]),
        ("a b", "", []),
        ("แมวนั่ง", "แมวนอน", ["นอน"]),
    ],
)
def test_changed_words_are_marked(whole, other, changed):
    found = made(whole, other)
    pieces = found.marked(found.rows[1])
    assert "".join(piece for piece, _ in pieces) == other
    marked = [piece.strip() for piece, new in pieces if new]
    assert "".join(marked) in ("".join(changed), "".join(changed)[1:])  # 1st letter may be shared
    assert found.marked(found.whole) == (((whole, False),) if whole else ())
    assert f"<mark>{marked[0]}</mark>" in found._repr_html_() if marked else True


def test_it_is_a_table_and_a_file(tmp_path):
    found = made("he has two red apples", "he had two apples")
    table = found.to_pandas()
    assert table["added"].tolist()[:2] == [0.0, 0.5]
    assert np.isnan(table["added"][2])
    assert table["changed"].tolist() == [0.0, 0.25, 0.0]
    assert "without 0: 25% of words, NLL +0.500" in repr(found)
    again = Continuations.load(found.save(tmp_path / "found.jsonl"))
    assert again.rows == found.rows
    assert again._repr_html_() == found._repr_html_()


HOSTILE = ("<script>alert(1)</script>", "</td></table><img src=x onerror=a>", "\u202eevil\0\ud800")


class Tags(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.found = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, [name for name, _ in attrs]))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_do_nothing(text):
    source = made(text, text + " x", prompt=text, label=text)._repr_html_()
    harmless = made("a", "a x", prompt="a", label="a")._repr_html_()
    assert Tags(source).found == Tags(harmless).found
    assert "\u202e" not in source
    source.encode("utf-8")
    repr(made(text, text, prompt=text, label=text)).encode("utf-8")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prompt": " "}, "prompt=' ': give a text to go on from"),
        ({"neurons": "L9N0"}, "L9N0 is outside a model of 3 layers x 52 neurons"),
        ({"factor": [1, 1]}, "give one number or several, each once"),
        ({"toward": "zh"}, "toward='zh' needs statistics="),
        ({"alpha": 2}, "alpha= needs toward="),
        ({"continuation": " "}, "continuation is empty"),
    ],
)
def test_refusals(options, told, llama):
    given = {"prompt": PROMPT, "neurons": "L0N1", **options}
    with pytest.raises(LensNeuronsError, match=told):
        unwrap(try_without)(llama, given.pop("prompt"), given.pop("neurons"), **given)


def test_an_empty_set_and_other_statistics_are_refused(llama, statistics, neurons):
    empty = replace(neurons["en"], flat=np.zeros(0, np.int64))
    with (
        pytest.warns(EmptySetWarning, match="no neurons in 'en'"),
        pytest.raises(LensNeuronsError, match="en is empty: there is nothing to go without"),
    ):
        try_without(llama, PROMPT, empty)
    with pytest.raises(LensNeuronsError, match="factor= scales and toward= steers"):
        try_without(llama, PROMPT, "L0N1", toward="zh", statistics=statistics, factor=2)
