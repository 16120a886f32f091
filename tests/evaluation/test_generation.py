"""Texts that a model writes: equal to Hugging Face's, alone or in a batch, with hooks that act."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

import pytest
import tiny
import torch
from corpus_data import llama_like
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig

from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.evaluation import generation
from lensneurons.evaluation.generation import (
    Decoding,
    encode_prompts,
    fit_context,
    generate,
    write_batch,
    write_responses,
)
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model

# Unequal lengths; the second is the longest, the last the shortest.
PROMPTS = ["the cat sat on", "小明有三个苹果他又买了九个", "แมวนั่งบน", "a", "counted nine"]
NEW = 8
END = 1
SITE = "blocks.1.mlp.hook_post"


def kill(tensor, hook):
    return tensor * 0


def plain_texts(folder, prompts, **options):
    """Hugging Face's own `generate`, one prompt at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = GenerationConfig(
        max_new_tokens=NEW, do_sample=False, eos_token_id=END, pad_token_id=2, **options
    )
    texts = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        ids = model.generate(**inputs, generation_config=config)
        texts.append(tokenizer.decode(ids[0, inputs.input_ids.shape[1] :], True))
    return texts


def texts_without_cache(model, prompts, tokenizer=None):
    """The likeliest token again and again, each from a whole forward pass of the model."""
    tokenizer = tokenizer or original_tokenizer(model)
    texts = []
    for prompt in prompts:
        ids = list(tokenizer(prompt)["input_ids"])
        start = len(ids)
        while len(ids) < start + NEW and ids[-1] != END:
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        texts.append(tokenizer.decode(ids[start:], skip_special_tokens=True))
    return texts


def write(model, prompts=None, **options):
    options = {"max_new_tokens": NEW, "progress": False, **options}
    return generate(model, prompts or PROMPTS, **options)


def write_tokens(model, prompts, **options):
    """New token ids of one batch."""
    decoding = Decoding(**{"max_new_tokens": NEW, **options})
    ids = encode_prompts(prompts, original_tokenizer(model))
    return write_batch(model, ids, range(len(ids)), decoding, [END])


# --- equal to Hugging Face ---


@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Gemma2", "GPT2", "Bloom", "OPT"])
def test_texts_equal_hugging_face_in_any_batch(model_folder, bridge, architecture):
    expected = plain_texts(model_folder(architecture), PROMPTS)
    assert len(set(expected)) > 1
    for batch_tokens in (10**6, 1, *((60, 100) if architecture == "Llama" else ())):
        assert write(bridge(architecture), batch_tokens=batch_tokens) == expected


def test_the_habits_of_a_model_are_left_out_and_left_alone(model_folder):
    """A generation_config such as chat models have: sampling, penalties, a short length."""
    model = load_model(model_folder("Llama"), device="cpu")
    habits = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.9, max_length=3,
        no_repeat_ngram_size=1, eos_token_id=[END], suppress_tokens=[5],
    )  # fmt: skip
    model.original_model.generation_config = habits
    assert write(model) == plain_texts(model_folder("Llama"), PROMPTS)
    assert model.original_model.generation_config is habits


# --- hooks ---


@pytest.mark.parametrize("architecture", ["Llama", "GPT2", "Phi3"])
def test_a_hook_acts_on_every_pass(bridge, architecture):
    model, shapes = bridge(architecture), []

    def watch(tensor, hook):
        shapes.append(tuple(tensor.shape[:2]))
        return tensor * 0

    untouched = write(model)
    model.add_hook(SITE, watch)  # for good, not in a block
    try:
        ablated = write(model)
        assert ablated == texts_without_cache(model, PROMPTS)
    finally:
        model.reset_hooks()
    longest = max(len(row) for row in encode_prompts(PROMPTS, original_tokenizer(model)))
    assert shapes[0] == (len(PROMPTS), longest)
    assert set(shapes[1:NEW]) <= {(len(PROMPTS), 1)}
    assert ablated != untouched
    with model.hooks(fwd_hooks=[(SITE, kill)]):
        assert write(model) == ablated
    assert write(model) == untouched


def test_an_error_in_a_hook_leaves_the_model_as_it_was(bridge):
    def fail(tensor, hook):
        raise RuntimeError("in a hook")

    model = bridge("Llama")
    config = model.original_model.generation_config
    with pytest.raises(RuntimeError, match="in a hook"), model.hooks(fwd_hooks=[(SITE, fail)]):
        write(model)
    assert model.original_model.generation_config is config


# --- ends ---


