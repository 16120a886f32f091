"""Changing neurons while a model runs: ablation, scaling and steering, as context managers.

A neuron's activation is ``a = act_fn(hook_pre)``, and what it hands to W_out is ``hook_post``: `a`
itself, or `a` times the linear branch in a gated MLP. Within the block, for the chosen neurons,

    ablate "zero"       a = 0                          arXiv 2505.21505, "deactivation"
    ablate "mean"       a = its mean over the counted tokens of a language, or of all
    ablate "resample"   a = its value on a random counted token of a reference corpus
    scale               a = factor * a
    steer "add"         a = a + alpha * mean in the language to steer toward
    steer "replace"     a = alpha * mean in that language
    steer "difference"  a = a + alpha * (mean in that language - mean in another, or in all others)

The linear branch of a gated MLP goes on to follow the text. Hooks live in a ``with`` and act on
everything that runs in it (``model(...)``, ``generate``, ``run_with_cache``, ``run_with_hooks``,
`collect`); blocks nest, and the inner one acts on what the outer one left. Once the block is left,
by an exception too, exactly its own hooks are gone.

>>> with ln.ablate(model, neurons["zh"]):                                # doctest: +SKIP
...     effect = ln.nll(model, corpus)

A sequence of sets in place of one gives each row of a batch a condition of its own.

What this does not show: that a behaviour breaks when neurons are removed says that they were needed
for it in this model, not that they are *for* it; compare `NeuronSet.random_control`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from lensneurons.activations.recording import ActivationDraws, record_activations
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.interventions.changes import (
    Change,
    ChangeLayer,
    Neurons,
    Positions,
    changing,
    members_by_layer,
    require_fit,
)
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.shapes import NeuronIndices, NeuronScores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lensneurons.corpora.parallel import ParallelCorpus

AblationMethod = Literal["zero", "mean", "resample"]
SteeringMethod = Literal["add", "replace", "difference"]
# What each method of `ablate` reads.
READS = {"zero": (), "mean": ("statistics", "language"), "resample": ("reference", "tokenizer")}


@contextmanager
def ablate(
    model: Any,
    neurons: Neurons,
    *,
    method: AblationMethod = "zero",
    statistics: ActivationStatistics | None = None,
    language: str | None = None,
    reference: ParallelCorpus | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    positions: Positions | None = None,
    seed: int = 0,
) -> Iterator[Any]:
    """Take the information out of neurons for as long as the block runs.

    Args:
        model: a TransformerLens model.
        neurons: a set, or one set for each row of every batch that runs in the block.
        method: what stands in for the activation: ``"zero"``, the ``"mean"`` of `statistics`, or
            ``"resample"``, the value on a random counted token of `reference` (at each position
            all neurons come from one token, so they fit each other).
        statistics: means of the activation, for ``"mean"``.
        language: whose mean; None takes the mean over all languages, each weighing the same.
        reference: texts to draw from, for ``"resample"``; they run once when the block is entered.
        tokenizer: encodes `reference`; by default the model's own, as it was saved.
        positions: where to act: a slice or indices along the position axis, or a bool mask
            [batch, pos]; None acts everywhere. Steps of a generation (passes of one position) are
            left alone where positions are given.
        seed: of the draws of ``"resample"``.

    Yields:
        The model.

    Raises:
        LensNeuronsError: neurons of another model, or `method` lacks what it needs, or is given
            what it does not read.
        ModelError: not a TransformerLens model, or its tokenizer is needed and cannot be read.
    """
    choose(method, get_args(AblationMethod), "method")
    given = {"statistics": statistics, "language": language, "reference": reference}
    _refuse_unread(method, **given, tokenizer=tokenizer)
    site = neuron_site(model)
    require_fit(neurons, site)
    if method == "zero":
        change, linear = _constant(lambda here, _: torch.zeros_like(here)), False
    elif method == "mean":
        change, linear = _set_to(_means(statistics, site, language)), site.gated
    else:
        change, linear = _draw_from(model, neurons, reference, tokenizer, seed), site.gated
    with changing(model, site, neurons, change, positions=positions, linear=linear):
        yield model


@contextmanager
def scale(
    model: Any, neurons: Neurons, factor: float, *, positions: Positions | None = None
) -> Iterator[Any]:
    """Multiply the activation of neurons for as long as the block runs.

    Args:
        model: a TransformerLens model.
        neurons: a set, or one set for each row of every batch.
        factor: 0 ablates, 1 changes nothing, 2 doubles, -1 turns the sign around.
        positions: where to act, as for `ablate`.

    Yields:
        The model.

    Raises:
        LensNeuronsError: neurons of another model, or a factor that is not finite.
    """
    site = neuron_site(model)
    require_fit(neurons, site)
    _require_finite(factor, "factor")
    change = _constant(lambda here, _: here * factor)
    with changing(model, site, neurons, change, positions=positions):
        yield model


@contextmanager
def steer(
    model: Any,
    neurons: Neurons,
    statistics: ActivationStatistics,
    *,
    toward: str,
    away_from: str | None = None,
    method: SteeringMethod = "add",
    alpha: float = 1.0,
    positions: Positions | None = None,
) -> Iterator[Any]:
    """Push neurons to where they are in a language, for as long as the block runs.

    Args:
        model: a TransformerLens model.
        neurons: a set (``neurons["zh"]``, say), or one set for each row of every batch.
        statistics: mean activations, by language.
        toward: the language to steer toward.
        away_from: for ``"difference"``, whose mean is subtracted; None takes the mean over all
            other languages, each weighing the same.
        method: ``"add"``, ``"replace"`` or ``"difference"``; see the formulas above.
        alpha: strength, in means.
        positions: where to act, as for `ablate`.

    Yields:
        The model.

    Raises:
        LensNeuronsError: neurons or statistics of another model, a language without statistics, or
            `away_from` with another method, or equal to `toward`.
    """
    choose(method, get_args(SteeringMethod), "method")
    site = neuron_site(model)
    require_fit(neurons, site)
    _require_finite(alpha, "alpha")
    values = alpha * _means(statistics, site, toward)
    if away_from is not None and method != "difference":
        raise LensNeuronsError(f"away_from={away_from!r} needs method='difference', not {method!r}")
    if away_from == toward:
        raise LensNeuronsError(f"away_from={away_from!r} is also toward=: nothing would change")
    if method == "difference":
        values = values - alpha * _mean_elsewhere(statistics, site, toward, away_from)
    change = _set_to(values) if method == "replace" else _add(values)
    with changing(model, site, neurons, change, positions=positions, linear=site.gated):
        yield model


def _refuse_unread(method: AblationMethod, **given: object) -> None:
    """Raise for what belongs to another method: who forgot method="mean" would get zeros."""
    for name, value in given.items():
        if value is not None and name not in READS[method]:
            other = next(other for other, names in READS.items() if name in names)
            raise LensNeuronsError(f"{name}= needs method={other!r}, not {method!r}")


def _constant(change: Change) -> ChangeLayer:
    """The same change in every layer."""
    return lambda layer, indices: change


def _set_to(values: NeuronScores) -> ChangeLayer:
    """Set the activation to a value, [layer, neuron]."""

    def of_layer(layer: int, indices: NeuronIndices) -> Change:
        chosen = torch.from_numpy(values[layer, indices.numpy()])
        return lambda here, linear: _times(chosen.to(here).expand_as(here), linear)

    return of_layer


def _add(values: NeuronScores) -> ChangeLayer:
    """Add a value to the activation, [layer, neuron]."""

    def of_layer(layer: int, indices: NeuronIndices) -> Change:
        chosen = torch.from_numpy(values[layer, indices.numpy()])
        return lambda here, linear: here + _times(chosen.to(here), linear)

    return of_layer


def _times(activation: torch.Tensor, linear: Any) -> torch.Tensor:
    return activation if linear is None else activation * linear


def _draw_from(
    model: Any,
    neurons: Neurons,
    reference: ParallelCorpus | None,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
) -> ChangeLayer:
    """Set the activations to those of random tokens of a reference corpus."""
    if reference is None:
        raise LensNeuronsError("method='resample' needs reference=, a corpus to draw tokens from")
    layers = {layer: members.indices for layer, members in members_by_layer(neurons).items()}
    recorded = record_activations(model, reference, layers, tokenizer=tokenizer)
    draws = ActivationDraws(recorded, seed)

    def of_layer(layer: int, indices: NeuronIndices) -> Change:
        return lambda here, linear: _times(draws.like(here, layer), linear)

    return of_layer


def _means(
    statistics: ActivationStatistics | None, site: NeuronSite, language: str | None
) -> NeuronScores:
    """Mean activation float64 [layer, neuron], in a language or over all."""
    if statistics is None:
        raise LensNeuronsError("method='mean' needs statistics=, what collect() gives")
    if (statistics.n_layers, statistics.d_mlp) != (site.n_layers, site.d_mlp):
        raise LensNeuronsError(
            f"statistics of {statistics.n_layers} layers x {statistics.d_mlp} neurons do not "
            f"belong to a model of {site.n_layers} x {site.d_mlp}"
        )
    if language is None:
        return statistics.mean.mean(axis=-1)
    choose(language, statistics.languages, "language")
    return statistics.mean[..., statistics.languages.index(language)]


def _mean_elsewhere(
    statistics: ActivationStatistics, site: NeuronSite, toward: str, away_from: str | None
) -> NeuronScores:
    """Mean activation in the language to steer away from, or over all others."""
    if away_from is not None:
        return _means(statistics, site, away_from)
    others = [language for language in statistics.languages if language != toward]
    if not others:
        raise LensNeuronsError("method='difference' needs statistics of a second language")
    return statistics.select(others).mean.mean(axis=-1)


def _require_finite(value: float, name: str) -> None:
    if not np.isfinite(value):
        raise LensNeuronsError(f"{name}={value}: give a finite number")
