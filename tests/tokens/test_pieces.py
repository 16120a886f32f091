"""A batch that does not fit into memory is run in halves: nothing is lost or counted twice."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tiny
import torch

import lensneurons as ln
from lensneurons.activations import sites
from lensneurons.activations.collection import collect
from lensneurons.errors import LensNeuronsError, MemoryWarning
from lensneurons.evaluation import likelihood
from lensneurons.evaluation.likelihood import nll
from lensneurons.tokens.pieces import Pieces, is_out_of_memory

CORPUS = tiny.tiny_corpus()
CPU = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
ERRORS = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU), MemoryError()]
ALLOWED = 250  # tokens of a batch, padding included


class Short:
    """Raises where a batch is too large, or at some of the calls; one size a batch of tokens."""

    def __init__(self, error=ERRORS[0], most=ALLOWED, calls=()):
        self.error, self.most, self.calls, self.seen = error, most, calls, []

    def __call__(self, size):
        self.seen.append(size)
        if size > self.most or len(self.seen) in self.calls:
            raise self.error


def failing_in(monkeypatch, where, short):
    """Let memory run out before the first layer, in the neurons of a layer, or after the last."""
    if where == "before":
        embed = torch.nn.Embedding.forward
        monkeypatch.setattr(
            torch.nn.Embedding,
            "forward",
            lambda self, ids: (short(ids.numel()), embed(self, ids))[1],
        )
    elif where == "in":
        reduce = sites.reduce_batch
        layers = iter(range(10**6))

        def reduced(pre, counted, *args, **options):
            if next(layers) % tiny.LAYERS == 1:
                short(counted.numel())
            return reduce(pre, counted, *args, **options)

        monkeypatch.setattr(sites, "reduce_batch", reduced)
    else:
        fetch = sites.fetch
        size = [0]
        run = sites.Reader.run

        def noted(self, forward, batch):
            size[0] = batch.tokens.numel()
            run(self, forward, batch)

        monkeypatch.setattr(sites.Reader, "run", noted)
        monkeypatch.setattr(sites, "fetch", lambda held: (short(size[0]), fetch(held))[1])


@pytest.fixture(scope="module")
def plain(llama):
    return collect(llama, CORPUS, batch_tokens=700, groups=3, progress=False)


def assert_same(ours, plain):
    assert np.array_equal(ours.grouped_counts, plain.grouped_counts)
    assert np.array_equal(ours.grouped_tokens, plain.grouped_tokens)
    np.testing.assert_allclose(ours.sums, plain.sums, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ours.squares, plain.squares, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["before", "in", "after"])
def test_counts_are_those_of_a_run_that_had_memory(where, error, llama, plain, monkeypatch):
    short = Short(error)
    failing_in(monkeypatch, where, short)
    with pytest.warns(MemoryWarning, match=r"did not fit into memory; .* give batch") as told:
        ours = collect(llama, CORPUS, batch_tokens=700, groups=3, progress=False)
    assert len(told) == 1
    assert_same(ours, plain)
    failed = [place for place, size in enumerate(short.seen) if size > ALLOWED]
    assert 1 <= len(failed) <= 4  # later batches begin with what fits
    assert len(short.seen) > failed[-1] + 3


@pytest.mark.parametrize("calls", [(1,), (2,), (1, 2), (3, 4)])
def test_a_failure_at_any_batch_loses_and_repeats_nothing(calls, llama, plain, monkeypatch):
    failing_in(monkeypatch, "in", Short(most=10**9, calls=calls))
    with pytest.warns(MemoryWarning):
        ours = collect(llama, CORPUS, batch_tokens=300, groups=3, progress=False)
    assert_same(ours, plain)


def test_both_halves_of_gated_neurons(llama, monkeypatch):
    whole = collect(llama, CORPUS, branches=True, batch_tokens=700, progress=False)
    count, calls = sites.count_branches, iter(range(10**6))

    def short(*args):
        if next(calls) in (1, 5):
            raise ERRORS[0]
        return count(*args)

    monkeypatch.setattr(sites, "count_branches", short)
    with pytest.warns(MemoryWarning):
        ours = collect(llama, CORPUS, branches=True, batch_tokens=700, progress=False)
    assert np.array_equal(ours.branches, whole.branches)


def test_a_run_folder_goes_on_after_it(llama, plain, monkeypatch, tmp_path):
    """Interrupted after a batch was halved, and gone on with where there is memory again."""
    options = {"batch_tokens": 700, "groups": 3, "progress": False, "checkpoint_seconds": 0}
    calls = Short()

    def short(size):
        calls(size)
        if len(calls.seen) == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", MemoryWarning)
        failing_in(patch, "before", short)
        with pytest.raises(KeyboardInterrupt):
            collect(llama, CORPUS, run_dir=tmp_path, **options)
    assert list((tmp_path / "languages").iterdir())
    assert_same(collect(llama, CORPUS, run_dir=tmp_path, **options), plain)


@pytest.mark.filterwarnings("ignore::lensneurons.errors.MemoryWarning")
def test_a_single_text_that_does_not_fit_is_named(llama, monkeypatch):
    failing_in(monkeypatch, "before", Short(ERRORS[1], most=40))
    with pytest.raises(
        LensNeuronsError,
        match=r"a single text of \d+ tokens does not fit into memory \(\[enforce .*: cut longer",
    ):
        collect(llama, CORPUS, batch_tokens=700, progress=False)


def test_other_errors_are_not_caught(llama, monkeypatch):
    failing_in(monkeypatch, "in", Short(RuntimeError("expected scalar type Half")))
    with pytest.raises(RuntimeError, match="expected scalar type Half"):
        collect(llama, CORPUS, batch_tokens=700, progress=False)
    assert not is_out_of_memory(ValueError("out of memory"))


def failing_score(monkeypatch, short):
    token_nll = likelihood.token_nll

    def scored(model, tokens, mask=None):
        short(tokens.numel())
        return token_nll(model, tokens, mask)

    monkeypatch.setattr(likelihood, "token_nll", scored)


def test_likelihoods_and_matrices(llama, monkeypatch):
    corpus = CORPUS.head(3)
    options = {"controls": 2, "progress": False, "match": ("own",), "classes": ("specific",)}
    losses = nll(llama, corpus)
    matrix = ln.ablation_matrix(llama, corpus, tiny.drawn_neurons(), **options)
    failing_score(monkeypatch, Short(ERRORS[1], most=160))
    with pytest.warns(MemoryWarning) as told:
        np.testing.assert_allclose(nll(llama, corpus).nll, losses.nll, rtol=1e-5)
    assert len(told) == 1
    with pytest.warns(MemoryWarning) as told:
        again = ln.ablation_matrix(llama, corpus, tiny.drawn_neurons(), **options)
    assert len(told) == 1
    np.testing.assert_allclose(again.effect, matrix.effect, atol=1e-4)
    np.testing.assert_allclose(again.control, matrix.control, atol=1e-4)


def test_pieces_are_all_rows_once_in_order():
    random = np.random.default_rng(0)
    for most in (7, 30, 64):
        pieces, seen = Pieces(), []
        for _ in range(4):
            lengths = np.sort(random.integers(1, 8, 20))[::-1]

            def measure(part, lengths=lengths, most=most):
                if (part.stop - part.start) * lengths[part.start] > most:
                    raise MemoryError
                return list(range(part.start, part.stop))

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MemoryWarning)
                seen.append([row for _, rows in pieces.run(lengths, measure) for row in rows])
        assert seen == [list(range(20))] * 4
        assert pieces.most is None or pieces.most <= most
