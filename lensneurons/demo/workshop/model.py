"""The demo model: a small ``LlamaForCausalLM``, made untrained from a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lensneurons.demo.workshop.recipe import Recipe

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Make the untrained model of a recipe, with the special tokens of a tokenizer.

    Its matrices are drawn from N(0, 1 / inputs). Those that write into the residual stream are
    smaller by the root of their number, which keeps its size the same at any depth.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    special: dict[str, Any] = {name: getattr(tokenizer, name) for name in names}
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.d_mlp,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        max_position_embeddings=recipe.context,
        hidden_act=recipe.gate,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=recipe.tied,
        **special,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(recipe.seed)
    writers = (2 * recipe.n_layers) ** -0.5
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                scale = 0.02 if "embed" in name or "lm_head" in name else weight.shape[1] ** -0.5
                scale *= writers if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return model


def run_blocks(
    model: LlamaForCausalLM, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run texts through the blocks of the model, differentiably.

    Args:
        model: what `build_model` makes.
        ids: int64 [text, position]. Short texts are padded on the right, where a causal model never
            looks, so there is no mask.

    Returns:
        float32 [text, position, width], the residual stream, normalised for the unembedding;
        float32 [layer, text, position], the mean over a layer's neurons of the activation of those
        that fire (0 of the others); and, without a gradient, the share of them that fire. A neuron
        fires where its activation is above 0.
    """
    decoder: Any = model.model
    gates: list[torch.Tensor] = []
    firing: list[torch.Tensor] = []
    never_below_zero = model.config.hidden_act == "relu"

    def keep(module: Any, given: Any, gate: torch.Tensor) -> None:
        gates.append((gate if never_below_zero else gate.clamp(min=0)).mean(-1))
        firing.append((gate.detach() > 0).float().mean(-1))

    hooks = [block.mlp.act_fn.register_forward_hook(keep) for block in decoder.layers]
    try:
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return hidden, torch.stack(gates), torch.stack(firing)
