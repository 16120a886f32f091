"""Edits of units that no hook holds: weights of a plain model that are changed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from edited import IDS, continue_greedily, drawn_units, logits_of, state_of
from mixtures import multiplied

from lensneurons.activations.collection import collect
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.evaluation.generation import generate
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.experiments.controls import draw_control
from lensneurons.interventions.editing import ablate, scale, steer
from lensneurons.interventions.experts import steer_experts
from lensneurons.models.expert_neurons import expert_neuron_site, shared_neuron_site
from lensneurons.models.linear_sites import linear_site
from lensneurons.models.routers import expert_site
from lensneurons.neurons.identification import identify
from lensneurons.neurons.sets import NeuronSet

CORPUS = tiny.tiny_corpus()
ALL = [*tiny.EXPERTS, *tiny.MORE_EXPERTS]


def require_equal(found, wanted, before, allowed=5e-6):
    largest = wanted.abs().max()
    assert (found - wanted).abs().max() <= allowed * largest
    assert (found - before).abs().max() > 1e-3 * largest


@pytest.mark.parametrize("architecture", ALL)
def test_a_neuron_inside_an_expert_is_a_column_of_its_last_matrix(architecture, experts):
    folder, model = experts(architecture)
    before = logits_of(model)
    sites = [expert_neuron_site(model)]
    sites += [shared_neuron_site(model)] if architecture in tiny.SHARED_MLPS else []
    for site in sites:
        neurons = drawn_units(site)
        wanted = logits_of(multiplied(folder, architecture, neurons))
        with ablate(model, neurons):
            require_equal(logits_of(model), wanted, before)
        with scale(model, neurons, -1.5):
            found = logits_of(model)
        require_equal(found, logits_of(multiplied(folder, architecture, neurons, -1.5)), before)
        assert torch.equal(logits_of(model), before)
    if architecture not in tiny.SHARED_MLPS:
        with pytest.raises(ModelError, match="no shared expert"), ablate(model, "L0N1"):
            pass


def test_names_rows_positions_and_nested_blocks(experts):
    _, model = experts("Qwen3Moe")
    site, state = expert_neuron_site(model), state_of(model)
    first, second = drawn_units(site, 1), drawn_units(site, 2)
    with ablate(model, first.names):
        by_name = logits_of(model)
    with ablate(model, first):
        one = logits_of(model)
    with ablate(model, second):
        two = logits_of(model)
    assert torch.equal(by_name, one)
    with ablate(model, [first, second, first]):
        rows = logits_of(model)
    assert torch.allclose(rows, torch.stack([one[0], two[1], one[2]]), atol=1e-5)
    with ablate(model, first | second):
        union = logits_of(model)
    for outer, inner in ((first, second), (second, first), (first, first | second)):
        with ablate(model, outer):
            with ablate(model, inner):
                assert torch.allclose(logits_of(model), union, atol=1e-5)
            with ablate(model, outer):  # once more: nothing is left of it
                assert torch.allclose(logits_of(model), one if outer is first else two, atol=1e-5)
    with scale(model, first, 2.0), scale(model, first, 3.0):
        six = logits_of(model)
    with scale(model, first, 6.0):
        assert torch.allclose(logits_of(model), six, atol=1e-4)
    with ablate(model, first, positions=[-1]):
        last = logits_of(model)
    assert torch.allclose(last[:, :-1], logits_of(model)[:, :-1], atol=1e-6)
    alone = drawn_units(site, 1, layers=(site.n_layers - 1,))
    with ablate(model, alone), torch.no_grad():
        whole = logits_of(model)
    with ablate(model, alone, positions=slice(-1, None)):
        assert torch.allclose(logits_of(model)[:, -1], whole[:, -1], atol=1e-5)
    with pytest.raises(LensNeuronsError, match="2 sets of neurons, one a row, but a batch of 3"):
        with ablate(model, [first, second]):
            logits_of(model)
    assert state_of(model) == state


def test_means_are_those_of_the_tokens_that_were_sent_there(experts):
    """By hand: the mean activation stands in on every token that the expert gets."""
    folder, model = experts("Olmoe")
    site = expert_neuron_site(model)
    found = collect(model, CORPUS, site="expert_neurons", progress=False)
    among = found.among_routed(collect(model, CORPUS, site="experts", progress=False))
    neurons, before = drawn_units(site, 3, share=0.1), logits_of(model)
    plain = tiny.load_plain(folder, attn_implementation="eager")
    for layer, own in neurons.by_layer().items():
        inside = plain.model.layers[layer].mlp.experts
        means = torch.tensor(among.mean[layer, :, 1], dtype=torch.float32)

        def forward(x, chosen, weights, inside=inside, own=own, means=means):
            total = torch.zeros_like(x)
            for token in range(len(x)):
                for expert, weight in zip(chosen[token].tolist(), weights[token], strict=True):
                    gate, up = (inside.gate_up_proj[expert] @ x[token]).chunk(2)
                    a = torch.nn.functional.silu(gate)
                    mine = own[own // site.width == expert]
                    a[mine % site.width] = means[mine]
                    total[token] += weight * (inside.down_proj[expert] @ (a * up))
            return total

        inside.forward = forward
    wanted = logits_of(plain)
    with ablate(model, neurons, method="mean", statistics=among, language="zh"):
        require_equal(logits_of(model), wanted, before)
    with steer(model, neurons, among, toward="zh", method="replace"):
        require_equal(logits_of(model), wanted, before)
    with (
        pytest.raises(LensNeuronsError, match="one over the tokens sent there"),
        ablate(model, neurons, method="mean", statistics=found),
    ):
        pass
    with (
        pytest.raises(LensNeuronsError, match="'resample' is for neurons of dense MLPs"),
        ablate(model, neurons, method="resample", reference=CORPUS),
    ):
        pass


def test_whole_experts_row_by_row(experts):
    folder, model = experts("Mixtral")
    site, before = expert_site(model), logits_of(model)
    first, second = drawn_units(site, 4), drawn_units(site, 5)
    wanted = []
    for one in (first, second):
        plain = tiny.load_plain(folder, attn_implementation="eager")
        for layer, own in one.by_layer().items():
            plain.model.layers[layer].mlp.experts.down_proj.data[own] = 0
        wanted.append(logits_of(plain))
        with ablate(model, one):
            require_equal(logits_of(model), wanted[-1], before)
    with ablate(model, [first, second, second]):
        found = logits_of(model)
    require_equal(found, torch.stack([wanted[0][0], wanted[1][1], wanted[1][2]]), before)
    with scale(model, first, 2.0), scale(model, first, 0.25):
        twice = logits_of(model)
    with scale(model, first, 0.5):
        assert torch.allclose(logits_of(model), twice, atol=1e-5)
    with (
        steer_experts(model, first, np.log(2.0), renormalise=False),
        steer_experts(model, first, np.log(0.25), renormalise=False),
    ):
        assert torch.allclose(logits_of(model), twice, atol=1e-5)
    with pytest.raises(LensNeuronsError, match="positions= is for neurons"):
        with ablate(model, first, positions=[0]):
            pass
    found = collect(model, CORPUS, site="experts", progress=False)
    with pytest.raises(LensNeuronsError, match="experts are removed by method='zero', not 'mean'"):
        with ablate(model, first, method="mean", statistics=found):
            pass


# Outputs of linear maps

MAPS = {
    "Llama": ("model.layers", "self_attn.{}_proj", "self_attn.o_proj", "mlp.down_proj"),
    "Qwen2": ("model.layers", "self_attn.{}_proj", "self_attn.o_proj", "mlp.down_proj"),
    "Gemma3": ("model.layers", "self_attn.{}_proj", "self_attn.o_proj", "mlp.down_proj"),
    "OPT": ("model.decoder.layers", "self_attn.{}_proj", "self_attn.out_proj", "fc2"),
    "GPT2": ("transformer.h", "attn.c_attn", "attn.c_proj", "mlp.c_proj"),
    "GPTNeoX": (
        "gpt_neox.layers",
        "attention.query_key_value",
        "attention.dense",
        "mlp.dense_4h_to_h",
    ),
    "Phi3": ("model.layers", "self_attn.qkv_proj", "self_attn.o_proj", "mlp.down_proj"),
}


def rows_of(architecture, name, own, config):
    """The rows of a fused projection that give some units of one of its three parts."""
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    kv = getattr(config, "num_key_value_heads", heads)
    place = "qkv".find(name)
    if architecture == "GPTNeoX":
        return own // size * 3 * size + place * size + own % size
    starts = {"GPT2": [0, 32, 64], "Phi3": [0, heads * size, (heads + kv) * size]}
    return own + starts[architecture][place] if architecture in starts and place >= 0 else own


@pytest.mark.parametrize("name", ["q", "k", "v", "attn_out", "mlp_out"])
@pytest.mark.parametrize("architecture", MAPS)
@torch.no_grad()
def test_a_unit_is_a_row_of_its_projection(architecture, name, model_folder, bridge):
    model = bridge(architecture)
    before, site = logits_of(model), linear_site(model, name)
    units = drawn_units(site)
    plain = tiny.load_plain(model_folder(architecture), attn_implementation="eager")
    layers, first, last, out = MAPS[architecture]
    path = {"attn_out": last, "mlp_out": out}.get(name, first.format(name))
    for layer, own in units.by_layer().items():
        module = plain.get_submodule(f"{layers}.{layer}.{path}")
        rows = rows_of(architecture, name, own, plain.config) if name in "qkv" else own
        weight = module.weight.T if type(module).__name__ == "Conv1D" else module.weight
        weight[rows] = 0
        if module.bias is not None:
            module.bias[rows] = 0
    wanted = logits_of(plain)
    with ablate(model, units):
        found = logits_of(model)
    require_equal(found, wanted, before)
    assert torch.equal(logits_of(model), before)


def test_units_row_by_row_while_writing_and_by_means(llama):
    site = linear_site(llama, "v")
    first, second = drawn_units(site, 1), drawn_units(site, 2)
    with ablate(llama, first):
        one = logits_of(llama)
        written = continue_greedily(llama.original_model, llama.original_model, IDS, 4)
    with ablate(llama, second):
        two = logits_of(llama)
    with ablate(llama, [first, second, second]):
        found = logits_of(llama)
    assert torch.allclose(found, torch.stack([one[0], two[1], two[2]]), atol=1e-5)
    assert written.shape == (3, 4)
    found = collect(llama, CORPUS, site="v", progress=False)
    with ablate(llama, first, method="mean", statistics=found, language="zh"):
        by_mean = collect(llama, CORPUS, site="v", progress=False)
    own = first.by_layer()[0]
    assert np.allclose(by_mean.mean[0, own], found.mean[0, own, 1:2], atol=1e-5)
    with (
        pytest.raises(LensNeuronsError, match="attn.k.hook_out do not belong to attn.v.hook_out"),
        steer(llama, first, collect(llama, CORPUS, site="k", progress=False), toward="zh"),
    ):
        pass


def test_sets_of_other_units_are_refused_elsewhere(llama):
    from lensneurons.cards.contexts import top_contexts

    units = drawn_units(linear_site(llama, "v"))
    with pytest.raises(LensNeuronsError, match="holds value units, and neurons are meant here"):
        top_contexts(llama, CORPUS, replace(units, d_mlp=tiny.D_MLP))
    with (
        pytest.raises(LensNeuronsError, match="sets of neurons and value units"),
        ablate(llama, [units, NeuronSet(np.zeros(1, np.int64), 3, tiny.D_MLP)]),
    ):
        pass


# Matrices


@pytest.mark.filterwarnings("ignore::lensneurons.errors.ControlWarning")
@pytest.mark.parametrize(
    ("architecture", "site"),
    [("Qwen3Moe", "expert_neurons"), ("Mixtral", "experts"), ("Llama", "q")],
)
def test_an_ablation_matrix_of_any_site(architecture, site, bridge):
    model = bridge(architecture)
    found = collect(model, CORPUS, site=site, progress=False)
    random = np.random.default_rng(0)
    neurons = replace(  # every language has some, and every expert has others
        identify(found, tau=0.3, top_rate=0.3, score="lape"),
        probability=np.round(random.random(found.probability.shape) * 0.7, 3),
        selected=random.random(found.probability.shape[:2]) < 0.3,
        tau=0.5,
    )
    matrix = ablation_matrix(
        model, CORPUS, neurons, classes=["specific"], controls=8, match=["own"], progress=False
    )
    assert matrix.provenance.unit == found.provenance.unit
    assert np.abs(matrix.effect).max() > 1e-4
    row = max(neurons.specific, key=lambda k: len(neurons.specific[k]))
    own = neurons.specific[row]
    control = draw_control(neurons, row, own, "own", "all", draws=5, seed=0)
    assert control[0].units == own.units
    assert control[0].names
    if site == "expert_neurons":
        width = own.d_mlp // own.n_experts
        for draw in range(5):
            experts = np.bincount(control[draw].flat // width, minlength=3 * own.n_experts)
            assert np.array_equal(
                experts, np.bincount(own.flat // width, minlength=3 * own.n_experts)
            )
            assert not set(control[draw].flat) & set(own.flat)


def test_a_model_writes_without_some_neurons_inside_experts(experts):
    _, model = experts("Qwen3Moe")
    neurons = drawn_units(expert_neuron_site(model), 6, share=0.6)
    plain = generate(model, ["the cat"], max_new_tokens=5)
    with ablate(model, neurons):
        other = generate(model, ["the cat"], max_new_tokens=5)
    assert plain != other
