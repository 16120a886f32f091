"""The two halves of gated neurons: those of hooks on both projections of a plain model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from oracle import encode_by_hand
from transformers import AutoTokenizer

from lensneurons.activations import collection
from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import SIGNS, ActivationStatistics
from lensneurons.cards.card import neuron_facts
from lensneurons.errors import LensNeuronsError, ModelError, ProvenanceError
from lensneurons.models import forward
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify

CORPUS = tiny.tiny_corpus()
GATED = ("Llama", "Gemma3", "Phi3")


@pytest.fixture(scope="module")
def found(llama):
    return collect(llama, CORPUS, branches=True, groups=4, progress=False)


def count_by_hand(folder, architecture):
    """int64 [layer, neuron, language, 4] from gate_proj and up_proj, eager, one text at a time."""
    plain = tiny.load_plain(folder, attn_implementation="eager")
    tokenizer, languages = AutoTokenizer.from_pretrained(folder), list(CORPUS.languages)
    gates, ups = [], []
    for layer in plain.model.layers:
        if architecture == "Phi3":
            layer.mlp.gate_up_proj.register_forward_hook(
                lambda module, given, out: (
                    (
                        gates.append(out.chunk(2, -1)[0]),
                        ups.append(out.chunk(2, -1)[1]),
                    )
                    and None
                )
            )
            continue
        layer.mlp.gate_proj.register_forward_hook(lambda module, given, out: gates.append(out))
        layer.mlp.up_proj.register_forward_hook(lambda module, given, out: ups.append(out))
    counts = np.zeros((tiny.LAYERS, tiny.D_MLP, len(languages), 4), np.int64)
    for item in CORPUS:
        ids, where = encode_by_hand(tokenizer, item, "response")
        gates.clear()
        ups.clear()
        with torch.no_grad():
            plain(torch.tensor([ids]))
        gate, up = (torch.cat(half)[:, where].numpy() for half in (gates, ups))
        assert min(np.abs(gate).min(), np.abs(up).min()) > 1e-6  # else rounding would decide
        for place, (first, second) in enumerate(SIGNS):
            own = ((gate > 0) == (first == "+")) & ((up > 0) == (second == "+"))
            counts[:, :, languages.index(item.language), place] += own.sum(1)
    return counts


@pytest.mark.parametrize("architecture", GATED)
def test_counts_are_those_of_both_projections(architecture, model_folder, bridge):
    wanted = count_by_hand(model_folder(architecture), architecture)
    for options in ({}, {"padding_side": "left", "batch_tokens": 64}):
        ours = collect(bridge(architecture), CORPUS, branches=True, progress=False, **options)
        assert np.array_equal(ours.branches, wanted)
    assert np.array_equal(ours.counts, wanted[..., :2].sum(-1))
    plain = collect(bridge(architecture), CORPUS, progress=False)
    assert np.array_equal(plain.grouped_counts, ours.grouped_counts)
    assert plain.provenance == ours.provenance


def test_they_are_saved_selected_merged_and_drawn_like_counts(found, llama, tmp_path):
    loaded = ActivationStatistics.load(found.save(tmp_path / "one.safetensors"))
    assert np.array_equal(loaded.branches, found.branches)
    assert np.array_equal(found.select(["th"]).branches[:, :, 0], found.branches[:, :, 2])
    rest = found.select(["zh"])
    rest = replace(rest, provenance=replace(rest.provenance, corpora=("another",)))
    both = found.select(["th", "en"]).merge(rest)
    assert np.array_equal(both.select(found.languages).branches, found.branches)
    one = found.of_neuron(1, 7)
    assert np.array_equal(one.branches[0, 0], found.branches[1, 7])
    drawn = found.resample(np.array([2, 0, 1, 0]))
    wanted = 2 * found.grouped_linear[0] + found.grouped_linear[2]
    assert np.array_equal(drawn.grouped_linear[0], wanted)
    assert (found.branches.sum(-1) == found.tokens).all()
    plain = collect(llama, CORPUS, groups=4, progress=False)
    assert plain.select(["th"]).merge(rest).grouped_linear is None  # not of all tokens
    with pytest.raises(LensNeuronsError, match=r"collect\(model, corpus, branches=True\) does"):
        _ = plain.branches


def test_a_killed_run_goes_on_with_them(found, llama, tmp_path, monkeypatch):
    run, plain = tmp_path / "run", collection.LanguageTotals.add
    left = [3]

    def stop(totals, *given):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        plain(totals, *given)

    options = {"branches": True, "groups": 4, "run_dir": run, "progress": False}
    monkeypatch.setattr(collection.LanguageTotals, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        collect(llama, CORPUS, batch_tokens=64, checkpoint_seconds=0, **options)
    assert list((run / "languages").iterdir())
    monkeypatch.setattr(collection.LanguageTotals, "add", plain)
    again = collect(llama, CORPUS, batch_tokens=64, checkpoint_seconds=0, **options)
    assert np.array_equal(again.grouped_both, found.grouped_both)
    assert np.array_equal(again.grouped_linear, found.grouped_linear)
    with pytest.raises(ProvenanceError, match="branches"):
        collect(llama, CORPUS, groups=4, batch_tokens=64, run_dir=run, progress=False)


def test_facts_of_a_neuron_say_which_combination_goes_with_a_language(found, llama):
    neurons = identify(found, tau=0.2, top_rate=0.5, score="lape")
    facts = neuron_facts(neurons, "L1N7", statistics=found)
    wanted = found.branches[1, 7] / found.tokens[:, None]
    assert np.allclose([facts.branches[k] for k in found.languages], wanted)
    assert "<th>gate +, linear -</th>" in facts._repr_html_().replace('<th scope="col">', "<th>")
    plain = collect(llama, CORPUS, groups=4, progress=False)
    assert neuron_facts(neurons, "L1N7", statistics=plain).branches is None


@pytest.mark.parametrize("site", ["experts", "expert_neurons", "q", "mlp_out"])
def test_other_sites_and_ungated_models_are_refused(site, experts, bridge):
    _, mixtral = experts("Mixtral")
    with pytest.raises(LensNeuronsError, match=f"site='{site}' counts something else"):
        collect(mixtral, CORPUS, site=site, branches=True, progress=False)
    with pytest.raises(LensNeuronsError, match="of GPT2LMHeadModel have one half alone"):
        collect(bridge("GPT2"), CORPUS, branches=True, progress=False)


def test_counts_that_do_not_fit_are_refused(found):
    with pytest.raises(LensNeuronsError, match="fewer than no tokens"):
        replace(found, grouped_both=found.grouped_both + 1)
    with pytest.raises(LensNeuronsError, match="need those of both halves"):
        replace(found, grouped_both=None)


def test_paths_that_disagree_are_noticed(model_folder, monkeypatch):
    model = load_model(model_folder("Llama"), device="cpu")
    monkeypatch.setattr(forward, "_worst", lambda ours, theirs: 0.5)
    monkeypatch.setattr(forward, "prove_neurons", lambda model: None)
    with pytest.raises(ModelError, match="disagree by 5.0e-01 on the linear branch"):
        collect(model, CORPUS, branches=True, progress=False)
