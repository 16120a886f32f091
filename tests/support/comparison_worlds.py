"""Planted worlds for `compare` and `claims`: what alignment did is known, and the code is not told.

A world is 8 languages and some layers of neurons whose activation probabilities follow a beta
distribution, as those of real models do: most fire rarely, some in one language, few in all.
The second model does to them what the name of the world says:

    alignment     untouched languages join neurons of the trained ones, without leaving others
    trained only  the trained languages join neurons of the pivot; nothing else happens
    activity      every probability is multiplied by its layer's factor, 1.10 to 1.22
    exchange      untouched languages join neurons of the trained ones and leave as many others, so
                  every language fires exactly as often as before
    drift         independent noise of 0.4 on the logit of every probability
    common drift  the same, half of its variance common to all languages of a neuron
    both          activity and drift
    nothing       the second model is the first

Both models read ten groups of texts: a group moves a neuron in both alike (its topics), and each
model anew (what sampling and the change of the wording would do).
"""

from __future__ import annotations

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics

LANGUAGES = ("en", "zh", "de", "sw", "th", "fr", "ru", "ja")
TRAINED = ("zh", "de")
WORLDS = (
    "alignment",
    "trained only",
    "activity",
    "exchange",
    "drift",
    "common drift",
    "both",
    "nothing",
)
NOISE = 0.4


def draw_truth(random: np.random.Generator, shape: tuple[int, int] = (8, 500)) -> np.ndarray:
    """float64 [layer, neuron, language]: activation probabilities of the model before."""
    busy = random.beta(0.35, 2.2, (*shape, 1))
    return np.clip(1.3 * busy * random.beta(1.2, 1.0, (*shape, 8)), 1e-3, 0.98)


def change(
    world: str, random: np.random.Generator, truth: np.ndarray, joins: float = 0.12
) -> np.ndarray:
    """The probabilities of the model after; `joins` is the share of neurons that are joined."""
    if world == "nothing":
        return truth
    if world == "alignment":
        return _joined(random, truth, (1, 2), (3, 4, 5, 6, 7), joins)
    if world == "trained only":
        return _joined(random, truth, (0,), (1, 2), joins)
    if world == "exchange":
        return _exchanged(random, truth, joins)
    found = truth
    if world in ("activity", "both"):
        found = np.minimum(found * random.uniform(1.10, 1.22, (len(truth), 1, 1)), 0.99)
    if world in ("drift", "common drift", "both"):
        common = 0.5 if world == "common drift" else 0.0
        noise = common**0.5 * random.normal(0, NOISE, (*truth.shape[:2], 1))
        noise = noise + (1 - common) ** 0.5 * random.normal(0, NOISE, truth.shape)
        found = expit(logit(found) + noise)
    return found


def bar_of(truth: np.ndarray) -> float:
    """The 95th percentile of all probabilities."""
    return float(np.quantile(truth, 0.95))


def _joined(
    random: np.random.Generator,
    truth: np.ndarray,
    owners: tuple[int, ...],
    joining: tuple[int, ...],
    share: float,
) -> np.ndarray:
    """Some of the languages that join reach the probability that the neuron has in its owners."""
    found, own = truth.copy(), truth[..., owners].max(axis=-1)
    for language in joining:
        joins = (own > bar_of(truth)) & (random.random(own.shape) < share)
        found[..., language][joins] = np.maximum(found[..., language], own)[joins]
    return found


def _exchanged(random: np.random.Generator, truth: np.ndarray, share: float) -> np.ndarray:
    """An untouched language trades a neuron that no trained one has for one that they have."""
    found, tau = truth.copy(), bar_of(truth)
    of_trained = truth[..., [1, 2]].max(axis=-1) > tau
    for layer in range(len(truth)):
        for language in range(3, 8):
            mine = truth[layer, :, language] > tau
            leave = np.flatnonzero(mine & ~of_trained[layer])
            join = np.flatnonzero(~mine & of_trained[layer])
            n = min(len(leave), len(join), int(share * of_trained[layer].sum() + 0.5))
            leave, join = random.permutation(leave)[:n], random.permutation(join)[:n]
            rates = found[layer, :, language]
            rates[leave], rates[join] = rates[join].copy(), rates[leave].copy()
    return found


def read(
    random: np.random.Generator,
    before: np.ndarray,
    after: np.ndarray,
    *,
    groups: int = 10,
    tokens: int = 400,
) -> tuple[ActivationStatistics, ActivationStatistics]:
    """What both models do with the same groups of texts."""
    shape = (groups, len(LANGUAGES))
    lengths = random.integers(tokens // 2, tokens * 3 // 2, shape)
    items = random.normal(0, 0.2, (groups, *before.shape))
    pair = []
    for truth in (before, after):
        own = items + random.normal(0, 0.15, items.shape)
        own += random.normal(0, 0.03, (groups, len(truth), 1, 1))  # a layer as a whole
        chance = expit(logit(truth) + own)
        counts = random.binomial(lengths[:, None, None, :], chance).astype(np.int64)
        pair.append(ActivationStatistics(LANGUAGES, counts, lengths.astype(np.int64)))
    return pair[0], pair[1]


def logit(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p))."""
    return np.log(p / (1 - p))


def expit(x: np.ndarray) -> np.ndarray:
    """Its inverse."""
    return 1 / (1 + np.exp(-x))


def planted_joins(
    random: np.random.Generator, truth: np.ndarray, number: int
) -> tuple[np.ndarray, float]:
    """Every untouched language joins so many related or specific neurons of the trained ones.

    Returns:
        The probabilities after, and the real change of related neurons, mean over the languages.
    """
    found, tau = truth.copy(), bar_of(truth)
    owners = (truth > tau).sum(axis=-1)
    own = truth[..., [1, 2]].max(axis=-1)
    for language in range(3, 8):
        free = (own > 1.3 * tau) & (owners <= 4) & (truth[..., language] < 0.7 * tau)
        places = random.permutation(np.flatnonzero(free))[:number]
        at = np.unravel_index(places, own.shape)
        found[(*at, np.full(len(places), language))] = own[at]
    gained = _related(found > tau) - _related(truth > tau)
    return found, float(gained[3:].mean())


def _related(above: np.ndarray) -> np.ndarray:
    number = above.sum(axis=-1)
    return above[(number > 1) & (number < above.shape[-1])].sum(axis=0)


def draw_above(
    random: np.random.Generator,
    before: np.ndarray,
    after: np.ndarray,
    tau: float,
    *,
    groups: int = 10,
    tokens: int = 400,
) -> np.ndarray:
    """bool [model, language, neuron]: where p > tau in a corpus as `read` has it, about."""
    moved = 0.2**2 + 0.15**2 + 0.03**2
    found = []
    for truth in (before, after):
        # A normal number of this variance on the logit moves a mean probability as if it shrank.
        p = expit((1 + np.pi / 8 * moved) ** -0.5 * logit(truth))
        error = (moved if tokens < 10**8 else 0) / groups + 1 / (groups * tokens * p * (1 - p))
        seen = logit(p) + error**0.5 * random.standard_normal(p.shape)
        found.append(seen.reshape(-1, p.shape[-1]).T > logit(np.array(tau)))
    return np.stack(found)
