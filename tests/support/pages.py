"""Values for a whole page, made up: every kind that a page can show, in ten scripts; a parser."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any

import before_after
import numpy as np
import pytest
from figure_values import make_carry, make_curve, make_lens, turning
from own_effects import of_neurons

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.card import NeuronCard, Weight, neuron_facts
from lensneurons.cards.contexts import Context
from lensneurons.cards.vocabulary import TokenValue, VocabularyEffect
from lensneurons.comparison.before_after import compare
from lensneurons.comparison.paper_claims import claims
from lensneurons.comparison.series import compare_series
from lensneurons.evaluation.answers import Accuracy, Answer
from lensneurons.evaluation.generation import Decoding
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.carrying import CarryOver
from lensneurons.experiments.lens import LensCurves
from lensneurons.experiments.steering import SteeringCurve
from lensneurons.experiments.without import Continuation, Continuations
from lensneurons.languages.detection import LanguageGuess
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import divide_layers
from lensneurons.samples import published_profile
from lensneurons.values.provenance import Provenance

LANGUAGES = ("en", "ru", "zh", "ja", "bn", "th", "ar", "he", "hi", "ko")
# Before, token, after; as they have to be read on the page.
TEXTS = {
    "en": ("Abigail has thirteen ", "stones", " and “two” more."),
    "ru": ("У Людмилы тринадцать ", "камней", " и ещё два."),
    "zh": ("小明有十三个", "苹果", "和两个梨。"),
    "ja": ("太郎さんは", "りんご", "を十三個持っています。"),
    "bn": ("রহিমের কাছে তেরোটি ", "আপেল", " আছে।"),
    "th": ("สมชายมี", "แอปเปิล", "สิบสามผล"),
    "ar": ("لدى ليلى ثلاث عشرة ", "تفاحة", " واثنتان."),
    "he": ("לדנה יש שלושה עשר ", "תפוחים", " ועוד שניים."),
    "hi": ("राम के पास तेरह ", "सेब", " हैं।"),
    "ko": ("민수는 ", "사과", " 열세 개를 가지고 있다."),
}
N_LAYERS, D_MLP = 8, 40
TRAINED = ("zh", "ja")
TOKENS = 1000  # of a group


@cache
def neurons(languages: tuple[str, ...] = LANGUAGES, d_mlp: int = D_MLP) -> LanguageNeurons:
    """Neurons of every class, most of them selected."""
    random = np.random.default_rng(3)
    shape = (N_LAYERS, d_mlp, len(languages))
    often = random.choice([0.05, 0.2, 0.95], (*shape[:2], 1), p=[0.5, 0.4, 0.1])
    high = random.random(shape) < often
    p = np.where(high, random.uniform(0.5, 1, shape), random.uniform(0, 0.2, shape))
    p = np.round(p * TOKENS) / TOKENS
    return LanguageNeurons(
        languages=languages,
        probability=p,
        score=random.random(shape[:2]),
        selected=high.any(-1) & (random.random(shape[:2]) < 0.8),
        tau=0.4,
        tau_origin="given",
        lambda_=None,
        lambda_origin="none",
        score_name="lape",
        top_rate=0.5,
        provenance=Provenance(model="made/up-model", weights="w1", versions={"torch": "2.13"}),
    )


def many_languages() -> LanguageNeurons:
    """The same in a hundred languages, with more neurons than a page lists."""
    return neurons(tuple(f"x{number:03d}" for number in range(100)), 700)


def runs() -> tuple[ActivationStatistics, ActivationStatistics]:
    """What the neurons were identified from, in six groups; and a later run, with other counts."""
    found, random = neurons(), np.random.default_rng(8)
    tokens = np.full((6, len(LANGUAGES)), TOKENS, np.int64)
    first = np.repeat(np.round(found.probability * TOKENS).astype(np.int64)[None], 6, axis=0)
    later = np.where(random.random(found.score.shape) < 0.3, 1.0, 0.0)[..., None] * TOKENS
    later = np.maximum(first, later.astype(np.int64))
    before = ActivationStatistics(LANGUAGES, first, tokens, provenance=found.provenance)
    other = replace(found.provenance, model="made/up-later", weights="w2")
    return before, ActivationStatistics(LANGUAGES, later, tokens, provenance=other)


def card(found: LanguageNeurons, name: str, texts: dict[str, tuple[str, str, str]]) -> NeuronCard:
    """A card with one text a language, and every token of the texts among those promoted."""
    contexts = [Context(name, k, "item-1", 3, 1.5, *texts[k]) for k in texts]
    tokens = tuple(
        TokenValue(i, text[1], 2.0, 5.0 - i / 10) for i, text in enumerate(texts.values())
    )
    return NeuronCard(
        facts=neuron_facts(found, name),
        contexts=tuple(contexts),
        vocabulary=VocabularyEffect(name, tokens, tokens[:2], tokens[2:4], 5000),
        importance={"plnd": {k: Weight(0.25, 1 + i) for i, k in enumerate(found.languages)}},
        effect=dict.fromkeys(found.languages, 0.125),
        effect_interval=dict.fromkeys(found.languages, (0.0625, 0.25)),
        n_neurons=found.score.size,
        source="made up, response tokens",
    )


def best(found: LanguageNeurons, number: int) -> list[str]:
    """Names of the neurons at the head of the table."""
    listed = np.argwhere(found.selected & (found.n_above > 0))
    order = np.argsort(found.score[tuple(listed.T)], kind="stable")[:number]
    return [f"L{layer}N{neuron}" for layer, neuron in listed[order].tolist()]


def with_scoreless(found: LanguageNeurons) -> tuple[LanguageNeurons, str]:
    """The neurons as LAPE leaves them: those above tau nowhere have no score; and one of them."""
    score = np.where(found.n_above == 0, np.inf, found.score)
    layer, neuron = np.argwhere(found.n_above == 0)[0]
    return replace(found, score=score), f"L{layer}N{neuron}"


def matrix(languages: tuple[str, ...] = LANGUAGES, *, items: int = 6) -> AblationMatrix:
    """Every language hurts itself by about 1, others by about 0.1; random neurons do 0.05."""
    random = np.random.default_rng(5)
    k = len(languages)
    language = np.repeat(np.arange(k), items)
    own = np.arange(k)[:, None] == language
    effect = np.where(own, 1.0, 0.1) * random.uniform(0.8, 1.2, (2, k, k * items))
    effect[0] /= 4
    return AblationMatrix(
        rows=languages,
        languages=languages,
        classes=("specific", "related"),
        matches=("own", "activity", "layer"),
        metric="nll",
        base=np.ones(k * items),
        effect=effect,
        control=np.stack([np.full_like(effect, level) for level in (0.07, 0.05, 0.01)]),
        weight=np.ones(k * items),
        language=language,
        item_ids=tuple(f"i{i}" for i in range(items)) * k,
        draws=20,
        provenance=Provenance(model="made/up-model", weights="w1"),
        **of_neurons(neurons(languages), ("specific", "related"), 4),
    )


def accuracy(*, aligned: bool = False) -> Accuracy:
    """Three answers a language: one right, one in another language, one wrong.

    The aligned model is right where the language was another one.
    """
    answers = []
    for k in ("en", "th"):
        for number, spoken in ((7.0, k), (7.0, "fr"), (8.0, k)):
            guess = LanguageGuess(k if aligned else spoken, 0.9, "Latn")
            answers.append(Answer(f"i{len(answers)}", k, "…", 7.0, number, guess, True))
    model = {"model": "aligned", "weights": "w3"} if aligned else {"model": "another"}
    return Accuracy(tuple(answers), Decoding(), Provenance(**{"weights": "w2", **model}))


def steering() -> SteeringCurve:
    """Three strengths; the strongest turns every text."""
    return make_curve((0.0, 1.0, 2.0), (0, 0.5, 1.0), items=12)


def carried() -> CarryOver:
    """From one language to two others, in the layers of the page's model."""
    return make_carry(turning()[2:10], ("ja", "th"))


