"""Planted worlds for `compare` and `claims` that were made after the code, to be read once.

They share nothing with tests/support/comparison_worlds.py: probabilities are logistic-normal in
place of beta, a change of activity is a shift of logits that differs between languages, noise has
heavy tails, texts move neurons otherwise, and each world has languages, layers and groups of its
own. The second model does what the name of the world says, always with noise on every logit
(Student's t with four degrees of freedom):

    aligned     a quarter of the trained languages' neurons draw each untouched language, by half
                or more of the way; firing rises a little as well
    not         the trained languages move toward the pivot in as many neurons; untouched ones do
                not; firing rises a little as well
    busier      logits rise by 0.1 to 0.4, by layer, and by up to 0.1 more in some languages
    traded      an untouched language's probabilities are dealt anew among a tenth of the neurons of
                a layer, the highest to those that fire most in the trained languages: sharing
                without any activity
    unchanged   the second model is the first, without noise
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics

NAMES = ("en", "zh", "de", "sw", "th", "fr", "ru", "ja", "es", "bn", "ko", "vi")


@dataclass(frozen=True)
class Shape:
    """Size of a world: languages, trained ones among them, layers, neurons, groups, noise."""

    languages: int
    trained: int
    layers: int
    neurons: int
    groups: int
    noise: float

    @property
    def names(self) -> tuple[str, ...]:
        """Codes of its languages; the first is the pivot, the next are the trained ones."""
        return NAMES[: self.languages]


WORLDS = {
    "aligned": Shape(6, 1, 6, 700, 12, 0.15),
    "not": Shape(10, 3, 12, 350, 8, 0.2),
    "busier": Shape(12, 2, 6, 500, 15, 0.25),
    "traded": Shape(7, 2, 5, 900, 8, 0.1),
    "unchanged": Shape(5, 1, 16, 300, 6, 0.0),
}


def draw(
    world: str, random: np.random.Generator
) -> tuple[ActivationStatistics, ActivationStatistics]:
    """What both models of a world do with the same groups of texts."""
    shape = WORLDS[world]
    size = (shape.layers, shape.neurons, shape.languages)
    busy = random.normal(-2.2, 1.3, (*size[:2], 1)) + random.normal(0, 0.3, (shape.layers, 1, 1))
    before = busy + 1.1 * random.normal(size=size)
    after = before.copy()
    trained = slice(1, 1 + shape.trained)
    of_trained = before[..., trained].max(axis=-1)
    high = of_trained > np.quantile(before, 0.95)
    untouched = range(1 + shape.trained, shape.languages)
    if world == "aligned":
        for language in untouched:
            _draw_near(after[..., language], of_trained, high, random)
    if world == "not":
        for language in range(1, 1 + shape.trained):
            pivot = before[..., 0]
            _draw_near(after[..., language], pivot, pivot > np.quantile(before, 0.95), random)
    if world in ("aligned", "not"):
        after += 0.1
    if world == "busier":
        after += random.uniform(0.1, 0.4, (shape.layers, 1, 1))
        after += random.uniform(0.0, 0.1, shape.languages)
    if world == "traded":
        for layer in range(shape.layers):
            for language in untouched:
                some = random.permutation(shape.neurons)[: shape.neurons // 10]
                order = some[np.argsort(of_trained[layer, some])]
                after[layer, order, language] = np.sort(before[layer, some, language])
    after += shape.noise * random.standard_t(4, size)
    # The topics of a group move a neuron in both models alike.
    lengths = random.integers(100, 900, (shape.groups, shape.languages))
    topics = 0.3 * random.standard_t(5, (shape.groups, *size))
    pair = []
    for logits in (before, after):
        moved = logits + topics + random.normal(0, 0.1, topics.shape)
        counts = random.binomial(lengths[:, None, None, :], 1 / (1 + np.exp(-moved)))
        one = (shape.names, counts.astype(np.int64), lengths.astype(np.int64))
        pair.append(ActivationStatistics(*one))
    return pair[0], pair[1]


def _draw_near(
    language: np.ndarray, toward: np.ndarray, where: np.ndarray, random: np.random.Generator
) -> None:
    """Move a quarter of the neurons of a mask at least half of the way up to another language."""
    chosen = where & (random.random(where.shape) < 0.25)
    way = random.uniform(0.5, 1.0, where.shape)
    moved = language + way * np.maximum(toward - language, 0)
    language[chosen] = moved[chosen]
