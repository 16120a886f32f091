"""Controls of an ablation: what they match, from which pool, how well; and other edits."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import tiny

from lensneurons.activations.collection import collect
from lensneurons.errors import ControlWarning, LensNeuronsError, ProvenanceError
from lensneurons.evaluation.likelihood import nll
from lensneurons.experiments.ablation import ablation_matrix, ablation_sets
from lensneurons.experiments.controls import (
    Removed,
    draw_control,
    draws_an_item,
    matched_rates,
    warn_of_mismatch,
)
from lensneurons.interventions.editing import ablate
from lensneurons.neurons.sets import NeuronSet

LANGUAGES, LAYERS, WIDTH = ("en", "zh", "th"), 3, 400


def skewed(seed=0):
    """Neurons as they are: most hardly fire, and no language knows the others' rates."""
    random = np.random.default_rng(seed)
    probability = random.beta(0.3, 2.0, (LAYERS, WIDTH, len(LANGUAGES)))
    score = random.random((LAYERS, WIDTH))
    selected = random.random((LAYERS, WIDTH)) < 0.2
    drawn = tiny.drawn_neurons(languages=LANGUAGES)
    return replace(drawn, probability=probability, score=score, selected=selected, tau=0.4)


NEURONS = skewed()


def nearest(p, members, taken):
    """Mean p of the free neurons whose sorted p stand nearest around each member: 10 and 10."""
    free = np.sort(np.delete(p, taken))
    near = [free[max(0, i - 10) : i + 10].mean() for i in np.searchsorted(free, p[members])]
    return np.mean(near)


def test_each_match_matches_what_it_says():
    """Against the sorted p: the mean over 200 draws is that of the nearest candidates."""
    removed = NEURONS["zh"]
    assert len(removed) > 20
    p = {"own": NEURONS.probability[..., 1], "activity": NEURONS.probability.mean(-1)}
    drawn = {m: draw_control(NEURONS, "zh", removed, m, "all", draws=200, seed=1)
             for m in ("own", "activity", "layer")}  # fmt: skip
    rates = matched_rates(NEURONS, Removed(removed, tuple(drawn.values())))
    for side, match in enumerate(p, start=1):
        for layer, members in removed.by_layer().items():
            of_set = p[match][layer, members].mean()
            found = rates[[0, side], layer]
            found = found[:, 1] if match == "own" else found.mean(1)
            assert found[0] == pytest.approx(of_set)
            near = nearest(p[match][layer], members, members)
            assert found[1] == pytest.approx(near, abs=0.04)
    for layer, members in removed.by_layer().items():
        rest = np.delete(NEURONS.probability[layer], members, axis=0).mean(0)
        assert rates[3, layer] == pytest.approx(rest, abs=0.02)
    own, by_mean = (np.nanmean(rates[side, :, 1]) for side in (1, 2))
    assert own - by_mean > 0.1  # as active in zh, and as active on the mean, are two things


def test_every_draw_counts_in_the_rates():
    removed = NEURONS["th"]
    control = draw_control(NEURONS, "th", removed, "own", "all", draws=7, seed=3)
    assert control.flat.dtype == np.int32
    rates = matched_rates(NEURONS, Removed(removed, (control,)))
    for layer in range(LAYERS):
        here = [control[d].mask()[layer] for d in range(7)]
        expected = np.concatenate([NEURONS.probability[layer][mask] for mask in here]).mean(0)
        assert rates[1, layer] == pytest.approx(expected)
    assert len({control[d] for d in range(7)}) == 7


def test_pools():
    every = {"all": np.zeros((LAYERS, WIDTH), bool), "below tau": NEURONS.above[..., 2],
             "unselected": NEURONS.selected & (NEURONS.n_above > 0)}  # fmt: skip
    for pool, kept_out in every.items():
        control = draw_control(NEURONS, "th", NEURONS["th"], "layer", pool, draws=40, seed=0)
        drawn = np.bincount(control.flat.ravel(), minlength=kept_out.size)
        assert drawn[kept_out.ravel()].sum() == 0
        assert drawn[NEURONS["th"].flat].sum() == 0
        others = every["unselected"] & ~NEURONS["th"].mask()
        assert (drawn[others.ravel()].sum() > 0) == (pool != "unselected")
        assert (drawn[every["below tau"].ravel()].sum() > 0) == (pool != "below tau")
    crowded, some = replace(NEURONS, tau=1e-6), NeuronSet(np.arange(50), LAYERS, WIDTH, "some")
    with pytest.raises(
        LensNeuronsError, match=r"neurons outside \(some \| those above tau in zh\)"
    ):
        draw_control(crowded, "zh", some, "own", "below tau", draws=2, seed=0)


def test_items_share_no_draws():
    for items, controls, each in ((250, 20, 1), (20, 20, 1), (8, 20, 3), (3, 20, 7), (6, 6, 1)):
        assert draws_an_item(controls, items) == each
        assert (each - 1) * items < controls <= each * items


