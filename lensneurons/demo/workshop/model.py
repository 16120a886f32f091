"""The demo model: a small ``LlamaForCausalLM`` with ReLU gates, and a fast way to train it.

The model is Hugging Face's. For training on a CPU its forward pass is written out below over the
same weights, without masks and caches, which is faster and also gives the mean gate activation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lensneurons.demo.workshop.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

ROPE_BASE = 10000.0
EPSILON = 1e-6


class Pass(NamedTuple):
    """What a forward pass gives.

    Attributes:
        hidden: float32 [text, position, width], normalised, ready for the unembedding.
        gate: float32 [text, position], mean gate activation over all neurons of all layers.
    """

    hidden: torch.Tensor
    gate: torch.Tensor


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Make the untrained model of a recipe.

    Args:
        recipe: gives the sizes and the seed of the weights.
        tokenizer: gives the ids of the special tokens.

    Returns:
        The model, its matrices drawn from N(0, 1 / inputs), those that write into the residual
        stream smaller by the root of their number, so that its size stays the same at any depth.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    special: dict[str, Any] = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.d_mlp,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        max_position_embeddings=recipe.context,
        hidden_act="relu",
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        tie_word_embeddings=True,
        **special,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(recipe.seed)
    writers = (2 * recipe.n_layers) ** -0.5
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                scale = 0.02 if "embed" in name else weight.shape[1] ** -0.5
                scale *= writers if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return model


def run_blocks(model: LlamaForCausalLM, ids: torch.Tensor) -> Pass:
    """Run texts through the blocks of the model, differentiably.

    Args:
        model: what `build_model` makes.
        ids: int64 [text, position]; short texts are padded on the right, where a causal model
            never looks.

    Returns:
        The normalised residual stream, and the mean gate activation of every token.
    """
    from torch.nn.functional import embedding, rms_norm

    rotation = _rotation(model, ids.shape[1])
    decoder: Any = model.model
    hidden = embedding(ids, decoder.embed_tokens.weight)
    width = hidden.shape[-1:]
    gates = []
    for block in decoder.layers:
        normed = rms_norm(hidden, width, block.input_layernorm.weight, EPSILON)
        hidden = hidden + _attend(block.self_attn, normed, rotation)
        normed = rms_norm(hidden, width, block.post_attention_layernorm.weight, EPSILON)
        gate = block.mlp.gate_proj(normed).relu()
        gates.append(gate.mean(-1))
        hidden = hidden + block.mlp.down_proj(gate * block.mlp.up_proj(normed))
    hidden = rms_norm(hidden, width, decoder.norm.weight, EPSILON)
    return Pass(hidden, sum(gates[1:], gates[0]) / len(gates))


def _rotation(model: LlamaForCausalLM, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the rotary embedding, float32 [position, size of a head]."""
    import torch

    size = model.config.hidden_size // model.config.num_attention_heads
    powers = torch.arange(0, size, 2, dtype=torch.float32) / size
    angles = torch.arange(length, dtype=torch.float32)[:, None] / ROPE_BASE**powers
    doubled = torch.cat((angles, angles), -1)
    return doubled.cos(), doubled.sin()


def _attend(
    attention: Any, hidden: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Causal attention of one block, float32 [text, position, width]."""
    from torch.nn.functional import scaled_dot_product_attention

    def heads(projection: Any) -> torch.Tensor:
        return projection(hidden).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    query, key, value = map(heads, (attention.q_proj, attention.k_proj, attention.v_proj))
    mixed = scaled_dot_product_attention(
        _rotate(query, rotation), _rotate(key, rotation), value, is_causal=True
    )
    return attention.o_proj(mixed.transpose(1, 2).flatten(-2))


def _rotate(heads: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn the two halves of every head by the angle of its position."""
    import torch

    cosine, sine = rotation
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), -1) * sine
