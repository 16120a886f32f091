"""Cross-lingual patching: pairs of a corpus, their tokens, and what each layer carries over."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from scipy.special import softmax
from transformers import AutoModelForCausalLM

from lensneurons.corpora.corpus import build_corpus, load_corpus
from lensneurons.errors import CorpusError, LensNeuronsError
from lensneurons.experiments.carrying import (
    OUTCOMES,
    CarryOver,
    PatchPair,
    answer_pairs,
    carry_over,
    encode_pairs,
)
from lensneurons.interventions.patching import patch
from lensneurons.uncertainty.items import item_bootstrap

TEXTS = {
    "en": ["the cat", "a mat and the mat", "on nine apples", "sat twice before dinner on"],
    "zh": ["小明有三个苹果", "他又买了", "九个然后把其中的一半", "分给了朋友他"],
}
SAID = {"en": ["cat", "mat", "nine", "Dinner"], "zh": ["朋友", "九", "苹果", "一半"]}


def hand_pairs():
    """Four pairs of unequal texts; the last has two outcomes."""
    pairs = []
    for a, b, language in ((0, 1, "zh"), (1, 2, "zh"), (2, 3, "th"), (3, 0, "th")):
        said = (SAID[k][item] for item in (a, b) for k in ("en", "zh"))
        continuations = dict(zip(OUTCOMES, said, strict=True))
        if a == 3:
            del continuations["both"], continuations["language"]
        texts = TEXTS["en"][a], SAID["en"][a], TEXTS["zh"][b]
        pairs.append(PatchPair(*texts, continuations, language, f"{min(a, b)}|{max(a, b)}"))
    return pairs


# Continuations that begin with the same token.
ALIKE = PatchPair("a", "b", "c", {"both": "nine", "neither": "nineQ"}, "en", "0|1")


@pytest.fixture(scope="module")
def result(bridge):
    return carry_over(bridge("Llama"), hand_pairs(), batch_tokens=60, progress=False)


def encoded_pairs():
    return [one for one in encode_pairs(hand_pairs(), tiny.byte_tokenizer(bos=True)) if one]


def log_softmax(logits):
    return torch.log_softmax(logits.double(), -1).numpy()


def test_next_tokens_equal_plain_hugging_face(result, model_folder):
    """Pair by pair, unpadded, with the stream overwritten by a PyTorch hook."""
    reference = AutoModelForCausalLM.from_pretrained(model_folder("Llama")).eval()

    def run(ids):
        with torch.no_grad():
            return reference(torch.tensor([ids]), output_hidden_states=True)

    for number, pair in enumerate(encoded_pairs()):
        source, said = run(pair.source), [run(pair.target).logits[0, -1]]
        # The last of `hidden_states` is behind the final norm, so the last layer is read apart.
        for layer in range(tiny.LAYERS - 1):

            def hook(module, inputs, output, stream=source.hidden_states[layer + 1][0, -1]):
                output = output.clone()
                output[0, -1] = stream
                return output

            handle = reference.model.layers[layer].register_forward_hook(hook)
            said.append(run(pair.target).logits[0, -1])
            handle.remove()
        expected = log_softmax(torch.stack([*said, source.logits[0, -1]]))
        for outcome, ids in pair.continuations.items():
            place = number, result.outcomes.index(outcome)
            found = [result.unpatched[place], *result.log_probability[:, *place]]
            assert found == pytest.approx(expected[:, ids[0]], abs=1e-4)


def test_all_tokens_are_asked_one_after_the_other(bridge):
    model = bridge("Llama")
    result = carry_over(model, hand_pairs(), asked="all", batch_tokens=50, progress=False)
    lengths = []
    for number, pair in enumerate(encoded_pairs()):
        source, end = torch.tensor([pair.source]), len(pair.target) - 1
        for outcome, ids in pair.continuations.items():
            lengths.append(len(ids))
            text = torch.tensor([pair.target + ids])
            with torch.no_grad(), patch(model, source, layer=1, positions=end, source_positions=-1):
                said = log_softmax(model(text, return_type="logits")[0])
            expected = sum(said[end + i, token] for i, token in enumerate(ids))
            found = result.log_probability[1, number, result.outcomes.index(outcome)]
            assert found == pytest.approx(expected, abs=1e-4)
    assert max(lengths) > 2


def test_texts_of_one_length_equal_transformer_lens(bridge):
    """`generic_activation_patch` of TransformerLens, on pairs that fit into its rectangle."""
    from transformer_lens.patching import generic_activation_patch

    model = bridge("Llama")
    texts, said = ("abcXYZ", "bcaZXY", "cabYZX"), {"concept": "1", "neither": "2"}
    pairs = [PatchPair(texts[a], "1", texts[a - 1], said, "en", f"{a}") for a in range(3)]
    encoded = encode_pairs(pairs, tiny.byte_tokenizer(bos=True))
    sources, targets = (torch.tensor([one[i] for one in encoded]) for i in (0, 1))
    _, cache = model.run_with_cache(sources, output_attentions=False)
    metrics = {
        name: lambda logits, token=ids[0]: logits[:, -1].log_softmax(-1)[:, token]
        for name, ids in encoded[0].continuations.items()
    }

    def with_last(stream, index, clean):
        stream = stream.clone()
        stream[:, -1] = clean[:, -1]
        return stream

    theirs = generic_activation_patch(
        model, targets, cache, metrics, with_last, "resid_post", ("layer",), reduce="none",
        baseline=True,
    )  # fmt: skip
    ours = carry_over(model, pairs, progress=False).to_patching_result()
    assert type(ours) is type(theirs)
    for names in ("metric_names", "axis_names"):
        assert getattr(ours, names) == getattr(theirs, names)
    assert ours.index_df["layer"].tolist() == theirs.index_df["layer"].tolist()
    assert ours.values.shape == theirs.values.shape == (2, tiny.LAYERS, 3)
    assert (ours.values - theirs.values).abs().max() < 1e-4
    assert (ours.effect() - theirs.effect()).abs().max() < 2e-4
    assert ours.effect().abs().max() > 0.1
    assert len(ours.to_dataframe()) == len(theirs.to_dataframe())


def test_shares_by_hand():
    """Two pairs in one language, one with two outcomes in another."""
    p = np.array([[[0.1, 0.3, 0.2, 0.2], [0.4, 0.1, 0.1, 0.0], [np.nan, 0.3, np.nan, 0.1]]])
    with np.errstate(divide="ignore"):
        values = np.log(p)
    found = CarryOver(
        values, values[0], OUTCOMES, ("de", "ja"), np.array([0, 0, 1]), ("a|b", "c|d", "a|b")
    )
    assert found.share("both", "concept")[0] == pytest.approx([(0.5 + 5 / 6) / 2, 0.75])
    assert found.share("both", "language")[0, 0] == pytest.approx((0.375 + 5 / 6) / 2)
    assert np.isnan(found.share("both", "language")[0, 1])
    assert found.share(*OUTCOMES)[0] == pytest.approx([1, 1])
    assert found.covered[0] == pytest.approx([0.7, 0.4])
    assert found.unpatched_share("neither")[0] == pytest.approx([0.125, 0.25])
    pooled = found.interval("both", "concept", pooled=True)
    assert pooled.estimate == pytest.approx((0.5 + 5 / 6 + 0.75) / 3)
    with pytest.raises(LensNeuronsError, match=r"no pair of \['ja'\] has an outcome of"):
        found.interval("both", "language")


def test_intervals_draw_pairs_of_items_with_all_their_languages(result):
    shares = softmax(result.log_probability[:, :3], -1)[..., :2].sum(-1)
    both = np.exp(result.log_probability[:, 3])
    last = both[:, OUTCOMES.index("concept")] / np.nansum(both, -1)
    values = np.concatenate([shares, last[:, None]], 1)
    expected = item_bootstrap(result.items, result.language, values, np.ones(4), seed=3)
    found = result.interval("both", "concept", seed=3)
    for end in ("estimate", "low", "high"):
        assert np.allclose(getattr(found, end), getattr(expected, end))
    assert found.estimate.shape == (tiny.LAYERS, 2)
    assert (found.low <= found.estimate).all()


def test_a_result_is_shown_and_tabled(result):
    assert result.provenance.hook == "hook_resid_post"
    table = result.to_pandas()
    assert len(table) == (tiny.LAYERS + 1) * (3 * 4 + 2)
    row = table[(table.layer == 1) & (table.pair == 2) & (table.outcome == "language")].iloc[0]
    assert row.log_probability == result.log_probability[1, 2, 2]
    assert row.share == pytest.approx(softmax(result.log_probability[1, 2])[2])
    assert row.language == "th"
    assert repr(result) == "CarryOver(4 pairs into zh th, 3 layers)"
    assert result._repr_html_().count("<tr>") == tiny.LAYERS + 2


def test_the_source_ends_and_the_target_parts_where_tokens_do():
    """A merge across the seam moves the end back; alike beginnings make no pair."""
    tokenizer = tiny.byte_tokenizer(bos=True)

    def shown(ids):
        return [tokenizer.convert_ids_to_tokens(i) for i in ids]

    assert tokenizer.tokenize("a tw")[-1] == "tw"
    pair = PatchPair("a t", "w", "on t", {"both": "w", "neither": "Q"}, "en", "0|1")
    first, second = encode_pairs([pair, ALIKE], tokenizer)
    assert second is None
    assert shown(first.source) == ["<s>", *tokenizer.tokenize("a tw")[:-1]]
    for outcome, whole in (("both", "on tw"), ("neither", "on tQ")):
        assert first.target + first.continuations[outcome] == tokenizer.encode(whole)
    assert shown(first.continuations["both"]) == ["tw"]


@pytest.fixture(scope="module")
def demo():
    return load_corpus("demo", split="test", limit=12)


@pytest.mark.parametrize(
    ("cut", "ends"),
    [("thing", r"= \d+$"), ("result", r"= $"), ("word", r"is$"), ("number", r"\($")],
)
def test_pairs_of_the_demo_stop_where_they_should(cut, ends, demo):
    pairs = answer_pairs(demo, source="en", languages=["de", "en"], cut=cut)
    assert len(pairs) == 24  # six pairs of items, both directions, two languages
    texts = {item.text: item for item in demo}
    seen = {}
    for pair in pairs:
        assert re.search(ends, pair.source)
        assert any(text.startswith(pair.source + pair.source_next) for text in texts)
        target = next(item for text, item in texts.items() if text.startswith(pair.target))
        assert target.language == pair.language
        assert target.text.startswith(pair.target + pair.continuations["neither"])
        assert target.id in pair.item.split("|")
        seen.setdefault(pair.item, []).append(pair)
    assert all(len(own) == 4 for own in seen.values())
    across = OUTCOMES if cut in ("thing", "word") else ("concept", "neither")
    outcomes = {(pair.language, *pair.continuations) for pair in pairs}
    assert outcomes == {("de", *across), ("en", "concept", "neither")}


def test_answers_in_the_target_language_come_from_the_parallel_item(demo):
    for pair in answer_pairs(demo, source="en", languages=["zh"], cut="word"):
        a = next(i for i in demo.select(["en"]) if pair.source.startswith(i.prompt))
        b = next(i for i in demo.select(["zh"]) if i.prompt in pair.target)
        (same,) = demo.select(["zh"], [a.id])
        assert pair.continuations["concept"] in same.response
        assert pair.continuations["neither"] in b.response


def test_pairs_that_cannot_be_made_are_refused(demo):
    for corpus, options, error, message in (
        (demo, {"cut": "thing"}, CorpusError, r"cut='thing' finds nothing in .* 'sw'"),
        (demo.head(3), {"languages": ["de"]}, CorpusError, "finds something in 3 items in all of"),
        (demo, {"languages": ["tr"]}, CorpusError, "no language 'tr'"),
        (demo, {"cut": "wrod"}, LensNeuronsError, r"cut='wrod' is not known.*'word'"),
    ):
        with pytest.raises(error, match=message):
            inspect.unwrap(answer_pairs)(corpus, **options)
    rows = [
        {"id": str(i), "language": k, "prompt": "?", "response": f"It is {i + n}.5, so {n}{i}.\n"}
        for i in range(4)
        for k, n in (("en", 1), ("fr", 2))
    ]
    (pair, *_) = answer_pairs(build_corpus(rows), languages=["fr"], cut="number")
    assert pair.target.endswith(", so ")
    assert set(pair.continuations) == set(OUTCOMES)


def test_what_cannot_be_patched_is_refused(bridge, monkeypatch):
    model = bridge("Llama")
    monkeypatch.setattr(type(model), "forward", None)
    sound = PatchPair("a", "b", "c", {"both": "X", "neither": "Y"}, "en", "0|1")
    long, one = replace(sound, source="a" * 500), replace(sound, continuations={"both": "X"})
    for pairs, error, message in (
        ([ALIKE], LensNeuronsError, "in all 1 pairs two continuations begin"),
        ([], LensNeuronsError, "no pairs to patch between"),
        ([long], CorpusError, "501 tokens is beyond the model's context of 192"),
        ([one], LensNeuronsError, "needs two texts and at least two"),
        ([replace(sound, source="")], LensNeuronsError, "needs two texts and at least two"),
    ):
        with pytest.raises(error, match=message):
            carry_over(model, pairs, progress=False)


def test_alike_pairs_are_counted(bridge):
    found = carry_over(bridge("Llama"), [*hand_pairs(), ALIKE], progress=False)
    assert found.dropped == {"zh": 0, "th": 0, "en": 1}
    assert found.languages == ("zh", "th")
