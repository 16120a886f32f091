"""The logit lens by hand: Hugging Face's blocks, then the final norm and the unembedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM


def by_hand(folder: Path, architecture: str, ids: torch.Tensor, norms: int = 1) -> np.ndarray:
    """float64 [layer, pos, vocabulary]: Hugging Face's blocks, then norm and unembedding."""
    hf = AutoModelForCausalLM.from_pretrained(folder).double()
    gpt = architecture == "GPT2"
    blocks, norm = (
        (hf.transformer.h, hf.transformer.ln_f) if gpt else (hf.model.layers, hf.model.norm)
    )
    kept = []
    for block in blocks:
        block.register_forward_hook(
            lambda module, given, said: kept.append(said[0] if isinstance(said, tuple) else said)
        )
    with torch.no_grad():
        hf(ids[None], use_cache=False)
        stream = torch.stack([one.reshape(-1, one.shape[-1]) for one in kept])
        for _ in range(norms):
            size = stream.shape[-1:]
            if gpt:
                stream = functional.layer_norm(stream, size, norm.weight, norm.bias, norm.eps)
            else:
                gain = norm.weight + architecture.startswith("Gemma")
                eps = getattr(norm, "variance_epsilon", None) or norm.eps
                stream = functional.rms_norm(stream, size, gain, eps)
        logits = stream @ hf.get_output_embeddings().weight.T
        if cap := getattr(hf.config, "final_logit_softcapping", None):
            logits = (logits / cap).tanh() * cap
    return logits.softmax(-1).numpy()
