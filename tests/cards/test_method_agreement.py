"""Measures of importance on a planted model in closed form, and the table of their agreement."""

from __future__ import annotations

import numpy as np
import planted
import planted_writers as writers
import pytest
import tiny
from scipy.stats import spearmanr

from lensneurons.cards.attribution import importance
from lensneurons.cards.method_agreement import MethodAgreement, importance_agreement
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.likelihood import nll
from lensneurons.interventions.editing import ablate
from lensneurons.models.loading import load_model
from lensneurons.models.views import has_hooks
from lensneurons.neurons.sets import NeuronSet

ITEMS, LAST, LANGUAGES = 2, writers.LAST, writers.LANGUAGES
WRITE = writers.sizes()
CHOSEN = (0, 7, 13, 26, 59)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = writers.save_model(tmp_path_factory.mktemp("writers"), WRITE)
    return load_model(folder, device="cpu", dtype="float64")


def found_by(model, method, **options):
    """[neuron, language] of the last layer."""
    return importance(model, writers.corpus(ITEMS), method=method, **options).value[LAST]


def counted(language):
    """The tokens of the responses."""
    return [t for _, text in planted.texts()[language][:ITEMS] for t in writers.words(text)]


def slope(language, neuron, share=1.0):
    """h * dNLL/dh of one neuron on the response, where the layer has a share of its h there."""
    step, ends = 1e-5, []
    for sign in (1, -1):
        gain = np.full(planted.D_MLP, share)
        gain[neuron] += sign * step
        ends.append(
            writers.mean_nll(
                language, ITEMS, WRITE, lambda inside, g=gain: g if inside else np.ones_like(g)
            )
        )
    return (ends[0] - ends[1]) / (2 * step)


def removed(language, neuron):
    """Change of the mean NLL without a neuron."""
    gain = np.ones(planted.D_MLP)
    whole = writers.mean_nll(language, ITEMS, WRITE, lambda _: gain)
    without = gain.copy()
    without[neuron] = 0
    return writers.mean_nll(language, ITEMS, WRITE, lambda _: without) - whole


def test_activations_and_lengths_are_those_of_the_plan(model):
    mean, length = found_by(model, "activation"), found_by(model, "plnd")
    for k, language in enumerate(LANGUAGES):
        by_hand = np.mean([np.abs(writers.activations(t)) for t in counted(language)], axis=0)
        np.testing.assert_allclose(mean[:, k], by_hand, rtol=1e-5)
        np.testing.assert_allclose(length[:, k], by_hand * np.abs(WRITE), rtol=1e-5)


def test_direct_is_what_a_neuron_adds_to_the_logit(model):
    found, read = found_by(model, "direct"), writers.unembedding()
    for k, language in enumerate(LANGUAGES):
        total, n = np.zeros(planted.D_MLP), 0
        for prompt, response in planted.texts()[language][:ITEMS]:
            tokens = writers.words(prompt) + writers.words(response)
            for place in range(len(writers.words(prompt)), len(tokens)):
                x = writers.stream(tokens[place - 1], WRITE, np.ones(planted.D_MLP))
                scale = 1 / np.sqrt(np.mean(x**2) + planted.EPS)
                h, true = writers.activations(tokens[place - 1]), tokens[place]
                for neuron in range(planted.D_MLP):
                    column = read[:, writers.dimension(neuron)]
                    word = column[planted.VOCABULARY.index(true)] - column.mean()
                    total[neuron] += h[neuron] * WRITE[neuron] * scale * word
                n += 1
        np.testing.assert_allclose(found[:, k], total / n, rtol=1e-4, atol=1e-8)


def test_gradients_are_derivatives_of_the_closed_form(model):
    gradient = found_by(model, "activation_gradient")
    integrated = found_by(model, "integrated_gradients", steps=2)
    for k, language in enumerate(LANGUAGES[:2]):
        for neuron in CHOSEN[:3]:
            assert gradient[neuron, k] == pytest.approx(slope(language, neuron), rel=1e-3, abs=1e-7)
            halves = [slope(language, neuron, share) for share in (0.25, 0.75)]
            assert integrated[neuron, k] == pytest.approx(np.mean(halves), rel=1e-3, abs=1e-7)


