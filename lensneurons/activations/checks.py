"""What activation statistics let in: arrays that fit each other, and counts that texts can give.

Every look at the counts goes layer by layer, so that those of a file that is mapped into memory are
never held as a whole.

What this does not find: numbers that are wrong and possible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lensneurons.errors import LensNeuronsError
from lensneurons.values.mapping import let_go

if TYPE_CHECKING:
    from lensneurons.activations.statistics import ActivationStatistics

SEAM = 0.005  # share of the tokens by which published counts of a response may be above them


def check_statistics(statistics: ActivationStatistics) -> None:
    """Raise unless the arrays of the statistics fit each other.

    Raises:
        LensNeuronsError: says what does not fit.
    """
    languages, counts = statistics.languages, statistics.grouped_counts
    if len(set(languages)) != len(languages):
        raise LensNeuronsError(f"a language is named twice in {list(languages)}")
    groups, n = counts.shape[0], counts.shape[-1]
    if statistics.grouped_tokens.shape != (groups, n) or len(languages) != n:
        raise LensNeuronsError(
            f"counts {counts.shape}, tokens {statistics.grouped_tokens.shape} and "
            f"{len(languages)} languages do not fit: want [group, layer, neuron, language], "
            "[group, language] and one name a language"
        )
    for name, numbers in (("counts", counts), ("tokens", statistics.grouped_tokens)):
        if not np.issubdtype(numbers.dtype, np.integer):
            raise LensNeuronsError(
                f"{name} are {numbers.dtype}: give whole numbers, such as .astype(np.int64)"
            )
    for name, moment in (("sums", statistics.sums), ("squares", statistics.squares)):
        if moment is not None and moment.shape != counts.shape[1:]:
            raise LensNeuronsError(f"{name} {moment.shape} do not fit counts {counts.shape}")
    least, most = _ends(counts)
    if least < 0:
        raise LensNeuronsError("an activation count is negative: the counter overflowed")
    if empty := [
        k for k, t in zip(languages, statistics.grouped_tokens.sum(0), strict=True) if t < 1
    ]:
        raise LensNeuronsError(f"no token was counted in {empty}: leave these languages out")
    tokens = statistics.grouped_tokens
    over = most - tokens if counts.size else np.zeros_like(tokens)
    # Published counts may be a little above: `neurons.published` says why, and by how much.
    allowed = 0 if statistics.sums is not None else SEAM * tokens
    if (over > allowed).any():
        group, k = np.unravel_index(np.argmax(over), over.shape)
        raise LensNeuronsError(
            f"a neuron is active on {over[group, k] + tokens[group, k]} of {tokens[group, k]} "
            f"tokens in {languages[k]}: the counts are damaged, or not of these tokens"
        )
    ends = {"sums": _moment_ends(statistics.sums), "squares": _moment_ends(statistics.squares)}
    for name, (lowest, highest) in ends.items():
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise LensNeuronsError(
                f"{name} are not all finite: a NaN or infinite activation got in"
            )
    _check_experts(statistics)
    _check_branches(statistics)
    if ends["squares"][0] < 0:
        raise LensNeuronsError("a sum of squares is negative: the file is damaged")


def _ends(counts: np.ndarray) -> tuple[int, np.ndarray]:
    """The least count, and the largest of each group and language, in one pass over a file."""
    least, most = 0, np.zeros((counts.shape[0], counts.shape[-1]), counts.dtype)
    if not counts.size:
        return least, most
    for group, largest in zip(counts, most, strict=True):
        for layer in group:
            least = min(least, int(layer.min()))
            np.maximum(largest, layer.max(axis=0), out=largest)
            let_go(layer)
    return least, most


def _moment_ends(moment: np.ndarray | None) -> tuple[float, float]:
    """The smallest and the largest sum; NaN where one is NaN."""
    if moment is None or not moment.size:
        return 0.0, 0.0
    ends = []
    for layer in moment:
        ends.append((layer.min(), layer.max()))
        let_go(layer)
    return float(np.min([low for low, _ in ends])), float(np.max([high for _, high in ends]))


def _check_experts(statistics: ActivationStatistics) -> None:
    """Raise unless neurons and routed tokens are those of experts of one width."""
    experts, routed = statistics.n_experts, statistics.grouped_routed
    if experts is None:
        if routed is not None:
            raise LensNeuronsError("tokens sent to experts need n_experts beside them")
        return
    groups, layers, units, languages = statistics.grouped_counts.shape
    if experts < 1 or units % experts:
        raise LensNeuronsError(f"{units} neurons a layer are not those of {experts} experts")
    if routed is None:
        return
    if routed.shape != (groups, layers, experts, languages):
        raise LensNeuronsError(
            f"routed {routed.shape} does not fit counts {statistics.grouped_counts.shape}: want "
            "[group, layer, expert, language]"
        )

    def damaged(layer: int) -> bool:
        sent, counts = routed[:, layer], statistics.grouped_counts[:, layer]
        inside = counts.reshape(groups, experts, -1, languages)
        found = (inside > sent[:, :, None]).any() or (
            sent > statistics.grouped_tokens[:, None]
        ).any()
        let_go(counts, sent)
        return bool(found)

    if any(map(damaged, range(layers))):
        raise LensNeuronsError(
            "a neuron is active on more tokens than were sent to its expert, or more were sent "
            "than there are: the counts are damaged, or not of these tokens"
        )


def _check_branches(statistics: ActivationStatistics) -> None:
    """Raise unless the counts of the two halves of gated neurons fit each other and the tokens."""
    linear, both, counts = (
        statistics.grouped_linear,
        statistics.grouped_both,
        statistics.grouped_counts,
    )
    if linear is None and both is None:
        return
    if linear is None or both is None or not linear.shape == both.shape == counts.shape:
        raise LensNeuronsError(
            "the counts of the linear branch need those of both halves beside them, of the shape "
            f"of the counts {counts.shape}"
        )

    def damaged(layer: int) -> bool:
        active, positive, joint = counts[:, layer], linear[:, layer], both[:, layer]
        alone = statistics.grouped_tokens[:, None] - active - positive + joint
        parts = (joint, active - joint, positive - joint, alone)
        let_go(active, positive, joint)
        return any(part.min() < 0 for part in parts)

    if any(map(damaged, range(counts.shape[1]))):
        raise LensNeuronsError(
            "a combination of gate and linear branch has fewer than no tokens: the counts are "
            "damaged, or not of these tokens"
        )
