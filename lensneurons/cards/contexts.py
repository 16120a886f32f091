"""The texts that excite a neuron most, in every language.

For each neuron and language the k counted tokens with the largest activation

    act_fn(hook_pre) > 0

with the text around them. While the corpus streams through the model, only k values and their
places are kept for each neuron, 24 bytes each; the text is cut out at the end. Each item gives at
most one token in each language (`per_item`), so that one text cannot fill the list.

>>> contexts = top_contexts(model, corpus, neurons["zh"], k=3)          # doctest: +SKIP
>>> contexts.of("L12N345", "zh")[0]                                     # doctest: +SKIP
Context(L12N345 zh item-7 @31 2.410: '小明有3个' >苹果< '。他又买了')

What this does not show: what the neuron does on usual text. The strongest activations are the tip:
a neuron that seems to mean one thing there may mean another where it is weakly active (Bolukbasi et
al. 2021, arXiv 2104.07143). And only what the corpus says can be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from lensneurons.errors import LensNeuronsError, choose
from lensneurons.models.forward import to_device, watching
from lensneurons.models.running import runs_model
from lensneurons.models.sites import NeuronSite, neuron_site
from lensneurons.neurons.sets import NeuronSet, OneSet, chosen_set
from lensneurons.options import plain_options
from lensneurons.tokens.batches import Batch
from lensneurons.tokens.characters import Excerpts, excerpt_html
from lensneurons.tokens.encoding import Scope, exact_backend
from lensneurons.tokens.prepared import Texts, prepare
from lensneurons.values.base import Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("neuron", "language", "item", "position", "activation", "before", "token", "after")
_SHOWN = 60


@dataclass(frozen=True, slots=True, repr=False)
class Context:
    """One token that excites a neuron, with the text around it.

    Attributes:
        neuron: name of the neuron.
        language: language of the text.
        item: id of the item.
        position: place of the token in its text, special tokens included.
        activation: ``act_fn(hook_pre)`` there, to 13 bits (four digits).
        before: the characters in front of the token, at most `window`.
        token: the characters that the token holds, or is a part of.
        after: the characters behind it.
    """

    neuron: str
    language: str
    item: str
    position: int
    activation: float
    before: str
    token: str
    after: str

    def __repr__(self) -> str:
        text = f"{self.before[-12:]!r} >{self.token}< {self.after[:12]!r}"
        where = f"{self.neuron} {self.language} {self.item} @{self.position}"
        return f"Context({where} {self.activation:.3f}: {text})"

    def to_html(self) -> str:
        """The text with its token marked, escaped."""
        return excerpt_html(self.before, self.token, self.after, language=self.language)


@dataclass(frozen=True, repr=False)
class Contexts(Value):
    """The strongest contexts of some neurons, in every language. Made by `top_contexts`.

    Attributes:
        rows: neuron by neuron, language by language, the strongest first. A neuron that is not
            active on k items of a language has fewer there, or none.
        neurons: the neurons that were looked at.
        languages: the languages of the corpus.
        k: most contexts of a neuron and language.
        provenance: where they come from.
    """

    FILE_KIND = "contexts"

    rows: tuple[Context, ...]
    neurons: NeuronSet
    languages: tuple[str, ...]
    k: int
    provenance: Provenance = field(default_factory=Provenance)

    def of(self, neuron: str, language: str | None = None) -> tuple[Context, ...]:
        """The contexts of one neuron, in one language or in all, the strongest first.

        Raises:
            LensNeuronsError: the neuron was not looked at, or the language is not there.
        """
        if neuron not in self.neurons:
            raise LensNeuronsError(f"{neuron} is not among the {len(self.neurons)} neurons here")
        if language is not None:
            choose(language, self.languages, "language")
        return tuple(r for r in self.rows if r.neuron == neuron and language in (None, r.language))

    def to_pandas(self) -> pd.DataFrame:
        """One row a context, with the columns of `Context`."""
        import pandas as pd

        return pd.DataFrame(list(map(asdict, self.rows)), columns=list(COLUMNS))

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Numbers as arrays, texts column by column."""
        arrays = {
            "flat": self.neurons.flat,
            "position": np.array([row.position for row in self.rows], np.int64),
            "activation": np.array([row.activation for row in self.rows], np.float64),
        }
        model = (self.neurons.n_layers, self.neurons.d_mlp, self.neurons.label)
        texts = {n: [getattr(r, n) for r in self.rows] for n in COLUMNS if n not in arrays}
        details = {"languages": self.languages, "k": self.k, "model": model, "texts": texts}
        return arrays, {**details, "provenance": self.provenance.to_dict()}

    @classmethod
    def _unpack(cls, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> Contexts:
        columns = details["texts"] | {n: arrays[n].tolist() for n in ("position", "activation")}
        return cls(
            rows=tuple(Context(*row) for row in zip(*(columns[n] for n in COLUMNS), strict=True)),
            neurons=NeuronSet(arrays["flat"], *details["model"]),
            languages=tuple(details["languages"]),
            k=details["k"],
            provenance=Provenance.from_dict(details["provenance"]),
        )

    def _brief(self) -> str:
        numbers = ((self.rows, "context"), (self.neurons, "neuron"), (self.languages, "language"))
        told = [f"{len(of)} {name}{'s' * (len(of) != 1)}" for of, name in numbers]
        return f"{told[0]} of {told[1]} in {told[2]}, at most {self.k} each"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(row.neuron)}</td><td>{escape(row.language)}</td>"
            f"<td>{row.activation:.3f}</td><td style='text-align:left'>{row.to_html()}</td></tr>"
            for row in self.rows[:_SHOWN]
        )
        more = f"; the first {_SHOWN} are shown" if len(self.rows) > _SHOWN else ""
        head = "".join(f"<th>{name}</th>" for name in ("neuron", "language", "activation", "text"))
        return (
            f"<table><caption>{escape(repr(self) + more)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


@plain_options
@runs_model
def top_contexts(
    model: Any,
    corpus: Texts,
    neurons: OneSet,
    *,
    k: int = 5,
    scope: Scope | None = None,
    per_item: int = 1,
    window: int = 40,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> Contexts:
    """Find the tokens on which each neuron of a set is most active, language by language.

    Args:
        model: a TransformerLens model; it is not changed, and hooks that are on it act.
        corpus: the texts: a corpus, prepared or not, a text, or a list of texts.
        neurons: what to look at: a set, a neuron's name, or several; a few thousand are fine.
        k: most contexts of a neuron and language.
        scope: which tokens count, as for `collect`.
        per_item: most tokens of one item in one language; `k` lifts the restriction.
        window: most characters before and after the token.
        batch_tokens: most tokens in a batch, padding included.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Returns:
        The contexts. Equal activations are ordered by text, as in the corpus, then by position.

    Raises:
        ModelError: the model has no dense MLP neurons, or no tokenizer.
        CorpusError: a text has no counted token, or is longer than the model's context.
        LensNeuronsError: neurons of another model, or an option that leaves nothing.
    """
    site = neuron_site(model)
    neurons = chosen_set(neurons, site.n_layers, site.d_mlp)
    if not len(neurons):
        raise LensNeuronsError(f"{neurons!r} holds no neurons: give one or more to look at")
    for name, value, least in (("k", k, 1), ("per_item", per_item, 1), ("window", window, 0)):
        if value < least:
            raise LensNeuronsError(f"{name}={value}: give {least} or more")
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    items, languages = prepared.corpus.items, prepared.encoded.languages
    kept = _Kept(neurons, site, languages, k, per_item)
    batches = 0
    with watching(model, site, kept.watch) as run:
        for kept.batch in prepared.read(batch_tokens, "contexts", progress=progress):
            run(to_device(model, kept.batch.tokens), None)
            batches += 1
    if kept.seen != batches * len(kept.layers):
        raise LensNeuronsError(
            f"hook_pre of {len(kept.layers)} layers fired {kept.seen} times in {batches} batches: "
            "contexts would be missing"
        )
    backend = exact_backend(prepared.tokenizer, [items[0].text])
    cut = Excerpts([item.text for item in items], backend, window)
    rows = tuple(
        Context(name, language, items[text].id, position, value, *cut(text, position))
        for name, language, value, text, position in kept.strongest()
    )
    return Contexts(rows, neurons, languages, k, prepared.provenance())


class _Kept:
    """The strongest activations so far of each neuron in each language, and where they were."""

    def __init__(
        self, neurons: NeuronSet, site: NeuronSite, languages: tuple[str, ...], k: int,
        per_item: int,
    ) -> None:  # fmt: skip
        self.activations, self.languages, self.per_item = site.activations, languages, per_item
        self.layers = {n: torch.from_numpy(chosen) for n, chosen in neurons.by_layer().items()}
        self.batch: Batch | None = None
        self.seen = 0
        # Layer and language to values [neuron, k] and places [neuron, k, 2]: text and position.
        self.best = {
            (layer, language): (
                np.full((len(chosen), k), -np.inf),
                np.zeros((len(chosen), k, 2), np.int64),
            )
            for layer, chosen in self.layers.items()
            for language in languages
        }

    def watch(self, layer: int, pre: torch.Tensor) -> None:
        """Take what is strongest in one layer of the current batch."""
        if self.batch is None or layer not in self.layers:
            return
        self.seen += 1
        chosen = pre.detach()[..., self.layers[layer].to(pre.device)]
        values = _rounded(self.activations[layer](chosen.float()).cpu().numpy())
        values = np.where(self.batch.counted.numpy()[..., None], values, -np.inf)
        more, more_places = _strongest_of_each(values, self.batch.rows, self.per_item)
        values, places = self.best[layer, self.batch.language]
        k = values.shape[1]
        values = np.concatenate([values, more], axis=1)
        places = np.concatenate([places, more_places], axis=1)
        # The k strongest; equal ones by text, then by position.
        order = np.lexsort((places[..., 1], places[..., 0], -values), axis=1)[:, :k]
        self.best[layer, self.batch.language] = (
            np.take_along_axis(values, order, axis=1),
            np.take_along_axis(places, order[..., None], axis=1),
        )

    def strongest(self) -> Iterator[tuple[str, str, float, int, int]]:
        """Neuron, language, activation, text, position: in this order, strongest first."""
        for layer, chosen in self.layers.items():
            for place, neuron in enumerate(chosen.tolist()):
                for language in self.languages:
                    values, places = (part[place] for part in self.best[layer, language])
                    for value, (text, position) in zip(values, places.tolist(), strict=True):
                        if value > 0:
                            yield f"L{layer}N{neuron}", language, float(value), text, position


def _rounded(values: np.ndarray) -> np.ndarray:
    """Values to 13 bits.

    The same words at the beginning of two texts give the same activation but for the rounding of
    another batch, about 1e-6 of it, which must not decide the order.
    """
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 2**13) / 2**13, exponent)


def _strongest_of_each(
    values: np.ndarray, rows: np.ndarray, per_item: int
) -> tuple[Float64[np.ndarray, "neuron k"], Int64[np.ndarray, "neuron k 2"]]:
    """The strongest positions of each text of a batch [batch, pos, neuron], by neuron."""
    if per_item == 1:  # a tenth of the work of sorting; both keep the first of equal ones
        where = values.argmax(axis=1)[:, None]
    else:
        where = np.argsort(-values, axis=1, kind="stable")[:, :per_item]
    best = np.take_along_axis(values, where, axis=1)
    places = np.stack(np.broadcast_arrays(rows[:, None, None], where), axis=-1)
    n = values.shape[-1]
    return (
        best.transpose(2, 0, 1).reshape(n, -1).astype(np.float64),
        places.transpose(2, 0, 1, 3).reshape(n, -1, 2).astype(np.int64),
    )
