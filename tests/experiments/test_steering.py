"""Steering curves on a Llama built by hand, where the strength at which it switches is known.

Nine dimensions are used: a unit vector for each of six tokens, one that is always 1, and two that
neurons write to. Attention is zero. In the one layer, with c for what the norm makes of 1,

    neuron 0    activation 0 always; its output goes to the logit of the Chinese word
    neuron 1    activation c / 4; its output goes to the logit of the Bengali word

Steering neuron 0 toward Chinese (mean 1) by alpha makes the logits

    Bengali word    s * 3 * (1 + c**2 / 4)        (s * 3 once neuron 1 is ablated)
    Chinese word    s * 3 * alpha * c
    "7"             s * 20 after the Chinese word, else 0

with s the scale of the final norm. So the model says one Bengali word for ever, until alpha * c
exceeds 1 + c**2 / 4 (or 1); then it says the Chinese word and "7" in turn.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import planted
import pytest
import torch
from edited import state_of

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError
from lensneurons.evaluation.generation import generate
from lensneurons.evaluation.likelihood import nll
from lensneurons.experiments.steering import KINDS, steering_curve
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.neurons.sets import NeuronSet
from lensneurons.uncertainty.items import item_bootstrap
from lensneurons.uncertainty.paired import wilson_interval

WORDS = ("[UNK]", "[PAD]", "আম", "苹果", "7", "9")
D, EPS = 16, planted.EPS
ONE, TO_ZH, TO_BN = 6, 7, 8
C = 1 / math.sqrt(2 / D + EPS)
ALPHAS = (0.0, 0.5, 2.0)


def save_switch(folder):
    model = planted.silent_llama(len(WORDS), d_model=D, d_mlp=4)
    layer = model.model.layers[0]
    with torch.no_grad():
        model.model.embed_tokens.weight[: len(WORDS), : len(WORDS)] = torch.eye(len(WORDS))
        model.model.embed_tokens.weight[:, ONE] = 1
        layer.mlp.up_proj.weight[:, ONE] = 1
        layer.mlp.gate_proj.weight[1, ONE] = 0.25
        layer.mlp.down_proj.weight[TO_ZH, 0] = layer.mlp.down_proj.weight[TO_BN, 1] = 1
        model.lm_head.weight[2, [ONE, TO_BN]] = 3
        model.lm_head.weight[3, TO_ZH] = 3
        model.lm_head.weight[4, 3] = 20
    model.save_pretrained(folder)
    planted.tokenizer(WORDS).save_pretrained(folder)
    return folder


def expected_nll(prompt, response, alpha, *, ablated=False):
    """Sum over the response, in closed form."""
    text = [WORDS.index(word) for word in (prompt + response).split()]
    total, to_bn = 0.0, 0 if ablated else C**2 / 4
    scale = 1 / math.sqrt((2 + (alpha * C) ** 2 + to_bn**2) / D + EPS)
    for before, token in list(pairwise(text))[len(prompt.split()) - 1 :]:
        seven = 20 if before == 3 else 0
        logits = scale * np.array([0, 0, 3 * (1 + to_bn), 3 * alpha * C, seven, 0])
        total += np.log(np.exp(logits).sum()) - logits[token]
    return total


ROWS = {
    ("a", "bn"): ("আম 9\n", "আম 7"),
    ("b", "bn"): ("আম আম 9\n", "আম আম 9"),
    ("c", "bn"): ("আম 7 আম\n", "7"),
    ("c", "zh"): ("苹果 7 9\n", "苹果 苹果 7"),
    ("a", "zh"): ("苹果 9\n", "苹果 7"),
    ("b", "zh"): ("9\n", "苹果 苹果 9"),
}


def corpus_of(names, name):
    rows = (
        {"id": i, "language": k, "prompt": ROWS[i, k][0], "response": ROWS[i, k][1]}
        for i, k in names
    )
    return build_corpus(rows, name=name)


@pytest.fixture(scope="module")
def corpus():
    return corpus_of(ROWS, "switch")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(save_switch(tmp_path_factory.mktemp("switch")), device="cpu")


def make_statistics(**means):
    """Statistics of neuron 0 with given means; the others have mean 0."""
    sums = np.zeros((1, 4, len(means)))
    sums[0, 0] = [100 * mean for mean in means.values()]
    counts = np.zeros((1, 1, 4, len(means)), np.int64)
    tokens = np.full((1, len(means)), 100)
    return ActivationStatistics(tuple(means), counts, tokens, sums=sums, squares=sums**2)


STATISTICS = make_statistics(bn=0.0, zh=1.0)
TO_CHINESE = NeuronSet(np.array([0]), 1, 4, "zh")
OF_BENGALI = NeuronSet(np.array([1]), 1, 4, "bn")
HOW = {
    "statistics": STATISTICS, "toward": "zh", "prompts_in": "bn", "alphas": ALPHAS,
    "max_new_tokens": 4, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def curve(model, corpus):
    return steering_curve(model, corpus, TO_CHINESE, **HOW)


@pytest.fixture(scope="module")
def without_bengali(model, corpus):
    return steering_curve(model, corpus, TO_CHINESE, also_ablate=OF_BENGALI, **HOW)


def test_the_model_switches_where_the_formula_says(curve, without_bengali):
    assert ALPHAS[1] * C < 1 + C**2 / 4 < ALPHAS[2] * C  # 1.41 < 3 < 5.66
    assert ALPHAS[1] * C > 1
    bengali, chinese = ("আম আম আম আম",) * 3, ("苹果 7 苹果 7",) * 3
    assert curve.texts == (bengali, bengali, chinese)
    assert without_bengali.texts == (bengali, chinese, chinese)
    assert curve.share_in("zh").estimate.tolist() == [0, 0, 1]
    assert curve.share_in("bn").estimate.tolist() == [1, 1, 0]
    assert without_bengali.share_in("zh").estimate.tolist() == [0, 1, 1]
    assert curve.share_in(None).estimate.tolist() == [0, 0, 0]


def test_a_tokenizer_may_be_given(model, corpus, curve, monkeypatch):
    own = original_tokenizer(model)
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(ModelError, match="pass tokenizer="):
        steering_curve(model, corpus, TO_CHINESE, **HOW)
    found = steering_curve(model, corpus, TO_CHINESE, tokenizer=own, **HOW)
    assert found.texts == curve.texts
    assert np.array_equal(found.nll, curve.nll)


def test_answers_are_those_of_the_prompts_items(curve):
    """Items a and c are answered by 7, b by 9; the responses of the prompts' language decide."""
    assert curve.item_ids == ("a", "b", "c")
    assert curve.right.tolist() == [[False] * 3, [False] * 3, [True, False, True]]
    for found in (curve.share_right(level=0.8), curve.share_right_toward(level=0.8)):
        assert found.estimate == pytest.approx([0, 0, 2 / 3])
        assert (found.low[2], found.high[2]) == pytest.approx(wilson_interval(2, 3, level=0.8))


