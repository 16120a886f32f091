"""Numbers do not depend on training mode, autocast, other threads or batches, and are finite."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack, suppress

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config

from lensneurons.activations.collection import collect
from lensneurons.cards.attribution import importance
from lensneurons.cards.card import describe
from lensneurons.cards.contexts import top_contexts
from lensneurons.errors import CorpusError, ModelError
from lensneurons.evaluation.generation import generate
from lensneurons.evaluation.likelihood import nll
from lensneurons.experiments.lens import logit_lens
from lensneurons.interventions.editing import ablate
from lensneurons.models import identity
from lensneurons.models.forward import require_same_in_company
from lensneurons.models.loading import load_model
from lensneurons.models.running import runs_model
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.identification import identify
from lensneurons.views.token_view import tokens

CORPUS = tiny.tiny_corpus()
PROMPTS = ["the cat", "小明有"]


def numbers(model):
    counted = collect(model, CORPUS, progress=False).counts.tobytes()
    return counted, nll(model, CORPUS).nll.tobytes(), generate(model, PROMPTS, max_new_tokens=4)


def test_weights_are_hashed_once_a_call_and_anew_at_the_next(model_folder, monkeypatch):
    model = load_model(model_folder("Llama"), device="cpu")
    made, digest = [], identity._weights_digest
    monkeypatch.setattr(identity, "_weights_digest", lambda m: made.append(digest(m)) or made[-1])
    neurons = identify(collect(model, CORPUS, progress=False))
    describe(model, neurons, "L1N3", corpus=CORPUS)
    assert len(made) == 2
    assert made[0] == made[1] == nll(model, CORPUS).provenance.weights
    for edit in (
        lambda weight: weight.data.view(-1)[:1].mul_(2),
        lambda weight: weight.detach().numpy().ravel()[1:2].__setitem__(0, 3.5),
    ):  # neither leaves a trace but in the numbers
        before, weight = made[-1], next(model.parameters())
        version = weight._version
        edit(weight)
        assert weight._version == version
        assert nll(model, CORPUS).provenance.weights == made[-1] != before


def test_what_was_read_is_forgotten_where_the_outermost_call_ends():
    owner, reads = object(), iter(range(9))

    def read(*_: float) -> int:
        return identity.once_a_call(owner, "number", lambda: next(reads))

    assert (read(), read()) == (0, 1)
    with identity.one_call():
        with identity.one_call():
            assert read() == 2
        assert read() == 2
    with suppress(ZeroDivisionError), identity.one_call():
        read(1 / 0)
    assert read() == 3


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


def test_another_task_of_asyncio_is_refused_while_there_are_edits(bridge):
    model, neurons = bridge("Llama"), tiny.drawn_neurons()["zh"]
    plain = nll(model, CORPUS).mean

    async def editing():
        with ablate(model, neurons):
            await asyncio.sleep(0)
            return nll(model, CORPUS).mean

    async def reading():
        return nll(model, CORPUS).mean

    async def both():
        return await asyncio.gather(editing(), reading(), return_exceptions=True)

    edited, refused = asyncio.run(both())
    with ablate(model, neurons):
        assert (nll(model, CORPUS).mean == edited).all()
        inside = asyncio.run(reading())  # begun within the block: its edits are meant
    assert isinstance(refused, ModelError)
    assert (inside == edited).all()
    assert (nll(model, CORPUS).mean == plain).all()


def test_a_cell_of_a_notebook_goes_on_where_another_left_an_edit_open(bridge):
    model, neurons, stack = bridge("Llama"), tiny.drawn_neurons()["zh"], ExitStack()
    plain = nll(model, CORPUS).mean

    async def first():
        stack.enter_context(ablate(model, neurons))

    async def second():
        return nll(model, CORPUS).mean

    with asyncio.Runner() as loop, stack:
        loop.run(first())
        assert (loop.run(second()) != plain).all()
    assert (nll(model, CORPUS).mean == plain).all()


def test_a_block_that_ends_in_another_thread_gives_the_model_free(bridge):
    model, neurons = bridge("Llama"), tiny.drawn_neurons()["zh"]
    plain = nll(model, CORPUS).mean

    def steps():
        with ablate(model, neurons):
            yield

    left_open = steps()
    next(left_open)
    assert (nll(model, CORPUS).mean != plain).all()
    in_a_thread(left_open.close)
    assert (in_a_thread(lambda: nll(model, CORPUS)).mean == plain).all()
    assert (nll(model, CORPUS).mean == plain).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_that_was_cast_after_loading_is_refused(dtype, own):
    own.to(dtype)  # its rotary frequencies too: Hugging Face keeps them in float32
    for run in (collect, nll, lambda model, corpus: generate(model, PROMPTS)):
        with pytest.raises(ModelError, match="after it was loaded.* positions are wrong: load_mod"):
            run(own, CORPUS)


def test_default_devices_and_dtypes_change_no_number(bridge):
    model = bridge("Llama")
    wanted = numbers(model)
    with torch.device("meta"):
        assert numbers(model) == wanted
        assert torch.empty(0).is_meta
    torch.set_default_dtype(torch.float64)
    try:
        assert numbers(model) == wanted
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("around", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_modes_change_no_number(around, frozen, own):
    wanted = numbers(own), gradient(own).value.tobytes()
    own.requires_grad_(not frozen)
    with around():
        assert (numbers(own), gradient(own).value.tobytes()) == wanted
    assert all(weight.grad is None for weight in own.parameters())


def test_weights_that_are_not_finite_are_refused_by_what_only_multiplies_them(own):
    with torch.no_grad():
        own.original_model.model.layers[2].mlp.down_proj.weight[3, 7] = float("nan")
    with pytest.raises(ModelError, match="of the norms of the rows of W_out are infinite"):
        importance(own, CORPUS)


def test_a_kernel_that_hides_a_nan_is_noticed_by_a_view(own):
    with torch.no_grad():  # sdpa gives finite numbers for it, eager attention does not
        own.original_model.model.layers[1].self_attn.q_proj.weight[5] = float("nan")
    with pytest.raises(ModelError, match="infinite or not a number|hooks of"):
        tokens(own, PROMPTS, "L2N3")


SCALED = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
}


@pytest.mark.parametrize("kind", SCALED)
def test_scaled_positions_depend_neither_on_the_batch_nor_on_what_ran_before(kind, tmp_path):
    config = LlamaConfig(**(tiny._GROUPED | {"max_position_embeddings": 64}))
    config.rope_parameters = {"rope_theta": 10000.0, **SCALED[kind]}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.byte_tokenizer(bos=False).save_pretrained(tmp_path)

    def counts(model, size):
        told = {"overlong": "cut", "progress": False}
        return collect(model, CORPUS, batch_tokens=size, **told).counts

    model = load_model(tmp_path, device="cpu")
    wanted = counts(load_model(tmp_path, device="cpu"), 1)
    assert (counts(model, 8192) == wanted).all()
    model(torch.arange(5, 155)[None])  # longer than the context: dynamic factors change
    assert (counts(model, 1) == wanted).all()
