"""The planted model whose last layer writes: effects, gradients and attributions in closed form.

Only the last layer of `planted` has a down projection: neuron j adds ``h_j * size_j`` to one empty
dimension of the stream, from which the unembedding raises words of one language. On a token t

    h_j(t)     act(+-a) * a                          + where j fires on t
    x(t)       e_t, and in each empty dimension the sum of what the neurons of the layer add
    logits(t)  U x(t) / sqrt(mean of x(t)^2 + eps)

so everything is a function of the gains g of the layer's neurons (1 each in the model as it is):
``mean_nll`` computes it in float64, and derivatives are central differences of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import torch

from lensneurons.corpora.corpus import ParallelCorpus, build_corpus

LAST = len(planted.PROFILE) - 1
WORDS = len(planted.VOCABULARY)
LANGUAGES = planted.LANGUAGES
STRENGTH = 0.3  # of the unembedding, at the words of the language that a dimension raises


def sizes() -> np.ndarray:
    """float64 [neuron]: how much each neuron writes; all different, a few negative."""
    random = np.random.default_rng(5)
    found = random.permutation(np.linspace(0.002, 0.03, planted.D_MLP))
    found[::7] *= -1
    return found


def unembedding() -> np.ndarray:
    """float64 [word, dimension]: the identity, and the empty dimensions."""
    found = np.eye(WORDS, planted.D_MODEL)
    for k, language in enumerate(LANGUAGES):
        own = [word.startswith(language) for word in planted.VOCABULARY]
        found[own, WORDS + k] = STRENGTH * np.linspace(1.5, 0.5, sum(own))  # most: frequent ones
    return found


def dimension(neuron: int) -> int:
    """The empty dimension that a neuron of the last layer writes to."""
    return WORDS + neuron % len(LANGUAGES)


def save_model(folder: Path, write: np.ndarray, *, always: bool = False) -> Path:
    """Save the planted model with a last layer that writes, and return its folder.

    With `always` every neuron of that layer fires on every token.
    """
    from transformers import LlamaForCausalLM

    planted.save_model(folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.from_numpy(unembedding()))
        mlp = model.model.layers[LAST].mlp
        for neuron, size in enumerate(write):
            mlp.down_proj.weight[dimension(neuron), neuron] = size
        if always:
            mlp.gate_proj.weight[:, :WORDS] = 1.0
    model.save_pretrained(folder)
    return folder


def corpus(items: int) -> ParallelCorpus:
    """The first items of the planted corpus."""
    rows: list[dict[str, Any]] = [
        {"id": f"{n}", "language": k, "prompt": prompt, "response": response}
        for k in LANGUAGES
        for n, (prompt, response) in enumerate(planted.texts()[k][:items])
    ]
    return build_corpus(rows)


def activations(token: str) -> np.ndarray:
    """float64 [neuron]: h of the last layer on a token."""
    a = planted.stretch()
    fires = np.array([token in neuron.fires_on for neuron in planted.neurons()[LAST]])
    pre = np.where(fires, a, -a)
    return pre / (1 + np.exp(-pre)) * a


def words(text: str) -> list[str]:
    """The tokens of a text."""
    return text.split()


Gains = Callable[[bool], np.ndarray]


def mean_nll(language: str, items: int, write: np.ndarray, gains: Gains) -> float:
    """Mean NLL of the responses of a language, in nats a token.

    ``gains(counted)`` are the factors of h [neuron] on a token of the response, or of the prompt.
    """
    read, total, n = unembedding(), 0.0, 0
    for prompt, response in planted.texts()[language][:items]:
        tokens = words(prompt) + words(response)
        begins = len(words(prompt))
        for place in range(max(begins, 1), len(tokens)):
            x = stream(tokens[place - 1], write, gains(place - 1 >= begins))
            logits = read @ x / np.sqrt(np.mean(x**2) + planted.EPS)
            total += np.log(np.exp(logits).sum()) - logits[planted.VOCABULARY.index(tokens[place])]
            n += 1
    return total / n


def stream(token: str, write: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """float64 [dimension]: the stream before the final norm."""
    x = np.zeros(planted.D_MODEL)
    x[planted.VOCABULARY.index(token)] = 1
    for neuron, added in enumerate(activations(token) * gain * write):
        x[dimension(neuron)] += added
    return x
