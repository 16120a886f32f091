"""The findings as sentences, each with its numbers; and where everything comes from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.paper_claims import Claims
from lensneurons.evaluation.answers import Accuracy
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.metrics import METRICS
from lensneurons.experiments.setting_means import setting_means
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.ablation import (
    headline,
    interval_told,
    removes_nothing,
    told_beyond,
    top_setting,
)
from lensneurons.plots.couplings import told_coupling
from lensneurons.plots.labels import full_name
from lensneurons.plots.methods import told_agreement, told_effects
from lensneurons.plots.numbers import MINUS, counted, listing, span
from lensneurons.plots.profile import told_parts
from lensneurons.reports.aligned_answers import told_answers
from lensneurons.reports.contents import ReportValues, Table
from lensneurons.values.provenance import UNKNOWN, Provenance

_NAMES = {
    "dtype": "number format",
    "attention": "attention kernel",
    "hook": "hook that was read",
    "activation": "activation function",
    "scope": "tokens that were counted",
    "interventions": "interventions",
    "corpora": "fingerprint of the corpus",
    "config": "hash of the configuration",
    "weights": "hash of the weights",
    "tokenizer": "hash of the tokenizer",
}


def key_numbers(neurons: LanguageNeurons) -> list[tuple[str, str]]:
    """The numbers at the head of the report: what is counted, and how many there are."""
    histogram, k = neurons.histogram("all"), len(neurons.languages)
    return [
        ("neurons", f"{neurons.score.size:,}"),
        ("specific", f"{histogram[1]:,}"),
        ("related", f"{histogram[2:k].sum():,}"),
        ("agnostic", f"{histogram[k]:,}"),
        ("languages", str(k)),
        ("layers", str(neurons.n_layers)),
    ]


def find_all(values: ReportValues) -> Iterator[str]:
    """Every finding of a report, in reading order."""
    yield from _of_neurons(values.neurons)
    if values.parts is not None:
        yield _of_parts(values.parts)
    yield from map(_of_effects, values.effects)
    if values.accuracy is not None:
        yield _of_accuracy(values.accuracy)
    if values.methods is not None:
        yield f"{told_effects(values.methods)}."
    if values.coupling is not None:
        yield f"{told_coupling(values.coupling)} (mean correlation over items)."
    if values.agreement is not None:
        yield f"{told_agreement(values.agreement)} (Spearman)."
    yield from told_answers(values)
    if values.comparison is not None:
        yield _of_comparison(values.comparison)
    if values.claims is not None:
        yield _of_claims(values.claims)


def _of_neurons(neurons: LanguageNeurons) -> Iterator[str]:
    histogram, k = neurons.histogram("all"), len(neurons.languages)
    yield (
        f"Of {neurons.score.size:,} neurons, {histogram[1]:,} are language-specific (active above "
        f"the bar in one language), {histogram[2:k].sum():,} language-related (in several) and "
        f"{histogram[k]:,} language-agnostic (in all {k}); {histogram[0]:,} exceed it in none. The "
        f"bar tau is an activation probability of {neurons.tau:.3f}."
    )
    sizes = {language: len(neurons[language]) for language in neurons.languages}
    most, fewest = max(sizes, key=lambda k: sizes[k]), min(sizes, key=lambda k: sizes[k])
    counts = f"{int(neurons.counted.sum()):,}"
    which = f"the {counts} selected" if neurons.population == "selected" else f"all {counts}"
    yield (
        f"Among {which} neurons, {full_name(most)} has the most language neurons "
        f"({sizes[most]:,}) and {full_name(fewest)} the fewest ({sizes[fewest]:,})."
    )
    if neurons.lambda_origin == "unbounded":
        yield "No language-agnostic neuron bounds lambda; the published upper end, 0.2, was taken."


def _of_parts(parts: LayerParts) -> str:
    if parts.found:
        spans = listing(span(part.first, part.last) for part in parts.parts)
        return f"The layers show the four parts of the paper: {spans}."
    against = [
        f"it does not hold that {c.claim}"
        for c in parts.failed
        if c.part and c.verdict == "does not hold"
    ]
    if vague := sum(c.verdict == "undecided" for c in parts.failed):
        verb = "is" if vague == 1 else "are"
        against.append(
            f"{vague} of the {len(parts.criteria)} statements about them {verb} undecided"
        )
    reasons = f" ({'; '.join(against)})" if against else ""
    return f"The layers do not show all four parts of the paper: {told_parts(parts)}{reasons}."


def _of_effects(matrix: AblationMatrix) -> str:
    """What removing neurons does, in the setting that its figure is about; and beside what."""
    means = setting_means(matrix)
    one = means[top_setting(matrix, means)]
    if removes_nothing(matrix, one):
        return f"{headline(matrix, one)}."
    changes = [
        f"{whose} by {interval_told(x)}"
        for whose, x in (("its own", one.own), ("that of the other languages", one.others))
        if np.isfinite(x.estimate)
    ]
    subject = METRICS[matrix.metric].subject
    ends = f"In brackets: 95% intervals over {counted(matrix.n_items, 'item')} a language"
    told = (
        headline(matrix, one),
        f"Without the {one.setting} neurons of a language, {subject} changes: {listing(changes)}",
        told_beyond(matrix, one),
        matrix.too_few or ends,
    )
    return " ".join(f"{sentence}." for sentence in told if sentence)


def _of_accuracy(accuracy: Accuracy) -> str:
    n = len(accuracy)
    right, both = (sum(getattr(a, name) for a in accuracy) for name in ("right_answer", "both"))
    return (
        f"Of {n:,} answers, {right / n:.0%} are right, and {both / n:.0%} are right and in the "
        "language that was asked in."
    )


def _of_comparison(comparison: Comparison) -> str:
    flows = comparison.transitions
    moved = int(flows.sum() - np.trace(flows))
    rising, falling = int(np.triu(flows, 1).sum()), int(np.tril(flows, -1).sum())
    shared = comparison.change(lambda tables: tables.change_above(2))
    nulls = {
        "an equal rise of all firing alone": shared.uniform,
        "a common shift with noise": shared.drift,
        "what each neuron does in its other languages": shared.alike,
    }
    beside = [f"{name} gives {float(one):+.0f}" for name, one in nulls.items() if np.isfinite(one)]
    beside.append(f"at each model's own bar it is {float(shared.own_bar):+.0f}")
    told = (
        f"Between the two models {counted(moved, 'neuron')} changed the number of languages they "
        f"are active in: {rising:,} are active in more, {falling:,} in fewer. The number of those "
        f"active in two languages or more changed by {float(shared.estimate):+.0f}; "
        f"{listing(beside)}."
    )
    return told.replace(" -", f" {MINUS}")


def _of_claims(claims: Claims) -> str:
    verdicts = [row.verdict for row in claims]
    told = {
        "holds": ("holds", "hold"),
        "does not hold": ("does not hold", "do not hold"),
        "undecided": ("is undecided", "are undecided"),
    }
    numbers = {name: verdicts.count(name) for name in told if name in verdicts}
    counts = [f"{number} {told[name][number > 1]}" for name, number in numbers.items()]
    about = "alignment" if claims.about_changes else "one model"
    return (
        f"Of the {counted(len(claims), 'claim')} about {about}, {listing(counts)}, with p-values "
        "adjusted for their number."
    )


def provenance_table(provenance: Provenance) -> Table:
    """Where the numbers come from; unknown entries are left out."""
    entries = provenance.to_dict()
    versions = [f"{name} {value}" for name, value in entries.pop("versions").items()]
    entries |= {"corpora": ", ".join(entries["corpora"]), "versions": ", ".join(versions)}
    rows = [(_NAMES.get(n, n), v) for n, v in entries.items() if v and v != UNKNOWN]
    return Table(("entry", "value"), tuple(rows))
