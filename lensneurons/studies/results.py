"""What a study leaves to read: page, tables, figures, and ``study.json`` with all numbers.

    tables/    a CSV and a Parquet file each; the same columns as the values' `to_pandas`
    figures/   every figure of the page as a file, if asked for
    study.json the numbers of the paper's figures and tables, with intervals, versions and hashes

``study.json`` names the other files by their SHA-256, so that a table that was edited by hand does
not pass for a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensneurons import plots
from lensneurons.comparison.before_after import TABLES
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.evaluation.answers import accuracy_difference
from lensneurons.neurons.language_neurons import LAYER_CLASSES
from lensneurons.plots.files import save_figure
from lensneurons.reports import report
from lensneurons.samples.profiles import published_profile
from lensneurons.studies.finished import BY_METHODS, Study
from lensneurons.studies.methods_step import left_out
from lensneurons.values.base import to_json
from lensneurons.values.files import (
    plain_numbers,
    replacing,
    save_json,
    with_index,
    write_csv,
)
from lensneurons.values.provenance import library_versions

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def write_results(study: Study, corpus: ParallelCorpus, options: Mapping[str, Any]) -> None:
    """Write everything that is read by people and by other programs, each file whole or not."""
    folder = study.folder
    files = [write_table(frame, folder, name) for name, frame in tables(study)]
    written = [one for pair in files for one in pair]
    for ending in options["figures"]:
        for name, figure in figures(study):
            written.append(save_figure(figure, folder / "figures" / f"{name}.{ending}"))
    model = study.statistics.provenance.model
    written.append(
        report(
            study.page,
            study.chosen,
            parts=study.parts,
            cards=study.cards,
            effects=tuple(study.effects.values()),
            accuracy=study.accuracy,
            aligned_accuracy=study.aligned_accuracy,
            lens=study.lens,
            **{name: getattr(study, name) for name in BY_METHODS},
            comparison=study.comparison,
            claims=study.claims.get("change", study.claims.get("model")),
            beside={"Mistral-7B of the paper": published_profile("mistral-7b")},
            title=options["title"] or f"Language neurons of {Path(model).name}",
            notes=[*notes(study, corpus), *left_out(study, options["languages"])],
        )
    )
    hashes = {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(written)
    }
    save_json(folder / "study.json", {**numbers(study, corpus), "files": hashes})


def notes(study: Study, corpus: ParallelCorpus) -> list[str]:
    """What has to be known before anything is read."""
    sizes, tokens = study.plan.sizes, study.statistics.tokens
    told = (
        f"Counted on {sizes.items} items of {corpus.name} in each of "
        f"{len(study.statistics.languages)} languages ({tokens.min():,} to {tokens.max():,} tokens)"
    )
    if study.effects:
        told += f"; effects were measured on {sizes.effect_items} other items"
    found = [f"{told}."]
    if (kind := study.statistics.provenance.quantisation) not in ("none", "unknown"):
        found.append(f"The weights were dequantised from {kind}.")
    return [*found, *(f"To fit the budget: {one}." for one in study.plan.cut)]


def write_table(frame: pd.DataFrame, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a table as CSV and as Parquet."""
    csv, parquet = (folder / "tables" / f"{name}.{ending}" for ending in ("csv", "parquet"))
    write_csv(frame, csv)
    with replacing(parquet) as path:
        with_index(frame).to_parquet(path, index=False)
    return csv, parquet


