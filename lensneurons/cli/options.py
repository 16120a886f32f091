"""The options of each command, and what they may hold.

An option has the name of the argument in the function behind the command. Options that several
commands share stand in one function: how neurons are identified, the corpus, the model. Nothing
heavy is imported here, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from lensneurons.cli.examples import EXAMPLES
from lensneurons.errors import shown

Add = Callable[..., object]
BAD_INPUT = 2
_MESSAGE = 1000  # characters; a longer one quotes a long argument
_SIZE = re.compile(r"\d{1,6}([.]\d{1,6})?[KMGT]i?B", re.ASCII)
_DIGITS = 18  # of the largest whole number, which fits 64 bits
SCOPES = ("response", "prompt", "all")
_EXPERTS = ("experts", "expert_neurons", "shared_neurons")
SITES = ("neurons", *_EXPERTS, "q", "k", "v", "attn_out", "mlp_out")
SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")
POOLS = ("all", "unselected", "below tau")
METHODS = ("zero", "mean")  # resampling needs a second corpus
# How neurons are scored; a test holds them against `lensneurons.neurons.methods.Method`.
WAYS = ("paper", "lape", "activation_entropy", "difference", "average_precision",
        "paired_difference", "script_lape")  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, like every other error of the package."""

    def error(self, message: str) -> NoReturn:
        message = message if len(message) <= _MESSAGE else f"{message[:_MESSAGE]}..."
        self.exit(BAD_INPUT, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Read the options, after commands and options that are none were refused by name."""
        given = list(sys.argv[1:] if args is None else args)
        commands = next(
            (one.choices for one in self._actions if isinstance(one.choices, Mapping)), {}
        )
        name = given[0] if given else ""
        if commands and name and not name.startswith("-"):
            if name not in commands:
                self.error(
                    f"{shown(name)} is no command{_nearest(name, commands)}; {_all(commands)}"
                )
            _refuse_unknown(commands[name], given[1:])
        return super().parse_args(args, namespace)


def _refuse_unknown(command: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """End with an error that names an option which the command does not have, and its nearest."""
    known = [name for name in command._option_string_actions if name.startswith("--")]
    for one in given:
        if one == "--":
            return
        name = one.partition("=")[0]
        if name.startswith("--") and not any(option.startswith(name) for option in known):
            command.error(f"{shown(name)} is no option{_nearest(name, known)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    """The name that was probably meant, as the end of a clause; or nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def _all(commands: Iterable[str]) -> str:
    return f"there are {', '.join(commands)}"


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows defaults, except of options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default is not None and action.default is not False
        return super()._get_help_string(action) if shown else action.help

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # Examples stand as they are, each on a line of its own, to be copied.
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from lensneurons import __version__

    parser = _Parser(
        prog="lensneurons",
        description="Find the neurons of a language model that belong to one language, to several, "
        "or to all, the four parts that they divide the layers into, and what removing them does.",
        epilog="Begin with: lensneurons demo. Of every command: lensneurons COMMAND --help.",
    )
    parser.add_argument("--version", action="version", version=f"lensneurons {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> Add:
        told = "examples:\n" + "\n".join(f"  {one}" for one in EXAMPLES[name])
        added = commands.add_parser(
            name, help=text, description=text, epilog=told, formatter_class=_Help
        )
        return added.add_argument

    add = command("demo", "run everything on a small model, offline")
    add("--languages", type=_names, help="such as en,zh,sw (default: all ten)")
    add("--items", type=_positive, default=30, help="problems a language")
    add("--out", type=Path, default=Path("lensneurons-demo.html"), help="the report")

    _declare_study(command("study", "do the whole analysis of a model, in a folder"))
    _declare_collect(command("collect", "count activations of a model over a corpus"))

    add = command("merge", "add up the counts of several runs, or of several machines")
    told = "run folders of collect with different texts, files of statistics, or sums of them"
    add("parts", metavar="PART", nargs="+", type=Path, help=told)
    add("--out", required=True, type=Path, help="file of the sum")

    add = command("identify", "classify neurons by their languages")
    _add_source(add)
    add("--out", type=Path, help="folder for neurons, table and report")

    add = command("parts", "divide the layers into the four parts")
    _add_source(add)
    add("--draws", type=_positive, default=100, help="bootstrap draws")

    _declare_ablate(command("ablate", "remove the neurons of each language, measure them all"))
    _declare_describe(command("describe", "show all that is known about some neurons"))
    _declare_export(command("export", "write a model without some neurons as an ordinary folder"))
    _declare_records(command("records", "write activations for tools of automated interpretation"))
    _declare_align(command("align", "teach a model to answer in some languages as in another"))

    add = command("random-adapter", "write a control: an adapter as large, in a random direction")
    add("adapter", metavar="ADAPTER", help="folder of a LoRA adapter, or a name of the demo's")
    add("--out", required=True, type=Path, help="new folder")
    add("--seed", type=_number, default=0, help="of the direction")

    _declare_compare(command("compare", "test what changed between two runs, claim by claim"))

    add = command("report", "put everything that was found into one file")
    told = "run folder of collect; then later runs, folders of ablate and describe, saved values"
    add("folders", metavar="RUN", nargs="+", type=Path, help=told)
    add("--out", type=Path, default=Path("lensneurons-report.html"), help="the report")
    add("--title", default="Language neurons", help="heading of the report")
    add("--trained", type=_names, default=[], help="languages trained after the first run")
    _add_identification(add)
    return parser


def _declare_study(add: Add) -> None:
    _add_model(add, dtype="float32", adapter=False)
    _add_corpus(add)
    _add_chat(add)
    add("--out", required=True, type=Path, help="folder; resumed if begun")
    add("--dry-run", action="store_true", help="measure one batch, and say what all would cost")
    add("--budget", type=_duration, help="read fewer items so that it fits, such as 30m or 2h")
    add("--skip", type=_names, default=[], help="steps to leave out: lens, effects, cards")
    add("--aligned", metavar="MODEL2", help="a second model, to compare with")
    add("--adapter", help="the same of MODEL with this adapter")
    add("--trained", type=_names, default=[], help="languages that the second one was trained on")
    add("--other", metavar="CORPUS2", help="a second corpus, for the stability of the neurons")
    add("--languages", type=_names, help="such as en,zh,sw (default: all)")
    add("--removed", type=_names, help="whose neurons are removed (default: all)")
    add("--items", type=_positive, help="that are counted (default: all but those of the effects)")
    add("--effect-items", type=_positive, default=20, help="for the effects, the last ones")
    add("--controls", type=_positive, default=20, help="random sets a control, or one an item")
    told = "what random sets share with the set: p in its own language, mean p, or just the layers"
    add("--match", type=_names, default="own", help=told)
    add("--lens-items", type=_positive, default=20, help="for the logit lens")
    add("--card-items", type=_positive, default=20, help="for the cards")
    add("--cards", type=_positive, default=2, help="of each language")
    told = "compare ways to find neurons, and measure coupling (without names: the four best known)"
    known = ["lape", "difference", "average_precision", "plnd"]
    add("--methods", type=_names, nargs="?", const=known, default=[], metavar="NAMES", help=told)
    told = "counted items that methods of single texts, measures and coupling read"
    add("--method-items", type=_positive, default=80, help=told)
    add("--method-neurons", type=_positive, default=100, help="of each language by each method")
    add("--single-neurons", type=_positive, default=100, help="that are removed one by one")
    steps = "remove the first class, then it and the second, and so on"
    add("--classes", type=_names, default="specific,related,agnostic", help=steps)
    add("--metric", type=_names, default="nll", help="nll, accuracy (slow), or nll,accuracy")
    add("--score", default="lape", choices=("paper", "lape"), help="of the neurons removed")
    add("--top-rate", type=float, default=0.01, help="share of neurons to select")
    add("--scope", default="response", choices=SCOPES, help="tokens that count")
    add("--max-new-tokens", type=_positive, default=256, help="of an answer")
    add("--stop", type=_stop, action="append", default=[], help="cut answers before it; repeatable")
    add("--groups", type=_positive, default=10, help="groups for intervals")
    add("--batch-tokens", type=_positive, default=4096, help="padding included")
    add("--seed", type=_number, default=0, help="of everything that is drawn")
    add("--figures", type=_names, default=[], help="svg, png (both start Chrome) or html")
    add("--title", help="heading of the page")
    _add_engine(add)
    add("--json", action="store_true", help="print one JSON object")


def _declare_collect(add: Add) -> None:
    _add_model(add, dtype="float32")
    _add_corpus(add)
    _add_chat(add)
    add("--out", required=True, type=Path, help="run folder; resumed if begun")
    add("--languages", type=_names, help="such as en,zh,sw (default: all)")
    sites = "what is counted; of a mixture of experts their choices, or the neurons inside"
    add("--site", default="neurons", choices=SITES, help=sites)
    add("--branches", action="store_true", help="count the linear half of gated neurons too")
    add("--scope", default="response", choices=SCOPES, help="tokens that count")
    add("--groups", type=_positive, default=10, help="groups for intervals")
    add("--batch-tokens", type=_positive, default=4096, help="padding included")
    add("--max-length", type=_positive, help="longest text in tokens")
    add("--overlong", default="refuse", choices=("refuse", "cut"))
    add("--romanised", action="store_true", help="count the texts in Latin letters (uroman)")
    told = "write the activations of single texts as well, for identify --items FILE"
    add("--items", type=Path, metavar="FILE", help=told)
    add("--stream", action="store_true", help="read shard by shard what is larger than memory")
    add("--shard-items", type=_positive, default=1000, help="rows of a shard of --stream")
    _add_engine(add)


def _declare_ablate(add: Add) -> None:
    _add_model(add)
    _add_run(add)
    _add_corpus(add)
    _add_chat(add)
    add("--out", required=True, type=Path, help="folder; resumed if begun")
    add("--languages", type=_names, help="whose neurons are removed (default: all of RUN)")
    add("--evaluate", type=_names, help="languages of the columns (default: all of RUN)")
    steps = "remove the first class, then it and the second, and so on"
    add("--classes", type=_names, default="specific,related,agnostic", help=steps)
    add("--metric", type=_names, default="nll", help="nll, accuracy (slow), or nll,accuracy")
    add("--controls", type=_positive, default=20, help="random sets a control, or one an item")
    told = "what random sets share with the set: p in its own language, mean p, or just the layers"
    add("--match", type=_names, default="own,activity,layer", help=told)
    add("--pool", default="all", choices=POOLS, help="neurons that random sets are drawn from")
    add("--method", default="zero", choices=METHODS, help="what stands in for an activation")
    add("--max-new-tokens", type=_positive, help="of an answer, for accuracy")
    add("--stop", type=_stop, action="append", default=[], help="cut answers before it; repeatable")
    add("--shots", help="file of worked examples, put before each prompt in its language")
    add("--n-shots", type=_positive, help="examples a language (default: all of the file)")
    add("--scope", default="response", choices=SCOPES, help="tokens of the NLL")
    add("--batch-tokens", type=_positive, default=4096, help="padding included")
    add("--seed", type=_number, default=0, help="of the random sets")
    _add_engine(add)


def _declare_describe(add: Add) -> None:
    _add_model(add)
    _add_run(add)
    add("neurons", nargs="+", metavar="NEURON", help="such as L12N345")
    _add_corpus(add, limit=20)
    _add_chat(add)
    add("--out", type=Path, help="page with the cards")
    add("--save", type=Path, help="folder for a file a card, which report takes")
    add("--languages", type=_names, help="of the corpus (default: all of RUN)")
    add("--scope", default="response", choices=SCOPES, help="tokens that count")


def _declare_export(add: Add) -> None:
    _add_model(add)
    _add_run(add)
    add("--out", required=True, type=Path, help="new folder")
    add("--languages", required=True, type=_names, help="whose neurons, such as zh,de")
    add("--classes", type=_names, default="specific,related", help="specific, related, agnostic")
    add("--factor", type=float, default=0.0, help="of their activations: 0 ablates")


def _declare_records(add: Add) -> None:
    _add_model(add)
    _add_run(add)
    _add_corpus(add)
    add("--out", required=True, type=Path, help="new folder")
    add("--languages", required=True, type=_names, help="whose neurons, such as zh,de")
    _add_chat(add)
    add("--texts", type=_names, help="languages of the texts (default: those of --languages)")
    add("--classes", type=_names, default="specific,related", help="specific, related, agnostic")
    add("--top", type=_positive, default=20, help="strongest texts of a neuron")
    add("--random", type=_positive, default=20, help="texts drawn at random")
    add("--seed", type=_number, default=0, help="of the draws")
    add("--scope", default="response", choices=SCOPES, help="tokens of a record")
    add("--batch-tokens", type=_positive, default=4096, help="padding included")


def _declare_align(add: Add) -> None:
    _add_model(add, dtype="float32", adapter=False)
    _add_corpus(add)
    _add_chat(add)
    add("--out", required=True, type=Path, help="folder; resumed if begun")
    add("--languages", required=True, type=_names, help="to train, such as zh,de")
    add("--pivot", default="en", help="language that they are aligned to")
    add("--samples", type=_positive, default=8, help="answers a problem")
    add("--temperature", type=float, default=1.0, help="of the answers")
    add("--max-new-tokens", type=_positive, help="of an answer")
    add("--stop", type=_stop, action="append", default=[], help="cut answers before it; repeatable")
    add("--shots", help="file of worked examples, put before each prompt in its language")
    add("--n-shots", type=_positive, help="examples a language (default: all of the file)")
    add("--scorer", default="consistency", help="or a translation model, on the hub or in a folder")
    add("--per-item", type=_positive, default=4, help="pairs a problem")
    add("--per-language", type=_positive, default=10_000, help="pairs a language")
    add("--shuffled", action="store_true", help="train on pairs turned at random: a control")
    add("--steps", type=_positive, default=1000, help="of training")
    add("--batch", type=_positive, default=16, help="pairs a step")
    add("--micro-batch", type=_positive, default=4, help="pairs at once")
    add("--learning-rate", type=float, default=1e-6, help="peak, of AdamW")
    add("--beta", type=float, default=0.1, help="price of a step from the model")
    add("--rank", type=_positive, default=64, help="of the adapter")
    add("--alpha", type=_number, default=128, help="the adapter counts alpha/rank")
    add("--checkpoint-every", type=_positive, default=250, help="steps")
    add("--seed", type=_number, default=0, help="of everything that is drawn")


def _declare_compare(add: Add) -> None:
    add("before", metavar="RUN_A", type=Path, help="run folder of collect")
    add("after", metavar="RUN_B", type=Path, help="the same of the other model")
    add("--trained", type=_names, default=[], help="languages that RUN_B learned")
    add("--pivot", default="en", help="language that they were aligned to")
    add("--tau", type=float, help="one bar for both (default: that of RUN_A)")
    add("--percentile", type=float, default=0.95, help="of tau")
    add("--out", type=Path, help="folder for the tables")
    add("--json", action="store_true", help="print one JSON object")


def _add_source(add: Add) -> None:
    """The options of commands that identify neurons and need no model."""
    add("folder", metavar="FOLDER", type=Path, help="run folder of collect, or file of merge")
    add("--published", action="store_true", help="FOLDER holds published .pt counts")
    add("--languages", type=_names, help="such as en,zh,sw (default: all)")
    # `--method` of `ablate` is another thing, so this one is kept under a name of its own.
    told = "how neurons are scored, in place of --score"
    add("--method", dest="way", choices=WAYS, help=told)
    told = "for the methods of single texts: what collect --items FILE wrote"
    add("--items", type=Path, metavar="FILE", help=told)
    told = "for script_lape: what collect --romanised wrote of the same texts"
    add("--romanised", type=Path, metavar="RUN", help=told)
    _add_identification(add)


def _add_run(add: Add) -> None:
    """The options of commands that identify neurons and test them on their model."""
    add("folder", metavar="RUN", type=Path, help="run folder of collect")
    _add_identification(add)
    add("--other-weights", action="store_true", help="allow a MODEL that is not the one of RUN")


def _add_identification(add: Add) -> None:
    """How neurons are identified, and whether the result is one JSON object."""
    add("--top-rate", type=float, default=0.01, help="share of neurons to select")
    add("--percentile", type=float, default=0.95, help="of tau")
    add("--lambda", dest="lambda_", type=_weight, default="auto", help="a number, or found exactly")
    add("--tau", type=float, help="a bar to use instead of the percentile")
    add("--score", choices=("paper", "lape"), help="of the neurons (default: paper)")
    add("--json", action="store_true", help="print one JSON object")


def _add_corpus(add: Add, *, limit: int | None = None) -> None:
    add("--corpus", required=True, help="file or folder, or 'demo'")
    told = "items a language" if limit else "items a language (default: all)"
    add("--limit", type=_positive, default=limit, help=told)
    add("--split", help="split of a corpus that has several")


def _add_chat(add: Add) -> None:
    add("--chat", action="store_true", help="write prompts into the model's own chat template")
    add("--system", help="system prompt of the chat")


def _add_model(add: Add, *, dtype: str | None = None, adapter: bool = True) -> None:
    add("model", metavar="MODEL", help="name on the hub, local folder, or 'demo'")
    told = "of weights and activations" + ("" if dtype else " (default: that of RUN)")
    add("--dtype", default=dtype, choices=("float32", "float16", "bfloat16"), help=told)
    add("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    add("--device-map", choices=SPREADS, help="spread the model over all devices and memory")
    told = "most that each of them takes, such as 0=40GiB,1=40GiB,cpu=200GiB"
    add("--max-memory", type=_memory, metavar="PLACE=SIZE,...", help=told)
    add("--offload-folder", help="folder for the weights that fit nowhere else")
    add("--revision", help="branch, tag or commit on the hub")
    add("--offline", action="store_true", help="never ask the hub")
    if adapter:
        add("--adapter", help="of the model: a folder, such as what align wrote")
        add("--adapter-revision", help="branch, tag or commit of the adapter on the hub")


def _add_engine(add: Add) -> None:
    """Who does the work."""
    add("--engine", default="local", choices=("local", "ray"), help="this process, or workers")
    add("--workers", type=_positive, help="workers of Ray, each with the model (default: 2)")
    add("--worker-cpus", type=_positive, help="processors of each (default: 1)")
    add("--worker-gpus", type=float, help="GPUs of each, such as 1 or 0.5 (default: none)")
    add("--ray-address", help="of a Ray cluster, such as auto (default: Ray on this machine)")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{shown(text)} names nothing")
    return names


def _positive(text: str) -> int:
    if (number := _number(text, "a positive whole number")) < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a positive whole number")
    return number


def _memory(text: str) -> dict[int | str, str]:
    """Place to size: a GPU by its number, or ``cpu``."""
    pairs = [name.partition("=") for name in _names(text)]
    for place, _, size in pairs:
        if not (place == "cpu" or place.isdecimal()) or not _SIZE.fullmatch(size):
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is not such as 0=40GiB,cpu=200GiB: numbers of GPUs, or cpu"
            )
    return {int(place) if place.isdecimal() else place: size for place, _, size in pairs}


def _stop(text: str) -> str:
    r"""A string to stop at; a line break may be written as ``\n``."""
    if not text:
        raise argparse.ArgumentTypeError("an empty string stops every answer at once")
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _number(text: str, what: str = "a whole number") -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{shown(text)} is not {what}")
    if len(text) > _DIGITS:
        raise argparse.ArgumentTypeError(f"{shown(text)} is larger than any number of this program")
    return int(text)


_UNITS = {"s": 1, "m": 60, "h": 3600}


def _duration(text: str) -> float:
    """Seconds of a time such as ``30m``."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    with suppress(ValueError):
        if 0 < (seconds := float(number) * _UNITS[unit]) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"{shown(text)} is no time: give such as 45s, 30m or 2h")


def _weight(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is neither a number nor 'auto'") from None
