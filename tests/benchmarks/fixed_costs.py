"""What a real model costs beside its tokens: loading, the time before the first token, writing.

    LENSNEURONS_MODELS=/folder/of/models python tests/benchmarks fixed_costs
    LENSNEURONS_BEFORE=/checkout/of/another/commit LENSNEURONS_MODELS=... python ...

CPU seconds (user and system) of one thread. Every side is a process of its own that loads the model
once; the sides take turns, call by call. One is this commit, one plain Hugging Face, and one the
checkout that `LENSNEURONS_BEFORE` names. A call is measured to the first look-up of a token's
embedding, and to its end; the first call of each kind is not counted. ``generate`` writes `NEW`
tokens after `PROMPTS` prompts, greedily; where texts differ from Hugging Face's, it says how many.

Lines go to the terminal as they come, and all numbers into the file that `LENSNEURONS_JSON` names.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from timing import spread

HERE = Path(__file__).resolve().parents[2]
PROMPTS, NEW = 16, int(os.environ.get("LENSNEURONS_NEW", "16"))
CALLS = ("collect", "nll", "generate one token", "generate", "describe")
TEXTS = {
    "en": ("The cat sat on the mat, and then it slept.", "Two birds sing in the old tree."),
    "de": ("Die Katze sitzt auf der Matte und schläft.", "Zwei Vögel singen im alten Baum."),
}


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    folder = os.environ.get("LENSNEURONS_MODELS")
    if not folder:
        yield "no real models: set LENSNEURONS_MODELS to the folder that holds them"
        return
    yield f"CPU seconds of one thread: median (smallest to largest) of {rounds}"
    for model in sorted(path.parent for path in Path(folder).glob("*/config.json")):
        if os.environ.get("LENSNEURONS_MODEL", model.name) == model.name:
            yield from _measure_model(model, rounds)


def _measure_model(model: Path, rounds: int) -> Iterator[str]:
    before = os.environ.get("LENSNEURONS_BEFORE")
    sides = {"Hugging Face": _Side(HERE, model, "plain")}
    sides |= {"before": _Side(Path(before), model, "ours")} if before else {}
    sides["now"] = _Side(HERE, model, "ours")
    found = {}
    for name, side in sides.items():
        found["load", name] = [side.run("load")]
        yield f"{model.name}: load, {name}: {found['load', name][0]['all']:.2f}"
    for call in CALLS:
        able = [name for name in sides if call == "generate" or name != "Hugging Face"]
        for number in range(rounds + (call != "generate")):
            for name in able:
                one = sides[name].run(call)
                if number or call == "generate":
                    found.setdefault((call, name), []).append(one)
        for name in able:
            told = {
                what: spread(np.array([one[what] for one in found[call, name]]))
                for what in ("first", "all")
            }
            yield f"{model.name}: {call}, {name}: {told['first']} before it, {told['all']} in all"
        _keep(model.name, found)
    texts = {name: found["generate", name][0]["texts"] for name in sides}
    for name in sides:
        ratios = [
            theirs["all"] / ours["all"]
            for theirs, ours in zip(
                found["generate", "Hugging Face"], found["generate", name], strict=True
            )
        ]
        same = sum(a == b for a, b in zip(texts[name], texts["Hugging Face"], strict=True))
        yield (
            f"{model.name}: generate, {name}: {spread(np.array(ratios))} times Hugging Face's "
            f"tokens per second; {same} of {PROMPTS} texts are equal"
        )
    for side in sides.values():
        side.close()


def _keep(model: str, found: dict[tuple[str, str], list[dict]]) -> None:
    """Write what is known by now."""
    if path := os.environ.get("LENSNEURONS_JSON"):
        file = Path(path)
        known = json.loads(file.read_text()) if file.is_file() else {}
        known[model] = {f"{call}, {name}": rows for (call, name), rows in found.items()}
        file.write_text(json.dumps(known, indent=1, ensure_ascii=False))


class _Side:
    """A process that does what it is asked to, in one checkout."""

    def __init__(self, checkout: Path, model: Path, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, model.name, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=model.parent,  # the name of the folder is that of the model
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        )

    def run(self, call: str) -> dict:
        """CPU seconds to the first embedding and in all, and the texts where some were written."""
        assert self.process.stdin
        assert self.process.stdout
        print(call, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def work() -> None:
    """The process of one side."""
    answers, sys.stdout = sys.stdout, sys.stderr
    import torch

    torch.set_num_threads(1)
    embedding, looks = torch.nn.functional.embedding, []

    def seen(*args, **options):
        looks.append(time.process_time())
        return embedding(*args, **options)

    torch.nn.functional.embedding = seen
    calls: dict[str, Callable] = {}
    for line in sys.stdin:
        call = line.strip()
        if call == "load":
            seconds, calls = {"plain": _plain, "ours": _ours}[sys.argv[2]](sys.argv[1])
            answer = {"all": seconds}
        else:
            looks.clear()
            begun = time.process_time()
            texts = calls[call]()
            answer = {"all": time.process_time() - begun, "first": looks[0] - begun}
            answer |= {"texts": texts} if call == "generate" else {}
        print(json.dumps(answer), file=answers, flush=True)


def _prompts() -> list[str]:
    return [f"{text} {n}" for n in range(PROMPTS // 4) for own in TEXTS.values() for text in own]


def _plain(name: str) -> tuple[float, dict[str, Callable]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    begun = time.process_time()
    model = AutoModelForCausalLM.from_pretrained(name).eval()
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
    seconds = time.process_time() - begun
    ends = model.generation_config.eos_token_id
    config = GenerationConfig(max_new_tokens=NEW, eos_token_id=ends, pad_token_id=0)

    def generate() -> list[str]:
        given = tokenizer(_prompts(), return_tensors="pt", padding=True)
        with torch.inference_mode():
            written = model.generate(**given, generation_config=config)
        return tokenizer.batch_decode(
            written[:, given["input_ids"].shape[1] :], skip_special_tokens=True
        )

    return seconds, {"generate": generate}


def _ours(name: str) -> tuple[float, dict[str, Callable]]:
    import transformer_lens.model_bridge  # noqa: F401
    import transformers.modeling_utils  # noqa: F401

    import lensneurons as ln

    begun = time.process_time()
    model = ln.load_model(name, device="cpu")
    seconds = time.process_time() - begun
    rows = [
        {"id": str(n), "language": tag, "prompt": "", "response": text}
        for tag, texts in TEXTS.items()
        for n, text in enumerate(texts)
    ]
    corpus = ln.corpora.build_corpus(rows, name="two")
    known = []

    def collect():
        statistics = ln.collect(model, corpus, progress=False)
        if not known:
            known.append(ln.identify(statistics))

    return seconds, {
        "collect": collect,
        "nll": lambda: ln.nll(model, corpus),
        "generate one token": lambda: ln.generate(
            model, ["The cat"], max_new_tokens=1, progress=False
        ),
        "describe": lambda: ln.describe(model, known[0], "L12N345", corpus=corpus),
        "generate": lambda: ln.generate(model, _prompts(), max_new_tokens=NEW, progress=False),
    }


if __name__ == "__main__":
    work()
