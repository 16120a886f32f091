"""Values to draw, made up, and what every figure of them has to pass whatever their names hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from html import unescape

import numpy as np
import plotly.graph_objects as go
from before_after import LANGUAGES, TAU, TRAINED, noisy, plan, runs

from lensneurons import plots
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.edges import NeuronEdges
from lensneurons.comparison.before_after import Comparison, compare
from lensneurons.comparison.paper_claims import Claim, Claims
from lensneurons.comparison.series import ComparisonSeries, compare_series
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.attention_shares import COLUMNS, AttentionShares
from lensneurons.experiments.carrying import OUTCOMES, CarryOver
from lensneurons.experiments.latent_languages import LensLanguages
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.metrics import Metric
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LAYER_CLASSES, LanguageNeurons
from lensneurons.neurons.parts import LayerParts, divide_layers
from lensneurons.values.provenance import Provenance

TEN = tuple("en ru es fr de zh ja bn th sw".split())
MANY = tuple(
    "ar am bg cs da el fa fi he hi hu id it ko nl no pl pt ro sv ta tr uk ur vi zh-Hant".split()
)
HOSTILE = (
    "<s>struck</s>",
    "</script><script>alert(1)</script>",
    "$x^2$ & <b>bold",
    "nul\0\ud800\n",
    "עברית \u202eevil",
    "%{y} %{customdata[0]}",
)
LARGEST = 320_000


def make_statistics(
    languages: tuple[str, ...], layers: int, width: int, *, groups: int = 1, seed: int = 0
) -> ActivationStatistics:
    random = np.random.default_rng(seed)
    own = random.beta(0.35, 2.2, (layers, width, 1))
    p = np.clip(1.3 * own * random.beta(1.2, 1.0, (layers, width, len(languages))), 0, 1)
    tokens = np.full((groups, len(languages)), 600, np.int64)
    counts = random.binomial(tokens[:, None, None, :], p[None]).astype(np.int64)
    return ActivationStatistics(languages, counts, tokens)


@lru_cache
def small(population: str = "selected") -> LanguageNeurons:
    statistics = make_statistics(TEN, 5, 128, groups=6, seed=3)
    return identify(statistics, top_rate=0.1, population=population)


@lru_cache
def hostile() -> LanguageNeurons:
    neurons = identify(make_statistics(HOSTILE, 6, 90, seed=4), top_rate=0.1, population="all")
    return replace(neurons, provenance=Provenance(model="<img src=x onerror=alert(1)>"))


@lru_cache
def nothing() -> LanguageNeurons:
    return replace(small("all"), tau=1.0)


@lru_cache
def with_parts() -> tuple[LanguageNeurons, LayerParts]:
    """Neurons whose layers show the four parts, by giving each class where the paper has it."""
    rows = [(20, 40, 2)] * 3 + [(3, 9, 14)] * 5 + [(18, 20, 1)] * 4 + [(25, 21, 1), (12, 45, 25)]
    p = np.zeros((len(rows), 100, 4))
    for layer, (specific, related, agnostic) in enumerate(rows):
        p[layer, :specific, 0] = 0.9
        p[layer, specific : specific + related, :2] = 0.9
        p[layer, specific + related : specific + related + agnostic] = 0.9
    shape = p.shape[:2]
    neurons = LanguageNeurons(
        ("en", "zh", "ja", "bn"), p, np.zeros(shape), np.zeros(shape, bool),
        0.5, "given", 0.1, "exact", "paper", 0.01,
    )  # fmt: skip
    return neurons, divide_layers(neurons)


ALIGNED = (Provenance(model="lab/base"), Provenance(model="lab/aligned"))


@lru_cache
def planted(groups: int = 6, trained: tuple[str, ...] = TRAINED) -> Comparison:
    return compare(*runs(plan(), groups=groups), tau=TAU, trained=trained)


@lru_cache
def wobbly(languages: tuple[str, ...] = TEN, layers: int = 5) -> Comparison:
    """Two runs that differ by noise, and a little in some layers: intervals of all widths."""
    shift = np.zeros((layers, 60, len(languages)))
    shift[1:3] = 0.5
    pair = noisy(np.random.default_rng(4), shift, shape=(layers, 60), languages=languages)
    found = compare(*pair, trained=languages[1:2], pivot=languages[0])
    return replace(found, provenance=ALIGNED)


@lru_cache
def three_checkpoints(trained: tuple[str, ...] = ("zh",)) -> ComparisonSeries:
    random = np.random.default_rng(9)
    first, last = noisy(random, 0.4, languages=LANGUAGES[:4])
    middle = replace(first, grouped_counts=(first.grouped_counts + last.grouped_counts) // 2)
    steps = {"0": first, "half": middle, "1000": last}
    return compare_series(steps, trained=trained)


def make_shares(languages: Sequence[str] = TEN, *, heads: int = 4) -> AttentionShares:
    """Three layers in which head 1 of layer 2 looks at digits more and more, language by language;
    eight items."""
    random = np.random.default_rng(0)
    k, items = len(languages), 8
    mass = random.uniform(0.1, 0.2, (3, heads, k * items, len(COLUMNS)))
    mass[2, 1, :, COLUMNS.index("response digits")] += np.tile(np.arange(k), items)
    mass = 10 * mass / mass.sum(axis=-1, keepdims=True)
    return AttentionShares(
        mass=mass,
        uniform=mass.mean(axis=(0, 1)),
        tokens=np.full(k * items, 10),
        language=np.tile(np.arange(k), items),
        item_ids=tuple(f"i{item}" for item in range(items) for _ in range(k)),
        languages=tuple(languages),
        provenance=Provenance(model="lab/some-model", scope="response"),
    )


def make_lens(
    languages: Sequence[str] = TEN,
    owners: Sequence[str] | None = None,
    *,
    layers: int = 12,
    items: int = 8,
    pivot: str | None = "en",
    hump: float = 0.45,
) -> LensCurves:
    """Own tokens late, those of the pivot in between, by `hump`; unequal texts."""
    random = np.random.default_rng(0)
    owners = tuple(owners or languages)
    k, language = len(owners), np.repeat(np.arange(len(languages)), items)
    tokens = random.integers(5, 90, len(language))
    depth = np.linspace(0, 1, layers)[:, None]
    mass = random.uniform(0.01, 0.03, (layers, len(language), k + 2))
    own = np.array([owners.index(code) for code in languages])[language]
    mass[:, np.arange(len(language)), own] += depth**3
    if pivot in owners:
        mass[:, :, owners.index(pivot)] += hump * np.exp(-(((depth - 0.6) / 0.2) ** 2))
    mass = mass / mass.sum(-1, keepdims=True) * tokens[:, None]
    true = mass[:, np.arange(len(language)), own] * depth * 0.7
    sizes = np.arange(k + 2) ** 2 + 7
    ids = tuple(f"i{i}" for i in range(items)) * len(languages)
    known = Provenance(model="lab/some-model", scope="response")
    return LensCurves(
        mass, true, tokens, language, ids, tuple(languages), owners, sizes, pivot, provenance=known
    )


def a_claim(claim: str = "a claim", expected: str = "rises", **values: object) -> Claim:
    numbers = {"measured": 4.0, "low": 1.0, "high": 8.0, "p": 0.01, "p_adjusted": 0.02}
    given = {"claim": claim, "expected": expected, "verdict": "holds", **numbers, **values}
    return Claim(**given)


def some_claims(*rows: Claim) -> Claims:
    return Claims(tuple(rows), 0.95, "all 20 neurons; tau 0.5 (given)")


def make_matrix(
    *levels: tuple[float, float, float],
    languages: Sequence[str] = TEN,
    rows: Sequence[str] | None = None,
    metric: Metric = "nll",
    items: int = 12,
    noise: float = 0.01,
) -> AblationMatrix:
    """Own effect, effect on others and control of each setting, with noise, and unequal texts."""
    random = np.random.default_rng(5)
    rows = tuple(languages if rows is None else rows)
    language = np.repeat(np.arange(len(languages)), items)
    weight = random.integers(5, 90, len(language)).astype(float)
    own = np.array(rows)[:, None] == np.array(languages)[language][None]
    shape = (len(levels), *own.shape)
    middle = np.stack([np.where(own, a, b) for a, b, _ in levels])
    effect = (middle + random.normal(0, noise, shape)) * weight
    control = np.stack([np.full(own.shape, c) for *_, c in levels])
    control = (control + random.normal(0, noise, (3, *shape))) * weight
    counts = random.integers(3, 500, (*shape[:2], 1))
    known = tuple(dict.fromkeys([*languages, *rows]))
    rates = random.uniform(0, 0.3, (1, *shape[:2], 1, len(known)))
    rates = rates + np.array([0.0, 0.004, -0.01, 0.03])[:, None, None, None, None]
    ids = tuple(f"i{i}" for i in range(items)) * len(languages)
    return AblationMatrix(
        rows, tuple(languages), LAYER_CLASSES[: len(levels)], ("own", "activity", "layer"), metric,
        weight * 2, effect, control, weight, language, ids, counts.astype(np.int64), known, rates,
        20,
    )  # fmt: skip


def make_carry(
    shares: np.ndarray, languages: Sequence[str] = ("de", "zh"), *, pairs: int = 6
) -> CarryOver:
    """Pairs whose outcomes have about these shares [layer, outcome] of unequal totals."""
    random = np.random.default_rng(2)
    n = pairs * len(languages)
    odds = shares[:, None] * random.uniform(0.9, 1.1, (len(shares), n, 4))
    p = odds / odds.sum(-1, keepdims=True) * random.uniform(0.3, 0.9, (1, n, 1))
    rest = np.broadcast_to([0.01, 0.02, 0.07, 0.7], (n, 4)) * random.uniform(0.8, 1, (n, 1))
    language = np.repeat(np.arange(len(languages)), pairs)
    items = tuple(f"u{i // 2}" for i in range(pairs)) * len(languages)
    return CarryOver(np.log(p), np.log(rest), OUTCOMES, tuple(languages), language, items)


def make_curve(
    alphas: Sequence[float] = (0.0, 0.5, 1.0, 2.0),
    turned: Sequence[float] = (0, 0.2, 0.9, 0.8),
    *,
    items: int = 40,
    toward: str = "zh",
    prompts_in: str = "en",
) -> SteeringCurve:
    """A curve with these shares turned; of the others every fifth is undetermined."""
    random = np.random.default_rng(1)
    guesses = [
        tuple(toward if i < t * items else None if i % 5 == 0 else prompts_in for i in range(items))
        for t in turned
    ]
    right = np.stack([np.arange(items) < (0.8 - 0.6 * t) * items for t in turned])
    tokens = random.integers(10, 60, (3, items)).astype(np.int64)
    nll = random.gamma(6, 0.2, (len(alphas), 3, items)) * tokens
    ids = tuple(f"i{i}" for i in range(items))
    return SteeringCurve(
        tuple(alphas), toward, prompts_in, (("",) * items,) * len(alphas), tuple(guesses), right,
        nll, tokens, ids, "add", f"{toward} (12 neurons)",
    )  # fmt: skip


def turning() -> np.ndarray:
    """Shares of 12 layers: the answer from layer 4 on, its language from layer 8 on."""
    rows = [[0.01, 0.02, 0.02, 0.95]] * 4 + [[0.05, 0.85, 0.02, 0.08]] * 4
    return np.array(rows + [[0.93, 0.03, 0.02, 0.02]] * 4)


def with_alike(result: CarryOver, place: int) -> CarryOver:
    """The answers of one language written alike."""
    values, before = result.log_probability.copy(), result.unpatched.copy()
    pairs = result.language == place
    values[:, pairs, 0] = values[:, pairs, 2] = np.nan
    before[np.ix_(pairs, [0, 2])] = np.nan
    return replace(result, log_probability=values, unpatched=before)


BIG = ((0.3, 0.01, 0.02), (1.2, 0.1, 0.03), (3.5, 3.1, 0.05))


# --- what is read from a figure -------------------------------------------------------------------

# What plotly reads as markup and the figures use.
MARKUP = {"br", "span", "/span", "b", "/b", "extra", "/extra"}


def title(figure: go.Figure) -> str:
    return unescape(figure.layout.title.text.replace("<br>", " "))


def subtitle(figure: go.Figure) -> str:
    return unescape(figure.layout.title.subtitle.text.replace("<br>", " "))


def ticks(figure: go.Figure, axis: str) -> list[str]:
    """The languages of an axis, in its order."""
    return [re.sub(r"<[^>]*>|■", "", tick).strip() for tick in figure.layout[axis].ticktext]


def lines(figure: go.Figure) -> dict[tuple[str, str], go.Scatter]:
    """Lines that carry numbers, by name and vertical axis."""
    drawn = [trace for trace in figure.data if trace.type == "scatter" and trace.hovertemplate]
    return {(line.name, line.yaxis): line for line in drawn}


def words(value: object) -> Iterator[str]:
    """Every string anywhere in the JSON of a figure."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        for item in value:
            yield from words(item)
    elif isinstance(value, str):
        yield value


