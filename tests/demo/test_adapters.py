"""The adapters of the demo model: of this model, small, without paths, and exported whole."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lensneurons.alignment.pairs import PreferencePair, PreferencePairs
from lensneurons.alignment.training import Alignment, align
from lensneurons.demo.workshop.align import ALIGNMENTS, SETTINGS, export
from lensneurons.errors import StorageError
from lensneurons.models.adapters import DEMO_ADAPTERS, demo_adapters, read_mark
from lensneurons.models.identity import hash_weights
from lensneurons.models.loading import load_model, read_model
from lensneurons.values.provenance import Provenance

STEPS = (20, 40)
CONTROL = "zh-de-shuffled"
FOLDERS = [folder for name in ALIGNMENTS for folder in (name, *(f"{name}/{s}" for s in STEPS))]


@pytest.mark.parametrize("name", [*ALIGNMENTS, CONTROL])
def test_an_alignment_is_of_this_model_and_this_recipe(name):
    run = Alignment.load(DEMO_ADAPTERS / name)
    model, _, called = read_model("demo")
    assert (run.provenance.model, called) == ("demo", "demo")
    assert run.provenance.weights == hash_weights(model)
    assert all(getattr(run.settings, key) == value for key, value in SETTINGS.items())
    kinds = run.to_pandas().groupby("pairs")["step"].max()
    assert kinds.to_dict() == {"trained": run.settings.steps, "held out": run.settings.steps}


@pytest.mark.parametrize("folder", [*FOLDERS, CONTROL])
def test_an_adapter_is_small_and_names_no_folder(folder):
    assert folder in demo_adapters()
    assert (read_mark(DEMO_ADAPTERS / folder).get("control") is None) == (folder != CONTROL)
    path = DEMO_ADAPTERS / folder
    weights = load_file(path / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert all("self_attn" in name for name in weights)
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "demo"
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    assert size < 230_000


def test_a_checkpoint_is_loaded_by_its_step():
    tokens = torch.arange(5, 30)[None]
    names = (None, "sw-th/20", "sw-th")
    logits = [load_model("demo", adapter=name, device="cpu")(tokens) for name in names]
    assert not torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[1], logits[2])
    assert torch.allclose(logits[0], logits[2], atol=5)


def test_export_keeps_every_checkpoint_in_half_precision(model_folder, tmp_path):
    texts = [(f"i{n}", "en", f"nine {n}\n", f"twice {n}") for n in range(8)]
    pairs = tuple(PreferencePair(*text, "cat", 1.0, 0.0) for text in texts)
    made = PreferencePairs(pairs, "en", "hand", Provenance(model="hand"))
    run = align(
        model_folder("Llama"), made, tmp_path / "run", steps=4, batch=2, micro_batch=2, rank=2,
        alpha=4, checkpoint_every=2, learning_rate=1e-2, device="cpu", progress=False,
    )  # fmt: skip
    target = export(run, tmp_path / "out")
    assert sorted(p.name for p in target.iterdir()) == [
        "2", "adapter_config.json", "adapter_model.safetensors", "alignment.json",
        "lensneurons.json",
    ]  # fmt: skip
    assert replace(Alignment.load(target), folder=run.folder).log == run.log
    exact = load_model(model_folder("Llama"), adapter=run.folder, device="cpu")
    half = load_model(model_folder("Llama"), adapter=target, device="cpu")
    tokens = torch.tensor([[0, 40, 41, 42]])
    assert torch.allclose(exact(tokens), half(tokens), atol=0.02)


def test_export_says_that_an_adapter_is_a_control_and_seals_it(model_folder, tmp_path):
    texts = [(f"i{n}", "en", f"nine {n}\n", f"twice {n}") for n in range(8)]
    pairs = tuple(PreferencePair(*text, "cat", 1.0, 0.0) for text in texts)
    made = PreferencePairs(pairs, "en", "hand", Provenance(model="hand")).shuffled(seed=3)
    run = align(
        model_folder("Llama"), made, tmp_path / "run", steps=2, batch=2, micro_batch=2, rank=2,
        alpha=4, checkpoint_every=1, learning_rate=1e-2, device="cpu", progress=False,
    )  # fmt: skip
    target = export(run, tmp_path / "out")
    for folder in (target, target / "1"):
        mark = read_mark(folder)
        assert mark["control"] == read_mark(run.folder)["control"] == "shuffled pairs, seed 3"
        assert set(mark["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
    weights = target / "1" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(StorageError, match="adapter_model.safetensors"):
        load_model(model_folder("Llama"), adapter=target / "1", device="cpu")
