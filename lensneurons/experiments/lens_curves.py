"""What each layer would say next, summed up by the language of the tokens that it would say.

The logit lens (`lensneurons.experiments.lens`) gives every counted token a distribution over the
vocabulary after every layer. Its probability is added up over the tokens of each language:

    own      tokens of the language that the text is written in
    pivot    tokens of the pivot, English by default; not defined for texts in the pivot
    others   tokens of all other languages together
    shared   tokens of no one language: used by several, or without a letter
    rare     tokens that the texts hardly use, and numbers that no token has
    true     the token that does come next: one token, and part of one of the others

Own, pivot, others, shared and rare add up to 1. A language mean is weighted by tokens; pooled means
weigh the languages alike and leave the pivot out.

A language has a share of the vocabulary, so some of its mass is chance: `pivot_lead` is the control
for "the pivot is special", the mass of the pivot less the mean mass of one other language.

>>> curves = ln.logit_lens(model, corpus)                                  # doctest: +SKIP
>>> curves.interval("pivot", pooled=True), curves.pivot_lead(pooled=True)  # doctest: +SKIP

What this does not show: that a model thinks in the pivot. Mass on its tokens says that the stream
points to where the unembedding keeps them; what later layers read from it may be something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lensneurons.display import html_table
from lensneurons.errors import LensNeuronsError, choose
from lensneurons.evaluation.item_intervals import ItemDraws
from lensneurons.intervals import Interval
from lensneurons.provenance import Provenance
from lensneurons.shapes import KindSizes, LensMass, LensMeans, LensValues, TextNumbers
from lensneurons.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    import pandas as pd

KIND = "logit-lens curves"
LensKind = Literal["own", "pivot", "others", "shared", "rare", "true"]
KINDS: tuple[LensKind, ...] = ("own", "pivot", "others", "shared", "rare", "true")


@dataclass(frozen=True, eq=False, repr=False)
class LensCurves:
    """Probability by layer, text and kind of token; immutable.

    Attributes:
        mass: float64 [layer, text, token kind], probability summed over the counted tokens of the
            text; token kinds are `owners`, then shared, then rare.
        true: float64 [layer, text], probability of the true next token, summed likewise.
        tokens: int64 [text], counted tokens that have a token before them.
        language: int [text], number of each text's language.
        item_ids: name of each text's item, the same in every language.
        languages: codes of the texts' languages; the order of every result by language.
        owners: languages that a token can belong to.
        vocabulary: int64 [token kind], how many numbers of the vocabulary are of each kind.
        pivot: one of the owners, or None.
        share: least share of a token's relative frequency for it to belong to one language.
        least: a token used less often is rare.
        provenance: model and texts.
    """

    mass: LensMass
    true: LensValues
    tokens: TextNumbers
    language: TextNumbers
    item_ids: tuple[str, ...]
    languages: tuple[str, ...]
    owners: tuple[str, ...]
    vocabulary: KindSizes
    pivot: str | None = "en"
    share: float = 0.9
    least: int = 2
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            view = getattr(self, name).view()  # the caller's own array stays writable
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.mass)

    @property
    def kinds(self) -> tuple[LensKind, ...]:
        """The kinds that there are: without a pivot, all but ``"pivot"``."""
        return KINDS if self.pivot else tuple(kind for kind in KINDS if kind != "pivot")

    @cached_property
    def means(self) -> LensMeans:
        """float64 [layer, language, kind]: mean probability, 0 to 1, in the order of `KINDS`; NaN
        for the pivot's mass in its own texts, and without a pivot.
        """
        found = [self._mean(self._sums(kind)) for kind in self.kinds]
        for kind, values in zip(self.kinds, found, strict=True):
            if kind == "pivot":
                values[:, self._in_pivot] = np.nan
        if not self.pivot:
            found.insert(KINDS.index("pivot"), np.full_like(found[0], np.nan))
        return np.stack(found, axis=-1)

    def mass_on(self, owner: str) -> np.ndarray:
        """float64 [layer, language]: mean probability of the tokens of one language.

        Raises:
            LensNeuronsError: no such language; those that tokens belong to get listed.
        """
        place = self.owners.index(choose(owner, self.owners, "language"))
        return self._mean(self.mass[..., place])

    def interval(
        self, kind: LensKind, *, pooled: bool = False, draws: int = 1000, level: float = 0.95,
        seed: int = 0,
    ) -> Interval:  # fmt: skip
        """Mean probability of a kind of tokens with its bootstrap interval over items.

        Args:
            kind: ``"own"``, ``"pivot"``, ``"others"``, ``"shared"``, ``"rare"`` or ``"true"``.
            pooled: whether the languages but the pivot are averaged, each counting the same.
            draws: how many corpora to draw; an item is drawn with all its languages.
            level: coverage.
            seed: the same seed gives the same interval.

        Returns:
            [layer, language], or [layer] where pooled; NaN where `means` is.

        Raises:
            LensNeuronsError: no such kind, or fewer than two items.
        """
        corpora = ItemDraws(self.item_ids, self.language, draws, seed)
        return self._bootstrap(self._sums(kind), corpora, level, pooled, kind == "pivot")

    def difference(
        self, first: LensKind, second: LensKind, *, pooled: bool = False, draws: int = 1000,
        level: float = 0.95, seed: int = 0,
    ) -> Interval:  # fmt: skip
        """How much more probable one kind of tokens is than another, paired over the same items.

        Args:
            first: a kind.
            second: the kind that is taken away.
            pooled: as for `interval`.
            draws: as for `interval`.
            level: as for `interval`.
            seed: as for `interval`.

        Raises:
            LensNeuronsError: no such kind, or fewer than two items.
        """
        corpora = ItemDraws(self.item_ids, self.language, draws, seed)
        values = self._sums(first) - self._sums(second)
        return self._bootstrap(values, corpora, level, pooled, "pivot" in (first, second))

    def pivot_lead(
        self, *, pooled: bool = False, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mass of the pivot less the mean mass of one other language that is not the text's own.

        Args:
            pooled: as for `interval`.
            draws: as for `interval`.
            level: as for `interval`.
            seed: as for `interval`.

        Raises:
            LensNeuronsError: no pivot, no third language to compare it with, or fewer than two
                items.
        """
        others = len(self.owners) - 2
        if others < 1:
            raise LensNeuronsError(
                f"tokens belong to {list(self.owners)} alone: comparing the pivot with another "
                "language than the text's own needs three; give reference= more languages"
            )
        corpora = ItemDraws(self.item_ids, self.language, draws, seed)
        values = self._sums("pivot") - self._sums("others") / others
        return self._bootstrap(values, corpora, level, pooled, True)

    @property
    def _in_pivot(self) -> np.ndarray:
        """Bool [language]: the pivot."""
        return np.array([language == self.pivot for language in self.languages])

    def _sums(self, kind: str) -> np.ndarray:
        """float64 [layer, text]: probability of a kind, summed over the tokens of each text."""
        choose(kind, self.kinds, "kind")
        n = len(self.owners)
        if kind in ("shared", "rare"):
            return self.mass[..., n + (kind == "rare")]
        if kind == "true":
            return self.true
        own = np.array([self.owners.index(language) for language in self.languages])[self.language]
        is_own = np.arange(n) == own[:, None]
        is_pivot = (np.array(self.owners) == self.pivot) & ~is_own
        chosen = {"own": is_own, "pivot": is_pivot, "others": ~(is_own | is_pivot)}[kind]
        return (self.mass[..., :n] * chosen).sum(axis=-1)

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        """float64 [layer, language] from sums [layer, text]."""
        n = len(self.languages)
        by_language = np.stack([np.bincount(self.language, row, minlength=n) for row in sums])
        return by_language / np.bincount(self.language, self.tokens, minlength=n)

    def _bootstrap(
        self, sums: np.ndarray, corpora: ItemDraws, level: float, pooled: bool, no_pivot: bool
    ) -> Interval:
        estimate, drawn = self._mean(sums), corpora.means(sums, self.tokens)
        if pooled:
            kept = ~self._in_pivot if (~self._in_pivot).any() else self._in_pivot
            return corpora.interval(estimate[:, kept].mean(-1), drawn[..., kept].mean(-1), level)
        found = corpora.interval(estimate, drawn, level)
        hidden = self._in_pivot & no_pivot
        ends = (np.where(hidden, np.nan, one) for one in (found.estimate, found.low, found.high))
        return replace(found, **dict(zip(("estimate", "low", "high"), ends, strict=True)))

    def to_pandas(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a layer, language and kind: probability, low, high (NaN with one item alone).

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        import pandas as pd

        places = [KINDS.index(kind) for kind in self.kinds]
        ends = np.full((2, *self.means.shape), np.nan)
        if len(set(self.item_ids)) > 1:
            for kind, place in zip(self.kinds, places, strict=True):
                found = self.interval(kind, level=level)
                ends[..., place] = found.low, found.high
        values = np.concatenate([self.means[None], ends])[..., places]
        layer, language, kind = (axis.ravel() for axis in np.indices(values.shape[1:]))
        columns = {
            "layer": layer,
            "language": np.array(self.languages)[language],
            "kind": np.array(self.kinds)[kind],
        }
        numbers = zip(("probability", "low", "high"), values, strict=True)
        return pd.DataFrame({**columns, **{name: one.ravel() for name, one in numbers}})

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        details: dict[str, Any] = {name: getattr(self, name) for name in (*_LISTS, *_WORDS)}
        details["provenance"] = self.provenance.to_dict()
        return save_arrays(path, KIND, {name: getattr(self, name) for name in _ARRAYS}, details)

    @classmethod
    def load(cls, path: str | Path) -> LensCurves:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        details |= {name: tuple(details[name]) for name in _LISTS}
        details["provenance"] = Provenance.from_dict(details["provenance"])
        return cls(**arrays, **details)

    @property
    def description(self) -> str:
        """Texts and tokens in one line, for the subtitle of every figure."""
        tokens = f"{int(self.tokens.sum()):,} {self.provenance.scope} tokens"
        return (
            f"{tokens} of {len(set(self.item_ids))} items in {len(self.languages)} languages; "
            f"a token is of the language with {self.share:.0%} of its use, rare below "
            f"{self.least} uses"
        )

    def __repr__(self) -> str:
        return f"LensCurves({self.n_layers} layers; {' '.join(self.languages)}; {self.description})"

    def _repr_html_(self) -> str:
        kept = ~self._in_pivot if (~self._in_pivot).any() else self._in_pivot
        places = [KINDS.index(kind) for kind in self.kinds]
        pooled = self.means[:, kept].mean(axis=1)[:, places]
        rows: Sequence[Sequence[object]] = [
            (layer, *(f"{value:.3f}" for value in row)) for layer, row in enumerate(pooled)
        ]
        title = f"Probability by kind of token, mean over languages: {self.description}"
        return html_table(title, ("layer", *self.kinds), rows)


_ARRAYS = ("mass", "true", "tokens", "language", "vocabulary")
_LISTS = ("item_ids", "languages", "owners")
_WORDS = ("pivot", "share", "least")
