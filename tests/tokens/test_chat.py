"""Chats: the counted tokens are exactly what the assistant says, in templates of four styles.

The templates are written here in the styles of Qwen, Gemma, Llama 3 and Mistral. What should count
is computed apart: by the tokenizer's own `apply_chat_template`, as what the whole chat has beyond
the chat up to the assistant's turn, without the tokens that end the turn.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from inspect import unwrap

import numpy as np
import pytest
import tiny
import torch
from real_models import real_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lensneurons.activations.collection import collect
from lensneurons.alignment import training
from lensneurons.alignment.pairs import PreferencePair, PreferencePairs
from lensneurons.alignment.training import align
from lensneurons.corpora.corpus import build_corpus, load_corpus
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError
from lensneurons.evaluation.answers import accuracy
from lensneurons.evaluation.generation import generate
from lensneurons.experiments.carrying import answer_pairs, carry_over, encode_pairs
from lensneurons.experiments.lens import logit_lens
from lensneurons.experiments.steering import steering_curve
from lensneurons.models.loading import load_model
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.chat import chat_corpus, template_hash
from lensneurons.tokens.encoding import encode
from lensneurons.tokens.prepared import prepare
from lensneurons.values.provenance import Provenance

# The template, the tokens that it uses, those that end a turn, whether the tokenizer adds BOS.
STYLES = {
    "Qwen": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        ["<|im_start|>", "<|im_end|>"],
        "<|im_end|>\n",
        False,
    ),
    "Gemma": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{{ '<start_of_turn>' + "
        "('model' if m.role == 'assistant' else 'user') + '\n' + m.content | trim + "
        "'<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        ["<start_of_turn>", "<end_of_turn>"],
        "<end_of_turn>\n",
        True,
    ),
    "Llama 3": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + "
        "'<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|eot_id|>",
        True,
    ),
    "Mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST]' + m.content + '[/INST]' }}{% elif m.role == 'assistant' %}"
        "{{ m.content + eos_token }}{% else %}{{ raise_exception('no system here') }}{% endif %}"
        "{% endfor %}",
        ["[INST]", "[/INST]"],
        "</s>",
        True,
    ),
}
ROWS = [
    {"id": "1", "language": "en", "prompt": "2 + 3 = ?", "response": "The answer is 5."},
    {"id": "2", "language": "en", "prompt": "the cat\nand 9?", "response": "nine\n\napples 9"},
    {"id": "1", "language": "zh", "prompt": "小明有三个苹果?", "response": "答案是 5。"},
    {"id": "2", "language": "zh", "prompt": "他又买了九个", "response": "9"},
]
CORPUS = build_corpus(ROWS)


def chat_tokenizer(style):
    template, words, end, bos = STYLES[style]
    tokenizer = deepcopy(tiny.byte_tokenizer(bos=bos))
    tokenizer.add_special_tokens({"extra_special_tokens": words})
    tokenizer.chat_template = template
    return tokenizer, end


def expected_run(tokenizer, item, end, system=None):
    """Ids of the whole chat, and where the assistant's words begin and stop in them."""
    turns = [] if system is None else [{"role": "system", "content": system}]
    turns.append({"role": "user", "content": item.prompt})
    said = [*turns, {"role": "assistant", "content": item.response}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(said, return_dict=False)
    ending = tokenizer(end, add_special_tokens=False)["input_ids"]
    assert whole[: len(asked)] == asked
    assert whole[-len(ending) :] == ending
    return whole, len(asked), len(whole) - len(ending)


def assert_counted(ready, corpus, tokenizer, end, system=None):
    for n, item in enumerate(corpus):
        whole, start, stop = expected_run(tokenizer, item, end, system)
        encoded = ready.encoded
        ids = encoded.ids[encoded.offsets[n] : encoded.offsets[n + 1]]
        assert ids.tolist() == whole[:stop]
        assert (encoded.start[n], encoded.stop[n]) == (start, stop)
        assert tokenizer.decode(ids[start:stop]) == item.response
        assert ids.tolist().count(tokenizer.bos_token_id) == whole.count(tokenizer.bos_token_id)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama whose vocabulary has room for the special tokens of every style."""
    folder = tmp_path_factory.mktemp("chat")
    torch.manual_seed(3)
    LlamaForCausalLM(LlamaConfig(**tiny._GROUPED | {"vocab_size": 400})).save_pretrained(folder)
    chat_tokenizer("Qwen")[0].save_pretrained(folder)
    return load_model(folder, device="cpu")


@pytest.mark.filterwarnings("error")  # none may say that BOS is spelt twice
@pytest.mark.parametrize("style", STYLES)
def test_exactly_the_words_of_the_assistant_count(style, llama):
    tokenizer, end = chat_tokenizer(style)
    ready = prepare(llama, CORPUS, template="chat", tokenizer=tokenizer)
    assert_counted(ready, CORPUS, tokenizer, end)
    assert ready.corpus.template == ready.provenance().template != "none"
    assert ready.corpus.select(languages="zh").template == ready.corpus.template


@pytest.mark.parametrize("style", ["Qwen", "Llama 3"])
def test_a_system_prompt_is_read_and_not_counted(style, llama):
    tokenizer, end = chat_tokenizer(style)
    plain = prepare(llama, CORPUS, template="chat", tokenizer=tokenizer)
    ready = prepare(llama, CORPUS, template="chat", system="Be brief.", tokenizer=tokenizer)
    assert_counted(ready, CORPUS, tokenizer, end, "Be brief.")
    assert ready.encoded.report.total.counted == plain.encoded.report.total.counted
    assert ready.corpus.template != plain.corpus.template
    assert ready.corpus.fingerprint != plain.corpus.fingerprint


@pytest.mark.parametrize("style", ["Gemma", "Mistral"])
def test_a_template_without_a_system_prompt_refuses_one(style, llama):
    tokenizer, _ = chat_tokenizer(style)
    with pytest.raises(ModelError, match="fails: .*; many templates know no system prompt"):
        prepare(llama, CORPUS, template="chat", system="Be brief.", tokenizer=tokenizer)


def test_every_function_reads_the_chat(llama):
    ready = prepare(llama, CORPUS, template="chat")
    rendered = [item.prompt for item in ready.corpus]
    assert rendered[0] == "<|im_start|>user\n2 + 3 = ?<|im_end|>\n<|im_start|>assistant\n"
    statistics = collect(llama, ready, progress=False)
    assert statistics.tokens.tolist() == [r.counted for r in ready.encoded.report.languages]
    assert statistics.provenance.template == ready.corpus.template
    options = {"max_new_tokens": 4, "progress": False}
    written = generate(llama, [item.prompt for item in CORPUS], template="chat", **options)
    assert written == generate(llama, rendered, **options)
    assert written != generate(llama, [item.prompt for item in CORPUS], **options)
    answers = accuracy(llama, ready, **options)
    assert [answer.text for answer in answers.answers] == written
    assert answers.provenance.template == ready.corpus.template
    again = collect(llama, chat_corpus(llama, CORPUS), progress=False)
    assert np.array_equal(again.counts, statistics.counts)
    assert again.provenance == statistics.provenance


@pytest.mark.parametrize("style", STYLES)
def test_the_lens_reads_what_the_assistant_says(style, llama):
    tokenizer, end = chat_tokenizer(style)
    ready = prepare(llama, CORPUS, template="chat", tokenizer=tokenizer)
    curves = logit_lens(llama, ready, least=1)
    runs = [expected_run(tokenizer, item, end) for item in CORPUS]
    assert curves.tokens.tolist() == [stop - start for _, start, stop in runs]
    assert curves.provenance.template == ready.corpus.template
    rendered = chat_corpus(llama, CORPUS, tokenizer=tokenizer)
    again = logit_lens(llama, rendered, least=1, tokenizer=tokenizer)
    assert again.provenance == curves.provenance
    assert np.array_equal(again.mass, curves.mass)


@pytest.mark.parametrize("style", STYLES)
def test_patching_reads_the_chat_up_to_the_answer(style, llama):
    tokenizer, _ = chat_tokenizer(style)
    asked = build_corpus([
        {"id": str(n), "language": tag, "prompt": prompt, "response": str(n + shift)}
        for n in range(4)
        for tag, prompt, shift in (("en", "What?", 1), ("zh", "什么?", 5))
    ])  # fmt: skip
    chats = chat_corpus(llama, asked, tokenizer=tokenizer)
    pairs = answer_pairs(chats, cut="number")
    for pair, ids in zip(pairs, encode_pairs(pairs, tokenizer), strict=True):
        turns = ([{"role": "user", "content": text}] for text in ("What?", "什么?"))
        source, target = (
            tokenizer.apply_chat_template(one, add_generation_prompt=True, return_dict=False)
            for one in turns
        )
        assert (ids.source, ids.target) == (source, target)
        assert pair.template == chats.template != "none"
    found = carry_over(llama, pairs, tokenizer=tokenizer, progress=False)
    assert found.provenance.template == chats.template
    plain = answer_pairs(asked, cut="number")
    assert {pair.template for pair in plain} == {"none"}
    with pytest.raises(LensNeuronsError, match="are written in 2 chat templates"):
        carry_over(llama, [*pairs, *plain], tokenizer=tokenizer, progress=False)


def test_steering_asks_in_the_chat(llama):
    ready = prepare(llama, CORPUS, template="chat")
    statistics = collect(llama, ready, progress=False)
    neurons = NeuronSet(np.array([3, 70]), statistics.n_layers, statistics.d_mlp, "two")
    curve = steering_curve(
        llama, ready, neurons, statistics=statistics, toward="zh", prompts_in="en",
        alphas=(0.0, 2.0), max_new_tokens=4, progress=False,
    )  # fmt: skip
    english = [item.prompt for item in CORPUS if item.language == "en"]
    options = {"max_new_tokens": 4, "progress": False}
    assert list(curve.texts[0]) == generate(llama, english, template="chat", **options)
    tokenizer, end = chat_tokenizer("Qwen")
    runs = [expected_run(tokenizer, item, end) for item in CORPUS if item.language == "en"]
    assert curve.tokens[0].tolist() == [stop - start for _, start, stop in runs]
    assert curve.provenance.template == ready.corpus.template


@pytest.mark.parametrize("style", STYLES)
def test_an_alignment_trains_on_the_chat(style, tmp_path, monkeypatch):
    tokenizer, end = chat_tokenizer(style)
    LlamaForCausalLM(LlamaConfig(**tiny._GROUPED | {"vocab_size": 400})).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pairs = PreferencePairs(
        tuple(
            PreferencePair(one.id, one.language, one.prompt, one.response, "no", 1.0, 0.0)
            for one in CORPUS
        ),
        "en", "hand", Provenance(),
    )  # fmt: skip
    given = []

    def instead(hugging_face, own, sides, *_):
        given.append((own, sides[0]))
        raise RuntimeError("enough")

    monkeypatch.setattr(training, "_make_trainer", instead)
    with pytest.raises(RuntimeError, match="enough"):
        align(
            tmp_path, pairs, tmp_path / "run",
            template="chat", held_out=0.0, device="cpu", progress=False,
        )  # fmt: skip
    ((own, trained),) = given
    for pair, item in zip(trained, CORPUS, strict=True):
        whole, start, stop = expected_run(tokenizer, item, end)
        assert own(pair.prompt)["input_ids"] == whole[:start]
        assert own(pair.prompt + pair.chosen)["input_ids"] == whole[:stop]
    chats = pairs.in_chat(own)
    assert chats.provenance.template == template_hash(own, None)
    assert chats.in_chat(own) is chats
    assert chats.fingerprint != pairs.fingerprint
    other = replace(chats, provenance=replace(chats.provenance, template="another"))
    with pytest.raises(CorpusError, match="turns of a chat in another template"):
        other.in_chat(own)
    with pytest.raises(LensNeuronsError, match="system= needs template='chat'"):
        align(tmp_path, pairs, tmp_path / "run", system="Be brief.")


def test_what_is_no_chat_is_refused(llama, bridge):
    with pytest.raises(ModelError, match="has no chat template, as those of base models have none"):
        prepare(bridge("Llama"), CORPUS, template="chat")
    with pytest.raises(ModelError, match="has no chat template"):
        generate(bridge("Llama"), ["2 + 3"], template="chat", progress=False)
    with pytest.raises(LensNeuronsError, match="system= needs template='chat'"):
        prepare(llama, CORPUS, system="Be brief.")
    with pytest.raises(LensNeuronsError, match="template='talk': give 'chat', or leave it out"):
        unwrap(prepare)(llama, CORPUS, template="talk")
    with pytest.raises(CorpusError, match=r"'1' \(en\) has no prompt, so the user would say noth"):
        prepare(llama, load_corpus({"en": ["One."], "de": ["Eins."]}), template="chat")
    with pytest.raises(CorpusError, match="are turns of a chat already"):
        prepare(llama, chat_corpus(llama, CORPUS), template="chat")
    ready = prepare(llama, CORPUS, template="chat")
    assert prepare(llama, ready, template="chat") is ready
    for corpus, system in ((prepare(llama, CORPUS), None), (ready, "Be brief.")):
        with pytest.raises(LensNeuronsError, match="template='chat' differs from that of"):
            prepare(llama, corpus, template="chat", system=system)


def test_the_real_template_of_qwen_counts_the_words_of_the_assistant(llama):
    tokenizer = AutoTokenizer.from_pretrained(real_model("qwen2.5-coder-0.5b"))
    for system in (None, "Answer in one word."):
        rendered = chat_corpus(llama, CORPUS, system=system, tokenizer=tokenizer)
        encoded = encode(rendered, tokenizer)
        ready = type("Ready", (), {"encoded": encoded})
        assert_counted(ready, CORPUS, tokenizer, "<|im_end|>\n", system)
