"""Numbers do not depend on training mode, autocast, other threads or batches, and are finite."""

from __future__ import annotations

import threading

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, Phi3Config

from lensneurons.activations.collection import collect
from lensneurons.cards.attribution import importance
from lensneurons.cards.contexts import top_contexts
from lensneurons.errors import CorpusError, ModelError
from lensneurons.evaluation.generation import generate
from lensneurons.evaluation.likelihood import nll
from lensneurons.experiments.lens import logit_lens
from lensneurons.interventions.editing import ablate
from lensneurons.models.forward import require_same_in_company
from lensneurons.models.loading import load_model
from lensneurons.models.running import runs_model
from lensneurons.models.sites import neuron_site
from lensneurons.views.token_view import tokens

CORPUS = tiny.tiny_corpus()
PROMPTS = ["the cat", "小明有"]


def numbers(model):
    counted = collect(model, CORPUS, progress=False).counts.tobytes()
    return counted, nll(model, CORPUS).nll.tobytes(), generate(model, PROMPTS, max_new_tokens=4)


def test_training_mode_changes_no_number_and_is_given_back(model_folder):
    model = load_model(model_folder("GPT2"), device="cpu")  # dropout of 0.1
    wanted, ids = numbers(model), torch.arange(5, 25)[None]
    model.train()
    assert not torch.equal(model(ids), model(ids))
    assert numbers(model) == wanted
    assert not torch.equal(model(ids), model(ids))


def test_autocast_changes_no_number(bridge):
    model, ids = bridge("Llama"), torch.arange(5, 25)[None]
    wanted, plain = numbers(model), model(ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.equal(model(ids), plain)
        assert numbers(model) == wanted
        assert torch.is_autocast_enabled("cpu")


def in_a_thread(act):
    """What another thread got: the value of ``act()``, or the ModelError that it raised."""
    got = []

    def run():
        try:
            got.append(act())
        except ModelError as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return got[0]


def test_another_thread_is_refused_while_there_are_edits(bridge):
    model, neurons = bridge("Llama"), tiny.drawn_neurons()["zh"]
    plain = nll(model, CORPUS).mean
    with ablate(model, neurons):
        assert isinstance(in_a_thread(lambda: nll(model, CORPUS)), ModelError)
        assert "another thread" in str(in_a_thread(lambda: generate(model, PROMPTS)))
        assert (nll(model, CORPUS).mean != plain).all()  # the thread that edits may run
    assert (in_a_thread(lambda: nll(model, CORPUS)).mean == plain).all()


def test_edits_are_refused_while_another_thread_runs(bridge):
    model, neurons = bridge("Llama"), tiny.drawn_neurons()["zh"]

    @runs_model
    def running(model):
        def edit():
            with ablate(model, neurons):
                return "edited"

        return in_a_thread(edit)

    assert isinstance(running(model), ModelError)


def lens(model):
    return logit_lens(model, CORPUS)


def gradient(model):
    return importance(model, CORPUS, method="activation_gradient")


def contexts(model):
    return top_contexts(model, CORPUS, tiny.drawn_neurons()["zh"])


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (lambda model: collect(model, CORPUS), "the pre-activations of layer 1"),
        (lambda model: nll(model, CORPUS), "the log-probabilities"),
        (lambda model: generate(model, PROMPTS), "the logits"),
        (lens, "the probabilities read from layer 1"),
        (lambda model: importance(model, CORPUS), "the activations and gradients"),
        (gradient, "the activations and gradients"),
        (contexts, "the pre-activations of layer 1"),
        (lambda model: tokens(model, PROMPTS, "L2N3"), "the pre-activations of layer 1"),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numbers_that_are_not_finite_are_refused(dtype, run, what, model_folder):
    model = load_model(model_folder("Llama"), dtype=dtype, device="cpu")
    weight = model.original_model.model.layers[1].mlp.gate_proj.weight
    with torch.no_grad():
        weight *= 1e5 if dtype == "float16" else float("nan")  # half overflows at 65,504
    with pytest.raises(ModelError, match=rf"% of {what} are infinite .*dtype='bfloat16'"):
        run(model)


@pytest.fixture(scope="module")
def longrope(tmp_path_factory):
    """Phi-3 that rotates by three times longer factors where a batch has more than 64 tokens."""
    folder = tmp_path_factory.mktemp("longrope")
    scaling = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    sizes = {"original_max_position_embeddings": 64, "rope_scaling": scaling}
    AutoModelForCausalLM.from_config(Phi3Config(**(tiny._GROUPED | sizes))).save_pretrained(folder)
    tiny.byte_tokenizer(bos=False).save_pretrained(folder)
    return load_model(folder, device="cpu")


def test_texts_end_where_the_longest_of_a_batch_would_change_the_others(longrope):
    with pytest.raises(CorpusError, match="exceed max_length=64"):
        collect(longrope, CORPUS, progress=False)
    alone, together = (
        collect(longrope, CORPUS, overlong="cut", batch_tokens=size, progress=False).counts
        for size in (1, 4096)
    )
    assert (alone == together).all()


def test_a_model_that_reads_a_text_otherwise_in_company_is_found(longrope, monkeypatch):
    site = neuron_site(longrope)
    require_same_in_company(longrope, site)
    monkeypatch.setattr("lensneurons.models.forward.context_length", lambda model: 192)
    monkeypatch.setattr(
        "lensneurons.models.forward.probe_tokens", lambda model: torch.arange(4, 44)[None]
    )
    with pytest.raises(ModelError, match="reads a text otherwise beside a longer one"):
        require_same_in_company(longrope, site)
