"""A Llama whose language neurons are set by hand, so that everything about them is known.

Every language has ten words of its own, one token each. The embedding of token t is the unit vector
e_t; attention and the down projections are zero, so the residual stream is e_t in every layer, and
RMSNorm only stretches it by ``a = 1 / sqrt(1 / d_model + eps)``. The gate row of a neuron is +1 at
the tokens that it fires on and -1 at all others, the up rows are 1 at every token. So, for every
neuron with token set F, on a token t:

    hook_pre  =  a  if t in F  else  -a              never 0, so no sign is on the fence
    hook_post =  act(hook_pre) * a
    p[k]      =  (response tokens of language k in F) / (response tokens of language k)

with both counts read off the corpus by `Counter`. In each layer so many neurons are specific,
related and agnostic as `PROFILE` says. A planted neuron fires on the commonest words of "its"
languages (p > 0.6 there) and at most on rare words of the others (p < 0.15); the remaining neurons
fire on rare words, or on none. Therefore:

    tau      the largest of the small probabilities: `PERCENTILE` is ``small / all``
    N, class, owners  as planted
    lambda   language-agnostic neuron 0 of its layer fires on every token: p = 1 everywhere, h = 1,
             m = c = 1 / (H_K / K); its line 1 - lambda * c is the lowest language-agnostic one for
             every lambda. A neuron with h < 1 and m < c lies below it while
             lambda < (1 - h) / (c - m), so lambda is the n-th largest of those ratios over all
             other neurons, where n are selected.
    parts    `BOUNDARIES`

The ``d_model - vocabulary`` last dimensions are empty: no gate and no embedding touches them, so
what the down projections write there reaches the logits and nothing else. An ablation experiment
may set them (`save_model` returns the folder; load, write, and the probabilities above still hold).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import method_oracle as oracle
import numpy as np
import torch
from corpus_data import whole_words

LANGUAGES = ("en", "de", "sw", "fr")
LETTERS = "abcdefghij"
CHANCES = (0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05, 0.03, 0.02, 0.01)
COMMON, MORE, RARE, RAREST = LETTERS[:4], LETTERS[:6], LETTERS[7:], LETTERS[9:]
ITEMS = 24
D_MLP = 60
D_MODEL = 48
EPS = 1e-6
TOP_RATE = 0.1
BOUNDARIES = [(0, 2), (3, 6), (7, 10), (11, 11)]
# specific, related, agnostic neurons of each layer
PROFILE = [
    (20, 16, 2), (18, 17, 3), (19, 15, 2),
    (5, 6, 9), (4, 5, 10), (4, 6, 9), (5, 5, 8),
    (15, 11, 1), (16, 10, 2), (15, 12, 1), (19, 11, 1),
    (11, 22, 15),
]  # fmt: skip


@dataclass(frozen=True)
class Neuron:
    """What one neuron is planted as: its languages, and the tokens that it fires on."""

    languages: tuple[str, ...]
    fires_on: frozenset[str]


def words(language: str, letters: str) -> frozenset[str]:
    """Some of the ten tokens of a language."""
    return frozenset(language + letter for letter in letters)


VOCABULARY = ["[UNK]", "[PAD]", *(k + letter for k in LANGUAGES for letter in LETTERS)]


@cache
def texts() -> dict[str, list[tuple[str, str]]]:
    """The corpus: prompts and responses of unequal length; prompts prefer the rare words."""
    random = np.random.default_rng(0)

    def text(language: str, length: int, chances: tuple[float, ...]) -> str:
        letters = random.choice(list(LETTERS), length, p=chances)
        return " ".join(language + letter for letter in letters)

    return {
        language: [
            (
                text(language, int(random.integers(2, 9)), CHANCES[::-1]) + "\n",
                text(language, int(random.integers(8 + k, 20 + 6 * k)), CHANCES),
            )
            for _ in range(ITEMS)
        ]
        for k, language in enumerate(LANGUAGES)
    }


@cache
def tokens(language: str) -> Counter[str]:
    """How often each token stands in the responses of a language."""
    return Counter(word for _, response in texts()[language] for word in response.split())


@cache
def neurons() -> tuple[tuple[Neuron, ...], ...]:
    """Every neuron of every layer; planted kinds are spread over the layer by a fixed stride."""
    return tuple(_layer(layer, *kinds) for layer, kinds in enumerate(PROFILE))


def _layer(layer: int, specific: int, related: int, agnostic: int) -> tuple[Neuron, ...]:
    planted = [_agnostic(j) for j in range(agnostic)]
    planted += [_specific(layer + j) for j in range(specific)]
    planted += [_related(layer + j) for j in range(related)]
    planted += [_quiet(j) for j in range(D_MLP - len(planted))]
    return tuple(planted[(7 * j + layer) % D_MLP] for j in range(D_MLP))


def _agnostic(j: int) -> Neuron:
    """Fires on every token (j = 0), or on the common words of every language."""
    letters = (LETTERS, COMMON, MORE)[j % 3]
    fires_on = frozenset().union(*(words(k, letters) for k in LANGUAGES))
    return Neuron(LANGUAGES, fires_on)


def _specific(j: int) -> Neuron:
    owner = LANGUAGES[(j * j) % 4]  # unequal: two languages own most
    owner = LANGUAGES[2 + j % 2] if j % 5 == 0 else owner
    other = LANGUAGES[(LANGUAGES.index(owner) + 1) % 4]
    extra = (frozenset(), words(other, RAREST), words(other, RARE))[j % 3]
    return Neuron((owner,), words(owner, (COMMON, MORE)[j % 2]) | extra)


def _related(j: int) -> Neuron:
    first = j % 4
    number = 2 + j % 2
    owners = tuple(sorted((first + i) % 4 for i in range(number)))
    fires_on = frozenset().union(
        *(words(LANGUAGES[k], (COMMON, MORE)[(j + k) % 2]) for k in owners)
    )
    return Neuron(tuple(LANGUAGES[k] for k in owners), fires_on)


def _quiet(j: int) -> Neuron:
    """Never fires, or on rare words of one language or of all."""
    if j % 4 == 0:
        return Neuron((), frozenset())
    if j % 4 == 1:
        return Neuron((), frozenset().union(*(words(k, RARE) for k in LANGUAGES)))
    return Neuron((), words(LANGUAGES[j % 3], RARE if j % 4 == 2 else RAREST))


def probability(neuron: Neuron) -> list[Fraction]:
    """``p[k]`` of a neuron, by language, from the token frequencies."""
    return [
        Fraction(sum(tokens(k)[word] for word in neuron.fires_on), tokens(k).total())
        for k in LANGUAGES
    ]


@cache
def probabilities() -> list[list[list[Fraction]]]:
    """``p[layer][neuron][language]`` as exact fractions."""
    return [[probability(neuron) for neuron in layer] for layer in neurons()]


def _is_large(neuron: Neuron, place: int) -> bool:
    return LANGUAGES[place] in neuron.languages


@cache
def tau() -> Fraction:
    """The largest probability of a neuron in a language that is not among its own."""
    return max(small_probabilities())


@cache
def small_probabilities() -> list[Fraction]:
    """Every probability of a neuron in a language that is not its own."""
    return [
        p
        for layer in neurons()
        for neuron in layer
        for place, p in enumerate(probability(neuron))
        if not _is_large(neuron, place)
    ]


PERCENTILE = 1 - sum(len(neuron.languages) for layer in neurons() for neuron in layer) / (
    len(PROFILE) * D_MLP * len(LANGUAGES)
)


@cache
def lambda_and_number() -> tuple[float, int]:
    """The exact lambda, and how many neurons are selected."""
    number = round(len(PROFILE) * D_MLP * TOP_RATE)
    always = oracle.maximum([1.0])  # one language: H_K / K = 1
    c = oracle.maximum([1.0] * len(LANGUAGES)) / always
    ratios = []
    for layer in neurons():
        for neuron in layer:
            if len(neuron.languages) == len(LANGUAGES):
                continue
            shares = [float(p) for p in probability(neuron)]
            ratios.append((1 - oracle.entropy(shares)) / (c - oracle.maximum(shares)))
    return sorted(ratios, reverse=True)[number - 1], number


def stretch() -> float:
    """``a``: what RMSNorm makes of a unit vector."""
    return (1 / D_MODEL + EPS) ** -0.5


def save_model(folder: Path, activation: str = "silu") -> Path:
    """Save the planted Llama and its tokenizer as Hugging Face does, and return the folder."""
    sizes = {"d_model": D_MODEL, "d_mlp": D_MLP, "n_layers": len(PROFILE)}
    model = silent_llama(len(VOCABULARY), **sizes, positions=128, activation=activation)
    unit = torch.eye(len(VOCABULARY), D_MODEL)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(unit)
        model.lm_head.weight.copy_(unit)
        for block, layer in zip(model.model.layers, neurons(), strict=True):
            block.mlp.up_proj.weight.copy_(unit.sum(dim=0).expand(D_MLP, -1))
            block.mlp.gate_proj.weight.copy_(torch.stack([_gate_row(n) for n in layer]))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def silent_llama(
    vocabulary: int,
    *,
    d_model: int,
    d_mlp: int,
    n_layers: int = 1,
    positions: int = 64,
    activation: str = "relu",
    eos: int | None = None,
) -> Any:
    """A Llama whose weights are all zero, but those of its norms."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=d_model, intermediate_size=d_mlp,
        num_hidden_layers=n_layers, num_attention_heads=2, max_position_embeddings=positions,
        hidden_act=activation, rms_norm_eps=EPS, tie_word_embeddings=False, pad_token_id=1,
        bos_token_id=None, eos_token_id=eos,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.zero_()
    return model


def _gate_row(neuron: Neuron) -> torch.Tensor:
    row = torch.zeros(D_MODEL)
    signs = [1.0 if word in neuron.fires_on else -1.0 for word in VOCABULARY]
    row[: len(VOCABULARY)] = torch.tensor(signs)
    return row


def tokenizer(words: Sequence[str] = VOCABULARY, split: str | None = None, **special: str) -> Any:
    """One token a word, or a text between two `split`; none is added."""
    return whole_words(words, split, **{"unk_token": "[UNK]", "pad_token": "[PAD]", **special})
