"""How one batch of texts is written: greedily or sampled, by the model as it is, hooks and all.

Plain decoding and nothing else. Whatever a model's own ``generation_config`` asks for (penalties,
top-p, a temperature) is put aside while it writes.

Sampling adds Gumbel noise to ``logits / temperature`` and takes the largest, which draws from the
softmax. The noise depends on the seed and the place of the prompt in the list alone, so a text does
not depend on the batch it is in, and two states of a model (before and after an ablation) are
compared under the same noise.

A ``TransformerBridge`` writes through Hugging Face's ``generate``, whose modules are the bridge's
components: every forward pass fires the hook points. A ``HookedTransformer`` has a ``generate`` of
its own, which pads and draws in its own way: it gets prompts of one length, and one prompt at a
time where tokens are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lensneurons.errors import LensNeuronsError
from lensneurons.models.loading import input_device, model_family


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a model writes; everything that decides a text beside model and prompt.

    Attributes:
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        temperature: 0 always takes the likeliest token; else tokens are drawn.
        seed: of the drawing.
        batch_tokens: largest rectangle, prompts times (longest prompt + new tokens).
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    batch_tokens: int = 16384

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise LensNeuronsError(f"max_new_tokens={self.max_new_tokens}: write at least 1 token")
        if not 0 <= self.temperature < float("inf"):
            raise LensNeuronsError(
                f"temperature={self.temperature}: give 0 for the likeliest text, more to sample"
            )
        if self.seed < 0:
            raise LensNeuronsError(f"seed={self.seed}: seeds are 0 or more")
        if self.batch_tokens < 1:
            raise LensNeuronsError(f"batch_tokens={self.batch_tokens} holds nothing; give more")


def write_batch(
    model: Any,
    ids: Sequence[list[int]],
    rows: Sequence[int],
    *,
    new_tokens: int,
    decoding: Decoding,
    ends: list[int],
) -> list[list[int]]:
    """Write one batch.

    Args:
        model: a TransformerLens model.
        ids: token ids of each prompt.
        rows: the place of each prompt in the list of all prompts, which gives its noise.
        new_tokens: most tokens of a text.
        decoding: how to write.
        ends: ids that end a text.

    Returns:
        New token ids after each prompt, up to and including an end token; what follows one has no
        meaning.
    """
    write = _write_bridge if model_family(model) == "bridge" else _write_hooked
    return write(model, ids, rows, new_tokens, decoding, ends)


def _write_bridge(
    model: Any,
    ids: Sequence[list[int]],
    rows: Sequence[int],
    new_tokens: int,
    decoding: Decoding,
    ends: list[int],
) -> list[list[int]]:
    """New tokens after each prompt, by Hugging Face's `generate` over the bridge's components."""
    pad = ends[0] if ends else 0
    width = max(map(len, ids))
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    noise = [_Noise(rows, decoding)] if decoding.temperature else []
    with _plain_decoding(model.original_model):
        written = model.original_model.generate(
            tokens.to(input_device(model)),
            attention_mask=mask.to(input_device(model)),
            max_new_tokens=new_tokens,
            do_sample=False,
            logits_processor=noise,
            eos_token_id=ends or None,
            pad_token_id=pad,
        )
    return written[:, width:].tolist()


@contextmanager
def _plain_decoding(hugging_face: Any) -> Iterator[None]:
    """Put a model's habits of writing (penalties, top-p, a temperature) aside for a while."""
    from transformers import GenerationConfig

    saved = hugging_face.generation_config
    hugging_face.generation_config = GenerationConfig()
    try:
        yield
    finally:
        hugging_face.generation_config = saved


class _Noise:
    """Gumbel noise on the logits of each row, from a generator of its own."""

    def __init__(self, rows: Sequence[int], decoding: Decoding) -> None:
        self.temperature = decoding.temperature
        self.generators = [
            torch.Generator().manual_seed(_prompt_seed(decoding.seed, row)) for row in rows
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The logits [batch, vocabulary], float32, whose largest is the token drawn."""
        drawn = torch.empty(scores.shape)
        for row, generator in zip(drawn, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - drawn.log().to(scores.device)


def _prompt_seed(seed: int, row: int) -> int:
    """An independent seed for each prompt."""
    return int(np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)[0] >> 1)


def _write_hooked(
    model: Any,
    ids: Sequence[list[int]],
    rows: Sequence[int],
    new_tokens: int,
    decoding: Decoding,
    ends: list[int],
) -> list[list[int]]:
    """New tokens after each prompt, by the own `generate` of a `HookedTransformer`."""
    device = input_device(model)
    tokens = torch.tensor(ids, device=device)
    bos = getattr(model.tokenizer, "bos_token_id", None)
    sampling = {"temperature": decoding.temperature} if decoding.temperature else {}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
        torch.manual_seed(_prompt_seed(decoding.seed, rows[0]))
        written = model.generate(
            tokens,
            max_new_tokens=new_tokens,
            stop_at_eos=bool(ends),
            eos_token_id=ends or None,
            do_sample=bool(sampling),
            prepend_bos=bool((tokens[:, 0] == bos).all()) if bos is not None else False,
            return_type="tokens",
            verbose=False,
            # Without a tokenizer 3.9 makes no mask, and learned positions behind a cache are wrong.
            use_past_kv_cache=model.tokenizer is not None,
            **sampling,
        )
    return written[:, tokens.shape[1] :].tolist()
