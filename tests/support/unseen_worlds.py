"""Planted worlds made after the null of an equal rise was changed to a median shift; read once.

They share no numbers with tests/support/comparison_worlds.py, which the null was chosen by, nor
with tests/support/holdout_worlds.py, which had shown the fault of the one before. A layer has a
level, a spread and a part of the change of its own; the rates of its neurons have heavy tails
(Student's t on logits), and in some layers two humps. The second model does what the name says:

    both        an eighth of the trained languages' neurons draw each untouched language, and all
                firing rises, by 0 to 0.5 logits, in some layers much and in some not at all
    sharing     an untouched language joins neurons of the trained ones and leaves as many that they
                do not have: sharing, and no activity
    joins       it joins them, and leaves none: sharing that raises firing by itself
    activity    firing rises as in "both", without sharing; odds are multiplied
    factors     the same, but rates are multiplied, by 1.05 to 1.4
    gifted      in some layers one neuron in six rises by about a logit in all languages: activity
                that few neurons have, the same to every language
    drift       noise (Laplace) on every logit, a third of its variance common to the languages
    none        the second model is the first
"""

from __future__ import annotations

import numpy as np
from holdout_worlds import Shape

from lensneurons.activations.statistics import ActivationStatistics

WORLDS = {
    "both": Shape(8, 2, 10, 450, 10, 0.12),
    "sharing": Shape(9, 2, 7, 600, 12, 0.12),
    "joins": Shape(7, 1, 9, 500, 8, 0.2),
    "activity": Shape(9, 3, 7, 550, 10, 0.12),
    "factors": Shape(6, 2, 12, 400, 14, 0.15),
    "gifted": Shape(8, 2, 8, 500, 10, 0.1),
    "drift": Shape(11, 3, 6, 600, 9, 0.35),
    "none": Shape(6, 1, 14, 300, 7, 0.0),
}


def draw(
    world: str, random: np.random.Generator
) -> tuple[ActivationStatistics, ActivationStatistics]:
    """What both models of a world do with the same groups of texts."""
    shape = WORLDS[world]
    size = (shape.layers, shape.neurons, shape.languages)
    before = draw_truth(random, size)
    after = _changed(world, shape, random, before)
    return read(shape, random, before, add_noise(shape, random, after))


def add_noise(shape: Shape, random: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """Laplace noise with a variance of `noise` squared, of which a third is common."""
    size, noise = logits.shape, 2**-0.5 * shape.noise
    logits = logits + noise * (1 / 3) ** 0.5 * random.laplace(size=(*size[:2], 1))
    return logits + noise * (2 / 3) ** 0.5 * random.laplace(size=size)


def read(
    shape: Shape, random: np.random.Generator, before: np.ndarray, after: np.ndarray
) -> tuple[ActivationStatistics, ActivationStatistics]:
    """What two models with these logits do with the same groups of texts."""
    size = before.shape
    lengths = random.integers(150, 700, (shape.groups, shape.languages))
    topics = 0.25 * random.laplace(size=(shape.groups, *size))
    pair = []
    for logits in (before, after):
        moved = logits + topics + random.normal(0, 0.12, topics.shape)
        counts = random.binomial(lengths[:, None, None, :], _expit(moved))
        pair.append(ActivationStatistics(shape.names, counts.astype(np.int64), lengths))
    return pair[0], pair[1]


def draw_truth(random: np.random.Generator, size: tuple[int, int, int]) -> np.ndarray:
    """Logits [layer, neuron, language], of layers that are unlike one another."""
    layers = (size[0], 1, 1)
    level, spread = random.uniform(-3.2, -1.6, layers), random.uniform(0.6, 1.3, layers)
    busy = level + spread * random.standard_t(4, (*size[:2], 1))
    # Two humps: in about half of the layers a tenth of the neurons stand two logits higher.
    busy += 2.0 * (random.random(layers) < 0.5) * (random.random((*size[:2], 1)) < 0.1)
    own = random.uniform(0.5, 1.1, layers) * random.standard_t(5, size)
    return np.clip(busy + own, -9.0, 5.0)


def _changed(
    world: str, shape: Shape, random: np.random.Generator, before: np.ndarray
) -> np.ndarray:
    """The logits of the model after, without noise."""
    layers = (shape.layers, 1, 1)
    rise = random.choice([0.0, 0.15, 0.3, 0.5], layers)
    if world == "activity":
        return before + rise
    if world == "factors":
        p = _expit(before) * random.uniform(1.05, 1.4, layers)
        return _logit(np.minimum(p, 0.98))
    if world == "gifted":
        some = random.random((*before.shape[:2], 1)) < random.choice([0.0, 1 / 6], layers)
        return before + some * random.uniform(0.5, 1.5, some.shape)
    if world not in ("both", "sharing", "joins"):
        return before
    after, bar = before.copy(), np.quantile(before, 0.95)
    own = before[..., 1 : 1 + shape.trained].max(axis=-1)
    for language in range(1 + shape.trained, shape.languages):
        theirs = after[..., language]
        joins = (own > bar) & (theirs < bar) & (random.random(own.shape) < 1 / 8)
        leaves = np.argwhere((own < bar) & (theirs > bar))
        joined = np.argwhere(joins)
        if world == "sharing":
            n = min(len(joined), len(leaves))
            joined, leaves = random.permutation(joined)[:n].T, random.permutation(leaves)[:n].T
            theirs[tuple(joined)], theirs[tuple(leaves)] = (
                theirs[tuple(leaves)].copy(),
                theirs[tuple(joined)].copy(),
            )
        else:
            theirs[joins] += random.uniform(0.6, 1.0, joins.sum()) * (own - theirs)[joins]
    return after + rise if world == "both" else after


def _expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))
