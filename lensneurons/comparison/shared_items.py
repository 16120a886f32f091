"""In how many languages is a neuron active on one and the same item?

The activation probability of a neuron adds up all texts of a language. Two languages can have the
same p and never be active on the same content. For parallel items i, with the share of counted
tokens of the text of item i in language k on which neuron j is active,

    on[k, i, j]   if (active counted tokens) / (counted tokens) > bar
    N[i, j]       = sum over k of on[k, i, j]
    state         none: N = 0    one: N = 1    some: 1 < N < K    all: N = K

and the result is the share of items in each state, by neuron, and its mean by class and layer.

* **Expected**: the share if the languages did not look at the same content, which is the mean over
  all ways to shuffle the items of each language on its own. It is exact, without any draw: with
  q_k the share of items on which j is on in language k, N is then a sum of independent coins,
  ``P(none) = prod_k (1 - q_k)``, ``P(all) = prod_k q_k``,
  ``P(one) = sum_k q_k prod_{m != k} (1 - q_m)``.
* **Excess**: the share less that. A neuron that is always on is on in all languages at once by
  chance too, so only the excess tells of sharing.
* **Interval**: a jackknife over up to `GROUPS` groups of items, with Student's t, of both numbers.
* **p**: items are shuffled within each language, the same way for all neurons, within blocks of up
  to `BLOCK` neighbouring items; the share of `draws` shuffles (and of the items as they are) whose
  mean lies as far from their centre, on either side. Not corrected for the number of rows.

Memory is flat in the number of items: a block is read in all its languages, counted, and forgotten.
It holds ``languages * BLOCK`` bytes a neuron, and counts of ``4 * languages * GROUPS`` bytes.

>>> shared = item_sharing(model, corpus, neurons)                        # doctest: +SKIP
>>> shared.to_pandas().query("state == 'all'")                           # doctest: +SKIP

Simulated with neurons that follow few topics (tests/comparison/test_shared_items.py): p is at most
.05 in 2 to 7 % of corpora where nothing is shared; intervals of 95 % hold the truth in 91 to 97 %
of corpora of 20 items, and in 94 to 98 % of 40.

What this does not show: what is shared. Translations are alike in length, digits and names as well
as in meaning. A short text is above a bar, or below it, by few tokens, so the same neuron has less
excess on short texts. Items are taken for independent; sentences of one article are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64

from lensneurons.activations.items import whole_items
from lensneurons.activations.sites import Reader, reader_of
from lensneurons.comparison.coupled_neurons import FEWEST, GROUPS, classes_among
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError
from lensneurons.models.running import runs_model
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.options import plain_options
from lensneurons.shapes import NeuronNumbers
from lensneurons.tokens.batches import divide, make_batch
from lensneurons.tokens.encoding import EncodedCorpus, Scope
from lensneurons.tokens.prepared import PreparedCorpus, prepare
from lensneurons.uncertainty.groups import jackknife_interval, require_level
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

State = Literal["none", "one", "some", "all"]
STATES: tuple[State, ...] = get_args(State)
BLOCK = 32  # items that are read together
PARTS = ("share", "low", "high", "expected", "excess", "excess_low", "excess_high", "p")
ByState = Float64[np.ndarray, "class layers state"]
OfNeurons = Float64[np.ndarray, "layer neuron state"]
Active = Bool[np.ndarray, "language item layer neuron"]


@dataclass(frozen=True, eq=False, repr=False)
class ItemSharing(Value):
    """In how many languages neurons are active on the same items. Made by `item_sharing`.

    Attributes:
        languages: codes.
        n_items: items with counted tokens in every language.
        left_out: items without.
        bar: a neuron is active on a text if its share of active tokens is above this.
        classes: ``"all"`` neurons, then the classes where neurons were given.
        neuron: float64 [layer, neuron, state], share of items, in the order of `STATES`: active in
            no language, one, some, all. They add up to 1.
        neuron_expected: the same if each language's items were shuffled.
        share: float64 [class, layer + 1, state], mean over the neurons of a class; the last layer
            is all layers together. NaN where there are none.
        low: lower end of its interval.
        high: upper end.
        expected: the share if each language's items were shuffled.
        excess: share less expected.
        excess_low: lower end of its interval.
        excess_high: upper end.
        p: of the share, two-sided, of shuffled items.
        draws: shuffles.
        level: coverage of the intervals.
        provenance: model and texts.
    """

    FILE_KIND: ClassVar = "sharing by item"
    AXES: ClassVar = {
        "neuron": ("layer", "neuron", "state"),
        "neuron_expected": ("layer", "neuron", "state"),
    }
    COORDINATES: ClassVar = {"state": "states"}

    languages: tuple[str, ...]
    n_items: int
    left_out: int
    bar: float
    classes: tuple[str, ...]
    neuron: OfNeurons
    neuron_expected: OfNeurons
    share: ByState
    low: ByState
    high: ByState
    expected: ByState
    excess: ByState
    excess_low: ByState
    excess_high: ByState
    p: ByState
    draws: int
    level: float
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def states(self) -> tuple[State, ...]:
        """The order of every last axis: none, one, some, all."""
        return STATES

    def to_pandas(self) -> pd.DataFrame:
        """One row a class, layer (NA: all) and state: share, expected, excess, ends, p."""
        import pandas as pd

        layers = [*range(len(self.neuron)), None]
        rows = [(name, layer, one) for name in self.classes for layer in layers for one in STATES]
        table = pd.DataFrame(rows, columns=["class", "layer", "state"]).astype({"layer": "Int64"})
        return table.assign(**{name: getattr(self, name).ravel() for name in PARTS})

    def _brief(self) -> str:
        told = ", ".join(
            f"{name} {one:.3f}" for name, one in zip(STATES, self.share[0, -1], strict=True)
        )
        of = f"{self.n_items} items in {len(self.languages)} languages"
        return f"{of}, active above {self.bar:.3g}: {told}"

    def _overview(self) -> Overview:
        head = ("class", *(f"{state} (beyond chance)" for state in STATES))
        cells = np.stack([self.share, self.excess, self.excess_low, self.excess_high], -1)[:, -1]
        rows = [
            (name, *(f"{s:.3f} ({e:+.3f} [{a:+.3f}, {b:+.3f}])" for s, e, a, b in row))
            for name, row in zip(self.classes, cells, strict=True)
        ]
        return Overview(
            f"{self!r}. Share of items by languages in which neurons are active", head, rows
        )


@plain_options
@runs_model
def item_sharing(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    neurons: LanguageNeurons | None = None,
    *,
    bar: float | None = None,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
    scope: Scope | None = None,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> ItemSharing:
    """Count, neuron by neuron, in how many languages it is active on the same item.

    Args:
        model: a TransformerLens model; hooks that are on it act.
        corpus: parallel items, prepared or not. Items that lack one of its languages are left out.
        neurons: classes of the same neurons (N alone, of all neurons), for a mean of each class.
        bar: a neuron is active on a text if it is on more than this share of its counted tokens,
            0 to 1; None for tau of `neurons`, or one half without them. 0 means on any token.
        draws: shuffles of the items; the smallest p is ``1 / (draws + 1)``.
        level: coverage of the intervals.
        seed: of the shuffles.
        scope: which tokens count, as for `collect`.
        batch_tokens: most tokens in a batch, padding included.
        tokenizer: encodes the corpus; None for the model's own, as it was saved.
        progress: show a progress bar, in texts.

    Raises:
        LensNeuronsError: one language alone, fewer than `FEWEST` whole items, no draw, a bar
            outside [0, 1), or neurons of another shape or other weights.
        CorpusError: texts that cannot be read.
        ModelError: the model has no dense MLP neurons, or no tokenizer.
    """
    from tqdm.auto import tqdm

    require_level(level)
    if bar is None:
        bar = 0.5 if neurons is None else neurons.tau
    if draws < 1 or not 0 <= bar < 1:
        raise LensNeuronsError(
            f"draws={draws}, bar={bar}: give 1 draw or more, and a share of tokens from 0 to"
            " below 1"
        )
    prepared = prepare(model, corpus, scope=scope, tokenizer=tokenizer)
    encoded, provenance = prepared.encoded, prepared.provenance()
    rows, left_out = _rows_of_items(encoded)
    if len(encoded.languages) < 2 or len(rows) < FEWEST:
        raise LensNeuronsError(
            f"{len(rows)} items in all of {len(encoded.languages)} languages: sharing needs two"
            f" languages and {FEWEST} items or more"
        )
    shape = (prepared.site.n_layers, prepared.site.d_mlp)
    classes, codes = classes_among(shape, provenance, neurons)
    tally = Tally(len(encoded.languages), len(rows), codes, len(classes), draws=draws, seed=seed)
    reader, done = reader_of("neurons", model, branches=False), 0
    with (
        reader.watching() as forward,
        tqdm(total=rows.size, desc="items", unit="text", disable=not progress) as shown,
    ):
        for block in np.array_split(rows, -(-len(rows) // BLOCK)):
            active = np.zeros((block.shape[1], len(block), *shape), bool)
            for language, places in _batches(encoded, block, batch_tokens):
                texts = block[places, language]
                counts = _read(reader, forward, encoded, texts)
                length = (encoded.stop - encoded.start)[texts]
                active[language, places] = counts > bar * length[:, None, None]
                shown.update(len(places))
            tally.add(active, done)
            done += len(block)
    return ItemSharing(
        languages=encoded.languages,
        n_items=len(rows),
        left_out=left_out,
        bar=bar,
        classes=classes,
        **tally.result(level),
        draws=draws,
        level=level,
        provenance=provenance,
    )


def _rows_of_items(encoded: EncodedCorpus) -> tuple[np.ndarray, int]:
    """Numbers of the texts [item, language] of the items that have all, and how many have not."""
    kept, left_out = whole_items(encoded)
    place = {name: number for number, name in enumerate(kept)}
    rows = np.zeros((len(kept), len(encoded.languages)), np.int64)
    for number, (name, language) in enumerate(zip(encoded.item_ids, encoded.language, strict=True)):
        if name in place:
            rows[place[name], language] = number
    return rows, left_out


def _batches(
    encoded: EncodedCorpus, block: np.ndarray, batch_tokens: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of the texts [item, language] of a block: a language, and which items."""
    for language, rows in enumerate(block.T):
        order = np.argsort(-encoded.lengths[rows], kind="stable")
        for part in divide(encoded.lengths[rows[order]], batch_tokens):
            yield language, order[part]


