"""Kill long jobs at random moments, let them go on, and compare every byte of their results.

    python tests/simulations/kills.py [--kills 25] [--seed 0] [--jobs collect matrix ...]

Five jobs with a folder (`collect`, `ablation_matrix`, `respond`, `align`, `study`) run on a tiny
model in a child process that is killed with SIGKILL after a time drawn uniformly from that of a
whole run. The next child goes on; after every third kill one is left alone until the job ends. A
finished folder must hold the bytes of a run that was never killed, and no temporary file; then a
new folder is begun. 100 kills take about five minutes of one core.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled"}

import numpy as np
import tiny
import torch

import lensneurons as ln
from lensneurons.alignment.pairs import PreferencePair, PreferencePairs
from lensneurons.values.provenance import Provenance

PAUSE = 0.02  # seconds before and after each file is written, so that kills meet them
Job = Callable[[Path], Any]


def jobs(folder: Path) -> dict[str, Job]:
    """The jobs; each takes the folder."""
    model_folder = tiny.save_model("Llama", folder / "model")
    model, corpus = ln.load_model(model_folder, device="cpu"), tiny.tiny_corpus()
    problems = ln.load_corpus("demo", split="test", limit=60, languages=["en", "de", "zh"])
    longest = {one: max(len(i.text) for i in problems if i.id == one) for one in problems.ids}
    problems = problems.select(ids=sorted(longest, key=lambda one: longest[one])[:26])
    pairs = PreferencePairs(
        tuple(
            PreferencePair(f"i{n}", ("en", "zh", "th")[n % 3], f"{n} cats\n", "yes", "no", 1.0, 0.0)
            for n in range(12)
        ),
        *("en", "hand", Provenance(model="hand")),
    )
    training = {"steps": 6, "batch": 4, "micro_batch": 2, "rank": 2, "alpha": 4, "held_out": 0.2}
    return {
        "collect": lambda run: ln.collect(
            model, corpus, run_dir=run, batch_tokens=100, checkpoint_seconds=0, progress=False
        ),
        "matrix": lambda run: ln.ablation_matrix(
            model, corpus, tiny.drawn_neurons(), controls=2, run_dir=run, progress=False
        ),
        "respond": lambda run: ln.alignment.respond(
            *(model, corpus), samples=2, max_new_tokens=6, batch_tokens=200, run_dir=run,
            progress=False,
        ),
        "align": lambda run: ln.alignment.align(
            model_folder, pairs, run, checkpoint_every=2, device="cpu", progress=False, **training
        ),
        "study": lambda run: ln.study(
            *(model, problems, run), effect_items=5, controls=5, lens_items=2, card_items=2,
            cards=1, top_rate=0.2, classes=("specific", "related"), aligned=model,
        ),
    }  # fmt: skip


def in_child(job: Job, run: Path, seconds: float | None) -> str:
    """Run a job in a child; kill it after some seconds, unless None. Say how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            slow_files()
            job(run)
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "finished", -signal.SIGKILL: "killed"}.get(status, "failed")


def slow_files() -> None:
    """Wait before and after every rename."""
    replace = os.replace

    def slowly(*paths: Any) -> None:
        time.sleep(PAUSE)
        replace(*paths)
        time.sleep(PAUSE)

    os.replace = slowly


def contents(run: Path) -> dict[str, bytes]:
    """Every visible file of a run folder, and what it holds.

    Left out are the trainer's logs of wall-clock time, the marks of checkpoints, which hold the
    hashes of those logs, and the measured times of a study.
    """
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name[0] != ".")
    timed = ("trainer_state.json", "training_args.bin", "lensneurons.json")
    timed += ("plan.jsonl", "timings.json", "steps.json")  # of a study
    return {str(p.relative_to(run)): p.read_bytes() for p in files if p.name not in timed}


def differences(wanted: dict[str, bytes], run: Path) -> list[str]:
    """Files that differ from those of a run that was never killed, and leftovers."""
    found = contents(run)
    names = sorted({*wanted, *found})
    wrong = [name for name in names if wanted.get(name) != found.get(name)]
    return wrong + [path.name for path in run.rglob(".*.tmp")]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=25, help="of each job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", help="default: all")
    options = parser.parse_args()
    kills, seed = options.kills, options.seed
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    source, faults = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, job in jobs(folder).items():
            if options.jobs and name not in options.jobs:
                continue
            whole = folder / name / "whole" / "run"
            begun = time.monotonic()
            assert in_child(job, whole, None) == "finished", name
            length, wanted = time.monotonic() - begun, contents(whole)
            done, finished, ends = 0, 0, []
            while done < kills:
                run = folder / name / str(finished) / "run"  # a name that model cards may tell
                for _ in range(min(3, kills - done)):
                    end = in_child(job, run, source.uniform(0, length))
                    ends.append(end)
                    done += end == "killed"
                    if end != "killed":
                        break
                else:
                    ends.append(in_child(job, run, None))
                finished += 1
                if wrong := differences(wanted, run):
                    faults += 1
                    print(f"{name}: run {finished - 1} differs: {wrong}")
            failed = ends.count("failed")
            faults += failed
            print(
                f"{name}: {done} kills in runs of {length:.1f} s, {finished} runs finished with "
                f"{len(wanted)} equal files, {failed} failed",
                flush=True,
            )
    print(f"seed {seed}: {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
