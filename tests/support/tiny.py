"""Tiny random models of every supported architecture, their tokenizer, and a parallel corpus.

Made to be unfriendly: no two widths alike, every bias and norm random, texts of 4 to 150 tokens,
and a BOS rule that differs between architectures. Built from configurations alone, offline.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensneurons.corpora.corpus import ParallelCorpus, build_corpus

VOCABULARY = 350
LAYERS = 3
POSITIONS = 192
D_MODEL = 32
D_MLP = 52  # where the architecture lets us choose; 4 * D_MODEL elsewhere

_SIZES = {"vocab_size": VOCABULARY, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1}
_USUAL = _SIZES | {
    "num_hidden_layers": LAYERS,
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
_GROUPED = _USUAL | {"num_key_value_heads": 2}
_WIDE_HEADS = _GROUPED | {"head_dim": 12}
_GPT = _SIZES | {"n_layer": LAYERS, "n_embd": D_MODEL, "n_head": 4, "n_positions": POSITIONS}
_OPT = _USUAL | {"ffn_dim": D_MLP, "word_embed_proj_dim": D_MODEL}
_XGLM = _SIZES | {
    "d_model": D_MODEL,
    "ffn_dim": D_MLP,
    "num_layers": LAYERS,
    "attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
_BLOOM = _SIZES | {"hidden_size": D_MODEL, "n_layer": LAYERS, "n_head": 4}
_FALCON = {name: size for name, size in _USUAL.items() if name != "intermediate_size"}

# Class of the Hugging Face configuration, and its values.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", _GROUPED),
    "Mistral": ("MistralConfig", _GROUPED | {"sliding_window": 24}),
    "Qwen2": ("Qwen2Config", _GROUPED),
    "Qwen3": ("Qwen3Config", _WIDE_HEADS),
    "Gemma2": ("Gemma2Config", _WIDE_HEADS | {"sliding_window": 24}),
    "Gemma3": ("Gemma3TextConfig", _WIDE_HEADS | {"sliding_window": 24}),
    "Olmo2": ("Olmo2Config", _GROUPED),
    "Phi3": ("Phi3Config", _GROUPED),
    "GPT2": ("GPT2Config", _GPT | {"n_inner": D_MLP}),
    "GPTNeoX": ("GPTNeoXConfig", _USUAL),
    "Bloom": ("BloomConfig", _BLOOM),
    "OPT": ("OPTConfig", _OPT),
    "Phi": ("PhiConfig", _USUAL),
    "Falcon": ("FalconConfig", _FALCON),
    "GPTJ": ("GPTJConfig", _GPT | {"rotary_dim": 4, "n_inner": D_MLP}),
    "XGLM": ("XGLMConfig", _XGLM),
}
_HALVES = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8}
_HYBRID = {
    **_HALVES,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
_FALCON_H1 = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_n_groups": 1}
_EXPERTS = {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24}
_GEMMA4 = {
    **_WIDE_HEADS,
    **{"global_head_dim": 16, "num_global_key_value_heads": 1, "sliding_window": 24},
    **{"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": VOCABULARY},
}
_NEO = {"num_heads": 4, "num_layers": LAYERS, "window_size": 24}
_TOWER = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2}
_TOWER |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
# Loaded and measured for the table alone, and a few of them for every test of loading.
FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "Apertus": ("ApertusConfig", _GROUPED),
    "Arcee": ("ArceeConfig", _GROUPED),
    "Bamba": ("BambaConfig", _GROUPED | _MAMBA | {"attn_layer_indices": [1]}),
    "CodeGen": ("CodeGenConfig", _GPT | {"rotary_dim": 4, "n_inner": D_MLP}),
    "Cohere": ("CohereConfig", _GROUPED),
    "Cohere2": ("Cohere2Config", _GROUPED | {"sliding_window": 24}),
    "Ernie4_5": ("Ernie4_5Config", _WIDE_HEADS),
    "Exaone4": ("Exaone4Config", _GROUPED | {"sliding_window": 24}),
    "FalconH1": ("FalconH1Config", _GROUPED | _FALCON_H1 | {"mamba_n_groups": 1}),
    "Gemma": ("GemmaConfig", _WIDE_HEADS),
    "Gemma3 (vision)": (
        "Gemma3Config",
        {
            "text_config": _WIDE_HEADS | {"sliding_window": 24},
            "vision_config": _TOWER,
            "mm_tokens_per_image": 4,
        },
    ),
    "Gemma4": ("Gemma4TextConfig", _GEMMA4),
    "Glm": ("GlmConfig", _WIDE_HEADS),
    "Glm4": ("Glm4Config", _WIDE_HEADS),
    "GPTBigCode": ("GPTBigCodeConfig", _GPT | {"n_inner": D_MLP}),
    "GPTNeo": (
        "GPTNeoConfig",
        _USUAL | _NEO | {"attention_types": [[["global", "local", "global"], 1]]},
    ),
    "Granite": ("GraniteConfig", _GROUPED | {"residual_multiplier": 0.22}),
    "HunYuanDense": ("HunYuanDenseV1Config", _WIDE_HEADS),
    "Jais2": ("Jais2Config", _GROUPED),
    "Jamba (dense)": (
        "JambaConfig",
        _GROUPED
        | {"num_experts": 1, "mamba_d_state": 4}
        | {"attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    "Ministral3": ("Ministral3Config", _WIDE_HEADS),
    "Mistral3 (vision)": (
        "Mistral3Config",
        {
            "text_config": _GROUPED | {"model_type": "mistral", "sliding_window": None},
            "vision_config": _TOWER | {"model_type": "pixtral"},
            "image_token_index": 9,
        },
    ),
    "Mpt": (
        "MptConfig",
        _SIZES | {"d_model": D_MODEL, "n_heads": 4, "n_layers": LAYERS, "max_seq_len": POSITIONS},
    ),
    "NanoChat": ("NanoChatConfig", _GROUPED),
    "Nemotron": ("NemotronConfig", _GROUPED),
    "Olmo": ("OlmoConfig", _GROUPED),
    "Olmo3": ("Olmo3Config", _GROUPED | {"sliding_window": 24}),
    "OlmoHybrid": ("OlmoHybridConfig", _GROUPED | _HYBRID),
    "Qwen3_5": ("Qwen3_5TextConfig", _WIDE_HEADS | _HYBRID),
    "SeedOss": ("SeedOssConfig", _WIDE_HEADS),
    "SmolLM3": ("SmolLM3Config", _GROUPED),
    "StableLm": ("StableLmConfig", _GROUPED),
    "Starcoder2": ("Starcoder2Config", _GROUPED),
    "VaultGemma": ("VaultGemmaConfig", _WIDE_HEADS | {"sliding_window": 24}),
    "Youtu": ("YoutuConfig", _USUAL | {"num_key_value_heads": 4} | _LATENT | {"v_head_dim": 8}),
}
UNSUPPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba": ("MambaConfig", _SIZES | {"hidden_size": D_MODEL, "num_hidden_layers": 2}),
    "Gemma4 (widths)": (
        "Gemma4TextConfig",
        _GEMMA4
        | {"use_double_wide_mlp": True, "num_kv_shared_layers": 1, "hidden_size_per_layer_input": 8}
        | {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    ),
    "Gemma4 (per-layer inputs)": (
        "Gemma4TextConfig",
        _GEMMA4 | {"hidden_size_per_layer_input": 8},
    ),
    "Gemma3n": (
        "Gemma3nTextConfig",
        _WIDE_HEADS
        | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY}
        | {"num_kv_shared_layers": 0, "laurel_rank": 4},
    ),
    "Jamba": ("JambaConfig", _GROUPED | {"num_experts": 2, "mamba_d_state": 4}),
    "FalconH1 (multipliers)": (
        "FalconH1Config",
        _GROUPED | _FALCON_H1 | {"mamba_n_groups": 1, "mlp_multipliers": [0.7, 0.4]},
    ),
    "Lfm2": ("Lfm2Config", _GROUPED | {"layer_types": ["conv", "full_attention", "conv"]}),
    "NemotronH": (
        "NemotronHConfig",
        _GROUPED
        | {"layers_block_type": ["mamba", "attention", "mlp"], "mamba_num_heads": 4}
        | {"mamba_head_dim": 16, "ssm_state_size": 4, "n_groups": 1},
    ),
    "OpenAIGPT": ("OpenAIGPTConfig", _GPT),
    "Helium": ("HeliumConfig", _GROUPED | {"head_dim": 8}),
}
_SPARSE = {"num_experts_per_tok": 2, "moe_intermediate_size": 20}
# Mixtures of experts, and in a layer the name of the router; some layers have none.
EXPERTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mixtral": ("MixtralConfig", _GROUPED | {"num_local_experts": 6}),
    "Qwen2Moe": (
        "Qwen2MoeConfig",
        _GROUPED
        | _SPARSE
        | {"num_experts": 6, "shared_expert_intermediate_size": 24, "mlp_only_layers": [1]},
    ),
    "Qwen3Moe": ("Qwen3MoeConfig", _WIDE_HEADS | _SPARSE | {"num_experts": 7}),
    "Olmoe": ("OlmoeConfig", _GROUPED | {"num_experts": 6, "num_experts_per_tok": 3}),
    "GptOss": (
        "GptOssConfig",
        _WIDE_HEADS | {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 24},
    ),
    "DeepseekV3": (
        "DeepseekV3Config",
        _USUAL
        | _LATENT
        | _SPARSE
        | {"v_head_dim": 8, "first_k_dense_replace": 1, "n_routed_experts": 8, "n_group": 2}
        | {"topk_group": 1, "num_key_value_heads": 4},
    ),
    "Gemma4 (experts)": ("Gemma4TextConfig", _GEMMA4 | _EXPERTS | {"enable_moe_block": True}),
}
# Further mixtures that load, whose routing and neurons are compared: name to model type.
MORE_EXPERTS = {
    "Afmoe": "afmoe",
    "DeepseekV2": "deepseek_v2",
    "Ernie4_5_Moe": "ernie4_5_moe",
    "FlexOlmo": "flex_olmo",
    "Glm4Moe": "glm4_moe",
    "Glm4MoeLite": "glm4_moe_lite",
    "GraniteMoe": "granitemoe",
    "MiniMaxM2": "minimax_m2",
}
ROUTERS = dict.fromkeys([*EXPERTS, *MORE_EXPERTS], "mlp.gate")
ROUTERS |= {"Afmoe": "mlp.router", "GraniteMoe": "block_sparse_moe.router"}
ROUTERS |= {"GptOss": "mlp.router", "Gemma4 (experts)": "router"}
EXPERT_MODULES = dict.fromkeys([*EXPERTS, *MORE_EXPERTS], "mlp.experts")
EXPERT_MODULES |= {"Gemma4 (experts)": "experts", "GraniteMoe": "block_sparse_moe.experts"}
# The MLP that every token passes beside the routed experts.
SHARED_MLPS = {
    "Qwen2Moe": "mlp.shared_expert",
    "DeepseekV3": "mlp.shared_experts",
    "Gemma4 (experts)": "mlp",
}
SHARED_MLPS |= dict.fromkeys(
    ("Afmoe", "DeepseekV2", "Ernie4_5_Moe", "Glm4Moe", "Glm4MoeLite"), "mlp.shared_experts"
)
# Seeds with which no pre-activation over `tiny_corpus` is nearer to 0 than 9e-6 (most 3e-5), where
# fp32 rounding is about 1e-6: the counts must be equal on every machine.
SEEDS = {
    **{"Llama": 7, "Mistral": 4, "Qwen2": 11, "Qwen3": 9, "Gemma2": 1, "Gemma3": 8, "Olmo2": 11},
    **{"Phi3": 8, "GPT2": 10, "GPTNeoX": 10, "Bloom": 4, "OPT": 7, "Phi": 4, "Falcon": 8},
    **{"GPTJ": 8, "XGLM": 2},
    **{"Apertus": 11, "Bamba": 3, "CodeGen": 3, "Cohere": 4, "Cohere2": 2, "Ernie4_5": 6},
    **{"FalconH1": 1, "Gemma3 (vision)": 1, "Gemma4": 1, "Glm4": 1, "GPTNeo": 1, "Granite": 2},
    **{"Jais2": 3, "GptOss": 2, "FlexOlmo": 1, "MiniMaxM2": 2},
}
PREPEND_BOS = ("Llama", "Mistral", "Gemma2", "Gemma3", "OPT")
GATED = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Olmo2", "Phi3")

# Names of the layers, and in a layer those of the matrix whose output is the activation's argument,
# of the activation function, and of W_out; from Hugging Face's code, not from ours.
MODULES = {
    "Phi3": ("model.layers", "mlp.gate_up_proj", "mlp.activation_fn", "mlp.down_proj"),
    "GPT2": ("transformer.h", "mlp.c_fc", "mlp.act", "mlp.c_proj"),
    "GPTNeoX": ("gpt_neox.layers", "mlp.dense_h_to_4h", "mlp.act", "mlp.dense_4h_to_h"),
    "Bloom": ("transformer.h", "mlp.dense_h_to_4h", "mlp.gelu_impl", "mlp.dense_4h_to_h"),
    "OPT": ("model.decoder.layers", "fc1", "activation_fn", "fc2"),
    "Phi": ("model.layers", "mlp.fc1", "mlp.activation_fn", "mlp.fc2"),
    "Falcon": ("transformer.h", "mlp.dense_h_to_4h", "mlp.act", "mlp.dense_4h_to_h"),
    "GPTJ": ("transformer.h", "mlp.fc_in", "mlp.act", "mlp.fc_out"),
    "XGLM": ("model.layers", "fc1", "activation_fn", "fc2"),
    **dict.fromkeys(
        ("Apertus", "Arcee", "Jais2", "Nemotron"),
        ("model.layers", "mlp.up_proj", "mlp.act_fn", "mlp.down_proj"),
    ),
    **dict.fromkeys(
        ("Glm", "Glm4"), ("model.layers", "mlp.gate_up_proj", "mlp.activation_fn", "mlp.down_proj")
    ),
    **dict.fromkeys(
        ("GPTBigCode", "GPTNeo", "OpenAIGPT"),
        ("transformer.h", "mlp.c_fc", "mlp.act", "mlp.c_proj"),
    ),
    **dict.fromkeys(
        ("Gemma3 (vision)", "Mistral3 (vision)"),
        ("model.language_model.layers", "mlp.gate_proj", "mlp.act_fn", "mlp.down_proj"),
    ),
    "CodeGen": ("transformer.h", "mlp.fc_in", "mlp.act", "mlp.fc_out"),
    **dict.fromkeys(
        ("Bamba", "FalconH1", "Jamba (dense)"),
        (
            "model.layers",
            "feed_forward.gate_proj",
            "feed_forward.act_fn",
            "feed_forward.down_proj",
        ),
    ),
    "Mpt": ("transformer.blocks", "ffn.up_proj", "ffn.act", "ffn.down_proj"),
    "NanoChat": ("model.layers", "mlp.fc1", "mlp.activation_fn", "mlp.fc2"),
    "Starcoder2": ("model.layers", "mlp.c_fc", "mlp.act", "mlp.c_proj"),
}
USUAL_MODULES = ("model.layers", "mlp.gate_proj", "mlp.act_fn", "mlp.down_proj")

_WORDS = {
    "en": "the cat sat on a mat and counted nine small apples twice before dinner",
    "zh": "小明有三个苹果他又买了九个然后把其中的一半分给了朋友",
    "th": "แมวนั่งบนเสื่อแล้วนับแอปเปิลเก้าลูกก่อนอาหารเย็น",
}
# Lengths, in characters, of prompt and response: very unequal, and different in every language.
_LENGTHS = [(3, 1), (40, 9), (7, 48), (1, 17), (22, 2), (11, 30), (2, 60), (30, 5)]


def configuration(architecture: str) -> Any:
    """The Hugging Face configuration of an architecture, with sizes that are all different."""
    import transformers

    if architecture in MORE_EXPERTS:
        from every_class import tiny_configuration

        config = tiny_configuration(MORE_EXPERTS[architecture])
        if hasattr(config, "kv_lora_rank"):  # latent attention shares no heads
            config.num_key_value_heads = config.num_attention_heads
        return config
    name, values = (ARCHITECTURES | FURTHER | EXPERTS | UNSUPPORTED)[architecture]
    return getattr(transformers, name)(**values)


def auto_class(config: Any) -> Any:
    """Transformers' class for a causal model, or for one with a vision tower."""
    import transformers

    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    return transformers.AutoModelForCausalLM if causal else transformers.AutoModelForImageTextToText