def test_a_text_ends_at_its_end_token_or_says_that_it_was_cut(bridge):
    """Whatever the model writes third becomes an end: the text is what it wrote before."""
    model = bridge("Llama")
    tokenizer = original_tokenizer(model)
    written = write_tokens(model, [PROMPTS[0]])[0]
    first = written.index(written[2])
    saved = model.original_model.generation_config
    model.original_model.generation_config = GenerationConfig(eos_token_id=[END, written[2]])
    try:
        decoding = Decoding(max_new_tokens=NEW)
        ended = write_responses(model, PROMPTS[:2], decoding, progress=False)[0]
    finally:
        model.original_model.generation_config = saved
    assert ended.text == tokenizer.decode(written[:first])
    assert (ended.finished, ended.tokens) == (True, first + 1)
    (cut,) = write_responses(model, ["the cat"], Decoding(max_new_tokens=3), progress=False)
    assert (cut.finished, cut.tokens) == (False, 3)


def test_without_a_limit_texts_end_with_the_context(bridge):
    assert fit_context(bridge("Llama"), [50, 180, 3], None) == tiny.POSITIONS - 180
    assert fit_context(bridge("Llama"), [50, 180, 3], 5) == 5


# --- texts that have ended leave their batch ---


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Gemma2", "GPT2", "Bloom", "OPT"])
def test_texts_that_leave_their_batch_change_no_other(
    bridge, monkeypatch, architecture, temperature
):
    """Against one round for all. Whatever a text has second, third or sixth is an end."""
    model, decoding = bridge(architecture), Decoding(max_new_tokens=NEW, temperature=temperature)
    ids = encode_prompts(PROMPTS, original_tokenizer(model))
    left: list[int] = []
    taking_out = DynamicCache.batch_select_indices

    def take_out(cache, kept):
        left.append(len(kept))
        taking_out(cache, kept)

    monkeypatch.setattr(DynamicCache, "batch_select_indices", take_out)

    def texts(size: int, ends: list[int], rows: Sequence[int] = range(len(PROMPTS))):
        monkeypatch.setattr(generation, "ROUND", size)
        written = write_batch(model, [ids[row] for row in rows], rows, decoding, ends)
        return [new[: min(map(new.index, set(ends) & {*new}), default=NEW)] for new in written]

    whole = texts(NEW, [])
    assert not left
    ends = sorted({whole[0][1], whole[1][2], whole[2][5]})
    expected = texts(NEW, ends)
    assert len({len(text) for text in expected}) > 1
    assert not left
    for size in (1, 2, 3):
        assert texts(size, ends) == expected
    assert left
    assert max(left) < len(PROMPTS)
    assert [text for row in range(len(PROMPTS)) for text in texts(2, ends, [row])] == expected
    monkeypatch.setattr(generation, "_has_rows", lambda cache: False)
    left.clear()
    assert texts(2, ends) == expected
    assert not left


def test_under_hooks_a_batch_stays_whole(bridge, monkeypatch):
    """A condition for each row needs as many rows in every pass."""
    model, shapes = bridge("Llama"), []
    monkeypatch.setattr(generation, "ROUND", 1)
    ids = encode_prompts(PROMPTS, original_tokenizer(model))
    whole = write_batch(model, ids, range(len(ids)), Decoding(max_new_tokens=NEW), [])
    ends = [whole[0][1]]
    with model.hooks(fwd_hooks=[(SITE, lambda tensor, hook: shapes.append(len(tensor)))]):
        write_batch(model, ids, range(len(ids)), Decoding(max_new_tokens=NEW), ends)
    assert set(shapes) == {len(PROMPTS)}


# --- sampling ---


def test_the_same_seed_draws_the_same_texts_in_any_batch(bridge):
    model = bridge("Llama")
    drawn = write(model, temperature=1.0, seed=3)
    assert write(model, temperature=1.0, seed=3, batch_tokens=1) == drawn
    assert write(model, temperature=1.0, seed=4) != drawn
    assert drawn != write(model) == write(model, temperature=1e-6)


def test_a_prompt_that_is_given_twice_is_drawn_twice(bridge):
    """The random numbers of others are left alone."""
    state = torch.get_rng_state()
    first, second = write(bridge("Llama"), ["the cat"] * 2, temperature=2.0)
    assert first != second
    assert torch.equal(torch.get_rng_state(), state)


def test_tokens_are_drawn_from_the_softmax(bridge):
    """3000 first tokens against softmax(logits / temperature) of one forward pass."""
    model, draws, temperature = bridge("GPT2"), 3000, 3.0
    ids = torch.tensor(encode_prompts(["the cat"], original_tokenizer(model)))
    with torch.inference_mode():
        expected = (model(ids)[0, -1] / temperature).softmax(-1)
    drawn = write_tokens(model, ["the cat"] * draws, temperature=temperature, max_new_tokens=1)
    counts = Counter(row[0] for row in drawn)
    likely = expected.topk(8).indices.tolist()
    assert 0.05 < float(expected[likely].sum()) < 0.95
    for token in likely:
        probability = float(expected[token])
        error = (probability * (1 - probability) / draws) ** 0.5
        assert counts[token] / draws == pytest.approx(probability, abs=4 * error)


