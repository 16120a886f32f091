"""The result of identification: tables, overlap, names, populations, files."""

from __future__ import annotations

import method_oracle as oracle
import numpy as np
import pytest

from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.identification import identify

LANGUAGES = ("zh", "ja", "en", "sw")
# One row a neuron, the languages it is often active in; nine in ten tokens, else one in twenty.
OWNERS = [
    ["zh", "ja", "en sw", "zh ja", ""],
    ["zh", "zh ja en", "zh ja en sw", "", "zh ja"],
    ["en", "sw", "zh ja en sw", "ja sw", "zh"],
]


def result():
    tokens = [100, 200, 40, 60]
    share = [
        [[0.9 if k in owner.split() else 0.05 for k in LANGUAGES] for owner in layer]
        for layer in OWNERS
    ]
    counts = np.rint(np.array(share) * tokens)
    return identify(oracle.statistics_of(counts, tokens, LANGUAGES), tau=0.5, top_rate=0.5)


def test_classes_labels_and_names():
    """The sets themselves are held against the oracle in `test_identification.py`."""
    neurons = result()
    assert [[neurons.class_of(f"L{i}N{j}") for j in range(5)] for i in range(3)] == [
        [oracle.class_name(len(owners.split()), 4) for owners in layer] for layer in OWNERS
    ]
    assert neurons.languages_of("L0N2") == ("en", "sw")
    assert (neurons["zh"].label, neurons.specific["zh"].label) == ("zh", "specific zh")
    assert set(neurons.agnostic) == {"L1N2", "L2N2"}
    with pytest.raises(LensNeuronsError, match="L3N0 is outside a model of 3 layers x 5 neurons"):
        neurons.class_of("L3N0")
    with pytest.raises(LensNeuronsError, match=r"language='zz' is not known; choose one of \['zh'"):
        neurons["zz"]


def test_histograms_profiles_and_counts():
    neurons = result()
    assert neurons.selected.sum() == neurons.histogram().sum() == 8
    assert neurons.histogram("all").tolist() == [2, 6, 4, 1, 2]
    assert (neurons.histogram("all") >= neurons.histogram("selected")).all()
    assert neurons.layer_profile("all").tolist() == [[2, 2, 0], [1, 2, 1], [3, 1, 1]]
    selected = neurons.layer_profile()
    assert selected[:, 2].tolist() == [0, 0, 0]
    assert selected.sum() == neurons.histogram()[1:].sum()
    everything = neurons.with_population("all")
    assert everything.histogram().tolist() == neurons.histogram("all").tolist()
    assert everything.layer_profile().tolist() == neurons.layer_profile("all").tolist()
    table = everything.per_language()
    assert table.index.name == "language"
    assert table.loc["zh"].to_dict() == {"specific": 3, "related": 3, "neurons": 6}
    assert table["specific"].to_dict() == {"zh": 3, "ja": 1, "en": 1, "sw": 1}


def test_overlap_of_unequal_sets():
    """zh: 3 own, 2 with ja, 1 with ja and en. ja: 1 own, those, and 1 with sw."""
    neurons = result().with_population("all")
    zh, ja = len(neurons["zh"]), len(neurons["ja"])
    assert (zh, ja) == (6, 5)
    assert neurons.overlap("containment").loc["zh", "ja"] == pytest.approx(3 / 6)
    assert neurons.overlap("containment").loc["ja", "zh"] == pytest.approx(3 / 5)
    assert neurons.overlap().loc["zh", "ja"] == pytest.approx(3 / 8)
    assert neurons.overlap("dice").loc["zh", "ja"] == pytest.approx(6 / 11)
    for measure in ("jaccard", "dice"):
        table = neurons.overlap(measure)
        assert (table.to_numpy() == table.to_numpy().T).all()
        assert np.diag(table).tolist() == [1.0] * 4
        assert table.index.tolist() == table.columns.tolist() == list(LANGUAGES)


def test_the_table_of_neurons_and_the_text():
    neurons = result()
    everything = neurons.with_population("all")
    table = everything.to_pandas()
    assert len(table) == 13
    assert table["score"].is_monotonic_increasing
    row = table.set_index("name").loc["L0N2"].to_dict()
    wanted = {"layer": 0, "neuron": 2, "class": "related", "languages": "en sw", "n_above": 2}
    wanted |= {"p_max": 0.9, "p_zh": 0.05, "p_ja": 0.05, "p_en": 0.9, "p_sw": 0.9}
    assert row == wanted | {"score": neurons.score[0, 2]}
    chosen = {f"L{layer}N{j}" for layer, j in zip(*np.nonzero(neurons.selected), strict=True)}
    assert set(neurons.to_pandas()["name"]) == set(table["name"]) & chosen
    assert neurons.description.startswith("8 selected neurons (50.00%, lambda ")
    assert neurons.description.endswith("; tau 0.5000 (given)")
    assert everything.description == "all 15 neurons; tau 0.5000 (given)"
    assert "specific+related: zh 3+3, ja 1+4, en 1+2, sw 1+2" in repr(everything)
    assert "<td>ja</td><td>1</td><td>4</td>" in everything._repr_html_()
