"""Counts equal a plain Hugging Face forward, one text at a time, integer by integer."""

from __future__ import annotations

from dataclasses import replace
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
from lensneurons.activations.reduction import reduce_batch, reduce_on_device
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
BITWISE = ("grouped_counts", "grouped_tokens", "sums", "squares")


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
def llama(bridge):
    return bridge("Llama")


@pytest.fixture(scope="module")
def statistics(llama):
    return gather(llama)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_counts_equal_hugging_face(architecture, bridge, model_folder):
    oracle = count_by_hand(model_folder(architecture), architecture, CORPUS)
    model = bridge(architecture)
    assert_equal(gather(model), oracle)
    assert_equal(gather(model, batch_tokens=300, padding_side="left"), oracle)


@pytest.mark.parametrize("scope", ["response", "prompt", "all"])
@pytest.mark.parametrize("architecture", ["Llama", "Bloom"])
def test_every_scope_equals_hugging_face(scope, architecture, bridge, model_folder):
    oracle = count_by_hand(model_folder(architecture), architecture, CORPUS, scope=scope)
    assert_equal(gather(bridge(architecture), scope=scope), oracle)


@pytest.mark.parametrize("architecture", ["Mistral", "Phi3", "OPT"])
@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("batch_tokens", [1, 97, 700, 10**6])
def test_counts_do_not_depend_on_batches_or_padding(
    architecture, padding_side, batch_tokens, bridge, model_folder
):
    oracle = count_by_hand(model_folder(architecture), architecture, CORPUS)
    options = {"batch_tokens": batch_tokens, "padding_side": padding_side}
    assert_equal(gather(bridge(architecture), **options), oracle)


def test_counts_do_not_depend_on_the_order_of_the_corpus(llama, statistics):
    order = np.random.default_rng(3).permutation(len(CORPUS))
    shuffled = ParallelCorpus("shuffled", tuple(CORPUS.items[place] for place in order))
    by_language = build_corpus(
        [
            vars_of(item)
            for language in ("th", "en", "zh")
            for item in shuffled
            if item.language == language
        ]
    )
    assert by_language.fingerprint != CORPUS.fingerprint
    ours = gather(llama, by_language).select(CORPUS.languages)
    assert np.array_equal(ours.grouped_counts, statistics.grouped_counts)
    assert np.array_equal(ours.grouped_tokens, statistics.grouped_tokens)


def vars_of(item):
    return {name: getattr(item, name) for name in ("id", "language", "prompt", "response")}


def test_scopes_add_up(llama):
    prompt, response, everything = (gather(llama, scope=s) for s in ("prompt", "response", "all"))
    assert np.array_equal(
        prompt.grouped_counts + response.grouped_counts, everything.grouped_counts
    )
    assert np.array_equal(prompt.tokens + response.tokens, everything.tokens)


def test_bos_is_in_front_but_never_counts(llama):
    tokenizer = original_tokenizer(llama)
    lengths = [len(tokenizer(item.text)["input_ids"]) for item in CORPUS]
    assert tokenizer(CORPUS.items[0].text)["input_ids"][0] == tokenizer.bos_token_id
    assert gather(llama, scope="all").tokens.sum() == sum(lengths) - len(CORPUS)


def test_the_same_call_gives_the_same_bits(llama, statistics):
    again = gather(llama)
    for name in BITWISE:
        assert np.array_equal(getattr(again, name), getattr(statistics, name)), name
    assert again.provenance == statistics.provenance


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
    for number in range(3):
        if not (group == number).any():
            assert whole.grouped_tokens[number].sum() == 0
            continue
        alone = gather(llama, CORPUS.select(ids=list(names[group == number])))
        assert np.array_equal(alone.counts, whole.grouped_counts[number])
        assert np.array_equal(alone.tokens, whole.grouped_tokens[number])


def test_the_items_are_spread_over_the_groups():
    assert len(set(item_groups(CORPUS.ids, 3))) == 3


def test_weights_of_one_give_the_total_and_twos_the_double(statistics):
    ones = np.ones(statistics.n_groups, np.int64)
    assert np.array_equal(statistics.resample(ones).counts, statistics.counts)
    assert np.array_equal(statistics.resample(2 * ones).counts, 2 * statistics.counts)
    assert np.array_equal(statistics.resample(2 * ones).tokens, 2 * statistics.tokens)


