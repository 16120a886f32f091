"""Planted worlds made after "gifted" neurons were seen to pass for alignment; read once.

"Gifted" (tests/support/unseen_worlds.py) had shown that related neurons rise beyond the nulls of
then where some neurons fire more in all languages alike. These kinds were written before the null
that answers it had judged any world. Layers, rates and texts are drawn as there. The second model:

    tail        every neuron rises in all languages by a number of its own with a long tail
                (log-normal, median 0.15 logits): no two groups of neurons, and no threshold
    layer       in one layer alone half of the neurons rise by 0.4 to 1.6 logits in all languages
    half        one neuron in five of some layers rises in a random half of the languages, blind to
                which were trained
    richer      one neuron in six is gifted, and an eighth of the trained languages' neurons draw
                each untouched language: sharing must be found beside the gift
    together    an eighth of the trained languages' neurons draw *all* untouched languages at once:
                the change that is most like a gift, though the trained languages do not rise

"Tail", "layer" and "half" have no sharing; "richer" and "together" have.
"""

from __future__ import annotations

import numpy as np
from holdout_worlds import Shape
from unseen_worlds import add_noise, draw_truth, read

from lensneurons.activations.statistics import ActivationStatistics

WORLDS = {
    "tail": Shape(9, 2, 8, 500, 10, 0.15),
    "layer": Shape(7, 2, 9, 450, 12, 0.12),
    "half": Shape(10, 3, 7, 500, 8, 0.1),
    "richer": Shape(8, 3, 8, 500, 10, 0.1),
    "together": Shape(9, 2, 8, 500, 9, 0.12),
}


def draw(
    world: str, random: np.random.Generator
) -> tuple[ActivationStatistics, ActivationStatistics]:
    """What both models of a world do with the same groups of texts."""
    shape = WORLDS[world]
    before = draw_truth(random, (shape.layers, shape.neurons, shape.languages))
    after = add_noise(shape, random, _changed(world, shape, random, before))
    return read(shape, random, before, after)


def _changed(
    world: str, shape: Shape, random: np.random.Generator, before: np.ndarray
) -> np.ndarray:
    """The logits of the model after, without noise."""
    each = (*before.shape[:2], 1)
    if world == "tail":
        return before + 0.15 * np.exp(0.9 * random.standard_normal(each))
    if world == "layer":
        here = (np.arange(shape.layers) == random.integers(shape.layers))[:, None, None]
        return before + (here & (random.random(each) < 1 / 2)) * random.uniform(0.4, 1.6, each)
    if world == "half":
        some = random.random(each) < random.choice([0.0, 1 / 5], (shape.layers, 1, 1))
        where = random.permuted(np.indices(before.shape)[2] % 2 == 0, axis=2)
        return before + (some & where) * random.uniform(0.5, 1.5, each)
    after, bar = before.copy(), np.quantile(before, 0.95)
    own = before[..., 1 : 1 + shape.trained].max(axis=-1)
    chosen = (own > bar) & (random.random(own.shape) < 1 / 8)
    for language in range(1 + shape.trained, shape.languages):
        theirs = after[..., language]
        if world == "richer":
            chosen = (own > bar) & (random.random(own.shape) < 1 / 8)
        joins = chosen & (theirs < bar)
        theirs[joins] += random.uniform(0.6, 1.0, joins.sum()) * (own - theirs)[joins]
    if world == "together":
        return after
    return after + (random.random(each) < 1 / 6) * random.uniform(0.5, 1.5, each)