def tables(study: Study) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every table, by name."""
    import pandas as pd

    neurons = study.chosen
    for score, one in study.neurons.items():
        yield f"neurons-{score}", one.to_pandas()
        yield f"languages-{score}", one.per_language()
    profile = neurons.layer_profile("all")
    columns = dict(zip(LAYER_CLASSES, profile.T.tolist(), strict=True))
    yield "layers", pd.DataFrame({"layer": range(neurons.n_layers), **columns})
    counts = {kind: neurons.histogram(kind) for kind in ("all", "selected")}
    yield "histogram", pd.DataFrame({"languages": range(len(counts["all"])), **counts})
    yield "overlap", neurons.with_population("all").overlap().reset_index(names="language")
    if study.parts is not None:
        yield "parts", pd.DataFrame([asdict(one) for one in study.parts.criteria])
    for name, one in study.stability.items():
        yield f"stability-{name.replace(' ', '-')}", one.to_pandas()
    if study.lens is not None:
        yield "lens", study.lens.to_pandas()
    for metric, matrix in study.effects.items():
        yield f"effects-{metric}", matrix.to_pandas()
        yield f"selectivity-{metric}", matrix.summary()
        matched = [matrix.matched(one).assign(setting=one) for one in matrix.classes]
        yield f"matched-{metric}", pd.concat(matched, ignore_index=True)
    if study.methods is not None:
        yield "methods", study.methods.to_pandas()
        yield "methods-overlap", study.methods.overlap().reset_index(names="method")
        yield "methods-layers", study.methods.layer_profile().reset_index()
    if study.coupling is not None and study.layer_coupling is not None:
        yield "coupling", study.coupling.to_pandas()
        yield "coupling-pairs", study.coupling.pairs()
        yield "coupling-layers", study.layer_coupling.to_pandas()
    if study.agreement is not None:
        yield "agreement", study.agreement.to_pandas()
    for name, one in (("", study.accuracy), ("-aligned", study.aligned_accuracy)):
        if one is not None:
            yield f"accuracy{name}", one.per_language()
    if study.accuracy is not None and study.aligned_accuracy is not None:
        found = accuracy_difference(study.accuracy, study.aligned_accuracy)
        yield "accuracy-difference", found
    if study.comparison is not None:
        for name in TABLES:
            yield f"change-{name}", study.comparison.to_pandas(name)
    for name, one in study.claims.items():
        yield f"claims-{name}", one.to_pandas()


def figures(study: Study) -> Iterator[tuple[str, go.Figure]]:
    """Every figure, by name."""
    neurons = study.chosen
    yield "layers", plots.layer_profile(neurons, study.parts)
    yield "histogram", plots.language_histogram(neurons)
    yield "overlap", plots.overlap(neurons)
    if study.lens is not None:
        yield "lens", plots.lens_curves(study.lens)
    for metric, matrix in study.effects.items():
        yield f"effects-{metric}", plots.ablation_effects(matrix)
    if study.methods is not None:
        yield "methods", plots.method_effects(study.methods)
        yield "methods-overlap", plots.method_overlap(study.methods)
        yield "methods-layers", plots.method_layers(study.methods)
    if study.coupling is not None:
        yield "coupling", plots.coupling(study.coupling)
        yield "coupling-pairs", plots.language_coupling(study.coupling)
    if study.agreement is not None:
        yield "agreement", plots.importance_agreement(study.agreement)
    if study.comparison is not None:
        yield "change-languages", plots.language_changes(study.comparison)
        yield "change-histogram", plots.histogram_change(study.comparison)
    for name, one in study.claims.items():
        yield f"claims-{name}", plots.claims(one)


def numbers(study: Study, corpus: ParallelCorpus) -> dict[str, Any]:
    """The numbers of all figures, as JSON values; what has no number is null."""
    statistics, neurons = study.statistics, study.chosen
    found: dict[str, Any] = {
        "model": statistics.provenance.to_dict(),
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint},
        "versions": library_versions(),
        "sizes": asdict(study.plan.sizes),
        "cut": list(study.plan.cut),
        "tokens": dict(zip(statistics.languages, statistics.tokens.tolist(), strict=True)),
        "score": study.score,
        "tau": neurons.tau,
        "layers": {
            name: column
            for name, column in zip(
                LAYER_CLASSES, neurons.layer_profile("all").T.tolist(), strict=True
            )
        },
        "histogram": neurons.histogram("all").tolist(),
        "selected": {
            score: {
                "lambda": one.lambda_,
                "neurons": int(one.selected.sum()),
                "histogram": one.histogram("selected").tolist(),
                "languages": one.per_language().to_dict("index"),
            }
            for score, one in study.neurons.items()
        },
    }
    if study.parts is not None:
        found["parts"] = {
            "there": {str(one.number): [one.first, one.last] for one in study.parts.parts},
            "criteria": [asdict(one) for one in study.parts.criteria],
        }
    found["stability"] = {
        name: one.to_pandas().to_dict("index") for name, one in study.stability.items()
    }
    found["effects"] = {
        metric: {
            "items": one.n_items,
            "draws": one.draws,
            "removed": list(one.rows),
            "evaluated": list(one.languages),
            "summary": one.summary().to_dict("records"),
            "cells": {setting: one.cells(setting).tolist() for setting in one.classes},
        }
        for metric, one in study.effects.items()
    }
    for name, one in (("accuracy", study.accuracy), ("aligned_accuracy", study.aligned_accuracy)):
        if one is not None:
            found[name] = one.per_language().to_dict("index")
    if study.methods is not None:
        found["methods"] = {
            "neurons": {k: len(one) for k, one in next(iter(study.methods.sets.values())).items()},
            "effects": study.methods.to_pandas().to_dict("records"),
            "overlap": study.methods.overlap().to_dict("index"),
            "layers": study.methods.layer_profile().to_dict("list"),
        }
    if study.coupling is not None and study.layer_coupling is not None:
        found["coupling"] = {
            "items": study.coupling.n_items,
            "neurons": study.coupling.to_pandas().to_dict("records"),
            "pairs": study.coupling.pairs().to_dict("records"),
            "layers": study.layer_coupling.to_pandas().to_dict("records"),
        }
    if study.agreement is not None:
        found["agreement"] = {
            "neurons": len(study.agreement.neurons),
            "measures": study.agreement.to_pandas().to_dict("records"),
        }
    found["claims"] = {
        name: [to_json(row) for row in one.rows] for name, one in study.claims.items()
    }
    return plain_numbers(found)
