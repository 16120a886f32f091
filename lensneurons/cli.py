"""The command line: `lensneurons demo | collect | identify | phases`.

Each command is the function of the same name with its options as flags. Bad input ends with one
line on stderr and exit code 2. Nothing heavy is imported before a command runs, so `--help`
answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lensneurons.neurons import LanguageNeurons
    from lensneurons.phases import LayerParts
    from lensneurons.statistics import ActivationStatistics

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 when interrupted."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:
        from lensneurons.errors import LensNeuronsError

        if not isinstance(error, LensNeuronsError):
            raise
        sys.stderr.write(f"lensneurons {options.command}: {' '.join(str(error).split())}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write(f"lensneurons {options.command}: interrupted\n")
        return INTERRUPTED
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from lensneurons import __version__

    parser = _Parser(
        prog="lensneurons",
        description="Find the neurons of a language model that belong to one language, to several, "
        "or to all, and the four parts that they divide the layers into.",
    )
    parser.add_argument("--version", action="version", version=f"lensneurons {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_collect(commands)
    _add_identify(commands)
    _add_phases(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    command.set_defaults(run=run)
    return command


def _add_demo(commands: Any) -> None:
    command = _command(commands, "demo", _demo, "run everything on a small model, offline")
    command.add_argument("--languages", type=_names, help="such as en,zh,sw (default: all ten)")
    command.add_argument("--items", type=_positive, default=100, help="problems a language")
    command.add_argument("--out", type=Path, default=Path("lensneurons-demo.html"), help="page")


def _add_collect(commands: Any) -> None:
    command = _command(commands, "collect", _collect, "count activations of a model over a corpus")
    command.add_argument("model", metavar="MODEL", help="name on the hub, or local folder")
    command.add_argument("--corpus", required=True, help="file or folder, or 'demo'")
    command.add_argument("--out", required=True, type=Path, help="run folder; resumed if begun")
    command.add_argument("--languages", type=_names, help="such as en,zh,sw (default: all)")
    command.add_argument("--limit", type=_positive, help="items a language (default: all)")
    command.add_argument("--split", help="split of a corpus that has several")
    command.add_argument("--scope", default="response", choices=("response", "prompt", "all"))
    command.add_argument("--groups", type=_positive, default=10, help="groups for intervals")
    command.add_argument("--batch-tokens", type=_positive, default=4096, help="padding included")
    command.add_argument("--max-length", type=_positive, help="longest text in tokens")
    command.add_argument("--overlong", default="refuse", choices=("refuse", "cut"))
    command.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    command.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    command.add_argument("--revision", help="branch, tag or commit on the hub")
    command.add_argument("--offline", action="store_true", help="never ask the hub")


def _add_source(command: argparse.ArgumentParser) -> None:
    """The options of commands that identify neurons from a folder."""
    command.add_argument("folder", metavar="FOLDER", type=Path, help="run folder of collect")
    command.add_argument(
        "--published", action="store_true", help="FOLDER holds published .pt counts"
    )
    command.add_argument("--languages", type=_names, help="such as en,zh,sw (default: all)")
    command.add_argument("--top-rate", type=float, default=0.01, help="share of neurons to select")
    command.add_argument("--percentile", type=float, default=0.95, help="of tau")
    command.add_argument(
        "--lambda", dest="lambda_", type=_weight, default="auto", help="a number, or found exactly"
    )
    command.add_argument("--tau", type=float, help="a bar to use instead of the percentile")
    command.add_argument("--score", default="paper", choices=("paper", "lape"))
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_identify(commands: Any) -> None:
    command = _command(commands, "identify", _identify, "classify neurons by their languages")
    _add_source(command)
    command.add_argument("--out", type=Path, help="folder for neurons, table and page")


def _add_phases(commands: Any) -> None:
    command = _command(commands, "phases", _phases, "divide the layers into the four parts")
    _add_source(command)
    command.add_argument("--draws", type=_positive, default=100, help="bootstrap draws")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no language")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _weight(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'auto'") from None


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _demo(options: argparse.Namespace) -> None:
    from lensneurons.demo.run import run_demo

    run_demo(options.out, languages=options.languages, items=options.items, say=_say)


def _collect(options: argparse.Namespace) -> None:
    from lensneurons.activations import collect
    from lensneurons.corpora import load_corpus
    from lensneurons.models import load_model

    corpus = load_corpus(
        options.corpus, languages=options.languages, split=options.split, limit=options.limit
    )
    model = load_model(
        options.model,
        device=options.device,
        dtype=options.dtype,
        revision=options.revision,
        local_files_only=options.offline,
    )
    statistics = collect(
        model,
        corpus,
        scope=options.scope,
        run_dir=options.out,
        groups=options.groups,
        batch_tokens=options.batch_tokens,
        max_length=options.max_length,
        overlong=options.overlong,
    )
    _say(repr(statistics))


def _read(options: argparse.Namespace) -> ActivationStatistics:
    """Statistics of a run folder, or of published counts."""
    from lensneurons.published import holds_published_counts, read_published_counts
    from lensneurons.statistics import ActivationStatistics

    if options.published or holds_published_counts(options.folder):
        return read_published_counts(options.folder, languages=options.languages)
    statistics = ActivationStatistics.load(options.folder)
    return statistics.select(options.languages) if options.languages else statistics


def _find(options: argparse.Namespace, statistics: ActivationStatistics) -> LanguageNeurons:
    from lensneurons.identification import identify

    return identify(
        statistics,
        score=options.score,
        top_rate=options.top_rate,
        percentile=options.percentile,
        lambda_=options.lambda_,
        tau=options.tau,
    )


def _identify(options: argparse.Namespace) -> None:
    statistics = _read(options)
    neurons = _find(options, statistics)
    parts = _parts(neurons)
    if options.out is not None:
        _write(options.out, neurons, parts)
    _say(json.dumps(summarise(neurons, parts)) if options.json else describe(neurons, parts))


def _phases(options: argparse.Namespace) -> None:
    from lensneurons.phases import divide_layers

    statistics = _read(options)
    grouped = statistics if statistics.n_groups > 1 else None
    parts = divide_layers(_find(options, statistics), grouped, draws=options.draws)
    _say(json.dumps(summarise_parts(parts)) if options.json else describe_parts(parts))


def _parts(neurons: LanguageNeurons) -> LayerParts | None:
    """The parts, or None for a model with too few layers to have four."""
    from lensneurons.phases import FEWEST_LAYERS, divide_layers

    return divide_layers(neurons) if neurons.n_layers >= FEWEST_LAYERS else None


def _write(folder: Path, neurons: LanguageNeurons, parts: LayerParts | None) -> None:
    """Neurons, table and page of one identification."""
    from lensneurons.report import report
    from lensneurons.storage import replacing

    neurons.save(folder / "neurons.safetensors")
    with replacing(folder / "neurons.csv") as path:
        neurons.to_pandas().to_csv(path, index=False)
    report(folder / "neurons.html", neurons, parts)


def summarise(neurons: LanguageNeurons, parts: LayerParts | None) -> dict[str, Any]:
    """What ``identify --json`` prints."""
    return {
        "lambda": neurons.lambda_,
        "lambda_origin": neurons.lambda_origin,
        "tau": neurons.tau,
        "selected": int(neurons.selected.sum()),
        "histogram": neurons.histogram("selected").tolist(),
        "histogram_all": neurons.histogram("all").tolist(),
        "per_language": {
            language: {
                "specific": len(neurons.specific[language]),
                "related": len(neurons.related[language]),
            }
            for language in neurons.languages
        },
        "layers": neurons.layer_profile("all").tolist(),
        "parts": _spans(parts),
    }


def _spans(parts: LayerParts | None) -> list[list[int]] | None:
    found = parts.boundaries if parts is not None else None
    return [list(span) for span in found] if found is not None else None


def summarise_parts(parts: LayerParts) -> dict[str, Any]:
    """What ``phases --json`` prints."""
    return {
        "parts": _spans(parts),
        "best_division": [[part.first, part.last] for part in parts.parts],
        "criteria": [
            {"part": c.part, "claim": c.claim, "holds": c.holds, "measured": c.measured}
            for c in parts.criteria
        ],
        "explained": list(parts.explained),
        "shuffle_p": parts.shuffle_p,
        "intervals": {
            str(number): list(parts.interval(number)) for number in _with_intervals(parts)
        },
    }


def _with_intervals(parts: LayerParts) -> list[int]:
    """The parts whose first layer has a bootstrap interval."""
    if parts.draws is None:
        return []
    return [number for number in (2, 3, 4) if (parts.draws[:, number - 2] >= 0).any()]


def describe(neurons: LanguageNeurons, parts: LayerParts | None) -> str:
    """The result of an identification as a short text."""
    counts = ", ".join(f"N={n} {count:,}" for n, count in enumerate(neurons.histogram("all")))
    lines = [neurons.description, "", neurons.per_language().to_string(), ""]
    lines += [f"all neurons by number of languages above tau: {counts}"]
    return "\n".join([*lines, repr(parts) if parts else "fewer than five layers: no parts"])


def describe_parts(parts: LayerParts) -> str:
    """The parts and their evidence as a short text."""
    lines = [repr(parts), ""]
    lines += [f"  {'yes' if c.holds else 'NO ':3} {c.claim} ({c.measured})" for c in parts.criteria]
    lines += [
        f"  part {number} begins in layers {low} to {high} (95 % of {len(parts.draws)} draws)"
        for number in _with_intervals(parts)
        for low, high in [parts.interval(number)]
        if parts.draws is not None
    ]
    return "\n".join(lines)