@pytest.mark.parametrize("ablated", [False, True])
def test_every_nll_equals_its_closed_form(ablated, curve, without_bengali):
    found = without_bengali if ablated else curve
    for place, (asked, answered) in enumerate((("bn", "bn"), ("bn", "zh"), ("zh", "zh"))):
        for i, item in enumerate(found.item_ids):
            prompt, response = ROWS[item, asked][0], ROWS[item, answered][1]
            assert found.tokens[place, i] == len(response.split())
            for a, alpha in enumerate(ALPHAS):
                expected = expected_nll(prompt, response, alpha, ablated=ablated)
                assert found.nll[a, place, i] == pytest.approx(expected, abs=1e-4)
    assert KINDS == ("own", "switched", "target")


@pytest.mark.parametrize("method", ["add", "difference"])
def test_at_alpha_0_the_model_is_exactly_as_it_was(method, model, corpus):
    plain = nll(model, corpus)
    prompts = [item.prompt for item in corpus.select(["bn"])]
    options = {**HOW, "method": method, "alphas": (0.0,)}
    found = steering_curve(model, corpus, TO_CHINESE, **options)
    assert found.nll[0, 0].tolist() == plain.nll[:3].tolist()
    order = [plain.item_ids[3:].index(item) for item in found.item_ids]
    assert found.nll[0, 2].tolist() == plain.nll[3:][order].tolist()
    assert list(found.texts[0]) == generate(model, prompts, max_new_tokens=4, progress=False)


