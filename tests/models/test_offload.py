"""A model over several devices, here the memory and a disk: every number is that of one device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import D_MLP, LAYERS, random_model, save_model, tiny_corpus

import lensneurons as ln
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.identity import hash_weights
from lensneurons.neurons.sets import chosen_set


def places(disk: set[str]) -> dict[str, str]:
    """A place for every module of the tiny Llama: the CPU, or the disk."""
    modules = ["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"]
    modules += [f"model.layers.{layer}" for layer in range(LAYERS)]
    return {name: "disk" if name in disk else "cpu" for name in modules}


@pytest.fixture(scope="module")
def folder(model_folder: Callable[..., Path]) -> Path:
    return model_folder("Llama")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Any:
    return ln.load_model(folder, device="cpu")


@pytest.fixture(scope="module")
def split(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its odd layers on the disk."""
    disk = {f"model.layers.{layer}" for layer in range(1, LAYERS, 2)}
    away = tmp_path_factory.mktemp("offload")
    return ln.load_model(folder, device_map=places(disk), offload_folder=away)


@pytest.fixture(scope="module")
def texts() -> Any:
    return tiny_corpus()


@pytest.fixture(scope="module")
def statistics(whole: Any, texts: Any) -> Any:
    return ln.collect(whole, texts, progress=False)


def test_half_of_the_layers_lie_on_the_disk(split: Any) -> None:
    away = {name for name, weight in split.original_model.named_parameters() if weight.is_meta}
    assert len({name.split(".layers.")[1].split(".")[0] for name in away}) == LAYERS // 2


def test_integers_and_hashes_are_those_of_one_device(
    whole: Any, split: Any, texts: Any, statistics: Any
) -> None:
    found = ln.collect(split, texts, progress=False)
    assert np.array_equal(found.grouped_counts, statistics.grouped_counts)
    assert found.provenance.weights == statistics.provenance.weights == hash_weights(whole)


def test_a_changed_weight_on_the_disk_changes_the_hash(split: Any) -> None:
    before = hash_weights(split)
    own = split.original_model.model.layers[1].mlp.down_proj
    own = getattr(own, "original_component", own)
    kept = own._hf_hook.weights_map  # what the disk holds, by name
    try:
        own._hf_hook.weights_map = {"weight": kept["weight"] + 1}
        assert hash_weights(split) != before
    finally:
        own._hf_hook.weights_map = kept
    assert hash_weights(split) == before


def test_every_verb_gives_the_numbers_of_one_device(
    whole: Any, split: Any, texts: Any, statistics: Any
) -> None:
    neurons = ln.identify(statistics, score="lape", top_rate=0.09)
    few, removed = texts.head(6), chosen_set(["L0N3", "L1N5", "L2N7"], LAYERS, D_MLP)

    def numbers(model: Any) -> list[np.ndarray]:
        quiet: Any = {"progress": False}
        found = [ln.nll(model, few, **quiet).to_pandas().select_dtypes("number").to_numpy()]
        with ln.ablate(model, removed):
            found.append(ln.nll(model, few, **quiet).to_pandas().select_dtypes("number").to_numpy())
        found.append(ln.logit_lens(model, few, scope="all", **quiet).means)
        name = str(neurons.to_pandas()["name"][0])
        card = ln.describe(model, neurons, name, corpus=few, statistics=statistics)
        effect = card.vocabulary
        found.append(np.array([t.deviation for t in (*effect.promoted, *effect.heard)]))
        found += [np.array([w.value for w in one.values()]) for one in card.importance.values()]
        return found

    for one, other in zip(numbers(whole), numbers(split), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-6)
    prompts = ["2 + 3 ="]
    assert ln.generate(split, prompts, max_new_tokens=4, progress=False) == ln.generate(
        whole, prompts, max_new_tokens=4, progress=False
    )


def test_the_last_norm_may_lie_on_the_disk(
    folder: Path, texts: Any, statistics: Any, tmp_path: Path
) -> None:
    model = ln.load_model(folder, device_map=places({"model.norm"}), offload_folder=tmp_path)
    found = ln.collect(model, texts, progress=False)
    assert np.array_equal(found.counts, statistics.counts)
    assert found.provenance.weights == statistics.provenance.weights


def test_a_tied_embedding_on_the_disk_is_refused(tmp_path: Path) -> None:
    folder, tied = save_model("Llama", tmp_path / "model"), random_model("Llama")
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    tied.save_pretrained(folder)
    lying = places({"model.embed_tokens", "lm_head"})
    with pytest.raises(ModelError, match="is also its unembedding.*keep both in memory"):
        ln.load_model(folder, device_map=lying, offload_folder=tmp_path / "away")


def test_an_embedding_of_its_own_may_lie_on_the_disk(tmp_path: Path) -> None:
    """The unembedding has weights of its own, and memory is too small for either."""
    folder = save_model("Llama", tmp_path / "model")
    whole = ln.load_model(folder, device="cpu")
    assert not whole.original_model.config.tie_word_embeddings
    split = ln.load_model(
        folder, device_map="auto", max_memory={"cpu": "60KB"}, offload_folder=tmp_path / "away"
    )
    assert split.original_model.get_input_embeddings().weight.is_meta
    one, other = (ln.collect(model, tiny_corpus(), progress=False) for model in (whole, split))
    assert np.array_equal(one.grouped_counts, other.grouped_counts)
    assert one.provenance.weights == other.provenance.weights
    scores = [ln.nll(model, tiny_corpus(), progress=False).to_pandas() for model in (whole, split)]
    a, b = (one.select_dtypes("number").to_numpy() for one in scores)
    np.testing.assert_allclose(a, b, rtol=2e-5)


def test_an_export_of_weights_on_the_disk_is_refused(split: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="offloaded|disk"):
        ln.export(split, "L1N3", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"device": "cpu", "device_map": "auto"}, "one of the two"),
        ({"max_memory": {"cpu": "1GiB"}}, "device_map='auto'"),
        ({"offload_folder": "x"}, "device_map='auto'"),
        ({"device_map": "evenly"}, "balanced"),
        ({"device_map": {"": "meta"}}, "'disk'"),
        ({"device_map": {"": "nowhere"}}, "could not be loaded"),
    ],
)
def test_places_that_are_none_are_refused(folder: Path, options: Any, told: str) -> None:
    with pytest.raises((LensNeuronsError, ModelError), match=told):
        ln.load_model(folder, **options)


def test_without_accelerate_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lensneurons.models.offload.find_spec", lambda name: None)
    with pytest.raises(LensNeuronsError, match=r"pip install 'lensneurons\[split\]'"):
        ln.load_model(folder, device_map="auto")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs: not split over them")
def test_two_gpus_count_as_one(folder: Path, texts: Any) -> None:
    split = ln.load_model(folder, device_map="balanced")
    assert {str(weight.device) for weight in split.parameters()} == {"cuda:0", "cuda:1"}
    one = ln.collect(ln.load_model(folder, device="cuda:0"), texts, progress=False)
    assert np.array_equal(ln.collect(split, texts, progress=False).counts, one.counts)