def load_plain(folder: Any, **options: Any) -> Any:
    """The Hugging Face model of a folder, by `auto_class`."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    return auto_class(config).from_pretrained(folder, **options).eval()


def random_model(architecture: str, seed: int | None = None) -> Any:
    """A Hugging Face model whose every weight is random: norms and biases too."""

    config = configuration(architecture)
    model = auto_class(config).from_config(config)
    source = torch.Generator().manual_seed(SEEDS.get(architecture, 0) if seed is None else seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=source) * 0.25
            weight.copy_(1 + noise if "norm" in name.lower() or "ln_" in name else noise)
        for name, number in model.named_buffers():
            if name.endswith("layer_scalar"):  # Gemma 4 multiplies a block's output by it
                number.copy_(0.5 + torch.rand(1, generator=source))
    return model.eval()


def save_model(architecture: str, folder: Path, seed: int | None = None) -> Path:
    """Save a random model with the tokenizer of its family."""
    random_model(architecture, seed).save_pretrained(folder)
    byte_tokenizer(bos=architecture in PREPEND_BOS).save_pretrained(folder)
    return folder


@lru_cache
def byte_tokenizer(*, bos: bool) -> Any:
    """Byte-level BPE with some merges, `<s>` in front or not: every piece is a run of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 10,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<s>", "</s>", "<pad>"],
        show_progress=False,
    )
    backend.train_from_iterator(_WORDS.values(), trainer)
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def tiny_corpus(languages: tuple[str, ...] = tuple(_WORDS)) -> ParallelCorpus:
    """Eight items in three languages; no two texts are equally long."""
    rows = []
    for language in languages:
        words = _WORDS[language] * 4
        for n, (asked, answered) in enumerate(_LENGTHS):
            prompt = words[n : n + asked] + "\n"
            response = words[2 * n : 2 * n + answered].strip() or "9"
            texts = {"prompt": prompt, "response": response}
            rows.append({"id": f"item-{n}", "language": language, **texts})
    return build_corpus(rows, name="tiny")