def _read(reader: Reader, forward: Any, encoded: EncodedCorpus, rows: np.ndarray) -> np.ndarray:
    """Active counted tokens of some texts of one language, int64 [row, layer, neuron]."""
    batch = make_batch(encoded, rows)
    reader.groups = np.arange(len(rows))
    reader.run(forward, batch)
    return np.stack([reduced.counts for reduced in reader.reduced], axis=1)


class Tally:
    """Running counts of items by state, of which each block is forgotten once it is added.

    Attributes:
        on: int32 [group, language, layer, neuron], items on which a neuron is active.
        states: int32 [layer, neuron, state], items in each state.
        found: float64 [group, class, layer, state], the same summed over the neurons of a class.
        drawn: float64 [draw, class, layer, state], over the items of all groups, shuffled.
        items: int64 [group].
        number: float64 [class, layer], neurons of a class.
    """

    def __init__(
        self,
        n_languages: int,
        n_items: int,
        codes: NeuronNumbers,
        n_classes: int,
        *,
        draws: int,
        seed: int,
    ) -> None:
        groups, shape = min(GROUPS, n_items), codes.shape
        self.on = np.zeros((groups, n_languages, *shape), np.int32)
        self.states = np.zeros((*shape, len(STATES)), np.int32)
        self.found = np.zeros((groups, n_classes, shape[0], len(STATES)))
        self.drawn = np.zeros((draws, n_classes, shape[0], len(STATES)))
        self.items = np.zeros(groups, np.int64)
        self._codes, self._random = codes, np.random.default_rng(seed)
        self.number = self._by_class(np.ones((*shape, 1)))[..., 0]

    def add(self, active: Active, first: int) -> None:
        """Add a block of items.

        Args:
            active: bool [language, item, layer, neuron].
            first: number of the first item.
        """
        n_languages, n_items = active.shape[:2]
        groups = (first + np.arange(n_items)) % len(self.items)
        for group in np.unique(groups):
            own = active[:, groups == group]
            self.on[group] += own.sum(axis=1, dtype=np.int32)
            self.items[group] += own.shape[1]
            states = _states(own.sum(axis=0, dtype=np.uint8), n_languages)
            self.states += states
            self.found[group] += self._by_class(states)
        places = np.arange(n_items)
        for draw in self.drawn:
            total = np.zeros(active.shape[1:], np.uint8)
            for language in active:
                total += language[self._random.permutation(places)]
            draw += self._by_class(_states(total, n_languages))

    def result(self, level: float) -> dict[str, np.ndarray]:
        """The arrays of `ItemSharing`."""
        n_items, whole = int(self.items.sum()), self.on.sum(axis=0)
        neuron_expected = _expected(whole / n_items)
        left = n_items - self.items[:, None, None, None]
        share = self._mean(self.found.sum(axis=0) / n_items)
        less = self._mean((self.found.sum(axis=0) - self.found) / left)
        expected = self._mean(self._by_class(neuron_expected))
        expected_less = np.stack(
            [
                self._mean(self._by_class(_expected((whole - on) / (n_items - n))))
                for on, n in zip(self.on, self.items, strict=True)
            ]
        )
        ends = jackknife_interval(share, less, level=level)
        excess = jackknife_interval(share - expected, less - expected_less, level=level)
        drawn = self._mean(self.drawn / n_items)
        centre = (drawn.sum(axis=0) + share) / (len(drawn) + 1)
        far = np.abs(drawn - centre) >= np.abs(share - centre) - 1e-12
        p = (1 + far.sum(axis=0)) / (len(drawn) + 1)
        return {
            "neuron": self.states / n_items,
            "neuron_expected": neuron_expected,
            "share": share,
            "low": ends.low.clip(0, 1),
            "high": ends.high.clip(0, 1),
            "expected": expected,
            "excess": excess.estimate,
            "excess_low": excess.low,
            "excess_high": excess.high,
            "p": np.where(np.isnan(share), np.nan, p),
        }

    def _by_class(self, values: np.ndarray) -> np.ndarray:
        """Values [layer, neuron, state] summed over the neurons of each class."""
        n_classes = self.found.shape[1]
        total = np.zeros((n_classes, len(values), values.shape[-1]))
        total[0] = values.sum(axis=1)
        for code in range(n_classes - 1):
            total[code + 1] = np.einsum("ljs,lj->ls", values, self._codes == code)
        return total

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        """Means [..., class, layer + 1, state] of sums [..., class, layer, state] over neurons."""
        sums = np.concatenate([sums, sums.sum(axis=-2, keepdims=True)], axis=-2)
        number = np.append(self.number, self.number.sum(axis=-1, keepdims=True), axis=-1)
        number = np.broadcast_to(number[..., None], sums.shape)
        return np.divide(sums, number, out=np.full(sums.shape, np.nan), where=number > 0)


def _states(number: np.ndarray, n_languages: int) -> np.ndarray:
    """Items in each state, int64 [layer, neuron, state], of languages [item, layer, neuron]."""
    none, one, every = (np.count_nonzero(number == n, axis=0) for n in (0, 1, n_languages))
    return np.stack([none, one, len(number) - none - one - every, every], axis=-1)


def _expected(rate: np.ndarray) -> np.ndarray:
    """Chance of each state, float64 [layer, neuron, state], of coins [language, layer, neuron]."""
    none, one, every = np.ones(rate.shape[1:]), np.zeros(rate.shape[1:]), np.ones(rate.shape[1:])
    for q in rate:
        one = one * (1 - q) + none * q
        none, every = none * (1 - q), every * q
    return np.stack([none, one, np.maximum(1 - none - one - every, 0), every], axis=-1)
