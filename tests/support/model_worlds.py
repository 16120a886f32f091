"""Planted models for `model_claims`: what holds of them is known, and the code is not told.

A model has ten languages, and layers of neurons whose classes follow the profile of the published
Mistral-7B. Five features of the paper are there or not, each apart:

    layers    the profile in its own order; else every class has its layers shuffled
    floor     N = K is common; else as many neurons have N = K - 1
    removal   sets harm as in the paper; else every set is one more of the random ones
    english   English owns few neurons, and joins those of many languages; else it is like others
    scripts   languages of one script join each other's neurons, and are harmed by their removal

An active neuron fires on 40 to 95 % of tokens, an inactive one on less than 40 % (`TAU`); groups of
texts move each neuron in each language.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from layer_profiles import interpolated
from own_effects import of_neurons

import lensneurons as ln
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.languages.codes import scripts

LANGUAGES = ("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw")
FEATURES = ("layers", "floor", "removal", "english", "scripts")
TAU = 0.4
SAME = np.array([[bool(scripts(a) & scripts(b)) for b in LANGUAGES] for a in LANGUAGES])


def planted(random, features, *, n_layers=20, d_mlp=500, groups=10, items=20):
    """Statistics, neurons, and an ablation matrix of a model with some features."""
    above = memberships(random, features, n_layers, d_mlp)
    statistics = read(random, above, groups)
    neurons = ln.identify(statistics, tau=TAU, top_rate=0.04)
    return statistics, neurons, matrix(random, features, neurons, items)


def memberships(random, features, n_layers, d_mlp):
    """bool [layer, neuron, language]: in which languages every neuron is active."""
    profile = interpolated(n_layers) * d_mlp / 14336 * 1.5
    profile = random.poisson(profile * np.exp(0.1 * random.normal(size=profile.shape)))
    if "layers" not in features:
        profile = np.stack([random.permutation(column) for column in profile.T], axis=1)
    above = np.zeros((n_layers, d_mlp, len(LANGUAGES)), bool)
    for layer, (specific, related, agnostic) in enumerate(profile):
        numbers = random.choice(np.arange(2, 9), related, p=np.arange(7, 0, -1) / 28)
        last = agnostic if "floor" in features else -(-agnostic // 2)
        numbers = [*[1] * specific, *numbers, *[10] * last, *[9] * (agnostic - last)]
        for neuron, n in enumerate(numbers[:d_mlp]):
            above[layer, neuron, members(random, features, n)] = True
    return above


def members(random, features, n):
    """Which n languages a neuron is active in."""
    weights = np.ones(len(LANGUAGES))
    if "english" in features:
        weights[0] = 0.15 if n == 1 else 0.1 * n
    chosen = [random.choice(len(LANGUAGES), p=weights / weights.sum())]
    while len(chosen) < n:
        near = weights * (np.where(SAME[chosen[0]], 8, 1) if "scripts" in features else 1)
        near[chosen] = 0
        chosen.append(random.choice(len(LANGUAGES), p=near / near.sum()))
    return chosen


def read(random, above, groups):
    """What `collect` would count of a model on groups of texts."""
    high = TAU + 0.55 * random.beta(2, 2, above.shape)
    p = np.where(above, high, TAU * random.beta(1, 4, above.shape))
    logit = np.log(p / (1 - p)) + 0.2 * random.normal(size=(groups, *above.shape))
    tokens = random.integers(300, 900, (groups, len(LANGUAGES)))
    counts = random.binomial(tokens[:, None, None], 1 / (1 + np.exp(-logit)))
    return ActivationStatistics(LANGUAGES, counts.astype(np.int64), tokens.astype(np.int64))


def matrix(random, features, neurons, items):
    """An ablation matrix of the three settings; every item meets random sets of its own."""
    k = len(LANGUAGES)
    own = np.eye(k, dtype=bool)

    def set_of(*shape):  # what random sets do: to all languages, and to each
        return 0.03 * random.normal(size=(3, k, *shape, 1)) + 0.03 * random.normal(
            size=(3, k, *shape, k)
        )

    harm = set_of()
    if "removal" in features:
        near = SAME & ~own if "scripts" in features else np.zeros_like(own)
        diagonal = np.where(np.arange(k) == 0, 0.2 if "english" in features else 1.0, 1.0)
        related = np.where(own, diagonal[:, None], np.where(near, 0.2, 0.05))
        harm += np.stack([np.where(own, 0.1, 0.0), related, related + 0.6])
    strength = random.gamma(4, 1 / 4, (items, 1))  # some items are easier to harm
    noise = 0.1 * random.normal(size=(2, 3, k, items, k))
    effect = harm[:, :, None] * strength + noise[0]
    control = set_of(items) * strength + noise[1]
    tokens = random.integers(20, 60, (items, k)).astype(float)
    return AblationMatrix(
        rows=LANGUAGES,
        languages=LANGUAGES,
        classes=("specific", "related", "agnostic"),
        matches=("own",),
        metric="nll",
        base=(2 * tokens).ravel(),
        effect=(effect * tokens).reshape(3, k, -1),
        control=(control * tokens).reshape(1, 3, k, -1),
        weight=tokens.ravel(),
        language=np.tile(np.arange(k), items),
        item_ids=tuple(f"i{item}" for item, _ in product(range(items), range(k))),
        draws=items,
        **of_neurons(neurons, ("specific", "related", "agnostic"), 2),
    )


def feature_of(claim):
    """Which feature a claim is about; one that needs two names both."""
    if "random sets" in claim or "alone" in claim or "adding agnostic" in claim:
        return ("removal",)
    if "its neurons harms English" in claim:
        return ("removal", "english")
    if "neurons harms others of its script" in claim:
        return ("removal", "scripts")
    if "English" in claim:
        return ("english",)
    if "script" in claim:
        return ("scripts",)
    return ("floor",) if "N =" in claim else ("layers",)


def false_holds(claims, features):
    """The claims that hold in a model without what they are about."""
    return [
        row.claim
        for row in claims
        if row.verdict == "holds" and not set(feature_of(row.claim)) <= set(features)
    ]
