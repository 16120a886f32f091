"""One page on which layers, neurons and texts answer each other, in a file that needs nothing.

The page holds the neurons of a model with their class, layer and languages, and, where a model is
given, the same texts in several languages, coloured by a neuron or by a set:

    a neuron      act_fn(hook_pre) on every token
    a set         share of the set's recorded neurons with hook_pre > 0 on every token

A layer, a class, a language or a token filters the neurons, a neuron recolours the texts, and a
slider moves tau: classes and profile follow. The page's address holds the view.

>>> import lensneurons as ln
>>> ln.explore(ln.load_sample("gemma-3-270m").neurons).save("gemma.html")        # doctest: +SKIP
>>> ln.explore(neurons, corpus, model=model)                                      # doctest: +SKIP
>>> ln.explore(neurons, {"en": "She has 3 apples.", "zh": "小明有3个苹果。"}, model=model)
...                                                                               # doctest: +SKIP

The bars of the slider are 0, 0.005, ..., 0.995 and the tau of the neurons. Of each probability the
page keeps how many of them it exceeds, one byte, so at every one of them it makes exactly the
classes that `identify` makes with that tau. An activation is kept in a byte as well, as a share of
the largest of its neuron, and its sign is exact: a neuron is active where it is positive.

What this does not show: another *selection*. A tau that `identify` is given may select other
neurons as well; here the slider changes classes alone. Nor does it show what a neuron does:
activity is no evidence of an effect.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int8, Int64, UInt8

from lensneurons.corpora.corpus import ParallelCorpus, load_corpus
from lensneurons.errors import LensNeuronsError, shown
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.running import runs_model
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.neurons.language_neurons import CLASSES, LanguageNeurons
from lensneurons.neurons.sets import NeuronSet, OneSet, chosen_set
from lensneurons.options import plain_options
from lensneurons.plots.labels import full_name, plain
from lensneurons.plots.style import CLASS_COLOURS, language_colour
from lensneurons.shapes import FlatNeurons
from lensneurons.tokens.characters import TextTokens
from lensneurons.tokens.prepared import UNTOLD, corpus_of_texts
from lensneurons.values.provenance import UNKNOWN
from lensneurons.views.page import View, label_of, read_texts, render, visible
from lensneurons.views.watched import watch_chosen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ReadTexts = ParallelCorpus | Mapping[str, Any] | str | Sequence[str]

STEPS = 200  # bars of the slider, beside tau itself: at most 254, so that a byte holds them
# Numbers of the page, neurons x characters; each takes 1.3 bytes of the file.
MOST_NUMBERS = 2_000_000
_UNTOUCHED = -128  # in place of an activation, where no token holds the characters
_SMALLEST = torch.finfo(torch.float32).tiny
_LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class ExploredText:
    """One text of the page.

    Attributes:
        item: which texts stand side by side: those with the same one.
        label: its name, or the tag of its language.
        gloss: the same in English, or nothing.
        read: the text, its tokens, and the spans of characters that they touch.
    """

    item: str
    label: str
    gloss: str
    read: TextTokens


@dataclass(frozen=True, eq=False, repr=False)
class Explorer(View):
    """Neurons, layers and texts on one page. Made by `explore`.

    Attributes:
        neurons: what is explored.
        texts: item by item.
        recorded: the neurons whose activations the page knows.
        activations: int8 [recorded, span], the largest activation among the tokens that touch a
            span, in 127ths of `ends`; above 0 exactly where the neuron is active on one of them;
            -128 where no token touches it.
        ends: float64 [recorded], the largest magnitude of each.
        candidates: how many neurons could have been recorded.
        items: how many items the corpus has.
    """

    neurons: LanguageNeurons
    texts: tuple[ExploredText, ...]
    recorded: NeuronSet
    activations: Int8[np.ndarray, "recorded span"]
    ends: Float64[np.ndarray, " recorded"]
    candidates: int
    items: int
    SCRIPTS: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """What is explored."""
        model = self.neurons.provenance.model
        name = "a model" if model == UNKNOWN else plain(model.rstrip("/").split("/")[-1], 48)
        unit = self.neurons.provenance.unit
        return f"{unit[0].upper()}{unit[1:]}s of {name}"

    @property
    def bars(self) -> Float64[np.ndarray, " bar"]:
        """The bars that the slider can stand at, rising: steps of 0.005, and the neurons' tau."""
        return np.unique([*(np.arange(STEPS) / STEPS), self.neurons.tau])

    @property
    def codes(self) -> UInt8[np.ndarray, "neuron language"]:
        """How many of the bars the probability of each neuron exceeds, by flat index.

        A probability exceeds bar i exactly where its code is above i.
        """
        p = self.neurons.probability.reshape(-1, len(self.neurons.languages))
        return np.searchsorted(self.bars, p, side="left").astype(np.uint8)

    def html(self, *, framed: bool = False) -> str:
        """Return a whole page that needs no network.

        Args:
            framed: for a frame of a page with a heading of its own. The name of the frame gives the
                first view, as ``"view:layer=3"``, and the page gets each view as a message.
        """
        parts = {"data": self._data(), "blobs": self._blobs()}
        return render("explorer.html.jinja", view=self, framed=framed, **parts)

    def __repr__(self) -> str:
        return (
            f"Explorer({self.title}: {self.neurons.selected.size:,} in {self.neurons.n_layers} "
            f"layers; {len(self.texts)} texts, {len(self.recorded):,} recorded)"
        )

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.html())}" sandbox="allow-scripts" '
            f'title="{escape(self.title)}" loading="lazy" '
            'style="width:100%;height:52rem;border:1px solid rgba(128,128,128,.35)"></iframe>'
        )

    def _blobs(self) -> dict[str, str]:
        """The arrays of the page, little-endian, in base64."""
        best = np.flatnonzero(self.neurons.selected)
        best = best[np.argsort(self.neurons.score.flat[best], kind="stable")]
        arrays = {
            "codes": self.codes,
            "best": best.astype("<i4"),
            "recorded": self.recorded.flat.astype("<i4"),
            "ends": self.ends.astype("<f4"),
            "activations": self.activations,
        }
        return {name: base64.b64encode(a.tobytes()).decode() for name, a in arrays.items()}

    def _data(self) -> dict[str, Any]:
        """All else of the page, as JSON."""
        found, bars = self.neurons, self.bars
        items: dict[str, list[ExploredText]] = {}
        for text in self.texts:
            items.setdefault(text.item, []).append(text)
        # Where each shows its own meaning, none stands above them all.
        common = {i: len({text.gloss for text in texts}) == 1 for i, texts in items.items()}
        return {
            "unit": found.provenance.unit,
            "layers": found.n_layers,
            "width": found.d_mlp,
            "experts": found.n_experts or 0,
            "languages": [[k, full_name(k), language_colour(k)] for k in found.languages],
            "classes": [[name, CLASS_COLOURS[name]] for name in CLASSES],
            "bars": bars.tolist(),
            "own": int(np.searchsorted(bars, found.tau)),
            "all": found.population == "all",
            "items": [
                {
                    "name": plain(item, _LONGEST_NAME),
                    "gloss": visible(texts[0].gloss) if common[item] else "",
                    "texts": [self._shown(text, own=not common[item]) for text in texts],
                }
                for item, texts in items.items()
            ],
        }

    def _shown(self, text: ExploredText, *, own: bool) -> dict[str, Any]:
        """One text for the page."""
        label, language = label_of(text.label)
        return {
            "label": label,
            "language": language,
            "gloss": visible(text.gloss) if own else "",
            "spans": [visible(span.text) for span in text.read.spans],
        }