def require_inert(figure: go.Figure) -> None:
    """Hostile names are shown and do nothing: no tags, no control characters, no formulas, and
    nothing that a hover template would fill in."""
    drawn = json.loads(figure.to_json())
    # Titles and notes as data are what is to be read, not what plotly draws: visible, not escaped.
    # So is what a trace opens on a report: names of a table there.
    told = [drawn["layout"].pop("meta"), *(one.pop("meta", "") for one in drawn["data"])]
    for text in words(told):
        assert not re.search("[\x00-\x1f\ud800-\udfff\u202e]", text), text
    for text in words(drawn):
        assert not set(re.findall(r"<(/?[a-z]*)", text)) - MARKUP, text
        assert not re.search("[\x00-\x1f\ud800-\udfff\u202e]", text), text
        assert "$" not in text, text
    fragment = plots.figure_fragment(figure)
    assert "<script>alert" not in fragment
    assert "<img" not in fragment
    templates = [trace.hovertemplate or "" for trace in figure.data]
    assert not any("evil" in text or "%{y} %{customdata[0]}" in text for text in templates)


def make_edges(
    languages: tuple[str, ...] = TEN, *, layers: int = 5, number: int = 8
) -> NeuronEdges:
    """Edges into L{layers}N3: the first source raises the first language most."""
    random = np.random.default_rng(0)
    value = random.normal(size=(layers, 20, len(languages))) * 0.1
    value[0, 7, 0] = 2.0
    flat = np.argsort(-np.abs(value).max(axis=-1).ravel())[:number]
    own = value.reshape(-1, len(languages))[flat]
    rest = np.full(len(languages), 0.25)
    return NeuronEdges(
        f"L{layers}N3",
        languages,
        value,
        rest + value.sum(axis=(0, 1)),
        rest,
        tuple(f"L{one // 20}N{one % 20}" for one in flat),
        own - 0.1,
        own + 0.2,
        own * 0.9,
        0.95,
    )


def make_reading(
    languages: Sequence[str] = TEN, *, layers: int = 12, items: int = 8
) -> LensLanguages:
    """A middle layer has the words of the first language; unequal texts."""
    random = np.random.default_rng(1)
    k, language = len(languages), np.repeat(np.arange(len(languages)), items)
    tokens = random.integers(5, 90, len(language))
    weight = tokens[:, None]
    elsewhere = np.tile(0.02 * weight, (layers, 1, k))
    translation = elsewhere * random.uniform(0.9, 1.1, (layers, len(language), k))
    translation[layers // 2, :, 0] += 0.2 * tokens
    mass = np.tile(weight * [0.7, 0.3], (layers, 1, 1))
    entropies = tokens * np.linspace(9, 2, layers)[:, None]
    return LensLanguages(
        entropies,
        mass,
        translation,
        elsewhere,
        tokens,
        language,
        tuple(f"i{i}" for i in range(items)) * k,
        tuple(languages),
        ("Latn", "none"),
        np.ones((len(language), k), np.int64),
        np.array([9, 8]),
        provenance=Provenance(model="lab/some-model", scope="response"),
    )
