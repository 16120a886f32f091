"""Results belong together: each function that accepts results x each kind of foreign part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest

import lensneurons as ln
from lensneurons.cards.card import NeuronCard, neuron_facts
from lensneurons.comparison.paper_claims import Claims
from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.reports import report, report_page
from lensneurons.studies import model_claims
from lensneurons.values.provenance import Provenance

OURS = pages.neurons()
NAME = pages.best(OURS, 1)[0]


def others() -> LanguageNeurons:
    """The same counts under another selection, as with another rate or score."""
    rest = ~OURS.selected | (np.arange(OURS.d_mlp) % 3 > 0)
    return replace(OURS, selected=OURS.selected & rest, lambda_=1.26, score_name="paper")


def of(found: LanguageNeurons, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The made-up matrix of other neurons."""
    with monkeypatch.context() as patch:
        patch.setattr(pages, "neurons", lambda *_: found)
        return pages.matrix()


PAGE_PARTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], dict[str, Any]], str]] = {
    "effects of another selection": (
        lambda patch: {"effects": of(others(), patch)},
        r"effects were measured with \d+ selected neurons \(50.00%, lambda 1.26\).*, these neurons "
        r"were identified with \d+ selected neurons \(50.00%, LAPE\).*: identify with the options",
    ),
    "effects at another bar": (
        lambda patch: {"effects": [of(replace(OURS, tau=0.7), patch)]},
        r"effects were measured with .*tau 0.7000.*were identified with .*tau 0.4000",
    ),
    "effects of another corpus": (
        lambda patch: {"effects": of(replace(OURS, probability=OURS.probability * 0.999), patch)},
        "effects were measured with",
    ),
    "effects of an old file": (
        lambda patch: {"effects": replace(of(others(), patch), made_from=None)},
        r"effects were measured with \d+ specific neurons of \w+, these neurons",
    ),
    "effects in other languages": (
        lambda patch: {"effects": replace(pages.matrix(), identified=tuple("abcdefghij"))},
        r"effects are of neurons of \['a', .*these neurons of \['en'",
    ),
    "effects on another architecture": (
        lambda patch: {"effects": replace(pages.matrix(), provenance=elsewhere())},
        "effects= was measured on far/model, a model of another configuration than made/up-model",
    ),
    "accuracy of another architecture": (
        lambda patch: {"accuracy": replace(pages.accuracy(), provenance=elsewhere())},
        "accuracy= was measured on far/model.*: measure it on that model, or leave it out",
    ),
    "answers of an aligned model of another architecture": (
        lambda patch: {
            "accuracy": pages.accuracy(),
            "aligned_accuracy": replace(pages.accuracy(aligned=True), provenance=elsewhere()),
        },
        "aligned_accuracy= was measured on far/model.*: measure it on that model, or leave it out",
    ),
    "parts of another bar": (
        lambda patch: {"parts": ln.divide_layers(replace(OURS, tau=0.7))},
        r"the parts are of another layer profile \(8 layers with \d+ specific.*divide_layers",
    ),
    "a card of another bar": (
        lambda patch: {"cards": pages.card(replace(OURS, tau=0.41), NAME, pages.TEXTS)},
        f"card of {NAME} is of other neurons than the page .another tau: 0.41, here 0.4",
    ),
    "a card of another score": (
        lambda patch: {"cards": pages.card(rescored(), NAME, pages.TEXTS)},
        f"card of {NAME} is of other neurons than the page .another score",
    ),
    "an explorer of another selection": (
        lambda patch: {"explorer": ln.explore(others())},
        r"explorer= shows other neurons than the page: explore\(neurons, ...\)",
    ),
    "an explorer of another bar": (
        lambda patch: {"explorer": ln.explore(replace(OURS, tau=0.7))},
        "explorer= shows other neurons than the page",
    ),
    "a comparison of other models": (
        lambda patch: {"comparison": replace(compared(), provenance=(elsewhere(), elsewhere()))},
        "comparison= is of other neurons than the page .neither of its models is that of the neuro",
    ),
    "a comparison at another bar": (
        lambda patch: {"comparison": ln.compare(*pages.runs(), tau=0.5)},
        r"comparison= is of other neurons than the page \(tau 0.5000, not 0.4000: compare",
    ),
    "a comparison of other languages": (
        lambda patch: {"comparison": ln.compare(*(one.select(pages.LANGUAGES[:4])
                                                 for one in pages.runs()), tau=0.4)},
        r"the languages \['en', 'ru', 'zh', 'ja'\], not",
    ),
    "claims of another bar": (
        lambda patch: {"comparison": compared(),
                       "claims": ln.claims(ln.compare(*pages.runs(), tau=0.5))},
        r"claims= were tested on something else than the page shows \(all 320 neurons; tau 0.5000",
    ),
    "claims of other neurons": (
        lambda patch: {"claims": model_claims(others())},
        r"claims= were tested on something else .*neurons identified with \d+ selected neurons",
    ),
    "claims of another model": (
        lambda patch: {"claims": model_claims(replace(OURS, provenance=elsewhere()))},
        r"claims= were tested on something else .*model far/model, not made/up-model",
    ),
}  # fmt: skip


