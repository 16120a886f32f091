"""The options of each command, and what they may hold.

An option has the name that the argument has in the function of the same name. Options that several
commands share stand in one function: how neurons are identified, the corpus, the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lensneurons.cli import alignments, commands, experiments, pages

SCOPES = ("response", "prompt", "all")


def add_commands(parsers: Any) -> None:
    """Add every command with its options to what ``add_subparsers`` gave."""
    _add_demo(parsers)
    _add_collect(parsers)
    _add_identify(parsers)
    _add_phases(parsers)
    _add_ablate(parsers)
    _add_describe(parsers)
    _add_align(parsers)
    _add_compare(parsers)
    _add_report(parsers)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but for options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default is not None and action.default is not False
        return super()._get_help_string(action) if shown else action.help


def _command(parsers: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command = parsers.add_parser(name, help=text, description=text, formatter_class=_Help)
    command.set_defaults(run=run)
    return command


def _add_demo(parsers: Any) -> None:
    command = _command(parsers, "demo", commands.demo, "run everything on a small model, offline")
    command.add_argument("--languages", type=_names, help="such as en,zh,sw (default: all ten)")
    command.add_argument("--items", type=_positive, default=100, help="problems a language")
    command.add_argument("--out", type=Path, default=Path("lensneurons-demo.html"), help="page")


def _add_collect(parsers: Any) -> None:
    text = "count activations of a model over a corpus"
    command = _command(parsers, "collect", commands.collect, text)
    _add_model(command, dtype="float32")
    _add_corpus(command)
    command.add_argument("--out", required=True, type=Path, help="run folder; resumed if begun")
    command.add_argument("--languages", type=_names, help="such as en,zh,sw (default: all)")
    command.add_argument("--scope", default="response", choices=SCOPES, help="tokens that count")
    command.add_argument("--groups", type=_positive, default=10, help="groups for intervals")
    command.add_argument("--batch-tokens", type=_positive, default=4096, help="padding included")
    command.add_argument("--max-length", type=_positive, help="longest text in tokens")
    command.add_argument("--overlong", default="refuse", choices=("refuse", "cut"))


def _add_identify(parsers: Any) -> None:
    text = "classify neurons by their languages"
    command = _command(parsers, "identify", commands.identify, text)
    _add_source(command)
    command.add_argument("--out", type=Path, help="folder for neurons, table and page")


def _add_phases(parsers: Any) -> None:
    text = "divide the layers into the four parts"
    command = _command(parsers, "phases", commands.phases, text)
    _add_source(command)
    command.add_argument("--draws", type=_positive, default=100, help="bootstrap draws")


def _add_ablate(parsers: Any) -> None:
    text = "remove each language's neurons in turn, and see what becomes of every language"
    command = _command(parsers, "ablate", experiments.ablate, text)
    _add_model(command)
    _add_run(command)
    _add_corpus(command)
    command.add_argument("--out", required=True, type=Path, help="folder; resumed if begun")
    command.add_argument(
        "--languages", type=_names, help="whose neurons are removed (default: all of RUN)"
    )
    command.add_argument(
        "--evaluate", type=_names, help="languages of the columns (default: all of RUN)"
    )
    command.add_argument(
        "--classes", type=_names, default="specific,related,agnostic",
        help="a setting each, which removes its class and those named before it",
    )  # fmt: skip
    command.add_argument(
        "--metric", type=_names, default="nll", help="nll, accuracy (slow), or nll,accuracy"
    )
    command.add_argument("--controls", type=_positive, default=20, help="random sets a control")
    command.add_argument("--max-new-tokens", type=_positive, help="of an answer, for accuracy")
    command.add_argument("--scope", default="response", choices=SCOPES, help="tokens of the NLL")
    command.add_argument("--batch-tokens", type=_positive, default=4096, help="padding included")
    command.add_argument("--seed", type=_number, default=0, help="of the random sets")


def _add_describe(parsers: Any) -> None:
    text = "put together all that can be said about some neurons"
    command = _command(parsers, "describe", experiments.describe, text)
    _add_model(command)
    _add_run(command)
    command.add_argument("neurons", nargs="+", metavar="NEURON", help="such as L12N345")
    _add_corpus(command, limit=20)
    command.add_argument("--out", type=Path, help="page with the cards")
    command.add_argument("--save", type=Path, help="folder for a file a card, which report takes")
    command.add_argument("--languages", type=_names, help="of the corpus (default: all of RUN)")
    command.add_argument("--scope", default="response", choices=SCOPES, help="tokens that count")


def _add_align(parsers: Any) -> None:
    text = "teach a model to answer in some languages as it answers in one"
    command = _command(parsers, "align", alignments.align, text)
    _add_model(command, dtype="float32", adapter=False)
    _add_corpus(command)
    command.add_argument("--out", required=True, type=Path, help="folder; resumed if begun")
    command.add_argument("--languages", required=True, type=_names, help="to train, such as zh,de")
    command.add_argument("--pivot", default="en", help="language that they are aligned to")
    command.add_argument("--samples", type=_positive, default=8, help="answers a problem")
    command.add_argument("--temperature", type=float, default=1.0, help="of the answers")
    command.add_argument("--max-new-tokens", type=_positive, help="of an answer")
    command.add_argument(
        "--scorer", default="consistency", help="or a translation model, on the hub or in a folder"
    )
    command.add_argument("--per-item", type=_positive, default=4, help="pairs a problem")
    command.add_argument("--per-language", type=_positive, default=10_000, help="pairs a language")
    command.add_argument("--shuffled", action="store_true", help="turn pairs at random: a control")
    command.add_argument("--steps", type=_positive, default=1000, help="of training")
    command.add_argument("--batch", type=_positive, default=16, help="pairs a step")
    command.add_argument("--micro-batch", type=_positive, default=4, help="pairs at once")
    command.add_argument("--learning-rate", type=float, default=1e-6, help="peak, of AdamW")
    command.add_argument("--beta", type=float, default=0.1, help="price of a step from the model")
    command.add_argument("--rank", type=_positive, default=64, help="of the adapter")
    command.add_argument("--alpha", type=_number, default=128, help="the adapter counts alpha/rank")
    command.add_argument("--checkpoint-every", type=_positive, default=250, help="steps")
    command.add_argument("--seed", type=_number, default=0, help="of everything that is drawn")


def _add_compare(parsers: Any) -> None:
    text = "say what changed between two runs, and which claims of the paper hold"
    command = _command(parsers, "compare", alignments.compare, text)
    command.add_argument("before", metavar="RUN_A", type=Path, help="run folder of collect")
    command.add_argument("after", metavar="RUN_B", type=Path, help="the same of the other model")
    command.add_argument("--trained", type=_names, default=[], help="languages that RUN_B learned")
    command.add_argument("--pivot", default="en", help="language that they were aligned to")
    command.add_argument("--tau", type=float, help="one bar for both (default: that of RUN_A)")
    command.add_argument("--percentile", type=float, default=0.95, help="of tau")
    command.add_argument("--out", type=Path, help="folder for the tables")
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_report(parsers: Any) -> None:
    text = "put everything that was found on one page that needs no network"
    command = _command(parsers, "report", pages.report, text)
    command.add_argument(
        "folders", metavar="RUN", nargs="+", type=Path,
        help="a run folder of collect; then any later runs, folders of ablate and describe, and "
        "saved values",
    )  # fmt: skip
    command.add_argument("--out", type=Path, default=Path("lensneurons-report.html"), help="page")
    command.add_argument("--title", default="Language neurons", help="heading of the page")
    command.add_argument(
        "--trained",
        type=_names,
        default=[],
        help="languages trained after the first run",
    )
    _add_identification(command)


def _add_source(command: argparse.ArgumentParser) -> None:
    """The options of commands that identify neurons and need no model."""
    command.add_argument("folder", metavar="FOLDER", type=Path, help="run folder of collect")
    command.add_argument(
        "--published", action="store_true", help="FOLDER holds published .pt counts"
    )
    command.add_argument("--languages", type=_names, help="such as en,zh,sw (default: all)")
    _add_identification(command)


def _add_run(command: argparse.ArgumentParser) -> None:
    """The options of commands that identify neurons and test them on their model."""
    command.add_argument("folder", metavar="RUN", type=Path, help="run folder of collect")
    _add_identification(command)
    command.add_argument(
        "--other-weights", action="store_true",
        help="MODEL may have other weights than RUN was collected from, after training, say",
    )  # fmt: skip


def _add_identification(command: argparse.ArgumentParser) -> None:
    """How neurons are identified, and whether the result is one JSON object."""
    command.add_argument("--top-rate", type=float, default=0.01, help="share of neurons to select")
    command.add_argument("--percentile", type=float, default=0.95, help="of tau")
    command.add_argument(
        "--lambda", dest="lambda_", type=_weight, default="auto", help="a number, or found exactly"
    )
    command.add_argument("--tau", type=float, help="a bar to use instead of the percentile")
    command.add_argument("--score", default="paper", choices=("paper", "lape"))
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_corpus(command: argparse.ArgumentParser, *, limit: int | None = None) -> None:
    command.add_argument("--corpus", required=True, help="file or folder, or 'demo'")
    told = "items a language" if limit else "items a language (default: all)"
    command.add_argument("--limit", type=_positive, default=limit, help=told)
    command.add_argument("--split", help="split of a corpus that has several")


def _add_model(
    command: argparse.ArgumentParser, *, dtype: str | None = None, adapter: bool = True
) -> None:
    command.add_argument("model", metavar="MODEL", help="name on the hub, local folder, or 'demo'")
    command.add_argument(
        "--dtype", default=dtype, choices=("float32", "float16", "bfloat16"),
        help="of weights and activations" + ("" if dtype else " (default: that of RUN)"),
    )  # fmt: skip
    command.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    command.add_argument("--revision", help="branch, tag or commit on the hub")
    command.add_argument("--offline", action="store_true", help="never ask the hub")
    if adapter:
        command.add_argument("--adapter", help="of the model: a folder, what align wrote, say")
    else:
        command.set_defaults(adapter=None)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _weight(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'auto'") from None