def first_matrix(model: Any, architecture: str) -> list[tuple[Any, Callable[..., Any]]]:
    """For each layer of a Hugging Face model the module whose output is the activation's argument,
    and how to read it."""
    layers, first, _, _ = MODULES.get(architecture, USUAL_MODULES)
    half = architecture in ("Phi3", "Glm", "Glm4")
    return [
        (layer.get_submodule(first), lambda out: out.chunk(2, -1)[0] if half else out)
        for layer in model.get_submodule(layers)
    ]


@lru_cache
def drawn_neurons(seed: int = 0, languages: tuple[str, ...] = ("en", "zh", "th")) -> Any:
    """Neurons of the tiny model, of every class, whose sets are of unequal size."""
    from lensneurons.neurons.language_neurons import LanguageNeurons

    random = np.random.default_rng(seed)
    shape = (LAYERS, D_MLP, len(languages))
    bars = np.linspace(0.75, 0.55, len(languages))
    return LanguageNeurons(
        languages=languages,
        probability=np.round(random.random(shape) * 0.5 / bars, 3),
        score=random.random(shape[:2]),
        selected=random.random(shape[:2]) < 0.5,
        tau=0.5,
        tau_origin="given",
        lambda_=0.1,
        lambda_origin="given",
        score_name="paper",
        top_rate=0.5,
    )
