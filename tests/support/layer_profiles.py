"""Layer profiles with the four parts, from real models, and shapes without them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Specific, related, agnostic neurons of each layer. Mistral-7B (kevinpro/MistralMathOctopus-7B) on
# MGSM, recomputed from the counts that the authors of arXiv 2505.21505 published.
MISTRAL = np.array(
    [
        [1922, 3743, 181], [1370, 1891, 106], [1885, 2277, 103], [1133, 1169, 114],
        [827, 974, 192], [385, 675, 194], [308, 564, 253], [241, 519, 253],
        [229, 495, 270], [228, 595, 307], [236, 556, 334], [246, 616, 431],
        [215, 536, 417], [232, 571, 443], [239, 691, 555], [254, 553, 445],
        [194, 487, 348], [228, 493, 423], [376, 592, 316], [415, 555, 261],
        [370, 382, 151], [340, 218, 92], [341, 222, 66], [346, 185, 48],
        [350, 169, 50], [398, 193, 51], [746, 376, 54], [1213, 611, 66],
        [1690, 941, 108], [2014, 1639, 136], [2180, 2346, 284], [2084, 4390, 745],
    ]
)  # fmt: skip
# Our own counts, on weights that were dequantised from 4 bits: Gemma 3 270M on 60 sentences of
# FLORES in ten languages, and Qwen2.5-Coder 0.5B Instruct on the first 20 of them.
GEMMA = np.array(
    [
        [86, 16, 13, 16, 34, 26, 27, 57, 35, 46, 41, 48, 76, 146, 223, 311, 368, 378],
        [47, 70, 28, 71, 43, 37, 40, 69, 68, 81, 114, 105, 125, 81, 137, 207, 199, 296],
        [27, 36, 25, 181, 66, 83, 48, 55, 54, 90, 80, 64, 48, 14, 10, 8, 4, 22],
    ]
).T
QWEN = np.array(
    [
        [390, 251, 43, 29, 117, 99, 64, 75, 130, 140, 150, 133, 128, 152, 177, 136, 144, 111, 203,
         123, 250, 638, 973, 699],
        [1774, 86, 68, 29, 147, 60, 95, 96, 136, 146, 210, 222, 217, 291, 308, 259, 307, 150, 221,
         250, 291, 424, 858, 614],
        [242, 13, 20, 15, 36, 19, 47, 41, 50, 39, 102, 78, 125, 132, 212, 196, 218, 56, 32, 135,
         144, 48, 109, 94],
    ]
).T  # fmt: skip


def interpolated(layers: int) -> np.ndarray:
    """float64 [layer, 3]: `MISTRAL` as a model of so many layers would have it."""
    places = np.linspace(0, len(MISTRAL) - 1, layers)
    columns = [np.interp(places, np.arange(len(MISTRAL)), column) for column in MISTRAL.T]
    return np.stack(columns, axis=1)


def by_parts(layers: int) -> np.ndarray:
    """float64 [layer, 3]: `MISTRAL` where each part keeps its share of so many layers.

    A layer is the mean of the published layers that it stands for, all of one part.
    """
    edges = np.array([0, 5, 20, 31, 32])
    share = np.maximum(1, np.round(np.diff(edges) * layers / 32)).astype(int)
    share[1] += layers - share.sum()
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(MISTRAL, axis=0)])
    rows = []
    for first, stop, number in zip(edges[:-1], edges[1:], share, strict=True):
        at = np.linspace(first, stop, number + 1)
        total = np.stack([np.interp(at, np.arange(33), column) for column in sums.T], axis=1)
        rows.append(np.diff(total, axis=0) / np.diff(at)[:, None])
    return np.concatenate(rows)


def noisy(profile: np.ndarray, spread: float, random: np.random.Generator) -> np.ndarray:
    """int64 [layer, 3]: every count times independent log-normal noise of this spread."""
    drawn = profile * np.exp(spread * random.normal(size=profile.shape))
    return drawn.round().astype(np.int64)


def shapes() -> dict[str, Callable[[int, np.random.Generator], np.ndarray]]:
    """Shapes without four parts, by name; each gives float64 [layer, 3] of counts about 245."""

    def curves(make: Callable[[np.ndarray, np.random.Generator], np.ndarray]):
        def shape(layers: int, random: np.random.Generator) -> np.ndarray:
            return np.exp(5.5 + make(np.linspace(-1, 1, layers)[:, None], random))

        return shape

    def slope(random: np.random.Generator) -> np.ndarray:
        return random.uniform(0.5, 2, 3) * random.choice([-1, 1], 3)

    def smooth(depth: np.ndarray, random: np.random.Generator) -> np.ndarray:
        waves = np.arange(1, random.integers(2, 5) + 1)  # two to four half-waves and their phases
        size, phase = random.normal(size=(3, len(waves))), random.uniform(0, 6.283, (3, len(waves)))
        return np.sum(size * np.cos(1.5708 * depth[..., None] * waves + phase), axis=-1)

    return {
        "flat": curves(lambda depth, random: 0 * depth * slope(random)),
        "monotone": curves(lambda depth, random: 1.5 * depth * slope(random)),
        "sigmoid": curves(
            lambda depth, random: (
                slope(random) * np.tanh(4 * (depth - random.uniform(-0.5, 0.5, 3)))
            )
        ),
        "U-shaped": curves(
            lambda depth, random: 2 * slope(random) * (depth - random.uniform(-0.3, 0.3, 3)) ** 2
        ),
        "V-shaped": curves(
            lambda depth, random: 2 * slope(random) * np.abs(depth - random.uniform(-0.3, 0.3, 3))
        ),
        "smooth random": curves(smooth),
    }
