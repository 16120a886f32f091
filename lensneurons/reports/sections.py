"""The tabs of a report: which figures and tables stand where, for the values that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lensneurons import plots
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.change_tables import CHANGE_ARRAYS, p_text
from lensneurons.comparison.paper_claims import Claims
from lensneurons.evaluation.answers import VERDICTS, Accuracy
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.lens import KINDS
from lensneurons.experiments.metrics import METRICS
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.experiments.without import Continuations
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.parts import LayerParts
from lensneurons.plots.ablation import as_active, interval_told, multiplicity
from lensneurons.plots.labels import full_name
from lensneurons.plots.numbers import MINUS, listing, share, signed, span, with_ends
from lensneurons.plots.profile import profile_of
from lensneurons.reports.aligned_answers import answered_by, answers_before_and_after
from lensneurons.reports.contents import ReportValues, Section, Tab, Table, table_of
from lensneurons.reports.method_sections import methods_sections, other_model
from lensneurons.uncertainty.groups import Interval

if TYPE_CHECKING:
    import pandas as pd

CHANGE_COLUMNS = ("change", *CHANGE_ARRAYS[1:])
_MEANS = ("mean diagonal", "mean off-diagonal", "selectivity")
_REMOVED = {
    "zero": "set to 0",
    "mean": "set to their mean",
    "resample": "set to their values in other texts",
}
_WORDY_WIDTH = 560  # narrower, legends and titles of axes cover what stands beside them
_MATRIX_WIDTH = 640  # narrower, the numbers in the cells of ten languages do not fit


def make_tabs(values: ReportValues) -> tuple[Tab, ...]:
    """The tabs that have something to show, in reading order.

    Raises:
        LensNeuronsError: parts of other neurons, or results that a figure refuses.
    """
    claims = () if values.claims is None else (_claimed(values.claims),)
    about_changes = values.claims is not None and values.claims.about_changes
    tabs = (
        Tab("layers", "Layers", tuple(_layers(values))),
        Tab("languages", "Languages", tuple(_languages(values.neurons))),
        Tab("effects", "Effects", tuple(_effects(values))),
        Tab("neurons", "Neurons", tuple(_one_neuron(values.neurons))),
        Tab("explorer", "Explorer", ()),
        Tab("methods", "Methods", tuple(methods_sections(values))),
        Tab("claims", "Claims", () if about_changes else claims),
        Tab("change", "Change", (*(claims if about_changes else ()), *_changes(values))),
    )
    always = ("neurons",) if values.explorer is None else ("neurons", "explorer")
    return tuple(tab for tab in tabs if tab.sections or tab.name in always)


# Layers


def _layers(values: ReportValues) -> Iterator[Section]:
    neurons, parts = values.neurons, values.parts
    counts = neurons.layer_profile("all").tolist()
    rows = tuple((layer, *row) for layer, row in enumerate(counts))
    yield Section(
        "Where they sit",
        "Specific, related and agnostic neurons of each layer, over all neurons of the model.",
        plots.layer_profile(neurons, parts),
        (Table(("layer", *LAYER_CLASSES), rows, "Neurons of each layer by class"),),
    )
    if values.beside:
        rows = tuple(
            (name, layer, *row)
            for name, other in values.beside.items()
            for layer, row in enumerate(profile_of(other).tolist())
        )
        yield Section(
            "Beside other models",
            "The same classes over the depth of the layers. Models that read other texts cannot be "
            "compared layer by layer, but where a class is frequent can.",
            plots.layer_profiles({"this model": neurons, **values.beside}),
            (Table(("model", "layer", *LAYER_CLASSES), rows, "Neurons of each layer by class"),),
            least_width=_WORDY_WIDTH,
        )
    if parts is not None:
        rows = tuple((c.part or "all", c.claim, c.verdict, c.measured) for c in parts.criteria)
        tried = listing(span(part.first, part.last) for part in parts.parts or parts.division)
        what = "Parts that were found" if parts.parts else "None was found; the best division"
        head = ("part", "criterion", "verdict", "ratio of counts, 90% interval")
        yield Section(
            "The evidence for four parts",
            "The paper describes four parts of a model. Each line of its description is tested as "
            "a ratio of counts of neighbouring parts; a part is found if its lines hold. The "
            "interval includes how much neighbouring layers differ, and other texts if they were "
            "counted in groups.",
            open_tables=(Table(head, rows, f"{what}: layers {tried}"),),
        )
    if (curves := values.lens) is not None:
        fits = curves.n_layers == neurons.n_layers
        pooled = np.nanmean(curves.means, axis=1)[:, [KINDS.index(kind) for kind in curves.kinds]]
        rows = tuple((layer, *row) for layer, row in enumerate(pooled.tolist()))
        caption = "Mean probability over languages, by kind of token"
        yield Section(
            "What each layer would say",
            "Every layer read through the last norm and the unembedding: in the words of which "
            "language would it go on?" + other_model(curves.provenance, neurons),
            plots.lens_curves(curves, neurons=neurons if fits else None),
            (Table(("layer", *curves.kinds), rows, caption),),
            least_width=_WORDY_WIDTH,
        )
    if (result := values.carry_over) is not None:
        means, covered = np.nanmean(result.shares, axis=1), result.covered.mean(axis=1)
        both = np.column_stack([means, covered]).tolist()
        rows = tuple((layer, *row) for layer, row in enumerate(both))
        head = ("layer", *result.outcomes, "all together")
        caption = "Mean share of each outcome, and the probability of all together"
        yield Section(
            "What a layer carries from one language to another",
            "The stream after a layer, put into a text of another language: which answer, in "
            "which language, does the model then give?" + other_model(result.provenance, neurons),
            plots.carry_over(result, parts),
            (Table(head, rows, caption),),
        )


# Languages, and one neuron


def _languages(neurons: LanguageNeurons) -> Iterator[Section]:
    names = [full_name(code) for code in neurons.languages]
    sizes = [(len(neurons.specific[k]), len(neurons.related[k])) for k in neurons.languages]
    rows = tuple((name, a, b, a + b) for name, (a, b) in zip(names, sizes, strict=True))
    head = ("language", "specific", "related", "together")
    yield Section(
        "How many each language has",
        "A specific neuron is active above the bar in one language alone, a related one in several "
        "but not in all. A related neuron counts for each of its languages.",
        open_tables=(Table(head, rows, neurons.description),),
    )
    numbers = tuple(enumerate(neurons.histogram("all").tolist()))
    yield Section(
        "How many languages share a neuron",
        "Every neuron by the number of languages in which its activation probability exceeds tau.",
        plots.language_histogram(neurons.with_population("all")),
        (Table(("languages N", "neurons"), numbers, "All neurons by N"),),
    )
    counts = [neurons[k].per_layer().tolist() for k in neurons.languages]
    rows = tuple((name, *row) for name, row in zip(names, counts, strict=True))
    head = ("language", *(f"layer {layer}" for layer in range(neurons.n_layers)))
    yield Section(
        "Layers and languages",
        "Which layers hold the neurons of which language.",
        plots.neuron_map(neurons),
        (Table(head, rows, "Specific and related neurons of each language by layer"),),
    )
    values = neurons.overlap_matrix().tolist()
    rows = tuple((name, *row) for name, row in zip(neurons.languages, values, strict=True))
    yield Section(
        "Which languages share their neurons",
        "Jaccard overlap of the neurons of each pair of languages: 1 for the same neurons.",
        plots.overlap(neurons),
        (Table(("language", *neurons.languages), rows, "Jaccard overlap"),),
    )


def _one_neuron(neurons: LanguageNeurons) -> Iterator[Section]:
    """The selected language-specific neuron with the lowest score, if there is one."""
    mask = neurons.selected & (neurons.n_above == 1)
    if mask.any():
        lowest = np.where(mask, neurons.score, np.inf).argmin()
        layer, neuron = np.unravel_index(lowest, mask.shape)
        name = neurons.name_of(int(layer), int(neuron))
        yield Section(
            f"One of them: {name}",
            "The language-specific neuron with the lowest score, language by language.",
            plots.neuron_probabilities(neurons, name),
        )


# Effects: what removing and steering neurons does, and how well the model answers


def _effects(values: ReportValues) -> Iterator[Section]:
    for matrix in values.effects:
        yield Section(
            METRICS[matrix.metric].section,
            f"The neurons of a row's language are {_REMOVED[matrix.method]}, and the languages of "
            "the columns are evaluated. Random neurons stand beside them, matched by how active "
            "they are in that language: what they do as well comes from activity. Neurons belong "
            "to a language if removing them harms it more than other languages, and more so than "
            "such random neurons do." + other_model(matrix.provenance, values.neurons),
            plots.ablation_effects(matrix),
            tuple(_cell_tables(matrix)),
            tuple(_control_tables(matrix)),
            least_width=_MATRIX_WIDTH if len(matrix.languages) > 5 else 0,
        )
    if values.continuations:
        yield Section(
            "The same prompt without neurons",
            "What the model writes as it is, without some neurons, and without as many random ones "
            "of the same layers. The NLL is of what the model writes as it is. One prompt and one "
            "random set each: examples, no measurement.",
            open_tables=tuple(map(_continuation_table, values.continuations)),
        )
    if (curve := values.steering) is not None:
        yield Section(
            "Steering",
            "What the model writes, and what it loses, when the neurons of a language are turned "
            "up." + other_model(curve.provenance, values.neurons),
            plots.steering_curve(curve),
            (_steering_table(curve),),
            least_width=_WORDY_WIDTH,
        )
    if (accuracy := values.accuracy) is not None:
        yield Section(
            "Right answers, in the right language",
            "The last number of a text is its answer; the language of the whole text is identified "
            "by a library. Shares of the answers with 95% intervals (Wilson)."
            + other_model(accuracy.provenance, values.neurons),
            open_tables=(_accuracy_table(accuracy),),
        )


def _control_tables(matrix: AblationMatrix) -> Iterator[Table]:
    """The set of each setting beside its controls: how active they are, and what they do."""
    for setting in matrix.classes:
        figures, p = matrix.figures(setting), matrix.mean_p(setting)
        rows = []
        for place, side in enumerate(matrix.sides):
            head = f"control ({side}): " if place else ""
            shares = map(_share, p[place].tolist())
            means = (_ends(figures[f"{head}{name}"]) for name in _MEANS)
            ratio = _ends(figures[f"{head}diagonal / off-diagonal"], _share)
            name = "the neurons themselves"
            if place:
                name = f"random, {as_active(matrix, setting, matrix.matches[place - 1])}"
            rows.append((name, *shares, *means, ratio))
        for match in matrix.matches:
            beyond = (_ends(figures[f"beyond control ({match}): {name}"]) for name in _MEANS)
            told = f"set less random {as_active(matrix, setting, match)}"
            rows.append((told, "", "", *beyond, ""))
        head = ("removed", "p, own language", "p, others", "own language", "others",
                "selectivity", "own / others")  # fmt: skip
        few = f"; {matrix.too_few}" if matrix.too_few else ", with 95% intervals"
        yield Table(
            head,
            tuple(rows),
            f"{matrix.name_of(setting)}: {METRICS[matrix.metric].unit}, mean over the rows{few}; "
            "p: mean activation probability of the neurons; selectivity: change in the own "
            "language less the mean of the others; no ratio to what is not clear of zero",
        )


def _share(value: float) -> str:
    return share(value).replace("-", MINUS) if np.isfinite(value) else "–"


def _ends(found: Interval, write: Callable[[float], str] = signed) -> str:
    return interval_told(found, write) if np.isfinite(found.estimate) else "–"


def _cell_tables(matrix: AblationMatrix) -> Iterator[Table]:
    """The cells of every setting, with the marks of those beyond control, and of every control."""
    for setting, sizes in zip(matrix.classes, matrix.sizes.tolist(), strict=True):
        marks = matrix.marked(setting, matrix.matches[0])
        mark = f"; * {multiplicity(matrix)}" if marks.any() else ""
        found = {f"{matrix.name_of(setting)} removed{mark}": (matrix.cells(setting), marks)}
        for match in matrix.matches:
            told = f"random neurons in their place, {as_active(matrix, setting, match)}"
            found[told] = matrix.control_cells(setting, match), np.zeros_like(marks)
        for told, (cells, starred) in found.items():
            texts = [
                [signed(cell) + "*" * star for cell, star in zip(*pair, strict=True)]
                for pair in zip(cells.tolist(), starred.tolist(), strict=True)
            ]
            rows = tuple(
                (row, size, *line)
                for row, size, line in zip(matrix.rows, sizes, texts, strict=True)
            )
            head = ("removed", "neurons", *matrix.languages)
            yield Table(head, rows, f"{METRICS[matrix.metric].unit}: {told}")


def _continuation_table(found: Continuations) -> Table:
    """What a prompt is continued with, whole and edited."""
    names = {"whole": "none", "without": found.neurons, "random": f"random, {found.match}"}
    rows = tuple(
        (
            names[row["condition"]],
            "–" if np.isnan(row["strength"]) else f"{row['strength']:g}",
            row["text"] or "(nothing)",
            f"{row['changed']:.0%}",
            "–" if np.isnan(row["nll"]) else f"{row['nll']:.3f}",
        )
        for row in found.to_pandas().to_dict("records")
    )
    head = ("neurons", "strength", "text", "words changed", "NLL, nats a token")
    return Table(head, rows, f"{found.prompt.rstrip()} … ({found.edit})")


def _steering_table(curve: SteeringCurve) -> Table:
    frame = curve.to_pandas()
    names = [str(name) for name in frame if f"{name}_low" in frame]
    rows = []
    for row in frame.to_dict("records"):
        told = (with_ends(row[n], row[f"{n}_low"], row[f"{n}_high"], share) for n in names)
        rows.append((float(row["alpha"]), *told))
    head = ("strength alpha", *(name.replace("_", " ") for name in names))
    return Table(head, tuple(rows), "Shares of texts, and NLL in nats a token; 95% intervals")


def _accuracy_table(accuracy: Accuracy) -> Table:
    rows = []
    for code, row in accuracy.per_language().to_dict("index").items():
        ends = ([row[f"{part}{end}"] for end in ("", "_low", "_high")] for part in VERDICTS)
        shares = (with_ends(*part, write="{:.0%}".format) for part in ends)
        rows.append((full_name(str(code)), int(row["items"]), *shares))
    head = ("language", "items", *(part.replace("_", " ") for part in VERDICTS))
    return Table(head, tuple(rows), answered_by(accuracy))


# What changed between two models, or along the checkpoints of a training run


def _claimed(claims: Claims) -> Section:
    told = (
        "Each claim with the number that decides, its interval and its p-value, adjusted for the "
        "number of claims: it holds, it does not, or these data do not decide. "
    )
    told += (
        "A change holds only where it is more than an equal rise of all firing gives, and more "
        "than a common shift with noise."
        if claims.about_changes
        else "They are about this one model; every number is positive where the paper is right."
    )
    return Section(
        "The claims of the paper, tested",
        told,
        plots.claims(claims),
        open_tables=(_claims_table(claims),),
        least_width=860,
    )


def _changes(values: ReportValues) -> Iterator[Section]:
    yield from answers_before_and_after(values)
    if values.comparison is not None:
        yield from _compared(values.comparison, values.parts)
    if (series := values.series) is not None:
        yield Section(
            "Along the training",
            f"Every checkpoint against the first one, {series.first}.",
            plots.checkpoint_series(series),
            (_change_table(series.to_pandas("layers"), series.description),),
            least_width=_WORDY_WIDTH,
        )


def _compared(comparison: Comparison, parts: LayerParts | None) -> Iterator[Section]:
    told = comparison.description
    yield Section(
        "In how many languages a neuron is active",
        "Neurons by the number N of languages they are active in, before and after. At one bar a "
        "model that fires more shows more shared neurons, without any sharing: so what an equal "
        "rise of all firing gives, what a common shift with noise gives, and the change at each "
        "model's own bar stand beside every change.",
        plots.histogram_change(comparison),
        (_change_table(comparison.to_pandas(), told),),
    )
    numbers = range(len(comparison.languages) + 1)
    flows = tuple((f"N = {n}", *comparison.transitions[n].tolist()) for n in numbers)
    yield Section(
        "From where to where",
        "Neurons by N before and N after; those on the diagonal stayed.",
        plots.transitions(comparison),
        (Table(("before", *(f"N = {n} after" for n in numbers)), flows, told),),
        least_width=_WORDY_WIDTH,
    )
    yield Section(
        "Layer by layer",
        "Change of specific, related and agnostic neurons in every layer.",
        plots.class_changes(comparison, parts if parts is not None and parts.found else None),
        (_change_table(comparison.to_pandas("layers"), told),),
    )
    yield Section(
        "Language by language",
        "Change of the specific and related neurons of each language.",
        plots.language_changes(comparison),
        (_change_table(comparison.to_pandas("languages"), told),),
        least_width=_WORDY_WIDTH,
    )


def _claims_table(claims: Claims) -> Table:
    def number(value: float) -> str:
        return "–" if np.isnan(value) else f"{value:.4g}".replace("-", MINUS)

    signs = {"holds": "✓", "does not hold": "✗", "undecided": "?"}
    rows = []
    for row in claims:
        ends = "" if np.isnan(row.low) else f"{number(row.low)} to {number(row.high)}"
        verdict = f"{signs[row.verdict]} {row.verdict}{': ' if row.reason else ''}{row.reason}"
        beside = map(number, (row.change, row.uniform, row.drift, row.alike, row.own_bar))
        beside = tuple(beside) if claims.about_changes else ()
        numbers = (*beside, number(row.measured), ends, p_text(row.p_adjusted))
        rows.append((row.claim, row.expected, *numbers, verdict))
    head = ("claim", "expected")
    if claims.about_changes:
        head += ("change", "equal rise gives", "shift and noise give")
        head += ("other languages give", "at own bars")
    head += ("number that decides", "interval", "adjusted p", "verdict")
    return Table(head, tuple(rows), claims.description)


def _change_table(frame: pd.DataFrame, caption: str) -> Table:
    """Before, after, change and what it exceeds an equal rise by, with intervals in one cell."""
    named = {
        "uniform": "equal rise gives",
        "drift": "shift and noise give",
        "alike": "other languages give",
        "own_bar": "at own bars",
    }
    columns = {name: frame[name] for name in frame if name not in CHANGE_COLUMNS}
    for name, start in (("change", ""), ("beyond", "beyond_")):
        columns[name] = [f"{value:+g}".replace("-", MINUS) for value in frame[name].round(1)]
        ends = zip(frame[f"{start}low"], frame[f"{start}high"], strict=True)
        columns[f"95% interval of {name}"] = [
            "" if np.isnan(a) else f"{a:+.1f} to {b:+.1f}".replace("-", MINUS) for a, b in ends
        ]
        columns[f"p of {name}"] = [p_text(p) for p in frame[f"{start}p"]]
    for name, told in named.items():
        columns[told] = [
            "" if np.isnan(value) else f"{value:+.1f}".replace("-", MINUS) for value in frame[name]
        ]
    return table_of(frame.__class__(columns), caption)
