"""The logit lens: Hugging Face with the norm written out, planted tokens, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap
from itertools import pairwise
from pathlib import Path

import numpy as np
import planted
import pytest
import tiny
import torch
from lens_oracle import by_hand
from transformers import AutoModelForCausalLM

from lensneurons.corpora.corpus import load_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError
from lensneurons.experiments import lens
from lensneurons.experiments.lens import KINDS, LensCurves, logit_lens, read_next, token_kinds
from lensneurons.interventions.editing import ablate
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.encoding import encode
from lensneurons.tokens.prepared import prepare
from lensneurons.uncertainty.items import expanded_tail

CORPUS = tiny.tiny_corpus()
OPTIONS = {"least": 1, "share": 0.8}


def oracle(folder: Path, architecture: str, model, norms: int = 1):
    """The encoded corpus, mass [layer, text, kind] and truth [layer, text], text by text."""
    encoded = prepare(model, CORPUS).encoded
    backend = original_tokenizer(model).backend_tokenizer
    kinds = token_kinds(encoded, backend, int(model.cfg.d_vocab), **OPTIONS)
    n = len(encoded.languages) + 2
    mass = np.zeros((tiny.LAYERS, len(encoded), n))
    true = np.zeros((tiny.LAYERS, len(encoded)))
    for text in range(len(encoded)):
        ids = encoded.ids[encoded.offsets[text] : encoded.offsets[text + 1]].astype(np.int64)
        said = by_hand(folder, architecture, torch.from_numpy(ids), norms)
        for place in range(max(1, encoded.start[text]), encoded.stop[text]):
            before = said[:, place - 1]
            true[:, text] += before[:, ids[place]]
            for kind in range(n):
                mass[:, text, kind] += before[:, kinds == kind].sum(axis=1)
    return encoded, mass, true


@pytest.fixture(scope="module")
def plain(llama):
    return logit_lens(llama, CORPUS, **OPTIONS)


@pytest.mark.parametrize("architecture", ["Llama", "Gemma2", "GPT2", "Qwen2"])
def test_every_layer_equals_hugging_face_by_hand(architecture, bridge, model_folder):
    model = bridge(architecture)
    found = logit_lens(model, CORPUS, batch_tokens=300, **OPTIONS)
    encoded, mass, true = oracle(model_folder(architecture), architecture, model)
    np.testing.assert_allclose(found.mass, mass, atol=2e-5 * found.tokens.max())
    np.testing.assert_allclose(found.true, true, atol=2e-5)
    predicted = encoded.stop - np.maximum(encoded.start, 1)
    assert found.tokens.tolist() == predicted.tolist()
    assert found.mass.sum(-1) == pytest.approx(np.tile(predicted, (tiny.LAYERS, 1)), rel=1e-5)
    assert np.unique(mass.round(3)).size > 50


def test_a_norm_applied_twice_is_another_result(llama, plain, model_folder, monkeypatch):
    """Sabotage: the oracle tells once from twice, and so does the probe before every run."""
    *_, true = oracle(model_folder("Llama"), "Llama", llama, norms=2)
    assert np.abs(plain.true - true).max() > 0.05
    monkeypatch.setattr(lens, "read_next", lambda m, v: read_next(m, m.ln_final(v[None])[0]))
    with pytest.raises(ModelError, match="in the last layer the lens differs from the model by"):
        logit_lens(llama, CORPUS, **OPTIONS)
    monkeypatch.setattr(lens, "require_readable", lambda model: None)
    sabotaged = logit_lens(llama, CORPUS, **OPTIONS)
    np.testing.assert_allclose(sabotaged.true, true, atol=1e-4)


@pytest.mark.parametrize("architecture", list(tiny.ARCHITECTURES))
def test_the_last_layer_is_the_model(architecture, bridge):
    model = bridge(architecture)
    tokens = torch.tensor([[5, 17, 300, 42, 8, 8, 211]])
    last = []
    name = f"blocks.{tiny.LAYERS - 1}.hook_resid_post"
    with torch.inference_mode(), model.hooks(fwd_hooks=[(name, lambda t, hook: last.append(t[0]))]):
        theirs = model(tokens, return_type="logits")[0].softmax(-1)
    ours = read_next(model, last[0])
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)
    lens.require_readable(model)


def test_batches_and_padding_change_nothing_and_memory_is_bounded(bridge, monkeypatch):
    """No more positions are read at once than fit, and no more than one layer of them."""
    model, sizes = bridge("Mistral"), []
    whole = logit_lens(model, CORPUS, batch_tokens=100_000, **OPTIONS)
    single = logit_lens(model, CORPUS, batch_tokens=1, **OPTIONS)
    monkeypatch.setattr(lens, "LOGITS", 8 * tiny.VOCABULARY * 3)
    monkeypatch.setattr(lens, "read_next", lambda m, v: sizes.append(len(v)) or read_next(m, v))
    parts = logit_lens(model, CORPUS, batch_tokens=500, **OPTIONS)
    assert max(sizes[1:]) == 3  # the first is the probe
    for other in (single, parts):
        np.testing.assert_allclose(other.mass, whole.mass, atol=3e-5)
        np.testing.assert_allclose(other.true, whole.true, atol=3e-5)
        assert np.array_equal(other.tokens, whole.tokens)


def test_hooks_of_others_act_stay_and_are_left_alone(llama, plain):
    size = {"n_layers": tiny.LAYERS, "d_mlp": tiny.D_MLP}
    with ablate(llama, NeuronSet.from_names(["L1N3", "L1N4", "L1N5"], **size)):
        changed = logit_lens(llama, CORPUS, **OPTIONS)
    np.testing.assert_allclose(changed.mass[0], plain.mass[0], atol=1e-6)
    assert np.abs(changed.mass[1] - plain.mass[1]).max() > 1e-3
    assert (plain.provenance.interventions, changed.provenance.interventions) == ("none", "hooks")
    assert np.array_equal(logit_lens(llama, CORPUS, **OPTIONS).mass, plain.mass)
    with (
        llama.hooks(fwd_hooks=[("unembed.hook_out", lambda t, hook: t * 3)]),
        pytest.raises(ModelError, match="a hook of yours there"),
    ):
        logit_lens(llama, CORPUS, **OPTIONS)


# A planted model: every token is of one language, and every layer says "the same again"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    model = load_model(planted.save_model(tmp_path_factory.mktemp("planted")), device="cpu")
    return logit_lens(model, load_corpus(planted.texts()), least=1)


def test_planted_mass_is_counted(found):
    # RMSNorm makes a unit vector `stretch` long; the unembedding is the identity.
    top = np.exp(planted.stretch())
    total = top + len(planted.VOCABULARY) - 1
    same, other = top / total, 1 / total  # the token that was just read, and every other
    assert found.owners == planted.LANGUAGES
    assert found.vocabulary.tolist() == [10, 10, 10, 10, 0, 2]
    own = same + 9 * other
    means = found.means
    for place, language in enumerate(planted.LANGUAGES):
        repeats = []
        for prompt, response in planted.texts()[language]:
            words = [prompt.split()[-1], *response.split()]
            repeats += [before == word for before, word in pairwise(words)]
        true = np.where(repeats, same, other).mean()
        pivot = 10 * other if language != "en" else np.nan
        others = (20 if language != "en" else 30) * other
        expected = [own, pivot, others, 0, 2 * other, true]
        for layer in range(len(planted.PROFILE)):
            assert means[layer, place] == pytest.approx(expected, abs=2e-6, nan_ok=True)
    assert found.mass_on("sw")[0] == pytest.approx(
        [10 * other] * 2 + [own] + [10 * other], abs=2e-6
    )
    lead = found.pivot_lead().estimate[3]
    assert lead == pytest.approx([np.nan, 0, 0, 0], abs=1e-6, nan_ok=True)


def test_intervals_are_those_of_the_means(found):
    for place, kind in enumerate(KINDS):
        ends = found.interval(kind, draws=200)
        np.testing.assert_allclose(ends.estimate, found.means[..., place])
        known = ~np.isnan(ends.estimate)
        assert np.array_equal(known, ~np.isnan(ends.low))
        assert (ends.low[known] <= ends.estimate[known] + 1e-9).all()
        assert (ends.estimate[known] <= ends.high[known] + 1e-9).all()
        pooled = found.interval(kind, pooled=True, draws=200)
        np.testing.assert_allclose(pooled.estimate, ends.estimate[:, 1:].mean(axis=1))
    # By hand: ratios of sums over drawn items, with the widened percentiles; pooled, the mean over
    # the languages but the pivot in every drawn corpus.
    items = list(dict.fromkeys(found.item_ids))
    times = np.random.default_rng(0).multinomial(len(items), [1 / len(items)] * len(items), 1000)
    drawn = []
    for place in range(len(found.languages)):
        at = np.flatnonzero(found.language == place)
        weights = times[:, [items.index(found.item_ids[text]) for text in at]]
        drawn.append((weights @ found.true[4][at]) / (weights @ found.tokens[at]))
    tail = expanded_tail(len(items), 0.95)
    one, pooled = found.interval("true"), found.interval("true", pooled=True)
    for low, high, values in (
        (one.low[4, 2], one.high[4, 2], drawn[2]),
        (pooled.low[4], pooled.high[4], np.mean(drawn[1:], axis=0)),
    ):
        assert (low, high) == pytest.approx(np.quantile(values, [tail, 1 - tail]))
        assert high - low > 0.01
    gap = found.difference("own", "pivot", draws=50)
    np.testing.assert_allclose(gap.estimate, found.means[..., 0] - found.means[..., 1], atol=1e-12)


# Which tokens belong to a language


def texts(**by_language: list[str]):
    return load_corpus({k: [("?", one) for one in own] for k, own in by_language.items()})


def kinds_of(corpus, **options) -> dict[str, str]:
    """Kind of every token of a tokenizer of words."""
    words = ["[UNK]", "[PAD]", "?", "one", "uno", "drei", "no", "die", "7", ".", "ไ", "never"]
    tokenizer = planted.tokenizer(words)
    encoded = encode(corpus, tokenizer)
    found = token_kinds(encoded, tokenizer.backend_tokenizer, len(words) + 3, **options)
    names = [*encoded.languages, "shared", "rare"]
    assert [names[kind] for kind in found[len(words) :]] == ["rare"] * 3  # padding
    return {word: names[kind] for word, kind in zip(words, found, strict=False)}


def test_tokens_belong_to_the_language_that_uses_them():
    corpus = texts(
        en=["one one no die 7", "one no no ."],
        es=["uno uno no no 7", "uno uno no ."],
        de=["drei die die die 7 die die", "drei die die die die . ไ"],
    )
    found = kinds_of(corpus, share=0.8, least=2)
    assert found == {
        "[UNK]": "rare", "[PAD]": "rare", "?": "rare", "one": "en", "uno": "es", "drei": "de",
        "no": "shared", "die": "de", "7": "shared", ".": "shared", "ไ": "rare", "never": "rare",
    }  # fmt: skip
    strict = kinds_of(corpus, share=0.9, least=1)
    # "die": 1 of 9 English tokens, 9 of 14 German ones: 85 % of its relative use.
    assert (strict["die"], strict["ไ"], strict["7"]) == ("shared", "de", "shared")


def test_languages_with_more_tokens_do_not_own_more():
    """Relative frequencies count: 20 uses among 400 are no more than one among 20."""
    corpus = texts(en=["one no " + "one " * 18], es=["uno no " * 20 + "uno " * 360])
    assert kinds_of(corpus, share=0.9, least=2)["no"] == "shared"


@pytest.mark.parametrize(
    ("text", "letter"),
    [("the", True), (" 的", True), ("ี", True), ("<E0 B8>", True), ("<0x80>", True),
     ("<99>", True), ("7", False), ("、", False), (" ", False), ("๙", False), ("\n\n", False),
     ("+", False), ("x2", True)],
)  # fmt: skip
def test_letters(text, letter):
    assert lens._has_letter(text) == letter


def test_another_reference_tells_the_tokens(llama):
    corpus = tiny.tiny_corpus(("zh", "th"))
    wide = logit_lens(llama, corpus, reference=CORPUS, **OPTIONS)
    own = logit_lens(llama, corpus, pivot="th", **OPTIONS)
    assert (wide.owners, wide.languages, wide.pivot) == (("en", "zh", "th"), ("zh", "th"), "en")
    assert wide.mass.shape[-1] == 5
    assert np.isfinite(wide.means).all()
    assert np.array_equal(wide.true, own.true)
    assert wide.vocabulary.sum() == tiny.VOCABULARY
    assert np.isnan(own.means[:, 1, 1]).all()
    assert len(wide.provenance.corpora) == 2
    assert wide.provenance.hook == "hook_resid_post"
    missing = logit_lens(llama, corpus, **OPTIONS)  # no English anywhere: no pivot
    assert missing.pivot is None
    assert "pivot" not in missing.kinds
    assert np.isnan(missing.means[..., 1]).all()


# The value


def small() -> LensCurves:
    random = np.random.default_rng(3)
    tokens = random.integers(3, 30, 8)
    mass = random.dirichlet(np.ones(5), (4, 8)) * tokens[:, None]
    return LensCurves(
        mass, mass[..., 0] / 2, tokens, np.repeat([0, 1], 4), ("a", "b", "c", "d") * 2,
        ("zh", "en"), ("en", "zh", "de"), np.array([5, 6, 7, 8, 9]),
    )  # fmt: skip


def test_the_value_shows_itself():
    curves = small()
    table = curves.to_pandas()
    assert list(table) == ["layer", "language", "kind", "probability", "low", "high"]
    assert len(table) == 4 * 2 * 6
    row = table[(table.layer == 2) & (table.language == "zh") & (table.kind == "others")].iloc[0]
    at = curves.language == 0
    assert row.probability == pytest.approx(curves.mass[2, at, 2].sum() / curves.tokens[at].sum())
    assert row.low < row.probability < row.high
    unknown = table[(table.language == "en") & (table.kind == "pivot")]
    assert unknown[["probability", "low", "high"]].isna().all(axis=None)
    assert repr(curves).startswith("LensCurves(4 layers; zh en; ")
    html = curves._repr_html_()
    assert html.count("<tr>") == 5
    assert f"{curves.means[1, 0, 0]:.3f}" in html


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda c: unwrap(LensCurves.interval)(c, "englsh"), "kind='englsh' is not known"),
        (lambda c: c.mass_on("fr"), r"language='fr' is not known; choose one of \['en', 'zh'"),
        (lambda c: c.interval("own", level=1.5), "give a coverage between 0 and 1"),
        (lambda c: c.interval("own", draws=0), "draws=0: give 1 or more"),
        (
            lambda c: replace(
                c, owners=("en", "zh"), mass=c.mass[..., 1:], vocabulary=c.vocabulary[1:]
            ).pivot_lead(),
            "needs three; give reference= more languages",
        ),
    ],
)
def test_the_value_refuses(ask, message):
    with pytest.raises(LensNeuronsError, match=message):
        ask(small())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"share": 0.5}, LensNeuronsError, "share=0.5: a token belongs to one language alone only"),
        ({"share": 1.1}, LensNeuronsError, "give up to 1"),
        ({"least": 0}, LensNeuronsError, "least=0: tokens that are used never"),
        ({"pivot": "englisch"}, LensNeuronsError, "pivot='englisch' is not known; choose one of"),
        ({"batch_tokens": 0}, LensNeuronsError, "batch_tokens=0 holds nothing"),
        ({"reference": tiny.tiny_corpus(("en",))}, CorpusError, r"no texts in \['zh', 'th'\]"),
    ],
)
def test_bad_input_is_refused_before_any_pass(options, error, message, llama, monkeypatch):
    monkeypatch.setattr(type(llama), "forward", None)
    with pytest.raises(error, match=message):
        logit_lens(llama, CORPUS, **options)


def test_other_models_are_refused(model_folder):
    hf = AutoModelForCausalLM.from_pretrained(model_folder("Llama"))
    with pytest.raises(ModelError, match="not a TransformerLens model"):
        logit_lens(hf, CORPUS)
