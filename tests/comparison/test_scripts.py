"""Script control: planted neurons that fall silent, an oracle by loops, coverage, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.scripts import ScriptControl, script_control
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import LensNeuronsError, ProvenanceError
from lensneurons.neurons.identification import identify
from lensneurons.values.provenance import Provenance

LANGUAGES = ("en", "th", "sw")
LAYERS, WIDTH, GROUPS, TOKENS = 2, 60, 10, 200
ANSWERS = {"ru": "Привет", "bn": "মা"}
OWN = 8  # neurons of each language and layer; the others are alike in all languages


def drawn(
    probability: np.ndarray, corpus: str, random: np.random.Generator
) -> ActivationStatistics:
    """Counts of a corpus with these probabilities [layer, neuron, language]."""
    tokens = np.full((GROUPS, len(LANGUAGES)), TOKENS)
    counts = random.binomial(TOKENS, np.broadcast_to(probability, (GROUPS, *probability.shape)))
    known = Provenance(model="lab/model", weights="w", corpora=(corpus,))
    return ActivationStatistics(LANGUAGES, counts, tokens, provenance=known)


def world(lost: float, lost_others: float, random: np.random.Generator):
    """A native and a romanised count: a share of the neurons of Thai falls silent, of others."""
    before = np.full((LAYERS, WIDTH, 3), 0.02)
    for k in range(3):
        before[:, OWN * k : OWN * (k + 1), k] = 0.5
    before[:, 3 * OWN :] = 0.5  # active everywhere: what random sets are drawn from
    after = before.copy()
    after[:, OWN : OWN + round(lost * OWN), 1] = 0.01
    others = np.arange(3 * OWN, WIDTH)
    after[:, others[: round(lost_others * len(others))], 1] = 0.01
    return drawn(before, "native", random), drawn(after, "romanised", random)


def found(native: ActivationStatistics):
    return identify(native, score="lape", top_rate=3 * OWN / WIDTH, tau=0.2)


def test_the_planted_share_is_found_beside_that_of_random_neurons():
    native, romanised = world(0.75, 0.25, np.random.default_rng(0))
    neurons = found(native)
    control = script_control(neurons, native, romanised, seed=3)
    assert control.neurons.tolist() == [[OWN] * 3] * LAYERS
    assert control.lost.tolist() == [[0, 6, 0]] * LAYERS
    assert control.share[-1, 1, 0] == 0.75
    assert control.share[:, 0].tolist() == [[0, 0, 0]] * 3  # in Latin letters nothing changes
    others = neurons["th"].random_control(draws=20, seed=3)
    p = romanised.probability[..., 1]
    silent = [[p[n // WIDTH, n % WIDTH] <= 0.2 for n in one.flat] for one in others]
    assert control.beyond[-1, 1, 0] == pytest.approx(0.75 - np.mean(silent))
    assert control.lost_control[:, 1].sum() == pytest.approx(np.sum(silent) / 20)
    assert 0.1 < np.mean(silent) < 0.4


def test_intervals_hold_the_share_of_other_texts():
    """Neurons near the bar, so that it depends on the texts which fall below it."""
    held = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        native, _ = world(0, 0, random)
        after = np.full((LAYERS, WIDTH, 3), 0.5)
        after[..., 1] = np.linspace(0.17, 0.23, WIDTH)
        neurons = found(native)
        own = [script_control(neurons, native, drawn(after, "r", random), controls=1).share]
        many = [
            drawn(after, "r", random).probability[:, OWN : 2 * OWN, 1] <= 0.2 for _ in range(99)
        ]
        truth = np.mean(many)
        held.append(own[0][-1, 1, 1] <= truth <= own[0][-1, 1, 2])
    assert 0.88 <= np.mean(held) <= 1


def test_the_table_adds_up(tmp_path):
    native, romanised = world(0.5, 0, np.random.default_rng(1))
    control = script_control(found(native), native, romanised)
    table = control.to_pandas().set_index(["language", "layer"])
    assert table.loc[("th", 1), "lost"].item() == 4
    everything = table[table.index.get_level_values("layer").isna()]
    assert everything["lost"].tolist() == [0, 8, 0]
    assert everything["share"].tolist() == [0, 0.5, 0]
    again = ScriptControl.load(control.save(tmp_path / "control"))
    assert np.array_equal(again.share, control.share)
    assert "th 0.50" in repr(again)
    assert "Neurons that lose their language" in control._repr_html_()


def test_a_language_without_neurons_has_no_share():
    native, romanised = world(0.5, 0, np.random.default_rng(1))
    neurons = found(native)
    selected = neurons.selected.copy()
    selected[:, :OWN] = False
    control = script_control(replace(neurons, selected=selected), native, romanised)
    assert control.neurons[:, 0].tolist() == [0, 0]
    assert np.isnan(control.share[:, 0]).all()
    assert control.share[-1, 1, 0] == 0.5


def test_what_does_not_belong_together_is_refused():
    native, romanised = world(0.5, 0, np.random.default_rng(1))
    neurons = found(native)
    with pytest.raises(LensNeuronsError, match="both counts are of the same texts"):
        script_control(neurons, native, native)
    other = replace(romanised, provenance=replace(romanised.provenance, weights="v"))
    with pytest.raises(ProvenanceError, match="weights: 'w' and 'v'"):
        script_control(neurons, native, other)
    with pytest.raises(LensNeuronsError, match="the counts differ in languages"):
        script_control(neurons, native, romanised.select(["th", "en", "sw"]))
    with pytest.raises(LensNeuronsError, match="other activation probabilities"):
        script_control(neurons, romanised, native)
    with pytest.raises(LensNeuronsError, match="controls=0, draws=200: give 1 and 2 or more"):
        script_control(neurons, native, romanised, controls=0)


def test_texts_in_other_scripts_are_romanised_and_latin_ones_stay():
    pytest.importorskip("uroman", reason="romanising is not tested: pip install -e '.[dev]'")
    from lensneurons.corpora import romanise

    texts = {"de": "Äpfel über", "th": "ไทย", "ru": "Москва", "bn": "", "sw": "ng'ombe"}
    rows = [
        {"id": "1", "language": code, "prompt": text, "response": ANSWERS.get(code, "x")}
        for code, text in texts.items()
    ]
    corpus = build_corpus(rows)
    latin = romanise(corpus)
    found = {item.language: item.prompt for item in latin.items}
    assert found == {"de": "Äpfel über", "th": "thai", "ru": "Moskva", "bn": "", "sw": "ng'ombe"}
    assert {item.response for item in latin.items} == {"x", "Privet", "maa"}
    assert latin.ids == corpus.ids
    assert latin.languages == corpus.languages
    assert latin.fingerprint != corpus.fingerprint
    assert "romanised" in latin.name


def test_without_uroman_it_says_what_to_install(monkeypatch):
    from lensneurons.corpora import romanised

    romanised._romaniser.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "uroman", None)
    with pytest.raises(LensNeuronsError, match=r"pip install 'lensneurons\[romanise\]'"):
        romanised.romanise(build_corpus([{"id": "1", "language": "ru", "response": "да"}]))
