"""On a GPU, in under five minutes: tokens a second in half precision, and equal counts.

A random model in the shape of Qwen2, 1.1 billion parameters, reads batches of 8,192 tokens in
bfloat16: plain Hugging Face, the same with plain hooks that count, and `collect`. The batch counts
of `collect` and of the hooks have to be the same integers. The share of the peak (``--peak`` of the
device in TFLOP/s, by `PEAK`) is 2 FLOP a weight of the matrices and token, without attention.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from timing import take_turns, told

from lensneurons.activations.collection import collect
from lensneurons.corpora.corpus import build_corpus

PEAK = float(os.environ.get("LENSNEURONS_PEAK_TFLOPS", "989"))  # H100 and H200, bf16, dense
LARGE = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
WORDS, BATCH, LENGTH, BATCHES = 32_000, 16, 512, 8


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    if not torch.cuda.is_available():
        yield "no GPU here"
        return
    yield torch.cuda.get_device_name()
    yield from measure_on(torch.device("cuda"), torch.bfloat16, LARGE, min(rounds, 5))


def measure_on(
    device: torch.device, dtype: torch.dtype, sizes: dict[str, int], rounds: int
) -> Iterator[str]:
    """Yield the lines of the report for one device, number format and size of the model."""
    plain, bridge = build_model(device, dtype, sizes)
    ids = torch.randint(2, WORDS, (BATCHES, BATCH, LENGTH), generator=torch.manual_seed(0))
    records = [
        {"id": str(number), "language": ("en", "de")[number % 2], "prompt": "", "response": text}
        for number, row in enumerate(ids.reshape(-1, LENGTH).tolist())
        for text in [" ".join(f"w{i}" for i in row)]
    ]
    corpus = build_corpus(records, name="words")

    def forward() -> None:
        with torch.inference_mode():
            for tokens in ids:
                plain(tokens.to(device))
        wait(device)

    def hooks() -> torch.Tensor:
        total = torch.zeros(
            sizes["num_hidden_layers"], sizes["intermediate_size"], dtype=torch.long, device=device
        )

        def add(layer: int, output: torch.Tensor) -> None:
            total[layer] += (output > 0).sum((0, 1))

        handles = [
            block.mlp.gate_proj.register_forward_hook(
                lambda module, given, output, layer=layer: add(layer, output)
            )
            for layer, block in enumerate(plain.model.layers)
        ]
        with torch.inference_mode():
            for tokens in ids:
                plain(tokens.to(device))
        for handle in handles:
            handle.remove()
        return total.cpu()

    def ours() -> Any:
        options: Any = {"scope": "all", "batch_tokens": BATCH * LENGTH, "progress": False}
        return collect(bridge, corpus, groups=1, **options)

    counted, wanted = ours().counts.sum(-1), hooks().numpy()
    differing = int(np.count_nonzero(counted != wanted))
    yield told("counts of collect that differ from those of hooks", differing, "neurons", 0)
    seconds = take_turns(rounds, time.perf_counter, plain=forward, hooks=hooks, collect=ours)
    weights = sum(w.numel() for name, w in plain.named_parameters() if "proj" in name)
    for name, spent in seconds.items():
        speed = ids.numel() / spent
        yield told(f"{name}: tokens a second", speed, "", 0)
        yield told(f"{name}: share of the peak", 2 * weights * speed / (PEAK * 1e12), "", 3)
    yield told(
        "plain Hugging Face, through collect", seconds["plain"] / seconds["collect"], "times"
    )
    if device.type == "cuda":
        yield told("most memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def build_model(device: torch.device, dtype: torch.dtype, sizes: dict[str, int]) -> tuple[Any, Any]:
    """A plain Hugging Face model on a device, and the same weights as a bridge."""
    import copy
    import tempfile

    from corpus_data import whole_words
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    config = Qwen2Config(
        vocab_size=WORDS,
        **sizes,
        num_attention_heads=sizes["hidden_size"] // 64,
        num_key_value_heads=max(1, sizes["hidden_size"] // 512),
        architectures=["Qwen2ForCausalLM"],
    )
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config).to(device=device, dtype=dtype).eval()
    folder = tempfile.mkdtemp()
    words = ["<unk>", "<pad>", *(f"w{i}" for i in range(2, WORDS))]
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "<pad>"}
    whole_words(words, **special).save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(
        "random",
        hf_model=copy.deepcopy(plain),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        device=device,
        dtype=dtype,
    )
    return plain, bridge