# --- a HookedTransformer, where TransformerLens still has one ---


@pytest.fixture(params=["own tokenizer", "no tokenizer"])
def hooked(request, model_folder):
    lens = pytest.importorskip("transformer_lens")
    installed = version("transformer-lens")
    if not installed.startswith("3."):
        pytest.skip(
            f"TransformerLens {installed} has no HookedTransformer: run"
            " tests/compatibility/transformer_lens_3.sh"
        )
    config = lens.HookedTransformerConfig(
        n_layers=3, d_model=32, d_mlp=52, n_ctx=tiny.POSITIONS, n_heads=4, d_head=8,
        d_vocab=tiny.VOCABULARY, device="cpu", act_fn="silu", gated_mlp=True,
        normalization_type="RMS",
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(model_folder("Llama"))
    model = lens.HookedTransformer(config, tokenizer if "own" in request.param else None)
    source = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=source) * 0.25 + ("ln" in name))
    return model.eval()


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
def test_a_hooked_transformer_writes_too(hooked, model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder("Llama"))
    prompts = [*PROMPTS, "counted five"]
    untouched = write(hooked, prompts, tokenizer=tokenizer)
    assert untouched == texts_without_cache(hooked, prompts, tokenizer)
    assert write(hooked, prompts, tokenizer=tokenizer, batch_tokens=1) == untouched
    with hooked.hooks(fwd_hooks=[(SITE, kill)]):
        ablated = write(hooked, prompts, tokenizer=tokenizer)
        assert ablated == texts_without_cache(hooked, prompts, tokenizer)
    assert ablated != untouched
    sampling = {"temperature": 1.0, "seed": 3, "tokenizer": tokenizer}
    drawn = write(hooked, prompts, **sampling)
    assert drawn == write(hooked, prompts, **sampling, batch_tokens=1) != untouched


# --- encoding ---


def test_nothing_stands_behind_a_prompt():
    """A tokenizer that closes texts with </s> must not close prompts; a spelt </s> stays."""
    tokenizer = llama_like()
    closed = tokenizer("Tom has")["input_ids"]
    assert closed[-1] == tokenizer.eos_token_id
    assert encode_prompts(["Tom has"], tokenizer) == [closed[:-1]]
    spelt = encode_prompts(["Tom has</s>"], tokenizer)[0]
    assert spelt[-1] == tokenizer.eos_token_id


def test_the_tokenizers_own_rule_for_bos_holds(bridge):
    """The bridge's tokenizer would prepend BOS for Qwen 2 too."""
    for architecture, bos in (("Llama", True), ("Qwen2", False)):
        ids = encode_prompts(["the cat"], original_tokenizer(bridge(architecture)))[0]
        assert (ids[0] == 0) == bos


# --- at the door ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0: write at least 1 token"),
        ({"temperature": -0.5}, "temperature=-0.5: give 0 for the likeliest text"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"seed": -1}, "seed=-1: seeds are 0 or more"),
        ({"batch_tokens": 0}, "batch_tokens=0 holds nothing"),
        ({"max_new_tokens": 190}, r"prompt 1 has \d+ tokens; with 190 new ones .* context of 192"),
    ],
)
def test_options_out_of_range_are_refused_before_any_pass(bridge, options, message):
    model, passes = bridge("Llama"), []
    with (
        model.hooks(fwd_hooks=[(SITE, lambda tensor, hook: passes.append(1))]),
        pytest.raises(LensNeuronsError, match=message),
    ):
        write(model, **options)
    assert passes == []


def test_prompts_that_are_none_are_refused(bridge):
    tokenizer = original_tokenizer(bridge("Qwen2"))
    with pytest.raises(LensNeuronsError, match=r"prompts=\[\]: give a list of one text or more"):
        encode_prompts([], tokenizer)
    with pytest.raises(LensNeuronsError, match="prompts='the cat': give a list"):
        encode_prompts("the cat", tokenizer)
    with pytest.raises(LensNeuronsError, match="prompt 1 of 2 has no tokens"):
        encode_prompts(["the cat", ""], tokenizer)
    with pytest.raises(ModelError, match="is not a TransformerLens model"):
        generate(torch.nn.Linear(1, 1), ["the cat"])


def test_progress_is_shown_in_prompts(bridge, capsys):
    write(bridge("Llama"), progress=True, max_new_tokens=1)
    assert f"{len(PROMPTS)}/{len(PROMPTS)}" in capsys.readouterr().err
    write(bridge("Llama"), max_new_tokens=1)
    assert capsys.readouterr().err == ""
