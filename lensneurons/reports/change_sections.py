"""What changed between two models, or along the checkpoints of a training run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lensneurons import plots
from lensneurons.comparison.before_after import Comparison, p_text
from lensneurons.comparison.paper_claims import Claim, Claims
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.notes import MINUS
from lensneurons.reports.contents import Section, Table, table_of
from lensneurons.reports.findings import Findings


def change_sections(findings: Findings) -> Iterator[Section]:
    """Claims, comparison and series, as far as they are there."""
    if findings.claims is not None:
        yield Section(
            "The claims of the paper, tested",
            "Each claim with its number, its interval and its p-value: it holds, it does not, or "
            "these data do not decide.",
            plots.claims(findings.claims),
            open_tables=(_claims_table(findings.claims),),
            least_width=860,
        )
    if findings.comparison is not None:
        yield from _compared(findings.comparison, findings.parts)
    if (series := findings.series) is not None:
        yield Section(
            "Along the training",
            f"Every checkpoint against the first one, {series.first}.",
            plots.checkpoint_series(series),
            (_change_table(series.to_pandas("layers"), series.description),),
        )


def _compared(comparison: Comparison, parts: LayerParts | None) -> Iterator[Section]:
    yield Section(
        "In how many languages a neuron is active",
        "Neurons by the number N of languages they are active in, before and after.",
        plots.histogram_change(comparison),
        (_change_table(comparison.to_pandas(), comparison.description),),
    )
    yield Section(
        "From where to where",
        "Neurons by N before and N after; those on the diagonal stayed.",
        plots.transitions(comparison),
        (_flow_table(comparison),),
    )
    yield Section(
        "Layer by layer",
        "Change of specific, related and agnostic neurons in every layer.",
        plots.class_changes(comparison, parts if parts is not None and parts.found else None),
        (_change_table(comparison.to_pandas("layers"), comparison.description),),
    )
    yield Section(
        "Language by language",
        "Change of the specific and related neurons of each language.",
        plots.language_changes(comparison),
        (_change_table(comparison.to_pandas("languages"), comparison.description),),
    )


def _flow_table(comparison: Comparison) -> Table:
    numbers = range(len(comparison.languages) + 1)
    rows = tuple((f"N = {n}", *comparison.transitions[n].tolist()) for n in numbers)
    return Table(("before", *(f"N = {n} after" for n in numbers)), rows, comparison.description)


def _claims_table(claims: Claims) -> Table:
    rows = tuple(
        (row.claim, row.expected, _number(row.measured), _ends(row), p_text(row.p), _verdict(row))
        for row in claims
    )
    head = ("claim", "expected", "measured", "interval", "p", "verdict")
    return Table(head, rows, claims.description)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4g}".replace("-", MINUS)


def _ends(row: Claim) -> str:
    return "" if np.isnan(row.low) else f"{_number(row.low)} to {_number(row.high)}"


def _verdict(row: Claim) -> str:
    sign = {"holds": "✓", "does not hold": "✗", "undecided": "?"}[row.verdict]
    return f"{sign} {row.verdict}{': ' if row.reason else ''}{row.reason}"


def _change_table(frame: pd.DataFrame, caption: str) -> Table:
    """Before, after and change with its interval in one cell."""
    low, high = frame.pop("low"), frame.pop("high")
    ends = [
        "" if np.isnan(a) else f"{a:+.1f} to {b:+.1f}".replace("-", MINUS)
        for a, b in zip(low, high, strict=True)
    ]
    frame.insert(len(frame.columns) - 1, "95% interval", ends)
    frame["p"] = [p_text(p) for p in frame["p"]]
    frame["change"] = [f"{change:+g}".replace("-", MINUS) for change in frame["change"]]
    return table_of(frame, caption)
