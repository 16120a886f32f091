"""What the command `report` does: one page of everything that other commands left in folders.

The first folder is a run of `collect`; its neurons are identified as the options say. What follows
is recognised by its kind: later runs (the model after training, or its checkpoints in order),
folders of `ablate` and `describe`, and files that the `save` of a value wrote.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensneurons.cli.commands import find_neurons, require_writable, say, say_json

if TYPE_CHECKING:
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.neurons.parts import LayerParts

MATRIX = "ablation.safetensors"
CARDS = "L*N*.jsonl"


def report(options: Namespace) -> None:
    """Write the page, and say where it is."""
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.neurons.parts import FEWEST_LAYERS, divide_layers
    from lensneurons.reports import report

    require_writable(options.out.parent)
    first, *others = options.folders
    statistics = ActivationStatistics.load(first)
    neurons = find_neurons(options, statistics)
    grouped = statistics if statistics.n_groups > 1 else None
    many = neurons.n_layers >= FEWEST_LAYERS
    parts = divide_layers(neurons, grouped) if many else None
    found = _gather(others)
    later = found.pop("runs", {})
    if later:
        found |= _compare(statistics, first, later, options.trained, parts)
    page = report(options.out, neurons, parts=parts, title=options.title, **found)
    if options.json:
        say_json({"page": str(page)})
    else:
        say(f"page: {page}")


def _gather(paths: Sequence[Path]) -> dict[str, Any]:
    """What lies at some paths, by the argument of `page.report` that takes it.

    Raises:
        StorageError: a path that holds nothing a page can show.
        LensNeuronsError: two values where a page shows one.
    """
    from lensneurons.errors import LensNeuronsError

    found: dict[str, Any] = {}
    for path in paths:
        for argument, value in _values(path):
            if argument in ("effects", "cards"):
                found.setdefault(argument, []).append(value)
            elif argument == "runs":
                found.setdefault("runs", {})[path] = value
            elif argument in found:
                raise LensNeuronsError(f"{path} holds a second {argument}: a page shows one")
            else:
                found[argument] = value
    return found


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Arguments and values of a file, a run folder, or a folder of `ablate` or `describe`."""
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.comparison.paper_claims import Claims
    from lensneurons.errors import StorageError

    if path.is_file() and path.suffix == ".json":
        yield "claims", Claims.load(path)
    elif path.is_file():
        yield _value(path)
    elif (path / "statistics.safetensors").is_file():
        yield "runs", ActivationStatistics.load(path)
    elif files := [*path.glob(MATRIX), *sorted(path.glob(f"*/{MATRIX}"))]:
        yield from map(_value, files)
    elif files := sorted(path.glob(CARDS)):
        yield from map(_value, files)
    else:
        raise StorageError(
            f"{path} is no run folder, no folder of ablate or describe, and no saved value: "
            "nothing to show"
        )


def _value(path: Path) -> tuple[str, Any]:
    """A saved value and the argument that takes it.

    Raises:
        StorageError: of another kind; those that a page can show are listed.
    """
    from lensneurons.errors import StorageError
    from lensneurons.values.files import read_kind

    kind, loaders = read_kind(path), _loaders()
    if kind not in loaders:
        raise StorageError(f"{path} holds {kind}; a page shows {', '.join(loaders)}, and claims")
    argument, load = loaders[kind]
    return argument, load(path)


def _loaders() -> dict[str, tuple[str, Callable[[Path], Any]]]:
    """The kinds of values that a page can show: the argument that takes each, and its loader."""
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.cards import card
    from lensneurons.comparison.before_after import Comparison
    from lensneurons.comparison.series import ComparisonSeries
    from lensneurons.evaluation.answers import Accuracy
    from lensneurons.experiments import carrying as patch_results
    from lensneurons.experiments import lens as lens_curves
    from lensneurons.experiments import steering as steering_curves
    from lensneurons.experiments.ablation import AblationMatrix

    return {
        ActivationStatistics.FILE_KIND: ("runs", ActivationStatistics.load),
        card.KIND: ("cards", card.NeuronCard.load),
        AblationMatrix.FILE_KIND: (
            "effects",
            AblationMatrix.load,
        ),
        Accuracy.FILE_KIND: ("accuracy", Accuracy.load),
        Comparison.FILE_KIND: ("comparison", Comparison.load),
        ComparisonSeries.FILE_KIND: ("series", ComparisonSeries.load),
        lens_curves.KIND: ("lens", lens_curves.LensCurves.load),
        patch_results.CarryOver.FILE_KIND: ("carry_over", patch_results.CarryOver.load),
        steering_curves.KIND: ("steering", steering_curves.SteeringCurve.load),
    }


def _compare(
    before: ActivationStatistics,
    first: Path,
    later: dict[Path, ActivationStatistics],
    trained: Sequence[str],
    parts: LayerParts | None,
) -> dict[str, Any]:
    """The last run against the first, the claims about it, and a series where there are several."""
    from lensneurons.comparison.before_after import compare
    from lensneurons.comparison.paper_claims import claims
    from lensneurons.comparison.series import compare_series

    *_, last = later.values()
    change = compare(before, last, trained=trained)
    four = parts if parts is not None and parts.found else None
    found: dict[str, Any] = {"comparison": change, "claims": claims(change, parts=four)}
    if len(later) > 1:
        runs = {str(path): run for path, run in {first: before, **later}.items()}
        found["series"] = compare_series(runs, trained=trained)
    return found
