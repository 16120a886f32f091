"""The counts of a model by the shortest way that can be checked by eye: one text at a time.

A plain Hugging Face forward of a single text, without batch, padding or mask; PyTorch hooks on the
modules that `tiny.first_matrix` names; counted tokens found from the bytes of the pieces. Nothing
here is imported from the code under test but the corpus that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tiny import first_matrix, load_plain
from torch.nn import functional
from transformers import AutoTokenizer

ACTIVATIONS = {
    **dict.fromkeys(
        ("Gemma2", "Gemma3", "GPT2", "Bloom", "Phi", "GPTJ"),
        partial(functional.gelu, approximate="tanh"),
    ),
    **dict.fromkeys(("GPTNeoX", "Falcon", "XGLM"), functional.gelu),
    "OPT": functional.relu,
}


@dataclass
class OracleCounts:
    """Totals [layer, neuron, language], tokens [language], and the smallest |pre| that was seen."""

    counts: np.ndarray
    tokens: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    margin: float


def count_by_hand(
    folder: Any, architecture: str, items: Iterable[Any], *, scope: str = "response", **options: Any
) -> OracleCounts:
    """Count every neuron of a saved model over the items of a corpus."""
    model = load_plain(folder, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    items = list(items)
    languages = list(dict.fromkeys(item.language for item in items))
    texts = [encode_by_hand(tokenizer, item, scope) for item in items]
    activation = activation_by_hand(model, architecture)
    seen = [pre_of(model, architecture, ids)[:, where] for ids, where in texts]
    totals: dict[str, list[Any]] = {"counts": [], "sums": [], "squares": [], "tokens": []}
    for language in languages:
        own = [item.language == language for item in items]
        pre = torch.cat([pre for pre, mine in zip(seen, own, strict=True) if mine], dim=1)
        values = activation(pre).double()
        totals["counts"].append(((values if architecture == "Apertus" else pre) > 0).sum(1).numpy())
        totals["tokens"].append(pre.shape[1])
        totals["sums"].append(values.sum(1).numpy())
        totals["squares"].append(values.square().sum(1).numpy())
    margin = min(
        float((activation(pre) if architecture == "Apertus" else pre).abs().min()) for pre in seen
    )
    return OracleCounts(margin=margin, **{name: np.stack(totals[name], -1) for name in totals})


def activation_by_hand(model: Any, architecture: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation function of [layer, pos, neuron] values.

    xIELU (arXiv 2411.13010) has two learned numbers a layer: alpha_p x^2 + x / 2 above 0, and
    alpha_n (e^x - 1 - x) + x / 2 below.
    """
    if architecture != "Apertus":
        return ACTIVATIONS.get(architecture, functional.silu)
    learned = [layer.mlp.act_fn for layer in model.model.layers]
    above, below = (
        np.log1p(np.exp([getattr(act, name).item() for act in learned]))[:, None, None]
        for name in ("alpha_p", "alpha_n")
    )

    def xielu(pre: torch.Tensor) -> torch.Tensor:
        x = pre.double().numpy()
        low = np.minimum(x, 0)
        positive = above * x**2 + x / 2
        return torch.from_numpy(
            np.where(x > 0, positive, (0.5 + below) * (np.expm1(low) - low) + x / 2)
        )

    return xielu


def pre_of(model: Any, architecture: str, ids: list[int], **options: Any) -> torch.Tensor:
    """The activation's argument [layer, pos, neuron] of one text; options go to the model."""
    seen: list[torch.Tensor] = []

    def hook(read: Any) -> Any:
        return lambda module, inputs, out: seen.append(read(out).reshape(len(ids), -1))

    matrices = first_matrix(model, architecture)
    handles = [module.register_forward_hook(hook(read)) for module, read in matrices]
    try:
        with torch.no_grad():
            model(torch.tensor([ids]), **options)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(seen)


def encode_by_hand(tokenizer: Any, item: Any, scope: str) -> tuple[list[int], list[int]]:
    """Ids of prompt and response together, and the positions that count.

    One character of a byte-level piece is one byte of the text, so a piece ends where the lengths
    before it end; it belongs to the response if it ends behind the prompt's last byte.
    """
    ids = tokenizer(item.prompt + item.response)["input_ids"]
    where, end = [], 0
    for place, piece in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        if piece in tokenizer.all_special_tokens:
            continue
        end += len(piece)
        in_response = end > len(item.prompt.encode())
        if scope == "all" or in_response == (scope == "response"):
            where.append(place)
    assert end == len((item.prompt + item.response).encode())
    return ids, where


def wilson_by_hand(right, n):
    """Wilson 1927: the shares p whose own standard error reaches the found one."""
    z = 1.959963984540054
    share, scale = right / n, 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / scale
    reach = z / scale * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - reach, middle + reach
