"""Importance against Hugging Face models: lengths by hand, gradients by finite differences."""

from __future__ import annotations

from inspect import unwrap

import edited
import numpy as np
import pytest
import tiny
import torch
from oracle import encode_by_hand
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.activations.collection import collect
from lensneurons.cards import attribution
from lensneurons.cards.attribution import Importance, importance
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.evaluation.likelihood import nll
from lensneurons.interventions.editing import scale
from lensneurons.models.loading import load_model
from lensneurons.models.views import has_hooks

CORPUS = tiny.tiny_corpus().head(5)
METHODS = ("plnd", "activation_gradient")
ARCHITECTURES = ("Llama", "Gemma2", "Phi3", "GPT2", "OPT", "Bloom")


def lengths_by_hand(folder, architecture, scope):
    """Mean of |h| * ||row||, [layer, neuron, language]."""
    hf = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    modules = edited.last_matrix(hf, architecture)
    rows = np.stack([np.linalg.norm(w.detach().double().numpy(), axis=1) for _, w in modules])
    columns = []
    for language in CORPUS.languages:
        total, tokens = np.zeros(rows.shape), 0
        for item in CORPUS.select([language]):
            ids, where = encode_by_hand(tokenizer, item, scope)
            seen = {}
            with (
                edited.before(modules, lambda n, h, seen=seen: seen.__setitem__(n, h)),
                torch.no_grad(),
            ):
                hf(torch.tensor([ids]))
            h = np.stack([seen[n].double().numpy()[where] for n in range(len(modules))])
            total, tokens = total + np.abs(h).sum(1), tokens + len(where)
        columns.append(total * rows / tokens)
    return np.stack(columns, -1)


