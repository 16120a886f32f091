"""Every public verb with every form of input: a result, or a LensNeuronsError; nothing else.

Run by a test in a process of its own, because in the tests wrong types are caught before the code
sees them. Prints what went wrong, a line each, and the number of calls:

    python tests/support/sweep_inputs.py FOLDER
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tiny

import lensneurons as ln
from lensneurons.cards import describe_all, importance_agreement, neuron_facts, top_contexts
from lensneurons.cards.attribution import importance
from lensneurons.comparison import compare_halves, compare_series
from lensneurons.studies import model_claims


def main(folder: Path) -> None:
    """Call everything with everything."""
    model = ln.load_model(str(tiny.save_model("Llama", folder / "model")))
    corpus = tiny.tiny_corpus().head(2)
    statistics = ln.collect(model, corpus, groups=2, progress=False)
    neurons = ln.identify(statistics, score="lape", top_rate=0.4, tau=0.5)
    quiet: dict[str, Any] = {"progress": False}
    matrix = ln.ablation_matrix(model, corpus, neurons, classes=["specific"], controls=1, **quiet)
    comparison = ln.compare(statistics, statistics)
    lens = ln.logit_lens(model, corpus, **quiet)
    own = neurons["en"]
    forms: dict[str, Any] = {
        "a language": "zh", "a name": "L2N10", "names": ["L0N1", "L2N10"], "a text": "Two apples.",
        "texts": ["Two apples.", "三个苹果"], "nothing": None, "a number": 3, "no texts": [],
        "a mapping": {"en": ["one"]}, "an array": np.zeros(3), "a set": own, "sets": [own, own],
        "neurons": neurons, "statistics": statistics, "a corpus": corpus, "matrix": matrix,
        "matrices": [matrix], "comparison": comparison, "claims": ln.claims(comparison),
        "prepared": ln.prepare(model, corpus), "lens": lens, "model": model,
    }  # fmt: skip
    page = folder / "page.html"
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        (ln.nll, (model, corpus), {}),
        (ln.collect, (model, corpus), quiet),
        (ln.prepare, (model, corpus), {}),
        (top_contexts, (model, corpus, own), {}),
        (importance, (model, corpus), {}),
        (
            partial(importance_agreement, methods=["plnd"], number=10),
            (model, corpus.head(1), own),
            quiet,
        ),
        (ln.logit_lens, (model, corpus), quiet),
        (ln.generate, (model, ["a"]), {"max_new_tokens": 1, **quiet}),
        (ln.accuracy, (model, corpus), {"max_new_tokens": 1, **quiet}),
        (ln.ablate, (model, own), {"statistics": None, "positions": None}),
        (ln.scale, (model, own, 2.0), {}),
        (ln.steer, (model, own, statistics), {"toward": "zh"}),
        (ln.patch, (model, "a text"), {"layer": 1}),
        (ln.patch, (model, "a text"), {"neurons": own}),
        (ln.identify, (statistics,), {}),
        (ln.divide_layers, (neurons, statistics), {}),
        (ln.compare, (statistics, statistics), {"trained": ()}),
        (compare_series, ({"a": statistics, "b": statistics},), {}),
        (compare_halves, (statistics,), {}),
        (ln.claims, (comparison,), {"parts": None}),
        (model_claims, (neurons,), {"statistics": statistics, "parts": None, "effects": matrix}),
        (neuron_facts, (neurons, "L0N1"), {"statistics": statistics}),
        (ln.describe, (model, neurons, "L0N1"), {"corpus": corpus, "statistics": statistics}),
        (
            partial(describe_all, importances=()),
            (model, neurons, ["L0N1"]),
            {"corpus": corpus, "effect": False},
        ),
        (own.random_control, (), {"probability": None, "exclude": None}),
        (
            partial(ln.ablation_matrix, classes=["specific"], match="own"),
            (model, corpus, neurons),
            {"controls": 1, **quiet},
        ),
        (
            ln.steering_curve,
            (model, corpus, neurons),
            {"statistics": statistics, "toward": "zh", "prompts_in": "en", "alphas": (0.0,)}
            | {"also_ablate": None, "max_new_tokens": 1, **quiet},
        ),
        (
            ln.report,
            (page, neurons),
            dict.fromkeys(
                ("parts", "effects", "cards", "comparison", "claims", "series", "accuracy",
                 "steering", "carry_over", "lens"),
            ),
        ),
    ]  # fmt: skip
    calls += [
        (getattr(ln, name), (model, *rest), options)
        for name, rest, options in (
            ("try_without", ("Two apples", own), {"max_new_tokens": 2}),
            ("patch_grid", ("Two apples", "Two bananas"), {"answer": "a"}),
        )
        if hasattr(ln, name)
    ]
    number = 0
    for verb, given, options in calls:
        for place in [*range(len(given)), *options]:
            for form, value in forms.items():
                args, named = list(given), dict(options)
                if isinstance(place, int):
                    if verb is ln.report and place == 0:
                        continue
                    args[place] = value
                elif place == "progress":
                    continue
                else:
                    named[place] = value
                if verb is ln.report:
                    named = {
                        k: v if v is not None else () for k, v in named.items() if v is not None
                    }
                number += 1
                try:
                    result = verb(*args, **named)
                    if isinstance(result, AbstractContextManager):
                        with result:
                            pass
                except ln.LensNeuronsError:
                    continue
                except Exception as error:  # noqa: BLE001 - that is what is looked for
                    kind = type(error).__name__
                    name = getattr(getattr(verb, "func", verb), "__name__", verb)
                    sys.stdout.write(f"{name}({place}={form}): {kind}: {str(error)[:150]}\n")
    sys.stdout.write(f"{number} calls\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else folder))
