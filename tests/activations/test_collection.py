"""Counts equal a plain Hugging Face forward, one text at a time, integer by integer."""

from __future__ import annotations

import itertools
import shutil
from functools import lru_cache
from inspect import unwrap

import numpy as np
import pytest
import tiny
import torch
from oracle import count_by_hand, pre_of
from real_data import real_data
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lensneurons.activations.collection import collect
from lensneurons.activations.reduction import (
    Reduced,
    fetch,
    places_of,
    reduce_batch,
    reduce_there,
)
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import ParallelCorpus, build_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError, ProvenanceError
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site
from lensneurons.tokens.batches import item_groups, make_batch
from lensneurons.tokens.encoding import encode
from lensneurons.tokens.prepared import prepare

CORPUS = tiny.tiny_corpus()
UNFIT = [(1, (2, 9)), (2, (2, 8)), (3, (3, 9))]


def gather(model, corpus=CORPUS, **options):
    return collect(model, corpus, progress=False, **options)


def assert_equal(ours, oracle):
    """Integers exactly; sums within the float32 rounding of single activations."""
    assert oracle.margin > 5e-6, "a pre-activation within rounding of 0 proves nothing"
    assert np.array_equal(ours.tokens, oracle.tokens)
    assert np.array_equal(ours.counts, oracle.counts)
    for name in ("sums", "squares"):
        theirs = getattr(oracle, name)
        np.testing.assert_allclose(
            getattr(ours, name), theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max()
        )


@pytest.fixture(scope="module")
def statistics(llama):
    return gather(llama)


@pytest.fixture(scope="module")
def by_hand(model_folder):
    """``by_hand("Llama", scope="all")``: what a plain forward pass a text counts."""
    return lru_cache(
        lambda architecture, **scope: count_by_hand(
            model_folder(architecture), architecture, CORPUS, **scope
        )
    )


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_counts_equal_hugging_face(architecture, bridge, by_hand):
    assert_equal(gather(bridge(architecture)), by_hand(architecture))


@pytest.mark.parametrize("scope", ["response", "prompt", "all"])
@pytest.mark.parametrize("architecture", ["Llama", "Bloom"])
def test_every_scope_equals_hugging_face(scope, architecture, bridge, by_hand):
    assert_equal(gather(bridge(architecture), scope=scope), by_hand(architecture, scope=scope))


@pytest.mark.parametrize(
    ("architecture", "padding_side", "batch_tokens"),
    [
        *itertools.product(["Mistral", "Phi3", "OPT"], ["right", "left"], [1, 97, 700, 10**6]),
        *itertools.product(tiny.ARCHITECTURES, ["left"], [300]),
    ],
)
def test_counts_do_not_depend_on_batches_or_padding(
    architecture, padding_side, batch_tokens, bridge, by_hand
):
    options = {"batch_tokens": batch_tokens, "padding_side": padding_side}
    assert_equal(gather(bridge(architecture), **options), by_hand(architecture))


def test_counts_do_not_depend_on_the_order_of_the_corpus(llama, statistics):
    items = [CORPUS.items[i] for i in np.random.default_rng(3).permutation(len(CORPUS))]
    items.sort(key=lambda item: ("th", "en", "zh").index(item.language))
    shuffled = ParallelCorpus("shuffled", tuple(items))
    assert shuffled.fingerprint != CORPUS.fingerprint
    ours = gather(llama, shuffled).select(CORPUS.languages)
    assert np.array_equal(ours.grouped_counts, statistics.grouped_counts)
    assert np.array_equal(ours.grouped_tokens, statistics.grouped_tokens)


def test_bos_is_in_front_but_never_counts(llama):
    tokenizer = original_tokenizer(llama)
    lengths = [len(tokenizer(item.text)["input_ids"]) for item in CORPUS]
    assert tokenizer(CORPUS.items[0].text)["input_ids"][0] == tokenizer.bos_token_id
    assert gather(llama, scope="all").tokens.sum() == sum(lengths) - len(CORPUS)


def test_the_statistics_say_where_they_come_from(llama, statistics, model_folder):
    provenance = statistics.provenance
    assert provenance.model == str(model_folder("Llama"))
    assert (provenance.dtype, provenance.attention) == ("float32", "sdpa")
    assert (provenance.hook, provenance.activation) == ("hook_pre", "SiLUActivation")
    assert (provenance.scope, provenance.corpora) == ("response", (CORPUS.fingerprint,))
    assert provenance.versions["torch"] == torch.__version__