def elsewhere() -> Provenance:
    return Provenance(model="far/model", weights="w9", config="c9")


def rescored() -> LanguageNeurons:
    return replace(OURS, score=OURS.score + 1)


def compared() -> Any:
    return ln.compare(*pages.runs(), tau=OURS.tau)


@pytest.mark.parametrize("kind", PAGE_PARTS)
def test_a_report_refuses_foreign_parts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "get_plotlyjs", lambda: "")
    make, told = PAGE_PARTS[kind]
    known = replace(OURS, provenance=replace(OURS.provenance, config="c1"))
    with pytest.raises(LensNeuronsError, match=told):
        report(tmp_path / "page.html", known, **make(monkeypatch))
    assert list(tmp_path.iterdir()) == []


def test_a_report_takes_its_own_parts_alone_or_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "get_plotlyjs", lambda: "")
    card, matrix = pages.card(OURS, NAME, pages.TEXTS), pages.matrix()
    one = report(tmp_path / "one.html", OURS, cards=card, effects=matrix, parts=None)
    several = report(tmp_path / "several.html", OURS, cards=[card], effects=[matrix])
    assert one.read_bytes() == several.read_bytes()
    change = compared()
    after = ln.identify(pages.runs()[1], tau=0.4, score="lape")  # the other model of the change
    report(tmp_path / "after.html", after, comparison=change, claims=ln.claims(change))
    aligned = replace(matrix, provenance=Provenance(model="tuned", weights="w3", config="c1"))
    page = report(tmp_path / "tuned.html", OURS, effects=aligned).read_text("utf-8")
    assert "Measured on other weights than those of the neurons: tuned." in page


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"parts": "four"}, "parts='four': give what divide_layers"),
        ({"claims": pages.matrix()}, "claims=AblationMatrix.*: give what claims"),
    ],
)
def test_a_report_says_what_its_arguments_take(
    options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(LensNeuronsError, match=told):
        report(tmp_path / "page.html", OURS, **options)
    for given, kind, told in (
        ("L0N1", NeuronCard, r"cards='L0N1': give what describe\(\) gives, or several"),
        ([3], AblationMatrix, r"cards=3: give what ablation_matrix\(\) gives, or several"),
    ):
        with pytest.raises(LensNeuronsError, match=told):
            report_page._several("cards", kind, given)
    with pytest.raises(LensNeuronsError, match=r"neurons=3: give what identify\(\) gives"):
        report(tmp_path / "page.html", 3)  # type: ignore[arg-type]


FOREIGN: dict[str, tuple[Callable[[], object], str]] = {
    "parts: statistics of another run": (
        lambda: ln.divide_layers(OURS, pages.runs()[1]),
        "the statistics have other activation probabilities than the neurons .model made/up-later",
    ),
    "facts: statistics of another run": (
        lambda: neuron_facts(OURS, NAME, statistics=pages.runs()[1]),
        "do not have the same provenance",
    ),
    "facts: other counts of the same origin": (
        lambda: neuron_facts(
            OURS, NAME, statistics=replace(pages.runs()[1], provenance=OURS.provenance)
        ),
        "the statistics have other activation probabilities than the neurons: give those that",
    ),
    "model claims: statistics of another run": (
        lambda: model_claims(OURS, statistics=pages.runs()[1]),
        "other activation probabilities",
    ),
    "model claims: parts of another bar": (
        lambda: model_claims(OURS, parts=ln.divide_layers(replace(OURS, tau=0.7))),
        "the parts are of another layer profile",
    ),
    "model claims: effects of others": (
        lambda: model_claims(others(), effects=pages.matrix()),
        "effects were measured with",
    ),
    "claims: parts of the model after": (
        lambda: ln.claims(
            compared(), parts=ln.divide_layers(ln.identify(pages.runs()[1], tau=0.4, score="lape"))
        ),
        r"than the model before has .*: give divide_layers\(identify\(before, tau=0.4\)\)",
    ),
    "compare: another corpus": (
        lambda: ln.compare(
            pages.runs()[0],
            replace(pages.runs()[1], provenance=Provenance(model="x", corpora=("other",))),
        ),
        "corpora",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_functions_refuse_foreign_parts(kind: str) -> None:
    make, told = FOREIGN[kind]
    with pytest.raises(LensNeuronsError, match=told):
        make()


def test_claims_keep_what_they_are_about(tmp_path: Path) -> None:
    found = model_claims(OURS)
    again = Claims.load(found.save(tmp_path / "claims.json"))
    assert (again.made_from, again.provenance) == (OURS.description, OURS.provenance)
