"""What a training did to the answers: right ones before and after, as a section and a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.change_tables import p_text
from lensneurons.evaluation.answers import Accuracy, accuracy_difference, mean_difference
from lensneurons.plots.labels import full_name
from lensneurons.plots.numbers import Cell, listing, percent_points, share, with_ends
from lensneurons.reports.contents import ReportValues, Section, Table


def answers_before_and_after(values: ReportValues) -> Iterator[Section]:
    """The section, if there are answers of both models."""
    if values.accuracy is not None and values.aligned_accuracy is not None:
        yield Section(
            "Right answers, before and after",
            "Right answers in the right language of both models to the same problems. The interval "
            "of a change is 95%, paired by problem; p is McNemar's exact test, not adjusted for "
            "the number of languages.",
            open_tables=(_table(values.accuracy, values.aligned_accuracy, values.comparison),),
        )


def told_answers(values: ReportValues) -> Iterator[str]:
    """The finding, if there are answers of both models."""
    if values.accuracy is not None and values.aligned_accuracy is not None:
        means = _means(values.accuracy, values.aligned_accuracy, values.comparison)
        if changes := listing(f"by {told} points in {name}" for name, told in means):
            yield (
                f"The share of right answers in the right language changed {changes} (means over "
                "languages, 95% intervals over problems)."
            )


def _table(before: Accuracy, after: Accuracy, comparison: Comparison | None) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for code, row in accuracy_difference(before, after).to_dict("index").items():
        ends = (float(row[name]) for name in ("change", "low", "high"))
        shares = share(row["before"]), share(row["after"])
        told = (*shares, with_ends(*ends, write=percent_points), p_text(row["p"]))
        rows.append((full_name(str(code)), _role(comparison, str(code)), int(row["items"]), *told))
    means = _means(before, after, comparison)
    rows += [(f"mean of {name}", "", None, None, None, told, "") for name, told in means]
    head = ("language", "", "problems", "before", "after", "change, points of percent", "p")
    names = [answered_by(one) for one in (before, after)]
    return Table(head, tuple(rows), f"{names[0]}; after: {names[1]}")


def answered_by(accuracy: Accuracy) -> str:
    """The model that answered, and how if not greedily."""
    temperature = accuracy.decoding.temperature
    drawn = f", answers drawn at temperature {temperature:g}" if temperature else ""
    return f"{accuracy.provenance.model}{drawn}"


def _means(
    before: Accuracy, after: Accuracy, comparison: Comparison | None
) -> Iterator[tuple[str, str]]:
    """Mean changes over the trained and over the untouched languages, or over all, written.

    There is none over a single item, which has no interval.
    """
    if len({one.id for one in before} & {one.id for one in after}) < 2:
        return
    asked = [code for code in before.languages if code in after.languages]
    groups = {"all languages": asked}
    if comparison is not None and comparison.trained:
        groups = {
            f"the {role} languages": [code for code in asked if _role(comparison, code) == role]
            for role in ("trained", "untouched")
        }
    for name, languages in groups.items():
        if languages:
            change = mean_difference(before, after, languages=languages)
            ends = (float(x) for x in (change.estimate, change.low, change.high))
            yield name, with_ends(*ends, write=percent_points)


def _role(comparison: Comparison | None, language: str) -> str:
    """Whether a language was trained; empty where nothing says so."""
    if comparison is None or language not in comparison.languages:
        return ""
    return comparison.role_of(language)
