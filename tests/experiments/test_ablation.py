"""Deactivation matrices: equal to a closed form, to a naive loop, and to known answers."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cache
from typing import get_args

import numpy as np
import planted
import pytest
import tiny
import torch
from edited import state_of
from transformers import AutoModelForCausalLM

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import build_corpus, load_corpus
from lensneurons.errors import EmptySetWarning, LensNeuronsError, ModelError
from lensneurons.evaluation.likelihood import nll
from lensneurons.experiments import ablation as ablation_cells
from lensneurons.experiments.ablation import ablation_matrix, ablation_sets
from lensneurons.experiments.controls import Match, draws_an_item
from lensneurons.experiments.metrics import METRICS, Metric
from lensneurons.interventions.editing import ablate
from lensneurons.models.identity import hash_weights, original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.neurons.sets import NeuronSet

pytestmark = pytest.mark.filterwarnings("ignore:no other neurons are as active")

# --- the planted model, whose language neurons raise the words of their languages ---

K, WORDS, LAYERS = len(planted.LANGUAGES), len(planted.VOCABULARY), len(planted.PROFILE)
SETTINGS = ("specific", "related", "agnostic")
PLANTED_ITEMS = 3
DRAWS = 6  # asked for
MATCHES: tuple[Match, ...] = ("own", "activity", "layer")


def activity(neurons, row: str, match: Match) -> np.ndarray:
    """What a control is matched by, [layer, neuron]."""
    p = neurons.probability
    own = p[..., neurons.languages.index(row)]
    return {"own": own, "activity": p.mean(-1), "layer": 0 * own}[match]


@cache
def down() -> np.ndarray:
    """[layer, d_model, neuron]: a planted neuron writes into one empty dimension a language of its
    own, a quiet one into the two that are left; every strength is another."""
    random = np.random.default_rng(5)
    weights = np.zeros((LAYERS, planted.D_MODEL, planted.D_MLP))
    for layer, neurons in enumerate(planted.neurons()):
        for j, neuron in enumerate(neurons):
            places = [planted.LANGUAGES.index(k) for k in neuron.languages] or [K, K + 1]
            strengths = random.uniform(1, 5, len(places)) * 4e-5 * (1 if neuron.languages else 20)
            weights[layer, WORDS + np.array(places), j] = strengths
    return weights.astype(np.float32).astype(float)


@cache
def head() -> np.ndarray:
    """[token, d_model]: the words of a language read its dimension, each with a weight of its own;
    all words read the two dimensions of the quiet neurons."""
    random = np.random.default_rng(6)
    weights = np.eye(WORDS, planted.D_MODEL)
    weights[:, WORDS + K :] = random.normal(0, 1, (WORDS, 2))
    for token, word in enumerate(planted.VOCABULARY[2:], start=2):
        weights[token, WORDS + planted.LANGUAGES.index(word[:2])] = random.uniform(1, 2)
    return weights.astype(np.float32).astype(float)


def surprise(removed: np.ndarray) -> np.ndarray:
    """NLL of every token after every token, [before, token], without the neurons of a mask."""
    stream = np.eye(WORDS, planted.D_MODEL)
    for layer in range(LAYERS):
        a = stretch(stream)  # what the norm makes of the one word dimension that is 1
        pre = a * signs(layer)
        post = pre / (1 + np.exp(-pre)) * a
        stream = stream + np.where(removed[layer], 0, post) @ down()[layer].T
    logits = (stretch(stream) * stream) @ head().T
    return np.log(np.exp(logits).sum(1))[:, None] - logits


@cache
def signs(layer: int) -> np.ndarray:
    """1 where a neuron fires on a token, else -1, [token, neuron]."""
    neurons = planted.neurons()[layer]
    return np.array([[1 if w in n.fires_on else -1 for n in neurons] for w in planted.VOCABULARY])


def stretch(stream: np.ndarray) -> np.ndarray:
    return 1 / np.sqrt(np.square(stream).mean(-1, keepdims=True) + planted.EPS)


def losses(removed: np.ndarray) -> np.ndarray:
    """NLL of every response of the planted corpus, [text]: attention is zero, so a word depends on
    the one before it alone."""
    table, sums = surprise(removed), []
    for language in planted.LANGUAGES:
        for prompt, response in planted.texts()[language][:PLANTED_ITEMS]:
            words = [prompt.split()[-1], *response.split()]
            ids = [planted.VOCABULARY.index(word) for word in words]
            sums.append(table[ids[:-1], ids[1:]].sum())
    return np.array(sums)


@pytest.fixture(scope="module")
def writing(tmp_path_factory):
    """The planted model with `down` and `head` in it."""
    folder = planted.save_model(tmp_path_factory.mktemp("silent"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for block, weights in zip(model.model.layers, down(), strict=True):
            block.mlp.down_proj.weight.copy_(torch.from_numpy(weights))
        model.lm_head.weight.copy_(torch.from_numpy(head()))
    model.save_pretrained(folder)
    return load_model(folder, device="cpu")


WHOLE = load_corpus(planted.texts())
PLANTED = WHOLE.head(PLANTED_ITEMS)


@pytest.fixture(scope="module")
def found(writing):
    statistics = collect(writing, WHOLE, progress=False)
    planned = np.array(planted.probabilities(), float)
    assert statistics.probability.tolist() == pytest.approx(planned)
    neurons = identify(statistics, percentile=planted.PERCENTILE, top_rate=planted.TOP_RATE)
    # Half of all neurons at random, in place of the few whose score is lowest: sets in every
    # language and layer.
    half = np.random.default_rng(1).random(neurons.selected.shape) < 0.5
    return replace(neurons, selected=half)


@pytest.fixture(scope="module")
def matrix(writing, found):
    return ablation_matrix(
        writing, PLANTED, found, progress=False, batch_tokens=1500, controls=DRAWS
    )


def planted_sets(found) -> dict[tuple[str, str], np.ndarray]:
    """Mask [layer, neuron] of what each setting and row removes, from the plan."""
    owners = [[n.languages for n in layer] for layer in planted.neurons()]
    number = np.array([[len(own) for own in layer] for layer in owners])
    sets = {}
    for row in planted.LANGUAGES:
        own = np.array([[row in languages for languages in layer] for layer in owners])
        specific, related = (own & found.selected & of for of in (number == 1, number < K))
        sets |= {("specific", row): specific, ("related", row): related}
        sets["agnostic", row] = related | (number == K)
    return sets


def test_the_matrix_is_the_closed_form(matrix, found):
    sets = planted_sets(found)
    items = np.tile(np.arange(PLANTED_ITEMS), K)
    texts = [planted.texts()[k][:PLANTED_ITEMS] for k in planted.LANGUAGES]
    tokens = [sum(len(response.split()) for _, response in own) for own in texts]
    base = losses(np.zeros((LAYERS, planted.D_MLP), bool))
    assert matrix.base == pytest.approx(base, abs=2e-4)
    assert len({int(mask.sum()) for mask in sets.values()}) > 8
    for (setting, row), mask in sets.items():
        place = SETTINGS.index(setting), planted.LANGUAGES.index(row)
        assert matrix.sizes[place] == mask.sum() > 0
        added = losses(mask) - base
        assert matrix.effect[place] == pytest.approx(added, abs=2e-4)
        means = added.reshape(K, -1).sum(1) / tokens
        assert matrix.cells(setting)[place[1]] == pytest.approx(means, abs=2e-5)
        every = PLANTED_ITEMS * draws_an_item(DRAWS, PLANTED_ITEMS)
        for side, match in enumerate(MATCHES):
            p = activity(found, row, match)
            draws = NeuronSet.from_mask(mask).random_control(p, draws=every, seed=0)
            drawn = np.array([losses(draw.mask()) for draw in draws])
            drawn = drawn.reshape(PLANTED_ITEMS, -1, len(items))[items, :, np.arange(len(items))]
            assert matrix.control[side][place] == pytest.approx(drawn.mean(1) - base, abs=2e-4)
    assert matrix.rows == matrix.languages == planted.LANGUAGES
    assert (matrix.classes, matrix.metric, matrix.draws) == (SETTINGS, "nll", every)
    assert matrix.matches == MATCHES
    assert matrix.weight.tolist() == [len(item.response.split()) for item in PLANTED]
    assert matrix.language.tolist() == np.repeat(np.arange(K), PLANTED_ITEMS).tolist()
    assert matrix.item_ids == tuple(item.id for item in PLANTED)
    assert np.abs(matrix.control).max(-1).min() > 0.01
    cells = matrix.cells("related")
    assert (cells.diagonal() > 0.05).all()
    random = matrix.control_cells("related", "activity")
    assert (cells.diagonal() > 1.5 * random.diagonal()).all()


# --- random sets on a random model, against a loop of one condition at a time ---

CORPUS = tiny.tiny_corpus()
ITEMS = 8
NEURONS = tiny.drawn_neurons()
OPTIONS = {"progress": False, "batch_tokens": 300, "controls": ITEMS}


@pytest.fixture(scope="module")
def llama(bridge):
    return bridge("Llama")


@pytest.fixture(scope="module")
def whole(llama):
    return ablation_matrix(llama, CORPUS, NEURONS, **OPTIONS)


def some(model, corpus=CORPUS, neurons=NEURONS, **options):
    """The matrix of one row and setting, unless told otherwise."""
    few = {"languages": ["zh"], "classes": ["related"], **OPTIONS}
    return ablation_matrix(model, corpus, neurons, **{**few, **options})


def close(ours, theirs):
    """Sums over up to 60 tokens, in float32, in batches of other sizes."""
    return np.abs(ours - theirs).max() < 2e-4


def test_the_sets_build_on_each_other():
    sets = ablation_sets(NEURONS)
    assert list(sets) == list(SETTINGS)
    for row in NEURONS.languages:
        specific, own, every = NEURONS.specific[row], NEURONS[row], NEURONS[row] | NEURONS.agnostic
        assert [sets[setting][row] for setting in SETTINGS] == [specific, own, every]
        assert len(specific) < len(own) < len(every)
        assert sets["agnostic"][row].label == f"agnostic {row}"
    alone = ablation_sets(NEURONS, ["agnostic", "specific"], ["th"])
    assert alone["agnostic"]["th"] == NEURONS.agnostic
    assert alone["specific"]["th"] == NEURONS.agnostic | NEURONS.specific["th"]


def test_it_is_a_loop_of_one_condition_at_a_time(llama):
    """8 draws, 4 items: item n alone meets draws 2 n and 2 n + 1."""
    corpus, options = CORPUS.head(4), {**OPTIONS, "controls": 6, "languages": ["th"]}
    matrix = ablation_matrix(llama, corpus, NEURONS, **options)
    before = nll(llama, corpus)
    assert close(matrix.base, before.nll)
    assert matrix.weight.tolist() == before.tokens.tolist()
    assert (matrix.draws, draws_an_item(6, 4)) == (8, 2)

    def added(removed):
        with ablate(llama, removed):
            return nll(llama, corpus).nll - before.nll

    item = np.tile(np.arange(4), 3)  # of a text, in three languages
    for place, rows in enumerate(ablation_sets(NEURONS, languages=["th"]).values()):
        effect = added(rows["th"])
        assert close(matrix.effect[place, 0], effect)
        assert np.median(np.abs(effect)) > 0.1
    place, removed = SETTINGS.index("related"), NEURONS["th"]
    for side, match in enumerate(MATCHES):
        drawn = removed.random_control(activity(NEURONS, "th", match), draws=8, seed=0)
        draws = np.array([added(one) for one in drawn]).reshape(4, 2, -1)
        assert close(matrix.control[side, place, 0], draws[item, :, np.arange(12)].mean(1))
        assert np.median(np.ptp(draws, axis=(0, 1))) > 0.1


@pytest.mark.parametrize("batch_tokens", [1, 100_000])
def test_no_batch_size_changes_a_number(batch_tokens, llama, whole):
    other = some(llama, classes=SETTINGS[:1], batch_tokens=batch_tokens)
    assert close(other.effect, whole.effect[:1, 1:2])
    assert close(other.control, whole.control[:, :1, 1:2])


def test_many_conditions_ride_in_one_batch(llama, monkeypatch):
    """And every control draw is among them."""
    batches, plain = [], ablate

    def watched(model, sets):
        batches.append(list(sets))
        return plain(model, sets)

    monkeypatch.setattr(ablation_cells, "ablate", watched)
    some(llama, controls=20)
    assert max(map(len, batches)) > 10
    ridden = [one for batch in batches for one in batch]
    assert len(ridden) == 3 * ITEMS * (1 + 3 * 3)
    assert ridden.count(NEURONS.related["zh"]) == 3 * ITEMS
    for match in MATCHES:
        p = activity(NEURONS, "zh", match)
        draws = NEURONS.related["zh"].random_control(p, draws=24)
        assert len(set(draws)) == 24
        assert all(ridden.count(one) == 3 for one in draws)  # one item, in three languages


def test_items_meet_their_draws_also_where_a_language_lacks_some(llama):
    """Items of another number, or in another order, in the second language: by name, not place."""
    two = CORPUS.select(["en", "zh"])
    items = [item for item in two if item.language == "en" or item.id in ("item-6", "item-2")]
    items = [*items[:ITEMS], *items[: ITEMS - 1 : -1]]
    names = ("id", "language", "prompt", "response")
    with pytest.warns(UserWarning, match="."):
        ragged = build_corpus([{name: getattr(item, name) for name in names} for item in items])
    matrix, complete = (some(llama, corpus, languages=["en"]) for corpus in (ragged, CORPUS))
    places = [list(CORPUS).index(item) for item in ragged]
    assert matrix.item_ids[-2:] == ("item-6", "item-2")
    assert close(matrix.control, complete.control[..., places])
    assert close(matrix.effect, complete.effect[..., places])


def test_an_empty_set_has_no_effect_at_all(llama):
    """Nobody is specific to "en" here: exactly 0, for the set and for its control."""
    probability = NEURONS.probability.copy()
    probability[..., 0] = np.where(NEURONS.n_above == 1, 0, probability[..., 0])
    neurons = replace(NEURONS, probability=probability)
    with pytest.warns(EmptySetWarning, match="^no neurons in specific en: these rows") as told:
        matrix = ablation_matrix(llama, CORPUS, neurons, classes=["specific"], **OPTIONS)
    assert len(told) == 1
    assert matrix.sizes[0].tolist() == [0, *(len(neurons.specific[k]) for k in ("zh", "th"))]
    assert (matrix.effect[0, 0] == 0).all()
    assert (matrix.control[:, 0, 0] == 0).all()
    assert (matrix.effect[0, 1:] != 0).all()
    assert np.isnan(matrix.selectivity_ratio("specific").estimate[0])
    assert np.isnan(matrix.rates[:, 0, 0]).all()
    assert matrix.matched("specific")["layer"].tolist()[:3] == [-1, -1, -1]
    assert np.isfinite(matrix.figures("specific")["p in the own language"].estimate)
    assert "specific: diagonal" in repr(matrix)


def test_a_tokenizer_may_be_given(llama, whole, monkeypatch):
    own = original_tokenizer(llama)
    monkeypatch.setattr(llama, "tokenizer", None)
    with pytest.raises(ModelError, match="pass tokenizer="):
        some(llama)
    found = some(llama, classes=["specific"], tokenizer=own)
    assert np.array_equal(found.effect, whole.effect[:1, 1:2])
    assert found.provenance == whole.provenance


def test_the_model_is_as_before(llama):
    before = state_of(llama), hash_weights(llama)
    some(llama)
    assert (state_of(llama), hash_weights(llama)) == before


def test_rows_may_be_some_and_in_any_order(llama, whole):
    other = some(llama, languages=["th", "en"], classes=SETTINGS[:2])
    assert (other.rows, other.languages) == (("th", "en"), ("en", "zh", "th"))
    for name in ("effect", "sizes", "neurons_by_layer"):
        assert np.array_equal(getattr(other, name), getattr(whole, name)[:2, [2, 0]])
    for name in ("control", "rates"):
        np.testing.assert_equal(getattr(other, name), getattr(whole, name)[:, :2, [2, 0]])
    fewer = CORPUS.select(languages=["th", "zh"])
    swapped = some(llama, fewer, classes=SETTINGS[:2], languages=None, match="own")
    assert (swapped.rows, swapped.languages) == (("en", "zh", "th"), ("th", "zh"))
    assert swapped.sizes.tolist() == whole.sizes[:2].tolist()
    assert swapped.cells() == pytest.approx(whole.cells("related")[:, [2, 1]], abs=1e-5)


def test_draws_and_seeds_change_the_controls_alone(llama, whole):
    for change in ({"seed": 1}, {"controls": ITEMS + 1}):
        other = some(llama, classes=SETTINGS[:1], **change)
        assert close(other.effect, whole.effect[:1, 1:2])
        different = np.abs(other.control - whole.control[:, :1, 1:2]).min(-1)
        assert different.max() > 1e-3
    assert (whole.draws, other.draws) == (ITEMS, 2 * ITEMS)  # one or two an item


@pytest.mark.parametrize(
    ("architecture", "scope"), [("Llama", "prompt"), ("GPT2", "response"), ("Phi3", "all")]
)
def test_every_architecture_and_scope(architecture, scope, bridge):
    model = bridge(architecture)
    matrix = some(model, scope=scope, controls=2)
    before = nll(model, CORPUS, scope=scope)
    with ablate(model, NEURONS.related["zh"]):
        after = nll(model, CORPUS, scope=scope)
    assert close(matrix.effect[0, 0], after.nll - before.nll)
    assert matrix.weight.tolist() == before.tokens.tolist()
    assert matrix.provenance == before.provenance
    assert matrix.provenance.scope == scope


def test_progress_is_shown_in_cells(llama, capsys):
    some(llama, controls=1, progress=True)
    assert "3/3" in capsys.readouterr().err
    some(llama, controls=1)
    assert capsys.readouterr().err == ""


# --- at the door ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["shared"]}, r"class='shared' is not known; choose one of \['specific', 'rel"),
        ({"classes": []}, r"class: \[\] is empty or names one twice"),
        ({"classes": ["related"] * 2}, r"class: \['related', 'related'\] is empty or names one tw"),
        ({"languages": ["de"]}, r"language='de' is not known; choose one of \['en', 'zh', 'th'\]"),
        ({"languages": []}, r"language: \[\] is empty"),
        ({"languages": ["th", "th"]}, r"language: \['th', 'th'\] is empty or names one twice"),
        ({"match": "both"}, r"match='both' is not known; choose one of \['own', 'activity', 'lay"),
        ({"match": []}, r"match: \[\] is empty or names one twice"),
        ({"match": ("own", "own")}, r"match: \['own', 'own'\] is empty or names one twice"),
        ({"pool": "none"}, r"pool='none' is not known; choose one of \['all', 'unselected', 'be"),
        ({"method": "off"}, r"method='off' is not known; choose one of \['zero', 'mean', 'resa"),
        ({"method": "mean"}, "method='mean' needs statistics="),
        ({"method": "resample"}, "method='resample' needs reference="),
        ({"reference": CORPUS}, "reference= needs method='resample', not 'zero'"),
        ({"controls": 0}, "controls=0: an effect needs a control to mean anything"),
        ({"batch_tokens": 0}, "batch_tokens=0 holds nothing"),
        ({"metric": "bleu"}, r"metric='bleu' is not known; choose one of \['nll', 'accuracy'\]"),
        ({"metric": "accuracy"}, r"'item-0' \(en\) has no number in its response: accuracy needs"),
    ],
)
def test_senseless_options_are_refused_before_any_pass(options, message, llama, monkeypatch):
    monkeypatch.setattr(type(llama), "forward", None)
    with pytest.raises(LensNeuronsError, match=message):
        inspect.unwrap(ablation_matrix)(llama, CORPUS, NEURONS, **{**OPTIONS, **options})


def test_neurons_of_another_model_are_refused(bridge):
    with pytest.raises(LensNeuronsError, match="of 3 layers x 52 are not of .* 3 x 128"):
        some(bridge("Bloom"))


def test_hooks_and_a_run_folder_do_not_go_together(llama, tmp_path):
    hook = ("blocks.0.mlp.hook_post", lambda tensor, hook: tensor * 0)
    with llama.hooks(fwd_hooks=[hook]):
        with pytest.raises(LensNeuronsError, match="hooks on the model, .*run without run_dir"):
            some(llama, run_dir=tmp_path / "run")
        free = some(llama, controls=1)
        assert close(free.base, nll(llama, CORPUS).nll)
    assert free.provenance.interventions == "hooks"
    assert not (tmp_path / "run").exists()


def test_a_layer_without_enough_others_is_refused(writing, found):
    with pytest.raises(LensNeuronsError, match="layer 11 has .* outside agnostic .*, too few"):
        ablation_matrix(writing, PLANTED, found.with_population("all"), progress=False)


def test_every_metric_has_its_scorer_and_words():
    assert set(METRICS) == set(get_args(Metric))