def test_a_pool_that_is_exhausted_is_told():
    """One neuron of layer 1 fires on 95 % of tokens everywhere; nothing in its layer is near."""
    probability = np.minimum(NEURONS.probability, 0.3)
    probability[1, 7] = 0.95
    neurons = replace(NEURONS, probability=probability)
    removed = neurons.agnostic
    assert removed == NeuronSet(np.array([WIDTH + 7]), LAYERS, WIDTH)

    def rates(one, matches):
        drawn = [draw_control(neurons, "zh", one, m, "all", draws=20, seed=0) for m in matches]
        return {("agnostic", "zh"): matched_rates(neurons, Removed(one, tuple(drawn)))}

    told = (
        r"\(agnostic zh, layer 1, match 'activity': p 0\.95 of the set, 0\.2\d of its control; "
        r"agnostic zh, layer 1, match 'own': p 0\.95 .*leave the setting out \(classes=\)"
    )
    with pytest.warns(ControlWarning, match=told):
        warn_of_mismatch(rates(removed, ("own", "activity", "layer")), LANGUAGES,
                         ("own", "activity", "layer"))  # fmt: skip
    quiet = NeuronSet(np.arange(20, 40), LAYERS, WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_mismatch(rates(quiet, ("own", "activity")), LANGUAGES, ("own", "activity"))
        warn_of_mismatch(rates(removed, ("layer",)), LANGUAGES, ("layer",))  # matches nothing


# --- on a model ---

CORPUS = tiny.tiny_corpus()
TINY = tiny.drawn_neurons()
QUIET = pytest.mark.filterwarnings("ignore:no other neurons are as active")
FEW = {"languages": ["zh"], "classes": ["related"], "controls": 8, "match": "own",
       "progress": False, "batch_tokens": 300}  # fmt: skip


@pytest.fixture(scope="module")
def llama(bridge):
    return bridge("Llama")


def test_the_matrix_warns_and_tells_its_rates(llama):
    probability = np.minimum(TINY.probability, 0.6)
    probability[TINY.related["th"].mask(), 2] = 0.95
    neurons = replace(TINY, probability=probability)
    assert neurons.related["th"] == TINY.related["th"]
    with pytest.warns(ControlWarning, match=r"related th, layer \d, match 'own': p 0\.95 of the s"):
        matrix = ablation_matrix(llama, CORPUS, neurons, **{**FEW, "languages": ["th"]})
    removed = ablation_sets(neurons, ["related"], ["th"])["related"]["th"]
    control = draw_control(neurons, "th", removed, "own", "all", draws=8, seed=0)
    expected = matched_rates(neurons, Removed(removed, (control,)))
    np.testing.assert_equal(matrix.rates[:, 0, 0], expected)
    assert matrix.neurons_by_layer[0, 0].tolist() == removed.per_layer().tolist()
    assert (matrix.matches, matrix.identified) == (("own",), neurons.languages)
    row = matrix.matched().iloc[0]
    assert row["p_own"] == pytest.approx(neurons.probability[removed.mask()][:, 2].mean())
    drawn = neurons.probability.reshape(-1, 3)[control.flat.ravel()].mean(0)
    assert row["control_p_own"] == pytest.approx(drawn[2])
    assert row["control_p_others"] == pytest.approx(drawn[:2].mean())


@QUIET
def test_means_stand_in_for_activations(llama):
    statistics = collect(llama, CORPUS, progress=False)
    matrix = ablation_matrix(llama, CORPUS, TINY, **FEW, method="mean", statistics=statistics)
    before = nll(llama, CORPUS)
    with ablate(llama, TINY.related["zh"], method="mean", statistics=statistics):
        after = nll(llama, CORPUS)
    assert np.abs(matrix.effect[0, 0] - (after.nll - before.nll)).max() < 2e-4
    assert np.abs(matrix.effect - ablation_matrix(llama, CORPUS, TINY, **FEW).effect).max() > 0.01
    assert matrix.method == "mean"
    assert "method mean" in repr(matrix)


@QUIET
def test_resampled_tokens_stand_in_for_activations(llama):
    """The same seed gives the same bits, another one other tokens."""
    options = {**FEW, "method": "resample", "reference": CORPUS.head(2)}
    first, again = (ablation_matrix(llama, CORPUS, TINY, **options) for _ in range(2))
    assert np.array_equal(first.effect, again.effect)
    assert np.array_equal(first.control, again.control)
    other = ablation_matrix(llama, CORPUS, TINY, **{**options, "seed": 1})
    assert np.abs(other.effect - first.effect).min() > 0
    assert first.method == "resample"


@QUIET
def test_a_folder_of_another_match_pool_or_method_is_refused(llama, tmp_path):
    statistics = collect(llama, CORPUS, progress=False)
    ablation_matrix(llama, CORPUS, TINY, run_dir=tmp_path, **FEW)
    mean = {"method": "mean", "statistics": statistics}
    for change, told in (
        ({"match": ["own", "layer"]}, r"match: \['own'\], now \['own', 'layer'\]"),
        ({"pool": "unselected"}, "pool: 'all', now 'unselected'"),
        (mean, "method: 'zero', now 'mean'"),
    ):
        with pytest.raises(ProvenanceError, match=told):
            ablation_matrix(llama, CORPUS, TINY, run_dir=tmp_path, **{**FEW, **change})
    ablation_matrix(llama, CORPUS, TINY, run_dir=tmp_path / "mean", **{**FEW, **mean})
    fewer = collect(llama, CORPUS.head(3), progress=False)
    with pytest.raises(ProvenanceError, match="statistics: '"):
        ablation_matrix(
            llama, CORPUS, TINY, run_dir=tmp_path / "mean", **{**FEW, **mean, "statistics": fewer}
        )


def test_statistics_of_another_model_are_refused(llama, bridge):
    other = collect(bridge("Bloom"), CORPUS, progress=False)
    with pytest.raises(LensNeuronsError, match="statistics of 3 layers x 128 are not of this mod"):
        ablation_matrix(llama, CORPUS, TINY, **FEW, method="mean", statistics=other)
