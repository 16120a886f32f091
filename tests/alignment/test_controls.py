"""Random adapters of equal norm: the size of every change is kept, its direction is not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from lensneurons.activations.collection import collect
from lensneurons.alignment import controls
from lensneurons.alignment.controls import random_adapter
from lensneurons.cli import main
from lensneurons.comparison.before_after import compare
from lensneurons.errors import LensNeuronsError, ModelError, StorageError
from lensneurons.models.adapters import DEMO_ADAPTERS, quiet
from lensneurons.models.loading import load_model
from lensneurons.values.files import load_json

FILES = ["adapter_config.json", "adapter_model.safetensors", "lensneurons.json"]


def write_adapter(folder, family="Llama", **options):
    """An adapter of a tiny model, whose B is not zero, as PEFT writes it."""
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]} | options
    with quiet():
        model = get_peft_model(tiny.random_model(family), LoraConfig(**settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("adapters") / "trained")


def updates(folder):
    """Module to its whole change of weights without scaling, float64, by plain PyTorch."""
    weights = {name: w.double() for name, w in load_file(folder / FILES[1]).items()}
    return {
        name.removesuffix(".lora_A.weight"): weights[name.replace("lora_A", "lora_B")] @ a
        for name, a in weights.items()
        if "lora_A" in name
    }


def test_every_module_keeps_its_norms_and_loses_its_direction(trained, tmp_path):
    before, after = updates(trained), updates(random_adapter(trained, tmp_path / "random"))
    assert len(before) == 2 * tiny.LAYERS
    assert before.keys() == after.keys()
    for name, was in before.items():
        now = after[name]
        assert now.shape == was.shape
        assert float(now.norm()) == pytest.approx(float(was.norm()), rel=1e-6)
        spectra = [torch.linalg.svdvals(one).numpy() for one in (was, now)]
        assert np.allclose(*spectra, rtol=1e-5, atol=1e-6 * spectra[0][0])
        assert np.linalg.matrix_rank(now.numpy(), tol=1e-5) == 4
    assert load_json(trained / FILES[0]) == load_json(tmp_path / "random" / FILES[0])


def test_directions_are_as_random_as_their_size_allows(trained, tmp_path):
    """The cosine of two directions of n m numbers has mean 0 and variance 1 / (n m)."""
    before, scores = updates(trained), []
    for seed in range(20):
        after = updates(random_adapter(trained, tmp_path / str(seed), seed=seed))
        for name, was in before.items():
            cosine = float((was * after[name]).sum() / was.norm() / after[name].norm())
            scores.append(cosine * np.sqrt(was.numel()))
    assert abs(np.mean(scores)) < 4 / np.sqrt(len(scores))
    assert np.std(scores) == pytest.approx(1, abs=0.25)


def test_the_frames_are_uniform():
    """Each entry of a random unit vector of length n has mean 0 and variance 1 / n."""
    random = np.random.default_rng(0)
    frames = np.array([controls._frame(5, 2, random) for _ in range(4000)])
    assert np.allclose(np.einsum("ijk,ijl->ikl", frames, frames), np.eye(2))
    assert np.allclose(frames.mean(axis=0), 0, atol=0.03)
    assert np.allclose(frames.var(axis=0), 1 / 5, atol=0.02)


def test_the_seed_decides(trained, tmp_path):
    first, again, other = (
        (random_adapter(trained, tmp_path / name, seed=seed) / FILES[1]).read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}])
def test_it_loads_and_says_that_it_is_a_control(model_folder, bridge, tmp_path, options):
    """`load_model` itself checks that the merged logits are PEFT's."""
    trained = write_adapter(tmp_path / "trained", **options)
    control = random_adapter(trained, tmp_path / "random", seed=5)
    assert sorted(path.name for path in control.iterdir()) == FILES
    base, plain, model = (
        bridge("Llama"),
        *(
            load_model(model_folder("Llama"), adapter=one, device="cpu")
            for one in (trained, control)
        ),
    )
    changes = [
        {
            name: (now - was).detach().double()
            for (name, now), was in zip(
                one.original_model.named_parameters(),
                base.original_model.parameters(),
                strict=True,
            )
        }
        for one in (plain, model)
    ]
    moved = [{n for n, change in each.items() if change.any()} for each in changes]
    assert moved[0] == moved[1]
    assert len(moved[0]) == 2 * tiny.LAYERS
    for name in moved[0]:
        norms = [float(each[name].norm()) for each in changes]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)  # weights are float32 sums
    told = f"{control} (control: random adapter of equal norm, seed 5)"
    assert model.cfg.model_name.endswith(told)
    corpus = tiny.tiny_corpus()
    before, after = (collect(m, corpus, groups=2, progress=False) for m in (base, model))
    assert after.provenance.model.endswith(told)
    assert compare(before, after).provenance[1].model.endswith(told)
    about = load_json(control / FILES[2])
    assert about["of"]["adapter"] == "trained"
    assert len(about["of"]["weights"]) == 64


