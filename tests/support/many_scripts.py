"""Texts in ten languages and six scripts, and tokenizers of four kinds that read them all."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from corpus_data import fast
from tiny import byte_tokenizer

from lensneurons.demo.world import LANGUAGES, generate, render
from lensneurons.models.loading import DEMO_FOLDER


@lru_cache
def world(number: int = 60) -> dict[str, list[str]]:
    problems = generate("test", number)
    return {k: [render(problem, k)[0] for problem in problems] for k in LANGUAGES}


@lru_cache
def tokenizer(kind: str) -> Any:
    """Tokenizers of four kinds; all but the demo's are trained on few texts of three languages."""
    from transformers import AutoTokenizer

    if kind == "demo":
        return AutoTokenizer.from_pretrained(DEMO_FOLDER)
    return {"bytes": byte_level, "fallback": byte_fallback, "unigram": unigram}[kind]()


def training_texts() -> list[str]:
    return [text for k in ("en", "th", "zh") for text in world()[k][:40]]


def byte_level() -> Any:
    from tokenizers import Tokenizer, pre_tokenizers

    backend = Tokenizer.from_str(byte_tokenizer(bos=False).backend_tokenizer.to_str())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return fast(backend)


BYTES = [f"<0x{value:02X}>" for value in range(256)]


def byte_fallback() -> Any:
    """Like Llama 2: a marker in front, spaces as ▁, unknown characters as bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    special = ["<unk>", *BYTES]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    backend.train_from_iterator(training_texts(), trainer)
    return fast(backend, unk_token="<unk>")


def unigram() -> Any:
    """Like a SentencePiece unigram model: NFKC and byte fallback; no known Bengali, no emoji."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=["<unk>", *BYTES], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(training_texts(), trainer)
    state = json.loads(backend.to_str())
    state["model"]["byte_fallback"] = True
    return fast(Tokenizer.from_str(json.dumps(state)), unk_token="<unk>")