def test_effects_are_those_of_the_closed_form_and_columns_are_the_measures(model):
    chosen = NeuronSet(LAST * planted.D_MLP + np.arange(0, 60, 5), 12, planted.D_MLP)
    found = importance_agreement(model, writers.corpus(ITEMS), chosen, steps=2, progress=False)
    assert found.neurons == tuple(f"L{LAST}N{j}" for j in range(0, 60, 5))
    assert set(found.classes) == {"unknown"}
    for row, neuron in ((0, 0), (3, 15), (11, 55)):
        for k, language in enumerate(LANGUAGES):
            assert found.effect[row, k] == pytest.approx(
                removed(language, neuron),
                rel=1e-3,
                abs=5e-7,  # norms are float32
            )
    for method, value in zip(found.methods, found.value, strict=True):
        options = {"steps": 2} if method == "integrated_gradients" else {}
        np.testing.assert_array_equal(value, found_by(model, method, **options)[::5])
    assert (found.seconds > 0).all()
    assert min(found.plain_seconds, found.effect_seconds) > 0
    assert not has_hooks(model)


def test_the_table_recovers_a_planted_order(tmp_path):
    """All neurons are as active, and each writes more than the one before it, to one dimension."""
    write = np.zeros(planted.D_MLP)
    order = np.arange(0, 60, len(LANGUAGES))  # those that raise the words of the first language
    write[order] = np.linspace(0.002, 0.02, len(order))
    model = load_model(
        writers.save_model(tmp_path / "m", write, always=True), device="cpu", dtype="float64"
    )
    english = writers.corpus(1).select([LANGUAGES[0]])
    chosen = NeuronSet(LAST * planted.D_MLP + order, 12, planted.D_MLP)
    found = importance_agreement(model, english, chosen, progress=False)
    assert (np.diff(found.effect[:, 0]) > 0).all()
    table = found.to_pandas(top=3, draws=50).set_index(["method", "language"])
    for method in found.methods:
        row = table.loc[(method, "all")]
        if method == "activation":  # the same for all, so that it has no order
            assert np.isnan(row["spearman"])
            continue
        assert row["spearman"] == pytest.approx(1)
        assert row["spearman_low"] == pytest.approx(1)
        assert row["recall"] == 1
        assert row["chance"] == 3 / 15
        if method == "plnd":
            assert np.isnan(row["signed"])
        else:
            assert row["signed"] == pytest.approx(1)


@pytest.fixture(scope="module")
def found(llama):
    return importance_agreement(
        llama, tiny.tiny_corpus().head(2), tiny.drawn_neurons(), number=48, steps=1, progress=False
    )


def test_neurons_of_every_layer_and_class_are_drawn(found, llama):
    neurons = tiny.drawn_neurons()
    assert len(set(found.neurons)) == 48
    strata = {}
    for name, of in zip(found.neurons, found.classes, strict=True):
        assert neurons.class_of(name) == of
        strata.setdefault((name.partition("N")[0], of), []).append(name)
    whole = {}
    for flat, code in enumerate(neurons.class_codes.ravel()):
        whole.setdefault((f"L{flat // tiny.D_MLP}", int(code)), []).append(flat)
    assert len(strata) == len(whole)
    names = ("unclassified", "specific", "related", "agnostic")
    full = [len(strata[layer, names[code]]) < len(of) for (layer, code), of in whole.items()]
    left = [len(strata[layer, names[code]]) for (layer, code) in whole]
    open_ = [n for n, more in zip(left, full, strict=True) if more]
    assert max(open_) - min(open_) <= 1  # those that had enough gave as many
    assert max(left) <= max(open_)


def test_effects_are_those_of_single_ablations(found, llama):
    corpus = tiny.tiny_corpus().head(2)
    plain = nll(llama, corpus).mean
    for place in (0, 20, 47):
        with ablate(llama, found.neurons[place]):
            without = nll(llama, corpus).mean
        np.testing.assert_allclose(found.effect[place], without - plain, atol=2e-5)


def recall_by_hand(measure, effect, top):
    def largest(values):
        return set(sorted(range(len(values)), key=lambda j: (-abs(values[j]), j))[:top])

    return len(largest(measure) & largest(effect)) / top


