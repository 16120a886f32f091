"""Results as the command line prints them: a short text, or one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.cards.card import SIGN_HEADS, NeuronCard
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.metrics import METRICS
from lensneurons.experiments.setting_means import setting_means
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.ablation import headline, multiplicity, told_beyond, top_setting
from lensneurons.plots.units import in_unit
from lensneurons.values.tables import text_table

NO_NUMBER = (
    "–: no number: a ratio to what is not clear of 0, an interval of p or of fewer than five "
    "items, or p of neurons where none were removed"
)


def summarise_neurons(neurons: LanguageNeurons, parts: LayerParts | None) -> dict[str, Any]:
    """What ``identify --json`` prints."""
    return {
        "lambda": neurons.lambda_,
        "lambda_floor": neurons.lambda_floor,
        "lambda_origin": neurons.lambda_origin,
        "tau": neurons.tau,
        "selected": int(neurons.selected.sum()),
        "histogram": neurons.histogram("selected").tolist(),
        "histogram_all": neurons.histogram("all").tolist(),
        "per_language": {
            k: {"specific": len(neurons.specific[k]), "related": len(neurons.related[k])}
            for k in neurons.languages
        },
        "layers": neurons.layer_profile("all").tolist(),
        "parts": parts and parts.boundaries and [list(span) for span in parts.boundaries],
    }


def describe_neurons(neurons: LanguageNeurons, parts: LayerParts | None) -> str:
    """The result of an identification as a short text."""
    counts = ", ".join(f"N={n} {count:,}" for n, count in enumerate(neurons.histogram("all")))
    lines = [neurons.description, "", neurons.per_language().to_string(), ""]
    lines += [f"all neurons by number of languages above tau: {counts}"]
    lines += [told_parts(parts) if parts else "fewer than five layers: no parts"]
    return str(in_unit("\n".join(lines), neurons.provenance.unit))


def told_parts(parts: LayerParts) -> str:
    """Which parts there are, in a line."""
    spans = ", ".join(f"part {one.number}: layers {one.first} to {one.last}" for one in parts.parts)
    return f"Four parts {'found' if parts.found else 'not found'}; {spans or 'no part'}"


def summarise_parts(parts: LayerParts) -> dict[str, Any]:
    """What ``parts --json`` prints."""
    return {
        "parts": parts.boundaries and [list(span) for span in parts.boundaries],
        "there": {str(part.number): [part.first, part.last] for part in parts.parts},
        "best_division": [[part.first, part.last] for part in parts.division],
        "criteria": [asdict(criterion) for criterion in parts.criteria],
        "explained": list(parts.explained),
        "fewer_p": parts.fewer_p,
        "trend_p": parts.trend_p,
        "shares": parts.shares and {str(n): share for n, share in parts.shares.items()},
        "intervals": {str(part): list(ends) for part, ends in _intervals(parts).items()},
    }


def describe_parts(parts: LayerParts) -> str:
    """The parts and their evidence as a short text."""
    lines = [told_parts(parts), ""]
    lines += [f"  {c.verdict:15} {c.claim} ({c.measured})" for c in parts.criteria]
    lines += [f"  three segments are enough: p = {parts.fewer_p:.3g}"]
    lines += [f"  cubic trends are enough: p = {parts.trend_p:.3g}"]
    draws = 0 if parts.draws is None else len(parts.draws)
    if parts.shares is not None:
        told = ", ".join(f"{n or 'no'} parts in {share:.0%}" for n, share in parts.shares.items())
        lines += [f"  of {draws} bootstrap draws: {told}"]
    lines += [
        f"  part {part} begins in layers {low} to {high} (95 % of {draws} draws)"
        for part, (low, high) in _intervals(parts).items()
    ]
    return "\n".join(lines)


def _intervals(parts: LayerParts) -> dict[int, tuple[int, int]]:
    """Intervals of the first layers of parts 2 to 4, where any bootstrap draw found the part."""
    if parts.draws is None:
        return {}
    found = np.any(parts.draws >= 0, axis=0).tolist()
    return {part: parts.interval(part) for part in (2, 3, 4) if found[part - 2]}


def describe_card(card: NeuronCard) -> str:
    """A card as tables: what identification knows, what the neuron writes, its strongest texts."""
    facts, mean = card.facts, card.facts.mean or {}
    rows = []
    for language in card.languages:
        p = facts.probability.get(language)
        numbers = (p, mean.get(language), (card.effect or {}).get(language))
        forms = ("{:.4f}", "{:.4f}", "{:+.4f}")
        cells = ("" if x is None else f.format(x) for x, f in zip(numbers, forms, strict=True))
        signs = (f"{share:.4f}" for share in (facts.branches or {}).get(language, ()))
        rows.append((language, *cells, *signs))
    head = ("language", "p", "mean activation", "NLL without it, nats a token")
    head += SIGN_HEADS if facts.branches else ()
    title = f"{facts.name} {facts.title} ({facts.details})"
    lists = [
        (name, " ".join(repr(one.text) for one in some)) for name, some in card.vocabulary.lists
    ]
    contexts = [
        (one.language, f"{one.activation:.3f}", f"{one.before}>{one.token}<{one.after}")
        for one in card.contexts
    ]
    tables = [
        text_table(title, head, rows),
        text_table("Tokens, strongest first", ("list", "tokens"), lists),
        text_table(f"Texts: {card.source}", ("language", "activation", "text"), contexts),
    ]
    return "\n\n".join(tables)


def summarise_matrices(matrices: Mapping[str, AblationMatrix]) -> dict[str, Any]:
    """What ``ablate --json`` prints: what was removed, and the summary of each metric.

    Figures without a meaning, such as a ratio to 0, are NaN.
    """
    first = next(iter(matrices.values()))
    return {
        "removed": list(first.rows),
        "evaluated": list(first.languages),
        "neurons": {
            first.name_of(setting): dict(zip(first.rows, row, strict=True))
            for setting, row in zip(first.classes, first.sizes.tolist(), strict=True)
        },
        "controls": first.draws,
        "matches": list(first.matches),
        "method": first.method,
        "summary": {m: matrix.summary().to_dict("records") for m, matrix in matrices.items()},
    }


def describe_matrix(matrix: AblationMatrix, table: Path) -> str:
    """What an ablation matrix shows, its summary, and how well its controls match, as a text."""
    means = setting_means(matrix)
    one = means[top_setting(matrix, means)]
    head = f"{METRICS[matrix.metric].unit}; {matrix.draws} random sets a control, method "
    head += f"{matrix.method}; cells: {table}"
    told = [f"{text}." for text in (headline(matrix, one), told_beyond(matrix, one)) if text]
    if (mark := multiplicity(matrix)) and matrix.sizes.any():
        counts = (int(matrix.marked(k, matrix.matches[0]).sum()) for k in matrix.classes)
        told.append(f"marked: {mark}: {', '.join(map(str, counts))}")
    matched = matrix.matched(matrix.classes[-1])
    matched["layer"] = matched["layer"].astype(object).where(matched["neurons"] > 0)  # else NaN
    tables = [matrix.summary(), matched]
    rows = [one.to_string(index=False, float_format="{:.4f}".format, na_rep="–") for one in tables]
    if any(one.isna().to_numpy().any() for one in tables):
        rows.append(NO_NUMBER)
    return "\n".join([head, *told, *rows]) + "\n"
