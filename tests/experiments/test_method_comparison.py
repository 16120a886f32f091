"""Sets of one's own in a matrix, and methods compared by what their neurons do."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from lensneurons.activations.items import item_activations
from lensneurons.cards.attribution import importance
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.evaluation.likelihood import nll
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.experiments.belonging import require_own_effects
from lensneurons.experiments.method_comparison import MethodComparison, compare_methods
from lensneurons.interventions.editing import ablate
from lensneurons.neurons.rankings import rank_neurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.plots.ablation import ablation_effects

pytestmark = pytest.mark.filterwarnings("ignore:no other neurons are as active")

LANGUAGES = ("en", "zh")
CORPUS = tiny.tiny_corpus(LANGUAGES)
N_ITEMS = len(CORPUS.ids)


@pytest.fixture(scope="module")
def neurons():
    return tiny.drawn_neurons(languages=(*LANGUAGES, "th"))


@pytest.fixture(scope="module")
def methods(llama, neurons):
    return {
        "drawn": neurons,
        "precision": rank_neurons(item_activations(llama, CORPUS, progress=False)),
        "PLND": importance(llama, CORPUS),
    }


@pytest.fixture(scope="module")
def compared(llama, neurons, methods):
    return compare_methods(
        llama, CORPUS, methods, neurons,
        number=7, languages=LANGUAGES, controls=N_ITEMS, progress=False,
    )  # fmt: skip


def test_every_method_gives_as_many_neurons_its_first_ones(compared, methods, neurons):
    for k in LANGUAGES:
        n = min(7, len(neurons[k]))
        for name, of in compared.sets.items():
            assert len(of[k]) == n
            assert of[k].flat.tolist() == sorted(methods[name].top(k, n).flat.tolist())
        best = sorted(neurons[k].flat.tolist(), key=lambda flat: (neurons.score.flat[flat], flat))
        assert compared.sets["drawn"][k].flat.tolist() == sorted(best[:n])


def test_effects_are_those_of_plain_ablations(compared, llama):
    base = nll(llama, CORPUS)
    matrix = compared.matrix
    for place, name in enumerate(compared.sets):
        for row, k in enumerate(LANGUAGES):
            with ablate(llama, compared.sets[name][k]):
                without = nll(llama, CORPUS)
            np.testing.assert_allclose(
                matrix.effect[place, row], without.nll - base.nll, rtol=1e-4, atol=1e-3
            )
        assert matrix.name_of(name) == name
    assert matrix.matches == ("own",)


def test_tables_say_what_the_matrix_says(compared):
    table = compared.to_pandas().set_index(["method", "figure"])
    for name in compared.sets:
        cells = compared.matrix.cells(name)
        own = cells.diagonal().mean()
        assert table.loc[(name, "own effect"), "estimate"] == pytest.approx(own)
        others = cells[~np.eye(2, dtype=bool)].mean()
        assert table.loc[(name, "selectivity"), "estimate"] == pytest.approx(own - others)
    overlap = compared.overlap()
    assert overlap.to_numpy().diagonal().tolist() == [1, 1, 1]
    shared = []
    for k in LANGUAGES:
        one, two = (set(compared.sets[name][k].names) for name in ("precision", "PLND"))
        shared.append(len(one & two) / len(one | two))
    assert overlap.loc["precision", "PLND"] == pytest.approx(np.mean(shared))
    profile = compared.layer_profile()
    assert profile["PLND"].sum() == sum(len(one) for one in compared.sets["PLND"].values())
    assert "own effect beyond control" in compared.to_text()
    assert "neurons of each: en" in repr(compared)


def test_a_matrix_of_own_sets_is_drawn_and_belongs_to_no_classes(compared, neurons):
    heads = [note.text for note in ablation_effects(compared.matrix).layout.annotations]
    assert any("precision" in head for head in heads)
    assert not any("+ " in head for head in heads)
    with pytest.raises(LensNeuronsError, match="somebody's own"):
        require_own_effects(neurons, compared.matrix)


def test_own_sets_that_are_the_neurons_of_each_language_belong_to_them(llama, neurons):
    sets = {"all of a language": {code: neurons[code] for code in neurons.languages}}
    options = {"match": "layer", "controls": 1, "progress": False}
    require_own_effects(neurons, ablation_matrix(llama, CORPUS, neurons, sets=sets, **options))


def test_bad_sets_and_methods_are_refused_before_a_pass(llama, neurons, methods):
    one = NeuronSet(np.arange(3), neurons.n_layers, neurons.d_mlp)

    def matrix(sets, **options):
        return ablation_matrix(llama, CORPUS, neurons, sets=sets, progress=False, **options)

    with pytest.raises(LensNeuronsError, match="names of classes"):
        matrix({"related": {"en": one}})
    with pytest.raises(LensNeuronsError, match="at least one setting"):
        matrix({})
    with pytest.raises(LensNeuronsError, match=r"no neurons for \['zh'\]"):
        matrix({"a": {"en": one, "zh": one}, "b": {"en": one}})
    with pytest.raises(LensNeuronsError, match=r"no neurons for \['de'\]"):
        matrix({"a": {"de": one}})
    with pytest.raises(LensNeuronsError, match="2 layers x 3"):
        matrix({"a": {"en": NeuronSet(np.arange(3), 2, 3)}})
    with pytest.raises(LensNeuronsError, match="two or more"):
        compare_methods(llama, CORPUS, {"drawn": neurons}, neurons)
    with pytest.raises(LensNeuronsError, match="top"):
        compare_methods(llama, CORPUS, {"drawn": neurons, "set": one}, neurons)
    with pytest.raises(LensNeuronsError, match="give 1 to that many"):
        neurons.top("en", 10**6)


def test_a_comparison_comes_back_from_its_file(compared, tmp_path):
    path = compared.save(tmp_path / "methods.safetensors")
    again = MethodComparison.load(path)
    assert again.sets == compared.sets
    assert {k: one.label for k, one in again.sets["PLND"].items()} == {
        k: one.label for k, one in compared.sets["PLND"].items()
    }
    assert again.to_pandas().equals(compared.to_pandas())
    assert again.overlap().equals(compared.overlap())
    assert again.save(tmp_path / "again").read_bytes() == path.read_bytes()
    with pytest.raises(StorageError, match="comparison of methods is wanted|holds"):
        MethodComparison.load(compared.matrix.save(tmp_path / "matrix"))
