"""Small corpora and tokenizers for the tests: built here, from nothing, in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = {
    "en": [("Tom has 3 apples.\n", "The answer is 42"), ("How many?\n", "It is 7")],
    "zh": [("小明有3个苹果。\n", "答案是42"), ("多少？\n", "是7")],
    "th": [("ทอมมีแอปเปิล 3 ผล\n", "คำตอบคือ 42"), ("กี่ผล\n", "คือ 7")],
}

ROWS = [
    {"id": str(number), "language": language, "prompt": prompt, "response": response}
    for language, pairs in TEXTS.items()
    for number, (prompt, response) in enumerate(pairs, start=1)
]

_TRAINING = [text for pairs in TEXTS.values() for pair in pairs for text in pair] + [
    "answer: 42",
    "answer: 42 and 42",
    "the sum: 42",
]


def fast(backend: Tokenizer, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@lru_cache
def byte_level() -> Any:
    """A GPT-2-like tokenizer: byte-level BPE, offsets trimmed, no special token is ever added."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    backend.train_from_iterator(_TRAINING, trainer)
    return fast(backend, eos_token="<|end|>")


@lru_cache
def llama_like() -> Any:
    """A Llama-2-like tokenizer: "▁" for spaces and in front, byte fallback, BOS and EOS added."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in [*"▁Tomhsanwerpil42.:答", "42", "▁42"]:
        vocabulary.setdefault(piece, len(vocabulary))
    model = models.BPE(
        vocab=vocabulary,
        merges=[("4", "2"), ("▁", "42")],
        unk_token="<unk>",
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    parts = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence(parts)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return fast(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>")


@lru_cache
def unigram() -> Any:
    """A T5-like tokenizer: unigram pieces over Metaspace."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(_TRAINING, trainer)
    return fast(backend, unk_token="<unk>")


def whole_words(names: Sequence[str], split: str | None = None, **special: str) -> Any:
    """A tokenizer of whole words, none added: spaces belong to no token, unknown words to one.

    With `split` a token is what stands between two of it.
    """
    ids = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=special["unk_token"]))
    by_space = pre_tokenizers.Whitespace()
    backend.pre_tokenizer = pre_tokenizers.Split(split, "removed") if split else by_space
    return fast(backend, **special)


@lru_cache
def words() -> Any:
    """Whole words in lower case, between ``[CLS]`` and ``[SEP]``."""
    names = ["[UNK]", "[CLS]", "[SEP]", "tom", "has", "answer", "42", ":"]
    found = whole_words(names, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    found.backend_tokenizer.normalizer = normalizers.Lowercase()
    found.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return found


TOKENIZERS = {
    "byte level": byte_level,
    "llama like": llama_like,
    "unigram": unigram,
    "words": words,
}


def piece_bytes(piece: str) -> bytes:
    """The bytes one piece of `byte_level` stands for, by GPT-2's table of printable stand-ins."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    table |= {chr(256 + place): byte for place, byte in enumerate(hidden)}
    return bytes(table[char] for char in piece)


def llama_bytes(piece: str) -> bytes:
    """The bytes one piece of `llama_like` stands for."""
    if len(piece) == 6 and piece.startswith("<0x"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()
