"""Train the adapters of a demo model, from a checkout of this repository and nothing else.

    python -m lensneurons.demo.workshop.align zh-de --out FOLDER

There are three alignments into English: of two plentiful languages, of two scarce ones, and of all
nine. ``--mlp`` adapts the MLPs as well as the attention. There are two controls: ``--shuffled``
turns preferences around by the toss of a coin, and ``--random`` changes the weights of a finished
alignment by as much in a random direction.

Settings are the same for all. They were chosen among four trials on validation problems and seed 0
(SERIES.md), before anything was measured on test problems.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from lensneurons.alignment.checkpoints import mark_adapter
from lensneurons.alignment.controls import random_adapter
from lensneurons.alignment.pairs import preference_pairs
from lensneurons.alignment.responses import respond, score_responses
from lensneurons.alignment.training import Alignment, DPOOptions, align
from lensneurons.corpora.corpus import load_corpus
from lensneurons.demo.world import LANGUAGES
from lensneurons.errors import LensNeuronsError
from lensneurons.models.adapters import read_mark
from lensneurons.models.loading import DEMO, load_model
from lensneurons.values.files import load_json, replacing, save_json

PIVOT = "en"
NINE = ("zh", "de", "sw", "th", "bn", "ru", "es", "fr", "ja")
ALIGNMENTS = {"zh-de": ("zh", "de"), "sw-th": ("sw", "th"), "all": NINE}
PROBLEMS = {"zh-de": 300, "sw-th": 300, "all": 100}
SAMPLES = 8
MOST_PAIRS = {"zh-de": 1000, "sw-th": 1000, "all": 250}  # of a language
LONGEST = 120
SETTINGS: DPOOptions = {
    "steps": 60,
    "batch": 16,
    "micro_batch": 4,  # a quarter less time than 16, which is padded more
    "learning_rate": 1e-3,
    "nll_weight": 5.0,  # at this rate without it, the better answers lost likelihood too
    "rank": 8,
    "alpha": 16,
    "checkpoint_every": 20,
    "held_out": 0.05,
}
CHANGEABLE = {"learning_rate": float, "steps": int, "nll_weight": float, "beta": float}
EVERYWHERE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def groups_of(run: str) -> dict[str, tuple[str, ...]]:
    """The languages that a run trained and those that it left untouched, by its name.

    Raises:
        LensNeuronsError: it does not begin with the name of an alignment.
    """
    for name, trained in ALIGNMENTS.items():
        if run == name or run.startswith(f"{name}-"):
            left = tuple(code for code in LANGUAGES if code not in (*trained, PIVOT))
            return {"trained": trained, "untouched": left}
    raise LensNeuronsError(f"run {run!r}: begin its name with one of {', '.join(ALIGNMENTS)}")


def export(run: Alignment, folder: str | Path) -> Path:
    """Write the adapters of a finished alignment in half precision, and its log.

    The last adapter goes into `folder`, every other checkpoint into a folder in it, named by its
    step. Their configuration names the demo model, not a folder of this machine. Each has the mark
    that `align` writes: the hashes of its files, and which control it is. Return `folder`.

    Raises:
        StorageError: a file of the run is not the one that `align` wrote there.
    """
    target = Path(folder)
    adapters = {run.folder: target}
    for step, checkpoint in run.checkpoints.items():
        if step < run.settings.steps:
            adapters[checkpoint] = target / str(step)
    for source, copy in adapters.items():
        weights = load_file(source / "adapter_model.safetensors")
        with replacing(copy / "adapter_model.safetensors") as temporary:
            save_file({name: w.half().contiguous() for name, w in weights.items()}, temporary)
        config = load_json(source / "adapter_config.json")
        ours = {**config, "base_model_name_or_path": DEMO}
        save_json(copy / "adapter_config.json", ours, sealed=False)
        mark_adapter(copy, read_mark(source).get("control"))
    run.save(target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Sample answers, score them, train one of the adapters on them, and say where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.align", description="Align a demo model."
    )
    add = parser.add_argument
    add("name", choices=ALIGNMENTS, help="which languages")
    add("--out", type=Path, required=True, help="folder; resumed if begun")
    add("--model", default=DEMO, help="folder of another model (default: the demo model)")
    add("--mlp", action="store_true", help="adapt the MLPs too")
    add("--problems", type=int, help="training problems to answer")
    add("--samples", type=int, default=SAMPLES, help=f"answers to each (default: {SAMPLES})")
    add("--per-language", type=int, help="most pairs of a language (default: its own)")
    for key, of in CHANGEABLE.items():
        add(f"--{key.replace('_', '-')}", type=of, help="of the training, as in DPOSettings")
    control = parser.add_mutually_exclusive_group()
    control.add_argument("--shuffled", action="store_true", help="turn pairs around: a control")
    control.add_argument("--random", action="store_true", help="a random direction: a control")
    options = parser.parse_args(arguments)
    name = f"{options.name}-mlp" if options.mlp else options.name
    if options.random:
        target = options.out / f"{name}-random"
        sys.stdout.write(f"{random_adapter(options.out / name, target)}\n")
        return 0
    languages, answers = ALIGNMENTS[options.name], options.out / f"{options.name}-answers"
    corpus = load_corpus(DEMO, split="train", limit=options.problems or PROBLEMS[options.name])
    responses = respond(
        load_model(options.model, device="cpu"),
        corpus.select(languages),
        samples=options.samples,
        max_new_tokens=LONGEST,
        run_dir=answers / "responses",
    )
    scored = score_responses(responses, corpus, pivot=PIVOT, run_dir=answers / "scores")
    most = options.per_language or MOST_PAIRS[options.name]
    pairs = preference_pairs(scored, languages=languages, per_language=most)
    if options.shuffled:
        pairs, name = pairs.shuffled(), f"{name}-shuffled"
    settings: Any = {**SETTINGS, "modules": EVERYWHERE if options.mlp else "attention"}
    given = {key: getattr(options, key) for key in CHANGEABLE}
    settings |= {key: value for key, value in given.items() if value is not None}
    run = align(options.model, pairs, options.out / name, device="cpu", **settings)
    ours = options.model == DEMO
    sys.stdout.write(f"{export(run, options.out / 'adapters' / name) if ours else run.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
