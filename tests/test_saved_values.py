"""Every value of the package: saved, loaded, frozen, shown, and as an xarray."""

from __future__ import annotations

from dataclasses import fields, replace

import method_oracle
import numpy as np
import pages
import pytest
from corpus_data import ROWS, words

from lensneurons.activations.sign_differences import SignDifferences
from lensneurons.cards.attribution import Importance
from lensneurons.cards.contexts import Contexts
from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.comparison.overlap import stability
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import StorageError
from lensneurons.evaluation.likelihood import CorpusNLL
from lensneurons.experiments.without import Continuation, Continuations
from lensneurons.neurons.identification import identify
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.encoding import encode
from lensneurons.values.provenance import Provenance
from lensneurons.views import PatchGrid

FOUND = pages.neurons()
CARD = pages.card(FOUND, pages.best(FOUND, 1)[0], pages.TEXTS)
SET = NeuronSet(np.array([3, 8]), 4, 5, "two")
ENCODED = encode(build_corpus(ROWS), words())
COUNTS = method_oracle.statistics_of([[[5, 0], [0, 9], [0, 0]]], [10, 20], ["zh", "en"])
VALUES = {
    "counts": COUNTS,
    "statistics": replace(COUNTS, sums=COUNTS.counts / 3, squares=COUNTS.counts / 7),
    "neurons": FOUND,
    "lape": identify(COUNTS, score="lape", tau=0.3, top_rate=0.4),  # scores inf, lambda None
    "encoded corpus": ENCODED,
    "encoding report": ENCODED.report,
    "matrix": pages.matrix(),
    "curve": replace(pages.steering(), ablated="en (3 neurons)"),
    "curve without ablation": pages.steering(),
    "carried": replace(pages.carried(), asked="all", dropped={"ja": 2, "<th>": 0}),
    "lens": pages.lens(),
    "lens without pivot": replace(pages.lens(), pivot=None, share=0.8),
    "importance": Importance(("<b>", "en"), np.arange(12.0).reshape(2, 3, 2), "plnd"),
    "agreement": MethodAgreement(
        ("en", "<th>"),
        tuple(f"L0N{n}" for n in range(12)),
        ("related",) * 12,
        ("direct",),
        np.arange(24.0).reshape(12, 2),
        np.arange(24.0).reshape(1, 12, 2) ** 2,
        np.ones(1),
        0.5,
        3.0,
        (3, 7),
    ),
    "signs": SignDifferences(
        ("<th>", "en"), np.array([[3, 0], [1, 2]]), np.array([[0, 9], [4, 4]]), np.array([5, 7]), 8
    ),
    "contexts": Contexts(CARD.contexts, SET, pages.LANGUAGES, 2, Provenance(model="m")),
    "no contexts": Contexts((), SET, ("en",), 1),
    "accuracy": pages.accuracy(),
    "likelihood": CorpusNLL(
        ("<th>",), np.ones(2), np.array([3, 9]), np.zeros(2, int), ("a", "b"), Provenance()
    ),
    "card": CARD,
    "continuations": Continuations(
        (
            Continuation("whole", None, "<th>", None),
            Continuation("without", 0.5, "<th> x", 2.5),
            Continuation("random", 0.5, "", 1.5),
        ),
        "<th>",
        "<th>",
        3,
        "zh",
        "scaled",
        "alike",
    ),
    "patch grid": PatchGrid(
        np.arange(6.0).reshape(2, 3),
        4.0,
        1.0,
        ("a", "<th>", "c"),
        ("a", "b", "<th>"),
        ("<th>", "b"),
        "<th>",
        None,
        "probability",
        "mlp",
    ),
    "stability": stability(FOUND, replace(FOUND, provenance=Provenance(model="<th>"))),
    "little card": replace(CARD, importance={}, effect=None, effect_interval=None, contexts=()),
}


@pytest.fixture(params=VALUES)
def value(request):
    return VALUES[request.param]


def test_it_comes_back_from_its_file(value, tmp_path):
    path = value.save(tmp_path / "deep" / "value")
    again = type(value).load(path)
    for name in (entry.name for entry in fields(value)):
        ours, theirs = getattr(value, name), getattr(again, name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")
        else:
            assert (type(ours), ours) == (type(theirs), theirs)
    assert again.save(tmp_path / "again").read_bytes() == path.read_bytes()
    assert (repr(again), again._repr_html_()) == (repr(value), value._repr_html_())
    with pytest.raises(StorageError, match=f"but {type(value).FILE_KIND} is wanted|damaged"):
        type(value).load(SET.save(tmp_path / "set"))


def test_nothing_can_be_changed(value):
    for entry in fields(value):
        array = getattr(value, entry.name)
        with pytest.raises(AttributeError):
            setattr(value, entry.name, array)
        if isinstance(array, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_it_shows_itself_without_tags_of_others(value):
    assert repr(value).startswith(f"{type(value).__name__}(")
    assert "<th>" not in value._repr_html_().partition("<tbody>")[2]


AXES = ["statistics", "neurons", "matrix", "curve", "carried", "lens", "importance", "stability"]
AXES += ["agreement"]


@pytest.mark.parametrize("name", AXES)
def test_its_axes_are_named(name):
    value = VALUES[name]
    data = value.to_xarray()
    for array, axes in value.AXES.items():
        assert data[array].dims == axes
        assert np.array_equal(data[array].values, getattr(value, array), equal_nan=True)
    for axis, named in value.COORDINATES.items():
        assert data[axis].values.tolist() == list(getattr(value, named))
