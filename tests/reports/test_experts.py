"""A planted mixture of experts, from counts to page: the same numbers, and its own words."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from layer_profiles import MISTRAL

from lensneurons import plots
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.card import neuron_facts
from lensneurons.cli.summaries import describe_neurons
from lensneurons.comparison.before_after import compare
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import divide_layers
from lensneurons.plots.units import in_unit
from lensneurons.reports import report
from lensneurons.reports.contents import ReportValues
from lensneurons.reports.neuron_table import table_data
from lensneurons.uncertainty.groups import bootstrap
from lensneurons.values.provenance import ROUTER, Provenance
from lensneurons.views.explorer import explore

LANGUAGES = ("en", "th", "zh", "sw")
EXPERTS, GROUPS, TOKENS = 128, 10, 2000
PROFILE = np.round(MISTRAL * 120 / MISTRAL.sum(1).max()).astype(int)  # [layer, class]
SAYS = re.compile(r"(?<![\w/.-])neurons?(?![\w/-])", re.IGNORECASE)


@cache
def planted():
    """Statistics, and bool [layer, expert, language]: which experts are chosen often."""
    random = np.random.default_rng(5)
    often = np.zeros((len(PROFILE), EXPERTS, len(LANGUAGES)), bool)
    for layer, (specific, related, agnostic) in enumerate(PROFILE):
        order = random.permutation(EXPERTS)
        for place, expert in enumerate(order[: specific + related + agnostic]):
            n = 1 if place < specific else 4 if place >= specific + related else 2 + place % 2
            often[layer, expert, random.permutation(4)[:n]] = True
    share = np.where(often, 0.5, 0.02)
    counts = random.binomial(TOKENS, share, (GROUPS, *share.shape))
    tokens = np.full((GROUPS, len(LANGUAGES)), TOKENS)
    return ActivationStatistics(
        LANGUAGES, counts, tokens, provenance=Provenance(model="org/my-neurons", hook=ROUTER)
    ), often


@cache
def found():
    return identify(planted()[0], tau=0.3, top_rate=0.5, score="lape", population="all")


def test_the_planted_experts_are_found():
    often, neurons = planted()[1], found()
    assert np.array_equal(neurons.above, often)
    assert np.array_equal(neurons.layer_profile("all"), PROFILE)
    both = (often[..., 0] & often[..., 1] & ~often.all(-1)).sum()
    either = ((often[..., 0] | often[..., 1]) & ~often.all(-1)).sum()
    assert neurons.overlap()["en"]["th"] == both / either
    share = bootstrap(planted()[0], lambda drawn: drawn.probability.mean(axis=(0, 1)), draws=50)
    assert (share.low <= share.estimate).all()
    assert (share.estimate <= share.high).all()


def test_controls_are_experts_of_the_same_layers_chosen_as_often():
    neurons, random = found(), np.random.default_rng(0)
    chosen = neurons.agnostic & neurons.agnostic
    p = np.round(random.random(planted()[1].shape[:2]), 3)  # a load that has near equals
    for control in chosen.random_control(p, draws=5):
        assert not len(control & chosen)
        assert np.array_equal(control.per_layer(), chosen.per_layer())
        assert abs(p.flat[control.flat].mean() / p.flat[chosen.flat].mean() - 1) < 0.05
        assert "experts in" in repr(control)


def test_the_parts_are_those_of_the_same_profile():
    parts, bare = divide_layers(found(), draws=20), divide_layers(PROFILE, draws=20)
    assert parts.boundaries == bare.boundaries
    assert parts.found == bare.found
    assert [one.verdict for one in parts.criteria] == [one.verdict for one in bare.criteria]


FIGURES = {
    "map": lambda: plots.neuron_map(found()),
    "map of a layer": lambda: plots.neuron_map(found(), layer=3),
    "overlap": lambda: plots.overlap(found()),
    "containment": lambda: plots.overlap(found(), measure="containment"),
    "one": lambda: plots.neuron_probabilities(found(), "L3N5"),
    "profile": lambda: plots.layer_profile(found()),
    "profiles": lambda: plots.layer_profiles({"mixture": found()}),
    "histogram": lambda: plots.language_histogram(found()),
    "transitions": lambda: plots.transitions(compared()),
    "histogram change": lambda: plots.histogram_change(compared()),
    "class changes": lambda: plots.class_changes(compared()),
    "language changes": lambda: plots.language_changes(compared()),
}


@cache
def compared():
    statistics, _ = planted()
    after = ActivationStatistics(
        LANGUAGES,
        statistics.grouped_counts[:, :, ::-1].copy(),
        statistics.grouped_tokens,
        provenance=Provenance(model="org/other", hook=ROUTER),
    )
    return compare(statistics, after, tau=0.3)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_expert(name):
    figure = FIGURES[name]()
    told = figure.to_json()
    assert not SAYS.search(told), SAYS.search(told)
    assert "expert" in told
    assert "my-neurons" in told or name in ("profiles",) or "chang" in name or name == "transitions"


def test_the_page_says_expert(tmp_path):
    path = report(tmp_path / "page.html", found(), parts=divide_layers(found(), draws=20))
    page = path.read_text("utf-8")
    body = page[page.index("<body") :]
    shown = re.sub(r"<script.*?</script>|<pre.*?</pre>|<[^>]+>", " ", body, flags=re.DOTALL)
    assert not SAYS.search(shown), shown[SAYS.search(shown).start() - 80 :][:160]
    assert "Every language expert" in shown
    assert "Language experts</h1>" in body
    assert "how often an expert is chosen" in shown
    assert f"{found().score.size:,}" in shown


def test_neurons_inside_experts_have_their_names_in_the_table_and_in_the_explorer():
    inside = replace(found(), provenance=Provenance(model="org/mixture"), n_experts=8)
    names = inside.to_pandas()["name"].tolist()
    assert re.fullmatch(r"L\d+E[0-7]N\d+", names[0])
    rows = table_data(ReportValues(inside))["rows"]
    assert [row[0] for row in rows] == names
    assert '"experts":8' in explore(inside).html()


def test_texts_say_expert():
    assert "agnostic" not in repr(found()["en"])
    assert re.search(r"en: \d+ experts in 32 layers", repr(found()["en"]))
    assert "experts</th>" in found()["en"]._repr_html_()
    assert "all experts by number of languages" in describe_neurons(found(), None)
    assert "4,096 experts" in repr(found())
    assert neuron_facts(found(), "L3N5").name == "L3N5"


def test_only_the_word_is_exchanged():
    told = "A neuron; the neuron's; Neurons of my-neurons, org/neuron, neuron_map, lensneurons"
    wanted = "An expert; the expert's; Experts of my-neurons, org/neuron, neuron_map, lensneurons"
    assert in_unit(told, "expert") == wanted
    assert in_unit(told, "neuron") == told
    assert in_unit({"template": told, "x": (1, [told])}, "expert") == {
        "template": told,
        "x": (1, [wanted]),
    }
