"""The tab of a report about methods: what each finds, coupling, and measures of importance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lensneurons import plots
from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.comparison.coupled_layers import LayerCoupling
from lensneurons.comparison.coupled_neurons import Coupling
from lensneurons.experiments.method_comparison import FIGURES, MethodComparison
from lensneurons.experiments.metrics import METRICS
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.plots.labels import full_name
from lensneurons.plots.numbers import share, signed, with_ends
from lensneurons.reports.contents import ReportValues, Section, Table, table_of
from lensneurons.values.provenance import UNKNOWN, Provenance

_WIDTH = 560  # pixels; narrower, names and numbers cover each other


def other_model(provenance: Provenance, neurons: LanguageNeurons) -> str:
    """A warning if something was measured on other weights than the neurons; else nothing."""
    ours, theirs = neurons.provenance.weights, provenance.weights
    if UNKNOWN in (ours, theirs) or ours == theirs:
        return ""
    return f" Measured on other weights than those of the neurons: {provenance.model}."


def methods_sections(values: ReportValues) -> Iterator[Section]:
    """The sections of the values that are there."""
    if values.methods is not None:
        yield from _compared(values.methods, values.neurons)
    if values.coupling is not None:
        yield from _coupled(values.coupling, values.neurons)
    if values.layer_coupling is not None:
        yield _coupled_layers(values.layer_coupling, values.neurons)
    if values.agreement is not None:
        yield _agreeing(values.agreement, values.neurons)


def _compared(comparison: MethodComparison, neurons: LanguageNeurons) -> Iterator[Section]:
    effects = comparison.to_pandas().set_index(["method", "figure"])
    rows = []
    for name in comparison.sets:
        cells = []
        for figure in FIGURES:
            estimate, low, high = effects.loc[(name, figure)].to_numpy(float).tolist()
            cells.append(with_ends(estimate, low, high, signed))
        rows.append((name, *cells))
    unit = METRICS[comparison.matrix.metric].unit
    few = comparison.matrix.too_few or "95% intervals over items"
    caption = f"{unit}, mean over the languages; {few}; selectivity: own effect less the others"
    yield Section(
        "Methods beside each other",
        "Each method gives every language its first neurons, as many as the others. They are "
        "removed beside random neurons as active in that language: what those do as well comes "
        "from activity." + other_model(comparison.matrix.provenance, neurons),
        plots.method_effects(comparison),
        (Table(("method", *FIGURES), tuple(rows), caption),),
        least_width=_WIDTH,
    )
    table = comparison.overlap().reset_index(names="method")
    yield Section(
        "Do methods find the same neurons?",
        "Jaccard overlap of the neurons of every two methods, mean over the languages: 1 for the "
        "same neurons, 0 for none in common.",
        plots.method_overlap(comparison),
        (table_of(table, "Jaccard overlap"),),
        least_width=_WIDTH,
    )
    yield Section(
        "Where each method looks",
        "The layers that hold the neurons of each method, all languages together.",
        plots.method_layers(comparison),
        (table_of(comparison.layer_profile().reset_index(), "Neurons of each layer"),),
        least_width=_WIDTH,
    )


def _coupled(found: Coupling, neurons: LanguageNeurons) -> Iterator[Section]:
    layers = [*map(str, range(found.estimate.shape[1] - 1)), "all"]
    rows = []
    for place, layer in enumerate(layers):
        parts = np.stack([found.estimate[:, place], found.low[:, place], found.high[:, place]], 1)
        rows.append((layer, *(_ends(*one) for one in parts.tolist())))
    head = ("layer", *("all neurons" if name == "all" else name for name in found.classes))
    caption = f"Mean correlation over {found.n_items} items, with {found.level:.0%} intervals"
    yield Section(
        "Is an item answered alike in every language?",
        "The correlation, over parallel items, of a neuron's mean activation in one language and "
        "in another. A neuron is coupled if it goes by what a text says, in whichever language; "
        "topic, length and digits count too." + other_model(found.provenance, neurons),
        plots.coupling(found),
        (Table(head, tuple(rows), caption),),
        least_width=_WIDTH,
    )
    table = found.pairs()
    pairs = tuple(
        (full_name(row["language"]), full_name(row["other"]),
         _ends(row["estimate"], row["low"], row["high"]), row["p"])
        for row in table.to_dict("records")
    )  # fmt: skip
    yield Section(
        "Which languages are answered alike",
        "The same correlation by pair of languages, mean over all neurons.",
        plots.language_coupling(found),
        (Table(("language", "other", "coupling", "p"), pairs, caption),),
    )


def _coupled_layers(found: LayerCoupling, neurons: LanguageNeurons) -> Section:
    rows = []
    for layer in range(len(found.cka)):
        cells = (float(np.mean(one[layer])) for one in (found.cka, found.retrieval, found.cosine))
        rows.append((layer, *cells))
    head = ("layer", "CKA", "translation is nearest", "cosine beyond other items")
    caption = f"Means over {len(found.pairs)} pairs of languages; by chance a translation is "
    return Section(
        "Whole layers",
        "Do the same items lie close in both languages (CKA), and is an item's translation the "
        "nearest of all? The value's table has intervals for each pair."
        + other_model(found.provenance, neurons),
        open_tables=(Table(head, tuple(rows), f"{caption}nearest in {1 / found.n_items:.3f}"),),
    )


def _agreeing(found: MethodAgreement, neurons: LanguageNeurons) -> Section:
    rows = []
    for row in found.to_pandas().to_dict("records"):
        if row["language"] == "all":
            cells = (
                _ends(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
                for name in ("spearman", "signed", "recall")
            )
            rows.append((row["method"].replace("_", " "), *cells, row["cost"]))
    head = ("measure", "rank correlation of sizes", "signed", "recall", "plain passes")
    caption = f"{len(found.neurons)} single removals, mean over the languages; 95% intervals"
    return Section(
        "Which measure of importance to trust",
        "Single neurons of every layer and class are removed, one at a time, and each cheap "
        "measure is ranked by how it orders them." + other_model(found.provenance, neurons),
        plots.importance_agreement(found),
        (Table(head, tuple(rows), caption),),
        least_width=_WIDTH,
    )


def _ends(estimate: float, low: float, high: float) -> str:
    return with_ends(estimate, low, high, share) if np.isfinite(estimate) else "–"
