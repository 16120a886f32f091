"""Peak memory of counting a stream, from 10^4 to 10^6 tokens: each size in a process of its own.

    python tests/simulations/stream_memory.py [--tokens 10000 100000 1000000] [--whole]

A Llama of one layer, 16 wide, reads random words through the tokenizer of the demo model from
JSON lines of 500 rows a shard, in two languages. With ``--whole`` the same rows are read whole as
well. The column "above the model" is what has to stay flat.

    how     rows      tokens   above the model, MiB   CPU s
    stream    200      18,204                    0.0     0.1
    stream  2,000     181,582                    0.0     1.5
    stream 20,000   1,816,001                    0.1    15.4
    whole  20,000   1,816,001                   33.8    14.6

A shard that needs less than loading the model did leaves no trace here, so the column says how much
more is held than the 512 MiB of that moment.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
LANGUAGES = ("en", "de")


def write_model(folder: Path) -> None:
    """A tiny random Llama with the tokenizer of the demo model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    import lensneurons as ln

    tokenizer = ln.load_model("demo").tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_texts(folder: Path, tokens: int) -> int:
    """Rows of about 50 tokens in files of 2,000, and how many rows there are."""
    folder.mkdir(parents=True)
    source, rows = random.Random(0), max(2, tokens // 50)
    words = "one two three four five six seven eight nine ten has buys gives apples books".split()
    for first in range(0, rows, 2000):
        with (folder / f"{first:08}.jsonl").open("w") as file:
            for n in range(first, min(rows, first + 2000)):
                text = " ".join(source.choices(words, k=34))
                row = {"id": n // 2, "language": LANGUAGES[n % 2], "prompt": "", "response": text}
                file.write(json.dumps(row) + "\n")
    return rows


def count(model_folder: str, texts: str, how: str) -> None:
    """Count in this process, and print tokens, peak memory before and after, and seconds."""
    import torch

    import lensneurons as ln

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = ln.load_model(model_folder, device="cpu")
    ln.collect(model, "one two", progress=False)  # what the first call alone takes
    before, begun = peak(), time.process_time()
    read = ln.stream_corpus(texts, shard_items=500) if how == "stream" else ln.load_corpus(texts)
    found = ln.collect(model, read, batch_tokens=2048, progress=False)
    seconds = time.process_time() - begun
    print(json.dumps([int(found.tokens.sum()), before, peak(), seconds]))


def peak() -> float:
    """The most memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure every size, streamed and whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", nargs="+", type=int, default=[10**4, 10**5, 10**6])
    parser.add_argument("--whole", action="store_true", help="read them whole as well")
    parser.add_argument("--count", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count(*options.count)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_model(model)
        print("how     rows      tokens   peak MiB   above the model   CPU s")
        for tokens in options.tokens:
            texts = Path(folder) / str(tokens)
            rows = write_texts(texts, tokens)
            for how in ("stream", "whole")[: 1 + options.whole]:
                command = [sys.executable, __file__, "--count", str(model), str(texts), how]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                n, before, after, seconds = json.loads(done.stdout.splitlines()[-1])
                told = f"{how:6} {rows:6,} {n:11,} {after:10.0f} {after - before:17.1f}"
                print(f"{told} {seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main()
