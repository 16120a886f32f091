"""`collect` against a plain Hugging Face forward, and what else counts the same neurons beside it.

    LENSNEURONS_SMALL=1 python tests/benchmarks collection --rounds 3      # a smaller model

`run_with_cache` of TransformerLens keeps hook_pre; plain hooks, nnsight and interp-engine count a
batch at a time (`others.py`), where they are installed, and have to give the same integers.
"""

import copy
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from corpus_data import whole_words
from others import other_sides
from timing import take_turns, told

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import ParallelCorpus, build_corpus

SMALL = bool(os.environ.get("LENSNEURONS_SMALL"))
SHAPES = [(8, 128)] if SMALL else [(8, 128), (1, 1024)]
BATCHES, CACHED = 12, 3
WORDS = 4000 if SMALL else 32000
LAYERS, D_MODEL, WIDTH = (4, 256, 1024) if SMALL else (6, 896, 4864)


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    torch.set_num_threads(1)
    hugging_face, model = build_model()
    parameters = sum(weight.numel() for weight in hugging_face.parameters())
    size = f"{parameters / 1e6:.0f} M parameters"
    yield f"Qwen2-shaped, {LAYERS} layers, {size}, vocabulary {WORDS}, float32, 1 thread"
    yield f"CPU seconds of plain `model(input_ids)` over {BATCHES} batches, through those of each"
    yield "side, with all checks and hashes of a call to `collect` counted"
    folder = Path(tempfile.mkdtemp())
    hugging_face.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    others = other_sides(hugging_face, folder)
    for batch, length in SHAPES:
        corpus = word_corpus(batch * BATCHES, length)
        ids = torch.randint(2, WORDS, (BATCHES, batch, length))

        def plain(ids=ids):
            with torch.inference_mode():
                for tokens in ids:
                    hugging_face(tokens)

        def ours(corpus=corpus, size=batch * length):
            collect(model, corpus, scope="all", batch_tokens=size, progress=False)

        def cached(ids=ids, names=lambda name: name.endswith("mlp.hook_pre")):
            with torch.inference_mode():
                for tokens in ids[:CACHED]:
                    model.run_with_cache(tokens, names_filter=names, output_attentions=False)

        sides = {
            name: lambda count=count, ids=ids: [count(tokens) for tokens in ids[:CACHED]]
            for name, count in others.items()
        }
        for name, count in others.items():
            if not torch.equal(count(ids[0]), others["hooks"](ids[0])):
                yield f"{name} counts something else: left out"
                del sides[name]
        seconds = take_turns(
            rounds, time.process_time, plain=plain, collect=ours, run_with_cache=cached, **sides
        )
        some = seconds["plain"] * CACHED / BATCHES
        for name in seconds:
            base = seconds["plain"] if name == "collect" else some
            if name != "plain":
                yield told(f"{name}, {batch} x {length} tokens", base / seconds[name], "times")


def build_model():
    """A plain Hugging Face model and the same weights as a bridge."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    config = Qwen2Config(
        vocab_size=WORDS,
        hidden_size=D_MODEL,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=D_MODEL // 64,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        architectures=["Qwen2ForCausalLM"],
    )
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config).eval()
    folder = Path(tempfile.mkdtemp())
    words = ["<unk>", "<pad>", *(f"w{i}" for i in range(2, WORDS))]  # one token a word
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "<pad>"}
    whole_words(words, **special).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(
        "random", hf_model=copy.deepcopy(plain), tokenizer=tokenizer, device="cpu"
    )
    return plain, bridge


def word_corpus(texts: int, length: int) -> ParallelCorpus:
    """Texts of one length in tokens, in two languages."""
    generator = torch.Generator().manual_seed(0)
    records = []
    for number in range(texts):
        words = torch.randint(2, WORDS, (length,), generator=generator).tolist()
        text = " ".join(f"w{i}" for i in words)
        language = "en" if number < texts // 2 else "de"
        item = str(number % max(1, texts // 2))
        records.append({"id": item, "language": language, "prompt": "", "response": text})
    return build_corpus(records, name="words")
