"""Deactivation matrices in accuracy, on a model whose every answer is known.

Each problem has a neuron of its own that fires on the last token of its prompt alone. While it is
alive the model answers with one sentence, and without it with another: what each is worth, as an
answer and as a text in a language, is written down beside it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import planted
import pytest
import tiny
import torch

from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import LensNeuronsError, ModelError, ProvenanceError
from lensneurons.evaluation import answers as answering
from lensneurons.evaluation.answers import accuracy
from lensneurons.experiments.ablation import (
    MATCHES,
    AblationMatrix,
    ablation_matrix,
    ablation_sets,
)
from lensneurons.experiments.controls import draws_an_item
from lensneurons.interventions.editing import ablate
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model

# item, language, right number, layer and index of its neuron, sentences with and without it, and
# whether each is right and in the right language
ANSWERS = [
    ("one", "en", 59, (0, 3), "There are fifty-nine flowers here, 59", True,
     "There are only fifty-eight flowers, 58", False),
    ("two", "en", 16, (1, 2), "Vier Katzen haben zusammen genau 16", False,
     "Four cats have together exactly 16", True),
    ("three", "en", 7, (0, 5), "The answer must be this number, 7", True,
     "We can see that there were seven of them, 7", True),
    ("one", "de", 59, (0, 4), "Es sind also neunundfünfzig Blumen, 59", True,
     "There are surely some flowers left here, 59", False),
    ("two", "de", 16, (1, 6), "Alle vier Katzen haben zusammen 16", True,
     "Zusammen haben die Katzen also sicher 16", True),
    ("three", "de", 7, (1, 1), "Die Antwort ist leider nicht bekannt, 8", False,
     "Das wissen wir wirklich noch nicht, 9", False),
    ("four", "de", 40, (1, 8), "Davon bleiben ihr noch vierzig Marken, 41", False,
     "Danach bleiben ihr genau vierzig Marken, 40", True),
]  # fmt: skip
LAYERS, WIDTH = 2, 20
LANGUAGES = ("en", "fr", "de")
# Languages in which a neuron is active; the neurons that are not named here are active in none.
OWNERS = {
    (0, 3): ["en"], (1, 2): ["en", "fr"], (0, 5): ["en"], (0, 4): ["de"], (1, 6): ["fr", "de"],
    (1, 1): ["en", "fr", "de"], (1, 8): ["en", "de"], (0, 9): ["fr"], (1, 11): ["en"],
}  # fmt: skip


def prompt(number: int) -> str:
    """Prompts of unequal length; the last token tells the problem."""
    return "please\n" * (number % 3) + f"problem {number}\n"


VOCABULARY = ["[UNK]", "[PAD]", "</s>", "please"]
PROMPTS = len(VOCABULARY)
VOCABULARY += [prompt(number).split("\n")[-2] for number in range(len(ANSWERS))]
SENTENCES = len(VOCABULARY)
VOCABULARY += [sentence for row in ANSWERS for sentence in (row[4], row[6])]
WORDS = len(VOCABULARY)
D_MODEL = WORDS + len(ANSWERS)


def save_model(folder: Path) -> Path:
    """A Llama without attention. The neuron of a problem writes into a dimension of its own that
    the first sentence reads; the second reads the problem itself, with half the strength."""
    sizes = {"d_model": D_MODEL, "d_mlp": WIDTH, "n_layers": LAYERS}
    model = planted.silent_llama(WORDS, **sizes, positions=32, eos=2)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(WORDS, D_MODEL))
        model.lm_head.weight[2, SENTENCES:WORDS] = 1  # a sentence ends the text
        for block in model.model.layers:
            block.mlp.up_proj.weight[:, :WORDS] = 1
            block.mlp.gate_proj.weight[:, :WORDS] = -1
        for number, (_, _, _, (layer, neuron), *_) in enumerate(ANSWERS):
            mlp = model.model.layers[layer].mlp
            mlp.gate_proj.weight[neuron, PROMPTS + number] = 1
            mlp.down_proj.weight[WORDS + number, neuron] = 1 / D_MODEL  # hook_post is D_MODEL
            model.lm_head.weight[SENTENCES + 2 * number, WORDS + number] = 1
            model.lm_head.weight[SENTENCES + 2 * number + 1, PROMPTS + number] = 0.5
    model.save_pretrained(folder)
    tokenizer = planted.tokenizer(VOCABULARY, "\n", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return folder


ROWS = [
    {"id": item, "language": language, "prompt": prompt(number), "response": str(answer)}
    for number, (item, language, answer, *_) in enumerate(ANSWERS)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(save_model(tmp_path_factory.mktemp("answers")), device="cpu")


@pytest.fixture(scope="module")
def corpus():
    with pytest.warns(UserWarning, match="four|item"):  # one problem in one language alone
        return build_corpus(ROWS, name="problems")


@pytest.fixture(scope="module")
def neurons():
    random = np.random.default_rng(3)
    probability = random.uniform(0, 0.2, (LAYERS, WIDTH, len(LANGUAGES)))
    for place, owners in OWNERS.items():
        probability[place][[LANGUAGES.index(k) for k in owners]] += 0.7
    every = np.ones((LAYERS, WIDTH), bool)
    score = random.random((LAYERS, WIDTH))
    drawn = tiny.drawn_neurons(languages=LANGUAGES)  # of other sizes
    return replace(drawn, probability=probability, score=score, selected=every)


pytestmark = pytest.mark.filterwarnings("ignore:no other neurons are as active")

OPTIONS = {"metric": "accuracy", "max_new_tokens": 4, "progress": False}


def worth(removed) -> np.ndarray:
    """1 for every answer that is right and in the right language, without some neurons."""
    gone = set() if removed is None else set(zip(*removed.mask().nonzero(), strict=True))
    worths = ((one[7] if one[3] in gone else one[5]) for one in ANSWERS)
    return np.array([*worths], float)


@pytest.mark.parametrize(
    ("batch_tokens", "match", "controls"),
    [(1, ["activity"], 4), (20, ["activity"], 6), (10_000, [*MATCHES], 6)],
)
def test_the_matrix_is_known(model, corpus, neurons, batch_tokens, match, controls):
    options = {"match": match, "controls": controls, "batch_tokens": batch_tokens, **OPTIONS}
    matrix = ablation_matrix(model, corpus, neurons, seed=4, **options)
    base, items = worth(None), [0, 1, 2, 0, 1, 2, 3]
    assert (matrix.rows, matrix.languages) == (LANGUAGES, ("en", "de"))
    assert matrix.base.tolist() == base.tolist() == [1, 0, 1, 1, 1, 0, 0]
    assert matrix.weight.tolist() == [1.0] * 7
    each = draws_an_item(controls, 4)  # draws each n, each n + 1, ... belong to item n
    hit = 0
    for setting, rows in ablation_sets(neurons).items():
        for row, removed in rows.items():
            place = matrix.classes.index(setting), LANGUAGES.index(row)
            assert matrix.effect[place].tolist() == (worth(removed) - base).tolist()
            own = neurons.probability[..., LANGUAGES.index(row)]
            by = {"own": own, "activity": neurons.probability.mean(-1), "layer": 0 * own}
            for side, one in enumerate(match):
                draws = removed.random_control(by[one], draws=4 * each, seed=4)
                drawn = np.array([worth(draw) for draw in draws]).reshape(4, each, -1)
                met = drawn[items, :, np.arange(7)].mean(1)
                assert matrix.control[side][place].tolist() == (met - base).tolist()
            hit += np.abs(matrix.control[:, *place]).sum()
    assert hit >= 1  # random sets do hit answers
    assert matrix.cells("specific").tolist() == [[-1 / 3, 0], [0, 0], [0, -1 / 4]]
    assert matrix.cells("related") == pytest.approx(np.array([[0, 1 / 4], [1 / 3, 0], [0, 0]]))
    assert set(np.unique(matrix.effect)) == {-1.0, 0.0, 1.0}


def test_it_is_the_accuracy_of_a_loop(model, corpus, neurons):
    matrix = ablation_matrix(model, corpus, neurons, controls=1, **OPTIONS)
    before = accuracy(model, corpus, max_new_tokens=4, progress=False)
    assert [answer.text for answer in before] == [row[4] for row in ANSWERS]
    assert [answer.both for answer in before] == matrix.base.astype(bool).tolist()
    with ablate(model, neurons["en"]):
        after = accuracy(model, corpus, max_new_tokens=4, progress=False)
    assert [a.both for a in after] == (matrix.base + matrix.effect[1, 0]).astype(bool).tolist()


def test_a_tokenizer_may_be_given(model, corpus, neurons, monkeypatch):
    options = {**OPTIONS, "classes": ["specific"], "languages": ["de"]}
    whole, own = ablation_matrix(model, corpus, neurons, **options), original_tokenizer(model)
    monkeypatch.setattr(model, "tokenizer", None)
    found = ablation_matrix(model, corpus, neurons, tokenizer=own, **options)
    assert np.array_equal(found.effect, whole.effect)
    assert np.array_equal(found.base, whole.base)


def test_it_can_be_resumed_and_tells_its_metric(model, corpus, neurons, tmp_path):
    options = {**OPTIONS, "controls": 2, "run_dir": tmp_path}
    matrix = ablation_matrix(model, corpus, neurons, **options)
    assert AblationMatrix.load(tmp_path).metric == "accuracy"
    assert "change of accuracy" in repr(matrix)
    for change, message in (
        ({"metric": "nll"}, "metric: 'accuracy', now 'nll'"),
        ({"max_new_tokens": 3}, "max_new_tokens: 4, now 3"),
    ):
        with pytest.raises(LensNeuronsError, match=message):
            ablation_matrix(model, corpus, neurons, **{**options, **change})
    with pytest.raises(LensNeuronsError, match="perplexity needs metric='nll', these cells hold"):
        matrix.log_perplexity_difference()


def test_worked_examples_stand_before_the_prompts(model, corpus, neurons, tmp_path):
    """The planted model reads the last token alone, so examples change no cell."""
    shots = build_corpus(
        [
            {"id": "example", "language": tag, "prompt": "please\n", "response": VOCABULARY[-1]}
            for tag in ("en", "de")
        ]
    )
    options = {**OPTIONS, "classes": ["specific"], "controls": 1, "run_dir": tmp_path}
    matrix = ablation_matrix(model, corpus, neurons, shots=shots, **options)
    bare = ablation_matrix(model, corpus, neurons, **{**options, "run_dir": None})
    assert np.array_equal(matrix.effect, bare.effect)
    with pytest.raises(ProvenanceError, match="shots: '[0-9a-f]{64}', now None"):
        ablation_matrix(model, corpus, neurons, **options)
    for refused, told in (
        ({"shots": shots, "metric": "nll"}, "shots stand before prompts that a model answers"),
        ({"shots": shots.select(["en"])}, r"no example in \['de'\]"),
    ):
        with pytest.raises(LensNeuronsError, match=told):
            ablation_matrix(model, corpus, neurons, **{**options, "run_dir": None} | refused)


def test_what_cannot_answer_is_refused(model, corpus, neurons, monkeypatch):
    with pytest.raises(LensNeuronsError, match="beyond the model's context of 32"):
        ablation_matrix(model, corpus, neurons, **{**OPTIONS, "max_new_tokens": 31})
    monkeypatch.setattr(answering, "model_family", lambda model: "hooked")
    with pytest.raises(ModelError, match="answers under several conditions need a Transformer"):
        ablation_matrix(model, corpus, neurons, **OPTIONS)
