"""What a person has in hand goes in: names, texts, sets; and nothing ends in an AttributeError."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import lensneurons as ln
from lensneurons.cards import describe_all, top_contexts
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.neurons.sets import NeuronSet, chosen_set
from lensneurons.tokens.prepared import corpus_of_texts

TEXT = "the cat sat on a mat"
NAMES = ["L2N10", "L0N3"]
SET = NeuronSet.from_names(NAMES, n_layers=tiny.LAYERS, d_mlp=tiny.D_MLP)


def test_every_verb_takes_every_form_or_says_what_it_takes() -> None:
    """In a process of its own: here wrong types are caught before the code sees them."""
    support = Path(__file__).parent / "support"
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(support)])
    done = subprocess.run(
        [sys.executable, str(support / "sweep_inputs.py")],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *wrong, last = done.stdout.splitlines()
    assert wrong == []
    assert int(last.removesuffix(" calls")) > 1500


def test_neurons_by_name_are_the_set(llama) -> None:
    tokens = torch.tensor([tiny.byte_tokenizer(bos=True)(TEXT)["input_ids"]])
    with ln.ablate(llama, SET):
        wanted = llama(tokens)
    for given in (NAMES, "L2N10 L0N3", "L2N10, L0N3", tuple(NAMES), [SET]):
        with ln.ablate(llama, given):
            assert torch.equal(llama(tokens), wanted)
    with ln.scale(llama, NAMES, 0.0):
        assert torch.equal(llama(tokens), wanted)
    with ln.patch(llama, TEXT, neurons="L2N10"):
        one = llama(tokens)
    with ln.patch(llama, tokens, neurons=NeuronSet.from_names(
        ["L2N10"], n_layers=tiny.LAYERS, d_mlp=tiny.D_MLP
    )):  # fmt: skip
        assert torch.equal(llama(tokens), one)


def test_texts_are_a_corpus_of_texts(llama) -> None:
    tokens = torch.tensor([tiny.byte_tokenizer(bos=True)(TEXT)["input_ids"]])
    with torch.no_grad():
        losses = -tiny.random_model("Llama")(tokens).logits[0, :-1].log_softmax(-1)
    wanted = losses[torch.arange(tokens.shape[1] - 1), tokens[0, 1:]].mean().item()
    found = ln.nll(llama, TEXT)
    assert found.languages == ("und",)
    assert found.mean[0] == pytest.approx(wanted, abs=1e-4)
    assert found.tokens.tolist() == [tokens.shape[1] - 1]
    both = ln.nll(llama, [TEXT, "小明有"])
    assert both.item_ids == ("text 1", "text 2")
    assert both.nll[0] == pytest.approx(found.nll[0], abs=1e-3)
    prepared = ln.prepare(llama, TEXT)
    assert ln.nll(llama, prepared).nll == pytest.approx(found.nll)
    contexts = top_contexts(llama, TEXT, "L2N10", k=1)
    assert {row.neuron for row in contexts.rows} <= {"L2N10"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "no texts: give one or more"),
        ("  ", "'  ' is no text"),
        (["a", 3], "3 is no text: give a text, a list of texts, or a corpus"),
        ({"en": ["a"]}, "is no corpus: load_corpus"),
        (None, "None is no corpus"),
        ("/tmp", "'/tmp' is a file or a folder: load_corpus"),
    ],
)
def test_what_is_no_text_is_refused(given, told) -> None:
    with pytest.raises(CorpusError, match=told):
        unwrap(corpus_of_texts)(given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("zh", "'zh' is not the name of a neuron: write 'L12N3456'"),
        (3, "neurons=3: give a set, a neuron's name such as 'L2N10', or a list of names"),
        ([], r"neurons=\[\]: give a set"),
        ("", "neurons='': give a set"),
        (None, "neurons=None: give a set"),
        ("L9N0", "L9N0 is outside a model of 3 layers x 52 neurons"),
        (replace(SET, d_mlp=60), "is of a model of 3 layers x 60 neurons, this one has 3 x 52"),
        (tiny.drawn_neurons(), r"neurons=LanguageNeurons.*: give a set, such as neurons\['zh'\]"),
    ],
)
def test_what_is_no_set_is_refused(given, told) -> None:
    with pytest.raises(LensNeuronsError, match=told):
        unwrap(chosen_set)(given, tiny.LAYERS, tiny.D_MLP)


def test_a_set_of_a_language_draws_its_own_controls() -> None:
    neurons = tiny.drawn_neurons()
    own = neurons["zh"]
    drawn = own.random_control(5)
    wanted = own.random_control(neurons.probability[..., 1], draws=5)
    assert drawn == wanted
    assert all(len(one & own) == 0 and len(one) == len(own) for one in drawn)
    assert own.random_control(draws=3, seed=4) == own.random_control(3, seed=4)
    mean = neurons.probability.mean(axis=-1)
    assert neurons.agnostic.random_control(2) == neurons.agnostic.random_control(mean, draws=2)
    assert (own - neurons.specific["zh"]).random_control(1)[0].activity is own.activity
    for unknown in (SET, own | neurons["en"], own & neurons["en"]):
        with pytest.raises(LensNeuronsError, match="does not say in which language its random"):
            unwrap(NeuronSet.random_control)(unknown, 5)
    for bad in ("zh", True, [1]):
        with pytest.raises(LensNeuronsError, match="give a number of sets, or"):
            unwrap(NeuronSet.random_control)(own, bad)
    with pytest.raises(LensNeuronsError, match="draws=0: give 1 or more"):
        own.random_control(0)


def test_what_a_set_knows_is_not_in_its_file(tmp_path) -> None:
    own = tiny.drawn_neurons()["zh"]
    again = NeuronSet.load(own.save(tmp_path / "set"))
    assert again == own
    assert again.activity is None
    assert (tmp_path / "set").stat().st_size < 8 * len(own) + 1000


def test_one_name_or_several_are_described(llama) -> None:
    corpus = tiny.tiny_corpus().head(2)
    neurons = ln.identify(ln.collect(llama, corpus, progress=False), score="lape", tau=0.5)
    options = {"corpus": corpus, "effect": False, "importances": []}
    one, two = describe_all(llama, neurons, "L0N1 L2N10", **options)
    assert (one.facts.name, two.facts.name) == ("L0N1", "L2N10")
    assert np.isfinite(one.facts.tau)
