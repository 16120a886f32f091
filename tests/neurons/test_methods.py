"""The other methods of `identify`: scores by plain loops, and planted neurons that are found."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap

import few_neurons
import numpy as np
import pytest

from lensneurons.activations.items import ItemActivations
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import IdentificationError, LensNeuronsError, ProvenanceError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.rankings import rank_neurons
from lensneurons.values.provenance import Provenance

LANGUAGES, TOKENS, SHAPE = ("zh", "en", "th"), (70, 50, 90), (2, 40)
ITEMS = 8
TAU = 0.4


def drawn(seed=0):
    """Activations of every token, by language [token, layer, neuron]; a neuron of each language.

    Inactive ones are small and negative, as after SiLU.
    """
    random = np.random.default_rng(seed)
    middle = random.uniform(-0.8, 0.5, (3, *SHAPE))
    middle[:, 0, 5:8] = -1.5
    middle[[0, 1, 2], 0, [5, 6, 7]] = 3  # active in one language
    middle[:, 1, 8] = 2  # in all
    found = [random.normal(middle[k], 1, (n, *SHAPE)) for k, n in enumerate(TOKENS)]
    return [np.where(one > 0, one, 0.05 * one) for one in found]


def of_tokens(found):
    """What `collect` would say of them."""
    return ActivationStatistics(
        LANGUAGES,
        np.stack([(one > 0).sum(0) for one in found], -1).astype(np.int64)[None],
        np.array([TOKENS]),
        np.stack([one.sum(0) for one in found], -1),
        np.stack([(one**2).sum(0) for one in found], -1),
        Provenance(model="m", weights="w"),
    )


def of_items(found, languages=LANGUAGES):
    """Means over ITEMS texts of as many tokens."""
    means = [np.stack([part.mean(0) for part in np.array_split(one, ITEMS)]) for one in found]
    return ItemActivations(
        languages, tuple(map(str, range(ITEMS))), np.stack(means).astype(np.float32)
    )


FOUND = drawn()
STATISTICS, TEXTS = of_tokens(FOUND), of_items(FOUND)


def entropy_by_hand(values):
    share = np.array(values) / sum(values)
    return -sum(s * np.log(s) for s in share) / np.log(len(share))


def by_hand(method, layer, j):
    own = [one[:, layer, j] for one in FOUND]
    if method == "activation_entropy":
        return entropy_by_hand([np.mean(one**2) for one in own])
    if method == "difference":
        spread = np.sqrt(np.mean([one.var() for one in own]))
        means = [one.mean() for one in own]
        found = [means[k] - np.mean(np.delete(means, k)) for k in range(3)]
        return -max(found) / spread
    texts = TEXTS.mean[:, :, layer, j].astype(np.float64)
    if method == "paired_difference":
        each = [texts[k] - np.delete(texts, k, 0).mean(0) for k in range(3)]
        return -max(one.mean() / one.std(ddof=1) for one in each)
    precision = []
    for k in range(3):
        order = np.argsort(-texts.ravel())
        mine = (order // ITEMS) == k
        precision.append(np.mean([mine[: n + 1].mean() for n in np.flatnonzero(mine)]))
    return -max(precision)


OTHERS = ("activation_entropy", "difference", "average_precision", "paired_difference")


def given_to(method):
    return {"items": TEXTS} if method in ("average_precision", "paired_difference") else {}


@pytest.mark.filterwarnings("ignore:hardly any neurons")
@pytest.mark.parametrize("method", OTHERS)
def test_a_score_by_hand_and_what_it_selects(method, tmp_path):
    found = identify(STATISTICS, method=method, tau=TAU, top_rate=0.1, **given_to(method))
    p = STATISTICS.probability
    for layer, j in np.ndindex(SHAPE):
        above = (p[layer, j] > TAU).sum()
        expected = by_hand(method, layer, j) if above else np.inf
        assert found.score[layer, j] == pytest.approx(expected, rel=1e-5), (layer, j)
    order = np.argsort(found.score, axis=None, kind="stable")
    assert set(np.flatnonzero(found.selected)) == set(order[:8].tolist())
    assert found.selected[0, 5:8].all()  # the planted ones
    for k, language in enumerate(LANGUAGES):
        assert f"L0N{5 + k}" in found.specific[language]
        assert f"L0N{5 + k}" in found.top(language, min(3, len(found[language])))
        members = np.flatnonzero(found.selected & (found.n_above < 3) & found.above[..., k])
        assert found[language].flat.tolist() == members.tolist()
    assert (found.score_name, found.lambda_, found.lambda_origin) == (method, None, "none")
    assert found.tau == TAU
    assert method.split("_")[0] in found.description or "entropy" in found.description
    assert LanguageNeurons.load(found.save(tmp_path / "n")).score_name == method


def test_one_door_two_words():
    options = {"tau": few_neurons.TAU, "top_rate": 0.04}
    statistics = few_neurons.statistics()
    by_method = identify(statistics, method="lape", **options)
    by_score = identify(statistics, score="lape", **options)
    np.testing.assert_array_equal(by_method.selected, by_score.selected)
    assert by_method.description == by_score.description
    assert identify(statistics, score="lape", method="lape", **options).score_name == "lape"


def test_every_method_agrees_with_its_ranking():
    """The neurons that `rank_neurons` puts first are those of the lowest score."""
    found = identify(STATISTICS, method="average_precision", items=TEXTS, tau=TAU, top_rate=0.1)
    value = rank_neurons(TEXTS).value.max(-1)
    kept = (STATISTICS.probability > TAU).any(-1)
    np.testing.assert_allclose(-found.score[kept], value[kept])
    assert np.isinf(found.score[~kept]).all()


def test_the_order_of_languages_does_not_matter():
    order = [2, 0, 1]
    turned = of_items([FOUND[k] for k in order], tuple(LANGUAGES[k] for k in order))
    for method in ("average_precision", "paired_difference"):
        one, two = (
            identify(STATISTICS, method=method, items=items, tau=TAU, top_rate=0.1)
            for items in (TEXTS, turned)
        )
        np.testing.assert_allclose(one.score, two.score)


def romanised(lost):
    """Statistics of other letters, in which some neurons fall silent in a language."""
    counts = STATISTICS.grouped_counts.copy()
    for (layer, j), language in lost.items():
        counts[0, layer, j, LANGUAGES.index(language)] = 0
    return replace(STATISTICS, grouped_counts=counts, sums=None, squares=None)


@pytest.mark.filterwarnings("ignore:hardly any neurons")
def test_script_detectors_are_left_out():
    """One loses its language, one a language that it is not of: that one stays."""
    plain = identify(STATISTICS, method="lape", tau=TAU, top_rate=0.1)
    again = romanised({(0, 5): "zh", (0, 6): "zh", (1, 8): "th"})
    found = identify(STATISTICS, method="script_lape", romanised=again, tau=TAU, top_rate=0.1)
    assert "L0N5" in plain["zh"]
    assert "L0N5" not in found["zh"]
    assert "L0N6" in found["en"]
    assert np.isinf(found.score[0, 5])
    assert np.isinf(found.score[1, 8])  # it is of all three languages, and lost one
    kept = np.isfinite(found.score)
    np.testing.assert_array_equal(found.score[kept], plain.score[kept])
    same = identify(STATISTICS, method="script_lape", romanised=STATISTICS, tau=TAU, top_rate=0.1)
    np.testing.assert_array_equal(same.selected, plain.selected)
    more = replace(again, languages=("th", "zh", "en"), grouped_counts=again.grouped_counts[
        ..., [2, 0, 1]], grouped_tokens=again.grouped_tokens[:, [2, 0, 1]])  # fmt: skip
    turned = identify(STATISTICS, method="script_lape", romanised=more, tau=TAU, top_rate=0.1)
    np.testing.assert_array_equal(turned.score, found.score)


BARE = replace(STATISTICS, sums=None, squares=None)
OTHER_MODEL = replace(STATISTICS, provenance=Provenance(model="m", weights="others"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "precision"}, "method='precision' is not known"),
        ({"score": "difference"}, "score='difference' is not known"),
        ({"method": "lape", "score": "paper"}, "method='lape' and score='paper': give one"),
        ({"method": "average_precision"}, "method='average_precision' needs items="),
        ({"method": "script_lape"}, "method='script_lape' needs romanised="),
        ({"items": TEXTS}, "items= needs method='average_precision', not 'paper'"),
        (
            {"method": "lape", "romanised": BARE},
            "romanised= needs method='script_lape', not 'lape'",
        ),
        ({"method": "difference", "lambda_": 0.1}, "method='difference' has no lambda"),
        (
            {"method": "paired_difference", "items": of_items(FOUND, ("zh", "en", "de"))},
            "give those of one model and the same languages",
        ),
        (
            {"method": "script_lape", "romanised": STATISTICS.select(["zh", "en"])},
            r"lacks \['th'\]: collect all languages",
        ),
    ],
)
def test_refusals(options, told):
    with pytest.raises(LensNeuronsError, match=told):
        unwrap(identify)(STATISTICS, **options)


@pytest.mark.parametrize("method", ["difference", "activation_entropy"])
def test_counts_alone_have_no_means(method):
    with pytest.raises(IdentificationError, match="needs sums and squares of the activation"):
        identify(BARE, method=method)


def test_another_model_is_refused():
    with pytest.raises(ProvenanceError, match="weights: 'w' and 'others'"):
        identify(STATISTICS, method="script_lape", romanised=OTHER_MODEL)
    items = replace(TEXTS, provenance=OTHER_MODEL.provenance)
    with pytest.raises(ProvenanceError, match="weights: 'w' and 'others'"):
        identify(STATISTICS, method="average_precision", items=items)


def test_a_neuron_that_is_the_same_everywhere_is_never_selected():
    found = [one.copy() for one in FOUND]
    for one in found:
        one[:, 1, 3] = 1.0
    result = identify(of_tokens(found), method="difference", tau=TAU, top_rate=0.9)
    assert np.isinf(result.score[1, 3])
    assert not result.selected[1, 3]
