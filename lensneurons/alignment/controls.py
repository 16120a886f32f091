"""Controls for an alignment: adapters that change the weights as much, but for another reason.

What an adapter does to the neurons has three causes: that the weights moved at all, that training
saw these texts, and what the preferences asked for. Each control leaves one of them out:

    `random_adapter`                        the same modules, rank and size of every change, in a
                                            random direction: does any change this large do it?
    ``pairs.shuffled()``, then `align`      the same texts, steps and settings, but a coin says
                                            which answer is better: does training on them do it?
    `align`                                 what it does beyond both is what the preferences did

`random_adapter` gives every change of weights ``B A`` the singular values of the trained one and
singular vectors drawn uniformly:

    B A = U S V'   ->   U* S V*'        ||U* S V*'|| = ||U S V'|| in every norm of singular values

so Frobenius norm, spectral norm and effective rank are those of the trained adapter, module by
module. The scaling (alpha / rank, or alpha / sqrt(rank)) is the same. The cosine between the random
and the trained change of a module of n inputs and m outputs is about 1 / sqrt(n m).

>>> control = random_adapter("runs/adapter", "runs/random", seed=0)             # doctest: +SKIP
>>> model = load_model("Qwen/Qwen3-0.6B-Base", adapter=control)                 # doctest: +SKIP
>>> collect(model, corpus).provenance.model                                     # doctest: +SKIP
'Qwen/Qwen3-0.6B-Base + runs/random (control: random adapter of equal norm, seed 0)'

The name of the model says which control it is, also in every value that is made with it. So do
`Alignment.preferences`, its ``repr`` and the model's name for an adapter trained on shuffled pairs.

What these do not show: one draw is one control; several seeds tell how much two random adapters
differ. And weights that change by as much do not change the activations by as much: on 20 texts the
demo's adapter zh-de changes 1.2 % of the signs of the activations and moves the next token by a KL
divergence of 0.016 nats, two random ones 0.4 % and 0.0006 nats. So it is an easy control: it says
nothing about other changes that move the activations as far.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.alignment.checkpoints import mark_adapter
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.adapters import (
    CONFIG,
    DEMO_ADAPTERS,
    WEIGHTS,
    demo_adapters,
    file_hash,
    read_mark,
)
from lensneurons.options import plain_options
from lensneurons.values.files import load_json, new_folder, replacing, save_json, whole_folder

# Options of LoRA whose change of weights is not ``B A`` alone.
_MORE = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens",
)  # fmt: skip
_ENDS = {"lora_A.weight": "lora_B.weight", "lora_embedding_A": "lora_embedding_B"}


@plain_options
def random_adapter(adapter: str | Path, out: str | Path, *, seed: int = 0) -> Path:
    """Write an adapter that changes the same modules by as much, in a random direction.

    Args:
        adapter: the folder of a trained LoRA adapter, such as ``run.folder`` or one of
            ``run.checkpoints``, or the name of one of the demo model's.
        out: a folder that does not exist or is empty. It appears whole or not at all.
        seed: of the directions; the same seed gives the same adapter.

    Returns:
        `out`, which `load_model` takes as ``adapter=``. Weights are float32; the configuration is
        that of `adapter`. ``lensneurons.json`` says which control it is, of which adapter.

    Raises:
        ModelError: no adapter is there, or it is no LoRA, changes nothing, or more than ``B A``
            (DoRA, biases, whole modules).
        StorageError: `out` holds something, cannot be written, or the adapter's files were changed.
        LensNeuronsError: a negative seed.
    """
    if seed < 0:
        raise LensNeuronsError(f"seed={seed}: give 0 or more")
    target = new_folder(out)
    source = _folder(adapter)
    config, weights = _read(source)
    random, changed = np.random.default_rng(seed), {}
    for first, second in _pairs(source, weights):
        a, b = weights[first].astype(np.float64), weights[second].astype(np.float64)
        changed[first], changed[second] = _turned(a, b, random)
    if not any(array.any() for array in changed.values()):
        raise ModelError(f"{source} changes no weight: a control of the same size is the model")
    about = {"adapter": source.name, "weights": file_hash(source / WEIGHTS)}
    with whole_folder(target) as temporary:
        _write(temporary, changed, config)
        mark_adapter(temporary, f"random adapter of equal norm, seed {seed}", of=about)
    return target


def _folder(adapter: str | Path) -> Path:
    """The folder of an adapter.

    Raises:
        ModelError: there is none.
    """
    path = Path(adapter).expanduser()
    if str(adapter) in demo_adapters() and not path.is_dir():
        return DEMO_ADAPTERS / adapter
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise ModelError(
                f"{path} holds no {name}: give the folder of an adapter, or one of the demo's "
                f"({', '.join(demo_adapters())})"
            )
    return path


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Configuration and weights of a LoRA adapter.

    Raises:
        ModelError: it is no LoRA, changes more than ``B A``, or cannot be read.
        StorageError: its files were changed after this package wrote them.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_mark(folder)
    config = load_json(folder / CONFIG)
    if (kind := config.get("peft_type")) != "LORA":
        raise ModelError(f"{folder} is of type {kind}: a random control is made of LoRA alone")
    more = [name for name in _MORE if config.get(name)]
    if config.get("bias", "none") != "none":
        more.append("bias")
    if more:
        raise ModelError(
            f"{folder} has {more[0]}={json.dumps(config[more[0]])}, so it changes more than B A: "
            "a control of equal norm is made of plain LoRA alone"
        )
    try:  # by PyTorch, because NumPy has no bfloat16
        weights = {name: w.float().numpy() for name, w in load_file(folder / WEIGHTS).items()}
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelError(f"{folder / WEIGHTS} could not be read: {error}") from None
    if unfit := [name for name, array in weights.items() if not np.isfinite(array).all()]:
        raise ModelError(f"{folder}: {unfit[0]} has a NaN or an infinity")
    return config, weights


def _pairs(folder: Path, weights: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Names of the matrices A and B of every module.

    Raises:
        ModelError: a tensor is neither, has no partner, or is no matrix.
    """
    pairs = [
        (name, name.removesuffix(a) + b)
        for name in sorted(weights)
        for a, b in _ENDS.items()
        if name.endswith(f".{a}")
    ]
    paired = {name for pair in pairs for name in pair}
    if odd := sorted(paired ^ weights.keys()) or [n for n in weights if weights[n].ndim != 2]:
        raise ModelError(f"{folder}: {odd[0]} is not one of two matrices A and B of a module")
    return pairs


def _turned(
    a: np.ndarray, b: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices like A [rank, in] and B [out, rank], whose product has other singular vectors."""
    values = np.linalg.svd(np.linalg.qr(b)[1] @ np.linalg.qr(a.T)[1].T, compute_uv=False)
    root = np.sqrt(values)
    new_a, new_b = np.zeros(a.shape, np.float32), np.zeros(b.shape, np.float32)
    new_b[:, : len(values)] = _frame(len(b), len(values), random) * root
    new_a[: len(values)] = (_frame(a.shape[1], len(values), random) * root).T
    return new_a, new_b


def _frame(length: int, number: int, random: np.random.Generator) -> np.ndarray:
    """Orthonormal columns, float64 [length, number], drawn uniformly (Mezzadri 2007)."""
    q, r = np.linalg.qr(random.standard_normal((length, number)))
    return q * np.sign(np.diagonal(r))


def _write(folder: Path, weights: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    save_json(folder / CONFIG, config, sealed=False)
