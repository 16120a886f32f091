"""How often the intervals of an ablation matrix hold the truth, and what its marks do.

python tests/simulations/ablation_intervals.py [--worlds 300] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
from ablation_worlds import LEVELS, answer_matrix, answer_truth, nll_matrix, the_scale

from lensneurons.experiments import ablation_effects
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import ItemDraws

ITEMS = (5, 10, 20, 100, 250)
NEAR_ZERO = {"levels": LEVELS | {"others": 0.02}, "blur": 0.1}  # ratios to others near zero


def measured(held: dict[str, list], name: str, found: Interval, truth: np.ndarray | float) -> None:
    """Note which of the intervals that are shown hold the truth."""
    shown = np.isfinite(found.low)
    held[name] += ((found.low <= truth) & (truth <= found.high))[shown].tolist()
    held[f"{name} shown"] += np.ravel(shown).tolist()


def truths(levels: dict[str, float], k: int) -> dict[str, np.ndarray | float]:
    """The expected numbers of `nll_matrix`, in nats a token."""
    scale, own = the_scale(), np.eye(k, dtype=bool)
    effect = scale * np.where(own, levels["own"], levels["others"])
    control = scale * np.where(own, levels["control own"], levels["control others"])
    selectivity, chance = (
        scale * (levels[f"{s}own"] - levels[f"{s}others"]) for s in ("", "control ")
    )
    return {
        "effect": effect, "control": control, "difference": effect - control,
        "selectivity": selectivity, "control selectivity": chance,
        "selectivity beyond control": selectivity - chance,
        "ratio": levels["own"] / levels["others"],
        "ratio of the control": levels["control own"] / levels["control others"],
    }  # fmt: skip


def percentile_ratio(matrix) -> Interval:
    """Own effect over the mean of the others, with percentiles of drawn items: what Fieller replaces."""
    own, others = matrix._own_and_others(matrix._values(None)[:, 0])
    ratio = np.concatenate([own[:1] / others[:1], (own / others)[1 + matrix.n_items :]])
    return ItemDraws(matrix.item_ids, matrix.language).interval(ratio[0], ratio[1:])


def nll_coverage(random, items: int, worlds: int, *, k=4, levels=LEVELS, **options):
    held, true = defaultdict(list), truths(levels, k)
    for _ in range(worlds):
        matrix = nll_matrix(random, items, k=k, levels=levels, **options)
        asked = {
            "effect": matrix.interval(),
            "control": matrix.control_interval(),
            "difference": matrix.beyond_control(),
            "selectivity": matrix.selectivity(),
            "control selectivity": matrix.selectivity(match="own"),
            "selectivity beyond control": matrix.selectivity_beyond_control(),
            "ratio": matrix.selectivity_ratio(),
            "ratio of the control": matrix.selectivity_ratio(match="own"),
        }
        for name, found in asked.items():
            measured(held, name, found, true[name])
        measured(held, "ratio by percentiles", percentile_ratio(matrix), true["ratio"])
        figures, total = matrix.figures(), true["selectivity beyond control"]
        measured(held, "mean diagonal", figures["mean diagonal"], the_scale() * levels["own"])
        measured(held, "mean of the last", figures["beyond control (own): selectivity"], total)
    return held


def answer_coverage(
    random, items: int, worlds: int, *, k=4, right=0.6, lost=(0.3, 0.02), chance=(0.2, 0.02)
):
    held, own = defaultdict(list), np.eye(k, dtype=bool)
    set_, control = (
        np.where(own, *(answer_truth(right, x) for x in pair)) for pair in (lost, chance)
    )
    for _ in range(worlds):
        matrix = answer_matrix(random, items, k=k, right=right, lost=lost, control_lost=chance)
        bootstrap = matrix._values(None)[1 + items :, 0]
        old = ItemDraws(matrix.item_ids, matrix.language).interval(matrix.cells(), bootstrap)
        for name, found, truth in (
            ("cell", matrix.interval(), set_),
            ("cell by percentiles", old, set_),
            ("control", matrix.control_interval(), control),
            ("difference", matrix.beyond_control(), set_ - control),
        ):
            for place, mask in (("own", own), ("others", ~own)):
                part = Interval(found.estimate, found.low[mask], found.high[mask], 0.95, "")
                measured(held, f"{name}, {place}", part, truth[mask])
        gap = set_ - control
        figures = matrix.figures()
        for name, truth in (
            ("mean diagonal", set_[0, 0]),
            ("mean off-diagonal", set_[0, 1]),
            ("selectivity", set_[0, 0] - set_[0, 1]),
            ("beyond control (own): selectivity", gap[0, 0] - gap[0, 1]),
        ):
            measured(held, f"mean: {name}", figures[name], truth)
    return held


def marks(random, items: int, worlds: int, *, levels, placebo=False, k=10, make=None):
    """Share of matrices with a false mark, by `marked` and by Holm on the difference alone; and of
    own cells that are marked."""
    from lensneurons.uncertainty.contrasts import holm, student_p

    found, own = [], np.eye(k, dtype=bool)
    for _ in range(worlds):
        matrix = (
            make(random, items, k=k)
            if make
            else nll_matrix(random, items, k=k, levels=levels, placebo=placebo)
        )
        marked = matrix.marked()
        values = matrix._values(None)
        beyond = values[:, 0] - values[:, 1]
        p = student_p(beyond[0], beyond[1 : 1 + items], added=float(matrix.metric == "accuracy"))
        naive = holm(p) <= 0.05
        found.append(
            [
                marked.any(),
                naive.any(),
                marked[own].mean(),
                naive[own].mean(),
                marked[~own].mean(),
                (p <= 0.05).mean(),
            ]
        )
    return np.mean(found, axis=0)


def report(title: str, held: dict[str, list]) -> None:
    print(title)
    for name, one in held.items():
        if not name.endswith(" shown"):
            shown = np.mean(held[f"{name} shown"])
            told = f"{np.mean(one):.3f} of {len(one)}" if one else "-"
            print(f"    {name:36} {told}   shown in {shown:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", default="nll,shared,ratio,accuracy,marks")
    options = parser.parse_args()
    begun, worlds = time.process_time(), options.worlds
    parts = options.parts.split(",")

    def random(part: int) -> np.random.Generator:
        return np.random.default_rng([options.seed, part])

    for place, items in enumerate((3, *ITEMS)):
        ablation_effects.FEWEST = min(items, 5)  # 3 items have no interval: this is why
        few = max(worlds // 3, 10) if items > 50 else worlds
        if "nll" in parts:
            report(
                f"NLL, {items} items, each with sets of its own",
                nll_coverage(random(place), items, few),
            )
        if "shared" in parts and items in (20, 100, 250):
            report(
                f"NLL, {items} items, sets shared",
                nll_coverage(random(10 + place), items, few, design="shared"),
            )
        if "ratio" in parts and items in (10, 20, 100):
            report(
                f"NLL, {items} items, others near 0",
                nll_coverage(random(20 + place), items, few, **NEAR_ZERO),
            )
        if "accuracy" in parts and items > 3:
            report(f"accuracy, {items} items", answer_coverage(random(30 + place), items, few))
    if "marks" in parts:
        null = {"own": 0.3, "others": 0.1, "control own": 0.3, "control others": 0.1}
        strong = null | {"own": 1.2}
        stronger = null | {"own": 2.4}
        for items in (10, 20, 100, 250):
            few = max(worlds // (4 if items < 100 else 8), 10)
            for name, kind in (
                ("null", {"levels": null}),
                ("placebo", {"levels": null, "placebo": True}),
                ("4x", {"levels": strong}),
                ("8x", {"levels": stronger}),
            ):
                print(items, name, few, marks(random(40), items, few, **kind).round(3), flush=True)
            print(
                items,
                "acc null",
                marks(
                    random(41),
                    items,
                    few,
                    levels=None,
                    make=lambda *a, k: answer_matrix(*a, k=k, lost=(0.2, 0.02)),
                ).round(3),
            )
            print(
                items,
                "acc",
                marks(
                    random(41),
                    items,
                    few,
                    levels=None,
                    make=lambda *a, k: answer_matrix(
                        *a, k=k, lost=(1.0, 0.02), control_lost=(0.1, 0.02)
                    ),
                ).round(3),
            )
    print(f"{time.process_time() - begun:.0f} s of one core")


if __name__ == "__main__":
    main()