def lens() -> LensCurves:
    """Three languages in the layers of the page's model."""
    return make_lens(("en", "zh", "th"), layers=N_LAYERS, items=4)


def continued() -> Continuations:
    """One prompt: whole, without the neurons of Thai, and without random ones."""
    rows = (
        Continuation("whole", None, "Answer: 7", 0.25),
        Continuation("without", 0.0, "Answer: <8>", 1.5),
        Continuation("random", 0.0, "Answer: 7", 0.5),
    )
    return Continuations(
        rows, "3 + 4 & so on", "Answer: 7", 4, "th: 12 neurons", "scaled, by factor", "as active"
    )


@cache
def everything() -> dict[str, Any]:
    """The arguments of `report`, all of them; treat as read-only."""
    found = neurons()
    before, after = runs()
    change = compare(before, after, trained=TRAINED, tau=found.tau)
    checkpoints = {"0": before, "500": after, "1000": after}
    return {
        "neurons": found,
        "parts": divide_layers(found),
        "cards": [card(found, name, TEXTS) for name in best(found, 2)],
        "effects": [matrix()],
        "comparison": change,
        "claims": claims(change, parts=before_after.PARTS),
        "series": compare_series(checkpoints, trained=TRAINED, tau=found.tau),
        "accuracy": accuracy(),
        "aligned_accuracy": accuracy(aligned=True),
        "steering": steering(),
        "carry_over": carried(),
        "lens": lens(),
        "continuations": [continued()],
        "beside": {"the paper's": published_profile("mistral-7b")},
        "title": "Everything at once",
        "notes": ["Nothing here was measured."],
    }


VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, the text outside of scripts, and the blocks of JSON."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.blocks: dict[str, Any] = {}
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        within = self.elements[-1][1] if self.elements else {}
        if inside == "script" and within.get("type") == "application/json":
            self.blocks[within["id"]] = json.loads(data, parse_constant=pytest.fail)  # as a browser
        elif inside not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
