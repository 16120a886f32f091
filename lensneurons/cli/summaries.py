"""Results as the command line prints them: a short text, or one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensneurons.experiments.ablation import AblationMatrix
    from lensneurons.neurons.language_neurons import LanguageNeurons
    from lensneurons.neurons.parts import LayerParts


def summarise_neurons(neurons: LanguageNeurons, parts: LayerParts | None) -> dict[str, Any]:
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


def describe_neurons(neurons: LanguageNeurons, parts: LayerParts | None) -> str:
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


def summarise_matrices(matrices: Mapping[str, AblationMatrix]) -> dict[str, Any]:
    """What ``ablate --json`` prints: what was removed, and for each metric its summary.

    Figures that have no meaning, such as a ratio to 0, are NaN.
    """
    first = next(iter(matrices.values()))
    sizes = {
        first.name_of(setting): dict(zip(first.rows, row, strict=True))
        for setting, row in zip(first.classes, first.sizes.tolist(), strict=True)
    }
    return {
        "removed": list(first.rows),
        "evaluated": list(first.languages),
        "neurons": sizes,
        "controls": first.draws,
        "summary": {m: matrix.summary().to_dict("records") for m, matrix in matrices.items()},
    }


def describe_matrix(matrix: AblationMatrix, table: Path) -> str:
    """The summary of a deactivation matrix as a short text."""
    from lensneurons.experiments.ablation import UNITS

    head = f"{UNITS[matrix.metric]}; {matrix.draws} random sets a control; cells: {table}"
    rows = matrix.summary().to_string(index=False, float_format="{:.4f}".format)
    return f"{head}\n{rows}\n"
