"""Samples are made without texts, of one model and its neurons, and read back whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pages
import pytest
from figure_values import TEN, make_lens, make_statistics

from lensneurons.errors import LensNeuronsError
from lensneurons.experiments.ablation import ablation_sets
from lensneurons.experiments.without import Continuation, Continuations
from lensneurons.neurons.identification import identify
from lensneurons.samples.sample import About
from lensneurons.samples.workshop import LEFT_OUT, pack_sample
from lensneurons.values.provenance import Provenance

ORIGIN = Provenance(model="a-model", weights="w1")
ABOUT = About("A", "float32", "free", "made-up texts", "free", "none", "lape", 0.1)
STATISTICS = replace(make_statistics(TEN, 5, 128, groups=6, seed=3), provenance=ORIGIN)
NEURONS = identify(STATISTICS, score="lape", top_rate=0.1)


def a_matrix(metric="nll"):
    """A matrix that says that it removed the neurons of the sample."""
    made = pages.matrix(TEN)
    sets = ablation_sets(NEURONS, made.classes)
    by_layer = [
        [np.bincount(one.layers, minlength=5) for one in rows.values()] for rows in sets.values()
    ]
    rates = np.zeros((4, 2, 10, 5, 10))
    changed = {"neurons_by_layer": np.array(by_layer), "rates": rates, "provenance": ORIGIN}
    return replace(made, metric=metric, **changed)


def a_card():
    name = pages.best(NEURONS, 1)[0]
    return pages.card(NEURONS, name, {k: pages.TEXTS[k] for k in ("en", "zh")})


def continuations(origin=ORIGIN):
    rows = [("whole", None, "Rain."), ("without", 1.0, "雨。"), ("random", 1.0, "Rain.")]
    made = tuple(Continuation(*row, 0.5) for row in rows)
    return Continuations(made, "What?", "Rain.", 2, "zh: 3 neurons", "steered", "random", origin)


def test_what_was_steered_is_kept_and_is_of_the_same_model(tmp_path):
    given = [continuations(), replace(continuations(), prompt="Who?")]
    sample = pack_sample(tmp_path / "one", ABOUT, statistics=STATISTICS, steered=given)
    assert [(one.prompt, one.rows) for one in sample.steered] == [
        (one.prompt, one.rows) for one in given
    ]
    assert "2 prompts" in sample._repr_html_()
    other = continuations(Provenance(model="a-model", weights="w2"))
    with pytest.raises(LensNeuronsError, match="is of another model"):
        pack_sample(tmp_path / "two", ABOUT, statistics=STATISTICS, steered=[other])


def test_what_goes_in_comes_out_but_texts_and_sums(tmp_path):
    lens = replace(make_lens(TEN, layers=5), provenance=ORIGIN)
    full = replace(STATISTICS, sums=STATISTICS.counts / 3, squares=STATISTICS.counts / 5)
    values = {"effects": [a_matrix(), a_matrix("accuracy")], "lens": lens, "cards": [a_card()]}
    sample = pack_sample(tmp_path / "one", ABOUT, statistics=full, **values)
    assert np.array_equal(sample.statistics.grouped_counts, STATISTICS.grouped_counts)
    assert sample.statistics.sums is None
    assert list(sample.effects) == ["nll", "accuracy"]
    for ours, theirs in zip(values["effects"], sample.effects.values(), strict=True):
        assert np.array_equal(ours.effect, theirs.effect)
    assert np.array_equal(sample.lens.mass, lens.mass)
    [card], [given] = sample.cards, values["cards"]
    assert card.contexts == ()
    assert card.source == f"{given.source}; {LEFT_OUT}"
    assert (card.facts, card.vocabulary, card.effect) == (
        given.facts, given.vocabulary, given.effect
    )  # fmt: skip
    assert LEFT_OUT in card._repr_html_()
    shown = sample._repr_html_()
    for part in ("2 settings", "LensCurves(", "1 neurons", "made-up texts"):
        assert part.split()[0] in shown
    files = {p.relative_to(tmp_path / "one").as_posix() for p in (tmp_path / "one").rglob("*.*")}
    assert files == {"about.json", *sample.about.files}
    held = b"".join((tmp_path / "one" / name).read_bytes() for name in files)
    for before, _, after in (pages.TEXTS["en"], pages.TEXTS["zh"]):
        assert before.encode() not in held
        assert after.encode() not in held


def test_a_sample_is_written_anew(tmp_path):
    pack_sample(tmp_path / "one", ABOUT, statistics=STATISTICS, cards=[a_card()])
    first = {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir() if p.is_file()}
    sample = pack_sample(tmp_path / "one", ABOUT, statistics=STATISTICS)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(first)
    assert sample.cards == ()
    assert "not measured" in sample._repr_html_()
    again = (tmp_path / "one" / "statistics.safetensors").read_bytes()
    assert again == first["statistics.safetensors"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"effects": [a_matrix(), a_matrix()]}, "two matrices of one metric"),
        ({"effects": [replace(a_matrix(), provenance=Provenance())]}, "of another model"),
        ({"effects": [replace(a_matrix(), neurons_by_layer=a_matrix().neurons_by_layer + 1)]},
         "removed other neurons"),
        ({"lens": make_lens(TEN)}, "of another model"),
        ({"cards": [replace(a_card(), facts=replace(a_card().facts, score=0.1))]}, "is not of"),
        ({"statistics": replace(STATISTICS, provenance=Provenance(model="/home/me/m"))},
         "load it by its bare name"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(tmp_path, values, told):
    with pytest.raises(LensNeuronsError, match=told):
        pack_sample(tmp_path / "one", ABOUT, **{"statistics": STATISTICS, **values})