# Groups


def test_each_group_is_a_collection_over_its_own_items(llama):
    whole = gather(llama, groups=3)
    assert np.array_equal(whole.grouped_counts.sum(0), gather(llama, groups=1).counts)
    names = np.array(CORPUS.ids)
    group = item_groups(CORPUS.ids, 3)
    assert len(set(group)) == 3
    for number in range(3):
        alone = gather(llama, CORPUS.select(ids=list(names[group == number])))
        assert np.array_equal(alone.counts, whole.grouped_counts[number])
        assert np.array_equal(alone.tokens, whole.grouped_tokens[number])


# Shards


@pytest.mark.parametrize(
    "selections",
    [
        [{"ids": CORPUS.ids[i::3]} for i in range(3)],
        [{"languages": [language]} for language in ("th", "en", "zh")],
    ],
)
def test_merged_shards_are_the_whole(selections, llama, statistics):
    one, two, three = (gather(llama, CORPUS.select(**selection)) for selection in selections)
    for merged in (one.merge(two).merge(three), three.merge(one.merge(two))):
        assert len(merged.provenance.corpora) == 3
        ours = merged.select(statistics.languages)
        assert np.array_equal(ours.grouped_counts, statistics.grouped_counts)
        assert np.array_equal(ours.grouped_tokens, statistics.grouped_tokens)
        np.testing.assert_allclose(ours.sums, statistics.sums, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(ours.squares, statistics.squares, rtol=1e-5, atol=1e-4)


def test_a_real_difference_is_noticed(llama, model_folder):
    half = load_model(model_folder("Llama"), dtype="bfloat16", device="cpu")
    ours, theirs = CORPUS.select(ids=CORPUS.ids[:1]), CORPUS.select(ids=CORPUS.ids[1:2])
    with pytest.raises(ProvenanceError, match=r"weights: .*; dtype: 'float32' and 'bfloat16'"):
        gather(llama, ours).merge(gather(half, theirs))


# Caches


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_a_users_cache_gives_what_collect_gives(architecture, bridge):
    model = bridge(architecture)
    encoded = encode(CORPUS, original_tokenizer(model), scope="response")
    add = ActivationStatistics.from_cache
    for k, language in enumerate(CORPUS.languages):
        rows = np.flatnonzero(encoded.language == k)
        for chosen in (rows[:5], rows[5:]):
            batch = make_batch(encoded, chosen)
            told = {"languages": [language] * len(chosen), "counted": batch.counted}
            total = add(cached(model, batch.tokens), model, **told)
            add = total.update
    whole = gather(model)
    assert total.languages == whole.languages
    assert np.array_equal(total.counts, whole.counts)
    assert np.array_equal(total.tokens, whole.tokens)
    np.testing.assert_allclose(total.sums, whole.sums, rtol=1e-5, atol=1e-4)


def cached(model, ids):
    with torch.no_grad():
        return model.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_pre"))[1]


def test_one_batch_of_several_languages(llama):
    ids = torch.randint(3, 300, (4, 9))
    counted = torch.zeros(4, 9, dtype=torch.bool)
    counted[0, 2:5] = counted[1, :] = counted[2, 3:] = counted[3, 8:] = True
    cache = cached(llama, ids)
    told = {"languages": ["zh", "en", "zh", "en"], "counted": counted}
    statistics = ActivationStatistics.from_cache(cache, llama, **told)
    assert statistics.languages == ("zh", "en")
    assert statistics.tokens.tolist() == [9, 10]
    pre = cache["blocks.2.mlp.hook_pre"]
    wanted = (pre[0, 2:5] > 0).sum(0) + (pre[2, 3:] > 0).sum(0)
    assert np.array_equal(statistics.counts[2, :, 0], wanted.numpy())


@pytest.mark.parametrize(
    ("rows", "shape", "message"),
    [
        *((n, s, r"do not fit the cached batch \[2, 9\]: give one") for n, s in UNFIT),
        (0, (2, 9), r"lacks blocks\.0\.mlp\.hook_pre and 2 more: run model\.run_with_cache"),
    ],
)
def test_a_cache_or_mask_that_does_not_fit_is_refused(rows, shape, message, llama):
    cache = cached(llama, torch.randint(3, 300, (2, 9))) if rows else {}
    counted = torch.ones(shape, dtype=torch.bool)
    with pytest.raises(LensNeuronsError, match=message):
        ActivationStatistics.from_cache(cache, llama, languages=["en"] * rows, counted=counted)


# Reduction


def reduce_on_device(pre, counted, activation):
    """What a GPU would do, on the CPU."""
    places = places_of(counted, np.arange(len(counted)))
    return Reduced(*fetch(reduce_there(pre, places, activation)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_device_path_equals_the_cpu_path(dtype, llama):
    activation = neuron_site(llama).activations[0]
    source = torch.Generator().manual_seed(0)
    pre = torch.randn(5, 203, 17, generator=source).to(dtype)
    pre[0, 3, :5] = torch.tensor([0.0, -0.0, 1e-7, -1e-7, 0.0], dtype=dtype)  # zero is not active
    counted = torch.rand(5, 203, generator=source) < 0.6
    counted[1], counted[2], counted[0, 3] = False, True, True
    cpu = reduce_batch(pre, counted, activation)
    wide = pre.float() if dtype in (torch.float16, torch.bfloat16) else pre
    values = activation(wide).double() * counted[..., None]
    wanted = ((pre > 0) & counted[..., None]).sum(1).numpy()
    for reduced in (cpu, reduce_on_device(wide, counted, activation)):
        assert reduced.counts.dtype == np.int64
        assert np.array_equal(reduced.counts, wanted)
        np.testing.assert_allclose(reduced.sums, values.sum((0, 1)).numpy(), rtol=1e-6)
        np.testing.assert_allclose(reduced.squares, values.square().sum((0, 1)).numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "total"),
    [
        # in bfloat16 256 + 1 is 256, and a quarter would be lost at 128 already
        (torch.tensor([0.25] + [1.0] * 4096, dtype=torch.bfloat16), 4096.25),
        # adding 1 to 2^24 does nothing in float32; the sums of a long text must go on
        (torch.tensor([2.0**24] + [0.0] * 198 + [1.0]), 2.0**24 + 1),
    ],
)
def test_sums_lose_nothing(values, total):
    counted = torch.ones(1, len(values), dtype=torch.bool)
    for reduce, pre in ((reduce_batch, values), (reduce_on_device, values.float())):
        reduced = reduce(pre[None, :, None], counted, torch.nn.ReLU())
        assert reduced.sums.tolist() == [total]
        assert reduced.counts.tolist() == [[int((values > 0).sum())]]


def test_a_batch_too_large_to_count_exactly_is_refused(monkeypatch):
    monkeypatch.setattr("lensneurons.activations.reduction.EXACT_FLOAT32", 10)
    counted = torch.ones(2, 5, dtype=torch.bool)
    with pytest.raises(
        LensNeuronsError, match="a batch of 10 tokens is too large: lower batch_tok"
    ):
        reduce_on_device(torch.ones(2, 5, 3), counted, torch.nn.ReLU())


# A trained model


@lru_cache
def words_tokenizer():
    """One token a word, ``<s>`` in front; ids 93 to 511 are real pieces of stories260K."""
    ids = {"<unk>": 0, "<s>": 1} | {f"w{n}": n for n in range(93, 512)}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")


def sentences(count):
    """Random words, of very different number."""
    source = np.random.default_rng(5)

    def text():
        return " ".join(f"w{n}" for n in source.integers(93, 512, int(source.integers(2, 50))))

    keys = itertools.product(("en", "fr"), range(count))
    return [one(language, text() + " ", text(), str(n)) for language, n in keys]


def one(language="en", prompt="a\n", response="x", id="1"):
    return {"id": id, "language": language, "prompt": prompt, "response": response}


def test_a_trained_model_equals_hugging_face_and_float64_explains_every_difference(tmp_path):
    """stories260K, 5 layers: where a sign differs, the exact pre-activation is within rounding."""
    shutil.copytree(real_data("stories260K"), tmp_path, dirs_exist_ok=True)
    tokenizer = words_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    corpus = build_corpus(sentences(12), name="random words")
    model = load_model(tmp_path, device="cpu")
    ours = gather(model, corpus, tokenizer=tokenizer)
    exact = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    counts, slack = np.zeros_like(ours.counts), np.zeros_like(ours.counts)
    for item in corpus:
        ids = tokenizer(item.text)["input_ids"]
        where = range(1 + len(item.prompt.split()), len(ids))
        near, far = (pre_of(m, "Llama", ids)[:, list(where)] for m in (plain, exact))
        wrong = (near > 0) != (far > 0)
        assert (far[wrong].abs() < 1e-4).all()
        k = ours.languages.index(item.language)
        counts[:, :, k] += (far > 0).sum(1).numpy()
        slack[:, :, k] += (far.abs() < 1e-4).sum(1).numpy()
    assert (np.abs(ours.counts - counts) <= slack).all()
    assert slack.sum() < 1e-3 * counts.sum()
    double = load_model(tmp_path, dtype="float64", device="cpu")
    assert np.array_equal(gather(double, corpus, tokenizer=tokenizer).counts, counts)


# Refused before any forward pass


@pytest.fixture
def no_forward(model_folder, monkeypatch):
    """A model that fails the test where anything of it runs."""
    model = load_model(model_folder("Llama"), device="cpu")

    def ran(self, *args, **kwargs):
        raise AssertionError("a forward pass ran")

    monkeypatch.setattr(torch.nn.Embedding, "forward", ran)
    return model


def test_the_guard_of_these_tests_guards(no_forward):
    with pytest.raises(AssertionError, match="a forward pass ran"):
        gather(no_forward)


LONG = [one(response="xyz " * 60)]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (LONG, {}, f"exceed max_length={tiny.POSITIONS}: '1'"),
        (LONG, {"max_length": 20}, "exceed max_length=20: '1'"),
        (
            [one(), one("fr", "a long question " * 3)],
            {"max_length": 8, "overlong": "cut"},
            r"no counted token of \['fr'\] is left",
        ),
        (
            [one(prompt="")],
            {"scope": "prompt"},
            "no token counts in scope 'prompt' for 1 of 1 texts",
        ),
        (
            [one(prompt="w400", response=" w411")],
            {"tokenizer": words_tokenizer()},
            r"gives id 411, but the model's vocabulary has 350: pass",
        ),
    ],
)
def test_texts_that_cannot_be_counted_are_refused(rows, options, message, no_forward):
    with pytest.raises(CorpusError, match=message):
        gather(no_forward, build_corpus(rows), **options)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"groups": 0}, "groups=0: at least 1 group"),
        ({"groups": -2}, "groups=-2: at least 1 group"),
        ({"batch_tokens": 0}, "batch_tokens=0"),
        ({"padding_side": "top"}, r"padding_side='top' is not known; choose one of \['right'"),
        ({"scope": "answer"}, r"scope='answer' is not known; choose one of \['response'"),
        ({"overlong": "drop"}, "overlong='drop' is not known"),
        ({"max_length": 0}, "max_length=0"),
        ({"max_length": 10**6}, "max_length=1000000 is beyond the model's context of"),
    ],
)
def test_options_are_checked_at_the_door(option, message, no_forward, monkeypatch):
    monkeypatch.setattr("lensneurons.activations.collection.prepare", unwrap(prepare))
    monkeypatch.setattr("lensneurons.tokens.prepared.encode", unwrap(encode))
    with pytest.raises(LensNeuronsError, match=message):
        unwrap(collect)(no_forward, CORPUS, progress=False, **option)


def test_a_cut_corpus_counts_what_is_left(llama, statistics, capsys):
    cut = collect(llama, CORPUS, max_length=60, overlong="cut", progress=True)
    assert "collect: 100%" in capsys.readouterr().err
    assert 0 < cut.tokens[1] < statistics.tokens[1]
    assert cut.provenance.scope == "response, cut at 60 tokens"


def test_a_hugging_face_model_is_refused():
    with pytest.raises(ModelError, match=r"LlamaForCausalLM is not a TransformerLens model"):
        gather(tiny.random_model("Llama"))


def test_hooks_that_hide_a_layer_are_noticed_while_counting(model_folder):
    model = load_model(model_folder("Llama"), device="cpu")
    model.add_hook("blocks.0.mlp.hook_post", lambda tensor, hook: tensor)
    model.blocks[1].mlp.original_component.forward = torch.zeros_like
    with pytest.raises(LensNeuronsError, match=r"layers \[0, 1, 2\] passed as \[0, 2\]"):
        gather(model)
