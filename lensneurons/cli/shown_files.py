"""What `lensneurons report` takes from paths: saved values, by the arguments that they become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.card import NeuronCard
from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.coupled_layers import LayerCoupling
from lensneurons.comparison.coupled_neurons import Coupling
from lensneurons.comparison.paper_claims import Claims
from lensneurons.comparison.series import ComparisonSeries
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.evaluation.answers import Accuracy
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.carrying import CarryOver
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.method_comparison import MethodComparison
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.experiments.without import Continuations
from lensneurons.values.files import read_kind

MATRIX = "ablation.safetensors"
CARDS = "L*N*.jsonl"
# Argument of `report` -> class of the values that it takes, as files.
SHOWN: dict[str, Any] = {
    "runs": ActivationStatistics,
    "cards": NeuronCard,
    "effects": AblationMatrix,
    "accuracy": Accuracy,
    "comparison": Comparison,
    "series": ComparisonSeries,
    "lens": LensCurves,
    "carry_over": CarryOver,
    "steering": SteeringCurve,
    "methods": MethodComparison,
    "coupling": Coupling,
    "layer_coupling": LayerCoupling,
    "agreement": MethodAgreement,
    "continuations": Continuations,
}


def gather(paths: Sequence[Path]) -> dict[str, Any]:
    """What lies at some paths, by the argument of `report` that takes it.

    Raises:
        StorageError: a path that holds nothing a report can show.
        LensNeuronsError: two values where a report shows one.
    """
    found: dict[str, Any] = {}
    for path in paths:
        for argument, value in _values(path):
            if argument in ("effects", "cards", "continuations"):
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
    """A saved value and the argument that takes it."""
    loaders = {value.FILE_KIND: (argument, value.load) for argument, value in SHOWN.items()}
    kind = read_kind(path)
    if kind not in loaders:
        raise StorageError(f"{path} holds {kind}; a page shows {', '.join(loaders)}, and claims")
    argument, load = loaders[kind]
    return argument, load(path)
