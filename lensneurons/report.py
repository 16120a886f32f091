"""One self-contained page about the language neurons of a model: text, tables and figures.

The page needs no network: plotly.js is in it once, and every inserted string is escaped by the
template. It can be sent by mail, printed and read on a phone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensneurons import __version__, plots
from lensneurons.languages import language_name
from lensneurons.neurons import LanguageNeurons
from lensneurons.phases import LayerParts
from lensneurons.storage import replacing

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Section:
    """A figure with what it shows in words."""

    heading: str
    text: str
    figure: Figure


def report(
    path: str | Path,
    neurons: LanguageNeurons,
    parts: LayerParts | None = None,
    *,
    title: str = "Language neurons",
    notes: Sequence[str] = (),
) -> Path:
    """Write the page, atomically, and return its path.

    Args:
        path: where to write it.
        neurons: the identified neurons.
        parts: the parts of the model, if they were looked for.
        title: heading of the page.
        notes: paragraphs that have to be read first, such as what the model is.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lensneurons"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        title=title,
        subtitle=neurons.provenance.model,
        notes=notes,
        summary=list(summarise(neurons, parts)),
        population=neurons.description,
        languages=_language_rows(neurons),
        sections=[_rendered(section) for section in _sections(neurons, parts)],
        criteria=parts.criteria if parts else (),
        provenance=_provenance_rows(neurons),
        plotly=_plotly_source(),
        version=__version__,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def summarise(neurons: LanguageNeurons, parts: LayerParts | None) -> Iterator[str]:
    """The findings as sentences, with their numbers."""
    histogram, k = neurons.histogram("all"), len(neurons.languages)
    yield (
        f"Of {neurons.score.size:,} neurons, {histogram[1]:,} are language-specific (active above "
        f"the bar in one language), {histogram[2:k].sum():,} language-related (in several) and "
        f"{histogram[k]:,} language-agnostic (in all {k}); {histogram[0]:,} exceed it in none. The "
        f"bar tau is an activation probability of {neurons.tau:.3f}."
    )
    sizes = {language: len(neurons[language]) for language in neurons.languages}
    most, fewest = max(sizes, key=lambda k: sizes[k]), min(sizes, key=lambda k: sizes[k])
    yield (
        f"Among the {int(neurons.selected.sum()):,} selected neurons, {language_name(most)} has "
        f"the most language neurons ({sizes[most]:,}) and {language_name(fewest)} the fewest "
        f"({sizes[fewest]:,})."
    )
    if neurons.lambda_origin == "unbounded":
        yield "No language-agnostic neuron bounds lambda; the published upper end, 0.2, was taken."
    if parts is not None:
        yield _parts_sentence(parts)


def _parts_sentence(parts: LayerParts) -> str:
    spans = ", ".join(f"{part.first}-{part.last}" for part in parts.parts)
    if parts.found:
        return f"The layers show the four parts of the paper: {spans}."
    reasons = "; ".join(f"{c.claim}: no ({c.measured})" for c in parts.failed)
    return f"The layers do not show the four parts of the paper. What fails: {reasons}."


def _language_rows(neurons: LanguageNeurons) -> list[dict[str, Any]]:
    return [
        {
            "code": language,
            "name": language_name(language),
            "specific": len(neurons.specific[language]),
            "related": len(neurons.related[language]),
        }
        for language in neurons.languages
    ]


def _provenance_rows(neurons: LanguageNeurons) -> list[tuple[str, str]]:
    entries = neurons.provenance.to_dict()
    versions = ", ".join(f"{name} {value}" for name, value in entries.pop("versions").items())
    entries["corpora"] = ", ".join(entries["corpora"])
    return [*entries.items(), ("versions", versions)]


def _sections(neurons: LanguageNeurons, parts: LayerParts | None) -> Iterator[Section]:
    """The figures of the page, in reading order."""
    yield Section(
        "Where they sit",
        "Specific, related and agnostic neurons of each layer, over all neurons of the model.",
        plots.layer_profile(neurons, parts),
    )
    yield Section(
        "How many languages share a neuron",
        "Every neuron by the number of languages in which its activation probability exceeds tau.",
        plots.language_histogram(neurons.with_population("all")),
    )
    yield Section(
        "Layers and languages",
        "Which layers hold the neurons of which language.",
        plots.neuron_map(neurons),
    )
    yield Section(
        "Which languages share their neurons",
        "Jaccard overlap of the neurons of each pair of languages: 1 for the same neurons.",
        plots.overlap(neurons),
    )
    if (example := most_specific(neurons)) is not None:
        yield Section(
            f"One neuron: {example}",
            "The language-specific neuron with the lowest score, language by language.",
            plots.neuron_probabilities(neurons, example),
        )


def most_specific(neurons: LanguageNeurons) -> str | None:
    """Name of the selected language-specific neuron with the lowest score, or None."""
    mask = neurons.selected & (neurons.n_above == 1)
    if not mask.any():
        return None
    layer, neuron = np.unravel_index(np.where(mask, neurons.score, np.inf).argmin(), mask.shape)
    return f"L{layer}N{neuron}"


def _rendered(section: Section) -> dict[str, Any]:
    """A section with its figure as an HTML fragment."""
    from markupsafe import Markup

    fragment = Markup(plots.figure_fragment(section.figure))
    return {"heading": section.heading, "text": section.text, "figure": fragment}


def _plotly_source() -> Any:
    """plotly.js, to stand in the page once."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