def nll_by_hand(hf, architecture, texts, layer, neuron, factor):
    """Mean NLL of counted tokens with one neuron scaled on the counted tokens."""
    total, tokens = 0.0, 0
    for ids, where in texts:

        def scaled(n, h, where=where):
            if n == layer:
                h = h.clone()
                h[where, neuron] *= factor
            return h

        with edited.before(edited.last_matrix(hf, architecture), scaled), torch.no_grad():
            chances = hf(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        targets = [place for place in where if place > 0]
        total -= sum(float(chances[place - 1, ids[place]]) for place in targets)
        tokens += len(targets)
    return total / tokens


@pytest.mark.parametrize(
    ("architecture", "scope"),
    [*((one, "response") for one in ARCHITECTURES), ("Llama", "prompt"), ("Llama", "all")],
)
def test_lengths_equal_hugging_face(architecture, scope, bridge, model_folder):
    ours = importance(bridge(architecture), CORPUS, scope=scope).value
    theirs = lengths_by_hand(model_folder(architecture), architecture, scope)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.max())
    assert (ours >= 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_equals_a_finite_difference(architecture, model_folder):
    folder = model_folder(architecture)
    model = load_model(folder, device="cpu", dtype="float64")
    found = importance(model, CORPUS, method="activation_gradient")
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Some norms compute in float32 whatever the model; ReLU has kinks that a long step crosses.
    step = 1e-4 if architecture in ("GPT2", "OPT", "Bloom") else 1e-2
    for language in ("en", "th"):
        texts = [encode_by_hand(tokenizer, i, "response") for i in CORPUS.select([language])]
        k = CORPUS.languages.index(language)
        largest = np.abs(found.value[..., k]).max()
        for name in list(found.top(language, 2)) + ["L1N7"]:
            layer, neuron = (int(part) for part in name[1:].split("N"))
            up, down = (
                nll_by_hand(hf, architecture, texts, layer, neuron, 1 + sign * step)
                for sign in (1, -1)
            )
            slope = (up - down) / (2 * step)
            assert found.of(name)[language] == pytest.approx(slope, rel=0.01, abs=0.003 * largest)


def test_gradient_predicts_a_small_scaling_by_interventions(model_folder):
    """The NLL under `scale` on every token changes by the sum over every token."""
    model = load_model(model_folder("GPT2"), device="cpu", dtype="float64")
    texts = ("the cat sat on a mat", "nine small apples", "before dinner")
    rows = [{"id": text, "language": "en", "prompt": "", "response": text} for text in texts]
    english = build_corpus(rows)
    found = importance(model, english, method="activation_gradient", scope="all")
    chosen = found.top("en", 3)
    values = []
    for factor in (1.001, 0.999):
        with scale(model, chosen, factor):
            values.append(nll(model, english, scope="all").mean[0])
    predicted = sum(found.of(name)["en"] for name in chosen)
    assert (values[0] - values[1]) / 0.002 == pytest.approx(predicted, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_batches_do_not_matter(method, bridge):
    whole, single = (
        importance(bridge("Qwen2"), CORPUS, method=method, batch_tokens=n) for n in (10**6, 1)
    )
    largest = np.abs(whole.value).max()
    np.testing.assert_allclose(single.value, whole.value, rtol=1e-3, atol=1e-5 * largest)


def test_gradients_of_weights_are_left_alone(model_folder):
    model = load_model(model_folder("Llama"), device="cpu")
    weights = list(model.parameters())
    weights[0].grad = torch.full_like(weights[0], 7.0)
    before = [(weight.detach().clone(), weight.requires_grad) for weight in weights]
    importance(model, CORPUS, method="activation_gradient")
    assert bool((weights[0].grad == 7).all())
    assert all(weight.grad is None for weight in weights[1:])
    for weight, (values, wanted) in zip(weights, before, strict=True):
        assert torch.equal(weight, values)
        assert weight.requires_grad == wanted
    assert not has_hooks(model)


def test_hooks_are_gone_after_an_error(bridge, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(attribution, "_summed_nll", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        importance(bridge("Llama"), CORPUS, method="activation_gradient")
    assert not has_hooks(bridge("Llama"))


@pytest.mark.parametrize("architecture", ["Llama", "GPTJ", "Gemma3"])
def test_gradient_under_any_mode(architecture, model_folder):
    """Frozen weights, no_grad, inference mode around it, and tables cached in inference mode."""
    model = load_model(model_folder(architecture), device="cpu")
    collect(model, CORPUS, progress=False)

    def measured():
        return importance(model, CORPUS, method="activation_gradient").value

    plain = measured()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert np.array_equal(plain, measured())
    for weight in model.parameters():
        weight.requires_grad_(False)
    frozen = measured()
    np.testing.assert_allclose(frozen, plain, rtol=1e-4, atol=1e-6 * np.abs(plain).max())


@pytest.mark.parametrize("method", METHODS)
def test_hooks_of_others_act(method, bridge):
    """A neuron that somebody keeps at 0 has no importance."""
    model = bridge("Llama")

    def silence(tensor, hook):
        tensor = tensor.clone()
        tensor[..., 7] = 0
        return tensor

    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", silence)]):
        found = importance(model, CORPUS, method=method)
    assert found.provenance.interventions == "hooks"
    assert (found.provenance.hook, found.provenance.attention) == ("hook_post", "eager")
    assert set(found.of("L1N7").values()) == {0.0}
    assert all(found.of("L1N8").values())


def deaf(hooks):
    """The model goes on with what it had, not with what the hooks return."""
    return [(name, lambda t, hook, act=act: (act(t, hook), None)[1]) for name, act in hooks]


@pytest.mark.parametrize(
    ("method", "sabotage", "message"),
    [
        *((m, lambda h: h[:-1], r"came from 2 of 3 layers, \[52\] wide") for m in METHODS),
        ("activation_gradient", deaf, "the NLL does not depend on hook_post"),
    ],
)
def test_hooks_that_see_nothing_are_noticed(method, sabotage, message, bridge, monkeypatch):
    whole = attribution._on_post
    monkeypatch.setattr(attribution, "_on_post", lambda site, act: sabotage(whole(site, act)))
    with pytest.raises(LensNeuronsError, match=message):
        importance(bridge("Llama"), CORPUS, method=method)


def test_a_layer_that_somebody_cut_off_has_no_importance(bridge):
    """A constant in place of what W_out reads, put there after our own hook saw it."""
    model = bridge("Llama")
    constant = torch.nn.Module.register_forward_pre_hook(
        model.original_model.model.layers[1].mlp.down_proj.original_component,
        lambda module, inputs: (torch.ones_like(inputs[0]),),
    )
    try:
        found = importance(model, CORPUS, method="activation_gradient")
    finally:
        constant.remove()
    assert not found.value[1].any()
    assert found.value[2].any()


def test_a_text_of_one_token_predicts_nothing(bridge):
    row = {"id": "1", "language": "en", "prompt": "", "response": "9"}
    with pytest.raises(CorpusError, match=r"no counted token of \['en'\] has a token before it"):
        importance(bridge("Qwen2"), build_corpus([row]), method="activation_gradient")
    assert importance(bridge("Qwen2"), build_corpus([row])).value.max() > 0


def test_an_unknown_method_is_refused(bridge):
    with pytest.raises(LensNeuronsError, match="method='gradient' is not known"):
        unwrap(importance)(bridge("Llama"), CORPUS, method="gradient")


VALUE = np.array([[[1.0, -9.0], [-3.0, 0.5]], [[2.0, 9.0], [3.0, 4.0]], [[0.0, 0.0], [0.1, 0.2]]])


@pytest.fixture
def value():
    return Importance(("zh", "sw"), VALUE.copy(), "activation_gradient")


def test_top_and_rank_go_by_size(value):
    assert list(value.top("zh", 2)) == ["L0N1", "L1N1"]
    assert set(value.top("sw", 1)) == {"L0N0"}  # of equal ones the first
    assert set(value.top("sw", 3)) == {"L0N0", "L1N0", "L1N1"}
    assert value.top("zh", 2).label == "activation_gradient zh"
    assert value.of("L1N1") == {"zh": 3.0, "sw": 4.0}
    assert value.predicted("L1N1") == {"zh": -3.0, "sw": -4.0}
    with pytest.raises(LensNeuronsError, match="method='plnd' is not known"):
        Importance(value.languages, value.value, "plnd").predicted("L1N1")
    assert value.rank("L0N1") == {"zh": 1, "sw": 4}
    assert value.rank("L1N1") == {"zh": 1, "sw": 3}
    assert value.rank("L2N0") == {"zh": 6, "sw": 6}


def test_the_value_is_shown(value):
    table = value.to_pandas()
    assert table.shape == (12, 5)
    row = table[(table["name"] == "L1N0") & (table["language"] == "sw")].iloc[0]
    assert (row["layer"], row["neuron"], row["value"]) == (1, 0, 9.0)
    assert repr(value) == (
        "Importance(activation_gradient: 3 layers x 2 neurons in zh sw; nats a token)"
    )
    assert "<td>L0N1 -3, L1N1 3, L1N0 2, L0N0 1, L2N1 0.1</td>" in value._repr_html_()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda v: v.top("en", 1), "language='en' is not known"),
        (lambda v: v.top("zh", 0), "n=0: give 1 to 6, the model's neurons"),
        (lambda v: v.top("zh", 7), "n=7: give 1 to 6"),
        (lambda v: v.of("L3N0"), "L3N0 is outside a model of 3 layers x 2 neurons"),
        (lambda v: Importance(("zh",), VALUE, "plnd"), "1 languages do not fit"),
        (lambda v: Importance(v.languages, VALUE, "ap"), "method='ap' is not known"),
    ],
)
def test_refusals_of_the_value(act, message, value):
    with pytest.raises(LensNeuronsError, match=message):
        act(value)
