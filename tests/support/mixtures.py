"""Mixtures of experts by hand: routing, neurons inside experts, and columns that are multiplied.

Plain Hugging Face forwards of one text at a time; of the code under test only sets are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tiny
import torch
from oracle import encode_by_hand
from torch.nn import functional
from transformers import AutoTokenizer


def count_routing(
    folder: Any, architecture: str, corpus: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts and weights [layer, expert, language] and tokens, one text at a time, eager."""
    plain = tiny.load_plain(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    languages = list(corpus.languages)
    layers = [dict(one.named_modules()) for one in plain.model.layers]
    seen = {}
    for layer, modules in enumerate(layers):
        if tiny.ROUTERS[architecture] in modules:
            modules[tiny.ROUTERS[architecture]].register_forward_hook(
                lambda module, given, out, layer=layer: seen.update({layer: out})
            )
    number, tokens = None, np.zeros(len(languages), int)
    for item in corpus:
        ids, where = encode_by_hand(tokenizer, item, "response")
        with torch.no_grad():
            plain(torch.tensor([ids]))
        k = languages.index(item.language)
        tokens[k] += len(where)
        if number is None:
            number = next(iter(seen.values()))[0].shape[-1]
            counts = np.zeros((len(layers), number, len(languages)), int)
            weights = np.zeros(counts.shape)
        for layer, (_, given, chosen) in seen.items():
            for place in where:
                for expert, weight in zip(chosen[place], given[place], strict=True):
                    counts[layer, expert, k] += 1
                    weights[layer, expert, k] += float(weight)
    return counts, weights, tokens


def gates(module: Any, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[expert, width, d_model] and [expert, width]: the rows of the gate and their biases."""
    both, bias = module.gate_up_proj.detach(), torch.zeros(number, 1)
    if hasattr(module, "gate_up_proj_bias"):  # GPT-OSS: the other way round, gate and up in turns
        return both.transpose(1, 2)[:, ::2], module.gate_up_proj_bias.detach()[:, ::2]
    return both[:, : both.shape[1] // 2], bias


def act(architecture: str, pre: torch.Tensor) -> torch.Tensor:
    """The activation function inside the experts of a family."""
    if architecture == "GptOss":
        return pre.clamp(max=7.0) * torch.sigmoid(1.702 * pre.clamp(max=7.0))
    if "Gemma" in architecture:
        return functional.gelu(pre, approximate="tanh")
    return functional.silu(pre)


def count_inside(
    folder: Any, architecture: str, corpus: Any
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Counts and sums [layer, expert, neuron, language] inside routed experts, eager, one text at a
    time, tokens routed [layer, expert, language], and the same of the shared MLP."""
    plain = tiny.load_plain(folder, attn_implementation="eager")
    tokenizer, languages = AutoTokenizer.from_pretrained(folder), list(corpus.languages)
    read, chosen, found, margin = {}, {}, {}, []
    for layer, block in enumerate(plain.model.layers):
        modules = dict(block.named_modules())
        if tiny.ROUTERS[architecture] not in modules:
            continue
        inside = modules[tiny.EXPERT_MODULES[architecture]]
        modules[tiny.ROUTERS[architecture]].register_forward_hook(
            lambda module, given, out, layer=layer: chosen.update({layer: out[2]})
        )
        inside.register_forward_pre_hook(
            lambda module, given, layer=layer: read.update({(layer, "routed"): given[0]})
        )
        weight, bias = gates(inside, len(inside.down_proj))
        found[layer, "routed"] = weight, bias
        if architecture in tiny.SHARED_MLPS:
            beside = modules[tiny.SHARED_MLPS[architecture]]
            beside.register_forward_pre_hook(
                lambda module, given, layer=layer: read.update({(layer, "shared"): given[0]})
            )
            found[layer, "shared"] = beside.gate_proj.weight.detach()[None], torch.zeros(1, 1)
    counts, sums = {}, {}
    for kind in ("routed", "shared") if architecture in tiny.SHARED_MLPS else ("routed",):
        shape = next(weight.shape[:2] for (_, own), (weight, _) in found.items() if own == kind)
        counts[kind] = np.zeros((tiny.LAYERS, *shape, len(languages)), int)
        sums[kind] = np.zeros(counts[kind].shape)
    routed = np.zeros((tiny.LAYERS, counts["routed"].shape[1], len(languages)), int)
    for item in corpus:
        ids, where = encode_by_hand(tokenizer, item, "response")
        with torch.no_grad():
            plain(torch.tensor([ids]))
        k = languages.index(item.language)
        for (layer, kind), (weight, bias) in found.items():
            x = read[layer, kind].reshape(len(ids), -1)
            for place in where:
                experts = chosen[layer][place].tolist() if kind == "routed" else [0]
                for expert in experts:
                    pre = weight[expert] @ x[place] + bias[expert]
                    margin.append(float(pre.abs().min()))
                    counts[kind][layer, expert, :, k] += (pre > 0).numpy()
                    sums[kind][layer, expert, :, k] += act(architecture, pre).double().numpy()
                    if kind == "routed":
                        routed[layer, expert, k] += 1
    assert min(margin) > 2e-6  # else the order of additions would decide
    return counts, sums, routed


@torch.no_grad()
def multiplied(folder: Any, architecture: str, neurons: Any, factor: float = 0.0) -> Any:
    """A plain model whose experts read the chosen neurons times a factor: columns of down_proj."""
    plain = tiny.load_plain(folder, attn_implementation="eager")
    for layer, own in neurons.by_layer().items():
        block = plain.model.layers[layer]
        if neurons.n_experts is None:
            shared = block.get_submodule(tiny.SHARED_MLPS[architecture])
            shared.down_proj.weight[:, own] *= factor
            continue
        inside = block.get_submodule(tiny.EXPERT_MODULES[architecture])
        width = neurons.d_mlp // neurons.n_experts
        for expert, place in zip(own // width, own % width, strict=True):
            if architecture == "GptOss":  # [expert, width, d_model]
                inside.down_proj[expert, place] *= factor
            else:
                inside.down_proj[expert, :, place] *= factor
    return plain