def test_figures_by_hand(found):
    table = found.to_pandas(top=7, draws=100).set_index(["method", "language"])
    for place, method in enumerate(found.methods):
        sign = {"activation": None, "plnd": None, "direct": 1}.get(method, -1)
        rho, right = [], []
        for k, language in enumerate(found.languages):
            row, value = table.loc[(method, language)], found.value[place, :, k]
            rho.append(spearmanr(abs(value), abs(found.effect[:, k])).statistic)
            right.append(recall_by_hand(value, found.effect[:, k], 7))
            assert row["spearman"] == pytest.approx(rho[-1])
            assert row["recall"] == pytest.approx(right[-1])
            assert row["spearman_low"] <= row["spearman"] <= row["spearman_high"]
            if sign is None:
                assert np.isnan(row["signed"])
            else:
                signed = spearmanr(sign * value, found.effect[:, k]).statistic
                assert row["signed"] == pytest.approx(signed)
        row = table.loc[(method, "all")]
        assert row["spearman"] == pytest.approx(np.mean(rho))
        assert row["recall"] == pytest.approx(np.mean(right))
        assert row["cost"] == pytest.approx(found.seconds[place] / found.plain_seconds)


def test_intervals_hold_the_truth_and_shrink():
    """Of a bivariate normal with Spearman's rho .62, over 60 samples."""
    rho = 0.64
    truth = 6 / np.pi * np.arcsin(rho / 2)
    random, hits, widths = np.random.default_rng(3), [], []
    for n in (60, 240):
        for _ in range(60):
            draws = random.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n)
            value, effect = np.exp(draws[:, :1]), np.exp(draws[:, 1:])
            names = tuple(f"L0N{j}" for j in range(n))
            one = MethodAgreement(
                ("en",),
                names,
                ("unknown",) * n,
                ("plnd",),
                effect,
                value[None],
                np.ones(1),
                1.0,
                1.0,
            )
            row = one.to_pandas(draws=100, seed=1).iloc[0]
            hits.append(row["spearman_low"] <= truth <= row["spearman_high"])
            widths.append(row["spearman_high"] - row["spearman_low"])
    assert 0.86 <= np.mean(hits) <= 0.99
    assert np.mean(widths[60:]) < 0.65 * np.mean(widths[:60])


def test_one_class_alone_and_what_is_shown(found, tmp_path):
    own = found.of_class("related")
    assert set(own.classes) == {"related"}
    kept = [place for place, of in enumerate(found.classes) if of == "related"]
    np.testing.assert_array_equal(own.effect, found.effect[kept])
    np.testing.assert_array_equal(own.value, found.value[:, kept])
    with pytest.raises(LensNeuronsError, match="class='odd' is not known"):
        found.of_class("odd")
    assert "48 neurons in en zh th: activation, plnd" in repr(found)
    assert "recall of the largest 10%" in found._repr_html_()
    again = MethodAgreement.load(found.save(tmp_path / "a"))
    assert again.to_pandas().equals(found.to_pandas())


def test_direct_of_a_set_of_tokens_has_no_sign(llama):
    found = importance_agreement(
        llama, tiny.tiny_corpus().head(1), "L0N1 L0N2 L0N3 L0N4 L0N5 L1N6 L1N7 L1N8 L2N9 L2N10",
        methods=["direct"], tokens=[5, 9], progress=False,
    )  # fmt: skip
    assert found.tokens == (5, 9)
    assert found.to_pandas(draws=10)["signed"].isna().all()
    assert found.to_pandas(draws=10)["spearman"].notna().all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"number": 9}, "number=9 of 156 neurons"),
        ({"number": 157}, "number=157 of 156 neurons"),
        ({"methods": []}, "is empty or names one twice"),
        ({"methods": ["plnd", "plnd"]}, "is empty or names one twice"),
        ({"methods": ["precision"]}, "methods='precision' is not known"),
        ({"steps": 0, "number": 10}, "steps=0"),
    ],
)
def test_refusals(options, told, llama):
    with pytest.raises(LensNeuronsError, match=told):
        importance_agreement(
            llama, tiny.tiny_corpus().head(1), tiny.drawn_neurons(), progress=False, **options
        )


def test_refusals_of_the_table(found):
    for options in ({"top": 0}, {"top": 48}, {"draws": 0}):
        with pytest.raises(LensNeuronsError, match="a top of 1 to 47"):
            found.to_pandas(**options)
    with pytest.raises(LensNeuronsError, match="level=1"):
        found.to_pandas(level=1.0)
