"""Quantised checkpoints: read as the floats that they stand for, or refused before the weights."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_model, tiny_corpus

import lensneurons as ln
from lensneurons.errors import ModelError
from lensneurons.models.identity import quantisation_of
from lensneurons.models.quantised import quantised_as

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def configured(folder: Path, scheme: dict[str, Any] | None) -> Path:
    about = json.loads((folder / "config.json").read_text())
    about.pop("quantization_config", None)
    more = {} if scheme is None else {"quantization_config": scheme}
    (folder / "config.json").write_text(json.dumps(about | more))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("Llama", tmp_path_factory.mktemp("plain"))


@pytest.fixture
def empty(plain: Path, tmp_path: Path) -> Path:
    """A folder as it is before the weights are downloaded: what is small, and no weights."""
    for file in plain.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("scheme", "told"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, r"\(gptq 4 bits\)"),
        ({"quant_method": "awq", "bits": 4, "zero_point": True}, r"\(awq 4 bits\)"),
        ({"quant_method": "of tomorrow"}, r"\(of tomorrow\)"),
        ({"something": "else"}, r"\(an unnamed scheme\)"),
    ],
)
def test_weights_without_floats_are_refused_before_they_are_there(
    empty: Path, scheme: dict[str, Any], told: str
) -> None:
    with pytest.raises(ModelError, match=f"is quantised {told}.*GGUF file"):
        ln.load_model(configured(empty, scheme))


@pytest.mark.parametrize(
    ("scheme", "package"),
    [
        (NF4, "bitsandbytes"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
    ],
)
def test_a_missing_package_is_named_before_the_weights_are_there(
    empty: Path, scheme: dict[str, Any], package: str
) -> None:
    if find_spec(package.replace("-", "_")) is not None:
        pytest.skip(f"{package} is installed here: nothing is missing")
    with pytest.raises(ModelError, match=f"cannot be read here: .*{package}"):
        ln.load_model(configured(empty, scheme))


@pytest.mark.skipif(find_spec("accelerate") is None, reason="fp8 needs the extra split")
def test_fp8_is_read_as_the_floats_that_it_stands_for(plain: Path, tmp_path: Path) -> None:
    """The same numbers as a folder that holds the floats, and the provenance says it."""
    floats, packed = (save_model("Llama", tmp_path / name) for name in ("floats", "packed"))
    held, stands_for = {}, {}
    for name, weight in load_file(plain / "model.safetensors").items():
        if "proj" in name and weight.ndim == 2:
            scale = weight.abs().max() / 448
            small = (weight / scale).to(torch.float8_e4m3fn)
            held |= {name: small, name.replace("weight", "weight_scale_inv"): scale.reshape(1, 1)}
            stands_for[name] = small.float() * scale
        else:
            held[name] = stands_for[name] = weight
    save_file(held, packed / "model.safetensors", {"format": "pt"})
    save_file(stands_for, floats / "model.safetensors", {"format": "pt"})
    wanted = ln.load_model(floats, device="cpu")
    found = ln.load_model(configured(packed, FP8), device="cpu")
    assert (quantisation_of(found), quantisation_of(wanted)) == ("fp8", "none")
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    one, other = (ln.collect(model, tiny_corpus(), progress=False) for model in (found, wanted))
    assert (one.counts == other.counts).all()
    assert one.provenance.quantisation == "fp8"
    for a, b in zip(found.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def held_as_floats(found: Any, floats: dict[str, torch.Tensor], folder: Path, scheme: str) -> None:
    """A model that was read from packed weights has these floats, and counts what they count."""
    save_file(floats, folder / "model.safetensors", {"format": "pt"})
    wanted = ln.load_model(folder, device="cpu")
    assert quantisation_of(found) == scheme
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    for a, b in zip(found.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    one, other = (ln.collect(model, tiny_corpus(), progress=False) for model in (found, wanted))
    assert (one.counts == other.counts).all()
    assert one.provenance.quantisation == scheme


@pytest.mark.skipif(
    not (find_spec("bitsandbytes") and find_spec("accelerate")),
    reason="needs bitsandbytes, and the extra split: pip install bitsandbytes",
)
def test_bitsandbytes_is_read_as_the_floats_that_it_stands_for(plain: Path, tmp_path: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    floats = save_model("Llama", tmp_path / "floats")
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    packed = AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=four, device_map="cpu", dtype=torch.float32
    )
    stands_for = load_file(plain / "model.safetensors")
    for name, weight in packed.named_parameters():
        if hasattr(weight, "quant_state"):
            own = dequantize_4bit(weight.data, weight.quant_state).to(torch.float32)
            assert not torch.equal(own, stands_for[name])  # it was rounded
            stands_for[name] = own.contiguous()
    packed.save_pretrained(tmp_path / "packed")
    for file in plain.glob("token*"):
        (tmp_path / "packed" / file.name).write_bytes(file.read_bytes())
    found = ln.load_model(tmp_path / "packed", device="cpu")
    held_as_floats(found, stands_for, floats, "bitsandbytes nf4")


@pytest.mark.skipif(
    not (find_spec("compressed_tensors") and find_spec("accelerate")),
    reason="needs compressed-tensors, and the extra split: pip install compressed-tensors",
)
def test_compressed_tensors_are_read_as_the_floats_that_they_stand_for(tmp_path: Path) -> None:
    floats, packed = (save_model("Llama", tmp_path / name) for name in ("floats", "packed"))
    eight = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "tensor"}
    scheme = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": eight}},
        "ignore": ["lm_head"],
    }
    held, stands_for = {}, {}
    for name, weight in load_file(floats / "model.safetensors").items():
        if "proj" in name and weight.ndim == 2:
            scale = weight.abs().max() / 127
            small = torch.round(weight / scale).to(torch.int8)
            held |= {name: small, name.replace("weight", "weight_scale"): scale.reshape(1)}
            stands_for[name] = small.float() * scale
        else:
            held[name] = stands_for[name] = weight
    save_file(held, packed / "model.safetensors", {"format": "pt"})
    found = ln.load_model(configured(packed, scheme), device="cpu")
    held_as_floats(found, stands_for, floats, "compressed-tensors")


def test_schemes_by_name() -> None:
    class Config:
        quantization_config: Any = None

        def get_text_config(self, decoder: bool) -> Config:
            return self

    for about, told in (
        (None, None),
        (FP8, "fp8"),
        (NF4, "bitsandbytes nf4"),
        ({"load_in_8bit": True}, "bitsandbytes int8"),
        ({"quant_method": "gptq", "bits": 8}, "gptq 8 bits"),
    ):
        Config.quantization_config = about
        assert quantised_as(Config()) == told
