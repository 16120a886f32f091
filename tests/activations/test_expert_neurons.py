"""Neurons inside experts: those of a plain forward whose gates are multiplied by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from mixtures import count_inside
from torch.nn import functional

from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics, require_comparable
from lensneurons.errors import LensNeuronsError, ModelError, ProvenanceError
from lensneurons.interventions.experts import ablate_experts
from lensneurons.models import expert_neurons
from lensneurons.models.forward import forward_path
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.tokens.batches import make_batch
from lensneurons.tokens.prepared import prepare

CORPUS = tiny.tiny_corpus()


def flat(counts):
    return counts.reshape(len(counts), -1, counts.shape[-1])


@pytest.mark.parametrize("architecture", [*tiny.EXPERTS, *tiny.MORE_EXPERTS])
def test_counts_are_those_of_gates_multiplied_by_hand(architecture, experts):
    folder, model = experts(architecture)
    counts, sums, routed = count_inside(folder, architecture, CORPUS)
    found = collect(model, CORPUS, site="expert_neurons", progress=False)
    assert np.array_equal(found.counts, flat(counts["routed"]))
    np.testing.assert_allclose(found.sums, flat(sums["routed"]), rtol=1e-4, atol=1e-4)
    n_experts, width = counts["routed"].shape[1:3]
    assert found.n_experts == n_experts
    assert f"3 layers x {n_experts} experts x {width} neurons, response tokens" in repr(found)
    among = found.among_routed(collect(model, CORPUS, site="experts", progress=False))
    wanted = counts["routed"] / np.maximum(routed, 1)[:, :, None]
    assert np.array_equal(among.probability, flat(wanted))
    assert np.array_equal(among.grouped_routed.sum(0), routed)
    assert (among.probability >= found.probability).all()
    if architecture in tiny.SHARED_MLPS:
        beside = collect(model, CORPUS, site="shared_neurons", progress=False)
        assert np.array_equal(beside.counts, flat(counts["shared"]))
        np.testing.assert_allclose(beside.sums, flat(sums["shared"]), rtol=1e-4, atol=1e-4)
        assert beside.n_experts is None
        assert beside.d_mlp == counts["shared"].shape[2]
    else:
        with pytest.raises(ModelError, match="has no shared expert beside its router in layer 0"):
            collect(model, CORPUS, site="shared_neurons", progress=False)


@pytest.mark.parametrize("architecture", ["Mixtral", "Qwen2Moe"])
def test_half_precision_counts_are_those_of_a_plain_model_in_it(
    architecture, tmp_path, monkeypatch
):
    """In bf16, on the same batches: other ones round otherwise, and random routers tip over."""
    kind, values = tiny.EXPERTS[architecture]
    # PyTorch's kernel for experts wants widths of 8 values in bf16.
    widths = {"intermediate_size": 56, "moe_intermediate_size": 24}
    monkeypatch.setitem(tiny.EXPERTS, architecture, (kind, values | widths))
    folder = tiny.save_model(architecture, tmp_path)
    model = load_model(folder, device="cpu", dtype="bfloat16")
    found = collect(model, CORPUS, site="expert_neurons", progress=False)
    assert found.provenance.dtype == "bfloat16"
    plain = tiny.load_plain(folder, dtype=torch.bfloat16, attn_implementation="sdpa")
    read = {}
    for layer, block in enumerate(plain.model.layers):
        modules = dict(block.named_modules())
        if tiny.EXPERT_MODULES[architecture] in modules:
            modules[tiny.EXPERT_MODULES[architecture]].register_forward_pre_hook(
                lambda module, given, layer=layer: read.update({layer: (module, *given[:2])})
            )
    n_experts, width = found.n_experts, found.d_mlp // found.n_experts
    counts = np.zeros((tiny.LAYERS, n_experts, width, len(CORPUS.languages)), int)
    prepared = prepare(model, CORPUS)
    for rows in prepared.batches(4096):
        batch = make_batch(prepared.encoded, rows)
        with torch.no_grad():
            plain.model(batch.tokens, use_cache=False)
        k = prepared.encoded.language[rows[0]]
        for layer, (module, x, chosen) in read.items():
            x = x.reshape(-1, x.shape[-1])
            for expert in range(n_experts):
                tokens = (chosen == expert).any(1) & batch.counted.reshape(-1)
                gate = functional.linear(x[tokens], module.gate_up_proj[expert]).chunk(2, -1)[0]
                counts[layer, expert, :, k] += (gate > 0).sum(0).numpy()
    assert np.array_equal(found.counts, flat(counts))


@pytest.mark.parametrize("site", ["expert_neurons", "shared_neurons"])
@pytest.mark.parametrize("architecture", ["DeepseekV3", "Gemma4 (experts)"])
def test_batches_padding_and_hooks_do_not_matter(architecture, site, experts):
    _, model = experts(architecture)
    whole = collect(model, CORPUS, site=site, progress=False)
    for options in ({"batch_tokens": 64}, {"padding_side": "left"}):
        other = collect(model, CORPUS, site=site, progress=False, **options)
        assert np.array_equal(other.grouped_counts, whole.grouped_counts)
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: None)]):
        assert forward_path(model) == "bridge"
        other = collect(model, CORPUS, site=site, progress=False)
    assert np.array_equal(other.grouped_counts, whole.grouped_counts)


def test_a_run_folder_and_a_file_keep_the_experts(experts, tmp_path):
    _, model = experts("Qwen3Moe")
    first = collect(model, CORPUS, site="expert_neurons", run_dir=tmp_path / "run", progress=False)
    again = collect(model, CORPUS, site="expert_neurons", run_dir=tmp_path / "run", progress=False)
    assert np.array_equal(first.counts, again.counts)
    assert again.n_experts == 7
    with pytest.raises(ProvenanceError, match="gate of routed experts"):
        collect(model, CORPUS, site="experts", run_dir=tmp_path / "run", progress=False)
    among = first.among_routed(collect(model, CORPUS, site="experts", progress=False))
    loaded = ActivationStatistics.load(among.save(tmp_path / "among.safetensors"))
    assert np.array_equal(loaded.probability, among.probability)
    assert loaded.provenance == among.provenance
    neurons = identify(loaded, top_rate=0.1, tau=0.3)
    assert "p among the tokens sent to their expert" in neurons.description
    name = neurons.to_pandas()["name"][0]
    layer, expert, place = (int(part) for part in name[1:].replace("E", "N").split("N"))
    assert neurons.flat_index(name) == layer * 140 + expert * 20 + place
    assert neurons.languages_of(name)


# What statistics among routed tokens do


def planted(rate_routed=(0.5, 0.1), seed=0):
    """Two groups, 1 layer, 2 experts x 3 neurons, two languages; expert 1 of layer 0 is rare."""
    random = np.random.default_rng(seed)
    tokens = np.array([[400, 300], [200, 500]])
    routed = np.stack([tokens * rate for rate in rate_routed], 1).astype(np.int64)[:, None]
    counts = (routed[:, :, :, None] * random.random((2, 1, 2, 3, 2))).astype(np.int64)
    counts = counts.reshape(2, 1, 6, 2)
    return ActivationStatistics(
        ("en", "th"), counts, tokens, counts[0] / 2.0, n_experts=2, grouped_routed=routed
    )


def test_among_routed_everything_divides_by_the_tokens_sent_there():
    found = planted()
    routed = found.grouped_routed.sum(0).repeat(3, axis=1)
    assert np.array_equal(found.probability, found.counts / routed)
    assert np.array_equal(found.mean, found.sums / routed)
    drawn = found.resample(np.array([2, 0]))
    assert np.array_equal(drawn.counts, 2 * found.grouped_counts[0])
    assert np.array_equal(
        drawn.probability, (found.grouped_counts / found.grouped_routed.repeat(3, 2))[0]
    )
    one = found.of_neuron(0, 4)
    assert np.array_equal(one.probability[0, 0], found.probability[0, 4])
    other = found.select(["th"])
    assert np.array_equal(other.probability[..., 0], found.probability[..., 1])
    table = found.to_pandas()
    assert np.array_equal(table["active"] / table["tokens"], table["probability"])
    both = found.select(["en"]).merge(found.select(["th"]))
    assert np.array_equal(both.probability, found.probability)


def test_an_expert_without_tokens_has_silent_neurons():
    found = planted(rate_routed=(0.5, 0.0))
    assert not found.probability[0, 3:].any()
    assert np.isfinite(found.mean).all()


def test_what_does_not_fit_is_refused(experts):
    found = planted()
    with pytest.raises(LensNeuronsError, match="routers send other tokens to an expert"):
        require_comparable(found, found)
    with pytest.raises(LensNeuronsError, match="among_routed takes neurons of site='expert_neu"):
        found.among_routed(found)
    with pytest.raises(LensNeuronsError, match="more tokens than were sent to its expert"):
        replace(found, grouped_routed=np.zeros_like(found.grouped_routed))
    with pytest.raises(LensNeuronsError, match="6 neurons a layer are not those of 4 experts"):
        replace(found, n_experts=4, grouped_routed=None)
    with pytest.raises(LensNeuronsError, match="need n_experts"):
        replace(found, n_experts=None)
    with pytest.raises(LensNeuronsError, match="does not fit counts"):
        replace(found, grouped_routed=found.grouped_routed[:, :, :1])
    neurons = identify(found, tau=0.2, top_rate=0.5, score="lape")
    with pytest.raises(LensNeuronsError, match=r"write 'L2E5N10' \(layer, expert, neuron\)"):
        neurons.class_of("L0N4")
    with pytest.raises(LensNeuronsError, match="outside a model of 1 layers x 2 experts x 3 neu"):
        neurons.class_of("L0E1N3")
    _, model = experts("Mixtral")
    with (
        pytest.raises(LensNeuronsError, match="neurons inside experts"),
        ablate_experts(model, neurons["en"]),
    ):
        pass


# The proof


def test_another_half_or_activation_is_noticed(experts, monkeypatch):
    folder, _ = experts("Qwen3Moe")
    plain = expert_neurons._half
    monkeypatch.setattr(
        expert_neurons, "_half", lambda module, both, up: plain(module, both, not up)
    )
    with pytest.raises(
        ModelError, match="Qwen3MoeExperts computes something else than its weights"
    ):
        collect(load_model(folder, device="cpu"), CORPUS, site="expert_neurons", progress=False)
    monkeypatch.setattr(expert_neurons, "_half", plain)
    monkeypatch.setattr(expert_neurons, "activation_of", lambda module: functional.gelu)
    with pytest.raises(
        ModelError, match="Qwen3MoeExperts computes something else than its weights"
    ):
        collect(load_model(folder, device="cpu"), CORPUS, site="expert_neurons", progress=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("has_gate", False), ("has_post_expert_norm", True), ("is_transposed", None)],
)
def test_an_unknown_layout_is_refused_by_name_before_any_pass(name, value, experts, monkeypatch):
    folder, _ = experts("Qwen3Moe")
    model = load_model(folder, device="cpu")
    assert collect(model, CORPUS, site="experts", progress=False).d_mlp == 7
    for module in expert_neurons.expert_modules(model, False).values():
        setattr(module, name, value)
    monkeypatch.setattr(type(model), "forward", lambda *given, **named: pytest.fail("ran"))
    with pytest.raises(ModelError, match="Qwen3MoeExperts is laid out in a way that is not known"):
        collect(model, CORPUS, site="expert_neurons", progress=False)