@plain_options
def explore(
    neurons: LanguageNeurons,
    texts: ReadTexts | None = None,
    *,
    model: Any = None,
    record: OneSet | None = None,
    glosses: Sequence[str] | None = None,
    items: int = 6,
    most_numbers: int = MOST_NUMBERS,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Explorer:
    """Make one page of neurons, layers and texts that filter and colour each other.

    Args:
        neurons: what `identify` gives, or ``load_sample(...).neurons``.
        texts: a corpus, whose first items are shown in every language; a text or a list of texts;
            or a mapping from languages to a text or a list of texts each. None shows neurons and
            layers alone.
        model: the TransformerLens model that reads the texts; it stays as it is, and hooks that are
            on it act.
        record: the neurons whose activations on the texts are kept, a set, a name or names; None
            takes the selected and the language-agnostic ones. Beyond `most_numbers` they are drawn
            at random, as many of each class as there are, and the page says so.
        glosses: what the texts mean, in English: one for each item of a corpus that is shown, or
            for each text of a list. None takes the English text of an item.
        items: how many items of a corpus are shown.
        most_numbers: most activations on the page, neurons x spans of characters.
        tokenizer: reads the texts; by default the model's own, as it was saved.

    Returns:
        The page: a notebook shows it, and it can be saved as one file.

    Raises:
        LensNeuronsError: texts without a model, or a model without texts; neurons of another model;
            no text or an empty one; or glosses that are not as many as the items.
        CorpusError: a text is longer than the model's context, or has no tokens.
        ModelError: the model has no dense MLP neurons, or no tokenizer.
    """
    if texts is None:
        if model is not None or record is not None or glosses is not None:
            told = "model" if model is not None else "record" if record is not None else "glosses"
            raise LensNeuronsError(
                f"{told}= is given without texts: explore(neurons, corpus, model=model), or leave "
                "it out and see neurons and layers alone"
            )
        nothing = NeuronSet(np.array([], np.int64), neurons.n_layers, neurons.d_mlp, "recorded")
        return Explorer(neurons, (), nothing, np.zeros((0, 0), np.int8), np.zeros(0), 0, 0)
    if model is None:
        raise LensNeuronsError(
            "texts are coloured by what a model does on them: explore(neurons, texts, model=model),"
            " or leave the texts out"
        )
    if items < 1 or most_numbers < 1:
        name, given = ("items", items) if items < 1 else ("most_numbers", most_numbers)
        raise LensNeuronsError(f"{name}={given}: give 1 or more")
    site = neuron_site(model)
    if (site.n_layers, site.d_mlp) != (neurons.n_layers, neurons.d_mlp):
        raise LensNeuronsError(
            f"neurons of {neurons.n_layers} layers x {neurons.d_mlp}, but the model has "
            f"{site.n_layers} x {site.d_mlp}: give the model that they were identified in"
        )
    if record is not None:
        candidates = chosen_set(record, site.n_layers, site.d_mlp)
    else:
        candidates = NeuronSet.from_mask(neurons.selected) | neurons.agnostic
    read, total = _read(model, texts, glosses, items, tokenizer)
    spans = sum(len(text.read.spans) for text in read)
    if spans > most_numbers:
        raise LensNeuronsError(
            f"{spans:,} spans of characters to show, but most_numbers={most_numbers:,}: show fewer "
            "or shorter texts, or raise most_numbers"
        )
    flat = _sampled(
        candidates.flat, neurons.class_codes.flat[candidates.flat], most_numbers // spans
    )
    recorded = NeuronSet(flat, site.n_layers, site.d_mlp, "recorded")
    values = _recorded(model, site, recorded, [text.read for text in read])
    ends, small = _in_bytes(values)
    return Explorer(neurons, tuple(read), recorded, small, ends, len(candidates), total)


def _read(
    model: Any,
    texts: Any,
    glosses: Sequence[str] | None,
    most: int,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[list[ExploredText], int]:
    """The texts that are shown, item by item, with their tokens; and how many items there are."""
    if isinstance(texts, ParallelCorpus):
        corpus = texts
    elif isinstance(texts, Mapping):
        corpus = load_corpus({k: [v] if isinstance(v, str) else v for k, v in texts.items()})
    else:
        corpus = corpus_of_texts(texts)
    bare = corpus.languages == (UNTOLD,)
    ids = corpus.ids if bare else corpus.ids[:most]
    if glosses is not None and (isinstance(glosses, str) or len(glosses) != len(ids)):
        raise LensNeuronsError(
            f"glosses={shown(glosses)}: give a list of {len(ids)}, one for each "
            + ("text" if bare else f"item that is shown (items={most})")
        )
    kept = [item for item in corpus if item.id in set(ids)]
    kept.sort(key=lambda item: ids.index(item.id))
    english = {i.id: i.text for i in reversed(kept) if i.language.partition("-")[0] == "en"}
    meaning = english if glosses is None else dict(zip(ids, glosses, strict=True))
    own = tokenizer or original_tokenizer(model)
    _, read = read_texts(model, [item.text for item in kept], None, own)
    found = [
        ExploredText(
            item="texts" if bare else item.id,
            label=item.id if bare else item.language,
            gloss=meaning.get(item.id, ""),
            read=one,
        )
        for item, one in zip(kept, read, strict=True)
    ]
    return found, len(corpus.ids)


def _sampled(flat: FlatNeurons, codes: FlatNeurons, most: int) -> Int64[np.ndarray, " kept"]:
    """At most so many of some neurons, as many of each class as possible, always the same ones.

    Args:
        flat: the neurons.
        codes: the class of each.
        most: how many may stay.
    """
    if len(flat) <= most:
        return flat
    random = np.random.default_rng(0)
    groups = [random.permutation(flat[codes == code]) for code in range(len(CLASSES))]
    kept: list[np.ndarray] = []
    for left, group in zip(range(len(groups), 0, -1), sorted(groups, key=len), strict=True):
        kept.append(group[: (most - sum(map(len, kept))) // left])
    return np.sort(np.concatenate(kept))


@runs_model
def _recorded(
    model: Any, site: NeuronSite, neurons: NeuronSet, read: Sequence[TextTokens]
) -> Float32[np.ndarray, "recorded span"]:
    """The largest activation among the tokens that touch each span; NaN where there is none."""

    def activation(layer: int, pre: torch.Tensor) -> torch.Tensor:
        values = site.activations[layer](pre).float()
        # The sign says exactly where a neuron is active, also where a value underflows.
        return torch.where(pre > 0, values.clamp(min=_SMALLEST), values.clamp(max=0.0)).T.cpu()

    found = []
    seen = watch_chosen(model, site, neurons, read, activation)
    for one, parts in zip(read, seen, strict=True):
        values = torch.cat(parts).numpy() if parts else np.zeros((0, len(one.ids)), np.float32)
        found += _by_span(values, one)
    return np.stack(found, axis=1)


def _by_span(values: np.ndarray, read: TextTokens) -> Iterator[np.ndarray]:
    """The largest of the values [neuron, token] of each span's tokens."""
    for span in read.spans:
        if span.tokens:
            yield values[:, list(span.tokens)].max(axis=1)
        else:
            yield np.full(len(values), np.nan, np.float32)


def _in_bytes(
    values: Float32[np.ndarray, "recorded span"],
) -> tuple[Float64[np.ndarray, " recorded"], Int8[np.ndarray, "recorded span"]]:
    """The largest magnitude of each neuron, and its activations in 127ths of it, signs kept."""
    ends = np.nan_to_num(np.abs(values)).max(axis=1, initial=0).astype(np.float64)
    shares = np.rint(127 * values / np.where(ends > 0, ends, 1)[:, None])
    active: Bool[np.ndarray, "recorded span"] = values > 0
    signed = np.where(active, np.maximum(shares, 1), np.minimum(shares, 0))
    return ends, np.where(np.isnan(values), _UNTOUCHED, signed).astype(np.int8)