def test_a_difference_is_taken_from_the_language_of_the_prompts(model, corpus):
    """Means 3 - 1 at alpha 1 push as far as mean 1 at alpha 2 does; French takes no part."""
    statistics = make_statistics(bn=1.0, zh=3.0, fr=70.0)
    options = {**HOW, "statistics": statistics, "method": "difference", "alphas": (0.0, 1.0)}
    found = steering_curve(model, corpus, TO_CHINESE, **options)
    expected = expected_nll(ROWS["a", "bn"][0], ROWS["a", "zh"][1], 2.0)
    assert found.nll[1, 1, 0] == pytest.approx(expected, abs=1e-4)


def test_means_and_changes_have_intervals_over_items(curve):
    one = np.zeros(3, np.int64)
    expected = item_bootstrap(curve.item_ids, one, curve.nll[:, 1], curve.tokens[1], seed=2)
    found = curve.mean_nll("switched", seed=2)
    assert found.estimate == pytest.approx(curve.nll[:, 1].sum(1) / curve.tokens[1].sum())
    assert np.array_equal(found.low, expected.low[:, 0])
    change = curve.nll_difference("switched")
    assert change.estimate == pytest.approx(found.estimate - found.estimate[0])
    assert (change.low[0], change.estimate[0], change.high[0]) == (0, 0, 0)
    assert change.estimate[2] < -1


def test_a_curve_is_shown_and_tabled(curve, without_bengali):
    assert without_bengali.ablated == "bn (1 neurons)"
    assert curve.provenance.interventions == "none"
    table = curve.to_pandas()
    assert table["toward"].tolist() == [0, 0, 1]
    assert table["nll_own"].tolist() == pytest.approx(curve.mean_nll("own").estimate)
    assert table["toward_low"][2] == pytest.approx(wilson_interval(3, 3)[0])
    texts = curve.texts_to_pandas()
    assert len(texts) == 9
    assert texts.iloc[8].tolist() == [2.0, "c", "苹果 7 苹果 7", "zh", True]
    assert repr(curve) == "SteeringCurve(bn to zh, add; 0: 0%, 0.5: 0%, 2: 100%)"
    assert "bn to zh: add zh (1 neurons), without bn (1 neurons)" in without_bengali._repr_html_()


def test_the_model_is_left_as_it_was(model, corpus):
    ids = torch.tensor([[2, 3, 4]])
    before = state_of(model, ids)
    steering_curve(model, corpus, TO_CHINESE, also_ablate=OF_BENGALI, **HOW)
    assert state_of(model, ids) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": ()}, r"alphas=\(\): give one number or several, each once"),
        ({"alphas": (1.0, 1.0)}, "each once"),
        ({"alphas": (0.0, float("inf"))}, "not a finite number"),
        ({"toward": "bn"}, "toward='bn' is the language of the prompts"),
        ({"toward": "fr"}, r"toward='fr' is not known; choose one of \['bn', 'zh'\]"),
        ({"also_ablate": NeuronSet(np.array([1]), 2, 4)}, "2 layers x 4 neurons, this"),
        ({"prompts_in": "de"}, "prompts_in='de' is not known"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
)
def test_bad_input_is_refused_before_any_pass(options, message, model, corpus, monkeypatch):
    monkeypatch.setattr(type(model.original_model), "forward", None)
    with pytest.raises(LensNeuronsError, match=message):
        steering_curve(model, corpus, TO_CHINESE, **{**HOW, **options})


def test_nothing_to_steer_or_to_compare_is_refused(model, corpus, curve):
    empty = NeuronSet(np.zeros(0, np.int64), 1, 4, "nobody's")
    with pytest.raises(LensNeuronsError, match="nobody's is empty"):
        steering_curve(model, corpus, empty, **HOW)
    with pytest.warns(match="lacks 1 of 2 ids"):
        apart = corpus_of([("a", "bn"), ("b", "zh")], "apart")
    with pytest.raises(CorpusError, match="no item of 'apart' is in both 'bn' and 'zh'"):
        steering_curve(model, apart, TO_CHINESE, **HOW)
    with pytest.raises(LensNeuronsError, match=r"level=1\.0"):
        curve.share_right(level=1.0)
    later = steering_curve(model, corpus, TO_CHINESE, **{**HOW, "alphas": (1.0, 2.0)})
    with pytest.raises(LensNeuronsError, match=r"a change needs alpha 0; alphas are \[1.0, 2.0\]"):
        later.nll_difference("own")