# Shards


@pytest.fixture(scope="module")
def shards(llama):
    corpus = [CORPUS.select(ids=CORPUS.ids[i::3]) for i in range(3)]
    return [gather(llama, part) for part in corpus]


def test_merged_shards_are_the_whole(shards, statistics):
    one, two, three = shards
    for merged in (one.merge(two).merge(three), three.merge(one.merge(two))):
        assert np.array_equal(merged.grouped_counts, statistics.grouped_counts)
        assert np.array_equal(merged.grouped_tokens, statistics.grouped_tokens)
        np.testing.assert_allclose(merged.sums, statistics.sums, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(merged.squares, statistics.squares, rtol=1e-5, atol=1e-4)
        assert len(merged.provenance.corpora) == 3


def test_shards_of_different_languages_merge_by_name(llama, statistics):
    parts = [gather(llama, CORPUS.select(languages=[k])) for k in ("th", "en", "zh")]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.languages == ("th", "en", "zh")
    again = merged.select(statistics.languages)
    assert np.array_equal(again.grouped_counts, statistics.grouped_counts)
    assert np.array_equal(again.sums, statistics.sums)


def test_the_same_corpus_is_never_counted_twice(shards):
    with pytest.raises(ProvenanceError, match="both statistics counted the corpus"):
        shards[0].merge(shards[1]).merge(shards[0])


@pytest.mark.parametrize(
    "name", ["config", "weights", "dtype", "attention", "tokenizer", "hook", "activation", "scope"]
)
def test_merging_names_what_differs(name, shards):
    other = replace(shards[1], provenance=replace(shards[1].provenance, **{name: "another"}))
    with pytest.raises(ProvenanceError, match=rf"\({name}: .* and 'another'\)"):
        shards[0].merge(other)


def test_a_real_difference_is_noticed(llama, model_folder, shards):
    half = load_model(model_folder("Llama"), dtype="bfloat16", device="cpu")
    other = gather(half, CORPUS.select(ids=CORPUS.ids[1::3]))
    with pytest.raises(ProvenanceError, match=r"weights: .*; dtype: 'float32' and 'bfloat16'"):
        shards[0].merge(other)


# Caches


@pytest.mark.parametrize("architecture", ["Llama", "GPT2"])
def test_a_users_cache_gives_what_collect_gives(architecture, bridge):
    model = bridge(architecture)
    tokenizer = original_tokenizer(model)
    encoded = encode(CORPUS, tokenizer, scope="response")
    total = None
    for k, language in enumerate(CORPUS.languages):
        rows = np.flatnonzero(encoded.language == k)
        for chosen in (rows[:5], rows[5:]):
            batch = make_batch(encoded, chosen)
            with torch.no_grad():
                _, cache = model.run_with_cache(
                    batch.tokens, names_filter=lambda name: name.endswith("mlp.hook_pre")
                )
            told = {"languages": [language] * len(chosen), "counted": batch.counted}
            total = (
                ActivationStatistics.from_cache(cache, model, **told)
                if total is None
                else total.update(cache, model, **told)
            )
    whole = gather(model)
    assert total.languages == whole.languages
    assert np.array_equal(total.counts, whole.counts)
    assert np.array_equal(total.tokens, whole.tokens)
    np.testing.assert_allclose(total.sums, whole.sums, rtol=1e-5, atol=1e-4)


def test_one_batch_of_several_languages(llama):
    ids = torch.randint(3, 300, (4, 9))
    counted = torch.zeros(4, 9, dtype=torch.bool)
    counted[0, 2:5] = counted[1, :] = counted[2, 3:] = counted[3, 8:] = True
    with torch.no_grad():
        _, cache = llama.run_with_cache(ids)
    told = {"languages": ["zh", "en", "zh", "en"], "counted": counted}
    statistics = ActivationStatistics.from_cache(cache, llama, **told)
    assert statistics.languages == ("zh", "en")
    assert statistics.tokens.tolist() == [9, 10]
    pre = cache["blocks.2.mlp.hook_pre"]
    wanted = (pre[0, 2:5] > 0).sum(0) + (pre[2, 3:] > 0).sum(0)
    assert np.array_equal(statistics.counts[2, :, 0], wanted.numpy())


def test_a_cache_without_the_neurons_says_how_to_get_them(llama):
    counted = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(LensNeuronsError, match=r"lacks blocks\.0\.mlp\.hook_pre and 2 more: run"):
        ActivationStatistics.from_cache({}, llama, languages=["en"], counted=counted)


@pytest.mark.parametrize(("rows", "shape"), [(1, (2, 9)), (2, (2, 8)), (3, (3, 9))])
def test_a_mask_that_does_not_fit_is_refused(rows, shape, llama):
    with torch.no_grad():
        _, cache = llama.run_with_cache(torch.randint(3, 300, (2, 9)))
    counted = torch.ones(shape, dtype=torch.bool)
    with pytest.raises(LensNeuronsError, match=r"do not fit the cached batch \[2, 9\]: give one"):
        ActivationStatistics.from_cache(cache, llama, languages=["en"] * rows, counted=counted)


# Reduction


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_device_path_equals_the_cpu_path(dtype, llama):
    activation = neuron_site(llama).activation
    source = torch.Generator().manual_seed(0)
    pre = torch.randn(5, 203, 17, generator=source).to(dtype)
    pre[0, 3, :5] = torch.tensor([0.0, -0.0, 1e-7, -1e-7, 0.0], dtype=dtype)  # zero is not active
    counted = torch.rand(5, 203, generator=source) < 0.6
    counted[1], counted[2] = False, True
    cpu = reduce_batch(pre, counted, activation)
    wide = pre.float() if dtype in (torch.float16, torch.bfloat16) else pre
    values = activation(wide).double() * counted[..., None]
    wanted = ((pre > 0) & counted[..., None]).sum(1).numpy()
    for reduced in (cpu, reduce_on_device(wide, counted, activation)):
        assert reduced.counts.dtype == np.int64
        assert np.array_equal(reduced.counts, wanted)
        np.testing.assert_allclose(reduced.sums, values.sum((0, 1)).numpy(), rtol=1e-6)
        np.testing.assert_allclose(reduced.squares, values.square().sum((0, 1)).numpy(), rtol=1e-6)


def test_zero_is_not_active(llama):
    counted = torch.ones(1, 6, dtype=torch.bool)
    pre = torch.zeros(1, 6, 4)
    for reduce in (reduce_batch, reduce_on_device):
        assert not reduce(pre, counted, neuron_site(llama).activation).counts.any()


def test_half_precision_is_summed_in_full():
    """In bfloat16 256 + 1 is 256, and a quarter would be lost at 128 already."""
    pre = torch.ones(1, 4097, 1, dtype=torch.bfloat16)
    pre[0, 0] = 0.25
    counted = torch.ones(1, 4097, dtype=torch.bool)
    for reduce in (reduce_batch, lambda *args: reduce_on_device(args[0].float(), *args[1:])):
        reduced = reduce(pre, counted, torch.nn.ReLU())
        assert reduced.sums.tolist() == [4096.25]
        assert reduced.counts.tolist() == [[4097]]


def test_long_sums_do_not_saturate():
    """Adding 1 to 2^24 does nothing in float32; the sums of a long text must go on."""
    pre = torch.zeros(1, 200, 1)
    pre[0, 0], pre[0, 199] = 2.0**24, 1.0
    counted = torch.ones(1, 200, dtype=torch.bool)
    for reduce in (reduce_batch, reduce_on_device):
        assert reduce(pre, counted, torch.nn.ReLU()).sums.tolist() == [2.0**24 + 1]


def test_a_batch_too_large_to_count_exactly_is_refused(monkeypatch):
    monkeypatch.setattr("lensneurons.activations.reduction.EXACT_FLOAT32", 10)
    counted = torch.ones(2, 5, dtype=torch.bool)
    with pytest.raises(
        LensNeuronsError, match="a batch of 10 tokens is too large: lower batch_tok"
    ):
        reduce_on_device(torch.ones(2, 5, 3), counted, torch.nn.ReLU())


# A trained model


def words_tokenizer(size):
    names = ["<unk>", "<s>", "</s>", *(chr(33 + n) for n in range(90))]
    vocabulary = {name: number for number, name in enumerate(names)}
    vocabulary |= {f"w{n}": n for n in range(len(names), size)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def sentences(count):
    """Random words, of very different number; ids 93 to 511 are real pieces of the model."""
    source = np.random.default_rng(5)
    rows = []
    for number in range(count):
        for language in ("en", "fr"):
            words = [f"w{n}" for n in source.integers(93, 512, int(source.integers(4, 90)))]
            cut = int(source.integers(1, len(words) - 1))
            texts = {"prompt": " ".join(words[:cut]) + " ", "response": " ".join(words[cut:])}
            rows.append({"id": str(number), "language": language, **texts})
    return sorted(rows, key=lambda row: row["language"])


def test_a_trained_model_equals_hugging_face_and_float64_explains_every_difference(tmp_path):
    """stories260K, 5 layers: where a sign differs, the exact pre-activation is within rounding."""
    folder = real_data("stories260K")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = words_tokenizer(512)
    tokenizer.save_pretrained(tmp_path)
    corpus = build_corpus(sentences(12), name="random words")
    model = load_model(tmp_path, device="cpu")
    ours = gather(model, corpus, tokenizer=tokenizer)
    exact = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    counts = np.zeros_like(ours.counts)
    slack = np.zeros_like(ours.counts)
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
    double = gather(
        load_model(tmp_path, dtype="float64", device="cpu"), corpus, tokenizer=tokenizer
    )
    assert np.array_equal(double.counts, counts)


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


def test_a_foreign_tokenizer_is_refused(no_forward):
    rows = [{"id": "1", "language": "en", "prompt": "w400", "response": " w411"}]
    with pytest.raises(
        CorpusError, match=r"gives id 411, but the model's vocabulary has 350: pass"
    ):
        gather(no_forward, build_corpus(rows), tokenizer=words_tokenizer(512))


@pytest.mark.parametrize("groups", [0, -2])
def test_no_groups_are_refused(groups, no_forward):
    with pytest.raises(LensNeuronsError, match=f"groups={groups}: at least 1 group"):
        gather(no_forward, groups=groups)


@pytest.mark.parametrize("limit", [None, 20])
def test_texts_beyond_the_context_are_refused(limit, no_forward):
    rows = [{"id": "1", "language": "en", "prompt": "a\n", "response": "xyz " * 60}]
    with pytest.raises(CorpusError, match=f"exceed max_length={limit or tiny.POSITIONS}: '1'"):
        gather(no_forward, build_corpus(rows), max_length=limit)


def test_a_language_that_the_cut_left_nothing_of_is_refused(no_forward):
    rows = [
        {"id": "1", "language": "en", "prompt": "a\n", "response": "x"},
        {"id": "1", "language": "fr", "prompt": "a long question " * 3, "response": "x"},
    ]
    with pytest.raises(LensNeuronsError, match=r"no counted token of \['fr'\] is left"):
        gather(no_forward, build_corpus(rows), max_length=8, overlong="cut")


def test_texts_without_counted_tokens_are_refused(no_forward):
    rows = [
        {"id": str(n), "language": "en", "prompt": p, "response": "x"} for n, p in enumerate("a")
    ]
    rows[0]["prompt"] = ""
    with pytest.raises(CorpusError, match="no token counts in scope 'prompt' for 1 of 1 texts"):
        gather(no_forward, build_corpus(rows), scope="prompt")


@pytest.mark.parametrize(
    ("option", "message"),
    [
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


def test_a_hugging_face_model_is_refused():
    with pytest.raises(ModelError, match=r"LlamaForCausalLM is not a TransformerLens model"):
        gather(tiny.random_model("Llama"))


def test_a_cut_corpus_counts_what_is_left(llama, model_folder):
    cut = gather(llama, max_length=60, overlong="cut")
    whole = gather(llama)
    assert 0 < cut.tokens[1] < whole.tokens[1]
    assert (whole.provenance.scope, cut.provenance.scope) == (
        "response",
        "response, cut at 60 tokens",
    )


def test_hooks_that_hide_a_layer_are_noticed_while_counting(model_folder):
    model = load_model(model_folder("Llama"), device="cpu")
    model.add_hook("blocks.0.mlp.hook_post", lambda tensor, hook: tensor)
    model.blocks[1].mlp.original_component.forward = torch.zeros_like
    with pytest.raises(LensNeuronsError, match="hook_pre of layer 2 came as number 1"):
        gather(model)


def test_progress_counts_tokens(llama, capsys):
    collect(llama, CORPUS, progress=True)
    assert "collect: 100%" in capsys.readouterr().err
