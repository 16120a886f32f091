"""What removing and steering neurons does, and how well the model answers."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lensneurons import plots
from lensneurons.evaluation.answers import VERDICTS, Accuracy
from lensneurons.experiments.ablation import UNITS, AblationMatrix
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.plots.labels import full_name
from lensneurons.plots.notes import share_with_ends, signed, with_ends
from lensneurons.reports.contents import Section, Table, table_of
from lensneurons.reports.findings import Findings
from lensneurons.reports.words import other_model

_MATRIX_WIDTH = 640  # narrower, the numbers in the cells of ten languages do not fit


def effect_sections(findings: Findings) -> Iterator[Section]:
    """Matrices, steering and accuracy, as far as they are there."""
    for matrix in findings.effects:
        yield Section(
            "What removing them does" if matrix.metric == "nll" else "And to right answers",
            "The neurons of a row's language are set to 0, and every language is evaluated. Random "
            "neurons of the same layers and activity stand beside them: what they do as well is no "
            "matter of languages." + other_model(matrix.provenance, findings.neurons),
            plots.ablation_effects(matrix),
            tuple(_cell_tables(matrix)),
            (_summary_table(matrix),),
            least_width=_MATRIX_WIDTH if len(matrix.languages) > 5 else 0,
        )
    if (curve := findings.steering) is not None:
        yield Section(
            "Steering",
            "What the model writes, and what it loses, when the neurons of a language are turned "
            "up." + other_model(curve.provenance, findings.neurons),
            plots.steering_curve(curve),
            (_steering_table(curve),),
        )
    if (accuracy := findings.accuracy) is not None:
        yield Section(
            "Right answers, in the right language",
            "The last number of a text is its answer; the language of the whole text is identified "
            "by a library. Shares of the answers with 95% intervals (Wilson)."
            + other_model(accuracy.provenance, findings.neurons),
            open_tables=(_accuracy_table(accuracy),),
        )


def _summary_table(matrix: AblationMatrix) -> Table:
    table = matrix.summary()
    table["told"] = [_effect(row) for row in table.to_dict("records")]
    wide = table.pivot(index="figure", columns="removed", values="told")
    wide = wide.loc[table["figure"].unique(), table["removed"].unique()]
    caption = f"{UNITS[matrix.metric]}, with 95% intervals, by what is removed"
    return table_of(wide.reset_index(), caption)


def _effect(row: dict) -> str:
    """An estimate with its interval; a ratio has no sign."""
    ends = tuple(float(row[name]) for name in ("estimate", "low", "high"))
    if "/" not in str(row["figure"]) or pd.isna(ends[0]):
        return with_ends(*ends)
    return "{:.2f} ({:.2f} to {:.2f})".format(*ends)


def _cell_tables(matrix: AblationMatrix) -> Iterator[Table]:
    """The cells of every setting and of its control."""
    for setting in matrix.classes:
        name = matrix.name_of(setting)
        found = {f"{name} removed": matrix.cells(setting)}
        found["random neurons in their place"] = matrix.control_cells(setting)
        sizes = matrix.sizes[matrix.classes.index(setting)].tolist()
        for told, cells in found.items():
            rows = tuple(
                (row, size, *map(signed, line))
                for row, size, line in zip(matrix.rows, sizes, cells.tolist(), strict=True)
            )
            head = ("removed", "neurons", *matrix.languages)
            yield Table(head, rows, f"{UNITS[matrix.metric]}: {told}")


def _steering_table(curve: SteeringCurve) -> Table:
    frame = curve.to_pandas()
    names = [str(name) for name in frame if f"{name}_low" in frame]
    rows = [
        (
            float(row["alpha"]),
            *(share_with_ends(row[n], row[f"{n}_low"], row[f"{n}_high"]) for n in names),
        )
        for row in frame.to_dict("records")
    ]
    head = ("strength alpha", *(name.replace("_", " ") for name in names))
    return Table(head, tuple(rows), "Shares of texts, and NLL in nats a token; 95% intervals")


def _accuracy_table(accuracy: Accuracy) -> Table:
    rows = []
    for code, row in accuracy.per_language().to_dict("index").items():
        shares = (_share(row, part) for part in VERDICTS)
        rows.append((full_name(str(code)), int(row["items"]), *shares))
    head = ("language", "items", *(part.replace("_", " ") for part in VERDICTS))
    return Table(head, tuple(rows), accuracy.provenance.model)


def _share(row: dict, part: str) -> str:
    share, low, high = (row[f"{part}{end}"] for end in ("", "_low", "_high"))
    return f"{share:.0%} ({low:.0%} to {high:.0%})"