def test_embeddings_conv1d_and_ranks_beyond_the_width(tmp_path):
    wide = write_adapter(tmp_path / "gpt2", "GPT2", target_modules=["c_attn"], fan_in_fan_out=True)
    random_adapter(wide, tmp_path / "random-gpt2")
    high = write_adapter(tmp_path / "high", r=200, target_modules=["q_proj"])
    before, after = updates(high), updates(random_adapter(high, tmp_path / "random-high"))
    for name, was in before.items():
        assert float(after[name].norm()) == pytest.approx(float(was.norm()), rel=1e-6)
    words = write_adapter(tmp_path / "words", target_modules=["embed_tokens"])
    weights = [
        load_file(one / FILES[1]) for one in (words, random_adapter(words, tmp_path / "random"))
    ]
    first, second = sorted(name for name in weights[0] if "embedding" in name)
    norms = [float((one[second].double() @ one[first].double()).norm()) for one in weights]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_an_adapter_of_the_demo_is_named(tmp_path):
    control = random_adapter("zh-de", tmp_path / "random")
    before, after = updates(DEMO_ADAPTERS / "zh-de"), updates(control)
    for name, was in before.items():
        assert float(after[name].norm()) == pytest.approx(float(was.norm()), rel=1e-6)


def test_a_command_writes_it(trained, tmp_path, capsys):
    out = tmp_path / "random"
    assert main(["random-adapter", str(trained), "--out", str(out), "--seed", "4"]) == 0
    assert capsys.readouterr().out == f"adapter: {out}\n"
    assert load_json(out / FILES[2])["control"] == "random adapter of equal norm, seed 4"
    assert main(["random-adapter", str(trained), "--out", str(out)]) == 2
    assert "is there already: give a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"use_dora": True}, "has use_dora=true, so it changes more than B A"),
        ({"bias": "lora_only"}, 'has bias="lora_only", so it changes more'),
        ({"modules_to_save": ["lm_head"]}, r'has modules_to_save=\["lm_head"\]'),
        ({"trainable_token_indices": [1, 2]}, "has trainable_token_indices"),
    ],
)
def test_more_than_low_rank_changes_is_refused(tmp_path, options, told):
    folder = write_adapter(tmp_path / "trained", **options)
    with pytest.raises(ModelError, match=told):
        random_adapter(folder, tmp_path / "random")
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


def edited(trained, folder, change):
    """A copy whose tensors were changed by hand."""
    shutil.copytree(trained, folder)
    weights = load_file(folder / FILES[1])
    change(weights, min(weights))
    save_file(weights, folder / FILES[1])
    return folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w, name: w.pop(name), "is not one of two matrices A and B of a module"),
        (lambda w, name: w.update({name: w[name][0]}), "is not one of two matrices"),
        (lambda w, name: w.update({"odd": torch.ones(1)}), "odd is not one of two matrices"),
        (lambda w, name: w[name].fill_(np.nan), "has a NaN or an infinity"),
        (lambda w, name: [one.zero_() for one in w.values()], "changes no weight"),
    ],
)
def test_weights_that_are_no_change_of_weights_are_refused(trained, tmp_path, change, told):
    with pytest.raises(ModelError, match=told):
        random_adapter(edited(trained, tmp_path / "bad", change), tmp_path / "random")


def test_what_is_no_adapter_is_refused(trained, tmp_path):
    with pytest.raises(ModelError, match=r"holds no adapter_config.json: .* \(all, all/"):
        random_adapter(tmp_path / "none", tmp_path / "random")
    with pytest.raises(LensNeuronsError, match="seed=-1: give 0 or more"):
        random_adapter(trained, tmp_path / "random", seed=-1)
    other = shutil.copytree(trained, tmp_path / "ia3")
    config = json.loads((other / FILES[0]).read_text())
    (other / FILES[0]).write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(ModelError, match="is of type IA3: a random control is made of LoRA"):
        random_adapter(other, tmp_path / "random")
    (other / FILES[1]).write_bytes(b"nonsense")
    shutil.copy(trained / FILES[0], other / FILES[0])
    with pytest.raises(ModelError, match="could not be read"):
        random_adapter(other, tmp_path / "random")
    assert not (tmp_path / "random").exists()


def test_the_folder_appears_whole_or_not_at_all(trained, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is there already"):
        random_adapter(trained, full)
    with monkeypatch.context() as patch:
        patch.setattr(controls, "mark_adapter", None)
        with pytest.raises(TypeError):
            random_adapter(trained, tmp_path / "random")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    (tmp_path / "random").mkdir()
    assert random_adapter(trained, tmp_path / "random") == tmp_path / "random"


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_goes_unseen(trained, model_folder, tmp_path, name):
    control = random_adapter(trained, tmp_path / "random")
    content = bytearray((control / name).read_bytes())
    content[-40] ^= 1
    (control / name).write_bytes(bytes(content))
    for read in (
        lambda: load_model(model_folder("Llama"), adapter=control, device="cpu"),
        lambda: random_adapter(control, tmp_path / "again"),
    ):
        with pytest.raises(StorageError, match=f"{name} is (damaged|not JSON)"):
            read()
