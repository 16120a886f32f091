"""The tokenizer of the demo model: byte-level BPE on the world's text of all languages alike.

All 256 bytes are tokens, so no text is unknown. Digits stand alone, so the model reads a number
digit by digit. A line break stands alone, so no token holds both prompt and response. The tokenizer
begins a text with ``<s>``; only training ends a response with ``</s>``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensneurons.demo.world import LANGUAGES, generate, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
# Words with their marks (Bengali and Thai vowels are marks), single digits, punctuation, space.
_PIECES = r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
# Longest token in bytes: a long English word, and about five letters of Thai, Bengali or Chinese.
_LONGEST = 16


def train_tokenizer(vocabulary: int, items: int, context: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on training problems, each of them written in all ten languages.

    Args:
        vocabulary: tokens, special tokens and bytes included.
        items: how many problems.
        context: longest text in tokens, which the tokenizer records.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=_LONGEST,
        show_progress=False,
    )
    texts = ("".join(render(p, code)) for p in generate("train", items) for code in LANGUAGES)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, backend.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
