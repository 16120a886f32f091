"""Every class that transformers has for causal language models, as a tiny model, if it can be made.

Sizes are guessed by their names, so a configuration that wants them otherwise is reported as such.
"""

from __future__ import annotations

import inspect
import tempfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import tiny
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lensneurons.errors import ModelError
from lensneurons.models.loading import load_model

_BY_SIZE = {
    350: "vocab_size vocab_size_per_layer_input",
    192: "max_position_embeddings n_positions max_seq_len seq_length max_seq_length context_length "
    "n_ctx",
    52: "intermediate_size n_inner ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size d_ff",
    32: "hidden_size n_embd d_model word_embed_proj_dim emb_dim dim lru_width embedding_size "
    "attention_hidden_size",
    24: "sliding_window attention_window_size moe_intermediate_size "
    "shared_expert_intermediate_size",
    16: "mamba_d_head mamba_head_dim",
    8: "head_dim global_head_dim q_lora_rank kv_lora_rank v_head_dim linear_key_head_dim "
    "index_topk linear_value_head_dim index_head_dim kv_channels d_kv hidden_size_per_layer_input",
    4: "num_attention_heads n_head n_heads attention_heads decoder_attention_heads laurel_rank "
    "encoder_attention_heads num_experts num_local_experts n_routed_experts qk_rope_head_dim "
    "qk_nope_head_dim state_size mamba_d_state mamba_n_heads mamba_num_heads ssm_state_size "
    "rotary_dim",
    3: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers",
    2: "num_key_value_heads num_experts_per_tok mamba_expand linear_num_key_heads moe_topk "
    "linear_num_value_heads index_n_heads pad_token_id altup_num_inputs",
    1: "eos_token_id n_groups mamba_n_groups n_group topk_group n_shared_experts "
    "first_k_dense_replace",
    0: "bos_token_id num_kv_shared_layers",
}
SIZES = {name: size for size, names in _BY_SIZE.items() for name in names.split()}


def tiny_configuration(kind: str) -> Any:
    """The configuration of a model type, of its text part where it has several, in small."""
    own = type(getattr(transformers, CONFIG_MAPPING_NAMES[kind])().get_text_config(decoder=True))
    names = set(inspect.signature(own.__init__).parameters)
    if is_dataclass(own):
        names |= {field.name for field in fields(own)}
    return own(**{name: size for name, size in SIZES.items() if name in names})


def outcome_of(kind: str) -> str:
    """What comes of loading a tiny model: "loads", the refusal, or why there is no tiny model.

    Every error but a `ModelError` of `load_model` goes through.
    """
    try:
        config = tiny_configuration(kind)
        with torch.device("meta"):
            whole = transformers.AutoModelForCausalLM.from_config(config)
        if sum(weight.numel() for weight in whole.parameters()) > 1e7:
            return "not made small: its sizes go by other names"
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:  # noqa: BLE001 (configurations refuse sizes in many ways)
        return f"not made small: {type(error).__name__}"
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tiny.byte_tokenizer(bos=False).save_pretrained(folder)
        try:
            load_model(Path(folder), device="cpu")
        except ModelError as error:
            return str(error).replace(folder, "FOLDER").split(". Supported are")[0]
    return "loads"


def outcomes() -> dict[str, str]:
    """Class to `outcome_of`, for all of transformers' causal language models."""
    kinds = {name: kind for kind, name in reversed(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items())}
    return {name: outcome_of(kind) for name, kind in sorted(kinds.items())}
