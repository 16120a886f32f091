"""`report`: everything that was found, on one self-contained page.

The page needs no network: plotly.js is in it once, and a content security policy forbids it to ask
for anything. It can be sent by mail, printed, and read on a phone or with a screen reader. Every
string that comes from outside is escaped, and characters that nobody would see are made visible.

>>> ln.report("page.html", neurons, parts=parts, cards=cards, effects=[matrix])  # doctest: +SKIP

What it does not do: measure anything. A page shows the values it is given, and says where one of
them was measured on other weights than the neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from lensneurons import __version__
from lensneurons.cards.card import NeuronCard
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.paper_claims import Claims
from lensneurons.comparison.series import ComparisonSeries
from lensneurons.evaluation.answers import Accuracy
from lensneurons.experiments.ablation import AblationMatrix
from lensneurons.experiments.carrying import CarryOver
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.reports import words
from lensneurons.reports.contents import write_cell
from lensneurons.reports.figures import take_apart, themes
from lensneurons.reports.findings import Findings, check_cards
from lensneurons.reports.neuron_cards import page_cards
from lensneurons.reports.neuron_rows import table_data, told_table
from lensneurons.reports.sections import make_tabs
from lensneurons.reports.visible import visible
from lensneurons.values.files import replacing


def report(
    path: str | Path,
    neurons: LanguageNeurons,
    *,
    parts: LayerParts | None = None,
    cards: Sequence[NeuronCard] = (),
    effects: Sequence[AblationMatrix] = (),
    comparison: Comparison | None = None,
    claims: Claims | None = None,
    series: ComparisonSeries | None = None,
    accuracy: Accuracy | None = None,
    steering: SteeringCurve | None = None,
    carry_over: CarryOver | None = None,
    lens: LensCurves | None = None,
    title: str = "Language neurons",
    notes: Sequence[str] = (),
) -> Path:
    """Write everything that was found on one self-contained page, atomically.

    Args:
        path: where to write it.
        neurons: the identified neurons; their population is the one of tables and figures.
        parts: the parts of the model, if they were looked for.
        cards: neurons that are shown with texts and tokens; the others of the table open a small
            card with their probabilities.
        effects: deactivation matrices, of NLL and of accuracy, say.
        comparison: what changed since another model.
        claims: verdicts on the paper's claims.
        series: what changed along checkpoints.
        accuracy: right answers of the model.
        steering: a steering curve.
        carry_over: what layers carry from one language to another.
        lens: logit-lens curves of the model.
        title: heading of the page.
        notes: paragraphs that have to be read first, such as what the model is.

    Returns:
        The path of the page.

    Raises:
        LensNeuronsError: parts or cards of other neurons, or a value that a figure refuses.
    """
    check_cards(neurons, cards)
    findings = Findings(
        neurons, parts, cards, effects, comparison, claims, series, accuracy, steering, carry_over,
        lens,
    )  # fmt: skip
    page = _render(findings, title, notes)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def _render(findings: Findings, title: str, notes: Sequence[str]) -> str:
    environment = Environment(
        loader=PackageLoader("lensneurons.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A browser reads neither NaN nor Infinity: an error here instead of an empty page there.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    environment.filters |= {"cell": write_cell}
    neurons = findings.neurons
    return environment.get_template("page.html.jinja").render(
        title=title,
        notes=notes,
        model=neurons.provenance.model,
        key_numbers=words.key_numbers(neurons),
        summary=list(_summary(findings)),
        tabs=_drawn(findings),
        told_table=told_table(findings),
        table=table_data(findings),
        cards=page_cards(findings.cards),
        provenance=words.provenance_table(neurons.provenance),
        citations=escape(words.citations(__version__)),
        themes=themes(),
        plotly=Markup(get_plotlyjs()),
        style=_source(environment, "page.css"),
        script=_source(environment, "page.js"),
        version=__version__,
    )


def _source(environment: Environment, name: str) -> Markup:
    """A file that stands in the page as it is."""
    loader = environment.loader
    return Markup(loader.get_source(environment, name)[0] if loader else "")


def _shown(value: object) -> object:
    """What the template writes for a value: a string with everything in it visible."""
    return visible(value) if type(value) is str else value


def _summary(findings: Findings) -> Iterator[str]:
    """The findings as sentences."""
    yield from words.summarise(findings.neurons, findings.parts)
    yield from map(words.summarise_effects, findings.effects)
    if findings.accuracy is not None:
        yield words.summarise_accuracy(findings.accuracy)
    if findings.comparison is not None:
        yield words.summarise_comparison(findings.comparison)
    if findings.claims is not None:
        yield words.summarise_claims(findings.claims)


def _drawn(findings: Findings) -> list[dict[str, Any]]:
    """The tabs, each section with its figure taken apart."""
    return [
        {
            "name": tab.name,
            "heading": tab.heading,
            "sections": [
                (section, section.figure and take_apart(section.figure)) for section in tab.sections
            ],
        }
        for tab in make_tabs(findings)
    ]
