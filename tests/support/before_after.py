"""Two runs over the same texts whose neurons are active where a plan says.

A plan lists neurons as (layer, languages before, languages after); all others are silent. A neuron
is active on 80 % of the tokens of its languages and on 10 % of all others, in every group of items,
so every number of a comparison follows from the plan by counting, and every group says the same.
"""

from __future__ import annotations

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics

LANGUAGES = ("en", "zh", "de", "sw", "th", "fr", "ru", "ja")
TRAINED = ("zh", "de")
UNTOUCHED = LANGUAGES[3:]
N_LAYERS, D_MLP = 8, 200
PARTS = [(0, 1), (2, 3), (4, 5), (6, 7)]
TAU = 0.5
LENGTHS = {"specific": range(1, 2), "related": range(2, 8), "agnostic": range(8, 9)}
Planned = tuple[int, tuple[str, ...], tuple[str, ...]]


def some(n: int, start: int = 0) -> tuple[str, ...]:
    """n languages from a place on, around the circle."""
    return tuple(LANGUAGES[(start + i) % len(LANGUAGES)] for i in range(n))


def plan() -> list[Planned]:
    """A world in which every claim of the paper about changes holds; numbers are unequal."""
    rows: list[Planned] = [(0, (), some(1, 1)), (1, (), some(1, 3)), (0, some(8), ())]
    rows += [(layer, (), some(3, layer + i)) for layer in (0, 1) for i in range(2)]
    rows += [(2 + i % 2, some(1, i), some(8)) for i in range(21)]
    rows += [(3, some(2, i), some(8)) for i in range(13)]
    rows += [(4, (), some(n, i + n)) for n in range(3, 8) for i in range(n)]
    rows += [(5, some(8), ())]
    rows += [(7, some(1, 2 + i), some(8)) for i in range(5)]
    rows += [(6, some(2, 2 + i), some(8)) for i in range(3)]
    rows += [(2, some(3), some(3)), (6, some(4, 5), some(4, 4))]
    for language in UNTOUCHED:
        rows += [(5, ("en", k), ("en", k, language)) for k in TRAINED for _ in range(2)]
        rows += [(5, ("en", language), ("en", language)) for _ in range(3)]
    return rows


def counted(
    lengths: range, languages: tuple[str, ...] = (), layers: tuple[int, int] = (0, N_LAYERS - 1)
) -> tuple[int, int, int]:
    """Planned neurons with so many languages, in some layers: before, after, and the change.

    Where languages are given, a neuron counts once for each of them that it has.
    """
    before, after = (
        sum(
            len(set(languages).intersection(owners)) if languages else 1
            for layer, _, owners in placed(plan(), run)
            if layers[0] <= layer <= layers[1] and len(owners) in lengths
        )
        for run in (1, 2)
    )
    return before, after, after - before


def runs(
    rows: list[Planned], *, groups: int = 6, languages: tuple[str, ...] = LANGUAGES
) -> tuple[ActivationStatistics, ActivationStatistics]:
    """The statistics of a plan, before and after."""
    tokens = 100 + 10 * (np.arange(groups)[:, None] + np.arange(len(languages))) ** 2 % 230
    return statistics(rows, 1, tokens, languages), statistics(rows, 2, tokens, languages)


def statistics(
    rows: list[Planned], run: int, tokens: np.ndarray, languages: tuple[str, ...]
) -> ActivationStatistics:
    """Counts of one run of a plan."""
    share = np.full((N_LAYERS, D_MLP, len(languages)), 10)
    share[:, 150:] = 0
    for layer, neuron, owners in placed(rows, run):
        share[layer, neuron, [languages.index(k) for k in owners]] = 80
    counts = share * tokens[:, None, None, :] // 100
    return ActivationStatistics(languages, counts.astype(np.int64), tokens.astype(np.int64))


def placed(rows: list[Planned], run: int) -> list[tuple[int, int, tuple[str, ...]]]:
    """Layer, neuron and languages of every planned neuron, one after the other in its layer."""
    seen = dict.fromkeys(range(N_LAYERS), 0)
    found = []
    for row in rows:
        found.append((row[0], seen[row[0]], row[run]))
        seen[row[0]] += 1
    return found


def noisy(
    random: np.random.Generator,
    shift: float | np.ndarray = 0.0,
    *,
    groups: int = 8,
    shape: tuple[int, int] = (2, 60),
    languages: tuple[str, ...] = LANGUAGES[:4],
    base: np.ndarray | None = None,
) -> tuple[ActivationStatistics, ActivationStatistics]:
    """Two runs that differ by noise of the same kind in every group, and by a shift of the logits.

    Args:
        random: where the noise comes from.
        shift: what the second run adds to the logit of every probability.
        groups: groups of items.
        shape: layers and neurons a layer.
        languages: their codes.
        base: logits [layer, neuron, language]; drawn where not given.
    """
    if base is None:
        base = logits(random, shape, len(languages))
    tokens = random.integers(200, 600, (groups, len(languages)))
    items = random.normal(0, 0.15, (groups, *base.shape))
    pair = []
    for run in range(2):
        moved = base + items + random.normal(0, 0.15, items.shape) + run * shift
        chance = 1 / (1 + np.exp(-moved))
        counts = random.binomial(tokens[:, None, None, :], chance).astype(np.int64)
        pair.append(ActivationStatistics(languages, counts, tokens.astype(np.int64)))
    return pair[0], pair[1]


def logits(random: np.random.Generator, shape: tuple[int, int], n_languages: int) -> np.ndarray:
    """Logits of activation probabilities: some neurons are busier than others."""
    busy = random.normal(-1.2, 1.2, (*shape, 1))
    return busy + random.normal(0, 1.0, (*shape, n_languages))
