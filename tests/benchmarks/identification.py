"""Identification against the published search: a loop over neurons for each of ten lambdas."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from real_data import find_data
from timing import take_turns, told

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.neurons.identification import identify
from lensneurons.neurons.published import read_published_counts

SAMPLE, LAMBDAS = 4000, 10


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    statistics, source = _statistics()
    _ = statistics.probability
    ours = take_turns(rounds, time.process_time, ours=lambda: _identify_all(statistics))["ours"]
    flat = torch.tensor(statistics.probability.reshape(-1, len(statistics.languages))).float()
    sample = flat[torch.linspace(0, len(flat) - 1, SAMPLE).long()]
    loops = take_turns(
        min(rounds, 3), time.process_time, loop=lambda: _published_pass(sample, 0.1)
    )["loop"]
    published = np.median(loops) * len(flat) / SAMPLE * LAMBDAS
    yield f"{source}: {len(flat):,} neurons, {len(statistics.languages)} languages"
    yield told("identify, lambda exact, all classified", ours, "CPU s", 3)
    loop = f"published loop, {LAMBDAS} lambdas, scaled from {SAMPLE} neurons"
    yield told(loop, loops * len(flat) / SAMPLE * LAMBDAS, "CPU s", 0)
    yield told("the published loop, through identify", published / ours, "times", 0)


def _identify_all(statistics: ActivationStatistics) -> None:
    neurons = identify(statistics)
    _ = neurons.class_codes, neurons.specific, neurons.related, neurons.agnostic


def _published_pass(probabilities: torch.Tensor, weight: float) -> torch.Tensor:
    """One lambda as the published search does it: small tensors, one neuron after another."""
    k = probabilities.shape[1]
    unit = sum(1 / i for i in range(1, k + 1)) / k
    scores = torch.zeros(len(probabilities))
    for neuron in range(len(probabilities)):
        p = probabilities[neuron, :]
        total = p.sum()
        share = torch.full_like(p, 1 / k) if total <= 0 else p / total
        share = share.clamp_min(1e-12)
        share = share / share.sum()
        entropy = float(-(share * (share + 1e-30).log()).sum().item()) / np.log(k)
        scores[neuron] = entropy - weight * probabilities[neuron, :].max().item() / unit
    return scores


def _statistics() -> tuple[ActivationStatistics, str]:
    folder = find_data("mistral_mgsm")
    if folder is not None:
        return read_published_counts(folder), "published Mistral-7B counts on MGSM"
    counts = np.random.default_rng(0).binomial(1000, 0.2, (1, 32, 14336, 10)).astype(np.int64)
    tokens = np.full((1, 10), 1000, np.int64)
    return ActivationStatistics(tuple("abcdefghij"), counts, tokens), "random counts"
