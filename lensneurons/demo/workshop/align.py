"""Train the adapters of the demo model, from this package alone.

    python -m lensneurons.demo.workshop.align zh-de --out FOLDER

Three alignments into English: of two plentiful languages, of two scarce ones, and of all nine.
``--shuffled`` trains on preferences turned around by the toss of a coin: the control. In the
plentiful languages the model is nearly always right, so they need more problems for some pairs.

Rate and steps were chosen by the accuracy on held-out pairs and on validation problems in the
trained languages, before anything was measured on test problems, and are the same for all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lensneurons.alignment.pairs import preference_pairs
from lensneurons.alignment.responses import ScoredResponses, respond, score_responses
from lensneurons.alignment.training import Alignment, DPOOptions, align
from lensneurons.corpora.corpus import load_corpus
from lensneurons.models.loading import DEMO, load_model
from lensneurons.values.files import load_json, replacing, save_json

PIVOT = "en"
NINE = ("zh", "de", "sw", "th", "bn", "ru", "es", "fr", "ja")
ALIGNMENTS = {"zh-de": ("zh", "de"), "sw-th": ("sw", "th"), "all": NINE}
PROBLEMS = {"zh-de": 300, "sw-th": 120, "all": 120}
SAMPLES = 6
LONGEST = 120
SETTINGS: DPOOptions = {
    "steps": 100,
    "batch": 16,
    "micro_batch": 16,
    "learning_rate": 1e-4,
    "rank": 8,
    "alpha": 16,
    "checkpoint_every": 25,
    "held_out": 0.1,
}


def score_answers(name: str, folder: str | Path) -> ScoredResponses:
    """Sample and score the answers that an alignment of the demo model takes its pairs from.

    Args:
        name: a key of `ALIGNMENTS`.
        folder: keeps them; resumed if begun.
    """
    corpus = load_corpus(DEMO, split="train", limit=PROBLEMS[name])
    responses = respond(
        load_model(DEMO, device="cpu"),
        corpus.select(ALIGNMENTS[name]),
        samples=SAMPLES,
        max_new_tokens=LONGEST,
        run_dir=Path(folder) / "responses",
    )
    return score_responses(responses, corpus, pivot=PIVOT, run_dir=Path(folder) / "scores")


def align_demo(
    scored: ScoredResponses, name: str, folder: str | Path, *, shuffled: bool = False
) -> Alignment:
    """Train one of the adapters.

    Args:
        scored: what `score_answers` gave.
        name: a key of `ALIGNMENTS`.
        folder: gets the adapter and its checkpoints; resumed if begun.
        shuffled: turn pairs around by the toss of a coin.
    """
    pairs = preference_pairs(scored, languages=ALIGNMENTS[name])
    if shuffled:
        pairs = pairs.shuffled()
    return align(DEMO, pairs, folder, device="cpu", **SETTINGS)


def export(run: Alignment, folder: str | Path) -> Path:
    """Write what is needed of an alignment: the adapters in half precision, and the log.

    Args:
        run: a finished alignment of the demo model.
        folder: gets the last adapter, and a folder named by its step for every other checkpoint.

    Returns:
        The folder.
    """
    target = Path(folder)
    _export_adapter(run.folder, target)
    for step, checkpoint in run.checkpoints.items():
        if step < run.settings.steps:
            _export_adapter(checkpoint, target / str(step))
    run.save(target)
    return target


def _export_adapter(source: Path, target: Path) -> None:
    """One adapter in half precision, which names its model and no folder."""
    from safetensors.torch import load_file, save_file

    weights = load_file(source / "adapter_model.safetensors")
    with replacing(target / "adapter_model.safetensors") as temporary:
        save_file({name: w.half().contiguous() for name, w in weights.items()}, temporary)
    config = load_json(source / "adapter_config.json")
    save_json(target / "adapter_config.json", {**config, "base_model_name_or_path": DEMO})


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one of the adapters and say where it is.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.align", description="Align the demo model."
    )
    parser.add_argument("name", choices=ALIGNMENTS, help="which languages")
    parser.add_argument("--out", type=Path, required=True, help="folder; resumed if begun")
    parser.add_argument("--shuffled", action="store_true", help="turn pairs around: the control")
    options = parser.parse_args(arguments)
    run_name = f"{options.name}-shuffled" if options.shuffled else options.name
    run = align_demo(
        score_answers(options.name, options.out / f"{options.name}-answers"),
        options.name,
        options.out / run_name,
        shuffled=options.shuffled,
    )
    sys.stdout.write(f"{export(run, options.out / 'adapters' / run_name)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
