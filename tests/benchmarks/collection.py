"""`collect` and TransformerLens's `run_with_cache` against a plain Hugging Face forward."""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from corpus_data import whole_words
from timing import spread, take_turns

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import ParallelCorpus, build_corpus

SHAPES = [(8, 128), (1, 1024)]
BATCHES, CACHED = 12, 3
WORDS = 32000


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    torch.set_num_threads(1)
    hugging_face, model = build_model()
    parameters = sum(weight.numel() for weight in hugging_face.parameters())
    size = f"{parameters / 1e6:.0f} M parameters"
    yield f"Qwen2-shaped, 6 layers, {size}, vocabulary {WORDS}, 1 thread"
    yield f"times faster than plain `model(input_ids)` over {BATCHES} batches, with all checks and"
    yield "hashes of the call counted: median of the pairs (smallest to largest)"
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

        seconds = take_turns(rounds, plain=plain, ours=ours, cached=cached)
        some = seconds["plain"] * CACHED / BATCHES
        yield (
            f"{batch} x {length} tokens: collect {spread(seconds['plain'] / seconds['ours'])}, "
            f"run_with_cache(hook_pre) {spread(some / seconds['cached'])}"
        )


def build_model():
    """A plain Hugging Face model and the same weights as a bridge."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    config = Qwen2Config(
        vocab_size=WORDS,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=6,
        num_attention_heads=14,
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
