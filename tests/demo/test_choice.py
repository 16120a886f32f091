"""The choice between a worked and a direct answer, patched and ablated: against Hugging Face."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import load_corpus
from lensneurons.demo.run import SCORE, TOP_RATE
from lensneurons.demo.workshop.choice import (
    ALL,
    ATTENTION,
    find_fork,
    is_worked,
    measure_choice,
    sets_in,
    write_table,
)
from lensneurons.demo.world import LANGUAGES, generate, render
from lensneurons.errors import LensNeuronsError
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import DEMO_FOLDER, load_model
from lensneurons.neurons.identification import identify

CODES = ["en", "zh", "sw"]
PROBLEMS = generate("test", 3)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A random Llama that reads as the demo model does, and the same with other attention."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=4,
        num_attention_heads=2, max_position_embeddings=384, hidden_act="relu",
    )  # fmt: skip
    torch.manual_seed(0)
    model, loaded = LlamaForCausalLM(config), []
    for name in ("base", "aligned"):
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        loaded.append(load_model(folder, device="cpu"))
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.v_proj.weight, std=0.5)
    return loaded[0], loaded[1]


@pytest.fixture(scope="module")
def neurons(models) -> Any:
    corpus = load_corpus("demo", split="validation", limit=10, languages=CODES)
    return identify(collect(models[0], corpus, progress=False), score=SCORE, top_rate=TOP_RATE)


@pytest.fixture(scope="module")
def found(models, neurons) -> Any:
    return measure_choice(*models, PROBLEMS, neurons, draws=2)


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_fork_is_where_the_two_answers_part(models, code) -> None:
    tokenizer = original_tokenizer(models[0])
    for problem in generate("test", 20):
        fork = find_fork(problem, code, tokenizer)
        text = tokenizer.decode(fork.ids, skip_special_tokens=True)
        for worked, token in ((True, fork.worked), (False, fork.direct)):
            prompt, response = render(problem, code, worked=worked)
            whole = tokenizer(prompt)["input_ids"]
            whole += tokenizer(response, add_special_tokens=False)["input_ids"]
            assert whole[: len(fork.ids) + 1] == [*fork.ids, token]
            assert text.startswith(prompt)
            assert is_worked(response) == worked


def by_hugging_face(
    models: tuple[Any, Any], code: str, patched: np.ndarray, ablated: np.ndarray
) -> list[np.ndarray]:
    """Shares of base and aligned model, and of both with neurons bool [layer, neuron] changed."""
    base, aligned = (model.original_model for model in models)
    tokenizer = original_tokenizer(models[0])
    results = []
    for problem in PROBLEMS:
        ids, *tokens = find_fork(problem, code, tokenizer)
        text = torch.tensor([ids])
        kept: dict[int, torch.Tensor] = {}

        def run(model: Any, change: Any = None, text: Any = text, tokens: Any = tokens) -> float:
            handles = []
            for layer, block in enumerate(model.model.layers):
                down = getattr(block.mlp.down_proj, "original_component", block.mlp.down_proj)
                if change is not None:
                    handles.append(
                        down.register_forward_pre_hook(
                            lambda _, given, layer=layer: change(layer, given[0])
                        )
                    )
            with torch.no_grad():
                chosen = model(text).logits[0, -1].double().softmax(-1)[tokens]
            for handle in handles:
                handle.remove()
            return float(chosen[0] / chosen.sum())

        def keep(layer: int, value: torch.Tensor, kept: Any = kept) -> None:
            kept[layer] = value.clone()

        def put(layer: int, value: torch.Tensor, kept: Any = kept) -> torch.Tensor:
            return torch.where(torch.from_numpy(patched[layer]), kept[layer], value)

        def silence(layer: int, value: torch.Tensor) -> torch.Tensor:
            return value.masked_fill(torch.from_numpy(ablated[layer]), 0)

        results.append([run(base, keep), run(aligned), run(aligned, put), run(base, silence)])
    return list(np.array(results).T)


@pytest.mark.parametrize("condition", [ALL, "layer 3", "related", "specific of layer 0"])
def test_patched_and_ablated_shares_equal_plain_hooks(models, neurons, found, condition) -> None:
    place = found.conditions.index(condition)
    assert found.sizes[place].any()
    for row, code in enumerate(neurons.languages):
        every = np.ones((neurons.n_layers, neurons.d_mlp), bool)
        layer = np.arange(neurons.n_layers)[:, None]
        mask = {
            ALL: every,
            "layer 3": every & (layer == 3),
            "related": neurons.related[code].mask(),
            "specific of layer 0": neurons.specific[code].mask() & (layer == 0),
        }[condition]
        assert found.sizes[place, row] == mask.sum()
        p = neurons.probability[:, :, row][mask]
        expected = pytest.approx(p.mean()) if len(p) else pytest.approx(np.nan, nan_ok=True)
        assert found.activity[place, row] == expected
        base, aligned, patched, ablated = by_hugging_face(models, code, mask, mask)
        np.testing.assert_allclose(found.base[row], base, rtol=1e-3)
        np.testing.assert_allclose(found.aligned[row], aligned, rtol=1e-3)
        np.testing.assert_allclose(found.patched[place, row], patched, rtol=1e-3)
        np.testing.assert_allclose(found.ablated[place, row], ablated, rtol=1e-3)


def test_attention_that_is_patched_takes_its_change_back(models, found) -> None:
    """All of it everything, where nothing else changed; one layer as much as plain hooks say."""
    everything = found.patched[found.conditions.index(ATTENTION)]
    np.testing.assert_allclose(everything, found.base, rtol=1e-5)
    place, (base, aligned) = found.conditions.index("attention of layer 2"), models
    assert np.isnan(found.sizes[place]).all()
    assert np.isnan(found.ablated[place]).all()
    assert np.isnan(found.activity[place]).all()
    for row, code in enumerate(found.languages):
        for item, problem in enumerate(PROBLEMS):
            ids, *tokens = find_fork(problem, code, original_tokenizer(base))
            given: list[Any] = []
            for model in (base, aligned):
                last = model.original_model.model.layers[2].self_attn.o_proj
                last = getattr(last, "original_component", last)
                handle = last.register_forward_hook(
                    lambda _, __, out, given=given: given.append(out) or given[0]
                )
                with torch.no_grad():
                    logits = model.original_model(torch.tensor([ids])).logits
                handle.remove()
            assert not torch.equal(given[0], given[1])
            direct, worked = logits[0, -1].double().softmax(-1)[tokens].tolist()
            expected = direct / (direct + worked)
            assert found.patched[place, row, item] == pytest.approx(expected, rel=1e-3)


def test_controls_have_as_many_neurons_and_a_table_tells_means(neurons, found) -> None:
    sizes = dict(zip(found.conditions, found.sizes, strict=True))
    for name in ("specific", "related"):
        np.testing.assert_array_equal(sizes[name], sizes[f"control of {name}"])
        layers = [sizes[f"{name} of layer {layer}"] for layer in range(neurons.n_layers)]
        np.testing.assert_array_equal(sum(layers), sizes[name])
    table = found.table(["zh", "sw"])
    rows = [found.languages.index(code) for code in ("zh", "sw")]
    change = (found.aligned - found.base)[rows]
    assert table.loc["change", "taken_back"] == pytest.approx(change.mean())
    place = found.conditions.index("layer 2")
    back = (found.patched[place] - found.aligned)[rows].mean()
    assert table.loc["layer 2", "taken_back"] == pytest.approx(back)
    assert (table["taken_back_low"] <= table["taken_back"]).all()
    [head, _, first, *rest] = write_table(table)
    assert head == "| neurons of | how many | p | patched | ablated |"
    assert first.startswith(f"| change |  |  | {100 * change.mean():+.1f} (")
    assert len(rest) == len(found.conditions)
    with pytest.raises(LensNeuronsError, match="de"):
        found.table(["de"])


def test_a_class_that_fills_its_layers_has_no_control(neurons, found) -> None:
    dense = replace(neurons, probability=np.full_like(neurons.probability, 0.9), tau=0.5)
    sets = dict(sets_in(dense, "zh", 1, 0))
    assert [len(one) for one in sets["agnostic"]] == [neurons.n_layers * neurons.d_mlp]
    assert sets["control of agnostic"] == []
    unknown = found.patched.copy()
    unknown[0] = np.nan
    table = replace(found, patched=unknown).table(["zh"])
    assert np.isnan(table.loc[ALL, "taken_back"])
    assert not np.isnan(table.loc[ALL, "removed"])
