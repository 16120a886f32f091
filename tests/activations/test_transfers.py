"""A batch on a GPU waits for it a fixed number of times, however many layers the model has.

There is no GPU here. The code that decides whether a tensor is on one is made to say yes, and every
reading of a number is counted: `Tensor.cpu`, and the operation behind ``item()``, ``float()`` and
``if tensor``.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lensneurons.activations import sites
from lensneurons.activations.collection import collect
from lensneurons.errors import ModelError
from lensneurons.models import running
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.tokens.batches import make_batch, plan_batches
from lensneurons.tokens.encoding import encode

CORPUS = tiny.tiny_corpus()
READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "item")


class Waits(TorchDispatchMode):
    """Counts the operations that wait for a device."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in READS:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    for module in (running, sites):
        monkeypatch.setattr(module, "reading_waits", lambda tensor: True)


@pytest.fixture(scope="module")
def of_layers(tmp_path_factory):
    """``of_layers(5)``: a Llama of so many layers."""

    def made(layers):
        config = tiny.configuration("Llama")
        config.num_hidden_layers = layers
        folder = tmp_path_factory.mktemp("layers")
        tiny.auto_class(config).from_config(config).save_pretrained(folder)
        tiny.byte_tokenizer(bos=True).save_pretrained(folder)
        return load_model(folder, device="cpu")

    return made


def waits(model, monkeypatch, site="neurons", **options):
    """How often one batch waits: by `Tensor.cpu`, and by reading a number."""
    encoded = encode(CORPUS, original_tokenizer(model), scope="response")
    reader = sites.reader_of(site, model, branches=options.get("branches", False))
    rows = plan_batches(encoded, batch_tokens=400)[0]
    batch = make_batch(encoded, rows)
    reader.groups = np.arange(len(rows))
    moved, cpu = [], torch.Tensor.cpu
    with reader.watching() as forward, monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", lambda self: (moved.append(1), cpu(self))[1])
        with Waits() as found:
            reader.run(forward, batch)
    return len(moved), found.found.total()


@pytest.mark.parametrize("options", [{}, {"branches": True}, {"site": "q"}])
def test_waits_do_not_grow_with_the_layers(options, as_on_a_gpu, of_layers, monkeypatch):
    few, many = (waits(of_layers(layers), monkeypatch, **options) for layers in (2, 6))
    assert few == many
    assert few[0] == 1  # the counts of all layers
    assert 1 <= few[1] <= 2  # whether all numbers are finite


def test_routers_wait_as_often(as_on_a_gpu, bridge, monkeypatch):
    assert waits(bridge("Mixtral"), monkeypatch, "experts")[0] == 1


def test_the_counter_sees_a_wait_in_every_layer(of_layers, monkeypatch):
    """Sabotage: numbers are looked at as each layer passes."""
    monkeypatch.setattr(sites, "reading_waits", lambda tensor: True)
    few, many = (waits(of_layers(layers), monkeypatch) for layers in (2, 6))
    assert many[1] - few[1] == 4


@pytest.mark.parametrize(
    "options", [{}, {"branches": True}, {"site": "q"}, {"groups": 1, "padding_side": "left"}]
)
def test_counts_are_the_same_there(options, llama, monkeypatch):
    here = collect(llama, CORPUS, batch_tokens=300, progress=False, **options)
    for module in (running, sites):
        monkeypatch.setattr(module, "reading_waits", lambda tensor: True)
    there = collect(llama, CORPUS, batch_tokens=300, progress=False, **options)
    for name in ("grouped_counts", "grouped_tokens", "grouped_linear", "grouped_both"):
        assert np.array_equal(getattr(there, name), getattr(here, name))
    np.testing.assert_allclose(there.sums, here.sums, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(there.squares, here.squares, rtol=1e-5, atol=1e-5)


def test_numbers_that_are_not_finite_are_found_after_the_pass(as_on_a_gpu, own):
    with torch.no_grad():
        own.original_model.model.layers[1].mlp.gate_proj.weight[3] = torch.inf
    with pytest.raises(ModelError, match=r"% of the pre-activations of layer 1 are inf"):
        collect(own, CORPUS, progress=False)


def test_a_sum_that_overflows_is_looked_at_again(as_on_a_gpu):
    check, seen = running.FiniteCheck(), []

    def run(value):
        check(torch.full((4,), value), "numbers")
        if not check.repeats:
            seen.append(value)

    check.after(run)(3e38)  # finite, and infinite as a sum
    with pytest.raises(ModelError, match="100.00% of numbers are infinite"):
        check.after(run)(torch.inf)
    assert seen == [3e38, torch.inf]
