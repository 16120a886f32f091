"""`ablation_matrix` against a loop: every set and every control draw a sweep over the corpus.

The loop is as good as a plain one can be: encoded once, full batches, no checks and no hashes. It
runs for one row in one setting (the set and its draws: 10 of the 300 cells) and is scaled to all.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from corpus_data import whole_words
from timing import take_turns, told

from lensneurons.corpora.corpus import ParallelCorpus, build_corpus
from lensneurons.evaluation.likelihood import text_scorer
from lensneurons.experiments.ablation import ablation_matrix, ablation_sets
from lensneurons.interventions.editing import ablate
from lensneurons.models.loading import load_model
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.tokens.batches import plan_batches
from lensneurons.tokens.prepared import prepare

LANGUAGES = ("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw")
LAYERS, D_MODEL, WIDTH, WORDS = 8, 128, 512, 600
ITEMS, SHORTEST, LONGEST = 20, 12, 40
DRAWS, BATCH_TOKENS = 20, 4096


def measure(rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    torch.set_num_threads(1)
    model, corpus, neurons = build_model(), build_texts(), draw_neurons()
    options = {"controls": DRAWS, "match": "activity"}
    options |= {"batch_tokens": BATCH_TOKENS, "progress": False}
    seconds = take_turns(
        min(rounds, 3),
        clock=time.process_time,
        loop=lambda: _loop(model, corpus, neurons),
        ours=lambda: ablation_matrix(model, corpus, neurons, **options),
    )
    loop, ours = seconds["loop"] * 3 * len(LANGUAGES), seconds["ours"]
    yield f"random Llama of {LAYERS} layers x {WIDTH} neurons, width {D_MODEL}, 1 thread"
    yield (
        f"10 x 10 x 3 matrix, {DRAWS} control draws, {ITEMS} items of {SHORTEST} to {LONGEST} "
        f"tokens a language; median of {len(ours)} turns (smallest to largest), after one unlisted"
    )
    yield told("ablation_matrix", ours, "CPU s", 1)
    yield told("the loop, scaled from one of 30 rows and settings", loop, "CPU s", 1)
    yield told("the loop, through ablation_matrix", loop / ours, "times", 1)


def _loop(model, corpus, neurons) -> None:
    """One row in one setting: a sweep for the set and one for each of its control draws."""
    encoded = prepare(model, corpus).encoded
    score, plan = text_scorer(model, encoded), plan_batches(encoded, batch_tokens=BATCH_TOKENS)
    removed = ablation_sets(neurons)["related"]["fr"]
    controls = removed.random_control(neurons.probability.mean(-1), draws=DRAWS)
    for one in (removed, *controls):
        with ablate(model, one):
            for rows in plan:
                score(rows)


def build_model():
    """A small Llama with random weights, as a bridge."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=D_MODEL,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    LlamaForCausalLM(config).save_pretrained(folder)
    words = ["<unk>", "<pad>", *(f"w{i}" for i in range(2, WORDS))]
    whole_words(words, unk_token="<unk>", pad_token="<pad>").save_pretrained(folder)
    return load_model(folder, device="cpu")


def build_texts() -> ParallelCorpus:
    """Parallel items of unequal length."""
    random = np.random.default_rng(0)
    records = []
    for language in LANGUAGES:
        for item in range(ITEMS):
            words = random.integers(2, WORDS, random.integers(SHORTEST, LONGEST + 1))
            text = " ".join(f"w{word}" for word in words)
            records.append(
                {"id": str(item), "language": language, "prompt": "w2\n", "response": text}
            )
    return build_corpus(records, name="words")


def draw_neurons() -> LanguageNeurons:
    """Neurons of which a language has about 4 % and all languages together share 2 %."""
    random = np.random.default_rng(1)
    shape = (LAYERS, WIDTH, len(LANGUAGES))
    probability = 0.4 * random.random(shape) + 0.5 * (random.random(shape) < 0.04)
    probability[random.random(shape[:2]) < 0.02] += 0.5
    return LanguageNeurons(
        languages=LANGUAGES,
        probability=probability.clip(0, 1),
        score=random.random(shape[:2]),
        selected=np.ones(shape[:2], bool),
        tau=0.5,
        tau_origin="given",
        lambda_=0.1,
        lambda_origin="given",
        score_name="paper",
        top_rate=0.5,
    )
