"""`report`: everything that was found, in one self-contained HTML file.

The report needs no network: plotly.js is in it once, and a content security policy forbids it to
ask for anything. plotly.js and large figures are packed, which browsers since 2023 undo: a report
takes 2 MB, one of 100 languages 3. It can be sent by mail, printed, and read on a phone or with a
screen reader. Every string that comes from outside is escaped, and invisible characters are made
visible.

>>> ln.report("report.html", neurons, parts=parts, cards=cards, effects=[matrix])  # doctest: +SKIP

What it does not do: measure anything. A report shows the values it is given, refuses those that do
not belong together (`lensneurons.reports.belonging`), and says which of them were measured on other
weights than the neurons.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lensneurons import __version__
from lensneurons.cards.card import NeuronCard
from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.coupled_layers import LayerCoupling
from lensneurons.comparison.coupled_neurons import Coupling
from lensneurons.comparison.paper_claims import Claims
from lensneurons.comparison.series import ComparisonSeries
from lensneurons.errors import LensNeuronsError, shown
from lensneurons.evaluation.answers import Accuracy
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.carrying import CarryOver
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.method_comparison import MethodComparison
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.experiments.without import Continuations
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.options import MADE_BY, plain_options
from lensneurons.plots.numbers import write_cell
from lensneurons.plots.style import in_theme
from lensneurons.plots.units import in_unit
from lensneurons.reports.belonging import require_together
from lensneurons.reports.contents import ReportValues, visible
from lensneurons.reports.findings import find_all, key_numbers, provenance_table
from lensneurons.reports.neuron_table import report_card, table_data, told_table
from lensneurons.reports.sections import make_tabs
from lensneurons.samples.profiles import PublishedProfile
from lensneurons.values.files import replacing
from lensneurons.values.tables import html_templates
from lensneurons.views.explorer import Explorer, explore

V = TypeVar("V")

TITLE = "Language neurons"
# Probabilities of an explorer that is made unasked; each takes 1.3 bytes of the file. A model of 8
# billion parameters in ten languages has 4.6 million.
MOST_EXPLORED = 5_000_000
_LONG = 30_000  # characters of a figure that is packed
_KEPT_ABOVE = 8  # pixels above a figure whose title has moved into the report
_CLEAR = "rgba(0,0,0,0)"
_HOVER = {"light": ("#ffffff", "#c9c6be"), "dark": ("#24272d", "#454a53")}


@plain_options
def report(
    path: str | Path,
    neurons: LanguageNeurons,
    *,
    parts: LayerParts | None = None,
    cards: NeuronCard | Sequence[NeuronCard] = (),
    effects: AblationMatrix | Sequence[AblationMatrix] = (),
    comparison: Comparison | None = None,
    claims: Claims | None = None,
    series: ComparisonSeries | None = None,
    accuracy: Accuracy | None = None,
    aligned_accuracy: Accuracy | None = None,
    steering: SteeringCurve | None = None,
    carry_over: CarryOver | None = None,
    lens: LensCurves | None = None,
    beside: Mapping[str, LanguageNeurons | PublishedProfile] | None = None,
    explorer: Explorer | None = None,
    methods: MethodComparison | None = None,
    coupling: Coupling | None = None,
    layer_coupling: LayerCoupling | None = None,
    agreement: MethodAgreement | None = None,
    continuations: Continuations | Sequence[Continuations] = (),
    title: str = TITLE,
    notes: Sequence[str] = (),
) -> Path:
    """Write everything that was found into one self-contained HTML file, atomically.

    Args:
        path: where to write it.
        neurons: the identified neurons; their population is the one of tables and figures.
        parts: the parts of the model, if they were looked for.
        cards: neurons that are shown with texts and tokens; the others of the table open a small
            card with their probabilities.
        effects: deactivation matrices, such as one of NLL and one of accuracy; or one alone.
        comparison: what changed since another model.
        claims: verdicts on the paper's claims.
        series: what changed along checkpoints.
        accuracy: right answers of the model.
        aligned_accuracy: those of the model after a training, to the same problems.
        steering: a steering curve.
        carry_over: what layers carry from one language to another.
        lens: logit-lens curves of the model.
        beside: other models, name to neurons or to a profile of `lensneurons.samples`, whose layer
            profiles stand below that of these neurons.
        explorer: what `explore` gives for these neurons, with texts, say. By default the explorer
            of the report shows neurons and layers alone, and those of more than 5 million
            probabilities have none.
        methods: neurons of several methods, and what removing them does.
        coupling: of neurons between the languages.
        layer_coupling: the same of whole layers.
        agreement: how well measures of importance rank single neurons.
        continuations: what the model writes with and without some neurons, prompt by prompt.
        title: heading of the report.
        notes: paragraphs that have to be read first, such as what the model is.

    Returns:
        The path of the report.

    Raises:
        LensNeuronsError: a value of another kind than its argument takes, values that do not
            belong together, or one that a figure refuses.
    """
    cards = _several("cards", NeuronCard, cards)
    effects = _several("effects", AblationMatrix, effects)
    continuations = _several("continuations", Continuations, continuations)
    values = ReportValues(
        neurons, parts, cards, effects, comparison, claims, series, accuracy, steering, carry_over,
        lens, beside or {}, explorer or _explorer_of(neurons), methods, coupling, layer_coupling,
        agreement, continuations, aligned_accuracy,
    )  # fmt: skip
    require_together(values)
    unit = neurons.provenance.unit
    texts = ("page.css", "page.js", "citations.bib")
    templates = Path(__file__).parent / "templates"
    style, script, citations = ((templates / name).read_text("utf-8") for name in texts)
    shown = [report_card(card) for card in cards]
    template = html_templates("lensneurons.reports", _shown).get_template("page.html.jinja")
    page = template.render(
        title=in_unit(title, unit) if title == TITLE else title,
        notes=notes,
        model=neurons.provenance.model,
        unit=unit,
        key_numbers=in_unit(key_numbers(neurons), unit),
        summary=in_unit(list(find_all(values)), unit),
        tabs=[
            replace(tab, heading=in_unit(tab.heading, unit), sections=in_unit(tab.sections, unit))
            for tab in make_tabs(values)
        ],
        take_apart=take_apart,
        told_table=in_unit(told_table(neurons), unit),
        table=table_data(values),
        cards=shown,
        example=next((card for card in shown if card["contexts"][0]), None),
        explored_texts=bool(values.explorer and values.explorer.texts),
        explorer=values.explorer and values.explorer.html(framed=True),
        provenance=provenance_table(neurons.provenance),
        citations=Markup.escape(citations.rstrip().replace("VERSION", __version__)),
        themes=themes(),
        plotly=packed(get_plotlyjs()),
        style=Markup(style),
        script=Markup(script),
        version=__version__,
        cell=write_cell,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def _explorer_of(neurons: LanguageNeurons) -> Explorer | None:
    """Neurons and layers to explore, unless they would make the file much larger."""
    return explore(neurons) if neurons.probability.size <= MOST_EXPLORED else None


def _several(name: str, kind: type[V], given: object) -> tuple[V, ...]:
    """One value or several of a kind, as a tuple."""
    if isinstance(given, kind):
        return (given,)
    found: list[V] = []
    listed = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for one in listed:
        if not isinstance(one, kind):
            raise LensNeuronsError(
                f"{name}={shown(one)}: give {MADE_BY[kind.__name__]}, or several"
            )
        found.append(one)
    return tuple(found)


def _shown(value: object) -> object:
    """What the template writes for a value: a string with everything in it visible."""
    return visible(value) if type(value) is str else value


@dataclass(frozen=True)
class ReportFigure:
    """A figure taken apart: its texts become text of the report, the rest is drawn.

    On a report, titles and notes wrap on a phone, can be selected, and are read aloud.

    Attributes:
        title: what it shows or finds.
        notes: what has to be known to read it, and its findings, a sentence each.
        spec: data and layout, as JSON values, without title and template; the report adds the
            template of the light or the dark ground.
        height: pixels.
        zooms_both: whether both axes are zoomed, as in a heat map; else the horizontal one.
    """

    title: str
    notes: tuple[str, ...]
    spec: dict[str, Any]
    height: int
    zooms_both: bool

    @property
    def packed(self) -> Markup | None:
        """`spec` as `packed` text where it is long, else None."""
        text = json.dumps(self.spec, separators=(",", ":"), sort_keys=True, allow_nan=False)
        return packed(text) if len(text) > _LONG else None


@lru_cache(maxsize=8)  # plotly.js takes half a second
def packed(text: str) -> Markup:
    """A text as gzip in base64, which `unpack` of the report undoes; the same for the same text."""
    return Markup(base64.b64encode(gzip.compress(text.encode("utf-8"), mtime=0)).decode("ascii"))


def take_apart(figure: go.Figure) -> ReportFigure:
    """Title, notes and picture of a figure of `lensneurons.plots`."""
    spec: dict[str, Any] = json.loads(figure.to_json() or "{}")
    layout = spec["layout"]
    told, margin = layout.pop("meta"), layout["margin"]
    above, below = told["pixels"]["above"] - _KEPT_ABOVE, told["pixels"]["below"]
    for name in ("title", "template", "width", "paper_bgcolor", "plot_bgcolor"):
        layout.pop(name, None)
    shown = [note for note in layout.get("annotations", []) if note.get("name") != "finding"]
    layout |= {
        "annotations": shown,
        "margin": {**margin, "t": margin["t"] - above, "b": margin["b"] - below},
        "height": layout["height"] - above - below,
        "autosize": True,
    }
    return ReportFigure(
        title=told["title"],
        notes=(*told["notes"], *told["findings"]),
        spec={"data": spec["data"], "layout": layout},
        height=layout["height"],
        zooms_both=any(trace["type"] == "heatmap" for trace in spec["data"]),
    )


def themes() -> dict[str, Any]:
    """The templates of a light and of a dark report, as JSON values, on the report's own ground."""
    found: dict[str, Any] = {}
    for name, (ground, line) in _HOVER.items():
        empty = in_theme(go.Figure(), "dark" if name == "dark" else "light")
        template = json.loads(empty.to_json() or "{}")["layout"]["template"]
        layout = template["layout"]
        layout |= {"paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR}
        layout["hoverlabel"] |= {"bgcolor": ground, "bordercolor": line}
        layout["hoverlabel"]["font"]["color"] = layout["font"]["color"]
        found[name] = template
    return found
