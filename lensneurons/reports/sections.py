"""The tabs of the page: which figures and tables stand where, for the values that are there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lensneurons import plots
from lensneurons.experiments.carrying import CarryOver
from lensneurons.experiments.lens import KINDS, LensCurves
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.labels import listing, span
from lensneurons.reports.change_sections import change_sections
from lensneurons.reports.contents import Section, Tab, Table
from lensneurons.reports.effect_sections import effect_sections
from lensneurons.reports.findings import Findings
from lensneurons.reports.words import names_of, other_model


def make_tabs(findings: Findings) -> tuple[Tab, ...]:
    """The tabs that have something to show, in reading order.

    Raises:
        LensNeuronsError: parts of other neurons, or results that a figure refuses.
    """
    tabs = (
        Tab("layers", "Layers", tuple(_layers(findings))),
        Tab("languages", "Languages", tuple(_languages(findings.neurons))),
        Tab("neurons", "Neurons", tuple(_one_neuron(findings.neurons))),
        Tab("effects", "Effects", tuple(effect_sections(findings))),
        Tab("change", "Change", tuple(change_sections(findings))),
    )
    return tuple(tab for tab in tabs if tab.sections or tab.name == "neurons")


def _layers(findings: Findings) -> Iterator[Section]:
    neurons, parts = findings.neurons, findings.parts
    yield Section(
        "Where they sit",
        "Specific, related and agnostic neurons of each layer, over all neurons of the model.",
        plots.layer_profile(neurons, parts),
        (_profile_table(neurons),),
    )
    if parts is not None:
        yield Section(
            "The evidence for four parts",
            "The paper describes four parts of a model. Each line of its description is tested; "
            "the parts are called found where all of them hold.",
            open_tables=(_criteria_table(parts),),
        )
    if (curves := findings.lens) is not None:
        yield Section(
            "What each layer would say",
            "Every layer read through the last norm and the unembedding: in the words of which "
            "language would it go on?" + other_model(curves.provenance, neurons),
            plots.lens_curves(curves, neurons=neurons if _fits(curves, neurons) else None),
            (_lens_table(curves),),
        )
    if findings.carry_over is not None:
        yield Section(
            "What a layer carries from one language to another",
            "The stream after a layer, put into a text of another language: which answer, in "
            "which language, does the model then give?"
            + other_model(findings.carry_over.provenance, neurons),
            plots.carry_over(findings.carry_over, parts),
            (_carry_over_table(findings.carry_over),),
        )


def _profile_table(neurons: LanguageNeurons) -> Table:
    counts = neurons.layer_profile("all").tolist()
    rows = tuple((layer, *row) for layer, row in enumerate(counts))
    return Table(("layer", *LAYER_CLASSES), rows, "Neurons of each layer by class")


def _criteria_table(parts: LayerParts) -> Table:
    rows = tuple((c.claim, c.holds, c.measured) for c in parts.criteria)
    tried = listing(span(part.first, part.last) for part in parts.parts)
    return Table(("criterion", "holds", "measured"), rows, f"The best division: layers {tried}")


def _carry_over_table(result: CarryOver) -> Table:
    means = np.nanmean(result.shares, axis=1).tolist()
    covered = result.covered.mean(axis=1).tolist()
    rows = tuple(
        (layer, *row, whole) for layer, (row, whole) in enumerate(zip(means, covered, strict=True))
    )
    head = ("layer", *result.outcomes, "all together")
    return Table(head, rows, "Mean share of each outcome, and the probability of all together")


def _fits(curves: LensCurves, neurons: LanguageNeurons) -> bool:
    """Whether the layers of both can share an axis."""
    return curves.n_layers == neurons.n_layers


def _lens_table(curves: LensCurves) -> Table:
    pooled = np.nanmean(curves.means, axis=1)[:, [KINDS.index(kind) for kind in curves.kinds]]
    rows = tuple((layer, *row) for layer, row in enumerate(pooled.tolist()))
    return Table(
        ("layer", *curves.kinds), rows, "Mean probability over languages, by kind of token"
    )


def _languages(neurons: LanguageNeurons) -> Iterator[Section]:
    yield Section(
        "How many each language has",
        "A specific neuron is active above the bar in one language alone, a related one in several "
        "but not in all. A related neuron counts for each of its languages.",
        open_tables=(_language_table(neurons),),
    )
    everything = neurons.with_population("all")
    counts = enumerate(neurons.histogram("all").tolist())
    yield Section(
        "How many languages share a neuron",
        "Every neuron by the number of languages in which its activation probability exceeds tau.",
        plots.language_histogram(everything),
        (Table(("languages N", "neurons"), tuple(counts), "All neurons by N"),),
    )
    yield Section(
        "Layers and languages",
        "Which layers hold the neurons of which language.",
        plots.neuron_map(neurons),
        (_map_table(neurons),),
    )
    yield Section(
        "Which languages share their neurons",
        "Jaccard overlap of the neurons of each pair of languages: 1 for the same neurons.",
        plots.overlap(neurons),
        (_overlap_table(neurons),),
    )


def _language_table(neurons: LanguageNeurons) -> Table:
    sizes = [(len(neurons.specific[k]), len(neurons.related[k])) for k in neurons.languages]
    named = zip(names_of(neurons.languages), sizes, strict=True)
    rows = tuple((name, a, b, a + b) for name, (a, b) in named)
    head = ("language", "specific", "related", "together")
    return Table(head, rows, neurons.description)


def _map_table(neurons: LanguageNeurons) -> Table:
    layers = range(neurons.n_layers)
    counts = [neurons[k].per_layer().tolist() for k in neurons.languages]
    named = zip(names_of(neurons.languages), counts, strict=True)
    rows = tuple((name, *row) for name, row in named)
    head = ("language", *(f"layer {layer}" for layer in layers))
    return Table(head, rows, "Specific and related neurons of each language by layer")


def _overlap_table(neurons: LanguageNeurons) -> Table:
    values = neurons.overlap_matrix().tolist()
    rows = tuple((name, *row) for name, row in zip(neurons.languages, values, strict=True))
    return Table(("language", *neurons.languages), rows, "Jaccard overlap")


def _one_neuron(neurons: LanguageNeurons) -> Iterator[Section]:
    if (name := most_specific(neurons)) is None:
        return
    yield Section(
        f"One of them: {name}",
        "The language-specific neuron with the lowest score, language by language.",
        plots.neuron_probabilities(neurons, name),
    )


def most_specific(neurons: LanguageNeurons) -> str | None:
    """Name of the selected language-specific neuron with the lowest score, or None."""
    mask = neurons.selected & (neurons.n_above == 1)
    if not mask.any():
        return None
    layer, neuron = np.unravel_index(np.where(mask, neurons.score, np.inf).argmin(), mask.shape)
    return f"L{layer}N{neuron}"
